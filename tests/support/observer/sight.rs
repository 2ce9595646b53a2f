//! The observations as a row of a table, and the checks on them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::fault_list::{Effect, Fault};

/// Maximum number of entries of a kind that are shown.
const SHOWN_MAX: usize = 4;
/// A fault that lasts this long must be reported.
const SEEN_FROM: Duration = Duration::from_secs(2);
/// Maximum number of log lines of two workers for a fault of up to a minute.
const LINES_MAX: usize = 49;

/// Everything that the observer of one fault has recorded.
pub struct Sight {
    name: String,
    lasting: Duration,
    effect: Effect,
    states: Vec<(String, u64)>,
    reasons: Vec<(String, u64)>,
    events: Vec<(String, u64)>,
    lines: Vec<Line>,
    metrics: BTreeSet<String>,
    /// Time from the healing until everything is reported as healthy.
    well: Duration,
}

struct Line {
    /// Time since the fault was injected.
    at: Duration,
    level: String,
    target: String,
    words: String,
    message: String,
    /// Whether the manual of the logs lists it.
    is_known: bool,
}

/// Observations without a fault, which say nothing about a fault.
#[derive(Default)]
pub struct Quiet {
    states: BTreeSet<String>,
    events: BTreeSet<String>,
    lines: BTreeSet<String>,
    metrics: BTreeSet<String>,
}

impl Sight {
    pub fn of(fault: &Fault, report: &Value) -> Self {
        let manual = manual();
        let lines = report["lines"].as_array().expect("lines");
        let metrics = report["metrics"].as_array().expect("series");
        Self {
            name: fault.name.clone(),
            lasting: fault.lasting,
            effect: fault.effect,
            states: counted(&report["states"]),
            reasons: counted(&report["reasons"]),
            events: counted(&report["events"]),
            lines: lines.iter().map(|line| Line::of(line, &manual)).collect(),
            metrics: metrics.iter().map(text).collect(),
            well: Duration::from_millis(report["well_ms"].as_u64().expect("a number")),
        }
    }

    pub fn to_quiet(&self) -> Quiet {
        let names = |list: &[(String, u64)]| list.iter().map(|(name, _)| name.clone()).collect();
        Quiet {
            states: names(&self.states),
            events: names(&self.events),
            lines: self.lines.iter().map(Line::shown).collect(),
            metrics: self.metrics.clone(),
        }
    }

    /// The checks. `quiet`: the observations without a fault.
    pub fn check(&self, quiet: &Quiet) {
        let name = &self.name;
        for line in &self.lines {
            let message = &line.message;
            assert!(line.is_known, "{name}: not in docs/logs.md: {message}");
        }
        let manual = read("docs/metrics.md");
        for series in &self.metrics {
            let row = format!("| `{}` |", family(series));
            assert!(
                manual.contains(&row),
                "{name}: not in docs/metrics.md: {series}"
            );
        }
        let lines = self.lines.len();
        assert!(lines <= LINES_MAX, "{name}: {lines} lines");
        let is_seen = [
            !self.states(quiet).is_empty() || !self.reasons.is_empty(),
            !self.events(quiet).is_empty(),
            !self.lines(quiet).is_empty(),
            !self.metrics(quiet).is_empty(),
        ];
        if self.effect == Effect::Harm && self.lasting >= SEEN_FROM {
            let words = "seen in [state, event, log, metric]";
            assert_eq!(is_seen, [true; 4], "{name}: {words}: {}", self.row(quiet));
        }
        if self.effect == Effect::None {
            assert!(
                !self.has_warned() && self.reasons.is_empty(),
                "{}",
                self.row(quiet)
            );
        }
    }

    /// Every line.
    pub fn log(&self) -> String {
        let mut log = format!("{}:\n", self.name);
        for line in &self.lines {
            let at = line.at.as_secs_f64();
            let _ = writeln!(
                log,
                "{at:7.3} {} {} {}",
                line.level, line.target, line.message
            );
        }
        log
    }

    pub fn has_warned(&self) -> bool {
        self.lines.iter().any(|line| line.level != "info")
    }

    /// Column headings.
    pub const HEAD: &'static str = "\
| fault | first line after | states, reasons for degraded | events | log lines | metrics | all well after the heal |
| --- | --- | --- | --- | --- | --- | --- |";

    pub fn row(&self, quiet: &Quiet) -> String {
        let next = self
            .lines
            .iter()
            .find(|line| !quiet.lines.contains(&line.shown()));
        let first = next.map_or_else(
            || "none".into(),
            |line| format!("{:.1} s", line.at.as_secs_f64()),
        );
        let mut states = self.states(quiet);
        if !self.reasons.is_empty() {
            let reasons = self.reasons.iter().map(|(reason, _)| reason.as_str());
            let reasons: Vec<_> = reasons.collect();
            states.push(format!("degraded: {}", reasons.join(", ")));
        }
        format!(
            "| {} | {first} | {} | {} | {} | {} | {:.1} s |",
            self.name,
            cell(&states),
            cell(&self.events(quiet)),
            cell(&self.lines(quiet)),
            cell(&self.metrics(quiet)),
            self.well.as_secs_f64(),
        )
    }

    fn states(&self, quiet: &Quiet) -> Vec<String> {
        let states = self.states.iter().map(|(state, _)| state.clone());
        // The state at the beginning and the end.
        let is_well = |state: &str| state.ends_with(" Stable") || state.ends_with(" Idle");
        states
            .filter(|state| !quiet.states.contains(state) && !is_well(state))
            .collect()
    }

    fn events(&self, quiet: &Quiet) -> Vec<String> {
        let mut events: Vec<_> = self
            .events
            .iter()
            .filter(|(kind, _)| !quiet.events.contains(kind))
            .collect();
        events.sort_by_key(|(kind, _)| rank(&EVENTS, kind));
        let shown = events
            .iter()
            .map(|(kind, count)| times(&format!("`{kind}`"), *count));
        shown.collect()
    }

    fn lines(&self, quiet: &Quiet) -> Vec<String> {
        let mut counts: Vec<(&Line, u64)> = Vec::new();
        for line in &self.lines {
            if quiet.lines.contains(&line.shown()) {
                continue;
            }
            match counts
                .iter_mut()
                .find(|(known, _)| known.shown() == line.shown())
            {
                Some((_, count)) => *count += 1,
                None => counts.push((line, 1)),
            }
        }
        counts.sort_by_key(|(line, _)| rank(&["error", "warn", "info"], &line.level));
        let shown = counts
            .iter()
            .map(|(line, count)| times(&line.shown(), *count));
        shown.collect()
    }

    /// Grouped by family, with the labels that distinguish its series.
    fn metrics(&self, quiet: &Quiet) -> Vec<String> {
        let mut families: Vec<(&str, Vec<String>)> = Vec::new();
        for series in self.metrics.difference(&quiet.metrics) {
            let labels: Vec<&str> = series.split('"').skip(1).step_by(2).collect();
            let labels = labels.join(" ");
            match families
                .iter_mut()
                .find(|(known, _)| *known == family(series))
            {
                Some((_, known)) => known.push(labels),
                None => families.push((family(series), vec![labels])),
            }
        }
        families.sort_by_key(|(family, _)| rank(&METRICS, family));
        let shown = families
            .into_iter()
            .map(|(family, labels)| match &labels[..] {
                [none] if none.is_empty() => format!("`{family}`"),
                _ => format!("`{family}` ({})", bounded(&labels, 3)),
            });
        shown.collect()
    }
}

/// The largest change first.
const EVENTS: [&str; 16] = [
    "Fatal",
    "Calculator(Fatal)",
    "Calculator(LeadershipLost)",
    "IdLost",
    "IdTakenOver",
    "Degraded",
    "Alert",
    "Recovered",
    "Breaker",
    "Calculator(Degraded)",
    "Failed",
    "Calculator(Failed)",
    "IdRegained",
    "Id",
    "Leader",
    "Calculator(Member)",
];
const METRICS: [&str; 14] = [
    "store_breaker_changes_total",
    "calculator_degraded",
    "watch_losses_total",
    "worker_heartbeats_total",
    "store_calls_total",
    "store_writes_refused_total",
    "rebalances_total",
    "manager_leadership_changes_total",
    "manager_id_claims_total",
    "manager_state_seconds_total",
    "store_retries_total",
    "publish_retries_total",
    "worker_heartbeats_late_total",
    "watch_resyncs_total",
];

fn rank(order: &[&str], what: &str) -> usize {
    let place = order.iter().position(|known| *known == what);
    place.unwrap_or(order.len())
}

fn times(what: &str, count: u64) -> String {
    match count {
        1 => what.to_owned(),
        _ => format!("{what} × {count}"),
    }
}

fn cell(list: &[String]) -> String {
    match list {
        [] => "nothing".into(),
        _ => bounded(list, SHOWN_MAX),
    }
}

fn bounded(list: &[String], most: usize) -> String {
    let shown = &list[..list.len().min(most)];
    let more = match list.len() - shown.len() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    format!("{}{more}", shown.join(", "))
}

/// The name in the manual.
fn family(series: &str) -> &str {
    let name = series.split('{').next().unwrap_or_default();
    name.trim_start_matches("divvy_")
}

fn counted(list: &Value) -> Vec<(String, u64)> {
    let list = list.as_array().expect("a list").iter();
    list.map(|pair| (text(&pair[0]), pair[1].as_u64().expect("a count")))
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(path).expect("a document")
}

// --- lines in the form of the manual of the logs ---

/// A row of `docs/logs.md`.
struct Entry {
    target: String,
    level: String,
    /// The message, with a name in braces for each variable part.
    words: String,
}

fn manual() -> Vec<Entry> {
    let text = read("docs/logs.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let plain = |cell: &str| cell.trim_matches('`').to_owned();
        Entry {
            target: plain(cells[0]),
            level: cells[1].to_owned(),
            words: plain(cells[2]),
        }
    })
    .collect()
}

impl Entry {
    fn fits(&self, line: &Value) -> bool {
        let is_level = self.level == "varies" || line["level"] == self.level.as_str();
        line["target"] == self.target.as_str() && is_level && self.says(&line["message"])
    }

    /// Returns whether the line contains its fixed parts, in order.
    fn says(&self, message: &Value) -> bool {
        let mut rest = message.as_str().expect("a message");
        let constants = self.constants();
        let last = constants.len() - 1;
        for (index, constant) in constants.iter().enumerate() {
            let place = match index {
                0 => rest.starts_with(constant).then_some(0),
                _ if index == last => rest
                    .ends_with(constant)
                    .then(|| rest.len() - constant.len()),
                _ => rest.find(constant),
            };
            let Some(place) = place else {
                return false;
            };
            rest = &rest[place + constant.len()..];
        }
        last > 0 || rest.is_empty()
    }

    /// The fixed parts between the braces. The first and the last may be empty.
    fn constants(&self) -> Vec<&str> {
        let mut constants = Vec::new();
        let mut rest = self.words.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            constants.push(before);
            rest = after.split_once('}').map_or("", |(_, after)| after);
        }
        constants.push(rest);
        constants
    }

    fn letters(&self) -> usize {
        let constants = self.constants();
        let letters = constants.iter().flat_map(|constant| constant.chars());
        letters.filter(|c| c.is_alphabetic()).count()
    }
}

impl Line {
    fn of(line: &Value, manual: &[Entry]) -> Self {
        let message = text(&line["message"]);
        let entry = manual
            .iter()
            .filter(|entry| entry.fits(line))
            .max_by_key(|entry| entry.letters());
        // A message that consists of braces has no fixed part. The text that it stands for
        // identifies it, up to its details.
        let start = message.find([':', ';', '(']).unwrap_or(message.len());
        let start = message[..start].trim_end().to_owned();
        let words = match entry {
            Some(entry) if entry.letters() > 4 => entry.words.clone(),
            _ => start,
        };
        Self {
            at: Duration::from_millis(line["ms"].as_u64().expect("a number")),
            level: text(&line["level"]),
            target: text(&line["target"]),
            words: words.replace('|', "/"),
            is_known: entry.is_some(),
            message,
        }
    }

    fn shown(&self) -> String {
        format!("{} `{}` `{}`", self.level, self.target, self.words)
    }
}

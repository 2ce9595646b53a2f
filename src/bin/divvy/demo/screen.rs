//! Where the demo is shown: redrawn on a terminal, as plain lines elsewhere.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Stdout, Write};
use std::time::{Duration, Instant};

use divvy::{CalculatorState, Reason, Version};

use super::fleet::Condition;
use super::ledger::{Ledger, Step};
use super::line::{Line, Style};

/// How often a terminal is redrawn.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

/// Events kept for the screen.
const EVENTS_MAX: usize = 64;

/// Lines that events get at least.
const EVENTS_MIN: usize = 4;

/// The longest bar of a load, in characters.
const BAR_MAX: usize = 32;

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// One worker as shown.
pub struct Row {
    /// Its id.
    pub name: String,
    /// What became of it.
    pub condition: Condition,
    /// The version that it follows.
    pub version: Version,
    /// How many partitions it holds.
    pub partitions: usize,
    /// Their weight.
    pub load: i64,
}

/// Everything that is shown at one moment.
pub struct View<'a> {
    /// What the store is.
    pub store: &'a str,
    /// Who leads.
    pub leader: &'a str,
    /// What it is doing.
    pub state: Option<CalculatorState>,
    /// Why.
    pub reason: Option<Reason>,
    /// The version in force.
    pub version: Version,
    /// Whether it says that it is degraded.
    pub is_degraded: bool,
    /// How many partitions there are.
    pub partitions: usize,
    /// Partitions without an owner.
    pub unowned: usize,
    /// The workers.
    pub rows: &'a [Row],
    /// The steps so far.
    pub ledger: &'a Ledger,
    /// Time since the beginning.
    pub elapsed: Duration,
}

/// The screen.
pub struct Screen {
    out: Stdout,
    redraws: bool,
    colours: bool,
    is_entered: bool,
    drawn: Instant,
    events: VecDeque<Line>,
    last_frame: Vec<Line>,
}

impl Screen {
    /// Redraws when the standard output is a terminal that can. `NO_COLOR` keeps it colourless.
    pub fn open() -> io::Result<Self> {
        let out = io::stdout();
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let redraws = out.is_terminal() && !is_dumb;
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let mut screen = Self {
            out,
            redraws,
            colours: redraws && !no_colour,
            is_entered: false,
            drawn: Instant::now(),
            events: VecDeque::new(),
            last_frame: Vec::new(),
        };
        if redraws {
            screen.is_entered = true;
            screen.write(ENTER)?;
        }
        Ok(screen)
    }

    /// Whether the screen is redrawn.
    pub fn redraws(&self) -> bool {
        self.redraws
    }

    /// Whether it is time to redraw.
    pub fn is_due(&self) -> bool {
        self.redraws && self.drawn.elapsed() >= REDRAW_INTERVAL
    }

    /// A step begins.
    pub fn title(&mut self, text: &str) -> io::Result<()> {
        self.say(Line::new().put(Style::Bold, text))
    }

    /// Something expected came about, or did not.
    pub fn check(&mut self, text: &str, held: bool) -> io::Result<()> {
        let verdict = verdict(held);
        self.say(
            Line::new()
                .put(verdict.0, format!("   {:<6} ", verdict.1))
                .put(Style::Plain, text),
        )
    }

    /// A leader's event.
    pub fn event(&mut self, at: Duration, leader: &str, text: &str) -> io::Result<()> {
        let line = Line::new()
            .put(
                Style::Dim,
                format!("   {:6.2} s  {leader}: ", at.as_secs_f64()),
            )
            .put(Style::Plain, text);
        if !self.redraws {
            return self.say(line);
        }
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(line);
        Ok(())
    }

    /// Anything else worth a line.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        self.say(Line::new().put(Style::Dim, format!("   {text}")))
    }

    /// Redraws.
    pub fn draw(&mut self, view: &View<'_>) -> io::Result<()> {
        let (columns, rows) = size();
        self.last_frame = frame(view, &self.events, columns, rows);
        self.drawn = Instant::now();
        let mut text = String::from("\x1b[H");
        for (number, line) in self.last_frame.iter().enumerate() {
            if number > 0 {
                text.push_str("\r\n");
            }
            text.push_str(&line.render(columns, self.colours));
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        self.write(&text)
    }

    /// The summary: the last table and the result of each step.
    pub fn summary(
        &mut self,
        ledger: &Ledger,
        unowned: usize,
        took: Duration,
        failure: Option<&str>,
    ) -> io::Result<()> {
        self.leave()?;
        let columns = if self.redraws { size().0 } else { usize::MAX };
        let mut lines = std::mem::take(&mut self.last_frame);
        lines.truncate(table_end(&lines));
        lines.push(Line::new());
        lines.extend(summary_lines(ledger));
        let (held, all) = ledger.checks();
        lines.push(Line::new());
        lines.push(Line::new().put(
            Style::Plain,
            format!(
                "{} publications, {} partitions moved, {unowned} unowned at the end, {:.1} s",
                ledger.publications(),
                ledger.moved(),
                took.as_secs_f64()
            ),
        ));
        let verdict = format!("{held} of {all} checks held");
        lines.push(match failure {
            None => Line::new().put(Style::Good, verdict),
            Some(why) => Line::new().put(Style::Bad, format!("{verdict}: {why}")),
        });
        let mut text = String::new();
        for line in &lines {
            text.push_str(&line.render(columns, self.colours));
            text.push('\n');
        }
        self.write(&text)
    }

    /// Prints a line at once where nothing is redrawn.
    fn say(&mut self, line: Line) -> io::Result<()> {
        if self.redraws {
            return Ok(());
        }
        let text = line.render(usize::MAX, self.colours);
        self.write(&format!("{text}\n"))
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    fn leave(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_entered) {
            self.write(LEAVE)?;
        }
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal is left as it was found, however the demo ends.
        let _ = self.leave();
    }
}

/// Columns and rows of the terminal.
fn size() -> (usize, usize) {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: `size` is a valid, writable winsize; the call keeps no reference to it.
    let status = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    if status != 0 || size.ws_col == 0 || size.ws_row == 0 {
        return (80, 24);
    }
    (usize::from(size.ws_col), usize::from(size.ws_row))
}

/// A screenful.
fn frame(view: &View<'_>, events: &VecDeque<Line>, columns: usize, rows: usize) -> Vec<Line> {
    let steps = step_lines(view.ledger);
    let mut lines = header(view);
    let fixed = lines.len() + 2 + steps.len() + 1 + EVENTS_MIN;
    lines.extend(table(view.rows, columns, rows.saturating_sub(fixed).max(3)));
    lines.push(Line::new());
    lines.extend(steps);
    lines.push(Line::new());
    let room = rows.saturating_sub(lines.len());
    lines.extend(
        events
            .iter()
            .skip(events.len().saturating_sub(room))
            .cloned(),
    );
    lines.truncate(rows);
    lines
}

fn header(view: &View<'_>) -> Vec<Line> {
    let title = Line::new().put(Style::Bold, " divvy demo").put(
        Style::Dim,
        format!("   {}   {:.1} s", view.store, view.elapsed.as_secs_f64()),
    );
    let state = view
        .state
        .map_or_else(String::new, |state| state.to_string());
    let reason = view
        .reason
        .map_or_else(String::new, |reason| format!(" ({reason})"));
    let mut status = Line::new()
        .put(Style::Plain, format!(" {} ", view.leader))
        .put(state_style(view.state), format!("{state}{reason}"))
        .put(Style::Plain, format!("   version {}", view.version));
    if view.is_degraded {
        status = status.put(Style::Warn, "   degraded");
    }
    let unowned = if view.unowned == 0 {
        Style::Good
    } else {
        Style::Warn
    };
    let status = status
        .put(Style::Plain, format!("   {} partitions, ", view.partitions))
        .put(unowned, format!("{} unowned", view.unowned));
    vec![title, status, Line::new()]
}

fn state_style(state: Option<CalculatorState>) -> Style {
    match state {
        Some(CalculatorState::Scaling) => Style::Warn,
        Some(CalculatorState::Rebalancing) => Style::Accent,
        Some(CalculatorState::Emergency) => Style::Bad,
        Some(CalculatorState::Idle) | None => Style::Good,
    }
}

/// The first line of the table, by which its place in a frame is known.
const TABLE_HEAD: &str = " worker       state     version  partitions  load";

fn table(rows: &[Row], columns: usize, rows_max: usize) -> Vec<Line> {
    let most = rows.iter().map(|row| row.load).max().unwrap_or(0).max(1);
    let bar_max = columns
        .saturating_sub(TABLE_HEAD.len() + 8)
        .clamp(4, BAR_MAX);
    let mut lines = vec![Line::new().put(Style::Dim, TABLE_HEAD)];
    let shown = if rows.len() > rows_max {
        rows_max.saturating_sub(1)
    } else {
        rows.len()
    };
    for row in &rows[..shown] {
        lines.push(table_row(row, most, bar_max));
    }
    if shown < rows.len() {
        let text = format!(" and {} more", rows.len() - shown);
        lines.push(Line::new().put(Style::Dim, text));
    }
    lines
}

fn table_row(row: &Row, most: i64, bar_max: usize) -> Line {
    let (style, state) = match row.condition {
        Condition::Up => (Style::Good, "up"),
        Condition::Left => (Style::Dim, "left"),
        Condition::Kept => (Style::Dim, "restarts"),
        Condition::Crashed => (Style::Bad, "crashed"),
        Condition::Frozen => (Style::Warn, "offline"),
    };
    let line = Line::new()
        .put(Style::Plain, format!(" {:<12} ", row.name))
        .put(style, format!("{state:<8}"));
    if row.condition != Condition::Up {
        return line;
    }
    let version = format!("v{}", row.version);
    line.put(
        Style::Plain,
        format!("  {version:>7}  {:>10}  ", row.partitions),
    )
    .put(Style::Accent, bar(row.load, most, bar_max))
    .put(Style::Dim, format!(" {}", row.load))
}

/// A bar as long as `load` is of `most`, in eighths of a character.
fn bar(load: i64, most: i64, length_max: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = i128::from(load.max(0)) * (length_max as i128 * 8) / i128::from(most.max(1));
    let eighths = usize::try_from(eighths).unwrap_or(0);
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

/// One line per step, and the checks of the running one.
fn step_lines(ledger: &Ledger) -> Vec<Line> {
    let mut lines = Vec::new();
    for (number, step) in ledger.steps.iter().enumerate() {
        let name = format!("{}. {:<15}", number + 1, step.title);
        if step.took.is_some() {
            lines.push(finished(step, &name));
            continue;
        }
        let line = Line::new()
            .put(Style::Bold, format!(" now {name} "))
            .put(Style::Plain, &step.story);
        lines.push(line);
        for check in &step.checks {
            let (style, word) = verdict(check.held);
            let line = Line::new()
                .put(style, format!("        {word:<6} "))
                .put(Style::Dim, &check.text);
            lines.push(line);
        }
    }
    lines
}

fn finished(step: &Step, name: &str) -> Line {
    if let Some(why) = &step.skipped {
        return Line::new().put(Style::Dim, format!("   - {name} left out: {why}"));
    }
    let (style, word) = verdict(step.held());
    let outcome = if step.published.is_empty() {
        "nothing published".into()
    } else {
        step.publications()
    };
    Line::new()
        .put(style, format!(" {word:>3} "))
        .put(Style::Plain, format!("{name} {outcome}"))
        .put(Style::Dim, format!(", {} moved", step.moved))
}

fn verdict(held: bool) -> (Style, &'static str) {
    if held {
        (Style::Good, "ok")
    } else {
        (Style::Bad, "FAILED")
    }
}

/// Where the table of a frame ends: at the first empty line after its head.
fn table_end(lines: &[Line]) -> usize {
    let head = lines.iter().position(|line| line.text() == TABLE_HEAD);
    let rest = head.map_or(0, |head| {
        let below = lines[head..].iter();
        below.take_while(|line| !line.text().is_empty()).count()
    });
    head.unwrap_or(0) + rest
}

fn summary_lines(ledger: &Ledger) -> Vec<Line> {
    let published: Vec<String> = ledger.steps.iter().map(Step::publications).collect();
    let width = published.iter().map(String::len).max().unwrap_or(0).max(9);
    let head = format!(
        "        step               {:<width$}  moved  unowned    took",
        "published"
    );
    let mut lines = vec![Line::new().put(Style::Dim, head)];
    for (number, (step, published)) in ledger.steps.iter().zip(&published).enumerate() {
        let name = format!("{}. {:<15}", number + 1, step.title);
        if let Some(why) = &step.skipped {
            lines.push(Line::new().put(Style::Dim, format!(" -      {name} left out: {why}")));
            continue;
        }
        let (style, word) = verdict(step.held());
        let took = step.took.unwrap_or_default().as_secs_f64();
        let rest = format!(
            "{name} {published:<width$}  {:>5}  {:>7}  {took:>4.1} s",
            step.moved, step.unowned
        );
        lines.push(
            Line::new()
                .put(style, format!(" {word:<6} "))
                .put(Style::Plain, rest),
        );
        for check in step.checks.iter().filter(|check| !check.held) {
            let text = format!("        not so: {}", check.text);
            lines.push(Line::new().put(Style::Bad, text));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, condition: Condition, load: i64) -> Row {
        Row {
            name: name.into(),
            condition,
            version: 7,
            partitions: usize::try_from(load).unwrap() / 100,
            load,
        }
    }

    fn view<'a>(rows: &'a [Row], ledger: &'a Ledger) -> View<'a> {
        View {
            store: "embedded store",
            leader: "worker-0",
            state: Some(CalculatorState::Scaling),
            reason: Some(Reason::PlannedScale),
            version: 7,
            is_degraded: false,
            partitions: 64,
            unowned: 0,
            rows,
            ledger,
            elapsed: Duration::from_millis(1_234),
        }
    }

    fn texts(lines: &[Line]) -> Vec<String> {
        lines.iter().map(Line::text).collect()
    }

    #[test]
    fn bar_length_matches_share_in_eighths() {
        assert_eq!(bar(100, 100, 4), "████");
        assert_eq!(bar(50, 100, 4), "██");
        assert_eq!(bar(1, 32, 4), "▏");
        assert_eq!(bar(0, 100, 4), "");
        assert_eq!(bar(i64::MAX, i64::MAX, 4), "████");
        assert_eq!(bar(-5, 0, 4), "");
    }

    #[test]
    fn frame_never_exceeds_terminal() {
        let rows: Vec<Row> = (0..70)
            .map(|n| row(&format!("worker-{n}"), Condition::Up, n * 100))
            .collect();
        let ledger = Ledger::default();
        let events: VecDeque<Line> = (0..99)
            .map(|n| Line::new().put(Style::Plain, format!("event {n}")))
            .collect();
        for (columns, height) in [(80, 24), (40, 10), (10, 3), (200, 60)] {
            let lines = frame(&view(&rows, &ledger), &events, columns, height);
            assert!(lines.len() <= height, "{columns}x{height}: {}", lines.len());
            for line in &lines {
                let text = line.render(columns, false);
                assert!(text.chars().count() <= columns, "{text}");
            }
        }
    }

    #[test]
    fn frame_shows_workers_loads_and_newest_events() {
        let rows = [
            row("worker-0", Condition::Up, 1_300),
            row("worker-1", Condition::Left, 0),
        ];
        let ledger = Ledger::default();
        let events: VecDeque<Line> = (0..99)
            .map(|n| Line::new().put(Style::Plain, format!("event {n}")))
            .collect();
        let text = texts(&frame(&view(&rows, &ledger), &events, 80, 24)).join("\n");
        for part in [
            "worker-0 Scaling (planned_scale)   version 7   64 partitions, 0 unowned",
            "worker-0     up             v7          13  ████",
            "worker-1     left",
            "event 98",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        assert!(!text.contains("event 1\n"), "{text}");
    }

    #[test]
    fn table_end_is_found_in_rendered_frame() {
        let rows = [row("worker-0", Condition::Up, 100)];
        let ledger = Ledger::default();
        let lines = frame(&view(&rows, &ledger), &VecDeque::new(), 80, 24);
        let end = table_end(&lines);
        assert!(texts(&lines)[end - 1].starts_with(" worker-0"));
        assert_eq!(table_end(&[]), 0);
    }
}

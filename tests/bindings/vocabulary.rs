//! Files generated from `divvy::vocabulary`: the C enums, the Go constants and the reference pages.
//! Each committed file is compared; `BLESS=1` rewrites them.

use std::fmt::Write as _;
use std::path::Path;

use divvy::metrics::Prometheus;
use divvy::settings::keys::KEYS;
use divvy::vocabulary::{
    AlertLevel, BreakerState, Bucket, CalculatorState, CallStatus, Code, Departure, EventFilter,
    EventKind, Field, ManagerEventFilter, ManagerState, MemberChange, Reason, SettingField, Word,
    Words,
};

/// Compares a generated file with the committed one, or rewrites it.
fn compare(path: &str, generated: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, generated).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        generated == committed,
        "{path} does not match src/vocabulary: run `BLESS=1 cargo test --all-features --test \
         bindings vocabulary`, review the difference and commit it"
    );
}

/// One enum in C and Go.
struct Enum {
    words: Words,
    c_type: &'static str,
    c_prefix: &'static str,
    /// The meaning of 0, if no word has this number.
    none: Option<&'static str>,
    /// The Go type and the prefix of its constants; `None`: not used in Go.
    go: Option<(&'static str, &'static str)>,
}

const NOT_ABOUT: Option<&str> = Some("The event is about something else.");

fn enums() -> Vec<Enum> {
    let list = |words, c_type, c_prefix, none, go| Enum {
        words,
        c_type,
        c_prefix,
        none,
        go,
    };
    vec![
        list(
            CalculatorState::WORDS,
            "divvy_calculator_state",
            "DIVVY_CALCULATOR_",
            None,
            Some(("CalculatorState", "CalculatorState")),
        ),
        list(
            ManagerState::WORDS,
            "divvy_manager_state",
            "DIVVY_MANAGER_",
            None,
            Some(("ManagerState", "ManagerState")),
        ),
        list(
            Reason::WORDS,
            "divvy_reason",
            "DIVVY_REASON_",
            Some("No plan is being made."),
            None,
        ),
        list(
            MemberChange::WORDS,
            "divvy_member_change",
            "DIVVY_MEMBER_",
            NOT_ABOUT,
            None,
        ),
        list(
            BreakerState::WORDS,
            "divvy_breaker_state",
            "DIVVY_BREAKER_",
            None,
            None,
        ),
        list(
            AlertLevel::WORDS,
            "divvy_alert_level",
            "DIVVY_ALERT_",
            NOT_ABOUT,
            None,
        ),
        list(
            Departure::WORDS,
            "divvy_departure",
            "DIVVY_DEPARTURE_",
            None,
            Some(("Departure", "")),
        ),
        list(
            Bucket::WORDS,
            "divvy_bucket",
            "DIVVY_BUCKET_",
            None,
            Some(("Bucket", "Bucket")),
        ),
        list(
            EventFilter::WORDS,
            "divvy_event_filter",
            "DIVVY_FILTER_",
            None,
            None,
        ),
        list(
            ManagerEventFilter::WORDS,
            "divvy_manager_event_filter",
            "DIVVY_MANAGER_FILTER_",
            None,
            None,
        ),
        list(
            SettingField::WORDS,
            "divvy_setting_field",
            "DIVVY_SETTING_",
            None,
            None,
        ),
        list(
            EventKind::WORDS,
            "divvy_event_kind",
            "DIVVY_EVENT_",
            None,
            Some(("EventKind", "Event")),
        ),
    ]
}

/// Returns every status, in the order of its number.
fn statuses() -> Vec<&'static Word> {
    let words = CallStatus::WORDS.words.iter().chain(Code::WORDS.words);
    let mut all: Vec<&Word> = words.collect();
    all.sort_by_key(|word| std::cmp::Reverse(word.number));
    all
}

/// `ClaimingId` as `CLAIMING_ID`.
fn constant(variant: &str) -> String {
    let mut text = String::new();
    for (place, c) in variant.char_indices() {
        if place > 0 && c.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}

/// `ClaimingId` as Go writes it: `ClaimingID`.
fn go_name(variant: &str) -> String {
    let name = variant.replace("Ids", "IDs").replace("Utf8", "UTF8");
    let mut name = name.replace("Abi", "ABI");
    for next in ('A'..='Z').map(String::from) {
        name = name.replace(&format!("Id{next}"), &format!("ID{next}"));
    }
    match name.strip_suffix("Id") {
        Some(start) => format!("{start}ID"),
        None => name,
    }
}

/// A comment, wrapped.
fn comment(to: &mut String, indent: &str, mark: &str, text: &str) {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent.len() + mark.len() + line.len() + word.len() > 98 {
            writeln!(to, "{indent}{mark}{line}").unwrap();
            line.clear();
        }
        line.push(' ');
        line.push_str(word);
    }
    writeln!(to, "{indent}{mark}{line}").unwrap();
}

fn names(fields: &[Field]) -> String {
    let names: Vec<String> = fields.iter().map(|f| format!("`{}`", f.name())).collect();
    names.join(", ")
}

fn c_enum(to: &mut String, help: &str, c_type: &str, words: &[(String, i32, String)]) {
    comment(to, "", "///", help);
    to.push_str("#[repr(i32)]\n#[derive(Clone, Copy, Debug, PartialEq, Eq)]\n");
    writeln!(to, "pub enum {c_type} {{").unwrap();
    for (name, number, help) in words {
        comment(to, "    ", "///", help);
        writeln!(to, "    {name} = {number},").unwrap();
    }
    to.push_str("}\n");
}

#[test]
fn c_enums_match_the_vocabulary() {
    let mut text = String::from(
        "//! The enums of the header. Generated from `src/vocabulary`; do not edit: run `BLESS=1\n\
         //! cargo test --all-features --test bindings vocabulary`.\n\
         #![allow(dead_code, reason = \"for the header: the functions take and return numbers\")]\n\n\
         use std::ffi::CStr;\n\n",
    );
    let words = statuses().into_iter().map(|word| {
        let name = format!("DIVVY_{}", constant(word.variant));
        (name, word.number, word.help.trim().to_owned())
    });
    let words: Vec<_> = words.collect();
    c_enum(
        &mut text,
        "How a call ended. 0 is success; -1 to -99 is misuse by the caller, -100 to -199 comes from \
         the environment, -200 and below from the library itself. Numbers are never reused. New \
         ones may appear in any release: treat an unknown one as a failure of its range.",
        "divvy_status",
        &words,
    );
    text.push_str(
        "\n/// Every status with the name of its constant, in the order of the header.\n",
    );
    writeln!(
        text,
        "pub(super) const STATUSES: [(divvy_status, &CStr); {}] = [",
        words.len()
    )
    .unwrap();
    for (name, ..) in &words {
        writeln!(text, "    (divvy_status::{name}, c\"{name}\"),").unwrap();
    }
    text.push_str("];\n");
    for list in enums() {
        text.push('\n');
        let mut words = Vec::new();
        if let Some(help) = list.none {
            words.push((format!("{}NONE", list.c_prefix), 0, help.to_owned()));
        }
        for word in list.words.words {
            let mut help = word.help.trim().to_owned();
            if list.c_type == "divvy_event_kind" {
                let kind = EventKind::from_number(word.number).unwrap();
                if !kind.fields().is_empty() {
                    write!(help, " Members: {}.", names(kind.fields())).unwrap();
                }
            }
            let name = format!("{}{}", list.c_prefix, constant(word.variant));
            words.push((name, word.number, help));
        }
        c_enum(&mut text, list.words.help.trim(), list.c_type, &words);
    }
    compare("src/capi/enums.rs", &text);
}

#[test]
fn go_constants_match_the_vocabulary() {
    let mut text = String::from(
        "// Code generated from src/vocabulary by `BLESS=1 cargo test --all-features --test \
         bindings vocabulary`. DO NOT EDIT.\n\npackage divvy\n",
    );
    for list in enums() {
        let Some((kind, prefix)) = list.go else {
            continue;
        };
        text.push('\n');
        comment(
            &mut text,
            "",
            "//",
            &format!("{kind}: {}", list.words.help.trim()),
        );
        writeln!(
            text,
            "type {kind} int32\n\n// The values of {kind}.\nconst ("
        )
        .unwrap();
        for word in list.words.words {
            let name = format!("{prefix}{}", go_name(word.variant));
            comment(
                &mut text,
                "\t",
                "//",
                &format!("{name}: {}", word.help.trim()),
            );
            writeln!(text, "\t{name} {kind} = {}", word.number).unwrap();
        }
        text.push_str(")\n\n");
        comment(
            &mut text,
            "",
            "//",
            "String is the name, the same in logs, JSON and every language.",
        );
        writeln!(text, "func (w {kind}) String() string {{\n\tswitch w {{").unwrap();
        for word in list.words.words {
            let name = format!("{prefix}{}", go_name(word.variant));
            writeln!(text, "\tcase {name}:\n\t\treturn {:?}", word.name).unwrap();
        }
        text.push_str("\tdefault:\n\t\treturn \"unknown\"\n\t}\n}\n");
    }
    text.push_str("\n// The codes of the C ABI.\nconst (\n");
    for word in statuses() {
        comment(&mut text, "\t", "//", word.help.trim());
        writeln!(
            text,
            "\tcode{} Code = {}",
            go_name(word.variant),
            word.number
        )
        .unwrap();
    }
    text.push_str(
        ")\n\n// codeName is the name of a code in the C ABI, without DIVVY_; empty for an unknown one.\n\
         func codeName(code Code) string {\n\tswitch code {\n",
    );
    for word in statuses() {
        let (name, value) = (go_name(word.variant), constant(word.variant));
        writeln!(text, "\tcase code{name}:\n\t\treturn {value:?}").unwrap();
    }
    text.push_str("\tdefault:\n\t\treturn \"\"\n\t}\n}\n");
    compare("bindings/go/vocabulary.go", &text);
}

#[test]
fn numbers_of_the_c_abi_are_unique_and_never_change() {
    let numbers = |words: Words| words.words.iter().map(|w| w.number).collect::<Vec<_>>();
    for list in enums() {
        let mut all = numbers(list.words);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), list.words.words.len(), "{}", list.c_type);
        assert!(list.none.is_none() || !all.contains(&0), "{}", list.c_type);
    }
    // Programs contain these numbers: append, never change.
    let statuses: Vec<i32> = statuses().iter().map(|word| word.number).collect();
    let misuse = (0..=15).map(|n| -n);
    let environment = (100..=116).map(|n| -n);
    let expected: Vec<i32> = misuse.chain(environment).chain([-200]).collect();
    assert_eq!(statuses, expected);
    assert_eq!(numbers(CalculatorState::WORDS), [1, 2, 3, 4]);
    assert_eq!(numbers(Reason::WORDS), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(numbers(MemberChange::WORDS), [1, 2, 3, 4, 5]);
    let kinds: Vec<i32> = (1..=12).chain(20..=30).collect();
    assert!(numbers(EventKind::WORDS).starts_with(&kinds[..12]));
    assert!(
        kinds
            .iter()
            .all(|kind| numbers(EventKind::WORDS).contains(kind))
    );
}

fn table(to: &mut String, words: Words) {
    to.push_str("| name | number | meaning |\n| --- | --- | --- |\n");
    for word in words.words {
        writeln!(
            to,
            "| `{}` | {} | {} |",
            word.name,
            word.number,
            word.help.trim()
        )
        .unwrap();
    }
}

const GENERATED: &str = "<!-- Generated from src/vocabulary: run `BLESS=1 cargo test --all-features \
     --test bindings vocabulary`. -->\n";

#[test]
fn page_of_events_matches_the_vocabulary() {
    let mut text = format!(
        "# Events\n\n{GENERATED}\n\
         Calculators and managers deliver events: `CalculatorEvent` and `ManagerEvent` in Rust, `divvy_event`\n\
         in C, `Event` and `ManagerEvent` in Go. `divvy_event_json()`, `SubscribeJSON` in Go, `divvy worker\n\
         --json` and `divvy shadow --json` return the same JSON form, one event per line.\n\n\
         Every event has these members:\n\n\
         | member | meaning |\n| --- | --- |\n\
         | `kind` | Text: the kind of event, see below. |\n\
         | `time` | Text: when it occurred, by the wall clock, RFC 3339. |\n\
         | `reporter` | Text: the worker or the name of the calculator that reports the event. |\n\
         | `worker` | Text: the worker that the event is about. By default the reporter. |\n\n\
         Any release may add members and kinds. Ignore unknown ones.\n\n## Kinds\n\n\
         | kind | number | meaning | members |\n| --- | --- | --- | --- |\n"
    );
    for kind in EventKind::ALL {
        let word = kind.word();
        writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            word.name,
            word.number,
            word.help.trim(),
            names(kind.fields())
        )
        .unwrap();
    }
    text.push_str("\n## Members\n\n| member | meaning |\n| --- | --- |\n");
    for word in Field::WORDS.words {
        writeln!(text, "| `{}` | {} |", word.name, word.help.trim()).unwrap();
    }
    for list in [
        CalculatorState::WORDS,
        ManagerState::WORDS,
        Reason::WORDS,
        MemberChange::WORDS,
        divvy::vocabulary::DegradationCause::WORDS,
        BreakerState::WORDS,
        AlertLevel::WORDS,
    ] {
        writeln!(text, "\n## {}\n\n{}\n", list.name, list.help.trim()).unwrap();
        table(&mut text, list);
    }
    compare("docs/events.md", &text);
}

#[test]
fn page_of_errors_matches_the_vocabulary() {
    let mut text = format!(
        "# Errors\n\n{GENERATED}\n\
         Every error has a code. The class of the code says how to react:\n\n\
         | class | meaning |\n| --- | --- |\n\
         | `retriable` | The same call may succeed later. |\n\
         | `permanent` | The call fails again until the cause is fixed. |\n\
         | `conflict` | Another writer was faster or has taken over. |\n\
         | `invalid` | The input of the caller is invalid. |\n\n\
         [Troubleshooting](troubleshooting.md#error-codes) says what to do about each code.\n\n\
         | code | C | number | class | meaning |\n| --- | --- | --- | --- | --- |\n"
    );
    for word in statuses() {
        let code = Code::from_number(word.number);
        let class = code.map_or("", |code| code.class().name());
        let name = format!("DIVVY_{}", constant(word.variant));
        let help = word.help.trim();
        writeln!(
            text,
            "| `{}` | `{name}` | {} | {class} | {help} |",
            word.name, word.number
        )
        .unwrap();
    }
    text.push_str(
        "\nCodes without a class exist only in the C ABI. Numbers are never reused. Treat an unknown number as\n\
         a failure of its range:\n\n\
         | numbers | meaning |\n| --- | --- |\n\
         | -1 to -99 | misuse by the caller |\n\
         | -100 to -199 | failure of the environment |\n\
         | -200 and below | defect of the library |\n",
    );
    compare("docs/errors.md", &text);
}

/// The sections of the page of settings, each with its first setting.
const HEADINGS: &[(&str, &str)] = &[
    ("name", "Fleet"),
    ("heartbeat_ttl", "Failure detection and rebalancing"),
    ("retry_delay_min", "Retries, degradation and events"),
    ("publish_mode", "Publication"),
    ("strategy", "Strategy"),
    ("worker_id_prefix", "Manager"),
    ("outage_policy", "Outages"),
    ("store", "Store"),
    ("metrics_namespace", "Metrics"),
    ("nats_url", "NATS connection"),
    ("nats_placement_cluster", "NATS buckets"),
];

#[test]
fn page_of_settings_matches_the_table() {
    for (first, heading) in HEADINGS {
        let exists = KEYS.iter().any(|key| key.name == *first);
        assert!(exists, "{heading} begins with the unknown setting {first}");
    }
    let mut text = format!(
        "# Settings\n\n{GENERATED}\n\
         A setting has the same name everywhere:\n\n\
         | where | how |\n| --- | --- |\n\
         | environment | `DIVVY_COOLDOWN=5s` |\n\
         | command line | `--set cooldown=5s` |\n\
         | JSON | `{{\"cooldown\": \"5s\"}}` |\n\
         | Rust | a field of `CalculatorConfig`, `ManagerConfig` or `NatsOptions`, or `Settings::set()` |\n\
         | C | `divvy_config_set()`, `divvy_config_merge_json()`, `divvy_config_merge_env()` |\n\
         | C++ | `config.set()` |\n\
         | Go | `Config.Settings` |\n\n\
         `divvy config` prints every setting with its value and its origin. So do `divvy_setting_at()` in C,\n\
         `config.settings()` in C++ and `Config.Describe()` in Go.\n\n\
         Write durations as `1m30s`, `250ms` or `0`, and separate the items of a list by commas. An invalid\n\
         configuration is rejected with every violation: setting, value and rule.\n"
    );
    for key in KEYS {
        if let Some((_, heading)) = HEADINGS.iter().find(|(first, _)| *first == key.name) {
            write!(
                text,
                "\n## {heading}\n\n\
                 | setting | type | default | range | meaning |\n| --- | --- | --- | --- | --- |\n"
            )
            .unwrap();
        }
        let default = match key.default_text().as_str() {
            "" => "empty".to_owned(),
            default => format!("`{default}`"),
        };
        let kind = key.kind;
        writeln!(
            text,
            "| `{}` | {kind} | {default} | {} | {} |",
            key.name, key.range, key.help
        )
        .unwrap();
    }
    compare("docs/settings.md", &text);
}

/// Returns the series of a recorder with all options, as table rows.
fn series() -> String {
    let metrics = Prometheus::builder().with_manager().build().unwrap();
    let page = metrics.render();
    let mut text =
        String::from("| series | type | labels | meaning |\n| --- | --- | --- | --- |\n");
    let mut help = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP divvy_") {
            help = rest.split_once(' ').unwrap().1;
        } else if let Some(rest) = line.strip_prefix("# TYPE divvy_") {
            let (name, kind) = rest.split_once(' ').unwrap();
            let labels = labels(&page, name);
            writeln!(text, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
        }
    }
    text
}

/// Returns the labels of a family with their values.
fn labels(page: &str, name: &str) -> String {
    let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
    let of_family = |line: &&str| {
        let rest = line
            .strip_prefix("divvy_")
            .and_then(|rest| rest.strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with('{') || rest.starts_with("_bucket{"))
    };
    for line in page.lines().filter(of_family) {
        let Some((_, rest)) = line.split_once('{') else {
            continue;
        };
        let pairs = rest.rsplit_once('}').unwrap().0;
        for pair in pairs.split("\",").filter(|pair| !pair.starts_with("le=")) {
            let (label, value) = pair.split_once("=\"").unwrap();
            let value = value.trim_end_matches('"');
            match found.iter_mut().find(|(known, _)| *known == label) {
                Some((_, values)) if values.contains(&value) => {}
                Some((_, values)) => values.push(value),
                None => found.push((label, vec![value])),
            }
        }
    }
    let shown = found.iter().map(|(label, values)| match *label {
        "version" => format!("`{label}`"),
        _ => format!("`{label}`: {}", values.join(", ")),
    });
    shown.collect::<Vec<_>>().join("; ")
}

#[test]
fn series_of_the_manual_match_the_recorder() {
    const BEGIN: &str = "<!-- Generated: series -->\n";
    const END: &str = "<!-- End of generated -->\n";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(file).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the mark of the series");
    let (_, after) = rest.split_once(END).expect("the mark of their end");
    compare(
        "docs/metrics.md",
        &format!("{before}{BEGIN}{}{END}{after}", series()),
    );
}

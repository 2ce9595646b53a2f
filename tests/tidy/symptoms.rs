//! The page for troubleshooting contains every error code, every alert, and every log line of level
//! warn or error.

use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/troubleshooting.md";
const BEGIN: &str = "<!-- Generated: log lines -->\n";
const END: &str = "<!-- End of generated -->\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Checks that the page names each of these in backticks.
fn assert_named(what: &str, names: &[String]) {
    let page = read(PAGE);
    assert!(names.len() > 20, "only {} {what} found", names.len());
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !page.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "{PAGE} lacks these {what}: {missing:?}");
}

#[test]
fn troubleshooting_covers_every_error_code() {
    let source = read("src/vocabulary/errors.rs");
    let codes = source.lines().filter_map(|line| {
        let (_, name) = line.trim().strip_suffix("\",")?.split_once(" \"")?;
        Some(name.to_owned())
    });
    let classes = ["retriable", "permanent", "conflict", "invalid"];
    let mut codes: Vec<String> = codes.collect();
    codes.truncate(codes.len() - classes.len());
    assert_named("error codes", &codes);
}

#[test]
fn troubleshooting_covers_every_alert() {
    let rules = read("dashboards/alerts.yml");
    let alerts = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    assert_named("alerts", &alerts.map(str::to_owned).collect::<Vec<_>>());
}

/// Formats the rows of the manual of the logs that report a problem, in alphabetical order.
fn log_lines() -> String {
    let manual = read("docs/logs.md");
    let mut rows: Vec<(String, String)> = Vec::new();
    for row in manual.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [target, level, message, .., action] = cells[..] else {
            panic!("{row}");
        };
        if ["warn", "error", "varies"].contains(&level) {
            let key = message.trim_start_matches(['`', '{', '}', ' ']).to_owned();
            rows.push((key, format!("| {message} | {target} | {action} |\n")));
        }
    }
    rows.sort();
    let rows: String = rows.into_iter().map(|(_, row)| row).collect();
    format!("| line | target | what to do |\n| --- | --- | --- |\n{rows}")
}

#[test]
fn troubleshooting_covers_every_log_line_of_level_warn_or_error() {
    let page = read(PAGE);
    let (before, rest) = page.split_once(BEGIN).expect("the begin mark");
    let (_, after) = rest.split_once(END).expect("the end mark");
    let wanted = format!("{before}{BEGIN}{}{END}{after}", log_lines());
    if std::env::var_os("BLESS").is_some() {
        fs::write(root().join(PAGE), &wanted).unwrap();
    }
    assert!(
        read(PAGE) == wanted,
        "{PAGE} does not match docs/logs.md: run `BLESS=1 cargo test --test tidy symptoms`"
    );
}

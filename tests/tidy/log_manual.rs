//! The manual of the logs contains every log line of the library, and no others.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const MANUAL: &str = "docs/logs.md";

/// One line of the code, or of the manual.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    target: String,
    level: String,
    message: String,
    fields: Vec<String>,
}

impl Line {
    /// Formats the row of the manual, with placeholders for the parts written by hand.
    fn row(&self) -> String {
        let fields: Vec<String> = self.fields.iter().map(|f| format!("`{f}`")).collect();
        format!(
            "| `{}` | {} | `{}` | {} | (what it means) | (what to do) |",
            self.target,
            self.level,
            self.message,
            fields.join(", ")
        )
    }
}

#[test]
fn every_log_line_is_in_manual() {
    let manual = manual();
    let missing: Vec<String> = code()
        .into_iter()
        .filter(|line| !manual.contains(line))
        .map(|line| line.row())
        .collect();
    assert!(
        missing.is_empty(),
        "{MANUAL} lacks these rows; add them, with what they mean and what to do:\n{}",
        missing.join("\n")
    );
}

#[test]
fn manual_has_no_line_missing_from_code() {
    let code = code();
    let stale: Vec<String> = manual()
        .into_iter()
        .filter(|line| !code.contains(line))
        .map(|line| line.row())
        .collect();
    assert!(
        stale.is_empty(),
        "{MANUAL} has rows that no code logs; remove or correct them:\n{}",
        stale.join("\n")
    );
}

#[test]
fn every_manual_row_states_meaning_and_action() {
    let text = fs::read_to_string(root().join(MANUAL)).unwrap();
    for row in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 6, "{row}");
        for cell in &cells[4..] {
            let cell = cell.trim();
            assert!(cell.len() > 3 && !cell.starts_with('('), "{row}");
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn manual() -> BTreeSet<Line> {
    let text = fs::read_to_string(root().join(MANUAL)).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let plain = |cell: &str| cell.trim_matches('`').to_owned();
        let fields = cells[3].split(", ").filter(|field| !field.is_empty());
        Line {
            target: plain(cells[0]),
            level: cells[1].to_owned(),
            message: plain(cells[2]),
            fields: fields.map(plain).collect(),
        }
    })
    .collect()
}

/// Returns the log lines of the library, without the command, which is a host and has a terminal.
fn code() -> BTreeSet<Line> {
    let source = root().join("src");
    let mut files = Vec::new();
    collect(&source, &mut files);
    let mut lines = BTreeSet::new();
    for file in files {
        let relative = file.strip_prefix(&source).unwrap();
        let is_tests = relative
            .components()
            .any(|part| Path::new(part.as_os_str()).file_stem() == Some("tests".as_ref()));
        if relative.starts_with("bin") || is_tests {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        lines.extend(lines_of(text, &module(relative)));
    }
    assert!(lines.len() > 20, "only {} lines were found", lines.len());
    lines
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The target of a line without an explicit one: its module.
fn module(file: &Path) -> String {
    let path = file.with_extension("").to_string_lossy().replace('/', "::");
    format!("divvy::{}", path.trim_end_matches("::mod"))
}

fn lines_of(text: &str, module: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let levels = ["error", "warn", "info", "debug", "trace"];
    let macros = levels.map(|level| (level, level));
    for (name, level) in macros.into_iter().chain([("log", "varies")]) {
        for (start, call) in text.match_indices(&format!("log::{name}!(")) {
            lines.push(line_of(&text[start + call.len()..], level, module));
        }
    }
    lines
}

/// Parses `target: "…", level, a = b, c; "message", …`. The level is a macro argument only if it
/// varies.
fn line_of(arguments: &str, level: &str, module: &str) -> Line {
    let (target, rest) = match arguments.trim_start().strip_prefix("target:") {
        Some(named) => {
            let (target, rest) = literal(named);
            (target, rest.trim_start_matches(','))
        }
        None => (module.to_owned(), arguments),
    };
    let before_message = &rest[..rest.find('"').expect("a message")];
    let fields = match before_message.split_once(';') {
        Some((fields, _)) => fields
            .split(',')
            .map(|field| field.split(['=', ':']).next().unwrap().trim().to_owned())
            .filter(|field| level != "varies" || field != "level")
            .collect(),
        None => Vec::new(),
    };
    Line {
        target,
        level: level.to_owned(),
        message: literal(rest).0,
        fields,
    }
}

/// Returns the first string literal and the rest.
fn literal(text: &str) -> (String, &str) {
    let start = text.find('"').expect("a literal") + 1;
    let mut end = start;
    while !text[end..].starts_with('"') {
        end += if text[end..].starts_with('\\') { 2 } else { 1 };
        while !text.is_char_boundary(end) {
            end += 1;
        }
    }
    let value = text[start..end].replace("\\\"", "\"");
    (value, &text[end + 1..])
}

/// The reader itself reads what it should.
mod reader {
    use super::*;

    #[test]
    fn log_targets_fields_and_messages_are_parsed() {
        let text = r#"
            log::warn!(
                target: "divvy::x", term = self.term, found;
                "a \"quoted\" {word}: {why}", why = 1
            );
            log::info!("plain");
        "#;
        let lines = lines_of(text, "divvy::here");
        let reported: Vec<String> = lines.iter().map(Line::row).collect();
        assert_eq!(
            reported,
            [
                "| `divvy::x` | warn | `a \"quoted\" {word}: {why}` | `term`, `found` | (what it means) | (what to do) |",
                "| `divvy::here` | info | `plain` |  | (what it means) | (what to do) |",
            ]
        );
    }
}

//! The language of the project: words and constructions that readers must not meet.
//!
//! The rule covers comments, doc comments and string literals of every program and script, test code
//! included, and whole documents.

use std::fs;
use std::path::{Path, PathBuf};

/// Files and folders whose prose is checked.
const CLEAN: &[&str] = &[
    ".ci",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.toml",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "benches",
    "bindings",
    "cbindgen.toml",
    "dashboards",
    "deny.toml",
    "docs",
    "examples",
    "include",
    "packaging",
    "src",
    "tests",
];

/// This file spells the banned words out.
const SKIPPED: &[&str] = &["tests/tidy/prose.rs"];

/// Words and constructions, lower case, with what to write instead. A word matches whole words only.
const BANNED: &[(&str, &str)] = &[
    ("told", "reported, notified, logged"),
    ("tells", "reports, returns, shows"),
    ("telling", "reporting"),
    ("anew", "again, from scratch"),
    ("for ever", "forever"),
    ("beside", "next to, alongside"),
    ("besides", "also, in addition"),
    ("nobody", "no worker, no one; name the noun"),
    ("whoever", "name the noun"),
    ("who holds", "the owner"),
    ("out of sight", "disconnected, watch lost"),
    ("poison", "malformed value"),
    ("poisonous", "malformed"),
    ("crew", "thread group"),
    ("news", "event, notification"),
    ("heed", "observe"),
    ("mend", "fix, repair"),
    ("mends", "fixes"),
    ("let go", "release"),
    ("lets go", "releases"),
    ("go on", "continue"),
    ("goes on", "continues"),
    ("going on", "in progress"),
    ("went on", "continued"),
    ("take in", "handle, apply"),
    ("takes in", "handles, applies"),
    ("hand in", "dispatch"),
    ("at rest", "idle"),
    ("what it takes", "name the noun"),
    ("looked at", "checked"),
    ("looks at", "checks"),
    ("as long as that", "name the noun"),
    ("somebody", "another client, name the noun"),
    ("in vain", "without success"),
    ("is had", "active voice"),
    ("nothing but", "only"),
    ("but that", "except that"),
    ("for want of", "without"),
    ("sees to it", "ensures"),
    ("see to it", "ensure"),
    ("comes about", "happens"),
    ("came of", "was the result of"),
    ("took its leave", "left"),
    ("takes its leave", "leaves"),
    ("taken for", "treated as"),
    ("given up", "removed, released"),
    ("ask again", "retry"),
    ("in doubt", "outcome unknown, needs rewrite"),
    ("goes missing", "is suspected"),
    ("went missing", "was suspected"),
    ("tried again and again", "retried"),
    ("trying again", "retrying"),
    ("prolong", "renew"),
    ("prolongs", "renews"),
    ("prolonged", "renewed"),
    ("gives back", "releases"),
    ("given back", "released"),
    ("whole life", "lifecycle"),
    ("last word", "final state"),
    ("what is held", "the assignment"),
    ("what it holds", "its partitions"),
    ("changed hands", "changed owners"),
];

/// One excepted line: file, part of the line, reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn files() -> Vec<String> {
    let mut found = Vec::new();
    for entry in CLEAN {
        let path = root().join(entry);
        assert!(
            path.exists(),
            "{entry} is listed as clean and does not exist"
        );
        collect(&path, &mut found);
    }
    found.retain(|file| !SKIPPED.contains(&file.as_str()));
    found.sort();
    found
}

fn collect(path: &Path, found: &mut Vec<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), found);
        }
        return;
    }
    let name = path
        .strip_prefix(root())
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let kinds = [
        "md", "rs", "go", "c", "h", "cpp", "hpp", "yml", "toml", "py", "sh", "json",
    ];
    let is_script = name.starts_with(".ci/") || name == "Makefile";
    if is_script
        || path
            .extension()
            .is_some_and(|kind| kinds.iter().any(|k| kind == *k))
    {
        found.push(name);
    }
}

/// Returns the part of a line that people read: all of a document, comments and literals of a
/// program. Code in backticks and the names in `{…}` of a format string are not prose.
fn readable(file: &str, line: &str) -> String {
    if file.ends_with(".md") {
        return line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    }
    let trimmed = line.trim_start();
    let is_comment = ["//", "/*", "*", "#"]
        .iter()
        .any(|mark| trimmed.starts_with(mark));
    if is_comment {
        return line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    }
    let (code, comment) = line.split_once("// ").unwrap_or((line, ""));
    let literals: Vec<&str> = code.split('"').skip(1).step_by(2).collect();
    let text = literals.join(" ");
    let parts = text.split('{').map(|part| part.split('}').next_back());
    format!("{} {comment}", parts.flatten().collect::<String>())
}

fn contains_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(start, _)| {
        let end = start + word.len();
        !text[..start].ends_with(is_part) && !text[end..].starts_with(is_part)
    })
}

fn offences() -> Vec<String> {
    let mut found = Vec::new();
    for file in files() {
        let text = fs::read_to_string(root().join(&file)).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            let excepted =
                |(path, part, _): &(&str, &str, &str)| file == *path && line.contains(part);
            if EXCEPTIONS.iter().any(excepted) {
                continue;
            }
            let prose = readable(&file, line).to_lowercase();
            for (word, instead) in BANNED {
                if contains_word(&prose, word) {
                    found.push(format!(
                        "{file}:{number}: \"{word}\" (write: {instead}): {}",
                        line.trim()
                    ));
                }
            }
        }
    }
    found
}

#[test]
fn clean_files_contain_no_banned_word() {
    let found = offences();
    assert!(
        found.is_empty(),
        "{} offences:\n  {}",
        found.len(),
        found.join("\n  ")
    );
}

#[test]
fn every_exception_is_needed() {
    for (file, part, reason) in EXCEPTIONS {
        let text = fs::read_to_string(root().join(file)).unwrap();
        assert!(
            text.contains(part),
            "{file}: the excepted line is gone: {part}"
        );
        assert!(reason.len() > 10, "{file}: {part} has no reason");
    }
}

mod checkers {
    use super::*;

    #[test]
    fn words_are_matched_whole_and_code_is_skipped() {
        assert!(contains_word("nobody is told.", "told"));
        assert!(!contains_word("untold", "told"));
        assert_eq!(
            readable("a.rs", "let told = f(\"is told\"); // anew").trim(),
            "is told anew"
        );
        assert_eq!(readable("a.md", "is `told` here"), "is   here");
        assert_eq!(
            readable("a.rs", "panic!(\"seen {told:?} late\")").trim(),
            "seen  late"
        );
    }

    #[test]
    fn comments_are_read_completely() {
        assert!(readable("a.rs", "    /// What is told.").contains("told"));
        assert!(readable("a.go", "// It tells.").contains("tells"));
        assert!(readable("Makefile", "# told").contains("told"));
    }
}

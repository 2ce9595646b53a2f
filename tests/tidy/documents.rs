//! Documents agree with the repository: links lead somewhere, snippets are excerpts of programs that
//! the tests build and run, and every test, command and option that a document names exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const README_LINES_MAX: usize = 200;

/// Generated pages, covered by other checks.
const GENERATED: [&str; 1] = ["docs/SUMMARY.md"];

struct Document {
    /// Relative to the repository, with `/`.
    path: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Markdown file at the top and under `docs`.
fn documents() -> Vec<Document> {
    let mut documents = Vec::new();
    for folder in ["", "docs"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let path = path
                    .strip_prefix(root())
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                let text = read(&path);
                documents.push(Document { path, text });
            }
        }
    }
    documents.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(
        documents.len() > 15,
        "only {} documents found",
        documents.len()
    );
    documents
}

fn assert_none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

/// A fenced block: its line, its language, its text, and the excerpt comment before it.
struct Block<'a> {
    line: usize,
    language: &'a str,
    lines: Vec<&'a str>,
    excerpt: Option<&'a str>,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut found: Vec<Block<'_>> = Vec::new();
    let mut excerpt = None;
    let mut is_open = false;
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            is_open = !is_open;
            if is_open {
                let excerpt = excerpt.take();
                let lines = Vec::new();
                found.push(Block {
                    line: number,
                    language,
                    lines,
                    excerpt,
                });
            }
        } else if let (true, Some(block)) = (is_open, found.last_mut()) {
            block.lines.push(line);
        } else if !line.trim().is_empty() {
            let marker = line.trim().strip_prefix("<!-- excerpt: ");
            excerpt = marker.and_then(|rest| rest.strip_suffix(" -->"));
        }
    }
    found
}

/// The text without its fenced blocks and inline code.
fn prose(text: &str) -> String {
    let mut is_open = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_open = !is_open;
        } else if !is_open {
            let outside = line.split('`').step_by(2);
            kept.extend(outside);
        }
        kept.push('\n');
    }
    kept
}

/// Targets of `[text](target)`.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(prose(text).lines()) {
        for part in line.split("](").skip(1) {
            if let Some((target, _)) = part.split_once(')') {
                found.push((number, target.to_owned()));
            }
        }
    }
    found
}

/// The anchors of a page, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn every_link_leads_to_existing_file_and_heading() {
    let mut offences = Vec::new();
    let mut checked = 0;
    for document in documents() {
        let folder = root().join(&document.path).parent().unwrap().to_owned();
        for (line, target) in links(&document.text) {
            if target.contains("://") {
                continue;
            }
            checked += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = match file {
                "" => root().join(&document.path),
                file => folder.join(file),
            };
            let is_there = path.exists();
            let has_heading = anchor.is_empty()
                || fs::read_to_string(&path).is_ok_and(|text| anchors(&text).contains(anchor));
            if !is_there || !has_heading {
                offences.push(format!("{}:{line}: {target}", document.path));
            }
        }
    }
    assert!(checked > 60, "only {checked} links found");
    assert_none("links that lead nowhere", &offences);
}

#[test]
fn every_excerpt_is_in_its_source_in_order() {
    let mut offences = Vec::new();
    let mut checked = 0;
    for document in documents() {
        for block in blocks(&document.text) {
            let Some(source) = block.excerpt else {
                continue;
            };
            checked += 1;
            let text = read(source);
            let mut rest = text.lines().map(str::trim);
            for line in block.lines.iter().map(|line| line.trim()) {
                let is_gap = line.is_empty() || line == "// ..." || line == "/* ... */";
                if !is_gap && !rest.any(|found| found == line) {
                    offences.push(format!("{}:{}: {line}", document.path, block.line));
                    break;
                }
            }
        }
    }
    assert!(checked > 15, "only {checked} excerpts found");
    assert_none("not in the named source, or in another order", &offences);
}

#[test]
fn every_program_in_guides_is_tested() {
    let mut offences = Vec::new();
    for document in documents() {
        let is_guide = document.path == "README.md" || document.path.starts_with("docs/guide-");
        for block in blocks(&document.text) {
            let is_program = ["c", "cpp", "go", "rust,ignore"].contains(&block.language);
            if is_guide && is_program && block.excerpt.is_none() {
                offences.push(format!("{}:{}", document.path, block.line));
            }
        }
    }
    assert_none(
        "a snippet that no test covers: make it an excerpt",
        &offences,
    );
}

#[test]
fn every_make_target_that_documents_name_exists() {
    let makefile = read("Makefile");
    let mut offences = Vec::new();
    let mut checked = 0;
    for document in documents() {
        for (number, line) in (1..).zip(document.text.lines()) {
            for rest in line.split("make ").skip(1) {
                let is_command =
                    line.starts_with("make ") || line.contains(&format!("`make {rest}"));
                let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '-'));
                let target = &rest[..end.unwrap_or(rest.len())];
                if is_command && !target.is_empty() {
                    checked += 1;
                    if !makefile.contains(&format!("\n{target}:")) {
                        offences.push(format!("{}:{number}: make {target}", document.path));
                    }
                }
            }
        }
    }
    assert!(checked > 30, "only {checked} commands found");
    assert_none("make targets that do not exist", &offences);
}

#[test]
fn every_command_option_that_documents_name_exists() {
    let folder = root().join("src/bin/divvy");
    let commands = ["config", "demo", "plan", "shadow", "status", "worker"];
    let mut offences = Vec::new();
    let mut checked = 0;
    for document in documents() {
        for (number, line) in (1..).zip(document.text.lines()) {
            for command in commands {
                let Some((_, rest)) = line.split_once(&format!("divvy {command} ")) else {
                    continue;
                };
                let file = match command {
                    "demo" => folder.join("demo/mod.rs"),
                    command => folder.join(format!("{command}.rs")),
                };
                let source =
                    fs::read_to_string(file).unwrap() + &read("src/bin/divvy/connection.rs");
                let rest = rest.split('`').next().unwrap_or(rest);
                for option in rest
                    .split_whitespace()
                    .filter_map(|word| word.strip_prefix("--"))
                {
                    checked += 1;
                    let field = option.split('=').next().unwrap().replace('-', "_");
                    let is_there = source.contains(&format!("{field}:"))
                        || source.contains(&format!("long = \"{option}\""))
                        || option == "help";
                    if !is_there {
                        offences.push(format!("{}:{number}: --{option}", document.path));
                    }
                }
            }
        }
    }
    assert!(checked > 8, "only {checked} options found");
    assert_none("options that do not exist", &offences);
}

#[test]
fn every_setting_that_documents_assign_exists() {
    let keys = read("src/settings/keys.rs");
    let mut offences = Vec::new();
    for document in documents() {
        for (number, line) in (1..).zip(document.text.lines()) {
            for code in line.split('`').skip(1).step_by(2) {
                let name = code.split([' ', '=']).next().unwrap_or(code);
                let is_assigned = code.contains(" = ") && !code.contains("==");
                let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                if is_assigned && is_name && !keys.contains(&format!("\n    {name}: ")) {
                    offences.push(format!("{}:{number}: {code}", document.path));
                }
            }
        }
    }
    assert_none("settings that do not exist", &offences);
}

#[test]
fn every_test_claimed_by_design_exists() {
    let mut files = Vec::new();
    for folder in ["src", "tests"] {
        collect(&root().join(folder), &mut files);
    }
    let code: String = files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let text = read("docs/design.md");
    let table = text
        .split_once("<!-- claims -->")
        .expect("the table of claims")
        .1;
    let rows = table.lines().skip_while(|line| !line.starts_with('|'));
    let rows: Vec<&str> = rows
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .collect();
    assert!(rows.len() > 20, "only {} claims found", rows.len());
    let mut missing = Vec::new();
    for row in rows {
        let cell = row.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap();
        let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            missing.push(format!("no test is named: {row}"));
        }
        for name in names {
            if !code.contains(&format!("fn {name}()")) {
                missing.push(name.to_owned());
            }
        }
    }
    assert_none("tests that docs/design.md claims", &missing);
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

#[test]
fn every_page_is_in_book() {
    let summary = read("docs/SUMMARY.md");
    let mut missing = Vec::new();
    for document in documents() {
        let Some(page) = document.path.strip_prefix("docs/") else {
            continue;
        };
        let is_listed = summary.contains(&format!("({page})"));
        if !is_listed && !GENERATED.contains(&document.path.as_str()) {
            missing.push(page.to_owned());
        }
    }
    assert_none("pages that docs/SUMMARY.md lacks", &missing);
}

#[test]
fn readme_stays_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines");
}

/// Every picture ends with the hash of the files that it is drawn from, see `docs/pictures.py`.
#[test]
fn every_picture_is_newer_than_its_sources() {
    let mut checked = 0;
    let mut stale = Vec::new();
    for folder in ["docs", "examples"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "svg") {
                continue;
            }
            checked += 1;
            let text = fs::read_to_string(&path).unwrap();
            let stamp = text.trim_end().rsplit('\n').next().unwrap();
            let stamp = stamp
                .strip_prefix("<!-- drawn from ")
                .and_then(|s| s.strip_suffix(" -->"));
            let is_fresh = stamp
                .and_then(|stamp| stamp.split_once(": "))
                .is_some_and(|(sources, hash)| hash == fnv(sources.split(' ')));
            if !is_fresh {
                stale.push(path.display().to_string());
            }
        }
    }
    assert!(checked >= 5, "only {checked} pictures found");
    assert_none(
        "stale pictures: run `make pictures` and look at them",
        &stale,
    );
}

/// FNV-1a, 64 bits, over the files' bytes.
fn fnv<'a>(paths: impl Iterator<Item = &'a str>) -> String {
    let mut value: u64 = 0xcbf2_9ce4_8422_2325;
    for path in paths {
        for byte in fs::read(root().join(path)).unwrap_or_default() {
            value = (value ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    format!("{value:016x}")
}

/// The checkers find what they look for.
mod checkers {
    use super::*;

    #[test]
    fn blocks_carry_their_excerpt_comment() {
        let text = "<!-- excerpt: a.c -->\n```c\nx;\n```\n\ntext\n```go\ny\n```\n";
        let found = blocks(text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].excerpt, found[0].language), (Some("a.c"), "c"));
        assert_eq!(found[0].lines, ["x;"]);
        assert_eq!(found[1].excerpt, None);
    }

    #[test]
    fn links_in_code_are_skipped() {
        let text = "[a](b.md#c) `[d](e)`\n```\n[f](g)\n```\n![h](i.svg)";
        let found: Vec<String> = links(text).into_iter().map(|(_, target)| target).collect();
        assert_eq!(found, ["b.md#c", "i.svg"]);
    }

    #[test]
    fn anchors_follow_headings() {
        let found = anchors("# NATS: permissions, and `x_y`\n## Retry");
        assert!(found.contains("nats-permissions-and-x_y"), "{found:?}");
        assert!(found.contains("retry"));
    }
}

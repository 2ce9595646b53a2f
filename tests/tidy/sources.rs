//! House rules for the sources that no compiler checks.
//!
//! Test code is exempt: files and folders named `tests`, and what follows `#[cfg(test)]` at the
//! end of a file.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 700;
const FUNCTION_LINES_MAX: usize = 100;

/// One source file without its tests.
pub struct Source {
    /// Relative to `src`, with `/` on every platform.
    pub path: String,
    pub text: String,
}

impl Source {
    pub fn is_under(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    /// Returns the lines that are not comments, numbered from 1.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = (1..).zip(self.text.lines());
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Returns the paths of this crate that the file imports or names: `store::Operation`,
    /// `types::Time`, …
    fn crate_paths(&self) -> Vec<String> {
        let code: Vec<&str> = self.code().map(|(_, line)| line).collect();
        paths_after("crate::", &code.join("\n"))
    }
}

/// Returns the paths after `root` in the text, with `{…}` groups expanded.
pub fn paths_after(root: &str, text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (start, _) in text.match_indices(root) {
        let is_whole = !text[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if is_whole {
            spread(&text[start + root.len()..], "", &mut paths);
        }
    }
    paths
}

/// Parses one path or group at the start of `text`. Returns its length in bytes.
fn spread(text: &str, before: &str, paths: &mut Vec<String>) -> usize {
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '*';
    let end = text.find(|c| !word(c)).unwrap_or(text.len());
    let path = format!("{before}{}", &text[..end]);
    if !text[end..].starts_with('{') {
        paths.push(path);
        return end;
    }
    let mut at = end + 1;
    while let Some(c) = text[at..].chars().next() {
        match c {
            '}' => return at + 1,
            ',' | ' ' | '\n' => at += 1,
            _ => at += spread(&text[at..], &path, paths).max(c.len_utf8()),
        }
    }
    at
}

pub fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &is_no_test, &mut files);
    files.sort();
    let sources: Vec<Source> = files
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file).expect("a readable source");
            let relative = file.strip_prefix(&root).expect("a file under src");
            Source {
                path: relative.to_string_lossy().replace('\\', "/"),
                text: without_tests(&text).to_owned(),
            }
        })
        .collect();
    for folder in ["machine/calculator/", "strategy/", "store/", "runtime/"] {
        let found = sources.iter().any(|source| source.is_under(folder));
        assert!(found, "no files under src/{folder}: has it been renamed?");
    }
    sources
}

fn collect(folder: &Path, is_wanted: &dyn Fn(&Path) -> bool, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a folder entry").path();
        if !is_wanted(&path) {
            continue;
        }
        if path.is_dir() {
            collect(&path, is_wanted, files);
        } else if path.extension().is_some_and(|e| e == "rs" || e == "go") {
            files.push(path);
        }
    }
}

fn is_no_test(path: &Path) -> bool {
    path.file_stem().is_none_or(|stem| stem != "tests")
}

fn without_tests(text: &str) -> &str {
    let tests = text.find("\n#[cfg(test)]\nmod tests {");
    tests.map_or(text, |start| &text[..start])
}

pub fn assert_none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

/// Returns every code line of `sources` that contains one of `words`.
fn lines_with(sources: &[Source], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (number, line) in source.code() {
            if words.iter().any(|word| contains_word(line, word)) {
                found.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    found
}

/// Returns whether `line` contains `word` as a whole identifier.
fn contains_word(line: &str, word: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    let open_end = !word.ends_with(joins);
    line.match_indices(word).any(|(start, _)| {
        let end = start + word.len();
        !line[..start].ends_with(joins) && (open_end || !line[end..].starts_with(joins))
    })
}

fn only(sources: Vec<Source>, keep: impl Fn(&Source) -> bool) -> Vec<Source> {
    sources.into_iter().filter(|source| keep(source)).collect()
}

fn is_pure(source: &Source) -> bool {
    let is_pure = |path| source.path == path;
    source.is_under("machine/")
        || source.is_under("strategy/")
        || is_pure("time/log_throttle.rs")
        || is_pure("time/backoff.rs")
}

#[test]
fn machine_and_strategy_use_no_clock_threads_locks_or_io() {
    const BANNED: [&str; 26] = [
        "Instant",
        "SystemTime",
        "UNIX_EPOCH",
        "humantime",
        "thread",
        "thread_local",
        "Mutex",
        "RwLock",
        "Condvar",
        "Once",
        "OnceLock",
        "atomic",
        "mpsc",
        "parking_lot",
        "crossbeam",
        "crossbeam_channel",
        "std::net",
        "std::fs",
        "std::io",
        "std::env",
        "std::process",
        "libc",
        "rand",
        "fastrand",
        "HashMap",
        "HashSet",
    ];
    let pure = only(sources(), is_pure);
    assert_none("impure", &lines_with(&pure, &BANNED));
    assert_none("unsafe", &lines_with(&pure, &["unsafe"]));
}

#[test]
fn machine_and_strategy_use_only_plain_data_of_store() {
    const PLAIN: [&str; 10] = [
        "Bucket",
        "BucketStatus",
        "Entry",
        "Expect",
        "Health",
        "Listing",
        "Operation",
        "Outcome",
        "Refusal",
        "WatchEvent",
    ];
    let mut offences = Vec::new();
    for source in only(sources(), is_pure) {
        for path in source.crate_paths() {
            let plain = path
                .strip_prefix("store::")
                .is_none_or(|name| PLAIN.contains(&name));
            if !plain {
                offences.push(format!("{}: crate::{path}", source.path));
            }
        }
    }
    assert_none("not plain data", &offences);
}

#[test]
fn imports_never_point_back() {
    /// The allowed imports, by the first part of the path; `lib.rs` may import everything.
    fn may_import(from: &str) -> &'static [&'static str] {
        match from {
            "vocabulary" => &["vocabulary"],
            "types" | "error" | "wire" | "config" => &["types", "error", "wire", "config", "time"],
            "time" => &["types", "time"],
            // Every wait of a caller can be cancelled, including the wait for a thread.
            "threads" => &["types", "error", "time", "threads"],
            // Settings name fields of the other modules.
            "settings" => &[
                "types", "error", "config", "time", "store", "strategy", "metrics", "settings",
            ],
            "strategy" => &["types", "error", "wire", "config", "strategy"],
            "machine" => &[
                "types", "error", "wire", "config", "strategy", "store", "time", "machine",
            ],
            "store" | "metrics" => &[
                "types", "error", "wire", "config", "time", "threads", "store", "metrics",
            ],
            "runtime" => &[
                "types", "error", "wire", "config", "time", "threads", "strategy", "store",
                "metrics", "machine", "settings", "runtime",
            ],
            _ => &[],
        }
    }
    let mut offences = Vec::new();
    for source in sources() {
        let from = source.path.trim_end_matches(".rs").split('/').next();
        let from = from.expect("split gives at least one part");
        if ["lib", "capi", "bin"].contains(&from) {
            continue;
        }
        assert!(
            !may_import(from).is_empty(),
            "{from} has no place in the house yet"
        );
        for path in source.crate_paths() {
            let to = path.split("::").next().unwrap_or_default();
            // All modules may use the vocabulary.
            if to != "vocabulary" && !may_import(from).contains(&to) {
                offences.push(format!("{}: crate::{path}", source.path));
            }
        }
    }
    assert_none("an import that points back", &offences);
}

/// Returns name and variants of each enum; relies on the indentation of rustfmt.
fn enums(text: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let declared = trimmed.strip_prefix("pub ").unwrap_or(trimmed);
        let Some(name) = declared.strip_prefix("enum ") else {
            continue;
        };
        let indent = line.len() - trimmed.len();
        let variants = lines[start + 1..]
            .iter()
            .take_while(|line| line.trim_end() != format!("{}}}", " ".repeat(indent)))
            .filter(|line| line.len() - line.trim_start().len() == indent + 4)
            .filter(|line| line.trim_start().starts_with(char::is_uppercase))
            .map(|line| identifier(line.trim_start()));
        found.push((identifier(name), variants.collect()));
    }
    found
}

fn identifier(text: &str) -> String {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    text[..end.unwrap_or(text.len())].to_owned()
}

/// Two enums with the same variants are one vocabulary, duplicated and converted.
#[test]
fn no_enum_has_a_twin() {
    // Each allowed pair has a reason: data with a word for each case, distinguished by the
    // compiler.
    const ALLOWED: [(&str, &str); 6] = [
        // A task is due work, a job is its execution.
        ("Job", "TaskKind"),
        ("RunningJobKind", "TaskKind"),
        // An event of the NATS protocol borrows from the buffer; a parsed item has positions in it.
        ("Event", "Found"),
        // A refusal has data; its cause is the label of a metric.
        ("Refusal", "RefusalCause"),
        // As above.
        ("Outcome", "StoreOutcome"),
        // A job describes the work, a running job also has a waiter.
        ("Job", "RunningJobKind"),
    ];
    let mut all: Vec<(String, String, Vec<String>)> = Vec::new();
    let mut offences = Vec::new();
    for source in only(sources(), |source| source.path != "capi/enums.rs") {
        for (name, mut variants) in enums(&source.text) {
            variants.sort();
            let twin = all.iter().find(|(_, other, theirs)| {
                let is_allowed =
                    |&(a, b): &(&str, &str)| (a == name && b == other) || (b == name && a == other);
                variants.len() >= 3 && *theirs == variants && !ALLOWED.iter().any(is_allowed)
            });
            if let Some((path, other, _)) = twin {
                offences.push(format!(
                    "{}: {name} has a twin: {other} in {path}",
                    source.path
                ));
            }
            all.push((source.path.clone(), name, variants));
        }
    }
    assert!(all.len() > 100, "only {} enums were found", all.len());
    assert_none("an enum with a twin", &offences);
}

#[test]
fn nats_protocol_code_uses_no_socket_thread_file_or_clock() {
    const PURE: [&str; 6] = [
        "address",
        "encode",
        "headers",
        "info",
        "proto",
        "server_list",
    ];
    let pure = only(sources(), |source| {
        let file = source.path.strip_prefix("store/nats/client/");
        file.is_some_and(|file| PURE.contains(&file.trim_end_matches(".rs")))
    });
    assert_eq!(pure.len(), PURE.len());
    let banned = [
        "TcpStream",
        "UdpSocket",
        "thread",
        "Mutex",
        "libc",
        "std::fs",
        "Instant::now",
        "unsafe",
    ];
    assert_none("impure", &lines_with(&pure, &banned));
}

#[test]
fn threads_are_started_only_through_thread_module() {
    // The command is a host of the library and runs its own threads, like any host.
    let others = only(sources(), |source| {
        source.path != "threads/thread.rs" && !source.is_under("bin/")
    });
    let words = [
        "thread::spawn",
        "thread::Builder",
        "thread::scope",
        "thread::sleep",
    ];
    assert_none("a thread of its own", &lines_with(&others, &words));
}

#[test]
fn every_unwrap_has_comment_proving_it() {
    let mut offences = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, line) in source.code() {
            if !line.contains(".unwrap()") && !line.contains(".expect(") {
                continue;
            }
            let near = &lines[number.saturating_sub(4)..number];
            if !near.iter().any(|line| line.contains("// ")) {
                offences.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    assert_none("unwrapped without a proof", &offences);
}

#[test]
fn no_unfinished_code_is_left() {
    let words = ["todo!", "unimplemented!", "dbg!"];
    assert_none("unfinished", &lines_with(&sources(), &words));
    let marks = ["TODO", "FIXME", "XXX"];
    let mut offences = Vec::new();
    for source in sources() {
        for (number, line) in (1..).zip(source.text.lines()) {
            if marks.iter().any(|mark| contains_word(line, mark)) {
                offences.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    assert_none("unfinished", &offences);
}

/// The page that maps each item of the improvement plan names existing tests and commands.
#[test]
fn tests_and_commands_named_in_improvement_plan_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "bindings/go"] {
        collect(&root.join(folder), &|_| true, &mut files);
    }
    files.push(root.join("Makefile"));
    let read = |file: &PathBuf| fs::read_to_string(file).unwrap_or_default();
    let code: String = files.iter().map(read).collect();
    let page = read(&root.join("docs/improvement-plan.md"));
    let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let mut named = 0;
    let mut missing = Vec::new();
    for word in page.split('`').skip(1).step_by(2) {
        let definition = if let Some(target) = word.strip_prefix("make ") {
            format!("\n{target}:")
        } else if word.starts_with("Test") {
            format!("\nfunc {word}(")
        } else if word.matches('_').count() >= 2 && word.chars().all(name) {
            format!("fn {word}()")
        } else {
            continue;
        };
        named += 1;
        if !code.contains(&definition) {
            missing.push(format!("docs/improvement-plan.md: {word}"));
        }
    }
    assert!(named > 40, "only {named} names were found");
    assert_none("the page names only existing items", &missing);
}

#[test]
fn files_and_functions_stay_short() {
    let mut offences = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            offences.push(format!("{}: {lines} lines", source.path));
        }
        for (name, length) in functions(&source.text) {
            if length > FUNCTION_LINES_MAX {
                offences.push(format!("{}: {name} has {length} lines", source.path));
            }
        }
    }
    assert_none("too long", &offences);
}

/// Returns name and length of each function; relies on the indentation of rustfmt.
fn functions(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        let end = lines[start..].iter().position(|l| *l == closing);
        // A declaration without a body has no length.
        let is_declaration = line.ends_with(';') || line.ends_with("{}");
        if let (Some(length), false) = (end, is_declaration) {
            found.push((name, length + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let is_modifier = |word: &&str| {
        word.starts_with("pub") || ["const", "unsafe", "extern", "\"C\"", "in"].contains(word)
    };
    let first = words.by_ref().find(|word| !is_modifier(word))?;
    if first != "fn" {
        return None;
    }
    let name = words.next()?;
    let end = name.find(['(', '<']).unwrap_or(name.len());
    Some(name[..end].to_owned())
}

/// The checkers detect violations.
mod checkers {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source {
            path: path.into(),
            text: text.into(),
        }
    }

    #[test]
    fn words_are_found_in_code_but_not_in_comments_or_longer_names() {
        let bad = [
            source("machine/a.rs", "// Instant\nuse std::time::Instant;\n"),
            source("machine/b.rs", "use std::time::{Duration, Instant};\n"),
            source("machine/c.rs", "let x = MyInstant::now();\n"),
        ];
        let found = lines_with(&bad, &["Instant"]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("machine/a.rs:2:"), "{found:?}");
    }

    #[test]
    fn enums_are_found_with_their_variants() {
        let text = "words! {\n    pub enum A (non_exhaustive) {\n        /// X.\n        B = 1 \"b\",\n    }\n}\nenum C {\n    D(u8),\n    E {\n        f: u8,\n    },\n}\n";
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let expected = [
            ("A".to_owned(), list(&["B"])),
            ("C".to_owned(), list(&["D", "E"])),
        ];
        assert_eq!(enums(text), expected);
    }

    #[test]
    fn grouped_imports_are_expanded() {
        let text = "use crate::store::{self, Entry, memory::{A, B}};\nfn f(_: crate::types::Time) {}\nmycrate::x";
        let found = source("a.rs", text).crate_paths();
        assert_eq!(
            found,
            [
                "store::self",
                "store::Entry",
                "store::memory::A",
                "store::memory::B",
                "types::Time"
            ]
        );
    }

    #[test]
    fn trailing_test_modules_are_skipped() {
        let text = "fn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
        assert_eq!(without_tests(text), "fn a() {}\n");
        let declared = "#[cfg(test)]\nmod tests;\nfn a() {}\n";
        assert_eq!(without_tests(declared), declared);
    }

    #[test]
    fn function_lengths_are_measured_to_closing_brace() {
        let text = "impl A {\n    pub(super) const fn a(\n        x: u8,\n    ) {\n        x;\n    }\n\n    fn b();\n\n    fn c() {}\n}\n";
        assert_eq!(functions(text), [("a".to_owned(), 5)]);
    }
}

//! Every setting is described in the table and in the manual.

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the name, range and help of each setting.
fn settings(table: &str) -> Vec<(String, String, String)> {
    let start = table.find("\nsettings! {\n").expect("the table");
    let end = start + table[start..].find("\n}\n").expect("its end");
    let rows = table[start..end]
        .split(";\n")
        .filter(|row| row.contains('"'));
    let texts = |row: &str| {
        row.split('"')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    rows.map(|row| {
        let texts: Vec<String> = texts(row);
        let head = row.split(':').next().unwrap_or_default();
        let name = head.rsplit([' ', '\n']).next().unwrap_or_default();
        (name.to_owned(), texts[0].clone(), texts[1].clone())
    })
    .collect()
}

#[test]
fn every_setting_is_documented() {
    let page = read("docs/settings.md");
    let settings = settings(&read("src/settings/keys.rs"));
    assert!(
        settings.len() > 70,
        "only {} settings found",
        settings.len()
    );
    for (name, range, help) in settings {
        assert!(!range.is_empty(), "{name} has no range");
        assert!(help.len() > 10 && help.ends_with('.'), "{name}: {help:?}");
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/settings.md lacks {name}"));
        assert!(row.contains(&range) && row.contains(&help), "{row}");
    }
}

#[test]
fn settings_are_found_in_a_table() {
    let table = "x\nsettings! {\n    one: a.b, \"r\",\n        \"Help.\";\n    #[secret]\n    two: c, \"s\",\n        \"More.\";\n}\n";
    let found = settings(table);
    assert_eq!(found[0].0, "one");
    assert_eq!(found[1], ("two".into(), "s".into(), "More.".into()));
}

//! The structure of the sources: no import cycle, no two types or files with the same name.
//!
//! A room is a folder under `src`. Its members are its files and subfolders. `mod.rs` is the
//! interface of the room: it declares the members, and they may use its definitions, so imports
//! between a folder and its own members do not count as a cycle.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::{Source, assert_none, paths_after, sources};

/// Rooms with cycles that still have to be removed.
const UNFINISHED: [&str; 3] = ["capi", "store/nats", "store/nats/client"];

/// A module path: `["runtime", "notifier"]`.
type ModulePath = Vec<String>;

/// The imports inside each room: room -> member -> used members, each with an example.
type Imports = BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>;

fn module_of(source: &Source) -> ModulePath {
    let path = source.path.trim_end_matches(".rs");
    let mut parts: ModulePath = path.split('/').map(str::to_owned).collect();
    if matches!(
        parts.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        parts.pop();
    }
    parts
}

/// Returns the absolute paths that a file imports or names.
fn absolute_paths(source: &Source) -> Vec<ModulePath> {
    let here = module_of(source);
    let code: Vec<&str> = source.code().map(|(_, line)| line).collect();
    let code = code.join("\n");
    let mut all = Vec::new();
    for (root, up) in [("crate::", usize::MAX), ("super::", 1), ("self::", 0)] {
        for path in paths_after(root, &code) {
            let mut names: Vec<&str> = path.split("::").filter(|name| !name.is_empty()).collect();
            let mut up = up;
            while names.first() == Some(&"super") {
                names.remove(0);
                up += 1;
            }
            let kept = here.len().saturating_sub(up);
            let mut absolute = here[..kept].to_vec();
            absolute.extend(names.into_iter().map(str::to_owned));
            all.push(absolute);
        }
    }
    all
}

/// Returns the names that a `mod.rs` re-exports, with the member.
fn re_exports(source: &Source) -> Vec<(String, ModulePath)> {
    let here = module_of(source);
    let mut found = Vec::new();
    let code: Vec<&str> = source.code().map(|(_, line)| line).collect();
    for path in paths_after("use self::", &code.join("\n")) {
        let names: Vec<&str> = path.split("::").collect();
        if let [part @ .., name] = names.as_slice() {
            let mut target = here.clone();
            target.extend(part.iter().map(|&part| part.to_owned()));
            found.push(((*name).to_owned(), target));
        }
    }
    found
}

fn imports_of(sources: &[Source]) -> Imports {
    let modules: BTreeSet<ModulePath> = sources.iter().map(module_of).collect();
    let mut exported: BTreeMap<ModulePath, ModulePath> = BTreeMap::new();
    for source in sources {
        for (name, target) in re_exports(source) {
            let mut path = module_of(source);
            path.push(name);
            exported.insert(path, target);
        }
    }
    // Returns the module that defines the item of a path.
    let defining = |path: &ModulePath| {
        let mut path = path.clone();
        loop {
            let length = (0..=path.len())
                .rev()
                .find(|&length| modules.contains(&path[..length]))?;
            let item = path.get(..=length).and_then(|item| exported.get(item));
            match item {
                Some(target) if *target != path[..length] => path = target.clone(),
                _ => return Some(path[..length].to_vec()),
            }
        }
    };
    let mut imports = Imports::new();
    for source in sources.iter().filter(|source| source.path != "lib.rs") {
        let from = module_of(source);
        for path in absolute_paths(source) {
            let Some(to) = defining(&path) else { continue };
            let same = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            if same == from.len() || same == to.len() {
                continue; // a folder and its own member
            }
            let room = imports.entry(from[..same].join("/")).or_default();
            let users = room.entry(from[same].clone()).or_default();
            let example = format!("{} uses {}", source.path, path.join("::"));
            users.entry(to[same].clone()).or_insert(example);
        }
    }
    imports
}

/// Returns every import of a room that is part of a cycle.
fn circles(imports: &Imports) -> Vec<String> {
    let mut found = Vec::new();
    for (room, members) in imports {
        if UNFINISHED.contains(&room.as_str()) {
            continue;
        }
        for (from, uses) in members {
            for (to, example) in uses {
                if reaches(members, to, from) {
                    found.push(format!(
                        "src/{room}: {from} -> {to} -> … -> {from}: {example}"
                    ));
                }
            }
        }
    }
    found
}

fn reaches(members: &BTreeMap<String, BTreeMap<String, String>>, from: &str, to: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut next = vec![from];
    while let Some(member) = next.pop() {
        if member == to {
            return true;
        }
        if seen.insert(member) {
            let uses = members.get(member).into_iter().flatten();
            next.extend(uses.map(|(used, _)| used.as_str()));
        }
    }
    false
}

#[test]
fn no_room_has_an_import_circle() {
    assert_none("an import cycle", &circles(&imports_of(&sources())));
}

/// Returns the types of a file, without aliases: each module may have its `Result`.
fn types(source: &Source) -> impl Iterator<Item = String> {
    source.code().filter_map(|(_, line)| {
        let line = line.trim_start_matches("pub(crate) ");
        let line = line
            .trim_start_matches("pub(super) ")
            .trim_start_matches("pub ");
        let (kind, rest) = line.split_once(' ')?;
        let is_type = ["struct", "enum", "trait", "union"].contains(&kind);
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        is_type.then(|| rest[..end.unwrap_or(rest.len())].to_owned())
    })
}

/// The command is a separate crate; the naming rules of the library do not apply.
fn is_library(source: &Source) -> bool {
    !source.is_under("bin/")
}

#[test]
fn no_two_types_share_a_name() {
    let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let checked = sources().into_iter().filter(is_library);
    // Its types are private and still have short names.
    for source in checked.filter(|source| !source.is_under("store/nats/")) {
        for name in types(&source) {
            // One type may have a variant for each platform, in one file.
            owners.entry(name).or_default().insert(source.path.clone());
        }
    }
    assert!(owners.len() > 200, "only {} types were found", owners.len());
    let shared = owners.iter().filter(|(_, files)| files.len() > 1);
    let offences: Vec<String> = shared
        .map(|(name, files)| format!("{name}: {files:?}"))
        .collect();
    assert_none("two types of one name", &offences);
}

#[test]
fn no_two_files_share_a_name() {
    let mut paths: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources().into_iter().filter(is_library) {
        let name = source
            .path
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        // The interface of a room. A file of the C ABI has the name of the Rust file that it
        // exposes.
        if name != "mod.rs" && !source.is_under("capi/") {
            paths.entry(name).or_default().push(source.path);
        }
    }
    let shared = paths.values().filter(|paths| paths.len() > 1);
    let offences: Vec<String> = shared.map(|paths| paths.join(" and ")).collect();
    assert_none("two files of one name", &offences);
}

#[test]
fn root_of_src_has_no_utility_files() {
    const ROOT: [&str; 5] = ["config.rs", "error.rs", "lib.rs", "types.rs", "wire.rs"];
    let sources = sources();
    let loose = sources.iter().filter(|source| !source.path.contains('/'));
    let loose = loose.filter(|source| !ROOT.contains(&source.path.as_str()));
    let offences: Vec<String> = loose.map(|source| source.path.clone()).collect();
    assert_none("a file without a room", &offences);
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
    fn circle_of_two_files_is_found_also_through_the_face_of_a_room() {
        let sources = [
            source("a/mod.rs", "mod x;\nmod y;\npub use self::x::X;\n"),
            source("a/x.rs", "use super::y::Y;\npub struct X;\n"),
            source("a/y.rs", "use crate::a::X;\npub struct Y;\n"),
            source("b.rs", "use crate::a::X;\n"),
        ];
        let found = circles(&imports_of(&sources));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("a/x.rs uses a::y::Y"), "{found:?}");
    }

    #[test]
    fn circle_of_two_rooms_is_found_and_a_part_may_use_its_face() {
        let sources = [
            source("a/mod.rs", "mod x;\nuse self::x::X;\npub struct A;\n"),
            source("a/x.rs", "use super::A;\nuse crate::b::B;\n"),
            source("b.rs", "pub struct B(crate::c::C);\n"),
            source("c.rs", "use crate::a::x::X;\n"),
        ];
        let found = circles(&imports_of(&sources));
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn types_are_found_and_aliases_are_not() {
        let text =
            "pub struct A;\npub(crate) enum B {}\ntype C = A;\n    struct Inner;\ntrait D<T> {}\n";
        let found: Vec<String> = types(&source("a.rs", text)).collect();
        assert_eq!(found, ["A", "B", "D"]);
    }
}

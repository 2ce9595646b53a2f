//! The result of `make install`: libraries, headers, pkg-config and CMake files, notices.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::build::{library, root, succeed};

/// A program of a user who has only the installed tree.
const PROGRAM: &str = "#include <divvy.h>\n#include <string.h>\nint main(void) {\n\
    divvy_store store = {0};\n    divvy_config config = {0};\n    \
    return strcmp(divvy_version(), PACKAGE_VERSION) || divvy_check_abi(DIVVY_ABI_VERSION)\n        \
    || divvy_config_new(&config, NULL, 0)\n        \
    || divvy_config_set(config, \"store\", \"memory\", NULL, 0)\n        \
    || divvy_store_open(config, 0, &store, NULL, 0)\n        \
    || divvy_store_free(store) || divvy_config_free(config);\n}\n";

/// The installed tree, moved after the installation: it must not contain its former path.
fn installed() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| {
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packaging");
        let _ = std::fs::remove_dir_all(&scratch);
        std::fs::create_dir_all(&scratch).unwrap();
        let mut make = Command::new("make");
        make.current_dir(root())
            .args(["install", "PREFIX=/opt/divvy"]);
        make.arg(format!("DESTDIR={}", scratch.join("dest").display()));
        succeed(make.arg(format!("LIBRARY_DIR={}", library().display())));
        let tree = scratch.join("moved");
        std::fs::rename(scratch.join("dest/opt/divvy"), &tree).unwrap();
        std::fs::write(scratch.join("main.c"), PROGRAM).unwrap();
        tree
    })
}

fn words(command: &mut Command) -> Vec<String> {
    let output = succeed(command);
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().map(str::to_owned).collect()
}

fn pkg_config(arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.env("PKG_CONFIG_PATH", installed().join("lib/pkgconfig"));
    words(command.args(arguments).arg("divvy"))
}

#[test]
fn installed_tree_builds_with_plain_compiler_shared_and_static() {
    let scratch = installed().parent().unwrap();
    let version = pkg_config(&["--modversion"]).concat();
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    for (name, libraries) in [
        ("shared", pkg_config(&["--libs"])),
        ("static", pkg_config(&["--variable=static_libs"])),
    ] {
        let program = scratch.join(name);
        let mut compile = Command::new("cc");
        compile.arg(format!("-DPACKAGE_VERSION=\"{version}\""));
        compile
            .args(pkg_config(&["--cflags"]))
            .arg(scratch.join("main.c"));
        succeed(compile.args(libraries).arg("-o").arg(&program));
        let mut run = Command::new(&program);
        if name == "shared" {
            run.env("LD_LIBRARY_PATH", installed().join("lib"));
        }
        succeed(&mut run);
    }
}

#[test]
fn installed_tree_builds_with_cmake_shared_and_static() {
    let project = installed().parent().unwrap().join("cmake");
    std::fs::create_dir_all(&project).unwrap();
    std::fs::write(project.join("main.c"), PROGRAM).unwrap();
    let minor = env!("CARGO_PKG_VERSION").rsplit_once('.').unwrap().0;
    let text = format!(
        "cmake_minimum_required(VERSION 3.10)\nproject(user C)\n\
         find_package(divvy {minor} CONFIG REQUIRED)\n\
         add_compile_definitions(PACKAGE_VERSION=\"{}\")\n\
         add_executable(shared main.c)\ntarget_link_libraries(shared divvy::divvy)\n\
         add_executable(static main.c)\ntarget_link_libraries(static divvy::static)\n",
        env!("CARGO_PKG_VERSION")
    );
    std::fs::write(project.join("CMakeLists.txt"), text).unwrap();
    let build = project.join("build");
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(&project).arg("-B").arg(&build);
    succeed(configure.arg(format!("-DCMAKE_PREFIX_PATH={}", installed().display())));
    succeed(Command::new("cmake").arg("--build").arg(&build));
    succeed(&mut Command::new(build.join("shared")));
    succeed(&mut Command::new(build.join("static")));
}

#[test]
fn shared_library_exports_exactly_header_functions_and_checked_list() {
    let header = std::fs::read_to_string(root().join("include/divvy.h")).unwrap();
    let declared: BTreeSet<String> = header
        .lines()
        .filter(|line| !line.starts_with([' ', '#', '/', '}']) && !line.starts_with("typedef"))
        .filter_map(|line| line.split_once('(').map(|(before, _)| before))
        .filter_map(|before| before.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("divvy_"))
        .map(str::to_owned)
        .collect();
    let mut nm = Command::new("nm");
    nm.args(["-D", "--defined-only", "--format=posix"]);
    let output = succeed(nm.arg(library().join("libdivvy.so")));
    let exported: BTreeSet<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect();
    assert_eq!(exported, declared);

    let path = root().join("packaging/symbols.txt");
    let list: String = exported.iter().map(|name| format!("{name}\n")).collect();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &list).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == list,
        "the exported symbols are not those of packaging/symbols.txt: see \"What may change\" in \
         the header, then BLESS=1"
    );
}

#[test]
fn soname_matches_header() {
    let library = installed().join("lib/libdivvy.so");
    let output = succeed(Command::new("readelf").arg("-d").arg(&library));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut parts = env!("CARGO_PKG_VERSION").split('.');
    let (major, minor) = (parts.next().unwrap(), parts.next().unwrap());
    let soname = match major {
        "0" => format!("[libdivvy.so.0.{minor}]"),
        _ => format!("[libdivvy.so.{major}]"),
    };
    assert!(text.contains(&soname), "{text}");
}

#[test]
fn notices_name_every_dependency_with_its_licence() {
    let path = root().join("packaging/THIRD-PARTY-NOTICES");
    let notices = notices();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &notices).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == notices,
        "packaging/THIRD-PARTY-NOTICES is not what Cargo.lock says; \
         BLESS=1 cargo test --features capi --test bindings packaging"
    );
}

fn notices() -> String {
    let mut metadata = Command::new(env!("CARGO"));
    metadata
        .current_dir(root())
        .args(["metadata", "--locked", "--format-version", "1"]);
    metadata.args([
        "--features",
        "capi",
        "--filter-platform",
        "x86_64-unknown-linux-gnu",
    ]);
    let output = succeed(&mut metadata);
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let linked = linked(&metadata["resolve"]);
    let mut text = String::from(
        "The divvy library contains the following software, each under the licence that follows.\n",
    );
    let mut licences: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let field = |name: &str| package[name].as_str().unwrap_or_default();
        if !linked.contains(field("id")) || field("name") == "divvy" {
            continue;
        }
        let name = format!(
            "{} {} ({})",
            field("name"),
            field("version"),
            field("license")
        );
        text.push_str(&format!("  {name}\n"));
        let folder = Path::new(field("manifest_path")).parent().unwrap();
        for licence in licence_texts(folder) {
            licences.entry(licence).or_default().push(name.clone());
        }
    }
    for (licence, packages) in licences {
        let line = "=".repeat(80);
        text.push_str(&format!(
            "\n{line}\n{}\n\n{}\n",
            packages.join("\n"),
            licence.trim()
        ));
    }
    text
}

/// All crates in the library: dependencies that are neither for builds nor for tests.
fn linked(resolve: &serde_json::Value) -> BTreeSet<String> {
    let nodes = resolve["nodes"].as_array().unwrap();
    let mut wanted = vec![resolve["root"].as_str().unwrap().to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(id) = wanted.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let node = nodes.iter().find(|node| node["id"] == id.as_str()).unwrap();
        for dependency in node["deps"].as_array().unwrap() {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            if kinds.iter().any(|kind| kind["kind"].is_null()) {
                wanted.push(dependency["pkg"].as_str().unwrap().to_owned());
            }
        }
    }
    seen
}

fn licence_texts(folder: &Path) -> Vec<String> {
    let is_licence = |name: &str| {
        let name = name.to_ascii_uppercase();
        [
            "LICENSE",
            "LICENCE",
            "COPYING",
            "NOTICE",
            "UNLICENSE",
            "COPYRIGHT",
        ]
        .iter()
        .any(|start| name.starts_with(start))
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && is_licence(&path.file_name().unwrap().to_string_lossy()))
        .collect();
    files.sort();
    let texts = files.iter().map(|file| std::fs::read(file).unwrap());
    texts
        .map(|bytes| String::from_utf8_lossy(&bytes).replace("\r\n", "\n"))
        .collect()
}

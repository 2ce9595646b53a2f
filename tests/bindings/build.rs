//! Builds the library, and C and C++ programs against it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How a program is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Shared,
    Static,
}

/// A language and its standard.
#[derive(Clone, Copy)]
pub struct Language {
    is_cpp: bool,
    standard: &'static str,
    has_exceptions: bool,
}

pub const C99: Language = Language {
    is_cpp: false,
    standard: "gnu99",
    has_exceptions: false,
};
pub const CXX11: Language = Language {
    is_cpp: true,
    standard: "c++11",
    has_exceptions: true,
};
pub const CXX11_WITHOUT_EXCEPTIONS: Language = Language {
    has_exceptions: false,
    ..CXX11
};
pub const CXX17: Language = Language {
    is_cpp: true,
    standard: "c++17",
    has_exceptions: true,
};

const STRICT: [&str; 4] = ["-pedantic-errors", "-Wall", "-Wextra", "-Werror"];

/// Libraries to link in addition to the static library; `rustc --print native-static-libs`.
pub const NATIVE_LIBS: [&str; 5] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm"];

/// Time limit after which a hanging program is killed.
const TIME_LIMIT: Duration = Duration::from_secs(120);

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn scratch() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi")
}

/// The compilers of a language: the default one, and clang if it is installed.
fn compilers(is_cpp: bool) -> Vec<&'static str> {
    let (system, clang) = if is_cpp {
        ("c++", "clang++")
    } else {
        ("cc", "clang")
    };
    let is_there = |name: &str| Command::new(name).arg("--version").output().is_ok();
    assert!(
        is_there(system),
        "there is no `{system}`: install a C and C++ compiler (Debian: apt install build-essential)"
    );
    let mut found = vec![system];
    if is_there(clang) {
        found.push(clang);
    }
    found
}

/// The folder with libdivvy.so and libdivvy.a, built once for all tests.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        if let Some(ready) = std::env::var_os("DIVVY_TEST_LIBRARY") {
            return PathBuf::from(ready);
        }
        // The build folder of the tests, where the dependencies are already compiled.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build
            .current_dir(root())
            .args(["rustc", "--lib", "--locked"]);
        build.args(["--features", "capi", "--crate-type", "cdylib,staticlib"]);
        build.arg("--target-dir").arg(target);
        build.args(["--", "-Clink-arg=-Wl,-soname,libdivvy.so.0.1"]);
        succeed(&mut build);
        let folder = scratch().join("lib");
        std::fs::create_dir_all(&folder).unwrap();
        let copy = |from: &str, to: &str| {
            std::fs::copy(target.join("debug").join(from), folder.join(to)).unwrap();
        };
        copy("libdivvy.a", "libdivvy.a");
        copy("libdivvy.so", "libdivvy.so.0.1");
        copy("libdivvy.so", "libdivvy.so");
        folder
    })
}

pub fn succeed(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    assert!(
        output.status.success(),
        "{command:?}\n{}{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output
}

/// Compiles a header that is included alone, twice.
pub fn header_alone(header: &str, c: &[&str], cpp: &[&str]) {
    std::fs::create_dir_all(scratch()).unwrap();
    for (is_cpp, standards) in [(false, c), (true, cpp)] {
        let suffix = if is_cpp { "cpp" } else { "c" };
        let source = scratch().join(format!("alone_{}.{suffix}", header.replace('.', "_")));
        let text =
            format!("#include <{header}>\n#include <{header}>\nint main(void) {{ return 0; }}\n");
        std::fs::write(&source, text).unwrap();
        for compiler in compilers(is_cpp) {
            for standard in standards {
                let mut command = Command::new(compiler);
                command.arg(format!("-std={standard}")).args(STRICT);
                command.arg("-I").arg(root().join("include"));
                succeed(command.arg("-fsyntax-only").arg(&source));
            }
        }
    }
}

/// Builds a program with every compiler and returns the executables.
pub fn build(source: &str, language: Language, link: Link) -> Vec<PathBuf> {
    let library = library();
    // ThreadSanitizer identifies uninstrumented code by its object file.
    let is_shared_only = std::env::var_os("DIVVY_TEST_SHARED_ONLY").is_some();
    let link = if is_shared_only { Link::Shared } else { link };
    let is_sanitized = std::env::var("DIVVY_TEST_SANITIZE").ok();
    let mut executables = Vec::new();
    for compiler in compilers(language.is_cpp) {
        let stem = source.replace(['/', '.'], "_");
        let name = format!("{stem}_{link:?}_{}_{compiler}", language.standard);
        let executable = scratch().join(name);
        let mut command = Command::new(compiler);
        command
            .arg(format!("-std={}", language.standard))
            .args(STRICT);
        command.args(["-g", "-O1"]);
        if let Some(flags) = &is_sanitized {
            command.args(flags.split_whitespace());
        }
        command.arg("-I").arg(root().join("include"));
        command.arg("-I").arg(root().join("tests/capi"));
        if language.is_cpp {
            command.args(["-x", "c++"]);
            if !language.has_exceptions {
                command.arg("-fno-exceptions");
            }
        }
        command.arg(root().join(source)).args(["-x", "none"]);
        match link {
            Link::Shared => {
                command
                    .arg("-L")
                    .arg(library)
                    .arg("-ldivvy")
                    .arg("-pthread");
                command.arg(format!("-Wl,-rpath,{}", library.display()));
            }
            Link::Static => {
                command
                    .arg(library.join("libdivvy.a"))
                    .args(NATIVE_LIBS)
                    .arg("-ldl");
            }
        }
        succeed(command.arg("-o").arg(&executable));
        executables.push(executable);
    }
    executables
}

/// Builds and runs a program. It must succeed and print nothing.
pub fn run(source: &str, language: Language, link: Link) {
    run_with(source, language, link, &[]);
}

/// As [`run`], with environment variables.
pub fn run_with(source: &str, language: Language, link: Link, variables: &[(&str, &str)]) {
    for executable in build(source, language, link) {
        let mut command = match std::env::var("DIVVY_TEST_WRAPPER") {
            Ok(wrapper) => {
                let mut words = wrapper.split_whitespace();
                let mut command = Command::new(words.next().unwrap());
                command.args(words).arg(&executable);
                command
            }
            Err(_) => Command::new(&executable),
        };
        command.envs(variables.iter().copied());
        let output = within_time(&mut command);
        assert!(
            output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(),
            "{command:?}\n{}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
    }
}

/// Runs an example until it prints an event of that kind, then stops it. It must succeed.
pub fn run_until_terminated(executable: &Path, kind: &str) {
    use std::io::{BufRead, BufReader};
    let mut command = Command::new(executable);
    // The examples read their settings from variables with the same prefix as the variables of the
    // tests.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DIVVY_")) {
        command.env_remove(name);
    }
    let mut child = command
        .env("DIVVY_COLD_START_WINDOW", "100ms")
        .env("DIVVY_PLANNED_SCALE_WINDOW", "100ms")
        .env("DIVVY_COOLDOWN", "50ms")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let wanted = format!("\"kind\":\"{kind}\"");
    let is_seen = lines.any(|line| line.unwrap().contains(&wanted));
    // SAFETY: no pointers; the child was not waited for, so the number is still its own.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) };
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(is_seen, "{executable:?}: {rest:?}");
    assert!(child.wait().unwrap().success(), "{executable:?}: {rest:?}");
    let is_reported = rest.iter().any(|line| line.starts_with("stopping"));
    assert!(is_reported, "{executable:?}: {rest:?}");
}

fn within_time(command: &mut Command) -> Output {
    let files = tempfile::tempdir().unwrap();
    let open = |name: &str| std::fs::File::create(files.path().join(name)).unwrap();
    let mut child = command
        .stdout(open("stdout"))
        .stderr(open("stderr"))
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    let limit = Instant::now() + TIME_LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > limit {
            // Where its threads are blocked, according to the kernel.
            child.kill().unwrap();
            let status = child.wait().unwrap();
            let stderr = std::fs::read_to_string(files.path().join("stderr")).unwrap_or_default();
            panic!("{command:?} did not end within {TIME_LIMIT:?}: {status}\n{stderr}");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Output {
        status,
        stdout: std::fs::read(files.path().join("stdout")).unwrap(),
        stderr: std::fs::read(files.path().join("stderr")).unwrap(),
    }
}

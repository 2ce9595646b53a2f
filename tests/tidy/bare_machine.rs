//! The output of `make demo` and `make test` on a machine without the tools: `.ci/need`, run by the
//! system's `sh` with a PATH that contains only selected tools.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

/// Tools of every machine.
const BASE: [&str; 2] = ["sh", "cut"];

/// Locked while a script is written and while programs are started: a program started meanwhile
/// would inherit the open script, and running it would fail ("text file busy").
static WRITING_OR_STARTING: Mutex<()> = Mutex::new(());

/// A PATH with one folder of selected tools.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    /// A machine with only the base tools, with or without root.
    fn bare(root: bool) -> Self {
        let machine = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        for tool in BASE {
            symlink(real(tool), machine.path(tool)).unwrap();
        }
        machine.with("id", if root { "echo 0" } else { "echo 1000" })
    }

    /// Adds a tool that runs `script`.
    fn with(self, tool: &str, script: &str) -> Self {
        let path = self.path(tool);
        let _guard = WRITING_OR_STARTING
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn with_rust(self, version: &str) -> Self {
        self.with("cargo", "exit 0")
            .with("rustc", &format!("echo 'rustc {version} (abc 2026-01-01)'"))
    }

    fn with_all_tools(self) -> Self {
        self.with_rust("1.95.0")
            .with("cc", "exit 0")
            .with("python3", "exit 0")
            .with("cargo-fmt", "exit 0")
            .with("cargo-clippy", "exit 0")
    }

    fn need(&self, what: &str) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/need");
        let _guard = WRITING_OR_STARTING
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Command::new("/bin/sh")
            .arg(script)
            .arg(what)
            .env_clear()
            .env("PATH", self.folder.path())
            .output()
            .unwrap()
    }

    /// Returns the error message for an unmet need.
    fn complaint(&self, what: &str) -> String {
        let output = self.need(what);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn path(&self, tool: &str) -> PathBuf {
        self.folder.path().join(tool)
    }
}

/// Returns the path of a base tool on this machine.
fn real(tool: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path)
        .map(|folder| folder.join(tool))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("no {tool} on this machine"))
}

#[test]
fn complete_machine_produces_no_output() {
    let machine = Machine::bare(false).with_all_tools();
    for what in ["build", "lint", "test"] {
        let output = machine.need(what);
        assert!(output.status.success(), "{what}: {output:?}");
        assert!(output.stdout.is_empty() && output.stderr.is_empty());
    }
}

#[test]
fn all_missing_tools_are_reported_at_once_with_install_commands() {
    let machine = Machine::bare(false).with("apt-get", "exit 1");
    let text = machine.complaint("test");
    for part in [
        "Rust (1.88 or newer) is not installed",
        "sudo apt-get install -y curl ca-certificates",
        "https://sh.rustup.rs",
        "sudo apt-get install -y gcc libc6-dev",
        "sudo apt-get install -y python3 python3-pip",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn each_system_gets_commands_of_its_package_manager() {
    for (manager, command) in [
        ("apt-get", "sudo apt-get install -y gcc libc6-dev"),
        ("dnf", "sudo dnf install -y gcc"),
        ("apk", "sudo apk add gcc musl-dev"),
        ("pacman", "sudo pacman -S --noconfirm gcc"),
        ("none", "your system's package manager; usual names: gcc"),
    ] {
        let machine = Machine::bare(false)
            .with_rust("1.95.0")
            .with(manager, "exit 1");
        let text = machine.complaint("build");
        assert!(text.contains(command), "{manager}: {text}");
    }
}

#[test]
fn outdated_rust_is_distinguished_from_missing_rust() {
    let machine = Machine::bare(false).with_all_tools().with_rust("1.63.0");
    let text = machine.complaint("build");
    assert!(
        text.contains("Rust 1.88 or newer is needed, this is 1.63.0"),
        "{text}"
    );
    assert!(text.contains("sh.rustup.rs"), "{text}");

    let machine = machine.with("rustup", "exit 0");
    let text = machine.complaint("build");
    assert!(text.contains("rustup update stable"), "{text}");

    let machine = machine.with("rustc", "echo 'error: no default toolchain' >&2; exit 1");
    let text = machine.complaint("build");
    assert!(text.contains("rustup toolchain install stable"), "{text}");
}

#[test]
fn python_without_pip_is_not_enough_but_go_or_server_is() {
    let machine = Machine::bare(false)
        .with_all_tools()
        .with("python3", "exit 1");
    assert!(machine.complaint("test").contains("Python 3 with pip"));
    assert!(machine.need("build").status.success());
    assert!(machine.with("go", "exit 0").need("test").status.success());

    let machine = Machine::bare(false)
        .with_rust("1.95.0")
        .with("cc", "exit 0")
        .with("nats-server", "exit 0");
    assert!(machine.need("test").status.success());
}

#[test]
fn missing_rust_components_are_named() {
    let machine = Machine::bare(false)
        .with_rust("1.95.0")
        .with("cc", "exit 0");
    let text = machine.complaint("lint");
    assert!(text.contains("rustup component add rustfmt"), "{text}");
    assert!(text.contains("rustup component add clippy"), "{text}");
}

#[test]
fn root_gets_packages_installed_and_reported() {
    let machine = Machine::bare(true).with_rust("1.95.0");
    let log = machine.path("log");
    // The fake apt-get records its arguments and installs the compiler and Python.
    let bring = |tool: &str| {
        let path = machine.path(tool);
        format!(
            "printf '#!/bin/sh\\n' >{p}; {chmod} +x {p}",
            p = path.display(),
            chmod = real("chmod").display()
        )
    };
    let script = format!(
        "echo \"$*\" >>{}; [ \"$1\" = update ] || {{ {}; {}; }}",
        log.display(),
        bring("cc"),
        bring("python3")
    );
    let machine = machine.with("apt-get", &script);
    let output = machine.need("test");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("installing gcc libc6-dev python3 python3-pip"),
        "{text}"
    );
    assert_eq!(
        fs::read_to_string(log).unwrap(),
        "update -qq\n\
         install -y -qq --no-install-recommends gcc libc6-dev python3 python3-pip\n"
    );
}

#[test]
fn failed_installation_prints_commands_instead_of_looping() {
    let machine = Machine::bare(true).with("apt-get", "exit 100");
    let text = machine.complaint("test");
    assert!(text.contains("apt-get failed"), "{text}");
    assert!(text.contains("apt-get install -y gcc libc6-dev"), "{text}");
    assert!(!text.contains("sudo"), "{text}");
}

#[test]
fn unknown_need_is_usage_error() {
    assert_eq!(Machine::bare(false).need("sing").status.code(), Some(2));
}

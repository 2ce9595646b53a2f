//! Finds a `nats-server` of a given version, and fetches it once if it is missing.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The newest server of the tests.
pub const NEWEST: &str = "2.15.1";
/// The oldest server that divvy supports.
pub const OLDEST: &str = "2.10.26";

/// Returns the path of a server binary. `any` prefers `NATS_SERVER` or the one in PATH.
///
/// # Panics
/// If there is none and none can be fetched. The message says what to install.
pub fn find(version: &str) -> PathBuf {
    if version == "any" {
        return present().unwrap_or_else(|| find(NEWEST));
    }
    let binary = tools().join(version).join("nats-server");
    if binary.is_file() {
        return binary;
    }
    fs::create_dir_all(tools()).expect("the tools folder can be created");
    // Lets concurrent tests fetch it once.
    let _lock = Lock::take(&tools().join(format!("{version}.lock")));
    let status = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/nats-server"))
        .arg(version)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .expect(".ci/nats-server can be run");
    assert!(status.success(), "no nats-server {version}, see above");
    binary
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

/// A lock between processes, released on drop.
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

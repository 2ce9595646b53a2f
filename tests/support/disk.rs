//! A small separate file system, which can fill up while the machine's does not.
//!
//! A process holds it in a mount namespace. Processes that use it run in that namespace. No
//! privilege is needed if the system allows user namespaces.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Dropping it ends the process that holds it.
pub struct Disk {
    holder: Child,
    /// The holder ends when this is closed.
    _hold: ChildStdin,
    folder: tempfile::TempDir,
}

impl Disk {
    /// Creates a file system of this size in megabytes. Returns why it cannot be created if the
    /// system does not allow it.
    pub fn new(megabytes: u32) -> Result<Self, String> {
        let folder = tempfile::tempdir().expect("a folder to mount on");
        let mount = "mount -t tmpfs -o size=\"$1\"m tmpfs \"$0\" && echo mounted && read -r _";
        let mut holder = Command::new("unshare")
            .args(namespaces("--map-root-user"))
            .args(["--", "sh", "-c", mount])
            .arg(folder.path())
            .arg(megabytes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let hold = holder.stdin.take().expect("it is piped");
        let mut line = String::new();
        let reported =
            BufReader::new(holder.stdout.take().expect("it is piped")).read_line(&mut line);
        if reported.is_err() || line.trim() != "mounted" {
            let _ = holder.wait();
            return Err("no file system can be mounted, not even in a namespace".into());
        }
        Ok(Self {
            holder,
            _hold: hold,
            folder,
        })
    }

    /// The path for the server.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns a command that runs in its namespace.
    pub fn command(&self, binary: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(namespaces("--preserve-credentials"))
            .args(["--target", &self.holder.id().to_string(), "--"])
            .arg(binary);
        command
    }

    /// Fills the remaining space.
    pub fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).expect("a file");
        for size in [1 << 16, 1 << 10, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Frees the space again.
    pub fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("the file is there");
    }

    /// The path from outside the namespace.
    fn filler(&self) -> PathBuf {
        let root = format!("/proc/{}/root", self.holder.id());
        let folder = self.path().strip_prefix("/").expect("an absolute path");
        Path::new(&root).join(folder).join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Root needs no user namespace.
fn namespaces(of_others: &'static str) -> Vec<&'static str> {
    // SAFETY: asks for a number and touches nothing.
    match unsafe { libc::geteuid() } {
        0 => vec!["--mount"],
        _ => vec!["--user", of_others, "--mount"],
    }
}

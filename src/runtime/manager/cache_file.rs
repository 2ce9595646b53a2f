//! The cache file: reads, replaces and removes it, on `dv-io`. When, and what counts of it, is
//! decided in [`machine::cache`](crate::machine::cache).
//!
//! The file has two lines: a JSON object, and the XXH3-64 of that line's bytes. It is replaced as a
//! whole (written next to it, flushed and renamed), so a crash leaves the old or the new content.
//! Only its owner may read it. Anything other than a regular file, including a symbolic link, is
//! never read or followed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::ManagerConfig;
use crate::error::{Code, Error, Result};
use crate::machine::assignment::Held;
use crate::machine::cache::{CacheAnswer, CacheOrder, Recalled, Remembered, recall};
use crate::machine::stable_id::Pool;
use crate::store::Store;
use crate::time::clock::Clock;
use crate::types::{Partition, Term, Version, WorkerId};

/// The only format so far.
const FORMAT: u32 = 1;

/// More than the assignment of one worker ever takes.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The first line of the file.
#[derive(Serialize, Deserialize)]
struct CacheContent {
    format: u32,
    fleet: String,
    worker: String,
    /// Milliseconds since the beginning of 1970.
    seen_ms: u64,
    /// The same for people.
    #[serde(default)]
    seen: String,
    term: Term,
    version: Version,
    lifecycle: String,
    partitions: Vec<Partition>,
}

/// The cache file of one worker.
pub(super) struct CacheFile {
    path: PathBuf,
    fleet: String,
    pool: Pool,
    max_age: Duration,
    /// Whether the write failure has been logged.
    is_failing: AtomicBool,
}

impl CacheFile {
    /// The file that the configuration names, if it does.
    pub fn of(config: &ManagerConfig, store: &dyn Store) -> Option<Arc<Self>> {
        let path = config.cache_file.clone()?;
        let calculator = &config.calculator;
        Some(Arc::new(Self {
            path,
            fleet: format!(
                "{} {} {} {}",
                config.worker_id_prefix,
                calculator.heartbeat_prefix,
                calculator.assignment_prefix,
                store.identity()
            ),
            pool: Pool {
                prefix: config.worker_id_prefix.clone(),
                min: config.worker_id_min,
                max: config.worker_id_max,
                ttl: config.worker_id_ttl,
            },
            max_age: config.cache_max_age,
            is_failing: AtomicBool::new(false),
        }))
    }

    /// Runs a cache request. An unusable file counts as missing; a write failure is logged once
    /// until a write succeeds.
    pub fn perform(&self, order: CacheOrder, clock: &dyn Clock) -> CacheAnswer {
        let wall = since_1970(SystemTime::now());
        let done = match order {
            CacheOrder::Load => return CacheAnswer::Loaded(self.load(wall)),
            CacheOrder::Save { worker, held, seen } => {
                // It may have waited.
                let seen = wall.saturating_sub(clock.now().since(seen));
                self.save(&Remembered {
                    fleet: self.fleet.clone(),
                    worker,
                    held,
                    seen,
                })
            }
            CacheOrder::Erase => erase(&self.path),
        };
        match done {
            Ok(()) => {
                self.is_failing.store(false, Ordering::Relaxed);
                CacheAnswer::Done
            }
            Err(error) => {
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    let path = self.path.display();
                    log::warn!(
                        target: "divvy::manager", path = path.to_string().as_str();
                        "cannot write cache file {path}, retrying: {error}"
                    );
                }
                CacheAnswer::Failed
            }
        }
    }

    fn load(&self, now: Duration) -> Option<Recalled> {
        let remembered = match read(&self.path).and_then(|bytes| bytes.map(decode).transpose()) {
            Ok(remembered) => remembered?,
            Err(error) => return self.ignore(&error),
        };
        match recall(remembered, &self.fleet, &self.pool, now, self.max_age) {
            Ok(recalled) => Some(recalled),
            Err(error) => self.ignore(&error),
        }
    }

    fn ignore(&self, why: &Error) -> Option<Recalled> {
        let path = self.path.display();
        log::warn!(
            target: "divvy::manager", path = path.to_string().as_str();
            "cache file {path} ignored: {why}"
        );
        None
    }

    fn save(&self, remembered: &Remembered) -> io::Result<()> {
        replace(&self.path, &encode(remembered))
    }
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

fn encode(remembered: &Remembered) -> Vec<u8> {
    let seen = SystemTime::UNIX_EPOCH.checked_add(remembered.seen);
    let content = CacheContent {
        format: FORMAT,
        fleet: remembered.fleet.clone(),
        worker: remembered.worker.to_string(),
        seen_ms: crate::time::duration::millis(remembered.seen),
        seen: seen.map_or_else(String::new, crate::time::clock::wall_clock_at),
        term: remembered.held.term,
        version: remembered.held.version,
        lifecycle: remembered.held.lifecycle.clone(),
        partitions: remembered.held.partitions.to_vec(),
    };
    // Texts and numbers: there is nothing that JSON cannot hold.
    let mut bytes = serde_json::to_vec(&content).unwrap_or_default();
    let sum = format!("\n{:016x}\n", xxh3_64(&bytes));
    bytes.extend_from_slice(sum.as_bytes());
    bytes
}

fn decode(bytes: Vec<u8>) -> Result<Remembered> {
    let refuse = |why: &str| Error::new(Code::InvalidData, why);
    let end = bytes.iter().position(|&byte| byte == b'\n');
    let Some((content, sum)) = end.map(|end| (&bytes[..end], &bytes[end + 1..])) else {
        return Err(refuse("damaged: no second line"));
    };
    if sum != format!("{:016x}\n", xxh3_64(content)).as_bytes() {
        return Err(refuse("damaged: checksum mismatch"));
    }
    let content: CacheContent = serde_json::from_slice(content)
        .map_err(|cause| refuse("malformed content").caused_by(cause))?;
    if content.format != FORMAT {
        let why = format!("format {} instead of {FORMAT}", content.format);
        return Err(refuse(&why));
    }
    if content.version < 0 || content.term < 0 {
        return Err(refuse("negative version or term"));
    }
    Ok(Remembered {
        fleet: content.fleet,
        worker: WorkerId::new(&content.worker)
            .map_err(|cause| refuse("invalid worker id").caused_by(cause))?,
        held: Held {
            version: content.version,
            term: content.term,
            lifecycle: content.lifecycle,
            partitions: content.partitions.into(),
        },
        seen: Duration::from_millis(content.seen_ms),
    })
}

/// The file's bytes; `None` where there is no file.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let refuse = |why: String| Error::new(Code::InvalidData, why);
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refuse("cannot open".into()).caused_by(error)),
    };
    let failed = |error: io::Error| refuse("it cannot be read".into()).caused_by(error);
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(refuse("not a regular file".into()));
    }
    check_access(&about)?;
    if about.len() > BYTES_MAX {
        return Err(refuse(format!("more than {BYTES_MAX} bytes")));
    }
    let mut bytes = Vec::new();
    // One that grows meanwhile is refused as damaged.
    file.take(BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(Some(bytes))
}

/// The file decides what this worker owns while the store cannot be reached. So it has to belong to
/// the user of this process, and no other user may be allowed to write it.
#[cfg(unix)]
fn check_access(about: &fs::Metadata) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    // SAFETY: geteuid has no preconditions and cannot fail.
    let user = unsafe { libc::geteuid() };
    let why = if about.uid() != user {
        format!(
            "it belongs to user {}, and this process runs as user {user}",
            about.uid()
        )
    } else if about.mode() & 0o022 != 0 {
        format!(
            "other users may write it (mode {:03o}): run chmod go-w",
            about.mode() & 0o777
        )
    } else {
        return Ok(());
    };
    Err(Error::new(Code::InvalidData, why))
}

#[cfg(not(unix))]
fn check_access(_about: &fs::Metadata) -> Result<()> {
    Ok(())
}

/// Without following a link, and without waiting for the other end of a pipe.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
    }
    options.open(path)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    // Left behind by a crash.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let written = options.open(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let replaced = written.and_then(|()| fs::rename(&temporary, path));
    if replaced.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    replaced.and_then(|()| flush_folder(path))
}

fn erase(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => flush_folder(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The name is on the disk, too.
#[cfg(unix)]
fn flush_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| folder.as_os_str() != "");
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
fn flush_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests;

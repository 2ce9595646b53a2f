//! Worker processes, their output, and their partitions.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use divvy::Partition;
use serde::Deserialize as _;
use serde_json::Value;

/// Longer than any operation takes on a busy machine: several leases and windows.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// The latest output of a process.
#[derive(Clone, Debug, Default)]
pub struct Said {
    pub id: Option<String>,
    pub state: String,
    pub leader: Option<String>,
    pub is_leader: bool,
    pub version: i64,
    pub held: BTreeSet<String>,
    /// Whether the assignment came from the cache file.
    pub is_cached: bool,
    /// The versions in the order in which they were applied.
    pub versions: Vec<i64>,
    /// All output, for the message of a failed test.
    pub lines: Vec<String>,
}

struct Shared {
    said: Mutex<Said>,
    wakes: Arc<(Mutex<u64>, Condvar)>,
}

/// One `divvy worker`. Dropping it kills it.
pub struct Worker {
    child: Option<Child>,
    shared: Arc<Shared>,
}

/// The server of a fleet and its timing.
#[derive(Clone)]
pub struct Fleet {
    urls: String,
    partitions: usize,
    replicas: u32,
    wakes: Arc<(Mutex<u64>, Condvar)>,
}

impl Fleet {
    pub fn new(urls: &str, partitions: usize) -> Self {
        Self {
            urls: urls.to_owned(),
            partitions,
            replicas: 1,
            wakes: Arc::default(),
        }
    }

    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// A worker with the default leases and short windows.
    pub fn worker(&self, departure: &str) -> Worker {
        self.worker_at(&self.urls, departure)
    }

    /// As above, with another address of the server.
    pub fn worker_at(&self, urls: &str, departure: &str) -> Worker {
        self.spawn(urls, departure, &[])
    }

    /// As above, with additional arguments.
    pub fn worker_with(&self, departure: &str, arguments: &[&str]) -> Worker {
        self.spawn(&self.urls, departure, arguments)
    }

    fn spawn(&self, urls: &str, departure: &str, arguments: &[&str]) -> Worker {
        let mut command = Command::new(cargo_bin("divvy"));
        command.args(["worker", "--json", "--nats", urls]);
        command.args(["--departure", departure]);
        command.args(["--partitions", &self.partitions.to_string()]);
        for setting in [
            "cold_start_window=1500ms",
            "planned_scale_window=500ms",
            "cooldown=500ms",
            "leave_window=50ms",
        ] {
            command.args(["--set", setting]);
        }
        command.args(["--set", &format!("nats_replicas={}", self.replicas)]);
        command.args(arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = child.spawn().expect("divvy worker starts");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let shared = Arc::new(Shared {
            said: Mutex::default(),
            wakes: Arc::clone(&self.wakes),
        });
        let listener = Arc::clone(&shared);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                listener.heard(line);
            }
        });
        Worker {
            child: Some(child),
            shared,
        }
    }

    /// Starts this many workers.
    pub fn workers(&self, count: usize, departure: &str) -> Vec<Worker> {
        (0..count).map(|_| self.worker(departure)).collect()
    }

    /// Waits until the condition holds. Checks it after each output of a worker.
    #[track_caller]
    pub fn wait<R>(&self, what: &str, mut condition: impl FnMut() -> Result<R, String>) -> R {
        let deadline = Instant::now() + TIMEOUT;
        let (count, changed) = &*self.wakes;
        let mut seen = count.lock().unwrap();
        loop {
            let why = match condition() {
                Ok(result) => return result,
                Err(why) => why,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what}: not in {TIMEOUT:?}: {why}");
            seen = changed.wait_timeout(seen, left).unwrap().0;
        }
    }

    /// Waits until every partition has exactly one owner among these workers, and each of them owns
    /// some.
    #[track_caller]
    pub fn wait_for_cover(&self, workers: &[Worker]) {
        let all = self.partitions;
        self.wait("every partition with one owner", || {
            let said: Vec<Said> = workers.iter().map(Worker::said).collect();
            let total: usize = said.iter().map(|s| s.held.len()).sum();
            let distinct: BTreeSet<&String> = said.iter().flat_map(|s| &s.held).collect();
            let idle = said.iter().filter(|s| s.held.is_empty()).count();
            match (distinct.len(), total, idle) {
                (d, t, 0) if d == all && t == all => Ok(()),
                (d, t, i) => Err(format!(
                    "{d} of {all} owned, {t} assignments, {i} workers without partitions"
                )),
            }
        });
    }

    /// Waits until one of them leads, and returns its index.
    #[track_caller]
    pub fn wait_for_leader(&self, workers: &[Worker]) -> usize {
        self.wait("a leader", || {
            let leads: Vec<usize> = (0..workers.len())
                .filter(|&n| workers[n].said().is_leader)
                .collect();
            match leads[..] {
                [leader] => Ok(leader),
                _ => Err(format!("{} lead", leads.len())),
            }
        })
    }
}

impl Shared {
    fn heard(&self, line: String) {
        let event: Value = serde_json::from_str(&line).expect("a JSON object a line");
        let text = |name: &str| event[name].as_str().map(str::to_owned);
        let mut said = self.said.lock().unwrap();
        match event["kind"].as_str().unwrap_or_default() {
            "worker_id" => said.id = text("worker").filter(|id| !id.is_empty()),
            "manager_state" => said.state = text("state").unwrap_or_default(),
            "leader" => {
                said.leader = text("worker").filter(|id| !id.is_empty());
                said.is_leader = event["is_leader"].as_bool().unwrap_or_default();
            }
            "assignment" => {
                said.version = event["version"].as_i64().unwrap_or_default();
                let version = said.version;
                said.versions.push(version);
                said.is_cached = event["lifecycle"] == "cached";
                let held = event["partitions"].as_array();
                let partitions = held.into_iter().flatten();
                let partitions = partitions.map(|p| Partition::deserialize(p).expect("keys"));
                said.held = partitions.map(|partition| partition.subject()).collect();
            }
            _ => {}
        }
        said.lines.push(line);
        drop(said);
        *self.wakes.0.lock().unwrap() += 1;
        self.wakes.1.notify_all();
    }
}

impl Worker {
    pub fn said(&self) -> Said {
        self.shared.said.lock().unwrap().clone()
    }

    pub fn id(&self) -> String {
        self.said().id.unwrap_or_default()
    }

    pub fn held(&self) -> BTreeSet<String> {
        self.said().held
    }

    pub fn signal(&self, signal: i32) {
        let child = self.child.as_ref().expect("it runs");
        // SAFETY: sends a signal to a child that has not been waited for.
        let status = unsafe { libc::kill(child.id() as libc::pid_t, signal) };
        assert_eq!(status, 0);
    }

    /// Kills the process, like a power failure.
    pub fn kill(mut self) {
        self.signal(libc::SIGKILL);
        self.child.take().expect("it runs").wait().unwrap();
    }

    /// Asks the process to end, and waits for the exit status 0.
    pub fn terminate(mut self) {
        self.signal(libc::SIGTERM);
        let status = self.child.take().expect("it runs").wait().unwrap();
        assert!(status.success(), "{status}: {:#?}", self.said().lines);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Returns the partitions of each id.
pub fn holdings(workers: &[Worker]) -> BTreeMap<String, BTreeSet<String>> {
    workers.iter().map(|w| (w.id(), w.held())).collect()
}

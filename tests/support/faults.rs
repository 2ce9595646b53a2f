//! A store under a fault: a caller, a writer and a reader of a watch, and the guarantees for all of
//! them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{
    Bucket, BucketConfig, Expect, Health, ManageBuckets, Operation, Outcome, Store, Watch,
    WatchEvent, Write,
};

use super::fault_list::{Fault, Stage};

pub const BUCKET: Bucket = Bucket::Assignment;
/// A bucket whose watch pulls its changes. The watch of the other bucket receives them by push. It
/// has its own name, because the heartbeats of a fleet expire.
pub const PULLED: Bucket = Bucket::Heartbeat;
const PULLED_NAME: &str = "trial-heartbeat";
pub const FOR_EVER: BucketConfig = BucketConfig { ttl: None };
/// Allowed overrun of a deadline: the 50 ms of the contract, and as much again for a busy machine.
pub const OVERRUN_MAX: Duration = Duration::from_millis(100);
pub const CALL_TIMEOUT: Duration = Duration::from_millis(500);

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Returns the options of a trial.
pub fn options<S: Into<String>>(urls: impl IntoIterator<Item = S>) -> NatsOptions {
    NatsOptions::new(urls)
        .manage_buckets(ManageBuckets::Upgrade)
        .bucket_name(PULLED, PULLED_NAME)
}

pub fn connect(url: &str) -> Arc<NatsStore> {
    let options = NatsOptions::new([url]).manage_buckets(ManageBuckets::Upgrade);
    Arc::new(NatsStore::connect(options, soon()).expect("a connection"))
}

pub fn put(key: &str, value: &str) -> Write {
    Write {
        key: key.into(),
        value: Some(value.as_bytes().to_vec()),
        expect: Expect::Any,
    }
}

/// Calls a store continuously and records the longest overrun of a deadline.
struct Caller {
    end: Arc<AtomicBool>,
    thread: JoinHandle<(Duration, usize)>,
}

impl Caller {
    fn start(store: &Arc<NatsStore>) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (store, end) = (Arc::clone(store), Arc::clone(&end));
            move || {
                let mut worst = Duration::ZERO;
                let mut done = 0;
                for n in 0.. {
                    if end.load(Ordering::SeqCst) {
                        break;
                    }
                    let started = Instant::now();
                    let deadline = started + CALL_TIMEOUT;
                    match n % 3 {
                        0 => {
                            let outcome = store.write(BUCKET, &[put("calls.k", "v")], deadline);
                            done += usize::from(matches!(outcome[0], Outcome::Done(_)));
                        }
                        1 => drop(store.read(BUCKET, "calls.k", deadline)),
                        _ => drop(store.list(BUCKET, "calls", deadline)),
                    }
                    worst = worst.max(started.elapsed().saturating_sub(CALL_TIMEOUT));
                    thread::sleep(Duration::from_millis(5));
                }
                (worst, done)
            }
        });
        Self { end, thread }
    }

    fn finish(self) -> (Duration, usize) {
        self.end.store(true, Ordering::SeqCst);
        self.thread.join().expect("no panic in a call")
    }
}

/// Writes new keys over its own connection and records the acknowledged writes.
pub struct Writer {
    end: Arc<AtomicBool>,
    acked: Arc<AtomicUsize>,
    thread: JoinHandle<BTreeMap<String, u64>>,
}

impl Writer {
    pub fn start(url: &str) -> Self {
        let acked = Arc::new(AtomicUsize::new(0));
        let end = Arc::new(AtomicBool::new(false));
        let store = NatsStore::connect(options([url]), soon()).expect("a connection");
        let thread = thread::spawn({
            let (end, count) = (Arc::clone(&end), Arc::clone(&acked));
            move || {
                let mut acked = BTreeMap::new();
                for n in 0.. {
                    if end.load(Ordering::SeqCst) {
                        break;
                    }
                    let key = format!("watched.k{}", n % 400);
                    let deadline = Instant::now() + CALL_TIMEOUT;
                    let outcome = store.write(BUCKET, &[put(&key, &n.to_string())], deadline);
                    if let Outcome::Done(revision) = outcome[0] {
                        acked.insert(key.clone(), revision);
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    store.write(PULLED, &[put(&key, &n.to_string())], deadline);
                    thread::sleep(Duration::from_millis(5));
                }
                acked
            }
        });
        Self { end, acked, thread }
    }

    /// Waits until a write was acknowledged that can be compared.
    fn wait_for_an_ack(&self) {
        let deadline = soon();
        while self.acked.load(Ordering::SeqCst) == 0 {
            assert!(Instant::now() < deadline, "no write is taken");
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn finish(self) -> BTreeMap<String, u64> {
        self.end.store(true, Ordering::SeqCst);
        self.thread.join().expect("no panic in a call")
    }
}

/// The state of a watch reader.
#[derive(Default)]
pub struct Reader {
    pub live: BTreeMap<String, u64>,
    pub disconnects: Vec<String>,
    delivered_twice: usize,
}

impl Reader {
    pub fn take(&mut self, event: WatchEvent) -> bool {
        match event {
            WatchEvent::Change(entry) if entry.operation == Operation::Put => {
                let before = self.live.insert(entry.key, entry.revision);
                self.delivered_twice += usize::from(before == Some(entry.revision));
            }
            WatchEvent::Change(entry) => drop(self.live.remove(&entry.key)),
            WatchEvent::Disconnected(why) => self.disconnects.push(why),
            WatchEvent::Live => return true,
        }
        false
    }

    /// Reads until a `Live` event, or until no event arrives for this long.
    pub fn until_live(&mut self, watch: &Watch, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while let Ok(event) = watch.events.recv_deadline(deadline) {
            if self.take(event) {
                return true;
            }
        }
        false
    }

    /// Reads until its state equals the content of the store.
    pub fn catch_up(&mut self, watch: &Watch, store: &NatsStore) {
        self.catch_up_with(BUCKET, watch, store);
    }

    fn catch_up_with(&mut self, bucket: Bucket, watch: &Watch, store: &NatsStore) {
        let listing = store.list(bucket, "watched", soon()).expect("a listing");
        let stored: BTreeMap<_, _> = listing
            .entries
            .into_iter()
            .filter(|entry| entry.operation == Operation::Put)
            .map(|entry| (entry.key, entry.revision))
            .collect();
        while self.live != stored {
            let event = watch.events.recv_timeout(Duration::from_secs(10));
            let Ok(event) = event else {
                let missing: Vec<_> = stored
                    .iter()
                    .filter(|(key, revision)| self.live.get(*key) != Some(revision))
                    .take(5)
                    .collect();
                panic!(
                    "the watch of {bucket:?} lost changes, such as {missing:?}; watch lost: {:?}",
                    self.disconnects
                );
            };
            self.take(event);
        }
    }
}

/// What happens to the content of a bucket under a fault.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    Kept,
    /// The fault deletes the bucket with its content, and healing creates an empty one. Only later
    /// writes are compared.
    Gone,
}

/// Runs one fault, from a healthy start to a healthy end.
pub struct Trial {
    name: String,
    pub store: Arc<NatsStore>,
    direct: String,
    pub watch: Watch,
    pub reader: Reader,
    /// As above, for the other kind of watch.
    pulled: (Watch, Reader),
}

impl Fault {
    /// Injects the fault with servers of this version and checks the guarantees.
    pub fn run(&self, version: &str) -> Row {
        let mut stage = self.set_up(version);
        let row = Trial::new(&self.name, &stage).measure(self, &mut stage, &mut NoCompanion);
        println!("{row}");
        row.check();
        row
    }
}

/// A participant in a fault.
pub trait Companion {
    /// Called before the injection.
    fn begins(&mut self);
    /// Called after the injection.
    fn strikes(&mut self);
    /// Called after the healing.
    fn ends(&mut self);
}

struct NoCompanion;

impl Companion for NoCompanion {
    fn begins(&mut self) {}
    fn strikes(&mut self) {}
    fn ends(&mut self) {}
}

impl Trial {
    /// A store that is affected. The writer of the watched keys is not.
    pub fn new(name: &str, stage: &Stage) -> Self {
        let options = stage.address.trial_options();
        let store = Arc::new(NatsStore::connect(options, soon()).expect("a connection"));
        store.ensure(BUCKET, FOR_EVER, soon()).expect("a bucket");
        let watch = store.watch(BUCKET, "watched").expect("a watch");
        let mut reader = Reader::default();
        assert!(reader.until_live(&watch, Duration::from_secs(10)));
        store.ensure(PULLED, FOR_EVER, soon()).expect("a bucket");
        let mut pulled = (
            store.watch(PULLED, "watched").expect("a watch"),
            Reader::default(),
        );
        assert!(pulled.1.until_live(&pulled.0, Duration::from_secs(10)));
        Self {
            name: name.to_owned(),
            store,
            direct: stage.direct.clone(),
            watch,
            reader,
            pulled,
        }
    }

    /// Injects the fault, waits, heals it, and returns the measurements.
    pub fn measure(
        mut self,
        fault: &Fault,
        stage: &mut Stage,
        companion: &mut dyn Companion,
    ) -> Row {
        let contents = fault.contents;
        let caller = Caller::start(&self.store);
        let mut writer = Writer::start(&self.direct);
        thread::sleep(Duration::from_millis(300));
        while let Ok(event) = self.watch.events.try_recv() {
            self.reader.take(event);
        }
        companion.begins();
        stage.inject();
        companion.strikes();
        thread::sleep(fault.lasting);
        stage.heal();
        companion.ends();
        let healed = Instant::now();
        if contents == Contents::Gone {
            drop(writer.finish());
            writer = Writer::start(&self.direct);
        }
        let fresh = self.until_fresh(healed);
        self.until_connected();
        writer.wait_for_an_ack();
        let acked = writer.finish();
        let (overrun, done) = caller.finish();
        self.reader.catch_up(&self.watch, &self.store);
        let (pulled, reader) = &mut self.pulled;
        reader.catch_up_with(PULLED, pulled, &self.store);
        let live = &self.reader.live;
        let is_lost =
            |(key, revision): &(&String, &u64)| live.get(*key).is_none_or(|r| r < revision);
        let row = Row {
            name: self.name,
            block: CALL_TIMEOUT + overrun,
            fresh,
            acked: acked.len(),
            lost: acked.iter().filter(is_lost).count(),
            done,
            // An empty bucket restarts at sequence 1: equal numbers are different writes.
            twice: match contents {
                Contents::Kept => self.reader.delivered_twice + self.pulled.1.delivered_twice,
                Contents::Gone => 0,
            },
            disconnects: self.reader.disconnects.clone(),
        };
        self.store.stop(soon()).expect("all threads end");
        row
    }

    /// Reads until current data is delivered: a change, after the resynchronisation if the watch
    /// was lost. The watch is lost within 3.5 s of a fault, or not at all.
    fn until_fresh(&mut self, healed: Instant) -> Duration {
        let mut fresh = None;
        let loss_possible_until = healed + Duration::from_millis(3_500);
        loop {
            let is_disconnected = !self.reader.disconnects.is_empty();
            let wait = if is_disconnected {
                Duration::from_secs(20)
            } else {
                loss_possible_until.saturating_duration_since(Instant::now())
            };
            let Ok(event) = self.watch.events.recv_timeout(wait) else {
                return fresh.unwrap_or_else(|| healed.elapsed());
            };
            let is_live = self.reader.take(event);
            if is_live && is_disconnected {
                return healed.elapsed();
            }
            fresh.get_or_insert_with(|| healed.elapsed());
            if !is_disconnected && Instant::now() >= loss_possible_until {
                return fresh.unwrap_or_default();
            }
        }
    }

    fn until_connected(&self) {
        let deadline = soon();
        while self.store.health() != Health::Connected {
            assert!(
                Instant::now() < deadline,
                "{}: not connected again",
                self.name
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The measurements of a fault. Formatted as a row of the table of faults.
pub struct Row {
    pub name: String,
    /// Longest duration of a call; all have a deadline of [`CALL_TIMEOUT`].
    pub block: Duration,
    /// Time from healing to current data on the watch.
    pub fresh: Duration,
    /// Keys with an acknowledged write, and how many of these writes are missing.
    pub acked: usize,
    pub lost: usize,
    /// Completed calls.
    pub done: usize,
    /// Duplicate events.
    pub twice: usize,
    /// Why the watch was lost, each time.
    pub disconnects: Vec<String>,
}

impl Row {
    /// Column headings.
    pub const HEAD: &'static str = "\
| fault | longest call (deadline 500 ms) | fresh data after the heal | acknowledged writes lost | watch events lost | the watch says |
| --- | --- | --- | --- | --- | --- |";

    pub fn check(&self) {
        let name = &self.name;
        assert!(
            self.acked > 0 && self.done > 0,
            "{name}: nothing was written"
        );
        assert_eq!(self.lost, 0, "{name}: acknowledged, not there");
        assert_eq!(self.twice, 0, "{name}");
        assert!(
            self.block < CALL_TIMEOUT + OVERRUN_MAX,
            "{name}: a call took {:?}",
            self.block
        );
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let watch = match self.disconnects.as_slice() {
            [] => "no event lost".into(),
            [why] => format!("watch lost: {why}"),
            [why, ..] => format!("watch lost {} times: {why}", self.disconnects.len()),
        };
        // That no event is lost was verified by comparing the watch with the store.
        write!(
            f,
            "| {} | {} ms | {:.1} s | {} of {} keys | 0 | {watch} |",
            self.name,
            self.block.as_millis(),
            self.fresh.as_secs_f64(),
            self.lost,
            self.acked,
        )
    }
}

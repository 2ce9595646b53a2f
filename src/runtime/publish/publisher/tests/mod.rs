//! The publishing protocol against rivals, foreign writers and a failing store.

mod deposed;
mod fence_check;
mod foreign;
mod implausible;
mod lost_records;
mod modes;
mod outcomes;
mod publication;
mod random;
mod shadow;
mod take_over;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::*;
use crate::store::memory::MemoryStore;
use crate::store::{
    Batch, BucketConfig, BucketStatus, Capabilities, Entry, Expect, Health, HealthEvents, Listing,
    Watch,
};
use crate::types::{Partition, Term};

/// The publish mode of the store in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    A,
    B,
    /// Atomic mode with small batches.
    Few(usize),
}

pub(crate) const BOTH: [Kind; 2] = [Kind::A, Kind::B];

pub(crate) fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// A store with both buckets.
pub(crate) fn world(kind: Kind) -> MemoryStore {
    let batch_max = match kind {
        Kind::A => 1_000,
        Kind::B => 0,
        Kind::Few(writes) => writes,
    };
    let store = MemoryStore::builder().batch_max(batch_max).build();
    ensure(&store);
    store
}

pub(crate) fn ensure(store: &MemoryStore) {
    for bucket in [Bucket::Assignment, Bucket::Heartbeat] {
        store
            .ensure(bucket, BucketConfig { ttl: None }, later())
            .unwrap();
    }
}

/// An environment whose clock is stopped, so that nothing may depend on its progress.
#[derive(Default)]
pub(crate) struct Still {
    pub stopped: AtomicBool,
    pub is_left_alone: AtomicBool,
}

impl PublisherEnvironment for Still {
    fn wall_clock(&self) -> String {
        "2026-01-01T00:00:00Z".into()
    }

    fn pause(&self, _: Duration) -> bool {
        !self.stopped.load(Ordering::Acquire)
    }

    fn takes_calls(&self) -> bool {
        !self.is_left_alone.load(Ordering::Acquire)
    }
}

pub(crate) fn settings(mode: PublishMode) -> PublisherSettings {
    PublisherSettings {
        leader: "divvy".into(), // the default: all leaders have the same name
        assignment: KeyPrefix::new("assignment").unwrap(),
        heartbeat: KeyPrefix::new("heartbeat").unwrap(),
        mode,
        batch_max: 1_000,
        heartbeat_ttl: Duration::from_secs(6),
    }
}

/// A leader with its own client.
pub(crate) struct Leader {
    pub client: MemoryStore,
    pub spy: Arc<Spy>,
    pub publisher: Publisher,
    pub environment: Arc<Still>,
    pub in_force: Arc<Effective>,
}

impl Leader {
    /// A leader that has not taken over.
    pub fn new(world: &MemoryStore) -> Self {
        Self::in_mode(world, PublishMode::Auto)
    }

    pub fn in_mode(world: &MemoryStore, mode: PublishMode) -> Self {
        let client = world.client("leader");
        let spy = Arc::new(Spy::new(client.clone()));
        let environment = Arc::new(Still::default());
        let in_force = Arc::new(Effective::default());
        let publisher = Publisher::new(
            spy.clone(),
            environment.clone(),
            settings(mode),
            in_force.clone(),
        );
        Self {
            client,
            spy,
            publisher,
            environment,
            in_force,
        }
    }

    /// A leader that has taken over.
    pub fn leading(world: &MemoryStore) -> Self {
        let mut leader = Self::new(world);
        leader.take_over().unwrap();
        leader
    }

    /// The calls of a publication before its first write: reading the fence and, without batches,
    /// probing whether the bucket accepts them now.
    pub fn looks(&self) -> u32 {
        match self.publisher.mode() {
            ActiveMode::Atomic => 1,
            ActiveMode::PerKey => 2,
        }
    }

    pub fn take_over(&mut self) -> Result<TakeOverResult> {
        self.publisher.take_over(later())
    }

    pub fn publish(&mut self, plan: &Plan) -> Result<Version> {
        self.publisher.publish(plan, Reason::PlannedScale, later())
    }
}

/// A store that counts its calls and runs an action before one of them.
pub(crate) struct Spy {
    store: MemoryStore,
    state: Mutex<Plot>,
    /// Whether the bucket does not accept batches.
    pub is_without_batches: AtomicBool,
}

#[derive(Default)]
struct Plot {
    calls: u32,
    before: Option<(u32, Box<dyn FnOnce() + Send>)>,
}

impl Spy {
    fn new(store: MemoryStore) -> Self {
        Self {
            store,
            state: Mutex::default(),
            is_without_batches: AtomicBool::new(false),
        }
    }

    /// Calls since the last reset.
    pub fn calls(&self) -> u32 {
        std::mem::take(&mut self.state.lock().calls)
    }

    /// Runs this before the n-th call from now; 1 is the next.
    pub fn before_call(&self, number: u32, act: impl FnOnce() + Send + 'static) {
        let mut state = self.state.lock();
        state.calls = 0;
        state.before = Some((number, Box::new(act)));
    }

    /// Cancels a planned action that has not run.
    pub fn stand_down(&self) {
        self.state.lock().before = None;
    }

    /// Returns whether a planned action has not run yet.
    pub fn is_waiting(&self) -> bool {
        self.state.lock().before.is_some()
    }

    fn enter(&self) -> &MemoryStore {
        let act = {
            let mut state = self.state.lock();
            state.calls += 1;
            match state.before.take() {
                Some((number, act)) if number == state.calls => Some(act),
                other => {
                    state.before = other;
                    None
                }
            }
        };
        if let Some(act) = act {
            act();
        }
        &self.store
    }
}

impl Store for Spy {
    fn identity(&self) -> String {
        self.store.identity()
    }

    fn ensure(&self, bucket: Bucket, config: BucketConfig, by: Instant) -> Result<BucketStatus> {
        self.enter().ensure(bucket, config, by)
    }

    fn capabilities(&self, bucket: Bucket, by: Instant) -> Result<Capabilities> {
        let mut capabilities = self.enter().capabilities(bucket, by)?;
        if self.is_without_batches.load(Ordering::Acquire) {
            capabilities.batch_max = 0;
        }
        Ok(capabilities)
    }

    fn read(&self, bucket: Bucket, key: &str, by: Instant) -> Result<Option<Entry>> {
        self.enter().read(bucket, key, by)
    }

    fn list(&self, bucket: Bucket, prefix: &str, by: Instant) -> Result<Listing> {
        self.enter().list(bucket, prefix, by)
    }

    fn write(&self, bucket: Bucket, writes: &[Write], by: Instant) -> Vec<Outcome> {
        self.enter().write(bucket, writes, by)
    }

    fn write_batch(&self, bucket: Bucket, batch: &Batch, by: Instant) -> Outcome {
        let store = self.enter();
        if self.is_without_batches.load(Ordering::Acquire) {
            return Outcome::Refused(Refusal::Invalid("the bucket has no batches".into()));
        }
        store.write_batch(bucket, batch, by)
    }

    fn watch(&self, bucket: Bucket, prefix: &str) -> Result<Watch> {
        self.store.watch(bucket, prefix)
    }

    fn watch_key(&self, bucket: Bucket, key: &str) -> Result<Watch> {
        self.store.watch_key(bucket, key)
    }

    fn health(&self) -> Health {
        self.store.health()
    }

    fn health_events(&self) -> HealthEvents {
        self.store.health_events()
    }

    fn stop(&self, by: Instant) -> Result<()> {
        self.store.stop(by)
    }
}

pub(crate) fn id(name: &str) -> WorkerId {
    WorkerId::new(name).unwrap()
}

/// Returns a plan in which these workers own these partitions.
pub(crate) fn plan(lists: &[(&str, &[&str])]) -> Plan {
    let workers: Vec<WorkerId> = lists.iter().map(|(name, _)| id(name)).collect();
    let mut held: Vec<(Partition, u32)> = (0_u32..)
        .zip(lists)
        .flat_map(|(index, (_, keys))| keys.iter().map(move |k| (Partition::new([*k], 1), index)))
        .collect();
    held.sort();
    let owners = held.iter().map(|&(_, owner)| owner).collect();
    let partitions: Vec<Partition> = held.into_iter().map(|(partition, _)| partition).collect();
    Plan::new(workers.into(), partitions.into(), owners).unwrap()
}

/// Returns the content of a worker's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub version: Version,
    pub term: Option<Term>,
    pub partitions: Vec<String>,
    pub revision: Revision,
}

/// Returns all valid assignments.
pub(crate) fn held(store: &MemoryStore) -> BTreeMap<String, Held> {
    let listing = store
        .list(Bucket::Assignment, "assignment", later())
        .unwrap();
    let live = listing.entries.into_iter().filter(Entry::is_live);
    let workers = live.filter(|entry| !entry.key.starts_with("assignment._"));
    workers
        .filter_map(|entry| {
            let assignment = Assignment::decode(&entry.value).ok()?;
            let held = Held {
                version: assignment.version,
                term: assignment.term,
                partitions: assignment.partitions.iter().map(Partition::id).collect(),
                revision: entry.revision,
            };
            Some((entry.key["assignment.".len()..].to_owned(), held))
        })
        .collect()
}

/// Checks that the store contains exactly this plan, and that its commit record matches.
pub(crate) fn holds_exactly(store: &MemoryStore, plan: &Plan, version: Version) {
    let held = held(store);
    let expected: BTreeMap<String, Vec<String>> = (0_u32..)
        .zip(plan.workers().iter())
        .map(|(index, worker)| {
            let ids = plan.partitions_of(index).map(Partition::id).collect();
            (worker.to_string(), ids)
        })
        .collect();
    let stored: BTreeMap<String, Vec<String>> = held
        .iter()
        .map(|(worker, held)| (worker.clone(), held.partitions.clone()))
        .collect();
    assert_eq!(stored, expected);
    let commit = commit(store).unwrap();
    assert_eq!(
        (commit.version, commit.digest),
        (version, plan_digest(plan, &plan_hashes(plan)))
    );
    let highest = held.values().map(|held| held.version).max();
    assert_eq!(
        highest,
        Some(version),
        "the version is not in any assignment"
    );
}

pub(crate) fn entry(store: &MemoryStore, key: &str) -> Option<Entry> {
    store.read(Bucket::Assignment, key, later()).unwrap()
}

pub(crate) fn commit(store: &MemoryStore) -> Option<Commit> {
    Commit::decode(&entry(store, COMMIT_KEY)?.value).ok()
}

pub(crate) fn fence(store: &MemoryStore) -> Option<Fence> {
    Fence::decode(&entry(store, FENCE_KEY)?.value).ok()
}

/// Returns an assignment as written by a parti leader or an operator.
pub(crate) fn raw(version: Version, term: Option<Term>, partitions: &[&str]) -> Vec<u8> {
    let list: Vec<Partition> = partitions.iter().map(|p| Partition::new([*p], 1)).collect();
    let list = serde_json::to_string(&list).unwrap();
    let term = term.map_or(String::new(), |term| format!(r#","term":{term}"#));
    format!(r#"{{"version":{version},"lifecycle":"x","partitions":{list}{term}}}"#).into_bytes()
}

pub(crate) fn put(store: &MemoryStore, key: &str, value: &[u8]) -> Revision {
    store.server().put(Bucket::Assignment, key, value)
}

pub(crate) fn beat(store: &MemoryStore, worker: &str, term: Term, version: Version) {
    let applied = crate::wire::Applied { term, version };
    let value = crate::wire::encode_heartbeat(&id(worker), "t", applied);
    let key = format!("heartbeat.{worker}");
    store.server().put(Bucket::Heartbeat, &key, &value);
}

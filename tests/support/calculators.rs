//! Shared by the tests: a scaled-down calculator, workers that send heartbeats, and gates that
//! block host code.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use divvy::store::layer::{LayerCall, StoreAnswer, StoreLayer};
use divvy::store::memory::MemoryStore;
use divvy::store::{Bucket, BucketConfig, Expect, Outcome, Store, Write};
use divvy::wire::Assignment;
use divvy::{
    Calculator, CalculatorConfig, CalculatorEvent, CalculatorState, Error, EventFilter, Events,
    Partition, Result, Version,
};
use parking_lot::Mutex;

/// Longer than any operation takes on a busy machine.
pub const TIMEOUT: Duration = Duration::from_secs(20);
pub const TTL: Duration = Duration::from_millis(800);

pub fn config() -> CalculatorConfig {
    let mut config = CalculatorConfig::default();
    config.heartbeat_ttl = TTL;
    config.emergency_grace_period = Duration::from_millis(100);
    config.cooldown = Duration::from_millis(10);
    config.cold_start_window = Duration::from_millis(60);
    config.planned_scale_window = Duration::from_millis(40);
    config.leave_window = Duration::from_millis(10);
    config.join_coalescing = Duration::from_millis(5);
    config.recovery_grace = Some(Duration::from_millis(200));
    config.retry_delay_min = Duration::from_millis(10);
    config.degraded_enter_after = Duration::ZERO;
    config.degraded_leave_after = Duration::ZERO;
    config.retry_delay_max = Duration::from_millis(50);
    config
}

pub fn partitions(count: usize) -> Vec<Partition> {
    (0..count)
        .map(|i| Partition::new([format!("p{i:04}")], 1))
        .collect()
}

pub fn soon() -> Instant {
    Instant::now() + TIMEOUT
}

pub fn store() -> MemoryStore {
    with_heartbeats(MemoryStore::new())
}

/// A store without batches, which publishes per key.
pub fn store_b() -> MemoryStore {
    with_heartbeats(MemoryStore::builder().batch_max(0).build())
}

fn with_heartbeats(store: MemoryStore) -> MemoryStore {
    let ttl = Some(TTL);
    store
        .ensure(Bucket::Heartbeat, BucketConfig { ttl }, soon())
        .unwrap();
    store
}

/// A calculator with ten partitions over its own client of the store.
pub fn calculator(store: &MemoryStore) -> Calculator {
    calculator_over(store.client("leader"))
}

/// A calculator with ten partitions.
pub fn calculator_over(client: MemoryStore) -> Calculator {
    Calculator::builder(Arc::new(client))
        .config(config())
        .source(|| Ok(partitions(10)))
        .build()
        .unwrap()
}

/// Waits for a condition. The panic message names it.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = soon();
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not in {TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until no window is open and nothing is pending.
#[track_caller]
pub fn wait_for_rest(calculator: &Calculator) {
    let deadline = soon();
    loop {
        let status = calculator.status();
        if status.pending.reason.is_none() && status.state == CalculatorState::Idle {
            return;
        }
        assert!(Instant::now() < deadline, "never idle: {status:#?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Reads events until one satisfies the condition, and returns that one.
#[track_caller]
pub fn wait_for(
    events: &Events,
    what: &str,
    condition: impl Fn(&CalculatorEvent) -> bool,
) -> Arc<CalculatorEvent> {
    let deadline = soon();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = match events.recv_timeout(left) {
            Ok(event) => event,
            Err(error) => panic!("{what}: no such event: {error}"),
        };
        if condition(&event) {
            return event;
        }
    }
}

#[track_caller]
pub fn wait_for_publication(events: &Events) -> Version {
    let event = wait_for(events, "publication", |e| {
        matches!(e, CalculatorEvent::Published { .. })
    });
    match &*event {
        CalculatorEvent::Published { version, .. } => *version,
        _ => unreachable!(),
    }
}

pub fn beat(store: &MemoryStore, worker: &str) {
    let write = Write {
        key: format!("heartbeat.{worker}"),
        value: Some(b"alive".to_vec()),
        expect: Expect::Any,
    };
    let outcomes = store.write(Bucket::Heartbeat, &[write], soon());
    assert!(matches!(outcomes[0], Outcome::Done(_)), "{outcomes:?}");
}

pub fn held(store: &MemoryStore, worker: &str) -> Option<Assignment> {
    let key = format!("assignment.{worker}");
    let entry = store.read(Bucket::Assignment, &key, soon()).unwrap()?;
    entry
        .is_live()
        .then(|| Assignment::decode(&entry.value).unwrap())
}

/// Returns the number of owners of each partition, over the given workers.
pub fn all_held(store: &MemoryStore, workers: &[&str]) -> Vec<String> {
    let mut all: Vec<_> = workers
        .iter()
        .filter_map(|worker| held(store, worker))
        .flat_map(|assignment| assignment.partitions)
        .map(|partition| partition.id())
        .collect();
    all.sort();
    all
}

pub fn ids(count: usize) -> Vec<String> {
    partitions(count).iter().map(Partition::id).collect()
}

/// Workers that send heartbeats from one thread, until they crash, leave or are dropped.
pub struct Fleet {
    store: MemoryStore,
    beating: Arc<Mutex<BTreeSet<String>>>,
    rounds: Arc<std::sync::atomic::AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Fleet {
    pub fn new<W: Into<String>>(store: &MemoryStore, workers: impl IntoIterator<Item = W>) -> Self {
        let store = store.client("fleet");
        let beating: BTreeSet<String> = workers.into_iter().map(Into::into).collect();
        for worker in &beating {
            beat(&store, worker);
        }
        let beating = Arc::new(Mutex::new(beating));
        let stop = Arc::new(AtomicBool::new(false));
        let rounds = Arc::default();
        let thread = std::thread::spawn({
            let (store, beating, stop) = (store.clone(), Arc::clone(&beating), Arc::clone(&stop));
            let rounds: Arc<std::sync::atomic::AtomicU64> = Arc::clone(&rounds);
            move || {
                while !stop.load(Ordering::Acquire) {
                    {
                        let beating = beating.lock();
                        for worker in beating.iter() {
                            beat(&store, worker);
                        }
                    }
                    rounds.fetch_add(1, Ordering::AcqRel);
                    std::thread::sleep(Duration::from_millis(40));
                }
            }
        });
        Self {
            store,
            beating,
            rounds,
            stop,
            thread: Some(thread),
        }
    }

    pub fn join(&self, worker: &str) {
        self.beating.lock().insert(worker.to_owned());
    }

    /// Stops the heartbeats of the worker, so that its key expires.
    pub fn crash(&self, worker: &str) {
        self.beating.lock().remove(worker);
    }

    /// Deletes the heartbeat of the worker.
    pub fn leave(&self, worker: &str) {
        let mut beating = self.beating.lock();
        beating.remove(worker);
        self.store
            .server()
            .delete(Bucket::Heartbeat, &format!("heartbeat.{worker}"));
    }

    /// Waits until every worker has sent this many more heartbeats.
    pub fn beats(&self, rounds: u64) {
        let before = self.rounds.load(Ordering::Acquire);
        wait_until("heartbeats", || {
            self.rounds.load(Ordering::Acquire) > before + rounds
        });
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Blocks every thread that passes it while it is shut.
#[derive(Clone)]
pub struct Gate {
    passing: Arc<Mutex<Option<Receiver<()>>>>,
    opener: Arc<Mutex<Option<Sender<()>>>>,
    arrived: (Sender<()>, Receiver<()>),
}

impl Gate {
    pub fn open() -> Self {
        Self {
            passing: Arc::default(),
            opener: Arc::default(),
            arrived: unbounded(),
        }
    }

    pub fn shut() -> Self {
        let gate = Self::open();
        gate.close();
        gate
    }

    pub fn close(&self) {
        let (opener, passing) = bounded(0);
        *self.opener.lock() = Some(opener);
        *self.passing.lock() = Some(passing);
    }

    pub fn release(&self) {
        *self.passing.lock() = None;
        *self.opener.lock() = None;
    }

    pub fn pass(&self) {
        let Some(passing) = self.passing.lock().clone() else {
            return;
        };
        let _ = self.arrived.0.send(());
        let _ = passing.recv();
    }

    /// Waits until a thread is blocked here.
    #[track_caller]
    pub fn wait_for_arrival(&self) {
        self.arrived.1.recv_timeout(TIMEOUT).expect("an arrival");
    }
}

/// Runs a closure on its own thread and returns its result within the deadline.
#[track_caller]
pub fn in_time<R: Send + 'static>(what: &str, work: impl FnOnce() -> R + Send + 'static) -> R {
    let (sender, reported) = bounded(1);
    std::thread::spawn(move || sender.send(work()));
    match reported.recv_timeout(TIMEOUT) {
        Ok(result) => result,
        Err(_) => panic!("{what} hangs"),
    }
}

/// A store that calls a hook before each call, with the name of the call. Watches named in
/// `deny_watches` fail.
pub struct Hooked<H> {
    pub inner: MemoryStore,
    pub hook: H,
}

impl<H: Fn(&'static str) -> Result<()> + Send + Sync> StoreLayer for Hooked<H> {
    fn inner(&self) -> &dyn Store {
        &self.inner
    }

    /// The error of a hook replaces the result, except for writes.
    fn call<A: StoreAnswer>(
        &self,
        call: LayerCall<'_>,
        run: impl FnOnce(&dyn Store, &LayerCall<'_>) -> A,
    ) -> A {
        match (self.hook)(call.kind.name()) {
            Err(error) if !call.kind.is_write() => A::refused(error, 0),
            _ => run(&self.inner, &call),
        }
    }
}

/// A calculator over a store with a hook.
pub fn hooked_calculator(
    store: &MemoryStore,
    hook: impl Fn(&'static str) -> Result<()> + Send + Sync + 'static,
) -> Calculator {
    let inner = store.client("leader");
    Calculator::builder(Arc::new(Hooked { inner, hook }))
        .config(config())
        .source(|| Ok(partitions(10)))
        .build()
        .unwrap()
}

pub fn refused(code: divvy::error::Code) -> Error {
    Error::new(code, "simulated")
}

/// Returns the events of the calculator from its start.
pub fn started(calculator: &Calculator) -> Events {
    let events = calculator.events(EventFilter::State);
    calculator.start(TIMEOUT).unwrap();
    events
}

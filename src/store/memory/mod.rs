//! A store in memory: for trying, for testing, for fleets that live in one process, and as the
//! world of a deterministic simulation.
//!
//! All clients of one [`MemoryStore`] share the same buckets. It keeps the contract of
//! [`store`](crate::store) and behaves like a NATS server where the contract leaves room: values
//! and delete markers expire with the bucket's TTL, expiry and purges are silent unless
//! [`MemoryStoreBuilder::expiry_markers`] are on.
//!
//! # Time
//! By default the store uses the system clock. Calls first process what is due, and each watching
//! client has a thread, `dv-memory`, that does so between calls. With
//! [`MemoryStoreBuilder::manual_clock`] there is no thread: events happen when they are due and
//! [`MemoryStore::tick`] or another method is called, in the order of their times, so that the same
//! calls always have the same effect. Only deadlines use the system clock; pass a distant one.
//!
//! # Faults
//! [`MemoryStore::faults`] makes calls of one client go wrong, [`MemoryStore::server`] does what
//! operators and foreign writers do to all of them.

mod alarm;
mod fault_plan;
mod faults;
mod log;
mod pump;
#[cfg(test)]
mod tests;
mod watcher;
mod world;

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use parking_lot::Mutex;

use self::fault_plan::BLACKOUT;
pub use self::fault_plan::{Blackout, Call, Fault};
pub use self::faults::{Faults, Server};
use self::log::Scope;
pub use self::world::Snapshot;
use self::world::{ClientId, MemoryWorld, WorldState, WriteRequest};
use crate::error::{Code, Error, Result};
use crate::store::{
    Batch, Bucket, BucketConfig, BucketStatus, Capabilities, Entry, Expect, Health, HealthEvents,
    Listing, Outcome, Refusal, Store, Watch, Write,
};
use crate::threads::Thread;
use crate::threads::cancel::{self, WaitError};
use crate::time::clock::ManualClock;
use crate::types::{Time, key_fault, truncated};

/// The longest key, in bytes.
const KEY_MAX_BYTES: usize = 512;

/// The outcome of an abandoned write.
const NO_ANSWER: &str = "no answer by the deadline, or before the call was cancelled";

/// How long dropping the last handle of a client waits for its thread.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of a [`MemoryStore`].
#[derive(Clone, Debug)]
#[must_use]
pub struct MemoryStoreBuilder {
    limits: Limits,
    manual_clock: Option<ManualClock>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    batch_max: usize,
    value_max: usize,
    expiry_markers: bool,
    watch_capacity: usize,
    epoch: Option<Duration>,
}

impl MemoryStoreBuilder {
    /// Time is what this clock says; the store has no threads.
    pub fn manual_clock(mut self, clock: ManualClock) -> Self {
        self.manual_clock = Some(clock);
        self
    }

    /// Most writes in one atomic batch; 0: no batches, like a NATS server before 2.12.
    /// Default 1000.
    pub fn batch_max(mut self, writes: usize) -> Self {
        self.limits.batch_max = writes;
        self
    }

    /// Most bytes in one value. Default 1 MiB less 1 KiB.
    pub fn value_max(mut self, bytes: usize) -> Self {
        self.limits.value_max = bytes;
        self
    }

    /// Whether a value that expires leaves a marker, which takes a number of the bucket's
    /// sequence and is seen by watches. Default false.
    pub fn expiry_markers(mut self, on: bool) -> Self {
        self.limits.expiry_markers = on;
        self
    }

    /// Sets the number of events that a watch queues for its reader before the watch is lost. At
    /// least 1. Default: 1024.
    pub fn watch_capacity(mut self, events: usize) -> Self {
        self.limits.watch_capacity = events.max(1);
        self
    }

    /// Starts the sequence of every bucket at its creation time
    /// ([`Bucket::first_sequence`]), as the NATS store does. `epoch` is the time since
    /// 1970-01-01T00:00:00Z when the store's clock shows [`Time::ZERO`]. Default: every sequence
    /// starts at 1.
    pub fn sequences_from_time(mut self, epoch: Duration) -> Self {
        self.limits.epoch = Some(epoch);
        self
    }

    /// A new store, without buckets.
    #[must_use]
    pub fn build(self) -> MemoryStore {
        let world = MemoryWorld::new(self.limits, self.manual_clock);
        MemoryStore::join(Arc::new(world), "memory")
    }
}

/// A client of an in-memory store. Clones share the client; [`MemoryStore::client`] returns another
/// client of the same store. Dropping the last clone stops the client.
///
/// ```
/// use std::sync::Arc;
///
/// use divvy::Manager;
/// use divvy::store::memory::MemoryStore;
///
/// # fn main() -> divvy::Result<()> {
/// // Two workers of one fleet, each with its own client.
/// let store = MemoryStore::new();
/// let first = Manager::builder(Arc::new(store.client("first"))).build()?;
/// let second = Manager::builder(Arc::new(store.client("second"))).build()?;
/// # drop((first, second));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore(Arc<Client>);

struct Client {
    world: Arc<MemoryWorld>,
    id: ClientId,
    name: String,
    /// Disconnected when the client is stopped.
    stopped: Receiver<Infallible>,
    thread: Mutex<Option<Arc<Thread>>>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// A new store with the default settings and the system's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Settings for a new store.
    pub fn builder() -> MemoryStoreBuilder {
        MemoryStoreBuilder {
            limits: Limits {
                batch_max: 1_000,
                value_max: (1 << 20) - (1 << 10),
                expiry_markers: false,
                watch_capacity: 1_024,
                epoch: None,
            },
            manual_clock: None,
        }
    }

    /// Another client of the same store, with faults, health and an end of its own. The name is
    /// for people.
    #[must_use]
    pub fn client(&self, name: &str) -> MemoryStore {
        Self::join(Arc::clone(&self.0.world), name)
    }

    /// The client's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The faults of this client.
    #[must_use]
    pub fn faults(&self) -> Faults {
        Faults {
            world: Arc::clone(&self.0.world),
            client: self.0.id,
        }
    }

    /// The store behind all clients.
    #[must_use]
    pub fn server(&self) -> Server {
        Server {
            world: Arc::clone(&self.0.world),
        }
    }

    /// Does what is due, for all clients. Every other call does so as well.
    pub fn tick(&self) {
        self.0.world.with(|_, _| ());
    }

    /// The next time at which something happens by itself (an expiry, a held write, a late watch
    /// event); `None` when nothing is to come.
    #[must_use]
    pub fn next_due(&self) -> Option<Time> {
        self.0.world.with(|state, _| state.next_due())
    }

    fn join(world: Arc<MemoryWorld>, name: &str) -> Self {
        let (id, stopped) = world.with(|state, _| state.add_client());
        Self(Arc::new(Client {
            world,
            id,
            name: name.to_owned(),
            stopped,
            thread: Mutex::new(None),
        }))
    }
}

impl Store for MemoryStore {
    /// Nothing: a fleet in memory ends with its process.
    fn identity(&self) -> String {
        String::new()
    }

    fn ensure(
        &self,
        bucket: Bucket,
        config: BucketConfig,
        deadline: Instant,
    ) -> Result<BucketStatus> {
        let ensure = |state: &mut WorldState, now| {
            let log = state.ensure(bucket, config.ttl, now);
            let mut warnings = Vec::new();
            if log.ttl() != config.ttl {
                warnings.push(format!(
                    "the bucket's TTL is {:?}, wanted was {:?}",
                    log.ttl(),
                    config.ttl
                ));
            }
            Ok(BucketStatus {
                name: bucket.default_name().to_owned(),
                ttl: log.ttl(),
                history: 1,
                replicas: 1,
                incarnation: log.incarnation().to_string(),
                last_sequence: log.last_sequence(),
                warnings,
            })
        };
        let status = self.0.ask(Call::Ensure, deadline, ensure);
        status.map_err(|e| {
            e.with_operation("ensure bucket")
                .with_key(bucket.default_name())
        })
    }

    fn capabilities(&self, _bucket: Bucket, deadline: Instant) -> Result<Capabilities> {
        let limits = self.0.world.limits;
        let capabilities = Capabilities {
            batch_max: limits.batch_max,
            value_max: limits.value_max,
            description: format!("divvy memory store {}", env!("CARGO_PKG_VERSION")),
        };
        let answer = |_: &mut WorldState, _| Ok(capabilities);
        let capabilities = self.0.ask(Call::Capabilities, deadline, answer);
        capabilities.map_err(|e| e.with_operation("capabilities"))
    }

    fn read(&self, bucket: Bucket, key: &str, deadline: Instant) -> Result<Option<Entry>> {
        check_key(key)
            .and_then(|()| {
                self.0.ask(Call::Read, deadline, |state, now| {
                    Ok(state.log(bucket)?.entry(key, now))
                })
            })
            .map_err(|e| e.with_operation("read").with_key(truncated(key, 60)))
    }

    fn list(&self, bucket: Bucket, prefix: &str, deadline: Instant) -> Result<Listing> {
        let id = self.0.id;
        check_prefix(prefix)
            .and_then(|()| {
                self.0.ask(Call::List, deadline, |state, now| {
                    let entries_max = state.client(id).and_then(|c| c.plan.entries_max);
                    let log = state.log(bucket)?;
                    let mut entries = log.entries(prefix, now);
                    entries.truncate(entries_max.unwrap_or(usize::MAX));
                    Ok(Listing {
                        entries,
                        last_sequence: log.last_sequence(),
                    })
                })
            })
            .map_err(|e| e.with_operation("list").with_key(truncated(prefix, 60)))
    }

    fn write(&self, bucket: Bucket, writes: &[Write], deadline: Instant) -> Vec<Outcome> {
        let value_max = self.0.world.limits.value_max;
        let requests = writes.iter().map(|write| {
            check_write(write, value_max)?;
            Ok(WriteRequest::One(write.clone()))
        });
        self.0
            .submit(Call::Write, bucket, requests.collect(), deadline)
    }

    fn write_batch(&self, bucket: Bucket, batch: &Batch, deadline: Instant) -> Outcome {
        let request = check_batch(batch, self.0.world.limits);
        let request = request.map(|()| WriteRequest::Batch(batch.clone()));
        let outcomes = self.0.submit(Call::Batch, bucket, vec![request], deadline);
        // One request has one outcome.
        outcomes.into_iter().next().expect("an outcome a request")
    }

    fn watch(&self, bucket: Bucket, prefix: &str) -> Result<Watch> {
        check_prefix(prefix)
            .and_then(|()| self.0.watch(bucket, Scope::Under(prefix.to_owned())))
            .map_err(|e| e.with_operation("watch").with_key(truncated(prefix, 60)))
    }

    fn watch_key(&self, bucket: Bucket, key: &str) -> Result<Watch> {
        check_key(key)
            .and_then(|()| self.0.watch(bucket, Scope::Key(key.to_owned())))
            .map_err(|e| e.with_operation("watch").with_key(truncated(key, 60)))
    }

    fn health(&self) -> Health {
        self.0.world.with(|state, _| state.health(self.0.id))
    }

    fn health_events(&self) -> HealthEvents {
        self.0
            .world
            .with(|state, _| state.listen_to_health(self.0.id))
    }

    fn stop(&self, deadline: Instant) -> Result<()> {
        self.0.stop(deadline).map_err(|e| e.with_operation("stop"))
    }
}

/// What becomes of a call before it reaches the store.
enum Admission {
    Granted,
    /// It would arrive after its deadline, by this much.
    Late(Duration),
    Refused(Refusal),
    /// No answer.
    Hung,
    /// The deadline passed before anything was sent.
    NotSent,
}

impl Client {
    /// Carries out a call that is not a write.
    fn ask<R>(
        &self,
        call: Call,
        deadline: Instant,
        answer: impl FnOnce(&mut WorldState, Time) -> Result<R, Refusal>,
    ) -> Result<R> {
        match self.admit(call, deadline) {
            Admission::Granted => {}
            Admission::Refused(refusal) => return Err(refusal.into_error()),
            Admission::Late(_) | Admission::Hung | Admission::NotSent => {
                return Err(if cancel::is_cancelled() {
                    cancel::error("no answer was awaited")
                } else {
                    timed_out()
                });
            }
        }
        self.world.with(|state, now| {
            let Some(client) = state.client(self.id) else {
                return Err(Refusal::NotRunning.into_error());
            };
            match client.plan.draw(call) {
                None => answer(state, now).map_err(Refusal::into_error),
                Some(Fault::Refuse(refusal)) => Err(refusal.into_error()),
                Some(Fault::LoseReply) => {
                    let _ = answer(state, now);
                    Err(timed_out())
                }
                Some(Fault::LoseRequest | Fault::Hold(_)) => Err(timed_out()),
            }
        })
    }

    /// Carries out writes. Those that are refused already are not sent.
    fn submit(
        &self,
        call: Call,
        bucket: Bucket,
        requests: Vec<Result<WriteRequest, Refusal>>,
        deadline: Instant,
    ) -> Vec<Outcome> {
        let admission = self.admit(call, deadline);
        self.world.with(|state, now| {
            requests
                .into_iter()
                .map(|request| {
                    let request = match request {
                        Ok(request) => request,
                        Err(refusal) => return Outcome::Refused(refusal),
                    };
                    self.send(state, call, bucket, request, &admission, now)
                })
                .collect()
        })
    }

    fn send(
        &self,
        state: &mut WorldState,
        call: Call,
        bucket: Bucket,
        request: WriteRequest,
        admission: &Admission,
        now: Time,
    ) -> Outcome {
        let unknown = |what: &str| Outcome::Unknown(what.to_owned());
        match admission {
            Admission::Granted => {}
            Admission::Refused(refusal) => return Outcome::Refused(refusal.clone()),
            Admission::NotSent => {
                let why = "the deadline had passed, or the call was cancelled: nothing was sent";
                return Outcome::Refused(Refusal::Unavailable(why.to_owned()));
            }
            Admission::Hung => return unknown(NO_ANSWER),
            Admission::Late(by) => {
                state.hold(self.id, Some(now + *by), bucket, request);
                return unknown(NO_ANSWER);
            }
        }
        let Some(client) = state.client(self.id) else {
            return Outcome::Refused(Refusal::NotRunning);
        };
        match client.plan.draw(call) {
            None => state.carry_out(bucket, request, now),
            Some(Fault::Refuse(refusal)) => Outcome::Refused(refusal),
            Some(Fault::LoseRequest) => unknown("no answer"),
            Some(Fault::LoseReply) => {
                state.carry_out(bucket, request, now);
                unknown("no answer")
            }
            Some(Fault::Hold(by)) => {
                state.hold(self.id, by.map(|by| now + by), bucket, request);
                unknown("no answer")
            }
        }
    }

    /// Lets a call wait for its turn, as its client's faults want it.
    fn admit(&self, call: Call, deadline: Instant) -> Admission {
        let (blackout, delay) = match self.look(|plan| (plan.blackout, plan.delay(call))) {
            Some(plan) => plan,
            None => return Admission::Refused(Refusal::NotRunning),
        };
        let begun = Instant::now();
        let left = deadline.saturating_duration_since(begun);
        if left.is_zero() || cancel::is_cancelled() {
            return Admission::NotSent;
        }
        if let Some(blackout) = blackout {
            return self.admit_in(blackout, deadline);
        }
        if delay.is_zero() {
            return Admission::Granted;
        }
        if self.world.is_driven() {
            return Admission::Late(delay);
        }
        if self.pause(begun + delay.min(left)) {
            return Admission::Refused(Refusal::NotRunning);
        }
        if cancel::is_cancelled() {
            return Admission::Late(delay.saturating_sub(begun.elapsed()));
        }
        if delay >= left {
            return Admission::Late(delay - left);
        }
        match self.look(|plan| plan.blackout).flatten() {
            Some(blackout) => self.admit_in(blackout, deadline),
            None => Admission::Granted,
        }
    }

    fn admit_in(&self, blackout: Blackout, deadline: Instant) -> Admission {
        match blackout {
            Blackout::Refuse => Admission::Refused(Refusal::Unavailable(BLACKOUT.to_owned())),
            Blackout::Hang if self.world.is_driven() => Admission::Hung,
            Blackout::Hang if self.pause(deadline) => Admission::Refused(Refusal::NotRunning),
            Blackout::Hang => Admission::Hung,
        }
    }

    /// Reads the client's faults; `None` after a stop.
    fn look<R>(&self, look: impl FnOnce(&fault_plan::FaultPlan) -> R) -> Option<R> {
        self.world
            .with(|state, _| state.client(self.id).map(|client| look(&client.plan)))
    }

    /// Waits until then or until the call is cancelled; returns whether the client was stopped.
    fn pause(&self, until: Instant) -> bool {
        cancel::recv_deadline(&self.stopped, until) == Err(WaitError::Disconnected)
    }

    fn watch(&self, bucket: Bucket, scope: Scope) -> Result<Watch> {
        self.start_thread()?;
        let (sender, events) = bounded(self.world.limits.watch_capacity);
        let id = self.world.with(|state, _| {
            state.client(self.id)?;
            Some(state.add_watch(self.id, bucket, scope, sender))
        });
        let id = id.ok_or_else(|| Refusal::NotRunning.into_error())?;
        let world: Weak<MemoryWorld> = Arc::downgrade(&self.world);
        Ok(Watch::new(events, move || {
            if let Some(world) = world.upgrade() {
                world.with(|state, _| state.remove_watch(id));
            }
        }))
    }

    /// Starts the client's thread, unless it runs already or the clock is driven.
    fn start_thread(&self) -> Result<()> {
        // DelayedWrite throughout, so that a stop at the same time finds the thread or prevents it.
        let mut thread = self.thread.lock();
        if self.world.is_driven() || thread.is_some() || self.look(|_| ()).is_none() {
            return Ok(());
        }
        let (alarm, started) = pump::spawn(&self.world, self.id)?;
        *thread = Some(Arc::new(started));
        self.world.with(|state, _| {
            if let Some(client) = state.client(self.id) {
                alarm.ring();
                client.alarm = Some(alarm);
            }
        });
        Ok(())
    }

    fn stop(&self, deadline: Instant) -> Result<()> {
        self.world.with(|state, _| state.remove_client(self.id));
        let thread = self.thread.lock().clone();
        match thread {
            Some(thread) => thread.join(deadline),
            None => Ok(()),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let stopped = cancel::without_cancellation(|| self.stop(Instant::now() + DROP_TIMEOUT));
        if let Err(error) = stopped {
            ::log::warn!(target: "divvy::store", "memory store {} dropped before it was stopped: {error}", self.name);
        }
    }
}

fn timed_out() -> Error {
    Error::new(Code::TimedOut, "no answer by the deadline")
}

fn check_key(key: &str) -> Result<()> {
    match key_fault(key, KEY_MAX_BYTES) {
        None => Ok(()),
        Some(fault) => Err(Error::new(
            Code::InvalidArgument,
            format!("the key {fault}; use 1 to {KEY_MAX_BYTES} of letters, digits and - / _ = ."),
        )),
    }
}

fn check_prefix(prefix: &str) -> Result<()> {
    if prefix.is_empty() {
        return Ok(());
    }
    check_key(prefix)
}

fn check_write(write: &Write, value_max: usize) -> Result<(), Refusal> {
    check_key(&write.key).map_err(|e| Refusal::Invalid(e.message().to_owned()))?;
    let size = write.value.as_ref().map_or(0, Vec::len);
    if size > value_max {
        return Err(Refusal::TooLarge {
            size,
            limit: value_max,
        });
    }
    Ok(())
}

fn check_batch(batch: &Batch, limits: Limits) -> Result<(), Refusal> {
    let invalid = |why: String| Err(Refusal::Invalid(why));
    if limits.batch_max == 0 {
        return invalid("the store has no atomic batches".to_owned());
    }
    let count = batch.writes.len();
    if count == 0 || count > limits.batch_max {
        return invalid(format!(
            "a batch has 1 to {} writes, not {count}",
            limits.batch_max
        ));
    }
    let mut keys = std::collections::BTreeSet::new();
    for write in &batch.writes {
        check_write(write, limits.value_max)?;
        if matches!(write.expect, Expect::LastSequence(_)) {
            return invalid("a batch cannot depend on the bucket's last sequence".to_owned());
        }
        if !keys.insert(write.key.as_str()) {
            return invalid(format!("the batch writes {} twice", write.key));
        }
    }
    if let Some((key, _)) = &batch.fence {
        check_key(key).map_err(|e| Refusal::Invalid(e.message().to_owned()))?;
        if keys.contains(key.as_str()) {
            return invalid(format!("the batch writes its own fence {key}"));
        }
        if batch.writes[0].expect != Expect::Any {
            return invalid("the first write of a fenced batch has no condition".to_owned());
        }
    }
    Ok(())
}

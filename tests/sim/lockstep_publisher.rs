//! The publisher thread of a simulated leader: the shipped code, run in lockstep.
//!
//! The thread runs only between an order or an answer of the scheduler and its next request: each
//! store call, each pause, each read of the partition source and each run of the strategy is a
//! request that blocks until it is answered. Exactly one thread of a simulation runs at a time, so
//! the seed decides everything that happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use divvy::CalculatorConfig;
use divvy::error::{Code, Error, Result};
use divvy::machine::calculator::{Job, JobReport};
use divvy::machine::plausible::MalformedValues;
use divvy::machine::takeover::{ProcessMemory, TakeOver};
use divvy::runtime::publish::list_reader::ListReader;
use divvy::runtime::publish::partition_list::{PartitionSource, Partitions};
use divvy::runtime::publish::publisher::{
    Effective, Publisher, PublisherEnvironment, PublisherSettings,
};
use divvy::runtime::publish::rebalancer::Rebalancer;
use divvy::runtime::sim::GuardedStore;
use divvy::store::{
    Batch, Bucket, BucketConfig, BucketStatus, Capabilities, Entry, Health, HealthEvents, Listing,
    Outcome, Refusal, Store, Watch, Write,
};
use divvy::strategy::{PlanInput, RoundRobin, Strategy, WorkerIndex};
use divvy::time::clock::Clock;
use divvy::types::{Partition, Term, Time};

use crate::lines::Lines;
use crate::own_clock::{OwnClock, time_of};

/// An order (scheduler -> publisher thread).
pub enum Order {
    /// The time limit by the clock of the process.
    TakeOver(Duration),
    Run(Job, Duration),
}

/// A request (publisher thread -> scheduler).
#[derive(Debug)]
pub enum Ask {
    Capabilities,
    Read(Bucket, String),
    List(Bucket, String),
    Write(Bucket, Vec<Write>),
    Batch(Bucket, Batch),
    Pause(Duration),
    Source,
    Think,
}

/// The answer to a request of the same kind (scheduler -> publisher thread).
#[derive(Debug)]
pub enum Answer {
    Capabilities(Result<Capabilities>),
    Read(Result<Option<Entry>>),
    List(Result<Listing>),
    Write(Vec<Outcome>),
    Batch(Outcome),
    Pause,
    Source(Result<Vec<Partition>>),
    /// The source does not return for now.
    SourceHangs,
    Think(Thought),
}

/// The result of a strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thought {
    Good,
    Failed,
    Invalid,
}

/// A message (publisher thread -> scheduler).
pub enum Said {
    /// The deadline by the clock of the process.
    Asks(Ask, Time),
    /// With the time after which a list that is held back is to be read again.
    TookOver(Result<(TakeOver, MalformedValues)>, Option<Duration>),
    Done(Term, Result<JobReport>, Option<Duration>),
}

/// A waiting publisher thread.
pub struct Actor {
    orders: Option<Sender<Order>>,
    answers: Option<Sender<Answer>>,
    said: Option<Receiver<Said>>,
    thread: Option<JoinHandle<()>>,
}

/// The parts of a publisher thread.
pub struct Parts {
    pub settings: PublisherSettings,
    pub in_force: Arc<Effective>,
    pub config: CalculatorConfig,
    pub default_weight: i64,
    pub former_leader_lease_over: bool,
    pub nonce: u64,
    pub clock: Arc<OwnClock>,
    pub operation_timeout: Duration,
    pub remembered: ProcessMemory,
}

/// The state that a publisher thread shares with the rest of its process.
pub struct Spawned {
    pub actor: Actor,
    pub partitions: Arc<Partitions>,
    pub store: Arc<GuardedStore>,
}

impl Actor {
    /// Starts the thread.
    pub fn spawn(parts: Parts) -> Spawned {
        let (orders, order_inbox) = bounded(1);
        let (answers, answer_inbox) = bounded(1);
        let (says, said) = bounded(1);
        let lockstep = Arc::new(Lockstep {
            says: says.clone(),
            answers: answer_inbox,
            nonce: parts.nonce,
            wall_clock_steps: AtomicUsize::new(0),
        });
        let reader = lockstep.clone();
        let source: Arc<dyn PartitionSource> = lockstep.clone();
        let partitions = Arc::new(Partitions::pulled(source));
        let store = GuardedStore::new(lockstep.clone(), parts.clock.clone(), parts.nonce);
        let store = Arc::new(store.with_operation_timeout(parts.operation_timeout));
        let outside = Arc::new(Outside {
            lockstep: lockstep.clone(),
            clock: parts.clock.clone(),
            store: store.clone(),
        });
        let publisher = Publisher::new(store.clone(), outside, parts.settings, parts.in_force)
            .remembering(parts.remembered);
        let rebalancer = Rebalancer::new(
            publisher,
            Arc::clone(&partitions),
            lockstep.clone(),
            parts.default_weight,
            parts.former_leader_lease_over,
        )
        .with_list_guard(&parts.config, parts.clock.clone())
        .with_reader(LockstepReader(reader, None), Duration::MAX);
        let lines = Lines::mine();
        let thread = std::thread::spawn(move || {
            if let Some(lines) = lines {
                lines.adopt();
            }
            run(rebalancer, &parts.clock, &order_inbox, &says);
        });
        let actor = Self {
            orders: Some(orders),
            answers: Some(answers),
            said: Some(said),
            thread: Some(thread),
        };
        Spawned {
            actor,
            partitions,
            store,
        }
    }

    /// Sends an order and waits for the next message of the thread. Returns `None` if it panicked.
    pub fn order(&self, order: Order) -> Option<Said> {
        self.orders.as_ref()?.send(order).ok()?;
        self.said.as_ref()?.recv().ok()
    }

    /// Sends an answer and waits for the next message of the thread. Returns `None` if it panicked.
    pub fn answer(&self, answer: Answer) -> Option<Said> {
        self.answers.as_ref()?.send(answer).ok()?;
        self.said.as_ref()?.recv().ok()
    }
}

impl Drop for Actor {
    /// Ends the process: every request of the thread fails, so that it ends.
    fn drop(&mut self) {
        self.orders = None;
        self.answers = None;
        self.said = None;
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("a publisher thread panicked");
            }
        }
    }
}

fn run(
    mut rebalancer: Rebalancer,
    clock: &OwnClock,
    orders: &Receiver<Order>,
    says: &Sender<Said>,
) {
    for order in orders {
        let word = match order {
            Order::TakeOver(timeout) => {
                let result = rebalancer.take_over(clock.instant() + timeout);
                Said::TookOver(result, rebalancer.held_list_due_in())
            }
            Order::Run(job, timeout) => {
                let result = rebalancer.run(job, clock.instant() + timeout);
                let term = rebalancer.publisher().term();
                Said::Done(term, result, rebalancer.held_list_due_in())
            }
        };
        if says.send(word).is_err() {
            return;
        }
    }
}

/// Later than the end of any simulation in real time.
pub fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(365 * 24 * 3600)
}

/// The environment of the publisher: each method sends a request to the scheduler and waits.
struct Lockstep {
    says: Sender<Said>,
    answers: Receiver<Answer>,
    nonce: u64,
    wall_clock_steps: AtomicUsize,
}

impl Lockstep {
    fn ask(&self, ask: Ask, deadline: Instant) -> Option<Answer> {
        self.says.send(Said::Asks(ask, time_of(deadline))).ok()?;
        self.answers.recv().ok()
    }

    /// Sends a request without a deadline.
    fn wait(&self, ask: Ask) -> Option<Answer> {
        self.ask(ask, far_future())
    }
}

fn dead() -> Error {
    Error::new(Code::NotRunning, "the process died")
}

impl Store for Lockstep {
    fn identity(&self) -> String {
        String::new()
    }

    fn ensure(&self, _: Bucket, _: BucketConfig, _: Instant) -> Result<BucketStatus> {
        unreachable!("the publisher ensures no bucket")
    }

    fn capabilities(&self, _bucket: Bucket, deadline: Instant) -> Result<Capabilities> {
        match self.ask(Ask::Capabilities, deadline) {
            Some(Answer::Capabilities(result)) => result,
            _ => Err(dead()),
        }
    }

    fn read(&self, bucket: Bucket, key: &str, deadline: Instant) -> Result<Option<Entry>> {
        match self.ask(Ask::Read(bucket, key.to_owned()), deadline) {
            Some(Answer::Read(result)) => result,
            _ => Err(dead()),
        }
    }

    fn list(&self, bucket: Bucket, prefix: &str, deadline: Instant) -> Result<Listing> {
        match self.ask(Ask::List(bucket, prefix.to_owned()), deadline) {
            Some(Answer::List(result)) => result,
            _ => Err(dead()),
        }
    }

    fn write(&self, bucket: Bucket, writes: &[Write], deadline: Instant) -> Vec<Outcome> {
        match self.ask(Ask::Write(bucket, writes.to_vec()), deadline) {
            Some(Answer::Write(outcomes)) => outcomes,
            _ => vec![Outcome::Refused(Refusal::NotRunning); writes.len()],
        }
    }

    fn write_batch(&self, bucket: Bucket, batch: &Batch, deadline: Instant) -> Outcome {
        match self.ask(Ask::Batch(bucket, batch.clone()), deadline) {
            Some(Answer::Batch(outcome)) => outcome,
            _ => Outcome::Refused(Refusal::NotRunning),
        }
    }

    fn watch(&self, _: Bucket, _: &str) -> Result<Watch> {
        unreachable!("the publisher watches nothing")
    }

    fn watch_key(&self, _: Bucket, _: &str) -> Result<Watch> {
        unreachable!("the publisher watches nothing")
    }

    fn health(&self) -> Health {
        unreachable!("the publisher asks for no health")
    }

    fn health_events(&self) -> HealthEvents {
        unreachable!("the publisher asks for no health")
    }

    fn stop(&self, _: Instant) -> Result<()> {
        unreachable!("the publisher stops no store")
    }
}

/// The environment of the publisher except for the store.
struct Outside {
    lockstep: Arc<Lockstep>,
    clock: Arc<OwnClock>,
    store: Arc<GuardedStore>,
}

impl PublisherEnvironment for Outside {
    fn wall_clock(&self) -> String {
        // The wall clock jumps by decades in both directions: no behaviour may depend on it.
        let step = self
            .lockstep
            .wall_clock_steps
            .fetch_add(1, Ordering::Relaxed);
        let times = [
            "2026-01-01T00:00:00Z",
            "1970-01-01T00:00:00Z",
            "2099-12-31T23:59:59Z",
        ];
        times[step % times.len()].into()
    }

    fn pause(&self, duration: Duration) -> bool {
        matches!(
            self.lockstep.wait(Ask::Pause(duration)),
            Some(Answer::Pause)
        )
    }

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn takes_calls(&self) -> bool {
        self.store.is_closed()
    }

    fn nonce(&self) -> u64 {
        self.lockstep.nonce
    }
}

impl PartitionSource for Lockstep {
    fn list_partitions(&self, _deadline: Instant) -> Result<Vec<Partition>> {
        unreachable!("the reader asks the scheduler")
    }
}

/// Reads the source as the shipped reader does, in lockstep: a call may hang, and the scheduler
/// reports when it has returned. The second field is the change that a hanging call covers.
struct LockstepReader(Arc<Lockstep>, Option<u64>);

impl ListReader for LockstepReader {
    fn read(
        &mut self,
        _source: &dyn PartitionSource,
        generation: u64,
        _wait: Instant,
    ) -> Option<(u64, Result<Vec<Partition>>)> {
        let generation = self.1.take().unwrap_or(generation);
        match self.0.wait(Ask::Source) {
            Some(Answer::Source(result)) => Some((generation, result)),
            Some(Answer::SourceHangs) => {
                self.1 = Some(generation);
                None
            }
            _ => Some((generation, Err(dead()))),
        }
    }
}

impl Strategy for Lockstep {
    fn name(&self) -> &str {
        "simulated"
    }

    fn assign(&self, input: &PlanInput<'_>) -> Result<Vec<WorkerIndex>> {
        let thought = match self.wait(Ask::Think) {
            Some(Answer::Think(thought)) => thought,
            _ => return Err(dead()),
        };
        match thought {
            Thought::Good => sticky(input),
            Thought::Failed => Err(Error::new(Code::StrategyFailed, "simulated")),
            Thought::Invalid => Ok(vec![0; input.partitions.len() + 1]),
        }
    }
}

/// A strategy that keeps the partitions of live workers up to an equal share and assigns the rest
/// by round robin. It leaves assignments unchanged, as the shipped strategies do.
fn sticky(input: &PlanInput<'_>) -> Result<Vec<WorkerIndex>> {
    let mut owners = RoundRobin.assign(input)?;
    let fair = input.partitions.len().div_ceil(input.workers.len());
    let mut held = vec![0_usize; input.workers.len()];
    let mut free = Vec::new();
    for (index, previous) in input.previous.iter().enumerate() {
        match previous {
            Some(owner) if held[*owner as usize] < fair => {
                owners[index] = *owner;
                held[*owner as usize] += 1;
            }
            _ => free.push(index),
        }
    }
    for index in free {
        let (lightest, _) = (0_u32..)
            .zip(&held)
            .min_by_key(|&(_, &count)| count)
            .unwrap_or((0, &0));
        owners[index] = lightest;
        held[lightest as usize] += 1;
    }
    Ok(owners)
}

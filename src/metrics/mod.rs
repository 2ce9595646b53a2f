//! What a calculator, its assignments, a worker and a manager tell about themselves.
//!
//! Four small traits; every method does nothing unless it is written, so that a host implements
//! only what it wants to know. [`NoMetrics`] wants nothing, [`Prometheus`] (feature `metrics`)
//! keeps series for a scrape. `docs/metrics.md` describes every series.
//!
//! Methods are called from the threads of the library, `dv-calc` and `dv-watch` among them: they
//! must not wait, must not call the handle, and should not allocate. A panic fails the handle.
//! None of them is told which worker or partition it is about: what is kept by them would grow
//! with the fleet.

mod measured;
mod names;
#[cfg(feature = "metrics")]
mod prometheus;

use std::sync::Weak;
use std::time::Duration;

pub use self::measured::MeasuredStore;
pub use self::names::MetricNames;
#[cfg(feature = "metrics")]
pub use self::prometheus::{Prometheus, PrometheusBuilder};
use crate::types::{CalculatorState, ManagerState, Reason, Term, Version};
pub use crate::vocabulary::labels::{
    ExpiryCause, IdClaim, JobKind, LeadershipChange, RefusalCause, RetryCause, Step, StoreCall,
    StoreOutcome, Success, Watched,
};
pub use crate::vocabulary::{ActiveMode, BreakerState, DegradationCause, MemberChange};

/// What a calculator tells, and the store that it works on.
#[allow(unused_variables)]
pub trait CalculatorMetrics: Send + Sync {
    /// Where to read what is cheaper to ask for than to be told of. Once, when the calculator is
    /// built; it is gone when the calculator is.
    fn attach(&self, probe: Weak<dyn Probe>) {}
    /// The state changed, after so long in the former one.
    fn state_changed(&self, from: CalculatorState, to: CalculatorState, spent: Duration) {}
    /// A job of `dv-publish` ended.
    fn job_done(&self, job: JobKind, success: Success) {}
    /// A rebalance ended; a failed one stays pending and is tried again.
    fn rebalanced(&self, reason: Reason, success: Success, took: Duration) {}
    /// A worker came or went.
    fn worker_changed(&self, change: MemberChange) {}
    /// So many workers came or went in this way since the last call: what comes in one go is told
    /// in one go. Unless it is written, [`CalculatorMetrics::worker_changed`] is told of each.
    fn workers_changed(&self, change: MemberChange, count: u32) {
        for _ in 0..count {
            self.worker_changed(change);
        }
    }
    /// How many workers are alive, and how many are suspected.
    fn workers(&self, alive: usize, suspected: usize) {}
    /// So many partitions of the plan in force have an owner that is gone.
    fn unassigned(&self, partitions: usize) {}
    /// So many live workers have not applied their assignment in time, and the last of all workers
    /// is so many versions behind.
    fn fleet_lag(&self, lagging: usize, highest: Version) {}
    /// A publication was applied by every live worker that tells so, so long after it was seen.
    fn converged(&self, took: Duration) {}
    /// A worker's lease ended.
    fn lease_ended(&self, cause: ExpiryCause) {}
    /// The heartbeats were listed, or that failed.
    fn heartbeats_listed(&self, success: Success) {}
    /// A watch lost sight of its bucket.
    fn watch_lost(&self, watched: Watched) {}
    /// A watch has delivered everything: at its start, and after each loss.
    fn watch_resynced(&self, watched: Watched) {}
    /// That many malformed values were found in the store.
    fn malformed(&self, count: u32) {}
    /// What keeps the calculator from doing all of its work; empty: nothing does.
    fn degraded(&self, causes: &[DegradationCause]) {}
    /// A newer leader has taken over.
    fn leadership_lost(&self) {}
    /// A subscriber's callback ran.
    fn called_back(&self, took: Duration) {}
    /// A subscriber's callback panicked and is closed.
    fn callback_panicked(&self) {}
    /// A subscriber was too slow: an event was not delivered. `is_first`: it is closed by that.
    fn event_missed(&self, is_first: bool) {}
    /// A call of the store ended. For calls with many writes: done when all of them are.
    fn store_called(&self, call: StoreCall, outcome: StoreOutcome, took: Duration) {}
    /// The store refused a write.
    fn write_refused(&self, because: RefusalCause) {}
    /// A store call that failed was tried again by the library.
    fn store_retried(&self) {}
    /// The circuit breaker before the store changed.
    fn breaker_changed(&self, to: BreakerState) {}
}

/// What is told of plans and their publication.
#[allow(unused_variables)]
pub trait AssignmentMetrics: Send + Sync {
    /// A take-over succeeded: the term it opened, the version it found, and the publish mode.
    fn took_over(&self, term: Term, version: Version, mode: ActiveMode) {}
    /// A part of a rebalance took so long, failed or not.
    fn step(&self, step: Step, took: Duration) {}
    /// A publication was tried again within one rebalance.
    fn retried(&self, because: RetryCause) {}
    /// A plan was published.
    fn published(&self, plan: &PublishedPlan) {}
}

/// A plan that was published.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct PublishedPlan {
    /// Its version.
    pub version: Version,
    /// The leader's term.
    pub term: Term,
    /// How it was published.
    pub mode: ActiveMode,
    /// How many workers it has.
    pub workers: usize,
    /// How many partitions it has.
    pub partitions: usize,
    /// How many of them have another owner than before.
    pub moved: usize,
    /// Their share of all weight.
    pub moved_share: f64,
    /// Load of the fullest worker, as a multiple of the mean.
    pub max_to_mean: f64,
}

/// What one worker tells of itself.
#[allow(unused_variables)]
pub trait WorkerMetrics: Send + Sync {
    /// A heartbeat was sent, or could not be.
    fn heartbeat(&self, success: Success) {}
    /// A heartbeat was due and is sent only now, so much later.
    fn heartbeat_late(&self, by: Duration) {}
    /// An assignment with this version was seen.
    fn assignment_seen(&self, version: Version) {}
    /// An assignment was applied: told to the subscribers, so long after it was taken in.
    fn assignment_applied(&self, version: Version, added: usize, removed: usize, took: Duration) {}
    /// An assignment was refused: older than what is applied.
    fn assignment_refused(&self) {}
}

/// What a manager tells of itself.
#[allow(unused_variables)]
pub trait ManagerMetrics: Send + Sync {
    /// The manager does something else, after so long in the former state.
    fn state_changed(&self, from: ManagerState, to: ManagerState, spent: Duration) {}
    /// This worker began or ceased to lead.
    fn leadership_changed(&self, change: LeadershipChange) {}
    /// A claim of a stable id, or its renewal, ended.
    fn id_claim(&self, outcome: IdClaim) {}
}

/// What can be read of a calculator at any moment without waiting.
pub trait Probe: Send + Sync {
    /// The present.
    fn read(&self) -> Reading;
}

/// One moment of a calculator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reading {
    /// Whether it is started and at work.
    pub is_started: bool,
    /// What it is doing.
    pub state: CalculatorState,
    /// For how long.
    pub state_age: Duration,
    /// How long ago a heartbeat was heard of: the age of the list of workers. `None` before the
    /// first and while it is stopped.
    pub workers_age: Option<Duration>,
    /// Messages that wait for `dv-calc`.
    pub inbox: usize,
    /// Subscribers.
    pub subscribers: usize,
    /// Events that wait for the slowest of them.
    pub backlog: usize,
}

impl Reading {
    /// What is read of a calculator that is not started.
    #[must_use]
    pub fn idle() -> Self {
        Self {
            is_started: false,
            state: CalculatorState::Idle,
            state_age: Duration::ZERO,
            workers_age: None,
            inbox: 0,
            subscribers: 0,
            backlog: 0,
        }
    }
}

/// Wants to know nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMetrics;

impl CalculatorMetrics for NoMetrics {}
impl AssignmentMetrics for NoMetrics {}
impl WorkerMetrics for NoMetrics {}
impl ManagerMetrics for NoMetrics {}

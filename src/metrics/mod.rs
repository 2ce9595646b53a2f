//! Metrics of a calculator, its plans, a worker and a manager.
//!
//! Four traits receive the measurements: [`CalculatorMetrics`], [`AssignmentMetrics`],
//! [`WorkerMetrics`] and [`ManagerMetrics`]. Every method has an empty default, so a host implements
//! only the ones it needs. [`NoMetrics`] discards everything. `Prometheus` (feature `metrics`)
//! keeps series for a scrape. `docs/metrics.md` describes every series.
//!
//! The library calls the methods on its own threads, including `dv-calc` and `dv-watch`. A method
//! must not block or call the handle, and should not allocate. A panic fails the handle. No method
//! receives the name of a worker or partition, because series keyed by them would grow with the
//! fleet.

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
    ExpiryCause, HostCall, IdClaim, JobKind, LeadershipChange, RefusalCause, RetryCause, Step,
    StoreCall, StoreOutcome, Success, Watched,
};
pub use crate::vocabulary::{
    ActiveMode, BreakerState, Bucket, ConfigPart, DegradationCause, MemberChange,
};

/// Receives the measurements of a calculator and of its store.
#[allow(unused_variables)]
pub trait CalculatorMetrics: Send + Sync {
    /// Hands over a probe for values that are cheaper to poll than to push. Called once, when the
    /// calculator is built. The probe lives as long as the calculator.
    fn attach(&self, probe: Weak<dyn Probe>) {}
    /// The calculator changed its state after `spent` in the former one.
    fn state_changed(&self, from: CalculatorState, to: CalculatorState, spent: Duration) {}
    /// A job of `dv-publish` ended.
    fn job_done(&self, job: JobKind, success: Success) {}
    /// A rebalance ended after `took`. A failed one stays pending and is retried.
    fn rebalanced(&self, reason: Reason, success: Success, took: Duration) {}
    /// The membership of one worker changed.
    fn worker_changed(&self, change: MemberChange) {}
    /// The membership of `count` workers changed in the same way. By default, calls
    /// [`CalculatorMetrics::worker_changed`] once for each.
    fn workers_changed(&self, change: MemberChange, count: u32) {
        for _ in 0..count {
            self.worker_changed(change);
        }
    }
    /// The number of live workers and of suspected workers changed.
    fn workers(&self, alive: usize, suspected: usize) {}
    /// The number of partitions without an owner changed: the owner in the current plan is no longer
    /// a member, or its assignment would be too large for the store.
    fn unassigned(&self, partitions: usize) {}
    /// `lagging` live workers have not applied their assignment within `apply_timeout`. The slowest
    /// live worker is `highest` versions behind.
    fn fleet_lag(&self, lagging: usize, highest: Version) {}
    /// A partition list that lacks `lost` of the partitions in force is held back. 0: none is.
    fn list_held(&self, lost: usize) {}
    /// The number of live workers that were reported as configured differently from the leader in
    /// this part changed.
    fn config_mismatches(&self, part: ConfigPart, workers: usize) {}
    /// Every live worker that reports its version has applied the publication, `took` after it was
    /// observed.
    fn converged(&self, took: Duration) {}
    /// A worker's lease ended.
    fn lease_ended(&self, cause: ExpiryCause) {}
    /// A listing of the heartbeats ended.
    fn heartbeats_listed(&self, success: Success) {}
    /// A watch was lost.
    fn watch_lost(&self, watched: Watched) {}
    /// A watch resynchronised: it has delivered the complete state, at its start or after a loss.
    fn watch_resynced(&self, watched: Watched) {}
    /// `count` malformed values were found in the bucket and ignored.
    fn malformed(&self, bucket: Bucket, count: u32) {}
    /// The causes of degradation changed. Empty: the calculator is not degraded.
    fn degraded(&self, causes: &[DegradationCause]) {}
    /// A newer leader has taken over.
    fn leadership_lost(&self) {}
    /// A subscriber's callback returned after `took`.
    fn called_back(&self, took: Duration) {}
    /// A subscriber's callback panicked. The subscription is closed.
    fn callback_panicked(&self) {}
    /// An event was not delivered because the backlog of a subscriber is full. `is_first` is true for
    /// the event that closes the subscription.
    fn event_missed(&self, is_first: bool) {}
    /// A store call ended after `took`. A call with many writes is `Done` if all of them are.
    fn store_called(&self, call: StoreCall, outcome: StoreOutcome, took: Duration) {}
    /// The store refused a write.
    fn write_refused(&self, because: RefusalCause) {}
    /// The library retried a failed store call.
    fn store_retried(&self) {}
    /// The circuit breaker of the store changed its state.
    fn breaker_changed(&self, to: BreakerState) {}
}

/// Receives the measurements of plans and their publication.
#[allow(unused_variables)]
pub trait AssignmentMetrics: Send + Sync {
    /// A take-over succeeded. It opened `term`, found `version` and publishes in `mode`.
    fn took_over(&self, term: Term, version: Version, mode: ActiveMode) {}
    /// A step of a rebalance ended after `took`, successfully or not.
    fn step(&self, step: Step, took: Duration) {}
    /// A publication was retried within one rebalance.
    fn retried(&self, because: RetryCause) {}
    /// A plan was published.
    fn published(&self, plan: &PublishedPlan) {}
}

/// A plan that was published.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct PublishedPlan {
    /// Version of the plan.
    pub version: Version,
    /// Term of the leader.
    pub term: Term,
    /// Publish mode.
    pub mode: ActiveMode,
    /// Number of workers.
    pub workers: usize,
    /// Number of partitions.
    pub partitions: usize,
    /// Number of partitions that changed owners.
    pub moved: usize,
    /// Weight of the moved partitions as a fraction of the total weight, 0 to 1.
    pub moved_share: f64,
    /// Load of the most loaded worker, as a multiple of the mean.
    pub max_to_mean: f64,
    /// Size of the largest assignment, as a fraction of the largest value that the store accepts.
    /// Above 1 partitions are left without an owner.
    pub limit_ratio: f64,
    /// The same after the loss of one worker.
    pub limit_after_loss_ratio: f64,
}

/// Receives the measurements of one worker.
#[allow(unused_variables)]
pub trait WorkerMetrics: Send + Sync {
    /// A heartbeat was sent, or failed to be sent.
    fn heartbeat(&self, success: Success) {}
    /// A heartbeat was sent `by` later than it was due.
    fn heartbeat_late(&self, by: Duration) {}
    /// The watch delivered an assignment with this version.
    fn assignment_seen(&self, version: Version) {}
    /// An assignment was applied: every subscriber was notified, `took` after it was observed.
    fn assignment_applied(&self, version: Version, added: usize, removed: usize, took: Duration) {}
    /// An assignment was rejected because it is older than the applied one.
    fn assignment_refused(&self) {}
}

/// Receives the measurements of a manager.
#[allow(unused_variables)]
pub trait ManagerMetrics: Send + Sync {
    /// The manager changed its state after `spent` in the former one.
    fn state_changed(&self, from: ManagerState, to: ManagerState, spent: Duration) {}
    /// This worker gained, lost or released the leadership.
    fn leadership_changed(&self, change: LeadershipChange) {}
    /// A claim of a stable id, or its renewal, ended.
    fn id_claim(&self, outcome: IdClaim) {}
}

/// A source of calculator values that can be read at any time without blocking.
pub trait Probe: Send + Sync {
    /// Returns the current values.
    fn read(&self) -> Reading;
}

/// Values of a calculator at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reading {
    /// Whether the calculator is running.
    pub is_started: bool,
    /// Current state.
    pub state: CalculatorState,
    /// Time in the current state.
    pub state_age: Duration,
    /// Time since the last heartbeat of any worker. `None` before the first heartbeat and while the
    /// calculator is stopped.
    pub workers_age: Option<Duration>,
    /// How long ago the partition source returned the last list; `None`: never, or the list is pushed.
    pub list_age: Option<Duration>,
    /// How long the longest overdue call of the host's code has been overdue, by kind.
    pub host_calls_overdue: [(HostCall, Duration); HostCall::ALL.len()],
    /// Number of messages queued for `dv-calc`.
    pub inbox: usize,
    /// Number of subscribers.
    pub subscribers: usize,
    /// Number of events queued for the slowest subscriber.
    pub backlog: usize,
}

impl Reading {
    /// Returns the values of a stopped calculator.
    #[must_use]
    pub fn idle() -> Self {
        Self {
            is_started: false,
            state: CalculatorState::Idle,
            state_age: Duration::ZERO,
            workers_age: None,
            list_age: None,
            host_calls_overdue: HostCall::ALL.map(|call| (call, Duration::ZERO)),
            inbox: 0,
            subscribers: 0,
            backlog: 0,
        }
    }
}

/// Discards all measurements.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMetrics;

impl CalculatorMetrics for NoMetrics {}
impl AssignmentMetrics for NoMetrics {}
impl WorkerMetrics for NoMetrics {}
impl ManagerMetrics for NoMetrics {}

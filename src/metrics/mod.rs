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

/// An enum whose variants have a name each: the values of one label.
macro_rules! labels {
    ($($(#[$doc:meta])+ $name:ident { $($(#[$variant_doc:meta])+ $variant:ident = $label:literal,)+ })+) => {$(
        $(#[$doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])+ $variant,)+
        }

        impl $name {
            /// Every variant.
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// The variant's name in series.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $label,)+
                }
            }
        }
    )+};
}

labels! {
    /// How something ended.
    Success {
        /// It did what it was to do.
        Yes = "success",
        /// It did not.
        No = "failure",
    }

    /// Work of `dv-publish`.
    JobKind {
        /// Take over from a former leader, once at each start and try.
        TakeOver = "take_over",
        /// Compute and publish a plan.
        Publish = "publish",
        /// Compare the partition list with the published plan.
        Inspect = "inspect",
        /// Look into writes that may be somebody else's.
        Settle = "settle",
        /// Find out whether the store answers again.
        Probe = "probe",
    }

    /// A part of a rebalance.
    Step {
        /// Reading the partitions.
        List = "list",
        /// Computing the plan.
        Compute = "compute",
        /// Publishing it.
        Publish = "publish",
    }

    /// How the fleet changed.
    WorkerChange {
        /// A worker beats for the first time.
        Joined = "joined",
        /// A worker took its leave.
        Left = "left",
        /// A worker's lease ran out.
        Missing = "missing",
        /// A missing worker beats again.
        Back = "back",
        /// A worker was missing for too long.
        Lost = "lost",
    }

    /// What ended a worker's lease.
    ExpiryCause {
        /// Nothing was heard of it for the TTL, by the local clock.
        Silence = "silence",
        /// The store told that the heartbeat expired there.
        Marker = "marker",
    }

    /// What keeps the calculator from doing its whole work.
    DegradedCause {
        /// Heartbeats are out of sight.
        Blind = "blind",
        /// The store's session is not well.
        Store = "store",
        /// Publishing fails.
        Publishing = "publishing",
        /// The partition source or its list fails.
        Source = "source",
        /// There are too many values that cannot be understood.
        Malformed = "malformed",
        /// A newer leader has taken over.
        Deposed = "deposed",
    }

    /// What a watch is about.
    Watched {
        /// The workers' signs of life.
        Heartbeats = "heartbeats",
        /// The assignments, the fence and the commit record.
        Assignments = "assignments",
    }

    /// A call of the store.
    StoreCall {
        /// See to it that a bucket exists.
        Ensure = "ensure",
        /// Ask what the store can do.
        Capabilities = "capabilities",
        /// Read one key.
        Read = "read",
        /// List keys.
        List = "list",
        /// Write keys one by one, all in flight at once.
        Write = "write",
        /// Write keys together or not at all.
        WriteBatch = "write_batch",
        /// Open a watch.
        Watch = "watch",
    }

    /// How one call of the store, or one write of many, ended.
    StoreOutcome {
        /// Done.
        Done = "done",
        /// Not done: refused by the store, or failed.
        Refused = "refused",
        /// Nobody knows: no answer in time.
        Unknown = "unknown",
    }

    /// Why the store refused a write.
    RefusedBecause {
        /// Another writer was faster, or a leader was deposed.
        Conflict = "conflict",
        /// The store is busy with another write of it.
        Busy = "busy",
        /// The value is too large.
        TooLarge = "too_large",
        /// The store cannot be reached, or has no leader.
        Unavailable = "unavailable",
        /// The store was stopped.
        NotRunning = "not_running",
        /// The credentials do not allow it.
        Unauthorized = "unauthorized",
        /// The request is wrong.
        Invalid = "invalid",
        /// The store has no room.
        Full = "full",
        /// Another error of the store.
        Other = "other",
    }

    /// Why a publication was tried again.
    RetryCause {
        /// The store was busy.
        Busy = "busy",
        /// The bucket was not as it was known, or an outcome was unknown: it was read anew.
        Doubt = "doubt",
        /// The store could not be reached, or had no leader.
        Refused = "refused",
    }

    /// The publish mode.
    PublishedAs {
        /// Atomic batches.
        Atomic = "atomic",
        /// Conditional writes of single keys.
        PerKey = "per_key",
    }

    /// The circuit breaker before the store.
    BreakerState {
        /// Calls pass.
        Closed = "closed",
        /// One call is let through to see.
        HalfOpen = "half_open",
        /// Calls fail at once.
        Open = "open",
    }

    /// How leadership changed.
    LeadershipChange {
        /// This worker leads from now on.
        Gained = "gained",
        /// It handed leadership over.
        Released = "released",
        /// It lost leadership: its lease ran out, or another leader took over.
        Lost = "lost",
    }

    /// How a claim of a stable id, or its renewal, ended.
    IdClaim {
        /// A free id was taken.
        Claimed = "claimed",
        /// Another worker was faster; the next id is tried.
        Taken = "taken",
        /// Every id is taken.
        Exhausted = "exhausted",
        /// The claim was renewed.
        Renewed = "renewed",
        /// The id was found in another's hands, or expired.
        Lost = "lost",
    }
}

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
    fn worker_changed(&self, change: WorkerChange) {}
    /// So many workers came or went in this way since the last call: what comes in one go is told
    /// in one go. Unless it is written, [`CalculatorMetrics::worker_changed`] is told of each.
    fn workers_changed(&self, change: WorkerChange, count: u32) {
        for _ in 0..count {
            self.worker_changed(change);
        }
    }
    /// So many workers are alive, and so many missing that may come back.
    fn workers(&self, alive: usize, missing: usize) {}
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
    /// So many values could not be understood.
    fn poisoned(&self, count: u32) {}
    /// Everything that keeps the calculator from its whole work; nothing: it is well.
    fn degraded(&self, causes: &[DegradedCause]) {}
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
    fn write_refused(&self, because: RefusedBecause) {}
    /// A store call that failed was tried again by the library.
    fn store_retried(&self) {}
    /// The circuit breaker before the store changed.
    fn breaker_changed(&self, to: BreakerState) {}
}

/// What is told of plans and their publication.
#[allow(unused_variables)]
pub trait AssignmentMetrics: Send + Sync {
    /// A take-over settled the term, the version found, and the publish mode.
    fn took_over(&self, term: Term, version: Version, mode: PublishedAs) {}
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
    pub mode: PublishedAs,
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

//! What goes into the manager machine and what comes out.

use std::fmt;
use std::time::Duration;

use crate::error::{Code, Error};
use crate::machine::assignment::AssignmentChange;
use crate::machine::breaker::BreakerCondition;
use crate::machine::cache::{CacheAnswer, CacheOrder};
use crate::machine::calculator::{CalculatorEvent, OpId};
use crate::machine::outage::AlertLevel;
use crate::machine::plausible::MalformedValue;
use crate::machine::request::{Answer, Request};
use crate::store::WatchEvent;
use crate::types::{CalculatorState, ManagerState, Time, WorkerId};
use crate::vocabulary::DegradationCause;
pub use crate::vocabulary::Departure;
use crate::wire::Applied;

/// How long a take-over may last before another worker gets its chance.
pub const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(30);

/// What happened.
#[derive(Clone, Debug)]
pub enum ManagerInput {
    /// Join the fleet (handle -> manager, once, first).
    Start,
    /// A request is done (`dv-member` -> manager).
    Answered {
        /// The request's id.
        op: OpId,
        /// How it ended.
        answer: Answer,
    },
    /// The watch of the election bucket shows something.
    Lease(WatchEvent),
    /// The watch of the assignments shows something; other workers' keys are ignored.
    Assignment(WatchEvent),
    /// The store's session changed its health; `Some` says why it is not well.
    StoreHealth(Option<String>),
    /// The circuit breaker before the store changed, or stands so at the start.
    Breaker(BreakerCondition),
    /// What the calculator of this worker does.
    Calculator(CalculatorReport),
    /// Calls of the host's code are overdue, in words; `None`: none is.
    HostCallsOverdue(Option<String>),
    /// What was to be done with the cache file is done.
    Cache(CacheAnswer),
    /// Leave the fleet (handle -> manager).
    Stop(Departure),
}

/// A report of the calculator that runs while this worker leads.
#[derive(Clone, Debug)]
pub enum CalculatorReport {
    /// It has taken over and works; the term that it opened and the highest version it found.
    Started(Applied),
    /// Its state changed.
    State(CalculatorState),
    /// It published a plan; the highest term and version that it has reached.
    Published(Applied),
    /// A publication failed.
    PublishFailed(Error),
    /// It has not been able to make a plan for `planning_timeout`.
    CannotPlan(Error),
    /// It was refused because a newer leader has taken over.
    Deposed,
    /// It could not take over, or it broke.
    Failed(Error),
    /// All of its threads have ended.
    Ended,
}

impl CalculatorReport {
    /// What an event of the calculator means to the manager, if anything. `in_force` is the
    /// highest term and version that the calculator has reached.
    #[must_use]
    pub fn of_event(event: &CalculatorEvent, in_force: Applied) -> Option<Self> {
        match event {
            CalculatorEvent::Published { .. } => Some(Self::Published(in_force)),
            CalculatorEvent::StateChanged(change) => Some(Self::State(change.to)),
            CalculatorEvent::Failed { operation, error } if *operation == "publish" => {
                Some(Self::PublishFailed(error.clone()))
            }
            CalculatorEvent::Degraded(degraded) => {
                let mut causes = degraded.iter();
                let planning = causes.find(|d| d.cause == DegradationCause::Planning)?;
                Some(Self::CannotPlan(Error::new(
                    Code::StrategyFailed,
                    planning.to_string(),
                )))
            }
            CalculatorEvent::LeadershipLost => Some(Self::Deposed),
            CalculatorEvent::Fatal { message } => {
                let error = Error::new(Code::Panicked, message.clone());
                Some(Self::Failed(error))
            }
            _ => None,
        }
    }

    /// Returns the manager's reaction to a failed start of the calculator.
    #[must_use]
    pub fn of_failed_start(error: Error) -> Self {
        match error.code() {
            Code::Fenced | Code::Conflict => Self::Deposed,
            _ => Self::Failed(error),
        }
    }
}

/// An effect for the shell. Each is carried out once, in order.
#[derive(Clone, Debug)]
pub enum ManagerAction {
    /// Send a request to the store (or the host's election).
    Request {
        /// The request's id.
        op: OpId,
        /// The request.
        request: Request,
        /// How long to wait for the answer.
        timeout: Duration,
    },
    /// Watch the assignments for this worker from now on, instead of any before.
    Watch(WorkerId),
    /// Start a calculator under this name.
    Lead(WorkerId),
    /// Stop the calculator, and report when it has ended.
    StepDown,
    /// Read, write or remove the cache file, and report when that is done.
    Cache(CacheOrder),
    /// Notify the subscribers.
    Notify(ManagerEvent),
    /// The worker has joined: its id is claimed and its heartbeat is confirmed, or it serves the
    /// cached assignment while the store is unreachable.
    Joined,
    /// The worker has left: no further request follows.
    Departed,
}

/// An event for the subscribers of a manager.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ManagerEvent {
    /// The manager's state changed.
    StateChanged(ManagerChange),
    /// The id of this worker changed; `None`: it has none. Also sent for the previous id while a
    /// cached assignment is in use, and again once it is claimed.
    Id(Option<WorkerId>),
    /// The id was lost: another process owns it. The worker released everything and claims another
    /// id.
    IdLost {
        /// The id.
        worker: WorkerId,
    },
    /// A newer process with the same [`instance`](crate::ManagerConfig::instance) took the id over.
    /// The worker released everything. It claims another id, and takes no claim over any more.
    IdTakenOver {
        /// The id.
        worker: WorkerId,
    },
    /// The id's key was deleted (expired, removed, bucket re-created) and not taken: the worker
    /// claimed it again.
    IdRegained {
        /// The id.
        worker: WorkerId,
    },
    /// The assignment changed: a new version was applied, possibly with the same partitions.
    AssignmentChanged(AssignmentChange),
    /// Another leader is known, or none.
    Leader {
        /// The leader.
        leader: Option<WorkerId>,
        /// Whether that is this worker.
        is_self: bool,
    },
    /// While this worker leads: an event of its calculator, except [`CalculatorEvent::Breaker`],
    /// which the manager reports itself.
    Calculator(CalculatorEvent),
    /// The circuit breaker before the store opened, became half-open, or closed.
    Breaker(BreakerCondition),
    /// Degraded mode begins: the store is unreachable, and the assignment may be outdated.
    Degraded {
        /// Why.
        why: String,
    },
    /// Degraded mode reached an alert level.
    Alert {
        /// The alert level.
        level: AlertLevel,
        /// Time since degraded mode began.
        lasted: Duration,
    },
    /// Degraded mode is over.
    Recovered {
        /// Duration of the degraded mode.
        lasted: Duration,
    },
    /// Something failed and is tried again; reported once until it succeeds.
    Failed {
        /// Why; the error names the operation.
        error: Error,
    },
    /// The assignment of this worker is malformed and was ignored; reported once until it is
    /// readable.
    Malformed(MalformedValue),
    /// The subscriber was too slow and is closed; this is its last event.
    Lagged {
        /// Number of events that it missed.
        missed: u64,
    },
    /// A thread of the manager panicked; the handle has failed. The last event.
    Fatal {
        /// Details of the panic.
        message: String,
    },
}

impl fmt::Display for ManagerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManagerEvent::StateChanged(change) if change.from == change.to => {
                write!(f, "state {}", change.to)
            }
            ManagerEvent::StateChanged(change) => {
                write!(f, "state {} -> {}", change.from, change.to)
            }
            ManagerEvent::Id(Some(id)) => write!(f, "member under the id {id}"),
            ManagerEvent::Id(None) => f.write_str("no longer a member: no id"),
            ManagerEvent::IdLost { worker } => {
                write!(f, "id {worker} lost: another process owns it")
            }
            ManagerEvent::IdTakenOver { worker } => {
                write!(
                    f,
                    "id {worker} taken over by a newer process of this instance"
                )
            }
            ManagerEvent::IdRegained { worker } => {
                write!(f, "id {worker} claimed again: its key had disappeared")
            }
            ManagerEvent::AssignmentChanged(change) => write!(
                f,
                "assignment version {} applied: {} partitions, {} acquired, {} released",
                change.held.version,
                change.held.partitions.len(),
                change.added.len(),
                change.removed.len()
            ),
            ManagerEvent::Leader { is_self: true, .. } => {
                f.write_str("leader elected: this worker")
            }
            ManagerEvent::Leader {
                leader: Some(leader),
                ..
            } => write!(f, "leader elected: {leader}"),
            ManagerEvent::Leader { leader: None, .. } => f.write_str("no leader is known"),
            ManagerEvent::Calculator(event) => event.fmt(f),
            ManagerEvent::Breaker(condition) => condition.fmt(f),
            ManagerEvent::Degraded { why } => write!(f, "degraded: {why}"),
            ManagerEvent::Alert { level, lasted } => {
                write!(f, "alert ({level}): degraded for {lasted:.0?}")
            }
            ManagerEvent::Recovered { lasted } => write!(f, "recovered after {lasted:.0?}"),
            ManagerEvent::Failed { error } => write!(f, "failed: {error}; retrying"),
            ManagerEvent::Malformed(value) => value.fmt(f),
            ManagerEvent::Lagged { missed } => {
                write!(
                    f,
                    "subscriber closed: it was too slow and missed {missed} events"
                )
            }
            ManagerEvent::Fatal { message } => write!(f, "failed: {message}"),
        }
    }
}

/// A change of a manager's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManagerChange {
    /// The previous state; equal to `to` in the first event, which carries the current state.
    pub from: ManagerState,
    /// The state now.
    pub to: ManagerState,
    /// When, by the manager's clock.
    pub time: Time,
}

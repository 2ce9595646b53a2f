//! A snapshot of a calculator, for people and dashboards.

use std::time::Duration;

use crate::machine::calculator::{CalculatorMachine, Degraded, Pending};
use crate::machine::comparison::Comparison;
use crate::machine::fit::AssignmentLimit;
use crate::machine::list_guard::HeldList;
use crate::runtime::guarded_store::BreakerStatus;
use crate::runtime::publish::publisher::ActiveMode;
use crate::strategy::Quality;
use crate::types::{CalculatorState, Reason, Term, Time, Version, WorkerId};

/// A status snapshot of a calculator.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CalculatorStatus {
    /// Whether it is started.
    pub is_started: bool,
    /// The panic message, if a thread has panicked.
    pub failed: Option<String>,
    /// The state.
    pub state: CalculatorState,
    /// The reason for the state; `None` in `Idle`.
    pub reason: Option<Reason>,
    /// Time since the state was entered.
    pub since: Duration,
    /// The version last published or adopted; 0 when there is none.
    pub version: Version,
    /// The term of this leadership; 0 before the take-over.
    pub term: Term,
    /// The publish mode, as of its last take-over; `None` before the first.
    pub publish_mode: Option<ActiveMode>,
    /// Description of the store as of the last take-over: product, version, atomic batches. Not meant
    /// for parsing; empty before the first take-over.
    pub store: String,
    /// The workers, in order.
    pub workers: Vec<WorkerStatus>,
    /// Pending work.
    pub pending: Pending,
    /// Conditions that limit the calculator.
    pub degraded: Degraded,
    /// State and counters of the store's circuit breaker.
    pub breaker: BreakerStatus,
    /// The partition list that is held back because it lost too much, as of the last job.
    pub held_list: Option<HeldList>,
    /// How long ago the partition source returned the last list; `None`: never, or the list is pushed.
    pub list_age: Option<Duration>,
    /// How large the assignments of the plan last published are, and which partitions have no owner
    /// because theirs would be too large for the store.
    pub assignment_limit: AssignmentLimit,
    /// Quality of the last published plan, or of a shadow's last computed plan; `None` before the first.
    pub quality: Option<Quality>,
    /// Whether it is a shadow, which writes nothing.
    pub is_shadow: bool,
    /// A shadow's comparison with the live leader's last publication; `None` before the first.
    pub comparison: Option<Comparison>,
    /// The last failure, until the next success.
    pub last_failure: Option<String>,
    /// Counters since the handle was made.
    pub counters: StatusCounters,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerStatus {
    /// The worker.
    pub worker: WorkerId,
    /// Whether the last published plan has it.
    pub is_planned: bool,
    /// Remaining time of its lease; `None` if it is not known to be alive.
    pub lease_left: Option<Duration>,
    /// The version that it has applied; `None` if it is not alive or does not report one, like parti's
    /// workers.
    pub applied_version: Option<Version>,
    /// Number of versions by which its key is ahead of that; `None` if one of the two is not known.
    pub lag: Option<Version>,
}

/// Counters since the handle was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatusCounters {
    /// Plans published.
    pub publications: u64,
    /// Failed jobs. They stay pending.
    pub failures: u64,
    /// Partitions that changed owners.
    pub moved: u64,
    /// Malformed values in the store.
    pub malformed: u64,
    /// Listings of the heartbeats.
    pub listings: u64,
    /// Times that the heartbeat watch was lost.
    pub watch_losses: u64,
    /// Subscribers closed because they were too slow.
    pub lagged_subscribers: u64,
    /// Callbacks that panicked.
    pub callback_panics: u64,
    /// Times that `dv-calc` woke up.
    pub calculator_wakes: u64,
    /// Plans that a shadow would have published.
    pub would_publish: u64,
    /// Publications of the live leader that a shadow followed.
    pub followed: u64,
    /// Publications of the live leader that differ from the shadow's plan.
    pub disagreements: u64,
}

/// The machine's part of a status.
#[derive(Clone, Debug)]
pub(crate) struct CalculatorMachineStatus {
    pub since: Duration,
    pub term: Term,
    pub planned: Vec<WorkerId>,
    pub pending: Pending,
    pub degraded: Degraded,
    pub assignment_limit: AssignmentLimit,
}

impl CalculatorMachineStatus {
    pub fn of(machine: &CalculatorMachine, now: Time) -> Self {
        Self {
            since: now.since(machine.position().since),
            term: machine.term(),
            planned: machine.planned().cloned().collect(),
            pending: machine.pending(now),
            degraded: machine.degraded(),
            assignment_limit: machine.assignment_limit().clone(),
        }
    }
}

/// Merges the plan's workers and those with a lease, both in order.
pub(crate) fn merge_workers(planned: &[WorkerId], known: Vec<WorkerStatus>) -> Vec<WorkerStatus> {
    let mut all: std::collections::BTreeMap<WorkerId, WorkerStatus> = known
        .into_iter()
        .map(|status| (status.worker.clone(), status))
        .collect();
    for worker in planned {
        all.entry(worker.clone())
            .or_insert_with(|| WorkerStatus {
                worker: worker.clone(),
                is_planned: true,
                lease_left: None,
                applied_version: None,
                lag: None,
            })
            .is_planned = true;
    }
    all.into_values().collect()
}

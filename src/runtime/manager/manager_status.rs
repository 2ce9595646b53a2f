//! A snapshot of a manager, for people and dashboards.

use std::time::Duration;

use crate::machine::manager::ManagerMachine;
use crate::runtime::calculator::CalculatorStatus;
use crate::runtime::guarded_store::BreakerStatus;
use crate::types::{ManagerState, Term, Time, Version, WorkerId};

/// A status snapshot of a manager.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ManagerStatus {
    /// Whether it is started.
    pub is_started: bool,
    /// The panic message, if a thread has panicked.
    pub failed: Option<String>,
    /// The state.
    pub state: ManagerState,
    /// Time since the state was entered.
    pub since: Duration,
    /// The worker id.
    pub worker_id: Option<WorkerId>,
    /// Whether the claim of that id is certain: no other process can own it now.
    pub is_id_certain: bool,
    /// The leader, if known.
    pub leader: Option<WorkerId>,
    /// Whether this worker leads.
    pub is_leader: bool,
    /// The version of its assignment; 0 before the first one.
    pub version: Version,
    /// The term of its assignment; 0 if a parti leader wrote it.
    pub term: Term,
    /// Number of assigned partitions.
    pub partitions: usize,
    /// Assignments rejected because they are older than the applied one.
    pub refused: u64,
    /// Malformed values in the store.
    pub malformed: u64,
    /// State and counters of the store's circuit breaker.
    pub breaker: BreakerStatus,
    /// The last failure, until everything succeeds again.
    pub last_failure: Option<String>,
    /// The calculator, while this worker leads.
    pub calculator: Option<CalculatorStatus>,
}

/// The machine's part of a status.
#[derive(Clone, Debug, Default)]
pub(super) struct ManagerMachineStatus {
    pub since: Duration,
    pub is_id_certain: bool,
    pub refused: u64,
    pub malformed: u64,
}

impl ManagerMachineStatus {
    pub fn of(machine: &ManagerMachine, now: Time) -> Self {
        Self {
            since: now.since(machine.since()),
            is_id_certain: machine.id_is_certain(now),
            refused: machine.refused(),
            malformed: machine.malformed(),
        }
    }
}

//! A snapshot of a manager, for people and dashboards.

use std::time::Duration;

use crate::machine::manager::ManagerMachine;
use crate::runtime::calculator::CalculatorStatus;
use crate::runtime::guarded_store::BreakerStatus;
use crate::types::{ManagerState, Term, Time, Version, WorkerId};

/// One moment of a manager.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ManagerStatus {
    /// Whether it is started.
    pub is_started: bool,
    /// Why it has failed, if it has: a thread of it panicked.
    pub failed: Option<String>,
    /// What it is doing.
    pub state: ManagerState,
    /// For how long.
    pub since: Duration,
    /// The id that it holds.
    pub worker_id: Option<WorkerId>,
    /// Whether no other process can own that id now.
    pub is_id_certain: bool,
    /// Who leads, as far as is known.
    pub leader: Option<WorkerId>,
    /// Whether this worker leads.
    pub is_leader: bool,
    /// The version of its assignment; 0 before the first one.
    pub version: Version,
    /// The term of its assignment; 0 if a parti leader wrote it.
    pub term: Term,
    /// How many partitions it holds.
    pub partitions: usize,
    /// Assignments refused for being older than what was applied.
    pub refused: u64,
    /// Values in the store that could not be understood.
    pub malformed: u64,
    /// How the store's circuit breaker stands, and what it did.
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

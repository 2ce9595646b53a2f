//! Messages between the threads of a calculator and its handle.

use std::time::Duration;

use crossbeam_channel::Sender;

use super::calculator_shared::ProbeResult;
use super::calculator_status::{CalculatorMachineStatus, WorkerStatus};
use crate::error::Result;
use crate::machine::calculator::{CalculatorInput, Job, OpId};
use crate::types::WorkerId;

/// Messages for `dv-calc` (everyone -> `dv-calc`). The channel is bounded; senders wait for a slot,
/// which is soon free because `dv-calc` never blocks.
pub(crate) enum ToDriver {
    /// Something happened (`dv-watch`, `dv-publish`, handle -> `dv-calc`).
    CalculatorInput(CalculatorInput),
    /// The take-over ended (`dv-publish` -> `dv-calc`).
    Started(Result<Started>),
    /// A request for the status (handle -> `dv-calc`).
    Status(Sender<CalculatorMachineStatus>),
}

/// A take-over that has succeeded.
pub(crate) struct Started {
    pub taken_over: CalculatorInput,
    /// Values that could not be understood.
    pub malformed: u32,
    pub probe_result: Option<ProbeResult>,
}

/// Orders for `dv-watch` (`dv-calc` and the handle -> `dv-watch`).
///
/// The channel has no bound of its own: the machine has at most one listing under way, and gives
/// up each worker at most once before it is seen again.
pub(crate) enum ToMonitor {
    /// Start watching, from what the take-over found.
    Watch {
        alive: Vec<(WorkerId, Duration)>,
        suspected: Vec<WorkerId>,
    },
    /// List the heartbeats once.
    List { op: OpId },
    /// Forget a worker that was removed.
    Forget(WorkerId),
    /// Tell what is known of every worker.
    Workers(Sender<Vec<WorkerStatus>>),
}

/// A job for `dv-publish` (`dv-calc` -> `dv-publish`). At most one is under way.
pub(crate) struct ToPublisher {
    pub op: OpId,
    pub job: Job,
}

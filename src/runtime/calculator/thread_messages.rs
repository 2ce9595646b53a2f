//! Messages between the threads of a calculator and its handle.

use crossbeam_channel::Sender;

use super::calculator_shared::ProbeResult;
use super::calculator_status::{CalculatorMachineStatus, WorkerStatus};
use crate::error::Result;
use crate::machine::calculator::{CalculatorInput, Job, OpId};
use crate::machine::engine::calculator_effects::MonitorOrder;
use crate::machine::plausible::MalformedValues;
use crate::machine::takeover::TakeOver;

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
    pub found: TakeOver,
    /// Values that were ignored.
    pub malformed: MalformedValues,
    pub probe_result: Option<ProbeResult>,
}

/// Orders for `dv-watch` (`dv-calc` and the handle -> `dv-watch`).
///
/// The channel has no bound of its own: the machine has at most one listing under way, and gives
/// up each worker at most once before it is seen again.
pub(crate) enum ToMonitor {
    /// An order of the calculator machine (`dv-calc` -> `dv-watch`).
    Order(MonitorOrder),
    /// Report what is known of every worker (handle -> `dv-watch`).
    Workers(Sender<Vec<WorkerStatus>>),
}

/// A job for `dv-publish` (`dv-calc` -> `dv-publish`). At most one is under way.
pub(crate) struct ToPublisher {
    pub op: OpId,
    pub job: Job,
}

//! What the threads of one calculator and its handle share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use crossbeam_utils::atomic::AtomicCell;
use parking_lot::Mutex;

use super::last_heard::LastHeard;
use super::stop_guard::CurrentOperation;
use crate::error::{Code, Error, Result};
use crate::machine::calculator::{StateChange, Ticket};
use crate::machine::comparison::Comparison;
use crate::machine::list_guard::HeldList;
use crate::machine::position::Position;
use crate::machine::takeover::ProcessMemory;
use crate::runtime::common::metrics_sink::MetricsSink;
use crate::runtime::notifier::Hub;
use crate::runtime::publish::publisher::{ActiveMode, Effective};
use crate::runtime::running_host_calls::HostCalls;
use crate::strategy::Quality;
use crate::threads::next_handle_id;
use crate::types::{Time, Version, WorkerId};

/// What callers read without asking a thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CalculatorSnapshot {
    pub position: Position,
    pub version: Version,
}

/// What the last take-over proved of the store.
#[derive(Clone, Debug)]
pub(crate) struct ProbeResult {
    pub mode: ActiveMode,
    pub store: String,
}

/// Counters since the handle was made.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub publications: AtomicU64,
    pub failures: AtomicU64,
    pub moved: AtomicU64,
    pub malformed: AtomicU64,
    pub listings: AtomicU64,
    pub watch_losses: AtomicU64,
    pub calculator_wakes: AtomicU64,
    pub would_publish: AtomicU64,
    pub followed: AtomicU64,
    pub disagreements: AtomicU64,
}

/// CalculatorShared by the handle and the threads of one calculator.
pub(crate) struct CalculatorShared {
    pub id: u64,
    pub hub: Arc<Hub>,
    pub snapshot: AtomicCell<CalculatorSnapshot>,
    pub counters: Counters,
    pub in_force: Arc<Effective>,
    /// What the process knows from before its take-over.
    pub remembered: Mutex<ProcessMemory>,
    /// The receiver of metrics events.
    pub metrics_sink: MetricsSink,
    pub last_heard: LastHeard,
    /// How many partitions each worker of the plan in force has.
    pub loads: Mutex<HashMap<WorkerId, usize>>,
    /// What `dv-publish` waits for.
    pub operation_in_progress: Arc<CurrentOperation>,
    /// What the last take-over proved of the store; `None` before the first.
    pub probe_result: Mutex<Option<ProbeResult>>,
    /// The calls of the host's code that run.
    pub host_calls: Arc<HostCalls>,
    /// When the partition source returned the last list.
    pub list_read_at: AtomicCell<Option<Time>>,
    /// The partition list that is held back.
    pub held_list: Mutex<Option<HeldList>>,
    /// How good the plan last published is.
    pub quality: Mutex<Option<Quality>>,
    /// What a shadow thought of the live leader's last publication.
    pub comparison: Mutex<Option<Comparison>>,
    /// Why the last job failed; cleared by the next success.
    pub last_failure: Mutex<Option<Error>>,
    /// Why the handle has failed.
    pub failed: Mutex<Option<String>>,
    waiting: Mutex<HashMap<Ticket, Sender<Result<Version>>>>,
    next_ticket: AtomicU64,
}

impl CalculatorShared {
    pub fn new(
        current: StateChange,
        subscriber_backlog: usize,
        snapshot: CalculatorSnapshot,
        metrics_sink: MetricsSink,
        host_calls: Arc<HostCalls>,
    ) -> Self {
        let id = next_handle_id();
        Self {
            id,
            hub: Arc::new(
                Hub::new(id, current, subscriber_backlog)
                    .with_metrics(Arc::clone(&metrics_sink.calculator))
                    .with_host_calls(Arc::clone(&host_calls)),
            ),
            snapshot: AtomicCell::new(snapshot),
            counters: Counters::default(),
            in_force: Arc::default(),
            remembered: Mutex::default(),
            metrics_sink,
            last_heard: LastHeard::default(),
            loads: Mutex::default(),
            operation_in_progress: Arc::default(),
            probe_result: Mutex::new(None),
            host_calls,
            list_read_at: AtomicCell::new(None),
            held_list: Mutex::new(None),
            quality: Mutex::new(None),
            comparison: Mutex::new(None),
            last_failure: Mutex::new(None),
            failed: Mutex::new(None),
            waiting: Mutex::new(HashMap::new()),
            next_ticket: AtomicU64::new(1),
        }
    }

    /// How long ago the partition source returned the last list.
    pub fn list_age(&self, now: Time) -> Option<Duration> {
        self.list_read_at.load().map(|at| now.since(at))
    }

    /// A ticket, and where its answer will arrive.
    pub fn wait_for_answer(&self) -> (Ticket, crossbeam_channel::Receiver<Result<Version>>) {
        let ticket = Ticket(self.next_ticket.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = bounded(1);
        self.waiting.lock().insert(ticket, sender);
        (ticket, receiver)
    }

    pub fn answer(&self, ticket: Ticket, result: Result<Version>) {
        if let Some(sender) = self.waiting.lock().remove(&ticket) {
            let _ = sender.try_send(result); // the caller may have timed out
        }
    }

    pub fn give_up(&self, ticket: Ticket) {
        self.waiting.lock().remove(&ticket);
    }

    /// Records a panic on a thread of this calculator. Only the first one is reported.
    pub fn fail(&self, message: &str) {
        self.failed.lock().get_or_insert_with(|| message.to_owned());
    }

    /// Returns the error of a call that was interrupted by the end of the threads.
    pub fn ended(&self, why: &str) -> Error {
        match self.failed.lock().clone() {
            Some(message) => Error::new(Code::Panicked, message),
            None => Error::new(Code::NotRunning, why),
        }
    }

    /// Disconnects the channel of every waiting caller.
    pub fn abandon_callers(&self) {
        self.waiting.lock().clear();
    }
}

//! What the threads of one manager and its handle share.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use crossbeam_utils::atomic::AtomicCell;
use parking_lot::Mutex;

use super::leading::Leading;
use super::manager_event_filter::Introduction;
use crate::error::{Code, Error};
use crate::machine::assignment::Held;
use crate::machine::manager::{ManagerChange, ManagerEvent, ManagerMachine};
use crate::runtime::common::metrics_sink::MetricsSink;
use crate::runtime::notifier::Hub;
use crate::runtime::running_host_calls::HostCalls;
use crate::threads::cancel::{self, WaitError};
use crate::threads::next_handle_id;
use crate::threads::signal;
use crate::types::{ManagerState, Time, WorkerId};

/// What callers read without asking a thread.
#[derive(Clone, Debug)]
pub(super) struct ManagerSnapshot {
    pub state: ManagerState,
    pub worker: Option<WorkerId>,
    pub leader: Option<WorkerId>,
    pub is_leader: bool,
    pub held: Held,
    pub is_ready: bool,
    pub last_failure: Option<Error>,
}

impl ManagerSnapshot {
    pub fn of(machine: &ManagerMachine) -> Self {
        Self {
            state: machine.state(),
            worker: machine.worker().cloned(),
            leader: machine.leader().cloned(),
            is_leader: machine.is_leader(),
            held: machine.held().clone(),
            is_ready: machine.is_ready(),
            last_failure: machine.last_failure().cloned(),
        }
    }

    /// Of a worker that is no member.
    pub fn blank(state: ManagerState) -> Self {
        Self {
            state,
            worker: None,
            leader: None,
            is_leader: false,
            held: Held::default(),
            is_ready: false,
            last_failure: None,
        }
    }
}

/// ManagerShared by the handle and the threads of one manager.
pub(super) struct ManagerShared {
    pub id: u64,
    pub hub: Arc<Hub<ManagerEvent>>,
    /// The calls of the host's code that run.
    pub host_calls: Arc<HostCalls>,
    /// The calculator, while this worker leads.
    pub leading: Mutex<Option<Arc<Leading>>>,
    /// When `dv-member` is due to wake up.
    pub wakes_at: AtomicCell<Time>,
    /// Why the handle has failed.
    pub failed: Mutex<Option<String>>,
    /// How often it was started.
    pub starts: AtomicU64,
    snapshot: Mutex<ManagerSnapshot>,
    /// Replaced with every change of the snapshot.
    changed: Mutex<(Sender<Infallible>, Receiver<Infallible>)>,
}

impl ManagerShared {
    pub fn new(
        current: ManagerChange,
        subscriber_backlog: usize,
        metrics_sink: MetricsSink,
        host_calls: Arc<HostCalls>,
    ) -> Self {
        let id = next_handle_id();
        let introduction = Introduction::new(current);
        Self {
            id,
            hub: Arc::new(
                Hub::new(id, introduction, subscriber_backlog)
                    .with_metrics(metrics_sink.calculator)
                    .with_host_calls(Arc::clone(&host_calls)),
            ),
            host_calls,
            leading: Mutex::new(None),
            wakes_at: AtomicCell::new(Time::FAR_FUTURE),
            failed: Mutex::new(None),
            starts: AtomicU64::new(0),
            snapshot: Mutex::new(ManagerSnapshot::blank(current.to)),
            changed: Mutex::new(signal()),
        }
    }

    pub fn publish_snapshot(&self, snapshot: ManagerSnapshot) {
        let mut slot = self.snapshot.lock();
        // Dropped with no lock held.
        let _before = std::mem::replace(&mut *slot, snapshot);
        drop(slot);
        let _signal = std::mem::replace(&mut *self.changed.lock(), signal());
    }

    pub fn snapshot(&self) -> ManagerSnapshot {
        self.snapshot.lock().clone()
    }

    /// Something of the snapshot.
    pub fn read<R>(&self, read: impl FnOnce(&ManagerSnapshot) -> R) -> R {
        read(&self.snapshot.lock())
    }

    /// Waits until the manager is in this state. `Disconnected`: it is stopped or has failed.
    pub fn wait_state(&self, state: ManagerState, deadline: Instant) -> Result<(), WaitError> {
        loop {
            // Before the check, so that no change after it is missed.
            let changed = self.changed.lock().1.clone();
            let now = self.read(|snapshot| snapshot.state);
            if now == state {
                return Ok(());
            }
            if now == ManagerState::Shutdown || self.failed.lock().is_some() {
                return Err(WaitError::Disconnected);
            }
            match cancel::recv_deadline(&changed, deadline) {
                Err(WaitError::Disconnected) => {}
                Err(why) if self.read(|snapshot| snapshot.state) != state => return Err(why),
                _ => return Ok(()),
            }
        }
    }

    /// Records a panic on a thread of this manager. Only the first one is reported.
    pub fn fail(&self, message: &str) {
        self.failed.lock().get_or_insert_with(|| message.to_owned());
        // Wakes the callers that wait for a state.
        let _signal = std::mem::replace(&mut *self.changed.lock(), signal());
    }

    /// Returns the error of a call that was interrupted by the end of the threads.
    pub fn ended(&self, why: &str) -> Error {
        match self.failed.lock().clone() {
            Some(message) => Error::new(Code::Panicked, message),
            None => Error::new(Code::NotRunning, why),
        }
    }

    /// A life is over.
    pub fn rest(&self, now: Time) {
        let state = ManagerState::Shutdown;
        self.hub.reset(Introduction::new(ManagerChange {
            from: state,
            to: state,
            time: now,
        }));
        self.publish_snapshot(ManagerSnapshot::blank(state));
    }

    pub fn begin(&self, current: ManagerChange) {
        *self.failed.lock() = None;
        self.wakes_at.store(Time::FAR_FUTURE);
        self.starts.fetch_add(1, Ordering::Relaxed);
        self.hub.reset(Introduction::new(current));
        self.publish_snapshot(ManagerSnapshot::blank(current.to));
    }
}

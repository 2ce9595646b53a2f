//! `dv-calc`: owns the calculator machine and its timers. Receives, hands in, carries out; never
//! blocks on I/O or on a send.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, select_biased};

use super::calculator_shared::{CalculatorShared, CalculatorSnapshot};
use super::calculator_status::CalculatorMachineStatus;
use super::fleet_changes::{FleetChanges, degradation_label, member_change_label};
use super::thread_messages::ToDriver;
use super::thread_messages::ToMonitor;
use super::thread_messages::ToPublisher;
use crate::error::Result;
use crate::machine::breaker::BreakerState;
use crate::machine::calculator::{
    CalculatorAction, CalculatorEvent, CalculatorInput, CalculatorMachine,
};
use crate::runtime::common::event_log::EventLog;
use crate::time::clock::Clock;
use crate::time::deadline::timer;
use crate::types::Time;

/// The thread's own state.
pub(crate) struct CalculatorDriver {
    pub machine: CalculatorMachine,
    /// Since when the machine has been in its state.
    pub state_since: Time,
    /// Membership changes that the metrics have not received yet.
    pub fleet: FleetChanges,
    /// The last reported number of partitions without an owner.
    pub unassigned_told: usize,
    pub clock: Arc<dyn Clock>,
    pub shared: Arc<CalculatorShared>,
    pub to_publisher: Sender<ToPublisher>,
    pub to_monitor: Sender<ToMonitor>,
    /// How the store's breaker changes.
    pub breaker: Receiver<BreakerState>,
    pub event_log: EventLog,
    pub started: Sender<Result<()>>,
    /// Set when the take-over has succeeded.
    pub is_up: Arc<AtomicBool>,
}

impl CalculatorDriver {
    /// The thread's body; ends when `stop` is disconnected.
    pub fn run(mut self, inbox: &Receiver<ToDriver>, stop: &Receiver<Infallible>) {
        loop {
            let timer = timer(&*self.clock, self.machine.deadline());
            select_biased! {
                recv(stop) -> _ => return self.measure_fleet(false),
                // Drained before the inbox: a failed job is reported after the breaker that it
                // opened.
                recv(self.breaker) -> state => match state {
                    Ok(state) => self.dispatch(self.clock.now(), CalculatorInput::Breaker(state)),
                    Err(_) => return, // everybody who could use the store is gone
                },
                recv(inbox) -> message => match message {
                    Ok(message) => self.handle(message),
                    Err(_) => return,
                },
                recv(timer) -> _ => self.machine.tick(self.clock.now()),
            }
            self.shared
                .counters
                .calculator_wakes
                .fetch_add(1, Ordering::Relaxed);
            self.perform();
            self.measure_fleet(!inbox.is_empty());
        }
    }

    fn handle(&mut self, message: ToDriver) {
        let now = self.clock.now();
        match message {
            ToDriver::CalculatorInput(event) => self.dispatch(now, event),
            ToDriver::Started(Ok(started)) => {
                *self.shared.probe_result.lock() = started.probe_result;
                self.dispatch(now, started.taken_over);
                if started.malformed > 0 {
                    let count = started.malformed;
                    self.dispatch(now, CalculatorInput::Malformed { count });
                }
                self.fleet.touch();
                self.publish_snapshot();
                self.shared.hub.set_version(self.machine.version());
                // Set before any notification: callbacks may call the handle.
                self.is_up.store(true, Ordering::Release);
                let _ = self.started.try_send(Ok(()));
            }
            ToDriver::Started(Err(error)) => {
                let _ = self.started.try_send(Err(error));
            }
            ToDriver::Status(reply) => {
                let _ = reply.try_send(CalculatorMachineStatus::of(&self.machine, now));
            }
        }
    }

    fn perform(&mut self) {
        // The snapshot first: a subscriber that is notified of a state change reads it.
        self.publish_snapshot();
        // Order: notifications first, so that a caller whose request completes has its events; then
        // the log, which is host code, and wake-ups, which take a while; the job last, because it
        // occupies a core.
        let (mut notices, mut replies) = (Vec::new(), Vec::new());
        let (mut orders, mut to_start) = (Vec::new(), None);
        while let Some(action) = self.machine.poll_action() {
            match action {
                // At most one job is under way.
                CalculatorAction::Start { op, job } => to_start = Some(ToPublisher { op, job }),
                CalculatorAction::List { op } => orders.push(ToMonitor::List { op }),
                CalculatorAction::Watch { alive, suspected } => {
                    orders.push(ToMonitor::Watch { alive, suspected })
                }
                CalculatorAction::Forget(worker) => orders.push(ToMonitor::Forget(worker)),
                CalculatorAction::Notify(notice) => {
                    self.count(&notice);
                    notices.push(Arc::new(notice));
                }
                CalculatorAction::Reply { ticket, result } => replies.push((ticket, result)),
            }
        }
        self.shared.hub.publish_all(&notices);
        for (ticket, result) in replies {
            self.shared.answer(ticket, result);
        }
        for notice in notices {
            self.event_log.note(self.clock.now(), &notice);
        }
        for order in orders {
            // Fails only when `dv-watch` has ended; then so will this thread.
            let _ = self.to_monitor.try_send(order);
        }
        if let Some(job) = to_start {
            // The channel has a place for it.
            let _ = self.to_publisher.try_send(job);
        }
    }

    /// Counts events before delivery, so that subscribers find them in the status.
    fn count(&mut self, notice: &CalculatorEvent) {
        self.measure(notice);
        let counters = &self.shared.counters;
        match notice {
            CalculatorEvent::Published { quality, .. } => {
                counters.publications.fetch_add(1, Ordering::Relaxed);
                counters
                    .moved
                    .fetch_add(quality.moved_partitions as u64, Ordering::Relaxed);
                *self.shared.quality.lock() = Some(*quality);
                *self.shared.last_failure.lock() = None;
            }
            CalculatorEvent::WouldPublish { quality, .. } => {
                counters.would_publish.fetch_add(1, Ordering::Relaxed);
                *self.shared.quality.lock() = Some(*quality);
                *self.shared.last_failure.lock() = None;
            }
            CalculatorEvent::LeaderPublished(comparison) => {
                counters.followed.fetch_add(1, Ordering::Relaxed);
                if !comparison.agrees() {
                    counters.disagreements.fetch_add(1, Ordering::Relaxed);
                }
                *self.shared.comparison.lock() = Some((**comparison).clone());
            }
            CalculatorEvent::Failed { error, .. } => {
                counters.failures.fetch_add(1, Ordering::Relaxed);
                *self.shared.last_failure.lock() = Some(error.clone());
            }
            _ => {}
        }
    }

    fn measure(&mut self, notice: &CalculatorEvent) {
        let metrics = &self.shared.metrics_sink.calculator;
        match notice {
            CalculatorEvent::StateChanged(change) => {
                let spent = change.time.since(self.state_since);
                self.state_since = change.time;
                metrics.state_changed(change.from, change.to, spent);
            }
            CalculatorEvent::Member(change) => self.fleet.note(member_change_label(change)),
            CalculatorEvent::Published { .. } => self.fleet.touch(),
            CalculatorEvent::Degraded(why) => {
                // A handful at most, and none on a calculator that is well.
                let causes: Vec<_> = why.iter().map(degradation_label).collect();
                metrics.degraded(&causes);
            }
            CalculatorEvent::LeadershipLost => metrics.leadership_lost(),
            // The breaker measures itself, a shadow publishes nothing that could be measured, and
            // `dv-watch` measures who lags.
            CalculatorEvent::Breaker(_)
            | CalculatorEvent::WouldPublish { .. }
            | CalculatorEvent::LeaderPublished(_)
            | CalculatorEvent::WorkerLagging(_)
            | CalculatorEvent::Failed { .. }
            | CalculatorEvent::Lagged { .. }
            | CalculatorEvent::Fatal { .. } => {}
        }
    }

    /// How many partitions of the plan in force have an owner that is gone.
    fn unassigned(&self) -> usize {
        if !self.machine.has_removed() {
            return 0;
        }
        let loads = self.shared.loads.lock();
        let held = |worker| loads.get(worker).copied().unwrap_or(0);
        self.machine.removed().map(held).sum()
    }

    /// Once for all that changed together.
    fn measure_fleet(&mut self, is_more_coming: bool) {
        let metrics = &*self.shared.metrics_sink.calculator;
        if self.fleet.tell(is_more_coming, metrics) {
            let (alive, suspected) = self.machine.worker_counts();
            metrics.workers(alive, suspected);
            let unassigned = self.unassigned();
            if unassigned != self.unassigned_told {
                self.unassigned_told = unassigned;
                self.shared.metrics_sink.calculator.unassigned(unassigned);
            }
        }
    }

    fn publish_snapshot(&self) {
        self.shared.snapshot.store(CalculatorSnapshot {
            position: self.machine.position(),
            version: self.machine.version(),
        });
    }

    fn dispatch(&mut self, now: Time, event: CalculatorInput) {
        if let CalculatorInput::Malformed { count } = &event {
            self.shared.metrics_sink.calculator.poisoned(*count);
            self.shared
                .counters
                .malformed
                .fetch_add(u64::from(*count), Ordering::Relaxed);
        }
        self.machine.handle(now, event);
    }
}

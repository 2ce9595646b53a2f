//! `dv-calc`: owns the calculator machine and its timers. Receives, hands in, carries out; never
//! blocks on I/O or on a send.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, select_biased};

use super::calculator_shared::{CalculatorShared, CalculatorSnapshot};
use super::calculator_status::CalculatorMachineStatus;
use super::fleet_changes::FleetChanges;
use super::thread_messages::{ToDriver, ToMonitor, ToPublisher};
use crate::error::Result;
use crate::machine::breaker::BreakerCondition;
use crate::machine::calculator::{
    CalculatorEvent, CalculatorInput, CalculatorMachine, Job, OpId, Ticket,
};
use crate::machine::engine::calculator_effects::{
    CalculatorEffects, CalculatorShell, MonitorOrder, took_over,
};
use crate::machine::plausible::MalformedValues;
use crate::machine::position::Position;
use crate::runtime::common::event_log::EventLog;
use crate::runtime::running_host_calls::OverdueCheck;
use crate::store::Bucket;
use crate::time::clock::Clock;
use crate::time::deadline::timer;
use crate::types::{Time, Version};

/// The thread's own state.
pub(crate) struct CalculatorDriver {
    pub machine: CalculatorMachine,
    /// How the store's breaker changes.
    pub breaker: Receiver<BreakerCondition>,
    pub started: Sender<Result<()>>,
    /// Set when the take-over has succeeded.
    pub is_up: Arc<AtomicBool>,
    pub shell: DriverShell,
    pub overdue_check: OverdueCheck,
}

/// Where the effects of the machine's steps go.
pub(crate) struct DriverShell {
    /// Since when the machine has been in its state.
    pub state_since: Time,
    /// Changes of the fleet that were not reported to the metrics yet.
    pub fleet: FleetChanges,
    /// The number of partitions without an owner that was reported last.
    pub unassigned_reported: usize,
    pub clock: Arc<dyn Clock>,
    pub shared: Arc<CalculatorShared>,
    pub to_publisher: Sender<ToPublisher>,
    pub to_monitor: Sender<ToMonitor>,
    pub event_log: EventLog,
}

impl CalculatorDriver {
    /// The thread's body; ends when `stop` is disconnected.
    pub fn run(mut self, inbox: &Receiver<ToDriver>, stop: &Receiver<Infallible>) {
        loop {
            let dues = [self.machine.deadline(), self.overdue_check.due()];
            let timer = timer(&*self.shell.clock, dues.into_iter().flatten().min());
            select_biased! {
                recv(stop) -> _ => return self.shell.measure_fleet(&self.machine, false),
                // Drained before the inbox: a failed job is reported after the breaker that it
                // opened.
                recv(self.breaker) -> state => match state {
                    Ok(state) => self.dispatch(self.shell.clock.now(), CalculatorInput::Breaker(state)),
                    Err(_) => return, // everybody who could use the store is gone
                },
                recv(inbox) -> message => match message {
                    Ok(message) => self.handle(message),
                    Err(_) => return,
                },
                recv(self.overdue_check.waker()) -> _ => self.overdue_check.begin(),
                recv(timer) -> _ => self.machine.tick(self.shell.clock.now()),
            }
            let now = self.shell.clock.now();
            if let Some(words) = self.overdue_check.check(now) {
                self.dispatch(now, CalculatorInput::HostCallsOverdue(words));
            }
            self.shell
                .shared
                .counters
                .calculator_wakes
                .fetch_add(1, Ordering::Relaxed);
            CalculatorEffects::of(&mut self.machine).perform(&mut self.shell);
            self.shell.measure_fleet(&self.machine, !inbox.is_empty());
        }
    }

    fn handle(&mut self, message: ToDriver) {
        let now = self.shell.clock.now();
        match message {
            ToDriver::CalculatorInput(event) => self.dispatch(now, event),
            ToDriver::Started(Ok(started)) => {
                *self.shell.shared.probe_result.lock() = started.probe_result;
                self.shell.count_malformed(&started.malformed);
                took_over(&mut self.machine, now, started.found, started.malformed);
                self.shell.fleet.touch();
                let machine = &self.machine;
                self.shell
                    .publish_snapshot(machine.position(), machine.version());
                self.shell.shared.hub.set_version(self.machine.version());
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

    fn dispatch(&mut self, now: Time, event: CalculatorInput) {
        if let CalculatorInput::Malformed(values) = &event {
            self.shell.count_malformed(values);
        }
        self.machine.handle(now, event);
    }
}

impl DriverShell {
    fn measure(&mut self, notice: &CalculatorEvent) {
        let metrics = &self.shared.metrics_sink.calculator;
        match notice {
            CalculatorEvent::StateChanged(change) => {
                let spent = change.time.since(self.state_since);
                self.state_since = change.time;
                metrics.state_changed(change.from, change.to, spent);
            }
            CalculatorEvent::Member { change, .. } => self.fleet.note(*change),
            CalculatorEvent::Published { .. } => self.fleet.touch(),
            CalculatorEvent::Degraded(why) => {
                // A handful at most, and none on a calculator that is well.
                let causes: Vec<_> = why.iter().map(|reason| reason.cause).collect();
                metrics.degraded(&causes);
            }
            CalculatorEvent::LeadershipLost => metrics.leadership_lost(),
            CalculatorEvent::ListHeld(held) => {
                metrics.list_held(held.as_ref().map_or(0, |held| held.lost));
            }
            // The breaker measures itself, a shadow publishes nothing that could be measured, and
            // `dv-watch` measures the lag.
            CalculatorEvent::Breaker(_)
            | CalculatorEvent::WouldPublish { .. }
            | CalculatorEvent::LeaderPublished(_)
            | CalculatorEvent::WorkerLagging(_)
            | CalculatorEvent::ConfigMismatch(_)
            | CalculatorEvent::Malformed(_)
            | CalculatorEvent::AssignmentLimit { .. }
            | CalculatorEvent::Failed { .. }
            | CalculatorEvent::Lagged { .. }
            | CalculatorEvent::Fatal { .. } => {}
        }
    }

    /// How many partitions have no owner: theirs is gone, or its assignment would be too large.
    fn unassigned(&self, machine: &CalculatorMachine) -> usize {
        let left_out = machine.assignment_limit().unassigned.len();
        if !machine.has_removed() {
            return left_out;
        }
        let loads = self.shared.loads.lock();
        let held = |worker| loads.get(worker).copied().unwrap_or(0);
        left_out + machine.removed().map(held).sum::<usize>()
    }

    /// Once for all that changed together.
    fn measure_fleet(&mut self, machine: &CalculatorMachine, is_more_coming: bool) {
        let metrics = &*self.shared.metrics_sink.calculator;
        if self.fleet.report(is_more_coming, metrics) {
            let (alive, suspected) = machine.worker_counts();
            metrics.workers(alive, suspected);
            let unassigned = self.unassigned(machine);
            if unassigned != self.unassigned_reported {
                self.unassigned_reported = unassigned;
                self.shared.metrics_sink.calculator.unassigned(unassigned);
            }
        }
    }

    fn count_malformed(&self, values: &MalformedValues) {
        for bucket in Bucket::ALL {
            let count = values.count_in(bucket);
            if count > 0 {
                let metrics = &self.shared.metrics_sink.calculator;
                metrics.malformed(bucket, count);
            }
        }
        let malformed = &self.shared.counters.malformed;
        malformed.fetch_add(u64::from(values.count()), Ordering::Relaxed);
    }
}

impl CalculatorShell for DriverShell {
    fn publish_snapshot(&mut self, position: Position, version: Version) {
        self.shared
            .snapshot
            .store(CalculatorSnapshot { position, version });
    }

    /// Counts the event in the status and in the metrics.
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

    fn deliver(&mut self, events: &[Arc<CalculatorEvent>]) {
        self.shared.hub.publish_all(events);
    }

    fn answer(&mut self, ticket: Ticket, result: Result<Version>) {
        self.shared.answer(ticket, result);
    }

    fn log(&mut self, event: &CalculatorEvent) {
        self.event_log.note(self.clock.now(), event);
    }

    fn order(&mut self, order: MonitorOrder) {
        // Fails only when `dv-watch` has ended; then so will this thread.
        let _ = self.to_monitor.try_send(ToMonitor::Order(order));
    }

    fn start(&mut self, op: OpId, job: Job) {
        // The channel has a place for it.
        let _ = self.to_publisher.try_send(ToPublisher { op, job });
    }
}

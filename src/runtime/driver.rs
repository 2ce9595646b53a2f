//! `dv-calc`: owns the calculator machine and its timers. Receives, hands in, carries out; never
//! blocks on I/O or on a send.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, select_biased};

use super::assignment_publisher::ToPublisher;
use super::journal::Journal;
use super::shared::{Board, Proven, Shared, timer};
use super::status::MachineStatus;
use super::telling::{FleetChanges, cause_of, change_of};
use super::worker_monitor::ToMonitor;
use crate::clock::Clock;
use crate::error::Result;
use crate::machine::breaker::BreakerState;
use crate::machine::calculator::{Action, Calculator, Event, Notice};
use crate::types::Time;

/// Messages for `dv-calc` (everyone -> `dv-calc`). The channel is bounded; senders wait for a
/// place, which is soon free since `dv-calc` waits for nobody.
pub(super) enum ToDriver {
    /// Something happened (`dv-watch`, `dv-publish`, handle -> `dv-calc`).
    Event(Event),
    /// The take-over ended (`dv-publish` -> `dv-calc`).
    Started(Result<Started>),
    /// Somebody wants to know (handle -> `dv-calc`).
    Status(Sender<MachineStatus>),
}

/// A take-over that has succeeded.
pub(super) struct Started {
    pub taken_over: Event,
    /// Values that could not be understood.
    pub poison: u32,
    pub proven: Option<Proven>,
}

/// The thread's own state.
pub(super) struct Driver {
    pub machine: Calculator,
    /// Since when the machine has been in its state.
    pub state_since: Time,
    /// What changed of the fleet and was not told to the metrics yet.
    pub fleet: FleetChanges,
    /// What was told of partitions without an owner.
    pub unassigned_told: usize,
    pub clock: Arc<dyn Clock>,
    pub shared: Arc<Shared>,
    pub to_publisher: Sender<ToPublisher>,
    pub to_monitor: Sender<ToMonitor>,
    /// How the store's breaker changes.
    pub breaker: Receiver<BreakerState>,
    pub journal: Journal,
    pub started: Sender<Result<()>>,
    /// Set when the take-over has succeeded.
    pub is_up: Arc<AtomicBool>,
}

impl Driver {
    /// The thread's body; ends when `stop` is disconnected.
    pub fn run(mut self, inbox: &Receiver<ToDriver>, stop: &Receiver<Infallible>) {
        loop {
            let timer = timer(&*self.clock, self.machine.deadline());
            select_biased! {
                recv(stop) -> _ => return self.measure_fleet(false),
                // Before the inbox: a job is told to have failed after the breaker that it opened.
                recv(self.breaker) -> state => match state {
                    Ok(state) => self.hand_in(self.clock.now(), Event::Breaker(state)),
                    Err(_) => return, // everybody who could use the store is gone
                },
                recv(inbox) -> message => match message {
                    Ok(message) => self.take_in(message),
                    Err(_) => return,
                },
                recv(timer) -> _ => self.machine.tick(self.clock.now()),
            }
            self.shared
                .counters
                .calculator_wakes
                .fetch_add(1, Ordering::Relaxed);
            self.carry_out();
            self.measure_fleet(!inbox.is_empty());
        }
    }

    fn take_in(&mut self, message: ToDriver) {
        let now = self.clock.now();
        match message {
            ToDriver::Event(event) => self.hand_in(now, event),
            ToDriver::Started(Ok(started)) => {
                *self.shared.proven.lock() = started.proven;
                self.hand_in(now, started.taken_over);
                if started.poison > 0 {
                    let count = started.poison;
                    self.hand_in(now, Event::Poison { count });
                }
                self.fleet.touch();
                self.show();
                self.shared.hub.set_version(self.machine.version());
                // Before anyone is told anything: callbacks may call the handle.
                self.is_up.store(true, Ordering::Release);
                let _ = self.started.try_send(Ok(()));
            }
            ToDriver::Started(Err(error)) => {
                let _ = self.started.try_send(Err(error));
            }
            ToDriver::Status(reply) => {
                let _ = reply.try_send(MachineStatus::of(&self.machine, now));
            }
        }
    }

    fn carry_out(&mut self) {
        // The board first: who is told of a state change finds it there.
        self.show();
        // Notices first: whoever asked for what is done has its events, too, when the answer comes. Then
        // the log, which is the host's code, and what wakes other threads: both take a while. The job
        // last: it takes a core, which those who are told of it would have to wait for.
        let (mut notices, mut replies) = (Vec::new(), Vec::new());
        let (mut orders, mut to_start) = (Vec::new(), None);
        while let Some(action) = self.machine.poll_action() {
            match action {
                // At most one job is under way.
                Action::Start { op, job } => to_start = Some(ToPublisher { op, job }),
                Action::List { op } => orders.push(ToMonitor::List { op }),
                Action::Watch { alive, missing } => {
                    orders.push(ToMonitor::Watch { alive, missing })
                }
                Action::Forget(worker) => orders.push(ToMonitor::Forget(worker)),
                Action::Notify(notice) => {
                    self.count(&notice);
                    notices.push(Arc::new(notice));
                }
                Action::Reply { ticket, result } => replies.push((ticket, result)),
            }
        }
        self.shared.hub.publish_all(&notices);
        for (ticket, result) in replies {
            self.shared.answer(ticket, result);
        }
        for notice in notices {
            self.journal.note(self.clock.now(), &notice);
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

    /// Counts what subscribers are about to be told: they find it in the status.
    fn count(&mut self, notice: &Notice) {
        self.measure(notice);
        let counters = &self.shared.counters;
        match notice {
            Notice::Published { quality, .. } => {
                counters.publications.fetch_add(1, Ordering::Relaxed);
                counters
                    .moved
                    .fetch_add(quality.moved_partitions as u64, Ordering::Relaxed);
                *self.shared.quality.lock() = Some(*quality);
                *self.shared.last_failure.lock() = None;
            }
            Notice::WouldPublish { quality, .. } => {
                counters.would_publish.fetch_add(1, Ordering::Relaxed);
                *self.shared.quality.lock() = Some(*quality);
                *self.shared.last_failure.lock() = None;
            }
            Notice::LeaderPublished(comparison) => {
                counters.followed.fetch_add(1, Ordering::Relaxed);
                if !comparison.agrees() {
                    counters.disagreements.fetch_add(1, Ordering::Relaxed);
                }
                *self.shared.comparison.lock() = Some((**comparison).clone());
            }
            Notice::Failed { error, .. } => {
                counters.failures.fetch_add(1, Ordering::Relaxed);
                *self.shared.last_failure.lock() = Some(error.clone());
            }
            _ => {}
        }
    }

    fn measure(&mut self, notice: &Notice) {
        let metrics = &self.shared.telling.calculator;
        match notice {
            Notice::StateChanged(change) => {
                let spent = change.time.since(self.state_since);
                self.state_since = change.time;
                metrics.state_changed(change.from, change.to, spent);
            }
            Notice::Member(change) => self.fleet.note(change_of(change)),
            Notice::Published { .. } => self.fleet.touch(),
            Notice::Degraded(why) => {
                // A handful at most, and none on a calculator that is well.
                let causes: Vec<_> = why.iter().map(cause_of).collect();
                metrics.degraded(&causes);
            }
            Notice::LeadershipLost => metrics.leadership_lost(),
            // The breaker measures itself, a shadow publishes nothing that could be measured, and
            // `dv-watch` measures who lags.
            Notice::Breaker(_)
            | Notice::WouldPublish { .. }
            | Notice::LeaderPublished(_)
            | Notice::WorkerLagging(_)
            | Notice::Failed { .. }
            | Notice::Lagged { .. }
            | Notice::Fatal { .. } => {}
        }
    }

    /// How many partitions of the plan in force have an owner that is gone.
    fn unassigned(&self) -> usize {
        if !self.machine.has_gone() {
            return 0;
        }
        let loads = self.shared.loads.lock();
        let held = |worker| loads.get(worker).copied().unwrap_or(0);
        self.machine.gone().map(held).sum()
    }

    /// Once for all that changed together.
    fn measure_fleet(&mut self, is_more_coming: bool) {
        let metrics = &*self.shared.telling.calculator;
        if self.fleet.tell(is_more_coming, metrics) {
            let (alive, missing) = self.machine.worker_counts();
            metrics.workers(alive, missing);
            let unassigned = self.unassigned();
            if unassigned != self.unassigned_told {
                self.unassigned_told = unassigned;
                self.shared.telling.calculator.unassigned(unassigned);
            }
        }
    }

    fn show(&self) {
        self.shared.board.store(Board {
            position: self.machine.position(),
            version: self.machine.version(),
        });
    }

    fn hand_in(&mut self, now: Time, event: Event) {
        if let Event::Poison { count } = &event {
            self.shared.telling.calculator.poisoned(*count);
            self.shared
                .counters
                .poison
                .fetch_add(u64::from(*count), Ordering::Relaxed);
        }
        self.machine.handle(now, event);
    }
}

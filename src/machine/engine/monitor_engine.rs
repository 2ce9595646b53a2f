//! Watching the workers of a fleet: which watches are open, when the heartbeats are listed, when a
//! stalled process suspends failure detection.

use std::collections::VecDeque;
use std::time::Duration;

use super::calculator_effects::MonitorOrder;
use super::reopening::Reopening;
use crate::config::CalculatorConfig;
use crate::error::{Error, Result};
use crate::machine::calculator::{CalculatorInput, OpId};
use crate::machine::liveness::MembershipEvent;
use crate::machine::observer::Observer;
use crate::store::{Health, Listing, Operation, WatchEvent};
use crate::types::Time;
use crate::wire::Applied;

/// The watches of a calculator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonitorWatch {
    /// The heartbeats of the workers.
    Heartbeats,
    /// The assignment bucket.
    Assignments,
}

impl MonitorWatch {
    /// Every watch, in the order in which they are opened.
    pub const ALL: [Self; 2] = [Self::Heartbeats, Self::Assignments];
}

/// An action of the engine, to be carried out in order.
#[derive(Clone, Debug)]
pub enum MonitorAction {
    /// Pass an input to the calculator machine.
    Report(CalculatorInput),
    /// A lease has ended, because the store said so or because the heartbeats stopped.
    LeaseEnded {
        /// Whether the store marked the key as expired.
        by_marker: bool,
    },
    /// A watch shows nothing from now on.
    WatchLost {
        /// The watch.
        watch: MonitorWatch,
        /// The cause.
        why: String,
    },
    /// A watch is complete (again).
    WatchResynchronised(MonitorWatch),
    /// Open these watches in order, up to the first failure, then call [`MonitorEngine::opened`].
    Open(Vec<MonitorWatch>),
    /// A watch could not be opened; the next attempt follows after a pause.
    OpenFailed(Error),
    /// List the heartbeats, then call [`MonitorEngine::listed`].
    List {
        /// The id under which the calculator asked for the listing; `None` without
        /// a request.
        op: Option<OpId>,
        /// The longest time that the listing may take.
        timeout: Duration,
    },
}

/// A task of the engine that is due at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MonitorTask {
    /// Open the watches that are not open.
    Open,
    /// List the heartbeats, because the watch does not show all of them.
    Reconcile,
    /// Let leases end and joins be reported.
    Observe,
}

/// Decides what `dv-watch` does. After each call drain [`MonitorEngine::poll_action`];
/// [`MonitorEngine::deadline`] is when the next [`MonitorEngine::tick`] is due.
#[derive(Debug)]
pub struct MonitorEngine {
    observer: Observer,
    heartbeat_ttl: Duration,
    list_timeout: Duration,
    is_watching: bool,
    is_open: [bool; MonitorWatch::ALL.len()],
    is_opening: bool,
    /// Whether the calculator knows that the heartbeats are not watched.
    is_loss_reported: bool,
    reopening: Reopening,
    reconcile_at: Option<Time>,
    /// When the next tick was due, as of the last one.
    expected: Option<Time>,
    actions: VecDeque<MonitorAction>,
}

impl MonitorEngine {
    /// An engine that waits for [`MonitorOrder::Watch`]. `seed` determines the jitter of retries.
    ///
    /// # Errors
    /// `InvalidArgument` for a prefix that no key may have.
    pub fn new(config: &CalculatorConfig, seed: u64) -> Result<Self> {
        Ok(Self {
            observer: Observer::new(config)?,
            heartbeat_ttl: config.heartbeat_ttl,
            // Short enough that the leases do not wait for it for long.
            list_timeout: config.operation_timeout.min(config.heartbeat_ttl / 2),
            is_watching: false,
            is_open: [false; MonitorWatch::ALL.len()],
            is_opening: false,
            is_loss_reported: false,
            reopening: Reopening::new(config, seed),
            reconcile_at: None,
            expected: None,
            actions: VecDeque::new(),
        })
    }

    /// The leases and the convergence of the workers.
    #[must_use]
    pub fn observer(&self) -> &Observer {
        &self.observer
    }

    /// The same, to take the measurements.
    pub fn observer_mut(&mut self) -> &mut Observer {
        &mut self.observer
    }

    /// Whether the take-over is done and the watches are wanted.
    #[must_use]
    pub fn is_watching(&self) -> bool {
        self.is_watching
    }

    /// Handles an order of the calculator.
    pub fn order(&mut self, now: Time, order: MonitorOrder) {
        match order {
            MonitorOrder::Watch { alive, suspected } => {
                if !std::mem::replace(&mut self.is_watching, true) {
                    self.observer.leases_mut().seed(now, alive, suspected);
                    self.open_missing(now);
                }
            }
            MonitorOrder::List { op } => self.list(Some(op)),
            MonitorOrder::Forget(worker) => self.observer.leases_mut().forget(worker.as_str()),
        }
    }

    /// Handles an event of a watch. `in_force` is what the publisher has reached.
    pub fn watch_event(
        &mut self,
        now: Time,
        watch: MonitorWatch,
        event: &WatchEvent,
        in_force: Applied,
    ) {
        match event {
            WatchEvent::Change(_) => {}
            WatchEvent::Live => self
                .actions
                .push_back(MonitorAction::WatchResynchronised(watch)),
            WatchEvent::Disconnected(why) => self.actions.push_back(MonitorAction::WatchLost {
                watch,
                why: why.clone(),
            }),
        }
        match watch {
            MonitorWatch::Heartbeats => self.observer.heartbeat(now, event, in_force),
            MonitorWatch::Assignments => self.observer.assignment(now, event, in_force),
        }
        let has_absent = self.observer.leases().has_absent();
        if has_absent && (watch, event) == (MonitorWatch::Heartbeats, &WatchEvent::Live) {
            self.reconcile_at = Some(now);
        }
        if matches!(event, WatchEvent::Change(entry) if entry.operation == Operation::Expired) {
            // At once, so that what ends here is known to have ended by the store's marker.
            self.collect(true);
        }
    }

    /// Handles the end of a watch; it is opened again.
    pub fn watch_ended(&mut self, now: Time, watch: MonitorWatch, in_force: Applied) {
        self.is_open[watch as usize] = false;
        match watch {
            MonitorWatch::Heartbeats => self.report_loss(now, "the watch ended".into(), in_force),
            MonitorWatch::Assignments => {
                let lost = WatchEvent::Disconnected("the watch ended".into());
                self.observer.assignment(now, &lost, in_force);
            }
        }
    }

    /// Handles the result of [`MonitorAction::Open`]: the watches that were opened, and why the
    /// next one was not.
    pub fn opened(
        &mut self,
        now: Time,
        opened: &[MonitorWatch],
        failure: Option<Error>,
        in_force: Applied,
    ) {
        self.is_opening = false;
        for &watch in opened {
            self.is_open[watch as usize] = true;
            if watch == MonitorWatch::Heartbeats {
                self.is_loss_reported = false;
                self.observer.leases_mut().watch_opened();
            }
        }
        match failure {
            None => self.reopening.opened(now),
            Some(error) => {
                let error = error.with_attempts(self.reopening.failed(now));
                let why = error.to_string();
                self.actions.push_back(MonitorAction::OpenFailed(error));
                let is_open = self.is_open[MonitorWatch::Heartbeats as usize];
                if !is_open && !self.is_loss_reported {
                    self.report_loss(now, why, in_force);
                }
            }
        }
        self.expected = self.deadline();
    }

    /// Handles a change of the store's health.
    pub fn store_health(&mut self, health: Health) {
        let changed = CalculatorInput::StoreHealth(health.fault());
        self.actions.push_back(MonitorAction::Report(changed));
    }

    /// Handles the result of [`MonitorAction::List`].
    pub fn listed(
        &mut self,
        now: Time,
        op: Option<OpId>,
        result: Result<Listing>,
        in_force: Applied,
    ) {
        let result = result.map(|listing| self.observer.listed(now, &listing, in_force));
        // The events of the listing precede its completion.
        self.collect(false);
        match op {
            Some(op) => {
                let listed = CalculatorInput::Listed { op, result };
                self.actions.push_back(MonitorAction::Report(listed));
            }
            None => {
                // From now on, because the listing may have taken long.
                self.reconcile_at = Some(now + self.heartbeat_ttl / 2);
                self.expected = self.deadline();
            }
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Time, in_force: Applied) {
        if !self.is_watching {
            return;
        }
        self.note_stall(now, in_force);
        let leases = self.observer.leases();
        if leases.is_live() && !leases.has_absent() {
            self.reconcile_at = None;
        } else {
            let pause = self.heartbeat_ttl / 2;
            self.reconcile_at.get_or_insert(now + pause);
        }
        let due: Vec<MonitorTask> = self
            .pending()
            .filter(|(_, due)| *due <= now)
            .map(|(task, _)| task)
            .collect();
        for task in due {
            match task {
                MonitorTask::Open => self.open_missing(now),
                MonitorTask::Reconcile => {
                    self.reconcile_at = Some(now + self.heartbeat_ttl / 2);
                    self.list(None);
                }
                MonitorTask::Observe => self.observer.tick(now),
            }
        }
        self.collect(false);
        self.expected = self.deadline();
    }

    /// When the next tick is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.pending().map(|(_, due)| due).min()
    }

    /// The next action, oldest first.
    pub fn poll_action(&mut self) -> Option<MonitorAction> {
        self.actions.pop_front()
    }

    /// Every task that will be due, and when.
    fn pending(&self) -> impl Iterator<Item = (MonitorTask, Time)> {
        let is_missing = self.is_watching && !self.is_opening && self.is_open.contains(&false);
        let tasks = [
            is_missing.then(|| (MonitorTask::Open, self.reopening.due())),
            self.reconcile_at.map(|due| (MonitorTask::Reconcile, due)),
            self.observer
                .deadline()
                .map(|due| (MonitorTask::Observe, due)),
        ];
        tasks.into_iter().flatten()
    }

    /// Suspends failure detection after a stall (a frozen process, a starved machine, a slow
    /// listing): heartbeats that were sent in time may still be on their way, so every lease
    /// starts again.
    fn note_stall(&mut self, now: Time, in_force: Applied) {
        let late = self.expected.map_or(Duration::ZERO, |due| now.since(due));
        if late <= self.heartbeat_ttl / 2 || !self.observer.leases().is_live() {
            return;
        }
        let why = format!("process stalled for {late:?}");
        for event in [WatchEvent::Disconnected(why), WatchEvent::Live] {
            self.watch_event(now, MonitorWatch::Heartbeats, &event, in_force);
        }
    }

    fn report_loss(&mut self, now: Time, why: String, in_force: Applied) {
        self.is_loss_reported = true;
        let lost = WatchEvent::Disconnected(why);
        self.watch_event(now, MonitorWatch::Heartbeats, &lost, in_force);
    }

    fn open_missing(&mut self, now: Time) {
        let is_missing = |watch: &MonitorWatch| !self.is_open[*watch as usize];
        let missing: Vec<MonitorWatch> = MonitorWatch::ALL.into_iter().filter(is_missing).collect();
        if missing.is_empty() || self.is_opening || now < self.reopening.due() {
            return;
        }
        self.is_opening = true;
        self.actions.push_back(MonitorAction::Open(missing));
    }

    fn list(&mut self, op: Option<OpId>) {
        self.actions.push_back(MonitorAction::List {
            op,
            timeout: self.list_timeout,
        });
    }

    /// Turns the observer's events into actions.
    fn collect(&mut self, by_marker: bool) {
        while let Some(input) = self.observer.poll_event() {
            if let CalculatorInput::Membership(MembershipEvent::Suspected(_)) = &input {
                self.actions
                    .push_back(MonitorAction::LeaseEnded { by_marker });
            }
            self.actions.push_back(MonitorAction::Report(input));
        }
    }
}

#[cfg(test)]
mod tests;

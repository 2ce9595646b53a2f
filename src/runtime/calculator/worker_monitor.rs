//! `dv-watch`: runs the watches and the leases, and asks for listings where it must.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, select_biased};

use super::calculator_shared::CalculatorShared;
use super::calculator_status::WorkerStatus;
use super::thread_messages::ToDriver;
use super::thread_messages::ToMonitor;
use crate::config::CalculatorConfig;
use crate::error::{Error, Result};
use crate::machine::calculator::CalculatorInput;
use crate::machine::liveness::MembershipEvent;
use crate::machine::observer::Observer;
use crate::metrics::{CalculatorMetrics, ExpiryCause, Success, Watched};
use crate::runtime::common::event_log::EventLog;
use crate::runtime::common::reopening::Reopening;
use crate::runtime::guarded_store::GuardedStore;
use crate::store::{Bucket, Health, Operation, Store, Watch, WatchEvent};
use crate::time::clock::Clock;
use crate::time::deadline::timer;
use crate::types::{Time, WorkerId};

/// The thread's own state.
pub(crate) struct WorkerMonitor {
    pub store: Arc<GuardedStore>,
    pub clock: Arc<dyn Clock>,
    pub config: CalculatorConfig,
    pub observer: Observer,
    pub shared: Arc<CalculatorShared>,
    pub event_log: EventLog,
    pub to_driver: Sender<ToDriver>,
}

/// The watches, as far as they are open.
struct MonitorWatches {
    heartbeats: Option<Watch>,
    assignments: Option<Watch>,
    reopening: Reopening,
    /// Whether the loss of the heartbeat watch has been reported.
    is_blind_told: bool,
}

impl WorkerMonitor {
    /// The thread's body; ends when `stop` is disconnected.
    pub fn run(mut self, orders: &Receiver<ToMonitor>, stop: &Receiver<Infallible>) {
        if !self.wait_for_take_over(orders, stop) {
            return;
        }
        let mut watches = MonitorWatches {
            heartbeats: None,
            assignments: None,
            reopening: Reopening::new(&self.config),
            is_blind_told: false,
        };
        let mut health = Some(self.store.health_events());
        let mut reconcile_at = None;
        let (nothing, silence) = (never(), never());
        loop {
            self.open_missing(&mut watches);
            let due = self.next_due(&watches, reconcile_at);
            let timer = timer(&*self.clock, due);
            let heartbeats = watches.heartbeats.as_ref().map_or(&nothing, |w| &w.events);
            let assignments = watches.assignments.as_ref().map_or(&nothing, |w| &w.events);
            let told = health.as_ref().map_or(&silence, |h| &**h);
            // The rare ones first: a flood of beats must not hide them.
            select_biased! {
                recv(stop) -> _ => return,
                recv(orders) -> order => match order {
                    Ok(order) => self.obey(order),
                    Err(_) => return,
                },
                recv(told) -> told => match told {
                    Ok(told) => self.tell_health(told),
                    Err(_) => health = None,
                },
                recv(assignments) -> event => match event {
                    Ok(event) => self.assignment(&event),
                    Err(_) => watches.assignments = None,
                },
                recv(heartbeats) -> event => match event {
                    Ok(event) => self.heartbeats(&event, heartbeats),
                    Err(_) => {
                        watches.heartbeats = None;
                        watches.is_blind_told = true;
                        self.heartbeat(&WatchEvent::Disconnected("the watch ended".into()));
                    }
                },
                recv(timer) -> _ => {}
            }
            let now = self.clock.now();
            self.note_stall(now, due);
            reconcile_at = self.reconcile(now, reconcile_at);
            self.observer.tick(self.clock.now());
            self.measure_convergence();
            if !self.pass_on() {
                return;
            }
        }
    }

    /// Until the take-over is done there is nothing to watch from. `false`: it never will be.
    fn wait_for_take_over(
        &mut self,
        orders: &Receiver<ToMonitor>,
        stop: &Receiver<Infallible>,
    ) -> bool {
        loop {
            let order = select_biased! {
                recv(stop) -> _ => return false,
                recv(orders) -> order => order,
            };
            match order {
                Ok(ToMonitor::Watch { alive, suspected }) => {
                    let now = self.clock.now();
                    self.observer.leases_mut().seed(now, alive, suspected);
                    return true;
                }
                Ok(other) => self.obey(other),
                Err(_) => return false,
            }
        }
    }

    /// A watch that could not be opened, or ended, is tried again for as long as it takes.
    fn open_missing(&mut self, watches: &mut MonitorWatches) {
        let is_whole = watches.heartbeats.is_some() && watches.assignments.is_some();
        let now = self.clock.now();
        if is_whole || now < watches.reopening.due() {
            return;
        }
        let Err(error) = self.open(watches) else {
            return watches.reopening.opened(now);
        };
        let error = error.with_attempts(watches.reopening.failed(now));
        self.event_log.failed(now, "watch", &error);
        if watches.heartbeats.is_none() && !watches.is_blind_told {
            self.heartbeat(&WatchEvent::Disconnected(error.to_string()));
            watches.is_blind_told = true;
        }
    }

    fn open(&self, watches: &mut MonitorWatches) -> Result<()> {
        if watches.heartbeats.is_none() {
            let prefix = self.config.heartbeat_prefix.as_str();
            watches.heartbeats = Some(self.store.watch(Bucket::Heartbeat, prefix)?);
            watches.is_blind_told = false;
        }
        if watches.assignments.is_none() {
            watches.assignments = Some(self.store.watch(Bucket::Assignment, "")?);
        }
        Ok(())
    }

    fn assignment(&mut self, event: &WatchEvent) {
        self.measure_watch(Watched::Assignments, event);
        let in_force = self.shared.in_force.get();
        self.observer.assignment(self.clock.now(), event, in_force);
    }

    /// Handles a heartbeat and all queued ones: a lease must not expire while its renewal is
    /// already queued.
    fn heartbeats(&mut self, first: &WatchEvent, more: &Receiver<WatchEvent>) {
        // Heartbeats arrive in bursts, and waking up costs more than handling one. Yielding after
        // the first lets the sender queue the rest.
        std::thread::yield_now();
        self.heartbeat(first);
        for event in more.try_iter().take(more.len()) {
            self.heartbeat(&event);
        }
    }

    /// When this thread stood still (a frozen process, a starved machine, a slow listing), beats
    /// may be on their way that were sent in time: the leases start afresh.
    fn note_stall(&mut self, now: Time, due: Option<Time>) {
        let late = due.map_or(Duration::ZERO, |due| now.since(due));
        if late > self.config.heartbeat_ttl / 2 && self.observer.leases().is_live() {
            self.heartbeat(&WatchEvent::Disconnected(format!(
                "process stalled for {late:?}"
            )));
            self.heartbeat(&WatchEvent::Live);
        }
    }

    fn heartbeat(&mut self, event: &WatchEvent) {
        if let WatchEvent::Disconnected(why) = event {
            self.shared
                .counters
                .blindness
                .fetch_add(1, Ordering::Relaxed);
            self.event_log.out_of_sight(self.clock.now(), why);
        }
        self.measure_watch(Watched::Heartbeats, event);
        let now = self.clock.now();
        if matches!(event, WatchEvent::Change(_)) {
            self.shared.last_heard.set(now);
        }
        let in_force = self.shared.in_force.get();
        self.observer.heartbeat(now, event, in_force);
        if matches!(event, WatchEvent::Change(entry) if entry.operation == Operation::Expired) {
            // At once: what ends now was ended by the store's word.
            self.pass_on_because(ExpiryCause::Marker);
        }
    }

    fn measure_watch(&self, watched: Watched, event: &WatchEvent) {
        match event {
            WatchEvent::Change(_) => {}
            WatchEvent::Live => self.metrics().watch_resynced(watched),
            WatchEvent::Disconnected(_) => self.metrics().watch_lost(watched),
        }
    }

    fn metrics(&self) -> &dyn CalculatorMetrics {
        &*self.shared.metrics_sink.calculator
    }

    fn obey(&mut self, order: ToMonitor) {
        match order {
            ToMonitor::Watch { .. } => {} // watching already
            ToMonitor::List { op } => {
                let result = self.list();
                // What the listing shows goes ahead of its completion.
                self.pass_on();
                self.tell(CalculatorInput::Listed { op, result });
            }
            ToMonitor::Forget(worker) => self.observer.leases_mut().forget(worker.as_str()),
            ToMonitor::Workers(reply) => {
                let _ = reply.try_send(self.workers());
            }
        }
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        let leases = self.observer.leases().remaining(self.clock.now());
        let status = |(worker, left): (&WorkerId, Duration)| {
            let (applied_version, lag) = self.observer.convergence().of(worker.as_str());
            WorkerStatus {
                worker: worker.clone(),
                is_planned: false,
                lease_left: (!left.is_zero()).then_some(left),
                applied_version,
                lag,
            }
        };
        leases.map(status).collect()
    }

    fn measure_convergence(&mut self) {
        let convergence = self.observer.convergence_mut();
        let (took, lag) = (convergence.take_converged(), convergence.take_lag());
        if let Some(took) = took {
            self.metrics().converged(took);
        }
        if let Some(lag) = lag {
            self.metrics().fleet_lag(lag.lagging, lag.highest);
        }
    }

    /// While the watch is not probe_result healthy, a listing every half TTL shows who is there.
    fn reconcile(&mut self, now: Time, due: Option<Time>) -> Option<Time> {
        if self.observer.leases().is_live() {
            return None;
        }
        let pause = self.config.heartbeat_ttl / 2;
        match due {
            Some(due) if due > now => Some(due),
            Some(_) => {
                if let Err(error) = self.list() {
                    log::debug!(target: "divvy::watch", "reconciling listing failed: {error}");
                }
                // From now on: the listing may have taken all of that time.
                Some(self.clock.now() + pause)
            }
            None => Some(now + pause),
        }
    }

    fn list(&mut self) -> Result<(), Error> {
        self.shared
            .counters
            .listings
            .fetch_add(1, Ordering::Relaxed);
        // Short enough that the leases are not kept waiting for long.
        let patience = self
            .config
            .operation_timeout
            .min(self.config.heartbeat_ttl / 2);
        let prefix = self.config.heartbeat_prefix.as_str();
        let deadline = Instant::now() + patience;
        let listing = self.store.list(Bucket::Heartbeat, prefix, deadline);
        self.metrics().heartbeats_listed(match &listing {
            Ok(_) => Success::Yes,
            Err(_) => Success::No,
        });
        let listing = listing?;
        self.shared.last_heard.set(self.clock.now());
        let in_force = self.shared.in_force.get();
        self.observer.listed(self.clock.now(), &listing, in_force);
        Ok(())
    }

    fn next_due(&self, watches: &MonitorWatches, reconcile_at: Option<Time>) -> Option<Time> {
        let is_whole = watches.heartbeats.is_some() && watches.assignments.is_some();
        let retry_at = (!is_whole).then_some(watches.reopening.due());
        let dues = [self.observer.deadline(), reconcile_at, retry_at];
        dues.into_iter().flatten().min()
    }

    fn tell_health(&self, health: Health) {
        // First, so that the probe is due when the machine hears of it.
        self.store.observe_health(&health);
        self.tell(CalculatorInput::StoreHealth(health.fault()));
    }

    /// Whether `dv-calc` is still there to take events.
    fn pass_on(&mut self) -> bool {
        self.pass_on_because(ExpiryCause::Silence)
    }

    /// As `pass_on`; leases that ended were ended by this.
    fn pass_on_because(&mut self, cause: ExpiryCause) -> bool {
        while let Some(event) = self.observer.poll_event() {
            if let CalculatorInput::Membership(MembershipEvent::Suspected(_)) = &event {
                self.metrics().lease_ended(cause);
            }
            if self
                .to_driver
                .send(ToDriver::CalculatorInput(event))
                .is_err()
            {
                return false;
            }
        }
        true
    }

    fn tell(&self, event: CalculatorInput) {
        // Fails only when `dv-calc` has ended; then so does this thread.
        let _ = self.to_driver.send(ToDriver::CalculatorInput(event));
    }
}

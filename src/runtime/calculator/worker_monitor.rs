//! `dv-watch`: carries out what the monitor engine decides: keeps the watches open, lists the
//! heartbeats, passes on what changed.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, select_biased};

use super::calculator_shared::CalculatorShared;
use super::calculator_status::WorkerStatus;
use super::thread_messages::{ToDriver, ToMonitor};
use crate::config::CalculatorConfig;
use crate::error::{Error, Result};
use crate::machine::calculator::CalculatorInput;
use crate::machine::engine::monitor_engine::{MonitorAction, MonitorEngine, MonitorWatch};
use crate::metrics::{CalculatorMetrics, ExpiryCause, Success, Watched};
use crate::runtime::common::event_log::EventLog;
use crate::runtime::guarded_store::GuardedStore;
use crate::runtime::publish::config_source::ConfigSource;
use crate::store::{Bucket, Health, Listing, Store, Watch, WatchEvent};
use crate::time::clock::Clock;
use crate::time::deadline::timer;
use crate::types::WorkerId;
use crate::wire::Applied;

/// The thread's own state.
pub(crate) struct WorkerMonitor {
    pub store: Arc<GuardedStore>,
    pub clock: Arc<dyn Clock>,
    pub config: CalculatorConfig,
    pub engine: MonitorEngine,
    pub shared: Arc<CalculatorShared>,
    pub event_log: EventLog,
    pub to_driver: Sender<ToDriver>,
    pub config_source: ConfigSource,
}

/// The watches, as far as they are open.
#[derive(Default)]
struct OpenWatches {
    heartbeats: Option<Watch>,
    assignments: Option<Watch>,
}

impl OpenWatches {
    fn slot(&mut self, watch: MonitorWatch) -> &mut Option<Watch> {
        match watch {
            MonitorWatch::Heartbeats => &mut self.heartbeats,
            MonitorWatch::Assignments => &mut self.assignments,
        }
    }
}

impl WorkerMonitor {
    /// The thread's body; ends when `stop` is disconnected.
    pub fn run(mut self, orders: &Receiver<ToMonitor>, stop: &Receiver<Infallible>) {
        let mut watches = OpenWatches::default();
        // Before the take-over is done there is nothing to watch from.
        while !self.engine.is_watching() {
            let order = select_biased! {
                recv(stop) -> _ => return,
                recv(orders) -> order => order,
            };
            let Ok(order) = order else { return };
            self.handle(order);
            if !self.perform_actions(&mut watches) {
                return;
            }
        }
        let mut health = Some(self.store.health_events());
        let (nothing, silence) = (never(), never());
        loop {
            let timer = timer(&*self.clock, self.engine.deadline());
            let heartbeats = watches.heartbeats.as_ref().map_or(&nothing, |w| &w.events);
            let assignments = watches.assignments.as_ref().map_or(&nothing, |w| &w.events);
            let reported = health.as_ref().map_or(&silence, |h| &**h);
            // Rare events first: a flood of heartbeats must not delay them.
            select_biased! {
                recv(stop) -> _ => return,
                recv(orders) -> order => match order {
                    Ok(order) => self.handle(order),
                    Err(_) => return,
                },
                recv(reported) -> reported => match reported {
                    Ok(reported) => self.store_health(reported),
                    Err(_) => health = None,
                },
                recv(assignments) -> event => match event {
                    Ok(event) => self.watch_event(MonitorWatch::Assignments, &event),
                    Err(_) => self.watch_ended(MonitorWatch::Assignments, &mut watches),
                },
                recv(heartbeats) -> event => match event {
                    Ok(event) => self.heartbeats(&event, heartbeats),
                    Err(_) => self.watch_ended(MonitorWatch::Heartbeats, &mut watches),
                },
                recv(timer) -> _ => {}
            }
            self.compare_configs();
            self.engine.tick(self.clock.now(), self.in_force());
            self.measure_convergence();
            if !self.perform_actions(&mut watches) {
                return;
            }
        }
    }

    fn in_force(&self) -> Applied {
        self.shared.in_force.get()
    }

    fn handle(&mut self, order: ToMonitor) {
        match order {
            ToMonitor::Order(order) => self.engine.order(self.clock.now(), order),
            ToMonitor::Workers(reply) => {
                let _ = reply.try_send(self.workers());
            }
        }
    }

    /// Handles a heartbeat and all that wait behind it: no lease may end while the heartbeat that
    /// renews it has already arrived.
    fn heartbeats(&mut self, first: &WatchEvent, more: &Receiver<WatchEvent>) {
        // Heartbeats come in bursts, and waking up costs more than handling one: a thread that is
        // woken by the first of a burst lets the sender continue with the rest.
        std::thread::yield_now();
        self.watch_event(MonitorWatch::Heartbeats, first);
        for event in more.try_iter().take(more.len()) {
            self.watch_event(MonitorWatch::Heartbeats, &event);
        }
    }

    fn watch_event(&mut self, watch: MonitorWatch, event: &WatchEvent) {
        let now = self.clock.now();
        if watch == MonitorWatch::Heartbeats && matches!(event, WatchEvent::Change(_)) {
            self.shared.last_heard.set(now);
        }
        self.engine.watch_event(now, watch, event, self.in_force());
    }

    fn watch_ended(&mut self, watch: MonitorWatch, watches: &mut OpenWatches) {
        *watches.slot(watch) = None;
        if watch == MonitorWatch::Assignments {
            self.shared.in_force.watch_lost();
        }
        self.engine
            .watch_ended(self.clock.now(), watch, self.in_force());
    }

    fn store_health(&mut self, health: Health) {
        // First, so that the probe is due when the machine handles the recovery.
        self.store.observe_health(&health);
        self.engine.store_health(health);
    }

    /// Carries out the engine's actions; whether `dv-calc` still takes events.
    fn perform_actions(&mut self, watches: &mut OpenWatches) -> bool {
        while let Some(action) = self.engine.poll_action() {
            match action {
                MonitorAction::Report(input) => {
                    if !self.report(input) {
                        return false;
                    }
                }
                MonitorAction::LeaseEnded { by_marker } => {
                    self.metrics().lease_ended(match by_marker {
                        true => ExpiryCause::Marker,
                        false => ExpiryCause::Silence,
                    });
                }
                MonitorAction::WatchLost { watch, why } => self.watch_lost(watch, &why),
                MonitorAction::WatchResynchronised(watch) => {
                    if watch == MonitorWatch::Assignments {
                        self.shared.in_force.watch_resynchronised();
                    }
                    self.metrics().watch_resynced(watched_label(watch));
                }
                MonitorAction::Open(missing) => self.open(&missing, watches),
                MonitorAction::OpenFailed(error) => {
                    self.event_log.failed(self.clock.now(), "watch", &error);
                }
                MonitorAction::List { op, timeout } => {
                    let result = self.list(timeout);
                    if let (Err(error), None) = (&result, op) {
                        log::debug!(target: "divvy::watch", "reconciling listing failed: {error}");
                    }
                    let now = self.clock.now();
                    self.engine.listed(now, op, result, self.in_force());
                }
            }
        }
        true
    }

    fn report(&self, input: CalculatorInput) -> bool {
        let message = ToDriver::CalculatorInput(input);
        self.to_driver.send(message).is_ok()
    }

    fn watch_lost(&mut self, watch: MonitorWatch, why: &str) {
        match watch {
            MonitorWatch::Heartbeats => {
                self.shared
                    .counters
                    .watch_losses
                    .fetch_add(1, Ordering::Relaxed);
                self.event_log.watch_lost(self.clock.now(), why);
            }
            MonitorWatch::Assignments => self.shared.in_force.watch_lost(),
        }
        self.metrics().watch_lost(watched_label(watch));
    }

    fn open(&mut self, missing: &[MonitorWatch], watches: &mut OpenWatches) {
        let mut opened = Vec::new();
        let mut failure: Option<Error> = None;
        for &watch in missing {
            let result = match watch {
                MonitorWatch::Heartbeats => self
                    .store
                    .watch(Bucket::Heartbeat, self.config.heartbeat_prefix.as_str()),
                MonitorWatch::Assignments => self.store.watch(Bucket::Assignment, ""),
            };
            match result {
                Ok(events) => {
                    *watches.slot(watch) = Some(events);
                    opened.push(watch);
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let now = self.clock.now();
        self.engine.opened(now, &opened, failure, self.in_force());
    }

    fn list(&self, timeout: Duration) -> Result<Listing> {
        self.shared
            .counters
            .listings
            .fetch_add(1, Ordering::Relaxed);
        let prefix = self.config.heartbeat_prefix.as_str();
        let deadline = Instant::now() + timeout;
        let listing = self.store.list(Bucket::Heartbeat, prefix, deadline);
        self.metrics().heartbeats_listed(match &listing {
            Ok(_) => Success::Yes,
            Err(_) => Success::No,
        });
        let listing = listing?;
        self.shared.last_heard.set(self.clock.now());
        Ok(listing)
    }

    fn metrics(&self) -> &dyn CalculatorMetrics {
        &*self.shared.metrics_sink.calculator
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        let observer = self.engine.observer();
        let leases = observer.leases().remaining(self.clock.now());
        let status = |(worker, left): (&WorkerId, Duration)| {
            let (applied_version, lag) = observer.convergence().of(worker.as_str());
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

    /// Compares with what this calculator has now: the list may have changed.
    fn compare_configs(&mut self) {
        let ours = self.config_source.digest();
        let configs = self.engine.observer_mut().configs_mut();
        configs.set_leader(self.clock.now(), ours);
        if let Some(counts) = configs.take_counts() {
            for (part, workers) in counts {
                self.metrics().config_mismatches(part, workers);
            }
        }
    }

    fn measure_convergence(&mut self) {
        let convergence = self.engine.observer_mut().convergence_mut();
        let (took, lag) = (convergence.take_converged(), convergence.take_lag());
        if let Some(took) = took {
            self.metrics().converged(took);
        }
        if let Some(lag) = lag {
            self.metrics().fleet_lag(lag.lagging, lag.highest);
        }
    }
}

fn watched_label(watch: MonitorWatch) -> Watched {
    match watch {
        MonitorWatch::Heartbeats => Watched::Heartbeats,
        MonitorWatch::Assignments => Watched::Assignments,
    }
}

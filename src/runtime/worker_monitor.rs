//! `dv-watch`: runs the watches and the leases, and asks for listings where it must.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, select_biased};

use super::driver::ToDriver;
use super::shared::Shared;
use crate::clock::Clock;
use crate::config::CalculatorConfig;
use crate::error::{Error, Result};
use crate::machine::calculator::{Event, OpId};
use crate::machine::observer::Observer;
use crate::store::{Bucket, Health, Store, Watch, WatchEvent};
use crate::types::{Time, WorkerId};

/// Orders for `dv-watch` (`dv-calc` and the handle -> `dv-watch`).
///
/// The channel has no bound of its own: the machine has at most one listing under way, and gives
/// up each worker at most once before it is seen again.
pub(super) enum ToMonitor {
    /// Start watching, from what the take-over found.
    Watch {
        alive: Vec<(WorkerId, Duration)>,
        missing: Vec<WorkerId>,
    },
    /// List the heartbeats once.
    List { op: OpId },
    /// Forget a worker that was given up.
    Forget(WorkerId),
    /// Tell what is left of every lease.
    Leases(Sender<Vec<(WorkerId, Duration)>>),
}

/// The thread's own state.
pub(super) struct WorkerMonitor {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub config: CalculatorConfig,
    pub observer: Observer,
    pub shared: Arc<Shared>,
    pub to_driver: Sender<ToDriver>,
}

impl WorkerMonitor {
    /// The thread's body; ends when `stop` is disconnected.
    pub fn run(mut self, orders: &Receiver<ToMonitor>, stop: &Receiver<Infallible>) {
        let Some(first) = self.wait_for_watch(orders, stop) else {
            return;
        };
        let (heartbeats, assignments) = first;
        let health = self.store.health_events();
        let mut reconcile_at = None;
        loop {
            let timer = self.timer(reconcile_at);
            select_biased! {
                recv(stop) -> _ => return,
                recv(orders) -> order => match order {
                    Ok(order) => self.obey(order),
                    Err(_) => return,
                },
                recv(heartbeats.events) -> event => match event {
                    Ok(event) => self.heartbeat(&event),
                    Err(_) => return self.store_ended(stop),
                },
                recv(assignments.events) -> event => match event {
                    Ok(event) => {
                        let term = self.shared.term_in_force.load(Ordering::Acquire);
                        self.observer.assignment(&event, term);
                    }
                    Err(_) => return self.store_ended(stop),
                },
                recv(health) -> health => match health {
                    Ok(health) => self.tell_health(health),
                    Err(_) => return self.store_ended(stop),
                },
                recv(timer) -> _ => {}
            }
            let now = self.clock.now();
            reconcile_at = self.reconcile(now, reconcile_at);
            self.observer.tick(now);
            if !self.pass_on() {
                return;
            }
        }
    }

    /// Until the take-over is done there is nothing to watch from.
    fn wait_for_watch(
        &mut self,
        orders: &Receiver<ToMonitor>,
        stop: &Receiver<Infallible>,
    ) -> Option<(Watch, Watch)> {
        loop {
            let order = select_biased! {
                recv(stop) -> _ => return None,
                recv(orders) -> order => order.ok()?,
            };
            match order {
                ToMonitor::Watch { alive, missing } => {
                    let now = self.clock.now();
                    self.observer.leases_mut().seed(now, alive, missing);
                    break;
                }
                other => self.obey(other),
            }
        }
        let heartbeats = self.open(Bucket::Heartbeat, &self.config.heartbeat_prefix)?;
        let assignments = self.open(Bucket::Assignment, "")?;
        Some((heartbeats, assignments))
    }

    fn open(&self, bucket: Bucket, prefix: &str) -> Option<Watch> {
        match self.store.watch(bucket, prefix) {
            Ok(watch) => Some(watch),
            Err(error) => {
                self.tell(Event::StoreHealth(Some(error.to_string())));
                None
            }
        }
    }

    /// The store was stopped under us: say so and wait for the handle to follow.
    fn store_ended(&self, stop: &Receiver<Infallible>) {
        self.tell(Event::StoreHealth(Some("the store was stopped".into())));
        let _ = stop.recv();
    }

    fn heartbeat(&mut self, event: &WatchEvent) {
        if let WatchEvent::Blind(why) = event {
            self.shared
                .counters
                .blindness
                .fetch_add(1, Ordering::Relaxed);
            log::warn!(target: "divvy::watch", "heartbeats are out of sight: {why}; nobody is declared missing");
        }
        self.observer.heartbeat(self.clock.now(), event);
    }

    fn obey(&mut self, order: ToMonitor) {
        match order {
            ToMonitor::Watch { .. } => {} // watching already
            ToMonitor::List { op } => {
                let result = self.list();
                // What the listing shows goes ahead of its completion.
                self.pass_on();
                self.tell(Event::Listed { op, result });
            }
            ToMonitor::Forget(worker) => self.observer.leases_mut().forget(worker.as_str()),
            ToMonitor::Leases(reply) => {
                let now = self.clock.now();
                let leases = self.observer.leases().remaining(now);
                let _ = reply.try_send(leases.map(|(w, left)| (w.clone(), left)).collect());
            }
        }
    }

    /// While the watch is not proven healthy, a listing every half TTL shows who is there.
    fn reconcile(&mut self, now: Time, due: Option<Time>) -> Option<Time> {
        if self.observer.leases().is_live() {
            return None;
        }
        let next = now + self.config.heartbeat_ttl / 2;
        match due {
            Some(due) if due > now => Some(due),
            Some(_) => {
                if let Err(error) = self.list() {
                    log::debug!(target: "divvy::watch", "reconciling listing failed: {error}");
                }
                Some(next)
            }
            None => Some(next),
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
        let listing = self.store.list(Bucket::Heartbeat, prefix, deadline)?;
        self.observer.listed(self.clock.now(), &listing);
        Ok(())
    }

    fn timer(&self, reconcile_at: Option<Time>) -> Receiver<Instant> {
        let next = self
            .observer
            .deadline()
            .into_iter()
            .chain(reconcile_at)
            .min();
        match next {
            Some(time) => crossbeam_channel::after(time.since(self.clock.now())),
            None => never(),
        }
    }

    fn tell_health(&self, health: Health) {
        let why = match health {
            Health::Connected => None,
            Health::Degraded(why) => Some(why),
            Health::Closed => Some("the store was stopped".into()),
        };
        self.tell(Event::StoreHealth(why));
    }

    /// Whether `dv-calc` is still there to take events.
    fn pass_on(&mut self) -> bool {
        while let Some(event) = self.observer.poll_event() {
            if self.to_driver.send(ToDriver::Event(event)).is_err() {
                return false;
            }
        }
        true
    }

    fn tell(&self, event: Event) {
        // Fails only when `dv-calc` has ended; then so does this thread.
        let _ = self.to_driver.send(ToDriver::Event(event));
    }
}

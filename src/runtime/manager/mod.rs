//! The handle [`Manager`].
//!
//! | thread | owns | talks to |
//! | --- | --- | --- |
//! | `dv-member` (`driver`) | the manager machine, its timers and watches | everyone, by channel |
//! | `dv-io` (`io`) | calls that wait for the store | <-> `dv-member` |
//! | `dv-notify` | subscriber callbacks | <- `dv-member` |
//!
//! While the worker leads, the threads of its calculator run too (`leading`), except `dv-notify`:
//! `dv-member` reads the calculator's events.

mod cache_file;
mod instance;
mod io;
mod leading;
mod manager_driver;
mod manager_event_filter;
mod manager_measurements;
mod manager_shared;
mod manager_status;
mod manager_watches;
mod member_messages;
mod running_manager;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::bounded;

pub(super) use self::io::perform_at;
pub use self::io::{LeaderElection, perform};
use self::leading::Leading;
pub use self::manager_event_filter::ManagerEventFilter;
use self::manager_measurements::ManagerMetricsSink;
use self::manager_shared::ManagerShared;
pub use self::manager_status::ManagerStatus;
use self::running_manager::RunningManager;
use crate::config::ManagerConfig;
use crate::error::{Code, Error, Result};
use crate::machine::assignment::Held;
use crate::machine::election::Rule;
use crate::machine::manager::{Departure, ManagerEvent, ManagerMachine};
use crate::metrics::{AssignmentMetrics, CalculatorMetrics, ManagerMetrics, WorkerMetrics};
use crate::runtime::calculator::{Calculator, STATUS_TIMEOUT};
use crate::runtime::common::metrics_sink::MetricsSink;
use crate::runtime::common::thread_group::LifecycleSlot;
use crate::runtime::guarded_store::GuardedStore;
use crate::runtime::notifier::{Events, Queued, Subscription};
use crate::runtime::publish::partition_list::{PartitionSource, Partitions};
use crate::runtime::running_host_calls::HostCalls;
use crate::store::Store;
use crate::strategy::{Sticky, Strategy};
use crate::threads::cancel::{self, WaitError};
use crate::time::clock::{Clock, SystemClock};
use crate::time::deadline::deadline_after;
use crate::types::{ManagerState, Partition, Version, WorkerId};

/// A manager whose thread is overdue for this long is not live.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Builds a [`Manager`]. See [`Manager::builder`].
#[must_use]
pub struct ManagerBuilder {
    store: Arc<dyn Store>,
    config: ManagerConfig,
    strategy: Arc<dyn Strategy>,
    source: Option<Arc<dyn PartitionSource>>,
    election: Option<Arc<dyn LeaderElection>>,
    clock: Arc<dyn Clock>,
    metrics_sink: ManagerMetricsSink,
}

impl ManagerBuilder {
    /// Sets the configuration. Default: [`ManagerConfig::default`].
    pub fn config(mut self, config: ManagerConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets the strategy that is used while this worker leads. Default: [`Sticky`].
    pub fn strategy(mut self, strategy: impl Strategy + 'static) -> Self {
        self.strategy = Arc::new(strategy);
        self
    }

    /// Sets the partition source. Without a source, push the list with [`Manager::set_partitions`]
    /// to every worker that may lead.
    pub fn source(mut self, source: impl PartitionSource + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Sets an election of the host, instead of the lease in the store.
    pub fn election(mut self, election: impl LeaderElection + 'static) -> Self {
        self.election = Some(Arc::new(election));
        self
    }

    /// Sets the receiver of manager and calculator events for metrics. The host keeps its own
    /// reference to render a page. Default: none.
    pub fn metrics<M>(mut self, metrics: Arc<M>) -> Self
    where
        M: ManagerMetrics + WorkerMetrics + CalculatorMetrics + AssignmentMetrics + 'static,
    {
        self.metrics_sink = ManagerMetricsSink {
            manager: Arc::clone(&metrics) as Arc<dyn ManagerMetrics>,
            worker: Arc::clone(&metrics) as Arc<dyn WorkerMetrics>,
            calculator: Some(MetricsSink {
                calculator: Arc::clone(&metrics) as Arc<dyn CalculatorMetrics>,
                assignment: metrics,
            }),
        };
        self
    }

    /// Where time comes from. Default: the system's clock.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The manager, not started yet.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`], listing every broken rule.
    pub fn build(mut self) -> Result<Manager> {
        self.config.validate()?;
        self.config.instance = instance::resolve(&self.config.instance)?;
        for warning in self.config.warnings() {
            log::warn!(target: "divvy::config", "unwise configuration: {warning}");
        }
        let rule = match self.election {
            Some(_) => Rule::Host,
            None => Rule::Lease,
        };
        let idle = ManagerMachine::new(self.config.clone(), rule, self.clock.now(), 0)?;
        let backlog_max = self.config.calculator.subscriber_backlog;
        let metrics_sink = self.metrics_sink.calculator.clone().unwrap_or_default();
        let host_calls = HostCalls::new(
            Arc::clone(&self.clock),
            self.config.calculator.host_call_timeout,
        );
        let store = GuardedStore::measured(
            self.store,
            &metrics_sink.calculator,
            &self.clock,
            &self.config.calculator,
        );
        Ok(Manager {
            shared: Arc::new(ManagerShared::new(
                idle.current_state(),
                backlog_max,
                metrics_sink,
                host_calls,
            )),
            partitions: Arc::new(Partitions::pushed()),
            source: self.source,
            store: Arc::new(store),
            metrics_sink: self.metrics_sink,
            config: self.config,
            strategy: self.strategy,
            election: self.election,
            clock: self.clock,
            rule,
            life: LifecycleSlot::default(),
        })
    }
}

/// A worker: joins the fleet, receives assignments, may lead, and leaves.
///
/// It claims a stable id, sends heartbeats, takes part in the election, applies what is assigned to
/// it, and runs a [`Calculator`] while it leads. All methods may be called from any thread.
/// Dropping the handle stops it with [`Departure::Leave`], waiting up to 5 s.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use divvy::store::memory::MemoryStore;
/// use divvy::{Departure, Manager, Partition};
///
/// # fn main() -> divvy::Result<()> {
/// let manager = Manager::builder(Arc::new(MemoryStore::new()))
///     .source(|| Ok(vec![Partition::new(["tool001", "chamber1"], 100)]))
///     .build()?;
/// manager.start(Duration::from_secs(30))?;
/// assert_eq!(manager.worker_id().unwrap().as_str(), "worker-0");
/// manager.stop(Departure::Leave, Duration::from_secs(10))
/// # }
/// ```
pub struct Manager {
    shared: Arc<ManagerShared>,
    partitions: Arc<Partitions>,
    source: Option<Arc<dyn PartitionSource>>,
    /// With one breaker for this worker and the calculators that it runs.
    store: Arc<GuardedStore>,
    metrics_sink: ManagerMetricsSink,
    config: ManagerConfig,
    strategy: Arc<dyn Strategy>,
    election: Option<Arc<dyn LeaderElection>>,
    clock: Arc<dyn Clock>,
    rule: Rule,
    life: LifecycleSlot<RunningManager>,
}

impl Manager {
    /// Begins a manager over a store that may be shared.
    pub fn builder(store: Arc<dyn Store>) -> ManagerBuilder {
        ManagerBuilder {
            store,
            config: ManagerConfig::default(),
            strategy: Arc::new(Sticky::default()),
            source: None,
            election: None,
            clock: Arc::new(SystemClock),
            metrics_sink: ManagerMetricsSink::default(),
        }
    }

    /// Joins the fleet: creates missing buckets, claims an id, and returns once the first heartbeat
    /// is stored. Election and assignment follow; see [`Manager::wait_state`]. Retriable failures
    /// are retried. Blocks for at most `timeout`, plus 1 s for cleanup after a failure.
    ///
    /// With a [`ManagerConfig::cache_file`] it also returns after the first failure of the store,
    /// with the cached assignment: state `Degraded`, the previous id and partitions,
    /// [`Held::is_cached`]. Joining continues in the background, and the store's answer then
    /// replaces the cached assignment.
    ///
    /// # Errors
    /// `AlreadyStarted`; `IdsExhausted` if no id became free; `Unauthorized` and `Unsupported` (the
    /// TTL of a bucket does not fit) at once; `TimedOut` with the last failure; `NotRunning` if
    /// stopped in the meantime; `Cancelled`; `Panicked`. After an error nothing is left running;
    /// subscriptions remain.
    pub fn start(&self, timeout: Duration) -> Result<()> {
        self.start_by(deadline_after(timeout))
            .map_err(|error| error.with_operation("start"))
    }

    /// Leaves the fleet and joins the threads. The calculator stops first; then heartbeat and
    /// leadership are released, and last the id. Subscribers receive their backlog and then end. If
    /// the manager is not started, only ends the subscriptions. Blocks for at most `timeout`. If
    /// the store has not confirmed after three quarters of the timeout, the remaining keys are left
    /// to expire.
    ///
    /// # Errors
    /// `WouldDeadlock` inside a callback or other host code called by this manager; `TimedOut` with
    /// the names of the busy threads: the handle stays valid, call again; `Cancelled`: the worker
    /// continues to leave in the background, call again to wait for it.
    pub fn stop(&self, departure: Departure, timeout: Duration) -> Result<()> {
        self.stop_by(departure, deadline_after(timeout))
            .map_err(|error| error.with_operation("stop"))
    }

    /// Returns whether the manager is running: from a successful [`Manager::start`] until a stop is
    /// requested or one of its threads panics.
    #[must_use]
    pub fn is_started(&self) -> bool {
        let life = self.life.current();
        life.is_some_and(|life| life.is_at_work()) && self.shared.failed.lock().is_none()
    }

    /// Returns whether the library works, for liveness probes: true from the begin of
    /// [`Manager::start`] until the end of [`Manager::stop`], unless a thread of the manager has
    /// panicked or has made no progress for 10 s. Outages of the store, a lost id and hanging host code
    /// do not matter: a restart of the process would not help. Does not block.
    #[must_use]
    pub fn is_live(&self) -> bool {
        let is_stuck = self.shared.wakes_at.load() + STUCK_AFTER <= self.clock.now();
        self.life.current().is_some() && self.shared.failed.lock().is_none() && !is_stuck
    }

    /// Returns whether this worker serves an assignment, for readiness probes: true from its first
    /// applied assignment, which may be empty or cached, until a stop is requested, its id is lost or,
    /// with [`OutagePolicy::Strict`], its ownership ends. Stays true while this worker leads and its
    /// calculator scales or rebalances, and in degraded mode with [`OutagePolicy::Serve`]. Does not
    /// block.
    ///
    /// [`OutagePolicy::Serve`]: crate::OutagePolicy::Serve
    /// [`OutagePolicy::Strict`]: crate::OutagePolicy::Strict
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.failed.lock().is_none() && self.shared.read(|snapshot| snapshot.is_ready)
    }

    /// Returns the panic message if a thread of the manager has panicked.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.shared.failed.lock().clone()
    }

    /// Returns the id of this worker; `None` if it has none. With a cached assignment: the previous
    /// id.
    #[must_use]
    pub fn worker_id(&self) -> Option<WorkerId> {
        self.shared.read(|snapshot| snapshot.worker.clone())
    }

    /// Returns whether this worker leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.shared.read(|snapshot| snapshot.is_leader)
    }

    /// Returns the last known leader.
    #[must_use]
    pub fn leader(&self) -> Option<WorkerId> {
        self.shared.read(|snapshot| snapshot.leader.clone())
    }

    /// Returns the state.
    #[must_use]
    pub fn state(&self) -> ManagerState {
        self.shared.read(|snapshot| snapshot.state)
    }

    /// Waits until the manager is in this state. A state that it left before the call, or very
    /// quickly, is not detected: subscribe to observe every state. Blocks for at most `timeout`.
    ///
    /// # Errors
    /// `TimedOut` and `Cancelled`, naming the current state; `NotRunning` when the manager was
    /// stopped, is stopping, or is stopped during the wait; `Panicked` when it has failed.
    pub fn wait_state(&self, state: ManagerState, timeout: Duration) -> Result<()> {
        let waited = self.shared.wait_state(state, deadline_after(timeout));
        waited.map_err(|why| {
            let now = self.state();
            let error = match why {
                WaitError::TimedOut => Error::new(
                    Code::TimedOut,
                    format!("not {state} in time; the state is {now}"),
                ),
                WaitError::Cancelled => cancel::error(&format!("the state is {now}")),
                WaitError::Disconnected => self.shared.ended("the manager is stopped"),
            };
            error.with_operation("wait_state")
        })
    }

    /// Returns the current assignment; version 0 before the first one. The partitions are shared,
    /// not copied.
    #[must_use]
    pub fn assignment(&self) -> Held {
        self.shared.read(|snapshot| snapshot.held.clone())
    }

    /// If this worker is the leader, re-reads the partition source and publishes any change.
    /// Returns the version in force. Blocks for at most `timeout`.
    ///
    /// # Errors
    /// `NotLeader`, which names the leader; otherwise as [`Calculator::refresh`].
    pub fn refresh_partitions(&self, timeout: Duration) -> Result<Version> {
        self.with_calculator("refresh_partitions", |c| c.refresh(timeout))
    }

    /// Confirms the partition list as it is now, although it lost more than
    /// [`CalculatorConfig::max_list_shrink`](crate::CalculatorConfig::max_list_shrink), where this
    /// worker leads.
    ///
    /// # Errors
    /// `NotLeader`, naming who leads; otherwise as [`Calculator::confirm_partitions`].
    pub fn confirm_partitions(&self, timeout: Duration) -> Result<Version> {
        self.with_calculator("confirm_partitions", |c| c.confirm_partitions(timeout))
    }

    /// If this worker is the leader, publishes a new version at once and returns it. Blocks for at
    /// most `timeout`.
    ///
    /// # Errors
    /// `NotLeader`, which names the leader; otherwise as [`Calculator::trigger_rebalance`].
    pub fn trigger_rebalance(&self, timeout: Duration) -> Result<Version> {
        self.with_calculator("trigger_rebalance", |c| c.trigger_rebalance(timeout))
    }

    /// Sets the whole partition list. Every worker that may lead needs it. The list survives stop
    /// and start.
    ///
    /// # Errors
    /// As [`Calculator::set_partitions`].
    pub fn set_partitions(&self, partitions: Vec<Partition>) -> Result<()> {
        if self.source.is_some() {
            return Err(Error::new(
                Code::InvalidArgument,
                "the manager has a partition source; call refresh_partitions where the list \
                 has changed",
            )
            .with_operation("set_partitions"));
        }
        let leading = self.shared.leading.lock().clone();
        match leading {
            Some(leading) => leading.calculator.set_partitions(partitions),
            None => self
                .partitions
                .push(partitions)
                .map(|_| ())
                .map_err(|error| error.with_operation("set_partitions")),
        }
    }

    /// Subscribes a callback. It receives the current state, id, leader and assignment first and
    /// then every event, in order, one at a time, on `dv-notify`. Otherwise as
    /// [`Calculator::subscribe`].
    pub fn subscribe(
        &self,
        filter: ManagerEventFilter,
        mut callback: impl FnMut(&ManagerEvent) + Send + 'static,
    ) -> Subscription {
        self.subscribe_queued(filter, move |queued| callback(&queued.event))
    }

    /// As `subscribe`; the callback also receives the context in which the event was queued.
    pub(crate) fn subscribe_queued(
        &self,
        filter: ManagerEventFilter,
        callback: impl FnMut(&Queued<ManagerEvent>) + Send + 'static,
    ) -> Subscription {
        self.shared.hub.subscribe(filter, Box::new(callback))
    }

    /// Returns a queue that delivers the current state first and then every event, in order. May be
    /// called before the start. Does not block.
    #[must_use]
    pub fn events(&self, filter: ManagerEventFilter) -> Events<ManagerEvent> {
        self.shared.hub.events(filter)
    }

    /// Returns a status snapshot. Waits up to 1 s for each thread; what is not answered in time is
    /// left empty.
    #[must_use]
    pub fn status(&self) -> ManagerStatus {
        let life = self.life.current();
        let machine = life.and_then(|life| {
            let (reply, answer) = bounded(1);
            life.ask_status(reply, STATUS_TIMEOUT);
            answer.recv_timeout(STATUS_TIMEOUT).ok()
        });
        let machine = machine.unwrap_or_default();
        let leading = self.shared.leading.lock().clone();
        let snapshot = self.shared.snapshot();
        ManagerStatus {
            is_started: self.is_started(),
            failed: self.shared.failed.lock().clone(),
            state: snapshot.state,
            since: machine.since,
            worker_id: snapshot.worker,
            is_id_certain: machine.is_id_certain,
            leader: snapshot.leader,
            is_leader: snapshot.is_leader,
            version: snapshot.held.version,
            term: snapshot.held.term,
            partitions: snapshot.held.partitions.len(),
            refused: machine.refused,
            malformed: machine.malformed,
            breaker: self.store.status(),
            last_failure: snapshot.last_failure.map(|error| error.to_string()),
            calculator: leading.map(|leading| leading.calculator.status()),
        }
    }

    /// Returns the number of starts.
    #[must_use]
    pub fn starts(&self) -> u64 {
        self.shared.starts.load(Ordering::Relaxed)
    }

    fn with_calculator(
        &self,
        operation: &'static str,
        call: impl FnOnce(&Calculator) -> Result<Version>,
    ) -> Result<Version> {
        let leading: Option<Arc<Leading>> = self.shared.leading.lock().clone();
        // One that has stepped down may have a calculator yet that has not ended.
        if let Some(leading) = leading.filter(|_| self.is_leader()) {
            return call(&leading.calculator);
        }
        let who = match self.leader() {
            Some(leader) => format!("{leader} leads"),
            None => "no leader is known".to_owned(),
        };
        let message = format!("this worker is not the leader: {who}; call the leader");
        Err(Error::new(Code::NotLeader, message).with_operation(operation))
    }
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager")
            .field("worker_id", &self.worker_id())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ManagerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManagerBuilder")
            .field("config", &self.config)
            .field("strategy", &self.strategy.name())
            .finish_non_exhaustive()
    }
}

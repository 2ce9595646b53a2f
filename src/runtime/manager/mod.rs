//! The handle of a manager: builds it, starts and stops its threads, passes calls on.
//!
//! | thread | owns | talks to |
//! | --- | --- | --- |
//! | `dv-member` (`driver`) | the manager machine, its timers and watches | everyone, by channel |
//! | `dv-io` (`io`) | calls that wait for the store | <-> `dv-member` |
//! | `dv-notify` | subscriber callbacks | <- `dv-member` |
//!
//! While the worker leads, those of its calculator come on top (`leading`), but for a `dv-notify`:
//! `dv-member` reads what it tells.

mod cache_file;
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
use crate::runtime::notifier::{Events, Subscription};
use crate::runtime::publish::partition_list::{PartitionSource, Partitions};
use crate::store::Store;
use crate::strategy::{Sticky, Strategy};
use crate::time::clock::{Clock, SystemClock};
use crate::time::deadline::deadline_after;
use crate::types::{ManagerState, Partition, Version, WorkerId};

/// Settings of a manager to be built. See [`Manager::builder`].
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
    /// Timing and names. Default: [`ManagerConfig::default`].
    pub fn config(mut self, config: ManagerConfig) -> Self {
        self.config = config;
        self
    }

    /// How partitions are divided where this worker leads. Default: [`Sticky`].
    pub fn strategy(mut self, strategy: impl Strategy + 'static) -> Self {
        self.strategy = Arc::new(strategy);
        self
    }

    /// Where the partitions come from. Left out, they are pushed with
    /// [`Manager::set_partitions`] to every worker that may lead.
    pub fn source(mut self, source: impl PartitionSource + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The host's own election, instead of the lease in the store.
    pub fn election(mut self, election: impl LeaderElection + 'static) -> Self {
        self.election = Some(Arc::new(election));
        self
    }

    /// Who is told what it does, and its calculators do, for metrics. The host keeps its own
    /// reference, to render a page from it. Default: nobody.
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
    pub fn build(self) -> Result<Manager> {
        self.config.validate()?;
        let rule = match self.election {
            Some(_) => Rule::Host,
            None => Rule::Lease,
        };
        let idle = ManagerMachine::new(self.config.clone(), rule, self.clock.now(), 0)?;
        let backlog_max = self.config.calculator.subscriber_backlog;
        let metrics_sink = self.metrics_sink.calculator.clone().unwrap_or_default();
        let store = GuardedStore::measured(
            self.store,
            &metrics_sink.calculator,
            &self.clock,
            self.config.calculator.operation_timeout,
        );
        Ok(Manager {
            shared: Arc::new(ManagerShared::new(
                idle.current_state(),
                backlog_max,
                metrics_sink,
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

/// One worker's whole life: joins the fleet, is told what to work on, leads where it must, and
/// leaves well.
///
/// It claims a stable id, sends heartbeats, takes part in the election, applies what is assigned
/// to it, and runs a [`Calculator`] while it leads. All methods may be called from any thread.
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

    /// Joins the fleet: sees to the buckets, claims an id, and returns once its first heartbeat
    /// is stored. Election and assignment follow; see [`Manager::wait_state`]. What may pass is
    /// tried again until `timeout`. Blocks for at most that, plus 1 s for cleaning up after a
    /// failure.
    ///
    /// With a [`ManagerConfig::cache_file`] it also returns, as soon as the store has failed once,
    /// with what the file holds: state `Degraded`, the id and the partitions of the former life,
    /// [`Held::is_cached`]. Joining goes on meanwhile; the store's word then takes its place.
    ///
    /// # Errors
    /// `AlreadyStarted`; `IdsExhausted` when all ids stayed taken; `Unauthorized`, `Unsupported`
    /// (a bucket whose TTL cannot be worked with) at once; `TimedOut` with the last failure;
    /// `NotRunning` (stopped meanwhile), `Cancelled`, `Panicked`. After an error nothing is left behind and
    /// subscriptions stay.
    pub fn start(&self, timeout: Duration) -> Result<()> {
        self.start_by(deadline_after(timeout))
            .map_err(|error| error.with_operation("start"))
    }

    /// Leaves the fleet, for good or to be back soon, and joins the threads. The calculator ends
    /// first, then heartbeat and leadership are given up, the id last. Subscribers get what is
    /// in their backlog, and then their end. Stopping what is not started ends the subscriptions
    /// and is fine otherwise. Blocks for at most `timeout`; when three quarters of it have not
    /// sufficed to tell the store, the rest is left to expire there.
    ///
    /// # Errors
    /// `WouldDeadlock` from inside a callback or the host's own code called by this manager;
    /// `TimedOut` naming the threads that are still busy and with what: the handle stays valid,
    /// call again. `Cancelled`: likewise, and it goes on leaving by itself.
    pub fn stop(&self, departure: Departure, timeout: Duration) -> Result<()> {
        self.stop_by(departure, deadline_after(timeout))
            .map_err(|error| error.with_operation("stop"))
    }

    /// Whether it is started: not before [`Manager::start`] has succeeded, not once a stop was
    /// asked for, not after a thread of it panicked.
    #[must_use]
    pub fn is_started(&self) -> bool {
        let life = self.life.current();
        life.is_some_and(|life| life.is_at_work()) && self.shared.failed.lock().is_none()
    }

    /// Why the handle has failed, if it has: a thread of it panicked.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.shared.failed.lock().clone()
    }

    /// The id under which this worker is a member; `None` before it has one and after it lost it.
    /// While it serves what its cache file gave: the id of its former life.
    #[must_use]
    pub fn worker_id(&self) -> Option<WorkerId> {
        self.shared.read(|snapshot| snapshot.worker.clone())
    }

    /// Whether this worker leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.shared.read(|snapshot| snapshot.is_leader)
    }

    /// Who leads, as far as is known.
    #[must_use]
    pub fn leader(&self) -> Option<WorkerId> {
        self.shared.read(|snapshot| snapshot.leader.clone())
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> ManagerState {
        self.shared.read(|snapshot| snapshot.state)
    }

    /// Waits until the manager is in that state; whether it was, within `timeout` and before the
    /// call was cancelled. A state that was passed through before the call, or too quickly to be seen, does not count: subscribe
    /// to see every one.
    #[must_use]
    pub fn wait_state(&self, state: ManagerState, timeout: Duration) -> bool {
        self.shared
            .wait(deadline_after(timeout), |snapshot| snapshot.state == state)
    }

    /// What this worker holds. The partitions are shared, not copied.
    #[must_use]
    pub fn assignment(&self) -> Held {
        self.shared.read(|snapshot| snapshot.held.clone())
    }

    /// Has the partition source read and a change of it published, where this worker leads;
    /// returns the version in force.
    ///
    /// # Errors
    /// `NotLeader`, naming who leads; otherwise as [`Calculator::refresh`].
    pub fn refresh_partitions(&self, timeout: Duration) -> Result<Version> {
        self.with_calculator("refresh_partitions", |c| c.refresh(timeout))
    }

    /// Has a new version published at once, where this worker leads.
    ///
    /// # Errors
    /// `NotLeader`, naming who leads; otherwise as [`Calculator::trigger_rebalance`].
    pub fn trigger_rebalance(&self, timeout: Duration) -> Result<Version> {
        self.with_calculator("trigger_rebalance", |c| c.trigger_rebalance(timeout))
    }

    /// Pushes the partition list: the whole of it. Every worker that may lead needs it; whoever
    /// leads publishes it. Kept over stop and start.
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

    /// Has `callback` called with how things are, and then with every event, in order, one at a
    /// time, on the manager's `dv-notify`. As [`Calculator::subscribe`] otherwise.
    pub fn subscribe(
        &self,
        filter: ManagerEventFilter,
        callback: impl FnMut(&ManagerEvent) + Send + 'static,
    ) -> Subscription {
        self.shared.hub.subscribe(filter, Box::new(callback))
    }

    /// How things are, and then every event, in order, to be read by the host. May be called
    /// before the start. Does not wait.
    #[must_use]
    pub fn events(&self, filter: ManagerEventFilter) -> Events<ManagerEvent> {
        self.shared.hub.events(filter)
    }

    /// A snapshot. Waits for up to 1 s for each thread that it asks; what is not told in time is
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

    /// How often it was started since it was built.
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
            None => "nobody is known to lead".to_owned(),
        };
        let message = format!("this worker does not lead: {who}; ask the leader");
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

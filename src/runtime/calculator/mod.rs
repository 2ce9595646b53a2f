//! The handle of a calculator: builds it, starts and stops its threads, passes calls on.

mod assignment_publisher;
mod calculator_driver;
mod calculator_probe;
mod calculator_shared;
mod calculator_status;
mod fleet_changes;
mod last_heard;
mod running_calculator;
mod stop_guard;
mod thread_messages;
mod worker_monitor;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{SendTimeoutError, bounded};
use parking_lot::Mutex;

use self::calculator_probe::CalculatorProbe;
use self::calculator_shared::{CalculatorShared, CalculatorSnapshot};
use self::calculator_status::{CalculatorMachineStatus, merge_workers};
pub use self::calculator_status::{CalculatorStatus, StatusCounters, WorkerStatus};
pub use self::fleet_changes::FleetChanges;
use self::running_calculator::RunningCalculator;
use self::thread_messages::ToDriver;
use self::thread_messages::ToMonitor;
use crate::config::CalculatorConfig;
use crate::error::{Code, Error, Result};
use crate::machine::calculator::{CalculatorEvent, CalculatorInput, CalculatorMachine, Ticket};
use crate::machine::position::Position;
use crate::machine::takeover::ProcessMemory;
use crate::metrics::{AssignmentMetrics, CalculatorMetrics};
use crate::runtime::common::metrics_sink::MetricsSink;
use crate::runtime::common::thread_group::LifecycleSlot;
use crate::runtime::guarded_store::GuardedStore;
use crate::runtime::notifier::EventFilter;
use crate::runtime::notifier::{Events, Queued, Subscription};
use crate::runtime::publish::config_source::ConfigSource;
use crate::runtime::publish::partition_list::{PartitionSource, Partitions};
use crate::runtime::running_host_calls::HostCalls;
use crate::store::Store;
use crate::strategy::{Sticky, Strategy};
use crate::threads::OwnThread;
use crate::threads::cancel::{self, WaitError};
use crate::time::clock::{Clock, SystemClock};
use crate::time::deadline::deadline_after;
use crate::types::{CalculatorState, Partition, Reason, Version};
use crate::wire::Applied;

/// How long a status waits for a thread before it goes without.
pub(crate) const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// Settings of a calculator to be built. See [`Calculator::builder`].
#[must_use]
pub struct CalculatorBuilder {
    store: Arc<dyn Store>,
    /// The same store, shared with a manager through the same breaker.
    pub(crate) guarded_store: Option<Arc<GuardedStore>>,
    pub(crate) config: CalculatorConfig,
    pub(crate) strategy: Arc<dyn Strategy>,
    pub(crate) source: Option<Arc<dyn PartitionSource>>,
    /// Where a list is pushed to that outlives the calculator.
    pub(crate) pushed: Option<Arc<Partitions>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics_sink: Option<MetricsSink>,
    /// Whether there may be subscribers with a callback.
    pub(crate) has_callbacks: bool,
}

impl CalculatorBuilder {
    /// Timing and names. Default: [`CalculatorConfig::default`].
    pub fn config(mut self, config: CalculatorConfig) -> Self {
        self.config = config;
        self
    }

    /// How partitions are divided. Default: [`Sticky`].
    pub fn strategy(mut self, strategy: impl Strategy + 'static) -> Self {
        self.strategy = Arc::new(strategy);
        self
    }

    /// Where the partitions come from. Left out, they are pushed with
    /// [`Calculator::set_partitions`], and nothing is published before.
    pub fn source(mut self, source: impl PartitionSource + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Sets the receiver of calculator events for metrics. The host keeps its own reference to
    /// render a page. Default: none.
    pub fn metrics<M>(mut self, metrics: Arc<M>) -> Self
    where
        M: CalculatorMetrics + AssignmentMetrics + 'static,
    {
        self.metrics_sink = Some(MetricsSink {
            calculator: Arc::clone(&metrics) as Arc<dyn CalculatorMetrics>,
            assignment: metrics,
        });
        self
    }

    /// Where time comes from. Default: the system's clock.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The calculator, not started yet.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`], listing every broken rule.
    pub fn build(self) -> Result<Calculator> {
        self.config.validate()?;
        // A manager has logged its own.
        if self.guarded_store.is_none() {
            for warning in self.config.warnings() {
                log::warn!(target: "divvy::config", "unwise configuration: {warning}");
            }
        }
        let position = Position::idle(self.clock.now());
        let idle = CalculatorMachine::new(self.config.clone(), self.clock.now(), 0, false);
        let snapshot = CalculatorSnapshot {
            position,
            version: 0,
        };
        let backlog_max = self.config.subscriber_backlog;
        let metrics_sink = self.metrics_sink.unwrap_or_default();
        let store = match self.guarded_store {
            Some(guarded_store) => guarded_store,
            None => Arc::new(GuardedStore::measured(
                self.store,
                &metrics_sink.calculator,
                &self.clock,
                &self.config,
            )),
        };
        let host_calls = HostCalls::new(Arc::clone(&self.clock), self.config.host_call_timeout);
        let shared = CalculatorShared::new(
            idle.current_state(),
            backlog_max,
            snapshot,
            metrics_sink,
            host_calls,
        );
        let shared = Arc::new(shared);
        let partitions = match self.source {
            Some(source) => Arc::new(Partitions::pulled(source)),
            None => self
                .pushed
                .unwrap_or_else(|| Arc::new(Partitions::pushed())),
        };
        let config_source =
            ConfigSource::new(&self.config, &*self.strategy, Arc::clone(&partitions));
        let calculator = Calculator {
            config_source,
            probe: Arc::new(CalculatorProbe {
                shared: Arc::clone(&shared),
                clock: Arc::clone(&self.clock),
                life: Mutex::default(),
            }),
            shared,
            partitions,
            store,
            config: self.config,
            strategy: self.strategy,
            clock: self.clock,
            running: LifecycleSlot::default(),
            has_callbacks: self.has_callbacks,
        };
        let probe = Arc::downgrade(&calculator.probe);
        calculator.shared.metrics_sink.calculator.attach(probe);
        Ok(calculator)
    }
}

/// Watches a fleet and keeps a plan published for it.
///
/// For a host that has its own election: start it where the host leads, stop it where it no
/// longer does. All methods may be called from any thread. Dropping the handle stops it, waiting
/// up to 5 s; dropped inside a callback it does not wait. Durations may be of any length.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use divvy::store::memory::MemoryStore;
/// use divvy::{Calculator, Partition};
///
/// # fn main() -> divvy::Result<()> {
/// let calculator = Calculator::builder(Arc::new(MemoryStore::new()))
///     .source(|| Ok(vec![Partition::new(["tool001", "chamber1"], 100)]))
///     .build()?;
/// calculator.start(Duration::from_secs(30))?;
/// assert!(calculator.is_started());
/// calculator.stop(Duration::from_secs(10))
/// # }
/// ```
pub struct Calculator {
    pub(crate) shared: Arc<CalculatorShared>,
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) config_source: ConfigSource,
    pub(crate) store: Arc<GuardedStore>,
    pub(crate) config: CalculatorConfig,
    pub(crate) strategy: Arc<dyn Strategy>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) running: LifecycleSlot<RunningCalculator>,
    /// Whether there is a thread to run callbacks.
    pub(crate) has_callbacks: bool,
    pub(crate) probe: Arc<CalculatorProbe>,
}

impl Calculator {
    /// Begins a calculator over a store that may be shared.
    pub fn builder(store: Arc<dyn Store>) -> CalculatorBuilder {
        CalculatorBuilder {
            store,
            guarded_store: None,
            config: CalculatorConfig::default(),
            strategy: Arc::new(Sticky::default()),
            source: None,
            pushed: None,
            clock: Arc::new(SystemClock),
            metrics_sink: None,
            has_callbacks: true,
        }
    }

    /// Connects to the store, takes over, reads the last plan and the live workers, and starts the
    /// calculator. Retriable failures are retried until `timeout`. Blocks for at most `timeout`, plus
    /// 1 s to clean up after a failure.
    ///
    /// # Errors
    /// `AlreadyStarted`; `TimedOut`, `Unavailable`, `Unauthorized`, `Unsupported` (an assignment
    /// bucket with a TTL), `Conflict` (another leader takes over at the same time),
    /// `InvalidData` (a stored number leaves no room above it), `NotRunning` (`stop` was called),
    /// `Cancelled`, `Panicked`.
    /// After an error no thread is left running and subscriptions stay open. If the host's code hangs,
    /// or the store during a concurrent stop, the message says so, and `stop` waits for it.
    pub fn start(&self, timeout: Duration) -> Result<()> {
        self.start_by(deadline_after(timeout))
            .map_err(|error| error.with_operation("start"))
    }

    /// Stops the calculator: nothing more is published, the threads are joined, and waiting calls
    /// return `NotRunning`. Subscribers receive their backlog, callbacks for at most half of `timeout`,
    /// and then their subscriptions end. May be called from any thread, concurrently, and on a
    /// calculator that is not started, which ends its subscriptions. Blocks for at most `timeout`.
    ///
    /// # Errors
    /// `WouldDeadlock` inside a callback, a partition source or a strategy of this calculator;
    /// `TimedOut` with the names of the busy threads: no further callback starts, nothing more is
    /// published, the handle stays valid, call again. `Cancelled`: likewise, but callbacks continue
    /// until the next call.
    pub fn stop(&self, timeout: Duration) -> Result<()> {
        self.stop_by(deadline_after(timeout))
            .map_err(|error| error.with_operation("stop"))
    }

    /// Returns the setting `name`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Returns whether the calculator is running: from a successful [`Calculator::start`] until a
    /// stop is requested or one of its threads panics.
    #[must_use]
    pub fn is_started(&self) -> bool {
        let running = self.running.current();
        running.is_some_and(|r| r.is_at_work()) && self.shared.failed.lock().is_none()
    }

    /// Returns the state; `Idle` when the calculator is not started.
    #[must_use]
    pub fn state(&self) -> CalculatorState {
        self.shared.snapshot.load().position.state
    }

    /// Returns the reason for the state; `None` in `Idle`.
    #[must_use]
    pub fn scaling_reason(&self) -> Option<Reason> {
        self.shared.snapshot.load().position.reason
    }

    /// Returns the version last published or adopted; 0 if there is none.
    #[must_use]
    pub fn current_version(&self) -> Version {
        self.shared.snapshot.load().version
    }

    /// Publishes a new version, at once or after the publication in progress, and waits for it. Ignores
    /// cooldown and windows.
    ///
    /// # Errors
    /// `TimedOut` with the last failure, if any, and `Cancelled` (the request stays pending, unless
    /// it was cancelled before the call); `NoWorkers`; `Fenced`; `NotRunning`; `WouldDeadlock`
    /// inside a partition source or strategy; permanent errors of the store.
    pub fn trigger_rebalance(&self, timeout: Duration) -> Result<Version> {
        self.ask(timeout, "trigger_rebalance", |ticket| {
            CalculatorInput::Trigger { ticket }
        })
    }

    /// Reads the partition source again and returns the version that contains its list: the version in
    /// force if nothing changed, else the next one, for which it waits. Cooldown and windows apply.
    ///
    /// # Errors
    /// `SourceFailed`; otherwise as [`Calculator::trigger_rebalance`].
    pub fn refresh(&self, timeout: Duration) -> Result<Version> {
        self.ask(timeout, "refresh", |ticket| {
            CalculatorInput::PartitionsChanged {
                generation: self.partitions.touch(),
                ticket: Some(ticket),
            }
        })
    }

    /// Confirms the partition list as it is now, although it lost more than
    /// [`CalculatorConfig::max_list_shrink`]: reads it again as [`Calculator::refresh`] does, and
    /// applies it. Counts once.
    ///
    /// # Errors
    /// As [`Calculator::refresh`].
    pub fn confirm_partitions(&self, timeout: Duration) -> Result<Version> {
        self.ask(timeout, "confirm_partitions", |ticket| {
            self.partitions.confirm();
            CalculatorInput::PartitionsChanged {
                generation: self.partitions.touch(),
                ticket: Some(ticket),
            }
        })
    }

    /// Sets the whole partition list. May be called before the start; the list survives stop and
    /// start. An empty list releases
    /// everything once it is confirmed (see [`CalculatorConfig::max_list_shrink`]). Blocks for at most 1 s while the calculator is
    /// overloaded.
    ///
    /// # Errors
    /// `InvalidArgument` with the first offenders for duplicate partitions and partitions without
    /// keys, and if the calculator has a partition source. `TimedOut` if the calculator is too
    /// busy; the next rebalance uses the list all the same.
    pub fn set_partitions(&self, partitions: Vec<Partition>) -> Result<()> {
        let generation = self.partitions.push(partitions)?;
        let Some(running) = self.running.current() else {
            return Ok(()); // the next start reads the list
        };
        let event = CalculatorInput::PartitionsChanged {
            generation,
            ticket: None,
        };
        let reported = running
            .to_driver
            .send_timeout(ToDriver::CalculatorInput(event), STATUS_TIMEOUT);
        match reported {
            Ok(()) | Err(SendTimeoutError::Disconnected(_)) => Ok(()),
            Err(SendTimeoutError::Timeout(_)) => Err(Error::new(
                Code::TimedOut,
                "the list is stored, but the calculator is too busy to process it; call refresh",
            )
            .with_operation("set_partitions")),
        }
    }

    /// Calls `callback` with the current state at once, and then with every event, in order, one at
    /// a time, on the thread `dv-notify`. May be called before the start, which then begins the
    /// callbacks. A stop ends the subscription; a failed start does not. Does not block.
    ///
    /// A callback may call everything except [`Calculator::stop`], which returns `WouldDeadlock`. A
    /// slow callback delays only other callbacks. A panic closes the subscription. The values that a
    /// callback owns are dropped on `dv-notify`, or where the subscription is ended, with no lock held.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::time::Duration;
    /// # use divvy::store::memory::MemoryStore;
    /// # use divvy::{Calculator, EventFilter, CalculatorEvent};
    /// # fn main() -> divvy::Result<()> {
    /// # let calculator = Calculator::builder(Arc::new(MemoryStore::new())).build()?;
    /// let subscription = calculator.subscribe(EventFilter::State, |notice| {
    ///     if let CalculatorEvent::StateChanged(change) = notice {
    ///         println!("{} -> {}", change.from, change.to);
    ///     }
    /// });
    /// calculator.start(Duration::from_secs(10))?;
    /// subscription.unsubscribe(Duration::from_secs(1))?; // no callback runs after this
    /// # calculator.stop(Duration::from_secs(10))
    /// # }
    /// ```
    pub fn subscribe(
        &self,
        filter: EventFilter,
        mut callback: impl FnMut(&CalculatorEvent) + Send + 'static,
    ) -> Subscription {
        self.subscribe_queued(filter, move |queued| callback(&queued.event))
    }

    /// As `subscribe`; the callback also receives the context in which the event was queued.
    pub(crate) fn subscribe_queued(
        &self,
        filter: EventFilter,
        callback: impl FnMut(&Queued<CalculatorEvent>) + Send + 'static,
    ) -> Subscription {
        self.shared.hub.subscribe(filter, Box::new(callback))
    }

    /// Returns a queue of the current state and then of every event, in order. May be called before the
    /// start. Does not block.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::time::Duration;
    /// # use divvy::store::memory::MemoryStore;
    /// # use divvy::{Calculator, EventFilter, CalculatorEvent};
    /// # fn main() -> divvy::Result<()> {
    /// # let calculator = Calculator::builder(Arc::new(MemoryStore::new())).build()?;
    /// let events = calculator.events(EventFilter::StateAndMembers);
    /// let reader = std::thread::spawn(move || {
    ///     for event in events {
    ///         println!("{event:?}");
    ///     } // ends when the calculator stops
    /// });
    /// # calculator.stop(Duration::from_secs(10))?;
    /// # reader.join().unwrap();
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn events(&self, filter: EventFilter) -> Events {
        self.shared.hub.events(filter)
    }

    /// Makes the next start use terms and versions above those that the process has seen.
    pub(in crate::runtime) fn remember(&self, remembered: ProcessMemory) {
        *self.shared.remembered.lock() = remembered;
    }

    /// Returns the highest term and version in force. Does not block.
    pub(in crate::runtime) fn in_force(&self) -> Applied {
        self.shared.in_force.get()
    }

    /// Returns a status snapshot. Waits up to 1 s each for `dv-calc` and `dv-watch`; a part that is not
    /// reported in time is empty.
    #[must_use]
    pub fn status(&self) -> CalculatorStatus {
        let running = self.running.current();
        let (machine, workers) = match &running {
            Some(running) => self.ask_threads(running),
            None => (None, Vec::new()),
        };
        let snapshot = self.shared.snapshot.load();
        let probe_result = self.shared.probe_result.lock().clone();
        let now = self.clock.now();
        let machine = machine.unwrap_or_else(|| CalculatorMachineStatus {
            since: now.since(snapshot.position.since),
            term: self.shared.in_force.get().term,
            planned: Vec::new(),
            pending: Default::default(),
            degraded: Default::default(),
            assignment_limit: Default::default(),
        });
        CalculatorStatus {
            is_started: self.is_started(),
            failed: self.shared.failed.lock().clone(),
            state: snapshot.position.state,
            reason: snapshot.position.reason,
            since: machine.since,
            version: snapshot.version,
            term: machine.term,
            publish_mode: probe_result.as_ref().map(|probe_result| probe_result.mode),
            store: probe_result
                .map(|probe_result| probe_result.store)
                .unwrap_or_default(),
            workers: merge_workers(&machine.planned, workers),
            pending: machine.pending,
            degraded: machine.degraded,
            breaker: self.store.status(),
            held_list: self.shared.held_list.lock().clone(),
            list_age: self.shared.list_age(now),
            assignment_limit: machine.assignment_limit,
            quality: *self.shared.quality.lock(),
            is_shadow: self.config.shadow,
            comparison: self.shared.comparison.lock().clone(),
            last_failure: self
                .shared
                .last_failure
                .lock()
                .as_ref()
                .map(ToString::to_string),
            counters: self.counters(),
        }
    }

    fn counters(&self) -> StatusCounters {
        let counters = &self.shared.counters;
        let hub = &self.shared.hub;
        StatusCounters {
            publications: counters.publications.load(Ordering::Relaxed),
            failures: counters.failures.load(Ordering::Relaxed),
            moved: counters.moved.load(Ordering::Relaxed),
            malformed: counters.malformed.load(Ordering::Relaxed),
            listings: counters.listings.load(Ordering::Relaxed),
            watch_losses: counters.watch_losses.load(Ordering::Relaxed),
            lagged_subscribers: hub.lagged.load(Ordering::Relaxed),
            callback_panics: hub.callback_panics.load(Ordering::Relaxed),
            calculator_wakes: counters.calculator_wakes.load(Ordering::Relaxed),
            would_publish: counters.would_publish.load(Ordering::Relaxed),
            followed: counters.followed.load(Ordering::Relaxed),
            disagreements: counters.disagreements.load(Ordering::Relaxed),
        }
    }

    fn ask_threads(
        &self,
        running: &RunningCalculator,
    ) -> (Option<CalculatorMachineStatus>, Vec<WorkerStatus>) {
        let (reply, machine) = bounded(1);
        let asked = running
            .to_driver
            .send_timeout(ToDriver::Status(reply), STATUS_TIMEOUT);
        let (reply, workers) = bounded(1);
        let asked_monitor = running.to_monitor.try_send(ToMonitor::Workers(reply));
        let machine = asked
            .ok()
            .and_then(|()| machine.recv_timeout(STATUS_TIMEOUT).ok());
        let workers = asked_monitor
            .ok()
            .and_then(|()| workers.recv_timeout(STATUS_TIMEOUT).ok());
        (machine, workers.unwrap_or_default())
    }

    /// Sends an event that carries a ticket and waits for the answer.
    fn ask(
        &self,
        timeout: Duration,
        operation: &'static str,
        event: impl FnOnce(Ticket) -> CalculatorInput,
    ) -> Result<Version> {
        self.try_ask(timeout, event)
            .map_err(|error| error.with_operation(operation))
    }

    fn try_ask(
        &self,
        timeout: Duration,
        event: impl FnOnce(Ticket) -> CalculatorInput,
    ) -> Result<Version> {
        let deadline = deadline_after(timeout);
        let id = self.shared.id;
        if OwnThread::belongs_to(id) && !OwnThread::is_notifier_of(id) {
            return Err(Error::new(
                Code::WouldDeadlock,
                "called inside a partition source or strategy, for which it would wait",
            ));
        }
        let running = self.running.current();
        let running = running
            .filter(|running| running.is_at_work())
            .ok_or_else(|| Error::new(Code::NotRunning, "the calculator is not started"))?;
        if cancel::is_cancelled() {
            return Err(cancel::error("no request was made"));
        }
        let (ticket, answer) = self.shared.wait_for_answer();
        let message = ToDriver::CalculatorInput(event(ticket));
        let answered = match cancel::send_deadline(&running.to_driver, message, deadline) {
            Ok(()) => cancel::recv_deadline(&answer, deadline),
            Err(wait_error) => Err(wait_error),
        };
        self.shared.give_up(ticket);
        match answered {
            Ok(result) => result,
            Err(WaitError::Cancelled) => Err(cancel::error("it stays pending")),
            Err(WaitError::TimedOut) => {
                let error = Error::new(
                    Code::TimedOut,
                    format!("not completed within {timeout:?}; the request stays pending"),
                );
                Err(match self.shared.last_failure.lock().clone() {
                    Some(cause) => error.caused_by(cause),
                    None => error,
                })
            }
            Err(WaitError::Disconnected) => Err(self.shared.ended("stopped meanwhile")),
        }
    }
}

impl std::fmt::Debug for Calculator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calculator")
            .field("name", &self.config.name)
            .field("state", &self.state())
            .field("version", &self.current_version())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for CalculatorBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CalculatorBuilder")
            .field("config", &self.config)
            .field("strategy", &self.strategy.name())
            .finish_non_exhaustive()
    }
}

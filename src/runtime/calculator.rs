//! The handle of a calculator: builds it, starts and stops its threads, passes calls on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{SendTimeoutError, bounded};
use parking_lot::Mutex;

use super::crew::LifeSlot;
use super::driver::ToDriver;
use super::gate::Gated;
use super::lifecycle::Running;
use super::notifier::{Events, Subscription};
use super::protected::Protected;
use super::rebalancer::{PartitionSource, Partitions};
use super::shared::{Board, OwnThread, Shared, deadline_in};
use super::status::{MachineStatus, Status, StatusCounters, WorkerStatus, merge_workers};
use super::telling::{CalculatorProbe, Telling};
use super::told::Interest;
use super::worker_monitor::ToMonitor;
use crate::cancel::{self, Vain};
use crate::clock::{Clock, SystemClock};
use crate::config::CalculatorConfig;
use crate::error::{Code, Error, Result};
use crate::machine::calculator::{Calculator as Machine, Event, Notice, Ticket};
use crate::machine::state::Position;
use crate::metrics::{AssignmentMetrics, CalculatorMetrics};
use crate::store::Store;
use crate::strategy::{Sticky, Strategy};
use crate::types::{Partition, Reason, State, Version};

/// How long a status waits for a thread before it goes without.
pub(super) const STATUS_PATIENCE: Duration = Duration::from_secs(1);

/// Settings of a calculator to be built. See [`Calculator::builder`].
#[must_use]
pub struct CalculatorBuilder {
    store: Arc<dyn Store>,
    /// The same store, where somebody else calls it through the same breaker.
    pub(super) protected: Option<Arc<Protected>>,
    pub(super) config: CalculatorConfig,
    pub(super) strategy: Arc<dyn Strategy>,
    pub(super) source: Option<Arc<dyn PartitionSource>>,
    /// Where a list is pushed to that outlives the calculator.
    pub(super) pushed: Option<Arc<Partitions>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) telling: Option<Telling>,
    /// Whether there may be subscribers with a callback.
    pub(super) has_callbacks: bool,
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

    /// Who is told what it does, for metrics. The host keeps its own reference, to render a page
    /// from it. Default: nobody.
    pub fn metrics<M>(mut self, metrics: Arc<M>) -> Self
    where
        M: CalculatorMetrics + AssignmentMetrics + 'static,
    {
        self.telling = Some(Telling {
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
        for warning in self.config.warnings() {
            log::warn!(target: "divvy::config", "{warning}");
        }
        let position = Position::idle(self.clock.now());
        let idle = Machine::new(self.config.clone(), self.clock.now(), 0, false);
        let board = Board {
            position,
            version: 0,
        };
        let backlog_max = self.config.subscriber_backlog;
        let telling = self.telling.unwrap_or_default();
        let store = match self.protected {
            Some(protected) => protected,
            None => Arc::new(Protected::measured(
                self.store,
                &telling.calculator,
                &self.clock,
                self.config.operation_timeout,
            )),
        };
        let shared = Shared::new(idle.current_state(), backlog_max, board, telling);
        let shared = Arc::new(shared);
        let partitions = match self.source {
            Some(inner) => Arc::new(Partitions::pulled(Arc::new(Gated {
                inner,
                // A list that comes too late does no harm: the strategy's gate is shut by then.
                stop: crossbeam_channel::never(),
                activity: Arc::clone(&shared.activity),
            }))),
            None => self
                .pushed
                .unwrap_or_else(|| Arc::new(Partitions::pushed())),
        };
        let calculator = Calculator {
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
            running: LifeSlot::default(),
            has_callbacks: self.has_callbacks,
        };
        calculator.attach_probe();
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
    pub(super) shared: Arc<Shared>,
    pub(super) partitions: Arc<Partitions>,
    pub(super) store: Arc<Protected>,
    pub(super) config: CalculatorConfig,
    pub(super) strategy: Arc<dyn Strategy>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) running: LifeSlot<Running>,
    /// Whether there is a thread to run callbacks.
    pub(super) has_callbacks: bool,
    pub(super) probe: Arc<CalculatorProbe>,
}

impl Calculator {
    /// Begins a calculator over a store that may be shared.
    pub fn builder(store: Arc<dyn Store>) -> CalculatorBuilder {
        CalculatorBuilder {
            store,
            protected: None,
            config: CalculatorConfig::default(),
            strategy: Arc::new(Sticky::default()),
            source: None,
            pushed: None,
            clock: Arc::new(SystemClock),
            telling: None,
            has_callbacks: true,
        }
    }

    /// Reaches the store, takes over, learns what is stored and who is alive, and goes to work.
    /// What may pass is retried until `timeout`. Blocks for at most that, plus 1 s for cleaning
    /// up after a failure.
    ///
    /// # Errors
    /// `AlreadyStarted`; `TimedOut`, `Unavailable`, `Unauthorized`, `Unsupported` (an assignment
    /// bucket with a TTL), `Conflict` (another leader takes over at the same moment),
    /// `InvalidData` (a stored number leaves no room above it), `NotRunning` (stopped meanwhile),
    /// `Cancelled`, `Panicked`.
    /// After an error nothing is left behind and subscriptions stay, unless the host's code hangs
    /// (or the store, after a stop meanwhile): then the message says so, and `stop` waits for it.
    pub fn start(&self, timeout: Duration) -> Result<()> {
        self.start_by(deadline_in(timeout))
            .map_err(|error| error.during("start"))
    }

    /// Stops: nothing is published any more, the threads are joined, what waits for an answer
    /// gets `NotRunning`. Subscribers get what is in their backlog, for callbacks as far as half
    /// of the time allows, and then their end. Stopping what is not started ends the
    /// subscriptions and is fine otherwise, from any thread, at the same time. Blocks for at most
    /// `timeout`.
    ///
    /// # Errors
    /// `WouldDeadlock` from inside a callback, a partition source or a strategy of this
    /// calculator; `TimedOut` naming the threads that are still busy and with what: no callback
    /// starts any more, nothing new is published, the handle stays valid, call again. `Cancelled`:
    /// likewise, except that callbacks go on until the next call.
    pub fn stop(&self, timeout: Duration) -> Result<()> {
        self.stop_by(deadline_in(timeout))
            .map_err(|error| error.during("stop"))
    }

    /// Whether it is started and at work: not before [`Calculator::start`] has succeeded, not
    /// once a stop was asked for, not after a thread of it panicked.
    #[must_use]
    pub fn is_started(&self) -> bool {
        let running = self.running.current();
        running.is_some_and(|r| r.is_at_work()) && self.shared.failed.lock().is_none()
    }

    /// What it is doing. `Idle` when it is not started.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.board.load().position.state
    }

    /// Why it is doing that; `None` in `Idle`.
    #[must_use]
    pub fn scaling_reason(&self) -> Option<Reason> {
        self.shared.board.load().position.reason
    }

    /// The version last published or adopted; 0 when there is none.
    #[must_use]
    pub fn current_version(&self) -> Version {
        self.shared.board.load().version
    }

    /// Has a new version published, at once or right after the one that is under way, and waits
    /// for it. Ignores cooldown and windows.
    ///
    /// # Errors
    /// `TimedOut` with the last failure, if any, and `Cancelled` (the request stays pending, unless
    /// it was cancelled before the call); `NoWorkers`; `Fenced`; `NotRunning`; `WouldDeadlock` from
    /// inside a partition source or strategy; what the store reports where trying again would not
    /// help.
    pub fn trigger_rebalance(&self, timeout: Duration) -> Result<Version> {
        self.ask(timeout, "trigger_rebalance", |ticket| Event::Trigger {
            ticket,
        })
    }

    /// Has the partition source read and compared with the published plan, and waits for that. A
    /// change is then pending; returns the version in force.
    ///
    /// # Errors
    /// `SourceFailed`; otherwise as [`Calculator::trigger_rebalance`].
    pub fn refresh(&self, timeout: Duration) -> Result<Version> {
        self.ask(timeout, "refresh", |ticket| Event::PartitionsChanged {
            generation: self.partitions.touch(),
            ticket: Some(ticket),
        })
    }

    /// Pushes the partition list: the whole of it. May be called before the start; the list is
    /// kept over stop and start. An empty list is a list: every worker gets nothing. Waits for
    /// nothing but, for up to 1 s, a calculator that is flooded with events.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the first offenders, for duplicates (by keys) and partitions
    /// without keys, and when the calculator has a partition source. `TimedOut` when the
    /// calculator could not be told; the next rebalance uses the list all the same.
    pub fn set_partitions(&self, partitions: Vec<Partition>) -> Result<()> {
        let generation = self.partitions.push(partitions)?;
        let Some(running) = self.running.current() else {
            return Ok(()); // the next start reads the list
        };
        let event = Event::PartitionsChanged {
            generation,
            ticket: None,
        };
        let told = running
            .to_driver
            .send_timeout(ToDriver::Event(event), STATUS_PATIENCE);
        match told {
            Ok(()) | Err(SendTimeoutError::Disconnected(_)) => Ok(()),
            Err(SendTimeoutError::Timeout(_)) => Err(Error::new(
                Code::TimedOut,
                "the list is taken, but the calculator is too busy to be told; call refresh",
            )
            .during("set_partitions")),
        }
    }

    /// Has `callback` called with the current state at once, and then with every event, in
    /// order, one at a time, on the thread `dv-notify`. May be called before the start;
    /// callbacks begin with it. A stop ends the subscription, a failed start does not. Does not
    /// wait.
    ///
    /// A callback may call everything but [`Calculator::stop`], which returns `WouldDeadlock`. A
    /// slow one delays other callbacks, nothing else. One that panics is closed. What a callback
    /// owns is dropped on `dv-notify`, or where the subscription is ended, with no lock held.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::time::Duration;
    /// # use divvy::store::memory::MemoryStore;
    /// # use divvy::{Calculator, Interest, Notice};
    /// # fn main() -> divvy::Result<()> {
    /// # let calculator = Calculator::builder(Arc::new(MemoryStore::new())).build()?;
    /// let subscription = calculator.subscribe(Interest::State, |notice| {
    ///     if let Notice::StateChanged(change) = notice {
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
        interest: Interest,
        callback: impl FnMut(&Notice) + Send + 'static,
    ) -> Subscription {
        self.shared.hub.subscribe(interest, Box::new(callback))
    }

    /// The current state, and then every event, in order, to be read by the host. May be called
    /// before the start. Does not wait.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::time::Duration;
    /// # use divvy::store::memory::MemoryStore;
    /// # use divvy::{Calculator, Interest, Notice};
    /// # fn main() -> divvy::Result<()> {
    /// # let calculator = Calculator::builder(Arc::new(MemoryStore::new())).build()?;
    /// let events = calculator.events(Interest::StateAndMembers);
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
    pub fn events(&self, interest: Interest) -> Events {
        self.shared.hub.events(interest)
    }

    /// A snapshot. Waits for up to 1 s each for `dv-calc` and `dv-watch`; what they do not tell
    /// in time is left empty.
    #[must_use]
    pub fn status(&self) -> Status {
        let running = self.running.current();
        let (machine, workers) = match &running {
            Some(running) => self.ask_threads(running),
            None => (None, Vec::new()),
        };
        let board = self.shared.board.load();
        let proven = self.shared.proven.lock().clone();
        let now = self.clock.now();
        let machine = machine.unwrap_or_else(|| MachineStatus {
            since: now.since(board.position.since),
            term: self.shared.in_force.get().term,
            planned: Vec::new(),
            pending: Default::default(),
            degraded: Default::default(),
        });
        Status {
            is_started: self.is_started(),
            failed: self.shared.failed.lock().clone(),
            state: board.position.state,
            reason: board.position.reason,
            since: machine.since,
            version: board.version,
            term: machine.term,
            publish_class: proven.as_ref().map(|proven| proven.class),
            store: proven.map(|proven| proven.store).unwrap_or_default(),
            workers: merge_workers(&machine.planned, workers),
            pending: machine.pending,
            degraded: machine.degraded,
            breaker: self.store.status(),
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
            poison: counters.poison.load(Ordering::Relaxed),
            listings: counters.listings.load(Ordering::Relaxed),
            blindness: counters.blindness.load(Ordering::Relaxed),
            lagged_subscribers: hub.lagged.load(Ordering::Relaxed),
            callback_panics: hub.callback_panics.load(Ordering::Relaxed),
            calculator_wakes: counters.calculator_wakes.load(Ordering::Relaxed),
            would_publish: counters.would_publish.load(Ordering::Relaxed),
            followed: counters.followed.load(Ordering::Relaxed),
            disagreements: counters.disagreements.load(Ordering::Relaxed),
        }
    }

    fn ask_threads(&self, running: &Running) -> (Option<MachineStatus>, Vec<WorkerStatus>) {
        let (reply, machine) = bounded(1);
        let asked = running
            .to_driver
            .send_timeout(ToDriver::Status(reply), STATUS_PATIENCE);
        let (reply, workers) = bounded(1);
        let asked_monitor = running.to_monitor.try_send(ToMonitor::Workers(reply));
        let machine = asked
            .ok()
            .and_then(|()| machine.recv_timeout(STATUS_PATIENCE).ok());
        let workers = asked_monitor
            .ok()
            .and_then(|()| workers.recv_timeout(STATUS_PATIENCE).ok());
        (machine, workers.unwrap_or_default())
    }

    /// Sends an event that carries a ticket and waits for the answer.
    fn ask(
        &self,
        timeout: Duration,
        operation: &'static str,
        event: impl FnOnce(Ticket) -> Event,
    ) -> Result<Version> {
        self.try_ask(timeout, event)
            .map_err(|error| error.during(operation))
    }

    fn try_ask(&self, timeout: Duration, event: impl FnOnce(Ticket) -> Event) -> Result<Version> {
        let deadline = deadline_in(timeout);
        let id = self.shared.id;
        if OwnThread::belongs_to(id) && !OwnThread::is_notifier_of(id) {
            return Err(Error::new(
                Code::WouldDeadlock,
                "called from a partition source or a strategy, which it would wait for",
            ));
        }
        let running = self.running.current();
        let running = running
            .filter(|running| running.is_at_work())
            .ok_or_else(|| Error::new(Code::NotRunning, "the calculator is not started"))?;
        if cancel::is_cancelled() {
            return Err(cancel::error("nothing was asked for"));
        }
        let (ticket, answer) = self.shared.wait_for_answer();
        let message = ToDriver::Event(event(ticket));
        let answered = match cancel::send_deadline(&running.to_driver, message, deadline) {
            Ok(()) => cancel::recv_deadline(&answer, deadline),
            Err(vain) => Err(vain),
        };
        self.shared.give_up(ticket);
        match answered {
            Ok(result) => result,
            Err(Vain::Cancelled) => Err(cancel::error("it stays pending")),
            Err(Vain::TimedOut) => {
                let error = Error::new(
                    Code::TimedOut,
                    format!("not done within {timeout:?}; it stays pending"),
                );
                Err(match self.shared.last_failure.lock().clone() {
                    Some(cause) => error.caused_by(cause),
                    None => error,
                })
            }
            Err(Vain::Disconnected) => Err(self.shared.ended("stopped meanwhile")),
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

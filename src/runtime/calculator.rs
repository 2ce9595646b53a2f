//! The handle of a calculator: builds it, starts and stops its threads, passes calls on.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::Mutex;

use super::assignment_publisher::{AssignmentPublisher, RealSurroundings};
use super::driver::{Driver, ToDriver};
use super::notifier::{Events, Hub, Interest, Subscription};
use super::publisher::{Publisher, Settings};
use super::rebalancer::{PartitionSource, Partitions, Rebalancer, panic_text};
use super::shared::{Board, OwnThread, Shared};
use super::status::{MachineStatus, Status, StatusCounters, merge_workers};
use super::worker_monitor::{ToMonitor, WorkerMonitor};
use crate::clock::{Clock, SystemClock};
use crate::config::CalculatorConfig;
use crate::error::{Code, Error, Result};
use crate::machine::calculator::{Calculator as Machine, Event, Notice, Ticket};
use crate::machine::observer::Observer;
use crate::machine::state::Position;
use crate::store::Store;
use crate::strategy::{RoundRobin, Strategy};
use crate::thread::Thread;
use crate::types::{Partition, Reason, State, Version, WorkerId};
use crate::wire::KeyPrefix;

/// Messages that may wait for `dv-calc` before senders wait themselves.
const INBOX_MAX: usize = 1_024;

/// How long a status waits for a thread before it goes without.
const STATUS_PATIENCE: Duration = Duration::from_secs(1);

/// How long dropping a handle waits for its threads.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of a calculator to be built. See [`Calculator::builder`].
#[must_use]
pub struct CalculatorBuilder {
    store: Arc<dyn Store>,
    config: CalculatorConfig,
    strategy: Arc<dyn Strategy>,
    source: Option<Arc<dyn PartitionSource>>,
    clock: Arc<dyn Clock>,
}

impl CalculatorBuilder {
    /// Timing and names. Default: [`CalculatorConfig::default`].
    pub fn config(mut self, config: CalculatorConfig) -> Self {
        self.config = config;
        self
    }

    /// How partitions are divided.
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
        let hub = Arc::new(Hub::new(
            idle.current_state(),
            self.config.subscriber_backlog,
        ));
        let board = Board {
            position,
            version: 0,
        };
        Ok(Calculator {
            shared: Arc::new(Shared::new(hub, board)),
            partitions: Arc::new(match self.source {
                Some(source) => Partitions::pulled(source),
                None => Partitions::pushed(),
            }),
            store: self.store,
            config: self.config,
            strategy: self.strategy,
            clock: self.clock,
            running: Mutex::new(None),
        })
    }
}

/// Watches a fleet and keeps a plan published for it.
///
/// For a host that has its own election: start it where the host leads, stop it where it no
/// longer does. All methods may be called from any thread. Dropping the handle stops it, waiting
/// up to 5 s.
pub struct Calculator {
    shared: Arc<Shared>,
    partitions: Arc<Partitions>,
    store: Arc<dyn Store>,
    config: CalculatorConfig,
    strategy: Arc<dyn Strategy>,
    clock: Arc<dyn Clock>,
    running: Mutex<Option<Arc<Running>>>,
}

/// The threads of a started calculator.
struct Running {
    threads: Mutex<Vec<Arc<Thread>>>,
    notifier: Mutex<Option<Arc<Thread>>>,
    to_driver: Sender<ToDriver>,
    to_monitor: Sender<ToMonitor>,
    /// Dropped to stop the threads that work.
    stop: Mutex<Option<Sender<Infallible>>>,
    /// Dropped to let `dv-notify` deliver what is left and end.
    finish: Mutex<Option<Sender<Infallible>>>,
    /// Dropped to stop `dv-notify` after the callback that runs.
    halt: Mutex<Option<Sender<Infallible>>>,
    is_up: AtomicBool,
}

impl Calculator {
    /// Begins a calculator over a store that may be shared.
    pub fn builder(store: Arc<dyn Store>) -> CalculatorBuilder {
        CalculatorBuilder {
            store,
            config: CalculatorConfig::default(),
            strategy: Arc::new(RoundRobin),
            source: None,
            clock: Arc::new(SystemClock),
        }
    }

    /// Reaches the store, takes over, learns what is stored and who is alive, and goes to work.
    /// What may pass is retried until `timeout`.
    ///
    /// # Errors
    /// `AlreadyStarted`; `TimedOut`, `Unavailable`, `Unauthorized`, `Unsupported` (an assignment
    /// bucket with a TTL), `Conflict` (another leader takes over at the same moment),
    /// `InvalidData` (a stored number leaves no room above it), `NotRunning` (stopped meanwhile).
    /// After an error nothing is left behind, unless a partition source hangs: then the message
    /// says so, and `stop` waits for it.
    pub fn start(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let (running, started) = {
            let mut slot = self.running.lock();
            if slot.is_some() {
                return Err(Error::new(
                    Code::AlreadyStarted,
                    "the calculator is started; stop it first",
                ));
            }
            let (running, started) = self.spawn(deadline)?;
            *slot = Some(Arc::clone(&running));
            (running, started)
        };
        let error = match started.recv_deadline(deadline + Duration::from_millis(50)) {
            Ok(Ok(())) => {
                running.is_up.store(true, Ordering::Release);
                return Ok(());
            }
            Ok(Err(error)) => error,
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => {
                Error::new(Code::TimedOut, format!("not started within {timeout:?}"))
            }
            Err(crossbeam_channel::RecvTimeoutError::Disconnected) => {
                Error::new(Code::NotRunning, "stopped while starting")
            }
        };
        // The store's calls end with the same deadline; only the host's own code may take longer.
        self.stop_running(&running, Instant::now() + Duration::from_secs(1))
            .map_err(|busy| Error::new(error.code(), format!("{error}; moreover, {busy}")))?;
        Err(error.during("start"))
    }

    /// Stops: nothing is published any more, the threads are joined. Subscribers get what is in
    /// their backlog, as far as time allows, and then their end. Stopping what is not started is
    /// fine, from any thread, at the same time.
    ///
    /// # Errors
    /// `WouldDeadlock` from inside a callback, a partition source or a strategy of this
    /// calculator; `TimedOut` naming the thread that is still busy: no callback starts any more,
    /// the handle stays valid, call again.
    pub fn stop(&self, timeout: Duration) -> Result<()> {
        if OwnThread::belongs_to(self.shared.id) {
            return Err(Error::new(
                Code::WouldDeadlock,
                "stop would wait for the thread that calls it; call it from another thread",
            )
            .during("stop"));
        }
        let running = self.running.lock().clone();
        match running {
            Some(running) => self.stop_running(&running, Instant::now() + timeout),
            None => Ok(()),
        }
    }

    /// Whether it is started and at work.
    #[must_use]
    pub fn is_started(&self) -> bool {
        let running = self.running.lock();
        let is_up = running
            .as_ref()
            .is_some_and(|r| r.is_up.load(Ordering::Acquire));
        is_up && self.shared.failed.lock().is_none()
    }

    /// What it is doing. `Idle` when it is not started.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.board.lock().position.state
    }

    /// Why it is doing that; `None` in `Idle`.
    #[must_use]
    pub fn scaling_reason(&self) -> Option<Reason> {
        self.shared.board.lock().position.reason
    }

    /// The version last published or adopted; 0 when there is none.
    #[must_use]
    pub fn current_version(&self) -> Version {
        self.shared.board.lock().version
    }

    /// Has a new version published, at once or right after the one that is under way, and waits
    /// for it. Ignores cooldown and windows.
    ///
    /// # Errors
    /// `TimedOut` with the last failure, if any (the request stays pending); `NoWorkers`;
    /// `Fenced`; `NotRunning`; `WouldDeadlock` from inside a partition source or strategy; what
    /// the store reports where trying again would not help.
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
        let generation = self.partitions.touch();
        self.ask(timeout, "refresh", |ticket| Event::PartitionsChanged {
            generation,
            ticket: Some(ticket),
        })
    }

    /// Pushes the partition list: the whole of it. May be called before the start.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the first offenders, for duplicates (by keys) and partitions
    /// without keys, and when the calculator has a partition source.
    pub fn set_partitions(&self, partitions: Vec<Partition>) -> Result<()> {
        let generation = self.partitions.push(partitions)?;
        if let Some(running) = self.running.lock().clone() {
            let event = Event::PartitionsChanged {
                generation,
                ticket: None,
            };
            // Fails only when it is stopping; the next start reads the list.
            let _ = running
                .to_driver
                .send_timeout(ToDriver::Event(event), STATUS_PATIENCE);
        }
        Ok(())
    }

    /// Has `callback` called with the current state at once, and then with every event, in
    /// order, one at a time, on the thread `dv-notify`.
    ///
    /// A callback may call everything but [`Calculator::stop`]. A slow one delays other
    /// callbacks, nothing else. One that panics is closed.
    pub fn subscribe(
        &self,
        interest: Interest,
        callback: impl FnMut(&Notice) + Send + 'static,
    ) -> Subscription {
        self.shared.hub.subscribe(interest, Box::new(callback))
    }

    /// The current state, and then every event, in order, to be read by the host.
    #[must_use]
    pub fn events(&self, interest: Interest) -> Events {
        self.shared.hub.events(interest)
    }

    /// A snapshot. Waits for up to 1 s each for `dv-calc` and `dv-watch`; what they do not tell
    /// in time is left empty.
    #[must_use]
    pub fn status(&self) -> Status {
        let running = self.running.lock().clone();
        let (machine, leases) = match &running {
            Some(running) => self.ask_threads(running),
            None => (None, Vec::new()),
        };
        let board = *self.shared.board.lock();
        let now = self.clock.now();
        let machine = machine.unwrap_or_else(|| MachineStatus {
            since: now.since(board.position.since),
            term: self.shared.term_in_force.load(Ordering::Acquire),
            planned: Vec::new(),
            pending: Default::default(),
            degraded: Vec::new(),
        });
        Status {
            is_started: self.is_started(),
            failed: self.shared.failed.lock().clone(),
            state: board.position.state,
            reason: board.position.reason,
            since: machine.since,
            version: board.version,
            term: machine.term,
            workers: merge_workers(&machine.planned, leases),
            pending: machine.pending,
            degraded: machine.degraded,
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
        }
    }

    fn ask_threads(&self, running: &Running) -> (Option<MachineStatus>, Vec<(WorkerId, Duration)>) {
        let (reply, machine) = bounded(1);
        let asked = running
            .to_driver
            .send_timeout(ToDriver::Status(reply), STATUS_PATIENCE);
        let (reply, leases) = bounded(1);
        let asked_monitor = running.to_monitor.try_send(ToMonitor::Leases(reply));
        let machine = asked
            .ok()
            .and_then(|()| machine.recv_timeout(STATUS_PATIENCE).ok());
        let leases = asked_monitor
            .ok()
            .and_then(|()| leases.recv_timeout(STATUS_PATIENCE).ok());
        (machine, leases.unwrap_or_default())
    }

    /// Sends an event that carries a ticket and waits for the answer.
    fn ask(
        &self,
        timeout: Duration,
        operation: &'static str,
        event: impl FnOnce(Ticket) -> Event,
    ) -> Result<Version> {
        let deadline = Instant::now() + timeout;
        if OwnThread::belongs_to(self.shared.id) && !OwnThread::is_notifier() {
            return Err(Error::new(
                Code::WouldDeadlock,
                "called from a partition source or a strategy, which it would wait for",
            )
            .during(operation));
        }
        let stopped = || {
            let failed = self.shared.failed.lock().clone();
            let (code, why) = match failed {
                Some(message) => (Code::Panicked, message),
                None => (Code::NotRunning, "the calculator is not started".into()),
            };
            Error::new(code, why).during(operation)
        };
        let running = self.running.lock().clone().ok_or_else(stopped)?;
        let (ticket, answer) = self.shared.wait_for_answer();
        let message = ToDriver::Event(event(ticket));
        let sent = running.to_driver.send_deadline(message, deadline);
        let answered = sent.is_ok().then(|| answer.recv_deadline(deadline));
        match answered {
            Some(Ok(result)) => result.map_err(|error| error.during(operation)),
            Some(Err(crossbeam_channel::RecvTimeoutError::Timeout)) => {
                self.shared.give_up(ticket);
                let error = Error::new(
                    Code::TimedOut,
                    format!("not done within {timeout:?}; it stays pending"),
                )
                .during(operation);
                Err(match self.shared.last_failure.lock().clone() {
                    Some(cause) => error.caused_by(cause),
                    None => error,
                })
            }
            Some(Err(crossbeam_channel::RecvTimeoutError::Disconnected)) | None => {
                self.shared.give_up(ticket);
                Err(stopped())
            }
        }
    }
}

/// Starting and ending the threads.
impl Calculator {
    fn spawn(&self, deadline: Instant) -> Result<(Arc<Running>, Receiver<Result<()>>)> {
        let now = self.clock.now();
        *self.shared.failed.lock() = None;
        let machine = Machine::new(
            self.config.clone(),
            now,
            fastrand::u64(..),
            self.partitions.is_ready(),
        );
        self.shared.hub.reset(machine.current_state());

        let (to_driver, driver_inbox) = bounded(INBOX_MAX);
        let (to_monitor, monitor_orders) = unbounded();
        let (to_publisher, publisher_jobs) = bounded(1);
        let (started, when_started) = bounded(1);
        let (stop, stopped) = bounded(0);
        let (finish, finished) = bounded(0);
        let (halt, halted) = bounded(0);

        let driver = Driver {
            machine,
            clock: Arc::clone(&self.clock),
            shared: Arc::clone(&self.shared),
            to_publisher,
            to_monitor: to_monitor.clone(),
            started,
        };
        let monitor = WorkerMonitor {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            observer: Observer::new(&self.config)?,
            config: self.config.clone(),
            shared: Arc::clone(&self.shared),
            to_driver: to_driver.clone(),
        };
        let publisher = self.publisher(&stopped, to_driver.clone())?;

        let running = Arc::new(Running {
            threads: Mutex::new(Vec::new()),
            notifier: Mutex::new(None),
            to_driver,
            to_monitor,
            stop: Mutex::new(Some(stop)),
            finish: Mutex::new(Some(finish)),
            halt: Mutex::new(Some(halt)),
            is_up: AtomicBool::new(false),
        });
        let hub = Arc::clone(&self.shared.hub);
        let id = self.shared.id;
        let notifier = Thread::spawn("dv-notify", move || {
            OwnThread::mark(id, true);
            hub.run(&finished, &halted);
        })?;
        *running.notifier.lock() = Some(Arc::new(notifier));
        let spawned = (|| {
            let stop = stopped.clone();
            self.spawn_worker(&running, "dv-calc", move || {
                driver.run(&driver_inbox, &stop)
            })?;
            let stop = stopped.clone();
            self.spawn_worker(&running, "dv-watch", move || {
                monitor.run(&monitor_orders, &stop)
            })?;
            self.spawn_worker(&running, "dv-publish", move || {
                publisher.run(deadline, &publisher_jobs, &stopped);
            })
        })();
        if let Err(error) = spawned {
            self.stop_running(&running, deadline)?;
            return Err(error.during("start"));
        }
        Ok((running, when_started))
    }

    fn publisher(
        &self,
        stopped: &Receiver<Infallible>,
        to_driver: Sender<ToDriver>,
    ) -> Result<AssignmentPublisher> {
        let surroundings = Arc::new(RealSurroundings {
            stop: stopped.clone(),
        });
        let settings = Settings {
            leader: self.config.name.clone(),
            assignment: KeyPrefix::new(&self.config.assignment_prefix)?,
            heartbeat: KeyPrefix::new(&self.config.heartbeat_prefix)?,
            class: self.config.publish_class,
            batch_max: self.config.publish_batch_max,
        };
        let publisher = Publisher::new(
            Arc::clone(&self.store),
            surroundings.clone(),
            settings,
            Arc::clone(&self.shared.term_in_force),
        );
        Ok(AssignmentPublisher {
            store: Arc::clone(&self.store),
            config: self.config.clone(),
            rebalancer: Rebalancer::new(
                publisher,
                Arc::clone(&self.partitions),
                Arc::clone(&self.strategy),
                self.config.default_weight,
                self.config.former_leader_lease_over,
            ),
            surroundings,
            to_driver,
        })
    }

    /// Starts a thread that works. A panic on it fails the handle and stops the others.
    fn spawn_worker(
        &self,
        running: &Arc<Running>,
        name: &'static str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let weak = Arc::downgrade(running);
        let thread = Thread::spawn(name, move || {
            OwnThread::mark(shared.id, false);
            let Err(panic) = catch_unwind(AssertUnwindSafe(body)) else {
                return;
            };
            let message = format!("thread {name} panicked: {}", panic_text(panic.as_ref()));
            log::error!(target: "divvy::calculator", "{message}; the calculator has failed");
            *shared.failed.lock() = Some(message.clone());
            if let Some(running) = weak.upgrade() {
                *running.stop.lock() = None;
            }
            shared.abandon_callers();
            shared.hub.publish(Notice::Fatal { message });
        })?;
        running.threads.lock().push(Arc::new(thread));
        Ok(())
    }

    fn stop_running(&self, running: &Arc<Running>, deadline: Instant) -> Result<()> {
        running.is_up.store(false, Ordering::Release);
        *running.stop.lock() = None;
        let threads = running.threads.lock().clone();
        for thread in threads {
            if let Err(error) = thread.join(deadline) {
                if error.code() == Code::TimedOut {
                    *running.halt.lock() = None; // no callback starts any more
                    return Err(error.during("stop"));
                }
            }
        }
        self.shared.abandon_callers();
        self.stop_notifier(running, deadline)?;
        self.shared.hub.close();
        self.shared.board.lock().position = Position::idle(self.clock.now());
        let mut slot = self.running.lock();
        if slot
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, running))
        {
            *slot = None;
        }
        Ok(())
    }

    /// What is left is delivered for half of the time there is; then only the callback that runs
    /// is waited for.
    fn stop_notifier(&self, running: &Running, deadline: Instant) -> Result<()> {
        *running.finish.lock() = None;
        let Some(thread) = running.notifier.lock().clone() else {
            return Ok(());
        };
        let now = Instant::now();
        let half = now + deadline.saturating_duration_since(now) / 2;
        if thread.join(half).is_ok() {
            return Ok(());
        }
        *running.halt.lock() = None;
        match thread.join(deadline) {
            Err(error) if error.code() == Code::TimedOut => Err(error.during("stop")),
            _ => Ok(()),
        }
    }
}

impl Drop for Calculator {
    fn drop(&mut self) {
        if let Err(error) = self.stop(DROP_TIMEOUT) {
            if let Some(running) = self.running.lock().as_ref() {
                *running.stop.lock() = None;
                *running.finish.lock() = None;
                *running.halt.lock() = None;
            }
            log::warn!(target: "divvy::calculator", "dropped while still at work: {error}");
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

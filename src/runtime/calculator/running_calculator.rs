//! Starting, stopping and losing the threads of a calculator.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::Calculator;
use super::assignment_publisher::{AssignmentPublisher, SystemEnvironment};
use super::calculator_driver::{CalculatorDriver, DriverShell};
use super::calculator_shared::{CalculatorShared, CalculatorSnapshot};
use super::fleet_changes::FleetChanges;
use super::stop_guard::StopGuarded;
use super::thread_messages::ToDriver;
use super::thread_messages::ToMonitor;
use super::worker_monitor::WorkerMonitor;
use crate::error::{Code, Error, Result};
use crate::machine::calculator::{CalculatorEvent, CalculatorInput, CalculatorMachine};
use crate::machine::engine::monitor_engine::MonitorEngine;
use crate::machine::position::Position;
use crate::runtime::common::event_log::EventLog;
use crate::runtime::common::thread_group::{Signals, ThreadGroup};
use crate::runtime::guarded_store::BreakerListener;
use crate::runtime::notifier::Hub;
use crate::runtime::publish::list_reader::{SourceThread, ThreadedReader, threaded};
use crate::runtime::publish::partition_list::PartitionSource;
use crate::runtime::publish::publisher::{Publish, Publisher, PublisherSettings, Shadow};
use crate::runtime::publish::rebalancer::Rebalancer;
use crate::runtime::running_host_calls::{HostCalls, OverdueCheck};
use crate::store::Store;
use crate::strategy::Strategy;
use crate::threads::OwnThread;
use crate::threads::cancel::{self, WaitError};
use crate::time::deadline::{DROP_TIMEOUT, deadline_after};
use crate::types::Partition;
use crate::vocabulary::labels::HostCall;
use crate::wire::KeyPrefix;

/// Messages that may wait for `dv-calc` before senders wait themselves.
const INBOX_MAX: usize = 1_024;

/// How long a start that failed waits for what it started.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(1);

/// The thread that waits for the store and runs the host's code.
const PUBLISHER: &str = "dv-publish";

/// The thread that calls the partition source.
const SOURCE: &str = "dv-source";

/// One life of a calculator, from start to stop.
pub(crate) struct RunningCalculator {
    threads: ThreadGroup,
    pub to_driver: Sender<ToDriver>,
    pub to_monitor: Sender<ToMonitor>,
    /// Set by `dv-calc` when the take-over has succeeded.
    is_up: Arc<AtomicBool>,
    /// The result of the take-over; `dv-calc` sends it once.
    when_started: Receiver<Result<()>>,
}

impl RunningCalculator {
    /// Whether it is started and no stop was requested.
    pub fn is_at_work(&self) -> bool {
        self.is_up.load(Ordering::Acquire) && self.threads.is_wanted()
    }
}

impl Calculator {
    pub(crate) fn start_by(&self, deadline: Instant) -> Result<()> {
        let (life, spawned) = self.running.begin("calculator", || {
            let (life, spawned) = self.spawn(deadline)?;
            *self.probe.life.lock() = Arc::downgrade(&life);
            Ok((life, spawned))
        })?;
        let started = spawned.and_then(|()| {
            let deadline = deadline + Duration::from_millis(50);
            match cancel::recv_deadline(&life.when_started, deadline) {
                Ok(result) => result,
                Err(WaitError::TimedOut) => Err(Error::new(
                    Code::TimedOut,
                    format!(
                        "not started in time{}",
                        self.shared.operation_in_progress.description()
                    ),
                )),
                Err(WaitError::Cancelled) => Err(cancel::error("not started")),
                Err(WaitError::Disconnected) => {
                    life.threads.wait_idle(deadline_after(CLEANUP_TIMEOUT));
                    Err(self.shared.ended("stopped while it was starting"))
                }
            }
        });
        let Err(error) = started else { return Ok(()) };
        // The store's calls end with the same deadline; only the host's own code may take longer.
        let has_failed = self.shared.failed.lock().is_some();
        let cleanup = || self.end(&life, deadline_after(CLEANUP_TIMEOUT), has_failed);
        cancel::without_cancellation(cleanup)
            .map_err(|busy| Error::new(error.code(), format!("{error}; moreover, {busy}")))?;
        Err(error)
    }

    /// Publishes nothing more from now on, without waiting; [`Calculator::stop`] joins the threads.
    pub(crate) fn abandon(&self) {
        let running = self.running.current();
        if let Some(running) = running {
            running.threads.signal_stop();
        }
    }

    /// Whether this is a thread of it.
    pub(crate) fn is_own_thread(&self) -> bool {
        OwnThread::belongs_to(self.shared.id)
    }

    pub(crate) fn stop_by(&self, deadline: Instant) -> Result<()> {
        if self.is_own_thread() {
            return Err(Error::new(
                Code::WouldDeadlock,
                "stop would wait for its own thread; call it from another thread",
            ));
        }
        let running = self.running.current();
        match running {
            Some(running) => self.end(&running, deadline, true),
            None => {
                Hub::end(self.shared.hub.take_subscribers());
                Ok(())
            }
        }
    }

    /// Ends one life. Any number of threads may do so at the same time.
    fn end(&self, life: &Arc<RunningCalculator>, deadline: Instant, close_hub: bool) -> Result<()> {
        life.threads.signal_stop();
        let words = |name| match name {
            PUBLISHER => self.shared.operation_in_progress.description().to_owned(),
            SOURCE => " (in the host's partition source)".to_owned(),
            _ => String::new(),
        };
        life.threads.join_workers(deadline, words)?;
        self.running.conclude(
            life,
            &life.threads,
            &self.shared.hub,
            close_hub,
            deadline,
            || {
                let idle = Position::idle(self.clock.now());
                let version = self.shared.snapshot.load().version;
                self.shared.snapshot.store(CalculatorSnapshot {
                    position: idle,
                    version,
                });
                self.shared.hub.set_idle(idle.since, version);
            },
        )
    }

    /// Starts the threads of a new life. The life is there to be ended also when that failed
    /// half way.
    fn spawn(&self, deadline: Instant) -> Result<(Arc<RunningCalculator>, Result<()>)> {
        let now = self.clock.now();
        let machine = CalculatorMachine::new(
            self.config.clone(),
            now,
            fastrand::u64(..),
            self.partitions.is_ready(),
        );
        let (to_driver, driver_inbox) = bounded(INBOX_MAX);
        let (to_monitor, monitor_orders) = unbounded();
        let (to_publisher, publisher_jobs) = bounded(1);
        let (started, when_started) = bounded(1);
        let (
            threads,
            Signals {
                stopped,
                finished,
                halted,
            },
        ) = ThreadGroup::new();
        let monitor = WorkerMonitor {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            engine: MonitorEngine::new(&self.config, fastrand::u64(..))?,
            config: self.config.clone(),
            shared: Arc::clone(&self.shared),
            event_log: EventLog::default(),
            to_driver: to_driver.clone(),
            config_source: self.config_source.clone(),
        };
        let (reader, source_thread) = threaded(stopped.clone(), self.config.host_call_timeout);
        let publisher = self.publisher(&stopped, to_driver.clone(), reader)?;
        *self.shared.failed.lock() = None;
        self.shared.hub.reset(machine.current_state());
        let is_up = Arc::new(AtomicBool::new(false));
        self.shared.last_heard.forget();
        let driver = CalculatorDriver {
            machine,
            breaker: self.store.changes(BreakerListener::Calculator),
            started,
            is_up: Arc::clone(&is_up),
            overdue_check: OverdueCheck::new(Arc::clone(&self.shared.host_calls)),
            shell: DriverShell {
                state_since: now,
                fleet: FleetChanges::of_a_start(),
                // No number of partitions: the first one is reported, whatever it is.
                unassigned_reported: usize::MAX,
                clock: Arc::clone(&self.clock),
                shared: Arc::clone(&self.shared),
                to_publisher,
                to_monitor: to_monitor.clone(),
                event_log: EventLog::default(),
            },
        };
        let life = Arc::new(RunningCalculator {
            threads,
            to_driver,
            to_monitor,
            when_started,
            is_up,
        });
        let spawned = (|| {
            if self.has_callbacks {
                let hub = Arc::clone(&self.shared.hub);
                let run = move || hub.run(&finished, &halted);
                let on_panic = self.on_panic(&life);
                life.threads.spawn_notifier(self.shared.id, run, on_panic)?;
            }
            let stop = stopped.clone();
            let shared = Arc::clone(&self.shared);
            self.spawn_worker(&life, "dv-calc", move || {
                // However this thread ends, the inbox is closed before the waiting callers are
                // disconnected, so that none is missed.
                let _farewell = CloseOnExit(shared);
                let inbox = driver_inbox;
                driver.run(&inbox, &stop);
            })?;
            let stop = stopped.clone();
            self.spawn_worker(&life, "dv-watch", move || {
                monitor.run(&monitor_orders, &stop)
            })?;
            self.spawn_source(&life, source_thread, stopped.clone())?;
            self.spawn_worker(&life, PUBLISHER, move || {
                publisher.run(deadline, &publisher_jobs, &stopped);
            })?;
            Ok(())
        })();
        Ok((life, spawned))
    }

    /// Starts the thread that calls the partition source, if there is one.
    fn spawn_source(
        &self,
        life: &Arc<RunningCalculator>,
        thread: SourceThread,
        stop: Receiver<Infallible>,
    ) -> Result<()> {
        let Some(inner) = self.partitions.source() else {
            return Ok(());
        };
        let source = SupervisedSource {
            inner,
            host_calls: Arc::clone(&self.shared.host_calls),
        };
        let to_driver = life.to_driver.clone();
        self.spawn_worker(life, SOURCE, move || {
            thread.run(&source, &stop, |generation| {
                let changed = CalculatorInput::PartitionsChanged {
                    generation,
                    ticket: None,
                };
                // Fails only when `dv-calc` has ended; then so does this thread.
                let _ = to_driver.send(ToDriver::CalculatorInput(changed));
            });
        })
    }

    fn publisher(
        &self,
        stopped: &Receiver<Infallible>,
        to_driver: Sender<ToDriver>,
        reader: ThreadedReader,
    ) -> Result<AssignmentPublisher> {
        let environment = Arc::new(SystemEnvironment {
            stop: stopped.clone(),
            clock: Arc::clone(&self.clock),
            store: Arc::clone(&self.store),
        });
        let settings = PublisherSettings {
            leader: self.config.name.clone(),
            assignment: KeyPrefix::new(&self.config.assignment_prefix)?,
            heartbeat: KeyPrefix::new(&self.config.heartbeat_prefix)?,
            mode: self.config.publish_mode,
            batch_max: self.config.publish_batch_max,
            heartbeat_ttl: self.config.heartbeat_ttl,
        };
        let guarded_store: Arc<dyn Store> = self.store.clone();
        let store: Arc<dyn Store> = Arc::new(StopGuarded {
            inner: guarded_store,
            stop: stopped.clone(),
            operation_in_progress: Arc::clone(&self.shared.operation_in_progress),
            host_calls: Arc::clone(&self.shared.host_calls),
        });
        let strategy: Arc<dyn Strategy> = Arc::new(StopGuarded {
            inner: Arc::clone(&self.strategy),
            stop: stopped.clone(),
            operation_in_progress: Arc::clone(&self.shared.operation_in_progress),
            host_calls: Arc::clone(&self.shared.host_calls),
        });
        let publisher = Publisher::new(
            Arc::clone(&store),
            environment.clone(),
            settings,
            Arc::clone(&self.shared.in_force),
        )
        .remembering(*self.shared.remembered.lock())
        .with_config(self.config_source.digest())
        .with_metrics(Arc::clone(&self.shared.metrics_sink.assignment));
        let publisher: Box<dyn Publish> = if self.config.shadow {
            Box::new(Shadow::of(publisher))
        } else {
            Box::new(publisher)
        };
        Ok(AssignmentPublisher {
            store,
            guarded_store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            config: self.config.clone(),
            rebalancer: Rebalancer::over(
                publisher,
                Arc::clone(&self.partitions),
                strategy,
                self.config.default_weight,
                self.config.former_leader_lease_over,
            )
            .with_metrics(Arc::clone(&self.shared.metrics_sink.assignment))
            .with_list_guard(&self.config, Arc::clone(&self.clock))
            .with_reader(reader, self.config.source_wait),
            environment,
            to_driver,
            shared: Arc::clone(&self.shared),
        })
    }

    fn spawn_worker(
        &self,
        life: &Arc<RunningCalculator>,
        name: &'static str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        let on_panic = self.on_panic(life);
        life.threads.spawn(self.shared.id, name, body, on_panic)
    }

    /// A panic on a thread fails the handle and stops the other threads.
    fn on_panic(&self, life: &Arc<RunningCalculator>) -> impl FnOnce(String) + Send + 'static {
        let shared = Arc::clone(&self.shared);
        let life = Arc::downgrade(life);
        move |message| {
            shared.fail(&message);
            if let Some(life) = life.upgrade() {
                life.threads.signal_stop();
            }
            shared.hub.publish(CalculatorEvent::Fatal {
                message: message.clone(),
            });
            // Last, for it runs the host's code.
            log::error!(target: "divvy::calculator", "calculator failed: {message}");
        }
    }
}

/// The host's source, its calls registered.
struct SupervisedSource {
    inner: Arc<dyn PartitionSource>,
    host_calls: Arc<HostCalls>,
}

impl PartitionSource for SupervisedSource {
    fn list_partitions(&self, deadline: Instant) -> Result<Vec<Partition>> {
        self.host_calls
            .run(HostCall::Source, || self.inner.list_partitions(deadline))
    }
}

/// Disconnects the waiting callers when `dv-calc` ends for any reason.
struct CloseOnExit(Arc<CalculatorShared>);

impl Drop for CloseOnExit {
    fn drop(&mut self) {
        self.0.abandon_callers();
    }
}

impl Drop for Calculator {
    fn drop(&mut self) {
        if let Err(error) = self.stop_by(deadline_after(DROP_TIMEOUT)) {
            log::warn!(target: "divvy::calculator", "handle dropped before stop completed: {error}");
            if let Some(life) = self.running.take() {
                life.threads.signal_end();
            }
            // Readers must not wait forever for events of a calculator that has ended.
            Hub::end(self.shared.hub.take_subscribers());
        }
    }
}

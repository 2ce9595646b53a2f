//! Starting, stopping and losing the threads of a manager.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::Manager;
use super::cache_file::CacheFile;
use super::io::{Io, LeaderElection, SupervisedElection};
use super::manager_driver::{MakeCalculator, ManagerDriver};
use super::manager_measurements::ManagerMeasurements;
use super::manager_status::ManagerMachineStatus;
use super::manager_watches::ManagerWatches;
use super::member_messages::ToMember;
use crate::error::{Code, Error, Result};
use crate::machine::election::Rule;
use crate::machine::manager::{Departure, ManagerEvent, ManagerInput, ManagerMachine};
use crate::runtime::calculator::Calculator;
use crate::runtime::common::event_log::EventLog;
use crate::runtime::common::thread_group::{Signals, ThreadGroup};
use crate::runtime::guarded_store::BreakerListener;
use crate::runtime::notifier::Hub;
use crate::runtime::publish::config_source::ConfigSource;
use crate::runtime::publish::partition_list::Partitions;
use crate::runtime::running_host_calls::OverdueCheck;
use crate::threads::OwnThread;
use crate::threads::cancel::{self, WaitError};
use crate::time::deadline::{DROP_TIMEOUT, deadline_after};
use crate::wire::KeyPrefix;

/// Messages that may wait for `dv-member` before senders wait themselves: a few from each call under
/// way. The channel takes the memory for all of them at once, so there are not more.
const INBOX_MAX: usize = 128;

/// How long a start that failed waits for what it started.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(1);

/// The thread that waits for the store and runs the host's election.
const IO: &str = "dv-io";

/// The thread that owns the machine.
const MEMBER: &str = "dv-member";

/// One life of a manager, from start to stop.
pub(super) struct RunningManager {
    threads: ThreadGroup,
    to_member: Sender<ToMember>,
    /// Disconnected when `dv-member` has ended: the worker has left, or the threads were stopped.
    gone: Receiver<()>,
    /// The result of joining; sent once.
    when_joined: Receiver<Result<()>>,
    is_up: AtomicBool,
}

impl RunningManager {
    pub fn is_at_work(&self) -> bool {
        self.is_up.load(Ordering::Acquire) && self.threads.is_wanted()
    }

    pub fn ask_status(&self, reply: Sender<ManagerMachineStatus>, timeout: Duration) {
        let _ = self
            .to_member
            .send_timeout(ToMember::Status(reply), timeout);
    }

    /// Asks the worker to leave and waits for it. Returns whether the wait completed uncancelled.
    fn depart(&self, departure: Departure, deadline: Instant) -> bool {
        let stop = ToMember::ManagerInput(ManagerInput::Stop(departure));
        let ended = match cancel::send_deadline(&self.to_member, stop, deadline) {
            Ok(()) => cancel::recv_deadline(&self.gone, deadline),
            Err(wait_error) => Err(wait_error),
        };
        ended != Err(WaitError::Cancelled)
    }
}

impl Manager {
    pub(super) fn start_by(&self, deadline: Instant) -> Result<()> {
        let (life, spawned) = self.life.begin("manager", || self.spawn())?;
        let joined = spawned.and_then(|()| self.wait_for_joining(&life, deadline));
        let Err(error) = joined else {
            life.is_up.store(true, Ordering::Release);
            return Ok(());
        };
        let has_failed = self.shared.failed.lock().is_some();
        let cleanup = deadline_after(CLEANUP_TIMEOUT);
        cancel::without_cancellation(|| self.end(&life, Departure::Leave, cleanup, has_failed))
            .map_err(|busy| Error::new(error.code(), format!("{error}; moreover, {busy}")))?;
        Err(error)
    }

    fn wait_for_joining(&self, life: &RunningManager, deadline: Instant) -> Result<()> {
        match cancel::recv_deadline(&life.when_joined, deadline) {
            Ok(result) => result,
            Err(WaitError::Cancelled) => Err(cancel::error("not a member")),
            Err(WaitError::Disconnected) => {
                life.threads.wait_idle(deadline_after(CLEANUP_TIMEOUT));
                Err(self.shared.ended("stopped while it was starting"))
            }
            Err(WaitError::TimedOut) => {
                let snapshot = self.shared.snapshot();
                let in_time = format!("not joined in time (state {})", snapshot.state);
                Err(match snapshot.last_failure {
                    // Returned as it is: waiting longer would not help.
                    Some(cause) if cause.code() == Code::IdsExhausted => cause,
                    Some(cause) => Error::new(Code::TimedOut, in_time).caused_by(cause),
                    None => Error::new(Code::TimedOut, in_time),
                })
            }
        }
    }

    pub(super) fn stop_by(&self, departure: Departure, deadline: Instant) -> Result<()> {
        let leading = self.shared.leading.lock().clone();
        let is_calculators = leading.is_some_and(|leading| leading.calculator.is_own_thread());
        if is_calculators || OwnThread::belongs_to(self.shared.id) {
            return Err(Error::new(
                Code::WouldDeadlock,
                "stop would wait for its own thread; call it from another thread",
            ));
        }
        let life = self.life.current();
        match life {
            Some(life) => self.end(&life, departure, deadline, true),
            None => {
                Hub::end(self.shared.hub.take_subscribers());
                Ok(())
            }
        }
    }

    /// Ends one life. Any number of threads may do so at the same time.
    fn end(
        &self,
        life: &Arc<RunningManager>,
        departure: Departure,
        deadline: Instant,
        close_hub: bool,
    ) -> Result<()> {
        life.is_up.store(false, Ordering::Release);
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        if !life.depart(departure, now + left * 3 / 4) {
            // It leaves by itself: its last writes to the store are not cut off.
            return Err(cancel::error(
                "the worker is still leaving in the background; call stop again to wait for it",
            ));
        }
        life.threads.signal_stop();
        let leading = self.shared.leading.lock().clone();
        let words = |name| match leading.as_ref().and_then(|leading| leading.busy()) {
            Some(busy) if name == IO => format!(" (stopping the calculator: {busy})"),
            _ => String::new(),
        };
        life.threads.join_workers(deadline, words)?;
        if let Some(leading) = &leading {
            // The worker had no time to end it, or has failed.
            leading
                .calculator
                .stop(deadline.saturating_duration_since(Instant::now()))?;
            *self.shared.leading.lock() = None;
        }
        self.life.conclude(
            life,
            &life.threads,
            &self.shared.hub,
            close_hub,
            deadline,
            || {
                self.shared.rest(self.clock.now());
            },
        )
    }

    /// Starts the threads of a new life. The life is there to be ended also when that failed half
    /// way.
    fn spawn(&self) -> Result<(Arc<RunningManager>, Result<()>)> {
        let seed = fastrand::u64(..);
        let machine = ManagerMachine::new(self.config.clone(), self.rule, self.clock.now(), seed)?;
        let prefix = KeyPrefix::new(&self.config.calculator.assignment_prefix)?;
        let (to_member, inbox) = bounded(INBOX_MAX);
        let (joined, when_joined) = bounded(1);
        let (here, gone) = bounded(0);
        let (threads, signals) = ThreadGroup::new();
        let Signals {
            stopped,
            finished,
            halted,
        } = signals;
        self.shared.begin(machine.current_state());
        let life = Arc::new(RunningManager {
            threads,
            to_member: to_member.clone(),
            gone,
            when_joined,
            is_up: AtomicBool::new(false),
        });
        let spawned = (|| {
            let hub = Arc::clone(&self.shared.hub);
            let run = move || hub.run(&finished, &halted);
            let on_panic = self.on_panic(&life);
            life.threads.spawn_notifier(self.shared.id, run, on_panic)?;
            let io = Io::start(stopped.clone(), self.spawn_io(&life))?;
            let driver = ManagerDriver {
                machine,
                clock: Arc::clone(&self.clock),
                shared: Arc::clone(&self.shared),
                store: self.store.clone(),
                election: self.election.clone().map(|inner| {
                    let host_calls = Arc::clone(&self.shared.host_calls);
                    Arc::new(SupervisedElection { inner, host_calls }) as Arc<dyn LeaderElection>
                }),
                overdue_check: OverdueCheck::new(Arc::clone(&self.shared.host_calls)),
                assignment_prefix: prefix,
                make_calculator: self.make_calculator(),
                watches: ManagerWatches::new(
                    Arc::clone(&self.store),
                    Arc::clone(&io),
                    to_member.clone(),
                    &self.config.calculator,
                ),
                breaker: self.store.changes(BreakerListener::Manager),
                io,
                waker: bounded(1),
                to_member: to_member.clone(),
                joined,
                departed: false,
                event_log: EventLog::default(),
                config_source: ConfigSource::new(
                    &self.config.calculator,
                    &*self.strategy,
                    Arc::clone(&self.partitions),
                ),
                cache: CacheFile::of(&self.config, &*self.store),
                measures: ManagerMeasurements::new(
                    self.metrics_sink.clone(),
                    self.config.heartbeat_interval,
                    self.clock.now(),
                ),
            };
            let working = move || {
                let _here = here;
                driver.run(&inbox, &stopped);
            };
            life.threads
                .spawn(self.shared.id, MEMBER, working, self.on_panic(&life))?;
            let _ = to_member.send(ToMember::ManagerInput(ManagerInput::Start));
            Ok(())
        })();
        Ok((life, spawned))
    }

    fn spawn_io(&self, life: &Arc<RunningManager>) -> super::io::Spawn {
        let weak = Arc::downgrade(life);
        let owner = self.shared.id;
        let on_panic = self.on_panic(life);
        Box::new(move |body| {
            let life = weak.upgrade();
            let life =
                life.ok_or_else(|| Error::new(Code::NotRunning, "the manager is not started"))?;
            life.threads.spawn(owner, IO, body, on_panic.clone())
        })
    }

    /// Each leadership has a calculator of its own, over the same partitions.
    fn make_calculator(&self) -> MakeCalculator {
        let store = Arc::clone(&self.store);
        let metrics_sink = self.metrics_sink.calculator.clone();
        let strategy = Arc::clone(&self.strategy);
        let source = self.source.clone();
        let clock = Arc::clone(&self.clock);
        let partitions: Arc<Partitions> = Arc::clone(&self.partitions);
        let mut config = self.config.calculator.clone();
        // A new leader knows that the former lease has expired.
        config.former_leader_lease_over = self.rule == Rule::Lease;
        Box::new(move |worker| {
            let mut builder = Calculator::builder(store.clone()).config(config.clone());
            builder.guarded_store = Some(Arc::clone(&store));
            builder.config.name = worker.as_str().to_owned();
            builder.strategy = Arc::clone(&strategy);
            builder.source.clone_from(&source);
            builder.clock = Arc::clone(&clock);
            builder.metrics_sink.clone_from(&metrics_sink);
            builder.pushed = Some(Arc::clone(&partitions));
            // Its events are read by `dv-member`.
            builder.has_callbacks = false;
            builder.build()
        })
    }

    /// A panic on a thread fails the handle: the other threads stop, and so do the heartbeats.
    fn on_panic(
        &self,
        life: &Arc<RunningManager>,
    ) -> impl Fn(String) + Clone + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        let life = Arc::downgrade(life);
        move |message| fail(&shared, &life, &message)
    }
}

fn fail(
    shared: &super::manager_shared::ManagerShared,
    life: &std::sync::Weak<RunningManager>,
    message: &str,
) {
    shared.fail(message);
    if let Some(life) = life.upgrade() {
        life.threads.signal_stop();
    }
    let leading = shared.leading.lock().clone();
    if let Some(leading) = leading {
        leading.calculator.abandon();
    }
    shared.hub.publish(ManagerEvent::Fatal {
        message: message.to_owned(),
    });
    // Last, for it runs the host's code.
    log::error!(target: "divvy::manager", "manager failed: {message}");
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Err(error) = self.stop_by(Departure::Leave, deadline_after(DROP_TIMEOUT)) {
            log::warn!(target: "divvy::manager", "handle dropped before stop completed: {error}");
            if let Some(life) = self.life.take() {
                life.threads.signal_end();
            }
            Hub::end(self.shared.hub.take_subscribers());
        }
    }
}

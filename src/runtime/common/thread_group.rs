//! The threads of one life of a handle: started, watched for panics, and joined by a deadline.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;

use crate::error::{Code, Error, Result};
use crate::runtime::notifier::Hub;
use crate::runtime::notifier::Notification;
use crate::threads::OwnThread;
use crate::threads::cancel;
use crate::threads::panic_text;
use crate::threads::{Thread, signal};

/// The thread that runs callbacks; it is stopped last.
const NOTIFIER: &str = "dv-notify";

/// The threads of one life, from start to stop.
pub(crate) struct ThreadGroup {
    threads: Mutex<Vec<Arc<Thread>>>,
    notifier: Mutex<Option<Arc<Thread>>>,
    /// Dropped to stop the threads that work.
    stop: Mutex<Option<Sender<Infallible>>>,
    /// Dropped to let `dv-notify` deliver what is left and end.
    finish: Mutex<Option<Sender<Infallible>>>,
    /// Dropped to stop `dv-notify` after the callback that runs.
    halt: Mutex<Option<Sender<Infallible>>>,
}

/// Signals the threads to end.
pub(crate) struct Signals {
    /// Disconnected when the threads that work are to stop.
    pub stopped: Receiver<Infallible>,
    /// Disconnected when `dv-notify` is to deliver what is left and end.
    pub finished: Receiver<Infallible>,
    /// Disconnected when `dv-notify` is to end after the callback that runs.
    pub halted: Receiver<Infallible>,
}

impl ThreadGroup {
    pub fn new() -> (Self, Signals) {
        let (stop, stopped) = signal();
        let (finish, finished) = signal();
        let (halt, halted) = signal();
        let threads = Self {
            threads: Mutex::new(Vec::new()),
            notifier: Mutex::new(None),
            stop: Mutex::new(Some(stop)),
            finish: Mutex::new(Some(finish)),
            halt: Mutex::new(Some(halt)),
        };
        let signals = Signals {
            stopped,
            finished,
            halted,
        };
        (threads, signals)
    }

    /// Starts a thread that works for the handle `owner`. `on_panic` is called on it when it
    /// panics.
    pub fn spawn(
        &self,
        owner: u64,
        name: &'static str,
        body: impl FnOnce() + Send + 'static,
        on_panic: impl FnOnce(String) + Send + 'static,
    ) -> Result<()> {
        let mut threads = self.threads.lock();
        // Threads that come and go are joined once their work is over.
        threads.retain(|thread| !thread.is_finished() || thread.join(Instant::now()).is_err());
        let thread = Thread::spawn(name, move || guarded(owner, name, body, on_panic))?;
        threads.push(Arc::new(thread));
        Ok(())
    }

    /// Starts the thread that runs callbacks.
    pub fn spawn_notifier(
        &self,
        owner: u64,
        body: impl FnOnce() + Send + 'static,
        on_panic: impl FnOnce(String) + Send + 'static,
    ) -> Result<()> {
        let thread = Thread::spawn(NOTIFIER, move || guarded(owner, NOTIFIER, body, on_panic))?;
        *self.notifier.lock() = Some(Arc::new(thread));
        Ok(())
    }

    /// Whether no stop was requested.
    pub fn is_wanted(&self) -> bool {
        self.stop.lock().is_some()
    }

    /// Asks the threads that work to stop.
    pub fn signal_stop(&self) {
        *self.stop.lock() = None;
    }

    /// No callback starts any more.
    pub fn signal_halt(&self) {
        *self.halt.lock() = None;
    }

    /// Asks all threads to end as soon as they can.
    pub fn signal_end(&self) {
        self.signal_stop();
        *self.finish.lock() = None;
        self.signal_halt();
    }

    /// Waits until the result of every worker thread is known, or the deadline passes. A panicking
    /// thread releases its resources before the result is reported.
    pub fn wait_idle(&self, deadline: Instant) {
        let _ = self.workers_ended(deadline, |_| String::new());
    }

    /// Waits for the worker threads. At the deadline, or when the call is cancelled, names the threads
    /// that are still busy, each with the text of `words`. After the deadline no callback starts;
    /// cancelling the wait does not stop delivery.
    pub fn join_workers(
        &self,
        deadline: Instant,
        words: impl Fn(&'static str) -> String,
    ) -> Result<()> {
        let ended = self.workers_ended(deadline, words);
        if ended
            .as_ref()
            .is_err_and(|busy| busy.code() != Code::Cancelled)
        {
            self.signal_halt();
        }
        ended
    }

    fn workers_ended(
        &self,
        deadline: Instant,
        words: impl Fn(&'static str) -> String,
    ) -> Result<()> {
        let threads = self.threads.lock().clone();
        let busy: Vec<String> = threads
            .iter()
            .filter(|thread| !has_ended(thread, deadline))
            .map(|thread| format!("{}{}", thread.name(), words(thread.name())))
            .collect();
        if busy.is_empty() {
            return Ok(());
        }
        Err(still_busy(&busy.join(", ")))
    }

    /// Delivers the backlog for half of the remaining time, then waits only for the running callback.
    pub fn join_notifier(&self, deadline: Instant) -> Result<()> {
        *self.finish.lock() = None;
        let Some(thread) = self.notifier.lock().clone() else {
            return Ok(());
        };
        let now = Instant::now();
        let half = now + deadline.saturating_duration_since(now) / 2;
        if has_ended(&thread, half) {
            return Ok(());
        }
        // Cancelling the wait does not stop delivery.
        if !cancel::is_cancelled() {
            self.signal_halt();
            if has_ended(&thread, deadline) {
                return Ok(());
            }
        }
        Err(still_busy(&format!(
            "{NOTIFIER} (in a subscriber's callback)"
        )))
    }
}

/// The life that a handle has: from its start until everything of it has ended.
pub(crate) struct LifecycleSlot<L>(Mutex<Option<Arc<L>>>);

impl<L> Default for LifecycleSlot<L> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<L> LifecycleSlot<L> {
    /// The life there is now.
    pub fn current(&self) -> Option<Arc<L>> {
        self.0.lock().clone()
    }

    /// Takes the life out, whatever is left of it.
    pub fn take(&self) -> Option<Arc<L>> {
        self.0.lock().take()
    }

    /// Starts a lifecycle unless the call was cancelled before. It is stored even if `begin` fails
    /// halfway, so that it can be stopped.
    pub fn begin<S>(
        &self,
        whose: &str,
        begin: impl FnOnce() -> Result<(Arc<L>, S)>,
    ) -> Result<(Arc<L>, S)> {
        if cancel::is_cancelled() {
            return Err(cancel::error("not started"));
        }
        // Held throughout, so that no concurrent stop sees a half-started lifecycle.
        let mut slot = self.0.lock();
        if slot.is_some() {
            return Err(Error::new(
                Code::AlreadyStarted,
                format!("the {whose} is started or still stopping; stop it first"),
            ));
        }
        let (life, rest) = begin()?;
        *slot = Some(Arc::clone(&life));
        Ok((life, rest))
    }

    /// Ends a lifecycle whose worker threads have ended: subscribers receive their backlog and, with
    /// `close_hub`, their end. `idle` is called once before the next lifecycle can begin. Any number of
    /// threads may call this concurrently.
    pub fn conclude<N: Notification>(
        &self,
        life: &Arc<L>,
        threads: &ThreadGroup,
        hub: &Hub<N>,
        close_hub: bool,
        deadline: Instant,
        idle: impl FnOnce(),
    ) -> Result<()> {
        if close_hub {
            // Nothing is published any more, and a callback may be waiting for a receiver's end.
            hub.close_receivers();
        }
        threads.join_notifier(deadline)?;
        let subscribers = {
            let mut slot = self.0.lock();
            let is_current = slot.as_ref().is_some_and(|now| Arc::ptr_eq(now, life));
            if !is_current {
                return Ok(()); // another thread stopped it, and it may have been started again
            }
            idle();
            *slot = None;
            close_hub.then(|| hub.take_subscribers())
        };
        // No lock is held here, because this drops values of the host.
        if let Some(subscribers) = subscribers {
            Hub::end(subscribers);
        }
        Ok(())
    }
}

fn guarded(owner: u64, name: &'static str, body: impl FnOnce(), on_panic: impl FnOnce(String)) {
    OwnThread::mark(owner, name == NOTIFIER);
    let Err(panic) = catch_unwind(AssertUnwindSafe(body)) else {
        return;
    };
    let message = format!("thread {name} panicked: {}", panic_text(panic.as_ref()));
    // Its destructor may panic, too.
    std::mem::forget(panic);
    on_panic(message);
}

/// Joins a thread; its result has already been reported.
pub(crate) fn has_ended(thread: &Thread, deadline: Instant) -> bool {
    let ended = thread.join(deadline);
    !matches!(ended, Err(error) if matches!(error.code(), Code::TimedOut | Code::Cancelled))
}

fn still_busy(what: &str) -> Error {
    let words = format!("still busy: {what}; call again");
    if cancel::is_cancelled() {
        return cancel::error(&words);
    }
    Error::new(Code::TimedOut, words)
}

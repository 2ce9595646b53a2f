//! Delivery of events to subscribers: every one, in order, never blocking the machine.
//!
//! Each subscriber has its own backlog, filled by `dv-calc` without waiting. Callbacks run on
//! `dv-notify`, one at a time, with no lock held; receivers are read by the host. A subscriber
//! whose backlog is full is closed: what is in the backlog is still delivered, then a last event
//! tells how many were missed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, select_biased};
use parking_lot::{Condvar, Mutex};

use super::rebalancer::panic_text;
use super::shared::OwnThread;
use crate::error::{Code, Error, Result};
use crate::machine::calculator::{Notice, StateChange};

/// Which events a subscriber wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interest {
    /// State changes, publications, failures, degradations.
    #[default]
    State,
    /// Those, and every worker that joined, left, went missing, came back or was lost.
    StateAndMembers,
}

impl Interest {
    fn covers(self, notice: &Notice) -> bool {
        self == Interest::StateAndMembers || !matches!(notice, Notice::Member(_))
    }
}

type Callback = Box<dyn FnMut(&Notice) + Send>;

/// One subscriber's backlog, and its callback where it has one.
struct Subscriber {
    interest: Interest,
    backlog_max: usize,
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Taken out while it runs, so that no lock is held then.
    callback: Mutex<Option<Callback>>,
    has_callback: bool,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Arc<Notice>>,
    /// Events that came after the backlog was full; told in the last event.
    missed: u64,
    is_open: bool,
    is_running: bool,
}

impl Subscriber {
    fn new(interest: Interest, backlog_max: usize, callback: Option<Callback>) -> Self {
        Self {
            interest,
            backlog_max,
            queue: Mutex::new(Queue {
                is_open: true,
                ..Queue::default()
            }),
            changed: Condvar::new(),
            has_callback: callback.is_some(),
            callback: Mutex::new(callback),
        }
    }

    /// Whether the backlog was full for the first time.
    fn push(&self, notice: &Arc<Notice>) -> bool {
        if !self.interest.covers(notice) {
            return false;
        }
        let mut queue = self.queue.lock();
        if !queue.is_open {
            return false;
        }
        if queue.missed > 0 || queue.events.len() >= self.backlog_max {
            queue.missed += 1;
            return queue.missed == 1;
        }
        queue.events.push_back(Arc::clone(notice));
        drop(queue);
        self.changed.notify_all();
        false
    }

    /// The next event. After the last event of a full backlog comes the one that says so, and
    /// then nothing.
    fn pop(queue: &mut Queue) -> Option<Arc<Notice>> {
        if let Some(event) = queue.events.pop_front() {
            return Some(event);
        }
        if queue.missed > 0 && queue.is_open {
            queue.is_open = false;
            let missed = queue.missed;
            return Some(Arc::new(Notice::Lagged { missed }));
        }
        None
    }

    fn close(&self) {
        self.queue.lock().is_open = false;
        self.changed.notify_all();
    }

    fn discard(&self) {
        let mut queue = self.queue.lock();
        queue.is_open = false;
        queue.missed = 0;
        queue.events.clear();
        drop(queue);
        self.changed.notify_all();
    }
}

/// All subscribers of one handle.
pub(super) struct Hub {
    inner: Mutex<HubState>,
    backlog_max: usize,
    bell: Sender<()>,
    rung: Receiver<()>,
    pub lagged: AtomicU64,
    pub callback_panics: AtomicU64,
}

struct HubState {
    subscribers: Vec<Arc<Subscriber>>,
    current: StateChange,
}

impl Hub {
    pub fn new(current: StateChange, backlog_max: usize) -> Self {
        // One place suffices: the bell says "look at the queues", not how often.
        let (bell, rung) = bounded(1);
        Self {
            inner: Mutex::new(HubState {
                subscribers: Vec::new(),
                current,
            }),
            backlog_max,
            bell,
            rung,
            lagged: AtomicU64::new(0),
            callback_panics: AtomicU64::new(0),
        }
    }

    /// Puts an event into every backlog. Never waits for a subscriber.
    pub fn publish(&self, notice: Notice) {
        let notice = Arc::new(notice);
        let mut inner = self.inner.lock();
        if let Notice::StateChanged(change) = &*notice {
            inner.current = StateChange {
                from: change.to,
                ..*change
            };
        }
        for subscriber in &inner.subscribers {
            if subscriber.push(&notice) {
                self.lagged.fetch_add(1, Ordering::Relaxed);
            }
        }
        let is_closed = |s: &mut Arc<Subscriber>| !s.queue.lock().is_open;
        let closed: Vec<_> = inner.subscribers.extract_if(.., is_closed).collect();
        drop(inner);
        // With no lock held: the host's callbacks, and what they own, are dropped here.
        drop(closed);
        let _ = self.bell.try_send(());
    }

    /// A new life begins in this state.
    pub fn reset(&self, current: StateChange) {
        self.inner.lock().current = current;
    }

    /// Forgets all subscribers; receivers still get what is in their backlog, then their end.
    pub fn close(&self) {
        let subscribers = std::mem::take(&mut self.inner.lock().subscribers);
        for subscriber in subscribers {
            if subscriber.has_callback {
                subscriber.discard();
            } else {
                subscriber.close();
            }
        }
    }

    pub fn subscribe(self: &Arc<Self>, interest: Interest, callback: Callback) -> Subscription {
        let subscriber = self.add(interest, Some(callback));
        let _ = self.bell.try_send(());
        Subscription { subscriber }
    }

    pub fn events(&self, interest: Interest) -> Events {
        Events {
            subscriber: self.add(interest, None),
        }
    }

    fn add(&self, interest: Interest, callback: Option<Callback>) -> Arc<Subscriber> {
        let subscriber = Arc::new(Subscriber::new(interest, self.backlog_max, callback));
        let mut inner = self.inner.lock();
        // Under the same lock as every publication: the current state, then each later change.
        let current = Notice::StateChanged(inner.current);
        subscriber.push(&Arc::new(current));
        inner.subscribers.push(Arc::clone(&subscriber));
        subscriber
    }

    /// The body of `dv-notify`: runs callbacks. When `finish` is disconnected it delivers what is
    /// left and ends; when `halt` is, it ends after the callback that runs.
    pub fn run(&self, finish: &Receiver<Infallible>, halt: &Receiver<Infallible>) {
        loop {
            let is_last = select_biased! {
                recv(halt) -> _ => return,
                recv(finish) -> _ => true,
                recv(self.rung) -> _ => false,
            };
            while !is_disconnected(halt) && self.deliver_round() {}
            if is_last {
                return;
            }
        }
    }

    /// One event to each subscriber with a callback; whether there may be more.
    fn deliver_round(&self) -> bool {
        let subscribers: Vec<_> = {
            let inner = self.inner.lock();
            let with_callback = inner.subscribers.iter().filter(|s| s.has_callback);
            with_callback.cloned().collect()
        };
        let mut any = false;
        for subscriber in subscribers {
            any |= self.deliver_one(&subscriber);
        }
        any
    }

    fn deliver_one(&self, subscriber: &Subscriber) -> bool {
        let event = {
            let mut queue = subscriber.queue.lock();
            let event = Subscriber::pop(&mut queue);
            queue.is_running = event.is_some();
            event
        };
        let Some(event) = event else { return false };
        let callback = subscriber.callback.lock().take();
        if let Some(mut callback) = callback {
            let run = catch_unwind(AssertUnwindSafe(|| callback(&event)));
            match run {
                Ok(()) => *subscriber.callback.lock() = Some(callback),
                Err(panic) => {
                    self.callback_panics.fetch_add(1, Ordering::Relaxed);
                    log::error!(
                        target: "divvy::notify",
                        "a subscriber's callback panicked and is closed: {}",
                        panic_text(panic.as_ref())
                    );
                    subscriber.discard();
                }
            }
        }
        subscriber.queue.lock().is_running = false;
        subscriber.changed.notify_all();
        true
    }
}

fn is_disconnected(signal: &Receiver<Infallible>) -> bool {
    signal.try_recv() == Err(TryRecvError::Disconnected)
}

/// A subscription with a callback. Dropping it unsubscribes, waiting up to 5 s for a running
/// callback; [`Subscription::forever`] lets it run as long as the calculator does.
#[must_use = "dropping a subscription ends it"]
pub struct Subscription {
    subscriber: Arc<Subscriber>,
}

impl Subscription {
    /// Ends the subscription. After it returns `Ok` no callback runs or will run; from inside the
    /// callback it returns at once, and that holds from the callback's return on.
    ///
    /// # Errors
    /// `TimedOut` when the callback still runs after `timeout`; no further one will.
    pub fn unsubscribe(self, timeout: Duration) -> Result<()> {
        let result = self.end(Instant::now() + timeout);
        std::mem::forget(self);
        result
    }

    /// Keeps the subscription for as long as the calculator runs.
    pub fn forever(self) {
        std::mem::forget(self);
    }

    fn end(&self, deadline: Instant) -> Result<()> {
        self.subscriber.discard();
        if OwnThread::is_notifier() {
            return Ok(());
        }
        let mut queue = self.subscriber.queue.lock();
        while queue.is_running {
            if self
                .subscriber
                .changed
                .wait_until(&mut queue, deadline)
                .timed_out()
            {
                return Err(Error::new(
                    Code::TimedOut,
                    "the callback is still running; no further one will",
                )
                .during("unsubscribe"));
            }
        }
        Ok(())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let _ = self.end(Instant::now() + Duration::from_secs(5));
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

/// A subscription that is read: an iterator over events that ends when the calculator stops.
///
/// May be shared; each event goes to one reader. Dropping it unsubscribes.
pub struct Events {
    subscriber: Arc<Subscriber>,
}

impl Events {
    /// The next event; waits for at most `timeout`. `None`: nothing came in time, or
    /// [`Events::is_closed`].
    pub fn recv_timeout(&self, timeout: Duration) -> Option<Arc<Notice>> {
        let deadline = Instant::now() + timeout;
        let mut queue = self.subscriber.queue.lock();
        loop {
            if let Some(event) = Subscriber::pop(&mut queue) {
                return Some(event);
            }
            if !queue.is_open {
                return None;
            }
            if self
                .subscriber
                .changed
                .wait_until(&mut queue, deadline)
                .timed_out()
            {
                return Subscriber::pop(&mut queue);
            }
        }
    }

    /// The next event, if there is one now.
    #[must_use]
    pub fn try_recv(&self) -> Option<Arc<Notice>> {
        Subscriber::pop(&mut self.subscriber.queue.lock())
    }

    /// Whether no event will come any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let queue = self.subscriber.queue.lock();
        !queue.is_open && queue.events.is_empty()
    }
}

impl Iterator for Events {
    type Item = Arc<Notice>;

    /// Waits for the next event without limit; `None` when the calculator has stopped.
    fn next(&mut self) -> Option<Self::Item> {
        let mut queue = self.subscriber.queue.lock();
        loop {
            if let Some(event) = Subscriber::pop(&mut queue) {
                return Some(event);
            }
            if !queue.is_open {
                return None;
            }
            self.subscriber.changed.wait(&mut queue);
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.subscriber.discard();
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

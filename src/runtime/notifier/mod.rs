//! Delivery of events to subscribers: every one, in order, never blocking the machine.
//!
//! Each subscriber has its own backlog, filled by `dv-calc` without blocking. Callbacks run on
//! `dv-notify`, one at a time, with no lock held; the host reads receivers. A subscriber whose
//! backlog is full is closed: the backlog is still delivered, then a last event with the number of
//! missed events.

mod event_filter;
mod events;
mod primitives;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, TryRecvError, select_biased};

pub use self::event_filter::{EventFilter, Notification};
pub use self::events::{Events, Polled, Readiness, RecvError};
use self::primitives::{Condvar, Mutex, ThreadKey, WakeChannel};

use crate::error::{Code, Error, Result};
use crate::machine::calculator::{CalculatorEvent, StateChange};
use crate::metrics::{CalculatorMetrics, NoMetrics};
use crate::runtime::running_host_calls::HostCalls;
use crate::threads::OwnThread;
use crate::threads::panic_text;
use crate::time::deadline::{DROP_TIMEOUT, deadline_after};
use crate::types::{CalculatorState, Time, Version, WorkerId};
use crate::vocabulary::labels::HostCall;

type Callback<N> = Box<dyn FnMut(&Queued<N>) + Send>;

/// An event in a backlog, with the context in which it was queued.
pub(crate) struct Queued<N> {
    pub event: Arc<N>,
    pub time: SystemTime,
    /// The id of the reporting worker, if it had one.
    pub reporter: Option<WorkerId>,
}

impl<N: Notification> Queued<N> {
    fn new(event: Arc<N>, current: &N::Current) -> Self {
        Self {
            event,
            time: SystemTime::now(),
            reporter: N::reporter(current).cloned(),
        }
    }
}

impl<N> Clone for Queued<N> {
    fn clone(&self) -> Self {
        Self {
            event: Arc::clone(&self.event),
            time: self.time,
            reporter: self.reporter.clone(),
        }
    }
}

/// One subscriber's backlog, and its callback where it has one.
struct Subscriber<N: Notification> {
    filter: N::EventFilter,
    backlog_max: usize,
    queue: Mutex<SubscriberQueue<N>>,
    changed: Condvar,
    /// Taken out while it runs, so that no lock is held then.
    callback: Mutex<Option<Callback<N>>>,
    has_callback: bool,
}

struct SubscriberQueue<N> {
    events: VecDeque<Queued<N>>,
    /// Number of events after the backlog was full; sent in the last event.
    missed: u64,
    is_open: bool,
    is_running: bool,
    /// The thread that drops the callback now.
    dropping: Option<ThreadKey>,
    /// Polls that wait now and that a wake ends.
    waiting: usize,
    /// Wakes that found a waiting poll. A poll that sees another number than at its start was woken.
    wakes: u64,
    /// Wakes that no poll has reported yet: for the next polls that would wait.
    pending_wakes: usize,
    readiness: Option<Box<dyn Readiness>>,
    was_ready: bool,
}

impl<N: Notification> SubscriberQueue<N> {
    fn new() -> Self {
        Self {
            events: VecDeque::new(),
            missed: 0,
            is_open: true,
            is_running: false,
            dropping: None,
            waiting: 0,
            wakes: 0,
            pending_wakes: 0,
            readiness: None,
            was_ready: false,
        }
    }

    /// Reports a change of readiness. Called after each change of the queue.
    fn report_readiness(&mut self) {
        let is_ready =
            !self.events.is_empty() || self.missed > 0 || !self.is_open || self.pending_wakes > 0;
        if let Some(readiness) = self.readiness.as_deref()
            && is_ready != self.was_ready
        {
            self.was_ready = is_ready;
            readiness.set(is_ready);
        }
    }

    /// Returns the next event. A full backlog ends with the event that reports the missed ones, even if
    /// the calculator has stopped.
    fn pop(&mut self) -> Option<Queued<N>> {
        if let Some(event) = self.events.pop_front() {
            self.report_readiness();
            return Some(event);
        }
        if self.missed == 0 {
            return None;
        }
        self.is_open = false;
        let missed = std::mem::take(&mut self.missed);
        self.report_readiness();
        Some(Queued {
            event: Arc::new(N::lagged(missed)),
            time: SystemTime::now(),
            reporter: None,
        })
    }

    fn is_over(&self) -> bool {
        !self.is_open && self.events.is_empty() && self.missed == 0
    }

    /// Whether a thread other than this one is dropping the callback. This one may be: what the
    /// callback owns may include its own subscription.
    fn is_dropped_elsewhere(&self) -> bool {
        self.dropping
            .is_some_and(|thread| thread != ThreadKey::of_this_thread())
    }
}

impl<N: Notification> Subscriber<N> {
    fn new(filter: N::EventFilter, backlog_max: usize, callback: Option<Callback<N>>) -> Self {
        Self {
            filter,
            backlog_max,
            queue: Mutex::new(SubscriberQueue::new()),
            changed: Condvar::new(),
            has_callback: callback.is_some(),
            callback: Mutex::new(callback),
        }
    }

    /// Queues the events that the filter selects, and wakes the readers once. Yields an item for
    /// each event that exceeded the backlog: true for the first one since it was full.
    fn push(&self, notices: &[Queued<N>]) -> impl Iterator<Item = bool> {
        let mut queue = self.queue.lock();
        let missed_before = queue.missed;
        let mut is_changed = false;
        for notice in notices {
            if !queue.is_open || !notice.event.is_wanted(self.filter) {
                continue;
            }
            if queue.missed > 0 || queue.events.len() >= self.backlog_max {
                queue.missed += 1;
            } else {
                queue.events.push_back(notice.clone());
                is_changed = true;
            }
        }
        let missed = queue.missed;
        if is_changed {
            queue.report_readiness();
            drop(queue);
            self.changed.notify_all();
        }
        (missed_before..missed).map(|before| before == 0)
    }

    /// Accepts no more events. The backlog stays readable.
    fn close(&self) {
        let mut queue = self.queue.lock();
        queue.is_open = false;
        queue.report_readiness();
        drop(queue);
        self.changed.notify_all();
    }

    /// Accepts no more events and discards the backlog.
    fn discard(&self) {
        let mut queue = self.queue.lock();
        queue.is_open = false;
        queue.missed = 0;
        let events = std::mem::take(&mut queue.events);
        queue.report_readiness();
        drop(queue);
        self.changed.notify_all();
        drop(events);
    }

    /// Drops the host's callback with whatever it owns, unless it is running: `dv-notify` then
    /// drops it after its return. The caller must not hold a lock.
    fn drop_callback(&self) {
        let callback = {
            let mut queue = self.queue.lock();
            let callback = self.callback.lock().take();
            if callback.is_none() {
                return;
            }
            queue.dropping = Some(ThreadKey::of_this_thread());
            callback
        };
        drop_guarded(callback);
        self.queue.lock().dropping = None;
        self.changed.notify_all();
    }

    /// Waits until the callback neither runs nor is being dropped by another thread.
    fn wait_for_callback(&self, deadline: Instant) -> Result<()> {
        let is_busy = |queue: &SubscriberQueue<N>| queue.is_running || queue.is_dropped_elsewhere();
        let text = "the callback is still running; it will not be called again";
        self.wait_while(is_busy, deadline, text)
    }

    /// Waits until no other thread is dropping the callback.
    fn wait_for_drop(&self, deadline: Instant) -> Result<()> {
        let text = "another thread is still destroying the callback";
        self.wait_while(SubscriberQueue::is_dropped_elsewhere, deadline, text)
    }

    fn wait_while(
        &self,
        is_busy: impl Fn(&SubscriberQueue<N>) -> bool,
        deadline: Instant,
        text: &str,
    ) -> Result<()> {
        let mut queue = self.queue.lock();
        while is_busy(&queue) {
            if self.changed.wait_until(&mut queue, deadline).timed_out() && is_busy(&queue) {
                return Err(Error::new(Code::TimedOut, text).with_operation("unsubscribe"));
            }
        }
        Ok(())
    }
}

/// Drops a value of the host. Returns whether the drop panicked.
fn drop_guarded<T>(value: T) -> bool {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) else {
        return false;
    };
    log::error!(
        target: "divvy::notify",
        "destructor of the host panicked: {}", panic_text(panic.as_ref())
    );
    // Its own destructor may panic, too.
    std::mem::forget(panic);
    true
}

/// All subscribers of one handle.
pub(crate) struct Hub<N: Notification = CalculatorEvent> {
    inner: Mutex<HubState<N>>,
    /// The handle that the events are about, see [`OwnThread`].
    owner: u64,
    backlog_max: usize,
    wake_channel: WakeChannel,
    pub lagged: AtomicU64,
    pub callback_panics: AtomicU64,
    metrics: Arc<dyn CalculatorMetrics>,
    /// The callbacks that run are registered here.
    host_calls: Option<Arc<HostCalls>>,
}

/// Subscribers that were taken out of their hub.
pub(crate) struct Subscribers<N: Notification>(Vec<Arc<Subscriber<N>>>);

struct HubState<N: Notification> {
    subscribers: Vec<Arc<Subscriber<N>>>,
    current: N::Current,
    /// Whether the last event of this life was published.
    is_over: bool,
}

impl<N: Notification> Hub<N> {
    pub fn new(owner: u64, current: N::Current, backlog_max: usize) -> Self {
        Self {
            inner: Mutex::new(HubState {
                subscribers: Vec::new(),
                current,
                is_over: false,
            }),
            owner,
            backlog_max,
            wake_channel: WakeChannel::new(),
            lagged: AtomicU64::new(0),
            callback_panics: AtomicU64::new(0),
            host_calls: None,
            metrics: Arc::new(NoMetrics),
        }
    }

    /// Registers the callbacks that run.
    pub fn with_host_calls(mut self, host_calls: Arc<HostCalls>) -> Self {
        self.host_calls = Some(host_calls);
        self
    }

    /// Sets the receiver of callback metrics.
    pub fn with_metrics(mut self, metrics: Arc<dyn CalculatorMetrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// How many subscribers there are, and how many events wait for the slowest of them.
    pub fn backlog(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        let waiting = |s: &Arc<Subscriber<N>>| s.queue.lock().events.len();
        let longest = inner.subscribers.iter().map(waiting).max();
        (inner.subscribers.len(), longest.unwrap_or(0))
    }

    /// Puts an event into every backlog, see [`Hub::publish_all`].
    pub fn publish(&self, notice: N) {
        self.publish_all(&[Arc::new(notice)]);
    }

    /// Queues events in every backlog before it wakes any reader, because a wake is the slow part. Runs
    /// on `dv-calc`: never waits for a subscriber and drops no value of the host.
    pub fn publish_all(&self, notices: &[Arc<N>]) {
        if notices.is_empty() {
            return;
        }
        let mut inner = self.inner.lock();
        let mut queued = Vec::with_capacity(notices.len());
        for notice in notices {
            if inner.is_over {
                break; // nothing follows a fatal event
            }
            notice.note(&mut inner.current);
            inner.is_over = notice.is_last();
            queued.push(Queued::new(Arc::clone(notice), &inner.current));
        }
        let mut is_called_back = false;
        for subscriber in &inner.subscribers {
            is_called_back |= subscriber.has_callback;
            for is_first in subscriber.push(&queued) {
                self.lagged
                    .fetch_add(u64::from(is_first), Ordering::Relaxed);
                self.metrics.event_missed(is_first);
            }
            if inner.is_over && !subscriber.has_callback {
                subscriber.close();
            }
        }
        drop(inner);
        // Without a callback a wake would only take CPU time from the readers.
        if is_called_back {
            self.wake_channel.wake();
        }
    }

    /// A new life begins in this state.
    pub fn reset(&self, current: N::Current) {
        let mut inner = self.inner.lock();
        inner.current = current;
        inner.is_over = false;
    }

    /// Updates the current state for new subscribers.
    pub fn update_current(&self, update_current: impl FnOnce(&mut N::Current)) {
        update_current(&mut self.inner.lock().current);
    }

    /// Ends all receivers after their backlogs.
    pub fn close_receivers(&self) {
        let receivers: Vec<_> = {
            let mut inner = self.inner.lock();
            inner
                .subscribers
                .extract_if(.., |s| !s.has_callback)
                .collect()
        };
        for receiver in receivers {
            receiver.close();
        }
    }

    /// Forgets all subscribers; hand them to [`Hub::end`].
    pub fn take_subscribers(&self) -> Subscribers<N> {
        Subscribers(std::mem::take(&mut self.inner.lock().subscribers))
    }

    /// Ends subscriptions and drops their callbacks. The caller holds no lock.
    pub fn end(subscribers: Subscribers<N>) {
        for subscriber in subscribers.0 {
            if subscriber.has_callback {
                subscriber.discard();
                subscriber.drop_callback();
            } else {
                subscriber.close();
            }
        }
    }

    pub fn subscribe(
        self: &Arc<Self>,
        filter: N::EventFilter,
        callback: Callback<N>,
    ) -> Subscription {
        let subscriber = self.add(filter, Some(callback));
        self.wake_channel.wake();
        Subscription {
            place: Some(Box::new(SubscriberSlot {
                subscriber,
                hub: Arc::downgrade(self),
            })),
            owner: self.owner,
        }
    }

    pub fn events(self: &Arc<Self>, filter: N::EventFilter) -> Events<N> {
        Events::new(self.add(filter, None), Arc::downgrade(self))
    }

    fn add(&self, filter: N::EventFilter, callback: Option<Callback<N>>) -> Arc<Subscriber<N>> {
        let subscriber = Arc::new(Subscriber::new(filter, self.backlog_max, callback));
        let mut inner = self.inner.lock();
        // Under the same lock as every publication: the current state, then each later change.
        let introduced: Vec<_> = N::introduce(&inner.current)
            .into_iter()
            .map(|event| Queued::new(Arc::new(event), &inner.current))
            .collect();
        let _ = subscriber.push(&introduced);
        inner.subscribers.push(Arc::clone(&subscriber));
        subscriber
    }

    fn remove(&self, subscriber: &Arc<Subscriber<N>>) {
        let mut inner = self.inner.lock();
        inner.subscribers.retain(|s| !Arc::ptr_eq(s, subscriber));
    }

    /// The body of `dv-notify`: runs callbacks. When `finish` is disconnected it delivers what is
    /// left and ends; when `halt` is, it ends after the callback that runs.
    pub fn run(&self, finish: &Receiver<Infallible>, halt: &Receiver<Infallible>) {
        let mut is_last = false;
        loop {
            // Before the first wait, too: who subscribed before the start is waiting.
            while !is_disconnected(halt) && self.deliver_round() {}
            if is_last {
                return;
            }
            is_last = select_biased! {
                recv(halt) -> _ => return,
                recv(finish) -> _ => true,
                recv(self.wake_channel.receiver()) -> _ => false,
            };
        }
    }

    /// Delivers one event to each subscriber with a callback. Returns whether there may be more.
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

    fn deliver_one(&self, subscriber: &Arc<Subscriber<N>>) -> bool {
        let event = {
            let mut queue = subscriber.queue.lock();
            let event = queue.pop();
            queue.is_running = event.is_some();
            event
        };
        let Some(event) = event else { return false };
        let callback = subscriber.callback.lock().take();
        if let Some(callback) = callback {
            self.call(subscriber, callback, &event);
        }
        let mut queue = subscriber.queue.lock();
        queue.is_running = false;
        let is_over = queue.is_over();
        drop(queue);
        subscriber.changed.notify_all();
        if is_over {
            self.remove(subscriber);
        }
        true
    }

    /// Runs a callback, and keeps it for the next event unless this was its last one.
    fn call(&self, subscriber: &Subscriber<N>, mut callback: Callback<N>, queued: &Queued<N>) {
        let begun = Instant::now();
        let run = catch_unwind(AssertUnwindSafe(|| match &self.host_calls {
            Some(calls) => calls.run(HostCall::Callback, || callback(queued)),
            None => callback(queued),
        }));
        self.metrics.called_back(begun.elapsed());
        if let Err(panic) = run {
            self.callback_panics.fetch_add(1, Ordering::Relaxed);
            self.metrics.callback_panicked();
            log::error!(
                target: "divvy::notify",
                "subscriber callback panicked, subscription closed: {}",
                panic_text(panic.as_ref())
            );
            drop_guarded(panic);
            subscriber.discard();
        }
        let queue = subscriber.queue.lock();
        if !queue.is_over() {
            // Under the lock of the queue, so that a closing thread finds the callback here.
            *subscriber.callback.lock() = Some(callback);
            return;
        }
        drop(queue);
        // Before its end is reported: its captures may be freed then.
        drop_guarded(callback);
    }
}

impl Hub {
    /// A life is over.
    pub fn set_idle(&self, since: Time, version: Version) {
        self.reset(StateChange {
            from: CalculatorState::Idle,
            to: CalculatorState::Idle,
            reason: None,
            version,
            time: since,
        });
    }

    /// The version in force was learned without a change of state.
    pub fn set_version(&self, version: Version) {
        self.update_current(|current| current.version = version);
    }
}

fn is_disconnected(signal: &Receiver<Infallible>) -> bool {
    signal.try_recv() == Err(TryRecvError::Disconnected)
}

/// A subscription with a callback. Dropping it unsubscribes, waiting up to 5 s for a running
/// callback; [`Subscription::forever`] lets it run as long as the calculator does.
#[must_use = "dropping a subscription ends it"]
pub struct Subscription {
    /// `None` when it was ended or let run.
    place: Option<Box<dyn ActiveSubscription>>,
    owner: u64,
}

/// A subscriber's place in its hub.
struct SubscriberSlot<N: Notification> {
    subscriber: Arc<Subscriber<N>>,
    hub: Weak<Hub<N>>,
}

/// A [`SubscriberSlot`], whatever kind of events is delivered there.
trait ActiveSubscription: Send + Sync {
    /// Nothing more is delivered.
    fn unsubscribe_now(&self);
    fn wait_for_callback(&self, deadline: Instant) -> Result<()>;
    /// Drops the callback, or waits until the thread that is dropping it has done so.
    fn drop_callback(&self, deadline: Instant) -> Result<()>;
}

impl<N: Notification> ActiveSubscription for SubscriberSlot<N> {
    fn unsubscribe_now(&self) {
        self.subscriber.discard();
        if let Some(hub) = self.hub.upgrade() {
            hub.remove(&self.subscriber);
        }
    }

    fn wait_for_callback(&self, deadline: Instant) -> Result<()> {
        self.subscriber.wait_for_callback(deadline)
    }

    fn drop_callback(&self, deadline: Instant) -> Result<()> {
        self.subscriber.drop_callback();
        self.subscriber.wait_for_drop(deadline)
    }
}

impl Subscription {
    /// Ends the subscription. After it returned `Ok`, the callback does not run, will not run, and
    /// everything that it owned has been dropped. Inside a callback of the same handle it returns
    /// without waiting for that callback, whose values are then dropped after its return.
    ///
    /// # Errors
    /// `TimedOut` if the callback is still running after `timeout`. It will not be called again,
    /// and its values are dropped after its return.
    pub fn unsubscribe(mut self, timeout: Duration) -> Result<()> {
        let result = self.end(timeout);
        self.place = None;
        result
    }

    /// Keeps the subscription until the handle is stopped or dropped.
    pub fn forever(mut self) {
        self.place = None;
    }

    /// Ends the subscription as [`Subscription::unsubscribe`] does. May be called again, and by
    /// several threads at a time: each call waits.
    ///
    /// # Errors
    /// As [`Subscription::unsubscribe`].
    pub fn end(&self, timeout: Duration) -> Result<()> {
        let Some(place) = &self.place else {
            return Ok(());
        };
        place.unsubscribe_now();
        let deadline = deadline_after(timeout);
        // The thread that runs the callbacks runs one at a time: no other one than the caller's.
        if !OwnThread::is_notifier_of(self.owner) {
            place.wait_for_callback(deadline)?;
        }
        place.drop_callback(deadline)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Err(error) = self.end(DROP_TIMEOUT) {
            log::warn!(target: "divvy::notify", "subscription dropped: {error}");
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

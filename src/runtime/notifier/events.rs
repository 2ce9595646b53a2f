//! Subscriptions that the host reads: as an iterator, by polling, or through a descriptor.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::{Hub, Notification, Queued, Subscriber};
use crate::machine::calculator::CalculatorEvent;
use crate::time::deadline::deadline_after;

/// Notification whether a reader would get something without waiting, for event loops that wait for a
/// descriptor. Called at each change, with a lock held: it must be quick and call nothing of ours.
pub trait Readiness: Send {
    /// Whether [`Events::poll`] would return at once with something other than
    /// [`Polled::TimedOut`].
    fn set(&self, is_ready: bool);
}

/// Why [`Events::recv_timeout`] returned no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// No event arrived in time. More may follow.
    TimedOut,
    /// The subscription is closed and its backlog is empty: no event will follow.
    Closed,
}

impl std::fmt::Display for RecvError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RecvError::TimedOut => "timed out waiting for an event",
            RecvError::Closed => "the subscription is closed",
        })
    }
}

impl std::error::Error for RecvError {}

/// How [`Events::poll`] ended.
#[derive(Debug)]
pub enum Polled<E = Arc<CalculatorEvent>> {
    /// The next event.
    Event(E),
    /// Nothing came in time.
    TimedOut,
    /// [`Events::wake`] was called.
    Woken,
    /// No event will come any more.
    Closed,
}

impl<E> Polled<E> {
    /// Converts the event.
    pub(crate) fn map<T>(self, convert: impl FnOnce(E) -> T) -> Polled<T> {
        match self {
            Self::Event(event) => Polled::Event(convert(event)),
            Self::TimedOut => Polled::TimedOut,
            Self::Woken => Polled::Woken,
            Self::Closed => Polled::Closed,
        }
    }
}

/// A subscription that is read: an iterator over events. It ends after the queued events when the
/// handle was stopped or dropped, or has failed.
///
/// Several threads may share it; each event goes to one of them. Dropping it unsubscribes.
///
/// ```
/// use std::sync::Arc;
///
/// use divvy::store::memory::MemoryStore;
/// use divvy::{Calculator, CalculatorEvent, EventFilter};
///
/// # fn main() -> divvy::Result<()> {
/// let calculator = Calculator::builder(Arc::new(MemoryStore::new())).build()?;
/// let mut events = calculator.events(EventFilter::State);
/// // The first event reports the current state.
/// let first = events.next().unwrap();
/// assert!(matches!(&*first, CalculatorEvent::StateChanged(change) if change.from == change.to));
/// # Ok(())
/// # }
/// ```
pub struct Events<N: Notification = CalculatorEvent> {
    subscriber: Arc<Subscriber<N>>,
    hub: Weak<Hub<N>>,
}

impl<N: Notification> Events<N> {
    pub(super) fn new(subscriber: Arc<Subscriber<N>>, hub: Weak<Hub<N>>) -> Self {
        Self { subscriber, hub }
    }

    /// Returns the next event. Blocks for at most `timeout`. [`Events::wake`] does not end it.
    ///
    /// # Errors
    /// [`RecvError::TimedOut`] or [`RecvError::Closed`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Arc<N>, RecvError> {
        match self.wait(Some(deadline_after(timeout)), false) {
            Polled::Event(queued) => Ok(queued.event),
            Polled::TimedOut | Polled::Woken => Err(RecvError::TimedOut),
            Polled::Closed => Err(RecvError::Closed),
        }
    }

    /// The next event; waits for at most `timeout`, without limit for `None`.
    #[must_use]
    pub fn poll(&self, timeout: Option<Duration>) -> Polled<Arc<N>> {
        self.poll_queued(timeout).map(|queued| queued.event)
    }

    /// As [`Events::poll`], with the time at which the event was queued.
    pub(crate) fn poll_queued(&self, timeout: Option<Duration>) -> Polled<Queued<N>> {
        self.wait(timeout.map(deadline_after), true)
    }

    /// Ends every [`Events::poll`] that waits now with [`Polled::Woken`]. If an event arrives at
    /// the same time, a poll may return the event; the next poll that would wait then returns
    /// [`Polled::Woken`] at once. So does the next one if none waits now: of several such wakes one
    /// is kept. Does not block.
    pub fn wake(&self) {
        let mut queue = self.subscriber.queue.lock();
        if queue.waiting > 0 {
            queue.wakes += 1;
        } else {
            queue.pending_wakes = queue.pending_wakes.max(1);
            queue.report_readiness();
        }
        drop(queue);
        self.subscriber.changed.notify_all();
    }

    /// Sets the receiver of readiness changes; it receives the current state first if ready.
    /// Replaces an earlier one.
    pub fn set_readiness(&self, readiness: impl Readiness + 'static) {
        let mut queue = self.subscriber.queue.lock();
        queue.readiness = Some(Box::new(readiness));
        queue.was_ready = false;
        queue.report_readiness();
    }

    /// The next event, if there is one now. Does not wait.
    #[must_use]
    pub fn try_recv(&self) -> Option<Arc<N>> {
        let queued = self.subscriber.queue.lock().pop()?;
        Some(queued.event)
    }

    /// Ends the subscription: readers that wait return, and nothing more comes.
    pub fn close(&self) {
        self.subscriber.discard();
        if let Some(hub) = self.hub.upgrade() {
            hub.remove(&self.subscriber);
        }
    }

    /// Whether no event will come any more: all were read, and the calculator was stopped or
    /// dropped, or has failed, or the last event said that this subscriber was too slow.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.subscriber.queue.lock().is_over()
    }

    fn next_event(&self) -> Option<Arc<N>> {
        match self.wait(None, false) {
            Polled::Event(queued) => Some(queued.event),
            Polled::TimedOut | Polled::Woken | Polled::Closed => None,
        }
    }

    fn wait(&self, deadline: Option<Instant>, ends_at_wakes: bool) -> Polled<Queued<N>> {
        let mut queue = self.subscriber.queue.lock();
        let wakes = queue.wakes;
        let mut is_late = false;
        loop {
            let is_woken = ends_at_wakes && queue.wakes != wakes;
            if let Some(queued) = queue.pop() {
                // The event goes first. The wake stays for the next poll, or it would be lost.
                if is_woken {
                    queue.pending_wakes += 1;
                    queue.report_readiness();
                }
                return Polled::Event(queued);
            }
            if !queue.is_open {
                return Polled::Closed;
            }
            if is_woken {
                return Polled::Woken;
            }
            if ends_at_wakes && queue.pending_wakes > 0 {
                queue.pending_wakes -= 1;
                queue.report_readiness();
                return Polled::Woken;
            }
            if is_late {
                return Polled::TimedOut;
            }
            let changed = &self.subscriber.changed;
            queue.waiting += usize::from(ends_at_wakes);
            match deadline {
                None => changed.wait(&mut queue),
                Some(deadline) => is_late = changed.wait_until(&mut queue, deadline).timed_out(),
            }
            queue.waiting -= usize::from(ends_at_wakes);
        }
    }
}

impl<N: Notification> Iterator for Events<N> {
    type Item = Arc<N>;

    /// Waits for the next event without limit; `None` when there will be none.
    fn next(&mut self) -> Option<Self::Item> {
        self.next_event()
    }
}

impl<N: Notification> Iterator for &Events<N> {
    type Item = Arc<N>;

    /// As for [`Events`] itself, for readers that share it.
    fn next(&mut self) -> Option<Self::Item> {
        self.next_event()
    }
}

impl<N: Notification> Drop for Events<N> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<N: Notification> std::fmt::Debug for Events<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

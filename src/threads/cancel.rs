//! Cancels a blocking call.

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, never, select};
use parking_lot::Mutex;

use super::signal::signal;
use crate::error::{Code, Error};

/// Cancels blocking calls: calls made inside [`Cancel::run`] return [`Code::Cancelled`] once it is
/// fired, as if their deadline had passed.
///
/// For callers that learn only during the call that the result is no longer needed. Start, stop,
/// `trigger_rebalance`, `refresh`, `refresh_partitions` and `wait_state` of a calculator or manager
/// can be cancelled, and so can connecting to a store and its calls, see
/// [`store`](crate::store#cancelling). Other calls inside `run` are not affected. Clones share
/// their state.
///
/// ```
/// use std::time::Duration;
///
/// use divvy::store::memory::MemoryStore;
/// use divvy::{Cancel, Manager, ManagerState};
///
/// # fn main() -> divvy::Result<()> {
/// let manager = Manager::builder(std::sync::Arc::new(MemoryStore::new())).build()?;
/// let cancel = Cancel::new();
/// let elsewhere = cancel.clone();
/// let canceller = std::thread::spawn(move || elsewhere.fire());
/// let waited = cancel.run(|| {
///     manager.wait_state(ManagerState::Stable, Duration::from_secs(3_600))
/// });
/// assert_eq!(waited.unwrap_err().code(), divvy::Code::Cancelled);
/// # canceller.join().unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Cancel {
    /// Dropped to fire.
    sender: Arc<Mutex<Option<Sender<Infallible>>>>,
    fired: Receiver<Infallible>,
}

thread_local! {
    /// The cancellation of the calls of this thread.
    static CURRENT: RefCell<Option<Cancel>> = const { RefCell::new(None) };
}

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

impl Cancel {
    /// Returns a handle that is not fired.
    #[must_use]
    pub fn new() -> Self {
        let (sender, fired) = signal();
        Self {
            sender: Arc::new(Mutex::new(Some(sender))),
            fired,
        }
    }

    /// Cancels the current and all future calls inside `run`. Idempotent. Does not block.
    pub fn fire(&self) {
        let sender = self.sender.lock().take();
        drop(sender);
    }

    /// Returns whether it was fired.
    #[must_use]
    pub fn is_fired(&self) -> bool {
        is_over(&self.fired)
    }

    /// Runs `call` on this thread. Blocking calls in it are cancelled when this is fired. Inside
    /// another `run`, it replaces the outer one.
    pub fn run<R>(&self, call: impl FnOnce() -> R) -> R {
        let _outer = Outer(replace(Some(self.clone())));
        call()
    }

    /// Returns the cancellation of this thread, for another thread that makes its calls.
    #[cfg(feature = "capi")]
    pub(crate) fn of_this_thread() -> Option<Self> {
        CURRENT.try_with(|now| now.borrow().clone()).unwrap_or(None)
    }

    /// Sets the cancellation of this thread, until the next call on this thread.
    #[cfg(feature = "capi")]
    pub(crate) fn use_on_this_thread(cancel: Option<&Self>) {
        drop(replace(cancel.cloned()));
    }
}

/// Restores the previous cancellation.
struct Outer(Option<Cancel>);

impl Drop for Outer {
    fn drop(&mut self) {
        drop(replace(self.0.take()));
    }
}

fn replace(next: Option<Cancel>) -> Option<Cancel> {
    // Fails only on a thread whose locals are destroyed, where no call waits any more.
    CURRENT.try_with(|now| now.replace(next)).unwrap_or(None)
}

/// Returns the channel that is disconnected when the calls of this thread are cancelled.
fn current() -> Option<Receiver<Infallible>> {
    let fired = |now: &RefCell<Option<Cancel>>| now.borrow().as_ref().map(|now| now.fired.clone());
    CURRENT.try_with(fired).unwrap_or(None)
}

fn is_over(fired: &Receiver<Infallible>) -> bool {
    matches!(fired.try_recv(), Err(TryRecvError::Disconnected))
}

/// Why a wait failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitError {
    TimedOut,
    Cancelled,
    Disconnected,
}

/// Returns whether the calls of this thread are cancelled.
pub(crate) fn is_cancelled() -> bool {
    current().is_some_and(|fired| is_over(&fired))
}

/// Returns the error of a cancelled call.
pub(crate) fn error(what: &str) -> Error {
    Error::new(Code::Cancelled, format!("cancelled; {what}"))
}

/// Runs work that must complete although the call was cancelled.
pub(crate) fn without_cancellation<R>(work: impl FnOnce() -> R) -> R {
    let _outer = Outer(replace(None));
    work()
}

/// Receives a message, unless the deadline passes or the call is cancelled before.
pub(crate) fn recv_deadline<T>(from: &Receiver<T>, deadline: Instant) -> Result<T, WaitError> {
    let Some(fired) = current() else {
        return from.recv_deadline(deadline).map_err(|error| match error {
            RecvTimeoutError::Timeout => WaitError::TimedOut,
            RecvTimeoutError::Disconnected => WaitError::Disconnected,
        });
    };
    let left = deadline.saturating_duration_since(Instant::now());
    select! {
        recv(from) -> got => got.map_err(|_| WaitError::Disconnected),
        // A message that has arrived nevertheless is not discarded.
        recv(fired) -> _ => from.try_recv().map_err(|error| match error {
            TryRecvError::Empty => WaitError::Cancelled,
            TryRecvError::Disconnected => WaitError::Disconnected,
        }),
        default(left) => from.try_recv().map_err(|error| match error {
            TryRecvError::Empty => WaitError::TimedOut,
            TryRecvError::Disconnected => WaitError::Disconnected,
        }),
    }
}

/// Sends a message, unless the deadline passes or the call is cancelled before the channel has
/// room.
pub(crate) fn send_deadline<T>(
    to: &Sender<T>,
    value: T,
    deadline: Instant,
) -> Result<(), WaitError> {
    let value = match to.try_send(value) {
        Ok(()) => return Ok(()),
        Err(crossbeam_channel::TrySendError::Disconnected(_)) => {
            return Err(WaitError::Disconnected);
        }
        Err(crossbeam_channel::TrySendError::Full(value)) => value,
    };
    let left = deadline.saturating_duration_since(Instant::now());
    select! {
        send(to, value) -> sent => sent.map_err(|_| WaitError::Disconnected),
        recv(current().unwrap_or_else(never)) -> _ => Err(WaitError::Cancelled),
        default(left) => Err(WaitError::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::bounded;

    use super::*;

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(3_600)
    }

    #[test]
    fn firing_ends_waits_inside_its_scope_only() {
        let (_keep, from) = bounded::<u8>(1);
        let (to, _full) = bounded::<u8>(0);
        let cancel = Cancel::new();
        assert!(!cancel.is_fired() && !cancel.run(is_cancelled));
        let other = cancel.clone();
        let firing = std::thread::spawn(move || other.fire());
        let waited = cancel.run(|| (recv_deadline(&from, late()), send_deadline(&to, 1, late())));
        assert_eq!(
            waited,
            (Err(WaitError::Cancelled), Err(WaitError::Cancelled))
        );
        firing.join().unwrap();
        assert!(cancel.is_fired() && cancel.run(is_cancelled) && !is_cancelled());
        assert!(!cancel.run(|| without_cancellation(is_cancelled)));
        assert!(!cancel.run(|| Cancel::new().run(is_cancelled)));
        assert_eq!(
            recv_deadline(&from, Instant::now()),
            Err(WaitError::TimedOut)
        );
    }

    #[test]
    fn available_values_are_received_despite_cancellation() {
        let cancel = Cancel::new();
        cancel.fire();
        cancel.fire();
        for _ in 0..100 {
            let (to, from) = bounded(1);
            cancel.run(|| send_deadline(&to, 7, late())).unwrap();
            assert_eq!(cancel.run(|| recv_deadline(&from, late())), Ok(7));
            drop(to);
            let ended = cancel.run(|| recv_deadline(&from, late()));
            assert_eq!(ended, Err(WaitError::Disconnected));
        }
    }
}

//! Deadlines of calls and timers of threads.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, never};

use super::clock::Clock;
use crate::types::Time;

/// How long dropping a handle or a subscription waits for threads and callbacks.
pub(crate) const DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns the deadline of a call that may wait for `timeout`, however long that is.
pub(crate) fn deadline_after(timeout: Duration) -> Instant {
    /// Longer than any process lives, and far from what the platform's clock cannot hold.
    const FOREVER: Duration = Duration::from_secs(100 * 366 * 24 * 3_600);
    Instant::now() + timeout.min(FOREVER)
}

/// Fires when that time has come; never for `None`.
pub(crate) fn timer(clock: &dyn Clock, due: Option<Time>) -> Receiver<Instant> {
    match due {
        Some(time) => after(time.since(clock.now())),
        None => never(),
    }
}

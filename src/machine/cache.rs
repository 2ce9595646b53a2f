//! The cached assignment of a worker, so that a worker that starts while the store is unreachable
//! can serve at once.
//!
//! The file contains the assignment as the store last confirmed it. It is refreshed only while the
//! store is reachable, so that its age is the time since that confirmation, however often the worker
//! restarts meanwhile. A file above the configured age is ignored.
//!
//! [`Cache`] decides when to read, write and remove the file. The shell carries out one order at a
//! time and adds the wall clock, which is compared only with that of the same host.

use std::sync::Arc;
use std::time::Duration;

use super::assignment::Held;
use super::stable_id::Pool;
use crate::error::{Code, Error, Result};
use crate::types::{Time, WorkerId};

/// Largest accepted step of a clock that was set back, which dates a file in the future.
const CLOCK_STEP_MAX: Duration = Duration::from_secs(5);

/// Pause after the file could not be written.
const RETRY: Duration = Duration::from_secs(10);

/// An assignment as the store had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The worker's fleet: key prefixes and buckets.
    pub fleet: String,
    /// The id that the worker had.
    pub worker: WorkerId,
    /// The assignment.
    pub held: Held,
    /// When the store last confirmed it, since the beginning of 1970 by the host's wall clock.
    pub seen: Duration,
}

/// A cached assignment that may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// The id that the worker had.
    pub worker: WorkerId,
    /// The assignment.
    pub held: Held,
    /// Its age.
    pub age: Duration,
    /// Time for which it may still be served.
    pub left: Duration,
}

/// Returns the cached assignment if a worker of this fleet and pool may serve it at `now` (since
/// the beginning of 1970).
///
/// # Errors
/// `InvalidData`, naming why not: it belongs to another fleet or pool, comes from the future, or
/// is `max_age` old.
pub fn recall(
    remembered: Remembered,
    fleet: &str,
    pool: &Pool,
    now: Duration,
    max_age: Duration,
) -> Result<Recalled> {
    let refuse = |why: String| Err(Error::new(Code::InvalidData, why));
    let Remembered {
        fleet: theirs,
        worker,
        held,
        seen,
    } = remembered;
    if theirs != fleet {
        return refuse(format!("another fleet ({theirs} instead of {fleet})"));
    }
    if !pool.holds(&worker) {
        return refuse(format!("id {worker} is outside the range of this worker"));
    }
    if seen > now + CLOCK_STEP_MAX {
        let ahead = seen.saturating_sub(now);
        return refuse(format!(
            "dated in the future ({ahead:.0?} ahead of this host's clock)"
        ));
    }
    let age = now.saturating_sub(seen);
    let left = max_age.saturating_sub(age);
    if left.is_zero() {
        return refuse(format!(
            "too old ({age:.0?}; cache_max_age is {max_age:.0?})"
        ));
    }
    Ok(Recalled {
        worker,
        held,
        age,
        left,
    })
}

/// An operation on the file. Each is answered by a [`CacheAnswer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheOrder {
    /// Read it.
    Load,
    /// Replace it: the store confirmed the assignment at `seen`.
    Save {
        /// The worker's id.
        worker: WorkerId,
        /// The assignment.
        held: Held,
        /// Time of the confirmation.
        seen: Time,
    },
    /// Remove it.
    Erase,
}

/// The result of a [`CacheOrder`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheAnswer {
    /// The content of the file; `None` if there is none that may be served.
    Loaded(Option<Recalled>),
    /// The file was replaced or removed.
    Done,
    /// The file could not be replaced or removed.
    Failed,
}

/// The known content of the file, and the next operation on it.
#[derive(Debug, Default)]
pub struct Cache {
    /// Interval at which an unchanged assignment is written again; `None`: there is no file.
    refresh: Option<Duration>,
    /// The next order. A newer one replaces it.
    wanted: Option<CacheOrder>,
    is_busy: bool,
    /// The content of the last `Save`.
    last: Option<(WorkerId, Held)>,
    /// When it is saved again.
    due: Time,
    /// The loaded assignment and the end of its validity.
    recalled: Option<(Recalled, Time)>,
}

impl Cache {
    /// Returns a cache whose content is valid for `max_age`; `None`: no file.
    #[must_use]
    pub fn new(max_age: Option<Duration>) -> Self {
        Self {
            refresh: max_age.map(|age| (age / 10).max(Duration::from_secs(1))),
            ..Self::default()
        }
    }

    /// Orders the file to be read.
    pub fn load(&mut self) {
        self.want(CacheOrder::Load);
    }

    /// Orders the file to be removed.
    pub fn erase(&mut self) {
        self.last = None;
        self.recalled = None;
        self.want(CacheOrder::Erase);
    }

    /// Records an assignment that the store confirms now. It is written if it differs from the last
    /// one written, or if the refresh interval has passed.
    pub fn stands(&mut self, now: Time, worker: &WorkerId, held: &Held) {
        let Some(refresh) = self.refresh else {
            return;
        };
        let is_same = self
            .last
            .as_ref()
            .is_some_and(|(id, last)| id == worker && is_same(last, held));
        if is_same && now < self.due {
            return;
        }
        self.last = Some((worker.clone(), held.clone()));
        self.due = now + refresh;
        self.recalled = None;
        self.want(CacheOrder::Save {
            worker: worker.clone(),
            held: held.clone(),
            seen: now,
        });
    }

    /// Makes a refresh of the file due at once.
    pub fn refresh(&mut self) {
        self.due = Time::ZERO;
    }

    /// Returns when the file is to be refreshed.
    #[must_use]
    pub fn refresh_due(&self) -> Option<Time> {
        self.last.as_ref().map(|_| self.due)
    }

    /// Returns the loaded assignment unless it is too old by now.
    #[must_use]
    pub fn recalled(&self, now: Time) -> Option<&Recalled> {
        let (recalled, until) = self.recalled.as_ref()?;
        (now < *until).then_some(recalled)
    }

    /// Returns the end of validity of the loaded assignment.
    #[must_use]
    pub fn recalled_until(&self) -> Option<Time> {
        self.recalled.as_ref().map(|(_, until)| *until)
    }

    /// Whether no order is in progress or waiting.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.is_busy && self.wanted.is_none()
    }

    /// Returns the next order, if none is in progress.
    pub fn poll_order(&mut self) -> Option<CacheOrder> {
        if self.is_busy {
            return None;
        }
        let order = self.wanted.take()?;
        self.is_busy = true;
        Some(order)
    }

    /// How the order under way ended.
    pub fn answered(&mut self, now: Time, answer: CacheAnswer) {
        self.is_busy = false;
        match answer {
            CacheAnswer::Loaded(recalled) => {
                self.recalled = recalled.map(|recalled| {
                    let until = now + recalled.left;
                    (recalled, until)
                });
            }
            CacheAnswer::Failed if self.last.is_some() => self.due = now + RETRY,
            CacheAnswer::Failed | CacheAnswer::Done => {}
        }
    }

    fn want(&mut self, order: CacheOrder) {
        if self.refresh.is_some() {
            self.wanted = Some(order);
        }
    }
}

/// The common case is that it is the very same.
fn is_same(one: &Held, other: &Held) -> bool {
    let is_shared = Arc::ptr_eq(&one.partitions, &other.partitions);
    if is_shared {
        (one.version, one.term) == (other.version, other.term)
    } else {
        one == other
    }
}

#[cfg(test)]
mod tests;

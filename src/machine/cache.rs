//! What a worker remembers of its assignment outside of the store, so that one that is started
//! while the store is out of reach can serve at once.
//!
//! What is remembered is the store's word as it was when it was last *seen* to stand. It is
//! refreshed while the store is in sight and never while it is not, so that its age is the age of
//! that word, however often the worker is started meanwhile. From a stated age on it counts for
//! nothing.
//!
//! [`Cache`] decides what is to be done with the file; the shell does it, one order at a time, and
//! adds the wall clock, which is compared with that of the same host only.

use std::sync::Arc;
use std::time::Duration;

use super::assignment::Held;
use super::stable_id::Pool;
use crate::error::{Code, Error, Result};
use crate::types::{Time, WorkerId};

/// How far a clock that was set back may make a file come from the future.
const CLOCK_STEP_MAX: Duration = Duration::from_secs(5);

/// Pause after the file could not be written.
const RETRY: Duration = Duration::from_secs(10);

/// An assignment as the store had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Which fleet the worker was a member of: key prefixes and buckets.
    pub fleet: String,
    /// The id that the worker had.
    pub worker: WorkerId,
    /// What it held.
    pub held: Held,
    /// When that was last seen to be so, since the beginning of 1970 by the host's wall clock.
    pub seen: Duration,
}

/// What may be served of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// The id that the worker had.
    pub worker: WorkerId,
    /// What it held.
    pub held: Held,
    /// How old that is.
    pub age: Duration,
    /// For how long it may be served from now on.
    pub left: Duration,
}

/// Whether what is remembered may be served by a worker of this fleet and pool at `now` (since
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

/// What is to be done with the file. Each is answered by a [`CacheAnswer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheOrder {
    /// Read it.
    Load,
    /// Replace it: the store's word stood at `seen`.
    Save {
        /// The worker's id.
        worker: WorkerId,
        /// Its content.
        held: Held,
        /// When.
        seen: Time,
    },
    /// Remove it.
    Erase,
}

/// How that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheAnswer {
    /// What the file gives; `None`: nothing.
    Loaded(Option<Recalled>),
    /// It was replaced or removed.
    Done,
    /// It could not be.
    Failed,
}

/// What the file holds, as far as it is known here, and what it shall hold.
#[derive(Debug, Default)]
pub struct Cache {
    /// How often what stands is written again; `None`: there is no file.
    refresh: Option<Duration>,
    /// The last order but those that were overtaken.
    wanted: Option<CacheOrder>,
    is_busy: bool,
    /// What was last to be saved.
    last: Option<(WorkerId, Held)>,
    /// When it is to be saved again.
    due: Time,
    /// What the file gave and until when that counts.
    recalled: Option<(Recalled, Time)>,
}

impl Cache {
    /// A file whose content counts for so long; `None`: no file.
    #[must_use]
    pub fn new(max_age: Option<Duration>) -> Self {
        Self {
            refresh: max_age.map(|age| (age / 10).max(Duration::from_secs(1))),
            ..Self::default()
        }
    }

    /// Has the file read.
    pub fn load(&mut self) {
        self.want(CacheOrder::Load);
    }

    /// Has the file removed.
    pub fn erase(&mut self) {
        self.last = None;
        self.recalled = None;
        self.want(CacheOrder::Erase);
    }

    /// The store's word stands now: it is written when it differs from what was written last, or
    /// that was long ago.
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

    /// What stands is written again at the next opportunity.
    pub fn refresh(&mut self) {
        self.due = Time::ZERO;
    }

    /// When what stands is to be written again.
    #[must_use]
    pub fn refresh_due(&self) -> Option<Time> {
        self.last.as_ref().map(|_| self.due)
    }

    /// What the file gave, unless that is too old by now.
    #[must_use]
    pub fn recalled(&self, now: Time) -> Option<&Recalled> {
        let (recalled, until) = self.recalled.as_ref()?;
        (now < *until).then_some(recalled)
    }

    /// Until when that counts.
    #[must_use]
    pub fn recalled_until(&self) -> Option<Time> {
        self.recalled.as_ref().map(|(_, until)| *until)
    }

    /// Whether nothing is under way or to be done.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.is_busy && self.wanted.is_none()
    }

    /// What to do now; one thing at a time.
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

//! A worker's signs of life, with what it has applied.
//!
//! A beat is conditional on the one before, so that one which was held up on its way cannot bring
//! a worker back that has taken its leave. When the condition does not hold (the key has expired,
//! or somebody else beats under this id) the beat is repeated without one. The leave is conditional
//! likewise: held up on its way, it must not end the life of whoever has the id next.

use std::time::Duration;

use super::request::{Answer, Request, Value};
use crate::store::{Bucket, Expect, Outcome, Refusal};
use crate::types::{Revision, Time, WorkerId};
use crate::wire::{Applied, KeyPrefix};

/// Pause after a beat that the store refused.
const RETRY: Duration = Duration::from_millis(250);

/// How often the leave is announced at most, where the store refuses to be told.
const LEAVES_MAX: u32 = 4;

/// The heartbeat of one worker. Polled and answered like the other parts of a manager.
#[derive(Debug)]
pub struct Heartbeat {
    prefix: KeyPrefix,
    interval: Duration,
    ttl: Duration,
    worker: Option<WorkerId>,
    applied: Applied,
    /// Of the last beat, where it is known.
    revision: Option<Revision>,
    due: Time,
    /// Something is to be told at once.
    is_urgent: bool,
    sent: Time,
    /// What is under way, and for whom.
    asked: Option<(Asked, WorkerId)>,
    /// When the beat was sent that was last confirmed.
    confirmed: Option<Time>,
    is_leaving: bool,
    /// Announcements of the leave that were refused.
    leaves_refused: u32,
    /// Somebody may be beating under the same id.
    is_disturbed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Beat,
    Leave,
}

impl Heartbeat {
    /// Silent until it is told whose heart beats.
    #[must_use]
    pub fn new(prefix: KeyPrefix, interval: Duration, ttl: Duration) -> Self {
        Self {
            prefix,
            interval,
            ttl,
            worker: None,
            applied: Applied::default(),
            revision: None,
            due: Time::ZERO,
            is_urgent: false,
            sent: Time::ZERO,
            asked: None,
            confirmed: None,
            is_leaving: false,
            leaves_refused: 0,
            is_disturbed: false,
        }
    }

    /// How long the store keeps a beat, where that is less than what was configured.
    pub fn limit_ttl(&mut self, ttl: Duration) {
        self.ttl = self.ttl.min(ttl);
    }

    /// Beats for this worker from now on, or for nobody.
    pub fn set_worker(&mut self, worker: Option<WorkerId>) {
        if self.worker != worker {
            self.worker = worker;
            self.revision = None;
            self.confirmed = None;
            self.applied = Applied::default();
            self.is_urgent = true;
        }
    }

    /// What the worker has applied: told at once.
    pub fn set_applied(&mut self, applied: Applied) {
        if self.applied != applied {
            self.applied = applied;
            self.is_urgent = true;
        }
    }

    /// Beats once more, now.
    pub fn beat_now(&mut self) {
        self.is_urgent = true;
    }

    /// Announces the leave: deletes the key.
    pub fn leave(&mut self) {
        if self.worker.is_some() {
            self.is_leaving = true;
            self.is_urgent = true;
        }
    }

    /// Whether everything that was to be told at once has been told.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let has_to_tell = self.is_urgent || self.is_leaving;
        self.asked.is_none() && !(has_to_tell && self.worker.is_some())
    }

    /// When the beat was sent that was last confirmed.
    #[must_use]
    pub fn confirmed(&self) -> Option<Time> {
        self.confirmed
    }

    /// Until when no leader can have found this worker missing.
    #[must_use]
    pub fn lease_until(&self) -> Option<Time> {
        self.confirmed.map(|confirmed| confirmed + self.lease())
    }

    /// For how long a beat is relied upon.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.ttl * 9 / 10
    }

    /// Whether something looked as if somebody else beat under this id; asked once.
    pub fn take_disturbance(&mut self) -> bool {
        std::mem::take(&mut self.is_disturbed)
    }

    /// When there is something to ask.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let is_waiting = self.asked.is_none() && self.worker.is_some();
        let due = if self.is_urgent { Time::ZERO } else { self.due };
        is_waiting.then_some(due)
    }

    /// What to ask of the store now.
    pub fn poll_request(&mut self, now: Time) -> Option<Request> {
        if self.deadline()? > now {
            return None;
        }
        let worker = self.worker.clone()?;
        self.sent = now;
        self.is_urgent = false;
        let bucket = Bucket::Heartbeat;
        let key = self.prefix.key(&worker);
        let expect = self.revision.map_or(Expect::Any, Expect::Revision);
        if self.is_leaving {
            self.asked = Some((Asked::Leave, worker));
            return Some(Request::Delete {
                bucket,
                key,
                expect,
            });
        }
        self.asked = Some((Asked::Beat, worker.clone()));
        Some(Request::Put {
            bucket,
            key,
            value: Value::Beat(worker, self.applied),
            expect,
        })
    }

    /// The answer to the request under way.
    pub fn answered(&mut self, now: Time, answer: &Answer) {
        let asked = self.asked.take();
        let (Some((asked, worker)), Answer::Written { outcome, .. }) = (asked, answer) else {
            return;
        };
        if self.worker.as_ref() != Some(&worker) {
            return; // the beat of another life
        }
        if asked == Asked::Leave {
            let is_refused = matches!(outcome, Outcome::Refused(why) if *why != Refusal::Conflict);
            self.leaves_refused += u32::from(is_refused);
            if is_refused && self.leaves_refused < LEAVES_MAX {
                self.due = now + RETRY;
            } else {
                // Where it was not taken, the lease runs out instead.
                self.worker = None;
            }
            return;
        }
        match outcome {
            Outcome::Done(revision) => {
                self.revision = Some(*revision);
                self.confirmed = Some(self.sent);
                self.due = self.sent + self.interval;
            }
            Outcome::Refused(Refusal::Conflict) => {
                self.is_disturbed = true;
                self.revision = None;
                self.due = now;
            }
            Outcome::Refused(_) => self.due = now + RETRY.min(self.interval),
            Outcome::Unknown(_) => {
                self.revision = None;
                self.due = now + RETRY.min(self.interval);
            }
        }
    }
}

#[cfg(test)]
mod tests;

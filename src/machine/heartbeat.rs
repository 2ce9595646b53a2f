//! A worker's heartbeats, which carry the applied term and version.
//!
//! A heartbeat is conditional on the key's previous revision, so that a delayed one cannot revive a
//! worker that has left. If the condition fails (the key expired, or another process uses the id)
//! or the outcome is unknown, the key is read before the next heartbeat. Only if that fails too and
//! half of the lease is used up, a heartbeat is sent unconditionally. Leaving is always
//! conditional: a delayed delete must not end the next owner of the id.

use std::time::Duration;

use super::request::{Answer, Request, Value};
use crate::error::{Code, Result};
use crate::store::{Bucket, Entry, Expect, Operation, Outcome, Refusal};
use crate::types::{Revision, Time, WorkerId};
use crate::wire::{Applied, KeyPrefix, Reported};

/// Pause after a beat that the store refused.
const RETRY: Duration = Duration::from_millis(250);

/// Maximum number of attempts to announce a leave that the store rejects.
const LEAVES_MAX: u32 = 4;

/// The heartbeat of one worker. Polled and answered like the other parts of a manager.
#[derive(Debug)]
pub struct Heartbeat {
    prefix: KeyPrefix,
    interval: Duration,
    ttl: Duration,
    worker: Option<WorkerId>,
    applied: Applied,
    /// The highest term and version that the process has applied or published, under any id.
    highest: Applied,
    /// The last known state of the key; `None`: read it first.
    revision: Option<Revision>,
    /// The key was read since the last confirmed heartbeat.
    has_looked: bool,
    due: Time,
    /// A heartbeat is due at once.
    is_urgent: bool,
    sent: Time,
    /// The call in progress, and the worker that it is for.
    in_flight: Option<(HeartbeatCall, WorkerId)>,
    /// When the last confirmed heartbeat was sent.
    confirmed: Option<Time>,
    /// When the first one was confirmed.
    began: Option<Time>,
    is_leaving: bool,
    /// Announcements of the leave that were refused.
    leaves_refused: u32,
    /// Another process may use the same id.
    is_disturbed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeartbeatCall {
    Beat,
    Look,
    Leave,
}

impl Heartbeat {
    /// Silent until it has a worker.
    #[must_use]
    pub fn new(prefix: KeyPrefix, interval: Duration, ttl: Duration) -> Self {
        Self {
            prefix,
            interval,
            ttl,
            worker: None,
            applied: Applied::default(),
            highest: Applied::default(),
            // There should be no key yet.
            revision: Some(0),
            has_looked: false,
            due: Time::ZERO,
            is_urgent: false,
            sent: Time::ZERO,
            in_flight: None,
            confirmed: None,
            began: None,
            is_leaving: false,
            leaves_refused: 0,
            is_disturbed: false,
        }
    }

    /// Applies the store's own TTL of a heartbeat if it is shorter than the configured one.
    pub fn limit_ttl(&mut self, ttl: Duration) {
        self.ttl = self.ttl.min(ttl);
    }

    /// Sends heartbeats for this worker from now on; `None`: for none.
    pub fn set_worker(&mut self, worker: Option<WorkerId>) {
        if self.worker != worker {
            self.worker = worker;
            self.revision = Some(0);
            self.has_looked = false;
            self.confirmed = None;
            self.began = None;
            self.applied = Applied::default();
            self.is_urgent = true;
        }
    }

    /// Sets the applied term and version. A change makes the next heartbeat due at once.
    pub fn set_applied(&mut self, applied: Applied) {
        if self.applied != applied {
            self.applied = applied;
            self.is_urgent = true;
        }
        self.raise(applied);
    }

    /// Adds something that the process has applied or published. It is reported under every later
    /// id, with the next beat.
    pub fn raise(&mut self, reached: Applied) {
        self.highest = self.highest.highest(reached);
    }

    /// The highest that the process has applied or published.
    #[must_use]
    pub fn highest(&self) -> Applied {
        self.highest
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

    /// Whether every immediate heartbeat has been sent.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let has_change = self.is_urgent || self.is_leaving;
        self.in_flight.is_none() && !(has_change && self.worker.is_some())
    }

    /// When the last confirmed heartbeat was sent.
    #[must_use]
    pub fn confirmed(&self) -> Option<Time> {
        self.confirmed
    }

    /// When the first heartbeat under this id was confirmed.
    #[must_use]
    pub fn began(&self) -> Option<Time> {
        self.began
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

    /// Whether another process appeared to use this id; returned once.
    pub fn take_disturbance(&mut self) -> bool {
        std::mem::take(&mut self.is_disturbed)
    }

    /// When there is something to ask.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let is_waiting = self.in_flight.is_none() && self.worker.is_some();
        let due = if self.is_urgent { Time::ZERO } else { self.due };
        is_waiting.then_some(due)
    }

    /// Returns the request that is due, if any.
    pub fn poll_request(&mut self, now: Time) -> Option<Request> {
        if self.deadline()? > now {
            return None;
        }
        let worker = self.worker.clone()?;
        let bucket = Bucket::Heartbeat;
        let key = self.prefix.key(&worker);
        let expect = match self.revision {
            Some(revision) => Expect::Revision(revision),
            None if self.is_at_stake(now) => Expect::Any,
            None => {
                self.in_flight = Some((HeartbeatCall::Look, worker));
                return Some(Request::Read { bucket, key });
            }
        };
        self.sent = now;
        self.is_urgent = false;
        if self.is_leaving {
            self.in_flight = Some((HeartbeatCall::Leave, worker));
            return Some(Request::Delete {
                bucket,
                key,
                expect,
            });
        }
        self.in_flight = Some((HeartbeatCall::Beat, worker.clone()));
        Some(Request::Put {
            bucket,
            key,
            value: Value::Beat(
                worker,
                Reported {
                    highest: self.highest,
                    // The shell adds the rest when it writes.
                    ..self.applied.into()
                },
            ),
            expect,
        })
    }

    /// Whether the lease is too close to its end to read the key first.
    fn is_at_stake(&self, now: Time) -> bool {
        let is_old = |confirmed: Time| confirmed + self.ttl / 2 <= now;
        self.has_looked && !self.is_leaving && self.confirmed.is_some_and(is_old)
    }

    /// The answer to the request under way.
    pub fn answered(&mut self, now: Time, answer: &Answer) {
        let Some((in_flight, worker)) = self.in_flight.take() else {
            return;
        };
        if self.worker.as_ref() != Some(&worker) {
            return; // for another life
        }
        match (in_flight, answer) {
            (HeartbeatCall::Beat, Answer::Written { outcome, .. }) => self.beaten(now, outcome),
            (HeartbeatCall::Leave, Answer::Written { outcome, .. }) => self.left(now, outcome),
            (HeartbeatCall::Look, Answer::Read(found)) => self.looked(now, found),
            _ => {} // no answer to that
        }
    }

    fn beaten(&mut self, now: Time, outcome: &Outcome) {
        match outcome {
            Outcome::Done(revision) => {
                self.revision = Some(*revision);
                self.has_looked = false;
                self.confirmed = Some(self.sent);
                self.began.get_or_insert(now);
                self.due = self.sent + self.interval;
            }
            Outcome::Refused(Refusal::Conflict) => {
                // A conflict of the first heartbeat comes from a previous process with this id.
                self.is_disturbed |= self.confirmed.is_some();
                self.revision = None;
                self.due = now;
            }
            Outcome::Refused(_) => self.due = now + RETRY.min(self.interval),
            Outcome::Unknown(_) => {
                self.revision = None;
                self.due = now;
            }
        }
    }

    /// Handles the reading of the key after a heartbeat that failed or whose outcome is unknown.
    fn looked(&mut self, now: Time, found: &Result<Option<Entry>>) {
        match found {
            Ok(entry) => {
                let entry = entry.as_ref().filter(|e| e.operation != Operation::Gone);
                self.revision = Some(entry.map_or(0, |entry| entry.revision));
                // After repeated conflicts: another process keeps sending, or the read is behind.
                let pause = match self.has_looked {
                    true => RETRY.min(self.interval),
                    false => Duration::ZERO,
                };
                self.has_looked = true;
                self.due = now + pause;
            }
            Err(error) => {
                self.has_looked = true;
                self.is_urgent = false;
                self.due = now + RETRY.min(self.interval);
                if self.is_leaving && error.code() == Code::TimedOut {
                    self.worker = None; // as a leave that is not answered
                }
                self.leave_failed();
            }
        }
    }

    fn left(&mut self, now: Time, outcome: &Outcome) {
        match outcome {
            // If the leave was not written, the lease expires instead.
            Outcome::Done(_) | Outcome::Refused(Refusal::Conflict) | Outcome::Unknown(_) => {
                self.worker = None;
            }
            Outcome::Refused(_) => {
                self.due = now + RETRY;
                self.leave_failed();
            }
        }
    }

    fn leave_failed(&mut self) {
        self.leaves_refused += u32::from(self.is_leaving);
        if self.leaves_refused >= LEAVES_MAX {
            self.worker = None;
        }
    }
}

#[cfg(test)]
mod tests;

//! When this worker owns what it was assigned.
//!
//! By default the worker keeps its partitions through an outage, although the leader may have
//! reassigned them. In strict mode ownership ends before any leader can have declared this worker
//! dead, and when its assignment watch has been lost for as long; it starts, and restarts, with a
//! read of the store. A worker that took the id over from a former process of its instance waits
//! until that one has lost its lease: from the first heartbeat of the new process on, every
//! heartbeat of the former one fails.

use std::time::Duration;

use super::{Component, ManagerEvent, ManagerMachine, ManagerPhase};
use crate::config::OutagePolicy;
use crate::machine::assignment::AssignmentChange;
use crate::machine::calculator::OpId;
use crate::machine::plausible::MalformedValue;
use crate::machine::request::{Answer, Request};
use crate::store::{Bucket, Entry};
use crate::types::{Revision, Time};

/// Pause after a look that failed.
const RETRY: Duration = Duration::from_millis(200);

/// Steps to resume ownership: read the current state from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resume {
    No,
    Due(Time),
    /// Asked, and the revision that the watch has shown since.
    Asked(OpId, Option<Revision>),
}

impl ManagerMachine {
    pub(super) fn assignment_seen(&mut self, entry: &Entry) {
        let is_own = self
            .id
            .worker()
            .is_some_and(|worker| self.assignment_prefix.key(worker) == entry.key);
        if !is_own {
            return;
        }
        if let Resume::Asked(_, shown) = &mut self.resume {
            *shown = Some(entry.as_new_as());
        }
        let known = self.heart.highest();
        self.apply_assignment(entry);
        // A bucket that was replaced and shows more than this process knew has lost nothing of it.
        let applied = self.assignments.applied();
        self.seen_revision = match applied.exceeds(known) && !known.exceeds(applied) {
            true => entry.revision,
            false => self.seen_revision.max(entry.revision),
        };
    }

    fn apply_assignment(&mut self, entry: &Entry) {
        match self.assignments.apply(entry) {
            Ok(change) => {
                self.succeeded(Component::Assignment);
                self.report_assignment(change);
            }
            Err(error) => {
                self.malformed += 1;
                let value =
                    MalformedValue::new(Bucket::Assignment, &entry.key, &entry.value, &error);
                self.report_malformed(value);
            }
        }
    }

    pub(super) fn report_assignment(&mut self, change: Option<AssignmentChange>) {
        self.heart.set_applied(self.assignments.applied());
        if let Some(change) = change {
            self.notify(ManagerEvent::AssignmentChanged(change));
        }
    }

    /// Suspends ownership, and resumes it.
    pub(super) fn update_ownership(&mut self, now: Time) {
        if !self.is_ownership_at_stake() {
            return;
        }
        if !self.may_own(now) {
            if !self.assignments.is_suspended() {
                // Not before it was a member: then there was nothing to lose.
                self.has_lapsed = self.heart.confirmed().is_some();
                self.resume = Resume::No;
                let change = self.assignments.suspend();
                self.report_assignment(change);
            }
            return;
        }
        if !self.assignments.is_suspended() || self.watch_lost_since.is_some() {
            return;
        }
        if self.resume == Resume::No {
            self.resume = Resume::Due(now);
        }
        if let (Resume::Due(due), Some(worker)) = (self.resume, self.id.worker())
            && due <= now
        {
            let key = self.assignment_prefix.key(worker);
            let bucket = Bucket::Assignment;
            let op = self.request(Component::Assignment, Request::Read { bucket, key });
            self.resume = Resume::Asked(op, None);
        }
    }

    /// What the store says now, after ownership was suspended.
    pub(super) fn looked_at_assignment(&mut self, now: Time, op: OpId, answer: Answer) {
        let Resume::Asked(asked, shown) = self.resume else {
            return;
        };
        if asked != op {
            return; // asked for an id that is lost
        }
        self.resume = Resume::Due(now + RETRY);
        let Answer::Read(Ok(entry)) = answer else {
            return;
        };
        if !self.may_own(now) {
            return;
        }
        // A read older than the watch, or of a missing key, is inconclusive: read again.
        let revision = entry.as_ref().map_or(0, |entry| entry.revision);
        if shown.is_some_and(|shown| revision < shown) {
            return;
        }
        match entry {
            Some(entry) => self.apply_assignment(&entry),
            None => {
                self.succeeded(Component::Assignment);
                let change = self.assignments.gone();
                self.report_assignment(change);
            }
        }
        self.resume = Resume::No;
        self.has_lapsed = false;
        let change = self.assignments.resume();
        self.report_assignment(change);
    }

    pub(super) fn ownership_deadline(&self) -> Option<Time> {
        if !self.is_ownership_at_stake() {
            return None;
        }
        if !self.assignments.is_suspended() {
            let ends = [self.heart.lease_until(), self.sight_until()];
            return ends.into_iter().flatten().min();
        }
        if let Some(over) = self.predecessor_ends().filter(|&over| over > self.now) {
            return Some(over);
        }
        match self.resume {
            // What keeps the worker from it ends with an event.
            Resume::Due(due) if self.may_own(self.now) && self.watch_lost_since.is_none() => {
                Some(due)
            }
            _ => None,
        }
    }

    fn is_ownership_at_stake(&self) -> bool {
        let is_strict = self.config.outage_policy == OutagePolicy::Strict;
        is_strict && matches!(self.phase, ManagerPhase::Working) && self.id.worker().is_some()
    }

    /// Until when what was delivered is not too old, where no more is delivered.
    fn sight_until(&self) -> Option<Time> {
        self.watch_lost_since
            .map(|since| since + self.heart.lease())
    }

    fn may_own(&self, now: Time) -> bool {
        let has_lease = self.heart.lease_until().is_some_and(|until| now < until);
        let has_sight = self.sight_until().is_none_or(|until| now < until);
        let is_alone = !self.has_predecessor || self.predecessor_ends() <= Some(now);
        has_lease && has_sight && is_alone && self.id_is_certain(now) && !self.id.is_disputed()
    }

    /// When a former process of this instance has lost its lease; `None` before this one beats.
    fn predecessor_ends(&self) -> Option<Time> {
        let began = self.heart.began().filter(|_| self.has_predecessor)?;
        Some(began + self.config.calculator.heartbeat_ttl)
    }
}

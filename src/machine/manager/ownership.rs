//! When this worker owns what it was assigned.
//!
//! By default it goes on serving what it holds through an outage: its leader may have given it to
//! others meanwhile. In strict mode ownership ends before any leader can have found this worker
//! missing, and begins again with a look at what the store says then.

use std::time::Duration;

use super::{Manager, ManagerNotice, Part, Phase, Resume};
use crate::config::OutagePolicy;
use crate::machine::assignment::AssignmentChange;
use crate::machine::request::{Answer, Request};
use crate::store::{Bucket, Entry};
use crate::types::Time;

/// Pause after a look that failed.
const RETRY: Duration = Duration::from_millis(200);

impl Manager {
    pub(super) fn assignment_seen(&mut self, entry: &Entry) {
        let is_own = self
            .id
            .worker()
            .is_some_and(|worker| self.assignment_prefix.key(worker) == entry.key);
        if !is_own {
            return;
        }
        match self.assignments.take_in(entry) {
            Ok(change) => {
                self.succeeded(Part::Assignment);
                self.tell_assignment(change);
            }
            Err(error) => {
                self.poison += 1;
                self.report(Part::Assignment, error.on_key(entry.key.clone()));
            }
        }
    }

    pub(super) fn tell_assignment(&mut self, change: Option<AssignmentChange>) {
        self.heart.set_applied(self.assignments.applied());
        if let Some(change) = change {
            self.notify(ManagerNotice::AssignmentChanged(change));
        }
    }

    /// Suspends ownership, and resumes it.
    pub(super) fn see_to_ownership(&mut self, now: Time) {
        let is_strict = self.config.outage_policy == OutagePolicy::Strict;
        if !is_strict || !matches!(self.phase, Phase::Working) || self.id.worker().is_none() {
            return;
        }
        let is_safe = self.is_certainly_alive(now);
        if !is_safe && self.heart.confirmed().is_some() && !self.assignments.is_suspended() {
            self.resume = Resume::No;
            let change = self.assignments.suspend();
            self.tell_assignment(change);
        }
        if !is_safe || !self.assignments.is_suspended() || self.is_blind {
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
            self.resume = Resume::Asked;
            self.request(Part::Assignment, Request::Read { bucket, key });
        }
    }

    /// What the store says now, after ownership was suspended.
    pub(super) fn looked_at_assignment(&mut self, now: Time, answer: Answer) {
        if self.resume != Resume::Asked {
            return;
        }
        self.resume = Resume::Due(now + RETRY);
        let Answer::Read(Ok(entry)) = answer else {
            return;
        };
        if !self.is_certainly_alive(now) {
            return;
        }
        match entry {
            Some(entry) => self.assignment_seen(&entry),
            None => {
                let change = self.assignments.gone();
                self.tell_assignment(change);
            }
        }
        self.resume = Resume::No;
        let change = self.assignments.resume();
        self.tell_assignment(change);
    }

    pub(super) fn ownership_deadline(&self) -> Option<Time> {
        if self.config.outage_policy != OutagePolicy::Strict {
            return None;
        }
        if let (true, Resume::Due(due)) = (self.assignments.is_suspended(), self.resume) {
            return Some(due);
        }
        let until = self.heart.lease_until()?;
        (!self.assignments.is_suspended()).then_some(until)
    }

    fn is_certainly_alive(&self, now: Time) -> bool {
        let has_lease = self.heart.lease_until().is_some_and(|until| now < until);
        has_lease && self.id_is_certain(now)
    }
}

//! The rules for serving a cached assignment.
//!
//! A worker that starts asks the store first. If that fails, it serves the cached assignment and
//! reports that it has joined: under its previous id and degraded, until the store answers or the
//! file is too old. Other workers may own the same partitions meanwhile, so strict mode never uses
//! the cache.
//!
//! The store answers with another id than the cached one, with the assignment of that id, or with
//! the absence of an assignment.

use super::{Departure, ManagerAction, ManagerEvent, ManagerMachine, ManagerPhase};
use crate::machine::cache::{CacheAnswer, Recalled};
use crate::types::{Time, WorkerId};

impl ManagerMachine {
    pub(super) fn cache_answered(&mut self, now: Time, answer: CacheAnswer) {
        self.cache.answered(now, answer);
        if let (None, Some(recalled)) = (self.id.worker(), self.cache.recalled(now)) {
            self.id.prefer(&recalled.worker);
        }
    }

    /// Begins and ends the use of the cached assignment, and saves confirmed assignments.
    pub(super) fn drive_cache(&mut self, now: Time) {
        self.serve_recalled(now);
        self.end_recalled(now);
        if self.is_word_in_sight(now)
            && let Some(worker) = self.id.worker()
        {
            let held = self.assignments.held();
            self.cache.stands(now, worker, held);
        }
        while let Some(order) = self.cache.poll_order() {
            self.actions.push_back(ManagerAction::Cache(order));
        }
    }

    fn serve_recalled(&mut self, now: Time) {
        let is_joining = matches!(
            self.phase,
            ManagerPhase::Ensuring { .. } | ManagerPhase::Surveying(_) | ManagerPhase::Working
        ) && !self.has_joined
            && self.id.worker().is_none();
        let Some(failure) = self.store_failure.as_ref().filter(|_| is_joining) else {
            return;
        };
        let Some(Recalled {
            worker, held, age, ..
        }) = self.cache.recalled(now).cloned()
        else {
            return;
        };
        let why = format!(
            "serving version {} from the cache file ({age:.0?} old), the store being out of \
             reach: {failure}",
            held.version
        );
        self.has_joined = true;
        self.outage.begin_now(now, why);
        self.report_outage();
        self.notify(ManagerEvent::Id(Some(worker)));
        let change = self.assignments.recall(held);
        self.report_assignment(change);
        self.actions.push_back(ManagerAction::Joined);
    }

    /// Ends the use of a cached assignment that is too old.
    fn end_recalled(&mut self, now: Time) {
        let is_over = self.assignments.is_recalled() && self.cache.recalled(now).is_none();
        if !is_over {
            return;
        }
        let change = self.assignments.gone();
        self.report_assignment(change);
        if self.id.worker().is_none() {
            self.notify(ManagerEvent::Id(None));
        }
    }

    /// Handles a claimed id. If it differs from the previous one, the worker owns nothing yet.
    pub(super) fn confirm_recalled(&mut self, now: Time, worker: &WorkerId) {
        let recalled = self.cache.recalled(now);
        if self.assignments.is_recalled() && recalled.is_none_or(|r| r.worker != *worker) {
            let change = self.assignments.gone();
            self.report_assignment(change);
        }
        self.heart.set_applied(self.assignments.applied());
    }

    /// Returns the previous id while its cached assignment is served.
    pub(super) fn recalled_worker(&self) -> Option<&WorkerId> {
        let is_serving = self.assignments.is_recalled();
        let recalled = self.cache.recalled(self.now).filter(|_| is_serving);
        recalled.map(|recalled| &recalled.worker)
    }

    /// For good: others may have these partitions soon. To be back: what stands is as new as it
    /// can be.
    pub(super) fn depart_cached(&mut self, now: Time, how: Departure) {
        let is_ours = self.id.worker().is_some() || self.assignments.is_recalled();
        match how {
            Departure::Leave if is_ours => self.cache.erase(),
            Departure::Leave => {} // a start that failed leaves the file for the next one
            Departure::Restart => {
                self.cache.refresh();
                self.drive_cache(now);
            }
        }
    }

    pub(super) fn cache_deadline(&self) -> Option<Time> {
        if self.assignments.is_recalled() {
            return self.cache.recalled_until();
        }
        let refresh = self.cache.refresh_due();
        refresh.filter(|_| self.is_word_in_sight(self.now))
    }

    /// Whether the assignment equals the store's current state.
    fn is_word_in_sight(&self, now: Time) -> bool {
        let is_connected = self.watch_lost_since.is_none() && self.store_fault.is_none();
        let is_read = self.assignments.has_one() && !self.assignments.is_suspended();
        matches!(self.phase, ManagerPhase::Working)
            && is_connected
            && is_read
            && self.id_is_certain(now)
    }
}

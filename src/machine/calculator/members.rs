//! The members of the fleet, compared with the last published plan.
//!
//! Each worker is *planned* (the last published plan has it) or not, and is alive, suspected, dead
//! or has left. Differences from the plan are kept in separate sets, so that the cost of a change is
//! proportional to the change, and the check for pending work is free.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::types::{Time, WorkerId};

/// Since when a planned worker has been suspected, and until when it may return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suspicion {
    pub since: Time,
    pub confirm_at: Time,
}

/// The fleet as the calculator sees it.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// The workers of the last published plan.
    planned: BTreeSet<WorkerId>,
    /// The workers of the plan that is being published, in order. One that disappears meanwhile is
    /// treated as planned, so that the new plan does not start with an unnoticed dead worker.
    publishing: Arc<[WorkerId]>,
    /// Workers with a running lease, planned or not.
    alive: BTreeSet<WorkerId>,
    /// Alive but not planned, since when.
    joiners: BTreeMap<WorkerId, Time>,
    /// The first join since the last plan; stays when that worker leaves again.
    first_join: Option<Time>,
    /// Planned workers that left, with the time.
    leavers: BTreeMap<WorkerId, Time>,
    /// As `first_join`.
    first_leave: Option<Time>,
    /// Planned workers whose lease expired and that may return.
    suspected: BTreeMap<WorkerId, Suspicion>,
    /// Planned workers that are confirmed dead, to be replaced at once.
    dead: BTreeSet<WorkerId>,
    /// Planned workers that left or died before this cold start began; replaced when its window
    /// ends.
    removed: BTreeSet<WorkerId>,
}

impl Members {
    pub fn joined(&mut self, worker: WorkerId, since: Time) {
        self.suspected.remove(&worker);
        self.dead.remove(&worker);
        self.removed.remove(&worker);
        self.leavers.remove(&worker);
        if !self.planned.contains(&worker) {
            self.joiners.entry(worker.clone()).or_insert(since);
            self.first_join.get_or_insert(since);
        }
        self.alive.insert(worker);
        self.reset_first_times();
    }

    pub fn left(&mut self, worker: &WorkerId, now: Time) {
        self.alive.remove(worker);
        self.joiners.remove(worker);
        self.suspected.remove(worker);
        self.dead.remove(worker);
        if self.is_expected(worker) && !self.removed.contains(worker) {
            self.leavers.entry(worker.clone()).or_insert(now);
            self.first_leave.get_or_insert(now);
        }
        self.reset_first_times();
    }

    /// Whether the worker is expected to own partitions, so that it has a grace to return.
    pub fn suspected(&mut self, worker: &WorkerId, absence: Suspicion) -> bool {
        self.alive.remove(worker);
        self.joiners.remove(worker);
        self.reset_first_times();
        let expected = self.is_expected(worker);
        if expected {
            self.suspected.insert(worker.clone(), absence);
        }
        expected
    }

    /// Moves the suspected workers whose grace ended to the dead, and returns them.
    pub fn confirm_dead(&mut self, now: Time) -> Vec<WorkerId> {
        let due: Vec<WorkerId> = self
            .suspected
            .iter()
            .filter(|(_, absence)| absence.confirm_at <= now)
            .map(|(worker, _)| worker.clone())
            .collect();
        for worker in &due {
            self.suspected.remove(worker);
            self.dead.insert(worker.clone());
        }
        due
    }

    /// Removes the suspected workers whose grace ended, at the end of the restart window.
    pub fn declare_suspected_dead(&mut self, now: Time) -> Vec<WorkerId> {
        let due = self.confirm_dead(now);
        for worker in &due {
            self.dead.remove(worker);
            self.removed.insert(worker.clone());
        }
        due
    }

    pub fn declare_dead(&mut self, worker: WorkerId) {
        self.suspected.remove(&worker);
        self.dead.insert(worker);
    }

    /// The next time at which a suspected worker is declared dead.
    pub fn next_confirmation(&self) -> Option<Time> {
        self.suspected.values().map(|a| a.confirm_at).min()
    }

    /// Declares no worker dead before `time`.
    pub fn postpone_confirmations(&mut self, time: Time) {
        for absence in self.suspected.values_mut() {
            absence.confirm_at = absence.confirm_at.max(time);
        }
    }

    /// Delays every confirmation by `span`, in which no worker could be seen.
    pub fn delay_confirmations(&mut self, span: Duration) {
        for suspicion in self.suspected.values_mut() {
            suspicion.since = suspicion.since + span;
            suspicion.confirm_at = suspicion.confirm_at + span;
        }
    }

    /// How many planned workers were suspected within the last `span`.
    pub fn suspected_within(&self, span: Duration, now: Time) -> usize {
        let recent = |a: &&Suspicion| now.since(a.since) < span;
        self.suspected.values().filter(recent).count()
    }

    /// At the begin of a cold start: workers that are already gone are replaced at its end instead
    /// of by an emergency.
    pub fn carry_over_removed(&mut self) {
        self.removed.append(&mut self.dead);
        self.removed
            .extend(std::mem::take(&mut self.leavers).into_keys());
        self.reset_first_times();
    }

    /// The cold start is over: removed workers are dead from now on.
    pub fn declare_removed_dead(&mut self) {
        self.dead.append(&mut self.removed);
    }

    /// A plan for these workers is on its way.
    pub fn publishing(&mut self, workers: Arc<[WorkerId]>) {
        self.publishing = workers;
    }

    /// A plan for exactly these workers was published. Returns the replaced workers.
    pub fn published(
        &mut self,
        workers: impl IntoIterator<Item = WorkerId>,
        now: Time,
    ) -> Vec<WorkerId> {
        self.planned = workers.into_iter().collect();
        self.finish_plan(now)
    }

    /// The plan on its way was not published. Returns as `published`.
    pub fn publication_failed(&mut self, now: Time) -> Vec<WorkerId> {
        self.finish_plan(now)
    }

    /// Compares all workers with the plan again.
    fn finish_plan(&mut self, now: Time) -> Vec<WorkerId> {
        self.publishing = Arc::default();
        let planned = &self.planned;
        let is_out = |worker: &&WorkerId| !planned.contains(*worker);
        let removed = self.suspected.keys().chain(&self.dead).chain(&self.removed);
        let dropped: Vec<WorkerId> = removed.filter(is_out).cloned().collect();
        self.suspected.retain(|w, _| planned.contains(w));
        self.dead.retain(|w| planned.contains(w));
        self.removed.retain(|w| planned.contains(w));
        self.leavers.retain(|w, _| planned.contains(w));
        self.joiners.retain(|w, _| !planned.contains(w));
        // Workers that left and returned while a plan without them was being published.
        for worker in self.alive.difference(planned) {
            self.joiners.entry(worker.clone()).or_insert(now);
        }
        self.first_join = self.joiners.values().min().copied();
        self.first_leave = self.leavers.values().min().copied();
        dropped
    }

    /// Returns the workers of the next plan, in order: the live ones, and the suspected ones that
    /// may return.
    pub fn wanted(&self) -> Vec<WorkerId> {
        let mut wanted: Vec<WorkerId> = self.alive.iter().cloned().collect();
        if !self.suspected.is_empty() {
            wanted.extend(self.suspected.keys().cloned());
            wanted.sort_unstable();
        }
        wanted
    }

    pub fn planned(&self) -> &BTreeSet<WorkerId> {
        &self.planned
    }

    pub fn has_alive(&self) -> bool {
        !self.alive.is_empty()
    }

    /// No worker is alive and none is expected to return.
    pub fn is_empty(&self) -> bool {
        self.alive.is_empty() && self.suspected.is_empty()
    }

    pub fn alive_count(&self) -> usize {
        self.alive.len()
    }

    pub fn suspected_count(&self) -> usize {
        self.suspected.len()
    }

    /// Planned workers that have left or are dead.
    pub fn removed(&self) -> impl Iterator<Item = &WorkerId> {
        self.leavers.keys().chain(&self.dead).chain(&self.removed)
    }

    pub fn has_removed(&self) -> bool {
        !(self.leavers.is_empty() && self.dead.is_empty() && self.removed.is_empty())
    }

    pub fn has_dead(&self) -> bool {
        !self.dead.is_empty()
    }

    /// Whether the plan differs from the fleet in any way.
    pub fn differ(&self) -> bool {
        !self.joiners.is_empty() || self.has_removed()
    }

    pub fn first_join(&self) -> Option<Time> {
        self.first_join
    }

    pub fn first_leave(&self) -> Option<Time> {
        self.first_leave
    }

    fn is_expected(&self, worker: &WorkerId) -> bool {
        self.planned.contains(worker) || self.publishing.binary_search(worker).is_ok()
    }

    fn reset_first_times(&mut self) {
        if self.joiners.is_empty() {
            self.first_join = None;
        }
        if self.leavers.is_empty() {
            self.first_leave = None;
        }
    }
}

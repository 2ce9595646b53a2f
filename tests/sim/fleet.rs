//! The simulated workers: they send heartbeats, apply assignments, crash, freeze and leave.

use std::collections::VecDeque;
use std::time::Duration;

use divvy::machine::plausible::{Numbered, plausible_max};
use divvy::store::{Bucket, Entry, Expect, Listing, Outcome, Store, Write};
use divvy::types::{Term, Time, Version, WorkerId};
use divvy::wire::{Applied, Assignment, encode_heartbeat};

use crate::lockstep_publisher::far_future;

/// How long heartbeats are remembered.
const MEMORY: Duration = Duration::from_secs(120);

/// A worker.
pub struct Worker {
    pub id: WorkerId,
    /// Speed of its clock, in thousandths.
    pub rate: u64,
    pub is_up: bool,
    pub frozen_until: Time,
    /// Distinguishes the heartbeats of this incarnation.
    pub life: u64,
    pub applied: Option<(Option<Term>, Version)>,
    /// When the store accepted its heartbeats, newest last. Cleared when it leaves.
    pub beats: VecDeque<Time>,
}

impl Worker {
    pub fn new(index: usize, rate: u64) -> Self {
        Self {
            id: WorkerId::new(&format!("w-{index}")).expect("a valid id"),
            rate,
            is_up: false,
            frozen_until: Time::ZERO,
            life: 0,
            applied: None,
            beats: VecDeque::new(),
        }
    }

    pub fn heartbeat_key(&self) -> String {
        format!("heartbeat.{}", self.id)
    }

    pub fn assignment_key(&self) -> String {
        format!("assignment.{}", self.id)
    }

    /// Writes a heartbeat. Returns whether the store accepted it.
    pub fn beat(&mut self, store: &dyn Store, now: Time) -> bool {
        let (term, version) = self.applied.unwrap_or((None, 0));
        let applied = Applied {
            term: term.unwrap_or(0),
            version,
        };
        let write = Write {
            key: self.heartbeat_key(),
            value: Some(encode_heartbeat(&self.id, "now", applied)),
            expect: Expect::Any,
        };
        let outcomes = store.write(Bucket::Heartbeat, &[write], far_future());
        let is_stored = matches!(outcomes[0], Outcome::Done(_));
        if is_stored {
            self.beats.push_back(now);
        }
        while self.beats.front().is_some_and(|&t| t + MEMORY < now) {
            self.beats.pop_front();
        }
        is_stored
    }

    /// Deletes the heartbeat: a graceful leave.
    pub fn leave(&mut self, store: &dyn Store) {
        let write = Write {
            key: self.heartbeat_key(),
            value: None,
            expect: Expect::Any,
        };
        let _ = store.write(Bucket::Heartbeat, &[write], far_future());
        self.beats.clear();
    }

    /// Reads the assignment and applies it unless it is older than the applied one: by term and
    /// version, or by version alone if one of the two has no term (a Go leader's).
    pub fn take_up(&mut self, store: &dyn Store) {
        let key = self.assignment_key();
        let Ok(Some(entry)) = store.read(Bucket::Assignment, &key, far_future()) else {
            return;
        };
        let Some(found) = assignment_of(&entry) else {
            return;
        };
        if self.accepts(found.term, found.version) {
            self.applied = Some((found.term, found.version));
        }
    }

    /// Returns whether an assignment with these numbers is applied, or was applied before.
    pub fn accepts(&self, term: Option<Term>, version: Version) -> bool {
        match (self.applied, term) {
            (None, _) => true,
            (Some((Some(mine), applied)), Some(term)) => (term, version) >= (mine, applied),
            (Some((_, applied)), _) => version >= applied,
        }
    }

    /// Returns whether it sent a heartbeat after `from` and not later than `to`.
    pub fn has_beaten_within(&self, from: Time, to: Time) -> bool {
        self.beats.iter().any(|&beat| beat > from && beat <= to)
    }
}

/// Returns the assignments in a listing of the assignment bucket, by worker. A key without an
/// assignment, or with an implausible number, belongs to no worker.
pub fn assignments(listing: &Listing) -> Vec<(String, Assignment)> {
    listing
        .entries
        .iter()
        .filter(|entry| entry.is_live())
        .filter_map(|entry| {
            let worker = entry.key.strip_prefix("assignment.")?;
            let is_worker = !worker.starts_with('_');
            Some((
                worker.to_owned(),
                assignment_of(entry).filter(|_| is_worker)?,
            ))
        })
        .collect()
}

/// Returns the assignment in a key, unless it is malformed or implausible.
pub fn assignment_of(entry: &Entry) -> Option<Assignment> {
    let assignment = Assignment::decode(&entry.value).ok()?;
    let max = plausible_max(entry.revision);
    assignment
        .check_plausible(max)
        .is_ok()
        .then_some(assignment)
}

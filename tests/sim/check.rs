//! Invariants checked at every step. Kept apart from the code that causes the faults.

use std::collections::{BTreeMap, BTreeSet};

use divvy::machine::calculator::{CalculatorEvent, StateChange};
use divvy::machine::position::is_legal;
use divvy::machine::publication::{BucketReading, content_hash};
use divvy::store::{Listing, Write};
use divvy::types::{CalculatorState, Partition, Term, Version};
use divvy::wire::{Assignment, COMMIT_KEY, Commit, FENCE_KEY, Fence, KeyPrefix};

use crate::fleet::assignments;

pub type Checked = Result<(), String>;

/// The names of the partitions of a list.
pub type Names = BTreeSet<String>;

pub fn names(list: &[Partition]) -> Names {
    list.iter().map(Partition::subject).collect()
}

/// The guarantee for a deposed leader, by publish mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Atomic mode: no write of it is accepted after the newer fence.
    FromFence,
    /// Per-key mode: no write of it is accepted after the take-over of the newer leader is
    /// complete.
    FromTakeOver,
}

/// Checks all accepted writes of all leaders.
#[derive(Default)]
pub struct Checker {
    /// The highest term of an accepted fence.
    pub fence: Term,
    /// The highest term whose take-over is complete.
    taken_over: Term,
    /// The newest commit of any leader.
    committed: Option<(Term, Version)>,
    /// The digest of each version, from its commit record.
    digests: BTreeMap<Version, String>,
    /// The current value of each key, from any writer.
    current: BTreeMap<String, (Version, u128)>,
    /// The newest version that a leader wrote to each key.
    versions: BTreeMap<String, Version>,
    /// Keys last written by a client other than a leader of this simulation.
    foreign: BTreeSet<String>,
    /// All partition lists so far.
    pub lists: Vec<Names>,
    pub commits: u64,
}

impl Checker {
    /// Checks an accepted write of a leader. `term` is the term of the leader when it sent the
    /// write.
    pub fn accepted(&mut self, term: Term, promise: Promise, write: &Write) -> Checked {
        let barrier = match promise {
            Promise::FromFence => self.fence,
            Promise::FromTakeOver => self.taken_over,
        };
        if term < barrier && write.key != FENCE_KEY {
            return Err(format!(
                "deposed term {term} wrote {} below the barrier {barrier} ({promise:?})",
                write.key
            ));
        }
        self.foreign.remove(&write.key);
        match (write.key.as_str(), &write.value) {
            (FENCE_KEY, Some(value)) => self.fence_written(value),
            (COMMIT_KEY, Some(value)) => self.commit_written(value),
            (key, Some(value)) if key.starts_with("assignment.") => self.assigned(key, value),
            _ => Ok(()),
        }
    }

    fn fence_written(&mut self, value: &[u8]) -> Checked {
        let fence =
            Fence::decode(value).map_err(|e| format!("a leader wrote a malformed fence: {e}"))?;
        if fence.term < self.fence {
            return Err(format!("term {} opened after {}", fence.term, self.fence));
        }
        if self.committed.is_some_and(|(term, _)| term >= fence.term) {
            return Err(format!("term {} opened though published in", fence.term));
        }
        self.fence = fence.term;
        Ok(())
    }

    fn commit_written(&mut self, value: &[u8]) -> Checked {
        let commit =
            Commit::decode(value).map_err(|e| format!("a leader wrote a malformed commit: {e}"))?;
        let now = (commit.term, commit.version);
        if let Some((term, version)) = self.committed {
            let again = commit.version == version && commit.term >= term;
            if commit.version < version || (commit.version == version && !again) {
                return Err(format!("committed {now:?} after {:?}", (term, version)));
            }
        }
        self.committed = Some(now);
        self.commits += 1;
        let known = self
            .digests
            .entry(commit.version)
            .or_insert_with(|| commit.digest.clone());
        if *known != commit.digest {
            return Err(format!(
                "version {} committed twice with different content",
                commit.version
            ));
        }
        Ok(())
    }

    fn assigned(&mut self, key: &str, value: &[u8]) -> Checked {
        let assignment =
            Assignment::decode(value).map_err(|e| format!("a leader wrote junk to {key}: {e}"))?;
        let hash = content_hash(assignment.partitions.iter());
        let now = (assignment.version, hash);
        if self.current.insert(key.to_owned(), now) == Some(now) {
            return Ok(()); // a take-over rewrites the stored plan under its term
        }
        let version = assignment.version;
        let before = self.versions.insert(key.to_owned(), version);
        if before.is_some_and(|before| version <= before) {
            return Err(format!("{key} went from version {before:?} to {version}"));
        }
        Ok(())
    }

    /// Records a write of a client that is not a leader of this simulation.
    pub fn foreign(&mut self, key: &str, value: Option<&[u8]>) {
        self.foreign.insert(key.to_owned());
        self.current.remove(key);
        if let Some(assignment) = value.and_then(|value| Assignment::decode(value).ok()) {
            let hash = content_hash(assignment.partitions.iter());
            let now = (assignment.version, hash);
            self.current.insert(key.to_owned(), now);
        }
    }

    /// Handles a re-created bucket, whose sequence starts at 1. Numbers that no process remembers
    /// may be reused. Another check ensures that no worker goes back.
    pub fn all_lost(&mut self) {
        self.fence = 0;
        self.taken_over = 0;
        self.committed = None;
        self.digests.clear();
        self.current.clear();
        self.versions.clear();
    }

    /// Handles a restore of an older copy of the data. A process that starts right after it knows
    /// nothing of the lost writes, and may lead before others have reported them.
    pub fn restored(&mut self) {
        self.all_lost();
        self.foreign
            .extend([COMMIT_KEY.to_owned(), FENCE_KEY.to_owned()]);
    }

    /// Handles a completed take-over. If another client has removed its fence meanwhile, it deposes
    /// no leader.
    pub fn took_over(&mut self, term: Term) {
        if term == self.fence {
            self.taken_over = term;
        }
    }

    /// Checks a plan that was published atomically: the stored assignments must be that plan.
    pub fn published_whole(&self, listing: &Listing) -> Checked {
        if !self.foreign.is_empty() {
            return Ok(()); // a foreign write; the end of the run checks that it is repaired
        }
        let reading = BucketReading::of(listing, &KeyPrefix::new("assignment").expect("a prefix"));
        if !reading.is_consistent() {
            return Err("the stored assignments differ from the commit".into());
        }
        self.is_division(listing).map(|_| ())
    }

    /// Checks that each partition of one of the lists has exactly one owner, and returns the
    /// owners.
    pub fn is_division(&self, listing: &Listing) -> Result<BTreeSet<String>, String> {
        let mut workers = BTreeSet::new();
        let mut all = Names::new();
        for (worker, assignment) in assignments(listing) {
            for partition in &assignment.partitions {
                if !all.insert(partition.subject()) {
                    return Err(format!("{} has two owners", partition.subject()));
                }
            }
            workers.insert(worker);
        }
        if self.lists.contains(&all) {
            return Ok(workers);
        }
        Err(format!(
            "{} partitions have owners, which matches no list",
            all.len()
        ))
    }

    /// Records that the stored partitions stay in force while a newer list is held back.
    pub fn left_of_a_list(&mut self, listing: &Listing) {
        let assignments = assignments(listing);
        let left = assignments.iter().flat_map(|(_, a)| names(&a.partitions));
        self.lists.insert(0, left.collect());
    }

    /// Checks that the stored plan covers the newest list.
    pub fn is_newest_division(&self, listing: &Listing) -> Result<BTreeSet<String>, String> {
        let workers = self.is_division(listing)?;
        let held: usize = assignments(listing)
            .iter()
            .map(|(_, assignment)| assignment.partitions.len())
            .sum();
        let newest = self.lists.last().map_or(0, BTreeSet::len);
        let all: Names = assignments(listing)
            .iter()
            .flat_map(|(_, assignment)| names(&assignment.partitions))
            .collect();
        if held == newest && self.lists.last() == Some(&all) {
            return Ok(workers);
        }
        Err("the plan covers an older partition list".into())
    }
}

/// The events that the subscribers of one leader must receive.
pub struct Story {
    state: CalculatorState,
    version: Version,
    is_over: bool,
    lines: Vec<String>,
}

impl Default for Story {
    fn default() -> Self {
        Self {
            state: CalculatorState::Idle,
            version: 0,
            is_over: false,
            lines: Vec::new(),
        }
    }
}

impl Story {
    pub fn observed(&mut self, notice: &CalculatorEvent) -> Checked {
        if !matches!(notice, CalculatorEvent::Member { .. }) {
            self.lines.push(format!("{notice:?}"));
        }
        match notice {
            CalculatorEvent::StateChanged(change) => self.moved(change),
            CalculatorEvent::Published { version, .. } => {
                let before = std::mem::replace(&mut self.version, *version);
                if *version <= before {
                    return Err(format!("published {version} after {before}"));
                }
                Ok(())
            }
            CalculatorEvent::LeadershipLost if std::mem::replace(&mut self.is_over, true) => {
                Err("leadership was lost twice".into())
            }
            _ => Ok(()),
        }
    }

    fn moved(&mut self, change: &StateChange) -> Checked {
        let from = std::mem::replace(&mut self.state, change.to);
        if change.from != from || !is_legal(change.from, change.to) {
            return Err(format!(
                "illegal or unreported transition: {change:?} while in {from}"
            ));
        }
        Ok(())
    }

    /// Returns the number of events so far.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Checks that a subscriber since `start` received a prefix of these events, in this order.
    pub fn agrees(&self, start: usize, heard: &[String]) -> Checked {
        let observed = &self.lines[start..];
        if heard.len() <= observed.len() && *heard == observed[..heard.len()] {
            return Ok(());
        }
        Err(format!(
            "a subscriber received other events\nreported: {observed:?}\nreceived: {heard:?}"
        ))
    }
}

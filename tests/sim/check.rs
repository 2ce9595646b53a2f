//! What must hold at every step, whatever the seed does. Kept apart from what makes things happen.

use std::collections::{BTreeMap, BTreeSet};

use divvy::machine::calculator::{CalculatorEvent, StateChange};
use divvy::machine::position::is_legal;
use divvy::machine::publication::{BucketReading, content_hash};
use divvy::store::{Listing, Write};
use divvy::types::{CalculatorState, Partition, Term, Version};
use divvy::wire::{Assignment, COMMIT_KEY, Commit, FENCE_KEY, Fence, KeyPrefix};

use crate::fleet::assignments;

pub type Checked = Result<(), String>;

/// The names of a partition list.
pub type Names = BTreeSet<String>;

pub fn names(list: &[Partition]) -> Names {
    list.iter().map(Partition::subject).collect()
}

/// Which promise a leader's class gives about its deposed self.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Atomic mode: nothing of it is accepted after the newer fence.
    FromFence,
    /// Per-key mode: nothing of it is accepted after the newer leader's take-over is over.
    FromTakeOver,
}

/// Watches all accepted writes of all leaders.
#[derive(Default)]
pub struct Checker {
    /// The highest term that a fence was written for.
    pub fence: Term,
    /// The highest term whose take-over is over.
    taken_over: Term,
    /// The newest commit of any leader.
    committed: Option<(Term, Version)>,
    /// What each version says, as its commit record's digest.
    digests: BTreeMap<Version, String>,
    /// What each key holds, whoever wrote it.
    current: BTreeMap<String, (Version, u128)>,
    /// The newest version that a leader gave each key.
    versions: BTreeMap<String, Version>,
    /// Keys whose last write was not a leader's of this simulation.
    foreign: BTreeSet<String>,
    /// Partition lists that there ever were.
    pub lists: Vec<Names>,
    pub commits: u64,
}

impl Checker {
    /// A write of a leader was accepted. `term` is the leader's when it sent the write.
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
        let fence = Fence::decode(value).map_err(|e| format!("a leader wrote no fence: {e}"))?;
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
        let commit = Commit::decode(value).map_err(|e| format!("a leader wrote no commit: {e}"))?;
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
            return Ok(()); // a take-over brings what stands under its term
        }
        let version = assignment.version;
        let before = self.versions.insert(key.to_owned(), version);
        if before.is_some_and(|before| version <= before) {
            return Err(format!("{key} went from version {before:?} to {version}"));
        }
        Ok(())
    }

    /// Somebody wrote who is no leader of this simulation.
    pub fn foreign(&mut self, key: &str, value: Option<&[u8]>) {
        self.foreign.insert(key.to_owned());
        self.current.remove(key);
        if let Some(assignment) = value.and_then(|value| Assignment::decode(value).ok()) {
            let hash = content_hash(assignment.partitions.iter());
            let now = (assignment.version, hash);
            self.current.insert(key.to_owned(), now);
        }
    }

    /// The bucket was created again, with a sequence that starts at 1. Numbers that no process
    /// remembers may be used again. That no worker goes back is checked elsewhere.
    pub fn all_lost(&mut self) {
        self.fence = 0;
        self.taken_over = 0;
        self.committed = None;
        self.digests.clear();
        self.current.clear();
        self.versions.clear();
    }

    /// The store's data was replaced by an older copy. A process that starts just then knows
    /// nothing of what was lost, and may lead before others have reported it.
    pub fn restored(&mut self) {
        self.all_lost();
        self.foreign
            .extend([COMMIT_KEY.to_owned(), FENCE_KEY.to_owned()]);
    }

    /// A take-over is over. One whose fence somebody has removed meanwhile deposes nobody.
    pub fn took_over(&mut self, term: Term) {
        if term == self.fence {
            self.taken_over = term;
        }
    }

    /// A plan was published in one piece: what is stored now must be that plan.
    pub fn published_whole(&self, listing: &Listing) -> Checked {
        if !self.foreign.is_empty() {
            return Ok(()); // not the leader's doing; the end of the run shows that it is put right
        }
        let reading = BucketReading::of(listing, &KeyPrefix::new("assignment").expect("a prefix"));
        if !reading.is_consistent() {
            return Err("what is stored is not what was committed".into());
        }
        self.is_division(listing).map(|_| ())
    }

    /// Each partition of one of the lists exactly once; returns who holds them.
    pub fn is_division(&self, listing: &Listing) -> Result<BTreeSet<String>, String> {
        let mut workers = BTreeSet::new();
        let mut all = Names::new();
        for (worker, assignment) in assignments(listing) {
            for partition in &assignment.partitions {
                if !all.insert(partition.subject()) {
                    return Err(format!("{} is held twice", partition.subject()));
                }
            }
            workers.insert(worker);
        }
        if self.lists.contains(&all) {
            return Ok(workers);
        }
        Err(format!(
            "{} partitions are held, which is no list that there was",
            all.len()
        ))
    }

    /// Whether the stored division is of the newest list.
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
        Err("the division is of an older partition list".into())
    }
}

/// What one leader's subscribers must be told.
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
    pub fn told(&mut self, notice: &CalculatorEvent) -> Checked {
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
                "illegal or untold move: {change:?} while in {from}"
            ));
        }
        Ok(())
    }

    /// How much has been told so far.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// A subscriber of the time since `start` heard the beginning of this, in this order.
    pub fn agrees(&self, start: usize, heard: &[String]) -> Checked {
        let told = &self.lines[start..];
        if heard.len() <= told.len() && *heard == told[..heard.len()] {
            return Ok(());
        }
        Err(format!(
            "a subscriber heard another story\ntold:  {told:?}\nheard: {heard:?}"
        ))
    }
}

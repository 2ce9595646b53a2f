//! What one worker holds: applied in order of term and version, with what came and what went.
//!
//! An assignment with an older term or version is rejected; one without a term (from a parti
//! leader) is judged by its version alone. A deleted assignment releases everything. A malformed
//! value changes nothing. Ownership can be *suspended* (strict mode): the worker then owns nothing
//! until it is resumed.
//!
//! Before the first word of the store something can be [recalled](Assignments::recall) that is held
//! until that word comes, whatever it says.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Result;
use crate::machine::plausible::{Numbered, plausible_max};
use crate::store::Entry;
use crate::types::{Partition, Term, Version};
use crate::wire::{self, Applied};

/// An assignment as applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The plan's version; 0 before the first assignment.
    pub version: Version,
    /// The term it was published in; 0 when a leader without terms (parti) wrote it.
    pub term: Term,
    /// Why the plan was made, as it was written; [`CACHED`] for what came from the cache file.
    pub lifecycle: String,
    /// The partitions, in the order written.
    pub partitions: Arc<[Partition]>,
}

/// The lifecycle of an assignment that came from the cache file, and is not confirmed yet.
pub const CACHED: &str = "cached";

impl Held {
    /// Whether it came from the cache file and the store has not been heard of since: others may
    /// hold these partitions, too.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.lifecycle == CACHED
    }
}

/// A change of an assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignmentChange {
    /// The whole assignment after the change.
    pub held: Held,
    /// Partitions that were not held before.
    pub added: Vec<Partition>,
    /// Partitions that are no longer held.
    pub removed: Vec<Partition>,
}

/// The assignment of one worker.
#[derive(Debug, Default)]
pub struct Assignments {
    /// What the store says.
    stored: Held,
    /// What was delivered to the host.
    reported: Held,
    /// The highest term and version accepted.
    applied: Applied,
    has_one: bool,
    /// What is stored was recalled, not read.
    is_recalled: bool,
    is_suspended: bool,
    refused: u64,
}

impl Assignments {
    /// Returns the assignment delivered to the host.
    #[must_use]
    pub fn held(&self) -> &Held {
        &self.reported
    }

    /// What was applied, for the heartbeat.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.applied
    }

    /// Whether there was an assignment at all.
    #[must_use]
    pub fn has_one(&self) -> bool {
        self.has_one
    }

    /// Whether the assignment was recalled from the cache and not confirmed by the store.
    #[must_use]
    pub fn is_recalled(&self) -> bool {
        self.is_recalled
    }

    /// Whether ownership is suspended.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.is_suspended
    }

    /// How many assignments were refused for being old.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Applies the state of the worker's key; returns the change, if any.
    ///
    /// # Errors
    /// `InvalidData`: the value cannot be understood, and nothing changed.
    pub fn apply(&mut self, entry: &Entry) -> Result<Option<AssignmentChange>> {
        if !entry.is_live() {
            return Ok(self.gone());
        }
        let read = wire::Assignment::decode(&entry.value)?;
        read.check_plausible(plausible_max(entry.revision))?;
        if std::mem::take(&mut self.is_recalled) {
            self.applied = Applied::default();
        }
        let is_newer = match read.term {
            None => read.version > self.applied.version,
            Some(term) if term == self.applied.term => read.version > self.applied.version,
            Some(term) => term > self.applied.term,
        };
        let is_again = read.version == self.stored.version
            && read.term.unwrap_or(0) == self.stored.term
            && self.has_one;
        // The first one counts, even of the version that none has.
        if self.has_one && !is_newer && !is_again {
            self.refused += 1;
            return Ok(None);
        }
        self.has_one = true;
        self.applied = Applied {
            term: read.term.unwrap_or(0).max(self.applied.term),
            version: read.version,
        };
        self.stored = Held {
            version: read.version,
            term: read.term.unwrap_or(0),
            lifecycle: read.lifecycle,
            partitions: read.partitions.into(),
        };
        Ok(self.report())
    }

    /// Applies the assignment that a previous process cached, before the store has answered.
    pub fn recall(&mut self, held: Held) -> Option<AssignmentChange> {
        if self.has_one {
            return None;
        }
        self.is_recalled = true;
        self.applied = Applied {
            term: held.term,
            version: held.version,
        };
        self.stored = Held {
            lifecycle: CACHED.to_owned(),
            ..held
        };
        self.report()
    }

    /// The key does not exist: whatever was held is not any more.
    pub fn gone(&mut self) -> Option<AssignmentChange> {
        if std::mem::take(&mut self.is_recalled) {
            self.applied = Applied::default();
            self.stored = Held::default();
        }
        self.stored.partitions = Arc::default();
        self.report()
    }

    /// Nothing is held until [`Assignments::resume`].
    pub fn suspend(&mut self) -> Option<AssignmentChange> {
        self.is_suspended = true;
        self.report()
    }

    /// What the store says is held again.
    pub fn resume(&mut self) -> Option<AssignmentChange> {
        self.is_suspended = false;
        self.report()
    }

    /// The id is another one from now on: nothing is held under it yet.
    pub fn forget(&mut self) -> Option<AssignmentChange> {
        let refused = self.refused;
        let reported = std::mem::take(&mut self.reported);
        *self = Self {
            reported,
            refused,
            ..Self::default()
        };
        self.report()
    }

    fn report(&mut self) -> Option<AssignmentChange> {
        let held = Held {
            partitions: if self.is_suspended {
                Arc::default()
            } else {
                Arc::clone(&self.stored.partitions)
            },
            ..self.stored.clone()
        };
        if held == self.reported {
            return None;
        }
        let (added, removed) = difference(&self.reported.partitions, &held.partitions);
        self.reported = held.clone();
        Some(AssignmentChange {
            held,
            added,
            removed,
        })
    }
}

/// What is only in `after`, and what is only in `before`, by keys.
fn difference(before: &[Partition], after: &[Partition]) -> (Vec<Partition>, Vec<Partition>) {
    let by_keys = |list: &[Partition]| -> BTreeMap<Vec<String>, Partition> {
        list.iter().map(|p| (p.keys.clone(), p.clone())).collect()
    };
    let (before, after) = (by_keys(before), by_keys(after));
    let only = |these: &BTreeMap<Vec<String>, Partition>, those: &BTreeMap<Vec<String>, _>| {
        let only = these.iter().filter(|(keys, _)| !those.contains_key(*keys));
        only.map(|(_, partition)| partition.clone()).collect()
    };
    (only(&after, &before), only(&before, &after))
}

#[cfg(test)]
mod tests;

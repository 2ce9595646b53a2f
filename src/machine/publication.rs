//! What the publisher knows of the assignment bucket, and what a new plan changes there.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3;

use crate::store::{Entry, Listing};
use crate::strategy::Plan;
use crate::types::{Partition, Revision, Term, Version, WorkerId};
use crate::wire::{self, Assignment, COMMIT_KEY, Commit, FENCE_KEY, Fence, KeyPrefix};

/// Hash over the partitions of one assignment: equal hash, equal content.
pub type ContentHash = u128;

/// The key of one worker as last seen or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The key's last revision.
    pub revision: Revision,
    /// What it holds.
    pub content: Content,
    /// Whether a write of it ended as unknown and may still arrive: as long as the revision
    /// stays, nothing else would keep it out.
    pub in_doubt: bool,
}

/// What a worker's key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing: the key was deleted.
    Deleted,
    /// A readable assignment.
    Assigned(ContentHash),
    /// Something that is no assignment.
    Malformed,
}

/// One record of divvy's own: where it stands and what it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record<T> {
    /// The key's last revision; 0 when there is none.
    pub revision: Revision,
    /// What it says; `None` when there is nothing, or nothing readable.
    pub value: Option<T>,
}

/// Everything that one listing of the assignment bucket tells.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The fence record.
    pub fence: Record<Fence>,
    /// The commit record.
    pub commit: Record<Commit>,
    /// The workers' keys.
    pub slots: BTreeMap<WorkerId, Slot>,
    /// The readable assignments, in order of worker.
    pub stored: Vec<(WorkerId, Assignment)>,
    /// The highest term found anywhere, the fence included.
    pub highest_term: Term,
    /// The highest version found anywhere.
    pub highest_version: Version,
    /// Every write up to this number is reflected.
    pub last_sequence: Revision,
    /// Values and keys that could not be understood.
    pub poison: u32,
}

impl Reading {
    /// Takes a listing of the whole bucket apart. What cannot be understood is counted.
    #[must_use]
    pub fn of(listing: &Listing, prefix: &KeyPrefix) -> Self {
        let mut reading = Reading {
            last_sequence: listing.last_sequence,
            ..Reading::default()
        };
        for entry in &listing.entries {
            match entry.key.as_str() {
                FENCE_KEY => reading.fence = record(entry, Fence::decode, &mut reading.poison),
                COMMIT_KEY => reading.commit = record(entry, Commit::decode, &mut reading.poison),
                key if prefix.suffix(key).is_some() => reading.take_assignment(entry, prefix),
                _ => {}
            }
        }
        reading.stored.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some(fence) = &reading.fence.value {
            reading.highest_term = reading.highest_term.max(fence.term);
        }
        if let Some(commit) = &reading.commit.value {
            reading.highest_term = reading.highest_term.max(commit.term);
            reading.highest_version = reading.highest_version.max(commit.version);
        }
        reading
    }

    /// Whether the assignments are one complete plan: all readable, and the commit record, where
    /// there is one, has their digest.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        let malformed = |slot: &Slot| slot.content == Content::Malformed;
        if self.slots.values().any(malformed) {
            return false;
        }
        let Some(commit) = &self.commit.value else {
            return self.commit.revision == 0;
        };
        let mut newer = self
            .stored
            .iter()
            .filter(|(_, assignment)| assignment.version > commit.version)
            .peekable();
        if newer.peek().is_some() && newer.all(|(_, assignment)| assignment.term.is_none()) {
            // A leader without terms (parti's) published since: the record is not about its plan.
            return true;
        }
        commit.digest == digest(self.contents())
    }

    fn contents(&self) -> impl Iterator<Item = (&WorkerId, ContentHash)> {
        self.slots
            .iter()
            .filter_map(|(worker, slot)| match slot.content {
                Content::Assigned(hash) => Some((worker, hash)),
                Content::Deleted | Content::Malformed => None,
            })
    }

    fn take_assignment(&mut self, entry: &Entry, prefix: &KeyPrefix) {
        let Ok(worker) = wire::worker_of_key(prefix, &entry.key) else {
            self.poison += 1;
            return;
        };
        let content = if !entry.is_live() {
            Content::Deleted
        } else if let Ok(assignment) = Assignment::decode(&entry.value) {
            self.highest_version = self.highest_version.max(assignment.version);
            self.highest_term = self.highest_term.max(assignment.term.unwrap_or(0));
            let hash = content_hash(assignment.partitions.iter());
            self.stored.push((worker.clone(), assignment));
            Content::Assigned(hash)
        } else {
            self.poison += 1;
            Content::Malformed
        };
        let slot = Slot {
            revision: entry.revision,
            content,
            in_doubt: false,
        };
        self.slots.insert(worker, slot);
    }

    /// Takes over from an older reading which keys are in doubt: those whose revision has not
    /// moved since.
    pub fn keep_doubts(&mut self, before: &BTreeMap<WorkerId, Slot>) {
        for (worker, old) in before.iter().filter(|(_, slot)| slot.in_doubt) {
            let slot = self.slots.entry(worker.clone()).or_insert(Slot::NONE);
            slot.in_doubt = slot.revision == old.revision;
        }
    }
}

impl Slot {
    /// A key that was never written.
    pub const NONE: Slot = Slot {
        revision: 0,
        content: Content::Deleted,
        in_doubt: false,
    };

    /// The revision that protects the key from a deposed leader: a take-over rewrites every
    /// readable assignment, and nothing else.
    fn protection(&self) -> Option<Revision> {
        matches!(self.content, Content::Assigned(_)).then_some(self.revision)
    }
}

fn record<T>(
    entry: &Entry,
    decode: impl Fn(&[u8]) -> crate::error::Result<T>,
    poison: &mut u32,
) -> Record<T> {
    let value = match entry.is_live().then(|| decode(&entry.value)) {
        None => None,
        Some(Ok(value)) => Some(value),
        Some(Err(_)) => {
            *poison += 1;
            None
        }
    };
    Record {
        revision: entry.revision,
        value,
    }
}

/// What one worker's key is to become.
#[derive(Debug)]
pub struct Change {
    /// Whose key.
    pub worker: WorkerId,
    /// The key's last revision; `None` when it holds no readable assignment, so that no revision
    /// protects it.
    pub revision: Option<Revision>,
    /// Its new partitions; `None`: the key is deleted.
    pub partitions: Option<(Box<RawValue>, ContentHash)>,
}

/// What `plan` changes in `slots`: new and changed assignments, and deletions of the keys of
/// workers that it does not have. A key in doubt is written whatever it holds, so that the write
/// on its way comes too late. There is always at least one assignment to write, since a leader of
/// parti learns versions from nothing else.
#[must_use]
pub fn changes(slots: &BTreeMap<WorkerId, Slot>, plan: &Plan) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut unchanged = None;
    for (index, worker) in (0_u32..).zip(plan.workers().iter()) {
        let slot = slots.get(worker);
        let hash = content_hash(plan.partitions_of(index));
        if slot.is_some_and(|s| s.content == Content::Assigned(hash) && !s.in_doubt) {
            unchanged = unchanged.or(Some((index, worker, hash)));
            continue;
        }
        changes.push(assign(plan, index, worker, slot, hash));
    }
    if changes.is_empty()
        && let Some((index, worker, hash)) = unchanged
    {
        changes.push(assign(plan, index, worker, slots.get(worker), hash));
    }
    for (worker, slot) in slots {
        let departed = plan.workers().binary_search(worker).is_err();
        if departed && (slot.content != Content::Deleted || slot.in_doubt) {
            changes.push(Change {
                worker: worker.clone(),
                revision: slot.protection(),
                partitions: None,
            });
        }
    }
    changes
}

fn assign(
    plan: &Plan,
    index: u32,
    worker: &WorkerId,
    slot: Option<&Slot>,
    hash: ContentHash,
) -> Change {
    Change {
        worker: worker.clone(),
        revision: slot.and_then(Slot::protection),
        partitions: Some((wire::encode_partitions(plan.partitions_of(index)), hash)),
    }
}

/// Hash over partitions in the order given: keys and weights.
#[must_use]
pub fn content_hash<'a>(partitions: impl Iterator<Item = &'a Partition>) -> ContentHash {
    let mut hasher = Xxh3::new();
    for partition in partitions {
        hasher.update(&partition.weight.to_le_bytes());
        hasher.update(&(partition.keys.len() as u64).to_le_bytes());
        for key in &partition.keys {
            hasher.update(&(key.len() as u64).to_le_bytes());
            hasher.update(key.as_bytes());
        }
    }
    hasher.digest128()
}

/// Digest over a whole plan, for the commit record: hexadecimal, over workers in order.
#[must_use]
pub fn digest<'a>(contents: impl Iterator<Item = (&'a WorkerId, ContentHash)>) -> String {
    let mut hasher = Xxh3::new();
    for (worker, hash) in contents {
        hasher.update(&(worker.as_str().len() as u64).to_le_bytes());
        hasher.update(worker.as_str().as_bytes());
        hasher.update(&hash.to_le_bytes());
    }
    format!("{:032x}", hasher.digest128())
}

/// The digest of a plan.
#[must_use]
pub fn plan_digest(plan: &Plan) -> String {
    let hashes: Vec<ContentHash> = (0_u32..)
        .zip(plan.workers().iter())
        .map(|(index, _)| content_hash(plan.partitions_of(index)))
        .collect();
    digest(plan.workers().iter().zip(hashes))
}

//! What changes from one plan to the next.

use super::{DEFAULT_WEIGHT, Plan};
use crate::types::{Partition, WorkerId};

/// The difference between two plans. Weights count 0 or less as 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// What changes for each worker of either plan, sorted by id.
    pub workers: Vec<WorkerDiff>,
    /// Partitions that only the new plan has.
    pub added: usize,
    /// Partitions that only the old plan has.
    pub removed: usize,
    /// Partitions that have another owner now.
    pub moved: usize,
    /// Their weight.
    pub moved_weight: i128,
    /// The part of it that had to move as its owner is gone: the least possible.
    pub orphaned_weight: i128,
    /// Weight of all partitions of the new plan.
    pub total_weight: i128,
}

/// What changes for one worker, in partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerDiff {
    /// The worker.
    pub worker: WorkerId,
    /// New partitions that it gets.
    pub added: usize,
    /// Partitions of its own that are no more.
    pub removed: usize,
    /// Partitions that come from other workers.
    pub moved_in: usize,
    /// Partitions that go to other workers.
    pub moved_out: usize,
}

/// The weight that a partition counts with.
pub(super) fn weight_of(partition: &Partition) -> i128 {
    let weight = partition.weight;
    i128::from(if weight > 0 { weight } else { DEFAULT_WEIGHT })
}

/// Compares two plans.
#[must_use]
pub fn diff(old: &Plan, new: &Plan) -> Diff {
    let mut ids: Vec<&WorkerId> = old.workers().iter().chain(new.workers().iter()).collect();
    ids.sort_unstable();
    ids.dedup();
    let unchanged = |id: &&WorkerId| WorkerDiff {
        worker: (*id).clone(),
        added: 0,
        removed: 0,
        moved_in: 0,
        moved_out: 0,
    };
    let mut diff = Diff {
        workers: ids.iter().map(unchanged).collect(),
        ..Diff::default()
    };
    // The owners of both plans as places in one list, so that they can be compared.
    let place = |id: &WorkerId| ids.binary_search(&id).unwrap_or_default() as u32;
    let places: Vec<u32> = new.workers().iter().map(place).collect();
    let ids: Vec<WorkerId> = ids.into_iter().cloned().collect();
    let before = old.previous_for(&ids, new.partitions());
    for ((partition, &owner), before) in new.partitions().iter().zip(new.owners()).zip(before) {
        let now = places[owner as usize];
        let weight = weight_of(partition);
        diff.total_weight += weight;
        match before {
            None => {
                diff.added += 1;
                diff.workers[now as usize].added += 1;
            }
            Some(before) if before != now => {
                diff.moved += 1;
                diff.moved_weight += weight;
                if new.workers().binary_search(&ids[before as usize]).is_err() {
                    diff.orphaned_weight += weight;
                }
                diff.workers[before as usize].moved_out += 1;
                diff.workers[now as usize].moved_in += 1;
            }
            Some(_) => {}
        }
    }
    let places = old.previous_for(&ids, old.partitions());
    let after = new.previous_for(&ids, old.partitions());
    for (owner, after) in places.into_iter().zip(after) {
        if let (Some(owner), None) = (owner, after) {
            diff.removed += 1;
            diff.workers[owner as usize].removed += 1;
        }
    }
    diff
}

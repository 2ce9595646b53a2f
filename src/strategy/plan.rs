//! A plan as the rest of the library keeps it: who owns what, grouped by worker.

use std::cmp::Ordering;
use std::sync::Arc;

use super::hash::hash_keys;
use super::{PlanInput, WorkerIndex, check};
use crate::error::{Code, Error, Result};
use crate::types::{Partition, WorkerId};

/// A whole division: workers, partitions, and the owner of each partition.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    workers: Arc<[WorkerId]>,
    partitions: Arc<[Partition]>,
    owners: Vec<WorkerIndex>,
    /// Partition indices, grouped by worker, ascending within each.
    members: Vec<u32>,
    /// Where each worker's group begins in `members`, and the end.
    starts: Vec<u32>,
    /// Partitions without an owner, in canonical order.
    unassigned: Arc<[Partition]>,
}

impl Plan {
    /// Takes a strategy's answer for sorted, unique workers and canonical partitions.
    ///
    /// # Errors
    /// As [`check`]; [`Code::TooLarge`] beyond 2^32 - 1 partitions.
    pub fn new(
        workers: Arc<[WorkerId]>,
        partitions: Arc<[Partition]>,
        owners: Vec<WorkerIndex>,
    ) -> Result<Self> {
        let input = PlanInput {
            workers: &workers,
            partitions: &partitions,
            previous: &[],
        };
        check(&input, &owners)?;
        let Ok(count) = u32::try_from(owners.len()) else {
            return Err(Error::new(Code::TooLarge, "too many partitions for a plan"));
        };

        let mut starts = vec![0_u32; workers.len() + 1];
        for &owner in &owners {
            starts[owner as usize] += 1;
        }
        let mut total = 0;
        for start in &mut starts {
            total += *start;
            *start = total;
        }
        // Filling each group from its end turns the ends in `starts` into beginnings.
        let mut members = vec![0; owners.len()];
        for (partition, &owner) in (0..count).zip(&owners).rev() {
            let start = &mut starts[owner as usize];
            *start -= 1;
            members[*start as usize] = partition;
        }
        Ok(Self {
            workers,
            partitions,
            owners,
            members,
            starts,
            unassigned: Arc::default(),
        })
    }

    /// Returns this plan without an owner for these partitions (indices, ascending).
    ///
    /// # Errors
    /// None for indices of this plan.
    pub(crate) fn leaving_out(self, left_out: &[u32]) -> Result<Self> {
        let is_left_out = |index: &u32| left_out.binary_search(index).is_ok();
        let all = 0..self.partitions.len() as u32;
        let (out, kept): (Vec<u32>, Vec<u32>) = all.partition(is_left_out);
        let partition = |&index: &u32| self.partitions[index as usize].clone();
        let owners = kept.iter().map(|&index| self.owners[index as usize]);
        let partitions = kept.iter().map(partition).collect();
        let plan = Self::new(Arc::clone(&self.workers), partitions, owners.collect())?;
        Ok(Self {
            unassigned: out.iter().map(partition).collect(),
            ..plan
        })
    }

    /// The partitions without an owner, in canonical order: assignments with them would be too large
    /// for the store.
    #[must_use]
    pub fn unassigned(&self) -> &Arc<[Partition]> {
        &self.unassigned
    }

    /// The list that the plan was made of, in canonical order: with and without an owner.
    #[must_use]
    pub fn listed(&self) -> Arc<[Partition]> {
        if self.unassigned.is_empty() {
            return Arc::clone(&self.partitions);
        }
        let mut all: Vec<Partition> = [&self.partitions[..], &self.unassigned].concat();
        all.sort();
        all.into()
    }

    /// The workers, sorted bytewise.
    #[must_use]
    pub fn workers(&self) -> &Arc<[WorkerId]> {
        &self.workers
    }

    /// The partitions, in canonical order.
    #[must_use]
    pub fn partitions(&self) -> &Arc<[Partition]> {
        &self.partitions
    }

    /// The owner of each partition, as an index of [`workers`](Self::workers).
    #[must_use]
    pub fn owners(&self) -> &[WorkerIndex] {
        &self.owners
    }

    /// The indices of a worker's partitions, ascending.
    ///
    /// # Panics
    /// When there is no such worker.
    #[must_use]
    pub fn indices_of(&self, worker: WorkerIndex) -> &[u32] {
        let worker = worker as usize;
        &self.members[self.starts[worker] as usize..self.starts[worker + 1] as usize]
    }

    /// A worker's partitions, in canonical order.
    ///
    /// # Panics
    /// When there is no such worker.
    pub fn partitions_of(
        &self,
        worker: WorkerIndex,
    ) -> impl ExactSizeIterator<Item = &Partition> + Clone {
        let indices = self.indices_of(worker).iter();
        indices.map(|&index| &self.partitions[index as usize])
    }

    /// This plan as [`PlanInput::previous`] of the next: for each of `partitions` (canonical), the
    /// worker among `workers` (sorted, unique) that owns it here.
    #[must_use]
    pub fn previous_for(
        &self,
        workers: &[WorkerId],
        partitions: &[Partition],
    ) -> Vec<Option<WorkerIndex>> {
        let now = index_of_each(self.workers.iter(), workers);
        let owner_now = |index: usize| now[self.owners[index] as usize];
        if std::ptr::eq(&*self.partitions, partitions) {
            return (0..partitions.len()).map(owner_now).collect();
        }
        let mut ours = 0;
        let mut owner_of = |partition: &Partition| {
            while let Some(candidate) = self.partitions.get(ours) {
                match candidate.keys.cmp(&partition.keys) {
                    Ordering::Less => ours += 1,
                    Ordering::Equal => return owner_now(ours),
                    Ordering::Greater => break,
                }
            }
            None
        };
        partitions.iter().map(&mut owner_of).collect()
    }
}

/// Assignments as read from the store as [`PlanInput::previous`]: for each of `partitions`
/// (canonical), the worker among `workers` (sorted, unique) that holds it.
///
/// The lists may be in any order and hold anything. A partition that several live workers hold
/// counts as the first one's, by worker id.
#[must_use]
pub fn previous_from_lists(
    lists: &[(WorkerId, Vec<Partition>)],
    workers: &[WorkerId],
    partitions: &[Partition],
) -> Vec<Option<WorkerIndex>> {
    let index = KeyIndex::new(partitions);
    let mut previous = vec![None; partitions.len()];
    for (worker, list) in lists {
        let Ok(worker) = workers.binary_search(worker) else {
            continue;
        };
        let worker = worker as WorkerIndex;
        for place in list.iter().filter_map(|p| index.find(&p.keys)) {
            let holder = previous[place].get_or_insert(worker);
            *holder = worker.min(*holder);
        }
    }
    previous
}

/// The index in `targets` of each of `ids`; both sorted.
fn index_of_each<'a>(
    ids: impl Iterator<Item = &'a WorkerId>,
    targets: &[WorkerId],
) -> Vec<Option<WorkerIndex>> {
    let find = |id: &WorkerId| targets.binary_search(id).ok();
    ids.map(|id| find(id).map(|index| index as WorkerIndex))
        .collect()
}

/// Finds partitions by keys: a table of indices, probed from the keys' hash on.
struct KeyIndex<'a> {
    partitions: &'a [Partition],
    /// Index + 1 of a partition; 0 for a free place. At least half of the places are free.
    table: Vec<u32>,
}

impl<'a> KeyIndex<'a> {
    fn new(partitions: &'a [Partition]) -> Self {
        let table = vec![0; (partitions.len() * 2).next_power_of_two()];
        let mut index = Self { partitions, table };
        for (number, partition) in (1_u32..).zip(partitions) {
            let (Ok(place) | Err(place)) = index.probe(&partition.keys);
            index.table[place] = number;
        }
        index
    }

    fn find(&self, keys: &[String]) -> Option<usize> {
        let place = self.probe(keys).ok()?;
        Some(self.table[place] as usize - 1)
    }

    /// The place where `keys` are, or the free one where they would be.
    fn probe(&self, keys: &[String]) -> std::result::Result<usize, usize> {
        let mask = self.table.len() - 1;
        let mut place = hash_keys(keys, 0) as usize & mask;
        loop {
            match self.table[place] as usize {
                0 => return Err(place),
                number if self.partitions[number - 1].keys == keys => return Ok(place),
                _ => place = (place + 1) & mask,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(ids: &[&str]) -> Arc<[WorkerId]> {
        ids.iter().map(|id| WorkerId::new(id).unwrap()).collect()
    }

    fn partitions(keys: &[&str]) -> Arc<[Partition]> {
        keys.iter().map(|key| Partition::new([*key], 7)).collect()
    }

    fn plan() -> Plan {
        let (workers, partitions) = (workers(&["a", "b", "c"]), partitions(&["p", "q", "r", "s"]));
        Plan::new(workers, partitions, vec![2, 0, 2, 0]).unwrap()
    }

    #[test]
    fn every_partition_is_in_its_owners_group_once_in_order() {
        let plan = plan();
        assert_eq!(plan.indices_of(0), [1, 3]);
        assert_eq!(plan.indices_of(1), [0_u32; 0]);
        assert_eq!(plan.indices_of(2), [0, 2]);
        let ids: Vec<_> = plan.partitions_of(2).map(Partition::id).collect();
        assert_eq!(ids, ["p", "r"]);
    }

    #[test]
    fn invalid_owner_list_yields_no_plan() {
        let owners = vec![0, 1, 2, 3];
        let result = Plan::new(workers(&["a"]), partitions(&["p", "q", "r", "s"]), owners);
        assert_eq!(result.unwrap_err().code(), Code::InvalidPlan);
        let result = Plan::new(workers(&[]), partitions(&["p"]), vec![0]);
        assert_eq!(result.unwrap_err().code(), Code::InvalidPlan);
        let empty = Plan::new(workers(&[]), partitions(&[]), vec![]).unwrap();
        assert!(empty.previous_for(&workers(&["a"]), &partitions(&["p"])) == [None]);
    }

    #[test]
    fn previous_plan_follows_workers_and_partitions_by_name() {
        let plan = plan();
        let same = plan.previous_for(plan.workers(), plan.partitions());
        assert_eq!(same, [Some(2), Some(0), Some(2), Some(0)]);
        let shifted = workers(&["B", "a", "bb", "c"]);
        let kept = plan.previous_for(&shifted, plan.partitions());
        assert_eq!(kept, [Some(3), Some(1), Some(3), Some(1)]);
        let changed = partitions(&["a", "p", "pp", "r", "s", "z"]);
        let mapped = plan.previous_for(&workers(&["a", "b"]), &changed);
        assert_eq!(mapped, [None, None, None, None, Some(0), None]);
    }

    #[test]
    fn stored_lists_may_be_unsorted_foreign_and_contradictory() {
        let list = |keys: &[&str]| partitions(keys).to_vec();
        let id = |id| WorkerId::new(id).unwrap();
        let lists = [
            (id("c"), list(&["r", "p", "unknown", "p"])),
            (id("gone"), list(&["q", "p"])),
            (id("a"), list(&["s", "r"])),
            (id("b"), vec![Partition::new(Vec::<String>::new(), 0)]),
        ];
        let (workers, partitions) = (workers(&["a", "b", "c"]), partitions(&["p", "q", "r", "s"]));
        let previous = previous_from_lists(&lists, &workers, &partitions);
        assert_eq!(previous, [Some(2), None, Some(0), Some(0)]);
        assert!(previous_from_lists(&lists, &workers, &[]).is_empty());
    }
}

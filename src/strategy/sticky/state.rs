//! A plan under construction: owners by weight, and the partitions without an owner.

use super::model::{Band, Model};
use crate::strategy::WorkerIndex;

/// The owner of a partition that is in the pool.
pub(super) const UNASSIGNED: WorkerIndex = WorkerIndex::MAX;

pub(super) struct Division<'a> {
    pub(super) model: &'a Model,
    /// The worker that held each partition before.
    pub(super) home: &'a [Option<WorkerIndex>],
    pub(super) owners: Vec<WorkerIndex>,
    pub(super) loads: Vec<i64>,
    /// Each worker's partitions, ascending by (weight, index).
    pub(super) lists: Vec<Vec<u32>>,
    /// Partitions without an owner.
    pub(super) pool: Vec<u32>,
    /// Weight of each worker's fine partitions: those light enough to level loads with.
    pub(super) fine_loads: Vec<i64>,
    /// The heaviest weight that counts as fine.
    pub(super) fine: i64,
    /// Weight that may yet leave its home.
    pub(super) move_budget: i64,
    /// Remaining worker visits of searches, which bound the time of a call.
    pub(super) looks_left: i64,
    /// Cost of the cheapest way to a partition in the search that is under way.
    pub(super) seen: Vec<i64>,
}

impl<'a> Division<'a> {
    pub(super) fn new(
        model: &'a Model,
        home: &'a [Option<WorkerIndex>],
        fine: i64,
        move_budget: i64,
    ) -> Self {
        let workers = model.capacities.len();
        let mut counts = vec![0_usize; workers];
        let mut loads = vec![0; workers];
        for (owner, weight) in home.iter().zip(&model.weights) {
            if let Some(owner) = *owner {
                counts[owner as usize] += 1;
                loads[owner as usize] += weight;
            }
        }
        let mut lists: Vec<Vec<u32>> = counts.into_iter().map(Vec::with_capacity).collect();
        let mut pool = Vec::new();
        for (partition, owner) in (0..).zip(home) {
            match *owner {
                Some(owner) => lists[owner as usize].push(partition),
                None => pool.push(partition),
            }
        }
        for list in &mut lists {
            list.sort_unstable_by_key(|&p| (model.weights[p as usize], p));
        }
        let fine_load = |list: &Vec<u32>| -> i64 {
            let weights = list.iter().map(|&p| model.weights[p as usize]);
            weights.take_while(|&weight| weight <= fine).sum()
        };
        Self {
            fine_loads: lists.iter().map(fine_load).collect(),
            fine,
            looks_left: 300_000 + 16 * home.len() as i64 + 200 * workers as i64,
            seen: vec![i64::MAX; home.len()],
            model,
            home,
            owners: home
                .iter()
                .map(|owner| owner.unwrap_or(UNASSIGNED))
                .collect(),
            loads,
            lists,
            pool,
            move_budget,
        }
    }

    pub(super) fn weight(&self, partition: u32) -> i64 {
        self.model.weights[partition as usize]
    }

    pub(super) fn owner(&self, partition: u32) -> WorkerIndex {
        self.owners[partition as usize]
    }

    /// What it costs to take a partition from its owner: its weight, or nothing when it is away
    /// from home already.
    pub(super) fn cost(&self, partition: u32) -> i64 {
        if self.home[partition as usize] == Some(self.owner(partition)) {
            self.weight(partition)
        } else {
            0
        }
    }

    /// Weight of the heaviest partition of a worker.
    pub(super) fn top(&self, worker: WorkerIndex) -> i64 {
        let list = &self.lists[worker as usize];
        list.last().map_or(0, |&partition| self.weight(partition))
    }

    /// Place in a worker's list of the first partition of at least this weight.
    pub(super) fn place_of(&self, worker: WorkerIndex, weight: i64) -> usize {
        self.lists[worker as usize].partition_point(|&p| self.weight(p) < weight)
    }

    /// How much a worker holds beyond the band, or lacks (negative), 0 within.
    pub(super) fn offence(&self, worker: WorkerIndex, band: Band) -> i64 {
        let load = self.loads[worker as usize];
        self.model.offence(worker, load, self.top(worker), band)
    }

    /// Takes a partition from its owner, if it has one, and gives it to `worker`.
    pub(super) fn give(&mut self, partition: u32, worker: WorkerIndex) {
        self.take(partition);
        let key = (self.weight(partition), partition);
        let model = self.model;
        let list = &mut self.lists[worker as usize];
        let place = list.partition_point(|&p| (model.weights[p as usize], p) < key);
        list.insert(place, partition);
        self.add_load(worker, key.0);
        self.owners[partition as usize] = worker;
        if self.home[partition as usize] == Some(worker) {
            self.move_budget += key.0;
        }
    }

    /// Takes a partition from its owner, if it has one; it is the caller's to place.
    pub(super) fn take(&mut self, partition: u32) {
        let owner = self.owner(partition);
        if owner == UNASSIGNED {
            return;
        }
        self.move_budget -= self.cost(partition);
        let key = (self.weight(partition), partition);
        let model = self.model;
        let list = &mut self.lists[owner as usize];
        let place = list.partition_point(|&p| (model.weights[p as usize], p) < key);
        debug_assert_eq!(list[place], partition);
        list.remove(place);
        self.add_load(owner, -key.0);
        self.owners[partition as usize] = UNASSIGNED;
    }

    /// Books the weight of a partition that comes, or (negative) goes.
    pub(super) fn add_load(&mut self, worker: WorkerIndex, weight: i64) {
        self.loads[worker as usize] += weight;
        if weight.abs() <= self.fine {
            self.fine_loads[worker as usize] += weight;
        }
    }
}

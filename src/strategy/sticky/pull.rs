//! Chains that pull partitions to a worker that lacks load.

use std::cmp::Reverse;

use super::search::{
    Constraints, DEPTH_MAX, FINE_WEIGHT_MIN, MovePolicy, Node, Search, SearchStep,
};
use super::state::Division;
use crate::strategy::WorkerIndex;

impl Division<'_> {
    /// Moves an underloaded worker towards the band. Returns whether that succeeded.
    pub(super) fn replenish(&mut self, worker: WorkerIndex, constraints: Constraints) -> bool {
        self.pull_one(worker, constraints) || self.pull_chain(worker, constraints)
    }

    /// Takes the heaviest partition that does not overshoot from a worker that can spare it.
    fn pull_one(&mut self, worker: WorkerIndex, constraints: Constraints) -> bool {
        let lack = -self.offence(worker, constraints.band);
        let mut best: Option<(i64, Reverse<i64>, u64, Reverse<u32>)> = None;
        for other in 0..self.lists.len() as WorkerIndex {
            let spare = self.loads[other as usize] - self.model.load_min(other, constraints.band);
            if other == worker || spare <= 0 {
                continue;
            }
            let end = self.place_of(other, spare.min(lack) + 1);
            let fine = self.place_of(other, lack / FINE_WEIGHT_MIN).min(end);
            let mut list = self.lists[other as usize][fine..end].iter().rev();
            let Some(&partition) = list.find(|&&p| self.may_move(p, constraints.policy)) else {
                continue;
            };
            let cost = self.cost(partition);
            // Of several equal ones, prefer one from the most loaded worker.
            let level = self
                .model
                .level(other, self.loads[other as usize])
                .to_bits();
            let weight = self.weight(partition);
            let key = (weight, Reverse(cost), level, Reverse(partition));
            if cost <= self.move_budget && best.is_none_or(|best| key > best) {
                best = Some(key);
            }
        }
        if let Some((.., Reverse(partition))) = best {
            self.give(partition, worker);
        }
        best.is_some()
    }

    /// Follows the best chain by which partitions are pulled to this worker.
    fn pull_chain(&mut self, worker: WorkerIndex, constraints: Constraints) -> bool {
        let mut search = self.search(worker);
        let fine_load = self.spare_fine_load(constraints);
        self.expand_pull(&mut search, None, fine_load, constraints);
        let mut found = None;
        while let Some(step) = search.pop() {
            match step {
                SearchStep::End {
                    node, worker: last, ..
                } => {
                    let end = *search.node(node);
                    if end.cost <= self.move_budget
                        && self.is_worth(end.coarse, worker, last, constraints)
                    {
                        found = Some(node);
                        break;
                    }
                }
                SearchStep::Open { node } => {
                    if search.look(self.lists.len()) {
                        self.expand_pull(&mut search, Some(node), fine_load, constraints);
                    }
                }
            }
        }
        self.close(&search);
        let Some(node) = found else {
            return false;
        };
        for node in search.path(node) {
            let to = node
                .parent
                .map_or(worker, |parent| search.node(parent).worker);
            self.give(node.partition, to);
        }
        let last = search.node(node).worker;
        while self.offence(last, constraints.band) < 0 && self.pull_one(last, constraints) {}
        true
    }

    /// Weight of fine partitions that workers can spare, for the last of a chain; 0 when it is
    /// not for fine partitions to make up for coarse ones.
    fn spare_fine_load(&self, constraints: Constraints) -> i64 {
        if constraints.policy != MovePolicy::Any {
            return 0;
        }
        let spare = |worker: WorkerIndex| {
            let spare = self.loads[worker as usize] - self.model.load_min(worker, constraints.band);
            spare.clamp(0, self.fine_loads[worker as usize])
        };
        let workers = 0..self.lists.len() as WorkerIndex;
        // Half of it, as it has to be in the right places.
        workers.map(spare).sum::<i64>() / 2
    }

    /// What the worker at the end of a chain lacks, or the origin at first.
    fn hole(&self, search: &Search, parent: Option<u32>) -> Hole {
        let Some(index) = parent else {
            return Hole {
                worker: search.origin,
                load: self.loads[search.origin as usize],
                given: 0,
                cost: 0,
                coarse: 0,
                depth: 1,
            };
        };
        let node = search.node(index);
        let first = search.path(index).last().unwrap_or(node);
        Hole {
            worker: node.worker,
            load: self.loads[node.worker as usize] - self.weight(node.partition),
            given: self.weight(first.partition),
            cost: node.cost,
            coarse: node.coarse,
            depth: node.depth + 1,
        }
    }

    /// Ways to fill the hole at the end of a chain with one partition of another worker.
    fn expand_pull(
        &mut self,
        search: &mut Search,
        parent: Option<u32>,
        fine_load: i64,
        constraints: Constraints,
    ) {
        let hole = self.hole(search, parent);
        let wanted = self.model.load_min(hole.worker, constraints.band) - hole.load;
        for other in 0..self.lists.len() as WorkerIndex {
            let on_path = |index| search.path(index).any(|node| node.worker == other);
            if other == hole.worker || parent.is_some_and(on_path) {
                continue;
            }
            let first = self.place_of(other, wanted);
            let mut list = self.lists[other as usize][first..].iter().copied();
            let Some(partition) = list.find(|&p| self.may_move(p, constraints.policy)) else {
                continue;
            };
            let weight = self.weight(partition);
            if hole.load + weight > self.model.load_max(hole.worker, weight, constraints.band) {
                continue;
            }
            let (cost, coarse) = self.costs(partition);
            let node = Node {
                partition,
                worker: other,
                fine_load: 0,
                parent,
                depth: hole.depth,
                cost: hole.cost + cost,
                coarse: hole.coarse + coarse,
            };
            // Back to where the chain began, it is an exchange.
            let is_exchange = other == search.origin;
            let got = if is_exchange { hole.given } else { 0 };
            let rest = self.loads[other as usize] + got - weight;
            let lack = self.model.load_min(other, constraints.band) - rest;
            if lack <= fine_load {
                // Fine partitions make up for what little is lacking in the end.
                let step = SearchStep::End {
                    node: search.nodes.len() as u32,
                    worker: other,
                    fine_load: 0,
                };
                search.nodes.push(node);
                search.add(node.cost + lack.max(0), weight, step);
            }
            if lack > 0 && !is_exchange && node.depth < DEPTH_MAX {
                self.push(search, node);
            }
        }
    }
}

/// A worker that lacks load because of what a chain has pulled from it.
struct Hole {
    worker: WorkerIndex,
    load: i64,
    /// What the chain has given to its origin.
    given: i64,
    cost: i64,
    coarse: i64,
    depth: u32,
}

//! Chains that push partitions out of a worker that holds too much, or in from the pool.

use super::search::{
    Constraints, DEPTH_MAX, FINE_WEIGHT_MIN, MovePolicy, Node, Search, SearchStep,
};
use super::state::{Division, UNASSIGNED};
use crate::strategy::WorkerIndex;

/// How many fine partitions may make way for one.
const FINE_SCAN_MAX: usize = 256;

impl Division<'_> {
    /// Places a partition of the pool within the band, with a chain if necessary. Returns whether
    /// that succeeded; displaced fine partitions are then in the pool.
    pub(super) fn insert(&mut self, partition: u32, constraints: Constraints) -> bool {
        let mut search = self.search(UNASSIGNED);
        let node = Node {
            partition,
            worker: UNASSIGNED,
            fine_load: 0,
            parent: None,
            depth: 1,
            cost: 0,
            coarse: 0,
        };
        self.push(&mut search, node);
        self.push_out(search, constraints, i64::MAX)
    }

    /// Moves an overloaded worker towards the band. Returns whether that succeeded.
    pub(super) fn relieve(&mut self, worker: WorkerIndex, constraints: Constraints) -> bool {
        let mut search = self.search(worker);
        let enough = self.place_of(worker, self.offence(worker, constraints.band));
        let mut last = (0, 0);
        for place in enough..self.lists[worker as usize].len() {
            let partition = self.lists[worker as usize][place];
            let (cost, coarse) = self.costs(partition);
            // One of several alike is enough.
            let kind = (self.weight(partition), cost);
            if kind == last || !self.may_move(partition, constraints.policy) {
                continue;
            }
            last = kind;
            let node = Node {
                partition,
                worker,
                fine_load: 0,
                parent: None,
                depth: 1,
                cost,
                coarse,
            };
            self.push(&mut search, node);
        }
        self.push_out(search, constraints, self.move_budget) || self.push_one(worker, constraints)
    }

    /// Gives the heaviest partition that is not enough to the emptiest worker, if it fits there.
    fn push_one(&mut self, worker: WorkerIndex, constraints: Constraints) -> bool {
        let excess = self.offence(worker, constraints.band);
        let fine = self.place_of(worker, excess / FINE_WEIGHT_MIN);
        let end = self.place_of(worker, excess).max(fine);
        let list = &self.lists[worker as usize][fine..end];
        let movable =
            |p: &&u32| self.may_move(**p, constraints.policy) && self.cost(**p) <= self.move_budget;
        let Some(&partition) = list.iter().rfind(movable) else {
            return false;
        };
        let weight = self.weight(partition);
        let fits = |other: WorkerIndex| {
            let load = self.loads[other as usize] + weight;
            let max = self
                .model
                .load_max(other, self.top(other).max(weight), constraints.band);
            (other != worker && load <= max).then(|| (self.model.level(other, load), other))
        };
        let others = (0..self.lists.len() as WorkerIndex).filter_map(fits);
        let Some((_, other)) = others.min_by(|a, b| a.0.total_cmp(&b.0)) else {
            return false;
        };
        self.give(partition, other);
        true
    }

    /// Follows the best chain by which one of the partitions that the search starts from is
    /// pushed to another worker.
    fn push_out(&mut self, mut search: Search, constraints: Constraints, cost_max: i64) -> bool {
        let mut found = None;
        while let Some(step) = search.pop() {
            match step {
                SearchStep::End {
                    node,
                    worker,
                    fine_load,
                } => {
                    let end = *search.node(node);
                    if end.cost + fine_load <= cost_max
                        && self.is_worth(end.coarse, search.origin, worker, constraints)
                    {
                        found = Some((node, worker, fine_load));
                        break;
                    }
                }
                SearchStep::Open { node } => {
                    if search.look(self.lists.len()) {
                        self.expand_push(&mut search, node, constraints);
                    }
                }
            }
        }
        self.close(&search);
        let Some((node, worker, fine_load)) = found else {
            return false;
        };
        let (mut to, mut fine_load) = (worker, fine_load);
        for node in search.path(node) {
            self.shed_fine(to, fine_load, node.partition);
            self.give(node.partition, to);
            (to, fine_load) = (node.worker, node.fine_load);
        }
        true
    }

    /// Ways for each worker to take the node's partition.
    fn expand_push(&mut self, search: &mut Search, index: u32, constraints: Constraints) {
        let node = *search.node(index);
        let origin = search.origin;
        let weight = self.weight(node.partition);
        let root = search
            .path(index)
            .last()
            // A path begins with the node that it is asked for.
            .expect("the path has a node")
            .partition;
        let (root_load, root_min) = match origin {
            UNASSIGNED => (0, 0),
            _ => (
                self.loads[origin as usize] - self.weight(root),
                self.model.load_min(origin, constraints.band),
            ),
        };
        let mut emptiest: Option<(f64, WorkerIndex)> = None;
        for worker in 0..self.lists.len() as WorkerIndex {
            if worker == origin {
                // Back to where the chain began: an exchange.
                let load = root_load + weight;
                let max =
                    self.model
                        .load_max(worker, weight.max(self.top(worker)), constraints.band);
                if node.depth > 1 && load <= max && load >= root_min {
                    let (node, fine_load) = (index, 0);
                    search.add(
                        search.node(index).cost,
                        load,
                        SearchStep::End {
                            node,
                            worker,
                            fine_load,
                        },
                    );
                }
                continue;
            }
            if search.path(index).any(|other| other.worker == worker) {
                continue;
            }
            let load = self.loads[worker as usize] + weight;
            let top = self.top(worker).max(weight);
            let excess = load - self.model.load_max(worker, top, constraints.band);
            if excess > 0 {
                self.make_way(
                    search,
                    index,
                    worker,
                    excess,
                    root_min - root_load,
                    constraints,
                );
                continue;
            }
            let level = self.model.level(worker, load);
            if root_load >= root_min && emptiest.is_none_or(|(least, _)| level < least) {
                emptiest = Some((level, worker));
            }
        }
        if let Some((_, worker)) = emptiest {
            let (node, fine_load) = (index, 0);
            search.add(
                search.node(index).cost,
                0,
                SearchStep::End {
                    node,
                    worker,
                    fine_load,
                },
            );
        }
    }

    /// Ways for `worker` to take the node's partition, which is too much by `excess`, when
    /// the worker that the chain began with needs at least `wanted` in return.
    fn make_way(
        &mut self,
        search: &mut Search,
        index: u32,
        worker: WorkerIndex,
        excess: i64,
        wanted: i64,
        constraints: Constraints,
    ) {
        let node = *search.node(index);
        let load = self.loads[worker as usize] + self.weight(node.partition);
        let min = self.model.load_min(worker, constraints.band);
        let sand_held = match constraints.policy {
            MovePolicy::Free => 0,
            _ => self.fine_loads[worker as usize],
        };
        // Fine partitions go to the emptiest workers, which the origin is if it needs them.
        let fine_load = excess.max(wanted);
        if fine_load <= sand_held
            && load - fine_load >= min
            && self.has_fine_load(worker, fine_load, node.partition)
        {
            let step = SearchStep::End {
                node: index,
                worker,
                fine_load,
            };
            search.add(node.cost + fine_load, fine_load, step);
        }
        if node.depth == DEPTH_MAX {
            return;
        }
        let next = |state: &Self, partition: u32, fine_load: i64| {
            let (cost, coarse) = state.costs(partition);
            Node {
                partition,
                worker,
                fine_load,
                parent: Some(index),
                depth: node.depth + 1,
                cost: node.cost + cost + fine_load,
                coarse: node.coarse + coarse,
            }
        };
        let first = self.place_of(worker, excess);
        let list = &self.lists[worker as usize];
        let mut enough = list[first..].iter().copied();
        if let Some(partition) = enough.find(|&p| self.may_move(p, constraints.policy)) {
            let weight = self.weight(partition);
            if load - weight >= min && weight != self.weight(node.partition) {
                let node = next(self, partition, 0);
                self.push(search, node);
            }
        }
        // One that is not quite enough, and fine ones for the rest.
        let Some(&partition) = self.lists[worker as usize][..first].last() else {
            return;
        };
        let weight = self.weight(partition);
        if weight > self.fine
            && excess - weight <= sand_held
            && self.has_fine_load(worker, excess - weight, node.partition)
            && self.may_move(partition, constraints.policy)
        {
            let node = next(self, partition, excess - weight);
            self.push(search, node);
        }
    }

    /// How heavy partitions that make way for this one may be to count as fine.
    fn fine_weight(&self, partition: u32) -> i64 {
        self.fine.min(self.weight(partition) / 2)
    }

    /// Whether a few fine partitions of a worker, each no heavier than this weight, come to it.
    fn has_fine_load(&self, worker: WorkerIndex, weight: i64, incoming: u32) -> bool {
        let end = self.place_of(worker, weight.min(self.fine_weight(incoming)) + 1);
        let few = &self.lists[worker as usize][end.saturating_sub(FINE_SCAN_MAX)..end];
        few.iter().map(|&p| self.weight(p)).sum::<i64>() >= weight
    }

    /// Takes fine partitions of a worker into the pool, of at least this weight together.
    fn shed_fine(&mut self, worker: WorkerIndex, mut weight: i64, incoming: u32) {
        let grain = self.fine_weight(incoming);
        while weight > 0 {
            // The heaviest that is not too much, or else the lightest.
            let fine = self.place_of(worker, grain + 1);
            if fine == 0 {
                return;
            }
            let place = self.place_of(worker, weight + 1).min(fine);
            let partition = self.lists[worker as usize][place.saturating_sub(1)];
            weight -= self.weight(partition);
            self.take(partition);
            self.pool.push(partition);
        }
    }
}

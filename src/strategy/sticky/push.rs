//! Chains that push partitions out of a worker that holds too much, or in from the pool.

use super::search::{CRUMBS, DEPTH_MAX, Node, Price, Search, Step, Terms};
use super::state::{NOBODY, State};
use crate::strategy::WorkerIndex;

/// How many fine partitions may make way for one.
const SAND_MAX: usize = 256;

impl State<'_> {
    /// Places a partition of the pool within the band, by a chain if need be. Tells whether it
    /// could; fine partitions that had to give way are in the pool then.
    pub(super) fn insert(&mut self, partition: u32, terms: Terms) -> bool {
        let mut search = self.search(NOBODY);
        let node = Node {
            partition,
            worker: NOBODY,
            sand: 0,
            parent: None,
            depth: 1,
            cost: 0,
            coarse: 0,
        };
        self.push(&mut search, node);
        self.push_out(search, terms, i64::MAX)
    }

    /// Brings a worker that holds too much nearer to the band. Tells whether it could.
    pub(super) fn relieve(&mut self, worker: WorkerIndex, terms: Terms) -> bool {
        let mut search = self.search(worker);
        let enough = self.place_of(worker, self.offence(worker, terms.band));
        let mut last = (0, 0);
        for place in enough..self.lists[worker as usize].len() {
            let partition = self.lists[worker as usize][place];
            let (cost, coarse) = self.costs(partition);
            // One of several alike is enough.
            let kind = (self.weight(partition), cost);
            if kind == last || !self.may_move(partition, terms.price) {
                continue;
            }
            last = kind;
            let node = Node {
                partition,
                worker,
                sand: 0,
                parent: None,
                depth: 1,
                cost,
                coarse,
            };
            self.push(&mut search, node);
        }
        self.push_out(search, terms, self.allowance) || self.push_one(worker, terms)
    }

    /// Gives the heaviest partition that is not enough to the emptiest worker, if it fits there.
    fn push_one(&mut self, worker: WorkerIndex, terms: Terms) -> bool {
        let excess = self.offence(worker, terms.band);
        let crumbs = self.place_of(worker, excess / CRUMBS);
        let end = self.place_of(worker, excess).max(crumbs);
        let list = &self.lists[worker as usize][crumbs..end];
        let movable =
            |p: &&u32| self.may_move(**p, terms.price) && self.cost(**p) <= self.allowance;
        let Some(&partition) = list.iter().rfind(movable) else {
            return false;
        };
        let weight = self.weight(partition);
        let fits = |other: WorkerIndex| {
            let load = self.loads[other as usize] + weight;
            let max = self
                .model
                .load_max(other, self.top(other).max(weight), terms.band);
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
    fn push_out(&mut self, mut search: Search, terms: Terms, cost_max: i64) -> bool {
        let mut found = None;
        while let Some(step) = search.pop() {
            match step {
                Step::End { node, worker, sand } => {
                    let end = *search.node(node);
                    if end.cost + sand <= cost_max
                        && self.is_worth(end.coarse, search.origin, worker, terms)
                    {
                        found = Some((node, worker, sand));
                        break;
                    }
                }
                Step::Open { node } => {
                    if search.look(self.lists.len()) {
                        self.expand_push(&mut search, node, terms);
                    }
                }
            }
        }
        self.close(&search);
        let Some((node, worker, sand)) = found else {
            return false;
        };
        let (mut to, mut sand) = (worker, sand);
        for node in search.path(node) {
            self.shed_sand(to, sand, node.partition);
            self.give(node.partition, to);
            (to, sand) = (node.worker, node.sand);
        }
        true
    }

    /// Ways for each worker to take the node's partition.
    fn expand_push(&mut self, search: &mut Search, index: u32, terms: Terms) {
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
            NOBODY => (0, 0),
            _ => (
                self.loads[origin as usize] - self.weight(root),
                self.model.load_min(origin, terms.band),
            ),
        };
        let mut emptiest: Option<(f64, WorkerIndex)> = None;
        for worker in 0..self.lists.len() as WorkerIndex {
            if worker == origin {
                // Back to where the chain began: an exchange.
                let load = root_load + weight;
                let max = self
                    .model
                    .load_max(worker, weight.max(self.top(worker)), terms.band);
                if node.depth > 1 && load <= max && load >= root_min {
                    let (node, sand) = (index, 0);
                    search.add(
                        search.node(index).cost,
                        load,
                        Step::End { node, worker, sand },
                    );
                }
                continue;
            }
            if search.path(index).any(|other| other.worker == worker) {
                continue;
            }
            let load = self.loads[worker as usize] + weight;
            let top = self.top(worker).max(weight);
            let excess = load - self.model.load_max(worker, top, terms.band);
            if excess > 0 {
                self.make_way(search, index, worker, excess, root_min - root_load, terms);
                continue;
            }
            let level = self.model.level(worker, load);
            if root_load >= root_min && emptiest.is_none_or(|(least, _)| level < least) {
                emptiest = Some((level, worker));
            }
        }
        if let Some((_, worker)) = emptiest {
            let (node, sand) = (index, 0);
            search.add(search.node(index).cost, 0, Step::End { node, worker, sand });
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
        terms: Terms,
    ) {
        let node = *search.node(index);
        let load = self.loads[worker as usize] + self.weight(node.partition);
        let min = self.model.load_min(worker, terms.band);
        let sand_held = match terms.price {
            Price::Free => 0,
            _ => self.fine_loads[worker as usize],
        };
        // Fine partitions go to the emptiest workers, which the origin is if it needs them.
        let sand = excess.max(wanted);
        if sand <= sand_held && load - sand >= min && self.has_sand(worker, sand, node.partition) {
            let step = Step::End {
                node: index,
                worker,
                sand,
            };
            search.add(node.cost + sand, sand, step);
        }
        if node.depth == DEPTH_MAX {
            return;
        }
        let next = |state: &Self, partition: u32, sand: i64| {
            let (cost, coarse) = state.costs(partition);
            Node {
                partition,
                worker,
                sand,
                parent: Some(index),
                depth: node.depth + 1,
                cost: node.cost + cost + sand,
                coarse: node.coarse + coarse,
            }
        };
        let first = self.place_of(worker, excess);
        let list = &self.lists[worker as usize];
        let mut enough = list[first..].iter().copied();
        if let Some(partition) = enough.find(|&p| self.may_move(p, terms.price)) {
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
            && self.has_sand(worker, excess - weight, node.partition)
            && self.may_move(partition, terms.price)
        {
            let node = next(self, partition, excess - weight);
            self.push(search, node);
        }
    }

    /// How heavy partitions that make way for this one may be to count as fine.
    fn sand_grain(&self, partition: u32) -> i64 {
        self.fine.min(self.weight(partition) / 2)
    }

    /// Whether a few fine partitions of a worker, each no heavier than this weight, come to it.
    fn has_sand(&self, worker: WorkerIndex, weight: i64, incoming: u32) -> bool {
        let end = self.place_of(worker, weight.min(self.sand_grain(incoming)) + 1);
        let few = &self.lists[worker as usize][end.saturating_sub(SAND_MAX)..end];
        few.iter().map(|&p| self.weight(p)).sum::<i64>() >= weight
    }

    /// Takes fine partitions of a worker into the pool, of at least this weight together.
    fn shed_sand(&mut self, worker: WorkerIndex, mut weight: i64, incoming: u32) {
        let grain = self.sand_grain(incoming);
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

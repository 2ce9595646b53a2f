//! Chains of moves: what a search for one knows, and what a chain may cost.
//!
//! A partition that fits nowhere takes the place of a lighter one, that one of a still lighter one,
//! and so on until one fits. An underloaded worker takes a partition of another, which takes one of
//! a third, and so on until one can spare it. Both are cheapest paths in a graph of partitions,
//! searched best first; bounds on depth and on visited workers keep the time of a call near-linear.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::model::Band;
use super::state::{Division, UNASSIGNED};
use crate::strategy::WorkerIndex;

/// The longest chain.
pub(super) const DEPTH_MAX: u32 = 6;

/// Partitions lighter than an offence by this factor are not moved one by one to make up for it.
pub(super) const FINE_WEIGHT_MIN: i64 = 256;

/// Which partitions may be moved to bring loads into a band.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum MovePolicy {
    /// Any.
    Any,
    /// Fine ones, and others where that takes at least their weight off the imbalance.
    Worth,
    /// Those that are away from home already.
    Free,
}

/// What the loads are to become, and what that may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Constraints {
    pub(super) band: Band,
    pub(super) policy: MovePolicy,
}

/// A link of a chain: a partition that has to go elsewhere.
#[derive(Clone, Copy)]
pub(super) struct Node {
    pub(super) partition: u32,
    /// Who loses it.
    pub(super) worker: WorkerIndex,
    /// Weight of fine partitions that `worker` sheds as well.
    pub(super) fine_load: i64,
    pub(super) parent: Option<u32>,
    pub(super) depth: u32,
    /// Weight that leaves its home up to here.
    pub(super) cost: i64,
    /// The part of it that is due to partitions that are not fine.
    pub(super) coarse: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SearchStep {
    /// The chain ends with this node and this worker, which releases this much in fine partitions.
    End {
        node: u32,
        worker: WorkerIndex,
        fine_load: i64,
    },
    /// The chain continues from this node.
    Open { node: u32 },
}

pub(super) struct Search {
    /// The worker that the chain is for, [`UNASSIGNED`] when it is for a partition of the pool.
    pub(super) origin: WorkerIndex,
    pub(super) nodes: Vec<Node>,
    open: BinaryHeap<Reverse<(i64, i64, SearchStep)>>,
    /// Number of granted worker visits, and of remaining ones.
    granted: i64,
    looks: i64,
}

impl Search {
    pub(super) fn new(origin: WorkerIndex, looks: i64) -> Self {
        Self {
            origin,
            nodes: Vec::new(),
            open: BinaryHeap::new(),
            granted: looks,
            looks,
        }
    }

    pub(super) fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    /// The nodes from this one back to where the chain begins.
    pub(super) fn path(&self, index: u32) -> impl Iterator<Item = &Node> {
        let parent = |node: &&Node| node.parent.map(|index| self.node(index));
        std::iter::successors(Some(self.node(index)), parent)
    }

    /// Adds a step; the cheapest is taken first.
    pub(super) fn add(&mut self, cost: i64, tie: i64, step: SearchStep) {
        self.open.push(Reverse((cost, tie, step)));
    }

    /// Counts visits of workers; returns whether they are granted.
    pub(super) fn look(&mut self, workers: usize) -> bool {
        self.looks -= workers as i64;
        self.looks >= 0
    }

    /// The most promising step.
    pub(super) fn pop(&mut self) -> Option<SearchStep> {
        self.open.pop().map(|Reverse((_, _, step))| step)
    }
}

impl Division<'_> {
    /// A search with its share of the looks that are left.
    pub(super) fn search(&self, origin: WorkerIndex) -> Search {
        let looks = 20_000 + 50 * self.lists.len() as i64;
        Search::new(origin, looks.min(self.looks_left))
    }

    /// Closes the account of a search that has ended.
    pub(super) fn close(&mut self, search: &Search) {
        self.looks_left -= search.granted - search.looks.max(0);
        for node in &search.nodes {
            self.seen[node.partition as usize] = i64::MAX;
        }
    }

    /// Adds a node, unless a cheaper way to it is known. Cheap nodes with a light partition,
    /// which is easy to place, come first.
    pub(super) fn push(&mut self, search: &mut Search, node: Node) -> Option<u32> {
        let seen = &mut self.seen[node.partition as usize];
        if node.cost >= *seen {
            return None;
        }
        *seen = node.cost;
        let weight = self.weight(node.partition);
        let index = search.nodes.len() as u32;
        search.nodes.push(node);
        let step = SearchStep::Open { node: index };
        search.add(node.cost + weight, weight, step);
        Some(index)
    }

    pub(super) fn may_move(&self, partition: u32, policy: MovePolicy) -> bool {
        policy != MovePolicy::Free || self.cost(partition) == 0
    }

    /// What moving a partition costs, and which part of it counts as coarse.
    pub(super) fn costs(&self, partition: u32) -> (i64, i64) {
        let cost = self.cost(partition);
        let is_fine = self.weight(partition) <= self.fine;
        (cost, if is_fine { 0 } else { cost })
    }

    /// Whether what a chain from `origin` to `worker` takes off the imbalance is worth moving
    /// partitions of this weight that are not fine.
    pub(super) fn is_worth(
        &self,
        coarse: i64,
        origin: WorkerIndex,
        worker: WorkerIndex,
        constraints: Constraints,
    ) -> bool {
        if coarse == 0 || origin == UNASSIGNED || constraints.policy != MovePolicy::Worth {
            return true;
        }
        let mut gain = self.offence(origin, constraints.band).abs();
        if worker != origin {
            gain += self.offence(worker, constraints.band).abs();
        }
        coarse <= gain
    }
}

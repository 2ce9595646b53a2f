//! The hash ring: virtual nodes in hash order, found through a table of the leading bits.

use super::WorkerIndex;
use super::hash::{hash_virtual_node, hash_worker};

/// A ring of virtual nodes. A hash belongs to the first node at or after it, wrapping round.
///
/// Nodes are in hash order. Hashes are uniform, so a table with about one entry per node,
/// indexed by a hash's leading bits, leads to within a node or two of the answer: building
/// takes one counting pass instead of a sort, and a lookup has no search.
pub(super) struct Ring {
    nodes: Vec<Node>,
    /// For each value of the leading bits, the first node that has it (or a later one).
    starts: Vec<u32>,
    /// Shift that leaves a hash's leading bits.
    shift: u32,
}

#[derive(Clone, Copy, Default)]
struct Node {
    hash: u64,
    worker: WorkerIndex,
}

impl Ring {
    /// Places `virtual_nodes` (at least 1) nodes for each of `workers` (at least one).
    pub(super) fn new<W: AsRef<str>>(workers: &[W], virtual_nodes: u32, seed: u64) -> Self {
        let count = workers.len() * virtual_nodes as usize;
        let bits = count.next_power_of_two().trailing_zeros().max(1);
        let shift = u64::BITS - bits;

        let mut hashes = Vec::with_capacity(count);
        let mut starts = vec![0_u32; (1 << bits) + 1];
        for worker in workers {
            let worker_hash = hash_worker(worker.as_ref(), seed);
            for number in 0..virtual_nodes {
                let hash = hash_virtual_node(worker_hash, number);
                starts[(hash >> shift) as usize] += 1;
                hashes.push(hash);
            }
        }
        let mut total = 0;
        for start in &mut starts {
            total += *start;
            *start = total;
        }

        // Filling each slot from its end turns the ends in `starts` into beginnings.
        let mut nodes = vec![Node::default(); count];
        let mut remaining = hashes.chunks_exact(virtual_nodes as usize);
        for worker in (0..workers.len() as WorkerIndex).rev() {
            for &hash in remaining.next_back().into_iter().flatten().rev() {
                let start = &mut starts[(hash >> shift) as usize];
                *start -= 1;
                nodes[*start as usize] = Node { hash, worker };
            }
        }
        // Only nodes with the same leading bits are out of order: each is a step or two away.
        for end in 1..nodes.len() {
            let node = nodes[end];
            let mut place = end;
            while place > 0 && nodes[place - 1].hash > node.hash {
                nodes[place] = nodes[place - 1];
                place -= 1;
            }
            nodes[place] = node;
        }
        Self {
            nodes,
            starts,
            shift,
        }
    }

    /// The worker that `hash` belongs to.
    pub(super) fn owner(&self, hash: u64) -> WorkerIndex {
        let start = self.starts[(hash >> self.shift) as usize] as usize;
        let beyond = self.nodes[start..].iter().find(|node| node.hash >= hash);
        beyond.unwrap_or(&self.nodes[0]).worker
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::strategy::hash::hash_keys;

    #[derive(serde::Deserialize)]
    struct File {
        cases: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        workers: Vec<String>,
        virtual_nodes: u32,
        seed: String,
        size: usize,
        lookups: BTreeMap<String, String>,
    }

    #[test]
    fn every_lookup_finds_the_worker_that_parti_finds() {
        let file: File =
            serde_json::from_str(include_str!("../../tests/vectors/rings.json")).unwrap();
        assert!(file.cases.len() > 10);
        for case in &file.cases {
            let seed = u64::from_str_radix(&case.seed, 16).unwrap();
            let ring = Ring::new(&case.workers, case.virtual_nodes, seed);
            assert_eq!(ring.nodes.len(), case.size);
            for (key, worker) in &case.lookups {
                let owner = ring.owner(hash_keys(&[key], seed));
                assert_eq!(&case.workers[owner as usize], worker, "{key}");
            }
        }
    }

    #[test]
    fn hashes_at_and_beyond_the_ends_of_the_ring_have_an_owner() {
        let ring = Ring::new(&["a", "b", "c"], 2, 0);
        assert!(ring.nodes.is_sorted_by_key(|node| node.hash));
        let (first, last) = (ring.nodes[0], ring.nodes[5]);
        assert_eq!(ring.owner(0), first.worker);
        assert_eq!(ring.owner(first.hash), first.worker);
        assert_eq!(ring.owner(last.hash), last.worker);
        assert_eq!(ring.owner(last.hash + 1), first.worker);
        assert_eq!(ring.owner(u64::MAX), first.worker);
    }
}

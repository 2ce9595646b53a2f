//! The hash ring: virtual nodes in hash order, found through a table of the leading bits.

use super::WorkerIndex;
use super::hash::{hash_virtual_node, hash_worker};

/// Nodes per entry of the table of leading bits, about.
const NODES_PER_START: usize = 4;

/// A ring of virtual nodes. A hash belongs to the first node at or after it, wrapping round.
///
/// Hashes are uniform, so a table indexed by a hash's leading bits leads to within a few nodes
/// of the answer: building takes a counting pass instead of a sort, and a lookup no search.
/// What a lookup reads is kept small, as it is the processor's cache that decides its speed.
pub(super) struct Ring {
    /// The nodes in hash order, without the lower half of their hashes.
    slots: Vec<Slot>,
    /// The same nodes with the whole of them.
    nodes: Vec<Node>,
    /// For each value of the leading bits, the first node that has it (or a later one).
    starts: Vec<u32>,
    /// Shift that leaves a hash's leading bits.
    shift: u32,
}

#[derive(Clone, Copy)]
struct Slot {
    prefix: u32,
    worker: WorkerIndex,
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
        let bits = (count / NODES_PER_START)
            .max(2)
            .next_power_of_two()
            .trailing_zeros();
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

        // Filling each group from its end turns the ends in `starts` into beginnings.
        let mut nodes = vec![Node::default(); count];
        let mut remaining = hashes.chunks_exact(virtual_nodes as usize);
        for worker in (0..workers.len() as WorkerIndex).rev() {
            for &hash in remaining.next_back().into_iter().flatten().rev() {
                let start = &mut starts[(hash >> shift) as usize];
                *start -= 1;
                nodes[*start as usize] = Node { hash, worker };
            }
        }
        // Only nodes with the same leading bits are out of order: each is a few steps away.
        for end in 1..nodes.len() {
            let node = nodes[end];
            let mut place = end;
            while place > 0 && nodes[place - 1].hash > node.hash {
                nodes[place] = nodes[place - 1];
                place -= 1;
            }
            nodes[place] = node;
        }
        let slot = |node: &Node| Slot {
            prefix: (node.hash >> 32) as u32,
            worker: node.worker,
        };
        Self {
            slots: nodes.iter().map(slot).collect(),
            nodes,
            starts,
            shift,
        }
    }

    /// The worker that `hash` belongs to.
    pub(super) fn owner(&self, hash: u64) -> WorkerIndex {
        let prefix = (hash >> 32) as u32;
        let start = self.starts[(hash >> self.shift) as usize] as usize;
        let slots = self.slots[start..].iter();
        let mut place = start + slots.take_while(|slot| slot.prefix < prefix).count();
        while let Some(slot) = self.slots.get(place) {
            if slot.prefix > prefix || self.nodes[place].hash >= hash {
                return slot.worker;
            }
            place += 1;
        }
        self.slots[0].worker
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

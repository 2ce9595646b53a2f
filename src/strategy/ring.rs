//! The hash ring: virtual nodes in hash order, found through a table of the leading bits.

use super::WorkerIndex;
use super::hash::{hash_keys, hash_virtual_node, hash_worker};
use crate::types::Partition;

/// Nodes per entry of the table of leading bits, about.
const NODES_PER_START: usize = 4;

/// Number of nodes that a lookup scans at once.
const WINDOW: usize = 8;

/// Partitions that are hashed before any of them is looked up.
const AT_ONCE: usize = 256;

/// A ring of virtual nodes. A hash belongs to the first node at or after it, wrapping round.
///
/// Hashes are uniform, so a table indexed by a hash's leading bits leads to within a few nodes
/// of the answer: building takes a counting pass instead of a sort, and a lookup no search.
/// What a lookup reads is kept small, as it is the processor's cache that decides its speed.
pub(super) struct Ring {
    /// The nodes in hash order.
    slots: Vec<RingSlot>,
    /// For each value of the leading bits, the first node that has it (or a later one).
    starts: Vec<u32>,
    /// Shift that leaves a hash's leading bits.
    shift: u32,
    /// The nodes' whole hashes, worker by worker.
    hashes: Vec<u64>,
    virtual_nodes: u32,
}

#[derive(Clone, Copy, Default)]
struct RingSlot {
    /// Upper half of the node's hash.
    prefix: u32,
    /// Place of the node in `hashes`.
    node: u32,
}

impl Ring {
    /// Places `virtual_nodes` (at least 1) nodes for each of `workers` (at least one); there
    /// are fewer than 2^32 in all.
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
        let mut slots = vec![RingSlot::default(); count];
        for (node, &hash) in (0..count as u32).zip(&hashes).rev() {
            let start = &mut starts[(hash >> shift) as usize];
            *start -= 1;
            let prefix = (hash >> 32) as u32;
            slots[*start as usize] = RingSlot { prefix, node };
        }
        // Only nodes with the same leading bits are out of order: each is a few steps away.
        let hash_of = |slot: RingSlot| hashes[slot.node as usize];
        for end in 1..slots.len() {
            let slot = slots[end];
            let is_after = |other: RingSlot| {
                other.prefix > slot.prefix
                    || other.prefix == slot.prefix && hash_of(other) > hash_of(slot)
            };
            let mut place = end;
            while place > 0 && is_after(slots[place - 1]) {
                slots[place] = slots[place - 1];
                place -= 1;
            }
            slots[place] = slot;
        }
        Self {
            slots,
            starts,
            shift,
            hashes,
            virtual_nodes,
        }
    }

    /// The worker that each partition belongs to.
    pub(super) fn owners(&self, partitions: &[Partition], seed: u64) -> Vec<WorkerIndex> {
        let mut owners = Vec::with_capacity(partitions.len());
        let mut hashes = [0; AT_ONCE];
        // Some are hashed, then looked up, in turns: the processor does each better alone.
        for some in partitions.chunks(AT_ONCE) {
            for (hash, partition) in hashes.iter_mut().zip(some) {
                *hash = hash_keys(&partition.keys, seed);
            }
            owners.extend(hashes[..some.len()].iter().map(|&hash| self.owner(hash)));
        }
        owners
    }

    /// The worker that `hash` belongs to.
    fn owner(&self, hash: u64) -> WorkerIndex {
        let prefix = (hash >> 32) as u32;
        let start = self.starts[(hash >> self.shift) as usize] as usize;
        // Nearly always the answer is among the next few; to count those before it takes no
        // branch that the processor could guess wrong.
        let mut place = start;
        if let Some(window) = self.slots[start..].first_chunk::<WINDOW>() {
            place += window.iter().filter(|slot| slot.prefix < prefix).count();
        }
        let is_at_or_after = |slot: &&RingSlot| {
            slot.prefix > prefix || slot.prefix == prefix && self.hashes[slot.node as usize] >= hash
        };
        let beyond = self.slots[place..].iter().find(is_at_or_after);
        beyond.unwrap_or(&self.slots[0]).node / self.virtual_nodes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

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
    fn ring_lookups_match_parti() {
        let file: File =
            serde_json::from_str(include_str!("../../tests/vectors/rings.json")).unwrap();
        assert!(file.cases.len() > 10);
        for case in &file.cases {
            let seed = u64::from_str_radix(&case.seed, 16).unwrap();
            let ring = Ring::new(&case.workers, case.virtual_nodes, seed);
            assert_eq!(ring.slots.len(), case.size);
            for (key, worker) in &case.lookups {
                let owner = ring.owner(hash_keys(&[key], seed));
                assert_eq!(&case.workers[owner as usize], worker, "{key}");
            }
        }
    }

    #[test]
    fn hashes_at_and_beyond_ring_ends_have_owner() {
        let ring = Ring::new(&["a", "b", "c"], 2, 0);
        let mut nodes: Vec<(u64, WorkerIndex)> =
            (0..6).map(|i| (ring.hashes[i], i as u32 / 2)).collect();
        nodes.sort_unstable();
        let (first, last) = (nodes[0], nodes[5]);
        assert_eq!(ring.owner(0), first.1);
        assert_eq!(ring.owner(first.0), first.1);
        assert_eq!(ring.owner(last.0), last.1);
        assert_eq!(ring.owner(last.0 + 1), first.1);
        assert_eq!(ring.owner(u64::MAX), first.1);
    }
}

//! Partitions placed on a hash ring, with a soft cap on each worker's load.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::consistent_hash::ConsistentHash;
use super::ring::Ring;
use super::{PlanInput, Strategy, WorkerIndex};
use crate::error::Result;

/// Consistent hashing that takes weights into account.
///
/// Extreme partitions, heavier than `extreme_threshold` times the mean partition, are dealt out
/// in turn, heaviest first. The others go where the ring puts them, except when that worker
/// would then hold more than `overload_threshold` times the mean load: then to the worker that
/// is lightest at that moment. With equal weights the plan is that of [`ConsistentHash`].
/// The previous plan is ignored. The same plan as parti's.
#[derive(Clone, Copy, Debug)]
pub struct WeightedConsistentHash {
    virtual_nodes: u32,
    seed: u64,
    overload_threshold: f64,
    extreme_threshold: f64,
    default_weight: i64,
}

impl WeightedConsistentHash {
    /// Overload threshold unless set otherwise.
    pub const DEFAULT_OVERLOAD_THRESHOLD: f64 = 1.3;
    /// Extreme threshold unless set otherwise.
    pub const DEFAULT_EXTREME_THRESHOLD: f64 = 2.0;
    pub(super) const MIN_OVERLOAD_THRESHOLD: f64 = 1.15;
    pub(super) const MIN_EXTREME_THRESHOLD: f64 = 1.5;

    /// The strategy with 150 virtual nodes, seed 0, overload 1.3, extreme 2.0, default weight 1.
    #[must_use]
    pub fn new() -> Self {
        Self {
            virtual_nodes: ConsistentHash::DEFAULT_VIRTUAL_NODES,
            seed: 0,
            overload_threshold: Self::DEFAULT_OVERLOAD_THRESHOLD,
            extreme_threshold: Self::DEFAULT_EXTREME_THRESHOLD,
            default_weight: super::DEFAULT_WEIGHT,
        }
    }

    /// Sets the virtual nodes per worker; 0 counts as 1, more than 10 000 as 10 000.
    #[must_use]
    pub fn virtual_nodes(mut self, virtual_nodes: u32) -> Self {
        self.virtual_nodes = virtual_nodes.clamp(1, ConsistentHash::VIRTUAL_NODES_MAX);
        self
    }

    /// Sets the seed of all hashes; every member of a fleet must use the same.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the load, as a multiple of the mean, above which a worker is passed over; less
    /// than 1.15 (and NaN) counts as 1.15.
    #[must_use]
    pub fn overload_threshold(mut self, threshold: f64) -> Self {
        self.overload_threshold = threshold.max(Self::MIN_OVERLOAD_THRESHOLD);
        self
    }

    /// Sets the weight, as a multiple of the mean, above which a partition is extreme; less
    /// than 1.5 (and NaN) counts as 1.5.
    #[must_use]
    pub fn extreme_threshold(mut self, threshold: f64) -> Self {
        self.extreme_threshold = threshold.max(Self::MIN_EXTREME_THRESHOLD);
        self
    }

    /// Sets the weight of partitions whose own is 0 or less; less than 1 counts as 1.
    #[must_use]
    pub fn default_weight(mut self, weight: i64) -> Self {
        self.default_weight = weight.max(1);
        self
    }
}

impl Default for WeightedConsistentHash {
    fn default() -> Self {
        Self::new()
    }
}

impl Strategy for WeightedConsistentHash {
    fn name(&self) -> &str {
        "weighted_consistent_hash"
    }

    fn parameters(&self) -> String {
        let Self {
            virtual_nodes,
            seed,
            overload_threshold,
            extreme_threshold,
            default_weight,
        } = self;
        format!("{virtual_nodes} {seed} {overload_threshold} {extreme_threshold} {default_weight}")
    }

    fn assign(&self, input: &PlanInput<'_>) -> Result<Vec<WorkerIndex>> {
        let worker_count = input.worker_count()?;
        let weights = input.weights(self.default_weight);
        let total: i128 = weights.iter().map(|&w| i128::from(w)).sum();
        let ring = Ring::new(input.workers, self.virtual_nodes, self.seed);
        let mut owners = ring.owners(input.partitions, self.seed);
        if weights.windows(2).all(|pair| pair[0] == pair[1]) {
            return Ok(owners);
        }

        let extreme_above = total as f64 / weights.len() as f64 * self.extreme_threshold;
        let load_max = total as f64 / f64::from(worker_count) * self.overload_threshold;
        let is_extreme = |i: usize| weights[i] as f64 > extreme_above;
        let mut loads = vec![0_i128; input.workers.len()];

        let mut extremes: Vec<usize> = (0..weights.len()).filter(|&i| is_extreme(i)).collect();
        extremes.sort_unstable_by_key(|&i| (Reverse(weights[i]), i));
        for (i, worker) in extremes.into_iter().zip((0..worker_count).cycle()) {
            owners[i] = worker;
            loads[worker as usize] += i128::from(weights[i]);
        }

        let mut lightest = Lightest::new(&loads);
        for i in (0..weights.len()).filter(|&i| !is_extreme(i)) {
            let weight = i128::from(weights[i]);
            if (loads[owners[i] as usize] + weight) as f64 > load_max {
                owners[i] = lightest.find(&loads);
            }
            loads[owners[i] as usize] += weight;
        }
        Ok(owners)
    }
}

/// Finds the lightest worker, the first of several, while loads only grow.
///
/// Its heap holds loads as they once were. An entry that is out of date is put back with the
/// load of now when it comes up; one that is up to date is the lightest, as none can be
/// lighter than it once was.
struct Lightest(BinaryHeap<Reverse<(i128, WorkerIndex)>>);

impl Lightest {
    fn new(loads: &[i128]) -> Self {
        Self(loads.iter().copied().zip(0..).map(Reverse).collect())
    }

    fn find(&mut self, loads: &[i128]) -> WorkerIndex {
        loop {
            // Entries are replaced and never removed, and there is at least one worker.
            let mut top = self.0.peek_mut().expect("there is an entry per worker");
            let Reverse((load, worker)) = *top;
            if load == loads[worker as usize] {
                return worker;
            }
            *top = Reverse((loads[worker as usize], worker));
        }
    }
}

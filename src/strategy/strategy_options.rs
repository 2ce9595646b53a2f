//! The options of the built-in strategies.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ConsistentHash, RoundRobin, Sticky, Strategy, StrategyKind, WeightedConsistentHash};
use crate::types::WorkerId;

/// The options of all built-in strategies. Each strategy reads its own and ignores the rest.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StrategyOptions {
    /// Hashing strategies: seed of all hashes. Must be the same in the whole fleet. Default: 0.
    pub hash_seed: u64,
    /// Hashing strategies: virtual nodes per worker. 1 to 10 000. Default: 150.
    pub virtual_nodes: u32,
    /// Sticky: how far loads may be from the fair level, as a share of it, before partitions move
    /// for balance. 0 to 1. Default: 0.05.
    pub tolerance: f64,
    /// Sticky: share of all weight that may move in one plan in addition to partitions without a
    /// live owner. 0 to 1. Default: 1, which is no limit.
    pub movement_budget: f64,
    /// Sticky: capacities of workers relative to the others. 0.001 to 1 000. Default: 1 for each.
    pub capacity: BTreeMap<WorkerId, f64>,
    /// Weighted consistent hash: load, as a multiple of the mean, above which a worker is skipped.
    /// 1.15 or more. Default: 1.3.
    pub overload_threshold: f64,
    /// Weighted consistent hash: weight, as a multiple of the mean, above which partitions are
    /// assigned in turn. 1.5 or more. Default: 2.
    pub extreme_threshold: f64,
}

impl Default for StrategyOptions {
    fn default() -> Self {
        Self {
            hash_seed: 0,
            virtual_nodes: ConsistentHash::DEFAULT_VIRTUAL_NODES,
            tolerance: Sticky::DEFAULT_TOLERANCE,
            movement_budget: 1.0,
            capacity: BTreeMap::new(),
            overload_threshold: WeightedConsistentHash::DEFAULT_OVERLOAD_THRESHOLD,
            extreme_threshold: WeightedConsistentHash::DEFAULT_EXTREME_THRESHOLD,
        }
    }
}

impl StrategyOptions {
    /// Returns the first option that is out of its range, its value, and the rule that it violates, as
    /// in "1.5 is not between 0 and 1".
    #[must_use]
    pub fn violation(&self) -> Option<(&'static str, String, &'static str)> {
        let share = 0.0..=1.0;
        let capacities = Sticky::CAPACITY_MIN..=Sticky::CAPACITY_MAX;
        let nodes = 1..=ConsistentHash::VIRTUAL_NODES_MAX;
        let above = |value: f64, least: f64| value.is_finite() && value >= least;
        let overload_min = WeightedConsistentHash::MIN_OVERLOAD_THRESHOLD;
        let extreme_min = WeightedConsistentHash::MIN_EXTREME_THRESHOLD;
        let capacity = self.capacity.values().find(|c| !capacities.contains(c));
        let rules = [
            (
                "virtual_nodes",
                self.virtual_nodes.to_string(),
                "is not from 1 to 10000",
                nodes.contains(&self.virtual_nodes),
            ),
            (
                "tolerance",
                self.tolerance.to_string(),
                "is not between 0 and 1",
                share.contains(&self.tolerance),
            ),
            (
                "movement_budget",
                self.movement_budget.to_string(),
                "is not between 0 and 1",
                share.contains(&self.movement_budget),
            ),
            (
                "capacity",
                capacity.map(f64::to_string).unwrap_or_default(),
                "is not from 0.001 to 1000",
                capacity.is_none(),
            ),
            (
                "overload_threshold",
                self.overload_threshold.to_string(),
                "is not 1.15 or more",
                above(self.overload_threshold, overload_min),
            ),
            (
                "extreme_threshold",
                self.extreme_threshold.to_string(),
                "is not 1.5 or more",
                above(self.extreme_threshold, extreme_min),
            ),
        ];
        let (option, value, rule, _) = rules.into_iter().find(|&(.., holds)| !holds)?;
        Some((option, value, rule))
    }

    /// Returns the strategy of this kind with its options. `default_weight` is the weight of
    /// partitions whose own is 0 or less.
    #[must_use]
    pub fn build(&self, kind: StrategyKind, default_weight: i64) -> Arc<dyn Strategy> {
        match kind {
            StrategyKind::Sticky => {
                let mut sticky = Sticky::new()
                    .tolerance(self.tolerance)
                    .default_weight(default_weight);
                if self.movement_budget < 1.0 {
                    sticky = sticky.movement_budget(self.movement_budget);
                }
                for (worker, capacity) in &self.capacity {
                    sticky = sticky.capacity(worker.clone(), *capacity);
                }
                Arc::new(sticky)
            }
            StrategyKind::RoundRobin => Arc::new(RoundRobin),
            StrategyKind::ConsistentHash => Arc::new(
                ConsistentHash::new()
                    .seed(self.hash_seed)
                    .virtual_nodes(self.virtual_nodes),
            ),
            StrategyKind::WeightedConsistentHash => Arc::new(
                WeightedConsistentHash::new()
                    .seed(self.hash_seed)
                    .virtual_nodes(self.virtual_nodes)
                    .overload_threshold(self.overload_threshold)
                    .extreme_threshold(self.extreme_threshold)
                    .default_weight(default_weight),
            ),
        }
    }
}

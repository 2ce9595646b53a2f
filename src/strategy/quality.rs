//! How good a plan is.

use super::diff::weight_of;
use super::fair::fair_level;
use super::{Plan, diff};

/// How even a plan is, and how much it moves. Loads are weight per capacity.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quality {
    /// Mean load.
    pub mean: f64,
    /// Fair level: the mean load when partitions too heavy to be evened out are set apart.
    pub fair: f64,
    /// Load of the most loaded worker, as a multiple of the mean.
    pub max_to_mean: f64,
    /// Load of the least loaded worker, as a multiple of the mean.
    pub min_to_mean: f64,
    /// What `max_to_mean` cannot go below: 1, or the heaviest partition alone on the largest
    /// worker.
    pub lower_bound: f64,
    /// How many partitions have another owner than in the previous plan.
    pub moved_partitions: usize,
    /// Their share of all weight.
    pub moved: f64,
    /// Share of all weight that had to move, as its owner is gone.
    pub moved_least: f64,
}

/// Judges a plan, against the one before if there is one.
///
/// `capacities` holds each worker's relative capacity, in the order of the plan's workers;
/// where it is shorter, capacity is 1. A plan without weight or workers is perfect.
#[must_use]
pub fn quality(plan: &Plan, previous: Option<&Plan>, capacities: &[f64]) -> Quality {
    let workers = plan.workers().len();
    let given = capacities.iter().copied().chain(std::iter::repeat(1.0));
    let capacities: Vec<f64> = given.take(workers).collect();
    let mut loads = vec![0_i128; workers];
    for (partition, &owner) in plan.partitions().iter().zip(plan.owners()) {
        loads[owner as usize] += weight_of(partition);
    }
    let total: i128 = loads.iter().sum();
    let mean = total as f64 / capacities.iter().sum::<f64>();
    let difference = previous.map(|previous| diff(previous, plan));
    let share = |weight: i128| weight as f64 / (total as f64).max(1.0);
    let difference = difference.unwrap_or_default();
    let moved_partitions = difference.moved;
    let moved = share(difference.moved_weight);
    let moved_least = share(difference.orphaned_weight);
    if total == 0 || workers == 0 {
        return Quality {
            mean: 0.0,
            fair: 0.0,
            max_to_mean: 1.0,
            min_to_mean: 1.0,
            lower_bound: 1.0,
            moved_partitions,
            moved,
            moved_least,
        };
    }

    let levels = || {
        loads
            .iter()
            .zip(&capacities)
            .map(|(&load, c)| load as f64 / c / mean)
    };
    let weights = || plan.partitions().iter().map(weight_of);
    let heaviest = weights().max().unwrap_or(0) as f64;
    let largest = capacities.iter().copied().fold(0.0, f64::max);
    // The fair level is computed on a scale on which sums are exact.
    let scale = total / (1 << 52) + 1;
    let scaled: Vec<i64> = weights().map(|weight| (weight / scale) as i64).collect();
    Quality {
        mean,
        fair: fair_level(&scaled, &capacities) * scale as f64,
        max_to_mean: levels().fold(0.0, f64::max),
        min_to_mean: levels().fold(f64::MAX, f64::min),
        lower_bound: (heaviest / largest / mean).max(1.0),
        moved_partitions,
        moved,
        moved_least,
    }
}

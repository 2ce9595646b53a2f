//! Even plans that move little: divvy's own strategy, and the default.

mod equal;
mod fill;
mod model;
mod pairwise;
mod pull;
mod push;
mod rebalance;
mod search;
mod state;

use std::collections::BTreeMap;

use self::model::Model;
use self::rebalance::rebalance;
use super::{DEFAULT_WEIGHT, PlanInput, Strategy, WorkerIndex};
use crate::error::{Code, Error, Result};
use crate::types::WorkerId;

/// Balances weights with the fewest moves: the default.
///
/// Its aims, in this order: every partition on a live worker; loads within the tolerance of the
/// fair level (the load per capacity that all workers can be brought to, apart from partitions
/// too heavy for that); least weight moved; fewest partitions moved.
///
/// * With equal weights counts follow the capacities to within one, by the fewest moves there
///   can be.
/// * Otherwise loads within the tolerance stay as they are. Beyond it fine partitions (up to 4
///   tolerances of the fair level) move, and heavier ones where that takes their weight off the
///   imbalance. Heavy partitions move for balance alone only where a worker is more than 3
///   tolerances above or 6 below the fair level; chains of up to 6 moves are tried then.
/// * A plan that cannot be improved by these rules comes out as it went in.
///
/// The time is nearly linear in partitions and workers, the memory about 30 bytes per partition.
///
/// ```
/// use divvy::strategy::{PlanInput, Sticky, Strategy};
/// use divvy::{Partition, WorkerId};
///
/// # fn main() -> divvy::Result<()> {
/// let workers = [WorkerId::new("a")?, WorkerId::new("b")?];
/// let partitions = [1, 2, 3, 4].map(|n| Partition::new([format!("p{n}")], 1));
/// // `a` owned everything, and `b` has joined: two partitions move.
/// let input = PlanInput { workers: &workers, partitions: &partitions, previous: &[Some(0); 4] };
/// let owners = Sticky::new().assign(&input)?;
/// assert_eq!(owners.iter().filter(|&&owner| owner == 1).count(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Sticky {
    tolerance: f64,
    movement_budget: Option<f64>,
    default_weight: i64,
    capacities: BTreeMap<WorkerId, f64>,
}

impl Sticky {
    /// Tolerance unless set otherwise.
    pub const DEFAULT_TOLERANCE: f64 = 0.05;
    pub(super) const CAPACITY_MIN: f64 = 0.001;
    pub(super) const CAPACITY_MAX: f64 = 1_000.0;

    /// Tolerance 0.05, no movement budget, capacity 1 for every worker, default weight 1.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tolerance: Self::DEFAULT_TOLERANCE,
            movement_budget: None,
            default_weight: DEFAULT_WEIGHT,
            capacities: BTreeMap::new(),
        }
    }

    /// Sets how far loads may be from the fair level, as a share of it, before partitions move
    /// for balance: 0 to 1; less (and NaN) counts as 0, more as 1.
    #[must_use]
    pub fn tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = within(tolerance, 0.0, 1.0);
        self
    }

    /// Sets the share of all weight, 0 to 1, that may move in one round beyond what has no
    /// live owner. The rest follows in later rounds. It never is less than the heaviest
    /// partition, so that every plan is reached in the end.
    #[must_use]
    pub fn movement_budget(mut self, share: f64) -> Self {
        self.movement_budget = Some(within(share, 0.0, 1.0));
        self
    }

    /// Sets the capacity of a worker, relative to the others; it is 1 unless set. Less than
    /// 0.001 (and NaN) counts as 0.001, more than 1 000 as 1 000.
    #[must_use]
    pub fn capacity(mut self, worker: WorkerId, capacity: f64) -> Self {
        let capacity = within(capacity, Self::CAPACITY_MIN, Self::CAPACITY_MAX);
        self.capacities.insert(worker, capacity);
        self
    }

    /// Sets the weight of partitions whose own is 0 or less; less than 1 counts as 1.
    #[must_use]
    pub fn default_weight(mut self, weight: i64) -> Self {
        self.default_weight = weight.max(1);
        self
    }
}

impl Default for Sticky {
    fn default() -> Self {
        Self::new()
    }
}

impl Strategy for Sticky {
    fn name(&self) -> &str {
        "sticky"
    }

    fn parameters(&self) -> String {
        let Self {
            tolerance,
            movement_budget,
            default_weight,
            capacities,
        } = self;
        let budget = movement_budget.unwrap_or(1.0);
        format!("{tolerance} {budget} {default_weight} {capacities:?}")
    }

    fn assign(&self, input: &PlanInput<'_>) -> Result<Vec<WorkerIndex>> {
        input.worker_count()?;
        if input.previous.len() != input.partitions.len() {
            return Err(Error::new(
                Code::InvalidArgument,
                "the previous plan is not as long as the list of partitions",
            ));
        }
        let capacity = |id: &WorkerId| self.capacities.get(id).copied().unwrap_or(1.0);
        let capacities: Vec<f64> = input.workers.iter().map(capacity).collect();
        let weights = input.weights(self.default_weight);
        if weights.windows(2).all(|pair| pair[0] == pair[1]) {
            let movable = self
                .movement_budget
                .map(|share| (share * weights.len() as f64) as u32);
            return Ok(equal::rebalance(input.previous, &capacities, movable));
        }
        let model = Model::new(weights, capacities);
        let heaviest = model.weights.iter().copied().max().unwrap_or(0);
        let budget = |share: f64| ((share * model.total as f64) as i64).max(heaviest);
        let budget = self.movement_budget.map(budget);
        Ok(rebalance(&model, input.previous, self.tolerance, budget))
    }
}

/// The value, brought between the bounds; NaN counts as the lower one.
fn within(value: f64, min: f64, max: f64) -> f64 {
    if value.is_nan() {
        min
    } else {
        value.clamp(min, max)
    }
}

//! The numbers of one problem: weights, capacities, and the bands that loads should lie in.

use crate::strategy::fair::fair_level;

/// Weights are scaled down until their sum is at most this, which an `f64` holds exactly.
const TOTAL_MAX: i128 = 1 << 52;

/// Share of the fair level that a worker may own in addition to one partition that fills it alone.
const NEXT_TO_OVERSIZED: f64 = 0.05;

/// Tolerances above the fair level to which loads may rise.
const WIDE_ABOVE: f64 = 3.0;

/// Weights and capacities as the search uses them.
pub(super) struct Model {
    /// Positive; their sum is exact in an `f64`.
    pub(super) weights: Vec<i64>,
    /// Relative capacities; their mean is 1.
    pub(super) capacities: Vec<f64>,
    /// The largest of them.
    largest: f64,
    /// Sum of the weights.
    pub(super) total: i64,
    /// Fair load per capacity.
    pub(super) fair: f64,
}

/// How far above and below the fair level a load may be, as shares of that level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Band {
    pub(super) above: f64,
    pub(super) below: f64,
    /// A load above this is above every band; for a worker excused for a heavy partition, the rest
    /// of its load must not exceed this.
    pub(super) limit: f64,
    /// Whether a partition that fills a small worker but not the largest one is out of place.
    pub(super) strict: bool,
}

impl Band {
    /// What loads are levelled to once they are touched.
    pub(super) fn tight(tolerance: f64) -> Self {
        Self::of(tolerance, 0.2, 0.5)
    }

    /// What is left alone.
    pub(super) fn tolerable(tolerance: f64) -> Self {
        Self::of(tolerance, 1.0, 1.0)
    }

    /// Out of it heavy partitions move, too.
    pub(super) fn wide(tolerance: f64) -> Self {
        Self::of(tolerance, WIDE_ABOVE, 6.0)
    }

    /// A band of this many tolerances above and below.
    fn of(tolerance: f64, above: f64, below: f64) -> Self {
        Self {
            above: tolerance * above,
            below: tolerance * below,
            limit: tolerance * WIDE_ABOVE,
            strict: false,
        }
    }
}

impl Model {
    /// `weights` are positive; `capacities`, at least one, are positive and finite.
    pub(super) fn new(mut weights: Vec<i64>, mut capacities: Vec<f64>) -> Self {
        let total: i128 = weights.iter().map(|&weight| i128::from(weight)).sum();
        if total > TOTAL_MAX {
            // Rounding up to 1 adds at most one unit a partition: half of the range is spared.
            let scale = (total / (TOTAL_MAX / 2) + 1) as i64;
            for weight in &mut weights {
                *weight = (*weight / scale).max(1);
            }
        }
        let mean = capacities.iter().sum::<f64>() / capacities.len() as f64;
        for capacity in &mut capacities {
            *capacity /= mean;
        }
        Self {
            total: weights.iter().sum(),
            largest: capacities.iter().copied().fold(0.0, f64::max),
            fair: fair_level(&weights, &capacities),
            weights,
            capacities,
        }
    }

    /// The load of a worker per capacity.
    pub(super) fn level(&self, worker: u32, load: i64) -> f64 {
        load as f64 / self.capacities[worker as usize]
    }

    /// The most that a worker may hold whose heaviest partition weighs `top`.
    pub(super) fn load_max(&self, worker: u32, top: i64, band: Band) -> i64 {
        let fair = self.fair * self.capacities[worker as usize];
        let max = (fair * (1.0 + band.above)) as i64;
        let largest = (self.fair * self.largest * (1.0 + band.above)) as i64;
        let is_excused = top > if band.strict { largest } else { max };
        if !is_excused || top <= max {
            return max;
        }
        let next_to = top + (fair * NEXT_TO_OVERSIZED) as i64;
        let limit = (fair * (1.0 + band.limit)) as i64;
        if top > limit {
            next_to
        } else {
            next_to.min(limit)
        }
    }

    /// The least that a worker should hold.
    pub(super) fn load_min(&self, worker: u32, band: Band) -> i64 {
        let fair = self.fair * self.capacities[worker as usize];
        (fair * (1.0 - band.below)).ceil() as i64
    }

    /// How much a worker with this load holds beyond the band, or lacks (negative), 0 within;
    /// its heaviest partition weighs `top`.
    pub(super) fn offence(&self, worker: u32, load: i64, top: i64, band: Band) -> i64 {
        let max = self.load_max(worker, top, band);
        let min = self.load_min(worker, band);
        (load - max).max(0) + (load - min).min(0)
    }
}

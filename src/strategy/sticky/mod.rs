//! Even plans that move little: divvy's own strategy, and the default.

mod ease;
mod equal;
mod fill;
mod model;
mod pull;
mod push;
mod search;
mod state;

use std::collections::BTreeMap;

use self::model::{Band, Model};
use self::search::{Price, Terms};
use self::state::State;
use super::{DEFAULT_WEIGHT, Input, Strategy, WorkerIndex};
use crate::error::{Code, Error, Result};
use crate::types::WorkerId;

const CAPACITY_MIN: f64 = 0.001;
const CAPACITY_MAX: f64 = 1_000.0;

/// Balances weights with the fewest moves.
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
        self.tolerance = tolerance.max(0.0).min(1.0);
        self
    }

    /// Sets the share of all weight, 0 to 1, that may move in one round beyond what has no
    /// live owner. The rest follows in later rounds; one partition may always move, so that
    /// they end.
    #[must_use]
    pub fn movement_budget(mut self, share: f64) -> Self {
        self.movement_budget = Some(share.max(0.0).min(1.0));
        self
    }

    /// Sets the capacity of a worker, relative to the others; it is 1 unless set. Less than
    /// 0.001 (and NaN) counts as 0.001, more than 1 000 as 1 000.
    #[must_use]
    pub fn capacity(mut self, worker: WorkerId, capacity: f64) -> Self {
        let capacity = capacity.max(CAPACITY_MIN).min(CAPACITY_MAX);
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

    fn assign(&self, input: &Input<'_>) -> Result<Vec<WorkerIndex>> {
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
        let allowance = match self.movement_budget {
            Some(share) => (share * model.total as f64) as i64,
            None => i64::MAX / 4,
        };
        Ok(rebalance(&model, input.previous, self.tolerance, allowance))
    }
}

fn rebalance(
    model: &Model,
    previous: &[Option<WorkerIndex>],
    tolerance: f64,
    allowance: i64,
) -> Vec<WorkerIndex> {
    let tolerable = Band {
        above: tolerance,
        below: tolerance,
    };
    let wide = Band {
        above: tolerance * 3.0,
        below: tolerance * 6.0,
    };
    let tight = Band {
        above: tolerance * 0.2,
        below: tolerance * 0.5,
    };
    let fine = (model.fair * tolerance * 4.0) as i64;

    let terms = |band, price| Terms { band, price };
    let mut state = State::new(model, previous, fine, allowance);
    let mut aside = state.fill(fine + 1, tolerable);
    aside.retain(|&p| !state.insert(p, terms(tolerable, Price::Any)));
    aside.retain(|&p| !state.insert(p, terms(wide, Price::Any)));
    state.force(aside);
    state.shed(tolerable);
    let aside = state.fill(0, tolerable);
    state.force(aside);
    state.debug("filled");
    state.repair(terms(wide, Price::Any));
    state.debug("wide");
    state.repair(terms(tolerable, Price::Worth));
    state.debug("tolerable");
    state.repair(terms(tight, Price::Free));
    state.debug("tight");
    state.go_home(tolerable);
    state.debug("home");
    state.owners
}

impl State<'_> {
    fn debug(&self, what: &str) {
        if std::env::var("DV").is_err() {
            return;
        }
        let lv = |w: usize| self.loads[w] as f64 / self.model.capacities[w] / self.model.fair;
        let max = (0..self.loads.len()).map(lv).fold(0.0, f64::max);
        let min = (0..self.loads.len()).map(lv).fold(9e9, f64::min);
        let moved: i64 = (0..self.owners.len())
            .filter(|&p| self.home[p].is_some_and(|h| h != self.owners[p]))
            .map(|p| self.model.weights[p])
            .sum();
        println!(
            "   {what}: {max:.3} {min:.3} moved {:.4} pool {}",
            moved as f64 / self.model.total as f64,
            self.pool.len()
        );
    }

    fn repair(&mut self, terms: Terms) {
        let offence = |state: &Self, worker: WorkerIndex| {
            let offence = state.offence(worker, terms.band);
            state.model.level(worker, offence.abs())
        };
        for _ in 0..3 {
            let mut offenders: Vec<(f64, WorkerIndex)> = (0..self.lists.len() as WorkerIndex)
                .map(|worker| (offence(self, worker), worker))
                .filter(|(by, _)| *by > 0.0)
                .collect();
            offenders.sort_by(|a, b| b.0.total_cmp(&a.0));
            let mut progress = false;
            for (_, worker) in offenders {
                loop {
                    let done = match self.offence(worker, terms.band) {
                        0 => break,
                        1.. => self.relieve(worker, terms),
                        _ => self.replenish(worker, terms),
                    };
                    if !done && !self.ease(worker, terms) {
                        break;
                    }
                    progress = true;
                }
            }
            let aside = self.fill(0, terms.band);
            self.force(aside);
            if !progress {
                return;
            }
        }
    }

    fn go_home(&mut self, band: Band) {
        for partition in 0..self.owners.len() as u32 {
            let Some(home) = self.home[partition as usize] else {
                continue;
            };
            let owner = self.owner(partition);
            if owner == home {
                continue;
            }
            let weight = self.weight(partition);
            let fits = self.loads[home as usize] + weight
                <= self.model.load_max(home, self.top(home).max(weight), band);
            let stays = self.loads[owner as usize] - weight >= self.model.load_min(owner, band);
            if fits && stays {
                self.give(partition, home);
            }
        }
    }
}

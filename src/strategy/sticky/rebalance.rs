//! The order of work: place what has no owner, level with fine partitions, then repair.

use super::model::{Band, Model};
use super::search::{Constraints, MovePolicy};
use super::state::Division;
use crate::strategy::WorkerIndex;

/// Rounds of repair at most; each begins with the worst offender.
const REPAIR_ROUNDS_MAX: u32 = 3;

/// Planning is repeated until it brings no improvement, but at most this often, so that the time of
/// a call is bounded.
const SETTLE_ROUNDS_MAX: u32 = 64;

/// A plan may get worse before it gets better: it is followed for this many rounds.
const DETOUR_MAX: u32 = 6;

/// Returns the owner of each partition, close to `previous`. With a movement budget, at most
/// `budget` of weight moves beyond what must.
pub(super) fn rebalance(
    model: &Model,
    previous: &[Option<WorkerIndex>],
    tolerance: f64,
    budget: Option<i64>,
) -> Vec<WorkerIndex> {
    let held: Option<Vec<WorkerIndex>> = previous.iter().copied().collect();
    if let Some(budget) = budget {
        return match held {
            // A detour would spend the budget again in each of its rounds.
            Some(held) => improve(model, &held, tolerance, budget, 1).unwrap_or(held),
            None => plan(model, previous, tolerance, budget),
        };
    }
    // A bounded search may leave an improvement that a new search finds. The result must be stable
    // if nothing changes, so search until no improvement remains. Usually this costs one check of
    // the loads.
    let mut owners = held.unwrap_or_else(|| plan(model, previous, tolerance, UNLIMITED));
    for _ in 0..SETTLE_ROUNDS_MAX {
        match improve(model, &owners, tolerance, UNLIMITED, DETOUR_MAX) {
            Some(better) => owners = better,
            None => break,
        }
    }
    owners
}

/// An move_budget that is never used up.
const UNLIMITED: i64 = i64::MAX / 4;

/// Searches a plan nearer to balance than the current one, in a limited number of rounds. Moves
/// that only exchange one imbalance for another would continue forever, so they do not count.
fn improve(
    model: &Model,
    held: &[WorkerIndex],
    tolerance: f64,
    move_budget: i64,
    rounds: u32,
) -> Option<Vec<WorkerIndex>> {
    let before = Imbalance::of(model, held, tolerance);
    if before.tolerable == 0 {
        return None;
    }
    let mut owners = held.to_vec();
    for _ in 0..rounds {
        let previous: Vec<_> = owners.iter().copied().map(Some).collect();
        let next = plan(model, &previous, tolerance, move_budget);
        if next == owners {
            return None;
        }
        if Imbalance::of(model, &next, tolerance) < before {
            return Some(next);
        }
        owners = next;
    }
    None
}

/// Load per capacity outside the bands. The worker that is farthest out of the wide one counts
/// first, then all that are, then what is out of the narrow one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Imbalance {
    worst: i128,
    wide: i128,
    tolerable: i128,
}

impl Imbalance {
    fn of(model: &Model, owners: &[WorkerIndex], tolerance: f64) -> Self {
        let mut loads = vec![0; model.capacities.len()];
        let mut tops = vec![0; model.capacities.len()];
        for (&owner, &weight) in owners.iter().zip(&model.weights) {
            let worker = owner as usize;
            loads[worker] += weight;
            tops[worker] = weight.max(tops[worker]);
        }
        let mut imbalance = Self {
            worst: 0,
            wide: 0,
            tolerable: 0,
        };
        for (worker, (&load, &top)) in (0..).zip(loads.iter().zip(&tops)) {
            let outside = |band| {
                let offence = model.offence(worker, load, top, band).abs();
                model.level(worker, offence).ceil() as i128
            };
            let beyond = outside(Band::wide(tolerance));
            imbalance.worst = imbalance.worst.max(beyond);
            imbalance.wide += beyond;
            imbalance.tolerable += outside(Band::tolerable(tolerance));
        }
        imbalance
    }
}

fn plan(
    model: &Model,
    previous: &[Option<WorkerIndex>],
    tolerance: f64,
    move_budget: i64,
) -> Vec<WorkerIndex> {
    let tight = Band::tight(tolerance);
    let tolerable = Band::tolerable(tolerance);
    let wide = Band::wide(tolerance);
    let constraints = |band, policy| Constraints { band, policy };
    let fine = (model.fair * tolerance * 4.0) as i64;
    let mut state = Division::new(model, previous, fine, move_budget);
    let mut aside = state.fill(fine + 1, tolerable);
    aside.retain(|&p| !state.insert(p, constraints(tolerable, MovePolicy::Any)));
    aside.retain(|&p| !state.insert(p, constraints(wide, MovePolicy::Any)));
    state.assign_remaining(aside);
    state.shed(tolerable);
    let aside = state.fill(0, tolerable);
    state.assign_remaining(aside);

    state.repair(constraints(wide, MovePolicy::Any));
    state.clear_small_workers(wide);
    state.repair(constraints(tolerable, MovePolicy::Worth));
    state.repair(constraints(tight, MovePolicy::Free));
    state.return_moved(tolerable);
    state.owners
}

impl Division<'_> {
    /// Brings workers into the band one by one, the worst first.
    fn repair(&mut self, constraints: Constraints) {
        let offence = |state: &Self, worker: WorkerIndex| {
            let offence = state.offence(worker, constraints.band);
            state.model.level(worker, offence.abs())
        };
        for _ in 0..REPAIR_ROUNDS_MAX {
            let mut offenders: Vec<(f64, WorkerIndex)> = (0..self.lists.len() as WorkerIndex)
                .map(|worker| (offence(self, worker), worker))
                .filter(|(by, _)| *by > 0.0)
                .collect();
            offenders.sort_by(|a, b| b.0.total_cmp(&a.0));
            let mut progress = false;
            for (_, worker) in offenders {
                loop {
                    let done = match self.offence(worker, constraints.band) {
                        0 => break,
                        1.. => self.relieve(worker, constraints),
                        _ => self.replenish(worker, constraints),
                    };
                    if !done && !self.improve_pairwise(worker, constraints) {
                        break;
                    }
                    progress = true;
                }
            }
            let aside = self.fill(0, constraints.band);
            self.assign_remaining(aside);
            if !progress {
                return;
            }
        }
    }

    /// Takes partitions that fill small workers to larger ones while others lack load: what such
    /// a worker holds beyond its share is what the others lack.
    fn clear_small_workers(&mut self, wide: Band) {
        let strict = Band {
            strict: true,
            ..wide
        };
        let mut overfull: Vec<(f64, WorkerIndex)> = (0..self.lists.len() as WorkerIndex)
            .map(|worker| {
                (
                    self.model.level(worker, self.offence(worker, strict)),
                    worker,
                )
            })
            .filter(|(by, _)| *by > 0.0)
            .collect();
        overfull.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (_, worker) in overfull {
            if !self.lacks(wide) {
                return;
            }
            let policy = MovePolicy::Any;
            if self.relieve(
                worker,
                Constraints {
                    band: strict,
                    policy,
                },
            ) {
                self.repair(Constraints { band: wide, policy });
            }
        }
    }

    /// Whether some worker holds less than the band asks.
    fn lacks(&self, band: Band) -> bool {
        (0..self.lists.len() as WorkerIndex).any(|worker| self.offence(worker, band) < 0)
    }

    /// Sends back what turned out to have room at home.
    fn return_moved(&mut self, band: Band) {
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

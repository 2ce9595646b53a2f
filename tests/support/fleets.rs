//! Fleets and checks for the strategy tests: an independent implementation of the rules.
#![allow(dead_code)] // each test uses its part

use divvy::strategy::{PlanInput, Strategy, canonical_workers};
use divvy::types::{Partition, WorkerId};

/// Every kind of weights, as in `vectors/plans.json`.
pub const KINDS: [&str; 6] = ["equal", "zero", "skew10", "heavy", "spread", "mixed"];

/// Returns the weight of partition `i`.
pub fn weight(kind: &str, i: usize) -> i64 {
    let n = i as i64;
    match kind {
        "equal" => 100,
        "zero" => 0,
        "skew10" if n % 10 == 0 => 500,
        "heavy" if n % 20 == 0 => 10_000 + (n / 20 * 7919) % 40_001,
        "skew10" | "heavy" => 100,
        "spread" => 50 + (n * 7919) % 151,
        "mixed" => [-5, 0, 1, 100, 1_000_000][i % 5],
        _ => panic!("unknown kind of weights: {kind}"),
    }
}

/// Partitions `topic.p.<i>` in canonical order.
pub fn partitions(kind: &str, count: usize) -> Vec<Partition> {
    (0..count)
        .map(|i| {
            let keys = ["topic".to_owned(), "p".to_owned(), format!("{i:07}")];
            Partition::new(keys, weight(kind, i))
        })
        .collect()
}

/// `worker-<i>` for each number, sorted.
pub fn workers(numbers: impl IntoIterator<Item = usize>) -> Vec<WorkerId> {
    let id = |i| WorkerId::new(&format!("worker-{i}")).unwrap();
    canonical_workers(numbers.into_iter().map(id).collect())
}

/// A fleet with a sequence of plans.
pub struct Fleet {
    pub workers: Vec<WorkerId>,
    pub partitions: Vec<Partition>,
    pub owners: Vec<Option<WorkerId>>,
    pub capacity: fn(&WorkerId) -> f64,
}

/// The result of one step of a fleet.
#[derive(Debug)]
pub struct Verdict {
    /// Fair level.
    pub fair: f64,
    /// For each worker, as multiples of the fair level: its load per capacity, and that of its
    /// heaviest partition.
    pub levels: Vec<f64>,
    pub tops: Vec<f64>,
    pub counts: Vec<usize>,
    /// Minimum and maximum number of partitions of the heaviest weight on one worker.
    pub top_counts: (usize, usize),
    /// Fraction of the total weight that moved, and the larger of the share of the departed workers
    /// and the fair share of the new ones.
    pub moved: f64,
    pub ideal: f64,
    pub moved_count: usize,
    /// Partitions that had no live owner before.
    pub orphans: usize,
}

impl Verdict {
    /// Returns the number of workers above `bound`.
    pub fn over_full(&self, bound: f64) -> usize {
        let loads = self.levels.iter().zip(&self.tops);
        let is_over = |&(&level, &top): &(&f64, &f64)| {
            let excused = top > bound && level - top <= 0.05 + 1e-9;
            level > bound + 1e-9 && !excused
        };
        loads.filter(is_over).count()
    }

    pub fn emptiest(&self) -> f64 {
        self.levels.iter().copied().fold(f64::MAX, f64::min)
    }

    /// Load of the most loaded worker, except those whose heaviest partition alone exceeds the
    /// level.
    pub fn fullest(&self) -> f64 {
        let loads = self.levels.iter().zip(&self.tops);
        let counted = loads.filter(|(level, top)| **top <= 1.0 || **level - **top > 0.05);
        counted.map(|(level, _)| *level).fold(0.0, f64::max)
    }
}

impl Fleet {
    pub fn new(kind: &str, worker_count: usize, partition_count: usize) -> Self {
        let partitions = partitions(kind, partition_count);
        Self {
            workers: workers(0..worker_count),
            owners: vec![None; partitions.len()],
            partitions,
            capacity: |_| 1.0,
        }
    }

    pub fn previous(&self) -> Vec<Option<u32>> {
        let index = |id: &WorkerId| self.workers.binary_search(id).ok().map(|i| i as u32);
        let owners = self.owners.iter();
        owners.map(|owner| owner.as_ref().and_then(index)).collect()
    }

    /// Returns the state of the fleet without planning.
    pub fn verdict(&self) -> Verdict {
        let owners = self.previous().into_iter();
        let plan: Vec<u32> = owners.map(|owner| owner.unwrap()).collect();
        self.judge(&self.workers, &plan)
    }

    /// Plans for `workers` and applies the plan.
    pub fn step(&mut self, strategy: &dyn Strategy, workers: Vec<WorkerId>) -> Verdict {
        let before = std::mem::replace(&mut self.workers, workers);
        let previous = self.previous();
        let input = PlanInput {
            workers: &self.workers,
            partitions: &self.partitions,
            previous: &previous,
        };
        let plan = strategy.assign(&input).unwrap();
        divvy::strategy::check(&input, &plan).unwrap();
        let verdict = self.judge(&before, &plan);
        let id = |owner: u32| Some(self.workers[owner as usize].clone());
        self.owners = plan.into_iter().map(id).collect();
        verdict
    }

    fn weights(&self) -> Vec<i64> {
        let weights = self.partitions.iter().map(|p| p.weight);
        weights.map(|w| if w > 0 { w } else { 1 }).collect()
    }

    fn judge(&self, before: &[WorkerId], plan: &[u32]) -> Verdict {
        let weights = self.weights();
        let heaviest = weights.iter().copied().max().unwrap_or(0);
        let capacities: Vec<f64> = self.workers.iter().map(self.capacity).collect();
        let fair = fair_level(&weights, &capacities);
        let total: f64 = weights.iter().map(|&w| w as f64).sum();
        let zeros = vec![0.0; capacities.len()];
        let (mut levels, mut tops) = (zeros.clone(), zeros);
        let (mut counts, mut heavies) = (vec![0; levels.len()], vec![0; levels.len()]);
        let (mut moved, mut departed, mut moved_count, mut orphans) = (0.0, 0.0, 0, 0);
        for ((&owner, old), &weight) in plan.iter().zip(&self.owners).zip(&weights) {
            let worker = owner as usize;
            let level = weight as f64 / capacities[worker] / fair;
            levels[worker] += level;
            tops[worker] = level.max(tops[worker]);
            counts[worker] += 1;
            heavies[worker] += usize::from(weight == heaviest);
            let Some(old) = old else {
                orphans += 1;
                continue;
            };
            if *old != self.workers[worker] {
                moved += weight as f64;
                moved_count += 1;
            }
            if self.workers.binary_search(old).is_err() {
                departed += weight as f64;
                orphans += 1;
            }
        }
        let fleet = self.workers.iter().zip(&capacities);
        let new = fleet.filter(|(id, _)| before.binary_search(id).is_err());
        let share = new.map(|(_, c)| c).sum::<f64>() / capacities.iter().sum::<f64>();
        Verdict {
            fair,
            levels,
            tops,
            counts,
            top_counts: (
                heavies.iter().copied().min().unwrap_or(0),
                heavies.iter().copied().max().unwrap_or(0),
            ),
            moved: moved / total.max(1.0),
            ideal: share.max(departed / total.max(1.0)),
            moved_count,
            orphans,
        }
    }
}

/// F: partitions heavier than the mean of the rest are removed, from the heaviest, each with its
/// own worker (the largest left). F is the mean load of the rest.
pub fn fair_level(weights: &[i64], capacities: &[f64]) -> f64 {
    let mut weights: Vec<f64> = weights.iter().map(|&w| w as f64).collect();
    let mut capacities = capacities.to_vec();
    weights.sort_by(f64::total_cmp);
    capacities.sort_by(f64::total_cmp);
    loop {
        let mean = weights.iter().sum::<f64>() / capacities.iter().sum::<f64>();
        match (weights.last(), capacities.last()) {
            (Some(weight), Some(capacity))
                if capacities.len() > 1 && weight / capacity > mean * (1.0 + 1e-12) =>
            {
                weights.pop();
                capacities.pop();
            }
            _ => return mean,
        }
    }
}

/// A small pseudo-random generator, for reproducible runs.
pub struct Random(pub u64);

impl Random {
    /// Returns a number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

//! Fleets and verdicts for the strategy tests: an own reading of the rules, apart from `src/`.
#![allow(dead_code)] // each test uses its part

use divvy::strategy::{Input, Strategy, canonical_workers};
use divvy::types::{Partition, WorkerId};

/// Every kind of weights, as in `vectors/plans.json`.
pub const KINDS: [&str; 6] = ["equal", "zero", "skew10", "heavy", "spread", "mixed"];

/// The weight of partition `i`.
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

/// A fleet that goes from plan to plan.
pub struct Fleet {
    pub workers: Vec<WorkerId>,
    pub partitions: Vec<Partition>,
    pub owners: Vec<Option<WorkerId>>,
    pub capacity: fn(&WorkerId) -> f64,
}

/// What a step of a fleet came to.
#[derive(Debug)]
pub struct Verdict {
    /// Fair level.
    pub fair: f64,
    /// Load per capacity of the fullest worker that counts, and of the emptiest, as multiples
    /// of the fair level.
    pub fullest: f64,
    pub emptiest: f64,
    /// Share of all weight that changed hands, and the larger of the departed workers' share
    /// and the newcomers' fair share.
    pub moved: f64,
    pub ideal: f64,
    pub moved_count: usize,
    pub counts: Vec<usize>,
    pub levels: Vec<f64>,
    /// Fewest and most partitions of the heaviest weight that a worker holds.
    pub top_counts: (usize, usize),
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

    /// Plans for `workers` and moves on to that plan.
    pub fn step(&mut self, strategy: &dyn Strategy, workers: Vec<WorkerId>) -> Verdict {
        let before = std::mem::replace(&mut self.workers, workers);
        let previous = self.previous();
        let input = Input {
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
        let capacities: Vec<f64> = self.workers.iter().map(self.capacity).collect();
        let fair = fair_level(&weights, &capacities);
        let mut loads = vec![0_f64; capacities.len()];
        let mut tops = vec![0_f64; capacities.len()];
        let mut counts = vec![0; capacities.len()];
        let total: f64 = weights.iter().map(|&w| w as f64).sum();
        let (mut moved, mut departed, mut moved_count) = (0.0, 0.0, 0);
        for (i, &owner) in plan.iter().enumerate() {
            let (w, weight) = (owner as usize, weights[i] as f64);
            loads[w] += weight;
            tops[w] = tops[w].max(weight);
            counts[w] += 1;
            if let Some(old) = &self.owners[i] {
                if *old != self.workers[w] {
                    moved += weight;
                    moved_count += 1;
                }
                if self.workers.binary_search(old).is_err() {
                    departed += weight;
                }
            }
        }
        let heaviest = weights.iter().copied().max().unwrap();
        let mut top_counts = vec![0; capacities.len()];
        for (i, &owner) in plan.iter().enumerate() {
            if weights[i] == heaviest {
                top_counts[owner as usize] += 1;
            }
        }
        let (top_min, top_max) = (
            *top_counts.iter().min().unwrap(),
            *top_counts.iter().max().unwrap(),
        );
        let excused = |w: usize, b: f64| {
            tops[w] > b * fair * capacities[w] && loads[w] - tops[w] <= 0.05 * fair * capacities[w]
        };
        // The verdict on being over-full at b is monotone but for the excuse, so each worker's
        // level counts unless it is excused at that very level.
        let level = |w: usize| loads[w] / capacities[w] / fair;
        let fullest = (0..loads.len()).map(|w| {
            if excused(w, tops[w] / (fair * capacities[w]) - 1e-9) {
                tops[w] / (fair * capacities[w]).max(1e-300)
            } else {
                level(w)
            }
        });
        let _ = fullest;
        let fullest = (0..loads.len())
            .filter(|&w| !excused(w, 1.0))
            .map(level)
            .fold(0.0, f64::max);
        let emptiest = (0..loads.len()).map(level).fold(f64::MAX, f64::min);
        let new = |(id, _): &(&WorkerId, &f64)| before.binary_search(id).is_err();
        let newcomers: f64 = self
            .workers
            .iter()
            .zip(&capacities)
            .filter(new)
            .map(|(_, c)| c)
            .sum();
        let share = newcomers / capacities.iter().sum::<f64>();
        Verdict {
            fair,
            fullest,
            emptiest,
            moved: moved / total,
            ideal: share.max(departed / total),
            moved_count,
            counts,
            levels: (0..loads.len()).map(level).collect(),
            top_counts: (top_min, top_max),
        }
    }
}

/// F: the partitions heavier than the mean of what is left are taken away, one by one from the
/// heaviest, each alone with one worker (the largest left); the mean load of the rest.
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

/// A small generator of pseudo-random numbers, for runs that anyone can repeat.
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

//! Compares sticky with the exact optimum of small cases, found by enumeration.

use divvy::strategy::{PlanInput, Sticky, Strategy};
use divvy::types::Partition;

use crate::support::fleets::{Random, workers};

struct Small {
    weights: Vec<i64>,
    previous: Vec<Option<u32>>,
    workers: usize,
}

impl Small {
    /// Up to 6 workers and 14 partitions with equal, spread or heavy-tailed weights, after one
    /// worker joined or left or weights changed under a plan of sticky.
    fn random(random: &mut Random) -> Self {
        let workers = 2 + random.below(4) as usize;
        let count = workers + random.below(15 - workers as u64) as usize;
        let tail = random.below(3);
        let weight = |random: &mut Random| match tail {
            0 => 50 + random.below(151) as i64,
            1 if random.below(5) == 0 => 300 + random.below(1_000) as i64,
            1 => 10 + random.below(90) as i64,
            _ => 1 + random.below(1_000) as i64,
        };
        let weights = (0..count).map(|_| weight(random)).collect();
        let mut case = Self {
            weights,
            previous: vec![None; count],
            workers,
        };
        case.previous = case.plan().into_iter().map(Some).collect();
        match random.below(3) {
            0 => case.workers += 1,
            1 if workers > 2 => {
                let gone = workers as u32 - 1;
                let stays = |owner: &Option<u32>| owner.filter(|&owner| owner != gone);
                case.previous = case.previous.iter().map(stays).collect();
                case.workers -= 1;
            }
            _ => {
                for weight in &mut case.weights {
                    *weight = (*weight * (70 + random.below(61) as i64) / 100).max(1);
                }
            }
        }
        case
    }

    fn plan(&self) -> Vec<u32> {
        let list = self.weights.iter().enumerate();
        let partitions: Vec<Partition> = list
            .map(|(i, &weight)| Partition::new([format!("{i:02}")], weight))
            .collect();
        let input = PlanInput {
            workers: &workers(0..self.workers),
            partitions: &partitions,
            previous: &self.previous,
        };
        Sticky::new().assign(&input).unwrap()
    }

    /// The load of the most loaded worker, and the weight that left its live owner.
    fn judge(&self, plan: &[u32]) -> (i64, i64) {
        let mut loads = vec![0; self.workers];
        let mut moved = 0;
        for ((&owner, previous), weight) in plan.iter().zip(&self.previous).zip(&self.weights) {
            loads[owner as usize] += weight;
            if previous.is_some_and(|previous| previous != owner) {
                moved += weight;
            }
        }
        (loads.into_iter().max().unwrap(), moved)
    }

    /// Returns the minimum load of the most loaded worker if at most `moved` leaves its owner.
    fn optimum(&self, moved: i64) -> i64 {
        let mut order: Vec<usize> = (0..self.weights.len()).collect();
        order.sort_by_key(|&i| -self.weights[i]);
        let total: i64 = self.weights.iter().sum();
        let mut search = Optimum {
            case: self,
            order,
            loads: vec![0; self.workers],
            floor: (total + self.workers as i64 - 1) / self.workers as i64,
            best: i64::MAX,
        };
        search.place(0, moved);
        search.best
    }
}

/// Enumerates all assignments, except those that cannot be better than the best one found.
struct Optimum<'a> {
    case: &'a Small,
    order: Vec<usize>,
    loads: Vec<i64>,
    floor: i64,
    best: i64,
}

impl Optimum<'_> {
    fn place(&mut self, depth: usize, moved_left: i64) {
        if self.best <= self.floor {
            return;
        }
        let Some(&partition) = self.order.get(depth) else {
            self.best = self.best.min(*self.loads.iter().max().unwrap());
            return;
        };
        let weight = self.case.weights[partition];
        let home = self.case.previous[partition].map(|home| home as usize);
        for worker in 0..self.loads.len() {
            let stays = home.is_none_or(|home| home == worker);
            let left = if stays {
                moved_left
            } else {
                moved_left - weight
            };
            if left < 0 || self.loads[worker] + weight >= self.best {
                continue;
            }
            self.loads[worker] += weight;
            self.place(depth + 1, left);
            self.loads[worker] -= weight;
        }
    }
}

#[test]
fn sticky_is_within_5_percent_of_optimum_at_same_movement_in_95_of_100() {
    let mut random = Random(11);
    let mut ratios: Vec<f64> = (0..1_000)
        .map(|_| {
            let case = Small::random(&mut random);
            let (fullest, moved) = case.judge(&case.plan());
            fullest as f64 / case.optimum(moved) as f64
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let optimal = ratios.iter().filter(|ratio| **ratio <= 1.0 + 1e-9).count();
    println!(
        "optimal in {optimal} of 1000, 90th percentile {:.4}, 95th {:.4}, 99th {:.4}, worst {:.4}",
        ratios[899], ratios[949], ratios[989], ratios[999]
    );
    assert!(ratios[949] <= 1.05, "95th percentile {}", ratios[949]);
}

#[test]
fn exact_solver_finds_known_optima() {
    let case = |weights: &[i64], previous: &[Option<u32>], workers| Small {
        weights: weights.to_vec(),
        previous: previous.to_vec(),
        workers,
    };
    let free = case(&[5, 5, 4, 3, 3], &[None; 5], 2);
    assert_eq!(free.optimum(0), 10);
    let held = case(&[5, 5, 4, 3, 3], &[Some(0); 5], 2);
    assert_eq!(
        (held.optimum(0), held.optimum(3), held.optimum(10)),
        (20, 17, 10)
    );
}

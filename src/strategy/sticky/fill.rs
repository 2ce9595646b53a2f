//! The broad strokes: loads are levelled with fine partitions, and the pool is dealt out.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::model::{Band, Model};
use super::state::{Division, UNASSIGNED};
use crate::strategy::WorkerIndex;

/// Number of different capacities that are distinguished exactly; more are grouped.
const CAPACITIES_EXACT_MAX: usize = 16;

/// A level is as good as another that is lower by up to this factor.
const AS_GOOD: f64 = 1.1;

impl Division<'_> {
    /// Deals out the pool's partitions of at least `lightest`, heaviest first, each to the
    /// worker that is then emptiest. Those that would not fit in the band are returned.
    pub(super) fn fill(&mut self, lightest: i64, band: Band) -> Vec<u32> {
        let pool = std::mem::take(&mut self.pool);
        let (mut fill, keep): (Vec<u32>, Vec<u32>) =
            pool.into_iter().partition(|&p| self.weight(p) >= lightest);
        self.pool = keep;
        fill.sort_unstable_by_key(|&p| (Reverse(self.weight(p)), p));
        let mut emptiest = Emptiest::new(self.model, &self.loads);
        let mut aside = Vec::new();
        let mut tops: Vec<i64> = (0..self.lists.len() as u32).map(|w| self.top(w)).collect();
        let mut grown = vec![false; self.lists.len()];
        for partition in fill {
            let weight = self.weight(partition);
            let worker = emptiest.find(weight, self.model, &self.loads);
            let index = worker as usize;
            let load = self.loads[index] + weight;
            if load > self.model.load_max(worker, tops[index].max(weight), band) && load > weight {
                aside.push(partition);
                continue;
            }
            // Lists are put in order once at the end: many small insertions would be slow.
            self.lists[index].push(partition);
            self.add_load(worker, weight);
            self.owners[partition as usize] = worker;
            if self.home[partition as usize] == Some(worker) {
                self.move_budget += weight;
            }
            tops[index] = tops[index].max(weight);
            grown[index] = true;
        }
        let weights = &self.model.weights;
        for (list, _) in self.lists.iter_mut().zip(grown).filter(|(_, grown)| *grown) {
            list.sort_unstable_by_key(|&p| (weights[p as usize], p));
        }
        aside
    }

    /// Places partitions that fit no worker within the band: each goes to the then emptiest worker,
    /// or back to its previous owner if that is as good.
    pub(super) fn assign_remaining(&mut self, mut partitions: Vec<u32>) {
        if partitions.is_empty() {
            return;
        }
        partitions.sort_unstable_by_key(|&p| (Reverse(self.weight(p)), p));
        let mut emptiest = Emptiest::new(self.model, &self.loads);
        for partition in partitions {
            let weight = self.weight(partition);
            let level = |worker| {
                self.model
                    .level(worker, self.loads[worker as usize] + weight)
            };
            let other = emptiest.find(weight, self.model, &self.loads);
            let home = self.home[partition as usize];
            let home = home.filter(|&home| level(home) <= level(other) * AS_GOOD);
            self.give(partition, home.unwrap_or(other));
        }
    }

    /// Moves fine partitions from the most loaded workers to the pool: those beyond the band, and
    /// those needed to lift all others to it.
    pub(super) fn shed(&mut self, band: Band) {
        let workers = 0..self.lists.len() as WorkerIndex;
        let mut donors: Vec<Donor> = workers
            .clone()
            .map(|worker| Donor {
                first: 0,
                end: self.place_of(worker, self.fine + 1),
                gave: false,
            })
            .collect();
        for worker in workers.clone() {
            self.shed_excess(worker, &mut donors[worker as usize], band);
        }

        let lacking = |w| (self.model.load_min(w, band) - self.loads[w as usize]).max(0);
        let pooled: i64 = self.pool.iter().map(|&p| self.weight(p)).sum();
        let mut wanted = workers.clone().map(lacking).sum::<i64>() - pooled;
        if wanted > 0 {
            let level = |w| self.model.level(w, self.loads[w as usize]).to_bits();
            let fullest: Vec<_> = workers.clone().map(|w| (level(w), Reverse(w))).collect();
            let mut fullest = BinaryHeap::from(fullest);
            while wanted > 0 {
                let Some((_, Reverse(worker))) = fullest.pop() else {
                    break;
                };
                let donor = &mut donors[worker as usize];
                if let Some(weight) = self.shed_one(worker, donor, band, wanted) {
                    wanted -= weight;
                    let level = self.model.level(worker, self.loads[worker as usize]);
                    fullest.push((level.to_bits(), Reverse(worker)));
                }
            }
        }
        let gave = workers.filter(|&worker| donors[worker as usize].gave);
        for worker in gave {
            self.lists[worker as usize].retain(|&p| self.owners[p as usize] == worker);
        }
    }

    /// Sheds what a worker holds beyond the band: one partition that is just enough, or else
    /// the heaviest that are not too much and then one that is enough, if it can be spared.
    fn shed_excess(&mut self, worker: WorkerIndex, donor: &mut Donor, band: Band) {
        let end = donor.end;
        let mut is_first = true;
        loop {
            let load = self.loads[worker as usize];
            let excess = load - self.model.load_max(worker, self.top(worker), band);
            if excess <= 0 {
                return;
            }
            let spare = load - self.model.load_min(worker, band);
            let most = if is_first {
                spare.min(excess / 2 * 3)
            } else {
                spare
            };
            if is_first && self.shed_enough(worker, donor, excess, most, end) {
                return;
            }
            is_first = false;
            if self.shed_at_most(worker, donor, excess).is_none() {
                self.shed_enough(worker, donor, excess, spare, end);
                return;
            }
        }
    }

    /// Sheds the lightest partition of at least `least`, unless that is more than `most`.
    fn shed_enough(
        &mut self,
        worker: WorkerIndex,
        donor: &mut Donor,
        least: i64,
        most: i64,
        end: usize,
    ) -> bool {
        let first = self.place_of(worker, least).min(end);
        let list = &self.lists[worker as usize][first..end];
        let mut held = list.iter().filter(|&&p| self.owner(p) == worker);
        let Some(&partition) = held.next() else {
            return false;
        };
        if self.weight(partition) > most || self.cost(partition) > self.move_budget {
            return false;
        }
        self.shed_partition(worker, donor, partition);
        true
    }

    /// Sheds the heaviest partition that leaves a worker at the fair level and is not more than
    /// wanted, or else the lightest, if that leaves it in the band.
    fn shed_one(
        &mut self,
        worker: WorkerIndex,
        donor: &mut Donor,
        band: Band,
        wanted: i64,
    ) -> Option<i64> {
        let load = self.loads[worker as usize];
        let fair = (self.model.fair * self.model.capacities[worker as usize]) as i64;
        let spare = load - self.model.load_min(worker, band);
        self.shed_at_most(worker, donor, (load - fair).min(wanted))
            .or_else(|| self.shed_lightest(worker, donor, spare))
    }

    fn shed_at_most(&mut self, worker: WorkerIndex, donor: &mut Donor, most: i64) -> Option<i64> {
        // What was too heavy once will always be, as less and less is shed.
        while donor.end > donor.first {
            donor.end -= 1;
            let partition = self.lists[worker as usize][donor.end];
            let is_held = self.owner(partition) == worker;
            if is_held && self.weight(partition) <= most && self.cost(partition) <= self.move_budget
            {
                return Some(self.shed_partition(worker, donor, partition));
            }
            if self.weight(partition) > most && donor.end > donor.first {
                let list = &self.lists[worker as usize][donor.first..donor.end];
                let fits = list.partition_point(|&p| self.weight(p) <= most);
                if fits == 0 {
                    donor.end += 1;
                    return None;
                }
                donor.end = donor.first + fits;
            }
        }
        None
    }

    fn shed_lightest(&mut self, worker: WorkerIndex, donor: &mut Donor, most: i64) -> Option<i64> {
        while donor.first < donor.end {
            let partition = self.lists[worker as usize][donor.first];
            if self.weight(partition) > most || self.cost(partition) > self.move_budget {
                return None;
            }
            donor.first += 1;
            if self.owner(partition) == worker {
                return Some(self.shed_partition(worker, donor, partition));
            }
        }
        None
    }

    /// Moves a partition to the pool but for its entry in the worker's list.
    fn shed_partition(&mut self, worker: WorkerIndex, donor: &mut Donor, partition: u32) -> i64 {
        let weight = self.weight(partition);
        self.move_budget -= self.cost(partition);
        self.add_load(worker, -weight);
        self.owners[partition as usize] = UNASSIGNED;
        self.pool.push(partition);
        donor.gave = true;
        weight
    }
}

/// The part of a worker's list that it may still shed: from both ends, so that the list itself
/// is tidied up only once.
struct Donor {
    first: usize,
    end: usize,
    gave: bool,
}

/// Finds the worker whose load per capacity is least once it takes a partition.
///
/// One heap for each capacity, as among equals the emptiest is best whatever the partition.
/// Entries hold levels as they once were; loads only grow, so an outdated one is put back.
struct Emptiest {
    classes: Vec<BinaryHeap<Reverse<(u64, WorkerIndex)>>>,
}

impl Emptiest {
    fn new(model: &Model, loads: &[i64]) -> Self {
        let mut capacities = model.capacities.clone();
        capacities.sort_unstable_by(f64::total_cmp);
        capacities.dedup();
        if capacities.len() > CAPACITIES_EXACT_MAX {
            capacities = (-40..=40)
                .map(|step| (f64::from(step) / 4.0).exp2())
                .collect();
        }
        let mut members = vec![Vec::new(); capacities.len()];
        for (worker, &load) in (0..).zip(loads) {
            let capacity = model.capacities[worker as usize];
            let class = capacities.partition_point(|&c| c < capacity);
            let class = class.min(capacities.len() - 1);
            members[class].push(Reverse((model.level(worker, load).to_bits(), worker)));
        }
        Self {
            classes: members.into_iter().map(BinaryHeap::from).collect(),
        }
    }

    fn find(&mut self, weight: i64, model: &Model, loads: &[i64]) -> WorkerIndex {
        let mut best = (f64::INFINITY, WorkerIndex::MAX);
        for heap in &mut self.classes {
            while let Some(mut top) = heap.peek_mut() {
                let Reverse((level, worker)) = *top;
                let load = loads[worker as usize];
                // Levels are not negative, so their bits sort as they do.
                let now = model.level(worker, load).to_bits();
                if level == now {
                    let then = (model.level(worker, load + weight), worker);
                    if then < best {
                        best = then;
                    }
                    break;
                }
                *top = Reverse((now, worker));
            }
        }
        best.1
    }
}

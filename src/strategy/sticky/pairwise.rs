//! Single moves that even out two workers although neither comes into the band.

use super::search::{Constraints, FINE_WEIGHT_MIN, MovePolicy};
use super::state::Division;
use crate::strategy::WorkerIndex;

impl Division<'_> {
    /// Moves the partition between an offender and another worker that reduces the sum of the
    /// squared offences most. Returns whether there is one.
    pub(super) fn improve_pairwise(
        &mut self,
        worker: WorkerIndex,
        constraints: Constraints,
    ) -> bool {
        let mut best: Option<(f64, u32, WorkerIndex)> = None;
        let gives = self.offence(worker, constraints.band) > 0;
        for other in (0..self.lists.len() as WorkerIndex).filter(|&other| other != worker) {
            let (from, to) = if gives {
                (worker, other)
            } else {
                (other, worker)
            };
            let (above, below) = (self.loads[from as usize], self.loads[to as usize]);
            let (large, small) = (
                self.model.capacities[from as usize],
                self.model.capacities[to as usize],
            );
            // What would bring both to the same level.
            let half = (above as f64 * small - below as f64 * large) / (large + small);
            if half <= 0.0 {
                continue;
            }
            let place = self.place_of(from, half as i64);
            let list = &self.lists[from as usize];
            let near = place.saturating_sub(1)..(place + 1).min(list.len());
            for &partition in &list[near] {
                let gain = self.gain(partition, from, to, constraints);
                if gain > best.map_or(0.0, |(gain, ..)| gain) {
                    best = Some((gain, partition, to));
                }
            }
        }
        if let Some((_, partition, to)) = best {
            self.give(partition, to);
        }
        best.is_some()
    }

    /// What a move takes off the sum of the squares of two workers' offences, 0 when it may
    /// not be made.
    fn gain(
        &self,
        partition: u32,
        from: WorkerIndex,
        to: WorkerIndex,
        constraints: Constraints,
    ) -> f64 {
        let weight = self.weight(partition);
        let (cost, coarse) = self.costs(partition);
        if !self.may_move(partition, constraints.policy) || cost > self.move_budget {
            return 0.0;
        }
        let relative = |worker: WorkerIndex, load: i64, top: i64| {
            let max = self.model.load_max(worker, top, constraints.band);
            let min = self.model.load_min(worker, constraints.band);
            self.model
                .level(worker, (load - max).max(0) + (min - load).max(0))
        };
        let (above, below) = (self.loads[from as usize], self.loads[to as usize]);
        let top = match self.lists[from as usize].as_slice() {
            [.., next, last] if *last == partition => self.weight(*next),
            [_] => 0,
            _ => self.top(from),
        };
        let before = [
            relative(from, above, self.top(from)),
            relative(to, below, self.top(to)),
        ];
        let after = [
            relative(from, above - weight, top),
            relative(to, below + weight, self.top(to).max(weight)),
        ];
        let offence = before[0].max(before[1]);
        if self.model.level(from, weight * FINE_WEIGHT_MIN) < offence {
            return 0.0;
        }
        let sum = |offences: [f64; 2]| offences[0] + offences[1];
        let worth = self.model.level(from, coarse.max(cost / 4)) <= sum(before) - sum(after);
        if constraints.policy != MovePolicy::Free && !worth {
            return 0.0;
        }
        let squares = |offences: [f64; 2]| offences[0].powi(2) + offences[1].powi(2);
        let gain = squares(before) - squares(after);
        if gain < squares(before) / 64.0 {
            0.0
        } else {
            gain
        }
    }
}

//! Partitions of equal weight: counts are all that matters, and the best plan is exact.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::strategy::WorkerIndex;

/// The plan whose counts follow the capacities to within one and that moves the fewest
/// partitions. Of those that could stay, at most `movable` (at least one) move.
pub(super) fn rebalance(
    previous: &[Option<WorkerIndex>],
    capacities: &[f64],
    movable: Option<u32>,
) -> Vec<WorkerIndex> {
    let mut held = vec![0_u32; capacities.len()];
    for owner in previous.iter().flatten() {
        held[*owner as usize] += 1;
    }
    let quotas = quotas(previous.len(), capacities, &held);
    let targets = match movable {
        Some(movable) => approach(&held, &quotas, capacities, movable.max(1)),
        None => quotas,
    };

    let mut room = targets;
    let mut owners: Vec<WorkerIndex> = Vec::with_capacity(previous.len());
    for owner in previous {
        let stays = owner.filter(|&owner| room[owner as usize] > 0);
        if let Some(owner) = stays {
            room[owner as usize] -= 1;
        }
        owners.push(stays.unwrap_or(WorkerIndex::MAX));
    }
    let mut places = room
        .iter()
        .zip(0..)
        .flat_map(|(&room, worker)| std::iter::repeat_n(worker, room as usize));
    for owner in owners
        .iter_mut()
        .filter(|owner| **owner == WorkerIndex::MAX)
    {
        *owner = places
            .next()
            // The rooms are the targets less what is kept, so there is one for each that is left.
            .expect("targets add up to the number of partitions");
    }
    owners
}

/// How many partitions each worker should hold: its share rounded down, and one more for as
/// many workers as that leaves partitions over, first those that hold more anyway.
fn quotas(partitions: usize, capacities: &[f64], held: &[u32]) -> Vec<u32> {
    let capacity: f64 = capacities.iter().sum();
    let share = |c: &f64| partitions as f64 * (c / capacity);
    let mut quotas: Vec<u32> = capacities.iter().map(|c| share(c) as u32).collect();
    let given: u32 = quotas.iter().sum();
    let mut over = partitions as i64 - i64::from(given);
    let mut order: Vec<usize> = (0..capacities.len()).collect();
    let then = |w: usize| f64::from(quotas[w] + 1) / capacities[w];
    order.sort_by(|&a, &b| {
        let keeps = |w: usize| Reverse(held[w] > quotas[w]);
        keeps(a)
            .cmp(&keeps(b))
            .then_with(|| then(a).total_cmp(&then(b)))
    });
    for worker in order.into_iter().cycle() {
        match over.cmp(&0) {
            Ordering::Greater => over -= 1,
            _ => break,
        }
        quotas[worker] += 1;
    }
    quotas
}

/// Returns targets between current counts and quotas: the most loaded workers release `movable`
/// partitions in total; these and the ones without an owner go to the least loaded.
fn approach(held: &[u32], quotas: &[u32], capacities: &[f64], movable: u32) -> Vec<u32> {
    let level = |w: usize, count: u32| (f64::from(count) / capacities[w]).to_bits();
    let mut targets = held.to_vec();
    let givers = (0..held.len()).filter(|&w| held[w] > quotas[w]);
    let mut givers: BinaryHeap<_> = givers.map(|w| (level(w, held[w]), Reverse(w))).collect();
    for _ in 0..movable {
        let Some((_, Reverse(worker))) = givers.pop() else {
            break;
        };
        targets[worker] -= 1;
        if targets[worker] > quotas[worker] {
            givers.push((level(worker, targets[worker]), Reverse(worker)));
        }
    }
    let takers = (0..held.len()).filter(|&w| held[w] < quotas[w]);
    let mut takers: BinaryHeap<_> = takers.map(|w| Reverse((level(w, held[w]), w))).collect();
    let all: u32 = quotas.iter().sum();
    for _ in targets.iter().sum::<u32>()..all {
        let Some(Reverse((_, worker))) = takers.pop() else {
            break;
        };
        targets[worker] += 1;
        if targets[worker] < quotas[worker] {
            takers.push(Reverse((level(worker, targets[worker]), worker)));
        }
    }
    targets
}

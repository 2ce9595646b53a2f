//! Properties of every strategy for every input, including unusual ones.

use divvy::error::Code;
use divvy::strategy::{
    ConsistentHash, PlanInput, RoundRobin, Sticky, Strategy, WeightedConsistentHash,
    canonical_partitions, canonical_workers, check,
};
use divvy::types::{Partition, WorkerId};
use proptest::prelude::*;
use proptest::strategy::Strategy as _;

use crate::support::fleets::{self, Random, workers};

fn strategies() -> [Box<dyn Strategy>; 5] {
    [
        Box::new(RoundRobin),
        Box::new(ConsistentHash::new().virtual_nodes(20)),
        Box::new(WeightedConsistentHash::new().virtual_nodes(20)),
        Box::new(Sticky::new()),
        Box::new(Sticky::new().tolerance(0.0).movement_budget(0.1)),
    ]
}

fn assign(
    strategy: &dyn Strategy,
    workers: &[WorkerId],
    partitions: &[Partition],
    previous: &[Option<u32>],
) -> Vec<u32> {
    let input = PlanInput {
        workers,
        partitions,
        previous,
    };
    let plan = strategy.assign(&input).unwrap();
    check(&input, &plan).unwrap();
    plan
}

/// Weights of all sizes, from negative to the maximum.
fn any_weight() -> impl proptest::strategy::Strategy<Value = i64> {
    prop_oneof![
        4 => 1..200_i64,
        1 => Just(0),
        1 => -10..0_i64,
        1 => 10_000..50_000_i64,
        1 => (i64::MAX - 5)..=i64::MAX,
        1 => Just(i64::MIN),
    ]
}

fn any_partitions() -> impl proptest::strategy::Strategy<Value = Vec<Partition>> {
    let keys = prop::collection::vec("[a-cé]{0,2}", 1..4);
    let list = prop::collection::btree_map(keys, any_weight(), 0..60);
    list.prop_map(|map| {
        map.into_iter()
            .map(|(keys, w)| Partition::new(keys, w))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_plan_is_valid_and_independent_of_input_order(
        list in any_partitions(),
        count in 1_usize..12,
        seed in any::<u64>(),
    ) {
        let mut random = Random(seed);
        let fleet = workers(0..count);
        let sorted = canonical_partitions(list.clone()).unwrap();
        let previous: Vec<Option<u32>> = sorted
            .iter()
            .map(|_| (random.below(3) > 0).then(|| random.below(count as u64) as u32))
            .collect();

        let (mut shuffled, mut shuffled_fleet) = (list, fleet.clone());
        for i in (1..shuffled.len()).rev() {
            shuffled.swap(i, random.below(i as u64 + 1) as usize);
        }
        shuffled_fleet.reverse();
        let shuffled = canonical_partitions(shuffled).unwrap();
        let shuffled_fleet = canonical_workers(shuffled_fleet);

        for strategy in strategies() {
            let plan = assign(&*strategy, &fleet, &sorted, &previous);
            let other = assign(&*strategy, &shuffled_fleet, &shuffled, &previous);
            prop_assert_eq!(plan, other, "{}", strategy.name());
        }
    }

    #[test]
    fn sticky_is_idempotent_on_its_own_plan(
        list in any_partitions(),
        count in 1_usize..12,
        seed in any::<u64>(),
    ) {
        let (plan, again) = planned_twice(&list, count, seed);
        prop_assert_eq!(plan, again);
    }

    #[test]
    fn single_round_barely_exceeds_movement_budget(
        weights in prop::collection::vec(1..50_000_i64, 2..60),
        count in 2_usize..12,
        seed in any::<u64>(),
    ) {
        let mut random = Random(seed);
        let name = |(n, weight): (usize, &i64)| Partition::new([format!("p{n:02}")], *weight);
        let list: Vec<Partition> = weights.iter().enumerate().map(name).collect();
        let held: Vec<Option<u32>> = list
            .iter()
            .map(|_| Some(random.below(count as u64) as u32))
            .collect();
        let plan = assign(&Sticky::new().movement_budget(0.1), &workers(0..count), &list, &held);
        let moved: i64 = (0..list.len())
            .filter(|&p| held[p] != Some(plan[p]))
            .map(|p| list[p].weight)
            .sum();
        let share = weights.iter().sum::<i64>() as f64 * 0.1;
        let budget = share.max(*weights.iter().max().unwrap() as f64);
        // The contribution of light partitions at the end of a chain is not counted in advance.
        prop_assert!(moved as f64 <= budget * 1.2, "{moved} of {budget}");
    }
}

/// Plans with sticky from a random previous plan, and again from the result.
fn planned_twice(list: &[Partition], count: usize, seed: u64) -> (Vec<u32>, Vec<u32>) {
    let mut random = Random(seed);
    let fleet = workers(0..count);
    let previous: Vec<Option<u32>> = list
        .iter()
        .map(|_| (random.below(4) > 0).then(|| random.below(count as u64) as u32))
        .collect();
    let plan = assign(&Sticky::new(), &fleet, list, &previous);
    let held: Vec<_> = plan.iter().copied().map(Some).collect();
    let again = assign(&Sticky::new(), &fleet, list, &held);
    (plan, again)
}

/// Symptom: two partitions were swapped at every rebalance. Cause: of two equally balanced plans
/// each followed from the other, so that repeated planning never converged. A current plan is now
/// left only for a better one.
#[test]
fn held_plan_wins_over_equally_uneven_plan() {
    let (oversized, middle) = (i64::MAX - 5, 36_867);
    let mut weights = [1; 25];
    weights[5] = oversized;
    weights[8] = oversized;
    weights[14] = oversized;
    weights[19] = middle;
    weights[23] = middle;
    let name = |(n, weight): (usize, &i64)| Partition::new([format!("p{n:02}")], *weight);
    let list: Vec<Partition> = weights.iter().enumerate().map(name).collect();
    let (plan, again) = planned_twice(&list, 8, 6_892_283_558_961_794_584);
    assert_eq!(plan, again);
}

#[test]
fn without_workers_strategies_fail_and_single_worker_gets_everything() {
    let partitions = fleets::partitions("spread", 20);
    for strategy in strategies() {
        let no_workers = PlanInput {
            workers: &[],
            partitions: &partitions,
            previous: &[None; 20],
        };
        let error = strategy.assign(&no_workers).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{}", strategy.name());
        let plan = assign(&*strategy, &workers(0..1), &partitions, &[None; 20]);
        assert_eq!(plan, [0; 20]);
        assert!(assign(&*strategy, &workers(0..3), &[], &[]).is_empty());
    }
}

#[test]
fn no_worker_gets_two_when_partitions_are_fewer_than_workers() {
    for kind in ["equal", "spread", "heavy"] {
        let partitions = fleets::partitions(kind, 7);
        let mut plan = assign(&Sticky::new(), &workers(0..20), &partitions, &[None; 7]);
        plan.sort_unstable();
        plan.dedup();
        assert_eq!(plan.len(), 7, "{kind}");
    }
}

#[test]
fn partition_with_all_weight_is_left_alone_on_its_worker() {
    let mut partitions = fleets::partitions("equal", 400);
    partitions[17].weight = i64::MAX;
    for previous in [None, Some(2)] {
        let plan = assign(
            &Sticky::new(),
            &workers(0..5),
            &partitions,
            &[previous; 400],
        );
        let rest = plan.iter().filter(|&&owner| owner == plan[17]).count() - 1;
        // The others weigh 100 each on four workers: 5 % of that may stay with it.
        assert!(rest <= 5, "{rest} next to the heavy partition");
    }
}

#[test]
fn weights_near_maximum_are_balanced_like_small_ones() {
    let mut partitions = fleets::partitions("spread", 300);
    let small = assign(&Sticky::new(), &workers(0..10), &partitions, &[None; 300]);
    for partition in &mut partitions {
        partition.weight *= i64::MAX / 200;
    }
    for strategy in strategies() {
        assign(&*strategy, &workers(0..10), &partitions, &[None; 300]);
    }
    let large = assign(&Sticky::new(), &workers(0..10), &partitions, &[None; 300]);
    let loads = |plan: &[u32]| {
        let mut loads = [0_i128; 10];
        for (&owner, partition) in plan.iter().zip(&partitions) {
            loads[owner as usize] += i128::from(partition.weight);
        }
        let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
        *most as f64 / *least as f64
    };
    assert!(loads(&small) < 1.05 && loads(&large) < 1.05);
}

#[test]
fn long_and_foreign_keys_are_treated_like_any_other() {
    let keys = [
        "k".repeat(255),
        "鍵".repeat(85),
        "ключ\0\n".to_owned(),
        String::new(),
    ];
    let pairs = keys
        .iter()
        .flat_map(|a| keys.iter().map(move |b| [a.clone(), b.clone()]));
    let partitions = canonical_partitions(pairs.map(|pair| Partition::new(pair, 3)).collect());
    let partitions = partitions.unwrap();
    for strategy in strategies() {
        let plan = assign(&*strategy, &workers(0..4), &partitions, &[None; 16]);
        assert_eq!(plan.len(), 16);
    }
}

#[test]
fn out_of_range_options_are_clamped_to_nearest_bound() {
    let partitions = fleets::partitions("spread", 50);
    let fleet = workers(0..4);
    let plan = |sticky: Sticky| assign(&sticky, &fleet, &partitions, &[None; 50]);
    for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 1e300] {
        let id = fleet[1].clone();
        plan(
            Sticky::new()
                .tolerance(odd)
                .movement_budget(odd)
                .capacity(id, odd),
        );
    }
    let clamped = plan(Sticky::new().tolerance(-3.0));
    assert_eq!(clamped, plan(Sticky::new().tolerance(0.0)));
}

#[test]
fn previous_plan_of_other_length_is_rejected() {
    let input = PlanInput {
        workers: &workers(0..2),
        partitions: &fleets::partitions("equal", 3),
        previous: &[None; 2],
    };
    let error = Sticky::new().assign(&input).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

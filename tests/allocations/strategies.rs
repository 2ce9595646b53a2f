//! The allocations of a strategy call.

use divvy::strategy::{
    ConsistentHash, PlanInput, RoundRobin, Sticky, Strategy, WeightedConsistentHash,
};

use crate::fleets::{Fleet, workers};
use crate::measure;

/// Returns the allocations of one call and the maximum of the allocated bytes, when one worker
/// joins.
fn measure_plan(
    strategy: &dyn Strategy,
    kind: &str,
    worker_count: usize,
    count: usize,
) -> (u64, i64) {
    let mut fleet = Fleet::new(kind, worker_count, count);
    fleet.step(&Sticky::new(), workers(0..worker_count));
    fleet.workers = workers(0..worker_count + 1);
    let previous = fleet.previous();
    let input = PlanInput {
        workers: &fleet.workers,
        partitions: &fleet.partitions,
        previous: &previous,
    };
    let mut plan = None;
    let measured = measure(|| plan = Some(strategy.assign(&input).unwrap()));
    assert_eq!(plan.map(|plan| plan.len()), Some(count));
    measured
}

#[test]
fn allocations_depend_on_workers_not_partitions_and_memory_stays_bounded() {
    let strategies: [&dyn Strategy; 4] = [
        &RoundRobin,
        &ConsistentHash::new(),
        &WeightedConsistentHash::new(),
        &Sticky::new(),
    ];
    for strategy in strategies {
        for kind in ["equal", "spread", "heavy"] {
            let (few, _) = measure_plan(strategy, kind, 50, 5_000);
            let (many, _) = measure_plan(strategy, kind, 50, 80_000);
            let name = strategy.name();
            let limit = 100 + 12 * 50;
            assert!(
                few <= limit && many <= limit,
                "{name} {kind}: {few}, {many}"
            );
        }
    }
    let (_, peak) = measure_plan(&Sticky::new(), "heavy", 10_000, 1_000_000);
    println!(
        "sticky, 10 000 x 1 000 000: {} MB at most",
        peak / 1_000_000
    );
    assert!(peak < 500_000_000, "{peak} bytes");
}

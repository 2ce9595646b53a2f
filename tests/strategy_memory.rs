//! What a call of a strategy allocates.

#[path = "support/fleets.rs"]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use divvy::strategy::{
    ConsistentHash, Input, RoundRobin, Sticky, Strategy, WeightedConsistentHash,
};
use support::{Fleet, workers};

/// Counts allocations, and the bytes held now and at most.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(held, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations of one call and the bytes it holds at most, for one worker more than before.
fn measure(
    strategy: &dyn Strategy,
    kind: &str,
    worker_count: usize,
    count: usize,
) -> (usize, usize) {
    let mut fleet = Fleet::new(kind, worker_count, count);
    fleet.step(&Sticky::new(), workers(0..worker_count));
    fleet.workers = workers(0..worker_count + 1);
    let previous = fleet.previous();
    let input = Input {
        workers: &fleet.workers,
        partitions: &fleet.partitions,
        previous: &previous,
    };
    let (allocations, held) = (ALLOCATIONS.load(Relaxed), HELD.load(Relaxed));
    PEAK.store(held, Relaxed);
    let plan = strategy.assign(&input).unwrap();
    assert_eq!(plan.len(), count);
    (
        ALLOCATIONS.load(Relaxed) - allocations,
        PEAK.load(Relaxed) - held,
    )
}

// One test, as the counters are the process's own.
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
            let (few, _) = measure(strategy, kind, 50, 5_000);
            let (many, _) = measure(strategy, kind, 50, 80_000);
            let name = strategy.name();
            let limit = 100 + 12 * 50;
            assert!(
                few <= limit && many <= limit,
                "{name} {kind}: {few}, {many}"
            );
        }
    }
    let (_, peak) = measure(&Sticky::new(), "heavy", 10_000, 1_000_000);
    println!(
        "sticky, 10 000 x 1 000 000: {} MB at most",
        peak / 1_000_000
    );
    assert!(peak < 500_000_000, "{peak} bytes");
}

//! Counts allocations: a global allocator that counts per thread.

#[path = "../support/fleets.rs"]
mod fleets;

mod machine;
mod strategies;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

/// The allocations of one thread.
#[derive(Clone, Copy)]
struct Counts {
    allocations: u64,
    /// Bytes currently allocated. Negative in a thread that frees memory of another one.
    held: i64,
    /// Maximum of the bytes allocated at a time.
    peak: i64,
}

thread_local! {
    static COUNTS: Cell<Counts> = const {
        Cell::new(Counts { allocations: 0, held: 0, peak: 0 })
    };
}

/// The system allocator with counters.
struct Counting;

/// Fails only while a thread ends, when its counts are no longer read.
fn count(update: impl FnOnce(&mut Counts)) {
    let _ = COUNTS.try_with(|cell| {
        let mut counts = cell.get();
        update(&mut counts);
        counts.peak = counts.peak.max(counts.held);
        cell.set(counts);
    });
}

/// No allocation is larger than `isize::MAX` bytes.
const fn bytes(size: usize) -> i64 {
    size as i64
}

// SAFETY: every call is passed to the system allocator unchanged; counting does not touch its
// memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(|counts| {
            counts.allocations += 1;
            counts.held += bytes(layout.size());
        });
        // SAFETY: as the caller of this function promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(|counts| counts.held -= bytes(layout.size()));
        // SAFETY: as the caller of this function promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both blocks may exist while the system copies.
        count(|counts| {
            counts.allocations += 1;
            counts.held += bytes(size);
        });
        count(|counts| counts.held -= bytes(layout.size()));
        // SAFETY: as the caller of this function promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns how often `work` allocates, and the maximum number of bytes at a time.
fn measure(work: impl FnOnce()) -> (u64, i64) {
    let before = COUNTS.get();
    count(|counts| counts.peak = counts.held);
    work();
    let after = COUNTS.get();
    (
        after.allocations - before.allocations,
        after.peak - before.held,
    )
}

/// Returns how often `work` allocates.
fn allocations(work: impl FnOnce()) -> u64 {
    measure(work).0
}

#[test]
fn counters_track_allocations_and_peak_bytes() {
    assert_eq!(measure(|| drop(black_box(Box::new(7_u64)))), (1, 8));
    let grow = || {
        let mut grown = Vec::<u8>::with_capacity(100);
        grown.push(1);
        grown.reserve_exact(149);
        black_box(grown);
        black_box(Box::new([0_u8; 50]));
    };
    assert_eq!(measure(grow), (3, 250));
}

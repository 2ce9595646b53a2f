//! CPU time of the strategies: single thread, cold. Each figure is followed by its multiple of one
//! pass that hashes the keys of every partition, measured in the same run. `cargo bench --bench
//! strategy`.

#[path = "../tests/support/fleets.rs"]
mod support;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion};
use divvy::strategy::{
    ConsistentHash, PlanInput, Sticky, Strategy, WeightedConsistentHash, hash_keys,
};
use support::{Fleet, workers};

struct Case {
    name: &'static str,
    strategy: Box<dyn Strategy>,
    kind: &'static str,
    workers: usize,
    partitions: usize,
    /// Workers added to the fleet of the previous plan; `None`: no previous plan.
    added: Option<usize>,
    target: Duration,
}

fn cases() -> Vec<Case> {
    let case = |name, strategy, kind, workers, partitions, added, micros| Case {
        name,
        strategy,
        kind,
        workers,
        partitions,
        added,
        target: Duration::from_micros(micros),
    };
    let hash = || Box::new(ConsistentHash::new());
    let weighted = || Box::new(WeightedConsistentHash::new());
    let sticky = || Box::new(Sticky::new());
    vec![
        case(
            "consistent_hash 128 x 10 000",
            hash(),
            "equal",
            128,
            10_000,
            None,
            700,
        ),
        case(
            "consistent_hash 1 000 x 100 000",
            hash(),
            "equal",
            1_000,
            100_000,
            None,
            6_000,
        ),
        case(
            "weighted_consistent_hash equal",
            weighted(),
            "equal",
            1_000,
            100_000,
            None,
            7_000,
        ),
        case(
            "weighted_consistent_hash heavy",
            weighted(),
            "heavy",
            1_000,
            100_000,
            None,
            7_000,
        ),
        case(
            "sticky +1 equal",
            sticky(),
            "equal",
            1_000,
            100_000,
            Some(1),
            10_000,
        ),
        case(
            "sticky +1 spread",
            sticky(),
            "spread",
            1_000,
            100_000,
            Some(1),
            30_000,
        ),
        case(
            "sticky +1 heavy",
            sticky(),
            "heavy",
            1_000,
            100_000,
            Some(1),
            30_000,
        ),
        case(
            "sticky unchanged equal",
            sticky(),
            "equal",
            1_000,
            100_000,
            Some(0),
            3_000,
        ),
        case(
            "sticky unchanged heavy",
            sticky(),
            "heavy",
            1_000,
            100_000,
            Some(0),
            3_000,
        ),
        case(
            "sticky fresh heavy",
            sticky(),
            "heavy",
            1_000,
            100_000,
            None,
            100_000,
        ),
        case(
            "sticky +1 equal, 1 000 000",
            sticky(),
            "equal",
            10_000,
            1_000_000,
            Some(1),
            1_000_000,
        ),
        case(
            "sticky +1 heavy, 1 000 000",
            sticky(),
            "heavy",
            10_000,
            1_000_000,
            Some(1),
            1_000_000,
        ),
    ]
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut rows = Vec::new();
    for case in cases() {
        let mut fleet = Fleet::new(case.kind, case.workers, case.partitions);
        if let Some(added) = case.added {
            fleet.step(&Sticky::new(), workers(0..case.workers));
            fleet.workers = workers(0..case.workers + added);
        }
        let previous = fleet.previous();
        let input = PlanInput {
            workers: &fleet.workers,
            partitions: &fleet.partitions,
            previous: &previous,
        };
        let plan = || case.strategy.assign(black_box(&input)).unwrap();
        criterion.bench_function(case.name, |bencher| {
            bencher.iter_batched(|| (), |()| plan(), BatchSize::PerIteration);
        });
        let hash_pass = || {
            let hashes = fleet.partitions.iter().map(|p| hash_keys(&p.keys, 0));
            hashes.fold(0, |all, hash| all ^ hash)
        };
        // Alternated, so that a noisy machine affects both alike.
        let mut times: Vec<(Duration, Duration)> =
            (0..15).map(|_| (time(plan), time(hash_pass))).collect();
        times.sort();
        let own = times[7].0;
        times.sort_by_key(|(_, pass)| *pass);
        rows.push((case, own, times[7].1));
    }
    println!(
        "\n{:34}{:>10}{:>10}{:>12}{:>8}",
        "median", "cpu time", "target", "a partition", "passes"
    );
    for (case, own, pass) in rows {
        let each = own.as_nanos() as f64 / case.partitions as f64;
        let passes = own.as_secs_f64() / pass.as_secs_f64();
        let name = case.name;
        println!(
            "{name:34}{own:>10.2?}{:>10.2?}{each:>9.1} ns{passes:>8.2}",
            case.target
        );
    }
    criterion.final_summary();
}

/// Returns the CPU time of one run.
fn time<T>(run: impl Fn() -> T) -> Duration {
    let start = thread_time();
    black_box(run());
    thread_time() - start
}

fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes into the value that it is given, which lives throughout.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(
        status, 0,
        "this system has no clock for a thread's processor time"
    );
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

//! Fleets in virtual time, driven by a seed. Some simulations run the shipped machine, observer,
//! publisher and notifier on the memory store, with several concurrent leaders and every kind of
//! fault. Others run whole managers, which claim ids, elect a leader and apply assignments.
//!
//! `DIVVY_SEEDS=n DIVVY_START=first` selects the seeds. `DIVVY_SEED=s` replays one and prints its
//! trace. `make sim` does the same in release mode. A change of the simulation changes the run of a
//! seed, so a defect that a seed found is kept as a unit test of the machine.

mod chaos;
mod check;
mod fleet;
mod lines;
mod lockstep_publisher;
mod manager_invariants;
mod member;
mod node;
mod own_clock;
mod profiles;
mod scenario;
mod success;
mod world;

use std::num::NonZero;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chaos::Summary;
use world::{Tally, World};

const SEEDS: u64 = 2_000;
const MANAGERS_SEEDS: u64 = 480;

/// Situations that the seeds must reach in total.
const MET: [&str; 25] = [
    "watch_lost",
    "breaker closed",
    "breaker opened",
    "cold_start",
    "cold_start_final",
    "cold_start_immediate",
    "deposed write before the end of the take-over",
    "deposed write refused",
    "emergency",
    "foreign write resolved",
    "late write accepted",
    "late write refused",
    "leadership lost",
    "left",
    "list held back",
    "lost",
    "manual-refresh",
    "other fleet refused",
    "partition_change",
    "planned_scale",
    "publish",
    "read partitions",
    "restart",
    "several leaders",
    "take-over failed",
];

const MET_BY_MANAGERS: [&str; 25] = [
    "clock stopped",
    "cold_start_immediate",
    "cut off",
    "deposed write refused",
    "emergency",
    "frozen",
    "id lost",
    "id regained",
    "id stolen",
    "id taken over",
    "ids exhausted",
    "instance returned",
    "kept",
    "leader left",
    "leadership lost",
    "lease won",
    "parti deposed",
    "parti joins",
    "parti leads",
    "planned_scale",
    "restored",
    "something removed",
    "worker degraded",
    "worker recovered",
    "worker left",
];

/// Interval of the progress output of a long run.
const PROGRESS: Duration = Duration::from_secs(10);

/// Lines of the trace printed for a failed seed.
const TRACE_LINES: usize = 120;

/// The kind of simulation.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// The name of its test.
    test: &'static str,
    /// Default number of seeds.
    seeds: u64,
    begin: fn(u64, bool) -> World,
    run: fn(&mut World) -> Result<Summary, String>,
    /// Situations that the seeds must reach in total.
    met: &'static [&'static str],
}

const CALCULATORS: Kind = Kind {
    test: "calculators_stay_safe_under_faults_and_recover_after_them",
    seeds: SEEDS,
    begin: World::new,
    run: World::run,
    met: &MET,
};

const MANAGERS: Kind = Kind {
    test: "managers_keep_invariants_under_faults_and_recover_after_them",
    seeds: MANAGERS_SEEDS,
    begin: World::of_managers,
    run: World::run_lives,
    met: &MET_BY_MANAGERS,
};

#[test]
fn calculators_stay_safe_under_faults_and_recover_after_them() {
    run_or_replay(CALCULATORS);
}

#[test]
fn managers_keep_invariants_under_faults_and_recover_after_them() {
    run_or_replay(MANAGERS);
}

fn run_or_replay(kind: Kind) {
    if let Some(seed) = number("DIVVY_SEED") {
        return replay(kind, seed);
    }
    let seeds = number("DIVVY_SEEDS").unwrap_or(kind.seeds);
    let start = number("DIVVY_START").unwrap_or(0);
    run_seeds(kind, start..start + seeds);
}

#[test]
fn same_seed_yields_same_history() {
    for kind in [CALCULATORS, MANAGERS] {
        for seed in [1, 2, 3] {
            let first = simulate(kind, seed, true).result.expect("a good seed");
            let again = simulate(kind, seed, true).result.expect("a good seed");
            assert_eq!(first.fingerprint, again.fingerprint, "seed {seed}");
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
    )
}

/// Runs one seed.
struct Run {
    result: Result<Summary, String>,
    tally: Tally,
    trace: Vec<String>,
}

fn simulate(kind: Kind, seed: u64, tracing: bool) -> Run {
    let mut world = (kind.begin)(seed, tracing);
    let result = catch_unwind(AssertUnwindSafe(|| (kind.run)(&mut world)));
    world.note_ends();
    let trace = world.take_trace();
    let tally = std::mem::take(&mut world.tally);
    let result = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("without a message")))
    });
    Run {
        result,
        tally,
        trace,
    }
}

/// The results of many seeds.
#[derive(Default)]
struct Total {
    runs: u64,
    commits: u64,
    leaders: usize,
    slowest: f64,
    tally: Tally,
    reported: Option<Instant>,
}

impl Total {
    fn add(&mut self, summary: &Summary, tally: Tally, seeds: u64) {
        self.runs += 1;
        self.commits += summary.commits;
        self.leaders += summary.leaders;
        self.slowest = self.slowest.max(summary.recovery);
        for (what, count) in tally {
            *self.tally.entry(what).or_default() += count;
        }
        let reported = self.reported.get_or_insert_with(Instant::now);
        if reported.elapsed() >= PROGRESS {
            *reported = Instant::now();
            eprintln!("{} of {seeds} seeds", self.runs);
        }
    }
}

/// Runs the seeds on all cores. Fails with the trace of the lowest failed seed.
fn run_seeds(kind: Kind, seeds: Range<u64>) {
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicU64::new(u64::MAX);
    let total = Mutex::new(Total::default());
    let started = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || seed > failed.load(Ordering::Relaxed) {
                return;
            }
            let run = simulate(kind, seed, false);
            match run.result {
                Ok(summary) => {
                    let mut total = total.lock().expect("the totals");
                    total.add(&summary, run.tally, seeds.end - seeds.start);
                }
                Err(_) => {
                    failed.fetch_min(seed, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner();
    if failed != u64::MAX {
        return replay(kind, failed);
    }
    let total = total.into_inner().expect("the totals");
    eprintln!(
        "{} seeds in {:.1} s: {} commits by {} leaders, slowest recovery {:.0} % of its bound",
        total.runs,
        started.elapsed().as_secs_f64(),
        total.commits,
        total.leaders,
        total.slowest * 100.0
    );
    eprintln!("{:?}", total.tally);
    assert_eq!(total.runs, seeds.end - seeds.start);
    // The seeds prove nothing if they never reach these situations.
    if total.runs >= kind.seeds.min(500) {
        for what in kind.met {
            assert!(
                total.tally.contains_key(*what),
                "no seed has reached: {what}"
            );
        }
    }
}

/// Runs one seed and prints its trace. Fails if the seed fails.
fn replay(kind: Kind, seed: u64) {
    let Run { result, trace, .. } = simulate(kind, seed, true);
    let lines = match std::env::var("DIVVY_TRACE") {
        Ok(_) => trace.len(),
        Err(_) => TRACE_LINES.min(trace.len()),
    };
    for line in &trace[trace.len() - lines..] {
        println!("{line}");
    }
    match result {
        Ok(summary) => println!("seed {seed} holds: {summary:?}"),
        Err(why) => panic!(
            "seed {seed} at commit {}: {why}\nreplay: DIVVY_SEED={seed} cargo test --release --test sim -- --nocapture {}",
            commit(),
            kind.test
        ),
    }
}

fn commit() -> String {
    let output = std::process::Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let text = output.ok().filter(|output| output.status.success());
    text.map_or_else(
        || "unknown".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

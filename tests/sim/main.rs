//! Fleets in virtual time, driven by a seed: the shipped machine, observer, publisher and hub on
//! the memory store, with several leaders alive at once and faults of every kind; and fleets of
//! whole managers, which claim ids, elect their leader and apply what it publishes.
//!
//! `DIVVY_SEEDS=n DIVVY_START=first` chooses how many and which; `DIVVY_SEED=s` replays one with
//! its trace. `make sim` does the same in release mode. Another simulation makes another history
//! of the same seed: what a seed has found is kept as a unit test of the machine.

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
const MANAGERS_SEEDS: u64 = 240;

/// What many seeds together must have met.
const MET: [&str; 23] = [
    "blind",
    "breaker closed",
    "breaker opened",
    "cold_start",
    "cold_start_final",
    "cold_start_immediate",
    "deposed write before the take-over's end",
    "deposed write refused",
    "emergency",
    "foreign write settled",
    "late write accepted",
    "late write refused",
    "leadership lost",
    "left",
    "lost",
    "manual-refresh",
    "partition_change",
    "planned_scale",
    "publish",
    "read partitions",
    "restart",
    "several leaders",
    "take-over failed",
];

const MET_BY_MANAGERS: [&str; 23] = [
    "clock stopped",
    "cold_start_immediate",
    "cut off",
    "deposed write refused",
    "emergency",
    "frozen",
    "id lost",
    "id regained",
    "id stolen",
    "ids exhausted",
    "kept",
    "leader took its leave",
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
    "worker took its leave",
];

/// How often a long run says how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// Lines of trace told of a seed that fails.
const TRACE_LINES: usize = 120;

/// What is simulated.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// The test that runs it.
    test: &'static str,
    /// How many seeds are run unless told otherwise.
    seeds: u64,
    begin: fn(u64, bool) -> World,
    run: fn(&mut World) -> Result<Summary, String>,
    /// What many seeds together must have met.
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
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

/// One seed's run.
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

/// What a run of many seeds came to.
#[derive(Default)]
struct Total {
    runs: u64,
    commits: u64,
    leaders: usize,
    slowest: f64,
    tally: Tally,
    told: Option<Instant>,
}

impl Total {
    fn take_in(&mut self, summary: &Summary, tally: Tally, seeds: u64) {
        self.runs += 1;
        self.commits += summary.commits;
        self.leaders += summary.leaders;
        self.slowest = self.slowest.max(summary.recovery);
        for (what, count) in tally {
            *self.tally.entry(what).or_default() += count;
        }
        let told = self.told.get_or_insert_with(Instant::now);
        if told.elapsed() >= PROGRESS {
            *told = Instant::now();
            eprintln!("{} of {seeds} seeds", self.runs);
        }
    }
}

/// Runs the seeds on all cores; the lowest that fails is told with its trace.
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
                    total.take_in(&summary, run.tally, seeds.end - seeds.start);
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
    // So many seeds that do not meet what they are there for would prove nothing.
    if total.runs >= kind.seeds.min(500) {
        for what in kind.met {
            assert!(total.tally.contains_key(*what), "no seed has met: {what}");
        }
    }
}

/// Runs one seed and tells its trace; fails when the seed does.
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

//! Fleets in virtual time, driven by a seed: the shipped machine, observer, publisher and hub on
//! the memory store, with several leaders alive at once and faults of every kind.
//!
//! `DIVVY_SEEDS=n DIVVY_START=first` chooses how many and which; `DIVVY_SEED=s` replays one with
//! its trace. `make sim` does the same in release mode.

mod baton;
mod chaos;
mod check;
mod fleet;
mod node;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chaos::Summary;
use world::World;

const SEEDS: u64 = 2_000;

/// How often a long run says how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// Lines of trace told of a seed that fails.
const TRACE_LINES: usize = 120;

#[test]
fn fleets_stay_safe_under_faults_and_recover_after_them() {
    if let Some(seed) = number("DIVVY_SEED") {
        return replay(seed);
    }
    let seeds = number("DIVVY_SEEDS").unwrap_or(SEEDS);
    let start = number("DIVVY_START").unwrap_or(0);
    run_seeds(start..start + seeds);
}

#[test]
fn the_same_seed_leads_to_the_same_history() {
    for seed in [1, 2, 3] {
        let first = simulate(seed, true).0.expect("a good seed");
        let again = simulate(seed, true).0.expect("a good seed");
        assert_eq!(first.fingerprint, again.fingerprint, "seed {seed}");
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

fn simulate(seed: u64, tracing: bool) -> (Result<Summary, String>, Vec<String>) {
    let mut world = World::new(seed, tracing);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    world.note_ends();
    let trace = world.take_trace();
    let result = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("without a message")))
    });
    (result, trace)
}

/// Runs the seeds on all cores; the lowest that fails is told with its trace.
fn run_seeds(seeds: std::ops::Range<u64>) {
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicU64::new(u64::MAX);
    let total = Mutex::new((0_u64, 0_u64, 0_usize, 0.0_f64));
    let started = Instant::now();
    let told = Mutex::new(started);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || seed > failed.load(Ordering::Relaxed) {
                        return;
                    }
                    match simulate(seed, false).0 {
                        Ok(summary) => {
                            let mut total = total.lock().expect("the totals");
                            total.0 += 1;
                            total.1 += summary.commits;
                            total.2 += summary.leaders;
                            total.3 = total.3.max(summary.recovery);
                        }
                        Err(_) => {
                            failed.fetch_min(seed, Ordering::Relaxed);
                        }
                    }
                    let mut told = told.lock().expect("the time of the last progress");
                    if told.elapsed() >= PROGRESS {
                        *told = Instant::now();
                        let done = seed - seeds.start + 1;
                        eprintln!("{done} of {} seeds", seeds.end - seeds.start);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    if failed != u64::MAX {
        return replay(failed);
    }
    let (runs, commits, leaders, recovery) = *total.lock().expect("the totals");
    eprintln!(
        "{runs} seeds in {:.1} s: {commits} commits by {leaders} leaders, slowest recovery {:.0} % of its bound",
        started.elapsed().as_secs_f64(),
        recovery * 100.0
    );
    // A run without commits would prove nothing.
    assert!(runs == seeds.end - seeds.start && commits >= runs);
}

/// Runs one seed and tells its trace; fails when the seed does.
fn replay(seed: u64) {
    let (result, trace) = simulate(seed, true);
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
            "seed {seed} at commit {}: {why}\nreplay: DIVVY_SEED={seed} cargo test --release --test sim -- --nocapture",
            commit()
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

//! Nothing leaks, and nothing grows.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use divvy::error::Code;
use divvy::store::memory::{Blackout, MemoryStore};
use divvy::{Calculator, EventFilter};

use crate::support::calculators::*;
use crate::support::tasks::tasks;
use crate::support::usage::usage;
use crate::{all_threads, alone, calculator, leader, own_threads};

const ALL: [&str; 5] = [
    "dv-calc",
    "dv-notify",
    "dv-publish",
    "dv-source",
    "dv-watch",
];

/// A thread sets its name some time after it was started.
fn wait_for_all_threads() {
    wait_until("five named threads", || own_threads() == ALL);
}

#[test]
fn start_creates_five_named_threads_and_stop_joins_them() {
    let _alone = alone();
    let store = store();
    let calculator = calculator(&store);
    for _ in 0..3 {
        assert_eq!(own_threads(), [""; 0]);
        calculator.start(TIMEOUT).unwrap();
        wait_for_all_threads();
        calculator.stop(TIMEOUT).unwrap();
    }
    assert_eq!(own_threads(), [""; 0]);
}

#[test]
fn every_own_thread_blocks_every_blockable_signal() {
    let _alone = alone();
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1"]);
    let calculator = calculator(&store);
    wait_for_publication(&started(&calculator));
    wait_for_all_threads();
    let mut seen = 0;
    for (name, path) in tasks("dv-") {
        let status = fs::read_to_string(path.join("status")).unwrap();
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigBlk:"))
            .expect("a mask");
        let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
        for signal in [
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGHUP,
            libc::SIGPIPE,
            libc::SIGCHLD,
            libc::SIGUSR1,
            libc::SIGUSR2,
            libc::SIGALRM,
            libc::SIGPROF,
        ] {
            assert!(mask & (1 << (signal - 1)) != 0, "{name}: signal {signal}");
        }
        seen += 1;
    }
    assert!(seen >= ALL.len(), "{seen}");
}

#[test]
fn failed_start_leaves_no_thread() {
    let _alone = alone();
    let store = store();
    let leader = leader(&store);
    let calculator = Calculator::builder(Arc::new(leader.clone()))
        .config(config())
        .source(|| Ok(partitions(1)))
        .build()
        .unwrap();
    for how in [Blackout::Refuse, Blackout::Hang] {
        leader.faults().blackout(how);
        calculator.start(Duration::from_millis(50)).unwrap_err();
        assert_eq!(own_threads(), [""; 0], "{how:?}");
    }
}

#[test]
fn dropped_handle_leaves_no_thread() {
    let _alone = alone();
    let store = store();
    let calculator = calculator(&store);
    calculator.start(TIMEOUT).unwrap();
    drop(calculator);
    assert_eq!(own_threads(), [""; 0]);
}

fn life(store: &MemoryStore, calculator: &Calculator) {
    let unsubscribed = calculator.subscribe(EventFilter::StateAndMembers, |_| {});
    calculator.subscribe(EventFilter::State, |_| {}).forever();
    let events = calculator.events(EventFilter::State);
    calculator.start(TIMEOUT).unwrap();
    beat(store, "w-1");
    calculator.trigger_rebalance(TIMEOUT).ok();
    unsubscribed.unsubscribe(TIMEOUT).unwrap();
    calculator.stop(TIMEOUT).unwrap();
    assert!(events.count() >= 1);
}

#[test]
fn thousand_starts_and_stops_keep_threads_descriptors_and_memory_flat() {
    let _alone = alone();
    let store = store();
    let leader = leader(&store);
    let calculator = Calculator::builder(Arc::new(leader))
        .config(config())
        .source(|| Ok(partitions(10)))
        .build()
        .unwrap();
    for _ in 0..200 {
        life(&store, &calculator);
    }
    let (before, threads) = (usage(), all_threads());
    for _ in 0..1_000 {
        life(&store, &calculator);
    }
    let after = usage();
    assert_eq!(all_threads(), threads);
    assert_eq!(after.descriptors, before.descriptors);
    let grown = after.resident_kib.saturating_sub(before.resident_kib);
    println!("grown by {grown} KiB in 1 000 lifecycles");
    // Less than 1 KiB per lifecycle: a leaked thread or subscriber costs more.
    assert!(grown < 1_000, "{grown} KiB");
}

#[test]
fn thousand_handles_keep_memory_flat() {
    let _alone = alone();
    let store = store();
    let round = || {
        let calculator = calculator(&store);
        life(&store, &calculator);
    };
    (0..200).for_each(|_| round());
    let (before, threads) = (usage(), all_threads());
    (0..1_000).for_each(|_| round());
    let after = usage();
    assert_eq!(all_threads(), threads);
    let grown = after.resident_kib.saturating_sub(before.resident_kib);
    assert!(grown < 1_000, "{grown} KiB");
}

const LIMITED: &str = "DIVVY_TEST_ROOM_FOR_STACKS";

/// Symptom: a start hung forever if the system could not create another thread. Cause: it cleaned
/// up while it held the lock that the cleanup needs.
#[test]
fn failed_thread_spawn_is_reported_and_leaves_nothing() {
    let _alone = alone();
    let name = "resources::process_with_room_for_few_threads";
    for stacks in 0..4 {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                name,
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(LIMITED, stacks.to_string())
            .env("RUST_MIN_STACK", STACK.to_string())
            .output()
            .unwrap();
        let reported = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{stacks}: {child:?}");
        assert!(
            reported.contains("rejected as expected"),
            "{stacks}: {reported}"
        );
    }
}

/// Run by the test above in its own process.
#[test]
#[ignore = "limits the memory of its process; another test runs it"]
fn process_with_room_for_few_threads() {
    let Ok(stacks) = std::env::var(LIMITED) else {
        return;
    };
    let stacks: u64 = stacks.parse().unwrap();
    let store = store();
    let calculator = calculator(&store);
    // Create everything that is created once before the limit is set.
    life(&store, &calculator);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let size = status
        .lines()
        .find_map(|line| line.strip_prefix("VmSize:"))
        .and_then(|text| {
            text.trim()
                .trim_end_matches("kB")
                .trim()
                .parse::<u64>()
                .ok()
        })
        .expect("a size");
    // glibc keeps and reuses the stacks of ended threads, up to 40 MiB. Only larger ones are
    // certain to be new; see RUST_MIN_STACK in the shell that runs this.
    let limit = |bytes: u64| {
        let limit = libc::rlimit {
            rlim_cur: bytes,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: the structure lifecycles on this stack and is only read.
        let status = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
        assert_eq!(status, 0);
    };
    limit(size * 1024 + (stacks * STACK + STACK / 2));
    let result = calculator.start(TIMEOUT);
    limit(libc::RLIM_INFINITY);
    let error = result.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(
        error.to_string().contains("cannot start thread dv-"),
        "{error}"
    );
    assert_eq!(own_threads(), [""; 0]);
    assert!(!calculator.is_started());
    calculator.start(TIMEOUT).unwrap();
    wait_for_all_threads();
    println!("rejected as expected: {error}");
}

/// Larger than the stacks that glibc keeps of ended threads.
const STACK: u64 = 48 << 20;

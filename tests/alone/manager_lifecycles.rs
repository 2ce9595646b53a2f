//! Lifecycles of managers leave nothing behind: no thread, no descriptor, no memory. `make cycles`
//! runs thousands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use divvy::store::memory::MemoryStore;
use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::{Departure, Manager, ManagerConfig, ManagerEventFilter};

use crate::alone;
use crate::support::managers::{self, TIMEOUT, manager_over, wait_until};
use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::Server;
use crate::support::usage::usage;

const PARTITIONS: usize = 12;

/// Number of memory samples.
const SAMPLES: usize = 10;

/// The number of lifecycles: few by default, or as many as the environment says.
fn lifecycles(variable: &str, few: usize) -> usize {
    let asked = std::env::var(variable).ok();
    asked.map_or(few, |text| text.parse().expect("a number"))
}

/// The shortest valid times, so that a lifecycle consists of work and not of waiting.
fn config() -> ManagerConfig {
    let mut config = managers::config();
    let calculator = &mut config.calculator;
    calculator.cooldown = Duration::from_millis(2);
    calculator.cold_start_window = Duration::from_millis(2);
    calculator.planned_scale_window = Duration::from_millis(2);
    calculator.join_coalescing = Duration::from_millis(1);
    config
}

/// Runs one lifecycle with every kind of subscriber and a calculator in between.
fn live(manager: &Manager, departure: Departure) {
    let subscription = manager.subscribe(ManagerEventFilter::WorkerAndCalculator, |_| {});
    manager
        .subscribe(ManagerEventFilter::Worker, |_| {})
        .forever();
    let events = manager.events(ManagerEventFilter::Assignment);
    manager.start(TIMEOUT).unwrap();
    wait_until("it leads and holds everything", || {
        manager.is_leader() && manager.assignment().partitions.len() == PARTITIONS
    });
    drop(subscription);
    manager.stop(departure, TIMEOUT).unwrap();
    assert!(events.count() >= 1);
}

/// Every fourth is a restart: the next lifecycle has the same id.
fn departure(life: usize) -> Departure {
    match life % 4 {
        3 => Departure::Restart,
        _ => Departure::Leave,
    }
}

fn median(some: &mut [usize]) -> usize {
    some.sort_unstable();
    some[some.len() / 2]
}

/// Runs the lifecycles after a warm-up, and checks what they leave behind.
fn stay_flat(what: &str, lifecycles: usize, mut live: impl FnMut(usize)) {
    let warm_up = (lifecycles / 10).max(20);
    for number in 0..warm_up {
        live(number);
    }
    let before = usage();
    let began = Instant::now();
    let mut resident = Vec::new();
    for number in 0..lifecycles {
        live(number);
        if (number + 1) * SAMPLES / lifecycles > resident.len() {
            resident.push(usage().resident_kib);
        }
    }
    assert_eq!(resident.len(), SAMPLES, "too few lifecycles");
    // The kernel removes a thread from its list a moment after it was joined.
    wait_until("threads and descriptors as before", || {
        let now = usage();
        now.threads <= before.threads && now.descriptors <= before.descriptors
    });
    let after = usage();
    // The memory kept by the allocator varies.
    let (first, last) = resident.split_at_mut(SAMPLES / 2);
    let grown = median(last).saturating_sub(median(first));
    println!(
        "{what}: {lifecycles} lifecycles in {:.0?}: threads {} -> {}, descriptors {} -> {}, KiB {} -> {}",
        began.elapsed(),
        before.threads,
        after.threads,
        before.descriptors,
        after.descriptors,
        median(first),
        median(last)
    );
    // A leaked thread or subscriber costs more than 1 KiB per lifecycle.
    let most = 1_000 + lifecycles / 10;
    assert!(grown < most, "{grown} KiB after {lifecycles} lifecycles");
}

#[test]
fn lifecycles_on_memory_store_keep_threads_descriptors_and_memory_flat() {
    let _alone = alone();
    let store = MemoryStore::new();
    let again = manager_over(store.client("again"), config(), PARTITIONS);
    stay_flat("memory", lifecycles("DIVVY_LIFECYCLES", 50), |number| {
        if number % 2 == 0 {
            let once = manager_over(store.client("once"), config(), PARTITIONS);
            live(&once, departure(number));
        } else {
            live(&again, departure(number));
        }
    });
}

#[test]
fn lifecycles_on_server_keep_threads_descriptors_and_memory_flat() {
    let _alone = alone();
    let server = Server::start(NEWEST);
    stay_flat("NATS", lifecycles("DIVVY_NATS_LIFECYCLES", 25), |number| {
        let options = NatsOptions::new([server.url()]);
        let store = NatsStore::connect(options, Instant::now() + TIMEOUT).unwrap();
        let store = Arc::new(store);
        let manager = Manager::builder(Arc::clone(&store) as _)
            .config(config())
            .source(|| Ok(managers::partitions(PARTITIONS)))
            .build()
            .unwrap();
        live(&manager, departure(number));
        drop(manager);
        divvy::store::Store::stop(&*store, Instant::now() + TIMEOUT).unwrap();
    });
}

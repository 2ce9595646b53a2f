//! Tests that need the process exclusively, one at a time: they count its threads, descriptors or
//! memory, install its logger, or load the machine so much that other tests would miss their
//! deadlines.
//!
//! Each test begins with [`alone`].
#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "nats")]
mod hostile_greetings;
#[cfg(feature = "nats")]
mod id_pool;
mod logger;
#[cfg(feature = "nats")]
mod manager_lifecycles;
mod manager_threads;
#[cfg(feature = "nats")]
mod nats_lifecycle;
#[cfg(feature = "nats")]
mod outages;
mod panics;
mod resources;
#[cfg(feature = "nats")]
mod secrets;
mod slow_logger;
#[cfg(feature = "nats")]
mod store_cancel;

use std::time::Duration;

use divvy::Calculator;
use divvy::store::memory::MemoryStore;
use divvy::store::{Bucket, Store};
use parking_lot::{Mutex, MutexGuard};

use crate::support::calculators::{self, wait_until};
use crate::support::tasks::tasks;

/// Waits until the calling test may run. Its turn ends when the guard is dropped.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let guard = TURN.lock();
    wait_until("no thread of an earlier test", || own_threads().is_empty());
    // The harness replaces the thread of the previous test, which is counted too.
    wait_until("the threads of the harness", || {
        let before = all_threads();
        std::thread::sleep(Duration::from_millis(20));
        all_threads() == before
    });
    guard
}

/// A client of the store whose thread runs and has set its name. Until then the thread has the name
/// of its creator, `dv-watch`.
fn leader(store: &MemoryStore) -> MemoryStore {
    let running = || threads("dv-memory").len();
    let before = running();
    let client = store.client("leader");
    drop(client.watch(Bucket::Heartbeat, "").unwrap());
    wait_until("the store's thread", || running() > before);
    client
}

/// A calculator with ten partitions over such a client.
fn calculator(store: &MemoryStore) -> Calculator {
    calculators::calculator_over(leader(store))
}

/// Returns the threads of the calculator, without those of the store, sorted.
fn own_threads() -> Vec<String> {
    let mut names = threads("dv-");
    names.retain(|name| name != "dv-memory");
    names
}

/// Returns the library threads of the process, including those of the host and the store, sorted.
fn all_threads() -> Vec<String> {
    threads("")
}

fn threads(prefix: &str) -> Vec<String> {
    let mut names: Vec<_> = tasks(prefix).into_iter().map(|(name, _)| name).collect();
    names.sort();
    names
}

//! Tests that need the process to themselves, one at a time: they count its threads, descriptors
//! or memory, install its logger, or load the machine so that others would miss their deadlines.
//!
//! Each test begins with [`alone`].
#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "nats")]
mod id_pool;
mod logger;
#[cfg(feature = "nats")]
mod manager_lives;
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

/// Waits for the turn of the calling test, which lasts until the guard is dropped.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let guard = TURN.lock();
    wait_until("no thread of an earlier test", || own_threads().is_empty());
    // The harness replaces the thread of the test before this one, which is counted, too.
    wait_until("the threads of the harness", || {
        let before = all_threads();
        std::thread::sleep(Duration::from_millis(20));
        all_threads() == before
    });
    guard
}

/// A client of the store whose own thread runs and has its name. Until a thread gives itself one it
/// has that of the thread that started it: `dv-watch`.
fn leader(store: &MemoryStore) -> MemoryStore {
    let running = || threads("dv-memory").len();
    let before = running();
    let client = store.client("leader");
    drop(client.watch(Bucket::Heartbeat, "").unwrap());
    wait_until("the store's thread", || running() > before);
    client
}

/// A calculator over such a client, with ten partitions.
fn calculator(store: &MemoryStore) -> Calculator {
    calculators::calculator_over(leader(store))
}

/// The calculator's own threads, sorted; the store's are not its own.
fn own_threads() -> Vec<String> {
    let mut names = threads("dv-");
    names.retain(|name| name != "dv-memory");
    names
}

/// Those of the process, sorted, the host's and the store's too.
fn all_threads() -> Vec<String> {
    threads("")
}

fn threads(prefix: &str) -> Vec<String> {
    let mut names: Vec<_> = tasks(prefix).into_iter().map(|(name, _)| name).collect();
    names.sort();
    names
}

//! The threads of calculators and managers, counted: a process of its own, one test at a time.
#![cfg(target_os = "linux")]

#[allow(dead_code)]
#[path = "../calculator/support.rs"]
mod support;
#[path = "../support/tasks.rs"]
mod tasks;
#[path = "../support/usage.rs"]
mod usage;

mod managers;
mod panics;
mod resources;

use divvy::Calculator;
use divvy::store::memory::MemoryStore;
use divvy::store::{Bucket, Store};
use parking_lot::{Mutex, MutexGuard};

use crate::support::wait_until;
use crate::tasks::tasks;

/// The tests look at the whole process, so they take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let guard = TURN.lock();
    wait_until("no thread of an earlier test", || own_threads().is_empty());
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
    support::calculator_over(leader(store))
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

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

use parking_lot::{Mutex, MutexGuard};

use crate::tasks::tasks;

/// The tests look at the whole process, so they take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let guard = TURN.lock();
    support::wait_until("no thread of an earlier test", || own_threads().is_empty());
    guard
}

/// The calculator's own threads, sorted; the store's are not its own.
fn own_threads() -> Vec<String> {
    let mut names: Vec<_> = tasks("dv-").into_iter().map(|(name, _)| name).collect();
    names.retain(|name| name != "dv-memory");
    names.sort();
    names
}

//! The threads of calculators and managers, counted: a process of its own, one test at a time.
#![cfg(target_os = "linux")]

#[allow(dead_code)]
#[path = "../calculator/support.rs"]
mod support;
#[path = "../support/usage.rs"]
mod usage;

mod managers;
mod panics;
mod resources;

use std::fs;

use parking_lot::{Mutex, MutexGuard};

/// The tests look at the whole process, so they take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let guard = TURN.lock();
    support::wait_until("no thread of an earlier test", || own_threads().is_empty());
    guard
}

/// The tasks of this process whose names begin with `dv-`, by name, with their folder.
fn own_tasks() -> Vec<(String, std::path::PathBuf)> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| {
            let path = task.unwrap().path();
            // A thread may end while it is looked at.
            let name = fs::read_to_string(path.join("comm")).ok()?;
            if is_exiting(&path) {
                return None;
            }
            Some((name.trim().to_owned(), path))
        })
        .filter(|(name, _)| name.starts_with("dv-"))
        .collect()
}

/// Whether the thread runs nothing of ours any more: the kernel wakes who joins it a moment before
/// it takes the thread off the list.
fn is_exiting(task: &std::path::Path) -> bool {
    const PF_EXITING: u64 = 4;
    let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
    let flags = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().nth(6));
    flags
        .and_then(|flags| flags.parse().ok())
        .is_none_or(|flags: u64| flags & PF_EXITING != 0)
}

/// The calculator's own threads, sorted; the store's are not its own.
fn own_threads() -> Vec<String> {
    let mut names: Vec<_> = own_tasks().into_iter().map(|(name, _)| name).collect();
    names.retain(|name| name != "dv-memory");
    names.sort();
    names
}

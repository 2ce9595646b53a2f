//! The threads of this process.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the threads whose names begin with this prefix, by name, with their folder.
pub fn tasks(prefix: &str) -> Vec<(String, PathBuf)> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| {
            let path = task.unwrap().path();
            // A thread may end during the check.
            let name = fs::read_to_string(path.join("comm")).ok()?;
            if is_exiting(&path) {
                return None;
            }
            Some((name.trim().to_owned(), path))
        })
        .filter(|(name, _)| name.starts_with(prefix))
        .collect()
}

/// Returns whether the thread has ended. The kernel wakes the joining thread a moment before it
/// removes the ended one from the list.
fn is_exiting(task: &Path) -> bool {
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

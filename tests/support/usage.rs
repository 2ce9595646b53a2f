//! Resources of this process that must not grow.

use std::fs;

use super::tasks::tasks;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub threads: usize,
    pub descriptors: usize,
    pub resident_kib: usize,
}

pub fn usage() -> Usage {
    let count = |path: &str| fs::read_dir(path).unwrap().count();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("a resident size");
    let number = resident.trim().trim_end_matches("kB").trim();
    Usage {
        threads: tasks("").len(),
        descriptors: count("/proc/self/fd"),
        resident_kib: number.parse().unwrap(),
    }
}

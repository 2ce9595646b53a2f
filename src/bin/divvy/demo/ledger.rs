//! What the demo did and saw, step by step, and whether it was what it expected.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use divvy::{Held, Partition, Reason, Version, WorkerId};

/// The owners of all partitions at one moment.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    of: BTreeMap<Vec<String>, Vec<WorkerId>>,
}

impl Owners {
    /// Built from the workers' assignments.
    pub fn of(held: &BTreeMap<WorkerId, Held>) -> Self {
        let mut of: BTreeMap<Vec<String>, Vec<WorkerId>> = BTreeMap::new();
        for (worker, held) in held {
            for partition in held.partitions.iter() {
                of.entry(partition.keys.clone())
                    .or_default()
                    .push(worker.clone());
            }
        }
        Self { of }
    }

    /// Partitions without an owner.
    pub fn unowned(&self, partitions: &[Partition]) -> usize {
        let is_unowned = |p: &&Partition| !self.of.contains_key(&p.keys);
        partitions.iter().filter(is_unowned).count()
    }

    /// Whether each of these partitions has exactly one owner, and there are no others.
    pub fn is_exact(&self, partitions: &[Partition]) -> bool {
        self.unowned(partitions) == 0
            && self.of.len() == partitions.len()
            && self.of.values().all(|owners| owners.len() == 1)
    }

    /// The partitions that had an owner before and have another one here, with this one.
    pub fn moved_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (&'a [String], &'a [WorkerId])> {
        let changed = self
            .of
            .iter()
            .filter(|(keys, owners)| before.of.get(*keys).is_some_and(|former| former != *owners));
        changed.map(|(keys, owners)| (keys.as_slice(), owners.as_slice()))
    }

    /// How many partitions these workers hold.
    pub fn count_of(&self, workers: &[WorkerId]) -> usize {
        let workers: BTreeSet<_> = workers.iter().collect();
        let is_theirs = |owners: &&Vec<WorkerId>| owners.iter().any(|o| workers.contains(o));
        self.of.values().filter(is_theirs).count()
    }
}

/// Something that was expected of a step.
#[derive(Clone, Debug)]
pub struct Check {
    /// What.
    pub text: String,
    /// Whether it came about.
    pub held: bool,
}

/// One publication.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// Its version.
    pub version: Version,
    /// Why it was made.
    pub reason: Reason,
    /// Number of moved partitions, as reported by the calculator.
    pub moved: usize,
}

/// One step of the demo.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Its name.
    pub title: &'static str,
    /// What happens and what is expected, in a sentence.
    pub story: String,
    /// What was published meanwhile.
    pub published: Vec<Published>,
    /// Number of moved partitions at its end, as seen by the workers.
    pub moved: usize,
    /// Partitions without an owner at its end.
    pub unowned: usize,
    /// What was expected.
    pub checks: Vec<Check>,
    /// Duration; `None` while it is running.
    pub took: Option<Duration>,
    /// Why it was left out, if it was.
    pub skipped: Option<String>,
}

impl Step {
    /// Whether everything expected so far came about.
    pub fn held(&self) -> bool {
        self.checks.iter().all(|check| check.held)
    }

    /// Partitions moved, as the calculators say.
    pub fn moved_by_leaders(&self) -> usize {
        self.published.iter().map(|p| p.moved).sum()
    }

    /// What was published, in a few words.
    pub fn publications(&self) -> String {
        if self.published.is_empty() {
            return "-".into();
        }
        let list: Vec<String> = self
            .published
            .iter()
            .map(|p| format!("v{} {}", p.version, p.reason))
            .collect();
        list.join(", ")
    }
}

/// All steps.
#[derive(Debug, Default)]
pub struct Ledger {
    /// In order; the last one may still be running.
    pub steps: Vec<Step>,
}

impl Ledger {
    /// The running step.
    pub fn current(&mut self) -> Option<&mut Step> {
        self.steps.last_mut().filter(|step| step.took.is_none())
    }

    /// Publications of all steps.
    pub fn publications(&self) -> usize {
        self.steps.iter().map(|s| s.published.len()).sum()
    }

    /// Partitions moved in all steps.
    pub fn moved(&self) -> usize {
        self.steps.iter().map(|s| s.moved).sum()
    }

    /// Checks that came about, and all checks.
    pub fn checks(&self) -> (usize, usize) {
        let all = || self.steps.iter().flat_map(|s| &s.checks);
        (all().filter(|c| c.held).count(), all().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> WorkerId {
        WorkerId::new(name).unwrap()
    }

    fn owners(list: &[(&str, &[&str])]) -> Owners {
        let held = list.iter().map(|(worker, partitions)| {
            let held = Held {
                partitions: partitions.iter().map(|p| Partition::new([*p], 1)).collect(),
                ..Held::default()
            };
            (id(worker), held)
        });
        Owners::of(&held.collect())
    }

    fn partitions(names: &[&str]) -> Vec<Partition> {
        names
            .iter()
            .map(|name| Partition::new([*name], 1))
            .collect()
    }

    #[test]
    fn gaps_duplicates_and_unknown_partitions_are_not_exact() {
        let all = partitions(&["a", "b"]);
        assert!(owners(&[("w-1", &["a"]), ("w-2", &["b"])]).is_exact(&all));
        assert!(!owners(&[("w-1", &["a"])]).is_exact(&all));
        assert!(!owners(&[("w-1", &["a", "b"]), ("w-2", &["b"])]).is_exact(&all));
        assert!(!owners(&[("w-1", &["a", "b", "c"])]).is_exact(&all));
        assert_eq!(owners(&[("w-1", &["a"])]).unowned(&all), 1);
    }

    #[test]
    fn moved_counts_only_owned_partitions_with_new_owner() {
        let before = owners(&[("w-1", &["a", "b"]), ("w-2", &["c"])]);
        let after = owners(&[("w-1", &["a"]), ("w-2", &["b", "c", "d"])]);
        let moved: Vec<_> = after.moved_since(&before).collect();
        assert_eq!(moved, [(&["b".to_owned()][..], &[id("w-2")][..])]);
        assert_eq!(after.count_of(&[id("w-2")]), 3);
    }
}

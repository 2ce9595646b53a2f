//! Which workers are configured differently from the leader.
//!
//! Runs on `dv-watch`, on the heartbeats that it observes anyway. A heartbeat that reports what the
//! one before it did costs one look-up.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use crate::types::{Time, WorkerId};
use crate::vocabulary::ConfigPart;
use crate::wire::{ConfigDigest, ConfigParts, hex};

/// A worker whose configuration differs from the leader's, or does no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigMismatch {
    /// The worker.
    pub worker: WorkerId,
    /// What differs; empty: it agrees with the leader again.
    pub parts: ConfigParts,
    /// The digests of the leader.
    pub leader: ConfigDigest,
    /// The digests that the worker reports.
    pub reported: ConfigDigest,
}

impl fmt::Display for ConfigMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.parts.is_empty() {
            return write!(f, "{} is configured as this leader again", self.worker);
        }
        write!(f, "{} differs from this leader in", self.worker)?;
        for (index, part) in self.parts.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let digest = |of: &ConfigDigest| of.part(part).map(hex).unwrap_or_default();
            let (theirs, ours) = (digest(&self.reported), digest(&self.leader));
            write!(f, "{comma} {} ({theirs}, not {ours})", part.name())?;
        }
        Ok(())
    }
}

/// Compares the digests that the live workers report with the leader's.
#[derive(Debug)]
pub struct ConfigComparison {
    /// How long a difference must last before it is reported: a changed list reaches the replicas,
    /// and their heartbeats the leader, one after the other.
    delay: Duration,
    leader: ConfigDigest,
    workers: BTreeMap<Box<str>, ComparedWorker>,
    /// When the next difference has lasted long enough; may be too early.
    due: Option<Time>,
    reports: VecDeque<ConfigMismatch>,
    /// Whether there is something for [`ConfigComparison::take_counts`].
    is_changed: bool,
}

#[derive(Debug)]
struct ComparedWorker {
    digest: ConfigDigest,
    parts: ConfigParts,
    /// Since when these parts have differed.
    since: Time,
    reported: ConfigParts,
}

impl ConfigComparison {
    /// Without workers.
    #[must_use]
    pub fn new(delay: Duration) -> Self {
        Self {
            delay,
            leader: ConfigDigest::default(),
            workers: BTreeMap::new(),
            due: None,
            reports: VecDeque::new(),
            is_changed: true,
        }
    }

    /// Sets what the leader has. A change is compared with all workers.
    pub fn set_leader(&mut self, now: Time, digest: ConfigDigest) {
        if self.leader == digest {
            return;
        }
        self.leader = digest;
        for worker in self.workers.values_mut() {
            let parts = digest.differences(&worker.digest);
            if parts != worker.parts {
                (worker.parts, worker.since) = (parts, now);
            }
        }
        self.due = Some(now + self.delay);
    }

    /// Records what the heartbeat of a live worker reports.
    pub fn reported(&mut self, now: Time, worker: &str, digest: ConfigDigest) {
        match self.workers.get_mut(worker) {
            Some(known) if known.digest == digest => return, // a plain heartbeat
            Some(known) => {
                known.digest = digest;
                let parts = self.leader.differences(&digest);
                if parts != known.parts {
                    (known.parts, known.since) = (parts, now);
                }
            }
            None if digest.is_unknown() => return,
            None => {
                let compared = ComparedWorker {
                    digest,
                    parts: self.leader.differences(&digest),
                    since: now,
                    reported: ConfigParts::default(),
                };
                self.workers.insert(worker.into(), compared);
            }
        }
        let due = now + self.delay;
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Records that a worker is no longer alive.
    pub fn gone(&mut self, worker: &str) {
        if let Some(known) = self.workers.remove(worker) {
            self.is_changed |= !known.reported.is_empty();
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Time) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        let mut due: Option<Time> = None;
        for (worker, known) in &mut self.workers {
            if known.parts == known.reported {
                continue;
            }
            let at = known.since + self.delay;
            if at > now {
                due = Some(due.map_or(at, |earlier| earlier.min(at)));
                continue;
            }
            known.reported = known.parts;
            self.is_changed = true;
            // Only workers with a lease are compared, and those have valid ids.
            if let Ok(worker) = WorkerId::new(worker) {
                self.reports.push_back(ConfigMismatch {
                    worker,
                    parts: known.parts,
                    leader: self.leader,
                    reported: known.digest,
                });
            }
        }
        self.due = due;
    }

    /// When [`ConfigComparison::tick`] is due next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.due
    }

    /// The next difference to report.
    pub fn poll_report(&mut self) -> Option<ConfigMismatch> {
        self.reports.pop_front()
    }

    /// Returns how many live workers were reported to differ in each part, if that changed.
    pub fn take_counts(&mut self) -> Option<[(ConfigPart, usize); ConfigPart::ALL.len()]> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        Some(std::array::from_fn(|index| {
            let part = ConfigPart::ALL[index];
            let differs = |worker: &&ComparedWorker| worker.reported.iter().any(|p| p == part);
            (part, self.workers.values().filter(differs).count())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(6);

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1_000)
    }

    fn digest(list: u32) -> ConfigDigest {
        ConfigDigest {
            list: Some(list),
            strategy: Some(1),
            settings: Some(1),
        }
    }

    fn leading(list: u32) -> ConfigComparison {
        let mut comparison = ConfigComparison::new(DELAY);
        comparison.set_leader(at(0), digest(list));
        comparison
    }

    fn reports(comparison: &mut ConfigComparison, seconds: u64) -> Vec<String> {
        comparison.tick(at(seconds));
        std::iter::from_fn(|| comparison.poll_report().map(|report| report.to_string())).collect()
    }

    fn lists_differing(comparison: &mut ConfigComparison) -> Option<usize> {
        comparison.take_counts().map(|counts| counts[0].1)
    }

    #[test]
    fn lasting_difference_is_reported_once_and_its_end_too() {
        let mut comparison = leading(0xaa);
        for second in 1..=20 {
            comparison.reported(at(second), "w-1", digest(0xaa));
            comparison.reported(at(second), "w-2", digest(0xbb));
            let expected: &[&str] = match second {
                7 => &["w-2 differs from this leader in list (000000bb, not 000000aa)"],
                _ => &[],
            };
            assert_eq!(reports(&mut comparison, second), expected, "at {second}");
        }
        assert_eq!(lists_differing(&mut comparison), Some(1));
        comparison.reported(at(21), "w-2", digest(0xaa));
        assert_eq!(reports(&mut comparison, 26), [""; 0]);
        assert_eq!(
            reports(&mut comparison, 27),
            ["w-2 is configured as this leader again"]
        );
        assert_eq!(lists_differing(&mut comparison), Some(0));
        assert_eq!(
            (lists_differing(&mut comparison), comparison.deadline()),
            (None, None)
        );
    }

    #[test]
    fn list_that_reaches_the_replicas_one_after_the_other_is_no_difference() {
        let mut comparison = leading(1);
        comparison.reported(at(0), "w-1", digest(1));
        comparison.set_leader(at(10), digest(2));
        assert_eq!(reports(&mut comparison, 15), [""; 0]);
        comparison.reported(at(15), "w-1", digest(2));
        assert_eq!(reports(&mut comparison, 60), [""; 0]);
        assert_eq!(comparison.deadline(), None);
    }

    #[test]
    fn leader_that_changes_is_compared_with_every_worker() {
        let mut comparison = leading(1);
        for worker in ["w-1", "w-2", "w-3"] {
            comparison.reported(at(0), worker, digest(1));
        }
        comparison.set_leader(at(10), digest(2));
        assert_eq!(reports(&mut comparison, 16).len(), 3);
        comparison.gone("w-3");
        assert_eq!(lists_differing(&mut comparison), Some(2));
    }

    #[test]
    fn workers_that_report_nothing_are_not_compared() {
        let mut comparison = leading(1);
        comparison.reported(at(0), "parti-1", ConfigDigest::default());
        assert!(comparison.workers.is_empty());
        // A worker whose list is not known differs in what is known at most.
        let unlisted = ConfigDigest {
            list: None,
            settings: Some(9),
            ..digest(0)
        };
        comparison.reported(at(0), "w-2", unlisted);
        assert_eq!(
            reports(&mut comparison, 6),
            ["w-2 differs from this leader in settings (00000009, not 00000001)"]
        );
    }
}

//! The evidence rules of a take-over: which workers of the stored plan and of the fleet are alive,
//! have left, are suspected or are dead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::store::Operation;
use crate::types::{Revision, Term, Time, Version, WorkerId};
use crate::wire::Applied;

/// How the partition list differs from the published plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Finding {
    /// Not at all.
    Same,
    /// Partitions were added or removed.
    Changed,
    /// Only weights changed; the fullest worker exceeds the fair level by this share.
    Reweighted {
        /// Fullest load / fair level - 1.
        excess: f64,
    },
}

/// The result of a take-over's reading.
#[derive(Clone, Debug)]
pub struct TakeOver {
    /// The term that the take-over opened.
    pub term: Term,
    /// The highest version found.
    pub version: Version,
    /// The workers with a stored assignment.
    pub planned: BTreeSet<WorkerId>,
    /// Whether the stored assignments are one complete plan: the commit record's digest, where
    /// there is one, fits them, and none is malformed.
    pub consistent: bool,
    /// How the partitions of the source differ from them; `None` when the source could not be
    /// read.
    pub finding: Option<Finding>,
    /// Every heartbeat key and its value.
    pub heartbeats: Vec<HeartbeatRecord>,
    /// The former leader, by the fence record.
    pub former_leader: Option<WorkerId>,
    /// Whether the former leader's lease is known to have run out.
    pub former_leader_lease_over: bool,
    /// When the store last came back after an outage that this process saw.
    pub store_returned: Option<Time>,
    /// The newest change of the partition list that was covered.
    pub generation: u64,
}

/// The facts that a process remembers from before its take-over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// The highest term and version that it has applied or published.
    pub reached: Applied,
    /// The highest revision that it has seen in the assignment bucket. A bucket with a lower last
    /// sequence was replaced by a former copy, or created again.
    pub revision: Revision,
    /// When the store last came back after an outage that it saw.
    pub store_returned: Option<Time>,
}

/// A heartbeat key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatRecord {
    /// The worker.
    pub worker: WorkerId,
    /// Whether the key has a value, or how the value ended.
    pub operation: Operation,
    /// Age of the last write by the store's clock, if the store reports it.
    pub age: Option<Duration>,
}

/// The timing that the evidence is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Time to live of a heartbeat.
    pub ttl: Duration,
    /// Time in which a suspected worker may return.
    pub grace: Duration,
    /// Time beyond `ttl` in which workers may return after an outage of the store.
    pub recovery_grace: Duration,
    /// Share of absent planned workers above which absence is no evidence of death.
    pub restart_ratio: f64,
}

/// The status of each worker at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Live workers, each with the rest of its lease, which is never zero.
    pub alive: BTreeMap<WorkerId, Duration>,
    /// Planned workers that left.
    pub left: BTreeSet<WorkerId>,
    /// Planned and absent workers; none is dead before `suspected_until`.
    pub suspected: BTreeSet<WorkerId>,
    /// Workers that are declared dead at once.
    pub dead: BTreeSet<WorkerId>,
    /// The former leader, if its last heartbeat is older than the end of its leader lease. Without
    /// another heartbeat it is declared dead without a grace.
    pub former_leader_suspected: Option<WorkerId>,
    /// When the grace of the suspected workers ends.
    pub suspected_until: Time,
}

/// Applies the evidence rules to the reading of a take-over.
#[must_use]
pub fn judge(found: &TakeOver, timing: Timing, now: Time) -> Evidence {
    let mut evidence = Evidence {
        suspected_until: now + timing.grace,
        ..Evidence::default()
    };
    // After an outage, absent heartbeats and expired leases are its work: they prove nothing.
    let unproven_until = found
        .store_returned
        .map(|returned| returned + timing.ttl + timing.recovery_grace)
        .filter(|until| *until > now);
    for beat in &found.heartbeats {
        match beat.operation {
            Operation::Put => {
                let age = beat.age.unwrap_or_default();
                let remaining = timing.ttl.saturating_sub(age);
                // Servers remove expired keys up to seconds late: treat them as absent.
                if !remaining.is_zero() {
                    let unproven = unproven_until.map_or(Duration::ZERO, |until| until.since(now));
                    evidence
                        .alive
                        .insert(beat.worker.clone(), remaining.max(unproven));
                }
            }
            Operation::Delete if found.planned.contains(&beat.worker) => {
                evidence.left.insert(beat.worker.clone());
            }
            Operation::Delete | Operation::Expired | Operation::Gone => {}
        }
    }
    for worker in &found.planned {
        if !evidence.alive.contains_key(worker) && !evidence.left.contains(worker) {
            evidence.suspected.insert(worker.clone());
        }
    }
    if let Some(until) = unproven_until {
        evidence.suspected_until = evidence.suspected_until.max(until);
    }
    if is_mass(
        evidence.suspected.len(),
        found.planned.len(),
        timing.restart_ratio,
    ) {
        // A paused or restarted server does that to a healthy fleet: absence proves nothing.
        let until = now + timing.ttl + timing.grace;
        evidence.suspected_until = evidence.suspected_until.max(until);
    } else if let (Some(leader), true, None) = (
        &found.former_leader,
        found.former_leader_lease_over,
        unproven_until,
    ) {
        // Two independent pieces of evidence: the lease ran out and the heartbeat is gone.
        if evidence.suspected.remove(leader) {
            evidence.dead.insert(leader.clone());
        } else if evidence.alive.contains_key(leader) {
            evidence.former_leader_suspected = Some(leader.clone());
        }
    }
    evidence
}

/// Whether every worker of the stored plan, and every other one with a heartbeat, has written a
/// heartbeat within `elapsed`, or has left.
pub fn have_reported<'a>(
    planned: impl IntoIterator<Item = &'a WorkerId>,
    heartbeats: &[HeartbeatRecord],
    elapsed: Duration,
) -> bool {
    let mut silent: BTreeSet<_> = planned.into_iter().collect();
    for beat in heartbeats {
        let has_reported = match beat.operation {
            Operation::Put => beat.age.is_some_and(|age| age < elapsed),
            Operation::Delete => true,
            Operation::Expired | Operation::Gone => continue,
        };
        match has_reported {
            true => silent.remove(&beat.worker),
            false => silent.insert(&beat.worker),
        };
    }
    silent.is_empty()
}

/// Whether so many absences at once are a matter of the fleet (or the store) and not of the
/// workers: more than `ratio` of the planned ones, and at least two.
#[must_use]
#[allow(clippy::cast_precision_loss)] // worker counts are far below 2^52
pub fn is_mass(absent: usize, planned: usize, ratio: f64) -> bool {
    absent >= 2 && absent as f64 > ratio * planned as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing {
        ttl: Duration::from_secs(6),
        grace: Duration::from_secs(5),
        recovery_grace: Duration::from_secs(15),
        restart_ratio: 0.5,
    };
    const NOW: Time = Time::from_millis(100_000);

    fn id(name: &str) -> WorkerId {
        WorkerId::new(name).unwrap()
    }

    fn found(planned: &[&str], beats: &[(&str, Operation, Option<u64>)]) -> TakeOver {
        TakeOver {
            term: 2,
            version: 7,
            planned: planned.iter().map(|n| id(n)).collect(),
            consistent: true,
            finding: Some(Finding::Same),
            heartbeats: beats
                .iter()
                .map(|&(name, operation, age)| HeartbeatRecord {
                    worker: id(name),
                    operation,
                    age: age.map(Duration::from_secs),
                })
                .collect(),
            former_leader: Some(id("w-1")),
            former_leader_lease_over: true,
            store_returned: None,
            generation: 0,
        }
    }

    #[test]
    fn worker_with_key_is_alive_for_its_remaining_ttl() {
        let found = found(
            &["w-1", "w-2"],
            &[
                ("w-1", Operation::Put, Some(4)),
                ("w-2", Operation::Put, None),
            ],
        );
        let evidence = judge(&found, TIMING, NOW);
        let seconds: Vec<_> = evidence.alive.values().map(Duration::as_secs).collect();
        assert_eq!(seconds, [2, 6]);
        assert!(evidence.suspected.is_empty() && evidence.dead.is_empty());
    }

    #[test]
    fn key_older_than_ttl_is_no_sign_of_life() {
        let found = found(
            &["w-1", "w-2", "w-3", "w-4"],
            &[
                ("w-1", Operation::Put, Some(6)),
                ("w-2", Operation::Put, Some(9)),
                ("w-3", Operation::Put, Some(1)),
                ("w-4", Operation::Put, None),
                // Lost and replaced by an earlier leader: it gets nothing again.
                ("w-5", Operation::Put, Some(9)),
            ],
        );
        let evidence = judge(&found, TIMING, NOW);
        let alive: Vec<_> = evidence.alive.keys().map(WorkerId::as_str).collect();
        assert_eq!(alive, ["w-3", "w-4"]);
        assert_eq!(evidence.suspected, BTreeSet::from([id("w-2")]));
        assert_eq!(evidence.dead, BTreeSet::from([id("w-1")]));
        assert_eq!(evidence.suspected_until, NOW + TIMING.grace);
    }

    #[test]
    fn deleted_key_means_left_and_absent_key_means_suspected() {
        let found = found(
            &["w-2", "w-3", "w-4", "w-5", "w-6"],
            &[
                ("w-2", Operation::Put, None),
                ("w-3", Operation::Delete, None),
                ("w-4", Operation::Expired, None),
                ("w-6", Operation::Put, None),
                ("stranger", Operation::Delete, None),
            ],
        );
        let evidence = judge(&found, TIMING, NOW);
        assert_eq!(evidence.left, BTreeSet::from([id("w-3")]));
        assert_eq!(evidence.suspected, BTreeSet::from([id("w-4"), id("w-5")]));
        assert_eq!(evidence.suspected_until, NOW + TIMING.grace);
    }

    #[test]
    fn former_leader_is_dead_at_once_only_on_two_pieces_of_evidence() {
        let beats = [("w-2", Operation::Put, None), ("w-3", Operation::Put, None)];
        let mut case = found(&["w-1", "w-2", "w-3"], &beats);
        assert_eq!(judge(&case, TIMING, NOW).dead, BTreeSet::from([id("w-1")]));
        case.former_leader_lease_over = false;
        let evidence = judge(&case, TIMING, NOW);
        assert_eq!(evidence.suspected, BTreeSet::from([id("w-1")]));
        assert!(evidence.dead.is_empty());
        case.former_leader_lease_over = true;
        case.heartbeats.push(HeartbeatRecord {
            worker: id("w-1"),
            operation: Operation::Put,
            age: None,
        });
        let evidence = judge(&case, TIMING, NOW);
        assert!(evidence.dead.is_empty());
        assert_eq!(evidence.former_leader_suspected, Some(id("w-1")));
    }

    /// Symptom: after a restart of the servers, the new leader gave the partitions of the former
    /// one away, which was only still reconnecting. Cause: both pieces of evidence were the
    /// outage's work. Cure: after an outage they count for nothing until its grace is over.
    #[test]
    fn absence_after_an_outage_proves_nothing_for_one_ttl_and_recovery_grace() {
        let beats = [
            ("w-2", Operation::Put, None),
            ("w-4", Operation::Put, Some(1)),
            ("w-5", Operation::Delete, None),
        ];
        let mut case = found(&["w-1", "w-2", "w-3", "w-4", "w-5"], &beats);
        let returned = NOW - Duration::from_secs(4);
        case.store_returned = Some(returned);
        let until = returned + TIMING.ttl + TIMING.recovery_grace;
        let evidence = judge(&case, TIMING, NOW);
        assert!(evidence.dead.is_empty());
        assert_eq!(evidence.suspected, BTreeSet::from([id("w-1"), id("w-3")]));
        assert_eq!(evidence.suspected_until, until);
        assert!(evidence.alive.values().all(|&rest| NOW + rest == until));
        assert_eq!(evidence.left, BTreeSet::from([id("w-5")]));
        let evidence = judge(&case, TIMING, until);
        assert_eq!(evidence.dead, BTreeSet::from([id("w-1")]));
        assert_eq!(evidence.suspected_until, until + TIMING.grace);
    }

    #[test]
    fn mass_absence_proves_nothing_for_one_ttl_and_grace() {
        let found = found(&["w-1", "w-2", "w-3"], &[("w-3", Operation::Put, None)]);
        let evidence = judge(&found, TIMING, NOW);
        assert_eq!(evidence.suspected, BTreeSet::from([id("w-1"), id("w-2")]));
        assert!(evidence.dead.is_empty());
        assert_eq!(evidence.suspected_until, NOW + TIMING.ttl + TIMING.grace);
    }

    #[test]
    fn worker_has_reported_once_its_heartbeat_is_younger_than_the_return_of_the_store() {
        let second = Duration::from_secs(1);
        let reported = |planned: &[&str], beats: &[(&str, Operation, Option<u64>)]| {
            let found = found(planned, beats);
            have_reported(&found.planned, &found.heartbeats, second * 2)
        };
        assert!(reported(&[], &[]));
        assert!(!reported(&["w-1"], &[]));
        assert!(reported(&["w-1"], &[("w-1", Operation::Put, Some(1))]));
        assert!(reported(&["w-1"], &[("w-1", Operation::Delete, None)]));
        for silent in [
            ("w-1", Operation::Put, Some(2)),
            ("w-1", Operation::Put, None),
            ("w-1", Operation::Expired, None),
        ] {
            assert!(!reported(&["w-1"], &[silent]), "{silent:?}");
        }
        // One that is not in the stored plan may have been in a later one.
        assert!(!reported(&[], &[("w-9", Operation::Put, Some(7))]));
        assert!(reported(&[], &[("w-9", Operation::Gone, Some(7))]));
    }

    #[test]
    fn single_absent_worker_is_never_mass_absence() {
        assert!(!is_mass(1, 1, 0.5));
        assert!(is_mass(2, 3, 0.5));
        assert!(!is_mass(2, 4, 0.5));
        assert!(!is_mass(2, 2, 1.0));
    }
}

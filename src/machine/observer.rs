//! What the watches show, as events for the calculator.
//!
//! Runs on `dv-watch`: plain heartbeats end in the leases, own writes end here; only membership
//! changes and possibly foreign writes are forwarded.

use std::collections::{BTreeMap, VecDeque};

use super::calculator::CalculatorInput;
use super::config_mismatch::ConfigComparison;
use super::convergence::Convergence;
use super::liveness::{Leases, MembershipEvent};
use super::plausible::{MalformedValue, MalformedValues, Numbered, plausible_max};
use crate::config::CalculatorConfig;
use crate::error::Result;
use crate::store::{Bucket, Entry, Listing, Operation, WatchEvent};
use crate::types::{Revision, Term, Time, Version, WorkerId};
use crate::wire::{
    self, Applied, Assignment, COMMIT_KEY, Commit, FENCE_KEY, Fence, KeyPrefix, Reported,
};

/// Turns watch events into calculator inputs. Drain [`Observer::poll_event`] after each call;
/// [`Observer::deadline`] is the time of the next `tick`.
#[derive(Debug)]
pub struct Observer {
    leases: Leases,
    convergence: Convergence,
    configs: ConfigComparison,
    heartbeat: KeyPrefix,
    assignment: KeyPrefix,
    malformed: MalformedValues,
    /// The highest revision seen in the assignment bucket.
    last_sequence: Revision,
    /// The highest term and version reported as applied that were passed on.
    ahead: Applied,
    held: BTreeMap<Box<str>, ObservedAssignment>,
    /// Whether the assignment watch was lost and has not delivered the state of the bucket since.
    is_bucket_uncertain: bool,
    events: VecDeque<CalculatorInput>,
}

/// What a worker's key holds, and what its worker was found to have applied instead.
#[derive(Debug)]
struct ObservedAssignment {
    term: Option<Term>,
    version: Version,
    refused_by: Applied,
}

impl Observer {
    /// An observer that has seen nothing yet.
    ///
    /// # Errors
    /// `InvalidArgument` for a prefix that no key may have.
    pub fn new(config: &CalculatorConfig) -> Result<Self> {
        Ok(Self {
            leases: Leases::new(
                config.heartbeat_ttl,
                config.join_coalescing,
                config.recovery_grace(),
            ),
            convergence: Convergence::new(config.apply_timeout),
            configs: ConfigComparison::new(config.heartbeat_ttl),
            heartbeat: KeyPrefix::new(&config.heartbeat_prefix)?,
            assignment: KeyPrefix::new(&config.assignment_prefix)?,
            malformed: MalformedValues::default(),
            last_sequence: 0,
            ahead: Applied::default(),
            held: BTreeMap::new(),
            is_bucket_uncertain: false,
            events: VecDeque::new(),
        })
    }

    /// The leases.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The leases, to seed them and to forget workers.
    pub fn leases_mut(&mut self) -> &mut Leases {
        &mut self.leases
    }

    /// How far the workers are behind.
    #[must_use]
    pub fn convergence(&self) -> &Convergence {
        &self.convergence
    }

    /// The same, to take what is to be measured.
    pub fn convergence_mut(&mut self) -> &mut Convergence {
        &mut self.convergence
    }

    /// How the workers' configurations compare with the leader's.
    pub fn configs_mut(&mut self) -> &mut ConfigComparison {
        &mut self.configs
    }

    /// Handles an event of the heartbeat watch. `in_force` is the publisher's progress.
    pub fn heartbeat(&mut self, now: Time, event: &WatchEvent, in_force: Applied) {
        match event {
            WatchEvent::Change(entry) => self.heartbeat_entry(now, entry, in_force),
            WatchEvent::Live => {
                self.leases.live(now);
                self.convergence.live(now);
            }
            WatchEvent::Disconnected(_) => {
                self.leases.watch_lost();
                self.convergence.watch_lost();
            }
        }
    }

    /// Applies a listing of the heartbeats: a worker with a key is alive, one with a deletion
    /// marker has left, one that the watch did not show either is suspected, others keep their
    /// leases.
    pub fn listed(&mut self, now: Time, listing: &Listing, in_force: Applied) {
        for entry in &listing.entries {
            self.heartbeat_entry(now, entry, in_force);
        }
        self.leases.end_absent(now);
    }

    /// Handles an event of the assignment watch. Writes with the term in force are our own.
    pub fn assignment(&mut self, now: Time, event: &WatchEvent, in_force: Applied) {
        let term_in_force = in_force.term;
        let entry = match event {
            WatchEvent::Change(entry) => entry,
            // What was missed is delivered after the recovery.
            WatchEvent::Disconnected(_) => {
                self.is_bucket_uncertain = true;
                return self.convergence.begin_replay();
            }
            WatchEvent::Live => {
                self.convergence.end_replay();
                if std::mem::take(&mut self.is_bucket_uncertain) {
                    self.suspect_bucket();
                }
                return;
            }
        };
        self.last_sequence = self.last_sequence.max(entry.revision);
        let term = match entry.key.as_str() {
            FENCE_KEY => return self.fence(entry, term_in_force),
            COMMIT_KEY => self.committed(entry, term_in_force),
            key if self.assignment.is_protocol_key(key) => {
                if key == self.assignment.v2_commit_key() && entry.is_live() {
                    self.suspect("_commit");
                }
                return;
            }
            key if self.assignment.suffix(key).is_some() => {
                self.assigned(now, entry, term_in_force)
            }
            _ => return,
        };
        let is_ours = entry.is_live() && term.as_ref().is_ok_and(|&t| t == term_in_force);
        if is_ours {
            return;
        }
        if let (true, Err(why)) = (entry.is_live(), &term) {
            let value = MalformedValue::new(Bucket::Assignment, &entry.key, &entry.value, why);
            self.malformed.add(value);
        }
        self.events.push_back(CalculatorInput::ForeignSuspected {
            key: entry.key.clone(),
            revision: entry.as_new_as(),
        });
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Time) {
        self.leases.tick(now);
        self.convergence.tick(now);
        self.configs.tick(now);
    }

    /// When `tick` is due next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let dues = [
            self.leases.deadline(),
            self.convergence.deadline(),
            self.configs.deadline(),
        ];
        dues.into_iter().flatten().min()
    }

    /// The next event for the calculator, oldest first.
    pub fn poll_event(&mut self) -> Option<CalculatorInput> {
        if let Some(membership) = self.leases.poll_event() {
            if let MembershipEvent::Suspected(worker) = &membership {
                self.convergence.gone(worker.as_str());
                self.configs.gone(worker.as_str());
            }
            return Some(CalculatorInput::Membership(membership));
        }
        if let Some(lagging) = self.convergence.poll_overdue() {
            // Its key may be gone: the server does not report a purge.
            self.suspect(lagging.worker.as_str());
            return Some(CalculatorInput::Lagging(lagging));
        }
        if let Some(mismatch) = self.configs.poll_report() {
            return Some(CalculatorInput::ConfigMismatch(mismatch));
        }
        if !self.malformed.is_empty() {
            let values = std::mem::take(&mut self.malformed);
            return Some(CalculatorInput::Malformed(values));
        }
        self.events.pop_front()
    }

    fn heartbeat_entry(&mut self, now: Time, entry: &Entry, in_force: Applied) {
        let Some(worker) = self.heartbeat.suffix(&entry.key) else {
            return;
        };
        if self.heartbeat.is_protocol_key(&entry.key) {
            return;
        }
        match entry.operation {
            Operation::Put => {
                if self.leases.known(worker).is_none()
                    && let Err(why) = WorkerId::new(worker)
                {
                    let value =
                        MalformedValue::new(Bucket::Heartbeat, &entry.key, &entry.value, &why);
                    return self.malformed.add(value);
                }
                self.leases.beat(now, worker, entry.age.unwrap_or_default());
                let report = self.report_of(entry);
                if self.leases.known(worker).is_some() {
                    let version = report.map(|report| report.applied.version);
                    self.convergence.applied(now, worker, version);
                    let config = report.map(|report| report.config).unwrap_or_default();
                    self.configs.reported(now, worker, config);
                }
                if let Some(report) = report {
                    self.reported(worker, report, in_force);
                }
            }
            Operation::Delete => {
                self.leases.left(worker);
                self.convergence.gone(worker);
                self.configs.gone(worker);
                self.ahead = Applied::default();
            }
            Operation::Expired => {
                self.leases.expired(now, worker);
                self.ahead = Applied::default();
            }
            // Unknown cause: the lease decides.
            Operation::Gone => {}
        }
    }

    /// What a heartbeat reports. Implausible numbers are no report.
    fn report_of(&mut self, entry: &Entry) -> Option<Reported> {
        let report = wire::decode_heartbeat(&entry.value)?;
        match report.highest.check_plausible(self.plausible_max()) {
            Ok(()) => Some(report),
            Err(why) => {
                let value = MalformedValue::new(Bucket::Heartbeat, &entry.key, &entry.value, &why);
                self.malformed.add(value);
                None
            }
        }
    }

    fn plausible_max(&self) -> i64 {
        plausible_max(self.last_sequence)
    }

    fn decode<T: Numbered>(&self, value: &[u8], decode: fn(&[u8]) -> Result<T>) -> Result<T> {
        let value = decode(value)?;
        value.check_plausible(self.plausible_max())?;
        Ok(value)
    }

    /// Records the content of a worker's key; returns its term.
    fn assigned(&mut self, now: Time, entry: &Entry, term_in_force: Term) -> Result<Term> {
        let worker = self.assignment.suffix(&entry.key).unwrap_or_default();
        let assignment = self.decode(&entry.value, Assignment::decode);
        match &assignment {
            Ok(assignment) if entry.is_live() => {
                self.convergence
                    .assigned(now, worker, Some(assignment.version));
                if assignment.term == Some(term_in_force) {
                    self.convergence.published(now, worker, assignment.version);
                }
                let held = ObservedAssignment {
                    term: assignment.term,
                    version: assignment.version,
                    refused_by: Applied::default(),
                };
                self.held.insert(worker.into(), held);
            }
            _ => {
                self.convergence.assigned(now, worker, None);
                self.held.remove(worker);
            }
        }
        assignment.map(|a| a.term.unwrap_or(0))
    }

    /// Records a commit; returns its term.
    fn committed(&mut self, entry: &Entry, term_in_force: Term) -> Result<Term> {
        let commit = self.decode(&entry.value, Commit::decode)?;
        if entry.is_live() && commit.term == term_in_force {
            self.convergence.committed(commit.version);
        }
        Ok(commit.term)
    }

    /// A worker that has applied what this leader knows nothing of will refuse all that is older:
    /// the bucket has lost writes. Each such finding is passed on once.
    fn reported(&mut self, worker: &str, report: Reported, in_force: Applied) {
        let Reported {
            applied, highest, ..
        } = report;
        // What its key holds may be older than what it has applied, though the leader knows of
        // both: a foreign hand wrote it while the worker was away.
        if let Some(held) = self.held.get_mut(worker)
            && applied.refuses(held.term, held.version)
            && applied != held.refused_by
        {
            held.refused_by = applied;
            self.suspect(worker);
        }
        if highest.exceeds(in_force) && highest.exceeds(self.ahead) {
            self.ahead = self.ahead.highest(highest);
            self.events
                .push_back(CalculatorInput::AppliedAhead(highest));
        }
    }

    /// Whatever is known of a worker's key may be out of date.
    fn suspect(&mut self, worker: &str) {
        self.events.push_back(CalculatorInput::ForeignSuspected {
            key: format!("{}.{worker}", self.assignment.as_str()),
            revision: Revision::MAX,
        });
    }

    /// The bucket may have been replaced by an older copy while the watch was lost: its writes look
    /// like known ones, and a key that it lacks does not appear at all.
    fn suspect_bucket(&mut self) {
        self.events.push_back(CalculatorInput::ForeignSuspected {
            key: FENCE_KEY.into(),
            revision: Revision::MAX,
        });
    }

    fn fence(&mut self, entry: &Entry, term_in_force: Term) {
        let fence = entry
            .is_live()
            .then(|| self.decode(&entry.value, Fence::decode));
        match fence {
            Some(Ok(fence)) if fence.term <= term_in_force => {}
            Some(Ok(fence)) => self
                .events
                .push_back(CalculatorInput::FenceMoved { term: fence.term }),
            // Removed or overwritten: the publisher's next read shows which.
            Some(Err(_)) | None => self.suspect_bucket(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::machine::liveness::MembershipEvent;
    use crate::types::Reason;

    fn observer() -> Observer {
        let mut observer = Observer::new(&CalculatorConfig::default()).unwrap();
        observer.heartbeat(Time::ZERO, &WatchEvent::Live, in_force(0));
        observer
    }

    fn change(key: &str, value: &[u8], operation: Operation) -> WatchEvent {
        WatchEvent::Change(Entry {
            key: key.into(),
            value: value.to_vec(),
            revision: 9,
            operation,
            age: None,
        })
    }

    fn in_force(term: Term) -> Applied {
        Applied { term, version: 7 }
    }

    fn events(observer: &mut Observer) -> Vec<String> {
        std::iter::from_fn(|| observer.poll_event())
            .map(|event| format!("{event:?}"))
            .collect()
    }

    fn assignment(term: Term) -> Vec<u8> {
        let none = wire::encode_partitions([].iter());
        Assignment::encode(4, term, Reason::Restart.name(), &none)
    }

    #[test]
    fn heartbeats_become_sightings_and_malformed_keys_are_counted() {
        let mut observer = observer();
        for key in [
            "heartbeat.w-1",
            "heartbeat.a b",
            "heartbeat.",
            "heartbeatx.w-2",
        ] {
            let beat = change(key, b"\xff", Operation::Put);
            observer.heartbeat(Time::ZERO, &beat, in_force(0));
        }
        observer.tick(Time::from_millis(100));
        let Some(CalculatorInput::Membership(MembershipEvent::Joined { workers, .. })) =
            observer.poll_event()
        else {
            panic!("no join");
        };
        assert_eq!(workers.len(), 1);
        let Some(CalculatorInput::Malformed(values)) = observer.poll_event() else {
            panic!("not counted");
        };
        assert_eq!(values.count(), 2);
    }

    #[test]
    fn own_writes_are_filtered_and_foreign_writes_suspected() {
        let mut observer = observer();
        observer.assignment(
            Time::ZERO,
            &change("assignment.w-1", &assignment(3), Operation::Put),
            in_force(3),
        );
        observer.assignment(
            Time::ZERO,
            &change("other.key", b"x", Operation::Put),
            in_force(3),
        );
        assert_eq!(events(&mut observer), [""; 0]);
        let go = br#"{"version":5,"lifecycle":"emergency","partitions":null}"#;
        for (value, operation) in [
            (&go[..], Operation::Put),
            (&assignment(2), Operation::Put),
            (b"", Operation::Delete),
        ] {
            observer.assignment(
                Time::ZERO,
                &change("assignment.w-1", value, operation),
                in_force(3),
            );
            let reported = events(&mut observer);
            assert_eq!(reported.len(), 1, "{reported:?}");
            assert!(reported[0].starts_with("ForeignSuspected"), "{reported:?}");
        }
        observer.assignment(
            Time::ZERO,
            &change("assignment.w-1", b"junk", Operation::Put),
            in_force(3),
        );
        assert_eq!(events(&mut observer).len(), 2);
    }

    #[test]
    fn fence_of_higher_term_is_reported_and_own_fence_is_not() {
        let mut observer = observer();
        let fence = |term| {
            let fence = Fence {
                term,
                ..Fence::default()
            };
            change(FENCE_KEY, &fence.encode(), Operation::Put)
        };
        observer.assignment(Time::ZERO, &fence(3), in_force(3));
        assert_eq!(events(&mut observer), [""; 0]);
        observer.assignment(Time::ZERO, &fence(4), in_force(3));
        assert_eq!(events(&mut observer), ["FenceMoved { term: 4 }"]);
        observer.assignment(
            Time::ZERO,
            &change(FENCE_KEY, b"", Operation::Delete),
            in_force(3),
        );
        assert_eq!(events(&mut observer).len(), 1);
    }

    #[test]
    fn version_applied_ahead_of_leader_is_reported_once() {
        let mut observer = observer();
        let worker = WorkerId::new("w-1").unwrap();
        let mut beat = |term, version, of: Term| {
            let applied = Applied { term, version };
            let value = wire::encode_heartbeat(&worker, "t", applied);
            let beat = change("heartbeat.w-1", &value, Operation::Put);
            observer.heartbeat(Time::ZERO, &beat, in_force(of));
            events(&mut observer).len()
        };
        assert_eq!(beat(3, 7, 3), 0);
        assert_eq!(beat(3, 9, 3), 1);
        assert_eq!(beat(3, 9, 3), 0);
        assert_eq!(beat(4, 1, 3), 1);
        assert_eq!(beat(4, 10, 5), 1);
    }

    #[test]
    fn stale_key_rejected_by_worker_is_suspected_once() {
        let mut observer = observer();
        let worker = WorkerId::new("w-1").unwrap();
        let beat = |version| {
            let applied = Applied { term: 3, version };
            let value = wire::encode_heartbeat(&worker, "t", applied);
            change("heartbeat.w-1", &value, Operation::Put)
        };
        let in_force = in_force(3);
        observer.assignment(
            Time::ZERO,
            &change("assignment.w-1", &assignment(3), Operation::Put),
            in_force,
        );
        observer.heartbeat(Time::ZERO, &beat(4), in_force);
        assert_eq!(events(&mut observer), [""; 0]);
        // The same key, written as it was two versions ago.
        let go = br#"{"version":2,"lifecycle":"emergency","partitions":null}"#;
        observer.assignment(
            Time::ZERO,
            &change("assignment.w-1", go, Operation::Put),
            in_force,
        );
        events(&mut observer);
        for wanted in [1, 0, 0] {
            observer.heartbeat(Time::ZERO, &beat(4), in_force);
            assert_eq!(events(&mut observer).len(), wanted);
        }
        observer.assignment(
            Time::ZERO,
            &change("assignment.w-1", b"", Operation::Delete),
            in_force,
        );
        events(&mut observer);
        observer.heartbeat(Time::ZERO, &beat(5), in_force);
        assert_eq!(events(&mut observer), [""; 0]);
    }

    /// Found by the simulation of managers: a worker whose key was lost in a restored copy had no
    /// partitions from then on.
    #[test]
    fn bucket_is_suspected_once_after_each_loss_of_its_watch() {
        let mut observer = observer();
        let mut watch = |event| {
            observer.assignment(Time::ZERO, &event, in_force(3));
            events(&mut observer)
        };
        assert_eq!(watch(WatchEvent::Live), [""; 0]);
        for _ in 0..2 {
            assert_eq!(watch(WatchEvent::Disconnected("lost".into())), [""; 0]);
            let suspected = watch(WatchEvent::Live);
            assert_eq!(suspected.len(), 1);
            let whole = format!("{:?}", Revision::MAX);
            assert!(suspected[0].contains(&whole), "{suspected:?}");
        }
        assert_eq!(watch(WatchEvent::Live), [""; 0]);
    }

    #[test]
    fn lagging_worker_is_reported_once_and_its_key_suspected_while_alive() {
        let worker = WorkerId::new("w-1").unwrap();
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let beat = |version| {
            let applied = Applied { term: 3, version };
            let value = wire::encode_heartbeat(&worker, "t", applied);
            change("heartbeat.w-1", &value, Operation::Put)
        };
        for (ends, wanted) in [
            (None, 1),
            (Some(Operation::Delete), 0),
            (Some(Operation::Expired), 0),
        ] {
            let mut observer = observer();
            observer.heartbeat(at(0), &beat(2), in_force(3));
            let key = change("assignment.w-1", &assignment(3), Operation::Put);
            observer.assignment(at(1), &key, in_force(3));
            assert_eq!(observer.convergence().of("w-1").0, Some(2));
            let (mut reported, mut suspected) = (0, 0);
            for second in 2..60 {
                match ends {
                    Some(operation) if second > 3 => {
                        let end = change("heartbeat.w-1", b"", operation);
                        observer.heartbeat(at(second), &end, in_force(3));
                    }
                    _ => observer.heartbeat(at(second), &beat(2), in_force(3)),
                }
                observer.tick(at(second));
                while let Some(event) = observer.poll_event() {
                    reported += usize::from(matches!(event, CalculatorInput::Lagging(_)));
                    suspected += usize::from(matches!(
                        event,
                        CalculatorInput::ForeignSuspected { key, revision: Revision::MAX }
                            if key == "assignment.w-1"
                    ));
                }
            }
            assert_eq!((reported, suspected), (wanted, wanted), "{ends:?}");
            let expected = ends.is_none().then_some(2);
            assert_eq!(observer.convergence().of("w-1").0, expected, "{ends:?}");
        }
    }

    #[test]
    fn implausible_numbers_are_ignored_and_named_while_the_worker_stays_alive() {
        for number in [i64::MAX, i64::MAX - 1] {
            for (term, version) in [(number, 7), (3, number)] {
                let mut observer = observer();
                let worker = WorkerId::new("w-1").unwrap();
                let value = wire::encode_heartbeat(&worker, "t", Applied { term, version });
                let beat = change("heartbeat.w-1", &value, Operation::Put);
                observer.heartbeat(Time::ZERO, &beat, in_force(3));
                assert!(observer.leases().known("w-1").is_some());
                let Some(CalculatorInput::Malformed(values)) = observer.poll_event() else {
                    panic!("not counted");
                };
                let named = values.named()[0].to_string();
                for part in ["heartbeat.w-1", "heartbeat bucket", &number.to_string()] {
                    assert!(named.contains(part), "{named}");
                }
                let ahead = events(&mut observer);
                assert!(
                    !ahead.iter().any(|e| e.starts_with("AppliedAhead")),
                    "{ahead:?}"
                );
                let fence = format!(r#"{{"term":{number}}}"#);
                let fence = change(FENCE_KEY, fence.as_bytes(), Operation::Put);
                observer.assignment(Time::ZERO, &fence, in_force(3));
                let reported = events(&mut observer);
                assert!(
                    !reported.iter().any(|e| e.starts_with("FenceMoved")),
                    "{reported:?}"
                );
            }
        }
    }

    #[test]
    fn protocol_keys_of_others_are_neither_workers_nor_malformed() {
        let mut observer = observer();
        let keys = ["assignment._commit_log.42", "assignment._payload.ab"];
        for key in keys {
            let entry = change(key, b"\x1f\x8b", Operation::Put);
            observer.assignment(Time::ZERO, &entry, in_force(3));
        }
        let entry = change("heartbeat._labels", b"x", Operation::Put);
        observer.heartbeat(Time::ZERO, &entry, in_force(3));
        observer.tick(Time::from_millis(200));
        assert_eq!(events(&mut observer), [""; 0]);
        assert!(observer.leases().known("_labels").is_none());
    }

    #[test]
    fn report_above_the_leader_is_repeated_after_its_heartbeat_was_gone() {
        let mut observer = observer();
        let worker = WorkerId::new("w-1").unwrap();
        let applied = Applied {
            term: 3,
            version: 90,
        };
        let value = wire::encode_heartbeat(&worker, "t", applied);
        for operation in [Operation::Delete, Operation::Expired] {
            let beat = change("heartbeat.w-1", &value, Operation::Put);
            observer.heartbeat(Time::ZERO, &beat, in_force(3));
            observer.heartbeat(Time::ZERO, &beat, in_force(3));
            let reported = events(&mut observer);
            let ahead = reported.iter().filter(|e| e.starts_with("AppliedAhead"));
            assert_eq!(ahead.count(), 1, "{reported:?}");
            let end = change("heartbeat.w-1", b"", operation);
            observer.heartbeat(Time::ZERO, &end, in_force(3));
        }
    }
}

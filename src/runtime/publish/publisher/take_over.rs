//! Opening a term: the fence first, then everything else.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::per_key::Worst;
use super::{ActiveMode, AttemptError, PublishAttempt, Publisher, TermState, next_number, refused};
use crate::config::PublishMode;
use crate::error::{Code, Error, Result};
use crate::machine::plausible::{MalformedValue, MalformedValues, Numbered};
use crate::machine::publication::{BucketReading, Record};
use crate::machine::takeover::{HeartbeatRecord, have_reported};
use crate::metrics::RetryCause;
use crate::store::{Bucket, Entry, Expect, Outcome, Refusal, Write};
use crate::types::{Partition, Revision, Term, Time, Version, WorkerId};
use crate::wire::{
    self, Applied, Assignment, COMMIT_KEY, Commit, FENCE_KEY, Fence, foreign_commit,
};

/// How often a term is reopened because a higher one was found afterwards.
const TERMS_MAX: u32 = 4;

/// The name of atomic mode in a fence record.
const FENCE_CLASS_ATOMIC: &str = "A";

/// Result of a take-over.
#[derive(Debug)]
pub struct TakeOverResult {
    /// The new term.
    pub term: Term,
    /// The highest version found in any record, assignment or heartbeat.
    pub version: Version,
    /// The stored assignments.
    pub stored: Vec<(WorkerId, Vec<Partition>)>,
    /// Whether they are one complete plan.
    pub consistent: bool,
    /// The heartbeat keys.
    pub heartbeats: Vec<HeartbeatRecord>,
    /// The former leader, if the fence record names a worker.
    pub former_leader: Option<WorkerId>,
    /// When the store last came back after an outage that this process saw.
    pub store_returned: Option<Time>,
    /// Malformed values.
    pub malformed: MalformedValues,
}

/// The heartbeat bucket at one moment.
pub(super) struct Beats {
    pub(super) heartbeats: Vec<HeartbeatRecord>,
    /// The highest term and version that any worker's process has applied or published.
    pub(super) applied: Applied,
    /// What each worker has applied, where it says so.
    pub(super) applied_by: BTreeMap<WorkerId, Applied>,
    pub(super) malformed: MalformedValues,
}

enum Learned {
    /// Everything, the heartbeats as well.
    All(Beats),
    /// A term above the one just opened.
    HigherTerm(Term),
}

impl Publisher {
    /// Takes over: opens a term above every term found and reads the stored plan. May be called again
    /// after a failure or a deposition.
    ///
    /// # Errors
    /// `Conflict` or `Fenced` if another leader takes over at the same time; `InvalidData` if a stored
    /// number leaves no room above it; errors of the store.
    pub fn take_over(&mut self, deadline: Instant) -> Result<TakeOverResult> {
        self.term_state = TermState::Outside;
        self.learn_capabilities(deadline)?;
        let reading = self.read_all(deadline)?;
        self.check_protocol(&reading)?;
        let former_leader = former_leader(&reading.fence);
        let beats = self.wait_for_reports(&reading, deadline)?;
        let known = self.remembered.reached;
        self.see_version(known.version);
        let floor = reading.highest_term.max(beats.applied.term).max(known.term);
        let beats = self.open_term(&reading, floor, deadline)?;
        self.term_state = TermState::Effective;
        let found = TakeOverResult {
            term: self.term,
            version: self.version,
            consistent: self.known.is_consistent(),
            former_leader,
            store_returned: self.remembered.store_returned,
            // The first look alone has met the former fence.
            malformed: reading
                .malformed
                .or_more(std::mem::take(&mut self.known.malformed))
                .with(beats.malformed),
            heartbeats: beats.heartbeats,
            stored: std::mem::take(&mut self.known.stored)
                .into_iter()
                .map(|(worker, assignment)| (worker, assignment.partitions))
                .collect(),
        };
        log::info!(
            target: "divvy::publisher",
            term = found.term, version = found.version, workers = found.stored.len();
            "leader elected: took over"
        );
        Ok(found)
    }

    /// Reads the heartbeats. After an outage, the servers' data may be an older copy, and this
    /// process may have missed what was published last. So it first waits until every worker has
    /// written a heartbeat since, which reports what its process has applied; for one TTL at most.
    fn wait_for_reports(&mut self, reading: &BucketReading, deadline: Instant) -> Result<Beats> {
        let max = reading.plausible_max();
        let ttl = self.settings.heartbeat_ttl;
        let now = self.environment.clock().now();
        let (last, seen) = (reading.last_sequence, self.remembered.revision);
        let mut beats = self.read_beats(max, deadline)?;
        let mut elapsed = match self.remembered.store_returned {
            _ if last < seen => Duration::ZERO,
            Some(returned) => now.since(returned),
            None => return Ok(beats),
        };
        // Half of the time is left for everything else.
        let rest = deadline.saturating_duration_since(self.environment.clock().instant()) / 2;
        let end = ttl.min(elapsed + rest);
        let planned = || reading.stored.iter().map(|(worker, _)| worker);
        if last < seen {
            log::warn!(
                target: "divvy::publisher",
                last_sequence = last, seen = seen;
                "the assignment bucket lost writes: waiting for the next heartbeat of every worker"
            );
        }
        while elapsed < end && !have_reported(planned(), &beats.heartbeats, elapsed) {
            let step = (ttl / 12).min(end.saturating_sub(elapsed));
            if !self.environment.pause(step) {
                let stopped = "stopped while waiting for heartbeats";
                return Err(Error::new(Code::NotRunning, stopped).with_operation("take over"));
            }
            elapsed += step;
            beats = self.read_beats(max, deadline)?;
        }
        // The reports are stored now, and heartbeats repeat them.
        self.remembered.revision = last;
        Ok(beats)
    }

    /// Whether divvy's records are the ones that decide in this bucket.
    pub(super) fn check_protocol(&self, reading: &BucketReading) -> Result<()> {
        let key = self.settings.assignment.v2_commit_key();
        if reading.foreign.contains(&key) {
            return Err(foreign_commit(&key).with_operation("take over"));
        }
        Ok(())
    }

    /// Opens a term above `floor`, then reads everything; again, should that show a higher one.
    pub(super) fn open_term(
        &mut self,
        found: &BucketReading,
        mut floor: Term,
        deadline: Instant,
    ) -> Result<Beats> {
        let mut expected = found.fence.revision;
        let class_b_until = class_b_until(found);
        self.see_version(found.version_floor());
        for _ in 0..TERMS_MAX {
            self.set_term(next_number("term", floor)?);
            self.fence = self.write_fence(expected, class_b_until, deadline)?;
            expected = self.fence.revision;
            match self.bring_under_term(class_b_until, deadline)? {
                Learned::All(beats) => return Ok(beats),
                Learned::HigherTerm(term) => floor = term,
            }
        }
        Err(Error::new(
            Code::Conflict,
            "another client keeps writing higher terms; find out which client writes to the assignment bucket",
        )
        .with_operation("take over"))
    }

    /// Reads the stored state. From here on no former leader can change it (atomic mode), or the
    /// rewrite detects the change (per-key mode) and reads again.
    fn bring_under_term(&mut self, class_b_until: Term, deadline: Instant) -> Result<Learned> {
        let mut retries = self.retries(deadline);
        loop {
            let reading = self.read_all(deadline)?;
            if reading.fence != self.fence {
                return Err(self.depose(&reading.fence).with_operation("take over"));
            }
            let beats = self.read_beats(reading.plausible_max(), deadline)?;
            self.applied = beats.applied.highest(self.remembered.reached);
            self.see_version(reading.version_floor().max(self.applied.version));
            next_number("version", self.version)?;
            let highest = reading.highest_term.max(self.applied.term);
            if highest > self.term {
                return Ok(Learned::HigherTerm(highest));
            }
            self.known = reading;
            match self.rewrite(class_b_until, deadline) {
                Ok(()) => {
                    let highest = self.applied.version;
                    self.known.mark_refused(&beats.applied_by, highest);
                    return Ok(Learned::All(beats));
                }
                Err(AttemptError::Failed(error)) => return Err(error.with_operation("take over")),
                // Most likely the former leader's last writes: take them in, go over them.
                Err(AttemptError::Unknown(why)) => {
                    let message =
                        format!("cannot rewrite the assignments in the new term ({why}); retry");
                    retries.count(
                        &Error::new(Code::Unavailable, message).with_operation("take over"),
                    )?;
                }
                Err(AttemptError::Again(cause, error)) => {
                    retries.again(cause, error.with_operation("take over"))?;
                }
            }
        }
    }

    /// Probes whether the bucket now accepts batches, if the mode is `auto` and currently per-key.
    pub(super) fn follow_upgrade(&mut self, deadline: Instant) -> Result<()> {
        if self.settings.mode != PublishMode::Auto || self.mode != ActiveMode::PerKey {
            return Ok(());
        }
        self.follow_capabilities(deadline).map(drop)
    }

    /// Changes the publish mode to the one that the store supports. Returns whether it changed.
    ///
    /// The fence record states the mode, and the next take-over relies on it. So a change of mode
    /// opens a further term, in which the fence is written again.
    pub(super) fn follow_capabilities(&mut self, deadline: Instant) -> Result<bool> {
        let before = self.mode;
        self.learn_capabilities(deadline)?;
        if self.mode == before {
            return Ok(false);
        }
        log::info!(
            target: "divvy::publisher", term = self.term, mode = self.mode.name();
            "publish mode changed to {}: {}",
            self.mode,
            self.store_description
        );
        self.term_state = TermState::Reopening;
        Ok(true)
    }

    fn learn_capabilities(&mut self, deadline: Instant) -> Result<()> {
        let probe_result = self.ask(deadline, |store| {
            store.capabilities(Bucket::Assignment, deadline)
        })?;
        let batch_max = probe_result.batch_max.min(self.settings.batch_max);
        // A batch has a leading record, so that one of a single write is of no use.
        let can_batch = batch_max >= 2;
        self.value_max = probe_result.value_max;
        self.store_description = match probe_result.batch_max {
            0 => format!("{}, no atomic batches", probe_result.description),
            most => format!(
                "{}, atomic batches of up to {most}",
                probe_result.description
            ),
        };
        self.batch_max = batch_max;
        self.mode = match (self.settings.mode, can_batch) {
            (PublishMode::Auto | PublishMode::Atomic, true) => ActiveMode::Atomic,
            (PublishMode::Auto, false) | (PublishMode::PerKey, _) => ActiveMode::PerKey,
            (PublishMode::Atomic, false) => {
                return Err(Error::new(
                    Code::Unsupported,
                    format!(
                        "publish_mode is atomic, but {} has no atomic batches for this bucket; \
                         use auto or per_key, or upgrade the server",
                        probe_result.description
                    ),
                )
                .with_operation("take over"));
            }
        };
        Ok(())
    }

    /// Writes the fence by compare-and-set; an unknown outcome is settled by reading it back.
    fn write_fence(
        &mut self,
        expected: Revision,
        class_b_until: Term,
        deadline: Instant,
    ) -> Result<Record<Fence>> {
        self.claim = Fence {
            term: self.term,
            leader: self.settings.leader.clone(),
            time: self.environment.wall_clock(),
            class: match self.mode {
                ActiveMode::Atomic => FENCE_CLASS_ATOMIC.into(),
                ActiveMode::PerKey => "B".into(),
            },
            class_b_until,
            version: self.version,
            nonce: self.environment.nonce(),
            config: self.config,
        };
        let value = self.claim.encode();
        let mut retries = self.retries(deadline);
        loop {
            let write = Write {
                key: FENCE_KEY.into(),
                value: Some(value.clone()),
                expect: Expect::Revision(expected),
            };
            let (cause, failure) = match self.write_one(write, deadline) {
                Outcome::Done(revision) => return Ok(self.claimed(revision)),
                outcome @ (Outcome::Refused(Refusal::Conflict) | Outcome::Unknown(_)) => {
                    // The same bytes are tried again, so an attempt that arrives late is ours.
                    let stored = self.ask(deadline, |store| {
                        store.read(Bucket::Assignment, FENCE_KEY, deadline)
                    })?;
                    match stored {
                        Some(entry) if entry.value == value => {
                            return Ok(self.claimed(entry.revision));
                        }
                        Some(entry) if entry.revision != expected => {
                            return Err(self.lost_to(&entry).with_operation("take over"));
                        }
                        _ => (RetryCause::Indeterminate, not_written(&outcome)),
                    }
                }
                Outcome::Refused(refusal) => match refused(refusal, FENCE_KEY) {
                    AttemptError::Failed(error) => return Err(error.with_operation("take over")),
                    AttemptError::Again(cause, error) => (cause, error),
                    AttemptError::Unknown(why) => (
                        RetryCause::Indeterminate,
                        Error::new(Code::Unavailable, why),
                    ),
                },
            };
            retries.again(cause, failure.with_operation("take over"))?;
        }
    }

    fn claimed(&self, revision: Revision) -> Record<Fence> {
        Record {
            revision,
            value: Some(self.claim.clone()),
        }
    }

    /// Handles a fence of another leader. A publisher that was opening a further term is deposed.
    fn lost_to(&mut self, entry: &Entry) -> Error {
        if self.term_state == TermState::Reopening {
            let value = Fence::decode(&entry.value).ok();
            let revision = entry.revision;
            return self.depose(&Record { revision, value });
        }
        Error::new(
            Code::Conflict,
            "another leader takes over at the same time; let it lead or retry",
        )
        .with_key(FENCE_KEY)
    }

    /// Rewrites the assignments and the commit record with the same content and the new term, so
    /// that every revision known to a former per-key leader is stale.
    ///
    /// What has no term, since a leader of parti wrote it, gets none: workers judge it by version
    /// alone, and a term would make them accept an old one.
    fn rewrite(&mut self, until: Term, deadline: Instant) -> PublishAttempt<()> {
        let is_known_to_b = |term: Option<Term>| match self.mode {
            ActiveMode::PerKey => term != Some(self.term),
            ActiveMode::Atomic => until > 0 && term.unwrap_or(0) <= until,
        };
        let mut workers = Vec::new();
        let mut writes = Vec::new();
        for (worker, assignment) in &self.known.stored {
            let Some(slot) = self.known.slots.get(worker) else {
                continue;
            };
            if !is_known_to_b(assignment.term) {
                continue; // an earlier attempt got this far
            }
            writes.push(Write {
                key: self.key_of(worker),
                value: Some(Assignment::encode(
                    assignment.version,
                    assignment.term.map(|_| self.term),
                    &assignment.lifecycle,
                    &wire::encode_partitions(assignment.partitions.iter()),
                )),
                expect: Expect::Revision(slot.revision),
            });
            workers.push(worker.clone());
        }
        let commit = self.known.commit.value.clone();
        let commit = commit.filter(|commit| is_known_to_b(Some(commit.term)));
        let term = self.term;
        let commit = commit.map(|commit| Commit { term, ..commit });
        if let Some(commit) = &commit {
            writes.push(Write {
                key: COMMIT_KEY.into(),
                value: Some(commit.encode()),
                expect: Expect::Revision(self.known.commit.revision),
            });
        }
        if writes.is_empty() {
            return Ok(());
        }
        let outcomes = self.store.write(Bucket::Assignment, &writes, deadline);
        let mut worst = Worst::of(writes.len());
        for (index, (write, outcome)) in writes.iter().zip(outcomes).enumerate() {
            match outcome {
                Outcome::Done(revision) => match (workers.get(index), &commit) {
                    (Some(worker), _) => self.rewritten(worker, revision),
                    (None, Some(commit)) => self.committed(commit, revision),
                    (None, None) => {}
                },
                Outcome::Unknown(why) => worst.add(AttemptError::Unknown(why)),
                Outcome::Refused(refusal) => worst.add(refused(refusal, &write.key)),
            }
        }
        worst.into_attempt()
    }

    fn rewritten(&mut self, worker: &WorkerId, revision: Revision) {
        if let Some(slot) = self.known.slots.get_mut(worker) {
            slot.revision = revision;
            // Its worker applies an assignment in a new term; one without a term is as old as
            // before.
            slot.needs_rewrite &= slot.is_foreign;
        }
        self.numbered(revision);
    }

    /// Reads the heartbeat bucket. `max` is the highest plausible term or version.
    pub(super) fn read_beats(&self, max: i64, deadline: Instant) -> Result<Beats> {
        let prefix = &self.settings.heartbeat;
        let listing = self.ask(deadline, |store| {
            store.list(Bucket::Heartbeat, prefix.as_str(), deadline)
        })?;
        let mut beats = Beats {
            heartbeats: Vec::with_capacity(listing.entries.len()),
            applied: Applied::default(),
            applied_by: BTreeMap::new(),
            malformed: MalformedValues::default(),
        };
        for entry in listing.entries {
            if prefix.is_protocol_key(&entry.key) {
                continue;
            }
            let mut ignore = |why: &Error| {
                let value = MalformedValue::new(Bucket::Heartbeat, &entry.key, &entry.value, why);
                beats.malformed.add(value);
            };
            let worker = match wire::worker_of_key(prefix, &entry.key) {
                Ok(worker) => worker,
                Err(why) => {
                    ignore(&why);
                    continue;
                }
            };
            if let Some(report) = wire::decode_heartbeat(&entry.value) {
                match report.highest.check_plausible(max) {
                    Ok(()) => {
                        beats.applied = beats.applied.highest(report.highest);
                        beats.applied_by.insert(worker.clone(), report.applied);
                    }
                    // The worker is alive all the same.
                    Err(why) => ignore(&why),
                }
            }
            beats.heartbeats.push(HeartbeatRecord {
                worker,
                operation: entry.operation,
                age: entry.age,
            });
        }
        beats.heartbeats.sort_by(|a, b| a.worker.cmp(&b.worker));
        Ok(beats)
    }
}

fn not_written(outcome: &Outcome) -> Error {
    let message = match outcome {
        Outcome::Unknown(why) => format!("cannot write the fence record: {why}"),
        _ => "cannot write the fence record".into(),
    };
    Error::new(Code::Unavailable, message).with_key(FENCE_KEY)
}

/// Returns the highest term in which a per-key leader may know the revisions of keys; 0: none.
fn class_b_until(found: &BucketReading) -> Term {
    match &found.fence.value {
        Some(fence) if fence.class == FENCE_CLASS_ATOMIC => fence.class_b_until,
        // It was stored, or the outcome is unknown.
        _ => found.highest_term,
    }
}

/// Returns the leader in the fence record, if it is a worker.
fn former_leader(fence: &Record<Fence>) -> Option<WorkerId> {
    let fence = fence.value.as_ref()?;
    WorkerId::new(&fence.leader).ok()
}

//! Opening a term: the fence first, then everything else.

use std::time::Instant;

use super::{Attempt, Class, Publisher, Setback, next_number, refused};
use crate::config::PublishClass;
use crate::error::{Code, Error, Result};
use crate::machine::publication::{Reading, Record};
use crate::machine::takeover::Heartbeat;
use crate::store::{Bucket, Expect, Outcome, Refusal, Write};
use crate::types::{Partition, Revision, Term, Version, WorkerId};
use crate::wire::{self, Applied, Assignment, COMMIT_KEY, FENCE_KEY, Fence};

/// How often a term is opened anew because something above it was found afterwards.
const TERMS_MAX: u32 = 4;

/// What a take-over found.
#[derive(Debug)]
pub struct Found {
    /// The term that it opened.
    pub term: Term,
    /// The highest version found in any record, assignment or heartbeat.
    pub version: Version,
    /// The stored assignments.
    pub stored: Vec<(WorkerId, Vec<Partition>)>,
    /// Whether they are one complete plan.
    pub consistent: bool,
    /// The heartbeat keys.
    pub heartbeats: Vec<Heartbeat>,
    /// Who led before, where the fence record names a worker.
    pub former_leader: Option<WorkerId>,
    /// Values that could not be understood.
    pub poison: u32,
}

/// The heartbeat bucket at one moment.
pub(super) struct Beats {
    heartbeats: Vec<Heartbeat>,
    /// The highest term and version that any worker has applied.
    applied: Applied,
    poison: u32,
}

impl Publisher {
    /// Takes over: opens a term above everything found and learns what is stored.
    ///
    /// # Errors
    /// `Conflict` when another leader takes over at the same moment; `InvalidData` when a stored
    /// number leaves no room above it; what the store reports otherwise.
    pub fn take_over(&mut self, deadline: Instant) -> Result<Found> {
        self.learn_capabilities(deadline)?;
        let reading = self.read_all(deadline)?;
        let former_leader = former_leader(&reading.fence);
        let beats = self.read_beats(deadline)?;
        let floor = reading.highest_term.max(beats.applied.term);
        let beats = self.open_term(&reading, floor, deadline)?;
        let found = Found {
            term: self.term,
            version: self.version,
            consistent: self.known.is_consistent(),
            former_leader,
            poison: self.known.poison + beats.poison,
            heartbeats: beats.heartbeats,
            stored: std::mem::take(&mut self.known.stored)
                .into_iter()
                .map(|(worker, assignment)| (worker, assignment.partitions))
                .collect(),
        };
        log::info!(
            target: "divvy::publisher",
            term = found.term, version = found.version, workers = found.stored.len();
            "took over"
        );
        Ok(found)
    }

    /// Opens a term above `floor`, then reads everything; again, should that show a higher one.
    pub(super) fn open_term(
        &mut self,
        found: &Reading,
        mut floor: Term,
        deadline: Instant,
    ) -> Result<Beats> {
        let mut expected = found.fence.revision;
        // A former leader of class B may hold revisions that only a rewrite makes stale.
        let former_is_b = found.fence.value.as_ref().is_some_and(|f| f.class != "A");
        for _ in 0..TERMS_MAX {
            self.set_term(next_number("term", floor)?);
            self.fence = self.write_fence(expected, deadline)?;
            expected = self.fence;
            // From here on no former leader can change what is read (class A), or the rewrite
            // below finds out that one did (class B).
            let reading = self.learn(deadline)?;
            let beats = self.read_beats(deadline)?;
            let highest = reading.highest_term.max(beats.applied.term);
            self.version = self
                .version
                .max(reading.highest_version)
                .max(beats.applied.version);
            if highest > self.term {
                floor = highest;
                continue;
            }
            self.known = reading;
            if self.class == Class::B || former_is_b {
                self.rewrite_all(deadline)?;
            }
            return Ok(beats);
        }
        Err(Error::new(
            Code::Conflict,
            "somebody keeps writing terms above the one being opened; find out who",
        )
        .during("take over"))
    }

    fn learn_capabilities(&mut self, deadline: Instant) -> Result<()> {
        let proven = self.store.capabilities(Bucket::Assignment, deadline)?;
        let batch_max = proven.batch_max.min(self.settings.batch_max);
        // A batch has a leading record, so that one of a single write is of no use.
        let can_batch = batch_max >= 2;
        self.value_max = proven.value_max;
        self.class = match (self.settings.class, can_batch) {
            (PublishClass::Auto | PublishClass::A, true) => Class::A { batch_max },
            (PublishClass::Auto, false) | (PublishClass::B, _) => Class::B,
            (PublishClass::A, false) => {
                return Err(Error::new(
                    Code::Unsupported,
                    format!(
                        "publish_class is A, but {} has no atomic batches for this bucket;                          use auto or B, or upgrade the server",
                        proven.description
                    ),
                )
                .during("take over"));
            }
        };
        Ok(())
    }

    /// Reads everything under the new fence; another take-over in between wins.
    fn learn(&mut self, deadline: Instant) -> Result<Reading> {
        let reading = self.read_all(deadline)?;
        if reading.fence.revision == self.fence {
            return Ok(reading);
        }
        Err(self.depose(&reading.fence))
    }

    /// Writes the fence by compare-and-set; an unknown outcome is settled by reading it back.
    fn write_fence(&mut self, expected: Revision, deadline: Instant) -> Result<Revision> {
        let fence = Fence {
            term: self.term,
            leader: self.settings.leader.clone(),
            time: self.surroundings.wall_clock(),
            class: match self.class {
                Class::A { .. } => "A".into(),
                Class::B => "B".into(),
            },
        };
        let value = fence.encode();
        for attempt in 1..=super::ATTEMPTS_MAX {
            let write = Write {
                key: FENCE_KEY.into(),
                value: Some(value.clone()),
                expect: Expect::Revision(expected),
            };
            match self.write_one(write, deadline) {
                Outcome::Done(revision) => return Ok(revision),
                Outcome::Refused(Refusal::Conflict) | Outcome::Unknown(_) => {
                    // The same bytes are tried again, so an attempt that arrives late is ours.
                    let stored = self.store.read(Bucket::Assignment, FENCE_KEY, deadline)?;
                    match stored {
                        Some(entry) if entry.value == value => return Ok(entry.revision),
                        Some(entry) if entry.revision != expected => {
                            return Err(Error::new(
                                Code::Conflict,
                                "another leader takes over at the same moment; let it lead, or try again",
                            )
                            .during("take over")
                            .on_key(FENCE_KEY));
                        }
                        _ => self.pause_before_retry(attempt)?,
                    }
                }
                Outcome::Refused(refusal) => match refused(refusal, FENCE_KEY) {
                    Setback::Failed(error) => return Err(error.during("take over")),
                    Setback::Busy | Setback::Doubt(_) => self.pause_before_retry(attempt)?,
                },
            }
        }
        Err(
            Error::new(Code::Unavailable, "the fence record could not be written")
                .during("take over")
                .on_key(FENCE_KEY),
        )
    }

    /// Class B: rewrites every assignment and the commit record, same content, new term, so that
    /// every revision that a former leader knows is stale.
    fn rewrite_all(&mut self, deadline: Instant) -> Result<()> {
        for attempt in 1..=super::ATTEMPTS_MAX {
            match self.rewrite_once(deadline) {
                Ok(()) => return Ok(()),
                Err(Setback::Failed(error)) => return Err(error.during("take over")),
                Err(Setback::Busy) => self.pause_before_retry(attempt)?,
                Err(Setback::Doubt(_)) => {
                    // Most likely the former leader's last writes: take them in, go over them.
                    let reading = self.learn(deadline)?;
                    self.version = self.version.max(reading.highest_version);
                    self.known = reading;
                }
            }
        }
        Err(Error::new(
            Code::Unavailable,
            "the assignments could not be brought under the new term; try again",
        )
        .during("take over"))
    }

    fn rewrite_once(&mut self, deadline: Instant) -> Attempt<()> {
        let mut workers = Vec::new();
        let mut writes = Vec::new();
        for (worker, assignment) in &self.known.stored {
            if assignment.term == Some(self.term) {
                continue; // an earlier attempt got this far
            }
            let Some(slot) = self.known.slots.get(worker) else {
                continue;
            };
            writes.push(Write {
                key: self.key_of(worker),
                value: Some(Assignment::encode(
                    assignment.version,
                    self.term,
                    &assignment.lifecycle,
                    &wire::encode_partitions(assignment.partitions.iter()),
                )),
                expect: Expect::Revision(slot.revision),
            });
            workers.push(worker.clone());
        }
        let mut commit = self.known.commit.value.clone();
        if let Some(commit) = &mut commit {
            if commit.term != self.term {
                commit.term = self.term;
                writes.push(Write {
                    key: COMMIT_KEY.into(),
                    value: Some(commit.encode()),
                    expect: Expect::Revision(self.known.commit.revision),
                });
            }
        }
        if writes.is_empty() {
            return Ok(());
        }
        let outcomes = self.store.write(Bucket::Assignment, &writes, deadline);
        let mut worst = Ok(());
        for (index, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Outcome::Done(revision) => {
                    self.known.last_sequence = self.known.last_sequence.max(revision);
                    match workers.get(index) {
                        Some(worker) => self.rewritten(worker, revision),
                        None => {
                            self.known.commit = Record {
                                revision,
                                value: commit.clone(),
                            };
                        }
                    }
                }
                Outcome::Refused(Refusal::Conflict) => {
                    worst = Err(Setback::Doubt("a key was written meanwhile".into()));
                }
                Outcome::Unknown(why) => worst = Err(Setback::Doubt(why)),
                Outcome::Refused(refusal) => {
                    let setback = refused(refusal, &writes[index].key);
                    if worst.is_ok() {
                        worst = Err(setback);
                    }
                }
            }
        }
        worst
    }

    fn rewritten(&mut self, worker: &WorkerId, revision: Revision) {
        if let Some(slot) = self.known.slots.get_mut(worker) {
            slot.revision = revision;
        }
        let place = self.known.stored.binary_search_by(|(w, _)| w.cmp(worker));
        if let Ok(index) = place {
            self.known.stored[index].1.term = Some(self.term);
        }
    }

    fn read_beats(&self, deadline: Instant) -> Result<Beats> {
        let prefix = &self.settings.heartbeat;
        let listing = self
            .store
            .list(Bucket::Heartbeat, prefix.as_str(), deadline)?;
        let mut beats = Beats {
            heartbeats: Vec::with_capacity(listing.entries.len()),
            applied: Applied::default(),
            poison: 0,
        };
        for entry in listing.entries {
            let Ok(worker) = wire::worker_of_key(prefix, &entry.key) else {
                beats.poison += 1;
                continue;
            };
            if let Some(applied) = wire::decode_heartbeat(&entry.value) {
                beats.applied.term = beats.applied.term.max(applied.term);
                beats.applied.version = beats.applied.version.max(applied.version);
            }
            beats.heartbeats.push(Heartbeat {
                worker,
                operation: entry.operation,
                age: entry.age,
            });
        }
        beats.heartbeats.sort_by(|a, b| a.worker.cmp(&b.worker));
        Ok(beats)
    }
}

/// Who led before: the fence record's leader, where it is a worker.
fn former_leader(fence: &Record<Fence>) -> Option<WorkerId> {
    let fence = fence.value.as_ref()?;
    WorkerId::new(&fence.leader).ok()
}

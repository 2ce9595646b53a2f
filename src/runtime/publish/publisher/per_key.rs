//! Per-key mode: single writes, each under a condition that a deposed leader cannot meet.

use std::time::Instant;

use super::{AttemptError, Draft, PublishAttempt, Publisher, refused};
use crate::error::Failures;
use crate::machine::publication::Change;
use crate::metrics::RetryCause;
use crate::store::{Bucket, Expect, Outcome, Write};
use crate::wire::COMMIT_KEY;

/// What one round of writes does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Assign,
    Delete,
}

impl Publisher {
    pub(super) fn publish_singly(
        &mut self,
        draft: &mut Draft,
        deadline: Instant,
    ) -> PublishAttempt<()> {
        self.overwrite(draft, Step::Assign, deadline)?;
        self.create(draft, deadline)?;
        // After the new version is stored: the keys of departed workers may be the last that hold
        // the highest version so far.
        self.overwrite(draft, Step::Delete, deadline)?;
        self.commit(draft, deadline)
    }

    /// Writes the keys that hold something, each on the condition of its own revision, all in flight at
    /// once.
    fn overwrite(
        &mut self,
        draft: &mut Draft,
        step: Step,
        deadline: Instant,
    ) -> PublishAttempt<()> {
        let (changes, writes): (Vec<&Change>, Vec<Write>) = draft
            .changes
            .iter()
            .zip(&mut draft.values)
            .filter(|(change, _)| change.partitions.is_none() == (step == Step::Delete))
            .filter_map(|(change, value)| {
                let write = Write {
                    key: self.key_of(&change.worker),
                    expect: Expect::Revision(change.revision?),
                    value: value.take(),
                };
                Some((change, write))
            })
            .unzip();
        if writes.is_empty() {
            return Ok(());
        }
        let outcomes = self.store.write(Bucket::Assignment, &writes, deadline);
        let mut worst = Worst::of(writes.len());
        for ((change, write), outcome) in changes.iter().zip(&writes).zip(outcomes) {
            if let Err(attempt_error) = self.record_outcome(change, &write.key, outcome) {
                worst.add(attempt_error);
            }
        }
        worst.into_attempt()
    }

    /// Creates keys that hold nothing, and so have no revision that a take-over would make stale. The
    /// condition is the bucket's last sequence, which every take-over moves. Each creation moves it
    /// as well, so they are written one by one.
    fn create(&mut self, draft: &mut Draft, deadline: Instant) -> PublishAttempt<()> {
        for (change, value) in draft.changes.iter().zip(&mut draft.values) {
            if change.revision.is_some() {
                continue;
            }
            let write = Write {
                key: self.key_of(&change.worker),
                value: value.take(),
                expect: Expect::LastSequence(self.known.last_sequence),
            };
            let key = write.key.clone();
            let outcome = self.write_one(write, deadline);
            self.record_outcome(change, &key, outcome)?;
        }
        Ok(())
    }

    /// The commit record comes last: a plan without its record is known to be incomplete.
    fn commit(&mut self, draft: &Draft, deadline: Instant) -> PublishAttempt<()> {
        let record = &self.known.commit;
        let write = Write {
            key: COMMIT_KEY.into(),
            value: Some(draft.commit.encode()),
            expect: match record.value {
                Some(_) => Expect::Revision(record.revision),
                None => Expect::LastSequence(self.known.last_sequence),
            },
        };
        let outcome = self.write_one(write, deadline);
        match outcome {
            Outcome::Done(revision) => {
                self.committed(&draft.commit, revision);
                Ok(())
            }
            Outcome::Refused(refusal) => Err(refused(refusal, COMMIT_KEY)),
            Outcome::Unknown(why) => Err(AttemptError::Unknown(why)),
        }
    }

    fn record_outcome(
        &mut self,
        change: &Change,
        key: &str,
        outcome: Outcome,
    ) -> PublishAttempt<()> {
        match outcome {
            Outcome::Done(revision) => {
                self.stored(change, revision);
                Ok(())
            }
            Outcome::Refused(refusal) => Err(refused(refusal, key)),
            Outcome::Unknown(why) => {
                self.mark_stale(change);
                Err(AttemptError::Unknown(why))
            }
        }
    }
}

/// The worst outcome of many writes at once. Every outcome is recorded before it is handled.
pub(super) struct Worst {
    failures: Failures,
    unknown: Option<String>,
    refusals: Failures,
    /// The cause of the refusals.
    cause: RetryCause,
}

impl Worst {
    pub(super) fn of(writes: usize) -> Self {
        Self {
            failures: Failures::new(writes),
            unknown: None,
            refusals: Failures::new(writes),
            cause: RetryCause::Busy,
        }
    }

    pub(super) fn add(&mut self, attempt_error: AttemptError) {
        match attempt_error {
            AttemptError::Failed(error) => self.failures.add(error),
            AttemptError::Unknown(why) => self.unknown = self.unknown.take().or(Some(why)),
            AttemptError::Again(cause, error) => {
                self.cause = cause;
                self.refusals.add(error);
            }
        }
    }

    /// The most restrictive outcome wins: failures, then unknown outcomes, then transient refusals.
    pub(super) fn into_attempt(self) -> PublishAttempt<()> {
        if let Some(error) = self.failures.into_error() {
            return Err(AttemptError::Failed(error));
        }
        if let Some(why) = self.unknown {
            return Err(AttemptError::Unknown(why));
        }
        match self.refusals.into_error() {
            Some(error) => Err(AttemptError::Again(self.cause, error)),
            None => Ok(()),
        }
    }
}

//! Class B: single writes, each under a condition that a deposed leader cannot meet.

use std::time::Instant;

use super::{Attempt, Draft, Publisher, Setback, refused};
use crate::machine::publication::Change;
use crate::store::{Bucket, Expect, Outcome, Refusal, Write};
use crate::wire::COMMIT_KEY;

impl Publisher {
    pub(super) fn publish_singly(&mut self, draft: &Draft, deadline: Instant) -> Attempt<()> {
        // The writes themselves are safe without this look; it saves a leader that was deposed
        // long ago from leaving half a plan behind in the moment of the take-over.
        self.check_fence(deadline)?;
        self.overwrite(draft, deadline)?;
        self.create(draft, deadline)?;
        self.commit(draft, deadline)
    }

    /// Keys that hold something are protected by their own revision: all in flight at once.
    fn overwrite(&mut self, draft: &Draft, deadline: Instant) -> Attempt<()> {
        let (changes, writes): (Vec<&Change>, Vec<Write>) = draft
            .changes
            .iter()
            .zip(&draft.values)
            .filter_map(|(change, value)| {
                let write = Write {
                    key: self.key_of(&change.worker),
                    value: value.clone(),
                    expect: Expect::Revision(change.revision?),
                };
                Some((change, write))
            })
            .unzip();
        if writes.is_empty() {
            return Ok(());
        }
        let outcomes = self.store.write(Bucket::Assignment, &writes, deadline);
        // Every outcome is taken in before the first bad one is acted upon.
        let mut worst = Ok(());
        for ((change, write), outcome) in changes.iter().zip(&writes).zip(outcomes) {
            let result = self.take_in(&write.key, outcome, deadline);
            match result {
                Ok(revision) => self.stored(change, revision),
                Err(setback) => worst = Err(graver(worst, setback)),
            }
        }
        worst
    }

    /// A key that holds nothing has no revision that a take-over would have made stale. It is
    /// created under the bucket's last sequence, which every take-over moves; one by one, since
    /// each moves it as well.
    fn create(&mut self, draft: &Draft, deadline: Instant) -> Attempt<()> {
        for (change, value) in draft.changes.iter().zip(&draft.values) {
            if change.revision.is_some() {
                continue;
            }
            let write = Write {
                key: self.key_of(&change.worker),
                value: value.clone(),
                expect: Expect::LastSequence(self.known.last_sequence),
            };
            let key = write.key.clone();
            let outcome = self.write_one(write, deadline);
            let revision = self.take_in(&key, outcome, deadline)?;
            self.stored(change, revision);
        }
        Ok(())
    }

    /// The commit record comes last: a plan without its record is known to be incomplete.
    fn commit(&mut self, draft: &Draft, deadline: Instant) -> Attempt<()> {
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
        let revision = self.take_in(COMMIT_KEY, outcome, deadline)?;
        self.committed(&draft.commit, revision);
        Ok(())
    }

    fn take_in(&mut self, key: &str, outcome: Outcome, deadline: Instant) -> Attempt<u64> {
        match outcome {
            Outcome::Done(revision) => Ok(revision),
            Outcome::Refused(Refusal::Conflict) => Err(self.settle_conflict(key, deadline)),
            Outcome::Refused(refusal) => Err(refused(refusal, key)),
            Outcome::Unknown(why) => Err(Setback::Doubt(why)),
        }
    }
}

/// Of two setbacks the one that rules out more: a failure, then a doubt, then business.
fn graver(worst: Attempt<()>, setback: Setback) -> Setback {
    match (worst, setback) {
        (Err(Setback::Failed(error)), _) | (_, Setback::Failed(error)) => Setback::Failed(error),
        (Err(Setback::Doubt(why)), _) | (_, Setback::Doubt(why)) => Setback::Doubt(why),
        (_, Setback::Busy) => Setback::Busy,
    }
}

//! Atomic mode: what changes becomes visible at once, in batches that depend on the fence.

use std::time::Instant;

use super::{AttemptError, Draft, PublishAttempt, Publisher, refused};
use crate::config::PublishMode;
use crate::store::{Batch, Bucket, Expect, Outcome, Refusal, Write};
use crate::types::Revision;
use crate::wire::{COMMIT_KEY, FENCE_KEY, GUARD_KEY};

impl Publisher {
    /// One batch where it fits. The first message of a batch has room for one check only, and
    /// that is the fence's: it is the commit record, or in the batches before the last a guard.
    pub(super) fn publish_atomically(
        &mut self,
        draft: &mut Draft,
        batch_max: usize,
        deadline: Instant,
    ) -> PublishAttempt<()> {
        let room = batch_max.saturating_sub(1).max(1);
        let batches = draft.changes.len().div_ceil(room);
        for (number, chunk) in draft.changes.chunks(room).enumerate() {
            let is_last = number + 1 == batches;
            let first = number * room;
            let mut writes = Vec::with_capacity(chunk.len() + 1);
            writes.push(self.leading_write(draft, is_last));
            for (change, value) in chunk.iter().zip(&mut draft.values[first..]) {
                let known = self.known.slots.get(&change.worker);
                writes.push(Write {
                    key: self.key_of(&change.worker),
                    value: value.take(),
                    expect: Expect::Revision(known.map_or(0, |slot| slot.revision)),
                });
            }
            let batch = Batch {
                fence: Some((FENCE_KEY.into(), self.fence.revision)),
                writes,
            };
            let end = match self.store.write_batch(Bucket::Assignment, &batch, deadline) {
                Outcome::Done(end) => end,
                // The bucket may have stopped to accept batches, or its leader is an older server.
                Outcome::Refused(Refusal::Invalid(why)) if self.follow_downgrade(deadline)? => {
                    return Err(AttemptError::Unknown(why));
                }
                Outcome::Refused(refusal) => {
                    return Err(refused(refusal, &self.key_of(&chunk[0].worker)));
                }
                Outcome::Unknown(why) => {
                    chunk.iter().for_each(|change| self.mark_stale(change));
                    return Err(AttemptError::Unknown(why));
                }
            };
            // The writes of a batch are numbered without gaps and end with this number.
            let mut revision = end - chunk.len() as Revision;
            if is_last {
                self.committed(&draft.commit, revision);
            }
            for change in chunk {
                revision += 1;
                self.stored(change, revision);
            }
        }
        Ok(())
    }

    fn follow_downgrade(&mut self, deadline: Instant) -> PublishAttempt<bool> {
        let may_change = self.settings.mode == PublishMode::Auto;
        Ok(may_change && self.follow_capabilities(deadline)?)
    }

    fn leading_write(&self, draft: &Draft, is_last: bool) -> Write {
        let (key, value) = if is_last {
            (COMMIT_KEY, draft.commit.encode())
        } else {
            let guard = format!(r#"{{"term":{},"version":{}}}"#, self.term, draft.version);
            (GUARD_KEY, guard.into_bytes())
        };
        Write {
            key: key.into(),
            value: Some(value),
            expect: Expect::Any,
        }
    }
}

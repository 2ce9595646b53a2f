//! What the publisher knows of the bucket by its own writes.

use super::Publisher;
use crate::machine::publication::{AssignmentSlot, Change, Content, Record};
use crate::types::Revision;
use crate::wire::Commit;

impl Publisher {
    /// Records that a change was stored with this revision.
    pub(super) fn stored(&mut self, change: &Change, revision: Revision) {
        let content = match &change.partitions {
            Some((_, hash)) => Content::Assigned(*hash),
            None => Content::Deleted,
        };
        let slot = AssignmentSlot {
            revision,
            content,
            is_foreign: false,
            needs_rewrite: false,
        };
        self.known.slots.insert(change.worker.clone(), slot);
        self.numbered(revision);
    }

    /// Records that a change may have been stored, or may still be stored.
    pub(super) fn mark_stale(&mut self, change: &Change) {
        let slots = &mut self.known.slots;
        let slot = slots
            .entry(change.worker.clone())
            .or_insert(AssignmentSlot::NONE);
        slot.needs_rewrite = true;
    }

    /// Records the revision of an own write. After a gap the bucket's last sequence stays
    /// unchanged: the unseen writes may include a new leader's fence.
    pub(super) fn numbered(&mut self, revision: Revision) {
        if revision == self.known.last_sequence + 1 {
            self.known.last_sequence = revision;
        }
    }

    pub(super) fn committed(&mut self, commit: &Commit, revision: Revision) {
        self.known.commit = Record {
            revision,
            value: Some(commit.clone()),
        };
        self.numbered(revision);
    }
}

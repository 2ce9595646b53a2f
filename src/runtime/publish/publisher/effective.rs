//! What a publisher has reached, and whether its bucket is watched.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::types::{Term, Version};
use crate::wire::Applied;

/// State that a publisher shares with the watcher of its bucket: the term and version reached, each
/// set before anything that carries it is written, and whether the watch is synchronised.
#[derive(Debug, Default)]
pub struct Effective {
    term: AtomicI64,
    version: AtomicI64,
    /// Odd while the watch of the assignment bucket is synchronised; each change is one more.
    watch: AtomicU64,
}

impl Effective {
    /// The numbers reached so far.
    #[must_use]
    pub fn get(&self) -> Applied {
        Applied {
            term: self.term.load(Ordering::Acquire),
            version: self.version.load(Ordering::Acquire),
        }
    }

    pub(super) fn set_term(&self, term: Term) {
        self.term.store(term, Ordering::Release);
    }

    pub(super) fn set_version(&self, version: Version) {
        self.version.store(version, Ordering::Release);
    }

    /// Records that the watch of the assignment bucket delivers every change from now on.
    pub fn watch_resynchronised(&self) {
        self.watch.fetch_or(1, Ordering::AcqRel);
    }

    /// Records that the watch of the assignment bucket was lost: changes, or the replacement of the
    /// bucket, may go unnoticed until it is resynchronised.
    pub fn watch_lost(&self) {
        let next = |count: u64| (count % 2 == 1).then(|| count.wrapping_add(1));
        let _ = self
            .watch
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    /// The stretch without a loss that the watch is in; `None` while it is lost.
    pub(super) fn watch_stretch(&self) -> Option<u64> {
        let count = self.watch.load(Ordering::Acquire);
        (count % 2 == 1).then_some(count)
    }
}

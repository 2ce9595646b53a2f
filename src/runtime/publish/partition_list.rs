//! The partition list: pulled from a source of the host's, or pushed by the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::host_call::guarded;
use crate::error::{Code, Error, Result};
use crate::strategy::canonical_partitions;
use crate::types::Partition;

/// Where the partition list comes from when it is pulled.
///
/// Called on the thread `dv-publish`: at the start, at every rebalance and at `refresh`. It may
/// take time; a rebalance waits for it. An error or a panic keeps the last plan and is retried.
pub trait PartitionSource: Send + Sync {
    /// All partitions: unique by keys, each with at least one key, in any order.
    ///
    /// # Errors
    /// Any failure of the source. The last plan stays in force, and the source is read again.
    fn list_partitions(&self, deadline: Instant) -> Result<Vec<Partition>>;
}

impl<F> PartitionSource for F
where
    F: Fn() -> Result<Vec<Partition>> + Send + Sync,
{
    fn list_partitions(&self, _deadline: Instant) -> Result<Vec<Partition>> {
        self()
    }
}

impl<S: PartitionSource> PartitionSource for Arc<S> {
    fn list_partitions(&self, deadline: Instant) -> Result<Vec<Partition>> {
        (**self).list_partitions(deadline)
    }
}

/// The partition list: pulled from a source, or pushed by the host. Shared with the handle.
pub struct Partitions {
    source: Option<Arc<dyn PartitionSource>>,
    pushed: Mutex<Option<Arc<[Partition]>>>,
    generation: AtomicU64,
    /// Whether the host confirms the next list, whatever it lost.
    is_confirmed: AtomicBool,
}

impl Partitions {
    /// A list that is read from `source` whenever it is needed.
    #[must_use]
    pub fn pulled(source: Arc<dyn PartitionSource>) -> Self {
        Self {
            source: Some(source),
            pushed: Mutex::new(None),
            generation: AtomicU64::new(0),
            is_confirmed: AtomicBool::new(false),
        }
    }

    /// A list that the host pushes.
    #[must_use]
    pub fn pushed() -> Self {
        Self {
            source: None,
            pushed: Mutex::new(None),
            generation: AtomicU64::new(0),
            is_confirmed: AtomicBool::new(false),
        }
    }

    /// Whether there is a list at all.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.source.is_some() || self.pushed.lock().is_some()
    }

    /// Takes a pushed list and returns the number of this change.
    ///
    /// # Errors
    /// `InvalidArgument` for duplicates and partitions without keys, and when the list is pulled.
    pub fn push(&self, list: Vec<Partition>) -> Result<u64> {
        if self.source.is_some() {
            return Err(Error::new(
                Code::InvalidArgument,
                "the calculator has a partition source; call refresh instead",
            ));
        }
        let list: Arc<[Partition]> = canonical_partitions(list)?.into();
        *self.pushed.lock() = Some(list);
        Ok(self.touch())
    }

    /// Confirms the next list that is read, however much it lost.
    pub fn confirm(&self) {
        self.is_confirmed.store(true, Ordering::Release);
    }

    /// Takes the host's confirmation, which counts once.
    pub(super) fn take_confirmation(&self) -> bool {
        self.is_confirmed.swap(false, Ordering::AcqRel)
    }

    /// Notes that the list may have changed and returns the number of this change.
    pub fn touch(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The list in canonical order, and the newest change that it covers.
    pub(super) fn read(&self, deadline: Instant) -> Result<(Arc<[Partition]>, u64)> {
        // Before the list: a change while it is read must not count as covered.
        let generation = self.generation.load(Ordering::Acquire);
        let Some(source) = &self.source else {
            let pushed = self.pushed.lock().clone();
            let list = pushed
                .ok_or_else(|| Error::new(Code::SourceFailed, "no partition list has been set"))?;
            return Ok((list, generation));
        };
        let list = guarded(Code::SourceFailed, "partition source", || {
            source.list_partitions(deadline)
        })?;
        let list = canonical_partitions(list)
            .map_err(|error| Error::new(Code::SourceFailed, error.message()))?;
        Ok((list.into(), generation))
    }
}

impl std::fmt::Debug for Partitions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partitions")
            .field("pulled", &self.source.is_some())
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

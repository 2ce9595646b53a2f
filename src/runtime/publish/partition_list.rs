//! The partition list: pulled from a source of the host's, or pushed by the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::list_reader::ListReader;
pub use super::list_reader::PartitionSource;
use crate::error::{Code, Error, Result};
use crate::machine::publication::keys_digest;
use crate::strategy::canonical_partitions;
use crate::types::Partition;

/// The digest of a list that is not known. No `u32`.
const UNKNOWN: u64 = u64::MAX;

/// The partition list: pulled from a source, or pushed by the host. Shared with the handle.
pub struct Partitions {
    source: Option<Arc<dyn PartitionSource>>,
    pushed: Mutex<Option<Arc<[Partition]>>>,
    generation: AtomicU64,
    /// Digest of the newest list; [`UNKNOWN`] before there is one.
    digest: AtomicU64,
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
            digest: AtomicU64::new(UNKNOWN),
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
            digest: AtomicU64::new(UNKNOWN),
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
        let mut pushed = self.pushed.lock();
        self.set_digest(&list);
        *pushed = Some(list);
        drop(pushed);
        Ok(self.touch())
    }

    /// Returns the digest of the keys of the newest list, if one is known. Does not call the source.
    #[must_use]
    pub fn digest(&self) -> Option<u32> {
        u32::try_from(self.digest.load(Ordering::Acquire)).ok()
    }

    fn set_digest(&self, list: &[Partition]) {
        let digest = u64::from(keys_digest(list));
        self.digest.store(digest, Ordering::Release);
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

    /// Where a pulled list comes from.
    pub(crate) fn source(&self) -> Option<Arc<dyn PartitionSource>> {
        self.source.clone()
    }

    /// Returns the list in canonical order and the newest change that it covers; `None` if the
    /// source has not returned by `wait`.
    pub(super) fn read(
        &self,
        reader: &mut dyn ListReader,
        wait: Instant,
    ) -> Result<Option<(Arc<[Partition]>, u64)>> {
        // Before the list: a change while it is read must not count as covered.
        let generation = self.generation.load(Ordering::Acquire);
        let Some(source) = &self.source else {
            let pushed = self.pushed.lock().clone();
            let list = pushed
                .ok_or_else(|| Error::new(Code::SourceFailed, "no partition list has been set"))?;
            return Ok(Some((list, generation)));
        };
        let Some((generation, list)) = reader.read(&**source, generation, wait) else {
            return Ok(None);
        };
        let list = canonical_partitions(list?)
            .map_err(|error| Error::new(Code::SourceFailed, error.message()))?;
        self.set_digest(&list);
        Ok(Some((list.into(), generation)))
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

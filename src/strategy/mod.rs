//! Strategies: pure functions from workers, partitions and the previous plan to a new plan.

use crate::error::{Error, Result};
use crate::types::{Partition, WorkerId};

/// Index of a worker in [`Input::workers`].
pub type WorkerIndex = u32;

/// What a strategy works on. Everything is sorted, so that equal inputs are equal slices.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The live workers: unique, sorted bytewise, at least one.
    pub workers: &'a [WorkerId],
    /// The partitions: unique by keys, in canonical order (key by key, bytewise, shorter first).
    pub partitions: &'a [Partition],
    /// The worker that holds each partition now; `None` when nobody does, or nobody who is
    /// live. As long as `partitions`.
    pub previous: &'a [Option<WorkerIndex>],
}

/// Decides which worker gets which partition.
///
/// A strategy is deterministic: the same input gives the same plan. It may be slow (it runs on
/// the publisher's thread), it may fail, and it may panic (the last plan stays).
pub trait Strategy: Send + Sync {
    /// The strategy's name, for logs, metrics and status.
    fn name(&self) -> &str;

    /// The owner of each partition, as long as `input.partitions`; every index is one of
    /// `input.workers`. Anything else is refused by the caller as an invalid plan.
    ///
    /// # Errors
    /// Whatever keeps the strategy from making a plan; the last plan stays and this is retried.
    fn assign(&self, input: &Input<'_>) -> Result<Vec<WorkerIndex>, Error>;
}

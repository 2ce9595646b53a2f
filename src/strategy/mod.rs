//! Strategies: pure functions from workers, partitions and the previous plan to a new plan.
//!
//! A custom strategy is a few lines:
//!
//! ```
//! use divvy::error::Error;
//! use divvy::strategy::{PlanInput, Strategy, WorkerIndex};
//!
//! /// Everything to the first worker; the others are hot spares.
//! struct Primary;
//!
//! impl Strategy for Primary {
//!     fn name(&self) -> &str {
//!         "primary"
//!     }
//!
//!     fn assign(&self, input: &PlanInput<'_>) -> Result<Vec<WorkerIndex>, Error> {
//!         Ok(vec![0; input.partitions.len()])
//!     }
//! }
//! ```

mod check;
mod consistent_hash;
mod diff;
mod explain;
mod fair;
mod hash;
mod normalise;
mod plan;
mod quality;
mod ring;
mod round_robin;
mod sticky;
mod strategy_options;
mod weighted_consistent_hash;

pub use crate::vocabulary::StrategyKind;
pub use check::check;
pub use consistent_hash::ConsistentHash;
pub use diff::{Diff, WorkerDiff, diff};
pub use explain::{Cause, Explanation, explain};
pub use hash::hash_keys;
pub use normalise::{canonical_partitions, canonical_workers};
pub use plan::{Plan, previous_from_lists};
pub use quality::{Quality, quality};
pub use round_robin::RoundRobin;
pub use sticky::Sticky;
pub use strategy_options::StrategyOptions;
pub use weighted_consistent_hash::WeightedConsistentHash;

use std::sync::Arc;

use crate::error::{Code, Error, Result};
use crate::types::{Partition, WorkerId};

/// Index of a worker in [`PlanInput::workers`].
pub type WorkerIndex = u32;

/// Default weight of a partition whose weight is 0 or less.
pub const DEFAULT_WEIGHT: i64 = 1;

/// The input of a strategy. Everything is sorted, so that equal inputs are equal slices.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput<'a> {
    /// The live workers: unique, sorted bytewise, at least one.
    pub workers: &'a [WorkerId],
    /// The partitions: unique by keys, in canonical order (key by key, bytewise, shorter first).
    pub partitions: &'a [Partition],
    /// The current owner of each partition; `None` if it has no live owner. Same length as
    /// `partitions`.
    pub previous: &'a [Option<WorkerIndex>],
}

impl PlanInput<'_> {
    /// How many workers there are.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] when there is none, or more than an index can name.
    pub fn worker_count(&self) -> Result<WorkerIndex> {
        match WorkerIndex::try_from(self.workers.len()) {
            Ok(0) => Err(Error::new(
                Code::InvalidArgument,
                "there is no worker to give partitions to",
            )),
            Ok(count) => Ok(count),
            Err(_) => Err(Error::new(Code::InvalidArgument, "too many workers")),
        }
    }

    /// The weight of each partition, `default_weight` where its own is 0 or less.
    #[must_use]
    pub fn weights(&self, default_weight: i64) -> Vec<i64> {
        let weights = self.partitions.iter().map(|p| p.weight);
        weights
            .map(|w| if w > 0 { w } else { default_weight })
            .collect()
    }
}

/// Decides which worker owns which partition.
///
/// A strategy must be deterministic: equal inputs give equal plans. It may be slow (it runs on the
/// publisher's thread), fail or panic: the last plan then stays in force.
///
/// ```
/// use divvy::strategy::{PlanInput, Strategy, WorkerIndex};
///
/// /// Keeps every partition with its owner, and assigns the others to the first worker.
/// struct Lazy;
///
/// impl Strategy for Lazy {
///     fn name(&self) -> &str {
///         "lazy"
///     }
///
///     fn assign(&self, input: &PlanInput<'_>) -> divvy::Result<Vec<WorkerIndex>> {
///         input.worker_count()?;
///         Ok(input.previous.iter().map(|owner| owner.unwrap_or(0)).collect())
///     }
/// }
/// ```
pub trait Strategy: Send + Sync {
    /// Returns the name of the strategy, for logs, metrics and status.
    fn name(&self) -> &str;

    /// Returns the parameters that shape its plans as text, by which the replicas of a fleet are
    /// compared. Default: none, so that only the names are compared.
    fn parameters(&self) -> String {
        String::new()
    }

    /// Returns the owner of each partition: as many as `input.partitions`, each an index of
    /// `input.workers`. The caller rejects anything else as an invalid plan.
    ///
    /// # Errors
    /// Any failure of the strategy. The last plan stays in force, and planning is retried.
    fn assign(&self, input: &PlanInput<'_>) -> Result<Vec<WorkerIndex>, Error>;
}

impl<S: Strategy + ?Sized> Strategy for Arc<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn parameters(&self) -> String {
        (**self).parameters()
    }

    fn assign(&self, input: &PlanInput<'_>) -> Result<Vec<WorkerIndex>, Error> {
        (**self).assign(input)
    }
}

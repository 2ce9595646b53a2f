//! Reads the state of a live fleet as an observer.

use std::time::Instant;

use crate::config::CalculatorConfig;
use crate::error::Result;
use crate::machine::fleet::{FleetStatus, Look};
use crate::store::{Bucket, Listing, Store};
use crate::types::Partition;
use crate::wire::KeyPrefix;

/// Reads the state of a fleet: leader, versions, workers, loads. Never writes. The buckets are read
/// one after the other, so concurrent changes may appear as inconsistencies.
///
/// Only the key prefixes of `config` are used. `partitions` are the ones that should have an owner.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use divvy::store::memory::MemoryStore;
/// use divvy::store::{Bucket, BucketConfig, Store};
/// use divvy::{CalculatorConfig, read_fleet};
///
/// # fn main() -> divvy::Result<()> {
/// let store = MemoryStore::new();
/// let deadline = Instant::now() + Duration::from_secs(5);
/// # for bucket in [Bucket::StableId, Bucket::Election, Bucket::Heartbeat, Bucket::Assignment] {
/// #     store.ensure(bucket, BucketConfig { ttl: None }, deadline)?;
/// # }
/// let status = read_fleet(&store, &CalculatorConfig::default(), None, deadline)?;
/// assert!(status.leader.is_none() && status.workers.is_empty());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `InvalidArgument` for invalid prefixes; the store's error if no bucket can be read. A single
/// unreadable bucket is reported as a problem in the result.
pub fn read_fleet(
    store: &dyn Store,
    config: &CalculatorConfig,
    partitions: Option<&[Partition]>,
    deadline: Instant,
) -> Result<FleetStatus> {
    let heartbeat_prefix = KeyPrefix::new(&config.heartbeat_prefix)?;
    let assignment_prefix = KeyPrefix::new(&config.assignment_prefix)?;
    let mut problems = Vec::new();
    let mut read = |bucket: Bucket, prefix: &str| {
        let listing = store.list(bucket, prefix, deadline);
        if let Err(error) = &listing {
            problems.push(format!("cannot read the {bucket:?} bucket: {error}"));
        }
        listing
    };
    // The assignments last: what workers say they have applied is then never ahead of them.
    let election = read(Bucket::Election, "");
    let heartbeats = read(Bucket::Heartbeat, heartbeat_prefix.as_str());
    let assignments = read(Bucket::Assignment, "");
    if election.is_err() && heartbeats.is_err() {
        // Nothing can be read, or only what an earlier fleet left: show the latter.
        assignments.as_ref().map_err(Clone::clone)?;
    }
    let or_nothing = |listing: Result<Listing>| listing.unwrap_or_default();
    let mut status = FleetStatus::of(&Look {
        election: &or_nothing(election),
        heartbeats: &or_nothing(heartbeats),
        assignments: &or_nothing(assignments),
        heartbeat_prefix: &heartbeat_prefix,
        assignment_prefix: &assignment_prefix,
        partitions,
    });
    status.problems.splice(0..0, problems);
    Ok(status)
}

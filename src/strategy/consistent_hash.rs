//! Partitions placed on a hash ring.

use super::ring::Ring;
use super::{PlanInput, Strategy, WorkerIndex};
use crate::error::Result;

/// Gives each partition to the worker whose virtual node follows its hash on the ring.
///
/// A change of the fleet moves only what the changed workers hold or get. Weights and the
/// previous plan are ignored, and loads differ widely. The same plan as parti's.
#[derive(Clone, Copy, Debug)]
pub struct ConsistentHash {
    virtual_nodes: u32,
    seed: u64,
}

impl ConsistentHash {
    /// Virtual nodes per worker unless set otherwise.
    pub const DEFAULT_VIRTUAL_NODES: u32 = 150;
    /// The most virtual nodes per worker.
    pub const VIRTUAL_NODES_MAX: u32 = 10_000;

    /// The strategy with 150 virtual nodes per worker and seed 0.
    #[must_use]
    pub fn new() -> Self {
        Self {
            virtual_nodes: Self::DEFAULT_VIRTUAL_NODES,
            seed: 0,
        }
    }

    /// Sets the virtual nodes per worker; 0 counts as 1, more than 10 000 as 10 000. More make
    /// loads more even and the ring larger (about 20 bytes each).
    #[must_use]
    pub fn virtual_nodes(mut self, virtual_nodes: u32) -> Self {
        self.virtual_nodes = virtual_nodes.clamp(1, Self::VIRTUAL_NODES_MAX);
        self
    }

    /// Sets the seed of all hashes; every member of a fleet must use the same.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

impl Default for ConsistentHash {
    fn default() -> Self {
        Self::new()
    }
}

impl Strategy for ConsistentHash {
    fn name(&self) -> &str {
        "consistent_hash"
    }

    fn parameters(&self) -> String {
        format!("{} {}", self.virtual_nodes, self.seed)
    }

    fn assign(&self, input: &PlanInput<'_>) -> Result<Vec<WorkerIndex>> {
        input.worker_count()?;
        let ring = Ring::new(input.workers, self.virtual_nodes, self.seed);
        Ok(ring.owners(input.partitions, self.seed))
    }
}

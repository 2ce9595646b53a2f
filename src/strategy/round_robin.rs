//! Partitions dealt out in turn.

use super::{PlanInput, Strategy, WorkerIndex};
use crate::error::Result;

/// Deals the partitions out in canonical order, one to each worker in turn.
///
/// Counts differ by at most one; weights and the previous plan are ignored, so a change of the
/// fleet moves nearly everything. The same plan as parti's round robin.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin;

impl Strategy for RoundRobin {
    fn name(&self) -> &str {
        "round_robin"
    }

    fn assign(&self, input: &PlanInput<'_>) -> Result<Vec<WorkerIndex>> {
        let workers = input.worker_count()?;
        Ok((0..workers).cycle().take(input.partitions.len()).collect())
    }
}

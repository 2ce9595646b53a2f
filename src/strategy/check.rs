//! The check that every strategy's answer passes before anyone acts on it.

use super::{PlanInput, WorkerIndex};
use crate::error::{Code, Error, Result};
use crate::types::truncated;

/// Checks a strategy's answer: one owner for each partition, and only live workers.
///
/// # Errors
/// [`Code::InvalidPlan`]; the message says how many owners are missing or names the first
/// partition whose owner does not exist.
pub fn check(input: &PlanInput<'_>, owners: &[WorkerIndex]) -> Result<()> {
    let (workers, partitions) = (input.workers.len(), input.partitions.len());
    if owners.len() != partitions {
        return Err(Error::new(
            Code::InvalidPlan,
            format!(
                "the strategy named {} owners for {partitions} partitions",
                owners.len()
            ),
        ));
    }
    let is_unknown = |owner: &WorkerIndex| *owner as usize >= workers;
    let Some(first) = owners.iter().position(is_unknown) else {
        return Ok(());
    };
    let count = owners.iter().filter(|owner| is_unknown(owner)).count();
    Err(Error::new(
        Code::InvalidPlan,
        format!(
            "the strategy gave {count} of {partitions} partitions to workers that do not exist: \
             the first is {:?}, to worker {} of {workers}",
            truncated(&input.partitions[first].id(), 60),
            owners[first],
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Partition, WorkerId};

    fn verdict(owners: &[WorkerIndex]) -> Result<()> {
        let workers = ["a", "b"].map(|id| WorkerId::new(id).unwrap());
        let partitions = ["x", "y", "z"].map(|key| Partition::new([key], 1));
        let input = PlanInput {
            workers: &workers,
            partitions: &partitions,
            previous: &[None; 3],
        };
        check(&input, owners)
    }

    #[test]
    fn each_partition_needs_one_owner_among_live_workers() {
        assert!(verdict(&[0, 1, 0]).is_ok());
        for (owners, expected) in [
            (&[0, 1][..], "2 owners for 3"),
            (&[0, 1, 0, 1], "4 owners for 3"),
            (&[0, 2, 9], "2 of 3 partitions to workers that do not exist"),
            (&[0, 0, u32::MAX], "\"z\", to worker 4294967295 of 2"),
        ] {
            let error = verdict(owners).unwrap_err();
            assert_eq!(error.code(), Code::InvalidPlan);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

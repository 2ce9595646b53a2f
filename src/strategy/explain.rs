//! Why a partition is where it is.

use std::fmt;

use super::diff::weight_of;
use super::{Plan, WorkerIndex, quality};
use crate::error::{Code, Error, Result};
use crate::types::WorkerId;

/// Where a partition is, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The partition's keys joined by `-`.
    pub partition: String,
    /// Its weight, as it counts.
    pub weight: i128,
    /// Its owner.
    pub worker: WorkerId,
    /// The owner's load, as a multiple of the fair level.
    pub load: f64,
    /// How it came there.
    pub cause: Cause,
}

/// How a partition came to its worker. Loads are what the workers would hold now had nothing
/// moved, as multiples of the fair level.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// It was there before.
    Stayed,
    /// It is new, or had no owner.
    Placed,
    /// Its owner left.
    OwnerLeft {
        /// The former owner.
        from: WorkerId,
    },
    /// Its owner would have held more than the worker that it went to.
    Levelled {
        /// The former owner.
        from: WorkerId,
        /// What it would hold.
        from_load: f64,
        /// What the new owner would hold.
        to_load: f64,
    },
    /// It made way for another partition, or the strategy does not look at loads.
    MadeWay {
        /// The former owner.
        from: WorkerId,
    },
}

/// Explains where the partition of these keys is, against the plan before if there is one.
/// Every worker counts with capacity 1.
///
/// # Errors
/// [`Code::InvalidArgument`] when the plan has no such partition.
pub fn explain(plan: &Plan, previous: Option<&Plan>, keys: &[String]) -> Result<Explanation> {
    let place = plan
        .partitions()
        .binary_search_by(|p| p.keys.as_slice().cmp(keys));
    let Ok(place) = place else {
        let name = keys.join("-");
        let message = format!("the plan has no partition {name:?}");
        return Err(Error::new(Code::InvalidArgument, message));
    };
    let fair = quality(plan, None, &[]).fair.max(f64::MIN_POSITIVE);
    let loads = |owner_of: &dyn Fn(usize) -> Option<WorkerIndex>| -> Vec<f64> {
        let mut loads = vec![0_i128; plan.workers().len()];
        for (index, partition) in plan.partitions().iter().enumerate() {
            if let Some(owner) = owner_of(index) {
                loads[owner as usize] += weight_of(partition);
            }
        }
        loads.into_iter().map(|load| load as f64 / fair).collect()
    };
    let now = plan.owners()[place];
    let worker = plan.workers()[now as usize].clone();
    let partition = &plan.partitions()[place];

    let cause = match previous {
        None => Cause::Placed,
        Some(previous) => {
            let former = previous.previous_for(previous.workers(), std::slice::from_ref(partition));
            let before = previous.previous_for(plan.workers(), plan.partitions());
            match (former[0], before[place]) {
                (None, _) => Cause::Placed,
                (Some(former), None) => Cause::OwnerLeft {
                    from: previous.workers()[former as usize].clone(),
                },
                (Some(_), Some(owner)) if owner == now => Cause::Stayed,
                (Some(_), Some(owner)) => {
                    let from = plan.workers()[owner as usize].clone();
                    let kept = loads(&|index| before[index]);
                    let (from_load, to_load) = (kept[owner as usize], kept[now as usize]);
                    if from_load > to_load {
                        Cause::Levelled {
                            from,
                            from_load,
                            to_load,
                        }
                    } else {
                        Cause::MadeWay { from }
                    }
                }
            }
        }
    };
    Ok(Explanation {
        partition: partition.id(),
        weight: weight_of(partition),
        load: loads(&|index| Some(plan.owners()[index]))[now as usize],
        worker,
        cause,
    })
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            partition,
            weight,
            worker,
            load,
            cause,
        } = self;
        write!(
            f,
            "{partition} (weight {weight}) is on {worker}, whose load is {load:.2} of the fair level: "
        )?;
        match cause {
            Cause::Stayed => write!(f, "it was there before"),
            Cause::Placed => write!(f, "it had no owner before"),
            Cause::OwnerLeft { from } => write!(f, "its owner {from} left"),
            Cause::Levelled {
                from,
                from_load,
                to_load,
            } => write!(
                f,
                "{from} would have held {from_load:.2} of the fair level and {worker} {to_load:.2}"
            ),
            Cause::MadeWay { from } => write!(f, "on {from} it made way for another partition"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::{Diff, diff};
    use crate::types::Partition;

    fn plan(workers: &[&str], holdings: &[(&str, i64, u32)]) -> Plan {
        let workers = workers
            .iter()
            .map(|id| WorkerId::new(id).unwrap())
            .collect();
        let partitions = holdings
            .iter()
            .map(|(key, w, _)| Partition::new([*key], *w));
        let owners = holdings.iter().map(|(_, _, owner)| *owner).collect();
        Plan::new(workers, partitions.collect(), owners).unwrap()
    }

    fn old() -> Plan {
        let holdings = [
            ("a", 5, 0),
            ("b", 5, 0),
            ("c", 5, 0),
            ("d", 0, 1),
            ("e", 9, 2),
        ];
        plan(&["w1", "w2", "w3"], &holdings)
    }

    fn new() -> Plan {
        let holdings = [
            ("a", 5, 0),
            ("b", 5, 1),
            ("d", 0, 0),
            ("e", 9, 1),
            ("f", 7, 2),
        ];
        plan(&["w1", "w2", "w4"], &holdings)
    }

    #[test]
    fn diff_shows_gains_and_losses_of_each_worker() {
        let diff: Diff = diff(&old(), &new());
        assert_eq!((diff.added, diff.removed, diff.moved), (1, 1, 3));
        assert_eq!((diff.moved_weight, diff.orphaned_weight), (15, 9));
        assert_eq!(diff.total_weight, 27);
        let rows: Vec<_> = diff
            .workers
            .iter()
            .map(|w| {
                (
                    w.worker.as_str(),
                    w.added,
                    w.removed,
                    w.moved_in,
                    w.moved_out,
                )
            })
            .collect();
        let expected = [
            ("w1", 0, 1, 1, 1),
            ("w2", 0, 0, 2, 1),
            ("w3", 0, 0, 0, 1),
            ("w4", 1, 0, 0, 0),
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn quality_compares_balance_and_movement_to_optimum() {
        let quality = quality(&new(), Some(&old()), &[]);
        assert_eq!(quality.mean, 9.0);
        assert_eq!(quality.fair, 9.0);
        assert!((quality.max_to_mean - 14.0 / 9.0).abs() < 1e-12);
        assert!((quality.min_to_mean - 6.0 / 9.0).abs() < 1e-12);
        assert_eq!(quality.lower_bound, 1.0);
        assert!((quality.moved - 15.0 / 27.0).abs() < 1e-12);
        assert!((quality.moved_least - 9.0 / 27.0).abs() < 1e-12);
    }

    #[test]
    fn quality_handles_huge_weights_and_empty_fleet() {
        let huge = plan(
            &["a", "b"],
            &[("x", i64::MAX, 0), ("y", i64::MAX, 1), ("z", 1, 1)],
        );
        let quality_of_huge = quality(&huge, None, &[1.0, 1.0]);
        assert!((quality_of_huge.max_to_mean - 1.0).abs() < 1e-9);
        assert_eq!(quality(&plan(&[], &[]), None, &[]).max_to_mean, 1.0);
    }

    #[test]
    fn every_cause_of_placement_is_distinguished() {
        let cause = |key: &str| explain(&new(), Some(&old()), &[key.to_owned()]).unwrap();
        assert_eq!(cause("a").cause, Cause::Stayed);
        assert_eq!(cause("f").cause, Cause::Placed);
        assert!(matches!(cause("b").cause, Cause::Levelled { .. }));
        assert!(matches!(cause("d").cause, Cause::MadeWay { .. }));
        let left = cause("e");
        assert_eq!(
            left.to_string(),
            "e (weight 9) is on w2, whose load is 1.56 of the fair level: its owner w3 left"
        );
        let error = explain(&new(), None, &["c".to_owned()]).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
}

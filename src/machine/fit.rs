//! Fits a plan to the largest value that the store accepts.
//!
//! An assignment is one value. What exceeds the limit is left without an owner, so that the rest of
//! the fleet keeps a plan. Another worker is never chosen instead: where a partition may run is the
//! strategy's decision.

use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::strategy::Plan;
use crate::types::Partition;
use crate::wire::{ASSIGNMENT_OVERHEAD, encoded_len};

/// Most names in a message.
const NAMED_MAX: usize = 10;

/// How the assignments of the plan in force stand to the limit of the store. `Display` says what is
/// wrong and what to do; empty: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignmentLimit {
    /// How large the assignments are.
    pub sizes: AssignmentSizes,
    /// The partitions without an owner, because assignments with them exceed the limit.
    pub unassigned: Arc<[Partition]>,
}

impl AssignmentLimit {
    /// Returns whether both report the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.unassigned == other.unassigned && self.sizes.is_near() == other.sizes.is_near()
    }
}

impl fmt::Display for AssignmentLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AssignmentSizes {
            largest,
            after_loss,
            limit,
        } = self.sizes;
        let count = self.unassigned.len();
        if count == 0 && !self.sizes.is_near() {
            return Ok(());
        }
        if count == 0 {
            write!(
                f,
                "the loss of one worker would leave partitions without an owner: an assignment of \
                 {after_loss} bytes would exceed the store's limit of {limit}"
            )?;
        } else {
            write!(
                f,
                "{count} partitions have no owner: an assignment of {largest} bytes exceeds the \
                 store's limit of {limit}:"
            )?;
            for partition in self.unassigned.iter().take(NAMED_MAX) {
                write!(f, " {}", partition.id().escape_debug())?;
            }
            if count > NAMED_MAX {
                f.write_str(" …")?;
            }
        }
        f.write_str("; add workers or raise max_payload")
    }
}

/// How large the assignments of a plan are, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssignmentSizes {
    /// The largest assignment that the plan asks for.
    pub largest: usize,
    /// The largest assignment after the loss of one worker, if the others share its partitions
    /// equally. With less than two workers equal to `largest`.
    pub after_loss: usize,
    /// The largest assignment that the store accepts; 0: not known.
    pub limit: usize,
}

impl AssignmentSizes {
    /// Measures the assignments of a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let [mut first, mut second] = [0, 0];
        let workers = plan.workers().len();
        for worker in 0..workers as u32 {
            let bytes: usize = plan.partitions_of(worker).map(encoded_len).sum();
            if bytes > first {
                (first, second) = (bytes, first);
            } else {
                second = second.max(bytes);
            }
        }
        let share = match workers {
            0 | 1 => 0,
            more => second.div_ceil(more - 1),
        };
        Self {
            largest: ASSIGNMENT_OVERHEAD + first,
            after_loss: ASSIGNMENT_OVERHEAD + first + share,
            limit: 0,
        }
    }

    /// Returns whether an assignment exceeds the limit.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        self.limit > 0 && self.largest > self.limit
    }

    /// Returns whether every assignment is within the limit, and the loss of one worker would change
    /// that.
    #[must_use]
    pub fn is_near(&self) -> bool {
        self.limit > 0 && self.largest <= self.limit && self.after_loss > self.limit
    }

    /// Returns the largest assignment as a fraction of the limit; 0 while the limit is not known.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.of_limit(self.largest)
    }

    /// Returns the largest assignment after the loss of one worker as a fraction of the limit.
    #[must_use]
    pub fn ratio_after_loss(&self) -> f64 {
        self.of_limit(self.after_loss)
    }

    fn of_limit(&self, bytes: usize) -> f64 {
        match self.limit {
            0 => 0.0,
            limit => bytes as f64 / limit as f64,
        }
    }
}

/// Leaves out what exceeds `limit`. A worker keeps the partitions that it had in `previous` first,
/// each group in canonical order.
///
/// # Errors
/// None for a valid plan.
pub fn fit(plan: Plan, previous: Option<&Plan>, limit: usize) -> Result<Plan> {
    let room = limit.saturating_sub(ASSIGNMENT_OVERHEAD);
    let had = previous.map(|previous| previous.previous_for(plan.workers(), plan.partitions()));
    let had = |index: u32, worker| {
        let had = had.as_ref();
        had.is_some_and(|had| had[index as usize] == Some(worker))
    };
    let mut left_out = Vec::new();
    for worker in 0..plan.workers().len() as u32 {
        let mut left = room;
        let indices = plan.indices_of(worker).iter().copied();
        let (kept, added): (Vec<u32>, Vec<u32>) = indices.partition(|&index| had(index, worker));
        for index in kept.into_iter().chain(added) {
            let bytes = encoded_len(&plan.partitions()[index as usize]);
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => left_out.push(index),
            }
        }
    }
    if left_out.is_empty() {
        return Ok(plan);
    }
    left_out.sort_unstable();
    plan.leaving_out(&left_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::WorkerId;
    use crate::wire::{Assignment, encode_partitions};

    fn plan(workers: &[&str], count: usize, owner: impl Fn(usize) -> u32) -> Plan {
        let workers = workers.iter().map(|id| WorkerId::new(id).unwrap());
        let partitions = (0..count).map(|n| Partition::new([format!("p{n:03}")], 0));
        let owners = (0..count).map(owner).collect();
        Plan::new(workers.collect(), partitions.collect(), owners).unwrap()
    }

    fn names(partitions: &[Partition]) -> Vec<String> {
        partitions.iter().map(Partition::id).collect()
    }

    /// Room for this many partitions of [`plan`].
    fn limit(partitions: usize) -> usize {
        ASSIGNMENT_OVERHEAD + partitions * encoded_len(&Partition::new(["p000"], 0))
    }

    #[test]
    fn plan_within_the_limit_stays_as_it_is() {
        let fitted = fit(plan(&["a", "b"], 10, |n| n as u32 % 2), None, limit(5)).unwrap();
        assert_eq!(fitted.partitions().len(), 10);
        assert!(fitted.unassigned().is_empty());
        assert!(Arc::ptr_eq(&fitted.listed(), fitted.partitions()));
    }

    #[test]
    fn what_exceeds_the_limit_is_left_out_by_name_and_the_rest_fits() {
        let fitted = fit(plan(&["a", "b"], 10, |n| u32::from(n > 2)), None, limit(4)).unwrap();
        assert_eq!(names(fitted.unassigned()), ["p007", "p008", "p009"]);
        assert_eq!(fitted.indices_of(0).len(), 3);
        let kept = names(fitted.partitions());
        assert_eq!(kept.len(), 7);
        let bytes = encode_partitions(fitted.partitions_of(1));
        let bytes = Assignment::encode(i64::MAX, i64::MAX, "cold_start_immediate", &bytes);
        assert!(bytes.len() <= limit(4), "{}", bytes.len());
        let all = plan(&["a"], 10, |_| 0);
        assert_eq!(fitted.listed(), *all.partitions());
    }

    #[test]
    fn worker_keeps_what_it_had_before_anything_new() {
        // b had the last three.
        let before = plan(&["a", "b"], 10, |n| u32::from(n > 6));
        let alone = plan(&["b"], 10, |_| 0);
        let fitted = fit(alone, Some(&before), limit(5)).unwrap();
        let kept = names(fitted.partitions());
        assert_eq!(kept, ["p000", "p001", "p007", "p008", "p009"]);
        let joined = plan(&["b", "c"], 10, |n| n as u32 % 2);
        let fitted = fit(joined, Some(&fitted), limit(5)).unwrap();
        assert!(fitted.unassigned().is_empty(), "there is room again");
    }

    #[test]
    fn partition_larger_than_any_value_is_left_out_alone() {
        let workers = [WorkerId::new("a").unwrap()];
        let giant = Partition::new(["x".repeat(900)], 1);
        let list = [giant, Partition::new(["y"], 1), Partition::new(["z"], 1)];
        let plan = Plan::new(workers.into(), list.into(), vec![0; 3]).unwrap();
        let fitted = fit(plan, None, 500).unwrap();
        assert_eq!(fitted.unassigned().len(), 1);
        assert_eq!(names(fitted.partitions()), ["y", "z"]);
        let none = fit(fitted, None, 0).unwrap();
        assert_eq!(none.partitions().len(), 0);
    }

    #[test]
    fn loss_of_a_worker_that_would_exceed_the_limit_is_foreseen() {
        let sizes = |workers: &[&str], limit| {
            let all = workers.len() as u32;
            let plan = plan(workers, 12, move |n| n as u32 % all);
            let sizes = AssignmentSizes::of(&plan);
            AssignmentSizes { limit, ..sizes }
        };
        let three = sizes(&["a", "b", "c"], limit(6));
        assert_eq!((three.largest, three.after_loss), (limit(4), limit(6)));
        assert!(!three.is_near() && !three.is_exceeded());
        assert!(sizes(&["a", "b", "c"], limit(6) - 1).is_near());
        assert!(sizes(&["a", "b"], limit(11)).is_near());
        let alone = sizes(&["a"], limit(12));
        assert!(
            !alone.is_near(),
            "the loss of the last worker leaves no assignment"
        );
        assert!(sizes(&["a"], limit(12) - 1).is_exceeded());
        let unknown = sizes(&["a", "b"], 0);
        assert!(!unknown.is_near() && unknown.ratio() == 0.0);
    }
}

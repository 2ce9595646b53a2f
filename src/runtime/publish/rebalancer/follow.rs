//! A shadow follows the live leader's publications and compares them with its own plans.

use std::sync::Arc;
use std::time::Instant;

use super::{Rebalancer, plan_of};
use crate::error::{Code, Error};
use crate::machine::calculator::Followed;
use crate::machine::comparison::{Comparison, Difference, Intended};
use crate::runtime::publish::publisher::Live;
use crate::strategy::{Plan, quality};
use crate::types::{Reason, Version};

/// How a shadow arrived at its current plan, which is not published.
pub(super) struct Intention {
    version: Version,
    reason: Reason,
    published: Instant,
    /// The plan that the live leader had published before.
    live: Option<Plan>,
}

impl Rebalancer {
    /// The plan was published; in a shadow: would have been.
    pub(super) fn replace_plan(&mut self, plan: Plan, version: Version, reason: Reason) {
        let before = self.plan.replace(plan);
        if !self.publisher.is_shadow() {
            return;
        }
        let live = match self.intended.take() {
            Some(earlier) => earlier.live,
            None => before,
        };
        self.intended = Some(Intention {
            version,
            reason,
            published: Instant::now(),
            live,
        });
    }

    /// Takes the live leader's plan for the present one.
    pub(super) fn follow(&mut self, live: Live, deadline: Instant) -> Followed {
        let hangs = || Error::new(Code::SourceFailed, "the partition source has not returned");
        let list = self.read_list(self.source_deadline(deadline));
        let list = list.and_then(|list| list.ok_or_else(hangs));
        if let Err(error) = &list {
            log::warn!(target: "divvy::calculator", "partition source failed, comparison skipped: {error}");
        }
        let (leaders, is_plan) = plan_of(&live.stored).unwrap_or_else(|| (Plan::default(), true));
        let (shadows, before, intended) = match self.intended.take() {
            Some(last) => (self.plan.take(), last.live.clone(), Some(last)),
            None => {
                let list = list.as_ref().ok().map(|(list, _)| Arc::clone(list));
                let plan = list.and_then(|list| self.compute(leaders.workers(), list).ok());
                (plan, self.plan.take(), None)
            }
        };
        let comparison = Comparison {
            version: live.version,
            term: live.term,
            lifecycle: live.lifecycle,
            workers: leaders.workers().len(),
            partitions: leaders.partitions().len(),
            is_whole: live.is_whole && is_plan,
            quality: quality(&leaders, before.as_ref(), &[]),
            intended: intended.map(|last| Intended {
                version: last.version,
                reason: last.reason,
                ahead: live.seen.saturating_duration_since(last.published),
            }),
            difference: shadows
                .map(|shadows| Difference::between(&shadows, &leaders, before.as_ref())),
        };
        let workers = Arc::clone(leaders.workers());
        let finding = list
            .as_ref()
            .ok()
            .map(|(list, _)| self.compare(&leaders, list));
        self.plan = Some(leaders);
        Followed {
            workers,
            finding,
            generation: list.map_or(0, |(_, generation)| generation),
            comparison,
        }
    }
}

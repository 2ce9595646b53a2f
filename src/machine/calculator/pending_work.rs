//! What is pending, why, and when it is due: computed from what is wanted against what was last
//! published, never remembered, so that no change can be dead by arriving at a wrong moment.

use super::CalculatorMachine;
use crate::types::{CalculatorState, Reason, Time};

/// One pending piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Work {
    /// Why a plan is to be published.
    pub reason: Reason,
    /// When.
    pub due: Time,
    /// The stabilisation window that is shown as `Scaling` while it waits.
    pub window: Option<WindowView>,
}

/// A window as subscribers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WindowView {
    pub reason: Reason,
    pub opens: Time,
}

impl Work {
    /// The state in which the work is done.
    pub fn state(&self) -> CalculatorState {
        match self.reason {
            Reason::Emergency => CalculatorState::Emergency,
            _ => CalculatorState::Rebalancing,
        }
    }
}

/// A stabilisation window for the whole fleet: after a cold start, or after a mass loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// What is published at its end, if anything differs then.
    pub publishes: Reason,
    pub opened: Time,
    pub ends: Time,
}

impl Window {
    /// Whether it waits for a fleet to arrive or return: no worker is declared dead before its end.
    pub fn is_gathering(&self) -> bool {
        matches!(self.publishes, Reason::ColdStart | Reason::Restart)
    }

    /// The reason that subscribers see while it is open.
    fn display_reason(&self) -> Reason {
        match self.publishes {
            Reason::ColdStartFinal => Reason::ColdStart,
            other => other,
        }
    }
}

/// A fleet without a plan gathers workers before its first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FirstPlan {
    /// When its first worker was seen.
    pub first: Time,
    /// When the last one joined.
    pub last: Time,
}

/// The kinds of work, most urgent first.
const KINDS: usize = 9;

impl CalculatorMachine {
    /// Every pending piece of work, most urgent first. Nothing while nothing can be published.
    pub(super) fn pending_work(&self) -> impl Iterator<Item = Work> {
        let works: [Option<Work>; KINDS] = if self.can_publish() {
            let is_first = self.first_plan.is_some();
            let later = |work: Option<Work>| work.filter(|_| !is_first);
            [
                self.immediate(),
                self.emergency(),
                self.manual(),
                later(self.foreign_write()),
                later(self.leaves()),
                later(self.fleet_window()),
                later(self.joins()),
                later(self.partition_change()),
                later(self.unfinished()),
            ]
        } else {
            [None; KINDS]
        };
        works.into_iter().flatten()
    }

    /// With no live worker nothing is published, and nothing is deleted.
    fn can_publish(&self) -> bool {
        self.taken_over && !self.deposed && self.source_ready && self.members.has_alive()
    }

    /// Damage that a start finds is repaired at once, whichever workers are dead by then. The first
    /// plan of a fleet waits for workers.
    fn immediate(&self) -> Option<Work> {
        let gathered = self
            .first_plan
            .map(|first| (first, self.first_plan_due(first)));
        self.gap_at_start.then(|| Work {
            reason: Reason::ColdStartImmediate,
            due: self.not_before_retry(gathered.map_or(Time::ZERO, |(_, due)| due)),
            window: gathered
                .filter(|(gathering, due)| *due > gathering.first)
                .map(|(gathering, _)| WindowView {
                    reason: Reason::ColdStart,
                    opens: gathering.first,
                }),
        })
    }

    fn first_plan_due(&self, gathering: FirstPlan) -> Time {
        let latest = gathering.first + self.config.cold_start_window;
        match self.has_min_workers() {
            true => latest.min(gathering.last + self.config.initial_delay),
            false => Time::FAR_FUTURE,
        }
    }

    /// Whether enough workers are alive for the first plan of a fleet.
    fn has_min_workers(&self) -> bool {
        let wanted = usize::try_from(self.config.min_workers).unwrap_or(usize::MAX);
        self.members.alive_count() >= wanted
    }

    fn emergency(&self) -> Option<Work> {
        self.members.has_dead().then(|| Work {
            reason: Reason::Emergency,
            due: self.not_before_retry(Time::ZERO),
            window: None,
        })
    }

    fn manual(&self) -> Option<Work> {
        (!self.triggers.is_empty()).then(|| Work {
            reason: Reason::ManualRefresh,
            // A fresh request is tried at once, also while others are backing off.
            due: if self.trigger_tried {
                self.not_before_retry(Time::ZERO)
            } else {
                Time::ZERO
            },
            window: None,
        })
    }

    /// A foreign write: only a publication above it restores the plan. It has no reason of its own
    /// on the wire, so it is an unrequested refresh.
    fn foreign_write(&self) -> Option<Work> {
        let due = self.foreign_due.filter(|_| !self.in_cold_start())?;
        Some(Work {
            reason: Reason::ManualRefresh,
            due: self.not_before_retry(due),
            window: None,
        })
    }

    fn leaves(&self) -> Option<Work> {
        let first = self.members.first_leave()?;
        Some(Work {
            reason: Reason::PlannedScale,
            due: self.not_before_retry(first + self.config.leave_window),
            window: Some(WindowView {
                reason: Reason::PlannedScale,
                opens: first,
            }),
        })
    }

    fn fleet_window(&self) -> Option<Work> {
        let window = self.window?;
        // A mass expiry has no effect while the watch is lost.
        let frozen = match window.publishes {
            Reason::Restart => self.watch_lost_since.is_some(),
            _ => self.members.planned().is_empty() && !self.has_min_workers(),
        };
        Some(Work {
            reason: window.publishes,
            due: if frozen {
                Time::FAR_FUTURE
            } else {
                self.not_before_retry(window.ends.max(self.cooldown_ends))
            },
            window: Some(WindowView {
                reason: window.display_reason(),
                opens: window.opened,
            }),
        })
    }

    /// The window after a mass loss, whether or not anyone is there to publish a plan for.
    pub(super) fn restart_window(&self) -> Option<WindowView> {
        let window = self.window.filter(|w| w.publishes == Reason::Restart)?;
        Some(WindowView {
            reason: window.display_reason(),
            opens: window.opened,
        })
    }

    fn joins(&self) -> Option<Work> {
        if self.window.is_some() {
            return None;
        }
        let first = self.members.first_join()?;
        let window_ends = first + self.config.planned_scale_window;
        Some(Work {
            reason: Reason::PlannedScale,
            due: self.not_before_retry(window_ends.max(self.cooldown_ends)),
            window: Some(WindowView {
                reason: Reason::PlannedScale,
                opens: first.max(self.cooldown_ends),
            }),
        })
    }

    fn partition_change(&self) -> Option<Work> {
        // An open window ends with a publication that covers this as well.
        if !self.partitions_differ || self.window.is_some() || self.members.first_join().is_some() {
            return None;
        }
        let window_ends = self.partitions_differ_since + self.config.partition_change_window;
        Some(Work {
            reason: Reason::PartitionChange,
            due: self.not_before_retry(window_ends.max(self.cooldown_ends)),
            window: None,
        })
    }

    /// A failed publication may be stored in part, or still arrive. Only a successful one ends that,
    /// even if the change that caused it was reverted.
    fn unfinished(&self) -> Option<Work> {
        let reason = self.unfinished?;
        let is_the_windows_own = self.window.is_some_and(|w| w.publishes == reason);
        if is_the_windows_own || self.in_cold_start() {
            return None;
        }
        Some(Work {
            reason,
            due: self.not_before_retry(Time::ZERO),
            window: None,
        })
    }

    /// A fleet that starts from no workers: nothing is published before it has gathered.
    fn in_cold_start(&self) -> bool {
        self.window
            .is_some_and(|window| window.publishes == Reason::ColdStart)
    }

    fn not_before_retry(&self, due: Time) -> Time {
        self.retry_at.map_or(due, |retry| retry.max(due))
    }
}

//! Changes of the membership, as metrics count them.

use crate::metrics::{CalculatorMetrics, MemberChange};

/// Membership changes since the last report to the metrics, added up: a storm of joins costs one
/// addition per worker and a few calls in total.
#[derive(Debug, Default)]
pub struct FleetChanges {
    counts: [u32; MemberChange::ALL.len()],
    /// Which of them was noted last: after a single change the others are not checked.
    last: usize,
    waiting: u32,
    is_touched: bool,
}

impl FleetChanges {
    /// Maximum number of accumulated changes, so that metrics are never far behind.
    const WAITING_MAX: u32 = 64;

    /// At the start, report all numbers.
    pub(crate) fn of_a_start() -> Self {
        let mut changes = Self::default();
        changes.touch();
        changes
    }

    /// A worker came or went.
    pub fn note(&mut self, change: MemberChange) {
        self.last = change as usize;
        self.counts[self.last] += 1;
        self.waiting += 1;
    }

    /// The numbers may have changed.
    pub fn touch(&mut self) {
        self.is_touched = true;
    }

    /// Reports the counts unless more messages wait; returns whether to report the gauges too.
    pub fn report(&mut self, is_more_coming: bool, metrics: &dyn CalculatorMetrics) -> bool {
        let is_changed = self.waiting > 0 || self.is_touched;
        if !is_changed || is_more_coming && self.waiting < Self::WAITING_MAX {
            return false;
        }
        let mut which = self.last;
        while self.waiting > 0 {
            let count = std::mem::take(&mut self.counts[which]);
            if count > 0 {
                self.waiting -= count;
                metrics.workers_changed(MemberChange::ALL[which], count);
            }
            which = (which + 1) % self.counts.len();
        }
        self.is_touched = false;
        true
    }
}

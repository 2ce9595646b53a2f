//! Changes of the fleet and causes of degradation, as metrics count them.

use crate::machine::calculator::{Degradation, MemberChange};
use crate::metrics::{CalculatorMetrics, DegradedCause, WorkerChange};

/// Membership changes since the last report to the metrics, added up: a storm of joins costs one
/// addition per worker and a few calls in total.
#[derive(Debug, Default)]
pub struct FleetChanges {
    counts: [u32; WorkerChange::ALL.len()],
    /// The kind counted last: for a single change the others need no check.
    last: usize,
    waiting: u32,
    is_touched: bool,
}

impl FleetChanges {
    /// So many changes wait at most, for metrics that are never far behind.
    const WAITING_MAX: u32 = 64;

    /// At the start, report all numbers.
    pub(crate) fn of_a_start() -> Self {
        let mut changes = Self::default();
        changes.touch();
        changes
    }

    /// A worker came or went.
    pub fn note(&mut self, change: WorkerChange) {
        self.last = change as usize;
        self.counts[self.last] += 1;
        self.waiting += 1;
    }

    /// The numbers may have changed.
    pub fn touch(&mut self) {
        self.is_touched = true;
    }

    /// Reports the counts unless more messages wait; returns whether to report the gauges too.
    pub fn tell(&mut self, is_more_coming: bool, metrics: &dyn CalculatorMetrics) -> bool {
        let is_changed = self.waiting > 0 || self.is_touched;
        if !is_changed || is_more_coming && self.waiting < Self::WAITING_MAX {
            return false;
        }
        let mut which = self.last;
        while self.waiting > 0 {
            let count = std::mem::take(&mut self.counts[which]);
            if count > 0 {
                self.waiting -= count;
                metrics.workers_changed(WorkerChange::ALL[which], count);
            }
            which = (which + 1) % self.counts.len();
        }
        self.is_touched = false;
        true
    }
}

pub(crate) fn member_change_label(member: &MemberChange) -> WorkerChange {
    match member {
        MemberChange::Joined(_) => WorkerChange::Joined,
        MemberChange::Left(_) => WorkerChange::Left,
        MemberChange::Suspected(_) => WorkerChange::Missing,
        MemberChange::Returned(_) => WorkerChange::Back,
        MemberChange::Dead(_) => WorkerChange::Lost,
    }
}

pub(crate) fn degradation_label(degradation: &Degradation) -> DegradedCause {
    match degradation {
        Degradation::WatchLost => DegradedCause::Blind,
        Degradation::Store(_) => DegradedCause::Store,
        Degradation::Publishing(_) => DegradedCause::Publishing,
        Degradation::Source(_) => DegradedCause::Source,
        Degradation::MalformedValues => DegradedCause::Malformed,
        Degradation::Deposed => DegradedCause::Deposed,
    }
}

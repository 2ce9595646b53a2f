//! To whom the shell tells what it does, and what may be asked of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::machine::breaker::BreakerState;
use crate::machine::calculator::{Degradation, MemberChange};
use crate::metrics::{
    self, AssignmentMetrics, CalculatorMetrics, DegradedCause, NoMetrics, Probe, PublishedAs,
    Reading, WorkerChange,
};
use crate::runtime::calculator::Calculator;
use crate::runtime::calculator::calculator_shared::Shared;
use crate::runtime::calculator::running_calculator::RunningCalculator;
use crate::runtime::publish::publisher::ActiveMode;
use crate::time::clock::Clock;
use crate::types::Time;

/// The metrics of one handle.
#[derive(Clone)]
pub(crate) struct MetricsSink {
    pub calculator: Arc<dyn CalculatorMetrics>,
    pub assignment: Arc<dyn AssignmentMetrics>,
}

impl Default for MetricsSink {
    fn default() -> Self {
        Self {
            calculator: Arc::new(NoMetrics),
            assignment: Arc::new(NoMetrics),
        }
    }
}

/// How the fleet changed since that was told to the metrics last. What comes in one go is told in
/// one go: a storm of joins or losses costs an addition for each worker and a few calls in all.
#[derive(Debug, Default)]
pub struct FleetChanges {
    counts: [u32; WorkerChange::ALL.len()],
    /// Which of them was noted last: of a change that comes alone the others are not looked at.
    last: usize,
    waiting: u32,
    is_touched: bool,
}

impl FleetChanges {
    /// So many changes wait at most, for metrics that are never far behind.
    const WAITING_MAX: u32 = 64;

    /// At the start: all numbers are to be told.
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

    /// Tells what there is, unless more is about to come; whether the numbers are to be told, too.
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

/// When a heartbeat was heard of last, by the calculator's clock.
#[derive(Debug, Default)]
pub(crate) struct LastHeard(AtomicU64);

impl LastHeard {
    /// 0 stands for "never", so that plain beats cost one store of a number.
    pub fn set(&self, now: Time) {
        self.0.store(now.as_nanos(), Ordering::Relaxed);
    }

    pub fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn get(&self) -> Option<Time> {
        let nanos = self.0.load(Ordering::Relaxed);
        (nanos != 0).then(|| Time::from_nanos(nanos))
    }
}

/// What can be read of a calculator without asking its threads.
pub(crate) struct CalculatorProbe {
    pub shared: Arc<Shared>,
    pub clock: Arc<dyn Clock>,
    /// The present life, for its inbox.
    pub life: Mutex<Weak<RunningCalculator>>,
}

impl Probe for CalculatorProbe {
    fn read(&self) -> Reading {
        let life = self.life.lock().upgrade();
        let life = life.filter(|life| life.is_at_work());
        let position = self.shared.snapshot.load().position;
        let now = self.clock.now();
        let (subscribers, backlog) = self.shared.hub.backlog();
        let heard = life.as_ref().and_then(|_| self.shared.last_heard.get());
        Reading {
            is_started: life.is_some() && self.shared.failed.lock().is_none(),
            state: position.state,
            state_age: now.since(position.since),
            workers_age: heard.map(|heard| now.since(heard)),
            inbox: life.map_or(0, |life| life.to_driver.len()),
            subscribers,
            backlog,
        }
    }
}

impl Calculator {
    /// Has the metrics read this handle from now on.
    pub(crate) fn attach_probe(&self) {
        let probe = Arc::downgrade(&self.probe);
        self.shared.metrics_sink.calculator.attach(probe);
    }
}

/// The class of publication, as metrics name it.
pub(crate) fn publish_mode_label(class: ActiveMode) -> PublishedAs {
    match class {
        ActiveMode::Atomic { .. } => PublishedAs::Atomic,
        ActiveMode::PerKey => PublishedAs::PerKey,
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

pub(crate) fn breaker_label(state: &BreakerState) -> metrics::BreakerState {
    match state {
        BreakerState::Closed => metrics::BreakerState::Closed,
        BreakerState::HalfOpen { .. } => metrics::BreakerState::HalfOpen,
        BreakerState::Open { .. } => metrics::BreakerState::Open,
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

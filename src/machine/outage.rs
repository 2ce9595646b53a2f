//! A worker's degraded mode: when it begins, when it is over, and who is to be alarmed.
//!
//! It begins when the store has not been well for some time, or when enough requests failed within
//! some time; it is over when everything has been well for some time. Neither a single good moment
//! nor a single bad one changes anything.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::OutageTiming;
use crate::types::Time;
pub use crate::vocabulary::AlertLevel;

/// When each alert is raised, by how long degraded mode has lasted.
const ALERTS: [(AlertLevel, Duration); 4] = [
    (AlertLevel::Info, Duration::from_secs(30)),
    (AlertLevel::Warning, Duration::from_secs(2 * 60)),
    (AlertLevel::Error, Duration::from_secs(5 * 60)),
    (AlertLevel::Critical, Duration::from_secs(10 * 60)),
];

/// A report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutageEvent {
    /// Degraded mode begins, for this reason.
    Begins(String),
    /// It reached an alert level.
    Alert {
        /// How alarming that is.
        level: AlertLevel,
        /// For how long it has lasted.
        lasted: Duration,
    },
    /// It is over.
    Ends {
        /// For how long it lasted.
        lasted: Duration,
    },
}

/// One worker's degraded mode.
#[derive(Debug)]
pub struct Outage {
    timing: OutageTiming,
    /// Why the store is not well, and since when it is not (or is, for `None`).
    fault: Option<String>,
    since: Time,
    failures: VecDeque<Time>,
    last_failure: String,
    begun: Option<Time>,
    alerts: usize,
    events: VecDeque<OutageEvent>,
}

impl Outage {
    /// Everything is well.
    #[must_use]
    pub fn new(timing: OutageTiming, now: Time) -> Self {
        Self {
            timing,
            fault: None,
            since: now,
            failures: VecDeque::new(),
            last_failure: String::new(),
            begun: None,
            alerts: 0,
            events: VecDeque::new(),
        }
    }

    /// Whether degraded mode has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// The store is well (`None`), or why it is not.
    pub fn set_fault(&mut self, now: Time, fault: Option<String>) {
        if self.fault.is_some() != fault.is_some() {
            self.since = now;
        }
        self.fault = fault;
        self.tick(now);
    }

    /// A request failed.
    pub fn failed(&mut self, now: Time, why: &str) {
        self.failures.push_back(now);
        why.clone_into(&mut self.last_failure);
        self.tick(now);
    }

    /// Degraded mode begins now, for this reason.
    pub fn begin_now(&mut self, now: Time, why: String) {
        if self.begun.is_none() {
            self.begun = Some(now);
            self.alerts = 0;
            self.events.push_back(OutageEvent::Begins(why));
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Time) {
        // Counted for as long as any rule looks back.
        let memory = self.timing.error_window.max(self.timing.leave_after);
        while self.failures.front().is_some_and(|&at| at + memory <= now) {
            self.failures.pop_front();
        }
        match self.begun {
            None => self.begin(now),
            Some(begun) => self.continue_outage(now, begun),
        }
    }

    /// When the next tick is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let Some(begun) = self.begun else {
            let is_unwell = self.fault.is_some();
            return is_unwell.then_some(self.since + self.timing.enter_after);
        };
        let next = ALERTS.get(self.alerts);
        let alert = next.map(|(_, after)| begun + *after);
        let end = self.fault.is_none().then(|| self.well_since());
        let end = end.map(|since| since + self.timing.leave_after);
        [alert, end].into_iter().flatten().min()
    }

    /// Pending reports, oldest first.
    pub fn poll_event(&mut self) -> Option<OutageEvent> {
        self.events.pop_front()
    }

    fn begin(&mut self, now: Time) {
        let is_long = self.fault.is_some() && self.since + self.timing.enter_after <= now;
        let window = self.timing.error_window;
        let recent = self.failures.iter().filter(|&&at| at + window > now);
        let is_often = recent.count() >= self.timing.errors_max as usize;
        let why = match &self.fault {
            Some(fault) if is_long => fault.clone(),
            _ if is_often => self.last_failure.clone(),
            _ => return,
        };
        self.begin_now(now, why);
    }

    fn continue_outage(&mut self, now: Time, begun: Time) {
        let lasted = now.since(begun);
        while let Some(&(level, after)) = ALERTS.get(self.alerts) {
            if lasted < after {
                break;
            }
            self.alerts += 1;
            self.events.push_back(OutageEvent::Alert { level, lasted });
        }
        let is_well = self.fault.is_none() && self.well_since() + self.timing.leave_after <= now;
        if is_well {
            self.begun = None;
            self.failures.clear();
            self.events.push_back(OutageEvent::Ends { lasted });
        }
    }

    /// Since when nothing went wrong.
    fn well_since(&self) -> Time {
        let last_failure = self.failures.back().copied().unwrap_or_default();
        self.since.max(last_failure)
    }
}

#[cfg(test)]
mod tests;

//! What keeps the calculator from doing its whole work.
//!
//! Each symptom has a hysteresis. It is reported after `degraded_enter_after` and cleared after
//! `degraded_leave_after` without it. A single failed write is not reported, and a flapping store
//! is one degradation.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::calculator_messages::{Degradation, Degraded};
use crate::config::CalculatorConfig;
use crate::machine::plausible::MalformedValue;
use crate::store::Bucket;
use crate::types::Time;
use crate::vocabulary::DegradationCause;

/// The degradations that hold, several at once if need be.
#[derive(Debug)]
pub(super) struct CalculatorHealth {
    pub watch_lost: bool,
    pub deposed: bool,
    /// Why the store's session is not well.
    pub store: Option<String>,
    /// Why the store's breaker is not closed.
    pub breaker: Option<String>,
    pub publishing: Option<String>,
    pub source: Option<String>,
    /// Calls of the host's code that are overdue.
    pub host_calls: Option<String>,
    /// Why no plan can be made, after `planning_timeout`.
    pub planning: Option<String>,
    /// Which partitions have no owner because assignments would be too large.
    pub unassigned: Option<String>,
    hysteresis: Hysteresis,
    malformed_threshold: usize,
    malformed_window: Duration,
    /// Times of the last malformed values, at most as many as the threshold.
    malformed: VecDeque<Time>,
    is_malformed: bool,
    /// When each malformed key was last reported, at most as many as the threshold.
    malformed_named: BTreeMap<(Bucket, String), Time>,
    symptoms: [Symptom; KINDS],
}

const KINDS: usize = 9;

/// Delay before a symptom is reported, and before it is cleared.
#[derive(Clone, Copy, Debug)]
struct Hysteresis {
    enter: Duration,
    leave: Duration,
}

/// One thing that may be wrong.
#[derive(Debug, Default)]
struct Symptom {
    /// What is wrong, or was last.
    what: Option<Degradation>,
    /// Since when it comes and goes without staying away for long.
    since: Option<Time>,
    /// Since when it stays away; `None` while it is there.
    away: Option<Time>,
    is_reported: bool,
}

impl Symptom {
    fn update(&mut self, now: Time, found: Option<Degradation>, hysteresis: Hysteresis) {
        if self.away.is_some_and(|away| away + hysteresis.leave <= now) {
            *self = Self::default();
        }
        if found.is_some() {
            self.what = found;
            self.away = None;
            let since = *self.since.get_or_insert(now);
            self.is_reported |= since + hysteresis.enter <= now;
        } else if self.since.is_some() {
            let away = *self.away.get_or_insert(now);
            if away + hysteresis.leave <= now {
                *self = Self::default();
            }
        }
    }

    /// When looking again will find another picture, though nothing else has changed.
    fn deadline(&self, hysteresis: Hysteresis) -> Option<Time> {
        match (self.is_reported, self.away) {
            (true, Some(away)) => Some(away + hysteresis.leave),
            (false, None) => self.since.map(|since| since + hysteresis.enter),
            (true, None) | (false, Some(_)) => None,
        }
    }
}

impl CalculatorHealth {
    pub fn new(config: &CalculatorConfig) -> Self {
        Self {
            watch_lost: false,
            deposed: false,
            store: None,
            breaker: None,
            publishing: None,
            source: None,
            host_calls: None,
            planning: None,
            unassigned: None,
            hysteresis: Hysteresis {
                enter: config.degraded_enter_after,
                leave: config.degraded_leave_after,
            },
            malformed_threshold: config.malformed_threshold as usize,
            malformed_window: config.malformed_window,
            malformed: VecDeque::new(),
            is_malformed: false,
            malformed_named: BTreeMap::new(),
            symptoms: Default::default(),
        }
    }

    pub fn malformed_seen(&mut self, now: Time, count: u32) {
        for _ in 0..self.malformed_threshold.min(count as usize) {
            if self.malformed.len() == self.malformed_threshold {
                self.malformed.pop_front();
            }
            self.malformed.push_back(now);
        }
    }

    /// Whether to report this value: its key was not reported within the window, and fewer keys
    /// than the threshold were.
    pub fn names_malformed(&mut self, now: Time, value: &MalformedValue) -> bool {
        let window = self.malformed_window;
        self.malformed_named
            .retain(|_, named| *named + window > now);
        let key = (value.bucket, value.key.clone());
        let is_full = self.malformed_named.len() >= self.malformed_threshold;
        if is_full || self.malformed_named.contains_key(&key) {
            return false;
        }
        self.malformed_named.insert(key, now);
        true
    }

    /// When to look again.
    pub fn deadline(&self) -> Option<Time> {
        let symptoms = self.symptoms.iter().enumerate();
        let symptoms = symptoms.filter_map(|(kind, s)| s.deadline(self.hysteresis_of(kind)));
        let oldest = self.malformed.front().filter(|_| self.is_malformed);
        let worn_off = oldest.map(|&oldest| oldest + self.malformed_window);
        symptoms.chain(worn_off).min()
    }

    /// The list, if its kinds differ from the last report.
    pub fn changed(&mut self, now: Time) -> Option<Degraded> {
        let is_over = |&t: &Time| t + self.malformed_window <= now;
        while self.malformed.front().is_some_and(is_over) {
            self.malformed.pop_front();
        }
        self.is_malformed = self.malformed.len() == self.malformed_threshold;
        let store = self.store.as_ref().or(self.breaker.as_ref());
        let detailed = |cause, detail: Option<&String>| {
            detail.map(|detail| Degradation::with_detail(cause, detail.clone()))
        };
        let found: [Option<Degradation>; KINDS] = [
            self.deposed
                .then(|| Degradation::new(DegradationCause::Deposed)),
            self.is_malformed
                .then(|| Degradation::new(DegradationCause::Malformed)),
            self.watch_lost
                .then(|| Degradation::new(DegradationCause::WatchLost)),
            detailed(DegradationCause::Store, store),
            detailed(DegradationCause::Publishing, self.publishing.as_ref()),
            detailed(DegradationCause::Source, self.source.as_ref()),
            detailed(DegradationCause::HostCall, self.host_calls.as_ref()),
            detailed(DegradationCause::Planning, self.planning.as_ref()),
            detailed(DegradationCause::Unassigned, self.unassigned.as_ref()),
        ];
        let mut is_change = false;
        for (kind, found) in found.into_iter().enumerate() {
            let hysteresis = self.hysteresis_of(kind);
            let symptom = &mut self.symptoms[kind];
            let was_reported = symptom.is_reported;
            symptom.update(now, found, hysteresis);
            is_change |= symptom.is_reported != was_reported;
        }
        is_change.then(|| self.list())
    }

    pub fn list(&self) -> Degraded {
        let reported = || self.symptoms.iter().filter(|symptom| symptom.is_reported);
        Degraded {
            reasons: reported()
                .filter_map(|symptom| symptom.what.clone())
                .collect(),
            since: reported().filter_map(|symptom| symptom.since).min(),
        }
    }

    /// The first two kinds and the last three are reported at once: one is final, the others have a
    /// threshold of their own.
    fn hysteresis_of(&self, kind: usize) -> Hysteresis {
        let enter = if !(2..KINDS - 3).contains(&kind) {
            Duration::ZERO
        } else {
            self.hysteresis.enter
        };
        Hysteresis {
            enter,
            ..self.hysteresis
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The store fails in these spans; returns each report, checked every millisecond.
    fn reported(failing: &[(u64, u64)], until: u64) -> Vec<(u64, usize, Option<u64>)> {
        let mut health = CalculatorHealth::new(&CalculatorConfig::default());
        let mut reported = Vec::new();
        let mut was_failing = false;
        for ms in 0..until {
            let is_failing = failing.iter().any(|&(from, to)| (from..to).contains(&ms));
            health.store = is_failing.then(|| format!("since {ms}"));
            let before = health.deadline();
            let changed = health.changed(Time::from_millis(ms));
            let was_failing = std::mem::replace(&mut was_failing, is_failing);
            let Some(list) = changed else { continue };
            let is_due = before == Some(Time::from_millis(ms));
            assert!(
                is_due || is_failing != was_failing,
                "no deadline covers {ms}"
            );
            reported.push((ms, list.len(), list.since.map(|t| t.as_nanos() / 1_000_000)));
        }
        reported
    }

    #[test]
    fn short_failure_is_not_reported_and_long_one_is_with_its_start() {
        assert_eq!(reported(&[(100, 1_000)], 20_000), []);
        assert_eq!(
            reported(&[(100, 3_000)], 20_000),
            [(1_100, 1, Some(100)), (8_000, 0, None)]
        );
    }

    #[test]
    fn intermittent_failures_are_one_degradation() {
        let flapping: Vec<_> = (0..240).map(|n| (n * 250, n * 250 + 200)).collect();
        assert_eq!(
            reported(&flapping, 80_000),
            [(1_000, 1, Some(0)), (64_950, 0, None)]
        );
    }

    #[test]
    fn rare_failures_are_no_degradation() {
        let rare: Vec<_> = (0..10).map(|n| (n * 6_000, n * 6_000 + 900)).collect();
        assert_eq!(reported(&rare, 80_000), []);
    }

    #[test]
    fn concurrent_degradations_are_each_reported_with_their_text() {
        let mut health = CalculatorHealth::new(&CalculatorConfig::default());
        health.deposed = true;
        health.watch_lost = true;
        health.breaker = Some("no answer".into());
        assert_eq!(
            health.changed(Time::ZERO).unwrap().reasons,
            [Degradation::new(DegradationCause::Deposed)]
        );
        let list = health.changed(Time::from_millis(1_000)).unwrap();
        let words: Vec<_> = list.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "a newer leader has taken over, or the fence was removed",
                "heartbeat watch lost",
                "store unhealthy: no answer"
            ]
        );
        assert_eq!(list.since, Some(Time::ZERO));
    }
}

//! A circuit breaker: a store that fails again and again is left alone, but for one probe now and
//! then.
//!
//! # Protocol of use
//! Call [`Breaker::admit`] before each call and [`Breaker::ended`] after it, exactly once. After
//! either, and after [`Breaker::force_probe`], drain [`Breaker::poll_change`].

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::time::backoff::Backoff;
use crate::types::Time;
pub use crate::vocabulary::BreakerState;

/// When a breaker opens and how it closes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// So many failures in a row open it.
    pub failures: u32,
    /// Ceiling of the first pause before a probe; it doubles with each probe that fails.
    pub pause_min: Duration,
    /// Ceiling of all further pauses. With the time of one call it bounds how late the return of
    /// a store is noticed.
    pub pause_max: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures: 5,
            pause_min: Duration::from_millis(100),
            pause_max: Duration::from_millis(800),
        }
    }
}

/// The state of a breaker, and why it is not closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BreakerCondition {
    /// Its state. [`BreakerState::HalfOpen`]: one probe is in progress, and closes the breaker or
    /// opens it again.
    pub state: BreakerState,
    /// The failure that opened it; empty while it is closed.
    why: String,
    /// While it is open: from when on a call may pass as a probe.
    probe_at: Time,
}

impl BreakerCondition {
    /// Calls pass.
    #[must_use]
    pub fn closed() -> Self {
        Self::default()
    }

    /// Calls fail immediately until `probe_at`; the next one is a probe.
    #[must_use]
    pub fn open(why: impl Into<String>, probe_at: Time) -> Self {
        Self {
            state: BreakerState::Open,
            why: why.into(),
            probe_at,
        }
    }

    /// A probe is in progress.
    #[must_use]
    pub fn half_open(why: impl Into<String>) -> Self {
        Self {
            state: BreakerState::HalfOpen,
            why: why.into(),
            probe_at: Time::ZERO,
        }
    }

    /// Whether calls pass.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == BreakerState::Closed
    }

    /// Why calls fail immediately; `None` while they pass.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        (!self.is_closed()).then_some(&self.why)
    }

    /// When a call may pass as a probe; `None` unless the breaker is open.
    #[must_use]
    pub fn probe_at(&self) -> Option<Time> {
        (self.state == BreakerState::Open).then_some(self.probe_at)
    }

    /// Moves the time of the next probe of an open breaker.
    pub fn set_probe_at(&mut self, probe_at: Time) {
        self.probe_at = probe_at;
    }
}

impl fmt::Display for BreakerCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = &self.why;
        match self.state {
            BreakerState::Closed => f.write_str("circuit breaker closed: the store answers"),
            BreakerState::Open => write!(f, "circuit breaker opened: {why}"),
            BreakerState::HalfOpen => write!(f, "circuit breaker half-open: probing store: {why}"),
        }
    }
}

/// Permission for one call; return it with the call's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    /// How often the breaker had opened when it was given.
    opened: u64,
    is_probe: bool,
}

impl Permit {
    /// Whether the call is the probe.
    #[must_use]
    pub fn is_probe(self) -> bool {
        self.is_probe
    }
}

/// What a call says about the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answered, if only to refuse.
    Answered,
    /// It did not.
    Failed(String),
    /// Nothing: the call never got there.
    Silent,
}

/// See the module for the protocol of use.
#[derive(Clone, Debug)]
pub struct Breaker {
    rules: BreakerConfig,
    state: BreakerCondition,
    /// Failures in a row while closed.
    failures: u32,
    /// Whether a probe was asked for while one was under way that may have begun too early.
    is_forced: bool,
    opened: u64,
    pauses: Backoff,
    changes: VecDeque<BreakerCondition>,
}

impl Breaker {
    /// A closed one. `seed` determines the jitter of its pauses.
    #[must_use]
    pub fn new(rules: BreakerConfig, seed: u64) -> Self {
        Self {
            rules,
            state: BreakerCondition::closed(),
            failures: 0,
            is_forced: false,
            opened: 0,
            pauses: Backoff::new(rules.pause_min, rules.pause_max, seed),
            changes: VecDeque::new(),
        }
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> &BreakerCondition {
        &self.state
    }

    /// Whether a call may go through, and as what.
    ///
    /// # Errors
    /// Why it may not.
    pub fn admit(&mut self, now: Time) -> Result<Permit, String> {
        let is_due = self.state.probe_at().is_some_and(|due| due <= now);
        let is_probe = match self.state.state {
            BreakerState::Closed => false,
            BreakerState::Open if is_due => {
                self.go(BreakerCondition::half_open(self.state.why.clone()));
                true
            }
            BreakerState::Open | BreakerState::HalfOpen => return Err(self.state.why.clone()),
        };
        Ok(Permit {
            opened: self.opened,
            is_probe,
        })
    }

    /// A call has ended. One from before the breaker opened says nothing any more.
    pub fn ended(&mut self, now: Time, permit: Permit, verdict: Verdict) {
        if permit.opened != self.opened {
            return;
        }
        match (permit.is_probe, verdict) {
            (true, Verdict::Answered) => self.close(),
            (true, Verdict::Failed(why)) => {
                let pause = match std::mem::take(&mut self.is_forced) {
                    true => Duration::ZERO,
                    false => self.pauses.next_delay(),
                };
                self.open(why, now + pause);
            }
            (true, Verdict::Silent) => {
                let why = self.state.why().unwrap_or_default().to_owned();
                self.open(why, now);
            }
            (false, Verdict::Answered) => self.failures = 0,
            (false, Verdict::Failed(why)) => {
                self.failures += 1;
                if self.failures >= self.rules.failures {
                    let pause = self.pauses.next_delay();
                    self.open(why, now + pause);
                }
            }
            (false, Verdict::Silent) => {}
        }
    }

    /// There is reason to believe that the store is back: the next call is a probe, whenever it
    /// comes. A probe that is under way is not doubled, and another one follows it at once should
    /// it fail.
    pub fn force_probe(&mut self, now: Time) {
        match self.state.state {
            BreakerState::Closed => {}
            BreakerState::Open => {
                self.state.probe_at = now.min(self.state.probe_at);
                self.changes.push_back(self.state.clone());
            }
            BreakerState::HalfOpen => self.is_forced = true,
        }
    }

    /// How it came to stand after a change, oldest first.
    pub fn poll_change(&mut self) -> Option<BreakerCondition> {
        self.changes.pop_front()
    }

    fn open(&mut self, why: String, probe_at: Time) {
        self.opened += 1;
        self.go(BreakerCondition::open(why, probe_at));
    }

    fn close(&mut self) {
        self.failures = 0;
        self.is_forced = false;
        self.pauses.reset();
        self.go(BreakerCondition::closed());
    }

    fn go(&mut self, state: BreakerCondition) {
        self.state = state.clone();
        self.changes.push_back(state);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failed() -> Verdict {
        Verdict::Failed("no answer".into())
    }

    /// A breaker and its clock, played by a table of words: what happens, and how the breaker
    /// stands after it.
    struct Play {
        breaker: Breaker,
        now: Time,
        running: Vec<Permit>,
    }

    impl Play {
        fn new() -> Self {
            Self {
                breaker: Breaker::new(BreakerConfig::default(), 1),
                now: Time::from_millis(1_000),
                running: Vec::new(),
            }
        }

        fn step(&mut self, word: &str) -> &'static str {
            match word {
                "call" => match self.breaker.admit(self.now) {
                    Ok(permit) => self.running.push(permit),
                    Err(why) => {
                        assert_eq!(why, "no answer");
                        return "refused";
                    }
                },
                "force" => self.breaker.force_probe(self.now),
                "pause" => self.now = self.now + BreakerConfig::default().pause_max,
                verdict => {
                    let permit = self.running.remove(0);
                    let verdict = match verdict {
                        "answered" => Verdict::Answered,
                        "failed" => failed(),
                        "silent" => Verdict::Silent,
                        other => panic!("{other}"),
                    };
                    self.breaker.ended(self.now, permit, verdict);
                }
            }
            self.breaker.state().state.name()
        }

        fn play(&mut self, table: &[(&str, &str)]) {
            for (row, (word, expected)) in table.iter().enumerate() {
                assert_eq!(self.step(word), *expected, "row {row}: {word}");
            }
        }
    }

    const FAILURE: [(&str, &str); 2] = [("call", "closed"), ("failed", "closed")];

    fn opened() -> Play {
        let mut play = Play::new();
        for _ in 0..4 {
            play.play(&FAILURE);
        }
        play.play(&[("call", "closed"), ("failed", "open")]);
        play
    }

    #[test]
    fn consecutive_failures_open_breaker_and_answer_resets_count() {
        let mut play = Play::new();
        for _ in 0..4 {
            play.play(&FAILURE);
        }
        play.play(&[("call", "closed"), ("answered", "closed")]);
        play.play(&[("call", "closed"), ("silent", "closed")]);
        for _ in 0..4 {
            play.play(&FAILURE);
        }
        play.play(&[("call", "closed"), ("failed", "open"), ("call", "refused")]);
    }

    #[test]
    fn single_probe_after_pause_closes_or_reopens_breaker() {
        let mut play = opened();
        play.play(&[
            ("pause", "open"),
            ("call", "half_open"),
            ("call", "refused"),
            ("failed", "open"),
            ("call", "refused"),
            ("pause", "open"),
            ("call", "half_open"),
            ("silent", "open"),
            ("call", "half_open"),
            ("answered", "closed"),
            ("call", "closed"),
        ]);
    }

    #[test]
    fn forced_probe_is_immediate_and_not_repeated() {
        let mut play = opened();
        play.play(&[
            ("call", "refused"),
            ("force", "open"),
            ("call", "half_open"),
            ("force", "half_open"),
            ("call", "refused"),
            ("failed", "open"),
            ("call", "half_open"),
            ("failed", "open"),
            ("call", "refused"),
        ]);
    }

    #[test]
    fn calls_started_before_opening_are_ignored() {
        let mut play = Play::new();
        play.play(&[("call", "closed"); 7]);
        play.play(&[("failed", "closed"); 4]);
        play.play(&[
            ("failed", "open"),
            ("answered", "open"),
            ("pause", "open"),
            ("call", "half_open"),
            ("failed", "half_open"),
            ("answered", "closed"),
        ]);
    }

    #[test]
    fn every_breaker_transition_is_reported_once_in_order() {
        let mut play = opened();
        play.play(&[
            ("pause", "open"),
            ("call", "half_open"),
            ("answered", "closed"),
        ]);
        let reported: Vec<_> = std::iter::from_fn(|| play.breaker.poll_change())
            .map(|condition| condition.state.name())
            .collect();
        assert_eq!(reported, ["open", "half_open", "closed"]);
    }

    proptest! {
        #[test]
        fn open_breaker_admits_at_most_one_probe(
            steps in prop::collection::vec((0_u8..8, 0_u64..400), 1..300)
        ) {
            let mut breaker = Breaker::new(BreakerConfig::default(), 3);
            let mut now = Time::ZERO;
            let mut running: Vec<Permit> = Vec::new();
            let mut force_due = false;
            for (word, number) in steps {
                let was_closed = breaker.state().is_closed();
                match word {
                    0..=2 => {
                        if let Ok(permit) = breaker.admit(now) {
                            prop_assert!(permit.is_probe() != was_closed);
                            running.push(permit);
                            force_due = false;
                        } else {
                            prop_assert!(!was_closed);
                        }
                    }
                    3 => now = now + Duration::from_millis(number),
                    4 => {
                        breaker.force_probe(now);
                        force_due = breaker.state().probe_at().is_some();
                    }
                    verdict if !running.is_empty() => {
                        let index = usize::try_from(number).unwrap_or(0) % running.len();
                        let verdict = match verdict {
                            5 => Verdict::Answered,
                            6 => failed(),
                            _ => Verdict::Silent,
                        };
                        breaker.ended(now, running.swap_remove(index), verdict);
                    }
                    _ => {}
                }
                let probes = running.iter().filter(|permit| permit.is_probe()).count();
                prop_assert!(probes <= 1, "{probes} probes");
                let is_half_open = breaker.state().state == BreakerState::HalfOpen;
                prop_assert_eq!(is_half_open, probes == 1);
                if let Some(probe_at) = breaker.state().probe_at() {
                    prop_assert!(probe_at <= now + BreakerConfig::default().pause_max);
                    prop_assert!(!force_due || probe_at <= now);
                }
            }
        }
    }
}

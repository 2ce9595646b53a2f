//! Whether a partition list may replace the one in force.
//!
//! A source that returns only a part of its list would revoke partitions from healthy workers. A
//! list that lost too many partitions is therefore held back until the host confirms it, or until it
//! has stayed the same for the hold time.

use std::fmt;
use std::time::Duration;

use crate::types::Time;
use crate::wire::HeldCounts;

/// A list that is held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldList {
    /// Partitions of the list in force.
    pub in_force: usize,
    /// Number of them that are missing from the held list.
    pub lost: usize,
    /// Partitions of the held list.
    pub listed: usize,
    /// Time until it is applied, unless the partitions return.
    pub applied_in: Duration,
}

impl HeldList {
    /// Returns the numbers without the time that is left.
    #[must_use]
    pub fn counts(&self) -> HeldCounts {
        HeldCounts {
            in_force: self.in_force,
            lost: self.lost,
            listed: self.listed,
        }
    }
}

impl fmt::Display for HeldList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (counts, applied_in) = (self.counts(), self.applied_in);
        write!(
            f,
            "{counts}; otherwise it is applied in {applied_in:.0?} if it stays the same"
        )
    }
}

/// Judges lists against the one in force.
#[derive(Debug)]
pub struct ListGuard {
    max_shrink: f64,
    hold: Duration,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Open,
    Held {
        since: Time,
        in_force: usize,
        lost: usize,
        listed: usize,
    },
    /// Until the list is in force.
    Accepted,
}

/// The decision on a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Apply it.
    Apply,
    /// Apply it, after it was held back.
    Release,
    /// Keep the list in force, as before.
    Hold,
    /// Keep the list in force, from now on.
    HoldFromNow,
}

impl ListGuard {
    /// Returns a guard that holds back lists that lost more than the share `max_shrink`, for up to
    /// `hold`. A share of 1 disables it.
    #[must_use]
    pub fn new(max_shrink: f64, hold: Duration) -> Self {
        Self {
            max_shrink,
            hold,
            state: State::Open,
        }
    }

    /// Judges a list of `listed` partitions that lacks `lost` of the `in_force` ones.
    pub fn judge(
        &mut self,
        now: Time,
        in_force: usize,
        lost: usize,
        listed: usize,
        is_confirmed: bool,
    ) -> Judgement {
        let is_empty = listed == 0 && in_force > 0;
        let lost_much = lost as f64 > self.max_shrink * in_force as f64;
        let was_held = matches!(self.state, State::Held { .. });
        if self.max_shrink >= 1.0 || !is_empty && !lost_much {
            self.state = State::Open;
            return Judgement::Apply;
        }
        let since = match self.state {
            State::Accepted => return Judgement::Apply,
            State::Held { since, .. } => since,
            State::Open => now,
        };
        if is_confirmed || now.since(since) >= self.hold {
            self.state = State::Accepted;
            return if was_held {
                Judgement::Release
            } else {
                Judgement::Apply
            };
        }
        self.state = State::Held {
            since,
            in_force,
            lost,
            listed,
        };
        if was_held {
            Judgement::Hold
        } else {
            Judgement::HoldFromNow
        }
    }

    /// The list that was accepted, or any other, is in force from now on.
    pub fn in_force(&mut self) {
        if self.state == State::Accepted {
            self.state = State::Open;
        }
    }

    /// Returns when the held list is to be read again.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        match self.state {
            State::Held { since, .. } => Some(since + self.hold),
            State::Open | State::Accepted => None,
        }
    }

    /// Returns the held list, if any.
    #[must_use]
    pub fn held(&self, now: Time) -> Option<HeldList> {
        match self.state {
            State::Held {
                since,
                in_force,
                lost,
                listed,
            } => Some(HeldList {
                in_force,
                lost,
                listed,
                applied_in: (since + self.hold).since(now),
            }),
            State::Open | State::Accepted => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(300);

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1_000)
    }

    #[test]
    fn list_that_lost_more_than_the_share_or_all_is_held_back() {
        for (in_force, lost, listed, expected) in [
            (100, 50, 50, Judgement::Apply),
            (100, 51, 49, Judgement::HoldFromNow),
            (100, 51, 4_000, Judgement::HoldFromNow),
            (1, 1, 0, Judgement::HoldFromNow),
            (0, 0, 0, Judgement::Apply),
            (0, 0, 7, Judgement::Apply),
            (100, 0, 200, Judgement::Apply),
        ] {
            let mut guard = ListGuard::new(0.5, HOLD);
            let judgement = guard.judge(at(0), in_force, lost, listed, false);
            assert_eq!(judgement, expected, "{in_force} {lost} {listed}");
        }
        let mut off = ListGuard::new(1.0, HOLD);
        assert_eq!(off.judge(at(0), 100, 100, 0, false), Judgement::Apply);
    }

    #[test]
    fn confirmed_list_is_applied_and_next_shrink_is_judged_again() {
        let mut guard = ListGuard::new(0.5, HOLD);
        assert_eq!(guard.judge(at(0), 10, 9, 1, false), Judgement::HoldFromNow);
        assert_eq!(guard.judge(at(9), 10, 9, 1, false), Judgement::Hold);
        assert_eq!(
            guard.held(at(9)).unwrap().applied_in,
            HOLD - Duration::from_secs(9)
        );
        assert_eq!(guard.judge(at(10), 10, 9, 1, true), Judgement::Release);
        assert_eq!((guard.held(at(10)), guard.due()), (None, None));
        // Until it is published it stays accepted: the publication reads the list once more.
        assert_eq!(guard.judge(at(11), 10, 9, 1, false), Judgement::Apply);
        guard.in_force();
        assert_eq!(guard.judge(at(12), 1, 1, 0, false), Judgement::HoldFromNow);
    }

    #[test]
    fn held_list_is_applied_when_it_has_stayed_for_the_stated_time() {
        let mut guard = ListGuard::new(0.5, HOLD);
        guard.judge(at(5), 10, 10, 0, false);
        let due = guard.due().unwrap();
        assert_eq!(due, at(5) + HOLD);
        assert_eq!(guard.judge(at(304), 10, 10, 0, false), Judgement::Hold);
        assert_eq!(guard.judge(due, 10, 10, 0, false), Judgement::Release);
    }

    #[test]
    fn list_that_comes_back_starts_the_time_again() {
        let mut guard = ListGuard::new(0.5, HOLD);
        guard.judge(at(0), 10, 10, 0, false);
        assert_eq!(guard.judge(at(200), 10, 0, 10, false), Judgement::Apply);
        assert_eq!(guard.due(), None);
        assert_eq!(
            guard.judge(at(299), 10, 10, 0, false),
            Judgement::HoldFromNow
        );
        assert_eq!(guard.due(), Some(at(299) + HOLD));
    }
}

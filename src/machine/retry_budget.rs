//! The retry budget of a store: a token bucket, so that retries cannot multiply the load.

use std::time::Duration;

use crate::types::Time;

/// The limits of a retry budget. Over any span of time the retries are at most
/// `burst + share x first tries + per_second x seconds`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudgetConfig {
    /// Largest number of retries in a burst.
    pub burst: f64,
    /// Tokens that each first attempt adds.
    pub share: f64,
    /// Tokens added per second, so that a caller with few calls can retry.
    pub per_second: f64,
}

impl Default for RetryBudgetConfig {
    fn default() -> Self {
        Self {
            burst: 20.0,
            share: 0.2,
            per_second: 4.0,
        }
    }
}

/// The remaining tokens.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    config: RetryBudgetConfig,
    tokens: f64,
    /// When the tokens were last counted.
    counted: Time,
}

impl RetryBudget {
    /// Returns a full budget.
    #[must_use]
    pub fn new(config: RetryBudgetConfig, now: Time) -> Self {
        Self {
            config,
            tokens: config.burst,
            counted: now,
        }
    }

    /// Adds the tokens of a first attempt.
    pub fn record_first_attempt(&mut self, now: Time) {
        self.add(self.config.share);
        self.pass(now);
    }

    /// Takes a token for a retry. Returns false if there is none.
    pub fn retry(&mut self, now: Time) -> bool {
        self.pass(now);
        let granted = self.tokens >= 1.0;
        if granted {
            self.tokens -= 1.0;
        }
        granted
    }

    fn pass(&mut self, now: Time) {
        let passed: Duration = now.since(self.counted);
        self.add(self.config.per_second * passed.as_secs_f64());
        self.counted = self.counted.max(now);
    }

    fn add(&mut self, tokens: f64) {
        self.tokens = (self.tokens + tokens).min(self.config.burst);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn empty_budget_refills_over_time_and_by_first_attempts_up_to_burst() {
        let mut retry_budget = RetryBudget::new(RetryBudgetConfig::default(), Time::ZERO);
        let drain = |retry_budget: &mut RetryBudget, now| {
            std::iter::from_fn(|| retry_budget.retry(now).then_some(())).count()
        };
        assert_eq!(drain(&mut retry_budget, Time::ZERO), 20);
        assert_eq!(drain(&mut retry_budget, Time::from_millis(1_000)), 4);
        for _ in 0..11 {
            retry_budget.record_first_attempt(Time::from_millis(1_000));
        }
        assert_eq!(drain(&mut retry_budget, Time::from_millis(1_000)), 2);
        assert_eq!(drain(&mut retry_budget, Time::from_millis(3_600_000)), 20);
    }

    proptest! {
        #[test]
        fn retries_are_bounded_for_any_request_pattern(
            steps in prop::collection::vec((0_u64..2_000, any::<bool>()), 1..400)
        ) {
            let config = RetryBudgetConfig::default();
            let mut retry_budget = RetryBudget::new(config, Time::ZERO);
            let mut now = Time::ZERO;
            let (mut firsts, mut retries) = (0.0, 0.0);
            for (pause, is_retry) in steps {
                now = now + Duration::from_millis(pause);
                if !is_retry {
                    retry_budget.record_first_attempt(now);
                    firsts += 1.0;
                } else if retry_budget.retry(now) {
                    retries += 1.0;
                }
                let seconds = now.since(Time::ZERO).as_secs_f64();
                let bound = config.burst + config.share * firsts + config.per_second * seconds;
                prop_assert!(retries <= bound + 1e-6, "{retries} of {bound}");
            }
        }
    }
}

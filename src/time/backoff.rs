//! Exponential backoff with full jitter: how long to wait before the next try, wherever there is one.

use std::time::Duration;

/// Delays whose ceiling doubles from a minimum to a maximum, each drawn between nothing and its
/// ceiling.
///
/// The whole range is drawn from, since what fails for many fails for all of them at the same
/// moment: only so are their retries spread evenly. That some come almost at once is paid for by
/// the retry budget.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    attempt: u32,
    random: SplitMix,
}

impl Backoff {
    /// Delays from `min` to `max`, jittered by a sequence that `seed` determines.
    #[must_use]
    pub fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self {
            min,
            max,
            attempt: 0,
            random: SplitMix(seed),
        }
    }

    /// The delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.delay_after(self.attempt);
        self.attempt = self.attempt.saturating_add(1);
        delay
    }

    /// Returns the delay after `others` delays, for callers that count themselves.
    pub fn delay_after(&mut self, others: u32) -> Duration {
        let doubled = self.min.saturating_mul(1 << others.min(20));
        self.random.below(doubled.min(self.max))
    }

    /// The delay before the next attempt; `None` when `left` is over by then, so that the attempt
    /// could not finish.
    pub fn next_delay_within(&mut self, left: Duration) -> Option<Duration> {
        let delay = self.next_delay();
        (delay < left).then_some(delay)
    }

    /// How many delays were handed out since the last success.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempt
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// The SplitMix64 generator: enough for jitter, and the same on every platform.
#[derive(Clone, Debug)]
pub(crate) struct SplitMix(pub u64);

impl SplitMix {
    /// A duration from zero up to, not including, `ceiling`.
    pub fn below(&mut self, ceiling: Duration) -> Duration {
        ceiling.mul_f64(self.next_unit())
    }

    /// A number from 0 up to, not including, `count`; 0 for no count at all.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )] // counts are small, and the product stays below them
    pub fn index(&mut self, count: usize) -> usize {
        (self.next_unit() * count as f64) as usize
    }

    /// A number from 0 up to, not including, 1.
    #[allow(clippy::cast_precision_loss)] // 53 bits fit a double exactly
    fn next_unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(5);

    #[test]
    fn delays_grow_within_bounds_and_reset_after_success() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(MIN, MAX, seed);
            for attempt in 0..40 {
                let ceiling = MIN.saturating_mul(1 << attempt.min(10)).min(MAX);
                let delay = backoff.next_delay();
                assert!(delay <= ceiling, "{attempt}: {delay:?}");
            }
            backoff.reset();
            assert!(backoff.next_delay() <= MIN);
            assert_eq!(backoff.attempts(), 1);
        }
    }

    #[test]
    fn jitter_is_uniform_over_whole_range() {
        let mut quarters = [0_u32; 4];
        for seed in 0..4_000 {
            let delay = Backoff::new(MIN, MAX, seed).next_delay();
            let quarter = (delay.as_nanos() * 4 / MIN.as_nanos()).min(3);
            quarters[usize::try_from(quarter).unwrap()] += 1;
        }
        for count in quarters {
            assert!((850..=1_150).contains(&count), "{quarters:?}");
        }
    }

    #[test]
    fn delay_exceeding_remaining_time_is_none() {
        let mut backoff = Backoff::new(MIN, MAX, 7);
        assert_eq!(backoff.next_delay_within(Duration::ZERO), None);
        let mut granted = 0;
        for _ in 0..100 {
            granted += backoff
                .next_delay_within(MAX / 2)
                .inspect(|delay| assert!(*delay < MAX / 2))
                .map_or(0, |_| 1);
        }
        assert!((30..70).contains(&granted), "{granted}");
    }

    #[test]
    fn different_seeds_draw_different_delays() {
        let mut one = Backoff::new(MIN, MAX, 1);
        let mut two = Backoff::new(MIN, MAX, 2);
        assert_ne!(one.next_delay(), two.next_delay());
    }
}

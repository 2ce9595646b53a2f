//! When watches that are to be open and are not are opened again: one could not be opened, or has
//! ended.

use std::time::Duration;

use crate::config::CalculatorConfig;
use crate::time::backoff::Backoff;
use crate::types::Time;

/// The pauses between attempts. One that was opened and ends at once is not opened again before the
/// shortest pause is over either.
#[derive(Debug)]
pub struct Reopening {
    due: Time,
    pause: Duration,
    backoff: Backoff,
}

impl Reopening {
    /// The first attempt is due at once. `seed` determines the jitter of the pauses.
    #[must_use]
    pub fn new(config: &CalculatorConfig, seed: u64) -> Self {
        let (min, max) = (config.retry_delay_min, config.retry_delay_max);
        Self {
            due: Time::ZERO,
            pause: min,
            backoff: Backoff::new(min, max, seed),
        }
    }

    /// When the missing watches are due to be opened.
    #[must_use]
    pub fn due(&self) -> Time {
        self.due
    }

    /// Makes the next attempt due at once.
    pub fn hurry(&mut self) {
        self.due = Time::ZERO;
    }

    /// Notes that everything is open.
    pub fn opened(&mut self, now: Time) {
        self.backoff.reset();
        self.due = now + self.pause;
    }

    /// Notes a failure and returns how many there were in a row.
    pub fn failed(&mut self, now: Time) -> u32 {
        self.due = now + self.backoff.next_delay();
        self.backoff.attempts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn immediate_close_waits_minimum_delay_and_failures_wait_longer() {
        let config = CalculatorConfig::default();
        let now = Time::from_millis(1_000_000);
        let mut reopening = Reopening::new(&config, 7);
        assert_eq!(reopening.due(), Time::ZERO);
        reopening.opened(now);
        assert_eq!(reopening.due(), now + config.retry_delay_min);
        reopening.hurry();
        assert!(reopening.due() < now);
        for tries in 1..20 {
            assert_eq!(reopening.failed(now), tries);
            assert!(reopening.due() <= now + config.retry_delay_max);
        }
        reopening.opened(now);
        assert_eq!(reopening.failed(now), 1);
    }
}

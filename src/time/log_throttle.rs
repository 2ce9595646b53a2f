//! Log throttling: a repeated condition is logged once, and then as a count at growing intervals.

use std::time::Duration;

use crate::types::Time;

/// The first pause between two lines about the same thing.
const INTERVAL_MIN: Duration = Duration::from_secs(10);

/// The longest one.
const INTERVAL_MAX: Duration = Duration::from_secs(320);

/// A condition that was absent for this long is logged again at once.
const QUIET: Duration = Duration::from_secs(60);

/// Decides which occurrences of one condition are logged.
///
/// Only a quiet period resets it: a flapping condition would otherwise be logged each time.
#[derive(Clone, Debug, Default)]
pub struct LogThrottle {
    /// Time of the last logged occurrence, and the suppression time after it; `None`: never logged.
    reported: Option<(Time, Duration)>,
    last: Time,
    suppressed_count: u64,
}

impl LogThrottle {
    /// Records an occurrence. Returns `Some` if it is to be logged, with the number of suppressed
    /// ones.
    pub fn record(&mut self, now: Time) -> Option<u64> {
        let interval = match self.reported {
            None => INTERVAL_MIN,
            Some(_) if now.since(self.last) >= QUIET => INTERVAL_MIN,
            Some((reported, interval)) if now.since(reported) < interval => {
                self.last = now;
                self.suppressed_count += 1;
                return None;
            }
            Some((_, interval)) => (interval * 2).min(INTERVAL_MAX),
        };
        self.last = now;
        self.reported = Some((now, interval));
        Some(std::mem::take(&mut self.suppressed_count))
    }
}

/// The number of suppressed lines, as text that follows the message.
pub fn suppressed(count: u64) -> String {
    match count {
        0 => String::new(),
        1 => " (1 similar line suppressed)".into(),
        more => format!(" ({more} similar lines suppressed)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(times: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
        let mut throttle = LogThrottle::default();
        let reported = times.into_iter().filter_map(|ms| {
            let count = throttle.record(Time::from_millis(ms))?;
            Some((ms / 1_000, count))
        });
        reported.collect()
    }

    #[test]
    fn first_failure_is_logged_then_counts_at_growing_intervals() {
        assert_eq!(
            reported((0..700).map(|second| second * 1_000)),
            [
                (0, 0),
                (10, 9),
                (30, 19),
                (70, 39),
                (150, 79),
                (310, 159),
                (630, 319)
            ]
        );
    }

    #[test]
    fn ten_minutes_of_failures_are_few_lines_with_exact_count() {
        let lines = reported((0..2_400).map(|quarter| quarter * 250));
        assert!(lines.len() <= 7, "{lines:?}");
        let (last, _) = lines[lines.len() - 1];
        let counted: u64 = lines.iter().map(|(_, count)| count + 1).sum();
        assert_eq!(counted, last * 4 + 1);
    }

    #[test]
    fn failure_after_long_quiet_is_logged_at_once() {
        assert_eq!(
            reported([0, 1_000, 62_000, 63_000, 123_000]),
            [(0, 0), (62, 1), (123, 1)]
        );
    }
}

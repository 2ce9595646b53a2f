//! How long one call may go without an answer: a part of the time of the whole operation, so that
//! an answer that is lost does not cost all of it.

use std::time::Duration;

/// So many calls without an answer fit into one operation.
const PARTS: u32 = 4;

/// How patient callers are with one kind of call.
///
/// A quarter of the operation's time at first. What may be slow rather than lost is given twice
/// as long the next time, up to the whole, and for as long as answers take their time: a store
/// that needs longer than a quarter is still worked with.
#[derive(Clone, Debug)]
pub struct AdaptiveTimeout {
    least: Duration,
    most: Duration,
    present: Duration,
}

impl AdaptiveTimeout {
    /// For calls of operations that may take this long.
    #[must_use]
    pub fn new(operation_timeout: Duration) -> Self {
        let least = operation_timeout / PARTS;
        Self {
            least,
            most: operation_timeout,
            present: least,
        }
    }

    /// For callers with a timeout of their own.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            least: Duration::MAX,
            most: Duration::MAX,
            present: Duration::MAX,
        }
    }

    /// How long the next call may take.
    #[must_use]
    pub fn next(&self) -> Duration {
        self.present
    }

    /// A call was answered after this long.
    pub fn answered(&mut self, took: Duration) {
        if took < self.least {
            self.present = self.least;
        }
    }

    /// A call had no answer after this long. One that failed sooner would not have been helped by
    /// more time.
    pub fn timed_out(&mut self, took: Duration) {
        if took >= self.present {
            self.present = self.present.saturating_mul(2).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn timeout_starts_at_quarter_and_grows_after_each_timeout() {
        let mut timeout = AdaptiveTimeout::new(SECOND * 10);
        let mut had = Vec::new();
        for _ in 0..4 {
            had.push(timeout.next().as_millis());
            timeout.timed_out(timeout.next());
        }
        assert_eq!(had, [2_500, 5_000, 10_000, 10_000]);
    }

    #[test]
    fn immediate_failure_does_not_increase_timeout() {
        let mut timeout = AdaptiveTimeout::new(SECOND * 10);
        timeout.timed_out(SECOND);
        assert_eq!(timeout.next(), SECOND * 5 / 2);
    }

    #[test]
    fn slow_answers_keep_timeout_and_fast_answers_reduce_it() {
        let mut timeout = AdaptiveTimeout::new(SECOND * 10);
        timeout.timed_out(timeout.next());
        timeout.answered(SECOND * 4);
        assert_eq!(timeout.next(), SECOND * 5);
        timeout.answered(SECOND);
        assert_eq!(timeout.next(), SECOND * 5 / 2);
    }

    #[test]
    fn unlimited_timeout_stays_unlimited() {
        let mut timeout = AdaptiveTimeout::unlimited();
        timeout.timed_out(SECOND);
        timeout.answered(SECOND);
        assert_eq!(timeout.next(), Duration::MAX);
    }
}

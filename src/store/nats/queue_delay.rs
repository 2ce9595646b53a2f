//! How long what is pulled has waited at the server.

use std::time::{Duration, Instant};

/// How long a short way counts at least, and at most twice as long.
const REMEMBERED: Duration = Duration::from_secs(5);

/// Tells how long a message has waited from when the server stored it, by its own clock, and from
/// when it arrived here. Neither clock is believed to be right: the message of late that took the
/// least time is taken for one that has not waited, and the others are compared with it.
///
/// A server's clock that was set back makes what comes look as if it had waited, until that is
/// forgotten; therefore no message has waited for longer than is possible.
pub(super) struct QueueDelayEstimator {
    began: Instant,
    /// The least differences of late and of before, in nanoseconds, and when "of late" began.
    least: [Option<i128>; 2],
    since: Instant,
}

impl QueueDelayEstimator {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            least: [None; 2],
            since: now,
        }
    }

    /// How long what was `stored` then, in nanoseconds, has waited if it has just arrived and was
    /// not there yet at `missing`.
    pub(super) fn of(&mut self, stored: u64, now: Instant, missing: Instant) -> Duration {
        if now.duration_since(self.since) >= REMEMBERED {
            self.least = [None, self.least[0]];
            self.since = now;
        }
        let elapsed = now.duration_since(self.began).as_nanos();
        let taken = i128::try_from(elapsed).unwrap_or(i128::MAX) - i128::from(stored);
        let least = self.least.into_iter().flatten().min().unwrap_or(taken);
        self.least[0] = Some(self.least[0].unwrap_or(taken).min(taken));
        let waited = u64::try_from(taken - least.min(taken)).unwrap_or(u64::MAX);
        Duration::from_nanos(waited).min(now.duration_since(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the server's clock shows at the beginning.
    const THEN: u64 = 1_700_000_000_000_000_000;

    struct World {
        began: Instant,
        waits: QueueDelayEstimator,
        server: u64,
    }

    impl World {
        fn new() -> Self {
            let began = Instant::now();
            Self {
                began,
                waits: QueueDelayEstimator::new(began),
                server: THEN,
            }
        }

        /// What one is said to have waited that was stored and arrived then, in milliseconds.
        fn waited(&mut self, stored: u64, arrived: u64, missing: u64) -> u128 {
            let at = |millis| self.began + Duration::from_millis(millis);
            let (now, missing) = (at(arrived), at(missing));
            let stored = self.server + stored * 1_000_000;
            self.waits.of(stored, now, missing).as_millis()
        }
    }

    #[test]
    fn messages_delivered_together_waited_since_they_were_stored() {
        let mut world = World::new();
        assert_eq!(world.waited(0, 1, 0), 0);
        assert_eq!(world.waited(50, 201, 1), 150);
        assert_eq!(world.waited(120, 201, 1), 80);
        assert_eq!(world.waited(200, 201, 1), 0);
    }

    #[test]
    fn queue_delay_never_exceeds_possible_maximum() {
        let mut world = World::new();
        assert_eq!(world.waited(0, 0, 0), 0);
        // The server's clock goes back by an hour.
        world.server -= 3_600_000_000_000;
        assert_eq!(world.waited(1_000, 1_000, 800), 200);
        // It is believed soon.
        assert_eq!(world.waited(6_000, 6_000, 5_800), 200);
        assert_eq!(world.waited(11_000, 11_000, 10_800), 0);
        assert_eq!(world.waited(11_100, 11_200, 11_000), 100);
    }

    #[test]
    fn server_clock_set_forward_is_accepted_at_once() {
        let mut world = World::new();
        assert_eq!(world.waited(0, 0, 0), 0);
        world.server += 3_600_000_000_000;
        assert_eq!(world.waited(1_000, 1_000, 800), 0);
        assert_eq!(world.waited(1_050, 1_150, 1_000), 100);
    }

    #[test]
    fn clock_drift_is_tracked() {
        let mut world = World::new();
        // The server's clock is slow: a millisecond a second.
        for second in 0..100_u64 {
            world.server -= 1_000_000;
            let millis = second * 1_000;
            assert!(world.waited(millis, millis, 0) <= 11);
        }
    }
}

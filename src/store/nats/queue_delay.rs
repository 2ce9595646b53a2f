//! Estimates how long a pulled message waited at the server.

use std::time::{Duration, Instant};

/// The smallest difference is remembered for at least this long, and at most twice as long.
const REMEMBERED: Duration = Duration::from_secs(5);

/// Estimates the waiting time of a message from its store time by the server's clock and its arrival
/// time by the local clock. The clocks may differ: the recent message with the smallest difference is
/// assumed not to have waited, and the others are compared with it.
///
/// After the server's clock was set back, messages seem to have waited until the old minimum is
/// forgotten. The estimate is therefore limited to the time since the queue was last empty.
pub(super) struct QueueDelayEstimator {
    began: Instant,
    /// The smallest differences of the current and the previous period, in nanoseconds.
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

    /// Returns how long a message waited that has just arrived, was `stored` at this time of the
    /// server in nanoseconds, and did not exist yet at `missing`.
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

    /// The server's clock at the start.
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

        /// Returns the estimate for a message stored and arrived at these times, in milliseconds.
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
        // The server's clock is set back by an hour.
        world.server -= 3_600_000_000_000;
        assert_eq!(world.waited(1_000, 1_000, 800), 200);
        // The new clock is accepted soon.
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
        // The server's clock loses a millisecond per second.
        for second in 0..100_u64 {
            world.server -= 1_000_000;
            let millis = second * 1_000;
            assert!(world.waited(millis, millis, 0) <= 11);
        }
    }
}

//! The clocks of a process.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use divvy::time::clock::{Clock, ManualClock};
use divvy::types::Time;

/// A clock with its own origin and rate.
#[derive(Clone, Copy, Debug)]
pub struct LocalClock {
    pub rate: u64,
    pub offset: u64,
}

impl LocalClock {
    pub fn of(self, time: Time) -> Time {
        let nanos = u128::from(time.as_nanos()) * u128::from(self.rate) / 1_000;
        Time::from_nanos(u64::try_from(nanos).expect("a time") + self.offset)
    }

    /// Returns the first true time at which the clock shows at least this.
    pub fn when(self, local: Time) -> Time {
        let nanos = u128::from(local.as_nanos().saturating_sub(self.offset)) * 1_000;
        let time = nanos.div_ceil(u128::from(self.rate));
        Time::from_nanos(u64::try_from(time).unwrap_or(u64::MAX))
    }

    pub fn to_true(self, local: Duration) -> Duration {
        local * 1_000 / u32::try_from(self.rate).expect("a rate")
    }
}

/// The clocks as seen by the code of the process.
pub struct OwnClock {
    clock: ManualClock,
    local: LocalClock,
    /// How long the clock of deadlines has been stopped while the other one ran.
    stood_still: AtomicU64,
}

impl OwnClock {
    pub fn new(clock: ManualClock, local: LocalClock) -> Self {
        Self {
            clock,
            local,
            stood_still: AtomicU64::new(0),
        }
    }

    /// Stops the clock of deadlines for this true time.
    pub fn stand_still(&self, time: Duration) {
        let local = self
            .local
            .of(Time::ZERO + time)
            .since(self.local.of(Time::ZERO));
        let nanos = u64::try_from(local.as_nanos()).expect("a time");
        self.stood_still.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Returns the first true time at which the clock of deadlines shows at least this, unless it
    /// stops before.
    pub fn when(&self, deadline: Time) -> Time {
        let stood_still = Duration::from_nanos(self.stood_still.load(Ordering::Relaxed));
        self.local.when(deadline + stood_still)
    }
}

impl Clock for OwnClock {
    fn now(&self) -> Time {
        self.local.of(self.clock.now())
    }

    fn instant(&self) -> Instant {
        let stood_still = Duration::from_nanos(self.stood_still.load(Ordering::Relaxed));
        origin() + self.now().since(Time::ZERO) - stood_still
    }
}

/// Returns what the clock of deadlines shows at this time.
pub fn time_of(instant: Instant) -> Time {
    Time::ZERO + instant.saturating_duration_since(origin())
}

/// Later than the end of any simulation in real time, so that code that reads the real clock finds
/// no deadline passed.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(|| Instant::now() + Duration::from_secs(30 * 24 * 3600))
}

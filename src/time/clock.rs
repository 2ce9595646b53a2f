//! Where time comes from: the system's clock for services, a driven one for tests and simulation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::types::Time;

/// A source of monotonic time. `now` never goes back and never blocks.
pub trait Clock: Send + Sync {
    /// The present.
    fn now(&self) -> Time;

    /// The present as callers' deadlines count it. Left as it is but in a simulation.
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// The system's monotonic clock, counting suspended time where the platform can.
///
/// Leases must run on while a host sleeps, so this is `CLOCK_BOOTTIME` on Linux.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
        let mut spec = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `spec` is a valid, writable timespec; the call keeps no reference to it.
        let status = unsafe { libc::clock_gettime(CLOCK, &raw mut spec) };
        // The only documented failures are a bad pointer and an unknown clock.
        assert_eq!(status, 0, "the system has no monotonic clock");
        let seconds = u64::try_from(spec.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(spec.tv_nsec).unwrap_or(0);
        Time::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }
}

/// The wall clock as text (RFC 3339, to the nanosecond): for people who read the store, never
/// compared.
pub(crate) fn wall_clock() -> String {
    wall_clock_at(SystemTime::now())
}

/// What the wall clock shows at this time: the years 1970 to 9999, which RFC 3339 can express; a clock
/// outside shows the nearest of them.
pub(crate) fn wall_clock_at(time: SystemTime) -> String {
    const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH);
    let shown = SystemTime::UNIX_EPOCH + since_1970.unwrap_or_default().min(LAST_SECOND);
    humantime::format_rfc3339_nanos(shown).to_string()
}

/// A clock that stops until it is advanced. Clones share the same time.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock at the origin of time.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanos, Ordering::AcqRel);
    }

    /// Moves the clock to `time`; a time in the past changes nothing.
    pub fn advance_to(&self, time: Time) {
        self.0.fetch_max(time.as_nanos(), Ordering::AcqRel);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        Time::from_nanos(self.0.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_never_goes_back_and_is_shared_by_clones() {
        let clock = ManualClock::new();
        let other = clock.clone();
        clock.advance(Duration::from_secs(2));
        other.advance_to(Time::from_millis(1_000));
        assert_eq!(other.now(), Time::from_millis(2_000));
    }

    #[test]
    fn wall_clock_beyond_year_9999_or_before_1970_does_not_panic() {
        let epoch = SystemTime::UNIX_EPOCH;
        let last = Duration::from_secs(253_402_300_799);
        let second = Duration::from_secs(1);
        for (time, shown) in [
            (epoch + last, "9999-12-31T23:59:59.000000000Z"),
            (epoch + last + second, "9999-12-31T23:59:59.000000000Z"),
            (epoch + last * 1_000, "9999-12-31T23:59:59.000000000Z"),
            (epoch - second, "1970-01-01T00:00:00.000000000Z"),
            (epoch + second, "1970-01-01T00:00:01.000000000Z"),
        ] {
            assert_eq!(wall_clock_at(time), shown);
        }
    }

    #[test]
    fn system_clock_never_goes_back() {
        let first = SystemClock.now();
        assert!(SystemClock.now() >= first);
    }
}

//! An adjustable wall clock for this process: replaces the function of the C library.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

/// Offset to the clock of the system in seconds.
static AHEAD: AtomicI64 = AtomicI64::new(0);

pub const DAY: i64 = 24 * 3_600;

/// Sets the offset in seconds; negative: behind.
pub fn set_ahead(seconds: i64) {
    let before = (AHEAD.load(Ordering::SeqCst), SystemTime::now());
    AHEAD.store(seconds, Ordering::SeqCst);
    let step = Duration::from_secs(seconds.abs_diff(before.0));
    let now = SystemTime::now();
    let stepped = match seconds > before.0 {
        true => now.duration_since(before.1),
        false => (before.1 + Duration::from_secs(1)).duration_since(now),
    };
    assert!(
        stepped.is_ok_and(|by| by >= step),
        "the clock is not this one"
    );
}

/// Called by the standard library to read the time.
///
/// # Safety
/// As for the function of the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    // SAFETY: the kernel checks the arguments of the caller.
    let status = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    if status == 0 && clock == libc::CLOCK_REALTIME {
        // SAFETY: the kernel has just written to it.
        unsafe { (*time).tv_sec += AHEAD.load(Ordering::SeqCst) };
    }
    libc::c_int::try_from(status).unwrap_or(-1)
}

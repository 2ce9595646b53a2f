//! Wraps every function body: catches panics, rejects calls in a forked child, and writes the error
//! text.

use std::cell::Cell;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) use super::failure::Failure;
use super::failure::Writer;
use super::status::divvy_status;
use crate::threads;
use crate::types::truncated;

pub(super) type Outcome<T = ()> = Result<T, Failure>;

/// A word that a number of the header stands for.
pub(super) fn known<T>(word: Option<T>, number: i32, c_type: &str) -> Outcome<T> {
    word.ok_or_else(|| {
        Failure::new(
            divvy_status::DIVVY_INVALID_ARGUMENT,
            format!("{number} is not a {c_type}"),
        )
    })
}

/// Where the caller wants to read what went wrong.
#[derive(Clone, Copy)]
pub(super) struct Detail {
    buffer: *mut c_char,
    length: usize,
}

impl Detail {
    pub fn new(buffer: *mut c_char, length: usize) -> Self {
        Self { buffer, length }
    }

    fn write(self, failure: &Failure) {
        if self.buffer.is_null() || self.length == 0 {
            return;
        }
        // SAFETY: the caller vouches for `length` writable bytes, and there is at least one.
        failure.write(&mut unsafe { Writer::new(self.buffer, self.length) });
    }
}

/// Runs the body of a fallible function.
pub(super) fn call(detail: Detail, body: impl FnOnce() -> Outcome) -> divvy_status {
    match caught(body) {
        Ok(()) => divvy_status::DIVVY_OK,
        Err(failure) => {
            detail.write(&failure);
            failure.status
        }
    }
}

/// Runs the body of a function that returns a value, or a status (which is negative) instead.
pub(super) fn value(body: impl FnOnce() -> Outcome<i64>) -> i64 {
    match caught(body) {
        Ok(value) => value,
        Err(failure) => failure.status as i64,
    }
}

/// As [`value`], for numbers that are known to be small.
pub(super) fn small_value(body: impl FnOnce() -> Outcome<i32>) -> i32 {
    match caught(body) {
        Ok(value) => value,
        Err(failure) => failure.status as i32,
    }
}

/// Runs the body of a function that has `fallback` to return when it fails.
pub(super) fn or<T>(fallback: T, body: impl FnOnce() -> Outcome<T>) -> T {
    caught(body).unwrap_or(fallback)
}

fn caught<T>(body: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let mut body = Some(body);
    let mut outcome = None;
    guarded(&mut || outcome = body.take().map(|body| body()))?;
    // The body has run: otherwise there is an error.
    outcome.unwrap_or_else(|| {
        let status = divvy_status::DIVVY_PANICKED;
        Err(Failure::new(status, "the call was not carried out"))
    })
}

/// Runs a call, unless this is a forked child. Not generic: a copy for each function, with what starts
/// a thread, was a tenth of the library.
fn guarded(call: &mut dyn FnMut()) -> Outcome {
    // Before anything else: a lock may have been held by a thread that the child does not have.
    if IS_FORKED.load(Ordering::Relaxed) {
        return Err(Failure::new(
            divvy_status::DIVVY_FORKED,
            "divvy was in use when this process was forked; use it in one process, after the fork",
        ));
    }
    if is_past_end() {
        return on_another_thread(call);
    }
    caught_here(call)
}

fn caught_here(call: &mut dyn FnMut()) -> Outcome {
    let outer = IN_GUARD.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    IN_GUARD.set(outer);
    result.map_err(|panic| {
        let text = crate::threads::panic_text(panic.as_ref());
        let text = format!("panicked: {}", truncated(text, 400));
        Failure::new(divvy_status::DIVVY_PANICKED, text)
    })
}

thread_local! {
    static IN_GUARD: Cell<bool> = const { Cell::new(false) };
    static LOCALS: Locals = const { Locals };
}

/// Destroyed together with the other locals of its thread.
struct Locals;

impl Drop for Locals {
    fn drop(&mut self) {}
}

/// Whether the locals of this thread have been destroyed. Hosts may call the library even then, from
/// the destructor of a pthread key; but waiting on a channel needs the locals, and panics without.
fn is_past_end() -> bool {
    LOCALS.try_with(|_| ()).is_err()
}

/// Runs a call for a thread that is past its end, and waits for it.
fn on_another_thread(call: &mut dyn FnMut()) -> Outcome {
    /// A call that borrows from the calling thread.
    struct Carried<'a>(&'a mut dyn FnMut());
    // SAFETY: the calling thread uses nothing of the call until the other thread has ended.
    unsafe impl Send for Carried<'_> {}
    impl Carried<'_> {
        /// Captures the struct in a closure, not its field, which is not `Send`.
        fn run(self) -> Outcome {
            caught_here(self.0)
        }
    }
    let carried = Carried(call);
    // SAFETY: it is joined below, before anything that it borrows ends.
    let spawned = unsafe { threads::spawn_borrowing("dv-late-call", move || carried.run()) };
    let ended = spawned.map(std::thread::JoinHandle::join);
    let failed = |why: &'static str| Err(Failure::new(divvy_status::DIVVY_UNAVAILABLE, why));
    match ended {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => failed("the thread of a call at a thread's end panicked"),
        Err(_) => failed("the system cannot start a thread for a call at a thread's end"),
    }
}

static IS_FORKED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_fork() {
    IS_FORKED.store(true, Ordering::Relaxed);
}

/// What the process has to know once there is a first handle: when it is forked, and that panics on
/// our threads and in our calls must not be printed.
pub(super) fn prepare_process() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(unix)]
        // SAFETY: the handler only stores to an atomic, which is allowed after a fork.
        unsafe {
            libc::pthread_atfork(None, None, Some(note_fork));
        }
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // Not by the thread's name: asking for it panics on a thread that is past its end.
            if threads::is_own_thread() || IN_GUARD.get() {
                log::error!(target: "divvy::panic", "{info}");
            } else {
                previous(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(message: &'static str, buffer: &mut [u8]) -> divvy_status {
        let detail = Detail::new(buffer.as_mut_ptr().cast(), buffer.len());
        call(detail, || {
            Err(Failure::new(divvy_status::DIVVY_CONFLICT, message))
        })
    }

    #[test]
    fn panic_becomes_status_with_its_message() {
        prepare_process();
        let mut buffer = [b'x'; 64];
        let detail = Detail::new(buffer.as_mut_ptr().cast(), buffer.len());
        let status = call(detail, || panic!("simulated"));
        assert_eq!(status, divvy_status::DIVVY_PANICKED);
        let text = std::ffi::CStr::from_bytes_until_nul(&buffer).unwrap();
        assert_eq!(text.to_str().unwrap(), "panicked: simulated");
        assert_eq!(small_value(|| panic!("again")), -200);
    }

    #[test]
    fn detail_is_truncated_at_character_boundary_and_terminated() {
        let mut buffer = [b'x'; 5];
        failing("ab\u{e9}\u{e9}", &mut buffer);
        assert_eq!(&buffer, "ab\u{e9}\0".as_bytes());
        let mut buffer = [b'x'; 4];
        failing("ab\u{e9}\u{e9}", &mut buffer);
        assert_eq!(&buffer[..3], b"ab\0");
        let mut buffer = [b'x'; 4];
        failing("a\0b", &mut buffer);
        assert_eq!(&buffer, b"a?b\0");
        failing("abc", &mut buffer[..1]);
        assert_eq!(buffer[0], 0);
        failing("abc", &mut []);
        assert_eq!(
            call(Detail::new(std::ptr::null_mut(), 9), || Err(Failure::null(
                "x"
            ))),
            divvy_status::DIVVY_NULL_ARGUMENT
        );
    }
}

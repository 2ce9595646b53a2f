//! Calls of the host's callbacks, and the text that a callback may leave about its failure.

use std::cell::Cell;
use std::ffi::c_char;
use std::time::Instant;

use super::enums::STATUSES;
use super::guard::{self, Detail, Failure};
use super::status::divvy_status;
use super::text;
use crate::types::truncated;

/// The longest text that is kept, in characters.
const TEXT_MAX: usize = 400;

thread_local! {
    /// The innermost callback of the host that runs on this thread, and the text that it has set.
    static RUNNING: Cell<Option<Option<String>>> = const { Cell::new(None) };
}

fn replace(running: Option<Option<String>>) -> Option<Option<String>> {
    // Fails only on a thread that is past its end: the host's callbacks run on the library's threads.
    RUNNING.try_with(|now| now.replace(running)).unwrap_or(None)
}

/// The part of a text of the host's that is kept.
pub(super) fn shortened(text: &str) -> &str {
    truncated(text, TEXT_MAX)
}

/// The time left for a callback of the host, in milliseconds.
pub(super) fn millis_until(deadline: Instant) -> i64 {
    let left = deadline.saturating_duration_since(Instant::now());
    i64::try_from(left.as_millis()).unwrap_or(i64::MAX)
}

/// Runs a callback of the host; returns its result and the text that it has set.
pub(super) fn call<R>(callback: impl FnOnce() -> R) -> (R, Option<String>) {
    let outer = replace(Some(None));
    let result = callback();
    (result, replace(outer).flatten())
}

/// Runs a callback of the host that returns a status.
///
/// # Errors
/// What the host says about its failure: the text if there is one, else the status.
pub(super) fn call_fallible(callback: impl FnOnce() -> i32) -> Result<(), String> {
    let (status, text) = call(callback);
    if status == divvy_status::DIVVY_OK as i32 {
        return Ok(());
    }
    Err(text.unwrap_or_else(|| {
        let known = STATUSES.iter().find(|(known, _)| *known as i32 == status);
        let status = match known {
            Some((_, name)) => name.to_string_lossy().into_owned(),
            None => status.to_string(),
        };
        format!("the host's callback returned {status}")
    }))
}

/// Sets the error text of the host's callback that is running on this thread. If the callback then
/// returns a failure, the text is the message of the resulting error, log record and event, and part
/// of the status; the returned number is not. The text of an
/// event callback, which returns nothing, is logged. A second call replaces the text.
///
/// Parameters: message - the text, UTF-8, NUL-terminated, not NULL; copied, truncated to 400
/// characters.
/// errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; NULL_ARGUMENT; BAD_UTF8; TOO_LONG; NOT_RUNNING - no callback of the host is running on this
/// thread.
/// Thread: the one that runs the callback. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_callback_set_error(
    message: *const c_char,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        // SAFETY: the caller's text, NUL-terminated as the manual demands.
        let message = unsafe { text::read(message, "message") }?;
        if replace(None).is_none() {
            return Err(Failure::new(
                divvy_status::DIVVY_NOT_RUNNING,
                "no callback of the host is running on this thread",
            ));
        }
        replace(Some(Some(shortened(message).to_owned())));
        Ok(())
    })
}

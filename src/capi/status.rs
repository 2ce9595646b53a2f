//! Statuses: what every fallible call returns.

use std::ffi::c_char;

use super::enums::STATUSES;
pub(super) use super::enums::divvy_status;
use crate::error::{Code, ErrorClass};

/// Returns the name of a status, such as "DIVVY_TIMED_OUT".
///
/// Parameters: status - any number.
/// Returns: the name; "unknown" for a number unknown to this library. Never NULL.
/// Ownership: static; never free it.
/// Thread: any. Does not block. Works in a forked child.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_status_name(status: i32) -> *const c_char {
    let found = STATUSES.iter().find(|(known, _)| *known as i32 == status);
    found.map_or(c"unknown", |(_, name)| name).as_ptr()
}

/// Returns whether the same call may succeed later without a change by the caller.
///
/// Parameters: status - any number.
/// Returns: 1 if so, else 0; 0 for a number unknown to this library.
/// Thread: any. Does not block. Works in a forked child.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_status_is_retriable(status: i32) -> i32 {
    let class = Code::from_number(status).map(Code::class);
    i32::from(class == Some(ErrorClass::Retriable))
}

/// Returns a status by index, for generators of bindings.
///
/// Parameters: index - from 0 on.
/// Returns: the status; 1, which is no status, after the last one.
/// Thread: any. Does not block. Works in a forked child.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_status_at(index: usize) -> i32 {
    STATUSES.get(index).map_or(1, |(status, _)| *status as i32)
}

/// The status of an error of the library.
pub(super) fn of(code: Code) -> divvy_status {
    let mut statuses = STATUSES.iter();
    let found = statuses.find(|(status, _)| *status as i32 == code.number());
    found.map_or(divvy_status::DIVVY_STORE_ERROR, |(status, _)| *status)
}

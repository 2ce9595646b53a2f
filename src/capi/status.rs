//! Statuses: what every fallible call returns.

use std::ffi::{CStr, c_char};

use crate::error::{Code, ErrorClass};

/// The result of a call. 0 is success; -1 to -99 is misuse by the caller, -100 to -199 comes from the
/// environment, -200 and below from the library itself. Numbers are never reused; new ones may appear
/// in any release, so treat an unknown number as a failure of its range.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_status {
    /// Done.
    DIVVY_OK = 0,
    /// A required pointer or handle is NULL or {0}.
    DIVVY_NULL_ARGUMENT = -1,
    /// The handle was freed, is of another kind, or was never valid.
    DIVVY_BAD_HANDLE = -2,
    /// An argument violates a rule of the function.
    DIVVY_INVALID_ARGUMENT = -3,
    /// A text is not UTF-8.
    DIVVY_BAD_UTF8 = -4,
    /// A text, a list or a number of bytes exceeds the stated maximum.
    DIVVY_TOO_LONG = -5,
    /// A setting is unknown, malformed or violates a rule; the detail lists each.
    DIVVY_INVALID_CONFIG = -6,
    /// The calculator, manager or store is not started, or was stopped.
    DIVVY_NOT_RUNNING = -7,
    /// The calculator or manager is already started.
    DIVVY_ALREADY_STARTED = -8,
    /// The call would wait for its own thread: a stop inside a callback.
    DIVVY_WOULD_DEADLOCK = -9,
    /// This process was forked from the one that used the library.
    DIVVY_FORKED = -10,
    /// The header of the program does not match this library.
    DIVVY_ABI_MISMATCH = -11,
    /// No further event. Not a failure.
    DIVVY_CLOSED = -12,
    /// A wait was ended by a wake. Not a failure.
    DIVVY_WOKEN = -13,
    /// No value under that key. Not a failure.
    DIVVY_NOT_FOUND = -14,
    /// The call was cancelled with divvy_cancel_fire().
    DIVVY_CANCELLED = -15,
    /// The deadline passed; the detail names what was in progress.
    DIVVY_TIMED_OUT = -100,
    /// The store cannot be reached or does not answer.
    DIVVY_UNAVAILABLE = -101,
    /// The store rejected the credentials, or a permission is missing.
    DIVVY_UNAUTHORIZED = -102,
    /// The store, the bucket, the platform or this build does not support the operation.
    DIVVY_UNSUPPORTED = -103,
    /// A newer leader has taken over: nothing of this term is accepted any more.
    DIVVY_FENCED = -104,
    /// Another client wrote or took over at the same time.
    DIVVY_CONFLICT = -105,
    /// There is no live worker.
    DIVVY_NO_WORKERS = -106,
    /// A stored value is malformed, oversized or of a wrong type.
    DIVVY_INVALID_DATA = -107,
    /// A value exceeds the limit of the store.
    DIVVY_TOO_LARGE = -108,
    /// Another error of the store.
    DIVVY_STORE_ERROR = -109,
    /// The partition source of the host failed or returned an invalid list.
    DIVVY_SOURCE_FAILED = -110,
    /// The strategy of the host failed.
    DIVVY_STRATEGY_FAILED = -111,
    /// The strategy returned an invalid plan.
    DIVVY_INVALID_PLAN = -112,
    /// Every stable id of the configured range is claimed.
    DIVVY_IDS_EXHAUSTED = -113,
    /// Another process owns this worker's id.
    DIVVY_ID_LOST = -114,
    /// This worker is not the leader; only the leader can do this.
    DIVVY_NOT_LEADER = -115,
    /// The buckets belong to another fleet: the configured name or key prefixes differ.
    DIVVY_WRONG_FLEET = -116,
    /// A panic was caught: a defect of the library. Please report it with the detail.
    DIVVY_PANICKED = -200,
}

use divvy_status::*;

/// Every status with its name, in the order of the header.
pub(super) const TABLE: [(divvy_status, &CStr); 34] = [
    (DIVVY_OK, c"DIVVY_OK"),
    (DIVVY_NULL_ARGUMENT, c"DIVVY_NULL_ARGUMENT"),
    (DIVVY_BAD_HANDLE, c"DIVVY_BAD_HANDLE"),
    (DIVVY_INVALID_ARGUMENT, c"DIVVY_INVALID_ARGUMENT"),
    (DIVVY_BAD_UTF8, c"DIVVY_BAD_UTF8"),
    (DIVVY_TOO_LONG, c"DIVVY_TOO_LONG"),
    (DIVVY_INVALID_CONFIG, c"DIVVY_INVALID_CONFIG"),
    (DIVVY_NOT_RUNNING, c"DIVVY_NOT_RUNNING"),
    (DIVVY_ALREADY_STARTED, c"DIVVY_ALREADY_STARTED"),
    (DIVVY_WOULD_DEADLOCK, c"DIVVY_WOULD_DEADLOCK"),
    (DIVVY_FORKED, c"DIVVY_FORKED"),
    (DIVVY_ABI_MISMATCH, c"DIVVY_ABI_MISMATCH"),
    (DIVVY_CLOSED, c"DIVVY_CLOSED"),
    (DIVVY_WOKEN, c"DIVVY_WOKEN"),
    (DIVVY_NOT_FOUND, c"DIVVY_NOT_FOUND"),
    (DIVVY_CANCELLED, c"DIVVY_CANCELLED"),
    (DIVVY_TIMED_OUT, c"DIVVY_TIMED_OUT"),
    (DIVVY_UNAVAILABLE, c"DIVVY_UNAVAILABLE"),
    (DIVVY_UNAUTHORIZED, c"DIVVY_UNAUTHORIZED"),
    (DIVVY_UNSUPPORTED, c"DIVVY_UNSUPPORTED"),
    (DIVVY_FENCED, c"DIVVY_FENCED"),
    (DIVVY_CONFLICT, c"DIVVY_CONFLICT"),
    (DIVVY_NO_WORKERS, c"DIVVY_NO_WORKERS"),
    (DIVVY_INVALID_DATA, c"DIVVY_INVALID_DATA"),
    (DIVVY_TOO_LARGE, c"DIVVY_TOO_LARGE"),
    (DIVVY_STORE_ERROR, c"DIVVY_STORE_ERROR"),
    (DIVVY_SOURCE_FAILED, c"DIVVY_SOURCE_FAILED"),
    (DIVVY_STRATEGY_FAILED, c"DIVVY_STRATEGY_FAILED"),
    (DIVVY_INVALID_PLAN, c"DIVVY_INVALID_PLAN"),
    (DIVVY_IDS_EXHAUSTED, c"DIVVY_IDS_EXHAUSTED"),
    (DIVVY_ID_LOST, c"DIVVY_ID_LOST"),
    (DIVVY_NOT_LEADER, c"DIVVY_NOT_LEADER"),
    (DIVVY_WRONG_FLEET, c"DIVVY_WRONG_FLEET"),
    (DIVVY_PANICKED, c"DIVVY_PANICKED"),
];

/// Returns the name of a status, such as "DIVVY_TIMED_OUT".
///
/// Parameters: status - any number.
/// Returns: the name; "unknown" for a number unknown to this library. Never NULL.
/// Ownership: static; never free it.
/// Thread: any. Does not block. Works in a forked child.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_status_name(status: i32) -> *const c_char {
    let found = TABLE.iter().find(|(known, _)| *known as i32 == status);
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
    let is_retriable = CODES
        .iter()
        .any(|&(code, known)| known as i32 == status && code.class() == ErrorClass::Retriable);
    i32::from(is_retriable)
}

/// Returns a status by index, for generators of bindings.
///
/// Parameters: index - from 0 on.
/// Returns: the status; 1, which is no status, after the last one.
/// Thread: any. Does not block. Works in a forked child.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_status_at(index: usize) -> i32 {
    TABLE.get(index).map_or(1, |(status, _)| *status as i32)
}

const CODES: [(Code, divvy_status); 24] = [
    (Code::InvalidArgument, DIVVY_INVALID_ARGUMENT),
    (Code::InvalidConfig, DIVVY_INVALID_CONFIG),
    (Code::InvalidData, DIVVY_INVALID_DATA),
    (Code::InvalidPlan, DIVVY_INVALID_PLAN),
    (Code::TooLarge, DIVVY_TOO_LARGE),
    (Code::NotRunning, DIVVY_NOT_RUNNING),
    (Code::AlreadyStarted, DIVVY_ALREADY_STARTED),
    (Code::WouldDeadlock, DIVVY_WOULD_DEADLOCK),
    (Code::TimedOut, DIVVY_TIMED_OUT),
    (Code::Unavailable, DIVVY_UNAVAILABLE),
    (Code::Unauthorized, DIVVY_UNAUTHORIZED),
    (Code::Unsupported, DIVVY_UNSUPPORTED),
    (Code::Fenced, DIVVY_FENCED),
    (Code::Conflict, DIVVY_CONFLICT),
    (Code::NoWorkers, DIVVY_NO_WORKERS),
    (Code::SourceFailed, DIVVY_SOURCE_FAILED),
    (Code::StrategyFailed, DIVVY_STRATEGY_FAILED),
    (Code::IdsExhausted, DIVVY_IDS_EXHAUSTED),
    (Code::IdLost, DIVVY_ID_LOST),
    (Code::NotLeader, DIVVY_NOT_LEADER),
    (Code::WrongFleet, DIVVY_WRONG_FLEET),
    (Code::Cancelled, DIVVY_CANCELLED),
    (Code::Panicked, DIVVY_PANICKED),
    (Code::Store, DIVVY_STORE_ERROR),
];

/// The status of an error of the library.
pub(super) fn of(code: Code) -> divvy_status {
    let found = CODES.iter().find(|(known, _)| *known == code);
    found.map_or(DIVVY_STORE_ERROR, |(_, status)| *status)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These numbers are compiled into programs: a change here breaks all of them.
    #[test]
    fn status_numbers_never_change() {
        let numbers: Vec<_> = TABLE.iter().map(|(status, _)| *status as i32).collect();
        assert_eq!(
            numbers,
            [
                0, -1, -2, -3, -4, -5, -6, -7, -8, -9, -10, -11, -12, -13, -14, -15, -100, -101,
                -102, -103, -104, -105, -106, -107, -108, -109, -110, -111, -112, -113, -114, -115,
                -116, -200,
            ]
        );
    }

    #[test]
    fn statuses_have_unique_names_and_numbers() {
        for (index, (status, name)) in TABLE.iter().enumerate() {
            assert_eq!(format!("{status:?}"), name.to_str().unwrap());
            assert_eq!(divvy_status_at(index), *status as i32);
            let same = TABLE.iter().filter(|(other, _)| other == status);
            assert_eq!(same.count(), 1);
        }
        assert_eq!(divvy_status_at(TABLE.len()), 1);
    }

    #[test]
    fn every_error_code_has_its_own_status() {
        let mut seen = Vec::new();
        for (code, status) in CODES {
            assert_eq!(of(code), status);
            assert!(!seen.contains(&status));
            seen.push(status);
            let name = code.name().to_uppercase();
            let expected = if name == "STORE" {
                "STORE_ERROR".into()
            } else {
                name
            };
            assert_eq!(format!("{status:?}"), format!("DIVVY_{expected}"));
        }
    }
}

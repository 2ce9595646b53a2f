//! The names of the numbers of the header.

use std::ffi::c_char;

use crate::vocabulary::{
    AlertLevel, CalculatorState, EventKind, ManagerState, MemberChange, Reason, Words,
};

/// The name of a number of a list; `none`: what 0 stands for, where no word does.
fn name_of(list: Words, number: i32, none: bool) -> *const c_char {
    if none && number == 0 {
        return c"".as_ptr();
    }
    list.find(number)
        .map_or(c"unknown", |word| word.c_name)
        .as_ptr()
}

/// Returns the name of a state of a calculator, such as "Scaling".
///
/// Parameters: state - any number.
/// Returns: the name; "unknown" for a number unknown to this library. Never NULL.
/// Ownership: static; never free it.
/// Thread: any. Does not block. Works in a forked child.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_calculator_state_name(state: i32) -> *const c_char {
    name_of(CalculatorState::WORDS, state, false)
}

/// Returns the name of a reason as stored in assignments, such as "planned_scale"; "" for none.
///
/// Parameters: state - any number.
/// Returns: the name; "unknown" for a number unknown to this library. Never NULL.
/// Ownership: static; never free it.
/// Thread: any. Does not block. Works in a forked child.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_reason_name(reason: i32) -> *const c_char {
    name_of(Reason::WORDS, reason, true)
}

/// Returns the name of a membership change, such as "joined"; "" for none.
///
/// Parameters: state - any number.
/// Returns: the name; "unknown" for a number unknown to this library. Never NULL.
/// Ownership: static; never free it.
/// Thread: any. Does not block. Works in a forked child.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_member_change_name(change: i32) -> *const c_char {
    name_of(MemberChange::WORDS, change, true)
}

/// Returns the name of a manager state, such as "Stable".
///
/// Parameters: state - any number.
/// Returns: the name; "unknown" for a number unknown to this library. Never NULL.
/// Ownership: static; never free it.
/// Thread: any. Does not block. Works in a forked child.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_manager_state_name(state: i32) -> *const c_char {
    name_of(ManagerState::WORDS, state, false)
}

/// Returns the name of an alert level, such as "warning"; "" for none.
///
/// Parameters: state - any number.
/// Returns: the name; "unknown" for a number unknown to this library. Never NULL.
/// Ownership: static; never free it.
/// Thread: any. Does not block. Works in a forked child.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_alert_level_name(level: i32) -> *const c_char {
    name_of(AlertLevel::WORDS, level, true)
}

/// Returns the name of a kind of event, such as "published".
///
/// Parameters: kind - any number.
/// Returns: the name; "unknown" for a number unknown to this library. Never NULL.
/// Ownership: static; never free it.
/// Thread: any. Does not block. Works in a forked child.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_kind_name(kind: i32) -> *const c_char {
    name_of(EventKind::WORDS, kind, false)
}

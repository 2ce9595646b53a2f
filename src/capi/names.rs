//! States, reasons and changes: their numbers and their names.

use std::ffi::{CStr, c_char};

use crate::machine::outage::AlertLevel;
use crate::types::{CalculatorState, ManagerState, Reason};

/// The state of a calculator.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_calculator_state {
    /// Nothing is pending, or pending work waits for the cooldown or a retry.
    DIVVY_CALCULATOR_IDLE = 1,
    /// A stabilisation window is open.
    DIVVY_CALCULATOR_SCALING = 2,
    /// A plan is being computed and published.
    DIVVY_CALCULATOR_REBALANCING = 3,
    /// A plan without dead workers is being computed and published.
    DIVVY_CALCULATOR_EMERGENCY = 4,
}

/// Why a plan was made.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_reason {
    /// No plan is being made.
    DIVVY_REASON_NONE = 0,
    /// The window after a start without workers ended.
    DIVVY_REASON_COLD_START = 1,
    /// Published at once at a start to close a coverage gap.
    DIVVY_REASON_COLD_START_IMMEDIATE = 2,
    /// Published at the end of the window that follows an immediate cold start.
    DIVVY_REASON_COLD_START_FINAL = 3,
    /// Workers joined or left.
    DIVVY_REASON_PLANNED_SCALE = 4,
    /// A large part of the fleet disappeared, and some of it returned.
    DIVVY_REASON_RESTART = 5,
    /// Workers were declared dead.
    DIVVY_REASON_EMERGENCY = 6,
    /// Requested with divvy_calculator_trigger_rebalance().
    DIVVY_REASON_MANUAL_REFRESH = 7,
    /// The partition list or its weights changed.
    DIVVY_REASON_PARTITION_CHANGE = 8,
}

/// A membership change.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_member_change {
    /// An event of another kind.
    DIVVY_MEMBER_NONE = 0,
    /// Sent its first heartbeat.
    DIVVY_MEMBER_JOINED = 1,
    /// Left.
    DIVVY_MEMBER_LEFT = 2,
    /// Its lease expired.
    DIVVY_MEMBER_SUSPECTED = 3,
    /// Was suspected and sent a heartbeat.
    DIVVY_MEMBER_RETURNED = 4,
    /// Was declared dead after the grace.
    DIVVY_MEMBER_DEAD = 5,
}

/// The state of a manager.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_manager_state {
    /// Not started, or creating buckets.
    DIVVY_MANAGER_INIT = 1,
    /// Claiming a stable id.
    DIVVY_MANAGER_CLAIMING_ID = 2,
    /// A member; no leader is known.
    DIVVY_MANAGER_ELECTION = 3,
    /// A leader is known; no assignment has arrived yet.
    DIVVY_MANAGER_WAITING_ASSIGNMENT = 4,
    /// The assignment is applied.
    DIVVY_MANAGER_STABLE = 5,
    /// This worker leads and waits for more joins or leaves.
    DIVVY_MANAGER_SCALING = 6,
    /// This worker leads, and computes and publishes a plan.
    DIVVY_MANAGER_REBALANCING = 7,
    /// This worker leads and publishes a plan without dead workers.
    DIVVY_MANAGER_EMERGENCY = 8,
    /// The store cannot be reached: the assignment may be outdated, or ownership is suspended.
    DIVVY_MANAGER_DEGRADED = 9,
    /// Leaving, or stopped.
    DIVVY_MANAGER_SHUTDOWN = 10,
}

/// Alert level of an outage.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_alert_level {
    /// An event of another kind.
    DIVVY_ALERT_NONE = 0,
    /// After 30 s.
    DIVVY_ALERT_INFO = 1,
    /// After 2 min.
    DIVVY_ALERT_WARNING = 2,
    /// After 5 min.
    DIVVY_ALERT_ERROR = 3,
    /// After 10 min.
    DIVVY_ALERT_CRITICAL = 4,
}

use divvy_alert_level::*;
use divvy_calculator_state::*;
use divvy_manager_state::*;
use divvy_member_change::*;
use divvy_reason::*;

const STATES: [(CalculatorState, divvy_calculator_state, &CStr); 4] = [
    (CalculatorState::Idle, DIVVY_CALCULATOR_IDLE, c"Idle"),
    (
        CalculatorState::Scaling,
        DIVVY_CALCULATOR_SCALING,
        c"Scaling",
    ),
    (
        CalculatorState::Rebalancing,
        DIVVY_CALCULATOR_REBALANCING,
        c"Rebalancing",
    ),
    (
        CalculatorState::Emergency,
        DIVVY_CALCULATOR_EMERGENCY,
        c"Emergency",
    ),
];

const REASONS: [(Option<Reason>, divvy_reason, &CStr); 9] = [
    (None, DIVVY_REASON_NONE, c""),
    (
        Some(Reason::ColdStart),
        DIVVY_REASON_COLD_START,
        c"cold_start",
    ),
    (
        Some(Reason::ColdStartImmediate),
        DIVVY_REASON_COLD_START_IMMEDIATE,
        c"cold_start_immediate",
    ),
    (
        Some(Reason::ColdStartFinal),
        DIVVY_REASON_COLD_START_FINAL,
        c"cold_start_final",
    ),
    (
        Some(Reason::PlannedScale),
        DIVVY_REASON_PLANNED_SCALE,
        c"planned_scale",
    ),
    (Some(Reason::Restart), DIVVY_REASON_RESTART, c"restart"),
    (
        Some(Reason::Emergency),
        DIVVY_REASON_EMERGENCY,
        c"emergency",
    ),
    (
        Some(Reason::ManualRefresh),
        DIVVY_REASON_MANUAL_REFRESH,
        c"manual-refresh",
    ),
    (
        Some(Reason::PartitionChange),
        DIVVY_REASON_PARTITION_CHANGE,
        c"partition_change",
    ),
];

const MEMBER_CHANGES: [(divvy_member_change, &CStr); 6] = [
    (DIVVY_MEMBER_NONE, c""),
    (DIVVY_MEMBER_JOINED, c"joined"),
    (DIVVY_MEMBER_LEFT, c"left"),
    (DIVVY_MEMBER_SUSPECTED, c"missing"),
    (DIVVY_MEMBER_RETURNED, c"back"),
    (DIVVY_MEMBER_DEAD, c"lost"),
];

const MANAGER_STATES: [(ManagerState, divvy_manager_state, &CStr); 10] = [
    (ManagerState::Init, DIVVY_MANAGER_INIT, c"Init"),
    (
        ManagerState::ClaimingId,
        DIVVY_MANAGER_CLAIMING_ID,
        c"ClaimingID",
    ),
    (ManagerState::Election, DIVVY_MANAGER_ELECTION, c"Election"),
    (
        ManagerState::WaitingAssignment,
        DIVVY_MANAGER_WAITING_ASSIGNMENT,
        c"WaitingAssignment",
    ),
    (ManagerState::Stable, DIVVY_MANAGER_STABLE, c"Stable"),
    (ManagerState::Scaling, DIVVY_MANAGER_SCALING, c"Scaling"),
    (
        ManagerState::Rebalancing,
        DIVVY_MANAGER_REBALANCING,
        c"Rebalancing",
    ),
    (
        ManagerState::Emergency,
        DIVVY_MANAGER_EMERGENCY,
        c"Emergency",
    ),
    (ManagerState::Degraded, DIVVY_MANAGER_DEGRADED, c"Degraded"),
    (ManagerState::Shutdown, DIVVY_MANAGER_SHUTDOWN, c"Shutdown"),
];

const ALERT_LEVELS: [(Option<AlertLevel>, divvy_alert_level, &CStr); 5] = [
    (None, DIVVY_ALERT_NONE, c""),
    (Some(AlertLevel::Info), DIVVY_ALERT_INFO, c"info"),
    (Some(AlertLevel::Warning), DIVVY_ALERT_WARNING, c"warning"),
    (Some(AlertLevel::Error), DIVVY_ALERT_ERROR, c"error"),
    (
        Some(AlertLevel::Critical),
        DIVVY_ALERT_CRITICAL,
        c"critical",
    ),
];

/// The number of a state.
pub(super) fn state_of(state: CalculatorState) -> divvy_calculator_state {
    let found = STATES.iter().find(|(known, ..)| *known == state);
    found.map_or(DIVVY_CALCULATOR_IDLE, |(_, number, _)| *number)
}

/// The number of a reason.
pub(super) fn reason_of(reason: Option<Reason>) -> divvy_reason {
    let found = REASONS.iter().find(|(known, ..)| *known == reason);
    found.map_or(DIVVY_REASON_NONE, |(_, number, _)| *number)
}

/// The number of a manager's state.
pub(super) fn manager_state_of(state: ManagerState) -> divvy_manager_state {
    let found = MANAGER_STATES.iter().find(|(known, ..)| *known == state);
    found.map_or(DIVVY_MANAGER_INIT, |(_, number, _)| *number)
}

/// The manager's state of that number.
pub(super) fn manager_state(number: i32) -> Option<ManagerState> {
    let mut states = MANAGER_STATES.iter();
    let found = states.find(|(_, known, _)| *known as i32 == number);
    found.map(|(state, ..)| *state)
}

/// The number of an alert's level.
pub(super) fn alert_level_of(level: AlertLevel) -> divvy_alert_level {
    let found = ALERT_LEVELS
        .iter()
        .find(|(known, ..)| *known == Some(level));
    found.map_or(DIVVY_ALERT_NONE, |(_, number, _)| *number)
}

/// What a table calls a number.
pub(super) fn name_of(
    names: impl Iterator<Item = (i32, &'static CStr)>,
    number: i32,
) -> *const c_char {
    let mut names = names;
    let found = names.find(|(known, _)| *known == number);
    found.map_or(c"unknown", |(_, name)| name).as_ptr()
}

/// Returns the name of a calculator state, such as "Scaling".
///
/// Parameters: state - any number.
/// Returns: the name; "unknown" for a number unknown to this library. Never NULL.
/// Ownership: static; never free it.
/// Thread: any. Does not block. Works in a forked child.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_calculator_state_name(state: i32) -> *const c_char {
    name_of(STATES.iter().map(|&(_, n, name)| (n as i32, name)), state)
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
    name_of(REASONS.iter().map(|&(_, n, name)| (n as i32, name)), reason)
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
    let names = MEMBER_CHANGES.iter().map(|&(n, name)| (n as i32, name));
    name_of(names, change)
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
    let names = MANAGER_STATES.iter().map(|&(_, n, name)| (n as i32, name));
    name_of(names, state)
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
    let names = ALERT_LEVELS.iter().map(|&(_, n, name)| (n as i32, name));
    name_of(names, level)
}

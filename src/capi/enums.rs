//! The enums of the header. Generated from `src/vocabulary`; do not edit: run `BLESS=1
//! cargo test --all-features --test bindings vocabulary`.
#![allow(dead_code, reason = "for the header: the functions take and return numbers")]

use std::ffi::CStr;

/// How a call ended. 0 is success; -1 to -99 is misuse by the caller, -100 to -199 comes from the
/// environment, -200 and below from the library itself. Numbers are never reused. New ones may
/// appear in any release: treat an unknown one as a failure of its range.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_status {
    /// Success.
    DIVVY_OK = 0,
    /// A required pointer or handle is NULL or {0}.
    DIVVY_NULL_ARGUMENT = -1,
    /// The handle was freed, is of another kind, or was never one.
    DIVVY_BAD_HANDLE = -2,
    /// An argument breaks a rule that its documentation states.
    DIVVY_INVALID_ARGUMENT = -3,
    /// A text is not UTF-8.
    DIVVY_BAD_UTF8 = -4,
    /// A text, a list or a number of bytes exceeds the stated maximum.
    DIVVY_TOO_LONG = -5,
    /// A setting does not exist, cannot be parsed or breaks a rule. The message lists each.
    DIVVY_INVALID_CONFIG = -6,
    /// The handle is not started, or was stopped.
    DIVVY_NOT_RUNNING = -7,
    /// The handle is already started.
    DIVVY_ALREADY_STARTED = -8,
    /// The call would wait for its own thread: for example a stop from inside a callback.
    DIVVY_WOULD_DEADLOCK = -9,
    /// This process was forked from the one that used the library.
    DIVVY_FORKED = -10,
    /// The header that the program was compiled with does not match this library.
    DIVVY_ABI_MISMATCH = -11,
    /// There are no further events. Not a failure.
    DIVVY_CLOSED = -12,
    /// A wake ended the wait. Not a failure.
    DIVVY_WOKEN = -13,
    /// The key has no value. Not a failure.
    DIVVY_NOT_FOUND = -14,
    /// The caller cancelled the call.
    DIVVY_CANCELLED = -15,
    /// The deadline passed. The message says what was still in progress.
    DIVVY_TIMED_OUT = -100,
    /// The store is unreachable or does not answer.
    DIVVY_UNAVAILABLE = -101,
    /// The store refuses the credentials, or a permission is missing.
    DIVVY_UNAUTHORIZED = -102,
    /// The store, the bucket, the platform or this build does not support the request.
    DIVVY_UNSUPPORTED = -103,
    /// A newer leader has taken over: nothing of this term is accepted any more.
    DIVVY_FENCED = -104,
    /// A conditional write found another revision than expected.
    DIVVY_CONFLICT = -105,
    /// There is no live worker.
    DIVVY_NO_WORKERS = -106,
    /// A stored value is malformed, oversized or of a wrong type.
    DIVVY_INVALID_DATA = -107,
    /// A value is larger than the store accepts.
    DIVVY_TOO_LARGE = -108,
    /// Any other failure that the store reported.
    DIVVY_STORE_ERROR = -109,
    /// The host's partition source failed or returned an unusable list.
    DIVVY_SOURCE_FAILED = -110,
    /// The host's strategy failed or panicked.
    DIVVY_STRATEGY_FAILED = -111,
    /// A strategy returned a plan that cannot be used.
    DIVVY_INVALID_PLAN = -112,
    /// Every stable id of the configured range is taken.
    DIVVY_IDS_EXHAUSTED = -113,
    /// Another process owns this worker's id.
    DIVVY_ID_LOST = -114,
    /// This worker does not lead, and only a leader can serve the call.
    DIVVY_NOT_LEADER = -115,
    /// The buckets belong to another fleet: the configured name or key prefixes differ.
    DIVVY_WRONG_FLEET = -116,
    /// A panic was caught: a defect of the library. Please report it with the message.
    DIVVY_PANICKED = -200,
}

/// Every status with the name of its constant, in the order of the header.
pub(super) const STATUSES: [(divvy_status, &CStr); 34] = [
    (divvy_status::DIVVY_OK, c"DIVVY_OK"),
    (divvy_status::DIVVY_NULL_ARGUMENT, c"DIVVY_NULL_ARGUMENT"),
    (divvy_status::DIVVY_BAD_HANDLE, c"DIVVY_BAD_HANDLE"),
    (divvy_status::DIVVY_INVALID_ARGUMENT, c"DIVVY_INVALID_ARGUMENT"),
    (divvy_status::DIVVY_BAD_UTF8, c"DIVVY_BAD_UTF8"),
    (divvy_status::DIVVY_TOO_LONG, c"DIVVY_TOO_LONG"),
    (divvy_status::DIVVY_INVALID_CONFIG, c"DIVVY_INVALID_CONFIG"),
    (divvy_status::DIVVY_NOT_RUNNING, c"DIVVY_NOT_RUNNING"),
    (divvy_status::DIVVY_ALREADY_STARTED, c"DIVVY_ALREADY_STARTED"),
    (divvy_status::DIVVY_WOULD_DEADLOCK, c"DIVVY_WOULD_DEADLOCK"),
    (divvy_status::DIVVY_FORKED, c"DIVVY_FORKED"),
    (divvy_status::DIVVY_ABI_MISMATCH, c"DIVVY_ABI_MISMATCH"),
    (divvy_status::DIVVY_CLOSED, c"DIVVY_CLOSED"),
    (divvy_status::DIVVY_WOKEN, c"DIVVY_WOKEN"),
    (divvy_status::DIVVY_NOT_FOUND, c"DIVVY_NOT_FOUND"),
    (divvy_status::DIVVY_CANCELLED, c"DIVVY_CANCELLED"),
    (divvy_status::DIVVY_TIMED_OUT, c"DIVVY_TIMED_OUT"),
    (divvy_status::DIVVY_UNAVAILABLE, c"DIVVY_UNAVAILABLE"),
    (divvy_status::DIVVY_UNAUTHORIZED, c"DIVVY_UNAUTHORIZED"),
    (divvy_status::DIVVY_UNSUPPORTED, c"DIVVY_UNSUPPORTED"),
    (divvy_status::DIVVY_FENCED, c"DIVVY_FENCED"),
    (divvy_status::DIVVY_CONFLICT, c"DIVVY_CONFLICT"),
    (divvy_status::DIVVY_NO_WORKERS, c"DIVVY_NO_WORKERS"),
    (divvy_status::DIVVY_INVALID_DATA, c"DIVVY_INVALID_DATA"),
    (divvy_status::DIVVY_TOO_LARGE, c"DIVVY_TOO_LARGE"),
    (divvy_status::DIVVY_STORE_ERROR, c"DIVVY_STORE_ERROR"),
    (divvy_status::DIVVY_SOURCE_FAILED, c"DIVVY_SOURCE_FAILED"),
    (divvy_status::DIVVY_STRATEGY_FAILED, c"DIVVY_STRATEGY_FAILED"),
    (divvy_status::DIVVY_INVALID_PLAN, c"DIVVY_INVALID_PLAN"),
    (divvy_status::DIVVY_IDS_EXHAUSTED, c"DIVVY_IDS_EXHAUSTED"),
    (divvy_status::DIVVY_ID_LOST, c"DIVVY_ID_LOST"),
    (divvy_status::DIVVY_NOT_LEADER, c"DIVVY_NOT_LEADER"),
    (divvy_status::DIVVY_WRONG_FLEET, c"DIVVY_WRONG_FLEET"),
    (divvy_status::DIVVY_PANICKED, c"DIVVY_PANICKED"),
];

/// What a calculator is doing.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_calculator_state {
    /// No work is pending, or the pending work waits for the cooldown or a retry.
    DIVVY_CALCULATOR_IDLE = 1,
    /// A stabilisation window is open.
    DIVVY_CALCULATOR_SCALING = 2,
    /// A plan is being computed and published.
    DIVVY_CALCULATOR_REBALANCING = 3,
    /// A plan without the workers that were declared dead is being computed and published.
    DIVVY_CALCULATOR_EMERGENCY = 4,
}

/// What a manager is doing.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_manager_state {
    /// Not started, or preparing the buckets.
    DIVVY_MANAGER_INIT = 1,
    /// Claiming a stable id.
    DIVVY_MANAGER_CLAIMING_ID = 2,
    /// A member of the fleet. No leader is known.
    DIVVY_MANAGER_ELECTION = 3,
    /// A leader is known. This worker has no assignment yet.
    DIVVY_MANAGER_WAITING_ASSIGNMENT = 4,
    /// The assignment is applied.
    DIVVY_MANAGER_STABLE = 5,
    /// This worker leads and waits for further workers to join or leave.
    DIVVY_MANAGER_SCALING = 6,
    /// This worker leads, and computes and publishes a plan.
    DIVVY_MANAGER_REBALANCING = 7,
    /// This worker leads, and publishes a plan without the workers that were declared dead.
    DIVVY_MANAGER_EMERGENCY = 8,
    /// The store is unreachable: the assignment may be out of date, or ownership is suspended.
    DIVVY_MANAGER_DEGRADED = 9,
    /// Leaving, or stopped.
    DIVVY_MANAGER_SHUTDOWN = 10,
}

/// Why a plan is made: the `lifecycle` of the assignments that it leads to.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_reason {
    /// No plan is being made.
    DIVVY_REASON_NONE = 0,
    /// The end of the window that follows a start without workers.
    DIVVY_REASON_COLD_START = 1,
    /// Published when a new leader finds partitions without an owner: immediately, or, for a fleet
    /// without a plan, after `initial_delay`.
    DIVVY_REASON_COLD_START_IMMEDIATE = 2,
    /// The end of the window that follows the first plan of a fleet.
    DIVVY_REASON_COLD_START_FINAL = 3,
    /// Workers joined or left in an orderly way.
    DIVVY_REASON_PLANNED_SCALE = 4,
    /// A large part of the fleet disappeared and some of it returned.
    DIVVY_REASON_RESTART = 5,
    /// Workers were declared dead.
    DIVVY_REASON_EMERGENCY = 6,
    /// The host requested it.
    DIVVY_REASON_MANUAL_REFRESH = 7,
    /// The partition list or its weights changed.
    DIVVY_REASON_PARTITION_CHANGE = 8,
}

/// How the membership of one worker changed.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_member_change {
    /// The event is about something else.
    DIVVY_MEMBER_NONE = 0,
    /// Its first heartbeat was observed.
    DIVVY_MEMBER_JOINED = 1,
    /// It deleted its heartbeat: a graceful leave.
    DIVVY_MEMBER_LEFT = 2,
    /// Its lease expired.
    DIVVY_MEMBER_SUSPECTED = 3,
    /// It was suspected, and its heartbeats continue.
    DIVVY_MEMBER_RETURNED = 4,
    /// It was suspected for longer than `emergency_grace_period`.
    DIVVY_MEMBER_DEAD = 5,
}

/// The state of the circuit breaker that guards the store.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_breaker_state {
    /// Calls pass.
    DIVVY_BREAKER_CLOSED = 1,
    /// One call probes the store; all others fail immediately.
    DIVVY_BREAKER_HALF_OPEN = 2,
    /// Calls fail immediately.
    DIVVY_BREAKER_OPEN = 3,
}

/// How serious it is that degraded mode lasts.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_alert_level {
    /// The event is about something else.
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

/// How a worker departs.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_departure {
    /// It leaves: its partitions are handed to other workers immediately.
    DIVVY_DEPARTURE_LEAVE = 1,
    /// It returns soon: heartbeat and id are left to expire, so that a worker that starts within
    /// heartbeat TTL and grace keeps the id and its partitions.
    DIVVY_DEPARTURE_RESTART = 2,
}

/// A bucket of the fleet. The settings map each to a name in the store.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_bucket {
    /// Claims of stable ids.
    DIVVY_BUCKET_STABLE_ID = 1,
    /// The leader's lease.
    DIVVY_BUCKET_ELECTION = 2,
    /// Heartbeats of the workers. Entries expire.
    DIVVY_BUCKET_HEARTBEAT = 3,
    /// Assignments, the fence record and the commit record. Nothing expires.
    DIVVY_BUCKET_ASSIGNMENT = 4,
}

/// Which events of a calculator a subscriber receives.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_event_filter {
    /// All but changes of single members.
    DIVVY_FILTER_STATE = 1,
    /// All events.
    DIVVY_FILTER_STATE_AND_MEMBERS = 2,
}

/// Which events of a manager a subscriber receives. The final events, `lagged` and `fatal`, are
/// delivered to every subscriber.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_manager_event_filter {
    /// Changes of this worker's assignment only.
    DIVVY_MANAGER_FILTER_ASSIGNMENT = 1,
    /// Events of this worker: its state, id, assignment, outages, failures, and the leader.
    DIVVY_MANAGER_FILTER_WORKER = 2,
    /// Those, and the events of its calculator while this worker leads.
    DIVVY_MANAGER_FILTER_WORKER_AND_CALCULATOR = 3,
}

/// A property of a setting.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_setting_field {
    /// Its name, such as `cooldown`. In the environment it is in upper case.
    DIVVY_SETTING_NAME = 1,
    /// The type of its value: text, list, path, duration, number, integer, boolean or choice.
    DIVVY_SETTING_TYPE = 2,
    /// Its default.
    DIVVY_SETTING_DEFAULT = 3,
    /// Which values it may have, and how they relate to those of other settings.
    DIVVY_SETTING_RANGE = 4,
    /// What it does.
    DIVVY_SETTING_HELP = 5,
    /// Its value; secrets are masked.
    DIVVY_SETTING_VALUE = 6,
    /// Where the value came from: default, code, json, or env and the variable.
    DIVVY_SETTING_ORIGIN = 7,
}

/// The kind of an event. Any release may add kinds: ignore unknown ones.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_event_kind {
    /// The calculator's state changed. The first event of a subscriber reports the current state:
    /// `from` and `state` are equal. Members: `from`, `state`, `reason`, `version`, `time_ns`.
    DIVVY_EVENT_CALCULATOR_STATE = 1,
    /// The membership of a worker changed. Members: `change`, `worker`.
    DIVVY_EVENT_MEMBER = 2,
    /// A plan was published. Members: `version`, `reason`, `worker_count`, `partition_count`,
    /// `moved_count`, `max_to_mean`.
    DIVVY_EVENT_PUBLISHED = 3,
    /// A job of the calculator failed. It stays pending and is retried. Members: `code`,
    /// `message`, `operation`, `key`, `attempts`.
    DIVVY_EVENT_FAILED = 4,
    /// The causes of degradation changed. `message` names each cause and what still works; it is
    /// empty if the calculator is no longer degraded. `time_ns` is the time of the first cause.
    /// Members: `causes`, `message`, `time_ns`.
    DIVVY_EVENT_DEGRADED = 5,
    /// A newer leader has taken over, or the fence record was removed: this calculator publishes
    /// nothing more.
    DIVVY_EVENT_LEADERSHIP_LOST = 6,
    /// The subscriber was too slow, and its subscription is closed. This is its last event.
    /// Members: `missed_count`.
    DIVVY_EVENT_LAGGED = 7,
    /// A thread panicked, and the handle has failed. This is the last event. Members: `code`,
    /// `message`.
    DIVVY_EVENT_FATAL = 8,
    /// A shadow (setting `shadow`) would have published a plan. Members: `version`, `reason`,
    /// `worker_count`, `partition_count`, `moved_count`, `max_to_mean`.
    DIVVY_EVENT_WOULD_PUBLISH = 9,
    /// The live leader that a shadow watches published a plan. `message` says how the shadow's
    /// plan differs. Members: `version`, `term`, `lifecycle`, `worker_count`, `partition_count`,
    /// `moved_count`, `max_to_mean`, `message`, `comparison`.
    DIVVY_EVENT_LEADER_PUBLISHED = 10,
    /// The circuit breaker of the store changed its state. `message` is the failure that opened
    /// it, or empty if it is closed. Members: `state`, `message`.
    DIVVY_EVENT_BREAKER = 11,
    /// A live worker has not applied its assignment within `apply_timeout`. Reported once, until
    /// the worker has caught up. Members: `worker`, `version`, `applied_version`, `lasted_ms`,
    /// `message`.
    DIVVY_EVENT_WORKER_LAGGING = 12,
    /// A malformed value in the store was ignored. Each key is reported once in
    /// `malformed_window`, and at most `malformed_threshold` keys. Members: `bucket`, `key`,
    /// `value`, `message`.
    DIVVY_EVENT_MALFORMED = 13,
    /// The configuration of a live worker has differed from the leader's for a heartbeat TTL.
    /// Reported again when the parts that differ change. An empty list: it agrees again. Members:
    /// `worker`, `parts`, `message`.
    DIVVY_EVENT_CONFIG_MISMATCH = 14,
    /// The leader holds a partition list back that lost more than `max_list_shrink` or became
    /// empty. `message` says how to confirm it. It is empty, and the counts are 0, if no list is
    /// held back any more. Members: `partition_count`, `lost_count`, `message`.
    DIVVY_EVENT_LIST_HELD = 15,
    /// A published plan leaves `partition_count` partitions without an owner, because an
    /// assignment with them would be too large for the store; or the loss of one worker would lead
    /// there. `partitions` lists them. `message` says what to do; it is empty if neither is the
    /// case any more. Members: `version`, `partition_count`, `partitions`, `message`.
    DIVVY_EVENT_ASSIGNMENT_LIMIT = 16,
    /// The manager's state changed. The first event of a subscriber reports the current state:
    /// `from` and `state` are equal. Members: `from`, `state`, `time_ns`.
    DIVVY_EVENT_MANAGER_STATE = 20,
    /// The id of the worker changed. `worker` is empty if it has none. Members: `worker`.
    DIVVY_EVENT_WORKER_ID = 21,
    /// Another process owns the id. The worker released its partitions and claims another id.
    /// Members: `worker`.
    DIVVY_EVENT_WORKER_ID_LOST = 22,
    /// The key of the id had disappeared, and the worker claimed it again. Members: `worker`.
    DIVVY_EVENT_WORKER_ID_REGAINED = 23,
    /// The worker's assignment changed, or a new version of the same partitions was applied.
    /// Members: `version`, `term`, `lifecycle`, `partitions`, `added`, `removed`.
    DIVVY_EVENT_ASSIGNMENT = 24,
    /// The leader changed. `worker` is empty if there is none. Members: `worker`, `is_leader`.
    DIVVY_EVENT_LEADER = 25,
    /// Degraded mode begins: the store is unreachable, and the assignment may be out of date.
    /// Members: `message`.
    DIVVY_EVENT_OUTAGE = 26,
    /// Degraded mode has lasted long enough to alert an operator. Members: `level`, `lasted_ms`.
    DIVVY_EVENT_ALERT = 27,
    /// Degraded mode ended. Members: `lasted_ms`.
    DIVVY_EVENT_RECOVERED = 28,
    /// An operation of the manager failed and is retried. Reported once until it succeeds.
    /// Members: `code`, `message`, `operation`, `key`, `attempts`.
    DIVVY_EVENT_MANAGER_FAILED = 29,
    /// The calculator of this worker panicked: it no longer leads. Members: `code`, `message`.
    DIVVY_EVENT_CALCULATOR_FATAL = 30,
    /// A newer process with the same `instance` took the id over. The worker released its
    /// partitions and claims another id. Members: `worker`.
    DIVVY_EVENT_WORKER_ID_TAKEN_OVER = 31,
}

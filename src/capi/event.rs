//! What happened, as C reads it.

use std::ffi::{CStr, c_char};
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use super::guard::{self, Detail, Outcome};
use super::manager_event::WorkerNews;
use super::names::{
    divvy_calculator_state_name, divvy_member_change, divvy_member_change_name, divvy_reason,
    divvy_reason_name, name_of, reason_of, state_of,
};
use super::registry::Registry;
use super::status::{self, divvy_status};
use super::text::{self, Terminated};
use crate::error::Error;
use crate::machine::breaker::BreakerState;
use crate::machine::calculator::{CalculatorEvent, Degradation, MemberChange};
use crate::runtime::Notification;
use crate::strategy::Quality;
use crate::types::Time;

/// An event. Free an event from divvy_events_poll() with divvy_event_free(). An event passed to a
/// callback is valid until the callback returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct divvy_event {
    /// Private. 0: none.
    pub id: u64,
}

/// The kind of an event. New kinds may appear in any release: ignore unknown kinds.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_event_kind {
    /// The state changed: divvy_event_state(), _from_state(), _reason(), _version(), _time_ns(). The
    /// first event of every subscriber carries the current state in both.
    DIVVY_EVENT_CALCULATOR_STATE = 1,
    /// The fleet changed: divvy_event_member_change(), _worker().
    DIVVY_EVENT_MEMBER = 2,
    /// A plan was published: divvy_event_version(), _reason(), _worker_count(), _partition_count(),
    /// _moved_count().
    DIVVY_EVENT_PUBLISHED = 3,
    /// A job failed; it stays pending and is retried: divvy_event_status(), _message(), _operation(),
    /// _key(), _attempts().
    DIVVY_EVENT_FAILED = 4,
    /// The degradations of the calculator changed: divvy_event_message() lists them and what still
    /// works, and is empty at the end; divvy_event_time_ns() is the beginning.
    DIVVY_EVENT_DEGRADED = 5,
    /// A newer leader has taken over, or the fence record is gone (its bucket was purged or
    /// re-created): this calculator publishes nothing more.
    DIVVY_EVENT_LEADERSHIP_LOST = 6,
    /// The subscriber was too slow and is closed; its last event: divvy_event_missed_count().
    DIVVY_EVENT_LAGGED = 7,
    /// A thread of the calculator panicked and it has failed; the last event: divvy_event_message().
    DIVVY_EVENT_FATAL = 8,
    /// A shadow (setting "shadow") would have published a plan: as DIVVY_EVENT_PUBLISHED.
    DIVVY_EVENT_WOULD_PUBLISH = 9,
    /// The live leader that a shadow watches published a plan: divvy_event_version(),
    /// _worker_count(), _partition_count(), _moved_count(), all of the leader's plan;
    /// divvy_event_message() says how the shadow's differs.
    DIVVY_EVENT_LEADER_PUBLISHED = 10,
    /// The store's circuit breaker opened (nothing is published, calls fail at once), probes the
    /// store (half-open, with the same reason), or closed again: divvy_event_message() is the reason,
    /// empty when closed. The status JSON distinguishes open from half-open. A manager reports it
    /// whether it leads or not.
    DIVVY_EVENT_BREAKER = 11,
    /// A live worker has not applied its assignment within the setting apply_timeout. Reported once
    /// until it has caught up: divvy_event_worker(), _version() (assigned), _applied_version(),
    /// _message().
    DIVVY_EVENT_WORKER_LAGGING = 12,
    /// The manager's state changed: divvy_event_state(), _from_state(), _time_ns(). The first event
    /// of a subscriber carries the current state in both.
    DIVVY_EVENT_MANAGER_STATE = 20,
    /// The id of the worker changed: divvy_event_worker(), empty if it has none.
    DIVVY_EVENT_WORKER_ID = 21,
    /// Another process owns the id. The worker released everything and claims another id:
    /// divvy_event_worker().
    DIVVY_EVENT_WORKER_ID_LOST = 22,
    /// The key of the id was deleted, and the worker claimed the id again: divvy_event_worker().
    DIVVY_EVENT_WORKER_ID_REGAINED = 23,
    /// The assignment changed, or a new version of the same partitions was applied:
    /// divvy_event_assignment(), divvy_event_version().
    DIVVY_EVENT_ASSIGNMENT = 24,
    /// The known leader changed: divvy_event_worker(), empty for none, divvy_event_is_leader().
    DIVVY_EVENT_LEADER = 25,
    /// The store cannot be reached, and the assignment may be outdated: divvy_event_message().
    DIVVY_EVENT_OUTAGE = 26,
    /// The outage reached an alert level: divvy_event_alert_level(), _lasted_ms().
    DIVVY_EVENT_ALERT = 27,
    /// The outage ended: divvy_event_lasted_ms().
    DIVVY_EVENT_RECOVERED = 28,
    /// An operation of the manager failed and is retried; reported once until it succeeds:
    /// divvy_event_status(), _message(), _operation(), _key(), _attempts().
    DIVVY_EVENT_MANAGER_FAILED = 29,
    /// The calculator of this worker panicked, and the worker stopped leading: divvy_event_message().
    DIVVY_EVENT_CALCULATOR_FATAL = 30,
}

use divvy_event_kind::*;
use divvy_member_change::*;
use divvy_reason::DIVVY_REASON_NONE;

const KINDS: [(divvy_event_kind, &CStr); 23] = [
    (DIVVY_EVENT_CALCULATOR_STATE, c"state"),
    (DIVVY_EVENT_MEMBER, c"member"),
    (DIVVY_EVENT_PUBLISHED, c"published"),
    (DIVVY_EVENT_FAILED, c"failed"),
    (DIVVY_EVENT_DEGRADED, c"degraded"),
    (DIVVY_EVENT_LEADERSHIP_LOST, c"leadership_lost"),
    (DIVVY_EVENT_LAGGED, c"lagged"),
    (DIVVY_EVENT_FATAL, c"fatal"),
    (DIVVY_EVENT_WOULD_PUBLISH, c"would_publish"),
    (DIVVY_EVENT_LEADER_PUBLISHED, c"leader_published"),
    (DIVVY_EVENT_BREAKER, c"breaker"),
    (DIVVY_EVENT_WORKER_LAGGING, c"worker_lagging"),
    (DIVVY_EVENT_MANAGER_STATE, c"worker_state"),
    (DIVVY_EVENT_WORKER_ID, c"worker_id"),
    (DIVVY_EVENT_WORKER_ID_LOST, c"worker_id_lost"),
    (DIVVY_EVENT_WORKER_ID_REGAINED, c"worker_id_regained"),
    (DIVVY_EVENT_ASSIGNMENT, c"assignment"),
    (DIVVY_EVENT_LEADER, c"leader"),
    (DIVVY_EVENT_OUTAGE, c"outage"),
    (DIVVY_EVENT_ALERT, c"alert"),
    (DIVVY_EVENT_RECOVERED, c"recovered"),
    (DIVVY_EVENT_MANAGER_FAILED, c"manager_failed"),
    (DIVVY_EVENT_CALCULATOR_FATAL, c"calculator_fatal"),
];

/// Returns the name of an event kind, such as "published".
///
/// Parameters: state - any number.
/// Returns: the name; "unknown" for a number unknown to this library. Never NULL.
/// Ownership: static; never free it.
/// Thread: any. Does not block. Works in a forked child.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_kind_name(kind: i32) -> *const c_char {
    name_of(KINDS.iter().map(|&(n, name)| (n as i32, name)), kind)
}

/// An event with everything that C may ask about it.
pub(super) struct EventRecord {
    pub kind: divvy_event_kind,
    pub from: i32,
    pub to: i32,
    pub reason: divvy_reason,
    pub version: i64,
    pub applied_version: i64,
    pub time_ns: u64,
    pub member_change: divvy_member_change,
    pub counts: Counts,
    pub status: i32,
    pub worker: Terminated,
    pub message: Terminated,
    pub operation: Terminated,
    pub key: Terminated,
    pub attempts: u32,
    /// What only events of a manager have.
    pub news: WorkerNews,
    pub json: OnceLock<Terminated>,
}

#[derive(Default)]
pub(super) struct Counts {
    pub workers: u64,
    pub partitions: u64,
    pub moved: u64,
    pub missed: u64,
}

/// An event that C can receive.
pub(super) trait Recorded: Notification {
    fn record(&self) -> EventRecord;
}

impl Recorded for CalculatorEvent {
    fn record(&self) -> EventRecord {
        EventRecord::new(self)
    }
}

impl Counts {
    fn of(workers: usize, partitions: usize, quality: &Quality) -> Self {
        Self {
            workers: workers as u64,
            partitions: partitions as u64,
            moved: quality.moved_partitions as u64,
            missed: 0,
        }
    }
}

impl EventRecord {
    pub fn empty(kind: divvy_event_kind) -> Self {
        Self {
            kind,
            from: 0,
            to: 0,
            reason: DIVVY_REASON_NONE,
            version: 0,
            applied_version: 0,
            time_ns: 0,
            member_change: DIVVY_MEMBER_NONE,
            counts: Counts::default(),
            status: 0,
            worker: Terminated::new(""),
            message: Terminated::new(""),
            news: WorkerNews::default(),
            operation: Terminated::new(""),
            key: Terminated::new(""),
            attempts: 0,
            json: OnceLock::new(),
        }
    }

    fn new(notice: &CalculatorEvent) -> Self {
        match notice {
            CalculatorEvent::StateChanged(change) => Self {
                from: state_of(change.from) as i32,
                to: state_of(change.to) as i32,
                reason: reason_of(change.reason),
                version: change.version,
                time_ns: change.time.as_nanos(),
                ..Self::empty(DIVVY_EVENT_CALCULATOR_STATE)
            },
            CalculatorEvent::Member(change) => Self::of_member(change),
            CalculatorEvent::WorkerLagging(lagging) => Self {
                version: lagging.assigned,
                applied_version: lagging.applied,
                worker: Terminated::new(lagging.worker.as_str()),
                message: Terminated::new(lagging.to_string()),
                ..Self::empty(DIVVY_EVENT_WORKER_LAGGING)
            },
            CalculatorEvent::Published {
                version,
                reason,
                workers,
                partitions,
                quality,
            }
            | CalculatorEvent::WouldPublish {
                version,
                reason,
                workers,
                partitions,
                quality,
            } => Self {
                version: *version,
                reason: reason_of(Some(*reason)),
                counts: Counts::of(*workers, *partitions, quality),
                ..Self::empty(match notice {
                    CalculatorEvent::Published { .. } => DIVVY_EVENT_PUBLISHED,
                    _ => DIVVY_EVENT_WOULD_PUBLISH,
                })
            },
            CalculatorEvent::LeaderPublished(seen) => Self {
                version: seen.version,
                counts: Counts::of(seen.workers, seen.partitions, &seen.quality),
                message: Terminated::new(seen.to_string()),
                ..Self::empty(DIVVY_EVENT_LEADER_PUBLISHED)
            },
            CalculatorEvent::Failed { operation, error } => Self {
                message: Terminated::new(format!("{operation}: {error}")),
                ..Self::failed(DIVVY_EVENT_FAILED, operation, error)
            },
            CalculatorEvent::Degraded(list) => Self {
                time_ns: list.since.map_or(0, Time::as_nanos),
                message: Terminated::new(degradation_words(list).join("; ")),
                ..Self::empty(DIVVY_EVENT_DEGRADED)
            },
            CalculatorEvent::Breaker(state) => Self::of_breaker(state),
            CalculatorEvent::LeadershipLost => Self::empty(DIVVY_EVENT_LEADERSHIP_LOST),
            CalculatorEvent::Lagged { missed } => Self {
                counts: Counts {
                    missed: *missed,
                    ..Counts::default()
                },
                ..Self::empty(DIVVY_EVENT_LAGGED)
            },
            CalculatorEvent::Fatal { message } => Self {
                status: divvy_status::DIVVY_PANICKED as i32,
                message: Terminated::new(message.as_str()),
                ..Self::empty(DIVVY_EVENT_FATAL)
            },
        }
    }

    /// Something failed: in `operation`, unless it is known more closely.
    pub fn failed(kind: divvy_event_kind, operation: &str, error: &Error) -> Self {
        Self {
            status: status::of(error.code()) as i32,
            message: Terminated::new(error.to_string()),
            operation: Terminated::new(error.operation().unwrap_or(operation)),
            key: Terminated::new(error.key().unwrap_or_default()),
            attempts: error.attempts(),
            ..Self::empty(kind)
        }
    }

    pub fn of_breaker(state: &BreakerState) -> Self {
        Self {
            message: Terminated::new(state.why().unwrap_or_default()),
            ..Self::empty(DIVVY_EVENT_BREAKER)
        }
    }

    fn of_member(change: &MemberChange) -> Self {
        let (member_change, worker) = match change {
            MemberChange::Joined(worker) => (DIVVY_MEMBER_JOINED, worker),
            MemberChange::Left(worker) => (DIVVY_MEMBER_LEFT, worker),
            MemberChange::Suspected(worker) => (DIVVY_MEMBER_SUSPECTED, worker),
            MemberChange::Returned(worker) => (DIVVY_MEMBER_RETURNED, worker),
            MemberChange::Dead(worker) => (DIVVY_MEMBER_DEAD, worker),
        };
        Self {
            member_change,
            worker: Terminated::new(worker.as_str()),
            ..Self::empty(DIVVY_EVENT_MEMBER)
        }
    }

    fn json(&self) -> Terminated {
        let text = |name: *const c_char| {
            // SAFETY: the names are static texts of this file.
            unsafe { CStr::from_ptr(name) }.to_string_lossy()
        };
        let json = json!({
            "kind": text(divvy_event_kind_name(self.kind as i32)),
            "from": text(divvy_calculator_state_name(self.from)),
            "state": text(divvy_calculator_state_name(self.to)),
            "reason": text(divvy_reason_name(self.reason as i32)),
            "version": self.version,
            "applied_version": self.applied_version,
            "time_ns": self.time_ns,
            "member_change": text(divvy_member_change_name(self.member_change as i32)),
            "worker": self.worker.lossy(),
            "workers": self.counts.workers,
            "partitions": self.counts.partitions,
            "moved": self.counts.moved,
            "missed": self.counts.missed,
            "status": text(status::divvy_status_name(self.status)),
            "message": self.message.lossy(),
            "operation": self.operation.lossy(),
            "key": self.key.lossy(),
            "attempts": self.attempts,
        });
        let Value::Object(mut members) = json else {
            return Terminated::new("{}");
        };
        self.news.amend_json(self, &mut members);
        let has_states = matches!(
            self.kind,
            DIVVY_EVENT_CALCULATOR_STATE | DIVVY_EVENT_MANAGER_STATE
        );
        members.retain(|name, value| match name.as_str() {
            "from" | "state" => has_states,
            "kind" => true,
            "status" => self.status != 0,
            _ => !matches!(value.as_str(), Some("")) && value.as_u64() != Some(0),
        });
        Terminated::new(Value::Object(members).to_string())
    }
}

/// What a calculator suffers from and what works nevertheless, one sentence each.
pub(super) fn degradation_words(list: &[Degradation]) -> Vec<String> {
    list.iter()
        .map(|what| format!("{what} ({})", what.still_works()))
        .collect()
}

static EVENTS: Registry<EventRecord> = Registry::new(9);

/// Hands an event out to C.
pub(super) fn hand_out(record: Arc<EventRecord>) -> Outcome<divvy_event> {
    let id = EVENTS.insert(record)?;
    Ok(divvy_event { id })
}

/// Frees an event that was handed to a callback.
pub(super) fn take_back(event: divvy_event) {
    let _ = EVENTS.remove(event.id); // gone already when the host freed it, against the rule
}

/// The event behind a handle.
pub(super) fn record_of(event: divvy_event) -> Outcome<Arc<EventRecord>> {
    EVENTS.get(event.id)
}

pub(super) fn look<T>(event: divvy_event, fallback: T, look: impl FnOnce(&EventRecord) -> T) -> T {
    guard::or(None, || EVENTS.with(event.id, |record| Some(look(record)))).unwrap_or(fallback)
}

/// Returns the kind of an event.
///
/// Parameters: event - the event.
/// Returns: a divvy_event_kind; a status (below 0) for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_get_kind(event: divvy_event) -> i32 {
    guard::small_value(|| EVENTS.with(event.id, |record| record.kind as i32))
}

/// Returns the new state.
///
/// Parameters: event - the event.
/// Returns: a divvy_calculator_state, of DIVVY_EVENT_MANAGER_STATE a divvy_manager_state; 0 for other
/// kinds of events and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_state(event: divvy_event) -> i32 {
    look(event, 0, |record| record.to)
}

/// Returns the previous state.
///
/// Parameters: event - the event.
/// Returns: a divvy_calculator_state, of DIVVY_EVENT_MANAGER_STATE a divvy_manager_state; 0 for other
/// kinds of events and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_from_state(event: divvy_event) -> i32 {
    look(event, 0, |record| record.from)
}

/// Returns the reason of the plan.
///
/// Parameters: event - the event.
/// Returns: a divvy_reason; DIVVY_REASON_NONE for other kinds of events, for a change to
/// DIVVY_CALCULATOR_IDLE, and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_reason(event: divvy_event) -> i32 {
    look(event, 0, |record| record.reason as i32)
}

/// Returns the version: of the published plan, of the last plan at a change of state, of the
/// assignment, or the version assigned to a lagging worker.
///
/// Parameters: event - the event.
/// Returns: the version; 0 when there is none, for other kinds of events, and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_version(event: divvy_event) -> i64 {
    look(event, 0, |record| record.version)
}

/// Returns the version that a lagging worker has applied.
///
/// Parameters: event - the event.
/// Returns: the version; 0 when it has applied none, for other kinds of events, and for an invalid
/// handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_applied_version(event: divvy_event) -> i64 {
    look(event, 0, |record| record.applied_version)
}

/// Returns the time of the state change, or since when the calculator has been degraded, in
/// nanoseconds of the clock that continues during system sleep (CLOCK_BOOTTIME on Linux,
/// CLOCK_MONOTONIC elsewhere).
///
/// Parameters: event - the event.
/// Returns: the time; 0 for other kinds of events, for the end of a degradation, and for an invalid
/// handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_time_ns(event: divvy_event) -> u64 {
    look(event, 0, |record| record.time_ns)
}

/// Returns the membership change.
///
/// Parameters: event - the event.
/// Returns: a divvy_member_change; DIVVY_MEMBER_NONE for other kinds of events and for an invalid
/// handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_member_change(event: divvy_event) -> i32 {
    look(event, 0, |record| record.member_change as i32)
}

/// Returns the number of workers in the published plan.
///
/// Parameters: event - the event.
/// Returns: the number; 0 for other kinds of events and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_worker_count(event: divvy_event) -> u64 {
    look(event, 0, |record| record.counts.workers)
}

/// Returns the number of partitions in the published plan.
///
/// Parameters: event - the event.
/// Returns: the number; 0 for other kinds of events and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_partition_count(event: divvy_event) -> u64 {
    look(event, 0, |record| record.counts.partitions)
}

/// Returns the number of partitions that changed owners with the published plan.
///
/// Parameters: event - the event.
/// Returns: the number; 0 for other kinds of events and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_moved_count(event: divvy_event) -> u64 {
    look(event, 0, |record| record.counts.moved)
}

/// Returns the number of events that a slow subscriber missed.
///
/// Parameters: event - the event.
/// Returns: the number; 0 for other kinds of events and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_missed_count(event: divvy_event) -> u64 {
    look(event, 0, |record| record.counts.missed)
}

/// Returns the status of a failure.
///
/// Parameters: event - the event.
/// Returns: a divvy_status; 0 for other kinds of events and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_status(event: divvy_event) -> i32 {
    look(event, 0, |record| record.status)
}

/// Returns the worker of an event about membership, lag or ids.
///
/// Parameters: event - the event. length - receives the length in bytes; NULL allowed.
/// Returns: the worker's id; an empty string for other kinds of events and for an invalid handle.
/// Never NULL.
/// Ownership: valid until the event is freed, or the callback that received it returns.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_event_worker(
    event: divvy_event,
    length: *mut usize,
) -> *const c_char {
    look(event, None, |record| Some(record.worker.expose(length)))
        .unwrap_or_else(|| text::empty(length))
}

/// Returns the text of an event, for people.
///
/// Parameters: event - the event. length - receives the length in bytes; NULL allowed.
/// Returns: the worker's id; an empty string for other kinds of events and for an invalid handle.
/// Never NULL.
/// Ownership: valid until the event is freed, or the callback that received it returns.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_event_message(
    event: divvy_event,
    length: *mut usize,
) -> *const c_char {
    look(event, None, |record| Some(record.message.expose(length)))
        .unwrap_or_else(|| text::empty(length))
}

/// Returns the operation that failed, such as "publish", or the failing part of it.
///
/// Parameters: event - the event. length - receives the length in bytes; NULL allowed.
/// Returns: the worker's id; an empty string for other kinds of events and for an invalid handle.
/// Never NULL.
/// Ownership: valid until the event is freed, or the callback that received it returns.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_event_operation(
    event: divvy_event,
    length: *mut usize,
) -> *const c_char {
    look(event, None, |record| Some(record.operation.expose(length)))
        .unwrap_or_else(|| text::empty(length))
}

/// Returns the store key that a failure was about; empty if none.
///
/// Parameters: event - the event. length - receives the length in bytes; NULL allowed.
/// Returns: the worker's id; an empty string for other kinds of events and for an invalid handle.
/// Never NULL.
/// Ownership: valid until the event is freed, or the callback that received it returns.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_event_key(event: divvy_event, length: *mut usize) -> *const c_char {
    look(event, None, |record| Some(record.key.expose(length)))
        .unwrap_or_else(|| text::empty(length))
}

/// Returns the number of failed attempts, the last one included.
///
/// Parameters: event - the event.
/// Returns: the number; 1 without a retry; 0 for other kinds of events and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_attempts(event: divvy_event) -> u32 {
    look(event, 0, |record| record.attempts)
}

/// Returns an event as a JSON object with the member "kind" and those that apply.
///
/// Parameters: event - the event. length - receives the length in bytes; NULL allowed.
/// Returns: the worker's id; an empty string for other kinds of events and for an invalid handle.
/// Never NULL.
/// Ownership: valid until the event is freed, or the callback that received it returns.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_event_json(event: divvy_event, length: *mut usize) -> *const c_char {
    look(event, None, |record| {
        let json = record.json.get_or_init(|| record.json());
        Some(json.expose(length))
    })
    .unwrap_or_else(|| text::empty(length))
}

/// Frees an event that divvy_events_poll() returned.
///
/// Parameters: event - the event; {0} is allowed and does nothing.
/// Returns: OK; BAD_HANDLE, also on the second call.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_free(event: divvy_event) -> divvy_status {
    guard::call(Detail::new(std::ptr::null_mut(), 0), || {
        if event.id != 0 {
            EVENTS.remove(event.id)?;
        }
        Ok(())
    })
}

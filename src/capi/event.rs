//! Events, as C reads them.

use std::ffi::c_char;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use super::assignment::{self, AssignmentRecord, divvy_assignment};
use super::guard::{self, Detail, Failure, Outcome};
use super::registry::{HandleKind, Registry};
use super::status::divvy_status;
use super::text::{self, Out, Terminated};
use crate::runtime::{EventRecord, Queued};
use crate::time::duration::millis;
use crate::types::{Time, WorkerId};
use crate::vocabulary::{AlertLevel, Bucket, Code, MemberChange, Reason, Word};

/// An event. Free an event from divvy_events_poll() with divvy_event_free(). An event passed to a
/// callback is valid until the callback returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct divvy_event {
    /// Private. 0: none.
    pub id: u64,
}

/// An event that C may ask. Texts are made when they are asked for.
pub(super) struct HandedEvent {
    record: EventRecord,
    reporter: String,
    time: SystemTime,
    worker: OnceLock<Terminated>,
    message: OnceLock<Terminated>,
    operation: OnceLock<Terminated>,
    key: OnceLock<Terminated>,
    value: OnceLock<Terminated>,
    json: OnceLock<Terminated>,
    assignment: OnceLock<Option<Arc<AssignmentRecord>>>,
}

impl HandedEvent {
    /// An event from a backlog. `name` reports it where no worker does.
    pub fn new<N>(queued: &Queued<N>, name: &str) -> Self
    where
        for<'a> EventRecord: From<&'a N>,
    {
        let reporter = queued.reporter.as_ref().map(WorkerId::as_str);
        Self {
            record: EventRecord::from(&*queued.event),
            reporter: reporter.unwrap_or(name).to_owned(),
            time: queued.time,
            worker: OnceLock::new(),
            message: OnceLock::new(),
            operation: OnceLock::new(),
            key: OnceLock::new(),
            value: OnceLock::new(),
            json: OnceLock::new(),
            assignment: OnceLock::new(),
        }
    }
}

/// The number of a word, 0 for none.
fn number(word: Option<&'static Word>) -> i32 {
    word.map_or(0, |word| word.number)
}

static EVENTS: Registry<HandedEvent> = Registry::new(HandleKind::Event);

/// Hands an event out to C.
pub(super) fn hand_out(event: HandedEvent) -> Outcome<divvy_event> {
    let id = EVENTS.insert(Arc::new(event))?;
    Ok(divvy_event { id })
}

/// Frees an event that was handed to a callback.
pub(super) fn take_back(event: divvy_event) {
    let _ = EVENTS.remove(event.id); // gone already when the host freed it, against the rule
}

fn look<T>(event: divvy_event, fallback: T, look: impl FnOnce(&EventRecord) -> T) -> T {
    let found = guard::or(None, || {
        EVENTS.with(event.id, |event| Some(look(&event.record)))
    });
    found.unwrap_or(fallback)
}

/// A text of an event, made when it is asked for first.
fn text_of(
    event: divvy_event,
    length: *mut usize,
    slot: impl FnOnce(&HandedEvent) -> &OnceLock<Terminated>,
    make: impl FnOnce(&HandedEvent) -> String,
) -> *const c_char {
    let found = guard::or(None, || {
        EVENTS.with(event.id, |event| {
            let text = slot(event).get_or_init(|| Terminated::new(make(event)));
            Some(text.expose(length))
        })
    });
    found.unwrap_or_else(|| text::empty(length))
}

/// Returns the kind of an event.
///
/// Parameters: event - the event.
/// Returns: a divvy_event_kind; a status (below 0) for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_get_kind(event: divvy_event) -> i32 {
    guard::small_value(|| EVENTS.with(event.id, |event| event.record.kind.number()))
}

/// Returns the new state.
///
/// Parameters: event - the event.
/// Returns: a divvy_calculator_state; of DIVVY_EVENT_MANAGER_STATE a divvy_manager_state, of
/// DIVVY_EVENT_BREAKER a divvy_breaker_state; 0 for other kinds of events and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_state(event: divvy_event) -> i32 {
    look(event, 0, |record| number(record.state))
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
    look(event, 0, |record| number(record.from))
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
    look(event, 0, |record| record.reason.map_or(0, Reason::number))
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
    look(event, 0, |record| record.time.map_or(0, Time::as_nanos))
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
    look(event, 0, |record| {
        record.change.map_or(0, MemberChange::number)
    })
}

/// Returns the number of workers in the published plan.
///
/// Parameters: event - the event.
/// Returns: the number; 0 for other kinds of events and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_worker_count(event: divvy_event) -> u64 {
    look(event, 0, |record| record.worker_count as u64)
}

/// Returns the number of partitions in the published plan; of DIVVY_EVENT_ASSIGNMENT_LIMIT those
/// without an owner, which divvy_event_json() lists.
///
/// Parameters: event - the event.
/// Returns: the number; 0 for other kinds of events and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_partition_count(event: divvy_event) -> u64 {
    look(event, 0, |record| record.partition_count as u64)
}

/// Returns the number of partitions that changed owners with the published plan.
///
/// Parameters: event - the event.
/// Returns: the number; 0 for other kinds of events and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_moved_count(event: divvy_event) -> u64 {
    look(event, 0, |record| record.moved_count() as u64)
}

/// Returns the number of events that a slow subscriber missed.
///
/// Parameters: event - the event.
/// Returns: the number; 0 for other kinds of events and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_missed_count(event: divvy_event) -> u64 {
    look(event, 0, |record| record.missed_count)
}

/// Returns the status of a failure.
///
/// Parameters: event - the event.
/// Returns: a divvy_status; 0 for other kinds of events and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_status(event: divvy_event) -> i32 {
    look(event, 0, |record| record.code.map_or(0, Code::number))
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
    text_of(
        event,
        length,
        |event| &event.worker,
        |event| {
            event
                .record
                .worker
                .as_ref()
                .map_or("", WorkerId::as_str)
                .to_owned()
        },
    )
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
    text_of(
        event,
        length,
        |event| &event.message,
        |event| event.record.message.clone(),
    )
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
    text_of(
        event,
        length,
        |event| &event.operation,
        |event| event.record.operation.to_owned(),
    )
}

/// Returns the store key that a failure or a malformed value was about; empty if none.
///
/// Parameters: event - the event. length - receives the length in bytes; NULL allowed.
/// Returns: the worker's id; an empty string for other kinds of events and for an invalid handle.
/// Never NULL.
/// Ownership: valid until the event is freed, or the callback that received it returns.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_event_key(event: divvy_event, length: *mut usize) -> *const c_char {
    text_of(
        event,
        length,
        |event| &event.key,
        |event| event.record.key.clone(),
    )
}

/// Returns the bucket that holds a malformed value.
///
/// Parameters: event - the event, of kind DIVVY_EVENT_MALFORMED.
/// Returns: a divvy_bucket; 0 for other kinds of events and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_bucket(event: divvy_event) -> i32 {
    look(event, 0, |record| record.bucket.map_or(0, Bucket::number))
}

/// Returns how a malformed value begins, with control characters escaped.
///
/// Parameters: event - the event, of kind DIVVY_EVENT_MALFORMED. length - receives the length in
/// bytes; NULL allowed.
/// Returns: the text; an empty string for other kinds of events and for an invalid handle. Never
/// NULL.
/// Ownership: valid until the event is freed, or the callback that received it returns.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_event_value(
    event: divvy_event,
    length: *mut usize,
) -> *const c_char {
    text_of(
        event,
        length,
        |event| &event.value,
        |event| event.record.value.clone(),
    )
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

/// Returns an event as a JSON object with "kind", "time" (RFC 3339, when it occurred),
/// "reporter" and "worker", and the members of its kind: see docs/events.md. Members may be added in
/// any release.
///
/// Parameters: event - the event. length - receives the length in bytes; NULL allowed.
/// Returns: the worker's id; an empty string for other kinds of events and for an invalid handle.
/// Never NULL.
/// Ownership: valid until the event is freed, or the callback that received it returns.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_event_json(event: divvy_event, length: *mut usize) -> *const c_char {
    text_of(
        event,
        length,
        |event| &event.json,
        |event| event.record.json(&event.reporter, event.time).to_string(),
    )
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

/// Returns the assignment after the change, with the added and removed partitions.
///
/// Parameters: event - the event, of kind DIVVY_EVENT_ASSIGNMENT. out - receives the handle; not
/// NULL. errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; INVALID_ARGUMENT - an event of another kind.
/// Ownership: the caller frees the assignment with divvy_assignment_free(); it may outlive the event.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_event_assignment(
    event: divvy_event,
    out: *mut divvy_assignment,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let event = EVENTS.get(event.id)?;
        let assignment = event.assignment.get_or_init(|| {
            let change = event.record.assignment.clone();
            change.map(AssignmentRecord::new)
        });
        let assignment = assignment.as_ref().ok_or_else(|| {
            Failure::new(
                divvy_status::DIVVY_INVALID_ARGUMENT,
                "the event is not about an assignment",
            )
        })?;
        out.write(assignment::hand_out(Arc::clone(assignment))?);
        Ok(())
    })
}

/// Returns whether the worker leads now.
///
/// Parameters: event - the event.
/// Returns: 1 or 0; 0 for other kinds of events and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_is_leader(event: divvy_event) -> i32 {
    look(event, 0, |record| i32::from(record.is_leader))
}

/// Returns the alert level of an outage.
///
/// Parameters: event - the event.
/// Returns: a divvy_alert_level; DIVVY_ALERT_NONE for other kinds of events and for an invalid
/// handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_alert_level(event: divvy_event) -> i32 {
    look(event, 0, |record| {
        record.level.map_or(0, AlertLevel::number)
    })
}

/// Returns how long degraded mode has lasted, in milliseconds.
///
/// Parameters: event - the event.
/// Returns: the time; 0 for other kinds of events and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_lasted_ms(event: divvy_event) -> u64 {
    look(event, 0, |record| millis(record.lasted))
}

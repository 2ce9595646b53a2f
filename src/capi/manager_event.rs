//! What happened to a worker, as C reads it.

use std::ffi::c_char;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::assignment::{self, AssignmentRecord, divvy_assignment};
use super::event::{Counts, EventRecord, Recorded, divvy_event, divvy_event_kind, look};
use super::guard::{self, Detail, Failure};
use super::names::{
    alert_level_of, divvy_alert_level, divvy_alert_level_name, divvy_manager_state_name,
    manager_state_of,
};
use super::status::divvy_status;
use super::text::{Out, Terminated};
use crate::machine::calculator::CalculatorEvent;
use crate::machine::manager::ManagerEvent;
use crate::types::WorkerId;
use divvy_event_kind::*;

/// What only events of a manager have.
pub(super) struct WorkerNews {
    assignment: Option<Arc<AssignmentRecord>>,
    is_leader: bool,
    alert_level: divvy_alert_level,
    lasted_ms: u64,
}

impl Default for WorkerNews {
    fn default() -> Self {
        Self {
            assignment: None,
            is_leader: false,
            alert_level: divvy_alert_level::DIVVY_ALERT_NONE,
            lasted_ms: 0,
        }
    }
}

impl Recorded for ManagerEvent {
    fn record(&self) -> EventRecord {
        let about = |kind, worker: Option<&WorkerId>| EventRecord {
            worker: Terminated::new(worker.map_or("", WorkerId::as_str)),
            ..EventRecord::empty(kind)
        };
        let says = |kind, message: &str| EventRecord {
            message: Terminated::new(message),
            ..EventRecord::empty(kind)
        };
        match self {
            ManagerEvent::StateChanged(change) => EventRecord {
                from: manager_state_of(change.from) as i32,
                to: manager_state_of(change.to) as i32,
                time_ns: change.time.as_nanos(),
                ..EventRecord::empty(DIVVY_EVENT_MANAGER_STATE)
            },
            ManagerEvent::Id(id) => about(DIVVY_EVENT_WORKER_ID, id.as_ref()),
            ManagerEvent::IdLost { worker } => about(DIVVY_EVENT_WORKER_ID_LOST, Some(worker)),
            ManagerEvent::IdRegained { worker } => {
                about(DIVVY_EVENT_WORKER_ID_REGAINED, Some(worker))
            }
            ManagerEvent::AssignmentChanged(change) => EventRecord {
                version: change.held.version,
                news: WorkerNews {
                    assignment: Some(AssignmentRecord::new(change.clone())),
                    ..WorkerNews::default()
                },
                ..EventRecord::empty(DIVVY_EVENT_ASSIGNMENT)
            },
            ManagerEvent::Leader { leader, is_self } => EventRecord {
                news: WorkerNews {
                    is_leader: *is_self,
                    ..WorkerNews::default()
                },
                ..about(DIVVY_EVENT_LEADER, leader.as_ref())
            },
            // The manager's own stream continues after the end of a calculator.
            ManagerEvent::Calculator(CalculatorEvent::Fatal { message }) => {
                fatal(DIVVY_EVENT_CALCULATOR_FATAL, message)
            }
            ManagerEvent::Calculator(notice) => notice.record(),
            ManagerEvent::Breaker(state) => EventRecord::of_breaker(state),
            ManagerEvent::Degraded { why } => says(DIVVY_EVENT_OUTAGE, why),
            ManagerEvent::Alert { level, lasted } => EventRecord {
                news: WorkerNews {
                    alert_level: alert_level_of(*level),
                    lasted_ms: millis(*lasted),
                    ..WorkerNews::default()
                },
                ..EventRecord::empty(DIVVY_EVENT_ALERT)
            },
            ManagerEvent::Recovered { lasted } => EventRecord {
                news: WorkerNews {
                    lasted_ms: millis(*lasted),
                    ..WorkerNews::default()
                },
                ..EventRecord::empty(DIVVY_EVENT_RECOVERED)
            },
            ManagerEvent::Failed { error } => {
                EventRecord::failed(DIVVY_EVENT_MANAGER_FAILED, "", error)
            }
            ManagerEvent::Lagged { missed } => EventRecord {
                counts: Counts {
                    missed: *missed,
                    ..Counts::default()
                },
                ..EventRecord::empty(DIVVY_EVENT_LAGGED)
            },
            ManagerEvent::Fatal { message } => fatal(DIVVY_EVENT_FATAL, message),
        }
    }
}

fn fatal(kind: divvy_event_kind, message: &str) -> EventRecord {
    EventRecord {
        status: divvy_status::DIVVY_PANICKED as i32,
        message: Terminated::new(message),
        ..EventRecord::empty(kind)
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl WorkerNews {
    /// Adds what only events of a manager have to what every event says.
    pub fn amend_json(&self, event: &EventRecord, members: &mut Map<String, Value>) {
        let mut set = |name: &str, value: Value| members.insert(name.to_owned(), value);
        match event.kind {
            DIVVY_EVENT_MANAGER_STATE => {
                set("from", name(divvy_manager_state_name(event.from)));
                set("state", name(divvy_manager_state_name(event.to)));
            }
            DIVVY_EVENT_LEADER => {
                set("is_leader", json!(self.is_leader));
            }
            DIVVY_EVENT_ALERT | DIVVY_EVENT_RECOVERED => {
                let level = divvy_alert_level_name(self.alert_level as i32);
                set("level", name(level));
                set("lasted_ms", json!(self.lasted_ms));
            }
            _ => {}
        }
        if let Some(assignment) = &self.assignment {
            let change = assignment.change();
            set("term", json!(change.held.term));
            set("lifecycle", json!(change.held.lifecycle));
            set("partitions", json!(change.held.partitions.len()));
            set("added", json!(change.added));
            set("removed", json!(change.removed));
        }
    }
}

fn name(text: *const c_char) -> Value {
    // SAFETY: the names are static texts of `names`.
    let text = unsafe { std::ffi::CStr::from_ptr(text) };
    Value::from(text.to_string_lossy())
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
        let record = super::event::record_of(event)?;
        let assignment = record.news.assignment.as_ref().ok_or_else(|| {
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
    look(event, 0, |record| i32::from(record.news.is_leader))
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
    look(event, 0, |record| record.news.alert_level as i32)
}

/// Returns how long degraded mode has lasted, in milliseconds.
///
/// Parameters: event - the event.
/// Returns: the time; 0 for other kinds of events and for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_event_lasted_ms(event: divvy_event) -> u64 {
    look(event, 0, |record| record.news.lasted_ms)
}

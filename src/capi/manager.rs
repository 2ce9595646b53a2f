//! The manager's handle.

use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::assignment::{self, AssignmentRecord, divvy_assignment};
use super::calculator::{Measured, ask};
use super::config::{self, divvy_config};
use super::events::{self, Callback, divvy_event_fn, divvy_events, divvy_subscription};
use super::guard::{self, Detail, Failure, Outcome, known};
use super::partitions::{self, divvy_partitions};
use super::registry::{HandleKind, Registry};
use super::snapshot;
use super::status::divvy_status;
use super::store::{self, divvy_store, timeout};
use super::text::{self, Out, divvy_text};
use super::userdata::divvy_destroy_fn;
use crate::machine::assignment::AssignmentChange;
use crate::metrics::Prometheus;
use crate::runtime::{Manager, ManagerStatus};
use crate::time::duration::millis;
use crate::types::WorkerId;
use crate::vocabulary::{Departure, ManagerEventFilter, ManagerState};

/// How long freeing a manager that is started waits for its threads.
const FREE_TIMEOUT: Duration = Duration::from_secs(10);

/// A manager: one worker's lifecycle. It joins the fleet under a stable id, sends heartbeats, takes
/// part in the election, receives assignments, runs a calculator while it leads, and leaves.
///
/// All functions may be called from any thread, at the same time, unless they say otherwise. A
/// started manager has the threads "dv-member", "dv-notify" and "dv-io" (several while the store
/// answers slowly); while it leads, also "dv-calc", "dv-watch", "dv-publish" and, with a
/// partition source, "dv-source". Callbacks of
/// subscribers run on "dv-notify", one at a time, with no lock held. Heartbeats do not depend on
/// callbacks or polls.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct divvy_manager {
    /// Private. 0: none.
    pub id: u64,
}

static MANAGERS: Registry<Measured<Manager>> = Registry::new(HandleKind::Manager);

fn manager_of(manager: divvy_manager) -> Outcome<Arc<Measured<Manager>>> {
    MANAGERS.get(manager.id)
}

/// Creates a manager.
///
/// Parameters: config - the configuration, copied; {0}: defaults. Use the same configuration in all
/// workers of a fleet. store - the store, shared; may be freed afterwards. out - receives the handle;
/// not NULL. errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; INVALID_CONFIG - the detail lists every violation. A manager also rejects windows and
/// graces for which a calculator only warns.
/// Ownership: the caller frees it with divvy_manager_free().
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_manager_new(
    config: divvy_config,
    store: divvy_store,
    out: *mut divvy_manager,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let store = store::store_of(store)?;
        let blueprint = config::blueprint(config)?;
        let names = blueprint.settings.metrics().clone();
        let recorder = Prometheus::builder().names(names).with_manager();
        let metrics = Arc::new(recorder.build()?);
        let mut builder = Manager::builder(store)
            .config(blueprint.settings.manager())
            .metrics(Arc::clone(&metrics))
            .strategy(blueprint.strategy());
        if let Some(source) = blueprint.source {
            builder = builder.source(source);
        }
        if let Some(election) = blueprint.election {
            builder = builder.election(election);
        }
        let inner = builder.build()?;
        let id = MANAGERS.insert(Arc::new(Measured { inner, metrics }))?;
        out.write(divvy_manager { id });
        Ok(())
    })
}

/// Starts a manager: creates missing buckets, claims an id, and returns once the first heartbeat is
/// stored. Election and assignment follow; wait for them with divvy_manager_wait_state(). What may
/// pass is tried again until the timeout. After a stop it may be called again. With the setting
/// cache_file it also returns after the first failure of the store, with the assignment in the file:
/// state degraded, the previous id and partitions, lifecycle "cached". Joining continues in the
/// background.
///
/// Parameters: manager - the manager. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS. errbuf,
/// errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; ALREADY_STARTED, also on a second call; INVALID_ARGUMENT; NOT_RUNNING - stopped in
/// the meantime; CANCELLED; IDS_EXHAUSTED - no id became free; TIMED_OUT - the detail contains the
/// last failure; UNAUTHORIZED; UNSUPPORTED - the TTL of a bucket does not fit. After a failure
/// nothing is left running and subscriptions remain.
/// Thread: any. Blocks for at most timeout_ms, plus 1 s for cleanup after a failure.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_manager_start(
    manager: divvy_manager,
    timeout_ms: i64,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        Ok(manager_of(manager)?.start(timeout(timeout_ms)?)?)
    })
}

/// Leaves the fleet and joins all threads. The calculator stops first; then heartbeat and leadership
/// are released, and last the id. Subscribers receive the events in their backlog and then end. The
/// worker then owns nothing. After OK, no callback of this manager runs. If it is not started, ends
/// its subscriptions and returns OK; so does a second call.
///
/// Parameters: manager - the manager. departure - a divvy_departure. timeout_ms - maximum wait, 0 to
/// DIVVY_TIMEOUT_MAX_MS; if the store has not confirmed after three quarters of it, the remaining
/// keys are left to expire. errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; INVALID_ARGUMENT; WOULD_DEADLOCK - called inside a callback of this manager;
/// TIMED_OUT - the detail names the busy threads: the handle stays valid, call again; CANCELLED - the
/// worker continues to leave in the background; call again to wait for it.
/// Thread: any. Blocks for at most timeout_ms.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_manager_stop(
    manager: divvy_manager,
    departure: i32,
    timeout_ms: i64,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let manager = manager_of(manager)?;
        Ok(manager.stop(
            known(
                Departure::from_number(departure),
                departure,
                "divvy_departure",
            )?,
            timeout(timeout_ms)?,
        )?)
    })
}

/// Frees a manager. A started manager is stopped first, with DIVVY_DEPARTURE_LEAVE and a timeout of
/// 10 s. Concurrent calls in other threads end safely; later calls return BAD_HANDLE.
///
/// Parameters: manager - the manager; {0} is allowed and does nothing. errbuf, errlen - buffer that
/// receives the error text; NULL allowed.
/// Returns: OK; BAD_HANDLE, also on the second call; WOULD_DEADLOCK and TIMED_OUT as
/// divvy_manager_stop(), and CANCELLED: nothing is freed, the handle stays valid.
/// Thread: any. Blocks for at most 10 s when it is started.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_manager_free(
    manager: divvy_manager,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        if manager.id == 0 {
            return Ok(());
        }
        manager_of(manager)?.stop(Departure::Leave, FREE_TIMEOUT)?;
        MANAGERS.remove(manager.id)?;
        Ok(())
    })
}

/// Returns whether a manager is running: from a successful divvy_manager_start() until a stop is
/// requested or one of its threads panics.
///
/// Returns: 1 or 0; a status (below 0) for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_manager_is_started(manager: divvy_manager) -> i32 {
    guard::small_value(|| Ok(i32::from(manager_of(manager)?.is_started())))
}

/// Returns whether the library works, for liveness probes: 1 from the begin of divvy_manager_start()
/// until the end of divvy_manager_stop(), unless a thread of the manager has panicked or has made no
/// progress for 10 s. Outages of the store, a lost id and hanging host code do not matter.
///
/// Returns: 1 or 0; a status (below 0) for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_manager_is_live(manager: divvy_manager) -> i32 {
    guard::small_value(|| Ok(i32::from(manager_of(manager)?.is_live())))
}

/// Returns whether the worker serves an assignment, for readiness probes: 1 from its first applied
/// assignment, which may be empty or cached, until a stop is requested, its id is lost or, with the
/// setting outage_policy strict, its ownership ends. Stays 1 while the worker leads and its calculator
/// scales or rebalances, and in degraded mode with outage_policy serve.
///
/// Returns: 1 or 0; a status (below 0) for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_manager_is_ready(manager: divvy_manager) -> i32 {
    guard::small_value(|| Ok(i32::from(manager_of(manager)?.is_ready())))
}

/// Returns whether the worker leads.
///
/// Returns: 1 or 0; a status (below 0) for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_manager_is_leader(manager: divvy_manager) -> i32 {
    guard::small_value(|| MANAGERS.with(manager.id, |manager| i32::from(manager.is_leader())))
}

/// Returns the state of a manager.
///
/// Returns: a divvy_manager_state; a status (below 0) for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_manager_get_state(manager: divvy_manager) -> i32 {
    guard::small_value(|| {
        let state = MANAGERS.with(manager.id, |manager| manager.state())?;
        Ok(state.number())
    })
}

/// Waits until a manager is in a state. A state that it left before the call, or very quickly, is not
/// detected: subscribe to observe every state.
///
/// Parameters: manager - the manager. state - a divvy_manager_state. timeout_ms - maximum wait, 0 to
/// DIVVY_TIMEOUT_MAX_MS. errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; INVALID_ARGUMENT; NOT_RUNNING - the manager was stopped, or is stopped during the
/// wait; TIMED_OUT - the detail names the current state; CANCELLED; PANICKED.
/// Thread: any. Blocks for at most timeout_ms.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_manager_wait_state(
    manager: divvy_manager,
    state: i32,
    timeout_ms: i64,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let manager = manager_of(manager)?;
        let state = known(
            ManagerState::from_number(state),
            state,
            "divvy_manager_state",
        )?;
        Ok(manager.wait_state(state, timeout(timeout_ms)?)?)
    })
}

/// Returns the id of the worker.
///
/// Parameters: manager - the manager. out - receives the text; not NULL. errbuf, errlen - buffer that
/// receives the error text; NULL allowed.
/// Returns: OK; NOT_FOUND - the worker has no id: it has not claimed one yet, or lost it.
/// Ownership: the caller frees the text with divvy_text_free().
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_manager_worker_id(
    manager: divvy_manager,
    out: *mut divvy_text,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let id = manager_of(manager)?.worker_id();
        write_worker(id, out, "this worker has no id")
    })
}

/// Returns the id of the last known leader.
///
/// Parameters: manager - the manager. out - receives the worker's id; not NULL. errbuf, errlen -
/// buffer that receives the error text; NULL allowed.
/// Returns: OK; NOT_FOUND - no leader is known.
/// Ownership: the caller frees the text with divvy_text_free().
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_manager_leader(
    manager: divvy_manager,
    out: *mut divvy_text,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let leader = manager_of(manager)?.leader();
        write_worker(leader, out, "no leader is known")
    })
}

fn write_worker(worker: Option<WorkerId>, out: Out<divvy_text>, none: &'static str) -> Outcome {
    let worker = worker.ok_or_else(|| Failure::new(divvy_status::DIVVY_NOT_FOUND, none))?;
    out.write(text::hand_out(worker.as_str())?);
    Ok(())
}

/// Returns the current assignment of the worker; empty, with version 0, before the first one.
///
/// Parameters: manager - the manager. out - receives the handle; not NULL. errbuf, errlen - buffer
/// that receives the error text; NULL allowed.
/// Returns: OK.
/// Ownership: the caller frees the assignment with divvy_assignment_free(); it may outlive the
/// manager.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_manager_assignment(
    manager: divvy_manager,
    out: *mut divvy_assignment,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let record = AssignmentRecord::new(AssignmentChange {
            held: manager_of(manager)?.assignment(),
            added: Vec::new(),
            removed: Vec::new(),
        });
        out.write(assignment::hand_out(record)?);
        Ok(())
    })
}

/// If this worker is the leader, reads the partition source and publishes any change.
///
/// Parameters: manager - the manager. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS. version -
/// receives the version in force; NULL allowed. errbuf, errlen - buffer that receives the error text;
/// NULL allowed.
/// Returns: OK; NOT_LEADER - the detail names the leader; otherwise as divvy_calculator_refresh().
/// Thread: any, callbacks of subscribers included. Blocks for at most timeout_ms.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_manager_refresh_partitions(
    manager: divvy_manager,
    timeout_ms: i64,
    version: *mut i64,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let manager = manager_of(manager)?;
        ask(timeout_ms, version, |t| manager.refresh_partitions(t))
    })
}

/// Confirms the partition list as it is now, although it lost more than the setting max_list_shrink
/// allows, if this worker is the leader.
///
/// Parameters: manager - the manager. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS. version -
/// receives the version in force; NULL allowed. errbuf, errlen - buffer that receives the error text;
/// NULL allowed.
/// Returns: OK; NOT_LEADER - the detail names the leader; otherwise as divvy_calculator_refresh().
/// Thread: any, callbacks of subscribers included. Blocks for at most timeout_ms.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_manager_confirm_partitions(
    manager: divvy_manager,
    timeout_ms: i64,
    version: *mut i64,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let manager = manager_of(manager)?;
        ask(timeout_ms, version, |t| manager.confirm_partitions(t))
    })
}

/// If this worker is the leader, publishes a new version at once.
///
/// Parameters: manager - the manager. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS. version -
/// receives the new version; NULL allowed. errbuf, errlen - buffer that receives the error text; NULL
/// allowed.
/// Returns: OK; NOT_LEADER - the detail names the leader; otherwise as
/// divvy_calculator_trigger_rebalance().
/// Thread: any, callbacks of subscribers included. Blocks for at most timeout_ms.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_manager_trigger_rebalance(
    manager: divvy_manager,
    timeout_ms: i64,
    version: *mut i64,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let manager = manager_of(manager)?;
        ask(timeout_ms, version, |t| manager.trigger_rebalance(t))
    })
}

/// Sets the whole partition list. Every worker that may lead needs it. May be called before the
/// start. The list survives stop and start.
///
/// Parameters: manager - the manager. partitions - the list, copied; an empty list releases
/// everything. errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; INVALID_ARGUMENT - a partition occurs twice, or the manager reads its partitions from
/// a callback; TIMED_OUT - the list is stored, but the calculator is too busy to process it: call
/// divvy_manager_refresh_partitions().
/// Thread: any. Blocks for at most 1 s while the calculator is overloaded.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_manager_set_partitions(
    manager: divvy_manager,
    partitions: divvy_partitions,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let manager = manager_of(manager)?;
        Ok(manager.set_partitions(partitions::content(partitions)?)?)
    })
}

/// Returns the status of a manager as JSON, for people and dashboards: state, id, leader, version,
/// term, number of partitions, degradations, and the status of its calculator while it leads. Later
/// releases may add members.
///
/// Parameters: manager - the manager. out - receives the text; not NULL. errbuf, errlen - buffer that
/// receives the error text; NULL allowed.
/// Returns: OK.
/// Ownership: the caller frees the text with divvy_text_free().
/// Thread: any. Blocks for at most 3 s when the manager's threads are busy; what they do not answer
/// in time is left empty.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_manager_status_json(
    manager: divvy_manager,
    out: *mut divvy_text,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let status = manager_of(manager)?.status();
        out.write(text::hand_out(status_json(&status))?);
        Ok(())
    })
}

/// Returns the metrics of a manager, its worker, its store and its calculators in the Prometheus text
/// format 0.0.4. Pages of several handles need different labels (setting "metrics_labels"). Counters
/// survive stop, start and changes of leadership.
///
/// Parameters: manager - the manager. out - receives the text; not NULL. errbuf, errlen - buffer that
/// receives the error text; NULL allowed.
/// Returns: OK.
/// Ownership: the caller frees the text with divvy_text_free().
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_manager_metrics(
    manager: divvy_manager,
    out: *mut divvy_text,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let page = manager_of(manager)?.metrics.render();
        out.write(text::hand_out(page)?);
        Ok(())
    })
}

fn status_json(status: &ManagerStatus) -> String {
    let name = |worker: &Option<WorkerId>| worker.as_ref().map(ToString::to_string);
    json!({
        "is_started": status.is_started,
        "failed": status.failed,
        "state": status.state.name(),
        "since_ms": millis(status.since),
        "worker_id": name(&status.worker_id),
        "is_id_certain": status.is_id_certain,
        "leader": name(&status.leader),
        "is_leader": status.is_leader,
        "version": status.version,
        "term": status.term,
        "partitions": status.partitions,
        "refused": status.refused,
        "malformed": status.malformed,
        "breaker": snapshot::breaker_json(&status.breaker),
        "last_failure": status.last_failure,
        "calculator": status.calculator.as_ref().map(snapshot::status_json),
    })
    .to_string()
}

/// Subscribes a callback. It receives the current state, id, leader and assignment (each if present)
/// first and then every event, in order, without gaps or duplicates, until the subscription is freed
/// or the manager stops. May be called before the start. Each call creates another subscription.
///
/// Parameters: manager - the manager. filter - a divvy_manager_event_filter. callback - receives the
/// events; not NULL. userdata - passed to the callback. destroy - frees userdata after the last
/// callback, before divvy_subscription_free() or divvy_manager_stop() return OK; NULL allowed. out -
/// receives the handle, before the first callback; not NULL. errbuf, errlen - buffer that receives
/// the error text; NULL allowed.
/// Returns: OK; INVALID_ARGUMENT - no such filter. On failure, userdata remains with the caller and
/// destroy is not called.
/// Ownership: the caller ends and frees the subscription with divvy_subscription_free().
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_manager_subscribe(
    manager: divvy_manager,
    filter: i32,
    callback: divvy_event_fn,
    userdata: *mut c_void,
    destroy: divvy_destroy_fn,
    out: *mut divvy_subscription,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let manager = manager_of(manager)?;
        let filter = known(
            ManagerEventFilter::from_number(filter),
            filter,
            "divvy_manager_event_filter",
        )?;
        let callback = Callback {
            call: callback,
            userdata,
            destroy,
        };
        events::subscribe(callback, String::new(), out, |callback| {
            manager.subscribe_queued(filter, callback)
        })
    })
}

/// Opens an event queue for divvy_events_poll(). It delivers the current state, id, leader and
/// assignment first and then every event, in order, without gaps or duplicates, until it is freed or
/// the manager stops. Each call creates another queue.
///
/// Parameters: manager - the manager. filter - a divvy_manager_event_filter. out - receives the
/// handle; not NULL. errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; INVALID_ARGUMENT - no such filter.
/// Ownership: the caller frees it with divvy_events_free(); it may outlive the manager.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_manager_events(
    manager: divvy_manager,
    filter: i32,
    out: *mut divvy_events,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let manager = manager_of(manager)?;
        let filter = known(
            ManagerEventFilter::from_number(filter),
            filter,
            "divvy_manager_event_filter",
        )?;
        out.write(events::open(manager.events(filter), String::new())?);
        Ok(())
    })
}

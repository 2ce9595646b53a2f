//! The manager's handle.

use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::assignment::{self, AssignmentRecord, divvy_assignment};
use super::calculator::{Measured, ask};
use super::config::{self, divvy_config};
use super::events::{
    self, Callback, divvy_event_fn, divvy_events, divvy_manager_event_filter, divvy_subscription,
};
use super::guard::{self, Detail, Failure, Outcome};
use super::names;
use super::partitions::{self, divvy_partitions};
use super::registry::Registry;
use super::snapshot;
use super::status::divvy_status;
use super::store::{self, divvy_store, timeout};
use super::text::{self, Out, divvy_text};
use super::userdata::divvy_destroy_fn;
use crate::machine::assignment::AssignmentChange;
use crate::machine::manager::Departure;
use crate::metrics::Prometheus;
use crate::runtime::{Manager, ManagerEventFilter, ManagerStatus};
use crate::threads::cancel;
use crate::types::WorkerId;

/// How long freeing a manager that is started waits for its threads.
const FREE_TIMEOUT: Duration = Duration::from_secs(10);

/// A manager: one worker's whole life. It joins the fleet under a stable id, sends heartbeats,
/// takes part in the election, is told what to work on, runs a calculator while it leads, and
/// leaves well.
///
/// All functions may be called from any thread, at the same time, unless they say otherwise.
/// A started manager has the threads "dv-member", "dv-notify" and "dv-io" (more of the latter while
/// the store answers slowly), and while it leads "dv-calc", "dv-watch" and "dv-publish". Callbacks of
/// subscribers run on "dv-notify", one at a time, with no lock held. Heartbeats depend on no callback
/// and on no poll.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct divvy_manager {
    /// Private. 0: none.
    pub id: u64,
}

/// How a worker goes.
#[repr(i32)]
#[derive(Clone, Copy)]
pub enum divvy_departure {
    /// For good: its partitions go to others at once.
    DIVVY_DEPARTURE_LEAVE = 1,
    /// To be back soon: whoever claims its id within heartbeat_ttl and emergency_grace_period finds
    /// its partitions where they were.
    DIVVY_DEPARTURE_RESTART = 2,
}

static MANAGERS: Registry<Measured<Manager>> = Registry::new(10);

fn manager_of(manager: divvy_manager) -> Outcome<Arc<Measured<Manager>>> {
    MANAGERS.get(manager.id)
}

fn departure_of(departure: i32) -> Outcome<Departure> {
    const LEAVE: i32 = divvy_departure::DIVVY_DEPARTURE_LEAVE as i32;
    const KEEP: i32 = divvy_departure::DIVVY_DEPARTURE_RESTART as i32;
    match departure {
        LEAVE => Ok(Departure::Leave),
        KEEP => Ok(Departure::Restart),
        _ => Err(no_such("departure", departure)),
    }
}

fn interest_of(filter: i32) -> Outcome<ManagerEventFilter> {
    use divvy_manager_event_filter::*;
    const ASSIGNMENT: i32 = DIVVY_MANAGER_FILTER_ASSIGNMENT as i32;
    const WORKER: i32 = DIVVY_MANAGER_FILTER_WORKER as i32;
    const CALCULATOR: i32 = DIVVY_MANAGER_FILTER_WORKER_AND_CALCULATOR as i32;
    match filter {
        ASSIGNMENT => Ok(ManagerEventFilter::Assignment),
        WORKER => Ok(ManagerEventFilter::Worker),
        CALCULATOR => Ok(ManagerEventFilter::WorkerAndCalculator),
        _ => Err(no_such("manager_interest", filter)),
    }
}

fn no_such(what: &str, number: i32) -> Failure {
    Failure::new(
        divvy_status::DIVVY_INVALID_ARGUMENT,
        format!("{number} is no divvy_{what}"),
    )
}

/// Makes a manager, not started yet.
///
/// Parameters: config - the configuration, copied; {0}: all defaults. All workers of a fleet should
/// have the same one. store - the store, shared; may be freed afterwards. out - where the handle
/// goes, not NULL. errbuf, errlen - see "Errors" above.
/// Returns: OK; INVALID_CONFIG - every broken rule is in the detail. A manager refuses what a
/// calculator used alone may have: windows and graces that do not fit together.
/// Ownership: the caller's, freed with divvy_manager_free().
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

/// Joins the fleet: sees to the buckets, claims an id, and returns once the first heartbeat is
/// stored. Election and assignment follow; see divvy_manager_wait_state(). What may pass is tried
/// again until the time-out. After a stop it may be called again. With the setting cache_file it
/// also returns, as soon as the store has failed once, with what the file holds: state degraded, the
/// id and the partitions of the former life, lifecycle "cached"; joining goes on meanwhile.
///
/// Parameters: manager - the manager. timeout_ms - the longest wait, 0 to DIVVY_TIMEOUT_MAX_MS.
/// errbuf, errlen - see "Errors" above.
/// Returns: OK; ALREADY_STARTED, also the second time; INVALID_ARGUMENT; NOT_RUNNING - stopped
/// meanwhile; CANCELLED; IDS_EXHAUSTED - all ids stayed taken; TIMED_OUT - the detail tells the last failure;
/// UNAUTHORIZED; UNSUPPORTED - a bucket has a time to live that cannot be worked with. After a
/// failure nothing is left behind and subscriptions stay.
/// Thread: any. Blocks for up to timeout_ms, and 1 s more for cleaning up after a failure.
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

/// Leaves the fleet, for good or to be back soon, and joins all threads. The calculator ends first,
/// then heartbeat and leadership are given up, the id last. Subscribers get what is in their
/// backlog, and then their end; nothing is held any more. After OK no callback of this manager runs
/// or will run. Stopping what is not started ends its subscriptions and returns OK, as a second
/// call does.
///
/// Parameters: manager - the manager. departure - a divvy_departure. timeout_ms - the longest wait,
/// 0 to DIVVY_TIMEOUT_MAX_MS; when three quarters of it have not sufficed to tell the store, the
/// rest is left to expire there. errbuf, errlen - see "Errors" above.
/// Returns: OK; INVALID_ARGUMENT; WOULD_DEADLOCK - called from a callback of this manager;
/// TIMED_OUT - the detail names the threads that are busy and with what: the handle stays valid,
/// call again; CANCELLED - likewise, and the worker goes on leaving by itself.
/// Thread: any. Blocks for up to timeout_ms.
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
        Ok(manager.stop(departure_of(departure)?, timeout(timeout_ms)?)?)
    })
}

/// Frees a manager; one that is started is stopped first, with DIVVY_DEPARTURE_LEAVE and a time-out
/// of 10 s. Calls of other threads that are under way end safely; calls after it return BAD_HANDLE.
///
/// Parameters: manager - the manager; {0} is allowed and does nothing. errbuf, errlen - see
/// "Errors" above.
/// Returns: OK; BAD_HANDLE, also the second time; WOULD_DEADLOCK and TIMED_OUT as
/// divvy_manager_stop(), and CANCELLED: nothing is freed, the handle stays valid.
/// Thread: any. Blocks for up to 10 s when it is started.
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

/// Tells whether a manager is started: not before divvy_manager_start() has succeeded, not once a
/// stop was asked for, not after a thread of it panicked.
///
/// Returns: 1 or 0; a status (below 0) for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_manager_is_started(manager: divvy_manager) -> i32 {
    guard::small_value(|| Ok(i32::from(manager_of(manager)?.is_started())))
}

/// Tells whether the worker leads.
///
/// Returns: 1 or 0; a status (below 0) for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_manager_is_leader(manager: divvy_manager) -> i32 {
    guard::small_value(|| MANAGERS.with(manager.id, |manager| i32::from(manager.is_leader())))
}

/// Tells what a manager is doing.
///
/// Returns: a divvy_manager_state; a status (below 0) for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_manager_get_state(manager: divvy_manager) -> i32 {
    guard::small_value(|| {
        let state = MANAGERS.with(manager.id, |manager| manager.state())?;
        Ok(names::manager_state_of(state) as i32)
    })
}

/// Waits until a manager is in a state. One that was passed through before the call, or too quickly
/// to be seen, does not count: subscribe to see every one.
///
/// Parameters: manager - the manager. state - a divvy_manager_state. timeout_ms - the longest wait,
/// 0 to DIVVY_TIMEOUT_MAX_MS. errbuf, errlen - see "Errors" above.
/// Returns: OK; INVALID_ARGUMENT; TIMED_OUT - the detail tells the state that it is in; CANCELLED.
/// Thread: any. Blocks for up to timeout_ms.
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
        let state = names::manager_state(state).ok_or_else(|| no_such("worker_state", state))?;
        if manager.wait_state(state, timeout(timeout_ms)?) {
            return Ok(());
        }
        let now = manager.state();
        if cancel::is_cancelled() {
            return Err(cancel::error(&format!("the state is {now}"))
                .with_operation("wait_state")
                .into());
        }
        Err(Failure::new(
            divvy_status::DIVVY_TIMED_OUT,
            format!("not {state} in time; the state is {now}"),
        ))
    })
}

/// Tells the id under which the worker is a member.
///
/// Parameters: manager - the manager. out - where the text goes, not NULL. errbuf, errlen - see
/// "Errors" above.
/// Returns: OK; NOT_FOUND - it has none: before it claimed one, and after it lost it.
/// Ownership: the text is the caller's, freed with divvy_text_free().
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
        tell_worker(id, out, "this worker has no id")
    })
}

/// Tells who leads, as far as is known.
///
/// Parameters: manager - the manager. out - where the worker's id goes, not NULL. errbuf, errlen -
/// see "Errors" above.
/// Returns: OK; NOT_FOUND - nobody is known to lead.
/// Ownership: the text is the caller's, freed with divvy_text_free().
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
        tell_worker(leader, out, "nobody is known to lead")
    })
}

fn tell_worker(worker: Option<WorkerId>, out: Out<divvy_text>, none: &'static str) -> Outcome {
    let worker = worker.ok_or_else(|| Failure::new(divvy_status::DIVVY_NOT_FOUND, none))?;
    out.write(text::hand_out(worker.as_str())?);
    Ok(())
}

/// Tells what the worker holds at this moment. Before the first assignment that is nothing, with
/// version 0.
///
/// Parameters: manager - the manager. out - where the handle goes, not NULL. errbuf, errlen - see
/// "Errors" above.
/// Returns: OK.
/// Ownership: the assignment is the caller's, freed with divvy_assignment_free(); it may outlive
/// the manager.
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

/// Has the partition source read and a change of it published, where this worker leads.
///
/// Parameters: manager - the manager. timeout_ms - the longest wait, 0 to DIVVY_TIMEOUT_MAX_MS.
/// version - where the version in force goes, NULL if not wanted. errbuf, errlen - see "Errors"
/// above.
/// Returns: OK; NOT_LEADER - the detail names who leads; otherwise as divvy_calculator_refresh().
/// Thread: any, callbacks of subscribers included. Blocks for up to timeout_ms.
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

/// Has a new version published at once, where this worker leads.
///
/// Parameters: manager - the manager. timeout_ms - the longest wait, 0 to DIVVY_TIMEOUT_MAX_MS.
/// version - where the new version goes, NULL if not wanted. errbuf, errlen - see "Errors" above.
/// Returns: OK; NOT_LEADER - the detail names who leads; otherwise as
/// divvy_calculator_trigger_rebalance().
/// Thread: any, callbacks of subscribers included. Blocks for up to timeout_ms.
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

/// Pushes the partitions: the whole list, which replaces the former one. Every worker that may lead
/// needs it; whoever leads publishes it. May be called before the start; the list is kept over stop
/// and start.
///
/// Parameters: manager - the manager. partitions - the list, copied; an empty one means that every
/// worker gets nothing. errbuf, errlen - see "Errors" above.
/// Returns: OK; INVALID_ARGUMENT - a partition is there twice, or the manager reads its partitions
/// from a callback; TIMED_OUT - the list is taken, but the calculator is too busy to be told: call
/// divvy_manager_refresh_partitions().
/// Thread: any. Blocks for up to 1 s when the calculator is flooded with events.
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

/// Tells everything about a manager at this moment, as JSON for people and dashboards: state, id,
/// leader, version, term, how many partitions it holds, what it suffers from, and the status of its
/// calculator while it leads. Members may be added in any release.
///
/// Parameters: manager - the manager. out - where the text goes, not NULL. errbuf, errlen - see
/// "Errors" above.
/// Returns: OK.
/// Ownership: the text is the caller's, freed with divvy_text_free().
/// Thread: any. Blocks for up to 3 s when the manager's threads are busy; what they do not tell in
/// time is left empty.
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

/// Tells a manager's metrics as Prometheus reads them, those of the worker, of its store and of its
/// calculators included: as divvy_calculator_metrics(). Each handle has metrics of its own, which is
/// why there is a function for each kind and none for the whole process: pages of several handles
/// are put together by the host, under labels that differ. Counters go on over stops and starts, and
/// over every leadership.
///
/// Parameters: manager - the manager. out - where the text goes, not NULL. errbuf, errlen - see
/// "Errors" above.
/// Returns: OK.
/// Ownership: the text is the caller's, freed with divvy_text_free().
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
        "since_ms": u64::try_from(status.since.as_millis()).unwrap_or(u64::MAX),
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

/// Has a callback called with how things are at once (the state, then the id, the leader and the
/// assignment, each where there is one), and then with every event, in order, none dropped and none
/// twice, until it is unsubscribed or the manager is stopped. May be called before the start;
/// callbacks begin with it. Each call makes another subscription.
///
/// Parameters: manager - the manager. filter - a divvy_manager_event_filter. callback - see
/// divvy_event_fn, not NULL. userdata - handed to it. destroy - frees userdata once no callback
/// runs or will run: before divvy_subscription_free() or divvy_manager_stop() return OK; NULL allowed.
/// out - where the handle goes, not NULL; written before the first callback. errbuf, errlen - see
/// "Errors" above.
/// Returns: OK; INVALID_ARGUMENT - no such filter. On a failure userdata stays the caller's and
/// destroy is not called.
/// Ownership: the subscription is the caller's, ended and freed with divvy_subscription_free().
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
        let filter = interest_of(filter)?;
        let callback = Callback {
            call: callback,
            userdata,
            destroy,
        };
        events::subscribe(callback, out, |callback| {
            manager.subscribe(filter, callback)
        })
    })
}

/// Opens a queue of events to be read with divvy_events_poll(): how things are at once, as with
/// divvy_manager_subscribe(), and then every event, in order, none dropped and none twice, until it
/// is freed or the manager is stopped. Each call makes another queue with all events.
///
/// Parameters: manager - the manager. filter - a divvy_manager_event_filter. out - where the handle
/// goes, not NULL. errbuf, errlen - see "Errors" above.
/// Returns: OK; INVALID_ARGUMENT - no such filter.
/// Ownership: the caller's, freed with divvy_events_free(); it may outlive the manager.
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
        let filter = interest_of(filter)?;
        out.write(events::open(manager.events(filter))?);
        Ok(())
    })
}

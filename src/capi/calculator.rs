//! The calculator's handle.

use std::ffi::{c_char, c_void};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::config::{self, divvy_config};
use super::events::{self, Callback, divvy_event_fn, divvy_events, divvy_subscription};
use super::guard::{self, Detail, Outcome};
use super::names;
use super::partitions::{self, divvy_partitions};
use super::registry::Registry;
use super::snapshot;
use super::status::divvy_status;
use super::store::{self, divvy_store, timeout};
use super::text::{self, Out, divvy_text};
use super::userdata::divvy_destroy_fn;
use crate::error::Result;
use crate::metrics::Prometheus;
use crate::runtime::Calculator;
use crate::types::{Partition, Version};

/// How long freeing a calculator that is started waits for its threads.
const FREE_TIMEOUT: Duration = Duration::from_secs(10);

/// A calculator: watches the workers of a fleet, decides when their partitions are to be divided
/// anew, and publishes the plan. For hosts that have their own election: start it where the host
/// leads, stop it where it no longer does.
///
/// All functions may be called from any thread, at the same time, unless they say otherwise.
/// A started calculator has four threads: "dv-calc", "dv-watch", "dv-publish" and "dv-notify".
/// Callbacks of subscribers run on "dv-notify", one at a time, with no lock held.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct divvy_calculator {
    /// Private. 0: none.
    pub id: u64,
}

/// A calculator or manager and what it records.
pub(super) struct Measured<T> {
    pub inner: T,
    pub metrics: Arc<Prometheus>,
}

impl<T> Deref for Measured<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

static CALCULATORS: Registry<Measured<Calculator>> = Registry::new(6);

fn calculator_of(calculator: divvy_calculator) -> Outcome<Arc<Measured<Calculator>>> {
    CALCULATORS.get(calculator.id)
}

/// Makes a calculator, not started yet.
///
/// Parameters: config - the configuration, copied; {0}: all defaults. store - the store, shared;
/// may be freed afterwards. out - where the handle goes, not NULL. errbuf, errlen - see "Errors"
/// above.
/// Returns: OK; INVALID_CONFIG - every broken rule is in the detail.
/// Ownership: the caller's, freed with divvy_calculator_free().
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_calculator_new(
    config: divvy_config,
    store: divvy_store,
    out: *mut divvy_calculator,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let store = store::store_of(store)?;
        let blueprint = config::blueprint(config)?;
        let settings = &blueprint.settings;
        let names = settings.metrics().clone();
        let metrics = Arc::new(Prometheus::builder().names(names).build()?);
        let builder = Calculator::builder(store)
            .config(settings.calculator().clone())
            .metrics(Arc::clone(&metrics));
        let builder = builder.strategy(blueprint.strategy());
        let inner = match blueprint.source {
            Some(source) => builder.source(source),
            None => builder,
        }
        .build()?;
        let id = CALCULATORS.insert(Arc::new(Measured { inner, metrics }))?;
        out.write(divvy_calculator { id });
        Ok(())
    })
}

/// Reaches the store, takes over from a former leader, learns what is stored and who is alive, and
/// goes to work. What may pass is retried until the time-out. After a stop it may be called again.
///
/// Parameters: calculator - the calculator. timeout_ms - the longest wait, 0 to
/// DIVVY_TIMEOUT_MAX_MS. errbuf, errlen - see "Errors" above.
/// Returns: OK; ALREADY_STARTED, also the second time; INVALID_ARGUMENT; NOT_RUNNING - stopped
/// meanwhile; CANCELLED; TIMED_OUT; UNAVAILABLE; UNAUTHORIZED; UNSUPPORTED - the assignment bucket has a
/// time to live; CONFLICT - another leader takes over at this moment; INVALID_DATA - a stored
/// number leaves no room above it. After a failure nothing is left behind and subscriptions stay,
/// unless a callback of the host hangs: then the detail says so, and a stop waits for it.
/// Thread: any. Blocks for up to timeout_ms, and 1 s more for cleaning up after a failure.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_calculator_start(
    calculator: divvy_calculator,
    timeout_ms: i64,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        Ok(calculator_of(calculator)?.start(timeout(timeout_ms)?)?)
    })
}

/// Stops: nothing is published any more, all threads are joined. Subscribers get what is in their
/// backlog, callbacks as far as half of the time allows, and then their end. After OK no callback
/// of this calculator runs or will run. Stopping what is not started ends its subscriptions and
/// returns OK, as a second call does.
///
/// Parameters: calculator - the calculator. timeout_ms - the longest wait, 0 to
/// DIVVY_TIMEOUT_MAX_MS. errbuf, errlen - see "Errors" above.
/// Returns: OK; INVALID_ARGUMENT; WOULD_DEADLOCK - called from a callback of this calculator;
/// TIMED_OUT - the detail names the threads that are busy and with what: no callback starts any
/// more, nothing new is published, the handle stays valid, call again; CANCELLED - likewise, except
/// that callbacks go on until the next call.
/// Thread: any. Blocks for up to timeout_ms.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_calculator_stop(
    calculator: divvy_calculator,
    timeout_ms: i64,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        Ok(calculator_of(calculator)?.stop(timeout(timeout_ms)?)?)
    })
}

/// Frees a calculator; one that is started is stopped first, with a time-out of 10 s. Calls of
/// other threads that are under way end safely; calls after it return BAD_HANDLE.
///
/// Parameters: calculator - the calculator; {0} is allowed and does nothing. errbuf, errlen - see
/// "Errors" above.
/// Returns: OK; BAD_HANDLE, also the second time; WOULD_DEADLOCK and TIMED_OUT as
/// divvy_calculator_stop(), and CANCELLED: nothing is freed, the handle stays valid.
/// Thread: any. Blocks for up to 10 s when it is started.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_calculator_free(
    calculator: divvy_calculator,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        if calculator.id == 0 {
            return Ok(());
        }
        calculator_of(calculator)?.stop(FREE_TIMEOUT)?;
        CALCULATORS.remove(calculator.id)?;
        Ok(())
    })
}

/// Tells whether a calculator is started and at work.
///
/// Returns: 1 or 0; a status (below 0) for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_calculator_is_started(calculator: divvy_calculator) -> i32 {
    guard::small_value(|| Ok(i32::from(calculator_of(calculator)?.is_started())))
}

/// Tells what a calculator is doing. DIVVY_CALCULATOR_IDLE when it is not started.
///
/// Returns: a divvy_calculator_state; a status (below 0) for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_calculator_get_state(calculator: divvy_calculator) -> i32 {
    guard::small_value(|| {
        let state = CALCULATORS.with(calculator.id, |calculator| calculator.state())?;
        Ok(names::state_of(state) as i32)
    })
}

/// Tells why a calculator is doing what it does.
///
/// Returns: a divvy_reason, DIVVY_REASON_NONE when it is idle; a status (below 0) for an invalid
/// handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_calculator_scaling_reason(calculator: divvy_calculator) -> i32 {
    guard::small_value(|| {
        let reason = CALCULATORS.with(calculator.id, |calculator| calculator.scaling_reason())?;
        Ok(names::reason_of(reason) as i32)
    })
}

/// Tells the version that was last published or adopted.
///
/// Returns: the version, 0 when there is none; a status (below 0) for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_calculator_current_version(calculator: divvy_calculator) -> i64 {
    guard::value(|| CALCULATORS.with(calculator.id, |calculator| calculator.current_version()))
}

/// Has a new version published, at once or right after the one that is under way, and waits for
/// it. Ignores cooldown and windows.
///
/// Parameters: calculator - the calculator. timeout_ms - the longest wait, 0 to
/// DIVVY_TIMEOUT_MAX_MS. version - where the new version goes, NULL if not wanted. errbuf,
/// errlen - see "Errors" above.
/// Returns: OK; INVALID_ARGUMENT; NOT_RUNNING; WOULD_DEADLOCK - called from a partition source or
/// a strategy; TIMED_OUT - it stays pending, the detail tells the last failure; CANCELLED - it stays
/// pending, too; NO_WORKERS;
/// FENCED; what the store reports where trying again would not help.
/// Thread: any, callbacks of subscribers included. Blocks for up to timeout_ms.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_calculator_trigger_rebalance(
    calculator: divvy_calculator,
    timeout_ms: i64,
    version: *mut i64,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let calculator = calculator_of(calculator)?;
        ask(timeout_ms, version, |t| calculator.trigger_rebalance(t))
    })
}

/// Has the partitions read and compared with the published plan, and waits for that. A change is
/// then pending.
///
/// Parameters: calculator - the calculator. timeout_ms - the longest wait, 0 to
/// DIVVY_TIMEOUT_MAX_MS. version - where the version in force goes, NULL if not wanted. errbuf,
/// errlen - see "Errors" above.
/// Returns: as divvy_calculator_trigger_rebalance(); SOURCE_FAILED.
/// Thread: any, callbacks of subscribers included. Blocks for up to timeout_ms.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_calculator_refresh(
    calculator: divvy_calculator,
    timeout_ms: i64,
    version: *mut i64,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let calculator = calculator_of(calculator)?;
        ask(timeout_ms, version, |t| calculator.refresh(t))
    })
}

/// Asks for a version, and writes it where it is wanted.
pub(super) fn ask(
    timeout_ms: i64,
    version: *mut i64,
    call: impl FnOnce(Duration) -> Result<Version>,
) -> Outcome {
    let answer = call(timeout(timeout_ms)?)?;
    if !version.is_null() {
        Out::new(version, "version")?.write(answer);
    }
    Ok(())
}

/// Pushes the partitions: the whole list, which replaces the former one. May be called before the
/// start; the list is kept over stop and start. Nothing is published before there is a list.
///
/// Parameters: calculator - the calculator. partitions - the list, copied; an empty one means that
/// every worker gets nothing. errbuf, errlen - see "Errors" above.
/// Returns: OK; INVALID_ARGUMENT - a partition is there twice, or the calculator reads its
/// partitions from a callback; TIMED_OUT - the list is taken, but the calculator is too busy to
/// be told: call divvy_calculator_refresh().
/// Thread: any. Blocks for up to 1 s when the calculator is flooded with events.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_calculator_set_partitions(
    calculator: divvy_calculator,
    partitions: divvy_partitions,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let calculator = calculator_of(calculator)?;
        let list: Vec<Partition> = partitions::content(partitions)?;
        Ok(calculator.set_partitions(list)?)
    })
}

/// Tells everything about a calculator at this moment, as JSON for people and dashboards: state,
/// reason, version, term, workers with what is left of their leases and how far they are
/// behind, what is pending, what it suffers from, counters. Members may be added in any release.
///
/// Parameters: calculator - the calculator. out - where the text goes, not NULL. errbuf, errlen -
/// see "Errors" above.
/// Returns: OK.
/// Ownership: the text is the caller's, freed with divvy_text_free().
/// Thread: any. Blocks for up to 2 s when the calculator's threads are busy; what they do not
/// tell in time is left empty.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_calculator_status_json(
    calculator: divvy_calculator,
    out: *mut divvy_text,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let status = calculator_of(calculator)?.status();
        out.write(text::hand_out(snapshot::status_json(&status).to_string())?);
        Ok(())
    })
}

/// Tells a calculator's metrics as Prometheus reads them: text format 0.0.4, every line ended, so that
/// a host's own metrics may follow on the same page. The settings "metrics_namespace" and
/// "metrics_labels" name them; two calculators of one process whose pages are put together need
/// labels that differ. Counters go on over stops and starts.
///
/// Parameters: calculator - the calculator. out - where the text goes, not NULL. errbuf, errlen -
/// see "Errors" above.
/// Returns: OK.
/// Ownership: the text is the caller's, freed with divvy_text_free().
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_calculator_metrics(
    calculator: divvy_calculator,
    out: *mut divvy_text,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let page = calculator_of(calculator)?.metrics.render();
        out.write(text::hand_out(page)?);
        Ok(())
    })
}

/// Has a callback called with the current state at once, and then with every event, in order,
/// none dropped and none twice, until it is unsubscribed or the calculator is stopped. May be
/// called before the start; callbacks begin with it. Each call makes another subscription.
///
/// Parameters: calculator - the calculator. filter - a divvy_event_filter. callback - see
/// divvy_event_fn, not NULL. userdata - handed to it. destroy - frees userdata once no callback
/// runs or will run: before divvy_subscription_free() or divvy_calculator_stop() return OK; NULL
/// allowed. out - where the handle goes, not NULL; written before the first callback. errbuf,
/// errlen - see "Errors" above.
/// Returns: OK; INVALID_ARGUMENT - no such filter. On a failure userdata stays the caller's and
/// destroy is not called.
/// Ownership: the subscription is the caller's, ended and freed with divvy_subscription_free().
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_calculator_subscribe(
    calculator: divvy_calculator,
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
        let calculator = calculator_of(calculator)?;
        let filter = events::interest_of(filter)?;
        let callback = Callback {
            call: callback,
            userdata,
            destroy,
        };
        events::subscribe(callback, out, |callback| {
            calculator.subscribe(filter, callback)
        })
    })
}

/// Opens a queue of events to be read with divvy_events_poll(): the current state at once, and
/// then every event, in order, none dropped and none twice, until it is freed or the calculator is
/// stopped. Each call makes another queue with all events.
///
/// Parameters: calculator - the calculator. filter - a divvy_event_filter. out - where the handle
/// goes, not NULL. errbuf, errlen - see "Errors" above.
/// Returns: OK; INVALID_ARGUMENT - no such filter.
/// Ownership: the caller's, freed with divvy_events_free(); it may outlive the calculator.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_calculator_events(
    calculator: divvy_calculator,
    filter: i32,
    out: *mut divvy_events,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let calculator = calculator_of(calculator)?;
        let filter = events::interest_of(filter)?;
        out.write(events::open(calculator.events(filter))?);
        Ok(())
    })
}

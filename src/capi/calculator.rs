//! The calculator's handle.

use std::ffi::{c_char, c_void};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::config::{self, divvy_config};
use super::events::{self, Callback, divvy_event_fn, divvy_events, divvy_subscription};
use super::guard::{self, Detail, Outcome, known};
use super::partitions::{self, divvy_partitions};
use super::registry::{HandleKind, Registry};
use super::snapshot;
use super::status::divvy_status;
use super::store::{self, divvy_store, timeout};
use super::text::{self, Out, divvy_text};
use super::userdata::divvy_destroy_fn;
use crate::error::Result;
use crate::metrics::Prometheus;
use crate::runtime::Calculator;
use crate::types::{Partition, Version};
use crate::vocabulary::{EventFilter, Reason};

/// How long freeing a calculator that is started waits for its threads.
const FREE_TIMEOUT: Duration = Duration::from_secs(10);

/// A calculator: watches the workers of a fleet, decides when to rebalance, and publishes plans. For
/// hosts with an election of their own: start it when the host leads, stop it when the host no longer
/// leads.
///
/// All functions may be called from any thread, at the same time, unless they say otherwise. A
/// started calculator has the threads "dv-calc", "dv-watch", "dv-publish", "dv-notify" and, with a
/// partition source, "dv-source".
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

static CALCULATORS: Registry<Measured<Calculator>> = Registry::new(HandleKind::Calculator);

fn calculator_of(calculator: divvy_calculator) -> Outcome<Arc<Measured<Calculator>>> {
    CALCULATORS.get(calculator.id)
}

/// Creates a calculator.
///
/// Parameters: config - the configuration, copied; {0}: defaults. store - the store, shared; may be
/// freed afterwards. out - receives the handle; not NULL. errbuf, errlen - buffer that receives the
/// error text; NULL allowed.
/// Returns: OK; INVALID_CONFIG - the detail lists every violation.
/// Ownership: the caller frees it with divvy_calculator_free().
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

/// Starts a calculator: connects to the store, takes over from a previous leader, reads the stored
/// plan and the live workers, and begins to publish. What may pass is retried until the timeout.
/// After a stop it may be called again.
///
/// Parameters: calculator - the calculator. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS.
/// errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; ALREADY_STARTED, also on a second call; INVALID_ARGUMENT; NOT_RUNNING - stopped in
/// the meantime; CANCELLED; TIMED_OUT; UNAVAILABLE; UNAUTHORIZED; UNSUPPORTED - the assignment bucket
/// has a TTL; CONFLICT - another leader takes over at the same time; INVALID_DATA - a stored number
/// is too large. After a failure nothing is left running and subscriptions remain, unless a callback
/// of the host does not return: then the detail says so, and stop waits for it.
/// Thread: any. Blocks for at most timeout_ms, plus 1 s for cleanup after a failure.
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

/// Stops a calculator: publishes nothing more and joins all threads. Subscribers receive the events
/// in their backlog (callbacks for at most half of the timeout) and then end. After OK, no callback
/// of this calculator runs. If it is not started, ends its subscriptions and returns OK; so does a
/// second call.
///
/// Parameters: calculator - the calculator. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS.
/// errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; INVALID_ARGUMENT; WOULD_DEADLOCK - called inside a callback of this calculator;
/// TIMED_OUT - the detail names the busy threads: no further callback starts, nothing more is
/// published, the handle stays valid, call again; CANCELLED - likewise, but callbacks continue until
/// the next call.
/// Thread: any. Blocks for at most timeout_ms.
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

/// Frees a calculator. A started calculator is stopped first, with a timeout of 10 s. Concurrent
/// calls in other threads end safely; later calls return BAD_HANDLE.
///
/// Parameters: calculator - the calculator; {0} is allowed and does nothing. errbuf, errlen - buffer
/// that receives the error text; NULL allowed.
/// Returns: OK; BAD_HANDLE, also on the second call; WOULD_DEADLOCK and TIMED_OUT as
/// divvy_calculator_stop(), and CANCELLED: nothing is freed, the handle stays valid.
/// Thread: any. Blocks for at most 10 s when it is started.
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

/// Returns whether a calculator is running.
///
/// Returns: 1 or 0; a status (below 0) for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_calculator_is_started(calculator: divvy_calculator) -> i32 {
    guard::small_value(|| Ok(i32::from(calculator_of(calculator)?.is_started())))
}

/// Returns the state of a calculator; DIVVY_CALCULATOR_IDLE if it is not started.
///
/// Returns: a divvy_calculator_state; a status (below 0) for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_calculator_get_state(calculator: divvy_calculator) -> i32 {
    guard::small_value(|| {
        let state = CALCULATORS.with(calculator.id, |calculator| calculator.state())?;
        Ok(state.number())
    })
}

/// Returns the reason of the current state of a calculator.
///
/// Returns: a divvy_reason, DIVVY_REASON_NONE when it is idle; a status (below 0) for an invalid
/// handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_calculator_scaling_reason(calculator: divvy_calculator) -> i32 {
    guard::small_value(|| {
        let reason = CALCULATORS.with(calculator.id, |calculator| calculator.scaling_reason())?;
        Ok(reason.map_or(0, Reason::number))
    })
}

/// Returns the version last published or adopted.
///
/// Returns: the version, 0 when there is none; a status (below 0) for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_calculator_current_version(calculator: divvy_calculator) -> i64 {
    guard::value(|| CALCULATORS.with(calculator.id, |calculator| calculator.current_version()))
}

/// Publishes a new version, at once or after a publication in progress, and waits for it. Ignores
/// cooldown and windows.
///
/// Parameters: calculator - the calculator. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS.
/// version - receives the new version; NULL allowed. errbuf, errlen - buffer that receives the error
/// text; NULL allowed.
/// Returns: OK; INVALID_ARGUMENT; NOT_RUNNING; WOULD_DEADLOCK - called from a partition source or a
/// strategy; TIMED_OUT - the rebalance stays pending, the detail contains the last failure;
/// CANCELLED - the rebalance stays pending; NO_WORKERS; FENCED; permanent errors of the store.
/// Thread: any, callbacks of subscribers included. Blocks for at most timeout_ms.
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

/// Reads the partition source, compares the list with the published plan, and waits for that. A
/// difference becomes pending work.
///
/// Parameters: calculator - the calculator. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS.
/// version - receives the version in force; NULL allowed. errbuf, errlen - buffer that receives the
/// error text; NULL allowed.
/// Returns: OK; INVALID_ARGUMENT; NOT_RUNNING; WOULD_DEADLOCK - called from a partition source or a
/// strategy; TIMED_OUT - the rebalance stays pending, the detail contains the last failure;
/// CANCELLED - the rebalance stays pending; NO_WORKERS; FENCED; permanent errors of the store;
/// SOURCE_FAILED.
/// Thread: any, callbacks of subscribers included. Blocks for at most timeout_ms.
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

/// Confirms the partition list as it is now, although it lost more than the setting max_list_shrink
/// allows: reads it again as divvy_calculator_refresh() does, and applies it. Counts once.
///
/// Parameters: calculator - the calculator. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS. version -
/// receives the version in force; NULL allowed. errbuf, errlen - buffer that receives the error text;
/// NULL allowed.
/// Returns: as divvy_calculator_refresh().
/// Thread: any, callbacks of subscribers included. Blocks for at most timeout_ms.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_calculator_confirm_partitions(
    calculator: divvy_calculator,
    timeout_ms: i64,
    version: *mut i64,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let calculator = calculator_of(calculator)?;
        ask(timeout_ms, version, |t| calculator.confirm_partitions(t))
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

/// Sets the whole partition list. May be called before the start. The list survives stop and start.
/// Nothing is published without a list.
///
/// Parameters: calculator - the calculator. partitions - the list, copied; an empty list releases
/// everything. errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; INVALID_ARGUMENT - a partition occurs twice, or the calculator reads its partitions
/// from a callback; TIMED_OUT - the list is stored, but the calculator is too busy to process it:
/// call divvy_calculator_refresh().
/// Thread: any. Blocks for at most 1 s while the calculator is overloaded.
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

/// Returns the status of a calculator as JSON, for people and dashboards: state, reason, version,
/// term, workers with the rest of their leases and their lag, pending work, degradations, counters.
/// Later releases may add members.
///
/// Parameters: calculator - the calculator. out - receives the text; not NULL. errbuf, errlen -
/// buffer that receives the error text; NULL allowed.
/// Returns: OK.
/// Ownership: the caller frees the text with divvy_text_free().
/// Thread: any. Blocks for at most 2 s when the calculator's threads are busy; what they do not
/// answer in time is left empty.
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

/// Returns the metrics of a calculator in the Prometheus text format 0.0.4. Every line is terminated,
/// so that metrics of the host may follow on the same page. The settings "metrics_namespace" and
/// "metrics_labels" set names and labels. Pages of several handles need different labels. Counters
/// survive stop and start.
///
/// Parameters: calculator - the calculator. out - receives the text; not NULL. errbuf, errlen -
/// buffer that receives the error text; NULL allowed.
/// Returns: OK.
/// Ownership: the caller frees the text with divvy_text_free().
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

/// Subscribes a callback. It receives the current state first and then every event, in order, without
/// gaps or duplicates, until the subscription is freed or the calculator stops. May be called before
/// the start. Each call creates another subscription.
///
/// Parameters: calculator - the calculator. filter - a divvy_event_filter. callback - receives the
/// events; not NULL. userdata - passed to the callback. destroy - frees userdata after the last
/// callback, before divvy_subscription_free() or divvy_calculator_stop() return OK; NULL allowed.
/// out - receives the handle, before the first callback; not NULL. errbuf, errlen - buffer that
/// receives the error text; NULL allowed.
/// Returns: OK; INVALID_ARGUMENT - no such filter. On failure, userdata remains with the caller and
/// destroy is not called.
/// Ownership: the caller ends and frees the subscription with divvy_subscription_free().
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
        let filter = known(
            EventFilter::from_number(filter),
            filter,
            "divvy_event_filter",
        )?;
        let callback = Callback {
            call: callback,
            userdata,
            destroy,
        };
        events::subscribe(callback, calculator.name().to_owned(), out, |callback| {
            calculator.subscribe_queued(filter, callback)
        })
    })
}

/// Opens an event queue for divvy_events_poll(). It delivers the current state first and then every
/// event, in order, without gaps or duplicates, until it is freed or the calculator stops. Each call
/// creates another queue.
///
/// Parameters: calculator - the calculator. filter - a divvy_event_filter. out - receives the handle;
/// not NULL. errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; INVALID_ARGUMENT - no such filter.
/// Ownership: the caller frees it with divvy_events_free(); it may outlive the calculator.
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
        let filter = known(
            EventFilter::from_number(filter),
            filter,
            "divvy_event_filter",
        )?;
        out.write(events::open(
            calculator.events(filter),
            calculator.name().to_owned(),
        )?);
        Ok(())
    })
}

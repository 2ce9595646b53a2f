//! Stores: the embedded one and NATS, and the few raw operations that hosts need.

use std::ffi::c_char;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::{self, divvy_config};
use super::guard::{self, Detail, Failure, Outcome, known};
use super::registry::{HandleKind, Registry};
use super::status::divvy_status;
use super::text::{self, DIVVY_BYTES_MAX, Out, divvy_text};
use crate::runtime::open_store;
use crate::store::{self, Bucket, BucketConfig, Expect, Refusal, Store, Write};
use crate::threads::Thread;
use crate::threads::cancel::{self, Cancel};
#[cfg(feature = "nats")]
use crate::vocabulary::StoreKind;

/// Maximum timeout of a call, in milliseconds: one year.
pub const DIVVY_TIMEOUT_MAX_MS: i64 = 31_536_000_000;

/// A key-value store that a fleet shares. It is closed when it and every calculator and manager
/// created with it have been freed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct divvy_store {
    /// Private. 0: none.
    pub id: u64,
}

static STORES: Registry<Arc<dyn Store>> = Registry::new(HandleKind::Store);

/// The store behind a handle.
pub(super) fn store_of(store: divvy_store) -> Outcome<Arc<dyn Store>> {
    STORES.with(store.id, |store| Arc::clone(store.as_ref()))
}

/// A timeout in milliseconds, checked.
pub(super) fn timeout(timeout_ms: i64) -> Outcome<Duration> {
    match u64::try_from(timeout_ms) {
        Ok(millis) if timeout_ms <= DIVVY_TIMEOUT_MAX_MS => Ok(Duration::from_millis(millis)),
        _ => Err(Failure::new(
            divvy_status::DIVVY_INVALID_ARGUMENT,
            format!("timeout_ms = {timeout_ms} is not from 0 to {DIVVY_TIMEOUT_MAX_MS}"),
        )),
    }
}

fn deadline(timeout_ms: i64) -> Outcome<Instant> {
    Ok(Instant::now() + timeout(timeout_ms)?)
}

/// Opens the store that the setting "store" names. "nats": connects to NATS, and reconnects until the
/// store is stopped or freed; reads the settings nats_* and *_bucket. With the setting cache_file it
/// waits at most half a second, returns OK even if no server can be reached, and continues to connect
/// in the background. "memory": creates an in-memory store, for tests, demos and fleets within one
/// process.
///
/// Parameters: config - the configuration; {0}: the defaults. timeout_ms - maximum wait, 0 to
/// DIVVY_TIMEOUT_MAX_MS. out - receives the handle; not NULL. errbuf, errlen - buffer that receives
/// the error text; NULL allowed.
/// Returns: OK; INVALID_ARGUMENT; INVALID_CONFIG - the detail lists every violation; UNAUTHORIZED;
/// UNSUPPORTED - a server without headers or TLS, or a library built without NATS; UNAVAILABLE or
/// TIMED_OUT - no server was reached in time; CANCELLED. After a failure nothing is left running.
/// Ownership: the caller frees it with divvy_store_free().
/// Thread: any. Blocks for at most timeout_ms. The store has threads "dv-nats*"; in memory one thread,
/// "dv-memory", while it is watched.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_store_open(
    config: divvy_config,
    timeout_ms: i64,
    out: *mut divvy_store,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let deadline = deadline(timeout_ms)?;
        let blueprint = config::blueprint(config)?;
        let settings = &blueprint.settings;
        let store = match blueprint.credentials {
            #[cfg(feature = "nats")]
            Some(credentials) if settings.store() == StoreKind::Nats => {
                credentials.connect(settings, deadline)?
            }
            _ => open_store(settings, deadline)?,
        };
        out.write(register(store)?);
        Ok(())
    })
}

fn register(store: Arc<dyn Store>) -> Outcome<divvy_store> {
    let id = STORES.insert(Arc::new(store))?;
    Ok(divvy_store { id })
}

/// Ends the threads and connections of a store, even while calculators or managers use it; their
/// calls then fail. A second call returns OK at once.
///
/// Parameters: store - the store. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS. errbuf,
/// errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; INVALID_ARGUMENT; TIMED_OUT - the detail names what is still busy; the handle stays
/// valid, call again; WOULD_DEADLOCK - called by the credentials callback of the store.
/// Thread: any. Blocks for at most timeout_ms.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_store_stop(
    store: divvy_store,
    timeout_ms: i64,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let store = store_of(store)?;
        Ok(store.stop(deadline(timeout_ms)?)?)
    })
}

/// Frees a store. Calculators and managers created with it keep it open; the last one closes it.
///
/// Parameters: store - the store; {0} is allowed and does nothing.
/// Returns: OK; BAD_HANDLE, also on the second call.
/// Thread: any. Blocks for a few seconds at most, when it closes a store that does not answer.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_store_free(store: divvy_store) -> divvy_status {
    guard::call(Detail::new(std::ptr::null_mut(), 0), || {
        if store.id != 0 {
            STORES.remove(store.id)?;
        }
        Ok(())
    })
}

/// Creates a bucket unless it exists. An existing bucket keeps its settings. Calculators and managers
/// do this for their buckets.
///
/// Parameters: store - the store. bucket - a divvy_bucket. ttl_ms - time to live of the values of a
/// new bucket, in milliseconds; 0: unlimited. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS.
/// errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; INVALID_ARGUMENT; NOT_RUNNING; TIMED_OUT; CANCELLED; UNAVAILABLE; UNAUTHORIZED;
/// UNSUPPORTED.
/// Thread: any. Blocks for at most timeout_ms.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_store_ensure(
    store: divvy_store,
    bucket: i32,
    ttl_ms: i64,
    timeout_ms: i64,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let store = store_of(store)?;
        let bucket = known(Bucket::from_number(bucket), bucket, "divvy_bucket")?;
        let deadline = deadline(timeout_ms)?;
        let ttl = Some(timeout(ttl_ms)?).filter(|ttl| !ttl.is_zero());
        on_own_thread(move || {
            store.ensure(bucket, BucketConfig { ttl }, deadline)?;
            Ok(())
        })
    })
}

/// Writes a value unconditionally. A worker without a manager sends a heartbeat by writing any value
/// to "heartbeat.<worker>" in the heartbeat bucket before the last one expires.
///
/// Parameters: store - the store. bucket - a divvy_bucket. key - letters, digits and - / _ = in parts
/// joined by dots, at most 512 bytes, not NULL. value, length - the bytes, NULL if length is 0; at
/// most DIVVY_BYTES_MAX and the limit of the store. timeout_ms - maximum wait, 0 to
/// DIVVY_TIMEOUT_MAX_MS. errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; INVALID_ARGUMENT; BAD_UTF8; TOO_LONG; NOT_RUNNING; TIMED_OUT - it may have been
/// written; CANCELLED - the message says whether it may have been written; UNAVAILABLE; UNAUTHORIZED;
/// TOO_LARGE; STORE_ERROR.
/// Thread: any. Blocks for at most timeout_ms.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_store_put(
    store: divvy_store,
    bucket: i32,
    key: *const c_char,
    value: *const c_char,
    length: usize,
    timeout_ms: i64,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        // SAFETY: `length` bytes by the header's rule.
        let value =
            unsafe { text::read_bytes(value.cast(), length, DIVVY_BYTES_MAX, "value") }?.to_vec();
        // SAFETY: a text by the header's rule.
        let key = unsafe { text::read(key, "key") }?;
        write(store, bucket, key, Some(value), timeout_ms)
    })
}

/// Deletes a value. A worker without a manager leaves by deleting its heartbeat.
///
/// Parameters: store - the store. bucket - a divvy_bucket. key - letters, digits and - / _ = in parts
/// joined by dots, at most 512 bytes, not NULL. value, length - the bytes, NULL if length is 0; at
/// most DIVVY_BYTES_MAX and the limit of the store. timeout_ms - maximum wait, 0 to
/// DIVVY_TIMEOUT_MAX_MS. errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK, also if there was no value; otherwise as divvy_store_put().
/// Thread: any. Blocks for at most timeout_ms.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_store_delete(
    store: divvy_store,
    bucket: i32,
    key: *const c_char,
    timeout_ms: i64,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        // SAFETY: a text by the header's rule.
        let key = unsafe { text::read(key, "key") }?;
        write(store, bucket, key, None, timeout_ms)
    })
}

/// Reads a value. An assignment is JSON under "assignment.<worker>" in the assignment bucket.
///
/// Parameters: store, bucket, key, timeout_ms - as divvy_store_put(). out - receives the value; not
/// NULL. errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; NOT_FOUND; INVALID_ARGUMENT; BAD_UTF8; TOO_LONG; NOT_RUNNING; TIMED_OUT; CANCELLED;
/// UNAVAILABLE; UNAUTHORIZED; STORE_ERROR.
/// Ownership: the caller frees the text with divvy_text_free(). The value is not necessarily UTF-8.
/// Thread: any. Blocks for at most timeout_ms.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_store_get(
    store: divvy_store,
    bucket: i32,
    key: *const c_char,
    timeout_ms: i64,
    out: *mut divvy_text,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let store = store_of(store)?;
        let bucket = known(Bucket::from_number(bucket), bucket, "divvy_bucket")?;
        // SAFETY: a text by the header's rule.
        let key = unsafe { text::read(key, "key") }?.to_owned();
        let deadline = deadline(timeout_ms)?;
        let entry = on_own_thread(move || Ok(store.read(bucket, &key, deadline)?))?;
        let Some(entry) = entry.filter(|entry| entry.is_live()) else {
            return Err(Failure::new(
                divvy_status::DIVVY_NOT_FOUND,
                "there is no value under this key",
            ));
        };
        out.write(text::hand_out(entry.value)?);
        Ok(())
    })
}

fn write(
    store: divvy_store,
    bucket: i32,
    key: &str,
    value: Option<Vec<u8>>,
    timeout_ms: i64,
) -> Outcome {
    let store = store_of(store)?;
    let bucket = known(Bucket::from_number(bucket), bucket, "divvy_bucket")?;
    let deadline = deadline(timeout_ms)?;
    let write = Write {
        key: key.to_owned(),
        value,
        expect: Expect::Any,
    };
    let mut outcomes = on_own_thread(move || Ok(store.write(bucket, &[write], deadline)))?;
    match outcomes.pop() {
        Some(store::Outcome::Done(_)) => Ok(()),
        Some(store::Outcome::Refused(Refusal::Unavailable(_))) if cancel::is_cancelled() => {
            Err(cancel::error("nothing was written").into())
        }
        Some(store::Outcome::Refused(refusal)) => Err(refusal.into_error().into()),
        Some(store::Outcome::Unknown(_)) | None if cancel::is_cancelled() => {
            Err(cancel::error("it may have been written").into())
        }
        Some(store::Outcome::Unknown(_)) | None => Err(Failure::new(
            divvy_status::DIVVY_TIMED_OUT,
            "no answer in time; it may have been written",
        )),
    }
}

/// Runs what may write to a socket on a thread that no signal reaches: a write to a closed TLS
/// connection raises SIGPIPE on the thread that makes it, and the host's threads must not get it.
/// What ends the calls of this thread ends it there.
fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    if cancel::is_cancelled() {
        return Err(cancel::error("the request was not sent").into());
    }
    let cancel = Cancel::of_this_thread();
    let (reply, answer) = crossbeam_channel::bounded(1);
    let thread = Thread::spawn("dv-call", move || {
        Cancel::use_on_this_thread(cancel.as_ref());
        let _ = reply.send(work());
    })?;
    let result = answer.recv();
    let ended =
        cancel::without_cancellation(|| thread.join(Instant::now() + Duration::from_secs(60)));
    match result {
        Ok(result) => result,
        Err(_) => Err(ended.err().map_or_else(
            || Failure::new(divvy_status::DIVVY_PANICKED, "thread dv-call ended"),
            Failure::from,
        )),
    }
}

//! Delivers the log of the library to a callback of the host, on its own thread.

use std::cell::Cell;
use std::convert::Infallible;
use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};
use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::{Mutex, RwLock};

use super::guard::{self, Detail, Failure, Outcome, prepare_process};
use super::log_record::{LogField, divvy_log_record, fields_of, with_record};
use super::status::divvy_status;
use super::text::Terminated;
use super::userdata::{UserData, divvy_destroy_fn};
use crate::threads::Thread;

/// Maximum number of records queued for the callback; more are dropped, counted and reported.
const BACKLOG_MAX: usize = 4_096;

/// How long taking the callback away waits for it to return.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// How much is logged.
#[repr(i32)]
#[derive(Clone, Copy)]
pub enum divvy_log_level {
    /// Nothing.
    DIVVY_LOG_OFF = 0,
    /// Failures that need attention.
    DIVVY_LOG_ERROR = 1,
    /// Unusual conditions.
    DIVVY_LOG_WARN = 2,
    /// Normal operation, a few lines per rebalance.
    DIVVY_LOG_INFO = 3,
    /// Details.
    DIVVY_LOG_DEBUG = 4,
    /// Everything.
    DIVVY_LOG_TRACE = 5,
}

/// Receives every log record.
///
/// Parameters: userdata - the value set together with the callback. level - DIVVY_LOG_ERROR to
/// DIVVY_LOG_TRACE. target - the part of the library, such as "divvy::calculator". message,
/// message_length - the text, NUL-terminated, and its bytes; both strings are valid until the
/// callback returns. record - read its fields (key=value) with divvy_log_field_count(), _name(),
/// _value() and _is_number(); valid until the callback returns.
/// Thread: "dv-log", one call at a time, in order, with no lock held. A slow callback loses records;
/// it delays nothing. Must not call divvy_log_set(), must not throw or call longjmp.
pub type divvy_log_fn = Option<
    unsafe extern "C" fn(
        userdata: *mut c_void,
        level: i32,
        target: *const c_char,
        message: *const c_char,
        message_length: usize,
        record: divvy_log_record,
    ),
>;

/// The log callback of the host, not NULL.
type LogCallback =
    unsafe extern "C" fn(*mut c_void, i32, *const c_char, *const c_char, usize, divvy_log_record);

struct Line {
    level: Level,
    target: String,
    message: String,
    fields: Vec<LogField>,
}

/// Where records go now.
struct Sink {
    lines: Sender<Line>,
    dropped: AtomicU64,
}

struct Running {
    /// Dropped to end the thread, after it delivered what waits. `None`: it was dropped.
    stop: Option<Sender<Infallible>>,
    thread: Thread,
    /// Whether the callback is not called again.
    is_closed: Arc<AtomicBool>,
}

struct ToHost;

static SINK: RwLock<Option<Arc<Sink>>> = RwLock::new(None);
static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

thread_local! {
    static IS_LOG_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Sets the log callback of the process. Until the first call, and with callback NULL, nothing is
/// logged. A second call replaces callback and level.
///
/// Parameters: max_level - a divvy_log_level; more verbose records are not produced. callback -
/// receives the records; NULL: none. userdata - passed to the callback. destroy - frees userdata when
/// the callback has been replaced and has returned; NULL allowed. errbuf, errlen - buffer that
/// receives the error text; NULL allowed.
/// Returns: OK; INVALID_ARGUMENT - no such level; WOULD_DEADLOCK - called from the callback;
/// UNSUPPORTED - the host is a Rust program with its own logger; TIMED_OUT - the previous callback
/// has not returned within 10 s, or another thread has been in this call for as long. The previous
/// callback is not called again. Its userdata is destroyed after it has returned; the next call waits
/// for that, and nothing is logged until then. On failure, userdata remains with the caller and
/// destroy is not called.
/// Thread: any. Blocks while the previous callback runs, at most 10 s. Records queued before the
/// replacement still reach the previous callback within that time.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_log_set(
    max_level: i32,
    callback: divvy_log_fn,
    userdata: *mut c_void,
    destroy: divvy_destroy_fn,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let filter = filter_of(max_level)?;
        if IS_LOG_THREAD.get() {
            return Err(Failure::new(
                divvy_status::DIVVY_WOULD_DEADLOCK,
                "called from the log's callback, which it would wait for",
            ));
        }
        prepare_process();
        install()?;
        let Some(mut running) = RUNNING.try_lock_for(END_TIMEOUT) else {
            return Err(Failure::new(
                divvy_status::DIVVY_TIMED_OUT,
                "another thread is replacing the log's callback",
            ));
        };
        *SINK.write() = None;
        if let Some(former) = running.as_mut() {
            former.stop = None;
            if let Err(error) = former.thread.join(Instant::now() + END_TIMEOUT) {
                // From here on the callback may run to its end but is not called again. The next
                // call of this function waits for the thread again.
                former.is_closed.store(true, Ordering::Release);
                return Err(error.into());
            }
            *running = None;
        }
        let Some(callback) = callback.filter(|_| filter != LevelFilter::Off) else {
            log::set_max_level(LevelFilter::Off);
            drop(UserData::new(userdata, destroy));
            return Ok(());
        };
        let (sender, lines) = bounded(BACKLOG_MAX);
        let (stop, stopped) = bounded(0);
        let sink = Arc::new(Sink {
            lines: sender,
            dropped: AtomicU64::new(0),
        });
        let their_sink = Arc::clone(&sink);
        let is_closed = Arc::<AtomicBool>::default();
        let their_is_closed = Arc::clone(&is_closed);
        let (hand_over, userdata_arrives) = bounded::<UserData>(1);
        let thread = Thread::spawn("dv-log", move || {
            IS_LOG_THREAD.set(true);
            if let Ok(userdata) = userdata_arrives.recv() {
                run(
                    &lines,
                    &stopped,
                    &their_sink,
                    &their_is_closed,
                    callback,
                    &userdata,
                );
            }
        })?;
        // Only now nothing can fail any more, and userdata is ours.
        let _ = hand_over.send(UserData::new(userdata, destroy));
        *running = Some(Running {
            stop: Some(stop),
            thread,
            is_closed,
        });
        *SINK.write() = Some(sink);
        log::set_max_level(filter);
        Ok(())
    })
}

fn filter_of(level: i32) -> Outcome<LevelFilter> {
    const LEVELS: [(divvy_log_level, LevelFilter); 6] = [
        (divvy_log_level::DIVVY_LOG_OFF, LevelFilter::Off),
        (divvy_log_level::DIVVY_LOG_ERROR, LevelFilter::Error),
        (divvy_log_level::DIVVY_LOG_WARN, LevelFilter::Warn),
        (divvy_log_level::DIVVY_LOG_INFO, LevelFilter::Info),
        (divvy_log_level::DIVVY_LOG_DEBUG, LevelFilter::Debug),
        (divvy_log_level::DIVVY_LOG_TRACE, LevelFilter::Trace),
    ];
    let found = LEVELS.iter().find(|(number, _)| *number as i32 == level);
    found.map(|(_, filter)| *filter).ok_or_else(|| {
        Failure::new(
            divvy_status::DIVVY_INVALID_ARGUMENT,
            format!("max_level = {level} is no divvy_log_level"),
        )
    })
}

/// Makes ours the process's logger, once.
fn install() -> Outcome {
    static IS_OURS: Mutex<bool> = Mutex::new(false);
    let mut is_ours = IS_OURS.lock();
    if !*is_ours {
        log::set_logger(&ToHost).map_err(|_| {
            Failure::new(
                divvy_status::DIVVY_UNSUPPORTED,
                "this process has a logger of its own, which gets divvy's records",
            )
        })?;
        *is_ours = true;
    }
    Ok(())
}

impl Log for ToHost {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // What the callback causes must not cause callbacks.
        if IS_LOG_THREAD.get() {
            return;
        }
        let Some(sink) = SINK.read().clone() else {
            return;
        };
        let line = Line {
            level: record.level(),
            target: record.target().to_owned(),
            message: record.args().to_string(),
            fields: fields_of(record.key_values()),
        };
        if let Err(TrySendError::Full(_)) = sink.lines.try_send(line) {
            sink.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// The main function of `dv-log`.
fn run(
    lines: &Receiver<Line>,
    stopped: &Receiver<Infallible>,
    sink: &Sink,
    is_closed: &AtomicBool,
    callback: LogCallback,
    userdata: &UserData,
) {
    let deliver = |line: Line| {
        if is_closed.load(Ordering::Acquire) {
            return;
        }
        let target = Terminated::new(line.target);
        let message = Terminated::new(line.message);
        let mut length = 0;
        let text = message.expose(&raw mut length);
        let target = target.expose(std::ptr::null_mut());
        let level = line.level as i32;
        with_record(line.fields, |record| {
            // SAFETY: the host gave this function to be called with this userdata; both texts live
            // until it returns.
            unsafe { callback(userdata.pointer(), level, target, text, length, record) };
        });
    };
    let deliver_dropped_count = || {
        let dropped = sink.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            deliver(Line {
                level: Level::Warn,
                target: "divvy::log".into(),
                message: format!("{dropped} records were dropped: the callback is too slow"),
                fields: Vec::new(),
            });
        }
    };
    loop {
        select! {
            recv(lines) -> line => match line {
                Ok(line) => {
                    deliver(line);
                    deliver_dropped_count();
                }
                Err(_) => return,
            },
            recv(stopped) -> _ => {
                lines.try_iter().for_each(deliver);
                deliver_dropped_count();
                return;
            }
        }
    }
}

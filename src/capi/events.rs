//! Events by callback, by poll and by descriptor.

use std::ffi::{c_char, c_int, c_void};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::callback;
use super::event::{self, HandedEvent, divvy_event};
use super::guard::{self, Detail, Failure, Outcome};
use super::registry::{HandleKind, Registry};
use super::status::divvy_status;
use super::store::timeout;
use super::text::{self, Out};
use super::userdata::{UserData, divvy_destroy_fn};
use crate::runtime::{EventRecord, Events, Notification, Polled, Queued, Readiness, Subscription};

/// A subscription with a callback.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct divvy_subscription {
    /// Private. 0: none.
    pub id: u64,
}

/// A queue of events.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct divvy_events {
    /// Private. 0: none.
    pub id: u64,
}

/// Receives every event.
///
/// Parameters: userdata - the value set together with the callback. event - valid until the callback
/// returns; must not be freed.
/// Thread: "dv-notify" of the calculator or manager, one call at a time for all its subscribers, in
/// order, with no lock held. A slow callback delays only other callbacks of the same handle. A
/// callback that falls subscriber_backlog events behind receives a last event of kind
/// DIVVY_EVENT_LAGGED. Every function of the library may be called, except that stop and free of the
/// same calculator or manager return WOULD_DEADLOCK. Must not throw or longjmp; an exception that
/// leaves the callback ends the process.
pub type divvy_event_fn = Option<unsafe extern "C" fn(userdata: *mut c_void, event: divvy_event)>;

/// A subscription, or `None` while it is being made. The lock is held then, but never while a
/// callback is waited for, so that the callback itself may take it.
type SubscriptionCell = Mutex<Option<Arc<Subscription>>>;

static SUBSCRIPTIONS: Registry<SubscriptionCell> = Registry::new(HandleKind::Subscription);
static QUEUES: Registry<EventQueue> = Registry::new(HandleKind::Events);

struct EventQueue {
    events: Box<dyn Queue>,
    /// Reports the events that no worker reports: the name of the calculator.
    name: String,
    ready: OnceLock<Arc<ReadyFd>>,
}

/// Events of any kind that are read.
trait Queue: Send + Sync {
    fn poll(&self, timeout: Option<Duration>, name: &str) -> Polled<HandedEvent>;
    fn wake(&self);
    fn set_readiness(&self, readiness: ReadinessSignal);
    fn close(&self);
}

impl<N: Notification> Queue for Events<N>
where
    for<'a> EventRecord: From<&'a N>,
{
    fn poll(&self, timeout: Option<Duration>, name: &str) -> Polled<HandedEvent> {
        self.poll_queued(timeout)
            .map(|queued| HandedEvent::new(&queued, name))
    }

    fn wake(&self) {
        self.wake();
    }

    fn set_readiness(&self, readiness: ReadinessSignal) {
        self.set_readiness(readiness);
    }

    fn close(&self) {
        self.close();
    }
}

/// A host's callback that is subscribed to events.
pub(super) struct Callback {
    pub call: divvy_event_fn,
    pub userdata: *mut c_void,
    pub destroy: divvy_destroy_fn,
}

/// Subscribes a callback of the host with what `subscribe` takes it in.
pub(super) fn subscribe<N: Notification>(
    callback: Callback,
    name: String,
    out: Out<divvy_subscription>,
    subscribe: impl FnOnce(Box<dyn FnMut(&Queued<N>) + Send>) -> Subscription,
) -> Outcome
where
    for<'a> EventRecord: From<&'a N>,
{
    let call = callback.call.ok_or_else(|| Failure::null("callback"))?;
    let cell = Arc::<SubscriptionCell>::default();
    let handle = divvy_subscription {
        id: SUBSCRIPTIONS.insert(Arc::clone(&cell))?,
    };
    let userdata = UserData::new(callback.userdata, callback.destroy);
    let mut slot = cell.lock();
    // Written before the first callback, which may use it: an unsubscribe waits for the slot.
    out.write(handle);
    *slot = Some(Arc::new(subscribe(Box::new(move |queued| {
        deliver(HandedEvent::new(queued, &name), call, &userdata);
    }))));
    Ok(())
}

pub(super) fn open<N: Notification>(events: Events<N>, name: String) -> Outcome<divvy_events>
where
    for<'a> EventRecord: From<&'a N>,
{
    let id = QUEUES.insert(Arc::new(EventQueue {
        events: Box::new(events),
        name,
        ready: OnceLock::new(),
    }))?;
    Ok(divvy_events { id })
}

/// Calls the host with one event.
fn deliver(
    event: HandedEvent,
    call: unsafe extern "C" fn(*mut c_void, divvy_event),
    userdata: &UserData,
) {
    let Ok(event) = event::hand_out(event) else {
        log::error!(target: "divvy::capi", "event dropped: all event handles are in use");
        return;
    };
    let ((), failure) = callback::call(|| {
        // SAFETY: the host gave this function to be called with this userdata.
        unsafe { call(userdata.pointer(), event) };
    });
    if let Some(failure) = failure {
        log_failure(&failure);
    }
    event::take_back(event);
}

fn log_failure(failure: &str) {
    log::error!(target: "divvy::capi", "event callback failed: {failure}");
}

/// Ends and frees a subscription. After OK the callback does not run and will not run, and its
/// userdata has been destroyed. Inside a callback of the same calculator or manager the call does not
/// wait for that callback: userdata is then destroyed after its return. Inside a callback of another
/// one it waits as everywhere else.
///
/// Parameters: subscription - the subscription; {0} is allowed and does nothing. timeout_ms - maximum
/// wait for a running callback, 0 to DIVVY_TIMEOUT_MAX_MS. errbuf, errlen - buffer that receives the
/// error text; NULL allowed.
/// Returns: OK; BAD_HANDLE, also on the second call; INVALID_ARGUMENT; TIMED_OUT - the callback is
/// still running. It will not be called again. The handle stays valid: call again. Two callbacks that
/// each unsubscribe the other one end in this way.
/// Thread: any, several at a time: each waits. Blocks for at most timeout_ms.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_subscription_free(
    subscription: divvy_subscription,
    timeout_ms: i64,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        if subscription.id == 0 {
            return Ok(());
        }
        let cell = SUBSCRIPTIONS.get(subscription.id)?;
        let timeout = timeout(timeout_ms)?;
        let made = cell.lock().clone();
        if let Some(made) = made {
            made.end(timeout)?;
        }
        // Fails when another thread, which waited with this one, was the first.
        let _ = SUBSCRIPTIONS.remove(subscription.id);
        Ok(())
    })
}

/// Returns the next event of a queue and waits for it if necessary.
///
/// Parameters: events - the queue. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS; -1: without
/// limit. out - receives the event; not NULL. errbuf, errlen - buffer that receives the error text;
/// NULL allowed.
/// Returns: OK; TIMED_OUT - no event in time; WOKEN - divvy_events_wake() was called; CLOSED - no
/// further event: all have been read, and the handle was stopped, freed or has failed, or this queue
/// lagged or was freed; INVALID_ARGUMENT.
/// Ownership: the event is the caller's, freed with divvy_event_free().
/// Thread: any; with several readers, each event goes to one of them. Blocks for at most timeout_ms.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_events_poll(
    events: divvy_events,
    timeout_ms: i64,
    out: *mut divvy_event,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let queue = QUEUES.get(events.id)?;
        let timeout: Option<Duration> = match timeout_ms {
            -1 => None,
            _ => Some(timeout(timeout_ms)?),
        };
        let none = |status, why| Err(Failure::new(status, why));
        match queue.events.poll(timeout, &queue.name) {
            Polled::Event(event) => {
                out.write(event::hand_out(event)?);
                Ok(())
            }
            Polled::TimedOut => none(divvy_status::DIVVY_TIMED_OUT, "no event came in time"),
            Polled::Woken => none(divvy_status::DIVVY_WOKEN, "woken"),
            Polled::Closed => none(divvy_status::DIVVY_CLOSED, "no event will come any more"),
        }
    })
}

/// Ends every blocked divvy_events_poll() of this queue with WOKEN; if none is blocked, the next call
/// that would block returns at once.
///
/// Parameters: events - the queue. errbuf, errlen - buffer that receives the error text; NULL
/// allowed.
/// Returns: OK.
/// Thread: any. Does not block. Not from a signal handler.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_events_wake(
    events: divvy_events,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        QUEUES.get(events.id)?.events.wake();
        Ok(())
    })
}

/// Returns a file descriptor for event loops. It is readable exactly while divvy_events_poll() with a
/// timeout of 0 would not return TIMED_OUT. Wait for it level-triggered, then poll with 0 until
/// TIMED_OUT. A second call returns the same descriptor.
///
/// Parameters: events - the queue. fd - receives the descriptor; not NULL. errbuf, errlen - buffer
/// that receives the error text; NULL allowed.
/// Returns: OK; UNAVAILABLE - no free descriptor; UNSUPPORTED - not on this platform.
/// Ownership: the library owns it and closes it with the queue. Do not read or close it. Remove it
/// from the event loop before divvy_events_free().
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_events_fd(
    events: divvy_events,
    fd: *mut c_int,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(fd, "fd")?;
        let queue = QUEUES.get(events.id)?;
        if queue.ready.get().is_none() {
            let ready = Arc::new(ReadyFd::new()?);
            // If two threads race, one wins and its descriptor is returned.
            if queue.ready.set(Arc::clone(&ready)).is_ok() {
                queue.events.set_readiness(ReadinessSignal(ready));
            }
        }
        let ready = queue.ready.get().ok_or_else(|| Failure::null("fd"))?;
        out.write(ready.number());
        Ok(())
    })
}

/// Reports that the host failed to process an event of a queue. The text is logged as that of a failed
/// event callback is, see divvy_callback_set_error().
///
/// Parameters: events - the queue. message - the text, UTF-8, NUL-terminated, not NULL; truncated to
/// 400 characters. errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; BAD_UTF8; TOO_LONG.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_events_report_error(
    events: divvy_events,
    message: *const c_char,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        // SAFETY: the caller's text, NUL-terminated as the manual demands.
        let message = unsafe { text::read(message, "message") }?;
        QUEUES.with(events.id, |_| ())?;
        log_failure(callback::shortened(message));
        Ok(())
    })
}

/// Frees a queue. Blocked polls of other threads return CLOSED.
///
/// Parameters: events - the queue; {0} is allowed and does nothing.
/// Returns: OK; BAD_HANDLE, also on the second call.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_events_free(events: divvy_events) -> divvy_status {
    guard::call(Detail::new(std::ptr::null_mut(), 0), || {
        if events.id != 0 {
            QUEUES.remove(events.id)?.events.close();
        }
        Ok(())
    })
}

struct ReadinessSignal(Arc<ReadyFd>);

impl Readiness for ReadinessSignal {
    fn set(&self, is_ready: bool) {
        self.0.set(is_ready);
    }
}

/// A descriptor that is readable while something is ready.
#[cfg(any(target_os = "linux", target_os = "android"))]
struct ReadyFd(std::os::fd::OwnedFd);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl ReadyFd {
    fn new() -> Outcome<Self> {
        use std::os::fd::FromRawFd;
        // SAFETY: no pointers are involved.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            let cause = std::io::Error::last_os_error();
            return Err(Failure::new(
                divvy_status::DIVVY_UNAVAILABLE,
                format!("the system gives no event descriptor: {cause}"),
            ));
        }
        // SAFETY: the descriptor was just created and has no other owner.
        Ok(Self(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) }))
    }

    fn number(&self) -> c_int {
        use std::os::fd::AsRawFd;
        self.0.as_raw_fd()
    }

    fn set(&self, is_ready: bool) {
        let mut count = 1_u64.to_ne_bytes();
        let fd = self.number();
        // SAFETY: eight bytes of this stack are read or written, as an eventfd demands. Neither
        // can fail: the count is 0 before the write and above 0 before the read.
        unsafe {
            if is_ready {
                libc::write(fd, count.as_ptr().cast(), count.len());
            } else {
                libc::read(fd, count.as_mut_ptr().cast(), count.len());
            }
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
struct ReadyFd;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl ReadyFd {
    fn new() -> Outcome<Self> {
        Err(Failure::new(
            divvy_status::DIVVY_UNSUPPORTED,
            "event descriptors exist on Linux only; poll with a timeout",
        ))
    }

    fn number(&self) -> c_int {
        -1
    }

    fn set(&self, _is_ready: bool) {}
}

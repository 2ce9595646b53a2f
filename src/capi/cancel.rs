//! Ending calls that wait.

use std::ffi::c_char;
use std::sync::Arc;

use super::guard::{self, Detail};
use super::registry::Registry;
use super::status::divvy_status;
use super::text::Out;
use crate::Cancel;

/// Ends calls that wait before their time-out: for a caller who learns only while it waits that
/// nobody wants the answer any more. One serves any number of calls and threads, until it is fired.
///
/// Ended with CANCELLED are start, stop, free, trigger_rebalance, refresh, refresh_partitions and
/// wait_state of calculators and managers, divvy_store_nats_connect(), and stop, ensure, put, delete
/// and get of stores; what else waits has a time-out or a wake of its own.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct divvy_cancel {
    /// Private. 0: none.
    pub id: u64,
}

static CANCELS: Registry<Cancel> = Registry::new(12);

/// Makes one that was not fired.
///
/// Parameters: out - where the handle goes, not NULL. errbuf, errlen - see "Errors" above.
/// Returns: OK.
/// Ownership: the caller's, freed with divvy_cancel_free().
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_cancel_new(
    out: *mut divvy_cancel,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let id = CANCELS.insert(Arc::new(Cancel::new()))?;
        out.write(divvy_cancel { id });
        Ok(())
    })
}

/// Says what ends the calls that this thread makes from now on; those of other threads it does not
/// concern. Inside a callback of the library it holds on the callback's thread: take it back before
/// the callback returns.
///
/// Parameters: cancel - what ends them, which may be fired already; {0}: nothing any more. errbuf,
/// errlen - see "Errors" above.
/// Returns: OK.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_cancel_use(
    cancel: divvy_cancel,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let cancel = match cancel.id {
            0 => None,
            id => Some(CANCELS.get(id)?),
        };
        Cancel::use_on_this_thread(cancel.as_deref());
        Ok(())
    })
}

/// Ends every call that waits now on a thread that uses it, and those that would wait later. A
/// second call does nothing.
///
/// Parameters: cancel - what to fire. errbuf, errlen - see "Errors" above.
/// Returns: OK.
/// Thread: any. Does not block. Not from a signal handler.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_cancel_fire(
    cancel: divvy_cancel,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        CANCELS.get(cancel.id)?.fire();
        Ok(())
    })
}

/// Frees one. One that was not fired ends nothing any more; threads that use it go on as if it were
/// never fired.
///
/// Parameters: cancel - what to free; {0} is allowed and does nothing.
/// Returns: OK; BAD_HANDLE, also the second time.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_cancel_free(cancel: divvy_cancel) -> divvy_status {
    guard::call(Detail::new(std::ptr::null_mut(), 0), || {
        if cancel.id != 0 {
            CANCELS.remove(cancel.id)?;
        }
        Ok(())
    })
}

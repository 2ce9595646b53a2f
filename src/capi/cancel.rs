//! Ending calls that wait.

use std::ffi::c_char;
use std::sync::Arc;

use super::guard::{self, Detail};
use super::registry::{HandleKind, Registry};
use super::status::divvy_status;
use super::text::Out;
use crate::Cancel;

/// A cancellation handle: ends blocking calls before their timeout. One handle serves any number of
/// calls and threads until it is fired.
///
/// The following calls return CANCELLED: start, stop, free, trigger_rebalance, refresh,
/// refresh_partitions and wait_state of calculators and managers, divvy_store_open(), and
/// stop, ensure, put, delete and get of stores. Other blocking calls have a timeout or a wake of
/// their own.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct divvy_cancel {
    /// Private. 0: none.
    pub id: u64,
}

static CANCELS: Registry<Cancel> = Registry::new(HandleKind::Cancel);

/// Creates a cancellation handle.
///
/// Parameters: out - receives the handle; not NULL. errbuf, errlen - buffer that receives the error
/// text; NULL allowed.
/// Returns: OK.
/// Ownership: the caller frees it with divvy_cancel_free().
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

/// Selects the cancellation handle for the later calls of this thread. Other threads are not
/// affected. Inside a callback it applies to the callback's thread: reset it with {0} before the
/// callback returns.
///
/// Parameters: cancel - the handle, fired or not; {0}: none. errbuf, errlen - buffer that receives
/// the error text; NULL allowed.
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

/// Ends every blocked call of the threads that use the handle, and their later blocking calls. A
/// second call does nothing.
///
/// Parameters: cancel - the handle. errbuf, errlen - buffer that receives the error text; NULL
/// allowed.
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

/// Frees a cancellation handle. Threads that still use it continue as if it had never been fired.
///
/// Parameters: cancel - the handle; {0} is allowed and does nothing.
/// Returns: OK; BAD_HANDLE, also on the second call.
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

//! An election of the host's.

use std::ffi::{CString, c_char, c_void};
use std::time::{Duration, Instant};

use super::callback;
use super::userdata::UserData;
use crate::error::{Code, Error, Result};
use crate::runtime::LeaderElection;
use crate::types::WorkerId;

/// Acquires or renews the leadership for a worker. Called repeatedly while the worker is a member:
/// three times within the last grant, or within the setting election_timeout.
///
/// Parameters: userdata - the value set together with the callback. worker - the worker's id, valid
/// until the callback returns. timeout_ms - time within which to return. lease_ms - receives how many
/// milliseconds from now this worker leads; preset to 0: another worker leads.
/// Returns: DIVVY_OK (0); anything else means that the leader is unknown: a leader continues until
/// shortly before its last grant ends.
/// Thread: "dv-io" of the manager; calls of several threads may overlap. May block. Must not call
/// divvy_manager_stop() or _free() of the same manager (they return WOULD_DEADLOCK), must not throw
/// or call longjmp.
pub type divvy_campaign_fn = Option<
    unsafe extern "C" fn(
        userdata: *mut c_void,
        worker: *const c_char,
        timeout_ms: i64,
        lease_ms: *mut i64,
    ) -> i32,
>;

/// Releases the leadership of a worker.
///
/// Parameters: userdata - the value set together with the callback. worker - the worker's id, valid
/// until the callback returns. timeout_ms - time within which to return.
/// Returns: DIVVY_OK (0); anything else is logged and not retried.
/// Thread: "dv-io" of the manager; calls of several threads may overlap. May block.
pub type divvy_resign_fn = Option<
    unsafe extern "C" fn(userdata: *mut c_void, worker: *const c_char, timeout_ms: i64) -> i32,
>;

/// An election behind C callbacks.
pub(super) struct HostElection {
    pub campaign: unsafe extern "C" fn(*mut c_void, *const c_char, i64, *mut i64) -> i32,
    pub resign: divvy_resign_fn,
    pub userdata: UserData,
}

impl LeaderElection for HostElection {
    fn campaign(&self, worker: &WorkerId, deadline: Instant) -> Result<Option<Duration>> {
        let worker = c_text(worker)?;
        let mut lease_ms = 0;
        let answered = callback::call_fallible(|| {
            // SAFETY: the host gave this function to be called with this userdata, from any thread.
            unsafe {
                (self.campaign)(
                    self.userdata.pointer(),
                    worker.as_ptr(),
                    callback::millis_until(deadline),
                    &raw mut lease_ms,
                )
            }
        });
        answered.map_err(failed)?;
        let lease_ms = u64::try_from(lease_ms).unwrap_or(0);
        Ok((lease_ms > 0).then(|| Duration::from_millis(lease_ms)))
    }

    fn resign(&self, worker: &WorkerId, deadline: Instant) -> Result<()> {
        let Some(resign) = self.resign else {
            return Ok(());
        };
        let worker = c_text(worker)?;
        let timeout_ms = callback::millis_until(deadline);
        // SAFETY: as above.
        callback::call_fallible(|| unsafe {
            resign(self.userdata.pointer(), worker.as_ptr(), timeout_ms)
        })
        .map_err(failed)
    }
}

fn c_text(worker: &WorkerId) -> Result<CString> {
    CString::new(worker.as_str())
        .map_err(|_| Error::new(Code::InvalidArgument, "the worker's id has a NUL"))
}

fn failed(why: String) -> Error {
    Error::new(Code::Unavailable, format!("host election failed: {why}"))
}

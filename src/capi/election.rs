//! An election of the host's.

use std::ffi::{CString, c_char, c_void};
use std::time::{Duration, Instant};

use super::partitions::host_status;
use super::status::divvy_status;
use super::userdata::UserData;
use crate::error::{Code, Error, Result};
use crate::runtime::LeaderElection;
use crate::types::WorkerId;

/// Takes the leadership for a worker, or prolongs it. Called again and again while the worker is a
/// member: three times within what was granted last, or within the setting election_timeout.
///
/// Parameters: userdata - as given with the callback. worker - the worker's id, valid until the
/// callback returns. timeout_ms - by when it should return. lease_ms - where it goes for how many
/// milliseconds from the call on this worker leads; preset to 0, which means that another one does.
/// Returns: DIVVY_OK (0); anything else means that it is not known: a leader leads on until what it
/// was granted last is nearly over.
/// Thread: "dv-io" of the manager; calls of several threads may overlap. May take time. Must not
/// call divvy_manager_stop() or _free() of the same manager (they return WOULD_DEADLOCK), must not
/// throw or longjmp.
pub type divvy_campaign_fn = Option<
    unsafe extern "C" fn(
        userdata: *mut c_void,
        worker: *const c_char,
        timeout_ms: i64,
        lease_ms: *mut i64,
    ) -> i32,
>;

/// Gives the leadership of a worker back.
///
/// Parameters: userdata, worker, timeout_ms - as divvy_campaign_fn.
/// Returns: DIVVY_OK (0); anything else is logged, and it is not asked again.
/// Thread: as divvy_campaign_fn.
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
        // SAFETY: the host gave this function to be called with this userdata, from any thread.
        let status = unsafe {
            (self.campaign)(
                self.userdata.pointer(),
                worker.as_ptr(),
                millis_until(deadline),
                &raw mut lease_ms,
            )
        };
        answered(status)?;
        let lease_ms = u64::try_from(lease_ms).unwrap_or(0);
        Ok((lease_ms > 0).then(|| Duration::from_millis(lease_ms)))
    }

    fn resign(&self, worker: &WorkerId, deadline: Instant) -> Result<()> {
        let Some(resign) = self.resign else {
            return Ok(());
        };
        let worker = c_text(worker)?;
        let timeout_ms = millis_until(deadline);
        // SAFETY: as above.
        let status = unsafe { resign(self.userdata.pointer(), worker.as_ptr(), timeout_ms) };
        answered(status)
    }
}

fn c_text(worker: &WorkerId) -> Result<CString> {
    CString::new(worker.as_str())
        .map_err(|_| Error::new(Code::InvalidArgument, "the worker's id has a NUL"))
}

fn millis_until(deadline: Instant) -> i64 {
    let left = deadline.saturating_duration_since(Instant::now());
    i64::try_from(left.as_millis()).unwrap_or(i64::MAX)
}

fn answered(status: i32) -> Result<()> {
    if status == divvy_status::DIVVY_OK as i32 {
        return Ok(());
    }
    Err(Error::new(Code::Unavailable, host_status(status)))
}

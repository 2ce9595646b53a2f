//! Partition lists: built by the host, pushed or asked for.

use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::callback;
use super::guard::{self, Detail, Failure, Outcome};
use super::registry::{HandleKind, Registry};
use super::status::divvy_status;
use super::text::{self, DIVVY_BYTES_MAX, Out};
use super::userdata::UserData;
use crate::error::{Code, Error, Result};
use crate::runtime::PartitionSource;
use crate::types::Partition;

/// Maximum number of keys of a partition.
pub const DIVVY_PARTITION_KEYS_MAX: usize = 64;

/// A list of partitions. Each partition has one or more keys, unique in the list, and a weight.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct divvy_partitions {
    /// Private. 0: none.
    pub id: u64,
}

/// Lists all partitions. Called with an empty list; fill it with divvy_partitions_add() or
/// divvy_partitions_add_json().
///
/// Parameters: userdata - the value set together with the callback. partitions - the list, valid
/// until the callback returns; must not be freed. timeout_ms - time within which to return
/// (the setting host_call_timeout); a longer call is reported until it returns.
/// Returns: DIVVY_OK (0); anything else is a failure: the last list remains in force and the call is
/// retried.
/// Thread: "dv-source", one call at a time for each calculator. May block: plans are
/// made of the last list meanwhile. Must not call divvy_calculator_stop(), _free(),
/// _trigger_rebalance() or _refresh() of the same calculator (they return WOULD_DEADLOCK), must not
/// throw or call longjmp.
pub type divvy_source_fn = Option<
    unsafe extern "C" fn(
        userdata: *mut c_void,
        partitions: divvy_partitions,
        timeout_ms: i64,
    ) -> i32,
>;

/// A partition source behind a C callback.
pub(super) struct HostSource {
    pub call: unsafe extern "C" fn(*mut c_void, divvy_partitions, i64) -> i32,
    pub userdata: UserData,
}

static LISTS: Registry<Mutex<Vec<Partition>>> = Registry::new(HandleKind::Partitions);

/// A copy of what a list holds.
pub(super) fn content(partitions: divvy_partitions) -> Outcome<Vec<Partition>> {
    let list = LISTS.get(partitions.id)?;
    let content = list.lock().clone();
    Ok(content)
}

impl PartitionSource for HostSource {
    fn list_partitions(&self, deadline: Instant) -> Result<Vec<Partition>> {
        let list = Arc::new(Mutex::new(Vec::new()));
        let failed = |why: String| {
            Error::new(
                Code::SourceFailed,
                format!("partition source failed: {why}"),
            )
        };
        let id = LISTS
            .insert(Arc::clone(&list))
            .map_err(|failure| failed(failure.message.into_owned()))?;
        let timeout_ms = callback::millis_until(deadline);
        let filled = callback::call_fallible(|| {
            // SAFETY: the host gave this function to be called with this userdata, from any thread.
            unsafe { (self.call)(self.userdata.pointer(), divvy_partitions { id }, timeout_ms) }
        });
        let _ = LISTS.remove(id); // gone already when the host freed it, against the rule
        filled.map_err(failed)?;
        Ok(std::mem::take(&mut list.lock()))
    }
}

/// Creates an empty list of partitions.
///
/// Parameters: out - receives the handle; not NULL. errbuf, errlen - buffer that receives the error
/// text; NULL allowed.
/// Returns: OK.
/// Ownership: the caller frees it with divvy_partitions_free().
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_partitions_new(
    out: *mut divvy_partitions,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let id = LISTS.insert(Arc::default())?;
        out.write(divvy_partitions { id });
        Ok(())
    })
}

/// Frees a list. Copies of it are not affected.
///
/// Parameters: partitions - the list; {0} is allowed and does nothing.
/// Returns: OK; BAD_HANDLE, also on the second call.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_partitions_free(partitions: divvy_partitions) -> divvy_status {
    guard::call(Detail::new(std::ptr::null_mut(), 0), || {
        if partitions.id != 0 {
            LISTS.remove(partitions.id)?;
        }
        Ok(())
    })
}

/// Appends a partition. Duplicates are detected when the list is used.
///
/// Parameters: partitions - the list. keys, key_count - the keys, in order, each not NULL; 1 to
/// DIVVY_PARTITION_KEYS_MAX. weight - its relative cost; 0 or less: the setting default_weight.
/// errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; INVALID_ARGUMENT - no key; BAD_UTF8; TOO_LONG.
/// Ownership: the keys are copied.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_partitions_add(
    partitions: divvy_partitions,
    keys: *const *const c_char,
    key_count: usize,
    weight: i64,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let list = LISTS.get(partitions.id)?;
        if keys.is_null() {
            return Err(Failure::null("keys"));
        }
        if key_count == 0 {
            return Err(Failure::new(
                divvy_status::DIVVY_INVALID_ARGUMENT,
                "a partition needs at least one key",
            ));
        }
        if key_count > DIVVY_PARTITION_KEYS_MAX {
            return Err(Failure::new(
                divvy_status::DIVVY_TOO_LONG,
                "a partition has at most 64 keys",
            ));
        }
        let mut texts = Vec::with_capacity(key_count);
        for index in 0..key_count {
            // SAFETY: `keys` has `key_count` elements by the header's rule, each a text.
            texts.push(unsafe { text::read(*keys.add(index), "a key") }?);
        }
        list.lock().push(Partition::new(texts, weight));
        Ok(())
    })
}

/// Appends every partition of a JSON list: [{"keys": ["tool001", "chamber1"], "weight": 100}, ...].
/// The weight is optional; other members are ignored.
///
/// Parameters: partitions - the list. json, length - the text, not NULL unless length is 0, and its
/// bytes, at most DIVVY_BYTES_MAX; no NUL is needed. errbuf, errlen - buffer that receives the error
/// text; NULL allowed.
/// Returns: OK; INVALID_ARGUMENT - not such a list, nothing is added; BAD_UTF8; TOO_LONG.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_partitions_add_json(
    partitions: divvy_partitions,
    json: *const c_char,
    length: usize,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let list = LISTS.get(partitions.id)?;
        // SAFETY: `length` bytes by the header's rule.
        let json = unsafe { text::read_counted(json, length, DIVVY_BYTES_MAX, "json") }?;
        let mut added: Vec<Partition> = serde_json::from_str(json).map_err(|error| {
            Failure::new(
                divvy_status::DIVVY_INVALID_ARGUMENT,
                format!("json is no list of partitions: {error}"),
            )
        })?;
        list.lock().append(&mut added);
        Ok(())
    })
}

/// Returns the number of partitions in a list.
///
/// Returns: the number; a status (below 0) for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_partitions_count(partitions: divvy_partitions) -> i64 {
    guard::value(|| {
        let list = LISTS.get(partitions.id)?;
        let count = list.lock().len();
        Ok(i64::try_from(count).unwrap_or(i64::MAX))
    })
}

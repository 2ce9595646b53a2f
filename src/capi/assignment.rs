//! What a worker holds, as C reads it.

use std::ffi::c_char;
use std::sync::{Arc, OnceLock};

use serde_json::json;

use super::guard::{self, Detail, Failure, Outcome};
use super::packed::Packed;
use super::registry::{HandleKind, Registry};
use super::status::divvy_status;
use super::text::{self, Terminated};
use crate::machine::assignment::AssignmentChange;
use crate::types::Partition;

/// The assignment of one worker: an immutable snapshot. It has three lists of partitions: owned, and,
/// for an assignment from an event, added and removed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct divvy_assignment {
    /// Private. 0: none.
    pub id: u64,
}

/// A list of partitions of an assignment.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum divvy_assignment_list {
    /// All owned partitions.
    DIVVY_LIST_OWNED = 1,
    /// Partitions added by the change; empty unless from an event.
    DIVVY_LIST_ADDED = 2,
    /// Partitions removed by the change; empty unless from an event.
    DIVVY_LIST_REMOVED = 3,
}

/// A change of an assignment as C reads it; created on demand.
pub(super) struct AssignmentRecord {
    change: AssignmentChange,
    lists: [OnceLock<Packed>; 3],
    lifecycle: Terminated,
    json: OnceLock<Terminated>,
}

static ASSIGNMENTS: Registry<AssignmentRecord> = Registry::new(HandleKind::Assignment);

impl AssignmentRecord {
    pub fn new(change: AssignmentChange) -> Arc<Self> {
        Arc::new(Self {
            lists: Default::default(),
            lifecycle: Terminated::new(change.held.lifecycle.as_str()),
            json: OnceLock::new(),
            change,
        })
    }

    fn list(&self, list: i32) -> Outcome<&Packed> {
        const HELD: i32 = divvy_assignment_list::DIVVY_LIST_OWNED as i32;
        const ADDED: i32 = divvy_assignment_list::DIVVY_LIST_ADDED as i32;
        const REMOVED: i32 = divvy_assignment_list::DIVVY_LIST_REMOVED as i32;
        let (place, partitions): (usize, &[Partition]) = match list {
            HELD => (0, &self.change.held.partitions),
            ADDED => (1, &self.change.added),
            REMOVED => (2, &self.change.removed),
            _ => {
                return Err(Failure::new(
                    divvy_status::DIVVY_INVALID_ARGUMENT,
                    format!("list = {list} is no divvy_assignment_list"),
                ));
            }
        };
        Ok(self.lists[place].get_or_init(|| Packed::new(partitions)))
    }

    fn json(&self) -> Terminated {
        let held = &self.change.held;
        let json = json!({
            "version": held.version,
            "term": held.term,
            "lifecycle": held.lifecycle,
            "partitions": *held.partitions,
            "added": self.change.added,
            "removed": self.change.removed,
        });
        Terminated::new(json.to_string())
    }
}

/// Hands an assignment out to C.
pub(super) fn hand_out(record: Arc<AssignmentRecord>) -> Outcome<divvy_assignment> {
    let id = ASSIGNMENTS.insert(record)?;
    Ok(divvy_assignment { id })
}

/// Returns the version of the plan that an assignment belongs to.
///
/// Parameters: assignment - the assignment.
/// Returns: the version, 0 before the first one; a status (below 0) for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_assignment_version(assignment: divvy_assignment) -> i64 {
    guard::value(|| ASSIGNMENTS.with(assignment.id, |record| record.change.held.version))
}

/// Returns the term in which an assignment was published.
///
/// Parameters: assignment - the assignment.
/// Returns: the term, 0 when a leader without terms (parti) wrote it; a status (below 0) for an
/// invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_assignment_term(assignment: divvy_assignment) -> i64 {
    guard::value(|| ASSIGNMENTS.with(assignment.id, |record| record.change.held.term))
}

/// Returns the reason of the plan as the leader wrote it, such as "planned_scale"; "cached" for an
/// assignment from the cache file that the store has not confirmed: other workers may own the
/// partitions too.
///
/// Parameters: assignment - the assignment. length - receives the length in bytes; NULL allowed.
/// Returns: the reason; an empty string before the first assignment and for an invalid handle. Never
/// NULL.
/// Ownership: valid until divvy_assignment_free().
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_assignment_lifecycle(
    assignment: divvy_assignment,
    length: *mut usize,
) -> *const c_char {
    borrow(assignment, length, |record| record.lifecycle.expose(length))
}

/// Returns an assignment as a JSON object: {"version": 42, "term": 3, "lifecycle": "planned_scale",
/// "partitions": [{"keys": ["tool001"], "weight": 100}, ...], "added": [...], "removed": [...]}.
/// Later releases may add members.
///
/// Parameters: assignment - the assignment. length - receives the length in bytes; NULL allowed.
/// Ownership: valid until divvy_assignment_free().
/// Thread: any. Does not block.
/// Since: 0.1.
/// Returns: the text, an empty one for an invalid handle. Never NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_assignment_json(
    assignment: divvy_assignment,
    length: *mut usize,
) -> *const c_char {
    borrow(assignment, length, |record| {
        record.json.get_or_init(|| record.json()).expose(length)
    })
}

fn borrow(
    assignment: divvy_assignment,
    length: *mut usize,
    look: impl FnOnce(&AssignmentRecord) -> *const c_char,
) -> *const c_char {
    let found = guard::or(None, || {
        ASSIGNMENTS.with(assignment.id, |record| Some(look(record)))
    });
    found.unwrap_or_else(|| text::empty(length))
}

/// Returns the number of partitions in a list.
///
/// Parameters: assignment - the assignment. list - a divvy_assignment_list.
/// Returns: the number; a status (below 0): INVALID_ARGUMENT - no such list; for an invalid handle.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_assignment_count(assignment: divvy_assignment, list: i32) -> i64 {
    guard::value(|| {
        let record = ASSIGNMENTS.get(assignment.id)?;
        Ok(i64::try_from(record.list(list)?.len()).unwrap_or(i64::MAX))
    })
}

/// Returns the number of keys of a partition.
///
/// Parameters: assignment - the assignment. list - a divvy_assignment_list. partition - its index
/// there.
/// Returns: the number, 0 for an index that is too large; a status (below 0) as
/// divvy_assignment_count().
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_assignment_key_count(
    assignment: divvy_assignment,
    list: i32,
    partition: usize,
) -> i64 {
    guard::value(|| {
        let record = ASSIGNMENTS.get(assignment.id)?;
        let count = record.list(list)?.keys(partition).map_or(0, <[_]>::len);
        Ok(i64::try_from(count).unwrap_or(i64::MAX))
    })
}

/// Returns a key of a partition.
///
/// Parameters: assignment - the assignment. list - a divvy_assignment_list. partition - its index
/// there. key - the key's index. length - receives the key's length in bytes; NULL allowed.
/// Returns: the key; NULL for an invalid handle, list or index.
/// Ownership: valid until divvy_assignment_free().
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_assignment_key(
    assignment: divvy_assignment,
    list: i32,
    partition: usize,
    key: usize,
    length: *mut usize,
) -> *const c_char {
    guard::or(std::ptr::null(), || {
        let record = ASSIGNMENTS.get(assignment.id)?;
        Ok(record.list(list)?.expose_key(partition, key, length))
    })
}

/// Returns the weight of a partition as assigned; 0 or less means the default weight.
///
/// Parameters: assignment - the assignment. list - a divvy_assignment_list. partition - its index
/// there.
/// Returns: the weight; 0 for an invalid handle, list or index.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_assignment_weight(
    assignment: divvy_assignment,
    list: i32,
    partition: usize,
) -> i64 {
    guard::or(0, || {
        let record = ASSIGNMENTS.get(assignment.id)?;
        Ok(record.list(list)?.weight(partition).unwrap_or(0))
    })
}

/// Frees an assignment.
///
/// Parameters: assignment - the assignment; {0} is allowed and does nothing.
/// Returns: OK; BAD_HANDLE, also on the second call.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_assignment_free(assignment: divvy_assignment) -> divvy_status {
    guard::call(Detail::new(std::ptr::null_mut(), 0), || {
        if assignment.id != 0 {
            ASSIGNMENTS.remove(assignment.id)?;
        }
        Ok(())
    })
}

//! A strategy of the host: what it is asked, and how it answers.

use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::Arc;

use super::callback;
use super::guard;
use super::packed::{Packed, Place};
use super::registry::{HandleKind, Registry};
use super::userdata::UserData;
use crate::error::{Code, Error, Result};
use crate::strategy::{PlanInput, Strategy, WorkerIndex};

/// The owner of a partition without an owner.
pub const DIVVY_NO_WORKER: u32 = u32::MAX;

/// Input of a strategy: at least one worker, sorted bytewise; partitions, sorted key by key; and the
/// current owner of each partition. Valid until the strategy's callback returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct divvy_plan_input {
    /// Private. 0: none.
    pub id: u64,
}

/// Computes a plan: writes the index of a worker for each partition. The same input must always give
/// the same plan.
///
/// Parameters: userdata - the value set together with the callback. input - workers and partitions.
/// owners - one element for each partition, all preset to DIVVY_NO_WORKER; each must be set to the
/// index of a worker. owner_count - their number.
/// Returns: DIVVY_OK (0); anything else is a failure: the last plan remains in force and the call is
/// retried, as it is when an owner is missing or does not exist.
/// Thread: "dv-publish", one call at a time for each calculator. May block. Must not call
/// divvy_calculator_stop(), _free(), _trigger_rebalance() or _refresh() of the same calculator (they
/// return WOULD_DEADLOCK), must not throw or call longjmp.
pub type divvy_strategy_fn = Option<
    unsafe extern "C" fn(
        userdata: *mut c_void,
        input: divvy_plan_input,
        owners: *mut u32,
        owner_count: usize,
    ) -> i32,
>;

/// A strategy behind a C callback.
pub(super) struct HostStrategy {
    pub name: String,
    pub call: unsafe extern "C" fn(*mut c_void, divvy_plan_input, *mut u32, usize) -> i32,
    pub userdata: UserData,
}

/// A copy of the input that C can read.
struct Question {
    partitions: Packed,
    workers: Vec<Place>,
    /// The owner of each partition.
    previous: Vec<u32>,
}

impl Question {
    fn new(input: &PlanInput<'_>) -> Self {
        let mut partitions = Packed::new(input.partitions);
        let workers = input.workers.iter();
        let workers = workers.map(|worker| partitions.keep(worker.as_str()));
        let previous = input.previous.iter();
        Self {
            workers: workers.collect(),
            previous: previous.map(|p| p.unwrap_or(DIVVY_NO_WORKER)).collect(),
            partitions,
        }
    }
}

static QUESTIONS: Registry<Question> = Registry::new(HandleKind::PlanInput);

impl Strategy for HostStrategy {
    fn name(&self) -> &str {
        &self.name
    }

    fn assign(&self, input: &PlanInput<'_>) -> Result<Vec<WorkerIndex>> {
        let failed =
            |why: String| Error::new(Code::StrategyFailed, format!("strategy failed: {why}"));
        let mut owners = vec![DIVVY_NO_WORKER; input.partitions.len()];
        let id = QUESTIONS
            .insert(Arc::new(Question::new(input)))
            .map_err(|failure| failed(failure.message.into_owned()))?;
        let answered = callback::call_fallible(|| {
            // SAFETY: the host gave this function to be called with this userdata, from any thread;
            // `owners` has as many elements as said.
            unsafe {
                (self.call)(
                    self.userdata.pointer(),
                    divvy_plan_input { id },
                    owners.as_mut_ptr(),
                    owners.len(),
                )
            }
        });
        let _ = QUESTIONS.remove(id);
        answered.map_err(failed)?;
        Ok(owners)
    }
}

/// Returns the number of workers.
///
/// Returns: the number; a status (below 0) for an invalid handle.
/// Thread: any, during the callback. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_plan_input_worker_count(input: divvy_plan_input) -> i64 {
    count(input, |question| question.workers.len())
}

/// Returns the number of partitions.
///
/// Returns: the number; a status (below 0) for an invalid handle.
/// Thread: any, during the callback. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_plan_input_partition_count(input: divvy_plan_input) -> i64 {
    count(input, |question| question.partitions.len())
}

/// Returns the number of keys of a partition.
///
/// Parameters: input - the input. partition - its index.
/// Returns: the number, 0 for an index that is too large; a status (below 0) for an invalid handle.
/// Thread: any, during the callback. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_plan_input_key_count(input: divvy_plan_input, partition: usize) -> i64 {
    count(input, |question| {
        question.partitions.keys(partition).map_or(0, <[_]>::len)
    })
}

fn count(input: divvy_plan_input, count: impl FnOnce(&Question) -> usize) -> i64 {
    guard::value(|| {
        let count = QUESTIONS.with(input.id, |question| count(question))?;
        Ok(i64::try_from(count).unwrap_or(i64::MAX))
    })
}

/// Returns the id of a worker.
///
/// Parameters: input - the input. worker - its index. length - receives the id's length in bytes;
/// NULL allowed.
/// Returns: the id; NULL for an invalid handle or an index that is too large.
/// Ownership: valid until the callback returns.
/// Thread: any, during the callback. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_plan_input_worker(
    input: divvy_plan_input,
    worker: usize,
    length: *mut usize,
) -> *const c_char {
    guard::or(ptr::null(), || {
        QUESTIONS.with(input.id, |question| {
            let place = question.workers.get(worker);
            place.map_or(ptr::null(), |place| {
                question.partitions.expose(place, length)
            })
        })
    })
}

/// Returns a key of a partition.
///
/// Parameters: input - the input. partition - its index. key - the key's index. length - receives the
/// key's length in bytes; NULL allowed.
/// Returns: the key; NULL for an invalid handle or an index that is too large.
/// Ownership: valid until the callback returns.
/// Thread: any, during the callback. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_plan_input_key(
    input: divvy_plan_input,
    partition: usize,
    key: usize,
    length: *mut usize,
) -> *const c_char {
    guard::or(ptr::null(), || {
        QUESTIONS.with(input.id, |question| {
            question.partitions.expose_key(partition, key, length)
        })
    })
}

/// Returns the weight of a partition as set by the host; 0 or less means the default weight.
///
/// Parameters: input - the input. partition - its index.
/// Returns: the weight; 0 for an invalid handle or an index that is too large.
/// Thread: any, during the callback. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_plan_input_weight(input: divvy_plan_input, partition: usize) -> i64 {
    guard::or(0, || {
        QUESTIONS.with(input.id, |question| {
            question.partitions.weight(partition).unwrap_or(0)
        })
    })
}

/// Returns the current owner of a partition.
///
/// Parameters: input - the input. partition - its index.
/// Returns: the worker's index; DIVVY_NO_WORKER if it has no live owner, and for an invalid handle or
/// an index that is too large.
/// Thread: any, during the callback. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_plan_input_previous(input: divvy_plan_input, partition: usize) -> u32 {
    guard::or(DIVVY_NO_WORKER, || {
        QUESTIONS.with(input.id, |question| {
            let previous = question.previous.get(partition);
            previous.copied().unwrap_or(DIVVY_NO_WORKER)
        })
    })
}

//! Handles: an index and a generation. What C hands in is looked up, never dereferenced.

use std::sync::Arc;

use parking_lot::RwLock;

use super::guard::{Failure, Outcome, prepare_process};
use super::status::divvy_status;

/// What a handle stands for. The numbers are part of the handles, and no two are equal.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum HandleKind {
    Text = 1,
    Config = 2,
    Partitions = 3,
    PlanInput = 4,
    Store = 5,
    Calculator = 6,
    Subscription = 7,
    Events = 8,
    Event = 9,
    Manager = 10,
    Assignment = 11,
    Cancel = 12,
    Setting = 13,
    Credentials = 14,
    LogRecord = 15,
}

/// The objects of one kind. A handle is `kind (8 bits) | generation (32) | index (24)`, never 0.
pub(super) struct Registry<T> {
    kind: HandleKind,
    slots: RwLock<Slots<T>>,
}

struct Slots<T> {
    list: Vec<Slot<T>>,
    free: Vec<u32>,
}

struct Slot<T> {
    generation: u32,
    value: Option<Arc<T>>,
}

const INDEX_BITS: u32 = 24;
const KIND_SHIFT: u32 = 56;

impl<T> Registry<T> {
    pub const fn new(kind: HandleKind) -> Self {
        Self {
            kind,
            slots: RwLock::new(Slots {
                list: Vec::new(),
                free: Vec::new(),
            }),
        }
    }

    /// Takes an object in and returns its handle.
    pub fn insert(&self, value: Arc<T>) -> Outcome<u64> {
        prepare_process();
        let mut slots = self.slots.write();
        if let Some(index) = slots.free.pop() {
            let slot = &mut slots.list[index as usize];
            slot.value = Some(value);
            return Ok(self.handle(index, slot.generation));
        }
        let index = u32::try_from(slots.list.len()).unwrap_or(u32::MAX);
        if index >> INDEX_BITS != 0 {
            return Err(Failure::new(
                divvy_status::DIVVY_TOO_LONG,
                "there are 2^24 handles of this kind: free some",
            ));
        }
        slots.list.push(Slot {
            generation: 0,
            value: Some(value),
        });
        Ok(self.handle(index, 0))
    }

    /// The object, kept alive for as long as the result is.
    pub fn get(&self, handle: u64) -> Outcome<Arc<T>> {
        self.with(handle, Arc::clone)
    }

    /// Reads the object without counting a reference. `look` must be short and must not call back or
    /// use this registry.
    pub fn with<R>(&self, handle: u64, look: impl FnOnce(&Arc<T>) -> R) -> Outcome<R> {
        let slots = self.slots.read();
        let found = self
            .index(handle)
            .and_then(|(index, generation)| {
                let slot = slots.list.get(index)?;
                (slot.generation == generation).then_some(slot)
            })
            .and_then(|slot| slot.value.as_ref());
        match found {
            Some(value) => Ok(look(value)),
            None => Err(self.unknown(handle)),
        }
    }

    /// Takes the object out; the handle is invalid from then on.
    pub fn remove(&self, handle: u64) -> Outcome<Arc<T>> {
        let mut slots = self.slots.write();
        let Some((index, generation)) = self.index(handle) else {
            return Err(self.unknown(handle));
        };
        let slot = slots
            .list
            .get_mut(index)
            .filter(|slot| slot.generation == generation);
        let Some(value) = slot.and_then(|slot| {
            let value = slot.value.take()?;
            slot.generation = slot.generation.wrapping_add(1);
            Some(value)
        }) else {
            return Err(self.unknown(handle));
        };
        // A slot whose generations are used up is never used again.
        if generation != u32::MAX {
            #[allow(clippy::cast_possible_truncation)] // an index has 24 bits
            slots.free.push(index as u32);
        }
        Ok(value)
    }

    fn handle(&self, index: u32, generation: u32) -> u64 {
        u64::from(self.kind as u8) << KIND_SHIFT
            | u64::from(generation) << INDEX_BITS
            | u64::from(index)
    }

    #[allow(clippy::cast_possible_truncation)] // shifted and masked first
    fn index(&self, handle: u64) -> Option<(usize, u32)> {
        (handle >> KIND_SHIFT == u64::from(self.kind as u8)).then_some((
            (handle & ((1 << INDEX_BITS) - 1)) as usize,
            (handle >> INDEX_BITS) as u32,
        ))
    }

    fn unknown(&self, handle: u64) -> Failure {
        if handle == 0 {
            return Failure::new(divvy_status::DIVVY_NULL_ARGUMENT, "the handle is {0}");
        }
        let why = if self.index(handle).is_some() {
            "the handle was freed or never made"
        } else {
            "the handle is of another kind, or none at all"
        };
        Failure::new(divvy_status::DIVVY_BAD_HANDLE, why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_handle_stays_invalid_after_its_slot_is_reused() {
        let registry = Registry::new(HandleKind::Partitions);
        let first = registry.insert(Arc::new("first")).unwrap();
        registry.remove(first).unwrap();
        let second = registry.insert(Arc::new("second")).unwrap();
        assert_ne!(first, second);
        for result in [registry.get(first), registry.remove(first)] {
            let failure = result.unwrap_err();
            assert_eq!(failure.status, divvy_status::DIVVY_BAD_HANDLE);
        }
        assert_eq!(*registry.get(second).unwrap(), "second");
    }

    #[test]
    fn invalid_handle_numbers_are_rejected() {
        let registry = Registry::new(HandleKind::Partitions);
        let handle = registry.insert(Arc::new(())).unwrap();
        let other = Registry::new(HandleKind::PlanInput)
            .insert(Arc::new(()))
            .unwrap();
        assert!(registry.get(handle).is_ok());
        for wrong in [
            1,
            u64::MAX,
            other,
            handle + 1,
            handle ^ (1 << 40),
            handle << 1,
        ] {
            let failure = registry.get(wrong).unwrap_err();
            assert_eq!(failure.status, divvy_status::DIVVY_BAD_HANDLE, "{wrong:x}");
        }
        let failure = registry.get(0).unwrap_err();
        assert_eq!(failure.status, divvy_status::DIVVY_NULL_ARGUMENT);
    }

    #[test]
    fn slot_is_retired_when_its_generations_are_exhausted() {
        let registry = Registry::new(HandleKind::Partitions);
        let handle = registry.insert(Arc::new(())).unwrap();
        registry.slots.write().list[0].generation = u32::MAX;
        let last = handle | u64::from(u32::MAX) << INDEX_BITS;
        registry.remove(last).unwrap();
        let next = registry.insert(Arc::new(())).unwrap();
        assert_eq!(next & 0xff_ffff, 1);
        assert!(registry.get(handle).is_err());
    }
}

//! Partitions as C reads them: all texts in one buffer, each with a NUL.

use std::ffi::c_char;

use super::text::expose_length;
use crate::types::Partition;

/// Where a text begins and ends.
pub(super) type Place = (usize, usize);

/// A list of partitions, and other texts that go with it.
#[derive(Default)]
pub(super) struct Packed {
    texts: Vec<u8>,
    /// The keys of all partitions, one after the other.
    keys: Vec<Place>,
    partitions: Vec<PackedPartition>,
}

struct PackedPartition {
    /// Its keys are `keys[first_key..end_key]`.
    first_key: usize,
    end_key: usize,
    weight: i64,
}

impl Packed {
    pub fn new(partitions: &[Partition]) -> Self {
        let mut packed = Self {
            texts: Vec::new(),
            keys: Vec::with_capacity(partitions.len()),
            partitions: Vec::with_capacity(partitions.len()),
        };
        for partition in partitions {
            let first_key = packed.keys.len();
            for key in &partition.keys {
                let place = packed.keep(key);
                packed.keys.push(place);
            }
            packed.partitions.push(PackedPartition {
                first_key,
                end_key: packed.keys.len(),
                weight: partition.weight,
            });
        }
        packed
    }

    /// Takes a text in.
    pub fn keep(&mut self, text: &str) -> Place {
        let start = self.texts.len();
        self.texts.extend_from_slice(text.as_bytes());
        self.texts.push(0);
        (start, self.texts.len() - 1)
    }

    pub fn len(&self) -> usize {
        self.partitions.len()
    }

    pub fn weight(&self, index: usize) -> Option<i64> {
        self.partitions.get(index).map(|p| p.weight)
    }

    pub fn keys(&self, index: usize) -> Option<&[Place]> {
        let partition = self.partitions.get(index)?;
        Some(&self.keys[partition.first_key..partition.end_key])
    }

    /// The pointer of a key, NULL where there is none.
    pub fn expose_key(&self, index: usize, key: usize, length: *mut usize) -> *const c_char {
        let place = self.keys(index).and_then(|keys| keys.get(key));
        place.map_or(std::ptr::null(), |place| self.expose(place, length))
    }

    /// The pointer of a text, with its length written to `length` unless that is NULL.
    pub fn expose(&self, &(start, end): &Place, length: *mut usize) -> *const c_char {
        // SAFETY: writable by the header's rule for every length pointer.
        unsafe { expose_length(length, end - start) };
        self.texts[start..].as_ptr().cast()
    }
}

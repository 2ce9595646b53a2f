//! Which terms and versions can be real, and how values that are ignored are named.
//!
//! Each term and each version takes at least one write of the assignment bucket, so the bucket's
//! last sequence limits what a fleet can have reached. A number above [`plausible_max`] is a
//! malformed value: a leader that absorbed it could soon count no further.

use std::fmt;

use crate::error::{Code, Error};
use crate::store::Bucket;
use crate::types::{Revision, truncated};
use crate::wire::{Applied, Assignment, Commit, Fence};

/// How far one write can raise a term or version: a leader raises it by one, a foreign writer by
/// more.
const NUMBERS_PER_WRITE: i64 = 1_024;

/// What former buckets of the same name can have left in the memory of workers, and room above it.
const PLAUSIBLE_BASE: i64 = 1 << 52;

/// Most bytes of a key or value that is ignored that are shown.
const SHOWN_MAX_BYTES: usize = 120;

/// Most values that are named of those that were found together.
pub const NAMED_MAX: usize = 16;

/// The lowest sequence of an assignment bucket that counts from its creation time, in milliseconds
/// since 1970 (2001-09-09). No other bucket gets there: it would take 10^12 writes.
const MILLISECONDS_FROM: Revision = 1_000_000_000_000;

/// Whether an assignment bucket with this last sequence counts from its creation time.
#[must_use]
pub fn counts_milliseconds(last_sequence: Revision) -> bool {
    last_sequence >= MILLISECONDS_FROM
}

/// The highest term or version that a bucket with this last sequence can have held, if no foreign
/// writer raised one by more than `NUMBERS_PER_WRITE` at once.
///
/// In a bucket whose sequence starts at its creation time, the result also exceeds everything that
/// former buckets of that name held.
#[must_use]
pub fn highest_possible(last_sequence: Revision) -> i64 {
    let base = match counts_milliseconds(last_sequence) {
        true => MILLISECONDS_FROM,
        false => 0,
    };
    let writes = i64::try_from(last_sequence - base).unwrap_or(i64::MAX);
    writes.saturating_mul(NUMBERS_PER_WRITE)
}

/// The highest term or version that counts as real: 2^52, and 1 024 for each write that the
/// assignment bucket has taken. No reader loses its place by a number up to this: there is room
/// for 2^62 more.
#[must_use]
pub fn plausible_max(last_sequence: Revision) -> i64 {
    PLAUSIBLE_BASE
        .saturating_add(highest_possible(last_sequence))
        .min(1 << 62)
}

/// A record that carries a term and a version.
pub trait Numbered {
    /// Both, 0 where it has none.
    fn numbers(&self) -> Applied;

    /// Checks both numbers.
    ///
    /// # Errors
    /// `InvalidData` for one above `max`.
    fn check_plausible(&self, max: i64) -> Result<(), Error> {
        let Applied { term, version } = self.numbers();
        for (name, number) in [("term", term), ("version", version)] {
            if number > max {
                return Err(Error::new(
                    Code::InvalidData,
                    format!("{name} {number} is implausible: this fleet cannot be above {max}"),
                ));
            }
        }
        Ok(())
    }
}

impl Numbered for Applied {
    fn numbers(&self) -> Applied {
        *self
    }
}

impl Numbered for Assignment {
    fn numbers(&self) -> Applied {
        Applied {
            term: self.term.unwrap_or(0),
            version: self.version,
        }
    }
}

impl Numbered for Fence {
    fn numbers(&self) -> Applied {
        Applied {
            // `class_b_until` is a term too, and every later fence copies it.
            term: self.term.max(self.class_b_until),
            version: self.version,
        }
    }
}

impl Numbered for Commit {
    fn numbers(&self) -> Applied {
        Applied {
            term: self.term,
            version: self.version,
        }
    }
}

/// A value in the store that was ignored. Its texts are shortened and have no control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MalformedValue {
    /// The bucket that it is in.
    pub bucket: Bucket,
    /// Its key.
    pub key: String,
    /// How it begins.
    pub value: String,
    /// What is wrong with it.
    pub why: String,
}

impl MalformedValue {
    /// Names the value under a key of a bucket.
    #[must_use]
    pub fn new(bucket: Bucket, key: &str, value: &[u8], why: &Error) -> Self {
        let shown =
            |text: &str| -> String { truncated(text, SHOWN_MAX_BYTES).escape_debug().collect() };
        Self {
            bucket,
            key: shown(key),
            value: shown(&String::from_utf8_lossy(value)),
            why: why.message().to_owned(),
        }
    }

    /// The value as an error, for a status that shows the last failure.
    #[must_use]
    pub fn error(&self) -> Error {
        Error::new(Code::InvalidData, self.to_string()).with_key(&self.key)
    }
}

impl fmt::Display for MalformedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "malformed value ignored: {} in the {} bucket: {}; value: {}; find its writer, then \
             correct or delete the key",
            self.key,
            self.bucket.role(),
            self.why,
            self.value
        )
    }
}

/// Values that were ignored.
#[derive(Clone, Debug, Default)]
pub struct MalformedValues {
    counts: [u32; Bucket::ALL.len()],
    /// At most [`NAMED_MAX`], one for each key.
    named: Vec<MalformedValue>,
}

impl MalformedValues {
    /// Counts one more.
    pub fn add(&mut self, value: MalformedValue) {
        let count = &mut self.counts[value.bucket as usize];
        *count = count.saturating_add(1);
        self.name(value);
    }

    fn name(&mut self, value: MalformedValue) {
        let is_same =
            |known: &MalformedValue| (known.bucket, &known.key) == (value.bucket, &value.key);
        match self.named.iter().position(is_same) {
            Some(place) => self.named[place] = value,
            None if self.named.len() < NAMED_MAX => self.named.push(value),
            None => {}
        }
    }

    /// That many values without names.
    #[cfg(test)]
    pub(crate) fn unnamed(bucket: Bucket, count: u32) -> Self {
        let mut values = Self::default();
        values.counts[bucket as usize] = count;
        values
    }

    /// How many were found in a bucket.
    #[must_use]
    pub fn count_in(&self, bucket: Bucket) -> u32 {
        self.counts[bucket as usize]
    }

    /// How many were found.
    #[must_use]
    pub fn count(&self) -> u32 {
        let counts = self.counts.iter();
        counts.fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// The values, or the first of them if there are many.
    #[must_use]
    pub fn named(&self) -> &[MalformedValue] {
        &self.named
    }

    /// Both together.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
        for value in other.named {
            self.name(value);
        }
        self
    }

    /// The one with more values.
    #[must_use]
    pub fn or_more(self, other: Self) -> Self {
        if other.count() > self.count() {
            other
        } else {
            self
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_near_the_limit_are_implausible_and_leave_room_in_every_bucket() {
        // A bucket of parti's, one that counts milliseconds, and one that never was.
        for last_sequence in [0, 200, 1_764_500_000_000, Revision::MAX] {
            let max = plausible_max(last_sequence);
            assert!(max <= 1 << 62, "{last_sequence}");
            assert!(highest_possible(last_sequence) <= max || last_sequence == Revision::MAX);
            for number in [i64::MAX, i64::MAX - 1, i64::MAX / 2 + 2] {
                for (term, version) in [(number, 1), (1, number)] {
                    let error = Applied { term, version }.check_plausible(max).unwrap_err();
                    assert_eq!(error.code(), Code::InvalidData);
                    assert!(error.message().contains(&number.to_string()), "{error}");
                }
            }
            let highest = Applied {
                term: max,
                version: max,
            };
            assert!(highest.check_plausible(max).is_ok());
        }
    }

    #[test]
    fn every_number_of_a_fence_must_be_plausible() {
        let max = plausible_max(500);
        let fence = |term, class_b_until, version| Fence {
            term,
            class_b_until,
            version,
            ..Fence::default()
        };
        assert!(fence(max, max, max).check_plausible(max).is_ok());
        for fence in [
            fence(i64::MAX, 1, 1),
            fence(1, i64::MAX, 1),
            fence(1, 1, i64::MAX),
        ] {
            let error = fence.check_plausible(max).unwrap_err();
            assert!(error.message().contains("implausible"), "{error}");
        }
    }

    /// A leader that absorbed the highest plausible number still writes plausible ones.
    #[test]
    fn numbers_counted_on_from_the_bound_stay_plausible() {
        let mut version = plausible_max(500);
        for write in 501..1_500 {
            version += 1;
            assert!(version <= plausible_max(write));
        }
    }

    #[test]
    fn ignored_value_is_named_with_bucket_key_and_value_on_one_line() {
        let why = Error::new(Code::InvalidData, "version 9 is implausible");
        let value = format!("{{\"version\":9,\n{}", "x".repeat(5_000));
        let value = MalformedValue::new(Bucket::Heartbeat, "heartbeat.w-1", value.as_bytes(), &why);
        let text = value.to_string();
        for part in [
            "heartbeat bucket",
            "heartbeat.w-1",
            "{\\\"version\\\":9,\\n",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(text.len() < 500 && !text.contains('\n'), "{text}");
    }

    #[test]
    fn values_found_together_are_counted_by_bucket_and_named_once_for_each_key() {
        let why = Error::new(Code::InvalidData, "junk");
        let found = |bucket, keys: std::ops::Range<usize>| {
            let mut values = MalformedValues::default();
            for key in keys.clone().chain(keys) {
                values.add(MalformedValue::new(bucket, &format!("k-{key}"), b"x", &why));
            }
            values
        };
        let values = found(Bucket::Heartbeat, 0..2).with(found(Bucket::Assignment, 0..100));
        assert_eq!(values.count_in(Bucket::Heartbeat), 4);
        assert_eq!(values.count_in(Bucket::Assignment), 200);
        assert_eq!(values.count(), 204);
        assert_eq!(values.named().len(), NAMED_MAX);
        assert_eq!(values.named()[2].key, "k-0");
    }
}

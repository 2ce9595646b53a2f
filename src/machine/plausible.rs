//! Which terms and versions can be real, and how values that are ignored are named.
//!
//! Each term and each version takes at least one write of the assignment bucket, so the bucket's
//! last sequence limits what a fleet can have reached. A number above [`plausible_max`] is a
//! malformed value: a leader that absorbed it could soon count no further.

use crate::error::{Code, Error};
use crate::store::Bucket;
use crate::types::{Revision, truncated};
use crate::wire::{Applied, Assignment, Commit, Fence};

/// How far one write can raise a term or version: a leader raises it by one, a foreign writer by
/// more.
const NUMBERS_PER_WRITE: i64 = 1_024;

/// What former buckets of the same name can have left in the memory of workers, and room above it.
const PLAUSIBLE_BASE: i64 = 1 << 52;

/// Most bytes of an ignored value that an error shows.
const SHOWN_MAX_BYTES: usize = 120;

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
            term: self.term,
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

/// Values that were ignored.
#[derive(Clone, Debug, Default)]
pub struct MalformedValues {
    /// How many.
    pub count: u32,
    /// Names the last one.
    pub last: Option<Error>,
}

impl MalformedValues {
    /// Counts one more.
    pub fn add(&mut self, error: Error) {
        self.count += 1;
        self.last = Some(error);
    }

    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            last: other.last.or(self.last),
        }
    }

    /// The one with more values.
    #[must_use]
    pub fn or_more(self, other: Self) -> Self {
        if other.count > self.count {
            other
        } else {
            self
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The error that names an ignored value: bucket, key, value and what is wrong with it.
#[must_use]
pub fn ignored(bucket: Bucket, key: &str, value: &[u8], why: &Error) -> Error {
    let text = String::from_utf8_lossy(value);
    let shown: String = truncated(&text, SHOWN_MAX_BYTES).escape_debug().collect();
    let key: String = truncated(key, SHOWN_MAX_BYTES).escape_debug().collect();
    let message = format!(
        "ignored a malformed value in the {} bucket: {}; value: {shown}; find its writer, then \
         correct or delete the key",
        bucket.role(),
        why.message()
    );
    Error::new(Code::InvalidData, message).with_key(key)
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
        let error = ignored(Bucket::Heartbeat, "heartbeat.w-1", value.as_bytes(), &why);
        let text = error.to_string();
        for part in [
            "heartbeat bucket",
            "heartbeat.w-1",
            "{\\\"version\\\":9,\\n",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(text.len() < 500 && !text.contains('\n'), "{text}");
    }
}

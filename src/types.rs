//! The words of the domain: one type per thing, used from store key to public API.

use std::borrow::Borrow;
use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};
pub use crate::vocabulary::{CalculatorState, ManagerState, Reason};

/// Version of an assignment: strictly increasing over the life of the assignment bucket.
pub type Version = i64;

/// The leader's fencing token: one above the highest term ever seen in the assignment bucket.
pub type Term = i64;

/// Revision of a stored value: the store's sequence number of the write. 0 means "no revision".
pub type Revision = u64;

/// The longest worker id, in bytes.
pub const WORKER_ID_MAX_BYTES: usize = 255;

/// Stable id of a fleet member, such as `worker-7`.
///
/// Ids are ordered bytewise. Cloning is cheap (a reference count).
///
/// ```
/// use divvy::WorkerId;
///
/// assert_eq!(WorkerId::new("worker-7").unwrap().as_str(), "worker-7");
/// assert!(WorkerId::new("worker 7").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(Arc<str>);

impl WorkerId {
    /// Checks and takes a worker id.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] unless the id is 1 to [`WORKER_ID_MAX_BYTES`] bytes of
    /// `[-/_=.A-Za-z0-9]` with no empty part between dots: what a key of a NATS bucket may hold.
    pub fn new(id: &str) -> Result<Self, Error> {
        match key_fault(id, WORKER_ID_MAX_BYTES) {
            None => Ok(Self(Arc::from(id))),
            Some(fault) => Err(Error::new(
                Code::InvalidArgument,
                format!(
                    "worker id {:?} {fault}; use 1 to {WORKER_ID_MAX_BYTES} of letters, digits and - / _ = .",
                    truncated(id, 60)
                ),
            )),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Says what is wrong with `text` as (part of) a store key, `None` when nothing is.
pub(crate) fn key_fault(text: &str, bytes_max: usize) -> Option<&'static str> {
    if text.is_empty() {
        return Some("is empty");
    }
    if text.len() > bytes_max {
        return Some("is too long");
    }
    if text.split('.').any(str::is_empty) {
        return Some("has an empty part between dots");
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-/_=.".contains(&b);
    if !text.bytes().all(allowed) {
        return Some("has a character that is not allowed");
    }
    None
}

/// The first `chars_max` characters of `text`, for messages about text of unknown length.
pub(crate) fn truncated(text: &str, chars_max: usize) -> &str {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

impl AsRef<str> for WorkerId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for WorkerId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A unit of work: ordered keys that name it, and a weight.
///
/// The derived order is the canonical one: key by key, bytewise, shorter first.
///
/// ```
/// use divvy::Partition;
///
/// let partition = Partition::new(["tool001", "chamber1"], 100);
/// assert_eq!(partition.subject(), "tool001.chamber1");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition {
    /// Keys that name the partition: at least one, unique in a fleet as a list.
    pub keys: Vec<String>,
    /// Relative cost of the partition; 0 or less means the strategy's default weight.
    #[serde(default)]
    pub weight: i64,
}

impl Partition {
    /// A partition of the given keys and weight.
    pub fn new<K: Into<String>>(keys: impl IntoIterator<Item = K>, weight: i64) -> Self {
        Self {
            keys: keys.into_iter().map(Into::into).collect(),
            weight,
        }
    }

    /// The keys joined by `.`, as in a NATS subject.
    #[must_use]
    pub fn subject(&self) -> String {
        self.keys.join(".")
    }

    /// The keys joined by `-`, for names and logs.
    #[must_use]
    pub fn id(&self) -> String {
        self.keys.join("-")
    }
}

/// A point in monotonic time: nanoseconds since an origin that only the clock knows.
///
/// Handed into the pure core; never compared across processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The clock's origin.
    pub const ZERO: Time = Time(0);
    /// Later than any time of a clock.
    pub const FAR_FUTURE: Time = Time(u64::MAX);

    /// The time `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The time `millis` milliseconds after the origin.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`, zero if that is later.
    #[must_use]
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Saturates: a sum beyond what the type holds is [`Time::FAR_FUTURE`].
    fn add(self, rhs: Duration) -> Time {
        let nanos = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;

    /// Saturates at the origin.
    fn sub(self, rhs: Duration) -> Time {
        let nanos = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_sub(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_worker_ids_are_rejected_with_rule() {
        for id in [
            "", " ", "a b", "a*", "a>", "a\0", "a\r\n", "é", ".", "a.", ".a", "a..b",
        ] {
            let error = WorkerId::new(id).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{id:?}");
            assert!(error.to_string().contains("worker id"), "{error}");
        }
        assert!(WorkerId::new(&"x".repeat(5_000)).is_err());
        assert!(WorkerId::new(&"x".repeat(WORKER_ID_MAX_BYTES)).is_ok());
        for id in ["worker-7", "host.example.com", "a/b_c=D"] {
            assert_eq!(WorkerId::new(id).unwrap().as_str(), id);
        }
    }

    #[test]
    fn canonical_order_is_key_by_key_bytewise_shorter_first() {
        let mut list = [
            Partition::new(["b"], 0),
            Partition::new(["a", "b"], 0),
            Partition::new(["a"], 0),
            Partition::new(["B"], 0),
        ];
        list.sort();
        let ids: Vec<_> = list.iter().map(Partition::id).collect();
        assert_eq!(ids, ["B", "a", "a-b", "b"]);
    }

    #[test]
    fn time_saturates_at_both_ends() {
        assert_eq!(Time::FAR_FUTURE + Duration::MAX, Time::FAR_FUTURE);
        assert_eq!(Time::ZERO - Duration::from_secs(1), Time::ZERO);
        assert_eq!(Time::ZERO.since(Time::from_millis(5)), Duration::ZERO);
    }
}

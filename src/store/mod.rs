//! The only door to the outside: a key-value store with revisions, conditions and watches.
//!
//! # The contract
//! Every store passes one conformance suite (`tests/support/conformance`); this is what it proves.
//!
//! * **Threads.** Every method may be called from any thread, at the same time. None of them
//!   calls back, and none holds a lock while it waits.
//! * **Deadlines.** Every method that can wait takes a deadline and returns by then (plus 50 ms),
//!   whatever the server does. A deadline in the past is allowed: nothing is sent, reads end as
//!   `TimedOut` and writes as [`Refusal::Unavailable`].
//! * **Cancelling.** <a id="cancelling"></a>Inside [`Cancel::run`](crate::Cancel::run) the
//!   stores of this crate end a call at once when that is fired: reads with `Cancelled`, writes as
//!   they do at a deadline. One that is fired before a call has nothing sent.
//! * **Stop comes first.** After [`Store::stop`] reads fail with `NotRunning` and writes are
//!   refused with [`Refusal::NotRunning`]; a call that was waiting ends at once.
//! * **Outcomes.** A write ends as [`Outcome::Done`], [`Outcome::Refused`] (certainly not applied)
//!   or [`Outcome::Unknown`] (may have been applied, or may yet be). Never is one guessed as
//!   another; who needs to know reads back.
//! * **Revisions.** Each bucket numbers its writes, deletes included, in one strictly increasing
//!   sequence that starts above 0. A key's revision is the number of its last write. A bucket
//!   that is deleted and created again has another incarnation. Its sequence may start at 1, or at
//!   its creation time (see [`Bucket::first_sequence`]).
//! * **Missing buckets.** A bucket that was never ensured, or was deleted, is `Unavailable` to reads
//!   and writes, and its watches are lost, until it is created.
//! * **Reads see writes.** `read` and `list` are answered by the leader of the bucket: they include
//!   every write that ended as done before they began.
//! * **Watches lose nothing silently.** A watch delivers the last state of every key and then every
//!   change, per key in order, or reports [`WatchEvent::Disconnected`] first. Of several changes of
//!   one key in quick succession, all but the last may be omitted.

mod health;
#[doc(hidden)]
pub mod layer;
pub mod memory;
#[cfg(feature = "nats")]
pub mod nats;

use std::fmt;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

pub use self::health::HealthEvents;
use crate::error::{Code, Error, Result};
use crate::types::Revision;
pub use crate::vocabulary::{Bucket, ManageBuckets};

impl Bucket {
    /// The bucket's name unless configured otherwise: parti's.
    #[must_use]
    pub fn default_name(self) -> &'static str {
        match self {
            Bucket::StableId => "parti-stableid",
            Bucket::Election => "parti-election",
            Bucket::Heartbeat => "parti-heartbeat",
            Bucket::Assignment => "parti-assignment",
        }
    }

    /// What the bucket is for, in one word.
    #[must_use]
    pub fn role(self) -> &'static str {
        match self {
            Bucket::StableId => "stable id",
            Bucket::Election => "election",
            Bucket::Heartbeat => "heartbeat",
            Bucket::Assignment => "assignment",
        }
    }

    /// The bucket's name in a fleet of that name: `divvy-<fleet>-…`, and parti's without a name.
    #[must_use]
    pub fn name_in(self, fleet: &str) -> String {
        let name = self.default_name();
        match (fleet, name.strip_prefix("parti-")) {
            ("", _) | (_, None) => name.to_owned(),
            (fleet, Some(kind)) => format!("divvy-{fleet}-{kind}"),
        }
    }

    /// The number of the first write of a bucket that is created now, `since_epoch` after
    /// 1970-01-01T00:00:00Z. The sequence of a successor starts above everything that a deleted
    /// bucket counted, so that no revision is used twice.
    ///
    /// The assignment bucket counts from milliseconds, so that versions, which derive from its
    /// sequence, stay below 2^53. The other buckets take more than one write per millisecond in a
    /// large fleet and count from microseconds.
    #[must_use]
    pub fn first_sequence(self, since_epoch: Duration) -> Revision {
        let time = match self {
            Bucket::Assignment => since_epoch.as_millis(),
            Bucket::StableId | Bucket::Election | Bucket::Heartbeat => since_epoch.as_micros(),
        };
        Revision::try_from(time).unwrap_or(1).max(1)
    }

    /// Whether a bucket with this revision counts from its creation time, rather than from 1: the
    /// revision is that of a bucket created in 2020 or later.
    #[must_use]
    pub fn counts_from_time(self, revision: Revision) -> bool {
        const YEAR_2020: Duration = Duration::from_secs(1_577_836_800);
        revision >= self.first_sequence(YEAR_2020)
    }
}

/// What a bucket is wanted to be. Used when the bucket does not exist yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketConfig {
    /// How long a value lives after its write; `None`: unlimited.
    pub ttl: Option<Duration>,
}

/// What a bucket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketStatus {
    /// The bucket's name in the store.
    pub name: String,
    /// How long a value lives after its write; `None`: unlimited.
    pub ttl: Option<Duration>,
    /// Past values kept per key; divvy wants 1.
    pub history: u64,
    /// Copies of the data; 1 on a single server.
    pub replicas: u32,
    /// Identity of the bucket: changes when it is deleted and re-created.
    pub incarnation: String,
    /// The number of the last write; 0 when there was none.
    pub last_sequence: Revision,
    /// Settings that deserve an operator's attention, one sentence each.
    pub warnings: Vec<String>,
}

/// How a key came to be as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A value was written.
    Put,
    /// A client deleted the key.
    Delete,
    /// The value outlived the bucket's TTL and the store left a marker that says so.
    Expired,
    /// A resynchronised watch found the key gone; the cause is unknown. The revision is the last
    /// one known.
    Gone,
}

/// The last state of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key, without the bucket's name. Not checked: whatever the store holds.
    pub key: String,
    /// The value; empty unless the operation is [`Operation::Put`]. Not checked.
    pub value: Vec<u8>,
    /// The number of the write that led here.
    pub revision: Revision,
    /// Whether the key holds a value.
    pub operation: Operation,
    /// Time since the write by the store's own clock, if the store reports one.
    pub age: Option<Duration>,
}

impl Entry {
    /// Whether the key holds a value.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.operation == Operation::Put
    }

    /// What other knowledge of the key must have reached to be as new as this: of a key that is gone
    /// without a trace, none has.
    pub(crate) fn as_new_as(&self) -> Revision {
        match self.operation {
            Operation::Gone => Revision::MAX,
            _ => self.revision,
        }
    }
}

/// The entries under a prefix at one moment, deleted keys that left a marker included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// One entry a key, in no particular order.
    pub entries: Vec<Entry>,
    /// Every write up to this number is reflected.
    pub last_sequence: Revision,
}

/// The condition of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No condition.
    Any,
    /// The key's own last revision, delete and expiry markers counted; 0: the key has none.
    Revision(Revision),
    /// The number of the bucket's last write, whatever its key.
    LastSequence(Revision),
}

/// One write of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key: `[-/_=.A-Za-z0-9]`, no empty part between dots, at most 512 bytes.
    pub key: String,
    /// The new value; `None` deletes the key, leaving a marker (`KV-Operation: DEL`).
    pub value: Option<Vec<u8>>,
    /// When the write may happen.
    pub expect: Expect,
}

/// Several writes that become visible together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Another key's last revision that the whole batch depends on. Not one of the keys written.
    pub fence: Option<(String, Revision)>,
    /// The writes: at least one, at most [`Capabilities::batch_max`], each key once. The first
    /// may carry no condition of its own when there is a fence. [`Expect::LastSequence`] is not
    /// allowed.
    pub writes: Vec<Write>,
}

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Applied, with this number. For a batch: the number of its last write; the writes of a
    /// batch are numbered without gaps.
    Done(Revision),
    /// Certainly not applied, and never will be.
    Refused(Refusal),
    /// Indeterminate: applied, not applied, or still to be applied.
    Unknown(String),
}

/// Why a write was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The condition does not hold.
    Conflict,
    /// The store is busy with a write of the same key or batch slot: try again.
    Busy,
    /// The value is over the store's limit.
    TooLarge {
        /// Bytes given.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The store cannot be reached, or has no leader; nothing was sent or nothing was stored.
    Unavailable(String),
    /// The store was stopped; nothing was sent.
    NotRunning,
    /// The credentials do not allow it.
    Unauthorized(String),
    /// The request itself is wrong (key, condition, batch) or the bucket cannot do it.
    Invalid(String),
    /// The store has no room: its disk, its memory, or a limit of the account or the bucket.
    Full(String),
    /// Another error of the store, by its number.
    Other {
        /// The store's error number.
        code: u64,
        /// The store's words.
        text: String,
    },
}

impl Refusal {
    /// The refusal as an error; the caller adds operation and key.
    #[must_use]
    pub fn into_error(self) -> Error {
        match self {
            Refusal::Conflict => Error::new(
                Code::Conflict,
                "revision mismatch: another client wrote the key",
            ),
            Refusal::Busy => Error::new(Code::Unavailable, "the store is busy; retry"),
            Refusal::TooLarge { size, limit } => Error::new(
                Code::TooLarge,
                format!("the value has {size} bytes, the limit is {limit}"),
            ),
            Refusal::Unavailable(why) => Error::new(Code::Unavailable, why),
            Refusal::NotRunning => Error::new(Code::NotRunning, "the store was stopped"),
            Refusal::Unauthorized(why) => Error::new(Code::Unauthorized, why),
            Refusal::Invalid(why) => Error::new(Code::InvalidArgument, why),
            Refusal::Full(why) => Error::new(Code::StoreError, why),
            Refusal::Other { code, text } => {
                Error::new(Code::StoreError, format!("{text} (error {code})"))
            }
        }
    }
}

/// What a watch delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// The state of a key: first each key that exists (keys with a delete marker may be left
    /// out), then every change. Per key, revisions rise within one life of the bucket.
    Change(Entry),
    /// Everything stored before the watch (or, after [`WatchEvent::Disconnected`], before the
    /// recovery) has been delivered; changes follow as they happen. Keys removed while the watch
    /// was lost were delivered as [`Operation::Gone`] or with their marker.
    Live,
    /// The watch is lost (gap, timeout, lost connection): changes may be missing until the next
    /// [`WatchEvent::Live`]. The watch recovers on its own.
    Disconnected(String),
}

/// A running watch. Dropping it ends it without blocking.
pub struct Watch {
    /// The channel of the events. Its length is limited to a few thousand changes or one listing:
    /// if the reader is too slow, the watch is lost and resynchronises. Closed only when the store
    /// is stopped.
    pub events: Receiver<WatchEvent>,
    cancel: Option<Box<dyn FnOnce() + Send>>,
}

impl Watch {
    /// A watch over `events` that calls `cancel`, which must not wait, when it is dropped.
    pub fn new(events: Receiver<WatchEvent>, cancel: impl FnOnce() + Send + 'static) -> Self {
        Self {
            events,
            cancel: Some(Box::new(cancel)),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(cancel) = self.cancel.take() {
            cancel();
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// Whether the store can be worked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Requests are being answered.
    Connected,
    /// They are not, for this reason.
    Degraded(String),
    /// The store was stopped.
    Closed,
}

impl Health {
    /// Why the store cannot be worked with; `None` when it can.
    #[must_use]
    pub fn fault(self) -> Option<String> {
        match self {
            Health::Connected => None,
            Health::Degraded(why) => Some(why),
            Health::Closed => Some("the store was stopped".into()),
        }
    }
}

/// What a store can do, as far as it has been proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Most writes in one atomic batch; 0: no batches.
    pub batch_max: usize,
    /// Most bytes in one value.
    pub value_max: usize,
    /// The store and its version, for people.
    pub description: String,
}

/// A key-value store with revisions, conditions and watches. See the module for the contract.
pub trait Store: Send + Sync {
    /// Identity of the fleet's buckets, as far as known without a request. A worker compares it
    /// with its cache. Empty: unknown.
    fn identity(&self) -> String;

    /// The name of the fleet that the store is configured for. Empty: none.
    fn fleet(&self) -> String {
        String::new()
    }

    /// Returns the number of hand-over claims of parti v2 ([`PARTI_HANDOFF`](crate::wire::PARTI_HANDOFF)) on the same server; 0
    /// without that bucket, and for stores without one.
    ///
    /// # Errors
    /// `Unavailable`, `TimedOut`, `Unauthorized`.
    fn hand_over_claims(&self, deadline: Instant) -> Result<u64> {
        let _ = deadline;
        Ok(0)
    }

    /// Creates a bucket unless it exists and returns its status. An existing bucket is left
    /// unchanged.
    ///
    /// # Errors
    /// `Unavailable`, `TimedOut`, `Unauthorized`, `Unsupported`.
    fn ensure(
        &self,
        bucket: Bucket,
        config: BucketConfig,
        deadline: Instant,
    ) -> Result<BucketStatus>;

    /// What the store can do for writes to `bucket`.
    ///
    /// # Errors
    /// `Unavailable`, `TimedOut`, `Unauthorized`.
    fn capabilities(&self, bucket: Bucket, deadline: Instant) -> Result<Capabilities>;

    /// The last state of a key, its delete or expiry marker included; `None` when there is none.
    ///
    /// # Errors
    /// `InvalidArgument` (key), `Unavailable`, `TimedOut`, `Unauthorized`.
    fn read(&self, bucket: Bucket, key: &str, deadline: Instant) -> Result<Option<Entry>>;

    /// All keys that begin with `prefix` followed by a dot; with an empty prefix all keys.
    ///
    /// # Errors
    /// As for [`Store::read`]. A listing that could not be completed is an error, never short.
    fn list(&self, bucket: Bucket, prefix: &str, deadline: Instant) -> Result<Listing>;

    /// Performs the writes, all in flight at once, and returns their outcomes in order. They are
    /// independent: some may succeed and others be rejected. Stored writes are numbered in the
    /// order given.
    fn write(&self, bucket: Bucket, writes: &[Write], deadline: Instant) -> Vec<Outcome>;

    /// Executes the writes atomically. `Refused(Invalid)` on a store without batches.
    fn write_batch(&self, bucket: Bucket, batch: &Batch, deadline: Instant) -> Outcome;

    /// Watches all keys that begin with `prefix` followed by a dot, or all keys if the prefix is
    /// empty. Does not block: while the store is unreachable, the watch is lost.
    ///
    /// # Errors
    /// `InvalidArgument` (prefix), `NotRunning` after the store was stopped.
    fn watch(&self, bucket: Bucket, prefix: &str) -> Result<Watch>;

    /// Watches one key. Otherwise as [`Store::watch`].
    ///
    /// # Errors
    /// `InvalidArgument` (key), `NotRunning` after the store was stopped.
    fn watch_key(&self, bucket: Bucket, key: &str) -> Result<Watch>;

    /// How the store is doing. Never waits.
    fn health(&self) -> Health;

    /// Changes of [`Store::health`], the current one first. Only the newest few are kept.
    fn health_events(&self) -> HealthEvents;

    /// Ends the store's threads; afterwards every call fails with `NotRunning`. Idempotent.
    ///
    /// # Errors
    /// `TimedOut`, naming what is still busy; can be called again.
    fn stop(&self, deadline: Instant) -> Result<()>;
}

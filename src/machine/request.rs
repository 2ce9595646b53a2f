//! What the parts of a manager ask of the store, and how it is answered.
//!
//! Each part ([`stable_id`](super::stable_id), [`election`](super::election),
//! [`heartbeat`](super::heartbeat)) has at most one request in flight. Values carry the wall clock,
//! which the core cannot read: the shell fills it in and returns the written bytes with the answer,
//! so that they can be recognised in the store.

use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::store::{Bucket, BucketStatus, Entry, Expect, Listing, Outcome, Refusal};
use crate::types::WorkerId;
use crate::wire::{ClaimNonce, Reported};

/// One piece of I/O.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Create a bucket unless it exists; its values live for `ttl`.
    Ensure {
        /// Which.
        bucket: Bucket,
        /// `None`: unlimited.
        ttl: Option<Duration>,
    },
    /// List all keys of a bucket.
    List(Bucket),
    /// Read one key.
    Read {
        /// Where.
        bucket: Bucket,
        /// Which.
        key: String,
    },
    /// Write one key.
    Put {
        /// Where.
        bucket: Bucket,
        /// Which.
        key: String,
        /// What.
        value: Value,
        /// When it may happen.
        expect: Expect,
    },
    /// Delete one key, leaving the marker that says so.
    Delete {
        /// Where.
        bucket: Bucket,
        /// Which.
        key: String,
        /// When it may happen.
        expect: Expect,
    },
    /// Count the hand-over claims of parti v2.
    CountClaims,
    /// Acquire or renew the leadership by the host's election.
    Campaign(WorkerId),
    /// Give the leadership back to the host's own election.
    Resign(WorkerId),
}

/// What to write; the shell adds the wall clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The claim of a stable id, with the instance of the process, if it has one.
    Claim(ClaimNonce, Option<String>),
    /// An id that its worker will claim again; any process may claim it. With the instance of the
    /// worker, if it has one.
    Kept(Option<String>),
    /// The leader's lease.
    Lease(WorkerId),
    /// A heartbeat.
    Beat(WorkerId, Reported),
}

/// How a request ended.
#[derive(Clone, Debug)]
pub enum Answer {
    /// What the bucket is.
    Ensured(Result<BucketStatus>),
    /// What the bucket holds.
    Listed(Result<Listing>),
    /// What the key holds.
    Read(Result<Option<Entry>>),
    /// How many hand-over claims parti v2 keeps.
    Claims(Result<u64>),
    /// How a write or a deletion ended.
    Written {
        /// How.
        outcome: Outcome,
        /// What was written; empty for a deletion.
        value: Vec<u8>,
    },
    /// For how long this worker leads, from when the request was made; `None`: another one does.
    Campaigned(Result<Option<Duration>>),
}

impl Answer {
    /// The store failure in the answer; `None` if the store answered, even with a rejection.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        let error = match self {
            Answer::Ensured(Err(error))
            | Answer::Listed(Err(error))
            | Answer::Read(Err(error))
            | Answer::Claims(Err(error)) => error.clone(),
            Answer::Written { outcome, .. } => failure_of(outcome)?,
            Answer::Ensured(Ok(_))
            | Answer::Listed(Ok(_))
            | Answer::Read(Ok(_))
            | Answer::Claims(Ok(_))
            | Answer::Campaigned(_) => return None,
        };
        Some(error)
    }
}

/// Whether the same conditional write may succeed if it is tried again: the store was busy or out of
/// reach, or did not answer. One that was carried out after all is then refused by its condition.
#[must_use]
pub fn may_pass(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Unknown(_) | Outcome::Refused(Refusal::Busy | Refusal::Unavailable(_))
    )
}

/// Why the outcome of a write is unknown; `None` if it was stored or rejected by a conflict.
#[must_use]
pub fn failure_of(outcome: &Outcome) -> Option<Error> {
    match outcome {
        Outcome::Done(_) | Outcome::Refused(Refusal::Conflict) => None,
        Outcome::Refused(refusal) => Some(refusal.clone().into_error()),
        Outcome::Unknown(why) => Some(Error::new(
            Code::TimedOut,
            format!("write outcome unknown: {why}"),
        )),
    }
}

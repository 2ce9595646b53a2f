//! The record that says to which fleet the buckets belong.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{from_json, to_json};
use crate::error::Result;
use crate::types::truncated;

/// The fleet record: which fleet the buckets belong to. Written by the first worker of a fleet that
/// has a name, or other key prefixes than parti's; a bucket without one belongs to the fleet
/// without a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetRecord {
    /// The fleet's name; empty without one.
    pub fleet: String,
    /// Prefix of its heartbeat keys.
    pub heartbeat_prefix: String,
    /// Prefix of its assignment keys.
    pub assignment_prefix: String,
}

impl Default for FleetRecord {
    /// The fleet without a name, with parti's prefixes.
    fn default() -> Self {
        Self {
            fleet: String::new(),
            heartbeat_prefix: "heartbeat".into(),
            assignment_prefix: "assignment".into(),
        }
    }
}

impl FleetRecord {
    /// Reads a stored fleet record.
    ///
    /// # Errors
    /// [`Code::InvalidData`](crate::Code::InvalidData), saying what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        from_json(bytes)
    }

    /// The bytes to store.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }
}

impl fmt::Display for FleetRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match truncated(&self.fleet, 60) {
            "" => write!(f, "a fleet without a name")?,
            name => write!(f, "fleet {name:?}")?,
        }
        write!(
            f,
            " with key prefixes {:?} and {:?}",
            truncated(&self.heartbeat_prefix, 60),
            truncated(&self.assignment_prefix, 60)
        )
    }
}

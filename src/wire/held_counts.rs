//! The list that a leader holds back, as its heartbeat reports it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// Numbers of a partition list that the leader holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldCounts {
    /// Partitions of the list in force.
    pub in_force: usize,
    /// Number of them that are missing from the held list.
    pub lost: usize,
    /// Partitions of the held list.
    pub listed: usize,
}

impl fmt::Display for HeldCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            in_force,
            lost,
            listed,
        } = self;
        write!(
            f,
            "it has {listed} partitions and lacks {lost} of the {in_force} in force; check the \
             source, or call confirm_partitions on the leader to apply the list now"
        )
    }
}

/// Reads the numbers. What is malformed counts as absent.
pub(super) fn lenient<'de, D: Deserializer<'de>>(from: D) -> Result<Option<HeldCounts>, D::Error> {
    let raw = <&'de RawValue>::deserialize(from)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

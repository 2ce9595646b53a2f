//! What this replica is configured with, as digests that heartbeats and the fence carry.

use std::sync::Arc;

use super::partition_list::Partitions;
use crate::config::CalculatorConfig;
use crate::strategy::Strategy;
use crate::wire::{ConfigDigest, digest_of_text};

/// Digests of a replica's configuration. Only the list changes while the replica runs.
#[derive(Clone, Debug)]
pub struct ConfigSource {
    partitions: Arc<Partitions>,
    strategy: u32,
    settings: u32,
}

impl ConfigSource {
    /// The digests for these settings, this strategy and this list.
    #[must_use]
    pub fn new(
        config: &CalculatorConfig,
        strategy: &dyn Strategy,
        partitions: Arc<Partitions>,
    ) -> Self {
        let strategy = format!("{} {}", strategy.name(), strategy.parameters());
        Self {
            partitions,
            strategy: digest_of_text(&strategy),
            settings: digest_of_text(&config.shared_settings()),
        }
    }

    /// Returns the digests as of now. The list is known once it was pushed, or once its source has
    /// returned it: a source is not called for a digest.
    #[must_use]
    pub fn digest(&self) -> ConfigDigest {
        ConfigDigest {
            list: self.partitions.digest(),
            strategy: Some(self.strategy),
            settings: Some(self.settings),
        }
    }
}

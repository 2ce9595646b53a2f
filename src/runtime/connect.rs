//! From settings to a connected store.

use std::sync::Arc;
use std::time::Instant;

use crate::config::Settings;
use crate::error::{Code, Error, Result};
use crate::store::Store;

/// Connects to NATS as the settings `nats_*` and `*_bucket` say.
///
/// # Errors
/// `InvalidConfig`, `Unauthorized`, `Unavailable`, `TimedOut`, `Unsupported` (also when this
/// build has no NATS).
#[cfg(not(feature = "nats"))]
pub fn connect_nats(_settings: &Settings, _deadline: Instant) -> Result<Arc<dyn Store>> {
    Err(Error::new(
        Code::Unsupported,
        "this build of divvy has no NATS; build it with the feature `nats`",
    ))
}

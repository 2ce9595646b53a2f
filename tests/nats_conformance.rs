//! The NATS store keeps the contract of `divvy::store`, on the newest and the oldest server. All
//! the others, and clusters, are in `nats_matrix.rs`.
#![cfg(all(feature = "nats", target_os = "linux"))]

#[macro_use]
#[path = "support/conformance/mod.rs"]
mod conformance;
#[path = "support/nats_fixture.rs"]
mod nats_fixture;
mod support;

use nats_fixture::Nats;
use support::nats_binary::{NEWEST, OLDEST};

store_conformance!(newest_in_files, Nats::file(NEWEST));
store_conformance!(oldest_in_files, Nats::file(OLDEST));
store_conformance!(
    newest_watched_as_heartbeats,
    Nats::file(NEWEST).watched_as_heartbeats()
);
store_conformance!(
    oldest_watched_as_heartbeats,
    Nats::file(OLDEST).watched_as_heartbeats()
);

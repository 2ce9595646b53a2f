//! The NATS store satisfies the contract of `divvy::store` on the newest and the oldest server.
//! `tests/long/matrix.rs` covers all other versions and clusters.

use crate::nats_fixture::Nats;
use crate::support::nats_binary::{NEWEST, OLDEST};

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

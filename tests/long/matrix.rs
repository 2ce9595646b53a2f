//! The NATS store satisfies its contract on every supported server and storage type, and in
//! clusters.
//!
//! `make test-matrix` runs it.

use crate::nats_fixture::Nats;
use crate::support::nats_binary::{NEWEST, OLDEST};

store_conformance!(newest_in_memory, Nats::memory(NEWEST));
store_conformance!(newest_in_a_cluster, Nats::cluster(NEWEST));
store_conformance!(oldest_in_memory, Nats::memory(OLDEST));
store_conformance!(oldest_in_a_cluster, Nats::cluster(OLDEST));
store_conformance!(v2_11_in_files, Nats::file("2.11.11"));
store_conformance!(v2_11_in_a_cluster, Nats::cluster("2.11.11"));
store_conformance!(v2_12_0_in_files, Nats::file("2.12.0"));
store_conformance!(v2_12_in_files, Nats::file("2.12.8"));
store_conformance!(v2_12_in_a_cluster, Nats::cluster("2.12.8"));
store_conformance!(v2_14_in_files, Nats::file("2.14.5"));
store_conformance!(v2_14_in_a_cluster, Nats::cluster("2.14.5"));
store_conformance!(
    newest_in_a_cluster_of_heartbeats,
    Nats::cluster(NEWEST).watched_as_heartbeats()
);
store_conformance!(
    oldest_in_a_cluster_of_heartbeats,
    Nats::cluster(OLDEST).watched_as_heartbeats()
);
store_conformance!(
    v2_11_in_a_cluster_of_heartbeats,
    Nats::cluster("2.11.11").watched_as_heartbeats()
);
store_conformance!(
    v2_12_in_a_cluster_of_heartbeats,
    Nats::cluster("2.12.8").watched_as_heartbeats()
);
store_conformance!(
    v2_14_in_a_cluster_of_heartbeats,
    Nats::cluster("2.14.5").watched_as_heartbeats()
);

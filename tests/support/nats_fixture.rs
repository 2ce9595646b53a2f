//! The NATS store for the conformance suite: each test has its own server or cluster.

use std::sync::Arc;
use std::time::Duration;

use divvy::store::layer::{LayerCall, StoreAnswer, StoreLayer};
use divvy::store::nats::{NatsOptions, NatsStore, Storage};
use divvy::store::{Bucket, BucketConfig, ManageBuckets, Store};

use crate::conformance::{self, soon};
use crate::support::nats_server::{Cluster, Server};
use crate::support::raw_nats::RawNats;

/// One server, or three, of one version.
pub struct Nats {
    version: &'static str,
    port: u16,
    options: NatsOptions,
    /// Whether to swap the buckets of heartbeats and assignments.
    is_swapped: bool,
    _server: Option<Server>,
    _cluster: Option<Cluster>,
}

#[allow(dead_code, reason = "each test program uses its own part")]
impl Nats {
    pub fn file(version: &'static str) -> Self {
        let server = Server::start(version);
        Self {
            version,
            port: server.port,
            options: NatsOptions::new([server.url()]).manage_buckets(ManageBuckets::Upgrade),
            is_swapped: false,
            _server: Some(server),
            _cluster: None,
        }
    }

    pub fn memory(version: &'static str) -> Self {
        let nats = Self::file(version);
        Self {
            options: nats.options.clone().storage(Storage::Memory),
            ..nats
        }
    }

    pub fn cluster(version: &'static str) -> Self {
        let cluster = Cluster::start(version);
        Self {
            version,
            port: cluster.nodes[0].port,
            options: NatsOptions::new(cluster.urls())
                .replicas(3)
                .manage_buckets(ManageBuckets::Upgrade),
            is_swapped: false,
            _server: None,
            _cluster: Some(cluster),
        }
    }

    /// Uses the heartbeat bucket for the suite, because its watches work differently.
    pub fn watched_as_heartbeats(self) -> Self {
        let name = Bucket::default_name;
        Self {
            options: (self.options)
                .bucket_name(Bucket::Heartbeat, name(Bucket::Assignment))
                .bucket_name(Bucket::Assignment, name(Bucket::Heartbeat)),
            is_swapped: true,
            ..self
        }
    }

    fn at_least(&self, major: u32, minor: u32, patch: u32) -> bool {
        let parts: Vec<u32> = self
            .version
            .split('.')
            .map(|p| p.parse().unwrap())
            .collect();
        parts >= vec![major, minor, patch]
    }
}

impl conformance::Fixture for Nats {
    fn client(&self) -> Arc<dyn Store> {
        let store = NatsStore::connect(self.options.clone(), soon()).expect("a connection");
        if self.is_swapped {
            return Arc::new(Swapped(store));
        }
        Arc::new(store)
    }

    fn batches(&self) -> bool {
        // When swapped, the bucket of the suite is not the assignment bucket.
        self.at_least(2, 12, 5) && !self.is_swapped
    }

    fn expiry_markers(&self) -> bool {
        self.at_least(2, 11, 0)
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn pass(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn idle(&self) {}

    fn watch_max(&self) -> usize {
        4_096
    }

    fn put_raw(&self, bucket: Bucket, key: &str, value: &[u8]) {
        let subject = format!("$KV.{}.{key}", bucket.default_name());
        let ack = RawNats::connect(self.port).store(subject.as_bytes(), b"", value);
        assert!(ack["seq"].is_u64(), "{ack}");
    }

    fn recreate(&self, bucket: Bucket, config: BucketConfig) {
        let api = format!("STREAM.DELETE.KV_{}", bucket.default_name());
        let deleted = RawNats::connect(self.port).api(&api, "");
        assert_eq!(deleted["success"], true, "{deleted}");
        self.client().ensure(bucket, config, soon()).unwrap();
    }
}

/// A store with swapped buckets for heartbeats and assignments.
struct Swapped(NatsStore);

fn swapped(bucket: Bucket) -> Bucket {
    match bucket {
        Bucket::Heartbeat => Bucket::Assignment,
        Bucket::Assignment => Bucket::Heartbeat,
        other => other,
    }
}

impl StoreLayer for Swapped {
    fn inner(&self) -> &dyn Store {
        &self.0
    }

    fn call<A: StoreAnswer>(
        &self,
        mut call: LayerCall<'_>,
        run: impl FnOnce(&dyn Store, &LayerCall<'_>) -> A,
    ) -> A {
        call.bucket = swapped(call.bucket);
        run(&self.0, &call)
    }
}

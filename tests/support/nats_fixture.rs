//! The NATS store as the conformance suite wants it: a server or cluster of its own for each test.

use std::sync::Arc;
use std::time::Duration;

use divvy::store::nats::{NatsOptions, NatsStore, Storage};
use divvy::store::{Bucket, BucketConfig, Store};

use crate::conformance::{self, soon};
use crate::support::nats_server::{Cluster, Server};
use crate::support::raw_nats::RawNats;

/// A server, or three, of one version.
pub struct Nats {
    version: &'static str,
    port: u16,
    options: NatsOptions,
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
            options: NatsOptions::new([server.url()]),
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
            options: NatsOptions::new(cluster.urls()).replicas(3),
            _server: None,
            _cluster: Some(cluster),
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
        Arc::new(NatsStore::connect(self.options.clone(), soon()).expect("a connection"))
    }

    fn batches(&self) -> bool {
        self.at_least(2, 12, 5)
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

    fn flood(&self) -> usize {
        9_000
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

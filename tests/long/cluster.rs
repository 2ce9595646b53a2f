//! The NATS store on three servers that are partitioned from one another.
//!
//! `make test-matrix` runs it.

use std::thread;
use std::time::{Duration, Instant};

use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{Outcome, Store};

use crate::support::faults::{BUCKET, CALL_TIMEOUT, FOR_EVER, Reader, put, soon};
use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::Cluster;

#[test]
fn loss_of_any_cluster_node_loses_no_event() {
    let mut cluster = Cluster::start(NEWEST);
    let options = || NatsOptions::new(cluster.urls()).replicas(3);
    let store = NatsStore::connect(options(), soon()).unwrap();
    store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
    let watch = store.watch(BUCKET, "watched").unwrap();
    let mut reader = Reader::default();
    assert!(reader.until_live(&watch, Duration::from_secs(20)));
    for node in 0..3 {
        cluster.nodes[node].kill();
        let killed = Instant::now();
        let key = format!("watched.n{node}");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let by = Instant::now() + CALL_TIMEOUT;
            if let Outcome::Done(_) = store.write(BUCKET, &[put(&key, "v")], by).remove(0) {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "no write after the loss of a node"
            );
            thread::sleep(Duration::from_millis(20));
        }
        let written = killed.elapsed();
        while !reader.live.contains_key(&key) {
            let event = watch
                .events
                .recv_timeout(Duration::from_secs(20))
                .expect("the change");
            reader.take(event);
        }
        println!(
            "| node {node} killed | written {written:?}, seen {:?} after | watch lost {:?} |",
            killed.elapsed(),
            reader.disconnects
        );
        cluster.nodes[node].restart();
        cluster.wait_healthy();
    }
}

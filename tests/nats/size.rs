//! The calculator at its limits: fleets that exceed one batch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use divvy::runtime::publish::publisher::ActiveMode;
use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{Bucket, BucketConfig, Expect, ManageBuckets, Outcome, Store, Write};
use divvy::strategy::RoundRobin;
use divvy::wire::{Assignment, COMMIT_KEY, Commit, FENCE_KEY};
use divvy::{Calculator, CalculatorConfig, Partition};

use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::Server;

const TIMEOUT: Duration = Duration::from_secs(60);
const TTL: Duration = Duration::from_secs(120);

fn soon() -> Instant {
    Instant::now() + TIMEOUT
}

/// A store with the heartbeats of these workers.
fn store_with_workers(server: &Server, count: usize) -> Arc<NatsStore> {
    let store = NatsStore::connect(
        NatsOptions::new([server.url()]).manage_buckets(ManageBuckets::Upgrade),
        soon(),
    )
    .unwrap();
    let ttl = Some(TTL);
    store
        .ensure(Bucket::Heartbeat, BucketConfig { ttl }, soon())
        .unwrap();
    let beats: Vec<Write> = (0..count)
        .map(|i| Write {
            key: format!("heartbeat.w-{i:05}"),
            value: Some(b"2026-01-01T00:00:00Z".to_vec()),
            expect: Expect::Any,
        })
        .collect();
    for chunk in beats.chunks(1_000) {
        let outcomes = store.write(Bucket::Heartbeat, chunk, soon());
        let fault = outcomes.iter().find(|o| !matches!(o, Outcome::Done(_)));
        assert_eq!(fault, None);
    }
    Arc::new(store)
}

fn calculator(store: &Arc<NatsStore>, partitions: Vec<Partition>) -> Calculator {
    let mut config = CalculatorConfig::default();
    config.heartbeat_ttl = TTL;
    config.operation_timeout = TIMEOUT;
    config.cold_start_window = Duration::from_millis(50);
    config.planned_scale_window = Duration::from_millis(50);
    Calculator::builder(store.clone())
        .config(config)
        .strategy(RoundRobin)
        .source(move || Ok(partitions.clone()))
        .build()
        .unwrap()
}

#[test]
fn ten_thousand_workers_are_published_in_eleven_batches() {
    const WORKERS: usize = 10_000;
    let server = Server::start(NEWEST);
    let store = store_with_workers(&server, WORKERS);
    let partitions = (0..2 * WORKERS)
        .map(|i| Partition::new([format!("p{i:05}")], 1))
        .collect();
    let leader = calculator(&store, partitions);
    leader.start(TIMEOUT).unwrap();
    let deadline = soon();
    while leader.status().counters.publications == 0 {
        assert!(Instant::now() < deadline, "{:?}", leader.status());
        std::thread::sleep(Duration::from_millis(5));
    }
    let version = leader.current_version();
    let status = leader.status();
    leader.stop(TIMEOUT).unwrap();
    assert_eq!(
        status.publish_mode,
        Some(ActiveMode::Atomic),
        "{}",
        status.store
    );

    let listing = store.list(Bucket::Assignment, "", soon()).unwrap();
    let of_key = |key: &str| listing.entries.iter().find(|entry| entry.key == key);
    let commit = Commit::decode(&of_key(COMMIT_KEY).expect("a commit record").value).unwrap();
    assert_eq!(
        (commit.version, commit.workers, commit.partitions),
        (version, 10_000, 20_000)
    );
    let assignments: Vec<Assignment> = listing
        .entries
        .iter()
        .filter(|entry| entry.key.starts_with("assignment."))
        .map(|entry| Assignment::decode(&entry.value).unwrap())
        .collect();
    assert_eq!(assignments.len(), WORKERS);
    let whole = |a: &Assignment| a.version == version && a.partitions.len() == 2;
    assert!(assignments.iter().all(whole));
    // One version, eleven batches: the fence, the guards, and the commit record with each worker.
    let fence = of_key(FENCE_KEY).expect("a fence record").revision;
    assert_eq!(listing.last_sequence, fence + 10 + 1 + WORKERS as u64);
}

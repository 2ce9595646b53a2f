//! The calculator at its limits: assignments that exceed the server's limit, and fleets that exceed
//! one batch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use divvy::runtime::publish::publisher::ActiveMode;
use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{Bucket, BucketConfig, Expect, ManageBuckets, Outcome, Store, Write};
use divvy::strategy::RoundRobin;
use divvy::wire::{Assignment, COMMIT_KEY, Commit, FENCE_KEY};
use divvy::{
    Calculator, CalculatorConfig, CalculatorEvent, DegradationCause, EventFilter, Partition,
};

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
    config.leave_window = Duration::from_millis(50);
    config.cooldown = Duration::from_millis(50);
    Calculator::builder(store.clone())
        .config(config)
        .strategy(RoundRobin)
        .source(move || Ok(partitions.clone()))
        .build()
        .unwrap()
}

/// Three workers with 60 000 partitions, of which two depart: one assignment cannot hold them all.
#[test]
fn survivor_gets_what_fits_and_the_rest_is_named_unassigned_until_a_worker_joins() {
    const PARTITIONS: usize = 60_000;
    let server = Server::start(NEWEST);
    let store = store_with_workers(&server, 3);
    let partitions = (0..PARTITIONS)
        .map(|i| Partition::new(["partition".into(), format!("{i:07}")], 0))
        .collect();
    let leader = calculator(&store, partitions);
    let (sender, events) = std::sync::mpsc::channel();
    let _subscription = leader.subscribe(EventFilter::State, move |event| {
        if let CalculatorEvent::AssignmentLimit { version, limit } = event {
            let _ = sender.send((*version, limit.clone()));
        }
    });
    leader.start(TIMEOUT).unwrap();
    let limit_event = || {
        let event = events.recv_timeout(Duration::from_secs(20));
        event.unwrap_or_else(|why| panic!("{why}: {:#?}", leader.status()))
    };
    let depart = |key: &str| {
        let deleted = Write {
            key: key.into(),
            value: None,
            expect: Expect::Any,
        };
        let outcomes = store.write(Bucket::Heartbeat, &[deleted], soon());
        assert!(matches!(outcomes[..], [Outcome::Done(_)]), "{outcomes:?}");
    };
    depart("heartbeat.w-00001");
    let (_, warning) = limit_event();
    assert!(
        warning.unassigned.is_empty() && warning.sizes.is_near(),
        "{warning}"
    );
    depart("heartbeat.w-00002");
    let (version, limit) = limit_event();
    let status = leader.status();
    let listing = store.list(Bucket::Assignment, "", soon()).unwrap();
    let of_key = |key: &str| listing.entries.iter().find(|entry| entry.key == key);
    let value = &of_key("assignment.w-00000").expect("an assignment").value;
    let assignment = Assignment::decode(value).unwrap();
    assert_eq!(assignment.version, version);
    assert_eq!(
        assignment.partitions.len() + limit.unassigned.len(),
        PARTITIONS
    );
    assert!(value.len() <= limit.sizes.limit, "{limit}");
    assert!(
        value.len() + 300 > limit.sizes.limit,
        "room is left: {}",
        value.len()
    );
    let commit = Commit::decode(&of_key(COMMIT_KEY).expect("a commit record").value).unwrap();
    assert_eq!(commit.unassigned, Some(limit.unassigned.len() as u64));
    let cause = status.degraded.iter().map(|reason| reason.cause);
    assert!(
        cause.eq([DegradationCause::Unassigned]),
        "{:?}",
        status.degraded
    );
    eprintln!(
        "{} partitions in {} bytes; {limit}",
        assignment.partitions.len(),
        value.len()
    );

    let joined = Write {
        key: "heartbeat.w-00003".into(),
        value: Some(b"2026-01-01T00:00:00Z".to_vec()),
        expect: Expect::Any,
    };
    store.write(Bucket::Heartbeat, &[joined], soon());
    let (_, limit) = limit_event();
    assert!(limit.unassigned.is_empty(), "{limit}");
    leader.stop(TIMEOUT).unwrap();
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

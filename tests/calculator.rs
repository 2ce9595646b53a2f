//! The calculator on the embedded store: real threads, short windows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use divvy::store::memory::MemoryStore;
use divvy::store::{Bucket, BucketConfig, Expect, Outcome, Store, Write};
use divvy::wire::Assignment;
use divvy::{Calculator, CalculatorConfig, Interest, Notice, Partition, State};

const PATIENCE: Duration = Duration::from_secs(10);

fn config() -> CalculatorConfig {
    let mut config = CalculatorConfig::default();
    config.heartbeat_ttl = Duration::from_millis(400);
    config.emergency_grace_period = Duration::from_millis(100);
    config.cooldown = Duration::from_millis(50);
    config.cold_start_window = Duration::from_millis(150);
    config.planned_scale_window = Duration::from_millis(100);
    config.leave_window = Duration::from_millis(20);
    config.join_coalescing = Duration::from_millis(5);
    config.recovery_grace = Duration::from_millis(200);
    config
}

fn partitions(count: usize) -> Vec<Partition> {
    (0..count)
        .map(|i| Partition::new([format!("p{i:04}")], 1))
        .collect()
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

fn store() -> MemoryStore {
    let store = MemoryStore::new();
    let ttl = Some(Duration::from_millis(400));
    store
        .ensure(Bucket::Heartbeat, BucketConfig { ttl }, soon())
        .unwrap();
    store
}

fn beat(store: &MemoryStore, worker: &str) {
    let write = Write {
        key: format!("heartbeat.{worker}"),
        value: Some(b"alive".to_vec()),
        expect: Expect::Any,
    };
    let outcomes = store.write(Bucket::Heartbeat, &[write], soon());
    assert!(matches!(outcomes[0], Outcome::Done(_)), "{outcomes:?}");
}

fn held(store: &MemoryStore, worker: &str) -> Option<Assignment> {
    let key = format!("assignment.{worker}");
    let entry = store.read(Bucket::Assignment, &key, soon()).unwrap()?;
    entry
        .is_live()
        .then(|| Assignment::decode(&entry.value).unwrap())
}

#[test]
fn a_fleet_is_divided_and_a_trigger_publishes_a_new_version() {
    let store = store();
    beat(&store, "w-1");
    beat(&store, "w-2");
    let calculator = Calculator::builder(Arc::new(store.client("leader")))
        .config(config())
        .source(|| Ok(partitions(10)))
        .build()
        .unwrap();
    let events = calculator.events(Interest::State);
    calculator.start(PATIENCE).unwrap();
    let first = events.recv_timeout(PATIENCE).unwrap();
    assert!(
        matches!(&*first, Notice::StateChanged(c) if c.to == State::Idle && c.from == State::Idle)
    );
    loop {
        let event = events.recv_timeout(PATIENCE).expect("published in time");
        if matches!(
            &*event,
            Notice::Published {
                version: 1,
                partitions: 10,
                ..
            }
        ) {
            break;
        }
    }
    assert_eq!(held(&store, "w-1").unwrap().partitions.len(), 5);
    assert_eq!(held(&store, "w-2").unwrap().partitions.len(), 5);
    beat(&store, "w-1");
    beat(&store, "w-2");
    assert_eq!(calculator.trigger_rebalance(PATIENCE).unwrap(), 2);
    let status = calculator.status();
    assert_eq!(status.workers.len(), 2, "{status:#?}");
    assert_eq!((status.version, status.term), (2, 1));
    calculator.stop(PATIENCE).unwrap();
    assert!(!calculator.is_started());
}

//! The leader knows which workers have applied their assignment, and reports the others.

use std::sync::Arc;
use std::time::Duration;

use divvy::store::memory::MemoryStore;
use divvy::store::{Bucket, BucketConfig, Expect, Outcome, Store, Write};
use divvy::wire::{Applied, encode_heartbeat};
use divvy::{Calculator, CalculatorEvent, EventFilter, Lagging, Version, WorkerId};

use crate::support::calculators::*;

fn beat_applied(store: &MemoryStore, worker: &WorkerId, applied: Applied) {
    let write = Write {
        key: format!("heartbeat.{worker}"),
        value: Some(encode_heartbeat(worker, "t", applied)),
        expect: Expect::Any,
    };
    let outcomes = store.write(Bucket::Heartbeat, &[write], soon());
    assert!(matches!(outcomes[0], Outcome::Done(_)), "{outcomes:?}");
}

#[test]
fn live_lagging_worker_is_reported_once_until_it_catches_up() {
    // Long enough that no worker is suspected on a busy machine.
    let ttl = 3 * TIMEOUT;
    let store = MemoryStore::new();
    let bucket = BucketConfig { ttl: Some(ttl) };
    store.ensure(Bucket::Heartbeat, bucket, soon()).unwrap();
    let mut config = config();
    config.heartbeat_ttl = ttl;
    config.apply_timeout = Duration::from_millis(60);
    let calculator = Calculator::builder(Arc::new(store.client("leader")))
        .config(config)
        .source(|| Ok(partitions(10)))
        .build()
        .unwrap();
    let events = calculator.events(EventFilter::State);
    // Does not report its applied version, like parti's workers.
    let _fleet = Fleet::new(&store, ["go"]);
    let worker = WorkerId::new("w").unwrap();
    let beat = |version| beat_applied(&store, &worker, Applied { term: 1, version });
    beat(0);
    calculator.start(TIMEOUT).unwrap();

    let next_lag = |applied: Version| {
        let mut received = None;
        wait_until("the lag is reported", || {
            beat(applied);
            received = std::iter::from_fn(|| events.try_recv()).find_map(|notice| match &*notice {
                CalculatorEvent::WorkerLagging(lagging) => Some(lagging.clone()),
                _ => None,
            });
            received.is_some()
        });
        received.unwrap()
    };
    let row = |worker: &str| {
        let workers = calculator.status().workers;
        let row = workers
            .into_iter()
            .find(|row| row.worker.as_str() == worker);
        row.map_or((None, None), |row| (row.applied_version, row.lag))
    };
    let check = |lagging: &Lagging, applied| {
        let assigned = held(&store, "w").unwrap().version;
        assert_eq!(lagging.worker, worker);
        assert_eq!((lagging.assigned, lagging.applied), (assigned, applied));
        assert!(lagging.lasted >= Duration::from_millis(60), "{lagging:?}");
        assert_eq!(row("w"), (Some(applied), Some(assigned - applied)));
        assert_eq!(row("go"), (None, None));
        assigned
    };
    let first = next_lag(0);
    let assigned = check(&first, 0);
    for _ in 0..20 {
        beat(0);
    }
    wait_until("it catches up", || {
        beat(assigned);
        row("w") == (Some(assigned), Some(0))
    });
    let reported_again = std::iter::from_fn(|| events.try_recv())
        .any(|notice| matches!(&*notice, CalculatorEvent::WorkerLagging(_)));
    assert!(!reported_again);

    // Another worker receives partitions from it, so its key is rewritten.
    let _more = Fleet::new(&store, ["go-2"]);
    let second = next_lag(assigned);
    assert!(check(&second, assigned) > assigned);
    calculator.stop(TIMEOUT).unwrap();
}

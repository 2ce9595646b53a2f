//! Several fleets on one server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use divvy::error::Code;
use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{Bucket, BucketConfig, Expect, Outcome, Store, Write};
use divvy::wire::PARTI_HANDOFF;
use divvy::{Departure, Manager, ManagerConfig, Partition, read_fleet};

use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::Server;

const TIMEOUT: Duration = Duration::from_secs(20);

fn soon() -> Instant {
    Instant::now() + TIMEOUT
}

fn store(options: NatsOptions) -> Arc<NatsStore> {
    Arc::new(NatsStore::connect(options, soon()).expect("a connection"))
}

fn worker(store: &Arc<NatsStore>, partitions: usize) -> Manager {
    let mut config = ManagerConfig::default();
    config.calculator.cold_start_window = Duration::from_millis(500);
    config.calculator.planned_scale_window = Duration::from_millis(100);
    config.calculator.cooldown = Duration::from_millis(100);
    let list = move || {
        Ok((0..partitions)
            .map(|n| Partition::new([format!("p{n}")], 1))
            .collect())
    };
    Manager::builder(Arc::clone(store) as Arc<dyn Store>)
        .config(config)
        .source(list)
        .build()
        .expect("a manager")
}

#[test]
fn fleets_of_different_names_share_a_server_and_nothing_else() {
    let server = Server::start(NEWEST);
    let fleets = [("orders", 7), ("payments", 11)].map(|(name, partitions)| {
        let store = store(NatsOptions::new([server.url()]).fleet(name));
        let worker = worker(&store, partitions);
        worker.start(TIMEOUT).unwrap();
        (name, partitions, store, worker)
    });
    for (name, partitions, store, worker) in &fleets {
        let deadline = soon();
        while worker.assignment().partitions.len() != *partitions {
            assert!(Instant::now() < deadline, "{:?}", worker.status());
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(worker.is_leader());
        let config = ManagerConfig::default().calculator;
        let status = read_fleet(&**store, &config, None, soon()).unwrap();
        assert_eq!((status.fleet.as_str(), status.workers.len()), (*name, 1));
        assert!(
            status
                .to_string()
                .starts_with(&format!("fleet    {name}\n"))
        );
    }
    for (.., worker) in &fleets {
        worker.stop(Departure::Leave, TIMEOUT).unwrap();
    }
}

#[test]
fn worker_of_another_fleet_is_refused_and_leaves_nothing_behind() {
    let server = Server::start(NEWEST);
    let orders = store(NatsOptions::new([server.url()]).fleet("orders"));
    let first = worker(&orders, 7);
    first.start(TIMEOUT).unwrap();
    // By mistake, the buckets of the first fleet.
    let mut options = NatsOptions::new([server.url()]).fleet("payments");
    for bucket in Bucket::ALL {
        options = options.bucket_name(bucket, bucket.name_in("orders"));
    }
    let payments = store(options);
    let begun = Instant::now();
    let second = worker(&payments, 11);
    let error = second.start(TIMEOUT).unwrap_err();
    assert_eq!(error.code(), Code::WrongFleet, "{error}");
    for part in [
        "divvy-orders-assignment",
        "fleet \"orders\"",
        "fleet \"payments\"",
    ] {
        assert!(error.to_string().contains(part), "{part} in {error}");
    }
    assert!(begun.elapsed() < TIMEOUT / 2);
    let claims = orders.list(Bucket::StableId, "", soon()).unwrap().entries;
    assert_eq!(claims.iter().filter(|claim| claim.is_live()).count(), 1);
    // Different key prefixes alone would still share lease, fence and commit record.
    let mut config = ManagerConfig::default();
    config.calculator.assignment_prefix = "theirs".into();
    let third = Manager::builder(Arc::clone(&orders) as Arc<dyn Store>)
        .config(config)
        .source(|| Ok(vec![]))
        .build()
        .unwrap();
    let error = third.start(TIMEOUT).unwrap_err();
    assert_eq!(error.code(), Code::WrongFleet, "{error}");
    first.stop(Departure::Leave, TIMEOUT).unwrap();
}

fn put(store: &NatsStore, key: &str, value: &str) {
    let config = BucketConfig { ttl: None };
    store.ensure(Bucket::Assignment, config, soon()).unwrap();
    let write = Write {
        key: key.into(),
        value: Some(value.into()),
        expect: Expect::Any,
    };
    let outcomes = store.write(Bucket::Assignment, &[write], soon());
    assert!(matches!(outcomes[..], [Outcome::Done(_)]), "{outcomes:?}");
}

#[test]
fn worker_does_not_join_where_parti_v2_keeps_claims_of_a_two_phase_hand_over() {
    let server = Server::start(NEWEST);
    let parti = store(NatsOptions::new([server.url()]));
    assert_eq!(parti.hand_over_claims(soon()).unwrap(), 0);
    put(&parti, "assignment._commit", r#"{"version":1}"#);
    let options = NatsOptions::new([server.url()]);
    let claims = store(options.bucket_name(Bucket::Assignment, PARTI_HANDOFF));
    put(
        &claims,
        "claims/p0",
        r#"{"owner":"worker-7","state":"stable"}"#,
    );
    assert_eq!(parti.hand_over_claims(soon()).unwrap(), 1);
    let error = worker(&parti, 3).start(TIMEOUT).unwrap_err();
    assert_eq!(error.code(), Code::Unsupported, "{error}");
    for part in [PARTI_HANDOFF, "two phases", "does not join", "turn"] {
        assert!(error.to_string().contains(part), "{part} in {error}");
    }
    let ids = parti.list(Bucket::StableId, "", soon()).unwrap().entries;
    assert_eq!(ids, [], "it claimed no id");
}

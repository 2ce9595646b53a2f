//! Crashes, outages, stolen ids and malformed values.

use std::time::{Duration, Instant};

use divvy::error::Code;
use divvy::store::memory::{Blackout, MemoryStore};
use divvy::store::{Bucket, Expect, Outcome, Store, Write};
use divvy::{
    CalculatorEvent, Departure, Events, Manager, ManagerEvent, ManagerState, OutagePolicy,
};

use crate::support::managers::*;

fn put(store: &MemoryStore, bucket: Bucket, key: &str, value: &[u8]) {
    let write = Write {
        key: key.into(),
        value: Some(value.to_vec()),
        expect: Expect::Any,
    };
    let soon = Instant::now() + TIMEOUT;
    let outcomes = store.write(bucket, &[write], soon);
    assert!(matches!(outcomes[0], Outcome::Done(_)), "{outcomes:?}");
}

#[test]
fn disconnected_worker_loses_its_partitions_to_others_and_rejoins() {
    let store = MemoryStore::new();
    let leader = started(&store);
    wait_until("it leads", || leader.is_leader());
    let client = store.client("cut off");
    let faults = client.faults();
    let worker = manager_over(client, config(), 12);
    worker.start(TIMEOUT).unwrap();
    wait_for_cover(&[&leader, &worker], 12);
    faults.blackout(Blackout::Hang);
    wait_until("the leader holds all", || {
        leader.assignment().partitions.len() == 12
    });
    // By default it continues to serve its partitions.
    assert_eq!(worker.assignment().partitions.len(), 6);
    faults.restore();
    wait_for_cover(&[&leader, &worker], 12);
}

/// Reports every transition exactly once, whether the worker itself or the leader causes it.
#[test]
fn every_breaker_transition_is_reported_by_leader_and_follower() {
    let store = MemoryStore::new();
    let (leads, follows) = (store.client("leads"), store.client("follows"));
    let faults = [leads.faults(), follows.faults()];
    let leader = manager_over(leads, config(), 12);
    leader.start(TIMEOUT).unwrap();
    wait_until("it leads", || leader.is_leader());
    let follower = manager_over(follows, config(), 12);
    follower.start(TIMEOUT).unwrap();
    wait_for_cover(&[&leader, &follower], 12);
    let received = [events(&leader), events(&follower)];
    for faults in &faults {
        faults.blackout(Blackout::Refuse);
    }
    wait_until("open breakers", || {
        let opened = |manager: &Manager| manager.status().breaker.opened > 0;
        opened(&leader) && opened(&follower)
    });
    for faults in &faults {
        faults.restore();
    }
    for (received, manager) in received.iter().zip([&leader, &follower]) {
        let transitions = transitions_until_closed(received);
        for (index, name) in transitions.iter().enumerate() {
            let is_probe = index % 2 == 1;
            assert_eq!(*name == "half_open", is_probe, "{transitions:?}");
        }
        assert_eq!(manager.status().breaker.state.state.name(), "closed");
    }
    wait_for_cover(&[&leader, &follower], 12);
}

fn transitions_until_closed(received: &Events<ManagerEvent>) -> Vec<&'static str> {
    let mut transitions = Vec::new();
    while transitions.last() != Some(&"closed") {
        let notice = received.recv_timeout(TIMEOUT).expect("an event");
        match &*notice {
            ManagerEvent::Breaker(condition) => transitions.push(condition.state.name()),
            ManagerEvent::Calculator(CalculatorEvent::Breaker(_)) => panic!("reported twice"),
            _ => {}
        }
    }
    transitions
}

#[test]
fn strict_ownership_ends_before_another_worker_owns_partitions() {
    let store = MemoryStore::new();
    let leader = started(&store);
    wait_until("it leads", || leader.is_leader());
    let client = store.client("cut off");
    let faults = client.faults();
    let mut config = config();
    config.outage_policy = OutagePolicy::Strict;
    let worker = manager_over(client, config, 12);
    worker.start(TIMEOUT).unwrap();
    wait_for_cover(&[&leader, &worker], 12);
    faults.blackout(Blackout::Hang);
    wait_until("the leader takes over", || {
        let has_all = leader.assignment().partitions.len() == 12;
        // The order of the checks matters: a worker that still owned something would be detected.
        assert!(!has_all || worker.assignment().partitions.is_empty());
        has_all
    });
    assert_eq!(worker.state(), ManagerState::Degraded);
    faults.restore();
    wait_for_cover(&[&leader, &worker], 12);
}

#[test]
fn disconnected_leader_steps_down_before_another_leads() {
    let store = MemoryStore::new();
    let client = store.client("leader");
    let faults = client.faults();
    let leader = manager_over(client, config(), 12);
    leader.start(TIMEOUT).unwrap();
    wait_until("it leads", || leader.is_leader());
    let other = started(&store);
    wait_for_cover(&[&leader, &other], 12);
    faults.blackout(Blackout::Hang);
    wait_until("the other one leads", || {
        let leads = other.is_leader();
        assert!(!(leads && leader.is_leader()), "two leaders");
        leads
    });
    wait_until("the other one holds all", || {
        other.assignment().partitions.len() == 12
    });
    faults.restore();
    wait_for_cover(&[&leader, &other], 12);
    assert!(!leader.is_leader());
}

#[test]
fn stolen_id_is_detected_reported_and_replaced() {
    let store = MemoryStore::new();
    let manager = started(&store);
    wait_for_cover(&[&manager], 12);
    let events = events(&manager);
    // Unconditionally, as parti writes after a read error.
    put(
        &store,
        Bucket::StableId,
        "worker-0",
        b"2026-01-01T00:00:00Z",
    );
    wait_for(
        &events,
        "the loss",
        |notice| matches!(notice, ManagerEvent::IdLost { worker } if worker.as_str() == "worker-0"),
    );
    wait_for(
        &events,
        "another id",
        |notice| matches!(notice, ManagerEvent::Id(Some(worker)) if worker.as_str() == "worker-1"),
    );
    wait_for_cover(&[&manager], 12);
    let claim = store.read(Bucket::StableId, "worker-0", Instant::now() + TIMEOUT);
    assert_eq!(claim.unwrap().unwrap().value, b"2026-01-01T00:00:00Z");
}

#[test]
fn id_with_deleted_key_is_reclaimed_and_nothing_moves() {
    let store = MemoryStore::new();
    let manager = started(&store);
    wait_for_cover(&[&manager], 12);
    let events = events(&manager);
    let version = manager.assignment().version;
    let ttl = Some(config().worker_id_ttl);
    let fresh = divvy::store::BucketConfig { ttl };
    store.server().recreate_bucket(Bucket::StableId, fresh);
    wait_for(&events, "the claim", |notice| {
        matches!(notice, ManagerEvent::IdRegained { .. })
    });
    assert_eq!(manager.worker_id(), Some(worker("worker-0")));
    assert_eq!(manager.assignment().version, version);
}

#[test]
fn malformed_and_outdated_assignments_change_nothing_and_are_counted() {
    let store = MemoryStore::new();
    let leader = started(&store);
    wait_for_cover(&[&leader], 12);
    let key = "assignment.worker-0";
    put(&store, Bucket::Assignment, key, b"{\"version\":\"no\"}");
    wait_until("it is counted", || leader.status().malformed >= 1);
    put(
        &store,
        Bucket::Assignment,
        key,
        b"{\"version\":0,\"term\":0}",
    );
    wait_until("it is refused", || leader.status().refused >= 1);
    assert_eq!(leader.assignment().partitions.len(), 12);
    // The leader rewrites what others destroyed.
    wait_for_cover(&[&leader], 12);
}

#[test]
fn manager_start_without_store_fails_in_time_and_leaves_nothing() {
    let store = MemoryStore::new();
    let client = store.client("cut off");
    let faults = client.faults();
    faults.blackout(Blackout::Refuse);
    let manager = manager_over(client, config(), 12);
    let error = manager.start(Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.code(), Code::TimedOut);
    assert!(error.to_string().contains("blackout"), "{error}");
    assert_eq!(manager.state(), ManagerState::Shutdown);
    faults.restore();
    manager.start(TIMEOUT).unwrap();
    wait_for_cover(&[&manager], 12);
    manager.stop(Departure::Leave, TIMEOUT).unwrap();
}

#[test]
fn bucket_without_required_ttl_is_rejected_by_name() {
    let store = MemoryStore::new();
    let for_ever = divvy::store::BucketConfig { ttl: None };
    let soon = Instant::now() + TIMEOUT;
    store.ensure(Bucket::Election, for_ever, soon).unwrap();
    let error = manager(&store).start(TIMEOUT).unwrap_err();
    assert_eq!(error.code(), Code::Unsupported);
    assert!(error.to_string().contains("parti-election"), "{error}");
}

/// A strategy that hangs until the test ends.
struct Hanging(crossbeam_channel::Receiver<()>);

impl divvy::strategy::Strategy for Hanging {
    fn name(&self) -> &str {
        "hanging"
    }

    fn assign(
        &self,
        _: &divvy::strategy::PlanInput<'_>,
    ) -> divvy::Result<Vec<divvy::strategy::WorkerIndex>> {
        let _ = self.0.recv();
        Err(divvy::error::Error::new(Code::StrategyFailed, "over"))
    }
}

#[test]
fn leader_whose_strategy_hangs_hands_leadership_to_a_healthy_worker() {
    let store = MemoryStore::new();
    let (release, hang) = crossbeam_channel::bounded(0);
    let mut slow = config();
    slow.calculator.planning_timeout = Duration::from_millis(300);
    let sick = Manager::builder(std::sync::Arc::new(store.client("sick")))
        .config(slow)
        .source(|| Ok(partitions(12)))
        .strategy(Hanging(hang))
        .build()
        .unwrap();
    let events = events(&sick);
    std::thread::scope(|scope| {
        // Its start waits for an assignment, which the other one makes.
        let starting = scope.spawn(|| sick.start(TIMEOUT));
        wait_for(&events, "it leads", |event| {
            matches!(event, ManagerEvent::Leader { is_self: true, .. })
        });
        let healthy = started(&store);
        starting.join().unwrap().unwrap();
        wait_for_cover(&[&sick, &healthy], 12);
        wait_until("the healthy one leads", || healthy.is_leader());
        drop(release);
        healthy.stop(Departure::Leave, TIMEOUT).unwrap();
    });
    sick.stop(Departure::Leave, TIMEOUT).unwrap();
}

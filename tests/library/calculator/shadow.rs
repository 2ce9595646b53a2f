//! A shadow alongside a live leader: it writes nothing, follows, and reports the differences.

use std::collections::BTreeSet;
use std::sync::Arc;

use divvy::store::memory::MemoryStore;
use divvy::store::{Bucket, Entry, Store};
use divvy::strategy::RoundRobin;
use divvy::{Calculator, CalculatorEvent, Comparison, EventFilter, Events, Reason};
use parking_lot::Mutex;

use crate::support::calculators::*;

/// The store calls of a shadow.
type Calls = Arc<Mutex<BTreeSet<&'static str>>>;

fn shadow(store: &MemoryStore) -> (Calculator, Calls) {
    let calls = Calls::default();
    let inner = store.client("shadow");
    let hook = {
        let calls = Arc::clone(&calls);
        move |call| {
            calls.lock().insert(call);
            Ok(())
        }
    };
    let mut config = config();
    config.shadow = true;
    let shadow = Calculator::builder(Arc::new(Hooked { inner, hook }))
        .config(config)
        .strategy(RoundRobin)
        .source(|| Ok(partitions(10)))
        .build()
        .unwrap();
    (shadow, calls)
}

fn leader(store: &MemoryStore) -> Calculator {
    Calculator::builder(Arc::new(store.client("leader")))
        .config(config())
        .strategy(RoundRobin)
        .source(|| Ok(partitions(10)))
        .build()
        .unwrap()
}

/// Returns the content of the assignment bucket, with revisions.
fn contents(store: &MemoryStore) -> Vec<Entry> {
    let listing = store.list(Bucket::Assignment, "", soon()).unwrap();
    let mut entries = listing.entries;
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    for entry in &mut entries {
        entry.age = None;
    }
    entries
}

#[track_caller]
fn wait_for_comparison(
    events: &Events,
    what: &str,
    fits: impl Fn(&Comparison) -> bool,
) -> Comparison {
    let event = wait_for(
        events,
        what,
        |e| matches!(e, CalculatorEvent::LeaderPublished(comparison) if fits(comparison)),
    );
    match &*event {
        CalculatorEvent::LeaderPublished(comparison) => (**comparison).clone(),
        _ => unreachable!(),
    }
}

fn put(store: &MemoryStore, worker: &str, version: i64, keys: &[&str]) {
    let partitions: Vec<String> = keys
        .iter()
        .map(|key| format!(r#"{{"keys":["{key}"],"weight":1}}"#))
        .collect();
    let value = format!(
        r#"{{"version":{version},"lifecycle":"planned_scale","partitions":[{}]}}"#,
        partitions.join(",")
    );
    let key = format!("assignment.{worker}");
    store
        .server()
        .put(Bucket::Assignment, &key, value.as_bytes());
}

#[test]
fn shadow_writes_nothing_whatever_fleet_does() {
    for store in [store(), store_b()] {
        let fleet = Fleet::new(&store, ["w-1", "w-2", "w-3"]);
        let leader = leader(&store);
        wait_for_publication(&started(&leader));
        leader.stop(TIMEOUT).unwrap(); // from now on no leader writes assignments
        let before = contents(&store);
        let (shadow, calls) = shadow(&store);
        let events = shadow.events(EventFilter::State);
        shadow.start(TIMEOUT).unwrap();
        assert_eq!(shadow.trigger_rebalance(TIMEOUT).unwrap(), 2);
        for (change, reason) in [
            ("join", Reason::PlannedScale),
            ("leave", Reason::PlannedScale),
            ("crash", Reason::Emergency),
        ] {
            match change {
                "join" => fleet.join("w-4"),
                "leave" => fleet.leave("w-3"),
                _ => fleet.crash("w-2"),
            }
            wait_for(
                &events,
                change,
                |e| matches!(e, CalculatorEvent::WouldPublish { version: 2, reason: r, .. } if *r == reason),
            );
        }
        let status = shadow.status();
        assert!(status.is_shadow && status.version == 1, "{status:#?}");
        assert_eq!(status.counters.would_publish, 4);
        assert_eq!(
            (status.counters.publications, status.counters.followed),
            (0, 0)
        );
        shadow.stop(TIMEOUT).unwrap();
        assert_eq!(contents(&store), before);
        let allowed = BTreeSet::from(["read", "list", "watch"]);
        assert!(calls.lock().is_subset(&allowed), "{calls:?}");
    }
}

#[test]
fn shadow_follows_leader_with_same_strategy_without_difference() {
    for store in [store(), store_b()] {
        let fleet = Fleet::new(&store, ["w-1", "w-2"]);
        let first = leader(&store);
        wait_for_publication(&started(&first));
        wait_for_rest(&first); // a join within the window would be part of the start
        let (shadow, _) = shadow(&store);
        let events = started(&shadow);
        fleet.join("w-3");
        let seen = wait_for_comparison(&events, "the join", |c| c.workers == 3);
        assert!(seen.agrees() && seen.lifecycle == "planned_scale", "{seen}");
        assert_eq!((seen.term, seen.partitions), (Some(1), 10));
        assert!(seen.quality.moved_partitions > 0, "{seen}");
        fleet.crash("w-1");
        let seen = wait_for_comparison(&events, "the crash", |c| c.workers == 2);
        assert!(seen.agrees() && seen.lifecycle == "emergency", "{seen}");
        wait_until("the leader's version", || {
            shadow.current_version() == first.current_version()
        });
        assert_eq!(shadow.status().counters.disagreements, 0);
        // Another leader does not end a shadow.
        let second = leader(&store);
        second.start(TIMEOUT).unwrap();
        let version = second.trigger_rebalance(TIMEOUT).unwrap();
        let seen = wait_for_comparison(&events, "the second leader", |c| c.version == version);
        assert_eq!(
            (seen.term, seen.lifecycle.as_str()),
            (Some(2), "manual-refresh")
        );
        wait_until("its term", || shadow.status().term == 2);
        assert!(shadow.is_started() && shadow.status().degraded.is_empty());
    }
}

#[test]
fn shadow_reports_differences_of_leader_without_terms() {
    let store = store();
    let fleet = Fleet::new(&store, ["w-1", "w-2"]);
    put(
        &store,
        "w-1",
        40,
        &["p0000", "p0002", "p0004", "p0006", "p0008"],
    );
    put(
        &store,
        "w-2",
        40,
        &["p0001", "p0003", "p0005", "p0007", "p0009"],
    );
    let (shadow, _) = shadow(&store);
    let events = started(&shadow);
    assert_eq!(shadow.current_version(), 40);
    // It omits two, has one unknown worker, and swaps the other two.
    put(
        &store,
        "w-1",
        41,
        &["p0001", "p0002", "p0004", "p0006", "other"],
    );
    put(&store, "w-2", 41, &["p0000", "p0003", "p0005"]);
    let seen = wait_for_comparison(&events, "version 41", |c| c.version == 41);
    let difference = seen.difference.as_ref().unwrap();
    assert_eq!((seen.term, seen.is_whole), (None, true), "{seen}");
    let found = (
        difference.elsewhere,
        difference.left_out,
        difference.unknown,
    );
    assert_eq!(found, (2, 3, 1), "{seen}");
    assert!(!seen.agrees());
    // A coverage gap concerns the shadow as it would a leader.
    wait_for(&events, "the plan of the shadow", |e| {
        matches!(
            e,
            CalculatorEvent::WouldPublish {
                version: 42,
                partitions: 10,
                ..
            }
        )
    });
    // A worker that the leader did not include.
    fleet.join("w-3");
    wait_for(&events, "the plan of the shadow with w-3", |e| {
        matches!(
            e,
            CalculatorEvent::WouldPublish {
                version: 42,
                workers: 3,
                ..
            }
        )
    });
    put(
        &store,
        "w-1",
        42,
        &["p0000", "p0002", "p0004", "p0006", "p0008"],
    );
    put(
        &store,
        "w-2",
        42,
        &["p0001", "p0003", "p0005", "p0007", "p0009"],
    );
    let seen = wait_for_comparison(&events, "version 42", |c| c.version == 42);
    let difference = seen.difference.as_ref().unwrap();
    assert_eq!(difference.shadows_workers.len(), 1, "{seen}");
    assert_eq!(seen.intended.unwrap().version, 42);
    let words = seen.to_string();
    assert!(words.contains("also for w-3"), "{words}");
    assert_eq!(shadow.status().comparison, Some(seen));
}

#[test]
fn partial_publication_is_reported_when_nothing_follows() {
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1", "w-2"]);
    put(
        &store,
        "w-1",
        1,
        &["p0000", "p0002", "p0004", "p0006", "p0008"],
    );
    put(
        &store,
        "w-2",
        1,
        &["p0001", "p0003", "p0005", "p0007", "p0009"],
    );
    let (shadow, _) = shadow(&store);
    let events = started(&shadow);
    put(&store, "w-1", 2, &["p0000"]);
    let seen = wait_for_comparison(&events, "half of it", |c| c.version == 2);
    assert!(!seen.is_whole, "{seen}");
    assert!(seen.to_string().contains("not one complete plan"), "{seen}");
    store
        .server()
        .put(Bucket::Assignment, "assignment.w-2", b"{nonsense");
    wait_for_comparison(&events, "a broken value", |c| !c.is_whole && c.workers == 1);
}

#[test]
fn shadow_without_fleet_fails_and_creates_nothing() {
    let store = MemoryStore::new();
    let (shadow, calls) = shadow(&store);
    let error = shadow
        .start(std::time::Duration::from_millis(200))
        .unwrap_err();
    assert_eq!(error.code(), divvy::error::Code::Unavailable, "{error}");
    assert!(!calls.lock().contains("ensure"));
}

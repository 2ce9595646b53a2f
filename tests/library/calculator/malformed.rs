//! Foreign values in the store: counted, reported, never fatal.

use std::sync::Arc;

use divvy::machine::plausible::{Numbered, plausible_max};
use divvy::store::memory::MemoryStore;
use divvy::store::{Bucket, Store};
use divvy::{Calculator, CalculatorEvent, DegradationCause};

use crate::support::calculators::*;

/// Values that every reader must tolerate.
fn hostile_values() -> Vec<Vec<u8>> {
    let deep = "[".repeat(100_000);
    let long = format!(r#"{{"version":1,"lifecycle":"{}"}}"#, "x".repeat(900_000));
    let texts = [
        "",
        " ",
        "null",
        "true",
        "{",
        "[]",
        "{}",
        r#"{"version":"#,
        r#"{"version":"1"}"#,
        r#"{"version":-1,"lifecycle":"x","partitions":[]}"#,
        r#"{"version":1e400}"#,
        r#"{"version":99999999999999999999999999}"#,
        r#"{"version":1,"lifecycle":7,"partitions":{}}"#,
        r#"{"version":1,"lifecycle":"x","partitions":[{"keys":"p"}]}"#,
        r#"{"version":1,"lifecycle":"x","partitions":[{"keys":[]}]}"#,
        r#"{"term":"x","leader":[],"time":0}"#,
        r#"{"worker":"w-1","time":"never","applied_term":"x","applied_version":{}}"#,
        &deep,
        &long,
    ];
    let mut values: Vec<_> = texts.iter().map(|t| t.as_bytes().to_vec()).collect();
    values.push(vec![0xff, 0xfe, 0x00, 0x80]);
    values.push(vec![0; 1_000]);
    values
}

fn hostile_workers() -> Vec<String> {
    let long = "x".repeat(5_000);
    let names = [
        "", " ", "a b", "*", ">", "a.*", "a\0b", "a\r\nb", "é", ".", "a..b", &long,
    ];
    names.iter().map(|&n| n.to_owned()).collect()
}

/// A calculator that has published a plan for two workers.
fn running(store: &MemoryStore) -> (Calculator, divvy::Events, Fleet) {
    let fleet = Fleet::new(store, ["w-1", "w-2"]);
    let calculator = calculator(store);
    let events = started(&calculator);
    wait_for_publication(&events);
    wait_for_rest(&calculator);
    (calculator, events, fleet)
}

#[track_caller]
fn check_works(store: &MemoryStore, calculator: &Calculator) {
    let version = calculator.current_version();
    let next = calculator.trigger_rebalance(TIMEOUT).unwrap();
    assert!(next > version);
    assert_eq!(all_held(store, &["w-1", "w-2"]), ids(10));
    assert!(calculator.is_started() && calculator.status().failed.is_none());
}

#[test]
fn heartbeat_with_any_value_is_accepted() {
    let store = store();
    let (calculator, _events, fleet) = running(&store);
    let server = store.server();
    for (i, value) in hostile_values().into_iter().enumerate() {
        server.put(Bucket::Heartbeat, &format!("heartbeat.odd-{i}"), &value);
    }
    let count = hostile_values().len();
    wait_until("every one joined", || {
        calculator.status().workers.len() == 2 + count
    });
    drop(fleet);
    assert!(calculator.is_started());
}

#[test]
fn malformed_heartbeat_keys_are_counted_and_degrade_above_threshold() {
    let store = store();
    let (calculator, events, _fleet) = running(&store);
    let server = store.server();
    for worker in hostile_workers() {
        server.put(Bucket::Heartbeat, &format!("heartbeat.{worker}"), b"x");
    }
    wait_for(
        &events,
        "malformed",
        |e| matches!(e, CalculatorEvent::Degraded(why) if why.iter().any(|d| d.cause == DegradationCause::Malformed)),
    );
    assert_eq!(calculator.status().counters.malformed, 12);
    assert_eq!(calculator.status().workers.len(), 2);
    check_works(&store, &calculator);
}

#[test]
fn malformed_values_below_threshold_are_only_counted() {
    let store = store();
    let (calculator, _events, _fleet) = running(&store);
    store.server().put(Bucket::Heartbeat, "heartbeat.a b", b"x");
    wait_until("the count", || calculator.status().counters.malformed == 1);
    assert!(calculator.status().degraded.is_empty());
    check_works(&store, &calculator);
}

#[test]
fn malformed_assignments_are_overwritten_and_calculator_continues() {
    for store in [store(), store_b()] {
        let (calculator, _events, _fleet) = running(&store);
        let server = store.server();
        for value in hostile_values() {
            server.put(Bucket::Assignment, "assignment.w-1", &value);
        }
        wait_until("a whole plan", || {
            let entry = store.read(Bucket::Assignment, "assignment.w-1", soon());
            let entry = entry.unwrap().unwrap();
            divvy::wire::Assignment::decode(&entry.value)
                .is_ok_and(|a| a.term == Some(calculator.status().term))
        });
        wait_until("all of it", || all_held(&store, &["w-1", "w-2"]) == ids(10));
        assert!(calculator.status().counters.malformed >= 1);
        check_works(&store, &calculator);
    }
}

#[test]
fn malformed_commits_are_overwritten_and_calculator_continues() {
    for store in [store(), store_b()] {
        let (calculator, _events, _fleet) = running(&store);
        for value in hostile_values() {
            store
                .server()
                .put(Bucket::Assignment, "divvy.commit", &value);
        }
        wait_until("the count", || calculator.status().counters.malformed >= 1);
        check_works(&store, &calculator);
    }
}

#[test]
fn unknown_keys_in_assignment_bucket_are_ignored() {
    let store = store();
    let (calculator, _events, _fleet) = running(&store);
    for key in ["other", "divvy.unknown", "assignmentx.w-1", "a b"] {
        store.server().put(Bucket::Assignment, key, b"\xff");
    }
    check_works(&store, &calculator);
    assert_eq!(calculator.status().counters.malformed, 0);
    let entry = store.read(Bucket::Assignment, "divvy.unknown", soon());
    assert!(entry.unwrap().unwrap().is_live());
}

/// Whatever the fence key contains, a leader publishes only under its own fence.
#[test]
fn destroyed_fence_ends_leadership_and_new_start_repairs_it() {
    for store in [store(), store_b()] {
        for value in [&b"junk"[..], b"", b"{\"term\":-5}"] {
            let (calculator, events, _fleet) = running(&store);
            store.server().put(Bucket::Assignment, "divvy.fence", value);
            wait_for(&events, "the loss", |e| {
                matches!(e, CalculatorEvent::LeadershipLost)
            });
            calculator.stop(TIMEOUT).unwrap();
            calculator.start(TIMEOUT).unwrap();
            check_works(&store, &calculator);
            calculator.stop(TIMEOUT).unwrap();
            store.server().purge(Bucket::Assignment);
        }
    }
}

#[test]
fn store_full_of_malformed_values_is_led_and_they_stay_untouched() {
    for store in [store(), store_b()] {
        let server = store.server();
        let values = hostile_values();
        for (i, value) in values.iter().enumerate() {
            server.put(Bucket::Assignment, &format!("assignment.old-{i}"), value);
        }
        for worker in hostile_workers() {
            server.put(Bucket::Assignment, &format!("assignment.{worker}"), b"x");
        }
        server.put(Bucket::Assignment, "assignment.w-1", b"\xff");
        server.put(Bucket::Assignment, "divvy.commit", b"[]");
        server.put(Bucket::Assignment, "divvy.fence", b"{}");
        let _fleet = Fleet::new(&store, ["w-1", "w-2"]);
        let calculator = Calculator::builder(Arc::new(store.client("leader")))
            .config(config())
            .source(|| Ok(partitions(10)))
            .build()
            .unwrap();
        let events = started(&calculator);
        wait_for_publication(&events);
        assert!(calculator.status().counters.malformed >= 1);
        // Workers named by malformed values may return until their time is up.
        wait_until("the whole plan", || {
            all_held(&store, &["w-1", "w-2"]) == ids(10)
        });
        check_works(&store, &calculator);
        let listing = store.list(Bucket::Assignment, "assignment", soon());
        let left = listing.unwrap().entries;
        let left: Vec<_> = left.iter().filter(|e| e.is_live()).collect();
        let readable = left.iter().filter(|e| {
            let max = plausible_max(e.revision);
            divvy::wire::Assignment::decode(&e.value)
                .is_ok_and(|assignment| assignment.check_plausible(max).is_ok())
        });
        assert_eq!(readable.count(), 2, "{left:?}");
        // Keys that belong to no worker are not divvy's to delete.
        assert!(
            left.iter()
                .any(|e| e.key == "assignment.old-0" || e.key.contains("old-"))
        );
    }
}

#[test]
fn future_versions_and_terms_are_exceeded() {
    for store in [store(), store_b()] {
        let (calculator, _events, _fleet) = running(&store);
        let future = br#"{"version":7000,"term":70,"lifecycle":"x","partitions":[]}"#;
        store
            .server()
            .put(Bucket::Assignment, "assignment.w-2", future);
        wait_until("an answer", || calculator.current_version() > 7_000);
        check_works(&store, &calculator);
        assert!(held(&store, "w-2").unwrap().term > Some(70));
    }
}

#[test]
fn number_at_upper_limit_is_ignored_and_named_and_calculator_continues() {
    for store in [store(), store_b()] {
        let (calculator, events, _fleet) = running(&store);
        let number = i64::MAX;
        let malformed = format!(r#"{{"version":{number},"term":{number},"partitions":[]}}"#);
        store
            .server()
            .put(Bucket::Assignment, "assignment.w-1", malformed.as_bytes());
        wait_for(&events, "the name", |event| {
            let CalculatorEvent::Malformed(value) = event else {
                return false;
            };
            (value.bucket, value.key.as_str()) == (Bucket::Assignment, "assignment.w-1")
                && value.value.contains("9223372036854775807")
                && value.why.contains("implausible")
        });
        wait_until("all of it", || all_held(&store, &["w-1", "w-2"]) == ids(10));
        assert!(calculator.status().counters.malformed >= 1);
        check_works(&store, &calculator);
    }
}

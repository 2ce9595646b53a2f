//! One version per publication: what it writes and what it leaves unchanged.

use super::*;
use crate::store::memory::{Call, Fault};

#[test]
fn only_changes_are_written_and_departed_keys_deleted_in_same_step() {
    for kind in BOTH {
        let world = world(kind);
        let mut leader = Leader::leading(&world);
        leader
            .publish(&plan(&[("a", &["p"]), ("b", &["q"]), ("c", &["r"])]))
            .unwrap();
        let before = held(&world);
        let lists = plan(&[("a", &["p"]), ("b", &["q", "r"]), ("d", &[])]);
        assert_eq!(leader.publish(&lists).unwrap(), 2);
        holds_exactly(&world, &lists, 2);
        let after = held(&world);
        assert_eq!(after["a"], before["a"]);
        assert_eq!(
            after["d"].version, 2,
            "a live worker without work has a key"
        );
        let marker = entry(&world, "assignment.c").unwrap();
        assert_eq!(marker.operation, crate::store::Operation::Delete);
        assert_eq!(after["b"].term, Some(1));
    }
}

#[test]
fn every_version_writes_at_least_one_assignment() {
    for kind in BOTH {
        let world = world(kind);
        let mut leader = Leader::leading(&world);
        let lists = plan(&[("a", &["p"]), ("b", &["q"])]);
        for version in 1..4 {
            assert_eq!(leader.publish(&lists).unwrap(), version);
            holds_exactly(&world, &lists, version);
        }
        assert_eq!(held(&world)["b"].version, 1);
        // Also when the only change is a deletion.
        let lists = plan(&[("a", &["p"])]);
        assert_eq!(leader.publish(&lists).unwrap(), 4);
        holds_exactly(&world, &lists, 4);
    }
}

#[test]
fn plan_without_workers_is_rejected_and_deletes_nothing() {
    for kind in BOTH {
        let world = world(kind);
        let mut leader = Leader::leading(&world);
        leader.publish(&plan(&[("a", &[])])).unwrap();
        let error = leader.publish(&plan(&[])).unwrap_err();
        assert_eq!(error.code(), Code::NoWorkers);
        holds_exactly(&world, &plan(&[("a", &[])]), 1);
    }
}

#[test]
fn nothing_is_published_before_take_over() {
    for kind in BOTH {
        let world = world(kind);
        let mut leader = Leader::new(&world);
        let error = leader.publish(&plan(&[("a", &["p"])])).unwrap_err();
        assert_eq!(error.code(), Code::NotRunning);
        assert!(leader.publisher.resolve(&[], later()).is_err());
        assert!(held(&world).is_empty());
    }
}

fn many(count: usize, key: &str) -> Plan {
    let names: Vec<String> = (0..count).map(|n| format!("w-{n:03}")).collect();
    let workers: Vec<WorkerId> = names.iter().map(|name| id(name)).collect();
    let partitions: Vec<Partition> = (0..count)
        .map(|n| Partition::new([format!("{key}-{n:03}")], 1))
        .collect();
    let owners = (0..u32::try_from(count).unwrap()).collect();
    Plan::new(workers.into(), partitions.into(), owners).unwrap()
}

#[test]
fn large_fleet_uses_fenced_batches_with_commit_record_in_last() {
    let world = world(Kind::Few(10));
    let mut leader = Leader::leading(&world);
    leader.spy.calls();
    assert_eq!(leader.publish(&many(95, "p")).unwrap(), 1);
    assert_eq!(
        leader.spy.calls(),
        1 + 11,
        "one read of the fence, 11 batches"
    );
    holds_exactly(&world, &many(95, "p"), 1);
    let guard = entry(&world, crate::wire::GUARD_KEY).unwrap();
    let record = entry(&world, COMMIT_KEY).unwrap();
    assert!(guard.revision < record.revision);
    // Interrupted midway: the record still names the former plan, so no leader adopts the rest.
    let client = leader.client.clone();
    leader.spy.before_call(6, move || {
        let gone = Fault::Refuse(Refusal::Unavailable("gone".into()));
        client.faults().next(&[Call::Batch], 3, gone);
    });
    let error = leader.publish(&many(95, "q")).unwrap_err();
    assert!(error.is_retriable());
    assert_eq!(commit(&world).unwrap().version, 1);
    assert!(!Leader::new(&world).take_over().unwrap().consistent);
    let version = {
        let mut next = Leader::leading(&world);
        next.publish(&many(95, "q")).unwrap()
    };
    assert_eq!(version, 3);
    holds_exactly(&world, &many(95, "q"), 3);
}

#[test]
fn single_batch_is_all_or_nothing() {
    let world = world(Kind::A);
    let mut leader = Leader::leading(&world);
    leader.publish(&many(50, "p")).unwrap();
    let before = held(&world);
    for refusal in [
        Refusal::Unavailable("gone".into()),
        Refusal::Unauthorized("no".into()),
        Refusal::Full("no room".into()),
        Refusal::Other {
            code: 10_999,
            text: "words".into(),
        },
    ] {
        // A transient failure is tried three times.
        let count = match refusal {
            Refusal::Unavailable(_) => 3,
            _ => 1,
        };
        let fault = Fault::Refuse(refusal);
        leader.client.faults().next(&[Call::Batch], count, fault);
        leader.publish(&many(40, "q")).unwrap_err();
        assert_eq!(held(&world), before);
    }
    let version = leader.publish(&many(40, "q")).unwrap();
    assert_eq!(version, 8, "each attempt has its own version");
    holds_exactly(&world, &many(40, "q"), version);
}

#[test]
fn per_key_mode_repairs_interrupted_publication_in_next_one() {
    let target = plan(&[("a", &["q"]), ("c", &["p"]), ("d", &["r"])]);
    for skipped in 0..5 {
        let world = world(Kind::B);
        let mut leader = Leader::leading(&world);
        leader
            .publish(&plan(&[("a", &["p"]), ("b", &["q"]), ("e", &["r"])]))
            .unwrap();
        // This many of the following single writes arrive, without a reply; the others fail.
        let gone = Fault::Refuse(Refusal::Unavailable("gone".into()));
        let faults = leader.client.faults();
        leader.spy.before_call(2, move || {
            if skipped > 0 {
                faults.next(&[Call::Write], skipped, Fault::LoseReply);
            }
            faults.next(&[Call::Write], 100, gone);
        });
        assert!(leader.publish(&target).is_err());
        leader.client.faults().clear();
        let version = leader.publish(&target).unwrap();
        holds_exactly(&world, &target, version);
    }
}

#[test]
fn oversized_assignment_is_rejected_before_any_key_is_written() {
    for batch_max in [0, 1_000] {
        let store = MemoryStore::builder()
            .batch_max(batch_max)
            .value_max(400)
            .build();
        ensure(&store);
        let mut leader = Leader::leading(&store);
        let small = plan(&[("a", &["p"]), ("big", &["q"])]);
        leader.publish(&small).unwrap();
        let before = store.list(Bucket::Assignment, "", later()).unwrap();
        let names: Vec<String> = (0..30).map(|n| format!("partition-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let error = leader
            .publish(&plan(&[("a", &["p", "q"]), ("big", &names)]))
            .unwrap_err();
        assert_eq!(error.code(), Code::TooLarge);
        let text = error.to_string();
        for part in ["big", "400", "bytes"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(error.key(), Some("assignment.big"));
        let after = store.list(Bucket::Assignment, "", later()).unwrap();
        assert_eq!(before.last_sequence, after.last_sequence);
        assert_eq!(leader.publish(&small).unwrap(), 2);
    }
}

#[test]
fn busy_is_retried_and_unavailable_is_reported_as_retriable() {
    for kind in BOTH {
        let world = world(kind);
        let mut leader = Leader::leading(&world);
        let lists = plan(&[("a", &["p"]), ("b", &["q"])]);
        let busy = Fault::Refuse(Refusal::Busy);
        leader.client.faults().next(&Call::WRITES, 2, busy.clone());
        let version = leader.publish(&lists).unwrap();
        holds_exactly(&world, &lists, version);
        leader.client.faults().next(&Call::WRITES, 100, busy);
        let error = leader.publish(&lists).unwrap_err();
        assert!(error.is_retriable(), "{error}");
        assert!(error.to_string().contains("busy"), "{error}");
        leader.client.faults().clear();
        let gone = Fault::Refuse(Refusal::Unavailable("gone".into()));
        leader.spy.calls();
        leader.client.faults().next(&Call::WRITES, 100, gone);
        let error = leader.publish(&lists).unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
        // If each attempt read the fence, the breaker would consider the store healthy; five failed
        // writes in a row would open it although the store can be read.
        assert_eq!(leader.spy.calls(), leader.looks() + 3);
        leader.client.faults().clear();
        let version = leader.publish(&lists).unwrap();
        holds_exactly(&world, &lists, version);
    }
}

#[test]
fn any_single_failed_call_is_recovered_within_publication() {
    let gone = Fault::Refuse(Refusal::Unavailable("gone".into()));
    for kind in [Kind::A, Kind::Few(2), Kind::B] {
        for fault in [gone.clone(), Fault::LoseRequest, Fault::LoseReply] {
            for call in 1..=7 {
                let world = world(kind);
                let mut leader = Leader::new(&world);
                let client = leader.client.clone();
                let once = fault.clone();
                leader.spy.before_call(call, move || {
                    client.faults().next(&Call::ALL, 1, once);
                });
                leader.take_over().unwrap();
                leader.spy.stand_down();
                let first = plan(&[("a", &["p"]), ("b", &["q"]), ("c", &["r"])]);
                leader.publish(&first).unwrap();
                let client = leader.client.clone();
                let once = fault.clone();
                leader.spy.before_call(call, move || {
                    client.faults().next(&Call::ALL, 1, once);
                });
                let second = plan(&[("a", &["p", "q"]), ("c", &["r"]), ("d", &["s"])]);
                let version = leader.publish(&second).unwrap();
                holds_exactly(&world, &second, version);
            }
        }
    }
}

#[test]
fn open_breaker_stops_retries() {
    for kind in BOTH {
        let world = world(kind);
        let mut leader = Leader::leading(&world);
        leader
            .environment
            .is_left_alone
            .store(true, Ordering::Release);
        leader
            .client
            .faults()
            .next(&Call::READS, 1, Fault::LoseReply);
        leader.spy.calls();
        let error = leader.publish(&plan(&[("a", &["p"])])).unwrap_err();
        assert!(error.is_retriable(), "{error}");
        assert_eq!(leader.spy.calls(), 1);
    }
}

#[test]
fn stop_ends_pause_before_retry() {
    for kind in BOTH {
        let world = world(kind);
        let mut leader = Leader::leading(&world);
        let busy = Fault::Refuse(Refusal::Busy);
        leader.client.faults().next(&Call::WRITES, 100, busy);
        leader.environment.stopped.store(true, Ordering::Release);
        leader.spy.calls();
        let error = leader.publish(&plan(&[("a", &["p"])])).unwrap_err();
        assert_eq!(error.code(), Code::NotRunning);
        assert_eq!(leader.spy.calls(), leader.looks() + 1, "one attempt");
    }
}

#[test]
fn stopped_or_late_store_ends_publication_with_error() {
    for kind in BOTH {
        let world = world(kind);
        let mut leader = Leader::leading(&world);
        let lists = plan(&[("a", &["p"])]);
        let past = Instant::now();
        let error = leader.publisher.publish(&lists, Reason::Restart, past);
        assert!(error.unwrap_err().is_retriable());
        leader.client.stop(later()).unwrap();
        assert_eq!(leader.publish(&lists).unwrap_err().code(), Code::NotRunning);
        assert!(held(&world).is_empty());
    }
}

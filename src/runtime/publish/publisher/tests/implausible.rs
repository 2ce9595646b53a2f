//! Numbers near the limit, and keys that do not belong to divvy.

use super::*;

const HUGE: [i64; 3] = [i64::MAX, i64::MAX - 1, i64::MAX / 2 + 1];

const PLACES: [&str; 4] = [FENCE_KEY, COMMIT_KEY, "assignment.w-0", "heartbeat.w-0"];

fn lists() -> Plan {
    plan(&[("w-0", &["p"]), ("w-1", &["q"])])
}

/// Writes a record whose term or version, or both, are this number.
fn malform(world: &MemoryStore, place: &str, number: i64, which: u8) -> Revision {
    let (term, version) = match which {
        0 => (number, 1),
        1 => (1, number),
        _ => (number, number),
    };
    match place {
        "heartbeat.w-0" => {
            beat(world, "w-0", term, version);
            Revision::MAX
        }
        key => put(world, key, &raw(version, Some(term), &["evil"])),
    }
}

#[test]
fn implausible_numbers_in_any_record_are_ignored_and_named_by_a_take_over() {
    for kind in BOTH {
        for place in PLACES {
            for number in HUGE {
                for which in 0..3 {
                    let world = world(kind);
                    let mut first = Leader::leading(&world);
                    first.publish(&lists()).unwrap();
                    malform(&world, place, number, which);
                    let mut second = Leader::new(&world);
                    let found = second.take_over().unwrap();
                    let named = found.malformed.named()[0].to_string();
                    assert!(named.contains(place), "{named}");
                    assert!(named.contains(&number.to_string()), "{named}");
                    assert!(found.term < 1 << 20 && found.version < 1 << 20, "{found:?}");
                    for _ in 0..3 {
                        let version = second.publish(&lists()).unwrap();
                        holds_exactly(&world, &lists(), version);
                    }
                }
            }
        }
    }
}

#[test]
fn implausible_numbers_that_appear_while_a_leader_is_in_force_are_overwritten_or_ignored() {
    for kind in BOTH {
        for place in [COMMIT_KEY, "assignment.w-0", "heartbeat.w-0"] {
            for number in HUGE {
                let world = world(kind);
                let mut leader = Leader::leading(&world);
                leader.publish(&lists()).unwrap();
                let revision = malform(&world, place, number, 2);
                let heard = Applied {
                    term: number,
                    version: number,
                };
                leader.publisher.observe_applied(heard);
                let seen = [(place.to_owned(), revision)];
                leader.publisher.resolve(&seen, later()).unwrap();
                let version = leader.publish(&lists()).unwrap();
                assert_eq!((leader.publisher.term(), version), (1, 2), "{place}");
                holds_exactly(&world, &lists(), version);
            }
        }
    }
}

#[test]
fn what_a_worker_reported_is_forgotten_with_its_heartbeat() {
    for kind in BOTH {
        let world = world(kind);
        let mut leader = Leader::leading(&world);
        leader.publish(&lists()).unwrap();
        let heard = Applied {
            term: 9,
            version: 90,
        };
        beat(&world, "w-9", heard.term, heard.version);
        leader.publisher.observe_applied(heard);
        world.server().delete(Bucket::Heartbeat, "heartbeat.w-9");
        leader.publisher.resolve(&[], later()).unwrap();
        assert_eq!(leader.publish(&lists()).unwrap(), 2);
        assert_eq!(leader.publisher.term(), 1);
        // It counts while it exists.
        beat(&world, "w-9", heard.term, heard.version);
        leader.publisher.observe_applied(heard);
        leader.publisher.resolve(&[], later()).unwrap();
        assert_eq!(leader.publish(&lists()).unwrap(), 91);
        assert_eq!(leader.publisher.term(), 10);
    }
}

/// The records of a parti v2 leader in a bucket, except for its commit record.
fn v2_records(world: &MemoryStore) -> Vec<Entry> {
    for version in 1..=200 {
        let log = format!(r#"{{"version":{version},"leader_revision":7,"payload_keys":[]}}"#);
        put(
            world,
            &format!("assignment._commit_log.{version}"),
            log.as_bytes(),
        );
    }
    put(
        world,
        &format!("assignment._payload.{}", "a".repeat(64)),
        b"\x1f\x8b\x08\0",
    );
    protocol_keys(world)
}

fn protocol_keys(world: &MemoryStore) -> Vec<Entry> {
    let listing = world
        .list(Bucket::Assignment, "assignment", later())
        .unwrap();
    let mut entries = listing.entries;
    entries.retain(|entry| entry.key.starts_with("assignment._"));
    for entry in &mut entries {
        entry.age = None;
    }
    entries
}

#[test]
fn protocol_keys_of_parti_v2_are_no_workers_and_stay_untouched() {
    for kind in BOTH {
        let world = world(kind);
        put(&world, "assignment.w-0", &raw(42, None, &["p"]));
        put(&world, "assignment.w-1", &raw(42, None, &["q"]));
        let before = v2_records(&world);
        assert_eq!(before.len(), 201);
        let mut leader = Leader::new(&world);
        let found = leader.take_over().unwrap();
        assert_eq!(found.malformed.count(), 0);
        assert_eq!(found.stored.len(), 2);
        let next = plan(&[("w-0", &["p", "q"])]);
        for _ in 0..3 {
            let version = leader.publish(&next).unwrap();
            holds_exactly(&world, &next, version);
        }
        assert_eq!(protocol_keys(&world), before);
    }
}

#[test]
fn leader_refuses_a_fleet_in_which_a_commit_of_parti_v2_decides() {
    for kind in BOTH {
        let world = world(kind);
        let commit = br#"{"version":42,"leader_revision":7,"workers":["w-0"],"payloads":{}}"#;
        put(&world, "assignment._commit", commit);
        put(&world, "assignment.w-0", &raw(42, None, &["p"]));
        let before = world.list(Bucket::Assignment, "", later()).unwrap();
        let mut leader = Leader::new(&world);
        let error = leader.take_over().unwrap_err();
        assert_eq!(error.code(), Code::Unsupported);
        for part in ["assignment._commit", "parti v2", "delete the key"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        let after = world.list(Bucket::Assignment, "", later()).unwrap();
        assert_eq!(
            after.last_sequence, before.last_sequence,
            "a write was accepted"
        );
    }
}

#[test]
fn leader_steps_down_when_a_commit_of_parti_v2_appears() {
    for kind in BOTH {
        let world = world(kind);
        let mut leader = Leader::leading(&world);
        leader.publish(&lists()).unwrap();
        put(&world, "assignment._commit", br#"{"version":42}"#);
        let seen = [("assignment._commit".to_owned(), Revision::MAX)];
        let error = leader.publisher.resolve(&seen, later()).unwrap_err();
        assert_eq!(error.code(), Code::Fenced);
        assert!(error.to_string().contains("parti v2"), "{error}");
        assert_eq!(leader.publish(&lists()).unwrap_err().code(), Code::Fenced);
    }
}

#[test]
fn key_without_an_assignment_is_no_worker_and_stays_untouched() {
    for kind in BOTH {
        let world = world(kind);
        put(&world, "assignment.notes", b"kept by an operator");
        let mut leader = Leader::leading(&world);
        leader.publish(&lists()).unwrap();
        put(&world, "assignment.w-0", b"junk");
        let seen = [("assignment.w-0".to_owned(), Revision::MAX)];
        leader.publisher.resolve(&seen, later()).unwrap();
        let version = leader.publish(&lists()).unwrap();
        // The key of a worker is repaired.
        holds_exactly(&world, &lists(), version);
        let mut next = Leader::new(&world);
        assert!(next.take_over().unwrap().consistent);
        next.publish(&lists()).unwrap();
        let notes = entry(&world, "assignment.notes").unwrap();
        assert_eq!(notes.value, b"kept by an operator");
    }
}

//! Opening a term: above everything found, whatever was lost, and never twice.

use super::*;
use crate::store::memory::{Call, Fault};

#[test]
fn term_and_version_are_one_above_highest_found_anywhere() {
    for kind in BOTH {
        for place in ["fence", "commit", "assignment", "heartbeat"] {
            let world = world(kind);
            let bytes: &[u8] = match place {
                "fence" => br#"{"term":41}"#,
                _ => br#"{"term":41,"version":70}"#,
            };
            match place {
                "fence" => drop(put(&world, FENCE_KEY, bytes)),
                "commit" => drop(put(&world, COMMIT_KEY, bytes)),
                "assignment" => drop(put(&world, "assignment.w-1", bytes)),
                _ => beat(&world, "w-1", 41, 70),
            }
            let mut leader = Leader::new(&world);
            let found = leader.take_over().unwrap();
            assert_eq!(found.term, 42, "{place}");
            let version = leader.publish(&plan(&[("w-1", &["p"])])).unwrap();
            assert_eq!(version, if place == "fence" { 1 } else { 71 }, "{place}");
            assert_eq!(fence(&world).unwrap().term, 42);
        }
    }
}

#[test]
fn terms_and_versions_continue_after_loss_remembered_by_workers() {
    for kind in BOTH {
        for loss in ["keys", "purge", "re-creation"] {
            let world = world(kind);
            let mut first = Leader::leading(&world);
            let lists = plan(&[("w-1", &["p"]), ("w-2", &["q"])]);
            for _ in 0..5 {
                first.publish(&lists).unwrap();
            }
            beat(&world, "w-1", 1, 5);
            let server = world.server();
            match loss {
                "keys" => {
                    for key in ["assignment.w-1", "assignment.w-2", COMMIT_KEY, FENCE_KEY] {
                        server.delete(Bucket::Assignment, key);
                    }
                }
                "purge" => server.purge(Bucket::Assignment),
                _ => server.recreate_bucket(Bucket::Assignment, BucketConfig { ttl: None }),
            }
            // No leader has taken over yet, but the fence is gone: that suffices.
            assert_eq!(first.publish(&lists).unwrap_err().code(), Code::Fenced);
            let mut second = Leader::new(&world);
            assert!(second.take_over().unwrap().term >= 2, "{kind:?} {loss}");
            let version = second.publish(&lists).unwrap();
            assert!(version >= 6, "{kind:?} {loss}");
            holds_exactly(&world, &lists, version);
            assert_eq!(first.publish(&lists).unwrap_err().code(), Code::Fenced);
            holds_exactly(&world, &lists, version);
        }
    }
}

/// A re-created bucket restarts its sequence, so the successor's fence and keys have the revisions
/// that the deposed leader knows.
#[test]
fn recurring_revisions_in_recreated_bucket_do_not_revive_deposed_leader() {
    for kind in BOTH {
        let world = world(kind);
        let lists = plan(&[("w-1", &["p"]), ("w-2", &["q"])]);
        let mut first = Leader::leading(&world);
        first.publish(&lists).unwrap();
        let before = held(&world);
        let server = world.server();
        server.recreate_bucket(Bucket::Assignment, BucketConfig { ttl: None });
        let mut second = Leader::leading(&world);
        second.publish(&lists).unwrap();
        let after = held(&world);
        assert_eq!(
            before.values().map(|h| h.revision).collect::<Vec<_>>(),
            after.values().map(|h| h.revision).collect::<Vec<_>>(),
            "the case did not occur"
        );
        let swapped = plan(&[("w-1", &["q"]), ("w-2", &["p"])]);
        assert_eq!(first.publish(&swapped).unwrap_err().code(), Code::Fenced);
        assert_eq!(held(&world), after);
    }
}

/// Two leaders with the same name at the same instant: the loser must not mistake the winner's
/// fence, read back, for its own.
#[test]
fn concurrent_take_overs_yield_exactly_one_leader() {
    for kind in BOTH {
        let mut call = 1;
        loop {
            let world = world(kind);
            Leader::leading(&world)
                .publish(&plan(&[("w-1", &["p"]), ("w-2", &["q"])]))
                .unwrap();
            let mut one = Leader::new(&world);
            let rival = Arc::new(Mutex::new(Leader::new(&world)));
            let rivals = rival.clone();
            one.spy.before_call(call, move || {
                rivals.lock().take_over().unwrap();
            });
            let outcome = one.take_over();
            if one.spy.is_waiting() {
                assert!(call > 5, "too few calls");
                break;
            }
            let mut rival = rival.lock();
            let lists = plan(&[("w-1", &["p", "q"])]);
            let (loser, winner) = match outcome {
                Ok(found) if found.term > rival.publisher.term() => (&mut *rival, &mut one),
                // It had read everything when the rival took over.
                Ok(found) if found.term < rival.publisher.term() => (&mut one, &mut *rival),
                Ok(found) => panic!("call {call}: term {} twice", found.term),
                Err(error) => {
                    assert!(
                        matches!(error.code(), Code::Conflict | Code::Fenced),
                        "call {call}: {error}"
                    );
                    (&mut one, &mut *rival)
                }
            };
            assert!(loser.publish(&lists).is_err(), "{kind:?} call {call}");
            let version = winner.publish(&lists).unwrap();
            holds_exactly(&world, &lists, version);
            assert_eq!(fence(&world).unwrap().term, winner.publisher.term());
            // The loser may retry, with its own term.
            let term = winner.publisher.term();
            assert!(loser.take_over().unwrap().term > term);
            let version = loser.publish(&lists).unwrap();
            holds_exactly(&world, &lists, version);
            call += 1;
        }
    }
}

#[test]
fn unknown_fence_write_is_resolved_whether_stored_or_not() {
    for kind in BOTH {
        for fault in [Fault::LoseReply, Fault::LoseRequest, Fault::Hold(None)] {
            let world = world(kind);
            let mut leader = Leader::new(&world);
            leader
                .client
                .faults()
                .next(&[Call::Write], 1, fault.clone());
            assert_eq!(leader.take_over().unwrap().term, 1, "{fault:?}");
            let revision = entry(&world, FENCE_KEY).unwrap().revision;
            leader.client.faults().release_held();
            assert_eq!(entry(&world, FENCE_KEY).unwrap().revision, revision);
            let lists = plan(&[("w-1", &["p"])]);
            assert_eq!(leader.publish(&lists).unwrap(), 1);
            holds_exactly(&world, &lists, 1);
        }
    }
}

/// The write of the fence timed out and arrives long after another leader has taken over.
#[test]
fn late_fence_write_does_not_depose_leader() {
    for kind in BOTH {
        let world = world(kind);
        let mut slow = Leader::new(&world);
        slow.client
            .faults()
            .next(&[Call::Write], 1, Fault::Hold(None));
        let cut_off = Fault::Refuse(Refusal::Unavailable("gone".into()));
        slow.client.faults().next(&[Call::Read], 3, cut_off);
        assert!(slow.take_over().unwrap_err().is_retriable());
        let mut leader = Leader::leading(&world);
        slow.client.faults().release_held();
        let lists = plan(&[("w-1", &["p"])]);
        let version = leader.publish(&lists).unwrap();
        holds_exactly(&world, &lists, version);
        assert_eq!(slow.publish(&lists).unwrap_err().code(), Code::NotRunning);
    }
}

#[test]
fn unreadable_store_is_error_and_never_version_0() {
    for kind in BOTH {
        let refusal = Refusal::Unavailable("no leader".into());
        for fault in [Fault::Refuse(refusal), Fault::LoseReply] {
            for nth in 0..3 {
                let world = world(kind);
                put(&world, "assignment.w-1", &raw(70, None, &["p"]));
                let mut leader = Leader::new(&world);
                let client = leader.client.clone();
                let fault = fault.clone();
                // Calls of a take-over: capabilities, two listings, the fence, two listings.
                let number = [2, 3, 5][nth];
                leader.spy.before_call(number, move || {
                    client.faults().next(&[Call::List], 3, fault);
                });
                let error = leader.take_over().unwrap_err();
                assert!(error.is_retriable(), "{error}");
                let lists = plan(&[("w-1", &["p"])]);
                assert_eq!(leader.publish(&lists).unwrap_err().code(), Code::NotRunning);
                assert_eq!(held(&world)["w-1"].version, 70);
                leader.take_over().unwrap();
                assert_eq!(leader.publish(&lists).unwrap(), 71);
            }
        }
    }
}

#[test]
fn malformed_values_are_counted_and_skipped_everywhere() {
    for kind in BOTH {
        let world = world(kind);
        put(&world, "assignment.w-1", &raw(3, None, &["p"]));
        put(&world, "assignment.w-2", b"\xff\xfe junk");
        put(&world, "assignment.a b", &raw(900, Some(900), &["p"]));
        put(&world, "assignment.", b"{}");
        put(&world, FENCE_KEY, b"{");
        put(&world, COMMIT_KEY, b"[1,2]");
        put(&world, "stranger", b"\0");
        let server = world.server();
        server.put(Bucket::Heartbeat, "heartbeat.a b", b"x");
        server.put(Bucket::Heartbeat, "heartbeat.w-1", b"\xff");
        server.put(
            Bucket::Heartbeat,
            "heartbeat.w-2",
            br#"{"applied_version":"9"}"#,
        );
        let mut leader = Leader::new(&world);
        let found = leader.take_over().unwrap();
        assert_eq!(found.malformed.count(), 6);
        assert!(found.version >= 3);
        assert!(!found.consistent);
        assert_eq!(found.heartbeats.len(), 2);
        assert_eq!(found.stored.len(), 1);
        assert_eq!(found.former_leader, None);
        let lists = plan(&[("w-1", &["p"]), ("w-2", &["q"])]);
        assert!(leader.publish(&lists).unwrap() > found.version);
        assert_eq!(held(&world)["w-2"].partitions, ["q"]);
    }
}

#[test]
fn publish_mode_unsupported_by_store_is_rejected() {
    let world = world(Kind::B);
    let mut leader = Leader::in_mode(&world, PublishMode::Atomic);
    assert_eq!(leader.take_over().unwrap_err().code(), Code::Unsupported);
    assert!(entry(&world, FENCE_KEY).is_none());
}

/// An atomic leader needs no rewrite after another atomic one. It rewrites everything after a
/// per-key one, even if a leader in between ended before it could.
#[test]
fn revisions_known_to_per_key_leader_become_stale_once() {
    let lists = plan(&[("w-1", &["p"]), ("w-2", &["q"])]);
    for dies_between in [false, true] {
        let world = world(Kind::A);
        let mut single = Leader::in_mode(&world, PublishMode::PerKey);
        single.take_over().unwrap();
        single.publish(&lists).unwrap();
        if dies_between {
            let mut dying = Leader::new(&world);
            let client = dying.client.clone();
            dying.spy.before_call(5, move || {
                let fault = Fault::Refuse(Refusal::Unavailable("cut off".into()));
                client.faults().next(&[Call::List], 3, fault);
            });
            dying.take_over().unwrap_err();
            assert_eq!(fence(&world).unwrap().term, 2, "it ended too early");
        }
        let before = held(&world);
        let mut leader = Leader::leading(&world);
        let after = held(&world);
        for (worker, held) in &after {
            assert_eq!(held.term, Some(leader.publisher.term()));
            assert!(held.revision > before[worker].revision);
            assert_eq!(held.version, before[worker].version);
        }
        assert!(commit(&world).unwrap().term == leader.publisher.term());
        // Only the content moved: none of this is a new plan.
        leader.publisher.resolve(&[], later()).unwrap();
        let found = Leader::new(&world).take_over().unwrap();
        assert!(found.consistent);
        assert_eq!(held(&world), after, "rewritten twice");
    }
}

#[test]
fn atomic_leader_writes_only_fence_when_adopting() {
    let world = world(Kind::A);
    let lists = plan(&[("w-1", &["p"]), ("w-2", &["q"])]);
    Leader::leading(&world).publish(&lists).unwrap();
    let before = world.list(Bucket::Assignment, "", later()).unwrap();
    let found = Leader::new(&world).take_over().unwrap();
    assert!(found.consistent);
    let after = world.list(Bucket::Assignment, "", later()).unwrap();
    assert_eq!(after.last_sequence, before.last_sequence + 1);
}

/// In per-key mode the assignments receive a term when they are rewritten. The record that
/// distinguishes a plan of parti from an interrupted one must survive that.
#[test]
fn plan_published_by_parti_after_commit_record_stays_adoptable() {
    for kind in BOTH {
        let world = world(kind);
        let lists = plan(&[("w-1", &["p"]), ("w-2", &["q"])]);
        Leader::leading(&world).publish(&lists).unwrap();
        put(&world, "assignment.w-1", &raw(2, None, &["q"]));
        put(&world, "assignment.w-2", &raw(2, None, &["p"]));
        for turn in 0..3 {
            let found = Leader::new(&world).take_over().unwrap();
            assert!(found.consistent, "{kind:?} {turn}");
            assert_eq!(found.version, 2);
        }
        // An interrupted plan does not count.
        put(&world, "assignment.w-1", &raw(3, Some(1), &["p", "q"]));
        assert!(!Leader::new(&world).take_over().unwrap().consistent);
    }
}

/// Symptom: two leaders published in the same term. Cause: the fence was deleted manually, foreign
/// writes had replaced all other records of its term, and terms restarted at 1.
#[test]
fn deleted_or_malformed_fence_never_allows_reused_term() {
    for kind in BOTH {
        for broken in [None, Some(&b"junk"[..])] {
            let world = world(kind);
            let mut leader = Leader::leading(&world);
            for _ in 0..3 {
                leader = Leader::leading(&world);
            }
            leader.publish(&plan(&[("w-1", &["p"])])).unwrap();
            put(&world, "assignment.w-1", &raw(9, None, &["p"]));
            let remove = |key: &str, value: Option<&[u8]>| {
                let write = Write {
                    key: key.into(),
                    value: value.map(<[u8]>::to_vec),
                    expect: Expect::Any,
                };
                world.write(Bucket::Assignment, &[write], later());
            };
            remove(COMMIT_KEY, None);
            remove(FENCE_KEY, broken);
            let successor = Leader::leading(&world);
            assert!(successor.publisher.term() > leader.publisher.term());
        }
    }
}

/// Symptom: a version was published twice. Cause: a foreign write broke the commit record and
/// removed the newest assignment, and the worker that had applied it was gone.
#[test]
fn deleted_or_malformed_commit_record_never_allows_reused_version() {
    for kind in BOTH {
        for broken in [None, Some(b"junk".to_vec())] {
            let world = world(kind);
            put(&world, "assignment.w-1", &raw(950, None, &["p"]));
            let mut leader = Leader::leading(&world);
            let lists = plan(&[("w-2", &["p"])]);
            for _ in 0..3 {
                leader.publish(&lists).unwrap();
            }
            let last = leader.publish(&lists).unwrap();
            put(&world, "assignment.w-1", &raw(950, None, &["p"]));
            for (key, value) in [("assignment.w-2", None), (COMMIT_KEY, broken)] {
                let write = Write {
                    key: key.into(),
                    value,
                    expect: Expect::Any,
                };
                world.write(Bucket::Assignment, &[write], later());
            }
            let mut successor = Leader::leading(&world);
            assert!(successor.publish(&lists).unwrap() > last);
        }
    }
}

/// Symptom: a worker stayed without work permanently. Cause: a foreign client rewrote its
/// assignment unchanged but with an earlier term, which the worker rejects, while the worker was
/// down.
#[test]
fn assignment_with_outdated_term_is_rewritten() {
    let world = world(Kind::A);
    Leader::leading(&world);
    let mut leader = Leader::leading(&world);
    let lists = plan(&[("w-1", &["p"])]);
    let version = leader.publish(&lists).unwrap();
    assert_eq!(leader.publisher.term(), 2);
    put(&world, "assignment.w-1", &raw(version, Some(1), &["p"]));
    let mut successor = Leader::new(&world);
    assert!(!successor.take_over().unwrap().consistent);
    let next = successor.publish(&lists).unwrap();
    assert!(next > version);
    assert_eq!(held(&world)["w-1"].version, next);
}

/// Symptom: a change of leader published a plan that nothing had changed. Cause: a term that was
/// opened and reported, but in which nothing was published, was treated as a lost publication.
#[test]
fn plan_of_an_earlier_term_stands_although_a_later_term_is_reported() {
    for kind in BOTH {
        let world = world(kind);
        let lists = plan(&[("w-1", &["p"]), ("w-2", &["q"])]);
        let version = Leader::leading(&world).publish(&lists).unwrap();
        Leader::leading(&world);
        let value = format!(
            r#"{{"worker":"w-1","applied_term":1,"applied_version":{version},"highest_term":2,"highest_version":{version}}}"#
        );
        let key = "heartbeat.w-1";
        world.server().put(Bucket::Heartbeat, key, value.as_bytes());
        let found = Leader::new(&world).take_over().unwrap();
        assert!(found.consistent, "{kind:?}");
        assert_eq!((found.term, found.version), (3, version), "{kind:?}");
    }
}

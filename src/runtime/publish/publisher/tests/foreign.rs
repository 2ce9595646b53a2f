//! Writers without a fence: Go leaders, operators, malformed values.

use super::*;

fn lists() -> Plan {
    plan(&[("a", &["p"]), ("b", &["q"])])
}

fn leading(kind: Kind) -> (MemoryStore, Leader) {
    let world = world(kind);
    let mut leader = Leader::leading(&world);
    for _ in 0..5 {
        leader.publish(&lists()).unwrap();
    }
    leader.spy.calls();
    (world, leader)
}

fn seen(key: &str, revision: Revision) -> [(String, Revision); 1] {
    [(key.to_owned(), revision)]
}

#[test]
fn foreign_write_is_detected_and_published_above() {
    let cases: [(&str, Vec<u8>); 7] = [
        ("lower", raw(3, None, &["x"])),
        ("equal", raw(5, None, &["x"])),
        ("higher", raw(80, None, &["x"])),
        ("no version", raw(0, None, &[])),
        ("bogus term", raw(80, Some(70), &["x"])),
        ("own term", raw(80, Some(1), &["x"])),
        ("garbage", b"\xff{".to_vec()),
    ];
    for kind in BOTH {
        for (name, value) in &cases {
            for key in ["assignment.a", "assignment.stranger"] {
                let (world, mut leader) = leading(kind);
                let revision = put(&world, key, value);
                let seen = seen(key, revision);
                assert!(leader.publisher.resolve(&seen, later()).unwrap(), "{name}");
                let version = leader.publish(&lists()).unwrap();
                let is_high = value.starts_with(b"{\"version\":80");
                assert_eq!(version, if is_high { 81 } else { 6 }, "{name}");
                holds_exactly(&world, &lists(), version);
                let bogus = *name == "bogus term";
                assert_eq!(
                    leader.publisher.term(),
                    if bogus { 71 } else { 1 },
                    "{name}"
                );
                assert_eq!(fence(&world).unwrap().term, leader.publisher.term());
                // It is resolved once.
                leader.spy.calls();
                assert!(!leader.publisher.resolve(&seen, later()).unwrap());
                assert_eq!(leader.spy.calls(), 0);
            }
        }
    }
}

#[test]
fn unreported_foreign_write_is_resolved_by_next_publication() {
    for kind in BOTH {
        let (world, mut leader) = leading(kind);
        put(&world, "assignment.a", &raw(80, None, &["x"]));
        let next = plan(&[("a", &["q"]), ("b", &["p"])]);
        let version = leader.publish(&next).unwrap();
        assert_eq!(version, 81);
        holds_exactly(&world, &next, version);
    }
}

#[test]
fn manually_deleted_or_purged_keys_are_detected_and_rewritten() {
    for kind in BOTH {
        for what in ["assignment.a", COMMIT_KEY] {
            let (world, mut leader) = leading(kind);
            let revision = world.server().delete(Bucket::Assignment, what);
            let seen = seen(what, revision);
            assert!(leader.publisher.resolve(&seen, later()).unwrap());
            let version = leader.publish(&lists()).unwrap();
            assert_eq!(version, 6);
            holds_exactly(&world, &lists(), version);
        }
        // Everything was removed, including the fence: that ends the term.
        let (world, mut leader) = leading(kind);
        world.server().purge(Bucket::Assignment);
        let seen = seen("assignment.a", Revision::MAX);
        let error = leader.publisher.resolve(&seen, later()).unwrap_err();
        assert_eq!(error.code(), Code::Fenced);
        assert!(error.to_string().contains("removed"), "{error}");
    }
}

#[test]
fn fence_changed_by_third_party_ends_term() {
    for kind in BOTH {
        for value in [None, Some(&b"junk"[..]), Some(br#"{"term":1}"#)] {
            let (world, mut leader) = leading(kind);
            let revision = match value {
                None => world.server().delete(Bucket::Assignment, FENCE_KEY),
                Some(value) => put(&world, FENCE_KEY, value),
            };
            let seen = seen(FENCE_KEY, revision);
            let error = leader.publisher.resolve(&seen, later()).unwrap_err();
            assert_eq!(error.code(), Code::Fenced);
            assert_eq!(leader.publish(&lists()).unwrap_err().code(), Code::Fenced);
            assert!(leader.take_over().unwrap().term >= 2);
            assert_eq!(leader.publish(&lists()).unwrap(), 6);
        }
    }
}

#[test]
fn own_writes_are_never_treated_as_foreign_and_cost_no_call() {
    for kind in [Kind::A, Kind::Few(2), Kind::B] {
        let world = world(kind);
        let mut leader = Leader::leading(&world);
        let mut own = Vec::new();
        let note = |own: &mut Vec<(String, Revision)>| {
            let listing = world.list(Bucket::Assignment, "", later()).unwrap();
            own.extend(listing.entries.into_iter().map(|e| (e.key, e.revision)));
        };
        note(&mut own);
        for lists in [
            lists(),
            plan(&[("a", &["p", "q"]), ("c", &[])]),
            plan(&[("b", &["p", "q"]), ("c", &[])]),
        ] {
            leader.publish(&lists).unwrap();
            note(&mut own);
        }
        let mut successor = Leader::leading(&world);
        note(&mut own);
        successor.spy.calls();
        assert!(!successor.publisher.resolve(&own, later()).unwrap());
        assert!(own.len() > 12);
        assert_eq!(successor.spy.calls(), 0);
    }
}

/// A parti leader that has not noticed its deposition writes repeatedly.
#[test]
fn each_unconditional_put_of_go_leader_is_answered_until_it_stops() {
    for kind in BOTH {
        let (world, mut leader) = leading(kind);
        let mut version = 5;
        for turn in 0..20 {
            let revision = put(
                &world,
                "assignment.b",
                &raw(version + turn % 3, None, &["z"]),
            );
            let seen = seen("assignment.b", revision);
            assert!(leader.publisher.resolve(&seen, later()).unwrap());
            let next = leader.publish(&lists()).unwrap();
            assert!(next > version && next > version + turn % 3 - 1);
            version = next;
            holds_exactly(&world, &lists(), version);
        }
    }
}

/// Symptom: a worker that had applied version 9 rejected forever what a Go leader had written as
/// version 8, because it happened to equal the plan and was not rewritten.
#[test]
fn foreign_write_equal_to_plan_is_rewritten_above() {
    for kind in BOTH {
        let (world, mut leader) = leading(kind);
        let revision = put(&world, "assignment.a", &raw(3, None, &["p"]));
        let seen = seen("assignment.a", revision);
        assert!(leader.publisher.resolve(&seen, later()).unwrap());
        let version = leader.publish(&lists()).unwrap();
        assert_eq!(held(&world)["a"].version, version);
        // No further rewrite follows.
        leader.publish(&plan(&[("a", &["p"]), ("b", &[])])).unwrap();
        assert_eq!(held(&world)["a"].version, version);
    }
}

/// Symptom: two owners (seed 9141 of the managers). Cause: a foreign client had written an empty
/// list with the version that the worker had applied. The worker rejected it, and the next leader,
/// whose plan was also empty for it, did not rewrite it.
#[test]
fn take_over_does_not_trust_foreign_assignment() {
    for kind in BOTH {
        let (world, _leader) = leading(kind);
        put(&world, "assignment.b", &raw(1, None, &[]));
        beat(&world, "b", 1, 1);
        let mut successor = Leader::new(&world);
        assert!(!successor.take_over().unwrap().consistent);
        let lists = plan(&[("a", &["p", "q"]), ("b", &[])]);
        let version = successor.publish(&lists).unwrap();
        assert_eq!(held(&world)["b"].version, version, "{kind:?}");
        assert_eq!(held(&world)["b"].term, Some(successor.publisher.term()));
        assert!(Leader::new(&world).take_over().unwrap().consistent);
    }
}

/// After its first publication no assignment of a parti leader remains, so an assignment without a
/// term is foreign.
#[test]
fn first_publication_after_leader_without_terms_rewrites_all_assignments() {
    for kind in BOTH {
        let world = world(kind);
        put(&world, "assignment.a", &raw(7, None, &["p"]));
        put(&world, "assignment.b", &raw(7, None, &["q"]));
        let mut leader = Leader::new(&world);
        assert!(leader.take_over().unwrap().consistent);
        let next = plan(&[("a", &["p"]), ("b", &["q"]), ("c", &[])]);
        assert_eq!(leader.publish(&next).unwrap(), 8);
        assert!(held(&world).values().all(|held| held.version == 8));
        // No further rewrite follows.
        let next = plan(&[("a", &["p"]), ("b", &[]), ("c", &["q"])]);
        assert_eq!(leader.publish(&next).unwrap(), 9);
        assert_eq!(held(&world)["a"].version, 8);
        assert!(Leader::new(&world).take_over().unwrap().consistent);
    }
}

#[test]
fn take_over_rewrites_assignment_older_than_worker_has_applied() {
    for kind in BOTH {
        for (applied, refused) in [((0, 5), true), ((1, 5), true), ((1, 3), false)] {
            let (world, _leader) = leading(kind);
            put(&world, "assignment.b", &raw(4, Some(1), &["q"]));
            let (term, version) = applied;
            beat(&world, "b", term, version);
            let mut successor = Leader::new(&world);
            let found = successor.take_over().unwrap();
            assert_eq!(found.consistent, !refused, "{applied:?}");
            let version = successor.publish(&lists()).unwrap();
            let now = held(&world)["b"].version;
            assert_eq!(now == version, refused, "{applied:?}");
        }
    }
}

/// Symptom: a worker that had applied a foreign assignment, which was deleted before the leader
/// observed it, rejected everything that the leader published afterwards.
#[test]
fn applied_foreign_version_is_exceeded_even_after_deletion() {
    for kind in BOTH {
        let (world, mut leader) = leading(kind);
        put(&world, "assignment.a", &raw(80, None, &["x"]));
        beat(&world, "a", 0, 80);
        let revision = world.server().delete(Bucket::Assignment, "assignment.a");
        let seen = seen("assignment.a", revision);
        assert!(leader.publisher.resolve(&seen, later()).unwrap());
        assert_eq!(leader.publish(&lists()).unwrap(), 81);
        holds_exactly(&world, &lists(), 81);
    }
}

/// Symptom: a worker stayed without work permanently. Cause: it had applied a version that the
/// bucket lost, and rejected every lower one. Its leader did not know, because it read heartbeats
/// only at its take-over.
#[test]
fn applied_versions_are_tracked_and_every_key_is_raised_above_them() {
    for kind in BOTH {
        for (term, version) in [(0, 90), (1, 90), (9, 3), (9, 90)] {
            let (world, mut leader) = leading(kind);
            beat(&world, "a", term, version);
            leader.publisher.observe_applied(Applied { term, version });
            assert!(leader.publisher.resolve(&[], later()).unwrap());
            let published = leader.publish(&lists()).unwrap();
            assert_eq!(published, version.max(5) + 1);
            assert!(leader.publisher.term() > term || term <= 1);
            holds_exactly(&world, &lists(), published);
            for (worker, held) in held(&world) {
                let now = (held.term.unwrap(), held.version);
                assert!(now > (term, version), "{worker} still refuses {now:?}");
            }
            assert!(!leader.publisher.resolve(&[], later()).unwrap());
        }
    }
}

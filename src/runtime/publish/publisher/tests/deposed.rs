//! A deposed leader cannot publish.

use super::*;
use crate::store::memory::{Call, Fault};

/// Before the publication: `stays` keeps its assignment, `gone` was deleted, `malformed` has a
/// malformed value, `new` never had a key, `leaves` is no longer in the plan.
fn set_the_scene(kind: Kind) -> (MemoryStore, Leader) {
    let world = world(kind);
    let mut leader = Leader::leading(&world);
    let first = plan(&[
        ("gone", &["a"]),
        ("leaves", &["b"]),
        ("moves", &["c"]),
        ("stays", &["d"]),
    ]);
    leader.publish(&first).unwrap();
    let second = plan(&[
        ("leaves", &["a", "b"]),
        ("moves", &["c"]),
        ("stays", &["d"]),
    ]);
    leader.publish(&second).unwrap();
    let revision = put(&world, "assignment.malformed", b"junk");
    let seen = [("assignment.malformed".to_owned(), revision)];
    assert!(leader.publisher.resolve(&seen, later()).unwrap());
    (world, leader)
}

fn next_plan() -> Plan {
    plan(&[
        ("gone", &["a"]),
        ("malformed", &["b"]),
        ("moves", &[]),
        ("new", &["c"]),
        ("stays", &["d"]),
    ])
}

#[test]
fn take_over_at_any_call_leaves_nothing_of_deposed_leader() {
    for kind in [Kind::A, Kind::Few(3), Kind::B] {
        for call in 1.. {
            let (world, mut deposed) = set_the_scene(kind);
            let rival = Arc::new(Mutex::new(Leader::new(&world)));
            let at_take_over = Arc::new(Mutex::new(None));
            let (rivals, sender, store) = (rival.clone(), at_take_over.clone(), world.clone());
            deposed.spy.before_call(call, move || {
                rivals.lock().take_over().unwrap();
                *sender.lock() = Some(store.list(Bucket::Assignment, "", later()).unwrap());
            });
            let outcome = deposed.publish(&next_plan());
            if deposed.spy.is_waiting() {
                outcome.unwrap();
                assert!(call > if kind == Kind::A { 2 } else { 4 });
                break;
            }
            let error = outcome.unwrap_err();
            assert_eq!(error.code(), Code::Fenced, "{kind:?} call {call}: {error}");
            let known = at_take_over.lock().take().unwrap();
            let now = world.list(Bucket::Assignment, "", later()).unwrap();
            assert_eq!(
                known.last_sequence, now.last_sequence,
                "{kind:?} call {call}: a write was accepted after the take-over"
            );
            for _ in 0..10 {
                let error = deposed.publish(&next_plan()).unwrap_err();
                assert_eq!(error.code(), Code::Fenced);
                let seen = [("assignment.stays".to_owned(), Revision::MAX)];
                let error = deposed.publisher.resolve(&seen, later()).unwrap_err();
                assert_eq!(error.code(), Code::Fenced);
            }
            let mut rival = rival.lock();
            let version = rival.publish(&next_plan()).unwrap();
            holds_exactly(&world, &next_plan(), version);
            let highest = known
                .entries
                .iter()
                .filter_map(|entry| Assignment::decode(&entry.value).ok().map(|a| a.version));
            assert!(version > highest.max().unwrap());
        }
    }
}

/// The reverse: the publication of the deposed leader, started before, continues during every step
/// of the rival's take-over.
#[test]
fn writes_of_deposed_leader_during_take_over_are_seen_and_overwritten() {
    for kind in [Kind::A, Kind::Few(3), Kind::B] {
        for steps in 1..10 {
            for call in 1.. {
                let (world, deposed) = set_the_scene(kind);
                let deposed = Arc::new(Mutex::new(deposed));
                let mut rival = Leader::new(&world);
                let deposeds = deposed.clone();
                rival.spy.before_call(call, move || {
                    // A publication that ends after this many store calls.
                    let mut deposed = deposeds.lock();
                    let client = deposed.client.clone();
                    deposed.spy.before_call(steps, move || {
                        client.stop(later()).unwrap();
                    });
                    let _ = deposed.publish(&next_plan());
                });
                let found = rival.take_over().unwrap();
                if rival.spy.is_waiting() {
                    assert!(call > 6);
                    break;
                }
                let stored = held(&world);
                let names: Vec<String> = found.stored.iter().map(|(w, _)| w.to_string()).collect();
                assert_eq!(
                    names,
                    stored.keys().cloned().collect::<Vec<_>>(),
                    "{kind:?} {steps} {call}"
                );
                for (worker, held) in &stored {
                    assert!(
                        held.version <= found.version,
                        "{kind:?} {steps} {call} {worker}"
                    );
                    let slot = &rival.publisher.known.slots[worker.as_str()];
                    assert_eq!(
                        slot.revision, held.revision,
                        "{kind:?} {steps} {call} {worker}"
                    );
                }
                let version = rival.publish(&next_plan()).unwrap();
                holds_exactly(&world, &next_plan(), version);
            }
        }
    }
}

/// The fence of a new leader is written right after an own write: the number of the next own write
/// must not be treated as the end of the log, or keys could be created on top of the fence.
#[test]
fn key_is_not_created_over_unseen_fence() {
    for kind in [Kind::Few(2), Kind::B] {
        let world = world(kind);
        let mut deposed = Leader::leading(&world);
        deposed
            .publish(&plan(&[("a", &["p"]), ("b", &["q"])]))
            .unwrap();
        // Only the fence of the rival's take-over has arrived so far.
        let store = world.clone();
        deposed.spy.before_call(deposed.looks() + 1, move || {
            let fence = Fence {
                term: 2,
                ..Fence::default()
            };
            put(&store, FENCE_KEY, &fence.encode());
        });
        let lists = plan(&[("a", &["q"]), ("b", &["p"]), ("new", &[])]);
        let error = deposed.publish(&lists).unwrap_err();
        assert_eq!(error.code(), Code::Fenced);
        assert!(!held(&world).contains_key("new"), "{kind:?}");
    }
}

#[test]
fn ten_thousand_attempts_with_deposed_token_are_all_rejected() {
    for kind in BOTH {
        let (world, mut deposed) = set_the_scene(kind);
        let mut rival = Leader::leading(&world);
        rival.publish(&next_plan()).unwrap();
        let before = world.list(Bucket::Assignment, "", later()).unwrap();
        let known = deposed.publisher.known.clone();
        let plans = [
            next_plan(),
            plan(&[("stays", &["d", "e"])]),
            plan(&[("never", &["a"]), ("stays", &["d"])]),
        ];
        for n in 0..10_000 {
            // As if it had not detected the rival yet.
            deposed.publisher.term_state = TermState::Effective;
            deposed.publisher.known = known.clone();
            let plan = &plans[n % plans.len()];
            let mut draft = deposed
                .publisher
                .draft(plan, Reason::ManualRefresh, &plan_hashes(plan))
                .unwrap();
            // Directly to the store, without reading the fence before.
            let attempt = match deposed.publisher.mode {
                ActiveMode::Atomic => deposed.publisher.publish_atomically(
                    &mut draft,
                    deposed.publisher.batch_max,
                    later(),
                ),
                ActiveMode::PerKey => deposed.publisher.publish_singly(&mut draft, later()),
            };
            assert!(attempt.is_err(), "{kind:?} {n}");
        }
        deposed.publisher.known = known;
        let error = deposed.publish(&next_plan()).unwrap_err();
        assert_eq!(error.code(), Code::Fenced);
        let after = world.list(Bucket::Assignment, "", later()).unwrap();
        assert_eq!(before.last_sequence, after.last_sequence);
    }
}

/// Opening another term failed midway and a rival took over: the unopened term must never be used.
#[test]
fn term_that_failed_to_open_is_never_published() {
    for kind in BOTH {
        for fault in [Fault::LoseRequest, Fault::LoseReply, Fault::Hold(None)] {
            for nth in 1..7 {
                let world = world(kind);
                let mut leader = Leader::leading(&world);
                let lists = plan(&[("w-1", &["p"]), ("w-2", &["q"])]);
                leader.publish(&lists).unwrap();
                let revision = put(&world, "assignment.w-1", &raw(9, Some(50), &["x"]));
                let client = leader.client.clone();
                let fault = fault.clone();
                leader.spy.before_call(nth, move || {
                    client.faults().next(&[Call::Write], 1, fault);
                    client.faults().next(&Call::READS, 3, Fault::LoseReply);
                });
                let seen = [("assignment.w-1".to_owned(), revision)];
                let settled = leader.publisher.resolve(&seen, later());
                let in_term = |term| {
                    held(&world)
                        .values()
                        .filter(|h| h.term == Some(term))
                        .count()
                };
                if fence(&world).unwrap().term != 51 {
                    assert_eq!(in_term(51), 0, "{nth}");
                }
                leader.spy.stand_down();
                leader.client.faults().clear();
                // It either reads the current fence, or loses the leadership.
                let again = leader.publisher.resolve(&seen, later());
                leader.client.faults().release_held();
                match again {
                    Ok(foreign) => {
                        assert!(
                            foreign || settled.is_ok(),
                            "the foreign write was not repaired"
                        );
                        let version = leader.publish(&lists).unwrap();
                        assert_eq!(version, 10);
                        holds_exactly(&world, &lists, version);
                        let written = held(&world)["w-1"].term.unwrap();
                        assert_eq!(written, fence(&world).unwrap().term);
                        assert!(written > 50);
                    }
                    Err(error) => {
                        assert_eq!(error.code(), Code::Fenced);
                        assert!(fence(&world).unwrap().term == 51 || in_term(51) == 0);
                    }
                }
                let mut rival = Leader::new(&world);
                let found = rival.take_over().unwrap();
                assert!(found.term > leader.publisher.term() || again_fenced(&mut leader, &lists));
                assert_eq!(leader.publish(&lists).unwrap_err().code(), Code::Fenced);
                let version = rival.publish(&lists).unwrap();
                holds_exactly(&world, &lists, version);
            }
        }
    }
}

fn again_fenced(leader: &mut Leader, lists: &Plan) -> bool {
    leader
        .publish(lists)
        .is_err_and(|e| e.code() == Code::Fenced)
}

/// A leader that opens another term and finds a rival's fence is deposed, not in conflict.
#[test]
fn rival_during_opening_of_further_term_deposes_leader() {
    for kind in BOTH {
        for call in 1.. {
            let world = world(kind);
            let mut leader = Leader::leading(&world);
            let lists = plan(&[("w-1", &["p"])]);
            leader.publish(&lists).unwrap();
            let revision = put(&world, "assignment.w-1", &raw(9, Some(50), &["x"]));
            let rival = Arc::new(Mutex::new(Leader::new(&world)));
            let rivals = rival.clone();
            leader.spy.before_call(call, move || {
                rivals.lock().take_over().unwrap();
            });
            let seen = [("assignment.w-1".to_owned(), revision)];
            let settled = leader.publisher.resolve(&seen, later());
            if leader.spy.is_waiting() {
                settled.unwrap();
                assert!(call > 3);
                break;
            }
            let error = settled.and_then(|_| leader.publish(&lists)).unwrap_err();
            assert_eq!(error.code(), Code::Fenced, "{kind:?} {call}: {error}");
            let version = rival.lock().publish(&lists).unwrap();
            holds_exactly(&world, &lists, version);
        }
    }
}

/// Delayed writes of a deposed leader that arrive after the take-over.
#[test]
fn delayed_writes_of_deposed_leader_have_no_effect() {
    for kind in [Kind::A, Kind::Few(3), Kind::B] {
        for skipped in 0..8 {
            let (world, mut deposed) = set_the_scene(kind);
            let client = deposed.client.clone();
            deposed
                .spy
                .before_call(deposed.looks() + 1 + skipped, move || {
                    client.faults().next(&Call::WRITES, 100, Fault::Hold(None));
                    client.faults().next(&Call::READS, 100, Fault::LoseReply);
                });
            let _ = deposed.publish(&next_plan());
            deposed.client.faults().clear();
            let mut rival = Leader::leading(&world);
            let before = world.list(Bucket::Assignment, "", later()).unwrap();
            let held_up = deposed.client.faults().held();
            deposed.client.faults().release_held();
            let after = world.list(Bucket::Assignment, "", later()).unwrap();
            assert_eq!(
                before.last_sequence, after.last_sequence,
                "{kind:?} {skipped}"
            );
            assert!(skipped > 0 || held_up > 0);
            let version = rival.publish(&next_plan()).unwrap();
            holds_exactly(&world, &next_plan(), version);
        }
    }
}

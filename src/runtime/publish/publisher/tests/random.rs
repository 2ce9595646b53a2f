//! Random histories of two rival leaders, foreign writers and faults.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::store::memory::{Call, Fault};

#[derive(Clone, Debug)]
enum Step {
    Publish {
        leader: usize,
        plan: usize,
    },
    TakeOver {
        leader: usize,
    },
    Converge {
        leader: usize,
    },
    /// The rival takes over before a call of this leader's publication.
    Interrupt {
        leader: usize,
        call: u32,
        plan: usize,
    },
    Fault {
        leader: usize,
        kind: usize,
        count: u32,
        reads: bool,
    },
    Release {
        leader: usize,
    },
    Heal {
        leader: usize,
    },
    Foreign {
        worker: usize,
        version: i64,
        term: Option<Term>,
        junk: bool,
    },
    Delete {
        worker: usize,
    },
}

const WORKERS: [&str; 5] = ["a", "b", "c", "d", "e"];

fn plans() -> Vec<Plan> {
    vec![
        plan(&[("a", &["p", "q"]), ("b", &["r", "s"])]),
        plan(&[("a", &["p"]), ("b", &["r", "s"]), ("c", &["q"])]),
        plan(&[("b", &["r", "s"]), ("c", &["p", "q"])]),
        plan(&[("a", &[]), ("c", &["p", "q"]), ("d", &["r", "s"])]),
        plan(&[("d", &["p", "q", "r", "s"])]),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let leader = 0..2_usize;
    let plan = 0..5_usize;
    let step = prop_oneof![
        6 => (leader.clone(), plan.clone()).prop_map(|(leader, plan)| Step::Publish { leader, plan }),
        2 => leader.clone().prop_map(|leader| Step::TakeOver { leader }),
        2 => leader.clone().prop_map(|leader| Step::Converge { leader }),
        2 => (leader.clone(), 1..8_u32, plan)
            .prop_map(|(leader, call, plan)| Step::Interrupt { leader, call, plan }),
        4 => (leader.clone(), 0..5_usize, 1..5_u32, any::<bool>())
            .prop_map(|(leader, kind, count, reads)| Step::Fault { leader, kind, count, reads }),
        2 => leader.clone().prop_map(|leader| Step::Release { leader }),
        1 => leader.prop_map(|leader| Step::Heal { leader }),
        1 => (0..5_usize, 0..4_i64, prop::option::of(0..4_i64), any::<bool>())
            .prop_map(|(worker, version, term, junk)| Step::Foreign { worker, version, term, junk }),
        1 => (0..5_usize).prop_map(|worker| Step::Delete { worker }),
    ];
    vec(step, 1..40)
}

/// What was observed in the bucket.
#[derive(Default)]
struct History {
    /// Per worker: the last version that a leader of divvy wrote.
    versions: BTreeMap<String, Version>,
    /// The content of each (term, version) of a worker.
    contents: BTreeMap<(String, Term, Version), Vec<String>>,
    /// The highest term of a leader that took over, and the sequence then.
    fenced_at: Option<(Term, Revision)>,
    /// Foreign writes, by revision.
    foreign: std::collections::BTreeSet<Revision>,
}

impl History {
    fn look(&mut self, world: &MemoryStore) {
        for (worker, held) in held(world) {
            let Some(term) = held.term else { continue };
            if self.foreign.contains(&held.revision) {
                continue;
            }
            let last = self.versions.entry(worker.clone()).or_default();
            assert!(
                held.version >= *last,
                "{worker}: {} after {last}",
                held.version
            );
            *last = held.version;
            // The worker reports what it applied: that outlives its key.
            beat(world, &worker, term, held.version);
            if let Some((fenced, at)) = self.fenced_at {
                assert!(
                    held.revision <= at || term >= fenced,
                    "{worker}: term {term} accepted after the take-over in term {fenced}"
                );
            }
            let key = (worker.clone(), term, held.version);
            let content = self.contents.entry(key).or_insert(held.partitions.clone());
            assert_eq!(
                *content, held.partitions,
                "{worker}: a version with two contents"
            );
        }
    }

    fn took_over(&mut self, world: &MemoryStore, result: &Result<TakeOverResult>) {
        if let Ok(found) = result {
            let listing = world.list(Bucket::Assignment, "", later()).unwrap();
            self.fenced_at = Some((found.term, listing.last_sequence));
        }
    }
}

fn fault(kind: usize) -> Fault {
    match kind {
        0 => Fault::LoseReply,
        1 => Fault::LoseRequest,
        2 => Fault::Hold(None),
        3 => Fault::Refuse(Refusal::Busy),
        _ => Fault::Refuse(Refusal::Unavailable("gone".into())),
    }
}

fn run(kind: Kind, steps: Vec<Step>) {
    let world = world(kind);
    let leaders = [0, 1].map(|_| Arc::new(Mutex::new(Leader::new(&world))));
    let history = Arc::new(Mutex::new(History::default()));
    let plans = plans();
    for step in steps {
        match step {
            Step::Publish { leader, plan } => {
                let _ = leaders[leader].lock().publish(&plans[plan]);
            }
            Step::TakeOver { leader } => {
                let result = leaders[leader].lock().take_over();
                history.lock().took_over(&world, &result);
            }
            Step::Converge { leader } => {
                let seen = [("assignment.a".to_owned(), Revision::MAX)];
                let _ = leaders[leader].lock().publisher.resolve(&seen, later());
            }
            Step::Interrupt { leader, call, plan } => {
                let (rival, notes, store) =
                    (leaders[1 - leader].clone(), history.clone(), world.clone());
                let mut leader = leaders[leader].lock();
                leader.spy.before_call(call, move || {
                    let result = rival.lock().take_over();
                    notes.lock().took_over(&store, &result);
                    notes.lock().look(&store);
                });
                let _ = leader.publish(&plans[plan]);
                leader.spy.stand_down();
            }
            Step::Fault {
                leader,
                kind,
                count,
                reads,
            } => {
                let calls = if reads {
                    &Call::READS[..]
                } else {
                    &Call::WRITES
                };
                let faults = leaders[leader].lock().client.faults();
                faults.next(calls, count, fault(kind));
            }
            Step::Release { leader } => leaders[leader].lock().client.faults().release_held(),
            Step::Heal { leader } => leaders[leader].lock().client.faults().clear(),
            Step::Foreign {
                worker,
                version,
                term,
                junk,
            } => {
                let value = if junk {
                    b"junk".to_vec()
                } else {
                    raw(version, term, &["z"])
                };
                let key = format!("assignment.{}", WORKERS[worker]);
                let revision = put(&world, &key, &value);
                let mut history = history.lock();
                history.foreign.insert(revision);
                if term.is_some() && !junk {
                    // A forged term can make a key go back: a take-over cannot detect it.
                    history.versions.remove(WORKERS[worker]);
                }
            }
            Step::Delete { worker } => {
                let key = format!("assignment.{}", WORKERS[worker]);
                world.server().delete(Bucket::Assignment, &key);
            }
        }
        history.lock().look(&world);
    }
    for leader in &leaders {
        leader.lock().client.faults().clear();
    }
    let mut last = leaders[0].lock();
    let result = last.take_over();
    history.lock().took_over(&world, &result);
    result.unwrap();
    let version = last.publish(&plans[1]).unwrap();
    drop(last);
    for leader in &leaders {
        leader.lock().client.faults().release_held();
    }
    holds_exactly(&world, &plans[1], version);
    history.lock().look(&world);
    let error = leaders[1].lock().publish(&plans[0]).unwrap_err();
    assert!(matches!(error.code(), Code::Fenced | Code::NotRunning));
    holds_exactly(&world, &plans[1], version);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn versions_never_decrease_and_last_publication_prevails(
        kind in prop_oneof![Just(Kind::A), Just(Kind::B), Just(Kind::Few(2)), Just(Kind::Few(3))],
        steps in steps(),
    ) {
        run(kind, steps);
    }
}

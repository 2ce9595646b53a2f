//! Jobs against sources and strategies that fail, and plans found at a take-over.

use parking_lot::Mutex;

use super::super::list_reader::threaded;
use super::super::partition_list::PartitionSource;
use super::*;
use crate::config::PublishMode;
use crate::error::Error;
use crate::runtime::publish::publisher::tests::{
    BOTH, Kind, Still, ensure, held, holds_exactly, id, later, put, raw, settings, world,
};
use crate::store::memory::MemoryStore;
use crate::store::{Bucket, Store};
use crate::strategy::RoundRobin;
use crate::wire::{COMMIT_KEY, Commit};

fn workers(names: &[&str]) -> Arc<[WorkerId]> {
    names.iter().map(|name| id(name)).collect()
}

fn list(keys: &[&str]) -> Vec<Partition> {
    keys.iter().map(|key| Partition::new([*key], 1)).collect()
}

fn rebalancer_of(
    world: &MemoryStore,
    class: PublishMode,
    partitions: &Arc<Partitions>,
    strategy: Arc<dyn Strategy>,
) -> Rebalancer {
    let publisher = Publisher::new(
        Arc::new(world.client("leader")),
        Arc::new(Still::default()),
        settings(class),
        Arc::default(),
    );
    Rebalancer::new(publisher, Arc::clone(partitions), strategy, 1, false)
}

fn leading(
    world: &MemoryStore,
    partitions: &Arc<Partitions>,
    strategy: impl Strategy + 'static,
) -> Rebalancer {
    let mut rebalancer = rebalancer_of(world, PublishMode::Auto, partitions, Arc::new(strategy));
    rebalancer.take_over(later()).unwrap();
    rebalancer
}

fn pushed(keys: &[&str]) -> Arc<Partitions> {
    let partitions = Arc::new(Partitions::pushed());
    partitions.push(list(keys)).unwrap();
    partitions
}

fn publish(rebalancer: &mut Rebalancer, names: &[&str]) -> Result<Publication> {
    let job = Job::Publish {
        reason: Reason::PlannedScale,
        workers: workers(names),
    };
    match rebalancer.run(job, later())? {
        JobReport::Published(publication) => Ok(publication),
        other => panic!("{other:?}"),
    }
}

fn inspect(rebalancer: &mut Rebalancer) -> (u64, Finding) {
    match rebalancer.run(Job::Inspect, later()).unwrap() {
        JobReport::Inspected {
            generation,
            finding,
        } => (generation, finding),
        other => panic!("{other:?}"),
    }
}

/// A source that returns what the test sets, or panics.
#[derive(Clone)]
struct Source(Arc<Mutex<Option<Result<Vec<Partition>>>>>);

impl PartitionSource for Source {
    fn list_partitions(&self, _: Instant) -> Result<Vec<Partition>> {
        self.0.lock().clone().expect("simulated")
    }
}

#[test]
fn failed_source_is_reported_and_plan_is_made_of_its_last_list() {
    for kind in BOTH {
        let world = world(kind);
        let source = Source(Arc::new(Mutex::new(Some(Ok(list(&["p", "q"]))))));
        let partitions = Arc::new(Partitions::pulled(Arc::new(source.clone())));
        let mut rebalancer = leading(&world, &partitions, RoundRobin);
        publish(&mut rebalancer, &["a", "b"]).unwrap();
        let before = held(&world);
        let nameless = vec![Partition::new(Vec::<String>::new(), 1)];
        let foreign_code = Error::new(Code::Fenced, "not what it means");
        let cases: [(Option<Result<Vec<Partition>>>, &str); 4] = [
            (None, "panicked: simulated"),
            (Some(Err(foreign_code)), "not what it means"),
            (Some(Ok(list(&["p", "q", "p"]))), "\"p\""),
            (Some(Ok(nameless)), "without keys"),
        ];
        for (answer, words) in cases {
            *source.0.lock() = answer;
            let error = rebalancer.run(Job::Inspect, later()).unwrap_err();
            assert_eq!(error.code(), Code::SourceFailed, "{error}");
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(held(&world), before);
        }
        *source.0.lock() = Some(Err(Error::new(Code::StoreError, "db-7 is down")));
        let publication = publish(&mut rebalancer, &["a"]).unwrap();
        holds_exactly(&world, rebalancer.plan().unwrap(), publication.version);
        assert_eq!(publication.partitions, 2);
        let SourceOutcome::Failed(failure) = publication.source else {
            panic!("{:?}", publication.source);
        };
        assert!(failure.contains("db-7 is down"), "{failure}");
        // It does not prevent a take-over either.
        partitions.touch();
        *source.0.lock() = None;
        let (found, _) = rebalancer.take_over(later()).unwrap();
        assert_eq!((found.finding, found.generation), (None, 0));
        // The plan that it found is the last list of the new leader.
        assert_eq!(publish(&mut rebalancer, &["a", "b"]).unwrap().partitions, 2);
        *source.0.lock() = Some(Ok(list(&["p"])));
        let version = publish(&mut rebalancer, &["a"]).unwrap().version;
        holds_exactly(&world, rebalancer.plan().unwrap(), version);
    }
}

/// A source that returns when the test lets it.
struct Hanging(crossbeam_channel::Receiver<Vec<Partition>>);

impl PartitionSource for Hanging {
    fn list_partitions(&self, _: Instant) -> Result<Vec<Partition>> {
        self.0
            .recv()
            .map_err(|_| Error::new(Code::SourceFailed, "over"))
    }
}

#[test]
fn hanging_source_does_not_block_plans_and_its_late_list_is_reported() {
    let world = world(BOTH[0]);
    let (answer, answers) = crossbeam_channel::unbounded();
    let source: Arc<dyn PartitionSource> = Arc::new(Hanging(answers));
    let partitions = Arc::new(Partitions::pulled(Arc::clone(&source)));
    let (stop, stopped) = crate::threads::signal();
    let timeout = Duration::from_secs(20);
    let (reader, thread) = threaded(stopped.clone(), timeout);
    let (report, reported) = crossbeam_channel::unbounded();
    let source_thread = std::thread::spawn(move || {
        thread.run(&*source, &stopped, |generation| {
            report.send(generation).unwrap();
        });
    });
    answer.send(list(&["p", "q"])).unwrap();
    let mut rebalancer =
        leading(&world, &partitions, RoundRobin).with_reader(reader, Duration::from_millis(1));
    publish(&mut rebalancer, &["a", "b"]).unwrap();
    partitions.touch();
    let hangs = rebalancer.run(Job::Inspect, later()).unwrap();
    assert!(matches!(hangs, JobReport::Reading), "{hangs:?}");
    for workers in [&["a"][..], &["b"]] {
        let publication = publish(&mut rebalancer, workers).unwrap();
        assert_eq!((publication.partitions, publication.generation), (2, 0));
        assert_eq!(publication.source, SourceOutcome::Running);
    }
    assert!(reported.is_empty());
    answer.send(list(&["p", "q", "r"])).unwrap();
    // It covers what had changed when it was asked for.
    assert_eq!(reported.recv_timeout(timeout), Ok(0));
    assert_eq!(inspect(&mut rebalancer), (0, Finding::Changed));
    assert_eq!(publish(&mut rebalancer, &["b"]).unwrap().partitions, 3);
    drop((stop, answer));
    source_thread.join().unwrap();
}

/// A source that fails.
struct Failing;

impl PartitionSource for Failing {
    fn list_partitions(&self, _: Instant) -> Result<Vec<Partition>> {
        Err(Error::new(Code::SourceFailed, "the database is down"))
    }
}

/// Found by the simulation (seed 690 of the managers): the list of a torn plan replaced the whole one.
#[test]
fn stored_plan_serves_as_list_while_source_fails_only_if_it_is_complete() {
    for kind in BOTH {
        let world = world(kind);
        let whole = pushed(&["p", "q", "r"]);
        publish(&mut leading(&world, &whole, RoundRobin), &["a", "b"]).unwrap();
        let failing = Arc::new(Partitions::pulled(Arc::new(Failing)));
        let mut next = leading(&world, &failing, RoundRobin);
        assert_eq!(publish(&mut next, &["a"]).unwrap().partitions, 3);
        assert_eq!(next.list_read_at(), None);

        publish(&mut leading(&world, &whole, RoundRobin), &["a", "b"]).unwrap();
        world.server().delete(Bucket::Assignment, "assignment.b");
        let mut next = leading(&world, &failing, RoundRobin);
        let error = publish(&mut next, &["a"]).unwrap_err();
        assert_eq!(error.code(), Code::SourceFailed, "{kind:?}: {error}");
    }
}

#[test]
fn empty_partition_list_leaves_every_worker_empty_assignment() {
    for kind in BOTH {
        let world = world(kind);
        let mut rebalancer = leading(&world, &pushed(&[]), RoundRobin);
        let publication = publish(&mut rebalancer, &["a", "b"]).unwrap();
        assert_eq!(
            (publication.partitions, publication.quality.moved_partitions),
            (0, 0)
        );
        assert_eq!(held(&world).len(), 2);
        assert_eq!(inspect(&mut rebalancer).1, Finding::Same);
    }
}

#[test]
fn missing_pushed_list_is_error_and_invalid_list_is_rejected_at_once() {
    let partitions = Arc::new(Partitions::pushed());
    assert!(!partitions.is_ready());
    let mut rebalancer = leading(&world(Kind::A), &partitions, RoundRobin);
    let error = publish(&mut rebalancer, &["a"]).unwrap_err();
    assert_eq!(error.code(), Code::SourceFailed);
    let error = partitions.push(list(&["p", "p"])).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(!partitions.is_ready());
    partitions.push(list(&["p"])).unwrap();
    publish(&mut rebalancer, &["a"]).unwrap();
    let pulled = Partitions::pulled(Arc::new(|| Ok(Vec::new())));
    assert!(pulled.push(Vec::new()).is_err());
}

/// A strategy that returns what the test sets: owners, an error, or a panic.
struct Scripted(Arc<Mutex<Option<Result<Vec<u32>>>>>);

impl Strategy for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    fn assign(&self, _: &PlanInput<'_>) -> Result<Vec<u32>> {
        self.0.lock().clone().expect("simulated")
    }
}

#[test]
fn failing_panicking_or_invalid_strategy_changes_nothing() {
    for kind in BOTH {
        let world = world(kind);
        let answer = Arc::new(Mutex::new(Some(Ok(vec![0, 1]))));
        let strategy = Scripted(Arc::clone(&answer));
        let mut rebalancer = leading(&world, &pushed(&["p", "q"]), strategy);
        publish(&mut rebalancer, &["a", "b"]).unwrap();
        let before = held(&world);
        let error = Error::new(Code::NotRunning, "out of ideas");
        for (wrong, code, words) in [
            (None, Code::StrategyFailed, "panicked: simulated"),
            (Some(Err(error)), Code::StrategyFailed, "out of ideas"),
            (Some(Ok(vec![0])), Code::InvalidPlan, "1 owners for 2"),
            (Some(Ok(vec![0; 3])), Code::InvalidPlan, "3 owners for 2"),
            (Some(Ok(vec![0, 7])), Code::InvalidPlan, "\"q\""),
        ] {
            *answer.lock() = wrong;
            let error = publish(&mut rebalancer, &["a", "b"]).unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(held(&world), before);
        }
        *answer.lock() = Some(Ok(vec![1, 1]));
        let publication = publish(&mut rebalancer, &["a", "b"]).unwrap();
        assert_eq!(
            (publication.version, publication.quality.moved_partitions),
            (2, 1)
        );
        holds_exactly(&world, rebalancer.plan().unwrap(), 2);
    }
}

#[test]
fn inspection_reports_same_changed_or_reweighted_with_excess() {
    let world = world(Kind::A);
    let partitions = pushed(&["p", "q", "r", "s"]);
    let answer = Arc::new(Mutex::new(Some(Ok(vec![0, 0, 1, 1]))));
    let mut rebalancer = leading(&world, &partitions, Scripted(answer));
    assert_eq!(inspect(&mut rebalancer).1, Finding::Changed);
    publish(&mut rebalancer, &["a", "b"]).unwrap();
    partitions.push(list(&["s", "r", "q", "p"])).unwrap();
    assert_eq!(inspect(&mut rebalancer), (2, Finding::Same));
    for keys in [
        &["p", "q", "r"][..],
        &["p", "q", "r", "s", "t"],
        &["p", "q", "r", "z"],
    ] {
        partitions.push(list(keys)).unwrap();
        assert_eq!(inspect(&mut rebalancer).1, Finding::Changed);
    }
    let mut heavy = list(&["p", "q", "r", "s"]);
    heavy[0].weight = 4; // a: 4 + 1, b: 1 + 1; no plan is better than the 4 alone
    heavy[3].weight = -9; // counts as the default, 1
    partitions.push(heavy).unwrap();
    let Finding::Reweighted { excess } = inspect(&mut rebalancer).1 else {
        panic!("not noticed");
    };
    assert!((excess - (5.0 / 4.0 - 1.0)).abs() < 1e-9, "{excess}");
}

#[test]
fn change_while_list_is_read_is_not_covered() {
    let world = world(Kind::A);
    let slot: Arc<Mutex<Option<Arc<Partitions>>>> = Arc::default();
    let inner = Arc::clone(&slot);
    let source = move || {
        if let Some(partitions) = inner.lock().as_ref() {
            partitions.touch();
        }
        Ok(list(&["p"]))
    };
    let partitions = Arc::new(Partitions::pulled(Arc::new(source)));
    *slot.lock() = Some(Arc::clone(&partitions));
    let mut rebalancer = leading(&world, &partitions, RoundRobin); // touches: 1
    let publication = publish(&mut rebalancer, &["a"]).unwrap(); // touches: 2
    assert_eq!(publication.generation, 1);
    assert_eq!(inspect(&mut rebalancer).0, 2);
    *slot.lock() = None;
    assert_eq!(inspect(&mut rebalancer).0, 3);
}

#[test]
fn moved_counts_partitions_with_changed_owner() {
    let world = world(Kind::A);
    let partitions = pushed(&["p", "q", "r"]);
    let answer = Arc::new(Mutex::new(Some(Ok(vec![0, 1, 1]))));
    let mut rebalancer = leading(&world, &partitions, Scripted(Arc::clone(&answer)));
    assert_eq!(
        publish(&mut rebalancer, &["a", "b"])
            .unwrap()
            .quality
            .moved_partitions,
        0
    );
    // `a` is gone, `p` with it; `q` stays; `r` moves to the new worker; `z` is new.
    partitions.push(list(&["p", "q", "r", "z"])).unwrap();
    *answer.lock() = Some(Ok(vec![0, 0, 1, 1]));
    assert_eq!(
        publish(&mut rebalancer, &["b", "c"])
            .unwrap()
            .quality
            .moved_partitions,
        2
    );
}

/// A strategy that records the previous plan.
struct Noting(Arc<Mutex<Vec<Option<u32>>>>);

impl Strategy for Noting {
    fn name(&self) -> &str {
        "noting"
    }

    fn assign(&self, input: &PlanInput<'_>) -> Result<Vec<u32>> {
        *self.0.lock() = input.previous.to_vec();
        Ok(vec![0; input.partitions.len()])
    }
}

#[test]
fn partial_plan_is_not_adopted_but_reveals_current_owners() {
    for kind in BOTH {
        let world = world(kind);
        put(&world, "assignment.a", &raw(4, None, &["p", "q"]));
        put(&world, "assignment.b", &raw(5, None, &["q", "r"]));
        let reported = Arc::default();
        let strategy = Arc::new(Noting(Arc::clone(&reported)));
        let partitions = pushed(&["p", "q", "r"]);
        let mut next = rebalancer_of(&world, PublishMode::Auto, &partitions, strategy);
        let (found, _) = next.take_over(later()).unwrap();
        assert!(!found.consistent);
        assert_eq!(found.planned.len(), 2);
        publish(&mut next, &["a", "b"]).unwrap();
        assert_eq!(*reported.lock(), [Some(0), Some(0), Some(1)]);
    }
}

#[test]
fn complete_plan_is_consistent_and_unchanged() {
    for kind in BOTH {
        let world = world(kind);
        let partitions = pushed(&["p", "q", "r"]);
        publish(&mut leading(&world, &partitions, RoundRobin), &["a", "b"]).unwrap();
        let strategy: Arc<dyn Strategy> = Arc::new(RoundRobin);
        let mut next = rebalancer_of(&world, PublishMode::Auto, &partitions, strategy);
        let (found, malformed) = next.take_over(later()).unwrap();
        assert!(found.consistent);
        assert_eq!(found.finding, Some(Finding::Same));
        assert!(malformed.is_empty());
        assert_eq!(found.former_leader, Some(id("divvy")));
        // A parti leader publishes after it, unconditionally.
        put(&world, "assignment.a", &raw(2, None, &["p"]));
        put(&world, "assignment.b", &raw(2, None, &["q", "r"]));
        let (found, _) = next.take_over(later()).unwrap();
        assert!(found.consistent, "{kind:?}");
        assert_eq!((found.finding, found.version), (Some(Finding::Same), 2));
        // It was interrupted.
        world.server().delete(Bucket::Assignment, "assignment.b");
        let (found, _) = next.take_over(later()).unwrap();
        assert_eq!(found.finding, Some(Finding::Changed));
    }
}

#[test]
fn successor_with_other_publish_mode_rewrites_everything() {
    let world = world(Kind::A);
    let partitions = pushed(&["p", "q", "r"]);
    let in_mode = |class| rebalancer_of(&world, class, &partitions, Arc::new(RoundRobin));
    let mut single = in_mode(PublishMode::PerKey);
    single.take_over(later()).unwrap();
    publish(&mut single, &["a", "b"]).unwrap();
    let before = held(&world);
    let mut batches = in_mode(PublishMode::Atomic);
    assert!(batches.take_over(later()).unwrap().0.consistent);
    let after = held(&world);
    for (worker, held) in &after {
        assert!(held.revision > before[worker].revision);
        assert_eq!(held.version, before[worker].version);
    }
    assert_eq!(
        publish(&mut single, &["a"]).unwrap_err().code(),
        Code::Fenced
    );
    assert_eq!(held(&world), after);
}

#[test]
fn plan_over_the_stores_limit_publishes_what_fits_and_names_the_rest() {
    for batch_max in [0, 1_000] {
        let store = MemoryStore::builder()
            .batch_max(batch_max)
            .value_max(500)
            .build();
        ensure(&store);
        let names: Vec<String> = (0..30).map(|n| format!("p{n:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let partitions = pushed(&names);
        let mut rebalancer = leading(&store, &partitions, RoundRobin);
        let three = publish(&mut rebalancer, &["a", "b", "c"]).unwrap();
        assert!(three.limit.unassigned.is_empty() && three.limit.sizes.is_near());
        // The bucket holds exactly what the plan says, and the loss was foreseen.
        let one = publish(&mut rebalancer, &["c"]).unwrap();
        let plan = rebalancer.plan().unwrap();
        holds_exactly(&store, plan, one.version);
        assert_eq!(one.partitions + one.limit.unassigned.len(), 30);
        assert!(one.partitions >= 10 && one.limit.sizes.is_exceeded());
        // c keeps what it had.
        for key in ["p02", "p05", "p29"] {
            assert!(plan.partitions().iter().any(|p| p.keys == [key]), "{key}");
        }
        let value = raw_value(&store, "assignment.c");
        assert!((400..=500).contains(&value.len()), "{}", value.len());
        let commit = Commit::decode(&raw_value(&store, COMMIT_KEY)).unwrap();
        assert_eq!(commit.unassigned, Some(one.limit.unassigned.len() as u64));
        // Nothing has changed: no further publication is due.
        assert_eq!(inspect(&mut rebalancer).1, Finding::Same);
        let mut heavy = list(&names);
        heavy.iter_mut().for_each(|p| p.weight = 3);
        partitions.push(heavy).unwrap();
        assert_eq!(
            inspect(&mut rebalancer).1,
            Finding::Reweighted { excess: 0.0 }
        );
        // A successor finds that partitions have no owner.
        let mut next = leading(&store, &pushed(&names), RoundRobin);
        assert_eq!(inspect(&mut next).1, Finding::Changed);
        let two = publish(&mut next, &["a", "c", "d", "e"]).unwrap();
        assert!(two.limit.unassigned.is_empty());
        holds_exactly(&store, next.plan().unwrap(), two.version);
    }
}

fn raw_value(store: &MemoryStore, key: &str) -> Vec<u8> {
    let entry = store.read(Bucket::Assignment, key, later()).unwrap();
    entry.expect("a value").value
}

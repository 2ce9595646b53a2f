//! The partition list and the strategy: host code that may fail in every way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use divvy::error::Code;
use divvy::store::memory::MemoryStore;
use divvy::strategy::{PlanInput, RoundRobin, Strategy, WorkerIndex};
use divvy::{
    Calculator, CalculatorEvent, Degradation, DegradationCause, EventFilter, Partition, Reason,
    Result,
};
use parking_lot::Mutex;

use crate::support::calculators::*;

fn pushed(store: &MemoryStore) -> Calculator {
    Calculator::builder(Arc::new(store.client("leader")))
        .config(config())
        .build()
        .unwrap()
}

/// What a source or a strategy does next.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Fine,
    Error,
    Panic,
    /// Returns an unusable result instead of an error.
    Nonsense,
}

type Moody = Arc<Mutex<Mood>>;

fn moody(store: &MemoryStore, mood: &Moody, list: &Arc<Mutex<Vec<Partition>>>) -> Calculator {
    let (mood, list) = (Arc::clone(mood), Arc::clone(list));
    Calculator::builder(Arc::new(store.client("leader")))
        .config(config())
        .source(move || {
            let now = *mood.lock();
            match now {
                Mood::Fine => Ok(list.lock().clone()),
                Mood::Error => Err(refused(Code::StoreError)),
                Mood::Panic => panic!("simulated"),
                Mood::Nonsense => Ok(vec![Partition::new(["p"], 1), Partition::new(["p"], 2)]),
            }
        })
        .build()
        .unwrap()
}

fn is_source_degraded(notice: &CalculatorEvent) -> bool {
    let is_source = |d: &Degradation| d.cause == DegradationCause::Source;
    matches!(notice, CalculatorEvent::Degraded(why) if why.iter().any(is_source))
}

fn is_well(notice: &CalculatorEvent) -> bool {
    matches!(notice, CalculatorEvent::Degraded(why) if why.is_empty())
}

#[test]
fn partitions_pushed_before_start_are_published() {
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1"]);
    let calculator = pushed(&store);
    calculator.set_partitions(partitions(7)).unwrap();
    wait_for_publication(&started(&calculator));
    assert_eq!(all_held(&store, &["w-1"]), ids(7));
}

#[test]
fn nothing_is_published_before_first_push_and_then_at_once() {
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1"]);
    let calculator = pushed(&store);
    let events = started(&calculator);
    let error = calculator.trigger_rebalance(TIMEOUT).unwrap_err();
    assert_eq!(error.code(), Code::SourceFailed, "{error}");
    assert!(held(&store, "w-1").is_none());
    calculator.set_partitions(partitions(7)).unwrap();
    wait_for_publication(&events);
    assert_eq!(all_held(&store, &["w-1"]), ids(7));
}

#[test]
fn pushes_from_many_threads_during_start_are_never_lost() {
    for _ in 0..10 {
        let store = store();
        let _fleet = Fleet::new(&store, ["w-1"]);
        let calculator = Arc::new(pushed(&store));
        let pushers: Vec<_> = (1..=4)
            .map(|i| {
                let calculator = Arc::clone(&calculator);
                std::thread::spawn(move || calculator.set_partitions(partitions(i)).unwrap())
            })
            .collect();
        calculator.start(TIMEOUT).unwrap();
        for pusher in pushers {
            pusher.join().unwrap();
        }
        calculator.set_partitions(partitions(9)).unwrap();
        wait_until("the last list", || all_held(&store, &["w-1"]) == ids(9));
    }
}

#[test]
fn changed_list_is_published_as_partition_change() {
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1", "w-2"]);
    let calculator = pushed(&store);
    calculator.set_partitions(partitions(4)).unwrap();
    let events = started(&calculator);
    wait_for_publication(&events);
    wait_for_rest(&calculator);
    calculator.set_partitions(partitions(6)).unwrap();
    let event = wait_for(&events, "publication", |e| {
        matches!(e, CalculatorEvent::Published { .. })
    });
    assert!(
        matches!(
            &*event,
            CalculatorEvent::Published {
                reason: Reason::PartitionChange,
                partitions: 6,
                ..
            }
        ),
        "{event:?}"
    );
    assert_eq!(all_held(&store, &["w-1", "w-2"]), ids(6));
}

#[test]
fn reordered_list_is_no_change() {
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1"]);
    let calculator = pushed(&store);
    calculator.set_partitions(partitions(6)).unwrap();
    wait_for_publication(&started(&calculator));
    wait_for_rest(&calculator);
    let version = calculator.current_version();
    let mut list = partitions(6);
    list.reverse();
    calculator.set_partitions(list).unwrap();
    assert_eq!(calculator.refresh(TIMEOUT).unwrap(), version);
    wait_for_rest(&calculator);
    assert_eq!(calculator.current_version(), version);
}

#[test]
fn empty_list_releases_all_partitions_and_keeps_keys() {
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1", "w-2"]);
    let calculator = pushed(&store);
    calculator.set_partitions(partitions(4)).unwrap();
    wait_for_publication(&started(&calculator));
    calculator.set_partitions(Vec::new()).unwrap();
    calculator.confirm_partitions(TIMEOUT).unwrap();
    wait_until("nothing held", || {
        ["w-1", "w-2"].iter().all(|w| {
            held(&store, w)
                .expect("every live worker has a key")
                .partitions
                .is_empty()
        })
    });
    calculator.trigger_rebalance(TIMEOUT).unwrap();
    calculator.set_partitions(partitions(2)).unwrap();
    wait_until("two held", || all_held(&store, &["w-1", "w-2"]) == ids(2));
}

#[test]
fn list_that_lost_too_much_is_held_back_until_it_is_confirmed() {
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1", "w-2"]);
    let list = Arc::new(Mutex::new(partitions(10)));
    let calculator = moody(&store, &Arc::new(Mutex::new(Mood::Fine)), &list);
    let events = started(&calculator);
    wait_for_publication(&events);
    let reported = || {
        let held = std::iter::from_fn(|| events.try_recv()).filter_map(|event| match &*event {
            CalculatorEvent::ListHeld(held) => Some(held.as_ref().map(|h| (h.lost, h.listed))),
            _ => None,
        });
        held.collect::<Vec<_>>()
    };
    wait_for_rest(&calculator);
    for shrunken in [partitions(4), Vec::new()] {
        *list.lock() = shrunken;
        calculator.refresh(TIMEOUT).unwrap();
        // A rebalance for another reason keeps their partitions too.
        calculator.trigger_rebalance(TIMEOUT).unwrap();
        assert_eq!(all_held(&store, &["w-1", "w-2"]), ids(10));
        assert!(calculator.status().held_list.is_some());
    }
    assert_eq!(reported(), [Some((6, 4)), Some((10, 0))]);
    *list.lock() = partitions(4);
    calculator.confirm_partitions(TIMEOUT).unwrap();
    wait_until("four held", || all_held(&store, &["w-1", "w-2"]) == ids(4));
    wait_for_rest(&calculator);
    assert_eq!(calculator.status().held_list, None);
    assert_eq!(reported(), [None]);
    // The confirmation is used once.
    *list.lock() = partitions(1);
    calculator.refresh(TIMEOUT).unwrap();
    let held = calculator.status().held_list.unwrap();
    assert_eq!((held.in_force, held.lost, held.listed), (4, 3, 1));
    assert_eq!(all_held(&store, &["w-1", "w-2"]), ids(4));
}

#[test]
fn new_leader_without_a_list_takes_nothing_from_the_workers() {
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1", "w-2"]);
    let first = pushed(&store);
    first.set_partitions(partitions(10)).unwrap();
    wait_for_publication(&started(&first));
    first.stop(TIMEOUT).unwrap();
    let second = pushed(&store);
    second.set_partitions(Vec::new()).unwrap();
    second.start(TIMEOUT).unwrap();
    second.trigger_rebalance(TIMEOUT).unwrap();
    assert_eq!(all_held(&store, &["w-1", "w-2"]), ids(10));
}

#[test]
fn held_list_is_applied_after_the_stated_time_by_itself() {
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1"]);
    let mut config = config();
    config.list_shrink_hold = Duration::from_millis(50);
    let calculator = Calculator::builder(Arc::new(store.client("leader")))
        .config(config)
        .build()
        .unwrap();
    calculator.set_partitions(partitions(10)).unwrap();
    wait_for_publication(&started(&calculator));
    calculator.set_partitions(partitions(1)).unwrap();
    wait_until("one held", || all_held(&store, &["w-1"]) == ids(1));
}

#[test]
fn invalid_push_is_rejected_with_offenders_and_changes_nothing() {
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1"]);
    let calculator = pushed(&store);
    calculator.set_partitions(partitions(3)).unwrap();
    wait_for_publication(&started(&calculator));
    let twice = vec![
        Partition::new(["tool", "1"], 1),
        Partition::new(["tool", "1"], 2),
    ];
    let error = calculator.set_partitions(twice).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.to_string().contains("tool"), "{error}");
    let without_keys = vec![Partition::new::<&str>([], 1)];
    let error = calculator.set_partitions(without_keys).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    calculator.trigger_rebalance(TIMEOUT).unwrap();
    assert_eq!(all_held(&store, &["w-1"]), ids(3));
    let pulled = crate::support::calculators::calculator(&store);
    let error = pulled.set_partitions(partitions(1)).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.to_string().contains("refresh"), "{error}");
}

#[test]
fn source_failing_at_start_is_retried_until_it_answers() {
    for mood_now in [Mood::Error, Mood::Panic, Mood::Nonsense] {
        let store = store();
        let _fleet = Fleet::new(&store, ["w-1"]);
        let (mood, list) = (Arc::new(Mutex::new(mood_now)), Arc::default());
        *Mutex::lock(&list) = partitions(5);
        let calculator = moody(&store, &mood, &list);
        let events = started(&calculator);
        wait_for(&events, "degraded", is_source_degraded);
        assert!(calculator.is_started());
        assert!(held(&store, "w-1").is_none(), "{mood_now:?}");
        *mood.lock() = Mood::Fine;
        wait_for_publication(&events);
        wait_until("health", || calculator.status().degraded.is_empty());
        assert_eq!(all_held(&store, &["w-1"]), ids(5));
    }
}

#[test]
fn source_failing_later_keeps_last_plan_and_recovers() {
    for mood_now in [Mood::Error, Mood::Panic, Mood::Nonsense] {
        let store = store();
        let fleet = Fleet::new(&store, ["w-1"]);
        let mood: Moody = Arc::new(Mutex::new(Mood::Fine));
        let list = Arc::new(Mutex::new(partitions(5)));
        let calculator = moody(&store, &mood, &list);
        let events = started(&calculator);
        wait_for_publication(&events);
        wait_for_rest(&calculator);
        *mood.lock() = mood_now;
        let error = calculator.refresh(TIMEOUT).unwrap_err();
        assert_eq!(error.code(), Code::SourceFailed, "{mood_now:?}: {error}");
        fleet.join("w-2");
        wait_for(&events, "degraded", is_source_degraded);
        assert_eq!(all_held(&store, &["w-1"]), ids(5));
        *mood.lock() = Mood::Fine;
        wait_for(&events, "recovery", is_well);
        wait_until("both have some", || held(&store, "w-2").is_some());
        assert_eq!(all_held(&store, &["w-1", "w-2"]), ids(5));
        assert!(calculator.status().counters.failures >= 1);
    }
}

#[test]
fn refresh_detects_change_in_source() {
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1"]);
    let mood: Moody = Arc::new(Mutex::new(Mood::Fine));
    let list = Arc::new(Mutex::new(partitions(5)));
    let calculator = moody(&store, &mood, &list);
    wait_for_publication(&started(&calculator));
    wait_for_rest(&calculator);
    let version = calculator.refresh(TIMEOUT).unwrap();
    assert_eq!(version, calculator.current_version());
    *list.lock() = partitions(8);
    calculator.refresh(TIMEOUT).unwrap();
    wait_until("the new list", || all_held(&store, &["w-1"]) == ids(8));
}

/// Symptom: the setting for the minimum threshold had no effect.
#[test]
fn weights_trigger_rebalance_only_above_threshold() {
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1", "w-2"]);
    let calculator = pushed(&store);
    let weighted = |first: i64| {
        let mut list = partitions(4);
        for partition in &mut list {
            partition.weight = 100;
        }
        list[0].weight = first;
        list
    };
    calculator.set_partitions(weighted(100)).unwrap();
    let events = started(&calculator);
    wait_for_publication(&events);
    wait_for_rest(&calculator);
    let version = calculator.current_version();
    // Maximum 210, fair level 205: 2 % above.
    calculator.set_partitions(weighted(110)).unwrap();
    assert_eq!(calculator.refresh(TIMEOUT).unwrap(), version);
    wait_for_rest(&calculator);
    assert_eq!(calculator.current_version(), version);
    // Maximum 400, fair level 300: a third above.
    calculator.set_partitions(weighted(300)).unwrap();
    wait_for_publication(&events);
    assert!(calculator.current_version() > version);
}

/// Fails in a selectable way.
struct MoodyStrategy(Moody, Arc<AtomicU32>);

impl Strategy for MoodyStrategy {
    fn name(&self) -> &str {
        "moody"
    }

    fn assign(&self, input: &PlanInput<'_>) -> Result<Vec<WorkerIndex>> {
        self.1.fetch_add(1, Ordering::AcqRel);
        let now = *self.0.lock();
        match now {
            Mood::Fine => RoundRobin.assign(input),
            Mood::Error => Err(refused(Code::StoreError)),
            Mood::Panic => panic!("simulated"),
            Mood::Nonsense => Ok(vec![99; input.partitions.len()]),
        }
    }
}

#[test]
fn failed_strategy_keeps_last_plan_and_is_retried_with_backoff() {
    for mood_now in [Mood::Error, Mood::Panic, Mood::Nonsense] {
        let store = store();
        let fleet = Fleet::new(&store, ["w-1"]);
        let mood: Moody = Arc::new(Mutex::new(Mood::Fine));
        let tries = Arc::new(AtomicU32::new(0));
        let calculator = Calculator::builder(Arc::new(store.client("leader")))
            .config(config())
            .strategy(MoodyStrategy(Arc::clone(&mood), Arc::clone(&tries)))
            .source(|| Ok(partitions(5)))
            .build()
            .unwrap();
        let events = started(&calculator);
        let version = wait_for_publication(&events);
        wait_for_rest(&calculator);
        *mood.lock() = mood_now;
        let error = calculator
            .trigger_rebalance(Duration::from_millis(300))
            .unwrap_err();
        assert_eq!(error.code(), Code::TimedOut, "{error}");
        let text = error.to_string();
        let names_it = text.contains("strategy") || text.contains("moody") || text.contains("plan");
        assert!(names_it, "{mood_now:?}: {text}");
        // 300 ms of retries between 10 and 50 ms apart.
        assert!(tries.load(Ordering::Acquire) < 60, "{tries:?}");
        fleet.join("w-2");
        wait_for(&events, "failure", |e| {
            matches!(e, CalculatorEvent::Failed { .. })
        });
        assert_eq!(held(&store, "w-1").unwrap().version, version);
        assert_eq!(all_held(&store, &["w-1"]), ids(5));
        assert!(calculator.is_started());
        *mood.lock() = Mood::Fine;
        wait_until("both have some", || held(&store, "w-2").is_some());
        assert_eq!(all_held(&store, &["w-1", "w-2"]), ids(5));
        wait_until("a new version", || calculator.current_version() > version);
    }
}

#[test]
fn without_workers_nothing_is_published_and_first_worker_gets_everything() {
    let store = store();
    let fleet = Fleet::new(&store, Vec::<String>::new());
    let calculator = calculator(&store);
    let events = calculator.events(EventFilter::State);
    calculator.start(TIMEOUT).unwrap();
    let error = calculator.trigger_rebalance(TIMEOUT).unwrap_err();
    assert_eq!(error.code(), Code::NoWorkers, "{error}");
    assert_eq!(calculator.current_version(), 0);
    fleet.join("w-1");
    wait_for_publication(&events);
    assert_eq!(all_held(&store, &["w-1"]), ids(10));
}

/// Symptom: a failed publication was never retried.
#[test]
fn failed_publication_stays_pending_and_is_retried_until_success() {
    use divvy::store::Refusal;
    use divvy::store::memory::{Call, Fault};
    for store in [store(), store_b()] {
        let fleet = Fleet::new(&store, ["w-1"]);
        let leader = store.client("leader");
        let calculator = Calculator::builder(Arc::new(leader.clone()))
            .config(config())
            .source(|| Ok(partitions(10)))
            .build()
            .unwrap();
        let events = started(&calculator);
        wait_for_publication(&events);
        wait_for_rest(&calculator);
        let down = Fault::Refuse(Refusal::Unavailable("simulated".into()));
        leader.faults().next(&Call::WRITES, 3, down);
        fleet.join("w-2");
        wait_for(&events, "failure", |e| {
            matches!(e, CalculatorEvent::Failed { .. })
        });
        wait_for_publication(&events);
        assert_eq!(all_held(&store, &["w-1", "w-2"]), ids(10));
        let status = calculator.status();
        assert!(status.counters.failures >= 1 && status.last_failure.is_none());
    }
}

/// The leader has had the list for long when the source stops returning, and a worker dies.
#[test]
fn hung_source_does_not_block_failover_and_is_reported_until_it_returns() {
    let store = store();
    let fleet = Fleet::new(&store, ["w-1", "w-2"]);
    let gate = Gate::open();
    let calculator = {
        let gate = gate.clone();
        let mut config = config();
        config.host_call_timeout = Duration::from_millis(100);
        Calculator::builder(Arc::new(store.client("leader")))
            .config(config)
            .source(move || {
                gate.pass();
                Ok(partitions(9))
            })
            .build()
            .unwrap()
    };
    let events = started(&calculator);
    wait_until("a plan for both", || {
        all_held(&store, &["w-1", "w-2"]) == ids(9) && held(&store, "w-2").is_some()
    });
    assert!(calculator.status().list_age.is_some());
    gate.close();
    let error = calculator.refresh(Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.code(), Code::TimedOut, "{error}");
    let is_overdue = |notice: &CalculatorEvent| {
        let is_call = |d: &Degradation| {
            d.cause == DegradationCause::HostCall && d.detail.contains("partition source")
        };
        matches!(notice, CalculatorEvent::Degraded(why) if why.iter().any(is_call))
    };
    wait_for(&events, "it is overdue", is_overdue);
    fleet.crash("w-2");
    wait_until("w-1 owns all", || all_held(&store, &["w-1"]) == ids(9));
    gate.release();
    wait_for(&events, "it has returned", is_well);
    calculator.refresh(TIMEOUT).unwrap();
}

/// The database behind the source is down, and a worker dies.
#[test]
fn failing_source_does_not_block_failover() {
    let store = store();
    let fleet = Fleet::new(&store, ["w-1", "w-2"]);
    let mood = Arc::new(Mutex::new(Mood::Fine));
    let list = Arc::new(Mutex::new(partitions(9)));
    let calculator = moody(&store, &mood, &list);
    let events = started(&calculator);
    wait_until("a plan for both", || {
        all_held(&store, &["w-1", "w-2"]) == ids(9) && held(&store, "w-2").is_some()
    });
    *mood.lock() = Mood::Error;
    fleet.crash("w-2");
    wait_until("w-1 owns all", || all_held(&store, &["w-1"]) == ids(9));
    wait_for(&events, "the source is reported", is_source_degraded);
    *mood.lock() = Mood::Fine;
    wait_for(&events, "the source is well", is_well);
}

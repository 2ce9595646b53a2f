//! Two leaders, and writers without a fence.

use std::sync::Arc;

use divvy::error::{Code, ErrorClass};
use divvy::store::Bucket;
use divvy::store::memory::MemoryStore;
use divvy::strategy::{PlanInput, RoundRobin, Strategy, WorkerIndex};
use divvy::{Calculator, CalculatorEvent, DegradationCause, EventFilter, Result};

use crate::support::calculators::*;

/// Blocks on demand between the computation of a plan and its publication.
struct Paused(Gate);

impl Strategy for Paused {
    fn name(&self) -> &str {
        "paused"
    }

    fn assign(&self, input: &PlanInput<'_>) -> Result<Vec<WorkerIndex>> {
        let owners = RoundRobin.assign(input)?;
        self.0.pass();
        Ok(owners)
    }
}

fn paused_leader(store: &MemoryStore, gate: &Gate) -> Calculator {
    Calculator::builder(Arc::new(store.client("first")))
        .config(config())
        .strategy(Paused(gate.clone()))
        .source(|| Ok(partitions(10)))
        .build()
        .unwrap()
}

/// Symptom: two leaders wrote unconditionally, and the assignments of the older one won.
fn a_deposed_leader_cannot_publish(store: &MemoryStore, newcomer: bool) {
    let fleet = Fleet::new(store, ["w-1", "w-2"]);
    let gate = Gate::open();
    let first = paused_leader(store, &gate);
    let events = first.events(EventFilter::State);
    first.start(TIMEOUT).unwrap();
    wait_for_publication(&events);
    // It is paused with a computed plan, maybe for a worker that never had a key.
    gate.close();
    let first = Arc::new(first);
    let trigger = if newcomer {
        fleet.join("w-3");
        None
    } else {
        let first = Arc::clone(&first);
        Some(std::thread::spawn(move || first.trigger_rebalance(TIMEOUT)))
    };
    gate.wait_for_arrival();
    if newcomer {
        fleet.leave("w-3");
    }
    let second = calculator(store);
    let second_events = started(&second);
    let version = second.trigger_rebalance(TIMEOUT).unwrap();
    wait_for_publication(&second_events);
    let sealed = || ["w-1", "w-2", "w-3"].map(|w| held(store, w).map(|a| (a.version, a.term)));
    wait_until("w-3 is unassigned or has never been", || {
        sealed()[2].is_none()
    });
    let before = sealed();
    gate.release();
    wait_for(&events, "the loss", |e| {
        matches!(e, CalculatorEvent::LeadershipLost)
    });
    if let Some(trigger) = trigger {
        let error = trigger.join().unwrap().unwrap_err();
        assert_eq!(error.code(), Code::Fenced, "{error}");
    }
    let error = first.trigger_rebalance(TIMEOUT).unwrap_err();
    assert_eq!(
        (error.code(), error.class()),
        (Code::Fenced, ErrorClass::Conflict)
    );
    assert!(
        first
            .status()
            .degraded
            .iter()
            .any(|d| d.cause == DegradationCause::Deposed)
    );
    assert_eq!(sealed(), before);
    assert!(before[0].unwrap().0 <= version && before[0].unwrap().1 == Some(2));
    assert!(second.is_started());
    assert!(second.trigger_rebalance(TIMEOUT).unwrap() > version);
    first.stop(TIMEOUT).unwrap();
}

#[test]
fn atomic_mode_paused_leader_is_fenced() {
    a_deposed_leader_cannot_publish(&store(), false);
}

#[test]
fn atomic_mode_paused_leader_is_fenced_for_worker_without_key() {
    a_deposed_leader_cannot_publish(&store(), true);
}

#[test]
fn per_key_mode_paused_leader_is_fenced() {
    a_deposed_leader_cannot_publish(&store_b(), false);
}

#[test]
fn per_key_mode_paused_leader_is_fenced_for_worker_without_key() {
    a_deposed_leader_cannot_publish(&store_b(), true);
}

/// Symptom: a write of a Go leader was overwritten or not detected, and versions were reused.
#[test]
fn unconditional_put_is_answered_with_higher_version() {
    for store in [store(), store_b()] {
        let _fleet = Fleet::new(&store, ["w-1", "w-2"]);
        let calculator = calculator(&store);
        let events = started(&calculator);
        wait_for_publication(&events);
        let go = br#"{"version":41,"lifecycle":"emergency","partitions":null}"#;
        store.server().put(Bucket::Assignment, "assignment.w-1", go);
        wait_until("an answer", || calculator.current_version() > 41);
        wait_until("the whole plan", || {
            all_held(&store, &["w-1", "w-2"]) == ids(10)
        });
        assert!(held(&store, "w-1").unwrap().version > 41);
        assert!(calculator.is_started());
    }
}

#[test]
fn deleted_assignment_is_restored() {
    for store in [store(), store_b()] {
        let _fleet = Fleet::new(&store, ["w-1", "w-2"]);
        let calculator = calculator(&store);
        let events = started(&calculator);
        let version = wait_for_publication(&events);
        store.server().delete(Bucket::Assignment, "assignment.w-2");
        wait_until("the whole plan", || {
            all_held(&store, &["w-1", "w-2"]) == ids(10)
        });
        wait_until("a new version", || calculator.current_version() > version);
    }
}

/// Symptom: a read error restarted versions at 0.
#[test]
fn versions_continue_across_leaders_and_loss_of_keys() {
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1"]);
    let mut version = 0;
    for round in 0..3 {
        let calculator = calculator(&store);
        calculator.start(TIMEOUT).unwrap();
        let next = calculator.trigger_rebalance(TIMEOUT).unwrap();
        assert!(next > version, "round {round}: {next} after {version}");
        version = next;
        calculator.stop(TIMEOUT).unwrap();
        let lost = ["assignment.w-1", "divvy.commit", "divvy.fence"][round];
        store.server().delete(Bucket::Assignment, lost);
    }
}

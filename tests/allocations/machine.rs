//! In the steady state (heartbeats of 1 000 workers, ticks) the core allocates nothing.

use std::time::Duration;

use divvy::CalculatorConfig;
use divvy::machine::calculator::{CalculatorInput, CalculatorMachine, Finding};
use divvy::machine::observer::Observer;
use divvy::machine::takeover::{HeartbeatRecord, TakeOver};
use divvy::store::{Entry, Operation, WatchEvent};
use divvy::types::{Time, WorkerId};
use divvy::wire::{Applied, encode_heartbeat};

use crate::allocations;

const WORKERS: usize = 1_000;
const BEAT_MILLIS: u64 = 2_000;

fn workers() -> Vec<WorkerId> {
    (0..WORKERS)
        .map(|i| WorkerId::new(&format!("worker-{i}")).unwrap())
        .collect()
}

/// The events of the heartbeat watch for each worker.
fn beats(workers: &[WorkerId]) -> Vec<WatchEvent> {
    let beat = |worker: &WorkerId| {
        WatchEvent::Change(Entry {
            key: format!("heartbeat.{worker}"),
            value: encode_heartbeat(worker, "2026-01-01T00:00:00Z", Applied::default()),
            revision: 1,
            operation: Operation::Put,
            age: Some(Duration::ZERO),
        })
    };
    workers.iter().map(beat).collect()
}

#[test]
fn heartbeats_of_1000_workers_allocate_nothing() {
    let workers = workers();
    let beats = beats(&workers);
    let mut observer = Observer::new(&CalculatorConfig::default()).unwrap();
    let ttl = CalculatorConfig::default().heartbeat_ttl;
    let alive = workers.iter().map(|worker| (worker.clone(), ttl));
    observer.leases_mut().seed(Time::ZERO, alive, []);
    let in_force = Applied::default();
    observer.heartbeat(Time::ZERO, &WatchEvent::Live, in_force);
    // The first heartbeat of a worker reports its applied version, which is stored.
    for beat in &beats {
        observer.heartbeat(Time::ZERO, beat, in_force);
    }
    let mut ticks = 0;
    let count = allocations(|| {
        for round in 1..=100_u64 {
            for (index, beat) in (0..).zip(&beats) {
                let now = Time::from_millis(round * BEAT_MILLIS + index);
                observer.heartbeat(now, beat, in_force);
                if observer.deadline().is_some_and(|deadline| deadline <= now) {
                    observer.tick(now);
                    ticks += 1;
                }
                assert!(observer.poll_event().is_none());
            }
        }
    });
    assert!(ticks > 30, "the leases' timers were not driven: {ticks}");
    assert_eq!(count, 0);
}

#[test]
fn ticks_of_settled_calculator_allocate_nothing() {
    let workers = workers();
    let mut calculator = CalculatorMachine::new(CalculatorConfig::default(), Time::ZERO, 1, true);
    let heartbeat = |worker: &WorkerId| HeartbeatRecord {
        worker: worker.clone(),
        operation: Operation::Put,
        age: None,
    };
    let found = TakeOver {
        term: 2,
        version: 7,
        planned: workers.iter().cloned().collect(),
        consistent: true,
        finding: Some(Finding::Same),
        heartbeats: workers.iter().map(heartbeat).collect(),
        former_leader: None,
        former_leader_lease_over: false,
        store_returned: None,
        generation: 0,
    };
    calculator.handle(Time::ZERO, CalculatorInput::TakenOver(Box::new(found)));
    while calculator.poll_action().is_some() {}
    let count = allocations(|| {
        for second in 0..10_000 {
            let now = Time::from_millis(second * 1_000);
            calculator.tick(now);
            calculator.handle(now, CalculatorInput::StoreHealth(None));
            assert!(calculator.poll_action().is_none());
            assert_eq!(calculator.deadline(), None);
        }
    });
    assert_eq!(count, 0);
}

/// Recording costs no allocation, neither on the calculator's threads nor on the way to the store,
/// whatever a scrape costs.
#[cfg(feature = "metrics")]
#[test]
fn recording_metrics_allocates_nothing() {
    use divvy::metrics::{
        AssignmentMetrics, CalculatorMetrics, DegradationCause, ExpiryCause, MemberChange,
        Prometheus, RetryCause, Step, StoreCall, StoreOutcome, Success,
    };
    use divvy::types::{CalculatorState, Reason};

    let metrics = Prometheus::builder().parti_names().build().unwrap();
    let calculator: &dyn CalculatorMetrics = &metrics;
    let took = Duration::from_millis(3);
    let count = allocations(|| {
        for _ in 0..1_000 {
            calculator.state_changed(CalculatorState::Idle, CalculatorState::Scaling, took);
            calculator.rebalanced(Reason::Emergency, Success::No, took);
            calculator.worker_changed(MemberChange::Dead);
            calculator.workers(9_999, 1);
            calculator.unassigned(7);
            calculator.lease_ended(ExpiryCause::Silence);
            calculator.degraded(&[DegradationCause::WatchLost]);
            calculator.event_missed(true);
            calculator.called_back(took);
            calculator.store_called(StoreCall::WriteBatch, StoreOutcome::Done, took);
            metrics.step(Step::Publish, took);
            metrics.retried(RetryCause::Busy);
        }
    });
    assert_eq!(count, 0);
}

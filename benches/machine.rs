//! The cost of one step of the core with 1 000 workers.
//!
//! `cargo bench --bench machine`

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use divvy::CalculatorConfig;
use divvy::machine::calculator::{
    CalculatorAction, CalculatorInput, CalculatorMachine, Finding, Job, JobReport, Publication,
    SourceOutcome,
};
use divvy::machine::liveness::{Leases, MembershipEvent};
use divvy::machine::takeover::{HeartbeatRecord, TakeOver};
use divvy::store::Operation;
use divvy::types::{Time, WorkerId};

const WORKERS: usize = 1_000;

fn ids() -> Vec<WorkerId> {
    (0..WORKERS)
        .map(|i| WorkerId::new(&format!("worker-{i}")).expect("a valid id"))
        .collect()
}

fn leases(workers: &[WorkerId]) -> Leases {
    let config = CalculatorConfig::default();
    let mut leases = Leases::new(
        config.heartbeat_ttl,
        config.join_coalescing,
        config.recovery_grace(),
    );
    let alive = workers.iter().map(|w| (w.clone(), config.heartbeat_ttl));
    leases.seed(Time::ZERO, alive, []);
    leases.live(Time::ZERO);
    leases
}

/// Returns a calculator that adopted a plan of all workers, all live.
fn calculator(workers: &[WorkerId]) -> CalculatorMachine {
    let mut calculator = CalculatorMachine::new(CalculatorConfig::default(), Time::ZERO, 1, true);
    let found = TakeOver {
        term: 2,
        version: 7,
        planned: workers.iter().cloned().collect(),
        consistent: true,
        finding: Some(Finding::Same),
        heartbeats: workers
            .iter()
            .map(|worker| HeartbeatRecord {
                worker: worker.clone(),
                operation: Operation::Put,
                age: None,
            })
            .collect(),
        former_leader: None,
        former_leader_lease_over: false,
        store_returned: None,
        generation: 0,
    };
    calculator.handle(Time::ZERO, CalculatorInput::TakenOver(Box::new(found)));
    while calculator.poll_action().is_some() {}
    calculator
}

fn drain(calculator: &mut CalculatorMachine) {
    while let Some(action) = calculator.poll_action() {
        black_box(action);
    }
}

fn benches(c: &mut Criterion) {
    let workers = ids();
    let mut group = c.benchmark_group("machine_1000_workers");

    let mut beating = leases(&workers);
    let mut beat: u64 = 0;
    group.bench_function("beat", |b| {
        b.iter(|| {
            beat += 1;
            // Every worker sends a heartbeat every 2 s.
            let now = Time::from_nanos(beat * 2_000_000);
            let worker = &workers[beat as usize % WORKERS];
            beating.beat(now, worker.as_str(), Duration::ZERO);
            beating.tick(now);
            assert!(beating.poll_event().is_none());
        });
    });

    let mut idle = calculator(&workers);
    group.bench_function("tick", |b| {
        b.iter(|| {
            idle.tick(black_box(Time::from_millis(1_000)));
            black_box(idle.deadline());
        });
    });

    let mut flapping = calculator(&workers);
    group.bench_function("missing_and_back", |b| {
        b.iter(|| {
            let now = Time::from_millis(1_000);
            let worker = &workers[500];
            flapping.handle(
                now,
                CalculatorInput::Membership(MembershipEvent::Suspected(worker.clone())),
            );
            flapping.handle(
                now,
                CalculatorInput::Membership(MembershipEvent::Returned(worker.clone())),
            );
            drain(&mut flapping);
        });
    });

    group.bench_function("emergency_from_loss_to_published", |b| {
        b.iter_batched(
            || calculator(&workers),
            |mut calculator| {
                let lost = MembershipEvent::Suspected(workers[500].clone());
                calculator.handle(Time::from_millis(1_000), CalculatorInput::Membership(lost));
                let confirmed = Time::from_millis(6_000);
                calculator.tick(confirmed);
                while let Some(action) = calculator.poll_action() {
                    if let CalculatorAction::Start {
                        op,
                        job: Job::Publish { workers, .. },
                    } = action
                    {
                        let done = Publication {
                            version: 8,
                            workers,
                            partitions: 10_000,
                            quality: divvy::strategy::Quality::default(),
                            generation: 0,
                            source: SourceOutcome::Returned,
                            limit: Default::default(),
                        };
                        let result = Ok(JobReport::Published(done));
                        let term = 2;
                        calculator.handle(confirmed, CalculatorInput::JobDone { op, term, result });
                    }
                }
                calculator
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(machine, benches);
criterion_main!(machine);

//! What metrics cost: the same work with none, with [`NoMetrics`] and with the recorder.
//!
//! `cargo bench --features metrics --bench metrics`

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use divvy::machine::calculator::{Action, Calculator as Machine, Event, Finding, Notice};
use divvy::machine::liveness::Sighting;
use divvy::machine::takeover::{Heartbeat, TakeOver};
use divvy::metrics::{CalculatorMetrics, NoMetrics, Prometheus, WorkerChange};
use divvy::runtime::sim::{BareHub, FleetChanges};
use divvy::store::memory::MemoryStore;
use divvy::store::{Bucket, BucketConfig, Expect, Operation, Store, Write};
use divvy::types::{Time, WorkerId};
use divvy::{Calculator, CalculatorConfig, Interest, Partition};

const WORKERS: usize = 1_000;
const PARTITIONS: usize = 10_000;
const FOREVER: Duration = Duration::from_secs(3_600);

fn prometheus() -> Arc<Prometheus> {
    Arc::new(Prometheus::builder().build().expect("a recorder"))
}

/// A machine that adopted a plan of all workers, all alive.
fn machine(workers: &[WorkerId]) -> Machine {
    let mut machine = Machine::new(CalculatorConfig::default(), Time::ZERO, 1, true);
    let heartbeat = |worker: &WorkerId| Heartbeat {
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
        generation: 0,
    };
    machine.handle(Time::ZERO, Event::TakenOver(Box::new(found)));
    while machine.poll_action().is_some() {}
    machine
}

/// What `dv-calc` does for one event: hands it in, carries out, tells when no more is waiting.
fn step(
    machine: &mut Machine,
    hub: &BareHub,
    sighting: Sighting,
    metrics: Option<(&dyn CalculatorMetrics, &mut FleetChanges)>,
    is_more_coming: bool,
) {
    machine.handle(Time::from_millis(1_000), Event::Sighting(sighting));
    let mut telling = metrics;
    while let Some(action) = machine.poll_action() {
        let Action::Notify(notice) = action else {
            black_box(action);
            continue;
        };
        if let (Notice::Member(_), Some((_, changes))) = (&notice, &mut telling) {
            changes.note(WorkerChange::Missing);
        }
        hub.publish(notice);
    }
    if let Some((metrics, changes)) = telling
        && changes.tell(is_more_coming, metrics)
    {
        let (alive, missing) = machine.worker_counts();
        metrics.workers(alive, missing);
        black_box(machine.has_gone());
    }
}

/// A started calculator of a large fleet that beats no more, and need not.
fn calculator(
    metrics: impl FnOnce(Arc<dyn Store>) -> divvy::runtime::CalculatorBuilder,
) -> Calculator {
    let store = MemoryStore::new();
    let soon = Instant::now() + Duration::from_secs(60);
    let heartbeats = BucketConfig { ttl: Some(FOREVER) };
    store
        .ensure(Bucket::Heartbeat, heartbeats, soon)
        .expect("a bucket");
    let beats: Vec<Write> = (0..WORKERS)
        .map(|worker| Write {
            key: format!("heartbeat.worker-{worker}"),
            value: Some(b"alive".to_vec()),
            expect: Expect::Any,
        })
        .collect();
    store.write(Bucket::Heartbeat, &beats, soon);
    let mut config = CalculatorConfig::default();
    config.heartbeat_ttl = FOREVER;
    config.cold_start_window = Duration::from_millis(10);
    let partitions: Vec<Partition> = (0..PARTITIONS)
        .map(|n| Partition::new([format!("p{n}")], 1))
        .collect();
    let calculator = metrics(Arc::new(store.client("leader")))
        .config(config)
        .source(move || Ok(partitions.clone()))
        .build()
        .expect("a calculator");
    calculator.start(Duration::from_secs(60)).expect("a start");
    while calculator.status().pending.reason.is_some() {
        std::thread::sleep(Duration::from_millis(20));
    }
    calculator
}

fn benches(c: &mut Criterion) {
    let workers: Vec<WorkerId> = (0..WORKERS)
        .map(|i| WorkerId::new(&format!("worker-{i}")).expect("a valid id"))
        .collect();
    let recorder = prometheus();
    let choices: [(&str, Option<&dyn CalculatorMetrics>); 3] = [
        ("none", None),
        ("no_op", Some(&NoMetrics)),
        ("recorder", Some(&*recorder)),
    ];
    // A pair of steps: alone, and among others that wait already, as when many come or go.
    for (kind, burst) in [("alone", 1), ("in_a_burst", 32)] {
        let mut group = c.benchmark_group(format!("machine_step_1000_workers_{kind}"));
        group.measurement_time(Duration::from_secs(8));
        for (name, metrics) in choices {
            let mut machine = machine(&workers);
            let hub = BareHub::new(machine.current_state(), 65_536);
            let events = hub.events(Interest::StateAndMembers);
            let mut changes = FleetChanges::default();
            let worker = &workers[500];
            let mut pairs = 0_u32;
            group.bench_function(name, |b| {
                b.iter(|| {
                    pairs = pairs.wrapping_add(1);
                    let missing = Sighting::Missing(worker.clone());
                    let telling = metrics.map(|metrics| (metrics, &mut changes));
                    step(&mut machine, &hub, missing, telling, burst > 1);
                    let back = Sighting::Back(worker.clone());
                    let telling = metrics.map(|metrics| (metrics, &mut changes));
                    step(
                        &mut machine,
                        &hub,
                        back,
                        telling,
                        !pairs.is_multiple_of(burst),
                    );
                    while events.try_recv().is_some() {}
                });
            });
        }
        group.finish();
    }

    let mut group = c.benchmark_group("publish_10000_partitions");
    group.sample_size(50);
    let calculators = [
        ("none", calculator(Calculator::builder)),
        (
            "no_op",
            calculator(|store| Calculator::builder(store).metrics(Arc::new(NoMetrics))),
        ),
        (
            "recorder",
            calculator(|store| Calculator::builder(store).metrics(prometheus())),
        ),
    ];
    for (name, calculator) in &calculators {
        group.bench_function(*name, |b| {
            b.iter(|| calculator.trigger_rebalance(FOREVER).expect("a version"));
        });
    }
    group.finish();
}

criterion_group!(metrics, benches);
criterion_main!(metrics);

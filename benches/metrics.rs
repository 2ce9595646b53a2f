//! The overhead of metrics: the same work without, with [`NoMetrics`] and with the recorder.
//!
//! `cargo bench --features metrics --bench metrics`

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use divvy::machine::calculator::{
    CalculatorAction, CalculatorEvent, CalculatorInput, CalculatorMachine, Finding,
};
use divvy::machine::liveness::MembershipEvent;
use divvy::machine::takeover::{HeartbeatRecord, TakeOver};
use divvy::metrics::{CalculatorMetrics, MemberChange, NoMetrics, Prometheus};
use divvy::runtime::sim::{BareHub, FleetChanges};
use divvy::store::memory::MemoryStore;
use divvy::store::{Bucket, BucketConfig, Expect, Operation, Store, Write};
use divvy::types::{Time, WorkerId};
use divvy::{Calculator, CalculatorConfig, EventFilter, Partition};

const WORKERS: usize = 1_000;
const PARTITIONS: usize = 10_000;
const HEAD: &str = "
| median (least), us | none | no-op | recorder | no-op | recorder |
| --- | --- | --- | --- | --- | --- |";
const FOREVER: Duration = Duration::from_secs(3_600);

fn prometheus() -> Arc<Prometheus> {
    Arc::new(Prometheus::builder().build().expect("a recorder"))
}

/// Returns a machine that adopted a plan of all workers, all live.
fn machine(workers: &[WorkerId]) -> CalculatorMachine {
    let mut machine = CalculatorMachine::new(CalculatorConfig::default(), Time::ZERO, 1, true);
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
    machine.handle(Time::ZERO, CalculatorInput::TakenOver(Box::new(found)));
    while machine.poll_action().is_some() {}
    machine
}

/// Does the work of `dv-calc` for one event: dispatches it, executes the actions, and reports
/// metrics when the queue is empty.
fn step(
    machine: &mut CalculatorMachine,
    hub: &BareHub,
    membership: MembershipEvent,
    metrics: Option<(&dyn CalculatorMetrics, &mut FleetChanges)>,
    is_more_coming: bool,
) {
    machine.handle(
        Time::from_millis(1_000),
        CalculatorInput::Membership(membership),
    );
    let mut metrics_sink = metrics;
    while let Some(action) = machine.poll_action() {
        let CalculatorAction::Notify(notice) = action else {
            black_box(action);
            continue;
        };
        if let (CalculatorEvent::Member { .. }, Some((_, changes))) = (&notice, &mut metrics_sink) {
            changes.note(MemberChange::Suspected);
        }
        hub.publish(notice);
    }
    if let Some((metrics, changes)) = metrics_sink
        && changes.report(is_more_coming, metrics)
    {
        let (alive, suspected) = machine.worker_counts();
        metrics.workers(alive, suspected);
        black_box(machine.has_removed());
    }
}

/// Returns a started calculator of a large fleet without heartbeats, which it does not need.
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

/// Times of the same work, alternating between no metrics, the empty implementation and the
/// recorder. Only interleaved runs are comparable on a machine of varying speed.
struct Turns {
    what: String,
    times: [Vec<Duration>; 3],
}

impl Turns {
    fn new(what: String) -> Self {
        Self {
            what,
            times: Default::default(),
        }
    }

    fn run(&mut self, rounds: usize, mut work: impl FnMut(usize)) {
        for round in 0..rounds * 3 {
            // Each one follows each other one equally often.
            let which = (round + round / 3) % 3;
            let began = Instant::now();
            work(which);
            self.times[which].push(began.elapsed());
        }
    }

    fn print(mut self, per: u32) {
        let mut medians = [0.0; 3];
        print!("| {} |", self.what);
        for (median, times) in medians.iter_mut().zip(&mut self.times) {
            times.sort_unstable();
            let micros = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(per);
            *median = micros(times[times.len() / 2]);
            print!(" {median:.3} ({:.3}) |", micros(times[0]));
        }
        let change = |with: f64| (with / medians[0] - 1.0) * 100.0;
        println!(
            " {:+.1} % | {:+.1} % |",
            change(medians[1]),
            change(medians[2])
        );
    }
}

fn main() {
    // As in criterion: the benchmarks named on the command line, or all.
    let only = std::env::args().skip(1).find(|it| !it.starts_with('-'));
    let is_wanted = |name: &str| only.as_ref().is_none_or(|only| name.contains(only));
    if is_wanted("metrics_machine_step") {
        println!("{HEAD}");
        // A pair of steps: with an empty queue, and with others queued, as when many workers join
        // or leave.
        steps("alone", 1);
        steps("in a burst", 32);
    }
    if is_wanted("metrics_publication") {
        println!("{HEAD}");
        publications();
    }
}

fn publications() {
    let calculators = [
        calculator(Calculator::builder),
        calculator(|store| Calculator::builder(store).metrics(Arc::new(NoMetrics))),
        calculator(|store| Calculator::builder(store).metrics(prometheus())),
    ];
    let mut turns = Turns::new(format!("publishing {PARTITIONS} partitions"));
    turns.run(100, |which| {
        calculators[which]
            .trigger_rebalance(FOREVER)
            .expect("a version");
    });
    turns.print(1);
}

fn steps(kind: &str, burst: u32) {
    const PAIRS: u32 = 1_024;
    let workers: Vec<WorkerId> = (0..WORKERS)
        .map(|i| WorkerId::new(&format!("worker-{i}")).expect("a valid id"))
        .collect();
    let worker = &workers[500];
    let recorder = prometheus();
    let choices: [Option<&dyn CalculatorMetrics>; 3] = [None, Some(&NoMetrics), Some(&*recorder)];
    let mut machine = machine(&workers);
    let hub = BareHub::new(machine.current_state(), 65_536);
    let events = hub.events(EventFilter::StateAndMembers);
    let mut changes = FleetChanges::default();
    let mut turns = Turns::new(format!("a worker suspected and returned, {kind}"));
    turns.run(2_000, |which| {
        for pair in 1..=PAIRS {
            let is_last = pair.is_multiple_of(burst);
            let suspected = MembershipEvent::Suspected(worker.clone());
            let metrics_sink = choices[which].map(|metrics| (metrics, &mut changes));
            step(&mut machine, &hub, suspected, metrics_sink, burst > 1);
            let back = MembershipEvent::Returned(worker.clone());
            let metrics_sink = choices[which].map(|metrics| (metrics, &mut changes));
            step(&mut machine, &hub, back, metrics_sink, !is_last);
            while events.try_recv().is_some() {}
        }
    });
    turns.print(PAIRS);
}

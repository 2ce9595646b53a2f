//! The observer process: two workers, one of them the leader, with a record of their logs, events
//! and metrics.
//!
//! Settings for outages have their defaults. Only the windows are short.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use divvy::metrics::Prometheus;
use divvy::store::nats::NatsStore;
use divvy::{
    CalculatorEvent, CalculatorState, Departure, Events, Manager, ManagerConfig, ManagerEvent,
    ManagerEventFilter, ManagerState, Partition, read_fleet,
};
use serde_json::{Value, json};

use super::wall_clock::{self, DAY};
use super::{ADDRESS, SAYS, TIMEOUT};
use crate::support::fault_list::Address;

const PARTITIONS: usize = 24;
/// Interval at which the metrics are read: short enough to see a gauge that changes briefly.
const LOOK: Duration = Duration::from_millis(100);
/// How long the fleet must be healthy after a fault, and without one.
const WELL_FOR: Duration = Duration::from_secs(1);
const AT_REST_FOR: Duration = Duration::from_millis(300);

/// The main function of the observer process.
pub fn watch_if_asked() {
    let Ok(address) = std::env::var(ADDRESS) else {
        return;
    };
    log::set_logger(&LOG).expect("no other logger");
    log::set_max_level(log::LevelFilter::Info);
    let address = Address::from_text(&address);
    let orders = orders();
    let fleet = Fleet::start(&address);
    if let Err(why) = fleet.wait_until_well(AT_REST_FOR, Instant::now() + TIMEOUT, || ()) {
        panic!("the fleet does not become healthy: {why}");
    }
    say("ready");
    expect(&orders, &["begin"], || ());
    let mut notes = Notes::begin(&fleet);
    say("heard");
    expect(&orders, &["struck"], || notes.look(&fleet));
    let struck = Instant::now();
    say("heard");
    let mut asked = None;
    let mut has_stepped = false;
    loop {
        match &*expect(&orders, &["plan", "step", "healed"], || notes.look(&fleet)) {
            "plan" => asked = Some(fleet.ask_for_a_plan()),
            "step" => {
                wall_clock::set_ahead(DAY);
                has_stepped = true;
            }
            _ => break,
        }
        say("heard");
    }
    if has_stepped {
        wall_clock::set_ahead(-DAY);
    }
    let healed = Instant::now();
    say("heard");
    let deadline = healed + TIMEOUT;
    let well = fleet.wait_until_well(WELL_FOR, deadline, || notes.look(&fleet));
    notes.look(&fleet);
    LOG.is_on.store(false, Ordering::SeqCst);
    let mut report = notes.report(struck);
    let well_after = healed.elapsed().saturating_sub(WELL_FOR);
    report["well_ms"] = json!(well_after.as_millis());
    // Ignores the result of requests made meanwhile.
    asked.map(thread::JoinHandle::join);
    if let Err(why) = well.and_then(|()| fleet.prove_that_it_works()) {
        report["not_well"] = json!(why);
    }
    say(&report.to_string());
    fleet.stop();
}

fn say(what: &str) {
    println!("{SAYS}{what}");
    std::io::stdout().flush().expect("the parent reads");
}

/// Orders of the parent. This process ends with its parent.
fn orders() -> Receiver<String> {
    let (sender, orders) = channel();
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            sender.send(line).ok();
        }
        // The parent keeps its end open until this process has ended.
        std::process::exit(1);
    });
    orders
}

fn expect(orders: &Receiver<String>, wanted: &[&str], mut meanwhile: impl FnMut()) -> String {
    loop {
        match orders.recv_timeout(LOOK) {
            Ok(order) => {
                assert!(wanted.contains(&order.as_str()), "{order}, not {wanted:?}");
                return order;
            }
            Err(RecvTimeoutError::Timeout) => meanwhile(),
            Err(RecvTimeoutError::Disconnected) => panic!("the parent sends no orders"),
        }
    }
}

// --- the fleet ---

struct Worker {
    name: &'static str,
    manager: Arc<Manager>,
    store: Arc<NatsStore>,
    metrics: Arc<Prometheus>,
    events: Events<ManagerEvent>,
}

/// The leader first. The other worker may never lead.
struct Fleet {
    workers: [Worker; 2],
}

fn config() -> ManagerConfig {
    let mut config = ManagerConfig::default();
    config.calculator.cooldown = Duration::from_millis(100);
    config.calculator.cold_start_window = Duration::from_millis(300);
    config.calculator.planned_scale_window = Duration::from_millis(200);
    config
}

fn partitions() -> Vec<Partition> {
    (0..PARTITIONS)
        .map(|n| Partition::new([format!("p{n:04}")], 1))
        .collect()
}

impl Worker {
    fn start(name: &'static str, address: &Address) -> Self {
        let mut config = config();
        config.may_lead = name == "leader";
        let metrics = Prometheus::builder().with_manager().build();
        let metrics = Arc::new(metrics.expect("a recorder"));
        let deadline = Instant::now() + TIMEOUT;
        let store = NatsStore::connect(address.options(), deadline).expect("a connection");
        let store = Arc::new(store);
        let manager = Manager::builder(store.clone())
            .config(config)
            .source(|| Ok(partitions()))
            .metrics(Arc::clone(&metrics))
            .build()
            .expect("a manager");
        let events = manager.events(ManagerEventFilter::WorkerAndCalculator);
        manager.start(TIMEOUT).expect("a start");
        Self {
            name,
            manager: Arc::new(manager),
            store,
            metrics,
            events,
        }
    }

    /// Why it is not healthy.
    fn trouble(&self) -> Option<String> {
        let status = self.manager.status();
        if status.state != ManagerState::Stable {
            return Some(format!("{} is {}", self.name, status.state));
        }
        if let Some(failure) = status.last_failure {
            return Some(format!("{}: {failure}", self.name));
        }
        if status.breaker.state.state.name() != "closed" {
            return Some(format!("{}: {:?}", self.name, status.breaker));
        }
        let calculator = status.calculator?;
        if !calculator.degraded.is_empty() {
            return Some(format!("degraded: {:?}", calculator.degraded));
        }
        if let Some(failure) = calculator.last_failure {
            return Some(format!("the calculator: {failure}"));
        }
        (calculator.state != CalculatorState::Idle).then(|| format!("still {}", calculator.state))
    }
}

impl Fleet {
    fn start(address: &Address) -> Self {
        Self {
            workers: ["leader", "follower"].map(|name| Worker::start(name, address)),
        }
    }

    fn wait_until_well(
        &self,
        lasting: Duration,
        deadline: Instant,
        mut meanwhile: impl FnMut(),
    ) -> Result<(), String> {
        let mut since: Option<Instant> = None;
        loop {
            match self.trouble() {
                None if since.is_some_and(|since| since.elapsed() >= lasting) => return Ok(()),
                None => drop(since.get_or_insert_with(Instant::now)),
                Some(why) if Instant::now() >= deadline => return Err(why),
                Some(_) => since = None,
            }
            meanwhile();
            thread::sleep(LOOK);
        }
    }

    /// Why the fleet is not healthy: a worker, the partitions of the workers, or the stored plan.
    fn trouble(&self) -> Option<String> {
        let trouble = self.workers.iter().find_map(Worker::trouble);
        if trouble.is_some() {
            return trouble;
        }
        let [leader, follower] = [0, 1].map(|n| &self.workers[n].manager);
        if !leader.is_leader() || follower.leader() != leader.worker_id() {
            return Some("the two workers have no common leader".into());
        }
        let held = [leader, follower].map(|worker| worker.assignment());
        let owned: Vec<String> = held
            .iter()
            .flat_map(|held| held.partitions.iter().map(Partition::id))
            .collect();
        let distinct: BTreeSet<&String> = owned.iter().collect();
        if owned.len() != PARTITIONS || distinct.len() != PARTITIONS {
            return Some(format!("{} owners of {PARTITIONS}", owned.len()));
        }
        let timeout = Instant::now() + Duration::from_secs(5);
        let all = partitions();
        // Without the breaker and the metrics, which belong to the worker.
        let store = &*self.workers[0].store;
        let look = read_fleet(store, &config().calculator, Some(&all), timeout);
        let stored = match look {
            Ok(stored) => stored,
            Err(error) => return Some(format!("the store: {error}")),
        };
        // The key of a worker without changes is not rewritten.
        let is_applied = self.workers.iter().zip(&held).all(|(worker, held)| {
            let id = worker.manager.worker_id();
            let mut views = stored.workers.iter();
            let view = views.find(|view| id.as_ref().is_some_and(|id| id.as_str() == view.worker));
            view.is_some_and(|view| view.is_alive && view.version == Some(held.version))
        });
        let is_whole = stored.is_complete
            && stored.unassigned.as_ref().is_some_and(Vec::is_empty)
            && stored.shared.is_empty()
            && is_applied;
        (!is_whole)
            .then(|| format!("the stored assignments differ from the applied ones: {stored}"))
    }

    /// A host that makes requests, whatever the state of its store.
    fn ask_for_a_plan(&self) -> thread::JoinHandle<()> {
        let leader = Arc::clone(&self.workers[0].manager);
        thread::spawn(move || drop(leader.trigger_rebalance(TIMEOUT)))
    }

    /// Publishes a new plan and waits until it is applied.
    fn prove_that_it_works(&self) -> Result<(), String> {
        let published = self.workers[0].manager.trigger_rebalance(TIMEOUT);
        published.map_err(|error| format!("no plan is published: {error}"))?;
        self.wait_until_well(AT_REST_FOR, Instant::now() + TIMEOUT, || ())
    }

    fn stop(self) {
        for worker in self.workers.iter().rev() {
            let stopped = worker.manager.stop(Departure::Leave, TIMEOUT);
            stopped.expect("all threads end");
        }
    }
}

// --- output ---

/// In the order of their first occurrence, with counts.
#[derive(Default)]
struct Counted(Vec<(String, u32)>);

impl Counted {
    fn note(&mut self, what: String) {
        match self.0.iter_mut().find(|(known, _)| *known == what) {
            Some((_, count)) => *count += 1,
            None => self.0.push((what, 1)),
        }
    }
}

struct Notes {
    states: Counted,
    reasons: Counted,
    events: Counted,
    before: [BTreeMap<String, String>; 2],
    metrics: BTreeSet<String>,
}

impl Notes {
    fn begin(fleet: &Fleet) -> Self {
        for worker in &fleet.workers {
            while worker.events.try_recv().is_some() {}
        }
        LOG.is_on.store(true, Ordering::SeqCst);
        Self {
            states: Counted::default(),
            reasons: Counted::default(),
            events: Counted::default(),
            before: [0, 1].map(|n| page(&fleet.workers[n].metrics)),
            metrics: BTreeSet::new(),
        }
    }

    fn look(&mut self, fleet: &Fleet) {
        for (worker, before) in fleet.workers.iter().zip(&self.before) {
            for (series, value) in page(&worker.metrics) {
                if before.get(&series) != Some(&value) {
                    self.metrics.insert(series);
                }
            }
        }
        for worker in &fleet.workers {
            while let Some(notice) = worker.events.try_recv() {
                self.note(worker.name, &notice);
            }
        }
    }

    fn note(&mut self, worker: &str, notice: &ManagerEvent) {
        self.events.note(kind_of(notice));
        match notice {
            ManagerEvent::StateChanged(change) => {
                self.states.note(format!("{worker} {}", change.to));
            }
            ManagerEvent::Calculator(CalculatorEvent::StateChanged(change)) => {
                self.states.note(format!("calculator {}", change.to));
            }
            ManagerEvent::Calculator(CalculatorEvent::Degraded(degraded)) => {
                for reason in degraded.iter() {
                    self.reasons.note(reason.cause.name().into());
                }
            }
            _ => {}
        }
    }

    fn report(self, struck: Instant) -> Value {
        let lines = std::mem::take(&mut *LOG.lines.lock().expect("no panic in here"));
        let lines: Vec<Value> = lines
            .into_iter()
            .map(|line| {
                json!({
                    "ms": line.at.saturating_duration_since(struck).as_millis(),
                    "level": line.level.as_str().to_lowercase(),
                    "target": line.target,
                    "message": line.message,
                })
            })
            .collect();
        json!({
            "states": self.states.0,
            "reasons": self.reasons.0,
            "events": self.events.0,
            "lines": lines,
            "metrics": self.metrics,
        })
    }
}

/// The names of its variants: `Breaker`, `Calculator(Degraded)`.
fn kind_of(notice: &ManagerEvent) -> String {
    let name = |debug: String| {
        let end = debug.find(|c: char| !c.is_alphanumeric());
        debug[..end.unwrap_or(debug.len())].to_owned()
    };
    match notice {
        ManagerEvent::Calculator(notice) => {
            format!("Calculator({})", name(format!("{notice:?}")))
        }
        notice => name(format!("{notice:?}")),
    }
}

/// The relevant series: without times, which always change, and without gauges that change only
/// briefly during a plan, which a read may miss and counters cover.
fn page(metrics: &Prometheus) -> BTreeMap<String, String> {
    const TIMES: [&str; 4] = ["_bucket", "_sum", "_count", "_age_seconds"];
    const MOMENTS: [&str; 4] = [
        "divvy_calculator_state",
        "divvy_manager_state",
        "divvy_plan_moved_ratio",
        "divvy_workers_lag_versions",
    ];
    let is_counter = |series: &str| {
        let family = series.split('{').next().unwrap_or_default();
        !TIMES.iter().any(|end| family.ends_with(end)) && !MOMENTS.contains(&family)
    };
    let page = metrics.render();
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| is_counter(series))
        .map(|(series, value)| (series.to_owned(), value.to_owned()))
        .collect()
}

// --- the log ---

struct Line {
    at: Instant,
    level: log::Level,
    target: String,
    message: String,
}

/// Records the log lines of level `info` and above.
struct Log {
    is_on: AtomicBool,
    lines: Mutex<Vec<Line>>,
}

static LOG: Log = Log {
    is_on: AtomicBool::new(false),
    lines: Mutex::new(Vec::new()),
};

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let is_ours = record.target().starts_with("divvy");
        if is_ours && self.is_on.load(Ordering::SeqCst) {
            self.lines.lock().expect("no panic in here").push(Line {
                at: Instant::now(),
                level: record.level(),
                target: record.target().to_owned(),
                message: record.args().to_string(),
            });
        }
    }

    fn flush(&self) {}
}

//! A leader whose fleet only sends heartbeats: its CPU, store calls and memory.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{Bucket, BucketConfig, Store};
use divvy::{Calculator, CalculatorConfig, CalculatorState, Partition};

use crate::soon;
use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::Server;
use crate::support::raw_nats::RawNats;

const BEAT_INTERVAL: Duration = Duration::from_secs(2);
const TTL: Duration = Duration::from_secs(6);
/// How long CPU time is measured.
const WINDOW: Duration = Duration::from_secs(20);
const PARTITIONS: usize = 10_000;

/// Measures a leader of this many workers, prints one row of the table, and returns the share of
/// each thread.
pub fn measure(workers: usize, leader_max: f64, added_max: &str) -> Threads {
    let server = Server::start(NEWEST);
    let store = connect(server.port);
    let fleet = Fleet::start(server.port, workers);
    wait_for_workers(&store, workers);
    let alone = per_cent(|| server_cpu(&server));
    let leader = lead(store, workers);
    let counted = || {
        let counters = leader.status().counters;
        let jsz = server.monitoring("jsz").expect("the server answers");
        let calls = jsz["api"]["total"].as_u64().expect("a number");
        [counters.listings, calls, counters.calculator_wakes]
    };
    let before = counted();
    let (own_before, threads_before) = (own_cpu(), Threads::now());
    let with_leader = per_cent(|| server_cpu(&server));
    let own = (own_cpu() - own_before).as_secs_f64() / WINDOW.as_secs_f64() * 100.0;
    let threads = Threads::now().since(&threads_before);
    let after = counted();
    leader.stop(Duration::from_secs(10)).expect("the stop");
    drop(fleet);
    println!(
        "| {workers} | {own:.2} | <= {leader_max} | {:.2} ({alone:.2} -> {with_leader:.2}) | \
         {added_max} | {} | {} | {} |",
        with_leader - alone,
        after[0] - before[0],
        after[1] - before[1],
        // A status call wakes the thread too, unless it was awake.
        (after[2] - before[2]).saturating_sub(1)
    );
    threads
}

/// Measures the memory of a leader of 1 000 workers and 10 000 partitions, in its own process.
pub fn memory() -> f64 {
    const WORKERS: usize = 1_000;
    let server = Server::start(NEWEST);
    let store = connect(server.port);
    let _fleet = Fleet::start(server.port, WORKERS);
    wait_for_workers(&store, WORKERS);
    let output = own_program(&["remember", &server.port.to_string()])
        .output()
        .expect("the program runs again");
    let text = String::from_utf8_lossy(&output.stdout);
    let kib: f64 = text.trim().parse().expect("a number");
    kib * 1_024.0 / 1e6
}

/// The main function of the measured process: prints by how many KiB it has grown.
pub fn remember(port: &str) {
    let before = resident_kib();
    let port = port.parse().expect("a port");
    let leader = lead(connect(port), 1_000);
    println!("{}", resident_kib() - before);
    leader.stop(Duration::from_secs(10)).expect("the stop");
}

/// The main function of a process that sends the heartbeats of a fleet, evenly distributed, until
/// its input ends.
pub fn beat(port: &str, workers: &str) {
    let port = port.parse().expect("a port");
    let workers: u32 = workers.parse().expect("a number");
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let mut nats = RawNats::connect(port);
    let bucket = Bucket::Heartbeat.default_name();
    let step = BEAT_INTERVAL / workers;
    let mut next = Instant::now();
    for worker in (0..workers).cycle() {
        let subject = format!("$KV.{bucket}.heartbeat.worker-{worker:05}");
        let stored = nats.store(subject.as_bytes(), b"", b"2026-01-01T00:00:00.000000000Z");
        assert!(stored["seq"].is_u64(), "{stored}");
        next += step;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// A process that sends heartbeats. Dropping it ends it.
struct Fleet(Child);

impl Fleet {
    fn start(port: u16, workers: usize) -> Self {
        let mut command = own_program(&["beat", &port.to_string(), &workers.to_string()]);
        let child = command.stdin(Stdio::piped()).spawn();
        Self(child.expect("the program runs again"))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn own_program(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the program has a path"));
    command.args(arguments);
    command
}

fn connect(port: u16) -> Arc<NatsStore> {
    let options = NatsOptions::new([format!("nats://127.0.0.1:{port}")]);
    let store = NatsStore::connect(options, soon()).expect("a connection");
    let ttl = Some(TTL);
    store
        .ensure(Bucket::Heartbeat, BucketConfig { ttl }, soon())
        .expect("a bucket");
    Arc::new(store)
}

fn wait_for_workers(store: &NatsStore, workers: usize) {
    let deadline = soon();
    let listed = || {
        let listing = store.list(Bucket::Heartbeat, "heartbeat", soon());
        listing.expect("a listing").entries.len()
    };
    while listed() < workers {
        assert!(Instant::now() < deadline, "the fleet sends no heartbeats");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Returns an idle leader that has published to all workers.
fn lead(store: Arc<NatsStore>, workers: usize) -> Calculator {
    let mut config = CalculatorConfig::default();
    config.heartbeat_ttl = TTL;
    config.cold_start_window = Duration::from_millis(500);
    config.planned_scale_window = Duration::from_millis(500);
    config.cooldown = Duration::from_millis(100);
    let partitions: Vec<Partition> = (0..PARTITIONS)
        .map(|i| Partition::new([format!("partition-{i:06}")], 100))
        .collect();
    let leader = Calculator::builder(store)
        .config(config)
        .source(move || Ok(partitions.clone()))
        .build()
        .expect("a calculator");
    leader.start(Duration::from_secs(30)).expect("the start");
    let deadline = soon();
    let is_at_rest = || {
        let planned = leader
            .status()
            .workers
            .iter()
            .filter(|w| w.is_planned)
            .count();
        leader.state() == CalculatorState::Idle && planned == workers
    };
    while !is_at_rest() {
        assert!(Instant::now() < deadline, "{:?}", leader.status());
        std::thread::sleep(Duration::from_millis(200));
    }
    // One heartbeat of every worker, so that the work of the start has ended.
    std::thread::sleep(BEAT_INTERVAL);
    leader
}

/// The CPU time of the threads of this process so far, or over the window.
pub struct Threads(BTreeMap<u64, Used>);

struct Used {
    name: String,
    cpu: Duration,
    wakes: u64,
}

impl Threads {
    fn now() -> Self {
        let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
        let used = tasks.filter_map(|task| {
            let task = task.ok()?;
            let read = |file: &str| std::fs::read_to_string(task.path().join(file)).ok();
            let nanos = read("schedstat")?.split(' ').next()?.parse().ok()?;
            let status = read("status")?;
            let waits = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            let used = Used {
                name: read("comm")?.trim_end().to_owned(),
                cpu: Duration::from_nanos(nanos),
                wakes: waits.trim().parse().ok()?,
            };
            Some((task.file_name().to_str()?.parse().ok()?, used))
        });
        Self(used.collect())
    }

    fn since(mut self, before: &Self) -> Self {
        for (id, used) in &mut self.0 {
            let Some(before) = before.0.get(id) else {
                continue;
            };
            // The system reuses the ids of ended threads.
            let is_same = used.wakes >= before.wakes && used.cpu >= before.cpu;
            if is_same && used.name == before.name {
                used.cpu -= before.cpu;
                used.wakes -= before.wakes;
            }
        }
        self
    }

    /// In the order of their start.
    pub fn print(&self) {
        let seconds = WINDOW.as_secs_f64();
        for used in self.0.values() {
            println!(
                "| {} | {:.3} | {:.1} |",
                used.name,
                used.cpu.as_secs_f64() / seconds * 100.0,
                used.wakes as f64 / seconds
            );
        }
    }
}

/// Returns the used fraction of a core over the window.
fn per_cent(cpu: impl Fn() -> Duration) -> f64 {
    let (began, before) = (Instant::now(), cpu());
    std::thread::sleep(WINDOW);
    (cpu() - before).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0
}

fn own_cpu() -> Duration {
    // SAFETY: the structure is plain numbers, for which zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a structure that lives throughout the call.
    let status = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    assert_eq!(status, 0);
    let time = |t: libc::timeval| {
        let micros = t.tv_sec * 1_000_000 + t.tv_usec;
        Duration::from_micros(u64::try_from(micros).expect("time used is not negative"))
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn server_cpu(server: &Server) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("it runs");
    let (_, rest) = stat.rsplit_once(") ").expect("the name is in parentheses");
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |index: usize| fields[index].parse::<u64>().expect("a number");
    // SAFETY: asks for a number.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let per_second = u64::try_from(per_second).expect("a positive number");
    Duration::from_millis((ticks(11) + ticks(12)) * 1_000 / per_second)
}

fn resident_kib() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("it is there");
    let pages = statm.split(' ').nth(1).expect("a second field");
    pages.parse::<usize>().expect("a number") * 4
}

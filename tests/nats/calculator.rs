//! The calculator on real NATS servers: the newest (atomic batches) and the oldest (single
//! conditional writes) that divvy supports.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use divvy::error::Code;
use divvy::runtime::publish::publisher::ActiveMode;
use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{Bucket, BucketConfig, Expect, Health, ManageBuckets, Outcome, Store, Write};
use divvy::strategy::{PlanInput, RoundRobin, Strategy, WorkerIndex};
use divvy::wire::Assignment;
use divvy::{
    Calculator, CalculatorConfig, CalculatorEvent, CalculatorState, Error, EventFilter,
    MemberChange, Partition,
};

use crate::support::nats_binary::{NEWEST, OLDEST};
use crate::support::nats_server::{Server, Setup};
use crate::support::raw_nats::RawNats;
use crate::support::usage::usage;

const TIMEOUT: Duration = Duration::from_secs(20);
const TTL: Duration = Duration::from_millis(1_500);

fn soon() -> Instant {
    Instant::now() + TIMEOUT
}

fn config(name: &str) -> CalculatorConfig {
    let mut config = CalculatorConfig::default();
    config.name = name.into();
    config.heartbeat_ttl = TTL;
    config.emergency_grace_period = Duration::from_millis(300);
    config.cooldown = Duration::from_millis(100);
    config.cold_start_window = Duration::from_millis(300);
    config.planned_scale_window = Duration::from_millis(200);
    config.leave_window = Duration::from_millis(50);
    config.join_coalescing = Duration::from_millis(20);
    config.recovery_grace = Some(Duration::from_millis(500));
    config
}

fn partitions(count: usize) -> Vec<Partition> {
    (0..count)
        .map(|i| Partition::new([format!("p{i:04}")], 1))
        .collect()
}

fn connect(server: &Server) -> NatsStore {
    NatsStore::connect(
        NatsOptions::new([server.url()]).manage_buckets(ManageBuckets::Upgrade),
        soon(),
    )
    .expect("a connection")
}

fn calculator(server: &Server, name: &str, strategy: impl Strategy + 'static) -> Calculator {
    Calculator::builder(Arc::new(connect(server)))
        .config(config(name))
        .strategy(strategy)
        .source(|| Ok(partitions(60)))
        .build()
        .unwrap()
}

/// Workers that send heartbeats until they leave (delete the key) or crash (stop sending).
struct Fleet {
    store: Arc<NatsStore>,
    workers: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fleet {
    fn new(server: &Server, names: &[&str]) -> Self {
        let store = Arc::new(connect(server));
        let ttl = Some(TTL);
        store
            .ensure(Bucket::Heartbeat, BucketConfig { ttl }, soon())
            .unwrap();
        let workers = Arc::new(Mutex::new(names.iter().map(ToString::to_string).collect()));
        let stop = Arc::new(AtomicBool::new(false));
        beat(&store, &workers.lock().unwrap());
        let thread = {
            let (store, workers, stop) = (store.clone(), workers.clone(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    beat(&store, &workers.lock().unwrap());
                    std::thread::park_timeout(TTL / 5);
                }
            })
        };
        Self {
            store,
            workers,
            stop,
            thread: Some(thread),
        }
    }

    fn join(&self, name: &str) {
        let mut workers = self.workers.lock().unwrap();
        workers.insert(name.into());
        beat(&self.store, &workers);
    }

    fn crash(&self, name: &str) {
        self.workers.lock().unwrap().remove(name);
    }

    fn leave(&self, name: &str) {
        let mut workers = self.workers.lock().unwrap();
        workers.remove(name);
        let write = Write {
            key: format!("heartbeat.{name}"),
            value: None,
            expect: Expect::Any,
        };
        let outcome = self
            .store
            .write(Bucket::Heartbeat, &[write], soon())
            .remove(0);
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    /// Returns the number of partitions of each worker, the number of distinct partitions, and the
    /// highest version.
    fn held(&self) -> (BTreeMap<String, usize>, usize, i64) {
        let mut version = 0;
        let mut held = BTreeMap::new();
        let mut all = BTreeSet::new();
        for (key, value) in self.assignments() {
            let assignment = Assignment::decode(&value).unwrap();
            version = version.max(assignment.version);
            for partition in &assignment.partitions {
                all.insert(partition.clone());
            }
            let worker = key.strip_prefix("assignment.").unwrap();
            held.insert(worker.to_owned(), assignment.partitions.len());
        }
        (held, all.len(), version)
    }

    /// Returns the stored assignments.
    fn assignments(&self) -> BTreeMap<String, Vec<u8>> {
        let listing = self
            .store
            .list(Bucket::Assignment, "assignment", soon())
            .unwrap();
        let live = listing.entries.into_iter().filter(|e| e.is_live());
        live.map(|entry| (entry.key, entry.value)).collect()
    }

    /// Waits until exactly these workers own all partitions.
    fn wait_divided(&self, names: &[&str]) -> i64 {
        let deadline = soon();
        loop {
            let (held, different, version) = self.held();
            let workers: Vec<&str> = held.keys().map(String::as_str).collect();
            let total: usize = held.values().sum();
            if workers == names && total == 60 && different == 60 {
                return version;
            }
            assert!(
                Instant::now() < deadline,
                "not divided among {names:?}: {held:?}"
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn beat(store: &NatsStore, workers: &BTreeSet<String>) {
    let writes: Vec<Write> = workers
        .iter()
        .map(|worker| Write {
            key: format!("heartbeat.{worker}"),
            value: Some(b"2026-01-01T00:00:00Z".to_vec()),
            expect: Expect::Any,
        })
        .collect();
    store.write(Bucket::Heartbeat, &writes, soon());
}

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = soon();
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not in {TIMEOUT:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn on_both(body: fn(&Server)) {
    for version in [NEWEST, OLDEST] {
        eprintln!("nats-server {version}");
        body(&Server::start(version));
    }
}

#[test]
fn fleet_starts_grows_shrinks_and_recovers_from_crash() {
    on_both(|server| {
        let fleet = Fleet::new(server, &["w-1", "w-2"]);
        let leader = calculator(server, "leader", RoundRobin);
        let events = leader.events(EventFilter::StateAndMembers);
        leader.start(TIMEOUT).unwrap();
        fleet.wait_divided(&["w-1", "w-2"]);
        // A join within the cold-start window would be part of the cold start.
        while !matches!(
            &*events.recv_timeout(TIMEOUT).expect("the window ends"),
            CalculatorEvent::StateChanged(change)
                if (change.from, change.to) == (CalculatorState::Scaling, CalculatorState::Idle)
        ) {}
        fleet.join("w-3");
        fleet.wait_divided(&["w-1", "w-2", "w-3"]);
        fleet.leave("w-1");
        fleet.wait_divided(&["w-2", "w-3"]);
        let before = Instant::now();
        fleet.crash("w-2");
        let version = fleet.wait_divided(&["w-3"]);
        eprintln!("crash to published: {:?}", before.elapsed());
        // The plan is visible before the publisher has received the acknowledgement.
        let deadline = soon();
        while leader.current_version() != version {
            assert!(Instant::now() < deadline, "at {}", leader.current_version());
            std::thread::yield_now();
        }
        leader.stop(TIMEOUT).unwrap();
        let reasons: Vec<String> = events
            .filter_map(|event| match &*event {
                CalculatorEvent::Published { reason, .. } => Some(reason.to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(reasons, ["planned_scale", "planned_scale", "emergency"]);
    });
}

#[test]
fn status_shows_active_publish_mode_and_server_probe_result() {
    for (version, class, batches) in [
        (NEWEST, ActiveMode::Atomic, ", atomic batches of up to 1000"),
        (OLDEST, ActiveMode::PerKey, ", no atomic batches"),
    ] {
        let server = Server::start(version);
        let leader = calculator(&server, "leader", RoundRobin);
        assert_eq!(leader.status().publish_mode, None);
        leader.start(TIMEOUT).unwrap();
        let status = leader.status();
        eprintln!("{}", status.store);
        assert_eq!(status.publish_mode, Some(class), "{}", status.store);
        let named = format!("NATS {version} (API level ");
        assert!(status.store.starts_with(&named), "{}", status.store);
        assert!(status.store.ends_with(batches), "{}", status.store);
        leader.stop(TIMEOUT).unwrap();
    }
}

/// A strategy that blocks at a gate: pauses a leader in the middle of a rebalance.
struct Blocking {
    is_open: Arc<(Mutex<bool>, std::sync::Condvar)>,
    at_gate: Arc<AtomicBool>,
}

impl Strategy for Blocking {
    fn name(&self) -> &str {
        "blocking"
    }

    fn assign(&self, input: &PlanInput<'_>) -> Result<Vec<WorkerIndex>, Error> {
        let (is_open, changed) = &*self.is_open;
        self.at_gate.store(true, Ordering::Release);
        let mut open = is_open.lock().unwrap();
        while !*open {
            open = changed.wait(open).unwrap();
        }
        RoundRobin.assign(input)
    }
}

#[test]
fn paused_leader_cannot_publish_after_take_over_even_for_new_worker() {
    on_both(|server| {
        let fleet = Fleet::new(server, &["w-1", "w-2"]);
        let gate = Arc::new((Mutex::new(true), std::sync::Condvar::new()));
        let at_gate = Arc::new(AtomicBool::new(false));
        let blocking = Blocking {
            is_open: gate.clone(),
            at_gate: at_gate.clone(),
        };
        let old = calculator(server, "old", blocking);
        let events = old.events(EventFilter::State);
        old.start(TIMEOUT).unwrap();
        fleet.wait_divided(&["w-1", "w-2"]);

        // The old leader stops in the middle of a rebalance for a worker without a key.
        *gate.0.lock().unwrap() = false;
        at_gate.store(false, Ordering::Release);
        fleet.join("w-9");
        let deadline = soon();
        while !at_gate.load(Ordering::Acquire) {
            assert!(
                Instant::now() < deadline,
                "the old leader never planned for w-9"
            );
            std::thread::yield_now();
        }
        fleet.leave("w-9");

        let new = calculator(server, "new", RoundRobin);
        new.start(TIMEOUT).unwrap();
        let version = new.trigger_rebalance(TIMEOUT).unwrap();
        fleet.wait_divided(&["w-1", "w-2"]);

        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        loop {
            let event = events
                .recv_timeout(TIMEOUT)
                .expect("the old leader learns of it");
            if matches!(&*event, CalculatorEvent::LeadershipLost) {
                break;
            }
        }
        let refused = old.trigger_rebalance(TIMEOUT).unwrap_err();
        assert_eq!(refused.code(), Code::Fenced, "{refused}");
        let (held, _, highest) = fleet.held();
        assert_eq!(held.keys().collect::<Vec<_>>(), ["w-1", "w-2"]);
        assert!(highest <= new.current_version() && new.current_version() >= version);
        old.stop(TIMEOUT).unwrap();
        new.stop(TIMEOUT).unwrap();
    });
}

#[test]
fn unconditional_write_of_foreign_leader_is_answered_with_higher_version() {
    on_both(|server| {
        let fleet = Fleet::new(server, &["w-1", "w-2"]);
        let leader = calculator(server, "leader", RoundRobin);
        leader.start(TIMEOUT).unwrap();
        let foreign = fleet.wait_divided(&["w-1", "w-2"]) + 700;
        let unconditional = Write {
            key: "assignment.w-1".into(),
            value: Some(
                format!(r#"{{"version":{foreign},"lifecycle":"emergency","partitions":null}}"#)
                    .into_bytes(),
            ),
            expect: Expect::Any,
        };
        let outcome = fleet
            .store
            .write(Bucket::Assignment, &[unconditional], soon())
            .remove(0);
        assert!(matches!(outcome, Outcome::Done(_)));
        let deadline = soon();
        while leader.current_version() <= foreign {
            assert!(
                Instant::now() < deadline,
                "still at {}",
                leader.current_version()
            );
            std::thread::park_timeout(Duration::from_millis(5));
        }
        fleet.wait_divided(&["w-1", "w-2"]);
        leader.stop(TIMEOUT).unwrap();
    });
}

#[test]
fn stop_under_load_ends_in_time_and_leaves_complete_plans() {
    on_both(|server| {
        let fleet = Fleet::new(server, &["w-1", "w-2", "w-3"]);
        let leader = Arc::new(calculator(server, "leader", RoundRobin));
        leader.start(TIMEOUT).unwrap();
        let load: Vec<_> = (0..3)
            .map(|_| {
                let leader = leader.clone();
                std::thread::spawn(move || while leader.trigger_rebalance(TIMEOUT).is_ok() {})
            })
            .collect();
        let deadline = soon();
        while leader.current_version() < 50 {
            assert!(Instant::now() < deadline, "no load");
            std::thread::yield_now();
        }
        let before = Instant::now();
        leader.stop(TIMEOUT).unwrap();
        assert!(
            before.elapsed() < Duration::from_secs(5),
            "{:?}",
            before.elapsed()
        );
        for thread in load {
            thread.join().unwrap();
        }
        // The next leader repairs what the stop may have left incomplete (per-key mode only).
        leader.start(TIMEOUT).unwrap();
        fleet.wait_divided(&["w-1", "w-2", "w-3"]);
        leader.stop(TIMEOUT).unwrap();
    });
}

/// A server suspended for longer than the heartbeat TTL expires all heartbeats when it resumes,
/// although no worker has died.
fn a_pause_of_two_ttls_moves_nothing(version: &str) {
    const WORKERS: usize = 200;
    let server = Server::start(version);
    let names: Vec<String> = (0..WORKERS).map(|i| format!("w-{i:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let fleets: Vec<Fleet> = names
        .chunks(WORKERS / 4)
        .map(|names| Fleet::new(&server, names))
        .collect();
    let leader = calculator(&server, "leader", RoundRobin);
    let events = leader.events(EventFilter::StateAndMembers);
    leader.start(TIMEOUT).unwrap();
    fleets[0].wait_divided(&names);
    wait_until("rest", || {
        let status = leader.status();
        status.state == CalculatorState::Idle && status.pending.reason.is_none()
    });
    let before = fleets[0].assignments();
    let version = leader.current_version();

    server.pause();
    std::thread::sleep(TTL * 2);
    server.resume();
    // A worker declared dead would be missing from a plan by then.
    std::thread::sleep(TTL * 3 + Duration::from_secs(1));
    wait_until("sight", || leader.status().degraded.is_empty());
    assert_eq!(leader.current_version(), version);
    assert_eq!(fleets[0].assignments(), before);
    leader.stop(TIMEOUT).unwrap();
    let lost = events
        .filter(|event| {
            matches!(
                &**event,
                CalculatorEvent::Member {
                    change: MemberChange::Dead,
                    ..
                }
            )
        })
        .count();
    assert_eq!(lost, 0);
}

#[test]
fn pause_of_two_ttls_moves_no_partition_of_200_workers() {
    a_pause_of_two_ttls_moves_nothing(NEWEST);
}

#[test]
fn pause_of_two_ttls_moves_no_partition_of_200_workers_on_oldest_server() {
    a_pause_of_two_ttls_moves_nothing(OLDEST);
}

/// Other streams use all storage: no write succeeds, including heartbeats.
fn a_full_store_says_so_and_all_is_well_when_there_is_room(server: &Server) {
    let fleet = Fleet::new(server, &["w-1", "w-2"]);
    let leader = calculator(server, "leader", RoundRobin);
    let events = leader.events(EventFilter::State);
    leader.start(TIMEOUT).unwrap();
    let before = fleet.wait_divided(&["w-1", "w-2"]);
    let connections = server.connections();
    let mut raw = RawNats::connect(server.port);
    let filler = r#"{"name":"FILL","subjects":["f"],"storage":"file"}"#;
    let answer = raw.api("STREAM.CREATE.FILL", filler);
    assert!(answer["error"].is_null(), "{answer}");
    for size in [200_000, 10_000, 500, 20, 0] {
        let chunk = vec![b'x'; size];
        while raw.store(b"f", b"", &chunk)["error"].is_null() {}
    }

    leader
        .trigger_rebalance(Duration::from_secs(1))
        .unwrap_err();
    let deadline = soon();
    let error = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = events.recv_timeout(left).expect("a failure");
        if let CalculatorEvent::Failed { error, .. } = &*event {
            break error.to_string();
        }
    };
    eprintln!("{error}");
    assert!(error.contains("free storage"), "{error}");
    assert!(error.contains("raise the limit"), "{error}");

    let answer = raw.api("STREAM.DELETE.FILL", "");
    assert!(answer["error"].is_null(), "{answer}");
    drop(raw);
    // Heartbeats were rejected too: the workers may have been declared dead meanwhile.
    wait_until("a plan", || leader.trigger_rebalance(TIMEOUT).is_ok());
    let after = fleet.wait_divided(&["w-1", "w-2"]);
    assert!(after > before);
    wait_until("health", || leader.status().degraded.is_empty());
    wait_until("no connection left behind", || {
        server.connections() <= connections
    });
    leader.stop(TIMEOUT).unwrap();
}

#[test]
fn account_at_its_limit_is_reported_and_recovered_from() {
    for version in [NEWEST, OLDEST] {
        let account = "accounts { APP { jetstream { max_mem: 4MB, max_file: 4MB }, \
                       users: [{ user: app, password: app }] } }\nno_auth_user: app";
        let server = Setup::new(version).config(account).start();
        a_full_store_says_so_and_all_is_well_when_there_is_room(&server);
    }
}

#[test]
fn server_without_storage_is_reported_and_recovered_from() {
    for version in [NEWEST, OLDEST] {
        let folder = tempfile::tempdir().unwrap();
        let jetstream = format!(
            "jetstream {{ store_dir: \"{}\", max_file_store: 4MB }}",
            folder.path().display()
        );
        let setup = Setup::new(version).without_jetstream().config(&jetstream);
        a_full_store_says_so_and_all_is_well_when_there_is_room(&setup.start());
    }
}

const FEW_FILES: &str = "DIVVY_TEST_FEW_FILES";

#[test]
fn descriptor_exhaustion_is_reported_and_session_recovers() {
    const NAME: &str = "calculator::process_without_free_descriptor";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--ignored", "--nocapture"])
        .env(FEW_FILES, "1")
        .output()
        .unwrap();
    let reported = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{child:?}");
    assert!(reported.contains("recovered"), "{reported}");
}

/// Run by the test above in its own process.
#[test]
#[ignore = "limits the open files of its process; another test runs it"]
fn process_without_free_descriptor() {
    if std::env::var_os(FEW_FILES).is_none() {
        return;
    }
    let server = Server::start(NEWEST);
    let fleet = Fleet::new(&server, &["w-1", "w-2"]);
    let leader = calculator(&server, "leader", RoundRobin);
    leader.start(TIMEOUT).unwrap();
    let before = fleet.wait_divided(&["w-1", "w-2"]);
    let had = usage();

    // Open descriptors remain usable; no new one can be opened.
    let was = limit_open_files(3);
    let error = NatsStore::connect(
        NatsOptions::new([server.url()]),
        Instant::now() + Duration::from_secs(1),
    )
    .map(drop)
    .unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.to_string().contains("ulimit -n"), "{error}");
    // The sessions are closed, and no new ones can be opened.
    server.pause();
    wait_until("a session that cannot be replaced", || {
        let degraded = &leader.status().degraded;
        degraded
            .iter()
            .any(|reason| reason.to_string().contains("ulimit -n"))
    });
    server.resume();
    limit_open_files(was);

    // The heartbeats of the workers use another connection and were blocked too.
    wait_until("the workers' store", || {
        fleet.store.health() == Health::Connected
    });
    wait_until("a plan", || leader.trigger_rebalance(TIMEOUT).is_ok());
    let after = fleet.wait_divided(&["w-1", "w-2"]);
    assert!(after > before);
    wait_until("nothing left behind", || {
        let now = usage();
        now.threads <= had.threads && now.descriptors <= had.descriptors
    });
    leader.stop(TIMEOUT).unwrap();
    println!("recovered from: {error}");
}

/// Sets the soft limit and returns the previous one.
fn limit_open_files(files: u64) -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure lives on this stack.
    let status = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    assert_eq!(status, 0);
    let before = std::mem::replace(&mut limit.rlim_cur, files);
    // SAFETY: as above; the call only reads it.
    let status = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(status, 0);
    before
}

/// Starts and stops a calculator in its own process, so that nothing else is measured.
#[test]
fn thousand_starts_and_stops_keep_threads_descriptors_and_memory_flat() {
    const NAME: &str =
        "calculator::thousand_starts_and_stops_keep_threads_descriptors_and_memory_flat";
    if std::env::var_os("DIVVY_CYCLES").is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args([NAME, "--exact", "--nocapture", "--test-threads=1"])
            .env("DIVVY_CYCLES", "1000")
            // One arena: memory that the allocator keeps for ended threads would hide a leak.
            .env("MALLOC_ARENA_MAX", "1")
            .status()
            .unwrap();
        assert!(status.success(), "see above");
        return;
    }
    let server = Server::start(NEWEST);
    let _fleet = Fleet::new(&server, &["w-1", "w-2"]);
    let leader = calculator(&server, "leader", RoundRobin);
    let cycle = || {
        leader.start(TIMEOUT).unwrap();
        leader.stop(TIMEOUT).unwrap();
    };
    for _ in 0..100 {
        cycle();
    }
    let before = usage();
    for _ in 0..1_000 {
        cycle();
    }
    let after = usage();
    eprintln!("{before:?} -> {after:?}");
    assert!(
        after.threads <= before.threads + 2,
        "threads: {before:?} -> {after:?}"
    );
    assert!(
        after.descriptors <= before.descriptors + 2,
        "descriptors: {before:?} -> {after:?}"
    );
    assert!(
        after.resident_kib <= before.resident_kib + 1_024,
        "memory: {before:?} -> {after:?}"
    );
}

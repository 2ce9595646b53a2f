//! A calculator and a worker whose server is down for a while, or has no space left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{Bucket, ManageBuckets, Store};
use divvy::{
    Calculator, CalculatorConfig, CalculatorEvent, Departure, EventFilter, Manager, ManagerConfig,
    ManagerState, Partition,
};

use crate::alone;
use crate::support::disk::Disk;
use crate::support::nats_binary::{NEWEST, OLDEST};
use crate::support::nats_server::{Server, Setup};
use crate::support::raw_nats::RawNats;
use crate::support::usage::usage;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Time limit for the recovery after the store's return.
const RECOVERY_MAX: Duration = Duration::from_secs(1);

const PARTITIONS: usize = 60;

fn soon() -> Instant {
    Instant::now() + TIMEOUT
}

fn connect(server: &Server) -> NatsStore {
    let options = NatsOptions::new([server.url()]).manage_buckets(ManageBuckets::Upgrade);
    NatsStore::connect(options, soon()).expect("a connection")
}

fn partitions() -> Vec<Partition> {
    (0..PARTITIONS)
        .map(|n| Partition::new([format!("p{n:04}")], 1))
        .collect()
}

/// Short windows; settings for the store have their defaults.
fn config() -> CalculatorConfig {
    let mut config = CalculatorConfig::default();
    config.cooldown = Duration::from_millis(100);
    config.cold_start_window = Duration::from_millis(300);
    config.planned_scale_window = Duration::from_millis(200);
    config
}

fn calculator(server: &Server) -> Calculator {
    Calculator::builder(Arc::new(connect(server)))
        .config(config())
        .source(|| Ok(partitions()))
        .build()
        .unwrap()
}

/// A worker that never leads, with frequent heartbeats, so that its recovery is observed quickly.
fn worker(server: &Server) -> Manager {
    let mut settings = settings();
    settings.may_lead = false;
    Manager::builder(Arc::new(connect(server)))
        .config(settings)
        .build()
        .unwrap()
}

fn settings() -> ManagerConfig {
    let mut settings = ManagerConfig::default();
    settings.calculator = config();
    settings.heartbeat_interval = Duration::from_millis(500);
    settings
}

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = soon();
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not in {TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Writes like a new client. When a write is accepted, the store has recovered.
fn first_acked_write(server: &Server) -> Instant {
    let deadline = soon();
    let mut raw = RawNats::connect(server.port);
    while !raw.store(b"$KV.parti-assignment.probe", b"", b"x")["seq"].is_u64() {
        assert!(Instant::now() < deadline, "the store never accepts a write");
    }
    Instant::now()
}

/// Returns how long after the recovery of the store the calculator has published and the heartbeat
/// of the worker is stored.
fn recovery_after(outage: Duration) -> (Duration, Duration) {
    let mut server = Server::start(NEWEST);
    let leader = Arc::new(calculator(&server));
    leader.start(TIMEOUT).unwrap();
    let worker = worker(&server);
    worker.start(TIMEOUT).unwrap();
    let is_whole = || worker.assignment().partitions.len() == PARTITIONS;
    wait_until("an assignment", is_whole);
    let id = worker.worker_id().unwrap();

    server.kill();
    let is_published = Arc::new(AtomicBool::new(false));
    let asking = std::thread::spawn({
        let (leader, is_published) = (Arc::clone(&leader), Arc::clone(&is_published));
        move || {
            leader.trigger_rebalance(TIMEOUT * 2).unwrap();
            is_published.store(true, Ordering::Release);
            Instant::now()
        }
    });
    std::thread::sleep(outage);
    assert!(!is_published.load(Ordering::Acquire));
    server.restart();
    let returned = first_acked_write(&server);
    let onlooker = connect(&server);
    let beat = || {
        let key = format!("heartbeat.{id}");
        let entry = onlooker.read(Bucket::Heartbeat, &key, soon()).unwrap();
        entry
            .filter(|entry| entry.is_live())
            .map(|entry| entry.revision)
    };
    let before = beat();
    wait_until("a heartbeat", || {
        beat().is_some_and(|now| Some(now) != before)
    });
    let beats = returned.elapsed();
    let published = asking.join().unwrap().saturating_duration_since(returned);
    wait_until("a healthy worker", || {
        let status = worker.status();
        status.state != ManagerState::Degraded && status.last_failure.is_none()
    });
    let well = returned.elapsed();
    let status = leader.status();
    println!(
        "kill -9, back after {outage:?}: published {published:?}, heartbeats {beats:?} after the first \
         acked write of another client, received as well {well:?} after it; {:?}",
        status.breaker
    );
    worker.stop(Departure::Leave, TIMEOUT).unwrap();
    leader.stop(TIMEOUT).unwrap();
    (published, beats)
}

#[test]
fn publications_and_heartbeats_resume_within_a_second_of_server_return() {
    let _alone = alone();
    for outage in [1, 10].map(Duration::from_secs) {
        let (published, beats) = recovery_after(outage);
        assert!(published <= RECOVERY_MAX, "published after {published:?}");
        assert!(beats <= RECOVERY_MAX, "heartbeats after {beats:?}");
    }
}

/// Symptom: while the disk was full, a leader reported a busy store. Cause: a server without space
/// to buffer a batch answers 10176, which also means busy.
#[test]
fn full_file_system_is_reported_and_recovered_from() {
    let _alone = alone();
    for version in [NEWEST, OLDEST] {
        let disk = match Disk::new(32) {
            Ok(disk) => Arc::new(disk),
            Err(why) => {
                eprintln!("NOT SHOWN here: a file system that is really full. {why}");
                return;
            }
        };
        let path = disk.path().display();
        let jetstream = format!("jetstream {{ store_dir: \"{path}/data\", max_file_store: 1GB }}");
        let setup = Setup::new(version).without_jetstream().config(&jetstream);
        let server = setup.disk(&disk).start();
        let leader = calculator(&server);
        let events = leader.events(EventFilter::State);
        leader.start(TIMEOUT).unwrap();
        let worker = worker(&server);
        worker.start(TIMEOUT).unwrap();
        let is_whole = || worker.assignment().partitions.len() == PARTITIONS;
        wait_until("an assignment", is_whole);
        let before = leader.current_version();
        let footprint = usage();

        disk.fill();
        let mut error = String::new();
        wait_until("a failure that says so", || {
            let _ = leader.trigger_rebalance(Duration::from_millis(500));
            while let Some(event) = events.try_recv() {
                if let CalculatorEvent::Failed { error: failed, .. } = &*event {
                    error = failed.to_string();
                }
            }
            error.contains("free storage")
        });
        println!("{version}: {error}");
        disk.make_room();
        wait_until("a plan", || leader.trigger_rebalance(TIMEOUT).is_ok());
        assert!(leader.current_version() > before);
        wait_until("health", || {
            leader.status().degraded.is_empty() && worker.status().last_failure.is_none()
        });
        wait_until("an assignment", is_whole);
        wait_until("nothing left behind", || {
            let now = usage();
            now.threads <= footprint.threads && now.descriptors <= footprint.descriptors
        });
        worker.stop(Departure::Leave, TIMEOUT).unwrap();
        leader.stop(TIMEOUT).unwrap();
    }
}

/// The server does not report a purge, so running workers keep their assignments. A restarted
/// worker finds none.
#[test]
fn worker_restarted_after_purge_receives_its_partitions_again() {
    let _alone = alone();
    let server = Server::start(NEWEST);
    let mut settings = settings();
    settings.calculator.apply_timeout = Duration::from_millis(300);
    let leader = Manager::builder(Arc::new(connect(&server)))
        .config(settings)
        .source(|| Ok(partitions()))
        .build()
        .unwrap();
    leader.start(TIMEOUT).unwrap();
    let follower = worker(&server);
    follower.start(TIMEOUT).unwrap();
    let held = |manager: &Manager| manager.assignment().partitions.len();
    wait_until("both have partitions", || {
        held(&follower) > 0 && held(&leader) + held(&follower) == PARTITIONS
    });

    let count = held(&follower);
    RawNats::connect(server.port).api("STREAM.PURGE.KV_parti-assignment", "");
    follower.stop(Departure::Restart, TIMEOUT).unwrap();
    let restarted = worker(&server);
    restarted.start(TIMEOUT).unwrap();
    wait_until("the restarted worker has its partitions again", || {
        held(&restarted) == count && held(&leader) + count == PARTITIONS
    });
    restarted.stop(Departure::Leave, TIMEOUT).unwrap();
    leader.stop(Departure::Leave, TIMEOUT).unwrap();
}

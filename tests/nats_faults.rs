//! The NATS store under every fault that a server or a network can have: no call takes longer than
//! its deadline, no change is lost to a watch, and all is well again soon after the heal.
#![cfg(all(feature = "nats", target_os = "linux"))]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use divvy::store::nats::{NatsOptions, NatsStore, Storage, abandoned_connections};
use divvy::store::{
    Bucket, BucketConfig, Expect, Health, Operation, Outcome, Store, Watch, WatchEvent, Write,
};
use support::nats_binary::{NEWEST, OLDEST};
use support::nats_server::{Cluster, Server};
use support::proxy::{Proxy, Way};
use support::raw_nats::RawNats;

const BUCKET: Bucket = Bucket::Assignment;
const FOR_EVER: BucketConfig = BucketConfig { ttl: None };
/// What a call may take beyond its deadline; the contract's 50 ms and as much for a busy machine.
const OVERRUN_MAX: Duration = Duration::from_millis(100);
const CALL_TIMEOUT: Duration = Duration::from_millis(500);

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn connect(url: &str) -> Arc<NatsStore> {
    Arc::new(NatsStore::connect(NatsOptions::new([url]), soon()).expect("a connection"))
}

fn put(key: &str, value: &str) -> Write {
    Write {
        key: key.into(),
        value: Some(value.as_bytes().to_vec()),
        expect: Expect::Any,
    }
}

/// Calls a store without pause, and notes the longest overrun of a deadline.
struct Caller {
    end: Arc<AtomicBool>,
    thread: JoinHandle<(Duration, usize)>,
}

impl Caller {
    fn start(store: &Arc<NatsStore>) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (store, end) = (Arc::clone(store), Arc::clone(&end));
            move || {
                let mut worst = Duration::ZERO;
                let mut done = 0;
                for n in 0.. {
                    if end.load(Ordering::SeqCst) {
                        break;
                    }
                    let started = Instant::now();
                    let deadline = started + CALL_TIMEOUT;
                    match n % 3 {
                        0 => {
                            let outcome = store.write(BUCKET, &[put("calls.k", "v")], deadline);
                            done += usize::from(matches!(outcome[0], Outcome::Done(_)));
                        }
                        1 => drop(store.read(BUCKET, "calls.k", deadline)),
                        _ => drop(store.list(BUCKET, "calls", deadline)),
                    }
                    worst = worst.max(started.elapsed().saturating_sub(CALL_TIMEOUT));
                    thread::sleep(Duration::from_millis(5));
                }
                (worst, done)
            }
        });
        Self { end, thread }
    }

    fn finish(self) -> (Duration, usize) {
        self.end.store(true, Ordering::SeqCst);
        self.thread.join().expect("no panic in a call")
    }
}

/// Writes ever new keys through a connection of its own and notes what was acknowledged.
struct Writer {
    end: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<String, u64>>,
}

impl Writer {
    fn start(url: &str) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let store = connect(url);
        let thread = thread::spawn({
            let end = Arc::clone(&end);
            move || {
                let mut acked = BTreeMap::new();
                for n in 0.. {
                    if end.load(Ordering::SeqCst) {
                        break;
                    }
                    let key = format!("watched.k{}", n % 400);
                    let deadline = Instant::now() + CALL_TIMEOUT;
                    let outcome = store.write(BUCKET, &[put(&key, &n.to_string())], deadline);
                    if let Outcome::Done(revision) = outcome[0] {
                        acked.insert(key, revision);
                    }
                    thread::sleep(Duration::from_millis(5));
                }
                acked
            }
        });
        Self { end, thread }
    }

    fn finish(self) -> BTreeMap<String, u64> {
        self.end.store(true, Ordering::SeqCst);
        self.thread.join().expect("no panic in a call")
    }
}

/// What a reader of a watch knows.
#[derive(Default)]
struct Reader {
    live: BTreeMap<String, u64>,
    blind: Vec<String>,
    delivered_twice: usize,
}

impl Reader {
    fn take(&mut self, event: WatchEvent) -> bool {
        match event {
            WatchEvent::Change(entry) if entry.operation == Operation::Put => {
                let before = self.live.insert(entry.key, entry.revision);
                self.delivered_twice += usize::from(before == Some(entry.revision));
            }
            WatchEvent::Change(entry) => drop(self.live.remove(&entry.key)),
            WatchEvent::Blind(why) => self.blind.push(why),
            WatchEvent::Live => return true,
        }
        false
    }

    /// Reads until a live event, or nothing comes for so long.
    fn until_live(&mut self, watch: &Watch, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while let Ok(event) = watch.events.recv_deadline(deadline) {
            if self.take(event) {
                return true;
            }
        }
        false
    }

    /// Reads until what it knows is what the store holds.
    fn catch_up(&mut self, watch: &Watch, store: &NatsStore) {
        let listing = store.list(BUCKET, "watched", soon()).expect("a listing");
        let stored: BTreeMap<_, _> = listing
            .entries
            .into_iter()
            .filter(|entry| entry.operation == Operation::Put)
            .map(|entry| (entry.key, entry.revision))
            .collect();
        while self.live != stored {
            let event = watch.events.recv_timeout(Duration::from_secs(10));
            let Ok(event) = event else {
                let missing: Vec<_> = stored
                    .iter()
                    .filter(|(key, revision)| self.live.get(*key) != Some(revision))
                    .take(5)
                    .collect();
                panic!(
                    "the watch lost changes, such as {missing:?}; blind: {:?}",
                    self.blind
                );
            };
            self.take(event);
        }
    }
}

/// One fault, from a healthy start to a healthy end.
struct Trial {
    name: &'static str,
    store: Arc<NatsStore>,
    direct: String,
    watch: Watch,
    reader: Reader,
}

impl Trial {
    /// A store on `url`; the writer that feeds the watch uses `direct`.
    fn new(name: &'static str, url: &str, direct: &str) -> Self {
        let store = connect(url);
        store.ensure(BUCKET, FOR_EVER, soon()).expect("a bucket");
        let watch = store.watch(BUCKET, "watched").expect("a watch");
        let mut reader = Reader::default();
        assert!(reader.until_live(&watch, Duration::from_secs(10)));
        Self {
            name,
            store,
            direct: direct.to_owned(),
            watch,
            reader,
        }
    }

    /// Injects the fault, lets it last, heals it, and checks what must hold.
    fn run(mut self, lasting: Duration, inject: impl FnOnce(), heal: impl FnOnce()) {
        let caller = Caller::start(&self.store);
        let writer = Writer::start(&self.direct);
        thread::sleep(Duration::from_millis(300));
        inject();
        thread::sleep(lasting);
        heal();
        let healed = Instant::now();
        let mut went_blind = !self.reader.blind.is_empty();
        while !went_blind || !self.reader.until_live(&self.watch, Duration::from_secs(20)) {
            if !went_blind {
                let event = self.watch.events.recv_timeout(Duration::from_millis(3_500));
                let Ok(event) = event else { break };
                self.reader.take(event);
                went_blind = !self.reader.blind.is_empty();
                if healed.elapsed() > Duration::from_secs(5) {
                    break;
                }
            }
        }
        let fresh = healed.elapsed();
        self.until_connected();
        let acked = writer.finish();
        let (overrun, done) = caller.finish();
        assert!(
            !acked.is_empty() && done > 0,
            "{}: nothing was written",
            self.name
        );
        self.reader.catch_up(&self.watch, &self.store);
        let lost: Vec<_> = acked
            .iter()
            .filter(|(key, revision)| self.reader.live.get(*key).is_none_or(|r| r < revision))
            .collect();
        println!(
            "| {} | overrun {overrun:?} | fresh {fresh:?} after heal | {} acked, {} lost | blind {:?} |",
            self.name,
            acked.len(),
            lost.len(),
            self.reader.blind
        );
        assert!(
            lost.is_empty(),
            "{}: acknowledged, not there: {lost:?}",
            self.name
        );
        assert_eq!(self.reader.delivered_twice, 0, "{}", self.name);
        assert!(
            overrun < OVERRUN_MAX,
            "{}: a call overran by {overrun:?}",
            self.name
        );
        self.store.stop(soon()).expect("all threads end");
    }

    fn until_connected(&self) {
        let deadline = soon();
        while self.store.health() != Health::Connected {
            assert!(
                Instant::now() < deadline,
                "{}: not connected again",
                self.name
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn kill_and_restart(version: &str) {
    let mut server = Server::start(version);
    let trial = Trial::new("kill -9, 1 s", &server.url(), &server.url());
    let server = std::cell::RefCell::new(&mut server);
    let inject = || server.borrow_mut().kill();
    trial.run(Duration::from_secs(1), inject, || {
        server.borrow_mut().restart()
    });
}

#[test]
fn a_killed_server_costs_no_acknowledged_write_and_no_event() {
    kill_and_restart(NEWEST);
    kill_and_restart(OLDEST);
}

#[test]
fn a_terminated_server_costs_no_event() {
    let mut server = Server::start(NEWEST);
    let trial = Trial::new("SIGTERM, 1 s", &server.url(), &server.url());
    let server = std::cell::RefCell::new(&mut server);
    let inject = || server.borrow_mut().terminate();
    trial.run(Duration::from_secs(1), inject, || {
        server.borrow_mut().restart()
    });
}

#[test]
fn a_server_that_hangs_10_s_blocks_no_call_and_costs_no_event() {
    let server = Server::start(NEWEST);
    let trial = Trial::new("SIGSTOP, 10 s", &server.url(), &server.url());
    trial.run(
        Duration::from_secs(10),
        || server.pause(),
        || server.resume(),
    );
}

#[test]
fn a_cut_of_6_s_costs_no_event() {
    let server = Server::start(NEWEST);
    let proxy = Proxy::start(server.port);
    let trial = Trial::new("TCP cut, 6 s", &proxy.url(), &server.url());
    trial.run(Duration::from_secs(6), || proxy.cut(), || proxy.heal());
}

#[test]
fn a_connection_cut_in_the_middle_of_a_message_costs_no_event() {
    let server = Server::start(NEWEST);
    let proxy = Proxy::start(server.port);
    let trial = Trial::new("truncation", &proxy.url(), &server.url());
    let inject = || proxy.truncate_after(777);
    trial.run(Duration::from_millis(500), inject, || proxy.heal());
}

#[test]
fn a_half_closed_connection_costs_no_event() {
    let server = Server::start(NEWEST);
    let proxy = Proxy::start(server.port);
    let trial = Trial::new("half close", &proxy.url(), &server.url());
    let inject = || proxy.half_close(Way::ToClient);
    trial.run(Duration::from_millis(500), inject, || ());
}

#[test]
fn a_black_hole_of_6_s_costs_no_event() {
    let server = Server::start(NEWEST);
    let proxy = Proxy::start(server.port);
    let trial = Trial::new("black hole, 6 s", &proxy.url(), &server.url());
    let inject = || {
        proxy.hold(Way::ToServer);
        proxy.hold(Way::ToClient);
    };
    trial.run(Duration::from_secs(6), inject, || proxy.heal());
}

#[test]
fn a_one_way_black_hole_costs_no_event() {
    for (name, way) in [
        ("hole to the server, 5 s", Way::ToServer),
        ("hole to the client, 5 s", Way::ToClient),
    ] {
        let server = Server::start(NEWEST);
        let proxy = Proxy::start(server.port);
        let trial = Trial::new(name, &proxy.url(), &server.url());
        trial.run(Duration::from_secs(5), || proxy.hold(way), || proxy.heal());
    }
}

#[test]
fn latency_of_300_ms_is_no_fault() {
    let server = Server::start(NEWEST);
    let proxy = Proxy::start(server.port);
    let store = connect(&proxy.url());
    store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
    proxy.delay(Duration::from_millis(300));
    let health = store.health_events();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        let outcome = store.write(BUCKET, &[put("k", "v")], soon()).remove(0);
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }
    assert_eq!(health.try_iter().collect::<Vec<_>>(), [Health::Connected]);
}

#[test]
fn a_deleted_consumer_costs_no_event() {
    let server = Server::start(NEWEST);
    let trial = Trial::new("consumer deleted", &server.url(), &server.url());
    let inject = || {
        let mut raw = RawNats::connect(server.port);
        let names = raw.api("CONSUMER.NAMES.KV_parti-assignment", "");
        let names = names["consumers"].as_array().expect("consumers").clone();
        assert!(!names.is_empty());
        for name in names {
            let name = name.as_str().expect("a name");
            raw.api(&format!("CONSUMER.DELETE.KV_parti-assignment.{name}"), "");
        }
    };
    trial.run(Duration::from_millis(100), inject, || ());
}

#[test]
fn a_bucket_that_is_created_anew_is_watched_again() {
    let server = Server::start(NEWEST);
    let trial = Trial::new("bucket created anew", &server.url(), &server.url());
    let store = Arc::clone(&trial.store);
    let inject = || {
        RawNats::connect(server.port).api("STREAM.DELETE.KV_parti-assignment", "");
    };
    let writer = Writer::start(&server.url());
    drop(writer.finish());
    // What was written before is gone for good, so only what follows the heal is compared.
    let Trial {
        watch, mut reader, ..
    } = trial;
    inject();
    thread::sleep(Duration::from_millis(500));
    store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
    let healed = Instant::now();
    let writer = Writer::start(&server.url());
    while reader.blind.is_empty() {
        let event = watch.events.recv_timeout(Duration::from_secs(10)).unwrap();
        reader.take(event);
    }
    assert!(reader.until_live(&watch, Duration::from_secs(10)));
    println!(
        "| bucket created anew | fresh {:?} after heal |",
        healed.elapsed()
    );
    let acked = writer.finish();
    reader.catch_up(&watch, &store);
    assert!(
        acked
            .iter()
            .all(|(key, revision)| reader.live.get(key) == Some(revision))
    );
}

#[test]
fn a_restart_that_loses_a_memory_bucket_is_noticed_and_the_new_one_watched() {
    let mut server = Server::start(NEWEST);
    let options = NatsOptions::new([server.url()]).storage(Storage::Memory);
    let store = NatsStore::connect(options, soon()).unwrap();
    store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
    let first = store
        .write(BUCKET, &[put("watched.old", "1")], soon())
        .remove(0);
    assert!(matches!(first, Outcome::Done(_)));
    let watch = store.watch(BUCKET, "watched").unwrap();
    let mut reader = Reader::default();
    assert!(reader.until_live(&watch, Duration::from_secs(10)));
    server.kill();
    server.restart();
    let deadline = soon();
    while store.ensure(BUCKET, FOR_EVER, soon()).is_err() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(20));
    }
    let healed = Instant::now();
    assert!(reader.until_live(&watch, Duration::from_secs(10)));
    println!(
        "| memory bucket lost | fresh {:?} after the new one |",
        healed.elapsed()
    );
    assert!(reader.live.is_empty(), "{:?}", reader.live);
    let second = store
        .write(BUCKET, &[put("watched.new", "1")], soon())
        .remove(0);
    assert!(matches!(second, Outcome::Done(1)), "{second:?}");
    reader.catch_up(&watch, &store);
}

#[test]
fn the_loss_of_any_node_of_a_cluster_costs_no_event() {
    let mut cluster = Cluster::start(NEWEST);
    let options = || NatsOptions::new(cluster.urls()).replicas(3);
    let store = NatsStore::connect(options(), soon()).unwrap();
    store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
    let watch = store.watch(BUCKET, "watched").unwrap();
    let mut reader = Reader::default();
    assert!(reader.until_live(&watch, Duration::from_secs(20)));
    for node in 0..3 {
        cluster.nodes[node].kill();
        let killed = Instant::now();
        let key = format!("watched.n{node}");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let by = Instant::now() + CALL_TIMEOUT;
            if let Outcome::Done(_) = store.write(BUCKET, &[put(&key, "v")], by).remove(0) {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "no write after the loss of a node"
            );
            thread::sleep(Duration::from_millis(20));
        }
        let written = killed.elapsed();
        while !reader.live.contains_key(&key) {
            let event = watch
                .events
                .recv_timeout(Duration::from_secs(20))
                .expect("the change");
            reader.take(event);
        }
        println!(
            "| node {node} killed | written {written:?}, seen {:?} after | blind {:?} |",
            killed.elapsed(),
            reader.blind
        );
        cluster.nodes[node].restart();
        cluster.wait_healthy();
    }
}

#[test]
fn poisoned_messages_cost_a_connection_each_and_are_delivered() {
    let server = Server::start(NEWEST);
    let store = connect(&server.url());
    store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
    let watch = store.watch(BUCKET, "watched").unwrap();
    let mut reader = Reader::default();
    assert!(reader.until_live(&watch, Duration::from_secs(10)));
    let mut raw = RawNats::connect(server.port);
    let subject = |key: &[u8]| [b"$KV.parti-assignment.", key].concat();
    let poison: [(&[u8], &[u8]); 3] = [
        (b"watched.headers", b"NATS/1.0\r\nno colon in here\r\n\r\n"),
        (b"watched.bytes", b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n"),
        (b"watched.\xff\xfe", b""),
    ];
    for (key, headers) in poison {
        let ack = raw.store(&subject(key), headers, b"poison");
        assert!(ack["seq"].is_u64(), "{ack}");
        let before = reader.blind.len();
        while reader.blind.len() == before || !reader.until_live(&watch, Duration::from_secs(10)) {
            let event = watch.events.recv_timeout(Duration::from_secs(10));
            reader.take(event.expect("the watch lives"));
        }
    }
    assert!(
        reader.live.contains_key("watched.headers"),
        "{:?}",
        reader.live
    );
    assert!(
        reader.live.contains_key("watched.bytes"),
        "{:?}",
        reader.live
    );
    // All is well with everything else, new watches included.
    let outcome = store
        .write(BUCKET, &[put("watched.fine", "v")], soon())
        .remove(0);
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    while !reader.live.contains_key("watched.fine") {
        reader.take(watch.events.recv_timeout(Duration::from_secs(10)).unwrap());
    }
    let another = store.watch(BUCKET, "watched").unwrap();
    let mut reader = Reader::default();
    assert!(reader.until_live(&another, Duration::from_secs(10)));
    assert!(reader.blind.is_empty());
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_passed_over() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = format!("nats://{}", mute.local_addr().unwrap());
    let server = Server::start(NEWEST);
    for _ in 0..4 {
        let options = NatsOptions::new([mute.clone(), server.url()])
            .connect_timeout(Duration::from_millis(300));
        NatsStore::connect(options, soon()).unwrap();
    }
    let options = NatsOptions::new([mute]).connect_timeout(Duration::from_millis(100));
    let started = Instant::now();
    let error = NatsStore::connect(options, started + Duration::from_secs(1)).unwrap_err();
    assert_eq!(error.code(), divvy::error::Code::Unavailable);
    assert!(error.to_string().contains("greet"), "{error}");
    assert!(started.elapsed() < Duration::from_millis(1_500));
}

#[test]
fn stop_and_drop_keep_their_deadline_while_the_server_hangs_and_nothing_stays_behind() {
    let server = Server::start(NEWEST);
    let store = connect(&server.url());
    store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
    let watch = store.watch(BUCKET, "").unwrap();
    assert!(Reader::default().until_live(&watch, Duration::from_secs(10)));
    let dropped = connect(&server.url());
    server.pause();
    // Fills the socket, so that the crate's writes block as well.
    let flood: Vec<_> = (0..40)
        .map(|n| put(&format!("k{n}"), &"x".repeat(500_000)))
        .collect();
    let started = Instant::now();
    let outcomes = store.write(BUCKET, &flood, started + CALL_TIMEOUT);
    assert!(
        started.elapsed() < CALL_TIMEOUT + OVERRUN_MAX,
        "{:?}",
        started.elapsed()
    );
    assert!(outcomes.iter().any(|o| matches!(o, Outcome::Unknown(_))));
    assert!(
        outcomes.iter().any(|o| matches!(o, Outcome::Refused(_))),
        "not all were sent"
    );
    let started = Instant::now();
    store
        .stop(started + Duration::from_secs(2))
        .expect("our threads end");
    drop(dropped);
    let took = started.elapsed();
    println!("stop and drop with a hung server: {took:?}");
    assert!(took < Duration::from_secs(2));
    assert!(abandoned_connections() >= 1);
    server.resume();
    let deadline = soon();
    while server.connections() > 0 {
        assert!(
            Instant::now() < deadline,
            "{} connections stay",
            server.connections()
        );
        thread::sleep(Duration::from_millis(20));
    }
    println!("gone {:?} after the heal", started.elapsed() - took);
}

#[test]
fn a_store_can_be_started_and_stopped_a_hundred_times_without_growth() {
    let server = Server::start(NEWEST);
    let cycle = || {
        let store = connect(&server.url());
        store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
        let watch = store.watch(BUCKET, "").unwrap();
        assert!(Reader::default().until_live(&watch, Duration::from_secs(10)));
        store.stop(soon()).unwrap();
    };
    cycle();
    for _ in 0..100 {
        cycle();
    }
    // Other tests of this process have connections of their own, so the server is asked.
    assert_eq!(server.connections(), 0);
    let jsz = server.monitoring("jsz").unwrap();
    assert_eq!(jsz["consumers"], 0, "{jsz}");
}

//! The faults of servers and networks: how each is set up, injected and healed.

use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use divvy::ManagerConfig;
use divvy::store::nats::{NatsOptions, NatsStore, Storage};
use divvy::store::{Bucket, BucketConfig, ManageBuckets, Store};

use super::faults::{
    BUCKET, CALL_TIMEOUT, Contents, FOR_EVER, OVERRUN_MAX, PULLED, connect, options, put, soon,
};
use super::nats_server::{Cluster, Server};
use super::proxy::{Proxy, Way};
use super::raw_nats::RawNats;

const STREAM: &str = "KV_parti-assignment";

/// A fault that can be injected repeatedly.
pub struct Fault {
    pub name: String,
    /// The time from injection to healing.
    pub lasting: Duration,
    /// What happens to the bucket of the keys of the trial.
    pub contents: Contents,
    pub effect: Effect,
    pub during: During,
    set_up: Box<dyn Fn(&str) -> Stage + Send + Sync>,
}

/// How a fault affects a fleet, and so whether it must be reported.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The store is unreachable or rejects requests: must be reported if it lasts.
    Harm,
    /// It is survived. What is reported depends on the operations in progress.
    Little,
    /// Nothing may be reported.
    None,
}

/// What the hosts of the workers do during the fault.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum During {
    /// The leader's host requests a new plan.
    PlanWanted,
    /// Nothing: a new plan would restore what the fault removes from the bucket.
    Quiet,
    /// Their wall clocks are set a day ahead, and two days back at the end.
    WallClockStepped,
}

/// A prepared fault. Dropping it releases its servers and proxies.
pub struct Stage {
    /// The address for the affected clients.
    pub address: Address,
    /// The address for the unaffected clients.
    pub direct: String,
    inject: Box<dyn FnMut()>,
    heal: Box<dyn FnMut()>,
}

/// The parameters of a client of the servers under fault, passed to processes as text.
#[derive(Clone)]
pub struct Address {
    urls: Vec<String>,
    replicas: u32,
    is_in_memory: bool,
}

impl Fault {
    fn new(
        name: impl Into<String>,
        lasting: Duration,
        set_up: impl Fn(&str) -> Stage + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            lasting,
            contents: Contents::Kept,
            effect: Effect::Harm,
            during: During::PlanWanted,
            set_up: Box::new(set_up),
        }
    }

    /// The bucket is deleted with its content. Healing creates an empty one.
    fn empties(self) -> Self {
        Self {
            contents: Contents::Gone,
            during: During::Quiet,
            ..self
        }
    }

    fn but(self, effect: Effect) -> Self {
        Self { effect, ..self }
    }

    /// Sets up the fault with servers of this version.
    pub fn set_up(&self, version: &str) -> Stage {
        (self.set_up)(version)
    }
}

impl Stage {
    pub fn inject(&mut self) {
        (self.inject)();
    }

    pub fn heal(&mut self) {
        (self.heal)();
    }

    /// For a single server that is itself affected.
    fn of(
        server: Server,
        address: Address,
        mut inject: impl FnMut(&mut Server) + 'static,
        mut heal: impl FnMut(&mut Server) + 'static,
    ) -> Self {
        let direct = server.url();
        let server = Arc::new(Mutex::new(server));
        let same = Arc::clone(&server);
        Self {
            address,
            direct,
            inject: Box::new(move || inject(&mut lock(&server))),
            heal: Box::new(move || heal(&mut lock(&same))),
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("no panic while a server is hit")
}

impl Address {
    fn new(urls: impl IntoIterator<Item = String>) -> Self {
        Self {
            urls: urls.into_iter().collect(),
            replicas: 1,
            is_in_memory: false,
        }
    }

    /// For a fleet: every bucket under its default name.
    pub fn options(&self) -> NatsOptions {
        self.amend(NatsOptions::new(self.urls.clone()).manage_buckets(ManageBuckets::Upgrade))
    }

    /// For a trial.
    pub fn trial_options(&self) -> NatsOptions {
        self.amend(options(self.urls.clone()))
    }

    fn amend(&self, options: NatsOptions) -> NatsOptions {
        let options = options.replicas(self.replicas);
        match self.is_in_memory {
            true => options.storage(Storage::Memory),
            false => options,
        }
    }

    /// Formats it for a process.
    pub fn to_text(&self) -> String {
        let urls = self.urls.join(",");
        format!("{urls} {} {}", self.replicas, self.is_in_memory)
    }

    pub fn from_text(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        let [urls, replicas, is_in_memory] = words[..] else {
            panic!("not an address: {text}");
        };
        Self {
            urls: urls.split(',').map(str::to_owned).collect(),
            replicas: replicas.parse().expect("a number"),
            is_in_memory: is_in_memory == "true",
        }
    }
}

/// All faults, in the order of the table.
pub fn all() -> Vec<Fault> {
    let secs = Duration::from_secs;
    let mut faults: Vec<Fault> = [1, 10, 60].map(secs).map(killed).into();
    faults.extend([terminated(), paused()]);
    faults.extend([1, 4, 6, 10, 60].map(secs).map(cut));
    faults.extend([truncated(), half_closed()]);
    faults.extend([10, 60].map(secs).map(black_hole));
    faults.extend([
        one_way_hole(Way::ToServer, secs(10)),
        one_way_hole(Way::ToClient, secs(10)),
        swallowed(),
        slow(),
        consumers_deleted(),
        stray_messages(),
        purged(),
        created_again(),
        deleted_under_a_publish(),
        memory_lost(),
        silent_server_listed_first(),
        jetstream_switched_off(),
        storage_limit(),
        node_killed(),
        wall_clocks_stepped(),
        all_expired(),
    ]);
    faults
}

/// No fault, for comparison.
pub fn nothing(lasting: Duration) -> Fault {
    let name = format!("nothing, for {} s", lasting.as_secs());
    on_server(name, lasting, |_| (), |_| ()).but(Effect::None)
}

fn on_server(
    name: impl Into<String>,
    lasting: Duration,
    inject: fn(&mut Server),
    heal: fn(&mut Server),
) -> Fault {
    Fault::new(name, lasting, move |version| {
        let server = Server::start(version);
        let address = Address::new([server.url()]);
        Stage::of(server, address, inject, heal)
    })
}

fn through_proxy(name: impl Into<String>, lasting: Duration, inject: fn(&Proxy)) -> Fault {
    Fault::new(name, lasting, move |version| {
        let server = Server::start(version);
        let proxy = Arc::new(Proxy::start(server.port));
        let same = Arc::clone(&proxy);
        let address = Address::new([proxy.url()]);
        Stage::of(
            server,
            address,
            move |_| inject(&proxy),
            move |_| same.heal(),
        )
    })
}

pub fn killed(lasting: Duration) -> Fault {
    let name = format!("kill -9, back after {} s", lasting.as_secs());
    on_server(name, lasting, Server::kill, Server::restart)
}

pub fn terminated() -> Fault {
    let lasting = Duration::from_secs(1);
    on_server(
        "SIGTERM, back after 1 s",
        lasting,
        Server::terminate,
        Server::restart,
    )
}

pub fn paused() -> Fault {
    let lasting = Duration::from_secs(10);
    on_server("SIGSTOP for 10 s", lasting, |s| s.pause(), |s| s.resume())
}

pub fn cut(lasting: Duration) -> Fault {
    let name = format!("TCP cut for {} s", lasting.as_secs());
    through_proxy(name, lasting, Proxy::cut)
}

pub fn truncated() -> Fault {
    let lasting = Duration::from_millis(500);
    through_proxy("cut in the middle of a message", lasting, |p| {
        p.truncate_after(777);
    })
}

pub fn half_closed() -> Fault {
    let lasting = Duration::from_millis(500);
    through_proxy("connection half closed", lasting, |p| {
        p.half_close(Way::ToClient);
    })
}

pub fn black_hole(lasting: Duration) -> Fault {
    let name = format!("black hole for {} s", lasting.as_secs());
    through_proxy(name, lasting, |p| {
        p.hold(Way::ToServer);
        p.hold(Way::ToClient);
    })
}

pub fn one_way_hole(way: Way, lasting: Duration) -> Fault {
    let name = |way| format!("one-way black hole, to the {way}, {} s", lasting.as_secs());
    match way {
        Way::ToServer => through_proxy(name("server"), lasting, |p| p.hold(Way::ToServer)),
        Way::ToClient => through_proxy(name("client"), lasting, |p| p.hold(Way::ToClient)),
    }
}

fn swallowed() -> Fault {
    let name = "bytes to the client lost for 300 ms";
    through_proxy(name, Duration::from_millis(300), |p| {
        p.swallow(Way::ToClient);
    })
}

fn slow() -> Fault {
    let name = "300 ms of latency, for 5 s";
    through_proxy(name, Duration::from_secs(5), |p| {
        p.delay(Duration::from_millis(300));
    })
    .but(Effect::Little)
}

pub fn consumers_deleted() -> Fault {
    let inject = |server: &mut Server| {
        let mut raw = RawNats::connect(server.port);
        let mut deleted = 0;
        for stream in names(&raw.api("STREAM.NAMES", ""), "streams") {
            for name in names(
                &raw.api(&format!("CONSUMER.NAMES.{stream}"), ""),
                "consumers",
            ) {
                raw.api(&format!("CONSUMER.DELETE.{stream}.{name}"), "");
                deleted += 1;
            }
        }
        assert!(deleted >= 2, "{deleted} consumers");
    };
    let lasting = Duration::from_millis(100);
    on_server("every watch's consumer deleted", lasting, inject, |_| ())
}

fn names(answer: &serde_json::Value, what: &str) -> Vec<String> {
    let names = answer[what].as_array().into_iter().flatten();
    names
        .map(|name| name.as_str().expect("a name").to_owned())
        .collect()
}

/// Unrequested messages on every subject to which the connections subscribe.
fn stray_messages() -> Fault {
    let inject = |server: &mut Server| {
        let connections = server.monitoring("connz?subs=1").expect("connections");
        let lists = connections["connections"]
            .as_array()
            .expect("a list")
            .iter();
        let subjects: Vec<String> = lists
            .filter_map(|connection| connection["subscriptions_list"].as_array())
            .flatten()
            .filter_map(|subject| subject.as_str())
            .filter(|subject| subject.starts_with("_INBOX"))
            .map(|subject| subject.replace(['*', '>'], "stray"))
            .collect();
        assert!(!subjects.is_empty());
        let mut raw = RawNats::connect(server.port);
        for subject in subjects {
            raw.send(format!("PUB {subject} 5\r\nstray\r\n").as_bytes());
        }
        raw.flush();
    };
    let lasting = Duration::from_millis(300);
    on_server("stray messages on every inbox", lasting, inject, |_| ()).but(Effect::Little)
}

/// The purged keys are removed on purpose. Writing continues, and the later writes are compared.
fn purged() -> Fault {
    let inject = |server: &mut Server| {
        RawNats::connect(server.port).api(&format!("STREAM.PURGE.{STREAM}"), "");
    };
    // Long enough for the writer to rewrite every key.
    let lasting = Duration::from_secs(5);
    let purged = on_server("bucket purged (writes continue)", lasting, inject, |_| ());
    // No server notifies a watch of it: it is detected at the next publication.
    purged.but(Effect::Little)
}

pub fn created_again() -> Fault {
    let name = "bucket deleted, re-created after 500 ms";
    let lasting = Duration::from_millis(500);
    on_server(
        name,
        lasting,
        |s| delete_bucket(s),
        |s| create_buckets(&own(s)),
    )
    .empties()
}

/// Two thousand writes are in flight when the bucket is deleted.
fn deleted_under_a_publish() -> Fault {
    let inject = |server: &mut Server| {
        let store = connect(&server.url());
        let writes: Vec<_> = (0..2_000).map(|n| put(&format!("k{n}"), "v")).collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                let started = Instant::now();
                store.write(BUCKET, &writes, started + CALL_TIMEOUT);
                assert!(started.elapsed() < CALL_TIMEOUT + OVERRUN_MAX);
            });
            thread::sleep(Duration::from_millis(5));
            delete_bucket(server);
        });
    };
    let name = "bucket deleted under 2 000 writes, re-created after 500 ms";
    let lasting = Duration::from_millis(500);
    on_server(name, lasting, inject, |s| create_buckets(&own(s))).empties()
}

/// The content of a bucket in memory is lost with the process of the server.
pub fn memory_lost() -> Fault {
    let name = "memory storage: kill -9, back after 1 s, buckets re-created";
    let set_up = |version: &str| {
        let server = Server::start(version);
        let address = Address {
            is_in_memory: true,
            ..Address::new([server.url()])
        };
        let same = address.clone();
        Stage::of(server, address, Server::kill, move |server| {
            server.restart();
            create_buckets(&same);
        })
    };
    Fault::new(name, Duration::from_secs(1), set_up).empties()
}

fn own(server: &Server) -> Address {
    Address::new([server.url()])
}

fn delete_bucket(server: &Server) {
    let answer = RawNats::connect(server.port).api(&format!("STREAM.DELETE.{STREAM}"), "");
    assert_eq!(answer["success"], true, "{answer}");
}

/// Creates the missing buckets of a fleet and a trial as soon as the server accepts it.
fn create_buckets(address: &Address) {
    let config = ManagerConfig::default();
    let fleets = [
        (Bucket::StableId, Some(config.worker_id_ttl)),
        (Bucket::Election, Some(config.election_timeout)),
        (Bucket::Heartbeat, Some(config.calculator.heartbeat_ttl)),
        (Bucket::Assignment, None),
    ];
    let fleets = fleets.map(|(bucket, ttl)| (bucket, BucketConfig { ttl }));
    create(address.options(), &fleets);
    create(
        address.trial_options(),
        &[BUCKET, PULLED].map(|bucket| (bucket, FOR_EVER)),
    );
}

fn create(options: NatsOptions, buckets: &[(Bucket, BucketConfig)]) {
    let deadline = soon();
    let store = NatsStore::connect(options, deadline).expect("a connection");
    for (bucket, config) in buckets {
        while let Err(error) = store.ensure(*bucket, *config, deadline) {
            assert!(Instant::now() < deadline, "no bucket: {error}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The first address in the list accepts connections and sends nothing. Then the connection breaks.
fn silent_server_listed_first() -> Fault {
    let name = "a server that accepts and never answers, listed first; cut";
    Fault::new(name, Duration::from_millis(500), |version| {
        let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let url = format!("nats://{}", silent.local_addr().expect("an address"));
        let server = Server::start(version);
        let proxy = Arc::new(Proxy::start(server.port));
        let same = Arc::clone(&proxy);
        let address = Address::new([url, proxy.url()]);
        Stage::of(
            server,
            address,
            move |_| proxy.cut(),
            move |_| {
                let _listens = &silent;
                same.heal();
            },
        )
    })
}

fn jetstream_switched_off() -> Fault {
    on_server(
        "JetStream switched off for 3 s",
        Duration::from_secs(3),
        |server| {
            let off = "jetstream { enabled: false, ";
            server.reload(|config| config.replace("jetstream {", off));
        },
        |server| server.reload(|config| config.replace("enabled: false, ", "")),
    )
}

/// The bucket may not grow: new values are rejected, deletes and reads work.
fn storage_limit() -> Fault {
    on_server(
        "storage limit reached for 3 s",
        Duration::from_secs(3),
        |server| limit(server, 1),
        |server| limit(server, -1),
    )
}

fn limit(server: &Server, bytes: i64) {
    let mut raw = RawNats::connect(server.port);
    let mut config = raw.api(&format!("STREAM.INFO.{STREAM}"), "")["config"].clone();
    config["max_bytes"] = bytes.into();
    let answer = raw.api(&format!("STREAM.UPDATE.{STREAM}"), &config.to_string());
    assert!(answer["error"].is_null(), "{answer}");
}

/// The node that leads the stream of the bucket.
fn node_killed() -> Fault {
    let name = "R3: stream leader killed -9, back after 10 s";
    Fault::new(name, Duration::from_secs(10), |version| {
        let cluster = Cluster::start(version);
        let address = Address {
            replicas: 3,
            ..Address::new(cluster.urls())
        };
        let store = NatsStore::connect(address.options(), soon()).expect("a connection");
        store.ensure(BUCKET, FOR_EVER, soon()).expect("a bucket");
        store.stop(soon()).expect("all threads end");
        let node = leader_of_the_stream(&cluster);
        let direct = cluster.nodes[(node + 1) % 3].url();
        let cluster = Arc::new(Mutex::new(cluster));
        let same = Arc::clone(&cluster);
        Stage {
            address,
            direct,
            inject: Box::new(move || lock(&cluster).nodes[node].kill()),
            heal: Box::new(move || {
                lock(&same).nodes[node].restart();
                lock(&same).wait_healthy();
            }),
        }
    })
    // What else that node led, and which clients were connected to it, is random.
    .but(Effect::Little)
}

fn leader_of_the_stream(cluster: &Cluster) -> usize {
    let port = cluster.nodes[0].port;
    let info = RawNats::connect(port).api(&format!("STREAM.INFO.{STREAM}"), "");
    let leader = info["cluster"]["leader"].as_str().expect("a leader");
    let leads = |node: &Server| {
        let name = node.monitoring("varz").expect("its name")["server_name"].clone();
        name.as_str() == Some(leader)
    };
    cluster.nodes.iter().position(leads).expect("the leader")
}

/// The wall clocks of the hosts of the workers. The clock of a server cannot be set without setting
/// the clock of the machine.
fn wall_clocks_stepped() -> Fault {
    let name = "wall clocks of the workers set a day ahead, after 12 s two days back";
    let steps = on_server(name, Duration::from_secs(12), |_| (), |_| ());
    Fault {
        during: During::WallClockStepped,
        ..steps.but(Effect::None)
    }
}

/// Reproduces a server whose wall clock is set forward: all values with a TTL expire at once.
fn all_expired() -> Fault {
    let inject = |server: &mut Server| {
        let mut raw = RawNats::connect(server.port);
        for bucket in ["heartbeat", "election", "stableid"] {
            let filter = r#"{"subjects_filter":">"}"#;
            let info = raw.api(&format!("STREAM.INFO.KV_parti-{bucket}"), filter);
            let subjects = info["state"]["subjects"].as_object().into_iter().flatten();
            for (subject, _) in subjects {
                let marker = b"NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\n\r\n";
                let ack = raw.store(subject.as_bytes(), marker, b"");
                assert!(ack["seq"].is_u64(), "{ack}");
            }
        }
    };
    let name = "all keys with a TTL expired at once, as by a server's clock set forward";
    let expired = on_server(name, Duration::from_secs(3), inject, |_| ());
    Fault {
        during: During::Quiet,
        ..expired.but(Effect::Little)
    }
}

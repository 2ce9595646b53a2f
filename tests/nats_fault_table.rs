//! The table of faults in `docs/faults.md`: what each does to a store, measured one by one.
//!
//! Takes minutes, so it runs only when asked for: `make faults` prints the table and writes the
//! file. A fault that costs an acknowledged write, an event, or a deadline ends it with an error.
#![cfg(all(feature = "nats", target_os = "linux"))]

mod support;

use std::cell::RefCell;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use divvy::store::Store;
use divvy::store::nats::{NatsOptions, NatsStore, Storage};
use support::faults::{
    BUCKET, CALL_TIMEOUT, FOR_EVER, OVERRUN_MAX, PULLED, Row, Trial, connect, put, soon,
};
use support::nats_binary::NEWEST;
use support::nats_server::{Cluster, Server};
use support::proxy::{Proxy, Way};
use support::raw_nats::RawNats;

const STREAM: &str = "KV_parti-assignment";

/// So many are measured at a time: nearly all they do is wait.
const AT_ONCE: usize = 4;

type Measure = Box<dyn Fn() -> Row + Send + Sync>;

#[test]
fn every_fault_is_measured_and_costs_no_write_no_event_and_no_deadline() {
    let faults = faults();
    let rows: Vec<Mutex<Option<Row>>> = faults.iter().map(|_| Mutex::default()).collect();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    let Some(measure) = faults.get(index) else {
                        return;
                    };
                    let row = measure();
                    eprintln!("{} of {}: {row}", index + 1, faults.len());
                    *rows[index].lock().expect("a row") = Some(row);
                }
            });
        }
    });
    let rows: Vec<Row> = rows
        .into_iter()
        .map(|row| row.into_inner().expect("a row").expect("measured"))
        .collect();
    let mut table = format!("{}\n", Row::HEAD);
    for row in &rows {
        table.push_str(&format!("{row}\n"));
    }
    println!("{table}");
    write(&table);
    rows.iter().for_each(Row::check);
}

/// Puts the table into the document, in place of the one that is there.
fn write(table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md");
    let text = std::fs::read_to_string(&path).expect("the document");
    let (before, rest) = text.split_once("<!-- table -->\n").expect("its start");
    let (_, after) = rest.split_once("<!-- end -->").expect("its end");
    let text = format!("{before}<!-- table -->\n{table}<!-- end -->{after}");
    std::fs::write(&path, text).expect("the document is written");
}

fn faults() -> Vec<Measure> {
    let mut faults: Vec<Measure> = Vec::new();
    for (name, secs) in [
        ("kill -9, back after 1 s", 1),
        ("kill -9, back after 10 s", 10),
        ("kill -9, back after 60 s", 60),
    ] {
        faults.push(Box::new(move || killed(name, secs)));
    }
    faults.push(Box::new(terminated));
    faults.push(Box::new(paused));
    for (name, secs) in [
        ("TCP cut for 1 s", 1),
        ("TCP cut for 4 s", 4),
        ("TCP cut for 6 s", 6),
        ("TCP cut for 10 s", 10),
        ("TCP cut for 60 s", 60),
    ] {
        let inject: fn(&Proxy) = Proxy::cut;
        faults.push(through_proxy(name, secs * 1_000, inject));
    }
    faults.push(through_proxy("cut in the middle of a message", 500, |p| {
        p.truncate_after(777);
    }));
    faults.push(through_proxy("connection half closed", 500, |p| {
        p.half_close(Way::ToClient);
    }));
    for (name, secs) in [("black hole for 10 s", 10), ("black hole for 60 s", 60)] {
        faults.push(through_proxy(name, secs * 1_000, |p| {
            p.hold(Way::ToServer);
            p.hold(Way::ToClient);
        }));
    }
    faults.push(through_proxy(
        "one-way black hole, to the server, 10 s",
        10_000,
        |p| p.hold(Way::ToServer),
    ));
    faults.push(through_proxy(
        "one-way black hole, to the client, 10 s",
        10_000,
        |p| p.hold(Way::ToClient),
    ));
    faults.push(through_proxy(
        "bytes lost on the way to the client, 300 ms",
        300,
        |p| p.swallow(Way::ToClient),
    ));
    faults.push(through_proxy("300 ms of latency, for 5 s", 5_000, |p| {
        p.delay(Duration::from_millis(300));
    }));
    faults.push(Box::new(consumer_deleted));
    faults.push(Box::new(stray_messages));
    faults.push(Box::new(purged));
    faults.push(Box::new(created_anew));
    faults.push(Box::new(deleted_under_a_publish));
    faults.push(Box::new(memory_lost));
    faults.push(Box::new(silent_server_listed_first));
    faults.push(Box::new(jetstream_switched_off));
    faults.push(Box::new(storage_limit));
    faults.push(Box::new(node_killed));
    faults
}

fn killed(name: &'static str, secs: u64) -> Row {
    let mut server = Server::start(NEWEST);
    let trial = Trial::new(name, &server.url(), &server.url());
    let server = RefCell::new(&mut server);
    trial.measure(
        Duration::from_secs(secs),
        || server.borrow_mut().kill(),
        || server.borrow_mut().restart(),
    )
}

fn terminated() -> Row {
    let mut server = Server::start(NEWEST);
    let trial = Trial::new("SIGTERM, back after 1 s", &server.url(), &server.url());
    let server = RefCell::new(&mut server);
    trial.measure(
        Duration::from_secs(1),
        || server.borrow_mut().terminate(),
        || server.borrow_mut().restart(),
    )
}

fn paused() -> Row {
    let server = Server::start(NEWEST);
    let trial = Trial::new("SIGSTOP for 10 s", &server.url(), &server.url());
    trial.measure(
        Duration::from_secs(10),
        || server.pause(),
        || server.resume(),
    )
}

fn through_proxy(name: &'static str, millis: u64, inject: fn(&Proxy)) -> Measure {
    Box::new(move || {
        let server = Server::start(NEWEST);
        let proxy = Proxy::start(server.port);
        let trial = Trial::new(name, &proxy.url(), &server.url());
        let lasting = Duration::from_millis(millis);
        trial.measure(lasting, || inject(&proxy), || proxy.heal())
    })
}

fn consumer_deleted() -> Row {
    let server = Server::start(NEWEST);
    let trial = Trial::new("the watch's consumer deleted", &server.url(), &server.url());
    let inject = || {
        let mut raw = RawNats::connect(server.port);
        let names = raw.api(&format!("CONSUMER.NAMES.{STREAM}"), "");
        for name in names["consumers"].as_array().expect("consumers") {
            let name = name.as_str().expect("a name");
            raw.api(&format!("CONSUMER.DELETE.{STREAM}.{name}"), "");
        }
    };
    trial.measure(Duration::from_millis(100), inject, || ())
}

/// Messages that nobody asked for, on every subject that the store's connections listen to.
fn stray_messages() -> Row {
    let server = Server::start(NEWEST);
    let trial = Trial::new(
        "stray messages on every inbox",
        &server.url(),
        &server.url(),
    );
    let inject = || {
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
    trial.measure(Duration::from_millis(300), inject, || ())
}

/// What the purge removed is gone on purpose: writes go on, and what they leave is compared.
fn purged() -> Row {
    let server = Server::start(NEWEST);
    let trial = Trial::new("bucket purged (writes go on)", &server.url(), &server.url());
    let inject = || {
        RawNats::connect(server.port).api(&format!("STREAM.PURGE.{STREAM}"), "");
    };
    // Long enough for the writer to come round to every key again.
    trial.measure(Duration::from_secs(5), inject, || ())
}

fn delete_bucket(server: &Server) {
    let answer = RawNats::connect(server.port).api(&format!("STREAM.DELETE.{STREAM}"), "");
    assert_eq!(answer["success"], true, "{answer}");
}

/// Creates the bucket as soon as the server lets it be created.
fn create_bucket(store: &NatsStore) {
    let deadline = soon();
    for bucket in [BUCKET, PULLED] {
        while let Err(error) = store.ensure(bucket, FOR_EVER, soon()) {
            assert!(Instant::now() < deadline, "no bucket: {error}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn created_anew() -> Row {
    let server = Server::start(NEWEST);
    let name = "bucket deleted, created anew after 500 ms";
    let trial = Trial::new(name, &server.url(), &server.url());
    let store = Arc::clone(&trial.store);
    trial.measure_anew(
        Duration::from_millis(500),
        || delete_bucket(&server),
        || create_bucket(&store),
    )
}

/// Two thousand writes are on their way when the bucket goes.
fn deleted_under_a_publish() -> Row {
    let server = Server::start(NEWEST);
    let name = "bucket deleted under 2 000 writes, created anew after 500 ms";
    let trial = Trial::new(name, &server.url(), &server.url());
    let store = Arc::clone(&trial.store);
    let writes: Vec<_> = (0..2_000).map(|n| put(&format!("k{n}"), "v")).collect();
    let inject = || {
        thread::scope(|scope| {
            scope.spawn(|| {
                let started = Instant::now();
                store.write(BUCKET, &writes, started + CALL_TIMEOUT);
                assert!(started.elapsed() < CALL_TIMEOUT + OVERRUN_MAX);
            });
            thread::sleep(Duration::from_millis(5));
            delete_bucket(&server);
        });
    };
    trial.measure_anew(Duration::from_millis(500), inject, || create_bucket(&store))
}

/// What a bucket in memory holds is gone with the server's process.
fn memory_lost() -> Row {
    let mut server = Server::start(NEWEST);
    let url = server.url();
    let options = NatsOptions::new([url.clone()]).storage(Storage::Memory);
    let store = NatsStore::connect(options, soon()).expect("a connection");
    let name = "memory storage: kill -9, back after 1 s, bucket created anew";
    let trial = Trial::of(name, store, &url);
    let store = Arc::clone(&trial.store);
    let server = RefCell::new(&mut server);
    trial.measure_anew(
        Duration::from_secs(1),
        || server.borrow_mut().kill(),
        || {
            server.borrow_mut().restart();
            create_bucket(&store);
        },
    )
}

/// An address that accepts and says nothing comes first in the list; then the connection breaks.
fn silent_server_listed_first() -> Row {
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let silent = format!("nats://{}", silent.local_addr().expect("an address"));
    let server = Server::start(NEWEST);
    let proxy = Proxy::start(server.port);
    let options = NatsOptions::new([silent, proxy.url()]);
    let store = NatsStore::connect(options, soon()).expect("a connection");
    let trial = Trial::of(
        "a server that accepts and never answers, listed first; cut",
        store,
        &server.url(),
    );
    trial.measure(Duration::from_millis(500), || proxy.cut(), || proxy.heal())
}

fn jetstream_switched_off() -> Row {
    let server = Server::start(NEWEST);
    let trial = Trial::new(
        "JetStream switched off for 3 s",
        &server.url(),
        &server.url(),
    );
    trial.measure(
        Duration::from_secs(3),
        || server.reload(|config| config.replace("jetstream {", "jetstream { enabled: false, ")),
        || server.reload(|config| config.replace("enabled: false, ", "")),
    )
}

/// The bucket may not grow any more: new values are refused, deletes and reads go on.
fn storage_limit() -> Row {
    let server = Server::start(NEWEST);
    let trial = Trial::new(
        "storage limit reached for 3 s",
        &server.url(),
        &server.url(),
    );
    let limit = |bytes: i64| {
        let mut raw = RawNats::connect(server.port);
        let mut config = raw.api(&format!("STREAM.INFO.{STREAM}"), "")["config"].clone();
        config["max_bytes"] = bytes.into();
        let answer = raw.api(&format!("STREAM.UPDATE.{STREAM}"), &config.to_string());
        assert!(answer["error"].is_null(), "{answer}");
    };
    trial.measure(Duration::from_secs(3), || limit(1), || limit(-1))
}

/// The node that leads the bucket's stream.
fn node_killed() -> Row {
    let cluster = RefCell::new(Cluster::start(NEWEST));
    let urls = cluster.borrow().urls();
    let setup = connect(&urls[0]);
    setup.stop(soon()).expect("all threads end");
    let options = || NatsOptions::new(urls.clone()).replicas(3);
    let store = NatsStore::connect(options(), soon()).expect("a connection");
    store.ensure(BUCKET, FOR_EVER, soon()).expect("a bucket");
    let port = cluster.borrow().nodes[0].port;
    let info = RawNats::connect(port).api(&format!("STREAM.INFO.{STREAM}"), "");
    let leader = info["cluster"]["leader"]
        .as_str()
        .expect("a leader")
        .to_owned();
    let leads = |node: &Server| {
        let name = node.monitoring("varz").expect("its name")["server_name"].clone();
        name.as_str() == Some(&leader)
    };
    let node = cluster
        .borrow()
        .nodes
        .iter()
        .position(leads)
        .expect("the leader");
    let trial = Trial::of(
        "R3: the stream's leader killed -9, back after 10 s",
        store,
        &cluster.borrow().nodes[(node + 1) % 3].url(),
    );
    trial.measure(
        Duration::from_secs(10),
        || cluster.borrow_mut().nodes[node].kill(),
        || {
            cluster.borrow_mut().nodes[node].restart();
            cluster.borrow().wait_healthy();
        },
    )
}

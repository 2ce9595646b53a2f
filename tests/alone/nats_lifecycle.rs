//! The NATS store leaves nothing behind in its process.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use divvy::error::Code;
use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{Bucket, Health, HealthEvents, Outcome, Store};

use crate::alone;
use crate::support::faults::{BUCKET, FOR_EVER, Reader, connect, put, soon};
use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::{Server, Setup};
use crate::support::proxy::Proxy;
use crate::support::tasks::tasks;
use crate::support::usage::usage;

/// Threads and file descriptors of this process.
fn holdings() -> (usize, usize) {
    let usage = usage();
    (usage.threads, usage.descriptors)
}

/// Returns the names of the threads of the store, sorted.
fn names() -> Vec<String> {
    let mut names: Vec<_> = tasks("dv-nats").into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names
}

fn cycle(server: &Server) {
    let store = connect(&server.url());
    store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
    let watch = store.watch(BUCKET, "").unwrap();
    assert!(Reader::default().until_live(&watch, Duration::from_secs(10)));
    store.write(BUCKET, &[put("k", "v")], soon());
    store.stop(soon()).unwrap();
}

#[test]
fn nats_cycles_and_hangs_keep_threads_descriptors_and_memory_flat() {
    let _alone = alone();
    let server = Server::start(NEWEST);
    for _ in 0..20 {
        cycle(&server);
    }
    let (before, resident) = (holdings(), usage().resident_kib);
    for _ in 0..200 {
        cycle(&server);
    }
    assert_eq!(holdings(), before);
    let grown = usage().resident_kib.saturating_sub(resident);
    println!("200 cycles: {before:?} threads and descriptors, {grown} KiB more");
    assert!(grown < 4_096, "{grown} KiB");

    // Independent of the number of watches: the threads of the session and of the connection.
    let store = connect(&server.url());
    let mut watches = Vec::new();
    for bucket in Bucket::ALL {
        store.ensure(bucket, FOR_EVER, soon()).unwrap();
        for prefix in ["", "a", "b"] {
            let watch = store.watch(bucket, prefix).unwrap();
            assert!(Reader::default().until_live(&watch, Duration::from_secs(10)));
            watches.push(watch);
        }
    }
    let deadline = soon();
    let expected = ["dv-nats", "dv-nats-io"];
    while names() != expected {
        // The listing thread ends right after its result was delivered.
        assert!(Instant::now() < deadline, "{:?}", names());
        thread::sleep(Duration::from_millis(1));
    }

    // The connection hangs: it is replaced after the healing, and leaves nothing behind.
    let health = store.health_events();
    server.pause();
    until(&health, |health| matches!(health, Health::Degraded(_)));
    server.resume();
    until(&health, |health| *health == Health::Connected);
    let deadline = soon();
    while names() != expected {
        assert!(Instant::now() < deadline, "{:?}", names());
        thread::sleep(Duration::from_millis(1));
    }
    drop(watches);
    store.stop(soon()).unwrap();
    drop(store);
    assert_eq!(holdings(), before);
}

fn until(health: &HealthEvents, wanted: impl Fn(&Health) -> bool) {
    loop {
        let health = health.recv_timeout(Duration::from_secs(10));
        if wanted(&health.expect("health changes in time")) {
            return;
        }
    }
}

/// Connections freeze one after the other. `FREEZES=1000` takes a quarter of an hour.
#[test]
fn frozen_connections_are_replaced_within_stale_limit_and_leave_nothing_behind() {
    let _alone = alone();
    let freezes = std::env::var("FREEZES").ok();
    let freezes = freezes.map_or(5, |count| count.parse().expect("a number"));
    let limit = Duration::from_secs(1);
    let server = Server::start(NEWEST);
    let proxy = Proxy::start(server.port);
    let options = NatsOptions::new([proxy.url()]).stale_limit(limit);
    let store = NatsStore::connect(options, soon()).unwrap();
    store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
    let watch = store.watch(BUCKET, "").unwrap();
    let mut reader = Reader::default();
    assert!(reader.until_live(&watch, Duration::from_secs(10)));
    let health = store.health_events();
    until(&health, |health| *health == Health::Connected);
    let mut slowest = Duration::ZERO;
    for round in 0..freezes {
        proxy.freeze();
        let frozen = Instant::now();
        until(&health, |health| matches!(health, Health::Degraded(_)));
        slowest = slowest.max(frozen.elapsed());
        until(&health, |health| *health == Health::Connected);
        // A machine that stalls for longer than the limit loses the new connection as well.
        let written = |outcome: &[Outcome]| matches!(outcome[0], Outcome::Done(_));
        let deadline = soon();
        while !written(&store.write(BUCKET, &[put("k", &round.to_string())], deadline)) {
            assert!(Instant::now() < deadline, "round {round}");
        }
        assert_eq!(
            names().iter().filter(|name| *name == "dv-nats-io").count(),
            1
        );
    }
    println!("{freezes} freezes: the slowest noticed after {slowest:?}");
    assert!(slowest <= limit + Duration::from_millis(100), "{slowest:?}");
    drop(watch);
    store.stop(soon()).unwrap();
    assert_eq!(names(), [""; 0]);
}

/// Each kind of connect failure, repeatedly.
#[test]
fn failed_connects_leave_no_thread_or_descriptor_behind() {
    let _alone = alone();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = format!("nats://{}", closed.local_addr().unwrap());
    drop(closed);
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("nats://{}", mute.local_addr().unwrap());
    let server = Setup::new(NEWEST)
        .config("authorization { user: joe, password: s3cret }")
        .start();
    let plain = Server::start(NEWEST);
    let short = || Duration::from_millis(60);
    let attempts: [(&str, NatsOptions, Code); 5] = [
        ("refused", NatsOptions::new([&refused]), Code::Unavailable),
        (
            "silent",
            NatsOptions::new([&silent]).connect_timeout(short()),
            Code::Unavailable,
        ),
        (
            "unknown host",
            NatsOptions::new(["nats://no.such.host.invalid"]),
            Code::Unavailable,
        ),
        (
            "wrong password",
            NatsOptions::new([server.url()]).user_password("joe", "x"),
            Code::Unauthorized,
        ),
        (
            "no TLS",
            NatsOptions::new([plain.url()]).tls_required(true),
            Code::Unsupported,
        ),
    ];
    let before = holdings();
    for (what, options, code) in &attempts {
        for _ in 0..5 {
            let deadline = Instant::now() + Duration::from_millis(200);
            let error = NatsStore::connect(options.clone(), deadline).expect_err(what);
            assert_eq!(error.code(), *code, "{what}: {error}");
        }
        assert_eq!(holdings(), before, "{what}");
    }
}

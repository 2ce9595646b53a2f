//! What the NATS store leaves behind in its process: nothing.

use std::thread;
use std::time::{Duration, Instant};

use divvy::store::nats::abandoned_connections;
use divvy::store::{Bucket, Store};

use crate::alone;
use crate::support::faults::{BUCKET, FOR_EVER, Reader, connect, put, soon};
use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::Server;
use crate::support::tasks::tasks;
use crate::support::usage::usage;

/// Threads and file descriptors of this process.
fn holdings() -> (usize, usize) {
    let usage = usage();
    (usage.threads, usage.descriptors)
}

/// The names of the store's threads, sorted.
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

    // However much is watched, threads as an operator sees them: the session's, the one that
    // calls the client crate, and the crate's own two, which have its name.
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
    let expected = ["dv-nats", "dv-nats-io", "dv-nats-io", "dv-nats-io"];
    while names() != expected {
        // The thread of a listing ends right after what it has found was told.
        assert!(Instant::now() < deadline, "{:?}", names());
        thread::sleep(Duration::from_millis(1));
    }

    // A hang: the connection is abandoned, replaced after the heal, and gone soon after.
    server.pause();
    let deadline = Instant::now() + Duration::from_secs(4);
    while abandoned_connections() == 0 {
        assert!(Instant::now() < deadline, "the hang goes unnoticed");
        thread::sleep(Duration::from_millis(10));
    }
    server.resume();
    let healed = Instant::now();
    while abandoned_connections() > 0 {
        assert!(
            healed.elapsed() < Duration::from_secs(10),
            "an abandoned connection stays"
        );
        thread::sleep(Duration::from_millis(5));
    }
    println!(
        "abandoned connections gone {:?} after the heal",
        healed.elapsed()
    );
    drop(watches);
    store.stop(soon()).unwrap();
    drop(store);
    assert_eq!(holdings(), before);
}

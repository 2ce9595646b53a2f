//! What the NATS store leaves behind in its process: nothing. One test, for it counts everything
//! that the process has.
#![cfg(all(feature = "nats", target_os = "linux"))]

mod support;

use std::thread;
use std::time::{Duration, Instant};

use divvy::store::Store;
use divvy::store::nats::abandoned_connections;
use support::faults::{BUCKET, FOR_EVER, Reader, connect, put, soon};
use support::nats_binary::NEWEST;
use support::nats_server::Server;

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).expect("procfs").count()
}

/// Threads and file descriptors of this process.
fn holdings() -> (usize, usize) {
    (entries("/proc/self/task"), entries("/proc/self/fd"))
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let words = line.expect("a size").split_whitespace();
    words.flat_map(str::parse).next().expect("a number")
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
fn threads_descriptors_and_memory_stay_flat_through_cycles_and_hangs() {
    let server = Server::start(NEWEST);
    for _ in 0..20 {
        cycle(&server);
    }
    let (before, resident) = (holdings(), resident_kb());
    for _ in 0..200 {
        cycle(&server);
    }
    assert_eq!(holdings(), before);
    let grown = resident_kb().saturating_sub(resident);
    println!("200 cycles: {before:?} threads and descriptors, {grown} kB more");
    assert!(grown < 4_096, "{grown} kB");

    // Names of threads, as an operator sees them.
    let store = connect(&server.url());
    store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
    let watch = store.watch(BUCKET, "").unwrap();
    assert!(Reader::default().until_live(&watch, Duration::from_secs(10)));
    for name in ["dv-nats", "dv-nats-io", "dv-nats-recv", "dv-nats-watch"] {
        let named = std::fs::read_dir("/proc/self/task").unwrap().any(|task| {
            let comm = task.unwrap().path().join("comm");
            std::fs::read_to_string(comm).is_ok_and(|comm| comm.trim_end() == name)
        });
        assert!(named, "{name}");
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
    drop(watch);
    store.stop(soon()).unwrap();
    drop(store);
    assert_eq!(holdings(), before);
}

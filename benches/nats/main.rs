//! The cost of publishing and watching on a real NATS server, compared with a raw client that sends
//! the same messages to the same server in the same run.
//!
//! `make bench-nats`. The server is a single `nats-server` 2.15 with file storage.

#[path = "../../tests/support/mod.rs"]
mod support;

mod publish;
mod raw;
mod steady;

use std::time::{Duration, Instant};

use divvy::config::PublishMode::{Atomic, PerKey};
use support::nats_binary::NEWEST;
use support::nats_server::{Server, Setup};

/// The limits of the figures.
const RATIO_MAX: f64 = 1.5;
/// The predecessor must take at least this many times as long as divvy.
const PREDECESSOR_MIN: f64 = 5.0;
const MEMORY_MAX_MB: f64 = 15.0;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[1..] {
        ["beat", port, workers] => steady::beat(port, workers),
        ["remember", port] => steady::remember(port),
        ["publication"] => publication(""),
        ["publication", kind] => publication(kind),
        ["steady"] => steady(),
        _ => {
            publication("");
            steady();
        }
    }
}

/// The deadline of the whole run.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Returns the results whose name contains `kind`.
fn publication(kind: &str) {
    println!(
        "nats-server {NEWEST}, load average {}",
        std::fs::read_to_string("/proc/loadavg")
            .unwrap_or_default()
            .trim_end()
    );
    println!(
        "\n| publish, median (least) of n | divvy ms | raw ms | ratio | target | one put \
         after the other, ms | times divvy's | target |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |"
    );
    let on_disk = Server::start(NEWEST);
    // A server of version 2.15 waits for its disk five times per batch, however small.
    let in_memory = Setup::new(NEWEST).files_in_memory().start();
    for (what, workers, server, class, rounds) in [
        ("999 assignments, atomic", 999, &on_disk, Atomic, 31),
        ("999 assignments, per key", 999, &on_disk, PerKey, 15),
        ("64 assignments, atomic", 64, &on_disk, Atomic, 51),
        ("64, files in memory", 64, &in_memory, Atomic, 51),
        ("200 assignments, atomic", 200, &on_disk, Atomic, 51),
        ("200, files in memory", 200, &in_memory, Atomic, 51),
        ("10 000 assignments, atomic", 10_000, &on_disk, Atomic, 5),
    ] {
        let name = format!("{what} ({rounds})");
        if !name.contains(kind) {
            continue;
        }
        publish::measure(server, workers, class, rounds).print(&name);
    }
}

fn steady() {
    println!(
        "\n| workers, beating every 2 s | leader CPU % | target | server CPU added % | target | \
         listings | API calls | dv-calc wake-ups | \n\
         | --- | --- | --- | --- | --- | --- | --- | --- |"
    );
    let threads = [
        (1_000, steady::measure(1_000, 1.0, "<= 2")),
        (200, steady::measure(200, 0.3, "")),
    ];
    for (workers, threads) in threads {
        println!(
            "\n| thread, {workers} workers | CPU % | wake-ups a second |\n| --- | --- | --- |"
        );
        threads.print();
    }
    let memory = steady::memory();
    println!(
        "\nleader with 1 000 workers x 10 000 partitions: {memory:.1} MB over the bare process \
         (target <= {MEMORY_MAX_MB})"
    );
}

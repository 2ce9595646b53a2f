//! Runs a small fleet through joins, leaves, a crash and a change of leader while it serves its
//! metrics: `cargo run --features metrics --example metrics -- 127.0.0.1:9464`.
//!
//! All workers of this process record into one registry, each under its own label.
//! `docs/dashboard.py` draws the dashboard from it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use divvy::metrics::Prometheus;
use divvy::store::memory::MemoryStore;
use divvy::{Departure, Manager, ManagerConfig, Partition, Result};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> ManagerConfig {
    let mut config = ManagerConfig::default();
    config.heartbeat_interval = SECOND / 2;
    config.worker_id_ttl = 6 * SECOND;
    config.election_timeout = 2 * SECOND;
    config.calculator.heartbeat_ttl = 2 * SECOND;
    config.calculator.emergency_grace_period = SECOND;
    config.calculator.cold_start_window = 3 * SECOND;
    config.calculator.planned_scale_window = 2 * SECOND;
    config.calculator.cooldown = SECOND;
    config
}

/// A worker that has joined the fleet.
fn join(store: &MemoryStore, registry: &prometheus::Registry, name: &str) -> Result<Manager> {
    let metrics = Prometheus::builder()
        .registry(registry)
        .label("instance", name)
        .with_manager()
        .build()?;
    let tools = |n: u32| Partition::new([format!("tool{n:03}")], i64::from(n % 7) + 1);
    let manager = Manager::builder(Arc::new(store.client(name)))
        .config(config())
        .source(move || Ok((0..60).map(tools).collect()))
        .metrics(Arc::new(metrics))
        .build()?;
    manager.start(30 * SECOND)?;
    println!("{name} has joined as {:?}", manager.worker_id());
    Ok(manager)
}

/// Answers every request with the metrics page.
fn answer(mut stream: TcpStream, registry: &prometheus::Registry) -> std::io::Result<()> {
    let mut request = [0; 4_096];
    let _ = stream.read(&mut request)?;
    let mut page = String::new();
    let encoder = prometheus::TextEncoder::new();
    encoder
        .encode_utf8(&registry.gather(), &mut page)
        .map_err(std::io::Error::other)?;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{page}",
        page.len()
    )
}

fn main() -> Result<()> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:9464");
    let listener = TcpListener::bind(address).expect("an address to listen at");
    let registry = prometheus::Registry::new();
    let scraped = registry.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Err(error) = answer(stream, &scraped) {
                eprintln!("a scrape failed: {error}");
            }
        }
    });
    println!("http://{address}/metrics");
    sleep(5 * SECOND);

    let store = MemoryStore::new();
    let mut fleet = Vec::new();
    for name in ["a", "b", "c"] {
        fleet.push(join(&store, &registry, name)?);
    }
    sleep(15 * SECOND);
    for name in ["d", "e"] {
        fleet.push(join(&store, &registry, name)?);
    }
    sleep(15 * SECOND);
    println!("e leaves");
    fleet
        .pop()
        .map_or(Ok(()), |e| e.stop(Departure::Leave, 10 * SECOND))?;
    sleep(12 * SECOND);
    println!("d crashes");
    fleet
        .pop()
        .map_or(Ok(()), |d| d.stop(Departure::Restart, 10 * SECOND))?;
    sleep(15 * SECOND);
    let leader = fleet.iter().position(Manager::is_leader).unwrap_or(0);
    println!("the leader hands over");
    fleet.remove(leader).stop(Departure::Leave, 10 * SECOND)?;
    sleep(12 * SECOND);
    fleet.push(join(&store, &registry, "f")?);
    sleep(12 * SECOND);
    for manager in fleet {
        manager.stop(Departure::Leave, 10 * SECOND)?;
    }
    Ok(())
}

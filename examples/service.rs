//! A complete worker service: it joins a fleet, works on the partitions that it is assigned, serves
//! health checks and metrics over HTTP, keeps working while the NATS server restarts, and leaves on
//! SIGINT or SIGTERM.
//!
//! ```text
//! cargo run --features cli,metrics --example service
//! DIVVY_NATS_URL=nats://nats.internal:4222 LISTEN=0.0.0.0:8080 cargo run …
//! ```
//!
//! Every setting can be given as an environment variable: `heartbeat_ttl` is `DIVVY_HEARTBEAT_TTL`.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use divvy::connect_nats;
use divvy::metrics::Prometheus;
use divvy::{
    AssignmentChange, Departure, Manager, ManagerEvent, ManagerEventFilter, Partition, Settings,
};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The work of this process: one entry per partition that it is working on.
#[derive(Clone, Default)]
struct Tools(Arc<Mutex<BTreeSet<String>>>);

impl Tools {
    /// Stops what was removed first, then starts what was added.
    fn apply(&self, change: &AssignmentChange) {
        let mut working = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for partition in &change.removed {
            working.remove(&partition.subject());
            println!("stop {}", partition.subject());
        }
        for partition in &change.added {
            working.insert(partition.subject());
            println!("start {}", partition.subject());
        }
    }

    /// The partitions of the fleet. Every worker needs the same list, because each may lead.
    fn all() -> divvy::Result<Vec<Partition>> {
        Ok((0..12)
            .map(|n| Partition::new([format!("tool{n:03}")], 100))
            .collect())
    }
}

fn settings() -> Outcome<Settings> {
    let mut settings = Settings::new();
    settings.set("nats_url", "nats://127.0.0.1:4222")?;
    settings.set("fleet", "tools")?;
    let variables: Vec<(String, String)> = std::env::vars().collect();
    settings.merge_env(
        "DIVVY_",
        variables.iter().map(|(n, v)| (n.as_str(), v.as_str())),
    )?;
    Ok(settings)
}

fn main() -> Outcome<()> {
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stopping))?;
    }

    let settings = settings()?;
    let store = connect_nats(&settings, Instant::now() + Duration::from_secs(10))?;
    let metrics = Arc::new(Prometheus::builder().with_manager().build()?);
    let manager = Manager::builder(store)
        .config(settings.manager())
        .source(Tools::all)
        .metrics(Arc::clone(&metrics))
        .build()?;

    let tools = Tools::default();
    let working = tools.clone();
    let subscription = manager.subscribe(ManagerEventFilter::Assignment, move |event| {
        if let ManagerEvent::AssignmentChanged(change) = event {
            working.apply(change);
        }
    });
    manager.start(Duration::from_secs(30))?;
    println!(
        "joined as {}",
        manager.worker_id().expect("a started worker has an id")
    );

    let address = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let listener = TcpListener::bind(&address)?;
    listener.set_nonblocking(true)?;
    while !stopping.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => answer(stream, &manager, &metrics).unwrap_or_else(|error| {
                eprintln!("http request failed: {error}");
            }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(error.into()),
        }
    }

    println!("stopping");
    // Use Departure::Restart when the process comes back at once: its partitions then stay in place.
    manager.stop(Departure::Leave, Duration::from_secs(10))?;
    drop(subscription);
    Ok(())
}

/// `/livez`: the library works. `/readyz`: this worker serves an assignment. `/metrics`: Prometheus.
fn answer(mut stream: TcpStream, manager: &Manager, metrics: &Prometheus) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut request = [0; 1024];
    let length = stream.read(&mut request)?;
    let request = String::from_utf8_lossy(&request[..length]);
    let check = |ok: bool| match ok {
        true => ("200 OK", "ok\n".to_owned()),
        false => ("503 Service Unavailable", "not ready\n".to_owned()),
    };
    let (status, body) = match request.split(' ').nth(1) {
        Some("/livez") => check(manager.is_live()),
        Some("/readyz") => check(manager.is_ready()),
        Some("/metrics") => ("200 OK", metrics.render()),
        _ => ("404 Not Found", "not found\n".to_owned()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

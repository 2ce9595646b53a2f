//! The resources and reaction times of a manager on a real server with the default timing.
//!
//! `make figures-manager`. Each figure is printed with the limit that the configuration implies at
//! that moment, given the age of the last heartbeat and of the lease.

#[path = "../../tests/support/mod.rs"]
mod support;
#[path = "../../tests/support/worker_process.rs"]
mod worker_process;

mod costs;
mod eye;
mod times;

use std::sync::Arc;
use std::time::{Duration, Instant};

use divvy::store::ManageBuckets;
use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::{Manager, ManagerConfig, Partition};

/// The partitions of all fleets.
const PARTITIONS: usize = 60;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["bare"] => costs::bare(),
        ["embedded", url, lead] => costs::embedded(url, lead == "lead"),
        _ => report(&arguments),
    }
}

fn report(arguments: &[&str]) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "nats-server {}, load average {}",
        support::nats_binary::NEWEST,
        load.trim_end()
    );
    let is_wanted = |name| {
        !arguments.iter().any(|a| ["times", "costs"].contains(a)) || arguments.contains(&name)
    };
    if is_wanted("times") {
        times::report();
    }
    if is_wanted("costs") {
        costs::report();
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn connect(url: &str) -> Arc<NatsStore> {
    let options = NatsOptions::new([url]).manage_buckets(ManageBuckets::Upgrade);
    Arc::new(NatsStore::connect(options, soon()).expect("a connection"))
}

/// A manager with the default leases, and the short windows of the worker processes.
fn manager(store: &Arc<NatsStore>, may_lead: bool) -> Manager {
    let mut config = ManagerConfig::default();
    config.may_lead = may_lead;
    config.calculator.cold_start_window = Duration::from_millis(1_500);
    config.calculator.planned_scale_window = Duration::from_millis(500);
    config.calculator.cooldown = Duration::from_millis(500);
    config.calculator.leave_window = Duration::from_millis(50);
    let partitions =
        || (0..PARTITIONS).map(|n| Partition::new(["partition".into(), format!("{n:07}")], 0));
    Manager::builder(Arc::clone(store) as _)
        .config(config)
        .source(move || Ok(partitions().collect()))
        .build()
        .expect("a manager")
}

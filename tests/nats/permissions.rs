//! The permissions in the book suffice for workers: no request is denied.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::{Departure, Manager, ManagerConfig, Partition};

use crate::support::nats_binary::{NEWEST, OLDEST};
use crate::support::nats_server::Setup;

const TIMEOUT: Duration = Duration::from_secs(30);

/// The configuration block of `docs/nats.md`.
fn documented() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/nats.md");
    let text = std::fs::read_to_string(page).unwrap();
    let marked = text
        .split_once("<!-- permissions -->")
        .expect("the marked block")
        .1;
    let block = marked.split_once("```text\n").unwrap().1;
    block.split_once("```").unwrap().0.to_owned()
}

fn worker(url: &str) -> Manager {
    let options = NatsOptions::new([url]).user_password("worker", "secret");
    let store = NatsStore::connect(options, Instant::now() + TIMEOUT).unwrap();
    let mut config = ManagerConfig::default();
    config.calculator.cold_start_window = Duration::from_millis(200);
    config.calculator.planned_scale_window = Duration::from_millis(200);
    config.calculator.cooldown = Duration::from_millis(100);
    let manager = Manager::builder(Arc::new(store))
        .config(config)
        .source(|| {
            Ok((0..6)
                .map(|n| Partition::new([format!("tool{n}")], 1))
                .collect())
        })
        .build()
        .unwrap();
    manager.start(TIMEOUT).unwrap();
    manager
}

fn wait_for_partitions(manager: &Manager, count: usize) {
    let limit = Instant::now() + TIMEOUT;
    while manager.assignment().partitions.len() != count {
        assert!(Instant::now() < limit, "{:?}", manager.status());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn documented_permissions_suffice_for_workers() {
    for version in [OLDEST, NEWEST] {
        let users = format!(
            "authorization {{ users: [ {{ user: worker, password: secret, {} }} ] }}",
            documented()
        );
        let server = Setup::new(version).config(&users).start();
        let first = worker(&server.url());
        wait_for_partitions(&first, 6);
        let second = worker(&server.url());
        wait_for_partitions(&first, 3);
        wait_for_partitions(&second, 3);
        first.trigger_rebalance(TIMEOUT).unwrap();
        first.stop(Departure::Leave, TIMEOUT).unwrap();
        wait_for_partitions(&second, 6);
        second.stop(Departure::Leave, TIMEOUT).unwrap();
        let log = server.log();
        assert!(!log.contains("Violation"), "{version}: {log}");
    }
}

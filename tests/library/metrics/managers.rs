//! Managers whose metrics are read while they run.

use std::sync::Arc;
use std::time::Duration;

use divvy::metrics::Prometheus;
use divvy::store::memory::MemoryStore;
use divvy::{Departure, Manager, ManagerConfig};

use super::page::Page;
use crate::support::calculators::{TIMEOUT, config, partitions, wait_until};

fn manager(store: &MemoryStore, name: &str, metrics: &Arc<Prometheus>) -> Manager {
    let mut manager = ManagerConfig::default();
    manager.calculator = config();
    manager.calculator.emergency_grace_period = Duration::from_millis(300);
    // Long enough that no worker is suspected while other tests run.
    manager.calculator.heartbeat_ttl = Duration::from_secs(3);
    manager.calculator.cold_start_window = Duration::from_millis(100);
    manager.heartbeat_interval = Duration::from_millis(100);
    manager.worker_id_ttl = Duration::from_secs(4);
    Manager::builder(Arc::new(store.client(name)))
        .config(manager)
        .source(|| Ok(partitions(10)))
        .metrics(Arc::clone(metrics))
        .build()
        .unwrap()
}

fn recorder() -> Arc<Prometheus> {
    Arc::new(Prometheus::builder().with_manager().build().unwrap())
}

#[test]
fn manager_lifecycle_appears_in_its_series_and_its_calculators() {
    let store = MemoryStore::new();
    let (one, other) = (recorder(), recorder());
    let page = |metrics: &Prometheus| Page::read(&metrics.render());
    let leader = manager(&store, "one", &one);
    leader.start(TIMEOUT).unwrap();
    wait_until("one leads", || leader.is_leader());
    let follower = manager(&store, "other", &other);
    follower.start(TIMEOUT).unwrap();
    wait_until("both hold their share", || {
        leader.assignment().partitions.len() == 5 && follower.assignment().partitions.len() == 5
    });
    let worker = |metrics: &Prometheus| {
        let page = page(metrics);
        page.assert_consistent();
        let claimed = page.sum("divvy_manager_id_claims_total", &["claimed"]);
        assert_eq!(claimed, 1.0);
        assert!(page.sum("divvy_worker_heartbeats_total", &["success"]) >= 1.0);
        let applied = page.sum("divvy_worker_applied_version", &[]);
        assert!(applied >= 1.0);
        assert_eq!(page.sum("divvy_worker_seen_version", &[]), applied);
        assert!(page.sum("divvy_worker_apply_duration_seconds_count", &[]) >= 1.0);
        let held = page.sum("divvy_worker_partitions_added_total", &[])
            - page.sum("divvy_worker_partitions_removed_total", &[]);
        assert_eq!(held, 5.0);
        assert!(page.sum("divvy_store_calls_total", &["\"write\"", "done"]) >= 1.0);
        assert!(page.sum("divvy_manager_state", &[]) >= 1.0);
        page
    };
    wait_until("the applied version is reported", || {
        [&one, &other].into_iter().all(|metrics| {
            let page = page(metrics);
            let added = page.sum("divvy_worker_partitions_added_total", &[]);
            added - page.sum("divvy_worker_partitions_removed_total", &[]) == 5.0
        })
    });
    let (leading, following) = (worker(&one), worker(&other));
    assert_eq!(leading.sum("divvy_manager_is_leader", &[]), 1.0);
    assert_eq!(leading.sum("divvy_calculator_up", &[]), 1.0);
    assert_eq!(leading.sum("divvy_plan_workers", &[]), 2.0);
    assert_eq!(following.sum("divvy_manager_is_leader", &[]), 0.0);
    assert_eq!(following.sum("divvy_calculator_up", &[]), 0.0);
    wait_until("every worker receives the publication", || {
        let page = page(&one);
        page.sum("divvy_convergence_seconds_count", &[]) >= 1.0
            && page.sum("divvy_workers_lag_versions", &[]) == 0.0
    });
    wait_until("the claim is renewed", || {
        page(&other).sum("divvy_manager_id_claims_total", &["renewed"]) >= 1.0
    });

    leader.stop(Departure::Leave, TIMEOUT).unwrap();
    let left = page(&one);
    assert_eq!(left.sum("divvy_manager_is_leader", &[]), 0.0);
    assert_eq!(left.sum("divvy_calculator_up", &[]), 0.0);
    let changes = "divvy_manager_leadership_changes_total";
    assert_eq!(left.sum(changes, &["gained"]), 1.0);
    assert_eq!(left.sum(changes, &["released"]), 1.0);
    assert_eq!(left.sum(changes, &["lost"]), 0.0);
    assert_eq!(left.sum("divvy_manager_state", &["Shutdown"]), 1.0);
    wait_until("the other one leads", || {
        page(&other).sum(changes, &["gained"]) == 1.0
    });
    follower.stop(Departure::Leave, TIMEOUT).unwrap();
}

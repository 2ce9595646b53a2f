//! Real calculators whose metrics are read while they run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use divvy::metrics::Prometheus;
use divvy::store::memory::MemoryStore;
use divvy::store::{Bucket, BucketConfig, Store};
use divvy::{Calculator, CalculatorEvent, EventFilter};

use super::page::Page;
use crate::support::calculators::{
    Fleet, TIMEOUT, beat, config, partitions, soon, started, store, wait_for, wait_for_publication,
    wait_for_rest, wait_until,
};

pub fn recorder() -> Arc<Prometheus> {
    Arc::new(Prometheus::builder().build().unwrap())
}

pub fn calculator(store: &MemoryStore, metrics: &Arc<Prometheus>) -> Calculator {
    Calculator::builder(Arc::new(store.client("leader")))
        .config(config())
        .source(|| Ok(partitions(10)))
        .metrics(Arc::clone(metrics))
        .build()
        .unwrap()
}

/// Runs a fleet that starts, grows, shrinks, loses a worker, and whose leader stops. Returns its
/// last page while it ran.
pub fn eventful_life(metrics: &Arc<Prometheus>) -> Page {
    let store = store();
    let calculator = calculator(&store, metrics);
    let _subscription = calculator.subscribe(EventFilter::StateAndMembers, |_| {});
    let events = calculator.events(EventFilter::State);
    let published = |reason| {
        wait_for(
            &events,
            reason,
            |notice| matches!(notice, CalculatorEvent::Published { reason: why, .. } if why.name() == reason),
        );
    };
    calculator.start(TIMEOUT).unwrap();
    let fleet = Fleet::new(&store, ["w-0", "w-1", "w-2"]);
    published("cold_start");
    fleet.join("w-3");
    published("planned_scale");
    fleet.leave("w-0");
    published("planned_scale");
    fleet.crash("w-1");
    published("emergency");
    calculator.trigger_rebalance(TIMEOUT).unwrap();
    calculator.refresh(TIMEOUT).unwrap();
    wait_for_rest(&calculator);
    let page = Page::read(&metrics.render());
    calculator.stop(TIMEOUT).unwrap();
    page
}

#[test]
fn eventful_run_appears_in_every_related_series() {
    let metrics = recorder();
    let page = eventful_life(&metrics);
    page.assert_consistent();
    let at_least = |least: f64, name: &str, labels: &[&str]| {
        let found = page.sum(name, labels);
        assert!(found >= least, "{name} {labels:?}: {found}, not {least}");
    };
    at_least(1.0, "divvy_build_info", &["version="]);
    at_least(1.0, "divvy_calculator_up", &[]);
    at_least(1.0, "divvy_calculator_state", &["state=\"Idle\""]);
    at_least(
        1.0,
        "divvy_state_transitions_total",
        &["from=\"Idle\"", "to=\"Scaling\""],
    );
    at_least(0.01, "divvy_state_seconds_total", &["state=\"Scaling\""]);
    at_least(1.0, "divvy_jobs_total", &["job=\"take_over\"", "success"]);
    at_least(4.0, "divvy_jobs_total", &["job=\"publish\"", "success"]);
    at_least(1.0, "divvy_jobs_total", &["job=\"inspect\"", "success"]);
    for reason in ["cold_start", "planned_scale", "emergency", "manual-refresh"] {
        let reason = format!("reason=\"{reason}\"");
        at_least(1.0, "divvy_rebalances_total", &[&reason, "success"]);
        at_least(1.0, "divvy_rebalance_duration_seconds_count", &[&reason]);
    }
    for step in ["list", "compute", "publish"] {
        let step = format!("step=\"{step}\"");
        at_least(4.0, "divvy_rebalance_step_duration_seconds_count", &[&step]);
    }
    for change in ["joined", "left", "suspected", "dead"] {
        let change = format!("change=\"{change}\"");
        at_least(1.0, "divvy_worker_changes_total", &[&change]);
    }
    at_least(1.0, "divvy_leases_ended_total", &[]);
    assert_eq!(page.sum("divvy_workers_alive", &[]), 2.0);
    assert_eq!(page.sum("divvy_workers_missing", &[]), 0.0);
    assert_eq!(page.sum("divvy_partitions_unassigned", &[]), 0.0);
    // These workers do not report the applied version.
    for name in [
        "divvy_workers_lagging",
        "divvy_workers_lag_versions",
        "divvy_workers_config_mismatched",
        "divvy_list_held_lost_partitions",
        "divvy_convergence_seconds_count",
    ] {
        assert_eq!(page.sum(name, &[]), 0.0, "{name}");
    }
    assert_eq!(page.sum("divvy_plan_workers", &[]), 2.0);
    assert_eq!(page.sum("divvy_plan_partitions", &[]), 10.0);
    at_least(1.0, "divvy_plan_max_to_mean_ratio", &[]);
    at_least(1.0, "divvy_partitions_moved_total", &[]);
    at_least(1.0, "divvy_assignment_term", &[]);
    at_least(4.0, "divvy_assignment_version", &[]);
    at_least(4.0, "divvy_publications_total", &["mode=\"atomic\""]);
    at_least(1.0, "divvy_publish_mode", &["mode=\"atomic\""]);
    for watch in ["heartbeats", "assignments"] {
        let watch = format!("watch=\"{watch}\"");
        at_least(1.0, "divvy_watch_resyncs_total", &[&watch]);
    }
    at_least(10.0, "divvy_callback_duration_seconds_count", &[]);
    assert_eq!(page.sum("divvy_subscribers", &[]), 2.0);
    for operation in ["read", "list", "write_batch", "ensure", "capabilities"] {
        let operation = format!("operation=\"{operation}\"");
        at_least(1.0, "divvy_store_calls_total", &[&operation, "done"]);
        at_least(
            1.0,
            "divvy_store_call_duration_seconds_count",
            &[&operation],
        );
    }
    let after = Page::read(&metrics.render());
    assert_eq!(after.sum("divvy_calculator_up", &[]), 0.0);
}

#[test]
fn counters_never_decrease_across_restarts_and_successors() {
    let metrics = recorder();
    let mut before: BTreeMap<String, f64> = BTreeMap::new();
    let mut check = || {
        let page = Page::read(&metrics.render());
        for (series, value) in page.rising() {
            let former = before.insert(series.clone(), value).unwrap_or(0.0);
            assert!(value >= former, "{series} fell from {former} to {value}");
        }
        page.sum("divvy_rebalances_total", &["success"])
    };
    let store = store();
    let _fleet = Fleet::new(&store, ["w-0", "w-1"]);
    for _handle in 0..2 {
        let calculator = calculator(&store, &metrics);
        for _life in 0..3 {
            calculator.start(TIMEOUT).unwrap();
            check();
            calculator.trigger_rebalance(TIMEOUT).unwrap();
            check();
            calculator.stop(TIMEOUT).unwrap();
            check();
        }
    }
    assert!(check() >= 6.0);
}

#[test]
fn two_handles_in_one_process_do_not_collide() {
    let (one, other) = (recorder(), recorder());
    let stores = [store(), store()];
    let calculators = [calculator(&stores[0], &one), calculator(&stores[1], &other)];
    let _fleet = Fleet::new(&stores[0], ["w-0"]);
    calculators[0].start(TIMEOUT).unwrap();
    wait_until("one has published", || calculators[0].current_version() > 0);
    let version =
        |metrics: &Prometheus| Page::read(&metrics.render()).sum("divvy_publications_total", &[]);
    wait_until("it shows", || version(&one) > 0.0);
    assert_eq!(version(&other), 0.0);
}

#[test]
fn recorders_share_registry_by_their_labels_and_leave_nothing_in_it() {
    let registry = prometheus::Registry::new();
    let builder = || Prometheus::builder().registry(&registry);
    let one = builder().label("calculator", "one").build().unwrap();
    let other = builder().label("calculator", "other").build().unwrap();
    let page = Page::read(&one.render());
    for label in ["calculator=\"one\"", "calculator=\"other\""] {
        assert_eq!(page.sum("divvy_build_info", &[label]), 1.0);
    }
    let before = page.series.len();
    let error = builder().label("calculator", "one").build().unwrap_err();
    assert_eq!(error.code(), divvy::error::Code::InvalidConfig, "{error}");
    let error = builder().parti_names().label("calculator", "one");
    error.build().unwrap_err();
    assert_eq!(Page::read(&other.render()).series.len(), before);
    drop(one);
    let page = Page::read(&other.render());
    assert_eq!(page.series.len() * 2, before);
    drop(other);
    assert!(registry.gather().is_empty());
}

#[test]
fn invalid_prometheus_namespace_and_labels_are_rejected() {
    for builder in [
        Prometheus::builder().namespace("no spaces"),
        Prometheus::builder().label("bad-name", "x"),
        Prometheus::builder().label("", "x"),
        Prometheus::builder()
            .label("twice", "x")
            .label("twice", "y"),
        Prometheus::builder().label("state", "clashes"),
        Prometheus::builder().label("version", "clashes"),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.code(), divvy::error::Code::InvalidConfig, "{error}");
    }
}

#[test]
fn parti_metric_names_are_exported_alongside_others_on_request() {
    let metrics = Arc::new(Prometheus::builder().parti_names().build().unwrap());
    let page = eventful_life(&metrics);
    assert_eq!(page.sum("calculator_active_workers", &[]), 2.0);
    assert_eq!(
        page.sum("calculator_rebalance_duration_seconds_count", &[]),
        page.sum("divvy_rebalance_duration_seconds_count", &[])
    );
    for name in [
        "calculator_rebalance_failures_total",
        "calculator_dropped_state_changes_total",
    ] {
        assert_eq!(page.sum(name, &[]), 0.0);
        assert!(page.families.contains_key(name));
    }
}

#[test]
fn thousand_scrapes_during_rebalances_are_consistent_and_stall_nothing() {
    let metrics = recorder();
    let store = store();
    let calculator = calculator(&store, &metrics);
    let _subscription = calculator.subscribe(EventFilter::StateAndMembers, |_| {});
    let _fleet = Fleet::new(&store, ["w-0", "w-1", "w-2", "w-3", "w-4"]);
    calculator.start(TIMEOUT).unwrap();
    let is_over = AtomicBool::new(false);
    let rebalances = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut count = 0;
            while !is_over.load(Ordering::Acquire) {
                calculator.trigger_rebalance(TIMEOUT).unwrap();
                count += 1;
            }
            count
        });
        let scrapers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..500 {
                        Page::read(&metrics.render()).assert_consistent();
                    }
                })
            })
            .collect();
        let results: Vec<_> = scrapers.into_iter().map(|s| s.join()).collect();
        is_over.store(true, Ordering::Release);
        assert!(results.iter().all(Result::is_ok), "a scrape failed");
        publisher.join().unwrap()
    });
    assert!(
        rebalances > 10,
        "{rebalances} rebalances during 1 000 scrapes"
    );
    wait_for_rest(&calculator);
    let page = Page::read(&metrics.render());
    assert!(page.sum("divvy_rebalances_total", &["success"]) >= f64::from(rebalances));
    calculator.stop(TIMEOUT).unwrap();
}

#[test]
fn ten_thousand_workers_have_no_more_series_than_three() {
    let ttl = Duration::from_secs(120);
    let series = |workers: usize| {
        let metrics = recorder();
        let store = MemoryStore::new();
        let heartbeats = BucketConfig { ttl: Some(ttl) };
        store.ensure(Bucket::Heartbeat, heartbeats, soon()).unwrap();
        for worker in 0..workers {
            beat(&store, &format!("w-{worker}"));
        }
        let mut config = config();
        config.heartbeat_ttl = ttl;
        let calculator = Calculator::builder(Arc::new(store.client("leader")))
            .config(config)
            .source(|| Ok(partitions(10)))
            .metrics(Arc::clone(&metrics))
            .build()
            .unwrap();
        let events = started(&calculator);
        wait_for_publication(&events);
        let page = Page::read(&metrics.render());
        assert!(page.sum("divvy_plan_workers", &[]) == workers as f64);
        page.series.len()
    };
    let few = series(3);
    assert_eq!(series(10_000), few);
    assert!(few < 1_000, "{few} series");
}

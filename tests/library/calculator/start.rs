//! Starting: once, within the deadline, completely or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use divvy::config::PublishMode;
use divvy::error::Code;
use divvy::runtime::publish::publisher::ActiveMode;
use divvy::store::memory::{Blackout, Call, MemoryStore};
use divvy::store::{Bucket, BucketConfig, Store};
use divvy::{Calculator, CalculatorConfig, CalculatorEvent, CalculatorState, Cancel, EventFilter};

use crate::support::calculators::*;

#[test]
fn second_start_is_rejected_and_first_continues() {
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1"]);
    let calculator = calculator(&store);
    let events = started(&calculator);
    let error = calculator.start(TIMEOUT).unwrap_err();
    assert_eq!(error.code(), Code::AlreadyStarted, "{error}");
    assert!(calculator.is_started());
    wait_for_publication(&events);
}

#[test]
fn concurrent_starts_succeed_exactly_once() {
    let store = store();
    let calculator = Arc::new(calculator(&store));
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let calculator = Arc::clone(&calculator);
            std::thread::spawn(move || calculator.start(TIMEOUT).map_err(|e| e.code()))
        })
        .collect();
    let results: Vec<_> = starts.into_iter().map(|s| s.join().unwrap()).collect();
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    let refused = results.iter().filter(|r| **r == Err(Code::AlreadyStarted));
    assert_eq!(refused.count(), 7);
    calculator.stop(TIMEOUT).unwrap();
}

#[test]
fn stopped_calculator_starts_again_in_new_term() {
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1"]);
    let calculator = calculator(&store);
    let events = started(&calculator);
    let version = wait_for_publication(&events);
    calculator.stop(TIMEOUT).unwrap();
    assert_eq!(calculator.state(), CalculatorState::Idle);
    calculator.start(TIMEOUT).unwrap();
    assert!(calculator.trigger_rebalance(TIMEOUT).unwrap() > version);
    assert_eq!(calculator.status().term, 2);
    assert_eq!(all_held(&store, &["w-1"]), ids(10));
    calculator.stop(TIMEOUT).unwrap();
}

#[test]
fn calculator_start_without_store_fails_in_time_and_can_be_repeated() {
    for how in [Blackout::Refuse, Blackout::Hang] {
        let store = store();
        let leader = store.client("leader");
        let calculator = Calculator::builder(Arc::new(leader.clone()))
            .config(config())
            .source(|| Ok(partitions(1)))
            .build()
            .unwrap();
        leader.faults().blackout(how);
        let begun = Instant::now();
        let error = calculator.start(Duration::from_millis(150)).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(10), "{how:?}");
        let codes = [Code::Unavailable, Code::TimedOut];
        assert!(codes.contains(&error.code()), "{how:?}: {error}");
        assert!(error.to_string().contains("parti-heartbeat"), "{error}");
        assert!(!calculator.is_started());
        leader.faults().restore();
        calculator.start(TIMEOUT).unwrap();
        assert!(calculator.is_started());
    }
}

/// Symptom: a refresh cancelled beforehand occasionally failed with the error of the source. Cause:
/// the refresh was requested nevertheless, and its answer could arrive first.
#[test]
fn call_cancelled_before_it_begins_sends_nothing() {
    let store = store();
    let [calls, reads] = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
    let (called, counted) = (Arc::clone(&calls), Arc::clone(&reads));
    let hook = move |_| {
        called.fetch_add(1, Ordering::AcqRel);
        Ok(())
    };
    let inner = store.client("leader");
    let calculator = Calculator::builder(Arc::new(Hooked { inner, hook }))
        .config(config())
        .source(move || {
            counted.fetch_add(1, Ordering::AcqRel);
            Ok(partitions(1))
        })
        .build()
        .unwrap();
    let cancel = Cancel::new();
    cancel.fire();
    for _ in 0..20 {
        let error = cancel.run(|| calculator.start(TIMEOUT)).unwrap_err();
        assert_eq!(error.code(), Code::Cancelled, "{error}");
    }
    assert!(calls.load(Ordering::Acquire) == 0 && !calculator.is_started());
    calculator.start(TIMEOUT).unwrap();
    let error = calculator.refresh(TIMEOUT).unwrap_err();
    assert_eq!(error.code(), Code::NoWorkers, "{error}");
    let before = reads.load(Ordering::Acquire);
    for _ in 0..200 {
        let error = cancel.run(|| calculator.refresh(TIMEOUT)).unwrap_err();
        assert_eq!(error.code(), Code::Cancelled, "{error}");
        assert_eq!(error.operation(), Some("refresh"));
    }
    assert_eq!(reads.load(Ordering::Acquire), before);
}

#[test]
fn start_retries_until_store_is_up() {
    let store = store();
    let leader = store.client("leader");
    leader.faults().blackout(Blackout::Refuse);
    let tries = Arc::new(AtomicU32::new(0));
    let calculator = {
        let (tries, faults) = (Arc::clone(&tries), leader.faults());
        let hook = move |call| {
            if call == "ensure" && tries.fetch_add(1, Ordering::AcqRel) == 3 {
                faults.restore();
            }
            Ok(())
        };
        let inner = leader.clone();
        Calculator::builder(Arc::new(Hooked { inner, hook }))
            .config(config())
            .source(|| Ok(partitions(1)))
            .build()
            .unwrap()
    };
    calculator.start(TIMEOUT).unwrap();
    assert!(tries.load(Ordering::Acquire) > 3);
}

/// Symptom: a start failed if the store hung at first, although the store answered long before the
/// deadline. Cause: the first call used the whole time limit.
#[test]
fn start_survives_call_that_is_never_answered() {
    let store = store();
    let leader = store.client("leader");
    let mut config = config();
    config.operation_timeout = Duration::from_millis(50);
    let calculator = Calculator::builder(Arc::new(leader.clone()))
        .config(config)
        .source(|| Ok(partitions(1)))
        .build()
        .unwrap();
    leader.faults().blackout(Blackout::Hang);
    let begun = Instant::now();
    let faults = leader.faults();
    let healer = std::thread::spawn(move || {
        while begun.elapsed() < Duration::from_millis(120) {
            std::thread::yield_now();
        }
        faults.restore();
    });
    calculator.start(TIMEOUT).unwrap();
    assert!(begun.elapsed() < TIMEOUT / 2);
    healer.join().unwrap();
}

#[test]
fn assignment_bucket_with_ttl_is_rejected_by_name_unless_allowed() {
    let store = store();
    let ttl = Some(Duration::from_secs(60));
    store
        .ensure(Bucket::Assignment, BucketConfig { ttl }, soon())
        .unwrap();
    let error = calculator(&store).start(TIMEOUT).unwrap_err();
    assert_eq!(error.code(), Code::Unsupported);
    let text = error.to_string();
    assert!(text.contains(Bucket::Assignment.default_name()), "{text}");
    assert!(text.contains("allow_assignment_ttl"), "{text}");

    let mut config = config();
    config.allow_assignment_ttl = true;
    let calculator = Calculator::builder(Arc::new(store.client("leader")))
        .config(config)
        .source(|| Ok(partitions(1)))
        .build()
        .unwrap();
    calculator.start(TIMEOUT).unwrap();
}

#[test]
fn invalid_configuration_is_rejected_with_every_violation() {
    let mut config = CalculatorConfig::default();
    config.heartbeat_ttl = Duration::ZERO;
    config.restart_ratio = 7.0;
    let builder = Calculator::builder(Arc::new(MemoryStore::new())).config(config);
    let error = builder.build().unwrap_err();
    assert_eq!(error.code(), Code::InvalidConfig);
    let text = error.to_string();
    assert!(
        text.contains("heartbeat_ttl") && text.contains("restart_ratio"),
        "{text}"
    );
}

#[test]
fn start_interrupted_by_stop_reports_it() {
    let store = store();
    let leader = store.client("leader");
    let (gate, begun) = (Gate::shut(), Gate::open());
    let calculator = Arc::new({
        let (gate, begun) = (gate.clone(), begun.clone());
        hooked_calculator(&leader, move |call| {
            if call == "capabilities" {
                begun.pass();
                gate.pass();
            }
            Ok(())
        })
    });
    let starter = {
        let calculator = Arc::clone(&calculator);
        std::thread::spawn(move || calculator.start(TIMEOUT))
    };
    gate.wait_for_arrival();
    assert!(!calculator.is_started());
    let error = calculator.trigger_rebalance(TIMEOUT).unwrap_err();
    assert_eq!(error.code(), Code::NotRunning, "{error}");
    let error = calculator.stop(Duration::from_millis(20)).unwrap_err();
    assert_eq!(error.code(), Code::TimedOut, "{error}");
    assert!(
        error.to_string().contains("waiting for the store"),
        "{error}"
    );
    gate.release();
    calculator.stop(TIMEOUT).unwrap();
    let error = starter.join().unwrap().unwrap_err();
    assert_eq!(error.code(), Code::NotRunning, "{error}");
    assert!(!calculator.is_started());
    calculator.start(TIMEOUT).unwrap();
}

#[test]
fn failed_start_keeps_subscriptions_for_next_start() {
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1"]);
    let leader = store.client("leader");
    let calculator = Calculator::builder(Arc::new(leader.clone()))
        .config(config())
        .source(|| Ok(partitions(10)))
        .build()
        .unwrap();
    let events = calculator.events(EventFilter::State);
    let (sender, reported) = crossbeam_channel::unbounded();
    calculator
        .subscribe(EventFilter::State, move |notice| {
            let _ = sender.send(notice.clone());
        })
        .forever();
    leader.faults().blackout(Blackout::Refuse);
    calculator.start(Duration::from_millis(30)).unwrap_err();
    leader.faults().restore();
    calculator.start(TIMEOUT).unwrap();
    wait_for_publication(&events);
    let deadline = soon();
    while !matches!(
        reported.recv_deadline(deadline).expect("a publication"),
        CalculatorEvent::Published { .. }
    ) {}
}

#[test]
fn any_timeout_length_is_accepted() {
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1"]);
    let calculator = calculator(&store);
    let events = calculator.events(EventFilter::State);
    calculator.start(Duration::MAX).unwrap();
    assert!(events.recv_timeout(Duration::MAX).is_ok());
    wait_for_publication(&events);
    calculator.trigger_rebalance(Duration::MAX).unwrap();
    calculator
        .subscribe(EventFilter::State, |_| {})
        .unsubscribe(Duration::MAX)
        .unwrap();
    calculator.stop(Duration::MAX).unwrap();
}

#[test]
fn slow_but_answering_store_does_not_fail_start() {
    let store = store();
    let leader = store.client("leader");
    leader.faults().delay(&Call::ALL, Duration::from_millis(20));
    let calculator = Calculator::builder(Arc::new(leader))
        .config(config())
        .source(|| Ok(partitions(1)))
        .build()
        .unwrap();
    calculator.start(TIMEOUT).unwrap();
}

#[test]
fn status_shows_active_publish_mode_and_store_probe_result() {
    let named = format!("divvy memory store {}", env!("CARGO_PKG_VERSION"));
    for (store, class, batches) in [
        (store(), ActiveMode::Atomic, "atomic batches of up to 1000"),
        (store_b(), ActiveMode::PerKey, "no atomic batches"),
    ] {
        let calculator = calculator(&store);
        let before = calculator.status();
        assert_eq!((before.publish_mode, before.store.as_str()), (None, ""));
        calculator.start(TIMEOUT).unwrap();
        let status = calculator.status();
        assert_eq!(status.publish_mode, Some(class));
        assert_eq!(status.store, format!("{named}, {batches}"));
        calculator.stop(TIMEOUT).unwrap();
    }
}

#[test]
fn status_shows_forced_publish_mode_alongside_store_capabilities() {
    let mut config = config();
    config.publish_mode = PublishMode::PerKey;
    let calculator = Calculator::builder(Arc::new(store()))
        .config(config)
        .build()
        .unwrap();
    calculator.start(TIMEOUT).unwrap();
    let status = calculator.status();
    assert_eq!(status.publish_mode, Some(ActiveMode::PerKey));
    assert!(
        status.store.ends_with("atomic batches of up to 1000"),
        "{}",
        status.store
    );
    calculator.stop(TIMEOUT).unwrap();
}

//! Liveness: cheap heartbeats, leaves, crashes, restarts, lost watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use divvy::error::Code;
use divvy::store::memory::Blackout;
use divvy::{Calculator, CalculatorEvent, DegradationCause, EventFilter, MemberChange, Reason};

use crate::support::calculators::*;

fn is_member(event: &CalculatorEvent, expected: MemberChange, id: &str) -> bool {
    matches!(event, CalculatorEvent::Member { change, worker }
        if *change == expected && worker.as_str() == id)
}

fn reason_of_next(events: &divvy::Events) -> Reason {
    let event = wait_for(events, "publication", |e| {
        matches!(e, CalculatorEvent::Published { .. })
    });
    match &*event {
        CalculatorEvent::Published { reason, .. } => *reason,
        _ => unreachable!(),
    }
}

/// Symptom: each heartbeat caused a full listing, up to ten per second.
#[test]
fn heartbeats_of_200_workers_wake_only_dv_watch_and_cost_no_read() {
    let store = store();
    let fleet = Fleet::new(&store, (0..200).map(|i| format!("w-{i:03}")));
    let calls = Arc::new(AtomicU32::new(0));
    let calculator = {
        let calls = Arc::clone(&calls);
        hooked_calculator(&store, move |_| {
            calls.fetch_add(1, Ordering::AcqRel);
            Ok(())
        })
    };
    let events = started(&calculator);
    wait_for_publication(&events);
    wait_for_rest(&calculator);
    // Wait for the end of the cooldown of the start before measuring.
    fleet.beats(10);
    let wakes = |calculator: &Calculator| calculator.status().counters.calculator_wakes;
    let (calls_before, listings) = (
        calls.load(Ordering::Acquire),
        calculator.status().counters.listings,
    );
    let wakes_before = wakes(&calculator);
    fleet.beats(10);
    // The status call itself wakes the thread once.
    assert_eq!(wakes(&calculator), wakes_before + 1);
    assert_eq!(calls.load(Ordering::Acquire), calls_before);
    assert_eq!(calculator.status().counters.listings, listings);
    let status = calculator.status();
    assert_eq!(status.workers.len(), 200);
    let half = TTL / 2;
    assert!(
        status
            .workers
            .iter()
            .all(|w| w.lease_left.is_some_and(|left| left > half)),
        "{status:#?}"
    );
}

/// Symptom: a graceful leave was treated as a crash.
#[test]
fn graceful_leave_is_planned_scale_not_emergency() {
    let store = store();
    let fleet = Fleet::new(&store, ["w-1", "w-2"]);
    let calculator = calculator(&store);
    let events = calculator.events(EventFilter::StateAndMembers);
    calculator.start(TIMEOUT).unwrap();
    wait_for_publication(&events);
    wait_for_rest(&calculator);
    fleet.leave("w-2");
    wait_for(&events, "leave", |e| {
        is_member(e, MemberChange::Left, "w-2")
    });
    assert_eq!(reason_of_next(&events), Reason::PlannedScale);
    assert_eq!(all_held(&store, &["w-1"]), ids(10));
    assert!(held(&store, "w-2").is_none());
}

#[test]
fn crash_triggers_emergency_after_lease_and_grace() {
    let store = store();
    let fleet = Fleet::new(&store, ["w-1", "w-2", "w-3"]);
    let calculator = calculator(&store);
    let events = calculator.events(EventFilter::StateAndMembers);
    calculator.start(TIMEOUT).unwrap();
    wait_for_publication(&events);
    wait_for_rest(&calculator);
    fleet.crash("w-2");
    wait_for(&events, "missing", |e| {
        is_member(e, MemberChange::Suspected, "w-2")
    });
    wait_for(&events, "lost", |e| is_member(e, MemberChange::Dead, "w-2"));
    assert_eq!(reason_of_next(&events), Reason::Emergency);
    assert_eq!(all_held(&store, &["w-1", "w-3"]), ids(10));
    assert!(held(&store, "w-2").is_none());
}

#[test]
fn worker_death_with_simultaneous_join_triggers_emergency() {
    let store = store();
    let fleet = Fleet::new(&store, ["w-1", "w-2", "w-3"]);
    let mut config = config();
    config.planned_scale_window = Duration::from_secs(20);
    let calculator = Calculator::builder(Arc::new(store.client("leader")))
        .config(config)
        .source(|| Ok(partitions(10)))
        .build()
        .unwrap();
    let events = calculator.events(EventFilter::StateAndMembers);
    calculator.start(TIMEOUT).unwrap();
    wait_for_publication(&events);
    wait_for_rest(&calculator);
    fleet.crash("w-2");
    fleet.join("w-4");
    wait_for(&events, "join", |e| {
        is_member(e, MemberChange::Joined, "w-4")
    });
    assert_eq!(reason_of_next(&events), Reason::Emergency);
    assert_eq!(all_held(&store, &["w-1", "w-3", "w-4"]), ids(10));
}

#[test]
fn mass_restart_moves_nothing() {
    let store = store();
    let workers = ["w-1", "w-2", "w-3", "w-4"];
    let fleet = Fleet::new(&store, workers);
    let mut config = config();
    config.cold_start_window = Duration::from_secs(3);
    config.emergency_grace_period = Duration::from_millis(600);
    let calculator = Calculator::builder(Arc::new(store.client("leader")))
        .config(config)
        .source(|| Ok(partitions(10)))
        .build()
        .unwrap();
    let events = calculator.events(EventFilter::StateAndMembers);
    calculator.start(TIMEOUT).unwrap();
    wait_for_publication(&events);
    let before = workers.map(|w| held(&store, w).unwrap().partitions);
    for worker in workers {
        fleet.crash(worker);
    }
    wait_for(&events, "missing", |e| {
        is_member(e, MemberChange::Suspected, "w-4")
    });
    for worker in workers {
        fleet.join(worker);
    }
    for worker in workers {
        wait_until("back", || {
            let status = calculator.status();
            status
                .workers
                .iter()
                .any(|w| w.worker.as_str() == worker && w.lease_left.is_some())
        });
    }
    wait_for_rest(&calculator);
    assert_eq!(workers.map(|w| held(&store, w).unwrap().partitions), before);
    assert_eq!(calculator.status().counters.moved, 0);
}

#[test]
fn blackout_causes_no_deaths_and_recovery_is_detected() {
    for how in [Blackout::Refuse, Blackout::Hang] {
        let store = store();
        let _fleet = Fleet::new(&store, ["w-1", "w-2"]);
        let leader = store.client("leader");
        let calculator = Calculator::builder(Arc::new(leader.clone()))
            .config(config())
            .source(|| Ok(partitions(10)))
            .build()
            .unwrap();
        let events = calculator.events(EventFilter::StateAndMembers);
        calculator.start(TIMEOUT).unwrap();
        wait_for_publication(&events);
        leader.faults().blackout(how);
        wait_for(
            &events,
            "degraded",
            |e| matches!(e, CalculatorEvent::Degraded(why) if why.iter().any(|d| d.cause == DegradationCause::WatchLost)),
        );
        // Far beyond lease and grace.
        std::thread::sleep(TTL * 3);
        let error = calculator
            .trigger_rebalance(Duration::from_millis(100))
            .unwrap_err();
        assert_eq!(error.code(), Code::TimedOut, "{error}");
        leader.faults().restore();
        let mut seen = Vec::new();
        let deadline = soon();
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let event = events.recv_timeout(left).expect("recovery");
            let is_well = matches!(&*event, CalculatorEvent::Degraded(why) if why.is_empty());
            seen.push(event);
            if is_well {
                break;
            }
        }
        wait_until("the trigger's publication", || {
            calculator.current_version() >= 2
        });
        seen.extend(std::iter::from_fn(|| events.try_recv()));
        assert!(
            !seen
                .iter()
                .any(|e| matches!(&**e, CalculatorEvent::Member { .. })),
            "{how:?}: {seen:#?}"
        );
        assert!(calculator.status().counters.watch_losses >= 1);
        calculator.stop(TIMEOUT).unwrap();
    }
}

#[test]
fn worker_that_died_in_blackout_is_declared_dead_after_it() {
    let store = store();
    let fleet = Fleet::new(&store, ["w-1", "w-2", "w-3"]);
    let leader = store.client("leader");
    let calculator = Calculator::builder(Arc::new(leader.clone()))
        .config(config())
        .source(|| Ok(partitions(10)))
        .build()
        .unwrap();
    let events = calculator.events(EventFilter::StateAndMembers);
    calculator.start(TIMEOUT).unwrap();
    wait_for_publication(&events);
    leader.faults().blackout(Blackout::Refuse);
    wait_for(&events, "degraded", |e| {
        matches!(e, CalculatorEvent::Degraded(_))
    });
    fleet.crash("w-3");
    leader.faults().restore();
    wait_for(&events, "lost", |e| is_member(e, MemberChange::Dead, "w-3"));
    wait_for_publication(&events);
    assert_eq!(all_held(&store, &["w-1", "w-2"]), ids(10));
}

/// Symptom: a failed watch was never reopened.
#[test]
fn failed_watch_is_reopened_until_success() {
    let store = store();
    let fleet = Fleet::new(&store, ["w-1"]);
    let denied = Arc::new(AtomicBool::new(true));
    let tries = Arc::new(AtomicU32::new(0));
    let calculator = {
        let (denied, tries) = (Arc::clone(&denied), Arc::clone(&tries));
        hooked_calculator(&store, move |call| {
            if call == "watch" {
                tries.fetch_add(1, Ordering::AcqRel);
                if denied.load(Ordering::Acquire) {
                    return Err(refused(Code::Unavailable));
                }
            }
            Ok(())
        })
    };
    let events = calculator.events(EventFilter::State);
    calculator.start(TIMEOUT).unwrap();
    wait_for(
        &events,
        "watch_losses",
        |e| matches!(e, CalculatorEvent::Degraded(why) if why.iter().any(|d| d.cause == DegradationCause::WatchLost)),
    );
    wait_until("more tries", || tries.load(Ordering::Acquire) > 3);
    // Meanwhile the reconciling listing reports the fleet.
    fleet.join("w-2");
    wait_until("w-2 is found by listing", || held(&store, "w-2").is_some());
    denied.store(false, Ordering::Release);
    wait_for(
        &events,
        "sight",
        |e| matches!(e, CalculatorEvent::Degraded(why) if why.is_empty()),
    );
    // Not reopened once it works, and not in a tight loop before.
    let settled = tries.load(Ordering::Acquire);
    fleet.beats(5);
    assert!(tries.load(Ordering::Acquire) <= settled + 1);
}

#[test]
fn slow_listing_costs_no_worker_its_lease() {
    let store = store();
    let fleet = Fleet::new(&store, ["w-1", "w-2", "w-3"]);
    let leader = store.client("leader");
    let gate = Gate::open();
    let hook = {
        let gate = gate.clone();
        move |call| {
            if call == "list" && std::thread::current().name() == Some("dv-watch") {
                gate.pass();
            }
            Ok(())
        }
    };
    let inner = leader.clone();
    let calculator = Calculator::builder(Arc::new(Hooked { inner, hook }))
        .config(config())
        .source(|| Ok(partitions(10)))
        .build()
        .unwrap();
    let events = calculator.events(EventFilter::StateAndMembers);
    calculator.start(TIMEOUT).unwrap();
    wait_for_publication(&events);
    gate.close();
    leader.faults().disconnect_watches("simulated");
    gate.wait_for_arrival();
    leader.faults().recover_watches();
    // Far beyond lease and grace: dv-watch is blocked, and heartbeats are queued.
    std::thread::sleep(TTL * 2);
    gate.release();
    fleet.beats(5);
    wait_until("sight", || calculator.status().degraded.is_empty());
    assert!(
        !std::iter::from_fn(|| events.try_recv())
            .any(|e| matches!(&*e, CalculatorEvent::Member { .. }))
    );
}

/// Symptom: occasionally a window never closed, or a retry never came, until another event. Cause:
/// work that became due between the last clock reading of the machine and the setting of the timer
/// was treated as done.
#[test]
fn no_timer_is_lost_when_dv_calc_is_woken_at_its_due_time() {
    let store = store();
    let fleet = Fleet::new(&store, ["w-0"]);
    let mut config = config();
    config.planned_scale_window = Duration::from_millis(3);
    config.join_coalescing = Duration::from_millis(1);
    config.cooldown = Duration::from_millis(1);
    let calculator = Arc::new(
        Calculator::builder(Arc::new(store.client("leader")))
            .config(config)
            .source(|| Ok(partitions(10)))
            .build()
            .unwrap(),
    );
    wait_for_publication(&started(&calculator));
    let stop = Arc::new(AtomicBool::new(false));
    let poller = {
        let (calculator, stop) = (Arc::clone(&calculator), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Acquire) {
                let _ = calculator.status();
            }
        })
    };
    for i in 1..=30 {
        let worker = format!("w-{i}");
        fleet.join(&worker);
        wait_until("its share", || held(&store, &worker).is_some());
    }
    stop.store(true, Ordering::Release);
    poller.join().unwrap();
}

//! A panic on each thread of the calculator: it is reported, all threads are joined, nothing hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use divvy::error::Code;
use divvy::store::memory::{Blackout, MemoryStore};
use divvy::time::clock::{Clock, SystemClock};
use divvy::types::Time;
use divvy::{Calculator, CalculatorEvent, EventFilter};

use crate::support::calculators::*;
use crate::{alone, calculator, leader, logger, own_threads};

/// Panics on one thread from a given moment on.
#[derive(Clone)]
struct Bomb {
    thread: &'static str,
    is_armed: Arc<AtomicBool>,
}

impl Bomb {
    fn on(thread: &'static str) -> Self {
        let is_armed = Arc::default();
        Self { thread, is_armed }
    }

    fn tick(&self) {
        let is_here = std::thread::current().name() == Some(self.thread);
        assert!(
            !is_here || !self.is_armed.load(Ordering::Acquire),
            "simulated"
        );
    }
}

impl Clock for Bomb {
    fn now(&self) -> Time {
        self.tick();
        SystemClock.now()
    }
}

fn calculator_with(store: &MemoryStore, bomb: &Bomb, clock: impl Clock + 'static) -> Calculator {
    let hook = {
        let bomb = bomb.clone();
        move |_| {
            bomb.tick();
            Ok(())
        }
    };
    let inner = leader(store);
    Calculator::builder(Arc::new(Hooked { inner, hook }))
        .config(config())
        .source(|| Ok(partitions(10)))
        .clock(clock)
        .build()
        .unwrap()
}

/// Checks the state after a thread panicked.
#[track_caller]
fn check_failed(calculator: &Calculator, events: &mut divvy::Events, thread: &str) {
    let last = in_time("the last event", {
        let events: Vec<_> = events.collect();
        move || events.last().cloned()
    });
    let Some(CalculatorEvent::Fatal { message }) = last.as_deref() else {
        panic!("{thread}: not fatal: {last:?}");
    };
    assert!(message.contains(thread), "{message}");
    assert!(events.is_closed());
    assert!(!calculator.is_started());
    let status = calculator.status();
    assert!(!status.is_started && status.failed.is_some_and(|f| f.contains(thread)));
    calculator.stop(TIMEOUT).unwrap();
    assert_eq!(own_threads(), [""; 0]);
    let error = calculator.trigger_rebalance(TIMEOUT).unwrap_err();
    assert_eq!(error.code(), Code::NotRunning, "{error}");
}

fn a_panic_fails_the_handle(thread: &'static str, provoke: impl Fn(&Calculator, &MemoryStore)) {
    let _alone = alone();
    let store = store();
    let fleet = Fleet::new(&store, ["w-1"]);
    let bomb = Bomb::on(thread);
    let calculator = Arc::new(calculator_with(&store, &bomb, bomb.clone()));
    let mut events = started(&calculator);
    wait_for_publication(&events);
    let (sender, received) = crossbeam_channel::unbounded();
    calculator
        .subscribe(EventFilter::State, move |notice| {
            let _ = sender.send(notice.clone());
        })
        .forever();
    bomb.is_armed.store(true, Ordering::Release);
    provoke(&calculator, &store);
    let mut callbacks = Vec::new();
    while let Ok(notice) = received.recv_timeout(TIMEOUT) {
        let is_last = matches!(notice, CalculatorEvent::Fatal { .. });
        callbacks.push(notice);
        if is_last {
            break;
        }
    }
    assert!(matches!(
        callbacks.last(),
        Some(CalculatorEvent::Fatal { .. })
    ));
    check_failed(&calculator, &mut events, thread);
    assert!(received.is_empty(), "nothing follows a fatal event");
    bomb.is_armed.store(false, Ordering::Release);
    calculator.start(TIMEOUT).unwrap();
    calculator.trigger_rebalance(TIMEOUT).unwrap();
    assert!(calculator.status().failed.is_none());
    drop(fleet);
}

#[test]
fn panic_on_dv_calc_fails_handle() {
    a_panic_fails_the_handle("dv-calc", |calculator, _| {
        let error = calculator.trigger_rebalance(Duration::MAX).unwrap_err();
        assert!(
            [Code::Panicked, Code::NotRunning].contains(&error.code()),
            "{error}"
        );
    });
}

#[test]
fn panic_on_dv_watch_fails_handle() {
    a_panic_fails_the_handle("dv-watch", |_, store| beat(store, "w-1"));
}

#[test]
fn panic_on_dv_publish_fails_handle_and_answers_waiting_callers() {
    a_panic_fails_the_handle("dv-publish", |calculator, _| {
        let error = calculator.trigger_rebalance(Duration::MAX).unwrap_err();
        assert_eq!(error.code(), Code::Panicked, "{error}");
        assert!(error.to_string().contains("dv-publish"), "{error}");
    });
}

#[test]
fn all_waiting_callers_get_error_when_thread_panics() {
    let _alone = alone();
    for _ in 0..20 {
        let store = store();
        let _fleet = Fleet::new(&store, ["w-1"]);
        let bomb = Bomb::on("dv-publish");
        let calculator = Arc::new(calculator_with(&store, &bomb, SystemClock));
        wait_for_publication(&started(&calculator));
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let calculator = Arc::clone(&calculator);
                std::thread::spawn(
                    move || {
                        while calculator.trigger_rebalance(Duration::MAX).is_ok() {}
                    },
                )
            })
            .collect();
        bomb.is_armed.store(true, Ordering::Release);
        for caller in callers {
            in_time("a caller", move || caller.join().unwrap());
        }
        calculator.stop(TIMEOUT).unwrap();
    }
}

#[test]
fn panic_during_start_is_returned_as_start_error() {
    let _alone = alone();
    for thread in ["dv-publish", "dv-calc"] {
        let store = store();
        let bomb = Bomb::on(thread);
        bomb.is_armed.store(true, Ordering::Release);
        let calculator = calculator_with(&store, &bomb, bomb.clone());
        let error = calculator.start(TIMEOUT).unwrap_err();
        assert_eq!(error.code(), Code::Panicked, "{thread}: {error}");
        assert_eq!(own_threads(), [""; 0]);
        bomb.is_armed.store(false, Ordering::Release);
        calculator.start(TIMEOUT).unwrap();
    }
}

/// The logger is the only host code on `dv-notify` in addition to callbacks.
#[test]
fn panic_on_dv_notify_fails_handle() {
    struct Logger;
    impl log::Log for Logger {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.target() == "divvy::notify"
        }
        fn log(&self, record: &log::Record<'_>) {
            let is_here = std::thread::current().name() == Some("dv-notify");
            assert!(!is_here || !self.enabled(record.metadata()), "simulated");
        }
        fn flush(&self) {}
    }
    let _alone = alone();
    let installed = logger::install(Logger, log::LevelFilter::Error);
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1"]);
    let calculator = calculator(&store);
    let mut events = started(&calculator);
    wait_for_publication(&events);
    calculator
        .subscribe(EventFilter::State, |_| panic!("simulated"))
        .forever();
    check_failed(&calculator, &mut events, "dv-notify");
    drop(installed);
    calculator.start(TIMEOUT).unwrap();
}

#[test]
fn failed_calculator_publishes_nothing_more_and_another_takes_over() {
    let _alone = alone();
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1"]);
    let bomb = Bomb::on("dv-watch");
    let failing = calculator_with(&store, &bomb, bomb.clone());
    let events = started(&failing);
    let version = wait_for_publication(&events);
    bomb.is_armed.store(true, Ordering::Release);
    wait_for(&events, "the end", |e| {
        matches!(e, CalculatorEvent::Fatal { .. })
    });
    assert_eq!(held(&store, "w-1").unwrap().version, version);
    let other = calculator(&store);
    other.start(TIMEOUT).unwrap();
    assert!(other.trigger_rebalance(TIMEOUT).unwrap() > version);
    other.stop(TIMEOUT).unwrap();
    failing.stop(TIMEOUT).unwrap();
}

#[test]
fn drop_with_hung_store_returns_in_time_and_threads_end_with_hang() {
    let _alone = alone();
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1"]);
    let leader = leader(&store);
    let calculator = Calculator::builder(Arc::new(leader.clone()))
        .config(config())
        .source(|| Ok(partitions(10)))
        .build()
        .unwrap();
    wait_for_publication(&started(&calculator));
    leader.faults().blackout(Blackout::Hang);
    calculator
        .trigger_rebalance(Duration::from_millis(30))
        .unwrap_err();
    in_time("the drop", move || drop(calculator));
    leader.faults().restore();
    wait_until("the threads' end", || own_threads().is_empty());
}

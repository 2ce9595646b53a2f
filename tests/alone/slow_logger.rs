//! The host's logger runs on threads of the library.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use divvy::store::memory::MemoryStore;
use divvy::store::{Bucket, BucketConfig, Expect, Store, Write};
use divvy::{Calculator, CalculatorEvent, CalculatorState, EventFilter, Partition};
use log::{LevelFilter, Log, Metadata, Record};

use crate::{alone, logger};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Blocks the log line of a rebalance until a subscriber was notified of it.
struct Patient;

static REPORTED: OnceLock<Receiver<()>> = OnceLock::new();
static WAS_HELD_UP: AtomicBool = AtomicBool::new(false);

impl Log for Patient {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "divvy::calculator"
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) && record.args().to_string().contains("-> Rebalancing") {
            let reported = REPORTED.get().unwrap().recv_timeout(TIMEOUT);
            assert!(
                reported.is_ok(),
                "no subscriber was notified before the log line"
            );
            WAS_HELD_UP.store(true, Ordering::SeqCst);
        }
    }

    fn flush(&self) {}
}

#[test]
fn slow_logger_does_not_delay_event_readers() {
    let _alone = alone();
    let (sender, reported) = bounded(1);
    REPORTED.set(reported).unwrap();
    let _installed = logger::install(Patient, LevelFilter::Info);
    let store = MemoryStore::new();
    let (ttl, soon) = (Some(Duration::from_secs(3_600)), Instant::now() + TIMEOUT);
    store
        .ensure(Bucket::Heartbeat, BucketConfig { ttl }, soon)
        .unwrap();
    let beat = Write {
        key: "heartbeat.w-1".into(),
        value: Some(b"alive".to_vec()),
        expect: Expect::Any,
    };
    store.write(Bucket::Heartbeat, &[beat], soon);
    let calculator = Calculator::builder(Arc::new(store))
        .source(|| Ok(vec![Partition::new(["p"], 1)]))
        .build()
        .unwrap();
    let events = calculator.events(EventFilter::State);
    let reader = std::thread::spawn(move || {
        let is_rebalancing = |event: &CalculatorEvent| matches!(event, CalculatorEvent::StateChanged(change) if change.to == CalculatorState::Rebalancing);
        for event in events {
            if is_rebalancing(&event) {
                let _ = sender.try_send(());
            }
        }
    });
    calculator.start(TIMEOUT).unwrap();
    calculator.trigger_rebalance(TIMEOUT).unwrap();
    calculator.stop(TIMEOUT).unwrap();
    assert!(WAS_HELD_UP.load(Ordering::SeqCst));
    reader.join().unwrap();
}

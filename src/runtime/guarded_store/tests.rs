//! Breaker and retry budget over a store in memory with faults.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::machine::breaker::{BreakerConfig, BreakerState};
use crate::store::memory::{Blackout, MemoryStore};
use crate::store::{BucketConfig, Entry, Write};
use crate::time::clock::ManualClock;

/// Records what it receives.
#[derive(Default)]
struct Measured {
    retries: AtomicU64,
    changes: Mutex<Vec<&'static str>>,
}

impl CalculatorMetrics for Measured {
    fn store_retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    fn breaker_changed(&self, to: BreakerState) {
        self.changes.lock().push(to.name());
    }
}

struct Play {
    clock: ManualClock,
    memory: Arc<MemoryStore>,
    store: GuardedStore,
}

fn play() -> Play {
    let clock = ManualClock::new();
    let memory = MemoryStore::builder().manual_clock(clock.clone()).build();
    let memory = Arc::new(memory);
    let store = GuardedStore::new(memory.clone(), Arc::new(clock.clone()), 1);
    let config = BucketConfig { ttl: None };
    store.ensure(Bucket::Assignment, config, soon()).unwrap();
    Play {
        clock,
        memory,
        store,
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

impl Play {
    fn read(&self) -> Result<Option<Entry>> {
        self.store.read(Bucket::Assignment, "k", soon())
    }

    fn open(&self) {
        self.memory.faults().blackout(Blackout::Refuse);
        for _ in 0..BreakerConfig::default().failures {
            assert_eq!(self.read().unwrap_err().code(), Code::Unavailable);
        }
    }
}

#[test]
fn open_breaker_fails_calls_at_once_with_reason_and_spares_store() {
    let play = play();
    play.open();
    play.memory.faults().restore();
    let error = play.read().unwrap_err();
    assert_eq!((error.code(), error.key()), (Code::Unavailable, Some("k")));
    assert!(error.message().contains("circuit breaker open"), "{error}");
    let write = Write {
        key: "k".into(),
        value: None,
        expect: crate::store::Expect::Any,
    };
    let outcomes = play.store.write(Bucket::Assignment, &[write], soon());
    assert!(matches!(
        outcomes[..],
        [Outcome::Refused(Refusal::Unavailable(_))]
    ));
    let status = play.store.status();
    assert_eq!((status.opened, status.probes, status.refused), (1, 0, 2));
    assert_eq!(status.state.state.name(), "open");
}

#[test]
fn first_call_after_pause_is_probe_and_every_transition_is_reported() {
    let measured = Arc::new(Measured::default());
    let mut play = play();
    play.store = play.store.with_metrics(measured.clone());
    let changes = play.store.changes(BreakerListener::Manager);
    let _calculators = play.store.changes(BreakerListener::Calculator);
    play.open();
    play.clock.advance(BreakerConfig::default().pause_max);
    play.read().unwrap_err();
    play.memory.faults().restore();
    // A session that is back has it probed sooner, which is no change of its state.
    play.store.observe_health(&Health::Connected);
    play.read().unwrap();
    let transitions = ["open", "half_open", "open", "half_open", "closed"];
    assert_eq!(*measured.changes.lock(), transitions);
    let reported: Vec<_> = changes.try_iter().map(|c| c.state.name()).collect();
    let expected = [
        "closed",
        "open",
        "half_open",
        "open",
        "open",
        "half_open",
        "closed",
    ];
    assert_eq!(reported, expected);
    assert_eq!(play.store.status().probes, 2);
}

/// A store that is not asked in time is late, not gone.
#[test]
fn call_is_cut_off_after_quarter_of_operation_timeout() {
    struct Slow(Arc<MemoryStore>, Mutex<Vec<Duration>>);
    impl Slow {
        fn note(&self, deadline: Instant) {
            let left = deadline.saturating_duration_since(Instant::now());
            self.1.lock().push(left);
        }
    }
    let play = play();
    let faults = play.memory.faults();
    faults.blackout(Blackout::Hang);
    let slow = Slow(play.memory.clone(), Mutex::default());
    let store = play.store.with_operation_timeout(Duration::from_secs(8));
    for timeout in [60, 1] {
        let read = LayerCall {
            kind: StoreCall::Read,
            bucket: Bucket::Assignment,
            key: None,
            writes: 0,
            deadline: Instant::now() + Duration::from_secs(timeout),
        };
        let answer = StoreLayer::call(&store, read, |_, call| {
            slow.note(call.deadline);
            slow.0.read(call.bucket, "k", call.deadline)
        });
        answer.unwrap_err();
    }
    let given: Vec<u64> = slow.1.lock().iter().map(|left| left.as_secs()).collect();
    assert_eq!(given, [1, 0], "just under 2 s, and what the caller has");
}

#[test]
fn recovered_session_lets_next_call_probe() {
    let play = play();
    play.open();
    play.memory.faults().restore();
    play.store.observe_health(&Health::Degraded("still".into()));
    assert!(play.read().is_err());
    play.store.observe_health(&Health::Connected);
    play.read().unwrap();
}

#[test]
fn rejection_counts_as_answer_and_late_call_counts_as_nothing() {
    let play = play();
    play.memory.server().put(Bucket::Assignment, "k", b"x");
    let write = Write {
        key: "k".into(),
        value: None,
        expect: crate::store::Expect::Revision(0),
    };
    for _ in 0..20 {
        let past = Instant::now();
        assert!(play.store.read(Bucket::Assignment, "k", past).is_err());
        let outcomes = play
            .store
            .write(Bucket::Assignment, std::slice::from_ref(&write), soon());
        assert_eq!(outcomes, [Outcome::Refused(Refusal::Conflict)]);
    }
    assert_eq!(play.store.status(), BreakerStatus::default());
}

#[test]
fn retries_without_token_are_not_sent() {
    let reported = Arc::new(Measured::default());
    let mut play = play();
    play.store = play.store.with_metrics(reported.clone());
    let mut sent = 0;
    // Every second call is answered, so the breaker stays closed.
    for round in 0..60 {
        play.memory.faults().blackout(Blackout::Refuse);
        let error = play.store.list(Bucket::Assignment, "", soon()).unwrap_err();
        sent += u32::from(!error.message().contains("not sent"));
        play.memory.faults().restore();
        if round % 2 == 1 {
            let other = BucketConfig { ttl: None };
            play.store.ensure(Bucket::Election, other, soon()).unwrap();
        }
    }
    // One first try, the burst, and a share of the 30 other calls.
    assert!((21..=28).contains(&sent), "{sent} of 60");
    let status = play.store.status();
    assert_eq!(u64::from(sent), status.retries + 1);
    assert_eq!(reported.retries.load(Ordering::Relaxed), status.retries);
    assert_eq!(status.retries + status.retries_refused + 1, 60);
}

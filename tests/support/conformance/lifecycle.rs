//! The health and the stop of a store.

use std::sync::Barrier;
use std::thread;

use divvy::error::Code;
use divvy::store::{Batch, BucketConfig, Expect, Health, Outcome, Refusal};

use super::*;

fn stopped_outcome(outcome: &Outcome) -> bool {
    *outcome == Outcome::Refused(Refusal::NotRunning)
}

pub fn running_store_is_connected(fixture: &dyn Fixture) {
    let store = ready(fixture);
    eventually(fixture, "connected", || store.health() == Health::Connected);
    let events = store.health_events();
    let current = events.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(current, Health::Connected);
}

pub fn every_call_after_stop_is_rejected(fixture: &dyn Fixture) {
    let store = ready(fixture);
    set(&*store, "a", b"1");
    store.stop(soon()).unwrap();

    let config = BucketConfig { ttl: None };
    let errors = [
        store.ensure(BUCKET, config, soon()).unwrap_err(),
        store.capabilities(BUCKET, soon()).unwrap_err(),
        store.read(BUCKET, "a", soon()).unwrap_err(),
        store.list(BUCKET, "", soon()).unwrap_err(),
        store.watch(BUCKET, "").unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.code(), Code::NotRunning, "{error}");
    }
    let late = put("a", b"2", Expect::Any);
    let outcomes = store.write(BUCKET, &[late.clone(), late.clone()], soon());
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes.iter().all(stopped_outcome), "{outcomes:?}");
    if fixture.batches() {
        let batch = Batch {
            fence: None,
            writes: vec![late],
        };
        let outcome = store.write_batch(BUCKET, &batch, soon());
        assert!(stopped_outcome(&outcome), "{outcome:?}");
    }
    assert_eq!(store.health(), Health::Closed);
    let a = fixture.client().read(BUCKET, "a", soon()).unwrap().unwrap();
    assert_eq!(a.value, b"1");
}

pub fn stop_is_idempotent_and_concurrent(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let _watch = store.watch(BUCKET, "").unwrap();
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                store.stop(soon()).unwrap();
                assert_eq!(store.health(), Health::Closed);
            });
        }
    });
    store.stop(soon()).unwrap();
    store.stop(past()).unwrap();
}

pub fn stop_ends_watches_and_health_events(fixture: &dyn Fixture) {
    let store = ready(fixture);
    set(&*store, "a", b"1");
    let watch = store.watch(BUCKET, "").unwrap();
    until_live(fixture, &watch);
    let health = store.health_events();
    thread::scope(|scope| {
        // Waiting readers are woken by the end of the channel.
        let watching = scope.spawn(|| watch.events.iter().count());
        let listening = scope.spawn(|| health.iter().collect::<Vec<_>>());
        store.stop(soon()).unwrap();
        watching.join().unwrap();
        let seen = listening.join().unwrap();
        assert_eq!(seen.last(), Some(&Health::Closed), "{seen:?}");
    });
}

pub fn stopping_one_client_does_not_affect_others(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let other = fixture.client();
    let watch = other.watch(BUCKET, "").unwrap();
    assert_eq!(next(fixture, &watch), WatchEvent::Live);
    store.stop(soon()).unwrap();
    let revision = set(&*other, "a", b"1");
    assert_eq!(next_change(fixture, &watch).revision, revision);
    let third = fixture.client();
    assert!(third.read(BUCKET, "a", soon()).unwrap().is_some());
}

pub fn calls_racing_with_stop_are_harmless(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let counts: Vec<u64> = thread::scope(|scope| {
        let store = &*store;
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                scope.spawn(move || {
                    let mut count = 0;
                    loop {
                        let key = format!("writer.{writer}");
                        match write(store, put(&key, b"1", Expect::Any)) {
                            Outcome::Done(_) => count += 1,
                            Outcome::Refused(Refusal::NotRunning) => return count,
                            Outcome::Unknown(_) => {}
                            other @ Outcome::Refused(_) => panic!("{other:?}"),
                        }
                        let watch = store.watch(BUCKET, "");
                        drop(watch);
                    }
                })
            })
            .collect();
        let reader = fixture.client();
        eventually(fixture, "every writer has written", || {
            let listing = reader.list(BUCKET, "writer", soon()).unwrap();
            listing.entries.len() == writers.len()
        });
        store.stop(soon()).unwrap();
        writers.into_iter().map(|w| w.join().unwrap()).collect()
    });
    // Writes done before the stop are stored. A write with an unknown outcome may be.
    let (entries, last) = contents(&*fixture.client(), BUCKET);
    assert_eq!(entries.len(), counts.len());
    assert!(last >= counts.iter().sum());
}

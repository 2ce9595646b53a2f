//! Failing calls.

use super::*;
use crate::error::Code;

fn unavailable() -> Fault {
    Fault::Refuse(Refusal::Unavailable("simulated".to_owned()))
}

fn is_unknown(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Unknown(_))
}

#[test]
fn next_calls_of_kind_fail_and_later_ones_succeed() {
    let (store, _) = driven();
    store.faults().next(&Call::READS, 2, unavailable());
    for _ in 0..2 {
        let error = store.read(BUCKET, "a", soon()).unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
        set(&store, "a", "writes are not affected");
    }
    assert!(store.read(BUCKET, "a", soon()).is_ok());
}

#[test]
fn faults_are_consumed_in_order_of_setting() {
    let (store, _) = driven();
    let faults = store.faults();
    faults.next(&Call::WRITES, 1, Fault::Refuse(Refusal::Busy));
    faults.next(&Call::ALL, 1, unavailable());
    assert_eq!(
        write(&store, put("a", "1")),
        Outcome::Refused(Refusal::Busy)
    );
    let refused = write(&store, put("a", "1"));
    assert!(matches!(refused, Outcome::Refused(Refusal::Unavailable(_))));
    set(&store, "a", "1");
}

#[test]
fn each_pipelined_write_has_its_own_fault() {
    let (store, _) = driven();
    store
        .faults()
        .next(&[Call::Write], 2, Fault::Refuse(Refusal::Busy));
    let writes = ["a", "b", "c", "d"].map(|key| put(key, "1"));
    let outcomes = store.write(BUCKET, &writes, soon());
    let done: Vec<_> = outcomes
        .iter()
        .map(|outcome| matches!(outcome, Outcome::Done(_)))
        .collect();
    assert_eq!(done, [false, false, true, true]);
}

#[test]
fn faults_of_one_client_do_not_affect_others() {
    let (store, _) = driven();
    let other = store.client("other");
    store.faults().randomly(&Call::ALL, 1.0, 1, unavailable());
    assert!(store.read(BUCKET, "a", soon()).is_err());
    set(&other, "a", "1");
    store.faults().clear();
    assert_eq!(value(&store, "a").as_deref(), Some("1"));
}

#[test]
fn random_faults_follow_seed_and_probability() {
    let run = |seed| {
        let (store, _) = driven();
        store
            .faults()
            .randomly(&Call::READS, 0.2, seed, unavailable());
        (0..1_000)
            .map(|_| store.read(BUCKET, "a", soon()).is_err())
            .collect::<Vec<bool>>()
    };
    let first = run(7);
    assert_eq!(first, run(7));
    assert_ne!(first, run(8));
    let failed = first.iter().filter(|failed| **failed).count();
    assert!((150..250).contains(&failed), "{failed} of 1000");
}

#[test]
fn lost_request_is_unknown_and_never_applied() {
    let (store, clock) = driven();
    store.faults().next(&Call::ALL, 2, Fault::LoseRequest);
    assert!(is_unknown(&write(&store, put("a", "1"))));
    let error = store.read(BUCKET, "a", soon()).unwrap_err();
    assert_eq!(error.code(), Code::TimedOut);
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(value(&store, "a"), None);
}

#[test]
fn lost_reply_is_unknown_and_applied() {
    let (store, _) = driven();
    store.faults().next(&Call::ALL, 3, Fault::LoseReply);
    assert!(is_unknown(&write(&store, put("a", "1"))));
    assert!(store.read(BUCKET, "a", soon()).is_err());
    let config = BucketConfig { ttl: None };
    assert!(store.ensure(Bucket::Election, config, soon()).is_err());
    assert_eq!(value(&store, "a").as_deref(), Some("1"));
    assert!(store.read(Bucket::Election, "a", soon()).is_ok());
}

#[test]
fn held_write_is_applied_and_judged_when_released() {
    let (store, _) = driven();
    let faults = store.faults();
    faults.next(&Call::WRITES, 2, Fault::Hold(None));
    assert!(is_unknown(&write(&store, put("a", "held"))));
    let conditional = Write {
        expect: Expect::Revision(0),
        ..put("b", "held")
    };
    assert!(is_unknown(&write(&store, conditional)));
    assert_eq!((value(&store, "a"), faults.held()), (None, 2));

    set(&store, "a", "prompt");
    set(&store, "b", "prompt");
    faults.release_held();
    assert_eq!(faults.held(), 0);
    assert_eq!(value(&store, "a").as_deref(), Some("held"));
    assert_eq!(value(&store, "b").as_deref(), Some("prompt"));
}

#[test]
fn held_write_can_be_dropped() {
    let (store, _) = driven();
    store.faults().next(&Call::WRITES, 1, Fault::Hold(None));
    assert!(is_unknown(&write(&store, put("a", "1"))));
    store.faults().discard_held();
    store.faults().release_held();
    assert_eq!(value(&store, "a"), None);
}

#[test]
fn held_batch_is_applied_after_its_delay_though_client_stopped() {
    let (store, clock) = driven();
    let other = store.client("other");
    let hold = Fault::Hold(Some(Duration::from_secs(2)));
    store.faults().next(&[Call::Batch], 1, hold);
    let batch = Batch {
        fence: None,
        writes: vec![put("a", "1"), put("b", "1")],
    };
    assert!(is_unknown(&store.write_batch(BUCKET, &batch, soon())));
    store.stop(soon()).unwrap();
    clock.advance(Duration::from_millis(1_999));
    assert_eq!(value(&other, "a"), None);
    clock.advance(Duration::from_millis(1));
    assert_eq!(value(&other, "a").as_deref(), Some("1"));
    assert_eq!(value(&other, "b").as_deref(), Some("1"));
}

#[test]
fn on_manual_clock_delay_exceeds_every_deadline() {
    let (store, clock) = driven();
    store.faults().delay(&Call::ALL, Duration::from_secs(1));
    let error = store.read(BUCKET, "a", soon()).unwrap_err();
    assert_eq!(error.code(), Code::TimedOut);
    assert!(is_unknown(&write(&store, put("a", "1"))));
    let other = store.client("other");
    assert_eq!(value(&other, "a"), None);
    clock.advance(Duration::from_secs(1));
    assert_eq!(value(&other, "a").as_deref(), Some("1"));
    store.faults().delay(&Call::ALL, Duration::ZERO);
    set(&store, "a", "2");
}

#[test]
fn delayed_call_takes_its_delay_but_not_longer_than_deadline() {
    let store = timed();
    store.faults().delay(&Call::ALL, Duration::from_millis(100));
    let begin = Instant::now();
    set(&store, "a", "1");
    assert!(begin.elapsed() >= Duration::from_millis(100));

    store.faults().delay(&Call::ALL, Duration::from_secs(1));
    let begin = Instant::now();
    let deadline = begin + Duration::from_millis(100);
    let outcomes = store.write(BUCKET, &[put("b", "1")], deadline);
    assert!(is_unknown(&outcomes[0]));
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(100) && took < Duration::from_millis(900));
    let other = store.client("other");
    assert_eq!(value(&other, "b"), None);
    while value(&other, "b").is_none() {
        assert!(begin.elapsed() < Duration::from_secs(30));
        std::thread::yield_now();
    }
    assert!(begin.elapsed() >= Duration::from_millis(1_000));
}

#[test]
fn stop_ends_waiting_calls_at_once() {
    let store = timed();
    store
        .faults()
        .delay(&[Call::Write], Duration::from_secs(60));
    let hanging = store.client("hanging");
    hanging.faults().blackout(Blackout::Hang);
    std::thread::scope(|scope| {
        let delayed = scope.spawn(|| write(&store, put("a", "1")));
        let hung = scope.spawn(|| hanging.read(BUCKET, "a", soon()));
        // Whether or not the calls have begun to wait, they end with the stop.
        store.stop(soon()).unwrap();
        hanging.stop(soon()).unwrap();
        assert_eq!(
            delayed.join().unwrap(),
            Outcome::Refused(Refusal::NotRunning)
        );
        let error = hung.join().unwrap().unwrap_err();
        assert_eq!(error.code(), Code::NotRunning);
    });
}

#[test]
fn blackout_rejects_calls_and_spares_other_clients() {
    let (store, _) = driven();
    let other = store.client("other");
    let health = store.health_events();
    store.faults().blackout(Blackout::Refuse);
    let error = store.read(BUCKET, "a", soon()).unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    let refused = write(&store, put("a", "1"));
    assert!(matches!(refused, Outcome::Refused(Refusal::Unavailable(_))));
    assert!(matches!(store.health(), Health::Degraded(_)));
    assert_eq!(other.health(), Health::Connected);
    set(&other, "a", "2");

    store.faults().restore();
    assert_eq!(value(&store, "a").as_deref(), Some("2"));
    let seen: Vec<_> = health.try_iter().collect();
    assert!(
        matches!(
            &seen[..],
            [Health::Connected, Health::Degraded(_), Health::Connected]
        ),
        "{seen:?}"
    );
}

#[test]
fn hanging_blackout_ends_calls_at_deadline_and_applies_nothing() {
    let (store, clock) = driven();
    store.faults().blackout(Blackout::Hang);
    // It precedes a delay: a blocked call does not arrive later.
    store.faults().delay(&Call::ALL, Duration::from_secs(1));
    assert!(is_unknown(&write(&store, put("a", "1"))));
    assert!(store.read(BUCKET, "a", soon()).is_err());
    store.faults().clear();
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(value(&store, "a"), None);

    let store = timed();
    store.faults().blackout(Blackout::Hang);
    let begin = Instant::now();
    let deadline = begin + Duration::from_millis(100);
    let error = store.read(BUCKET, "a", deadline).unwrap_err();
    assert_eq!(error.code(), Code::TimedOut);
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(100) && took < Duration::from_secs(10));
}

#[test]
fn blackout_affects_calls_already_delayed() {
    let store = timed();
    store
        .faults()
        .delay(&[Call::Write], Duration::from_millis(300));
    let (sender, reported) = bounded(0);
    let outcome = std::thread::scope(|scope| {
        let delayed = scope.spawn(|| {
            sender.send(()).unwrap();
            write(&store, put("a", "1"))
        });
        reported.recv().unwrap();
        // Even a call that begins later than this is blocked.
        std::thread::sleep(Duration::from_millis(20));
        store.faults().blackout(Blackout::Refuse);
        delayed.join().unwrap()
    });
    assert!(matches!(outcome, Outcome::Refused(Refusal::Unavailable(_))));
    assert_eq!(value(&store.client("other"), "a"), None);
}

#[test]
fn only_newest_health_events_are_kept() {
    let (store, _) = driven();
    let health = store.health_events();
    for _ in 0..100 {
        store.faults().blackout(Blackout::Refuse);
        store.faults().restore();
    }
    store.stop(soon()).unwrap();
    let seen: Vec<_> = health.iter().collect();
    assert!(seen.len() <= 16);
    assert_eq!(seen.last(), Some(&Health::Closed));
    assert_eq!(seen[seen.len() - 2], Health::Connected);
    let after: Vec<_> = store.health_events().iter().collect();
    assert_eq!(after, [Health::Closed]);
}

#[test]
fn truncated_listing_is_short_without_error() {
    let (store, _) = driven();
    for key in ["p.a", "p.b", "p.c"] {
        set(&store, key, "1");
    }
    store.faults().truncate_listings(Some(2));
    let listing = store.list(BUCKET, "p", soon()).unwrap();
    assert_eq!((listing.entries.len(), listing.last_sequence), (2, 3));
    let other = store.client("other").list(BUCKET, "p", soon()).unwrap();
    assert_eq!(other.entries.len(), 3);
    store.faults().truncate_listings(None);
    assert_eq!(store.list(BUCKET, "p", soon()).unwrap().entries.len(), 3);
}

#[test]
fn raw_writes_bypass_all_checks() {
    let (store, _) = driven();
    let server = store.server();
    let huge = vec![0xff; 2 << 20];
    for key in ["", " ", "p.", "p..x", "p.a b", "p.\0"] {
        server.put(BUCKET, key, &huge);
    }
    let listing = store.list(BUCKET, "p", soon()).unwrap();
    let keys: Vec<_> = listing.entries.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(keys, ["p.", "p.\0", "p..x", "p.a b"]);
    assert!(listing.entries.iter().all(|entry| entry.value == huge));
    assert_eq!(store.list(BUCKET, "", soon()).unwrap().entries.len(), 6);
    let revision = server.delete(BUCKET, "p.");
    let entries = store.list(BUCKET, "p", soon()).unwrap().entries;
    assert_eq!(
        (entries[0].revision, entries[0].operation),
        (revision, Operation::Delete)
    );
}

#[test]
fn purge_keeps_sequence_and_recreation_restarts_it() {
    let (store, _) = driven();
    let config = BucketConfig { ttl: None };
    let last = set(&store, "a", "1");
    store.server().purge(BUCKET);
    let status = store.ensure(BUCKET, config, soon()).unwrap();
    assert_eq!(status.last_sequence, last);
    assert_eq!(value(&store, "a"), None);
    assert_eq!(set(&store, "a", "2"), last + 1);

    store.server().recreate_bucket(BUCKET, config);
    let again = store.ensure(BUCKET, config, soon()).unwrap();
    assert_ne!(again.incarnation, status.incarnation);
    assert_eq!((again.ttl, again.last_sequence), (None, 0));
    assert_eq!(set(&store, "a", "3"), 1);

    store.server().delete_bucket(BUCKET);
    let error = store.read(BUCKET, "a", soon()).unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
}

#[test]
fn existing_bucket_with_other_ttl_is_reported() {
    let (store, _) = driven();
    let status = |ttl| {
        let config = BucketConfig { ttl };
        store.ensure(BUCKET, config, soon()).unwrap().warnings
    };
    assert_eq!(status(Some(TTL)), [""; 0]);
    assert_eq!(status(None).len(), 1);
}

//! Failing watches, and virtual time.

use super::*;

#[test]
fn lost_events_are_silent_until_next_resynchronisation() {
    let (store, _) = driven();
    let watch = store.watch(BUCKET, "").unwrap();
    store.faults().lose_watch_events(2);
    set(&store, "a", "1");
    set(&store, "b", "1");
    set(&store, "c", "1");
    set(&store, "b", "2");
    assert_eq!(delivered(&watch), ["live", "c=1", "b=2"]);
    store.faults().disconnect_watches("simulated");
    store.faults().recover_watches();
    assert_eq!(delivered(&watch), ["disconnected", "a=1", "live"]);
}

#[test]
fn late_events_arrive_in_order_after_their_delay() {
    let (store, clock) = driven();
    let watch = store.watch(BUCKET, "").unwrap();
    let faults = store.faults();
    faults.delay_watch_events(Duration::from_secs(2));
    set(&store, "a", "1");
    clock.advance(Duration::from_secs(1));
    set(&store, "a", "2");
    faults.delay_watch_events(Duration::ZERO);
    set(&store, "a", "3");
    store.tick();
    assert_eq!(delivered(&watch), ["live"]);
    clock.advance(Duration::from_secs(1));
    store.tick();
    assert_eq!(delivered(&watch), ["a=1"]);
    clock.advance(Duration::from_secs(1));
    store.tick();
    assert_eq!(delivered(&watch), ["a=2", "a=3"]);
    set(&store, "a", "4");
    assert_eq!(delivered(&watch), ["a=4"]);
}

#[test]
fn late_events_lost_in_blackout_are_recovered() {
    let (store, _) = driven();
    let watch = store.watch(BUCKET, "").unwrap();
    let faults = store.faults();
    faults.delay_watch_events(Duration::from_secs(2));
    set(&store, "a", "1");
    set(&store, "a", "2");
    faults.blackout(Blackout::Refuse);
    faults.restore();
    assert_eq!(delivered(&watch), ["live", "disconnected", "a=2", "live"]);
}

#[test]
fn late_events_arrive_without_further_calls() {
    let store = timed();
    let watch = store.watch(BUCKET, "").unwrap();
    let late = Duration::from_millis(10);
    store.faults().delay_watch_events(late);
    let next = || short(&watch.events.recv_deadline(soon()).unwrap());
    assert_eq!(next(), "live");
    // Repeated, so that the thread is met both waiting and running.
    for _ in 0..20 {
        let begin = Instant::now();
        set(&store, "a", "1");
        assert_eq!(next(), "a=1");
        assert!(begin.elapsed() >= late);
    }
}

#[test]
fn held_write_reaches_watches_without_further_calls() {
    let store = timed();
    let other = store.client("other");
    let watch = other.watch(BUCKET, "").unwrap();
    let next = || short(&watch.events.recv_deadline(soon()).unwrap());
    assert_eq!(next(), "live");
    let hold = Fault::Hold(Some(Duration::from_millis(10)));
    // Repeated, so that the thread is met both waiting and running.
    for _ in 0..20 {
        store.faults().next(&Call::WRITES, 1, hold.clone());
        let outcome = write(&store, put("a", "1"));
        assert!(matches!(outcome, Outcome::Unknown(_)));
        assert_eq!(next(), "a=1");
    }
}

#[test]
fn after_blackout_watch_receives_exactly_missed_changes() {
    let (store, clock) = driven();
    let other = store.client("other");
    for key in ["changed", "deleted", "expiring", "same"] {
        set(&other, key, "1");
    }
    let watch = store.watch(BUCKET, "").unwrap();
    assert_eq!(delivered(&watch).len(), 5);
    store.faults().blackout(Blackout::Refuse);
    clock.advance(TTL / 2);
    for key in ["changed", "created", "same.new"] {
        set(&other, key, "2");
    }
    set(&other, "changed", "3");
    set(&other, "same", "1");
    store.faults().restore();
    assert_eq!(
        delivered(&watch),
        [
            "disconnected",
            "created=2",
            "same.new=2",
            "changed=3",
            "same=1",
            "live"
        ]
    );

    store.faults().blackout(Blackout::Refuse);
    let delete = Write {
        value: None,
        ..put("deleted", "")
    };
    assert!(matches!(write(&other, delete), Outcome::Done(_)));
    clock.advance(TTL / 2);
    store.faults().restore();
    assert_eq!(
        delivered(&watch),
        ["disconnected", "expiring?", "deleted-", "live"]
    );
}

#[test]
fn watch_opened_while_disconnected_waits_for_recovery() {
    let (store, _) = driven();
    set(&store, "a", "1");
    store.faults().disconnect_watches("simulated");
    let watch = store.watch(BUCKET, "").unwrap();
    set(&store, "b", "1");
    assert_eq!(delivered(&watch), ["disconnected"]);
    store.faults().blackout(Blackout::Hang);
    store.faults().recover_watches();
    assert_eq!(delivered(&watch), [""; 0]);
    store.faults().restore();
    assert_eq!(delivered(&watch), ["a=1", "b=1", "live"]);
}

#[test]
fn watches_of_other_clients_stay_connected() {
    let (store, _) = driven();
    let other = store.client("other");
    let watch = other.watch(BUCKET, "").unwrap();
    store.faults().blackout(Blackout::Hang);
    store.faults().lose_watch_events(5);
    set(&other, "a", "1");
    assert_eq!(delivered(&watch), ["live", "a=1"]);
}

#[test]
fn purge_is_silent_until_next_resynchronisation() {
    let (store, _) = driven();
    set(&store, "a", "1");
    set(&store, "b", "1");
    let watch = store.watch(BUCKET, "").unwrap();
    store.server().purge(BUCKET);
    set(&store, "b", "2");
    assert_eq!(delivered(&watch), ["a=1", "b=1", "live", "b=2"]);
    store.faults().disconnect_watches("simulated");
    store.faults().recover_watches();
    assert_eq!(delivered(&watch), ["disconnected", "a?", "live"]);
}

#[test]
fn deleted_bucket_disconnects_watches_until_recreated() {
    let (store, _) = driven();
    set(&store, "a", "1");
    set(&store, "b", "1");
    let watch = store.watch(BUCKET, "").unwrap();
    store.server().delete_bucket(BUCKET);
    assert_eq!(delivered(&watch), ["a=1", "b=1", "live", "disconnected"]);
    ensure(&store);
    assert_eq!(delivered(&watch), ["a?", "b?", "live"]);
    // The same number as in the former bucket, with a different value.
    assert_eq!(set(&store, "a", "2"), 1);
    assert_eq!(delivered(&watch), ["a=2"]);
}

#[test]
fn values_and_markers_expire_in_chronological_order() {
    let (store, clock) = driven_by(MemoryStore::builder().expiry_markers(true));
    let watch = store.watch(BUCKET, "").unwrap();
    set(&store, "b", "1");
    clock.advance(TTL / 3);
    set(&store, "a", "1");
    assert_eq!(store.next_due(), Some(Time::ZERO + TTL));
    clock.advance(TTL - TTL / 3);
    store.tick();
    assert_eq!(delivered(&watch), ["live", "b=1", "a=1", "b!"]);
    clock.advance(TTL / 3);
    store.tick();
    assert_eq!(delivered(&watch), ["a!"]);
    // The markers last for another TTL and leave nothing.
    let markers = store.list(BUCKET, "", soon()).unwrap();
    assert_eq!((markers.entries.len(), markers.last_sequence), (2, 4));
    clock.advance(TTL);
    let empty = store.list(BUCKET, "", soon()).unwrap();
    assert_eq!((empty.entries.len(), empty.last_sequence), (0, 4));
    assert_eq!(delivered(&watch), [""; 0]);
    assert_eq!(store.next_due(), None);
}

#[test]
fn long_time_step_is_processed_in_order() {
    let (store, clock) = driven_by(MemoryStore::builder().expiry_markers(true));
    let watch = store.watch(BUCKET, "").unwrap();
    let renewal = Fault::Hold(Some(TTL / 2));
    set(&store, "renewed", "1");
    set(&store, "lapsing", "1");
    store.faults().next(&Call::WRITES, 1, renewal);
    assert!(matches!(
        write(&store, put("renewed", "2")),
        Outcome::Unknown(_)
    ));
    clock.advance(TTL + TTL / 4);
    store.tick();
    assert_eq!(
        delivered(&watch),
        ["live", "renewed=1", "lapsing=1", "renewed=2", "lapsing!"]
    );
    let renewed = store.read(BUCKET, "renewed", soon()).unwrap().unwrap();
    assert_eq!(renewed.age, Some(TTL - TTL / 4));
}

#[test]
fn manual_store_has_no_thread_and_watching_store_has_one_until_stop() {
    let (driven, _) = driven();
    let _watch = driven.watch(BUCKET, "").unwrap();
    assert!(driven.0.thread.lock().is_none());

    let store = timed();
    assert!(store.0.thread.lock().is_none());
    let _first = store.watch(BUCKET, "").unwrap();
    let thread = store.0.thread.lock().clone().unwrap();
    let _second = store.watch(BUCKET, "").unwrap();
    assert!(Arc::ptr_eq(
        &thread,
        store.0.thread.lock().as_ref().unwrap()
    ));
    assert!(thread.join(Instant::now()).is_err());
    store.stop(soon()).unwrap();
    assert!(thread.join(Instant::now()).is_ok());
}

#[test]
fn dropping_last_clone_of_client_stops_it() {
    let store = timed();
    let client = store.client("short-lived");
    let clone = client.clone();
    let watch = client.watch(BUCKET, "").unwrap();
    drop(client);
    assert_eq!(clone.health(), Health::Connected);
    drop(clone);
    let events: Vec<_> = watch.events.iter().map(|event| short(&event)).collect();
    assert_eq!(events, ["live"]);
    set(&store, "a", "other watches continue");
}

#[test]
fn dropped_watch_leaves_nothing_behind() {
    let (store, _) = driven();
    for _ in 0..100 {
        let watch = store.watch(BUCKET, "").unwrap();
        drop(watch);
    }
    let Watch { .. } = store.watch(BUCKET, "").unwrap();
    assert_eq!(store.0.world.with(|state, _| state.watches()), 0);
}

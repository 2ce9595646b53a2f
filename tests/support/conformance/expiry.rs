//! The expiry of values by the TTL of their bucket.

use divvy::store::{Bucket, Expect, Operation, Outcome, WatchEvent};

use super::*;

const EXPIRING: Bucket = Bucket::Heartbeat;

fn ready_to_expire(fixture: &dyn Fixture) -> Arc<dyn Store> {
    ready_with(fixture, EXPIRING, Some(fixture.ttl()))
}

fn beat(store: &dyn Store, key: &str) -> Revision {
    done(write_in(store, EXPIRING, put(key, b"alive", Expect::Any)))
}

fn read(store: &dyn Store, key: &str) -> Option<Entry> {
    store.read(EXPIRING, key, soon()).unwrap()
}

/// Waits for the TTL, and then until the store has detected the expiry.
fn let_expire(fixture: &dyn Fixture, store: &dyn Store, key: &str) {
    fixture.pass(fixture.ttl());
    eventually(fixture, "the value expires", || {
        read(store, key).is_none_or(|entry| !entry.is_live())
    });
}

pub fn value_expires_after_bucket_ttl(fixture: &dyn Fixture) {
    let store = ready_to_expire(fixture);
    let revision = beat(&*store, "p.a");
    assert!(read(&*store, "p.a").unwrap().is_live());
    let_expire(fixture, &*store, "p.a");
    let listing = store.list(EXPIRING, "p", soon()).unwrap();
    if fixture.expiry_markers() {
        assert_eq!(listing.entries.len(), 1);
        let marker = &listing.entries[0];
        assert_eq!(
            (&marker.key[..], marker.operation),
            ("p.a", Operation::Expired)
        );
        assert!(marker.value.is_empty());
        assert!(marker.revision > revision);
        assert_eq!(listing.last_sequence, marker.revision);
    } else {
        assert_eq!(listing.entries, []);
        assert_eq!(listing.last_sequence, revision);
        assert_eq!(read(&*store, "p.a"), None);
    }
}

pub fn without_ttl_nothing_expires(fixture: &dyn Fixture) {
    let store = ready_to_expire(fixture);
    ready(fixture);
    let kept = set(&*store, "p.a", b"1");
    beat(&*store, "p.a");
    let_expire(fixture, &*store, "p.a");
    let entry = store.read(BUCKET, "p.a", soon()).unwrap().unwrap();
    assert_eq!((entry.revision, entry.operation), (kept, Operation::Put));
}

pub fn rewritten_value_gets_new_ttl(fixture: &dyn Fixture) {
    let store = ready_to_expire(fixture);
    beat(&*store, "p.idle");
    let mut last = beat(&*store, "p.busy");
    // Two and a half times the TTL in total, a quarter of it at first.
    for _ in 0..10 {
        fixture.pass(fixture.ttl() / 4);
        assert!(read(&*store, "p.busy").unwrap().is_live());
        last = beat(&*store, "p.busy");
    }
    let busy = read(&*store, "p.busy").unwrap();
    assert_eq!((busy.revision, busy.operation), (last, Operation::Put));
    assert!(read(&*store, "p.idle").is_none_or(|idle| !idle.is_live()));
}

pub fn expired_key_can_be_written_again(fixture: &dyn Fixture) {
    let store = ready_to_expire(fixture);
    let value = beat(&*store, "a");
    let_expire(fixture, &*store, "a");
    let stale = put("a", b"x", Expect::Revision(value));
    assert_eq!(write_in(&*store, EXPIRING, stale), conflict());
    // A marker may expire too, so read the current value first, as a careful writer does.
    let create = || {
        let revision = read(&*store, "a").map_or(0, |entry| entry.revision);
        write_in(
            &*store,
            EXPIRING,
            put("a", b"again", Expect::Revision(revision)),
        )
    };
    let outcome = create();
    let revision = match outcome {
        Outcome::Done(revision) => revision,
        _ => done(create()),
    };
    assert!(revision > value);
    assert_eq!(read(&*store, "a").unwrap().value, b"again");
}

pub fn watch_sees_expiry_only_by_its_marker(fixture: &dyn Fixture) {
    let store = ready_to_expire(fixture);
    let watch = store.watch(EXPIRING, "p").unwrap();
    assert_eq!(next(fixture, &watch), WatchEvent::Live);
    let revision = beat(&*store, "p.a");
    assert_eq!(next_change(fixture, &watch).revision, revision);
    fixture.pass(fixture.ttl());
    if fixture.expiry_markers() {
        // No call is made meanwhile: the store must report the expiry on its own.
        let marker = next_change(fixture, &watch);
        assert_eq!(
            (&marker.key[..], marker.operation),
            ("p.a", Operation::Expired)
        );
        assert!(marker.revision > revision);
    } else {
        eventually(fixture, "the value expires", || {
            read(&*store, "p.a").is_none()
        });
    }
    let again = beat(&*store, "p.a");
    assert_eq!(next_change(fixture, &watch).revision, again);
}

//! Reads, listings and buckets.

use std::time::Duration;

use divvy::error::Code;
use divvy::store::{Bucket, BucketConfig, Expect, Operation, Outcome, Refusal};

use super::*;

pub fn key_never_written_has_no_entry(fixture: &dyn Fixture) {
    let store = ready(fixture);
    assert_eq!(store.read(BUCKET, "a", soon()).unwrap(), None);
    let listing = store.list(BUCKET, "", soon()).unwrap();
    assert_eq!(listing.entries, []);
    let first = set(&*store, "a", b"1");
    assert_eq!(first, listing.last_sequence + 1);
}

pub fn reads_of_all_clients_see_every_completed_write(fixture: &dyn Fixture) {
    let writer = ready(fixture);
    let reader = fixture.client();
    for i in 0..100_u8 {
        let revision = set(&*writer, "a", &[i]);
        let read = reader.read(BUCKET, "a", soon()).unwrap().unwrap();
        assert_eq!((read.revision, read.value), (revision, vec![i]));
        let listing = reader.list(BUCKET, "", soon()).unwrap();
        assert_eq!(listing.entries[0].revision, revision);
        assert_eq!(listing.last_sequence, revision);
    }
}

pub fn list_matches_prefix_followed_by_dot(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let all = [
        "heartbeat",
        "heartbeat-x.a",
        "heartbeat.a",
        "heartbeat.b.c",
        "heartbeat/y.a",
        "heartbeatx.a",
        "other.heartbeat.a",
    ];
    for key in all {
        set(&*store, key, b"1");
    }
    let under = |prefix: &str| store.list(BUCKET, prefix, soon()).unwrap().entries;
    assert_eq!(keys(&under("heartbeat")), ["heartbeat.a", "heartbeat.b.c"]);
    assert_eq!(keys(&under("heartbeat.b")), ["heartbeat.b.c"]);
    assert_eq!(keys(&under("heartbeat.a")), [""; 0]);
    assert_eq!(keys(&under("missing")), [""; 0]);
    assert_eq!(keys(&under("")), all);
}

pub fn list_shows_markers_and_last_sequence(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let live = set(&*store, "p.live", b"1");
    set(&*store, "p.dead", b"2");
    let marker = done(write(&*store, delete("p.dead", Expect::Any)));
    let elsewhere = set(&*store, "q.other", b"3");

    let listing = store.list(BUCKET, "p", soon()).unwrap();
    assert_eq!(listing.last_sequence, elsewhere);
    let entries = timeless(listing.entries);
    assert_eq!(keys(&entries), ["p.dead", "p.live"]);
    assert_eq!(
        (entries[0].operation, entries[0].revision),
        (Operation::Delete, marker)
    );
    assert!(entries[0].value.is_empty());
    assert_eq!(
        (entries[1].operation, entries[1].revision),
        (Operation::Put, live)
    );
    assert_eq!(entries[1].value, b"1");
}

pub fn age_is_time_since_write(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let before = Instant::now();
    set(&*store, "p.a", b"1");
    let passed = Duration::from_millis(300);
    fixture.pass(passed);
    let read = store.read(BUCKET, "p.a", soon()).unwrap().unwrap();
    let listed = store.list(BUCKET, "p", soon()).unwrap().entries.remove(0);
    // The age may be unknown. If it is known, it must be right to the resolution of the clock.
    for age in [read.age, listed.age].into_iter().flatten() {
        assert!(age >= passed - Duration::from_millis(20), "{age:?}");
        assert!(age <= passed + before.elapsed(), "{age:?}");
    }
}

/// Values that foreign programs can store: not UTF-8, not JSON, an illegal key, a huge value.
pub const FOREIGN: [(&str, &[u8]); 5] = [
    ("p.bytes", &[0xff, 0xfe, 0x00, 0x80]),
    ("p.empty", b""),
    ("p.lines", b"a\r\nNATS/1.0\r\nKV-Operation: DEL\r\n\r\n"),
    ("p.w$rker!", b"{\"worker\":"),
    ("p.wörker", b"null"),
];

pub fn foreign_bytes_are_read_unchecked(fixture: &dyn Fixture) {
    let store = ready(fixture);
    for (key, value) in FOREIGN {
        fixture.put_raw(BUCKET, key, value);
    }
    let entries = timeless(store.list(BUCKET, "p", soon()).unwrap().entries);
    let listed: Vec<_> = entries
        .iter()
        .map(|e| (e.key.as_str(), &e.value[..]))
        .collect();
    assert_eq!(listed, FOREIGN);
    assert!(entries.iter().all(divvy::store::Entry::is_live));
    let read = store.read(BUCKET, "p.bytes", soon()).unwrap().unwrap();
    assert_eq!(read.value, FOREIGN[0].1);
    let error = store.read(BUCKET, "p.w$rker!", soon()).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    set(&*store, "p.bytes", b"still works");
}

pub fn missing_bucket_is_unavailable(fixture: &dyn Fixture) {
    let store = fixture.client();
    let deadline = || Instant::now() + Duration::from_secs(5);
    let read = store.read(BUCKET, "a", deadline()).unwrap_err();
    assert_eq!(read.code(), Code::Unavailable, "{read}");
    let list = store.list(BUCKET, "", deadline()).unwrap_err();
    assert_eq!(list.code(), Code::Unavailable, "{list}");
    let outcomes = store.write(BUCKET, &[put("a", b"1", Expect::Any)], deadline());
    assert!(
        matches!(outcomes[0], Outcome::Refused(Refusal::Unavailable(_))),
        "{outcomes:?}"
    );
    store
        .ensure(BUCKET, BucketConfig { ttl: None }, soon())
        .unwrap();
    set(&*store, "a", b"1");
}

pub fn existing_bucket_is_used_unchanged(fixture: &dyn Fixture) {
    let store = fixture.client();
    let ensure = |bucket, ttl| store.ensure(bucket, BucketConfig { ttl }, soon()).unwrap();
    let ttl = Some(fixture.ttl());
    let created = ensure(Bucket::Heartbeat, ttl);
    assert_eq!(created.ttl, ttl);
    assert_eq!(created.history, 1);
    assert!(created.replicas >= 1);
    let revision = done(write_in(
        &*store,
        Bucket::Heartbeat,
        put("a", b"1", Expect::Any),
    ));
    assert_eq!(revision, created.last_sequence + 1);
    for other in [None, Some(fixture.ttl() * 2), ttl] {
        let found = ensure(Bucket::Heartbeat, other);
        assert_eq!((found.ttl, found.last_sequence), (ttl, revision));
        assert_eq!(found.incarnation, created.incarnation);
        assert_eq!(found.name, created.name);
    }
    assert_eq!(ensure(Bucket::Assignment, None).ttl, None);
}

pub fn recreated_bucket_has_new_incarnation(fixture: &dyn Fixture) {
    let store = fixture.client();
    let config = BucketConfig { ttl: None };
    let first = store.ensure(BUCKET, config, soon()).unwrap();
    set(&*store, "a", b"1");
    set(&*store, "a", b"2");
    fixture.recreate(BUCKET, config);
    let second = store.ensure(BUCKET, config, soon()).unwrap();
    assert_ne!(first.incarnation, second.incarnation);
    assert_eq!(store.read(BUCKET, "a", soon()).unwrap(), None);
    let revision = done(write(&*store, put("a", b"3", Expect::Revision(0))));
    assert_eq!(revision, second.last_sequence + 1);
    let a = store.read(BUCKET, "a", soon()).unwrap().unwrap();
    assert_eq!((a.revision, &a.value[..]), (revision, &b"3"[..]));
}

pub fn reads_with_past_deadline_time_out(fixture: &dyn Fixture) {
    let store = ready(fixture);
    set(&*store, "a", b"1");
    let config = BucketConfig { ttl: None };
    let errors = [
        store.read(BUCKET, "a", past()).unwrap_err(),
        store.list(BUCKET, "", past()).unwrap_err(),
        store.ensure(Bucket::Election, config, past()).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.code(), Code::TimedOut, "{error}");
    }
    let election = store.read(Bucket::Election, "a", soon()).unwrap_err();
    assert_eq!(
        election.code(),
        Code::Unavailable,
        "the bucket was created by a call that should send nothing"
    );
}

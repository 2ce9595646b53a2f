//! Watches: the state and every change; a loss is always reported.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use divvy::error::Code;
use divvy::store::{BucketConfig, Entry, Expect, Operation, WatchEvent};

use super::reads::FOREIGN;
use super::writes::HOSTILE_KEYS;
use super::*;

pub fn watch_delivers_state_then_live_then_changes(fixture: &dyn Fixture) {
    let store = ready(fixture);
    set(&*store, "a", b"old");
    let a = set(&*store, "a", b"1");
    let b = set(&*store, "b", b"2");
    set(&*store, "gone", b"3");
    done(write(&*store, delete("gone", Expect::Any)));

    let watch = store.watch(BUCKET, "").unwrap();
    let state = timeless(until_live(fixture, &watch));
    let live: Vec<_> = state.iter().filter(|e| e.is_live()).collect();
    assert_eq!(live.len(), 2);
    assert_eq!((&live[0].key[..], live[0].revision), ("a", a));
    assert_eq!(live[0].value, b"1");
    assert_eq!((&live[1].key[..], live[1].revision), ("b", b));

    let changed = set(&*store, "a", b"4");
    let created = set(&*fixture.client(), "c", b"5");
    let deleted = done(write(&*store, delete("b", Expect::Any)));
    for (key, revision, operation, value) in [
        ("a", changed, Operation::Put, &b"4"[..]),
        ("c", created, Operation::Put, &b"5"[..]),
        ("b", deleted, Operation::Delete, &b""[..]),
    ] {
        let entry = next_change(fixture, &watch);
        assert_eq!((&entry.key[..], entry.revision), (key, revision));
        assert_eq!((entry.operation, &entry.value[..]), (operation, value));
    }
}

pub fn watch_of_one_key_matches_no_other(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let first = set(&*store, "p.a", b"1");
    set(&*store, "p.a.b", b"not this");
    set(&*store, "p", b"nor this");
    let watch = store.watch_key(BUCKET, "p.a").unwrap();
    assert_eq!(next_change(fixture, &watch).revision, first);
    assert_eq!(next(fixture, &watch), WatchEvent::Live);
    set(&*store, "p.ab", b"nor this");
    let second = set(&*store, "p.a", b"2");
    assert_eq!(next_change(fixture, &watch).revision, second);
    assert!(store.watch_key(BUCKET, "").is_err());
    assert!(store.watch_key(BUCKET, "p.*").is_err());
}

pub fn watch_of_empty_bucket_is_live_at_once(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let watch = store.watch(BUCKET, "p").unwrap();
    assert_eq!(next(fixture, &watch), WatchEvent::Live);
    let revision = set(&*store, "p.a", b"1");
    assert_eq!(next_change(fixture, &watch).revision, revision);
}

pub fn concurrent_changes_arrive_in_order_and_last_of_each_key_always(fixture: &dyn Fixture) {
    const WRITERS: usize = 4;
    const WRITES: usize = 100;
    let store = ready(fixture);
    let watch = store.watch(BUCKET, "p").unwrap();
    assert_eq!(next(fixture, &watch), WatchEvent::Live);

    let written: BTreeMap<Revision, Vec<u8>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || {
                    let client = fixture.client();
                    let write = |i| {
                        let key = if i % 2 == 0 { "p.shared" } else { "p.own" };
                        let value = format!("{writer}/{i}").into_bytes();
                        (set(&*client, key, &value), value)
                    };
                    (0..WRITES).map(write).collect::<Vec<_>>()
                })
            })
            .collect();
        let threads = threads.into_iter();
        threads.flat_map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(written.len(), WRITERS * WRITES);

    // A change superseded by the next one of its key may be omitted; the last one may not.
    let (entries, _) = contents(&*store, BUCKET);
    let last: BTreeMap<String, Revision> =
        entries.into_iter().map(|e| (e.key, e.revision)).collect();
    let mut seen: BTreeMap<String, Revision> = BTreeMap::new();
    while seen != last {
        let entry = next_change(fixture, &watch);
        assert_eq!(written.get(&entry.revision), Some(&entry.value));
        let before = seen.insert(entry.key, entry.revision).unwrap_or(0);
        assert!(before < entry.revision);
    }
}

pub fn watch_matches_prefix_followed_by_dot(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let around = [
        "heartbeat",
        "heartbeat-x.a",
        "heartbeatx.a",
        "x.heartbeat.a",
    ];
    for key in around.into_iter().chain(["heartbeat.a"]) {
        set(&*store, key, b"1");
    }
    let watch = store.watch(BUCKET, "heartbeat").unwrap();
    assert_eq!(keys(&until_live(fixture, &watch)), ["heartbeat.a"]);
    for key in around.into_iter().chain(["heartbeat.b.c"]) {
        set(&*store, key, b"2");
    }
    assert_eq!(next_change(fixture, &watch).key, "heartbeat.b.c");
}

/// The state built from a watch: the last value of each key.
#[derive(Default)]
struct Reader {
    live: BTreeMap<String, (Revision, Vec<u8>)>,
    seen: BTreeSet<(String, Revision)>,
    disconnects: usize,
}

impl Reader {
    fn take(&mut self, entry: Entry) {
        let first_time = self.seen.insert((entry.key.clone(), entry.revision));
        if entry.operation == Operation::Gone {
            self.live.remove(&entry.key);
            return;
        }
        assert!(first_time, "{} was delivered twice", entry.key);
        if entry.is_live() {
            let value = (entry.revision, entry.value);
            let before = self.live.insert(entry.key, value.clone());
            assert!(before.is_none_or(|before| before.0 < value.0));
        } else {
            self.live.remove(&entry.key);
        }
    }

    /// Reads up to the next [`WatchEvent::Live`].
    fn catch_up(&mut self, fixture: &dyn Fixture, watch: &Watch) {
        loop {
            match next(fixture, watch) {
                WatchEvent::Change(entry) => self.take(entry),
                WatchEvent::Disconnected(_) => self.disconnects += 1,
                WatchEvent::Live => return,
            }
        }
    }

    fn assert_equals(&self, store: &dyn Store) {
        let (entries, _) = contents(store, BUCKET);
        let live: BTreeMap<_, _> = entries
            .into_iter()
            .filter(Entry::is_live)
            .map(|e| (e.key, (e.revision, e.value)))
            .collect();
        assert!(self.live == live, "the reader's state is not the store's");
    }
}

/// Writes until the queue of the reader overflows.
fn wait_until_full(fixture: &dyn Fixture, watch: &Watch) {
    let deadline = soon();
    while watch.events.len() < fixture.watch_max() {
        assert!(Instant::now() < deadline, "the reader was never too slow");
        fixture.idle();
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// More changes of different keys than the queue holds.
fn flood(fixture: &dyn Fixture) -> usize {
    2 * fixture.watch_max() + 1_000
}

/// Writes `count` keys, pipelined.
fn write_many(store: &dyn Store, count: usize, value: &[u8]) {
    let writes: Vec<_> = (0..count)
        .map(|i| put(&format!("key.{i}"), value, Expect::Any))
        .collect();
    for chunk in writes.chunks(1_000) {
        for outcome in store.write(BUCKET, chunk, soon()) {
            done(outcome);
        }
    }
}

pub fn slow_reader_is_disconnected_and_resynchronises_without_loss(fixture: &dyn Fixture) {
    let store = ready(fixture);
    set(&*store, "key.0", b"before");
    set(&*store, "untouched", b"before");
    let watch = store.watch(BUCKET, "").unwrap();
    let mut reader = Reader::default();
    reader.catch_up(fixture, &watch);

    write_many(&*store, flood(fixture), b"flood");
    done(write(&*store, delete("key.0", Expect::Any)));
    done(write(&*store, delete("key.1", Expect::Any)));
    set(&*store, "key.1", b"rewritten");
    wait_until_full(fixture, &watch);
    reader.catch_up(fixture, &watch);
    assert!(reader.disconnects > 0, "the reader was never too slow");
    reader.assert_equals(&*store);

    // The watch is live again: changes arrive one by one.
    for value in [b"1", b"2"] {
        let revision = set(&*store, "key.0", value);
        let entry = next_change(fixture, &watch);
        assert_eq!((entry.revision, &entry.value[..]), (revision, &value[..]));
        reader.take(entry);
    }
    reader.assert_equals(&*store);
}

pub fn slow_reader_delays_no_other_client(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let slow = store.watch(BUCKET, "").unwrap();
    let other = fixture.client();
    let quick = other.watch(BUCKET, "quick").unwrap();
    assert_eq!(next(fixture, &quick), WatchEvent::Live);
    write_many(&*store, flood(fixture), b"flood");
    let revision = set(&*store, "quick.a", b"1");
    assert_eq!(next_change(fixture, &quick).revision, revision);

    // A second watch of the same client is not delayed either.
    let second = store.watch(BUCKET, "quick").unwrap();
    assert_eq!(until_live(fixture, &second)[0].revision, revision);
    drop(slow);
}

pub fn dropping_watch_never_waits(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let unread = store.watch(BUCKET, "").unwrap();
    let fresh = store.watch(BUCKET, "").unwrap();
    write_many(&*store, flood(fixture), b"flood");
    let another = store.watch(BUCKET, "").unwrap();
    let before = Instant::now();
    drop(unread);
    drop(fresh);
    drop(another);
    let took = before.elapsed();
    assert!(took < std::time::Duration::from_millis(500), "{took:?}");
    set(&*store, "a", b"still works");
    let again = store.watch(BUCKET, "a").unwrap();
    assert_eq!(next(fixture, &again), WatchEvent::Live);
}

pub fn foreign_bytes_reach_watch_unchecked(fixture: &dyn Fixture) {
    let store = ready(fixture);
    fixture.put_raw(BUCKET, FOREIGN[0].0, FOREIGN[0].1);
    let watch = store.watch(BUCKET, "p").unwrap();
    let state = until_live(fixture, &watch);
    assert_eq!(state.len(), 1);
    assert_eq!((&state[0].key[..], &state[0].value[..]), FOREIGN[0]);
    for (key, value) in &FOREIGN[1..] {
        fixture.put_raw(BUCKET, key, value);
    }
    for foreign in &FOREIGN[1..] {
        let entry = next_change(fixture, &watch);
        assert_eq!((&entry.key[..], &entry.value[..]), *foreign);
        assert!(entry.is_live());
    }
    let revision = set(&*store, "p.a", b"still works");
    assert_eq!(next_change(fixture, &watch).revision, revision);
}

pub fn watch_stays_disconnected_until_its_bucket_exists(fixture: &dyn Fixture) {
    let store = fixture.client();
    let watch = store.watch(BUCKET, "").unwrap();
    assert!(matches!(next(fixture, &watch), WatchEvent::Disconnected(_)));
    store
        .ensure(BUCKET, BucketConfig { ttl: None }, soon())
        .unwrap();
    assert_eq!(until_live(fixture, &watch), []);
    let revision = set(&*store, "a", b"1");
    assert_eq!(next_change(fixture, &watch).revision, revision);
}

pub fn watch_survives_recreation_of_its_bucket(fixture: &dyn Fixture) {
    let store = ready(fixture);
    set(&*store, "a", b"first life");
    let last = set(&*store, "b", b"first life");
    let watch = store.watch(BUCKET, "").unwrap();
    assert_eq!(keys(&until_live(fixture, &watch)), ["a", "b"]);

    fixture.recreate(BUCKET, BucketConfig { ttl: None });
    assert!(matches!(next(fixture, &watch), WatchEvent::Disconnected(_)));
    let gone = until_live(fixture, &watch);
    assert_eq!(keys(&gone), ["a", "b"]);
    assert!(gone.iter().all(|e| e.operation == Operation::Gone));
    assert_eq!(gone.iter().map(|e| e.revision).max(), Some(last));

    let revision = set(&*store, "b", b"second life");
    let entry = next_change(fixture, &watch);
    assert_eq!((&entry.key[..], entry.revision), ("b", revision));
    assert_eq!(entry.value, b"second life");
}

pub fn invalid_prefix_is_rejected(fixture: &dyn Fixture) {
    let store = ready(fixture);
    for prefix in HOSTILE_KEYS.into_iter().filter(|key| !key.is_empty()) {
        let error = store.watch(BUCKET, prefix).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{prefix:?}");
    }
}

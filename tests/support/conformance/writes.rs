//! Revisions and conditional writes.

use std::thread;

use divvy::error::Code;
use divvy::store::{Batch, Bucket, BucketConfig, Expect, Operation, Outcome, Refusal, Store};

use super::*;

pub fn every_write_and_delete_takes_next_sequence_number(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let first = set(&*store, "a", b"1");
    let second = set(&*store, "b", b"2");
    let third = done(write(&*store, delete("a", Expect::Any)));
    let fourth = set(&*store, "a", b"4");
    assert!(first > 0);
    assert!(first < second && second < third && third < fourth);

    let a = store.read(BUCKET, "a", soon()).unwrap().unwrap();
    assert_eq!((a.revision, &a.value[..]), (fourth, &b"4"[..]));
    let b = store.read(BUCKET, "b", soon()).unwrap().unwrap();
    assert_eq!((b.revision, &b.value[..]), (second, &b"2"[..]));
    assert_eq!(contents(&*store, BUCKET).1, fourth);
}

pub fn write_on_own_revision_succeeds_only_once(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let first = set(&*store, "a", b"1");
    set(
        &*store,
        "b",
        b"moves the bucket's sequence, not the key's revision",
    );
    let second = done(write(&*store, put("a", b"2", Expect::Revision(first))));
    assert!(second > first);
    for stale in [first, second + 1] {
        let outcome = write(&*store, put("a", b"3", Expect::Revision(stale)));
        assert_eq!(outcome, conflict());
    }
    let a = store.read(BUCKET, "a", soon()).unwrap().unwrap();
    assert_eq!((a.revision, &a.value[..]), (second, &b"2"[..]));
}

pub fn revision_zero_writes_only_key_without_revision(fixture: &dyn Fixture) {
    let store = ready(fixture);
    done(write(&*store, put("a", b"1", Expect::Revision(0))));
    assert_eq!(
        write(&*store, put("a", b"2", Expect::Revision(0))),
        conflict()
    );
    assert_eq!(
        write(&*store, put("b", b"1", Expect::Revision(7))),
        conflict()
    );
    assert_eq!(store.read(BUCKET, "b", soon()).unwrap(), None);
}

pub fn deleted_key_is_rewritten_on_revision_of_its_marker(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let value = set(&*store, "a", b"1");
    let marker = done(write(&*store, delete("a", Expect::Revision(value))));
    for stale in [0, value] {
        let outcome = write(&*store, put("a", b"2", Expect::Revision(stale)));
        assert_eq!(outcome, conflict());
    }
    let again = done(write(&*store, put("a", b"2", Expect::Revision(marker))));
    let a = store.read(BUCKET, "a", soon()).unwrap().unwrap();
    assert_eq!((a.revision, a.operation), (again, Operation::Put));
}

pub fn last_sequence_covers_whole_bucket(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let first = set(&*store, "a", b"1");
    let second = done(write(&*store, put("b", b"1", Expect::LastSequence(first))));
    // A create of a new key by a deposed leader has no other condition that could fail.
    let outcome = write(&*store, put("c", b"1", Expect::LastSequence(first)));
    assert_eq!(outcome, conflict());
    assert_eq!(store.read(BUCKET, "c", soon()).unwrap(), None);
    done(write(&*store, put("c", b"1", Expect::LastSequence(second))));
}

pub fn rejected_writes_change_nothing(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let first = set(&*store, "a", b"1");
    let last = done(write(&*store, delete("b", Expect::Any)));
    let before = contents(&*store, BUCKET);
    let refused = [
        put("a", b"x", Expect::Revision(0)),
        put("a", b"x", Expect::Revision(last)),
        put("c", b"x", Expect::Revision(first)),
        put("c", b"x", Expect::LastSequence(first)),
        delete("a", Expect::Revision(0)),
        delete("a", Expect::LastSequence(first)),
    ];
    for outcome in store.write(BUCKET, &refused, soon()) {
        assert_eq!(outcome, conflict());
    }
    assert_eq!(contents(&*store, BUCKET), before);
}

pub fn pipelined_writes_are_independent_and_answered_in_order(fixture: &dyn Fixture) {
    let store = ready(fixture);
    set(&*store, "taken", b"before");
    let writes: Vec<_> = (0..300)
        .map(|i| match i % 3 {
            0 => put("taken", b"after", Expect::Revision(0)),
            _ => put(&format!("key.{i}"), b"value", Expect::Revision(0)),
        })
        .collect();
    let outcomes = store.write(BUCKET, &writes, soon());
    assert_eq!(outcomes.len(), writes.len());
    let mut last = 0;
    for (write, outcome) in writes.iter().zip(outcomes) {
        if write.key == "taken" {
            assert_eq!(outcome, conflict());
            continue;
        }
        let revision = done(outcome);
        assert!(revision > last);
        last = revision;
        let entry = store.read(BUCKET, &write.key, soon()).unwrap().unwrap();
        assert_eq!(entry.revision, revision);
    }
    assert_eq!(store.write(BUCKET, &[], soon()), []);
}

pub fn pipelined_writes_of_one_key_keep_last_value(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let writes: Vec<_> = (0..50_u8).map(|i| put("a", &[i], Expect::Any)).collect();
    let revisions: Vec<_> = store
        .write(BUCKET, &writes, soon())
        .into_iter()
        .map(done)
        .collect();
    assert!(revisions.windows(2).all(|pair| pair[0] < pair[1]));
    let a = store.read(BUCKET, "a", soon()).unwrap().unwrap();
    assert_eq!((a.value, Some(&a.revision)), (vec![49], revisions.last()));
}

pub fn deletes_honour_conditions_and_leave_marker(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let first = set(&*store, "a", b"1");
    let second = set(&*store, "a", b"2");
    assert_eq!(
        write(&*store, delete("a", Expect::Revision(first))),
        conflict()
    );
    let marker = done(write(&*store, delete("a", Expect::Revision(second))));
    let missing = done(write(&*store, delete("never.written", Expect::Revision(0))));
    for (key, revision) in [("a", marker), ("never.written", missing)] {
        let entry = store.read(BUCKET, key, soon()).unwrap().unwrap();
        assert_eq!(entry.revision, revision);
        assert_eq!(entry.operation, Operation::Delete);
        assert!(!entry.is_live() && entry.value.is_empty());
    }
}

pub fn values_are_any_bytes_up_to_limit(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let limit = store.capabilities(BUCKET, soon()).unwrap().value_max;
    assert!(limit >= 64 << 10, "{limit}");
    let all_bytes: Vec<u8> = (0..=u8::MAX).collect();
    let largest = vec![b'x'; limit];
    for value in [&b""[..], &all_bytes, &largest] {
        let revision = set(&*store, "a", value);
        let a = store.read(BUCKET, "a", soon()).unwrap().unwrap();
        assert_eq!((a.revision, a.operation), (revision, Operation::Put));
        assert!(a.value == value, "{} bytes came back changed", value.len());
    }
    let too_large = vec![b'x'; limit + 1];
    let outcomes = store.write(
        BUCKET,
        &[
            put("a", &too_large, Expect::Any),
            put("b", b"fits", Expect::Any),
        ],
        soon(),
    );
    let size = limit + 1;
    assert_eq!(
        outcomes[0],
        Outcome::Refused(Refusal::TooLarge { size, limit })
    );
    assert!(matches!(outcomes[1], Outcome::Done(_)));
    let a = store.read(BUCKET, "a", soon()).unwrap().unwrap();
    assert_eq!(a.value.len(), limit);
}

/// Keys that a NATS bucket cannot store, or that would address another bucket.
pub const HOSTILE_KEYS: [&str; 14] = [
    "", " ", ".", "a.", ".a", "a..b", "a b", "a*", "*", ">", "a\0", "a\r\nb", "a\tb", "é",
];

pub fn invalid_keys_are_rejected_without_affecting_other_writes(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let longest = "k".repeat(512);
    let too_long = "k".repeat(513);
    for key in HOSTILE_KEYS.into_iter().chain([too_long.as_str()]) {
        let writes = [
            put("before", b"1", Expect::Any),
            put(key, b"1", Expect::Any),
            put("after", b"1", Expect::Any),
        ];
        let outcomes = store.write(BUCKET, &writes, soon());
        assert!(matches!(outcomes[0], Outcome::Done(_)), "{key:?}");
        assert!(
            matches!(outcomes[1], Outcome::Refused(Refusal::Invalid(_))),
            "{key:?}: {:?}",
            outcomes[1]
        );
        assert!(matches!(outcomes[2], Outcome::Done(_)), "{key:?}");
        let error = store.read(BUCKET, key, soon()).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{key:?}");
        if !key.is_empty() {
            let error = store.list(BUCKET, key, soon()).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{key:?}");
        }
    }
    for key in [longest.as_str(), "a-b/c_d=E.9"] {
        set(&*store, key, b"1");
        assert!(store.read(BUCKET, key, soon()).unwrap().is_some());
    }
}

pub fn buckets_number_their_writes_independently(fixture: &dyn Fixture) {
    let store = fixture.client();
    let empty = Bucket::ALL.map(|bucket| {
        let config = BucketConfig { ttl: None };
        store.ensure(bucket, config, soon()).unwrap().last_sequence
    });
    for (count, bucket) in Bucket::ALL.into_iter().enumerate() {
        for _ in 0..=count {
            done(write_in(
                &*store,
                bucket,
                put("same.key", bucket.default_name().as_bytes(), Expect::Any),
            ));
        }
    }
    for (count, bucket) in Bucket::ALL.into_iter().enumerate() {
        let (entries, last) = contents(&*store, bucket);
        assert_eq!(last, empty[count] + count as u64 + 1);
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].value, bucket.default_name().as_bytes());
    }
}

pub fn concurrent_conditional_writes_lose_no_update(fixture: &dyn Fixture) {
    const WRITERS: u64 = 4;
    const STEPS: u64 = 25;
    let store = ready(fixture);
    set(&*store, "counter", b"0");
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let client = fixture.client();
                for _ in 0..STEPS {
                    increment(&*client);
                }
            });
        }
    });
    let counter = store.read(BUCKET, "counter", soon()).unwrap().unwrap();
    assert_eq!(counter.value, (WRITERS * STEPS).to_string().into_bytes());
}

/// Increments by compare-and-set until no other writer was faster.
fn increment(store: &dyn Store) {
    let deadline = soon();
    while Instant::now() < deadline {
        let entry = store.read(BUCKET, "counter", soon()).unwrap().unwrap();
        let count: u64 = String::from_utf8(entry.value).unwrap().parse().unwrap();
        let next = (count + 1).to_string();
        let expect = Expect::Revision(entry.revision);
        match write(store, put("counter", next.as_bytes(), expect)) {
            Outcome::Done(_) => return,
            Outcome::Refused(Refusal::Conflict | Refusal::Busy) => {}
            other => panic!("{other:?}"),
        }
    }
    panic!("the counter could not be raised");
}

pub fn past_deadline_sends_nothing(fixture: &dyn Fixture) {
    let store = ready(fixture);
    set(&*store, "a", b"1");
    let before = contents(&*store, BUCKET);
    let late = put("b", b"2", Expect::Any);
    let outcomes = store.write(BUCKET, &[late.clone(), late.clone()], past());
    assert_eq!(outcomes.len(), 2);
    for outcome in outcomes {
        assert!(
            matches!(outcome, Outcome::Refused(Refusal::Unavailable(_))),
            "{outcome:?}"
        );
    }
    if fixture.batches() {
        let batch = Batch {
            fence: None,
            writes: vec![late],
        };
        let outcome = store.write_batch(BUCKET, &batch, past());
        assert!(
            matches!(outcome, Outcome::Refused(Refusal::Unavailable(_))),
            "{outcome:?}"
        );
    }
    assert_eq!(contents(&*store, BUCKET), before);
}

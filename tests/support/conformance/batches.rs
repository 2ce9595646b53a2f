//! Atomic batches, or their documented absence.

use std::thread;

use divvy::store::{Batch, Expect, Outcome, Refusal, Store, Write};
use divvy::types::Revision;

use super::*;

fn batch(fence: Option<(&str, Revision)>, writes: Vec<Write>) -> Batch {
    Batch {
        fence: fence.map(|(key, revision)| (key.to_owned(), revision)),
        writes,
    }
}

fn is_invalid(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Refusal::Invalid(_)))
}

/// Checks that batches work here, or that they are rejected without effect.
fn batches_work(fixture: &dyn Fixture, store: &dyn Store) -> bool {
    if fixture.batches() {
        return true;
    }
    let before = contents(store, BUCKET);
    let one = batch(None, vec![put("a", b"1", Expect::Any)]);
    let outcome = store.write_batch(BUCKET, &one, soon());
    assert!(is_invalid(&outcome), "{outcome:?}");
    assert_eq!(contents(store, BUCKET), before);
    false
}

pub fn batches_are_offered_where_required(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let capabilities = store.capabilities(BUCKET, soon()).unwrap();
    assert_eq!(capabilities.batch_max > 0, fixture.batches());
    assert!(!capabilities.description.is_empty());
    batches_work(fixture, &*store);
}

pub fn batch_is_numbered_without_gaps(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let fence = set(&*store, "fence", b"1");
    let old = set(&*store, "key.old", b"1");
    let leaver = set(&*store, "key.leaver", b"1");
    if !batches_work(fixture, &*store) {
        return;
    }
    let writes = vec![
        put("commit", b"2", Expect::Any),
        put("key.old", b"2", Expect::Revision(old)),
        put("key.new", b"2", Expect::Revision(0)),
        delete("key.leaver", Expect::Revision(leaver)),
    ];
    let fenced = batch(Some(("fence", fence)), writes);
    let last = done(store.write_batch(BUCKET, &fenced, soon()));
    let (entries, last_sequence) = contents(&*store, BUCKET);
    assert_eq!(last_sequence, last);
    let revisions: Vec<_> = entries
        .iter()
        .map(|e| (e.key.as_str(), e.revision, e.is_live()))
        .collect();
    assert_eq!(
        revisions,
        [
            ("commit", last - 3, true),
            ("fence", fence, true),
            ("key.leaver", last, false),
            ("key.new", last - 1, true),
            ("key.old", last - 2, true),
        ]
    );
}

pub fn one_failed_condition_rejects_whole_batch(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let first = set(&*store, "a", b"1");
    let second = set(&*store, "b", b"1");
    if !batches_work(fixture, &*store) {
        return;
    }
    let before = contents(&*store, BUCKET);
    for stale in [0, first, second + 100] {
        let writes = vec![
            put("a", b"2", Expect::Revision(first)),
            put("b", b"2", Expect::Revision(stale)),
            put("c", b"2", Expect::Revision(0)),
        ];
        let outcome = store.write_batch(BUCKET, &batch(None, writes), soon());
        assert_eq!(outcome, conflict());
        assert_eq!(contents(&*store, BUCKET), before);
    }
    let writes = vec![
        put("a", b"2", Expect::Revision(first)),
        put("b", b"2", Expect::Revision(second)),
    ];
    done(store.write_batch(BUCKET, &batch(None, writes), soon()));
}

pub fn moved_fence_rejects_whole_batch(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let deposed = set(&*store, "fence", b"1");
    let a = set(&*store, "a", b"1");
    let fence = set(&*store, "fence", b"2");
    if !batches_work(fixture, &*store) {
        return;
    }
    let before = contents(&*store, BUCKET);
    let writes = || {
        vec![
            put("commit", b"1", Expect::Any),
            put("a", b"2", Expect::Revision(a)),
            put("never.written", b"2", Expect::Revision(0)),
        ]
    };
    for stale in [0, deposed, fence + 100] {
        let fenced = batch(Some(("fence", stale)), writes());
        let outcome = store.write_batch(BUCKET, &fenced, soon());
        assert_eq!(outcome, conflict(), "fence {stale}");
        assert_eq!(contents(&*store, BUCKET), before);
    }
    let fenced = batch(Some(("fence", fence)), writes());
    done(store.write_batch(BUCKET, &fenced, soon()));
}

pub fn oversized_or_empty_batch_is_rejected(fixture: &dyn Fixture) {
    let store = ready(fixture);
    if !batches_work(fixture, &*store) {
        return;
    }
    let max = store.capabilities(BUCKET, soon()).unwrap().batch_max;
    let of = |count| {
        let key = |i: usize| put(&format!("key.{i}"), b"1", Expect::Any);
        batch(None, (0..count).map(key).collect())
    };
    let before = contents(&*store, BUCKET);
    for count in [0, max + 1] {
        let outcome = store.write_batch(BUCKET, &of(count), soon());
        assert!(is_invalid(&outcome), "{count}: {outcome:?}");
        assert_eq!(contents(&*store, BUCKET), before);
    }
    let last = done(store.write_batch(BUCKET, &of(max), soon()));
    let (entries, last_sequence) = contents(&*store, BUCKET);
    assert_eq!((entries.len(), last_sequence), (max, last));
}

pub fn malformed_batches_are_rejected(fixture: &dyn Fixture) {
    let store = ready(fixture);
    let fence = set(&*store, "fence", b"1");
    let value_max = store.capabilities(BUCKET, soon()).unwrap().value_max;
    if !batches_work(fixture, &*store) {
        return;
    }
    let before = contents(&*store, BUCKET);
    let good = || put("good", b"1", Expect::Any);
    let any = |key: &str| put(key, b"1", Expect::Any);
    let ill_formed = [
        batch(None, vec![put("a", b"1", Expect::LastSequence(fence))]),
        batch(None, vec![good(), any("twice"), any("twice")]),
        batch(Some(("fence", fence)), vec![good(), any("fence")]),
        batch(
            Some(("fence", fence)),
            vec![put("first", b"1", Expect::Revision(0))],
        ),
        batch(Some(("bad key", 0)), vec![good()]),
        batch(None, vec![good(), any("bad*key")]),
    ];
    for ill_formed in ill_formed {
        let outcome = store.write_batch(BUCKET, &ill_formed, soon());
        assert!(is_invalid(&outcome), "{ill_formed:?}: {outcome:?}");
    }
    let size = value_max + 1;
    let too_large = put("large", &vec![0; size], Expect::Any);
    let outcome = store.write_batch(BUCKET, &batch(None, vec![good(), too_large]), soon());
    let limit = value_max;
    assert_eq!(outcome, Outcome::Refused(Refusal::TooLarge { size, limit }));
    assert_eq!(contents(&*store, BUCKET), before);
}

pub fn at_most_one_of_rival_batches_is_applied_completely(fixture: &dyn Fixture) {
    const RIVALS: usize = 3;
    const ROUNDS: usize = 20;
    let store = ready(fixture);
    let mut revisions = [set(&*store, "a", b""), set(&*store, "b", b"")];
    if !batches_work(fixture, &*store) {
        return;
    }
    let rivals: Vec<_> = (0..RIVALS).map(|_| fixture.client()).collect();
    let mut applied = 0;
    for round in 0..ROUNDS {
        let compete = |rival: usize| {
            let value = format!("{round}/{rival}").into_bytes();
            let writes = vec![
                put("a", &value, Expect::Revision(revisions[0])),
                put("b", &value, Expect::Revision(revisions[1])),
            ];
            let outcome = rivals[rival].write_batch(BUCKET, &batch(None, writes), soon());
            (outcome, value)
        };
        let compete = &compete;
        let outcomes: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..RIVALS)
                .map(|rival| scope.spawn(move || compete(rival)))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let (entries, _) = contents(&*store, BUCKET);
        let winners: Vec<_> = outcomes
            .into_iter()
            .filter_map(|(outcome, value)| match outcome {
                Outcome::Done(_) => Some(value),
                Outcome::Refused(Refusal::Conflict | Refusal::Busy) => None,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(winners.len() <= 1, "{winners:?}");
        if let Some(value) = winners.first() {
            applied += 1;
            assert!(entries.iter().all(|entry| entry.value == *value));
        }
        revisions = [entries[0].revision, entries[1].revision];
    }
    assert!(applied > 0, "all rivals were refused in every round");
}

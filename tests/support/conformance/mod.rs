//! The conformance suite: the guarantees of every store.
//!
//! A backend implements [`Fixture`] and calls [`store_conformance!`], which creates one `#[test]`
//! per guarantee. Each test gets its own fixture with buckets that do not exist yet.

pub mod batches;
pub mod expiry;
pub mod lifecycle;
pub mod reads;
pub mod watches;
pub mod writes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use divvy::store::{
    Bucket, BucketConfig, Entry, Expect, Outcome, Refusal, Store, Watch, WatchEvent, Write,
};
use divvy::types::Revision;

/// The bucket of the tests that do not depend on the bucket.
pub const BUCKET: Bucket = Bucket::Assignment;

/// How long a test waits for an expected event before it fails.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A store under test.
pub trait Fixture: Sync {
    /// Another client of the same store.
    fn client(&self) -> Arc<dyn Store>;
    /// Whether the store must support atomic batches.
    fn batches(&self) -> bool;
    /// Whether expiry must write markers.
    fn expiry_markers(&self) -> bool;
    /// A suitable TTL: short, but much longer than a round trip.
    fn ttl(&self) -> Duration;
    /// Advances the time of the store.
    fn pass(&self, time: Duration);
    /// Called repeatedly while a test waits; a store in virtual time advances.
    fn idle(&self);
    /// The number of changes that a watch queues for a slow reader.
    fn watch_max(&self) -> usize;
    /// Writes bytes to a key without any checks, as a foreign program can.
    fn put_raw(&self, bucket: Bucket, key: &str, value: &[u8]);
    /// Deletes and re-creates a bucket.
    fn recreate(&self, bucket: Bucket, config: BucketConfig);
}

/// Creates one test per guarantee, in a module named for the backend. The fixture expression is
/// evaluated for each test.
macro_rules! store_conformance {
    ($backend:ident, $fixture:expr) => {
        mod $backend {
            use super::*;
            store_conformance! { @tests $fixture;
                writes::every_write_and_delete_takes_next_sequence_number
                writes::write_on_own_revision_succeeds_only_once
                writes::revision_zero_writes_only_key_without_revision
                writes::deleted_key_is_rewritten_on_revision_of_its_marker
                writes::last_sequence_covers_whole_bucket
                writes::rejected_writes_change_nothing
                writes::pipelined_writes_are_independent_and_answered_in_order
                writes::pipelined_writes_of_one_key_keep_last_value
                writes::deletes_honour_conditions_and_leave_marker
                writes::values_are_any_bytes_up_to_limit
                writes::invalid_keys_are_rejected_without_affecting_other_writes
                writes::buckets_number_their_writes_independently
                writes::concurrent_conditional_writes_lose_no_update
                writes::past_deadline_sends_nothing
                reads::key_never_written_has_no_entry
                reads::reads_of_all_clients_see_every_completed_write
                reads::list_matches_prefix_followed_by_dot
                reads::list_shows_markers_and_last_sequence
                reads::age_is_time_since_write
                reads::foreign_bytes_are_read_unchecked
                reads::missing_bucket_is_unavailable
                reads::existing_bucket_is_used_unchanged
                reads::recreated_bucket_has_new_incarnation
                reads::reads_with_past_deadline_time_out
                batches::batches_are_offered_where_required
                batches::batch_is_numbered_without_gaps
                batches::one_failed_condition_rejects_whole_batch
                batches::moved_fence_rejects_whole_batch
                batches::oversized_or_empty_batch_is_rejected
                batches::malformed_batches_are_rejected
                batches::at_most_one_of_rival_batches_is_applied_completely
                watches::watch_delivers_state_then_live_then_changes
                watches::watch_of_empty_bucket_is_live_at_once
                watches::concurrent_changes_arrive_in_order_and_last_of_each_key_always
                watches::watch_matches_prefix_followed_by_dot
                watches::watch_of_one_key_matches_no_other
                watches::slow_reader_is_disconnected_and_resynchronises_without_loss
                watches::slow_reader_delays_no_other_client
                watches::dropping_watch_never_waits
                watches::foreign_bytes_reach_watch_unchecked
                watches::watch_stays_disconnected_until_its_bucket_exists
                watches::watch_survives_recreation_of_its_bucket
                watches::invalid_prefix_is_rejected
                expiry::value_expires_after_bucket_ttl
                expiry::without_ttl_nothing_expires
                expiry::rewritten_value_gets_new_ttl
                expiry::expired_key_can_be_written_again
                expiry::watch_sees_expiry_only_by_its_marker
                lifecycle::running_store_is_connected
                lifecycle::every_call_after_stop_is_rejected
                lifecycle::stop_is_idempotent_and_concurrent
                lifecycle::stop_ends_watches_and_health_events
                lifecycle::stopping_one_client_does_not_affect_others
                lifecycle::calls_racing_with_stop_are_harmless
            }
        }
    };
    (@tests $fixture:expr; $($group:ident :: $test:ident)*) => {
        $(
            #[test]
            fn $test() {
                crate::conformance::$group::$test(&$fixture);
            }
        )*
    };
}

/// A deadline that suffices for any working operation.
pub fn soon() -> Instant {
    Instant::now() + TIMEOUT
}

/// A deadline that has passed.
pub fn past() -> Instant {
    let now = Instant::now();
    now.checked_sub(Duration::from_secs(1)).unwrap_or(now)
}

/// Returns a client, and its bucket of this kind without a TTL.
pub fn ready(fixture: &dyn Fixture) -> Arc<dyn Store> {
    ready_with(fixture, BUCKET, None)
}

pub fn ready_with(fixture: &dyn Fixture, bucket: Bucket, ttl: Option<Duration>) -> Arc<dyn Store> {
    let store = fixture.client();
    store.ensure(bucket, BucketConfig { ttl }, soon()).unwrap();
    store
}

pub fn put(key: &str, value: &[u8], expect: Expect) -> Write {
    Write {
        key: key.to_owned(),
        value: Some(value.to_vec()),
        expect,
    }
}

pub fn delete(key: &str, expect: Expect) -> Write {
    Write {
        key: key.to_owned(),
        value: None,
        expect,
    }
}

/// Executes one write.
pub fn write(store: &dyn Store, write: Write) -> Outcome {
    write_in(store, BUCKET, write)
}

pub fn write_in(store: &dyn Store, bucket: Bucket, write: Write) -> Outcome {
    let outcomes = store.write(bucket, &[write], soon());
    assert_eq!(outcomes.len(), 1);
    outcomes.into_iter().next().unwrap()
}

/// Writes a value unconditionally.
pub fn set(store: &dyn Store, key: &str, value: &[u8]) -> Revision {
    done(write(store, put(key, value, Expect::Any)))
}

pub fn done(outcome: Outcome) -> Revision {
    match outcome {
        Outcome::Done(revision) => revision,
        other => panic!("done expected: {other:?}"),
    }
}

pub fn conflict() -> Outcome {
    Outcome::Refused(Refusal::Conflict)
}

/// Returns the content of a bucket, without ages, ordered by key.
pub fn contents(store: &dyn Store, bucket: Bucket) -> (Vec<Entry>, Revision) {
    let listing = store.list(bucket, "", soon()).unwrap();
    (timeless(listing.entries), listing.last_sequence)
}

pub fn timeless(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    for entry in &mut entries {
        entry.age = None;
    }
    entries
}

pub fn keys(entries: &[Entry]) -> Vec<&str> {
    let mut keys: Vec<_> = entries.iter().map(|e| e.key.as_str()).collect();
    keys.sort_unstable();
    keys
}

/// Returns the next event of a watch.
pub fn next(fixture: &dyn Fixture, watch: &Watch) -> WatchEvent {
    let deadline = soon();
    loop {
        match watch.events.recv_timeout(Duration::from_millis(5)) {
            Ok(event) => return event,
            Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => fixture.idle(),
            Err(error) => panic!("the watch delivers nothing: {error}"),
        }
    }
}

/// Returns the next event of a watch, which must be a change.
pub fn next_change(fixture: &dyn Fixture, watch: &Watch) -> Entry {
    match next(fixture, watch) {
        WatchEvent::Change(entry) => entry,
        other => panic!("a change expected: {other:?}"),
    }
}

/// Returns the changes up to the next [`WatchEvent::Live`], whether or not the watch is lost.
pub fn until_live(fixture: &dyn Fixture, watch: &Watch) -> Vec<Entry> {
    let mut entries = Vec::new();
    loop {
        match next(fixture, watch) {
            WatchEvent::Change(entry) => entries.push(entry),
            WatchEvent::Live => return entries,
            WatchEvent::Disconnected(_) => {}
        }
    }
}

/// Waits until the condition holds, advancing the time of the store.
pub fn eventually(fixture: &dyn Fixture, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = soon();
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        fixture.idle();
        std::thread::sleep(Duration::from_millis(2));
    }
}

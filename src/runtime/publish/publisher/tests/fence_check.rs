//! When a publication reads the fence first, and what protects the bucket when it does not.

use super::*;
use crate::store::WatchEvent;
use crate::time::clock::ManualClock;

const EPOCH: Duration = Duration::from_secs(1_764_500_000);

/// Buckets that count from their creation time, as divvy creates them.
fn counting_from_time(batch_max: usize) -> MemoryStore {
    with_clock(batch_max, &ManualClock::new())
}

fn with_clock(batch_max: usize, clock: &ManualClock) -> MemoryStore {
    let builder = MemoryStore::builder().batch_max(batch_max);
    let builder = builder.manual_clock(clock.clone());
    let store = builder.sequences_from_time(EPOCH).build();
    ensure(&store);
    store
}

fn lists() -> [Plan; 2] {
    [
        plan(&[("w-1", &["p"]), ("w-2", &["q"])]),
        plan(&[("w-1", &["q"]), ("w-2", &["p"])]),
    ]
}

/// Store calls of one publication.
fn calls(leader: &mut Leader, plan: &Plan) -> u32 {
    leader.spy.calls();
    leader.publish(plan).unwrap();
    leader.spy.calls()
}

#[test]
fn publication_is_one_call_while_the_watch_is_unbroken() {
    let world = counting_from_time(1_000);
    let [one, other] = lists();
    let mut leader = Leader::leading(&world);
    assert_eq!(calls(&mut leader, &one), 2, "nothing watches the bucket");
    leader.in_force.watch_resynchronised();
    assert_eq!(calls(&mut leader, &other), 2, "not read in this stretch");
    for plan in [&one, &other, &one] {
        assert_eq!(calls(&mut leader, plan), 1);
    }
    leader.in_force.watch_lost();
    for plan in [&other, &one] {
        assert_eq!(calls(&mut leader, plan), 2, "the watch is lost");
    }
    leader.in_force.watch_resynchronised();
    leader.in_force.watch_resynchronised();
    assert_eq!(calls(&mut leader, &other), 2);
    assert_eq!(calls(&mut leader, &one), 1);
    leader.take_over().unwrap();
    assert_eq!(calls(&mut leader, &other), 1, "a take-over reads it, too");
}

#[test]
fn fence_is_read_where_revisions_may_recur_or_keys_are_written_singly() {
    for (world, reads) in [(world(Kind::A), 1), (counting_from_time(0), 2)] {
        let mut leader = Leader::leading(&world);
        leader.in_force.watch_resynchronised();
        assert_eq!(leader.looks(), reads);
        for plan in lists().iter().chain(&lists()) {
            assert!(calls(&mut leader, plan) > reads);
        }
    }
}

/// The leader learns nothing: the batch alone has to fail.
#[test]
fn deposed_leader_cannot_publish_without_reading_the_fence() {
    let [one, other] = lists();
    for recreated in [false, true] {
        let clock = ManualClock::new();
        let world = with_clock(1_000, &clock);
        let mut first = Leader::leading(&world);
        first.in_force.watch_resynchronised();
        for plan in [&one, &other, &one] {
            first.publish(plan).unwrap();
        }
        if recreated {
            // The successor counts from a later time, above all that the bucket has counted.
            clock.advance(Duration::from_millis(50));
            let config = BucketConfig { ttl: None };
            world.server().recreate_bucket(Bucket::Assignment, config);
        }
        let mut second = Leader::leading(&world);
        second.publish(&one).unwrap();
        let after = held(&world);
        for _ in 0..3 {
            let error = first.publish(&other).unwrap_err();
            assert_eq!(error.code(), Code::Fenced, "{error}");
        }
        assert_eq!(held(&world), after);
    }
}

/// A restored copy repeats revisions: here the successor's fence and every key have exactly those
/// that the deposed leader knows.
#[test]
fn restored_bucket_with_recurring_revisions_does_not_revive_deposed_leader() {
    let world = counting_from_time(1_000);
    let [one, other] = lists();
    Leader::leading(&world).publish(&one).unwrap();
    let copy = world.server().snapshot();
    let mut first = Leader::leading(&world);
    let watch = world.watch(Bucket::Assignment, "").unwrap();
    first.in_force.watch_resynchronised();
    let fence_before = entry(&world, FENCE_KEY).unwrap().revision;
    first.publish(&other).unwrap();
    world.server().restore(&copy);
    let mut second = Leader::leading(&world);
    assert_eq!(entry(&world, FENCE_KEY).unwrap().revision, fence_before);
    second.publish(&other).unwrap();
    let after = held(&world);
    // As the watcher does: the restore has ended its watch.
    for event in watch.events.try_iter() {
        match event {
            WatchEvent::Disconnected(_) => first.in_force.watch_lost(),
            WatchEvent::Live => first.in_force.watch_resynchronised(),
            WatchEvent::Change(_) => {}
        }
    }
    assert_eq!(first.publish(&one).unwrap_err().code(), Code::Fenced);
    assert_eq!(held(&world), after);
}

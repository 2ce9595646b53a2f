//! The publish mode follows what the bucket supports, without a change of leader.

use super::*;

fn switch(leader: &Leader, has_batches: bool) {
    let off = &leader.spy.is_without_batches;
    off.store(!has_batches, Ordering::Release);
}

fn two(first: &'static str, second: &'static str) -> Plan {
    plan(&[("a", &[first]), ("b", &[second])])
}

#[test]
fn leader_switches_to_atomic_once_the_bucket_accepts_batches() {
    let world = world(Kind::A);
    let mut leader = Leader::new(&world);
    switch(&leader, false);
    leader.take_over().unwrap();
    leader.publish(&two("p", "q")).unwrap();
    assert_eq!(leader.publisher.mode(), ActiveMode::PerKey);
    assert_eq!(fence(&world).unwrap().class, "B");

    switch(&leader, true);
    assert_eq!(leader.publish(&two("q", "p")).unwrap(), 2);
    assert_eq!(leader.publisher.mode(), ActiveMode::Atomic);
    holds_exactly(&world, &two("q", "p"), 2);
    let fence = fence(&world).unwrap();
    assert_eq!(
        (fence.class.as_str(), fence.leader.as_str()),
        ("A", "divvy")
    );
    assert_eq!(leader.publisher.term(), fence.term);
    // The next leader must rewrite what was published key by key.
    assert!(fence.class_b_until >= 1, "{fence:?}");
}

#[test]
fn leader_switches_to_per_key_when_the_bucket_stops_accepting_batches() {
    let world = world(Kind::A);
    let mut leader = Leader::leading(&world);
    leader.publish(&two("p", "q")).unwrap();
    let before = fence(&world).unwrap();
    assert_eq!(before.class, "A");

    switch(&leader, false);
    let version = leader.publish(&two("q", "p")).unwrap();
    holds_exactly(&world, &two("q", "p"), version);
    let after = fence(&world).unwrap();
    assert_eq!(after.class, "B");
    assert!(after.term > before.term);
    assert!(
        held(&world)
            .values()
            .all(|held| held.term == Some(after.term))
    );

    switch(&leader, true);
    let version = leader.publish(&two("p", "q")).unwrap();
    holds_exactly(&world, &two("p", "q"), version);
    assert_eq!(fence(&world).unwrap().class, "A");
}

#[test]
fn deposed_leader_cannot_switch_modes() {
    let world = world(Kind::A);
    let mut old = Leader::new(&world);
    switch(&old, false);
    old.take_over().unwrap();
    old.publish(&two("p", "q")).unwrap();
    let mut new = Leader::leading(&world);
    new.publish(&two("q", "p")).unwrap();
    let before = held(&world);
    switch(&old, true);
    let error = old.publish(&two("p", "q")).unwrap_err();
    assert_eq!(error.code(), Code::Fenced, "{error}");
    assert_eq!(held(&world), before);
    assert_eq!(fence(&world).unwrap().term, new.publisher.term());
}

#[test]
fn mode_that_is_configured_is_kept_whatever_the_bucket_accepts() {
    let world = world(Kind::A);
    let mut per_key = Leader::in_mode(&world, PublishMode::PerKey);
    per_key.take_over().unwrap();
    per_key.publish(&two("p", "q")).unwrap();
    assert_eq!(per_key.publisher.mode(), ActiveMode::PerKey);

    let mut atomic = Leader::in_mode(&world, PublishMode::Atomic);
    atomic.take_over().unwrap();
    switch(&atomic, false);
    let error = atomic.publish(&two("q", "p")).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert_eq!(atomic.publisher.mode(), ActiveMode::Atomic);
}

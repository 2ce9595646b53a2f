//! Stabilisation windows and the rate limit: joins, leaves, cold start, cooldown.

use super::*;

#[test]
fn join_window_counts_from_first_join_and_is_not_extended() {
    let mut world = World::settled(&["w-1"]);
    world.at(1_000);
    world.join(&["w-2"]);
    world.at(9_000);
    world.join(&["w-3"]);
    world.at(20_000);
    world.expect(
        "1.000 Idle->Scaling planned_scale
         11.000 Scaling->Rebalancing planned_scale
         11.000 plan planned_scale for w-1 w-2 w-3
         11.000 published v8
         11.000 Rebalancing->Idle",
    );
}

#[test]
fn window_of_coalesced_joins_counts_from_first_sighting() {
    let mut world = World::settled(&["w-1"]);
    world.at(1_100);
    world.handle(CalculatorInput::Membership(MembershipEvent::Joined {
        since: Time::from_millis(1_000),
        workers: ids(&["w-2", "w-3"]),
    }));
    world.at(20_000);
    assert_eq!(world.times_of("published"), [11_000]);
}

#[test]
fn reverted_change_closes_window_without_publication() {
    let mut world = World::settled(&["w-1"]);
    world.join(&["w-2"]);
    world.at(5_000);
    world.leave("w-2");
    world.at(60_000);
    world.expect(
        "0.000 Idle->Scaling planned_scale
         5.000 Scaling->Idle",
    );
    assert_eq!(world.calculator.deadline(), None);
}

#[test]
fn graceful_leaves_are_published_after_leave_window_from_first() {
    let mut world = World::settled(&["w-1", "w-2", "w-3"]);
    world.at(1_000);
    world.leave("w-2");
    world.at(1_900);
    world.leave("w-3");
    world.at(20_000);
    world.expect(
        "1.000 Idle->Scaling planned_scale
         2.000 Scaling->Rebalancing planned_scale
         2.000 plan planned_scale for w-1
         2.000 published v8
         2.000 Rebalancing->Idle",
    );
}

#[test]
fn worker_back_within_leave_window_keeps_its_place() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.leave("w-2");
    world.at(500);
    world.join(&["w-2"]);
    world.at(60_000);
    world.expect(
        "0.000 Idle->Scaling planned_scale
         0.500 Scaling->Idle",
    );
}

#[test]
fn join_during_cooldown_is_deferred_exactly_to_its_end() {
    let config = CalculatorConfig {
        planned_scale_window: Duration::from_secs(3),
        ..CalculatorConfig::default()
    };
    let mut world = World::settled_with(config, &["w-1"]);
    world.trigger(1);
    world.at(2_500);
    world.join(&["w-2"]);
    world.at(30_000);
    world.expect(
        "0.000 Idle->Rebalancing manual-refresh
         0.000 plan manual-refresh for w-1
         0.000 published v8
         0.000 Rebalancing->Idle
         0.000 reply 1 v8
         10.000 Idle->Scaling planned_scale
         10.000 Scaling->Rebalancing planned_scale
         10.000 plan planned_scale for w-1 w-2
         10.000 published v9
         10.000 Rebalancing->Idle",
    );
}

#[test]
fn cooldown_is_checked_before_window_that_still_counts_from_join() {
    let mut world = World::settled(&["w-1"]);
    world.trigger(1);
    world.at(5_000);
    world.trace.clear();
    world.join(&["w-2"]);
    world.at(30_000);
    world.expect(
        "10.000 Idle->Scaling planned_scale
         15.000 Scaling->Rebalancing planned_scale
         15.000 plan planned_scale for w-1 w-2
         15.000 published v9
         15.000 Rebalancing->Idle",
    );
}

#[test]
fn leaves_emergencies_and_manual_triggers_bypass_cooldown() {
    let mut world = World::settled(&["w-1", "w-2", "w-3", "w-4"]);
    world.trigger(1);
    world.trigger(2);
    world.leave("w-4");
    world.missing("w-3");
    world.at(9_999);
    assert_eq!(world.times_of("plan manual"), [0, 0]);
    assert_eq!(world.times_of("plan planned_scale"), [1_000]);
    assert_eq!(world.times_of("plan emergency"), [5_000]);
}

#[test]
fn cooldown_outlasts_shorter_window() {
    let config = CalculatorConfig {
        cold_start_window: Duration::from_secs(3),
        ..CalculatorConfig::default()
    };
    let mut world = World::new(config);
    let found = TakeOver {
        heartbeats: beating(&["w-1"]),
        ..stored(&[])
    };
    world.take_over(found);
    world.at(1_000);
    world.join(&["w-2"]);
    world.at(30_000);
    assert_eq!(world.times_of("plan cold_start_immediate"), [0]);
    assert_eq!(world.times_of("plan cold_start_final"), [10_000]);
}

#[test]
fn start_without_workers_waits_for_cold_start_window() {
    let mut world = World::empty();
    world.at(3_000);
    world.join(&["w-2"]);
    world.at(20_000);
    world.join(&["w-1"]);
    world.at(60_000);
    world.expect(
        "3.000 Idle->Scaling cold_start
         33.000 Scaling->Rebalancing cold_start
         33.000 plan cold_start for w-1 w-2
         33.000 published v1
         33.000 Rebalancing->Idle",
    );
}

#[test]
fn abandoned_cold_start_closes_and_next_one_counts_from_scratch() {
    let mut world = World::empty();
    world.join(&["w-1"]);
    world.at(10_000);
    world.missing("w-1");
    world.at(20_000);
    world.join(&["w-1"]);
    world.at(60_000);
    world.expect(
        "0.000 Idle->Scaling cold_start
         10.000 Scaling->Idle
         20.000 Idle->Scaling cold_start
         50.000 Scaling->Rebalancing cold_start
         50.000 plan cold_start for w-1
         50.000 published v1
         50.000 Rebalancing->Idle",
    );
}

#[test]
fn without_live_workers_nothing_is_published_and_next_fleet_cold_starts() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.leave("w-1");
    world.leave("w-2");
    world.at(3_600_000);
    world.expect(
        "0.000 Idle->Scaling planned_scale
         0.000 Scaling->Idle",
    );
    world.join(&["w-3"]);
    world.at(3_700_000);
    world.expect(
        "3600.000 Idle->Scaling cold_start
         3630.000 Scaling->Rebalancing cold_start
         3630.000 plan cold_start for w-3
         3630.000 published v8
         3630.000 Rebalancing->Idle",
    );
}

#[test]
fn fleet_returning_whole_after_total_loss_moves_nothing() {
    let mut world = World::settled(&["w-1"]);
    world.missing("w-1");
    world.at(100_000);
    world.join(&["w-1"]);
    world.at(200_000);
    world.expect(
        "5.000 dead w-1
         100.000 Idle->Scaling cold_start
         130.000 Scaling->Idle",
    );
}

#[test]
fn later_join_during_publication_gets_its_own_window() {
    let config = CalculatorConfig {
        cooldown: Duration::from_secs(1),
        ..CalculatorConfig::default()
    };
    let mut world = World::settled_with(config, &["w-1"]);
    world.job_time = Duration::from_secs(2);
    world.join(&["w-2"]);
    world.at(11_000);
    world.join(&["w-3"]);
    world.at(30_000);
    assert_eq!(world.times_of("plan planned_scale"), [10_000, 21_000]);
    assert_eq!(world.times_of("Idle->Scaling"), [0, 13_000]);
}

#[test]
fn leaves_during_cold_start_are_published_without_waiting_for_its_end() {
    let mut world = World::new(CalculatorConfig::default());
    let found = TakeOver {
        heartbeats: beating(&["w-1", "w-2"]),
        ..stored(&[])
    };
    world.take_over(found);
    world.at(5_000);
    world.leave("w-2");
    world.at(60_000);
    world.expect(
        "0.000 Idle->Rebalancing cold_start_immediate
         0.000 plan cold_start_immediate for w-1 w-2
         0.000 published v1
         0.000 Rebalancing->Idle
         0.000 Idle->Scaling cold_start
         5.000 Scaling->Idle
         5.000 Idle->Scaling planned_scale
         6.000 Scaling->Rebalancing planned_scale
         6.000 plan planned_scale for w-1
         6.000 published v2
         6.000 Rebalancing->Idle
         6.000 Idle->Scaling cold_start
         30.000 Scaling->Idle",
    );
}

#[test]
fn zero_leave_window_publishes_at_once() {
    let config = CalculatorConfig {
        leave_window: Duration::ZERO,
        ..CalculatorConfig::default()
    };
    let mut world = World::settled_with(config, &["w-1", "w-2"]);
    world.leave("w-1");
    world.expect(
        "0.000 Idle->Scaling planned_scale
         0.000 Scaling->Rebalancing planned_scale
         0.000 plan planned_scale for w-2
         0.000 published v8
         0.000 Rebalancing->Idle",
    );
}

/// Symptom: when the last workers were lost one by one, the first to come back was given all their
/// partitions at once, a moment before the others came back as well.
#[test]
fn fleet_declared_dead_one_by_one_gathers_before_rebalance() {
    // A grace beyond the TTL, so that the second suspicion is not a mass expiry.
    let config = CalculatorConfig {
        emergency_grace_period: Duration::from_secs(7),
        ..CalculatorConfig::default()
    };
    let mut world = World::settled_with(config, &["w-1", "w-2"]);
    world.missing("w-1");
    world.at(6_990);
    // No worker is alive when w-1 is declared dead.
    world.missing("w-2");
    world.at(7_100);
    world.expect("7.000 dead w-1");
    world.back("w-2");
    world.back("w-1");
    world.at(90_000);
    world.expect(
        "7.100 Idle->Scaling cold_start
         37.100 Scaling->Idle",
    );
}

#[test]
fn worker_suspected_at_cold_start_is_awaited_until_its_end() {
    let mut world = World::settled(&["w-1", "w-2", "w-3"]);
    world.leave("w-1");
    world.at(500);
    world.missing("w-2");
    world.at(900);
    world.leave("w-3");
    world.at(3_000);
    world.join(&["w-3"]);
    world.at(60_000);
    world.expect(
        "0.000 Idle->Scaling planned_scale
         0.900 Scaling->Idle
         3.000 Idle->Scaling cold_start
         33.000 dead w-2
         33.000 Scaling->Rebalancing cold_start
         33.000 plan cold_start for w-3
         33.000 published v8
         33.000 Rebalancing->Idle",
    );
}

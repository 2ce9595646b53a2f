//! Emergencies, restarts of the fleet, blindness.

use super::*;

#[test]
fn suspected_worker_is_declared_dead_after_grace_and_replaced_at_once() {
    let mut world = World::settled(&["w-1", "w-2", "w-3"]);
    world.at(2_000);
    world.missing("w-2");
    world.at(60_000);
    world.expect(
        "7.000 dead w-2
         7.000 Idle->Emergency emergency
         7.000 plan emergency for w-1 w-3
         7.000 published v8
         7.000 Emergency->Idle",
    );
}

#[test]
fn return_within_grace_clears_suspicion() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.missing("w-2");
    world.at(4_999);
    world.back("w-2");
    world.at(60_000);
    world.expect("");
}

#[test]
fn worker_suspected_during_grace_of_another_is_replaced_later() {
    let mut world = World::settled(&["w-1", "w-2", "w-3", "w-4", "w-5"]);
    world.missing("w-1");
    world.at(3_000);
    world.missing("w-2");
    world.at(60_000);
    world.expect(
        "5.000 dead w-1
         5.000 Idle->Emergency emergency
         5.000 plan emergency for w-2 w-3 w-4 w-5
         5.000 published v8
         5.000 Emergency->Idle
         8.000 dead w-2
         8.000 Idle->Emergency emergency
         8.000 plan emergency for w-3 w-4 w-5
         8.000 published v9
         8.000 Emergency->Idle",
    );
}

#[test]
fn emergency_preempts_window_and_includes_joiners() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.missing("w-2");
    world.at(1_000);
    world.join(&["w-3"]);
    world.at(60_000);
    world.expect(
        "1.000 Idle->Scaling planned_scale
         5.000 dead w-2
         5.000 Scaling->Emergency emergency
         5.000 plan emergency for w-1 w-3
         5.000 published v8
         5.000 Emergency->Idle",
    );
}

#[test]
fn emergency_during_rebalance_runs_right_after_it() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.job_time = Duration::from_secs(3);
    world.missing("w-2");
    world.at(4_000);
    world.trigger(1);
    world.at(60_000);
    world.expect(
        "4.000 Idle->Rebalancing manual-refresh
         4.000 plan manual-refresh for w-1 w-2
         5.000 dead w-2
         7.000 published v8
         7.000 Rebalancing->Idle
         7.000 reply 1 v8
         7.000 Idle->Emergency emergency
         7.000 plan emergency for w-1
         10.000 published v9
         10.000 Emergency->Idle",
    );
}

#[test]
fn dead_worker_rejoining_before_replacement_keeps_its_place() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.fail(Code::StrategyFailed);
    world.missing("w-2");
    world.at(5_000);
    world.join(&["w-2"]);
    world.at(60_000);
    world.expect_untimed(
        "dead w-2
         Idle->Emergency emergency
         plan emergency for w-1
         failed to publish: strategy_failed
         Emergency->Idle
         degraded [publishing]
         degraded []",
    );
}

#[test]
fn dead_worker_rejoining_during_replacement_counts_as_joiner() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.job_time = Duration::from_secs(1);
    world.missing("w-2");
    world.at(5_500);
    world.join(&["w-2"]);
    world.at(60_000);
    assert_eq!(world.times_of("plan emergency"), [5_000]);
    // The publication at 6 s makes it a joiner: from then on the window is counted.
    assert_eq!(
        world.times_of("plan planned_scale for w-1 w-2"),
        [16_000],
        "{:?}",
        world.trace
    );
}

#[test]
fn joiner_suspected_before_first_assignment_is_forgotten() {
    let mut world = World::settled(&["w-1"]);
    world.join(&["w-2"]);
    world.at(4_000);
    world.missing("w-2");
    world.at(60_000);
    assert_eq!(world.forgotten, ["w-2"]);
    world.expect(
        "0.000 Idle->Scaling planned_scale
         4.000 Scaling->Idle",
    );
}

#[test]
fn worker_suspected_during_its_first_publication_gets_grace() {
    let mut world = World::settled(&["w-1"]);
    world.job_time = Duration::from_secs(2);
    world.join(&["w-2"]);
    world.at(11_000);
    world.missing("w-2");
    world.at(60_000);
    world.expect(
        "0.000 Idle->Scaling planned_scale
         10.000 Scaling->Rebalancing planned_scale
         10.000 plan planned_scale for w-1 w-2
         12.000 published v8
         12.000 Rebalancing->Idle
         16.000 dead w-2
         16.000 Idle->Emergency emergency
         16.000 plan emergency for w-1
         18.000 published v9
         18.000 Emergency->Idle",
    );
}

#[test]
fn worker_leaving_during_its_first_publication_is_replaced_after_it() {
    let mut world = World::settled(&["w-1"]);
    world.job_time = Duration::from_secs(2);
    world.join(&["w-2"]);
    world.at(10_500);
    world.leave("w-2");
    world.at(60_000);
    world.expect(
        "0.000 Idle->Scaling planned_scale
         10.000 Scaling->Rebalancing planned_scale
         10.000 plan planned_scale for w-1 w-2
         12.000 published v8
         12.000 Rebalancing->Idle
         12.000 Idle->Scaling planned_scale
         12.000 Scaling->Rebalancing planned_scale
         12.000 plan planned_scale for w-1
         14.000 published v9
         14.000 Rebalancing->Idle",
    );
}

#[test]
fn joiner_suspected_during_failed_publication_is_forgotten() {
    let mut world = World::settled(&["w-1"]);
    world.job_time = Duration::from_secs(2);
    world.fail(Code::SourceFailed);
    world.join(&["w-2"]);
    world.at(11_000);
    world.missing("w-2");
    world.at(60_000);
    assert_eq!(world.forgotten, ["w-2"]);
    assert_eq!(world.times_of("plan "), [10_000]);
}

#[test]
fn confirmed_mass_expiry_waits_for_fleet_to_return() {
    let mut world = World::settled(&["w-1", "w-2", "w-3"]);
    world.at(1_000);
    world.missing("w-1");
    world.at(2_000);
    world.missing("w-2");
    world.at(20_000);
    world.back("w-1");
    world.back("w-2");
    world.at(60_000);
    world.expect(
        "2.000 list
         2.000 Idle->Scaling restart
         20.000 Scaling->Idle",
    );
}

#[test]
fn workers_not_back_by_end_of_restart_are_replaced() {
    let mut world = World::settled(&["w-1", "w-2", "w-3"]);
    world.missing("w-1");
    world.missing("w-2");
    world.at(20_000);
    world.back("w-1");
    world.at(60_000);
    world.expect(
        "0.000 list
         0.000 Idle->Scaling restart
         30.000 dead w-2
         30.000 Scaling->Rebalancing restart
         30.000 plan restart for w-1 w-3
         30.000 published v8
         30.000 Rebalancing->Idle",
    );
}

#[test]
fn worker_suspected_late_in_restart_still_gets_grace() {
    let mut world = World::settled(&["w-1", "w-2", "w-3"]);
    world.missing("w-1");
    world.missing("w-2");
    world.at(20_000);
    world.back("w-1");
    world.back("w-2");
    world.at(20_500);
    world.missing("w-1");
    world.missing("w-2");
    world.at(24_000);
    world.back("w-2");
    world.at(49_000);
    world.missing("w-3");
    world.at(60_000);
    world.expect(
        "0.000 list
         0.000 Idle->Scaling restart
         20.000 Scaling->Idle
         20.500 list
         20.500 Idle->Scaling restart
         50.500 dead w-1
         50.500 Scaling->Rebalancing restart
         50.500 plan restart for w-2 w-3
         50.500 published v8
         50.500 Rebalancing->Idle
         54.000 dead w-3
         54.000 Idle->Emergency emergency
         54.000 plan emergency for w-2
         54.000 published v9
         54.000 Emergency->Idle",
    );
}

#[test]
fn mass_expiry_refuted_by_second_listing_is_no_restart() {
    let mut world = World::settled(&["w-1", "w-2", "w-3"]);
    world
        .listings
        .push_back(Err(Error::new(Code::Unavailable, "")));
    world.missing("w-1");
    world.missing("w-2");
    world.at(3_000);
    world.back("w-2");
    world.at(60_000);
    // No worker is declared dead before the listing succeeds; then w-1 is one of three.
    world.expect(
        "0.000 list
         5.000 list
         5.000 dead w-1
         5.000 Idle->Emergency emergency
         5.000 plan emergency for w-2 w-3
         5.000 published v8
         5.000 Emergency->Idle",
    );
}

#[test]
fn successive_single_deaths_are_emergencies_not_restart() {
    let mut world = World::settled(&["w-1", "w-2", "w-3"]);
    world.missing("w-1");
    world.at(6_000);
    world.missing("w-2");
    world.at(60_000);
    assert_eq!(world.times_of("plan emergency"), [5_000, 11_000]);
    assert_eq!(world.times_of("list"), [0_u64; 0]);
}

#[test]
fn whole_fleet_dead_during_restart_cold_starts_on_return() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.missing("w-1");
    world.missing("w-2");
    world.at(50_000);
    world.join(&["w-1"]);
    world.at(100_000);
    world.expect(
        "0.000 list
         0.000 Idle->Scaling restart
         30.000 dead w-1
         30.000 dead w-2
         30.000 Scaling->Idle
         50.000 Idle->Scaling cold_start
         80.000 Scaling->Rebalancing cold_start
         80.000 plan cold_start for w-1
         80.000 published v8
         80.000 Rebalancing->Idle",
    );
}

#[test]
fn suspicion_stands_still_while_disconnected_and_continues_after() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.missing("w-2");
    world.at(1_000);
    world.watch_lost();
    world.at(100_000);
    world.membership_changed();
    world.at(200_000);
    world.expect(
        "1.000 degraded [watch_lost]
         100.000 degraded []
         104.000 dead w-2
         104.000 Idle->Emergency emergency
         104.000 plan emergency for w-1
         104.000 published v8
         104.000 Emergency->Idle",
    );
}

#[test]
fn restart_window_does_not_fire_while_disconnected() {
    let mut world = World::settled(&["w-1", "w-2", "w-3"]);
    world.missing("w-1");
    world.missing("w-2");
    world.at(10_000);
    world.watch_lost();
    world.at(100_000);
    world.membership_changed();
    world.at(110_000);
    world.back("w-1");
    world.at(200_000);
    world.expect(
        "0.000 list
         0.000 Idle->Scaling restart
         10.000 degraded [watch_lost]
         100.000 degraded []
         121.000 dead w-2
         121.000 Scaling->Rebalancing restart
         121.000 plan restart for w-1 w-3
         121.000 published v8
         121.000 Rebalancing->Idle",
    );
}

#[test]
fn plans_made_while_disconnected_use_last_known_workers() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.missing("w-2");
    world.watch_lost();
    world.at(50_000);
    world.trigger(1);
    assert_eq!(world.times_of("plan manual-refresh for w-1 w-2"), [50_000]);
}

/// Symptom: a leader whose process had stood still gave up a worker that had come back meanwhile.
/// Cause: the grace elapsed while the process was stalled.
#[test]
fn stalled_leader_observes_fleet_before_declaring_anyone_dead() {
    for seen in [true, false] {
        let mut world = World::settled(&["w-1", "w-2"]);
        world.missing("w-2");
        world.at(1_000);
        world.now = Time::from_millis(30_000);
        world.calculator.tick(world.now);
        world.drain();
        world.expect("");
        world.at(30_100);
        if seen {
            world.back("w-2");
        }
        world.at(60_000);
        let plans: &[u64] = if seen { &[] } else { &[35_000] };
        assert_eq!(world.times_of("plan emergency"), plans);
    }
}

#[test]
fn lease_of_dead_worker_is_kept_until_replacement() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.fail(Code::Unavailable);
    world.missing("w-2");
    world.at(5_000);
    assert_eq!(world.forgotten, [""; 0]);
    world.at(6_000);
    assert_eq!(world.forgotten, ["w-2"]);
}

//! Emergencies, restarts of the fleet, blindness.

use super::*;

#[test]
fn a_missing_worker_is_lost_after_the_grace_and_replaced_at_once() {
    let mut world = World::settled(&["w-1", "w-2", "w-3"]);
    world.at(2_000);
    world.missing("w-2");
    world.at(60_000);
    world.expect(
        "7.000 lost w-2
         7.000 Idle->Emergency emergency
         7.000 plan emergency for w-1 w-3
         7.000 published v8
         7.000 Emergency->Idle",
    );
}

#[test]
fn coming_back_within_the_grace_clears_the_loss() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.missing("w-2");
    world.at(4_999);
    world.back("w-2");
    world.at(60_000);
    world.expect("");
}

#[test]
fn who_goes_missing_while_the_grace_of_another_runs_is_replaced_later() {
    let mut world = World::settled(&["w-1", "w-2", "w-3", "w-4", "w-5"]);
    world.missing("w-1");
    world.at(3_000);
    world.missing("w-2");
    world.at(60_000);
    world.expect(
        "5.000 lost w-1
         5.000 Idle->Emergency emergency
         5.000 plan emergency for w-2 w-3 w-4 w-5
         5.000 published v8
         5.000 Emergency->Idle
         8.000 lost w-2
         8.000 Idle->Emergency emergency
         8.000 plan emergency for w-3 w-4 w-5
         8.000 published v9
         8.000 Emergency->Idle",
    );
}

#[test]
fn an_emergency_preempts_a_window_and_takes_the_joiners_along() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.missing("w-2");
    world.at(1_000);
    world.join(&["w-3"]);
    world.at(60_000);
    world.expect(
        "1.000 Idle->Scaling planned_scale
         5.000 lost w-2
         5.000 Scaling->Emergency emergency
         5.000 plan emergency for w-1 w-3
         5.000 published v8
         5.000 Emergency->Idle",
    );
}

#[test]
fn an_emergency_during_a_rebalance_runs_right_after_it() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.job_time = Duration::from_secs(3);
    world.missing("w-2");
    world.at(4_000);
    world.trigger(1);
    world.at(60_000);
    world.expect(
        "4.000 Idle->Rebalancing manual-refresh
         4.000 plan manual-refresh for w-1 w-2
         5.000 lost w-2
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
fn a_lost_worker_that_joins_again_before_its_replacement_keeps_its_place() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.fail(Code::SourceFailed);
    world.missing("w-2");
    world.at(5_000);
    world.join(&["w-2"]);
    world.at(60_000);
    world.expect_untimed(
        "lost w-2
         Idle->Emergency emergency
         plan emergency for w-1
         failed to publish: source_failed
         Emergency->Idle
         inspect
         degraded [source]
         degraded []",
    );
}

#[test]
fn a_confirmed_worker_that_joins_during_its_replacement_is_a_joiner() {
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
fn a_joiner_that_goes_missing_before_it_holds_anything_is_forgotten() {
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
fn a_worker_that_goes_missing_while_its_first_plan_is_published_gets_its_grace() {
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
         16.000 lost w-2
         16.000 Idle->Emergency emergency
         16.000 plan emergency for w-1
         18.000 published v9
         18.000 Emergency->Idle",
    );
}

#[test]
fn a_worker_that_leaves_while_its_first_plan_is_published_is_replaced_after_it() {
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
fn a_joiner_that_goes_missing_during_a_publication_that_fails_is_forgotten() {
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
fn a_mass_loss_confirmed_by_a_second_listing_waits_for_the_fleet_to_come_back() {
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
fn who_is_not_back_at_the_end_of_a_restart_is_replaced_then() {
    let mut world = World::settled(&["w-1", "w-2", "w-3"]);
    world.missing("w-1");
    world.missing("w-2");
    world.at(20_000);
    world.back("w-1");
    world.at(60_000);
    world.expect(
        "0.000 list
         0.000 Idle->Scaling restart
         30.000 lost w-2
         30.000 Scaling->Rebalancing restart
         30.000 plan restart for w-1 w-3
         30.000 published v8
         30.000 Rebalancing->Idle",
    );
}

#[test]
fn who_goes_missing_late_in_a_restart_still_has_its_grace() {
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
         50.500 lost w-1
         50.500 Scaling->Rebalancing restart
         50.500 plan restart for w-2 w-3
         50.500 published v8
         50.500 Rebalancing->Idle
         54.000 lost w-3
         54.000 Idle->Emergency emergency
         54.000 plan emergency for w-2
         54.000 published v9
         54.000 Emergency->Idle",
    );
}

#[test]
fn a_mass_loss_that_the_second_listing_denies_is_no_restart() {
    let mut world = World::settled(&["w-1", "w-2", "w-3"]);
    world
        .listings
        .push_back(Err(Error::new(Code::Unavailable, "")));
    world.missing("w-1");
    world.missing("w-2");
    world.at(3_000);
    world.back("w-2");
    world.at(60_000);
    // Nobody is given up before the listing succeeded, and then w-1 is one of three.
    world.expect(
        "0.000 list
         5.000 list
         5.000 lost w-1
         5.000 Idle->Emergency emergency
         5.000 plan emergency for w-2 w-3
         5.000 published v8
         5.000 Emergency->Idle",
    );
}

#[test]
fn losses_that_come_one_by_one_are_emergencies_and_no_restart() {
    let mut world = World::settled(&["w-1", "w-2", "w-3"]);
    world.missing("w-1");
    world.at(6_000);
    world.missing("w-2");
    world.at(60_000);
    assert_eq!(world.times_of("plan emergency"), [5_000, 11_000]);
    assert_eq!(world.times_of("list"), [0_u64; 0]);
}

#[test]
fn a_whole_fleet_lost_in_a_restart_starts_cold_when_it_returns() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.missing("w-1");
    world.missing("w-2");
    world.at(50_000);
    world.join(&["w-1"]);
    world.at(100_000);
    world.expect(
        "0.000 list
         0.000 Idle->Scaling restart
         30.000 lost w-1
         30.000 lost w-2
         30.000 Scaling->Idle
         50.000 Idle->Scaling cold_start
         80.000 Scaling->Rebalancing cold_start
         80.000 plan cold_start for w-1
         80.000 published v8
         80.000 Rebalancing->Idle",
    );
}

#[test]
fn nobody_is_given_up_while_blind_and_all_get_a_ttl_and_a_grace_afterwards() {
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
         121.000 lost w-2
         121.000 Idle->Emergency emergency
         121.000 plan emergency for w-1
         121.000 published v8
         121.000 Emergency->Idle",
    );
}

#[test]
fn a_restart_window_is_not_acted_upon_while_blind() {
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
         121.000 lost w-2
         121.000 Scaling->Rebalancing restart
         121.000 plan restart for w-1 w-3
         121.000 published v8
         121.000 Rebalancing->Idle",
    );
}

#[test]
fn plans_made_while_blind_are_for_the_workers_last_seen() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.missing("w-2");
    world.watch_lost();
    world.at(50_000);
    world.trigger(1);
    assert_eq!(world.times_of("plan manual-refresh for w-1 w-2"), [50_000]);
}

/// Symptom: a leader whose process had stood still gave up a worker that had come back meanwhile.
/// Cause: the grace ran while nobody looked.
#[test]
fn a_leader_that_stood_still_looks_before_it_gives_anybody_up() {
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
fn the_lease_of_a_lost_worker_is_kept_until_it_is_replaced() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.fail(Code::Unavailable);
    world.missing("w-2");
    world.at(5_000);
    assert_eq!(world.forgotten, [""; 0]);
    world.at(6_000);
    assert_eq!(world.forgotten, ["w-2"]);
}

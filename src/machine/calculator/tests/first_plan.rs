//! The first plan of a fleet: `initial_delay` and `min_workers`.

use super::*;

fn new_fleet(config: CalculatorConfig, alive: &[&str]) -> World {
    let mut world = World::patient(config);
    world.take_over(TakeOver {
        heartbeats: beating(alive),
        ..stored(&[])
    });
    world
}

fn of_min_workers(min_workers: u32) -> CalculatorConfig {
    CalculatorConfig {
        min_workers,
        ..CalculatorConfig::default()
    }
}

#[test]
fn first_plan_waits_for_initial_delay_after_the_last_join() {
    let mut world = new_fleet(CalculatorConfig::default(), &["w-1"]);
    world.at(500);
    world.join(&["w-2"]);
    world.at(1_000);
    world.join(&["w-3"]);
    world.at(60_000);
    world.expect(
        "0.000 Idle->Scaling cold_start
         4.000 Scaling->Rebalancing cold_start_immediate
         4.000 plan cold_start_immediate for w-1 w-2 w-3
         4.000 published v1
         4.000 Rebalancing->Idle
         4.000 Idle->Scaling cold_start
         34.000 Scaling->Idle",
    );
}

#[test]
fn joins_extend_initial_delay_up_to_cold_start_window() {
    let mut world = new_fleet(CalculatorConfig::default(), &["w-00"]);
    for n in 1_u64..=20 {
        world.at(n * 2_000);
        world.join(&[format!("w-{n:02}").as_str()]);
    }
    assert_eq!(world.times_of("plan cold_start_immediate"), [30_000]);
}

#[test]
fn first_plan_waits_for_min_workers_beyond_every_window() {
    let mut world = new_fleet(of_min_workers(3), &["w-1", "w-2"]);
    world.at(100_000);
    assert_eq!(world.times_of("plan "), [0_u64; 0]);
    assert_eq!(world.state, CalculatorState::Scaling);
    world.join(&["w-3"]);
    world.at(200_000);
    assert_eq!(
        world.times_of("plan cold_start_immediate for w-1 w-2 w-3"),
        [100_000],
        "the longest delay is over"
    );
}

#[test]
fn worker_that_leaves_before_first_plan_no_longer_counts() {
    let mut world = new_fleet(of_min_workers(2), &["w-1", "w-2"]);
    world.at(1_000);
    world.leave("w-2");
    world.at(50_000);
    assert_eq!(world.times_of("plan "), [0_u64; 0]);
}

/// An operator who asks for a plan does not wait.
#[test]
fn manual_trigger_publishes_first_plan_at_once() {
    let mut world = new_fleet(of_min_workers(3), &["w-1"]);
    world.at(1_000);
    world.trigger(1);
    assert_eq!(world.times_of("plan manual-refresh for w-1"), [1_000]);
}

#[test]
fn failed_first_plan_is_retried_with_joins_of_meanwhile() {
    let mut world = new_fleet(CalculatorConfig::default(), &["w-1"]);
    world.fail(Code::Unavailable);
    world.at(3_000);
    world.join(&["w-2"]);
    world.at(20_000);
    assert_eq!(
        world.times_of("plan cold_start_immediate for w-1"),
        [3_000, 6_000]
    );
    assert_eq!(
        world.times_of("plan cold_start_immediate for w-1 w-2"),
        [6_000]
    );
}

#[test]
fn fleet_whose_first_workers_vanished_gathers_again_for_initial_delay() {
    let mut world = new_fleet(CalculatorConfig::default(), &["w-1"]);
    world.at(1_000);
    world.leave("w-1");
    world.at(40_000);
    world.join(&["w-2"]);
    world.at(60_000);
    assert_eq!(world.times_of("plan "), [43_000]);
    assert_eq!(
        world.times_of("plan cold_start_immediate for w-2"),
        [43_000]
    );
}

#[test]
fn take_over_of_existing_plan_never_waits_for_initial_delay() {
    let mut world = World::patient(of_min_workers(5));
    world.take_over(TakeOver {
        heartbeats: beating(&["w-1"]),
        finding: Some(Finding::Changed),
        ..stored(&["w-1"])
    });
    assert_eq!(world.times_of("plan cold_start_immediate for w-1"), [0]);
}

#[test]
fn cold_start_of_fleet_without_plan_waits_for_min_workers_and_with_plan_does_not() {
    for (planned, plans) in [(&[][..], 0), (&["w-9"][..], 1)] {
        let mut world = World::patient(of_min_workers(2));
        world.take_over(stored(planned));
        world.at(20_000);
        world.join(&["w-1"]);
        world.at(100_000);
        assert_eq!(world.times_of("plan cold_start for w-1").len(), plans);
        world.join(&["w-2"]);
        world.at(200_000);
        let both = world.times_of("for w-1 w-2");
        assert_eq!(both.len(), 1, "{:?}", world.trace);
    }
}

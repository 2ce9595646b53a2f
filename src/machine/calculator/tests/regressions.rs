//! Defects of the Go predecessor that concern the machine: one test for each guarantee that was broken.

use super::*;
use crate::machine::liveness::Leases;

#[test]
fn failed_emergency_publication_is_retried() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.fail(Code::Unavailable);
    world.missing("w-2");
    world.at(10_000);
    assert_eq!(world.times_of("plan emergency for w-1").len(), 2);
    assert_eq!(world.times_of("published v8").len(), 1);
}

#[test]
fn failed_scale_publication_is_retried() {
    let mut world = World::settled(&["w-1"]);
    world.fail(Code::Unavailable);
    world.join(&["w-2"]);
    world.at(20_000);
    assert_eq!(world.times_of("plan planned_scale for w-1 w-2").len(), 2);
    assert_eq!(world.times_of("published v8").len(), 1);
}

#[test]
fn crash_during_cooldown_triggers_emergency() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.trigger(1);
    world.at(1_000);
    world.missing("w-2");
    world.at(9_000);
    assert_eq!(world.times_of("published"), [0, 6_000]);
}

#[test]
fn crash_during_window_triggers_emergency() {
    let mut world = World::empty();
    world.join(&["w-1", "w-2", "w-3"]);
    world.at(60_000);
    world.trace.clear();
    world.join(&["w-4"]);
    world.missing("w-3");
    world.at(65_000);
    assert_eq!(world.times_of("plan emergency for w-1 w-2 w-4"), [65_000]);
}

#[test]
fn crash_during_rebalance_triggers_emergency() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.job_time = Duration::from_secs(9);
    world.trigger(1);
    world.missing("w-2");
    world.at(60_000);
    assert_eq!(world.times_of("plan emergency for w-1"), [9_000]);
}

#[test]
fn death_with_simultaneous_join_triggers_emergency() {
    let mut world = World::settled(&["w-1", "w-2", "w-3"]);
    world.missing("w-3");
    world.join(&["w-4"]);
    world.at(60_000);
    assert_eq!(world.times_of("plan "), [5_000]);
    assert_eq!(world.times_of("plan emergency for w-1 w-2 w-4"), [5_000]);
}

#[test]
fn initial_assignment_runs_inside_state_machine() {
    let mut world = World::new(CalculatorConfig::default());
    world.job_time = Duration::from_secs(1);
    let found = TakeOver {
        heartbeats: beating(&["w-1"]),
        ..stored(&[])
    };
    world.take_over(found);
    // It is a job like any other: it has a state, and a deposed leader starts no further one.
    world.expect(
        "0.000 Idle->Rebalancing cold_start_immediate
         0.000 plan cold_start_immediate for w-1",
    );
    world.fail(Code::Fenced);
    world.join(&["w-2"]);
    world.at(3_600_000);
    assert_eq!(world.times_of("plan "), [0_u64; 0]);
}

#[test]
fn graceful_leave_is_not_treated_as_crash() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.leave("w-2");
    world.at(60_000);
    assert_eq!(world.times_of("plan planned_scale for w-1"), [1_000]);
    assert_eq!(world.times_of("dead"), [0_u64; 0]);
    assert_eq!(world.times_of("emergency"), [0_u64; 0]);
}

#[test]
fn repeated_suspicion_always_gets_full_grace() {
    let mut world = World::settled(&["w-1", "w-2"]);
    for round in 0..5_u64 {
        world.at(round * 100_000);
        world.missing("w-2");
        world.at(round * 100_000 + 4_900);
        world.back("w-2");
    }
    world.expect("");
    world.at(500_000);
    world.missing("w-2");
    world.at(600_000);
    assert_eq!(world.times_of("plan emergency for w-1"), [505_000]);
}

#[test]
fn window_has_single_timer() {
    let mut world = World::settled(&["w-1"]);
    world.join(&["w-2"]);
    world.join(&["w-3"]);
    world.leave("w-2");
    world.join(&["w-2"]);
    world.at(60_000);
    assert_eq!(world.times_of("Idle->Scaling"), [0]);
    assert_eq!(world.times_of("published"), [10_000]);
}

/// Leases and calculator together, as the threads couple them.
#[test]
fn emergency_follows_last_heartbeat_by_one_ttl_and_grace() {
    let config = CalculatorConfig::default();
    let mut leases = Leases::new(
        config.heartbeat_ttl,
        config.join_coalescing,
        config.recovery_grace(),
    );
    let mut world = World::empty();
    leases.live(Time::ZERO);
    for millis in (0..=120_000_u64).step_by(50) {
        world.at(millis);
        if millis % 2_000 == 0 {
            leases.beat(world.now, "w-1", Duration::ZERO);
        }
        if millis % 2_000 == 50 && millis < 60_000 {
            leases.beat(world.now, "w-2", Duration::ZERO);
        }
        leases.tick(world.now);
        while let Some(membership) = leases.poll_event() {
            world.handle(CalculatorInput::Membership(membership));
        }
    }
    // w-2's last beat is at 58.05 s.
    world.expect(
        "0.100 Idle->Scaling cold_start
         30.000 Scaling->Rebalancing cold_start
         30.000 plan cold_start for w-1 w-2
         30.000 published v1
         30.000 Rebalancing->Idle
         69.050 dead w-2
         69.050 Idle->Emergency emergency
         69.050 plan emergency for w-1
         69.050 published v2
         69.050 Emergency->Idle",
    );
}

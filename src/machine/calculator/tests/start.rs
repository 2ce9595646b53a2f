//! Start and take-over.

use super::*;

#[test]
fn valid_stored_plan_is_adopted_without_moves() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.at(3_600_000);
    world.expect("");
    assert_eq!(world.calculator.version(), 7);
    assert_eq!(world.calculator.term(), 2);
    let planned: Vec<_> = world.calculator.planned().cloned().collect();
    assert_eq!(planned, ids(&["w-1", "w-2"]));
}

#[test]
fn adopted_plan_admits_newcomers_after_join_window() {
    let mut world = World::new(CalculatorConfig::default());
    let found = TakeOver {
        heartbeats: beating(&["w-1", "w-2"]),
        ..stored(&["w-1"])
    };
    world.take_over(found);
    world.at(60_000);
    world.expect(
        "0.000 Idle->Scaling planned_scale
         10.000 Scaling->Rebalancing planned_scale
         10.000 plan planned_scale for w-1 w-2
         10.000 published v8
         10.000 Rebalancing->Idle",
    );
}

#[test]
fn gap_is_closed_at_once_and_final_plan_follows_only_after_change() {
    for late_joiner in [false, true] {
        let mut world = World::new(CalculatorConfig::default());
        let found = TakeOver {
            heartbeats: beating(&["w-1", "w-2"]),
            ..stored(&[])
        };
        world.take_over(found);
        world.expect(
            "0.000 Idle->Rebalancing cold_start_immediate
             0.000 plan cold_start_immediate for w-1 w-2
             0.000 published v1
             0.000 Rebalancing->Idle
             0.000 Idle->Scaling cold_start",
        );
        world.at(20_000);
        if late_joiner {
            world.join(&["w-3"]);
        }
        world.at(60_000);
        world.expect(if late_joiner {
            "30.000 Scaling->Rebalancing cold_start_final
             30.000 plan cold_start_final for w-1 w-2 w-3
             30.000 published v2
             30.000 Rebalancing->Idle"
        } else {
            "30.000 Scaling->Idle"
        });
    }
}

#[test]
fn partitions_missing_from_stored_plan_are_treated_as_gap() {
    let mut world = World::new(CalculatorConfig::default());
    let found = TakeOver {
        heartbeats: beating(&["w-1"]),
        finding: Some(Finding::Changed),
        ..stored(&["w-1"])
    };
    world.take_over(found);
    assert_eq!(world.times_of("plan cold_start_immediate for w-1"), [0]);
}

#[test]
fn inconsistent_stored_plan_is_treated_as_gap() {
    let mut world = World::new(CalculatorConfig::default());
    let found = TakeOver {
        heartbeats: beating(&["w-1"]),
        consistent: false,
        ..stored(&["w-1"])
    };
    world.take_over(found);
    assert_eq!(world.times_of("plan cold_start_immediate for w-1"), [0]);
}

/// Seed 920000424 of calculators: a malformed key stayed forever.
#[test]
fn a_plan_that_is_not_whole_is_repaired_though_its_last_worker_died_and_the_partitions_are_unchanged()
 {
    let mut world = World::new(CalculatorConfig::default());
    let found = TakeOver {
        consistent: false,
        former_leader: Some(id("w-1")),
        former_leader_lease_over: true,
        ..stored(&["w-1"])
    };
    world.take_over(found);
    world.at(10_000);
    world.find(Finding::Same);
    world.partitions_changed(None);
    world.join(&["w-1"]);
    world.at(120_000);
    assert_eq!(world.times_of("plan ").len(), 1, "{:?}", world.trace);
}

#[test]
fn weights_changed_before_start_are_adopted_and_judged_by_threshold() {
    for (excess, plans) in [(0.19, 0), (0.21, 1)] {
        let mut world = World::new(CalculatorConfig::default());
        let found = TakeOver {
            heartbeats: beating(&["w-1", "w-2"]),
            finding: Some(Finding::Reweighted { excess }),
            ..stored(&["w-1", "w-2"])
        };
        world.take_over(found);
        world.at(60_000);
        assert_eq!(world.times_of("plan partition_change").len(), plans);
        assert_eq!(world.times_of("plan ").len(), plans);
    }
}

#[test]
fn worker_that_left_before_take_over_is_replaced_at_once() {
    let mut world = World::new(CalculatorConfig::default());
    world.at(10_000);
    let mut heartbeats = beating(&["w-1", "w-2"]);
    heartbeats[1].operation = Operation::Delete;
    let found = TakeOver {
        heartbeats,
        ..stored(&["w-1", "w-2"])
    };
    world.take_over(found);
    world.at(60_000);
    world.expect(
        "10.000 Idle->Scaling planned_scale
         10.000 Scaling->Rebalancing planned_scale
         10.000 plan planned_scale for w-1
         10.000 published v8
         10.000 Rebalancing->Idle",
    );
}

#[test]
fn absent_worker_gets_grace_before_replacement() {
    let mut world = World::new(CalculatorConfig::default());
    let found = TakeOver {
        heartbeats: beating(&["w-1", "w-2"]),
        ..stored(&["w-1", "w-2", "w-3"])
    };
    world.take_over(found);
    world.at(60_000);
    assert_eq!(world.times_of("plan "), [5_000]);
    assert_eq!(world.times_of("plan emergency for w-1 w-2"), [5_000]);
}

#[test]
fn former_leader_is_replaced_at_once_on_expired_lease_and_absent_key() {
    let mut world = World::new(CalculatorConfig::default());
    let found = TakeOver {
        heartbeats: beating(&["w-1", "w-2"]),
        former_leader: Some(id("w-3")),
        former_leader_lease_over: true,
        ..stored(&["w-1", "w-2", "w-3"])
    };
    world.take_over(found);
    world.at(60_000);
    world.expect(
        "0.000 dead w-3
         0.000 Idle->Emergency emergency
         0.000 plan emergency for w-1 w-2
         0.000 published v8
         0.000 Emergency->Idle",
    );
}

/// Symptom: in a rolling restart the process that replaced a former leader waited up to 30 s for its
/// first partitions. Cause: a take-over at which the former leader was gone counted as a cold start.
#[test]
fn join_after_take_over_from_dead_leader_waits_for_planned_window_only() {
    let mut world = World::new(CalculatorConfig::default());
    world.take_over(TakeOver {
        heartbeats: beating(&["w-1", "w-2"]),
        former_leader: Some(id("w-3")),
        former_leader_lease_over: true,
        ..stored(&["w-1", "w-2", "w-3"])
    });
    world.at(1_000);
    world.join(&["w-3"]);
    world.at(60_000);
    assert_eq!(world.times_of("plan emergency for w-1 w-2"), [0]);
    assert_eq!(
        world.times_of("plan planned_scale for w-1 w-2 w-3"),
        [11_000]
    );
}

#[test]
fn former_leader_silent_before_its_lease_expired_gets_no_further_grace() {
    for (silent_at, planned_at) in [(1_000, 1_000), (7_000, 12_000)] {
        let mut world = World::new(CalculatorConfig::default());
        let found = TakeOver {
            heartbeats: beating(&["w-1", "w-2", "w-3"]),
            former_leader: Some(id("w-3")),
            former_leader_lease_over: true,
            ..stored(&["w-1", "w-2", "w-3"])
        };
        world.take_over(found);
        world.at(silent_at); // after a whole TTL it must have beaten since the take-over
        world.missing("w-3");
        world.at(60_000);
        assert_eq!(world.times_of("plan emergency for w-1 w-2"), [planned_at]);
    }
}

#[test]
fn mass_absence_gives_everyone_ttl_and_grace() {
    let mut world = World::new(CalculatorConfig::default());
    let found = TakeOver {
        heartbeats: beating(&["w-1"]),
        former_leader: Some(id("w-3")),
        former_leader_lease_over: true,
        ..stored(&["w-1", "w-2", "w-3"])
    };
    world.take_over(found);
    world.at(8_000);
    world.back("w-2");
    world.at(60_000);
    assert_eq!(world.times_of("plan "), [11_000]);
    assert_eq!(world.times_of("plan emergency for w-1 w-2"), [11_000]);
}

#[test]
fn gap_at_start_without_live_workers_waits_for_first_worker() {
    let mut world = World::new(CalculatorConfig::default());
    let found = TakeOver {
        consistent: false,
        ..stored(&["w-1", "w-2"])
    };
    world.take_over(found);
    world.at(4_000);
    world.expect("");
    world.back("w-1");
    assert_eq!(
        world.times_of("plan cold_start_immediate for w-1 w-2"),
        [4_000]
    );
}

#[test]
fn fleet_absent_after_take_over_is_declared_dead_then_cold_starts() {
    let mut world = World::new(CalculatorConfig::default());
    let found = TakeOver {
        consistent: false,
        ..stored(&["w-1", "w-2"])
    };
    world.take_over(found);
    world.at(15_000);
    world.expect(
        "11.000 dead w-1
         11.000 dead w-2",
    );
    world.join(&["w-3"]);
    world.at(60_000);
    world.expect(
        "15.000 Idle->Scaling cold_start
         45.000 Scaling->Rebalancing cold_start
         45.000 plan cold_start for w-3
         45.000 published v8
         45.000 Rebalancing->Idle",
    );
}

#[test]
fn source_that_failed_at_start_is_read_again() {
    let mut world = World::new(CalculatorConfig::default());
    let found = TakeOver {
        heartbeats: beating(&["w-1"]),
        finding: None,
        ..stored(&["w-1"])
    };
    world.fail(Code::SourceFailed);
    world.find(Finding::Changed);
    world.take_over(found);
    world.at(60_000);
    world.expect_untimed(
        "inspect
         failed to read partitions: source_failed
         degraded [source]
         inspect
         Idle->Rebalancing partition_change
         plan partition_change for w-1
         degraded []
         published v8
         Rebalancing->Idle",
    );
}

#[test]
fn nothing_happens_before_first_partition_list_is_pushed() {
    let mut world = World::new(CalculatorConfig::default());
    let config = CalculatorConfig {
        initial_delay: Duration::ZERO,
        ..CalculatorConfig::default()
    };
    world.calculator = CalculatorMachine::new(config, Time::ZERO, 1, false);
    let found = TakeOver {
        heartbeats: beating(&["w-1"]),
        finding: None,
        ..stored(&[])
    };
    world.take_over(found);
    world.at(5_000);
    world.trigger(1);
    world.expect("5.000 reply 1 source_failed");
    world.partitions_changed(Some(2));
    world.expect(
        "5.000 Idle->Rebalancing cold_start_immediate
         5.000 plan cold_start_immediate for w-1
         5.000 published v1
         5.000 Rebalancing->Idle
         5.000 reply 2 v1
         5.000 Idle->Scaling cold_start",
    );
}

#[test]
fn nothing_happens_before_take_over() {
    let mut world = World::new(CalculatorConfig::default());
    world.join(&["w-1"]);
    world.partitions_changed(None);
    world.at(60_000);
    world.expect("");
}

#[test]
fn source_that_returns_during_take_over_is_inspected_after_it() {
    let mut world = World::new(CalculatorConfig::default());
    world.partitions_changed(None);
    world.at(1_000);
    let found = TakeOver {
        heartbeats: beating(&["w-1"]),
        ..stored(&["w-1"])
    };
    world.find(Finding::Changed);
    world.take_over(found);
    assert_eq!(world.times_of("inspect"), [1_000]);
    assert_eq!(world.times_of("plan partition_change"), [1_000]);
}

/// Symptom: an unreadable assignment stayed as it was. Cause: the whole fleet
/// disappeared before the leader rewrote what the take-over had found, and returned unchanged.
#[test]
fn damage_found_by_take_over_is_repaired_after_fleet_loss_and_return() {
    let mut world = World::new(CalculatorConfig::default());
    let found = TakeOver {
        consistent: false,
        ..stored(&["w-1"])
    };
    world.take_over(found);
    world.at(60_000);
    world.expect_untimed("dead w-1");
    world.back("w-1");
    world.at(600_000);
    assert_eq!(world.times_of("published").len(), 1);
}

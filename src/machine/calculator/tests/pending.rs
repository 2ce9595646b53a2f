//! Pending work stays pending: failures and retries, manual triggers, partition changes, foreign
//! writes, the end of a term, malformed.

use super::*;
use crate::wire::Applied;

const RETRIES_MAX: u64 = 5_000;

#[test]
fn failed_publication_stays_pending_and_is_retried_without_new_window() {
    let mut world = World::settled(&["w-1"]);
    world.fail(Code::Unavailable);
    world.fail(Code::StoreError);
    world.join(&["w-2"]);
    world.at(60_000);
    let plans = world.times_of("plan ");
    assert!(
        plans[0] == 10_000
            && (10_000..=10_100).contains(&plans[1])
            && (plans[1]..=plans[1] + 200).contains(&plans[2]),
        "{plans:?}"
    );
    world.expect_untimed(
        "Idle->Scaling planned_scale
         Scaling->Rebalancing planned_scale
         plan planned_scale for w-1 w-2
         failed to publish: unavailable
         Rebalancing->Idle
         degraded [publishing]
         Idle->Rebalancing planned_scale
         plan planned_scale for w-1 w-2
         failed to publish: store_error
         Rebalancing->Idle
         Idle->Rebalancing planned_scale
         plan planned_scale for w-1 w-2
         published v8
         Rebalancing->Idle
         degraded []",
    );
}

#[test]
fn retry_delay_grows_to_maximum_and_retries_never_stop() {
    let mut world = World::settled(&["w-1", "w-2"]);
    for _ in 0..100 {
        world.fail(Code::TimedOut);
    }
    world.leave("w-2");
    world.at(3_600_000);
    let plans = world.times_of("plan ");
    assert_eq!(plans.len(), 101);
    let gaps: Vec<u64> = plans.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap <= RETRIES_MAX));
    // Drawn evenly from the whole range.
    let mean = gaps[10..].iter().sum::<u64>() / 90;
    assert!(
        (RETRIES_MAX * 2 / 5..RETRIES_MAX * 3 / 5).contains(&mean),
        "{mean}"
    );
    assert_eq!(world.times_of("published").len(), 1);
}

#[test]
fn store_recovery_ends_retry_wait() {
    for by_health in [true, false] {
        let mut world = World::settled(&["w-1", "w-2"]);
        for _ in 0..20 {
            world.fail(Code::Unavailable);
        }
        if by_health {
            world.handle(CalculatorInput::StoreHealth(Some("removed".into())));
        } else {
            world.watch_lost();
        }
        world.leave("w-2");
        world.at(30_000);
        world.job_ends.clear();
        world.trace.clear();
        if by_health {
            world.handle(CalculatorInput::StoreHealth(None));
        } else {
            world.membership_changed();
        }
        assert_eq!(world.times_of("published"), [30_000]);
    }
}

#[test]
fn permanent_error_is_reported_and_retried_at_slowest_pace() {
    let mut world = World::settled(&["w-1"]);
    world.fail(Code::Unauthorized);
    world.fail(Code::TooLarge);
    world.trigger(1);
    world.at(7_000);
    world.handle(CalculatorInput::StoreHealth(Some("restarting".into())));
    world.handle(CalculatorInput::StoreHealth(None));
    world.at(60_000);
    world.expect(
        "0.000 Idle->Rebalancing manual-refresh
         0.000 plan manual-refresh for w-1
         0.000 failed to publish: unauthorized
         0.000 Rebalancing->Idle
         0.000 reply 1 unauthorized
         0.000 degraded [publishing]
         5.000 Idle->Rebalancing manual-refresh
         5.000 plan manual-refresh for w-1
         5.000 failed to publish: too_large
         5.000 Rebalancing->Idle
         7.000 degraded [store publishing]
         7.000 degraded [publishing]
         10.000 Idle->Rebalancing manual-refresh
         10.000 plan manual-refresh for w-1
         10.000 published v8
         10.000 Rebalancing->Idle
         10.000 degraded []",
    );
}

#[test]
fn possibly_partial_publication_is_repeated_after_its_cause_vanished() {
    let mut world = World::settled(&["w-1"]);
    world.fail(Code::TimedOut);
    world.join(&["w-2"]);
    world.at(10_000);
    world.leave("w-2");
    world.at(60_000);
    world.expect_untimed(
        "Idle->Scaling planned_scale
         Scaling->Rebalancing planned_scale
         plan planned_scale for w-1 w-2
         failed to publish: timed_out
         Rebalancing->Idle
         degraded [publishing]
         Idle->Rebalancing planned_scale
         plan planned_scale for w-1
         published v8
         Rebalancing->Idle
         degraded []",
    );
}

#[test]
fn publication_that_wrote_nothing_is_dropped_with_its_cause() {
    let mut world = World::settled(&["w-1"]);
    world.fail(Code::StrategyFailed);
    world.join(&["w-2"]);
    world.at(10_000);
    world.leave("w-2");
    world.at(60_000);
    world.expect(
        "0.000 Idle->Scaling planned_scale
         10.000 Scaling->Rebalancing planned_scale
         10.000 plan planned_scale for w-1 w-2
         10.000 failed to publish: strategy_failed
         10.000 Rebalancing->Idle
         10.000 degraded [publishing]
         10.000 degraded []",
    );
    world.join(&["w-3"]);
    world.expect("60.000 Idle->Scaling planned_scale");
}

#[test]
fn change_during_publication_is_published_after_it() {
    let mut world = World::settled(&["w-1", "w-2", "w-3"]);
    world.job_time = Duration::from_secs(4);
    world.trigger(1);
    world.at(1_000);
    world.leave("w-2");
    world.partitions_changed(None);
    world.missing("w-3");
    world.join(&["w-4"]);
    world.at(100_000);
    world.expect(
        "0.000 Idle->Rebalancing manual-refresh
         0.000 plan manual-refresh for w-1 w-2 w-3
         4.000 published v8
         4.000 Rebalancing->Idle
         4.000 reply 1 v8
         4.000 Idle->Scaling planned_scale
         4.000 Scaling->Rebalancing planned_scale
         4.000 plan planned_scale for w-1 w-3 w-4
         6.000 dead w-3
         8.000 published v9
         8.000 Rebalancing->Idle
         8.000 Idle->Emergency emergency
         8.000 plan emergency for w-1 w-4
         12.000 published v10
         12.000 Emergency->Idle",
    );
}

#[test]
fn manual_trigger_always_publishes_new_version() {
    let mut world = World::settled(&["w-1"]);
    for round in 1..=3 {
        world.trigger(round);
    }
    assert_eq!(world.times_of("published"), [0, 0, 0]);
    world.at(60_000);
    assert_eq!(world.times_of("published").len(), 3);
}

#[test]
fn manual_trigger_preempts_window_and_repeats_after_running_publication() {
    let mut world = World::settled(&["w-1"]);
    world.job_time = Duration::from_secs(1);
    world.join(&["w-2"]);
    world.at(2_000);
    world.trigger(1);
    world.at(2_500);
    world.trigger(2);
    world.trigger(3);
    world.at(60_000);
    world.expect(
        "0.000 Idle->Scaling planned_scale
         2.000 Scaling->Rebalancing manual-refresh
         2.000 plan manual-refresh for w-1 w-2
         3.000 published v8
         3.000 Rebalancing->Idle
         3.000 reply 1 v8
         3.000 Idle->Rebalancing manual-refresh
         3.000 plan manual-refresh for w-1 w-2
         4.000 published v9
         4.000 Rebalancing->Idle
         4.000 reply 2 v9
         4.000 reply 3 v9",
    );
}

#[test]
fn new_trigger_is_attempted_at_once_while_others_back_off() {
    let mut world = World::settled(&["w-1"]);
    for _ in 0..50 {
        world.fail(Code::Unavailable);
    }
    world.trigger(1);
    world.at(12_000);
    world.trace.clear();
    world.job_ends.clear();
    world.trigger(2);
    world.expect(
        "12.000 Idle->Rebalancing manual-refresh
         12.000 plan manual-refresh for w-1
         12.000 published v8
         12.000 Rebalancing->Idle
         12.000 reply 1 v8
         12.000 reply 2 v8
         12.000 degraded []",
    );
}

#[test]
fn trigger_without_live_workers_is_rejected() {
    let mut world = World::settled(&["w-1"]);
    world.missing("w-1");
    world.trigger(1);
    world.expect("0.000 reply 1 no_workers");
}

#[test]
fn trigger_pending_when_last_worker_dies_is_answered() {
    let mut world = World::settled(&["w-1"]);
    world.job_time = Duration::from_secs(1);
    world.fail(Code::Unavailable);
    world.trigger(1);
    world.at(500);
    world.missing("w-1");
    world.at(2_000);
    assert_eq!(world.times_of("reply 1 no_workers"), [1_000]);
}

#[test]
fn changed_partition_list_is_published_during_cooldown_without_window() {
    let mut world = World::settled(&["w-1"]);
    world.find(Finding::Changed);
    world.partitions_changed(Some(1));
    world.expect(
        "0.000 inspect
         0.000 Idle->Rebalancing partition_change
         0.000 plan partition_change for w-1
         0.000 published v8
         0.000 Rebalancing->Idle
         0.000 reply 1 v8",
    );
    world.at(4_000);
    world.find(Finding::Changed);
    world.partitions_changed(None);
    world.at(60_000);
    world.expect(
        "4.000 inspect
         10.000 Idle->Rebalancing partition_change
         10.000 plan partition_change for w-1
         10.000 published v9
         10.000 Rebalancing->Idle",
    );
}

#[test]
fn unchanged_partition_list_changes_nothing() {
    let mut world = World::settled(&["w-1"]);
    world.find(Finding::Same);
    world.partitions_changed(Some(9));
    world.at(60_000);
    world.expect(
        "0.000 inspect
         0.000 reply 9 v7",
    );
}

#[test]
fn changed_weights_trigger_rebalance_only_above_threshold() {
    for (excess, plans) in [(0.2, 0), (0.200_001, 1)] {
        let mut world = World::settled(&["w-1", "w-2"]);
        world.find(Finding::Reweighted { excess });
        world.partitions_changed(None);
        world.at(60_000);
        assert_eq!(world.times_of("plan partition_change").len(), plans);
    }
}

#[test]
fn reverted_partition_list_needs_no_plan() {
    let mut world = World::settled(&["w-1"]);
    world.trigger(1);
    world.trace.clear();
    world.find(Finding::Changed);
    world.partitions_changed(None);
    world.find(Finding::Same);
    world.partitions_changed(None);
    world.at(60_000);
    world.expect(
        "0.000 inspect
         0.000 inspect",
    );
}

#[test]
fn running_plan_with_newest_list_covers_change_and_answers_callers() {
    let mut world = World::settled(&["w-1"]);
    world.job_time = Duration::from_secs(1);
    world.trigger(1);
    world.partitions_changed(Some(2));
    world.at(60_000);
    world.expect(
        "0.000 Idle->Rebalancing manual-refresh
         0.000 plan manual-refresh for w-1
         1.000 published v8
         1.000 Rebalancing->Idle
         1.000 reply 1 v8
         1.000 reply 2 v8",
    );
}

#[test]
fn partition_change_missed_by_running_plan_is_inspected_after_it() {
    let mut world = World::settled(&["w-1"]);
    world.job_time = Duration::from_secs(1);
    world.trigger(1);
    world.generation += 1;
    let event = CalculatorInput::PartitionsChanged {
        generation: 5,
        ticket: Some(Ticket(2)),
    };
    world.handle(event);
    world.at(1_000);
    world.generation = 5;
    world.find(Finding::Changed);
    world.at(60_000);
    assert_eq!(world.times_of("inspect"), [1_000]);
    assert_eq!(world.times_of("plan partition_change"), [11_000]);
    assert_eq!(world.times_of("reply 2 v9"), [12_000]);
}

#[test]
fn inspection_requested_during_inspection_runs_separately() {
    let mut world = World::settled(&["w-1"]);
    world.job_time = Duration::from_secs(1);
    let look = |ticket| CalculatorInput::PartitionsChanged {
        generation: 0,
        ticket: Some(Ticket(ticket)),
    };
    world.handle(look(1));
    world.at(500);
    world.handle(look(2));
    world.at(60_000);
    world.expect(
        "0.000 inspect
         1.000 reply 1 v7
         1.000 inspect
         2.000 reply 2 v7",
    );
}

#[test]
fn source_failure_is_answered_and_reads_are_retried_until_success() {
    let mut world = World::settled(&["w-1"]);
    world.fail(Code::SourceFailed);
    world.fail(Code::SourceFailed);
    world.partitions_changed(Some(1));
    world.at(60_000);
    world.expect_untimed(
        "inspect
         failed to read partitions: source_failed
         reply 1 source_failed
         degraded [source]
         inspect
         failed to read partitions: source_failed
         inspect
         degraded []",
    );
}

#[test]
fn partition_change_joins_open_window() {
    let mut world = World::settled(&["w-1"]);
    world.join(&["w-2"]);
    world.at(3_000);
    world.find(Finding::Changed);
    world.partitions_changed(None);
    world.at(60_000);
    assert_eq!(world.times_of("plan "), [10_000]);
}

#[test]
fn foreign_write_is_resolved_and_overwritten_by_new_version() {
    let mut world = World::settled(&["w-1"]);
    world.find(Finding::Changed);
    let seen = |revision| CalculatorInput::ForeignSuspected {
        key: "assignment.w-1".into(),
        revision,
    };
    world.handle(seen(40));
    world.at(60_000);
    let plans = world.times_of("plan manual-refresh");
    assert!(plans.len() == 1 && plans[0] <= 100, "{plans:?}");
    world.expect_untimed(
        "resolve 1
         Idle->Rebalancing manual-refresh
         plan manual-refresh for w-1
         published v8
         Rebalancing->Idle",
    );
    world.handle(seen(41));
    world.at(120_000);
    world.expect("60.000 resolve 1");
}

#[test]
fn version_applied_ahead_of_leader_is_resolved_until_success() {
    let mut world = World::settled(&["w-1"]);
    world.fail(Code::Unavailable);
    let applied = Applied {
        term: 2,
        version: 40,
    };
    world.handle(CalculatorInput::AppliedAhead(applied));
    world.find(Finding::Changed);
    world.at(60_000);
    world.expect_untimed(
        "resolve 0
         failed to resolve a foreign write: unavailable
         degraded [publishing]
         resolve 0
         degraded []
         Idle->Rebalancing manual-refresh
         plan manual-refresh for w-1
         published v8
         Rebalancing->Idle",
    );
}

#[test]
fn failed_resolution_is_repeated_with_all_suspected_keys() {
    let mut world = World::settled(&["w-1"]);
    world.job_time = Duration::from_millis(10);
    world.fail(Code::Unavailable);
    let seen = |key: &str| CalculatorInput::ForeignSuspected {
        key: key.into(),
        revision: 40,
    };
    world.handle(seen("assignment.w-1"));
    world.handle(seen("assignment.w-2"));
    world.at(60_000);
    world.expect_untimed(
        "resolve 1
         failed to resolve a foreign write: unavailable
         degraded [publishing]
         resolve 2
         degraded []",
    );
}

#[test]
fn endless_foreign_writes_are_answered_at_growing_intervals() {
    let mut world = World::settled(&["w-1"]);
    for round in 0..200_u64 {
        world.find(Finding::Changed);
        world.handle(CalculatorInput::ForeignSuspected {
            key: "assignment.w-1".into(),
            revision: round,
        });
        world.at((round + 1) * 1_000);
    }
    let plans = world.times_of("plan ");
    assert!((35..=90).contains(&plans.len()), "{}", plans.len());
}

#[test]
fn storm_of_foreign_writes_does_not_delay_emergency() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.job_time = Duration::from_millis(20);
    world.missing("w-2");
    for round in 0..6_000_u64 {
        world.handle(CalculatorInput::ForeignSuspected {
            key: "assignment.w-1".into(),
            revision: round,
        });
        world.at(round);
    }
    let plans = world.times_of("plan emergency");
    assert!(plans.len() == 1 && plans[0] <= 5_020, "{plans:?}");
}

#[test]
fn fenced_publisher_stops_permanently_and_reports_it() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.job_time = Duration::from_secs(1);
    world.fail(Code::Fenced);
    world.trigger(1);
    world.partitions_changed(Some(2));
    world.at(1_000);
    world.trigger(3);
    world.partitions_changed(Some(4));
    world.leave("w-2");
    world.join(&["w-3"]);
    world.at(3_600_000);
    world.expect(
        "0.000 Idle->Rebalancing manual-refresh
         0.000 plan manual-refresh for w-1 w-2
         1.000 failed to publish: fenced
         1.000 Rebalancing->Idle
         1.000 leadership lost
         1.000 reply 1 fenced
         1.000 reply 2 fenced
         1.000 degraded [deposed]
         1.000 reply 3 fenced
         1.000 reply 4 fenced",
    );
    assert!(world.calculator.is_deposed());
}

#[test]
fn moved_fence_ends_term_and_closes_window() {
    let mut world = World::settled(&["w-1"]);
    world.join(&["w-2"]);
    world.handle(CalculatorInput::FenceMoved { term: 2 });
    world.expect("0.000 Idle->Scaling planned_scale");
    world.handle(CalculatorInput::FenceMoved { term: 3 });
    world.at(60_000);
    world.expect(
        "0.000 leadership lost
         0.000 Scaling->Idle
         0.000 degraded [deposed]",
    );
}

#[test]
fn fence_moved_by_own_publisher_does_not_end_term() {
    let mut world = World::settled(&["w-1"]);
    world.job_time = Duration::from_secs(1);
    world.trigger(1);
    world.handle(CalculatorInput::FenceMoved { term: 3 });
    world.term = 3;
    world.at(60_000);
    assert!(!world.calculator.is_deposed());
    assert_eq!(world.calculator.term(), 3);
    world.trigger(2);
    world.handle(CalculatorInput::FenceMoved { term: 4 });
    world.at(120_000);
    assert!(world.calculator.is_deposed());
}

#[test]
fn failed_source_leaves_no_deadline_after_end_of_term() {
    let mut world = World::settled(&["w-1"]);
    world.fail(Code::SourceFailed);
    world.partitions_changed(None);
    world.handle(CalculatorInput::FenceMoved { term: 3 });
    world.at(60_000);
    assert_eq!(world.calculator.deadline(), None);
}

#[test]
fn malformed_values_degrade_from_threshold_and_recover_over_time() {
    let mut world = World::settled(&["w-1"]);
    world.handle(malformed(9));
    world.at(30_000);
    world.handle(malformed(1));
    world.at(200_000);
    world.expect(
        "30.000 degraded [malformed]
         60.000 degraded []",
    );
    world.handle(malformed(u32::MAX));
    world.expect("200.000 degraded [malformed]");
}

#[test]
fn answer_to_another_job_is_dropped() {
    let mut world = World::settled(&["w-1"]);
    world.job_time = Duration::from_secs(1);
    world.trigger(1);
    let (op, ..) = *world.job.as_ref().unwrap();
    for stale in [OpId(op.0 - 1), OpId(op.0 + 1)] {
        world.handle(CalculatorInput::JobDone {
            op: stale,
            term: 2,
            result: Err(Error::new(Code::Fenced, "stale")),
        });
        world.handle(CalculatorInput::Listed {
            op: stale,
            result: Ok(()),
        });
    }
    world.at(1_000);
    world.handle(CalculatorInput::JobDone {
        op,
        term: 2,
        result: Err(Error::new(Code::Fenced, "twice")),
    });
    world.expect(
        "0.000 Idle->Rebalancing manual-refresh
         0.000 plan manual-refresh for w-1
         1.000 published v8
         1.000 Rebalancing->Idle
         1.000 reply 1 v8",
    );
}

#[test]
fn mismatched_job_report_is_failure_not_panic() {
    let mut world = World::settled(&["w-1"]);
    world.job_time = Duration::from_secs(1);
    world.trigger(1);
    let (op, ..) = world.job.take().unwrap();
    world.handle(CalculatorInput::JobDone {
        op,
        term: 2,
        result: Ok(JobReport::Resolved { foreign: false }),
    });
    world.at(60_000);
    assert_eq!(world.times_of("failed to publish: panicked"), [0]);
    assert_eq!(world.times_of("published v8"), [6_000]);
}

#[test]
fn pending_work_is_reported_with_due_time() {
    let mut world = World::settled(&["w-1"]);
    assert_eq!(world.calculator.pending(world.now), Default::default());
    world.join(&["w-2"]);
    world.at(4_000);
    let pending = world.calculator.pending(world.now);
    assert_eq!(pending.reason, Some(crate::types::Reason::PlannedScale));
    assert_eq!(pending.due_in, Some(Duration::from_secs(6)));
    assert_eq!(world.calculator.worker_counts(), (2, 0));
    assert_eq!(world.calculator.wanted(), ids(&["w-1", "w-2"]));
    let current = world.calculator.current_state();
    assert_eq!(
        (current.from, current.to),
        (CalculatorState::Scaling, CalculatorState::Scaling)
    );
    assert!(world.calculator.degraded().is_empty());
}

/// Symptom: work that came due between the last tick and the question for the next deadline was
/// left alone until something else happened. Cause: the deadline left out what is due already.
#[test]
fn work_due_just_after_tick_is_still_a_deadline() {
    let mut world = World::settled(&["w-1"]);
    world.join(&["w-2"]);
    world.calculator.tick(Time::from_millis(9_999));
    // The shell asks only now, at 10.001 s.
    assert_eq!(world.calculator.deadline(), Some(Time::from_millis(10_000)));
    world.now = Time::from_millis(10_001);
    world.calculator.tick(world.now);
    world.drain();
    assert_eq!(world.times_of("plan planned_scale"), [10_001]);
}

/// Symptom: a calculator reported a failed publication forever. Cause: the whole fleet disappeared
/// before the retry, which cancelled the retry, and returned unchanged, so nothing was pending.
#[test]
fn failure_clears_when_its_fleet_died_and_returned() {
    let mut world = World::settled(&["w-1"]);
    for _ in 0..50 {
        world.fail(Code::InvalidPlan);
    }
    world.trigger(1);
    world.at(300);
    world.missing("w-1");
    world.at(10_000);
    assert!(!world.calculator.degraded().is_empty());
    world.back("w-1");
    world.at(600_000);
    assert!(world.times_of("published").is_empty());
    assert!(world.calculator.degraded().is_empty());
}

#[test]
fn malformed_key_is_reported_once_in_a_window_and_changes_nothing() {
    let mut world = World::settled(&["w-1"]);
    for second in 0..120 {
        world.at(second * 1_000);
        world.handle(malformed_at(&["heartbeat.w-9"]));
    }
    assert_eq!(
        world.times_of("malformed heartbeat").len(),
        2,
        "{:?}",
        world.trace
    );
    assert_eq!(world.times_of("failed").len(), 0);
    assert_eq!(world.times_of("plan ").len(), 0);
}

#[test]
fn every_malformed_key_is_reported_up_to_the_threshold() {
    let mut world = World::settled(&["w-1"]);
    world.handle(malformed_at(&["heartbeat.a", "heartbeat.b", "heartbeat.a"]));
    assert_eq!(
        world.times_of("malformed heartbeat").len(),
        2,
        "{:?}",
        world.trace
    );
    for key in 0..1_000 {
        world.handle(malformed_at(&[&format!("heartbeat.{key}")]));
    }
    let threshold = CalculatorConfig::default().malformed_threshold as usize;
    assert_eq!(world.times_of("malformed heartbeat").len(), threshold);
}

fn malformed_at(keys: &[&str]) -> CalculatorInput {
    let why = Error::new(Code::InvalidData, "not JSON");
    let mut values = MalformedValues::default();
    for key in keys {
        values.add(MalformedValue::new(Bucket::Heartbeat, key, b"{", &why));
    }
    CalculatorInput::Malformed(values)
}

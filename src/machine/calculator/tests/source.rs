//! The partition source: it fails, it hangs, it is read again; and leaders that cannot plan.

use super::*;
use crate::types::Partition;

fn changed(generation: u64, ticket: u64) -> CalculatorInput {
    CalculatorInput::PartitionsChanged {
        generation,
        ticket: Some(Ticket(ticket)),
    }
}

#[test]
fn refresh_returns_the_version_that_contains_the_change() {
    let mut world = World::settled(&["w-1"]);
    world.trigger(1); // its cooldown ends at 10 s
    world.find(Finding::Changed);
    world.handle(changed(0, 2));
    world.at(60_000);
    assert_eq!(world.times_of("published v9"), [10_000]);
    assert_eq!(world.times_of("reply 2 v9"), [10_000]);
    // Nothing has changed: the version in force is the answer, at once.
    world.handle(changed(0, 3));
    assert_eq!(world.times_of("reply 3 v9"), [60_000]);
}

#[test]
fn refresh_without_live_worker_is_refused() {
    let mut world = World::settled(&["w-1"]);
    world.trigger(1);
    world.find(Finding::Changed);
    world.handle(changed(0, 2));
    world.leave("w-1");
    world.at(60_000);
    assert_eq!(world.times_of("reply 2 no_workers"), [0]);
}

#[test]
fn reading_source_is_not_asked_again_and_blocks_no_emergency() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.source_hangs = true;
    world.source = SourceOutcome::Running;
    world.handle(changed(3, 1));
    world.missing("w-2");
    world.at(60_000);
    assert_eq!(world.times_of("inspect"), [0]);
    assert_eq!(world.times_of("plan emergency"), [5_000]);
    assert!(world.times_of("reply").is_empty());
    // The call that has returned is compared.
    world.generation = 3;
    world.handle(CalculatorInput::PartitionsChanged {
        generation: 3,
        ticket: None,
    });
    assert_eq!(world.times_of("reply 1 v8"), [60_000]);
}

/// The report of `dv-source` that a late call has returned.
fn returned(generation: u64) -> CalculatorInput {
    CalculatorInput::PartitionsChanged {
        generation,
        ticket: None,
    }
}

/// The publication counted as a read of the newest list.
#[test]
fn source_that_returns_during_a_publication_of_the_last_list_is_inspected_after_it() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.job_time = Duration::from_secs(2);
    world.source = SourceOutcome::Running;
    world.leave("w-2"); // the plan starts at 1 s
    world.at(2_000);
    world.handle(returned(0));
    world.at(3_000);
    world.find(Finding::Changed);
    world.at(60_000);
    assert_eq!(world.times_of("inspect"), [3_000]);
    assert_eq!(world.times_of("plan partition_change"), [13_000]);
}

#[test]
fn source_that_returns_before_its_inspection_has_ended_is_inspected_again() {
    let mut world = World::settled(&["w-1"]);
    world.job_time = Duration::from_secs(1);
    world.source_hangs = true;
    world.handle(returned(0));
    world.at(500);
    world.handle(returned(0));
    world.at(60_000);
    assert_eq!(world.times_of("inspect"), [0, 1_000]);
}

/// The result that the inspection waits for may be received by the publication, whose return is not
/// reported then.
#[test]
fn list_that_is_awaited_is_asked_for_again_after_a_publication_that_did_not_cover_it() {
    for (source, end) in [
        (SourceOutcome::Failed("simulated".into()), Ok(Finding::Same)),
        (SourceOutcome::Returned, Ok(Finding::Same)),
        (SourceOutcome::Returned, Err(Code::StrategyFailed)),
    ] {
        let mut world = World::settled(&["w-1", "w-2"]);
        world.job_time = Duration::from_secs(1);
        world.source_hangs = true;
        world.source = source;
        world.handle(returned(1));
        world.leave("w-2"); // the plan starts at 1 s, and covers change 0
        world.at(1_500);
        let end = end.map_err(|code| Error::new(code, "simulated"));
        world.job_ends.push_back(end);
        world.at(2_500);
        world.generation = 1;
        world.at(4_000);
        assert_eq!(world.times_of("inspect"), [0, 2_000]);
    }
}

/// Found by the properties: the caller of the first refresh waited for a publication that the second
/// one had made unnecessary.
#[test]
fn refresh_whose_change_is_reverted_before_its_publication_returns_the_version_in_force() {
    let mut world = World::settled(&["w-1"]);
    world.trigger(1); // its cooldown ends at 10 s
    world.find(Finding::Changed);
    world.handle(changed(0, 2));
    world.find(Finding::Same);
    world.handle(changed(0, 3));
    world.at(60_000);
    assert_eq!(world.times_of("reply 2 v8"), [0]);
    assert_eq!(world.times_of("reply 3 v8"), [0]);
    assert!(world.times_of("plan partition_change").is_empty());
}

#[test]
fn source_is_read_again_after_refresh_interval() {
    let config = CalculatorConfig {
        source_refresh_interval: Duration::from_secs(60),
        ..CalculatorConfig::default()
    };
    let mut world = World::settled_with(config, &["w-1"]);
    world.handle(changed(0, 1));
    world.at(59_000);
    world.find(Finding::Changed);
    world.at(190_000);
    assert_eq!(world.times_of("inspect"), [0, 60_000, 120_000, 180_000]);
    assert_eq!(world.times_of("plan partition_change"), [60_000]);
}

#[test]
fn partition_changes_within_their_window_are_published_together() {
    let config = CalculatorConfig {
        partition_change_window: Duration::from_secs(3),
        ..CalculatorConfig::default()
    };
    let mut world = World::settled_with(config, &["w-1"]);
    world.find(Finding::Changed);
    world.handle(changed(0, 1));
    world.at(2_000);
    world.find(Finding::Changed);
    world.handle(changed(0, 2));
    world.at(60_000);
    assert_eq!(world.times_of("plan partition_change"), [3_000]);
    assert_eq!(world.times_of("reply 1 v8"), [3_000]);
    assert_eq!(world.times_of("reply 2 v8"), [3_000]);
}

#[test]
fn overdue_host_call_is_reported_at_once_and_cleared_when_it_returns() {
    let mut world = World::settled(&["w-1"]);
    world.handle(CalculatorInput::HostCallsOverdue(Some(
        "the strategy has not returned for 12s".into(),
    )));
    world.handle(CalculatorInput::HostCallsOverdue(Some(
        "the strategy has not returned for 13s".into(),
    )));
    assert_eq!(world.times_of("degraded [host_call]"), [0]);
    world.handle(CalculatorInput::HostCallsOverdue(None));
    world.at(60_000);
    assert_eq!(world.times_of("degraded []"), [0]);
}

#[test]
fn leader_whose_plans_fail_for_planning_timeout_is_reported() {
    let mut world = World::settled(&["w-1", "w-2"]);
    for _ in 0..10_000 {
        world.fail(Code::StrategyFailed);
    }
    world.leave("w-2");
    world.at(60_500);
    assert!(world.times_of("degraded [publishing planning]").is_empty());
    world.at(120_000);
    assert_eq!(world.times_of("degraded [publishing planning]"), [61_000]);
    world.job_ends.clear();
    world.at(200_000);
    assert!(world.calculator.degraded().is_empty());
}

#[test]
fn leader_whose_strategy_hangs_for_planning_timeout_is_reported() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.job_time = Duration::from_secs(90);
    world.leave("w-2");
    world.at(80_000);
    assert_eq!(world.times_of("degraded [planning]"), [61_000]);
    world.at(200_000);
    assert!(world.calculator.degraded().is_empty());
}

#[test]
fn store_failures_are_no_reason_to_hand_leadership_over() {
    let mut world = World::settled(&["w-1", "w-2"]);
    for _ in 0..10_000 {
        world.fail(Code::Unavailable);
    }
    world.leave("w-2");
    world.at(300_000);
    let causes = world.calculator.degraded();
    let causes: Vec<_> = causes.iter().map(|d| d.cause.name()).collect();
    assert_eq!(causes, ["publishing"]);
}

/// How a plan stands to a limit of 100 bytes.
fn limit(largest: usize, after_loss: usize, unassigned: &[&str]) -> AssignmentLimit {
    AssignmentLimit {
        sizes: AssignmentSizes {
            largest,
            after_loss,
            limit: 100,
        },
        unassigned: unassigned
            .iter()
            .map(|key| Partition::new([*key], 0))
            .collect(),
    }
}

#[test]
fn plan_over_the_limit_is_reported_once_as_event_and_degradation_until_it_fits() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.limit = limit(90, 140, &[]);
    world.trigger(1);
    world.trigger(2);
    assert_eq!(world.times_of("limit v8 unassigned 0 near true"), [0]);
    assert!(world.times_of("degraded").is_empty(), "a warning only");
    world.limit = limit(140, 140, &["p", "q"]);
    world.trigger(3);
    world.trigger(4);
    assert_eq!(world.times_of("limit v10 unassigned 2 near false"), [0]);
    assert_eq!(world.times_of("degraded [unassigned]"), [0]);
    let detail = world.calculator.degraded()[0].detail.clone();
    assert!(detail.contains("2 partitions have no owner"), "{detail}");
    assert!(detail.contains(": p q; add workers"), "{detail}");
    assert_eq!(world.calculator.assignment_limit().unassigned.len(), 2);
    world.limit = limit(40, 60, &[]);
    world.trigger(5);
    assert_eq!(world.times_of("limit v12 unassigned 0 near false"), [0]);
    assert_eq!(world.times_of("degraded []"), [0]);
    assert_eq!(world.times_of("limit").len(), 3);
}

#[test]
fn source_is_read_after_an_outage_while_partitions_exceed_the_limit() {
    let mut world = World::settled(&["w-1"]);
    world.limit = limit(140, 140, &["p"]);
    world.trigger(1);
    world.at(60_000);
    assert!(world.times_of("inspect").is_empty());
    // A server that restarts may have another limit.
    world.find(Finding::Changed);
    world.limit = limit(140, 140, &[]);
    world.handle(CalculatorInput::StoreHealth(Some("restarting".into())));
    world.handle(CalculatorInput::StoreHealth(None));
    assert_eq!(world.times_of("inspect"), [60_000]);
    assert_eq!(world.times_of("plan partition_change"), [60_000]);
    assert_eq!(world.times_of("limit v9 unassigned 0 near false"), [60_000]);
}

//! An unreachable or flapping store: circuit breaker, retry delays, reported errors.

use super::*;
use crate::machine::breaker::BreakerCondition;

impl World {
    fn open(&mut self, probe_in_ms: u64) {
        let probe_at = self.now + Duration::from_millis(probe_in_ms);
        self.breaker(BreakerCondition::open("no answer", probe_at));
    }

    fn half_open(&mut self) {
        self.breaker(BreakerCondition::half_open("no answer"));
    }

    fn close(&mut self) {
        self.breaker(BreakerCondition::closed());
    }

    fn breaker(&mut self, state: BreakerCondition) {
        self.handle(CalculatorInput::Breaker(state));
    }
}

#[test]
fn pending_work_waits_while_breaker_is_open_and_is_published_once_closed() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.job_time = Duration::from_millis(50);
    world.open(700);
    world.leave("w-2");
    world.trigger(1);
    world.at(700);
    world.half_open();
    world.fail(Code::Unavailable);
    world.at(749);
    world.open(401);
    world.at(1_150);
    world.half_open();
    world.at(60_000);
    // The breaker reports the result of a probe.
    world.close();
    world.at(120_000);
    world.expect(
        "0.000 breaker open
         0.000 degraded [store]
         0.000 Idle->Scaling planned_scale
         0.700 probe
         0.700 breaker half_open
         0.749 breaker open
         1.150 probe
         1.150 breaker half_open
         60.000 breaker closed
         60.000 Scaling->Rebalancing manual-refresh
         60.000 plan manual-refresh for w-1
         60.000 degraded []
         60.050 published v8
         60.050 Rebalancing->Idle
         60.050 reply 1 v8",
    );
}

#[test]
fn source_is_read_and_deaths_are_reported_while_breaker_is_open() {
    let mut world = World::settled(&["w-1", "w-2"]);
    world.open(600_000);
    world.find(Finding::Changed);
    world.partitions_changed(Some(1));
    world.missing("w-2");
    world.at(60_000);
    world.expect(
        "0.000 breaker open
         0.000 degraded [store]
         0.000 inspect
         5.000 dead w-2",
    );
    world.close();
    assert_eq!(world.times_of("plan emergency"), [60_000]);
    assert_eq!(world.times_of("reply 1 v8"), [60_000]);
}

/// Symptom: a flapping store received four attempts a second. Cause: each recovery reset the
/// backoff.
#[test]
fn flapping_store_is_not_retried_at_each_recovery() {
    let mut world = World::settled(&["w-1", "w-2"]);
    for _ in 0..10_000 {
        world.fail(Code::Unavailable);
    }
    world.leave("w-2");
    for round in 0..2_400 {
        world.at(2_000 + round * 250);
        world.handle(CalculatorInput::StoreHealth(None));
        world.at(2_000 + round * 250 + 50);
        world.handle(CalculatorInput::StoreHealth(Some("removed".into())));
    }
    let tries = world.times_of("plan ").len();
    assert!(tries <= 1_300, "{tries} tries in 10 minutes");
}

#[test]
fn flapping_failure_is_reported_once_and_single_failure_never() {
    let mut world = World::patient(CalculatorConfig::default());
    world.take_over(TakeOver {
        heartbeats: beating(&["w-1"]),
        ..stored(&["w-1"])
    });
    world.fail(Code::Unavailable);
    world.trigger(1);
    world.at(10_000);
    assert_eq!(world.times_of("failed to publish"), [0]);
    assert!(world.times_of("degraded").is_empty());
    for round in 0..400 {
        world.at(10_000 + round * 250);
        world.handle(CalculatorInput::StoreHealth(Some("removed".into())));
        world.at(10_000 + round * 250 + 200);
        world.handle(CalculatorInput::StoreHealth(None));
    }
    world.at(200_000);
    assert_eq!(world.times_of("degraded [store]"), [11_000]);
    assert_eq!(world.times_of("degraded []"), [114_950]);
}

#[test]
fn failure_reports_number_of_attempts() {
    let mut world = World::settled(&["w-1"]);
    for _ in 0..3 {
        world
            .calculator
            .handle(world.now, CalculatorInput::Trigger { ticket: Ticket(1) });
        let mut reported = Vec::new();
        while let Some(action) = world.calculator.poll_action() {
            match action {
                CalculatorAction::Start { op, .. } => {
                    let result = Err(Error::new(Code::Unavailable, "simulated"));
                    let event = CalculatorInput::JobDone {
                        op,
                        term: 2,
                        result,
                    };
                    world.calculator.handle(world.now, event);
                }
                CalculatorAction::Notify(CalculatorEvent::Failed { error, .. }) => {
                    reported.push(error.attempts())
                }
                _ => {}
            }
        }
        world.trace.push(format!("{reported:?}"));
    }
    world.expect("[1]\n[2]\n[3]");
}

//! Fleets that divvy may follow but not lead, and leaders that cannot publish.

use super::*;

fn commit() -> Entry {
    put(
        "assignment._commit",
        r#"{"version":42,"leader_revision":7}"#,
    )
}

fn v2_heartbeat(capabilities: u8) -> Entry {
    let value =
        format!(r#"{{"worker_id":"worker-3","schema_version":1,"capabilities":{capabilities}}}"#);
    put("heartbeat.worker-3", &value)
}

fn takes_lease(request: &Request) -> bool {
    matches!(
        request,
        Request::Put {
            bucket: Bucket::Election,
            ..
        }
    )
}

#[test]
fn worker_that_finds_a_commit_of_parti_v2_joins_and_follows_but_never_campaigns() {
    let mut life = Life::new(ManagerConfig::default());
    life.v2 = vec![commit(), v2_heartbeat(1)];
    life.handle(ManagerInput::Start);
    life.run_until_idle();
    assert_eq!(life.orders, ["watch worker-0", "joined"]);
    let error = life.machine.last_failure().expect("it says why").clone();
    assert_eq!(error.code(), Code::Unsupported);
    for part in [
        "assignment._commit",
        "does not lead",
        "keep a worker of parti v2",
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
    life.handle(ManagerInput::Lease(WatchEvent::Live));
    for _ in 0..600 {
        life.pass(Duration::from_secs(1));
        assert!(!life.asked.iter().any(|(_, request)| takes_lease(request)));
    }
    assert!(!life.machine.is_leader());
    assert_eq!(life.orders, ["watch worker-0", "joined"]);
    life.assigned(42, &["a"]);
    assert_eq!(life.held(), ["a"]);
    assert!(life.machine.last_failure().is_some(), "it still says why");
}

#[test]
fn worker_does_not_join_a_fleet_with_two_phase_hand_over_until_that_is_off() {
    let mut life = Life::new(ManagerConfig::default());
    life.v2 = vec![commit(), v2_heartbeat(1 | 2)];
    life.handle(ManagerInput::Start);
    life.run_until_idle();
    life.pass(Duration::from_secs(30));
    assert_eq!(life.orders, [""; 0]);
    let error = life.machine.last_failure().expect("it says why").clone();
    for part in ["two phases", "heartbeat.worker-3", "does not join", "turn"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(life.failures().len(), 1, "reported once");
    life.v2 = vec![commit(), v2_heartbeat(1)];
    life.pass(Duration::from_secs(2));
    assert_eq!(life.orders, ["watch worker-0", "joined"]);
}

#[test]
fn worker_does_not_join_a_fleet_with_hand_over_claims_although_no_worker_is_alive() {
    let mut life = Life::new(ManagerConfig::default());
    life.v2 = vec![commit()];
    life.claims = Ok(3);
    life.handle(ManagerInput::Start);
    life.run_until_idle();
    life.pass(Duration::from_secs(30));
    assert_eq!(life.orders, [""; 0]);
    let error = life.machine.last_failure().expect("it says why").clone();
    assert_eq!(error.code(), Code::Unsupported);
    for part in ["two phases", "parti-handoff", "does not join", "turn"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(life.failures().len(), 1, "reported once");
    life.claims = Ok(0);
    life.pass(Duration::from_secs(2));
    assert_eq!(life.orders, ["watch worker-0", "joined"]);
}

#[test]
fn worker_that_may_not_read_the_claims_judges_by_the_heartbeats() {
    for (capabilities, joins) in [(1, true), (1 | 2, false)] {
        let mut life = Life::new(ManagerConfig::default());
        life.v2 = vec![commit(), v2_heartbeat(capabilities)];
        life.claims = Err(Error::new(Code::Unauthorized, "no permission"));
        life.handle(ManagerInput::Start);
        life.run_until_idle();
        life.pass(Duration::from_secs(2));
        assert_eq!(!life.orders.is_empty(), joins, "{:?}", life.orders);
    }
}

#[test]
fn leader_that_meets_a_commit_of_parti_v2_resigns_and_never_campaigns_again() {
    let mut life = Life::leading();
    let error = crate::wire::foreign_commit("assignment._commit");
    life.handle(ManagerInput::Calculator(CalculatorReport::Failed(error)));
    assert_eq!(life.orders, ["step down"]);
    life.handle(ManagerInput::Calculator(CalculatorReport::Ended));
    life.run_until_idle();
    life.orders.clear();
    for _ in 0..600 {
        life.pass(Duration::from_secs(1));
    }
    assert_eq!(life.orders, [""; 0]);
    assert!(!life.machine.is_leader());
}

fn fails(life: &mut Life, code: Code) {
    let error = Error::new(code, "as the test wants");
    life.handle(ManagerInput::Calculator(CalculatorReport::PublishFailed(
        error,
    )));
}

#[test]
fn leader_resigns_after_three_permanent_publication_failures_in_a_row_and_waits() {
    let mut life = Life::leading();
    for code in [
        Code::TooLarge,
        Code::TooLarge,
        Code::Unavailable,
        Code::TooLarge,
    ] {
        fails(&mut life, code);
    }
    fails(&mut life, Code::TooLarge);
    life.handle(ManagerInput::Calculator(CalculatorReport::Published(
        Applied::default(),
    )));
    fails(&mut life, Code::TooLarge);
    fails(&mut life, Code::TooLarge);
    assert_eq!(life.orders, [""; 0], "never three in a row");
    life.notices.clear();
    fails(&mut life, Code::TooLarge);
    assert_eq!(life.orders, ["step down"]);
    let failures = life.failures();
    assert_eq!(failures.len(), 1);
    let error = life.machine.last_failure().unwrap().to_string();
    assert!(
        error.contains("resigned leadership: 3 publications"),
        "{error}"
    );
    life.handle(ManagerInput::Calculator(CalculatorReport::Ended));
    stays_out_of_the_election_for_a_while(&mut life);
}

/// No worker takes the lease: this one waits for two election timeouts, and leads again after that.
#[track_caller]
fn stays_out_of_the_election_for_a_while(life: &mut Life) {
    life.orders.clear();
    let until = life.now + ManagerConfig::default().election_timeout * 2;
    while life.now + Duration::from_millis(100) < until {
        life.pass(Duration::from_millis(100));
        assert_eq!(life.orders, [""; 0]);
    }
    life.pass(Duration::from_secs(2));
    assert_eq!(life.orders, ["lead worker-0"]);
}

#[test]
fn worker_reports_what_it_applied_and_published_under_an_earlier_id() {
    let mut life = Life::joined(ManagerConfig::default());
    life.assigned(70, &["a"]);
    let published = Applied {
        term: 9,
        version: 75,
    };
    life.handle(ManagerInput::Calculator(CalculatorReport::Published(
        published,
    )));
    life.run_until_idle();
    life.now = life.now + ManagerConfig::default().worker_id_ttl / 3;
    life.machine.tick(life.now);
    life.carry_out();
    let (op, _) = life.take(is_claim);
    life.answer(op, written(Outcome::Refused(Refusal::Conflict)));
    let (op, _) = life.take(|r| matches!(r, Request::Read { .. }));
    life.answer(op, Answer::Read(Ok(Some(put("worker-0", "a thief")))));
    assert!(life.held().is_empty());
    life.run_until_idle();
    life.now = life.now + ManagerConfig::default().heartbeat_interval;
    life.machine.tick(life.now);
    life.carry_out();
    let (_, beat) = life.take(is_beat);
    let Request::Put {
        value: Value::Beat(_, report),
        ..
    } = beat
    else {
        panic!("{beat:?}");
    };
    assert_eq!(
        (report.applied, report.highest),
        (Applied::default(), published)
    );
    assert_eq!(life.machine.remembered().reached, published);
}

#[test]
fn leader_that_cannot_plan_hands_leadership_over_and_stays_out_of_the_election() {
    let mut life = Life::leading();
    let error = Error::new(Code::StrategyFailed, "no plan could be made");
    life.handle(ManagerInput::Calculator(CalculatorReport::CannotPlan(
        error,
    )));
    assert_eq!(life.orders, ["step down"]);
    let error = life.machine.last_failure().unwrap().to_string();
    assert!(error.contains("resigned leadership"), "{error}");
    assert!(error.contains("no plan could be made"), "{error}");
    life.handle(ManagerInput::Calculator(CalculatorReport::Ended));
    stays_out_of_the_election_for_a_while(&mut life);
}

#[test]
fn worker_whose_last_calculator_hangs_gives_the_lease_back() {
    let mut life = Life::leading();
    let error = Error::new(Code::StrategyFailed, "no plan could be made");
    life.handle(ManagerInput::Calculator(CalculatorReport::CannotPlan(
        error,
    )));
    // The host's code never returns, so the calculator never ends.
    let mut led = 0;
    for _ in 0..600 {
        life.pass(Duration::from_millis(100));
        led += u32::from(life.machine.is_leader());
    }
    assert_eq!(life.orders, ["step down"]);
    assert!(led < 30, "led without a calculator for {led} of 600 steps");
}

#[test]
fn overdue_host_call_is_reported_once_and_cleared_when_it_returns() {
    let mut life = Life::leading();
    life.notices.clear();
    for seconds in [10, 11] {
        let words = format!("the host election has not returned for {seconds}s");
        life.handle(ManagerInput::HostCallsOverdue(Some(words)));
    }
    assert_eq!(life.failures().len(), 1);
    let error = life.machine.last_failure().unwrap().to_string();
    assert!(error.contains("host election has not returned"), "{error}");
    life.handle(ManagerInput::HostCallsOverdue(None));
    assert!(life.machine.last_failure().is_none());
}

#[test]
fn outage_that_the_process_saw_is_remembered_for_a_take_over() {
    let mut life = Life::joined(ManagerConfig::default());
    life.handle(ManagerInput::Assignment(WatchEvent::Live));
    assert_eq!(life.machine.remembered().store_returned, None);
    life.handle(ManagerInput::Assignment(WatchEvent::Disconnected(
        "gone".into(),
    )));
    life.pass(Duration::from_secs(3));
    assert_eq!(life.machine.remembered().store_returned, Some(life.now));
    life.handle(ManagerInput::Assignment(WatchEvent::Live));
    let returned = life.now;
    life.pass(Duration::from_secs(3));
    assert_eq!(life.machine.remembered().store_returned, Some(returned));
}

#[test]
fn bucket_created_again_is_trusted_once_it_shows_more_than_was_known() {
    let mut life = Life::joined(ManagerConfig::default());
    life.assigned(3, &["p1"]);
    let before = life.machine.remembered().revision;
    let again = |version, revision| Entry {
        revision,
        ..assignment("assignment.worker-0", version, &["p1"])
    };
    life.handle(ManagerInput::Assignment(WatchEvent::Change(again(2, 1))));
    assert_eq!(life.machine.remembered().revision, before);
    life.handle(ManagerInput::Assignment(WatchEvent::Change(again(4, 2))));
    assert_eq!(life.machine.remembered().revision, 2);
}

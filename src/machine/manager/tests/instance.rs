use super::*;
use crate::wire::{ClaimNonce, encode_claim};

const TIME: &str = "2026-11-26T00:00:00.000000001Z";

fn of_instance(policy: OutagePolicy) -> ManagerConfig {
    ManagerConfig {
        instance: "pod-7".into(),
        outage_policy: policy,
        ..ManagerConfig::default()
    }
}

/// The claim of another process of the instance.
fn claim_of_other_process() -> Entry {
    let nonce = ClaimNonce {
        claim: 1,
        process: 1,
    };
    let value = encode_claim(TIME, nonce, Some("pod-7"));
    put("worker-0", &String::from_utf8(value).expect("a text"))
}

/// Answers everything, the listing of the claims with that of the former process.
fn settle_after_former(life: &mut Life) {
    while !life.asked.is_empty() {
        let (op, request) = life.asked.remove(0);
        let answer = match request {
            Request::List(Bucket::StableId) => Answer::Listed(Ok(Listing {
                entries: vec![claim_of_other_process()],
                ..Listing::default()
            })),
            _ => life.reply(&request),
        };
        life.answer(op, answer);
    }
}

/// Its heartbeat meets that of the newer process.
fn beat_conflicts(life: &mut Life) {
    life.now = life.now + Duration::from_secs(2);
    life.machine.tick(life.now);
    life.carry_out();
    let (op, _) = life.take(is_beat);
    life.answer(op, written(Outcome::Refused(Refusal::Conflict)));
}

#[test]
fn id_taken_over_ends_ownership_and_is_reported_by_name() {
    let mut life = Life::joined(of_instance(OutagePolicy::Serve));
    life.assigned(3, &["a", "b"]);
    beat_conflicts(&mut life);
    life.notices.clear();
    let (op, _) = life.take(is_look_at_id);
    life.answer(op, Answer::Read(Ok(Some(claim_of_other_process()))));
    assert!(life.held().is_empty());
    assert!(
        matches!(
            &life.notices[..],
            [
                ManagerEvent::AssignmentChanged(change),
                ManagerEvent::IdTakenOver { worker },
                ManagerEvent::Id(None),
                ..
            ] if change.removed.len() == 2 && worker.as_str() == "worker-0"
        ),
        "{:?}",
        life.notices
    );
    let failure = life.machine.last_failure().expect("a failure");
    assert_eq!(failure.code(), Code::IdLost);
    assert!(failure.message().contains("instance pod-7"), "{failure}");
}

#[test]
fn worker_that_took_id_over_serves_its_assignment_at_once() {
    let mut life = Life::new(of_instance(OutagePolicy::Serve));
    life.assignment = Some(assignment("assignment.worker-0", 3, &["a"]));
    life.handle(ManagerInput::Start);
    settle_after_former(&mut life);
    life.assigned(3, &["a"]);
    assert_eq!(life.held(), ["a"]);
    assert_eq!(life.machine.state(), ManagerState::Stable);
}

/// The former process owns its partitions for as long as its last heartbeat allows.
#[test]
fn strict_worker_that_took_id_over_waits_one_ttl_with_ownership() {
    let config = of_instance(OutagePolicy::Strict);
    let ttl = config.calculator.heartbeat_ttl;
    let mut life = Life::new(config);
    life.assignment = Some(assignment("assignment.worker-0", 3, &["a"]));
    life.handle(ManagerInput::Start);
    settle_after_former(&mut life);
    let began = life.now;
    life.assigned(3, &["a"]);
    life.pass(ttl - Duration::from_millis(1));
    assert!(life.held().is_empty());
    life.pass(Duration::from_millis(1));
    assert_eq!(life.held(), ["a"]);
    assert_eq!(life.now, began + ttl);
}

#[test]
fn strict_ownership_is_suspended_while_another_process_may_use_the_id() {
    let mut life = Life::joined(strict());
    life.assigned(3, &["a"]);
    life.run_until_idle();
    assert_eq!(life.held(), ["a"]);
    beat_conflicts(&mut life);
    assert!(life.held().is_empty(), "the claim has not been read yet");
    life.run_until_idle();
    assert_eq!(life.held(), ["a"], "the claim is still its own");
}

/// The heartbeat of the newer process must not be deleted by a leave of the former one.
#[test]
fn leave_of_former_process_leaves_heartbeat_of_newer_one() {
    let mut life = Life::joined(of_instance(OutagePolicy::Serve));
    beat_conflicts(&mut life);
    life.handle(ManagerInput::Stop(Departure::Leave));
    let (op, _) = life.take(is_look_at_id);
    life.run_until_idle(); // the look at the heartbeat: that of the newer process
    let is_delete = |request: &Request| matches!(request, Request::Delete { .. });
    assert!(!life.asked.iter().any(|(_, request)| is_delete(request)));
    life.answer(op, Answer::Read(Ok(Some(claim_of_other_process()))));
    assert!(!life.asked.iter().any(|(_, request)| is_delete(request)));
    life.run_until_idle();
    assert_eq!(life.orders, ["departed"]);
}

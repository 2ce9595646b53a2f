use super::*;

const INTERVAL: Duration = Duration::from_secs(2);
const TTL: Duration = Duration::from_secs(6);
const NOW: Time = Time::from_nanos(1_000_000_000_000);

fn worker(id: &str) -> WorkerId {
    WorkerId::new(id).unwrap()
}

fn heart() -> Heartbeat {
    let mut heart = Heartbeat::new(KeyPrefix::new("heartbeat").unwrap(), INTERVAL, TTL);
    assert_eq!(heart.deadline(), None, "nobody's heart is silent");
    assert_eq!(heart.poll_request(NOW), None);
    heart.set_worker(Some(worker("w-0")));
    heart
}

fn written(outcome: Outcome) -> Answer {
    Answer::Written {
        outcome,
        value: Vec::new(),
    }
}

fn unknown() -> Outcome {
    Outcome::Unknown("no answer".into())
}

/// The next request is a beat under this condition.
#[track_caller]
fn beats(heart: &mut Heartbeat, now: Time, expect: Expect) -> Applied {
    match heart.poll_request(now) {
        Some(Request::Put {
            bucket: Bucket::Heartbeat,
            key,
            value: Value::Beat(id, applied),
            expect: found,
        }) => {
            assert_eq!((key.as_str(), id.as_str()), ("heartbeat.w-0", "w-0"));
            assert_eq!(found, expect);
            applied
        }
        other => panic!("no beat: {other:?}"),
    }
}

#[test]
fn a_beat_leans_on_the_one_before_and_comes_once_an_interval() {
    let mut heart = heart();
    beats(&mut heart, NOW, Expect::Any);
    assert_eq!(heart.poll_request(NOW), None, "one at a time");
    assert_eq!(heart.confirmed(), None);
    heart.answered(NOW + INTERVAL / 4, &written(Outcome::Done(7)));
    assert_eq!(heart.confirmed(), Some(NOW), "from when it was sent");
    assert_eq!(heart.lease_until(), Some(NOW + TTL * 9 / 10));
    assert_eq!(heart.deadline(), Some(NOW + INTERVAL));
    assert_eq!(heart.poll_request(NOW + INTERVAL / 2), None);
    beats(&mut heart, NOW + INTERVAL, Expect::Revision(7));
    assert!(!heart.take_disturbance());
}

#[test]
fn what_was_applied_is_told_at_once() {
    let mut heart = heart();
    beats(&mut heart, NOW, Expect::Any);
    heart.answered(NOW, &written(Outcome::Done(1)));
    assert!(heart.is_settled());
    let applied = Applied {
        term: 3,
        version: 42,
    };
    heart.set_applied(applied);
    assert!(!heart.is_settled());
    assert_eq!(beats(&mut heart, NOW, Expect::Revision(1)), applied);
    heart.answered(NOW, &written(Outcome::Done(2)));
    heart.set_applied(applied);
    assert_eq!(heart.poll_request(NOW), None, "nothing new");
    heart.beat_now();
    beats(&mut heart, NOW, Expect::Revision(2));
}

#[test]
fn a_beat_that_fails_is_repeated_soon_and_confirms_nothing() {
    for (outcome, expect, is_disturbed) in [
        (Outcome::Refused(Refusal::Busy), Expect::Revision(1), false),
        (unknown(), Expect::Any, false),
        // The key has expired, or somebody else beats.
        (Outcome::Refused(Refusal::Conflict), Expect::Any, true),
    ] {
        let mut heart = heart();
        beats(&mut heart, NOW, Expect::Any);
        heart.answered(NOW, &written(Outcome::Done(1)));
        let second = NOW + INTERVAL;
        beats(&mut heart, second, Expect::Revision(1));
        heart.answered(second, &written(outcome));
        assert_eq!(heart.confirmed(), Some(NOW));
        assert_eq!(heart.take_disturbance(), is_disturbed);
        assert!(!heart.take_disturbance(), "asked once");
        let due = heart.deadline().unwrap();
        assert!(due <= second + RETRY, "{due:?}");
        beats(&mut heart, due, expect);
    }
}

#[test]
fn a_leave_deletes_the_key_and_nothing_beats_after_it() {
    for outcome in [Outcome::Done(9), unknown()] {
        let mut heart = heart();
        beats(&mut heart, NOW, Expect::Any);
        heart.leave();
        assert_eq!(heart.poll_request(NOW), None, "after the beat under way");
        heart.answered(NOW, &written(Outcome::Done(1)));
        assert!(!heart.is_settled());
        let leave = heart.poll_request(NOW);
        assert!(
            matches!(&leave, Some(Request::Delete { key, .. }) if key == "heartbeat.w-0"),
            "{leave:?}"
        );
        heart.answered(NOW, &written(outcome));
        assert!(heart.is_settled());
        assert_eq!(heart.deadline(), None);
    }
    // Somebody else beats under the id: that is not this worker's to delete.
    let mut heart = heart();
    beats(&mut heart, NOW, Expect::Any);
    heart.answered(NOW, &written(Outcome::Done(7)));
    heart.leave();
    let leave = heart.poll_request(NOW);
    assert!(
        matches!(
            leave,
            Some(Request::Delete {
                expect: Expect::Revision(7),
                ..
            })
        ),
        "{leave:?}"
    );
    heart.answered(NOW, &written(Outcome::Refused(Refusal::Conflict)));
    assert!(heart.is_settled());
    let mut nobody = Heartbeat::new(KeyPrefix::new("heartbeat").unwrap(), INTERVAL, TTL);
    nobody.leave();
    assert!(nobody.is_settled());
}

#[test]
fn a_leave_that_the_store_refuses_is_repeated_a_few_times() {
    let mut heart = heart();
    heart.leave();
    let mut now = NOW;
    let mut asked = 0;
    while let Some(due) = heart.deadline() {
        assert!(!heart.is_settled());
        now = now.max(due);
        assert!(matches!(
            heart.poll_request(now),
            Some(Request::Delete { .. })
        ));
        heart.answered(now, &written(Outcome::Refused(Refusal::Busy)));
        asked += 1;
    }
    assert_eq!(asked, LEAVES_MAX);
    assert!(heart.is_settled());
    assert!(now.since(NOW) <= Duration::from_secs(1), "nobody waits");
}

#[test]
fn the_answer_to_a_beat_of_another_life_counts_for_nothing() {
    let mut heart = heart();
    beats(&mut heart, NOW, Expect::Any);
    heart.set_worker(Some(worker("w-1")));
    assert_eq!(heart.poll_request(NOW), None, "one at a time");
    heart.answered(NOW, &written(Outcome::Done(1)));
    assert_eq!(heart.confirmed(), None);
    let beat = heart.poll_request(NOW);
    assert!(
        matches!(&beat, Some(Request::Put { key, expect: Expect::Any, .. }) if key == "heartbeat.w-1"),
        "{beat:?}"
    );
    heart.answered(NOW, &Answer::Read(Ok(None)));
    assert_eq!(heart.confirmed(), None, "no answer to a beat");
}

#[test]
fn a_bucket_that_forgets_sooner_makes_the_lease_shorter() {
    let mut heart = heart();
    heart.limit_ttl(TTL * 2);
    assert_eq!(heart.lease(), TTL * 9 / 10);
    heart.limit_ttl(TTL / 2);
    assert_eq!(heart.lease(), TTL * 9 / 20);
}

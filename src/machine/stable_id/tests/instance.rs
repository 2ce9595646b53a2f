use super::*;

const TIME: &str = "2026-11-26T00:00:00.000000001Z";

fn of_instance(seed: u64, instance: &str) -> Claim {
    let mut claim = Claim::with_seed(seed);
    claim.id.identify(instance);
    claim
}

/// The value of the claim that is written next, as the shell would encode it.
fn written_claim(claim: &mut Claim) -> (String, Revision, Vec<u8>) {
    match claim.next() {
        Request::Put {
            key,
            value: Value::Claim(nonce, instance),
            expect: Expect::Revision(revision),
            ..
        } => {
            let value = crate::wire::encode_claim(TIME, nonce, instance.as_deref());
            (key, revision, value)
        }
        other => panic!("no claim: {other:?}"),
    }
}

fn foreign(seed: u64, instance: Option<&str>) -> Vec<u8> {
    let mut claim = Claim::with_seed(seed);
    claim.lists(&[]);
    let plain = own_claim(&mut claim, TIME);
    let plain = String::from_utf8(plain).expect("a text");
    instance
        .map_or(plain.clone(), |name| format!("{plain} instance={name}"))
        .into_bytes()
}

/// Owns w-2, which a former process of the instance left behind as revision 9.
fn taken_over() -> Claim {
    let mut claim = of_instance(7, "pod-7");
    claim.lists(&[
        entry("w-1", 8, &foreign(3, Some("pod-8"))),
        entry("w-2", 9, &foreign(2, Some("pod-7"))),
    ]);
    let (key, revision, value) = written_claim(&mut claim);
    assert_eq!((key.as_str(), revision), ("w-2", 9));
    claim.is_written(Outcome::Done(10), &value);
    claim
}

#[test]
fn process_takes_claim_of_its_instance_over_by_compare_and_set() {
    let mut claim = taken_over();
    let Some(IdEvent::Claimed {
        worker,
        was_taken_over,
    }) = claim.event()
    else {
        panic!("no id");
    };
    assert_eq!((worker.as_str(), was_taken_over), ("w-2", true));
    assert!(claim.is_certain());
}

#[test]
fn claims_without_instance_or_of_another_are_not_taken_over() {
    for (instance, value) in [
        (Some("pod-7"), foreign(2, None)),
        (Some("pod-7"), foreign(2, Some("pod-70"))),
        (Some("pod-7"), b"2026-01-01T00:00:00Z".to_vec()),
        (None, foreign(2, Some("pod-7"))),
    ] {
        let mut claim = Claim::new();
        if let Some(instance) = instance {
            claim.id.identify(instance);
        }
        claim.lists(&[entry("w-0", 4, &value)]);
        assert_eq!(claim.creates(), ("w-1".into(), 0), "{value:?}");
        claim.is_written(Outcome::Done(5), b"first");
        let event = claim.event();
        let is_new =
            matches!(event, Some(IdEvent::Claimed { was_taken_over, .. }) if !was_taken_over);
        assert!(is_new, "{event:?}");
    }
}

/// The former process still runs and renewed its claim between the listing and the write.
#[test]
fn claim_renewed_during_take_over_is_listed_again_and_taken() {
    let former = foreign(2, Some("pod-7"));
    let mut claim = of_instance(7, "pod-7");
    claim.lists(&[entry("w-2", 9, &former)]);
    written_claim(&mut claim);
    claim.is_written(CONFLICT, b"mine");
    claim.lists(&[entry("w-2", 11, &former)]);
    let (key, revision, _) = written_claim(&mut claim);
    assert_eq!((key.as_str(), revision), ("w-2", 11));
    // Without an answer: the key decides.
    claim.is_written(unknown(), b"mine");
    claim.reads(Some(entry("w-2", 12, &former)));
    let (key, revision, value) = written_claim(&mut claim);
    assert_eq!((key.as_str(), revision), ("w-2", 12));
    claim.is_written(unknown(), &value);
    claim.reads(Some(entry("w-2", 13, &value)));
    assert!(claim.is_certain());
}

/// Two processes that were given one instance by mistake must not take the id in turn.
#[test]
fn former_process_loses_id_and_claims_another_without_instance() {
    let mut former = taken_over();
    let _ = former.event();
    let newer = foreign(9, Some("pod-7"));
    former.id.verify();
    assert!(former.id.is_disputed());
    former.reads(Some(entry("w-2", 12, &newer)));
    assert!(matches!(former.event(), Some(IdEvent::TakenOver(id)) if id.as_str() == "w-2"));
    assert_eq!(former.id.worker(), None);
    former.id.claim();
    former.lists(&[entry("w-2", 12, &newer)]);
    match former.next() {
        Request::Put {
            key,
            value: Value::Claim(_, None),
            expect: Expect::Revision(0),
            ..
        } => assert_eq!(key, "w-0"),
        other => panic!("no plain claim: {other:?}"),
    }
}

#[test]
fn id_kept_by_same_instance_is_claimed_before_other_kept_ids() {
    let kept = |instance| crate::wire::encode_kept(TIME, instance);
    let mut claim = of_instance(7, "pod-7");
    claim.lists(&[
        entry("w-0", 7, &kept(Some("pod-6"))),
        entry("w-1", 8, &kept(Some("pod-7"))),
    ]);
    let (key, revision, value) = written_claim(&mut claim);
    assert_eq!((key.as_str(), revision), ("w-1", 8));
    claim.is_written(Outcome::Done(9), &value);
    let event = claim.event();
    let is_orderly =
        matches!(event, Some(IdEvent::Claimed { was_taken_over, .. }) if !was_taken_over);
    assert!(is_orderly, "the former process released it: {event:?}");
    // And it is kept for the instance again.
    claim.id.release(true);
    let Request::Put { value, .. } = claim.next() else {
        panic!("the key stays");
    };
    assert_eq!(value, Value::Kept(Some("pod-7".into())));
}

#[test]
fn renewal_confirmed_during_dispute_does_not_end_it() {
    let mut claim = Claim::holding();
    claim.creates();
    claim.id.verify();
    claim.is_written(Outcome::Done(2), b"again");
    assert!(claim.id.is_disputed());
    claim.reads(Some(entry("w-0", 2, b"again")));
    assert!(!claim.id.is_disputed());
    assert!(claim.is_certain());
}

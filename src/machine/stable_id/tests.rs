mod instance;

use super::*;
use crate::store::Operation;
use crate::wire::encode_kept;

const TTL: Duration = Duration::from_secs(30);

/// One claim against a store that the test plays.
struct Claim {
    id: StableId,
    now: Time,
}

impl Claim {
    fn new() -> Self {
        Self::with_seed(7)
    }

    fn with_seed(seed: u64) -> Self {
        let pool = Pool {
            prefix: "w".into(),
            min: 0,
            max: 3,
            ttl: TTL,
        };
        let mut claim = Self {
            id: StableId::new(pool, seed),
            now: Time::from_nanos(1_000_000_000_000),
        };
        claim.id.claim();
        claim
    }

    /// Holds w-0, created as revision 1 when this was called.
    fn holding() -> Self {
        let mut claim = Self::new();
        claim.lists(&[]);
        assert_eq!(claim.creates(), ("w-0".into(), 0));
        claim.is_written(Outcome::Done(1), b"first");
        assert!(
            matches!(claim.event(), Some(IdEvent::Claimed { worker: id, .. }) if id.as_str() == "w-0")
        );
        claim
    }

    /// Lets time pass until there is something to ask.
    fn next(&mut self) -> Request {
        self.now = self.now.max(self.id.deadline().expect("something to ask"));
        self.id.poll_request(self.now).expect("a request")
    }

    fn lists(&mut self, entries: &[Entry]) {
        assert_eq!(self.next(), Request::List(Bucket::StableId));
        let listing = Listing {
            entries: entries.to_vec(),
            ..Listing::default()
        };
        self.id.answered(self.now, Answer::Listed(Ok(listing)));
    }

    /// The next request is a conditional write: of which key, after which revision.
    fn creates(&mut self) -> (String, Revision) {
        match self.next() {
            Request::Put {
                bucket: Bucket::StableId,
                key,
                value: Value::Claim(..),
                expect: Expect::Revision(revision),
            } => (key, revision),
            other => panic!("no conditional write: {other:?}"),
        }
    }

    fn is_written(&mut self, outcome: Outcome, value: &[u8]) {
        let value = value.to_vec();
        self.id
            .answered(self.now, Answer::Written { outcome, value });
    }

    /// The next request reads w-0 (or whatever key); this is what it finds.
    fn reads(&mut self, entry: Option<Entry>) {
        assert!(matches!(self.next(), Request::Read { .. }));
        self.id.answered(self.now, Answer::Read(Ok(entry)));
    }

    fn event(&mut self) -> Option<IdEvent> {
        self.id.poll_event()
    }

    fn is_certain(&self) -> bool {
        self.id
            .certain_until()
            .is_some_and(|until| self.now < until)
    }
}

fn entry(key: &str, revision: Revision, value: &[u8]) -> Entry {
    Entry {
        key: key.into(),
        value: value.to_vec(),
        revision,
        operation: Operation::Put,
        age: None,
    }
}

fn marker(key: &str, revision: Revision) -> Entry {
    Entry {
        operation: Operation::Delete,
        ..entry(key, revision, b"")
    }
}

fn unknown() -> Outcome {
    Outcome::Unknown("no answer".into())
}

const CONFLICT: Outcome = Outcome::Refused(Refusal::Conflict);

fn unavailable() -> Error {
    Error::new(Code::Unavailable, "gone")
}

#[test]
fn lowest_free_id_is_claimed_by_create() {
    // (what the pool holds, the key that is written, after which revision)
    let cases: [(&[Entry], &str, Revision); 4] = [
        (&[], "w-0", 0),
        (&[entry("w-0", 4, b"x")], "w-1", 0),
        (&[entry("w-0", 4, b"x"), marker("w-1", 9)], "w-1", 9),
        // Names of no pool, of another one, or written another way, take no number.
        (
            &[
                entry("w-00", 4, b"x"),
                entry("v-0", 5, b"x"),
                entry("w-7", 6, b"x"),
            ],
            "w-0",
            0,
        ),
    ];
    for (entries, key, revision) in cases {
        let mut claim = Claim::new();
        claim.lists(entries);
        assert_eq!(claim.creates(), (key.into(), revision));
    }
}

/// Defect 7: a read error leads to an unconditional put that steals a live id.
#[test]
fn failed_listing_claims_nothing_and_is_repeated() {
    let mut claim = Claim::new();
    for _ in 0..5 {
        assert_eq!(claim.next(), Request::List(Bucket::StableId));
        let asked = claim.now;
        claim.id.answered(asked, Answer::Listed(Err(unavailable())));
        assert!(matches!(claim.event(), Some(IdEvent::Failed(_))));
        assert!(claim.id.deadline().expect("a retry") > asked, "at once");
        assert_eq!(claim.id.worker(), None);
    }
}

/// Defect 7, second part: an unconditional renewal lets two processes share one id forever.
#[test]
fn every_renewal_is_conditional_on_previous_revision() {
    let mut claim = Claim::holding();
    for revision in 1..5 {
        let before = claim.now;
        assert_eq!(claim.creates(), ("w-0".into(), revision));
        assert_eq!(claim.now.since(before), TTL / 3);
        claim.is_written(Outcome::Done(revision + 1), b"again");
        assert!(claim.is_certain());
        assert!(claim.event().is_none());
    }
}

#[test]
fn id_is_certain_for_nine_tenths_of_ttl_after_renewal_was_sent() {
    let mut claim = Claim::holding();
    let created = claim.now;
    assert_eq!(claim.id.certain_until(), Some(created + TTL * 9 / 10));
    claim.creates();
    let sent = claim.now;
    claim.now = sent + Duration::from_secs(4);
    claim.is_written(Outcome::Done(2), b"again");
    assert_eq!(claim.id.certain_until(), Some(sent + TTL * 9 / 10));
}

#[test]
fn shorter_bucket_ttl_shortens_certainty() {
    let mut claim = Claim::holding();
    claim.id.limit_ttl(TTL * 2);
    assert_eq!(claim.id.certain_until(), Some(claim.now + TTL * 9 / 10));
    claim.id.limit_ttl(TTL / 3);
    assert_eq!(claim.id.certain_until(), Some(claim.now + TTL * 3 / 10));
}

#[test]
fn overwritten_id_is_lost_and_never_stolen_back() {
    let mut claim = Claim::holding();
    claim.creates();
    claim.is_written(CONFLICT, b"again");
    claim.reads(Some(entry("w-0", 8, b"a thief")));
    assert!(matches!(claim.event(), Some(IdEvent::Lost(id)) if id.as_str() == "w-0"));
    assert_eq!(claim.id.worker(), None);
    assert_eq!(claim.id.certain_until(), None);
    claim.id.claim();
    claim.lists(&[entry("w-0", 8, b"a thief")]);
    assert_eq!(claim.creates(), ("w-1".into(), 0));
}

#[test]
fn deleted_id_is_reclaimed_unless_taken() {
    for (found, revision) in [
        (None, 0),
        (Some(marker("w-0", 5)), 5),
        (
            Some(Entry {
                operation: Operation::Gone,
                ..marker("w-0", 5)
            }),
            0,
        ),
    ] {
        let mut claim = Claim::holding();
        claim.creates();
        claim.is_written(CONFLICT, b"again");
        claim.reads(found.clone());
        assert_eq!(claim.creates(), ("w-0".into(), revision));
        claim.is_written(Outcome::Done(6), b"regained");
        assert!(matches!(claim.event(), Some(IdEvent::Regained(_))));
        assert!(claim.is_certain());

        let mut claim = Claim::holding();
        claim.creates();
        claim.is_written(CONFLICT, b"again");
        claim.reads(found);
        claim.creates();
        claim.is_written(CONFLICT, b"too late");
        claim.reads(Some(entry(
            "w-0",
            1,
            b"another's, of a bucket that counts from the start",
        )));
        assert!(matches!(claim.event(), Some(IdEvent::Lost(_))));
    }
}

#[test]
fn renewal_without_answer_is_resolved_by_read() {
    // (what the key holds, whether the renewal counts, what is written next)
    let cases = [
        (entry("w-0", 2, b"again"), true, 2),
        (entry("w-0", 1, b"first"), false, 1),
    ];
    for (found, counts, revision) in cases {
        let mut claim = Claim::holding();
        let confirmed = claim.now;
        claim.creates();
        let sent = claim.now;
        claim.is_written(unknown(), b"again");
        assert!(matches!(claim.event(), Some(IdEvent::Failed(_))));
        claim.reads(Some(found));
        let since = if counts { sent } else { confirmed };
        assert_eq!(claim.id.certain_until(), Some(since + TTL * 9 / 10));
        assert_eq!(claim.creates(), ("w-0".into(), revision));
        assert!(claim.event().is_none());
    }
}

#[test]
fn rejected_or_unreadable_renewal_is_retried() {
    let mut claim = Claim::holding();
    claim.creates();
    claim.is_written(Outcome::Refused(Refusal::Busy), b"again");
    assert_eq!(claim.creates(), ("w-0".into(), 1));
    claim.is_written(unknown(), b"again");
    let Request::Read { .. } = claim.next() else {
        panic!("no look");
    };
    claim
        .id
        .answered(claim.now, Answer::Read(Err(unavailable())));
    claim.reads(Some(entry("w-0", 2, b"again")));
    assert!(claim.id.worker().is_some());
}

#[test]
fn create_without_answer_is_resolved_by_read() {
    let mut claim = Claim::new();
    claim.lists(&[]);
    claim.creates();
    let sent = claim.now;
    claim.is_written(unknown(), b"first");
    claim.reads(Some(entry("w-0", 3, b"first")));
    assert!(claim.id.worker().is_some());
    assert_eq!(claim.id.certain_until(), Some(sent + TTL * 9 / 10));

    let mut claim = Claim::new();
    claim.lists(&[]);
    claim.creates();
    claim.is_written(unknown(), b"first");
    claim.reads(Some(entry("w-0", 3, b"a rival's")));
    assert_ne!(claim.creates().0, "w-0");
}

/// Left alone it would keep its number from everybody until it expires.
#[test]
fn delayed_create_is_recognised_as_own() {
    for refusal in [CONFLICT, Outcome::Refused(Refusal::Busy), unknown()] {
        let mut claim = Claim::new();
        claim.lists(&[]);
        claim.creates();
        let sent = claim.now;
        claim.is_written(unknown(), b"first");
        claim.reads(None);
        assert_eq!(claim.creates(), ("w-0".into(), 0));
        claim.is_written(refusal, b"second");
        claim.reads(Some(entry("w-0", 3, b"first")));
        assert_eq!(claim.id.worker().map(WorkerId::as_str), Some("w-0"));
        assert_eq!(claim.id.certain_until(), Some(sent + TTL * 9 / 10));
    }
}

/// Symptom: workers that were started while the server was down had other ids afterwards, and all
/// partitions moved. Cause: for a moment after its return the server still showed their former
/// claims, though these had expired.
#[test]
fn claim_older_than_ttl_by_store_clock_is_free() {
    let aged = |age: Duration| Entry {
        age: Some(age),
        ..entry("w-2", 4, b"of a former life")
    };
    for (age, key) in [(TTL, "w-2"), (TTL * 9 / 10, "w-0")] {
        let mut claim = Claim::new();
        claim.id.limit_ttl(TTL);
        claim.id.prefer(&WorkerId::new("w-2").unwrap());
        claim.lists(&[aged(age)]);
        let revision = if key == "w-2" { 4 } else { 0 };
        assert_eq!(claim.creates(), (key.into(), revision));
        if key == "w-2" {
            // Removed just now: the same number again, not another one.
            claim.is_written(CONFLICT, b"mine");
            claim.lists(&[marker("w-2", 9)]);
            assert_eq!(claim.creates(), ("w-2".into(), 9));
        }
    }
    // The time for which the store keeps a claim is unknown.
    let mut claim = Claim::new();
    claim.id.prefer(&WorkerId::new("w-2").unwrap());
    claim.lists(&[aged(TTL * 9)]);
    assert_eq!(claim.creates().0, "w-0");
}

#[test]
fn rejected_create_starts_with_new_listing() {
    let mut claim = Claim::new();
    claim.lists(&[]);
    claim.creates();
    claim.is_written(Outcome::Refused(Refusal::Busy), b"first");
    claim.lists(&[entry("w-0", 1, b"x")]);
    assert_eq!(claim.creates().0, "w-1");
}

#[test]
fn rival_claimants_back_off_and_list_pool_again() {
    let mut claim = Claim::new();
    claim.lists(&[]);
    let mut tried = Vec::new();
    for _ in 0..3 {
        tried.push(claim.creates().0);
        claim.is_written(CONFLICT, b"x");
        let pause = claim.id.deadline().expect("a next try").since(claim.now);
        assert!(pause <= CONFLICT_PAUSE_MAX, "{pause:?}");
    }
    tried.push(claim.creates().0);
    claim.is_written(CONFLICT, b"x");
    tried.sort();
    assert_eq!(tried, ["w-0", "w-1", "w-2", "w-3"], "each number once");
    claim.lists(&[]);
}

#[test]
fn two_hundred_simultaneous_starts_share_hundred_ids() {
    let mut taken = BTreeMap::new();
    let mut claims: Vec<_> = (0..200)
        .map(|seed| {
            let mut claim = Claim::with_seed(seed);
            claim.id.pool.max = 99;
            claim
        })
        .collect();
    let start = claims[0].now;
    let mut now = start;
    // Requests take no time; the claim with the earliest deadline is next.
    while taken.len() < 100 {
        let due = claims
            .iter()
            .enumerate()
            .filter(|(_, c)| c.id.worker().is_none());
        let (index, at) = due
            .filter_map(|(i, c)| Some((i, c.id.deadline()?.max(now))))
            .min_by_key(|&(i, at)| (at, i))
            .expect("a process without an id");
        now = at;
        let claim = &mut claims[index];
        claim.now = now;
        match claim.id.poll_request(now).expect("a request") {
            Request::List(_) => {
                let entries = taken
                    .keys()
                    .map(|key: &String| entry(key, 1, b"x"))
                    .collect();
                let listing = Listing {
                    entries,
                    ..Listing::default()
                };
                claim.id.answered(now, Answer::Listed(Ok(listing)));
            }
            Request::Put { key, .. } => {
                let is_free = !taken.contains_key(&key);
                taken.entry(key).or_insert(index);
                let outcome = if is_free { Outcome::Done(1) } else { CONFLICT };
                claim.is_written(outcome, b"x");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(
        now.since(start) < Duration::from_secs(5),
        "{:?}",
        now.since(start)
    );
}

#[test]
fn exhausted_pool_error_names_pool_with_its_size_and_waits_for_vacancy() {
    let all: Vec<Entry> = (0..4).map(|n| entry(&format!("w-{n}"), 1, b"x")).collect();
    let mut claim = Claim::new();
    claim.lists(&all);
    let Some(IdEvent::Failed(error)) = claim.event() else {
        panic!("nothing was reported");
    };
    assert_eq!(error.code(), Code::IdsExhausted);
    let expected = "all 4 ids from w-0 to w-3 are taken";
    assert!(error.to_string().contains(expected), "{error}");
    claim.lists(&all[1..]);
    assert_eq!(claim.creates(), ("w-0".into(), 0));
}

/// Symptom: two workers owned one id (seed 16633 of the managers). Cause: the bucket was recreated
/// while one of them was frozen, and the other's claim happened to get the revision that the first
/// one expected.
#[test]
fn late_renewal_reads_key_first_and_never_renews_foreign_claim() {
    for (value, is_ours) in [(&b"first"[..], true), (b"another's", false)] {
        let mut claim = Claim::holding();
        claim.now = claim.now + TTL / 2 + Duration::from_millis(1);
        claim.reads(Some(entry("w-0", 1, value)));
        assert_eq!(claim.id.worker().is_some(), is_ours);
        if is_ours {
            // And once.
            assert_eq!(claim.creates(), ("w-0".into(), 1));
            claim.is_written(Outcome::Done(2), b"again");
            assert!(claim.is_certain());
        } else {
            assert!(matches!(claim.event(), Some(IdEvent::Lost(_))));
        }
    }
}

/// Symptom: a hundred workers without an id read the hundred claims of the others twice a second
/// each. Cause: an exhausted pool was asked as often as a store that fails.
#[test]
fn exhausted_pool_is_listed_few_times_per_ttl() {
    let all: Vec<Entry> = (0..4).map(|n| entry(&format!("w-{n}"), 1, b"x")).collect();
    let mut claim = Claim::new();
    let began = claim.now;
    let mut times = 0;
    while claim.now < began + TTL * 10 {
        claim.lists(&all);
        times += 1;
    }
    assert!((60..=200).contains(&times), "{times} times in ten TTLs");
}

#[test]
fn suspected_second_holder_triggers_immediate_claim_check() {
    let mut claim = Claim::holding();
    claim.id.verify();
    assert_eq!(claim.id.deadline(), Some(Time::ZERO));
    claim.reads(Some(entry("w-0", 1, b"another's")));
    assert!(matches!(claim.event(), Some(IdEvent::Lost(_))));
    let mut idle = Claim::new();
    idle.id.verify();
    assert!(matches!(idle.next(), Request::List(_)));
}

#[test]
fn release_deletes_own_revision_only() {
    let mut claim = Claim::holding();
    claim.id.release(false);
    assert_eq!(claim.id.worker(), None);
    assert!(!claim.id.is_released());
    let expect = Expect::Revision(1);
    let key = "w-0".into();
    let bucket = Bucket::StableId;
    assert_eq!(
        claim.next(),
        Request::Delete {
            bucket,
            key,
            expect
        }
    );
    claim.is_written(CONFLICT, b"");
    assert!(claim.id.is_released());
    assert_eq!(claim.id.deadline(), None);
    assert!(claim.event().is_none());
}

/// Symptom: the id of a worker that had left stayed claimed for its TTL. Cause: the release was
/// attempted once. Fix: a retriable failure is retried a few times.
#[test]
fn id_release_is_retried_when_retriable() {
    let busy = || Outcome::Refused(Refusal::Busy);
    let gives_back = |claim: &mut Claim| {
        let expect = Expect::Revision(1);
        let request = claim.next();
        assert!(matches!(request, Request::Delete { expect: e, .. } if e == expect));
    };
    for last in [Outcome::Done(2), CONFLICT] {
        let mut claim = Claim::holding();
        claim.id.release(false);
        for outcome in [busy(), Outcome::Unknown("no answer".into())] {
            gives_back(&mut claim);
            claim.is_written(outcome, b"");
            assert!(!claim.id.is_released());
        }
        gives_back(&mut claim);
        claim.is_written(last, b"");
        assert!(claim.id.is_released());
    }
    let mut claim = Claim::holding();
    claim.id.release(false);
    let mut tries = 0;
    while !claim.id.is_released() {
        gives_back(&mut claim);
        claim.is_written(busy(), b"");
        tries += 1;
    }
    assert_eq!(tries, RELEASES_MAX);
    assert!(claim.event().is_none());
}

#[test]
fn remembered_id_is_claimed_first_when_free() {
    let remembered = WorkerId::new("w-2").unwrap();
    let mut claim = Claim::new();
    claim.id.prefer(&remembered);
    claim.lists(&[]);
    assert_eq!(claim.creates(), ("w-2".into(), 0));
    // An id reserved for this instance comes before other reserved ids.
    let kept = encode_kept("2026-11-26T00:00:00Z", None);
    let mut claim = Claim::new();
    claim.id.prefer(&remembered);
    claim.lists(&[entry("w-0", 7, &kept), entry("w-2", 8, &kept)]);
    assert_eq!(claim.creates(), ("w-2".into(), 8));
    // Another process has it, and one has an id of another pool.
    let mut claim = Claim::new();
    claim.id.prefer(&remembered);
    claim.lists(&[entry("w-2", 8, b"x")]);
    assert_eq!(claim.creates(), ("w-0".into(), 0));
    let mut claim = Claim::new();
    claim.id.prefer(&WorkerId::new("w-77").unwrap());
    claim.lists(&[]);
    assert_eq!(claim.creates(), ("w-0".into(), 0));
}

#[test]
fn release_waits_for_running_renewal_and_deletes_its_revision() {
    let mut claim = Claim::holding();
    claim.creates();
    claim.id.release(false);
    assert_eq!(claim.id.poll_request(claim.now), None);
    claim.is_written(Outcome::Done(2), b"again");
    assert!(
        matches!(
            claim.next(),
            Request::Delete {
                expect: Expect::Revision(2),
                ..
            }
        ),
        "the key as the renewal left it"
    );
    claim.is_written(Outcome::Done(3), b"");
    assert!(claim.id.is_released());
}

#[test]
fn id_acquired_after_release_is_released() {
    let mut claim = Claim::new();
    claim.lists(&[]);
    claim.creates();
    claim.id.release(false);
    assert!(!claim.id.is_released(), "the create may be carried out");
    claim.is_written(Outcome::Done(1), b"first");
    assert!(claim.event().is_none(), "the id is no longer requested");
    assert!(matches!(claim.next(), Request::Delete { .. }));
    claim.is_written(Outcome::Done(2), b"");
    assert!(claim.id.is_released());

    for begin in [|_: &mut Claim| {}, |claim: &mut Claim| claim.lists(&[])] {
        let mut claim = Claim::new();
        begin(&mut claim);
        claim.id.release(false);
        assert!(claim.id.is_released(), "nothing was claimed");
        assert_eq!(claim.id.poll_request(claim.now), None);
    }
}

#[test]
fn kept_id_is_marked_and_claimed_first_by_next_worker() {
    let mut claim = Claim::holding();
    claim.id.release(true);
    let Request::Put { value, expect, .. } = claim.next() else {
        panic!("the key stays");
    };
    assert_eq!((value, expect), (Value::Kept(None), Expect::Revision(1)));
    claim.is_written(Outcome::Done(2), b"t kept");
    assert!(claim.id.is_released());

    // w-0 and w-1 are free, w-2 is claimed, w-3 is reserved.
    let kept = encode_kept("2026-11-26T00:00:00Z", None);
    let keys = [entry("w-2", 7, b"x"), entry("w-3", 8, &kept)];
    let mut again = Claim::new();
    again.lists(&keys);
    assert_eq!(again.creates(), ("w-3".into(), 8));
    // A create without an answer is read back, and retried while the id is still only reserved.
    again.is_written(unknown(), b"mine");
    again.reads(Some(entry("w-3", 8, &kept)));
    assert_eq!(again.creates(), ("w-3".into(), 8));
    again.is_written(CONFLICT, b"mine");
    again.reads(Some(entry("w-3", 9, b"theirs")));
    let (key, _) = again.creates();
    assert!(["w-0", "w-1"].contains(&key.as_str()), "{key}");
}

#[test]
fn simultaneous_claims_write_different_bytes() {
    let mut drawn = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let mut claim = Claim::with_seed(seed);
        claim.lists(&[]);
        let Request::Put { value, .. } = claim.next() else {
            panic!("no claim");
        };
        drawn.insert(format!("{value:?}"));
    }
    assert_eq!(drawn.len(), 100);
}

/// The value of a claim that this process wrote under its nonce.
fn own_claim(claim: &mut Claim, at: &str) -> Vec<u8> {
    let request = claim.next();
    let Request::Put {
        value: Value::Claim(nonce, _),
        ..
    } = request
    else {
        panic!("no claim: {request:?}");
    };
    crate::wire::encode_claim(at, nonce, None)
}

#[test]
fn older_own_claim_after_a_restore_is_renewed_and_the_id_kept() {
    let mut claim = Claim::new();
    claim.lists(&[]);
    let first = own_claim(&mut claim, "2026-01-01T00:00:00.000000001Z");
    claim.is_written(Outcome::Done(90), &first);
    assert!(matches!(claim.event(), Some(IdEvent::Claimed { .. })));
    let second = own_claim(&mut claim, "2026-01-01T00:00:10.000000001Z");
    claim.is_written(Outcome::Done(95), &second);
    // The copy is from before the renewal.
    let _ = claim.next();
    claim.is_written(Outcome::Refused(Refusal::Conflict), b"third");
    claim.reads(Some(entry("w-0", 40, &first)));
    assert_eq!(claim.creates(), ("w-0".into(), 40));
    claim.is_written(Outcome::Done(41), b"fourth");
    assert!(claim.event().is_none(), "the id was never lost");
    assert_eq!(claim.id.worker().map(WorkerId::as_str), Some("w-0"));
    assert!(claim.is_certain());
}

#[test]
fn claim_of_another_process_in_the_restored_data_loses_the_id() {
    let mut claim = Claim::holding();
    let mut other = Claim::with_seed(8);
    other.lists(&[]);
    let theirs = own_claim(&mut other, "2026-01-01T00:00:00.000000001Z");
    let _ = claim.next();
    claim.is_written(Outcome::Refused(Refusal::Conflict), b"second");
    claim.reads(Some(entry("w-0", 1, &theirs)));
    assert!(matches!(claim.event(), Some(IdEvent::Lost(_))));
}

#[test]
fn process_without_an_id_takes_its_own_former_claim_before_any_other() {
    let mut claim = Claim::new();
    claim.lists(&[]);
    let own = own_claim(&mut claim, "2026-01-01T00:00:00.000000001Z");
    claim.is_written(Outcome::Refused(Refusal::Unavailable("gone".into())), &own);
    claim.lists(&[entry("w-2", 17, &own)]);
    assert_eq!(claim.creates(), ("w-2".into(), 17));
}

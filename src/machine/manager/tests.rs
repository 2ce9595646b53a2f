mod cached;
mod foreign;
mod instance;

use super::*;
use crate::config::OutagePolicy;
use crate::machine::cache::CacheOrder;
use crate::machine::request::Value;
use crate::store::{Entry, Listing, Operation, Outcome, Refusal, WatchEvent};
use crate::types::Version;
use crate::wire::{LEASE_KEY, Reported};

const START: Time = Time::from_nanos(1_000_000_000_000);

/// One manager, and a store that the test plays: by default it does what it is asked.
struct Life {
    machine: ManagerMachine,
    now: Time,
    revision: u64,
    /// Requests not answered yet.
    asked: Vec<(OpId, Request)>,
    notices: Vec<ManagerEvent>,
    /// Everything else that was to be done.
    orders: Vec<String>,
    /// What the assignment key holds.
    assignment: Option<Entry>,
    /// What the key of the id holds.
    claim: Option<Entry>,
    /// What a leader of parti v2 and its workers left.
    v2: Vec<Entry>,
    /// How many hand-over claims there are.
    claims: Result<u64>,
    is_down: bool,
    /// What was ordered to be done with the cache file, not answered yet.
    cache: Vec<CacheOrder>,
}

impl Life {
    fn new(config: ManagerConfig) -> Self {
        Self {
            machine: ManagerMachine::new(config, Rule::Lease, START, 7).unwrap(),
            now: START,
            revision: 0,
            asked: Vec::new(),
            notices: Vec::new(),
            orders: Vec::new(),
            assignment: None,
            claim: None,
            v2: Vec::new(),
            claims: Ok(0),
            is_down: false,
            cache: Vec::new(),
        }
    }

    /// A worker under the id worker-0 that beats.
    fn joined(config: ManagerConfig) -> Self {
        let mut life = Self::new(config);
        life.handle(ManagerInput::Start);
        life.run_until_idle();
        assert_eq!(life.orders, ["watch worker-0", "joined"]);
        life.orders.clear();
        life
    }

    /// A worker that leads, its calculator at work.
    fn leading() -> Self {
        let mut life = Self::joined(ManagerConfig::default());
        life.handle(ManagerInput::Lease(WatchEvent::Live));
        life.pass(Duration::from_millis(100));
        assert_eq!(life.orders, ["lead worker-0"]);
        assert!(life.machine.is_leader());
        life.handle(ManagerInput::Calculator(CalculatorReport::Started(
            Applied::default(),
        )));
        life.orders.clear();
        life
    }

    fn handle(&mut self, event: ManagerInput) {
        self.machine.handle(self.now, event);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            let order = match action {
                ManagerAction::Request { op, request, .. } => {
                    self.asked.push((op, request));
                    continue;
                }
                ManagerAction::Notify(notice) => {
                    self.notices.push(notice);
                    continue;
                }
                ManagerAction::Cache(order) => {
                    self.cache.push(order);
                    continue;
                }
                ManagerAction::Watch(id) => format!("watch {id}"),
                ManagerAction::Lead(id) => format!("lead {id}"),
                ManagerAction::StepDown => "step down".into(),
                ManagerAction::Joined => "joined".into(),
                ManagerAction::Departed => "departed".into(),
            };
            self.orders.push(order);
        }
    }

    fn answer(&mut self, op: OpId, answer: Answer) {
        self.handle(ManagerInput::Answered { op, answer });
    }

    /// What the store says to a request.
    fn reply(&mut self, request: &Request) -> Answer {
        let gone = || Error::new(Code::Unavailable, "gone");
        match request {
            Request::Ensure { .. } if self.is_down => Answer::Ensured(Err(gone())),
            Request::List(_) if self.is_down => Answer::Listed(Err(gone())),
            Request::Read { .. } if self.is_down => Answer::Read(Err(gone())),
            Request::CountClaims if self.is_down => Answer::Claims(Err(gone())),
            Request::CountClaims => Answer::Claims(self.claims.clone()),
            Request::Ensure { ttl, .. } => Answer::Ensured(Ok(bucket(*ttl))),
            Request::List(Bucket::Heartbeat) => Answer::Listed(Ok(Listing {
                entries: self.v2.clone(),
                ..Listing::default()
            })),
            Request::Read { key, .. } if key == "assignment._commit" => {
                let commit = self.v2.iter().find(|entry| entry.key == *key);
                Answer::Read(Ok(commit.cloned()))
            }
            Request::List(_) => Answer::Listed(Ok(Listing::default())),
            Request::Read { bucket, .. } if *bucket == Bucket::StableId => {
                Answer::Read(Ok(self.claim.clone()))
            }
            Request::Read { .. } => Answer::Read(Ok(self.assignment.clone())),
            Request::Put { .. } | Request::Delete { .. } => {
                self.revision += 1;
                let outcome = match self.is_down {
                    true => Outcome::Refused(Refusal::Unavailable("gone".into())),
                    false => Outcome::Done(self.revision),
                };
                let value = format!("value {}", self.revision);
                if let (true, Outcome::Done(revision), Request::Put { key, .. }) =
                    (is_claim(request), &outcome, request)
                {
                    let entry = put(key, &value);
                    let revision = *revision;
                    self.claim = Some(Entry { revision, ..entry });
                }
                let value = value.into_bytes();
                Answer::Written { outcome, value }
            }
            Request::Campaign(_) | Request::Resign(_) => Answer::Campaigned(Ok(None)),
        }
    }

    /// Answers everything that is asked now.
    fn run_until_idle(&mut self) {
        while !self.asked.is_empty() {
            let (op, request) = self.asked.remove(0);
            let answer = self.reply(&request);
            self.answer(op, answer);
        }
    }

    /// Lets time pass, with everything answered at once. A deadline in the past would never end.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        let mut ticks = 0;
        while let Some(due) = self.machine.deadline().filter(|due| *due <= end) {
            ticks += 1;
            assert!(ticks < 100_000, "round in circles at {due:?}");
            self.now = self.now.max(due);
            self.machine.tick(self.now);
            self.carry_out();
            self.run_until_idle();
        }
        self.now = end;
        self.machine.tick(end);
        self.carry_out();
        self.run_until_idle();
    }

    fn assigned(&mut self, version: Version, partitions: &[&str]) {
        let entry = assignment("assignment.worker-0", version, partitions);
        self.assignment = Some(entry.clone());
        self.handle(ManagerInput::Assignment(WatchEvent::Change(entry)));
    }

    fn held(&self) -> Vec<String> {
        let partitions = self.machine.held().partitions.iter();
        partitions.map(|partition| partition.subject()).collect()
    }

    /// Takes the request of this kind out of those not answered.
    #[track_caller]
    fn take(&mut self, is_it: impl Fn(&Request) -> bool) -> (OpId, Request) {
        let index = self.asked.iter().position(|(_, request)| is_it(request));
        self.asked.remove(index.expect("such a request"))
    }

    /// How many malformed values were reported.
    fn malformed(&self) -> usize {
        let is_it = |notice: &&ManagerEvent| matches!(notice, ManagerEvent::Malformed(_));
        self.notices.iter().filter(is_it).count()
    }

    fn failures(&self) -> Vec<Code> {
        let failed = self.notices.iter().filter_map(|notice| match notice {
            ManagerEvent::Failed { error } => Some(error.code()),
            _ => None,
        });
        failed.collect()
    }
}

fn strict() -> ManagerConfig {
    ManagerConfig {
        outage_policy: OutagePolicy::Strict,
        ..ManagerConfig::default()
    }
}

fn bucket(ttl: Option<Duration>) -> BucketStatus {
    BucketStatus {
        name: "a-bucket".into(),
        ttl,
        history: 1,
        replicas: 1,
        incarnation: "1".into(),
        last_sequence: 0,
        warnings: Vec::new(),
    }
}

fn assignment(key: &str, version: Version, partitions: &[&str]) -> Entry {
    let list: Vec<String> = partitions
        .iter()
        .map(|name| format!(r#"{{"keys":["{name}"],"weight":1}}"#))
        .collect();
    let list = list.join(",");
    put(
        key,
        &format!(
            r#"{{"version":{version},"lifecycle":"emergency","partitions":[{list}],"term":1}}"#
        ),
    )
}

fn put(key: &str, value: &str) -> Entry {
    Entry {
        key: key.into(),
        value: value.as_bytes().to_vec(),
        revision: 1_000,
        operation: Operation::Put,
        age: None,
    }
}

fn is_claim(request: &Request) -> bool {
    matches!(
        request,
        Request::Put {
            value: Value::Claim(..),
            ..
        }
    )
}

fn is_look_at_id(request: &Request) -> bool {
    matches!(request, Request::Read { bucket, .. } if *bucket == Bucket::StableId)
}

fn is_beat(request: &Request) -> bool {
    matches!(
        request,
        Request::Put {
            value: Value::Beat(..),
            ..
        }
    )
}

fn written(outcome: Outcome) -> Answer {
    Answer::Written {
        outcome,
        value: b"value".to_vec(),
    }
}

// --- the start ---

#[test]
fn start_ensures_buckets_then_claims_id_then_sends_heartbeats() {
    let mut life = Life::new(ManagerConfig::default());
    assert_eq!(life.machine.state(), ManagerState::Init);
    assert_eq!(life.machine.deadline(), None, "not started");
    life.handle(ManagerInput::Start);
    life.handle(ManagerInput::Start);
    for _ in 0..4 {
        let [(op, Request::Ensure { ttl, .. })] = life.asked[..] else {
            panic!("{:?}", life.asked);
        };
        life.asked.clear();
        life.answer(op, Answer::Ensured(Ok(bucket(ttl))));
    }
    let (op, _) =
        life.take(|r| matches!(r, Request::Read { key, .. } if key == "assignment._commit"));
    life.answer(op, Answer::Read(Ok(None)));
    assert!(matches!(
        life.asked[..],
        [(_, Request::List(Bucket::StableId))]
    ));
    assert_eq!(life.machine.state(), ManagerState::ClaimingId);
    life.run_until_idle();
    assert_eq!(life.orders, ["watch worker-0", "joined"]);
    assert_eq!(
        life.machine.worker().map(WorkerId::as_str),
        Some("worker-0")
    );
    assert_eq!(life.machine.state(), ManagerState::Election);
}

#[test]
fn bucket_with_wrong_ttl_is_rejected_once_and_checked_again() {
    let day = Some(Duration::from_secs(86_400));
    for (wrong, allow) in [(day, false), (day, true)] {
        let mut config = ManagerConfig::default();
        config.calculator.allow_assignment_ttl = allow;
        let mut life = Life::new(config);
        life.handle(ManagerInput::Start);
        for _ in 0..3 {
            let (op, request) = life.take(|r| matches!(r, Request::Ensure { .. }));
            let Request::Ensure { bucket: which, ttl } = request else {
                panic!("{request:?}");
            };
            let ttl = if which == Bucket::Assignment {
                wrong
            } else {
                ttl
            };
            life.answer(op, Answer::Ensured(Ok(bucket(ttl))));
            life.now = life.now + Duration::from_secs(1);
            life.machine.tick(life.now);
            life.carry_out();
        }
        let expected: &[Code] = if allow { &[] } else { &[Code::Unsupported] };
        assert_eq!(life.failures(), expected);
    }
    // Ids, leases and beats that never expire.
    let mut life = Life::new(ManagerConfig::default());
    life.handle(ManagerInput::Start);
    loop {
        let (op, request) = life.take(|r| matches!(r, Request::Ensure { .. }));
        let is_last = !matches!(
            request,
            Request::Ensure {
                bucket: Bucket::Assignment,
                ..
            }
        );
        life.answer(op, Answer::Ensured(Ok(bucket(None))));
        if is_last {
            break;
        }
    }
    assert_eq!(life.failures(), [Code::Unsupported]);
}

#[test]
fn store_down_at_start_is_retried_and_reported_once() {
    let mut life = Life::new(ManagerConfig::default());
    life.is_down = true;
    life.handle(ManagerInput::Start);
    life.pass(Duration::from_secs(5));
    assert_eq!(life.failures(), [Code::Unavailable]);
    assert!(life.machine.last_failure().is_some());
    life.is_down = false;
    life.pass(Duration::from_secs(2));
    assert!(life.orders.contains(&"joined".into()));
    assert!(life.machine.last_failure().is_none());
}

#[test]
fn prefix_invalid_as_key_is_rejected() {
    let mut config = ManagerConfig::default();
    config.calculator.assignment_prefix = "a b".into();
    ManagerMachine::new(config, Rule::Lease, START, 1).unwrap_err();
    let mut config = ManagerConfig::default();
    config.calculator.heartbeat_prefix = String::new();
    ManagerMachine::new(config, Rule::Lease, START, 1).unwrap_err();
}

#[test]
fn exhausted_pool_is_reported_once_however_long_it_lasts() {
    let config = ManagerConfig {
        worker_id_max: 0,
        ..ManagerConfig::default()
    };
    let mut life = Life::new(config);
    life.handle(ManagerInput::Start);
    // Four buckets, and whose fleet it is.
    for _ in 0..5 {
        let (op, request) = life.take(|_| true);
        let answer = life.reply(&request);
        life.answer(op, answer);
    }
    for _ in 0..10 {
        let (op, _) = life.take(|r| matches!(r, Request::List(_)));
        let entries = vec![put("worker-0", "another")];
        let listing = Listing {
            entries,
            ..Listing::default()
        };
        life.answer(op, Answer::Listed(Ok(listing)));
        life.now = life.machine.deadline().unwrap();
        life.machine.tick(life.now);
        life.carry_out();
    }
    assert_eq!(life.failures(), [Code::IdsExhausted]);
}

// --- the id ---

#[test]
fn stolen_id_ends_ownership_at_once_and_another_is_claimed() {
    let mut life = Life::joined(ManagerConfig::default());
    life.assigned(3, &["a", "b"]);
    assert_eq!(life.held(), ["a", "b"]);
    life.now = life.now + ManagerConfig::default().worker_id_ttl / 3;
    life.machine.tick(life.now);
    life.carry_out();
    let (op, _) = life.take(is_claim);
    life.answer(op, written(Outcome::Refused(Refusal::Conflict)));
    let (op, _) = life.take(|r| matches!(r, Request::Read { .. }));
    life.notices.clear();
    life.answer(op, Answer::Read(Ok(Some(put("worker-0", "a thief")))));
    assert!(life.held().is_empty());
    assert!(
        matches!(
            &life.notices[..],
            [
                ManagerEvent::AssignmentChanged(change),
                ManagerEvent::IdLost { .. },
                ManagerEvent::Id(None),
                ..
            ] if change.removed.len() == 2
        ),
        "{:?}",
        life.notices
    );
    assert_eq!(
        life.machine.last_failure().map(Error::code),
        Some(Code::IdLost)
    );
    assert_eq!(life.machine.state(), ManagerState::ClaimingId);
    life.run_until_idle();
    assert_eq!(
        life.orders,
        ["watch worker-0"],
        "the store of this test has them all free"
    );
    assert!(life.machine.last_failure().is_none());
}

#[test]
fn heartbeat_conflict_triggers_claim_check() {
    let mut life = Life::joined(ManagerConfig::default());
    life.now = life.now + Duration::from_secs(2);
    life.machine.tick(life.now);
    life.carry_out();
    let (op, _) = life.take(is_beat);
    life.answer(op, written(Outcome::Refused(Refusal::Conflict)));
    life.take(is_look_at_id);
}

#[test]
fn nothing_is_written_under_uncertain_id() {
    let mut life = Life::joined(ManagerConfig::default());
    life.is_down = true;
    life.pass(Duration::from_secs(40));
    assert!(!life.machine.id_is_certain(life.now));
    life.is_down = false;
    life.now = life.now + Duration::from_secs(2);
    life.machine.tick(life.now);
    life.carry_out();
    for is_it in [is_look_at_id, is_claim] {
        assert!(life.asked.iter().all(|(_, request)| !is_beat(request)));
        let (op, request) = life.take(is_it);
        let answer = life.reply(&request);
        life.answer(op, answer);
    }
    life.take(is_beat);
}

#[test]
fn worker_with_uncertain_id_does_not_lead() {
    let mut life = Life::leading();
    life.is_down = true;
    life.pass(Duration::from_secs(40));
    assert_eq!(life.orders, ["step down"]);
    assert!(!life.machine.is_leader());
}

// --- leading ---

#[test]
fn calculator_runs_while_lease_is_held_and_stops_before_next_start() {
    let mut life = Life::leading();
    let is_won = |n: &ManagerEvent| matches!(n, ManagerEvent::Leader { is_self: true, .. });
    assert!(life.notices.iter().any(is_won));
    life.handle(ManagerInput::Calculator(CalculatorReport::State(
        CalculatorState::Rebalancing,
    )));
    assert_eq!(life.machine.state(), ManagerState::Rebalancing);
    life.handle(ManagerInput::Calculator(CalculatorReport::State(
        CalculatorState::Scaling,
    )));
    assert_eq!(life.machine.state(), ManagerState::Scaling);
    life.handle(ManagerInput::Calculator(CalculatorReport::State(
        CalculatorState::Emergency,
    )));
    assert_eq!(life.machine.state(), ManagerState::Emergency);
    let stolen = Entry {
        revision: 5_000,
        ..put(LEASE_KEY, "worker-9:100")
    };
    life.handle(ManagerInput::Lease(WatchEvent::Change(stolen)));
    assert_eq!(life.orders, ["step down"]);
    assert_eq!(
        life.machine.leader().map(WorkerId::as_str),
        Some("worker-9")
    );
    let vacant = Entry {
        revision: 5_001,
        operation: Operation::Delete,
        ..put(LEASE_KEY, "")
    };
    life.handle(ManagerInput::Lease(WatchEvent::Change(vacant)));
    life.pass(Duration::from_millis(100));
    assert!(life.machine.is_leader());
    assert_eq!(life.orders, ["step down"], "the former one has not ended");
    life.handle(ManagerInput::Calculator(CalculatorReport::Ended));
    assert_eq!(life.orders, ["step down", "lead worker-0"]);
    // An event of the previous calculator.
    life.handle(ManagerInput::Calculator(CalculatorReport::State(
        CalculatorState::Emergency,
    )));
    assert_ne!(life.machine.state(), ManagerState::Emergency);
}

#[test]
fn leader_with_failed_calculator_releases_lease_and_backs_off() {
    for event in [
        CalculatorReport::Deposed,
        CalculatorReport::Failed(Error::new(Code::Unavailable, "no take-over")),
    ] {
        let mut life = Life::leading();
        life.notices.clear();
        life.handle(ManagerInput::Calculator(event));
        assert_eq!(life.orders, ["step down"]);
        assert_eq!(life.failures().len(), 1);
        life.take(|r| {
            matches!(
                r,
                Request::Delete {
                    bucket: Bucket::Election,
                    ..
                }
            )
        });
        assert!(life.machine.last_failure().is_some());
    }
}

#[test]
fn leadership_failure_clears_when_another_worker_leads() {
    let mut life = Life::leading();
    life.handle(ManagerInput::Calculator(CalculatorReport::Deposed));
    life.run_until_idle();
    assert!(life.machine.last_failure().is_some());
    let lease = Entry {
        revision: 5_000,
        ..put(LEASE_KEY, "worker-9:100")
    };
    life.handle(ManagerInput::Lease(WatchEvent::Change(lease)));
    assert!(life.machine.last_failure().is_none());
}

/// Symptom: after an outage, followers reported its failure forever. Cause: a failed campaign
/// counted as over only after another request of the election, and a follower makes none.
#[test]
fn failed_campaign_clears_when_another_worker_leads() {
    let mut life = Life::joined(ManagerConfig::default());
    life.handle(ManagerInput::Lease(WatchEvent::Live));
    life.now = life.now + Duration::from_millis(100);
    life.machine.tick(life.now);
    life.carry_out();
    let campaign = |request: &Request| {
        matches!(
            request,
            Request::Put {
                bucket: Bucket::Election,
                ..
            }
        )
    };
    let (op, _) = life.take(campaign);
    let refused = Outcome::Refused(Refusal::Unavailable("no responders".into()));
    life.answer(op, written(refused));
    assert!(life.machine.last_failure().is_some());
    let lease = Entry {
        revision: 5_000,
        ..put(LEASE_KEY, "worker-9:100")
    };
    life.handle(ManagerInput::Lease(WatchEvent::Change(lease)));
    assert!(life.machine.last_failure().is_none());
}

#[test]
fn worker_that_may_not_lead_knows_leader() {
    let config = ManagerConfig {
        may_lead: false,
        ..ManagerConfig::default()
    };
    let mut life = Life::joined(config);
    life.handle(ManagerInput::Lease(WatchEvent::Live));
    life.pass(Duration::from_secs(30));
    assert!(life.orders.is_empty());
    let lease = put(LEASE_KEY, "worker-9:100");
    life.handle(ManagerInput::Lease(WatchEvent::Change(lease)));
    assert_eq!(
        life.machine.leader().map(WorkerId::as_str),
        Some("worker-9")
    );
    assert_eq!(life.machine.state(), ManagerState::WaitingAssignment);
}

#[test]
fn host_election_failure_is_reported_once() {
    let mut life = Life::new(ManagerConfig::default());
    life.machine = ManagerMachine::new(ManagerConfig::default(), Rule::Host, START, 7).unwrap();
    life.handle(ManagerInput::Start);
    life.pass(Duration::ZERO);
    for _ in 0..5 {
        if life.asked.is_empty() {
            life.now = life.machine.deadline().unwrap().max(life.now);
            life.machine.tick(life.now);
            life.carry_out();
        }
        while let Some((op, request)) = life.asked.pop() {
            let answer = match request {
                Request::Campaign(_) => Answer::Campaigned(Err(Error::new(Code::Unavailable, "x"))),
                other => life.reply(&other),
            };
            life.answer(op, answer);
        }
    }
    assert_eq!(life.failures(), [Code::Unavailable]);
}

// --- the assignment ---

#[test]
fn applied_version_is_reported_by_immediate_heartbeat() {
    let mut life = Life::joined(ManagerConfig::default());
    life.assigned(3, &["a"]);
    let (_, beat) = life.take(is_beat);
    let Request::Put {
        value: Value::Beat(_, Reported { applied, .. }),
        ..
    } = beat
    else {
        panic!("{beat:?}");
    };
    assert_eq!((applied.term, applied.version), (1, 3));
    assert_eq!(life.machine.state(), ManagerState::Stable);
    assert_eq!(life.machine.applied(), applied);
}

#[test]
fn malformed_values_are_counted_reported_once_and_change_nothing() {
    let mut life = Life::joined(ManagerConfig::default());
    life.assigned(3, &["a"]);
    for _ in 0..3 {
        let junk = put("assignment.worker-0", "{junk");
        life.handle(ManagerInput::Assignment(WatchEvent::Change(junk)));
    }
    assert_eq!((life.machine.malformed(), life.malformed()), (3, 1));
    assert!(life.failures().is_empty());
    assert_eq!(life.held(), ["a"]);
    life.assigned(4, &["b"]);
    assert!(life.machine.last_failure().is_none());
    life.assigned(2, &["c"]);
    assert_eq!((life.held(), life.machine.refused()), (vec!["b".into()], 1));
}

#[test]
fn assignments_of_other_workers_are_ignored() {
    let mut life = Life::joined(ManagerConfig::default());
    let other = assignment("assignment.worker-1", 3, &["a"]);
    life.handle(ManagerInput::Assignment(WatchEvent::Change(other)));
    assert!(life.held().is_empty());
}

// --- outages ---

#[test]
fn default_policy_serves_held_assignment_through_outage() {
    let mut life = Life::joined(ManagerConfig::default());
    life.assigned(3, &["a"]);
    life.is_down = true;
    life.handle(ManagerInput::StoreHealth(Some("cut off".into())));
    life.pass(Duration::from_secs(100));
    assert_eq!(life.held(), ["a"]);
    assert_eq!(life.machine.state(), ManagerState::Degraded);
    let is_alert = |n: &ManagerEvent| matches!(n, ManagerEvent::Alert { .. });
    assert_eq!(life.notices.iter().filter(|n| is_alert(n)).count(), 1);
    life.is_down = false;
    life.handle(ManagerInput::StoreHealth(None));
    life.pass(Duration::from_secs(10));
    assert_eq!(life.machine.state(), ManagerState::Stable);
    let is_over = |n: &ManagerEvent| matches!(n, ManagerEvent::Recovered { .. });
    assert!(life.notices.iter().any(is_over));
}

#[test]
fn breaker_transition_is_reported_once_and_other_health_events_are_not() {
    let mut life = Life::joined(ManagerConfig::default());
    life.notices.clear();
    let open =
        |probe_at| BreakerCondition::open("gone", Time::ZERO + Duration::from_secs(probe_at));
    let states = [
        BreakerCondition::closed(),
        open(2),
        open(1),
        BreakerCondition::half_open("gone"),
        open(3),
        BreakerCondition::closed(),
    ];
    for state in states {
        life.handle(ManagerInput::Breaker(state));
    }
    let reported = life.notices.iter().filter_map(|notice| match notice {
        ManagerEvent::Breaker(condition) => Some(condition.state.name()),
        _ => None,
    });
    let transitions = ["open", "half_open", "open", "closed"];
    assert_eq!(reported.collect::<Vec<_>>(), transitions);
}

#[test]
fn lost_assignment_watch_counts_as_outage() {
    let mut life = Life::joined(ManagerConfig::default());
    life.handle(ManagerInput::Assignment(WatchEvent::Disconnected(
        "gap".into(),
    )));
    life.pass(Duration::from_secs(11));
    assert_eq!(life.machine.state(), ManagerState::Degraded);
    life.handle(ManagerInput::Assignment(WatchEvent::Live));
    life.pass(Duration::from_secs(6));
    assert_ne!(life.machine.state(), ManagerState::Degraded);
}

#[test]
fn strict_ownership_begins_with_read_once_heartbeats_succeed() {
    let mut life = Life::new(strict());
    life.assignment = Some(assignment("assignment.worker-0", 3, &["a"]));
    life.handle(ManagerInput::Start);
    for _ in 0..6 {
        let (op, request) = life.take(|r| !is_beat(r));
        let answer = life.reply(&request);
        life.answer(op, answer);
    }
    // The leader may have removed the former owner of the id.
    life.assigned(3, &["a"]);
    assert!(
        life.held().is_empty(),
        "no leader knows yet that it is alive"
    );
    assert_ne!(life.machine.state(), ManagerState::Degraded);
    life.run_until_idle();
    assert_eq!(life.held(), ["a"]);
    assert_eq!(life.machine.state(), ManagerState::Stable);
}

#[test]
fn strict_ownership_ends_before_lease_can_expire_at_leader() {
    let mut life = Life::joined(strict());
    life.assigned(3, &["a"]);
    life.run_until_idle();
    assert_eq!(life.held(), ["a"]);
    life.pass(Duration::from_secs(20));
    assert_eq!(life.held(), ["a"], "while it beats");
    life.is_down = true;
    let ttl = strict().calculator.heartbeat_ttl;
    life.pass(ttl * 9 / 10);
    assert!(life.held().is_empty());
    assert_eq!(life.machine.state(), ManagerState::Degraded);
    // Moved meanwhile: what the store says then counts.
    life.assignment = Some(assignment("assignment.worker-0", 4, &["b"]));
    life.is_down = false;
    life.pass(Duration::from_secs(3));
    assert_eq!(life.held(), ["b"]);
}

/// The leader continues to move partitions while the worker, still alive, misses the changes.
#[test]
fn strict_ownership_ends_when_assignment_watch_stays_lost() {
    let mut life = Life::joined(strict());
    life.assigned(3, &["a"]);
    life.run_until_idle();
    life.handle(ManagerInput::Assignment(WatchEvent::Disconnected(
        "gap".into(),
    )));
    life.pass(Duration::from_secs(1));
    life.handle(ManagerInput::Assignment(WatchEvent::Disconnected(
        "still".into(),
    )));
    life.pass(Duration::from_secs(4));
    assert_eq!(life.held(), ["a"], "a short gap costs nothing");
    life.pass(Duration::from_millis(400));
    assert!(life.held().is_empty());
    life.pass(Duration::from_secs(60));
    assert!(life.held().is_empty());
    life.handle(ManagerInput::Assignment(WatchEvent::Live));
    life.run_until_idle();
    assert_eq!(life.held(), ["a"]);
}

/// `pass` would never end if a deadline stayed in the past.
#[test]
fn strict_worker_in_outage_or_without_id_never_spins() {
    let mut life = Life::joined(strict());
    life.assigned(3, &["a"]);
    life.run_until_idle();
    life.handle(ManagerInput::Assignment(WatchEvent::Disconnected(
        "gap".into(),
    )));
    life.is_down = true;
    life.pass(Duration::from_secs(600));
    life.is_down = false;
    life.pass(Duration::from_secs(60));
}

#[test]
fn empty_or_failed_read_grants_nothing_and_revokes_nothing_newer() {
    // The key is gone.
    let mut life = Life::joined(strict());
    life.assigned(3, &["a"]);
    life.run_until_idle();
    life.is_down = true;
    life.pass(Duration::from_secs(10));
    life.assignment = None;
    life.is_down = false;
    life.pass(Duration::from_secs(10));
    assert!(life.held().is_empty());
    assert_ne!(life.machine.state(), ManagerState::Degraded);

    // It was gone when it was read; the watch has shown a newer one since.
    let (mut life, op) = looking_again();
    life.assigned(4, &["b"]);
    life.answer(
        op,
        Answer::Read(Err(Error::new(Code::TimedOut, "no answer"))),
    );
    assert!(life.held().is_empty());
    let op = next_look(&mut life);
    life.assigned(5, &["c"]);
    life.answer(op, Answer::Read(Ok(None)));
    assert!(life.held().is_empty(), "which of the two is newer?");
    let op = next_look(&mut life);
    let answer = Answer::Read(Ok(life.assignment.clone()));
    life.answer(op, answer);
    assert_eq!(life.held(), ["c"]);
}

/// What was read had been taken away when the answer came, and the watch had shown so: the worker
/// owned what another one had (seed 8181).
#[test]
fn read_overtaken_by_watch_restores_nothing() {
    for operation in [Operation::Delete, Operation::Gone] {
        let (mut life, op) = looking_again();
        let read = Answer::Read(Ok(life.assignment.take()));
        let gone = Entry {
            operation,
            revision: 1_001,
            ..put("assignment.worker-0", "")
        };
        life.handle(ManagerInput::Assignment(WatchEvent::Change(gone)));
        life.answer(op, read);
        assert!(life.held().is_empty(), "{operation:?}");
        let op = next_look(&mut life);
        life.answer(op, Answer::Read(Ok(None)));
        assert!(life.held().is_empty(), "{operation:?}");
        life.assigned(4, &["b"]);
        assert_eq!(life.held(), ["b"], "{operation:?}");
    }
}

fn is_look(request: &Request) -> bool {
    matches!(request, Request::Read { bucket, .. } if *bucket == Bucket::Assignment)
}

/// A strict worker that had "a", was cut off for long, and asks what the store says now.
fn looking_again() -> (Life, OpId) {
    let mut life = Life::joined(strict());
    life.assigned(3, &["a"]);
    life.run_until_idle();
    life.is_down = true;
    life.pass(Duration::from_secs(10));
    life.is_down = false;
    while !life.asked.iter().any(|(_, request)| is_look(request)) {
        life.now = life.now.max(life.machine.deadline().unwrap());
        life.machine.tick(life.now);
        life.carry_out();
        while let Some(index) = life.asked.iter().position(|(_, r)| !is_look(r)) {
            let (op, request) = life.asked.remove(index);
            let answer = life.reply(&request);
            life.answer(op, answer);
        }
    }
    let (op, _) = life.take(is_look);
    (life, op)
}

fn next_look(life: &mut Life) -> OpId {
    life.now = life.now + Duration::from_millis(200);
    life.machine.tick(life.now);
    life.carry_out();
    life.take(is_look).0
}

// --- the leave ---

#[test]
fn leave_stops_calculator_then_releases_lease_heartbeat_and_id() {
    let mut life = Life::leading();
    life.assigned(3, &["a"]);
    life.run_until_idle();
    life.handle(ManagerInput::Stop(Departure::Leave));
    life.handle(ManagerInput::Stop(Departure::Restart));
    assert!(life.held().is_empty());
    assert_eq!(life.machine.state(), ManagerState::Shutdown);
    assert_eq!(life.orders, ["step down"]);
    let is_delete = |bucket: Bucket| move |r: &Request| matches!(r, Request::Delete { bucket: b, .. } if *b == bucket);
    assert!(life.asked.is_empty(), "the calculator first");
    life.handle(ManagerInput::Calculator(CalculatorReport::Ended));
    let (heartbeat, _) = life.take(is_delete(Bucket::Heartbeat));
    let (lease, _) = life.take(is_delete(Bucket::Election));
    assert!(life.asked.is_empty(), "the id last");
    life.answer(heartbeat, written(Outcome::Done(90)));
    assert!(life.asked.is_empty(), "the id last");
    life.answer(lease, written(Outcome::Done(91)));
    let (id, _) = life.take(is_delete(Bucket::StableId));
    life.answer(id, written(Outcome::Done(92)));
    assert_eq!(life.orders, ["step down", "departed"]);
    assert!(life.asked.is_empty());
}

#[test]
fn restart_leaves_full_lease_and_keeps_id() {
    let mut life = Life::joined(ManagerConfig::default());
    life.handle(ManagerInput::Stop(Departure::Restart));
    let (beat, _) = life.take(is_beat);
    life.answer(beat, written(Outcome::Done(90)));
    let (id, request) = life.take(|_| true);
    assert!(matches!(
        request,
        Request::Put {
            bucket: Bucket::StableId,
            value: Value::Kept(None),
            ..
        }
    ));
    life.answer(id, written(Outcome::Done(91)));
    assert_eq!(life.orders, ["departed"]);
}

#[test]
fn leave_before_any_claim_completes_at_once() {
    let mut life = Life::new(ManagerConfig::default());
    life.handle(ManagerInput::Start);
    life.handle(ManagerInput::Stop(Departure::Leave));
    assert_eq!(life.orders, ["departed"]);
    let (op, request) = life.take(|_| true);
    let answer = life.reply(&request);
    life.answer(op, answer);
    assert!(life.asked.is_empty());
}

#[test]
fn leave_under_uncertain_id_never_touches_foreign_heartbeat() {
    let mut life = Life::joined(ManagerConfig::default());
    life.is_down = true;
    life.pass(Duration::from_secs(40));
    life.handle(ManagerInput::Stop(Departure::Leave));
    life.run_until_idle();
    life.pass(Duration::from_secs(5)); // giving the id back is tried a few times
    assert_eq!(life.orders, ["departed"]);
}

/// Symptom: a term was opened twice. Cause: a leader reported its term only with its first
/// publication; the fence, which shows it too, was lost before that. Cure: it reports it at once.
#[test]
fn opened_term_is_reported_before_the_first_publication() {
    let mut life = Life::joined(ManagerConfig::default());
    life.handle(ManagerInput::Lease(WatchEvent::Live));
    life.pass(Duration::from_millis(100));
    let reached = Applied {
        term: 9,
        version: 4,
    };
    life.handle(ManagerInput::Calculator(CalculatorReport::Started(reached)));
    assert_eq!(life.machine.remembered().reached, reached);
}

/// Symptom: a leader that was waiting for more workers said that it was stable. Cause: what its
/// calculator reported of its state before its start was reported as done was forgotten. Cure: it is kept.
#[test]
fn calculator_state_reported_during_its_start_is_kept() {
    let mut life = Life::joined(ManagerConfig::default());
    life.handle(ManagerInput::Lease(WatchEvent::Live));
    life.pass(Duration::from_millis(100));
    life.handle(ManagerInput::Calculator(CalculatorReport::State(
        CalculatorState::Scaling,
    )));
    assert_ne!(life.machine.state(), ManagerState::Scaling);
    life.handle(ManagerInput::Calculator(CalculatorReport::Started(
        Applied::default(),
    )));
    assert_eq!(life.machine.state(), ManagerState::Scaling);
}

/// A beat that hung kept the leave waiting, and then the id was not certain any more.
#[test]
fn leave_completes_when_id_becomes_uncertain_meanwhile() {
    let mut life = Life::joined(ManagerConfig::default());
    life.now = life.now + Duration::from_secs(9);
    life.machine.tick(life.now);
    life.carry_out();
    let (beat, _) = life.take(is_beat);
    life.handle(ManagerInput::Stop(Departure::Leave));
    life.now = life.now + Duration::from_secs(30);
    life.machine.tick(life.now);
    life.carry_out();
    life.answer(beat, written(Outcome::Unknown("no answer".into())));
    life.run_until_idle();
    assert_eq!(life.orders, ["departed"]);
}

#[test]
fn request_timeout_never_exceeds_lease_tolerance() {
    let config = ManagerConfig::default();
    let mut machine = ManagerMachine::new(config.clone(), Rule::Lease, START, 1).unwrap();
    machine.handle(START, ManagerInput::Start);
    while let Some(action) = machine.poll_action() {
        if let ManagerAction::Request { timeout, .. } = action {
            assert!(timeout <= config.heartbeat_interval);
            assert!(timeout <= config.election_timeout / 3);
        }
    }
    let answer = Answer::Read(Ok(None));
    machine.handle(
        START,
        ManagerInput::Answered {
            op: OpId(99),
            answer,
        },
    );
    assert!(machine.poll_action().is_none(), "no call is pending");
    assert_eq!(machine.current_state().from, ManagerState::Init);
    assert_eq!(machine.since(), START);
}

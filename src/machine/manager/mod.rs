//! One worker's lifecycle: claims an id, sends heartbeats, takes part in the election, applies
//! assignments, runs the calculator while it leads, and leaves.
//!
//! # Protocol of use
//! As for the [calculator](super::calculator): [`ManagerMachine::handle`] applies an input,
//! [`ManagerMachine::tick`] advances time, drain [`ManagerMachine::poll_action`] after each of
//! them, and [`ManagerMachine::deadline`] is the time of the next tick. The same inputs at the same
//! times produce the same actions.
//!
//! Each part (id, heartbeat, election) has at most one request in progress. The id comes first:
//! while its ownership is uncertain, only the requests that establish it again are sent.

mod cached;
mod departure;
mod leadership;
mod manager_messages;
mod notifications;
mod ownership;
mod survey;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use self::departure::Departing;
pub use self::manager_messages::{
    CalculatorReport, Departure, ManagerAction, ManagerChange, ManagerEvent, ManagerInput,
    TAKE_OVER_TIMEOUT,
};
use self::ownership::Resume;
use self::survey::Survey;
use super::assignment::{Assignments, Held};
use super::breaker::BreakerCondition;
use super::cache::Cache;
use super::calculator::OpId;
use super::election::{Election, Rule};
use super::heartbeat::Heartbeat;
use super::outage::Outage;
use super::plausible::MalformedValue;
use super::request::{Answer, Request};
use super::stable_id::{IdEvent, Pool, StableId};
use super::takeover::ProcessMemory;
use crate::config::ManagerConfig;
use crate::error::{Code, Error, ErrorClass, Result};
use crate::store::{Bucket, BucketStatus};
use crate::time::backoff::Backoff;
use crate::types::{CalculatorState, ManagerState, Revision, Time, WorkerId};
use crate::wire::{Applied, KeyPrefix};

/// Pauses before a worker whose calculator failed leads again.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// The manager machine. See the module for the protocol of use.
#[derive(Debug)]
pub struct ManagerMachine {
    config: ManagerConfig,
    assignment_prefix: KeyPrefix,
    now: Time,
    phase: ManagerPhase,
    has_joined: bool,
    id: StableId,
    heart: Heartbeat,
    election: Election,
    assignments: Assignments,
    cache: Cache,
    outage: Outage,
    /// Why the store is unhealthy, and since when the assignment watch has been lost.
    store_fault: Option<String>,
    watch_lost_since: Option<Time>,
    /// When the watch was last restored.
    store_returned: Option<Time>,
    breaker: BreakerCondition,
    /// The first failure of the store that a retry may solve.
    store_failure: Option<Error>,
    lead: Leadership,
    back_off: Backoff,
    /// Publications in a row that failed for a permanent reason.
    publish_failures: u32,
    /// Since when the last calculator has been stopping.
    ending_since: Time,
    /// The reason for which this worker does not lead.
    abstains: Option<Error>,
    /// The highest revision seen in the assignment bucket.
    seen_revision: Revision,
    resume: Resume,
    /// Ownership was suspended after it had begun.
    has_lapsed: bool,
    /// A former process of this instance had the id, and may not have noticed that yet.
    has_predecessor: bool,
    reported: ManagerState,
    since: Time,
    asked: BTreeMap<OpId, Component>,
    next_op: u64,
    /// Components whose failure was reported, with the class of the error.
    failing: BTreeMap<Component, ErrorClass>,
    last_failure: Option<Error>,
    /// Number of malformed values.
    malformed: u64,
    actions: VecDeque<ManagerAction>,
}

#[derive(Debug)]
enum ManagerPhase {
    Created,
    /// The buckets that remain to be ensured.
    Ensuring {
        left: Vec<Bucket>,
        due: Time,
        is_asking: bool,
    },
    Surveying(Survey),
    Working,
    Departing(Departing),
    Departed,
}

/// A component that sends requests and whose failures are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Component {
    Buckets,
    /// The check that the buckets belong to this fleet.
    Fleet,
    Id,
    Heart,
    Election,
    Assignment,
    Calculator,
    /// The host's own code.
    Host,
}

/// The calculator of this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leadership {
    No,
    /// It takes over; what it has reported of its state meanwhile.
    Taking(CalculatorState),
    Working(CalculatorState),
    Ending,
}

impl ManagerMachine {
    /// A manager that has not started yet. `seed` determines how rivals are avoided.
    ///
    /// # Errors
    /// `InvalidArgument` for a prefix that no key may have.
    pub fn new(config: ManagerConfig, rule: Rule, now: Time, seed: u64) -> Result<Self> {
        let calculator = &config.calculator;
        let pool = Pool {
            prefix: config.worker_id_prefix.clone(),
            min: config.worker_id_min,
            max: config.worker_id_max,
            ttl: config.worker_id_ttl,
        };
        let heart = Heartbeat::new(
            KeyPrefix::new(&calculator.heartbeat_prefix)?,
            config.heartbeat_interval,
            calculator.heartbeat_ttl,
        );
        let rule = if config.may_lead { rule } else { Rule::Never };
        let mut id = StableId::new(pool, seed);
        if !config.instance.is_empty() {
            id.identify(&config.instance);
        }
        Ok(Self {
            assignment_prefix: KeyPrefix::new(&calculator.assignment_prefix)?,
            now,
            phase: ManagerPhase::Created,
            has_joined: false,
            id,
            heart,
            election: Election::new(rule, config.election_timeout, seed ^ 0xE1),
            assignments: Assignments::default(),
            cache: Cache::new(config.cache_file.as_ref().map(|_| config.cache_max_age)),
            outage: Outage::new(config.outage, now),
            store_fault: None,
            watch_lost_since: None,
            store_returned: None,
            breaker: BreakerCondition::closed(),
            store_failure: None,
            lead: Leadership::No,
            back_off: Backoff::new(BACKOFF_MIN, BACKOFF_MAX, seed ^ 0x5B),
            publish_failures: 0,
            ending_since: now,
            abstains: None,
            seen_revision: 0,
            resume: Resume::No,
            has_lapsed: false,
            has_predecessor: false,
            reported: ManagerState::Init,
            since: now,
            asked: BTreeMap::new(),
            next_op: 0,
            failing: BTreeMap::new(),
            last_failure: None,
            malformed: 0,
            actions: VecDeque::new(),
            config,
        })
    }

    /// Applies an input.
    pub fn handle(&mut self, now: Time, event: ManagerInput) {
        self.now = now;
        match event {
            ManagerInput::Start => {
                if let ManagerPhase::Created = self.phase {
                    self.phase = ManagerPhase::Ensuring {
                        left: Bucket::ALL.to_vec(),
                        due: now,
                        is_asking: false,
                    };
                    self.cache.load();
                }
            }
            ManagerInput::Answered { op, answer } => self.answered(now, op, answer),
            ManagerInput::Lease(event) => self.lease_watched(now, &event),
            ManagerInput::Assignment(event) => self.assignment_watched(now, &event),
            ManagerInput::StoreHealth(fault) => {
                self.store_fault = fault;
                self.update_watch_health(now);
            }
            ManagerInput::Breaker(state) => self.breaker_changed(state),
            ManagerInput::Calculator(event) => self.calculator(now, event),
            ManagerInput::Cache(answer) => self.cache_answered(now, answer),
            ManagerInput::HostCallsOverdue(words) => self.host_calls_overdue(words),
            ManagerInput::Stop(departure) => self.depart(now, departure),
        }
        self.tick(now);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Time) {
        self.now = now;
        self.outage.tick(now);
        self.report_outage();
        self.handle_claim_events(now);
        self.check_id_certainty(now);
        self.election.tick(now);
        self.handle_election_events();
        self.update_ownership(now);
        self.drive_cache(now);
        self.continue_departure(now);
        self.ask(now);
        self.report_state(now);
    }

    /// What to do next, oldest first.
    pub fn poll_action(&mut self) -> Option<ManagerAction> {
        self.actions.pop_front()
    }

    /// When the next tick is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let ensuring = match &self.phase {
            ManagerPhase::Ensuring { due, is_asking, .. } => (!is_asking).then_some(*due),
            ManagerPhase::Surveying(survey) => survey.deadline(),
            _ => None,
        };
        let parts = match self.phase {
            ManagerPhase::Working | ManagerPhase::Departing(_) => [
                self.id.deadline(),
                // Silent under an id that is not certain; that changes by an answer.
                self.heart.deadline().filter(|_| self.may_beat(self.now)),
                self.election.deadline(),
                self.certainty_ends(),
                self.ownership_deadline(),
            ],
            _ => [None; 5],
        };
        let rest = [ensuring, self.outage.deadline(), self.cache_deadline()];
        let all = parts.into_iter().chain(rest);
        all.flatten().min()
    }

    /// What the manager is doing.
    #[must_use]
    pub fn state(&self) -> ManagerState {
        self.reported
    }

    /// Since when.
    #[must_use]
    pub fn since(&self) -> Time {
        self.since
    }

    /// The id that this worker holds, or had when what it serves was remembered.
    #[must_use]
    pub fn worker(&self) -> Option<&WorkerId> {
        self.id.worker().or_else(|| self.recalled_worker())
    }

    /// Whether it holds an id.
    #[must_use]
    pub fn has_id(&self) -> bool {
        self.id.worker().is_some()
    }

    /// Whether the id is certain not to be anybody else's now.
    #[must_use]
    pub fn id_is_certain(&self, now: Time) -> bool {
        self.id.certain_until().is_some_and(|until| now < until)
    }

    /// A leave deletes the key that it finds: not that of another process.
    fn may_beat(&self, now: Time) -> bool {
        let is_leaving = matches!(self.phase, ManagerPhase::Departing(_));
        self.id_is_certain(now) && !(is_leaving && self.id.is_disputed())
    }

    /// Whether this worker leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.election.is_leader()
    }

    /// Who leads, as far as is known.
    #[must_use]
    pub fn leader(&self) -> Option<&WorkerId> {
        self.election.leader()
    }

    /// What the host was reported to hold.
    #[must_use]
    pub fn held(&self) -> &Held {
        self.assignments.held()
    }

    /// Whether the worker serves an assignment: it has one, also a cached one, its ownership is not
    /// suspended, and it is not leaving. The state of its calculator and degraded mode do not matter.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !matches!(
            self.phase,
            ManagerPhase::Departing(_) | ManagerPhase::Departed
        ) && !self.assignments.is_suspended()
            && self.held().version > 0
    }

    /// What was applied last.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.assignments.applied()
    }

    /// What the process knows from before a take-over.
    #[must_use]
    pub fn remembered(&self) -> ProcessMemory {
        ProcessMemory {
            reached: self.heart.highest(),
            revision: self.seen_revision,
            // A watch that is still lost returns at the earliest now.
            store_returned: self
                .watch_lost_since
                .map(|_| self.now)
                .or(self.store_returned),
        }
    }

    /// Assignments refused for being old.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.assignments.refused()
    }

    /// Number of malformed values.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// What failed last, if it has not succeeded since.
    #[must_use]
    pub fn last_failure(&self) -> Option<&Error> {
        self.last_failure.as_ref()
    }

    /// The event that carries the current state to a new subscriber.
    #[must_use]
    pub fn current_state(&self) -> ManagerChange {
        ManagerChange {
            from: self.reported,
            to: self.reported,
            time: self.since,
        }
    }

    // --- asking and being answered ---

    fn ask(&mut self, now: Time) {
        if let ManagerPhase::Ensuring {
            left,
            due,
            is_asking,
        } = &mut self.phase
        {
            if let (Some(&bucket), false, true) = (left.last(), *is_asking, *due <= now) {
                *is_asking = true;
                let ttl = self.ttl_of(bucket);
                self.request(Component::Buckets, Request::Ensure { bucket, ttl });
            }
            return;
        }
        self.ask_about_fleet(now);
        if !matches!(
            self.phase,
            ManagerPhase::Working | ManagerPhase::Departing(_)
        ) {
            return;
        }
        if let Some(request) = self.id.poll_request(now) {
            self.request(Component::Id, request);
        }
        if self.may_beat(now)
            && let Some(request) = self.heart.poll_request(now)
        {
            self.request(Component::Heart, request);
        }
        if let Some(request) = self.election.poll_request(now) {
            self.request(Component::Election, request);
        }
    }

    fn request(&mut self, part: Component, request: Request) -> OpId {
        self.next_op += 1;
        let op = OpId(self.next_op);
        self.asked.insert(op, part);
        let timeout = self.request_timeout();
        self.actions.push_back(ManagerAction::Request {
            op,
            request,
            timeout,
        });
        op
    }

    /// One request without an answer must not cost a lease.
    fn request_timeout(&self) -> Duration {
        let config = &self.config;
        let longest = config.calculator.operation_timeout;
        longest
            .min(config.heartbeat_interval)
            .min(config.election_timeout / 3)
    }

    fn ttl_of(&self, bucket: Bucket) -> Option<Duration> {
        match bucket {
            Bucket::StableId => Some(self.config.worker_id_ttl),
            Bucket::Election => Some(self.config.election_timeout),
            Bucket::Heartbeat => Some(self.config.calculator.heartbeat_ttl),
            Bucket::Assignment => None,
        }
    }

    fn answered(&mut self, now: Time, op: OpId, answer: Answer) {
        let Some(part) = self.asked.remove(&op) else {
            return;
        };
        let failure = answer.failure();
        let has_failed = failure.is_some() || matches!(answer, Answer::Campaigned(Err(_)));
        if let Some(error) = failure {
            self.outage.failed(now, &error.to_string());
            if error.is_retriable() {
                self.store_failure.get_or_insert_with(|| error.clone());
            }
            self.report(part, error);
        }
        match part {
            Component::Buckets => self.ensured(now, answer),
            Component::Fleet => self.surveyed(now, answer),
            Component::Id => self.id.answered(now, answer),
            Component::Heart => {
                self.heart.answered(now, &answer);
                if self.heart.take_disturbance() {
                    self.id.verify();
                }
            }
            Component::Election => self.election.answered(now, answer),
            Component::Assignment => self.looked_at_assignment(now, op, answer),
            Component::Calculator | Component::Host => {} // asks nothing
        }
        // What a listing or a bucket says may be a failure, too, and a value may be malformed.
        let is_done = match part {
            Component::Heart | Component::Election => true,
            Component::Id => self.id.worker().is_some(),
            Component::Buckets
            | Component::Fleet
            | Component::Assignment
            | Component::Calculator
            | Component::Host => false,
        };
        if is_done && !has_failed {
            self.succeeded(part);
        }
    }

    fn ensured(&mut self, now: Time, answer: Answer) {
        let ManagerPhase::Ensuring {
            left,
            due,
            is_asking,
        } = &mut self.phase
        else {
            return; // stopped meanwhile
        };
        *is_asking = false;
        *due = now + Duration::from_millis(200);
        let (Some(&bucket), Answer::Ensured(Ok(status))) = (left.last(), answer) else {
            return;
        };
        *due = now;
        match self.accept(bucket, &status) {
            Ok(()) => {
                self.succeeded(Component::Buckets);
                let ManagerPhase::Ensuring { left, .. } = &mut self.phase else {
                    return;
                };
                left.pop();
                if left.is_empty() {
                    self.phase = ManagerPhase::Surveying(Survey::new(now));
                }
            }
            Err(error) => {
                if let ManagerPhase::Ensuring { due, .. } = &mut self.phase {
                    *due = now + Duration::from_secs(1);
                }
                self.report(Component::Buckets, error);
            }
        }
    }

    /// Whether a bucket, as it is, keeps what is written for as long as is counted on.
    fn accept(&mut self, bucket: Bucket, status: &BucketStatus) -> Result<()> {
        let refuse = |what: String| {
            let name = &status.name;
            Err(Error::new(
                Code::Unsupported,
                format!("bucket {name} {what}"),
            ))
        };
        match (bucket, status.ttl) {
            (Bucket::Assignment, None) => {}
            (Bucket::Assignment, Some(ttl)) if !self.config.calculator.allow_assignment_ttl => {
                return refuse(format!(
                    "has a TTL of {ttl:?}: fence and versions would expire with the assignments; \
                     remove the TTL, or set allow_assignment_ttl"
                ));
            }
            (Bucket::Assignment, Some(_)) => {}
            (_, None) => {
                return refuse(
                    "has no TTL: ids, leases and heartbeats of workers that are gone would stay \
                     forever; set a TTL"
                        .into(),
                );
            }
            (Bucket::StableId, Some(ttl)) => self.id.limit_ttl(ttl),
            (Bucket::Election, Some(ttl)) => self.election.limit_lease(ttl),
            (Bucket::Heartbeat, Some(ttl)) => self.heart.limit_ttl(ttl),
        }
        Ok(())
    }

    fn succeeded(&mut self, part: Component) {
        if self.failing.remove(&part).is_some() && self.failing.is_empty() {
            self.last_failure = None;
        }
    }

    /// Reports a failure, once until the part succeeds or fails in another way.
    fn report(&mut self, part: Component, error: Error) {
        self.last_failure = Some(error.clone());
        let class = error.class();
        if self.failing.insert(part, class) != Some(class) {
            self.notify(ManagerEvent::Failed { error });
        }
    }

    /// A call of the host's code that hangs is reported once, until it has returned.
    fn host_calls_overdue(&mut self, words: Option<String>) {
        match words {
            Some(words) => self.report(Component::Host, Error::new(Code::TimedOut, words)),
            None => self.succeeded(Component::Host),
        }
    }

    /// Reports a malformed assignment, once until a good one is observed.
    fn report_malformed(&mut self, value: MalformedValue) {
        let error = value.error();
        let class = error.class();
        self.last_failure = Some(error);
        if self.failing.insert(Component::Assignment, class) != Some(class) {
            self.notify(ManagerEvent::Malformed(value));
        }
    }

    fn notify(&mut self, notice: ManagerEvent) {
        self.actions.push_back(ManagerAction::Notify(notice));
    }

    // --- the id ---

    fn handle_claim_events(&mut self, now: Time) {
        while let Some(event) = self.id.poll_event() {
            match event {
                IdEvent::Claimed {
                    worker,
                    was_taken_over,
                } => {
                    self.has_predecessor = was_taken_over;
                    self.succeeded(Component::Id);
                    self.heart.set_worker(Some(worker.clone()));
                    self.confirm_recalled(now, &worker);
                    self.notify(ManagerEvent::Id(Some(worker.clone())));
                    self.actions.push_back(ManagerAction::Watch(worker));
                }
                IdEvent::Regained(worker) => self.notify(ManagerEvent::IdRegained { worker }),
                IdEvent::Lost(worker) => {
                    let text =
                        format!("id {worker} is owned by another process; claiming another id");
                    self.id_lost(now, ManagerEvent::IdLost { worker }, text);
                }
                IdEvent::TakenOver(worker) => {
                    let text = format!(
                        "id {worker} was taken over by a newer process of instance {}; claiming \
                         another id without an instance",
                        self.config.instance
                    );
                    self.id_lost(now, ManagerEvent::IdTakenOver { worker }, text);
                }
                IdEvent::Failed(error) => self.report(Component::Id, error),
            }
        }
    }

    fn id_lost(&mut self, now: Time, notice: ManagerEvent, text: String) {
        self.heart.set_worker(None);
        self.election.set_worker(now, None);
        self.resume = Resume::No;
        self.has_lapsed = false;
        self.cache.erase();
        let change = self.assignments.forget();
        self.report_assignment(change);
        self.notify(notice);
        self.notify(ManagerEvent::Id(None));
        let error = Error::new(Code::IdLost, text);
        self.failing.insert(Component::Id, error.class());
        self.last_failure = Some(error);
        if let ManagerPhase::Working = self.phase {
            self.id.claim();
        }
    }

    /// Who is not certain of its id takes no part in the election.
    fn check_id_certainty(&mut self, now: Time) {
        if !self.has_joined {
            let is_beating = self.heart.confirmed().is_some();
            if is_beating && matches!(self.phase, ManagerPhase::Working) {
                self.has_joined = true;
                self.actions.push_back(ManagerAction::Joined);
                self.report_abstention();
            }
        }
        if !matches!(self.phase, ManagerPhase::Working) {
            return;
        }
        let takes_part = self.id_is_certain(now) && self.heart.confirmed().is_some();
        let worker = self.id.worker().filter(|_| takes_part).cloned();
        self.election.set_worker(now, worker);
    }

    fn certainty_ends(&self) -> Option<Time> {
        self.id.certain_until().filter(|&until| until > self.now)
    }
}

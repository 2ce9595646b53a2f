//! One worker's whole life: claims an id, beats, takes part in the election, applies what it is
//! assigned, runs the calculator while it leads, and leaves well.
//!
//! # Protocol of use
//! As for the [calculator](super::calculator): [`Manager::handle`] takes in what happened,
//! [`Manager::tick`] lets time pass, [`Manager::poll_action`] is drained after each of the former,
//! and [`Manager::deadline`] tells when the next tick is due. Same events at the same times, same
//! actions.
//!
//! Each part (id, heartbeat, election) has at most one request under way. The id comes first:
//! under an id that is not certain to be this worker's nothing is written but what makes it
//! certain again.

mod cached;
mod departure;
mod messages;
mod ownership;
mod telling;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use self::departure::Departing;
pub use self::messages::{Action, CalculatorEvent, Departure, Event, ManagerChange, ManagerNotice};
use self::ownership::Resume;
use super::assignment::{Assignments, Held};
use super::backoff::Backoff;
use super::breaker::BreakerState;
use super::cache::Cache;
use super::calculator::OpId;
use super::election::{Election, ElectionEvent, Rule};
use super::heartbeat::Heartbeat;
use super::outage::Outage;
use super::request::{Answer, Request};
use super::stable_id::{IdEvent, Pool, StableId};
use crate::config::ManagerConfig;
use crate::error::{Class, Code, Error, Result};
use crate::store::{Bucket, BucketStatus};
use crate::types::{ManagerState, State, Time, WorkerId};
use crate::wire::{Applied, KeyPrefix};

/// Pauses before a worker leads again whose calculator could not.
const STAND_BACK_MIN: Duration = Duration::from_millis(500);
const STAND_BACK_MAX: Duration = Duration::from_secs(10);

/// The manager machine. See the module for the protocol of use.
#[derive(Debug)]
pub struct Manager {
    config: ManagerConfig,
    assignment_prefix: KeyPrefix,
    now: Time,
    phase: Phase,
    has_joined: bool,
    id: StableId,
    heart: Heartbeat,
    election: Election,
    assignments: Assignments,
    cache: Cache,
    outage: Outage,
    /// Why the store's session is not well, and since when the assignments are out of sight.
    store_fault: Option<String>,
    blind_since: Option<Time>,
    breaker: BreakerState,
    /// How the store failed first, where trying again may help.
    store_failure: Option<Error>,
    lead: Lead,
    stand_back: Backoff,
    resume: Resume,
    /// Ownership was suspended after it had begun.
    has_lapsed: bool,
    told: ManagerState,
    since: Time,
    asked: BTreeMap<OpId, Part>,
    next_op: u64,
    /// Parts whose failure was told, and what kind of failure that was.
    failing: BTreeMap<Part, Class>,
    last_failure: Option<Error>,
    /// Values that could not be understood.
    poison: u64,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
enum Phase {
    Created,
    /// The buckets that are still to be seen to.
    Ensuring {
        left: Vec<Bucket>,
        due: Time,
        is_asking: bool,
    },
    Working,
    Departing(Departing),
    Departed,
}

/// Who asked, and whose failures are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Buckets,
    Id,
    Heart,
    Election,
    Assignment,
    Calculator,
}

/// The calculator of this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lead {
    No,
    /// It takes over; what it has told of its state meanwhile.
    Taking(State),
    Working(State),
    Ending,
}

impl Manager {
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
        Ok(Self {
            assignment_prefix: KeyPrefix::new(&calculator.assignment_prefix)?,
            now,
            phase: Phase::Created,
            has_joined: false,
            id: StableId::new(pool, seed),
            heart,
            election: Election::new(rule, config.election_timeout, seed ^ 0xE1),
            assignments: Assignments::default(),
            cache: Cache::new(config.cache_file.as_ref().map(|_| config.cache_max_age)),
            outage: Outage::new(config.outage, now),
            store_fault: None,
            blind_since: None,
            breaker: BreakerState::Closed,
            store_failure: None,
            lead: Lead::No,
            stand_back: Backoff::new(STAND_BACK_MIN, STAND_BACK_MAX, seed ^ 0x5B),
            resume: Resume::No,
            has_lapsed: false,
            told: ManagerState::Init,
            since: now,
            asked: BTreeMap::new(),
            next_op: 0,
            failing: BTreeMap::new(),
            last_failure: None,
            poison: 0,
            actions: VecDeque::new(),
            config,
        })
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Time, event: Event) {
        self.now = now;
        match event {
            Event::Start => {
                if let Phase::Created = self.phase {
                    self.phase = Phase::Ensuring {
                        left: Bucket::ALL.to_vec(),
                        due: now,
                        is_asking: false,
                    };
                    self.cache.load();
                }
            }
            Event::Answered { op, answer } => self.answered(now, op, answer),
            Event::Lease(event) => self.election.watched(now, &event),
            Event::Assignment(event) => self.assignment_watched(now, &event),
            Event::StoreHealth(fault) => {
                self.store_fault = fault;
                self.judge_sight(now);
            }
            Event::Breaker(state) => self.breaker_changed(state),
            Event::Calculator(event) => self.calculator(now, event),
            Event::Cache(answer) => self.cache_answered(now, answer),
            Event::Stop(departure) => self.depart(now, departure),
        }
        self.tick(now);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Time) {
        self.now = now;
        self.outage.tick(now);
        self.tell_outage();
        self.id_news(now);
        self.see_to_certainty(now);
        self.election.tick(now);
        self.election_news();
        self.see_to_ownership(now);
        self.see_to_cache(now);
        self.go_on_departing(now);
        self.ask(now);
        self.tell_state(now);
    }

    /// What to do next, oldest first.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When the next tick is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let ensuring = match &self.phase {
            Phase::Ensuring { due, is_asking, .. } => (!is_asking).then_some(*due),
            _ => None,
        };
        let parts = match self.phase {
            Phase::Working | Phase::Departing(_) => [
                self.id.deadline(),
                // Silent under an id that is not certain; that changes by an answer.
                self.heart
                    .deadline()
                    .filter(|_| self.id_is_certain(self.now)),
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
        self.told
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

    /// What the host was told to hold.
    #[must_use]
    pub fn held(&self) -> &Held {
        self.assignments.held()
    }

    /// What was applied last.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.assignments.applied()
    }

    /// Assignments refused for being old.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.assignments.refused()
    }

    /// Values that could not be understood.
    #[must_use]
    pub fn poison(&self) -> u64 {
        self.poison
    }

    /// What failed last, if it has not succeeded since.
    #[must_use]
    pub fn last_failure(&self) -> Option<&Error> {
        self.last_failure.as_ref()
    }

    /// The event that tells a new subscriber the current state.
    #[must_use]
    pub fn current_state(&self) -> ManagerChange {
        ManagerChange {
            from: self.told,
            to: self.told,
            time: self.since,
        }
    }

    // --- asking and being answered ---

    fn ask(&mut self, now: Time) {
        if let Phase::Ensuring {
            left,
            due,
            is_asking,
        } = &mut self.phase
        {
            if let (Some(&bucket), false, true) = (left.last(), *is_asking, *due <= now) {
                *is_asking = true;
                let ttl = self.ttl_of(bucket);
                self.request(Part::Buckets, Request::Ensure { bucket, ttl });
            }
            return;
        }
        if !matches!(self.phase, Phase::Working | Phase::Departing(_)) {
            return;
        }
        if let Some(request) = self.id.poll_request(now) {
            self.request(Part::Id, request);
        }
        if self.id_is_certain(now)
            && let Some(request) = self.heart.poll_request(now)
        {
            self.request(Part::Heart, request);
        }
        if let Some(request) = self.election.poll_request(now) {
            self.request(Part::Election, request);
        }
    }

    fn request(&mut self, part: Part, request: Request) -> OpId {
        self.next_op += 1;
        let op = OpId(self.next_op);
        self.asked.insert(op, part);
        let patience = self.patience();
        self.actions.push_back(Action::Request {
            op,
            request,
            patience,
        });
        op
    }

    /// One request without an answer must not cost a lease.
    fn patience(&self) -> Duration {
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
            Part::Buckets => self.ensured(now, answer),
            Part::Id => self.id.answered(now, answer),
            Part::Heart => {
                self.heart.answered(now, &answer);
                if self.heart.take_disturbance() {
                    self.id.verify();
                }
            }
            Part::Election => self.election.answered(now, answer),
            Part::Assignment => self.looked_at_assignment(now, op, answer),
            Part::Calculator => {} // asks nothing
        }
        // What a listing or a bucket says may be a failure, too, and a value may be poison.
        let is_done = match part {
            Part::Heart | Part::Election => true,
            Part::Id => self.id.worker().is_some(),
            Part::Buckets | Part::Assignment | Part::Calculator => false,
        };
        if is_done && !has_failed {
            self.succeeded(part);
        }
    }

    fn ensured(&mut self, now: Time, answer: Answer) {
        let Phase::Ensuring {
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
                self.succeeded(Part::Buckets);
                let Phase::Ensuring { left, .. } = &mut self.phase else {
                    return;
                };
                left.pop();
                if left.is_empty() {
                    self.phase = Phase::Working;
                    self.id.claim();
                }
            }
            Err(error) => {
                if let Phase::Ensuring { due, .. } = &mut self.phase {
                    *due = now + Duration::from_secs(1);
                }
                self.report(Part::Buckets, error);
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
                     for ever; give it one"
                        .into(),
                );
            }
            (Bucket::StableId, Some(ttl)) => self.id.limit_ttl(ttl),
            (Bucket::Election, Some(ttl)) => self.election.limit_lease(ttl),
            (Bucket::Heartbeat, Some(ttl)) => self.heart.limit_ttl(ttl),
        }
        Ok(())
    }

    fn succeeded(&mut self, part: Part) {
        if self.failing.remove(&part).is_some() && self.failing.is_empty() {
            self.last_failure = None;
        }
    }

    /// Tells of a failure, once until the part succeeds or fails in another way.
    fn report(&mut self, part: Part, error: Error) {
        self.last_failure = Some(error.clone());
        let class = error.class();
        if self.failing.insert(part, class) != Some(class) {
            self.notify(ManagerNotice::Failed { error });
        }
    }

    fn notify(&mut self, notice: ManagerNotice) {
        self.actions.push_back(Action::Notify(notice));
    }

    // --- the id ---

    fn id_news(&mut self, now: Time) {
        while let Some(event) = self.id.poll_event() {
            match event {
                IdEvent::Claimed(worker) => {
                    self.succeeded(Part::Id);
                    self.heart.set_worker(Some(worker.clone()));
                    self.confirm_recalled(now, &worker);
                    self.notify(ManagerNotice::Id(Some(worker.clone())));
                    self.actions.push_back(Action::Watch(worker));
                }
                IdEvent::Regained(worker) => self.notify(ManagerNotice::IdRegained { worker }),
                IdEvent::Lost(worker) => self.id_lost(now, worker),
                IdEvent::Failed(error) => self.report(Part::Id, error),
            }
        }
    }

    fn id_lost(&mut self, now: Time, worker: WorkerId) {
        self.heart.set_worker(None);
        self.election.set_worker(now, None);
        self.resume = Resume::No;
        self.has_lapsed = false;
        self.cache.erase();
        let change = self.assignments.forget();
        self.tell_assignment(change);
        self.notify(ManagerNotice::IdLost {
            worker: worker.clone(),
        });
        self.notify(ManagerNotice::Id(None));
        let error = Error::new(
            Code::IdLost,
            format!("somebody else holds the id {worker}; another one is claimed"),
        );
        self.failing.insert(Part::Id, error.class());
        self.last_failure = Some(error);
        if let Phase::Working = self.phase {
            self.id.claim();
        }
    }

    /// Who is not certain of its id takes no part in the election.
    fn see_to_certainty(&mut self, now: Time) {
        if !self.has_joined {
            let is_beating = self.heart.confirmed().is_some();
            if is_beating && matches!(self.phase, Phase::Working) {
                self.has_joined = true;
                self.actions.push_back(Action::Joined);
            }
        }
        if !matches!(self.phase, Phase::Working) {
            return;
        }
        let takes_part = self.id_is_certain(now) && self.heart.confirmed().is_some();
        let worker = self.id.worker().filter(|_| takes_part).cloned();
        self.election.set_worker(now, worker);
    }

    fn certainty_ends(&self) -> Option<Time> {
        self.id.certain_until().filter(|&until| until > self.now)
    }

    // --- the election and the calculator ---

    fn election_news(&mut self) {
        while let Some(event) = self.election.poll_event() {
            match event {
                ElectionEvent::Won | ElectionEvent::Lost(_) | ElectionEvent::Leader(_) => {
                    self.tell_leader();
                }
                ElectionEvent::Failed(error) => self.report(Part::Election, error),
            }
        }
        self.lead_or_follow();
    }

    /// The calculator runs where the lease is, and nowhere else.
    fn lead_or_follow(&mut self) {
        let leads = self.election.is_leader() && matches!(self.phase, Phase::Working);
        match (leads, self.lead) {
            (true, Lead::No) => {
                if let Some(worker) = self.id.worker().cloned() {
                    self.lead = Lead::Taking(State::Idle);
                    self.actions.push_back(Action::Lead(worker));
                }
            }
            (false, Lead::Taking(_) | Lead::Working(_)) => self.step_down(),
            _ => {}
        }
    }

    fn step_down(&mut self) {
        self.lead = Lead::Ending;
        self.actions.push_back(Action::StepDown);
    }

    fn calculator(&mut self, now: Time, event: CalculatorEvent) {
        match (event, self.lead) {
            (CalculatorEvent::Ended, _) => self.lead = Lead::No,
            (CalculatorEvent::Started, Lead::Taking(state)) => {
                self.stand_back.reset();
                self.succeeded(Part::Calculator);
                self.lead = Lead::Working(state);
            }
            (CalculatorEvent::State(state), Lead::Taking(_)) => self.lead = Lead::Taking(state),
            (CalculatorEvent::State(state), Lead::Working(_)) => self.lead = Lead::Working(state),
            (CalculatorEvent::Deposed, Lead::Taking(_) | Lead::Working(_)) => {
                let error = Error::new(
                    Code::Fenced,
                    "another leader has taken over, or the fence is gone; this worker leads no more",
                );
                self.give_up_leading(now, error);
            }
            (CalculatorEvent::Failed(error), Lead::Taking(_) | Lead::Working(_)) => {
                self.give_up_leading(now, error);
            }
            _ => {} // news of one that is ending already
        }
    }

    /// Another worker may do better.
    fn give_up_leading(&mut self, now: Time, error: Error) {
        self.failing.insert(Part::Calculator, error.class());
        self.last_failure = Some(error.clone());
        self.notify(ManagerNotice::Failed { error });
        let pause = self.stand_back.next_delay();
        self.election.stand_back(now, pause);
        self.step_down();
    }

    fn tell_leader(&mut self) {
        if self.election.leader().is_some() && !self.election.is_leader() {
            // What this worker could not do, another one does.
            self.succeeded(Part::Calculator);
        }
        let notice = ManagerNotice::Leader {
            leader: self.election.leader().cloned(),
            is_self: self.election.is_leader(),
        };
        self.notify(notice);
    }
}

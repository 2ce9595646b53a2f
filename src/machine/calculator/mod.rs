//! The calculator: watches the fleet, decides when a plan is due, has it published.
//!
//! # Protocol of use
//! [`Calculator::handle`] takes in what happened; [`Calculator::tick`] lets time pass;
//! [`Calculator::poll_action`] hands out what to do, to be drained after each of the former;
//! [`Calculator::deadline`] tells when the next tick is due (one that is too early does nothing).
//! Same events at the same times, same actions.
//!
//! The machine is level-triggered: `agenda` compares what is wanted with what was last
//! successfully published; any difference is pending until a publication of it succeeds.

mod agenda;
mod health;
mod members;
mod messages;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use self::agenda::{Window, Work};
use self::health::Health;
use self::members::{Absence, Members};
pub use self::messages::{
    Action, Degradation, Event, Finding, Job, JobReport, MemberChange, Notice, OpId, Pending,
    Publication, StateChange, Ticket,
};
use super::backoff::Backoff;
use super::liveness::Sighting;
use super::state::{Position, is_legal};
use super::takeover::{TakeOver, Timing, is_mass, judge};
use crate::config::CalculatorConfig;
use crate::error::{Class, Code, Error, Result};
use crate::types::{Reason, Revision, State, Term, Time, Version, WorkerId};

/// The calculator machine. See the module for the protocol of use.
#[derive(Debug)]
pub struct Calculator {
    config: CalculatorConfig,
    position: Position,
    members: Members,
    term: Term,
    version: Version,
    taken_over: bool,
    deposed: bool,
    blind: bool,
    /// Whether there is a partition list at all: false until the first push in push mode.
    source_ready: bool,
    generation_wanted: u64,
    inspect_wanted: bool,
    inspect_retry_at: Option<Time>,
    inspect_backoff: Backoff,
    inspect_tickets: Vec<Ticket>,
    partitions_differ: bool,
    gap_at_start: bool,
    /// Writes that may be somebody else's, to be looked into.
    suspects: BTreeMap<String, Revision>,
    foreign_due: Option<Time>,
    foreign_backoff: Backoff,
    triggers: Vec<Ticket>,
    trigger_tried: bool,
    window: Option<Window>,
    mass: Mass,
    cooldown_ends: Time,
    retry_at: Option<Time>,
    retry_backoff: Backoff,
    job: Option<Running>,
    next_op: u64,
    health: Health,
    actions: VecDeque<Action>,
}

/// The job under way.
#[derive(Debug)]
struct Running {
    op: OpId,
    kind: RunningKind,
}

#[derive(Debug)]
enum RunningKind {
    /// Carries how many of the waiting triggers it answers.
    Publish {
        reason: Reason,
        triggers: usize,
    },
    Inspect {
        tickets: usize,
    },
    Settle {
        suspects: BTreeMap<String, Revision>,
    },
}

/// The suspicion that a large part of the fleet went missing at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mass {
    None,
    /// A second listing is under way.
    Listing(OpId),
    /// The second listing failed; the next try is due then.
    Retry(Time),
}

impl Calculator {
    /// A calculator that has not taken over yet. `seed` determines the jitter of retries;
    /// `source_ready` is false when the partition list is yet to be pushed.
    #[must_use]
    pub fn new(config: CalculatorConfig, now: Time, seed: u64, source_ready: bool) -> Self {
        let backoff =
            |salt: u64| Backoff::new(config.retry_delay_min, config.retry_delay_max, seed ^ salt);
        Self {
            position: Position::idle(now),
            members: Members::default(),
            term: 0,
            version: 0,
            taken_over: false,
            deposed: false,
            blind: false,
            source_ready,
            generation_wanted: 0,
            inspect_wanted: false,
            inspect_retry_at: None,
            inspect_backoff: backoff(1),
            inspect_tickets: Vec::new(),
            partitions_differ: false,
            gap_at_start: false,
            suspects: BTreeMap::new(),
            foreign_due: None,
            foreign_backoff: backoff(2),
            triggers: Vec::new(),
            trigger_tried: false,
            window: None,
            mass: Mass::None,
            cooldown_ends: Time::ZERO,
            retry_at: None,
            retry_backoff: backoff(3),
            job: None,
            next_op: 0,
            health: Health::new(config.poison_threshold, config.poison_window),
            actions: VecDeque::new(),
            config,
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Time, event: Event) {
        match event {
            Event::TakenOver(found) => self.take_over(now, &found),
            Event::Sighting(sighting) => self.sighted(now, sighting),
            Event::Listed { op, result } => self.listed(now, op, result),
            Event::JobDone { op, term, result } => {
                self.term = self.term.max(term);
                self.job_done(now, op, result);
            }
            Event::ForeignSuspected { key, revision } => self.suspect(key, revision),
            Event::FenceMoved { term } => {
                if term > self.term {
                    self.depose();
                }
            }
            Event::Trigger { ticket } => self.triggered(ticket),
            Event::PartitionsChanged { generation, ticket } => {
                self.source_ready = true;
                self.inspect_wanted = true;
                self.inspect_retry_at = None;
                self.generation_wanted = self.generation_wanted.max(generation);
                self.inspect_tickets.extend(ticket);
            }
            Event::StoreHealth(why) => self.health.store = why,
            Event::Poison { count } => self.health.poisoned(now, count),
        }
        self.tick(now);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Time) {
        self.confirm_losses(now);
        self.close_idle_window(now);
        self.work(now);
        self.show_window(now);
        self.health.blind = self.blind;
        self.health.deposed = self.deposed;
        if let Some(degraded) = self.health.changed(now) {
            self.notify(Notice::Degraded(degraded));
        }
    }

    /// What to do next, oldest first.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When the next tick is due. `now` is the time that the machine was told last: what came due
    /// since then is still to be told.
    #[must_use]
    pub fn deadline(&self, now: Time) -> Option<Time> {
        let losses = if self.losses_are_frozen() {
            None
        } else {
            self.members.next_confirmation()
        };
        let mass = match self.mass {
            Mass::Retry(time) => Some(time),
            Mass::None | Mass::Listing(_) => None,
        };
        let (agenda, inspection) = match self.job {
            Some(_) => (None, None),
            None => (self.agenda_deadline(now), self.inspect_retry_at),
        };
        [losses, mass, agenda, inspection, self.health.deadline()]
            .into_iter()
            .flatten()
            .filter(|&time| time < Time::FAR_FUTURE)
            .min()
    }

    /// Where the calculator is.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The version last published or adopted; 0 when there is none.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The term that this calculator opened; 0 before it took over.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// Whether a newer leader has taken over.
    #[must_use]
    pub fn is_deposed(&self) -> bool {
        self.deposed
    }

    /// How many workers are alive, and how many are missing but may come back.
    #[must_use]
    pub fn worker_counts(&self) -> (usize, usize) {
        (self.members.alive_count(), self.members.missing_count())
    }

    /// The workers of the last published plan, in order.
    pub fn planned(&self) -> impl Iterator<Item = &WorkerId> {
        self.members.planned().iter()
    }

    /// The workers that a plan made now would be for, in order.
    #[must_use]
    pub fn wanted(&self) -> Vec<WorkerId> {
        self.members.wanted()
    }

    /// What keeps the calculator from doing its whole work.
    #[must_use]
    pub fn degraded(&self) -> Vec<Degradation> {
        self.health.list()
    }

    /// What is pending.
    #[must_use]
    pub fn pending(&self, now: Time) -> Pending {
        let next = self.agenda().min_by_key(|work| work.due);
        Pending {
            reason: next.map(|work| work.reason),
            due_in: next
                .filter(|work| work.due < Time::FAR_FUTURE)
                .map(|work| work.due.since(now)),
        }
    }

    /// The event that tells a new subscriber the current state.
    #[must_use]
    pub fn current_state(&self) -> StateChange {
        StateChange {
            from: self.position.state,
            to: self.position.state,
            reason: self.position.reason,
            version: self.version,
            time: self.position.since,
        }
    }
}

/// What happened, one method an event.
impl Calculator {
    fn take_over(&mut self, now: Time, found: &TakeOver) {
        let timing = Timing {
            ttl: self.config.heartbeat_ttl,
            grace: self.config.emergency_grace_period,
            restart_ratio: self.config.restart_ratio,
        };
        let evidence = judge(found, timing, now);
        self.taken_over = true;
        self.term = found.term;
        self.version = found.version;
        self.generation_wanted = self.generation_wanted.max(found.generation);
        if found.finding.is_none() && self.source_ready {
            self.inspect_wanted = true;
        }
        self.actions.push_back(Action::Watch {
            alive: evidence.alive.clone().into_iter().collect(),
            missing: evidence.missing.iter().cloned().collect(),
        });
        self.members.published(found.planned.iter().cloned(), now);
        let moved = !evidence.left.is_empty() || !evidence.lost.is_empty();
        for worker in evidence.alive.into_keys() {
            self.members.joined(worker, now);
        }
        for worker in &evidence.left {
            self.members.left(worker, now);
        }
        let absence = Absence {
            since: now,
            confirm_at: evidence.missing_until,
        };
        for worker in &evidence.missing {
            self.members.missing(worker, absence);
        }
        for worker in evidence.lost {
            self.give_up(&worker);
            self.members.lose(worker);
        }
        let adopted = !found.planned.is_empty()
            && found.consistent
            && found.finding != Some(Finding::Changed)
            && !moved;
        let differ = found
            .finding
            .is_some_and(|finding| self.is_worth_a_plan(finding));
        self.partitions_differ = differ || !found.consistent;
        // With nobody there, and nobody expected back, the first to join starts a cold start.
        if !adopted && !self.members.is_empty() {
            self.gap_at_start = true;
            self.open_window(now, now, Reason::ColdStartFinal);
        }
    }

    fn sighted(&mut self, now: Time, sighting: Sighting) {
        match sighting {
            Sighting::Joined { since, workers } => {
                self.note_start_from_none(now, since);
                for worker in workers {
                    self.members.joined(worker.clone(), since);
                    self.notify(Notice::Member(MemberChange::Joined(worker)));
                }
            }
            Sighting::Back(worker) => {
                self.note_start_from_none(now, now);
                self.members.joined(worker.clone(), now);
                self.notify(Notice::Member(MemberChange::Back(worker)));
            }
            Sighting::Left(worker) => {
                self.members.left(&worker, now);
                self.notify(Notice::Member(MemberChange::Left(worker)));
            }
            Sighting::Missing(worker) => self.went_missing(now, worker),
            Sighting::Blind => self.blind = true,
            Sighting::Sighted => {
                self.blind = false;
                let patience = now + self.config.heartbeat_ttl + self.config.recovery_grace;
                self.members.postpone_confirmations(patience);
                if let Some(window) = &mut self.window {
                    if window.publishes == Reason::Restart {
                        window.ends = window.ends.max(patience);
                    }
                }
            }
        }
    }

    fn went_missing(&mut self, now: Time, worker: WorkerId) {
        let absence = Absence {
            since: now,
            confirm_at: now + self.config.emergency_grace_period,
        };
        let planned = self.members.missing(&worker, absence);
        self.notify(Notice::Member(MemberChange::Missing(worker.clone())));
        if !planned {
            // It holds nothing, so there is nothing to wait for.
            self.give_up(&worker);
            return;
        }
        let recent = self.members.missing_within(self.config.heartbeat_ttl, now);
        let in_restart = self.window.is_some_and(|w| w.publishes == Reason::Restart);
        if self.mass == Mass::None && !in_restart && self.is_mass(recent) {
            self.ask_for_listing();
        }
    }

    fn listed(&mut self, now: Time, op: OpId, result: Result<()>) {
        if self.mass != Mass::Listing(op) {
            return;
        }
        if result.is_err() {
            self.mass = Mass::Retry(now + self.config.retry_delay_max);
            return;
        }
        self.mass = Mass::None;
        if self.is_mass(self.members.missing_count()) {
            self.open_window(now, now, Reason::Restart);
        }
    }

    /// One entry a key: the newest write decides.
    fn suspect(&mut self, key: String, revision: Revision) {
        let newest = self.suspects.entry(key).or_insert(revision);
        *newest = revision.max(*newest);
    }

    fn triggered(&mut self, ticket: Ticket) {
        let refusal = if self.deposed {
            Error::new(
                Code::Fenced,
                "a newer leader has taken over; nothing is published here",
            )
        } else if !self.source_ready {
            Error::new(
                Code::SourceFailed,
                "there is no partition list yet; push one first",
            )
        } else if !self.members.has_alive() {
            Error::new(
                Code::NoWorkers,
                "there is no live worker to publish a plan for",
            )
        } else {
            self.triggers.push(ticket);
            self.trigger_tried = false;
            return;
        };
        self.reply(ticket, Err(refusal));
    }

    fn job_done(&mut self, now: Time, op: OpId, result: Result<JobReport>) {
        if self.job.as_ref().is_none_or(|job| job.op != op) {
            return; // the answer to a job that was given up
        }
        let Some(job) = self.job.take() else { return };
        match (job.kind, result) {
            (RunningKind::Publish { reason, triggers }, Ok(JobReport::Published(done))) => {
                self.published(now, reason, triggers, &done);
            }
            (
                RunningKind::Inspect { tickets },
                Ok(JobReport::Inspected {
                    generation,
                    finding,
                }),
            ) => {
                self.inspected(tickets, generation, finding);
            }
            (RunningKind::Settle { .. }, Ok(JobReport::Settled { foreign })) => {
                self.retry_at = None;
                self.health.publishing = None;
                if foreign {
                    if now.since(self.cooldown_ends) > self.config.cooldown {
                        self.foreign_backoff.reset();
                    }
                    self.foreign_due = Some(now + self.foreign_backoff.next_delay());
                }
            }
            (kind, result) => {
                let error = result.err().unwrap_or_else(|| {
                    Error::new(Code::Panicked, "a job ended with the report of another")
                });
                self.job_failed(now, kind, error);
            }
        }
    }

    fn published(&mut self, now: Time, reason: Reason, triggers: usize, done: &Publication) {
        self.version = done.version;
        self.cooldown_ends = now + self.config.cooldown;
        self.retry_at = None;
        self.retry_backoff.reset();
        self.health.publishing = None;
        self.health.source = None;
        self.gap_at_start = false;
        self.foreign_due = None;
        self.members.published(done.workers.iter().cloned(), now);
        if done.generation >= self.generation_wanted {
            self.inspect_wanted = false;
            self.inspect_retry_at = None;
            self.partitions_differ = false;
        }
        if self
            .window
            .is_some_and(|w| w.publishes == reason && w.ends <= now)
        {
            self.window = None;
        }
        self.notify(Notice::Published {
            version: done.version,
            reason,
            workers: done.workers.len(),
            partitions: done.partitions,
            moved: done.moved,
        });
        self.go(now, State::Idle, None);
        self.answer_triggers(triggers, &Ok(done.version));
    }

    fn inspected(&mut self, tickets: usize, generation: u64, finding: Finding) {
        self.health.source = None;
        self.inspect_backoff.reset();
        self.inspect_retry_at = None;
        self.inspect_wanted = generation < self.generation_wanted;
        self.partitions_differ = self.is_worth_a_plan(finding);
        self.answer_inspections(tickets, &Ok(self.version));
    }

    fn job_failed(&mut self, now: Time, kind: RunningKind, error: Error) {
        let operation = match kind {
            RunningKind::Publish { .. } => "publish",
            RunningKind::Inspect { .. } => "read partitions",
            RunningKind::Settle { .. } => "settle a foreign write",
        };
        self.notify(Notice::Failed {
            operation,
            error: error.clone(),
        });
        if matches!(kind, RunningKind::Publish { .. }) {
            self.go(now, State::Idle, None);
        }
        if error.code() == Code::Fenced {
            self.depose();
            return;
        }
        let why = error.to_string();
        if error.code() == Code::SourceFailed {
            self.health.source = Some(why);
        } else {
            self.health.publishing = Some(why);
        }
        match kind {
            RunningKind::Publish { triggers, .. } => {
                self.delay_retry(now, &error);
                self.trigger_tried = true;
                if !error.is_retriable() && error.class() != Class::Conflict {
                    self.answer_triggers(triggers, &Err(error));
                }
            }
            RunningKind::Inspect { tickets } => {
                self.inspect_retry_at = Some(now + self.inspect_backoff.next_delay());
                self.answer_inspections(tickets, &Err(error));
            }
            RunningKind::Settle { suspects } => {
                for (key, revision) in suspects {
                    self.suspect(key, revision);
                }
                self.delay_retry(now, &error);
            }
        }
    }

    /// What will not go away by itself is retried at the slowest pace, the rest with backoff.
    fn delay_retry(&mut self, now: Time, error: &Error) {
        let delay = match error.class() {
            Class::Retriable | Class::Conflict => self.retry_backoff.next_delay(),
            Class::Permanent | Class::Invalid => self.config.retry_delay_max,
        };
        self.retry_at = Some(now + delay);
    }

    fn depose(&mut self) {
        if self.deposed {
            return;
        }
        self.deposed = true;
        self.notify(Notice::LeadershipLost);
        let fenced = Error::new(Code::Fenced, "a newer leader has taken over");
        self.answer_triggers(self.triggers.len(), &Err(fenced.clone()));
        self.answer_inspections(self.inspect_tickets.len(), &Err(fenced));
    }
}

/// What follows from the state of things.
impl Calculator {
    fn losses_are_frozen(&self) -> bool {
        let in_restart = self.window.is_some_and(|w| w.publishes == Reason::Restart);
        self.blind || in_restart || self.mass != Mass::None
    }

    fn confirm_losses(&mut self, now: Time) {
        if let Mass::Retry(time) = self.mass {
            if time <= now {
                self.ask_for_listing();
            }
        }
        if self.losses_are_frozen() {
            return;
        }
        if self
            .members
            .next_confirmation()
            .is_some_and(|time| time <= now)
        {
            for worker in self.members.confirm_lost(now) {
                self.give_up(&worker);
            }
        }
    }

    /// A window at whose end nothing differs closes without a publication, and one that lost its
    /// whole fleet makes room for a cold start.
    fn close_idle_window(&mut self, now: Time) {
        let Some(window) = self.window else { return };
        let restart = window.publishes == Reason::Restart;
        let over = window.ends <= now && !(restart && self.blind);
        if restart && over && !self.members.has_alive() {
            self.give_up_restart(now);
        }
        let settled = !self.members.differ() && !self.partitions_differ && !self.gap_at_start;
        let came_back = restart && self.members.missing_count() == 0;
        let overdue = self
            .members
            .next_confirmation()
            .is_some_and(|time| time <= now);
        let nothing_to_do = settled && (came_back || (over && !(restart && overdue)));
        if self.members.is_empty() || nothing_to_do {
            self.window = None;
        }
    }

    fn give_up_restart(&mut self, now: Time) {
        for worker in self.members.give_up_missing(now) {
            self.give_up(&worker);
        }
    }

    /// Starts the most urgent job that is due.
    fn work(&mut self, now: Time) {
        if self.job.is_some() || self.deposed || !self.taken_over {
            return;
        }
        if !self.triggers.is_empty() && !self.members.has_alive() {
            let nobody = Error::new(Code::NoWorkers, "the last live worker is gone");
            self.answer_triggers(self.triggers.len(), &Err(nobody));
        }
        let retry_due = self.retry_at.is_none_or(|time| time <= now);
        if !self.suspects.is_empty() && retry_due {
            let suspects = std::mem::take(&mut self.suspects);
            let seen = suspects.clone().into_iter().collect();
            self.start_job(Job::Settle { seen }, RunningKind::Settle { suspects });
            return;
        }
        let due = self.agenda().find(|work| work.due <= now);
        if let Some(work) = due {
            self.publish(now, work);
            return;
        }
        let inspect_due = self.inspect_retry_at.is_none_or(|time| time <= now);
        if self.inspect_wanted && inspect_due && self.source_ready {
            let tickets = self.inspect_tickets.len();
            self.start_job(Job::Inspect, RunningKind::Inspect { tickets });
        }
    }

    fn publish(&mut self, now: Time, work: Work) {
        if work.reason == Reason::Restart {
            self.give_up_restart(now);
        }
        let retrying = self.retry_at.is_some();
        if let (Some(shown), State::Idle, false) = (work.window, self.position.state, retrying) {
            self.go(now, State::Scaling, Some(shown.reason));
        }
        self.go(now, work.state(), Some(work.reason));
        let workers: Arc<[WorkerId]> = self.members.wanted().into();
        let kind = RunningKind::Publish {
            reason: work.reason,
            triggers: self.triggers.len(),
        };
        let job = Job::Publish {
            reason: work.reason,
            workers,
        };
        self.start_job(job, kind);
    }

    /// Shows an open window as `Scaling`, and a window that went away as `Idle`.
    fn show_window(&mut self, now: Time) {
        if !matches!(self.position.state, State::Idle | State::Scaling) {
            return;
        }
        let open = self
            .agenda()
            .filter_map(|work| work.window)
            .find(|window| window.opens <= now)
            .filter(|_| !self.deposed);
        let shown = open.map(|window| window.reason);
        if self.position.state == State::Scaling && self.position.reason != shown {
            self.go(now, State::Idle, None);
        }
        // After a failure the work is retried from Idle, without a new window.
        let retrying = self.retry_at.is_some();
        if self.position.state == State::Idle && shown.is_some() && !retrying {
            self.go(now, State::Scaling, shown);
        }
    }

    /// A fleet that starts from no workers gets a cold-start window, counted from the first.
    fn note_start_from_none(&mut self, now: Time, since: Time) {
        if self.members.is_empty() && self.taken_over {
            self.members.carry_over_gone();
            self.open_window(now, since, Reason::ColdStart);
        }
    }

    fn open_window(&mut self, now: Time, opened: Time, publishes: Reason) {
        self.window = Some(Window {
            publishes,
            opened: opened.min(now),
            ends: opened + self.config.cold_start_window,
        });
    }

    fn is_mass(&self, absent: usize) -> bool {
        is_mass(
            absent,
            self.members.planned().len(),
            self.config.restart_ratio,
        )
    }

    fn is_worth_a_plan(&self, finding: Finding) -> bool {
        match finding {
            Finding::Same => false,
            Finding::Changed => true,
            Finding::Reweighted { excess } => excess > self.config.min_rebalance_threshold,
        }
    }

    fn ask_for_listing(&mut self) {
        let op = self.new_op();
        self.mass = Mass::Listing(op);
        self.actions.push_back(Action::List { op });
    }

    fn give_up(&mut self, worker: &WorkerId) {
        if self.members.is_lost(worker) {
            self.notify(Notice::Member(MemberChange::Lost(worker.clone())));
        }
        self.actions.push_back(Action::Forget(worker.clone()));
    }

    fn start_job(&mut self, job: Job, kind: RunningKind) {
        let op = self.new_op();
        self.job = Some(Running { op, kind });
        self.actions.push_back(Action::Start { op, job });
    }

    fn new_op(&mut self) -> OpId {
        self.next_op += 1;
        OpId(self.next_op)
    }

    fn go(&mut self, now: Time, to: State, reason: Option<Reason>) {
        let from = self.position.state;
        if !is_legal(from, to) {
            log::error!(target: "divvy::calculator", "refused the illegal move {from} -> {to}");
            debug_assert!(false, "illegal move {from} -> {to}");
            return;
        }
        self.position = Position {
            state: to,
            reason,
            since: now,
        };
        self.notify(Notice::StateChanged(StateChange {
            from,
            to,
            reason,
            version: self.version,
            time: now,
        }));
    }

    fn answer_triggers(&mut self, count: usize, result: &Result<Version>) {
        // Fewer when the waiting callers were told in the meantime that the term is over.
        let count = count.min(self.triggers.len());
        for ticket in self.triggers.drain(..count).collect::<Vec<_>>() {
            self.reply(ticket, result.clone());
        }
    }

    fn answer_inspections(&mut self, count: usize, result: &Result<Version>) {
        let count = count.min(self.inspect_tickets.len());
        for ticket in self.inspect_tickets.drain(..count).collect::<Vec<_>>() {
            self.reply(ticket, result.clone());
        }
    }

    fn reply(&mut self, ticket: Ticket, result: Result<Version>) {
        self.actions.push_back(Action::Reply { ticket, result });
    }

    fn notify(&mut self, notice: Notice) {
        self.actions.push_back(Action::Notify(notice));
    }
}

//! The calculator: watches the fleet, decides when a plan is due, has it published.
//!
//! # Protocol of use
//! [`CalculatorMachine::handle`] applies an input; [`CalculatorMachine::tick`] advances time; drain
//! [`CalculatorMachine::poll_action`] after each of them; [`CalculatorMachine::deadline`] is the
//! time of the next tick (an early tick does nothing). The same inputs at the same times produce
//! the same actions.
//!
//! The machine is level-triggered: `pending_work` compares what is wanted with what was last
//! successfully published; any difference is pending until a publication of it succeeds.

mod calculator_health;
mod calculator_messages;
mod decisions;
mod inputs;
mod members;
mod partition_source;
mod pending_work;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use self::calculator_health::CalculatorHealth;
pub use self::calculator_messages::{
    CalculatorAction, CalculatorEvent, CalculatorInput, Degradation, Degraded, Followed, Job,
    JobReport, OpId, Pending, Publication, SourceOutcome, StateChange, Ticket,
};
use self::members::Members;
use self::pending_work::{FirstPlan, Window};
use super::breaker::BreakerCondition;
use super::fit::AssignmentLimit;
use super::position::Position;
pub use super::takeover::Finding;
use crate::config::CalculatorConfig;
use crate::time::backoff::Backoff;
use crate::types::{Reason, Revision, Term, Time, Version, WorkerId};
use crate::wire::{Applied, FENCE_KEY};

/// The calculator machine. See the module for the protocol of use.
#[derive(Debug)]
pub struct CalculatorMachine {
    config: CalculatorConfig,
    /// When the last tick was.
    now: Time,
    position: Position,
    members: Members,
    term: Term,
    version: Version,
    taken_over: bool,
    deposed: bool,
    /// The highest term that the fence record was seen to name.
    fence_seen: Term,
    watch_lost_since: Option<Time>,
    /// Whether there is a partition list at all: false until the first push in push mode.
    source_ready: bool,
    generation_wanted: u64,
    inspect_wanted: bool,
    inspect_retry_at: Option<Time>,
    inspect_backoff: Backoff,
    /// Callers that wait for the list as of a change.
    inspect_tickets: Vec<(Ticket, u64)>,
    /// Callers that wait for the publication of a change that was found.
    change_tickets: Vec<(Ticket, u64)>,
    /// The source is being read; the list is compared when it has returned.
    is_reading: bool,
    /// When the source is to be read again although nothing has changed.
    refresh_at: Option<Time>,
    /// The last publication failed because there was no list.
    waits_for_list: bool,
    /// Since when the partition list differs from the plan.
    partitions_differ_since: Time,
    /// Since when no plan can be made, and why.
    planless: Option<(Time, String)>,
    partitions_differ: bool,
    gap_at_start: bool,
    /// The fleet has no plan yet and gathers workers for its first one.
    first_plan: Option<FirstPlan>,
    /// Why the publication was made that failed and may nevertheless have changed the store.
    unfinished: Option<Reason>,
    suspects: Suspects,
    foreign_due: Option<Time>,
    foreign_backoff: Backoff,
    triggers: Vec<Ticket>,
    trigger_tried: bool,
    window: Option<Window>,
    mass: MassExpiry,
    /// The former leader, and until when its silence is beyond doubt: see [`Evidence::former_leader_suspected`].
    ///
    /// [`Evidence::former_leader_suspected`]: crate::machine::takeover::Evidence::former_leader_suspected
    former_leader_suspected: Option<(WorkerId, Time)>,
    cooldown_ends: Time,
    retry_at: Option<Time>,
    /// When a job failed last.
    failed_at: Time,
    /// How the store's circuit breaker stands: nothing is published unless it is closed.
    breaker: BreakerCondition,
    /// The last failure will not go away by itself.
    retry_is_slow: bool,
    retry_backoff: Backoff,
    job: Option<RunningJob>,
    next_op: u64,
    health: CalculatorHealth,
    /// How the plan in force stands to the limit of the store.
    limit: AssignmentLimit,
    actions: VecDeque<CalculatorAction>,
}

/// The job under way.
#[derive(Debug)]
struct RunningJob {
    op: OpId,
    kind: RunningJobKind,
    started: Time,
    /// Whether the partition list may have changed since it started.
    has_list_changed: bool,
}

#[derive(Debug)]
enum RunningJobKind {
    /// Carries how many of the waiting triggers it answers.
    Publish {
        reason: Reason,
        triggers: usize,
    },
    Inspect {
        tickets: usize,
    },
    Resolve {
        suspects: Suspects,
    },
    /// Carries when it was due.
    Probe {
        due: Time,
    },
}

/// Suspicions that the publisher has to resolve.
#[derive(Clone, Debug, Default)]
struct Suspects {
    /// Possibly foreign writes.
    writes: BTreeMap<String, Revision>,
    /// The highest term and version that workers have applied and the bucket may have lost.
    applied: Applied,
}

impl Suspects {
    fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.applied == Applied::default()
    }

    /// One entry a key: the newest write decides.
    fn add(&mut self, key: String, revision: Revision) {
        let newest = self.writes.entry(key).or_insert(revision);
        *newest = revision.max(*newest);
    }
}

/// The suspicion that a large part of the fleet went suspected at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MassExpiry {
    None,
    /// A second listing is under way.
    Listing(OpId),
    /// The second listing failed; the next try is due then.
    Retry(Time),
}

impl CalculatorMachine {
    /// A calculator that has not taken over yet. `seed` determines the jitter of retries;
    /// `source_ready` is false when the partition list is yet to be pushed.
    #[must_use]
    pub fn new(config: CalculatorConfig, now: Time, seed: u64, source_ready: bool) -> Self {
        let backoff =
            |salt: u64| Backoff::new(config.retry_delay_min, config.retry_delay_max, seed ^ salt);
        Self {
            now,
            position: Position::idle(now),
            members: Members::default(),
            term: 0,
            version: 0,
            taken_over: false,
            deposed: false,
            fence_seen: 0,
            watch_lost_since: None,
            source_ready,
            generation_wanted: 0,
            inspect_wanted: false,
            inspect_retry_at: None,
            inspect_backoff: backoff(1),
            inspect_tickets: Vec::new(),
            change_tickets: Vec::new(),
            is_reading: false,
            refresh_at: None,
            waits_for_list: false,
            partitions_differ_since: now,
            planless: None,
            partitions_differ: false,
            gap_at_start: false,
            first_plan: None,
            unfinished: None,
            suspects: Suspects::default(),
            foreign_due: None,
            foreign_backoff: backoff(2),
            triggers: Vec::new(),
            trigger_tried: false,
            window: None,
            mass: MassExpiry::None,
            former_leader_suspected: None,
            cooldown_ends: Time::ZERO,
            retry_at: None,
            failed_at: Time::ZERO,
            breaker: BreakerCondition::closed(),
            retry_is_slow: false,
            retry_backoff: backoff(3),
            job: None,
            next_op: 0,
            health: CalculatorHealth::new(&config),
            limit: AssignmentLimit::default(),
            actions: VecDeque::new(),
            config,
        }
    }

    /// Applies an input.
    pub fn handle(&mut self, now: Time, event: CalculatorInput) {
        self.note_standstill(now);
        match event {
            CalculatorInput::TakenOver(found) => self.take_over(now, &found),
            CalculatorInput::Membership(membership) => self.membership_changed(now, membership),
            CalculatorInput::Listed { op, result } => self.listed(now, op, result),
            CalculatorInput::JobDone { op, term, result } => {
                self.term = self.term.max(term);
                self.job_done(now, op, result);
            }
            CalculatorInput::ForeignSuspected { key, revision } => self.suspects.add(key, revision),
            CalculatorInput::AppliedAhead(applied) => {
                self.suspects.applied = self.suspects.applied.highest(applied);
            }
            // To a shadow it is a change of the leader that it watches.
            CalculatorInput::FenceMoved { .. } if self.config.shadow => {
                self.suspects.add(FENCE_KEY.into(), Revision::MAX);
            }
            CalculatorInput::FenceMoved { term } => self.fence_seen = self.fence_seen.max(term),
            CalculatorInput::Trigger { ticket } => self.triggered(ticket),
            CalculatorInput::PartitionsChanged { generation, ticket } => {
                self.partitions_changed(generation, ticket);
            }
            CalculatorInput::StoreHealth(why) => {
                let recovered = self.health.store.is_some() && why.is_none();
                self.health.store = why;
                if recovered {
                    self.store_recovered(now);
                }
            }
            CalculatorInput::HostCallsOverdue(words) => self.health.host_calls = words,
            CalculatorInput::Breaker(state) => self.breaker_changed(now, state),
            CalculatorInput::ListHeld(held) => self.notify(CalculatorEvent::ListHeld(held)),
            CalculatorInput::ConfigMismatch(mismatch) => {
                self.notify(CalculatorEvent::ConfigMismatch(mismatch));
            }
            CalculatorInput::Lagging(lagging) => {
                self.notify(CalculatorEvent::WorkerLagging(lagging))
            }
            CalculatorInput::Malformed(values) => self.values_ignored(now, &values),
        }
        self.tick(now);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Time) {
        self.note_standstill(now);
        self.now = now;
        // While a job runs, a higher term may be one that our own publisher opened.
        if self.fence_seen > self.term && self.job.is_none() && self.taken_over {
            self.depose();
        }
        self.confirm_deaths(now);
        self.close_idle_window(now);
        self.refresh_list(now);
        self.forget_resolved_failures();
        self.work(now);
        self.report_window(now);
        self.health.watch_lost = self.watch_lost_since.is_some();
        self.health.deposed = self.deposed;
        self.health.planning = self.planning_failure(now);
        if let Some(degraded) = self.health.changed(now) {
            self.notify(CalculatorEvent::Degraded(degraded));
        }
    }

    /// What to do next, oldest first.
    pub fn poll_action(&mut self) -> Option<CalculatorAction> {
        self.actions.pop_front()
    }

    /// Returns when the next tick is due. `now` is the machine's last time: what became due since
    /// then is still to be handled.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let losses = if self.failure_detection_suspended() {
            None
        } else {
            self.members.next_confirmation()
        };
        let mass = match self.mass {
            MassExpiry::Retry(time) => Some(time),
            MassExpiry::None | MassExpiry::Listing(_) => None,
        };
        let window = self.window.map(|w| w.ends);
        let window = window.filter(|&ends| ends > self.now);
        let work = self.work_deadline();
        let list = [self.refresh_due(), self.planning_deadline()];
        [losses, mass, window, work, self.health.deadline()]
            .into_iter()
            .chain(list)
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

    /// How many workers are alive, and how many are suspected but may come back.
    #[must_use]
    pub fn worker_counts(&self) -> (usize, usize) {
        (self.members.alive_count(), self.members.suspected_count())
    }

    /// The workers of the last published plan that are removed: what they held has no owner.
    pub fn removed(&self) -> impl Iterator<Item = &WorkerId> {
        self.members.removed()
    }

    /// Whether there are any such workers.
    #[must_use]
    pub fn has_removed(&self) -> bool {
        self.members.has_removed()
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
    pub fn degraded(&self) -> Degraded {
        self.health.list()
    }

    /// How the plan in force stands to the limit of the store.
    #[must_use]
    pub fn assignment_limit(&self) -> &AssignmentLimit {
        &self.limit
    }

    /// What is pending.
    #[must_use]
    pub fn pending(&self, now: Time) -> Pending {
        let next = self.pending_work().min_by_key(|work| work.due);
        Pending {
            reason: next.map(|work| work.reason),
            due_in: next
                .filter(|work| work.due < Time::FAR_FUTURE)
                .map(|work| work.due.since(now)),
        }
    }

    /// The event that carries the current state to a new subscriber.
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

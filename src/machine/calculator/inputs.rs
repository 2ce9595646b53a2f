//! What happened: one method an event.

use std::time::Duration;

use super::members::Suspicion;
use super::{
    CalculatorAction, CalculatorEvent, CalculatorMachine, Finding, FirstPlan, Followed, JobReport,
    MassExpiry, OpId, Publication, RunningJobKind, Ticket,
};
use crate::error::{Code, Error, ErrorClass, Result};
use crate::machine::breaker::BreakerCondition;
use crate::machine::liveness::MembershipEvent;
use crate::machine::takeover::{TakeOver, Timing, judge};
use crate::types::{CalculatorState, Reason, Time, WorkerId};
use crate::vocabulary::MemberChange;

/// Minimum time from a failure to the next attempt after the store's return, and between fruitless
/// probes.
const RECOVERY_PAUSE: Duration = Duration::from_millis(500);

impl CalculatorMachine {
    pub(super) fn take_over(&mut self, now: Time, found: &TakeOver) {
        let timing = Timing {
            ttl: self.config.heartbeat_ttl,
            grace: self.config.emergency_grace_period,
            recovery_grace: self.config.recovery_grace(),
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
        self.actions.push_back(CalculatorAction::Watch {
            alive: evidence.alive.clone().into_iter().collect(),
            suspected: evidence.suspected.union(&evidence.dead).cloned().collect(),
        });
        // A beat after the take-over would keep it alive for longer than that.
        self.former_leader_suspected = evidence
            .former_leader_suspected
            .map(|w| (w, now + self.config.heartbeat_ttl));
        self.members.published(found.planned.iter().cloned(), now);
        for worker in evidence.alive.into_keys() {
            self.members.joined(worker, now);
        }
        for worker in &evidence.left {
            // The former leader did not replace it in time: there is nothing left to wait for.
            self.members.left(worker, now - self.config.leave_window);
        }
        let absence = Suspicion {
            since: now,
            confirm_at: evidence.suspected_until,
        };
        for worker in &evidence.suspected {
            self.members.suspected(worker, absence);
        }
        for worker in evidence.dead {
            self.members.declare_dead(worker.clone());
            self.report_dead(worker);
        }
        let has_plan = !found.planned.is_empty();
        let is_complete = found.consistent && found.finding != Some(Finding::Changed);
        let differ = found
            .finding
            .is_some_and(|finding| self.is_worth_a_plan(finding));
        self.partitions_differ = differ || !found.consistent;
        if !found.consistent && self.members.is_empty() {
            // No inspection of the partition list repairs it. The first plan does.
            self.unfinished = Some(Reason::ColdStart);
        }
        // An existing plan with a few workers gone is a leave or an emergency, not a cold start. A
        // fleet without any worker starts when the first one joins.
        if (has_plan && is_complete) || self.members.is_empty() {
            return;
        }
        self.gap_at_start = true;
        if !has_plan {
            self.first_plan = Some(FirstPlan {
                first: now,
                last: now,
            });
        }
    }

    pub(super) fn membership_changed(&mut self, now: Time, membership: MembershipEvent) {
        match membership {
            MembershipEvent::Joined { since, workers } => {
                self.note_start_from_none(now, since);
                for worker in workers {
                    self.members.joined(worker.clone(), since);
                    self.first_plan_waits(now);
                    self.notify(CalculatorEvent::Member {
                        change: MemberChange::Joined,
                        worker,
                    });
                }
            }
            MembershipEvent::Returned(worker) => {
                self.note_start_from_none(now, now);
                self.members.joined(worker.clone(), now);
                self.first_plan_waits(now);
                self.notify(CalculatorEvent::Member {
                    change: MemberChange::Returned,
                    worker,
                });
            }
            MembershipEvent::Left(worker) => {
                self.members.left(&worker, now);
                self.notify(CalculatorEvent::Member {
                    change: MemberChange::Left,
                    worker,
                });
            }
            MembershipEvent::Suspected(worker) => self.worker_suspected(now, worker),
            MembershipEvent::WatchLost => {
                self.watch_lost_since.get_or_insert(now);
            }
            MembershipEvent::WatchRestored => {
                let lost_since = self.watch_lost_since.take().unwrap_or(now);
                self.store_recovered(now);
                // Suspicions stood still while nothing could be seen and continue from there.
                self.members.delay_confirmations(now.since(lost_since));
                if let Some(window) = &mut self.window
                    && window.publishes == Reason::Restart
                {
                    let recovered = now + self.config.heartbeat_ttl + self.config.recovery_grace();
                    window.ends = window.ends.max(recovered);
                }
            }
        }
    }

    /// A join extends the time that the first plan waits for more of them.
    fn first_plan_waits(&mut self, now: Time) {
        if let Some(gathering) = &mut self.first_plan {
            gathering.last = now;
        }
    }

    fn worker_suspected(&mut self, now: Time, worker: WorkerId) {
        let is_grace_extended = self
            .former_leader_suspected
            .take_if(|(former_leader_suspected, _)| *former_leader_suspected == worker)
            .is_some_and(|(_, until)| now < until);
        let grace = match is_grace_extended {
            true => Duration::ZERO,
            false => self.config.emergency_grace_period,
        };
        let absence = Suspicion {
            since: now,
            confirm_at: now + grace,
        };
        let planned = self.members.suspected(&worker, absence);
        self.notify(CalculatorEvent::Member {
            change: MemberChange::Suspected,
            worker: worker.clone(),
        });
        if !planned {
            // It holds nothing, so there is nothing to wait for.
            self.forget([worker]);
            return;
        }
        let recent = self
            .members
            .suspected_within(self.config.heartbeat_ttl, now);
        let in_restart = self.window.is_some_and(|w| w.publishes == Reason::Restart);
        if self.mass == MassExpiry::None && !in_restart && self.is_mass(recent) {
            self.ask_for_listing();
        }
    }

    pub(super) fn listed(&mut self, now: Time, op: OpId, result: Result<()>) {
        if self.mass != MassExpiry::Listing(op) {
            return;
        }
        if result.is_err() {
            self.mass = MassExpiry::Retry(now + self.config.retry_delay_max);
            return;
        }
        self.mass = MassExpiry::None;
        if self.is_mass(self.members.suspected_count()) {
            self.open_window(now, now, Reason::Restart);
        }
    }

    pub(super) fn partitions_changed(&mut self, generation: u64, ticket: Option<Ticket>) {
        self.source_ready = true;
        self.inspect_wanted = true;
        self.is_reading = false;
        if let Some(job) = &mut self.job {
            job.has_list_changed = true;
        }
        self.inspect_retry_at = None;
        self.generation_wanted = self.generation_wanted.max(generation);
        match ticket {
            Some(ticket) if self.deposed => self.reply(ticket, Err(deposed())),
            Some(ticket) => self.inspect_tickets.push((ticket, generation)),
            None => {}
        }
    }

    /// What failed while the store was away is tried again at once, unless that was just now: a
    /// store that comes and goes is not to be asked each time. Only a success ends the backoff.
    pub(super) fn store_recovered(&mut self, now: Time) {
        let soon = now.max(self.failed_at + RECOVERY_PAUSE);
        if !self.retry_is_slow {
            self.retry_at = self.retry_at.map(|retry_at| retry_at.min(soon));
        }
        self.inspect_retry_at = self.inspect_retry_at.map(|retry_at| retry_at.min(soon));
        // The limit of the store may have been raised.
        self.inspect_wanted |= !self.limit.unassigned.is_empty();
        if let MassExpiry::Retry(retry_at) = self.mass {
            self.mass = MassExpiry::Retry(retry_at.min(now + RECOVERY_PAUSE));
        }
    }

    pub(super) fn breaker_changed(&mut self, now: Time, state: BreakerCondition) {
        let is_closed = state.is_closed();
        let was_closed = self.breaker.is_closed();
        self.health.breaker = state.why().map(ToOwned::to_owned);
        // One that is open and is to be probed sooner has not changed.
        if state.state != self.breaker.state {
            self.notify(CalculatorEvent::Breaker(state.clone()));
        }
        self.breaker = state;
        if is_closed && !was_closed {
            self.store_recovered(now);
        }
    }

    pub(super) fn triggered(&mut self, ticket: Ticket) {
        let refusal = if self.deposed {
            deposed()
        } else if !self.source_ready {
            Error::new(Code::SourceFailed, "no partition list; set one first")
        } else if !self.members.has_alive() {
            Error::new(Code::NoWorkers, "no live worker")
        } else {
            self.triggers.push(ticket);
            self.trigger_tried = false;
            return;
        };
        self.reply(ticket, Err(refusal));
    }

    pub(super) fn job_done(&mut self, now: Time, op: OpId, result: Result<JobReport>) {
        if self.job.as_ref().is_none_or(|job| job.op != op) {
            return; // the answer to an abandoned job
        }
        let Some(job) = self.job.take() else { return };
        match (job.kind, result) {
            (RunningJobKind::Publish { reason, triggers }, Ok(JobReport::Published(done))) => {
                self.published(now, reason, triggers, &done);
            }
            (
                RunningJobKind::Inspect { tickets },
                Ok(JobReport::Inspected {
                    generation,
                    finding,
                }),
            ) => {
                self.inspected(now, tickets, generation, finding);
            }
            (RunningJobKind::Inspect { .. }, Ok(JobReport::Reading)) => {
                // The call may have returned before this report of it arrives.
                self.is_reading = !job.has_list_changed;
                self.inspect_wanted = job.has_list_changed;
            }
            (RunningJobKind::Resolve { .. }, Ok(JobReport::Resolved { foreign })) => {
                if self.unfinished.is_none() {
                    self.retry_at = None;
                    self.health.publishing = None;
                }
                if foreign {
                    if now.since(self.cooldown_ends) > self.config.cooldown {
                        self.foreign_backoff.reset();
                    }
                    self.foreign_due = Some(now + self.foreign_backoff.next_delay());
                }
            }
            (RunningJobKind::Resolve { .. }, Ok(JobReport::Followed(live))) => {
                self.followed(now, *live);
            }
            (RunningJobKind::Probe { due }, _) => self.probed(now, due),
            (kind, result) => {
                let error = result.err().unwrap_or_else(|| {
                    Error::new(Code::Panicked, "a job ended with the report of another")
                });
                self.job_failed(now, kind, error);
            }
        }
    }

    /// The breaker reports the result of the probe. A failed probe is repeated.
    fn probed(&mut self, now: Time, due: Time) {
        if self.breaker.probe_at() == Some(due) {
            self.breaker.set_probe_at(now + RECOVERY_PAUSE);
        }
    }

    fn published(&mut self, now: Time, reason: Reason, triggers: usize, done: &Publication) {
        if !self.config.shadow {
            self.version = done.version; // a shadow's is the live leader's
        }
        self.is_in_force(now, &done.workers);
        self.planless = None;
        self.waits_for_list = false;
        let looked_at_newest = done.generation >= self.generation_wanted;
        self.source_used(now, &done.source, looked_at_newest);
        if looked_at_newest {
            self.partitions_differ = false;
        }
        if self
            .window
            .is_some_and(|w| w.publishes == reason && w.ends <= now)
        {
            self.close_window();
        }
        self.notify(self.published_event(reason, done));
        self.note_limit(done);
        self.transition(now, CalculatorState::Idle, None);
        self.answer_triggers(triggers, &Ok(done.version));
        self.answer_refreshes(done.generation, done.version);
    }

    /// Reports what exceeds the limit of the store, or would after the loss of one worker.
    fn note_limit(&mut self, done: &Publication) {
        let has_unassigned = !done.limit.unassigned.is_empty();
        self.health.unassigned = has_unassigned.then(|| done.limit.to_string());
        let is_news = !done.limit.is_same(&self.limit);
        self.limit = done.limit.clone();
        if is_news {
            self.notify(CalculatorEvent::AssignmentLimit {
                version: done.version,
                limit: done.limit.clone(),
            });
        }
    }

    /// A plan for these workers is in force: work that it covers is no longer pending.
    fn is_in_force(&mut self, now: Time, workers: &[WorkerId]) {
        self.cooldown_ends = now + self.config.cooldown;
        self.retry_at = None;
        self.retry_backoff.reset();
        self.health.publishing = None;
        self.gap_at_start = false;
        if self.first_plan.take().is_some() && self.window.is_none() {
            self.open_window(now, now, Reason::ColdStartFinal);
        }
        self.foreign_due = None;
        self.unfinished = None;
        let dropped = self.members.published(workers.iter().cloned(), now);
        self.forget(dropped);
    }

    fn published_event(&self, reason: Reason, done: &Publication) -> CalculatorEvent {
        let (version, quality) = (done.version, done.quality);
        let (workers, partitions) = (done.workers.len(), done.partitions);
        if self.config.shadow {
            return CalculatorEvent::WouldPublish {
                version,
                reason,
                workers,
                partitions,
                quality,
            };
        }
        CalculatorEvent::Published {
            version,
            reason,
            workers,
            partitions,
            quality,
        }
    }

    /// The live leader's plan is in force now, whatever this shadow would have published.
    fn followed(&mut self, now: Time, live: Followed) {
        self.version = live.comparison.version;
        self.is_in_force(now, &live.workers);
        self.partitions_differ = !live.comparison.is_whole;
        match live.finding {
            Some(finding) => {
                self.health.source = None;
                self.partitions_differ |= self.is_worth_a_plan(finding);
                self.inspect_wanted = live.generation < self.generation_wanted;
            }
            None => self.inspect_wanted = true,
        }
        self.notify(CalculatorEvent::LeaderPublished(Box::new(live.comparison)));
    }

    fn job_failed(&mut self, now: Time, kind: RunningJobKind, error: Error) {
        let operation = match kind {
            RunningJobKind::Publish { .. } => "publish",
            RunningJobKind::Inspect { .. } => "read partitions",
            RunningJobKind::Resolve { .. } => "resolve a foreign write",
            RunningJobKind::Probe { .. } => return,
        };
        self.failed_at = now;
        let retries = match kind {
            RunningJobKind::Inspect { .. } => self.inspect_backoff.attempts(),
            _ => self.retry_backoff.attempts(),
        };
        let error = error.with_attempts(retries + 1);
        self.notify(CalculatorEvent::Failed {
            operation,
            error: error.clone(),
        });
        if let RunningJobKind::Publish { reason, .. } = kind {
            self.note_planning(now, &error);
            if may_have_written(&error) {
                self.unfinished = Some(reason);
            }
            let dropped = self.members.publication_failed(now);
            self.forget(dropped);
            self.transition(now, CalculatorState::Idle, None);
        }
        if error.code() == Code::Fenced {
            self.depose();
            return;
        }
        let why = error.to_string();
        let is_source = matches!(kind, RunningJobKind::Inspect { .. });
        if is_source || error.code() == Code::SourceFailed {
            self.health.source = Some(why);
        } else {
            self.health.publishing = Some(why);
        }
        match kind {
            RunningJobKind::Publish { triggers, .. } => {
                self.ask_again_if_reading();
                self.delay_retry(now, &error);
                // Those that came while it was under way have not been tried yet.
                self.trigger_tried = triggers == self.triggers.len();
                if !error.is_retriable() && error.class() != ErrorClass::Conflict {
                    self.answer_triggers(triggers, &Err(error));
                }
            }
            RunningJobKind::Inspect { tickets } => {
                self.inspect_retry_at = Some(now + self.inspect_backoff.next_delay());
                let tickets = tickets.min(self.inspect_tickets.len());
                self.refuse_refreshes(tickets, &error);
            }
            RunningJobKind::Resolve { suspects } => {
                for (key, revision) in suspects.writes {
                    self.suspects.add(key, revision);
                }
                self.suspects.applied = self.suspects.applied.highest(suspects.applied);
                self.delay_retry(now, &error);
            }
            RunningJobKind::Probe { .. } => {}
        }
    }

    /// What will not go away by itself is retried at the slowest pace, the rest with backoff.
    fn delay_retry(&mut self, now: Time, error: &Error) {
        self.retry_is_slow = matches!(error.class(), ErrorClass::Permanent | ErrorClass::Invalid);
        let delay = match (self.retry_backoff.next_delay(), self.retry_is_slow) {
            (_, true) => self.config.retry_delay_max,
            (delay, false) => delay,
        };
        self.retry_at = Some(now + delay);
    }

    pub(super) fn depose(&mut self) {
        if self.deposed {
            return;
        }
        self.deposed = true;
        self.notify(CalculatorEvent::LeadershipLost);
        self.answer_triggers(self.triggers.len(), &Err(deposed()));
        self.refuse_refreshes(self.inspect_tickets.len(), &deposed());
        self.refuse_changes(&deposed());
    }
}

fn deposed() -> Error {
    Error::new(
        Code::Fenced,
        "a newer leader has taken over; this calculator publishes nothing",
    )
}

/// Whether a publication that ended like this may have changed the store: all but those that
/// never came to the writing.
fn may_have_written(error: &Error) -> bool {
    !matches!(
        error.code(),
        Code::SourceFailed
            | Code::StrategyFailed
            | Code::InvalidPlan
            | Code::InvalidArgument
            | Code::NoWorkers
    )
}

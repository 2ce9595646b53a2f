//! What follows from the state of things, whatever event led there.

use std::sync::Arc;
use std::time::Duration;

use super::pending_work::{Window, Work};
use super::{
    CalculatorAction, CalculatorEvent, CalculatorMachine, Finding, Job, MassExpiry, OpId,
    RunningJob, RunningJobKind, StateChange, Ticket,
};
use crate::error::{Code, Error, Result};
use crate::machine::plausible::MalformedValues;
use crate::machine::position::{Position, is_legal};
use crate::machine::takeover::is_mass;
use crate::types::{CalculatorState, Reason, Time, Version, WorkerId};
use crate::vocabulary::MemberChange;

/// A job that could start.
struct Task {
    due: Time,
    kind: TaskKind,
}

enum TaskKind {
    /// Ask a store whose breaker is open whether it is back.
    Probe,
    /// Publish a plan.
    Publish(Work),
    /// Find out what the suspects are.
    Resolve,
    /// Read the partition list and compare it with the plan.
    Inspect,
}

impl CalculatorMachine {
    /// Counts ignored values, and names each key once in `malformed_window`.
    pub(super) fn values_ignored(&mut self, now: Time, values: &MalformedValues) {
        self.health.malformed_seen(now, values.count());
        for value in values.named() {
            if self.health.names_malformed(now, value) {
                self.notify(CalculatorEvent::Malformed(value.clone()));
            }
        }
    }

    /// A process that stood still (a paused container, a host that slept) knows nothing of the
    /// time in between: who seems to be dead may have come back long ago, and is given the time to
    /// be seen.
    pub(super) fn note_standstill(&mut self, now: Time) {
        let overdue = self.deadline().map_or(Duration::ZERO, |due| now.since(due));
        if overdue > self.config.heartbeat_ttl / 2 {
            let wait = now + self.config.emergency_grace_period;
            self.members.postpone_confirmations(wait);
        }
    }

    pub(super) fn failure_detection_suspended(&self) -> bool {
        let is_gathering = self.window.is_some_and(|window| window.is_gathering());
        self.watch_lost_since.is_some() || is_gathering || self.mass != MassExpiry::None
    }

    pub(super) fn confirm_deaths(&mut self, now: Time) {
        if let MassExpiry::Retry(time) = self.mass
            && time <= now
        {
            self.ask_for_listing();
        }
        if self.failure_detection_suspended() {
            return;
        }
        if self
            .members
            .next_confirmation()
            .is_some_and(|time| time <= now)
        {
            for worker in self.members.confirm_dead(now) {
                self.report_dead(worker);
            }
        }
    }

    /// Closes a window at whose end nothing differs, without a publication. If the whole fleet died
    /// within the window, a cold start follows.
    pub(super) fn close_idle_window(&mut self, now: Time) {
        let Some(window) = self.window else { return };
        let restart = window.publishes == Reason::Restart;
        let gathering = window.is_gathering();
        let over = window.ends <= now && !(gathering && self.watch_lost_since.is_some());
        if gathering && over && !self.members.has_alive() && self.job.is_none() {
            self.declare_suspected_dead(now);
            self.close_window();
            return;
        }
        let settled = !self.members.differ() && !self.partitions_differ && !self.gap_at_start;
        let came_back = restart && self.members.suspected_count() == 0;
        let overdue = self
            .members
            .next_confirmation()
            .is_some_and(|time| time <= now);
        let nothing_to_do = settled && (came_back || (over && !(gathering && overdue)));
        if self.members.is_empty() || nothing_to_do {
            self.close_window();
        }
    }

    /// Who was to be replaced at the window's end is now to be replaced at once.
    pub(super) fn close_window(&mut self) {
        self.window = None;
        self.members.declare_removed_dead();
    }

    pub(super) fn declare_suspected_dead(&mut self, now: Time) {
        for worker in self.members.declare_suspected_dead(now) {
            self.report_dead(worker);
        }
    }

    /// Starts the most urgent job that is due.
    pub(super) fn work(&mut self, now: Time) {
        if self.job.is_some() || self.deposed || !self.taken_over {
            return;
        }
        if !self.triggers.is_empty() && !self.members.has_alive() {
            let no_workers = Error::new(
                Code::NoWorkers,
                "the last live worker left or was declared dead",
            );
            self.answer_triggers(self.triggers.len(), &Err(no_workers));
        }
        self.answer_changes();
        let Some(task) = self.tasks().find(|task| task.due <= now) else {
            return;
        };
        match task.kind {
            TaskKind::Probe => {
                self.start_job(Job::Probe, RunningJobKind::Probe { due: task.due });
            }
            TaskKind::Publish(work) => self.publish(now, work),
            TaskKind::Resolve => {
                let suspects = std::mem::take(&mut self.suspects);
                let job = Job::Resolve {
                    seen: suspects.writes.clone().into_iter().collect(),
                    applied: suspects.applied,
                };
                self.start_job(job, RunningJobKind::Resolve { suspects });
            }
            TaskKind::Inspect => {
                let tickets = self.inspect_tickets.len();
                self.start_job(Job::Inspect, RunningJobKind::Inspect { tickets });
            }
        }
    }

    /// Every job that could start while none runs, most urgent first, with the time from which it
    /// may start.
    fn tasks(&self) -> impl Iterator<Item = Task> {
        let has_store = self.breaker.is_closed();
        let probe = self.probe_due().map(|due| Task {
            due,
            kind: TaskKind::Probe,
        });
        let publish = self.pending_work().filter(move |_| has_store);
        let publish = publish.map(|work| Task {
            due: work.due,
            kind: TaskKind::Publish(work),
        });
        let resolve = (has_store && !self.suspects.is_empty()).then(|| Task {
            due: self.retry_at.unwrap_or(Time::ZERO),
            kind: TaskKind::Resolve,
        });
        let inspect =
            (self.inspect_wanted && !self.is_reading && self.source_ready).then(|| Task {
                due: self.inspect_retry_at.unwrap_or(Time::ZERO),
                kind: TaskKind::Inspect,
            });
        probe
            .into_iter()
            .chain(publish)
            .chain(resolve)
            .chain(inspect)
    }

    /// When [`CalculatorMachine::work`] will find a job, or a window will be shown, that is not
    /// yet due.
    pub(super) fn work_deadline(&self) -> Option<Time> {
        if self.job.is_some() || self.deposed || !self.taken_over {
            return None;
        }
        let starts = self.tasks().map(|task| task.due);
        let windows = self.pending_work().filter_map(|work| work.window);
        starts
            .chain(windows.map(|window| window.opens))
            .filter(|&time| time > self.now)
            .min()
    }

    /// When a store that is left alone is to be asked whether it is back.
    fn probe_due(&self) -> Option<Time> {
        self.breaker.probe_at()
    }

    /// A failure is over when what failed need not be done any more. A source that failed is
    /// read again until it works.
    pub(super) fn forget_resolved_failures(&mut self) {
        if self.health.source.is_some() && !self.inspect_wanted && !self.is_reading {
            self.inspect_wanted = true;
        }
        if self.job.is_none() && !self.is_anything_pending() {
            self.planless = None;
        }
        let has_failed = self.retry_at.is_some() || self.health.publishing.is_some();
        if !has_failed || self.job.is_some() || self.is_anything_pending() {
            return;
        }
        self.retry_at = None;
        self.retry_backoff.reset();
        self.health.publishing = None;
    }

    /// Whether anything is to be published or settled, now or when that becomes possible.
    pub(super) fn is_anything_pending(&self) -> bool {
        self.members.differ()
            || self.partitions_differ
            || self.gap_at_start
            || self.unfinished.is_some()
            || self.foreign_due.is_some()
            || !self.suspects.is_empty()
            || !self.triggers.is_empty()
    }

    pub(super) fn publish(&mut self, now: Time, work: Work) {
        let ends_gathering = |w: &Window| w.is_gathering() && w.publishes == work.reason;
        if self.window.as_ref().is_some_and(ends_gathering) && self.watch_lost_since.is_none() {
            self.declare_suspected_dead(now);
        }
        let retrying = self.retry_at.is_some();
        if let (Some(shown), CalculatorState::Idle, false) =
            (work.window, self.position.state, retrying)
        {
            self.transition(now, CalculatorState::Scaling, Some(shown.reason));
        }
        self.transition(now, work.state(), Some(work.reason));
        let workers: Arc<[WorkerId]> = self.members.wanted().into();
        let kind = RunningJobKind::Publish {
            reason: work.reason,
            triggers: self.triggers.len(),
        };
        self.members.publishing(Arc::clone(&workers));
        let job = Job::Publish {
            reason: work.reason,
            workers,
        };
        self.start_job(job, kind);
    }

    /// Shows an open window as `Scaling`, and a window that went away as `Idle`.
    pub(super) fn report_window(&mut self, now: Time) {
        if !matches!(
            self.position.state,
            CalculatorState::Idle | CalculatorState::Scaling
        ) {
            return;
        }
        let open = self
            .pending_work()
            .filter_map(|work| work.window)
            .find(|window| window.opens <= now)
            // Wait for the return of a fleet that disappeared, although nothing could be published.
            .or_else(|| self.restart_window())
            .filter(|_| !self.deposed);
        let shown = open.map(|window| window.reason);
        if self.position.state == CalculatorState::Scaling && self.position.reason != shown {
            self.transition(now, CalculatorState::Idle, None);
        }
        // After a failure the work is retried from Idle, without a new window.
        let retrying = self.retry_at.is_some();
        if self.position.state == CalculatorState::Idle && shown.is_some() && !retrying {
            self.transition(now, CalculatorState::Scaling, shown);
        }
    }

    /// A fleet that starts from no workers gets a cold-start window, counted from the first.
    pub(super) fn note_start_from_none(&mut self, now: Time, since: Time) {
        let in_restart = self.window.is_some_and(|w| w.publishes == Reason::Restart);
        // With some of the last workers dead and the rest still suspected it is no other story.
        let all_gone = self.members.differ() && !self.members.has_alive() && !in_restart;
        if self.taken_over && (all_gone || self.members.is_empty()) {
            if let Some(gathering) = &mut self.first_plan {
                gathering.first = since; // its first workers are gone, and it still has no plan
                return;
            }
            self.members.carry_over_removed();
            // What is to be repaired waits for the window, and is still to be repaired if that ends
            // without a publication because the old fleet is back.
            if std::mem::take(&mut self.gap_at_start) {
                self.unfinished.get_or_insert(Reason::ColdStart);
            }
            self.retry_at = None;
            self.open_window(now, since, Reason::ColdStart);
        }
    }

    pub(super) fn open_window(&mut self, now: Time, opened: Time, publishes: Reason) {
        self.window = Some(Window {
            publishes,
            opened: opened.min(now),
            ends: opened + self.config.cold_start_window,
        });
    }

    pub(super) fn is_mass(&self, absent: usize) -> bool {
        is_mass(
            absent,
            self.members.planned().len(),
            self.config.restart_ratio,
        )
    }

    pub(super) fn is_worth_a_plan(&self, finding: Finding) -> bool {
        match finding {
            Finding::Same => false,
            Finding::Changed => true,
            Finding::Reweighted { excess } => excess > self.config.min_rebalance_threshold,
        }
    }

    pub(super) fn ask_for_listing(&mut self) {
        let op = self.new_op();
        self.mass = MassExpiry::Listing(op);
        self.actions.push_back(CalculatorAction::List { op });
    }

    pub(super) fn report_dead(&mut self, worker: WorkerId) {
        self.notify(CalculatorEvent::Member {
            change: MemberChange::Dead,
            worker,
        });
    }

    /// These workers have been replaced in the plan. Their leases are kept until then, so that one
    /// that returns is reported as returned and not as joined.
    pub(super) fn forget(&mut self, workers: impl IntoIterator<Item = WorkerId>) {
        for worker in workers {
            self.actions.push_back(CalculatorAction::Forget(worker));
        }
    }

    pub(super) fn start_job(&mut self, job: Job, kind: RunningJobKind) {
        let op = self.new_op();
        self.job = Some(RunningJob {
            op,
            kind,
            started: self.now,
            has_list_changed: false,
        });
        self.actions.push_back(CalculatorAction::Start { op, job });
    }

    pub(super) fn new_op(&mut self) -> OpId {
        self.next_op += 1;
        OpId(self.next_op)
    }

    pub(super) fn transition(&mut self, now: Time, to: CalculatorState, reason: Option<Reason>) {
        let from = self.position.state;
        if !is_legal(from, to) {
            log::error!(target: "divvy::calculator", "illegal transition {from} -> {to} rejected");
            debug_assert!(false, "illegal move {from} -> {to}");
            return;
        }
        self.position = Position {
            state: to,
            reason,
            since: now,
        };
        self.notify(CalculatorEvent::StateChanged(StateChange {
            from,
            to,
            reason,
            version: self.version,
            time: now,
        }));
    }

    pub(super) fn answer_triggers(&mut self, count: usize, result: &Result<Version>) {
        // Fewer if the waiting callers have already been notified of the end of the term.
        let count = count.min(self.triggers.len());
        for ticket in self.triggers.drain(..count).collect::<Vec<_>>() {
            self.reply(ticket, result.clone());
        }
    }

    pub(super) fn reply(&mut self, ticket: Ticket, result: Result<Version>) {
        self.actions
            .push_back(CalculatorAction::Reply { ticket, result });
    }

    pub(super) fn notify(&mut self, notice: CalculatorEvent) {
        self.actions.push_back(CalculatorAction::Notify(notice));
    }
}

//! When the partition source is read, what follows from it, and what follows when no plan can be
//! made.

use super::{CalculatorMachine, Finding, RunningJobKind, SourceOutcome};
use crate::error::{Code, Error};
use crate::types::{Time, Version};

impl CalculatorMachine {
    /// Asks for the list again once it is older than the setting says.
    pub(super) fn refresh_list(&mut self, now: Time) {
        if self.refresh_due().is_some_and(|due| due <= now) {
            self.refresh_at = None;
            self.inspect_wanted = true;
        }
    }

    /// When the source is to be read again although nothing has changed.
    pub(super) fn refresh_due(&self) -> Option<Time> {
        self.refresh_at.filter(|_| !self.deposed)
    }

    /// The newest list was read.
    pub(super) fn list_was_read(&mut self, now: Time) {
        self.inspect_wanted = false;
        self.is_reading = false;
        self.inspect_retry_at = None;
        self.inspect_backoff.reset();
        let interval = self.config.source_refresh_interval;
        self.refresh_at = (!interval.is_zero()).then(|| now + interval);
    }

    /// A publication has read the source.
    pub(super) fn source_used(&mut self, now: Time, source: &SourceOutcome, is_newest: bool) {
        match source {
            SourceOutcome::Returned if is_newest => {
                self.health.source = None;
                self.list_was_read(now);
            }
            SourceOutcome::Returned => {
                self.health.source = None;
                self.ask_again_if_reading();
            }
            SourceOutcome::Failed(why) => {
                self.health.source = Some(why.clone());
                self.ask_again_if_reading();
            }
            // A list that it returned during the publication has not been read yet.
            SourceOutcome::Running => {}
        }
    }

    /// A publication may have received the result of the call in progress, whose return is not
    /// reported then.
    pub(super) fn ask_again_if_reading(&mut self) {
        if std::mem::take(&mut self.is_reading) {
            self.inspect_wanted = true;
        }
    }

    /// The list of this change was compared with the plan.
    pub(super) fn inspected(
        &mut self,
        now: Time,
        tickets: usize,
        generation: u64,
        finding: Finding,
    ) {
        self.health.source = None;
        self.list_was_read(now);
        if std::mem::take(&mut self.waits_for_list) {
            // There is a list now: what failed without one is tried at once.
            self.retry_at = None;
            self.retry_backoff.reset();
        }
        let differed = self.partitions_differ;
        self.partitions_differ = self.is_worth_a_plan(finding);
        if self.partitions_differ && !differed {
            self.partitions_differ_since = now;
        }
        let tickets = tickets.min(self.inspect_tickets.len());
        let (covered, later): (Vec<_>, Vec<_>) = self
            .inspect_tickets
            .drain(..tickets)
            .partition(|&(_, wanted)| wanted <= generation);
        self.inspect_tickets.extend(later);
        self.change_tickets.extend(covered);
        let asked_again = !self.inspect_tickets.is_empty();
        self.inspect_wanted = generation < self.generation_wanted || asked_again;
    }

    /// Answers the callers whose change is part of the plan in force, or is not published since there
    /// is no worker. A change may be reverted while they wait for its publication.
    pub(super) fn answer_changes(&mut self) {
        if !self.partitions_differ {
            for (ticket, _) in std::mem::take(&mut self.change_tickets) {
                self.reply(ticket, Ok(self.version));
            }
        } else if !self.members.has_alive() {
            self.refuse_changes(&no_workers());
        }
    }

    /// A version was published that contains the list as of this change.
    pub(super) fn answer_refreshes(&mut self, generation: u64, version: Version) {
        let waiting = std::mem::take(&mut self.inspect_tickets).into_iter();
        let waiting = waiting.chain(std::mem::take(&mut self.change_tickets));
        let (covered, later): (Vec<_>, _) = waiting.partition(|&(_, wanted)| wanted <= generation);
        self.inspect_tickets = later;
        for (ticket, _) in covered {
            self.reply(ticket, Ok(version));
        }
        self.inspect_wanted |= !self.inspect_tickets.is_empty() && !self.is_reading;
    }

    /// The list that these callers wait for cannot be read.
    pub(super) fn refuse_refreshes(&mut self, count: usize, error: &Error) {
        for (ticket, _) in self.inspect_tickets.drain(..count).collect::<Vec<_>>() {
            self.reply(ticket, Err(error.clone()));
        }
    }

    /// The change that these callers wait for is not published now.
    pub(super) fn refuse_changes(&mut self, error: &Error) {
        for (ticket, _) in std::mem::take(&mut self.change_tickets) {
            self.reply(ticket, Err(error.clone()));
        }
    }

    /// A publication failed: notes whether that is because no plan could be made.
    pub(super) fn note_planning(&mut self, now: Time, error: &Error) {
        let is_host = matches!(
            error.code(),
            Code::SourceFailed | Code::StrategyFailed | Code::InvalidPlan
        );
        self.waits_for_list = error.code() == Code::SourceFailed;
        if is_host {
            let since = self.planless.take().map_or(now, |(since, _)| since);
            self.planless = Some((since, error.to_string()));
        } else {
            self.planless = None;
        }
    }

    /// Why no plan could be made for longer than [`CalculatorConfig::planning_timeout`].
    ///
    /// [`CalculatorConfig::planning_timeout`]: crate::CalculatorConfig::planning_timeout
    pub(super) fn planning_failure(&self, now: Time) -> Option<String> {
        let due = self.planning_due()?;
        if now < due {
            return None;
        }
        let why = self.planless.as_ref().map(|(_, why)| why.clone());
        Some(why.unwrap_or_else(|| "a rebalance has not returned from the host's code".into()))
    }

    /// When [`CalculatorMachine::planning_failure`] is to be checked.
    pub(super) fn planning_deadline(&self) -> Option<Time> {
        self.planning_due().filter(|&due| due > self.now)
    }

    /// When it has been too long since a plan could be made, or since its making began.
    fn planning_due(&self) -> Option<Time> {
        if self.config.planning_timeout.is_zero() || self.deposed {
            return None;
        }
        let running = self.job.as_ref();
        let running = running.filter(|job| matches!(job.kind, RunningJobKind::Publish { .. }));
        let since = self.planless.as_ref().map(|&(since, _)| since);
        let since = since.or(running.map(|job| job.started))?;
        Some(since + self.config.planning_timeout)
    }
}

/// The error of a caller whose change waits for a worker.
fn no_workers() -> Error {
    Error::new(
        Code::NoWorkers,
        "no live worker; the change is published when one joins",
    )
}

//! Reactions to the election, and to the calculator's reports while this worker leads.

use super::{
    CalculatorReport, Component, Leadership, ManagerAction, ManagerEvent, ManagerMachine,
    ManagerPhase,
};
use crate::error::{Code, Error, ErrorClass};
use crate::machine::election::ElectionEvent;
use crate::store::WatchEvent;
use crate::types::{CalculatorState, Time};

/// Publications in a row that may fail for a permanent reason before the leader resigns.
const PUBLISH_FAILURES_MAX: u32 = 3;

impl ManagerMachine {
    pub(super) fn handle_election_events(&mut self) {
        while let Some(event) = self.election.poll_event() {
            match event {
                ElectionEvent::Won | ElectionEvent::Lost(_) | ElectionEvent::Leader(_) => {
                    self.report_leader();
                }
                ElectionEvent::Failed(error) => self.report(Component::Election, error),
            }
        }
        self.lead_or_follow();
    }

    /// Runs the calculator exactly while this worker owns the lease.
    fn lead_or_follow(&mut self) {
        let leads = self.election.is_leader() && matches!(self.phase, ManagerPhase::Working);
        match (leads, self.lead) {
            (true, Leadership::No) => {
                if let Some(worker) = self.id.worker().cloned() {
                    self.lead = Leadership::Taking(CalculatorState::Idle);
                    self.actions.push_back(ManagerAction::Lead(worker));
                }
            }
            (false, Leadership::Taking(_) | Leadership::Working(_)) => self.step_down(),
            // The host's code keeps the last calculator from ending: a lease without a calculator is
            // of no use to the fleet.
            (true, Leadership::Ending) => {
                let timeout = self.config.election_timeout;
                if self.now.since(self.ending_since) >= timeout {
                    self.election.back_off(self.now, timeout * 2);
                }
            }
            _ => {}
        }
    }

    pub(super) fn step_down(&mut self) {
        self.lead = Leadership::Ending;
        self.ending_since = self.now;
        self.actions.push_back(ManagerAction::StepDown);
    }

    pub(super) fn calculator(&mut self, now: Time, event: CalculatorReport) {
        match (event, self.lead) {
            (CalculatorReport::Ended, _) => self.lead = Leadership::No,
            (CalculatorReport::Published(reached), _) => {
                self.publish_failures = 0;
                // The publication replaces what the bucket lost before.
                self.seen_revision = 0;
                self.heart.raise(reached);
            }
            (CalculatorReport::PublishFailed(error), Leadership::Working(_)) => {
                self.publish_failed(now, error);
            }
            (CalculatorReport::Started(reached), Leadership::Taking(state)) => {
                self.back_off.reset();
                self.heart.raise(reached);
                self.succeeded(Component::Calculator);
                self.lead = Leadership::Working(state);
            }
            (CalculatorReport::State(state), Leadership::Taking(_)) => {
                self.lead = Leadership::Taking(state)
            }
            (CalculatorReport::State(state), Leadership::Working(_)) => {
                self.lead = Leadership::Working(state)
            }
            (CalculatorReport::Deposed, Leadership::Taking(_) | Leadership::Working(_)) => {
                let error = Error::new(
                    Code::Fenced,
                    "another leader has taken over, or the fence was removed; this worker stopped leading",
                );
                self.give_up_leading(now, error);
            }
            (
                CalculatorReport::CannotPlan(error),
                Leadership::Taking(_) | Leadership::Working(_),
            ) => {
                let text = "resigned leadership: another worker tries";
                let code = error.code();
                self.give_up_leading(now, Error::new(code, text).caused_by(error));
                self.election
                    .back_off(now, self.config.election_timeout * 2);
            }
            (CalculatorReport::Failed(error), Leadership::Taking(_) | Leadership::Working(_)) => {
                self.give_up_leading(now, error);
            }
            _ => {} // reports of a calculator that is already stopping
        }
    }

    /// A leader that cannot publish resigns, so that another worker tries.
    fn publish_failed(&mut self, now: Time, error: Error) {
        if !matches!(error.class(), ErrorClass::Permanent | ErrorClass::Invalid) {
            self.publish_failures = 0;
            return;
        }
        self.publish_failures += 1;
        if self.publish_failures < PUBLISH_FAILURES_MAX {
            return;
        }
        let text = format!(
            "resigned leadership: {PUBLISH_FAILURES_MAX} publications in a row failed, and the \
             cause is permanent; another worker tries"
        );
        self.give_up_leading(now, Error::new(error.code(), text).caused_by(error));
        // Longer than another worker takes to be elected.
        self.election
            .back_off(now, self.config.election_timeout * 2);
    }

    /// Resigns, so that another worker can try.
    fn give_up_leading(&mut self, now: Time, error: Error) {
        self.publish_failures = 0;
        if error.key() == Some(self.assignment_prefix.v2_commit_key().as_str()) {
            self.abstain(now, error);
            return self.step_down();
        }
        self.failing.insert(Component::Calculator, error.class());
        self.last_failure = Some(error.clone());
        self.notify(ManagerEvent::Failed { error });
        let pause = self.back_off.next_delay();
        self.election.back_off(now, pause);
        self.step_down();
    }

    pub(super) fn lease_watched(&mut self, now: Time, event: &WatchEvent) {
        self.election.watched(now, event);
        let is_disconnected = matches!(event, WatchEvent::Disconnected(_));
        if !is_disconnected && self.election.leader().is_some() && !self.election.is_leader() {
            // A worker that follows asks nothing more, so no answer would end this failure.
            self.succeeded(Component::Election);
        }
    }

    fn report_leader(&mut self) {
        if self.election.leader().is_some() && !self.election.is_leader() {
            // Another leader is at work, so this failure is over.
            self.succeeded(Component::Calculator);
        }
        let notice = ManagerEvent::Leader {
            leader: self.election.leader().cloned(),
            is_self: self.election.is_leader(),
        };
        self.notify(notice);
    }
}

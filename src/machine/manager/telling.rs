//! What is told of a manager: its state, its outages, and what it sees of its assignment.

use super::{Lead, Manager, ManagerChange, ManagerNotice, Phase};
use crate::machine::breaker::BreakerState;
use crate::machine::outage::OutageEvent;
use crate::store::WatchEvent;
use crate::types::{ManagerState, State, Time};

impl Manager {
    pub(super) fn judge_sight(&mut self, now: Time) {
        let is_blind = self.blind_since.is_some();
        let blind = is_blind.then(|| "assignments are out of sight".to_owned());
        let fault = self.store_fault.clone().or(blind);
        self.outage.set_fault(now, fault);
        self.tell_outage();
    }

    pub(super) fn tell_outage(&mut self) {
        while let Some(event) = self.outage.poll_event() {
            self.notify(match event {
                OutageEvent::Begins(why) => ManagerNotice::Degraded { why },
                OutageEvent::Alert { level, lasted } => ManagerNotice::Alert { level, lasted },
                OutageEvent::Ends { lasted } => ManagerNotice::Recovered { lasted },
            });
        }
    }

    pub(super) fn breaker_changed(&mut self, state: BreakerState) {
        // One that is open and is to be probed sooner has not changed.
        if state.name() != self.breaker.name() {
            self.notify(ManagerNotice::Breaker(state.clone()));
        }
        self.breaker = state;
    }

    pub(super) fn tell_state(&mut self, now: Time) {
        let state = self.present_state();
        if state == self.told {
            return;
        }
        let change = ManagerChange {
            from: self.told,
            to: state,
            time: now,
        };
        self.told = state;
        self.since = now;
        self.notify(ManagerNotice::StateChanged(change));
    }

    fn present_state(&self) -> ManagerState {
        match self.phase {
            Phase::Departing(_) | Phase::Departed => return ManagerState::Shutdown,
            _ if self.assignments.is_recalled() => return ManagerState::Degraded,
            Phase::Created | Phase::Ensuring { .. } => return ManagerState::Init,
            Phase::Working => {}
        }
        if self.outage.has_begun() || self.has_lapsed {
            return ManagerState::Degraded;
        }
        if self.id.worker().is_none() {
            return ManagerState::ClaimingId;
        }
        match self.lead {
            Lead::Working(State::Scaling) => return ManagerState::Scaling,
            Lead::Working(State::Rebalancing) => return ManagerState::Rebalancing,
            Lead::Working(State::Emergency) => return ManagerState::Emergency,
            _ => {}
        }
        let owns = self.assignments.has_one() && !self.assignments.is_suspended();
        match (owns, self.election.leader()) {
            (true, _) => ManagerState::Stable,
            (false, Some(_)) => ManagerState::WaitingAssignment,
            (false, None) => ManagerState::Election,
        }
    }

    pub(super) fn assignment_watched(&mut self, now: Time, event: &WatchEvent) {
        match event {
            WatchEvent::Change(entry) => return self.assignment_seen(entry),
            WatchEvent::Live => {
                self.blind_since = None;
                if self.assignments.is_recalled() {
                    // All that is stored has been delivered: there is no assignment.
                    let change = self.assignments.gone();
                    self.tell_assignment(change);
                }
            }
            WatchEvent::Blind(_) => {
                self.blind_since.get_or_insert(now);
            }
        }
        self.judge_sight(now);
    }
}

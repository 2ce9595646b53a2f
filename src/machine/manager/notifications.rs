//! What is reported of a manager: its state, its outages, and what it sees of its assignment.

use super::{Leadership, ManagerChange, ManagerEvent, ManagerMachine, ManagerPhase};
use crate::machine::breaker::BreakerCondition;
use crate::machine::outage::OutageEvent;
use crate::store::WatchEvent;
use crate::types::{CalculatorState, ManagerState, Time};

impl ManagerMachine {
    pub(super) fn update_watch_health(&mut self, now: Time) {
        let is_lost = self.watch_lost_since.is_some();
        let lost = is_lost.then(|| "assignment watch lost".to_owned());
        let fault = self.store_fault.clone().or(lost);
        self.outage.set_fault(now, fault);
        self.report_outage();
    }

    pub(super) fn report_outage(&mut self) {
        while let Some(event) = self.outage.poll_event() {
            self.notify(match event {
                OutageEvent::Begins(why) => ManagerEvent::Degraded { why },
                OutageEvent::Alert { level, lasted } => ManagerEvent::Alert { level, lasted },
                OutageEvent::Ends { lasted } => ManagerEvent::Recovered { lasted },
            });
        }
    }

    pub(super) fn breaker_changed(&mut self, state: BreakerCondition) {
        // One that is open and is to be probed sooner has not changed.
        if state.state != self.breaker.state {
            self.notify(ManagerEvent::Breaker(state.clone()));
        }
        self.breaker = state;
    }

    pub(super) fn report_state(&mut self, now: Time) {
        let state = self.derived_state();
        if state == self.reported {
            return;
        }
        let change = ManagerChange {
            from: self.reported,
            to: state,
            time: now,
        };
        self.reported = state;
        self.since = now;
        self.notify(ManagerEvent::StateChanged(change));
    }

    fn derived_state(&self) -> ManagerState {
        match self.phase {
            ManagerPhase::Departing(_) | ManagerPhase::Departed => return ManagerState::Shutdown,
            _ if self.assignments.is_recalled() => return ManagerState::Degraded,
            ManagerPhase::Created | ManagerPhase::Ensuring { .. } | ManagerPhase::Surveying(_) => {
                return ManagerState::Init;
            }
            ManagerPhase::Working => {}
        }
        if self.outage.has_begun() || self.has_lapsed {
            return ManagerState::Degraded;
        }
        if self.id.worker().is_none() {
            return ManagerState::ClaimingId;
        }
        match self.lead {
            Leadership::Working(CalculatorState::Scaling) => return ManagerState::Scaling,
            Leadership::Working(CalculatorState::Rebalancing) => return ManagerState::Rebalancing,
            Leadership::Working(CalculatorState::Emergency) => return ManagerState::Emergency,
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
                if self.watch_lost_since.take().is_some() {
                    self.store_returned = Some(now);
                }
                if self.assignments.is_recalled() {
                    // All that is stored has been delivered: there is no assignment.
                    let change = self.assignments.gone();
                    self.report_assignment(change);
                }
            }
            WatchEvent::Disconnected(_) => {
                self.watch_lost_since.get_or_insert(now);
            }
        }
        self.update_watch_health(now);
    }
}

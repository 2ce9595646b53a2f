//! Orderly leave: the calculator stops first, then heartbeat and lease are released, the id last,
//! so that no process takes an id whose previous owner is still active.

use super::{Departure, Leadership, ManagerAction, ManagerMachine, ManagerPhase};
use crate::types::Time;

/// How far the departure is.
#[derive(Debug)]
pub(super) struct Departing {
    how: Departure,
    step: DepartureStep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DepartureStep {
    /// Until no calculator of this worker can publish.
    Calculator,
    /// Until the heartbeat key and the lease are done with.
    Announcement,
    /// Until the id is released and the cache file is updated.
    Id,
}

impl ManagerMachine {
    pub(super) fn depart(&mut self, now: Time, how: Departure) {
        match self.phase {
            ManagerPhase::Departing(_) | ManagerPhase::Departed => return,
            // Nothing was claimed: what is under way leads to nothing.
            ManagerPhase::Created
            | ManagerPhase::Ensuring { .. }
            | ManagerPhase::Surveying(_)
            | ManagerPhase::Working => {}
        }
        self.depart_cached(now, how);
        self.phase = ManagerPhase::Departing(Departing {
            how,
            step: DepartureStep::Calculator,
        });
        if matches!(self.lead, Leadership::Taking(_) | Leadership::Working(_)) {
            self.step_down();
        }
        // The host requested it; other listeners are notified.
        let change = self.assignments.suspend();
        self.report_assignment(change);
    }

    pub(super) fn continue_departure(&mut self, now: Time) {
        loop {
            let ManagerPhase::Departing(Departing { how, step }) = &mut self.phase else {
                return;
            };
            let is_certain = self.id.certain_until().is_some_and(|until| now < until);
            if !is_certain {
                // Not the key of a possible new owner of the id.
                self.heart.set_worker(None);
            }
            match step {
                DepartureStep::Calculator if self.lead == Leadership::No => {
                    *step = DepartureStep::Announcement;
                    match how {
                        Departure::Leave => self.heart.leave(),
                        // Renew the lease, so that the worker has a full TTL to return.
                        Departure::Restart => self.heart.beat_now(),
                    }
                    self.election.resign();
                }
                DepartureStep::Announcement
                    if self.heart.is_settled() && self.election.is_settled() =>
                {
                    *step = DepartureStep::Id;
                    self.heart.set_worker(None);
                    let is_kept = *how == Departure::Restart;
                    self.id.release(is_kept);
                }
                DepartureStep::Id if self.id.is_released() && self.cache.is_settled() => {
                    self.phase = ManagerPhase::Departed;
                    self.actions.push_back(ManagerAction::Departed);
                }
                DepartureStep::Calculator | DepartureStep::Announcement | DepartureStep::Id => {
                    return;
                }
            }
        }
    }
}

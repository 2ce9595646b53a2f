//! Leaving well: the calculator ends first, then the heartbeat key and the lease go, the id last,
//! so that nobody takes an id whose former holder is not gone yet.

use super::{Action, Departure, Lead, Manager, Phase};
use crate::types::Time;

/// How far the departure is.
#[derive(Debug)]
pub(super) struct Departing {
    how: Departure,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Until no calculator of this worker can publish.
    Calculator,
    /// Until the heartbeat key and the lease are done with.
    Announcement,
    /// Until the id is given back, and the cache file is as it shall be.
    Id,
}

impl Manager {
    pub(super) fn depart(&mut self, now: Time, how: Departure) {
        match self.phase {
            Phase::Departing(_) | Phase::Departed => return,
            // Nothing was claimed: what is under way leads to nothing.
            Phase::Created | Phase::Ensuring { .. } | Phase::Working => {}
        }
        self.depart_cached(now, how);
        self.phase = Phase::Departing(Departing {
            how,
            step: Step::Calculator,
        });
        if matches!(self.lead, Lead::Taking(_) | Lead::Working(_)) {
            self.step_down();
        }
        // The host has asked for it; whoever else listens is told.
        let change = self.assignments.suspend();
        self.tell_assignment(change);
    }

    pub(super) fn go_on_departing(&mut self, now: Time) {
        loop {
            let Phase::Departing(Departing { how, step }) = &mut self.phase else {
                return;
            };
            let is_certain = self.id.certain_until().is_some_and(|until| now < until);
            if !is_certain {
                // Not the key of whoever may have the id now.
                self.heart.set_worker(None);
            }
            match step {
                Step::Calculator if self.lead == Lead::No => {
                    *step = Step::Announcement;
                    match how {
                        Departure::Leave => self.heart.leave(),
                        // The lease at the leader is whole when this worker goes.
                        Departure::Keep => self.heart.beat_now(),
                    }
                    self.election.resign();
                }
                Step::Announcement if self.heart.is_settled() && self.election.is_settled() => {
                    *step = Step::Id;
                    self.heart.set_worker(None);
                    let is_kept = *how == Departure::Keep;
                    self.id.release(is_kept);
                }
                Step::Id if self.id.is_released() && self.cache.is_settled() => {
                    self.phase = Phase::Departed;
                    self.actions.push_back(Action::Departed);
                }
                Step::Calculator | Step::Announcement | Step::Id => return,
            }
        }
    }
}

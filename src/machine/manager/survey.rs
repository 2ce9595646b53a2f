//! Before a worker claims an id it checks whose fleet it is about to join.
//!
//! In a fleet of parti v2 the record `<prefix>._commit` decides. divvy does not write it yet: it
//! follows such a leader and never leads. Where that fleet hands partitions over in two phases,
//! divvy does not join, because the losing worker would wait forever for a claim that divvy does
//! not write.

use std::time::Duration;

use super::{Component, ManagerMachine, ManagerPhase};
use crate::error::{Code, Error};
use crate::machine::request::{Answer, Request};
use crate::store::{Bucket, Entry};
use crate::types::Time;
use crate::wire::{self, PARTI_HANDOFF};

/// Pause after a check that failed.
const RETRY: Duration = Duration::from_millis(200);

/// Pause until a fleet that this worker cannot join is checked again.
const RECHECK: Duration = Duration::from_secs(1);

/// What is being checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Survey {
    step: SurveyStep,
    due: Time,
    is_asking: bool,
}

/// What is asked for next. Each answer that finds nothing to object to leads to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SurveyStep {
    /// The commit record. Without it there is no fleet of parti v2.
    Commit,
    /// The claims of a two-phase hand-over.
    Claims,
    /// The capabilities in the heartbeats.
    Heartbeats,
}

impl Survey {
    pub(super) fn new(now: Time) -> Self {
        Self {
            step: SurveyStep::Commit,
            due: now,
            is_asking: false,
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        (!self.is_asking).then_some(self.due)
    }
}

impl ManagerMachine {
    pub(super) fn ask_about_fleet(&mut self, now: Time) {
        let ManagerPhase::Surveying(survey) = &mut self.phase else {
            return;
        };
        if survey.is_asking || survey.due > now {
            return;
        }
        survey.is_asking = true;
        let request = match survey.step {
            SurveyStep::Heartbeats => Request::List(Bucket::Heartbeat),
            SurveyStep::Claims => Request::CountClaims,
            SurveyStep::Commit => Request::Read {
                bucket: Bucket::Assignment,
                key: self.assignment_prefix.v2_commit_key(),
            },
        };
        self.request(Component::Fleet, request);
    }

    pub(super) fn surveyed(&mut self, now: Time, answer: Answer) {
        let key = self.assignment_prefix.v2_commit_key();
        let ManagerPhase::Surveying(survey) = &mut self.phase else {
            return; // stopped meanwhile
        };
        survey.is_asking = false;
        survey.due = now + RETRY;
        match answer {
            Answer::Read(Ok(Some(entry))) if entry.is_live() && entry.key == key => {
                (survey.step, survey.due) = (SurveyStep::Claims, now);
            }
            Answer::Claims(Ok(count)) if count > 0 => {
                let key = PARTI_HANDOFF.to_owned();
                self.refuse_to_join(now, two_phase(key));
            }
            Answer::Claims(Ok(_)) => (survey.step, survey.due) = (SurveyStep::Heartbeats, now),
            // Without permission to read the bucket, the heartbeats decide.
            Answer::Claims(Err(error)) if error.code() == Code::Unauthorized => {
                (survey.step, survey.due) = (SurveyStep::Heartbeats, now);
            }
            Answer::Read(Ok(_)) => self.join(),
            // A worker that may not read the record cannot lead either.
            Answer::Read(Err(error)) if error.code() == Code::Unauthorized => self.join(),
            Answer::Listed(Ok(listing)) => {
                let runs_two_phase =
                    |entry: &Entry| entry.is_live() && wire::runs_two_phase(&entry.value);
                if let Some(entry) = listing.entries.iter().find(|e| runs_two_phase(e)) {
                    let key = entry.key.clone();
                    return self.refuse_to_join(now, two_phase(key));
                }
                self.join();
                self.abstain(now, wire::foreign_commit(&key));
            }
            _ => {}
        }
    }

    /// Reports why this worker does not join, and checks again later.
    fn refuse_to_join(&mut self, now: Time, error: Error) {
        if let ManagerPhase::Surveying(survey) = &mut self.phase {
            (survey.step, survey.due) = (SurveyStep::Commit, now + RECHECK);
        }
        self.report(Component::Fleet, error);
    }

    fn join(&mut self) {
        self.succeeded(Component::Fleet);
        self.phase = ManagerPhase::Working;
        self.id.claim();
    }

    /// Never leads again, and says why once it has joined: a failed event before that would end
    /// the start.
    pub(super) fn abstain(&mut self, now: Time, error: Error) {
        self.election.back_off(now, Duration::MAX);
        self.abstains = Some(error);
        if self.has_joined {
            self.report_abstention();
        }
    }

    pub(super) fn report_abstention(&mut self) {
        if let Some(error) = self.abstains.clone() {
            self.report(Component::Fleet, error);
        }
    }
}

fn two_phase(key: String) -> Error {
    Error::new(
        Code::Unsupported,
        "this fleet of parti v2 hands partitions over in two phases, which divvy does not speak: \
         it does not join; turn two-phase hand-over off and delete the bucket parti-handoff, or stop \
         the workers of parti v2 first",
    )
    .with_operation("join")
    .with_key(key)
}

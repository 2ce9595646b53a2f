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
use crate::wire;

/// Pause after a check that failed.
const RETRY: Duration = Duration::from_millis(200);

/// Pause until a fleet that this worker cannot join is checked again.
const RECHECK: Duration = Duration::from_secs(1);

/// What is being checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Survey {
    /// The commit record was found: the heartbeats are read next.
    has_commit: bool,
    due: Time,
    is_asking: bool,
}

impl Survey {
    pub(super) fn new(now: Time) -> Self {
        Self {
            has_commit: false,
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
        let request = match survey.has_commit {
            true => Request::List(Bucket::Heartbeat),
            false => Request::Read {
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
                survey.has_commit = true;
                survey.due = now;
            }
            Answer::Read(Ok(_)) => self.join(),
            // A worker that may not read the record cannot lead either.
            Answer::Read(Err(error)) if error.code() == Code::Unauthorized => self.join(),
            Answer::Listed(Ok(listing)) => {
                let runs_two_phase =
                    |entry: &Entry| entry.is_live() && wire::runs_two_phase(&entry.value);
                if let Some(entry) = listing.entries.iter().find(|e| runs_two_phase(e)) {
                    survey.has_commit = false;
                    survey.due = now + RECHECK;
                    let error = two_phase(&entry.key);
                    return self.report(Component::Fleet, error);
                }
                self.join();
                self.abstain(now, wire::foreign_commit(&key));
            }
            _ => {}
        }
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

fn two_phase(key: &str) -> Error {
    Error::new(
        Code::Unsupported,
        "this fleet of parti v2 hands partitions over in two phases, which divvy does not speak: \
         it does not join; turn two-phase hand-over off, or stop the workers of parti v2 first",
    )
    .with_operation("join")
    .with_key(key.to_owned())
}

//! What `dv-member` does, as metrics are told of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Code;
use crate::machine::manager::{Event, ManagerNotice};
use crate::machine::request::{Answer, Request, Value};
use crate::metrics::{
    IdClaim, LeadershipChange, ManagerMetrics, NoMetrics, Success, WorkerMetrics,
};
use crate::runtime::telling::Telling;
use crate::store::{Outcome, Refusal, WatchEvent};
use crate::types::{ManagerState, Time};
use crate::wire::Assignment;

/// The metrics of one manager.
#[derive(Clone)]
pub(super) struct ManagerTelling {
    pub manager: Arc<dyn ManagerMetrics>,
    pub worker: Arc<dyn WorkerMetrics>,
    /// Of its calculator, while it leads; `None`: nobody listens.
    pub calculator: Option<Telling>,
}

impl Default for ManagerTelling {
    fn default() -> Self {
        Self {
            manager: Arc::new(NoMetrics),
            worker: Arc::new(NoMetrics),
            calculator: None,
        }
    }
}

/// What is remembered of a life to tell of it.
pub(super) struct Measures {
    telling: ManagerTelling,
    interval: Duration,
    state: ManagerState,
    state_since: Time,
    is_leader: bool,
    refused: u64,
    last_beat: Option<Time>,
}

/// A request whose answer is told.
#[derive(Clone, Copy)]
pub(super) enum Asked {
    Beat,
    Claim { is_renewal: bool },
    Other,
}

impl Measures {
    pub fn new(telling: ManagerTelling, interval: Duration, now: Time) -> Self {
        Self {
            telling,
            interval,
            state: ManagerState::Init,
            state_since: now,
            is_leader: false,
            refused: 0,
            last_beat: None,
        }
    }

    pub fn telling(&self) -> ManagerTelling {
        self.telling.clone()
    }

    /// Before the machine takes it in.
    pub fn event(&self, event: &Event) {
        if let Event::Assignment(WatchEvent::Change(entry)) = event
            && entry.is_live()
            && let Ok(assignment) = Assignment::decode(&entry.value)
        {
            self.telling.worker.assignment_seen(assignment.version);
        }
    }

    /// How many assignments the machine has refused by now.
    pub fn refused(&mut self, refused: u64) {
        for _ in self.refused..refused {
            self.telling.worker.assignment_refused();
        }
        self.refused = refused;
    }

    /// `begun`: when what led to it was taken in.
    pub fn notice(&mut self, notice: &ManagerNotice, begun: Instant) {
        let manager = &self.telling.manager;
        match notice {
            ManagerNotice::StateChanged(change) => {
                let spent = change.time.since(self.state_since);
                self.state = change.to;
                self.state_since = change.time;
                manager.state_changed(change.from, change.to, spent);
            }
            ManagerNotice::Leader { is_self, .. } if *is_self != self.is_leader => {
                self.is_leader = *is_self;
                manager.leadership_changed(match (is_self, self.state) {
                    (true, _) => LeadershipChange::Gained,
                    (false, ManagerState::Shutdown) => LeadershipChange::Released,
                    (false, _) => LeadershipChange::Lost,
                });
            }
            ManagerNotice::IdLost { .. } => manager.id_claim(IdClaim::Lost),
            ManagerNotice::Failed { error } if error.code() == Code::IdsExhausted => {
                manager.id_claim(IdClaim::Exhausted);
            }
            ManagerNotice::AssignmentChanged(change) => {
                self.telling.worker.assignment_applied(
                    change.held.version,
                    change.added.len(),
                    change.removed.len(),
                    begun.elapsed(),
                );
            }
            _ => {}
        }
    }

    /// Takes note of a request that is about to be made.
    pub fn request(&mut self, now: Time, request: &Request, has_id: bool) -> Asked {
        match request {
            Request::Put {
                value: Value::Beat(..),
                ..
            } => {
                // A quarter of the interval is what a busy machine may take.
                let late = self.last_beat.map_or(Duration::ZERO, |last| {
                    now.since(last).saturating_sub(self.interval)
                });
                if late > self.interval / 4 {
                    self.telling.worker.heartbeat_late(late);
                }
                self.last_beat = Some(now);
                Asked::Beat
            }
            Request::Put {
                value: Value::Claim(_),
                ..
            } => Asked::Claim { is_renewal: has_id },
            _ => Asked::Other,
        }
    }

    /// The life is over: whoever led hands that over.
    pub fn ended(&mut self) {
        if std::mem::take(&mut self.is_leader) {
            let manager = &self.telling.manager;
            manager.leadership_changed(LeadershipChange::Released);
        }
    }
}

impl ManagerTelling {
    /// An answer has come, on whatever thread.
    pub fn answered(&self, asked: Asked, answer: &Answer) {
        let Answer::Written { outcome, .. } = answer else {
            return;
        };
        let is_done = matches!(outcome, Outcome::Done(_));
        match asked {
            Asked::Beat if is_done => self.worker.heartbeat(Success::Yes),
            Asked::Beat => self.worker.heartbeat(Success::No),
            Asked::Claim { is_renewal } => match (outcome, is_renewal) {
                (Outcome::Done(_), true) => self.manager.id_claim(IdClaim::Renewed),
                (Outcome::Done(_), false) => self.manager.id_claim(IdClaim::Claimed),
                // A renewal that is refused is looked into, and told when the id is lost.
                (Outcome::Refused(Refusal::Conflict), false) => {
                    self.manager.id_claim(IdClaim::Taken);
                }
                _ => {}
            },
            Asked::Other => {}
        }
    }
}

//! Measurements of `dv-member` for metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Code;
use crate::machine::manager::{ManagerEvent, ManagerInput};
use crate::machine::request::{Answer, Request, Value};
use crate::metrics::{
    IdClaim, LeadershipChange, ManagerMetrics, NoMetrics, Success, WorkerMetrics,
};
use crate::runtime::common::metrics_sink::MetricsSink;
use crate::store::{Outcome, Refusal, WatchEvent};
use crate::types::{ManagerState, Time};
use crate::wire::Assignment;

/// The metrics of one manager.
#[derive(Clone)]
pub(super) struct ManagerMetricsSink {
    pub manager: Arc<dyn ManagerMetrics>,
    pub worker: Arc<dyn WorkerMetrics>,
    /// Of its calculator while it leads; `None`: no receiver.
    pub calculator: Option<MetricsSink>,
}

impl Default for ManagerMetricsSink {
    fn default() -> Self {
        Self {
            manager: Arc::new(NoMetrics),
            worker: Arc::new(NoMetrics),
            calculator: None,
        }
    }
}

/// Measurements of one lifecycle.
pub(super) struct ManagerMeasurements {
    metrics_sink: ManagerMetricsSink,
    interval: Duration,
    state: ManagerState,
    state_since: Time,
    is_leader: bool,
    refused: u64,
    last_beat: Option<Time>,
}

/// A request whose answer is measured.
#[derive(Clone, Copy)]
pub(super) enum MeasuredCall {
    Beat,
    Claim { is_renewal: bool },
    Other,
}

impl ManagerMeasurements {
    pub fn new(metrics_sink: ManagerMetricsSink, interval: Duration, now: Time) -> Self {
        Self {
            metrics_sink,
            interval,
            state: ManagerState::Init,
            state_since: now,
            is_leader: false,
            refused: 0,
            last_beat: None,
        }
    }

    pub fn metrics_sink(&self) -> ManagerMetricsSink {
        self.metrics_sink.clone()
    }

    /// Before the machine takes it in.
    pub fn event(&self, event: &ManagerInput) {
        if let ManagerInput::Assignment(WatchEvent::Change(entry)) = event
            && entry.is_live()
            && let Ok(assignment) = Assignment::decode(&entry.value)
        {
            self.metrics_sink.worker.assignment_seen(assignment.version);
        }
    }

    /// How many assignments the machine has refused by now.
    pub fn refused(&mut self, refused: u64) {
        for _ in self.refused..refused {
            self.metrics_sink.worker.assignment_refused();
        }
        self.refused = refused;
    }

    /// `begun`: when what led to it was taken in.
    pub fn notice(&mut self, notice: &ManagerEvent, begun: Instant) {
        let manager = &self.metrics_sink.manager;
        match notice {
            ManagerEvent::StateChanged(change) => {
                let spent = change.time.since(self.state_since);
                self.state = change.to;
                self.state_since = change.time;
                manager.state_changed(change.from, change.to, spent);
            }
            ManagerEvent::Leader { is_self, .. } if *is_self != self.is_leader => {
                self.is_leader = *is_self;
                manager.leadership_changed(match (is_self, self.state) {
                    (true, _) => LeadershipChange::Gained,
                    (false, ManagerState::Shutdown) => LeadershipChange::Released,
                    (false, _) => LeadershipChange::Lost,
                });
            }
            ManagerEvent::IdLost { .. } | ManagerEvent::IdTakenOver { .. } => {
                manager.id_claim(IdClaim::Lost);
            }
            ManagerEvent::Failed { error } if error.code() == Code::IdsExhausted => {
                manager.id_claim(IdClaim::Exhausted);
            }
            ManagerEvent::AssignmentChanged(change) => {
                self.metrics_sink.worker.assignment_applied(
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
    pub fn request(&mut self, now: Time, request: &Request, has_id: bool) -> MeasuredCall {
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
                    self.metrics_sink.worker.heartbeat_late(late);
                }
                self.last_beat = Some(now);
                MeasuredCall::Beat
            }
            Request::Put {
                value: Value::Claim(..),
                ..
            } => MeasuredCall::Claim { is_renewal: has_id },
            _ => MeasuredCall::Other,
        }
    }

    /// The lifecycle has ended: report the end of the leadership.
    pub fn ended(&mut self) {
        if std::mem::take(&mut self.is_leader) {
            let manager = &self.metrics_sink.manager;
            manager.leadership_changed(LeadershipChange::Released);
        }
    }
}

impl ManagerMetricsSink {
    /// An answer has come, on whatever thread.
    pub fn answered(&self, asked: MeasuredCall, answer: &Answer) {
        let Answer::Written { outcome, .. } = answer else {
            return;
        };
        let is_done = matches!(outcome, Outcome::Done(_));
        match asked {
            MeasuredCall::Beat if is_done => self.worker.heartbeat(Success::Yes),
            MeasuredCall::Beat => self.worker.heartbeat(Success::No),
            MeasuredCall::Claim { is_renewal } => match (outcome, is_renewal) {
                (Outcome::Done(_), true) => self.manager.id_claim(IdClaim::Renewed),
                (Outcome::Done(_), false) => self.manager.id_claim(IdClaim::Claimed),
                // A rejected renewal is examined and reported when the id is lost.
                (Outcome::Refused(Refusal::Conflict), false) => {
                    self.manager.id_claim(IdClaim::Taken);
                }
                _ => {}
            },
            MeasuredCall::Other => {}
        }
    }
}

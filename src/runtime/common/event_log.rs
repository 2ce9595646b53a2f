//! The log of a calculator or manager: one line for each thing that an operator would act on,
//! repeated failures as counts.

use std::collections::BTreeMap;

use crate::error::{Code, Error};
use crate::machine::calculator::{CalculatorEvent, Degraded};
use crate::machine::convergence::Lagging;
use crate::machine::manager::ManagerEvent;
use crate::time::log_throttle::{LogThrottle, suppressed};
use crate::types::{Time, WorkerId};
use crate::vocabulary::MemberChange;

/// What one thread of a calculator or manager logs.
#[derive(Debug, Default)]
pub struct EventLog {
    /// What happened again and again, by what was attempted.
    failures: BTreeMap<&'static str, LogThrottle>,
    absences: BTreeMap<&'static str, LogThrottle>,
    /// Of a manager: its states, and whether a leader is known.
    turns: BTreeMap<&'static str, LogThrottle>,
    lags: LogThrottle,
    degradations: LogThrottle,
    is_degraded_told: bool,
    sights: LogThrottle,
    /// Whether the last job failed: state changes of its retries are logged at debug.
    is_failing: bool,
}

impl EventLog {
    /// Logs calculator events.
    pub fn note(&mut self, now: Time, notice: &CalculatorEvent) {
        match notice {
            CalculatorEvent::StateChanged(change) => {
                let level = if self.is_failing {
                    log::Level::Debug
                } else {
                    log::Level::Info
                };
                log::log!(
                    target: "divvy::calculator", level,
                    version = change.version;
                    "{} -> {}{}", change.from, change.to,
                    change.reason.map(|r| format!(" ({r})")).unwrap_or_default()
                );
            }
            CalculatorEvent::Published {
                version,
                reason,
                workers,
                partitions,
                quality,
            } => {
                self.is_failing = false;
                log::info!(
                    target: "divvy::calculator",
                    version = *version, workers = *workers, partitions = *partitions,
                    moved = quality.moved_partitions, moved_weight = quality.moved,
                    max_to_mean = quality.max_to_mean, min_to_mean = quality.min_to_mean;
                    "rebalance completed: published version {version} ({reason})"
                );
            }
            CalculatorEvent::WouldPublish {
                version,
                reason,
                workers,
                partitions,
                quality,
            } => {
                self.is_failing = false;
                log::info!(
                    target: "divvy::calculator",
                    version = *version, workers = *workers, partitions = *partitions,
                    moved = quality.moved_partitions;
                    "would publish version {version} ({reason})"
                );
            }
            CalculatorEvent::LeaderPublished(comparison) => {
                log::info!(target: "divvy::calculator", "{comparison}");
            }
            CalculatorEvent::Failed { operation, error } => {
                self.is_failing = true;
                self.failed(now, operation, error);
            }
            CalculatorEvent::Degraded(why) => self.degraded(now, why),
            CalculatorEvent::LeadershipLost => log::error!(
                target: "divvy::calculator",
                "leadership lost: a newer leader has taken over, or the fence was removed"
            ),
            CalculatorEvent::Member { change, worker } => self.member(now, *change, worker),
            CalculatorEvent::WorkerLagging(lagging) => self.lagging(now, lagging),
            // The first is the store's own to log, the others are logged where they happen.
            CalculatorEvent::Breaker(_)
            | CalculatorEvent::Lagged { .. }
            | CalculatorEvent::Fatal { .. } => {}
        }
    }

    /// Logs manager events.
    pub fn note_manager(&mut self, now: Time, notice: &ManagerEvent) {
        match notice {
            ManagerEvent::StateChanged(change) => {
                if let Some(silent) = self.turn(now, change.to.name()) {
                    log::info!(
                        target: "divvy::manager",
                        "{} -> {}{}", change.from, change.to, suppressed(silent)
                    );
                }
            }
            ManagerEvent::Id(Some(id)) => {
                log::info!(target: "divvy::manager", "worker id claimed: {id}")
            }
            ManagerEvent::IdLost { worker } => log::error!(
                target: "divvy::manager", worker = worker.as_str();
                "worker id lost: {worker} is owned by another process; released all partitions, claiming another id"
            ),
            ManagerEvent::IdRegained { worker } => log::warn!(
                target: "divvy::manager", worker = worker.as_str();
                "worker id {worker} expired or was deleted; claimed again"
            ),
            ManagerEvent::AssignmentChanged(change) => log::info!(
                target: "divvy::manager",
                version = change.held.version, partitions = change.held.partitions.len(),
                added = change.added.len(), removed = change.removed.len();
                "assignment applied: version {}", change.held.version
            ),
            ManagerEvent::Leader {
                leader: Some(leader),
                ..
            } => {
                if let Some(silent) = self.turn(now, "leads") {
                    log::info!(target: "divvy::manager", "leader elected: {leader}{}", suppressed(silent));
                }
            }
            ManagerEvent::Leader { leader: None, .. } => {
                if let Some(silent) = self.turn(now, "no leader") {
                    log::info!(
                        target: "divvy::manager",
                        "no leader{}", suppressed(silent)
                    );
                }
            }
            ManagerEvent::Degraded { why } => {
                if let Some(silent) = self.degradations.record(now) {
                    self.is_degraded_told = true;
                    log::warn!(target: "divvy::manager", "degraded{}: {why}", suppressed(silent));
                }
            }
            ManagerEvent::Alert { level, lasted } => log::warn!(
                target: "divvy::manager", level = level.name();
                "still degraded after {lasted:?} ({})", level.name()
            ),
            ManagerEvent::Recovered { lasted } => {
                if std::mem::take(&mut self.is_degraded_told) {
                    log::info!(
                        target: "divvy::manager",
                        "store recovered: degraded for {lasted:?}"
                    );
                }
            }
            // The calculator has logged it, and it is final.
            ManagerEvent::Failed { error } if error.code() == Code::Fenced => {
                log::debug!(target: "divvy::manager", "{error}");
            }
            ManagerEvent::Failed { error } => {
                let repeats = self.failures.entry(error.code().name()).or_default();
                if let Some(silent) = repeats.record(now) {
                    log::warn!(
                        target: "divvy::manager",
                        "{error}{}; retrying", suppressed(silent)
                    );
                }
            }
            // The breaker is the store's own to log.
            ManagerEvent::Id(None)
            | ManagerEvent::Breaker(_)
            | ManagerEvent::Calculator(_)
            | ManagerEvent::Lagged { .. }
            | ManagerEvent::Fatal { .. } => {}
        }
    }

    fn turn(&mut self, now: Time, what: &'static str) -> Option<u64> {
        self.turns.entry(what).or_default().record(now)
    }

    /// Suspicions and returns come in bursts, often of the same worker: repeated ones are counted.
    fn member(&mut self, now: Time, change: MemberChange, worker: &WorkerId) {
        let is_throttled = matches!(change, MemberChange::Suspected | MemberChange::Returned);
        let count = match is_throttled {
            true => self.absences.entry(change.name()).or_default().record(now),
            false => Some(0),
        };
        let Some(count) = count else {
            return;
        };
        let (level, words) = match change {
            MemberChange::Joined => (log::Level::Info, "worker joined"),
            MemberChange::Left => (log::Level::Info, "worker left"),
            MemberChange::Suspected => (log::Level::Info, "worker suspected: lease expired"),
            MemberChange::Returned => (log::Level::Info, "worker returned"),
            MemberChange::Dead => (log::Level::Warn, "worker declared dead"),
        };
        log::log!(
            target: "divvy::calculator", level, worker = worker.as_str();
            "{words}: {worker}{}", suppressed(count)
        );
    }

    /// One line for a fleet that does not apply.
    fn lagging(&mut self, now: Time, lagging: &Lagging) {
        if let Some(silent) = self.lags.record(now) {
            log::warn!(
                target: "divvy::calculator",
                worker = lagging.worker.as_str(), assigned = lagging.assigned,
                applied = lagging.applied;
                "{lagging}{}", suppressed(silent)
            );
        }
    }

    /// Logs a failure. It is retried unless the leader was deposed, which is final.
    pub fn failed(&mut self, now: Time, operation: &'static str, error: &Error) {
        if error.code() == Code::Fenced {
            log::debug!(target: "divvy::calculator", "{operation} failed: {error}");
            return;
        }
        let repeats = self.failures.entry(operation).or_default();
        if let Some(silent) = repeats.record(now) {
            log::warn!(
                target: "divvy::calculator",
                code = error.code().name(), attempts = error.attempts();
                "{operation} failed{}, retrying: {error}", suppressed(silent)
            );
        }
    }

    /// The heartbeats cannot be seen.
    pub fn out_of_sight(&mut self, now: Time, why: &str) {
        if let Some(silent) = self.sights.record(now) {
            log::warn!(
                target: "divvy::watch",
                "heartbeat watch lost{}: {why}; failure detection suspended", suppressed(silent)
            );
        }
    }

    /// An end is logged if the beginning was.
    fn degraded(&mut self, now: Time, why: &Degraded) {
        if why.is_empty() {
            if std::mem::take(&mut self.is_degraded_told) {
                log::info!(target: "divvy::calculator", "no longer degraded");
            }
            return;
        }
        let Some(silent) = self.degradations.record(now) else {
            return;
        };
        self.is_degraded_told = true;
        let list = why.sentences();
        log::warn!(
            target: "divvy::calculator",
            "degraded{}: {}", suppressed(silent), list.join("; ")
        );
    }
}

//! The log of a calculator or manager: one line per event. Repeated failures are counted.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::{Code, Error};
use crate::machine::calculator::{CalculatorEvent, Degraded};
use crate::machine::config_mismatch::ConfigMismatch;
use crate::machine::convergence::Lagging;
use crate::machine::manager::ManagerEvent;
use crate::machine::plausible::MalformedValue;
use crate::time::duration::millis;
use crate::time::log_throttle::{LogThrottle, suppressed};
use crate::types::{Time, WorkerId};
use crate::vocabulary::{AlertLevel, MemberChange};

/// The event log of one thread of a calculator or manager.
#[derive(Debug, Default)]
pub struct EventLog {
    /// Throttles of repeated failures, by operation.
    failures: BTreeMap<&'static str, LogThrottle>,
    absences: BTreeMap<&'static str, LogThrottle>,
    /// Throttles of the states and the leader of a manager.
    turns: BTreeMap<&'static str, LogThrottle>,
    lags: LogThrottle,
    malformed: LogThrottle,
    mismatches: LogThrottle,
    degradations: LogThrottle,
    is_degraded_logged: bool,
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
                    from = change.from.name(), to = change.to.name(), version = change.version;
                    "state changed: {} -> {}{}", change.from, change.to,
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
                    version = *version, reason = reason.name(), workers = *workers,
                    partitions = *partitions,
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
                    version = *version, reason = reason.name(), workers = *workers,
                    partitions = *partitions,
                    moved = quality.moved_partitions;
                    "shadow would publish version {version} ({reason})"
                );
            }
            CalculatorEvent::LeaderPublished(comparison) => {
                log::info!(target: "divvy::calculator", "shadow compared: {comparison}");
            }
            CalculatorEvent::Failed { operation, error } => {
                self.is_failing = true;
                self.failed(now, operation, error);
            }
            CalculatorEvent::Malformed(value) => self.malformed(now, value),
            CalculatorEvent::ListHeld(Some(held)) => log::warn!(
                target: "divvy::calculator",
                listed = held.listed, lost = held.lost, in_force = held.in_force;
                "partition list held back: {held}"
            ),
            CalculatorEvent::ListHeld(None) => log::info!(
                target: "divvy::calculator",
                "partition list no longer held back"
            ),
            CalculatorEvent::ConfigMismatch(mismatch) => self.config_mismatch(now, mismatch),
            CalculatorEvent::AssignmentLimit { version, limit } => {
                let unassigned = limit.unassigned.len();
                if unassigned == 0 && !limit.sizes.is_near() {
                    log::info!(
                        target: "divvy::calculator", version = *version;
                        "every assignment is within the store's limit again"
                    );
                } else {
                    log::warn!(
                        target: "divvy::calculator",
                        version = *version, unassigned = unassigned, bytes = limit.sizes.largest,
                        limit = limit.sizes.limit;
                        "assignments near or over the store's limit: {limit}"
                    );
                }
            }
            CalculatorEvent::Degraded(why) => self.degraded(now, why),
            CalculatorEvent::LeadershipLost => log::warn!(
                target: "divvy::calculator",
                "leadership lost: a newer leader has taken over, or the fence was removed"
            ),
            CalculatorEvent::Member { change, worker } => self.member(now, *change, worker),
            CalculatorEvent::WorkerLagging(lagging) => self.lagging(now, lagging),
            // The store logs the first; the others are logged where they occur.
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
                        from = change.from.name(), to = change.to.name();
                        "state changed: {} -> {}{}", change.from, change.to, suppressed(silent)
                    );
                }
            }
            ManagerEvent::Id(Some(id)) => {
                log::info!(
                    target: "divvy::manager", worker = id.as_str();
                    "worker id claimed: {id}"
                )
            }
            ManagerEvent::IdLost { worker } => log::error!(
                target: "divvy::manager", worker = worker.as_str();
                "worker id lost: {worker} is owned by another process; released all partitions, claiming another id"
            ),
            ManagerEvent::IdTakenOver { worker } => log::error!(
                target: "divvy::manager", worker = worker.as_str();
                "worker id taken over: {worker} belongs to a newer process of the same instance; released all partitions, claiming another id"
            ),
            ManagerEvent::IdRegained { worker } => log::warn!(
                target: "divvy::manager", worker = worker.as_str();
                "worker id expired: {worker} was claimed again"
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
                    log::info!(
                        target: "divvy::manager", leader = leader.as_str();
                        "leader elected: {leader}{}", suppressed(silent)
                    );
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
                    self.is_degraded_logged = true;
                    log::warn!(
                        target: "divvy::manager",
                        "degraded{}: {why}", suppressed(silent)
                    );
                }
            }
            ManagerEvent::Alert { level, lasted } => log_alert(*level, *lasted),
            ManagerEvent::Recovered { lasted } => {
                if std::mem::take(&mut self.is_degraded_logged) {
                    log::info!(
                        target: "divvy::manager", lasted_ms = millis(*lasted);
                        "store recovered: degraded for {lasted:?}"
                    );
                }
            }
            // The calculator has logged it, and it is final.
            ManagerEvent::Failed { error } if error.code() == Code::Fenced => {
                log::debug!(
                    target: "divvy::manager", code = error.code().name();
                    "calculator deposed: {error}"
                );
            }
            ManagerEvent::Failed { error } => {
                let throttle = self.failures.entry(error.code().name()).or_default();
                if let Some(silent) = throttle.record(now) {
                    log::warn!(
                        target: "divvy::manager",
                        code = error.code().name(), attempts = error.attempts();
                        "request failed{}, retrying: {error}", suppressed(silent)
                    );
                }
            }
            ManagerEvent::Malformed(value) => self.malformed(now, value),
            // The store logs the breaker.
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

    /// Logs a membership change. Suspicions and returns occur in bursts: repeated ones are counted.
    fn member(&mut self, now: Time, change: MemberChange, worker: &WorkerId) {
        let is_throttled = matches!(change, MemberChange::Suspected | MemberChange::Returned);
        let count = match is_throttled {
            true => self.absences.entry(change.name()).or_default().record(now),
            false => Some(0),
        };
        let Some(count) = count else {
            return;
        };
        let id = worker.as_str();
        match change {
            MemberChange::Joined => {
                log::info!(target: "divvy::calculator", worker = id; "worker joined: {id}");
            }
            MemberChange::Left => {
                log::info!(target: "divvy::calculator", worker = id; "worker left: {id}");
            }
            MemberChange::Suspected => log::info!(
                target: "divvy::calculator", worker = id;
                "worker suspected: lease expired: {id}{}", suppressed(count)
            ),
            MemberChange::Returned => log::info!(
                target: "divvy::calculator", worker = id;
                "worker returned: {id}{}", suppressed(count)
            ),
            MemberChange::Dead => {
                log::warn!(target: "divvy::calculator", worker = id; "worker declared dead: {id}");
            }
        }
    }

    /// Logs a lagging worker. Further ones are counted.
    fn lagging(&mut self, now: Time, lagging: &Lagging) {
        if let Some(silent) = self.lags.record(now) {
            log::warn!(
                target: "divvy::calculator",
                worker = lagging.worker.as_str(), assigned = lagging.assigned,
                applied = lagging.applied;
                "worker lagging: {lagging}{}", suppressed(silent)
            );
        }
    }

    /// Logs a worker that is configured differently. Further ones are counted.
    fn config_mismatch(&mut self, now: Time, mismatch: &ConfigMismatch) {
        let worker = mismatch.worker.as_str();
        if mismatch.parts.is_empty() {
            log::info!(
                target: "divvy::config", worker = worker;
                "configuration mismatch resolved: {mismatch}"
            );
        } else if let Some(silent) = self.mismatches.record(now) {
            let parts = mismatch.parts.to_string();
            log::warn!(
                target: "divvy::config", worker = worker, parts = parts.as_str();
                "configuration mismatch: {mismatch}{}; give all replicas the same configuration",
                suppressed(silent)
            );
        }
    }

    fn malformed(&mut self, now: Time, value: &MalformedValue) {
        if let Some(silent) = self.malformed.record(now) {
            log::warn!(
                target: "divvy::malformed",
                bucket = value.bucket.name(), key = value.key.as_str(), value = value.value.as_str();
                "malformed value ignored{}: {} in the {} bucket: {}",
                suppressed(silent), value.key, value.bucket.role(), value.why
            );
        }
    }

    /// Logs a failure. It is retried unless the leader was deposed, which is final.
    pub fn failed(&mut self, now: Time, operation: &'static str, error: &Error) {
        if error.code() == Code::Fenced {
            log::debug!(
                target: "divvy::calculator", code = error.code().name();
                "{operation} failed: {error}"
            );
            return;
        }
        let throttle = self.failures.entry(operation).or_default();
        if let Some(silent) = throttle.record(now) {
            log::warn!(
                target: "divvy::calculator",
                code = error.code().name(), attempts = error.attempts();
                "{operation} failed{}, retrying: {error}", suppressed(silent)
            );
        }
    }

    /// Logs a lost heartbeat watch.
    pub fn watch_lost(&mut self, now: Time, why: &str) {
        if let Some(silent) = self.sights.record(now) {
            log::warn!(
                target: "divvy::watch",
                "heartbeat watch lost{}: {why}; failure detection suspended", suppressed(silent)
            );
        }
    }

    /// Logs the causes of degradation. The end is logged if the beginning was.
    fn degraded(&mut self, now: Time, why: &Degraded) {
        if why.is_empty() {
            if std::mem::take(&mut self.is_degraded_logged) {
                log::info!(target: "divvy::calculator", "degradation ended");
            }
            return;
        }
        let Some(silent) = self.degradations.record(now) else {
            return;
        };
        self.is_degraded_logged = true;
        let list = why.sentences().join("; ");
        let causes: Vec<&str> = why.reasons.iter().map(|r| r.cause.name()).collect();
        let causes = causes.join(",");
        log::warn!(
            target: "divvy::calculator", causes = causes.as_str();
            "degraded{}: {list}", suppressed(silent)
        );
    }
}

fn log_alert(alert: AlertLevel, lasted: Duration) {
    let is_severe = matches!(alert, AlertLevel::Error | AlertLevel::Critical);
    let level = if is_severe {
        log::Level::Error
    } else {
        log::Level::Warn
    };
    log::log!(
        target: "divvy::manager", level,
        alert = alert.name(), lasted_ms = millis(lasted);
        "still degraded after {lasted:?} (alert level {alert})"
    );
}

//! An event as its fields: what C, Go and the command line read, and its one JSON form.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::machine::assignment::AssignmentChange;
use crate::machine::breaker::BreakerCondition;
use crate::machine::calculator::CalculatorEvent;
use crate::machine::comparison::Comparison;
use crate::machine::manager::ManagerEvent;
use crate::machine::plausible::MalformedValue;
use crate::strategy::Quality;
use crate::time::duration::millis;
use crate::types::{Partition, Time, Version, WorkerId};
use crate::vocabulary::{
    AlertLevel, Bucket, Code, DegradationCause, EventKind, Field, MemberChange, Reason, Word,
};
use crate::wire::ConfigParts;

/// The fields of an event. Those that its kind does not have are empty, see [`EventKind::fields`].
#[derive(Clone, Debug)]
#[allow(missing_docs)] // each is a word of `Field`, described there
pub struct EventRecord {
    pub kind: EventKind,
    pub from: Option<&'static Word>,
    pub state: Option<&'static Word>,
    pub reason: Option<Reason>,
    pub version: Version,
    pub applied_version: Version,
    pub change: Option<MemberChange>,
    pub worker: Option<WorkerId>,
    pub worker_count: usize,
    pub partition_count: usize,
    pub quality: Option<Quality>,
    pub missed_count: u64,
    pub code: Option<Code>,
    pub message: String,
    pub operation: &'static str,
    pub bucket: Option<Bucket>,
    pub key: String,
    pub value: String,
    pub attempts: u32,
    pub causes: Vec<DegradationCause>,
    pub parts: ConfigParts,
    pub lost_count: usize,
    pub time: Option<Time>,
    pub assignment: Option<AssignmentChange>,
    pub unassigned: Arc<[Partition]>,
    pub is_leader: bool,
    pub level: Option<AlertLevel>,
    pub lasted: Duration,
    pub comparison: Option<Comparison>,
}

impl EventRecord {
    fn empty(kind: EventKind) -> Self {
        Self {
            kind,
            from: None,
            state: None,
            reason: None,
            version: 0,
            applied_version: 0,
            change: None,
            worker: None,
            worker_count: 0,
            partition_count: 0,
            quality: None,
            missed_count: 0,
            code: None,
            message: String::new(),
            operation: "",
            bucket: None,
            key: String::new(),
            value: String::new(),
            attempts: 0,
            causes: Vec::new(),
            parts: ConfigParts::default(),
            lost_count: 0,
            time: None,
            assignment: None,
            unassigned: Arc::default(),
            is_leader: false,
            level: None,
            lasted: Duration::ZERO,
            comparison: None,
        }
    }

    fn failed(kind: EventKind, operation: &'static str, error: &Error) -> Self {
        Self {
            code: Some(error.code()),
            message: error.to_string(),
            operation: error.operation().unwrap_or(operation),
            key: error.key().unwrap_or_default().to_owned(),
            attempts: error.attempts(),
            ..Self::empty(kind)
        }
    }

    fn malformed(value: &MalformedValue) -> Self {
        Self {
            bucket: Some(value.bucket),
            key: value.key.clone(),
            value: value.value.clone(),
            ..Self::saying(EventKind::Malformed, &value.to_string())
        }
    }

    fn fatal(kind: EventKind, message: &str) -> Self {
        Self {
            code: Some(Code::Panicked),
            ..Self::saying(kind, message)
        }
    }

    fn saying(kind: EventKind, message: &str) -> Self {
        Self {
            message: message.to_owned(),
            ..Self::empty(kind)
        }
    }

    fn about(kind: EventKind, worker: Option<&WorkerId>) -> Self {
        Self {
            worker: worker.cloned(),
            ..Self::empty(kind)
        }
    }

    /// How many partitions the plan moved.
    #[must_use]
    pub fn moved_count(&self) -> usize {
        self.quality.map_or(0, |quality| quality.moved_partitions)
    }

    /// The JSON form, the same from every language and command. `reporter` is the worker or
    /// calculator that reports the event, `time` when it occurred.
    #[must_use]
    pub fn json(&self, reporter: &str, time: SystemTime) -> Value {
        let mut members = Map::new();
        members.insert("kind".into(), self.kind.name().into());
        members.insert("time".into(), rfc3339(time).into());
        members.insert("reporter".into(), reporter.into());
        members.insert("worker".into(), reporter.into());
        for &field in self.kind.fields() {
            members.insert(field.name().into(), self.value(field));
        }
        Value::Object(members)
    }

    fn value(&self, field: Field) -> Value {
        let held = self.assignment.as_ref().map(|change| &change.held);
        match field {
            Field::From => json!(self.from.map(|word| word.name)),
            Field::State => json!(self.state.map(|word| word.name)),
            Field::Reason => json!(self.reason.map(Reason::name)),
            Field::Version => json!(self.version),
            Field::AppliedVersion => json!(self.applied_version),
            Field::Change => json!(self.change.map(MemberChange::name)),
            Field::Worker => json!(self.worker.as_ref().map_or("", WorkerId::as_str)),
            Field::WorkerCount => json!(self.worker_count),
            Field::PartitionCount => json!(self.partition_count),
            Field::MovedCount => json!(self.moved_count()),
            Field::MaxToMean => json!(self.quality.map(|quality| quality.max_to_mean)),
            Field::MissedCount => json!(self.missed_count),
            Field::Code => json!(self.code.map(Code::name)),
            Field::Message => json!(self.message),
            Field::Operation => json!(self.operation),
            Field::Key => json!(self.key),
            Field::Bucket => json!(self.bucket.map(Bucket::name)),
            Field::Value => json!(self.value),
            Field::Attempts => json!(self.attempts),
            Field::Causes => json!(self.causes.iter().map(|c| c.name()).collect::<Vec<_>>()),
            Field::Parts => json!(
                self.parts
                    .iter()
                    .map(|part| part.name())
                    .collect::<Vec<_>>()
            ),
            Field::LostCount => json!(self.lost_count),
            Field::TimeNs => json!(self.time.map_or(0, Time::as_nanos)),
            Field::Term => match (held, &self.comparison) {
                (Some(held), _) => json!(held.term),
                (None, Some(seen)) => json!(seen.term.unwrap_or(0)),
                (None, None) => json!(0),
            },
            Field::Lifecycle => match (held, &self.comparison) {
                (Some(held), _) => json!(held.lifecycle),
                (None, Some(seen)) => json!(seen.lifecycle),
                (None, None) => json!(""),
            },
            Field::Partitions => match held {
                Some(held) => json!(&*held.partitions),
                None => json!(&*self.unassigned),
            },
            Field::Added => json!(self.assignment.as_ref().map(|change| &change.added)),
            Field::Removed => json!(self.assignment.as_ref().map(|change| &change.removed)),
            Field::IsLeader => json!(self.is_leader),
            Field::Level => json!(self.level.map(AlertLevel::name)),
            Field::LastedMs => json!(millis(self.lasted)),
            Field::Comparison => json!(self.comparison.as_ref().map(comparison_json)),
        }
    }
}

impl From<&BreakerCondition> for EventRecord {
    fn from(condition: &BreakerCondition) -> Self {
        Self {
            state: Some(condition.state.word()),
            ..Self::saying(EventKind::Breaker, condition.why().unwrap_or_default())
        }
    }
}

impl From<&CalculatorEvent> for EventRecord {
    fn from(event: &CalculatorEvent) -> Self {
        match event {
            CalculatorEvent::StateChanged(change) => Self {
                from: Some(change.from.word()),
                state: Some(change.to.word()),
                reason: change.reason,
                version: change.version,
                time: Some(change.time),
                ..Self::empty(EventKind::CalculatorState)
            },
            CalculatorEvent::Member { change, worker } => Self {
                change: Some(*change),
                ..Self::about(EventKind::Member, Some(worker))
            },
            CalculatorEvent::WorkerLagging(lagging) => Self {
                version: lagging.assigned,
                applied_version: lagging.applied,
                lasted: lagging.lasted,
                message: lagging.to_string(),
                ..Self::about(EventKind::WorkerLagging, Some(&lagging.worker))
            },
            CalculatorEvent::Published {
                version,
                reason,
                workers,
                partitions,
                quality,
            }
            | CalculatorEvent::WouldPublish {
                version,
                reason,
                workers,
                partitions,
                quality,
            } => Self {
                version: *version,
                reason: Some(*reason),
                worker_count: *workers,
                partition_count: *partitions,
                quality: Some(*quality),
                ..Self::empty(match event {
                    CalculatorEvent::Published { .. } => EventKind::Published,
                    _ => EventKind::WouldPublish,
                })
            },
            CalculatorEvent::LeaderPublished(seen) => Self {
                version: seen.version,
                worker_count: seen.workers,
                partition_count: seen.partitions,
                quality: Some(seen.quality),
                comparison: Some((**seen).clone()),
                ..Self::saying(EventKind::LeaderPublished, &seen.to_string())
            },
            CalculatorEvent::Failed { operation, error } => {
                Self::failed(EventKind::Failed, operation, error)
            }
            CalculatorEvent::Malformed(value) => Self::malformed(value),
            CalculatorEvent::ListHeld(held) => Self {
                partition_count: held.as_ref().map_or(0, |held| held.listed),
                lost_count: held.as_ref().map_or(0, |held| held.lost),
                message: held.as_ref().map(ToString::to_string).unwrap_or_default(),
                ..Self::empty(EventKind::ListHeld)
            },
            CalculatorEvent::ConfigMismatch(mismatch) => Self {
                parts: mismatch.parts,
                message: mismatch.to_string(),
                ..Self::about(EventKind::ConfigMismatch, Some(&mismatch.worker))
            },
            CalculatorEvent::AssignmentLimit { version, limit } => Self {
                version: *version,
                partition_count: limit.unassigned.len(),
                unassigned: Arc::clone(&limit.unassigned),
                ..Self::saying(EventKind::AssignmentLimit, &limit.to_string())
            },
            CalculatorEvent::Degraded(degraded) => Self {
                time: degraded.since,
                causes: degraded
                    .iter()
                    .map(|degradation| degradation.cause)
                    .collect(),
                ..Self::saying(EventKind::Degraded, &degraded.sentences().join("; "))
            },
            CalculatorEvent::Breaker(condition) => condition.into(),
            CalculatorEvent::LeadershipLost => Self::empty(EventKind::LeadershipLost),
            CalculatorEvent::Lagged { missed } => Self {
                missed_count: *missed,
                ..Self::empty(EventKind::Lagged)
            },
            CalculatorEvent::Fatal { message } => Self::fatal(EventKind::Fatal, message),
        }
    }
}

impl From<&ManagerEvent> for EventRecord {
    fn from(event: &ManagerEvent) -> Self {
        match event {
            ManagerEvent::StateChanged(change) => Self {
                from: Some(change.from.word()),
                state: Some(change.to.word()),
                time: Some(change.time),
                ..Self::empty(EventKind::ManagerState)
            },
            ManagerEvent::Id(id) => Self::about(EventKind::WorkerId, id.as_ref()),
            ManagerEvent::IdLost { worker } => Self::about(EventKind::WorkerIdLost, Some(worker)),
            ManagerEvent::IdTakenOver { worker } => {
                Self::about(EventKind::WorkerIdTakenOver, Some(worker))
            }
            ManagerEvent::IdRegained { worker } => {
                Self::about(EventKind::WorkerIdRegained, Some(worker))
            }
            ManagerEvent::AssignmentChanged(change) => Self {
                version: change.held.version,
                assignment: Some(change.clone()),
                ..Self::empty(EventKind::Assignment)
            },
            ManagerEvent::Leader { leader, is_self } => Self {
                is_leader: *is_self,
                ..Self::about(EventKind::Leader, leader.as_ref())
            },
            // The events of the manager continue after its calculator has failed.
            ManagerEvent::Calculator(CalculatorEvent::Fatal { message }) => {
                Self::fatal(EventKind::CalculatorFatal, message)
            }
            ManagerEvent::Calculator(event) => event.into(),
            ManagerEvent::Breaker(condition) => condition.into(),
            ManagerEvent::Degraded { why } => Self::saying(EventKind::Outage, why),
            ManagerEvent::Alert { level, lasted } => Self {
                level: Some(*level),
                lasted: *lasted,
                ..Self::empty(EventKind::Alert)
            },
            ManagerEvent::Recovered { lasted } => Self {
                lasted: *lasted,
                ..Self::empty(EventKind::Recovered)
            },
            ManagerEvent::Failed { error } => Self::failed(EventKind::ManagerFailed, "", error),
            ManagerEvent::Malformed(value) => Self::malformed(value),
            ManagerEvent::Lagged { missed } => Self {
                missed_count: *missed,
                ..Self::empty(EventKind::Lagged)
            },
            ManagerEvent::Fatal { message } => Self::fatal(EventKind::Fatal, message),
        }
    }
}

fn comparison_json(seen: &Comparison) -> Value {
    let ids = |workers: &[WorkerId]| -> Vec<String> {
        workers
            .iter()
            .map(|worker| worker.as_str().to_owned())
            .collect()
    };
    json!({
        "is_whole": seen.is_whole,
        "agrees": seen.agrees(),
        "intended": seen.intended.map(|intended| json!({
            "version": intended.version,
            "reason": intended.reason.name(),
            "ahead_ms": millis(intended.ahead),
        })),
        "difference": seen.difference.as_ref().map(|difference| json!({
            "elsewhere": difference.elsewhere,
            "left_out": difference.left_out,
            "unknown": difference.unknown,
            "moved_count": difference.quality.moved_partitions,
            "max_to_mean": difference.quality.max_to_mean,
            "leaders_workers": ids(&difference.leaders_workers),
            "shadows_workers": ids(&difference.shadows_workers),
        })),
    })
}

/// The time in the form of RFC 3339, in UTC with milliseconds; empty for a year beyond 9999.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let mut text = String::new();
    match write!(text, "{}", humantime::format_rfc3339_millis(time)) {
        Ok(()) => text,
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::convergence::Lagging;

    #[test]
    fn event_json_has_exactly_the_members_of_its_kind() {
        let worker = WorkerId::new("worker-7").unwrap();
        let event = CalculatorEvent::WorkerLagging(Lagging {
            worker,
            assigned: 12,
            applied: 9,
            lasted: Duration::from_millis(30_500),
        });
        let record = EventRecord::from(&event);
        let mut json = record.json("worker-1", SystemTime::UNIX_EPOCH);
        let message = json["message"].take();
        assert!(message.as_str().unwrap().contains("worker-7"), "{message}");
        assert_eq!(
            json,
            json!({
                "kind": "worker_lagging", "time": "1970-01-01T00:00:00.000Z",
                "reporter": "worker-1", "worker": "worker-7", "version": 12,
                "applied_version": 9, "lasted_ms": 30_500, "message": null,
            })
        );
    }

    #[test]
    fn malformed_event_names_bucket_key_and_value() {
        let why = Error::new(Code::InvalidData, "not JSON");
        let value = MalformedValue::new(Bucket::Assignment, "assignment.w-1", b"{junk", &why);
        let records = [
            EventRecord::from(&CalculatorEvent::Malformed(value.clone())),
            EventRecord::from(&ManagerEvent::Malformed(value)),
        ];
        for record in records {
            let mut json = record.json("w-2", SystemTime::UNIX_EPOCH);
            let message = json["message"].take();
            assert!(message.as_str().unwrap().contains("not JSON"), "{message}");
            assert_eq!(
                json,
                json!({
                    "kind": "malformed", "time": "1970-01-01T00:00:00.000Z", "reporter": "w-2",
                    "worker": "w-2", "bucket": "assignment", "key": "assignment.w-1",
                    "value": "{junk", "message": null,
                })
            );
        }
    }

    #[test]
    fn event_about_no_other_worker_names_the_reporter() {
        let event = ManagerEvent::Recovered {
            lasted: Duration::from_secs(2),
        };
        let json = EventRecord::from(&event).json("worker-1", SystemTime::UNIX_EPOCH);
        assert_eq!(json["worker"], "worker-1");
        assert_eq!(json["lasted_ms"], 2_000);
    }
}

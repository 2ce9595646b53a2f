//! Texts for the events of calculators and managers.

use divvy::{CalculatorEvent, Degradation, ManagerEvent, MemberChange};

/// The text of an event; `None` if it carries no change.
pub fn of(notice: &CalculatorEvent) -> Option<String> {
    let text = match notice {
        CalculatorEvent::StateChanged(change) if change.from == change.to => return None,
        CalculatorEvent::StateChanged(change) => match change.reason {
            Some(reason) => format!("{} -> {} ({reason})", change.from, change.to),
            None => format!("{} -> {}", change.from, change.to),
        },
        CalculatorEvent::Member(change) => match change {
            MemberChange::Joined(worker) => format!("{worker} joined"),
            MemberChange::Left(worker) => format!("{worker} left"),
            MemberChange::Suspected(worker) => format!("{worker} suspected: heartbeat timeout"),
            MemberChange::Returned(worker) => format!("{worker} returned"),
            MemberChange::Dead(worker) => format!("{worker} declared dead"),
        },
        CalculatorEvent::WorkerLagging(lagging) => lagging.to_string(),
        CalculatorEvent::Published {
            version,
            reason,
            workers,
            partitions,
            quality,
        } => format!(
            "published version {version} ({reason}): {workers} workers, {} of {partitions} moved",
            quality.moved_partitions
        ),
        CalculatorEvent::WouldPublish {
            version,
            reason,
            workers,
            partitions,
            quality,
        } => format!(
            "would publish version {version} ({reason}): {workers} workers, {} of {partitions} moved",
            quality.moved_partitions
        ),
        CalculatorEvent::LeaderPublished(comparison) => comparison.to_string(),
        CalculatorEvent::Failed { operation, error } => format!("{operation} failed: {error}"),
        CalculatorEvent::Degraded(why) if why.is_empty() => "no longer degraded".into(),
        CalculatorEvent::Degraded(why) => {
            let list: Vec<_> = why.iter().map(degradation).collect();
            format!("degraded: {}", list.join("; "))
        }
        CalculatorEvent::Breaker(state) => match state.why() {
            Some(why) => format!("circuit breaker opened: {why}"),
            None => "circuit breaker closed".into(),
        },
        CalculatorEvent::LeadershipLost => "leadership lost: a newer leader has taken over".into(),
        CalculatorEvent::Lagged { missed } => format!("{missed} events missed: reader too slow"),
        CalculatorEvent::Fatal { message } => format!("failed: {message}"),
        other => format!("{other:?}"),
    };
    Some(text)
}

/// The text of a worker's own event.
pub fn of_worker(notice: &ManagerEvent) -> String {
    match notice {
        ManagerEvent::Leader { is_self: true, .. } => "elected leader".into(),
        ManagerEvent::IdLost { .. } => "worker id lost: owned by another process".into(),
        ManagerEvent::IdRegained { .. } => "worker id expired and was claimed again".into(),
        ManagerEvent::Fatal { message } => format!("failed: {message}"),
        other => format!("{other:?}"),
    }
}

fn degradation(degradation: &Degradation) -> String {
    match degradation {
        Degradation::WatchLost => "heartbeat watch lost, failure detection suspended".into(),
        Degradation::Store(why) => format!("store: {why}"),
        Degradation::Publishing(why) => format!("publishing: {why}"),
        Degradation::Source(why) => format!("partition source: {why}"),
        Degradation::MalformedValues => "malformed values in the store".into(),
        Degradation::Deposed => "a newer leader has taken over".into(),
    }
}

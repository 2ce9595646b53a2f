//! Words for what calculators and managers tell.

use divvy::{CalculatorEvent, Degradation, ManagerEvent, MemberChange};

/// What an event says, for people; `None` when it says nothing new.
pub fn of(notice: &CalculatorEvent) -> Option<String> {
    let text = match notice {
        CalculatorEvent::StateChanged(change) if change.from == change.to => return None,
        CalculatorEvent::StateChanged(change) => match change.reason {
            Some(reason) => format!("{} -> {} ({reason})", change.from, change.to),
            None => format!("{} -> {}", change.from, change.to),
        },
        CalculatorEvent::Member(change) => match change {
            MemberChange::Joined(worker) => format!("{worker} joined"),
            MemberChange::Left(worker) => format!("{worker} took its leave"),
            MemberChange::Suspected(worker) => format!("{worker} is missing"),
            MemberChange::Returned(worker) => format!("{worker} is back"),
            MemberChange::Dead(worker) => format!("{worker} is lost"),
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
            Some(why) => format!("the store is left alone: {why}"),
            None => "the store answers again".into(),
        },
        CalculatorEvent::LeadershipLost => "deposed: a newer leader has taken over".into(),
        CalculatorEvent::Lagged { missed } => format!("{missed} events were missed"),
        CalculatorEvent::Fatal { message } => format!("failed: {message}"),
        other => format!("{other:?}"),
    };
    Some(text)
}

/// What a worker tells of itself, for people.
pub fn of_worker(notice: &ManagerEvent) -> String {
    match notice {
        ManagerEvent::Leader { is_self: true, .. } => "leads".into(),
        ManagerEvent::IdLost { .. } => "somebody else holds its id".into(),
        ManagerEvent::IdRegained { .. } => "its id had lapsed and is claimed again".into(),
        ManagerEvent::Fatal { message } => format!("failed: {message}"),
        other => format!("{other:?}"),
    }
}

fn degradation(degradation: &Degradation) -> String {
    match degradation {
        Degradation::WatchLost => "blind, so nobody is declared dead".into(),
        Degradation::Store(why) => format!("store: {why}"),
        Degradation::Publishing(why) => format!("publishing: {why}"),
        Degradation::Source(why) => format!("partition source: {why}"),
        Degradation::MalformedValues => "unreadable values in the store".into(),
        Degradation::Deposed => "a newer leader has taken over".into(),
    }
}

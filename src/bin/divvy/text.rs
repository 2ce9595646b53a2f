//! Words for what calculators and managers tell.

use divvy::{Degradation, ManagerNotice, MemberChange, Notice};

/// What an event says, for people; `None` when it says nothing new.
pub fn of(notice: &Notice) -> Option<String> {
    let text = match notice {
        Notice::StateChanged(change) if change.from == change.to => return None,
        Notice::StateChanged(change) => match change.reason {
            Some(reason) => format!("{} -> {} ({reason})", change.from, change.to),
            None => format!("{} -> {}", change.from, change.to),
        },
        Notice::Member(change) => match change {
            MemberChange::Joined(worker) => format!("{worker} joined"),
            MemberChange::Left(worker) => format!("{worker} took its leave"),
            MemberChange::Missing(worker) => format!("{worker} is missing"),
            MemberChange::Back(worker) => format!("{worker} is back"),
            MemberChange::Lost(worker) => format!("{worker} is lost"),
        },
        Notice::WorkerLagging(lagging) => lagging.to_string(),
        Notice::Published {
            version,
            reason,
            workers,
            partitions,
            quality,
        } => format!(
            "published version {version} ({reason}): {workers} workers, {} of {partitions} moved",
            quality.moved_partitions
        ),
        Notice::WouldPublish {
            version,
            reason,
            workers,
            partitions,
            quality,
        } => format!(
            "would publish version {version} ({reason}): {workers} workers, {} of {partitions} moved",
            quality.moved_partitions
        ),
        Notice::LeaderPublished(comparison) => comparison.to_string(),
        Notice::Failed { operation, error } => format!("{operation} failed: {error}"),
        Notice::Degraded(why) if why.is_empty() => "no longer degraded".into(),
        Notice::Degraded(why) => {
            let list: Vec<_> = why.iter().map(degradation).collect();
            format!("degraded: {}", list.join("; "))
        }
        Notice::Breaker(state) => match state.why() {
            Some(why) => format!("the store is left alone: {why}"),
            None => "the store answers again".into(),
        },
        Notice::LeadershipLost => "deposed: a newer leader has taken over".into(),
        Notice::Lagged { missed } => format!("{missed} events were missed"),
        Notice::Fatal { message } => format!("failed: {message}"),
        other => format!("{other:?}"),
    };
    Some(text)
}

/// What a worker tells of itself, for people.
pub fn of_worker(notice: &ManagerNotice) -> String {
    match notice {
        ManagerNotice::Leader { is_self: true, .. } => "leads".into(),
        ManagerNotice::IdLost { .. } => "somebody else holds its id".into(),
        ManagerNotice::IdRegained { .. } => "its id had lapsed and is claimed again".into(),
        ManagerNotice::Fatal { message } => format!("failed: {message}"),
        other => format!("{other:?}"),
    }
}

fn degradation(degradation: &Degradation) -> String {
    match degradation {
        Degradation::Blind => "blind, so nobody is declared dead".into(),
        Degradation::Store(why) => format!("store: {why}"),
        Degradation::Publishing(why) => format!("publishing: {why}"),
        Degradation::Source(why) => format!("partition source: {why}"),
        Degradation::Poison => "unreadable values in the store".into(),
        Degradation::Deposed => "a newer leader has taken over".into(),
    }
}

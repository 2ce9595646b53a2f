//! Lifecycles with a cache file.

use super::*;
use crate::machine::cache::{CacheAnswer, Recalled};
use crate::types::Partition;

const AGE: Duration = Duration::from_secs(60);
const MAX_AGE: Duration = Duration::from_secs(3_600);

fn config() -> ManagerConfig {
    ManagerConfig {
        cache_file: Some("/somewhere/assignment".into()),
        cache_max_age: MAX_AGE,
        ..ManagerConfig::default()
    }
}

/// What the file gives: version 7 of worker-3.
fn recalled(partitions: &[&str]) -> Recalled {
    Recalled {
        worker: WorkerId::new("worker-3").unwrap(),
        held: Held {
            version: 7,
            term: 1,
            lifecycle: "emergency".into(),
            partitions: partitions.iter().map(|p| Partition::new([*p], 1)).collect(),
        },
        age: AGE,
        left: MAX_AGE - AGE,
    }
}

/// Started while the store is down, with that in its file.
fn started_in_an_outage(partitions: &[&str]) -> Life {
    let mut life = Life::new(config());
    life.is_down = true;
    life.handle(ManagerInput::Start);
    assert_eq!(life.cache, [CacheOrder::Load]);
    life.cache.clear();
    let loaded = CacheAnswer::Loaded(Some(recalled(partitions)));
    life.handle(ManagerInput::Cache(loaded));
    assert!(life.orders.is_empty(), "the store is asked first");
    life.run_until_idle();
    life
}

impl Life {
    /// Carries out what was ordered; what that was.
    fn cache_done(&mut self) -> Vec<CacheOrder> {
        let mut done = Vec::new();
        while !self.cache.is_empty() {
            done.push(self.cache.remove(0));
            self.handle(ManagerInput::Cache(CacheAnswer::Done));
        }
        done
    }

    /// The store is back and accepts every claim.
    fn is_back(&mut self) {
        self.is_down = false;
        self.pass(Duration::from_secs(2));
    }

    fn assigned_to(&mut self, worker: &str, version: Version, partitions: &[&str]) {
        let entry = assignment(&format!("assignment.{worker}"), version, partitions);
        self.assignment = Some(entry.clone());
        self.handle(ManagerInput::Assignment(WatchEvent::Change(entry)));
    }

    /// Added and removed by the last change.
    fn last_change(&self) -> (usize, usize) {
        let mut changes = self.notices.iter().filter_map(|notice| match notice {
            ManagerEvent::AssignmentChanged(change) => Some(change),
            _ => None,
        });
        let change = changes.next_back().expect("a change");
        (change.added.len(), change.removed.len())
    }
}

#[test]
fn worker_started_in_outage_serves_cached_assignment_and_reports_it() {
    let life = started_in_an_outage(&["a", "b"]);
    assert_eq!(life.orders, ["joined"]);
    assert_eq!(life.held(), ["a", "b"]);
    assert!(life.machine.held().is_cached());
    assert_eq!(life.machine.held().version, 7);
    assert_eq!(life.machine.state(), ManagerState::Degraded);
    assert_eq!(life.machine.worker().unwrap().as_str(), "worker-3");
    assert!(!life.machine.has_id() && !life.machine.id_is_certain(life.now));
    assert!(!life.machine.is_leader());
    let reported = |is_it: fn(&ManagerEvent) -> bool| life.notices.iter().any(is_it);
    assert!(reported(|n| matches!(n, ManagerEvent::Id(Some(_)))));
    assert!(reported(
        |n| matches!(n, ManagerEvent::Degraded { why } if why.contains("cache file"))
    ));
}

#[test]
fn worker_with_reachable_store_never_uses_cache_file() {
    let mut life = Life::new(config());
    life.handle(ManagerInput::Start);
    life.run_until_idle();
    life.handle(ManagerInput::Cache(CacheAnswer::Loaded(Some(recalled(&[
        "a",
    ])))));
    life.run_until_idle();
    assert_eq!(life.orders, ["watch worker-0", "joined"]);
    assert!(life.held().is_empty());
    assert!(
        !life
            .notices
            .iter()
            .any(|n| matches!(n, ManagerEvent::Degraded { .. }))
    );
}

#[test]
fn previous_id_is_reclaimed_and_cached_assignment_confirmed() {
    let mut life = started_in_an_outage(&["a", "b"]);
    life.orders.clear();
    life.is_back();
    assert_eq!(life.orders[0], "watch worker-3");
    // Served on until the store's word is here, and reported to the leader as applied.
    assert_eq!(life.held(), ["a", "b"]);
    assert_eq!(life.machine.state(), ManagerState::Degraded);
    assert_eq!(life.machine.applied().version, 7);
    life.assigned_to("worker-3", 7, &["a", "b"]);
    assert_eq!(life.last_change(), (0, 0));
    assert!(!life.machine.held().is_cached());
    let saved = life.cache_done();
    assert!(
        matches!(&saved[..], [CacheOrder::Save { held, .. }] if held.lifecycle == "emergency"),
        "{saved:?}"
    );
    life.handle(ManagerInput::Assignment(WatchEvent::Live));
    life.pass(Duration::from_secs(10));
    assert_eq!(life.held(), ["a", "b"]);
    assert_eq!(life.machine.state(), ManagerState::Stable);
}

#[test]
fn store_always_overrides_cached_assignment() {
    for version in [3, 7, 9] {
        let mut life = started_in_an_outage(&["a", "b"]);
        life.is_back();
        life.assigned_to("worker-3", version, &["b", "c"]);
        assert_eq!(life.held(), ["b", "c"], "version {version}");
        assert_eq!(life.last_change(), (1, 1));
        assert_eq!(life.machine.applied().version, version);
    }
    // That there is none is a word, too.
    let mut life = started_in_an_outage(&["a", "b"]);
    life.is_back();
    life.handle(ManagerInput::Assignment(WatchEvent::Live));
    assert!(life.held().is_empty());
    assert_eq!(life.last_change(), (0, 2));
    assert_eq!(life.machine.applied().version, 0);
}

#[test]
fn cached_assignment_is_not_served_under_another_id() {
    let mut life = started_in_an_outage(&["a", "b"]);
    life.is_down = false;
    // Another worker has its former id.
    loop {
        let Some((op, request)) = life.asked.pop() else {
            life.now = life.now.max(life.machine.deadline().unwrap());
            life.machine.tick(life.now);
            life.carry_out();
            continue;
        };
        let answer = match &request {
            Request::List(Bucket::StableId) => Answer::Listed(Ok(Listing {
                entries: vec![put("worker-3", "another")],
                ..Listing::default()
            })),
            other => life.reply(other),
        };
        assert!(life.held().len() == 2, "served until the store speaks");
        life.answer(op, answer);
        if life.machine.has_id() {
            break;
        }
    }
    assert_eq!(life.machine.worker().unwrap().as_str(), "worker-0");
    assert!(life.held().is_empty());
    assert_eq!(life.last_change(), (0, 2));
}

#[test]
fn cached_assignment_is_served_no_longer_than_its_max_age() {
    let mut life = started_in_an_outage(&["a", "b"]);
    life.pass(MAX_AGE - AGE - Duration::from_secs(1));
    assert_eq!(life.held(), ["a", "b"]);
    life.pass(Duration::from_secs(2));
    assert!(life.held().is_empty());
    assert_eq!(life.machine.worker(), None);
    assert!(matches!(
        life.notices
            .iter()
            .rev()
            .find(|n| matches!(n, ManagerEvent::Id(_))),
        Some(ManagerEvent::Id(None))
    ));
    life.is_back();
    assert!(life.machine.has_id());
}

#[test]
fn empty_cache_file_and_permanent_failure_change_nothing() {
    let mut life = Life::new(config());
    life.is_down = true;
    life.handle(ManagerInput::Start);
    life.run_until_idle();
    life.handle(ManagerInput::Cache(CacheAnswer::Loaded(None)));
    life.pass(Duration::from_secs(5));
    assert!(life.orders.is_empty());
    assert_eq!(life.machine.state(), ManagerState::Init);

    let mut life = Life::new(config());
    life.handle(ManagerInput::Start);
    life.handle(ManagerInput::Cache(CacheAnswer::Loaded(Some(recalled(&[
        "a",
    ])))));
    let (op, _) = life.asked.remove(0);
    let denied = Error::new(Code::Unauthorized, "who are you?");
    life.answer(op, Answer::Ensured(Err(denied)));
    assert!(life.orders.is_empty() && life.held().is_empty());
}

/// A member that holds something, and has written it down.
fn remembering() -> Life {
    let mut life = Life::joined(config());
    life.handle(ManagerInput::Cache(CacheAnswer::Loaded(None)));
    life.cache.clear();
    life.assigned(8, &["a", "b"]);
    life.handle(ManagerInput::Assignment(WatchEvent::Live));
    let saved = life.cache_done();
    assert!(matches!(&saved[..], [CacheOrder::Save { .. }]), "{saved:?}");
    life
}

#[test]
fn cache_is_rewritten_only_while_assignment_watch_is_live() {
    let mut life = remembering();
    life.pass(MAX_AGE / 10 + Duration::from_secs(1));
    assert_eq!(life.cache_done().len(), 1);
    life.handle(ManagerInput::Assignment(WatchEvent::Disconnected(
        "cut".into(),
    )));
    life.pass(MAX_AGE / 2);
    assert_eq!(life.cache_done(), []);
    life.handle(ManagerInput::Assignment(WatchEvent::Live));
    life.pass(Duration::from_secs(1));
    assert_eq!(life.cache_done().len(), 1);
}

#[test]
fn leave_removes_cache_file_and_restart_renews_it() {
    let mut life = remembering();
    life.handle(ManagerInput::Stop(Departure::Leave));
    life.pass(Duration::from_secs(5));
    assert!(!life.orders.contains(&"departed".into()), "not before that");
    assert_eq!(life.cache_done(), [CacheOrder::Erase]);
    assert!(life.orders.contains(&"departed".into()));

    let mut life = remembering();
    life.handle(ManagerInput::Stop(Departure::Restart));
    life.pass(Duration::from_secs(5));
    let kept = life.cache_done();
    assert!(
        matches!(&kept[..], [CacheOrder::Save { held, .. }] if held.partitions.len() == 2),
        "{kept:?}"
    );
    assert!(life.orders.contains(&"departed".into()));

    // Of one that serves what the file gave: that is over.
    let mut life = started_in_an_outage(&["a"]);
    life.handle(ManagerInput::Stop(Departure::Leave));
    life.run_until_idle();
    assert_eq!(life.cache_done(), [CacheOrder::Erase]);
    let mut life = started_in_an_outage(&["a"]);
    life.handle(ManagerInput::Stop(Departure::Restart));
    life.run_until_idle();
    assert_eq!(life.cache_done(), [], "no younger than it was");
}

#[test]
fn failed_start_keeps_cache_file_for_next_start() {
    let mut life = Life::new(config());
    life.handle(ManagerInput::Start);
    life.handle(ManagerInput::Cache(CacheAnswer::Loaded(None)));
    life.cache.clear();
    life.handle(ManagerInput::Stop(Departure::Leave));
    life.run_until_idle();
    assert_eq!(life.cache_done(), []);
    assert_eq!(life.orders, ["departed"]);
}

#[test]
fn lost_id_removes_cache_file() {
    let mut life = remembering();
    life.machine.id.verify();
    life.handle(ManagerInput::Lease(WatchEvent::Live));
    let (op, _) = life.take(is_look_at_id);
    life.answer(op, Answer::Read(Ok(Some(put("worker-0", "theirs")))));
    assert!(life.cache_done().contains(&CacheOrder::Erase));
    assert!(life.held().is_empty());
}

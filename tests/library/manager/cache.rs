//! Starting with a cache file while the store is unreachable.

use std::time::{Duration, Instant};

use divvy::error::Code;
use divvy::store::memory::{Blackout, Faults, MemoryStore};
use divvy::{Departure, Manager, ManagerConfig, ManagerEvent, ManagerState, OutagePolicy};
use tempfile::TempDir;

use crate::support::managers::*;

/// One worker with a cache file, and its connection to the store.
struct Remembering {
    folder: TempDir,
    manager: Manager,
    faults: Faults,
}

fn remembering(folder: &TempDir) -> ManagerConfig {
    let mut config = config();
    config.cache_file = Some(folder.path().join("assignment"));
    config
}

impl Remembering {
    fn new(store: &MemoryStore) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let client = store.client("remembers");
        let faults = client.faults();
        let manager = manager_over(client, remembering(&folder), 12);
        Self {
            folder,
            manager,
            faults,
        }
    }

    fn has_file(&self) -> bool {
        self.folder.path().join("assignment").exists()
    }
}

#[test]
fn worker_restarted_while_store_is_down_serves_at_once_and_nothing_moves() {
    let store = MemoryStore::new();
    let leader = started(&store);
    wait_until("it leads", || leader.is_leader());
    let it = Remembering::new(&store);
    it.manager.start(TIMEOUT).unwrap();
    wait_for_cover(&[&leader, &it.manager], 12);
    let (id, before) = (it.manager.worker_id(), it.manager.assignment());
    it.manager.stop(Departure::Restart, TIMEOUT).unwrap();
    assert!(it.has_file());

    it.faults.blackout(Blackout::Refuse);
    let begun = Instant::now();
    it.manager.start(TIMEOUT).unwrap();
    eprintln!("serving {:?} after the start", begun.elapsed());
    let reported = events(&it.manager);
    let served = it.manager.assignment();
    assert!(it.manager.is_started() && served.is_cached());
    assert_eq!(served.partitions, before.partitions);
    assert_eq!(served.version, before.version);
    assert_eq!(it.manager.worker_id(), id);
    it.manager
        .wait_state(ManagerState::Degraded, TIMEOUT)
        .unwrap();
    assert!(!it.manager.status().is_id_certain);

    it.faults.restore();
    let confirmed = wait_for(
        &reported,
        "the store's word",
        |notice| matches!(notice, ManagerEvent::AssignmentChanged(change) if !change.held.is_cached()),
    );
    let ManagerEvent::AssignmentChanged(change) = &*confirmed else {
        unreachable!("asked for");
    };
    assert_eq!((change.added.len(), change.removed.len()), (0, 0));
    assert_eq!(change.held, before);
    assert_eq!(it.manager.worker_id(), id);
    it.manager.stop(Departure::Leave, TIMEOUT).unwrap();
    assert!(!it.has_file(), "others have these partitions now");
}

#[test]
fn partitions_reassigned_meanwhile_are_released_when_store_returns() {
    let store = MemoryStore::new();
    let leader = started(&store);
    wait_until("it leads", || leader.is_leader());
    let it = Remembering::new(&store);
    it.manager.start(TIMEOUT).unwrap();
    wait_for_cover(&[&leader, &it.manager], 12);
    it.manager.stop(Departure::Restart, TIMEOUT).unwrap();
    wait_for_cover(&[&leader], 12);
    it.faults.blackout(Blackout::Hang);
    it.manager.start(TIMEOUT).unwrap();
    assert_eq!(it.manager.assignment().partitions.len(), 6);
    it.faults.restore();
    wait_until("the store's word", || !it.manager.assignment().is_cached());
    wait_for_cover(&[&leader, &it.manager], 12);
}

#[test]
fn unusable_cache_file_is_treated_as_absent() {
    let store = MemoryStore::new();
    let it = Remembering::new(&store);
    std::fs::write(it.folder.path().join("assignment"), b"foreign text\n").unwrap();
    it.faults.blackout(Blackout::Refuse);
    let error = it.manager.start(Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.code(), Code::TimedOut);
    assert!(it.has_file(), "a foreign file is kept");
    it.faults.restore();
    it.manager.start(TIMEOUT).unwrap();
    wait_for_cover(&[&it.manager], 12);
    wait_until("a file of its own", || {
        let path = it.folder.path().join("assignment");
        std::fs::read_to_string(path).is_ok_and(|text| text.contains("worker-0"))
    });
}

#[test]
fn missing_cache_directory_costs_no_heartbeat() {
    let store = MemoryStore::new();
    let it = Remembering::new(&store);
    std::fs::remove_dir_all(it.folder.path()).unwrap();
    it.manager.start(TIMEOUT).unwrap();
    wait_for_cover(&[&it.manager], 12);
    it.manager.stop(Departure::Leave, TIMEOUT).unwrap();
}

#[test]
fn strict_worker_with_cache_file_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = remembering(&folder);
    config.outage_policy = OutagePolicy::Strict;
    let store = std::sync::Arc::new(MemoryStore::new());
    let error = Manager::builder(store).config(config).build().unwrap_err();
    assert_eq!(error.code(), Code::InvalidConfig);
    assert!(error.to_string().contains("cache_file"), "{error}");
}

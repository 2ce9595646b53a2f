//! The number of threads of one manager. The threads of the store are additional, and so are those
//! of `dv-io` while a store answers slowly.

use std::sync::Arc;
use std::time::Duration;

use divvy::store::memory::MemoryStore;
use divvy::{Departure, Manager, ManagerConfig, ManagerEventFilter};

use crate::support::calculators::{TIMEOUT, wait_until};
use crate::{alone, own_threads};

const FOLLOWER: [&str; 3] = ["dv-io", "dv-member", "dv-notify"];
const LEADER: [&str; 7] = [
    "dv-calc",
    "dv-io",
    "dv-member",
    "dv-notify",
    "dv-publish",
    "dv-source",
    "dv-watch",
];

fn manager(may_lead: bool) -> Manager {
    let mut config = ManagerConfig::default();
    config.may_lead = may_lead;
    config.heartbeat_interval = Duration::from_millis(200);
    Manager::builder(Arc::new(MemoryStore::new()))
        .config(config)
        .source(|| Ok(Vec::new()))
        .build()
        .unwrap()
}

#[test]
fn follower_has_three_threads_leader_has_seven_and_stop_joins_them() {
    let _alone = alone();
    let follower = manager(false);
    // Callbacks and readers need no additional thread.
    let heard = follower.subscribe(ManagerEventFilter::WorkerAndCalculator, |_| {});
    let events = follower.events(ManagerEventFilter::WorkerAndCalculator);
    follower.start(TIMEOUT).unwrap();
    wait_until("three threads", || own_threads() == FOLLOWER);
    follower.stop(Departure::Leave, TIMEOUT).unwrap();
    assert_eq!(own_threads(), [""; 0]);
    drop((heard, events));

    let leader = manager(true);
    leader.start(TIMEOUT).unwrap();
    wait_until("it leads", || leader.is_leader());
    wait_until("seven threads", || own_threads() == LEADER);
    leader.stop(Departure::Leave, TIMEOUT).unwrap();
    assert_eq!(own_threads(), [""; 0]);
}

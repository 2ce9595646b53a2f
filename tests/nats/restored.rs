//! The data of the servers is replaced by an older copy while the fleet runs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use divvy::runtime::Events;
use divvy::store::ManageBuckets;
use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::{CalculatorEvent, Departure, Manager, ManagerConfig, ManagerEvent};

use crate::support::managers::{
    TIMEOUT, events, manager_over, partitions, wait_for_cover, wait_until,
};
use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::{Cluster, Server};

const WORKERS: usize = 3;
const PARTITIONS: usize = 12;

fn config() -> ManagerConfig {
    let mut config = crate::support::managers::config();
    // Claims outlive the restart, so the copy still contains them.
    config.worker_id_ttl = Duration::from_secs(120);
    config.calculator.heartbeat_ttl = Duration::from_secs(2);
    config.heartbeat_interval = Duration::from_millis(400);
    config.election_timeout = Duration::from_secs(1);
    config
}

/// The highest published version; each must be published at most once.
struct Published {
    events: Vec<Events<ManagerEvent>>,
    versions: BTreeSet<i64>,
}

impl Published {
    fn of(managers: &[Manager]) -> Self {
        Self {
            events: managers.iter().map(events).collect(),
            versions: BTreeSet::new(),
        }
    }

    /// Reads the events. No version may repeat or decrease, and no id may be lost.
    fn highest(&mut self) -> i64 {
        for events in &self.events {
            while let Some(event) = events.try_recv() {
                match &*event {
                    ManagerEvent::Calculator(CalculatorEvent::Published { version, .. }) => {
                        assert!(self.versions.insert(*version), "version {version} twice");
                    }
                    ManagerEvent::IdLost { worker } => panic!("{worker} lost its id"),
                    _ => {}
                }
            }
        }
        self.versions.last().copied().unwrap_or(0)
    }
}

fn trigger(managers: &[Manager]) -> i64 {
    let deadline = Instant::now() + TIMEOUT * 3;
    loop {
        let leader = managers.iter().find(|manager| manager.is_leader());
        match leader.map(|leader| leader.trigger_rebalance(TIMEOUT)) {
            Some(Ok(version)) => return version,
            other => assert!(Instant::now() < deadline, "no publication: {other:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ids(managers: &[Manager]) -> Vec<String> {
    let id = |manager: &Manager| manager.worker_id().map(|id| id.to_string());
    managers.iter().map(|m| id(m).unwrap_or_default()).collect()
}

fn held(managers: &[Manager]) -> Vec<Vec<String>> {
    let keys = |manager: &Manager| {
        let held = manager.assignment().partitions;
        held.iter().map(divvy::Partition::id).collect()
    };
    managers.iter().map(keys).collect()
}

/// The operation on the data of stopped servers.
#[derive(Clone, Copy, Debug)]
enum Data {
    Copied,
    Replaced,
}

fn survives(urls: Vec<String>, replicas: u32, mut data: impl FnMut(Data)) {
    let options = NatsOptions::new(urls)
        .replicas(replicas)
        .manage_buckets(ManageBuckets::Upgrade);
    let managers: Vec<Manager> = (0..WORKERS)
        .map(|_| {
            let deadline = Instant::now() + TIMEOUT;
            let store = NatsStore::connect(options.clone(), deadline).expect("a connection");
            let manager = manager_over(store, config(), PARTITIONS);
            manager.start(TIMEOUT).expect("it joins");
            manager
        })
        .collect();
    let all: Vec<&Manager> = managers.iter().collect();
    wait_for_cover(&all, partitions(PARTITIONS).len());
    let mut published = Published::of(&managers);
    trigger(&managers);
    data(Data::Copied);
    wait_until("a leader after the copy", || {
        managers.iter().any(Manager::is_leader)
    });
    for _ in 0..5 {
        trigger(&managers);
    }
    wait_for_cover(&all, partitions(PARTITIONS).len());
    let (before, ids_before, held_before) = (published.highest(), ids(&managers), held(&managers));
    data(Data::Replaced);
    let after = trigger(&managers);
    assert!(after > before, "version {after} after {before}");
    let settled = Instant::now() + Duration::from_secs(3);
    while Instant::now() < settled {
        published.highest();
        assert_eq!(held(&managers), held_before, "something moved");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(ids(&managers), ids_before);
    wait_until("every worker applied it or a later one", || {
        published.highest() >= after && managers.iter().all(|m| m.status().last_failure.is_none())
    });
    for manager in &managers {
        manager.stop(Departure::Leave, TIMEOUT).expect("it stops");
    }
}

#[test]
fn fleet_keeps_ids_and_partitions_and_counts_on_after_its_server_was_restored() {
    let mut server = Server::start(NEWEST);
    let mut copy = None;
    survives(vec![server.url()], 1, |what| {
        server.terminate();
        match what {
            Data::Copied => copy = Some(server.copy_data()),
            Data::Replaced => server.replace_data(copy.as_ref().expect("a copy")),
        }
        server.restart();
    });
}

#[test]
fn fleet_keeps_ids_and_partitions_and_counts_on_after_its_cluster_was_restored() {
    let mut cluster = Cluster::start(NEWEST);
    let mut copies = Vec::new();
    survives(cluster.urls(), 3, |what| {
        cluster.nodes.iter_mut().for_each(Server::terminate);
        match what {
            Data::Copied => copies = cluster.nodes.iter().map(Server::copy_data).collect(),
            Data::Replaced => {
                for (node, copy) in cluster.nodes.iter().zip(&copies) {
                    node.replace_data(copy);
                }
            }
        }
        // The cluster answers only when the other servers run.
        cluster.nodes.iter_mut().for_each(Server::restart);
        cluster.wait_healthy();
    });
}

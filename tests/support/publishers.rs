//! Publishers on real servers, and plans for them.

use std::sync::Arc;
use std::time::Duration;

use divvy::config::PublishMode;
use divvy::runtime::publish::publisher::{
    Effective, Publisher, PublisherEnvironment, PublisherSettings,
};
use divvy::store::Store;
use divvy::store::nats::NatsStore;
use divvy::strategy::Plan;
use divvy::wire::KeyPrefix;
use divvy::{Partition, WorkerId};

struct Real;

impl PublisherEnvironment for Real {
    fn wall_clock(&self) -> String {
        "2026-01-01T00:00:00Z".into()
    }

    fn pause(&self, duration: Duration) -> bool {
        std::thread::sleep(duration);
        true
    }
}

pub fn publisher(store: &Arc<NatsStore>, class: PublishMode) -> Publisher {
    publisher_sharing(store, class, Arc::default())
}

/// A publisher whose state `in_force` shows, as the watcher of its bucket has it.
pub fn publisher_sharing(
    store: &Arc<NatsStore>,
    class: PublishMode,
    in_force: Arc<Effective>,
) -> Publisher {
    let settings = PublisherSettings {
        leader: "divvy".into(),
        assignment: KeyPrefix::new("assignment").unwrap(),
        heartbeat: KeyPrefix::new("heartbeat").unwrap(),
        mode: class,
        batch_max: 1_000,
        heartbeat_ttl: std::time::Duration::from_secs(6),
    };
    Publisher::new(
        Arc::clone(store) as Arc<dyn Store>,
        Arc::new(Real),
        settings,
        in_force,
    )
}

/// One partition for each worker.
pub fn plan(names: &[&str]) -> Plan {
    let mut names = names.to_vec();
    names.sort_unstable();
    let workers: Vec<WorkerId> = names.iter().map(|n| WorkerId::new(n).unwrap()).collect();
    let partitions: Vec<Partition> = names.iter().map(|n| Partition::new([*n], 1)).collect();
    let owners = (0..).take(names.len()).collect();
    Plan::new(workers.into(), partitions.into(), owners).unwrap()
}

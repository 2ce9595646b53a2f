//! Rolling upgrades and downgrades of servers under a running fleet: divvy takes no stream offline.
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{Bucket, BucketConfig, ManageBuckets, Store};
use divvy::{Departure, Manager, ManagerConfig, Partition, Version};
use serde_json::Value;

use crate::support::nats_binary::{NEWEST, OLDEST};
use crate::support::nats_server::{Cluster, Server};
use crate::support::raw_nats::RawNats;

/// A server that takes a stream with `allow_atomic` offline.
const BEFORE_BATCHES: &str = "2.11.11";
const TIMEOUT: Duration = Duration::from_secs(30);

fn soon() -> Instant {
    Instant::now() + TIMEOUT
}

fn store(urls: &[String], manage: ManageBuckets) -> Arc<NatsStore> {
    let options = NatsOptions::new(urls.to_vec())
        .replicas(if urls.len() > 1 { 3 } else { 1 })
        .manage_buckets(manage);
    Arc::new(NatsStore::connect(options, soon()).expect("a connection"))
}

/// A worker that joins; the first one becomes the leader.
fn join(store: &Arc<NatsStore>) -> Manager {
    let mut config = ManagerConfig::default();
    config.calculator.cold_start_window = Duration::from_millis(500);
    config.calculator.planned_scale_window = Duration::from_millis(100);
    config.calculator.cooldown = Duration::from_millis(100);
    let partitions = || {
        Ok((0..20)
            .map(|n| Partition::new([format!("p{n}")], 1))
            .collect())
    };
    let manager = Manager::builder(Arc::clone(store) as Arc<dyn Store>)
        .config(config)
        .source(partitions)
        .build()
        .expect("a manager");
    manager.start(TIMEOUT).expect("it joins");
    manager
}

fn leads(manager: &Manager) {
    until("the worker leads", || {
        manager.is_leader() && manager.assignment().version > 0
    });
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = soon();
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Publishes. While a server is replaced this may take several attempts.
fn publish(leader: &Manager) -> Version {
    let deadline = soon();
    loop {
        match leader.trigger_rebalance(TIMEOUT) {
            Ok(version) => return version,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn mode(leader: &Manager) -> String {
    let status = leader.status().calculator.expect("it leads");
    status
        .publish_mode
        .map_or(String::new(), |class| format!("{class:?}"))
}

fn stream(bucket: Bucket) -> String {
    format!("KV_{}", bucket.default_name())
}

fn info(port: u16, bucket: Bucket) -> Value {
    RawNats::connect(port).api(&format!("STREAM.INFO.{}", stream(bucket)), "")
}

/// Returns whether every server has a current replica of the bucket and serves it.
fn is_online(nodes: &[Server], bucket: Bucket) -> bool {
    nodes.iter().all(|node| {
        let info = info(node.port, bucket);
        let replicas = info["cluster"]["replicas"].as_array().cloned();
        let replicas = replicas.unwrap_or_default();
        info["error"].is_null()
            && info["offline_reason"].is_null()
            && replicas.len() + 1 == nodes.len()
            && replicas
                .iter()
                .all(|replica| replica["current"] == true && replica["offline"] != true)
    })
}

fn all_online(nodes: &[Server]) {
    for bucket in Bucket::ALL {
        until(&format!("{bucket:?} is online everywhere"), || {
            is_online(nodes, bucket)
        });
    }
    for node in nodes {
        let log = node.log();
        assert!(!log.contains("unsupported"), "{log}");
    }
}

fn move_leader(port: u16, bucket: Bucket, to: &str) {
    until(&format!("{to} leads {bucket:?}"), || {
        if info(port, bucket)["cluster"]["leader"] == to {
            return true;
        }
        let api = format!("STREAM.LEADER.STEPDOWN.{}", stream(bucket));
        RawNats::connect(port).api(&api, "");
        thread::sleep(Duration::from_millis(300));
        false
    });
}

#[test]
fn fleet_survives_the_downgrade_of_its_only_server() {
    for old in [BEFORE_BATCHES, OLDEST] {
        let mut server = Server::start(NEWEST);
        let store = store(&[server.url()], ManageBuckets::Create);
        let worker = join(&store);
        leads(&worker);
        let before = publish(&worker);
        server.change_version(old);
        all_online(std::slice::from_ref(&server));
        until("the worker leads again", || worker.is_leader());
        assert!(publish(&worker) > before, "{old}");
        let listing = store
            .list(Bucket::Assignment, "assignment", soon())
            .unwrap();
        assert_eq!(listing.entries.iter().filter(|e| e.is_live()).count(), 1);
        worker.stop(Departure::Leave, TIMEOUT).unwrap();
    }
}

/// Reproduces the failure that this file guards against, to show that the checks detect it.
#[test]
fn bucket_with_batches_is_offline_on_an_older_server_until_it_is_reverted() {
    let mut server = Server::start(NEWEST);
    let client = store(&[server.url()], ManageBuckets::Create);
    client
        .ensure(Bucket::Assignment, BucketConfig { ttl: None }, soon())
        .unwrap();
    assert!(!client.upgrade_buckets(soon()).unwrap().is_blocked());
    server.change_version(BEFORE_BATCHES);
    assert!(!is_online(
        std::slice::from_ref(&server),
        Bucket::Assignment
    ));
    server.change_version(NEWEST);
    until("the bucket is online", || {
        is_online(std::slice::from_ref(&server), Bucket::Assignment)
    });
    until("it is reverted", || client.revert_buckets(soon()).is_ok());
    server.change_version(BEFORE_BATCHES);
    until("the bucket is online", || {
        is_online(std::slice::from_ref(&server), Bucket::Assignment)
    });
}

/// Upgrades node by node with workers that request upgrades, then downgrades.
#[test]
fn cluster_is_rolled_forward_and_back_and_no_stream_goes_offline() {
    let mut cluster = Cluster::of([BEFORE_BATCHES; 3]);
    let urls = cluster.urls();
    let client = store(&urls, ManageBuckets::Upgrade);
    let leader = join(&client);
    leads(&leader);
    publish(&leader);
    all_online(&cluster.nodes);
    let is_atomic = |port| info(port, Bucket::Assignment)["config"]["allow_atomic"] == true;

    // The canary first, with a worker started in between and the leader on the new node.
    for node in 0..2 {
        cluster.nodes[node].change_version(NEWEST);
        cluster.wait_healthy();
        let other = store(&urls, ManageBuckets::Upgrade);
        let worker = join(&other);
        let port = cluster.nodes[2].port;
        for bucket in Bucket::ALL {
            move_leader(port, bucket, &format!("n{node}"));
        }
        let blocked = other.upgrade_buckets(soon()).unwrap();
        assert!(blocked.is_blocked());
        assert!(
            blocked.plan().contains("older than 2.12.5"),
            "{}",
            blocked.plan()
        );
        publish(&leader);
        assert_eq!(mode(&leader), "PerKey");
        assert!(!is_atomic(port));
        all_online(&cluster.nodes);
        worker.stop(Departure::Leave, TIMEOUT).unwrap();
    }
    // The last node: from now on an upgrade is possible.
    cluster.nodes[2].change_version(NEWEST);
    cluster.wait_healthy();
    all_online(&cluster.nodes);
    until("every server is known", || {
        let report = client.upgrade_buckets(soon()).unwrap();
        !report.is_blocked()
    });
    assert!(is_atomic(cluster.nodes[0].port));
    let led = leader
        .status()
        .calculator
        .expect("it leads")
        .counters
        .publications;
    until("plans are atomic", || {
        publish(&leader);
        mode(&leader).starts_with("Atomic")
    });
    let status = leader.status().calculator.expect("it leads");
    assert!(
        status.counters.publications > led,
        "another leader took over"
    );

    // Downgrade: the operator reverts the buckets, then downgrades one server at a time: followers
    // first, then the leader.
    assert_eq!(client.revert_buckets(soon()).unwrap(), ["parti-assignment"]);
    publish(&leader);
    assert_eq!(mode(&leader), "PerKey");
    move_leader(cluster.nodes[0].port, Bucket::Assignment, "n2");
    for node in [1, 2] {
        cluster.nodes[node].change_version(BEFORE_BATCHES);
        cluster.wait_healthy();
        all_online(&cluster.nodes);
        publish(&leader);
    }
    leader.stop(Departure::Leave, TIMEOUT).unwrap();
}

#[test]
fn bucket_created_in_a_mixed_cluster_stays_online_on_every_server() {
    let cluster = Cluster::of([NEWEST, BEFORE_BATCHES, NEWEST]);
    let client = store(&cluster.urls(), ManageBuckets::Upgrade);
    let leader = join(&client);
    leads(&leader);
    publish(&leader);
    all_online(&cluster.nodes);
    let config = info(cluster.nodes[0].port, Bucket::Assignment)["config"].clone();
    assert_ne!(config["allow_atomic"], true);
    leader.stop(Departure::Leave, TIMEOUT).unwrap();
}

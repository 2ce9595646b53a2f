//! Three rival leaders on a cluster whose nodes are killed one by one.
//!
//! Runs for minutes, therefore only on request: `make rivals MINUTES=10`. Prints a table per
//! publish mode. It fails if a publication was acknowledged and lost, published partially, by a
//! deposed leader, or between the writes of another one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use divvy::Reason;
use divvy::config::PublishMode;
use divvy::error::{Code, Error};
use divvy::machine::publication::{BucketReading, plan_digest, plan_hashes};
use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{Bucket, BucketConfig, ManageBuckets, Store};
use divvy::types::{Term, Version};
use divvy::wire::KeyPrefix;

use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::Cluster;
use crate::support::publishers::{plan, publisher};

const RIVALS: usize = 3;
const BUCKET: Bucket = Bucket::Assignment;
const KILL_EVERY: Duration = Duration::from_secs(6);
const WORKERS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// An acknowledged publication.
struct Acked {
    term: Term,
    version: Version,
    digest: String,
    began: Instant,
    ended: Instant,
}

#[derive(Default)]
struct Log {
    acked: Vec<Acked>,
    take_overs: usize,
    looks: usize,
    failures: BTreeMap<&'static str, usize>,
    partial: Vec<String>,
}

impl Log {
    fn failed(&mut self, error: &Error) {
        *self.failures.entry(error.code().name()).or_default() += 1;
    }
}

#[test]
fn rival_leaders_on_failing_cluster_keep_plans_complete_and_in_order() {
    let minutes = std::env::var("DIVVY_RIVALS_MINUTES");
    let minutes: f64 = minutes.map_or(10.0, |text| text.parse().expect("a number"));
    println!("| class | publications | take-overs | kills | looks | failed attempts |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for class in [PublishMode::Atomic, PublishMode::PerKey] {
        fight(class, Duration::from_secs_f64(minutes * 60.0 / 2.0));
    }
}

fn fight(class: PublishMode, lasting: Duration) {
    let mut cluster = Cluster::start(NEWEST);
    let urls = cluster.urls();
    let store = rival(&urls);
    for bucket in [BUCKET, Bucket::Heartbeat] {
        let forever = BucketConfig { ttl: None };
        store
            .ensure(bucket, forever, in_secs(30))
            .expect("a bucket");
    }
    let log = Mutex::new(Log::default());
    let is_over = AtomicBool::new(false);
    let mut kills = 0;
    thread::scope(|scope| {
        for _ in 0..RIVALS {
            scope.spawn(|| contend(&rival(&urls), class, &log, &is_over));
        }
        let end = Instant::now() + lasting;
        while Instant::now() + KILL_EVERY < end {
            let node = fastrand::usize(0..3);
            cluster.nodes[node].kill();
            thread::sleep(KILL_EVERY / 3);
            cluster.nodes[node].restart();
            thread::sleep(KILL_EVERY * 2 / 3);
            kills += 1;
            eprintln!("{:?} left", end.saturating_duration_since(Instant::now()));
        }
        is_over.store(true, Ordering::SeqCst);
    });
    cluster.wait_healthy();
    let log = log.into_inner().expect("the log");
    println!(
        "| {class:?} | {} | {} | {kills} | {} | {:?} |",
        log.acked.len(),
        log.take_overs,
        log.looks,
        log.failures
    );
    judge(log, &store);
}

fn rival(urls: &[String]) -> Arc<NatsStore> {
    let options = NatsOptions::new(urls.to_vec())
        .replicas(3)
        .manage_buckets(ManageBuckets::Upgrade);
    Arc::new(NatsStore::connect(options, in_secs(30)).expect("a connection"))
}

fn in_secs(secs: u64) -> Instant {
    Instant::now() + Duration::from_secs(secs)
}

/// Takes over, publishes until another leader takes over, and takes over again.
fn contend(store: &Arc<NatsStore>, class: PublishMode, log: &Mutex<Log>, is_over: &AtomicBool) {
    let mut leader = publisher(store, class);
    while !is_over.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(fastrand::u64(0..800)));
        match leader.take_over(in_secs(10)) {
            Ok(_) => log.lock().expect("the log").take_overs += 1,
            Err(error) => {
                log.lock().expect("the log").failed(&error);
                continue;
            }
        }
        while !is_over.load(Ordering::SeqCst) {
            let mut names = WORKERS.to_vec();
            fastrand::shuffle(&mut names);
            let plan = plan(&names[..fastrand::usize(1..=WORKERS.len())]);
            let began = Instant::now();
            let result = leader.publish(&plan, Reason::ManualRefresh, in_secs(10));
            let ended = Instant::now();
            match result {
                Ok(version) => log.lock().expect("the log").acked.push(Acked {
                    term: leader.term(),
                    version,
                    digest: plan_digest(&plan, &plan_hashes(&plan)),
                    began,
                    ended,
                }),
                Err(error) => {
                    log.lock().expect("the log").failed(&error);
                    if error.code() == Code::Fenced {
                        break;
                    }
                }
            }
            if class == PublishMode::Atomic && fastrand::u8(0..10) == 0 {
                look(store, log);
            }
        }
    }
    store.stop(in_secs(10)).expect("all threads end");
}

/// A plan in atomic mode exists completely or not at all. On servers before 2.15 a listing may fall
/// between the writes of a batch, so an incomplete plan must be observed twice.
fn look(store: &NatsStore, log: &Mutex<Log>) {
    let prefix = KeyPrefix::new("assignment").expect("a prefix");
    let read = || {
        let listing = store.list(BUCKET, "", in_secs(10)).ok()?;
        Some(BucketReading::of(&listing, &prefix))
    };
    let Some(first) = read() else { return };
    log.lock().expect("the log").looks += 1;
    if first.is_consistent() {
        return;
    }
    if let Some(again) = read()
        && again.last_sequence == first.last_sequence
    {
        let what = format!("{:?} with {:?}", first.commit, first.slots);
        log.lock().expect("the log").partial.push(what);
    }
}

fn judge(mut log: Log, store: &NatsStore) {
    assert!(log.acked.len() > 20, "too little was published");
    assert_eq!(log.partial, [""; 0], "published in part");

    // Versions follow time: a publication that began after another was acknowledged has a higher
    // version.
    log.acked.sort_by_key(|acked| acked.began);
    let mut by_end: Vec<(Instant, Version)> =
        log.acked.iter().map(|a| (a.ended, a.version)).collect();
    by_end.sort_unstable();
    let (mut done, mut highest) = (0, 0);
    for acked in &log.acked {
        while by_end[done].0 < acked.began {
            highest = highest.max(by_end[done].1);
            done += 1;
        }
        assert!(acked.version > highest, "{} after {highest}", acked.version);
    }

    // Versions follow terms: no version of a deposed leader is above those of its successor.
    log.acked.sort_by_key(|acked| acked.version);
    for pair in log.acked.windows(2) {
        assert_ne!(pair[0].version, pair[1].version, "published twice");
        assert!(
            pair[0].term <= pair[1].term,
            "term {} after a later one",
            pair[1].term
        );
    }

    let listing = store.list(BUCKET, "", in_secs(30)).expect("the last state");
    let prefix = KeyPrefix::new("assignment").expect("a prefix");
    let reading = BucketReading::of(&listing, &prefix);
    let commit = reading.commit.value.expect("a commit record");
    let last = log.acked.last().expect("publications");
    assert!(
        commit.version >= last.version,
        "the last publication is lost"
    );
    if commit.version == last.version {
        assert_eq!(commit.digest, last.digest);
    }
    store.stop(in_secs(10)).expect("all threads end");
}

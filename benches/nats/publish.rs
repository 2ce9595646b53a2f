//! One publication, alternating between divvy and the raw client, and in the predecessor's way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use divvy::config::PublishMode;
use divvy::runtime::publish::publisher::Effective;
use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{Bucket, BucketConfig, ManageBuckets, Store};
use divvy::strategy::Plan;
use divvy::wire::{COMMIT_KEY, FENCE_KEY};
use divvy::{Partition, Reason, WorkerId};

use crate::raw::{Message, Raw};
use crate::support::nats_server::Server;
use crate::support::publishers::publisher_sharing;
use crate::{PREDECESSOR_MIN, RATIO_MAX, soon};

/// Times of equally many publications by divvy and by the raw client.
pub struct Times {
    divvy: Vec<Duration>,
    raw: Vec<Duration>,
    one_by_one: Vec<Duration>,
}

impl Times {
    pub fn print(mut self, name: &str) {
        let (divvy, raw) = (middle(&mut self.divvy), middle(&mut self.raw));
        let one_by_one = middle(&mut self.one_by_one);
        println!(
            "| {name} | {:.2} ({:.2}) | {:.2} ({:.2}) | {:.2} ({:.2}) | <= {RATIO_MAX} \
             | {:.1} | {:.1} | >= {PREDECESSOR_MIN} |",
            divvy.0,
            divvy.1,
            raw.0,
            raw.1,
            divvy.0 / raw.0,
            divvy.1 / raw.1,
            one_by_one.0,
            one_by_one.0 / divvy.0,
        );
    }
}

/// The median and the minimum, in milliseconds.
fn middle(times: &mut [Duration]) -> (f64, f64) {
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    (ms(times[times.len() / 2]), ms(times[0]))
}

/// Every publication changes every assignment, of about 430 bytes each.
pub fn measure(server: &Server, workers: usize, class: PublishMode, rounds: usize) -> Times {
    let kind = format!("{class:?}-{workers}");
    let store = connect(server, &format!("divvy-{kind}"));
    let plans = plans(workers);
    let in_force = Arc::<Effective>::default();
    let mut publisher = publisher_sharing(&store, class, Arc::clone(&in_force));
    publisher.take_over(soon()).expect("the take-over");
    // As for a leader whose watch of the bucket is synchronised.
    in_force.watch_resynchronised();
    let mut publish = |round: usize| {
        let plan = &plans[round % plans.len()];
        publisher
            .publish(plan, Reason::PlannedScale, soon())
            .expect("a publication");
    };
    publish(0);
    let mut raw = raw_like(server, &store, &format!("raw-{kind}"));
    let mut publish_raw = || match class {
        PublishMode::PerKey => raw.publish_singly(),
        _ => raw.publish_atomically(),
    };
    publish(1);
    publish_raw();
    publish_raw();
    let mut times = Times {
        divvy: Vec::new(),
        raw: Vec::new(),
        one_by_one: Vec::new(),
    };
    for round in 0..rounds {
        let began = Instant::now();
        publish(round);
        times.divvy.push(began.elapsed());
        let began = Instant::now();
        publish_raw();
        times.raw.push(began.elapsed());
    }
    // Fewer, because they take long.
    for _ in 0..rounds.div_ceil(5) {
        let began = Instant::now();
        raw.publish_one_by_one();
        times.one_by_one.push(began.elapsed());
    }
    times
}

/// Returns a store with its own assignment bucket.
fn connect(server: &Server, bucket: &str) -> Arc<NatsStore> {
    let options = NatsOptions::new([server.url()])
        .manage_buckets(ManageBuckets::Upgrade)
        .bucket_name(Bucket::Assignment, bucket);
    let store = NatsStore::connect(options, soon()).expect("a connection");
    for (bucket, ttl) in [
        (Bucket::Assignment, None),
        (Bucket::Heartbeat, Some(Duration::from_secs(6))),
    ] {
        store
            .ensure(bucket, BucketConfig { ttl }, soon())
            .expect("a bucket");
    }
    Arc::new(store)
}

/// Returns two plans with ten partitions per worker and no common ownership.
fn plans(workers: usize) -> [Plan; 2] {
    let ids: Arc<[WorkerId]> = (0..workers)
        .map(|i| WorkerId::new(&format!("worker-{i:05}")).expect("an id"))
        .collect();
    let partitions: Arc<[Partition]> = (0..10 * workers)
        .map(|i| Partition::new([format!("part-{i:05}")], 100))
        .collect();
    [0, 1].map(|shift| {
        let owner = |i: usize| u32::try_from((i + shift) % workers).expect("few workers");
        let owners = (0..partitions.len()).map(owner).collect();
        Plan::new(ids.clone(), partitions.clone(), owners).expect("a plan")
    })
}

/// Returns a raw client that publishes the content of the store's bucket to its own bucket.
fn raw_like(server: &Server, store: &NatsStore, bucket: &str) -> Raw {
    drop(connect(server, bucket));
    let subject = |key: &str| format!("$KV.{bucket}.{key}");
    let mut entries = store
        .list(Bucket::Assignment, "", soon())
        .expect("a listing")
        .entries;
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    let message = |entry: divvy::store::Entry| Message {
        subject: subject(&entry.key),
        payload: entry.value,
        revision: 0,
    };
    let mut leading = None;
    let mut messages = Vec::new();
    for entry in entries {
        match entry.key.as_str() {
            COMMIT_KEY => leading = Some(message(entry)),
            key if key.starts_with("assignment.") => messages.push(message(entry)),
            _ => {}
        }
    }
    let leading = leading.expect("a commit record");
    let bytes: usize = messages.iter().map(|m| m.payload.len()).sum();
    let mean = bytes / messages.len();
    assert!((400..=500).contains(&mean), "{mean} bytes each");
    Raw::new(server.port, subject(FENCE_KEY), leading, messages)
}

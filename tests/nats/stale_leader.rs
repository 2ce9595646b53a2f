//! A deposed leader cannot write to a real server: neither through its publisher, nor with the
//! requests that its publisher would send if it did not know of its deposition.
//!
//! `make stale` runs all attempts on all servers. `DIVVY_STALE_TRIES` (per server and mode) and
//! `DIVVY_NATS_VERSIONS` (separated by commas) select others.

use std::env;
use std::time::{Duration, Instant};

use divvy::Reason;
use divvy::config::PublishMode;
use divvy::error::Code;
use divvy::runtime::publish::publisher::ActiveMode;
use divvy::store::nats::NatsStore;
use divvy::store::{Batch, Bucket, BucketConfig, Expect, Listing, Outcome, Refusal, Store, Write};
use divvy::wire::{COMMIT_KEY, FENCE_KEY};

use crate::support::faults::connect;
use crate::support::nats_binary::{NEWEST, OLDEST};
use crate::support::nats_server::Server;
use crate::support::publishers::{plan, publisher};

const TRIES: usize = 500;
/// Each with its own deposed leader.
const ROUNDS: usize = 10;
/// Concurrent single writes.
const PIPELINED: usize = 50;
const BUCKET: Bucket = Bucket::Assignment;

#[test]
fn deposed_leader_cannot_publish() {
    let tries = env::var("DIVVY_STALE_TRIES").map_or(TRIES, |n| n.parse().expect("a number"));
    let versions = env::var("DIVVY_NATS_VERSIONS").unwrap_or(format!("{OLDEST},{NEWEST}"));
    println!("| server | class | tries | existing keys | deleted | never used | accepted |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for version in versions.split(',') {
        let server = Server::start(version);
        let store = connect(&server.url());
        for bucket in [BUCKET, Bucket::Heartbeat] {
            let forever = BucketConfig { ttl: None };
            store.ensure(bucket, forever, later()).unwrap();
        }
        let proven = store.capabilities(BUCKET, later()).unwrap();
        let mut classes = vec![PublishMode::PerKey];
        if proven.batch_max >= 2 {
            classes.push(PublishMode::Atomic);
        }
        assert!(version != NEWEST || classes.len() == 2, "{proven:?}");
        for class in classes {
            let tally = depose_and_try(&server, class, tries);
            let [existing, deleted, unused] = tally.refused;
            println!(
                "| {version} | {class:?} | {} | {existing} | {deleted} | {unused} | {} |",
                existing + deleted + unused + tally.accepted,
                tally.accepted
            );
            assert_eq!(tally.accepted, 0, "{version}, class {class:?}");
            assert!(tally.refused.iter().all(|&n| n >= tries / 4), "{tally:?}");
        }
    }
}

/// The outcomes for existing, deleted and unused keys.
#[derive(Debug, Default)]
struct Tally {
    refused: [usize; 3],
    accepted: usize,
}

impl Tally {
    fn count(&mut self, kind: usize, outcome: &Outcome) {
        match outcome {
            Outcome::Refused(Refusal::Conflict) => self.refused[kind] += 1,
            Outcome::Done(_) => self.accepted += 1,
            // A refusal for another reason would prove nothing.
            other => panic!("neither accepted nor refused for being stale: {other:?}"),
        }
    }
}

fn depose_and_try(server: &Server, class: PublishMode, tries: usize) -> Tally {
    let stores = [connect(&server.url()), connect(&server.url())];
    let mut tally = Tally::default();
    for round in 0..ROUNDS {
        let mut old = publisher(&stores[0], class);
        let plans = [
            plan(&["kept-1", "kept-2", "departed"]),
            plan(&["kept-1", "kept-2"]),
        ];
        old.take_over(later()).unwrap();
        assert_eq!(
            old.mode() == ActiveMode::PerKey,
            class == PublishMode::PerKey
        );
        for plan in &plans {
            old.publish(plan, Reason::PlannedScale, later()).unwrap();
        }
        let known = Knowledge::of(&stores[0]);

        let mut new = publisher(&stores[1], class);
        new.take_over(later()).unwrap();
        let before = stores[1].list(BUCKET, "", later()).unwrap();
        let newest = Knowledge(before.clone());
        let count = tries.div_ceil(ROUNDS);
        match class {
            PublishMode::PerKey => try_singly(&stores[0], &known, round, count, &mut tally),
            _ => try_atomically(&stores[0], [&known, &newest], round, count, &mut tally),
        }
        for _ in 0..2 {
            let plan = plan(&["kept-1", "departed", &format!("unused-{round}")]);
            let error = old.publish(&plan, Reason::PlannedScale, later());
            assert_eq!(error.unwrap_err().code(), Code::Fenced);
        }
        let after = stores[1].list(BUCKET, "", later()).unwrap();
        assert_eq!(
            after.last_sequence, before.last_sequence,
            "something was stored"
        );

        // The same requests with the knowledge of the new leader are accepted, so the stale
        // revisions caused the refusals.
        let mut control = Tally::default();
        match class {
            PublishMode::PerKey => try_singly(&stores[1], &newest, round, 1, &mut control),
            _ => try_atomically(&stores[1], [&newest, &newest], round, 1, &mut control),
        }
        assert_eq!(control.accepted, 1, "{control:?}");
        new.take_over(later()).unwrap();
        new.publish(
            &plan(&["kept-2", "departed"]),
            Reason::PlannedScale,
            later(),
        )
        .unwrap();
    }
    tally
}

/// Per-key mode: an existing key on its revision, a key without a value on the last sequence of the
/// bucket.
fn try_singly(store: &NatsStore, known: &Knowledge, round: usize, count: usize, to: &mut Tally) {
    let tries: Vec<(usize, Write)> = (0..count)
        .map(|n| {
            let (kind, key) = target(round, n);
            let expect = match kind {
                0 => Expect::Revision(known.revision(&key)),
                _ => Expect::LastSequence(known.0.last_sequence),
            };
            (kind, write(key, expect))
        })
        .collect();
    for tries in tries.chunks(PIPELINED) {
        let writes: Vec<Write> = tries.iter().map(|(_, write)| write.clone()).collect();
        let outcomes = store.write(BUCKET, &writes, later());
        assert_eq!(outcomes.len(), writes.len());
        for ((kind, _), outcome) in tries.iter().zip(&outcomes) {
            to.count(*kind, outcome);
        }
    }
}

/// Atomic mode: the commit record on the fence, then a key on its revision, alternately the
/// revision known to the deposed leader and the current one, so that only the fence causes the
/// refusal.
fn try_atomically(
    store: &NatsStore,
    known: [&Knowledge; 2],
    round: usize,
    count: usize,
    to: &mut Tally,
) {
    for n in 0..count {
        let (kind, key) = target(round, n);
        let revision = known[n / 3 % 2].revision(&key);
        let batch = Batch {
            fence: Some((FENCE_KEY.into(), known[0].revision(FENCE_KEY))),
            writes: vec![
                write(COMMIT_KEY.into(), Expect::Any),
                write(key, Expect::Revision(revision)),
            ],
        };
        to.count(kind, &store.write_batch(BUCKET, &batch, later()));
    }
}

/// The key of an attempt: existing, deleted, or unused.
fn target(round: usize, n: usize) -> (usize, String) {
    match n % 3 {
        0 => (0, format!("assignment.kept-{}", 1 + n / 3 % 2)),
        1 => (1, "assignment.departed".into()),
        _ => (2, format!("assignment.unused-{round}-{n}")),
    }
}

fn write(key: String, expect: Expect) -> Write {
    Write {
        key,
        value: Some(b"{\"stale\":true}".to_vec()),
        expect,
    }
}

/// The state of the bucket as known to a leader.
struct Knowledge(Listing);

impl Knowledge {
    fn of(store: &NatsStore) -> Self {
        Self(store.list(BUCKET, "", later()).unwrap())
    }

    /// The last revision of a key, including its delete marker; 0 if it never existed.
    fn revision(&self, key: &str) -> u64 {
        let mut entries = self.0.entries.iter();
        entries.find(|e| e.key == key).map_or(0, |e| e.revision)
    }
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

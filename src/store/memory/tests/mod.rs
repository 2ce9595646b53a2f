//! Behaviour beyond the conformance suite: faults, operators, virtual time.

mod calls;
mod seeds;
mod watches;

use super::*;
use crate::store::{Operation, WatchEvent};
use crate::types::Revision;

const BUCKET: Bucket = Bucket::Heartbeat;
const TTL: Duration = Duration::from_secs(6);

/// A store in virtual time with one bucket with a TTL.
fn driven() -> (MemoryStore, ManualClock) {
    driven_by(MemoryStore::builder())
}

fn driven_by(builder: MemoryStoreBuilder) -> (MemoryStore, ManualClock) {
    let clock = ManualClock::new();
    let store = builder.manual_clock(clock.clone()).build();
    ensure(&store);
    (store, clock)
}

/// A store in real time with one bucket with a TTL.
fn timed() -> MemoryStore {
    let store = MemoryStore::new();
    ensure(&store);
    store
}

fn ensure(store: &MemoryStore) {
    let config = BucketConfig { ttl: Some(TTL) };
    store.ensure(BUCKET, config, soon()).unwrap();
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn put(key: &str, value: &str) -> Write {
    Write {
        key: key.to_owned(),
        value: Some(value.as_bytes().to_vec()),
        expect: Expect::Any,
    }
}

fn write(store: &MemoryStore, write: Write) -> Outcome {
    store.write(BUCKET, &[write], soon()).remove(0)
}

fn set(store: &MemoryStore, key: &str, value: &str) -> Revision {
    match write(store, put(key, value)) {
        Outcome::Done(revision) => revision,
        other => panic!("{other:?}"),
    }
}

fn value(store: &MemoryStore, key: &str) -> Option<String> {
    let entry = store.read(BUCKET, key, soon()).unwrap()?;
    Some(String::from_utf8(entry.value).unwrap())
}

/// What a watch has delivered by now, in short: `a=1`, `a-` (deleted), `a!` (expired), `a?`
/// (gone), `live`, `disconnected`.
fn delivered(watch: &Watch) -> Vec<String> {
    watch.events.try_iter().map(|event| short(&event)).collect()
}

fn short(event: &WatchEvent) -> String {
    match event {
        WatchEvent::Live => "live".to_owned(),
        WatchEvent::Disconnected(_) => "disconnected".to_owned(),
        WatchEvent::Change(entry) => match entry.operation {
            Operation::Put => format!("{}={}", entry.key, String::from_utf8_lossy(&entry.value)),
            Operation::Delete => format!("{}-", entry.key),
            Operation::Expired => format!("{}!", entry.key),
            Operation::Gone => format!("{}?", entry.key),
        },
    }
}

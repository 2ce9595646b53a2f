//! The memory store satisfies the contract of `divvy::store`, with and without atomic batches, with
//! and without expiry markers, in virtual time and in real time.

use std::sync::Arc;
use std::time::Duration;

use divvy::store::memory::{MemoryStore, MemoryStoreBuilder};
use divvy::store::{Bucket, BucketConfig, Store};
use divvy::time::clock::ManualClock;

use crate::conformance;

struct Memory {
    store: MemoryStore,
    clock: Option<ManualClock>,
    batches: bool,
    expiry_markers: bool,
}

impl Memory {
    fn new(builder: MemoryStoreBuilder, batches: bool, expiry_markers: bool) -> Self {
        let mut builder = builder.expiry_markers(expiry_markers);
        if !batches {
            builder = builder.batch_max(0);
        }
        Self {
            store: builder.build(),
            clock: None,
            batches,
            expiry_markers,
        }
    }

    fn timed(batches: bool, expiry_markers: bool) -> Self {
        Self::new(MemoryStore::builder(), batches, expiry_markers)
    }

    fn driven(batches: bool, expiry_markers: bool) -> Self {
        let clock = ManualClock::new();
        let builder = MemoryStore::builder().manual_clock(clock.clone());
        Self {
            clock: Some(clock),
            ..Self::new(builder, batches, expiry_markers)
        }
    }
}

impl conformance::Fixture for Memory {
    fn client(&self) -> Arc<dyn Store> {
        Arc::new(self.store.client("under test"))
    }

    fn batches(&self) -> bool {
        self.batches
    }

    fn expiry_markers(&self) -> bool {
        self.expiry_markers
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn pass(&self, time: Duration) {
        match &self.clock {
            Some(clock) => {
                clock.advance(time);
                self.store.tick();
            }
            None => std::thread::sleep(time),
        }
    }

    fn idle(&self) {
        if self.clock.is_some() {
            self.store.tick();
        }
    }

    fn watch_max(&self) -> usize {
        1_024
    }

    fn put_raw(&self, bucket: Bucket, key: &str, value: &[u8]) {
        self.store.server().put(bucket, key, value);
    }

    fn recreate(&self, bucket: Bucket, config: BucketConfig) {
        self.store.server().recreate_bucket(bucket, config);
    }
}

store_conformance!(driven, Memory::driven(true, false));
store_conformance!(driven_with_expiry_markers, Memory::driven(true, true));
store_conformance!(driven_without_batches, Memory::driven(false, false));
store_conformance!(
    driven_without_batches_with_expiry_markers,
    Memory::driven(false, true)
);
store_conformance!(timed, Memory::timed(true, false));
store_conformance!(timed_with_expiry_markers, Memory::timed(true, true));

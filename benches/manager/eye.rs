//! Observes the writes of a fleet, with their times.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use divvy::store::nats::NatsStore;
use divvy::store::{Bucket, Entry, Store, WatchEvent};
use divvy::wire::Assignment;

/// A watch of everything that a fleet of divvy writes.
pub struct Eye {
    /// The changes with their times, recorded continuously.
    seen: Receiver<(Bucket, Instant, WatchEvent)>,
    /// When each key was written.
    written: BTreeMap<(&'static str, String), Vec<Instant>>,
    held: BTreeMap<String, BTreeSet<String>>,
    /// When the last fence record was written.
    fenced: Instant,
}

impl Eye {
    pub fn new(store: &Arc<NatsStore>) -> Self {
        let (see, seen) = unbounded();
        for bucket in [Bucket::Heartbeat, Bucket::Election, Bucket::Assignment] {
            let watch = store.watch(bucket, "").expect("a watch");
            let see = see.clone();
            // Ends with the store.
            std::thread::spawn(move || {
                for event in &watch.events {
                    if see.send((bucket, Instant::now(), event)).is_err() {
                        return;
                    }
                }
            });
        }
        Self {
            seen,
            written: BTreeMap::new(),
            held: BTreeMap::new(),
            fenced: Instant::now(),
        }
    }

    /// Waits until the condition holds, and returns when it did.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> Instant {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds(self) {
            let seen = self.seen.recv_deadline(deadline);
            self.take(seen.unwrap_or_else(|_| panic!("never: {what}")));
        }
        Instant::now()
    }

    /// Reads the existing content.
    pub fn catch_up(&mut self) {
        while let Ok(seen) = self.seen.try_recv() {
            self.take(seen);
        }
    }

    fn take(&mut self, (bucket, came, event): (Bucket, Instant, WatchEvent)) {
        let WatchEvent::Change(entry) = event else {
            return;
        };
        if entry.is_live() {
            let place = (bucket.default_name(), entry.key.clone());
            let at = came - entry.age.unwrap_or_default();
            self.written.entry(place).or_default().push(at);
        }
        if bucket == Bucket::Assignment {
            self.assigned(&entry, came);
        }
    }

    fn assigned(&mut self, entry: &Entry, came: Instant) {
        if entry.key == "divvy.fence" {
            self.fenced = came;
        }
        let Some(worker) = entry.key.strip_prefix("assignment.") else {
            return;
        };
        let read = entry
            .is_live()
            .then(|| Assignment::decode(&entry.value).expect("an assignment"));
        let held = read.map(|read| read.partitions.iter().map(|p| p.subject()).collect());
        match held {
            Some(held) => self.held.insert(worker.into(), held),
            None => self.held.remove(worker),
        };
    }

    /// Returns how old the last heartbeat of a killed worker was. Called afterwards, when writes in
    /// flight have arrived.
    pub fn age_of_beat(&self, worker: &str, killed: Instant) -> Duration {
        self.age(Bucket::Heartbeat, &format!("heartbeat.{worker}"), killed)
    }

    /// As above, for the leader's lease.
    pub fn age_of_lease(&self, killed: Instant) -> Duration {
        self.age(Bucket::Election, "leader", killed)
    }

    fn age(&self, bucket: Bucket, key: &str, killed: Instant) -> Duration {
        // A write sent before may have been stored right after.
        let until = killed + Duration::from_millis(50);
        let written = &self.written[&(bucket.default_name(), key.into())];
        let before = written.iter().filter(|&&at| at < until);
        killed.saturating_duration_since(*before.max().expect("it was written"))
    }

    pub fn held(&self, worker: &str) -> BTreeSet<String> {
        self.held.get(worker).cloned().unwrap_or_default()
    }

    /// Returns whether other workers own the partitions of this worker.
    pub fn is_taken_over(&self, worker: &str, what: &BTreeSet<String>) -> bool {
        let others = self.held.iter().filter(|(name, _)| *name != worker);
        let theirs: BTreeSet<&String> = others.flat_map(|(_, held)| held).collect();
        what.iter().all(|partition| theirs.contains(partition))
    }

    pub fn fenced_since(&self, began: Instant) -> bool {
        self.fenced > began
    }
}

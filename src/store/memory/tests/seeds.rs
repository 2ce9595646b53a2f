//! Random histories under random faults: a recovered watch always has the current state.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::*;

/// The state that one reader builds from its watch.
struct Reader {
    watch: Watch,
    known: BTreeMap<String, (Revision, Vec<u8>)>,
    live: bool,
}

impl Reader {
    fn new(store: &MemoryStore, prefix: &str) -> Self {
        Self {
            watch: store.watch(BUCKET, prefix).unwrap(),
            known: BTreeMap::new(),
            live: false,
        }
    }

    /// Reads up to `events_max` events and checks each against the contract.
    fn read(&mut self, events_max: usize, trace: &mut String) {
        for event in self.watch.events.try_iter().take(events_max) {
            writeln!(trace, "{event:?}").unwrap();
            match event {
                WatchEvent::Live => {
                    assert!(!self.live, "live twice");
                    self.live = true;
                }
                WatchEvent::Disconnected(_) => self.live = false,
                WatchEvent::Change(entry) if entry.operation == Operation::Gone => {
                    assert!(!self.live, "`Gone` while live");
                    let known = self.known.remove(&entry.key);
                    assert_eq!(known.map(|k| k.0), Some(entry.revision));
                }
                WatchEvent::Change(entry) => {
                    let before = self.known.remove(&entry.key);
                    if entry.is_live() {
                        let now = (entry.revision, entry.value);
                        assert_ne!(before.as_ref(), Some(&now), "delivered twice");
                        self.known.insert(entry.key, now);
                    }
                }
            }
        }
    }
}

struct History {
    store: MemoryStore,
    clock: ManualClock,
    clients: Vec<MemoryStore>,
    readers: Vec<Reader>,
    random: fastrand::Rng,
    trace: String,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let builder = MemoryStore::builder()
            .expiry_markers(random.bool())
            .watch_capacity(random.usize(1..8));
        let (store, clock) = driven_by(builder);
        let clients: Vec<_> = (0..3).map(|i| store.client(&format!("{i}"))).collect();
        let readers = clients
            .iter()
            .flat_map(|client| ["", "p"].map(|prefix| Reader::new(client, prefix)))
            .collect();
        Self {
            store,
            clock,
            clients,
            readers,
            random,
            trace: String::new(),
        }
    }

    fn step(&mut self) {
        let random = &mut self.random;
        let client = &self.clients[random.usize(..self.clients.len())];
        let (faults, server) = (client.faults(), self.store.server());
        let span = Duration::from_millis(random.u64(0..4_000));
        match random.u8(..24) {
            0..=9 => self.write(),
            10 => self.clock.advance(span),
            11 => faults.lose_watch_events(random.u64(..3)),
            12 => faults.delay_watch_events(span),
            13 => faults.disconnect_watches("random"),
            14 => faults.recover_watches(),
            15 => faults.blackout(Blackout::Hang),
            16 => faults.restore(),
            17 => faults.next(&Call::ALL, 2, Fault::Hold(random.bool().then_some(span))),
            18 => faults.release_held(),
            19 if random.u8(..4) == 0 => server.purge(BUCKET),
            20 if random.u8(..4) == 0 => server.delete_bucket(BUCKET),
            21 => drop(client.ensure(BUCKET, BucketConfig { ttl: Some(TTL) }, soon())),
            _ => {
                let reader = random.usize(..self.readers.len());
                let events_max = random.usize(..10);
                self.store.tick();
                self.readers[reader].read(events_max, &mut self.trace);
            }
        }
    }

    fn write(&mut self) {
        let random = &mut self.random;
        let client = &self.clients[random.usize(..self.clients.len())];
        let key = ["p.a", "p.b", "p.c", "q", "px.a"][random.usize(..5)];
        let write = Write {
            key: key.to_owned(),
            value: (random.u8(..5) > 0).then(|| vec![random.u8(..)]),
            expect: match random.u8(..4) {
                0 => Expect::Revision(random.u64(..20)),
                _ => Expect::Any,
            },
        };
        let outcomes = client.write(BUCKET, &[write], soon());
        writeln!(self.trace, "{outcomes:?}").unwrap();
    }

    /// Ends all faults, resynchronises all watches and compares what they know with the store.
    fn finish(&mut self) {
        for client in &self.clients {
            client.faults().clear();
            client.faults().disconnect_watches("the last time");
            client.faults().recover_watches();
        }
        ensure(&self.store);
        for reader in &mut self.readers {
            // Each round of this makes room for at least one more event.
            for _ in 0..100 {
                self.store.tick();
                reader.read(usize::MAX, &mut self.trace);
            }
            assert!(reader.live);
        }
        for (reader, prefix) in self.readers.iter().zip(["", "p"].into_iter().cycle()) {
            let listing = self.store.list(BUCKET, prefix, soon()).unwrap();
            let truth: BTreeMap<_, _> = listing
                .entries
                .into_iter()
                .filter(Entry::is_live)
                .map(|entry| (entry.key, (entry.revision, entry.value)))
                .collect();
            assert_eq!(reader.known, truth);
        }
    }
}

fn run(seed: u64) -> String {
    let mut history = History::new(seed);
    for _ in 0..400 {
        history.step();
    }
    history.finish();
    history.trace
}

#[test]
fn recovered_watch_matches_store_after_any_history() {
    for seed in 0..300 {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "seed {seed} failed, see above");
    }
}

#[test]
fn same_calls_have_same_effects() {
    for seed in 0..20 {
        let trace = run(seed);
        assert!(trace.len() > 1_000);
        assert_eq!(trace, run(seed), "seed {seed}");
    }
}

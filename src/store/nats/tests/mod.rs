//! The store over a simulated server: from seeds, in virtual time, at the level of protocol bytes.
//!
//! Bytes arrive in pieces, connections are cut inside messages, acknowledgements come late and overtake
//! each other, the server is busy or has no leader. Whatever happens, each outcome that the store
//! reports agrees with what the server holds, no call outlasts its deadline, and a watch ends up with
//! the server's state.
//!
//! `make sim-store SEEDS=10000` runs more seeds.

mod server;
mod virtual_time;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, unbounded};
use fastrand::Rng;
use parking_lot::Mutex;

use self::server::{PREFIX, STREAM, Stored};
use self::virtual_time::World;
use super::consumer::Delivery;
use super::jetstream::Stream;
use super::link::Link;
use super::options::NatsOptions;
use super::read;
use super::session::Session;
use super::watch::{NatsWatch, WatchTarget};
use super::write::Target;
use crate::store::{Batch, Bucket, Entry, Expect, Operation, Outcome, WatchEvent, Write};
use crate::time::log_throttle::LogThrottle;
use crate::types::Revision;

/// Seeds of a run without further settings.
const SEEDS: u64 = 100;
const OPERATIONS: usize = 60;
const KEYS: [&str; 6] = ["a", "b", "c", "d.e", "d.f", "fence"];

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A write that was asked for, and what became of it.
struct Attempt {
    write: Write,
    outcome: Outcome,
    /// The batch that it is part of, and its place there.
    batch: Option<usize>,
}

struct Simulation {
    world: Arc<World>,
    random: Rng,
    session: Arc<Session>,
    link: Arc<Link>,
    connections: u64,
    watch: NatsWatch,
    events: Receiver<WatchEvent>,
    watched: Watched,
    attempts: Vec<Attempt>,
    /// Each batch: its fence, and how it ended.
    batches: Vec<(Option<(String, Revision)>, Outcome)>,
    /// The highest revision of each key that is known to be stored.
    known: BTreeMap<String, Revision>,
    values: u64,
}

/// What the reader of the watch has.
#[derive(Default)]
struct Watched {
    state: BTreeMap<String, Entry>,
    is_live: bool,
    losses: u32,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        fastrand::seed(seed);
        let world = World::new(seed);
        let options = NatsOptions::default().bucket_name(Bucket::Assignment, "b");
        let session = Session::new(options);
        let link = world.connect(1);
        session.connected(&link);
        let (sender, events) = unbounded();
        let target = WatchTarget {
            stream: STREAM.to_owned(),
            subject_prefix: PREFIX.to_owned(),
            filter: format!("{PREFIX}>"),
            delivery: Delivery::Pushed,
            events: sender,
            malformed: Mutex::new(LogThrottle::default()),
        };
        Self {
            world,
            random: Rng::with_seed(!seed),
            session,
            link,
            connections: 1,
            watch: NatsWatch::new(1, target),
            events,
            watched: Watched::default(),
            attempts: Vec::new(),
            batches: Vec::new(),
            known: BTreeMap::new(),
            values: 0,
        }
    }

    fn now(&self) -> Instant {
        self.world.state().now
    }

    fn stream(&self) -> Stream {
        Stream {
            link: Arc::clone(&self.link),
            name: STREAM.to_owned(),
            api: "$JS.API".to_owned(),
            write_prefix: String::new(),
            domain: None,
        }
    }

    /// Lets time pass until then; the session's thread works for the watch.
    fn pass(&mut self, until: Instant) {
        loop {
            let now = self.now();
            let Some(due) = self.watch.work(&self.session, now) else {
                panic!("the watch is over");
            };
            self.look(now);
            if self.watch.is_synchronising() {
                // Its thread moves the time on.
                let mut select = Select::new();
                self.watch.listen(&mut select, now);
                let ended = select.ready_timeout(Duration::from_secs(60));
                ended.expect("the listing ends by its deadline in virtual time");
                continue;
            }
            if now >= until {
                return;
            }
            let due = due.max(now + Duration::from_micros(1)).min(until);
            let next = self.world.next_due().map_or(due, |next| next.min(due));
            self.world.step(next.max(now));
        }
    }

    /// Applies what the watch has delivered.
    fn look(&mut self, now: Instant) {
        for event in self.events.try_iter() {
            match event {
                WatchEvent::Change(entry) => {
                    let state = self.world.state();
                    let is_stored = |stored: &Stored| {
                        stored.revision == entry.revision
                            && stored.key == entry.key
                            && stored.is_delete == (entry.operation == Operation::Delete)
                            && (stored.is_delete || stored.payload == entry.value)
                    };
                    assert!(
                        state.server.log.iter().any(is_stored),
                        "{entry:?} at {now:?}"
                    );
                    let before = self.watched.state.insert(entry.key.clone(), entry.clone());
                    let before = before.map_or(0, |before| before.revision);
                    assert!(before < entry.revision, "{entry:?} after {before}");
                }
                WatchEvent::Live => {
                    assert!(!self.watched.is_live, "live twice");
                    self.watched.is_live = true;
                }
                WatchEvent::Disconnected(_) => {
                    self.watched.losses += 1;
                    self.watched.is_live = false;
                }
            }
        }
    }

    fn reconnect(&mut self) {
        self.connections += 1;
        self.link = self.world.connect(self.connections);
        self.session.connected(&self.link);
        self.watch.reconnected(self.now());
    }

    fn key(&mut self) -> String {
        (*self.random.choice(KEYS).unwrap()).to_owned()
    }

    fn write(&mut self, key: String, by_last: bool) -> Write {
        self.values += 1;
        let known = self.known.get(&key).copied().unwrap_or(0);
        let expect = match self.random.u32(..10) {
            0..3 => Expect::Any,
            3..8 => Expect::Revision(known),
            8 if by_last => Expect::LastSequence(self.known.values().copied().max().unwrap_or(0)),
            _ => Expect::Revision(self.random.u64(..30)),
        };
        let padding = "x".repeat(self.random.usize(..400));
        let value = format!("v{} {padding}", self.values).into_bytes();
        let value = (self.random.u32(..10) > 0).then_some(value);
        Write { key, value, expect }
    }

    fn operate(&mut self) {
        if self.random.u32(..8) == 0 {
            let (connection, after) = (self.connections, self.random.u64(..40));
            self.world.state().cut_in(connection, after);
        }
        let deadline = self.now() + millis(self.random.u64(20..4_000));
        match self.random.u32(..10) {
            0..4 => self.write_some(deadline),
            4..6 => self.write_batch(deadline),
            6 | 7 => self.read(deadline),
            8 => self.list(deadline),
            _ => {}
        }
        assert_eq!(self.link.awaited(), 0, "a call has left a waiter behind");
        assert!(self.now() <= deadline, "a call outlasted its deadline");
        let until = self.now() + millis(self.random.u64(..1_500));
        self.pass(until);
        if self.link.is_dead() && self.random.u32(..4) > 0 {
            self.reconnect();
        }
    }

    fn write_some(&mut self, deadline: Instant) {
        let mut keys = KEYS;
        self.random.shuffle(&mut keys);
        let count = self.random.usize(1..=keys.len());
        let writes: Vec<Write> = keys[..count]
            .iter()
            .map(|key| self.write((*key).to_owned(), true))
            .collect();
        let stream = self.stream();
        let target = Target {
            stream: &stream,
            prefix: PREFIX,
            value_max: 1_000,
        };
        let outcomes = target.write(&writes, deadline);
        assert_eq!(outcomes.len(), writes.len());
        for (write, outcome) in writes.into_iter().zip(outcomes) {
            if let Outcome::Done(revision) = outcome {
                self.learn(&write.key, revision);
            }
            let batch = None;
            self.attempts.push(Attempt {
                write,
                outcome,
                batch,
            });
        }
    }

    fn write_batch(&mut self, deadline: Instant) {
        let mut keys = KEYS[..5].to_vec();
        self.random.shuffle(&mut keys);
        keys.truncate(self.random.usize(1..=5));
        let mut writes: Vec<Write> = keys
            .into_iter()
            .map(|key| self.write(key.to_owned(), false))
            .collect();
        let fence = self.known.get("fence").copied().unwrap_or(0);
        let fence = self.random.bool().then(|| ("fence".to_owned(), fence));
        if fence.is_some() {
            writes[0].expect = Expect::Any;
        }
        let batch = Batch { fence, writes };
        let surely = self.random.bool();
        let stream = self.stream();
        let target = Target {
            stream: &stream,
            prefix: PREFIX,
            value_max: 1_000,
        };
        let outcome = target.write_batch(&batch, surely, deadline);
        let count = batch.writes.len() as Revision;
        let number = self.batches.len();
        for (place, write) in (1..).zip(batch.writes) {
            let outcome = match &outcome {
                Outcome::Done(end) => Outcome::Done(end - count + place),
                other => other.clone(),
            };
            if let Outcome::Done(revision) = outcome {
                self.learn(&write.key, revision);
            }
            let batch = Some(number);
            self.attempts.push(Attempt {
                write,
                outcome,
                batch,
            });
        }
        self.batches.push((batch.fence, outcome));
    }

    fn learn(&mut self, key: &str, revision: Revision) {
        let known = self.known.entry(key.to_owned()).or_default();
        *known = revision.max(*known);
    }

    /// Checks that what was read is stored, and as new as what was known before.
    fn check_read(&mut self, key: &str, entry: Option<&Entry>) {
        let known = self.known.get(key).copied().unwrap_or(0);
        let Some(entry) = entry else {
            assert_eq!(known, 0, "{key} is stored and was not found");
            return;
        };
        assert!(entry.revision >= known, "{entry:?} is older than {known}");
        let state = self.world.state();
        let stored = &state.server.log[usize::try_from(entry.revision).unwrap() - 1];
        assert_eq!(stored.key, key);
        assert!(stored.is_delete || stored.payload == entry.value);
        drop(state);
        self.learn(key, entry.revision);
    }

    fn read(&mut self, deadline: Instant) {
        let key = self.key();
        let read = read::read(&self.stream(), &format!("{PREFIX}{key}"), &key, deadline);
        if let Ok(entry) = read {
            self.check_read(&key, entry.as_ref());
        }
    }

    fn list(&mut self, deadline: Instant) {
        let filter = format!("{PREFIX}>");
        let listed = read::list(&self.stream(), &filter, PREFIX.len(), deadline);
        let Ok(snapshot) = listed else { return };
        let newest = self.known.values().copied().max().unwrap_or(0);
        assert!(snapshot.listing.last_sequence >= newest);
        for key in KEYS {
            let mut entries = snapshot.listing.entries.iter();
            let entry = entries.find(|entry| entry.key == key).cloned();
            self.check_read(key, entry.as_ref());
        }
    }

    /// Compares every outcome with what the server has stored.
    fn check_outcomes(&self) {
        let state = self.world.state();
        let log = &state.server.log;
        let mut stored_in_batch: BTreeMap<usize, Vec<Option<Revision>>> = BTreeMap::new();
        for attempt in &self.attempts {
            let Some(value) = &attempt.write.value else {
                if let Outcome::Done(revision) = attempt.outcome {
                    let stored = &log[usize::try_from(revision).unwrap() - 1];
                    assert!(stored.is_delete && stored.key == attempt.write.key);
                }
                continue;
            };
            let is_it = |stored: &&Stored| stored.payload == *value;
            let found: Vec<&Stored> = log.iter().filter(is_it).collect();
            assert!(found.len() <= 1, "stored twice");
            let revision = found.first().map(|stored| stored.revision);
            match &attempt.outcome {
                Outcome::Done(done) => assert_eq!(revision, Some(*done)),
                Outcome::Refused(why) => assert_eq!(revision, None, "{why:?}"),
                Outcome::Unknown(_) => {}
            }
            if let (Some(revision), Expect::Revision(expected)) = (revision, attempt.write.expect) {
                let before = log[..usize::try_from(revision).unwrap() - 1].iter().rev();
                let mut of_key = before.filter(|stored| stored.key == attempt.write.key);
                let last = of_key.next().map_or(0, |stored| stored.revision);
                assert_eq!(last, expected, "stored against its condition");
            }
            if let (Some(revision), Expect::LastSequence(expected)) =
                (revision, attempt.write.expect)
            {
                assert_eq!(revision, expected + 1);
            }
            if let Some(batch) = attempt.batch {
                stored_in_batch.entry(batch).or_default().push(revision);
            }
        }
        for (batch, revisions) in stored_in_batch {
            let stored = revisions.iter().flatten().count();
            assert!(stored == 0 || stored == revisions.len(), "half a batch");
            let (fence, outcome) = &self.batches[batch];
            let first = revisions.iter().flatten().min();
            if let (Some((key, expected)), Some(first)) = (fence, first) {
                let before = log[..usize::try_from(*first).unwrap() - 1].iter().rev();
                let last = before
                    .filter(|stored| stored.key == *key)
                    .map(|s| s.revision);
                assert_eq!(last.max().unwrap_or(0), *expected, "{outcome:?}");
            }
        }
    }

    fn check_watch(&self) {
        assert!(self.watched.is_live, "the watch does not recover");
        let state = self.world.state();
        for (key, revision) in &state.server.last {
            let stored = &state.server.log[usize::try_from(*revision).unwrap() - 1];
            match self.watched.state.get(key) {
                Some(entry) => assert_eq!(entry.revision, *revision, "{key}"),
                // A key that is deleted before it was seen may be left out.
                None => assert!(stored.is_delete, "{key} was not delivered"),
            }
        }
    }
}

/// What a seed has covered.
#[derive(Default, Debug, PartialEq)]
struct Covered {
    done: usize,
    refused: usize,
    unknown: usize,
    losses: u32,
    connections: u64,
}

fn simulate(seed: u64) -> Covered {
    let mut simulation = Simulation::new(seed);
    for _ in 0..OPERATIONS {
        simulation.operate();
    }
    simulation.world.state().is_calm = true;
    let now = simulation.now();
    simulation.pass(now + Duration::from_secs(10)); // cuts that are still to come
    if simulation.link.is_dead() {
        simulation.reconnect();
    }
    let now = simulation.now();
    simulation.pass(now + Duration::from_secs(60));
    simulation.check_outcomes();
    simulation.check_watch();
    let count = |is: fn(&Outcome) -> bool| {
        let attempts = simulation.attempts.iter();
        attempts.filter(|attempt| is(&attempt.outcome)).count()
    };
    let covered = Covered {
        done: count(|outcome| matches!(outcome, Outcome::Done(_))),
        refused: count(|outcome| matches!(outcome, Outcome::Refused(_))),
        unknown: count(|outcome| matches!(outcome, Outcome::Unknown(_))),
        losses: simulation.watched.losses,
        connections: simulation.connections,
    };
    simulation.watch.end();
    covered
}

fn number(variable: &str, otherwise: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn outcomes_and_watches_agree_with_the_server_whatever_happens_to_the_bytes() {
    let start = number("DIVVY_START", 0);
    let mut total = Covered::default();
    for seed in start..start + number("DIVVY_SEEDS", SEEDS) {
        let covered = std::panic::catch_unwind(|| simulate(seed));
        let Ok(covered) = covered else {
            panic!("seed {seed}: replay it with `make sim-store START={seed} SEEDS=1`");
        };
        total.done += covered.done;
        total.refused += covered.refused;
        total.unknown += covered.unknown;
        total.losses += covered.losses;
        total.connections += covered.connections;
    }
    // Otherwise nothing of what this is about has happened.
    assert!(
        total.done > 0 && total.refused > 0 && total.unknown > 0,
        "{total:?}"
    );
    assert!(total.losses > 0 && total.connections > 0, "{total:?}");
}

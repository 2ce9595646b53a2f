//! The demo's workers: threads that know nothing of calculators, only the wire format. They write
//! heartbeats, watch the assignments and hold what theirs says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded, select, tick};
use divvy::store::{Bucket, Entry, Expect, Store, WatchEvent, Write};
use divvy::wire::{Applied, Assignment, encode_heartbeat};
use divvy::{Error, Partition, WorkerId};

use super::world::{BEAT_INTERVAL, Connection, World, soon};

/// What became of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It works.
    Up,
    /// It took its leave.
    Left,
    /// It stopped without a word.
    Crashed,
}

/// What a worker holds.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The assignment that it follows.
    pub applied: Applied,
    /// The partitions that this gives it.
    pub partitions: Vec<Partition>,
}

/// All workers that ever were.
pub struct Fleet {
    held: Arc<Mutex<BTreeMap<WorkerId, Held>>>,
    members: BTreeMap<WorkerId, Member>,
}

struct Member {
    condition: Condition,
    /// `None` once it is down.
    running: Option<Running>,
}

struct Running {
    connection: Connection,
    end: Sender<Condition>,
    thread: JoinHandle<()>,
}

impl Fleet {
    /// Nobody yet.
    pub fn new() -> Self {
        Self {
            held: Arc::default(),
            members: BTreeMap::new(),
        }
    }

    /// Starts a worker, or starts it again.
    pub fn start(&mut self, world: &World, id: &WorkerId) -> Result<(), Error> {
        let connection = world.connect(id.as_str())?;
        let (end, ended) = bounded(1);
        let worker = Worker {
            id: id.clone(),
            key: format!("assignment.{id}"),
            store: Arc::clone(&connection.store),
            held: Arc::clone(&self.held),
        };
        lock(&self.held).insert(id.clone(), Held::default());
        let thread = std::thread::spawn(move || worker.run(&ended));
        let member = Member {
            condition: Condition::Up,
            running: Some(Running {
                connection,
                end,
                thread,
            }),
        };
        self.members.insert(id.clone(), member);
        Ok(())
    }

    /// Ends workers, all at once: with a farewell (`Left`) or without (`Crashed`).
    pub fn end(&mut self, ids: &[WorkerId], how: Condition) {
        let mut ending = Vec::new();
        for id in ids {
            let Some(member) = self.members.get_mut(id) else {
                continue;
            };
            member.condition = how;
            if let Some(running) = member.running.take() {
                // Fails only when the thread has ended already.
                let _ = running.end.send(how);
                ending.push(running);
            }
        }
        for running in ending {
            let _ = running.thread.join();
        }
        let mut held = lock(&self.held);
        for id in ids {
            held.remove(id);
        }
    }

    /// The store freezes for all workers.
    pub fn freeze(&self) {
        for running in self.running() {
            running.connection.freeze();
        }
    }

    /// The store is back for all workers.
    pub fn thaw(&self) {
        for running in self.running() {
            running.connection.thaw();
        }
    }

    /// The workers that are up, in order.
    pub fn up(&self) -> Vec<WorkerId> {
        let up = self.members.iter().filter(|(_, m)| m.running.is_some());
        up.map(|(id, _)| id.clone()).collect()
    }

    /// Every worker and what became of it, in order.
    pub fn conditions(&self) -> impl Iterator<Item = (&WorkerId, Condition)> {
        self.members.iter().map(|(id, m)| (id, m.condition))
    }

    /// What each worker that is up holds.
    pub fn held(&self) -> BTreeMap<WorkerId, Held> {
        lock(&self.held).clone()
    }

    fn running(&self) -> impl Iterator<Item = &Running> {
        self.members.values().filter_map(|m| m.running.as_ref())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let up = self.up();
        self.end(&up, Condition::Left);
    }
}

/// The thread's own state.
struct Worker {
    id: WorkerId,
    key: String,
    store: Arc<dyn Store>,
    held: Arc<Mutex<BTreeMap<WorkerId, Held>>>,
}

impl Worker {
    fn run(&self, ended: &Receiver<Condition>) {
        // Fails only when the store was stopped.
        let Ok(watch) = self.store.watch(Bucket::Assignment, "assignment") else {
            return;
        };
        let beats = tick(BEAT_INTERVAL);
        self.beat();
        loop {
            select! {
                recv(ended) -> how => {
                    if how == Ok(Condition::Left) {
                        self.write_heartbeat(None, soon());
                    }
                    return;
                }
                recv(watch.events) -> event => match event {
                    Ok(WatchEvent::Change(entry)) if entry.key == self.key => self.apply(&entry),
                    Ok(_) => {}
                    Err(_) => return,
                },
                recv(beats) -> _ => self.beat(),
            }
        }
    }

    fn beat(&self) {
        let time = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
        let value = encode_heartbeat(&self.id, &time, self.applied());
        // A beat that fails is made up for by the next.
        self.write_heartbeat(Some(value), Instant::now() + BEAT_INTERVAL);
    }

    fn write_heartbeat(&self, value: Option<Vec<u8>>, deadline: Instant) {
        let write = Write {
            key: format!("heartbeat.{}", self.id),
            value,
            expect: Expect::Any,
        };
        let _ = self.store.write(Bucket::Heartbeat, &[write], deadline);
    }

    /// Follows a newer assignment; an older one, or a malformed one, changes nothing.
    fn apply(&self, entry: &Entry) {
        let mut all = lock(&self.held);
        let Some(held) = all.get_mut(&self.id) else {
            return;
        };
        if !entry.is_live() {
            held.partitions.clear();
            return;
        }
        let Ok(assignment) = Assignment::decode(&entry.value) else {
            return;
        };
        let offered = Applied {
            term: assignment.term.unwrap_or(held.applied.term),
            version: assignment.version,
        };
        if offered >= held.applied {
            held.applied = offered;
            held.partitions = assignment.partitions;
        }
    }

    fn applied(&self) -> Applied {
        lock(&self.held)
            .get(&self.id)
            .map(|held| held.applied)
            .unwrap_or_default()
    }
}

/// A panic elsewhere leaves nothing half-done under this lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

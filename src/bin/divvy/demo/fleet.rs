//! The demo's workers: managers, each with a connection of its own, any of which may lead.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use divvy::strategy::Sticky;
use divvy::{
    Departure, Error, Events, Held, Manager, ManagerConfig, ManagerEvent, ManagerEventFilter,
    ManagerState, Partition, WorkerId,
};

use super::world::{Connection, TIMEOUT, World};

/// The condition of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It works.
    Up,
    /// It left.
    Left,
    /// It left for a restart.
    Kept,
    /// It crashed.
    Crashed,
    /// It runs but cannot reach the store.
    Frozen,
}

/// All workers so far, by id.
pub struct Fleet {
    members: BTreeMap<WorkerId, Member>,
    /// What is left of workers that crashed.
    ending: Vec<JoinHandle<()>>,
}

struct Member {
    condition: Condition,
    events: Events<ManagerEvent>,
    /// `None` once it is down.
    running: Option<Running>,
}

struct Running {
    connection: Connection,
    manager: Manager,
}

/// A worker that is about to start.
pub struct Newcomer {
    connection: Connection,
    manager: Manager,
    events: Events<ManagerEvent>,
}

impl Newcomer {
    /// Connects it.
    pub fn new(world: &World, config: &ManagerConfig, list: &[Partition]) -> Result<Self, Error> {
        let connection = world.connect("worker")?;
        let list = list.to_vec();
        let manager = Manager::builder(Arc::clone(&connection.store))
            .config(config.clone())
            .strategy(Sticky::new())
            .source(move || Ok(list.clone()))
            .build()?;
        let events = manager.events(ManagerEventFilter::WorkerAndCalculator);
        Ok(Self {
            connection,
            manager,
            events,
        })
    }
}

impl Fleet {
    /// An empty fleet.
    pub fn new() -> Self {
        Self {
            members: BTreeMap::new(),
            ending: Vec::new(),
        }
    }

    /// Starts a worker; the id that it has.
    pub fn start(&mut self, newcomer: Newcomer) -> Result<WorkerId, Error> {
        let Newcomer {
            connection,
            manager,
            events,
        } = newcomer;
        manager.start(TIMEOUT)?;
        // It has one when its start has succeeded, unless it lost it again at once.
        let id = manager.worker_id().ok_or_else(|| {
            Error::new(
                divvy::error::Code::IdLost,
                "a worker has lost its id at once",
            )
        })?;
        let member = Member {
            condition: Condition::Up,
            events,
            running: Some(Running {
                connection,
                manager,
            }),
        };
        self.members.insert(id.clone(), member);
        Ok(id)
    }

    /// Ends workers, all at once.
    pub fn end(&mut self, ids: &[WorkerId], how: Condition) -> Result<(), Error> {
        let mut leaving = Vec::new();
        for id in ids {
            let Some(member) = self.members.get_mut(id) else {
                continue;
            };
            member.condition = how;
            let Some(Running {
                connection,
                manager,
            }) = member.running.take()
            else {
                continue;
            };
            if how == Condition::Crashed {
                // Nothing that it writes from now on reaches the store: to the others, its process
                // was killed.
                connection.sever();
                self.ending.push(std::thread::spawn(move || {
                    let _ = manager.stop(Departure::Restart, TIMEOUT);
                }));
                continue;
            }
            let departure = match how {
                Condition::Left => Departure::Leave,
                _ => Departure::Restart,
            };
            leaving.push(std::thread::spawn(move || {
                let left = manager.stop(departure, TIMEOUT);
                drop(connection);
                left
            }));
        }
        let mut all = Ok(());
        for thread in leaving {
            // The library has reported a panic there.
            all = all.and(thread.join().unwrap_or(Ok(())));
        }
        all
    }

    /// The store freezes for this worker.
    pub fn freeze(&mut self, id: &WorkerId) {
        if let Some(member) = self.members.get_mut(id)
            && let Some(running) = &member.running
        {
            running.connection.freeze();
            member.condition = Condition::Frozen;
        }
    }

    /// The store freezes for all workers.
    pub fn freeze_all(&self) {
        for running in self.running() {
            running.connection.freeze();
        }
    }

    /// The store is back for this worker.
    pub fn thaw(&self, id: &WorkerId) {
        if let Some(running) = self.members.get(id).and_then(|m| m.running.as_ref()) {
            running.connection.thaw();
        }
    }

    /// The store is back for all workers.
    pub fn thaw_all(&self) {
        for running in self.running() {
            running.connection.thaw();
        }
    }

    /// The workers that are up, in order.
    pub fn up(&self) -> Vec<WorkerId> {
        let up = self.members.iter().filter(|(_, m)| m.is_up());
        up.map(|(id, _)| id.clone()).collect()
    }

    /// Who leads, of those that are up.
    pub fn leader(&self) -> Option<&WorkerId> {
        let is_leader = |m: &Member| m.manager().is_some_and(Manager::is_leader);
        let mut leaders = self
            .members
            .iter()
            .filter(|(_, m)| m.is_up() && is_leader(m));
        leaders.next().map(|(id, _)| id)
    }

    /// A worker's handle, while it runs.
    pub fn manager(&self, id: &WorkerId) -> Option<&Manager> {
        self.members.get(id)?.manager()
    }

    /// Whether every worker that is up is in such a state.
    pub fn all_in(&self, like: impl Fn(ManagerState) -> bool) -> bool {
        let up = self.members.values().filter(|m| m.is_up());
        let mut managers = up.filter_map(Member::manager);
        managers.all(|manager| like(manager.state()))
    }

    /// Every worker and what became of it, in order.
    pub fn conditions(&self) -> impl Iterator<Item = (&WorkerId, Condition)> {
        self.members.iter().map(|(id, m)| (id, m.condition))
    }

    /// What each worker that is up holds.
    pub fn held(&self) -> BTreeMap<WorkerId, Held> {
        let up = self.members.iter().filter(|(_, m)| m.is_up());
        up.filter_map(|(id, m)| Some((id.clone(), m.manager()?.assignment())))
            .collect()
    }

    /// The next event and its worker.
    pub fn next_event(&self) -> Option<(&WorkerId, Arc<ManagerEvent>)> {
        self.members
            .iter()
            .find_map(|(id, m)| Some((id, m.events.try_recv()?)))
    }

    fn running(&self) -> impl Iterator<Item = &Running> {
        self.members.values().filter_map(|m| m.running.as_ref())
    }

    /// Everybody leaves.
    pub fn disperse(&mut self) -> Result<(), Error> {
        self.thaw_all();
        let all: Vec<WorkerId> = self.members.keys().cloned().collect();
        let left = self.end(&all, Condition::Left);
        for thread in self.ending.drain(..) {
            let _ = thread.join();
        }
        left
    }
}

impl Member {
    fn is_up(&self) -> bool {
        self.condition == Condition::Up && self.running.is_some()
    }

    fn manager(&self) -> Option<&Manager> {
        self.running.as_ref().map(|running| &running.manager)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.disperse();
    }
}

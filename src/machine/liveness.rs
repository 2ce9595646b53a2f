//! Leases of workers, kept in memory from watch events by the local monotonic clock.
//!
//! A beat renews a lease for one TTL; a lease that runs out makes its worker missing. Plain beats
//! end here: they produce no event, allocate nothing and wake nobody. While the store is out of
//! sight no lease runs out; afterwards all start afresh with an extra grace.
//!
//! # Protocol of use
//! Call `seed` once, then feed `beat`, `left`, `expired`, `blind`, `live` and `tick` as things
//! happen; `deadline` tells when `tick` is due (a tick that is too early does nothing). After
//! each call drain `poll_event`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use crate::types::{Time, WorkerId};

/// A change of membership or of sight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// These workers beat for the first time, the first of them at `since`.
    Joined {
        /// When the first of them was seen.
        since: Time,
        /// Who joined, in order of id.
        workers: Vec<WorkerId>,
    },
    /// The worker took its leave.
    Left(WorkerId),
    /// The worker's lease ran out.
    Missing(WorkerId),
    /// A missing worker beats again.
    Back(WorkerId),
    /// From now on nothing can be said about anybody.
    Blind,
    /// Everything is in sight again.
    Sighted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// Seen, but not yet reported: joins are coalesced.
    Joining,
    Alive,
    Missing,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    status: Status,
    ends: Time,
    /// Whether the queue of deadlines holds an entry for this worker (at most one).
    queued: bool,
}

/// The leases of all workers. See the module for the protocol of use.
#[derive(Debug)]
pub struct Leases {
    ttl: Duration,
    join_coalescing: Duration,
    recovery_grace: Duration,
    workers: BTreeMap<WorkerId, Lease>,
    /// One entry a worker whose lease runs; its time may lie before the lease's real end.
    queue: BinaryHeap<Reverse<(Time, WorkerId)>>,
    joins_since: Option<Time>,
    sight: Sight,
    events: VecDeque<Sighting>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// The watch has not yet delivered everything for the first time.
    Opening,
    Live,
    Blind,
}

impl Leases {
    /// No worker known yet, nothing in sight yet.
    #[must_use]
    pub fn new(ttl: Duration, join_coalescing: Duration, recovery_grace: Duration) -> Self {
        Self {
            ttl,
            join_coalescing,
            recovery_grace,
            workers: BTreeMap::new(),
            queue: BinaryHeap::new(),
            joins_since: None,
            sight: Sight::Opening,
            events: VecDeque::new(),
        }
    }

    /// Takes in what is known at the start: who is alive and for how long still, who is missing.
    /// Produces no event: the caller knows already.
    pub fn seed(
        &mut self,
        now: Time,
        alive: impl IntoIterator<Item = (WorkerId, Duration)>,
        missing: impl IntoIterator<Item = WorkerId>,
    ) {
        for (worker, remaining) in alive {
            self.insert(worker, Status::Alive, now + remaining);
        }
        for worker in missing {
            self.insert(worker, Status::Missing, now);
        }
    }

    /// A sign of life that is `age` old.
    pub fn beat(&mut self, now: Time, worker: &str, age: Duration) {
        let ends = now + self.ttl.saturating_sub(age);
        let Some(lease) = self.workers.get_mut(worker) else {
            return self.newcomer(now, worker, ends);
        };
        lease.ends = lease.ends.max(ends);
        if lease.status == Status::Missing && ends > now {
            lease.status = Status::Alive;
            lease.ends = ends;
            if let Some((worker, _)) = self.workers.get_key_value(worker) {
                let worker = worker.clone();
                self.enqueue(&worker);
                self.events.push_back(Sighting::Back(worker));
            }
        }
    }

    /// The worker deleted its heartbeat: it leaves.
    pub fn left(&mut self, worker: &str) {
        if let Some((worker, lease)) = self.workers.remove_entry(worker) {
            if lease.status != Status::Joining {
                self.events.push_back(Sighting::Left(worker));
            }
        }
    }

    /// The store says that the worker's heartbeat expired there.
    pub fn expired(&mut self, now: Time, worker: &str) {
        if let Some(lease) = self.workers.get_mut(worker) {
            lease.ends = now;
            let ended = self.workers.get_key_value(worker).map(|(id, _)| id.clone());
            if let (Some(worker), true) = (ended, self.sight == Sight::Live) {
                self.end_lease(worker);
            }
        }
    }

    /// Forgets a worker that the calculator has given up; a later beat makes it a newcomer.
    pub fn forget(&mut self, worker: &str) {
        if self
            .workers
            .get(worker)
            .is_some_and(|l| l.status == Status::Missing)
        {
            self.workers.remove(worker);
        }
    }

    /// The store went out of sight: no lease runs out until it is back.
    pub fn blind(&mut self) {
        if self.sight != Sight::Blind {
            self.sight = Sight::Blind;
            self.events.push_back(Sighting::Blind);
        }
    }

    /// Everything that happened so far has been delivered.
    pub fn live(&mut self, now: Time) {
        match self.sight {
            Sight::Live => {}
            Sight::Opening => self.sight = Sight::Live,
            Sight::Blind => {
                self.sight = Sight::Live;
                // Every lease ends at the same time now, so the queue's early entries do no harm.
                let ends = now + self.ttl + self.recovery_grace;
                for lease in self.workers.values_mut() {
                    if lease.status != Status::Missing {
                        lease.ends = lease.ends.max(ends);
                    }
                }
                self.events.push_back(Sighting::Sighted);
            }
        }
    }

    /// Reports coalesced joins and ends the leases that ran out.
    pub fn tick(&mut self, now: Time) {
        if self
            .joins_since
            .is_some_and(|since| since + self.join_coalescing <= now)
        {
            self.report_joins();
        }
        if self.sight != Sight::Live {
            return;
        }
        while let Some(Reverse((queued, _))) = self.queue.peek() {
            if *queued > now {
                break;
            }
            let Some(Reverse((_, worker))) = self.queue.pop() else {
                break;
            };
            let Some(lease) = self.workers.get_mut(&worker) else {
                continue;
            };
            lease.queued = false;
            match lease.status {
                Status::Missing => {}
                _ if lease.ends > now => self.enqueue(&worker),
                _ => self.end_lease(worker),
            }
        }
    }

    /// When `tick` is due next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let joins = self.joins_since.map(|since| since + self.join_coalescing);
        let lease = match self.sight {
            Sight::Live => self.queue.peek().map(|Reverse((time, _))| *time),
            Sight::Opening | Sight::Blind => None,
        };
        joins.into_iter().chain(lease).min()
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Sighting> {
        self.events.pop_front()
    }

    /// Whether everything is in sight.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.sight == Sight::Live
    }

    /// Every known worker and what is left of its lease (zero when it is missing).
    pub fn remaining(&self, now: Time) -> impl Iterator<Item = (&WorkerId, Duration)> {
        self.workers.iter().map(move |(worker, lease)| {
            let left = match lease.status {
                Status::Missing => Duration::ZERO,
                _ => lease.ends.since(now),
            };
            (worker, left)
        })
    }

    /// The worker, where it is known: hands out a shared id instead of making a new one.
    #[must_use]
    pub fn known(&self, worker: &str) -> Option<&WorkerId> {
        self.workers.get_key_value(worker).map(|(id, _)| id)
    }

    fn newcomer(&mut self, now: Time, worker: &str, ends: Time) {
        // A value that outlived its TTL is about to be removed by the store: no sign of life.
        let (Ok(worker), true) = (WorkerId::new(worker), ends > now) else {
            return;
        };
        self.insert(worker, Status::Joining, ends);
        self.joins_since.get_or_insert(now);
        if self.join_coalescing.is_zero() {
            self.report_joins();
        }
    }

    fn report_joins(&mut self) {
        let Some(since) = self.joins_since.take() else {
            return;
        };
        let mut joined = Vec::new();
        for (worker, lease) in &mut self.workers {
            if lease.status == Status::Joining {
                lease.status = Status::Alive;
                joined.push(worker.clone());
            }
        }
        if !joined.is_empty() {
            self.events.push_back(Sighting::Joined {
                since,
                workers: joined,
            });
        }
    }

    fn insert(&mut self, worker: WorkerId, status: Status, ends: Time) {
        let lease = Lease {
            status,
            ends,
            queued: false,
        };
        // A worker that left and came back may still have its old entry in the queue; an entry
        // too many only costs a look.
        self.workers.insert(worker.clone(), lease);
        if status != Status::Missing {
            self.enqueue(&worker);
        }
    }

    fn enqueue(&mut self, worker: &WorkerId) {
        if let Some(lease) = self.workers.get_mut(worker) {
            if !lease.queued {
                lease.queued = true;
                self.queue.push(Reverse((lease.ends, worker.clone())));
            }
        }
    }

    fn end_lease(&mut self, worker: WorkerId) {
        let Some(lease) = self.workers.get_mut(&worker) else {
            return;
        };
        match lease.status {
            Status::Missing => {}
            Status::Joining => {
                self.workers.remove(&worker);
            }
            Status::Alive => {
                lease.status = Status::Missing;
                self.events.push_back(Sighting::Missing(worker));
            }
        }
    }
}

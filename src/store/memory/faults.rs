//! What can be made to go wrong: per client with [`Faults`], behind all clients with [`Server`].

use std::sync::Arc;
use std::time::Duration;

use super::fault_plan::{Blackout, Call, Fault, FaultPlan, Random, Scripted};
use super::world::{ClientId, MemoryWorld, Snapshot};
use crate::store::{Bucket, BucketConfig};
use crate::types::Revision;

/// Switches for the faults of one client. Clones share the same switches.
///
/// All of it is deterministic: the same calls in the same order have the same effect. After the
/// client was stopped or dropped the switches do nothing.
#[derive(Clone)]
pub struct Faults {
    pub(super) world: Arc<MemoryWorld>,
    pub(super) client: ClientId,
}

impl Faults {
    /// The next `count` calls of these kinds go wrong. Faults set earlier are used up first.
    pub fn next(&self, calls: &[Call], count: u32, fault: Fault) {
        self.plan(|plan| {
            plan.scripted.push(Scripted {
                calls: calls.to_vec(),
                left: count,
                fault,
            });
        });
    }

    /// From now on calls of these kinds go wrong with a probability of 0.0 to 1.0, decided by a
    /// generator of its own that starts from `seed`.
    pub fn randomly(&self, calls: &[Call], probability: f64, seed: u64, fault: Fault) {
        self.plan(|plan| {
            plan.random.push(Random {
                calls: calls.to_vec(),
                probability,
                generator: fastrand::Rng::with_seed(seed),
                fault,
            });
        });
    }

    /// From now on calls of these kinds take this long; zero takes it back.
    ///
    /// A call ends at its deadline: reads time out; writes end as unknown and still reach the store
    /// after the delay. A stop ends the wait at once. With a driven clock every deadline is shorter
    /// than any delay.
    pub fn delay(&self, calls: &[Call], by: Duration) {
        self.plan(|plan| {
            for call in calls {
                plan.delays.insert(*call, by);
            }
        });
    }

    /// From now on listings silently end after this many entries; `None` takes it back.
    /// No store may do that; some servers did.
    pub fn truncate_listings(&self, entries_max: Option<usize>) {
        self.plan(|plan| plan.entries_max = entries_max);
    }

    /// The next `count` changes are not delivered to this client's watches, without a word.
    /// No store may do that; the next resynchronisation makes up for it.
    pub fn lose_watch_events(&self, count: u64) {
        self.plan(|plan| plan.events_lost = count);
    }

    /// Delays further changes to the watches of this client, in order. Zero ends the delay.
    pub fn delay_watch_events(&self, by: Duration) {
        self.plan(|plan| plan.events_late = by);
    }

    /// Makes the current and future watches of this client lose their connection, until
    /// [`Faults::recover_watches`].
    pub fn disconnect_watches(&self, reason: &str) {
        self.plan(|plan| plan.watches_lost = Some(reason.to_owned()));
    }

    /// Ends [`Faults::disconnect_watches`]: the watches resynchronise.
    pub fn recover_watches(&self) {
        self.plan(|plan| plan.watches_lost = None);
    }

    /// Disconnects the client: every call fails, the health is degraded, the watches are lost.
    /// Changes in flight to a watch are lost; held writes stay in flight to the store.
    pub fn blackout(&self, how: Blackout) {
        self.plan(|plan| plan.blackout = Some(how));
    }

    /// Ends a [`Faults::blackout`]: calls succeed, the health is connected, the watches
    /// resynchronise.
    pub fn restore(&self) {
        self.plan(|plan| plan.blackout = None);
    }

    /// How many writes of this client are held up.
    #[must_use]
    pub fn held(&self) -> usize {
        self.world.with(|state, _| state.held_by(self.client))
    }

    /// Lets this client's held writes reach the store now, in the order in which they were made.
    pub fn release_held(&self) {
        self.world
            .with(|state, now| state.release_held(self.client, now));
    }

    /// Loses this client's held writes.
    pub fn discard_held(&self) {
        self.world.with(|state, _| state.discard_held(self.client));
    }

    /// Switches everything off and recovers from what lasts. DelayedWrite writes stay held.
    pub fn clear(&self) {
        self.plan(|plan| *plan = FaultPlan::default());
    }

    fn plan(&self, change: impl FnOnce(&mut FaultPlan)) {
        self.world.with(|state, _| {
            if let Some(client) = state.client(self.client) {
                change(&mut client.plan);
                state.follow_plan(self.client);
            }
        });
    }
}

/// What happens behind the clients' backs: an operator's commands and foreign writers. Neither
/// faults nor checks apply.
#[derive(Clone)]
pub struct Server {
    pub(super) world: Arc<MemoryWorld>,
}

impl Server {
    /// Writes any value under any key; creates the bucket, without a TTL, if there is none.
    pub fn put(&self, bucket: Bucket, key: &str, value: &[u8]) -> Revision {
        self.world.with(|state, now| {
            state.ensure(bucket, None, now);
            state.apply(bucket, key, Some(value.to_vec()), now)
        })
    }

    /// Deletes any key, leaving a marker; creates the bucket, without a TTL, if there is none.
    pub fn delete(&self, bucket: Bucket, key: &str) -> Revision {
        self.world.with(|state, now| {
            state.ensure(bucket, None, now);
            state.apply(bucket, key, None, now)
        })
    }

    /// Removes every key without a trace. The numbering continues; watches notice only when they
    /// resynchronise, as with a NATS server.
    pub fn purge(&self, bucket: Bucket) {
        self.world.with(|state, _| state.purge(bucket));
    }

    /// Deletes the bucket. Its watches are lost until it exists again.
    pub fn delete_bucket(&self, bucket: Bucket) {
        self.world.with(|state, _| state.delete_bucket(bucket));
    }

    /// Deletes the bucket and creates it again: another incarnation, whose sequence starts at 1 or
    /// at the present time (see [`MemoryStoreBuilder::sequences_from_time`](super::MemoryStoreBuilder::sequences_from_time)).
    pub fn recreate_bucket(&self, bucket: Bucket, config: BucketConfig) {
        self.world.with(|state, now| {
            state.delete_bucket(bucket);
            state.ensure(bucket, config.ttl, now);
        });
    }
}

impl Server {
    /// Copies the data of all buckets.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.world.with(|state, _| state.snapshot())
    }

    /// Replaces the data of all buckets by an older copy, sequences included. Watches disconnect
    /// and resynchronise, as after the restart of a server on restored files.
    pub fn restore(&self, snapshot: &Snapshot) {
        self.world.with(|state, _| state.restore(snapshot));
    }
}

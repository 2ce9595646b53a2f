//! What all clients of one memory store share: the buckets, the watches and the time.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use super::Limits;
use super::alarm::Alarm;
use super::fault_plan::{BLACKOUT, FaultPlan};
use super::log::{Log, LogKey, Remains, Scope};
use super::watcher::{MemoryWatch, WatchDelivery};
use crate::store::health::HealthPublisher;
use crate::store::{Batch, Bucket, Health, HealthEvents, Outcome, Refusal, WatchEvent, Write};
use crate::time::clock::{Clock, ManualClock, SystemClock};
use crate::types::{Revision, Time};

pub(super) type ClientId = u64;
pub(super) type WatchId = u64;

/// The shared part of a memory store.
pub(super) struct MemoryWorld {
    pub(super) limits: Limits,
    manual_clock: Option<ManualClock>,
    state: Mutex<WorldState>,
}

impl MemoryWorld {
    pub(super) fn new(limits: Limits, manual_clock: Option<ManualClock>) -> Self {
        Self {
            state: Mutex::new(WorldState::new(limits)),
            limits,
            manual_clock,
        }
    }

    /// Whether time only passes when driven.
    pub(super) fn is_driven(&self) -> bool {
        self.manual_clock.is_some()
    }

    pub(super) fn now(&self) -> Time {
        match &self.manual_clock {
            Some(clock) => clock.now(),
            None => SystemClock.now(),
        }
    }

    /// Runs `work` on the current state: completes due events first, and delivers the resulting changes
    /// to the watches afterwards.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut WorldState, Time) -> R) -> R {
        let mut state = self.state.lock();
        // Read under the lock, so that records are stored in the order of their times.
        let now = self.now();
        state.complete_due_calls(now);
        let result = work(&mut state, now);
        state.pump(now);
        state.ring_alarms();
        result
    }
}

/// A write or batch, as a client asked for it.
#[derive(Clone)]
pub(super) enum WriteRequest {
    One(Write),
    Batch(Batch),
}

/// A write in flight although its client has abandoned it.
struct DelayedWrite {
    client: ClientId,
    due: Option<Time>,
    bucket: Bucket,
    request: WriteRequest,
}

/// State of one running client.
pub(super) struct ClientState {
    pub(super) plan: FaultPlan,
    pub(super) alarm: Option<Alarm>,
    health: HealthPublisher,
    /// Dropped with the client, which wakes all waiting calls.
    _stop: Sender<Infallible>,
}

/// The data of all buckets at one moment.
#[derive(Clone)]
pub struct Snapshot([Option<Log>; Bucket::ALL.len()]);

pub(super) struct WorldState {
    markers: bool,
    /// The time since 1970 at [`Time::ZERO`], where sequences start at it.
    epoch: Option<Duration>,
    logs: [Option<Log>; Bucket::ALL.len()],
    incarnations: u64,
    clients: BTreeMap<ClientId, ClientState>,
    clients_made: u64,
    watchers: BTreeMap<WatchId, (ClientId, MemoryWatch)>,
    watches_made: u64,
    held: Vec<DelayedWrite>,
}

/// A scheduled event.
enum Due {
    Expiry(Bucket),
    DelayedWrite(usize),
}

impl WorldState {
    fn new(limits: Limits) -> Self {
        Self {
            markers: limits.expiry_markers,
            epoch: limits.epoch,
            logs: [const { None }; Bucket::ALL.len()],
            incarnations: 0,
            clients: BTreeMap::new(),
            clients_made: 0,
            watchers: BTreeMap::new(),
            watches_made: 0,
            held: Vec::new(),
        }
    }

    // --- clients ---

    pub(super) fn add_client(&mut self) -> (ClientId, Receiver<Infallible>) {
        let (stop, stopped) = bounded(0);
        self.clients_made += 1;
        let client = ClientState {
            plan: FaultPlan::default(),
            alarm: None,
            health: HealthPublisher::new(Health::Connected),
            _stop: stop,
        };
        self.clients.insert(self.clients_made, client);
        (self.clients_made, stopped)
    }

    /// Stops a client: its watches and health events end, its waiting calls and thread wake up.
    pub(super) fn remove_client(&mut self, id: ClientId) {
        self.set_health(id, Health::Closed);
        self.clients.remove(&id);
        self.watchers.retain(|_, (client, _)| *client != id);
    }

    pub(super) fn client(&mut self, id: ClientId) -> Option<&mut ClientState> {
        self.clients.get_mut(&id)
    }

    /// Brings the health and the watches of a client in line with its planned faults.
    pub(super) fn follow_plan(&mut self, id: ClientId) {
        let Some(client) = self.clients.get(&id) else {
            return;
        };
        if let Some(reason) = client.plan.watch_loss() {
            let own = self.watchers.values_mut().filter(|(owner, _)| *owner == id);
            own.for_each(|(_, watcher)| watcher.disconnect(reason));
        }
        let health = match client.plan.blackout {
            Some(_) => Health::Degraded(BLACKOUT.to_owned()),
            None => Health::Connected,
        };
        self.set_health(id, health);
    }

    pub(super) fn health(&self, id: ClientId) -> Health {
        match self.clients.get(&id) {
            Some(client) => client.health.now().clone(),
            None => Health::Closed,
        }
    }

    fn set_health(&mut self, id: ClientId, health: Health) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.health.set(health);
        }
    }

    pub(super) fn listen_to_health(&mut self, id: ClientId) -> HealthEvents {
        match self.clients.get_mut(&id) {
            Some(client) => client.health.listen(),
            None => HealthPublisher::new(Health::Closed).listen(),
        }
    }

    // --- buckets ---

    pub(super) fn log(&self, bucket: Bucket) -> Result<&Log, Refusal> {
        self.logs[bucket as usize].as_ref().ok_or_else(|| {
            Refusal::Unavailable(format!(
                "bucket {} does not exist; create it with ensure",
                bucket.default_name()
            ))
        })
    }

    pub(super) fn ensure(&mut self, bucket: Bucket, ttl: Option<Duration>, now: Time) -> &Log {
        let incarnations = &mut self.incarnations;
        let epoch = self.epoch;
        self.logs[bucket as usize].get_or_insert_with(|| {
            *incarnations += 1;
            let since_epoch = epoch.map(|epoch| epoch + now.since(Time::ZERO));
            let first = since_epoch.map_or(1, |time| bucket.first_sequence(time));
            Log::new(ttl, *incarnations, first)
        })
    }

    pub(super) fn purge(&mut self, bucket: Bucket) {
        if let Some(log) = &mut self.logs[bucket as usize] {
            log.purge();
        }
        self.watchers_of(bucket).for_each(MemoryWatch::all_vanished);
    }

    pub(super) fn delete_bucket(&mut self, bucket: Bucket) {
        self.logs[bucket as usize] = None;
        for watcher in self.watchers_of(bucket) {
            watcher.disconnect("the bucket was deleted");
            watcher.all_vanished();
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot(self.logs.clone())
    }

    pub(super) fn restore(&mut self, snapshot: &Snapshot) {
        for bucket in Bucket::ALL {
            self.delete_bucket(bucket);
            self.logs[bucket as usize].clone_from(&snapshot.0[bucket as usize]);
        }
    }

    // --- writes ---

    /// Carries out a request by the rules.
    pub(super) fn carry_out(
        &mut self,
        bucket: Bucket,
        request: WriteRequest,
        now: Time,
    ) -> Outcome {
        let log = match self.log(bucket) {
            Ok(log) => log,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let (fence, writes) = match request {
            WriteRequest::One(write) => (None, vec![write]),
            WriteRequest::Batch(batch) => (batch.fence, batch.writes),
        };
        let fenced = fence.is_none_or(|(key, revision)| log.revision(&key) == revision);
        let admitted = writes.iter().all(|w| log.admits(&w.key, w.expect));
        if !fenced || !admitted {
            return Outcome::Refused(Refusal::Conflict);
        }
        let mut last = 0;
        for write in writes {
            last = self.apply(bucket, &write.key, write.value, now);
        }
        Outcome::Done(last)
    }

    /// Writes a key of an existing bucket and notifies the watches; without a bucket the write is
    /// lost.
    pub(super) fn apply(
        &mut self,
        bucket: Bucket,
        key: &str,
        value: Option<Vec<u8>>,
        now: Time,
    ) -> Revision {
        let Some(log) = &mut self.logs[bucket as usize] else {
            return 0;
        };
        let (key, revision) = log.put(key, value, now);
        self.announce(bucket, &key, now);
        revision
    }

    pub(super) fn hold(
        &mut self,
        client: ClientId,
        due: Option<Time>,
        bucket: Bucket,
        request: WriteRequest,
    ) {
        self.held.push(DelayedWrite {
            client,
            due,
            bucket,
            request,
        });
    }

    pub(super) fn held_by(&self, client: ClientId) -> usize {
        self.held.iter().filter(|h| h.client == client).count()
    }

    pub(super) fn release_held(&mut self, client: ClientId, now: Time) {
        let held = std::mem::take(&mut self.held);
        let (released, kept): (Vec<_>, Vec<_>) = held.into_iter().partition(|h| h.client == client);
        self.held = kept;
        for held in released {
            self.carry_out(held.bucket, held.request, now);
        }
    }

    pub(super) fn discard_held(&mut self, client: ClientId) {
        self.held.retain(|held| held.client != client);
    }

    // --- time ---

    /// Does what has come due, in the order of time.
    fn complete_due_calls(&mut self, now: Time) {
        while let Some((at, due)) = self.next_due_of_all() {
            if at > now {
                break;
            }
            match due {
                Due::Expiry(bucket) => self.expire(bucket, at),
                Due::DelayedWrite(index) => {
                    let held = self.held.remove(index);
                    self.carry_out(held.bucket, held.request, at);
                }
            }
        }
    }

    /// Returns the time of the next scheduled event.
    pub(super) fn next_due(&self) -> Option<Time> {
        let arrivals = self.watchers.values().filter_map(|(_, w)| w.next_arrival());
        let due = self.next_due_of_all().map(|(at, _)| at);
        arrivals.chain(due).min()
    }

    fn next_due_of_all(&self) -> Option<(Time, Due)> {
        let expiries = Bucket::ALL.into_iter().filter_map(|bucket| {
            let at = self.logs[bucket as usize].as_ref()?.next_expiry()?;
            Some((at, Due::Expiry(bucket)))
        });
        let held = self
            .held
            .iter()
            .enumerate()
            .filter_map(|(index, held)| Some((held.due?, Due::DelayedWrite(index))));
        // The first of equals wins: the order is that of the buckets, then that of the writes.
        expiries.chain(held).min_by_key(|(at, _)| *at)
    }

    fn expire(&mut self, bucket: Bucket, at: Time) {
        let Some(log) = &mut self.logs[bucket as usize] else {
            return;
        };
        match log.expire_oldest(self.markers, at) {
            Some((key, Remains::Marker)) => self.announce(bucket, &key, at),
            Some((key, Remains::Nothing)) => self
                .watchers
                .values_mut()
                .filter(|(_, watcher)| watcher.covers(bucket, &key))
                .for_each(|(_, watcher)| watcher.vanished(&key)),
            None => {}
        }
    }

    // --- watches ---

    pub(super) fn add_watch(
        &mut self,
        client: ClientId,
        bucket: Bucket,
        scope: Scope,
        events: Sender<WatchEvent>,
    ) -> WatchId {
        let log = self.logs[bucket as usize].as_ref();
        let mut watcher = MemoryWatch::new(bucket, scope, events, log);
        let watch_loss = self.clients.get(&client).and_then(|c| c.plan.watch_loss());
        if let Some(reason) = watch_loss {
            watcher.disconnect(reason);
        } else if log.is_none() {
            watcher.disconnect("the bucket does not exist");
        }
        self.watches_made += 1;
        self.watchers.insert(self.watches_made, (client, watcher));
        self.watches_made
    }

    pub(super) fn remove_watch(&mut self, id: WatchId) {
        self.watchers.remove(&id);
    }

    /// How many watches there are, of all clients.
    #[cfg(test)]
    pub(super) fn watches(&self) -> usize {
        self.watchers.len()
    }

    fn watchers_of(&mut self, bucket: Bucket) -> impl Iterator<Item = &mut MemoryWatch> {
        self.watchers
            .values_mut()
            .map(|(_, watcher)| watcher)
            .filter(move |watcher| watcher.bucket() == bucket)
    }

    /// Notifies the watches of the state of a key.
    fn announce(&mut self, bucket: Bucket, key: &LogKey, now: Time) {
        let Some(log) = &self.logs[bucket as usize] else {
            return;
        };
        for (client, watcher) in self.watchers.values_mut() {
            if !watcher.covers(bucket, key) {
                continue;
            }
            let Some(entry) = log.entry(key, now) else {
                return;
            };
            let delivery = match self.clients.get_mut(client) {
                Some(client) => client.plan.delivery(),
                None => WatchDelivery::Prompt,
            };
            watcher.changed(key, entry, delivery, now);
        }
    }

    fn pump(&mut self, now: Time) {
        let mut readers_gone = false;
        let unsettled = self.watchers.values_mut().filter(|(_, w)| !w.is_settled());
        for (client, watcher) in unsettled {
            let client = self.clients.get(client);
            let is_disconnected = client.is_some_and(|client| client.plan.watch_loss().is_some());
            let log = self.logs[watcher.bucket() as usize].as_ref();
            watcher.pump(log.filter(|_| !is_disconnected), now);
            readers_gone |= watcher.is_disconnected();
        }
        if readers_gone {
            self.watchers.retain(|_, (_, w)| !w.is_disconnected());
        }
    }

    // --- threads ---

    /// Delivers what can be delivered. Returns what the client's thread waits for next, or `None` if the
    /// client was stopped.
    pub(super) fn pending_deliveries(
        &mut self,
        id: ClientId,
        now: Time,
    ) -> Option<PendingDeliveries> {
        self.pump(now);
        let shared = self.shared_due();
        let alarm = self.clients.get_mut(&id)?.alarm.as_mut()?;
        let mut due = shared;
        let mut rooms = Vec::new();
        for (_, watcher) in self.watchers.values_mut().filter(|(owner, _)| *owner == id) {
            due = due.into_iter().chain(watcher.next_arrival()).min();
            rooms.extend(watcher.attend());
        }
        alarm.set(due);
        Some(PendingDeliveries { due, rooms })
    }

    /// Wakes the threads that wait for too little.
    fn ring_alarms(&self) {
        let shared = self.shared_due();
        for alarm in self.clients.values().filter_map(|c| c.alarm.as_ref()) {
            alarm.ring_if_late(shared);
        }
        for (owner, watcher) in self.watchers.values().filter(|(_, w)| !w.is_settled()) {
            if let Some(alarm) = self.clients.get(owner).and_then(|c| c.alarm.as_ref()) {
                alarm.ring_if_late(watcher.next_arrival());
                if watcher.is_unattended() {
                    alarm.ring();
                }
            }
        }
    }

    /// Returns the time of the next scheduled event that is visible to all clients. An expiry without a
    /// marker becomes visible with the next call, which completes it first.
    fn shared_due(&self) -> Option<Time> {
        let (at, due) = self.next_due_of_all()?;
        (self.markers || matches!(due, Due::DelayedWrite(_))).then_some(at)
    }
}

/// What a client's thread waits for: a time, and room in the channels of slow readers.
pub(super) struct PendingDeliveries {
    pub(super) due: Option<Time>,
    pub(super) rooms: Vec<Sender<WatchEvent>>,
}

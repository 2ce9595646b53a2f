//! The store's side of one watch: the reader's state and pending changes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};

use super::log::{Log, LogKey, Scope};
use crate::store::{Bucket, Entry, Operation, WatchEvent};
use crate::types::{Revision, Time};

/// How one change reaches a watch.
#[derive(Clone, Copy)]
pub(super) enum WatchDelivery {
    /// At once.
    Prompt,
    /// After this time.
    Late(Duration),
    /// Not at all; the next resynchronisation makes up for it.
    Lost,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WatchPhase {
    /// The initial state is being delivered.
    Starting,
    /// Changes are delivered as they happen.
    Live,
    /// Changes are only noted, until everything noted has been delivered.
    Disconnected,
}

/// Keys with pending changes, in the order of their last write.
///
/// It holds each key once, so a reader that never reads costs no more than the bucket itself.
#[derive(Default)]
struct Backlog {
    revisions: BTreeMap<LogKey, Revision>,
    order: BTreeSet<(Revision, LogKey)>,
}

/// The revision under which the backlog holds a key that is no longer stored.
const VANISHED: Revision = 0;

impl Backlog {
    fn put(&mut self, key: &LogKey, revision: Revision) {
        self.remove(key);
        self.revisions.insert(key.clone(), revision);
        self.order.insert((revision, key.clone()));
    }

    fn remove(&mut self, key: &LogKey) {
        if let Some(revision) = self.revisions.remove(key) {
            self.order.remove(&(revision, key.clone()));
        }
    }

    fn noted(&self, key: &LogKey) -> Option<Revision> {
        self.revisions.get(key).copied()
    }

    fn first(&self) -> Option<LogKey> {
        self.order.first().map(|(_, key)| key.clone())
    }

    fn clear(&mut self) {
        self.revisions.clear();
        self.order.clear();
    }
}

/// One watch.
pub(super) struct MemoryWatch {
    bucket: Bucket,
    scope: Scope,
    events: Sender<WatchEvent>,
    phase: WatchPhase,
    /// Why the watch was lost, until it has been reported.
    complaint: Option<String>,
    /// The delivered values and their revisions.
    known: BTreeMap<LogKey, Revision>,
    backlog: Backlog,
    /// Changes that are on their way, with the time of their arrival.
    late: VecDeque<(Time, LogKey, Entry)>,
    /// Whether the watch waits for its reader.
    blocked: bool,
    /// Whether a thread waits for the reader, too.
    attended: bool,
    disconnected: bool,
}

impl MemoryWatch {
    /// A watch that has yet to deliver what the bucket holds.
    pub(super) fn new(
        bucket: Bucket,
        scope: Scope,
        events: Sender<WatchEvent>,
        log: Option<&Log>,
    ) -> Self {
        let mut backlog = Backlog::default();
        for (key, revision) in log.map(|log| log.keys(&scope)).unwrap_or_default() {
            backlog.put(&key, revision);
        }
        Self {
            bucket,
            scope,
            events,
            phase: WatchPhase::Starting,
            complaint: None,
            known: BTreeMap::new(),
            backlog,
            late: VecDeque::new(),
            blocked: false,
            attended: false,
            disconnected: false,
        }
    }

    pub(super) fn bucket(&self) -> Bucket {
        self.bucket
    }

    pub(super) fn covers(&self, bucket: Bucket, key: &str) -> bool {
        self.bucket == bucket && self.scope.covers(key)
    }

    /// Whether nothing is to be done before the next change.
    pub(super) fn is_settled(&self) -> bool {
        self.phase == WatchPhase::Live && self.complaint.is_none() && self.late.is_empty()
    }

    /// Whether the reader has gone away.
    pub(super) fn is_disconnected(&self) -> bool {
        self.disconnected
    }

    /// The channel, when the watch waits for room in it; the caller promises to wait as well.
    pub(super) fn attend(&mut self) -> Option<Sender<WatchEvent>> {
        self.attended = self.blocked;
        self.blocked.then(|| self.events.clone())
    }

    /// Whether the watch waits for room in its channel and no thread attends to it.
    pub(super) fn is_unattended(&self) -> bool {
        self.blocked && !self.attended
    }

    /// When the next late change arrives.
    pub(super) fn next_arrival(&self) -> Option<Time> {
        self.late.front().map(|(due, _, _)| *due)
    }

    /// A key was written and is now as `entry` says.
    pub(super) fn changed(
        &mut self,
        key: &LogKey,
        entry: Entry,
        delivery: WatchDelivery,
        now: Time,
    ) {
        if self.phase != WatchPhase::Live {
            self.backlog.put(key, entry.revision);
            return;
        }
        match delivery {
            WatchDelivery::Lost => self.backlog.put(key, entry.revision),
            WatchDelivery::Prompt if self.late.is_empty() => self.deliver(key, entry),
            WatchDelivery::Prompt => self.delay(key, entry, now),
            WatchDelivery::Late(by) => self.delay(key, entry, now + by),
        }
    }

    /// A key is gone and nothing was left that says so.
    pub(super) fn vanished(&mut self, key: &LogKey) {
        if self.known.contains_key(key) {
            self.backlog.put(key, VANISHED);
        } else {
            self.backlog.remove(key);
        }
    }

    /// Handles the removal of every key without markers.
    pub(super) fn all_vanished(&mut self) {
        self.backlog.clear();
        for key in self.known.keys() {
            self.backlog.put(key, VANISHED);
        }
    }

    /// Handles a lost connection: changes in flight are lost.
    pub(super) fn disconnect(&mut self, reason: &str) {
        if self.phase != WatchPhase::Disconnected {
            self.phase = WatchPhase::Disconnected;
            self.complaint = Some(reason.to_owned());
        }
        for (_, key, entry) in std::mem::take(&mut self.late) {
            self.note(&key, entry.revision);
        }
    }

    /// Delivers all deliverable events. A lost watch resynchronises from `log`.
    pub(super) fn pump(&mut self, log: Option<&Log>, now: Time) {
        self.blocked = false;
        self.advance(log, now);
        self.attended &= self.blocked;
    }

    fn advance(&mut self, log: Option<&Log>, now: Time) {
        if let Some(reason) = &self.complaint {
            let event = WatchEvent::Disconnected(reason.clone());
            if !self.send(event) {
                return;
            }
            self.complaint = None;
        }
        if self.phase != WatchPhase::Live {
            match log {
                Some(log) => self.resynchronise(log, now),
                None => return,
            }
        }
        while self.phase == WatchPhase::Live && self.next_arrival().is_some_and(|due| due <= now) {
            if let Some((_, key, entry)) = self.late.pop_front() {
                self.deliver(&key, entry);
                if log.is_some_and(|log| log.revision(&key) == 0) {
                    self.vanished(&key);
                }
            }
        }
    }

    fn resynchronise(&mut self, log: &Log, now: Time) {
        while let Some(key) = self.backlog.first() {
            let entry = log.entry(&key, now).or_else(|| self.gone(&key));
            if let Some(entry) = entry {
                let (revision, live) = (entry.revision, entry.is_live());
                if !self.send(WatchEvent::Change(entry)) {
                    return;
                }
                self.learnt(&key, revision, live);
            }
            self.backlog.remove(&key);
        }
        if self.send(WatchEvent::Live) {
            self.phase = WatchPhase::Live;
        }
    }

    fn gone(&self, key: &LogKey) -> Option<Entry> {
        let revision = *self.known.get(key)?;
        Some(Entry {
            key: key.to_string(),
            value: Vec::new(),
            revision,
            operation: Operation::Gone,
            age: None,
        })
    }

    fn delay(&mut self, key: &LogKey, entry: Entry, due: Time) {
        let due = self.late.back().map_or(due, |(last, _, _)| due.max(*last));
        self.late.push_back((due, key.clone(), entry));
    }

    /// Delivers a change to the reader; if the reader is too slow, the watch is lost instead.
    fn deliver(&mut self, key: &LogKey, entry: Entry) {
        let (revision, live) = (entry.revision, entry.is_live());
        if self.send(WatchEvent::Change(entry)) {
            self.learnt(key, revision, live);
            if self
                .backlog
                .noted(key)
                .is_some_and(|noted| noted <= revision)
            {
                self.backlog.remove(key);
            }
        } else {
            self.note(key, revision);
            self.disconnect("the reader of the watch is too slow");
        }
    }

    /// Notes that the reader has missed `revision`, unless something newer is noted already.
    fn note(&mut self, key: &LogKey, revision: Revision) {
        if self.backlog.noted(key).is_none_or(|noted| noted < revision) {
            self.backlog.put(key, revision);
        }
    }

    fn learnt(&mut self, key: &LogKey, revision: Revision, live: bool) {
        if live {
            self.known.insert(key.clone(), revision);
        } else {
            self.known.remove(key);
        }
    }

    fn send(&mut self, event: WatchEvent) -> bool {
        match self.events.try_send(event) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.blocked = true;
                false
            }
            Err(TrySendError::Disconnected(_)) => {
                self.disconnected = true;
                false
            }
        }
    }
}

//! Watches: a listing, then a consumer from there on, and both again after any doubt.
//!
//! The listing comes as JSON (see [`super::read`]), the changes through a raw push consumer that
//! starts right behind it. A gap in the consumer's numbers, silence, a lost connection or a slow
//! reader all have the same answer: the watch says it is blind, lists again, delivers what its
//! reader has not seen, and starts a new consumer. A message that the client crate cannot parse
//! costs one connection; the next listing passes over it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, select};
use serde_json::{Value, json};

use super::failure::Failure;
use super::jetstream::{Stream, operation_of};
use super::link::AckSubject;
use super::read::{self, Snapshot};
use super::session::Session;
use crate::store::{Entry, Operation, WatchEvent};
use crate::types::Revision;

/// Events waiting for the reader; one second of 4 000 workers that beat every second.
pub(super) const EVENTS_CAPACITY: usize = 4_096;
/// How often the server says that there is nothing to say.
const IDLE_HEARTBEAT: Duration = Duration::from_secs(1);
/// A consumer that is silent for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// The server forgets a consumer without a reader after so long.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(120);
/// What the first synchronisation may take; each that takes longer doubles it for the next.
const SYNC_TIMEOUT_MIN: Duration = Duration::from_secs(8);
const SYNC_TIMEOUT_MAX: Duration = Duration::from_secs(32);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

static NEXT_CONSUMER: AtomicU64 = AtomicU64::new(1);

/// What is watched, and for whom.
pub(super) struct Watcher {
    pub(super) session: Arc<Session>,
    pub(super) stream: String,
    /// What comes before a key in its subject.
    pub(super) subject_prefix: String,
    /// The subjects watched.
    pub(super) filter: String,
    pub(super) events: Sender<WatchEvent>,
    pub(super) cancelled: Receiver<Infallible>,
}

/// Why a watch is over or has to start anew.
enum Stop {
    Ended,
    Blind(String),
}

/// How patient the next synchronisation is, and how long it is put off.
struct Pace {
    timeout: Duration,
    pause: Duration,
}

impl Pace {
    fn new() -> Self {
        Self {
            timeout: SYNC_TIMEOUT_MIN,
            pause: BACKOFF_MIN,
        }
    }
}

/// What the reader has been told.
#[derive(Default)]
struct Told {
    incarnation: Option<String>,
    /// Every write up to here was delivered, or never will be needed.
    horizon: Revision,
    /// Writes beyond the horizon that a listing has delivered early.
    ahead: HashMap<String, Revision>,
    /// The keys that hold a value, with its revision.
    live: HashMap<String, Revision>,
}

impl Watcher {
    /// The body of `dv-nats-watch`.
    pub(super) fn run(self) {
        let new_links = self.session.new_links();
        let mut told = Told::default();
        let mut pace = Pace::new();
        let mut blind = false;
        loop {
            let why = match self.watch_once(&mut told, &mut blind, &mut pace) {
                Stop::Ended => return,
                Stop::Blind(why) => why,
            };
            if !blind {
                blind = true;
                if self.hand_over(WatchEvent::Blind(why)).is_err() {
                    return;
                }
            }
            select! {
                recv(self.cancelled) -> _ => return,
                recv(self.session.stopping) -> _ => return,
                recv(new_links.told) -> _ => pace.pause = BACKOFF_MIN,
                default(pace.pause) => pace.pause = (pace.pause * 2).min(BACKOFF_MAX),
            }
        }
    }

    /// Synchronises and follows until something is wrong.
    fn watch_once(&self, told: &mut Told, blind: &mut bool, pace: &mut Pace) -> Stop {
        let (tail, snapshot) = match self.synchronise(Instant::now() + pace.timeout) {
            Ok(synchronised) => synchronised,
            Err(Failure::NotRunning) => return Stop::Ended,
            Err(failure) => {
                if failure == Failure::TimedOut {
                    pace.timeout = (pace.timeout * 2).min(SYNC_TIMEOUT_MAX);
                }
                return Stop::Blind(failure.into_error("watch").to_string());
            }
        };
        for event in told.catch_up(snapshot) {
            if let Err(stop) = self.hand_over(WatchEvent::Change(event)) {
                return stop;
            }
        }
        if let Err(stop) = self.hand_over(WatchEvent::Live) {
            return stop;
        }
        *blind = false;
        *pace = Pace::new();
        self.follow(&tail, told)
    }

    /// A listing, and a consumer that goes on where it ends.
    fn synchronise(&self, deadline: Instant) -> Result<(Tail, Snapshot), Failure> {
        let stream = Stream {
            link: self.session.link()?,
            name: self.stream.clone(),
            api: self.session.options.api_prefix(),
        };
        let keys_at = self.subject_prefix.len();
        let snapshot = read::list(&stream, &self.filter, keys_at, deadline)?;
        let start = snapshot.listing.last_sequence + 1;
        let tail = Tail::open(stream, &self.filter, start, deadline)?;
        // A bucket created anew in between would number its writes from the start again, and the
        // consumer would wait for a number far away.
        let created = tail.stream.info(deadline)?.created;
        if created != snapshot.info.created {
            let why = "the bucket was created anew".to_owned();
            return Err(Failure::Disconnected(why));
        }
        Ok((tail, snapshot))
    }

    fn follow(&self, tail: &Tail, told: &mut Told) -> Stop {
        let blind = |why: &str| Stop::Blind(why.to_owned());
        let mut delivered = 0;
        loop {
            let message = select! {
                recv(tail.inbound) -> message => message,
                recv(self.cancelled) -> _ => return Stop::Ended,
                recv(self.session.stopping) -> _ => return Stop::Ended,
                recv(tail.stream.link.dead) -> _ => return blind("the connection was lost"),
                default(SILENCE_MAX) => return blind("the server's watch fell silent"),
            };
            let Ok(message) = message else {
                return blind("the connection was lost");
            };
            let Some(position) = message.reply.as_deref().and_then(AckSubject::parse) else {
                if !tail.control(&message, delivered) {
                    return blind("the last messages of the server's watch were lost");
                }
                continue;
            };
            if position.consumer_sequence != delivered + 1 {
                return blind("messages of the server's watch were lost");
            }
            delivered += 1;
            let revision = position.stream_sequence;
            let Some(entry) = self.entry(message, revision) else {
                continue;
            };
            if let Some(entry) = told.pass(entry) {
                match self.events.try_send(WatchEvent::Change(entry)) {
                    Ok(()) => {}
                    Err(TrySendError::Disconnected(_)) => return Stop::Ended,
                    Err(TrySendError::Full(event)) => {
                        told.undo(&event);
                        return blind("the reader of the watch is too slow");
                    }
                }
            }
            told.reached(revision);
        }
    }

    fn entry(&self, message: nats::Message, revision: Revision) -> Option<Entry> {
        let key = message
            .subject
            .strip_prefix(&self.subject_prefix)?
            .to_owned();
        let headers = message.headers.as_ref();
        let header = |name| headers.and_then(|h| h.get(name)).map(String::as_str);
        let operation = operation_of(header("KV-Operation"), header("Nats-Marker-Reason"));
        let value = if operation == Operation::Put {
            message.data
        } else {
            Vec::new()
        };
        Some(Entry {
            key,
            value,
            revision,
            operation,
            // It has just happened, or was held up by nobody knows what.
            age: None,
        })
    }

    /// Gives an event to the reader, waiting for room.
    fn hand_over(&self, event: WatchEvent) -> Result<(), Stop> {
        select! {
            send(self.events, event) -> sent => sent.map_err(|_| Stop::Ended),
            recv(self.cancelled) -> _ => Err(Stop::Ended),
            recv(self.session.stopping) -> _ => Err(Stop::Ended),
        }
    }
}

impl Told {
    /// What a listing has that the reader has not seen, the keys that vanished first.
    fn catch_up(&mut self, snapshot: Snapshot) -> Vec<Entry> {
        let first = self.incarnation.is_none();
        let created = snapshot.info.created;
        if self.incarnation.as_ref() != Some(&created) {
            self.incarnation = Some(created);
            self.horizon = 0;
            self.ahead.clear();
        }
        let Snapshot { listing, .. } = snapshot;
        let mut vanished = std::mem::take(&mut self.live);
        let mut missing = Vec::new();
        for entry in listing.entries {
            let before = vanished.remove(&entry.key);
            if entry.is_live() {
                self.live.insert(entry.key.clone(), entry.revision);
            }
            let seen = self.has_seen(&entry.key, entry.revision);
            if entry.revision > listing.last_sequence {
                self.ahead.insert(entry.key.clone(), entry.revision);
            }
            // A marker of a key that the reader never knew is no news to a new reader.
            if !seen && (entry.is_live() || before.is_some() || !first) {
                missing.push(entry);
            }
        }
        let gone = vanished.into_iter().map(|(key, revision)| Entry {
            key,
            value: Vec::new(),
            revision,
            operation: Operation::Gone,
            age: None,
        });
        self.reached(listing.last_sequence);
        gone.chain(missing).collect()
    }

    /// Takes note of a change; nothing is left of one that was delivered before.
    fn pass(&mut self, entry: Entry) -> Option<Entry> {
        if self.has_seen(&entry.key, entry.revision) {
            return None;
        }
        match self.live.get_mut(&entry.key) {
            Some(revision) if entry.is_live() => *revision = entry.revision,
            Some(_) => {
                self.live.remove(&entry.key);
            }
            None if entry.is_live() => {
                self.live.insert(entry.key.clone(), entry.revision);
            }
            None => {}
        }
        Some(entry)
    }

    /// Everything up to `revision` was delivered.
    fn reached(&mut self, revision: Revision) {
        self.horizon = self.horizon.max(revision);
        if !self.ahead.is_empty() {
            let horizon = self.horizon;
            self.ahead.retain(|_, ahead| *ahead > horizon);
        }
    }

    /// Takes back a change that could not be handed over, so that a listing delivers it.
    fn undo(&mut self, event: &WatchEvent) {
        if let WatchEvent::Change(entry) = event {
            // The revision serves for keys that vanish only; that the key is known is what counts.
            self.live.entry(entry.key.clone()).or_insert(entry.revision);
        }
    }

    fn has_seen(&self, key: &str, revision: Revision) -> bool {
        let ahead = self.ahead.get(key).copied().unwrap_or(0);
        revision <= self.horizon.max(ahead)
    }
}

/// A consumer of the server that delivers to us; deleted when dropped.
struct Tail {
    stream: Stream,
    consumer: String,
    subject: String,
    inbound: Receiver<nats::Message>,
}

impl Tail {
    fn open(
        stream: Stream,
        filter: &str,
        start: Revision,
        deadline: Instant,
    ) -> Result<Self, Failure> {
        let number = NEXT_CONSUMER.fetch_add(1, Ordering::Relaxed);
        let consumer = format!("divvy{:016x}n{number}", fastrand::u64(..));
        let subject = stream.link.delivery_subject(&consumer);
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let body = json!({
            "stream_name": stream.name,
            "config": {
                "name": consumer,
                "deliver_subject": subject,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": start,
                "filter_subject": filter,
                "ack_policy": "none",
                "max_deliver": 1,
                "replay_policy": "instant",
                "flow_control": true,
                "idle_heartbeat": nanos(IDLE_HEARTBEAT),
                "inactive_threshold": nanos(INACTIVE_THRESHOLD),
                // One copy: a lost consumer is noticed by its silence and replaced.
                "num_replicas": 1,
                "mem_storage": true,
            },
        });
        let inbound = stream.link.subscribe(&subject, deadline)?;
        let tail = Self {
            stream,
            consumer,
            subject,
            inbound,
        };
        let stream = &tail.stream;
        let api = format!("CONSUMER.CREATE.{}.{}.{filter}", stream.name, tail.consumer);
        stream.request::<Value>(&api, &body, deadline)?;
        Ok(tail)
    }

    /// Handles a heartbeat or a flow control request; false when the heartbeat tells of messages
    /// that did not arrive.
    fn control(&self, message: &nats::Message, delivered: u64) -> bool {
        if let Some(reply) = message.reply.as_deref() {
            self.stream.link.post(reply, Vec::new());
        }
        let Some(headers) = &message.headers else {
            return true;
        };
        if let Some(stalled) = headers.get("Nats-Consumer-Stalled") {
            self.stream.link.post(stalled, Vec::new());
        }
        match headers
            .get("Nats-Last-Consumer")
            .map(|last| last.parse::<u64>())
        {
            Some(Ok(last)) => last == delivered,
            _ => true,
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let (stream, consumer) = (&self.stream, &self.consumer);
        stream.link.unsubscribe(&self.subject);
        let api = format!("{}.CONSUMER.DELETE.{}.{consumer}", stream.api, stream.name);
        stream.link.post(&api, Vec::new());
    }
}

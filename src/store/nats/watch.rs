//! Watches: a listing, then a consumer from there on, and both again after any doubt.
//!
//! The listing comes as JSON (see [`super::read`]), the changes through a raw push consumer that
//! starts right behind it. A gap in the consumer's numbers, silence, a lost connection or a slow
//! reader all have the same answer: the watch says it is blind, lists again, delivers what its
//! reader has not seen, and starts a new consumer. A message that the client crate cannot parse
//! costs one connection; the next listing passes over it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, select};
use serde_json::{Value, json};

use super::failure::{Failure, number};
use super::jetstream::{Stream, operation_of};
use super::link::AckSubject;
use super::read::{self, Snapshot};
use super::session::Session;
use super::told::Told;
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
/// A watch that the server has no room for looks for changes this often, and up to half as often.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Least time from one look at what the server sent to the next. What comes after a silence of
/// that length is passed on at once.
const PACE: Duration = Duration::from_millis(50);
/// More than that in one look is no trickle of beats: the next look follows at once.
const PACED_MAX: usize = 256;
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

/// Why a watch is over or has to synchronise again.
enum Stop {
    Ended,
    Blind(String),
    /// Nothing is wrong: it is time to look again, as there is no consumer to tell.
    Poll,
}

/// How patient the next synchronisation is, and how long it is put off.
struct Pace {
    timeout: Duration,
    pause: Duration,
    /// The consumer before, which is to be deleted.
    last_consumer: Option<String>,
}

impl Pace {
    fn new() -> Self {
        Self {
            timeout: SYNC_TIMEOUT_MIN,
            pause: BACKOFF_MIN,
            last_consumer: None,
        }
    }
}

/// What the reader has been told about what it is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sight {
    Unknown,
    Live,
    Blind,
}

impl Watcher {
    /// The body of `dv-nats-watch`.
    pub(super) fn run(self) {
        let new_links = self.session.new_links();
        let mut told = Told::default();
        let mut pace = Pace::new();
        let mut sight = Sight::Unknown;
        loop {
            let why = match self.watch_once(&mut told, &mut sight, &mut pace) {
                Stop::Ended => return,
                Stop::Poll => continue,
                Stop::Blind(why) => why,
            };
            if sight != Sight::Blind {
                sight = Sight::Blind;
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
    fn watch_once(&self, told: &mut Told, sight: &mut Sight, pace: &mut Pace) -> Stop {
        let deadline = Instant::now() + pace.timeout;
        let (tail, snapshot) = match self.synchronise(&mut pace.last_consumer, deadline) {
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
        if *sight != Sight::Live {
            if tail.is_none() {
                log::warn!("{}: no room for another watch, so it polls", self.stream);
            }
            *sight = Sight::Live;
            if let Err(stop) = self.hand_over(WatchEvent::Live) {
                return stop;
            }
        }
        pace.timeout = SYNC_TIMEOUT_MIN;
        pace.pause = BACKOFF_MIN;
        match tail {
            Some(tail) => self.follow(&tail, told),
            None => self.wait_to_poll(),
        }
    }

    /// A listing, and a consumer that goes on where it ends, if the server has room for it.
    fn synchronise(
        &self,
        last_consumer: &mut Option<String>,
        deadline: Instant,
    ) -> Result<(Option<Tail>, Snapshot), Failure> {
        let stream = Stream {
            link: self.session.link()?,
            name: self.stream.clone(),
            api: self.session.options.api_prefix(),
        };
        if let Some(last) = last_consumer.take() {
            // Its connection may have been lost before it could be deleted.
            delete_consumer(&stream, &last);
        }
        let snapshot = read::list(&stream, &self.filter, self.subject_prefix.len(), deadline)?;
        let start = snapshot.listing.last_sequence + 1;
        let tail = match Tail::open(stream.clone(), &self.filter, start, deadline) {
            Ok(tail) => tail,
            Err(failure) if failure.is_api(number::TOO_MANY_CONSUMERS) => {
                return Ok((None, snapshot));
            }
            Err(failure) => return Err(failure),
        };
        *last_consumer = Some(tail.consumer.clone());
        // A bucket created anew in between would number its writes from the start again, and the
        // consumer would wait for a number far away.
        if stream.info(deadline)?.created != snapshot.created {
            let why = "the bucket was created anew".to_owned();
            return Err(Failure::Disconnected(why));
        }
        Ok((Some(tail), snapshot))
    }

    fn wait_to_poll(&self) -> Stop {
        let jitter = Duration::from_millis(fastrand::u64(0..500));
        select! {
            recv(self.cancelled) -> _ => Stop::Ended,
            recv(self.session.stopping) -> _ => Stop::Ended,
            default(POLL_INTERVAL + jitter) => Stop::Poll,
        }
    }

    fn follow(&self, tail: &Tail, told: &mut Told) -> Stop {
        let blind = |why: &str| Stop::Blind(why.to_owned());
        let mut delivered = 0;
        let mut next_look = Instant::now();
        loop {
            // What comes close behind is taken in together: waking up costs more than a beat.
            let pause = next_look.saturating_duration_since(Instant::now());
            if !pause.is_zero() {
                select! {
                    recv(self.cancelled) -> _ => return Stop::Ended,
                    recv(self.session.stopping) -> _ => return Stop::Ended,
                    recv(tail.stream.link.dead) -> _ => return blind("the connection was lost"),
                    default(pause) => {}
                }
            }
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
            let mut count = 0;
            for message in std::iter::once(message).chain(tail.inbound.try_iter()) {
                if let Err(stop) = self.take_in(tail, message, told, &mut delivered) {
                    return stop;
                }
                count += 1;
            }
            if count < PACED_MAX {
                next_look = Instant::now() + PACE;
            }
        }
    }

    /// One message of the consumer, for the reader or for us.
    fn take_in(
        &self,
        tail: &Tail,
        message: nats::Message,
        told: &mut Told,
        delivered: &mut u64,
    ) -> Result<(), Stop> {
        let blind = |why: &str| Err(Stop::Blind(why.to_owned()));
        let Some(position) = message.reply.as_deref().and_then(AckSubject::parse) else {
            if tail.control(&message, *delivered) {
                return Ok(());
            }
            return blind("the last messages of the server's watch were lost");
        };
        if position.consumer_sequence != *delivered + 1 {
            return blind("messages of the server's watch were lost");
        }
        *delivered += 1;
        let revision = position.stream_sequence;
        let Some(entry) = self.entry(message, revision) else {
            return Ok(());
        };
        if let Some(entry) = told.pass(entry) {
            match self.events.try_send(WatchEvent::Change(entry)) {
                Ok(()) => {}
                Err(TrySendError::Disconnected(_)) => return Err(Stop::Ended),
                Err(TrySendError::Full(event)) => {
                    told.undo(&event);
                    return blind("the reader of the watch is too slow");
                }
            }
        }
        told.reached(revision);
        Ok(())
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
        self.stream.link.unsubscribe(&self.subject);
        delete_consumer(&self.stream, &self.consumer);
    }
}

fn delete_consumer(stream: &Stream, consumer: &str) {
    let api = format!("{}.CONSUMER.DELETE.{}.{consumer}", stream.api, stream.name);
    stream.link.post(&api, Vec::new());
}

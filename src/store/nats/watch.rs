//! Watches: a listing, then a consumer from there on, and both again after any doubt.
//!
//! The listing comes as JSON (see [`super::read`]), the changes through a consumer that starts
//! right behind it (see [`super::tail`]). A gap in the consumer's numbers, silence, a lost
//! connection or a slow reader all have the same answer: the watch says it is blind, lists again,
//! delivers what its reader has not seen, and starts a new consumer. A key that is not UTF-8 is
//! logged and skipped.
//!
//! One thread, the session's, works for all watches and never waits for any of them: what has to
//! be waited for, the listing and the consumer's creation, is done by a thread of its own that
//! lives as long as that takes, so a slow listing holds up nobody else.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, bounded};
use parking_lot::Mutex;

use super::client::Message;
use super::consumer::{Consumer, Delivered, Delivery, Stop, delete_consumer};
use super::failure::{RequestFailure, number};
use super::jetstream::{Stream, operation_of};
use super::read::{self, Snapshot};
use super::replay_state::ReplayState;
use super::session::Session;
use crate::store::{Entry, Operation, WatchEvent};
use crate::threads::Thread;
use crate::time::backoff::Backoff;
use crate::time::clock::{Clock, SystemClock};
use crate::time::log_throttle::{LogThrottle, suppressed};
use crate::types::Revision;

/// With so many events waiting for the reader it is too slow; one second of 4 000 workers that beat
/// every second. The channel itself has no bound, for one that has takes the memory for all at once:
/// 360 KB a watch. What a listing finds goes in whatever its size, as it is in memory already.
const EVENTS_MAX: usize = 4_096;
/// How soon a reader that is too slow is looked at again.
const READER_PACE: Duration = Duration::from_millis(5);
/// What the first synchronisation may take; each that takes longer doubles it for the next.
const SYNC_TIMEOUT_MIN: Duration = Duration::from_secs(8);
const SYNC_TIMEOUT_MAX: Duration = Duration::from_secs(32);
/// A watch that the server has no room for looks for changes this often, and up to half as often.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Before it synchronises anew: this at least, and a pause whose ceiling doubles between those, for
/// what blinds one watch mostly blinds many.
const PAUSE_LEAST: Duration = Duration::from_millis(20);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long the thread of a synchronisation may take to end once that is over.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// Room for so many messages is kept from one look to the next.
const ROOM_MAX: usize = 256;
/// A watch that has nothing to do by itself is looked at again after so long.
const IDLE: Duration = Duration::from_secs(60);

/// What is watched, and for whom.
pub(super) struct WatchTarget {
    pub(super) stream: String,
    /// What comes before a key in its subject.
    pub(super) subject_prefix: String,
    /// The subjects watched.
    pub(super) filter: String,
    pub(super) delivery: Delivery,
    pub(super) events: Sender<WatchEvent>,
    /// Limits the log lines about malformed keys.
    pub(super) malformed: Mutex<LogThrottle>,
}

/// One watch.
pub(super) struct NatsWatch {
    pub(super) id: u64,
    target: WatchTarget,
    told: ReplayState,
    /// Whether nothing new is begun until the reader has read on.
    is_held: bool,
    /// What one look has found, for the next one's use.
    found: Vec<WatchedMessage>,
    sight: WatchVisibility,
    phase: NatsWatchPhase,
    /// Whether nobody reads it any more.
    is_over: bool,
    /// What the next synchronisation may take.
    timeout: Duration,
    /// How long the synchronisations after that are put off.
    pauses: Backoff,
    /// The consumer before, which is to be deleted.
    last_consumer: Option<String>,
}

/// What the reader has been told about what it is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WatchVisibility {
    Unknown,
    Live,
    Blind,
}

enum NatsWatchPhase {
    /// Nothing, until it is time to synchronise.
    Resting(Instant),
    Synchronising(Synchronisation),
    Following(Box<Consumer>),
}

/// A message that was looked at, and the event that it is to the reader, if it is one.
struct WatchedMessage {
    revision: Revision,
    event: Option<WatchEvent>,
}

/// A listing under way, on a thread of its own.
struct Synchronisation {
    thread: Thread,
    result: Receiver<Result<Synchronised, RequestFailure>>,
}

/// What the server holds, and the consumer that goes on from there, if it had room for one.
struct Synchronised {
    snapshot: Snapshot,
    tail: Option<Consumer>,
}

impl NatsWatch {
    pub(super) fn new(id: u64, target: WatchTarget) -> Self {
        Self {
            id,
            target,
            told: ReplayState::default(),
            is_held: false,
            found: Vec::new(),
            sight: WatchVisibility::Unknown,
            phase: NatsWatchPhase::Resting(Instant::now()),
            is_over: false,
            timeout: SYNC_TIMEOUT_MIN,
            pauses: Backoff::new(PAUSE_MIN, PAUSE_MAX, fastrand::u64(..)),
            last_consumer: None,
        }
    }

    /// Does what can be done right now. Tells when there is more to do, if nothing comes before
    /// that; nothing when the watch is over.
    pub(super) fn work(&mut self, session: &Session, now: Instant) -> Option<Instant> {
        loop {
            if !self.is_over && self.is_held() {
                return Some(now + READER_PACE);
            }
            let settled = match &mut self.phase {
                NatsWatchPhase::Synchronising(under_way) => match under_way.result.try_recv() {
                    Err(TryRecvError::Empty) => return Some(now + IDLE),
                    Ok(result) => Some(result),
                    Err(TryRecvError::Disconnected) => None,
                },
                _ if self.is_over => return None,
                NatsWatchPhase::Resting(until) if now < *until => return Some(*until),
                NatsWatchPhase::Resting(_) => {
                    self.begin(session, now);
                    continue;
                }
                NatsWatchPhase::Following(_) => match self.follow(now) {
                    Ok(due) => return Some(due),
                    Err(Stop::Ended) => {
                        self.is_over = true;
                        continue;
                    }
                    Err(Stop::Blind(why)) => {
                        self.blind(session, &why, now);
                        continue;
                    }
                },
            };
            self.settle(session, settled, now);
        }
    }

    /// Has `select` wake the thread when there is something to do for this watch.
    pub(super) fn listen<'a>(&'a self, select: &mut Select<'a>, now: Instant) {
        if !self.is_over && self.is_held {
            return;
        }
        match &self.phase {
            NatsWatchPhase::Resting(_) => {}
            NatsWatchPhase::Synchronising(under_way) => {
                select.recv(&under_way.result);
            }
            NatsWatchPhase::Following(tail) => {
                if let Some(arrivals) = tail.arrivals(now) {
                    select.recv(arrivals);
                }
            }
        }
    }

    /// There is a new connection: a watch that rests need not wait any longer.
    pub(super) fn reconnected(&mut self, now: Instant) {
        self.pauses.reset();
        if let NatsWatchPhase::Resting(until) = &mut self.phase {
            *until = now.min(*until);
        }
    }

    /// Nobody reads it any more. It is over once `work` says so.
    pub(super) fn close(&mut self) {
        self.is_over = true;
    }

    /// Ends the watch for good; called when every request fails at once.
    pub(super) fn end(self) {
        if let NatsWatchPhase::Synchronising(under_way) = self.phase {
            drop(under_way.result.recv());
            end_thread(&under_way.thread);
        }
    }

    /// Whether the reader has too much left of what made this watch wait for it.
    fn is_held(&mut self) -> bool {
        self.is_held = self.is_held && !self.target.has_room();
        self.is_held
    }

    /// Hands over what the reader must get, however much waits for it.
    fn tell(&mut self, event: WatchEvent) {
        // Nobody reads any more: whoever dropped the reader has asked for the end of this watch.
        self.target.events.send(event).ok();
        self.is_held |= !self.target.has_room();
    }

    /// Starts to synchronise, if there is a connection.
    fn begin(&mut self, session: &Session, now: Instant) {
        let link = match session.link() {
            Ok(link) => link,
            Err(failure) => {
                self.blind(session, &failure.into_error("watch").to_string(), now);
                // The next connection ends the rest.
                self.phase = NatsWatchPhase::Resting(now + IDLE);
                return;
            }
        };
        let job = ResyncJob {
            delivery: self.target.delivery,
            stream: Stream::new(link, self.target.stream.clone(), &session.options),
            filter: self.target.filter.clone(),
            keys_at: self.target.subject_prefix.len(),
            last_consumer: self.last_consumer.take(),
            deadline: now + self.timeout,
        };
        let (tell, result) = bounded(1);
        let thread = Thread::spawn("dv-nats-sync", move || {
            // Nobody is there to hear of it when the store stops; a tail is dropped then.
            drop(tell.try_send(job.carry_out()));
        });
        match thread {
            Ok(thread) => {
                self.phase = NatsWatchPhase::Synchronising(Synchronisation { thread, result })
            }
            Err(error) => self.blind(session, &error.to_string(), now),
        }
    }

    /// Goes on with what a synchronisation has brought; nothing: it panicked.
    fn settle(
        &mut self,
        session: &Session,
        result: Option<Result<Synchronised, RequestFailure>>,
        now: Instant,
    ) {
        let phase = std::mem::replace(&mut self.phase, NatsWatchPhase::Resting(now));
        if let NatsWatchPhase::Synchronising(under_way) = phase {
            end_thread(&under_way.thread);
        }
        if self.is_over {
            return;
        }
        let Synchronised { snapshot, tail } = match result {
            Some(Ok(synchronised)) => synchronised,
            Some(Err(failure)) => {
                if failure == RequestFailure::TimedOut {
                    self.timeout = (self.timeout * 2).min(SYNC_TIMEOUT_MAX);
                }
                return self.blind(session, &failure.into_error("watch").to_string(), now);
            }
            None => return self.blind(session, "the thread that lists panicked", now),
        };
        for change in self.told.catch_up(snapshot) {
            self.tell(WatchEvent::Change(change));
        }
        if self.sight != WatchVisibility::Live {
            if tail.is_none() {
                let stream = &self.target.stream;
                log::warn!("stream {stream}: consumer limit reached, polling instead of watching");
            }
            self.sight = WatchVisibility::Live;
            self.tell(WatchEvent::Live);
        }
        self.timeout = SYNC_TIMEOUT_MIN;
        self.pauses.reset();
        self.phase = match tail {
            Some(tail) => {
                self.last_consumer = Some(tail.consumer.clone());
                NatsWatchPhase::Following(Box::new(tail))
            }
            None => {
                let jitter = Duration::from_millis(fastrand::u64(0..500));
                NatsWatchPhase::Resting(now + POLL_INTERVAL + jitter)
            }
        };
    }

    /// Something is wrong: the reader is told once, and soon all begins anew.
    fn blind(&mut self, session: &Session, why: &str, now: Instant) {
        if session.is_stopping() {
            // Nothing is wrong, then: it is the end.
            self.is_over = true;
            return;
        }
        if self.sight != WatchVisibility::Blind {
            self.sight = WatchVisibility::Blind;
            self.tell(WatchEvent::Disconnected(why.to_owned()));
        }
        self.phase = NatsWatchPhase::Resting(now + PAUSE_LEAST + self.pauses.next_delay());
    }

    fn follow(&mut self, now: Instant) -> Result<Instant, Stop> {
        let NatsWatchPhase::Following(tail) = &mut self.phase else {
            return Ok(now);
        };
        let (target, told) = (&self.target, &mut self.told);
        let mut found = std::mem::take(&mut self.found);
        let looked = tail.look(now, |delivered| found.push(target.find(delivered, told)));
        let passed = target.pass(&mut found, told);
        // Many at once are rare, and not worth keeping room for.
        if found.capacity() <= ROOM_MAX {
            self.found = found;
        }
        passed.and(looked)
    }
}

impl WatchTarget {
    fn has_room(&self) -> bool {
        self.events.len() < EVENTS_MAX
    }

    fn find(&self, delivered: Delivered, told: &mut ReplayState) -> WatchedMessage {
        let revision = delivered.revision;
        let entry = self.entry(&delivered.message, revision, delivered.waited);
        let event = entry.and_then(|entry| told.pass(entry));
        WatchedMessage {
            revision,
            event: event.map(WatchEvent::Change),
        }
    }

    /// Hands changes to the reader, one right after the other, so that it wakes up once for all.
    fn pass(&self, found: &mut Vec<WatchedMessage>, told: &mut ReplayState) -> Result<(), Stop> {
        let mut passed = Ok(());
        for WatchedMessage { revision, event } in found.drain(..) {
            match (event, &passed) {
                (None, Ok(())) => told.reached(revision),
                (None, Err(_)) => {}
                (Some(event), Err(_)) => told.undo(&event),
                (Some(event), Ok(())) if !self.has_room() => {
                    told.undo(&event);
                    passed = Err(Stop::Blind(
                        "the reader of the watch is too slow".to_owned(),
                    ));
                }
                (Some(event), Ok(())) => match self.events.send(event) {
                    Ok(()) => told.reached(revision),
                    Err(_) => passed = Err(Stop::Ended),
                },
            }
        }
        passed
    }

    fn entry(&self, message: &Message, revision: Revision, age: Option<Duration>) -> Option<Entry> {
        let key = message
            .subject()
            .strip_prefix(self.subject_prefix.as_bytes())?;
        let Ok(key) = std::str::from_utf8(key) else {
            self.report_malformed(key);
            return None;
        };
        let key = key.to_owned();
        let headers = message.headers();
        let operation = operation_of(
            headers.get("KV-Operation"),
            headers.get("Nats-Marker-Reason"),
        );
        let value = if operation == Operation::Put {
            message.payload().to_vec()
        } else {
            Vec::new()
        };
        Some(Entry {
            key,
            value,
            revision,
            operation,
            age,
        })
    }
}

impl WatchTarget {
    fn report_malformed(&self, key: &[u8]) {
        let happened = self.malformed.lock().record(SystemClock.now());
        if let Some(silent) = happened {
            let key = String::from_utf8_lossy(&key[..key.len().min(60)]);
            let stream = &self.stream;
            let silent = suppressed(silent);
            log::warn!("stream {stream}: malformed key {key:?} skipped{silent}: not UTF-8");
        }
    }
}

/// What the thread of a synchronisation has to do.
struct ResyncJob {
    stream: Stream,
    filter: String,
    keys_at: usize,
    delivery: Delivery,
    last_consumer: Option<String>,
    deadline: Instant,
}

impl ResyncJob {
    /// A listing, and a consumer that goes on where it ends, if the server has room for it.
    fn carry_out(self) -> Result<Synchronised, RequestFailure> {
        let Self {
            stream,
            filter,
            deadline,
            ..
        } = self;
        if let Some(last) = self.last_consumer {
            // Its connection may have been lost before it could be deleted.
            delete_consumer(&stream, &last);
        }
        let snapshot = read::list(&stream, &filter, self.keys_at, deadline)?;
        let start = snapshot.listing.last_sequence + 1;
        let opened = Consumer::open(stream.clone(), &filter, start, self.delivery, deadline);
        let tail = match opened {
            Ok(tail) => tail,
            Err(failure) if failure.is_api(number::TOO_MANY_CONSUMERS) => {
                let tail = None;
                return Ok(Synchronised { snapshot, tail });
            }
            Err(failure) => return Err(failure),
        };
        // A bucket created anew in between would number its writes from the start again, and the
        // consumer would wait for a number far away.
        if stream.info(deadline)?.created != snapshot.created {
            let why = "the bucket was re-created".to_owned();
            return Err(RequestFailure::Disconnected(why));
        }
        let tail = Some(tail);
        Ok(Synchronised { snapshot, tail })
    }
}

/// Joins a thread that has nothing more to do.
fn end_thread(thread: &Thread) {
    if let Err(error) = thread.join(Instant::now() + END_PATIENCE) {
        log::error!("{error}");
    }
}

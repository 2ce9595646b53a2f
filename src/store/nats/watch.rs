//! Watches: a listing, then a consumer that continues from it, and both again after any failure.
//!
//! The listing is read as JSON (see [`super::read`]), the changes from a consumer that starts right
//! after it (see [`super::consumer`]). A gap in the sequence numbers, a timeout, a lost connection and
//! a slow reader are handled alike: the watch reports that it is lost, lists again, delivers what the
//! reader has not received, and creates a new consumer. A key that is not UTF-8 is logged and skipped.
//!
//! The thread of the session serves all watches and never blocks on one of them. The listing and the
//! creation of the consumer block, so each runs on a temporary thread.

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

/// A reader with this many queued events is too slow: one second of 4 000 workers with a heartbeat
/// per second. The channel itself is unbounded, because a bounded one allocates all slots at once
/// (360 KB per watch). A listing is queued whatever its size, because it is in memory already.
const EVENTS_MAX: usize = 4_096;
/// Delay before a reader that is too slow is checked again.
const READER_PACE: Duration = Duration::from_millis(5);
/// Time limit of the first synchronisation. Each one that exceeds it doubles the next limit.
const SYNC_TIMEOUT_MIN: Duration = Duration::from_secs(8);
const SYNC_TIMEOUT_MAX: Duration = Duration::from_secs(32);
/// Polling interval of a watch without a consumer, plus up to half of it.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Delay before a watch resynchronises: this, plus a random delay whose limit doubles between the
/// next two values, because most failures affect many watches at once.
const PAUSE_LEAST: Duration = Duration::from_millis(20);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Time limit for the thread of a finished synchronisation to end.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// Capacity for messages that is kept between reads.
const ROOM_MAX: usize = 256;
/// Interval at which an idle watch is checked.
const IDLE: Duration = Duration::from_secs(60);

/// What a watch covers, and its reader.
pub(super) struct WatchTarget {
    pub(super) stream: String,
    /// Subject prefix of the keys.
    pub(super) subject_prefix: String,
    /// The watched subjects.
    pub(super) filter: String,
    pub(super) delivery: Delivery,
    pub(super) events: Sender<WatchEvent>,
    /// Throttles the log lines about malformed keys.
    pub(super) malformed: Mutex<LogThrottle>,
}

/// One watch.
pub(super) struct NatsWatch {
    pub(super) id: u64,
    target: WatchTarget,
    replay: ReplayState,
    /// Whether to pause until the reader has caught up.
    is_held: bool,
    /// Buffer for the messages of one read.
    found: Vec<WatchedMessage>,
    visibility: WatchVisibility,
    phase: NatsWatchPhase,
    /// Whether the reader was dropped.
    is_over: bool,
    /// Time limit of the next synchronisation.
    timeout: Duration,
    /// Delays between failed synchronisations.
    pauses: Backoff,
    /// The previous consumer, which must be deleted.
    last_consumer: Option<String>,
}

/// The visibility last reported to the reader.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WatchVisibility {
    Unknown,
    Live,
    Lost,
}

enum NatsWatchPhase {
    /// Waits until the next synchronisation is due.
    Paused(Instant),
    Synchronising(Synchronisation),
    Following(Box<Consumer>),
}

/// A message, and the event for the reader, if it causes one.
struct WatchedMessage {
    revision: Revision,
    event: Option<WatchEvent>,
}

/// A listing in progress on its own thread.
struct Synchronisation {
    thread: Thread,
    result: Receiver<Result<Synchronised, RequestFailure>>,
}

/// A listing and the consumer that continues from it, unless the consumer limit is reached.
struct Synchronised {
    snapshot: Snapshot,
    consumer: Option<Consumer>,
}

impl NatsWatch {
    pub(super) fn new(id: u64, target: WatchTarget) -> Self {
        Self {
            id,
            target,
            replay: ReplayState::default(),
            is_held: false,
            found: Vec::new(),
            visibility: WatchVisibility::Unknown,
            phase: NatsWatchPhase::Paused(Instant::now()),
            is_over: false,
            timeout: SYNC_TIMEOUT_MIN,
            pauses: Backoff::new(PAUSE_MIN, PAUSE_MAX, fastrand::u64(..)),
            last_consumer: None,
        }
    }

    /// Performs all due work. Returns when the next work is due if no event arrives before, or `None`
    /// if the watch has ended.
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
                NatsWatchPhase::Paused(until) if now < *until => return Some(*until),
                NatsWatchPhase::Paused(_) => {
                    self.begin(session, now);
                    continue;
                }
                NatsWatchPhase::Following(_) => match self.follow(now) {
                    Ok(due) => return Some(due),
                    Err(Stop::Ended) => {
                        self.is_over = true;
                        continue;
                    }
                    Err(Stop::Lost(why)) => {
                        self.lost(session, &why, now);
                        continue;
                    }
                },
            };
            self.settle(session, settled, now);
        }
    }

    /// Registers the channel of this watch with `select`.
    pub(super) fn listen<'a>(&'a self, select: &mut Select<'a>, now: Instant) {
        if !self.is_over && self.is_held {
            return;
        }
        match &self.phase {
            NatsWatchPhase::Paused(_) => {}
            NatsWatchPhase::Synchronising(under_way) => {
                select.recv(&under_way.result);
            }
            NatsWatchPhase::Following(consumer) => {
                if let Some(arrivals) = consumer.arrivals(now) {
                    select.recv(arrivals);
                }
            }
        }
    }

    /// Whether a thread is listing the bucket.
    #[cfg(test)]
    pub(super) fn is_synchronising(&self) -> bool {
        matches!(self.phase, NatsWatchPhase::Synchronising(_))
    }

    /// Handles a new connection: a paused watch synchronises immediately.
    pub(super) fn reconnected(&mut self, now: Instant) {
        self.pauses.reset();
        if let NatsWatchPhase::Paused(until) = &mut self.phase {
            *until = now.min(*until);
        }
    }

    /// Handles that the reader was dropped. The watch has ended when `work` returns `None`.
    pub(super) fn close(&mut self) {
        self.is_over = true;
    }

    /// Ends the watch. Called after the link was closed, so that every request fails immediately.
    pub(super) fn end(self) {
        if let NatsWatchPhase::Synchronising(under_way) = self.phase {
            drop(under_way.result.recv());
            end_thread(&under_way.thread);
        }
    }

    /// Returns whether the watch must still wait for its reader.
    fn is_held(&mut self) -> bool {
        self.is_held = self.is_held && !self.target.has_room();
        self.is_held
    }

    /// Delivers an event to the reader, whatever the length of its queue.
    fn deliver(&mut self, event: WatchEvent) {
        // Fails only if the reader was dropped, which also requests the end of this watch.
        self.target.events.send(event).ok();
        self.is_held |= !self.target.has_room();
    }

    /// Starts a synchronisation if there is a connection.
    fn begin(&mut self, session: &Session, now: Instant) {
        let link = match session.link() {
            Ok(link) => link,
            Err(failure) => {
                self.lost(session, &failure.into_error("watch").to_string(), now);
                // The next connection ends the pause.
                self.phase = NatsWatchPhase::Paused(now + IDLE);
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
        let (sender, result) = bounded(1);
        let thread = Thread::spawn("dv-nats-sync", move || {
            // Fails only if the store stops; the consumer is then dropped.
            drop(sender.try_send(job.carry_out()));
        });
        match thread {
            Ok(thread) => {
                self.phase = NatsWatchPhase::Synchronising(Synchronisation { thread, result })
            }
            Err(error) => self.lost(session, &error.to_string(), now),
        }
    }

    /// Continues with the result of a synchronisation. `None`: its thread panicked.
    fn settle(
        &mut self,
        session: &Session,
        result: Option<Result<Synchronised, RequestFailure>>,
        now: Instant,
    ) {
        let phase = std::mem::replace(&mut self.phase, NatsWatchPhase::Paused(now));
        if let NatsWatchPhase::Synchronising(under_way) = phase {
            end_thread(&under_way.thread);
        }
        if self.is_over {
            return;
        }
        let Synchronised { snapshot, consumer } = match result {
            Some(Ok(synchronised)) => synchronised,
            Some(Err(failure)) => {
                if failure == RequestFailure::TimedOut {
                    self.timeout = (self.timeout * 2).min(SYNC_TIMEOUT_MAX);
                }
                return self.lost(session, &failure.into_error("watch").to_string(), now);
            }
            None => return self.lost(session, "the listing thread panicked", now),
        };
        for change in self.replay.catch_up(snapshot) {
            self.deliver(WatchEvent::Change(change));
        }
        if self.visibility != WatchVisibility::Live {
            if consumer.is_none() {
                let stream = &self.target.stream;
                log::warn!(
                    stream = stream.as_str();
                    "stream {stream}: consumer limit reached, polling instead of watching"
                );
            }
            self.visibility = WatchVisibility::Live;
            self.deliver(WatchEvent::Live);
        }
        self.timeout = SYNC_TIMEOUT_MIN;
        self.pauses.reset();
        self.phase = match consumer {
            Some(consumer) => {
                self.last_consumer = Some(consumer.consumer.clone());
                NatsWatchPhase::Following(Box::new(consumer))
            }
            None => {
                let jitter = Duration::from_millis(fastrand::u64(0..500));
                NatsWatchPhase::Paused(now + POLL_INTERVAL + jitter)
            }
        };
    }

    /// Handles a lost watch: notifies the reader once and schedules a synchronisation.
    fn lost(&mut self, session: &Session, why: &str, now: Instant) {
        if session.is_stopping() {
            // The store is stopping: end the watch.
            self.is_over = true;
            return;
        }
        if self.visibility != WatchVisibility::Lost {
            self.visibility = WatchVisibility::Lost;
            self.deliver(WatchEvent::Disconnected(why.to_owned()));
        }
        self.phase = NatsWatchPhase::Paused(now + PAUSE_LEAST + self.pauses.next_delay());
    }

    fn follow(&mut self, now: Instant) -> Result<Instant, Stop> {
        let NatsWatchPhase::Following(consumer) = &mut self.phase else {
            return Ok(now);
        };
        let (target, replay) = (&self.target, &mut self.replay);
        let mut found = std::mem::take(&mut self.found);
        let looked = consumer.look(now, |delivered| found.push(target.find(delivered, replay)));
        let passed = target.pass(&mut found, replay);
        // Do not keep the capacity of a rare large read.
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

    fn find(&self, delivered: Delivered, replay: &mut ReplayState) -> WatchedMessage {
        let revision = delivered.revision;
        let entry = self.entry(&delivered.message, revision, delivered.waited);
        let event = entry.and_then(|entry| replay.pass(entry));
        WatchedMessage {
            revision,
            event: event.map(WatchEvent::Change),
        }
    }

    /// Delivers changes to the reader in one go, so that it wakes up once.
    fn pass(&self, found: &mut Vec<WatchedMessage>, replay: &mut ReplayState) -> Result<(), Stop> {
        let mut passed = Ok(());
        for WatchedMessage { revision, event } in found.drain(..) {
            match (event, &passed) {
                (None, Ok(())) => replay.reached(revision),
                (None, Err(_)) => {}
                (Some(event), Err(_)) => replay.undo(&event),
                (Some(event), Ok(())) if !self.has_room() => {
                    replay.undo(&event);
                    passed = Err(Stop::Lost("the reader of the watch is too slow".to_owned()));
                }
                (Some(event), Ok(())) => match self.events.send(event) {
                    Ok(()) => replay.reached(revision),
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
            log::warn!(
                stream = stream.as_str();
                "stream {stream}: malformed key {key:?} skipped{silent}: not UTF-8"
            );
        }
    }
}

/// The job of the thread of a synchronisation.
struct ResyncJob {
    stream: Stream,
    filter: String,
    keys_at: usize,
    delivery: Delivery,
    last_consumer: Option<String>,
    deadline: Instant,
}

impl ResyncJob {
    /// Lists the keys and creates a consumer that continues from the listing.
    fn carry_out(self) -> Result<Synchronised, RequestFailure> {
        let Self {
            stream,
            filter,
            deadline,
            ..
        } = self;
        if let Some(last) = self.last_consumer {
            // It was not deleted if its connection was lost before.
            delete_consumer(&stream, &last);
        }
        let snapshot = read::list(&stream, &filter, self.keys_at, deadline)?;
        let start = snapshot.listing.last_sequence + 1;
        let opened = Consumer::open(stream.clone(), &filter, start, self.delivery, deadline);
        let consumer = match opened {
            Ok(consumer) => consumer,
            Err(failure) if failure.is_api(number::TOO_MANY_CONSUMERS) => {
                let consumer = None;
                return Ok(Synchronised { snapshot, consumer });
            }
            Err(failure) => return Err(failure),
        };
        // A bucket re-created in between would restart its sequence numbers, and the consumer would
        // wait for a number far ahead.
        if stream.info(deadline)?.created != snapshot.created {
            let why = "the bucket was re-created".to_owned();
            return Err(RequestFailure::Disconnected(why));
        }
        let consumer = Some(consumer);
        Ok(Synchronised { snapshot, consumer })
    }
}

/// Joins the thread of a finished synchronisation.
fn end_thread(thread: &Thread) {
    if let Err(error) = thread.join(Instant::now() + END_TIMEOUT) {
        log::error!("listing thread failed: {error}");
    }
}

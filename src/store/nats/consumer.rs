//! A JetStream consumer that delivers the changes after a listing.
//!
//! Rare changes are pushed: each message arrives as soon as it is stored, and wakes two threads.
//! Heartbeats are pulled: one request returns all that were stored since the previous one, so that
//! the threads wake once per burst. A request that finds none waits at the server for the first, for
//! up to [`PULL_EXPIRES`]. The time that a heartbeat waited for its request is reported with it (see
//! [`super::queue_delay`]), so a lease begins when the heartbeat was stored, not when it was pulled.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use serde_json::{Value, json};

use super::client::{Message, Subscription};
use super::failure::RequestFailure;
use super::jetstream::Stream;
use super::link::AckSubject;
use super::queue_delay::QueueDelayEstimator;
use crate::types::Revision;

/// A consumer that delivers nothing for this long is considered lost.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Interval of the idle heartbeats of the server.
const IDLE_HEARTBEAT: Duration = Duration::from_secs(1);
/// The server deletes a consumer without a subscriber after this time.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(120);
/// Minimum time between two reads of pushed messages. A message after a pause of this length is
/// delivered immediately.
const PACE: Duration = Duration::from_millis(50);
/// Minimum time between two pull requests; a pulled message has waited half of it on average. Each
/// request costs wake-ups, which are the largest part of the load of a leader.
const PULL_PACE: Duration = Duration::from_millis(200);
/// After more messages than this in one read, the next read follows immediately.
const PACED_MAX: usize = 256;
/// Maximum number of messages per read, so that other watches get their turn.
pub(super) const LOOK_MAX: usize = 1_024;
/// Maximum number of messages per pull request.
const PULL_MAX: usize = 1_024;
/// How long a pull request waits at the server for the first message.
const PULL_EXPIRES: Duration = Duration::from_secs(1);
/// The messages of one request are read together after this time, which the server needs to send
/// them.
const GATHER: Duration = Duration::from_millis(3);

static NEXT_CONSUMER: AtomicU64 = AtomicU64::new(1);

/// How the server delivers messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Pushed,
    Pulled,
}

/// Why a consumer is not read any further.
pub(super) enum Stop {
    /// The reader of the watch was dropped.
    Ended,
    /// The watch is lost, for this reason.
    Lost(String),
}

/// A message of the consumer that carries a change.
pub(super) struct Delivered {
    pub(super) message: Message,
    pub(super) revision: Revision,
    /// How long it waited at the server, where known.
    pub(super) waited: Option<Duration>,
}

/// A JetStream consumer of this watch. Dropping it deletes it on the server.
pub(super) struct Consumer {
    stream: Stream,
    pub(super) consumer: String,
    /// The subject to which it delivers.
    subject: String,
    inbound: Subscription,
    /// The sequence number of its last message.
    delivered: u64,
    /// When its last message arrived.
    heard: Instant,
    next_look: Instant,
    pace: Pace,
    pull: Option<Pull>,
}

/// Distinguishes a single change, which is read immediately, from a stream of changes, which are
/// read together to save wake-ups.
#[derive(Default)]
struct Pace {
    last_change: Option<Instant>,
}

impl Pace {
    /// Returns how long to delay the next read after `changes` changes in one read.
    fn after(&mut self, changes: usize, now: Instant) -> Duration {
        if changes == 0 {
            return Duration::ZERO;
        }
        let last = self.last_change.replace(now);
        let is_lone = changes == 1 && last.is_none_or(|last| now.duration_since(last) > PACE);
        if is_lone { Duration::ZERO } else { PACE }
    }
}

/// Requests for messages, one at a time.
struct Pull {
    api: String,
    body: Vec<u8>,
    /// When the current request was sent.
    sent: Instant,
    /// When the next request may be sent.
    next: Instant,
    /// The number of messages that the current request returned. `None`: there is no request.
    brought: Option<usize>,
    /// When the server had no undelivered messages left.
    emptied: Instant,
    waits: QueueDelayEstimator,
}

impl Consumer {
    pub(super) fn open(
        stream: Stream,
        filter: &str,
        start: Revision,
        delivery: Delivery,
        deadline: Instant,
    ) -> Result<Self, RequestFailure> {
        let number = NEXT_CONSUMER.fetch_add(1, Ordering::Relaxed);
        let consumer = format!("divvy{:016x}n{number}", fastrand::u64(..));
        let subject = stream.link.delivery_subject(&consumer);
        let mut config = json!({
            "name": consumer,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": start,
            "filter_subject": filter,
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "inactive_threshold": nanos(INACTIVE_THRESHOLD),
            // One replica: a lost consumer is detected by its missing heartbeats and replaced.
            "num_replicas": 1,
            "mem_storage": true,
        });
        if delivery == Delivery::Pushed {
            config["deliver_subject"] = json!(subject);
            config["flow_control"] = json!(true);
            config["idle_heartbeat"] = json!(nanos(IDLE_HEARTBEAT));
        }
        let inbound = stream.link.subscribe(&subject)?;
        let now = stream.link.now();
        let mut made = Self {
            stream,
            consumer,
            subject,
            inbound,
            delivered: 0,
            heard: now,
            next_look: now,
            pace: Pace::default(),
            pull: None,
        };
        let stream = &made.stream;
        let api = format!("CONSUMER.CREATE.{}.{}.{filter}", stream.name, made.consumer);
        let body = json!({ "stream_name": stream.name, "config": config });
        stream.request::<Value>(&api, &body, deadline)?;
        if let Some(why) = made.inbound.refusal() {
            return Err(RequestFailure::Denied(why.to_owned()));
        }
        if delivery == Delivery::Pulled {
            let (api, name) = (&stream.api, &stream.name);
            let next = format!("{api}.CONSUMER.MSG.NEXT.{name}.{}", made.consumer);
            made.pull = Some(Pull::new(next, now));
        }
        Ok(made)
    }

    /// Reads the messages that have arrived, if a read is due, and passes each change to `each`.
    /// Returns when the next read is due at the latest, or why the watch ended.
    pub(super) fn look(
        &mut self,
        now: Instant,
        mut each: impl FnMut(Delivered),
    ) -> Result<Instant, Stop> {
        if self.stream.link.is_dead() {
            return Err(lost("the connection was lost"));
        }
        if now < self.next_look {
            return Ok(self.next_look);
        }
        let (mut count, mut changes) = (0, 0);
        while count < LOOK_MAX {
            let message = match self.inbound.try_recv() {
                Ok(message) => message,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    let why = self.inbound.refusal().unwrap_or("the connection was lost");
                    return Err(lost(why));
                }
            };
            count += 1;
            if let Some(delivered) = self.number(message)? {
                changes += 1;
                each(delivered);
            }
        }
        if count > 0 {
            self.heard = now;
        }
        self.next_look = match &mut self.pull {
            None if count >= PACED_MAX => now,
            None => now + self.pace.after(changes, now),
            Some(pull) => {
                let asked = pull.ask_if_due(&self.stream, &self.subject, now);
                if asked {
                    self.heard = now;
                }
                pull.next_look(asked || count > 0, now)
            }
        };
        if now.duration_since(self.heard) >= SILENCE_MAX {
            return Err(lost("the consumer stopped delivering"));
        }
        if self.next_look > now {
            return Ok(self.next_look);
        }
        Ok(self.heard + SILENCE_MAX)
    }

    /// Returns the channel of arriving messages if they are to be read immediately.
    pub(super) fn arrivals(&self, now: Instant) -> Option<&Receiver<Message>> {
        (now >= self.next_look).then_some(self.inbound.arrivals())
    }

    /// Checks the sequence number of a message. Returns `None` for a control message of the consumer.
    fn number(&mut self, message: Message) -> Result<Option<Delivered>, Stop> {
        let Some(position) = message.reply().and_then(AckSubject::parse) else {
            return self.control(&message).map(|()| None).map_err(lost);
        };
        if position.consumer_sequence != self.delivered + 1 {
            return Err(match self.inbound.dropped() {
                0 => lost("messages of the consumer were lost"),
                dropped => Stop::Lost(format!(
                    "{dropped} messages of the consumer were dropped: too many at once"
                )),
            });
        }
        self.delivered += 1;
        let pull = self.pull.as_mut();
        Ok(Some(Delivered {
            message,
            revision: position.stream_sequence,
            // The time of arrival is unknown, so use the current time, not the time of the read.
            waited: pull.map(|pull| pull.brought_one(position.stored, self.stream.link.now())),
        }))
    }

    fn control(&mut self, message: &Message) -> Result<(), &'static str> {
        let headers = message.headers();
        let header = |name| headers.get(name);
        if let Some(pull) = &mut self.pull {
            // The session then does not need to send a PING.
            self.stream.link.answered(pull.sent);
            let status = headers.status().map(|(code, _)| code);
            return pull.ended(status, header("Nats-Pending-Messages"));
        }
        // A heartbeat, or a flow control request.
        if let Some(reply) = message.reply() {
            self.stream.link.post(reply, b"");
        }
        if let Some(stalled) = header("Nats-Consumer-Stalled") {
            self.stream.link.post(stalled, b"");
        }
        match header("Nats-Last-Consumer").map(str::parse::<u64>) {
            Some(Ok(last)) if last != self.delivered => {
                Err("the last messages of the consumer were lost")
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.stream.link.unsubscribe(&self.inbound);
        delete_consumer(&self.stream, &self.consumer);
    }
}

impl Pull {
    /// `emptied` is when the listing had returned all earlier messages.
    fn new(api: String, emptied: Instant) -> Self {
        let body = json!({
            "batch": PULL_MAX,
            // Return the stored messages; if there are none, wait for the first.
            "no_wait": true,
            "expires": nanos(PULL_EXPIRES),
        });
        Self {
            api,
            body: body.to_string().into_bytes(),
            sent: emptied,
            next: emptied,
            brought: None,
            emptied,
            waits: QueueDelayEstimator::new(emptied),
        }
    }

    /// Sends the next request if it is due. If the queue has no room, the next read retries it, until
    /// [`SILENCE_MAX`] ends the consumer.
    fn ask_if_due(&mut self, stream: &Stream, subject: &str, now: Instant) -> bool {
        if self.brought.is_some() || now < self.next {
            return false;
        }
        self.sent = now;
        self.next = now + PULL_PACE;
        let asked = stream.link.post_now(&self.api, subject, &self.body);
        if asked {
            self.brought = Some(0);
        }
        asked
    }

    fn next_look(&self, more_is_coming: bool, now: Instant) -> Instant {
        match self.brought {
            None => self.next,
            Some(_) if more_is_coming => now + GATHER,
            // Read the first message as soon as it arrives.
            Some(_) => now,
        }
    }

    /// Counts a message and returns how long it waited at the server.
    fn brought_one(&mut self, stored: u64, now: Instant) -> Duration {
        if let Some(brought) = &mut self.brought {
            *brought += 1;
            if *brought == PULL_MAX {
                // The server sends no status for a fulfilled request. There may be more messages,
                // so the next request is due.
                self.brought = None;
                self.next = self.sent;
            }
        }
        self.waits.of(stored, now, self.emptied)
    }

    /// Handles the final status of a request, which states how many messages it did not return.
    fn ended(&mut self, status: Option<u16>, left: Option<&str>) -> Result<(), &'static str> {
        match status {
            Some(404 | 408) => {}
            Some(100) => return Ok(()),
            _ => return Err("the consumer was deleted"),
        }
        let brought = self.brought.take().unwrap_or(0);
        self.emptied = self.sent;
        match left.map(str::parse::<usize>) {
            Some(Ok(left)) if left + brought != PULL_MAX => {
                Err("the last messages of the consumer were lost")
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn delete_consumer(stream: &Stream, consumer: &str) {
    let api = format!("{}.CONSUMER.DELETE.{}.{consumer}", stream.api, stream.name);
    stream.link.post(&api, b"");
}

fn lost(why: &str) -> Stop {
    Stop::Lost(why.to_owned())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a request that was sent and has returned `brought` messages.
    fn pull(brought: usize) -> Pull {
        let now = Instant::now();
        let mut pull = Pull::new("api".to_owned(), now);
        pull.brought = Some(0);
        for _ in 0..brought {
            pull.brought_one(7, now);
        }
        pull
    }

    #[test]
    fn end_of_pull_reveals_missing_messages() {
        let left = |brought: usize| (PULL_MAX - brought).to_string();
        for status in [404, 408] {
            assert_eq!(pull(0).ended(Some(status), Some(&left(0))), Ok(()));
            assert_eq!(pull(7).ended(Some(status), Some(&left(7))), Ok(()));
            assert_eq!(pull(7).ended(Some(status), None), Ok(()));
            assert!(pull(6).ended(Some(status), Some(&left(7))).is_err());
        }
        for gone in [Some(409), Some(503), None] {
            assert!(pull(0).ended(gone, None).is_err(), "{gone:?}");
        }
    }

    #[test]
    fn next_pull_follows_end_of_previous_one() {
        let mut under_way = pull(3);
        assert_eq!(under_way.ended(Some(100), None), Ok(()));
        assert_eq!(under_way.brought, Some(3));
        under_way.ended(Some(404), None).unwrap();
        assert_eq!(under_way.brought, None);
        // The server sends no status for a fulfilled request, and there may be more messages.
        let fulfilled = pull(PULL_MAX);
        assert_eq!(fulfilled.brought, None);
        assert_eq!(fulfilled.next, fulfilled.sent);
    }

    #[test]
    fn trickle_is_paced_and_isolated_message_is_not() {
        let now = Instant::now();
        let at = |millis| now + Duration::from_millis(millis);
        let mut pace = Pace::default();
        assert_eq!(pace.after(1, at(0)), Duration::ZERO);
        assert_eq!(pace.after(0, at(20)), Duration::ZERO); // an idle heartbeat
        assert_eq!(pace.after(1, at(40)), PACE);
        assert_eq!(pace.after(3, at(90)), PACE);
        assert_eq!(pace.after(1, at(200)), Duration::ZERO);
        assert_eq!(pace.after(2, at(400)), PACE);
    }

    #[test]
    fn waiting_pull_is_checked_when_data_arrives() {
        let now = Instant::now();
        assert_eq!(pull(0).next_look(false, now), now);
        assert_eq!(pull(0).next_look(true, now), now + GATHER);
    }
}

//! A consumer of the server that tells what changes after a listing.
//!
//! What changes seldom is pushed: each message comes as soon as it is stored, and costs two
//! threads a wake-up. Heartbeats are pulled: one request brings all that have come since the one
//! before, at once, so that the threads wake for a burst and not for each of them.
//! A request that finds none waits at the server for the first, for up to [`PULL_EXPIRES`]. How
//! long each has waited for its request is reported with it (see [`super::waits`]), so a lease
//! begins when its beat was stored and not when it was requested.

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

/// A consumer that is silent for so long is gone.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How often the server says that there is nothing to say.
const IDLE_HEARTBEAT: Duration = Duration::from_secs(1);
/// The server forgets a consumer without a reader after so long.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(120);
/// Least time from one look at a trickle of what was pushed to the next. What comes after a silence
/// of that length is passed on at once.
const PACE: Duration = Duration::from_millis(50);
/// The same from one request to the next: what is pulled has waited for half of that on average.
/// Each request costs wake-ups, which are most of what a leader costs.
const PULL_PACE: Duration = Duration::from_millis(200);
/// More than that in one look is no trickle: the next look follows at once.
const PACED_MAX: usize = 256;
/// Most messages taken in one look, so that other watches have their turn.
pub(super) const LOOK_MAX: usize = 1_024;
/// Most messages that one request brings.
const PULL_MAX: usize = 1_024;
/// How long a request waits at the server for a first message.
const PULL_EXPIRES: Duration = Duration::from_secs(1);
/// What one request brings is looked at together: it takes the server so long to send it.
const GATHER: Duration = Duration::from_millis(3);

static NEXT_CONSUMER: AtomicU64 = AtomicU64::new(1);

/// How the server's messages come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Pushed,
    Pulled,
}

/// Why a tail is not followed any further.
pub(super) enum Stop {
    /// Nobody wants to know any more.
    Ended,
    /// Something is wrong.
    Blind(String),
}

/// A message of the consumer that is none of its own.
pub(super) struct Delivered {
    pub(super) message: Message,
    pub(super) revision: Revision,
    /// How long it has waited at the server, where that can be told.
    pub(super) waited: Option<Duration>,
}

/// A consumer of the server that delivers to us; deleted when dropped.
pub(super) struct Consumer {
    stream: Stream,
    pub(super) consumer: String,
    /// Where it delivers to.
    subject: String,
    inbound: Subscription,
    /// The number of its last message.
    delivered: u64,
    /// When it was last heard of.
    heard: Instant,
    next_look: Instant,
    pace: Pace,
    pull: Option<Pull>,
}

/// Tells a trickle of changes from a lone one, after which nothing is gained by looking later: to
/// do so costs a wake-up of its own.
#[derive(Default)]
struct Pace {
    last_change: Option<Instant>,
}

impl Pace {
    /// How long to leave alone what comes next, after so many changes in one look.
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
    /// When the present request was sent.
    sent: Instant,
    /// When the next one may be.
    next: Instant,
    /// How many messages the present request has brought; nothing: there is none.
    brought: Option<usize>,
    /// When nothing was left at the server that has not been brought.
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
            // One copy: a lost consumer is noticed by its silence and replaced.
            "num_replicas": 1,
            "mem_storage": true,
        });
        if delivery == Delivery::Pushed {
            config["deliver_subject"] = json!(subject);
            config["flow_control"] = json!(true);
            config["idle_heartbeat"] = json!(nanos(IDLE_HEARTBEAT));
        }
        let inbound = stream.link.subscribe(&subject)?;
        let now = Instant::now();
        let mut tail = Self {
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
        let stream = &tail.stream;
        let api = format!("CONSUMER.CREATE.{}.{}.{filter}", stream.name, tail.consumer);
        let body = json!({ "stream_name": stream.name, "config": config });
        stream.request::<Value>(&api, &body, deadline)?;
        if let Some(why) = tail.inbound.refusal() {
            return Err(RequestFailure::Denied(why.to_owned()));
        }
        if delivery == Delivery::Pulled {
            let (api, name) = (&stream.api, &stream.name);
            let next = format!("{api}.CONSUMER.MSG.NEXT.{name}.{}", tail.consumer);
            tail.pull = Some(Pull::new(next, now));
        }
        Ok(tail)
    }

    /// Looks at what has come, if it is time to: hands each change to `each`. Tells when to look
    /// again, at the latest, or what is wrong beyond the changes handed over.
    pub(super) fn look(
        &mut self,
        now: Instant,
        mut each: impl FnMut(Delivered),
    ) -> Result<Instant, Stop> {
        if self.stream.link.is_dead() {
            return Err(blind("the connection was lost"));
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
                    return Err(blind(why));
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
            return Err(blind("the server's watch fell silent"));
        }
        if self.next_look > now {
            return Ok(self.next_look);
        }
        Ok(self.heard + SILENCE_MAX)
    }

    /// Where messages arrive, while they are looked at as soon as they do.
    pub(super) fn arrivals(&self, now: Instant) -> Option<&Receiver<Message>> {
        (now >= self.next_look).then_some(self.inbound.arrivals())
    }

    /// Checks that a message is the next one; nothing is left of those that are the consumer's own.
    fn number(&mut self, message: Message) -> Result<Option<Delivered>, Stop> {
        let Some(position) = message.reply().and_then(AckSubject::parse) else {
            return self.control(&message).map(|()| None).map_err(blind);
        };
        if position.consumer_sequence != self.delivered + 1 {
            return Err(match self.inbound.dropped() {
                0 => blind("messages of the server's watch were lost"),
                dropped => Stop::Blind(format!(
                    "{dropped} messages of the server's watch were dropped: too many at once"
                )),
            });
        }
        self.delivered += 1;
        let pull = self.pull.as_mut();
        Ok(Some(Delivered {
            message,
            revision: position.stream_sequence,
            // Not the time of the look: who has arrived before that cannot be told from who has not.
            waited: pull.map(|pull| pull.brought_one(position.stored, Instant::now())),
        }))
    }

    fn control(&mut self, message: &Message) -> Result<(), &'static str> {
        let headers = message.headers();
        let header = |name| headers.get(name);
        if let Some(pull) = &mut self.pull {
            // Spares the session to ask for a sign of life.
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
                Err("the last messages of the server's watch were lost")
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
    /// `emptied` is when all that there was before had been listed.
    fn new(api: String, emptied: Instant) -> Self {
        let body = json!({
            "batch": PULL_MAX,
            // What there is, and the first one to come if there is none.
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

    /// Sends the next request, if it is time to. Where there is no room just now, the next look
    /// tries again, until silence has lasted too long.
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
            // The first one is looked at as soon as it comes.
            Some(_) => now,
        }
    }

    /// Tells how long it has waited.
    fn brought_one(&mut self, stored: u64, now: Instant) -> Duration {
        if let Some(brought) = &mut self.brought {
            *brought += 1;
            if *brought == PULL_MAX {
                // The server says nothing more about a request that is fulfilled. There may be
                // more, and that waits for nothing.
                self.brought = None;
                self.next = self.sent;
            }
        }
        self.waits.of(stored, now, self.emptied)
    }

    /// The server's last word on a request, which tells how many messages it did not bring.
    fn ended(&mut self, status: Option<u16>, left: Option<&str>) -> Result<(), &'static str> {
        match status {
            Some(404 | 408) => {}
            Some(100) => return Ok(()),
            _ => return Err("the server's watch is gone"),
        }
        let brought = self.brought.take().unwrap_or(0);
        self.emptied = self.sent;
        match left.map(str::parse::<usize>) {
            Some(Ok(left)) if left + brought != PULL_MAX => {
                Err("the last messages of the server's watch were lost")
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn delete_consumer(stream: &Stream, consumer: &str) {
    let api = format!("{}.CONSUMER.DELETE.{}.{consumer}", stream.api, stream.name);
    stream.link.post(&api, b"");
}

fn blind(why: &str) -> Stop {
    Stop::Blind(why.to_owned())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request that was sent and has brought so many messages.
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
        // Nothing more is said about one that has brought all that it asked for, and there may be
        // more by now.
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
        assert_eq!(pace.after(0, at(20)), Duration::ZERO); // a sign of life
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

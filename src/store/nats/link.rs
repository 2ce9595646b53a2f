//! Requests and replies over one connection.
//!
//! A link has one inbox for all replies, told apart by a number at the end of their subject. Calls
//! never touch the client crate, nor do watches but for its one call that never waits: they send
//! commands to the connection's I/O thread.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, TryRecvError, bounded, select};
use nats::header::HeaderMap;
use parking_lot::Mutex;

use super::connection::{Command, Outgoing, Progress, Tracker, Up};
use super::dial::ServerInfo;
use super::failure::RequestFailure;
use crate::threads::cancel::{self, WaitError};
use crate::threads::signal;

/// A server's time is believed this long after it was told.
const SERVER_TIME_VALID: Duration = Duration::from_secs(30);

/// A connection as the calls see it. Dead once the connection is; then every call fails at once.
pub(super) struct Link {
    pub(super) info: ServerInfo,
    tracker: Arc<Tracker>,
    inbox: String,
    queue: Sender<Command>,
    connection: nats::Connection,
    routes: Mutex<Routes>,
    next_token: AtomicU64,
    server_time: Mutex<Option<(SystemTime, Instant)>>,
    /// Disconnected when the link dies.
    pub(super) dead: Receiver<Infallible>,
}

/// Where messages go. `closed` tells why nothing goes anywhere any more.
struct Routes {
    closed: Option<RequestFailure>,
    waiters: HashMap<u64, Waiter>,
    alive: Option<Sender<Infallible>>,
}

struct Waiter {
    replies: Sender<(usize, Reply)>,
    index: usize,
    subject: Arc<str>,
}

/// What comes back for a request.
pub(super) enum Reply {
    Data(Vec<u8>),
    /// A status without data: the number and its text.
    Status(u16, String),
    /// The server denied the publication, with these words.
    Denied(String),
    /// The link died.
    Closed,
}

impl Link {
    pub(super) fn new(up: Up) -> (Arc<Self>, Receiver<nats::Message>) {
        let (alive, dead) = signal();
        let link = Self {
            info: up.info,
            tracker: up.tracker,
            inbox: up.inbox,
            queue: up.queue,
            connection: up.connection,
            routes: Mutex::new(Routes {
                closed: None,
                waiters: HashMap::new(),
                alive: Some(alive),
            }),
            next_token: AtomicU64::new(0),
            server_time: Mutex::new(None),
            dead,
        };
        (Arc::new(link), up.messages)
    }

    /// Tells this connection from those before and after it.
    pub(super) fn generation(&self) -> u64 {
        self.tracker.generation
    }

    /// Starts a call of up to `messages_max` messages that must be over by the deadline.
    pub(super) fn exchange(&self, messages_max: usize, deadline: Instant) -> Exchange<'_> {
        let (sender, replies) = bounded(messages_max);
        let tokens = u64::try_from(messages_max).unwrap_or(u64::MAX);
        Exchange {
            link: self,
            first_token: self.next_token.fetch_add(tokens, Ordering::Relaxed),
            sent: 0,
            messages_max,
            sender,
            replies,
            progress: Arc::default(),
            deadline,
        }
    }

    /// Sends one message that nobody waits for, if there is room for it right now.
    pub(super) fn post(&self, subject: &str, payload: Vec<u8>) {
        let message = Outgoing {
            subject: Arc::from(subject),
            reply: None,
            headers: None,
            payload,
            progress: Arc::default(),
        };
        self.queue.try_send(Command::Publish(message)).ok();
    }

    /// Sends one small message that asks for replies, past the I/O thread, if the crate can take it
    /// right now; its flusher sends it within 5 ms. What becomes of it is told by the replies only.
    pub(super) fn post_now(&self, subject: &str, reply: &str, payload: &[u8]) -> bool {
        let posted =
            self.connection
                .try_publish_with_reply_or_headers(subject, Some(reply), None, payload);
        matches!(posted, Some(Ok(())))
    }

    /// The server has answered what was posted then.
    pub(super) fn answered(&self, posted: Instant) {
        self.tracker.answered(posted);
    }

    /// Whether the connection has ended.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// A subject of this link that only one consumer delivers to.
    pub(super) fn delivery_subject(&self, consumer: &str) -> String {
        format!("{}.watch.{consumer}", self.inbox)
    }

    /// Subscribes to a subject; the messages arrive where the result tells.
    pub(super) fn subscribe(
        &self,
        subject: &str,
        deadline: Instant,
    ) -> Result<Receiver<nats::Message>, RequestFailure> {
        let (answer, subscribed) = bounded(1);
        let command = Command::Subscribe(subject.to_owned(), answer);
        if let Err(error) = self.queue.send_deadline(command, deadline) {
            return Err(match error {
                SendTimeoutError::Timeout(_) => RequestFailure::TimedOut,
                SendTimeoutError::Disconnected(_) => self.closed(),
            });
        }
        select! {
            recv(subscribed) -> messages => messages.map_err(|_| self.closed()),
            recv(self.dead) -> _ => Err(self.closed()),
            default(deadline.saturating_duration_since(Instant::now())) => Err(RequestFailure::TimedOut),
        }
    }

    /// Ends a subscription, if there is room for the request right now.
    pub(super) fn unsubscribe(&self, subject: &str) {
        self.queue
            .try_send(Command::Unsubscribe(subject.to_owned()))
            .ok();
    }

    /// Ends every call and watch of this link, now and in future.
    pub(super) fn close(&self, why: RequestFailure) {
        let mut routes = self.routes.lock();
        routes.closed.get_or_insert(why);
        for (_, waiter) in routes.waiters.drain() {
            waiter.replies.try_send((waiter.index, Reply::Closed)).ok();
        }
        routes.alive = None;
    }

    /// Answers the requests that a permission error of the server is about.
    pub(super) fn deny(&self, text: &str) {
        let Some(subject) = denied_subject(text) else {
            return;
        };
        let mut routes = self.routes.lock();
        routes.waiters.retain(|_, waiter| {
            let meant = *waiter.subject == *subject;
            if meant {
                let reply = Reply::Denied(text.to_owned());
                waiter.replies.try_send((waiter.index, reply)).ok();
            }
            !meant
        });
    }

    /// Notes the server's own time as told by a reply that has just arrived.
    pub(super) fn note_server_time(&self, time: SystemTime) {
        *self.server_time.lock() = Some((time, Instant::now()));
    }

    /// How long ago `time` was by the server's clock, where that is known.
    pub(super) fn age_of(&self, time: SystemTime) -> Option<Duration> {
        let (server_time, at) = (*self.server_time.lock())?;
        let passed = at.elapsed();
        if passed > SERVER_TIME_VALID {
            return None;
        }
        Some(
            (server_time + passed)
                .duration_since(time)
                .unwrap_or_default(),
        )
    }

    /// Hands replies that have arrived, up to `max`, to whoever waits for them. Tells how many;
    /// nothing: none will arrive any more.
    pub(super) fn dispatch(&self, messages: &Receiver<nats::Message>, max: usize) -> Option<usize> {
        for count in 0..max {
            match messages.try_recv() {
                Ok(message) => self.route(message),
                Err(TryRecvError::Empty) => return Some(count),
                Err(TryRecvError::Disconnected) => return None,
            }
        }
        Some(max)
    }

    /// How many replies are waited for.
    pub(super) fn awaited(&self) -> usize {
        self.routes.lock().waiters.len()
    }

    fn route(&self, message: nats::Message) {
        let token = message
            .subject
            .rsplit('.')
            .next()
            .and_then(|last| last.parse().ok());
        let waiter = token.and_then(|token: u64| self.routes.lock().waiters.remove(&token));
        if let Some(waiter) = waiter {
            waiter
                .replies
                .try_send((waiter.index, reply_of(message)))
                .ok();
        }
    }

    /// Why the link is dead.
    fn closed(&self) -> RequestFailure {
        let closed = self.routes.lock().closed.clone();
        closed
            .unwrap_or_else(|| RequestFailure::Disconnected("the connection was closed".to_owned()))
    }
}

/// One call: messages out, replies in, by a deadline.
pub(super) struct Exchange<'a> {
    link: &'a Link,
    first_token: u64,
    sent: usize,
    messages_max: usize,
    sender: Sender<(usize, Reply)>,
    replies: Receiver<(usize, Reply)>,
    progress: Arc<Progress>,
    deadline: Instant,
}

impl Exchange<'_> {
    /// Queues the next message; its replies come with the number of the message, from 0.
    pub(super) fn send(
        &mut self,
        subject: Arc<str>,
        headers: Option<HeaderMap>,
        payload: Vec<u8>,
        wants_reply: bool,
    ) -> Result<(), RequestFailure> {
        assert!(
            self.sent < self.messages_max,
            "more messages than announced"
        );
        if cancel::is_cancelled() {
            return Err(RequestFailure::Cancelled);
        }
        let index = self.sent;
        self.sent += 1;
        let token = self.first_token + index as u64;
        if wants_reply {
            let mut routes = self.link.routes.lock();
            if let Some(why) = &routes.closed {
                return Err(why.clone());
            }
            let waiter = Waiter {
                replies: self.sender.clone(),
                index,
                subject: Arc::clone(&subject),
            };
            routes.waiters.insert(token, waiter);
            self.link.tracker.set_waiting(routes.waiters.len());
        }
        let message = Outgoing {
            subject,
            reply: wants_reply.then(|| format!("{}.{token}", self.link.inbox)),
            headers,
            payload,
            progress: Arc::clone(&self.progress),
        };
        let command = Command::Publish(message);
        cancel::send_deadline(&self.link.queue, command, self.deadline)
            .map_err(|vain| self.in_vain(vain))
    }

    /// The next reply, in whatever order the server answers.
    pub(super) fn receive(&self) -> Result<(usize, Reply), RequestFailure> {
        match cancel::recv_deadline(&self.replies, self.deadline) {
            Ok((_, Reply::Closed)) => Err(self.link.closed()),
            Ok(reply) => Ok(reply),
            Err(vain) => Err(self.in_vain(vain)),
        }
    }

    fn in_vain(&self, vain: WaitError) -> RequestFailure {
        match vain {
            WaitError::TimedOut => RequestFailure::TimedOut,
            WaitError::Cancelled => RequestFailure::Cancelled,
            WaitError::Disconnected => self.link.closed(),
        }
    }

    /// Nothing more will be sent; returns how many messages may have been.
    pub(super) fn give_up(&self) -> usize {
        usize::try_from(self.progress.give_up()).unwrap_or(usize::MAX)
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.progress.give_up();
        let mut routes = self.link.routes.lock();
        for token in self.first_token..self.first_token + self.sent as u64 {
            routes.waiters.remove(&token);
        }
        self.link.tracker.set_waiting(routes.waiters.len());
    }
}

/// The reply subject of a delivered message, which tells where it stands:
/// `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`, newer
/// `$JS.ACK.<domain>.<account>.<stream>...<pending>.<random>`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AckSubject {
    pub(super) stream_sequence: u64,
    pub(super) consumer_sequence: u64,
    /// When it was stored, by the server's clock: nanoseconds since 1970.
    pub(super) stored: u64,
}

impl AckSubject {
    pub(super) fn parse(subject: &str) -> Option<Self> {
        let rest = subject.strip_prefix("$JS.ACK.")?;
        let skip = match rest.split('.').count() {
            7 => 0,
            9.. => 2,
            _ => return None,
        };
        let tokens = rest.split('.').skip(skip + 3);
        let mut numbers = tokens.map(|token| token.parse::<u64>().ok());
        Some(Self {
            stream_sequence: numbers.next()??,
            consumer_sequence: numbers.next()??,
            stored: numbers.next()??,
        })
    }
}

fn reply_of(message: nats::Message) -> Reply {
    let headers = message.headers.as_ref();
    let status = headers
        .and_then(|h| h.get("Status"))
        .and_then(|s| s.parse().ok());
    match status {
        Some(code) if message.data.is_empty() => {
            let text = headers.and_then(|h| h.get("Description")).cloned();
            Reply::Status(code, text.unwrap_or_default())
        }
        _ => Reply::Data(message.data),
    }
}

/// The subject in `Permissions Violation for Publish to "subject"`.
fn denied_subject(text: &str) -> Option<&str> {
    let (_, quoted) = text.split_once("Permissions Violation for Publish to \"")?;
    quoted.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ack_subject_forms_are_parsed_and_others_rejected() {
        let expected = AckSubject {
            stream_sequence: 22,
            consumer_sequence: 33,
            stored: 1_700_000_000_000_000_000,
        };
        for subject in [
            "$JS.ACK.S.c.1.22.33.1700000000000000000.5",
            "$JS.ACK.domain.hash.S.c.1.22.33.1700000000000000000.5.rnd",
            "$JS.ACK.domain.hash.S.c.1.22.33.1700000000000000000.5",
        ] {
            assert_eq!(
                AckSubject::parse(subject).as_ref(),
                Some(&expected),
                "{subject}"
            );
        }
        for subject in [
            "",
            "$JS.ACK.",
            "$JS.ACK.S.c.1.x.33.1.5",
            "$JS.ACK.S.c.1.2",
            "other",
        ] {
            assert_eq!(AckSubject::parse(subject), None, "{subject}");
        }
    }

    #[test]
    fn denied_subject_is_extracted_from_server_message() {
        let text = "Permissions Violation for Publish to \"$JS.API.STREAM.INFO.KV_x\"";
        assert_eq!(denied_subject(text), Some("$JS.API.STREAM.INFO.KV_x"));
        assert_eq!(denied_subject("Authorization Violation"), None);
    }
}

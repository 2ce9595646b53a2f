//! Requests and replies over one connection.
//!
//! A link has one inbox subscription for everything: replies are told apart by a token at the end
//! of the inbox subject, watch messages by the name of their consumer. So nothing is subscribed
//! or unsubscribed after the connect, and calls never touch the client crate.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded, select};
use nats::header::HeaderMap;
use parking_lot::Mutex;

use super::connection::{Outgoing, Progress, Up};
use super::dial::ServerInfo;
use super::failure::Failure;
use crate::thread::Never;

/// A server's time is believed this long after it was told.
const SERVER_TIME_VALID: Duration = Duration::from_secs(30);

/// A connection as the calls see it. Dead once the connection is; then every call fails at once.
pub(super) struct Link {
    pub(super) generation: u64,
    pub(super) info: ServerInfo,
    inbox: String,
    queue: Sender<Outgoing>,
    routes: Mutex<Routes>,
    next_token: AtomicU64,
    server_time: Mutex<Option<(SystemTime, Instant)>>,
}

/// Where messages go. `closed` tells why nothing goes anywhere any more.
#[derive(Default)]
struct Routes {
    closed: Option<Failure>,
    waiters: HashMap<u64, Waiter>,
    consumers: HashMap<String, Sender<nats::Message>>,
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
        let link = Self {
            generation: up.generation,
            info: up.info,
            inbox: up.inbox,
            queue: up.queue,
            routes: Mutex::default(),
            next_token: AtomicU64::new(0),
            server_time: Mutex::new(None),
        };
        (Arc::new(link), up.messages)
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
        self.queue.try_send(message).ok();
    }

    /// The subject to which a consumer of this name shall deliver.
    pub(super) fn delivery_subject(&self, consumer: &str) -> String {
        format!("{}.{consumer}", self.inbox)
    }

    /// Routes the messages of a consumer to `sink`, which is dropped when the link dies.
    pub(super) fn attach(
        &self,
        consumer: &str,
        sink: Sender<nats::Message>,
    ) -> Result<(), Failure> {
        let mut routes = self.routes.lock();
        if let Some(why) = &routes.closed {
            return Err(why.clone());
        }
        routes.consumers.insert(consumer.to_owned(), sink);
        Ok(())
    }

    pub(super) fn detach(&self, consumer: &str) {
        self.routes.lock().consumers.remove(consumer);
    }

    /// Ends every call and watch of this link, now and in future.
    pub(super) fn close(&self, why: Failure) {
        let mut routes = self.routes.lock();
        routes.closed.get_or_insert(why);
        for (_, waiter) in routes.waiters.drain() {
            waiter.replies.try_send((waiter.index, Reply::Closed)).ok();
        }
        routes.consumers.clear();
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

    /// The body of `dv-nats-recv`: hands each message to whoever waits for it.
    pub(super) fn dispatch(&self, messages: &Receiver<nats::Message>, stop: &Receiver<Never>) {
        loop {
            select! {
                recv(stop) -> _ => return,
                recv(messages) -> message => match message {
                    Ok(message) => self.route(message),
                    Err(_) => return,
                },
            }
        }
    }

    fn route(&self, message: nats::Message) {
        // What a consumer delivers bears the subject it was published to, and the consumer's name
        // in the reply subject; everything else bears ours.
        let Some(last) = self.own_subject(&message.subject) else {
            if let Some(ack) = message.reply.as_deref().and_then(AckSubject::parse) {
                let consumer = ack.consumer.to_owned();
                self.deliver(&consumer, message);
            }
            return;
        };
        match last.parse::<u64>() {
            Ok(token) => {
                if let Some(waiter) = self.routes.lock().waiters.remove(&token) {
                    waiter
                        .replies
                        .try_send((waiter.index, reply_of(message)))
                        .ok();
                }
            }
            Err(_) => {
                let consumer = last.to_owned();
                self.deliver(&consumer, message);
            }
        }
    }

    fn own_subject<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(self.inbox.as_str())?.strip_prefix('.')
    }

    /// A full queue drops the message; the watch notices the gap in the consumer's numbers.
    fn deliver(&self, consumer: &str, message: nats::Message) {
        if let Some(sink) = self.routes.lock().consumers.get(consumer) {
            sink.try_send(message).ok();
        }
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
    ) -> Result<(), Failure> {
        assert!(
            self.sent < self.messages_max,
            "more messages than announced"
        );
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
        }
        let message = Outgoing {
            subject,
            reply: wants_reply.then(|| format!("{}.{token}", self.link.inbox)),
            headers,
            payload,
            progress: Arc::clone(&self.progress),
        };
        match self.link.queue.send_deadline(message, self.deadline) {
            Ok(()) => Ok(()),
            Err(SendTimeoutError::Timeout(_)) => Err(Failure::TimedOut),
            Err(SendTimeoutError::Disconnected(_)) => Err(self.disconnected()),
        }
    }

    /// The next reply, in whatever order the server answers.
    pub(super) fn receive(&self) -> Result<(usize, Reply), Failure> {
        match self.replies.recv_deadline(self.deadline) {
            Ok((_, Reply::Closed)) | Err(RecvTimeoutError::Disconnected) => {
                Err(self.disconnected())
            }
            Ok(reply) => Ok(reply),
            Err(RecvTimeoutError::Timeout) => Err(Failure::TimedOut),
        }
    }

    /// Nothing more will be sent; returns how many messages may have been.
    pub(super) fn give_up(&self) -> usize {
        usize::try_from(self.progress.give_up()).unwrap_or(usize::MAX)
    }

    fn disconnected(&self) -> Failure {
        let closed = self.link.routes.lock().closed.clone();
        closed.unwrap_or_else(|| Failure::Disconnected("the connection was closed".to_owned()))
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.progress.give_up();
        let mut routes = self.link.routes.lock();
        for token in self.first_token..self.first_token + self.sent as u64 {
            routes.waiters.remove(&token);
        }
    }
}

/// The reply subject of a delivered message, which tells where it stands:
/// `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`, newer
/// `$JS.ACK.<domain>.<account>.<stream>...<pending>.<random>`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AckSubject<'a> {
    pub(super) consumer: &'a str,
    pub(super) stream_sequence: u64,
    pub(super) consumer_sequence: u64,
}

impl<'a> AckSubject<'a> {
    pub(super) fn parse(subject: &'a str) -> Option<Self> {
        let rest = subject.strip_prefix("$JS.ACK.")?;
        let skip = match rest.split('.').count() {
            7 => 0,
            9.. => 2,
            _ => return None,
        };
        let mut tokens = rest.split('.').skip(skip + 1);
        let consumer = tokens.next()?;
        let mut numbers = tokens.skip(1).map(|token| token.parse::<u64>().ok());
        Some(Self {
            consumer,
            stream_sequence: numbers.next()??,
            consumer_sequence: numbers.next()??,
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
    fn both_forms_of_ack_subjects_are_understood_and_others_refused() {
        let expected = AckSubject {
            consumer: "c",
            stream_sequence: 22,
            consumer_sequence: 33,
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
    fn the_denied_subject_is_found_in_the_servers_words() {
        let text = "Permissions Violation for Publish to \"$JS.API.STREAM.INFO.KV_x\"";
        assert_eq!(denied_subject(text), Some("$JS.API.STREAM.INFO.KV_x"));
        assert_eq!(denied_subject("Authorization Violation"), None);
    }
}

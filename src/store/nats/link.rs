//! Requests and replies over one connection.
//!
//! A link has one inbox for all replies. A number at the end of the subject identifies the request.
//! The thread of the connection passes each reply to the waiting call.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use parking_lot::Mutex;

use super::client::encode::Publish;
use super::client::headers::{HeaderBlock, Headers};
use super::client::info::ServerInfo;
use super::client::proto::MessageRef;
use super::client::{Connection, Replies, Subscription, Unsent};
use super::failure::RequestFailure;
use crate::threads::cancel::{self, WaitError};
use crate::threads::signal;

/// A reported server time is used for this long.
const SERVER_TIME_VALID: Duration = Duration::from_secs(30);

/// A connection as seen by calls. When the connection ends, every call fails immediately.
pub(super) struct Link {
    pub(super) info: ServerInfo,
    generation: u64,
    inbox: String,
    connection: Arc<dyn Connection>,
    routes: Arc<Routes>,
    next_token: AtomicU64,
    server_time: Mutex<Option<(SystemTime, Instant)>>,
    /// Disconnected when the link dies.
    pub(super) dead: Receiver<Infallible>,
}

/// Routes replies to calls.
struct Routes {
    /// Weak, since the connection holds its routes.
    connection: Weak<dyn Connection>,
    table: Mutex<Table>,
    /// Calls whose replies have arrived and that have not been woken.
    unwoken: Mutex<Vec<Arc<Arrivals>>>,
}

/// The pending calls. `closed` is the reason why the link is closed.
struct Table {
    closed: Option<RequestFailure>,
    waiters: HashMap<u64, Waiter>,
    alive: Option<Sender<Infallible>>,
}

/// The replies to one call. Waking its thread for each of a thousand replies would cost more than all
/// the rest, so it is woken once for all that arrive together, and not before as many are there as it
/// waits for.
struct Arrivals {
    replies: Mutex<VecDeque<(usize, Reply)>>,
    /// How many replies the call waits for.
    wanted: AtomicUsize,
    /// Whether it is among the unwoken calls.
    is_unwoken: AtomicBool,
    waker: Sender<()>,
}

impl Arrivals {
    fn push(&self, index: usize, reply: Reply) {
        self.replies.lock().push_back((index, reply));
    }

    fn are_enough(&self) -> bool {
        self.replies.lock().len() >= self.wanted.load(Ordering::Acquire)
    }

    fn wake(&self) {
        // A full channel wakes as well.
        self.waker.try_send(()).ok();
    }
}

struct Waiter {
    arrivals: Arc<Arrivals>,
    index: usize,
    subject: Box<str>,
    /// When the call began, just before the request was sent.
    began: Instant,
}

/// The reply to a request.
pub(super) enum Reply {
    Data(Vec<u8>),
    /// A status without data: the number and its text.
    Status(u16, String),
    /// The server denied the publication; the text is its error.
    Denied(String),
    /// The link was closed.
    Closed,
}

impl Link {
    /// Creates a link over a connection that receives replies at `inbox.<number>`.
    pub(super) fn new(
        connection: Arc<dyn Connection>,
        info: ServerInfo,
        inbox: String,
        generation: u64,
    ) -> Arc<Self> {
        let (alive, dead) = signal();
        let routes = Arc::new(Routes {
            connection: Arc::downgrade(&connection),
            table: Mutex::new(Table {
                closed: None,
                waiters: HashMap::new(),
                alive: Some(alive),
            }),
            unwoken: Mutex::default(),
        });
        connection.on_reply(Arc::clone(&routes) as Arc<dyn Replies>);
        Arc::new(Self {
            info,
            generation,
            inbox,
            connection,
            routes,
            next_token: AtomicU64::new(0),
            server_time: Mutex::new(None),
            dead,
        })
    }

    /// Returns the number of this connection, unique within the store.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the present time, by which deadlines count.
    pub(super) fn now(&self) -> Instant {
        self.connection.now()
    }

    /// Starts a call of up to `messages_max` messages that ends by the deadline.
    pub(super) fn exchange(&self, messages_max: usize, deadline: Instant) -> Exchange<'_> {
        let (waker, woken) = bounded(1);
        let arrivals = Arc::new(Arrivals {
            replies: Mutex::default(),
            wanted: AtomicUsize::new(1),
            is_unwoken: AtomicBool::new(false),
            waker,
        });
        let tokens = u64::try_from(messages_max).unwrap_or(u64::MAX);
        Exchange {
            link: self,
            first_token: self.next_token.fetch_add(tokens, Ordering::Relaxed),
            sent: 0,
            queued: 0,
            messages_max,
            arrivals,
            woken,
            ready: VecDeque::new(),
            reply_subject: String::new(),
            began: self.now(),
            deadline,
        }
    }

    /// Sends one message without waiting for a reply, if the queue has room.
    pub(super) fn post(&self, subject: &str, payload: &[u8]) {
        self.send_now(subject, None, payload);
    }

    /// Sends one message with the reply subject `reply`, if the queue has room.
    pub(super) fn post_now(&self, subject: &str, reply: &str, payload: &[u8]) -> bool {
        self.send_now(subject, Some(reply), payload)
    }

    fn send_now(&self, subject: &str, reply: Option<&str>, payload: &[u8]) -> bool {
        let headers = &Headers::default();
        let message = Publish {
            subject,
            reply,
            headers,
            payload,
        };
        let is_queued = self.connection.publish(&message).is_ok();
        self.connection.flush();
        is_queued
    }

    /// Records that the server answered a message sent at `posted`.
    pub(super) fn answered(&self, posted: Instant) {
        self.connection.answered(posted);
    }

    /// Whether the connection has ended.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Returns a subject of this link for the deliveries of one consumer.
    pub(super) fn delivery_subject(&self, consumer: &str) -> String {
        format!("{}.watch.{consumer}", self.inbox)
    }

    /// Subscribes to a subject.
    pub(super) fn subscribe(&self, subject: &str) -> Result<Subscription, RequestFailure> {
        self.connection
            .subscribe(subject)
            .map_err(|unsent| match unsent {
                Unsent::Invalid(why) => RequestFailure::Malformed(why.to_owned()),
                Unsent::Closed | Unsent::NoRoom(_) => self.closed(),
            })
    }

    /// Ends a subscription.
    pub(super) fn unsubscribe(&self, subscription: &Subscription) {
        self.connection.unsubscribe(subscription.id);
    }

    /// Ends every current and future call and watch of this link.
    pub(super) fn close(&self, why: RequestFailure) {
        let mut table = self.routes.table.lock();
        table.closed.get_or_insert(why);
        for (_, waiter) in table.waiters.drain() {
            waiter.arrivals.push(waiter.index, Reply::Closed);
            waiter.arrivals.wake();
        }
        table.alive = None;
    }

    /// Records the server time reported by a reply that has just arrived.
    pub(super) fn note_server_time(&self, time: SystemTime) {
        *self.server_time.lock() = Some((time, self.now()));
    }

    /// Returns how long ago `time` was by the clock of the server, if known.
    pub(super) fn age_of(&self, time: SystemTime) -> Option<Duration> {
        let (server_time, at) = (*self.server_time.lock())?;
        let passed = self.now().saturating_duration_since(at);
        if passed > SERVER_TIME_VALID {
            return None;
        }
        Some(
            (server_time + passed)
                .duration_since(time)
                .unwrap_or_default(),
        )
    }

    /// Returns the number of outstanding replies.
    #[cfg(test)]
    pub(super) fn awaited(&self) -> usize {
        self.routes.table.lock().waiters.len()
    }

    /// Returns why the link was closed.
    fn closed(&self) -> RequestFailure {
        let closed = self.routes.table.lock().closed.clone();
        closed
            .unwrap_or_else(|| RequestFailure::Disconnected("the connection was closed".to_owned()))
    }
}

impl Replies for Routes {
    fn reply(&self, message: &MessageRef<'_>) {
        let token = message.subject.rsplit(|b| *b == b'.').next();
        let token = token.and_then(|token| std::str::from_utf8(token).ok()?.parse::<u64>().ok());
        let waiter = token.and_then(|token| self.table.lock().waiters.remove(&token));
        if let Some(waiter) = waiter {
            if let Some(connection) = self.connection.upgrade() {
                connection.answered(waiter.began);
            }
            waiter.arrivals.push(waiter.index, reply_of(message));
            if !waiter.arrivals.is_unwoken.swap(true, Ordering::AcqRel) {
                self.unwoken.lock().push(waiter.arrivals);
            }
        }
    }

    fn delivered(&self) {
        for arrivals in self.unwoken.lock().drain(..) {
            arrivals.is_unwoken.store(false, Ordering::Release);
            if arrivals.are_enough() {
                arrivals.wake();
            }
        }
    }

    fn denied(&self, subject: &str, text: &str) {
        self.table.lock().waiters.retain(|_, waiter| {
            let is_meant = *waiter.subject == *subject;
            if is_meant {
                let reply = Reply::Denied(text.to_owned());
                waiter.arrivals.push(waiter.index, reply);
                waiter.arrivals.wake();
            }
            !is_meant
        });
    }
}

/// One call: sends messages and receives their replies until a deadline.
pub(super) struct Exchange<'a> {
    link: &'a Link,
    first_token: u64,
    /// Numbered messages, and the queued ones among them.
    sent: usize,
    queued: usize,
    messages_max: usize,
    arrivals: Arc<Arrivals>,
    woken: Receiver<()>,
    /// Replies that were taken from the arrivals.
    ready: VecDeque<(usize, Reply)>,
    reply_subject: String,
    began: Instant,
    deadline: Instant,
}

impl Exchange<'_> {
    /// Queues the next message. Its reply carries the number of the message, from 0. The message is
    /// sent by [`Exchange::receive`] or [`Exchange::flush`].
    pub(super) fn send(
        &mut self,
        subject: &str,
        headers: &Headers,
        payload: &[u8],
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
            let mut table = self.link.routes.table.lock();
            if let Some(why) = &table.closed {
                return Err(why.clone());
            }
            let waiter = Waiter {
                arrivals: Arc::clone(&self.arrivals),
                index,
                subject: subject.into(),
                began: self.began,
            };
            table.waiters.insert(token, waiter);
        }
        self.reply_subject.clear();
        // Writing to a String cannot fail.
        let _ = write!(self.reply_subject, "{}.{token}", self.link.inbox);
        let message = Publish {
            subject,
            reply: wants_reply.then_some(&*self.reply_subject),
            headers,
            payload,
        };
        loop {
            match self.link.connection.publish(&message) {
                Ok(()) => break,
                Err(Unsent::Closed) => return Err(self.link.closed()),
                Err(Unsent::Invalid(why)) => return Err(RequestFailure::Invalid(why)),
                Err(Unsent::NoRoom(room)) => match cancel::recv_deadline(&room, self.deadline) {
                    Ok(never) => match never {},
                    Err(WaitError::Disconnected) => {}
                    Err(error) => return Err(self.wait_failure(error)),
                },
            }
        }
        self.queued += 1;
        Ok(())
    }

    /// Sends the queued messages.
    pub(super) fn flush(&self) {
        self.link.connection.flush();
    }

    /// Sends the queued messages and returns the next reply, in the order of the server.
    pub(super) fn receive(&mut self) -> Result<(usize, Reply), RequestFailure> {
        self.receive_of(1)
    }

    /// As [`Exchange::receive`], for a call that can do nothing before so many replies are there.
    pub(super) fn receive_of(&mut self, count: usize) -> Result<(usize, Reply), RequestFailure> {
        self.arrivals.wanted.store(count, Ordering::Release);
        loop {
            if let Some(reply) = self.ready.pop_front() {
                return self.received(reply);
            }
            if !self.arrivals.are_enough() {
                self.flush();
                let waited = self.link.connection.wait(&self.woken, self.deadline);
                // Whatever ends the wait: the replies that are there count.
                if let Err(error) = waited
                    && self.arrivals.replies.lock().is_empty()
                {
                    return Err(self.wait_failure(error));
                }
            }
            std::mem::swap(&mut self.ready, &mut self.arrivals.replies.lock());
        }
    }

    fn received(&self, reply: (usize, Reply)) -> Result<(usize, Reply), RequestFailure> {
        match reply {
            (_, Reply::Closed) => Err(self.link.closed()),
            reply => Ok(reply),
        }
    }

    fn wait_failure(&self, error: WaitError) -> RequestFailure {
        match error {
            WaitError::TimedOut => RequestFailure::TimedOut,
            WaitError::Cancelled => RequestFailure::Cancelled,
            WaitError::Disconnected => self.link.closed(),
        }
    }

    /// Returns the number of queued messages, which may have been sent.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        if self.queued > 0 {
            self.flush();
        }
        let mut table = self.link.routes.table.lock();
        for token in self.first_token..self.first_token + self.sent as u64 {
            table.waiters.remove(&token);
        }
    }
}

/// The position of a delivered message, from its reply subject:
/// `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`, newer
/// `$JS.ACK.<domain>.<account>.<stream>...<pending>.<random>`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AckSubject {
    pub(super) stream_sequence: u64,
    pub(super) consumer_sequence: u64,
    /// When it was stored by the clock of the server, in nanoseconds since 1970.
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

fn reply_of(message: &MessageRef<'_>) -> Reply {
    match HeaderBlock(message.headers).status() {
        Some((code, text)) if message.payload.is_empty() => Reply::Status(code, text.to_owned()),
        _ => Reply::Data(message.payload.to_vec()),
    }
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
}

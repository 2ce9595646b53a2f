//! What callers and the thread of one connection share: the output, and where messages go.
//!
//! Callers encode their messages into one buffer. Without TLS they write it to the socket
//! themselves, so that a request wakes no other thread; what the socket does not take at once is
//! left to the connection's thread.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};
use parking_lot::Mutex;

use super::encode::{self, Publish};
use super::proto::MessageRef;
use super::socket::{Wake, Waker, wake_pair};
use super::{Connection, Message, Replies, Unsent};
use crate::threads::signal;

/// Output waiting for the socket; with more, senders wait. A message larger than that is taken
/// when nothing else waits.
const OUTPUT_MAX: usize = 2 * 1024 * 1024;
/// So much unsent output is written without waiting for a flush.
const FLUSH_AT: usize = 64 * 1024;
/// The output buffer keeps at most so much memory when it is empty.
const OUTPUT_KEPT: usize = 2 * FLUSH_AT;
/// Messages, and their bytes, waiting for the reader of one subscription. More are dropped and
/// counted; the reader notices the gap in their numbers.
const INBOUND_MAX: usize = 65_536;
const INBOUND_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The subscription that all replies arrive on.
pub const REPLIES_ID: u64 = 1;

/// One connection from outside its thread.
pub struct Shared {
    waker: Waker,
    output: Mutex<Output>,
    is_closed: AtomicBool,
    routes: Mutex<HashMap<u64, Route>>,
    next_id: AtomicU64,
    replies: OnceLock<Arc<dyn Replies>>,
    origin: Instant,
    /// Milliseconds from `origin` to when something was sent that the server has answered.
    answered: AtomicU64,
}

struct Output {
    bytes: Vec<u8>,
    written: usize,
    /// Bytes that the connection's thread has taken and not written yet.
    taken: usize,
    socket: Option<Arc<TcpStream>>,
    /// Whether callers may write to the socket: not with TLS.
    is_direct: bool,
    /// The socket took no more; the connection's thread waits until it does.
    is_blocked: bool,
    is_woken: bool,
    phase: Phase,
    max_payload: usize,
    /// Disconnected when there is room again, or never will be.
    room: Option<(Sender<Infallible>, Receiver<Infallible>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Open,
    /// What was sent is still written and confirmed until then.
    Finishing(Instant),
    Closed,
}

/// Where the messages of one subscription go.
struct Route {
    subject: String,
    sender: Sender<Message>,
    state: Arc<RouteState>,
}

#[derive(Default)]
struct RouteState {
    bytes: AtomicUsize,
    dropped: AtomicU64,
    refused: OnceLock<String>,
}

/// The messages of one subscription.
pub struct Subscription {
    pub id: u64,
    receiver: Receiver<Message>,
    state: Arc<RouteState>,
}

impl Subscription {
    /// The next message that has arrived.
    ///
    /// # Errors
    /// When there is none, or none will come: the connection has ended or the server has refused
    /// the subscription.
    pub fn try_recv(&self) -> Result<Message, TryRecvError> {
        let message = self.receiver.try_recv()?;
        self.state
            .bytes
            .fetch_sub(message.size(), Ordering::Relaxed);
        Ok(message)
    }

    /// For a `select`; to receive, call [`Subscription::try_recv`].
    pub fn arrivals(&self) -> &Receiver<Message> {
        &self.receiver
    }

    /// Messages dropped because too many were waiting for the reader.
    pub fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }

    /// Why the server has refused the subscription.
    pub fn refusal(&self) -> Option<&str> {
        self.state.refused.get().map(String::as_str)
    }
}

impl Shared {
    /// The shared part of a connection that is to be made, and what ends its waits.
    ///
    /// # Errors
    /// When the process has no file descriptors left.
    pub fn new() -> io::Result<(Arc<Self>, Wake)> {
        let (waker, wake) = wake_pair()?;
        let shared = Self {
            waker,
            output: Mutex::new(Output {
                bytes: Vec::new(),
                written: 0,
                taken: 0,
                socket: None,
                is_direct: false,
                is_blocked: false,
                is_woken: false,
                phase: Phase::Connecting,
                max_payload: 0,
                room: None,
            }),
            is_closed: AtomicBool::new(false),
            routes: Mutex::default(),
            next_id: AtomicU64::new(REPLIES_ID + 1),
            replies: OnceLock::new(),
            origin: Instant::now(),
            answered: AtomicU64::new(0),
        };
        Ok((Arc::new(shared), wake))
    }

    /// Ends the connection at once, from any thread. Nothing more is sent or received.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        {
            let mut output = self.output.lock();
            output.phase = Phase::Closed;
            output.bytes = Vec::new();
            (output.written, output.taken) = (0, 0);
            output.room = None;
            if let Some(socket) = output.socket.take() {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
        self.waker.wake();
    }

    /// Ends the connection once the server has confirmed what was sent, at the latest then.
    pub fn finish(&self, deadline: Instant) {
        {
            let mut output = self.output.lock();
            if output.phase == Phase::Open {
                output.phase = Phase::Finishing(deadline);
                output.room = None;
            }
        }
        self.waker.wake();
    }

    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// When the connection must have ended, if it is finishing.
    pub fn finishes_by(&self) -> Option<Instant> {
        match self.output.lock().phase {
            Phase::Finishing(deadline) => Some(deadline),
            _ => None,
        }
    }

    /// Lets callers send. Without TLS they write to the socket themselves.
    pub fn open(&self, socket: &Arc<TcpStream>, is_secure: bool, max_payload: usize) {
        let mut output = self.output.lock();
        if output.phase == Phase::Connecting {
            output.phase = Phase::Open;
            output.socket = Some(Arc::clone(socket));
            output.is_direct = !is_secure;
            output.max_payload = max_payload;
        }
    }

    /// Lets callers send without a socket: a test takes the output.
    #[cfg(test)]
    pub fn open_detached(&self, max_payload: usize) {
        let mut output = self.output.lock();
        (output.phase, output.max_payload) = (Phase::Open, max_payload);
    }

    pub fn set_max_payload(&self, max_payload: usize) {
        self.output.lock().max_payload = max_payload;
    }

    /// The last moment at which something was sent that the server is known to have received.
    pub fn last_answered(&self) -> Instant {
        self.origin + Duration::from_millis(self.answered.load(Ordering::Acquire))
    }

    /// Appends a command of the connection's own.
    pub fn push(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut output = self.output.lock();
        if matches!(output.phase, Phase::Open | Phase::Finishing(_)) {
            encode(&mut output.bytes);
        }
    }

    /// For the connection's thread: writes to the socket. Returns whether output is left.
    ///
    /// # Errors
    /// A broken socket.
    pub fn write_directly(&self) -> io::Result<bool> {
        let mut output = self.output.lock();
        output.is_woken = false;
        output.is_blocked = false;
        output.write()?;
        Ok(output.is_blocked)
    }

    /// For the connection's thread: exchanges its empty buffer for the output, after having
    /// written `written` bytes of what it took before.
    pub fn take(&self, buffer: &mut Vec<u8>, written: usize) {
        let mut output = self.output.lock();
        output.is_woken = false;
        output.taken = output.taken.saturating_sub(written);
        if buffer.is_empty() && !output.bytes.is_empty() {
            std::mem::swap(buffer, &mut output.bytes);
            output.taken = buffer.len();
        }
        output.make_room();
    }

    /// Hands a message to its waiting call or subscription. Called on the connection's thread.
    pub fn deliver(&self, message: &MessageRef<'_>) {
        if message.subscription == REPLIES_ID {
            if let Some(replies) = self.replies.get() {
                replies.reply(message);
            }
            return;
        }
        let routes = self.routes.lock();
        let Some(route) = routes.get(&message.subscription) else {
            return;
        };
        let waiting = route.state.bytes.load(Ordering::Relaxed);
        if route.sender.len() >= INBOUND_MAX || waiting >= INBOUND_BYTES_MAX {
            route.state.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let message = Message::new(message);
        route
            .state
            .bytes
            .fetch_add(message.size(), Ordering::Relaxed);
        // A reader that is gone unsubscribes by itself.
        let _ = route.sender.send(message);
    }

    /// Has the calls woken whose replies were delivered.
    pub fn delivered(&self) {
        if let Some(replies) = self.replies.get() {
            replies.delivered();
        }
    }

    /// Hands a permission error to the calls and the subscription that it is about.
    pub fn refuse(&self, text: &str) {
        if let Some(subject) = quoted_after(text, "Permissions Violation for Publish to ")
            && let Some(replies) = self.replies.get()
        {
            replies.denied(subject, text);
        }
        let Some(subject) = quoted_after(text, "Permissions Violation for Subscription to ") else {
            return;
        };
        self.routes.lock().retain(|_, route| {
            let is_meant = route.subject == subject;
            if is_meant {
                let _ = route.state.refused.set(text.to_owned());
            }
            !is_meant
        });
    }

    /// The connection has ended: every reader and sender learns it.
    pub fn ended(&self) {
        self.close();
        self.routes.lock().clear();
    }

    /// Has the connection's thread look at the output.
    fn wake(&self, output: &mut Output) {
        if !std::mem::replace(&mut output.is_woken, true) {
            self.waker.wake();
        }
    }

    fn flush_locked(&self, output: &mut Output) {
        if output.written == output.bytes.len() {
            return;
        }
        if output.is_direct && !output.is_blocked {
            // The connection's thread meets the same error and reports it.
            let _ = output.write();
            if !output.is_blocked && output.bytes.is_empty() {
                return;
            }
        }
        self.wake(output);
    }
}

impl Output {
    fn queued(&self) -> usize {
        self.bytes.len() - self.written + self.taken
    }

    /// Writes until everything is written or the socket takes no more.
    fn write(&mut self) -> io::Result<()> {
        let Some(socket) = &self.socket else {
            return Ok(());
        };
        while self.written < self.bytes.len() {
            match (&**socket).write(&self.bytes[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
            if self.bytes.capacity() > OUTPUT_KEPT {
                self.bytes = Vec::new();
            }
        } else if self.written > FLUSH_AT {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        self.make_room();
        Ok(())
    }

    fn make_room(&mut self) {
        if self.room.is_some() && self.queued() <= OUTPUT_MAX / 2 {
            self.room = None;
        }
    }
}

impl Connection for Shared {
    fn publish(&self, message: &Publish<'_>) -> Result<(), Unsent> {
        let size = encode::size(message);
        let mut output = self.output.lock();
        if output.phase != Phase::Open {
            return Err(Unsent::Closed);
        }
        if size > output.max_payload {
            return Err(Unsent::Invalid(
                "the message is larger than the server accepts",
            ));
        }
        if output.queued() > 0 && output.queued() + size > OUTPUT_MAX {
            self.flush_locked(&mut output);
            if output.queued() > 0 && output.queued() + size > OUTPUT_MAX {
                let room = output.room.get_or_insert_with(signal);
                return Err(Unsent::NoRoom(room.1.clone()));
            }
        }
        encode::publish(&mut output.bytes, message).map_err(Unsent::Invalid)?;
        if output.bytes.len() - output.written >= FLUSH_AT {
            self.flush_locked(&mut output);
        }
        Ok(())
    }

    fn flush(&self) {
        self.flush_locked(&mut self.output.lock());
    }

    fn subscribe(&self, subject: &str) -> Result<Subscription, Unsent> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = unbounded();
        let state = Arc::new(RouteState::default());
        let route = Route {
            subject: subject.to_owned(),
            sender,
            state: Arc::clone(&state),
        };
        self.routes.lock().insert(id, route);
        let mut output = self.output.lock();
        let sent = if output.phase == Phase::Open {
            encode::subscribe(&mut output.bytes, subject, id).map_err(Unsent::Invalid)
        } else {
            Err(Unsent::Closed)
        };
        drop(output);
        if let Err(unsent) = sent {
            self.routes.lock().remove(&id);
            return Err(unsent);
        }
        Ok(Subscription {
            id,
            receiver,
            state,
        })
    }

    fn unsubscribe(&self, id: u64) {
        self.routes.lock().remove(&id);
        self.push(|bytes| encode::unsubscribe(bytes, id));
    }

    fn on_reply(&self, replies: Arc<dyn Replies>) {
        let _ = self.replies.set(replies);
    }

    fn answered(&self, sent: Instant) {
        let passed = sent.saturating_duration_since(self.origin).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        self.answered.fetch_max(passed, Ordering::AcqRel);
    }
}

/// The text in double quotes that follows `prefix`.
fn quoted_after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(prefix)?;
    after.strip_prefix('"')?.split('"').next()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::super::headers::Headers;
    use super::*;

    /// A connection over a socket pair, as after the login.
    fn pair(max_payload: usize) -> (Arc<Shared>, Wake, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let (peer, _) = listener.accept().unwrap();
        let (shared, wake) = Shared::new().unwrap();
        shared.open(&Arc::new(socket), false, max_payload);
        (shared, wake, peer)
    }

    fn publish(shared: &Shared, payload: &[u8]) -> Result<(), Unsent> {
        let headers = &Headers::default();
        shared.publish(&Publish {
            subject: "s",
            reply: None,
            headers,
            payload,
        })
    }

    fn message(subscription: u64, payload: &[u8]) -> MessageRef<'_> {
        MessageRef {
            subscription,
            subject: b"s",
            reply: b"",
            headers: b"",
            payload,
        }
    }

    #[test]
    fn many_messages_are_one_write_and_wake_nobody() {
        let (shared, wake, mut peer) = pair(1_000);
        for _ in 0..3 {
            publish(&shared, b"hi").unwrap();
        }
        shared.flush();
        let mut bytes = [0; 100];
        let count = peer.read(&mut bytes).unwrap();
        assert_eq!(
            &bytes[..count],
            b"PUB s 2\r\nhi\r\nPUB s 2\r\nhi\r\nPUB s 2\r\nhi\r\n"
        );
        let mut watched = [super::super::socket::Watched::new(wake.fd(), true, false)];
        super::super::socket::poll(&mut watched, Instant::now()).unwrap();
        assert!(!watched[0].is_readable);
    }

    #[test]
    fn peer_that_does_not_read_stops_senders_and_costs_bounded_memory() {
        let (shared, _wake, mut peer) = pair(1 << 20);
        let payload = vec![b'x'; 100_000];
        let mut sent = 0;
        let room = loop {
            match publish(&shared, &payload) {
                Ok(()) => sent += 1,
                Err(Unsent::NoRoom(room)) => break room,
                Err(other) => panic!("{other:?}"),
            }
            assert!(sent < 10_000);
        };
        assert!(shared.output.lock().bytes.capacity() <= 2 * OUTPUT_MAX);
        assert_eq!(room.try_recv(), Err(TryRecvError::Empty));
        let mut sink = vec![0; 1 << 20];
        while room.try_recv() == Err(TryRecvError::Empty) {
            let count = peer.read(&mut sink).unwrap();
            assert!(count > 0);
            shared.write_directly().unwrap();
        }
        publish(&shared, &payload).unwrap();
        shared.close();
        assert!(matches!(publish(&shared, b""), Err(Unsent::Closed)));
    }

    #[test]
    fn message_above_the_servers_limit_is_refused_here() {
        let (shared, _wake, _peer) = pair(10);
        assert!(publish(&shared, b"12345678").is_ok());
        assert!(matches!(
            publish(&shared, b"123456789"),
            Err(Unsent::Invalid(_))
        ));
    }

    #[test]
    fn slow_reader_loses_the_newest_messages_and_they_are_counted() {
        let (shared, _wake, _peer) = pair(10);
        let subscription = shared.subscribe("s").unwrap();
        for _ in 0..INBOUND_MAX + 5 {
            shared.deliver(&message(subscription.id, b"x"));
        }
        assert_eq!(subscription.dropped(), 5);
        let large = vec![0; INBOUND_BYTES_MAX];
        while subscription.try_recv().is_ok() {}
        shared.deliver(&message(subscription.id, &large));
        shared.deliver(&message(subscription.id, b"x"));
        assert_eq!(subscription.dropped(), 6);
        assert_eq!(
            subscription.try_recv().unwrap().payload().len(),
            large.len()
        );
        shared.deliver(&message(subscription.id, b"x"));
        assert_eq!(subscription.dropped(), 6);
    }

    #[test]
    fn refused_subscription_ends_with_the_servers_reason() {
        let (shared, _wake, _peer) = pair(10);
        let (refused, other) = (
            shared.subscribe("a.b").unwrap(),
            shared.subscribe("a").unwrap(),
        );
        shared.refuse("Permissions Violation for Subscription to \"a.b\"");
        assert_eq!(refused.try_recv().unwrap_err(), TryRecvError::Disconnected);
        assert!(refused.refusal().unwrap().contains("a.b"));
        assert_eq!(other.try_recv().unwrap_err(), TryRecvError::Empty);
        shared.ended();
        assert_eq!(other.try_recv().unwrap_err(), TryRecvError::Disconnected);
        assert_eq!(other.refusal(), None);
    }
}

//! State shared by the callers and the thread of one connection: the output buffer and the routes of
//! messages.
//!
//! Callers encode their messages into one buffer. Without TLS they write it to the socket
//! themselves, so that a request wakes no other thread. The connection's thread writes what the
//! socket does not accept immediately.

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

/// Maximum size of the output buffer. Senders wait while it is full. A larger message is accepted
/// while the buffer is empty.
const OUTPUT_MAX: usize = 2 * 1024 * 1024;
/// This much output is written without waiting for a flush.
const FLUSH_AT: usize = 64 * 1024;
/// Maximum capacity that the empty output buffer keeps.
const OUTPUT_KEPT: usize = 2 * FLUSH_AT;
/// Maximum number of messages, and of their bytes, queued for one subscription. Further ones are
/// dropped and counted. The reader detects the gap in the sequence numbers.
const INBOUND_MAX: usize = 65_536;
const INBOUND_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The id of the subscription that receives all replies.
pub const REPLIES_ID: u64 = 1;

/// One connection, as seen by other threads.
pub struct Shared {
    waker: Waker,
    output: Mutex<Output>,
    is_closed: AtomicBool,
    routes: Mutex<HashMap<u64, Route>>,
    next_id: AtomicU64,
    replies: OnceLock<Arc<dyn Replies>>,
    origin: Instant,
    /// Milliseconds from `origin` to the sending time of the last message that was answered.
    answered: AtomicU64,
}

struct Output {
    bytes: Vec<u8>,
    written: usize,
    /// Number of bytes that the connection's thread has taken but not written.
    taken: usize,
    socket: Option<Arc<TcpStream>>,
    /// Whether callers write to the socket themselves. Not with TLS.
    is_direct: bool,
    /// Whether the socket is full, and the connection's thread waits for room.
    is_blocked: bool,
    is_woken: bool,
    phase: Phase,
    max_payload: usize,
    /// Disconnected when there is room, or when the connection ends.
    room: Option<(Sender<Infallible>, Receiver<Infallible>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Open,
    /// Output is written and confirmed until this time.
    Finishing(Instant),
    Closed,
}

/// The destination of the messages of one subscription.
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
    /// Returns the next message that has arrived.
    ///
    /// # Errors
    /// `Empty`, or `Disconnected` if the connection has ended or the server has rejected the
    /// subscription.
    pub fn try_recv(&self) -> Result<Message, TryRecvError> {
        let message = self.receiver.try_recv()?;
        self.state
            .bytes
            .fetch_sub(message.size(), Ordering::Relaxed);
        Ok(message)
    }

    /// Returns the channel for a `select`. Receive with [`Subscription::try_recv`].
    pub fn arrivals(&self) -> &Receiver<Message> {
        &self.receiver
    }

    /// Returns the number of messages dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }

    /// Returns why the server has rejected the subscription.
    pub fn refusal(&self) -> Option<&str> {
        self.state.refused.get().map(String::as_str)
    }
}

impl Shared {
    /// Creates the shared state of a future connection and its wake-up channel.
    ///
    /// # Errors
    /// The process has no file descriptors left.
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

    /// Ends the connection immediately, from any thread. Nothing more is sent or received.
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

    /// Ends the connection when the server has confirmed the sent messages, or at the deadline.
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

    /// Returns when the connection must have ended, if it is finishing.
    pub fn finishes_by(&self) -> Option<Instant> {
        match self.output.lock().phase {
            Phase::Finishing(deadline) => Some(deadline),
            _ => None,
        }
    }

    /// Allows callers to send. Without TLS they write to the socket themselves.
    pub fn open(&self, socket: &Arc<TcpStream>, is_secure: bool, max_payload: usize) {
        let mut output = self.output.lock();
        if output.phase == Phase::Connecting {
            output.phase = Phase::Open;
            output.socket = Some(Arc::clone(socket));
            output.is_direct = !is_secure;
            output.max_payload = max_payload;
        }
    }

    /// Allows callers to send without a socket. The test takes the output.
    #[cfg(test)]
    pub fn open_detached(&self, max_payload: usize) {
        let mut output = self.output.lock();
        (output.phase, output.max_payload) = (Phase::Open, max_payload);
    }

    pub fn set_max_payload(&self, max_payload: usize) {
        self.output.lock().max_payload = max_payload;
    }

    /// Returns the sending time of the last message that the server has answered.
    pub fn last_answered(&self) -> Instant {
        self.origin + Duration::from_millis(self.answered.load(Ordering::Acquire))
    }

    /// Appends a command of the connection itself.
    pub fn push(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut output = self.output.lock();
        if matches!(output.phase, Phase::Open | Phase::Finishing(_)) {
            encode(&mut output.bytes);
        }
    }

    /// Writes to the socket. Called on the connection's thread. Returns whether output remains.
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

    /// Exchanges the empty buffer of the connection's thread for the output. `written` is how many
    /// bytes of the previous output it has written.
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

    /// Passes a message to its call or subscription. Called on the connection's thread.
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
        // A dropped reader unsubscribes itself.
        let _ = route.sender.send(message);
    }

    /// Wakes the calls whose replies were delivered.
    pub fn delivered(&self) {
        if let Some(replies) = self.replies.get() {
            replies.delivered();
        }
    }

    /// Passes a permission error to the calls and the subscription that it concerns.
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

    /// Ends every reader and sender after the connection has ended.
    pub fn ended(&self) {
        self.close();
        self.routes.lock().clear();
    }

    /// Wakes the connection's thread to write the output.
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
            // The connection's thread gets the same error and reports it.
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

    /// Writes until everything is written or the socket is full.
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

/// Returns the text in double quotes that follows `prefix`.
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
    fn many_messages_are_one_write_and_wake_no_thread() {
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

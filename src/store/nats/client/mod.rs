//! A NATS client: synchronous, small, and only what the store needs.
//!
//! No maintained synchronous client exists. The crate `nats` is deprecated, waits without limit
//! in many places, and takes memory for whatever a peer announces; it serves as the independent
//! peer in tests and benchmarks.
//!
//! * `proto`, `encode`, `headers`, `info`, `address` and `server_list` are pure: bytes and values in,
//!   bytes and values out.
//! * `connection` is one thread for each connection. It waits in `poll(2)` for its socket and a
//!   wake-up, and everything it waits for has a deadline. Closing ends it at once, in whatever
//!   step of `dial` it is.
//! * `shared` is what callers see of a connection: [`Connection`], all that the store needs.

pub mod address;
pub mod auth;
pub mod connection;
mod dial;
pub mod encode;
pub mod headers;
pub mod info;
pub mod proto;
pub mod resolve;
pub mod server_list;
pub mod shared;
mod socket;
#[cfg(test)]
pub mod tests;
pub mod tls;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;

pub use self::dial::{explain, read_greeting};
use self::encode::Publish;
use self::headers::HeaderBlock;
use self::proto::MessageRef;
pub use self::shared::Subscription;
use crate::threads::cancel::{self, WaitError};

/// A connection as the store needs it. Only [`Connection::wait`] waits.
pub trait Connection: Send + Sync {
    /// Queues a message. It is sent by the next flush, or before.
    ///
    /// # Errors
    /// Why it was not queued, and never will be sent.
    fn publish(&self, message: &Publish<'_>) -> Result<(), Unsent>;

    /// Sends what was queued.
    fn flush(&self);

    /// Queues a subscription.
    ///
    /// # Errors
    /// [`Unsent::Closed`] and [`Unsent::Invalid`].
    fn subscribe(&self, subject: &str) -> Result<Subscription, Unsent>;

    /// Queues the end of a subscription.
    fn unsubscribe(&self, id: u64);

    /// Sets where replies go. Only the first call counts.
    fn on_reply(&self, replies: Arc<dyn Replies>);

    /// Records that the server has answered something sent at `sent`. It postpones the next PING.
    fn answered(&self, sent: Instant);

    /// The present time, by which the deadlines of calls count. A simulated connection has its own.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Waits until `woken` has a message.
    ///
    /// # Errors
    /// The deadline has passed, or the call was cancelled.
    fn wait(&self, woken: &Receiver<()>, deadline: Instant) -> Result<(), WaitError> {
        cancel::recv_deadline(woken, deadline)
    }
}

/// Receives replies, on the connection's thread: must not wait.
pub trait Replies: Send + Sync {
    /// A message on the reply subject has arrived.
    fn reply(&self, message: &MessageRef<'_>);

    /// All messages that have arrived together were handed over.
    fn delivered(&self);

    /// The server has denied publications to `subject`; `text` is its error.
    fn denied(&self, subject: &str, text: &str);
}

/// Why a message was not queued.
#[derive(Debug)]
pub enum Unsent {
    /// Too much is queued. Disconnected when it is worth another try.
    NoRoom(Receiver<Infallible>),
    /// The connection has ended.
    Closed,
    /// The message cannot be sent on any connection.
    Invalid(&'static str),
}

/// A message that has arrived, in one piece of memory.
#[derive(Debug)]
pub struct Message {
    bytes: Box<[u8]>,
    subject_end: usize,
    reply_end: usize,
    headers_end: usize,
}

impl Message {
    pub fn new(message: &MessageRef<'_>) -> Self {
        let parts = [
            message.subject,
            message.reply,
            message.headers,
            message.payload,
        ];
        let subject_end = message.subject.len();
        let reply_end = subject_end + message.reply.len();
        Self {
            bytes: parts.concat().into_boxed_slice(),
            subject_end,
            reply_end,
            headers_end: reply_end + message.headers.len(),
        }
    }

    pub fn subject(&self) -> &[u8] {
        &self.bytes[..self.subject_end]
    }

    /// The reply subject, if there is one and it is UTF-8.
    pub fn reply(&self) -> Option<&str> {
        let reply = &self.bytes[self.subject_end..self.reply_end];
        let reply = std::str::from_utf8(reply).ok()?;
        (!reply.is_empty()).then_some(reply)
    }

    pub fn headers(&self) -> HeaderBlock<'_> {
        HeaderBlock(&self.bytes[self.reply_end..self.headers_end])
    }

    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.headers_end..]
    }

    /// The memory that it takes.
    fn size(&self) -> usize {
        self.bytes.len() + size_of::<Self>()
    }
}

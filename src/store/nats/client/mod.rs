//! A synchronous NATS client with the features that the store needs.
//!
//! No maintained synchronous client exists. The crate `nats` is deprecated, blocks without limit in
//! many places, and allocates memory for any size that a peer announces. It serves as the independent
//! peer in tests and benchmarks.
//!
//! * `proto`, `encode`, `headers`, `info`, `address` and `server_list` are pure: bytes and values in,
//!   bytes and values out.
//! * `connection` is the thread of a connection. It waits in `poll(2)` for its socket and a wake-up,
//!   always with a deadline. Closing ends it immediately, in any step of `dial`.
//! * `shared` implements [`Connection`], the interface between the store and a connection.

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

/// The interface between the store and a connection. Only [`Connection::wait`] blocks.
pub trait Connection: Send + Sync {
    /// Queues a message. It is sent by the next flush, or before.
    ///
    /// # Errors
    /// The message was not queued and will not be sent.
    fn publish(&self, message: &Publish<'_>) -> Result<(), Unsent>;

    /// Sends the queued messages.
    fn flush(&self);

    /// Queues a subscription.
    ///
    /// # Errors
    /// [`Unsent::Closed`] and [`Unsent::Invalid`].
    fn subscribe(&self, subject: &str) -> Result<Subscription, Unsent>;

    /// Queues the end of a subscription.
    fn unsubscribe(&self, id: u64);

    /// Sets the receiver of replies. Only the first call has an effect.
    fn on_reply(&self, replies: Arc<dyn Replies>);

    /// Records that the server has answered a message sent at `sent`. Postpones the next PING.
    fn answered(&self, sent: Instant);

    /// Returns the time by which deadlines of calls count. A simulated connection has its own clock.
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

/// Receives replies on the connection's thread. Must not block.
pub trait Replies: Send + Sync {
    /// Handles a message on the reply subject.
    fn reply(&self, message: &MessageRef<'_>);

    /// Called after all messages of one read were passed on.
    fn delivered(&self);

    /// Handles a denied publication to `subject`. `text` is the error of the server.
    fn denied(&self, subject: &str, text: &str);
}

/// Why a message was not queued.
#[derive(Debug)]
pub enum Unsent {
    /// The output buffer is full. The channel is disconnected when there is room.
    NoRoom(Receiver<Infallible>),
    /// The connection has ended.
    Closed,
    /// The message cannot be sent on any connection.
    Invalid(&'static str),
}

/// A received message, in one allocation.
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

    /// Returns the reply subject, if there is one and it is UTF-8.
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

    /// Returns its memory size in bytes.
    fn size(&self) -> usize {
        self.bytes.len() + size_of::<Self>()
    }
}

//! A connection to a server that is a function: from what the client sends to what it receives.
//! No socket, no thread; the bytes in both directions are the protocol's.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::super::encode::Publish;
use super::super::proto::{Decoder, Event, MessageRef};
use super::super::shared::Shared;
use super::super::{Connection, Replies, Subscription, Unsent};

/// Answers what was flushed with the bytes that arrive.
pub type Server = Box<dyn FnMut(&[u8]) -> Vec<u8> + Send>;

pub struct Scripted {
    shared: Arc<Shared>,
    server: Mutex<Server>,
    decoder: Mutex<Decoder>,
    /// Cuts what arrives into pieces.
    random: Mutex<fastrand::Rng>,
}

impl Scripted {
    pub fn new(seed: u64, server: impl FnMut(&[u8]) -> Vec<u8> + Send + 'static) -> Arc<Self> {
        let (shared, _wake) = Shared::new().unwrap();
        shared.open_detached(1 << 20);
        let mut decoder = Decoder::new();
        decoder.logged_in();
        Arc::new(Self {
            shared,
            server: Mutex::new(Box::new(server)),
            decoder: Mutex::new(decoder),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
        })
    }

    /// What the server sends arrives, in pieces.
    pub fn arrive(&self, mut bytes: &[u8]) {
        let mut decoder = self.decoder.lock();
        while !bytes.is_empty() {
            let size = self.random.lock().usize(1..=bytes.len().min(300));
            decoder.space()[..size].copy_from_slice(&bytes[..size]);
            decoder.filled(size);
            bytes = &bytes[size..];
            while let Some(event) = decoder.next().unwrap() {
                match event {
                    Event::Message(message) => self.shared.deliver(&message),
                    Event::Error(text) => self.shared.refuse(&text),
                    _ => {}
                }
            }
        }
        self.shared.delivered();
    }

    pub fn cut(&self) {
        self.shared.ended();
    }
}

impl Connection for Scripted {
    fn publish(&self, message: &Publish<'_>) -> Result<(), Unsent> {
        self.shared.publish(message)
    }

    fn flush(&self) {
        let mut sent = Vec::new();
        self.shared.take(&mut sent, 0);
        if !sent.is_empty() {
            let arrives = (self.server.lock())(&sent);
            self.arrive(&arrives);
        }
    }

    fn subscribe(&self, subject: &str) -> Result<Subscription, Unsent> {
        self.shared.subscribe(subject)
    }

    fn unsubscribe(&self, id: u64) {
        self.shared.unsubscribe(id);
    }

    fn on_reply(&self, replies: Arc<dyn Replies>) {
        self.shared.on_reply(replies);
    }

    fn answered(&self, sent: Instant) {
        self.shared.answered(sent);
    }
}

/// A message as the server receives it.
#[derive(Clone, Debug)]
pub struct Received {
    pub subject: String,
    pub reply: String,
    pub headers: Vec<u8>,
}

/// The publications in what a client has sent. They differ from messages by the missing
/// subscription only, so the decoder reads them.
pub fn publications(sent: &[u8]) -> Vec<Received> {
    let mut received = Vec::new();
    let mut decoder = Decoder::new();
    decoder.logged_in();
    let mut rest = sent;
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let line = std::str::from_utf8(&rest[..end]).unwrap().trim_end();
        rest = &rest[end + 1..];
        let words: Vec<&str> = line.split(' ').collect();
        let sizes = match words[0] {
            "PUB" => 1,
            "HPUB" => 2,
            _ => continue,
        };
        let size: usize = words[words.len() - 1].parse().unwrap();
        let operation = if sizes == 1 { "MSG" } else { "HMSG" };
        let line = format!("{operation} {} 9 {}\r\n", words[1], words[2..].join(" "));
        for bytes in [line.as_bytes(), &rest[..size + 2]] {
            let mut bytes = bytes;
            while !bytes.is_empty() {
                let space = decoder.space();
                let count = space.len().min(bytes.len());
                space[..count].copy_from_slice(&bytes[..count]);
                decoder.filled(count);
                bytes = &bytes[count..];
            }
        }
        rest = &rest[size + 2..];
        let event = decoder.next().unwrap();
        let Some(Event::Message(message)) = event else {
            panic!("{event:?}");
        };
        received.push(Received::new(&message));
    }
    received
}

impl Received {
    fn new(message: &MessageRef<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            subject: text(message.subject),
            reply: text(message.reply),
            headers: message.headers.to_vec(),
        }
    }

    /// The answer to it, as the server sends it.
    pub fn answer(&self, payload: &str) -> Vec<u8> {
        format!("MSG {} 1 {}\r\n{payload}\r\n", self.reply, payload.len()).into_bytes()
    }
}

//! The same messages without a library: raw bytes on a socket, each batch or burst in one write.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::support::raw_nats::{RawNats, publication};

/// A message, and the revision of its key.
pub struct Message {
    pub subject: String,
    pub payload: Vec<u8>,
    pub revision: u64,
}

/// A client that tracks the revisions of its keys, as a publisher must.
pub struct Raw {
    nats: RawNats,
    fence: (String, u64),
    /// The commit record.
    leading: Message,
    messages: Vec<Message>,
    batches: u64,
}

impl Raw {
    /// Stores the fence record, on which the others depend.
    pub fn new(port: u16, fence: String, leading: Message, messages: Vec<Message>) -> Self {
        let mut nats = RawNats::connect(port);
        let stored = nats.store(fence.as_bytes(), b"", b"{}");
        let revision = stored["seq"].as_u64().expect("the fence is stored");
        Self {
            nats,
            fence: (fence, revision),
            leading,
            messages,
            batches: 0,
        }
    }

    /// Atomic batches of at most 1 000 messages, one after the other.
    pub fn publish_atomically(&mut self) {
        for chunk in self.messages.chunks_mut(999) {
            self.batches += 1;
            let id = format!("raw{}", self.batches);
            let mut bytes = Vec::new();
            let mut headers = batch_headers(&id, 1);
            let (fence, revision) = &self.fence;
            let _ = write!(
                headers,
                "Nats-Expected-Last-Subject-Sequence: {revision}\r\n\
                 Nats-Expected-Last-Subject-Sequence-Subject: {fence}\r\n\r\n"
            );
            let leading = &self.leading;
            let subject = leading.subject.as_bytes();
            self.nats
                .request(&mut bytes, subject, headers.as_bytes(), &leading.payload);
            let last = chunk.len() - 1;
            let mut committed = String::new();
            for (index, message) in chunk.iter().enumerate() {
                let mut headers = batch_headers(&id, index + 2);
                expect(&mut headers, message.revision);
                let subject = message.subject.as_bytes();
                if index == last {
                    headers.push_str("Nats-Batch-Commit: 1\r\n\r\n");
                    let headers = headers.as_bytes();
                    committed = self
                        .nats
                        .request(&mut bytes, subject, headers, &message.payload);
                } else {
                    headers.push_str("\r\n");
                    publication(
                        &mut bytes,
                        subject,
                        "",
                        headers.as_bytes(),
                        &message.payload,
                    );
                }
            }
            self.nats.send(&bytes);
            let end = loop {
                let (subject, payload) = self.nats.message();
                if subject == committed {
                    break stored(&payload);
                }
                assert!(payload.is_empty(), "{}", String::from_utf8_lossy(&payload));
            };
            let first = end - last as u64;
            for (message, revision) in chunk.iter_mut().zip(first..) {
                message.revision = revision;
            }
        }
    }

    /// Conditional puts, all in flight at once, followed by the commit record.
    pub fn publish_singly(&mut self) {
        let mut bytes = Vec::new();
        let mut waiting = HashMap::new();
        for (index, message) in self.messages.iter().enumerate() {
            let reply = conditional(&mut self.nats, &mut bytes, message);
            waiting.insert(reply, index);
        }
        self.nats.send(&bytes);
        while !waiting.is_empty() {
            let (subject, payload) = self.nats.message();
            let index = waiting.remove(&subject).expect("an answer to a message");
            self.messages[index].revision = stored(&payload);
        }
        bytes.clear();
        conditional(&mut self.nats, &mut bytes, &self.leading);
        self.nats.send(&bytes);
        self.leading.revision = stored(&self.nats.message().1);
    }

    /// One put after the other, each acknowledged: the predecessor's publication without its
    /// listings and other work.
    pub fn publish_one_by_one(&mut self) {
        for message in &mut self.messages {
            let acked = self
                .nats
                .store(message.subject.as_bytes(), b"", &message.payload);
            message.revision = acked["seq"].as_u64().expect("it is stored");
        }
    }
}

fn conditional(nats: &mut RawNats, bytes: &mut Vec<u8>, message: &Message) -> String {
    let mut headers = String::from("NATS/1.0\r\n");
    expect(&mut headers, message.revision);
    headers.push_str("\r\n");
    let subject = message.subject.as_bytes();
    nats.request(bytes, subject, headers.as_bytes(), &message.payload)
}

fn batch_headers(id: &str, sequence: usize) -> String {
    format!("NATS/1.0\r\nNats-Batch-Id: {id}\r\nNats-Batch-Sequence: {sequence}\r\n")
}

fn expect(headers: &mut String, revision: u64) {
    let _ = write!(
        headers,
        "Nats-Expected-Last-Subject-Sequence: {revision}\r\n"
    );
}

fn stored(ack: &[u8]) -> u64 {
    let parsed: serde_json::Value = serde_json::from_slice(ack).unwrap_or_default();
    parsed["seq"]
        .as_u64()
        .unwrap_or_else(|| panic!("not stored: {}", String::from_utf8_lossy(ack)))
}

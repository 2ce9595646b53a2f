//! A JetStream server with one bucket, as a function from messages to messages.

use std::collections::{BTreeMap, HashMap};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::super::client::headers::HeaderBlock;
use crate::types::Revision;

pub const STREAM: &str = "KV_b";
pub const PREFIX: &str = "$KV.b.";
const CONFLICT: u64 = 10_071;
const BUSY: u64 = 10_164;

/// A message as a client has published it.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub subject: String,
    pub reply: String,
    pub headers: Vec<u8>,
    pub payload: Vec<u8>,
}

/// A message to the subscribers of `subject`.
#[derive(Debug)]
pub struct Sent {
    pub subject: String,
    pub reply: String,
    pub headers: String,
    pub payload: Vec<u8>,
}

/// A message that was stored, overwritten ones included.
#[derive(Clone, Debug)]
pub struct Stored {
    pub revision: Revision,
    pub key: String,
    pub is_delete: bool,
    pub payload: Vec<u8>,
    headers: Vec<u8>,
}

struct Consumer {
    deliver_to: String,
    filter: String,
    delivered: u64,
}

#[derive(Default)]
pub struct Server {
    /// Everything that was ever stored, in order: revision n is entry n - 1.
    pub log: Vec<Stored>,
    /// The revision that each key holds.
    pub last: BTreeMap<String, Revision>,
    batches: HashMap<String, Vec<Received>>,
    consumers: BTreeMap<String, Consumer>,
}

/// What goes wrong with a publication.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    None,
    Busy,
    NoLeader,
}

impl Server {
    pub fn handle(&mut self, message: &Received, mishap: Mishap) -> Vec<Sent> {
        if let Some(key) = message.subject.strip_prefix(PREFIX) {
            return self.publish(key, message, mishap);
        }
        let Some(api) = message.subject.strip_prefix("$JS.API.") else {
            return Vec::new(); // an answer to a flow control request
        };
        let body: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
        let mut words = api.splitn(4, '.');
        let mut word = || words.next().unwrap_or_default();
        match (word(), word()) {
            ("STREAM", "INFO") => vec![answer(message, &self.info(&body))],
            ("STREAM", "MSG") => vec![answer(message, &self.last_message(&body))],
            ("CONSUMER", "CREATE") => {
                let mut sent = vec![answer(message, &json!({}))];
                sent.extend(self.create_consumer(&body["config"]));
                sent
            }
            ("CONSUMER", "DELETE") => {
                word();
                self.consumers.remove(word());
                vec![answer(message, &json!({ "success": true }))]
            }
            _ => panic!("not simulated: {}", message.subject),
        }
    }

    /// A sign of life from each consumer.
    pub fn heartbeats(&self) -> Vec<Sent> {
        let beat = |consumer: &Consumer| Sent {
            subject: consumer.deliver_to.clone(),
            reply: String::new(),
            headers: format!(
                "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: {}\r\n\r\n",
                consumer.delivered
            ),
            payload: Vec::new(),
        };
        self.consumers.values().map(beat).collect()
    }

    fn publish(&mut self, key: &str, message: &Received, mishap: Mishap) -> Vec<Sent> {
        let headers = HeaderBlock(&message.headers);
        let refused = |code: u64| {
            let error = json!({ "code": 400, "err_code": code, "description": "as simulated" });
            vec![answer(
                message,
                &json!({ "error": error, "stream": STREAM }),
            )]
        };
        if mishap == Mishap::NoLeader && headers.get("Nats-Batch-Id").is_none() {
            return no_responders(message);
        }
        let Some(batch) = headers.get("Nats-Batch-Id") else {
            if mishap == Mishap::Busy {
                return refused(BUSY);
            }
            if !self.meets(key, message) {
                return refused(CONFLICT);
            }
            let (revision, mut sent) = self.store(key, message);
            let ack = json!({ "stream": STREAM, "seq": revision });
            sent.insert(0, answer(message, &ack));
            return sent;
        };
        let number = headers.get("Nats-Batch-Sequence").unwrap_or_default();
        let messages = self.batches.entry(batch.to_owned()).or_default();
        assert_eq!(number, (messages.len() + 1).to_string());
        messages.push(message.clone());
        if headers.get("Nats-Batch-Commit").is_none() {
            let opened = Sent {
                subject: message.reply.clone(),
                reply: String::new(),
                headers: String::new(),
                payload: Vec::new(),
            };
            return match message.reply.is_empty() {
                true => Vec::new(),
                false => vec![opened],
            };
        }
        let messages = self.batches.remove(batch).unwrap_or_default();
        if mishap == Mishap::Busy {
            return refused(BUSY);
        }
        let key_of = |message: &Received| message.subject[PREFIX.len()..].to_owned();
        if !messages.iter().all(|m| self.meets(&key_of(m), m)) {
            return refused(CONFLICT);
        }
        let mut sent = Vec::new();
        let mut end = 0;
        for message in &messages {
            let (revision, more) = self.store(&key_of(message), message);
            end = revision;
            sent.extend(more);
        }
        let ack = json!({ "stream": STREAM, "seq": end, "batch": batch, "count": messages.len() });
        sent.insert(0, answer(message, &ack));
        sent
    }

    fn meets(&self, key: &str, message: &Received) -> bool {
        let headers = HeaderBlock(&message.headers);
        let number = |name| {
            headers
                .get(name)
                .map(|text| text.parse::<Revision>().unwrap())
        };
        let last = |key: &str| self.last.get(key).copied().unwrap_or(0);
        let other = headers.get("Nats-Expected-Last-Subject-Sequence-Subject");
        let other = other.map(|subject| &subject[PREFIX.len()..]);
        let by_key = number("Nats-Expected-Last-Subject-Sequence");
        let by_last = number("Nats-Expected-Last-Sequence");
        by_key.is_none_or(|revision| revision == last(other.unwrap_or(key)))
            && by_last.is_none_or(|revision| revision == self.log.len() as Revision)
    }

    fn store(&mut self, key: &str, message: &Received) -> (Revision, Vec<Sent>) {
        let revision = self.log.len() as Revision + 1;
        let headers = HeaderBlock(&message.headers);
        self.log.push(Stored {
            revision,
            key: key.to_owned(),
            is_delete: headers.get("KV-Operation").is_some(),
            payload: message.payload.clone(),
            headers: message.headers.clone(),
        });
        self.last.insert(key.to_owned(), revision);
        let stored = &self.log[self.log.len() - 1];
        let consumers = self.consumers.iter_mut();
        let sent = consumers.filter_map(|(name, consumer)| deliver(name, consumer, stored));
        (revision, sent.collect())
    }

    fn create_consumer(&mut self, config: &Value) -> Vec<Sent> {
        let text = |name: &str| config[name].as_str().unwrap_or_default().to_owned();
        let mut consumer = Consumer {
            deliver_to: text("deliver_subject"),
            filter: text("filter_subject"),
            delivered: 0,
        };
        let start = config["opt_start_seq"].as_u64().unwrap_or(1);
        let name = text("name");
        let mut held: Vec<Revision> = self.last.values().copied().collect();
        held.sort_unstable();
        let mut sent = Vec::new();
        for revision in held.into_iter().filter(|revision| *revision >= start) {
            let index = usize::try_from(revision).unwrap() - 1;
            sent.extend(deliver(&name, &mut consumer, &self.log[index]));
        }
        self.consumers.insert(name, consumer);
        sent
    }

    fn info(&self, body: &Value) -> Value {
        let filter = body["subjects_filter"].as_str();
        let subjects = self.last.keys().map(|key| format!("{PREFIX}{key}"));
        let subjects: serde_json::Map<String, Value> = subjects
            .filter(|subject| filter.is_some_and(|filter| matches(filter, subject)))
            .map(|subject| (subject, json!(1)))
            .collect();
        json!({
            "config": { "name": STREAM },
            "created": "2026-01-01T00:00:00Z",
            "total": subjects.len(),
            "state": { "last_seq": self.log.len(), "messages": self.last.len(), "subjects": subjects },
        })
    }

    fn last_message(&self, body: &Value) -> Value {
        let subject = body["last_by_subj"].as_str().unwrap_or_default();
        let revision = subject
            .strip_prefix(PREFIX)
            .and_then(|key| self.last.get(key));
        let Some(revision) = revision else {
            return json!({ "error": { "code": 404, "err_code": 10_037, "description": "none" } });
        };
        let stored = &self.log[usize::try_from(*revision).unwrap() - 1];
        json!({ "message": {
            "subject": subject,
            "seq": revision,
            "hdrs": BASE64.encode(&stored.headers),
            "data": BASE64.encode(&stored.payload),
        } })
    }
}

fn matches(filter: &str, subject: &str) -> bool {
    match filter.strip_suffix('>') {
        Some(parent) => subject.starts_with(parent),
        None => filter == subject,
    }
}

fn deliver(name: &str, consumer: &mut Consumer, stored: &Stored) -> Option<Sent> {
    let subject = format!("{PREFIX}{}", stored.key);
    if !matches(&consumer.filter, &subject) {
        return None;
    }
    consumer.delivered += 1;
    let (revision, number) = (stored.revision, consumer.delivered);
    Some(Sent {
        subject: format!("{}\n{subject}", consumer.deliver_to),
        reply: format!("$JS.ACK.{STREAM}.{name}.1.{revision}.{number}.1700000000000000000.0"),
        headers: String::from_utf8(stored.headers.clone()).unwrap(),
        payload: stored.payload.clone(),
    })
}

fn answer(message: &Received, body: &Value) -> Sent {
    Sent {
        subject: message.reply.clone(),
        reply: String::new(),
        headers: String::new(),
        payload: body.to_string().into_bytes(),
    }
}

fn no_responders(message: &Received) -> Vec<Sent> {
    let status = Sent {
        subject: message.reply.clone(),
        reply: String::new(),
        headers: "NATS/1.0 503\r\n\r\n".to_owned(),
        payload: Vec::new(),
    };
    match message.reply.is_empty() {
        true => Vec::new(),
        false => vec![status],
    }
}

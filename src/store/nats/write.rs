//! Conditional writes, pipelined, and atomic batches.

use std::sync::Arc;
use std::time::Instant;

use nats::header::HeaderMap;

use super::connection::unique_id;
use super::failure::{ApiError, RequestFailure, number};
use super::jetstream::{PublishAck, Stream, read_reply};
use super::link::{Exchange, Reply};
use crate::store::{Batch, Expect, Outcome, Refusal, Write};
use crate::types::{Revision, key_fault, truncated};

/// The longest key.
pub(super) const KEY_BYTES_MAX: usize = 512;

const LAST_SUBJECT_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
const LAST_SUBJECT_SEQUENCE_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
const LAST_SEQUENCE: &str = "Nats-Expected-Last-Sequence";
const EXPECTED_STREAM: &str = "Nats-Expected-Stream";
const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";
/// A revision that no key has: the condition under which nothing is stored.
const NEVER: Revision = i64::MAX as u64;

/// Where the keys of a bucket live.
pub(super) struct Target<'a> {
    pub(super) stream: &'a Stream,
    /// What comes before a key in its subject.
    pub(super) prefix: &'a str,
    pub(super) value_max: usize,
}

impl Target<'_> {
    /// All writes in flight at once; how each ended, in order.
    pub(super) fn write(&self, writes: &[Write], deadline: Instant) -> Vec<Outcome> {
        let mut outcomes: Vec<Option<Outcome>> = writes
            .iter()
            .map(|write| self.fault(write).map(Outcome::Refused))
            .collect();
        let mut exchange = self.stream.link.exchange(writes.len(), deadline);
        // The exchange numbers what it sends; this tells which write each number is.
        let mut sent = Vec::with_capacity(writes.len());
        let mut broken = None;
        for (index, write) in writes.iter().enumerate() {
            if outcomes[index].is_some() {
                continue;
            }
            let mut headers = HeaderMap::new();
            condition_headers(&mut headers, write);
            sent.push(index);
            if let Err(failure) = self.send(&mut exchange, write, headers, true) {
                broken = Some(failure);
                break;
            }
        }
        let mut waiting = sent.len();
        while waiting > 0 && broken.is_none() {
            match exchange.receive() {
                Ok((number, reply)) => {
                    let index = sent[number];
                    outcomes[index] = Some(self.outcome_of(reply, &writes[index]));
                    waiting -= 1;
                }
                Err(failure) => broken = Some(failure),
            }
        }
        let failure = broken.unwrap_or(RequestFailure::TimedOut);
        let may_be_stored = exchange.give_up();
        for (number, index) in sent.into_iter().enumerate() {
            outcomes[index]
                .get_or_insert_with(|| failure.clone().into_outcome(number < may_be_stored));
        }
        let unsent = |outcome: Option<Outcome>| {
            outcome.unwrap_or_else(|| failure.clone().into_outcome(false))
        };
        outcomes.into_iter().map(unsent).collect()
    }

    /// Everything or nothing. The first message carries the check of the fence; the server checks
    /// all conditions at the commit, which is the last message.
    ///
    /// Unless it `surely_batches`, a server is found out by its first answer, before anything else
    /// is sent: one that does not batch would store each message alone.
    pub(super) fn write_batch(
        &self,
        batch: &Batch,
        surely_batches: bool,
        deadline: Instant,
    ) -> Outcome {
        if let Some(refusal) = self.batch_fault(batch) {
            return Outcome::Refused(refusal);
        }
        let last = batch.writes.len() - 1;
        let mut exchange = self.stream.link.exchange(batch.writes.len(), deadline);
        let id = batch_id();
        for (index, write) in batch.writes.iter().enumerate() {
            let mut headers = batch_headers(&id, index, last);
            condition_headers(&mut headers, write);
            if index == 0 {
                headers.insert(EXPECTED_STREAM, self.stream.name.as_str());
                if let Some((key, revision)) = &batch.fence {
                    headers.insert(LAST_SUBJECT_SEQUENCE, revision.to_string());
                    headers.insert(
                        LAST_SUBJECT_SEQUENCE_SUBJECT,
                        format!("{}{key}", self.prefix),
                    );
                }
            }
            let ends = index == 0 || index == last;
            if let Err(failure) = self.send(&mut exchange, write, headers, ends) {
                // Without the commit the server forgets the batch.
                return failure.into_outcome(exchange.give_up() > last);
            }
            if index == 0
                && last > 0
                && !surely_batches
                && let Err(outcome) = first_answer(&exchange)
            {
                return outcome;
            }
        }
        // A batch that was not opened cannot be committed.
        if last > 0
            && surely_batches
            && let Err(outcome) = first_answer(&exchange)
        {
            return outcome;
        }
        match exchange.receive() {
            Ok((_, reply)) => self.commit_outcome(reply, &id),
            Err(failure) => failure.into_outcome(exchange.give_up() > last),
        }
    }

    fn send(
        &self,
        exchange: &mut Exchange<'_>,
        write: &Write,
        mut headers: HeaderMap,
        wants_reply: bool,
    ) -> Result<(), RequestFailure> {
        if write.value.is_none() {
            headers.insert("KV-Operation", "DEL");
        }
        let route = &self.stream.write_prefix;
        let subject = Arc::from(format!("{route}{}{}", self.prefix, write.key));
        let payload = write.value.clone().unwrap_or_default();
        let headers = (!headers.is_empty()).then_some(headers);
        exchange.send(subject, headers, payload, wants_reply)
    }

    fn commit_outcome(&self, reply: Reply, id: &str) -> Outcome {
        match read_reply::<PublishAck>(reply) {
            Ok(ack) if ack.batch.as_deref() == Some(id) => self.done(&ack),
            Ok(_) => Outcome::Unknown("the server stored the commit as a message alone".to_owned()),
            Err(failure) => failure.into_outcome(true),
        }
    }

    /// What is stored elsewhere may be stored here as well.
    fn done(&self, ack: &PublishAck) -> Outcome {
        match self.stream.check_ack(ack) {
            Ok(()) => Outcome::Done(ack.seq),
            Err(why) => Outcome::Unknown(why),
        }
    }

    fn outcome_of(&self, reply: Reply, write: &Write) -> Outcome {
        match read_reply::<PublishAck>(reply) {
            Ok(ack) => self.done(&ack),
            Err(failure) => match failure.into_outcome(true) {
                Outcome::Refused(Refusal::TooLarge { .. }) => {
                    let size = write.value.as_ref().map_or(0, Vec::len);
                    let limit = self.value_max;
                    Outcome::Refused(Refusal::TooLarge { size, limit })
                }
                outcome => outcome,
            },
        }
    }

    fn fault(&self, write: &Write) -> Option<Refusal> {
        if let Some(fault) = key_fault(&write.key, KEY_BYTES_MAX) {
            let key = truncated(&write.key, 60);
            return Some(Refusal::Invalid(format!("key {key:?} {fault}")));
        }
        let size = write.value.as_ref().map_or(0, Vec::len);
        let limit = self.value_max;
        (size > limit).then_some(Refusal::TooLarge { size, limit })
    }

    fn batch_fault(&self, batch: &Batch) -> Option<Refusal> {
        let invalid = |text: &str| Some(Refusal::Invalid(text.to_owned()));
        let Some(first) = batch.writes.first() else {
            return invalid("a batch needs at least one write");
        };
        let mut keys: Vec<&str> = batch
            .writes
            .iter()
            .map(|write| write.key.as_str())
            .collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return invalid("a batch may write each key once only");
        }
        if let Some((fence, _)) = &batch.fence {
            if let Some(fault) = key_fault(fence, KEY_BYTES_MAX) {
                return invalid(&format!("fence key {fault}"));
            }
            if keys.binary_search(&fence.as_str()).is_ok() {
                return invalid("a batch may not write the key of its fence");
            }
            if first.expect != Expect::Any {
                return invalid("the first write of a fenced batch may have no condition");
            }
        }
        let by_last = |write: &Write| matches!(write.expect, Expect::LastSequence(_));
        if batch.writes.iter().any(by_last) {
            return invalid("a batch may not depend on the bucket's last sequence");
        }
        batch.writes.iter().find_map(|write| self.fault(write))
    }
}

/// Whether the leader keeps the messages of a batch until its commit, and checks the fence then:
/// tried with a fence that cannot hold, so that nothing is stored.
pub(super) fn batches_work(
    stream: &Stream,
    subject: &str,
    deadline: Instant,
) -> Result<bool, RequestFailure> {
    let id = batch_id();
    let route = &stream.write_prefix;
    let mut exchange = stream.link.exchange(2, deadline);
    let mut first = batch_headers(&id, 0, 1);
    first.insert(LAST_SUBJECT_SEQUENCE, NEVER.to_string());
    first.insert(LAST_SUBJECT_SEQUENCE_SUBJECT, format!("{subject}.fence"));
    exchange.send(
        Arc::from(format!("{route}{subject}.1")),
        Some(first),
        Vec::new(),
        true,
    )?;
    match exchange.receive()?.1 {
        Reply::Data(data) if data.is_empty() => {}
        reply => return refused_probe(reply),
    }
    let commit = batch_headers(&id, 1, 1);
    exchange.send(
        Arc::from(format!("{route}{subject}.2")),
        Some(commit),
        Vec::new(),
        true,
    )?;
    match read_reply::<PublishAck>(exchange.receive()?.1) {
        Err(failure) if failure.is_api(number::WRONG_LAST_SEQUENCE) => Ok(true),
        Err(RequestFailure::Api(error)) => refused_probe_error(error),
        Err(failure) => Err(failure),
        Ok(_) => Ok(false),
    }
}

/// Sends a write that no bucket accepts, to see where writes of `subject` arrive: nothing is stored.
///
/// An error names what has to change. A denied write is none: a worker that never leads may lack the
/// permission.
pub(super) fn probe_route(
    stream: &Stream,
    subject: &str,
    deadline: Instant,
) -> Result<Result<(), String>, RequestFailure> {
    let mut headers = HeaderMap::new();
    headers.insert(LAST_SUBJECT_SEQUENCE, NEVER.to_string());
    let mut exchange = stream.link.exchange(1, deadline);
    let target = Arc::from(format!("{}{subject}", stream.write_prefix));
    exchange.send(target, Some(headers), Vec::new(), true)?;
    let reply = exchange.receive()?.1;
    let answered_by = match &reply {
        Reply::Data(data) => serde_json::from_slice::<PublishAck>(data).ok(),
        _ => None,
    };
    match read_reply::<PublishAck>(reply) {
        Ok(ack) => Ok(stream.check_ack(&ack)),
        Err(RequestFailure::NoResponders) => Ok(Err(format!(
            "no stream answers writes to {}{subject}",
            stream.write_prefix
        ))),
        Err(RequestFailure::Api(_)) => Ok(match answered_by {
            Some(ack) if ack.stream != stream.name => Err(format!(
                "writes to {}{subject} arrive in stream {:?}",
                stream.write_prefix, ack.stream
            )),
            _ => Ok(()),
        }),
        Err(RequestFailure::Denied(_)) => Ok(Ok(())),
        Err(failure) => Err(failure),
    }
}

/// What a first message says that did not open a batch.
fn refused_probe(reply: Reply) -> Result<bool, RequestFailure> {
    match read_reply::<PublishAck>(reply) {
        Err(RequestFailure::Api(error)) => refused_probe_error(error),
        Err(failure) => Err(failure),
        Ok(_) => Ok(false),
    }
}

/// Servers that are busy, or without a leader, may batch; all others do not.
fn refused_probe_error(error: ApiError) -> Result<bool, RequestFailure> {
    if number::BUSY.contains(&error.err_code) || number::UNAVAILABLE.contains(&error.err_code) {
        return Err(RequestFailure::Api(error));
    }
    Ok(false)
}

fn condition_headers(headers: &mut HeaderMap, write: &Write) {
    match write.expect {
        Expect::Any => {}
        Expect::Revision(revision) => {
            headers.insert(LAST_SUBJECT_SEQUENCE, revision.to_string());
        }
        Expect::LastSequence(sequence) => {
            headers.insert(LAST_SEQUENCE, sequence.to_string());
        }
    }
}

fn batch_headers(id: &str, index: usize, last: usize) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(BATCH_ID, id);
    headers.insert(BATCH_SEQUENCE, (index + 1).to_string());
    if index == last {
        headers.insert(BATCH_COMMIT, "1");
    }
    headers
}

fn batch_id() -> String {
    format!("dv{}", unique_id())
}

/// The answer to the first message of a batch: empty when the batch is open.
fn first_answer(exchange: &Exchange<'_>) -> Result<(), Outcome> {
    match exchange.receive() {
        Ok((_, Reply::Data(data))) if data.is_empty() => Ok(()),
        Ok((_, reply)) => Err(match read_reply::<PublishAck>(reply) {
            Ok(_) => Outcome::Unknown(
                "the server does not batch and has stored the first message alone".to_owned(),
            ),
            Err(failure) => failure.into_outcome(true),
        }),
        // There is no batch without a commit, but a leader that does not batch would have stored
        // this message: without an answer nobody knows which it is.
        Err(failure) => Err(failure.into_outcome(exchange.give_up() > 0)),
    }
}

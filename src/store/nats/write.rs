//! Conditional writes, pipelined, and atomic batches.

use std::time::Instant;

use super::client::headers::Headers;
use super::failure::{ApiError, RequestFailure, number};
use super::jetstream::{PublishAck, Stream, read_reply};
use super::link::{Exchange, Reply};
use super::session::unique_id;
use crate::store::{Batch, Expect, Outcome, Refusal, Write};
use crate::types::{Revision, key_fault, truncated};

/// Maximum length of a key.
pub(super) const KEY_BYTES_MAX: usize = 512;

const LAST_SUBJECT_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
const LAST_SUBJECT_SEQUENCE_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
const LAST_SEQUENCE: &str = "Nats-Expected-Last-Sequence";
const EXPECTED_STREAM: &str = "Nats-Expected-Stream";
const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";
/// A revision that no key has. A write on this condition is never stored.
const NEVER: Revision = i64::MAX as u64;

/// Buffers reused for every message.
#[derive(Default)]
struct Buffers {
    headers: Headers,
    subject: String,
}

/// The stream and subject prefix of a bucket.
pub(super) struct Target<'a> {
    pub(super) stream: &'a Stream,
    /// Subject prefix of the keys.
    pub(super) prefix: &'a str,
    pub(super) value_max: usize,
}

impl Target<'_> {
    /// Sends all writes at once. Returns the outcome of each, in order.
    pub(super) fn write(&self, writes: &[Write], deadline: Instant) -> Vec<Outcome> {
        let mut outcomes: Vec<Option<Outcome>> = writes
            .iter()
            .map(|write| self.fault(write).map(Outcome::Refused))
            .collect();
        let mut exchange = self.stream.link.exchange(writes.len(), deadline);
        // Maps the message numbers of the exchange to writes.
        let mut sent = Vec::with_capacity(writes.len());
        let mut buffers = Buffers::default();
        let mut broken = None;
        for (index, write) in writes.iter().enumerate() {
            if outcomes[index].is_some() {
                continue;
            }
            buffers.headers.clear();
            condition_headers(&mut buffers.headers, write);
            sent.push(index);
            if let Err(failure) = self.send(&mut exchange, write, &mut buffers, true) {
                broken = Some(failure);
                break;
            }
        }
        let mut waiting = sent.len();
        while waiting > 0 && broken.is_none() {
            match exchange.receive_of(waiting) {
                Ok((number, reply)) => {
                    let index = sent[number];
                    outcomes[index] = Some(self.outcome_of(reply, &writes[index]));
                    waiting -= 1;
                }
                Err(failure) => broken = Some(failure),
            }
        }
        let failure = broken.unwrap_or(RequestFailure::TimedOut);
        let may_be_stored = exchange.queued();
        for (number, index) in sent.into_iter().enumerate() {
            outcomes[index]
                .get_or_insert_with(|| failure.clone().into_outcome(number < may_be_stored));
        }
        let unsent = |outcome: Option<Outcome>| {
            outcome.unwrap_or_else(|| failure.clone().into_outcome(false))
        };
        outcomes.into_iter().map(unsent).collect()
    }

    /// Writes all or none. The first message carries the condition on the fence. The server checks all
    /// conditions at the commit, which is the last message.
    ///
    /// Unless the server `surely_batches`, nothing else is sent before the answer to the first
    /// message: a server without batches would store each message separately.
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
        let mut buffers = Buffers::default();
        for (index, write) in batch.writes.iter().enumerate() {
            let headers = &mut buffers.headers;
            headers.clear();
            batch_headers(headers, &id, index, last);
            condition_headers(headers, write);
            if index == 0 {
                headers.add(EXPECTED_STREAM, &self.stream.name);
                if let Some((key, revision)) = &batch.fence {
                    headers.add(LAST_SUBJECT_SEQUENCE, revision);
                    let subject = format_args!("{}{key}", self.prefix);
                    headers.add(LAST_SUBJECT_SEQUENCE_SUBJECT, subject);
                }
            }
            let ends = index == 0 || index == last;
            if let Err(failure) = self.send(&mut exchange, write, &mut buffers, ends) {
                // Without a commit the server discards the batch.
                return failure.into_outcome(exchange.queued() > last);
            }
            if index == 0
                && last > 0
                && !surely_batches
                && let Err(outcome) = first_answer(&mut exchange)
            {
                return outcome;
            }
        }
        // A batch that was not opened cannot be committed.
        if last > 0
            && surely_batches
            && let Err(outcome) = first_answer(&mut exchange)
        {
            return outcome;
        }
        match exchange.receive() {
            Ok((_, reply)) => self.commit_outcome(reply, &id),
            Err(failure) => failure.into_outcome(exchange.queued() > last),
        }
    }

    fn send(
        &self,
        exchange: &mut Exchange<'_>,
        write: &Write,
        buffers: &mut Buffers,
        wants_reply: bool,
    ) -> Result<(), RequestFailure> {
        let Buffers { headers, subject } = buffers;
        if write.value.is_none() {
            headers.add("KV-Operation", "DEL");
        }
        subject.clear();
        subject.push_str(&self.stream.write_prefix);
        subject.push_str(self.prefix);
        subject.push_str(&write.key);
        let payload = write.value.as_deref().unwrap_or_default();
        exchange.send(subject, headers, payload, wants_reply)
    }

    fn commit_outcome(&self, reply: Reply, id: &str) -> Outcome {
        match read_reply::<PublishAck>(reply) {
            Ok(ack) if ack.batch.as_deref() == Some(id) => self.done(&ack),
            Ok(_) => {
                Outcome::Unknown("the server stored the commit as a single message".to_owned())
            }
            Err(failure) => failure.into_outcome(true),
        }
    }

    /// Checks that the acknowledgement comes from this stream. Otherwise the outcome is unknown, because
    /// this stream may have stored the write too.
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
            return invalid("a batch must not write a key twice");
        }
        if let Some((fence, _)) = &batch.fence {
            if let Some(fault) = key_fault(fence, KEY_BYTES_MAX) {
                return invalid(&format!("fence key {fault}"));
            }
            if keys.binary_search(&fence.as_str()).is_ok() {
                return invalid("a batch must not write the key of its fence");
            }
            if first.expect != Expect::Any {
                return invalid("the first write of a fenced batch must not have a condition");
            }
        }
        let by_last = |write: &Write| matches!(write.expect, Expect::LastSequence(_));
        if batch.writes.iter().any(by_last) {
            return invalid("a batch must not depend on the last sequence of the bucket");
        }
        batch.writes.iter().find_map(|write| self.fault(write))
    }
}

/// Probes whether the leader buffers the messages of a batch until the commit and then checks the
/// fence. The probe uses a fence that cannot match, so nothing is stored.
pub(super) fn batches_work(
    stream: &Stream,
    subject: &str,
    deadline: Instant,
) -> Result<bool, RequestFailure> {
    let id = batch_id();
    let route = &stream.write_prefix;
    let mut exchange = stream.link.exchange(2, deadline);
    let mut headers = Headers::default();
    batch_headers(&mut headers, &id, 0, 1);
    headers.add(LAST_SUBJECT_SEQUENCE, NEVER);
    let fence = format_args!("{subject}.fence");
    headers.add(LAST_SUBJECT_SEQUENCE_SUBJECT, fence);
    exchange.send(&format!("{route}{subject}.1"), &headers, b"", true)?;
    match exchange.receive()?.1 {
        Reply::Data(data) if data.is_empty() => {}
        reply => return refused_probe(reply),
    }
    headers.clear();
    batch_headers(&mut headers, &id, 1, 1);
    exchange.send(&format!("{route}{subject}.2"), &headers, b"", true)?;
    match read_reply::<PublishAck>(exchange.receive()?.1) {
        Err(failure) if failure.is_api(number::WRONG_LAST_SEQUENCE) => Ok(true),
        Err(RequestFailure::Api(error)) => refused_probe_error(error),
        Err(failure) => Err(failure),
        Ok(_) => Ok(false),
    }
}

/// Probes which stream receives writes to `subject`, with a write that no bucket accepts.
///
/// An error says what to change. A denied write is not an error: a worker that never leads may lack
/// the permission.
pub(super) fn probe_route(
    stream: &Stream,
    subject: &str,
    deadline: Instant,
) -> Result<Result<(), String>, RequestFailure> {
    let mut headers = Headers::default();
    headers.add(LAST_SUBJECT_SEQUENCE, NEVER);
    let mut exchange = stream.link.exchange(1, deadline);
    let target = format!("{}{subject}", stream.write_prefix);
    exchange.send(&target, &headers, b"", true)?;
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

/// Interprets the reply to a first message that did not open a batch.
fn refused_probe(reply: Reply) -> Result<bool, RequestFailure> {
    match read_reply::<PublishAck>(reply) {
        Err(RequestFailure::Api(error)) => refused_probe_error(error),
        Err(failure) => Err(failure),
        Ok(_) => Ok(false),
    }
}

/// Servers that are busy or have no leader may support batches; all others do not.
fn refused_probe_error(error: ApiError) -> Result<bool, RequestFailure> {
    if number::BUSY.contains(&error.err_code) || number::UNAVAILABLE.contains(&error.err_code) {
        return Err(RequestFailure::Api(error));
    }
    Ok(false)
}

fn condition_headers(headers: &mut Headers, write: &Write) {
    match write.expect {
        Expect::Any => {}
        Expect::Revision(revision) => {
            headers.add(LAST_SUBJECT_SEQUENCE, revision);
        }
        Expect::LastSequence(sequence) => {
            headers.add(LAST_SEQUENCE, sequence);
        }
    }
}

fn batch_headers(headers: &mut Headers, id: &str, index: usize, last: usize) {
    headers.add(BATCH_ID, id);
    headers.add(BATCH_SEQUENCE, index + 1);
    if index == last {
        headers.add(BATCH_COMMIT, 1);
    }
}

fn batch_id() -> String {
    format!("dv{}", unique_id())
}

/// Receives the answer to the first message of a batch, which is empty if the batch was opened.
fn first_answer(exchange: &mut Exchange<'_>) -> Result<(), Outcome> {
    match exchange.receive() {
        Ok((_, Reply::Data(data))) if data.is_empty() => Ok(()),
        Ok((_, reply)) => Err(match read_reply::<PublishAck>(reply) {
            Ok(_) => Outcome::Unknown(
                "the server does not support batches and stored the first message".to_owned(),
            ),
            Err(failure) => failure.into_outcome(true),
        }),
        // A batch without a commit stores nothing, but a leader without batches would have stored
        // this message. Without an answer the outcome is unknown.
        Err(failure) => Err(failure.into_outcome(exchange.queued() > 0)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::client::Connection;
    use super::super::client::headers::HeaderBlock;
    use super::super::client::info::ServerInfo;
    use super::super::client::tests::scripted::{Received, Scripted, publications};
    use super::super::link::Link;
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn stream(connection: Arc<dyn Connection>) -> Stream {
        Stream {
            link: Link::new(connection, ServerInfo::default(), "_INBOX.x".into(), 1),
            name: "KV_b".into(),
            api: "$JS.API".into(),
            write_prefix: String::new(),
            domain: None,
        }
    }

    fn writes(count: u64) -> Vec<Write> {
        (0..count)
            .map(|n| Write {
                key: format!("k{n}"),
                value: Some(vec![b'v'; 100]),
                expect: Expect::Revision(n),
            })
            .collect()
    }

    fn write(stream: &Stream, writes: &[Write], deadline: Instant) -> Vec<Outcome> {
        let target = Target {
            stream,
            prefix: "$KV.b.",
            value_max: 1_000,
        };
        target.write(writes, deadline)
    }

    /// Returns the revision that a message expects.
    fn expected(message: &Received) -> u64 {
        let headers = HeaderBlock(&message.headers);
        headers.get(LAST_SUBJECT_SEQUENCE).unwrap().parse().unwrap()
    }

    fn acknowledge(message: &Received) -> Vec<u8> {
        message.answer(&format!(
            r#"{{"stream":"KV_b","seq":{}}}"#,
            expected(message) + 1
        ))
    }

    #[test]
    fn answers_in_any_order_and_any_pieces_reach_the_write_they_belong_to() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let connection = Scripted::new(seed, move |sent| {
                let mut messages = publications(sent);
                random.shuffle(&mut messages);
                let conflict = r#"{"error":{"code":400,"err_code":10071,"description":"x"}}"#;
                let answer = |message: &Received| match expected(message) % 7 {
                    3 => message.answer(conflict),
                    _ => acknowledge(message),
                };
                messages.iter().flat_map(answer).collect()
            });
            let outcomes = write(&stream(connection), &writes(40), soon());
            for (n, outcome) in (0..).zip(outcomes) {
                match n % 7 {
                    3 => assert_eq!(outcome, Outcome::Refused(Refusal::Conflict)),
                    _ => assert_eq!(outcome, Outcome::Done(n + 1)),
                }
            }
        }
    }

    #[test]
    fn cut_between_answers_leaves_the_others_unknown() {
        let connection = Scripted::new(1, |sent| {
            publications(sent)
                .iter()
                .take(10)
                .flat_map(acknowledge)
                .collect()
        });
        let stream = stream(Arc::clone(&connection) as Arc<dyn Connection>);
        let outcomes = std::thread::scope(|scope| {
            let writing = scope.spawn(|| write(&stream, &writes(20), soon()));
            while stream.link.awaited() != 10 {
                std::thread::yield_now();
            }
            connection.cut();
            stream
                .link
                .close(RequestFailure::Disconnected("cut".into()));
            writing.join().unwrap()
        });
        assert!(outcomes[..10].iter().all(|o| matches!(o, Outcome::Done(_))));
        assert!(
            outcomes[10..]
                .iter()
                .all(|o| *o == Outcome::Unknown("cut".into()))
        );
        let outcomes = write(&stream, &writes(1), soon());
        assert_eq!(
            outcomes[0],
            Outcome::Refused(Refusal::Unavailable("cut".into()))
        );
    }

    #[test]
    fn answer_after_the_deadline_reaches_no_other_call() {
        let mut late = Vec::new();
        let connection = Scripted::new(1, move |sent| {
            let messages = publications(sent);
            let earlier = std::mem::replace(&mut late, messages.clone());
            if earlier.is_empty() {
                return Vec::new();
            }
            let all = earlier.iter().chain(&messages);
            all.flat_map(acknowledge).collect()
        });
        let stream = stream(connection);
        let unanswered = write(&stream, &writes(3), Instant::now());
        assert!(
            unanswered.iter().all(|o| matches!(o, Outcome::Unknown(_))),
            "{unanswered:?}"
        );
        let mut second = writes(3);
        second.reverse();
        let outcomes = write(&stream, &second, soon());
        assert_eq!(outcomes, [3, 2, 1].map(Outcome::Done));
    }

    #[test]
    fn denied_publication_ends_with_the_servers_reason() {
        let connection = Scripted::new(1, |sent| {
            let denied = |message: &Received| {
                let subject = &message.subject;
                format!("-ERR 'Permissions Violation for Publish to \"{subject}\"'\r\n")
            };
            publications(sent)
                .iter()
                .flat_map(|m| denied(m).into_bytes())
                .collect()
        });
        for outcome in write(&stream(connection), &writes(5), soon()) {
            let Outcome::Refused(Refusal::Unauthorized(why)) = outcome else {
                panic!("{outcome:?}");
            };
            assert!(why.contains("Permissions Violation"), "{why}");
        }
    }
}

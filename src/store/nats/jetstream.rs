//! The part of the JetStream API that the store uses. Unknown fields of replies are ignored.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::client::headers::{HeaderBlock, Headers};
use super::failure::{ApiError, RequestFailure, number};
use super::link::{Link, Reply};
use super::options::NatsOptions;
use crate::store::Operation;
use crate::types::{Revision, truncated};

/// A request without an answer is resent after this time.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(1_500);

/// Subject prefix of the JetStream API of the connected server.
pub(super) const DEFAULT_API: &str = "$JS.API";

/// Requests to one stream over one connection.
#[derive(Clone)]
pub(super) struct Stream {
    pub(super) link: Arc<Link>,
    pub(super) name: String,
    pub(super) api: String,
    /// Prefix of the subjects of writes, so that they reach the same JetStream as the requests.
    pub(super) write_prefix: String,
    /// The JetStream domain that acknowledgements must name, where it is known.
    pub(super) domain: Option<String>,
}

/// The properties of a stream: `STREAM.INFO`.
#[derive(Debug, Deserialize)]
pub(super) struct StreamInfo {
    /// The complete configuration, so that an update preserves unknown settings.
    pub(super) config: Map<String, Value>,
    #[serde(default)]
    pub(super) created: String,
    pub(super) state: StreamState,
    #[serde(default)]
    pub(super) cluster: Option<Cluster>,
    /// The JetStream domain of the server that answered; empty without one.
    #[serde(default)]
    pub(super) domain: String,
    #[serde(default)]
    ts: Option<String>,
    #[serde(default)]
    total: usize,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamState {
    #[serde(default)]
    pub(super) last_seq: Revision,
    #[serde(default)]
    pub(super) messages: u64,
    #[serde(default)]
    subjects: Option<Map<String, Value>>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Cluster {
    #[serde(default)]
    pub(super) leader: String,
    /// The servers with a replica, without the leader.
    #[serde(default)]
    pub(super) replicas: Vec<Replica>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Replica {
    #[serde(default)]
    pub(super) name: String,
}

/// A message as it is stored: `STREAM.MSG.GET`.
#[derive(Debug)]
pub(super) struct StoredMessage {
    pub(super) sequence: Revision,
    pub(super) operation: Operation,
    pub(super) data: Vec<u8>,
    pub(super) time: Option<SystemTime>,
}

/// The acknowledgement of a write or a batch.
#[derive(Debug, Deserialize)]
pub(super) struct PublishAck {
    pub(super) seq: Revision,
    pub(super) stream: String,
    #[serde(default)]
    pub(super) domain: String,
    #[serde(default)]
    pub(super) batch: Option<String>,
}

/// All subjects of a stream that match a filter, at one moment or later.
pub(super) struct Subjects {
    pub(super) names: Vec<String>,
    pub(super) info: StreamInfo,
}

impl Stream {
    /// Returns the stream `name`, with the API prefix or domain of `options`.
    pub(super) fn new(link: Arc<Link>, name: String, options: &NatsOptions) -> Self {
        Self {
            link,
            name,
            api: options.api(),
            write_prefix: options.write_prefix(),
            domain: options.domain.clone(),
        }
    }

    /// Checks that an acknowledgement comes from this stream, and not from another one that stores
    /// the same subjects.
    pub(super) fn check_ack(&self, ack: &PublishAck) -> Result<(), String> {
        let is_domain = |domain: &String| *domain == ack.domain;
        if ack.stream == self.name && self.domain.as_ref().is_none_or(is_domain) {
            return Ok(());
        }
        Err(format!(
            "stored in stream {:?} of {} instead of {:?} of {}: check nats_domain, nats_api_prefix \
             and which streams store the bucket's subjects",
            truncated(&ack.stream, 255),
            named_domain(&ack.domain),
            self.name,
            self.domain
                .as_deref()
                .map_or("any domain".to_owned(), named_domain),
        ))
    }

    /// Sends a request to the JetStream API and reads the reply as `T`.
    ///
    /// The request is resent until it is answered, because requests sent while a stream has no leader
    /// are lost. It must therefore be idempotent.
    pub(super) fn request<T: DeserializeOwned>(
        &self,
        what: &str,
        body: &impl Serialize,
        deadline: Instant,
    ) -> Result<T, RequestFailure> {
        let payload =
            serde_json::to_vec(body).map_err(|e| RequestFailure::Malformed(e.to_string()))?;
        self.ask(&format!("{}.{what}", self.api), &payload, deadline)
            .and_then(read_reply)
    }

    /// Resends a request until it is answered.
    fn ask(
        &self,
        subject: &str,
        payload: &[u8],
        deadline: Instant,
    ) -> Result<Reply, RequestFailure> {
        loop {
            let attempt_deadline = deadline.min(self.link.now() + ASK_AGAIN_AFTER);
            let mut exchange = self.link.exchange(1, attempt_deadline);
            let answer = exchange
                .send(subject, &Headers::default(), payload, true)
                .and_then(|()| exchange.receive());
            match answer {
                Err(RequestFailure::TimedOut) if attempt_deadline < deadline => {}
                answer => return answer.map(|(_, reply)| reply),
            }
        }
    }

    /// Returns the properties of the stream.
    pub(super) fn info(&self, deadline: Instant) -> Result<StreamInfo, RequestFailure> {
        let info = self.request(
            &format!("STREAM.INFO.{}", self.name),
            &serde_json::json!({}),
            deadline,
        )?;
        Ok(self.timed(info))
    }

    /// Returns the subjects that match `filter`, including every write up to the returned last sequence.
    pub(super) fn subjects(
        &self,
        filter: &str,
        deadline: Instant,
    ) -> Result<Subjects, RequestFailure> {
        let what = format!("STREAM.INFO.{}", self.name);
        let page = |offset: usize| -> Result<StreamInfo, RequestFailure> {
            let body = serde_json::json!({ "subjects_filter": filter, "offset": offset });
            self.request(&what, &body, deadline)
        };
        let mut info = self.timed(page(0)?);
        let mut names: Vec<String> = take_subjects(&mut info);
        while names.len() < info.total {
            let before = names.len();
            names.extend(take_subjects(&mut page(before)?));
            if names.len() == before {
                // Keys were removed during the listing; the remaining pages are empty.
                break;
            }
        }
        Ok(Subjects { names, info })
    }

    /// Returns the last message of a subject, as answered by the leader of the stream.
    pub(super) fn last_message(
        &self,
        subject: &str,
        deadline: Instant,
    ) -> Result<Option<StoredMessage>, RequestFailure> {
        let (api, body) = self.last_message_request(subject);
        self.ask(&api, &body, deadline).and_then(read_message)
    }

    /// Returns the request for the last message of a subject, which the leader of the stream answers.
    pub(super) fn last_message_request(&self, subject: &str) -> (String, Vec<u8>) {
        let api = format!("{}.STREAM.MSG.GET.{}", self.api, self.name);
        let body = serde_json::json!({ "last_by_subj": subject });
        (api, body.to_string().into_bytes())
    }

    fn timed(&self, info: StreamInfo) -> StreamInfo {
        if let Some(time) = info.ts.as_deref().and_then(parse_time) {
            self.link.note_server_time(time);
        }
        info
    }
}

impl StreamInfo {
    /// Returns a duration of the configuration, stored in nanoseconds; `None` for 0.
    pub(super) fn duration(&self, field: &str) -> Option<Duration> {
        match self.config.get(field).and_then(Value::as_u64) {
            None | Some(0) => None,
            Some(nanos) => Some(Duration::from_nanos(nanos)),
        }
    }

    /// Returns a non-negative number of the configuration.
    pub(super) fn number(&self, field: &str) -> Option<u64> {
        self.config.get(field).and_then(Value::as_u64)
    }

    pub(super) fn flag(&self, field: &str) -> bool {
        self.config
            .get(field)
            .and_then(Value::as_bool)
            .unwrap_or(false)
    }

    /// Returns the API level of the stream leader; 0 if unknown.
    pub(super) fn level(&self) -> u32 {
        self.metadata("_nats.level")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }

    /// Returns the version of the stream leader, if known.
    pub(super) fn server_version(&self) -> Option<&str> {
        self.metadata("_nats.ver")
    }

    pub(super) fn leader(&self) -> &str {
        self.cluster.as_ref().map_or("", |cluster| &cluster.leader)
    }

    fn metadata(&self, key: &str) -> Option<&str> {
        self.config.get("metadata")?.get(key)?.as_str()
    }
}

fn named_domain(domain: &str) -> String {
    match domain {
        "" => "no JetStream domain".to_owned(),
        domain => format!("JetStream domain {:?}", truncated(domain, 255)),
    }
}

/// Parses a reply of the JetStream API or to a publication.
pub(super) fn read_reply<T: DeserializeOwned>(reply: Reply) -> Result<T, RequestFailure> {
    #[derive(Deserialize)]
    struct MaybeError {
        error: Option<ApiError>,
    }
    let data = match reply {
        Reply::Data(data) => data,
        Reply::Status(503, _) => return Err(RequestFailure::NoResponders),
        Reply::Status(code, text) => {
            return Err(RequestFailure::Malformed(format!("status {code} {text}")));
        }
        Reply::Denied(why) => return Err(RequestFailure::Denied(why)),
        Reply::Closed => {
            return Err(RequestFailure::Disconnected(
                "the connection was closed".into(),
            ));
        }
    };
    let malformed = |error: serde_json::Error| RequestFailure::Malformed(format!("reply: {error}"));
    // Most replies are no error and are parsed once.
    if data.windows(7).any(|bytes| bytes == b"\"error\"") {
        let maybe: MaybeError = serde_json::from_slice(&data).map_err(malformed)?;
        if let Some(error) = maybe.error {
            return Err(RequestFailure::Api(error));
        }
    }
    serde_json::from_slice(&data).map_err(malformed)
}

/// Parses the reply to a request for a message. Returns `None` if there is no such message.
pub(super) fn read_message(reply: Reply) -> Result<Option<StoredMessage>, RequestFailure> {
    #[derive(Deserialize)]
    struct Envelope {
        message: Message,
    }
    #[derive(Deserialize)]
    struct Message {
        seq: Revision,
        #[serde(default, deserialize_with = "bytes")]
        hdrs: Vec<u8>,
        #[serde(default, deserialize_with = "bytes")]
        data: Vec<u8>,
        #[serde(default)]
        time: String,
    }
    let message = match read_reply::<Envelope>(reply) {
        Ok(envelope) => envelope.message,
        Err(failure) if failure.is_api(number::NO_MESSAGE) => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let operation = operation_in(&message.hdrs);
    let data = if operation == Operation::Put {
        message.data
    } else {
        Vec::new()
    };
    Ok(Some(StoredMessage {
        sequence: message.seq,
        operation,
        data,
        time: parse_time(&message.time),
    }))
}

/// Returns the operation of a stored message, from `KV-Operation` and `Nats-Marker-Reason`.
pub(super) fn operation_of(kv_operation: Option<&str>, marker: Option<&str>) -> Operation {
    match (kv_operation, marker) {
        (Some("DEL" | "PURGE"), _) => Operation::Delete,
        (_, Some("MaxAge")) => Operation::Expired,
        (_, Some("Remove" | "Purge")) => Operation::Delete,
        _ => Operation::Put,
    }
}

/// Returns the operation in raw headers. Any client may have written them: malformed lines are
/// ignored.
fn operation_in(headers: &[u8]) -> Operation {
    let headers = HeaderBlock(headers);
    operation_of(
        headers.get("KV-Operation"),
        headers.get("Nats-Marker-Reason"),
    )
}

fn take_subjects(info: &mut StreamInfo) -> Vec<String> {
    let subjects = info.state.subjects.take().unwrap_or_default();
    subjects.into_iter().map(|(name, _)| name).collect()
}

fn parse_time(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339_weak(text).ok()
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    BASE64.decode(text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_distinguished_from_values_even_in_malformed_headers() {
        for (headers, expected) in [
            (&b""[..], Operation::Put),
            (b"NATS/1.0\r\nKV-Operation: DEL\r\n\r\n", Operation::Delete),
            (b"NATS/1.0\r\nKV-Operation:PURGE\r\n\r\n", Operation::Delete),
            (
                b"NATS/1.0\r\nno colon here\r\n\xff\xfe: x\r\nNats-Marker-Reason: MaxAge\r\n\r\n",
                Operation::Expired,
            ),
            (
                b"NATS/1.0\r\nNats-Marker-Reason: Remove\r\n\r\n",
                Operation::Delete,
            ),
            (b"NATS/1.0\r\nOther: KV-Operation\r\n\r\n", Operation::Put),
        ] {
            assert_eq!(operation_in(headers), expected);
        }
    }

    #[test]
    fn missing_message_is_none_and_malformed_reply_is_error() {
        let data = |text: &str| Reply::Data(text.as_bytes().to_vec());
        let missing = r#"{"error":{"code":404,"err_code":10037,"description":"no message found"}}"#;
        assert!(matches!(read_message(data(missing)), Ok(None)));
        for hostile in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"message":{"seq":-1}}"#,
            r#"{"message":{"seq":1,"data":"%"}}"#,
        ] {
            assert!(read_message(data(hostile)).is_err(), "{hostile}");
        }
        let message = r#"{"message":{"subject":"s","seq":7,"data":"aGk=","time":"2026-01-02T03:04:05.123456789Z","new":1}}"#;
        let message = read_message(data(message)).unwrap().unwrap();
        assert_eq!((message.sequence, message.data.as_slice()), (7, &b"hi"[..]));
        assert!(message.time.is_some());
    }
}

//! Failures of requests, and their mapping to the errors of the store.

use serde::Deserialize;

use crate::error::{Code, Error};
use crate::store::{Outcome, Refusal};
use crate::threads::cancel;

/// A JetStream error. Classified by `err_code`, never by its text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct ApiError {
    #[serde(default)]
    pub(super) code: u16,
    #[serde(default)]
    pub(super) err_code: u64,
    #[serde(default)]
    pub(super) description: String,
}

/// The JetStream error codes that the store distinguishes.
pub(super) mod number {
    pub(crate) const TOO_MANY_CONSUMERS: u64 = 10_026;
    pub(crate) const NO_MESSAGE: u64 = 10_037;
    pub(crate) const TOO_LARGE: u64 = 10_054;
    pub(crate) const STREAM_EXISTS: u64 = 10_058;
    pub(crate) const STREAM_NOT_FOUND: u64 = 10_059;
    pub(crate) const HEADERS_TOO_LARGE: u64 = 10_097;
    pub(crate) const WRONG_LAST_SEQUENCE: u64 = 10_071;
    pub(crate) const MAX_BYTES_REQUIRED: u64 = 10_113;
    pub(crate) const BATCH_DISABLED: u64 = 10_174;
    pub(crate) const BATCH_SEQUENCE_MISSING: u64 = 10_175;
    pub(crate) const BATCH_HEADER: u64 = 10_177;
    pub(crate) const BATCH_ID: u64 = 10_179;
    pub(crate) const BATCH_TOO_LARGE: u64 = 10_199;
    pub(crate) const BATCH_COMMIT: u64 = 10_200;
    /// Another write of the subject, or too many batches, are in progress: retry.
    /// 10163 and 10164: expectation not decidable yet. 10167: too many requests. 10158: duplicate
    /// in progress. 10176: batch incomplete (too many open, or the leader changed). 10210, 10211:
    /// too many batches in flight.
    pub(crate) const BUSY: [u64; 7] = [10_163, 10_164, 10_167, 10_158, 10_176, 10_210, 10_211];
    /// No suitable peers, no quorum, no leader: a cluster that is starting.
    pub(crate) const PASSING: [u64; 4] = [10_004, 10_005, 10_008, 10_009];
    /// Out of space: 10002 the account, 10023 and 10028 the memory of the server, 10047 its storage,
    /// 10077 the bucket or the disk.
    pub(crate) const FULL: [u64; 5] = [10_002, 10_023, 10_028, 10_047, 10_077];
    /// No leader, no quorum, no JetStream, or the stream is offline.
    pub(crate) const UNAVAILABLE: [u64; 12] = [
        10_004, 10_005, 10_006, 10_007, 10_008, 10_009, 10_010, 10_035, 10_039, 10_076, 10_118,
        10_194,
    ];
}

/// The failure of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RequestFailure {
    /// No answer by the deadline.
    TimedOut,
    /// The caller cancelled the call.
    Cancelled,
    /// There is no connection, or it ended during the call.
    Disconnected(String),
    /// The store was stopped.
    NotRunning,
    /// No responders: JetStream is disabled, the stream does not exist, or it has no leader.
    NoResponders,
    /// The server denied the request.
    Denied(String),
    /// JetStream answered with an error.
    Api(ApiError),
    /// The answer is malformed.
    Malformed(String),
    /// The bucket cannot be used with its current settings.
    Unsuitable(String),
    /// The request cannot be sent.
    Invalid(&'static str),
}

impl RequestFailure {
    pub(super) fn is_api(&self, number: u64) -> bool {
        matches!(self, RequestFailure::Api(error) if error.err_code == number)
    }

    /// Returns whether a cluster reports this while it elects a leader or its members join.
    pub(super) fn passes(&self) -> bool {
        matches!(self, RequestFailure::Api(error) if number::PASSING.contains(&error.err_code))
    }

    /// Converts it to the error of a read.
    pub(super) fn into_error(self, operation: &'static str) -> Error {
        let error = match self {
            RequestFailure::TimedOut => {
                Error::new(Code::TimedOut, "the store did not answer in time")
            }
            RequestFailure::Cancelled => cancel::error("cancelled while waiting for the answer"),
            RequestFailure::Disconnected(why) => Error::new(Code::Unavailable, why),
            RequestFailure::NotRunning => Error::new(Code::NotRunning, "the store was stopped"),
            RequestFailure::NoResponders => Error::new(Code::Unavailable, NO_RESPONDERS),
            RequestFailure::Denied(why) => Error::new(Code::Unauthorized, why),
            RequestFailure::Malformed(why) => Error::new(Code::StoreError, why),
            RequestFailure::Unsuitable(why) => Error::new(Code::Unsupported, why),
            RequestFailure::Invalid(why) => Error::new(Code::InvalidArgument, why),
            RequestFailure::Api(error) => match refusal_of(error) {
                Refusal::Other { code, text } => {
                    Error::new(Code::StoreError, format!("{text} (error {code})"))
                }
                refusal => refusal.into_error(),
            },
        };
        error.with_operation(operation)
    }

    /// Converts it to the outcome of a write. `sent`: the write may have reached the server.
    pub(super) fn into_outcome(self, sent: bool) -> Outcome {
        match self {
            RequestFailure::TimedOut if sent => Outcome::Unknown("no answer in time".to_owned()),
            RequestFailure::Cancelled if sent => {
                Outcome::Unknown("cancelled while waiting for the answer".to_owned())
            }
            RequestFailure::Disconnected(why) if sent => Outcome::Unknown(why),
            RequestFailure::NotRunning if sent => {
                Outcome::Unknown("the store was stopped".to_owned())
            }
            RequestFailure::Malformed(why) => Outcome::Unknown(why),
            RequestFailure::TimedOut => Outcome::Refused(Refusal::Unavailable(
                "not sent before the deadline".to_owned(),
            )),
            RequestFailure::Cancelled => Outcome::Refused(Refusal::Unavailable(
                "cancelled before it was sent".to_owned(),
            )),
            RequestFailure::Disconnected(why) => Outcome::Refused(Refusal::Unavailable(why)),
            RequestFailure::NotRunning => Outcome::Refused(Refusal::NotRunning),
            RequestFailure::NoResponders => {
                Outcome::Refused(Refusal::Unavailable(NO_RESPONDERS.to_owned()))
            }
            RequestFailure::Denied(why) => Outcome::Refused(Refusal::Unauthorized(why)),
            RequestFailure::Unsuitable(why) => Outcome::Refused(Refusal::Invalid(why)),
            RequestFailure::Invalid(why) => Outcome::Refused(Refusal::Invalid(why.to_owned())),
            RequestFailure::Api(error) => Outcome::Refused(refusal_of(error)),
        }
    }
}

const NO_RESPONDERS: &str =
    "no responders: JetStream is disabled, the bucket does not exist, or the stream has no leader";

const MAKE_ROOM: &str = "free storage at the NATS server, or raise the limit of the server \
                         (max_file_store, max_memory_store), of the account, or of the bucket \
                         (max_bytes)";

/// Converts a JetStream error to the refusal of a write. The server stored nothing.
fn refusal_of(error: ApiError) -> Refusal {
    let text = error.description;
    match error.err_code {
        number::WRONG_LAST_SEQUENCE => Refusal::Conflict,
        busy if number::BUSY.contains(&busy) => Refusal::Busy,
        number::STREAM_NOT_FOUND => Refusal::Unavailable(format!("no such bucket: {text}")),
        number::MAX_BYTES_REQUIRED => Refusal::Invalid(format!(
            "{text} (error {}): set nats_max_bytes, or create the bucket with a limit",
            number::MAX_BYTES_REQUIRED
        )),
        number::TOO_LARGE | number::HEADERS_TOO_LARGE => Refusal::TooLarge { size: 0, limit: 0 },
        number::BATCH_DISABLED
        | number::BATCH_SEQUENCE_MISSING
        | number::BATCH_HEADER
        | number::BATCH_ID
        | number::BATCH_TOO_LARGE
        | number::BATCH_COMMIT => Refusal::Invalid(text),
        gone if number::UNAVAILABLE.contains(&gone) => Refusal::Unavailable(text),
        full if number::FULL.contains(&full) => {
            Refusal::Full(format!("{text} (error {full}): {MAKE_ROOM}"))
        }
        _ if matches!(error.code, 401 | 403) => Refusal::Unauthorized(text),
        code => Refusal::Other { code, text },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16, err_code: u64) -> RequestFailure {
        RequestFailure::Api(ApiError {
            code,
            err_code,
            description: "words".into(),
        })
    }

    #[test]
    fn only_10071_is_conflict_and_busy_is_distinct() {
        let outcome = |failure: RequestFailure| failure.into_outcome(true);
        assert_eq!(
            outcome(api(400, 10_071)),
            Outcome::Refused(Refusal::Conflict)
        );
        for busy in number::BUSY {
            assert_eq!(
                outcome(api(400, busy)),
                Outcome::Refused(Refusal::Busy),
                "{busy}"
            );
        }
        assert_eq!(
            outcome(api(400, 10_999)),
            Outcome::Refused(Refusal::Other {
                code: 10_999,
                text: "words".into()
            })
        );
    }

    #[test]
    fn full_store_error_explains_how_to_free_space() {
        for full in number::FULL {
            let error = api(503, full).into_error("write");
            assert!(error.to_string().contains("raise the limit"), "{error}");
            assert!(error.is_retriable(), "{error}");
        }
    }

    #[test]
    fn timeout_is_unknown_only_if_something_may_have_been_sent() {
        for failure in [
            RequestFailure::TimedOut,
            RequestFailure::Cancelled,
            RequestFailure::Disconnected("cut".into()),
            RequestFailure::NotRunning,
        ] {
            assert!(matches!(
                failure.clone().into_outcome(true),
                Outcome::Unknown(_)
            ));
            assert!(matches!(failure.into_outcome(false), Outcome::Refused(_)));
        }
    }
}

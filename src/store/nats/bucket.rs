//! Buckets: creating, adopting, judging them, and finding out what their server can do.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::failure::{RequestFailure, number};
use super::jetstream::{DEFAULT_API, Stream, StreamInfo};
use super::link::Link;
use super::options::{NatsOptions, Storage};
use super::write;
use crate::store::{BucketConfig, BucketStatus};
use crate::threads::cancel;

/// Most messages of an atomic batch, a limit of the server.
const BATCH_MAX: usize = 1_000;
/// The API level from which atomic batches check what they should (server 2.12.5).
const BATCH_LEVEL: u32 = 3;
/// The API level from which servers leave markers for expired keys (server 2.11).
const MARKER_LEVEL: u32 = 1;
/// How long the marker of an expired key stays: the least a server takes, since clients that do
/// not know markers take the key for alive that long.
const MARKER_TTL: Duration = Duration::from_secs(1);
/// The longest window in which a server looks for duplicates of a message id; its default.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// The pause before a cluster that is not ready is asked again; what NATS itself advises.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// Bytes of a message kept free for its headers.
const HEADER_RESERVE: usize = 1_024;

/// What was found out about a bucket, valid for one connection, leader and life of the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BucketProbe {
    life: BucketLife,
    pub(super) batches: bool,
    pub(super) value_max: usize,
    /// Whether it is valid for as long as the connection is.
    lasts: bool,
}

/// Where and when something was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct BucketLife {
    generation: u64,
    leader: String,
    incarnation: String,
    /// Whether the server and the bucket's settings promise batches.
    promises: bool,
}

impl BucketProbe {
    /// Whether batches work over this connection, without asking once more.
    ///
    /// In a cluster it is asked before each batch: the next leader may be an older server, which
    /// would store the messages of a batch one by one, or check them wrongly, and no answer to a
    /// publication tells who the leader is. A server alone that works for us over one connection
    /// is the same process all along. What can change in it, the bucket's settings or the bucket
    /// itself, it tells by refusing the batch; then nothing is stored, and it is asked again.
    pub(super) fn is_beyond_doubt(&self, link: &Link) -> bool {
        self.batches && self.lasts && self.life.generation == link.generation()
    }

    /// Has it asked again the next time.
    pub(super) fn doubt(&mut self) {
        self.lasts = false;
    }
}

/// Creates a bucket or takes the existing one, with the flags we profit from where allowed.
///
/// A cluster that has just come up refuses for a while; it is asked again until the deadline.
pub(super) fn ensure(
    stream: &Stream,
    subject: &str,
    config: BucketConfig,
    options: &NatsOptions,
    deadline: Instant,
) -> Result<StreamInfo, RequestFailure> {
    loop {
        let ensured = try_ensure(stream, subject, config, options, deadline);
        match &ensured {
            Err(failure) if failure.passes() && Instant::now() + RETRY_AFTER < deadline => {
                // Ends early when the connection does, and then so does the next attempt.
                cancel::recv_deadline(&stream.link.dead, Instant::now() + RETRY_AFTER).ok();
            }
            _ => return ensured,
        }
    }
}

fn try_ensure(
    stream: &Stream,
    subject: &str,
    config: BucketConfig,
    options: &NatsOptions,
    deadline: Instant,
) -> Result<StreamInfo, RequestFailure> {
    match stream.info(deadline) {
        Err(failure) if failure.is_api(number::STREAM_NOT_FOUND) && options.manage_buckets => {
            create(stream, subject, config, options, deadline)
        }
        Ok(info) if options.manage_buckets => Ok(adopt(stream, info, deadline)),
        found => found,
    }
}

/// Tells what a bucket is and what about it deserves attention.
pub(super) fn status(
    name: &str,
    info: &StreamInfo,
    config: BucketConfig,
    options: &NatsOptions,
) -> BucketStatus {
    let ttl = info.duration("max_age");
    let history = info.number("max_msgs_per_subject").unwrap_or(0);
    let replicas = info.number("num_replicas").unwrap_or(1);
    let replicas = u32::try_from(replicas).unwrap_or(u32::MAX);
    let mut warnings = Vec::new();
    let shown = |ttl: Option<Duration>| match ttl {
        Some(ttl) => humantime::format_duration(ttl).to_string(),
        None => "none".to_owned(),
    };
    if ttl != config.ttl {
        warnings.push(format!(
            "bucket {name}: its TTL is {}, the configuration wants {}",
            shown(ttl),
            shown(config.ttl)
        ));
    }
    if history != 1 {
        warnings.push(format!(
            "bucket {name}: it keeps {history} values per key instead of 1"
        ));
    }
    if replicas < options.replicas {
        warnings.push(format!(
            "bucket {name}: it has {replicas} replicas, the configuration wants {}",
            options.replicas
        ));
    }
    if config.ttl.is_none() && info.config.get("storage") == Some(&json!("memory")) && replicas == 1
    {
        warnings.push(format!(
            "bucket {name}: one copy in memory; a restart of the server loses it"
        ));
    }
    BucketStatus {
        name: name.to_owned(),
        ttl,
        history,
        replicas,
        incarnation: info.created.clone(),
        last_sequence: info.state.last_seq,
        warnings,
    }
}

/// The most bytes of a value, by the limits of server and bucket.
pub(super) fn value_max(stream: &Stream, info: Option<&StreamInfo>) -> usize {
    let server = stream.link.info.max_payload;
    let bucket = info
        .and_then(|info| info.number("max_msg_size"))
        .and_then(|max| usize::try_from(max).ok())
        .filter(|max| *max > 0);
    server
        .min(bucket.unwrap_or(server))
        .saturating_sub(HEADER_RESERVE)
}

/// Whether the bucket takes atomic batches, asked anew of each connection and leader.
pub(super) fn prove(
    stream: &Stream,
    subject: &str,
    info: &StreamInfo,
    known: Option<BucketProbe>,
    deadline: Instant,
) -> Result<BucketProbe, RequestFailure> {
    let life = BucketLife {
        generation: stream.link.generation(),
        leader: info.leader().to_owned(),
        incarnation: info.created.clone(),
        promises: info.level() >= BATCH_LEVEL && info.flag("allow_atomic"),
    };
    let batches = match known {
        Some(known) if known.life == life => known.batches,
        _ => life.promises && write::batches_work(stream, subject, deadline)?,
    };
    Ok(BucketProbe {
        life,
        batches,
        value_max: value_max(stream, Some(info)),
        lasts: is_alone(stream, info),
    })
}

/// Whether the bucket is kept by the very server that we are connected to, and by no other.
fn is_alone(stream: &Stream, info: &StreamInfo) -> bool {
    let server = &stream.link.info;
    // Through a leaf node another server may answer: under another prefix, or by another name.
    let is_local = server.jetstream && stream.api == DEFAULT_API;
    let leader = info.leader();
    is_local && server.cluster.is_none() && (leader.is_empty() || leader == server.server_name)
}

/// Most writes in one batch.
pub(super) fn batch_max(batches: bool) -> usize {
    if batches { BATCH_MAX } else { 0 }
}

fn create(
    stream: &Stream,
    subject: &str,
    config: BucketConfig,
    options: &NatsOptions,
    deadline: Instant,
) -> Result<StreamInfo, RequestFailure> {
    let storage = match options.storage {
        Storage::File => "file",
        Storage::Memory => "memory",
    };
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let duplicates = config
        .ttl
        .map_or(DUPLICATE_WINDOW, |ttl| ttl.min(DUPLICATE_WINDOW));
    let body = json!({
        "name": stream.name,
        "subjects": [subject],
        "retention": "limits",
        "discard": "new",
        "storage": storage,
        "num_replicas": options.replicas,
        "max_msgs_per_subject": 1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_msg_size": -1,
        "max_consumers": -1,
        "max_age": config.ttl.map_or(0, nanos),
        "duplicate_window": nanos(duplicates),
        "deny_delete": true,
        "deny_purge": false,
        "allow_rollup_hdrs": true,
        "allow_direct": true,
    });
    let api = format!("STREAM.CREATE.{}", stream.name);
    match stream.request::<Value>(&api, &body, deadline) {
        // Another creator was faster, with settings of its own: the bucket is used as it is.
        Err(failure) if !failure.is_api(number::STREAM_EXISTS) => return Err(failure),
        _ => {}
    }
    let info = stream.info(deadline)?;
    Ok(adopt(stream, info, deadline))
}

/// Adds the flags that are missing, one update for each, so that one refused leaves the others.
fn adopt(stream: &Stream, mut info: StreamInfo, deadline: Instant) -> StreamInfo {
    for flags in missing_flags(&info) {
        let names: Vec<_> = flags.keys().cloned().collect();
        let mut config = info.config.clone();
        config.extend(flags);
        // The servers' own annotations are not settings.
        let api = format!("STREAM.UPDATE.{}", stream.name);
        let updated = stream
            .request::<Value>(&api, &Value::Object(config), deadline)
            .and_then(|_| stream.info(deadline));
        match updated {
            Ok(fresh) => info = fresh,
            Err(failure) => {
                log::info!("bucket {}: cannot set {names:?}: {failure:?}", stream.name);
            }
        }
    }
    info
}

/// The flags that the bucket could have and has not, as groups that belong together.
fn missing_flags(info: &StreamInfo) -> Vec<Map<String, Value>> {
    let mut missing = Vec::new();
    let mut want = |flags: Value| {
        if let Value::Object(flags) = flags {
            missing.push(flags);
        }
    };
    if !info.flag("allow_direct") {
        want(json!({ "allow_direct": true }));
    }
    if info.level() >= BATCH_LEVEL && !info.flag("allow_atomic") {
        want(json!({ "allow_atomic": true }));
    }
    let expires = info
        .duration("max_age")
        .is_some_and(|ttl| ttl >= MARKER_TTL);
    if info.level() >= MARKER_LEVEL
        && expires
        && info.duration("subject_delete_marker_ttl").is_none()
    {
        let nanos = u64::try_from(MARKER_TTL.as_nanos()).unwrap_or(u64::MAX);
        want(json!({
            "allow_msg_ttl": true,
            "allow_rollup_hdrs": true,
            "subject_delete_marker_ttl": nanos,
        }));
    }
    missing
}

//! Creates, checks and upgrades buckets, and probes the capabilities of their server.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value, json};

use super::failure::{RequestFailure, number};
use super::jetstream::{DEFAULT_API, Stream, StreamInfo};
use super::link::Link;
use super::options::{NatsOptions, Placement};
use super::servers::{Servers, Version};
use super::write;
use crate::store::{Bucket, BucketConfig, BucketStatus, ManageBuckets};
use crate::threads::cancel;

/// Maximum number of messages in an atomic batch, a limit of the server.
const BATCH_MAX: usize = 1_000;
/// The first API level whose atomic batches check all conditions (server 2.12.5).
const BATCH_LEVEL: u32 = 3;
/// The first server of that level.
const BATCH_SERVER: Version = (2, 12, 5);
/// The first server that writes markers for expired keys.
const MARKER_SERVER: Version = (2, 11, 0);
/// The stream settings of the two features.
pub(super) const ATOMIC: &str = "allow_atomic";
pub(super) const MARKERS: &str = "subject_delete_marker_ttl";
/// Lifetime of the marker of an expired key: the minimum of the server, because clients that do not
/// know markers treat the key as live for this long.
const MARKER_TTL: Duration = Duration::from_secs(1);
/// Maximum window in which a server detects duplicate message ids; its default.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// Delay before retrying on a cluster that is not ready, as NATS recommends.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(250);
/// Maximum wait for the answer to a probe of the write route.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a message reserved for its headers.
const HEADER_RESERVE: usize = 1_024;

/// The probe result for a bucket, valid for one connection, leader and incarnation of the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BucketProbe {
    life: BucketLife,
    pub(super) batches: bool,
    pub(super) value_max: usize,
    /// Whether it remains valid until the connection ends.
    lasts: bool,
}

/// The conditions under which a probe result is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
struct BucketLife {
    generation: u64,
    leader: String,
    incarnation: String,
    /// Whether the server version and the settings of the bucket support batches.
    promises: bool,
}

impl BucketProbe {
    /// Whether batches work over this connection without another probe.
    ///
    /// In a cluster, every batch needs a probe: a new leader may be an older server, which would
    /// store the messages one by one or check them incorrectly, and the answer to a publication does
    /// not identify the leader. A single server is the same process for the whole connection. If the
    /// settings of the bucket or the bucket itself change, it rejects the batch and stores nothing;
    /// the probe is then repeated.
    pub(super) fn is_certain(&self, link: &Link) -> bool {
        self.batches && self.lasts && self.life.generation == link.generation()
    }

    /// Requires another probe before the next batch.
    pub(super) fn expire(&mut self) {
        self.lasts = false;
    }
}

/// An optional stream setting that divvy uses and that older servers do not know.
pub(super) struct Feature {
    /// Name of the setting.
    pub(super) name: &'static str,
    /// What divvy uses it for.
    pub(super) purpose: &'static str,
    /// The oldest server that supports it as divvy needs it.
    pub(super) least: Version,
    /// Whether every older server that divvy supports ignores it instead of taking the stream
    /// offline.
    pub(super) is_ignored_by_older: bool,
    /// The stream settings that enable it.
    pub(super) settings: Map<String, Value>,
}

impl Feature {
    /// Returns the features that the bucket lacks.
    pub(super) fn missing(bucket: Bucket, info: &StreamInfo) -> Vec<Self> {
        let mut missing = Vec::new();
        if bucket == Bucket::Assignment && !info.flag(ATOMIC) {
            missing.push(Self {
                name: ATOMIC,
                purpose: "publishes a plan as one atomic batch",
                least: BATCH_SERVER,
                is_ignored_by_older: false,
                settings: object(json!({ ATOMIC: true })),
            });
        }
        let expires = info
            .duration("max_age")
            .is_some_and(|ttl| ttl >= MARKER_TTL);
        if expires && info.duration(MARKERS).is_none() {
            let nanos = u64::try_from(MARKER_TTL.as_nanos()).unwrap_or(u64::MAX);
            missing.push(Self {
                name: MARKERS,
                purpose: "reports expired keys immediately, without a listing",
                least: MARKER_SERVER,
                is_ignored_by_older: true,
                settings: object(json!({
                    "allow_msg_ttl": true,
                    "allow_rollup_hdrs": true,
                    MARKERS: nanos,
                })),
            });
        }
        missing
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Creates a missing bucket and checks an existing one, as the options allow.
///
/// A cluster that is starting rejects requests for a while; they are retried until the deadline.
pub(super) fn ensure(
    stream: &Stream,
    bucket: Bucket,
    config: BucketConfig,
    options: &NatsOptions,
    deadline: Instant,
) -> Result<StreamInfo, RequestFailure> {
    loop {
        let ensured = try_ensure(stream, bucket, config, options, deadline);
        match ensured {
            Err(failure) if failure.passes() && Instant::now() + RETRY_AFTER < deadline => {
                // Returns early if the connection ends; the next attempt then fails at once.
                cancel::recv_deadline(&stream.link.dead, Instant::now() + RETRY_AFTER).ok();
            }
            Err(RequestFailure::NoResponders) if stream.api != DEFAULT_API => {
                return Err(unreachable(options));
            }
            ensured => return ensured,
        }
    }
}

fn try_ensure(
    stream: &Stream,
    bucket: Bucket,
    config: BucketConfig,
    options: &NatsOptions,
    deadline: Instant,
) -> Result<StreamInfo, RequestFailure> {
    let manage = options.manage_buckets;
    let mut is_new = false;
    let info = match stream.info(deadline) {
        Err(failure)
            if failure.is_api(number::STREAM_NOT_FOUND) && manage != ManageBuckets::Never =>
        {
            is_new = create(stream, bucket, config, options, deadline)?;
            stream.info(deadline)?
        }
        found => found?,
    };
    check(stream, bucket, &info, options, deadline)?;
    let is_wanted = |feature: &Feature| match manage {
        ManageBuckets::Never => false,
        ManageBuckets::Create => is_new && feature.is_ignored_by_older,
        ManageBuckets::Upgrade => true,
    };
    let mut features = Feature::missing(bucket, &info);
    features.retain(is_wanted);
    if features.is_empty() {
        return Ok(info);
    }
    let servers = Servers::ask(options, &stream.link.info, deadline);
    let mut upgraded = info;
    for feature in features {
        let name = &stream.name;
        if let Some(why) = servers.objection(stream, &upgraded, feature.least) {
            log::warn!(
                bucket = name.as_str(), feature = feature.name;
                "bucket {name}: {} not enabled: {why}", feature.name
            );
            continue;
        }
        match switch(stream, &upgraded, &feature.settings, deadline) {
            Ok(info) => upgraded = info,
            Err(failure) => {
                let why = failure.into_error("update stream");
                log::warn!(
                    bucket = name.as_str(), feature = feature.name;
                    "bucket {name}: cannot enable {}: {why}", feature.name
                );
            }
        }
    }
    Ok(upgraded)
}

/// Checks that writes arrive in the stream that is read.
fn check(
    stream: &Stream,
    bucket: Bucket,
    info: &StreamInfo,
    options: &NatsOptions,
    deadline: Instant,
) -> Result<(), RequestFailure> {
    let route = options.route();
    let unsuitable = |why: String| Err(RequestFailure::Unsuitable(why));
    if let Some(mirror) = info.config.get("mirror").filter(|mirror| !mirror.is_null()) {
        let original = mirror.get("name").and_then(Value::as_str);
        return unsuitable(format!(
            "stream {} of {route} is a mirror of {:?}, which is read-only; set nats_domain \
             or nats_api_prefix so that the original is reached",
            stream.name,
            original.unwrap_or_default(),
        ));
    }
    let wanted = options.subject(bucket, ">");
    let subjects = info.config.get("subjects").and_then(Value::as_array);
    let covers = |subject: &str| match subject.strip_suffix('>') {
        Some(parent) => wanted.starts_with(parent),
        None => false,
    };
    let mut subjects = subjects.into_iter().flatten().filter_map(Value::as_str);
    if !subjects.any(covers) {
        return unsuitable(format!(
            "stream {} of {route} does not store {wanted}, so it is not the bucket",
            stream.name
        ));
    }
    if let Some(domain) = options.domain.as_ref().filter(|name| **name != info.domain) {
        return unsuitable(format!(
            "stream {} was looked up in JetStream domain {domain:?} and answered from {:?}",
            stream.name, info.domain
        ));
    }
    if stream.api == DEFAULT_API {
        return Ok(());
    }
    let soon = deadline.min(Instant::now() + ROUTE_TIMEOUT);
    let advice = match &options.api_prefix {
        Some(prefix) => format!("import $KV.> of that account as {prefix}.$KV.>"),
        None => "route writes to that domain as well".to_owned(),
    };
    let explain = |why: &str| {
        let name = &stream.name;
        format!("{why}, but stream {name} is read through {route}; {advice}")
    };
    match write::probe_route(stream, &options.subject(bucket, "divvy.probe"), soon) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => unsuitable(explain(&why)),
        // If only the API is imported, the write is dropped without an answer. A stream without a
        // leader does not answer either, so this is retried.
        Err(RequestFailure::TimedOut) => Err(RequestFailure::Disconnected(explain(&format!(
            "writes to {}$KV get no answer",
            stream.write_prefix
        )))),
        Err(failure) => Err(failure),
    }
}

/// Returns the failure of requests that no JetStream answers.
pub(super) fn unreachable(options: &NatsOptions) -> RequestFailure {
    RequestFailure::Disconnected(format!(
        "{} does not answer: check its name and that a leaf node connection or an import leads to it",
        options.route()
    ))
}

/// Returns the properties of a bucket and warnings about its settings.
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
            "bucket {name}: TTL is {}, configured is {}",
            shown(ttl),
            shown(config.ttl)
        ));
    }
    if history != 1 {
        warnings.push(format!(
            "bucket {name}: keeps {history} values per key instead of 1"
        ));
    }
    if replicas < options.replicas {
        warnings.push(format!(
            "bucket {name}: replicas is {replicas}, configured is {}",
            options.replicas
        ));
    }
    if config.ttl.is_none() && info.config.get("storage") == Some(&json!("memory")) && replicas == 1
    {
        warnings.push(format!(
            "bucket {name}: one replica in memory: a restart of the server loses it"
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

/// Returns the maximum size of a value in bytes, by the limits of server and bucket.
pub(super) fn value_max(stream: &Stream, info: Option<&StreamInfo>) -> usize {
    let server = stream.link.info.max_payload();
    let bucket = info
        .and_then(|info| info.number("max_msg_size"))
        .and_then(|max| usize::try_from(max).ok())
        .filter(|max| *max > 0);
    server
        .min(bucket.unwrap_or(server))
        .saturating_sub(HEADER_RESERVE)
}

/// Probes whether the bucket accepts atomic batches. Repeated for each connection and leader.
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
        promises: info.level() >= BATCH_LEVEL && info.flag(ATOMIC),
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

/// Returns whether the connected server, and no other, stores the bucket.
fn is_alone(stream: &Stream, info: &StreamInfo) -> bool {
    let server = &stream.link.info;
    // Through a leaf node another server may answer, under another prefix or name.
    let is_local = server.jetstream && stream.api == DEFAULT_API;
    let leader = info.leader();
    is_local && server.cluster.is_none() && (leader.is_empty() || leader == server.server_name)
}

/// Returns the maximum number of writes in one batch.
pub(super) fn batch_max(batches: bool) -> usize {
    if batches { BATCH_MAX } else { 0 }
}

/// Creates the bucket. Returns false if another client created it first, maybe with other settings.
fn create(
    stream: &Stream,
    bucket: Bucket,
    config: BucketConfig,
    options: &NatsOptions,
    deadline: Instant,
) -> Result<bool, RequestFailure> {
    let storage = options.storage.name();
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let duplicates = config
        .ttl
        .map_or(DUPLICATE_WINDOW, |ttl| ttl.min(DUPLICATE_WINDOW));
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let max_bytes = options
        .max_bytes
        .map(|max| i64::try_from(max).unwrap_or(i64::MAX));
    let mut body = json!({
        "name": stream.name,
        "subjects": [options.subject(bucket, ">")],
        "retention": "limits",
        "discard": "new",
        "storage": storage,
        "num_replicas": options.replicas,
        "max_msgs_per_subject": 1,
        "max_msgs": -1,
        "max_bytes": max_bytes.unwrap_or(-1),
        "max_msg_size": -1,
        "max_consumers": -1,
        "max_age": config.ttl.map_or(0, nanos),
        "duplicate_window": nanos(duplicates),
        "deny_delete": true,
        "deny_purge": false,
        "allow_rollup_hdrs": true,
        "allow_direct": true,
        "first_seq": bucket.first_sequence(since_epoch.unwrap_or_default()),
    });
    if !options.placement.is_empty() {
        let Placement { cluster, tags } = &options.placement;
        body["placement"] = json!({ "cluster": cluster, "tags": tags });
    }
    let api = format!("STREAM.CREATE.{}", stream.name);
    match stream.request::<Value>(&api, &body, deadline) {
        Ok(_) => Ok(true),
        Err(failure) if failure.is_api(number::STREAM_EXISTS) => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Changes settings of a stream and keeps all others.
pub(super) fn switch(
    stream: &Stream,
    info: &StreamInfo,
    settings: &Map<String, Value>,
    deadline: Instant,
) -> Result<StreamInfo, RequestFailure> {
    let mut config = info.config.clone();
    config.extend(settings.clone());
    let api = format!("STREAM.UPDATE.{}", stream.name);
    stream.request::<Value>(&api, &Value::Object(config), deadline)?;
    stream.info(deadline)
}

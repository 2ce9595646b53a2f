//! Bucket operations for operators: show, plan, upgrade, revert.

use std::fmt;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::NatsStore;
use super::bucket::{self, ATOMIC, Feature, MARKERS};
use super::failure::{RequestFailure, number};
use super::jetstream::{Stream, StreamInfo};
use super::servers::{ServerReport, Servers};
use crate::error::Result;
use crate::store::Bucket;

/// The servers and buckets of a fleet, and what an upgrade would change. `Display` is a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketsReport {
    /// Every configured or advertised address of the cluster, with its answer.
    pub servers: Vec<ServerReport>,
    /// The four buckets.
    pub buckets: Vec<BucketReport>,
}

/// One bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketReport {
    /// The bucket's name.
    pub name: String,
    /// Whether it exists. All further fields are empty if it does not.
    pub exists: bool,
    /// The servers that store it, the leader first.
    pub stored_by: Vec<String>,
    /// The version of its leader. Empty if unknown.
    pub server_version: String,
    /// `file` or `memory`.
    pub storage: String,
    /// Lifetime of a value. `None`: unlimited.
    pub ttl: Option<Duration>,
    /// Values stored per key.
    pub history: u64,
    /// Number of values and markers.
    pub messages: u64,
    /// The enabled server features, by the name of the stream setting.
    pub features: Vec<&'static str>,
    /// The server features that an upgrade would enable.
    pub missing: Vec<FeatureReport>,
}

/// A server feature that a bucket does not use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureReport {
    /// The name of the stream setting.
    pub name: &'static str,
    /// What divvy uses it for.
    pub purpose: &'static str,
    /// The oldest server version that supports it as divvy needs it.
    pub least_server: String,
    /// Why an upgrade does not enable it. `None` if it does.
    pub objection: Option<String>,
}

/// A bucket and its stream, if it exists.
struct Found {
    bucket: Bucket,
    stream: Stream,
    info: Option<StreamInfo>,
}

impl NatsStore {
    /// Reports the buckets and what [`NatsStore::upgrade_buckets`] would change. Writes nothing.
    /// Blocks for up to 2 s per server of the cluster, and at most until the deadline.
    ///
    /// # Errors
    /// `Unavailable`, `TimedOut`, `Unauthorized`, `Store`, `NotRunning`, `Cancelled`.
    pub fn inspect_buckets(&self, deadline: Instant) -> Result<BucketsReport> {
        self.inspect(deadline)
            .map_err(|failure| failure.into_error("inspect buckets"))
    }

    /// Enables the server features that divvy uses, each on the bucket that needs it, and only if
    /// every server of the cluster is known to support it. Does not create missing buckets. Returns
    /// the resulting buckets; a feature that was not enabled has an objection. A running leader uses
    /// the features from its next publication on.
    ///
    /// # Errors
    /// As [`NatsStore::inspect_buckets`]. Changes made before the failure remain.
    pub fn upgrade_buckets(&self, deadline: Instant) -> Result<BucketsReport> {
        self.upgrade(deadline)
            .map_err(|failure| failure.into_error("upgrade buckets"))
    }

    /// Disables the setting for which servers older than 2.12 take a stream offline (`allow_atomic`),
    /// so that the servers can be downgraded. Returns the names of the changed buckets. A running
    /// leader then publishes in per-key mode.
    ///
    /// # Errors
    /// As [`NatsStore::inspect_buckets`].
    pub fn revert_buckets(&self, deadline: Instant) -> Result<Vec<String>> {
        self.revert(deadline)
            .map_err(|failure| failure.into_error("revert buckets"))
    }

    fn inspect(&self, deadline: Instant) -> Result<BucketsReport, RequestFailure> {
        let options = &self.session.options;
        let servers = Servers::ask(options, &self.session.link()?.info, deadline);
        let found = self.find_buckets(deadline)?;
        Ok(report(options.buckets.as_ref(), servers, &found))
    }

    fn upgrade(&self, deadline: Instant) -> Result<BucketsReport, RequestFailure> {
        let options = &self.session.options;
        let servers = Servers::ask(options, &self.session.link()?.info, deadline);
        let mut found = self.find_buckets(deadline)?;
        for found in &mut found {
            let Some(mut info) = found.info.take() else {
                continue;
            };
            for feature in Feature::missing(found.bucket, &info) {
                if servers
                    .objection(&found.stream, &info, feature.least)
                    .is_none()
                {
                    info = bucket::switch(&found.stream, &info, &feature.settings, deadline)?;
                }
            }
            found.info = Some(info);
        }
        Ok(report(options.buckets.as_ref(), servers, &found))
    }

    fn revert(&self, deadline: Instant) -> Result<Vec<String>, RequestFailure> {
        let mut reverted = Vec::new();
        for found in self.find_buckets(deadline)? {
            let Some(info) = found.info.filter(|info| info.flag(ATOMIC)) else {
                continue;
            };
            let mut off = Map::new();
            off.insert(ATOMIC.into(), json!(false));
            bucket::switch(&found.stream, &info, &off, deadline)?;
            reverted.push(self.session.options.buckets[found.bucket as usize].clone());
        }
        Ok(reverted)
    }

    fn find_buckets(&self, deadline: Instant) -> Result<Vec<Found>, RequestFailure> {
        Bucket::ALL
            .into_iter()
            .map(|bucket| {
                let stream = self.stream_by(bucket, deadline)?;
                let info = match stream.info(deadline) {
                    Ok(info) => Some(info),
                    Err(failure) if failure.is_api(number::STREAM_NOT_FOUND) => None,
                    Err(failure) => return Err(failure),
                };
                Ok(Found {
                    bucket,
                    stream,
                    info,
                })
            })
            .collect()
    }
}

fn report(names: &[String], servers: Servers, found: &[Found]) -> BucketsReport {
    let buckets = found
        .iter()
        .zip(names)
        .map(|(found, name)| BucketReport::of(name, &servers, found))
        .collect();
    BucketsReport {
        servers: servers.reports,
        buckets,
    }
}

impl BucketReport {
    fn of(name: &str, servers: &Servers, found: &Found) -> Self {
        let mut report = Self {
            name: name.to_owned(),
            exists: found.info.is_some(),
            stored_by: Vec::new(),
            server_version: String::new(),
            storage: String::new(),
            ttl: None,
            history: 0,
            messages: 0,
            features: Vec::new(),
            missing: Vec::new(),
        };
        let Some(info) = &found.info else {
            return report;
        };
        let replicas = info.cluster.iter().flat_map(|cluster| &cluster.replicas);
        let stored_by = std::iter::once(info.leader()).chain(replicas.map(|r| r.name.as_str()));
        report.stored_by = stored_by
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        report.server_version = info.server_version().unwrap_or_default().to_owned();
        let storage = info.config.get("storage").and_then(Value::as_str);
        report.storage = storage.unwrap_or_default().to_owned();
        report.ttl = info.duration("max_age");
        report.history = info.number("max_msgs_per_subject").unwrap_or(0);
        report.messages = info.state.messages;
        if info.flag(ATOMIC) {
            report.features.push(ATOMIC);
        }
        if info.duration(MARKERS).is_some() {
            report.features.push(MARKERS);
        }
        report.missing = Feature::missing(found.bucket, info)
            .into_iter()
            .map(|feature| {
                let (major, minor, patch) = feature.least;
                FeatureReport {
                    name: feature.name,
                    purpose: feature.purpose,
                    least_server: format!("{major}.{minor}.{patch}"),
                    objection: servers.objection(&found.stream, info, feature.least),
                }
            })
            .collect();
        report
    }
}

impl BucketsReport {
    /// Describes what an upgrade would change, one line per change; a single line if nothing.
    #[must_use]
    pub fn plan(&self) -> String {
        let mut text = String::new();
        for bucket in &self.buckets {
            if !bucket.exists {
                text += &format!("{}: missing; a worker creates it\n", bucket.name);
            }
            for feature in &bucket.missing {
                let (name, setting) = (&bucket.name, feature.name);
                text += &match &feature.objection {
                    None => format!("{name}: set {setting} ({})\n", feature.purpose),
                    Some(why) => format!("{name}: {setting} stays off: {why}\n"),
                };
            }
        }
        if text.is_empty() {
            text.push_str("nothing to do: every bucket is up to date\n");
        }
        text
    }

    /// Returns whether a feature is disabled because a server is too old or its version unknown.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        let mut missing = self.buckets.iter().flat_map(|bucket| &bucket.missing);
        missing.any(|feature| feature.objection.is_some())
    }
}

impl fmt::Display for BucketsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for server in &self.servers {
            match &server.fault {
                None => writeln!(
                    f,
                    "server {} {} at {}",
                    server.name.escape_debug(),
                    server.version.escape_debug(),
                    server.address.escape_debug()
                )?,
                Some(fault) => writeln!(
                    f,
                    "server at {}: {}",
                    server.address.escape_debug(),
                    fault.escape_debug()
                )?,
            }
        }
        for bucket in &self.buckets {
            if !bucket.exists {
                writeln!(f, "bucket {}: missing", bucket.name)?;
                continue;
            }
            let ttl = match bucket.ttl {
                Some(ttl) => humantime::format_duration(ttl).to_string(),
                None => "none".to_owned(),
            };
            let or_none = |list: &[&str]| match list {
                [] => "none".to_owned(),
                list => list.join(", "),
            };
            let stored_by: Vec<&str> = bucket.stored_by.iter().map(String::as_str).collect();
            writeln!(
                f,
                "bucket {}: {} messages, {} storage on {}, TTL {ttl}, history {}, features {}",
                bucket.name,
                bucket.messages,
                bucket.storage.escape_debug(),
                or_none(&stored_by).escape_debug(),
                bucket.history,
                or_none(&bucket.features),
            )?;
        }
        Ok(())
    }
}

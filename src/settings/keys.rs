//! Every setting that has a name: one table for JSON, the environment, the command line and C.

use std::path::PathBuf;
use std::time::Duration;

use zeroize::{Zeroize, Zeroizing};

use super::{NatsSettings, Values};
use crate::config::{OutagePolicy, OutagePreset, PublishMode};
use crate::store::ManageBuckets;
use crate::strategy::StrategyKind;
use crate::time::duration;

/// One setting.
pub struct Key {
    /// Its name: lower case, words joined by `_`. In the environment it is in upper case.
    pub name: &'static str,
    /// What it is, with the default's unit where the value has none of its own.
    pub help: &'static str,
    /// Whether its value must never be shown.
    pub is_secret: bool,
    pub(super) show: fn(&Values) -> String,
    pub(super) set: fn(&mut Values, &str) -> Result<(), String>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

macro_rules! key {
    ($name:literal, $($path:ident).+, $help:literal) => {
        key!($name, $($path).+, $help, false)
    };
    ($name:literal, $($path:ident).+, $help:literal, $is_secret:literal) => {
        Key {
            name: $name,
            help: $help,
            is_secret: $is_secret,
            show: |values| Text::show(&values.$($path).+),
            set: |values, text| {
                let value = Text::read(text)?;
                Text::wipe(&mut std::mem::replace(&mut values.$($path).+, value));
                Ok(())
            },
        }
    };
}

/// Every setting, in the order of the documentation.
pub static KEYS: &[Key] = &[
    key!(
        "name",
        calculator.name,
        "name of this leader, written to the fence record"
    ),
    key!(
        "fleet",
        nats.fleet,
        "name of the fleet, from which its bucket names follow; empty: parti's bucket names"
    ),
    key!(
        "heartbeat_prefix",
        calculator.heartbeat_prefix,
        "prefix of the heartbeat keys"
    ),
    key!(
        "assignment_prefix",
        calculator.assignment_prefix,
        "prefix of the assignment keys"
    ),
    key!(
        "heartbeat_ttl",
        calculator.heartbeat_ttl,
        "a worker not heard of for this long is missing"
    ),
    key!(
        "emergency_grace_period",
        calculator.emergency_grace_period,
        "a worker missing for this long is lost; for a manager 1.5 x heartbeat_interval unless set"
    ),
    key!(
        "cooldown",
        calculator.cooldown,
        "least time from one publication to the next; emergencies, leaves and manual triggers do not wait for it"
    ),
    key!(
        "cold_start_window",
        calculator.cold_start_window,
        "how long to wait for more workers when starting from none, and after a mass loss"
    ),
    key!(
        "planned_scale_window",
        calculator.planned_scale_window,
        "how long to wait for more workers after the first joined"
    ),
    key!(
        "leave_window",
        calculator.leave_window,
        "how long to wait for more leaves after the first worker left"
    ),
    key!(
        "join_coalescing",
        calculator.join_coalescing,
        "joins seen within this time are reported together"
    ),
    key!(
        "restart_ratio",
        calculator.restart_ratio,
        "when more than this share of the workers goes missing within one TTL it is a restart; 0 to 1"
    ),
    key!(
        "min_rebalance_threshold",
        calculator.min_rebalance_threshold,
        "new weights lead to a rebalance when the fullest worker exceeds the fair level by more than this share"
    ),
    key!(
        "max_list_shrink",
        calculator.max_list_shrink,
        "a partition list that lost more than this share, or became empty, is held back until it is confirmed; 0 to 1, 1: never"
    ),
    key!(
        "list_shrink_hold",
        calculator.list_shrink_hold,
        "a list that is held back is applied once it has stayed for this long"
    ),
    key!(
        "default_weight",
        calculator.default_weight,
        "weight of a partition that has none; 1 or more"
    ),
    key!(
        "recovery_grace",
        calculator.recovery_grace,
        "added to the TTL before anyone can go missing after the store was out of sight"
    ),
    key!(
        "apply_timeout",
        calculator.apply_timeout,
        "a live worker that has not applied its assignment for this long is told as lagging; 0: nobody is"
    ),
    key!(
        "retry_delay_min",
        calculator.retry_delay_min,
        "first delay before a failed publication is retried"
    ),
    key!(
        "retry_delay_max",
        calculator.retry_delay_max,
        "longest delay before a failed publication is retried"
    ),
    key!(
        "operation_timeout",
        calculator.operation_timeout,
        "longest time that one rebalance may spend on the store"
    ),
    key!(
        "malformed_threshold",
        calculator.malformed_threshold,
        "poisonous values within malformed_window from which on the calculator is degraded"
    ),
    key!(
        "malformed_window",
        calculator.malformed_window,
        "see malformed_threshold"
    ),
    key!(
        "degraded_enter_after",
        calculator.degraded_enter_after,
        "what goes wrong for so long, on and off, is told as degraded"
    ),
    key!(
        "degraded_leave_after",
        calculator.degraded_leave_after,
        "what goes well for so long without a break is no longer told as degraded"
    ),
    key!(
        "subscriber_backlog",
        calculator.subscriber_backlog,
        "events kept for a slow subscriber before it is closed"
    ),
    key!(
        "former_leader_lease_over",
        calculator.former_leader_lease_over,
        "whether the host knows that the former leader's lease has run out"
    ),
    key!(
        "publish_mode",
        calculator.publish_mode,
        "how assignments are published: auto, a (atomic batches) or b (single writes)"
    ),
    key!(
        "publish_batch_max",
        calculator.publish_batch_max,
        "most writes in one atomic batch; 2 or more"
    ),
    key!(
        "allow_assignment_ttl",
        calculator.allow_assignment_ttl,
        "whether an assignment bucket whose values expire is accepted"
    ),
    key!(
        "worker_id_prefix",
        manager.worker_id_prefix,
        "what ids begin with: worker for worker-7"
    ),
    key!(
        "worker_id_min",
        manager.worker_id_min,
        "the lowest number of an id"
    ),
    key!(
        "worker_id_max",
        manager.worker_id_max,
        "the highest number of an id; at most 10000 ids"
    ),
    key!(
        "worker_id_ttl",
        manager.worker_id_ttl,
        "how long an id stays claimed without being renewed"
    ),
    key!(
        "heartbeat_interval",
        manager.heartbeat_interval,
        "time from one heartbeat to the next"
    ),
    key!(
        "election_timeout",
        manager.election_timeout,
        "how long a leadership lasts without being renewed"
    ),
    key!("may_lead", manager.may_lead, "whether this worker may lead"),
    key!(
        "outage_policy",
        manager.outage_policy,
        "what becomes of the partitions of a worker that is cut off: serve or strict"
    ),
    key!(
        "outage_preset",
        outage_preset,
        "conservative, balanced or aggressive: the outage settings and recovery_grace that are not set themselves"
    ),
    key!(
        "outage_enter_after",
        manager.outage.enter_after,
        "degraded mode begins when the store was not well for this long"
    ),
    key!(
        "outage_leave_after",
        manager.outage.leave_after,
        "degraded mode is over when the store was well for this long"
    ),
    key!(
        "outage_errors_max",
        manager.outage.errors_max,
        "degraded mode begins when this many requests failed within outage_error_window"
    ),
    key!(
        "outage_error_window",
        manager.outage.error_window,
        "see outage_errors_max"
    ),
    key!(
        "cache_file",
        manager.cache_file,
        "file in which a worker remembers its assignment, to serve at once when it is started while the store is out of reach; empty: none"
    ),
    key!(
        "cache_max_age",
        manager.cache_max_age,
        "how long what the cache_file says counts after the store was last seen to say it"
    ),
    key!(
        "shadow",
        calculator.shadow,
        "whether to write nothing, and to tell what would have been published beside a live leader"
    ),
    key!("strategy", strategy, "how partitions are divided, by name"),
    key!(
        "hash_seed",
        hash_seed,
        "seed of the hashing strategies; the same in the whole fleet"
    ),
    key!(
        "stable_id_bucket",
        nats.stable_id_bucket,
        "bucket of the stable ids"
    ),
    key!(
        "election_bucket",
        nats.election_bucket,
        "bucket of the leader's lease"
    ),
    key!(
        "heartbeat_bucket",
        nats.heartbeat_bucket,
        "bucket of the heartbeats"
    ),
    key!(
        "assignment_bucket",
        nats.assignment_bucket,
        "bucket of the assignments"
    ),
    key!(
        "metrics_namespace",
        metrics.namespace,
        "what the names of all metrics begin with"
    ),
    key!(
        "metrics_labels",
        metrics.labels,
        "labels of all metrics, name=value each"
    ),
    key!(
        "metrics_parti_names",
        metrics.parti_names,
        "whether metrics are kept under parti's names as well"
    ),
    key!(
        "nats_url",
        nats.urls,
        "servers, separated by commas: nats://host:port, tls://host:port or host:port"
    ),
    key!(
        "nats_name",
        nats.name,
        "the client's name as operators of the server see it"
    ),
    key!("nats_user", nats.user, "user, with nats_password"),
    key!(
        "nats_password",
        nats.password,
        "password of nats_user",
        true
    ),
    key!("nats_token", nats.token, "token to authenticate with", true),
    key!(
        "nats_creds",
        nats.creds,
        "path of a .creds file (JWT and NKey seed), read at each connect"
    ),
    key!(
        "nats_nkey_seed",
        nats.nkey_seed,
        "NKey seed to authenticate with",
        true
    ),
    key!(
        "nats_tls_required",
        nats.tls_required,
        "refuse servers without TLS"
    ),
    key!(
        "nats_tls_first",
        nats.tls_first,
        "TLS handshake before the server's greeting (handshake_first); requires TLS"
    ),
    key!(
        "nats_tls_ca",
        nats.tls_ca,
        "PEM files of the trusted authorities, separated by commas, instead of the system's; requires TLS"
    ),
    key!(
        "nats_tls_cert",
        nats.tls_cert,
        "PEM file of the client's certificate, with nats_tls_key; requires TLS"
    ),
    key!("nats_tls_key", nats.tls_key, "PEM file of the client's key"),
    key!(
        "nats_inbox_prefix",
        nats.inbox_prefix,
        "what the subjects begin with that replies and changes arrive on"
    ),
    key!(
        "nats_domain",
        nats.domain,
        "JetStream domain; empty: the server's own"
    ),
    key!(
        "nats_replicas",
        nats.replicas,
        "copies of each bucket that is created; 1 to 5"
    ),
    key!(
        "nats_storage",
        nats.storage,
        "where created buckets keep their data: file or memory"
    ),
    key!(
        "nats_api_prefix",
        nats.api_prefix,
        "subject prefix under which another account's JetStream API and $KV are imported; excludes nats_domain"
    ),
    key!(
        "nats_max_bytes",
        nats.max_bytes,
        "most bytes that each created bucket may hold; 0: no limit"
    ),
    key!(
        "nats_placement_cluster",
        nats.placement_cluster,
        "cluster that keeps the buckets that are created; empty: the server's own"
    ),
    key!(
        "nats_placement_tags",
        nats.placement_tags,
        "tags of the servers that keep the buckets that are created, separated by commas"
    ),
    key!(
        "nats_manage_buckets",
        nats.manage_buckets,
        "what may be done to buckets: create missing ones, upgrade existing ones as well, or never"
    ),
    key!(
        "nats_stale_limit",
        nats.stale_limit,
        "how long a connection may be silent before it is replaced; 1s or more"
    ),
    key!(
        "nats_connect_timeout",
        nats.connect_timeout,
        "how long one server may take to accept a connection"
    ),
];

/// The key of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The name most like an unknown one; `None` when none is like it.
#[must_use]
pub fn nearest(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    let by_likeness = |key: &&Key| strsim::jaro_winkler(&lower, key.name);
    let best = KEYS
        .iter()
        .max_by(|a, b| by_likeness(a).total_cmp(&by_likeness(b)))?;
    (by_likeness(&best) > 0.75).then_some(best.name)
}

/// A value that can be read from text and shown as it.
trait Text: Sized {
    fn read(text: &str) -> Result<Self, String>;
    fn show(&self) -> String;
    /// Overwrites what may be a secret.
    fn wipe(&mut self) {}
}

impl Text for String {
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
    fn wipe(&mut self) {
        self.zeroize();
    }
}

impl Text for Option<PathBuf> {
    fn read(text: &str) -> Result<Self, String> {
        Ok((!text.is_empty()).then(|| text.into()))
    }
    fn show(&self) -> String {
        let path = self.as_ref().map(|path| path.display().to_string());
        path.unwrap_or_default()
    }
}

impl Text for Vec<String> {
    fn read(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim);
        Ok(parts.filter(|p| !p.is_empty()).map(str::to_owned).collect())
    }
    fn show(&self) -> String {
        self.join(",")
    }
    fn wipe(&mut self) {
        self.zeroize();
    }
}

impl Text for Duration {
    fn read(text: &str) -> Result<Self, String> {
        duration::parse(text)
    }
    fn show(&self) -> String {
        duration::format(*self)
    }
}

macro_rules! plain_text {
    ($($type:ty: $what:literal),+) => {$(
        impl Text for $type {
            fn read(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| concat!("is not ", $what).to_owned())
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}
plain_text!(bool: "true or false", f64: "a number", i64: "a whole number",
    u32: "a whole number of 0 or more", u64: "a whole number of 0 or more",
    usize: "a whole number of 0 or more");

macro_rules! named_text {
    ($type:ty: $($name:literal => $value:path),+) => {
        impl Text for $type {
            fn read(text: &str) -> Result<Self, String> {
                match text {
                    $($name => Ok($value),)+
                    _ => Err(concat!("is none of:" $(, " ", $name)+).to_owned()),
                }
            }
            fn show(&self) -> String {
                match self {
                    $($value => $name.to_owned(),)+
                }
            }
        }
    };
}
named_text!(PublishMode: "auto" => PublishMode::Auto, "atomic" => PublishMode::Atomic, "per_key" => PublishMode::PerKey);
named_text!(StrategyKind:
    "sticky" => StrategyKind::Sticky,
    "round_robin" => StrategyKind::RoundRobin,
    "consistent_hash" => StrategyKind::ConsistentHash,
    "weighted_consistent_hash" => StrategyKind::WeightedConsistentHash);
named_text!(OutagePolicy: "serve" => OutagePolicy::Serve, "strict" => OutagePolicy::Strict);
named_text!(OutagePreset:
    "conservative" => OutagePreset::Conservative,
    "balanced" => OutagePreset::Balanced,
    "aggressive" => OutagePreset::Aggressive);
named_text!(ManageBuckets:
    "create" => ManageBuckets::Create,
    "upgrade" => ManageBuckets::Upgrade,
    "never" => ManageBuckets::Never);
named_text!(StorageKind: "file" => StorageKind::File, "memory" => StorageKind::Memory);

/// Where the server keeps a bucket's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageKind {
    /// On disk.
    #[default]
    File,
    /// In memory.
    Memory,
}

/// A URL's own credentials must not be shown either.
pub(super) fn shown(key: &Key, values: &Values) -> String {
    if key.name == "nats_url" {
        return redact_urls(&values.nats);
    }
    let text = (key.show)(values);
    if key.is_secret {
        let is_set = !Zeroizing::new(text).is_empty();
        return if is_set { "***".into() } else { String::new() };
    }
    text
}

fn redact_urls(nats: &NatsSettings) -> String {
    let redacted = nats.urls.iter().map(|url| match url.rsplit_once('@') {
        None => url.clone(),
        Some((before, host)) => match before.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://***@{host}"),
            None => format!("***@{host}"),
        },
    });
    redacted.collect::<Vec<_>>().join(",")
}

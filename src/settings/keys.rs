//! Every setting that has a name: one table for JSON, the environment, the command line and C.

use std::path::PathBuf;
use std::time::Duration;

use zeroize::{Zeroize, Zeroizing};

use super::{NatsSettings, Values};
use crate::time::duration;
use crate::vocabulary::{
    ManageBuckets, OutagePolicy, OutagePreset, PublishMode, Storage, StoreKind, StrategyKind,
};

/// One setting.
pub struct Key {
    /// Its name: lower case, words joined by `_`. In the environment it is in upper case.
    pub name: &'static str,
    /// The type of its value, such as `duration`.
    pub kind: &'static str,
    /// Which values it may have, and how they relate to those of other settings.
    pub range: &'static str,
    /// What it does, as Markdown.
    pub help: &'static str,
    /// Whether its value must never be shown.
    pub is_secret: bool,
    pub(super) show: fn(&Values) -> String,
    pub(super) set: fn(&mut Values, &str) -> Result<(), String>,
}

impl Key {
    /// Its default, as text.
    #[must_use]
    pub fn default_text(&self) -> String {
        (self.show)(&Values::default())
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Defines the settings: name, place in [`Values`], range and help. Type and default are those of
/// the place.
macro_rules! settings {
    ($($(#[$secret:ident])? $name:ident: $($path:ident).+, $range:literal, $help:literal;)+) => {
        /// Every setting, in the order of `docs/settings.md`.
        pub static KEYS: &[Key] = &[$(Key {
            name: stringify!($name),
            kind: kind_of(|values| &values.$($path).+),
            range: $range,
            help: $help,
            is_secret: false $(|| stringify!($secret).len() > 0)?,
            show: |values| Text::show(&values.$($path).+),
            set: |values, text| {
                let value = Text::read(text)?;
                Text::wipe(&mut std::mem::replace(&mut values.$($path).+, value));
                Ok(())
            },
        }),+];
    };
}

/// The type of a value in [`Values`].
const fn kind_of<T: Text>(_: fn(&Values) -> &T) -> &'static str {
    T::KIND
}

settings! {
    name: calculator.name, "1 to 255 bytes",
        "Name of this leader, written to the fence record. A manager uses its worker id.";
    fleet: nats.fleet, "a name; at most as long as a bucket name permits",
        "Name of the fleet, from which its bucket names follow. Empty: parti's bucket names.";
    heartbeat_prefix: calculator.heartbeat_prefix, "letters, digits and - / _ = in parts joined by dots",
        "Prefix of the heartbeat keys.";
    assignment_prefix: calculator.assignment_prefix, "letters, digits and - / _ = in parts joined by dots",
        "Prefix of the assignment keys.";
    heartbeat_ttl: calculator.heartbeat_ttl, "above 0, up to 366d; of a manager at least 2 x heartbeat_interval",
        "A worker is suspected if no heartbeat arrived for this long.";
    emergency_grace_period: calculator.emergency_grace_period, "above 0, up to 366d; of a manager at most heartbeat_ttl",
        "A suspected worker is declared dead after this time. A manager uses 1.5 x heartbeat_interval unless it is set.";
    cooldown: calculator.cooldown, "above 0, up to 366d",
        "Least time from one publication to the next. Emergencies, leaves and manual triggers bypass it.";
    cold_start_window: calculator.cold_start_window, "above 0, up to 366d; of a manager at least planned_scale_window",
        "How long to wait for further workers after a start without workers, and after a mass expiry.";
    planned_scale_window: calculator.planned_scale_window, "above 0, up to 366d; of a manager at least cooldown",
        "How long to wait for further workers after the first one joined.";
    leave_window: calculator.leave_window, "up to 366d",
        "How long to wait for further leaves after the first worker left.";
    join_coalescing: calculator.join_coalescing, "up to 366d",
        "Joins within this time are reported together.";
    restart_ratio: calculator.restart_ratio, "0 to 1",
        "If more than this share of the planned workers, and at least two, expire within one TTL, it is treated as a restart of the fleet.";
    min_rebalance_threshold: calculator.min_rebalance_threshold, "0 or more",
        "A change of weights alone triggers a rebalance if the fullest worker exceeds the fair level by more than this share.";
    max_list_shrink: calculator.max_list_shrink, "0 to 1; 1: never",
        "A partition list that lost more than this share, or became empty, is held back until it is confirmed.";
    list_shrink_hold: calculator.list_shrink_hold, "up to 366d",
        "A list that is held back is applied once it has stayed for this long.";
    default_weight: calculator.default_weight, "1 or more",
        "Weight of a partition whose own weight is 0 or less.";
    recovery_grace: calculator.recovery_grace, "up to 366d",
        "Added to the TTL before a worker can be suspected after the watch was lost. Unless set, `outage_preset` decides.";
    apply_timeout: calculator.apply_timeout, "up to 366d",
        "A live worker is reported as lagging if it has not applied its assignment within this time. 0 disables the check.";
    retry_delay_min: calculator.retry_delay_min, "above 0, up to 366d",
        "First delay before a failed publication is retried.";
    retry_delay_max: calculator.retry_delay_max, "at least retry_delay_min, up to 366d",
        "Longest delay before a failed publication is retried.";
    operation_timeout: calculator.operation_timeout, "above 0, up to 366d",
        "Longest time that one rebalance may spend on the store. A single call waits for a quarter of it, longer if the store is slow.";
    malformed_threshold: calculator.malformed_threshold, "1 or more",
        "Malformed values within `malformed_window` at which the calculator reports that it is degraded.";
    malformed_window: calculator.malformed_window, "above 0, up to 366d",
        "The time over which `malformed_threshold` counts.";
    degraded_enter_after: calculator.degraded_enter_after, "up to 366d",
        "A condition is reported as a degradation once it has lasted, or recurred, for this long.";
    degraded_leave_after: calculator.degraded_leave_after, "up to 366d",
        "A reported degradation is cleared once the condition has been healthy for this long.";
    subscriber_backlog: calculator.subscriber_backlog, "1 or more",
        "Events kept for a slow subscriber before it is closed.";
    former_leader_lease_over: calculator.former_leader_lease_over, "true or false",
        "Whether the host knows that the lease of the former leader has expired. With an absent heartbeat the former leader is then declared dead immediately.";
    publish_mode: calculator.publish_mode, "auto, atomic or per_key",
        "How assignments are published: in atomic batches, with one conditional write for each key, or whichever the store supports.";
    publish_batch_max: calculator.publish_batch_max, "2 or more",
        "Most writes in one atomic batch. The store may accept fewer.";
    allow_assignment_ttl: calculator.allow_assignment_ttl, "true or false",
        "Whether an assignment bucket with a TTL is accepted, although fence and versions expire with it.";
    shadow: calculator.shadow, "true or false",
        "Whether to write nothing, and only report what would have been published alongside a live leader.";
    strategy: strategy, "sticky, round_robin, consistent_hash or weighted_consistent_hash",
        "How partitions are divided among the workers.";
    hash_seed: hash_seed, "0 or more",
        "Seed of the hashing strategies. Must be the same in the whole fleet.";
    worker_id_prefix: manager.worker_id_prefix, "letters, digits and - / _ = in parts joined by dots, at most 200 bytes",
        "What worker ids begin with: `worker` for `worker-7`.";
    worker_id_min: manager.worker_id_min, "0 or more",
        "The lowest number of an id.";
    worker_id_max: manager.worker_id_max, "at least worker_id_min; at most 10000 ids",
        "The highest number of an id.";
    worker_id_ttl: manager.worker_id_ttl, "at least 3 x heartbeat_interval and heartbeat_ttl, up to 366d",
        "How long an id stays claimed without being renewed.";
    heartbeat_interval: manager.heartbeat_interval, "above 0, up to 366d",
        "Time from one heartbeat to the next.";
    election_timeout: manager.election_timeout, "above 0, up to 366d",
        "How long leadership lasts without being renewed.";
    may_lead: manager.may_lead, "true or false",
        "Whether this worker may lead.";
    outage_policy: manager.outage_policy, "serve or strict",
        "What happens to the partitions of a worker that cannot reach the store: it continues to serve them, or its ownership ends.";
    outage_preset: outage_preset, "conservative, balanced or aggressive",
        "Sets `recovery_grace` and each `outage_…` time or count that is not set itself.";
    outage_enter_after: manager.outage.enter_after, "above 0, up to 366d",
        "Degraded mode begins once the store has been unhealthy for this long.";
    outage_leave_after: manager.outage.leave_after, "above 0, up to 366d",
        "Degraded mode ends once the store has been healthy for this long.";
    outage_errors_max: manager.outage.errors_max, "1 or more",
        "Degraded mode begins once this many requests failed within `outage_error_window`.";
    outage_error_window: manager.outage.error_window, "above 0, up to 366d",
        "The time over which `outage_errors_max` counts.";
    cache_file: manager.cache_file, "a path; not with outage_policy strict",
        "File in which a worker remembers its assignment, so that it can serve immediately when it starts while the store is unreachable. Empty: none. Each worker needs its own.";
    cache_max_age: manager.cache_max_age, "1s or more, up to 366d",
        "How long the content of `cache_file` is valid after the store last confirmed it.";
    store: store, "nats or memory",
        "The store in which the fleet coordinates. `memory` is for demos, tests and fleets inside one process.";
    stable_id_bucket: nats.stable_id_bucket, "a bucket name",
        "Bucket of the stable ids.";
    election_bucket: nats.election_bucket, "a bucket name",
        "Bucket of the leader's lease.";
    heartbeat_bucket: nats.heartbeat_bucket, "a bucket name",
        "Bucket of the heartbeats.";
    assignment_bucket: nats.assignment_bucket, "a bucket name",
        "Bucket of the assignments, the fence and the commit record.";
    metrics_namespace: metrics.namespace, "letters, digits and _",
        "What the names of all metrics begin with.";
    metrics_labels: metrics.labels, "name=value, separated by commas",
        "Labels of all metrics. Handles that share a page need one that differs.";
    metrics_parti_names: metrics.parti_names, "true or false",
        "Whether metrics are also exported under parti's names.";
    nats_url: nats.urls, "nats://host:port, tls://host:port or host:port, separated by commas",
        "The servers.";
    nats_name: nats.name, "a text",
        "Name of the client, as operators of the server see it.";
    nats_user: nats.user, "a text",
        "User to authenticate as, with `nats_password`. At most one of `nats_user`, `nats_token`, `nats_creds` and `nats_nkey_seed` may be set.";
    #[secret]
    nats_password: nats.password, "a text",
        "Password of `nats_user`.";
    #[secret]
    nats_token: nats.token, "a text",
        "Token to authenticate with.";
    nats_creds: nats.creds, "a path",
        "A .creds file (JWT and NKey seed), read at each connect.";
    #[secret]
    nats_nkey_seed: nats.nkey_seed, "a text",
        "NKey seed to authenticate with.";
    nats_tls_required: nats.tls_required, "true or false",
        "Whether servers without TLS are refused.";
    nats_tls_first: nats.tls_first, "true or false",
        "Whether the TLS handshake precedes the server's greeting (handshake_first). Requires TLS.";
    nats_tls_ca: nats.tls_ca, "paths, separated by commas",
        "PEM files of the trusted authorities, instead of the system's. Requires TLS.";
    nats_tls_cert: nats.tls_cert, "a path",
        "PEM file of the client's certificate, with `nats_tls_key`. Requires TLS.";
    nats_tls_key: nats.tls_key, "a path",
        "PEM file of the client's key, with `nats_tls_cert`.";
    nats_domain: nats.domain, "a text",
        "JetStream domain. Empty: the server's own.";
    nats_api_prefix: nats.api_prefix, "a subject; not with nats_domain",
        "Subject prefix under which another account's JetStream API and $KV are imported.";
    nats_inbox_prefix: nats.inbox_prefix, "a subject",
        "What the subjects begin with on which replies and changes arrive.";
    nats_placement_cluster: nats.placement_cluster, "a text",
        "Cluster that keeps the buckets that divvy creates. Empty: the server's own.";
    nats_placement_tags: nats.placement_tags, "tags, separated by commas",
        "Tags of the servers that keep the buckets that divvy creates.";
    nats_replicas: nats.replicas, "1 to 5",
        "Copies of each bucket that divvy creates.";
    nats_storage: nats.storage, "file or memory",
        "Where the server keeps the buckets that divvy creates.";
    nats_max_bytes: nats.max_bytes, "0 or more",
        "Most bytes that each bucket that divvy creates may hold. 0: no limit.";
    nats_manage_buckets: nats.manage_buckets, "create, upgrade or never",
        "What divvy may do to buckets: create missing ones, upgrade existing ones as well, or neither.";
    nats_stale_limit: nats.stale_limit, "1s or more",
        "How long a connection may be silent before it is replaced.";
    nats_connect_timeout: nats.connect_timeout, "above 0",
        "How long one server may take to accept a connection.";
}

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
    /// The type, as the documentation calls it.
    const KIND: &'static str;
    fn read(text: &str) -> Result<Self, String>;
    fn show(&self) -> String;
    /// Overwrites what may be a secret.
    fn wipe(&mut self) {}
}

impl Text for String {
    const KIND: &'static str = "text";

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
    const KIND: &'static str = "path";

    fn read(text: &str) -> Result<Self, String> {
        Ok((!text.is_empty()).then(|| text.into()))
    }
    fn show(&self) -> String {
        let path = self.as_ref().map(|path| path.display().to_string());
        path.unwrap_or_default()
    }
}

impl Text for Vec<String> {
    const KIND: &'static str = "list";

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
    const KIND: &'static str = "duration";

    fn read(text: &str) -> Result<Self, String> {
        duration::parse(text)
    }
    fn show(&self) -> String {
        duration::format(*self)
    }
}

macro_rules! plain_text {
    ($($type:ty: $kind:literal, $what:literal;)+) => {$(
        impl Text for $type {
            const KIND: &'static str = $kind;

            fn read(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| concat!("is not ", $what).to_owned())
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}
plain_text! {
    bool: "boolean", "true or false";
    f64: "number", "a number";
    i64: "integer", "a whole number";
    u32: "integer", "a whole number of 0 or more";
    u64: "integer", "a whole number of 0 or more";
    usize: "integer", "a whole number of 0 or more";
}

macro_rules! word_text {
    ($($type:ty),+ $(,)?) => {$(
        impl Text for $type {
            const KIND: &'static str = "choice";

            fn read(text: &str) -> Result<Self, String> {
                text.parse()
            }
            fn show(&self) -> String {
                self.name().to_owned()
            }
        }
    )+};
}
word_text!(
    StoreKind,
    ManageBuckets,
    PublishMode,
    StrategyKind,
    OutagePolicy,
    OutagePreset,
    Storage
);

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

//! The table of all named settings, shared by JSON, the environment, the command line and C.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::{Zeroize, Zeroizing};

use super::{NatsSettings, Values};
use crate::time::duration;
use crate::types::WorkerId;
use crate::vocabulary::{
    ManageBuckets, OutagePolicy, OutagePreset, PublishMode, Storage, StoreKind, StrategyKind,
};

/// One setting.
pub struct Key {
    /// Name in lower case, with words joined by `_`. The environment uses the name in upper case.
    pub name: &'static str,
    /// Type of the value, such as `duration`.
    pub kind: &'static str,
    /// Allowed values, and their relation to other settings.
    pub range: &'static str,
    /// Description in Markdown.
    pub help: &'static str,
    /// Whether to mask the value in all output.
    pub is_secret: bool,
    pub(super) show: fn(&Values) -> String,
    pub(super) set: fn(&mut Values, &str) -> Result<(), String>,
}

impl Key {
    /// Returns the default value as text.
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

/// Defines the settings: name, field of [`Values`], range and help. The type and the default come
/// from the field.
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

/// Returns the name of the type of a field of [`Values`].
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
    strict: strict, "true or false",
        "Whether an environment variable with the prefix that names no setting is an error instead of a warning.";
    heartbeat_ttl: calculator.heartbeat_ttl, "above 0, up to 366d; for a manager at least 2 x heartbeat_interval",
        "A worker is suspected if no heartbeat arrives for this long. If not set, it is at least 3 x `heartbeat_interval`.";
    emergency_grace_period: calculator.emergency_grace_period, "above 0, up to 366d; should not exceed heartbeat_ttl",
        "A suspected worker is declared dead after this time. If not set, it follows `heartbeat_ttl`: a manager uses 1.5 x `heartbeat_interval`, at most the TTL.";
    cooldown: calculator.cooldown, "above 0, up to 366d; should not exceed the windows",
        "Minimum time between publications. If not set, it does not exceed the windows. Emergencies, leaves and manual triggers bypass it.";
    initial_delay: calculator.initial_delay, "up to 366d; at most cold_start_window has an effect",
        "How long a fleet that has no plan yet waits for more workers before its first plan. Each join starts the delay again, up to `cold_start_window` after the first worker. 0 disables it.";
    min_workers: calculator.min_workers, "1 or more",
        "A fleet that has no plan yet gets its first one when this many workers are alive.";
    cold_start_window: calculator.cold_start_window, "above 0, up to 366d; should be at least planned_scale_window",
        "How long to wait for more workers after a start without workers, after the first plan of a fleet, and after a mass expiry. If not set, it is at least `planned_scale_window`.";
    planned_scale_window: calculator.planned_scale_window, "above 0, up to 366d; should be at least cooldown",
        "How long to wait for more workers, counted from the first join. If not set, it is between `cooldown` and `cold_start_window`.";
    leave_window: calculator.leave_window, "up to 366d",
        "How long to wait for more leaves, counted from the first.";
    join_coalescing: calculator.join_coalescing, "up to 366d",
        "Joins within this time are reported together.";
    restart_ratio: calculator.restart_ratio, "0 to 1",
        "A loss of more than this fraction of the planned workers within one TTL, and of at least two, is treated as a restart of the fleet.";
    min_rebalance_threshold: calculator.min_rebalance_threshold, "0 or more",
        "A change of weights alone triggers a rebalance if the most loaded worker exceeds the fair level by more than this fraction.";
    max_list_shrink: calculator.max_list_shrink, "0 to 1; 1 disables the check",
        "A partition list that lost more than this fraction, or became empty, is held back until it is confirmed.";
    list_shrink_hold: calculator.list_shrink_hold, "up to 366d",
        "A list that is held back is applied after this time if the source still returns it.";
    default_weight: calculator.default_weight, "1 or more",
        "Weight of a partition whose own weight is 0 or less.";
    recovery_grace: calculator.recovery_grace, "up to 366d",
        "After the watch was lost, a worker cannot be suspected for the TTL plus this time. If not set, it is 2.5 x `heartbeat_ttl`, or 3.3 x or 1.7 x with `outage_preset` conservative or aggressive.";
    apply_timeout: calculator.apply_timeout, "up to 366d",
        "A live worker is reported as lagging if it has not applied its assignment within this time. 0 disables the check.";
    retry_delay_min: calculator.retry_delay_min, "above 0, up to 366d",
        "Delay before the first retry of a failed publication.";
    retry_delay_max: calculator.retry_delay_max, "at least retry_delay_min, up to 366d",
        "Maximum delay between retries of a failed publication.";
    operation_timeout: calculator.operation_timeout, "above 0, up to 366d",
        "Maximum time that one rebalance may spend on store calls. A single call waits for a quarter of it, longer if the store is slow.";
    host_call_timeout: calculator.host_call_timeout, "above 0, up to 366d",
        "A call of your code (partition source, strategy, election, event callback) that takes longer is reported until it returns.";
    source_wait: calculator.source_wait, "up to 366d",
        "How long a rebalance waits for the partition source before it uses the last list.";
    source_refresh_interval: calculator.source_refresh_interval, "up to 366d",
        "The partition source is read again after this time although nothing has changed. 0 disables it.";
    partition_change_window: calculator.partition_change_window, "up to 366d",
        "A changed partition list is published after this time, together with what changes meanwhile.";
    planning_timeout: calculator.planning_timeout, "up to 366d",
        "A leader that cannot make a plan for this long (no list, or the strategy fails or hangs) hands leadership over. 0 disables it.";
    malformed_threshold: calculator.malformed_threshold, "1 or more",
        "The calculator reports that it is degraded after this many malformed values within `malformed_window`.";
    malformed_window: calculator.malformed_window, "above 0, up to 366d",
        "Period over which malformed values are counted.";
    degraded_enter_after: calculator.degraded_enter_after, "up to 366d",
        "A condition is reported as a degradation once it has lasted, or recurred, for this long.";
    degraded_leave_after: calculator.degraded_leave_after, "up to 366d",
        "A reported degradation is cleared once the condition has been healthy for this long.";
    subscriber_backlog: calculator.subscriber_backlog, "1 or more",
        "Maximum number of undelivered events for one subscriber. Its subscription is closed at the limit.";
    former_leader_lease_over: calculator.former_leader_lease_over, "true or false",
        "Whether the host knows that the lease of the former leader has expired. If its heartbeat is absent too, the former leader is then declared dead immediately.";
    publish_mode: calculator.publish_mode, "auto, atomic or per_key",
        "How assignments are published: `atomic` uses batches, `per_key` uses one conditional write per key, and `auto` selects by what the server supports.";
    publish_batch_max: calculator.publish_batch_max, "2 or more",
        "Maximum number of writes in one atomic batch. The server may have a lower limit.";
    allow_assignment_ttl: calculator.allow_assignment_ttl, "true or false",
        "Whether to accept an assignment bucket with a TTL. Fence and versions then expire with the TTL.";
    shadow: calculator.shadow, "true or false",
        "Whether to run as a shadow of the live leader: it writes nothing and reports what it would have published.";
    strategy: strategy, "sticky, round_robin, consistent_hash or weighted_consistent_hash",
        "How partitions are divided among the workers.";
    tolerance: strategy_options.tolerance, "0 to 1",
        "Strategy sticky: how far loads may be from the fair level, as a fraction of it, before partitions move for balance.";
    movement_budget: strategy_options.movement_budget, "0 to 1; 1 disables the limit",
        "Strategy sticky: fraction of all weight that one plan may move in addition to partitions without a live owner. The rest moves in later plans.";
    capacity: strategy_options.capacity, "worker=capacity, separated by commas; 0.001 to 1000 each",
        "Strategy sticky: capacity of workers relative to the others. A worker that is not listed has 1.";
    hash_seed: strategy_options.hash_seed, "0 or more",
        "Hashing strategies: seed of all hashes. Must be the same in the whole fleet.";
    virtual_nodes: strategy_options.virtual_nodes, "1 to 10000",
        "Hashing strategies: virtual nodes per worker.";
    overload_threshold: strategy_options.overload_threshold, "1.15 or more",
        "Strategy weighted_consistent_hash: load, as a multiple of the mean, above which a worker is skipped.";
    extreme_threshold: strategy_options.extreme_threshold, "1.5 or more",
        "Strategy weighted_consistent_hash: weight, as a multiple of the mean, above which partitions are assigned in turn.";
    worker_id_prefix: manager.worker_id_prefix, "letters, digits and - / _ = in parts joined by dots, at most 200 bytes",
        "Prefix of the worker ids: `worker` for `worker-7`.";
    worker_id_min: manager.worker_id_min, "0 or more",
        "Lowest number of a worker id.";
    worker_id_max: manager.worker_id_max, "at least worker_id_min; at most 10000 ids",
        "Highest number of a worker id.";
    instance: manager.instance, "letters, digits and - / _ = in parts joined by dots, at most 253 bytes; or @hostname, @pod",
        "Identity of the process that survives its restart, different for each process of a fleet. A process takes over at once the id of a former process with the same instance. `@hostname`: the name of the host; `@pod`: the environment variable `POD_NAME`. Empty: none.";
    worker_id_ttl: manager.worker_id_ttl, "at least 3 x heartbeat_interval and heartbeat_ttl, up to 366d",
        "A claim of a worker id expires if it is not renewed for this long.";
    heartbeat_interval: manager.heartbeat_interval, "above 0, up to 366d",
        "Time between heartbeats. If not set, at most a third of `heartbeat_ttl`.";
    election_timeout: manager.election_timeout, "above 0, up to 366d",
        "The leader's lease expires if it is not renewed for this long.";
    may_lead: manager.may_lead, "true or false",
        "Whether this worker may become the leader.";
    outage_policy: manager.outage_policy, "serve or strict",
        "What a worker does with its partitions while it cannot reach the store: `serve` keeps them, `strict` releases them.";
    outage_preset: outage_preset, "conservative, balanced or aggressive",
        "Sets the default of `recovery_grace` and of every other `outage_…` time and count.";
    outage_enter_after: manager.outage.enter_after, "above 0, up to 366d",
        "Degraded mode begins once the store has been unhealthy for this long.";
    outage_leave_after: manager.outage.leave_after, "above 0, up to 366d",
        "Degraded mode ends once the store has been healthy for this long.";
    outage_errors_max: manager.outage.errors_max, "1 or more",
        "Degraded mode begins after this many failed requests within `outage_error_window`.";
    outage_error_window: manager.outage.error_window, "above 0, up to 366d",
        "Period over which `outage_errors_max` counts failed requests.";
    cache_file: manager.cache_file, "a path; not with outage_policy strict",
        "File that caches the assignment, so that a worker can start while the store is unreachable. Empty: no cache. Each worker needs its own file.";
    cache_max_age: manager.cache_max_age, "1s or more, up to 366d",
        "The content of `cache_file` is valid for this long after the store last confirmed it.";
    store: store, "nats or memory",
        "Store that coordinates the fleet. `memory` is for demos, tests and fleets within one process.";
    stable_id_bucket: nats.stable_id_bucket, "a bucket name",
        "Bucket of the stable ids.";
    election_bucket: nats.election_bucket, "a bucket name",
        "Bucket of the leader's lease.";
    heartbeat_bucket: nats.heartbeat_bucket, "a bucket name",
        "Bucket of the heartbeats.";
    assignment_bucket: nats.assignment_bucket, "a bucket name",
        "Bucket of the assignments, the fence and the commit record.";
    metrics_namespace: metrics.namespace, "letters, digits and _",
        "Prefix of all metric names.";
    metrics_labels: metrics.labels, "name=value, separated by commas",
        "Labels of all metrics. Handles that share a page need different labels.";
    metrics_parti_names: metrics.parti_names, "true or false",
        "Whether to export metrics under parti's names as well.";
    nats_url: nats.urls, "nats://host:port, tls://host:port or host:port, separated by commas",
        "Addresses of the servers.";
    nats_name: nats.name, "a text",
        "Client name that the server shows to its operators.";
    nats_user: nats.user, "a text",
        "User name, with `nats_password`. At most one of `nats_user`, `nats_token`, `nats_creds` and `nats_nkey_seed` may be set.";
    #[secret]
    nats_password: nats.password, "a text",
        "Password of `nats_user`.";
    #[secret]
    nats_token: nats.token, "a text",
        "Authentication token.";
    nats_creds: nats.creds, "a path",
        "Credentials file (.creds: JWT and NKey seed), read at each connect.";
    #[secret]
    nats_nkey_seed: nats.nkey_seed, "a text",
        "NKey seed for authentication.";
    nats_tls_required: nats.tls_required, "true or false",
        "Whether to reject servers without TLS.";
    nats_tls_first: nats.tls_first, "true or false",
        "Whether to start the TLS handshake before the server's INFO (handshake_first). Requires TLS.";
    nats_tls_ca: nats.tls_ca, "paths, separated by commas",
        "PEM files of the trusted certificate authorities. Empty: those of the system. Requires TLS.";
    nats_tls_cert: nats.tls_cert, "a path",
        "PEM file of the client certificate, with `nats_tls_key`. Requires TLS.";
    nats_tls_key: nats.tls_key, "a path",
        "PEM file of the client key, with `nats_tls_cert`.";
    nats_domain: nats.domain, "a text",
        "JetStream domain. Empty: the default domain of the server.";
    nats_api_prefix: nats.api_prefix, "a subject; not with nats_domain",
        "Subject prefix under which another account's JetStream API and $KV are imported.";
    nats_inbox_prefix: nats.inbox_prefix, "a subject",
        "Prefix of the subjects for replies and changes.";
    nats_placement_cluster: nats.placement_cluster, "a text",
        "Cluster for the buckets that divvy creates. Empty: the cluster of the server.";
    nats_placement_tags: nats.placement_tags, "tags, separated by commas",
        "Server tags for the buckets that divvy creates.";
    nats_replicas: nats.replicas, "1 to 5",
        "Replicas of each bucket that divvy creates.";
    nats_storage: nats.storage, "file or memory",
        "Storage type of the buckets that divvy creates.";
    nats_max_bytes: nats.max_bytes, "0 or more",
        "Size limit in bytes of each bucket that divvy creates. 0: no limit.";
    nats_manage_buckets: nats.manage_buckets, "create, upgrade or never",
        "What divvy may do to buckets: `create` missing ones, also `upgrade` existing ones, or `never` change any.";
    nats_stale_limit: nats.stale_limit, "1s or more",
        "A connection without any data from the server for this long is replaced.";
    nats_connect_timeout: nats.connect_timeout, "above 0",
        "Time limit for connecting to one server, including TLS and authentication.";
}

/// Returns the setting with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Returns the name most similar to an unknown one, or `None` if none is similar.
#[must_use]
pub fn nearest(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    let by_likeness = |key: &&Key| strsim::jaro_winkler(&lower, key.name);
    let best = KEYS
        .iter()
        .max_by(|a, b| by_likeness(a).total_cmp(&by_likeness(b)))?;
    (by_likeness(&best) > 0.75).then_some(best.name)
}

/// A value that is parsed from text and formatted as text.
trait Text: Sized {
    /// Name of the type in the documentation.
    const KIND: &'static str;
    fn read(text: &str) -> Result<Self, String>;
    fn show(&self) -> String;
    /// Overwrites the memory of a secret.
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

impl Text for Option<Duration> {
    const KIND: &'static str = Duration::KIND;

    fn read(text: &str) -> Result<Self, String> {
        duration::parse(text).map(Some)
    }
    fn show(&self) -> String {
        self.map(duration::format).unwrap_or_default()
    }
}

impl Text for BTreeMap<WorkerId, f64> {
    const KIND: &'static str = "list";

    fn read(text: &str) -> Result<Self, String> {
        let entries = Vec::<String>::read(text)?;
        let entries = entries.iter().map(|entry| {
            let (id, number) = entry.rsplit_once('=').ok_or("is not worker=number")?;
            let id = WorkerId::new(id.trim()).map_err(|error| error.message().to_owned())?;
            let number = number.trim().parse();
            Ok((id, number.map_err(|_| "is not worker=number")?))
        });
        entries.collect()
    }
    fn show(&self) -> String {
        let entries = self.iter().map(|(id, number)| format!("{id}={number}"));
        entries.collect::<Vec<_>>().join(",")
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

/// Formats the value of a setting with secrets masked, including credentials in URLs.
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

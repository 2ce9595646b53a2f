//! From settings to a connected store.

use std::sync::Arc;
#[cfg(feature = "nats")]
use std::time::Duration;
use std::time::Instant;

use crate::error::{Code, Error, Result};
use crate::settings::Settings;
use crate::store::Store;
use crate::store::memory::MemoryStore;
use crate::vocabulary::StoreKind;

/// How long a worker with a cache file waits for the server before it uses the cache.
#[cfg(feature = "nats")]
const CACHED_TIMEOUT: Duration = Duration::from_millis(500);

/// Opens the store that the setting `store` names: connects to NATS, or creates one in memory.
///
/// # Errors
/// As [`connect_nats`].
pub fn open_store(settings: &Settings, deadline: Instant) -> Result<Arc<dyn Store>> {
    match settings.store() {
        StoreKind::Nats => connect_nats(settings, deadline),
        StoreKind::Memory => Ok(Arc::new(MemoryStore::new())),
    }
}

/// Connects to NATS as the settings `nats_*` and `*_bucket` say. Blocks until the first
/// connection works or the deadline passes; with a `cache_file` for half a second at most, and
/// then continues to connect in the background, so that the file can be served meanwhile.
///
/// # Errors
/// `InvalidConfig`, `Unauthorized`, `Unavailable`, `TimedOut`, `Unsupported` (also when this build
/// has no NATS). With a `cache_file`, servers that cannot be reached are no error.
#[cfg(feature = "nats")]
pub fn connect_nats(settings: &Settings, deadline: Instant) -> Result<Arc<dyn Store>> {
    connect_with(nats_options(settings.nats())?, settings, deadline)
}

/// As [`connect_nats`], with credentials that `supply` returns for the nonce of each login.
///
/// # Errors
/// As [`connect_nats`]; `InvalidConfig` if the settings contain credentials, too.
#[cfg(all(feature = "capi", feature = "nats"))]
pub(crate) fn connect_nats_with_credentials(
    settings: &Settings,
    supply: impl Fn(&[u8]) -> std::result::Result<crate::store::nats::NatsCredentials, String>
    + Send
    + Sync
    + 'static,
    deadline: Instant,
) -> Result<Arc<dyn Store>> {
    let nats = settings.nats();
    let kinds = [&nats.user, &nats.token, &nats.creds, &nats.nkey_seed];
    if kinds.into_iter().any(|text| !text.is_empty()) {
        return Err(Error::new(
            Code::InvalidConfig,
            "nats_user, nats_token, nats_creds, nats_nkey_seed: set none of them together with a \
             credentials callback",
        ));
    }
    let options = nats_options(nats)?.credentials_callback(supply);
    connect_with(options, settings, deadline)
}

#[cfg(feature = "nats")]
fn connect_with(
    options: crate::store::nats::NatsOptions,
    settings: &Settings,
    deadline: Instant,
) -> Result<Arc<dyn Store>> {
    use crate::store::nats::NatsStore;
    if settings.manager().cache_file.is_none() {
        return Ok(Arc::new(NatsStore::connect(options, deadline)?));
    }
    let store = NatsStore::open(options)?;
    // Otherwise a slow server would be treated as unreachable.
    match store.wait_connected(deadline.min(Instant::now() + CACHED_TIMEOUT)) {
        Err(error) if !error.is_retriable() => Err(error),
        _ => Ok(Arc::new(store)),
    }
}

/// Returns the options that the settings `nats_*` and `*_bucket` stand for.
///
/// # Errors
/// `InvalidConfig` for settings that exclude each other.
#[cfg(feature = "nats")]
pub fn nats_options(
    nats: &crate::settings::NatsSettings,
) -> Result<crate::store::nats::NatsOptions> {
    use crate::store::Bucket;
    use crate::store::nats::{NatsOptions, Placement};
    let is_set = |text: &String| !text.is_empty();
    let kinds = [&nats.user, &nats.token, &nats.creds, &nats.nkey_seed];
    if kinds.into_iter().filter(|text| is_set(text)).count() > 1 {
        return Err(Error::new(
            Code::InvalidConfig,
            "nats_user, nats_token, nats_creds, nats_nkey_seed: set only one of them",
        ));
    }
    if is_set(&nats.tls_cert) != is_set(&nats.tls_key) {
        return Err(Error::new(
            Code::InvalidConfig,
            "nats_tls_cert, nats_tls_key: set both or none",
        ));
    }
    let mut options = NatsOptions::new(nats.urls.iter().cloned())
        .name(&nats.name)
        .tls_required(nats.tls_required)
        .tls_first(nats.tls_first)
        .inbox_prefix(&nats.inbox_prefix)
        .placement(Placement {
            cluster: nats.placement_cluster.clone(),
            tags: nats.placement_tags.clone(),
        })
        .replicas(nats.replicas)
        .storage(nats.storage)
        .manage_buckets(nats.manage_buckets)
        .stale_limit(nats.stale_limit)
        .connect_timeout(nats.connect_timeout)
        .fleet(&nats.fleet)
        .bucket_name(Bucket::StableId, &nats.stable_id_bucket)
        .bucket_name(Bucket::Election, &nats.election_bucket)
        .bucket_name(Bucket::Heartbeat, &nats.heartbeat_bucket)
        .bucket_name(Bucket::Assignment, &nats.assignment_bucket);
    if is_set(&nats.user) {
        options = options.user_password(&nats.user, &nats.password);
    }
    if is_set(&nats.token) {
        options = options.token(&nats.token);
    }
    if is_set(&nats.creds) {
        options = options.credentials_file(&nats.creds);
    }
    if is_set(&nats.nkey_seed) {
        options = options.nkey_seed(&nats.nkey_seed);
    }
    for authority in &nats.tls_ca {
        options = options.tls_ca(authority);
    }
    if is_set(&nats.tls_cert) {
        options = options.tls_identity(&nats.tls_cert, &nats.tls_key);
    }
    if is_set(&nats.domain) {
        options = options.domain(&nats.domain);
    }
    if is_set(&nats.api_prefix) {
        options = options.api_prefix(&nats.api_prefix);
    }
    if nats.max_bytes > 0 {
        options = options.max_bytes(nats.max_bytes);
    }
    Ok(options)
}

/// Connects to NATS with the settings `nats_*` and `*_bucket`. Blocks until the first connection
/// succeeds or the deadline passes. With a `cache_file` it blocks for at most half a second and
/// then continues to connect in the background.
///
/// # Errors
/// `InvalidConfig`, `Unauthorized`, `Unavailable`, `TimedOut`, `Unsupported` (also when this build
/// has no NATS).
#[cfg(not(feature = "nats"))]
pub fn connect_nats(_settings: &Settings, _deadline: Instant) -> Result<Arc<dyn Store>> {
    Err(Error::new(
        Code::Unsupported,
        "this build of divvy has no NATS; build it with the feature `nats`",
    ))
}

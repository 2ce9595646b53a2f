//! The options of a NATS store: servers, credentials, buckets.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use zeroize::{Zeroize, Zeroizing};

use super::client::address::Address;
use super::client::auth::{Auth, NatsCredentials, is_user_seed};
use super::client::connection::Dial;
use super::client::tls::TlsSettings;
use super::jetstream::DEFAULT_API;
use crate::error::{Code, Error, Result};
use crate::store::{Bucket, ManageBuckets};
pub use crate::vocabulary::Storage;

/// Placement of a bucket: the servers of a supercluster that may store it. Empty: any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Name of the cluster. Empty: the cluster of the server that creates the bucket.
    pub cluster: String,
    /// Tags that every server must have.
    pub tags: Vec<String>,
}

impl Placement {
    pub(super) fn is_empty(&self) -> bool {
        self.cluster.is_empty() && self.tags.is_empty()
    }
}

/// Options of a [`NatsStore`]: servers, credentials and buckets.
///
/// [`NatsStore::connect`] checks all options and reports every violation. `Debug` omits secrets.
///
/// [`NatsStore`]: super::NatsStore
/// [`NatsStore::connect`]: super::NatsStore::connect
#[derive(Clone)]
pub struct NatsOptions {
    pub(super) urls: Vec<String>,
    pub(super) name: String,
    pub(super) auth: Auth,
    pub(super) tls: TlsSettings,
    pub(super) inbox_prefix: String,
    pub(super) fleet: String,
    pub(super) buckets: [String; 4],
    pub(super) replicas: u32,
    pub(super) storage: Storage,
    pub(super) max_bytes: Option<u64>,
    pub(super) placement: Placement,
    pub(super) manage_buckets: ManageBuckets,
    pub(super) domain: Option<String>,
    pub(super) api_prefix: Option<String>,
    pub(super) stale_limit: Duration,
    pub(super) connect_timeout: Duration,
}

impl Drop for NatsOptions {
    /// URLs may contain credentials.
    fn drop(&mut self) {
        self.urls.zeroize();
    }
}

impl Default for NatsOptions {
    /// The server `nats://127.0.0.1:4222`, no credentials, parti's buckets.
    fn default() -> Self {
        Self {
            urls: vec!["nats://127.0.0.1:4222".to_owned()],
            name: "divvy".to_owned(),
            auth: Auth::Anonymous,
            tls: TlsSettings::default(),
            inbox_prefix: "_INBOX".to_owned(),
            fleet: String::new(),
            buckets: Bucket::ALL.map(|bucket| bucket.default_name().to_owned()),
            replicas: 1,
            storage: Storage::File,
            max_bytes: None,
            placement: Placement::default(),
            manage_buckets: ManageBuckets::Create,
            domain: None,
            api_prefix: None,
            stale_limit: Duration::from_millis(2_500),
            connect_timeout: Duration::from_secs(2),
        }
    }
}

impl NatsOptions {
    /// Returns options for one or more servers of one cluster: `nats://host:port`,
    /// `tls://host:port` or `host:port`. The cluster advertises its other servers.
    ///
    /// A URL may contain percent-encoded credentials before the host, `user:password@` or `token@`.
    /// For this server and the servers that it advertises, they replace the credentials set here.
    pub fn new<U: Into<String>>(urls: impl IntoIterator<Item = U>) -> Self {
        let mut options = Self::default();
        options.urls = urls.into_iter().map(Into::into).collect();
        options
    }

    /// Sets the client name that the server shows to its operators. Default: `divvy`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Authenticates with user and password. The last credentials set replace earlier ones.
    #[must_use]
    pub fn user_password(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.auth = Auth::UserPassword(user.into(), Zeroizing::new(password.into()));
        self
    }

    /// Authenticates with a token.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.auth = Auth::Token(Zeroizing::new(token.into()));
        self
    }

    /// Authenticates with a `.creds` file (JWT and NKey seed), read at each connect.
    #[must_use]
    pub fn credentials_file(mut self, path: impl AsRef<Path>) -> Self {
        self.auth = Auth::Credentials(path.as_ref().to_owned());
        self
    }

    /// Authenticates with an NKey, given as its seed (`SU...`).
    #[must_use]
    pub fn nkey_seed(mut self, seed: impl Into<String>) -> Self {
        self.auth = Auth::Nkey(Zeroizing::new(seed.into()));
        self
    }

    /// Authenticates with the credentials that `callback` returns at each connect for the nonce of
    /// the server. The nonce is empty if the server sends none.
    ///
    /// The callback runs on the thread of the connection. Until it returns, the store has no
    /// connection, and [`Store::stop`](crate::store::Store::stop) waits for it. An error or a panic
    /// counts as rejected credentials.
    #[must_use]
    pub fn credentials_callback(
        mut self,
        callback: impl Fn(&[u8]) -> std::result::Result<NatsCredentials, String> + Send + Sync + 'static,
    ) -> Self {
        self.auth = Auth::Callback(Arc::new(callback));
        self
    }

    /// Sets the subject prefix for replies and changes. Default: `_INBOX`. The client needs the
    /// permission to subscribe to `<prefix>.>`.
    #[must_use]
    pub fn inbox_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.inbox_prefix = prefix.into();
        self
    }

    /// Rejects servers without TLS, whatever the scheme of the URL. Default: off, but implied by
    /// [`NatsOptions::tls_ca`], [`NatsOptions::tls_identity`] and [`NatsOptions::tls_first`].
    #[must_use]
    pub fn tls_required(mut self, required: bool) -> Self {
        self.tls.required = required;
        self
    }

    /// Starts the TLS handshake before the server sends INFO, for servers with `handshake_first`.
    /// Default: off. If TLS is required and a server does not send INFO within a quarter of the
    /// connect timeout, the handshake starts without this setting too.
    #[must_use]
    pub fn tls_first(mut self, first: bool) -> Self {
        self.tls.first = first;
        self
    }

    /// Trusts the certificate authorities in this PEM file instead of those of the system. Call it
    /// again to add more files. Read at each connect.
    #[must_use]
    pub fn tls_ca(mut self, pem: impl AsRef<Path>) -> Self {
        self.tls.authorities.push(pem.as_ref().to_owned());
        self
    }

    /// Sets the PEM files of the client certificate and its key, for servers that verify clients.
    /// Read at each connect.
    #[must_use]
    pub fn tls_identity(mut self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.tls.identity = Some((certificate.as_ref().to_owned(), key.as_ref().to_owned()));
        self
    }

    /// Sets the name of the fleet (1 to 60 letters, digits, `-` and `_`) and thereby its four
    /// buckets `divvy-<fleet>-…`. A worker does not join the buckets of a fleet with another name.
    /// Default: no name and parti's bucket names, which fleets with parti workers need.
    #[must_use]
    pub fn fleet(mut self, name: &str) -> Self {
        self.buckets = Bucket::ALL.map(|bucket| bucket.name_in(name));
        self.fleet = name.to_owned();
        self
    }

    /// Sets the name of a bucket. Default: [`Bucket::default_name`].
    #[must_use]
    pub fn bucket_name(mut self, bucket: Bucket, name: impl Into<String>) -> Self {
        self.buckets[bucket as usize] = name.into();
        self
    }

    /// Sets the replicas of created buckets, 1 to 5. Default: 1. Use 3 in a cluster.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// Sets the storage type of created buckets. Default: [`Storage::File`].
    #[must_use]
    pub fn storage(mut self, storage: Storage) -> Self {
        self.storage = storage;
        self
    }

    /// Sets the placement of created buckets. Default: any server.
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Sets the size limit of each created bucket in bytes. Default: no limit. Accounts with
    /// `max_bytes_required` reject a bucket without a limit.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Sets whether buckets may be created and upgraded. Default: [`ManageBuckets::Create`].
    #[must_use]
    pub fn manage_buckets(mut self, manage: ManageBuckets) -> Self {
        self.manage_buckets = manage;
        self
    }

    /// Sets the JetStream domain for reads and writes, as reached over a leaf node. Default: the
    /// domain of the server. Excludes [`NatsOptions::api_prefix`].
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Sets the prefix under which the JetStream API of another account is imported, such as
    /// `hub.API` for `{service: {account: HUB, subject: "$JS.API.>"}, to: "hub.API.>"}`. Writes use
    /// `<prefix>.$KV.<bucket>.<key>`, so that account must export `$KV.<bucket>.>` as well. Default:
    /// none. Excludes [`NatsOptions::domain`].
    #[must_use]
    pub fn api_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.api_prefix = Some(prefix.into());
        self
    }

    /// Sets how long a connection may deliver no data before it is replaced. Default: 2.5 s. At
    /// least 1 s. Keep it below the time between the renewal of a lease and its expiry.
    #[must_use]
    pub fn stale_limit(mut self, limit: Duration) -> Self {
        self.stale_limit = limit;
        self
    }

    /// Sets the time limit for connecting to one server, including TLS and authentication. Default: 2 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Returns the configured servers, without URLs that [`NatsOptions::check`] rejects.
    pub(super) fn addresses(&self) -> Vec<Address> {
        let parsed = self.urls.iter().filter_map(|url| Address::parse(url));
        parsed.collect()
    }

    /// Returns the parameters of a connection that receives replies at `inbox`.
    pub(super) fn dial(&self, inbox: &str) -> Dial {
        Dial {
            name: self.name.clone(),
            auth: self.auth.clone(),
            tls: self.tls.clone(),
            inbox: inbox.to_owned(),
            connect_timeout: self.connect_timeout,
            stale_limit: self.stale_limit,
        }
    }

    /// Returns the stream name of a bucket.
    pub(super) fn stream(&self, bucket: Bucket) -> String {
        format!("KV_{}", self.buckets[bucket as usize])
    }

    /// Returns the subject of a key, or of all keys of the bucket if `key` is `>`.
    pub(super) fn subject(&self, bucket: Bucket, key: &str) -> String {
        format!("$KV.{}.{key}", self.buckets[bucket as usize])
    }

    /// Returns the subject prefix of the JetStream API.
    pub(super) fn api(&self) -> String {
        match (&self.domain, &self.api_prefix) {
            (Some(domain), _) => format!("$JS.{domain}.API"),
            (None, Some(prefix)) => prefix.clone(),
            (None, None) => DEFAULT_API.to_owned(),
        }
    }

    /// Returns the prefix of the subject of a write. A bare `$KV` subject reaches the JetStream of the
    /// connected server, whichever JetStream the API requests reach.
    pub(super) fn write_prefix(&self) -> String {
        match self.api() {
            api if api == DEFAULT_API => String::new(),
            api => format!("{api}."),
        }
    }

    /// Describes the JetStream of these options, for error messages.
    pub(super) fn route(&self) -> String {
        match (&self.domain, &self.api_prefix) {
            (Some(domain), _) => format!("JetStream domain {domain:?}"),
            (None, Some(prefix)) => format!("JetStream API prefix {prefix:?}"),
            (None, None) => "the server's own JetStream".to_owned(),
        }
    }

    /// Checks all options.
    ///
    /// # Errors
    /// `InvalidConfig` with the field, value and rule of every violation.
    pub(super) fn check(&self) -> Result<()> {
        let mut faults = Vec::new();
        let mut rule = |holds: bool, fault: String| {
            if !holds {
                faults.push(fault);
            }
        };
        rule(
            !self.urls.is_empty(),
            "urls: empty; give at least one".into(),
        );
        for url in &self.urls {
            rule(
                Address::parse(url).is_some(),
                format!(
                    "urls: {:?} is not nats://host:port, tls://host:port or host:port",
                    redacted(url)
                ),
            );
        }
        self.check_names(&mut rule);
        if let Some(domain) = &self.domain {
            rule(
                is_token(domain),
                format!("domain: {domain:?}; use letters, digits, - and _"),
            );
        }
        if let Some(prefix) = &self.api_prefix {
            rule(
                !prefix.is_empty() && prefix.split('.').all(is_prefix_token),
                format!(
                    "api_prefix: {prefix:?}; use words joined by dots, without a dot at the end"
                ),
            );
            rule(
                self.domain.is_none(),
                format!("api_prefix: {prefix:?} is set as well as domain; set only one"),
            );
        }
        rule(
            (1..=5).contains(&self.replicas),
            format!("replicas: {} is not 1 to 5", self.replicas),
        );
        rule(
            self.stale_limit >= Duration::from_secs(1),
            format!("stale_limit: {:?} is less than 1s", self.stale_limit),
        );
        rule(
            self.connect_timeout >= Duration::from_millis(10),
            format!(
                "connect_timeout: {:?} is less than 10ms",
                self.connect_timeout
            ),
        );
        rule(
            !self.name.chars().any(char::is_control),
            "name: contains a control character".into(),
        );
        let inbox = &self.inbox_prefix;
        rule(
            inbox.len() <= 200 && inbox.split('.').all(is_token),
            format!("inbox_prefix: {inbox:?}; use letters, digits, - and _, separated by dots"),
        );
        rule(
            self.max_bytes
                .is_none_or(|limit| (1..=i64::MAX as u64).contains(&limit)),
            format!(
                "max_bytes: {} is not 1 to 2^63-1",
                self.max_bytes.unwrap_or_default()
            ),
        );
        let is_plain = |text: &String| !text.chars().any(char::is_control) && text.len() <= 200;
        let placement = &self.placement;
        rule(
            is_plain(&placement.cluster)
                && placement
                    .tags
                    .iter()
                    .all(|tag| is_plain(tag) && !tag.is_empty()),
            format!("placement: {placement:?}; use a cluster name or non-empty tags"),
        );
        if let Auth::Nkey(seed) = &self.auth {
            rule(
                is_user_seed(seed),
                "nkey_seed: not the NKey seed of a user (value not shown)".into(),
            );
        }
        if faults.is_empty() {
            return Ok(());
        }
        Err(Error::new(Code::InvalidConfig, faults.join("; ")).with_operation("connect"))
    }

    fn check_names(&self, rule: &mut impl FnMut(bool, String)) {
        rule(
            self.fleet.is_empty() || is_token(&self.fleet) && self.fleet.len() <= 60,
            format!(
                "fleet: {:?}; use at most 60 of letters, digits, - and _",
                self.fleet
            ),
        );
        for (bucket, name) in Bucket::ALL.iter().zip(&self.buckets) {
            rule(
                is_token(name),
                format!(
                    "bucket name of {bucket:?}: {name:?}; use 1 to 200 of letters, digits, - and _"
                ),
            );
        }
        for (index, name) in self.buckets.iter().enumerate() {
            rule(
                !self.buckets[..index].contains(name),
                format!("bucket names: {name:?} is used by two buckets"),
            );
        }
    }
}

impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<_> = self.urls.iter().map(|url| redacted(url)).collect();
        f.debug_struct("NatsOptions")
            .field("urls", &urls)
            .field("name", &self.name)
            .field("auth", &self.auth.kind())
            .field("tls", &self.tls)
            .field("inbox_prefix", &self.inbox_prefix)
            .field("fleet", &self.fleet)
            .field("buckets", &self.buckets)
            .field("replicas", &self.replicas)
            .field("storage", &self.storage)
            .field("max_bytes", &self.max_bytes)
            .field("placement", &self.placement)
            .field("manage_buckets", &self.manage_buckets)
            .field("domain", &self.domain)
            .field("api_prefix", &self.api_prefix)
            .field("stale_limit", &self.stale_limit)
            .field("connect_timeout", &self.connect_timeout)
            .finish()
    }
}

/// Returns a URL without its credentials.
fn redacted(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((before, host)) => match before.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://***@{host}"),
            None => format!("***@{host}"),
        },
        None => url.to_owned(),
    }
}

fn is_token(text: &str) -> bool {
    (1..=200).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Returns whether the text is a valid token of a subject, such as `$JS`.
fn is_prefix_token(text: &str) -> bool {
    is_token(text.strip_prefix('$').unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_violation_is_reported_with_field_value_and_rule() {
        let error = NatsOptions::new(["http://a", "nats://ok:4222"])
            .bucket_name(Bucket::Heartbeat, "a.b")
            .bucket_name(Bucket::Election, "same")
            .bucket_name(Bucket::StableId, "same")
            .replicas(9)
            .stale_limit(Duration::from_millis(1))
            .inbox_prefix("a..b")
            .max_bytes(0)
            .nkey_seed("SUNOTASEED")
            .check()
            .unwrap_err();
        assert_eq!(error.code(), Code::InvalidConfig);
        let text = error.to_string();
        for part in [
            "urls: \"http://a\"",
            "bucket name of Heartbeat: \"a.b\"",
            "\"same\" is used by two buckets",
            "replicas: 9 is not 1 to 5",
            "stale_limit: 1ms",
            "inbox_prefix: \"a..b\"",
            "max_bytes: 0",
            "nkey_seed",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("SUNOTASEED"));
        assert!(NatsOptions::default().check().is_ok());
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let options = NatsOptions::new(["nats://joe:s3cret@host:4222"]);
        for options in [
            options.clone().user_password("joe", "s3cret"),
            options.clone().token("s3cret"),
            options.nkey_seed("s3cret"),
        ] {
            let text = format!("{options:?}");
            assert!(!text.contains("s3cret"), "{text}");
            assert!(text.contains("host:4222"), "{text}");
        }
    }
}

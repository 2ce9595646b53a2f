//! What a NATS store is told: where, as whom, with which buckets.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::jetstream::DEFAULT_API;
use crate::error::{Code, Error, Result};
use crate::store::{Bucket, ManageBuckets};

/// Where the server keeps a bucket's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// On disk: survives a restart of the server. The default.
    #[default]
    File,
    /// In memory: a restart of a single server loses the bucket.
    Memory,
}

/// Who the client is.
#[derive(Clone)]
pub(super) enum Auth {
    Anonymous,
    UserPassword(String, String),
    Token(String),
    Credentials(PathBuf),
    Nkey(String),
}

/// How to reach NATS and what to find there.
///
/// Secrets never show in `Debug`. Nothing is checked before [`NatsStore::connect`], which
/// reports every violation at once.
///
/// [`NatsStore::connect`]: super::NatsStore::connect
#[derive(Clone)]
pub struct NatsOptions {
    pub(super) urls: Vec<String>,
    pub(super) name: String,
    pub(super) auth: Auth,
    pub(super) tls_required: bool,
    pub(super) tls_ca: Vec<PathBuf>,
    pub(super) tls_identity: Option<(PathBuf, PathBuf)>,
    pub(super) buckets: [String; 4],
    pub(super) replicas: u32,
    pub(super) storage: Storage,
    pub(super) max_bytes: Option<u64>,
    pub(super) manage_buckets: ManageBuckets,
    pub(super) domain: Option<String>,
    pub(super) api_prefix: Option<String>,
    pub(super) stale_limit: Duration,
    pub(super) connect_timeout: Duration,
}

impl Default for NatsOptions {
    /// The server `nats://127.0.0.1:4222`, no credentials, parti's buckets.
    fn default() -> Self {
        Self {
            urls: vec!["nats://127.0.0.1:4222".to_owned()],
            name: "divvy".to_owned(),
            auth: Auth::Anonymous,
            tls_required: false,
            tls_ca: Vec::new(),
            tls_identity: None,
            buckets: Bucket::ALL.map(|bucket| bucket.default_name().to_owned()),
            replicas: 1,
            storage: Storage::File,
            max_bytes: None,
            manage_buckets: ManageBuckets::Create,
            domain: None,
            api_prefix: None,
            stale_limit: Duration::from_millis(2_500),
            connect_timeout: Duration::from_secs(2),
        }
    }
}

impl NatsOptions {
    /// Options for one or several servers of one cluster: `nats://host:port`, `tls://host:port`
    /// or `host:port`. More are learnt from the cluster.
    pub fn new<U: Into<String>>(urls: impl IntoIterator<Item = U>) -> Self {
        Self {
            urls: urls.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// The client's name as operators see it. Default `divvy`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Authenticates by user and password. The last kind of credentials set counts.
    #[must_use]
    pub fn user_password(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.auth = Auth::UserPassword(user.into(), password.into());
        self
    }

    /// Authenticates by a token.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.auth = Auth::Token(token.into());
        self
    }

    /// Authenticates by a `.creds` file (JWT and NKey seed), read anew at each connect.
    #[must_use]
    pub fn credentials_file(mut self, path: impl AsRef<Path>) -> Self {
        self.auth = Auth::Credentials(path.as_ref().to_owned());
        self
    }

    /// Authenticates by an NKey, given as its seed (`SU...`).
    #[must_use]
    pub fn nkey_seed(mut self, seed: impl Into<String>) -> Self {
        self.auth = Auth::Nkey(seed.into());
        self
    }

    /// Refuses servers without TLS, whatever the URL says. Default off.
    #[must_use]
    pub fn tls_required(mut self, required: bool) -> Self {
        self.tls_required = required;
        self
    }

    /// Trusts the authorities in this PEM file instead of the system's. Can be given repeatedly.
    #[must_use]
    pub fn tls_ca(mut self, pem: impl AsRef<Path>) -> Self {
        self.tls_ca.push(pem.as_ref().to_owned());
        self
    }

    /// The client's own certificate and key, PEM files, for servers that verify their clients.
    #[must_use]
    pub fn tls_identity(mut self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.tls_identity = Some((certificate.as_ref().to_owned(), key.as_ref().to_owned()));
        self
    }

    /// The name of a bucket. Default: [`Bucket::default_name`].
    #[must_use]
    pub fn bucket_name(mut self, bucket: Bucket, name: impl Into<String>) -> Self {
        self.buckets[bucket as usize] = name.into();
        self
    }

    /// Copies of each bucket that is created, 1 to 5. Default 1; 3 is advised in a cluster.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// Where created buckets keep their data. Default [`Storage::File`].
    #[must_use]
    pub fn storage(mut self, storage: Storage) -> Self {
        self.storage = storage;
        self
    }

    /// Most bytes that each created bucket may hold. Default: no limit. Accounts with
    /// `max_bytes_required` refuse a bucket without one.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// What may be done to the buckets. Default [`ManageBuckets::Create`].
    #[must_use]
    pub fn manage_buckets(mut self, manage: ManageBuckets) -> Self {
        self.manage_buckets = manage;
        self
    }

    /// The JetStream domain to work in, as reached over a leaf node. Reads and writes both go
    /// there. Default: the server's own. Excludes [`NatsOptions::api_prefix`].
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// The prefix under which another account's JetStream is imported, such as `hub.API` for
    /// `{service: {account: HUB, subject: "$JS.API.>"}, to: "hub.API.>"}`. Writes go to
    /// `<prefix>.$KV.<bucket>.<key>`, so that account has to export `$KV.<bucket>.>` as well.
    /// Default: none. Excludes [`NatsOptions::domain`].
    #[must_use]
    pub fn api_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.api_prefix = Some(prefix.into());
        self
    }

    /// How long a connection may be silent before it is given up and replaced. Default 2.5 s,
    /// at least 1 s; must be below the time between a lease's renewal and its end.
    #[must_use]
    pub fn stale_limit(mut self, limit: Duration) -> Self {
        self.stale_limit = limit;
        self
    }

    /// How long one server may take to accept a connection and to say who it is. Default 2 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The name of a bucket's stream.
    pub(super) fn stream(&self, bucket: Bucket) -> String {
        format!("KV_{}", self.buckets[bucket as usize])
    }

    /// The subject under which a key is stored, or everything in the bucket when `key` is `>`.
    pub(super) fn subject(&self, bucket: Bucket, key: &str) -> String {
        format!("$KV.{}.{key}", self.buckets[bucket as usize])
    }

    /// The first part of the subjects of the JetStream API.
    pub(super) fn api(&self) -> String {
        match (&self.domain, &self.api_prefix) {
            (Some(domain), _) => format!("$JS.{domain}.API"),
            (None, Some(prefix)) => prefix.clone(),
            (None, None) => DEFAULT_API.to_owned(),
        }
    }

    /// What comes before the subject of a key when it is written. A bare `$KV` subject reaches the
    /// JetStream of the server that we are connected to, whichever one the API requests reach.
    pub(super) fn write_prefix(&self) -> String {
        match self.api() {
            api if api == DEFAULT_API => String::new(),
            api => format!("{api}."),
        }
    }

    /// Names the JetStream that the options lead to, for error messages.
    pub(super) fn route(&self) -> String {
        match (&self.domain, &self.api_prefix) {
            (Some(domain), _) => format!("JetStream domain {domain:?}"),
            (None, Some(prefix)) => format!("JetStream API prefix {prefix:?}"),
            (None, None) => "the server's own JetStream".to_owned(),
        }
    }

    /// Checks every rule.
    ///
    /// # Errors
    /// `InvalidConfig`, naming field, value and rule of each violation.
    pub(super) fn check(&self) -> Result<()> {
        let mut faults = Vec::new();
        let mut rule = |holds: bool, fault: String| {
            if !holds {
                faults.push(fault);
            }
        };
        rule(!self.urls.is_empty(), "urls: at least one is needed".into());
        for url in &self.urls {
            let parsed = url.parse::<nats::ServerAddress>();
            rule(
                parsed.is_ok_and(|address| !address.host().is_empty()),
                format!(
                    "urls: {:?} is not nats://host:port, tls://host:port or host:port",
                    redacted(url)
                ),
            );
        }
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
                format!("bucket names: {name:?} is given to two buckets"),
            );
        }
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
            "name: has a control character".into(),
        );
        if let Auth::Nkey(seed) = &self.auth {
            rule(
                nkeys::KeyPair::from_seed(seed.trim()).is_ok(),
                "nkey_seed: is not a valid NKey seed (value not shown)".into(),
            );
        }
        if faults.is_empty() {
            return Ok(());
        }
        Err(Error::new(Code::InvalidConfig, faults.join("; ")).with_operation("connect"))
    }
}

impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let auth = match &self.auth {
            Auth::Anonymous => "anonymous",
            Auth::UserPassword(..) => "user and password",
            Auth::Token(_) => "token",
            Auth::Credentials(_) => "credentials file",
            Auth::Nkey(_) => "nkey",
        };
        let urls: Vec<_> = self.urls.iter().map(|url| redacted(url)).collect();
        f.debug_struct("NatsOptions")
            .field("urls", &urls)
            .field("name", &self.name)
            .field("auth", &auth)
            .field("tls_required", &self.tls_required)
            .field("tls_ca", &self.tls_ca)
            .field(
                "tls_identity",
                &self.tls_identity.as_ref().map(|(cert, _)| cert),
            )
            .field("buckets", &self.buckets)
            .field("replicas", &self.replicas)
            .field("storage", &self.storage)
            .field("max_bytes", &self.max_bytes)
            .field("manage_buckets", &self.manage_buckets)
            .field("domain", &self.domain)
            .field("api_prefix", &self.api_prefix)
            .field("stale_limit", &self.stale_limit)
            .field("connect_timeout", &self.connect_timeout)
            .finish()
    }
}

/// A URL without its credentials.
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

/// A part of a subject, such as `$JS`.
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
            .nkey_seed("SUNOTASEED")
            .check()
            .unwrap_err();
        assert_eq!(error.code(), Code::InvalidConfig);
        let text = error.to_string();
        for part in [
            "urls: \"http://a\"",
            "bucket name of Heartbeat: \"a.b\"",
            "\"same\" is given to two buckets",
            "replicas: 9 is not 1 to 5",
            "stale_limit: 1ms",
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

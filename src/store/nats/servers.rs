//! Finds the servers of a cluster and checks whether all of them support a stream setting.
//!
//! A server takes a stream offline if it does not know one of its settings. The API level of the
//! stream leader says nothing about the other replicas. The INFO line of each advertised address
//! does: every server sends it, with its version, before authentication.

use std::time::{Duration, Instant};

use super::client::address::Address;
use super::client::info::ServerInfo;
use super::client::read_greeting;
use super::jetstream::{DEFAULT_API, Stream, StreamInfo};
use super::options::NatsOptions;

/// Maximum wait for the INFO line of one server.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of queried addresses. A cluster that advertises more is not fully known.
const ADDRESSES_MAX: usize = 64;

/// A server version, in comparable form.
pub(super) type Version = (u32, u32, u32);

/// One address of a cluster and the server that answered there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerReport {
    /// The address, `host:port`.
    pub address: String,
    /// The name of the server. Empty if it did not answer.
    pub name: String,
    /// The version of the server. Empty if it did not answer.
    pub version: String,
    /// Why it did not answer. `None` if it did.
    pub fault: Option<String>,
}

/// The servers of the cluster that a connection belongs to.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) reports: Vec<ServerReport>,
    /// Why the list may be incomplete.
    gap: Option<String>,
}

impl Servers {
    /// Queries every configured or advertised server. Blocks for up to 2 s per address, and at most
    /// until the deadline.
    pub(super) fn ask(options: &NatsOptions, connected: &ServerInfo, deadline: Instant) -> Self {
        let mut addresses: Vec<String> = Vec::new();
        let configured = options.urls.iter().map(|url| authority(url));
        for address in configured.chain(connected.connect_urls.iter().map(String::as_str)) {
            if !addresses.iter().any(|known| known == address) {
                addresses.push(address.to_owned());
            }
        }
        let gap = match &connected.cluster {
            Some(cluster) if connected.connect_urls.is_empty() => Some(format!(
                "cluster {cluster:?} does not advertise the addresses of its servers"
            )),
            _ if addresses.len() > ADDRESSES_MAX => Some(format!(
                "the cluster has more than {ADDRESSES_MAX} addresses"
            )),
            _ => None,
        };
        addresses.truncate(ADDRESSES_MAX);
        // Half of the time remains for what the caller has to do with the answer.
        let now = Instant::now();
        let deadline = now + deadline.saturating_duration_since(now) / 2;
        let reports = addresses
            .into_iter()
            .map(|address| greet(address, deadline))
            .collect();
        Self { reports, gap }
    }

    /// Returns why a setting must not be used that servers support from version `least`, or `None`
    /// if every server is known to support it.
    pub(super) fn objection(
        &self,
        stream: &Stream,
        info: &StreamInfo,
        least: Version,
    ) -> Option<String> {
        let least_text = format!("{}.{}.{}", least.0, least.1, least.2);
        for server in &self.reports {
            let address = &server.address;
            if let Some(fault) = &server.fault {
                return Some(format!(
                    "the version of the server at {address} is unknown: {fault}"
                ));
            }
            if parse_version(&server.version).is_none_or(|version| version < least) {
                return Some(format!(
                    "server {} at {address} is {}, older than {least_text}",
                    server.name, server.version
                ));
            }
        }
        if self.gap.is_some() {
            return self.gap.clone();
        }
        let leader = Some(info.leader()).filter(|name| !name.is_empty());
        let replicas = info.cluster.iter().flat_map(|cluster| &cluster.replicas);
        let mut hosts = leader
            .into_iter()
            .chain(replicas.map(|replica| replica.name.as_str()));
        if stream.api != DEFAULT_API && leader.is_none() {
            return Some("the server that stores the bucket is unknown".to_owned());
        }
        hosts
            .find(|host| !self.reports.iter().any(|server| server.name == *host))
            .map(|host| {
                format!(
                    "server {host} stores the bucket and is none of those that answered; \
                     its version is unknown"
                )
            })
    }
}

fn greet(address: String, deadline: Instant) -> ServerReport {
    let deadline = deadline.min(Instant::now() + GREETING_TIMEOUT);
    let greeting = match Address::parse(&address) {
        Some(parsed) => read_greeting(&parsed, deadline),
        None => Err("the address is not host:port".to_owned()),
    };
    match greeting {
        Ok(info) => ServerReport {
            address,
            name: info.server_name,
            version: info.version,
            fault: None,
        },
        Err(fault) => ServerReport {
            address,
            name: String::new(),
            version: String::new(),
            fault: Some(fault),
        },
    }
}

/// Returns the `host:port` of a URL.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or(rest);
    rest.rsplit_once('@').map_or(rest, |(_, host)| host)
}

/// Parses `2.12.5` or `2.12.0-RC.1`. A pre-release counts as the version before.
pub(super) fn parse_version(text: &str) -> Option<Version> {
    let (numbers, pre_release) = match text.split_once('-') {
        Some((numbers, _)) => (numbers, true),
        None => (text, false),
    };
    let mut parts = numbers.split('.').map(|part| part.parse::<u32>().ok());
    let version = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() {
        return None;
    }
    Some(match (pre_release, version) {
        (true, (major, minor, 0)) => (major, minor.checked_sub(1)?, u32::MAX),
        (true, (major, minor, patch)) => (major, minor, patch - 1),
        (false, version) => version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number_and_a_pre_release_is_older_than_its_release() {
        assert_eq!(parse_version("2.12.5"), Some((2, 12, 5)));
        assert!(parse_version("2.9.20") < parse_version("2.12.0"));
        assert!(parse_version("2.12.0-RC.1") < Some((2, 12, 0)));
        assert!(parse_version("2.12.0-RC.1") > Some((2, 11, 99)));
        assert!(parse_version("2.12.5-preview.2") < Some((2, 12, 5)));
        for hostile in [
            "", "2", "2.12", "a.b.c", "2.12.5.1", "0.0.0-x", "-", "2.-1.0",
        ] {
            assert_eq!(parse_version(hostile), None, "{hostile:?}");
        }
    }

    #[test]
    fn urls_are_reduced_to_host_and_port_without_credentials() {
        for (url, expected) in [
            ("nats://joe:p@ss@host:4222/", "host:4222"),
            ("tls://host", "host"),
            ("[::1]:4333", "[::1]:4333"),
            ("host:1", "host:1"),
        ] {
            assert_eq!(authority(url), expected);
        }
    }
}

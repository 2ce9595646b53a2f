//! Server addresses: `nats://user:password@host:port`.

use std::fmt;
use std::net::IpAddr;

use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use zeroize::Zeroizing;

const PORT_DEFAULT: u16 = 4_222;

/// The credentials in a URL, percent-decoded.
#[derive(Clone, PartialEq, Eq)]
pub enum UrlLogin {
    Token(Zeroizing<String>),
    UserPassword(String, Zeroizing<String>),
}

/// A server, as configured or as announced by its cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address, without brackets.
    pub host: String,
    pub port: u16,
    /// Whether the scheme requires TLS.
    pub tls: bool,
    pub login: Option<UrlLogin>,
    /// The name that the certificate must have instead of `host`.
    pub tls_name: Option<String>,
}

impl Address {
    /// Parses `nats://host:port`, `tls://host:port` or `host:port`, with optional credentials
    /// before the host: `user:password@` or `token@`, percent-encoded where needed. The port
    /// defaults to 4222.
    ///
    /// A password with a raw `@`, `/` or `#` is accepted, since the last `@` ends the
    /// credentials; a raw `%` that does not begin two hexadecimal digits stays as it is.
    pub fn parse(url: &str) -> Option<Self> {
        let (tls, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("nats") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("tls") => (true, rest),
            Some((before, _)) if !before.contains('@') => return None,
            _ => (false, url),
        };
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (parse_login(login)?, place),
            None => (None, rest),
        };
        let (host, port) = split_port(place.strip_suffix('/').unwrap_or(place))?;
        Some(Self {
            host: host.to_owned(),
            port,
            tls,
            login,
            tls_name: None,
        })
    }

    /// Returns the server at `host:port` with the scheme and credentials of `self`, and with its
    /// certificate name if `host` is an IP address.
    pub fn sibling(&self, place: &str) -> Option<Self> {
        let (host, port) = split_port(place)?;
        let name = self.tls_name.as_ref().unwrap_or(&self.host);
        let named = is_ip(host) && !is_ip(name);
        Some(Self {
            host: host.to_owned(),
            port,
            tls: self.tls,
            login: self.login.clone(),
            tls_name: named.then(|| name.clone()),
        })
    }

    /// Returns the name that the certificate of the server must have.
    pub fn certificate_name(&self) -> &str {
        self.tls_name.as_deref().unwrap_or(&self.host)
    }

    pub fn is_same_place(&self, other: &Self) -> bool {
        (&self.host, self.port) == (&other.host, other.port)
    }
}

impl fmt::Display for Address {
    /// Returns `host:port`, without credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

fn is_ip(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
}

fn parse_login(text: &str) -> Option<Option<UrlLogin>> {
    if text.is_empty() {
        return Some(None);
    }
    Some(Some(match text.split_once(':') {
        Some((user, password)) => UrlLogin::UserPassword(
            percent_decoded(user)?.to_string(),
            percent_decoded(password)?,
        ),
        None => UrlLogin::Token(percent_decoded(text)?),
    }))
}

fn percent_decoded(text: &str) -> Option<Zeroizing<String>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let decoded = (*first == b'%' && after.len() >= 2)
            .then(|| HEX.decode(&after[..2]).ok())
            .flatten();
        match decoded {
            Some(decoded) => {
                bytes.extend_from_slice(&decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok().map(Zeroizing::new)
}

/// Parses `host`, `host:port`, `[ipv6]` or `[ipv6]:port`.
fn split_port(place: &str) -> Option<(&str, u16)> {
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        match after {
            "" => (host, None),
            after => (host, Some(after.strip_prefix(':')?)),
        }
    } else {
        match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        }
    };
    let port = match port {
        None => PORT_DEFAULT,
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().ok()?,
        Some(_) => return None,
    };
    let is_ipv6 = place.starts_with('[');
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let is_host = is_ipv6 || (!host.is_empty() && host.len() <= 253 && host.bytes().all(is_plain));
    (is_host && port != 0).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(url: &str) -> (String, String) {
        match Address::parse(url).unwrap().login {
            Some(UrlLogin::UserPassword(user, password)) => (user, password.to_string()),
            Some(UrlLogin::Token(token)) => ("token".into(), token.to_string()),
            None => ("anonymous".into(), String::new()),
        }
    }

    #[test]
    fn schemes_hosts_and_ports_are_understood_and_others_refused() {
        for (url, shown, tls) in [
            ("nats://a:1", "a:1", false),
            ("a", "a:4222", false),
            ("TLS://b.example/", "b.example:4222", true),
            ("nats://[::1]:4333", "[::1]:4333", false),
            ("10.0.0.7:4333", "10.0.0.7:4333", false),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!(
                (address.to_string().as_str(), address.tls),
                (shown, tls),
                "{url}"
            );
        }
        for url in [
            "",
            ":",
            "http://a",
            "nats://",
            "nats://:1",
            "a:port",
            "a:0",
            "a:70000",
            "a b:1",
            "\r\n:1",
            "[x]:1",
            "[::1]1",
            "a/b",
            "nats://a:1:2",
            "a:+1",
        ] {
            assert_eq!(Address::parse(url), None, "{url:?}");
        }
    }

    #[test]
    fn credentials_in_a_url_are_percent_decoded() {
        for (url, user, password) in [
            ("nats://fleet:p%40ss%231%2Fx%252@h:1", "fleet", "p@ss#1/x%2"),
            ("nats://fleet:p@ss#1/x%2@h:1", "fleet", "p@ss#1/x%2"),
            ("nats://dom%5Csvc:simple@h", "dom\\svc", "simple"),
            ("s3cr%3At@h", "token", "s3cr:t"),
            ("nats://joe:@h", "joe", ""),
            ("nats://h", "anonymous", ""),
        ] {
            assert_eq!(login(url), (user.to_owned(), password.to_owned()), "{url}");
        }
        let shown = format!("{:?}", Address::parse("nats://joe:s3cret@h"));
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn announced_servers_are_reached_as_the_configured_one_is() {
        let first = Address::parse("tls://joe:pw@first:4222").unwrap();
        let named = first.sibling("10.0.0.7:4333").unwrap();
        assert_eq!(
            (named.to_string().as_str(), named.tls),
            ("10.0.0.7:4333", true)
        );
        assert_eq!(named.certificate_name(), "first");
        assert!(named.login == first.login);
        assert_eq!(
            first.sibling("other:1").unwrap().certificate_name(),
            "other"
        );
        let by_ip = Address::parse("tls://127.0.0.1").unwrap();
        assert_eq!(by_ip.sibling("[::1]:1").unwrap().certificate_name(), "::1");
        for hostile in ["", ":", "host:port", "a b:1", "\r\n:1", "u@h:1"] {
            assert_eq!(first.sibling(hostile), None, "{hostile:?}");
        }
    }
}

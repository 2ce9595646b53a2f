//! Resolves host names with a deadline.
//!
//! The system's `getaddrinfo` waits until every name server has timed out, a minute and more, and
//! cannot be interrupted. This resolver reads `/etc/hosts` and then queries the name servers of
//! `/etc/resolv.conf`, like the resolvers of Go and c-ares. It ignores other sources of
//! `nsswitch.conf`.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::dial::{Fault, Waits};
use crate::error::Code;

const DNS_PORT: u16 = 53;
const NAME_SERVERS_MAX: usize = 3;
const SEARCH_MAX: usize = 6;
/// Maximum number of addresses used for one name.
const ADDRESSES_MAX: usize = 64;
/// Maximum size of an answer in bytes. Packets of this size are not fragmented.
const ANSWER_MAX: usize = 1_232;
/// How long to wait for the second of the two answers, IPv4 and IPv6, after the first.
const SECOND_ANSWER: Duration = Duration::from_millis(150);
/// Minimum time to wait for a name server.
const TRY_MIN: Duration = Duration::from_millis(100);

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const RCODE_NO_ERROR: u8 = 0;
const RCODE_NO_SUCH_NAME: u8 = 3;

/// The resolver configuration of this host.
#[derive(Clone, Debug)]
pub struct Resolver {
    hosts: String,
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    dots_min: usize,
    timeout: Duration,
    attempts: u32,
}

/// The answer of the name servers for a name.
enum Answer {
    Addresses(Vec<IpAddr>),
    /// The name does not exist, or has no address.
    Nothing,
    /// No server gave a usable answer.
    Failed(String),
}

/// Returns the addresses of a host. Blocks until `deadline` at most, and returns immediately when the
/// connection is closed.
///
/// # Errors
/// [`Fault`], with the reason.
pub fn resolve(
    host: &str,
    port: u16,
    deadline: Instant,
    waits: Waits<'_>,
) -> Result<Vec<SocketAddr>, Fault> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let addresses = Resolver::of_this_host().lookup(host, deadline, waits)?;
    Ok(addresses
        .into_iter()
        .map(|address| SocketAddr::new(address, port))
        .collect())
}

impl Resolver {
    fn of_this_host() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::new(read("/etc/hosts"), &read("/etc/resolv.conf"))
    }

    fn new(hosts: String, configuration: &str) -> Self {
        let mut resolver = Self {
            hosts,
            servers: Vec::new(),
            search: Vec::new(),
            dots_min: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in configuration.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    let address = address.map(|address| SocketAddr::new(address, DNS_PORT));
                    resolver.servers.extend(address);
                }
                Some("domain" | "search") => {
                    resolver.search = words.map(str::to_owned).collect();
                }
                Some("options") => words.for_each(|word| resolver.option(word)),
                _ => {}
            }
        }
        resolver.servers.truncate(NAME_SERVERS_MAX);
        resolver.search.truncate(SEARCH_MAX);
        if resolver.servers.is_empty() {
            let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
            resolver.servers.push(SocketAddr::new(local, DNS_PORT));
        }
        resolver
    }

    fn option(&mut self, word: &str) {
        let Some((name, value)) = word.split_once(':') else {
            return;
        };
        let Ok(value) = value.parse::<u32>() else {
            return;
        };
        match name {
            "ndots" => self.dots_min = usize::try_from(value.min(15)).unwrap_or(15),
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, 30).into()),
            "attempts" => self.attempts = value.clamp(1, 5),
            _ => {}
        }
    }

    fn lookup(
        &self,
        host: &str,
        deadline: Instant,
        waits: Waits<'_>,
    ) -> Result<Vec<IpAddr>, Fault> {
        let unknown =
            |why: &str| Fault::Failed(Code::Unavailable, format!("cannot resolve {host}: {why}"));
        let local = self.in_hosts(host);
        if !local.is_empty() {
            return Ok(local);
        }
        let mut failure = None;
        for name in self.candidates(host) {
            match self.ask(&name, deadline, waits)? {
                Answer::Addresses(addresses) => return Ok(addresses),
                Answer::Nothing => {}
                Answer::Failed(why) => failure = Some(why),
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(unknown(failure.as_deref().unwrap_or("no such host")))
    }

    fn in_hosts(&self, host: &str) -> Vec<IpAddr> {
        let name = host.trim_end_matches('.');
        let mut found: Vec<IpAddr> = self
            .hosts
            .lines()
            .filter_map(|line| {
                let line = line.split('#').next()?;
                let mut words = line.split_ascii_whitespace();
                let address = words.next()?.parse().ok()?;
                words
                    .any(|word| word.eq_ignore_ascii_case(name))
                    .then_some(address)
            })
            .collect();
        if found.is_empty() && name.eq_ignore_ascii_case("localhost") {
            found = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        found.dedup();
        found
    }

    /// Returns the names to query, by the rules of `resolv.conf`.
    fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(absolute) = host.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let searched = self
            .search
            .iter()
            .map(|domain| format!("{host}.{}", domain.trim_matches('.')));
        let mut names: Vec<_> = searched.filter(|name| is_name(name)).collect();
        let is_first = host.matches('.').count() >= self.dots_min;
        names.insert(if is_first { 0 } else { names.len() }, host.to_owned());
        names
    }

    fn ask(&self, name: &str, deadline: Instant, waits: Waits<'_>) -> Result<Answer, Fault> {
        let mut failure = String::from("the name servers do not answer");
        for attempt in 0..self.attempts {
            for server in &self.servers {
                let now = Instant::now();
                if now >= deadline {
                    return Ok(Answer::Failed(failure));
                }
                // An unreachable server must not use up the time of the others.
                let servers = u32::try_from(self.servers.len()).unwrap_or(1);
                let share = (deadline - now) / (servers * (self.attempts - attempt)).max(1);
                let until = deadline.min(now + self.timeout.min(share.max(TRY_MIN)));
                // Old servers do not understand the extension for large answers.
                let answer = exchange(*server, name, attempt == 0, until, waits);
                match answer {
                    Ok(Answer::Failed(why)) => {
                        failure = format!("name server {}: {why}", server.ip())
                    }
                    Ok(answer) => return Ok(answer),
                    Err(Fault::Closed) => return Err(Fault::Closed),
                    Err(fault) => {
                        failure = format!("name server {}: {}", server.ip(), fault.reason())
                    }
                }
            }
        }
        Ok(Answer::Failed(failure))
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(|label| (1..=63).contains(&label.len()))
}

/// Asks one server for the IPv4 and IPv6 addresses of a name.
fn exchange(
    server: SocketAddr,
    name: &str,
    large: bool,
    mut until: Instant,
    waits: Waits<'_>,
) -> Result<Answer, Fault> {
    if !is_name(name) {
        return Ok(Answer::Nothing);
    }
    let broken = |error: io::Error| Fault::Failed(Code::Unavailable, error.to_string());
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).map_err(broken)?;
    socket.set_nonblocking(true).map_err(broken)?;
    socket.connect(server).map_err(broken)?;
    let mut open = [(TYPE_A, fastrand::u16(..)), (TYPE_AAAA, fastrand::u16(..))].map(Some);
    for (kind, id) in open.iter().flatten() {
        socket
            .send(&question(name, *kind, *id, large))
            .map_err(broken)?;
    }
    let mut addresses = Vec::new();
    let mut failure = None;
    let mut bytes = [0; ANSWER_MAX];
    while open.iter().any(Option::is_some) {
        match waits.until(socket.as_raw_fd(), true, false, until) {
            Ok(()) => {}
            // One address family is enough.
            Err(Fault::TimedOut) if !addresses.is_empty() => break,
            Err(fault) => return Err(fault),
        }
        let count = match socket.recv(&mut bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(broken(error)),
        };
        for slot in &mut open {
            let Some((kind, id)) = *slot else { continue };
            let Some((code, found)) = read_answer(&bytes[..count], name, kind, id) else {
                continue;
            };
            *slot = None;
            addresses.extend(found);
            if code != RCODE_NO_ERROR && code != RCODE_NO_SUCH_NAME {
                failure = Some(format!("answers with error {code}"));
            }
        }
        if !addresses.is_empty() {
            until = until.min(Instant::now() + SECOND_ANSWER);
        }
    }
    addresses.truncate(ADDRESSES_MAX);
    Ok(match failure {
        _ if !addresses.is_empty() => Answer::Addresses(addresses),
        Some(why) => Answer::Failed(why),
        None => Answer::Nothing,
    })
}

fn question(name: &str, kind: u16, id: u16, large: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 40);
    bytes.extend_from_slice(&id.to_be_bytes());
    // Recursion desired; one question, and one record for the extension.
    bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(large)]);
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    if large {
        let size = u16::try_from(ANSWER_MAX).unwrap_or(512).to_be_bytes();
        bytes.extend_from_slice(&[0, 0, 41, size[0], size[1], 0, 0, 0, 0, 0, 0]);
    }
    bytes
}

/// Returns the response code and the addresses, if this is the answer to the query.
pub fn read_answer(bytes: &[u8], name: &str, kind: u16, id: u16) -> Option<(u8, Vec<IpAddr>)> {
    let mut question = question(name, kind, id, false);
    let asked = question.split_off(12);
    let header = bytes.get(..12)?;
    let echoed = bytes.get(12..12 + asked.len())?;
    let is_answer = header[..2] == question[..2] && header[2] & 0x80 != 0;
    if !is_answer || header[4..6] != [0, 1] || !echoed.eq_ignore_ascii_case(&asked) {
        return None;
    }
    let count = u16::from_be_bytes([header[6], header[7]]);
    let mut addresses = Vec::new();
    let mut at = 12 + asked.len();
    for _ in 0..count {
        // A malformed record ends the list: the addresses before it are usable.
        let Some((record, data, next)) = read_record(bytes, at) else {
            break;
        };
        if record == kind {
            let v4 = <[u8; 4]>::try_from(data).map(|octets| IpAddr::from(Ipv4Addr::from(octets)));
            let v6 = <[u8; 16]>::try_from(data).map(|octets| IpAddr::from(Ipv6Addr::from(octets)));
            addresses.extend(if kind == TYPE_A { v4 } else { v6 });
        }
        at = next;
    }
    Some((header[3] & 0x0f, addresses))
}

/// Returns the type, data and end of the record at `at`.
fn read_record(bytes: &[u8], mut at: usize) -> Option<(u16, &[u8], usize)> {
    loop {
        match *bytes.get(at)? {
            0 => {
                at += 1;
                break;
            }
            // A pointer ends the name. Its target does not matter.
            0xc0.. => {
                at += 2;
                break;
            }
            length => at += 1 + usize::from(length),
        }
    }
    let fixed = bytes.get(at..at + 10)?;
    let kind = u16::from_be_bytes([fixed[0], fixed[1]]);
    let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    let data = bytes.get(at + 10..at + 10 + length)?;
    Some((kind, data, at + 10 + length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::shared::Shared;
    use super::*;
    use crate::threads::Thread;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn with_server(server: SocketAddr, configuration: &str) -> Resolver {
        let mut resolver = Resolver::new(String::new(), configuration);
        resolver.servers = vec![server];
        resolver
    }

    /// A name server that answers so many questions, and what it knows.
    fn name_server(
        questions: usize,
        known: &'static str,
        addresses: usize,
    ) -> (SocketAddr, Thread) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let thread = Thread::spawn("dv-test", move || {
            let mut bytes = [0; 512];
            for _ in 0..questions {
                let (count, from) = socket.recv_from(&mut bytes).unwrap();
                let mut answer = bytes[..count - 11].to_vec();
                answer[2] |= 0x80;
                answer[11] = 0;
                let kind = u16::from_be_bytes([bytes[count - 15], bytes[count - 14]]);
                let expected = &question(known, kind, 0, false)[12..];
                if answer[12..] == *expected {
                    answer[7] = u8::try_from(addresses).unwrap();
                    for n in 0..addresses {
                        let data = if kind == TYPE_A {
                            vec![10, 0, 0, n as u8]
                        } else {
                            vec![n as u8; 16]
                        };
                        answer.extend([
                            0xc0,
                            12,
                            0,
                            kind as u8,
                            0,
                            1,
                            0,
                            0,
                            0,
                            9,
                            0,
                            data.len() as u8,
                        ]);
                        answer.extend(data);
                    }
                } else {
                    answer[3] = RCODE_NO_SUCH_NAME;
                }
                socket.send_to(&answer, from).unwrap();
            }
        })
        .unwrap();
        (address, thread)
    }

    fn lookup(resolver: &Resolver, host: &str, deadline: Instant) -> Result<Vec<IpAddr>, Fault> {
        let (shared, wake) = Shared::new().unwrap();
        resolver.lookup(host, deadline, Waits::new(&shared, &wake))
    }

    #[test]
    fn names_of_the_hosts_file_need_no_server() {
        let hosts = "# a comment\n10.0.0.1 Nats nats.local # other\n10.0.0.2\tnats\n::1 six\nx y\n";
        let resolver = Resolver::new(hosts.into(), "");
        let found = |host| lookup(&resolver, host, soon()).unwrap();
        assert_eq!(
            found("NATS"),
            ["10.0.0.1", "10.0.0.2"].map(|a| a.parse::<IpAddr>().unwrap())
        );
        assert_eq!(
            found("nats.local."),
            ["10.0.0.1".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(found("six"), ["::1".parse::<IpAddr>().unwrap()]);
        assert_eq!(found("localhost").len(), 2);
    }

    #[test]
    fn the_search_list_is_followed_as_resolv_conf_says() {
        let text = "nameserver 10.0.0.10\nnameserver bad\nnameserver ::1\n\
                    search ns.svc.cluster.local svc.cluster.local\noptions ndots:5 timeout:2 x\n";
        let resolver = Resolver::new(String::new(), text);
        assert_eq!((resolver.servers.len(), resolver.timeout.as_secs()), (2, 2));
        let few_dots = resolver.candidates("nats");
        assert_eq!(
            few_dots,
            [
                "nats.ns.svc.cluster.local",
                "nats.svc.cluster.local",
                "nats"
            ]
        );
        assert_eq!(resolver.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        assert_eq!(resolver.candidates("nats."), ["nats"]);
        assert_eq!(Resolver::new(String::new(), "").servers[0].port(), DNS_PORT);
    }

    #[test]
    fn addresses_of_both_kinds_come_from_a_name_server() {
        let (server, thread) = name_server(4, "nats.example", 30);
        let resolver = with_server(server, "search example");
        let found = lookup(&resolver, "nats", soon()).unwrap();
        assert_eq!(found.len(), 60);
        let missing = lookup(&resolver, "other.", soon());
        assert!(missing.unwrap_err().reason().contains("no such host"));
        thread.join(soon()).unwrap();
    }

    #[test]
    fn name_server_that_does_not_answer_ends_with_the_deadline() {
        let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
        let text = "search a b c d e f\noptions timeout:30 attempts:4 ndots:5";
        let resolver = with_server(mute.local_addr().unwrap(), text);
        let started = Instant::now();
        let fault = lookup(&resolver, "nats", started + Duration::from_millis(200)).unwrap_err();
        assert!(
            fault.reason().contains("cannot resolve nats"),
            "{}",
            fault.reason()
        );
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "{:?}",
            started.elapsed()
        );
    }

    #[test]
    fn closed_connection_ends_the_look_up_at_once() {
        let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
        let resolver = with_server(mute.local_addr().unwrap(), "");
        let (shared, wake) = Shared::new().unwrap();
        shared.close();
        let ended = resolver.lookup("nats", soon(), Waits::new(&shared, &wake));
        assert!(matches!(ended, Err(Fault::Closed)));
    }

    proptest! {
        #[test]
        fn arbitrary_answers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), at in 0..600_usize) {
            let mut answer = question("a.b", TYPE_A, 7, false);
            answer[2] |= 0x80;
            answer.extend(&bytes);
            read_answer(&answer, "a.b", TYPE_A, 7);
            read_answer(&bytes, "a.b", TYPE_A, 7);
            read_record(&bytes, at);
        }
    }
}

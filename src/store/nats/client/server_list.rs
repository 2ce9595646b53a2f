//! The servers of a cluster: which one to try next, and why the others failed.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::address::Address;
use crate::time::backoff::Backoff;
use crate::types::truncated;

/// Maximum number of servers kept. Further announced servers are ignored.
const SERVERS_MAX: usize = 64;
/// Delay before the next attempt to connect: this, plus a random delay whose limit doubles between
/// the next two values. Short, because a server that returns must be used within a second.
const PAUSE_LEAST: Duration = Duration::from_millis(20);
const PAUSE_MIN: Duration = Duration::from_millis(40);
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// A failed server is tried after the others for this many times the duration of its attempt.
const COST_FACTOR: u32 = 5;
/// A server that shuts down is tried after the others for this long.
const LAME_DUCK_AVOIDED: Duration = Duration::from_secs(30);
/// Maximum length of a kept failure reason, and maximum number of reasons in one text.
const REASON_MAX: usize = 300;
const REASONS_SHOWN: usize = 5;

/// The known servers, with the outcome of their last attempts.
pub struct ServerList {
    list: Vec<Server>,
    pauses: Backoff,
    /// Failures since the last lasting connection.
    failures: u32,
}

struct Server {
    address: Address,
    /// Announced by the cluster, not configured.
    is_announced: bool,
    /// The other servers are tried first until this time.
    avoided_until: Option<Instant>,
    last_tried: Option<Instant>,
    failures: u32,
    reason: Option<String>,
    /// Whether it sends INFO after the TLS handshake.
    tls_first: bool,
}

impl Server {
    fn new(address: Address, is_announced: bool) -> Self {
        Self {
            address,
            is_announced,
            avoided_until: None,
            last_tried: None,
            failures: 0,
            reason: None,
            tls_first: false,
        }
    }
}

/// A server to connect to.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub address: Address,
    /// Whether it is known to expect the TLS handshake first.
    pub tls_first: bool,
}

impl ServerList {
    /// Creates a list of the configured servers, in an order that `seed` determines.
    pub fn new(mut addresses: Vec<Address>, seed: u64) -> Self {
        fastrand::Rng::with_seed(seed).shuffle(&mut addresses);
        Self {
            list: addresses
                .into_iter()
                .map(|address| Server::new(address, false))
                .collect(),
            pauses: Backoff::new(PAUSE_MIN, PAUSE_MAX, seed),
            failures: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns the server to try now: the least recently tried one that is not avoided. `None` if the
    /// list is empty.
    pub fn next(&mut self, now: Instant) -> Option<Candidate> {
        let rank = |server: &Server| {
            let avoided = server.avoided_until.filter(|until| *until > now);
            (avoided, server.last_tried)
        };
        let server = self.list.iter_mut().min_by_key(|server| rank(server))?;
        server.last_tried = Some(now);
        Some(Candidate {
            address: server.address.clone(),
            tls_first: server.tls_first,
        })
    }

    /// Returns the delay before the next attempt. It grows with each failed round.
    pub fn pause(&mut self) -> Duration {
        let servers = u32::try_from(self.list.len().max(1)).unwrap_or(u32::MAX);
        PAUSE_LEAST + self.pauses.delay_after(self.failures / servers)
    }

    /// Records a failed attempt that took `cost`, or a lost connection.
    pub fn failed(&mut self, address: &Address, cost: Duration, reason: &str, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if let Some(server) = self.find(address) {
            server.failures = server.failures.saturating_add(1);
            server.reason = Some(truncated(reason, REASON_MAX).to_string());
            server.avoided_until = Some(now + cost * COST_FACTOR);
        }
    }

    /// Records an established connection.
    pub fn connected(&mut self, address: &Address, tls_first: bool) {
        if let Some(server) = self.find(address) {
            server.failures = 0;
            server.reason = None;
            server.avoided_until = None;
            server.tls_first = tls_first;
        }
    }

    /// Records a lasting connection: the first attempt to replace it starts without a delay.
    pub fn reset_pause(&mut self) {
        self.failures = 0;
    }

    /// Records that the server is about to shut down.
    pub fn shuts_down(&mut self, address: &Address, now: Instant) {
        if let Some(server) = self.find(address) {
            server.avoided_until = Some(now + LAME_DUCK_AVOIDED);
        }
    }

    /// Adds the servers that `by` announces, and removes those that are no longer announced.
    pub fn announced(&mut self, by: &Address, places: &[String]) {
        if places.is_empty() {
            return;
        }
        let announced: Vec<_> = places
            .iter()
            .filter_map(|place| by.sibling(place))
            .collect();
        self.list.retain(|server| {
            let is_current = server.address.is_same_place(by);
            let is_known = |other: &Address| other.is_same_place(&server.address);
            !server.is_announced || is_current || announced.iter().any(is_known)
        });
        for address in announced {
            if self.list.len() < SERVERS_MAX && self.find(&address).is_none() {
                self.list.push(Server::new(address, true));
            }
        }
    }

    /// Returns the last failure of each server, the most recent attempts first.
    pub fn reasons(&self) -> String {
        let mut failed: Vec<_> = self
            .list
            .iter()
            .filter_map(|server| Some((server, server.reason.as_ref()?)))
            .collect();
        failed.sort_by_key(|(server, _)| std::cmp::Reverse(server.last_tried));
        let mut text = String::new();
        for (server, reason) in failed.iter().take(REASONS_SHOWN) {
            if !text.is_empty() {
                text.push_str("; ");
            }
            // Writing to a String cannot fail.
            let _ = write!(text, "{}: {reason}", server.address);
        }
        if failed.len() > REASONS_SHOWN {
            let _ = write!(text, "; and {} more servers", failed.len() - REASONS_SHOWN);
        }
        text
    }

    fn find(&mut self, address: &Address) -> Option<&mut Server> {
        let mut list = self.list.iter_mut();
        list.find(|server| server.address.is_same_place(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(300);

    fn servers(urls: &[&str]) -> ServerList {
        let addresses = urls.iter().map(|url| Address::parse(url).unwrap());
        ServerList::new(addresses.collect(), 7)
    }

    fn at(millis: u64) -> Instant {
        use std::sync::OnceLock;
        static START: OnceLock<Instant> = OnceLock::new();
        *START.get_or_init(Instant::now) + Duration::from_millis(millis)
    }

    fn next(servers: &mut ServerList, millis: u64) -> Address {
        servers.next(at(millis)).unwrap().address
    }

    #[test]
    fn servers_take_turns_and_each_reason_is_kept() {
        let mut servers = servers(&["a", "b", "c"]);
        let mut seen = Vec::new();
        for turn in 0..6 {
            let address = next(&mut servers, turn * 100);
            servers.failed(&address, QUICK, &format!("reason {turn}"), at(turn * 100));
            seen.push(address.to_string());
        }
        assert_eq!(seen[..3], seen[3..]);
        let mut first = seen[..3].to_vec();
        first.sort();
        assert_eq!(first, ["a:4222", "b:4222", "c:4222"]);
        let reasons = servers.reasons();
        for reason in ["reason 3", "reason 4", "reason 5"] {
            assert!(reasons.contains(reason), "{reasons}");
        }
        assert!(
            reasons.starts_with(&format!("{}: reason 5", seen[5])),
            "{reasons}"
        );
    }

    #[test]
    fn server_that_hangs_does_not_keep_from_one_that_answers() {
        let mut servers = servers(&["hangs", "refuses"]);
        let (mut now, mut hangs) = (0, 0);
        while now < 60_000 {
            let address = next(&mut servers, now);
            let cost = if address.host == "hangs" { 1_000 } else { 1 };
            hangs += cost / 1_000;
            now += cost;
            let cost = Duration::from_millis(cost);
            servers.failed(&address, cost, "x", at(now));
            now += u64::try_from(servers.pause().as_millis()).unwrap();
        }
        assert!((5..=11).contains(&hangs), "{hangs}");
    }

    #[test]
    fn single_server_is_tried_again_within_half_a_second_however_it_fails() {
        let mut servers = servers(&["a"]);
        for turn in 0..50 {
            let address = next(&mut servers, turn);
            servers.failed(&address, Duration::from_secs(2), "x", at(turn));
            let pause = servers.pause();
            assert!((20..=420).contains(&pause.as_millis()), "{pause:?}");
        }
        servers.reset_pause();
        assert!(servers.pause() <= PAUSE_LEAST + PAUSE_MIN);
    }

    #[test]
    fn announced_servers_come_and_go_and_configured_ones_stay() {
        let mut servers = servers(&["nats://joe:pw@a"]);
        let a = next(&mut servers, 0);
        let places = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        servers.announced(&a, &places(&["b:1", "c:1", "not a place", "a:4222"]));
        assert_eq!(servers.len(), 3);
        servers.announced(&a, &places(&["c:1"]));
        servers.announced(&a, &[]);
        assert_eq!(servers.len(), 2);
        let c = next(&mut servers, 1);
        assert_eq!(c.to_string(), "c:1");
        assert!(c.login == a.login);
        let many: Vec<_> = (0..1_000).map(|n| format!("h{n}:1")).collect();
        servers.announced(&a, &many);
        assert_eq!(servers.len(), SERVERS_MAX);
    }

    #[test]
    fn server_that_shuts_down_is_left_for_another() {
        let mut servers = servers(&["a", "b"]);
        let first = next(&mut servers, 0);
        servers.connected(&first, false);
        servers.shuts_down(&first, at(1));
        for turn in 2..5 {
            assert!(!next(&mut servers, turn).is_same_place(&first));
        }
        assert!(next(&mut servers, 40_000).is_same_place(&first));
    }
}

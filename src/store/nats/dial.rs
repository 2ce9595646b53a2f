//! Reaching one server: a TCP connect and greeting of our own first, then the client crate.
//!
//! The crate connects and reads the server's greeting without any time-out, so it is only let
//! near an address at which something has just answered as a NATS server does.

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nats::ServerAddress;
use serde::Deserialize;

use super::connection::Tracker;
use super::options::{Auth, NatsOptions};
use crate::error::{Code, Error, Result};

/// The crate panics on a longer line.
const GREETING_BYTES_MAX: u64 = 4_096;

/// What a server tells about itself before anyone logs in.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct ServerInfo {
    #[serde(default)]
    pub(super) server_name: String,
    #[serde(default)]
    pub(super) version: String,
    #[serde(default)]
    pub(super) max_payload: usize,
    #[serde(default)]
    pub(super) headers: bool,
    #[serde(default)]
    tls_required: bool,
    #[serde(default)]
    tls_available: bool,
    #[serde(default)]
    pub(super) connect_urls: Vec<String>,
    /// Whether it stores streams itself.
    #[serde(default)]
    pub(super) jetstream: bool,
    /// The name of its cluster, if it is part of one.
    #[serde(default)]
    pub(super) cluster: Option<String>,
    /// Whether the connection is by TLS; not told by the server but found out.
    #[serde(skip)]
    pub(super) tls: bool,
}

/// Connects to one server, or tells why not. Can block without limit inside the crate.
pub(super) fn dial(
    options: &NatsOptions,
    address: &ServerAddress,
    tracker: &Arc<Tracker>,
) -> Result<(nats::Connection, ServerInfo)> {
    let deadline = Instant::now() + options.connect_timeout;
    let (ip, mut info) = greet(address, deadline).map_err(|why| {
        let place = format!("{}:{}", address.host(), address.port());
        Error::new(Code::Unavailable, format!("{place}: {why}")).with_operation("connect")
    })?;
    if !info.headers {
        let text = format!("NATS server {} does not support headers", info.version);
        return Err(Error::new(Code::Unsupported, text).with_operation("connect"));
    }
    let wants_tls = options.tls_required || address.tls_required();
    if wants_tls && !info.tls_required && !info.tls_available {
        let text = "the server does not offer TLS, which the options require";
        return Err(Error::new(Code::Unsupported, text).with_operation("connect"));
    }
    let tls = wants_tls || info.tls_required;
    info.tls = tls;
    let target = if tls {
        address.clone()
    } else {
        pinned(address, ip)
    };
    let connected = catch_unwind(AssertUnwindSafe(|| {
        crate_options(options, tls, tracker).connect(target)
    }));
    match connected {
        Ok(Ok(connection)) => Ok((connection, info)),
        Ok(Err(error)) => Err(refusal(&error.to_string())),
        Err(_) => {
            Err(Error::new(Code::Unavailable, "the NATS client panicked").with_operation("connect"))
        }
    }
}

/// Reads a server's greeting.
fn greet(address: &ServerAddress, deadline: Instant) -> Result<(IpAddr, ServerInfo), String> {
    let resolved = (address.host(), address.port())
        .to_socket_addrs()
        .map_err(|error| format!("cannot be resolved: {error}"))?;
    // One dead address can take all the time there is; the next attempt begins with another.
    let mut resolved: Vec<_> = resolved.collect();
    fastrand::shuffle(&mut resolved);
    let mut last = "has no address".to_owned();
    for socket in resolved {
        match greet_at(socket, deadline) {
            Ok(info) => return Ok((socket.ip(), info)),
            Err(why) => last = why,
        }
    }
    Err(last)
}

/// Says what to do where the cause is near at hand.
fn in_words(error: &std::io::Error) -> String {
    if error.raw_os_error() == Some(libc::EMFILE) {
        return format!("{error}: raise this process's limit of open files (ulimit -n)");
    }
    error.to_string()
}

/// Reads the greeting of the server at `socket`.
pub(super) fn greet_at(socket: SocketAddr, deadline: Instant) -> Result<ServerInfo, String> {
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        left.max(Duration::from_millis(1))
    };
    let stream = TcpStream::connect_timeout(&socket, left()).map_err(|error| in_words(&error))?;
    let mut line = Vec::new();
    let mut reader = BufReader::new((&stream).take(GREETING_BYTES_MAX));
    while !line.ends_with(b"\n") {
        // The time-out counts from each read on, so it is renewed with what is left.
        stream
            .set_read_timeout(Some(left()))
            .map_err(|error| error.to_string())?;
        let available = reader
            .fill_buf()
            .map_err(|_| "accepted the connection but did not greet in time".to_owned())?;
        if available.is_empty() {
            let full = line.len() as u64 >= GREETING_BYTES_MAX;
            return Err(if full {
                "greeted with more than 4096 bytes, which the NATS client cannot take".to_owned()
            } else {
                "closed the connection before greeting".to_owned()
            });
        }
        let end = available
            .iter()
            .position(|b| *b == b'\n')
            .map_or(available.len(), |i| i + 1);
        line.extend_from_slice(&available[..end]);
        reader.consume(end);
        if Instant::now() >= deadline {
            return Err("did not greet in time".to_owned());
        }
    }
    let json = line
        .strip_prefix(b"INFO ")
        .ok_or("does not greet like a NATS server (is it TLS-first?)")?;
    serde_json::from_slice(json).map_err(|error| format!("greeted with malformed INFO: {error}"))
}

/// The address with the IP that answered, so that the crate cannot meet another one.
fn pinned(address: &ServerAddress, ip: IpAddr) -> ServerAddress {
    let mut url = address.clone().into_inner();
    if url.set_ip_host(ip).is_err() {
        return address.clone();
    }
    ServerAddress::from_url(url).unwrap_or_else(|_| address.clone())
}

/// The crate's options: never give up, never replay, tell us everything, print nothing.
fn crate_options(options: &NatsOptions, tls: bool, tracker: &Arc<Tracker>) -> nats::Options {
    let mut built = match &options.auth {
        Auth::Anonymous => nats::Options::new(),
        Auth::UserPassword(user, password) => nats::Options::with_user_pass(user, password),
        Auth::Token(token) => nats::Options::with_token(token),
        Auth::Credentials(path) => nats::Options::with_credentials(path),
        Auth::Nkey(seed) => nkey_options(seed),
    };
    for pem in &options.tls_ca {
        built = built.add_root_certificate(pem);
    }
    if !tls && options.tls_ca.is_empty() && cfg!(unix) {
        // Without any root the crate loads and parses the system's for each connection, and
        // fails where there are none, TLS or not.
        built = built.add_root_certificate("/dev/null");
    }
    if let Some((certificate, key)) = &options.tls_identity {
        built = built.client_cert(certificate, key);
    }
    let told = |tell: fn(&Tracker)| {
        let tracker = Arc::clone(tracker);
        // A panic in a callback would silently end the crate's reader thread.
        move || drop(catch_unwind(AssertUnwindSafe(|| tell(&tracker))))
    };
    let on_error = Arc::clone(tracker);
    let on_delay = Arc::clone(tracker);
    built
        .tls_required(tls)
        .with_name(&options.name)
        .max_reconnects(None)
        .reconnect_buffer_size(0)
        .disconnect_callback(told(Tracker::disconnected))
        .reconnect_callback(told(|_| ()))
        .close_callback(told(|_| ()))
        .lame_duck_callback(told(|_| {
            log::info!("NATS server is shutting down (lame duck mode)")
        }))
        .error_callback(move |error| {
            drop(catch_unwind(AssertUnwindSafe(|| {
                on_error.server_error(&error.to_string())
            })));
        })
        .reconnect_delay_callback(move |attempt| on_delay.reconnect_delay(attempt))
}

fn nkey_options(seed: &str) -> nats::Options {
    // The options were checked, so the seed is one; without a key the server refuses us.
    match nkeys::KeyPair::from_seed(seed.trim()) {
        Ok(pair) => nats::Options::with_nkey(&pair.public_key(), move |nonce| {
            pair.sign(nonce).unwrap_or_default()
        }),
        Err(_) => nats::Options::new(),
    }
}

/// Tells refused credentials from an unreachable server by the crate's text, all there is.
fn refusal(text: &str) -> Error {
    let lower = text.to_lowercase();
    let credentials = [
        "authorization",
        "authentication",
        "certificate",
        "nkey",
        "credentials",
    ];
    if credentials.iter().any(|word| lower.contains(word)) {
        let text = format!("the server refuses the credentials: {text}");
        return Error::new(Code::Unauthorized, text).with_operation("connect");
    }
    Error::new(Code::Unavailable, format!("cannot connect: {text}")).with_operation("connect")
}

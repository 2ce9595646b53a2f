//! Establishes a connection: look-up, TCP, greeting, TLS and login, each with a deadline.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConnection;

use super::address::Address;
use super::auth::{self, Auth};
use super::encode;
use super::info::ServerInfo;
use super::proto::{Decoder, Event};
use super::resolve::resolve;
use super::server_list::Candidate;
use super::shared::{REPLIES_ID, Shared};
use super::socket::{Wake, Watched, begin_connect, end_connect, poll};
use super::tls::{self, TlsSettings};
use crate::error::Code;

/// Time limit for TLS and the login, after the greeting.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Time limit for the acknowledgement of data while only a greeting is read.
const GREETING_USER_TIMEOUT: Duration = Duration::from_secs(5);
/// If TLS is required, a server that sends nothing for this fraction of the connect timeout is
/// offered a TLS handshake.
const SILENCE_PART: u32 = 4;

/// Settings of a connection.
#[derive(Clone)]
pub struct Dial {
    pub name: String,
    pub auth: Auth,
    pub tls: TlsSettings,
    /// The reply subject without its last token.
    pub inbox: String,
    /// Time limit for the look-up, the TCP connection and the greeting together.
    pub connect_timeout: Duration,
    /// Time without an answer after which a connection is replaced.
    pub stale_limit: Duration,
}

/// Why a connection was not established.
#[derive(Debug)]
pub enum Fault {
    /// It was closed locally.
    Closed,
    TimedOut,
    Failed(Code, String),
}

impl Fault {
    pub fn reason(&self) -> &str {
        match self {
            Self::Closed => "the connection was closed",
            Self::TimedOut => "timed out",
            Self::Failed(_, why) => why,
        }
    }

    fn unavailable(why: impl ToString) -> Self {
        Self::Failed(Code::Unavailable, why.to_string())
    }
}

/// Waits that end when the connection is closed.
#[derive(Clone, Copy)]
pub struct Waits<'a> {
    shared: &'a Shared,
    wake: &'a Wake,
}

impl<'a> Waits<'a> {
    pub fn new(shared: &'a Shared, wake: &'a Wake) -> Self {
        Self { shared, wake }
    }

    /// Waits until the descriptor is ready.
    ///
    /// # Errors
    /// [`Fault::Closed`], [`Fault::TimedOut`], or an error of the system call.
    pub fn until(self, fd: RawFd, read: bool, write: bool, deadline: Instant) -> Result<(), Fault> {
        loop {
            if self.shared.is_closed() {
                return Err(Fault::Closed);
            }
            if Instant::now() >= deadline {
                return Err(Fault::TimedOut);
            }
            let mut watched = [
                Watched::new(fd, read, write),
                Watched::new(self.wake.fd(), true, false),
            ];
            poll(&mut watched, deadline).map_err(Fault::unavailable)?;
            if watched[1].is_readable {
                self.wake.clear();
            } else if watched[0].is_readable || watched[0].is_writable {
                return Ok(());
            }
        }
    }
}

/// A socket, its TLS session and its received bytes.
pub struct Wire {
    pub socket: Arc<TcpStream>,
    pub session: Option<Box<ClientConnection>>,
    pub decoder: Decoder,
}

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Bytes; there may be more.
    More,
    /// Bytes; there are no more for now.
    All,
    Nothing,
    End,
}

impl Wire {
    /// Reads the received bytes into the decoder. Does not block.
    ///
    /// # Errors
    /// A broken connection, or a peer that is not trusted.
    pub fn receive(&mut self) -> io::Result<Arrival> {
        use std::io::Read as _;
        let space = self.decoder.space();
        let (count, at_end) = match &mut self.session {
            None => loop {
                match (&*self.socket).read(space) {
                    Ok(count) => break (count, count == 0),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break (0, false),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            },
            Some(session) => {
                let is_closed = tls::exchange(session, &self.socket)?;
                match session.reader().read(space) {
                    Ok(count) => (count, count == 0),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, is_closed),
                    // The peer closed the connection without a close_notify alert.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => (0, true),
                    Err(error) => return Err(error),
                }
            }
        };
        let is_all = self.session.is_none() && count < space.len();
        self.decoder.filled(count);
        Ok(match count {
            0 if at_end => Arrival::End,
            0 => Arrival::Nothing,
            _ if is_all => Arrival::All,
            _ => Arrival::More,
        })
    }

    fn wants_write(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.wants_write())
    }
}

/// An established connection, logged in and subscribed to its replies.
pub struct Dialed {
    pub wire: Wire,
    pub info: ServerInfo,
    /// Whether the server expects the TLS handshake first.
    pub tls_first: bool,
}

/// Connects to one server. The reply subject is subscribed as [`REPLIES_ID`].
///
/// # Errors
/// [`Fault`], with the reason of the server if it gave one.
pub fn dial(settings: &Dial, server: &Candidate, waits: Waits<'_>) -> Result<Dialed, Fault> {
    let deadline = Instant::now() + settings.connect_timeout;
    let address = &server.address;
    let look_up_by = Instant::now() + settings.connect_timeout / 2;
    let mut addresses = resolve(&address.host, address.port, look_up_by, waits)?;
    fastrand::shuffle(&mut addresses);
    let mut reasons: Vec<String> = Vec::new();
    for (tried, socket_address) in addresses.iter().enumerate() {
        let now = Instant::now();
        // An unreachable address must not use up the time of the others.
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let until = now + deadline.saturating_duration_since(now) / left;
        let attempt = Attempt {
            settings,
            server,
            waits,
        };
        match attempt.at(*socket_address, until) {
            Err(Fault::Failed(Code::Unavailable, why)) if addresses.len() > 1 => {
                reasons.push(format!("{}: {why}", socket_address.ip()));
            }
            result => return result,
        }
    }
    match reasons.is_empty() {
        true => Err(Fault::unavailable("the host has no address")),
        false => Err(Fault::unavailable(reasons.join(", "))),
    }
}

/// Returns the greeting of a server that sends it without TLS. Blocks until `deadline` at most.
///
/// # Errors
/// Why the server does not answer.
pub fn read_greeting(address: &Address, deadline: Instant) -> Result<ServerInfo, String> {
    let (shared, wake) = Shared::new().map_err(|error| explain(&error))?;
    let waits = Waits::new(&shared, &wake);
    let at = |socket_address| {
        let mut wire = connect(socket_address, deadline, GREETING_USER_TIMEOUT, waits)?;
        greeting(&mut wire, deadline, waits)
    };
    let read = resolve(&address.host, address.port, deadline, waits).and_then(|addresses| {
        let mut result = Err(Fault::unavailable("the host has no address"));
        for socket_address in addresses {
            result = at(socket_address);
            if result.is_ok() {
                break;
            }
        }
        result
    });
    read.map_err(|fault| fault.reason().to_owned())
}

/// An attempt to connect to one address of one server.
struct Attempt<'a> {
    settings: &'a Dial,
    server: &'a Candidate,
    waits: Waits<'a>,
}

impl Attempt<'_> {
    fn at(&self, address: SocketAddr, deadline: Instant) -> Result<Dialed, Fault> {
        let tls = &self.settings.tls;
        let wants_tls = tls.is_required() || self.server.address.tls;
        let mut wire = connect(address, deadline, self.settings.stale_limit * 2, self.waits)?;
        let mut tls_first = tls.first || (wants_tls && self.server.tls_first);
        if !tls_first {
            let now = Instant::now();
            // A server that expects the handshake first sends nothing. If TLS is required anyway, a
            // silent server is therefore offered a handshake.
            let patience = match wants_tls {
                true => now + deadline.saturating_duration_since(now) / SILENCE_PART,
                false => deadline,
            };
            match greeting(&mut wire, patience, self.waits) {
                Err(Fault::TimedOut) if wants_tls => tls_first = true,
                Err(Fault::TimedOut) => {
                    return Err(Fault::unavailable(
                        "accepted the connection but did not greet in time (if the server \
                         expects TLS first, set nats_tls_first)",
                    ));
                }
                greeted => {
                    let info = greeted?;
                    return self.after_greeting(wire, info, wants_tls);
                }
            }
        }
        let deadline = deadline.max(Instant::now()) + LOGIN_TIMEOUT;
        self.secure(&mut wire, deadline)?;
        let info = match greeting(&mut wire, deadline, self.waits) {
            Err(Fault::TimedOut) => {
                return Err(Fault::unavailable("did not greet after the TLS handshake"));
            }
            greeted => greeted?,
        };
        self.login(wire, info, tls_first, deadline)
    }

    fn after_greeting(
        &self,
        mut wire: Wire,
        info: ServerInfo,
        wants_tls: bool,
    ) -> Result<Dialed, Fault> {
        let deadline = Instant::now() + LOGIN_TIMEOUT;
        if wants_tls && !info.tls_required && !info.tls_available {
            return Err(Fault::Failed(
                Code::Unsupported,
                "the server does not offer TLS, which the settings require (tls:// URL, \
                 nats_tls_required, nats_tls_ca, nats_tls_cert or nats_tls_first); nothing was \
                 sent to it"
                    .to_owned(),
            ));
        }
        if wants_tls || info.tls_required {
            if wire.decoder.pending() > 0 {
                return Err(Fault::unavailable(
                    "the server sent data between its greeting and the TLS handshake",
                ));
            }
            self.secure(&mut wire, deadline)?;
        }
        self.login(wire, info, false, deadline)
    }

    fn secure(&self, wire: &mut Wire, deadline: Instant) -> Result<(), Fault> {
        let name = self.server.address.certificate_name();
        let session = self.settings.tls.session(name);
        let session = session.map_err(|why| Fault::Failed(Code::InvalidConfig, why))?;
        let session = wire.session.insert(session);
        while session.is_handshaking() {
            let is_closed = tls::exchange(session, &wire.socket).map_err(|e| tls_fault(&e))?;
            if !session.is_handshaking() {
                break;
            }
            if is_closed {
                return Err(Fault::unavailable(
                    "closed the connection during the TLS handshake",
                ));
            }
            let (read, write) = (session.wants_read(), session.wants_write());
            match self
                .waits
                .until(wire.socket.as_raw_fd(), read, write, deadline)
            {
                Err(Fault::TimedOut) => {
                    return Err(Fault::unavailable("the TLS handshake did not end in time"));
                }
                waited => waited?,
            }
        }
        Ok(())
    }

    /// Sends CONNECT, the subscription of replies and the first PING in one round trip.
    fn login(
        &self,
        mut wire: Wire,
        info: ServerInfo,
        tls_first: bool,
        deadline: Instant,
    ) -> Result<Dialed, Fault> {
        let settings = self.settings;
        let from_url = self.server.address.login.clone().map(Auth::from);
        let auth = from_url.as_ref().unwrap_or(&settings.auth);
        let is_secure = wire.session.is_some();
        let mut line = auth::connect_line(auth, &settings.name, is_secure, &info)
            .map_err(|why| Fault::Failed(Code::Unauthorized, why))?;
        let mut subscription = Vec::new();
        encode::subscribe(
            &mut subscription,
            &format!("{}.*", settings.inbox),
            REPLIES_ID,
        )
        .map_err(|why| Fault::Failed(Code::InvalidConfig, format!("inbox_prefix: {why}")))?;
        encode::ping(&mut subscription);
        line.extend_from_slice(&subscription);
        self.send(&mut wire, &line, deadline)?;
        drop(line);
        let mut newest = None;
        let waits = self.waits;
        let violation = "violates the protocol";
        let answered = next(&mut wire, deadline, waits, violation, |event| match event {
            Event::Pong => Ok(Some(())),
            Event::Error(text) => Err(refused(&text)),
            Event::Info(info) => {
                newest = Some(*info);
                Ok(None)
            }
            Event::Ok | Event::Ping => Ok(None),
            Event::Message(_) => Err(Fault::unavailable("sent a message before the login")),
        });
        match answered {
            Err(Fault::TimedOut) => {
                return Err(Fault::unavailable("did not answer the login in time"));
            }
            answered => answered?,
        }
        wire.decoder.logged_in();
        Ok(Dialed {
            wire,
            info: newest.unwrap_or(info),
            tls_first,
        })
    }

    fn send(&self, wire: &mut Wire, bytes: &[u8], deadline: Instant) -> Result<(), Fault> {
        use std::io::Write as _;
        let mut written = 0;
        loop {
            let result = match &mut wire.session {
                Some(session) => {
                    let taken = match written < bytes.len() {
                        true => session.writer().write(&bytes[written..]),
                        false => Ok(0),
                    };
                    taken.and_then(|taken| tls::write(session, &wire.socket).map(|()| taken))
                }
                None => (&*wire.socket).write(&bytes[written..]),
            };
            match result {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(Fault::unavailable(error)),
            }
            if written == bytes.len() && !wire.wants_write() {
                return Ok(());
            }
            match self
                .waits
                .until(wire.socket.as_raw_fd(), false, true, deadline)
            {
                Err(Fault::TimedOut) => {
                    return Err(Fault::unavailable("did not take the login in time"));
                }
                waited => waited?,
            }
        }
    }
}

fn connect(
    address: SocketAddr,
    deadline: Instant,
    user_timeout: Duration,
    waits: Waits<'_>,
) -> Result<Wire, Fault> {
    let connected = begin_connect(address, user_timeout);
    let socket = connected.map_err(|error| Fault::unavailable(explain(&error)))?;
    match waits.until(socket.as_raw_fd(), false, true, deadline) {
        Err(Fault::TimedOut) => {
            return Err(Fault::unavailable("did not accept the connection in time"));
        }
        waited => waited?,
    }
    end_connect(&socket).map_err(|error| Fault::unavailable(explain(&error)))?;
    Ok(Wire {
        socket: Arc::new(socket),
        session: None,
        decoder: Decoder::new(),
    })
}

/// Reads INFO.
fn greeting(wire: &mut Wire, deadline: Instant, waits: Waits<'_>) -> Result<ServerInfo, Fault> {
    let no_greeting = "does not greet like a NATS server";
    let info = next(wire, deadline, waits, no_greeting, |event| match event {
        Event::Info(info) => Ok(Some(*info)),
        Event::Error(text) => Err(refused(&text)),
        _ => Err(Fault::unavailable(no_greeting)),
    })?;
    if !info.headers {
        let text = format!("NATS server {} does not support headers", info.version);
        return Err(Fault::Failed(Code::Unsupported, text));
    }
    Ok(info)
}

/// Reads events until `each` returns a value. `violation` begins the text of protocol errors.
fn next<T>(
    wire: &mut Wire,
    deadline: Instant,
    waits: Waits<'_>,
    violation: &str,
    mut each: impl FnMut(Event<'_>) -> Result<Option<T>, Fault>,
) -> Result<T, Fault> {
    let wrong = |error| Fault::unavailable(format!("{violation}: {error}"));
    loop {
        while let Some(event) = wire.decoder.next().map_err(wrong)? {
            if let Some(wanted) = each(event)? {
                return Ok(wanted);
            }
        }
        match wire.receive().map_err(|error| tls_fault(&error))? {
            Arrival::More | Arrival::All => {}
            Arrival::End => {
                return Err(Fault::unavailable("closed the connection before the login"));
            }
            Arrival::Nothing => {
                let fd = wire.socket.as_raw_fd();
                waits.until(fd, true, wire.wants_write(), deadline)?;
            }
        }
    }
}

/// Distinguishes rejected credentials from a server that is temporarily unable to serve.
fn refused(text: &str) -> Fault {
    if is_about_credentials(text) {
        let text = format!("the server refuses the credentials: {text}");
        return Fault::Failed(Code::Unauthorized, text);
    }
    if text.contains("Permissions Violation for Subscription") {
        let text = format!(
            "no permission to subscribe to the inbox (set nats_inbox_prefix to what the account \
             allows): {text}"
        );
        return Fault::Failed(Code::Unauthorized, text);
    }
    Fault::unavailable(format!("the server refuses the connection: {text}"))
}

/// Returns whether a server error concerns the credentials of the client.
pub fn is_about_credentials(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower.contains("authorization violation")
        || [
            "authentication expired",
            "authentication revoked",
            "authentication failed",
        ]
        .iter()
        .any(|words| lower.contains(words))
}

/// Distinguishes a peer that is not trusted from a broken connection.
fn tls_fault(error: &io::Error) -> Fault {
    let cause = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(_)) => Fault::Failed(
            Code::Unauthorized,
            format!("the server's certificate is not trusted: {error}"),
        ),
        Some(rustls::Error::AlertReceived(_)) => Fault::Failed(
            Code::Unauthorized,
            format!("the server refuses the client's certificate or TLS version: {error}"),
        ),
        Some(_) => Fault::unavailable(format!("TLS: {error}")),
        None => Fault::unavailable(explain(error)),
    }
}

/// Returns the text of an error, with advice if there is any.
pub fn explain(error: &io::Error) -> String {
    if error.raw_os_error() == Some(libc::EMFILE) {
        return format!("{error}: raise this process's limit of open files (ulimit -n)");
    }
    error.to_string()
}

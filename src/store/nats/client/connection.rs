//! The thread of one connection: connects, then reads, writes and monitors the server until the
//! connection ends.

use std::io;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dial::{self, Arrival, Dialed, Fault, Waits, Wire};
use super::encode;
use super::info::ServerInfo;
use super::proto::Event;
use super::server_list::Candidate;
use super::shared::Shared;
use super::socket::{Wake, Watched, poll};
use super::tls;
use crate::error::Code;

pub use super::dial::Dial;

/// Maximum time without an answer before a PING is sent. Shorter if the stale limit is short.
const PING_AFTER_MAX: Duration = Duration::from_secs(1);
/// A hanging connection is closed this much before the stale limit, so that a late wake-up does not
/// exceed the limit.
const STALE_MARGIN: Duration = Duration::from_millis(200);
/// Maximum number of reads between two checks for other work.
const READS_MAX: usize = 16;
/// Capacity that the empty output buffer keeps with TLS.
const TLS_OUTPUT_MAX: usize = 64 * 1024;

/// An event of a connection. Reported on its thread, so the receiver must not block.
#[derive(Debug)]
pub enum ConnectionEvent {
    Up(Box<Up>),
    /// It could not be established.
    Failed {
        code: Code,
        why: String,
    },
    /// It was established and has ended for this reason. Not reported after a local close.
    Lost(String),
    /// The server reports an error that belongs to no reply.
    ServerError(String),
    /// The server is about to shut down.
    LameDuck,
    /// The servers of the cluster.
    ServersAnnounced(Vec<String>),
}

/// An established connection.
#[derive(Debug)]
pub struct Up {
    pub info: ServerInfo,
    /// Whether the server expects the TLS handshake first.
    pub tls_first: bool,
}

/// Connects to `server`, reports the connection, and serves it until it ends or is closed. Runs as the
/// connection's thread.
pub fn run(
    settings: &Dial,
    server: &Candidate,
    shared: &Arc<Shared>,
    wake: &Wake,
    report: &dyn Fn(ConnectionEvent),
) {
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let waits = Waits::new(shared, wake);
        let dialed = match dial::dial(settings, server, waits) {
            Ok(dialed) => dialed,
            Err(Fault::Failed(code, why)) => return Some(ConnectionEvent::Failed { code, why }),
            Err(fault) => {
                let why = fault.reason().to_owned();
                return Some(ConnectionEvent::Failed {
                    code: Code::Unavailable,
                    why,
                });
            }
        };
        let Dialed {
            wire,
            info,
            tls_first,
        } = dialed;
        shared.open(&wire.socket, wire.session.is_some(), info.max_payload());
        report(ConnectionEvent::Up(Box::new(Up { info, tls_first })));
        let now = Instant::now();
        let ping_after = PING_AFTER_MAX.min(settings.stale_limit * 2 / 5);
        let thread = ConnectionThread {
            shared,
            wake,
            report,
            wire,
            output: Vec::new(),
            written: 0,
            ping_after,
            patience: settings
                .stale_limit
                .saturating_sub(ping_after + STALE_MARGIN),
            answered: now,
            pinged: None,
            outstanding: 0,
            is_finishing: false,
            is_readable: true,
            last_error: None,
        };
        thread.serve().map(ConnectionEvent::Lost)
    }));
    shared.ended();
    match ended {
        Ok(None) => {}
        Ok(Some(event)) => report(event),
        Err(_) => report(ConnectionEvent::Lost(
            "the connection's thread panicked".to_owned(),
        )),
    }
}

/// Why a connection is no longer served.
enum End {
    /// It was closed locally.
    Closed,
    Lost(String),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(format!("the connection broke: {error}"))
    }
}

struct ConnectionThread<'a> {
    shared: &'a Shared,
    wake: &'a Wake,
    report: &'a dyn Fn(ConnectionEvent),
    wire: Wire,
    /// With TLS: output taken from the callers, and the number of bytes passed to rustls.
    output: Vec<u8>,
    written: usize,
    ping_after: Duration,
    /// Time limit for the answer to a PING.
    patience: Duration,
    /// When the last message was sent that the server has answered.
    answered: Instant,
    /// When the first unanswered PING was sent.
    pinged: Option<Instant>,
    /// Number of unanswered PINGs.
    outstanding: u32,
    /// Whether the final PING was sent.
    is_finishing: bool,
    /// Whether the socket may have data.
    is_readable: bool,
    /// The last error that the server reported.
    last_error: Option<String>,
}

impl ConnectionThread<'_> {
    /// Returns why the connection was lost, or `None` after a local close.
    fn serve(mut self) -> Option<String> {
        let end = loop {
            if let Err(end) = self.step() {
                break end;
            }
        };
        match end {
            End::Closed => None,
            _ if self.shared.is_closed() => None,
            End::Lost(why) => Some(match self.last_error {
                Some(error) => format!("{why} (the server's last error: {error})"),
                None => why,
            }),
        }
    }

    /// Performs all due work, then waits for more.
    fn step(&mut self) -> Result<(), End> {
        if self.shared.is_closed() {
            return Err(End::Closed);
        }
        if self.is_readable {
            self.read()?;
        }
        let due = self.watch_over(Instant::now())?;
        let wants_write = self.write()?;
        let mut watched = [
            Watched::new(self.wire.socket.as_raw_fd(), true, wants_write),
            Watched::new(self.wake.fd(), true, false),
        ];
        poll(&mut watched, due)?;
        self.is_readable = watched[0].is_readable;
        if watched[1].is_readable {
            self.wake.clear();
        }
        Ok(())
    }

    /// Sends PINGs and checks that they are answered. Returns when to check again.
    fn watch_over(&mut self, now: Instant) -> Result<Instant, End> {
        self.answered = self.answered.max(self.shared.last_answered());
        if let Some(deadline) = self.shared.finishes_by() {
            if !self.is_finishing {
                // The PING follows all other output, so its answer confirms all of it.
                self.is_finishing = true;
                self.ping(now);
            }
            if self.outstanding == 0 || now >= deadline {
                return Err(End::Closed);
            }
            return Ok(deadline);
        }
        if let Some(pinged) = self.pinged {
            if now.duration_since(pinged) < self.patience {
                return Ok(pinged + self.patience);
            }
            // If this process was suspended, the answer may have arrived in the meantime.
            self.read()?;
            if self.pinged == Some(pinged) {
                let silent = now.duration_since(self.answered);
                return Err(End::Lost(format!(
                    "the server has not answered for {silent:.1?}"
                )));
            }
        }
        let due = self.answered + self.ping_after;
        if now < due {
            return Ok(due);
        }
        self.ping(now);
        Ok(now + self.patience)
    }

    fn ping(&mut self, now: Instant) {
        self.shared.push(encode::ping);
        self.pinged.get_or_insert(now);
        self.outstanding += 1;
    }

    fn read(&mut self) -> Result<(), End> {
        for _ in 0..READS_MAX {
            let arrival = self.wire.receive()?;
            self.handle_events()?;
            match arrival {
                Arrival::More => {}
                Arrival::All | Arrival::Nothing => return Ok(()),
                Arrival::End => {
                    return Err(End::Lost("the server closed the connection".to_owned()));
                }
            }
        }
        Ok(())
    }

    fn handle_events(&mut self) -> Result<(), End> {
        let decoder = &mut self.wire.decoder;
        loop {
            let event = decoder
                .next()
                .map_err(|error| End::Lost(error.to_string()))?;
            match event {
                None => {
                    self.shared.delivered();
                    return Ok(());
                }
                Some(Event::Message(message)) => self.shared.deliver(&message),
                Some(Event::Ping) => self.shared.push(encode::pong),
                Some(Event::Pong) => {
                    self.outstanding = self.outstanding.saturating_sub(1);
                    if self.outstanding == 0
                        && let Some(pinged) = self.pinged.take()
                    {
                        self.answered = self.answered.max(pinged);
                    }
                }
                Some(Event::Ok) => {}
                Some(Event::Error(text)) => {
                    self.shared.refuse(&text);
                    (self.report)(ConnectionEvent::ServerError(text.clone()));
                    self.last_error = Some(text);
                }
                Some(Event::Info(info)) => {
                    self.shared.set_max_payload(info.max_payload());
                    if !info.connect_urls.is_empty() {
                        (self.report)(ConnectionEvent::ServersAnnounced(info.connect_urls));
                    }
                    if info.ldm {
                        (self.report)(ConnectionEvent::LameDuck);
                    }
                }
            }
        }
    }

    /// Writes the output that callers did not write. Returns whether output remains.
    fn write(&mut self) -> io::Result<bool> {
        let Some(session) = &mut self.wire.session else {
            return self.shared.write_directly();
        };
        loop {
            if self.written == self.output.len() {
                self.output.clear();
                if self.output.capacity() > TLS_OUTPUT_MAX {
                    self.output = Vec::new();
                }
                self.shared.take(&mut self.output, self.written);
                self.written = 0;
                if self.output.is_empty() {
                    break;
                }
            }
            use std::io::Write as _;
            let count = session.writer().write(&self.output[self.written..])?;
            self.written += count;
            tls::write(session, &self.wire.socket)?;
            if session.wants_write() {
                break;
            }
        }
        tls::write(session, &self.wire.socket)?;
        Ok(session.wants_write())
    }
}

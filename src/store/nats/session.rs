//! The supervised session: one connection at a time, replaced when it is lost.
//!
//! `dv-nats` is the supervisor. It starts a `dv-nats-io` thread for each connection and joins it when
//! the connection ends. Nothing is resent on the next connection.
//!
//! The same thread serves the watches. It blocks in one place only, until an event of a connection or
//! a watch arrives or the next deadline passes.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender, unbounded};
use parking_lot::Mutex;

use super::client::auth::Auth;
use super::client::connection::{self, ConnectionEvent, Dial, Up};
use super::client::server_list::{Candidate, ServerList};
use super::client::shared::Shared;
use super::client::{self, Connection};
use super::failure::RequestFailure;
use super::link::Link;
use super::options::NatsOptions;
use super::watches::{WatchRequest, Watches};
use crate::error::{Code, Error, Result};
use crate::store::Health;
use crate::store::health::HealthPublisher;
use crate::threads::cancel::{self, WaitError};
use crate::threads::{Thread, signal};
use crate::time::clock::{Clock, SystemClock};
use crate::time::log_throttle::{LogThrottle, suppressed};

/// How long to wait for the server to confirm sent messages before the connection is closed.
const FINISH_TIMEOUT: Duration = Duration::from_millis(200);
/// How long to wait for the thread of a closed connection. It is delayed only by its credentials
/// callback.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that lasted this long is replaced without a delay.
const LASTING: Duration = Duration::from_secs(1);
/// Calls in flight may take this long after the session moved from a server in lame duck mode.
const MOVE_TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum number of queued errors and server lists. Further ones are dropped; later ones repeat
/// their content.
const NOTES_MAX: usize = 64;
/// When nothing else is due.
const IDLE: Duration = Duration::from_secs(3_600);

/// What calls, watches and the supervisor share.
pub(super) struct Session {
    pub(super) options: NatsOptions,
    pub(super) health: Mutex<HealthPublisher>,
    outages: Mutex<Outages>,
    state: Mutex<State>,
    /// Disconnected when the store stops.
    pub(super) stopping: Receiver<Infallible>,
    stop: Mutex<Option<Sender<Infallible>>>,
    /// The thread that is inside the credentials callback.
    in_callback: Mutex<Option<ThreadId>>,
}

/// Records the return of the credentials callback, by a panic, too.
struct Returned<'a>(&'a Session);

impl Drop for Returned<'_> {
    fn drop(&mut self) {
        *self.0.in_callback.lock() = None;
    }
}

/// Log throttling of disconnections.
struct Outages {
    throttle: LogThrottle,
    /// Whether the current one was logged, so that its end is logged too.
    is_logged: bool,
}

struct State {
    link: Option<Arc<Link>>,
    /// Why there is no link.
    why: RequestFailure,
    /// The error of a first connect that can never succeed.
    fatal: Option<Error>,
    /// Replaced at each change. Dropping the old channel wakes its waiters.
    changed: (Sender<Infallible>, Receiver<Infallible>),
}

impl Outages {
    /// Records that an outage begins, or continues for another reason. Returns the suppressed count
    /// if it is to be logged.
    fn begins(&mut self) -> Option<u64> {
        let suppressed = self.throttle.record(SystemClock.now());
        self.is_logged |= suppressed.is_some();
        suppressed
    }
}

impl Session {
    pub(super) fn new(options: NatsOptions) -> Arc<Self> {
        let (stop, stopping) = signal();
        let why = "not connected yet".to_owned();
        Arc::new(Self {
            options,
            health: Mutex::new(HealthPublisher::new(Health::Degraded(why.clone()))),
            outages: Mutex::new(Outages {
                throttle: LogThrottle::default(),
                is_logged: true, // log the first connection
            }),
            state: Mutex::new(State {
                link: None,
                why: RequestFailure::Disconnected(why),
                fatal: None,
                changed: signal(),
            }),
            stopping,
            stop: Mutex::new(Some(stop)),
            in_callback: Mutex::default(),
        })
    }

    /// How to connect, receiving replies at `inbox`. Calls of the credentials callback are recorded.
    fn dial(self: &Arc<Self>, inbox: &str) -> Dial {
        let mut dial = self.options.dial(inbox);
        if let Auth::Callback(callback) = &dial.auth {
            let (session, callback) = (Arc::clone(self), Arc::clone(callback));
            dial.auth = Auth::Callback(Arc::new(move |nonce| {
                *session.in_callback.lock() = Some(std::thread::current().id());
                let _returned = Returned(&session);
                callback(nonce)
            }));
        }
        dial
    }

    /// Rejects a stop that would wait for the credentials callback that calls it.
    pub(super) fn check_may_stop(&self) -> Result<()> {
        if *self.in_callback.lock() != Some(std::thread::current().id()) {
            return Ok(());
        }
        let why = "the credentials callback cannot stop its own store; stop it from another thread";
        Err(Error::new(Code::WouldDeadlock, why))
    }

    /// Whether the credentials callback has not returned.
    pub(super) fn is_in_callback(&self) -> bool {
        self.in_callback.lock().is_some()
    }

    /// Returns the current connection without waiting. The caller decides when to retry.
    pub(super) fn link(&self) -> Result<Arc<Link>, RequestFailure> {
        let state = self.state.lock();
        state.link.clone().ok_or_else(|| state.why.clone())
    }

    /// Waits for the first link. Fails if it can never be established, or at the deadline.
    pub(super) fn wait_connected(&self, deadline: Instant) -> Result<()> {
        loop {
            let changed = {
                let mut state = self.state.lock();
                if state.link.is_some() {
                    return Ok(());
                }
                if let Some(error) = state.fatal.take() {
                    return Err(error);
                }
                state.changed.1.clone()
            };
            let wait_error = match cancel::recv_deadline(&changed, deadline) {
                Ok(never) => match never {},
                Err(wait_error) => wait_error,
            };
            let why = match &self.state.lock().why {
                RequestFailure::Disconnected(why) => why.clone(),
                other => format!("{other:?}"),
            };
            let error = match wait_error {
                WaitError::Disconnected => continue,
                WaitError::TimedOut => Error::new(Code::Unavailable, why),
                WaitError::Cancelled => cancel::error(&why),
            };
            return Err(error.with_operation("connect"));
        }
    }

    /// Ends every current and future call and watch, and then the supervisor.
    pub(super) fn begin_stop(&self) {
        self.stop.lock().take();
        let link = {
            let mut state = self.state.lock();
            state.why = RequestFailure::NotRunning;
            state.changed = signal();
            state.link.take()
        };
        if let Some(link) = link {
            link.close(RequestFailure::NotRunning);
        }
        self.set_health(Health::Closed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.lock().is_none()
    }

    fn set_health(&self, health: Health) {
        let line = health.clone();
        if !self.health.lock().set(health) {
            return;
        }
        match line {
            Health::Connected => {
                let was_logged = std::mem::take(&mut self.outages.lock().is_logged);
                if was_logged {
                    log::info!("NATS connected");
                }
            }
            Health::Degraded(why) => {
                // The logger is the host's code: release the lock before the call.
                let begins = self.outages.lock().begins();
                if let Some(silent) = begins {
                    log::warn!("NATS disconnected{}: {why}", suppressed(silent));
                }
            }
            Health::Closed => log::debug!("NATS connection closed"),
        }
    }

    pub(super) fn connected(&self, link: &Arc<Link>) {
        let mut state = self.state.lock();
        if state.why == RequestFailure::NotRunning {
            drop(state);
            return link.close(RequestFailure::NotRunning);
        }
        state.link = Some(Arc::clone(link));
        state.changed = signal();
        drop(state);
        self.set_health(Health::Connected);
    }

    fn degraded(&self, why: &str, fatal: Option<Error>) {
        let mut state = self.state.lock();
        if state.why == RequestFailure::NotRunning {
            return;
        }
        state.link = None;
        state.why = RequestFailure::Disconnected(why.to_owned());
        state.fatal = fatal;
        state.changed = signal();
        drop(state);
        self.set_health(Health::Degraded(why.to_owned()));
    }
}

/// The supervisor, run by the thread `dv-nats`.
pub(super) struct Supervisor {
    session: Arc<Session>,
    sender: Sender<Report>,
    events: Receiver<Report>,
    watches: Watches,
    servers: ServerList,
    generation: u64,
    server_errors: LogThrottle,
    /// Threads of closed connections whose credentials callback has not returned.
    busy: Vec<Thread>,
}

/// What a connection reports.
struct Report {
    generation: u64,
    event: ConnectionEvent,
}

/// The thread of a connection, with its controls.
struct Attempt {
    generation: u64,
    server: Candidate,
    shared: Arc<Shared>,
    inbox: String,
    thread: Thread,
    began: Instant,
}

/// An established connection.
struct Live {
    attempt: Attempt,
    link: Arc<Link>,
}

/// The next task of the supervisor.
enum Next {
    Event(Report),
    /// The deadline passed.
    Due,
    /// The store stops.
    Stop,
}

/// Why a connection is no longer used.
enum Left {
    Lost(String),
    /// Its server is in lame duck mode, and there are other servers.
    LameDuck,
    Stopped,
}

impl Supervisor {
    pub(super) fn new(session: Arc<Session>, requests: Receiver<WatchRequest>) -> Self {
        // Unbounded, because the thread of a connection must not block. `report` limits the length.
        let (sender, events) = unbounded();
        Self {
            watches: Watches::new(Arc::clone(&session), requests),
            servers: ServerList::new(session.options.addresses(), fastrand::u64(..)),
            session,
            sender,
            events,
            generation: 0,
            server_errors: LogThrottle::default(),
            busy: Vec::new(),
        }
    }

    /// Keeps the store connected until it stops. A panic is reported as a permanent degradation.
    pub(super) fn run(mut self) {
        let session = Arc::clone(&self.session);
        if catch_unwind(AssertUnwindSafe(|| self.supervise())).is_err() {
            session.degraded("the thread of the NATS session panicked", None);
        }
    }

    fn supervise(&mut self) {
        // The connection in lame duck mode, used until its replacement is established.
        let mut old: Option<Live> = None;
        while !self.session.is_stopping() {
            match self.establish(&mut old) {
                Ok(live) => {
                    let since = Instant::now();
                    old = self.serve(live, old.take());
                    if old.is_some() || since.elapsed() >= LASTING {
                        self.servers.reset_pause();
                        continue;
                    }
                }
                Err(fatal) if old.is_none() => {
                    let why = format!("cannot connect to NATS: {}", self.servers.reasons());
                    self.session.degraded(&why, fatal);
                }
                Err(_) => {}
            }
            self.pause(&mut old);
        }
        // End the watches first, because they delete their consumers on the server.
        self.watches.end();
        if let Some(old) = old {
            self.finish(old);
        }
        for thread in self.busy.drain(..) {
            while thread
                .join(Instant::now() + IDLE)
                .is_err_and(|e| e.code() == Code::TimedOut)
            {}
        }
    }

    /// Serves the watches until there is another task.
    fn next(&mut self, until: Instant) -> Next {
        loop {
            if self.session.is_stopping() {
                return Next::Stop;
            }
            if let Ok(event) = self.events.try_recv() {
                return Next::Event(event);
            }
            let now = Instant::now();
            if now >= until {
                return Next::Due;
            }
            let due = self.watches.work(now).min(until);
            let mut select = Select::new();
            select.recv(&self.session.stopping);
            select.recv(&self.events);
            self.watches.listen(&mut select, now);
            // All of them are checked, whichever is ready.
            let _ = select.ready_deadline(due);
        }
    }

    /// Makes one attempt to connect to the next server. Returns an error only if no further attempt
    /// can succeed.
    fn establish(&mut self, old: &mut Option<Live>) -> std::result::Result<Live, Option<Error>> {
        let attempt = self.start()?;
        loop {
            // Every step of the attempt has its own deadline.
            match self.next(Instant::now() + IDLE) {
                Next::Due => {}
                Next::Stop => {
                    self.retire(attempt);
                    return Err(None);
                }
                Next::Event(Report { generation, event }) if generation == attempt.generation => {
                    match event {
                        ConnectionEvent::Up(up) => return Ok(self.connected(attempt, *up)),
                        ConnectionEvent::Failed { code, why } => {
                            return Err(self.failed(attempt, code, &why));
                        }
                        ConnectionEvent::Lost(why) => {
                            return Err(self.failed(attempt, Code::Unavailable, &why));
                        }
                        _ => {}
                    }
                }
                Next::Event(report) => self.handle_old(old, report),
            }
        }
    }

    /// Handles an event of the connection that is being replaced.
    fn handle_old(&mut self, old: &mut Option<Live>, report: Report) {
        let is_lost = matches!(report.event, ConnectionEvent::Lost(_));
        let meant = old.take_if(|old| is_lost && old.attempt.generation == report.generation);
        if let (Some(live), ConnectionEvent::Lost(why)) = (meant, report.event) {
            self.lost(live, &why);
        }
    }

    fn start(&mut self) -> std::result::Result<Attempt, Option<Error>> {
        self.busy.retain(|thread| !thread.is_finished());
        if !self.busy.is_empty() {
            log::warn!("NATS credentials callback has not returned: not connecting");
            return Err(None);
        }
        self.generation += 1;
        let generation = self.generation;
        let now = Instant::now();
        let server = self.servers.next(now).ok_or(None)?;
        let options = &self.session.options;
        let inbox = format!("{}.dv{}", options.inbox_prefix, unique_id());
        let spawned = Shared::new().map_err(|error| client::explain(&error));
        let spawned = spawned.and_then(|(shared, wake)| {
            let dial = self.session.dial(&inbox);
            let (sender, server) = (self.sender.clone(), server.clone());
            let ours = Arc::clone(&shared);
            let thread = Thread::spawn("dv-nats-io", move || {
                let report = |event| report(&sender, generation, event);
                connection::run(&dial, &server, &ours, &wake, &report);
            });
            thread
                .map(|thread| (shared, thread))
                .map_err(|error| error.to_string())
        });
        match spawned {
            Ok((shared, thread)) => Ok(Attempt {
                generation,
                server,
                shared,
                inbox,
                thread,
                began: now,
            }),
            Err(why) => {
                self.servers
                    .failed(&server.address, Duration::ZERO, &why, now);
                Err(None)
            }
        }
    }

    fn connected(&mut self, attempt: Attempt, up: Up) -> Live {
        let address = &attempt.server.address;
        self.servers.connected(address, up.tls_first);
        self.servers.announced(address, &up.info.connect_urls);
        let connection = Arc::clone(&attempt.shared) as Arc<dyn Connection>;
        let link = Link::new(
            connection,
            up.info,
            attempt.inbox.clone(),
            attempt.generation,
        );
        Live { attempt, link }
    }

    /// Handles a failed attempt. Returns the error if no further attempt can succeed.
    fn failed(&mut self, attempt: Attempt, code: Code, why: &str) -> Option<Error> {
        let now = Instant::now();
        let address = attempt.server.address.clone();
        let cost = now.duration_since(attempt.began);
        self.retire(attempt);
        self.servers.failed(&address, cost, why, now);
        let is_fatal = matches!(
            code,
            Code::Unauthorized | Code::Unsupported | Code::InvalidConfig
        );
        is_fatal.then(|| Error::new(code, format!("{address}: {why}")).with_operation("connect"))
    }

    /// Uses a connection until it is lost or the store stops. Returns it if it still works and must be
    /// replaced.
    fn serve(&mut self, live: Live, old: Option<Live>) -> Option<Live> {
        self.session.connected(&live.link);
        self.watches.reconnected();
        if let Some(old) = old {
            self.leave(old);
        }
        match self.watch_over(&live) {
            Left::Lost(why) => {
                self.lost(live, &why);
                None
            }
            Left::LameDuck => {
                let address = &live.attempt.server.address;
                log::info!(
                    server = address.to_string().as_str();
                    "NATS server {address} is shutting down: moving to another server"
                );
                self.servers.shuts_down(address, Instant::now());
                Some(live)
            }
            // The caller closes it after the watches have ended.
            Left::Stopped => Some(live),
        }
    }

    /// Waits for the calls of a replaced connection, then closes it.
    fn leave(&mut self, old: Live) {
        let until = Instant::now() + MOVE_TIMEOUT;
        let mut reports = Vec::new();
        while let Next::Event(report) = self.next(until) {
            let is_lost = matches!(report.event, ConnectionEvent::Lost(_));
            if report.generation != old.attempt.generation {
                reports.push(report);
            }
            if is_lost {
                break;
            }
        }
        // Handle the reports of the new connection next.
        for report in reports {
            self.sender.send(report).ok();
        }
        let why = "moved to another server: this one is shutting down".to_owned();
        old.link.close(RequestFailure::Disconnected(why));
        self.finish(old);
    }

    fn watch_over(&mut self, live: &Live) -> Left {
        loop {
            let report = match self.next(Instant::now() + IDLE) {
                Next::Event(report) => report,
                Next::Due => continue,
                Next::Stop => return Left::Stopped,
            };
            if report.generation != live.attempt.generation {
                continue;
            }
            match report.event {
                ConnectionEvent::Lost(why) => return Left::Lost(why),
                ConnectionEvent::LameDuck if self.servers.len() > 1 => return Left::LameDuck,
                ConnectionEvent::ServerError(text) => {
                    if let Some(silent) = self.server_errors.record(SystemClock.now()) {
                        log::warn!("NATS server error{}: {text}", suppressed(silent));
                    }
                }
                ConnectionEvent::ServersAnnounced(places) => {
                    self.servers
                        .announced(&live.attempt.server.address, &places);
                }
                _ => {}
            }
        }
    }

    fn lost(&mut self, live: Live, why: &str) {
        let address = live.attempt.server.address.clone();
        let text = format!("{address}: {why}");
        self.session.degraded(&text, None);
        live.link.close(RequestFailure::Disconnected(text));
        self.retire(live.attempt);
        self.servers
            .failed(&address, Duration::ZERO, why, Instant::now());
    }

    /// Closes a connection after the server has confirmed the sent messages.
    fn finish(&mut self, live: Live) {
        let deadline = Instant::now() + FINISH_TIMEOUT;
        live.attempt.shared.finish(deadline);
        live.attempt.thread.join(deadline).ok();
        live.link.close(RequestFailure::NotRunning);
        self.retire(live.attempt);
    }

    /// Closes a connection immediately and joins its thread.
    fn retire(&mut self, attempt: Attempt) {
        attempt.shared.close();
        let joined = attempt.thread.join(Instant::now() + CLOSE_TIMEOUT);
        if joined.is_err_and(|error| error.code() == Code::TimedOut) {
            self.busy.push(attempt.thread);
        }
    }

    /// Waits before the next attempt.
    fn pause(&mut self, old: &mut Option<Live>) {
        let until = Instant::now() + self.servers.pause();
        while let Next::Event(report) = self.next(until) {
            self.handle_old(old, report);
        }
    }
}

/// Queues an event for the supervisor. Called on the thread of a connection.
fn report(events: &Sender<Report>, generation: u64, event: ConnectionEvent) {
    let is_note = matches!(
        event,
        ConnectionEvent::ServerError(_)
            | ConnectionEvent::ServersAnnounced(_)
            | ConnectionEvent::LameDuck
    );
    if is_note && events.len() >= NOTES_MAX {
        return;
    }
    // Fails only if the supervisor has ended because the store was stopped.
    events.send(Report { generation, event }).ok();
}

/// Returns 128 random bits as text.
pub(super) fn unique_id() -> String {
    format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}

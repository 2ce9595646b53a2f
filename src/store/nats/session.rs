//! The supervised session: one connection at a time, watched, and replaced when it is no good.
//!
//! `dv-nats` is the supervisor. It starts a `dv-nats-io` thread for each connection, decides when
//! a connection is lost or stale, and leaves it to the reaper when its thread does not end at
//! once. The crate's own reconnecting is not used: a connection lives as long as its TCP
//! connection, so nothing survives that a fault made doubtful.
//!
//! The same thread hands replies to those who wait for them and works for the watches. It waits
//! in one place only, for all of that at once and until the next moment at which something is
//! due; so no call of the client crate is made here but the one that never waits.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender};
use nats::ServerAddress;
use parking_lot::Mutex;

use super::connection::{self, Event, Tracker, Up};
use super::failure::RequestFailure;
use super::link::Link;
use super::options::NatsOptions;
use super::reaper;
use super::watches::{WatchRequest, Watches};
use crate::error::{Code, Error, Result};
use crate::store::Health;
use crate::store::health::HealthPublisher;
use crate::threads::cancel::{self, WaitError};
use crate::threads::{Thread, signal};
use crate::time::backoff::Backoff;
use crate::time::clock::{Clock, SystemClock};
use crate::time::log_throttle::{LogThrottle, suppressed};

/// Connections that may be stuck before the store refuses to make another one.
const ABANDONED_MAX: usize = 8;
/// A connection is given up this much before its hang has lasted for the limit, so that a late
/// wake-up does not exceed it.
const STALE_MARGIN: Duration = Duration::from_millis(200);
/// So many replies that are waited for come in a flood, once they come.
const FLOOD_MIN: usize = 32;
/// How long the replies of a flood are let gather.
const GATHER: Duration = Duration::from_micros(150);
/// Most replies handed on before the watches have their turn.
const REPLIES_MAX: usize = 1_024;
/// What the crate's handshake may take beyond our own greeting.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection that is let go may take to end before it is left to the reaper.
const CLOSE_PATIENCE: Duration = Duration::from_millis(200);
/// Servers remembered; a cluster that tells of more has enough to choose from.
const SERVERS_MAX: usize = 64;
/// A connection that lived this long is replaced without a pause.
const LASTING: Duration = Duration::from_secs(1);

static NEXT_STORE: AtomicU64 = AtomicU64::new(1);

/// What calls, watches and the supervisor share.
pub(super) struct Session {
    pub(super) options: NatsOptions,
    pub(super) health: Mutex<HealthPublisher>,
    outages: Mutex<Outages>,
    state: Mutex<State>,
    /// Disconnected when the store stops.
    pub(super) stopping: Receiver<Infallible>,
    stop: Mutex<Option<Sender<Infallible>>>,
}

/// What was logged of the times without a connection.
struct Outages {
    repeats: LogThrottle,
    /// Whether the present one was, so that its end is, too.
    is_logged: bool,
}

struct State {
    link: Option<Arc<Link>>,
    /// Why there is no link.
    why: RequestFailure,
    /// A first connect that can never succeed ends with this.
    fatal: Option<Error>,
    /// Replaced at each change: whoever waits for one finds the old one disconnected.
    changed: (Sender<Infallible>, Receiver<Infallible>),
}

impl Outages {
    /// Also when one goes on for another reason, such as the next server that cannot be reached.
    fn begins(&mut self) -> Option<u64> {
        let told = self.repeats.record(SystemClock.now());
        self.is_logged |= told.is_some();
        told
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
                repeats: LogThrottle::default(),
                is_logged: true, // the first connection is worth a line
            }),
            state: Mutex::new(State {
                link: None,
                why: RequestFailure::Disconnected(why),
                fatal: None,
                changed: signal(),
            }),
            stopping,
            stop: Mutex::new(Some(stop)),
        })
    }

    /// The connection that works right now. Infallible waits: who calls retries by its own rules.
    pub(super) fn link(&self) -> Result<Arc<Link>, RequestFailure> {
        let state = self.state.lock();
        state.link.clone().ok_or_else(|| state.why.clone())
    }

    /// QueueDelayEstimator for the first link; what can never succeed, and the deadline, are errors.
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
            let vain = match cancel::recv_deadline(&changed, deadline) {
                Ok(never) => match never {},
                Err(vain) => vain,
            };
            let why = match &self.state.lock().why {
                RequestFailure::Disconnected(why) => why.clone(),
                other => format!("{other:?}"),
            };
            let error = match vain {
                WaitError::Disconnected => continue,
                WaitError::TimedOut => Error::new(Code::Unavailable, why),
                WaitError::Cancelled => cancel::error(&why),
            };
            return Err(error.with_operation("connect"));
        }
    }

    /// Ends every call and watch, now and in future, and then the supervisor.
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
                // The log is the host's code: the lock is let go before it.
                let told = self.outages.lock().begins();
                if let Some(silent) = told {
                    log::warn!("NATS disconnected{}: {why}", suppressed(silent));
                }
            }
            Health::Closed => log::debug!("NATS connection closed"),
        }
    }

    fn connected(&self, link: &Arc<Link>) {
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

/// The supervisor; its body is `dv-nats`.
pub(super) struct Supervisor {
    session: Arc<Session>,
    store: u64,
    sender: Sender<Event>,
    events: Receiver<Event>,
    watches: Watches,
    servers: Vec<ServerAddress>,
    generation: u64,
    server_errors: LogThrottle,
    pauses: Backoff,
}

/// A connection's thread and what controls it.
struct Attempt {
    generation: u64,
    tracker: Arc<Tracker>,
    close: Sender<Infallible>,
    thread: Thread,
}

/// What the supervisor itself has to see to.
enum Next {
    Event(Event),
    /// The time it waited for has come.
    Due,
    /// The store stops.
    Stop,
}

impl Supervisor {
    pub(super) fn new(session: Arc<Session>, requests: Receiver<WatchRequest>) -> Self {
        let (sender, events) = connection::events();
        let mut servers: Vec<_> = session
            .options
            .urls
            .iter()
            .filter_map(|url| url.parse().ok())
            .collect();
        fastrand::shuffle(&mut servers);
        Self {
            watches: Watches::new(Arc::clone(&session), requests),
            session,
            store: NEXT_STORE.fetch_add(1, Ordering::Relaxed),
            sender,
            events,
            servers,
            generation: 0,
            server_errors: LogThrottle::default(),
            pauses: connection::reconnect_pauses(),
        }
    }

    /// Keeps the store connected until it stops; a panic is reported as lasting degradation.
    pub(super) fn run(mut self) {
        let session = Arc::clone(&self.session);
        if catch_unwind(AssertUnwindSafe(|| self.supervise())).is_err() {
            session.degraded("the thread of the NATS session panicked", None);
        }
    }

    fn supervise(&mut self) {
        let mut failures: u32 = 0;
        while !self.session.is_stopping() {
            match self.establish() {
                Ok((attempt, up)) => {
                    let since = Instant::now();
                    self.serve(attempt, *up);
                    if since.elapsed() >= LASTING {
                        failures = 0;
                        continue;
                    }
                }
                Err(error) => self.report_failure(&error),
            }
            failures = failures.saturating_add(1);
            self.pause(failures);
        }
        self.watches.end();
    }

    /// Hands on replies and works for the watches, until there is something else to do.
    fn next(&mut self, line: Option<(&Link, &Receiver<nats::Message>)>, until: Instant) -> Next {
        let mut line = line;
        loop {
            if self.session.is_stopping() {
                return Next::Stop;
            }
            if let Ok(event) = self.events.try_recv() {
                return Next::Event(event);
            }
            if let Some((link, replies)) = line {
                match link.dispatch(replies, REPLIES_MAX) {
                    // More follow at once: they are let gather, for each wake-up, here and where
                    // they are waited for, costs more than a reply.
                    Some(1..) if link.awaited() >= FLOOD_MIN => {
                        let _ = self.session.stopping.recv_timeout(GATHER);
                    }
                    Some(_) => {}
                    None => line = None,
                }
            }
            let now = Instant::now();
            if now >= until {
                return Next::Due;
            }
            let due = self.watches.work(now).min(until);
            let mut select = Select::new();
            select.recv(&self.session.stopping);
            select.recv(&self.events);
            if let Some((_, replies)) = line {
                select.recv(replies);
            }
            self.watches.listen(&mut select, now);
            // Which of them is ready does not matter: all are looked at.
            let _ = select.ready_deadline(due);
        }
    }

    /// Makes one attempt to connect, to the next server in turn.
    fn establish(&mut self) -> Result<(Attempt, Box<Up>)> {
        let unavailable =
            |why: String| Error::new(Code::Unavailable, why).with_operation("connect");
        let abandoned = reaper::count_of(self.store);
        if abandoned >= ABANDONED_MAX {
            return Err(unavailable(format!(
                "{abandoned} connections hang in the NATS client; waiting for them to end"
            )));
        }
        let attempt = self
            .start()
            .map_err(|error| unavailable(error.to_string()))?;
        let deadline = Instant::now() + self.session.options.connect_timeout + HANDSHAKE_TIMEOUT;
        loop {
            match self.next(None, deadline) {
                Next::Event(Event::Up(up)) if up.tracker.generation == attempt.generation => {
                    return Ok((attempt, up));
                }
                Next::Event(Event::Failed { generation, error })
                    if generation == attempt.generation =>
                {
                    self.retire(attempt, CLOSE_PATIENCE);
                    return Err(error);
                }
                Next::Event(Event::Lost { generation, why })
                    if generation == attempt.generation =>
                {
                    self.retire(attempt, Duration::ZERO);
                    return Err(unavailable(why));
                }
                Next::Event(_) => {}
                Next::Due | Next::Stop => {
                    self.retire(attempt, CLOSE_PATIENCE);
                    return Err(unavailable("the server accepted and then hung".to_owned()));
                }
            }
        }
    }

    fn start(&mut self) -> Result<Attempt> {
        self.generation += 1;
        let turn = usize::try_from(self.generation).unwrap_or(0) % self.servers.len().max(1);
        let address = self.servers[turn].clone();
        let tracker = Tracker::new(self.generation, self.sender.clone());
        let (close, closed) = signal();
        let thread = Thread::spawn("dv-nats-io", {
            let session = Arc::clone(&self.session);
            let tracker = Arc::clone(&tracker);
            move || connection::run(&session.options, &address, &tracker, &closed)
        })?;
        Ok(Attempt {
            generation: self.generation,
            tracker,
            close,
            thread,
        })
    }

    /// Watches over a connection until it is lost, stale, or the store stops.
    fn serve(&mut self, attempt: Attempt, up: Up) {
        self.learn_servers(&up.info.connect_urls);
        let (link, replies) = Link::new(up);
        self.session.connected(&link);
        self.watches.reconnected();
        match self.watch_over(&attempt, &link, &replies) {
            // A connection that is no good is not waited for: its replacement is what matters.
            Some(why) => {
                self.session.degraded(&why, None);
                link.close(RequestFailure::Disconnected(why));
                self.retire(attempt, Duration::ZERO);
            }
            // The watches first: they tell the server that they are gone.
            None => {
                self.watches.end();
                self.retire(attempt, CLOSE_PATIENCE);
            }
        }
    }

    /// Returns why the connection is no good any more, nothing when the store stops.
    fn watch_over(
        &mut self,
        attempt: &Attempt,
        link: &Link,
        replies: &Receiver<nats::Message>,
    ) -> Option<String> {
        // A hang starts at most one probe interval before the call that does not end.
        let limit = self.session.options.stale_limit;
        let busy_max = limit.saturating_sub(connection::probe_interval(limit) + STALE_MARGIN);
        loop {
            // A call that has not begun yet cannot have lasted too long any sooner.
            let busy_for = attempt.tracker.busy_for();
            if busy_for >= busy_max {
                return Some(format!("the server has not answered for {busy_for:.1?}"));
            }
            let event = match self.next(Some((link, replies)), Instant::now() + busy_max - busy_for)
            {
                Next::Event(event) => event,
                Next::Due => continue,
                Next::Stop => return None,
            };
            match event {
                Event::Lost { generation, why } if generation == attempt.generation => {
                    return Some(why);
                }
                Event::ServerError { generation, text } if generation == attempt.generation => {
                    if let Some(silent) = self.server_errors.record(SystemClock.now()) {
                        log::warn!("NATS server error{}: {text}", suppressed(silent));
                    }
                    link.deny(&text);
                }
                _ => {}
            }
        }
    }

    /// Lets a connection go: it ends at once when it can, and is the reaper's when it cannot.
    fn retire(&self, attempt: Attempt, patience: Duration) {
        if patience.is_zero() {
            attempt.tracker.abandon();
        }
        drop(attempt.close);
        let joined = attempt.thread.join(Instant::now() + patience);
        if joined.is_err_and(|error| error.code() == Code::TimedOut) {
            attempt.tracker.abandon();
            reaper::adopt(self.store, attempt.thread);
        }
    }

    /// Adds the servers that the cluster tells of, with the scheme and credentials of ours.
    fn learn_servers(&mut self, urls: &[String]) {
        let Some(model) = self.servers.first().cloned() else {
            return;
        };
        for url in urls {
            let Some(address) = like(&model, url) else {
                continue;
            };
            let known = |other: &ServerAddress| {
                (other.host(), other.port()) == (address.host(), address.port())
            };
            if !self.servers.iter().any(known) && self.servers.len() < SERVERS_MAX {
                self.servers.push(address);
            }
        }
    }

    fn report_failure(&self, error: &Error) {
        let hopeless = matches!(error.code(), Code::Unauthorized | Code::Unsupported);
        self.session
            .degraded(&error.to_string(), hopeless.then(|| error.clone()));
    }

    /// QueueDelayEstimator longer after each failed round through the servers.
    fn pause(&mut self, failures: u32) {
        let rounds = failures / u32::try_from(self.servers.len().max(1)).unwrap_or(1);
        let pause = connection::RECONNECT_PAUSE_LEAST + self.pauses.delay_after(rounds);
        let until = Instant::now() + pause;
        while let Next::Event(_) = self.next(None, until) {}
    }
}

/// The server at `host:port`, reached as `model` is.
fn like(model: &ServerAddress, host_and_port: &str) -> Option<ServerAddress> {
    let address: ServerAddress = host_and_port.parse().ok()?;
    let mut url = model.clone().into_inner();
    url.set_host(Some(address.into_inner().host_str()?)).ok()?;
    let port = host_and_port.rsplit(':').next()?.parse().ok()?;
    url.set_port(Some(port)).ok()?;
    ServerAddress::from_url(url).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_announced_by_cluster_inherit_scheme_and_credentials() {
        let model: ServerAddress = "tls://joe:pw@first:4222".parse().unwrap();
        for (told, expected) in [
            ("10.0.0.7:4333", "tls://joe:pw@10.0.0.7:4333"),
            ("[::1]:4333", "tls://joe:pw@[::1]:4333"),
        ] {
            let url = like(&model, told).unwrap().into_inner();
            assert_eq!(url.as_str().trim_end_matches('/'), expected);
        }
        for hostile in ["", ":", "host", "host:port", "a b:1", "\r\n:1"] {
            assert!(like(&model, hostile).is_none(), "{hostile:?}");
        }
    }
}

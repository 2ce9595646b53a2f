//! One connection and the one thread of ours that calls into the client crate for it.
//!
//! The crate's `publish`, `flush` and `close` can wait without limit, so nobody with a deadline
//! may call them. They run here, on `dv-nats-io`, which takes messages from a bounded queue,
//! publishes them and flushes at once (the crate's own flush is throttled to 5 ms). Each flush is
//! a PING and its PONG: a flush that does not end is how a hung server is noticed. Such a thread
//! is abandoned together with its connection; see [`super::reaper`].

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use nats::ServerAddress;
use nats::header::HeaderMap;
use parking_lot::Mutex;

use super::dial::{self, ServerInfo};
use super::nudge::{self, Nudger};
use super::options::NatsOptions;
use crate::error::{Code, Error, Result};
use crate::time::backoff::Backoff;

/// A server that has given no sign of life for so long is asked for one, or sooner where little
/// time is left to notice a hang.
const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// The longest one write to the socket may take before the crate calls it failed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Before the crate tries again: this at least, and a pause whose ceiling doubles between those.
pub(super) const RECONNECT_PAUSE_LEAST: Duration = Duration::from_millis(20);
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(40);
/// Short, for the return of a server is to be noticed within a second.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(400);
/// Messages of one subscription waiting for their reader; the crate drops the newest of more.
const INBOUND_MAX: usize = 65_536;
/// Commands waiting for the I/O thread. The channel takes the memory for all of them at once.
const QUEUE_CAPACITY: usize = 512;
/// Commands carried out before the next flush.
const BURST_MAX: usize = 4_096;

/// What the I/O thread is asked to do.
pub(super) enum Command {
    Publish(Outgoing),
    /// Subscribes and answers with where the messages arrive.
    Subscribe(String, Sender<Receiver<nats::Message>>),
    Unsubscribe(String),
}

/// A message on its way out.
pub(super) struct Outgoing {
    pub(super) subject: Arc<str>,
    pub(super) reply: Option<String>,
    pub(super) headers: Option<HeaderMap>,
    pub(super) payload: Vec<u8>,
    pub(super) progress: Arc<Progress>,
}

/// How many messages of one call were handed to the crate, and whether more may be.
///
/// The two are one atomic, so that a caller that gives up knows exactly what may have been sent.
#[derive(Default)]
pub(super) struct Progress(AtomicU64);

const GIVEN_UP: u64 = 1 << 63;

impl Progress {
    /// Counts one message as sent, unless the caller has given up.
    fn advance(&self) -> bool {
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                (state & GIVEN_UP == 0).then_some(state + 1)
            })
            .is_ok()
    }

    /// Nothing more will be sent; returns how many messages may have been.
    pub(super) fn give_up(&self) -> u64 {
        self.0.fetch_or(GIVEN_UP, Ordering::AcqRel) & !GIVEN_UP
    }
}

/// What happens to connections, told to the supervisor.
pub(super) enum Event {
    Up(Box<Up>),
    Failed { generation: u64, error: Error },
    Lost { generation: u64, why: String },
    ServerError { generation: u64, text: String },
}

/// A connection that works.
pub(super) struct Up {
    pub(super) tracker: Arc<Tracker>,
    pub(super) inbox: String,
    pub(super) info: ServerInfo,
    pub(super) queue: Sender<Command>,
    pub(super) messages: Receiver<nats::Message>,
    /// For what does not wait; see [`super::link::Link::post_now`].
    pub(super) connection: nats::Connection,
}

/// What is known of a connection from outside its thread, without waiting.
pub(super) struct Tracker {
    pub(super) generation: u64,
    events: Sender<Event>,
    origin: Instant,
    /// Milliseconds from the origin to the start of the crate call that runs, plus 1; 0: none.
    busy_since: AtomicU64,
    /// Milliseconds from the origin to the last moment at which the server is known to have
    /// answered.
    answered: AtomicU64,
    abandoned: AtomicBool,
    /// Requests without a reply so far.
    waiting: AtomicUsize,
    last_error: Mutex<Option<String>>,
    reconnect_pauses: Mutex<Backoff>,
}

impl Tracker {
    pub(super) fn new(generation: u64, events: Sender<Event>) -> Arc<Self> {
        Arc::new(Self {
            generation,
            events,
            origin: Instant::now(),
            busy_since: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            abandoned: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            last_error: Mutex::new(None),
            reconnect_pauses: Mutex::new(reconnect_pauses()),
        })
    }

    /// How long the crate has been busy with one call.
    pub(super) fn busy_for(&self) -> Duration {
        match self.busy_since.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            since => {
                let started = self.origin + Duration::from_millis(since - 1);
                Instant::now().saturating_duration_since(started)
            }
        }
    }

    /// Notes how many requests have no reply so far.
    pub(super) fn set_waiting(&self, requests: usize) {
        self.waiting.store(requests, Ordering::Release);
    }

    /// Marks the connection as replaced: its ghost reconnects without hurry and in silence.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// The server has answered something that was sent then.
    pub(super) fn answered(&self, sent: Instant) {
        self.answered.fetch_max(self.millis(sent), Ordering::AcqRel);
    }

    fn since_answer(&self) -> Duration {
        let answered = Duration::from_millis(self.answered.load(Ordering::Acquire));
        self.origin.elapsed().saturating_sub(answered)
    }

    fn millis(&self, moment: Instant) -> u64 {
        let passed = moment.saturating_duration_since(self.origin).as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX - 1)
    }

    fn busy(&self) {
        let millis = self.millis(Instant::now());
        self.busy_since.store(millis + 1, Ordering::Release);
    }

    fn idle(&self) {
        self.busy_since.store(0, Ordering::Release);
    }

    pub(super) fn disconnected(&self) {
        self.lost("the connection broke");
    }

    fn lost(&self, why: &str) {
        if !self.is_abandoned() {
            let why = match self.last_error.lock().as_deref() {
                Some(error) => format!("{why} ({error})"),
                None => why.to_owned(),
            };
            let generation = self.generation;
            self.events.send(Event::Lost { generation, why }).ok();
        }
    }

    /// Takes an error that the server sent outside of any reply.
    pub(super) fn server_error(&self, text: &str) {
        if text.starts_with("slow consumer") {
            // The crate's own, once for each message it drops; the watch notices by itself.
            return;
        }
        *self.last_error.lock() = Some(text.to_owned());
        if !self.is_abandoned() {
            let (generation, text) = (self.generation, text.to_owned());
            self.events
                .send(Event::ServerError { generation, text })
                .ok();
        }
    }

    /// How long the crate waits before it connects (attempt 0) or reconnects.
    pub(super) fn reconnect_delay(&self, attempt: usize) -> Duration {
        if attempt == 0 && !self.is_abandoned() {
            return Duration::ZERO;
        }
        let others = u32::try_from(attempt).unwrap_or(u32::MAX).saturating_sub(1);
        RECONNECT_PAUSE_LEAST + self.reconnect_pauses.lock().delay_after(others)
    }
}

/// How often a server that gives no sign of life is asked for one.
pub(super) fn probe_interval(stale_limit: Duration) -> Duration {
    PROBE_INTERVAL_MAX.min(stale_limit / 3)
}

/// Between two tries to connect, in addition to [`RECONNECT_PAUSE_LEAST`].
pub(super) fn reconnect_pauses() -> Backoff {
    Backoff::new(RECONNECT_PAUSE_MIN, RECONNECT_PAUSE_MAX, fastrand::u64(..))
}

/// The events of a store's connections. Unbounded, for the crate's reader must never wait on it;
/// what a server sends outside of replies is little, and the supervisor does nothing but read it.
pub(super) fn events() -> (Sender<Event>, Receiver<Event>) {
    unbounded()
}

/// The body of `dv-nats-io`: connects, serves the queue until the connection is lost or closed
/// from outside, then closes it. Blocks for as long as the crate does.
pub(super) fn run(
    options: &NatsOptions,
    address: &ServerAddress,
    tracker: &Arc<Tracker>,
    close: &Receiver<Infallible>,
) {
    let served = catch_unwind(AssertUnwindSafe(|| {
        let (connection, info) = match dial::dial(options, address, tracker) {
            Ok(connected) => connected,
            Err(error) => return Some(error),
        };
        let inbox = format!("_INBOX.dv{}", unique_id());
        let nudger = match &info.tls {
            false => None,
            true => match Nudger::start(connection.clone(), &inbox, tracker) {
                Ok(nudger) => Some(nudger),
                Err(error) => return Some(error),
            },
        };
        let mut pump = Pump {
            connection: &connection,
            tracker,
            probe_interval: probe_interval(options.stale_limit),
            nudger: nudger.as_ref(),
            subscriptions: HashMap::new(),
        };
        let failure = pump.serve(inbox, info, close).err();
        let subscriptions = pump.subscriptions;
        // From here on the end of the connection is no news.
        tracker.abandon();
        // Only `close` ends the crate's threads; while the server is away it waits for it.
        tracker.busy();
        if let Some(nudger) = &nudger {
            nudger.watch();
        }
        connection.close();
        tracker.idle();
        // After that the end of a subscription sends nothing and waits for nobody.
        drop(subscriptions);
        failure
    }));
    let generation = tracker.generation;
    match served {
        Ok(None) => {}
        Ok(Some(error)) => {
            tracker
                .events
                .send(Event::Failed { generation, error })
                .ok();
        }
        Err(_) => tracker.lost("the NATS client panicked"),
    }
}

/// What the I/O thread works with.
struct Pump<'a> {
    connection: &'a nats::Connection,
    tracker: &'a Arc<Tracker>,
    probe_interval: Duration,
    nudger: Option<&'a Nudger>,
    subscriptions: HashMap<String, nats::Subscription>,
}

impl Pump<'_> {
    /// Opens the inbox, reports the connection and works until it is lost or closed from outside.
    fn serve(
        &mut self,
        inbox: String,
        info: ServerInfo,
        close: &Receiver<Infallible>,
    ) -> Result<()> {
        let unusable = |error: io::Error| {
            Error::new(Code::Unavailable, error.to_string()).with_operation("connect")
        };
        // One token deep: replies. What is deeper is subscribed by name, since a server sends
        // nothing to a consumer's subject while only a wildcard matches it.
        let replies = self
            .connection
            .subscribe(&format!("{inbox}.*"))
            .map_err(unusable)?;
        let messages = replies.receiver().clone();
        self.subscriptions.insert(String::new(), replies);
        self.flush().map_err(unusable)?;
        let refused = self.tracker.last_error.lock().clone();
        if let Some(why) = refused.filter(|why| why.contains("Violation for Subscription")) {
            let text = format!("no permission to subscribe to _INBOX.>: {why}");
            return Err(Error::new(Code::Unauthorized, text).with_operation("connect"));
        }
        let (queue, commands) = bounded(QUEUE_CAPACITY);
        let up = Up {
            tracker: Arc::clone(self.tracker),
            inbox,
            info,
            queue,
            messages,
            connection: self.connection.clone(),
        };
        if self.tracker.events.send(Event::Up(Box::new(up))).is_ok() {
            self.work(&commands, close);
        }
        Ok(())
    }

    /// Carries out commands and flushes until the connection is lost or closed from outside; what
    /// was queued before that still goes out.
    fn work(&mut self, commands: &Receiver<Command>, close: &Receiver<Infallible>) {
        let mut closing = false;
        while !closing {
            let first = select! {
                recv(commands) -> command => {
                    closing = command.is_err();
                    command.ok()
                }
                recv(close) -> _ => {
                    closing = true;
                    None
                }
                default(self.probe_in()) => {
                    if self.has_answered() {
                        continue;
                    }
                    None
                }
            };
            let burst = first.into_iter().chain(commands.try_iter()).take(BURST_MAX);
            for command in burst {
                if self.tracker.is_abandoned() {
                    return;
                }
                self.tracker.busy();
                if let Err(error) = self.carry_out(command) {
                    return self.tracker.lost(&format!("cannot send: {error}"));
                }
            }
            if let Err(error) = self.flush() {
                return self.tracker.lost(&format!("cannot flush: {error}"));
            }
        }
    }

    /// How long the server may be left alone still: where replies can be overlooked, not for long
    /// while someone waits for one.
    fn probe_in(&self) -> Duration {
        match self.nudger {
            Some(_) if self.tracker.waiting.load(Ordering::Acquire) > 0 => nudge::NUDGE_AFTER,
            _ => (self.probe_interval).saturating_sub(self.tracker.since_answer()),
        }
    }

    /// Whether the server need not be asked for a sign of life: it has given one to somebody else.
    fn has_answered(&self) -> bool {
        self.nudger.is_none() && self.tracker.since_answer() < self.probe_interval
    }

    fn flush(&self) -> io::Result<()> {
        self.tracker.busy();
        if let Some(nudger) = self.nudger {
            nudger.watch();
        }
        let flushed = self.connection.flush_timeout(WRITE_TIMEOUT);
        self.tracker.idle();
        if flushed.is_ok() {
            self.tracker.answered(Instant::now());
        }
        flushed
    }

    fn carry_out(&mut self, command: Command) -> io::Result<()> {
        match command {
            Command::Publish(message) if message.progress.advance() => {
                return self.connection.publish_with_reply_or_headers(
                    &message.subject,
                    message.reply.as_deref(),
                    message.headers.as_ref(),
                    &message.payload,
                );
            }
            Command::Publish(_) => {}
            Command::Subscribe(subject, answer) => {
                let subscription = self.connection.subscribe(&subject)?;
                subscription.set_message_limits(INBOUND_MAX);
                answer.send(subscription.receiver().clone()).ok();
                self.subscriptions.insert(subject, subscription);
            }
            Command::Unsubscribe(subject) => drop(self.subscriptions.remove(&subject)),
        }
        Ok(())
    }
}

/// 128 random bits as text.
pub(super) fn unique_id() -> String {
    format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abandoned_call_knows_how_much_was_sent_and_sends_nothing_more() {
        let progress = Progress::default();
        assert!(progress.advance());
        assert!(progress.advance());
        assert_eq!(progress.give_up(), 2);
        assert!(!progress.advance());
        assert_eq!(progress.give_up(), 2);
    }

    #[test]
    fn first_connect_is_immediate_and_reconnects_wait_at_most_420_ms() {
        let (events, _receiver) = events();
        let tracker = Tracker::new(1, events);
        assert_eq!(tracker.reconnect_delay(0), Duration::ZERO);
        for attempt in 1..100 {
            let delay = tracker.reconnect_delay(attempt);
            assert!(delay >= Duration::from_millis(20), "{delay:?}");
            assert!(delay <= Duration::from_millis(420), "{delay:?}");
        }
    }
}

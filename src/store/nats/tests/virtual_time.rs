//! Virtual time, and connections whose bytes take time, are cut anywhere and overtake each other.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use fastrand::Rng;
use parking_lot::{Mutex, MutexGuard};

use super::super::client::encode::Publish;
use super::super::client::info::ServerInfo;
use super::super::client::proto::{Decoder, Event as Decoded};
use super::super::client::shared::{REPLIES_ID, Shared};
use super::super::client::{Connection, Replies, Subscription, Unsent};
use super::super::failure::RequestFailure;
use super::super::link::Link;
use super::server::{Mishap, Received, Sent, Server};
use crate::threads::cancel::WaitError;

/// How long a message may be under way, and one of those that are late.
const LATENCY_MAX: u64 = 20;
const LATE_MAX: u64 = 3_000;
/// Between two signs of life of the server's consumers.
const HEARTBEAT: Duration = Duration::from_secs(1);

pub struct World(Mutex<State>);

pub struct State {
    pub now: Instant,
    pub random: Rng,
    pub server: Server,
    /// Whether nothing goes wrong any more.
    pub is_calm: bool,
    queue: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    wires: HashMap<u64, ServerWire>,
}

enum Event {
    /// Bytes of a client reach the server.
    Arrives(u64, Vec<u8>),
    /// The server's message leaves it.
    Leaves(u64, u64, Sent),
    /// Bytes of the server reach the client.
    Delivered(u64, Vec<u8>),
    Cut(u64),
    Heartbeat,
}

/// The server's end of a connection.
struct ServerWire {
    client: Weak<SimulatedConnection>,
    inbox: String,
    bytes: Vec<u8>,
    subscriptions: Vec<(String, u64)>,
    /// Nothing arrives before what was sent before.
    up_until: Instant,
    down_until: Instant,
    /// The same for the messages of each subscription; replies may overtake each other.
    lanes: HashMap<u64, Instant>,
}

impl World {
    pub fn new(seed: u64) -> Arc<Self> {
        let now = Instant::now();
        let mut state = State {
            now,
            random: Rng::with_seed(seed),
            server: Server::default(),
            is_calm: false,
            queue: BTreeMap::new(),
            next_event: 0,
            wires: HashMap::new(),
        };
        state.at(now + HEARTBEAT, Event::Heartbeat);
        Arc::new(Self(Mutex::new(state)))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// A new connection and its link.
    pub fn connect(self: &Arc<Self>, number: u64) -> Arc<Link> {
        let (shared, _wake) = Shared::new().unwrap();
        shared.open_detached(1 << 20);
        let mut decoder = Decoder::new();
        decoder.logged_in();
        let connection = Arc::new(SimulatedConnection {
            number,
            shared,
            decoder: Mutex::new(decoder),
            world: Arc::clone(self),
            link: OnceLock::new(),
        });
        let inbox = format!("_INBOX.c{number}");
        let mut state = self.state();
        let now = state.now;
        let wire = ServerWire {
            client: Arc::downgrade(&connection),
            inbox: inbox.clone(),
            bytes: Vec::new(),
            subscriptions: Vec::new(),
            up_until: now,
            down_until: now,
            lanes: HashMap::new(),
        };
        state.wires.insert(number, wire);
        drop(state);
        let as_seen = Arc::clone(&connection) as Arc<dyn Connection>;
        let link = Link::new(as_seen, ServerInfo::default(), inbox, number);
        let _ = connection.link.set(Arc::downgrade(&link));
        link
    }

    /// Does what happens next, if that is by then; otherwise it is then.
    pub fn step(&self, until: Instant) -> bool {
        let mut state = self.state();
        let due = state.queue.first_key_value().map(|(key, _)| *key);
        match due {
            Some(key) if key.0 <= until => {
                let event = state.queue.remove(&key).unwrap();
                state.now = state.now.max(key.0);
                state.happen(event);
                true
            }
            _ => {
                state.now = state.now.max(until);
                false
            }
        }
    }

    /// When something happens next.
    pub fn next_due(&self) -> Option<Instant> {
        let state = self.state();
        state.queue.first_key_value().map(|(key, _)| key.0)
    }
}

impl State {
    fn at(&mut self, when: Instant, event: Event) {
        self.queue.insert((when, self.next_event), event);
        self.next_event += 1;
    }

    /// Has the connection cut in the middle of whatever is under way after so many milliseconds.
    pub fn cut_in(&mut self, connection: u64, millis: u64) {
        let when = self.now + Duration::from_millis(millis);
        self.at(when, Event::Cut(connection));
    }

    fn latency(&mut self) -> Duration {
        let is_late = !self.is_calm && self.random.u32(..20) == 0;
        let most = if is_late { LATE_MAX } else { LATENCY_MAX };
        Duration::from_micros(self.random.u64(..most * 1_000))
    }

    /// Sends bytes in pieces, in order.
    fn transfer(&mut self, connection: u64, mut bytes: &[u8], is_up: bool) {
        while !bytes.is_empty() {
            let size = self.random.usize(1..=bytes.len().min(300));
            let piece = bytes[..size].to_vec();
            bytes = &bytes[size..];
            let delay = Duration::from_micros(self.random.u64(..1_000));
            let Some(wire) = self.wires.get_mut(&connection) else {
                return;
            };
            let before = if is_up {
                &mut wire.up_until
            } else {
                &mut wire.down_until
            };
            *before = (*before).max(self.now) + delay;
            let when = *before;
            let event = match is_up {
                true => Event::Arrives(connection, piece),
                false => Event::Delivered(connection, piece),
            };
            self.at(when, event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives(connection, bytes) => {
                if let Some(wire) = self.wires.get_mut(&connection) {
                    wire.bytes.extend(bytes);
                    while let Some(message) = self.wires.get_mut(&connection).and_then(next_command)
                    {
                        self.received(connection, &message);
                    }
                }
            }
            Event::Leaves(connection, id, sent) => {
                let (_, subject) = sent
                    .subject
                    .rsplit_once('\n')
                    .unwrap_or(("", &sent.subject));
                let reply = match sent.reply.is_empty() {
                    true => String::new(),
                    false => format!("{} ", sent.reply),
                };
                let (head, total) = (sent.headers.len(), sent.headers.len() + sent.payload.len());
                let mut bytes = match head {
                    0 => format!("MSG {subject} {id} {reply}{total}\r\n"),
                    _ => format!(
                        "HMSG {subject} {id} {reply}{head} {total}\r\n{}",
                        sent.headers
                    ),
                }
                .into_bytes();
                bytes.extend(&sent.payload);
                bytes.extend(b"\r\n");
                self.transfer(connection, &bytes, false);
            }
            Event::Delivered(connection, bytes) => {
                let wire = self.wires.get(&connection);
                if let Some(client) = wire.and_then(|wire| wire.client.upgrade()) {
                    client.arrive(&bytes);
                }
            }
            Event::Cut(connection) => {
                let wire = self.wires.remove(&connection);
                if let Some(client) = wire.and_then(|wire| wire.client.upgrade()) {
                    client.cut();
                }
            }
            Event::Heartbeat => {
                self.at(self.now + HEARTBEAT, Event::Heartbeat);
                let sent = self.server.heartbeats();
                sent.into_iter().for_each(|sent| self.route(sent));
            }
        }
    }

    fn received(&mut self, connection: u64, command: &Command) {
        let wire = self.wires.get_mut(&connection).expect("it has just sent");
        match command {
            Command::Subscribe(subject, id) => wire.subscriptions.push((subject.clone(), *id)),
            Command::Unsubscribe(id) => wire.subscriptions.retain(|(_, other)| other != id),
            Command::Publish(message) => {
                let mishap = match (self.is_calm, self.random.u32(..60)) {
                    (false, 0) => Mishap::Busy,
                    (false, 1) => Mishap::NoLeader,
                    _ => Mishap::None,
                };
                let sent = self.server.handle(message, mishap);
                sent.into_iter().for_each(|sent| self.route(sent));
            }
        }
    }

    /// Sends a message to those who subscribed to its subject.
    fn route(&mut self, sent: Sent) {
        let subject = sent.subject.split('\n').next().unwrap_or_default();
        let receiver = self.wires.iter().find_map(|(connection, wire)| {
            let own = subject.strip_prefix(&wire.inbox)?.strip_prefix('.')?;
            if !own.contains('.') {
                return Some((*connection, REPLIES_ID));
            }
            let mut subscriptions = wire.subscriptions.iter();
            let (_, id) = subscriptions.find(|(other, _)| other == subject)?;
            Some((*connection, *id))
        });
        let Some((connection, id)) = receiver else {
            return;
        };
        let mut when = self.now + self.latency();
        if id != REPLIES_ID {
            let wire = self.wires.get_mut(&connection).expect("it was found");
            let last = wire.lanes.entry(id).or_insert(when);
            when = when.max(*last);
            *last = when;
        }
        self.at(when, Event::Leaves(connection, id, sent));
    }
}

enum Command {
    Subscribe(String, u64),
    Unsubscribe(u64),
    Publish(Received),
}

/// Takes the next complete command of a client.
fn next_command(wire: &mut ServerWire) -> Option<Command> {
    let end = wire.bytes.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&wire.bytes[..end]).unwrap().trim_end();
    let words: Vec<&str> = line.split(' ').collect();
    let number = |word: &str| word.parse::<usize>().unwrap();
    let (command, size) = match words.as_slice() {
        ["SUB", subject, id] => (
            Command::Subscribe((*subject).to_owned(), id.parse().unwrap()),
            0,
        ),
        ["UNSUB", id] => (Command::Unsubscribe(id.parse().unwrap()), 0),
        ["PUB" | "HPUB", subject, rest @ ..] => {
            let sizes = if words[0] == "PUB" { 1 } else { 2 };
            let total = number(rest[rest.len() - 1]);
            let head = if sizes == 2 {
                number(rest[rest.len() - 2])
            } else {
                0
            };
            let body = wire.bytes.get(end + 1..end + 1 + total + 2)?;
            assert_eq!(&body[total..], b"\r\n");
            let reply = if rest.len() > sizes { rest[0] } else { "" };
            let message = Received {
                subject: (*subject).to_owned(),
                reply: reply.to_owned(),
                headers: body[..head].to_vec(),
                payload: body[head..total].to_vec(),
            };
            (Command::Publish(message), total + 2)
        }
        other => panic!("not the protocol: {other:?}"),
    };
    wire.bytes.drain(..end + 1 + size);
    Some(command)
}

/// The client's end of a connection.
struct SimulatedConnection {
    number: u64,
    shared: Arc<Shared>,
    decoder: Mutex<Decoder>,
    world: Arc<World>,
    link: OnceLock<Weak<Link>>,
}

impl SimulatedConnection {
    fn arrive(&self, mut bytes: &[u8]) {
        let mut decoder = self.decoder.lock();
        while !bytes.is_empty() {
            let space = decoder.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            decoder.filled(count);
            bytes = &bytes[count..];
            while let Some(event) = decoder.next().unwrap() {
                let Decoded::Message(message) = event else {
                    panic!("{event:?}");
                };
                self.shared.deliver(&message);
            }
        }
        self.shared.delivered();
    }

    fn cut(&self) {
        self.shared.ended();
        if let Some(link) = self.link.get().and_then(Weak::upgrade) {
            link.close(RequestFailure::Disconnected(
                "the connection was cut".into(),
            ));
        }
    }
}

impl Connection for SimulatedConnection {
    fn publish(&self, message: &Publish<'_>) -> Result<(), Unsent> {
        self.shared.publish(message)
    }

    fn flush(&self) {
        let mut sent = Vec::new();
        self.shared.take(&mut sent, 0);
        self.world.state().transfer(self.number, &sent, true);
    }

    fn subscribe(&self, subject: &str) -> Result<Subscription, Unsent> {
        self.shared.subscribe(subject)
    }

    fn unsubscribe(&self, id: u64) {
        self.shared.unsubscribe(id);
    }

    fn on_reply(&self, replies: Arc<dyn Replies>) {
        self.shared.on_reply(replies);
    }

    fn answered(&self, sent: Instant) {
        self.shared.answered(sent);
    }

    fn now(&self) -> Instant {
        self.world.state().now
    }

    fn wait(&self, woken: &Receiver<()>, deadline: Instant) -> Result<(), WaitError> {
        loop {
            match woken.try_recv() {
                Ok(()) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(WaitError::Disconnected),
                Err(TryRecvError::Empty) if self.world.step(deadline) => {}
                Err(TryRecvError::Empty) => return Err(WaitError::TimedOut),
            }
        }
    }
}

//! The simulated world: virtual time, due events, the store and its network.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::Duration;

use divvy::CalculatorConfig;
use divvy::error::{Code, Error};
use divvy::machine::calculator::CalculatorInput;
use divvy::store::memory::{Blackout, MemoryStore, Snapshot};
use divvy::store::{Batch, Bucket, BucketConfig, Listing, Outcome, Refusal, Store, Write};
use divvy::time::clock::{Clock, ManualClock};
use divvy::types::{Partition, Term, Time};
use fastrand::Rng;

use crate::check::{Checked, Checker, Promise, names};
use crate::fleet::Worker;
use crate::lockstep_publisher::{Answer, Ask, Thought, far_future};
use crate::member::{DelayedRequest, Member};
use crate::node::{Node, Phase};
use crate::scenario::Lifetimes;

/// Number of trace lines that are kept.
const TRACE_MAX: usize = 100_000;

/// How often a leader is paused during a publication.
const NAP: f64 = 0.04;

/// The Unix time at which virtual time begins.
const EPOCH: Duration = Duration::from_secs(1_764_500_000);

/// Limit of the steps at one moment of virtual time, to detect endless loops.
const STEPS_MAX: u32 = 100_000;

pub type Serial = u64;

/// Counts of events.
pub type Tally = BTreeMap<&'static str, u64>;

/// A due event.
pub enum Event {
    Beat {
        worker: usize,
        life: u64,
    },
    /// A request reaches the store.
    Arrives(Serial),
    /// A write whose caller timed out long ago reaches the store.
    ArrivesLate(Sent, Payload),
    /// An answer reaches the publisher's thread.
    Answered {
        node: usize,
        serial: Serial,
        answer: Answer,
    },
    SourceRead {
        node: usize,
        serial: Serial,
    },
    /// A list that was held back is to be read again.
    ListDue {
        node: usize,
    },
    /// A call of the source that hung has returned.
    SourceReturns {
        node: usize,
    },
    ListArrives {
        node: usize,
        serial: Serial,
        answer_at: Time,
    },
    ListAnswered {
        node: usize,
        serial: Serial,
        listing: Option<Listing>,
    },
    StartLeader,
    StopNode(usize),
    /// A manager's request reaches the store, or its answer reaches the manager.
    DelayedRequest(DelayedRequest),
    /// A manager's calculator has noticed that it must stop.
    RecoverMember(usize),
    /// The process of a slot, which crashed, is started again.
    Return {
        slot: usize,
    },
    StandDown {
        member: usize,
        node: usize,
    },
    /// The predecessor's worker sends a heartbeat, or its leader renews its lease.
    Parti {
        life: u64,
    },
    PartiLeads {
        life: u64,
    },
    /// A lasting condition ended; nodes and workers check for work.
    Thaw,
    Restore,
    Recover(usize),
    Calm,
    Chaos,
    Probe,
}

/// Who sent a write.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub node: usize,
    pub term: Term,
    pub promise: Promise,
    /// How often the assignment bucket had been re-created by then.
    pub bucket: u32,
}

/// The content of a request.
#[derive(Clone, Debug)]
pub enum Payload {
    One(Bucket, Write),
    Batch(Bucket, Batch),
}

/// The fate of one write or read in transit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Arrives,
    RequestLost,
    ReplyLost,
    Late(Duration),
    Busy,
    Refused,
}

/// A request in transit to the store.
pub struct Call {
    sent: Sent,
    ask: Ask,
    fates: Vec<Fate>,
    answer_at: Time,
}

/// The current state of the network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Network {
    pub fault: f64,
    pub delay_max_ms: u64,
    pub source_fault: f64,
    pub source_hang: f64,
    pub strategy_fault: f64,
    pub think_max_ms: u64,
}

impl Network {
    pub const GOOD: Network = Network {
        fault: 0.0,
        delay_max_ms: 3,
        source_fault: 0.0,
        source_hang: 0.0,
        strategy_fault: 0.0,
        think_max_ms: 1,
    };
}

pub struct World {
    pub rng: Rng,
    pub clock: ManualClock,
    /// The store as seen by operators: no faults apply.
    pub store: MemoryStore,
    /// Whether a bucket's sequence starts at its creation time.
    pub counts_from_time: bool,
    /// The store as seen by workers.
    pub workers_store: MemoryStore,
    pub config: CalculatorConfig,
    pub network: Network,
    pub blackout: Option<Blackout>,
    pub nodes: Vec<Node>,
    pub leader: Option<usize>,
    pub starts_due: u32,
    pub workers: Vec<Worker>,
    /// Whole managers; empty if only calculators are simulated.
    pub lifetimes: Lifetimes,
    pub members: Vec<Member>,
    pub partitions: Vec<Partition>,
    pub checker: Checker,
    pub is_quiet: bool,
    /// When heartbeats were last purged: their absence proves nothing then.
    pub purged_at: Option<Time>,
    /// How often the assignment bucket was re-created.
    pub buckets: u32,
    pub tickets: u64,
    /// An older copy of the data of the store, with the records of other programs.
    pub copy: Option<(Snapshot, BTreeMap<String, Vec<u8>>)>,
    /// The records of other programs in the assignment bucket.
    pub protocol_keys: BTreeMap<String, Vec<u8>>,
    pub chaos_ends: Time,
    pub converged_since: Option<Time>,
    pub tally: Tally,
    events: BTreeMap<(Time, u64), Event>,
    events_made: u64,
    pub calls: BTreeMap<Serial, Call>,
    pub serials: Serial,
    trace: Option<VecDeque<String>>,
    /// Hash of the trace: equal for equal seeds.
    pub fingerprint: u64,
}

impl World {
    pub fn new(seed: u64, tracing: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let clock = ManualClock::new();
        clock.advance(Duration::from_secs(1_000));
        let has_batches = rng.bool();
        let batch_max = match (has_batches, rng.u8(0..3)) {
            (false, _) => 0,
            (true, 0) => 3,
            (true, _) => 1_000,
        };
        let (store, counts_from_time) = store(&clock, batch_max, &mut rng);
        let config = config(&mut rng);
        make_buckets(&store, &config);
        let workers_store = store.client("workers");
        let workers = (0..rng.usize(1..=8))
            .map(|index| Worker::new(index, rng.u64(900..=1_100)))
            .collect();
        let mut world = Self {
            clock,
            store,
            counts_from_time,
            workers_store,
            config,
            network: Network::GOOD,
            blackout: None,
            nodes: Vec::new(),
            leader: None,
            starts_due: 0,
            workers,
            lifetimes: Lifetimes::default(),
            members: Vec::new(),
            partitions: Vec::new(),
            checker: Checker::default(),
            is_quiet: false,
            purged_at: None,
            buckets: 0,
            tickets: 0,
            copy: None,
            protocol_keys: BTreeMap::new(),
            chaos_ends: Time::ZERO,
            converged_since: None,
            tally: Tally::new(),
            events: BTreeMap::new(),
            events_made: 0,
            calls: BTreeMap::new(),
            serials: 0,
            trace: tracing.then(VecDeque::new),
            fingerprint: seed,
            rng,
        };
        world.set_partitions();
        world
    }

    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Replaces the partition list: some partitions are removed, some added, some change weight.
    pub fn set_partitions(&mut self) {
        let count = self.rng.usize(0..=24);
        self.partitions = (0..count)
            .map(|index| Partition::new([format!("p{index:02}")], self.rng.i64(0..5)))
            .collect();
        self.list_changed();
    }

    pub fn list_changed(&mut self) {
        let names = names(&self.partitions);
        self.checker.lists.retain(|list| *list != names);
        self.checker.lists.push(names);
    }

    pub fn at(&mut self, time: Time, event: Event) {
        self.events_made += 1;
        self.events.insert((time, self.events_made), event);
    }

    pub fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now() + delay, event);
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.u64(from..=to))
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.rng.f64() < probability
    }

    /// Counts an event, for the final check of coverage.
    pub fn tally(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let Some(trace) = &mut self.trace else { return };
        let line = line();
        for byte in line.bytes() {
            self.fingerprint = (self.fingerprint ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if trace.len() == TRACE_MAX {
            trace.pop_front();
        }
        let nanos = self.clock.now().as_nanos();
        trace.push_back(format!("{:.6} {line}", nanos as f64 / 1e9));
    }

    /// Runs every process until it has no due work.
    fn poll_all(&mut self) -> Checked {
        // A leader and its manager exchange events.
        loop {
            self.poll_nodes()?;
            if !self.poll_members()? {
                return self.check_lives();
            }
        }
    }

    /// The state of the leaders at the end of a run.
    pub fn note_ends(&mut self) {
        let now = self.now();
        for &m in &self.lifetimes.alive.clone() {
            let machine = &self.members[m].machine;
            let line = format!("member {m}: {machine:?}");
            self.note(|| line);
        }
        for n in self.alive().collect::<Vec<_>>() {
            let node = &self.nodes[n];
            let local = node.clock.of(now);
            let deadline = node.machine.deadline().map(|d| d.since(local));
            let line = format!(
                "node {n} now {local:?} due in {deadline:?}: {:?}",
                node.machine
            );
            self.note(|| line);
        }
    }

    pub fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().map(Vec::from).unwrap_or_default()
    }

    /// Advances time to `end`.
    pub fn run_until(&mut self, end: Time) -> Checked {
        let mut steps = 0;
        loop {
            let next = self.next_time();
            if next > end {
                self.clock.advance_to(end);
                return Ok(());
            }
            steps = if next > self.now() { 0 } else { steps + 1 };
            if steps > STEPS_MAX {
                return Err(format!("endless work at {next:?}"));
            }
            self.clock.advance_to(next);
            self.store.tick();
            while let Some(entry) = self.events.first_entry() {
                if entry.key().0 > next {
                    break;
                }
                let event = entry.remove();
                self.happen(event)?;
                self.poll_all()?;
            }
            self.poll_all()?;
        }
    }

    fn next_time(&self) -> Time {
        let now = self.now();
        let event = self.events.keys().next().map(|(time, _)| *time);
        let nodes = self.nodes.iter().filter_map(|node| node.next_time(now));
        let members = self.lifetimes.alive.iter();
        let members = members.filter_map(|&m| self.members[m].next_time(now));
        let next = nodes.chain(members).chain(event);
        let next = next.chain(self.store.next_due()).min();
        next.unwrap_or(Time::FAR_FUTURE).max(now)
    }

    fn happen(&mut self, event: Event) -> Checked {
        match event {
            Event::DelayedRequest(delayed_request) => self.delayed_request(delayed_request),
            Event::StandDown { member, node } => return self.stands_down(member, node),
            Event::RecoverMember(member) => self.recover_member(member),
            Event::Return { slot } => self.return_member(slot),
            Event::Parti { life } => self.parti_beats(life),
            Event::PartiLeads { life } => self.parti_leads(life),
            Event::Beat { worker, life } => self.beat(worker, life),
            Event::Arrives(serial) => return self.arrives(serial),
            Event::ArrivesLate(sent, payload) => {
                let outcome = self.apply(sent, &payload)?;
                self.tally(match outcome {
                    Outcome::Done(_) => "late write accepted",
                    _ => "late write refused",
                });
                self.note(|| {
                    let payload = readable(&format!("{payload:?}"));
                    format!("late from node {}: {payload} -> {outcome:?}", sent.node)
                });
            }
            Event::Answered {
                node,
                serial,
                answer,
            } => {
                let node = &mut self.nodes[node];
                if node.waits_for == Some(serial) {
                    node.ready = Some(answer);
                }
            }
            Event::ListDue { node } => {
                let node = &mut self.nodes[node];
                if node.phase == Phase::Running {
                    let changed = CalculatorInput::PartitionsChanged {
                        generation: node.partitions.touch(),
                        ticket: None,
                    };
                    node.inbox.push_back(changed);
                }
            }
            Event::SourceReturns { node } => {
                // Also during the take-over, after which the calculator handles it.
                if self.nodes[node].phase != Phase::Down {
                    self.nodes[node]
                        .inbox
                        .push_back(CalculatorInput::PartitionsChanged {
                            generation: 0,
                            ticket: None,
                        });
                }
            }
            Event::SourceRead { node, serial } => {
                let answer = if self.chance(self.network.source_hang) {
                    let returns = self.millis(1, 60_000);
                    self.after(returns, Event::SourceReturns { node });
                    Answer::SourceHangs
                } else if self.chance(self.network.source_fault) {
                    Answer::Source(Err(Error::new(Code::SourceFailed, "simulated")))
                } else {
                    Answer::Source(Ok(self.partitions.clone()))
                };
                self.after(
                    Duration::ZERO,
                    Event::Answered {
                        node,
                        serial,
                        answer,
                    },
                );
            }
            Event::ListArrives {
                node,
                serial,
                answer_at,
            } => {
                let listing = self
                    .store
                    .list(Bucket::Heartbeat, "heartbeat", far_future());
                let listing = listing.ok();
                self.at(
                    answer_at,
                    Event::ListAnswered {
                        node,
                        serial,
                        listing,
                    },
                );
            }
            Event::ListAnswered {
                node,
                serial,
                listing,
            } => {
                let node = &mut self.nodes[node];
                if node.lists == Some(serial) {
                    node.listed = Some(listing);
                }
            }
            other => self.happen_to_world(other),
        }
        Ok(())
    }

    fn beat(&mut self, index: usize, life: u64) {
        let now = self.now();
        let worker = &mut self.workers[index];
        if !worker.is_up || worker.life != life {
            return;
        }
        let frozen_until = worker.frozen_until;
        if frozen_until > now {
            let worker = index;
            return self.at(frozen_until, Event::Beat { worker, life });
        }
        let interval = Duration::from_secs(2) * 1_000 / u32::try_from(worker.rate).expect("a rate");
        let before = worker.applied;
        worker.take_up(&self.workers_store);
        let beat = worker.beat(&self.workers_store, now);
        let applied = worker.applied;
        if !beat || applied != before {
            self.note(|| format!("heartbeat of w-{index}, applied {applied:?}, stored: {beat}"));
        }
        self.after(
            interval,
            Event::Beat {
                worker: index,
                life,
            },
        );
    }

    /// Adds a worker that is not started yet.
    pub fn add_worker(&mut self) {
        let worker = Worker::new(self.workers.len(), self.rng.u64(900..=1_100));
        self.workers.push(worker);
    }

    /// Starts a worker.
    pub fn worker_up(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        worker.is_up = true;
        worker.life += 1;
        worker.frozen_until = Time::ZERO;
        let life = worker.life;
        self.note(|| format!("w-{index} starts"));
        self.after(
            Duration::ZERO,
            Event::Beat {
                worker: index,
                life,
            },
        );
    }

    /// Ends a worker, by a leave or a crash.
    pub fn worker_down(&mut self, index: usize, gracefully: bool) {
        let worker = &mut self.workers[index];
        worker.is_up = false;
        worker.life += 1;
        if gracefully {
            worker.leave(&self.workers_store);
        }
        self.note(|| {
            format!(
                "w-{index} {}",
                if gracefully { "leaves" } else { "crashes" }
            )
        });
    }

    // --- the publisher's calls ---

    /// Handles a request of a publisher thread.
    pub fn asked(&mut self, node: usize, ask: Ask, deadline: Time) {
        self.serials += 1;
        let serial = self.serials;
        self.nodes[node].waits_for = Some(serial);
        self.note(|| format!("node {node} asks {}", readable(&format!("{ask:?}"))));
        match ask {
            Ask::Pause(duration) => {
                let answer = Answer::Pause;
                let delay = self.nodes[node].clock.to_true(duration);
                self.after(
                    delay,
                    Event::Answered {
                        node,
                        serial,
                        answer,
                    },
                );
            }
            Ask::Think => {
                let delay = self.millis(0, self.network.think_max_ms);
                let thought = match (self.chance(self.network.strategy_fault), self.rng.bool()) {
                    (false, _) => Thought::Good,
                    (true, false) => Thought::Failed,
                    (true, true) => Thought::Invalid,
                };
                let answer = Answer::Think(thought);
                self.after(
                    delay,
                    Event::Answered {
                        node,
                        serial,
                        answer,
                    },
                );
            }
            Ask::Source => {
                let delay = self.millis(0, self.network.think_max_ms);
                self.after(delay, Event::SourceRead { node, serial });
            }
            ask => self.send(node, serial, ask, deadline),
        }
    }

    fn send(&mut self, node: usize, serial: Serial, ask: Ask, by: Time) {
        self.nodes[node].calls += 1;
        let now = self.now();
        let mut deadline = self.nodes[node].own_clock.when(by);
        if now >= deadline {
            let answer = not_sent(&ask);
            self.after(
                Duration::ZERO,
                Event::Answered {
                    node,
                    serial,
                    answer,
                },
            );
            return;
        }
        let blackout = self.blackout.or(self.nodes[node].blackout);
        if let Some(blackout) = blackout {
            let (at, answer) = match blackout {
                Blackout::Refuse => (now + self.millis(0, 5), refused(&ask)),
                Blackout::Hang => (deadline, unanswered(&ask)),
            };
            self.at(
                at,
                Event::Answered {
                    node,
                    serial,
                    answer,
                },
            );
            return;
        }
        let count = match &ask {
            Ask::Write(_, writes) => writes.len(),
            _ => 1,
        };
        let is_write = matches!(ask, Ask::Write(..) | Ask::Batch(..));
        let fates: Vec<Fate> = (0..count).map(|_| self.fate(is_write)).collect();
        let mut arrives_at = now + self.millis(0, self.network.delay_max_ms);
        if is_write && !self.is_quiet && self.chance(NAP) {
            arrives_at = self.nap(node);
            deadline = self.nodes[node].own_clock.when(by);
        }
        let mut answer_at = arrives_at + self.millis(0, self.network.delay_max_ms);
        let is_unknown = |fate: &Fate| !matches!(fate, Fate::Arrives | Fate::Busy | Fate::Refused);
        if fates.iter().any(is_unknown) && self.rng.bool() {
            answer_at = deadline;
        }
        if answer_at >= deadline {
            let answer = unanswered(&ask);
            self.at(
                deadline,
                Event::Answered {
                    node,
                    serial,
                    answer,
                },
            );
        }
        let sent = self.sent_by(node, &ask);
        let call = Call {
            sent,
            ask,
            fates,
            answer_at,
        };
        self.calls.insert(serial, call);
        self.at(arrives_at, Event::Arrives(serial));
    }

    /// Pauses a leader in the middle of a publication while another one is elected: its writes
    /// reach the store when it resumes.
    fn nap(&mut self, node: usize) -> Time {
        let nap = self.millis(200, 12_000);
        let until = self.now() + nap;
        let sleeper = &mut self.nodes[node];
        sleeper.frozen_until = sleeper.frozen_until.max(until);
        // Not every clock of deadlines continues during a pause.
        let stops = self.rng.bool();
        if stops {
            self.nodes[node].own_clock.stand_still(nap);
        }
        self.tally("pause during a publication");
        self.note(|| format!("node {node} is paused until {until:?}"));
        self.at(until, Event::Thaw);
        match self.nodes[node].member {
            Some(member) => self.members[member].frozen_until = until,
            None => self.elect(),
        }
        until
    }

    fn sent_by(&self, node: usize, ask: &Ask) -> Sent {
        let promise = match ask {
            Ask::Batch(..) => Promise::FromFence,
            _ => Promise::FromTakeOver,
        };
        Sent {
            node,
            term: self.nodes[node].term_in_force(),
            promise,
            bucket: self.buckets,
        }
    }

    pub fn fate(&mut self, is_write: bool) -> Fate {
        if !self.chance(self.network.fault) {
            return Fate::Arrives;
        }
        match self.rng.u8(0..if is_write { 5 } else { 2 }) {
            0 => Fate::Refused,
            1 => Fate::RequestLost,
            2 => Fate::ReplyLost,
            3 => Fate::Busy,
            _ => Fate::Late(self.millis(0, 20_000)),
        }
    }

    fn arrives(&mut self, serial: Serial) -> Checked {
        let Some(call) = self.calls.remove(&serial) else {
            return Ok(());
        };
        let node = call.sent.node;
        let answer = match &call.ask {
            Ask::Write(bucket, writes) => {
                let mut outcomes = Vec::with_capacity(writes.len());
                for (write, fate) in writes.iter().zip(&call.fates) {
                    let payload = Payload::One(*bucket, write.clone());
                    outcomes.push(self.deliver(call.sent, payload, *fate)?);
                }
                Answer::Write(outcomes)
            }
            Ask::Batch(bucket, batch) => {
                let payload = Payload::Batch(*bucket, batch.clone());
                Answer::Batch(self.deliver(call.sent, payload, call.fates[0])?)
            }
            read => self.read(read, call.fates[0]),
        };
        self.note(|| format!("node {node} gets {}", readable(&format!("{answer:?}"))));
        let at = call.answer_at.max(self.now());
        self.at(
            at,
            Event::Answered {
                node,
                serial,
                answer,
            },
        );
        Ok(())
    }

    fn deliver(&mut self, sent: Sent, payload: Payload, fate: Fate) -> Result<Outcome, String> {
        let unknown = || Outcome::Unknown("no answer".into());
        Ok(match fate {
            Fate::Arrives => self.apply(sent, &payload)?,
            Fate::RequestLost => unknown(),
            Fate::ReplyLost => {
                self.apply(sent, &payload)?;
                unknown()
            }
            Fate::Late(by) => {
                self.after(by, Event::ArrivesLate(sent, payload));
                unknown()
            }
            Fate::Busy => Outcome::Refused(Refusal::Busy),
            Fate::Refused => Outcome::Refused(Refusal::Unavailable("simulated".into())),
        })
    }

    /// The store accepts or rejects a write; accepted writes are checked.
    fn apply(&mut self, sent: Sent, payload: &Payload) -> Result<Outcome, String> {
        let (outcome, writes) = match payload {
            Payload::One(bucket, write) => {
                let one = std::slice::from_ref(write);
                let mut outcomes = self.store.write(*bucket, one, far_future());
                (outcomes.remove(0), one)
            }
            Payload::Batch(bucket, batch) => {
                let outcome = self.store.write_batch(*bucket, batch, far_future());
                (outcome, &batch.writes[..])
            }
        };
        if sent.term < self.checker.fence {
            self.tally(match outcome {
                Outcome::Done(_) => "deposed write before the end of the take-over",
                _ => "deposed write refused",
            });
        }
        if let Outcome::Done(_) = outcome
            && sent.bucket != self.buckets
        {
            // Restored data repeats earlier sequence numbers.
            if self.counts_from_time && !self.tally.contains_key("restored") {
                return Err(format!("{writes:?} were accepted in a later bucket"));
            }
            // Without sequences that start at the creation time, revisions of a former bucket
            // recur. A write that depends on one is a foreign write, to be detected and
            // overwritten.
            self.tally("write to a former bucket accepted");
            self.lifetimes.plan_disturbed = Some(self.now());
            for write in writes {
                self.checker.foreign(&write.key, write.value.as_deref());
            }
        } else if let Outcome::Done(_) = outcome {
            for write in writes {
                self.checker.accepted(sent.term, sent.promise, write)?;
            }
            if let Payload::Batch(..) = payload {
                self.check_batch(writes)?;
            }
        }
        Ok(outcome)
    }

    /// Checks that a batch with the commit record that carries a whole publication leaves a whole
    /// plan.
    fn check_batch(&mut self, writes: &[Write]) -> Checked {
        let is_commit = writes[0].key == divvy::wire::COMMIT_KEY;
        let is_split = self.store_batch_max() < 1_000;
        if !is_commit || is_split {
            return Ok(());
        }
        let listing = self.listing();
        self.checker.published_whole(&listing)
    }

    fn store_batch_max(&self) -> usize {
        let probe_result = self.store.capabilities(Bucket::Assignment, far_future());
        probe_result.map_or(0, |c| c.batch_max)
    }

    /// Returns the assignment bucket.
    pub fn listing(&self) -> Listing {
        self.store
            .list(Bucket::Assignment, "", far_future())
            .expect("a listing without faults")
    }

    fn read(&mut self, ask: &Ask, fate: Fate) -> Answer {
        match fate {
            Fate::Arrives => {}
            Fate::Refused => return refused(ask),
            _ => return unanswered(ask),
        }
        match ask {
            Ask::Capabilities => {
                Answer::Capabilities(self.store.capabilities(Bucket::Assignment, far_future()))
            }
            Ask::Read(bucket, key) => Answer::Read(self.store.read(*bucket, key, far_future())),
            Ask::List(bucket, prefix) => {
                Answer::List(self.store.list(*bucket, prefix, far_future()))
            }
            _ => unreachable!("not a read"),
        }
    }

    pub fn alive(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|&n| self.nodes[n].phase != Phase::Down)
    }
}

/// Formats lists of bytes as text.
pub fn readable(debug: &str) -> String {
    let mut text = String::with_capacity(debug.len());
    let mut rest = debug;
    while let Some(start) = rest.find('[') {
        let end = rest[start..]
            .find(']')
            .map_or(rest.len(), |end| start + end);
        let bytes = rest[start + 1..end].split(", ").map(str::parse::<u8>);
        match bytes.collect::<Result<Vec<u8>, _>>() {
            Ok(bytes) => {
                text.push_str(&rest[..start]);
                text.push_str(&String::from_utf8_lossy(&bytes));
                rest = &rest[(end + 1).min(rest.len())..];
            }
            Err(_) => {
                text.push_str(&rest[..=start]);
                rest = &rest[start + 1..];
            }
        }
    }
    text.push_str(rest);
    text
}

/// Returns a store, and whether its sequences start at the creation time.
pub fn store(clock: &ManualClock, batch_max: usize, rng: &mut Rng) -> (MemoryStore, bool) {
    let builder = MemoryStore::builder()
        .manual_clock(clock.clone())
        .batch_max(batch_max)
        .expiry_markers(rng.bool())
        .watch_capacity(if rng.bool() { 32 } else { 1_024 });
    // The other records belong to parti or an operator.
    let counts_from_time = rng.bool();
    let builder = match counts_from_time {
        true => builder.sequences_from_time(EPOCH),
        false => builder,
    };
    (builder.build(), counts_from_time)
}

/// The settings common to all leaders.
pub fn make_buckets(store: &MemoryStore, config: &CalculatorConfig) {
    let heartbeats = BucketConfig {
        ttl: Some(config.heartbeat_ttl),
    };
    let assignments = BucketConfig { ttl: None };
    for (bucket, wanted) in [
        (Bucket::Heartbeat, heartbeats),
        (Bucket::Assignment, assignments),
    ] {
        let made = store.ensure(bucket, wanted, far_future());
        made.expect("a bucket");
    }
}

/// The default timing, and shorter ones.
fn config(rng: &mut Rng) -> CalculatorConfig {
    let mut config = CalculatorConfig::default();
    match rng.u8(0..3) {
        0 => config.list_shrink_hold = Duration::from_secs(rng.u64(0..30)),
        _ => config.max_list_shrink = 1.0,
    }
    let seconds =
        |rng: &mut Rng, from: u64, to: u64| Duration::from_millis(rng.u64(from..=to) * 500);
    if rng.bool() {
        config.emergency_grace_period = seconds(rng, 2, 10);
        config.cooldown = seconds(rng, 1, 20);
        config.cold_start_window = seconds(rng, 1, 60);
        config.initial_delay = config.cooldown;
        config.planned_scale_window = seconds(rng, 1, 20);
        config.leave_window = seconds(rng, 0, 4);
        config.join_coalescing = Duration::from_millis(rng.u64(0..200));
        config.recovery_grace = Some(seconds(rng, 0, 30));
        config.operation_timeout = seconds(rng, 2, 20);
    }
    config
}

/// The deadline passed before anything was sent.
fn not_sent(ask: &Ask) -> Answer {
    let refusal = || Outcome::Refused(Refusal::Unavailable("too late to be sent".into()));
    match ask {
        Ask::Write(_, writes) => Answer::Write(writes.iter().map(|_| refusal()).collect()),
        Ask::Batch(..) => Answer::Batch(refusal()),
        read => unanswered(read),
    }
}

fn unanswered(ask: &Ask) -> Answer {
    let unknown = || Outcome::Unknown("no answer by the deadline".into());
    match ask {
        Ask::Write(_, writes) => Answer::Write(writes.iter().map(|_| unknown()).collect()),
        Ask::Batch(..) => Answer::Batch(unknown()),
        read => failed(read, Code::TimedOut),
    }
}

fn refused(ask: &Ask) -> Answer {
    let refusal = || Outcome::Refused(Refusal::Unavailable("blackout".into()));
    match ask {
        Ask::Write(_, writes) => Answer::Write(writes.iter().map(|_| refusal()).collect()),
        Ask::Batch(..) => Answer::Batch(refusal()),
        read => failed(read, Code::Unavailable),
    }
}

fn failed(ask: &Ask, code: Code) -> Answer {
    let error = Error::new(code, "simulated");
    match ask {
        Ask::Capabilities => Answer::Capabilities(Err(error)),
        Ask::Read(..) => Answer::Read(Err(error)),
        Ask::List(..) => Answer::List(Err(error)),
        other => unreachable!("{other:?} is not a read"),
    }
}

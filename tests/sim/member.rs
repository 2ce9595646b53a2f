//! A simulated worker process: the shipped manager machine, its requests executed by the shipped
//! code, its watches, and the calculator that runs while it leads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use divvy::error::{Code, Error, Result};
use divvy::machine::calculator::{CalculatorEvent, OpId};
use divvy::machine::election::Rule;
use divvy::machine::manager::{
    CalculatorReport, Departure, ManagerAction, ManagerEvent, ManagerInput, ManagerMachine,
};
use divvy::machine::request::{Answer, Request};
use divvy::runtime::sim::{EventLog, GuardedStore, ask_through, perform_when};
use divvy::store::memory::{Blackout, MemoryStore};
use divvy::store::{
    Batch, Bucket, BucketConfig, BucketStatus, Capabilities, Entry, Health, HealthEvents, Listing,
    Outcome, Refusal, Store, Watch, Write,
};
use divvy::types::{Time, WorkerId};
use divvy::wire::{Applied, LEASE_KEY};
use parking_lot::Mutex;

use crate::check::Checked;
use crate::lockstep_publisher::far_future;
use crate::node::Phase;
use crate::own_clock::{LocalClock, OwnClock};
use crate::world::{Event, Fate, World};

/// Limit of the steps of one process at one moment, to detect endless loops.
const SPINS_MAX: u32 = 1_000;

/// Messages in flight between a manager and the store.
pub enum DelayedRequest {
    /// A request and its fate.
    Asks {
        member: usize,
        op: OpId,
        request: Request,
        sent: Sent,
        fate: Fate,
        answer_at: Time,
    },
    /// A write whose caller timed out long ago.
    Late(Sent),
    Answered {
        member: usize,
        op: OpId,
        answer: Answer,
    },
}

/// A write in flight. `None`: a read.
pub type Sent = Option<(Bucket, Write)>;

/// A worker process.
pub struct Member {
    pub machine: ManagerMachine,
    pub clock: LocalClock,
    pub client: MemoryStore,
    /// The slot of the fleet that it uses.
    pub slot: usize,
    pub is_up: bool,
    pub has_joined: bool,
    pub frozen_until: Time,
    /// When its clock stopped.
    pub stopped_at: Option<Time>,
    /// Until when its clock is unreliable.
    pub uncertain_until: Time,
    pub blackout: Option<Blackout>,
    /// Its watches are late or lost.
    pub is_dim: bool,
    pub node: Option<usize>,
    /// It was asked to leave.
    pub departure: Option<Departure>,
    /// The applied term and version, by id.
    pub applied: (Option<WorkerId>, Applied),
    inbox: VecDeque<ManagerInput>,
    lease: Watch,
    assignment: Option<Watch>,
    health: HealthEvents,
    /// Only for the breaker and the retry budget: the simulation answers the calls.
    store: Arc<GuardedStore>,
    event_log: EventLog,
}

impl Member {
    /// When the process has due work.
    pub fn next_time(&self, now: Time) -> Option<Time> {
        if self.frozen_until > now {
            return Some(self.frozen_until);
        }
        let deadline = self.machine.deadline()?;
        Some(self.clock.when(deadline).max(now))
    }

    /// An event of the calculator, if it is still the current one.
    pub fn calculator(&mut self, node: usize, event: CalculatorReport) {
        if self.node == Some(node) {
            self.inbox.push_back(ManagerInput::Calculator(event));
        }
    }

    fn next_input(&mut self) -> Option<ManagerInput> {
        if let Ok(event) = self.lease.events.try_recv() {
            return Some(ManagerInput::Lease(event));
        }
        let assignment = self.assignment.as_ref();
        if let Some(Ok(event)) = assignment.map(|watch| watch.events.try_recv()) {
            return Some(ManagerInput::Assignment(event));
        }
        if let Ok(health) = self.health.try_recv() {
            self.store.observe_health(&health);
            return Some(ManagerInput::StoreHealth(health.fault()));
        }
        self.inbox.pop_front()
    }
}

impl World {
    /// Starts a new process in a slot of the fleet.
    pub fn start_member(&mut self, slot: usize) {
        let index = self.members.len();
        let clock = LocalClock {
            rate: self.rng.u64(900..=1_100),
            offset: self.rng.u64(1..1_000_000_000_000) + 100_000_000_000_000,
        };
        let seed = self.rng.u64(..);
        let mut config = self.lifetimes.config.clone();
        if self.lifetimes.has_instances {
            config.instance = format!("slot-{slot}");
        }
        let local = clock.of(self.now());
        let machine = ManagerMachine::new(config, Rule::Lease, local, seed)
            .expect("a manager's configuration");
        let client = self.store.client(&format!("member {index}"));
        if let Some(how) = self.blackout {
            client.faults().blackout(how);
        }
        self.note(|| format!("member {index} starts in slot {slot}, {clock:?}"));
        let own_clock = Arc::new(OwnClock::new(self.clock.clone(), clock));
        let store = GuardedStore::new(Arc::new(client.clone()), own_clock, seed);
        self.members.push(Member {
            store: Arc::new(store),
            event_log: EventLog::default(),
            machine,
            clock,
            lease: client
                .watch_key(Bucket::Election, LEASE_KEY)
                .expect("a watch"),
            assignment: None,
            health: client.health_events(),
            client,
            slot,
            is_up: true,
            has_joined: false,
            frozen_until: Time::ZERO,
            stopped_at: None,
            uncertain_until: Time::ZERO,
            blackout: None,
            is_dim: false,
            node: None,
            departure: None,
            applied: (None, Applied::default()),
            inbox: VecDeque::from([ManagerInput::Start]),
        });
        self.lifetimes.alive.push(index);
        self.lifetimes.is_dirty = true;
    }

    /// Ends the process.
    pub fn end_member(&mut self, m: usize) -> Checked {
        let member = &mut self.members[m];
        member.is_up = false;
        member.assignment = None;
        let _ = member.client.stop(far_future());
        self.lifetimes.alive.retain(|&alive| alive != m);
        self.lifetimes.is_dirty = true;
        match self.members[m].node.take() {
            Some(node) => self.stop_node(node),
            None => Ok(()),
        }
    }

    /// The host stops the worker.
    pub fn ask_member_to_go(&mut self, m: usize, how: Departure) {
        let member = &mut self.members[m];
        if member.departure.is_none() {
            member.departure = Some(how);
            member.inbox.push_back(ManagerInput::Stop(how));
            self.note(|| format!("member {m} stops: {how:?}"));
        }
    }

    /// Runs every manager until it has no due work. Returns whether there was any.
    pub fn poll_members(&mut self) -> Result<bool, String> {
        let mut busy = false;
        let mut index = 0;
        while let Some(&m) = self.lifetimes.alive.get(index) {
            busy |= self.poll_member(m)?;
            // A departed member has left the list.
            index += usize::from(self.lifetimes.alive.get(index) == Some(&m));
        }
        self.lifetimes.is_dirty |= busy;
        Ok(busy)
    }

    fn poll_member(&mut self, m: usize) -> Result<bool, String> {
        let mut busy = false;
        for _ in 0..SPINS_MAX {
            let now = self.now();
            let member = &mut self.members[m];
            if !member.is_up || member.frozen_until > now {
                return Ok(busy);
            }
            self.wake(m);
            let member = &mut self.members[m];
            let local = member.clock.of(now);
            if let Some(input) = member.next_input() {
                member.machine.handle(local, input);
            } else if member.machine.deadline().is_some_and(|due| due <= local) {
                member.machine.tick(local);
            } else {
                return Ok(busy);
            }
            busy = true;
            self.carry_out_of(m)?;
        }
        let member = &self.members[m];
        Err(format!("member {m} loops endlessly: {:?}", member.machine))
    }

    /// A stopped clock continues from where it was.
    fn wake(&mut self, m: usize) {
        let now = self.now();
        let ttl = self.lifetimes.config.worker_id_ttl;
        let member = &mut self.members[m];
        let Some(since) = member.stopped_at.take() else {
            return;
        };
        let pause = now.since(since).as_nanos() * u128::from(member.clock.rate) / 1_000;
        member.clock.offset -= u64::try_from(pause).expect("a pause");
        member.uncertain_until = now + ttl;
        let (clock, node) = (member.clock, member.node);
        if let Some(node) = node {
            self.nodes[node].clock = clock;
        }
    }

    fn carry_out_of(&mut self, m: usize) -> Checked {
        while let Some(action) = self.members[m].machine.poll_action() {
            match action {
                ManagerAction::Request {
                    op,
                    request,
                    timeout,
                } => self.send_request(m, op, request, timeout),
                ManagerAction::Watch(worker) => {
                    let member = &mut self.members[m];
                    let key = format!("assignment.{worker}");
                    let watch = member.client.watch_key(Bucket::Assignment, &key);
                    member.assignment = Some(watch.expect("a watch"));
                }
                ManagerAction::Lead(worker) => self.lead(m, &worker)?,
                ManagerAction::StepDown => {
                    let node = self.members[m].node.ok_or("no calculator to step down")?;
                    let delay = self.millis(0, 100);
                    self.after(delay, Event::StandDown { member: m, node });
                }
                ManagerAction::Notify(notice) => {
                    let now = self.now();
                    let member = &mut self.members[m];
                    member.event_log.note_manager(member.clock.of(now), &notice);
                    self.member_notice(m, &notice);
                }
                ManagerAction::Cache(order) => {
                    return Err(format!("{order:?} without a cache file"));
                }
                ManagerAction::Joined => self.members[m].has_joined = true,
                ManagerAction::Departed => {
                    self.note(|| format!("member {m} has departed"));
                    if self.members[m].node.is_some() {
                        return Err(format!("member {m} departs while its calculator runs"));
                    }
                    return self.end_member(m);
                }
            }
        }
        self.check_applied(m)
    }

    fn member_notice(&mut self, m: usize, notice: &ManagerEvent) {
        self.note(|| format!("member {m}: {notice:?}"));
        match notice {
            ManagerEvent::IdLost { .. } => self.tally("id lost"),
            ManagerEvent::IdTakenOver { .. } => self.tally("id taken over"),
            // The other process of the slot is certain of the id until it looks.
            ManagerEvent::Id(Some(_)) if self.lifetimes.has_instances && self.shares_slot(m) => {
                self.lifetimes.ids_disturbed = Some(self.now());
            }
            ManagerEvent::IdRegained { .. } => self.tally("id regained"),
            ManagerEvent::Degraded { .. } => self.tally("worker degraded"),
            ManagerEvent::Recovered { .. } => self.tally("worker recovered"),
            ManagerEvent::Leader { is_self: true, .. } => self.tally("lease won"),
            ManagerEvent::Failed { error } if error.code() == Code::IdsExhausted => {
                self.tally("ids exhausted");
            }
            _ => {}
        }
    }

    /// Whether another process of its slot still runs.
    pub fn shares_slot(&self, m: usize) -> bool {
        let slot = self.members[m].slot;
        let is_other = |&other: &usize| other != m && self.members[other].slot == slot;
        self.lifetimes.alive.iter().any(is_other)
    }

    /// Checks that the versions and terms that a worker applied under one id never decrease.
    fn check_applied(&mut self, m: usize) -> Checked {
        let member = &mut self.members[m];
        let now = (member.machine.worker().cloned(), member.machine.applied());
        let (id, before) = std::mem::replace(&mut member.applied, now.clone());
        let (before, after) = ((before.term, before.version), (now.1.term, now.1.version));
        if id == now.0 && after < before {
            return Err(format!(
                "member {m} ({id:?}) went from {before:?} to {after:?}"
            ));
        }
        Ok(())
    }

    // --- the calculator ---

    fn lead(&mut self, m: usize, worker: &WorkerId) -> Checked {
        if self.members[m].node.is_some() {
            return Err(format!("member {m} leads twice"));
        }
        let mut config = self.config.clone();
        config.name = worker.as_str().to_owned();
        config.former_leader_lease_over = true;
        let (clock, blackout) = (self.members[m].clock, self.members[m].blackout);
        let node = self.nodes.len();
        self.members[m].node = Some(node);
        self.start_node(config, clock, Some(m))?;
        if let Some(how) = blackout.or(self.blackout) {
            self.nodes[node].blackout = blackout;
            self.nodes[node].client.faults().blackout(how);
        }
        Ok(())
    }

    pub fn notify_member(&mut self, m: usize, node: usize, notice: &CalculatorEvent) {
        let in_force = self.nodes[node].in_force.get();
        if let Some(report) = CalculatorReport::of_event(notice, in_force) {
            self.members[m].calculator(node, report);
        }
    }

    pub fn stands_down(&mut self, m: usize, node: usize) -> Checked {
        if self.nodes[node].phase != Phase::Down {
            self.stop_node(node)?;
        }
        let member = &mut self.members[m];
        if member.node == Some(node) {
            member.node = None;
            member
                .inbox
                .push_back(ManagerInput::Calculator(CalculatorReport::Ended));
        }
        Ok(())
    }

    // --- requests ---

    fn send_request(&mut self, m: usize, op: OpId, request: Request, timeout: Duration) {
        let now = self.now();
        let deadline = now + self.members[m].clock.to_true(timeout);
        let sent = written(&request, now);
        if let Some(how) = self.blackout.or(self.members[m].blackout) {
            let mut is_asked = false;
            let store = Arc::clone(&self.members[m].store);
            let answer = ask_through(&store, &request, || {
                is_asked = true;
                let code = match how {
                    Blackout::Refuse => Code::Unavailable,
                    Blackout::Hang => Code::TimedOut,
                };
                failed(&request, &sent, code)
            });
            let at = match how {
                Blackout::Hang if is_asked => deadline,
                _ => now + self.millis(0, 5),
            };
            self.lifetimes.calls += u64::from(is_asked);
            return self.answer_request(m, op, answer, at);
        }
        let fate = self.fate(sent.is_some());
        let arrives_at = now + self.millis(0, self.network.delay_max_ms);
        let mut answer_at = arrives_at + self.millis(0, self.network.delay_max_ms);
        let is_heard = matches!(fate, Fate::Arrives | Fate::Busy | Fate::Refused);
        if !is_heard && self.rng.bool() {
            answer_at = deadline;
        }
        if answer_at >= deadline {
            let answer = failed(&request, &sent, Code::TimedOut);
            self.answer_request(m, op, answer, deadline);
        }
        let delayed_request = DelayedRequest::Asks {
            member: m,
            op,
            request,
            sent,
            fate,
            answer_at,
        };
        self.at(arrives_at, Event::DelayedRequest(delayed_request));
    }

    fn answer_request(&mut self, member: usize, op: OpId, answer: Answer, at: Time) {
        let delayed_request = DelayedRequest::Answered { member, op, answer };
        self.at(at, Event::DelayedRequest(delayed_request));
    }

    /// The breaker is consulted when a request arrives: for the breaker, requests take no time in
    /// transit.
    pub fn delayed_request(&mut self, delayed_request: DelayedRequest) {
        match delayed_request {
            DelayedRequest::Answered { member, op, answer } => {
                // The machine drops an answer that arrives after its deadline.
                let member = &mut self.members[member];
                if member.is_up {
                    member
                        .inbox
                        .push_back(ManagerInput::Answered { op, answer });
                }
            }
            DelayedRequest::Late(sent) => {
                let outcome = sent.map(|sent| self.put(sent));
                self.note(|| format!("a late write of a manager: {outcome:?}"));
            }
            DelayedRequest::Asks {
                member,
                op,
                request,
                sent,
                fate,
                answer_at,
            } => {
                let store = Arc::clone(&self.members[member].store);
                let mut is_asked = false;
                let answer = ask_through(&store, &request, || {
                    is_asked = true;
                    self.arrive(&request, sent, fate)
                });
                let answer_at = if is_asked { answer_at } else { self.now() };
                self.note(|| {
                    let answer = crate::world::readable(&format!("{answer:?}"));
                    format!("member {member} asked {request:?}: {answer}")
                });
                self.answer_request(member, op, answer, answer_at.max(self.now()));
            }
        }
    }

    fn arrive(&mut self, request: &Request, sent: Sent, fate: Fate) -> Answer {
        let Some((bucket, write)) = sent else {
            let wall = wall_clock(self.now());
            return match fate {
                Fate::Arrives => perform_when(&self.store, request.clone(), far_future(), wall),
                Fate::Refused => failed(request, &None, Code::Unavailable),
                _ => failed(request, &None, Code::TimedOut),
            };
        };
        let value = write.value.clone().unwrap_or_default();
        let unknown = Outcome::Unknown("no answer".into());
        let outcome = match fate {
            Fate::Arrives => self.put((bucket, write)),
            Fate::RequestLost => unknown,
            Fate::ReplyLost => {
                self.put((bucket, write));
                unknown
            }
            Fate::Late(by) => {
                self.after(
                    by,
                    Event::DelayedRequest(DelayedRequest::Late(Some((bucket, write)))),
                );
                unknown
            }
            Fate::Busy => Outcome::Refused(Refusal::Busy),
            Fate::Refused => Outcome::Refused(Refusal::Unavailable("simulated".into())),
        };
        Answer::Written { outcome, value }
    }

    fn put(&mut self, (bucket, write): (Bucket, Write)) -> Outcome {
        self.store.write(bucket, &[write], far_future()).remove(0)
    }
}

/// The wall clock jumps by decades every second: no behaviour may depend on it.
fn wall_clock(now: Time) -> Time {
    let seconds = now.as_nanos() / 1_000_000_000;
    let decades = [0, 6, 3][usize::try_from(seconds % 3).expect("below 3")];
    now + Duration::from_secs(decades * 10 * 365 * 24 * 3_600)
}

/// Returns the write that executes a request, as the shipped code would make it now.
fn written(request: &Request, now: Time) -> Sent {
    if !matches!(request, Request::Put { .. } | Request::Delete { .. }) {
        return None;
    }
    let recorder = RequestRecorder::default();
    let _ = perform_when(&recorder, request.clone(), far_future(), wall_clock(now));
    recorder.0.into_inner()
}

fn failed(request: &Request, sent: &Sent, code: Code) -> Answer {
    let error = Error::new(code, "simulated");
    match request {
        Request::Ensure { .. } => Answer::Ensured(Err(error)),
        Request::List(_) => Answer::Listed(Err(error)),
        Request::CountClaims => Answer::Claims(Err(error)),
        Request::Read { .. } => Answer::Read(Err(error)),
        Request::Campaign(_) | Request::Resign(_) => Answer::Campaigned(Err(error)),
        Request::Put { .. } | Request::Delete { .. } => {
            let write = sent.as_ref().and_then(|(_, write)| write.value.clone());
            Answer::Written {
                outcome: match code {
                    Code::TimedOut => Outcome::Unknown("no answer by the deadline".into()),
                    _ => Outcome::Refused(Refusal::Unavailable("blackout".into())),
                },
                value: write.unwrap_or_default(),
            }
        }
    }
}

/// A store that records a write until the scheduler sends it.
#[derive(Default)]
struct RequestRecorder(Mutex<Sent>);

impl Store for RequestRecorder {
    fn identity(&self) -> String {
        String::new()
    }

    fn write(&self, bucket: Bucket, writes: &[Write], _: std::time::Instant) -> Vec<Outcome> {
        *self.0.lock() = writes.first().map(|write| (bucket, write.clone()));
        vec![Outcome::Unknown("in flight".into())]
    }

    fn ensure(&self, _: Bucket, _: BucketConfig, _: std::time::Instant) -> Result<BucketStatus> {
        unreachable!("only writes are recorded")
    }

    fn capabilities(&self, _: Bucket, _: std::time::Instant) -> Result<Capabilities> {
        unreachable!("only writes are recorded")
    }

    fn read(&self, _: Bucket, _: &str, _: std::time::Instant) -> Result<Option<Entry>> {
        unreachable!("only writes are recorded")
    }

    fn list(&self, _: Bucket, _: &str, _: std::time::Instant) -> Result<Listing> {
        unreachable!("only writes are recorded")
    }

    fn write_batch(&self, _: Bucket, _: &Batch, _: std::time::Instant) -> Outcome {
        unreachable!("only writes are recorded")
    }

    fn watch(&self, _: Bucket, _: &str) -> Result<Watch> {
        unreachable!("only writes are recorded")
    }

    fn watch_key(&self, _: Bucket, _: &str) -> Result<Watch> {
        unreachable!("only writes are recorded")
    }

    fn health(&self) -> Health {
        unreachable!("only writes are recorded")
    }

    fn health_events(&self) -> HealthEvents {
        unreachable!("only writes are recorded")
    }

    fn stop(&self, _: std::time::Instant) -> Result<()> {
        unreachable!("only writes are recorded")
    }
}

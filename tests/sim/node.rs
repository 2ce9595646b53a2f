//! A simulated leader process: the shipped machine, observer, publisher and notifier, and a shell
//! like the shipped one without its threads.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use divvy::config::{CalculatorConfig, PublishMode};
use divvy::error::{Code, Error, Result};
use divvy::machine::breaker::BreakerCondition;
use divvy::machine::calculator::{
    CalculatorEvent, CalculatorInput, CalculatorMachine, Job, JobReport, OpId, Ticket,
};
use divvy::machine::engine::calculator_effects::{
    CalculatorEffects, CalculatorShell, MonitorOrder, took_over,
};
use divvy::machine::engine::monitor_engine::{MonitorAction, MonitorEngine, MonitorWatch};
use divvy::machine::liveness::MembershipEvent;
use divvy::machine::manager::{CalculatorReport, TAKE_OVER_TIMEOUT};
use divvy::machine::position::Position;
use divvy::runtime::publish::partition_list::Partitions;
use divvy::runtime::publish::publisher::{Effective, PublisherSettings};
use divvy::runtime::sim::{BareHub, BreakerListener, EventLog, GuardedStore};
use divvy::runtime::{EventFilter, Events};
use divvy::store::memory::{Blackout, MemoryStore};
use divvy::store::{Bucket, HealthEvents, Listing, Store, Watch};
use divvy::types::{Term, Time, Version, WorkerId};
use divvy::wire::KeyPrefix;
use divvy::{BreakerState, DegradationCause, MemberChange};

use crate::check::{Checked, Story};
use crate::lockstep_publisher::{Actor, Answer, Order, Parts, Said, Spawned};
use crate::own_clock::{LocalClock, OwnClock};
use crate::world::{Event, Serial, World};

/// Limit of the steps of one process at one moment, to detect endless loops.
const SPINS_MAX: u32 = 10_000;

/// Maximum delay of watch events.
pub const WATCH_DELAY_MAX: Duration = Duration::from_millis(1_500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Running,
    Down,
}

/// A subscriber that reads its events from time to time.
struct Subscriber {
    events: Events,
    start: usize,
    heard: Vec<String>,
}

pub struct Node {
    pub phase: Phase,
    /// The member that owns the calculator, where whole managers are simulated.
    pub member: Option<usize>,
    name: String,
    pub clock: LocalClock,
    pub machine: CalculatorMachine,
    pub monitor: MonitorEngine,
    orders: VecDeque<MonitorOrder>,
    pub client: MemoryStore,
    pub partitions: Arc<Partitions>,
    pub frozen_until: Time,
    pub blackout: Option<Blackout>,
    /// The clock of its deadlines.
    pub own_clock: Arc<OwnClock>,
    pub waits_for: Option<Serial>,
    pub ready: Option<Answer>,
    pub lists: Option<Serial>,
    /// The answer to the listing. `None` inside: it failed.
    pub listed: Option<Option<Listing>>,
    pub inbox: VecDeque<CalculatorInput>,
    pub tickets: BTreeSet<u64>,
    pub is_over: bool,
    actor: Option<Actor>,
    pub in_force: Arc<Effective>,
    pub store: Arc<GuardedStore>,
    pub started: Time,
    /// Store calls, except those of the watches.
    pub calls: u64,
    /// Whether the machine was notified of a lost watch.
    is_watch_lost: bool,
    breaker: Receiver<BreakerCondition>,
    event_log: EventLog,
    watches: Option<(Watch, Watch, HealthEvents)>,
    list_op: Option<OpId>,
    job: Option<OpId>,
    hub: BareHub,
    story: Story,
    subscribers: Vec<Subscriber>,
}

impl Node {
    pub fn term_in_force(&self) -> Term {
        self.in_force.get().term
    }

    pub fn is_frozen(&self, now: Time) -> bool {
        self.frozen_until > now
    }

    /// When the process has due work.
    pub fn next_time(&self, now: Time) -> Option<Time> {
        if self.phase != Phase::Running || self.is_frozen(now) {
            return None;
        }
        let watch = match self.lists {
            Some(_) => None,
            None => self.monitor.deadline(),
        };
        let next = self.machine.deadline().into_iter().chain(watch).min()?;
        Some(self.clock.when(next).max(now))
    }

    pub fn subscribe(&mut self) {
        let subscriber = Subscriber {
            events: self.hub.events(EventFilter::State),
            start: self.story.len(),
            heard: Vec::new(),
        };
        // The first event reports the current state and is not a transition.
        let first = subscriber.events.try_recv();
        let position = self.machine.position();
        match first.as_deref() {
            Some(CalculatorEvent::StateChanged(change)) => assert_eq!(change.from, change.to),
            other => panic!("received {other:?} first, in {position:?}"),
        }
        self.subscribers.push(subscriber);
    }

    /// Each subscriber reads up to `count` events and compares them.
    pub fn listen(&mut self, count: usize) -> Checked {
        for subscriber in &mut self.subscribers {
            let events = &subscriber.events;
            let heard = std::iter::from_fn(|| events.try_recv()).take(count);
            subscriber
                .heard
                .extend(heard.map(|notice| format!("{notice:?}")));
            self.story.agrees(subscriber.start, &subscriber.heard)?;
            if count == usize::MAX && subscriber.start + subscriber.heard.len() != self.story.len()
            {
                return Err("a subscriber missed an event".into());
            }
        }
        Ok(())
    }
}

/// Shortest pause before a held list is read again.
const LIST_AGAIN: Duration = Duration::from_secs(1);

impl World {
    /// A leader process elected by the host takes over.
    pub fn start_leader(&mut self) -> Checked {
        let clock = LocalClock {
            rate: self.rng.u64(900..=1_100),
            offset: self.rng.u64(1..1_000_000_000_000),
        };
        let leader = self.rng.usize(0..self.workers.len() + 1);
        let mut config = self.config.clone();
        config.name = format!("w-{leader}");
        config.former_leader_lease_over = self.rng.bool();
        self.start_node(config, clock, None)
    }

    /// Starts the take-over of a calculator.
    pub fn start_node(
        &mut self,
        config: CalculatorConfig,
        clock: LocalClock,
        member: Option<usize>,
    ) -> Checked {
        let index = self.nodes.len();
        let class = match self.rng.u8(0..6) {
            0 if !self.lifetimes.is_atomic => PublishMode::PerKey,
            _ => PublishMode::Auto,
        };
        let prefix = |prefix| KeyPrefix::new(prefix).expect("a valid prefix");
        let in_force = Arc::new(Effective::default());
        let remembered = member.map(|m| self.members[m].machine.remembered());
        let remembered = remembered.unwrap_or_default();
        let own_clock = Arc::new(OwnClock::new(self.clock.clone(), clock));
        let Spawned {
            actor,
            partitions,
            store,
        } = Actor::spawn(Parts {
            settings: PublisherSettings {
                leader: config.name.clone(),
                assignment: prefix(&config.assignment_prefix),
                heartbeat: prefix(&config.heartbeat_prefix),
                mode: class,
                batch_max: config.publish_batch_max,
                heartbeat_ttl: config.heartbeat_ttl,
            },
            in_force: Arc::clone(&in_force),
            config: config.clone(),
            default_weight: config.default_weight,
            former_leader_lease_over: config.former_leader_lease_over,
            nonce: self.rng.u64(..),
            clock: Arc::clone(&own_clock),
            operation_timeout: config.operation_timeout,
            remembered,
        });
        let now = self.now();
        let seed = self.rng.u64(..);
        let machine = CalculatorMachine::new(config.clone(), clock.of(now), seed, true);
        let hub = BareHub::new(machine.current_state(), config.subscriber_backlog);
        self.note(|| {
            format!(
                "node {index} starts as {} ({class:?}), {clock:?}",
                config.name
            )
        });
        self.nodes.push(Node {
            phase: Phase::Starting,
            member,
            name: config.name.clone(),
            clock,
            machine,
            monitor: MonitorEngine::new(&config, seed).expect("valid prefixes"),
            orders: VecDeque::new(),
            client: self.store.client(&format!("node {index}")),
            partitions,
            frozen_until: Time::ZERO,
            blackout: None,
            own_clock,
            waits_for: None,
            ready: None,
            lists: None,
            listed: None,
            inbox: VecDeque::new(),
            tickets: BTreeSet::new(),
            is_over: false,
            actor: Some(actor),
            in_force,
            breaker: store.changes(BreakerListener::Calculator),
            store,
            started: now,
            calls: 0,
            is_watch_lost: false,
            event_log: EventLog::default(),
            watches: None,
            list_op: None,
            job: None,
            hub,
            story: Story::default(),
            subscribers: Vec::new(),
        });
        self.nodes[index].subscribe();
        self.leader = Some(index);
        self.order(index, Order::TakeOver(TAKE_OVER_TIMEOUT))
    }

    /// Ends the process, by a stop or a crash.
    pub fn stop_node(&mut self, n: usize) -> Checked {
        let node = &mut self.nodes[n];
        if node.phase == Phase::Down {
            return Ok(());
        }
        node.phase = Phase::Down;
        node.actor = None;
        node.watches = None;
        node.waits_for = None;
        node.lists = None;
        let _ = node.client.stop(crate::lockstep_publisher::far_future());
        node.listen(usize::MAX)?;
        self.note(|| format!("node {n} is down"));
        if self.nodes[n].member.is_some() {
            return Ok(());
        }
        if self.leader == Some(n) {
            self.leader = None;
            self.elect();
        }
        Ok(())
    }

    /// The host elects another leader soon.
    pub fn elect(&mut self) {
        self.starts_due += 1;
        let delay = self.millis(100, 3_000);
        self.after(delay, Event::StartLeader);
    }

    pub fn poll_nodes(&mut self) -> Checked {
        for n in 0..self.nodes.len() {
            if self.nodes[n].phase != Phase::Down {
                self.poll(n)?;
            }
        }
        Ok(())
    }

    /// Runs a process until it has no due work.
    fn poll(&mut self, n: usize) -> Checked {
        for _ in 0..SPINS_MAX {
            let now = self.now();
            let node = &mut self.nodes[n];
            if node.phase == Phase::Down || node.is_frozen(now) {
                return Ok(());
            }
            if let Some(answer) = node.ready.take() {
                node.waits_for = None;
                let said = node.actor.as_ref().and_then(|actor| actor.answer(answer));
                self.said(n, said)?;
                continue;
            }
            if node.phase == Phase::Starting {
                return Ok(());
            }
            let busy = self.watch(n)? | self.calculate(n)?;
            if !busy {
                return Ok(());
            }
        }
        Err(format!("node {n} loops endlessly"))
    }

    /// Runs one iteration of `dv-watch`. Returns whether there was work.
    fn watch(&mut self, n: usize) -> std::result::Result<bool, String> {
        let local = self.nodes[n].clock.of(self.now());
        let node = &mut self.nodes[n];
        let mut busy = false;
        if let Some(listing) = node.listed.take() {
            // The thread blocked on it, so watch events that arrived meanwhile are handled later.
            node.lists = None;
            busy = true;
            let result = listing.ok_or_else(|| Error::new(Code::Unavailable, "no listing"));
            let op = node.list_op.take();
            node.monitor.listed(local, op, result, node.in_force.get());
            self.perform_monitor(n);
        }
        if self.nodes[n].lists.is_some() {
            return Ok(busy);
        }
        busy |= self.handle_watch_event(n, local);
        let node = &mut self.nodes[n];
        busy |= node.monitor.deadline().is_some_and(|due| due <= local);
        node.monitor.tick(local, node.in_force.get());
        self.perform_monitor(n);
        Ok(busy)
    }

    /// Executes the actions of the monitor engine, unless the thread is blocked on a listing.
    fn perform_monitor(&mut self, n: usize) {
        let local = self.nodes[n].clock.of(self.now());
        while self.nodes[n].lists.is_none() {
            let node = &mut self.nodes[n];
            let Some(action) = node.monitor.poll_action() else {
                return;
            };
            match action {
                MonitorAction::Report(input) => node.inbox.push_back(input),
                MonitorAction::WatchLost {
                    watch: MonitorWatch::Heartbeats,
                    why,
                } => node.event_log.watch_lost(local, &why),
                MonitorAction::Open(missing) => {
                    let watch =
                        |bucket, prefix| node.client.watch(bucket, prefix).expect("a watch");
                    let heartbeats = watch(Bucket::Heartbeat, "heartbeat");
                    let assignments = watch(Bucket::Assignment, "");
                    let health = node.client.health_events();
                    node.watches = Some((heartbeats, assignments, health));
                    let in_force = node.in_force.get();
                    node.monitor.opened(local, &missing, None, in_force);
                }
                MonitorAction::List { op, timeout } => self.list(n, op, timeout),
                MonitorAction::WatchLost {
                    watch: MonitorWatch::Assignments,
                    ..
                } => node.in_force.watch_lost(),
                MonitorAction::WatchResynchronised(MonitorWatch::Assignments) => {
                    node.in_force.watch_resynchronised();
                }
                MonitorAction::LeaseEnded { .. }
                | MonitorAction::WatchResynchronised(MonitorWatch::Heartbeats)
                | MonitorAction::OpenFailed(_) => {}
            }
        }
    }

    fn handle_watch_event(&mut self, n: usize, local: Time) -> bool {
        let node = &mut self.nodes[n];
        if let Some(order) = node.orders.pop_front() {
            node.monitor.order(local, order);
            return true;
        }
        let Some((heartbeats, assignments, health)) = &node.watches else {
            return false;
        };
        let in_force = node.in_force.get();
        // Rare events first, as in the thread.
        if let Ok(health) = health.try_recv() {
            node.store.observe_health(&health);
            node.monitor.store_health(health);
        } else if let Ok(event) = assignments.events.try_recv() {
            let watch = MonitorWatch::Assignments;
            node.monitor.watch_event(local, watch, &event, in_force);
        } else if let Ok(event) = heartbeats.events.try_recv() {
            let watch = MonitorWatch::Heartbeats;
            node.monitor.watch_event(local, watch, &event, in_force);
        } else {
            return false;
        }
        true
    }

    fn list(&mut self, n: usize, op: Option<OpId>, timeout: Duration) {
        self.serials += 1;
        let serial = self.serials;
        let node = &mut self.nodes[n];
        node.lists = Some(serial);
        node.list_op = op;
        let deadline = self.now() + self.nodes[n].clock.to_true(timeout);
        let is_lost = self.chance(self.network.fault);
        if self.blackout.is_some() || self.nodes[n].blackout.is_some() || is_lost {
            let event = Event::ListAnswered {
                node: n,
                serial,
                listing: None,
            };
            return self.at(deadline, event);
        }
        let arrives_at = self.now() + self.millis(0, self.network.delay_max_ms);
        let answer_at = arrives_at + self.millis(0, self.network.delay_max_ms);
        if answer_at >= deadline {
            let event = Event::ListAnswered {
                node: n,
                serial,
                listing: None,
            };
            return self.at(deadline, event);
        }
        self.at(
            arrives_at,
            Event::ListArrives {
                node: n,
                serial,
                answer_at,
            },
        );
    }

    /// Runs one iteration of `dv-calc`. Returns whether there was work.
    fn calculate(&mut self, n: usize) -> std::result::Result<bool, String> {
        let local = self.nodes[n].clock.of(self.now());
        let node = &mut self.nodes[n];
        if let Ok(state) = node.breaker.try_recv() {
            self.note(|| format!("node {n}'s breaker: {state:?}"));
            self.nodes[n]
                .machine
                .handle(local, CalculatorInput::Breaker(state));
        } else if let Some(input) = node.inbox.pop_front() {
            if !matches!(input, CalculatorInput::JobDone { .. }) {
                self.note(|| format!("node {n} handles {input:?}"));
            }
            match input {
                CalculatorInput::Membership(MembershipEvent::WatchLost) => {
                    self.nodes[n].is_watch_lost = true
                }
                CalculatorInput::Membership(MembershipEvent::WatchRestored) => {
                    self.nodes[n].is_watch_lost = false
                }
                _ => {}
            }
            self.nodes[n].machine.handle(local, input);
        } else if node
            .machine
            .deadline()
            .is_some_and(|deadline| deadline <= local)
        {
            node.machine.tick(local);
        } else {
            return Ok(false);
        }
        self.carry_out(n)?;
        Ok(true)
    }

    fn carry_out(&mut self, n: usize) -> Checked {
        let effects = CalculatorEffects::of(&mut self.nodes[n].machine);
        let mut shell = NodeShell {
            local: self.nodes[n].clock.of(self.now()),
            world: self,
            node: n,
            checked: Ok(()),
        };
        effects.perform(&mut shell);
        shell.checked
    }

    fn answer(&mut self, n: usize, ticket: Ticket, result: &Result<Version>) -> Checked {
        self.note(|| format!("node {n} replies {} {result:?}", ticket.0));
        if result.is_err() {
            self.tally("trigger failed");
        }
        if !self.nodes[n].tickets.remove(&ticket.0) {
            return Err(format!("ticket {} was answered twice", ticket.0));
        }
        Ok(())
    }

    /// Counts an event before its delivery.
    fn count(&mut self, n: usize, event: &CalculatorEvent) -> Checked {
        self.note(|| format!("node {n}: {event:?}"));
        match event {
            CalculatorEvent::Published { reason, .. } => self.tally(reason.name()),
            CalculatorEvent::LeadershipLost => self.tally("leadership lost"),
            CalculatorEvent::Failed { operation, .. } => self.tally(operation),
            CalculatorEvent::Member {
                change: MemberChange::Dead,
                ..
            } => self.tally("lost"),
            CalculatorEvent::Member {
                change: MemberChange::Left,
                ..
            } => self.tally("left"),
            CalculatorEvent::Degraded(why)
                if why.iter().any(|d| d.cause == DegradationCause::WatchLost) =>
            {
                self.tally("watch_lost")
            }
            CalculatorEvent::Breaker(condition) => match condition.state {
                BreakerState::Open => self.tally("breaker opened"),
                BreakerState::Closed => self.tally("breaker closed"),
                BreakerState::HalfOpen => {}
            },
            _ => {}
        }
        let is_death = matches!(
            event,
            CalculatorEvent::Member {
                change: MemberChange::Dead,
                ..
            }
        );
        if self.nodes[n].is_watch_lost && is_death {
            return Err(format!("node {n} is disconnected and reports {event:?}"));
        }
        Ok(())
    }

    fn deliver_events(&mut self, n: usize, events: &[Arc<CalculatorEvent>]) -> Checked {
        for event in events {
            let node = &mut self.nodes[n];
            node.story.observed(event)?;
            let is_over = matches!(**event, CalculatorEvent::LeadershipLost);
            node.is_over |= is_over;
            if let Some(member) = node.member {
                self.notify_member(member, n, event);
            } else if is_over {
                let timeout = self.millis(0, 5_000);
                self.after(timeout, Event::StopNode(n));
            }
        }
        self.nodes[n].hub.publish_all(events);
        Ok(())
    }

    fn start_job(&mut self, n: usize, op: OpId, job: Job) -> Checked {
        if self.nodes[n].job.is_some() {
            return Err("two jobs at once".into());
        }
        if let Job::Publish { workers, .. } = &job {
            self.check_removals(n, workers)?;
        }
        self.check_breaker(n, &job)?;
        let timeout = job.timeout(&self.config);
        self.nodes[n].job = Some(op);
        self.note(|| format!("node {n} job {job:?}"));
        self.order(n, Order::Run(job, timeout))
    }

    /// Checks that no job that needs the store starts while the breaker is open, except its probe.
    fn check_breaker(&self, n: usize, job: &Job) -> Checked {
        let state = self.nodes[n].store.status().state;
        let is_quiet = matches!(job, Job::Inspect | Job::Probe);
        if is_quiet || state.is_closed() {
            return Ok(());
        }
        Err(format!(
            "node {n} starts {job:?} although its breaker is {state:?}"
        ))
    }

    /// Checks that a plan includes every worker that the leader must have observed alive.
    fn check_removals(&self, n: usize, workers: &[WorkerId]) -> Checked {
        let node = &self.nodes[n];
        let now = self.now();
        let grace = node.clock.to_true(self.config.emergency_grace_period);
        let ttl = node
            .clock
            .to_true(self.config.heartbeat_ttl)
            .min(self.config.heartbeat_ttl);
        // Slightly less, because clocks round.
        let from = now - ttl - grace + Duration::from_millis(1);
        // A worker suspected before the pause or the loss of the watch may have returned or left
        // unobserved, and the leader may first have been blocked on a listing.
        let stood_still = node.frozen_until + WATCH_DELAY_MAX * 2 + ttl > now;
        if stood_still || !node.monitor.observer().leases().is_live() {
            return Ok(());
        }
        if self.purged_at.is_some_and(|purged| purged + ttl > from) {
            return Ok(());
        }
        let leaders_lease = node.clock.to_true(self.config.heartbeat_ttl);
        for planned in node.machine.planned() {
            if workers.binary_search(planned).is_ok() {
                continue;
            }
            let Some(worker) = self.workers.iter().find(|w| w.id == *planned) else {
                continue; // written by another client
            };
            // The absence of the former leader at the take-over needs no grace.
            let is_former_leader = self.nodes.iter().any(|other| other.is_named(planned));
            let from = if is_former_leader {
                now - ttl.min(leaders_lease)
            } else {
                from
            };
            // Watch events wait while the thread is blocked on a listing.
            let seen_until = now - WATCH_DELAY_MAX - ttl;
            if worker.has_beaten_within(from, seen_until) {
                return Err(format!(
                    "the plan of node {n} omits {planned}, whose heartbeat was at {:?}",
                    worker.beats.iter().rev().take(8).collect::<Vec<_>>()
                ));
            }
        }
        Ok(())
    }

    fn order(&mut self, n: usize, order: Order) -> Checked {
        let actor = self.nodes[n].actor.as_ref();
        let said = actor.and_then(|actor| actor.order(order));
        self.said(n, said)
    }

    /// A list that is held back is read again when its time is over, by the slowest clock.
    fn list_is_held(&mut self, n: usize, due: Option<Duration>) {
        if let Some(due) = due {
            self.tally("list held back");
            self.after(due * 10 / 9 + LIST_AGAIN, Event::ListDue { node: n });
        }
    }

    /// Handles the next message of the publisher thread.
    fn said(&mut self, n: usize, said: Option<Said>) -> Checked {
        match said {
            None => Err(format!("the publisher's thread of node {n} panicked")),
            Some(Said::Asks(ask, deadline)) => {
                self.asked(n, ask, deadline);
                Ok(())
            }
            Some(Said::TookOver(Ok((found, malformed)), held_list)) => {
                self.list_is_held(n, held_list);
                if held_list.is_some() && !found.consistent {
                    // The list of a plan that others damaged is what is left of it.
                    self.checker.left_of_a_list(&self.listing());
                }
                self.note(|| format!("node {n} took over: {found:?}"));
                self.checker.took_over(found.term);
                let local = self.nodes[n].clock.of(self.now());
                let node = &mut self.nodes[n];
                node.phase = Phase::Running;
                if let Some(member) = node.member {
                    let started = CalculatorReport::Started(node.in_force.get());
                    self.members[member].calculator(n, started);
                }
                let node = &mut self.nodes[n];
                took_over(&mut node.machine, local, found, malformed);
                self.carry_out(n)
            }
            Some(Said::TookOver(Err(error), _)) => {
                self.note(|| format!("node {n} failed to take over: {error}"));
                self.tally("take-over failed");
                if let Some(member) = self.nodes[n].member {
                    self.members[member].calculator(n, CalculatorReport::of_failed_start(error));
                }
                self.stop_node(n)
            }
            Some(Said::Done(term, result, held_list)) => {
                self.list_is_held(n, held_list);
                self.note(|| format!("node {n} in term {term}: {result:?}"));
                if let Ok(JobReport::Resolved { foreign: true }) = &result {
                    self.tally("foreign write resolved");
                }
                let node = &mut self.nodes[n];
                let op = node.job.take().ok_or("an end without a job")?;
                node.inbox
                    .push_back(CalculatorInput::JobDone { op, term, result });
                Ok(())
            }
        }
    }
}

/// Receives the effects of the steps of a node.
struct NodeShell<'a> {
    world: &'a mut World,
    node: usize,
    local: Time,
    /// The first violation.
    checked: Checked,
}

impl NodeShell<'_> {
    fn check(&mut self, check: impl FnOnce(&mut World, usize) -> Checked) {
        if self.checked.is_ok() {
            self.checked = check(self.world, self.node);
        }
    }
}

impl CalculatorShell for NodeShell<'_> {
    fn publish_snapshot(&mut self, _: Position, _: Version) {}

    fn count(&mut self, event: &CalculatorEvent) {
        self.check(|world, n| world.count(n, event));
    }

    fn deliver(&mut self, events: &[Arc<CalculatorEvent>]) {
        self.check(|world, n| world.deliver_events(n, events));
    }

    fn answer(&mut self, ticket: Ticket, result: Result<Version>) {
        self.check(|world, n| world.answer(n, ticket, &result));
    }

    fn log(&mut self, event: &CalculatorEvent) {
        let node = &mut self.world.nodes[self.node];
        node.event_log.note(self.local, event);
    }

    fn order(&mut self, order: MonitorOrder) {
        self.world.nodes[self.node].orders.push_back(order);
    }

    fn start(&mut self, op: OpId, job: Job) {
        self.check(|world, n| world.start_job(n, op, job));
    }
}

impl Node {
    /// Returns whether the process leads under the name of the worker.
    fn is_named(&self, worker: &WorkerId) -> bool {
        self.name == worker.as_str()
    }
}

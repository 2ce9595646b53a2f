//! `dv-member`: owns the manager machine and its timers. Receives, hands in, carries out; never
//! blocks on I/O or on a send.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select_biased};

use super::cache::CacheFile;
use super::io::{Io, LeaderElection, perform};
use super::leading::{Leading, meaning_of};
use super::measure::Measures;
use super::shared::{Board, Shared};
use super::status::MachineStatus;
use super::watch::{Opened, Watches};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::machine::breaker::BreakerState;
use crate::machine::cache::CacheOrder;
use crate::machine::calculator::{Notice, OpId};
use crate::machine::manager::{Action, CalculatorEvent, Event, Manager, ManagerNotice};
use crate::machine::request::Request;
use crate::runtime::calculator::Calculator;
use crate::runtime::journal::Journal;
use crate::runtime::shared::timer;
use crate::store::Store;
use crate::types::WorkerId;
use crate::wire::KeyPrefix;

/// How long a take-over may take before another worker is given a chance.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(30);

/// Messages for `dv-member` (everyone -> `dv-member`). The channel is bounded; senders wait for a
/// place, which is soon free since `dv-member` waits for nobody.
pub(super) enum ToMember {
    /// Something happened.
    Event(Event),
    /// Watches were opened, or could not be (`dv-io` -> `dv-member`).
    Opened(Vec<Opened>),
    /// Somebody wants to know (handle -> `dv-member`).
    Status(Sender<MachineStatus>),
}

/// Makes the calculator of a worker that leads.
pub(super) type MakeCalculator = Box<dyn Fn(&WorkerId) -> Result<Calculator> + Send>;

/// The thread's own state.
pub(super) struct Driver {
    pub machine: Manager,
    pub clock: Arc<dyn Clock>,
    pub shared: Arc<Shared>,
    pub store: Arc<dyn Store>,
    pub election: Option<Arc<dyn LeaderElection>>,
    pub assignment_prefix: KeyPrefix,
    pub make_calculator: MakeCalculator,
    pub io: Arc<Io>,
    pub watches: Watches,
    pub breaker: Receiver<BreakerState>,
    /// Rung when the calculator has told something.
    pub bell: (Sender<()>, Receiver<()>),
    pub to_member: Sender<ToMember>,
    pub joined: Sender<Result<()>>,
    pub departed: bool,
    pub measures: Measures,
    pub journal: Journal,
    pub cache: Option<Arc<CacheFile>>,
}

impl Driver {
    /// The thread's body; ends when the worker has departed or `stop` is disconnected.
    pub fn run(mut self, inbox: &Receiver<ToMember>, stop: &Receiver<Infallible>) {
        while !self.departed {
            self.watches.open_missing(self.clock.now());
            let dues = [self.machine.deadline(), self.watches.due()];
            let timer = timer(&*self.clock, dues.into_iter().flatten().min());
            let sources = self.watches.sources();
            let mut is_bell = false;
            let message = select_biased! {
                recv(stop) -> _ => break,
                recv(inbox) -> message => match message {
                    Ok(message) => Some(message),
                    Err(_) => break,
                },
                recv(sources.health) -> told => {
                    self.watches.health(told.ok()).map(ToMember::Event)
                }
                recv(self.breaker) -> state => {
                    // It is told for as long as the store is there, and that is held here.
                    state.ok().map(|state| ToMember::Event(Event::Breaker(state)))
                }
                recv(sources.lease) -> event => {
                    Some(ToMember::Event(self.watches.lease(event.ok())))
                }
                recv(sources.assignment) -> event => {
                    Some(ToMember::Event(self.watches.assignment(event.ok())))
                }
                recv(self.bell.1) -> _ => {
                    is_bell = true;
                    None
                }
                recv(timer) -> _ => None,
            };
            let begun = Instant::now();
            match message {
                Some(message) => self.take_in(message),
                None if is_bell => self.heed_calculator(),
                None => self.machine.tick(self.clock.now()),
            }
            self.carry_out(begun);
        }
        self.measures.ended();
    }

    fn take_in(&mut self, message: ToMember) {
        let now = self.clock.now();
        match message {
            ToMember::Event(event) => {
                if let Event::Calculator(CalculatorEvent::Ended) = event {
                    self.heed_calculator();
                    *self.shared.leading.lock() = None;
                }
                self.happened(event);
            }
            ToMember::Opened(opened) => {
                for event in self.watches.opened(now, opened) {
                    self.happened(event);
                }
            }
            ToMember::Status(reply) => {
                let _ = reply.try_send(MachineStatus::of(&self.machine, now));
            }
        }
    }

    fn happened(&mut self, event: Event) {
        self.measures.event(&event);
        self.machine.handle(self.clock.now(), event);
        self.measures.refused(self.machine.refused());
    }

    /// Everything that the calculator has told: passed on, and taken in where it means something.
    fn heed_calculator(&mut self) {
        let Some(leading) = self.shared.leading.lock().clone() else {
            return;
        };
        while let Some(notice) = leading.events.try_recv() {
            let begun = Instant::now();
            let meaning = meaning_of(&notice);
            // The breaker is this worker's, and told as such whether it leads or not.
            if !matches!(*notice, Notice::Breaker(_)) {
                let notice = ManagerNotice::Calculator((*notice).clone());
                self.shared.hub.publish(notice);
            }
            if let Some(event) = meaning {
                self.happened(Event::Calculator(event));
                self.carry_out(begun);
            }
        }
    }

    /// `begun`: when what led to it was taken in.
    fn carry_out(&mut self, begun: Instant) {
        // The board first: who is told of a change finds it there.
        self.shared.show(Board::of(&self.machine));
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Request {
                    op,
                    request,
                    patience,
                } => self.request(op, request, patience),
                Action::Watch(worker) => {
                    let key = self.assignment_prefix.key(&worker);
                    self.watches.set_assignment(key);
                }
                Action::Lead(worker) => self.lead(&worker),
                Action::StepDown => self.step_down(),
                Action::Cache(order) => self.cache(order),
                Action::Notify(notice) => {
                    self.measures.notice(&notice, begun);
                    self.notify(notice);
                }
                Action::Joined => {
                    let _ = self.joined.try_send(Ok(()));
                }
                Action::Departed => self.departed = true,
            }
        }
    }

    fn request(&mut self, op: OpId, request: Request, patience: Duration) {
        let now = self.clock.now();
        let has_id = self.machine.has_id();
        let asked = self.measures.request(now, &request, has_id);
        let telling = self.measures.telling();
        let store = Arc::clone(&self.store);
        let election = self.election.clone();
        let to_member = self.to_member.clone();
        let clock = Arc::clone(&self.clock);
        let due = clock.now() + patience;
        self.io.submit(move || {
            // What waited for its turn has less time left.
            let deadline = Instant::now() + due.since(clock.now());
            let answer = perform(&*store, election.as_deref(), request, deadline);
            telling.answered(asked, &answer);
            let _ = to_member.send(ToMember::Event(Event::Answered { op, answer }));
        });
    }

    fn cache(&mut self, order: CacheOrder) {
        let Some(file) = self.cache.clone() else {
            return; // without a file nothing is ordered
        };
        let to_member = self.to_member.clone();
        let clock = Arc::clone(&self.clock);
        self.io.submit(move || {
            let answer = file.carry_out(order, &*clock);
            let _ = to_member.send(ToMember::Event(Event::Cache(answer)));
        });
    }

    fn lead(&mut self, worker: &WorkerId) {
        let calculator = match (self.make_calculator)(worker) {
            Ok(calculator) => calculator,
            Err(error) => return self.calculator_failed(error),
        };
        let bell = self.bell.0.clone();
        let leading = Leading::new(calculator, self.to_member.clone(), bell);
        *self.shared.leading.lock() = Some(Arc::clone(&leading));
        self.io.submit(move || leading.start(TAKE_OVER_TIMEOUT));
    }

    fn step_down(&mut self) {
        let leading = self.shared.leading.lock().clone();
        match leading {
            Some(leading) => {
                leading.revoke();
                self.io.submit(move || leading.stop());
            }
            None => self.calculator_ended(),
        }
    }

    fn calculator_failed(&mut self, error: Error) {
        let failed = Event::Calculator(CalculatorEvent::Failed(error));
        self.machine.handle(self.clock.now(), failed);
    }

    fn calculator_ended(&mut self) {
        let ended = Event::Calculator(CalculatorEvent::Ended);
        self.machine.handle(self.clock.now(), ended);
    }

    fn notify(&mut self, notice: ManagerNotice) {
        self.journal.note_manager(self.clock.now(), &notice);
        if let ManagerNotice::Failed { error } = &notice
            && error.class() == crate::error::Class::Permanent
        {
            // Trying again does not help: who waits for the start is told now.
            let _ = self.joined.try_send(Err(error.clone()));
        }
        self.shared.hub.publish(notice);
    }
}

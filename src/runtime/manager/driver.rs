//! `dv-member`: owns the manager machine and its timers. Receives, hands in, carries out; never
//! blocks on I/O or on a send.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select_biased};

use super::io::{Io, LeaderElection, perform};
use super::leading::Leading;
use super::measure::Measures;
use super::shared::{Board, Shared};
use super::status::MachineStatus;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::machine::calculator::{Notice, OpId};
use crate::machine::manager::{Action, CalculatorEvent, Event, Manager, ManagerNotice};
use crate::machine::request::Request;
use crate::runtime::calculator::Calculator;
use crate::runtime::journal::Journal;
use crate::runtime::shared::timer;
use crate::store::Store;
use crate::types::WorkerId;
use crate::wire::KeyPrefix;

/// Messages for `dv-member` (everyone -> `dv-member`). The channel is bounded; senders wait for a
/// place, which is soon free since `dv-member` waits for nobody.
pub(super) enum ToMember {
    /// Something happened.
    Event(Event),
    /// An event of the calculator (its `dv-notify` -> `dv-member`).
    Calculator(Notice),
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
    /// How long a take-over may take before it is given up.
    pub take_over_patience: Duration,
    pub io: Arc<Io>,
    pub to_member: Sender<ToMember>,
    pub to_watch: Sender<String>,
    pub joined: Sender<Result<()>>,
    pub departed: bool,
    pub measures: Measures,
    pub journal: Journal,
}

impl Driver {
    /// The thread's body; ends when the worker has departed or `stop` is disconnected.
    pub fn run(mut self, inbox: &Receiver<ToMember>, stop: &Receiver<Infallible>) {
        while !self.departed {
            let timer = timer(&*self.clock, self.machine.deadline());
            let mut begun = Instant::now();
            select_biased! {
                recv(stop) -> _ => break,
                recv(inbox) -> message => match message {
                    Ok(message) => {
                        begun = Instant::now();
                        self.take_in(message);
                    }
                    Err(_) => break,
                },
                recv(timer) -> _ => self.machine.tick(self.clock.now()),
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
                    *self.shared.leading.lock() = None;
                }
                self.measures.event(&event);
                self.machine.handle(now, event);
                self.measures.refused(self.machine.refused());
            }
            ToMember::Calculator(notice) => {
                self.shared.hub.publish(ManagerNotice::Calculator(notice));
            }
            ToMember::Status(reply) => {
                let _ = reply.try_send(MachineStatus::of(&self.machine, now));
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
                    // Fails only when `dv-assign` has ended; then so will this thread.
                    let _ = self.to_watch.send(self.assignment_prefix.key(&worker));
                }
                Action::Lead(worker) => self.lead(&worker),
                Action::StepDown => self.step_down(),
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
        let has_id = self.machine.worker().is_some();
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

    fn lead(&mut self, worker: &WorkerId) {
        let calculator = match (self.make_calculator)(worker) {
            Ok(calculator) => calculator,
            Err(error) => return self.calculator_failed(error),
        };
        let leading = Leading::new(calculator, self.to_member.clone());
        *self.shared.leading.lock() = Some(Arc::clone(&leading));
        let patience = self.take_over_patience;
        self.io.submit(move || leading.start(patience));
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

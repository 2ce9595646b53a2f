//! The effects of one step of a calculator, and the order in which they happen.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::machine::calculator::{
    CalculatorAction, CalculatorEvent, CalculatorInput, CalculatorMachine, Job, OpId, Ticket,
};
use crate::machine::plausible::MalformedValues;
use crate::machine::position::Position;
use crate::machine::takeover::TakeOver;
use crate::types::{Time, Version, WorkerId};

/// An order for the thread that watches the workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonitorOrder {
    /// Start watching, from what the take-over found.
    Watch {
        /// The live workers, each with what is left of its lease.
        alive: Vec<(WorkerId, Duration)>,
        /// The suspected workers, which may return.
        suspected: Vec<WorkerId>,
    },
    /// List the heartbeats once and report the completion under this id.
    List {
        /// The id of the listing.
        op: OpId,
    },
    /// Forget the lease of a removed worker, so that its next heartbeat is a join.
    Forget(WorkerId),
}

/// Carries out the effects of a calculator's step. [`CalculatorEffects::perform`] calls the
/// methods; the order of the calls is the order of the effects.
pub trait CalculatorShell {
    /// Makes the machine's state and version visible to callers.
    fn publish_snapshot(&mut self, position: Position, version: Version);
    /// Counts an event that is about to be delivered.
    fn count(&mut self, event: &CalculatorEvent);
    /// Delivers all events of the step to the subscribers.
    fn deliver(&mut self, events: &[Arc<CalculatorEvent>]);
    /// Answers a waiting caller.
    fn answer(&mut self, ticket: Ticket, result: Result<Version>);
    /// Logs a delivered event.
    fn log(&mut self, event: &CalculatorEvent);
    /// Passes an order to the thread that watches the workers.
    fn order(&mut self, order: MonitorOrder);
    /// Starts a job. At most one job runs at a time.
    fn start(&mut self, op: OpId, job: Job);
}

/// Everything that one step of a calculator machine leads to.
#[derive(Debug)]
pub struct CalculatorEffects {
    position: Position,
    version: Version,
    events: Vec<Arc<CalculatorEvent>>,
    answers: Vec<(Ticket, Result<Version>)>,
    orders: Vec<MonitorOrder>,
    job: Option<(OpId, Job)>,
}

impl CalculatorEffects {
    /// Drains the actions of the machine.
    #[must_use]
    pub fn of(machine: &mut CalculatorMachine) -> Self {
        let mut effects = Self {
            position: machine.position(),
            version: machine.version(),
            events: Vec::new(),
            answers: Vec::new(),
            orders: Vec::new(),
            job: None,
        };
        while let Some(action) = machine.poll_action() {
            match action {
                CalculatorAction::Start { op, job } => effects.job = Some((op, job)),
                CalculatorAction::List { op } => effects.orders.push(MonitorOrder::List { op }),
                CalculatorAction::Watch { alive, suspected } => {
                    effects
                        .orders
                        .push(MonitorOrder::Watch { alive, suspected });
                }
                CalculatorAction::Forget(worker) => {
                    effects.orders.push(MonitorOrder::Forget(worker));
                }
                CalculatorAction::Notify(event) => effects.events.push(Arc::new(event)),
                CalculatorAction::Reply { ticket, result } => {
                    effects.answers.push((ticket, result));
                }
            }
        }
        effects
    }

    /// Carries out the effects in their order.
    pub fn perform(self, shell: &mut impl CalculatorShell) {
        // First, so that a subscriber that is notified of a change finds it in the snapshot.
        shell.publish_snapshot(self.position, self.version);
        for event in &self.events {
            shell.count(event);
        }
        // Before the answers: a caller that has its answer has the events that led to it.
        shell.deliver(&self.events);
        for (ticket, result) in self.answers {
            shell.answer(ticket, result);
        }
        // Logging runs the host's code and orders wake threads. Both take time, so they come
        // after the answers.
        for event in &self.events {
            shell.log(event);
        }
        for order in self.orders {
            shell.order(order);
        }
        // Last, because a job occupies a core that the notified threads need.
        if let Some((op, job)) = self.job {
            shell.start(op, job);
        }
    }
}

/// Feeds the machine with what a take-over found: the fleet, then the malformed values.
pub fn took_over(
    machine: &mut CalculatorMachine,
    now: Time,
    found: TakeOver,
    malformed: MalformedValues,
) {
    machine.handle(now, CalculatorInput::TakenOver(Box::new(found)));
    if !malformed.is_empty() {
        machine.handle(now, CalculatorInput::Malformed(malformed));
    }
}

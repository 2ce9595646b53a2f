//! `dv-member`: owns the manager machine and its timers. Receives, hands in, carries out; never
//! blocks on I/O or on a send.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select_biased};

use super::cache_file::CacheFile;
use super::io::{Io, LeaderElection, perform};
use super::leading::Leading;
use super::manager_measurements::ManagerMeasurements;
use super::manager_shared::{ManagerShared, ManagerSnapshot};
use super::manager_status::ManagerMachineStatus;
use super::manager_watches::ManagerWatches;
use super::member_messages::ToMember;
use crate::error::{Error, Result};
use crate::machine::breaker::BreakerCondition;
use crate::machine::cache::CacheOrder;
use crate::machine::calculator::{CalculatorEvent, OpId};
use crate::machine::manager::{
    CalculatorReport, ManagerAction, ManagerEvent, ManagerInput, ManagerMachine, TAKE_OVER_TIMEOUT,
};
use crate::machine::request::{Request, Value};
use crate::runtime::calculator::Calculator;
use crate::runtime::common::event_log::EventLog;
use crate::runtime::publish::config_source::ConfigSource;
use crate::runtime::running_host_calls::OverdueCheck;
use crate::store::Store;
use crate::time::clock::Clock;
use crate::time::deadline::timer;
use crate::types::{Time, WorkerId};
use crate::wire::{ConfigDigest, HeldCounts, KeyPrefix};

/// Makes the calculator of a worker that leads.
pub(super) type MakeCalculator = Box<dyn Fn(&WorkerId) -> Result<Calculator> + Send>;

/// The thread's own state.
pub(super) struct ManagerDriver {
    pub machine: ManagerMachine,
    pub clock: Arc<dyn Clock>,
    pub shared: Arc<ManagerShared>,
    pub store: Arc<dyn Store>,
    pub election: Option<Arc<dyn LeaderElection>>,
    pub assignment_prefix: KeyPrefix,
    pub make_calculator: MakeCalculator,
    pub io: Arc<Io>,
    pub watches: ManagerWatches,
    pub breaker: Receiver<BreakerCondition>,
    /// Notified when the calculator has reported something.
    pub waker: (Sender<()>, Receiver<()>),
    pub to_member: Sender<ToMember>,
    pub joined: Sender<Result<()>>,
    pub departed: bool,
    pub measures: ManagerMeasurements,
    pub event_log: EventLog,
    pub cache: Option<Arc<CacheFile>>,
    pub overdue_check: OverdueCheck,
    pub config_source: ConfigSource,
}

impl ManagerDriver {
    /// The thread's body; ends when the worker has departed or `stop` is disconnected.
    pub fn run(mut self, inbox: &Receiver<ToMember>, stop: &Receiver<Infallible>) {
        while !self.departed {
            self.watches.open_missing(self.clock.now());
            let overdue_check = self.overdue_check.due();
            let dues = [self.machine.deadline(), self.watches.due(), overdue_check];
            let due = dues.into_iter().flatten().min();
            self.shared.wakes_at.store(due.unwrap_or(Time::FAR_FUTURE));
            let timer = timer(&*self.clock, due);
            let sources = self.watches.sources();
            let mut is_woken = false;
            let message = select_biased! {
                recv(stop) -> _ => break,
                recv(inbox) -> message => match message {
                    Ok(message) => Some(message),
                    Err(_) => break,
                },
                recv(sources.health) -> received => {
                    self.watches.health(received.ok()).map(ToMember::ManagerInput)
                }
                recv(self.breaker) -> state => {
                    // Health reports arrive while the store exists; this keeps it alive.
                    state.ok().map(|state| ToMember::ManagerInput(ManagerInput::Breaker(state)))
                }
                recv(sources.lease) -> event => {
                    Some(ToMember::ManagerInput(self.watches.lease(event.ok())))
                }
                recv(sources.assignment) -> event => {
                    Some(ToMember::ManagerInput(self.watches.assignment(event.ok())))
                }
                recv(self.waker.1) -> _ => {
                    is_woken = true;
                    None
                }
                recv(self.overdue_check.waker()) -> _ => {
                    self.overdue_check.begin();
                    None
                }
                recv(timer) -> _ => None,
            };
            let begun = Instant::now();
            match message {
                Some(message) => self.handle(message),
                None if is_woken => self.drain_calculator_events(),
                None => self.machine.tick(self.clock.now()),
            }
            if let Some(words) = self.overdue_check.check(self.clock.now()) {
                self.happened(ManagerInput::HostCallsOverdue(words));
            }
            self.perform_actions(begun);
        }
        self.measures.ended();
    }

    fn handle(&mut self, message: ToMember) {
        let now = self.clock.now();
        match message {
            ToMember::ManagerInput(event) => {
                if let ManagerInput::Calculator(CalculatorReport::Ended) = event {
                    self.drain_calculator_events();
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
                let _ = reply.try_send(ManagerMachineStatus::of(&self.machine, now));
            }
        }
    }

    fn happened(&mut self, event: ManagerInput) {
        self.measures.event(&event);
        self.machine.handle(self.clock.now(), event);
        self.measures.refused(self.machine.refused());
    }

    /// Forwards all queued calculator events and applies those that concern the manager.
    fn drain_calculator_events(&mut self) {
        let Some(leading) = self.shared.leading.lock().clone() else {
            return;
        };
        while let Some(notice) = leading.events.try_recv() {
            let begun = Instant::now();
            let meaning = CalculatorReport::of_event(&notice, leading.in_force());
            // The breaker belongs to this worker and is reported as its own, whether it leads or
            // not.
            if !matches!(*notice, CalculatorEvent::Breaker(_)) {
                let notice = ManagerEvent::Calculator((*notice).clone());
                self.shared.hub.publish(notice);
            }
            if let Some(event) = meaning {
                self.happened(ManagerInput::Calculator(event));
                self.perform_actions(begun);
            }
        }
    }

    /// `begun`: when what led to it was taken in.
    fn perform_actions(&mut self, begun: Instant) {
        // The snapshot first: a subscriber that is notified of a change reads it.
        self.shared
            .publish_snapshot(ManagerSnapshot::of(&self.machine));
        while let Some(action) = self.machine.poll_action() {
            match action {
                ManagerAction::Request {
                    op,
                    request,
                    timeout,
                } => self.request(op, request, timeout),
                ManagerAction::Watch(worker) => {
                    let key = self.assignment_prefix.key(&worker);
                    self.watches.set_assignment(key);
                }
                ManagerAction::Lead(worker) => self.lead(&worker),
                ManagerAction::StepDown => self.step_down(),
                ManagerAction::Cache(order) => self.cache(order),
                ManagerAction::Notify(notice) => {
                    self.measures.notice(&notice, begun);
                    self.notify(notice);
                }
                ManagerAction::Joined => {
                    let _ = self.joined.try_send(Ok(()));
                }
                ManagerAction::Departed => self.departed = true,
            }
        }
    }

    fn request(&mut self, op: OpId, mut request: Request, timeout: Duration) {
        if let Request::Put { value, .. } = &mut request
            && let Value::Beat(_, report) = value
        {
            report.config = self.config();
            report.held_list = self.held_list();
        }
        let now = self.clock.now();
        let has_id = self.machine.has_id();
        let asked = self.measures.request(now, &request, has_id);
        let metrics_sink = self.measures.metrics_sink();
        let store = Arc::clone(&self.store);
        let election = self.election.clone();
        let to_member = self.to_member.clone();
        let clock = Arc::clone(&self.clock);
        let due = clock.now() + timeout;
        self.io.submit(move || {
            // What waited for its turn has less time left.
            let deadline = Instant::now() + due.since(clock.now());
            let answer = perform(&*store, election.as_deref(), request, deadline);
            metrics_sink.answered(asked, &answer);
            let _ = to_member.send(ToMember::ManagerInput(ManagerInput::Answered {
                op,
                answer,
            }));
        });
    }

    /// The digests for the next heartbeat. A list that is pulled is known only while this worker
    /// leads: followers do not call the source, and the list that a former leader read ages.
    fn config(&self) -> ConfigDigest {
        match &*self.shared.leading.lock() {
            Some(leading) => leading.config(),
            None => self.config_source.digest(),
        }
    }

    /// The list that this worker holds back as the leader.
    fn held_list(&self) -> Option<HeldCounts> {
        let leading = self.shared.leading.lock();
        leading.as_ref().and_then(|leading| leading.held_list())
    }

    fn cache(&mut self, order: CacheOrder) {
        let Some(file) = self.cache.clone() else {
            return; // without a file nothing is ordered
        };
        let to_member = self.to_member.clone();
        let clock = Arc::clone(&self.clock);
        self.io.submit(move || {
            let answer = file.perform(order, &*clock);
            let _ = to_member.send(ToMember::ManagerInput(ManagerInput::Cache(answer)));
        });
    }

    fn lead(&mut self, worker: &WorkerId) {
        let calculator = match (self.make_calculator)(worker) {
            Ok(calculator) => calculator,
            Err(error) => return self.calculator_failed(error),
        };
        calculator.remember(self.machine.remembered());
        let waker = self.waker.0.clone();
        let leading = Leading::new(calculator, self.to_member.clone(), waker);
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
        let failed = ManagerInput::Calculator(CalculatorReport::Failed(error));
        self.machine.handle(self.clock.now(), failed);
    }

    fn calculator_ended(&mut self) {
        let ended = ManagerInput::Calculator(CalculatorReport::Ended);
        self.machine.handle(self.clock.now(), ended);
    }

    fn notify(&mut self, notice: ManagerEvent) {
        self.event_log.note_manager(self.clock.now(), &notice);
        if let ManagerEvent::Failed { error } = &notice
            && error.class() == crate::error::ErrorClass::Permanent
        {
            // A retry does not help: fail the waiting start now.
            let _ = self.joined.try_send(Err(error.clone()));
        }
        self.shared.hub.publish(notice);
    }
}

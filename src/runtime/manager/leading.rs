//! The calculator of a worker while it leads: started and stopped on `dv-io`, since both wait. Its
//! events are read by `dv-member`, which a waker notifies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use super::member_messages::ToMember;
use crate::error::Result;
use crate::machine::calculator::CalculatorEvent;
use crate::machine::list_guard::HeldList;
use crate::machine::manager::{CalculatorReport, ManagerInput};
use crate::runtime::calculator::Calculator;
use crate::runtime::notifier::EventFilter;
use crate::runtime::notifier::{Events, Readiness};
use crate::wire::{Applied, ConfigDigest, HeldCounts};

/// How long one try to stop waits. It is tried again for as long as it takes: until then this
/// worker does not lead again.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// One leadership.
pub(super) struct Leading {
    pub calculator: Calculator,
    /// Its reports.
    pub events: Events<CalculatorEvent>,
    to_member: Sender<ToMember>,
    is_wanted: AtomicBool,
    phase: Mutex<LeadingPhase>,
    /// What keeps the calculator from ending.
    busy: Mutex<Option<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeadingPhase {
    /// The start is under way, or about to be.
    Starting,
    Working,
    /// A thread is stopping it.
    Ending,
}

impl Leading {
    pub fn new(
        calculator: Calculator,
        to_member: Sender<ToMember>,
        waker: Sender<()>,
    ) -> Arc<Self> {
        let events = calculator.events(EventFilter::StateAndMembers);
        events.set_readiness(CalculatorWaker(waker));
        Arc::new(Self {
            calculator,
            events,
            to_member,
            is_wanted: AtomicBool::new(true),
            phase: Mutex::new(LeadingPhase::Starting),
            busy: Mutex::new(None),
        })
    }

    /// Takes over. Runs on `dv-io`.
    pub fn start(&self, timeout: Duration) {
        let started = match self.is_wanted() {
            true => self.calculator.start(timeout),
            false => Ok(()),
        };
        let is_wanted = {
            let mut phase = self.phase.lock();
            // Under the lock: a later request to stop runs the stop itself.
            let is_wanted = self.is_wanted();
            *phase = if is_wanted {
                LeadingPhase::Working
            } else {
                LeadingPhase::Ending
            };
            is_wanted
        };
        match started {
            _ if !is_wanted => self.end(self.calculator.stop(STOP_TIMEOUT)),
            Ok(()) => self.report(CalculatorReport::Started(self.in_force())),
            Err(error) => self.report(CalculatorReport::of_failed_start(error)),
        }
    }

    /// Publishes nothing more from now on.
    pub fn revoke(&self) {
        self.is_wanted.store(false, Ordering::SeqCst);
    }

    /// Stops the calculator after its revocation and reports the end. Runs on `dv-io`.
    pub fn stop(&self) {
        // Cuts a start short that is under way.
        let stopped = self.calculator.stop(STOP_TIMEOUT);
        {
            let mut phase = self.phase.lock();
            if *phase != LeadingPhase::Working {
                return; // the start detects the revocation and stops it
            }
            *phase = LeadingPhase::Ending;
        }
        self.end(stopped);
    }

    fn end(&self, mut stopped: Result<()>) {
        let mut is_reported = false;
        while let Err(error) = stopped {
            if !is_reported {
                log::warn!(target: "divvy::manager", "calculator still stopping after leadership was lost: {error}");
                is_reported = true;
            }
            *self.busy.lock() = Some(error.message().to_owned());
            stopped = self.calculator.stop(STOP_TIMEOUT);
        }
        *self.busy.lock() = None;
        self.report(CalculatorReport::Ended);
    }

    /// The highest term and version that the calculator has reached.
    pub fn in_force(&self) -> Applied {
        self.calculator.in_force()
    }

    /// The digests of what the calculator works with.
    pub fn config(&self) -> ConfigDigest {
        self.calculator.config_source.digest()
    }

    /// The list that the calculator holds back.
    pub fn held_list(&self) -> Option<HeldCounts> {
        let held = self.calculator.shared.held_list.lock();
        held.as_ref().map(HeldList::counts)
    }

    /// What keeps the calculator from ending, if something does.
    pub fn busy(&self) -> Option<String> {
        self.busy.lock().clone()
    }

    fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::SeqCst)
    }

    fn report(&self, event: CalculatorReport) {
        // Fails only after `dv-member` has ended: then this worker no longer leads.
        let _ = self
            .to_member
            .send(ToMember::ManagerInput(ManagerInput::Calculator(event)));
    }
}

/// Signalled when events are available. One slot is enough: the reader drains all.
struct CalculatorWaker(Sender<()>);

impl Readiness for CalculatorWaker {
    fn set(&self, is_ready: bool) {
        if is_ready {
            let _ = self.0.try_send(());
        }
    }
}

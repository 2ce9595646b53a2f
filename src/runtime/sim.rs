//! Parts of the shell that only the simulation (`tests/sim`) uses.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub use super::fleet_identity::verify;
use super::manager::perform_at;
use crate::machine::calculator::{CalculatorEvent, StateChange};
use crate::machine::request::{Answer, Request};
pub use crate::runtime::calculator::FleetChanges;
pub use crate::runtime::common::event_log::EventLog;
pub use crate::runtime::guarded_store::{BreakerListener, GuardedStore};
use crate::runtime::notifier::EventFilter;
use crate::runtime::notifier::{Events, Hub};
use crate::store::Store;
use crate::types::Time;

/// As a manager's `dv-io` does at this time of a simulated wall clock.
pub fn perform_when(store: &dyn Store, request: Request, deadline: Instant, now: Time) -> Answer {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_nanos(now.as_nanos());
    perform_at(store, None, request, deadline, wall)
}

/// Has a request answered as a manager does: through the breaker of its store.
pub fn ask_through(
    store: &GuardedStore,
    request: &Request,
    answer: impl FnOnce() -> Answer,
) -> Answer {
    store.ask(request, answer)
}

/// The hub of a calculator that has no threads.
#[derive(Clone)]
pub struct BareHub(Arc<Hub>);

impl BareHub {
    /// A hub without subscribers, of a calculator in this state.
    #[must_use]
    pub fn new(current: StateChange, backlog_max: usize) -> Self {
        Self(Arc::new(Hub::new(0, current, backlog_max)))
    }

    /// As `dv-calc` does.
    pub fn publish(&self, notice: CalculatorEvent) {
        self.0.publish(notice);
    }

    /// As `dv-calc` does after a step.
    pub fn publish_all(&self, events: &[Arc<CalculatorEvent>]) {
        self.0.publish_all(events);
    }

    /// As a handle does.
    #[must_use]
    pub fn events(&self, filter: EventFilter) -> Events {
        self.0.events(filter)
    }
}

impl std::fmt::Debug for BareHub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BareHub").finish_non_exhaustive()
    }
}

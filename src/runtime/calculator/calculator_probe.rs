//! What metrics read from a calculator when a page is rendered.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::calculator_shared::CalculatorShared;
use super::running_calculator::RunningCalculator;
use crate::metrics::{Probe, Reading};
use crate::time::clock::Clock;

/// What can be read of a calculator without asking its threads.
pub(crate) struct CalculatorProbe {
    pub shared: Arc<CalculatorShared>,
    pub clock: Arc<dyn Clock>,
    /// The present life, for its inbox.
    pub life: Mutex<Weak<RunningCalculator>>,
}

impl Probe for CalculatorProbe {
    fn read(&self) -> Reading {
        let life = self.life.lock().upgrade();
        let life = life.filter(|life| life.is_at_work());
        let position = self.shared.snapshot.load().position;
        let now = self.clock.now();
        let (subscribers, backlog) = self.shared.hub.backlog();
        let heard = life.as_ref().and_then(|_| self.shared.last_heard.get());
        Reading {
            is_started: life.is_some() && self.shared.failed.lock().is_none(),
            state: position.state,
            state_age: now.since(position.since),
            workers_age: heard.map(|heard| now.since(heard)),
            list_age: self.shared.list_age(now),
            host_calls_overdue: self.shared.host_calls.overdue(),
            inbox: life.map_or(0, |life| life.to_driver.len()),
            subscribers,
            backlog,
        }
    }
}

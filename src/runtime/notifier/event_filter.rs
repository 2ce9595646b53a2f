//! Notifications to subscribers and their filter; the events of a calculator.

use crate::machine::calculator::{CalculatorEvent, StateChange};
use crate::types::WorkerId;
pub use crate::vocabulary::EventFilter;

/// A kind of events that a hub can deliver.
pub trait Notification: Sized + Send + Sync + 'static {
    /// Which of them a subscriber wants.
    type EventFilter: Copy + Send + Sync + 'static;
    /// What a new subscriber has to know first.
    type Current: Clone + Send + 'static;

    /// Whether such a subscriber wants it.
    fn is_wanted(&self, filter: Self::EventFilter) -> bool;
    /// The current state that a new subscriber receives first.
    fn introduce(current: &Self::Current) -> Vec<Self>;
    /// Updates the current state for new subscribers with this event.
    fn note(&self, current: &mut Self::Current);
    /// The worker that reports events in this state, where it has an id.
    fn reporter(_current: &Self::Current) -> Option<&WorkerId> {
        None
    }
    /// The last event of a subscriber that was too slow.
    fn lagged(missed: u64) -> Self;
    /// Whether nothing follows this event.
    fn is_last(&self) -> bool;
}

impl Notification for CalculatorEvent {
    type EventFilter = EventFilter;
    type Current = StateChange;

    fn is_wanted(&self, filter: EventFilter) -> bool {
        filter == EventFilter::StateAndMembers || !matches!(self, CalculatorEvent::Member { .. })
    }

    fn introduce(current: &StateChange) -> Vec<Self> {
        vec![CalculatorEvent::StateChanged(*current)]
    }

    fn note(&self, current: &mut StateChange) {
        if let CalculatorEvent::StateChanged(change) = self {
            *current = StateChange {
                from: change.to,
                ..*change
            };
        }
    }

    fn lagged(missed: u64) -> Self {
        CalculatorEvent::Lagged { missed }
    }

    fn is_last(&self) -> bool {
        matches!(self, CalculatorEvent::Fatal { .. })
    }
}

//! What can be told to subscribers, and how they choose; the events of a calculator.

use crate::machine::calculator::{CalculatorEvent, StateChange};

/// A kind of events that a hub can deliver.
pub trait Notification: Sized + Send + Sync + 'static {
    /// Which of them a subscriber wants.
    type EventFilter: Copy + Send + Sync + 'static;
    /// What a new subscriber has to know first.
    type Current: Clone + Send + 'static;

    /// Whether such a subscriber wants it.
    fn is_wanted(&self, filter: Self::EventFilter) -> bool;
    /// What a new subscriber is told first.
    fn introduce(current: &Self::Current) -> Vec<Self>;
    /// Takes into what a new subscriber is told what this event changes of it.
    fn note(&self, current: &mut Self::Current);
    /// The last event of a subscriber that was too slow.
    fn lagged(missed: u64) -> Self;
    /// Whether nothing follows this event.
    fn is_last(&self) -> bool;
}

impl Notification for CalculatorEvent {
    type EventFilter = EventFilter;
    type Current = StateChange;

    fn is_wanted(&self, filter: EventFilter) -> bool {
        filter == EventFilter::StateAndMembers || !matches!(self, CalculatorEvent::Member(_))
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

/// Which events a subscriber wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventFilter {
    /// CalculatorState changes, publications, failures, degradations.
    #[default]
    State,
    /// Those, and every worker that joined, left, went missing, came back or was lost.
    StateAndMembers,
}

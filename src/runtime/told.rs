//! What can be told to subscribers, and how they choose; the events of a calculator.

use super::notifier::Hub;
use crate::machine::calculator::{Notice, StateChange};
use crate::types::{State, Time, Version};

/// A kind of events that a hub can deliver.
pub trait Told: Sized + Send + Sync + 'static {
    /// Which of them a subscriber wants.
    type Interest: Copy + Send + Sync + 'static;
    /// What a new subscriber has to know first.
    type Current: Clone + Send + 'static;

    /// Whether such a subscriber wants it.
    fn is_wanted(&self, interest: Self::Interest) -> bool;
    /// What a new subscriber is told first.
    fn introduce(current: &Self::Current) -> Vec<Self>;
    /// Takes into what a new subscriber is told what this event changes of it.
    fn note(&self, current: &mut Self::Current);
    /// The last event of a subscriber that was too slow.
    fn lagged(missed: u64) -> Self;
    /// Whether nothing follows this event.
    fn is_last(&self) -> bool;
}

impl Told for Notice {
    type Interest = Interest;
    type Current = StateChange;

    fn is_wanted(&self, interest: Interest) -> bool {
        interest == Interest::StateAndMembers || !matches!(self, Notice::Member(_))
    }

    fn introduce(current: &StateChange) -> Vec<Self> {
        vec![Notice::StateChanged(*current)]
    }

    fn note(&self, current: &mut StateChange) {
        if let Notice::StateChanged(change) = self {
            *current = StateChange {
                from: change.to,
                ..*change
            };
        }
    }

    fn lagged(missed: u64) -> Self {
        Notice::Lagged { missed }
    }

    fn is_last(&self) -> bool {
        matches!(self, Notice::Fatal { .. })
    }
}

/// Which events a subscriber wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interest {
    /// State changes, publications, failures, degradations.
    #[default]
    State,
    /// Those, and every worker that joined, left, went missing, came back or was lost.
    StateAndMembers,
}

impl Hub {
    /// A life is over.
    pub fn go_idle(&self, since: Time, version: Version) {
        self.reset(StateChange {
            from: State::Idle,
            to: State::Idle,
            reason: None,
            version,
            time: since,
        });
    }

    /// The version in force was learned without a change of state.
    pub fn set_version(&self, version: Version) {
        self.amend(|current| current.version = version);
    }
}

//! Events of a manager and their filter.

use crate::machine::assignment::{AssignmentChange, Held};
use crate::machine::manager::{ManagerChange, ManagerEvent};
use crate::runtime::notifier::Notification;
use crate::types::WorkerId;
pub use crate::vocabulary::ManagerEventFilter;

/// The current state that a new subscriber receives first.
#[derive(Clone, Debug)]
pub struct Introduction {
    state: ManagerChange,
    id: Option<WorkerId>,
    leader: Option<WorkerId>,
    is_leader: bool,
    held: Held,
}

impl Introduction {
    /// Nothing is known but the state.
    pub(super) fn new(state: ManagerChange) -> Self {
        Self {
            state,
            id: None,
            leader: None,
            is_leader: false,
            held: Held::default(),
        }
    }
}

impl Notification for ManagerEvent {
    type EventFilter = ManagerEventFilter;
    type Current = Introduction;

    fn is_wanted(&self, filter: ManagerEventFilter) -> bool {
        match self {
            ManagerEvent::AssignmentChanged(_)
            | ManagerEvent::Lagged { .. }
            | ManagerEvent::Fatal { .. } => true,
            ManagerEvent::Calculator(_) => filter == ManagerEventFilter::WorkerAndCalculator,
            _ => filter != ManagerEventFilter::Assignment,
        }
    }

    /// The state, then the id, the leader and the assignment, each where there is one.
    fn introduce(current: &Introduction) -> Vec<Self> {
        let id = current.id.clone().map(|id| ManagerEvent::Id(Some(id)));
        let leader = current.leader.clone().map(|leader| ManagerEvent::Leader {
            leader: Some(leader),
            is_self: current.is_leader,
        });
        let held = (current.held.version != 0).then(|| {
            ManagerEvent::AssignmentChanged(AssignmentChange {
                held: current.held.clone(),
                added: current.held.partitions.to_vec(),
                removed: Vec::new(),
            })
        });
        let state = ManagerEvent::StateChanged(current.state);
        let rest = [id, leader, held].into_iter().flatten();
        std::iter::once(state).chain(rest).collect()
    }

    fn note(&self, current: &mut Introduction) {
        match self {
            ManagerEvent::StateChanged(change) => {
                current.state = ManagerChange {
                    from: change.to,
                    ..*change
                };
            }
            ManagerEvent::Id(id) => current.id.clone_from(id),
            ManagerEvent::Leader { leader, is_self } => {
                current.leader.clone_from(leader);
                current.is_leader = *is_self;
            }
            ManagerEvent::AssignmentChanged(change) => current.held = change.held.clone(),
            _ => {}
        }
    }

    fn reporter(current: &Introduction) -> Option<&WorkerId> {
        current.id.as_ref()
    }

    fn lagged(missed: u64) -> Self {
        ManagerEvent::Lagged { missed }
    }

    fn is_last(&self) -> bool {
        matches!(self, ManagerEvent::Fatal { .. })
    }
}

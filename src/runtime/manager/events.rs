//! What subscribers of a manager are told, and how they choose.

use crate::machine::assignment::{AssignmentChange, Held};
use crate::machine::manager::{ManagerChange, ManagerNotice};
use crate::runtime::told::Told;
use crate::types::WorkerId;

/// Which events a subscriber of a manager wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ManagerInterest {
    /// What is assigned to this worker, and nothing else.
    Assignment,
    /// All about this worker: its state, id, assignment, outages, failures, and who leads.
    #[default]
    Worker,
    /// That, and the events of its calculator while it leads.
    WorkerAndCalculator,
}

/// What a new subscriber is told first.
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

impl Told for ManagerNotice {
    type Interest = ManagerInterest;
    type Current = Introduction;

    fn is_wanted(&self, interest: ManagerInterest) -> bool {
        match self {
            ManagerNotice::AssignmentChanged(_)
            | ManagerNotice::Lagged { .. }
            | ManagerNotice::Fatal { .. } => true,
            ManagerNotice::Calculator(_) => interest == ManagerInterest::WorkerAndCalculator,
            _ => interest != ManagerInterest::Assignment,
        }
    }

    /// The state, then the id, the leader and the assignment, each where there is one.
    fn introduce(current: &Introduction) -> Vec<Self> {
        let id = current.id.clone().map(|id| ManagerNotice::Id(Some(id)));
        let leader = current.leader.clone().map(|leader| ManagerNotice::Leader {
            leader: Some(leader),
            is_self: current.is_leader,
        });
        let held = (current.held.version != 0).then(|| {
            ManagerNotice::AssignmentChanged(AssignmentChange {
                held: current.held.clone(),
                added: current.held.partitions.to_vec(),
                removed: Vec::new(),
            })
        });
        let state = ManagerNotice::StateChanged(current.state);
        let rest = [id, leader, held].into_iter().flatten();
        std::iter::once(state).chain(rest).collect()
    }

    fn note(&self, current: &mut Introduction) {
        match self {
            ManagerNotice::StateChanged(change) => {
                current.state = ManagerChange {
                    from: change.to,
                    ..*change
                };
            }
            ManagerNotice::Id(id) => current.id.clone_from(id),
            ManagerNotice::Leader { leader, is_self } => {
                current.leader.clone_from(leader);
                current.is_leader = *is_self;
            }
            ManagerNotice::AssignmentChanged(change) => current.held = change.held.clone(),
            _ => {}
        }
    }

    fn lagged(missed: u64) -> Self {
        ManagerNotice::Lagged { missed }
    }

    fn is_last(&self) -> bool {
        matches!(self, ManagerNotice::Fatal { .. })
    }
}

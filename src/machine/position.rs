//! The calculator's states and the legal moves between them.

use crate::types::{CalculatorState, Reason, Time};

/// Where the calculator is, since when, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The state.
    pub state: CalculatorState,
    /// Why; `None` in `Idle`.
    pub reason: Option<Reason>,
    /// Since when.
    pub since: Time,
}

impl Position {
    /// Idle from `now` on.
    #[must_use]
    pub fn idle(now: Time) -> Self {
        Self {
            state: CalculatorState::Idle,
            reason: None,
            since: now,
        }
    }
}

/// Whether the calculator may go from one state to the other (DESIGN, section 3).
#[must_use]
pub fn is_legal(from: CalculatorState, to: CalculatorState) -> bool {
    use CalculatorState::{Emergency, Idle, Rebalancing, Scaling};
    matches!(
        (from, to),
        (Idle, Scaling | Rebalancing | Emergency)
            | (Scaling, Rebalancing | Emergency | Idle)
            | (Rebalancing | Emergency, Idle)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_transitions_are_legal() {
        let legal: Vec<String> = CalculatorState::ALL
            .into_iter()
            .flat_map(|from| CalculatorState::ALL.into_iter().map(move |to| (from, to)))
            .filter(|&(from, to)| is_legal(from, to))
            .map(|(from, to)| format!("{from}->{to}"))
            .collect();
        assert_eq!(
            legal,
            [
                "Idle->Scaling",
                "Idle->Rebalancing",
                "Idle->Emergency",
                "Scaling->Idle",
                "Scaling->Rebalancing",
                "Scaling->Emergency",
                "Rebalancing->Idle",
                "Emergency->Idle",
            ]
        );
    }
}

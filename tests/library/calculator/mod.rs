//! The calculator on the embedded store: real threads, short windows.

mod convergence;
mod liveness;
mod malformed;
mod partitions;
mod shadow;
mod start;
mod stop;
mod subscriptions;
mod takeover;

use divvy::{Calculator, CalculatorEvent, CalculatorState, EventFilter};

use crate::support::calculators::*;

#[test]
fn fleet_is_divided_and_trigger_publishes_new_version() {
    let store = store();
    let _fleet = Fleet::new(&store, ["w-1", "w-2"]);
    let calculator: Calculator = calculator(&store);
    let events = calculator.events(EventFilter::State);
    calculator.start(TIMEOUT).unwrap();
    let first = events.recv_timeout(TIMEOUT).unwrap();
    assert!(
        matches!(&*first, CalculatorEvent::StateChanged(c) if c.to == CalculatorState::Idle && c.from == CalculatorState::Idle)
    );
    assert_eq!(wait_for_publication(&events), 1);
    assert_eq!(held(&store, "w-1").unwrap().partitions.len(), 5);
    assert_eq!(held(&store, "w-2").unwrap().partitions.len(), 5);
    assert_eq!(calculator.trigger_rebalance(TIMEOUT).unwrap(), 2);
    let status = calculator.status();
    assert_eq!(status.workers.len(), 2, "{status:#?}");
    assert_eq!((status.version, status.term), (2, 1));
    calculator.stop(TIMEOUT).unwrap();
    assert!(!calculator.is_started());
}

//! The library in one process with the embedded store: strategies, calculators, managers, metrics.
//! No server, no other program.

#[macro_use]
#[path = "../support/conformance/mod.rs"]
mod conformance;
#[path = "../support/mod.rs"]
mod support;

mod calculator;
mod conformance_memory;
mod fleet_status;
mod manager;
#[cfg(feature = "metrics")]
mod metrics;
mod strategy;

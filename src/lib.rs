//! divvy keeps a set of partitions divided among a changing fleet of workers.

// A library never writes to its host's streams, and never panics for want of a value.
#![warn(
    missing_docs,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used
)]

#[cfg(feature = "capi")]
pub mod capi;
pub mod config;
pub mod error;
pub mod machine;
pub mod metrics;
pub mod runtime;
pub mod settings;
pub mod store;
pub mod strategy;
mod threads;
pub mod time;
pub mod types;
pub mod wire;

pub use config::{CalculatorConfig, ManagerConfig, OutagePolicy, OutagePreset};
pub use error::{Error, Result};
pub use machine::assignment::{AssignmentChange, Held};
pub use machine::breaker::BreakerState;
pub use machine::calculator::{CalculatorEvent, Degradation, Degraded, MemberChange, StateChange};
pub use machine::comparison::{Comparison, Difference, Intended};
pub use machine::convergence::Lagging;
pub use machine::fleet::{FenceView, FleetStatus, LeaderLease, WorkerView};
pub use machine::manager::{Departure, ManagerChange, ManagerEvent};
pub use runtime::{
    Calculator, CalculatorStatus, EventFilter, Events, LeaderElection, Manager, ManagerEventFilter,
    ManagerStatus, PartitionSource, Polled, Readiness, Subscription, read_fleet,
};
pub use settings::Settings;
pub use threads::cancel::Cancel;
pub use types::{CalculatorState, ManagerState, Partition, Reason, Version, WorkerId};

/// The README's programs are tests.
#[cfg(all(doctest, feature = "nats"))]
#[doc = include_str!("../README.md")]
struct Readme;

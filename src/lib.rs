//! divvy divides a set of partitions among a changing fleet of workers.
//!
//! Each process runs a [`Manager`]. It claims a stable id, sends heartbeats, takes part in a leader
//! election and delivers the partitions of its worker to a callback. The leader's [`Calculator`] watches
//! the heartbeats and publishes a new plan when workers or partitions change. Coordination goes through a
//! key-value [`Store`](store::Store): NATS JetStream KV for fleets, memory for tests and demos.
//!
//! # A worker
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use divvy::store::memory::MemoryStore;
//! use divvy::{Departure, Manager, ManagerConfig, ManagerEvent, ManagerEventFilter, ManagerState, Partition};
//!
//! # fn main() -> divvy::Result<()> {
//! // 1. Choose a store. `NatsStore::connect` replaces this line in a real fleet.
//! let store = Arc::new(MemoryStore::new());
//!
//! // 2. List the partitions. Every worker needs the same list, because each may lead.
//! let partitions = || Ok((0..4).map(|n| Partition::new([format!("tool{n:03}")], 100)).collect());
//!
//! // 3. Build the manager. The short windows suit an example; keep the defaults in a real fleet.
//! let mut config = ManagerConfig::default();
//! config.calculator.cold_start_window = Duration::from_millis(100);
//! config.calculator.planned_scale_window = Duration::from_millis(100);
//! config.calculator.cooldown = Duration::from_millis(50);
//! let manager = Manager::builder(store).config(config).source(partitions).build()?;
//!
//! // 4. Subscribe before the start, so that the first assignment is not missed.
//! let subscription = manager.subscribe(ManagerEventFilter::Assignment, |event| {
//!     if let ManagerEvent::AssignmentChanged(change) = event {
//!         // Stop `change.removed`, then start `change.added`.
//!         println!("{} partitions", change.held.partitions.len());
//!     }
//! });
//!
//! // 5. Join, work, and leave.
//! manager.start(Duration::from_secs(30))?;
//! manager.wait_state(ManagerState::Stable, Duration::from_secs(30))?;
//! assert_eq!(manager.assignment().partitions.len(), 4);
//! manager.stop(Departure::Leave, Duration::from_secs(10))?;
//! drop(subscription);
//! # Ok(())
//! # }
//! ```
//!
//! # Which type do I want?
//!
//! | you want | use |
//! | --- | --- |
//! | a worker that joins a fleet and receives partitions | [`Manager`] |
//! | only the leader's part, next to an election of your own | [`Calculator`] |
//! | to choose where partitions go | [`strategy::Strategy`]; default [`strategy::Sticky`] |
//! | settings from JSON, the environment or a command line | [`Settings`] |
//! | to inspect a live fleet | [`read_fleet`] |
//! | to end a blocking call early | [`Cancel`] |
//! | metrics | [`metrics`] |
//!
//! # Blocking and threads
//!
//! Nothing here is async. Calls that wait take a timeout or deadline and return by it. Handles own a few
//! named threads (`dv-…`), block all signals on them, and join them in `stop`. Callbacks run one at a time
//! on `dv-notify`. Dropping a handle stops it.
//!
//! # Features
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `nats` | yes | the NATS JetStream KV store |
//! | `metrics` | no | the Prometheus recorder |
//! | `cli` | no | the `divvy` command |
//! | `capi` | no | the C ABI |

#![cfg_attr(docsrs, feature(doc_cfg))]
// A library never writes to its host's streams and never panics on a missing value.
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
#[doc(hidden)] // for tests and benchmarks
pub mod machine;
pub mod metrics;
#[doc(hidden)] // for tests and benchmarks
pub mod runtime;
pub mod settings;
pub mod store;
pub mod strategy;
mod threads;
#[doc(hidden)] // for tests and benchmarks
pub mod time;
pub mod types;
pub mod vocabulary;
pub mod wire;

pub use config::{CalculatorConfig, ManagerConfig};
pub use error::{Code, Error, ErrorClass, Result};
pub use machine::assignment::{AssignmentChange, Held};
pub use machine::breaker::BreakerCondition;
pub use machine::calculator::{CalculatorEvent, Degradation, Degraded, StateChange};
pub use machine::comparison::{Comparison, Difference, Intended};
pub use machine::config_mismatch::ConfigMismatch;
pub use machine::convergence::Lagging;
pub use machine::fleet::{FenceView, FleetStatus, LeaderLease, WorkerView};
pub use machine::list_guard::HeldList;
pub use machine::manager::{ManagerChange, ManagerEvent};
pub use runtime::{
    BreakerStatus, Calculator, CalculatorBuilder, CalculatorStatus, Events, LeaderElection,
    Manager, ManagerBuilder, ManagerStatus, PartitionSource, Polled, Readiness, RecvError,
    StatusCounters, Subscription, WorkerStatus, connect_nats, read_fleet,
};
pub use settings::Settings;
pub use threads::cancel::Cancel;
pub use time::clock::{Clock, ManualClock, SystemClock};
pub use types::{Partition, Version, WorkerId};
pub use vocabulary::{
    ActiveMode, AlertLevel, BreakerState, CalculatorState, DegradationCause, Departure,
    EventFilter, ManagerEventFilter, ManagerState, MemberChange, OutagePolicy, OutagePreset,
    PublishMode, Reason,
};

/// The programs of the README and of the book are tests.
#[cfg(all(doctest, feature = "nats"))]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/which-api.md")]
struct Documents;

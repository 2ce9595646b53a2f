//! divvy keeps a set of partitions divided among a changing fleet of workers.

pub mod clock;
pub mod config;
pub mod error;
pub mod machine;
pub mod runtime;
pub mod store;
pub mod strategy;
mod thread;
pub mod types;
pub mod wire;

pub use config::CalculatorConfig;
pub use error::{Error, Result};
pub use machine::calculator::{Degradation, MemberChange, Notice, StateChange};
pub use runtime::{Calculator, Events, Interest, PartitionSource, Status, Subscription};
pub use types::{Partition, Reason, State, Version, WorkerId};

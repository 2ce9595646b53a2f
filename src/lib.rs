//! divvy keeps a set of partitions divided among a changing fleet of workers.

pub mod clock;
pub mod error;
pub mod store;
pub mod strategy;
mod thread;
pub mod types;

//! The shell: threads, channels and joins around the pure core.
//!
//! | thread | owns | talks to |
//! | --- | --- | --- |
//! | `dv-calc` (`driver`) | the calculator machine and its timers | everyone, by channel |
//! | `dv-watch` (`worker_monitor`) | the watches and the leases | -> `dv-calc` |
//! | `dv-publish` (`assignment_publisher`) | rebalance jobs | <-> `dv-calc` |
//! | `dv-notify` (`notifier`) | subscriber callbacks | <- `dv-calc` |
//!
//! A manager has threads of its own, see `manager`; `crew` starts and joins those of both.

mod assignment_publisher;
mod calculator;
mod connect;
mod crew;
mod driver;
mod fleet;
mod gate;
mod journal;
mod lifecycle;
mod manager;
mod notifier;
mod protected;
pub mod publisher;
pub mod rebalancer;
mod reopening;
mod shared;
#[doc(hidden)]
pub mod sim;
mod status;
mod telling;
mod told;
mod worker_monitor;

pub use calculator::{Calculator, CalculatorBuilder};
pub use connect::connect_nats;
pub use fleet::read_fleet;
pub use manager::{
    LeaderElection, Manager, ManagerBuilder, ManagerInterest, ManagerStatus, perform,
};
pub use notifier::{Events, Polled, Readiness, Subscription};
pub use protected::BreakerStatus;
pub use rebalancer::PartitionSource;
pub use status::{Status, StatusCounters, WorkerStatus};
pub use told::Interest;
#[cfg(feature = "capi")]
pub(crate) use told::Told;

//! The shell: threads, channels and joins around the pure core.
//!
//! | thread | owns | talks to |
//! | --- | --- | --- |
//! | `dv-calc` (`driver`) | the calculator machine and its timers | everyone, by channel |
//! | `dv-watch` (`worker_monitor`) | the watches and the leases | -> `dv-calc` |
//! | `dv-publish` (`assignment_publisher`) | rebalance jobs | <-> `dv-calc` |
//! | `dv-notify` (`notifier`) | subscriber callbacks | <- `dv-calc` |
//!
//! A manager has threads of its own, see `manager`; `thread_group` starts and joins those of both.

mod assignment_publisher;
mod calculator;
mod connect;
mod driver;
mod event_filter;
mod event_log;
mod fleet;
mod guarded_store;
mod lifecycle;
mod manager;
mod metrics_sink;
mod notifier;
pub mod publisher;
pub mod rebalancer;
mod reopening;
mod shared;
#[doc(hidden)]
pub mod sim;
mod status;
mod stop_guard;
mod thread_group;
mod worker_monitor;

pub use calculator::{Calculator, CalculatorBuilder};
pub use connect::connect_nats;
pub use event_filter::EventFilter;
#[cfg(feature = "capi")]
pub(crate) use event_filter::Notification;
pub use fleet::read_fleet;
pub use guarded_store::BreakerStatus;
pub use manager::{
    LeaderElection, Manager, ManagerBuilder, ManagerEventFilter, ManagerStatus, perform,
};
pub use notifier::{Events, Polled, Readiness, Subscription};
pub use rebalancer::PartitionSource;
pub use status::{CalculatorStatus, StatusCounters, WorkerStatus};

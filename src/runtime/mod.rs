//! The shell: threads, channels and joins around the pure core.
//!
//! | thread | owns | talks to |
//! | --- | --- | --- |
//! | `dv-calc` (`driver`) | the calculator machine and its timers | everyone, by channel |
//! | `dv-watch` (`worker_monitor`) | the watches and the leases | -> `dv-calc` |
//! | `dv-publish` (`assignment_publisher`) | rebalance jobs | <-> `dv-calc` |
//! | `dv-source` (`list_reader`) | calls of the partition source | <-> `dv-publish`, -> `dv-calc` |
//! | `dv-notify` (`notifier`) | subscriber callbacks | <- `dv-calc` |
//!
//! A manager has threads of its own, see `manager`; `thread_group` starts and joins those of both.

mod calculator;
mod common;
mod connect;
mod event_record;
mod fleet_identity;
mod guarded_store;
mod manager;
mod notifier;
pub mod publish;
mod read_fleet;
mod running_host_calls;
#[doc(hidden)]
pub mod sim;

pub use calculator::{Calculator, CalculatorBuilder};
pub use calculator::{CalculatorStatus, StatusCounters, WorkerStatus};
#[cfg(all(feature = "capi", feature = "nats"))]
pub(crate) use connect::connect_nats_with_credentials;
#[cfg(feature = "nats")]
pub use connect::nats_options;
pub use connect::{connect_nats, open_store};
pub use event_record::{EventRecord, rfc3339};
pub use guarded_store::BreakerStatus;
pub use manager::{
    LeaderElection, Manager, ManagerBuilder, ManagerEventFilter, ManagerStatus, perform,
};
pub use notifier::EventFilter;
pub use notifier::{Events, Polled, Readiness, RecvError, Subscription};
#[cfg(feature = "capi")]
pub(crate) use notifier::{Notification, Queued};
pub use publish::partition_list::PartitionSource;
pub use read_fleet::read_fleet;

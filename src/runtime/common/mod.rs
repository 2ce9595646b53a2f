//! What calculators and managers have in common: thread groups, logs, metrics.

pub mod event_log;
pub mod metrics_sink;
pub mod thread_group;

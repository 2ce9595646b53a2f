//! The shell: threads, channels and joins around the pure core.

pub mod publisher;
pub mod rebalancer;

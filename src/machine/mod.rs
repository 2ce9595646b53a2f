//! The core: every rule about when and why, pure and deterministic.
//!
//! Nothing in here reads a clock, spawns, locks or does I/O; time is handed in. A test
//! (`tests/tidy/sources.rs`) enforces it.

pub mod adaptive_timeout;
pub mod assignment;
pub mod breaker;
pub mod cache;
pub mod calculator;
pub mod comparison;
pub mod config_mismatch;
pub mod convergence;
pub mod election;
pub mod engine;
pub mod fit;
pub mod fleet;
pub mod heartbeat;
pub mod host_calls;
pub mod list_guard;
pub mod liveness;
pub mod manager;
pub mod observer;
pub mod outage;
pub mod plausible;
pub mod position;
pub mod publication;
pub mod request;
pub mod retry_budget;
pub mod stable_id;
pub mod takeover;

//! The core: every rule about when and why, pure and deterministic.
//!
//! Nothing in here reads a clock, spawns, locks or does I/O; time is handed in. A test
//! (`tests/tidy.rs`) enforces it.

pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod calculator;
pub mod liveness;
pub mod observer;
pub mod publication;
pub mod state;
pub mod takeover;

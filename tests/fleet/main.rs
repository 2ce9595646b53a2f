//! Fleets of `divvy worker` processes over real servers.
#![cfg(all(feature = "cli", feature = "nats", target_os = "linux"))]

mod cache;
mod life;
mod process;
#[path = "../support/mod.rs"]
mod support;

//! The `divvy` command, as users run it.

#[cfg(all(feature = "nats", target_os = "linux"))]
#[path = "../support/mod.rs"]
mod support;
#[cfg(all(feature = "nats", target_os = "linux"))]
#[path = "../support/worker_process.rs"]
mod worker_process;

#[cfg(target_os = "linux")]
mod demo;
#[cfg(all(feature = "nats", target_os = "linux"))]
mod demo_on_server;
mod environment;
mod plan;
#[cfg(all(feature = "nats", target_os = "linux"))]
mod shadow_and_status;
#[cfg(all(feature = "nats", target_os = "linux"))]
mod workers;

//! The NATS store and the calculator on real servers.
#![cfg(target_os = "linux")]

#[macro_use]
#[path = "../support/conformance/mod.rs"]
mod conformance;
#[path = "../support/nats_fixture.rs"]
mod nats_fixture;
#[cfg(feature = "metrics")]
#[path = "../support/observer/mod.rs"]
mod observer;
#[path = "../support/mod.rs"]
mod support;

mod auth;
mod buckets;
mod calculator;
mod conformance_nats;
mod domains;
mod faults;
mod fleets;
mod hostile;
mod other_client;
mod permissions;
mod restored;
mod rolling;
mod size;
mod stale_leader;
mod store;

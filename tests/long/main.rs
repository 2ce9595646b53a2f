//! Tests that run for many minutes. `cargo test` omits them; each has its `make` command:
//! `test-matrix`, `faults`, `rivals`, `chaos`.
#![cfg(target_os = "linux")]

#[macro_use]
#[path = "../support/conformance/mod.rs"]
mod conformance;
#[path = "../support/nats_fixture.rs"]
mod nats_fixture;
#[path = "../support/observer/mod.rs"]
mod observer;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/worker_process.rs"]
mod worker_process;

mod chaos;
mod cluster;
mod fault_table;
mod matrix;
mod rivals;

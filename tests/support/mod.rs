//! What the tests against real servers share.
#![allow(dead_code, reason = "each test program uses its own part")]

pub mod disk;
pub mod fault_list;
pub mod faults;
pub mod nats_binary;
pub mod nats_server;
pub mod proxy;
pub mod publishers;
pub mod raw_nats;
#[cfg(target_os = "linux")]
pub mod tasks;
#[cfg(target_os = "linux")]
pub mod usage;

//! Code that the tests share. Each test program compiles all of it and uses its part.
#![allow(dead_code, reason = "each test program uses its part")]

pub mod calculators;
#[cfg(target_os = "linux")]
pub mod disk;
#[cfg(all(feature = "nats", target_os = "linux"))]
pub mod fault_list;
#[cfg(all(feature = "nats", target_os = "linux"))]
pub mod faults;
pub mod fleets;
pub mod managers;
#[cfg(target_os = "linux")]
pub mod nats_binary;
#[cfg(target_os = "linux")]
pub mod nats_server;
#[cfg(feature = "nats")]
pub mod operator;
#[cfg(target_os = "linux")]
pub mod proxy;
#[cfg(all(feature = "nats", target_os = "linux"))]
pub mod publishers;
#[cfg(target_os = "linux")]
pub mod raw_nats;
#[cfg(target_os = "linux")]
pub mod tasks;
#[cfg(target_os = "linux")]
pub mod usage;

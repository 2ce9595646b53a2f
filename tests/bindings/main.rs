//! The C ABI: the header, C and C++ programs against the library, and the result of `make install`.
#![cfg(unix)]

mod build;
#[cfg(target_os = "linux")]
#[path = "../support/mod.rs"]
mod support;

#[cfg(target_os = "linux")]
mod capi;
mod header;
#[cfg(target_os = "linux")]
mod packaging;
#[cfg(target_os = "linux")]
mod services;
mod vocabulary;

//! The C ABI: the only `extern "C"` of this crate, and nearly all of its `unsafe`.
//!
//! `include/divvy.h` is generated from this folder; the comments of public items are its manual
//! and speak to C programmers. Rules of the house:
//!
//! * Handles are an index and a generation, looked up in a table and never dereferenced.
//! * Every body runs inside `guard::call`, which catches panics and knows a forked child.
//! * Outputs are written last, and only on success.
#![allow(non_camel_case_types, reason = "the names are those of the header")]
#![allow(
    clippy::missing_safety_doc,
    reason = "the comments become the header's manual, whose preamble says what holds for all"
)]

// In the order of the header.
#[rustfmt::skip] // generated
mod enums;

mod status;

mod version;

mod text;

mod failure;

mod cancel;

mod userdata;

mod callback;

mod log_record;

mod log;

mod credentials;

mod config;

mod setting;

mod store;

mod partitions;

mod strategy;

mod election;

mod names;

mod calculator;

mod manager;

mod assignment;

mod events;

mod event;

mod guard;
mod packed;
mod registry;
mod snapshot;

//! Threads of the library and how callers wait for them.

pub(crate) mod cancel;
mod thread;

pub(crate) use self::thread::{Thread, signal};

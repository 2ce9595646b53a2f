//! Threads of the library and how callers wait for them.

pub(crate) mod cancel;
mod own_thread;
mod panic_text;
mod signal;
mod thread;

pub(crate) use self::own_thread::{OwnThread, next_handle_id};
pub(crate) use self::panic_text::panic_text;
pub(crate) use self::signal::signal;
pub(crate) use self::thread::Thread;
#[cfg(feature = "capi")]
pub(crate) use self::thread::{is_own_thread, spawn_borrowing};

//! Tracks the handle that a thread works for.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of a handle, for [`OwnThread`].
pub(crate) fn next_handle_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Marks the threads of a handle, so that a call that would wait for its own thread fails instead.
pub(crate) struct OwnThread;

thread_local! {
    /// The handle that this thread works for (0: none), and whether it is the `dv-notify` of that
    /// handle.
    static OWNER: Cell<(u64, bool)> = const { Cell::new((0, false)) };
}

impl OwnThread {
    pub fn mark(owner: u64, is_notifier: bool) {
        OWNER.set((owner, is_notifier));
    }

    pub fn belongs_to(owner: u64) -> bool {
        OWNER.get().0 == owner
    }

    /// Returns whether this thread runs the callbacks of that handle.
    pub fn is_notifier_of(owner: u64) -> bool {
        OWNER.get() == (owner, true)
    }
}

//! The primitives that the notifier's threads synchronise with. A test build with
//! `--cfg divvy_loom` replaces them, so that loom explores every order of the threads' steps.

#[cfg(not(all(test, divvy_loom)))]
use std::cell::Cell;

use crossbeam_channel::{Receiver, Sender, bounded};

#[cfg(not(all(test, divvy_loom)))]
pub(super) use parking_lot::{Condvar, Mutex};

#[cfg(all(test, divvy_loom))]
pub(super) use super::tests::loom_primitives::{Condvar, Mutex, ThreadKey};

/// Identifies a thread while it runs. Unlike `std::thread::current`, it works while the thread's
/// locals are being destroyed, which is when hosts may call the library, too.
#[cfg(not(all(test, divvy_loom)))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct ThreadKey(usize);

#[cfg(not(all(test, divvy_loom)))]
impl ThreadKey {
    pub fn of_this_thread() -> Self {
        thread_local! {
            /// Only its address matters.
            static PLACE: Cell<u8> = const { Cell::new(0) };
        }
        Self(PLACE.with(|place| std::ptr::from_ref(place).addr()))
    }
}

/// Wakes `dv-notify`. It keeps one wake for a thread that does not wait yet. More add nothing,
/// because the thread then reads all backlogs.
pub(super) struct WakeChannel {
    sender: Sender<()>,
    receiver: Receiver<()>,
    #[cfg(all(test, divvy_loom))]
    pub explored: super::tests::loom_primitives::WakeChannel,
}

impl WakeChannel {
    pub fn new() -> Self {
        let (sender, receiver) = bounded(1);
        Self {
            sender,
            receiver,
            #[cfg(all(test, divvy_loom))]
            explored: super::tests::loom_primitives::WakeChannel::new(),
        }
    }

    /// Does not block.
    pub fn wake(&self) {
        let _ = self.sender.try_send(());
        #[cfg(all(test, divvy_loom))]
        self.explored.wake();
    }

    /// Receives a message after one or more wakes.
    pub fn receiver(&self) -> &Receiver<()> {
        &self.receiver
    }
}

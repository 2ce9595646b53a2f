//! How calls wake the thread of a client.

use crossbeam_channel::Sender;

use crate::types::Time;

/// Wakes a client's thread when it waits for too little. Dropping it ends the thread.
pub(super) struct Alarm {
    wake: Sender<()>,
    until: Time,
}

impl Alarm {
    pub(super) fn new(wake: Sender<()>) -> Self {
        Self {
            wake,
            until: Time::FAR_FUTURE,
        }
    }

    /// The thread is about to wait until `due`.
    pub(super) fn set(&mut self, due: Option<Time>) {
        self.until = due.unwrap_or(Time::FAR_FUTURE);
    }

    /// Wakes the thread if it would sleep beyond `due`.
    pub(super) fn ring_if_late(&self, due: Option<Time>) {
        if due.is_some_and(|due| due < self.until) {
            self.ring();
        }
    }

    /// Wakes the thread.
    pub(super) fn ring(&self) {
        // A full channel means that the thread has been woken and did not get to it yet.
        let _ = self.wake.try_send(());
    }
}

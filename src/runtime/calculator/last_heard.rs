//! When the last heartbeat arrived.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::Time;

/// Time of the last heartbeat, by the calculator's clock.
#[derive(Debug, Default)]
pub(crate) struct LastHeard(AtomicU64);

impl LastHeard {
    /// 0 means "never", so that a heartbeat costs one store of a number.
    pub fn set(&self, now: Time) {
        self.0.store(now.as_nanos(), Ordering::Relaxed);
    }

    pub fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    pub fn get(&self) -> Option<Time> {
        let nanos = self.0.load(Ordering::Relaxed);
        (nanos != 0).then(|| Time::from_nanos(nanos))
    }
}

//! The interfaces of `parking_lot` and of the channels over the primitives of loom.

use std::ops::{Deref, DerefMut};
use std::time::Instant;

pub struct Mutex<T>(loom::sync::Mutex<T>);

pub struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

pub struct Condvar(loom::sync::Condvar);

pub struct WaitTimeoutResult(bool);

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ThreadKey(loom::thread::ThreadId);

impl ThreadKey {
    pub fn of_this_thread() -> Self {
        Self(loom::thread::current().id())
    }
}

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().unwrap()))
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap()
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_deref_mut().unwrap()
    }
}

impl Condvar {
    pub fn new() -> Self {
        Self(loom::sync::Condvar::new())
    }

    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        guard.0 = guard.0.take().map(|guard| self.0.wait(guard).unwrap());
    }

    /// Times out if the deadline has passed, and never otherwise: loom reports a wait without an
    /// end as a deadlock.
    pub fn wait_until<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        deadline: Instant,
    ) -> WaitTimeoutResult {
        if deadline <= Instant::now() {
            return WaitTimeoutResult(true);
        }
        self.wait(guard);
        WaitTimeoutResult(false)
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

impl WaitTimeoutResult {
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

/// Wakes and the order to finish, which [`Hub::run`](super::super::Hub::run) receives from
/// channels.
pub struct WakeChannel {
    state: Mutex<Orders>,
    changed: Condvar,
}

#[derive(Default)]
struct Orders {
    is_woken: bool,
    is_finished: bool,
}

impl WakeChannel {
    pub fn new() -> Self {
        Self {
            state: Mutex::new(Orders::default()),
            changed: Condvar::new(),
        }
    }

    pub fn wake(&self) {
        self.state.lock().is_woken = true;
        self.changed.notify_all();
    }

    pub fn finish(&self) {
        self.state.lock().is_finished = true;
        self.changed.notify_all();
    }

    /// Waits for a wake or the order to finish; returns whether it is the latter.
    pub fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.is_woken && !state.is_finished {
            self.changed.wait(&mut state);
        }
        state.is_woken = false;
        state.is_finished
    }
}

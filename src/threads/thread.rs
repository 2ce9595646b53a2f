//! Owned, named threads with all signals blocked, joined by a deadline.

use std::cell::Cell;
use std::convert::Infallible;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use crossbeam_channel::Receiver;
use parking_lot::Mutex;

use super::cancel::{self, WaitError};
use super::signal::signal;
use crate::error::{Code, Error, Result};

/// A running thread that must be joined.
#[derive(Debug)]
pub(crate) struct Thread {
    name: &'static str,
    /// Disconnected when the work of the thread ends, also by a panic.
    done: Receiver<Infallible>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl Thread {
    /// Starts a thread. Its name has at most 15 bytes, the limit of Linux.
    ///
    /// All signals are blocked on it, so that the host's signals are never delivered to it.
    ///
    /// # Errors
    /// [`Code::Unavailable`] when the system cannot start another thread.
    pub(crate) fn spawn(name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<Self> {
        debug_assert!(name.len() <= 15, "{name}");
        let (alive, done) = signal();
        let _mask = SignalMask::block_all();
        let handle = Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                IS_OWN.set(true);
                let _alive = alive;
                work();
            })
            .map_err(|cause| {
                Error::new(
                    Code::Unavailable,
                    format!("the system cannot start thread {name}"),
                )
                .caused_by(cause)
            })?;
        Ok(Self {
            name,
            done,
            handle: Mutex::new(Some(handle)),
        })
    }

    /// Returns whether the work of the thread has ended.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(
            self.done.try_recv(),
            Err(crossbeam_channel::TryRecvError::Disconnected)
        )
    }

    /// Returns the name of the thread.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Waits until the thread has ended. Several threads may do so concurrently.
    ///
    /// # Errors
    /// [`Code::TimedOut`] when it is still busy at the deadline, [`Code::Cancelled`], and
    /// [`Code::Panicked`] (once) when it ended by a panic.
    pub(crate) fn join(&self, deadline: Instant) -> Result<()> {
        let busy = |code| {
            let words = format!("thread {} is still busy; call again", self.name);
            Err(Error::new(code, words))
        };
        match cancel::recv_deadline(&self.done, deadline) {
            Err(WaitError::TimedOut) => return busy(Code::TimedOut),
            Err(WaitError::Cancelled) => return busy(Code::Cancelled),
            Err(WaitError::Disconnected) => {}
        }
        // The work has ended, so this join waits only for the last instructions of the thread.
        let handle = self.handle.lock().take();
        match handle.map(JoinHandle::join) {
            Some(Err(_)) => Err(Error::new(
                Code::Panicked,
                format!("thread {} panicked", self.name),
            )),
            Some(Ok(())) | None => Ok(()),
        }
    }
}

thread_local! {
    static IS_OWN: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether this thread was started by this module.
#[cfg(feature = "capi")]
pub(crate) fn is_own_thread() -> bool {
    IS_OWN.get()
}

/// Starts a thread that may borrow from the calling one. Unlike [`Thread::join`], its join works on
/// a thread whose locals are destroyed.
///
/// # Safety
/// The caller joins the thread before anything that `work` borrows ends.
#[cfg(feature = "capi")]
pub(crate) unsafe fn spawn_borrowing<T: Send>(
    name: &'static str,
    work: impl FnOnce() -> T + Send,
) -> std::io::Result<JoinHandle<T>> {
    let _mask = SignalMask::block_all();
    let builder = Builder::new().name(name.to_owned());
    let work = move || {
        IS_OWN.set(true);
        work()
    };
    // SAFETY: as the caller promises.
    unsafe { builder.spawn_unchecked(work) }
}

/// Blocks every signal on this thread, and on the threads that it starts, until it is dropped.
struct SignalMask {
    #[cfg(unix)]
    before: libc::sigset_t,
}

impl SignalMask {
    #[cfg(unix)]
    fn block_all() -> Self {
        // SAFETY: a sigset_t of zeros is a valid value to be overwritten; both calls write only
        // to the sets given, which live on this stack, and keep no reference to them.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self { before }
        }
    }

    #[cfg(not(unix))]
    fn block_all() -> Self {
        Self {}
    }
}

impl Drop for SignalMask {
    fn drop(&mut self) {
        #[cfg(unix)]
        // SAFETY: `before` was filled in by the system; no reference is kept.
        unsafe {
            libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const self.before,
                std::ptr::null_mut(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::bounded;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn join_distinguishes_busy_finished_and_panicked_threads() {
        let (go, wait) = bounded::<()>(0);
        let busy = Thread::spawn("dv-test", move || {
            let _ = wait.recv();
        })
        .unwrap();
        assert_eq!(
            busy.join(Instant::now()).unwrap_err().code(),
            Code::TimedOut
        );
        drop(go);
        busy.join(soon()).unwrap();
        busy.join(soon()).unwrap();

        let broken = Thread::spawn("dv-test", || panic!("simulated")).unwrap();
        assert_eq!(broken.join(soon()).unwrap_err().code(), Code::Panicked);
    }

    #[cfg(unix)]
    #[test]
    fn threads_block_signals_and_spawning_thread_is_unchanged() {
        fn blocks(signal: libc::c_int) -> bool {
            // SAFETY: only writes to the set on this stack.
            unsafe {
                let mut set: libc::sigset_t = std::mem::zeroed();
                libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut set);
                libc::sigismember(&raw const set, signal) == 1
            }
        }
        let before = [blocks(libc::SIGTERM), blocks(libc::SIGUSR1)];
        let (sender, reported) = bounded(1);
        let thread = Thread::spawn("dv-test", move || {
            let _ = sender.send(blocks(libc::SIGTERM) && blocks(libc::SIGPIPE));
        })
        .unwrap();
        thread.join(soon()).unwrap();
        assert!(reported.recv().unwrap());
        assert_eq!(before, [blocks(libc::SIGTERM), blocks(libc::SIGUSR1)]);
    }
}

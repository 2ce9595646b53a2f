//! The library's threads: named, deaf to signals, joined with a deadline.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// Linux cuts thread names after this many bytes.
const NAME_BYTES_MAX: usize = 15;

/// What a channel carries that only ever tells that its other end is gone.
pub(crate) enum Never {}

/// A sender whose drop is the signal, and the receiver that notices it.
pub(crate) fn signal() -> (Sender<Never>, Receiver<Never>) {
    bounded(0)
}

/// Starts a thread on which no signal of the host ever lands.
///
/// The new thread, and whatever it spawns in turn, inherits a mask that blocks every signal, so
/// that the host's handlers run on the host's threads only, and SIGPIPE on none of ours.
///
/// # Errors
/// The system's, when it cannot give another thread.
///
/// # Panics
/// When `name` is longer than 15 bytes: Linux would cut it.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    assert!(name.len() <= NAME_BYTES_MAX, "thread name {name:?}");
    let _blocked = AllSignalsBlocked::new();
    thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// A thread that can be waited for with a deadline.
pub(crate) struct Worker {
    name: &'static str,
    handle: JoinHandle<()>,
    ended: Receiver<Never>,
}

impl Worker {
    /// Starts `body`; see [`spawn`].
    pub(crate) fn spawn(
        name: &'static str,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let (alive, ended) = signal();
        let handle = spawn(name, move || {
            let _alive = alive;
            body();
        })?;
        Ok(Self {
            name,
            handle,
            ended,
        })
    }

    /// The thread's name.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the thread has nothing left to do.
    pub(crate) fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Waits for the end of the thread; gives it back when it is still busy at the deadline.
    ///
    /// The inner result is an error when the thread panicked.
    pub(crate) fn join_by(self, deadline: Instant) -> Result<thread::Result<()>, Self> {
        match self.ended.recv_deadline(deadline) {
            Err(RecvTimeoutError::Disconnected) => Ok(self.handle.join()),
            Err(RecvTimeoutError::Timeout) => Err(self),
            Ok(never) => match never {},
        }
    }
}

/// Blocks every signal on the calling thread until dropped.
struct AllSignalsBlocked {
    #[cfg(unix)]
    before: libc::sigset_t,
}

impl AllSignalsBlocked {
    #[cfg(unix)]
    fn new() -> Self {
        // SAFETY: both sets are valid, owned memory, initialised by the calls before they are
        // read; pthread_sigmask changes nothing but this thread's mask.
        unsafe {
            let mut all = std::mem::zeroed::<libc::sigset_t>();
            let mut before = std::mem::zeroed::<libc::sigset_t>();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self { before }
        }
    }

    #[cfg(not(unix))]
    fn new() -> Self {
        Self {}
    }
}

#[cfg(unix)]
impl Drop for AllSignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: `before` is the mask that this thread had; a null pointer asks for no old mask.
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
    use super::*;
    use std::time::Duration;

    #[test]
    #[cfg(target_os = "linux")]
    fn spawned_threads_block_every_signal_and_the_spawner_keeps_its_mask() {
        fn blocked_here() -> u64 {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = status.lines().find(|l| l.starts_with("SigBlk:")).unwrap();
            u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
        }
        let before = blocked_here();
        let inside = spawn("dv-test", blocked_here).unwrap().join().unwrap();
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGPIPE, libc::SIGUSR1] {
            assert_ne!(inside & (1 << (signal - 1)), 0, "signal {signal}");
        }
        assert_eq!(blocked_here(), before);
    }

    #[test]
    fn a_busy_worker_is_given_back_at_the_deadline_and_can_be_joined_later() {
        let (go, wait) = signal();
        let worker = Worker::spawn("dv-test", move || {
            wait.recv().ok();
        })
        .unwrap();
        let worker = worker
            .join_by(Instant::now() + Duration::from_millis(5))
            .err()
            .unwrap();
        assert!(!worker.is_finished());
        drop(go);
        let joined = worker.join_by(Instant::now() + Duration::from_secs(10));
        assert!(joined.is_ok_and(|result| result.is_ok()));
    }

    #[test]
    #[should_panic(expected = "thread name")]
    fn names_that_linux_would_cut_are_refused() {
        let _ = spawn("dv-name-too-long", || ());
    }
}

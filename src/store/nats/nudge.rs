//! A way round a lost wake-up in the client crate's TLS.
//!
//! With TLS, the crate's writers read from the socket as well. A writer can take in the bytes that
//! the crate's reader is waiting for in `poll`; the reader then sleeps on, over data that has long
//! arrived, until more arrives. So whenever someone has waited for a moment, this thread has the
//! server send something: it publishes to our own inbox, by the one call of the crate that never
//! blocks. Plain connections do not need it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::connection::Tracker;
use crate::error::Result;
use crate::threads::{Thread, signal};

/// A wait longer than this is worth a nudge; a round trip mostly takes less.
pub(super) const NUDGE_AFTER: Duration = Duration::from_millis(20);

/// The thread that nudges, for as long as this lives.
pub(super) struct Nudger {
    wake: Sender<()>,
    stop: Option<Sender<Infallible>>,
    thread: Thread,
}

impl Nudger {
    pub(super) fn start(
        connection: nats::Connection,
        inbox: &str,
        tracker: &Arc<Tracker>,
    ) -> Result<Self> {
        let (wake, woken) = bounded(1);
        let (stop, stopped) = signal();
        let subject = format!("{inbox}.nudge");
        let tracker = Arc::clone(tracker);
        let thread = Thread::spawn("dv-nats-nudge", move || {
            nudge(&connection, &subject, &tracker, &woken, &stopped);
        })?;
        Ok(Self {
            wake,
            stop: Some(stop),
            thread,
        })
    }

    /// Tells that a call of the crate begins that waits for the server.
    pub(super) fn watch(&self) {
        self.wake.try_send(()).ok();
    }
}

impl Drop for Nudger {
    fn drop(&mut self) {
        self.stop.take();
        // It never blocks, so this is a matter of microseconds.
        self.thread
            .join(Instant::now() + Duration::from_secs(1))
            .ok();
    }
}

fn nudge(
    connection: &nats::Connection,
    subject: &str,
    tracker: &Tracker,
    woken: &Receiver<()>,
    stopped: &Receiver<Infallible>,
) {
    loop {
        select! {
            recv(woken) -> _ => {}
            recv(stopped) -> _ => return,
        }
        loop {
            select! {
                recv(stopped) -> _ => return,
                default(NUDGE_AFTER) => {}
            }
            if tracker.busy_for().is_zero() {
                break;
            }
            // What becomes of it does not matter: an error is bytes from the server as well.
            drop(connection.try_publish_with_reply_or_headers(subject, None, None, b""));
        }
    }
}

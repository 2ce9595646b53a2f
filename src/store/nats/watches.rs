//! All watches of a store, served in turn by the thread of the session.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender, unbounded};

use super::session::Session;
use super::watch::{NatsWatch, WatchTarget};

/// A request of a watch reader.
pub(super) enum WatchRequest {
    Open(Box<NatsWatch>),
    Close(u64),
}

/// Creates the queue of requests. Unbounded, because dropping a watch must not block; there are at
/// most two requests per watch.
pub(super) fn requests() -> (Sender<WatchRequest>, Receiver<WatchRequest>) {
    unbounded()
}

static NEXT_WATCH: AtomicU64 = AtomicU64::new(1);

/// Requests a watch. Dropping the returned value ends it. `None`: the session has ended.
pub(super) fn open(
    requests: &Sender<WatchRequest>,
    target: WatchTarget,
) -> Option<impl FnOnce() + use<>> {
    let id = NEXT_WATCH.fetch_add(1, Ordering::Relaxed);
    let watcher = Box::new(NatsWatch::new(id, target));
    requests.send(WatchRequest::Open(watcher)).ok()?;
    let requests = requests.clone();
    Some(move || drop(requests.send(WatchRequest::Close(id))))
}

pub(super) struct Watches {
    session: Arc<Session>,
    requests: Receiver<WatchRequest>,
    watchers: Vec<NatsWatch>,
}

impl Watches {
    pub(super) fn new(session: Arc<Session>, requests: Receiver<WatchRequest>) -> Self {
        Self {
            session,
            requests,
            watchers: Vec::new(),
        }
    }

    /// Performs the due work of every watch. Returns when the next work is due.
    pub(super) fn work(&mut self, now: Instant) -> Instant {
        self.take_requests();
        let mut due = now + Duration::from_secs(60);
        let session = &self.session;
        self.watchers.retain_mut(|watcher| {
            let worked = catch_unwind(AssertUnwindSafe(|| watcher.work(session, now)));
            match worked {
                Ok(Some(next)) => {
                    due = due.min(next);
                    true
                }
                Ok(None) => false,
                Err(_) => {
                    // The reader detects the end of the watch and opens another one.
                    log::error!("watch panicked");
                    false
                }
            }
        });
        due
    }

    /// Registers the channels of all watches with `select`.
    pub(super) fn listen<'a>(&'a self, select: &mut Select<'a>, now: Instant) {
        select.recv(&self.requests);
        for watcher in &self.watchers {
            watcher.listen(select, now);
        }
    }

    /// Notifies all watches of a new connection.
    pub(super) fn reconnected(&mut self) {
        let now = Instant::now();
        for watcher in &mut self.watchers {
            watcher.reconnected(now);
        }
    }

    /// Ends all watches. Called after the link was closed, so that every request fails immediately.
    pub(super) fn end(&mut self) {
        self.take_requests();
        for watcher in self.watchers.drain(..) {
            watcher.end();
        }
    }

    fn take_requests(&mut self) {
        for request in self.requests.try_iter() {
            match request {
                WatchRequest::Open(watcher) => self.watchers.push(*watcher),
                WatchRequest::Close(id) => {
                    let closed = self.watchers.iter_mut().find(|watcher| watcher.id == id);
                    if let Some(watcher) = closed {
                        watcher.close();
                    }
                }
            }
        }
    }
}

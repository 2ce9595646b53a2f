//! All watches of a store, worked for by the session's thread, one after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender, unbounded};

use super::session::Session;
use super::watch::{NatsWatch, WatchTarget};

/// What readers of watches ask for.
pub(super) enum WatchRequest {
    Open(Box<NatsWatch>),
    Close(u64),
}

/// The requests of readers. Unbounded, for nobody may wait who drops a watch; there are two for
/// each watch at most.
pub(super) fn requests() -> (Sender<WatchRequest>, Receiver<WatchRequest>) {
    unbounded()
}

static NEXT_WATCH: AtomicU64 = AtomicU64::new(1);

/// Asks for a watch; what is returned asks for its end. Nothing: nobody works for watches any more.
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

    /// Does for every watch what can be done right now, and tells when there is more to do.
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
                    // Its reader sees it end, and opens another one.
                    log::error!("watch panicked");
                    false
                }
            }
        });
        due
    }

    /// Has `select` wake the thread when there is something to do for a watch.
    pub(super) fn listen<'a>(&'a self, select: &mut Select<'a>, now: Instant) {
        select.recv(&self.requests);
        for watcher in &self.watchers {
            watcher.listen(select, now);
        }
    }

    /// There is a new connection.
    pub(super) fn reconnected(&mut self) {
        let now = Instant::now();
        for watcher in &mut self.watchers {
            watcher.reconnected(now);
        }
    }

    /// Ends all watches; called when every request fails at once.
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

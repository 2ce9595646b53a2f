//! Threads stuck in the client crate, kept in one place until the crate lets go of them.
//!
//! The crate's calls wait without limit while a server hangs or is down, so the thread that makes
//! them cannot be joined by anyone who has a deadline. Such a thread is handed over here. It ends
//! by itself, and with it all that the crate holds, once the server answers again.

use parking_lot::Mutex;

use crate::thread::Worker;

struct Ghost {
    store: u64,
    worker: Worker,
}

static GHOSTS: Mutex<Vec<Ghost>> = Mutex::new(Vec::new());

/// Takes over a thread that belongs to the given store.
pub(super) fn adopt(store: u64, worker: Worker) {
    let mut ghosts = GHOSTS.lock();
    bury_finished(&mut ghosts);
    ghosts.push(Ghost { store, worker });
}

/// How many connections of a store are abandoned and not gone yet.
pub(super) fn count_of(store: u64) -> usize {
    let mut ghosts = GHOSTS.lock();
    bury_finished(&mut ghosts);
    ghosts.iter().filter(|ghost| ghost.store == store).count()
}

/// How many connections were abandoned in this process and are not gone yet.
///
/// They hold up to three threads each and are gone within seconds of the server's return.
pub fn abandoned_connections() -> usize {
    let mut ghosts = GHOSTS.lock();
    bury_finished(&mut ghosts);
    ghosts.len()
}

/// Drops what has ended; the handle of a finished thread needs no join to free it.
fn bury_finished(ghosts: &mut Vec<Ghost>) {
    ghosts.retain(|ghost| !ghost.worker.is_finished());
}

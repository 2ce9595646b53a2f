//! Threads stuck in the client crate, kept in one place until the crate lets go of them.
//!
//! The crate's calls wait without limit while a server hangs or is down, so the thread that makes
//! them cannot be joined by anyone who has a deadline. Such a thread is handed over here. It ends
//! by itself, and with it all that the crate holds, once the server answers again.

use parking_lot::Mutex;

use crate::threads::Thread;

struct Ghost {
    store: u64,
    thread: Thread,
}

static GHOSTS: Mutex<Vec<Ghost>> = Mutex::new(Vec::new());

/// Takes over a thread that belongs to the given store.
pub(super) fn adopt(store: u64, thread: Thread) {
    let mut ghosts = GHOSTS.lock();
    bury_finished(&mut ghosts);
    ghosts.push(Ghost { store, thread });
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

/// Drops what has ended; a thread whose work is over needs no join to be freed.
fn bury_finished(ghosts: &mut Vec<Ghost>) {
    ghosts.retain(|ghost| !ghost.thread.is_finished());
}

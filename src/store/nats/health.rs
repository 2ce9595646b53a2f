//! How the store is doing, and who wants to know.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;

use crate::store::Health;

/// Changes kept for a reader who does not read.
const BACKLOG: usize = 16;

/// The present health and its listeners.
pub(super) struct HealthBoard(Mutex<Board>);

struct Board {
    now: Health,
    listeners: Vec<(Sender<Health>, Receiver<Health>)>,
}

impl HealthBoard {
    pub(super) fn new(now: Health) -> Self {
        Self(Mutex::new(Board {
            now,
            listeners: Vec::new(),
        }))
    }

    pub(super) fn now(&self) -> Health {
        self.0.lock().now.clone()
    }

    /// Changes, the current health first. The newest few are kept for a slow reader.
    pub(super) fn listen(&self) -> Receiver<Health> {
        let mut board = self.0.lock();
        let (sender, receiver) = bounded(BACKLOG);
        offer(&sender, &receiver, &board.now);
        board.listeners.push((sender, receiver.clone()));
        receiver
    }

    /// Records a change and tells it; closed is final.
    pub(super) fn set(&self, health: Health) {
        let mut board = self.0.lock();
        if board.now == health || board.now == Health::Closed {
            return;
        }
        match &health {
            Health::Connected => log::info!("store connected"),
            Health::Degraded(why) => log::warn!("store degraded: {why}"),
            Health::Closed => log::debug!("store closed"),
        }
        for (sender, receiver) in &board.listeners {
            offer(sender, receiver, &health);
        }
        if health == Health::Closed {
            board.listeners.clear();
        }
        board.now = health;
    }
}

/// Sends, at the price of the oldest entry when there is no room.
fn offer(sender: &Sender<Health>, receiver: &Receiver<Health>, health: &Health) {
    let mut message = health.clone();
    while let Err(TrySendError::Full(back)) = sender.try_send(message) {
        receiver.try_recv().ok();
        message = back;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_who_does_not_read_keeps_the_newest_changes() {
        let board = HealthBoard::new(Health::Connected);
        let events = board.listen();
        for n in 0..100 {
            board.set(Health::Degraded(n.to_string()));
        }
        let seen: Vec<_> = events.try_iter().collect();
        assert_eq!(seen.len(), BACKLOG);
        assert_eq!(seen.last(), Some(&Health::Degraded("99".into())));
    }

    #[test]
    fn the_current_health_comes_first_and_closed_is_last() {
        let board = HealthBoard::new(Health::Degraded("connecting".into()));
        let events = board.listen();
        board.set(Health::Connected);
        board.set(Health::Closed);
        board.set(Health::Connected);
        let seen: Vec<_> = events.iter().collect();
        assert_eq!(
            seen,
            [
                Health::Degraded("connecting".into()),
                Health::Connected,
                Health::Closed
            ]
        );
        assert_eq!(board.now(), Health::Closed);
    }
}

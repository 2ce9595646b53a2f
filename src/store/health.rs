//! The health of a store and its listeners.

use std::ops::Deref;
use std::sync::{Arc, Weak};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::Health;

/// Number of changes queued for a slow listener.
const BACKLOG: usize = 16;

/// Changes of the health of a store, beginning with the current health. A slow reader receives only
/// the latest changes. The channel closes when the store is stopped. Dropping this ends the
/// subscription.
#[derive(Debug)]
pub struct HealthEvents {
    events: Receiver<Health>,
    _listening: Arc<()>,
}

impl Deref for HealthEvents {
    type Target = Receiver<Health>;

    fn deref(&self) -> &Receiver<Health> {
        &self.events
    }
}

/// The current health and its listeners. The owner locks it.
#[derive(Debug)]
pub(super) struct HealthPublisher {
    now: Health,
    listeners: Vec<HealthListener>,
}

#[derive(Debug)]
struct HealthListener {
    sender: Sender<Health>,
    /// The other end of the channel, to drop the oldest change.
    receiver: Receiver<Health>,
    listening: Weak<()>,
}

impl HealthPublisher {
    pub(super) fn new(now: Health) -> Self {
        Self {
            now,
            listeners: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> &Health {
        &self.now
    }

    /// Adds a listener; it receives the current health first.
    pub(super) fn listen(&mut self) -> HealthEvents {
        // Remove dropped listeners here, so that subscribing repeatedly does not accumulate them.
        self.listeners.retain(|l| l.listening.strong_count() > 0);
        let (sender, receiver) = bounded(BACKLOG);
        let listening = Arc::new(());
        let listener = HealthListener {
            sender,
            receiver: receiver.clone(),
            listening: Arc::downgrade(&listening),
        };
        listener.notify(&self.now);
        if self.now != Health::Closed {
            self.listeners.push(listener);
        }
        HealthEvents {
            events: receiver,
            _listening: listening,
        }
    }

    /// Records and reports a change; closed is final. Returns whether there was a change.
    pub(super) fn set(&mut self, health: Health) -> bool {
        if self.now == health || self.now == Health::Closed {
            return false;
        }
        for listener in &self.listeners {
            listener.notify(&health);
        }
        if health == Health::Closed {
            self.listeners.clear();
        }
        self.now = health;
        true
    }
}

impl HealthListener {
    fn notify(&self, health: &Health) {
        let mut message = health.clone();
        while let Err(TrySendError::Full(back)) = self.sender.try_send(message) {
            self.receiver.try_recv().ok();
            message = back;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listener_that_does_not_read_keeps_newest_changes() {
        let mut board = HealthPublisher::new(Health::Connected);
        let events = board.listen();
        for n in 0..100 {
            board.set(Health::Degraded(n.to_string()));
        }
        let seen: Vec<_> = events.try_iter().collect();
        assert_eq!(seen.len(), BACKLOG);
        assert_eq!(seen.last(), Some(&Health::Degraded("99".into())));
    }

    #[test]
    fn current_health_comes_first_and_closed_is_last() {
        let mut board = HealthPublisher::new(Health::Degraded("connecting".into()));
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
        assert_eq!(board.now(), &Health::Closed);
    }

    #[test]
    fn dropped_listener_is_removed() {
        let mut board = HealthPublisher::new(Health::Connected);
        for _ in 0..1_000 {
            drop(board.listen());
        }
        let _last = board.listen();
        assert_eq!(board.listeners.len(), 1);
    }
}

//! The watches of the leader's lease and of this worker's assignment, and the store's health, as
//! `dv-member` reads them. They are opened on `dv-io`, since that may wait.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, never};

use super::io::Io;
use super::member_messages::Opened;
use super::member_messages::ToMember;
use crate::config::CalculatorConfig;
use crate::machine::engine::reopening::Reopening;
use crate::machine::manager::ManagerInput;
use crate::runtime::guarded_store::GuardedStore;
use crate::store::{Bucket, Health, HealthEvents, Store, Watch, WatchEvent};
use crate::types::Time;
use crate::wire::LEASE_KEY;

/// What `dv-member` reads from the store.
pub(super) struct ManagerWatches {
    store: Arc<GuardedStore>,
    io: Arc<Io>,
    to_member: Sender<ToMember>,
    lease: Watched,
    assignment: Watched,
    /// `None`: the store has ended.
    health: Option<HealthEvents>,
    reopening: Reopening,
    is_opening: bool,
    has_failed: bool,
}

/// One watch, as far as it is open.
struct Watched {
    bucket: Bucket,
    /// `None`: there is nothing to watch yet.
    key: Option<String>,
    watch: Option<Watch>,
    /// Makes the event for the machine.
    event: fn(WatchEvent) -> ManagerInput,
}

/// Where the next events come from.
pub(super) struct Sources {
    pub health: Receiver<Health>,
    pub lease: Receiver<WatchEvent>,
    pub assignment: Receiver<WatchEvent>,
}

impl Watched {
    fn new(bucket: Bucket, key: Option<String>, event: fn(WatchEvent) -> ManagerInput) -> Self {
        Self {
            bucket,
            key,
            watch: None,
            event,
        }
    }

    /// Whether it is to be opened.
    fn is_missing(&self) -> bool {
        self.key.is_some() && self.watch.is_none()
    }

    /// What is to be opened.
    fn missing(&self) -> Option<(Bucket, String)> {
        let key = self.key.clone().filter(|_| self.is_missing())?;
        Some((self.bucket, key))
    }

    fn events(&self) -> Receiver<WatchEvent> {
        let watch = self.watch.as_ref();
        watch.map_or_else(never, |watch| watch.events.clone())
    }

    /// `None`: the watch has ended.
    fn handle(&mut self, event: Option<WatchEvent>) -> ManagerInput {
        (self.event)(event.unwrap_or_else(|| {
            self.watch = None;
            WatchEvent::Disconnected("the watch ended".into())
        }))
    }
}

impl ManagerWatches {
    pub fn new(
        store: Arc<GuardedStore>,
        io: Arc<Io>,
        to_member: Sender<ToMember>,
        config: &CalculatorConfig,
    ) -> Self {
        let lease = Some(LEASE_KEY.to_owned());
        Self {
            health: Some(store.health_events()),
            store,
            io,
            to_member,
            lease: Watched::new(Bucket::Election, lease, ManagerInput::Lease),
            assignment: Watched::new(Bucket::Assignment, None, ManagerInput::Assignment),
            reopening: Reopening::new(config, fastrand::u64(..)),
            is_opening: false,
            has_failed: false,
        }
    }

    /// ManagerWatches this assignment from now on, instead of any before.
    pub fn set_assignment(&mut self, key: String) {
        self.assignment.key = Some(key);
        self.assignment.watch = None;
        self.reopening.hurry();
    }

    pub fn sources(&self) -> Sources {
        let health = self.health.as_ref();
        Sources {
            health: health.map_or_else(never, |health| (**health).clone()),
            lease: self.lease.events(),
            assignment: self.assignment.events(),
        }
    }

    /// `None`: there will be no more.
    pub fn health(&mut self, reported: Option<Health>) -> Option<ManagerInput> {
        match reported {
            Some(health) => {
                self.store.observe_health(&health);
                Some(ManagerInput::StoreHealth(health.fault()))
            }
            None => {
                self.health = None;
                None
            }
        }
    }

    pub fn lease(&mut self, event: Option<WatchEvent>) -> ManagerInput {
        self.lease.handle(event)
    }

    pub fn assignment(&mut self, event: Option<WatchEvent>) -> ManagerInput {
        self.assignment.handle(event)
    }

    /// When there is something to be opened.
    pub fn due(&self) -> Option<Time> {
        (self.is_missing() && !self.is_opening).then(|| self.reopening.due())
    }

    fn is_missing(&self) -> bool {
        self.lease.is_missing() || self.assignment.is_missing()
    }

    /// A watch that could not be opened, or ended, is tried again for as long as it takes.
    pub fn open_missing(&mut self, now: Time) {
        if self.due().is_none_or(|due| now < due) {
            return;
        }
        let missing = [self.lease.missing(), self.assignment.missing()];
        let missing: Vec<_> = missing.into_iter().flatten().collect();
        self.is_opening = true;
        let store = Arc::clone(&self.store);
        let to_member = self.to_member.clone();
        self.io.submit(move || {
            let open = |(bucket, key): (Bucket, String)| Opened {
                bucket,
                watch: store.watch_key(bucket, &key),
                key,
            };
            let opened = missing.into_iter().map(open).collect();
            let _ = to_member.send(ToMember::Opened(opened));
        });
    }

    /// The result: events for the machine.
    pub fn opened(&mut self, now: Time, opened: Vec<Opened>) -> Vec<ManagerInput> {
        self.is_opening = false;
        let mut events = Vec::new();
        for Opened { bucket, key, watch } in opened {
            let watched = match bucket {
                Bucket::Election => &mut self.lease,
                _ => &mut self.assignment,
            };
            match watch {
                // Another one is wanted by now.
                _ if watched.key.as_ref() != Some(&key) => {}
                Ok(watch) => watched.watch = Some(watch),
                Err(error) => {
                    if !std::mem::replace(&mut self.has_failed, true) {
                        log::warn!(target: "divvy::manager", "watch failed, retrying: {error}");
                    }
                    events.push((watched.event)(WatchEvent::Disconnected(error.to_string())));
                }
            }
        }
        match (events.is_empty(), self.is_missing()) {
            (false, _) => {
                self.reopening.failed(now);
            }
            (true, true) => self.reopening.hurry(),
            (true, false) => {
                self.has_failed = false;
                self.reopening.opened(now);
            }
        }
        events
    }
}

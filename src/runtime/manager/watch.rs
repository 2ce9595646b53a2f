//! `dv-assign`: watches the leader's lease, this worker's assignment and the store's health, and
//! passes all of it on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, after, never, select_biased};

use super::driver::ToMember;
use crate::clock::Clock;
use crate::error::Result;
use crate::machine::backoff::Backoff;
use crate::machine::manager::Event;
use crate::runtime::protected::Protected;
use crate::store::{Bucket, Store, Watch, WatchEvent};
use crate::types::Time;
use crate::wire::LEASE_KEY;

/// The thread's own state.
pub(super) struct AssignmentWatch {
    pub store: Arc<Protected>,
    pub clock: Arc<dyn Clock>,
    pub to_member: Sender<ToMember>,
    pub backoff: Backoff,
}

/// One watch, as far as it is open.
struct Watched {
    bucket: Bucket,
    /// `None`: there is nothing to watch yet.
    key: Option<String>,
    watch: Option<Watch>,
    /// Makes the event for the machine.
    event: fn(WatchEvent) -> Event,
}

impl Watched {
    fn is_missing(&self) -> bool {
        self.key.is_some() && self.watch.is_none()
    }

    fn open(&mut self, store: &dyn Store) -> Result<()> {
        if let (Some(key), None) = (&self.key, &self.watch) {
            self.watch = Some(store.watch_key(self.bucket, key)?);
        }
        Ok(())
    }
}

impl AssignmentWatch {
    /// The thread's body; ends when `stop` is disconnected. `keys` tells which assignment key to
    /// watch from then on.
    pub fn run(mut self, keys: &Receiver<String>, stop: &Receiver<Infallible>) {
        let mut lease = Watched {
            bucket: Bucket::Election,
            key: Some(LEASE_KEY.to_owned()),
            watch: None,
            event: Event::Lease,
        };
        let mut assignment = Watched {
            bucket: Bucket::Assignment,
            key: None,
            watch: None,
            event: Event::Assignment,
        };
        let mut retry_at = Time::ZERO;
        let mut health = Some(self.store.health_events());
        let (nothing, silence) = (never(), never());
        loop {
            self.open_missing([&mut lease, &mut assignment], &mut retry_at);
            let timer = self.timer([&lease, &assignment], retry_at);
            let leases = lease.watch.as_ref().map_or(&nothing, |w| &w.events);
            let assignments = assignment.watch.as_ref().map_or(&nothing, |w| &w.events);
            let told = health.as_ref().map_or(&silence, |h| &**h);
            let is_told = select_biased! {
                recv(stop) -> _ => return,
                recv(keys) -> key => match key {
                    Ok(key) => {
                        assignment.key = Some(key);
                        assignment.watch = None;
                        retry_at = Time::ZERO;
                        true
                    }
                    Err(_) => return,
                },
                recv(told) -> told => match told {
                    Ok(told) => {
                        self.store.heed(&told);
                        self.tell(Event::StoreHealth(told.fault()))
                    }
                    Err(_) => {
                        health = None;
                        true
                    }
                },
                recv(leases) -> event => self.pass_on(&mut lease, event.ok()),
                recv(assignments) -> event => self.pass_on(&mut assignment, event.ok()),
                recv(timer) -> _ => true,
            };
            if !is_told {
                return;
            }
        }
    }

    /// A watch that could not be opened, or ended, is tried again for as long as it takes.
    fn open_missing(&mut self, watches: [&mut Watched; 2], retry_at: &mut Time) {
        let now = self.clock.now();
        let is_whole = !watches.iter().any(|watched| watched.is_missing());
        if is_whole || now < *retry_at {
            return;
        }
        for watched in watches {
            if let Err(error) = watched.open(&*self.store) {
                if self.backoff.attempts() == 0 {
                    log::warn!(target: "divvy::manager", "watching failed, trying again: {error}");
                }
                self.tell((watched.event)(WatchEvent::Blind(error.to_string())));
                *retry_at = now + self.backoff.next_delay();
                return;
            }
        }
        self.backoff.reset();
        // For the case that one ends again at once.
        *retry_at = now + self.backoff.next_delay();
        self.backoff.reset();
    }

    /// Whether `dv-member` is still there. `None`: the watch has ended.
    fn pass_on(&self, watched: &mut Watched, event: Option<WatchEvent>) -> bool {
        let event = event.unwrap_or_else(|| {
            watched.watch = None;
            WatchEvent::Blind("the watch ended".into())
        });
        self.tell((watched.event)(event))
    }

    fn timer(&self, watches: [&Watched; 2], retry_at: Time) -> Receiver<Instant> {
        if watches.into_iter().any(Watched::is_missing) {
            return after(retry_at.since(self.clock.now()));
        }
        never()
    }

    /// Whether `dv-member` is still there.
    fn tell(&self, event: Event) -> bool {
        self.to_member.send(ToMember::Event(event)).is_ok()
    }
}

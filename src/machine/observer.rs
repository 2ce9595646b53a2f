//! What the watches show, as events for the calculator.
//!
//! Runs on `dv-watch`: plain beats end in the leases, own writes end here; only what changes the
//! fleet, or may be somebody else's doing, goes on.

use std::collections::VecDeque;

use super::calculator::Event;
use super::liveness::Leases;
use crate::config::CalculatorConfig;
use crate::error::Result;
use crate::store::{Entry, Listing, Operation, WatchEvent};
use crate::types::{Revision, Term, Time, WorkerId};
use crate::wire::{Assignment, COMMIT_KEY, Commit, FENCE_KEY, Fence, KeyPrefix};

/// Turns watch events into calculator events. After each call drain
/// [`Observer::poll_event`]; [`Observer::deadline`] tells when `tick` is due.
#[derive(Debug)]
pub struct Observer {
    leases: Leases,
    heartbeat: KeyPrefix,
    assignment: KeyPrefix,
    poison: u32,
    events: VecDeque<Event>,
}

impl Observer {
    /// An observer that has seen nothing yet.
    ///
    /// # Errors
    /// `InvalidArgument` for a prefix that no key may have.
    pub fn new(config: &CalculatorConfig) -> Result<Self> {
        Ok(Self {
            leases: Leases::new(
                config.heartbeat_ttl,
                config.join_coalescing,
                config.recovery_grace,
            ),
            heartbeat: KeyPrefix::new(&config.heartbeat_prefix)?,
            assignment: KeyPrefix::new(&config.assignment_prefix)?,
            poison: 0,
            events: VecDeque::new(),
        })
    }

    /// The leases.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The leases, to seed them and to forget workers.
    pub fn leases_mut(&mut self) -> &mut Leases {
        &mut self.leases
    }

    /// Takes in an event of the heartbeat watch.
    pub fn heartbeat(&mut self, now: Time, event: &WatchEvent) {
        match event {
            WatchEvent::Change(entry) => self.heartbeat_entry(now, entry),
            WatchEvent::Live => self.leases.live(now),
            WatchEvent::Blind(_) => self.leases.blind(),
        }
    }

    /// Takes in a listing of the heartbeats: who has a key is alive, who deleted it has left.
    /// Who has none is left to its lease.
    pub fn listed(&mut self, now: Time, listing: &Listing) {
        for entry in &listing.entries {
            self.heartbeat_entry(now, entry);
        }
    }

    /// Takes in an event of the assignment watch. Whatever carries the term in force is our own.
    pub fn assignment(&mut self, event: &WatchEvent, term_in_force: Term) {
        let WatchEvent::Change(entry) = event else {
            return; // what was missed is delivered after the recovery
        };
        let term = match entry.key.as_str() {
            FENCE_KEY => return self.fence(entry, term_in_force),
            COMMIT_KEY => Commit::decode(&entry.value).map(|commit| commit.term),
            key if self.assignment.suffix(key).is_some() => {
                Assignment::decode(&entry.value).map(|a| a.term.unwrap_or(0))
            }
            _ => return,
        };
        let is_ours = entry.is_live() && term.as_ref().is_ok_and(|&t| t == term_in_force);
        if is_ours {
            return;
        }
        if entry.is_live() && term.is_err() {
            self.poison += 1;
        }
        self.events.push_back(Event::ForeignSuspected {
            key: entry.key.clone(),
            revision: match entry.operation {
                // Gone without a trace: whatever is known of it is out of date.
                Operation::Gone => Revision::MAX,
                _ => entry.revision,
            },
        });
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Time) {
        self.leases.tick(now);
    }

    /// When `tick` is due next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.leases.deadline()
    }

    /// The next event for the calculator, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(sighting) = self.leases.poll_event() {
            return Some(Event::Sighting(sighting));
        }
        if self.poison > 0 {
            let count = std::mem::take(&mut self.poison);
            return Some(Event::Poison { count });
        }
        self.events.pop_front()
    }

    fn heartbeat_entry(&mut self, now: Time, entry: &Entry) {
        let Some(worker) = self.heartbeat.suffix(&entry.key) else {
            return;
        };
        match entry.operation {
            Operation::Put => {
                if self.leases.known(worker).is_none() && WorkerId::new(worker).is_err() {
                    self.poison += 1;
                    return;
                }
                self.leases.beat(now, worker, entry.age.unwrap_or_default());
            }
            Operation::Delete => self.leases.left(worker),
            Operation::Expired => self.leases.expired(now, worker),
            // Nobody knows how it went: the lease decides.
            Operation::Gone => {}
        }
    }

    fn fence(&mut self, entry: &Entry, term_in_force: Term) {
        match entry.is_live().then(|| Fence::decode(&entry.value)) {
            Some(Ok(fence)) if fence.term <= term_in_force => {}
            Some(Ok(fence)) => self
                .events
                .push_back(Event::FenceMoved { term: fence.term }),
            // Removed or overwritten: the publisher's next look settles it.
            Some(Err(_)) | None => self.events.push_back(Event::ForeignSuspected {
                key: entry.key.clone(),
                revision: Revision::MAX,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::liveness::Sighting;
    use crate::types::Reason;
    use crate::wire;

    fn observer() -> Observer {
        let mut observer = Observer::new(&CalculatorConfig::default()).unwrap();
        observer.heartbeat(Time::ZERO, &WatchEvent::Live);
        observer
    }

    fn change(key: &str, value: &[u8], operation: Operation) -> WatchEvent {
        WatchEvent::Change(Entry {
            key: key.into(),
            value: value.to_vec(),
            revision: 9,
            operation,
            age: None,
        })
    }

    fn events(observer: &mut Observer) -> Vec<String> {
        std::iter::from_fn(|| observer.poll_event())
            .map(|event| format!("{event:?}"))
            .collect()
    }

    fn assignment(term: Term) -> Vec<u8> {
        let none = wire::encode_partitions([].iter());
        Assignment::encode(4, term, Reason::Restart.name(), &none)
    }

    #[test]
    fn beats_become_sightings_and_hostile_keys_are_counted_as_poison() {
        let mut observer = observer();
        for key in [
            "heartbeat.w-1",
            "heartbeat.a b",
            "heartbeat.",
            "heartbeatx.w-2",
        ] {
            observer.heartbeat(Time::ZERO, &change(key, b"\xff", Operation::Put));
        }
        observer.tick(Time::from_millis(100));
        let Some(Event::Sighting(Sighting::Joined { workers, .. })) = observer.poll_event() else {
            panic!("no join");
        };
        assert_eq!(workers.len(), 1);
        assert_eq!(events(&mut observer), ["Poison { count: 2 }"]);
    }

    #[test]
    fn own_writes_end_here_and_others_are_suspected() {
        let mut observer = observer();
        observer.assignment(&change("assignment.w-1", &assignment(3), Operation::Put), 3);
        observer.assignment(&change("other.key", b"x", Operation::Put), 3);
        assert_eq!(events(&mut observer), [""; 0]);
        let go = br#"{"version":5,"lifecycle":"emergency","partitions":null}"#;
        for (value, operation) in [
            (&go[..], Operation::Put),
            (&assignment(2), Operation::Put),
            (b"", Operation::Delete),
        ] {
            observer.assignment(&change("assignment.w-1", value, operation), 3);
            let told = events(&mut observer);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with("ForeignSuspected"), "{told:?}");
        }
        observer.assignment(&change("assignment.w-1", b"junk", Operation::Put), 3);
        assert_eq!(events(&mut observer).len(), 2);
    }

    #[test]
    fn a_fence_of_a_higher_term_is_told_and_the_own_one_is_not() {
        let mut observer = observer();
        let fence = |term| {
            let fence = Fence {
                term,
                ..Fence::default()
            };
            change(FENCE_KEY, &fence.encode(), Operation::Put)
        };
        observer.assignment(&fence(3), 3);
        assert_eq!(events(&mut observer), [""; 0]);
        observer.assignment(&fence(4), 3);
        assert_eq!(events(&mut observer), ["FenceMoved { term: 4 }"]);
        observer.assignment(&change(FENCE_KEY, b"", Operation::Delete), 3);
        assert_eq!(events(&mut observer).len(), 1);
    }
}

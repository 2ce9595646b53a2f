//! Tracks what a watch has delivered, to find what it still has to deliver.

use std::collections::HashMap;

use super::read::Snapshot;
use crate::store::{Entry, Operation, WatchEvent};
use crate::types::Revision;

/// The changes that the reader has received.
#[derive(Default)]
pub(super) struct ReplayState {
    incarnation: Option<String>,
    /// Every write up to this revision was delivered or superseded.
    horizon: Revision,
    /// Writes after the horizon that a listing has already delivered.
    ahead: HashMap<String, Revision>,
    /// The keys that have a value, with its revision.
    live: HashMap<String, Revision>,
}

impl ReplayState {
    /// Returns the entries of a listing that the reader has not received, removed keys first.
    pub(super) fn catch_up(&mut self, snapshot: Snapshot) -> Vec<Entry> {
        let first = self.incarnation.is_none();
        let created = snapshot.created;
        if self.incarnation.as_ref() != Some(&created) {
            self.incarnation = Some(created);
            self.horizon = 0;
            self.ahead.clear();
        }
        let Snapshot { listing, .. } = snapshot;
        let mut vanished = std::mem::take(&mut self.live);
        let mut missing = Vec::new();
        for entry in listing.entries {
            let before = vanished.remove(&entry.key);
            if entry.is_live() {
                self.live.insert(entry.key.clone(), entry.revision);
            }
            let seen = self.has_seen(&entry.key, entry.revision);
            if entry.revision > listing.last_sequence {
                self.ahead.insert(entry.key.clone(), entry.revision);
            }
            // A new reader does not need the marker of a key that it never received.
            if !seen && (entry.is_live() || before.is_some() || !first) {
                missing.push(entry);
            }
        }
        let gone = vanished.into_iter().map(|(key, revision)| Entry {
            key,
            value: Vec::new(),
            revision,
            operation: Operation::Gone,
            age: None,
        });
        self.reached(listing.last_sequence);
        gone.chain(missing).collect()
    }

    /// Records a change. Returns `None` if it was delivered before.
    pub(super) fn pass(&mut self, entry: Entry) -> Option<Entry> {
        if self.has_seen(&entry.key, entry.revision) {
            return None;
        }
        match self.live.get_mut(&entry.key) {
            Some(revision) if entry.is_live() => *revision = entry.revision,
            Some(_) => {
                self.live.remove(&entry.key);
            }
            None if entry.is_live() => {
                self.live.insert(entry.key.clone(), entry.revision);
            }
            None => {}
        }
        Some(entry)
    }

    /// Records that everything up to `revision` was delivered.
    pub(super) fn reached(&mut self, revision: Revision) {
        self.horizon = self.horizon.max(revision);
        if !self.ahead.is_empty() {
            let horizon = self.horizon;
            self.ahead.retain(|_, ahead| *ahead > horizon);
        }
    }

    /// Reverts a change that could not be delivered, so that a listing delivers it.
    pub(super) fn undo(&mut self, event: &WatchEvent) {
        if let WatchEvent::Change(entry) = event {
            // The exact revision does not matter: the key must be known, to detect its removal.
            self.live.entry(entry.key.clone()).or_insert(entry.revision);
        }
    }

    fn has_seen(&self, key: &str, revision: Revision) -> bool {
        let ahead = self.ahead.get(key).copied().unwrap_or(0);
        revision <= self.horizon.max(ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Listing;

    fn entry(key: &str, revision: Revision, operation: Operation) -> Entry {
        Entry {
            key: key.to_owned(),
            value: Vec::new(),
            revision,
            operation,
            age: None,
        }
    }

    fn put(key: &str, revision: Revision) -> Entry {
        entry(key, revision, Operation::Put)
    }

    fn snapshot(created: &str, last_sequence: Revision, entries: Vec<Entry>) -> Snapshot {
        Snapshot {
            listing: Listing {
                entries,
                last_sequence,
            },
            created: created.to_owned(),
        }
    }

    fn shown(entries: Vec<Entry>) -> Vec<(String, Revision, Operation)> {
        let mut shown: Vec<_> = entries
            .into_iter()
            .map(|entry| (entry.key, entry.revision, entry.operation))
            .collect();
        shown.sort_by(|a, b| a.0.cmp(&b.0));
        shown
    }

    #[test]
    fn resynchronisation_delivers_exactly_new_changes() {
        let mut reported = ReplayState::default();
        let first = vec![put("a", 1), put("b", 2), entry("x", 3, Operation::Delete)];
        assert_eq!(reported.catch_up(snapshot("s", 3, first)).len(), 2);
        assert!(reported.pass(put("c", 4)).is_some());
        reported.reached(4);
        let second = vec![
            put("a", 1),
            put("c", 7),
            put("d", 6),
            entry("e", 8, Operation::Expired),
        ];
        assert_eq!(
            shown(reported.catch_up(snapshot("s", 8, second))),
            [
                ("b".to_owned(), 2, Operation::Gone),
                ("c".to_owned(), 7, Operation::Put),
                ("d".to_owned(), 6, Operation::Put),
                ("e".to_owned(), 8, Operation::Expired),
            ]
        );
        assert!(
            reported
                .catch_up(snapshot(
                    "s",
                    8,
                    vec![put("a", 1), put("c", 7), put("d", 6)]
                ))
                .is_empty()
        );
    }

    #[test]
    fn change_seen_in_listing_is_not_delivered_again_by_consumer() {
        let mut reported = ReplayState::default();
        // The listing began at revision 5; "a" was written at revision 9 during it.
        assert_eq!(
            reported
                .catch_up(snapshot("s", 5, vec![put("a", 9), put("b", 2)]))
                .len(),
            2
        );
        assert!(reported.pass(put("a", 7)).is_none());
        assert!(reported.pass(put("b", 8)).is_some());
        reported.reached(8);
        // A later listing does not repeat it either.
        let again = vec![put("a", 9), put("b", 8)];
        assert!(reported.catch_up(snapshot("s", 8, again)).is_empty());
        assert!(reported.pass(put("a", 9)).is_none());
        assert!(reported.pass(put("a", 10)).is_some());
        reported.reached(10);
        assert!(reported.ahead.is_empty());
    }

    #[test]
    fn recreated_bucket_ends_all_former_keys() {
        let mut reported = ReplayState::default();
        reported.catch_up(snapshot("first", 100, vec![put("a", 90), put("b", 100)]));
        assert_eq!(
            shown(reported.catch_up(snapshot("second", 1, vec![put("b", 1)]))),
            [
                ("a".to_owned(), 90, Operation::Gone),
                ("b".to_owned(), 1, Operation::Put),
            ]
        );
    }

    #[test]
    fn undelivered_change_is_delivered_by_next_listing() {
        let mut reported = ReplayState::default();
        reported.catch_up(snapshot("s", 1, vec![put("a", 1)]));
        let lost = reported.pass(entry("a", 2, Operation::Delete)).unwrap();
        reported.undo(&WatchEvent::Change(lost));
        // The removal is delivered as the marker, or as `Gone` if the marker expired too.
        let marker = vec![entry("a", 2, Operation::Delete)];
        assert_eq!(
            shown(reported.catch_up(snapshot("s", 2, marker))),
            [("a".to_owned(), 2, Operation::Delete)]
        );
        let mut reported = ReplayState::default();
        reported.catch_up(snapshot("s", 1, vec![put("a", 1)]));
        let lost = reported.pass(entry("a", 2, Operation::Delete)).unwrap();
        reported.undo(&WatchEvent::Change(lost));
        assert_eq!(reported.catch_up(snapshot("s", 2, vec![])).len(), 1);
    }
}

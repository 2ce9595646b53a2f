//! One bucket: a numbered log of which only the last write of each key is kept.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::store::{Entry, Expect, Operation};
use crate::types::{Revision, Time};

/// A key, shared by the log and the watchers.
pub(super) type LogKey = Arc<str>;

/// Which keys are watched.
pub(super) enum Scope {
    /// Those that begin with this, followed by a dot; all of them where it is empty.
    Under(String),
    /// This one.
    Key(String),
}

impl Scope {
    pub(super) fn covers(&self, key: &str) -> bool {
        match self {
            Scope::Under(prefix) => covers(prefix, key),
            Scope::Key(only) => only == key,
        }
    }
}

/// Whether `key` begins with `prefix` followed by a dot; an empty prefix covers every key.
fn covers(prefix: &str, key: &str) -> bool {
    prefix.is_empty()
        || key
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with('.'))
}

/// The last write of a key.
#[derive(Clone)]
struct LogRecord {
    value: Vec<u8>,
    revision: Revision,
    operation: Operation,
    written: Time,
}

impl LogRecord {
    fn entry(&self, key: &str, now: Time) -> Entry {
        Entry {
            key: key.to_owned(),
            value: self.value.clone(),
            revision: self.revision,
            operation: self.operation,
            age: Some(now.since(self.written)),
        }
    }
}

/// What the expiry of a record left behind.
pub(super) enum Remains {
    /// An expiry marker with a number of its own.
    Marker,
    /// Nothing: the key is gone.
    Nothing,
}

/// One life of a bucket.
#[derive(Clone)]
pub(super) struct Log {
    ttl: Option<Duration>,
    incarnation: u64,
    last_sequence: Revision,
    records: BTreeMap<LogKey, LogRecord>,
    /// The same records by number, which is also the order in which they expire.
    by_revision: BTreeMap<Revision, LogKey>,
}

impl Log {
    /// An empty bucket whose first write gets the number `first`.
    pub(super) fn new(ttl: Option<Duration>, incarnation: u64, first: Revision) -> Self {
        Self {
            ttl,
            incarnation,
            last_sequence: first.saturating_sub(1),
            records: BTreeMap::new(),
            by_revision: BTreeMap::new(),
        }
    }

    pub(super) fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub(super) fn last_sequence(&self) -> Revision {
        self.last_sequence
    }

    /// The last revision of a key, markers counted; 0 when there is none.
    pub(super) fn revision(&self, key: &str) -> Revision {
        self.records.get(key).map_or(0, |record| record.revision)
    }

    pub(super) fn entry(&self, key: &str, now: Time) -> Option<Entry> {
        self.records.get(key).map(|record| record.entry(key, now))
    }

    /// The entries under a prefix, in the order of their keys.
    pub(super) fn entries(&self, prefix: &str, now: Time) -> Vec<Entry> {
        self.under(prefix)
            .map(|(key, record)| record.entry(key, now))
            .collect()
    }

    /// The keys of a scope with their revisions, in the order of the keys.
    pub(super) fn keys(&self, scope: &Scope) -> Vec<(LogKey, Revision)> {
        let keyed = |(key, record): (&LogKey, &LogRecord)| (key.clone(), record.revision);
        match scope {
            Scope::Under(prefix) => self.under(prefix).map(keyed).collect(),
            Scope::Key(key) => {
                let found = self.records.get_key_value(key.as_str());
                found.map(keyed).into_iter().collect()
            }
        }
    }

    fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a LogKey, &'a LogRecord)> {
        let start = if prefix.is_empty() {
            String::new()
        } else {
            format!("{prefix}.")
        };
        self.records
            .range::<str, _>((Bound::Included(start.as_str()), Bound::Unbounded))
            .take_while(move |(key, _)| covers(prefix, key))
    }

    pub(super) fn admits(&self, key: &str, expect: Expect) -> bool {
        match expect {
            Expect::Any => true,
            Expect::Revision(revision) => self.revision(key) == revision,
            Expect::LastSequence(sequence) => self.last_sequence == sequence,
        }
    }

    /// Writes a value, or a delete marker for `None`, whatever was there.
    pub(super) fn put(
        &mut self,
        key: &str,
        value: Option<Vec<u8>>,
        now: Time,
    ) -> (LogKey, Revision) {
        let operation = match value {
            Some(_) => Operation::Put,
            None => Operation::Delete,
        };
        self.append(key, value.unwrap_or_default(), operation, now)
    }

    /// When the oldest record outlives the TTL.
    pub(super) fn next_expiry(&self) -> Option<Time> {
        let ttl = self.ttl?;
        let (_, key) = self.by_revision.first_key_value()?;
        Some(self.records[key].written + ttl)
    }

    /// Expires the oldest record. A value leaves a marker where those are on; a marker itself
    /// leaves nothing.
    pub(super) fn expire_oldest(&mut self, markers: bool, now: Time) -> Option<(LogKey, Remains)> {
        let (_, key) = self.by_revision.pop_first()?;
        let record = self.records.remove(&key)?;
        if markers && record.operation == Operation::Put {
            self.append(&key, Vec::new(), Operation::Expired, now);
            return Some((key, Remains::Marker));
        }
        Some((key, Remains::Nothing))
    }

    /// Removes every record; the numbering continues.
    pub(super) fn purge(&mut self) {
        self.records.clear();
        self.by_revision.clear();
    }

    fn append(
        &mut self,
        key: &str,
        value: Vec<u8>,
        operation: Operation,
        now: Time,
    ) -> (LogKey, Revision) {
        self.last_sequence += 1;
        let revision = self.last_sequence;
        let key = match self.records.get_key_value(key) {
            Some((key, old)) => {
                self.by_revision.remove(&old.revision);
                key.clone()
            }
            None => LogKey::from(key),
        };
        self.by_revision.insert(revision, key.clone());
        let record = LogRecord {
            value,
            revision,
            operation,
            written: now,
        };
        self.records.insert(key.clone(), record);
        (key, revision)
    }
}

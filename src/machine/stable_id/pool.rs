//! The numbers of a pool, and which of them a process may claim.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::store::{Entry, Listing};
use crate::types::{Revision, WorkerId};
use crate::wire::{claimant, instance_of, is_kept};

/// Which ids there are, and how long a claim lasts.
#[derive(Clone, Debug)]
pub struct Pool {
    /// What ids begin with: `worker` for `worker-7`.
    pub prefix: String,
    /// The lowest number.
    pub min: u32,
    /// The highest number.
    pub max: u32,
    /// How long the store keeps a claim that is not renewed.
    pub ttl: Duration,
}

impl Pool {
    pub(super) fn key(&self, number: u32) -> String {
        format!("{}-{number}", self.prefix)
    }

    /// Whether it is an id of this pool.
    #[must_use]
    pub fn holds(&self, worker: &WorkerId) -> bool {
        self.number(worker.as_str()).is_some()
    }

    /// The number of an id of this pool, written as this pool writes it.
    pub(super) fn number(&self, key: &str) -> Option<u32> {
        let text = key.strip_prefix(self.prefix.as_str())?.strip_prefix('-')?;
        let number: u32 = text.parse().ok()?;
        let is_plain = number.to_string() == text;
        (is_plain && (self.min..=self.max).contains(&number)).then_some(number)
    }

    /// The numbers that `process` may claim, each with the last revision of its key.
    pub(super) fn claimable(
        &self,
        listing: &Listing,
        process: &ProcessIdentity,
        bucket_ttl: Option<Duration>,
    ) -> BTreeMap<(Priority, u32), Revision> {
        let mut free: BTreeMap<(Priority, u32), Revision> = (self.min..=self.max)
            .map(|n| ((Priority::Free, n), 0))
            .collect();
        for entry in &listing.entries {
            let Some(number) = self.number(&entry.key) else {
                continue;
            };
            // A server that was down removes what expired meanwhile only some time after its return.
            let is_over = bucket_ttl.is_some_and(|ttl| entry.age >= Some(ttl));
            let priority = match !entry.is_live() || is_over {
                true => Some(Priority::Free),
                false => process.priority_of(entry),
            };
            free.remove(&(Priority::Free, number));
            if let Some(priority) = priority {
                free.insert((priority, number), entry.revision);
            }
        }
        free
    }
}

/// Which numbers are claimed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// The claim of a former process of this instance.
    Instance,
    Preferred,
    Kept,
    Free,
}

/// By what a process recognises claims of its own.
#[derive(Debug)]
pub(super) struct ProcessIdentity {
    /// In every claim of this process.
    pub nonce: u32,
    /// In every claim of this instance, and whose claims this process may take over. `None` without
    /// one, and after a newer process of the instance took the id over.
    pub instance: Option<String>,
}

impl ProcessIdentity {
    /// Whether this process wrote the claim, now or before.
    pub fn wrote(&self, entry: &Entry) -> bool {
        claimant(&entry.value) == Some(self.nonce)
    }

    /// Whether a process of this instance wrote the claim.
    pub fn is_instance_of(&self, entry: &Entry) -> bool {
        self.instance.is_some() && instance_of(&entry.value) == self.instance.as_deref()
    }

    /// How a number with this claim is to be claimed, if at all.
    fn priority_of(&self, entry: &Entry) -> Option<Priority> {
        match (is_kept(&entry.value), self.is_instance_of(entry)) {
            (true, true) => Some(Priority::Preferred),
            (true, false) => Some(Priority::Kept),
            // The store's data is older than the last claim of this process.
            _ if self.wrote(entry) => Some(Priority::Preferred),
            (false, true) => Some(Priority::Instance),
            (false, false) => None,
        }
    }
}

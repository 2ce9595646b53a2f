//! Publishing under a fence: take-over, publication in two classes, and settling doubts.
//!
//! The protocol is straight-line code over [`Store`], so that the simulation runs the very code
//! that ships. What it rests on (DESIGN, section 5):
//!
//! * A take-over writes the fence record by compare-and-set *before* it reads anything it will
//!   act on, in a term above every term found. The fence is not written again in that term.
//! * **Class A** (a store with batches): every batch depends on the fence's revision.
//! * **Class B** (others): every write depends on its own key's revision, and a key that holds
//!   nothing is created under the bucket's last sequence. A take-over rewrites every assignment
//!   key and the commit record, so that each revision a former leader knows is stale.
//! * A refused condition is settled by reading the fence: moved means deposed, for good; unmoved
//!   means that somebody wrote without one, which is learned and published above.
//! * An unknown outcome is settled by reading back.

mod class_a;
mod class_b;
mod take_over;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

pub use self::take_over::Found;
use crate::config::PublishClass;
use crate::error::{Code, Error, Result};
use crate::machine::publication::{Change, Content, Reading, Record, Slot, changes, plan_digest};
use crate::store::{Bucket, Outcome, Refusal, Store, Write};
use crate::strategy::Plan;
use crate::types::{Reason, Revision, Term, Version, WorkerId};
use crate::wire::{Assignment, Commit, FENCE_KEY, Fence, KeyPrefix};

/// How often one publication is attempted before it is reported as failed (and stays pending).
const ATTEMPTS_MAX: u32 = 5;

/// What the publisher needs from its surroundings besides the store.
pub trait Surroundings: Send + Sync {
    /// The wall clock as RFC 3339 text, for people who read the records.
    fn wall_clock(&self) -> String;

    /// Waits; `false` when it was cut short because everything is to stop.
    fn pause(&self, duration: Duration) -> bool;
}

/// Which guarantees a publication leans on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Atomic batches under the fence.
    A {
        /// Most writes in one batch.
        batch_max: usize,
    },
    /// Conditional writes of single keys.
    B,
}

/// What a publisher works under.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The leader's name, for the fence record.
    pub leader: String,
    /// Prefix of the assignment keys.
    pub assignment: KeyPrefix,
    /// Prefix of the heartbeat keys.
    pub heartbeat: KeyPrefix,
    /// The class to publish in.
    pub class: PublishClass,
    /// Most writes in one batch, below what the store takes.
    pub batch_max: usize,
}

/// Publishes plans under one fence. Used from one thread.
pub struct Publisher {
    store: Arc<dyn Store>,
    surroundings: Arc<dyn Surroundings>,
    settings: Settings,
    class: Class,
    /// Largest value that the store takes, in bytes.
    value_max: usize,
    /// The term in force, for whoever watches the bucket: set before the fence is written.
    term_in_force: Arc<AtomicI64>,
    term: Term,
    fence: Revision,
    /// The highest version used or seen; each publication, failed or not, takes a new one.
    version: Version,
    known: Reading,
    deposed: bool,
}

/// Why one attempt at a publication did not succeed.
enum Setback {
    /// The state of the bucket is in doubt: learn it anew, then try again with a new version.
    Doubt(String),
    /// The store is busy: the same again, soon.
    Busy,
    /// Nothing that another attempt would mend.
    Failed(Error),
}

impl From<Error> for Setback {
    fn from(error: Error) -> Self {
        Setback::Failed(error)
    }
}

type Attempt<T> = std::result::Result<T, Setback>;

/// One publication under way.
struct Draft {
    version: Version,
    changes: Vec<Change>,
    values: Vec<Option<Vec<u8>>>,
    commit: Commit,
}

impl Publisher {
    /// A publisher that has not taken over yet. `term_in_force` tells others its term.
    pub fn new(
        store: Arc<dyn Store>,
        surroundings: Arc<dyn Surroundings>,
        settings: Settings,
        term_in_force: Arc<AtomicI64>,
    ) -> Self {
        Self {
            store,
            surroundings,
            settings,
            class: Class::B,
            value_max: usize::MAX,
            term_in_force,
            term: 0,
            fence: 0,
            version: 0,
            known: Reading::default(),
            deposed: false,
        }
    }

    /// The term that this publisher opened last.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// The class of the store, as proven at the take-over.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// Publishes `plan` under a new version and returns that version.
    ///
    /// # Errors
    /// `Fenced` when a newer leader has taken over (for good); `TooLarge`, before anything was
    /// written, naming worker, size and limit; what the store reports otherwise. After an error
    /// part of the plan may be visible (class B); the next publication puts that right.
    pub fn publish(&mut self, plan: &Plan, reason: Reason, deadline: Instant) -> Result<Version> {
        self.check_deposed()?;
        let mut doubt = String::new();
        for attempt in 1..=ATTEMPTS_MAX {
            let draft = self.draft(plan, reason)?;
            let result = match self.class {
                Class::A { batch_max } => self.publish_atomically(&draft, batch_max, deadline),
                Class::B => self.publish_singly(&draft, deadline),
            };
            match result {
                Ok(()) => return Ok(draft.version),
                Err(Setback::Failed(error)) => return Err(error.during("publish")),
                Err(Setback::Busy) => {
                    doubt = "the store stayed busy".into();
                    self.pause_before_retry(attempt)?;
                }
                Err(Setback::Doubt(why)) => {
                    log::warn!(
                        target: "divvy::publisher",
                        version = draft.version, attempt = attempt;
                        "publication in doubt ({why}): reading back"
                    );
                    doubt = why;
                    self.relearn(deadline)?;
                    if self.known.commit.value.as_ref() == Some(&draft.commit) {
                        return Ok(draft.version); // it had arrived after all
                    }
                }
            }
        }
        Err(Error::new(
            Code::Unavailable,
            format!("gave up after {ATTEMPTS_MAX} attempts: {doubt}; it stays pending"),
        )
        .during("publish"))
    }

    /// Looks whether these writes, seen in the bucket, were made by somebody else. If so, what
    /// the bucket holds is learned anew.
    ///
    /// # Errors
    /// `Fenced` when a newer leader has taken over; what the store reports otherwise.
    pub fn settle(&mut self, seen: &[(String, Revision)], deadline: Instant) -> Result<bool> {
        self.check_deposed()?;
        if seen
            .iter()
            .all(|(key, revision)| self.is_own(key, *revision))
        {
            return Ok(false);
        }
        let before = self.known.clone();
        self.relearn(deadline)?;
        Ok(before.slots != self.known.slots || before.commit != self.known.commit)
    }

    /// Whether the key's write with this revision is one that this publisher made or has
    /// learned of.
    fn is_own(&self, key: &str, revision: Revision) -> bool {
        let Some(worker) = self.settings.assignment.suffix(key) else {
            return revision <= self.known.commit.revision.max(self.fence);
        };
        let slot = self.known.slots.get(worker);
        slot.is_some_and(|slot| revision <= slot.revision)
    }

    /// Reads the whole bucket. The answer is at least as new as the call.
    fn read_all(&self, deadline: Instant) -> Result<Reading> {
        let listing = self.store.list(Bucket::Assignment, "", deadline)?;
        Ok(Reading::of(&listing, &self.settings.assignment))
    }

    /// Learns what the bucket holds, under the same fence.
    fn relearn(&mut self, deadline: Instant) -> Result<()> {
        let reading = self.read_all(deadline)?;
        if reading.fence.revision != self.fence {
            return Err(self.depose(&reading.fence));
        }
        self.version = self.version.max(reading.highest_version);
        if reading.highest_term > self.term {
            // Workers would refuse our term: somebody wrote a higher one without taking over.
            log::warn!(
                target: "divvy::publisher", term = self.term, found = reading.highest_term;
                "a foreign write carries a higher term: opening a term above it"
            );
            let floor = reading.highest_term;
            self.open_term(&reading, floor, deadline)?;
        } else {
            self.known = reading;
        }
        self.known.stored = Vec::new(); // large, and of use to a take-over only
        Ok(())
    }

    /// A refused condition is settled by reading the fence.
    fn settle_conflict(&mut self, key: &str, deadline: Instant) -> Setback {
        match self.check_fence(deadline) {
            Ok(()) => Setback::Doubt(format!("somebody else wrote {key}")),
            Err(error) => Setback::Failed(error),
        }
    }

    fn check_fence(&mut self, deadline: Instant) -> Result<()> {
        let entry = self.store.read(Bucket::Assignment, FENCE_KEY, deadline)?;
        let revision = entry.as_ref().map_or(0, |e| e.revision);
        if revision == self.fence {
            return Ok(());
        }
        let live = entry.as_ref().filter(|e| e.is_live());
        let value = live.and_then(|e| Fence::decode(&e.value).ok());
        Err(self.depose(&Record { revision, value }))
    }

    /// From here on this publisher never writes again.
    fn depose(&mut self, fence: &Record<Fence>) -> Error {
        self.deposed = true;
        let by = match &fence.value {
            Some(fence) => format!("{:?} leads in term {}", fence.leader, fence.term),
            None => "the fence record was removed".into(),
        };
        Error::new(
            Code::Fenced,
            format!(
                "deposed in term {}: {by}; this leader must not publish again",
                self.term
            ),
        )
    }

    fn check_deposed(&self) -> Result<()> {
        if !self.deposed {
            return Ok(());
        }
        Err(Error::new(
            Code::Fenced,
            format!(
                "deposed in term {}; this leader must not publish again",
                self.term
            ),
        ))
    }

    fn draft(&mut self, plan: &Plan, reason: Reason) -> Result<Draft> {
        let version = next_number("version", self.version)?;
        let changes = changes(&self.known.slots, plan);
        let mut values = Vec::with_capacity(changes.len());
        for change in &changes {
            let value = change.partitions.as_ref().map(|(partitions, _)| {
                Assignment::encode(version, self.term, reason.name(), partitions)
            });
            let size = value.as_ref().map_or(0, Vec::len);
            if size > self.value_max {
                return Err(Error::new(
                    Code::TooLarge,
                    format!(
                        "the assignment of {} has {size} bytes, the store takes {}; \
                         raise the server's max_payload or spread the partitions wider",
                        change.worker, self.value_max
                    ),
                )
                .on_key(self.settings.assignment.key(&change.worker)));
            }
            values.push(value);
        }
        // Taken from here on, whatever comes of the attempt.
        self.version = version;
        let commit = Commit {
            term: self.term,
            version,
            lifecycle: reason.name().into(),
            digest: plan_digest(plan),
            workers: plan.workers().len() as u64,
            partitions: plan.partitions().len() as u64,
            time: self.surroundings.wall_clock(),
        };
        Ok(Draft {
            version,
            changes,
            values,
            commit,
        })
    }

    /// Takes in that a change was stored with this revision.
    fn stored(&mut self, change: &Change, revision: Revision) {
        let content = match &change.partitions {
            Some((_, hash)) => Content::Assigned(*hash),
            None => Content::Deleted,
        };
        let slot = Slot { revision, content };
        self.known.slots.insert(change.worker.clone(), slot);
        self.known.last_sequence = self.known.last_sequence.max(revision);
    }

    fn committed(&mut self, commit: &Commit, revision: Revision) {
        self.known.commit = Record {
            revision,
            value: Some(commit.clone()),
        };
        self.known.last_sequence = self.known.last_sequence.max(revision);
    }

    fn set_term(&mut self, term: Term) {
        self.term = term;
        self.term_in_force.store(term, Ordering::Release);
    }

    fn key_of(&self, worker: &WorkerId) -> String {
        self.settings.assignment.key(worker)
    }

    fn write_one(&self, write: Write, deadline: Instant) -> Outcome {
        let mut outcomes = self.store.write(Bucket::Assignment, &[write], deadline);
        outcomes
            .pop()
            .unwrap_or_else(|| Outcome::Unknown("the store gave no outcome".into()))
    }

    fn pause_before_retry(&self, attempt: u32) -> Result<()> {
        let pause = Duration::from_millis(5 << attempt.min(4));
        if self.surroundings.pause(pause) {
            return Ok(());
        }
        Err(Error::new(
            Code::NotRunning,
            "stopped while waiting to try again",
        ))
    }
}

/// One above the highest term or version found.
fn next_number(what: &'static str, highest: i64) -> Result<i64> {
    highest.checked_add(1).ok_or_else(|| {
        Error::new(
            Code::InvalidData,
            format!(
                "the store holds the {what} {highest}, which leaves no room to go on; \
                 find and remove the value that carries it"
            ),
        )
    })
}

/// A refusal that is neither a lost condition nor mere business, as an error.
fn refused(refusal: Refusal, key: &str) -> Setback {
    match refusal {
        Refusal::Busy => Setback::Busy,
        other => Setback::Failed(other.into_error().on_key(key)),
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("term", &self.term)
            .field("version", &self.version)
            .field("class", &self.class)
            .field("deposed", &self.deposed)
            .finish_non_exhaustive()
    }
}

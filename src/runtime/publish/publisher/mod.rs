//! Publishing under a fence: take-over, publication in two modes, and resolution of unknown outcomes.
//!
//! The protocol is straight-line code over [`Store`], so that the simulation runs the shipped code.
//! Its rules (see `docs/design.md`):
//!
//! * A take-over writes the fence record by compare-and-set *before* it reads anything that it acts
//!   on, in a term above every term found. The fence is not written again in that term.
//! * **Atomic mode** (a store with batches): every batch depends on the fence's revision.
//! * **Per-key mode** (others): every write depends on the revision of its own key, and a new key is
//!   created on the last sequence of the bucket. A take-over rewrites every assignment key and the
//!   commit record, so that every revision known to a former leader is stale.
//! * A refused condition is resolved by reading the bucket. If the fence has moved, this leader is
//!   deposed. Otherwise another client wrote without a fence, and the leader publishes above it.
//! * An unknown outcome is resolved by reading back. A write that has not arrived may still be in
//!   flight: the next publication rewrites its keys unconditionally of their content, so that the
//!   late write is refused.
//!
//! Per-key mode has one gap: *during* a take-over, the former leader can still change a key until the
//! new leader has rewritten it. The rewrite is then refused, so the new leader detects the change and
//! overwrites it. After [`Publisher::take_over`] has returned, no write of the former leader is
//! accepted, and no assignment is newer than the returned version.

mod atomic;
mod effective;
mod own_writes;
mod per_key;
mod retries;
mod shadow;
mod take_over;
#[cfg(test)]
pub(in crate::runtime) mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::effective::Effective;
pub use self::shadow::{Live, Shadow};
pub use self::take_over::TakeOverResult;
use crate::config::PublishMode;
use crate::error::{Code, Error, Result};
use crate::machine::publication::{
    BucketReading, Change, ContentHash, Record, changes, pending, plan_digest, plan_hashes,
};
use crate::machine::takeover::ProcessMemory;
use crate::metrics::{AssignmentMetrics, NoMetrics, RetryCause};
use crate::store::{Bucket, Outcome, Refusal, Store, Write};
use crate::strategy::Plan;
use crate::time::clock::{Clock, SystemClock};
use crate::time::log_throttle::{LogThrottle, suppressed};
use crate::types::{Reason, Revision, Term, Version, WorkerId};
pub use crate::vocabulary::ActiveMode;
use crate::wire::{
    Applied, Assignment, COMMIT_KEY, Commit, ConfigDigest, FENCE_KEY, Fence, KeyPrefix,
};

/// The error of a store that stays busy over all retries.
const STAYS_BUSY: &str = "the store stays busy: another client writes the same keys, or the server \
     rejects batches; check its free storage";

/// What the publisher needs from its environment in addition to the store.
pub trait PublisherEnvironment: Send + Sync {
    /// The wall clock as RFC 3339 text, for people who read the records.
    fn wall_clock(&self) -> String;

    /// Waits. Returns `false` if the publisher must stop.
    fn pause(&self, duration: Duration) -> bool;

    /// Returns the clock of the deadlines.
    fn clock(&self) -> &dyn Clock {
        &SystemClock
    }

    /// Returns whether the store accepts calls; `false` while the circuit breaker is open, so that
    /// retries wait.
    fn takes_calls(&self) -> bool {
        true
    }

    /// A random number that distinguishes this leader's fence records.
    fn nonce(&self) -> u64 {
        fastrand::u64(..)
    }
}

/// Settings of a publisher.
#[derive(Clone, Debug)]
pub struct PublisherSettings {
    /// The leader's name, for the fence record.
    pub leader: String,
    /// Prefix of the assignment keys.
    pub assignment: KeyPrefix,
    /// Prefix of the heartbeat keys.
    pub heartbeat: KeyPrefix,
    /// The mode to publish in.
    pub mode: PublishMode,
    /// Maximum number of writes in one batch; the store may have a lower limit.
    pub batch_max: usize,
    /// The time within which every live worker writes its next heartbeat.
    pub heartbeat_ttl: Duration,
}

/// Publishes rebalances. Used from one thread.
pub trait Publish: fmt::Debug + Send {
    /// Opens a term, then reads the stored plan and the live workers.
    ///
    /// # Errors
    /// As [`Publisher::take_over`].
    fn take_over(&mut self, deadline: Instant) -> Result<TakeOverResult>;

    /// Publishes `plan` and returns its version.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    fn publish(&mut self, plan: &Plan, reason: Reason, deadline: Instant) -> Result<Version>;

    /// Returns the largest assignment that the store accepts, in bytes. Asks the store if `needed`
    /// bytes exceed what is known. 0: no limit.
    ///
    /// # Errors
    /// What the store reports.
    fn assignment_limit(&mut self, needed: usize, deadline: Instant) -> Result<usize>;

    /// Records the version that a worker has applied.
    fn observe_applied(&mut self, applied: Applied);

    /// Looks what these writes, seen in the bucket, are.
    ///
    /// # Errors
    /// As [`Publisher::resolve`].
    fn resolve(&mut self, seen: &[(String, Revision)], deadline: Instant) -> Result<Resolved>;

    /// Probes the store with a small read.
    ///
    /// # Errors
    /// As [`Publisher::probe`].
    fn probe(&self, deadline: Instant) -> Result<()>;

    /// Whether it only reports what it would write.
    fn is_shadow(&self) -> bool {
        false
    }

    /// The term that it publishes in, or watches.
    fn term(&self) -> Term;

    /// The publish mode and the store's capabilities, as probed last; `None` when nothing was to
    /// be probed.
    fn probe_result(&self) -> Option<(ActiveMode, &str)>;
}

/// What writes in the bucket turned out to be.
#[derive(Debug)]
pub enum Resolved {
    /// Nothing new.
    Known,
    /// A foreign write, to be published above.
    Foreign,
    /// A publication of the live leader, to be followed.
    Live(Box<Live>),
}

impl Publish for Publisher {
    fn take_over(&mut self, deadline: Instant) -> Result<TakeOverResult> {
        self.take_over(deadline)
    }

    fn publish(&mut self, plan: &Plan, reason: Reason, deadline: Instant) -> Result<Version> {
        self.publish(plan, reason, deadline)
    }

    fn assignment_limit(&mut self, needed: usize, deadline: Instant) -> Result<usize> {
        self.check_leadership()?;
        if needed > self.value_max {
            self.follow_capabilities(deadline)
                .map_err(|error| error.with_operation("publish"))?;
        }
        Ok(self.value_max)
    }

    fn observe_applied(&mut self, applied: Applied) {
        self.observe_applied(applied);
    }

    fn resolve(&mut self, seen: &[(String, Revision)], deadline: Instant) -> Result<Resolved> {
        Ok(match self.resolve(seen, deadline)? {
            true => Resolved::Foreign,
            false => Resolved::Known,
        })
    }

    fn probe(&self, deadline: Instant) -> Result<()> {
        self.probe(deadline)
    }

    fn term(&self) -> Term {
        self.term
    }

    fn probe_result(&self) -> Option<(ActiveMode, &str)> {
        Some((self.mode, &self.store_description))
    }
}

/// Publishes plans under one fence. Used from one thread.
pub struct Publisher {
    store: Arc<dyn Store>,
    environment: Arc<dyn PublisherEnvironment>,
    settings: PublisherSettings,
    mode: ActiveMode,
    /// Maximum writes in one atomic batch: the lower of the setting and the store's limit.
    batch_max: usize,
    /// Description of the store for the status.
    store_description: String,
    /// Maximum size of a value in the store, in bytes.
    value_max: usize,
    in_force: Arc<Effective>,
    term: Term,
    term_state: TermState,
    /// Terms and versions that this process has seen before.
    remembered: ProcessMemory,
    /// The digests that the fence states.
    config: ConfigDigest,
    /// The fence in force.
    fence: Record<Fence>,
    /// The fence last tried: the one in force unless a further term is being opened.
    claim: Fence,
    /// The unbroken stretch of the bucket's watch in which the fence was last read.
    fence_read_in: Option<u64>,
    /// The highest version used or seen; each publication, failed or not, takes a new one.
    version: Version,
    /// The highest term and version that any worker reported as applied.
    applied: Applied,
    known: BucketReading,
    unknown_outcomes: LogThrottle,
    metrics: Arc<dyn AssignmentMetrics>,
}

/// State of the publisher's term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TermState {
    /// No take-over yet, or it failed.
    Outside,
    /// Its fence is in force: it may publish.
    Effective,
    /// Opening a further term failed half-way: either of its two fences may be in force.
    Reopening,
    /// A newer leader has taken over.
    Deposed,
}

/// Why one attempt at a publication did not succeed.
enum AttemptError {
    /// The state of the bucket is unknown: read it again, then retry with a new version.
    Unknown(String),
    /// The store did not take it, and may in a moment: the same again.
    Again(RetryCause, Error),
    /// A failure that a retry cannot fix.
    Failed(Error),
}

impl From<Error> for AttemptError {
    fn from(error: Error) -> Self {
        AttemptError::Failed(error)
    }
}

type PublishAttempt<T> = std::result::Result<T, AttemptError>;

/// One attempt at a publication.
struct Draft {
    version: Version,
    changes: Vec<Change>,
    /// The value of each change, until it is written.
    values: Vec<Option<Vec<u8>>>,
    commit: Commit,
}

impl Publisher {
    /// A publisher that has not taken over yet. `in_force` publishes its progress.
    pub fn new(
        store: Arc<dyn Store>,
        environment: Arc<dyn PublisherEnvironment>,
        settings: PublisherSettings,
        in_force: Arc<Effective>,
    ) -> Self {
        Self {
            store,
            environment,
            settings,
            mode: ActiveMode::PerKey,
            batch_max: 0,
            store_description: String::new(),
            value_max: usize::MAX,
            in_force,
            term: 0,
            term_state: TermState::Outside,
            remembered: ProcessMemory::default(),
            config: ConfigDigest::default(),
            fence: Record::default(),
            claim: Fence::default(),
            fence_read_in: None,
            version: 0,
            applied: Applied::default(),
            known: BucketReading::default(),
            unknown_outcomes: LogThrottle::default(),
            metrics: Arc::new(NoMetrics),
        }
    }

    /// Sets the receiver of the publisher's state.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Arc<dyn AssignmentMetrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// Adds terms and versions that this process has seen: a take-over goes above them.
    #[must_use]
    pub fn remembering(mut self, remembered: ProcessMemory) -> Self {
        self.remembered = remembered;
        self
    }

    /// Sets the digests of this replica's configuration, for the fence.
    #[must_use]
    pub fn with_config(mut self, config: ConfigDigest) -> Self {
        self.config = config;
        self
    }

    /// The term that this publisher opened last.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// The publish mode, as probed last.
    #[must_use]
    pub fn mode(&self) -> ActiveMode {
        self.mode
    }

    /// Returns the store, its version and the publish mode, as last probed; empty before the
    /// take-over.
    #[must_use]
    pub fn store_description(&self) -> &str {
        &self.store_description
    }

    /// Publishes `plan` under a new version and returns that version.
    ///
    /// # Errors
    /// `Fenced` if a newer leader has taken over, which is final; `NotRunning` before a successful
    /// take-over; `NoWorkers` for a plan without workers, which would delete everything; `TooLarge`
    /// before anything was written, naming worker, size and limit; and the errors of the store.
    /// After an error, part of the plan or all of it may be visible; the next publication repairs
    /// it.
    pub fn publish(&mut self, plan: &Plan, reason: Reason, deadline: Instant) -> Result<Version> {
        self.check_leadership()?;
        if plan.workers().is_empty() {
            return Err(Error::new(
                Code::NoWorkers,
                "no live worker: nothing published or deleted",
            ));
        }
        self.follow_upgrade(deadline)
            .and_then(|()| self.check_fence(deadline))
            .map_err(|error| error.with_operation("publish"))?;
        let hashes = plan_hashes(plan);
        let mut retries = self.retries(deadline);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut draft = self.draft(plan, reason, &hashes)?;
            let result = match self.mode {
                ActiveMode::Atomic => self.publish_atomically(&mut draft, self.batch_max, deadline),
                ActiveMode::PerKey => self.publish_singly(&mut draft, deadline),
            };
            match result {
                Ok(()) => return Ok(draft.version),
                Err(AttemptError::Failed(error)) => {
                    if error.code() == Code::TooLarge {
                        self.value_max = 0; // Lowered since the last probe.
                    }
                    return Err(error.with_operation("publish"));
                }
                Err(AttemptError::Again(cause, error)) => {
                    retries.again(cause, error.with_operation("publish"))?;
                    self.metrics.retried(cause);
                }
                Err(AttemptError::Unknown(why)) => {
                    self.log_unknown_outcome(draft.version, attempt, &why);
                    self.relearn(deadline)
                        .map_err(|error| error.with_operation("publish"))?;
                    let has_arrived = self.known.commit.value.as_ref() == Some(&draft.commit);
                    // A foreign write in the meantime counts as known from here on, so it is
                    // overwritten now.
                    if has_arrived && pending(&self.known.slots, plan, &hashes).is_empty() {
                        return Ok(draft.version);
                    }
                    let message = format!("outcome unknown after {attempt} attempts: {why}");
                    let error = Error::new(Code::Unavailable, message);
                    retries.count(&error.with_operation("publish"))?;
                    self.metrics.retried(RetryCause::Indeterminate);
                }
            }
        }
    }

    fn log_unknown_outcome(&mut self, version: Version, attempt: u32, why: &str) {
        let now = self.environment.clock().now();
        if let Some(silent) = self.unknown_outcomes.record(now) {
            log::warn!(
                target: "divvy::publisher",
                version = version, attempt = attempt;
                "publish outcome unknown{} ({why}): reading back", suppressed(silent)
            );
        }
    }

    /// Probes the store with the smallest possible read.
    ///
    /// # Errors
    /// Errors of the store.
    pub fn probe(&self, deadline: Instant) -> Result<()> {
        self.store
            .read(Bucket::Assignment, FENCE_KEY, deadline)
            .map(drop)
    }

    /// Records the version that a worker has applied. The next [`Publisher::resolve`] ensures that
    /// everything later is above it.
    pub fn observe_applied(&mut self, applied: Applied) {
        self.applied = self.applied.highest(applied);
    }

    /// Checks whether these observed writes are foreign. If so, reads the bucket again. A key that
    /// disappeared without a trace is reported with the revision [`Revision::MAX`].
    ///
    /// # Errors
    /// `Fenced` if a newer leader has taken over; errors of the store.
    pub fn resolve(&mut self, seen: &[(String, Revision)], deadline: Instant) -> Result<bool> {
        self.check_leadership()?;
        // A half-completed attempt has no reading to compare with, and an applied version shows in no
        // key.
        let is_behind = self.applied.exceeds(self.in_force.get());
        let is_resumed = self.term_state == TermState::Reopening || is_behind;
        let is_own = |(key, revision): &(String, Revision)| self.is_own(key, *revision);
        if seen.iter().all(is_own) && !is_resumed {
            return Ok(false);
        }
        let before = (self.known.slots.clone(), self.known.commit.clone());
        self.relearn(deadline)?;
        let is_changed = before.0 != self.known.slots || before.1 != self.known.commit;
        Ok(is_changed || is_resumed)
    }

    /// Returns whether this publisher made or has read the key's write with this revision.
    fn is_own(&self, key: &str, revision: Revision) -> bool {
        let known = match (key, self.settings.assignment.suffix(key)) {
            (FENCE_KEY, _) => self.fence.revision,
            (COMMIT_KEY, _) => self.known.commit.revision,
            (_, Some(worker)) => self.known.slots.get(worker).map_or(0, |slot| slot.revision),
            (_, None) => return true, // nothing depends on it
        };
        revision <= known
    }

    /// Reads the whole bucket. The answer is at least as new as the call.
    fn read_all(&self, deadline: Instant) -> Result<BucketReading> {
        let list = |store: &dyn Store| store.list(Bucket::Assignment, "", deadline);
        let listing = self.ask(deadline, list)?;
        Ok(BucketReading::of(&listing, &self.settings.assignment))
    }

    /// Reads the bucket again under the same fence.
    fn relearn(&mut self, deadline: Instant) -> Result<()> {
        let mut reading = self.read_all(deadline)?;
        if !self.holds(&reading.fence) {
            return Err(self.depose(&reading.fence));
        }
        if let Err(error) = self.check_protocol(&reading) {
            self.term_state = TermState::Deposed;
            return Err(Error::new(Code::Fenced, error.message())
                .with_key(self.settings.assignment.v2_commit_key()));
        }
        // A worker may have applied a foreign version that is no longer in the bucket.
        let beats = self.read_beats(reading.plausible_max(), deadline)?;
        // The report of a worker is removed with its heartbeat.
        self.applied = beats.applied;
        self.see_version(reading.highest_version.max(self.applied.version));
        let highest_term = reading.highest_term.max(self.applied.term);
        if self.term_state == TermState::Reopening || highest_term > self.term {
            // Workers would reject our term: another client wrote a higher one without taking over.
            log::warn!(
                target: "divvy::publisher", term = self.term, found = highest_term;
                "foreign write with a higher term detected: opening a term above it"
            );
            self.term_state = TermState::Reopening;
            let floor = highest_term.max(self.term);
            self.open_term(&reading, floor, deadline)?;
            self.term_state = TermState::Effective;
        } else {
            reading.keep_rewrite_marks(&self.known.slots);
            reading.mark_foreign(&self.known.slots, self.term);
            reading.mark_refused(&beats.applied_by, self.applied.version);
            self.known = reading;
        }
        self.known.stored = Vec::new(); // large, and of use to a take-over only
        Ok(())
    }

    /// Reads the fence before anything is written, unless [`Publisher::is_fence_certain`].
    ///
    /// The writes are safe without this check, with two exceptions that it narrows: where revisions
    /// recur, those of a deposed leader may come true (the fence's content never does); and in
    /// per-key mode a leader that was deposed long ago must not leave half a plan during a take-over.
    fn check_fence(&mut self, deadline: Instant) -> Result<()> {
        if self.term_state == TermState::Reopening {
            return self.relearn(deadline);
        }
        let stretch = self.in_force.watch_stretch();
        if self.is_fence_certain(stretch) {
            return Ok(());
        }
        let read = |store: &dyn Store| store.read(Bucket::Assignment, FENCE_KEY, deadline);
        let entry = self.ask(deadline, read)?;
        let live = entry.as_ref().filter(|e| e.is_live());
        let found = Record {
            revision: entry.as_ref().map_or(0, |e| e.revision),
            value: live.and_then(|e| Fence::decode(&e.value).ok()),
        };
        if self.holds(&found) {
            self.fence_read_in = stretch;
            return Ok(());
        }
        Err(self.depose(&found))
    }

    /// Whether a batch that depends on the fence's revision proves as much as reading the fence.
    ///
    /// It does in atomic mode while no other record can have that revision. A bucket that counts
    /// from its creation time shares no revision with a bucket that replaces it, which counts from a
    /// later time or from 1. A restored copy of the bucket does repeat revisions. Restoring it
    /// removes the stream, and with it the consumer of the watch, so the fence is read again after
    /// each loss of the watch.
    fn is_fence_certain(&self, stretch: Option<u64>) -> bool {
        self.mode == ActiveMode::Atomic
            && Bucket::Assignment.counts_from_time(self.fence.revision)
            && stretch.is_some()
            && stretch == self.fence_read_in
    }

    /// Whether the fence found is this leader's.
    fn holds(&self, found: &Record<Fence>) -> bool {
        let is_claim = || found.value.as_ref() == Some(&self.claim);
        *found == self.fence || self.term_state == TermState::Reopening && is_claim()
    }

    /// From here on this publisher never writes again unless it takes over again.
    fn depose(&mut self, fence: &Record<Fence>) -> Error {
        self.term_state = TermState::Deposed;
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

    fn check_leadership(&self) -> Result<()> {
        match self.term_state {
            TermState::Effective | TermState::Reopening => Ok(()),
            TermState::Outside => Err(Error::new(
                Code::NotRunning,
                "no take-over has succeeded yet: cannot publish",
            )),
            TermState::Deposed => Err(Error::new(
                Code::Fenced,
                format!(
                    "deposed in term {}; this leader must not publish again",
                    self.term
                ),
            )),
        }
    }

    fn draft(&mut self, plan: &Plan, reason: Reason, hashes: &[ContentHash]) -> Result<Draft> {
        let version = next_number("version", self.version)?;
        let changes = changes(&self.known.slots, plan, hashes);
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
                .with_key(self.settings.assignment.key(&change.worker)));
            }
            values.push(value);
        }
        // Taken from here on, whatever comes of the attempt.
        self.see_version(version);
        let commit = Commit {
            term: self.term,
            version,
            lifecycle: reason.name().into(),
            digest: plan_digest(plan, hashes),
            workers: plan.workers().len() as u64,
            partitions: plan.partitions().len() as u64,
            unassigned: Some(plan.unassigned().len() as u64).filter(|&count| count > 0),
            time: self.environment.wall_clock(),
        };
        Ok(Draft {
            version,
            changes,
            values,
            commit,
        })
    }

    fn set_term(&mut self, term: Term) {
        self.term = term;
        self.in_force.set_term(term);
    }

    fn see_version(&mut self, version: Version) {
        self.version = self.version.max(version);
        self.in_force.set_version(self.version);
    }

    fn key_of(&self, worker: &WorkerId) -> String {
        self.settings.assignment.key(worker)
    }

    fn write_one(&self, write: Write, deadline: Instant) -> Outcome {
        let mut outcomes = self.store.write(Bucket::Assignment, &[write], deadline);
        outcomes
            .pop()
            .unwrap_or_else(|| Outcome::Unknown("the store returned no outcome".into()))
    }
}

/// One above the highest term or version found.
fn next_number(what: &'static str, highest: i64) -> Result<i64> {
    highest.checked_add(1).ok_or_else(|| {
        Error::new(
            Code::InvalidData,
            format!(
                "the store holds the {what} {highest}, which leaves no higher number; \
                 find and remove the value that carries it"
            ),
        )
    })
}

/// Returns the attempt error of a refusal.
fn refused(refusal: Refusal, key: &str) -> AttemptError {
    match refusal {
        Refusal::Busy => {
            let error = Error::new(Code::Unavailable, STAYS_BUSY).with_key(key);
            AttemptError::Again(RetryCause::Busy, error)
        }
        away @ Refusal::Unavailable(_) => {
            AttemptError::Again(RetryCause::Refused, away.into_error().with_key(key))
        }
        Refusal::Conflict => {
            AttemptError::Unknown(format!("another client wrote {key} or the fence"))
        }
        other => AttemptError::Failed(other.into_error().with_key(key)),
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("term", &self.term)
            .field("version", &self.version)
            .field("mode", &self.mode)
            .field("term_state", &self.term_state)
            .finish_non_exhaustive()
    }
}

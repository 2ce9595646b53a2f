//! A worker's stable id: the lowest free number of a pool, claimed by creating its key and kept by
//! renewing it.
//!
//! Every write is conditional, so a stolen (parti writes unconditionally), deleted or expired id is
//! detected at the next renewal and never stolen back. An id is *certain* until shortly before the
//! store could let its key expire; after that another process may own it. If the key holds a claim
//! of another process, that one owns it, whatever the revision, because a re-created bucket restarts
//! its numbering. An older claim of this process means that the store's data was replaced by a
//! former copy: it is renewed. So the key is read before a late renewal and after anything
//! suspicious.
//!
//! An id can be *kept* for a returning worker: its key stays, marked, and the next claim takes it
//! first, so that its partitions stay in place. A worker that remembers its id claims that one
//! before any other.
//!
//! A process with an *instance* takes over the claim of a former process of the same instance at
//! once, by compare-and-set. The former process, should it still run, finds the new claim, loses the
//! id, and from then on claims ids without an instance: two processes that were given the same
//! instance by mistake do not take the id from each other in turn.
//!
//! # Protocol of use
//! [`StableId::claim`] starts; [`StableId::poll_request`] returns store requests, one at a time,
//! each to be answered by [`StableId::answered`]; drain [`StableId::poll_event`] after each call.
//! [`StableId::deadline`] is the time of the next poll.

mod pool;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub use self::pool::Pool;
use self::pool::{Priority, ProcessIdentity};
use super::request::{Answer, Request, Value, may_pass};
use crate::error::{Code, Error};
use crate::store::{Bucket, Entry, Expect, Listing, Operation, Outcome, Refusal};
use crate::time::backoff::{Backoff, SplitMix};
use crate::types::{Revision, Time, WorkerId};
use crate::wire::{ClaimNonce, is_kept};

/// Conflicts after which the pool is listed again: by then what is known of it is old.
const CONFLICTS_MAX: u32 = 4;

/// Longest pause after a conflict. Rivals that start at once are kept apart by it.
const CONFLICT_PAUSE_MAX: Duration = Duration::from_millis(200);

/// How often giving an id back is tried at most, where the store is busy or does not answer.
const RELEASES_MAX: u32 = 5;

/// Number of nonces that distinguish claims made at the same time.
const NONCES: usize = 1_000_000_000;

/// Pauses while the store fails.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Shortest pause while all ids are taken. Looking for one reads every claim, and ids of workers that
/// are gone come free after a TTL: the longest pause is a sixth of that.
const VACANCY_MIN: Duration = Duration::from_millis(200);

/// What became of the id.
#[derive(Clone, Debug)]
pub enum IdEvent {
    /// The id is this worker's.
    Claimed {
        /// The id.
        worker: WorkerId,
        /// The former process of this instance did not release it and may still run.
        was_taken_over: bool,
    },
    /// The id's key was deleted (expired, removed, bucket re-created) and not taken: the worker
    /// claimed it again.
    Regained(WorkerId),
    /// Another process owns the id.
    Lost(WorkerId),
    /// A newer process of the same instance owns the id.
    TakenOver(WorkerId),
    /// Claiming or renewing failed, and is tried again.
    Failed(Error),
}

/// The claim of one worker. See the module for the protocol of use.
#[derive(Debug)]
pub struct StableId {
    pool: Pool,
    random: SplitMix,
    nonces: SplitMix,
    process: ProcessIdentity,
    backoff: Backoff,
    /// For as long as all ids are taken.
    vacancy: Backoff,
    phase: ClaimPhase,
    /// The number to claim first if it is free.
    preferred: Option<u32>,
    /// How long the store keeps a claim by its own settings, where it says so.
    bucket_ttl: Option<Duration>,
    /// Number of lost claims.
    rivals: u32,
    /// Not before this.
    due: Time,
    is_asking: bool,
    /// No id is wanted any more.
    is_closing: bool,
    /// And it shall be kept for a worker that will be back.
    is_kept: bool,
    events: VecDeque<IdEvent>,
}

#[derive(Debug)]
enum ClaimPhase {
    Idle,
    Listing,
    Creating(Creating),
    /// The outcome of a create is unknown: read the key.
    Resolving(Creating),
    OwnedClaim(OwnedClaim),
    /// The key is owned and to be released; number of attempts.
    Releasing(OwnedClaim, u32),
}

/// What is known of the pool, and what is tried.
#[derive(Debug)]
struct Creating {
    priority: Priority,
    number: u32,
    sent: Time,
    /// Numbers not known to be taken, each with its key's last revision; those kept for a worker
    /// that will be back come first.
    free: BTreeMap<(Priority, u32), Revision>,
    /// Creates of this number with an unknown outcome.
    unknown: Vec<ClaimAttempt>,
}

#[derive(Debug)]
struct OwnedClaim {
    number: u32,
    worker: WorkerId,
    revision: Revision,
    /// What the key holds in that revision.
    value: Vec<u8>,
    /// When the renewal was sent that was last confirmed.
    confirmed: Time,
    /// Renewals since then with an unknown outcome.
    unknown: Vec<ClaimAttempt>,
    asked: ClaimCall,
    /// Whether the key was read since the last renewal was requested.
    is_seen: bool,
    sent: Time,
    /// The key was found gone: the next renewal claims it again.
    is_gone: bool,
    /// Something suspicious happened since the key was last read.
    is_disputed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClaimCall {
    Renew,
    Read,
}

/// A write that may have been carried out.
#[derive(Clone, Debug)]
struct ClaimAttempt {
    value: Vec<u8>,
    sent: Time,
}

impl Creating {
    fn choice(&self) -> (Priority, u32) {
        (self.priority, self.number)
    }
}

impl StableId {
    /// Nothing claimed yet. `seed` determines which way rivals are avoided.
    #[must_use]
    pub fn new(pool: Pool, seed: u64) -> Self {
        let mut nonces = SplitMix(seed ^ 0xC1A1);
        let process = ProcessIdentity {
            nonce: u32::try_from(nonces.index(NONCES)).unwrap_or_default(),
            instance: None,
        };
        let vacancy_max = (pool.ttl / 6).max(VACANCY_MIN);
        Self {
            pool,
            random: SplitMix(seed),
            nonces,
            process,
            backoff: Backoff::new(RETRY_MIN, RETRY_MAX, seed ^ 0x5EED),
            vacancy: Backoff::new(VACANCY_MIN, vacancy_max, seed ^ 0x7AC7),
            phase: ClaimPhase::Idle,
            preferred: None,
            bucket_ttl: None,
            rivals: 0,
            due: Time::ZERO,
            is_asking: false,
            is_closing: false,
            is_kept: false,
            events: VecDeque::new(),
        }
    }

    /// How long the store keeps a claim; what was configured counts where it is less.
    pub fn limit_ttl(&mut self, ttl: Duration) {
        self.pool.ttl = self.pool.ttl.min(ttl);
        self.bucket_ttl = Some(ttl);
    }

    /// Takes over claims of this instance, and puts it into every claim.
    pub fn identify(&mut self, instance: &str) {
        self.process.instance = Some(instance.to_owned());
    }

    /// This id is claimed before any other, where it is kept or free.
    pub fn prefer(&mut self, worker: &WorkerId) {
        self.preferred = self.pool.number(worker.as_str());
    }

    /// Begins to claim an id, unless there is one.
    pub fn claim(&mut self) {
        if matches!(self.phase, ClaimPhase::Idle) {
            self.phase = ClaimPhase::Listing;
            self.due = Time::ZERO;
        }
    }

    /// Releases the id, now or once it arrives: deletes its key unless another process wrote it, or
    /// marks it as kept.
    pub fn release(&mut self, is_kept: bool) {
        self.is_closing = true;
        self.is_kept = is_kept;
        let phase = std::mem::replace(&mut self.phase, ClaimPhase::Idle);
        self.phase = self.closing(phase);
    }

    fn closing(&mut self, phase: ClaimPhase) -> ClaimPhase {
        match phase {
            ClaimPhase::OwnedClaim(held) => {
                self.due = Time::ZERO;
                ClaimPhase::Releasing(held, 0)
            }
            // It may be carried out yet.
            ClaimPhase::Creating(_) | ClaimPhase::Resolving(_) if self.is_asking => phase,
            ClaimPhase::Releasing(..) => phase,
            ClaimPhase::Idle
            | ClaimPhase::Listing
            | ClaimPhase::Creating(_)
            | ClaimPhase::Resolving(_) => ClaimPhase::Idle,
        }
    }

    /// Whether there is nothing to release any more.
    #[must_use]
    pub fn is_released(&self) -> bool {
        matches!(self.phase, ClaimPhase::Idle)
    }

    /// The id that is held.
    #[must_use]
    pub fn worker(&self) -> Option<&WorkerId> {
        match &self.phase {
            ClaimPhase::OwnedClaim(held) => Some(&held.worker),
            _ => None,
        }
    }

    /// Until when no other process can own the id.
    #[must_use]
    pub fn certain_until(&self) -> Option<Time> {
        match &self.phase {
            ClaimPhase::OwnedClaim(held) => Some(held.confirmed + self.pool.ttl * 9 / 10),
            _ => None,
        }
    }

    /// Whether another process may use the id, until the claim has been read.
    #[must_use]
    pub fn is_disputed(&self) -> bool {
        matches!(&self.phase, ClaimPhase::OwnedClaim(held) if held.is_disputed)
    }

    /// Reads the claim now: another process may use the id.
    pub fn verify(&mut self) {
        if let ClaimPhase::OwnedClaim(held) = &mut self.phase {
            held.asked = ClaimCall::Read;
            held.is_disputed = true;
            self.due = Time::ZERO;
        }
    }

    /// When there is something to ask.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let is_waiting = !self.is_asking && !matches!(self.phase, ClaimPhase::Idle);
        is_waiting.then_some(self.due)
    }

    /// What became of the id, oldest first.
    pub fn poll_event(&mut self) -> Option<IdEvent> {
        self.events.pop_front()
    }

    /// What to ask of the store now.
    pub fn poll_request(&mut self, now: Time) -> Option<Request> {
        if self.is_asking || self.due > now {
            return None;
        }
        let bucket = Bucket::StableId;
        let nonce = ClaimNonce {
            claim: u32::try_from(self.nonces.index(NONCES)).unwrap_or_default(),
            process: self.process.nonce,
        };
        let request = match &mut self.phase {
            ClaimPhase::Idle => return None,
            ClaimPhase::Listing => Request::List(bucket),
            ClaimPhase::Creating(creating) => {
                creating.sent = now;
                let revision = creating.free.get(&creating.choice()).copied();
                Request::Put {
                    bucket,
                    key: self.pool.key(creating.number),
                    value: Value::Claim(nonce, self.process.instance.clone()),
                    expect: Expect::Revision(revision.unwrap_or_default()),
                }
            }
            ClaimPhase::Resolving(creating) => Request::Read {
                bucket,
                key: self.pool.key(creating.number),
            },
            ClaimPhase::OwnedClaim(held) => {
                let key = self.pool.key(held.number);
                if now > held.confirmed + self.pool.ttl / 2 && !held.is_seen {
                    held.asked = ClaimCall::Read;
                }
                match held.asked {
                    ClaimCall::Read => Request::Read { bucket, key },
                    ClaimCall::Renew => {
                        held.is_seen = false;
                        held.sent = now;
                        Request::Put {
                            bucket,
                            key,
                            value: Value::Claim(nonce, self.process.instance.clone()),
                            expect: Expect::Revision(held.revision),
                        }
                    }
                }
            }
            ClaimPhase::Releasing(held, tries) => {
                *tries += 1;
                let key = self.pool.key(held.number);
                let expect = Expect::Revision(held.revision);
                match self.is_kept {
                    true => Request::Put {
                        bucket,
                        key,
                        value: Value::Kept(self.process.instance.clone()),
                        expect,
                    },
                    false => Request::Delete {
                        bucket,
                        key,
                        expect,
                    },
                }
            }
        };
        self.is_asking = true;
        Some(request)
    }

    /// The answer to the request under way.
    pub fn answered(&mut self, now: Time, answer: Answer) {
        self.is_asking = false;
        let failure = answer.failure();
        let phase = std::mem::replace(&mut self.phase, ClaimPhase::Idle);
        self.phase = match (phase, answer) {
            (ClaimPhase::Listing, Answer::Listed(Ok(listing))) => self.listed(now, &listing),
            (ClaimPhase::Creating(creating), Answer::Written { outcome, value }) => {
                self.created(now, creating, &outcome, value)
            }
            (ClaimPhase::Resolving(creating), Answer::Read(Ok(entry))) => {
                self.resolved(now, creating, entry)
            }
            (ClaimPhase::OwnedClaim(held), Answer::Written { outcome, value }) => {
                self.renewed(now, held, &outcome, value)
            }
            (ClaimPhase::OwnedClaim(held), Answer::Read(Ok(entry))) => {
                self.looked(now, held, entry)
            }
            (ClaimPhase::Releasing(held, tries @ 1..), Answer::Written { outcome, .. })
                if tries < RELEASES_MAX && may_pass(&outcome) =>
            {
                self.due = now + self.backoff.next_delay();
                ClaimPhase::Releasing(held, tries)
            }
            // Rejected: another process owns it. Unknown: it will expire.
            (ClaimPhase::Releasing(_, 1..), _) => ClaimPhase::Idle,
            // A renewal was under way.
            (ClaimPhase::Releasing(mut held, 0), answer) => {
                if let Answer::Written {
                    outcome: Outcome::Done(revision),
                    ..
                } = answer
                {
                    held.revision = revision;
                }
                ClaimPhase::Releasing(held, 0)
            }
            (phase, _) => {
                self.due = now + self.backoff.next_delay();
                phase
            }
        };
        if self.is_closing {
            let phase = std::mem::replace(&mut self.phase, ClaimPhase::Idle);
            self.phase = self.closing(phase);
            self.events.clear();
            return;
        }
        if let Some(error) = failure {
            let operation = match &self.phase {
                ClaimPhase::OwnedClaim(_) => "renew id",
                _ => "claim id",
            };
            self.events
                .push_back(IdEvent::Failed(error.with_operation(operation)));
        }
    }

    fn listed(&mut self, now: Time, listing: &Listing) -> ClaimPhase {
        let mut free = self.pool.claimable(listing, &self.process, self.bucket_ttl);
        if let Some(number) = self.preferred {
            let kept = free.remove(&(Priority::Kept, number));
            let revision = kept.or_else(|| free.remove(&(Priority::Free, number)));
            if let Some(revision) = revision {
                free.insert((Priority::Preferred, number), revision);
            }
        }
        if let Some(choice) = self.choose(now, free) {
            self.vacancy.reset();
            return choice;
        }
        self.due = now + self.vacancy.next_delay();
        let (prefix, min, max) = (&self.pool.prefix, self.pool.min, self.pool.max);
        let count = u64::from(max) - u64::from(min) + 1;
        self.events.push_back(IdEvent::Failed(Error::new(
            Code::IdsExhausted,
            format!(
                "all {count} ids from {prefix}-{min} to {prefix}-{max} are taken; raise \
                 worker_id_max, or wait until the ids of stopped workers expire"
            ),
        )));
        ClaimPhase::Listing
    }

    fn created(
        &mut self,
        now: Time,
        mut creating: Creating,
        outcome: &Outcome,
        value: Vec<u8>,
    ) -> ClaimPhase {
        match outcome {
            Outcome::Done(revision) => {
                let sent = creating.sent;
                self.hold(&creating, *revision, value, sent)
            }
            // Perhaps it was only removed just now.
            Outcome::Refused(Refusal::Conflict)
                if creating.unknown.is_empty() && creating.priority <= Priority::Preferred =>
            {
                self.due = now + self.backoff.next_delay();
                ClaimPhase::Listing
            }
            Outcome::Refused(Refusal::Conflict) if creating.unknown.is_empty() => {
                self.taken(now, creating)
            }
            // By an earlier try, perhaps.
            Outcome::Refused(Refusal::Conflict) => ClaimPhase::Resolving(creating),
            Outcome::Refused(_) if creating.unknown.is_empty() => {
                self.due = now + self.backoff.next_delay();
                ClaimPhase::Listing
            }
            Outcome::Refused(_) => {
                self.due = now + self.backoff.next_delay();
                ClaimPhase::Resolving(creating)
            }
            Outcome::Unknown(_) => {
                let sent = creating.sent;
                creating.unknown.push(ClaimAttempt { value, sent });
                self.due = now + self.backoff.next_delay();
                ClaimPhase::Resolving(creating)
            }
        }
    }

    fn resolved(&mut self, now: Time, mut creating: Creating, entry: Option<Entry>) -> ClaimPhase {
        match entry {
            Some(entry) if entry.is_live() => {
                let mut tries = creating.unknown.iter();
                let ours = tries.find(|attempt| attempt.value == entry.value);
                match ours.map(|attempt| attempt.sent) {
                    Some(sent) => self.hold(&creating, entry.revision, entry.value, sent),
                    // Still kept for the next process.
                    None if is_kept(&entry.value) => {
                        creating.free.insert(creating.choice(), entry.revision);
                        ClaimPhase::Creating(creating)
                    }
                    None if self.process.is_instance_of(&entry) => {
                        creating.free.remove(&creating.choice());
                        creating.priority = Priority::Instance;
                        creating.free.insert(creating.choice(), entry.revision);
                        ClaimPhase::Creating(creating)
                    }
                    None => self.taken(now, creating),
                }
            }
            // Not stored, or not yet. Repeat the same create: at most one succeeds, and an earlier
            // one is recognised at the next read.
            entry => {
                let revision = entry.map_or(0, |entry| entry.revision);
                creating.free.insert(creating.choice(), revision);
                ClaimPhase::Creating(creating)
            }
        }
    }

    /// Another process was faster: choose another number, farther away with more rivals.
    fn taken(&mut self, now: Time, mut creating: Creating) -> ClaimPhase {
        creating.free.remove(&creating.choice());
        self.rivals += 1;
        let pause = Duration::from_millis(5).saturating_mul(1 << self.rivals.min(8));
        self.due = now + self.random.below(pause.min(CONFLICT_PAUSE_MAX));
        if self.rivals.is_multiple_of(CONFLICTS_MAX) {
            return ClaimPhase::Listing;
        }
        self.choose(now, creating.free)
            .unwrap_or(ClaimPhase::Listing)
    }

    /// The lowest free number; where there are rivals, one of the lowest, drawn.
    fn choose(
        &mut self,
        now: Time,
        free: BTreeMap<(Priority, u32), Revision>,
    ) -> Option<ClaimPhase> {
        let width = 1_usize << self.rivals.min(16);
        let index = self.random.index(width.min(free.len()));
        let (priority, number) = *free.keys().nth(index)?;
        Some(ClaimPhase::Creating(Creating {
            priority,
            number,
            sent: now,
            free,
            unknown: Vec::new(),
        }))
    }

    fn hold(
        &mut self,
        creating: &Creating,
        revision: Revision,
        value: Vec<u8>,
        confirmed: Time,
    ) -> ClaimPhase {
        let number = creating.number;
        // The pool's prefix was checked with the longest number behind it.
        let Ok(worker) = WorkerId::new(&self.pool.key(number)) else {
            return ClaimPhase::Idle;
        };
        self.rivals = 0;
        self.backoff.reset();
        self.due = confirmed + self.pool.ttl / 3;
        self.events.push_back(IdEvent::Claimed {
            worker: worker.clone(),
            was_taken_over: creating.priority == Priority::Instance,
        });
        ClaimPhase::OwnedClaim(OwnedClaim {
            number,
            worker,
            revision,
            value,
            confirmed,
            unknown: Vec::new(),
            asked: ClaimCall::Renew,
            is_seen: false,
            sent: confirmed,
            is_gone: false,
            is_disputed: false,
        })
    }

    fn renewed(
        &mut self,
        now: Time,
        mut held: OwnedClaim,
        outcome: &Outcome,
        value: Vec<u8>,
    ) -> ClaimPhase {
        match outcome {
            Outcome::Done(revision) => {
                let sent = held.sent;
                self.confirm(&mut held, *revision, value, sent);
            }
            Outcome::Refused(Refusal::Conflict) => held.asked = ClaimCall::Read,
            Outcome::Refused(_) => self.due = now + self.backoff.next_delay(),
            Outcome::Unknown(_) => {
                let sent = held.sent;
                held.unknown.push(ClaimAttempt { value, sent });
                held.asked = ClaimCall::Read;
                self.due = now + self.backoff.next_delay();
            }
        }
        ClaimPhase::OwnedClaim(held)
    }

    /// What the key holds after a renewal that did not simply succeed, or before one.
    fn looked(&mut self, now: Time, mut held: OwnedClaim, entry: Option<Entry>) -> ClaimPhase {
        held.asked = ClaimCall::Renew;
        held.is_seen = true;
        held.is_disputed = false;
        self.due = now;
        let Some(entry) = entry.filter(|entry| entry.operation != Operation::Gone) else {
            held.revision = 0;
            held.is_gone = true;
            return ClaimPhase::OwnedClaim(held);
        };
        if !entry.is_live() {
            held.revision = entry.revision;
            held.is_gone = true;
            return ClaimPhase::OwnedClaim(held);
        }
        let ours = held.unknown.iter().find(|try_| try_.value == entry.value);
        if let Some(sent) = ours.map(|attempt| attempt.sent) {
            self.confirm(&mut held, entry.revision, entry.value, sent);
            return ClaimPhase::OwnedClaim(held);
        }
        let is_ours = entry.revision == held.revision && entry.value == held.value;
        if is_ours && !held.is_gone {
            return ClaimPhase::OwnedClaim(held); // the renewal was not carried out, or not yet
        }
        if self.process.wrote(&entry) {
            // An older claim of this process: the store's data was replaced by a former copy.
            held.revision = entry.revision;
            held.value = entry.value;
            held.is_gone = false;
            return ClaimPhase::OwnedClaim(held);
        }
        self.events
            .push_back(match self.process.is_instance_of(&entry) {
                true => {
                    self.process.instance = None;
                    IdEvent::TakenOver(held.worker)
                }
                false => IdEvent::Lost(held.worker),
            });
        self.due = Time::ZERO;
        ClaimPhase::Idle
    }

    fn confirm(&mut self, held: &mut OwnedClaim, revision: Revision, value: Vec<u8>, sent: Time) {
        held.revision = revision;
        held.value = value;
        held.confirmed = held.confirmed.max(sent);
        held.unknown.clear();
        held.asked = match held.is_disputed {
            true => ClaimCall::Read,
            false => ClaimCall::Renew,
        };
        if std::mem::take(&mut held.is_gone) {
            self.events
                .push_back(IdEvent::Regained(held.worker.clone()));
        }
        self.backoff.reset();
        self.due = match held.is_disputed {
            true => Time::ZERO,
            false => held.confirmed + self.pool.ttl / 3,
        };
    }
}

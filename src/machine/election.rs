//! Who leads: a lease in the store that one worker holds at a time.
//!
//! The lease is acquired by creating its key and renewed by compare-and-set. A leader that cannot
//! renew it steps down by its own clock before the store can let it expire; other workers watch the
//! key, so that a vacancy is detected at once. Only an own revision is ever deleted.
//!
//! A host may bring its own election, or exclude a worker from leading: then only the watch
//! remains, to know the leader.

use std::collections::VecDeque;
use std::time::Duration;

use super::request::{Answer, Request, Value, may_pass};
use crate::error::Error;
use crate::store::{Bucket, Entry, Expect, Operation, Outcome, Refusal, WatchEvent};
use crate::time::backoff::{Backoff, SplitMix};
use crate::types::{Revision, Time, WorkerId};
use crate::wire::{LEASE_KEY, lease_holder};

/// Longest pause before a vacancy that was announced is filled. Rivals are kept apart by it.
const VACANCY_DELAY_MAX: Duration = Duration::from_millis(25);

/// When a lease that was written then may be taken over though its key is still there.
///
/// The leader, by its own clock, gives up a tenth of the lease before its end; others wait a fiftieth
/// longer, by theirs. So one clock may be 6 % slow and the other 6 % fast. (The fence holds whatever the
/// clocks say.)
fn ends(since: Time, lease: Duration) -> Time {
    since + lease + lease / 50
}

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// How often giving the lease back is tried at most, where the store is busy or does not answer.
const RESIGNATIONS_MAX: u32 = 5;

/// How leaders are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// By the lease in the store.
    Lease,
    /// By the host's own election.
    Host,
    /// This worker never leads.
    Never,
}

/// What changed.
#[derive(Clone, Debug)]
pub enum ElectionEvent {
    /// This worker leads from now on.
    Won,
    /// This worker leads no more.
    Lost(&'static str),
    /// Another worker leads; `None`: no leader is known.
    Leader(Option<WorkerId>),
    /// The store or the host's election failed; it is tried again.
    Failed(Error),
}

/// One worker's part in the election. Polled and answered like the other parts of a manager.
#[derive(Debug)]
pub struct Election {
    rule: Rule,
    lease: Duration,
    /// How long the store keeps a lease, where it ends any.
    kept: Option<Duration>,
    random: SplitMix,
    backoff: Backoff,
    /// Who this worker is; `None`: it takes no part now.
    worker: Option<WorkerId>,
    /// What the watch showed last.
    seen: ObservedLease,
    leadership: LeadershipState,
    /// Writes of the lease with an unknown outcome.
    unknown: Vec<LeaseAttempt>,
    /// The last own confirmed write. Values differ by the second only.
    own: Revision,
    /// Read the key before the next write.
    wants_look: bool,
    /// It takes no part any more.
    is_closed: bool,
    /// It stands back until then.
    not_before: Time,
    /// What is under way, and for whom.
    asked: Option<(ElectionCall, WorkerId)>,
    /// How often giving the lease back was tried.
    resignations: u32,
    sent: Time,
    events: VecDeque<ElectionEvent>,
}

/// The lease's key as far as the watch or a look showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ObservedLease {
    /// Nothing yet.
    Nothing,
    /// There is no lease; the key's last revision.
    Vacant(Revision),
    Held {
        holder: Option<WorkerId>,
        revision: Revision,
        /// When it was written, or observed if unknown.
        since: Time,
    },
}

#[derive(Debug)]
enum LeadershipState {
    Follower {
        /// When to try for the lease.
        campaign_at: Option<Time>,
    },
    Leader {
        revision: Revision,
        /// Until when the leadership is certain.
        until: Time,
        /// When the lease is to be renewed or released.
        renew_at: Time,
        is_resigning: bool,
    },
}

impl LeadershipState {
    const BYSTANDER: LeadershipState = LeadershipState::Follower { campaign_at: None };
}

#[derive(Clone, Debug)]
struct LeaseAttempt {
    value: Vec<u8>,
    sent: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ElectionCall {
    Take,
    Look,
    Resign,
}

impl Election {
    /// Without a known leader. `seed` determines the campaign delay.
    #[must_use]
    pub fn new(rule: Rule, lease: Duration, seed: u64) -> Self {
        Self {
            rule,
            lease,
            kept: None,
            random: SplitMix(seed),
            backoff: Backoff::new(RETRY_MIN, RETRY_MAX, seed ^ 0xE1EC),
            worker: None,
            seen: ObservedLease::Nothing,
            leadership: LeadershipState::BYSTANDER,
            unknown: Vec::new(),
            own: 0,
            wants_look: false,
            is_closed: false,
            not_before: Time::ZERO,
            asked: None,
            resignations: 0,
            sent: Time::ZERO,
            events: VecDeque::new(),
        }
    }

    /// The store keeps a lease for so long; it counts for no longer, whatever was configured.
    pub fn limit_lease(&mut self, kept: Duration) {
        self.lease = self.lease.min(kept);
        self.kept = Some(kept);
    }

    /// Takes part under this id from now on, or not at all: then a leader steps down and its
    /// lease, which is no longer its own to delete, is left to expire.
    pub fn set_worker(&mut self, now: Time, worker: Option<WorkerId>) {
        if self.worker == worker {
            return;
        }
        self.step_down("it no longer takes part in the election");
        self.worker = worker;
        self.unknown.clear();
        self.wants_look = false;
        self.plan_campaign(now);
    }

    /// Gives the lease back where it is held, and takes no part any more.
    pub fn resign(&mut self) {
        self.is_closed = true;
        self.begin_resigning();
        if let LeadershipState::Follower { campaign_at } = &mut self.leadership {
            *campaign_at = None;
        }
    }

    /// Gives the lease back where it is held, and stands back for a while: leading did not work.
    pub fn back_off(&mut self, now: Time, pause: Duration) {
        self.not_before = now + pause;
        self.begin_resigning();
        if let LeadershipState::Follower { .. } = self.leadership {
            self.plan_campaign(now);
        }
    }

    fn begin_resigning(&mut self) {
        if let LeadershipState::Leader {
            is_resigning,
            renew_at,
            ..
        } = &mut self.leadership
            && !std::mem::replace(is_resigning, true)
        {
            self.resignations = 0;
            *renew_at = Time::ZERO;
        }
    }

    /// Whether this worker leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(
            self.leadership,
            LeadershipState::Leader {
                is_resigning: false,
                ..
            }
        )
    }

    /// Whether nothing is left to release.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(self.leadership, LeadershipState::Follower { .. }) && self.asked.is_none()
    }

    /// Who leads, as far as is known.
    #[must_use]
    pub fn leader(&self) -> Option<&WorkerId> {
        match (&self.leadership, &self.seen) {
            (LeadershipState::Leader { .. }, _) => self.worker.as_ref(),
            (_, ObservedLease::Held { holder, .. }) => holder.as_ref(),
            _ => None,
        }
    }

    /// What changed, oldest first.
    pub fn poll_event(&mut self) -> Option<ElectionEvent> {
        self.events.pop_front()
    }

    /// When there is something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let is_idle = self.asked.is_none();
        match &self.leadership {
            LeadershipState::Follower { campaign_at } => campaign_at.filter(|_| is_idle),
            LeadershipState::Leader {
                until, renew_at, ..
            } => Some(if is_idle {
                (*renew_at).min(*until)
            } else {
                *until
            }),
        }
    }

    /// Lets time pass: a leader that is no longer certain to lead steps down.
    pub fn tick(&mut self, now: Time) {
        let is_over =
            matches!(self.leadership, LeadershipState::Leader { until, .. } if until <= now);
        if is_over {
            self.step_down("its lease was not renewed in time");
            self.plan_campaign(now);
        }
    }

    /// What the watch of the lease's key shows.
    pub fn watched(&mut self, now: Time, event: &WatchEvent) {
        match event {
            WatchEvent::Change(entry) if entry.key == LEASE_KEY => self.see(now, entry),
            WatchEvent::Live if self.seen == ObservedLease::Nothing => self.vacant(now, 0),
            WatchEvent::Change(_) | WatchEvent::Live | WatchEvent::Disconnected(_) => {}
        }
    }

    /// What to ask of the store now.
    pub fn poll_request(&mut self, now: Time) -> Option<Request> {
        if self.asked.is_some() || self.deadline()? > now {
            return None;
        }
        let worker = self.worker.clone()?;
        let bucket = Bucket::Election;
        let key = LEASE_KEY.to_owned();
        let (asked, request) = match &self.leadership {
            LeadershipState::Leader {
                is_resigning: true,
                revision,
                ..
            } => {
                let expect = Expect::Revision(*revision);
                let request = match self.rule {
                    Rule::Host => Request::Resign(worker.clone()),
                    _ => Request::Delete {
                        bucket,
                        key,
                        expect,
                    },
                };
                (ElectionCall::Resign, request)
            }
            _ if self.rule == Rule::Host => (ElectionCall::Take, Request::Campaign(worker.clone())),
            _ if self.wants_look => (ElectionCall::Look, Request::Read { bucket, key }),
            leadership => {
                let revision = match leadership {
                    LeadershipState::Leader { revision, .. } => *revision,
                    LeadershipState::Follower { .. } => self.to_be_taken(now),
                };
                let put = Request::Put {
                    bucket,
                    key,
                    value: Value::Lease(worker.clone()),
                    expect: Expect::Revision(revision),
                };
                (ElectionCall::Take, put)
            }
        };
        match asked {
            ElectionCall::Take => self.sent = now,
            ElectionCall::Resign => self.resignations += 1,
            ElectionCall::Look => {}
        }
        self.asked = Some((asked, worker));
        Some(request)
    }

    /// The revision under which a follower takes the lease.
    fn to_be_taken(&self, now: Time) -> Revision {
        let is_over = |since| self.kept.is_some_and(|kept| ends(since, kept) <= now);
        match self.seen {
            ObservedLease::Vacant(revision) => revision,
            // NATS removes expired keys up to a quarter of a second late.
            ObservedLease::Held {
                revision, since, ..
            } if is_over(since) => revision,
            // It has run out by our clock: the store has let it expire, or refuses.
            ObservedLease::Held { .. } | ObservedLease::Nothing => 0,
        }
    }

    /// The answer to the request under way.
    pub fn answered(&mut self, now: Time, answer: Answer) {
        let Some((asked, worker)) = self.asked.take() else {
            return;
        };
        if let Some(error) = answer.failure() {
            self.events
                .push_back(ElectionEvent::Failed(error.with_operation("election")));
        }
        if self.worker.as_ref() != Some(&worker) {
            return; // the try of another life; what it won will expire
        }
        match (asked, answer) {
            (ElectionCall::Resign, Answer::Written { outcome, .. })
                if may_pass(&outcome) && self.resignations < RESIGNATIONS_MAX =>
            {
                self.retry(now);
            }
            (ElectionCall::Resign, answer) => {
                if let Answer::Written {
                    outcome: Outcome::Done(revision),
                    ..
                } = answer
                {
                    self.seen = ObservedLease::Vacant(revision);
                }
                self.step_down("it resigned");
                self.plan_campaign(now);
            }
            (ElectionCall::Take, Answer::Campaigned(result)) => self.campaigned(now, result),
            (ElectionCall::Take, Answer::Written { outcome, value }) => {
                self.taken(now, &outcome, value)
            }
            (ElectionCall::Look, Answer::Read(Ok(entry))) => self.looked(now, entry),
            (ElectionCall::Take | ElectionCall::Look, _) => self.retry(now),
        }
    }

    fn campaigned(&mut self, now: Time, result: Result<Option<Duration>, Error>) {
        match result {
            Ok(Some(lease)) => self.lead(self.sent, lease, 0),
            Ok(None) => {
                self.step_down("the host election chose another worker");
                self.try_in(now, self.lease / 3);
            }
            Err(error) => {
                let failed = ElectionEvent::Failed(error.with_operation("election"));
                self.events.push_back(failed);
                self.retry(now);
            }
        }
    }

    fn taken(&mut self, now: Time, outcome: &Outcome, value: Vec<u8>) {
        let sent = self.sent;
        match outcome {
            Outcome::Done(revision) => self.lead(sent, self.lease, *revision),
            Outcome::Refused(Refusal::Conflict) => {
                self.wants_look = true;
                self.try_in(now, Duration::ZERO);
            }
            Outcome::Refused(_) => self.retry(now),
            Outcome::Unknown(_) => {
                self.unknown.push(LeaseAttempt { value, sent });
                self.wants_look = true;
                self.retry(now);
            }
        }
    }

    /// What the key holds after a write that did not simply succeed.
    fn looked(&mut self, now: Time, entry: Option<Entry>) {
        self.wants_look = false;
        let live = entry.as_ref().filter(|entry| entry.is_live());
        let newer = live.filter(|entry| entry.revision != self.own);
        let is_ours = |entry: &&Entry| self.unknown.iter().find(|a| a.value == entry.value);
        let ours = newer.and_then(|entry| is_ours(&entry).map(|a| (a.sent, entry.revision)));
        if let Some((sent, revision)) = ours {
            return self.lead(sent, self.lease, revision);
        }
        let LeadershipState::Leader {
            revision, renew_at, ..
        } = &mut self.leadership
        else {
            return self.look_at(now, entry);
        };
        match live {
            // Not carried out, or not yet: written again.
            Some(entry) if entry.revision == *revision => *renew_at = now,
            Some(_) => {
                self.step_down("another worker owns the lease");
                self.look_at(now, entry);
            }
            // The key was deleted and not taken by another worker.
            None => {
                *revision = entry.map_or(0, |entry| entry.revision);
                *renew_at = now;
            }
        }
    }

    fn look_at(&mut self, now: Time, entry: Option<Entry>) {
        let Some(entry) = entry else {
            return self.vacant(now, 0);
        };
        let before = self.seen.clone();
        self.see(now, &entry);
        if let ObservedLease::Held { since, .. } = before
            && self.seen == before
            && since + self.lease <= now
        {
            // The store keeps it for longer than was configured.
            self.retry(now);
        }
    }

    /// The key as the watch or a look shows it.
    fn see(&mut self, now: Time, entry: &Entry) {
        match entry.operation {
            Operation::Put => {
                let holder = lease_holder(&entry.value);
                let is_new = !matches!(self.seen, ObservedLease::Held { revision, .. } if revision == entry.revision);
                if is_new {
                    self.backoff.reset();
                    let before = self.leader().cloned();
                    self.seen = ObservedLease::Held {
                        holder: holder.clone(),
                        revision: entry.revision,
                        since: now - entry.age.unwrap_or_default(),
                    };
                    if self.leader() != before.as_ref() {
                        let leader = self.leader().cloned();
                        self.events.push_back(ElectionEvent::Leader(leader));
                    }
                }
                if let LeadershipState::Leader { revision, .. } = &self.leadership {
                    let is_foreign = entry.revision > *revision && holder != self.worker;
                    if is_foreign && self.rule == Rule::Lease {
                        self.step_down("another worker has taken the lease");
                    }
                }
                self.plan_campaign(now);
            }
            Operation::Delete | Operation::Expired => self.vacant(now, entry.revision),
            Operation::Gone => self.vacant(now, 0),
        }
    }

    fn vacant(&mut self, now: Time, revision: Revision) {
        if let LeadershipState::Leader {
            revision: ours,
            renew_at,
            ..
        } = &mut self.leadership
        {
            // Deleted by another client (parti does so unconditionally): reacquire it unless it was
            // taken.
            if revision > *ours {
                *ours = revision;
                *renew_at = now;
            } else if revision == 0 {
                // Gone, or it was before this worker took it.
                self.wants_look = true;
                *renew_at = now;
            }
            return;
        }
        let was_led = self.leader().is_some();
        self.seen = ObservedLease::Vacant(revision);
        if was_led {
            self.events.push_back(ElectionEvent::Leader(None));
        }
        self.plan_campaign(now);
    }

    /// When this worker tries for the lease, by what is known of it.
    fn plan_campaign(&mut self, now: Time) {
        let lease = self.lease;
        let at = match (self.rule, &self.seen) {
            _ if self.worker.is_none() || self.is_closed => None,
            (Rule::Never, _) | (Rule::Lease, ObservedLease::Nothing) => None,
            (Rule::Host, _) => Some(now),
            (Rule::Lease, ObservedLease::Vacant(_)) => {
                Some(now + self.random.below(VACANCY_DELAY_MAX))
            }
            // The store lets it expire without a word.
            (Rule::Lease, ObservedLease::Held { since, .. }) => {
                Some(ends(*since, lease).max(now) + self.random.below(lease / 40))
            }
        };
        if let LeadershipState::Follower { campaign_at } = &mut self.leadership {
            let planned = campaign_at.filter(|_| self.rule == Rule::Host);
            *campaign_at = planned.or(at).map(|at| at.max(self.not_before));
        }
    }

    /// Retries to acquire or renew the lease after a pause.
    fn try_in(&mut self, now: Time, pause: Duration) {
        let takes_part = self.worker.is_some() && !self.is_closed;
        match &mut self.leadership {
            LeadershipState::Follower { campaign_at } => {
                *campaign_at = takes_part.then_some((now + pause).max(self.not_before));
            }
            LeadershipState::Leader { renew_at, .. } => {
                *renew_at = now + pause.min(self.lease / 10)
            }
        }
    }

    fn retry(&mut self, now: Time) {
        let pause = self.backoff.next_delay();
        self.try_in(now, pause);
    }

    fn lead(&mut self, sent: Time, lease: Duration, revision: Revision) {
        self.backoff.reset();
        self.unknown.clear();
        self.own = revision;
        self.wants_look = false;
        let (was_leader, was_resigning) = match self.leadership {
            LeadershipState::Leader { is_resigning, .. } => (true, is_resigning),
            LeadershipState::Follower { .. } => (false, false),
        };
        let is_resigning = was_resigning || self.is_closed;
        self.leadership = LeadershipState::Leader {
            revision,
            until: sent + lease * 9 / 10,
            renew_at: if is_resigning {
                Time::ZERO
            } else {
                sent + lease / 3
            },
            is_resigning,
        };
        if !was_leader {
            self.events.push_back(ElectionEvent::Won);
        }
    }

    fn step_down(&mut self, why: &'static str) {
        if let LeadershipState::Leader { .. } = self.leadership {
            self.leadership = LeadershipState::BYSTANDER;
            self.events.push_back(ElectionEvent::Lost(why));
        }
    }
}

#[cfg(test)]
mod tests;

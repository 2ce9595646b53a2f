//! What goes into the calculator machine and what comes out.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::config::CalculatorConfig;
use crate::error::Error;
use crate::machine::breaker::BreakerCondition;
use crate::machine::comparison::Comparison;
use crate::machine::config_mismatch::ConfigMismatch;
use crate::machine::convergence::Lagging;
use crate::machine::fit::AssignmentLimit;
use crate::machine::list_guard::HeldList;
use crate::machine::liveness::MembershipEvent;
use crate::machine::plausible::{MalformedValue, MalformedValues};
use crate::machine::takeover::{Finding, TakeOver};
use crate::strategy::Quality;
use crate::types::{CalculatorState, Reason, Revision, Term, Time, Version, WorkerId};
use crate::vocabulary::{DegradationCause, MemberChange};
use crate::wire::Applied;

/// Names one piece of I/O, so that a late answer to an abandoned one is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// Names one waiting caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// An input of the calculator machine.
#[derive(Clone, Debug)]
pub enum CalculatorInput {
    /// The take-over succeeded, with its reading (runtime -> calculator, once, first).
    TakenOver(Box<TakeOver>),
    /// A change of membership or of the watch (dv-watch -> calculator).
    Membership(MembershipEvent),
    /// The requested listing is complete; its contents were reported before (dv-watch ->
    /// calculator).
    Listed {
        /// The listing's id.
        op: OpId,
        /// Whether it could be completed.
        result: Result<(), Error>,
    },
    /// A job is done (dv-publish -> calculator).
    JobDone {
        /// The job's id.
        op: OpId,
        /// The publisher's term after it; higher than before when a foreign write made it open
        /// another.
        term: Term,
        /// How it ended.
        result: Result<JobReport, Error>,
    },
    /// A write that is not recognisably ours was seen in the assignment bucket
    /// (dv-watch -> calculator).
    ForeignSuspected {
        /// The key that was written.
        key: String,
        /// The revision of the write.
        revision: Revision,
    },
    /// A worker reports a higher term or version as applied than this leader has reached
    /// (dv-watch -> calculator).
    AppliedAhead(Applied),
    /// A worker has not applied its assignment in time (dv-watch -> calculator).
    Lagging(Lagging),
    /// A partition list is held back; `None`: no longer.
    ListHeld(Option<HeldList>),
    /// A live worker is configured differently from the leader.
    ConfigMismatch(ConfigMismatch),
    /// The fence record names a higher term (dv-watch -> calculator).
    FenceMoved {
        /// The term that it names.
        term: Term,
    },
    /// The host asks for a new version (handle -> calculator).
    Trigger {
        /// Who waits for it.
        ticket: Ticket,
    },
    /// The partition list may have changed: a new list was set, or the host requested a refresh
    /// (handle -> calculator).
    PartitionsChanged {
        /// Rises with each change; a plan that read this or a later one covers it.
        generation: u64,
        /// The call that waits for the read, if any.
        ticket: Option<Ticket>,
    },
    /// The store's session changed its health; `Some` says why it is not well
    /// (dv-watch -> calculator).
    StoreHealth(Option<String>),
    /// Calls of the host's code are overdue, in words (dv-calc); `None`: no longer.
    HostCallsOverdue(Option<String>),
    /// The store's circuit breaker changed (its own channel -> dv-calc).
    Breaker(BreakerCondition),
    /// Values in the store were ignored (dv-watch, dv-publish -> calculator).
    Malformed(MalformedValues),
}

/// What a job found or did.
#[derive(Clone, Debug)]
pub enum JobReport {
    /// A plan was published.
    Published(Publication),
    /// The partition list was compared with the published plan.
    Inspected {
        /// The newest change that the look covers.
        generation: u64,
        /// What it found.
        finding: Finding,
    },
    /// The source has not returned yet; [`CalculatorInput::PartitionsChanged`] follows when it has.
    Reading,
    /// The suspicion of a foreign write was looked into.
    Resolved {
        /// Whether a foreign write was found.
        foreign: bool,
    },
    /// A shadow found that the live leader has published, and follows it.
    Followed(Box<Followed>),
    /// The store answered.
    Probed,
}

/// The live leader's publication, from which a shadow continues.
#[derive(Clone, Debug)]
pub struct Followed {
    /// Its workers, in order.
    pub workers: Arc<[WorkerId]>,
    /// How the partitions of the source differ from its; `None` when the source could not be read.
    pub finding: Option<Finding>,
    /// The newest change of the partition list that was covered.
    pub generation: u64,
    /// How it compares with what the shadow would have published.
    pub comparison: Comparison,
}

/// A plan that was published.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Its version.
    pub version: Version,
    /// Its workers, in order.
    pub workers: Arc<[WorkerId]>,
    /// How many partitions it has.
    pub partitions: usize,
    /// How even it is, and how much it moved.
    pub quality: Quality,
    /// The newest change of the partition list that was covered.
    pub generation: u64,
    /// What the source did when the list was read for it.
    pub source: SourceOutcome,
    /// How its assignments stand to the limit of the store.
    pub limit: AssignmentLimit,
}

/// What the partition source did when a publication read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceOutcome {
    /// It returned the list, or the list is pushed.
    Returned,
    /// It failed with this error, so the plan contains the last list.
    Failed(String),
    /// It has not returned yet, so the plan contains the last list.
    /// [`CalculatorInput::PartitionsChanged`] follows, possibly before the end of the publication.
    Running,
}

/// What to do. Each is carried out once, in order.
#[derive(Clone, Debug)]
pub enum CalculatorAction {
    /// Give `dv-publish` a job; at most one is under way.
    Start {
        /// The job's id.
        op: OpId,
        /// The job.
        job: Job,
    },
    /// List the heartbeats, take what it shows into the leases, then report
    /// [`CalculatorInput::Listed`].
    List {
        /// The listing's id.
        op: OpId,
    },
    /// Start watching, from what the take-over found.
    Watch {
        /// Who is alive, and for how long still without another beat.
        alive: Vec<(WorkerId, Duration)>,
        /// Who is suspected and may come back.
        suspected: Vec<WorkerId>,
    },
    /// The worker was removed: forget its lease, so that a later heartbeat is a join.
    Forget(WorkerId),
    /// Notify the subscribers.
    Notify(CalculatorEvent),
    /// Answer the waiting caller.
    Reply {
        /// Who waits.
        ticket: Ticket,
        /// The version in force, or why there is none.
        result: Result<Version, Error>,
    },
}

/// Work for `dv-publish`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Read the partitions, compute a plan for these workers, publish it.
    Publish {
        /// Why.
        reason: Reason,
        /// For whom, in order.
        workers: Arc<[WorkerId]>,
    },
    /// Compare the partition list with the published plan.
    Inspect,
    /// Check whether these writes (key, number) in the assignment bucket are foreign, or whether it
    /// has lost some.
    Resolve {
        /// The writes in question.
        seen: Vec<(String, Revision)>,
        /// The highest term and version that a worker reports as applied.
        applied: Applied,
    },
    /// Make one cheap call to a store that was left alone: its breaker's probe.
    Probe,
}

impl Job {
    /// How long the job may take.
    #[must_use]
    pub fn timeout(&self, config: &CalculatorConfig) -> Duration {
        /// Longer than an answer takes, short enough that a store's return is soon noticed.
        const PROBE: Duration = Duration::from_secs(1);
        match self {
            Job::Probe => config.operation_timeout.min(PROBE),
            _ => config.operation_timeout,
        }
    }
}

/// An event of a calculator.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CalculatorEvent {
    /// The calculator's state changed.
    StateChanged(StateChange),
    /// The membership of a worker changed.
    Member {
        /// How.
        change: MemberChange,
        /// The worker.
        worker: WorkerId,
    },
    /// A live worker has not applied what is assigned to it within
    /// [`CalculatorConfig::apply_timeout`]. Reported once, and again only after it has caught up.
    WorkerLagging(Lagging),
    /// A partition list is held back ([`CalculatorConfig::max_list_shrink`]); `None`: no longer,
    /// because it was applied or the partitions returned.
    ListHeld(Option<HeldList>),
    /// The configuration of a live worker has differed from the leader's for
    /// [`CalculatorConfig::heartbeat_ttl`], or agrees again.
    ConfigMismatch(ConfigMismatch),
    /// A plan was published.
    Published {
        /// Its version.
        version: Version,
        /// Why it was made.
        reason: Reason,
        /// How many workers it has.
        workers: usize,
        /// How many partitions it has.
        partitions: usize,
        /// How even it is, and how much it moved.
        quality: Quality,
    },
    /// A shadow would have published a plan now.
    WouldPublish {
        /// The version that it would have had: one above the live leader's.
        version: Version,
        /// Why.
        reason: Reason,
        /// How many workers it has.
        workers: usize,
        /// How many partitions it has.
        partitions: usize,
        /// How even it is, and how much it would have moved.
        quality: Quality,
    },
    /// The live leader that a shadow watches published a plan.
    LeaderPublished(Box<Comparison>),
    /// A job failed; it stays pending unless the error says otherwise.
    Failed {
        /// What was attempted.
        operation: &'static str,
        /// Why it failed.
        error: Error,
    },
    /// A malformed value in the store was ignored. Each key is reported once in
    /// [`CalculatorConfig::malformed_window`], and at most
    /// [`CalculatorConfig::malformed_threshold`] keys.
    Malformed(MalformedValue),
    /// A published plan leaves partitions without an owner because assignments would be too large
    /// for the store, or the loss of one worker would lead there; or neither any more.
    AssignmentLimit {
        /// The version of the plan.
        version: Version,
        /// What is the case.
        limit: AssignmentLimit,
    },
    /// What keeps the calculator from doing its whole work changed; empty: nothing does.
    Degraded(Degraded),
    /// The store's circuit breaker opened (calls fail at once, nothing is published), lets one
    /// call through as a probe, or closed again.
    Breaker(BreakerCondition),
    /// A newer leader has taken over, or the fence record was removed (its bucket was purged or created
    /// again). This calculator publishes nothing more.
    LeadershipLost,
    /// The subscriber was too slow and is closed; this is its last event.
    Lagged {
        /// Number of events that it missed.
        missed: u64,
    },
    /// A thread of the calculator panicked; the handle has failed. The last event.
    Fatal {
        /// What is known about it.
        message: String,
    },
}

impl fmt::Display for CalculatorEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CalculatorEvent::StateChanged(change) => {
                write!(f, "state {} -> {}", change.from, change.to)?;
                change
                    .reason
                    .map_or(Ok(()), |reason| write!(f, " ({reason})"))
            }
            CalculatorEvent::Member { change, worker } => match change {
                MemberChange::Dead => write!(f, "{worker} was declared dead"),
                MemberChange::Suspected => write!(f, "{worker} is suspected: its lease expired"),
                MemberChange::Joined | MemberChange::Left | MemberChange::Returned => {
                    write!(f, "{worker} {change}")
                }
            },
            CalculatorEvent::WorkerLagging(lagging) => lagging.fmt(f),
            CalculatorEvent::ListHeld(Some(held)) => write!(f, "partition list held back: {held}"),
            CalculatorEvent::ListHeld(None) => f.write_str("no partition list is held back"),
            CalculatorEvent::ConfigMismatch(mismatch) => mismatch.fmt(f),
            CalculatorEvent::Published {
                version,
                reason,
                workers,
                partitions,
                quality,
            }
            | CalculatorEvent::WouldPublish {
                version,
                reason,
                workers,
                partitions,
                quality,
            } => write!(
                f,
                "{} version {version} ({reason}): {workers} workers, {} of {partitions} partitions \
                 moved",
                match self {
                    CalculatorEvent::Published { .. } => "published",
                    _ => "would publish",
                },
                quality.moved_partitions
            ),
            CalculatorEvent::LeaderPublished(comparison) => comparison.fmt(f),
            CalculatorEvent::Failed { operation, error } => {
                write!(f, "{operation} failed: {error}; retrying")
            }
            CalculatorEvent::Malformed(value) => value.fmt(f),
            CalculatorEvent::AssignmentLimit { limit, .. } if limit.to_string().is_empty() => {
                f.write_str("every assignment is within the store's limit again")
            }
            CalculatorEvent::AssignmentLimit { limit, .. } => limit.fmt(f),
            CalculatorEvent::Degraded(degraded) if degraded.is_empty() => {
                f.write_str("no longer degraded")
            }
            CalculatorEvent::Degraded(degraded) => {
                write!(f, "degraded: {}", degraded.sentences().join("; "))
            }
            CalculatorEvent::Breaker(condition) => condition.fmt(f),
            CalculatorEvent::LeadershipLost => f.write_str(
                "leadership lost: a newer leader has taken over, or the fence was removed",
            ),
            CalculatorEvent::Lagged { missed } => {
                write!(
                    f,
                    "subscriber closed: it was too slow and missed {missed} events"
                )
            }
            CalculatorEvent::Fatal { message } => write!(f, "failed: {message}"),
        }
    }
}

/// A state change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// The previous state; equal to `to` in the first event, which carries the current state.
    pub from: CalculatorState,
    /// The state now.
    pub to: CalculatorState,
    /// Why; `None` in `Idle`.
    pub reason: Option<Reason>,
    /// The version last published; 0 when there is none.
    pub version: Version,
    /// When, by the calculator's clock.
    pub time: Time,
}

/// One reason why the calculator cannot do all of its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Degradation {
    /// What kind of reason.
    pub cause: DegradationCause,
    /// What is known about it, such as the error of the store; may be empty.
    pub detail: String,
}

impl Degradation {
    /// A reason of which nothing more is known.
    #[must_use]
    pub fn new(cause: DegradationCause) -> Self {
        Self::with_detail(cause, String::new())
    }

    /// A reason with what is known about it.
    #[must_use]
    pub fn with_detail(cause: DegradationCause, detail: String) -> Self {
        Self { cause, detail }
    }

    /// What still works.
    #[must_use]
    pub fn still_works(&self) -> &'static str {
        match self.cause {
            DegradationCause::WatchLost => {
                "no worker is declared dead; plans use the workers last observed"
            }
            DegradationCause::Store => {
                "workers keep their assignments; pending work is done when the store returns"
            }
            DegradationCause::Publishing => "workers keep their assignments; publishing is retried",
            DegradationCause::Source => {
                "the last partition list stays in force; the source is read again"
            }
            DegradationCause::Malformed => "malformed values are ignored",
            DegradationCause::Deposed => "the new leader publishes; this calculator only watches",
            DegradationCause::HostCall => "plans are made of the last list while the source hangs",
            DegradationCause::Planning => {
                "workers keep their assignments; a manager hands leadership over"
            }
            DegradationCause::Unassigned => "all other partitions have an owner",
        }
    }
}

impl fmt::Display for Degradation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.cause {
            DegradationCause::WatchLost => "heartbeat watch lost",
            DegradationCause::Store => "store unhealthy",
            DegradationCause::Publishing => "publish failed",
            DegradationCause::Source => "partition source failed",
            DegradationCause::Malformed => "too many malformed values",
            DegradationCause::Deposed => "a newer leader has taken over, or the fence was removed",
            DegradationCause::HostCall => "host call overdue",
            DegradationCause::Planning => "no plan could be made within planning_timeout",
            DegradationCause::Unassigned => "assignments exceed the store's limit",
        })?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

/// Everything that keeps the calculator from doing its whole work, as a list; empty: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Degraded {
    /// What it is.
    pub reasons: Vec<Degradation>,
    /// Since when the first of it lasts, by the calculator's clock; `None`: there is nothing.
    pub since: Option<Time>,
}

impl Degraded {
    /// Each reason and what still works, one sentence each.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let sentences = self.reasons.iter();
        sentences
            .map(|reason| format!("{reason} ({})", reason.still_works()))
            .collect()
    }
}

impl Deref for Degraded {
    type Target = [Degradation];

    fn deref(&self) -> &[Degradation] {
        &self.reasons
    }
}

/// What is pending, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Why the next plan will be made; `None`: nothing is pending.
    pub reason: Option<Reason>,
    /// How long until then; `None` when it waits for something other than time.
    pub due_in: Option<Duration>,
}

//! A publisher that writes nothing: it reads what the live leader publishes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{ActiveMode, Publish, Publisher, Resolved, TakeOverResult, next_number};
use crate::error::{Code, Error, Result};
use crate::machine::publication::{BucketReading, Content};
use crate::strategy::Plan;
use crate::types::{Partition, Reason, Revision, Term, Version, WorkerId};
use crate::wire::{Applied, Assignment};

/// Delay before the next read while the stored plan may be incomplete.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// After this many reads without a change the publication is considered complete.
const QUIET_LOOKS: u32 = 12;

/// No leader's term: to a shadow every write is foreign.
const NO_TERM: Term = -1;

/// Reads like a publisher and never writes. Its version and term are the live leader's.
#[derive(Debug)]
pub struct Shadow {
    reader: Publisher,
}

/// What the live leader has published.
#[derive(Debug)]
pub struct Live {
    /// When it was first read.
    pub seen: Instant,
    /// Its version.
    pub version: Version,
    /// The term it was published in; `None` for a leader without terms.
    pub term: Option<Term>,
    /// Why it was made.
    pub lifecycle: String,
    /// The assignments.
    pub stored: Vec<(WorkerId, Vec<Partition>)>,
    /// Whether they are one complete plan.
    pub is_whole: bool,
}

impl Shadow {
    /// A shadow that reads what this publisher would.
    #[must_use]
    pub fn of(reader: Publisher) -> Self {
        Self { reader }
    }

    /// Reads the bucket. A leader without terms writes key by key without a completion record: its
    /// plan counts once nothing has changed for a while.
    fn read(&self, deadline: Instant) -> Result<BucketReading> {
        let mut reading = self.reader.read_all(deadline)?;
        let mut quiet = 0;
        while (reading.is_foreign() || !reading.is_one_publication()) && quiet < QUIET_LOOKS {
            if !self.reader.environment.pause(LOOK_AGAIN) {
                return Err(Error::new(Code::NotRunning, "stopped while reading"));
            }
            let newer = self.reader.read_all(deadline)?;
            let is_same = newer.last_sequence == reading.last_sequence;
            quiet = if is_same { quiet + 1 } else { 0 };
            reading = newer;
        }
        Ok(reading)
    }

    fn learn(&mut self, reading: BucketReading) {
        let fence = reading.fence.value.as_ref();
        self.reader.term = fence.map_or(0, |fence| fence.term);
        self.reader.in_force.set_term(NO_TERM);
        self.reader.see_version(reading.highest_version);
        self.reader.known = reading;
    }

    fn take_stored(&mut self) -> Vec<(WorkerId, Vec<Partition>)> {
        let stored = std::mem::take(&mut self.reader.known.stored);
        let bare = |(worker, assignment): (WorkerId, Assignment)| (worker, assignment.partitions);
        stored.into_iter().map(bare).collect()
    }
}

impl Publish for Shadow {
    /// Learns what is stored and who is alive. Takes nothing over.
    fn take_over(&mut self, deadline: Instant) -> Result<TakeOverResult> {
        let mut reading = self.read(deadline)?;
        let max = reading.plausible_max();
        let beats = self.reader.read_beats(max, deadline)?;
        let consistent = reading.is_one_publication();
        let malformed = std::mem::take(&mut reading.malformed).with(beats.malformed);
        self.learn(reading);
        Ok(TakeOverResult {
            term: self.reader.term,
            version: self.reader.version,
            consistent,
            // The current leader is not disturbed.
            former_leader: None,
            store_returned: None,
            malformed,
            heartbeats: beats.heartbeats,
            stored: self.take_stored(),
        })
    }

    /// Returns the version that the plan would get.
    fn publish(&mut self, plan: &Plan, _: Reason, _: Instant) -> Result<Version> {
        if plan.workers().is_empty() {
            return Err(Error::new(
                Code::NoWorkers,
                "no live worker: nothing would be published",
            ));
        }
        next_number("version", self.reader.version)
    }

    fn assignment_limit(&mut self, _: usize, _: Instant) -> Result<usize> {
        Ok(0)
    }

    fn observe_applied(&mut self, applied: Applied) {
        self.reader.observe_applied(applied);
    }

    fn resolve(&mut self, _: &[(String, Revision)], deadline: Instant) -> Result<Resolved> {
        let seen = Instant::now();
        let reading = self.read(deadline)?;
        let newest = reading.stored.iter().max_by_key(|(_, a)| a.version);
        let (version, term, lifecycle) = match newest {
            Some((_, a)) => (a.version, a.term, a.lifecycle.clone()),
            None => (reading.highest_version, None, String::new()),
        };
        let is_whole = reading.is_one_publication();
        let is_change = content_of(&reading) != content_of(&self.reader.known);
        self.learn(reading);
        let stored = self.take_stored();
        if !is_change {
            return Ok(Resolved::Known);
        }
        Ok(Resolved::Live(Box::new(Live {
            seen,
            version,
            term,
            lifecycle,
            stored,
            is_whole,
        })))
    }

    fn probe(&self, deadline: Instant) -> Result<()> {
        self.reader.probe(deadline)
    }

    fn is_shadow(&self) -> bool {
        true
    }

    fn term(&self) -> Term {
        self.reader.term
    }

    fn probe_result(&self) -> Option<(ActiveMode, &str)> {
        None
    }
}

/// What workers read: the version, and what each of them holds.
fn content_of(reading: &BucketReading) -> (Version, BTreeMap<&WorkerId, Content>) {
    let contents = reading.slots.iter();
    let contents = contents.map(|(worker, slot)| (worker, slot.content));
    (reading.highest_version, contents.collect())
}

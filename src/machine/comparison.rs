//! Compares a publication of the live leader with the shadow's plan.

use std::fmt;
use std::time::Duration;

use crate::strategy::{Plan, Quality, diff, quality};
use crate::types::{Reason, Term, Version, WorkerId};

/// What the live leader published, and how a shadow compares it with its own plan.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// The leader's version.
    pub version: Version,
    /// The term it published in; `None` for a leader without terms (parti's).
    pub term: Option<Term>,
    /// Why the leader published, in its own word.
    pub lifecycle: String,
    /// How many workers its plan has.
    pub workers: usize,
    /// How many partitions its plan has.
    pub partitions: usize,
    /// Whether what it wrote is one complete plan: of one version, readable, nothing owned twice.
    pub is_whole: bool,
    /// How even its plan is, and how much it moved.
    pub quality: Quality,
    /// What the shadow would have published before it saw this; `None`: nothing yet.
    pub intended: Option<Intended>,
    /// How the shadow's plan differs: the one it would have published, or else one made now for
    /// the leader's workers. `None` when there is none, since the partitions could not be read.
    pub difference: Option<Difference>,
}

/// What a shadow would have published, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intended {
    /// The version that it would have had.
    pub version: Version,
    /// Why.
    pub reason: Reason,
    /// How long before the leader's publication was seen.
    pub ahead: Duration,
}

/// How the shadow's plan differs from the leader's.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Partitions that the shadow gives to another worker.
    pub elsewhere: usize,
    /// Partitions that only the shadow's plan has: the leader left them unassigned.
    pub left_out: usize,
    /// Partitions that only the leader's plan has: they are not in the shadow's list.
    pub unknown: usize,
    /// Workers that only the leader's plan has.
    pub leaders_workers: Vec<WorkerId>,
    /// Workers that only the shadow's plan has.
    pub shadows_workers: Vec<WorkerId>,
    /// How even the shadow's plan is, and how much it would have moved.
    pub quality: Quality,
}

impl Difference {
    /// Compares two plans; `before` is the leader's previous one, which both start from.
    #[must_use]
    pub fn between(shadows: &Plan, leaders: &Plan, before: Option<&Plan>) -> Self {
        let difference = diff(shadows, leaders);
        let only = |of: &Plan, other: &Plan| {
            let is_only = |worker: &&WorkerId| other.workers().binary_search(worker).is_err();
            of.workers().iter().filter(is_only).cloned().collect()
        };
        Self {
            elsewhere: difference.moved,
            left_out: difference.removed,
            unknown: difference.added,
            leaders_workers: only(leaders, shadows),
            shadows_workers: only(shadows, leaders),
            quality: quality(shadows, before, &[]),
        }
    }

    /// Whether both plans give the same partitions to the same workers.
    #[must_use]
    pub fn is_none(&self) -> bool {
        let counts = self.elsewhere + self.left_out + self.unknown;
        counts == 0 && self.leaders_workers.is_empty() && self.shadows_workers.is_empty()
    }
}

impl Comparison {
    /// Whether the leader published one complete plan, equal to the shadow's. `intended` says when
    /// the shadow arrived at it.
    #[must_use]
    pub fn agrees(&self) -> bool {
        let difference = self.difference.as_ref();
        self.is_whole && difference.is_some_and(Difference::is_none)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quality = &self.quality;
        write!(
            f,
            "the leader published version {} ({}){}: {} partitions on {} workers, {} moved",
            self.version,
            self.lifecycle,
            self.term
                .map(|t| format!(" in term {t}"))
                .unwrap_or_default(),
            self.partitions,
            self.workers,
            quality.moved_partitions,
        )?;
        if !self.is_whole {
            f.write_str(", not one complete plan")?;
        }
        match &self.intended {
            None => f.write_str("; the shadow had not come to it yet")?,
            Some(intended) => write!(
                f,
                "; the shadow would have ({}) {:.1?} before",
                intended.reason, intended.ahead
            )?,
        }
        match &self.difference {
            None => f.write_str("; it has no plan to compare"),
            Some(difference) if difference.is_none() => f.write_str("; both plans are the same"),
            Some(difference) => write!(f, "; {difference}"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "its plan places {} partitions differently and moves {}",
            self.elsewhere, self.quality.moved_partitions
        )?;
        let counts = [
            (self.left_out, "partitions that the leader left out"),
            (self.unknown, "partitions of the leader not in its list"),
        ];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        let lists = [
            (&self.leaders_workers, "not for"),
            (&self.shadows_workers, "also for"),
        ];
        for (workers, how) in lists.into_iter().filter(|(list, _)| !list.is_empty()) {
            let names: Vec<&str> = workers.iter().take(5).map(WorkerId::as_str).collect();
            let more = if workers.len() > 5 { ", …" } else { "" };
            write!(f, ", {how} {}{more}", names.join(", "))?;
        }
        Ok(())
    }
}

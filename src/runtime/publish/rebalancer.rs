//! The jobs of `dv-publish`: read the partitions, compute a plan, publish it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use self::follow::Intention;
use crate::error::{Code, Error, Result};
use crate::machine::calculator::{Finding, Job, JobReport, Publication};
use crate::machine::takeover::TakeOver;
use crate::metrics::{AssignmentMetrics, NoMetrics, PublishedAs, PublishedPlan, Step};
use crate::runtime::common::metrics_sink::publish_mode_label;
use crate::runtime::publish::publisher::{Publish, Publisher, Resolved, TakeOverResult};
use crate::strategy::{Plan, PlanInput, Strategy, canonical_partitions, quality};
use crate::types::{Partition, Reason, WorkerId};

/// Where the partition list comes from when it is pulled.
///
/// Called on the thread `dv-publish`: at the start, at every rebalance and at `refresh`. It may
/// take time; a rebalance waits for it. An error or a panic keeps the last plan and is retried.
pub trait PartitionSource: Send + Sync {
    /// All partitions: unique by keys, each with at least one key, in any order.
    ///
    /// # Errors
    /// Whatever keeps the source from metrics_sink; the last plan stays and this is retried.
    fn list_partitions(&self, deadline: Instant) -> Result<Vec<Partition>>;
}

impl<F> PartitionSource for F
where
    F: Fn() -> Result<Vec<Partition>> + Send + Sync,
{
    fn list_partitions(&self, _deadline: Instant) -> Result<Vec<Partition>> {
        self()
    }
}

impl<S: PartitionSource> PartitionSource for Arc<S> {
    fn list_partitions(&self, deadline: Instant) -> Result<Vec<Partition>> {
        (**self).list_partitions(deadline)
    }
}

/// The partition list: pulled from a source, or pushed by the host. Shared with the handle.
pub struct Partitions {
    source: Option<Arc<dyn PartitionSource>>,
    pushed: Mutex<Option<Arc<[Partition]>>>,
    generation: AtomicU64,
}

impl Partitions {
    /// A list that is read from `source` whenever it is needed.
    #[must_use]
    pub fn pulled(source: Arc<dyn PartitionSource>) -> Self {
        Self {
            source: Some(source),
            pushed: Mutex::new(None),
            generation: AtomicU64::new(0),
        }
    }

    /// A list that the host pushes.
    #[must_use]
    pub fn pushed() -> Self {
        Self {
            source: None,
            pushed: Mutex::new(None),
            generation: AtomicU64::new(0),
        }
    }

    /// Whether there is a list at all.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.source.is_some() || self.pushed.lock().is_some()
    }

    /// Takes a pushed list and returns the number of this change.
    ///
    /// # Errors
    /// `InvalidArgument` for duplicates and partitions without keys, and when the list is pulled.
    pub fn push(&self, list: Vec<Partition>) -> Result<u64> {
        if self.source.is_some() {
            return Err(Error::new(
                Code::InvalidArgument,
                "this calculator reads its partitions from a source; use refresh instead",
            ));
        }
        let list: Arc<[Partition]> = canonical_partitions(list)?.into();
        *self.pushed.lock() = Some(list);
        Ok(self.touch())
    }

    /// Notes that the list may have changed and returns the number of this change.
    pub fn touch(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The list in canonical order, and the newest change that it covers.
    fn read(&self, deadline: Instant) -> Result<(Arc<[Partition]>, u64)> {
        // Before the list: a change while it is read must not count as covered.
        let generation = self.generation.load(Ordering::Acquire);
        let Some(source) = &self.source else {
            let pushed = self.pushed.lock().clone();
            let list = pushed.ok_or_else(|| {
                Error::new(Code::SourceFailed, "no partition list was pushed yet")
            })?;
            return Ok((list, generation));
        };
        let list = guarded(Code::SourceFailed, "partition source", || {
            source.list_partitions(deadline)
        })?;
        let list = canonical_partitions(list)
            .map_err(|error| Error::new(Code::SourceFailed, error.message()))?;
        Ok((list.into(), generation))
    }
}

impl std::fmt::Debug for Partitions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partitions")
            .field("pulled", &self.source.is_some())
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// Carries out the jobs, one at a time.
pub struct Rebalancer {
    publisher: Box<dyn Publish>,
    partitions: Arc<Partitions>,
    strategy: Arc<dyn Strategy>,
    default_weight: i64,
    former_leader_lease_over: bool,
    /// The plan last published or found at the start.
    plan: Option<Plan>,
    metrics: Arc<dyn AssignmentMetrics>,
    /// In a shadow: how that plan came to be, until the live leader publishes one.
    intended: Option<Intention>,
}

impl Rebalancer {
    /// A rebalancer that has not taken over yet.
    pub fn new(
        publisher: Publisher,
        partitions: Arc<Partitions>,
        strategy: Arc<dyn Strategy>,
        default_weight: i64,
        former_leader_lease_over: bool,
    ) -> Self {
        let publisher = Box::new(publisher);
        Self::over(
            publisher,
            partitions,
            strategy,
            default_weight,
            former_leader_lease_over,
        )
    }

    /// A rebalancer over any publisher, that of a shadow included.
    pub fn over(
        publisher: Box<dyn Publish>,
        partitions: Arc<Partitions>,
        strategy: Arc<dyn Strategy>,
        default_weight: i64,
        former_leader_lease_over: bool,
    ) -> Self {
        Self {
            publisher,
            partitions,
            strategy,
            default_weight,
            former_leader_lease_over,
            plan: None,
            intended: None,
            metrics: Arc::new(NoMetrics),
        }
    }

    /// Has what it does told.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Arc<dyn AssignmentMetrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// The publisher.
    #[must_use]
    pub fn publisher(&self) -> &dyn Publish {
        self.publisher.as_ref()
    }

    /// The plan last published or found at the start.
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// Takes over and learns what there is. A source that fails does not keep it from that.
    ///
    /// # Errors
    /// As [`Publisher::take_over`].
    pub fn take_over(&mut self, deadline: Instant) -> Result<(TakeOver, u32)> {
        let found = self.publisher.take_over(deadline)?;
        if let Some(class) = self.publish_mode_label() {
            self.metrics.took_over(found.term, found.version, class);
        }
        let (plan, is_whole) = match plan_of(&found.stored) {
            Some((plan, is_whole)) => (Some(plan), is_whole),
            None => (None, found.stored.is_empty()),
        };
        let (finding, generation) = match self.partitions.read(deadline) {
            Ok((list, generation)) => {
                let finding = match &plan {
                    Some(plan) => self.compare(plan, &list),
                    None => Finding::Changed,
                };
                (Some(finding), generation)
            }
            Err(error) => {
                log::warn!(target: "divvy::calculator", "no partition list at the start: {error}");
                (None, 0)
            }
        };
        let malformed = found.malformed;
        let take_over = self.take_over_of(found, is_whole, finding, generation);
        self.plan = plan;
        Ok((take_over, malformed))
    }

    fn take_over_of(
        &self,
        found: TakeOverResult,
        is_whole: bool,
        finding: Option<Finding>,
        generation: u64,
    ) -> TakeOver {
        TakeOver {
            term: found.term,
            version: found.version,
            consistent: found.consistent && is_whole,
            planned: found.stored.into_iter().map(|(worker, _)| worker).collect(),
            finding,
            heartbeats: found.heartbeats,
            former_leader: found.former_leader,
            former_leader_lease_over: self.former_leader_lease_over,
            generation,
        }
    }

    /// Carries out one job.
    ///
    /// # Errors
    /// `SourceFailed`, `StrategyFailed`, `InvalidPlan`, and those of [`Publisher::publish`]. After
    /// an error the last plan stays.
    pub fn run(&mut self, job: Job, deadline: Instant) -> Result<JobReport> {
        match job {
            Job::Publish { reason, workers } => self.publish(reason, workers, deadline),
            Job::Inspect => {
                let (list, generation) = self.partitions.read(deadline)?;
                let finding = match &self.plan {
                    Some(plan) => self.compare(plan, &list),
                    None => Finding::Changed,
                };
                Ok(JobReport::Inspected {
                    generation,
                    finding,
                })
            }
            Job::Resolve { seen, applied } => {
                self.publisher.heed(applied);
                Ok(match self.publisher.resolve(&seen, deadline)? {
                    Resolved::Known => JobReport::Resolved { foreign: false },
                    Resolved::Foreign => JobReport::Resolved { foreign: true },
                    Resolved::Live(live) => {
                        JobReport::Followed(Box::new(self.follow(*live, deadline)))
                    }
                })
            }
            Job::Probe => {
                self.publisher.probe(deadline)?;
                Ok(JobReport::Probed)
            }
        }
    }

    fn publish(
        &mut self,
        reason: Reason,
        workers: Arc<[WorkerId]>,
        deadline: Instant,
    ) -> Result<JobReport> {
        let read = self.timed(Step::List, || self.partitions.read(deadline));
        let (list, generation) = read?;
        let plan = self.timed(Step::Compute, || self.compute(&workers, list))?;
        let begun = Instant::now();
        let published = self.publisher.publish(&plan, reason, deadline);
        self.metrics.step(Step::Publish, begun.elapsed());
        let version = published?;
        let quality = quality(&plan, self.plan.as_ref(), &[]);
        let partitions = plan.partitions().len();
        if let Some(class) = self.publish_mode_label() {
            self.metrics.published(&PublishedPlan {
                version,
                term: self.publisher.term(),
                class,
                workers: workers.len(),
                partitions,
                moved: quality.moved_partitions,
                moved_share: quality.moved,
                max_to_mean: quality.max_to_mean,
            });
        }
        self.replace_plan(plan, version, reason);
        Ok(JobReport::Published(Publication {
            version,
            workers,
            partitions,
            quality,
            generation,
        }))
    }

    /// The class it publishes in; `None` for a shadow, which publishes nothing.
    fn publish_mode_label(&self) -> Option<PublishedAs> {
        self.publisher
            .probe_result()
            .map(|(class, _)| publish_mode_label(class))
    }

    /// Carries out a part of a rebalance and tells how long it took.
    fn timed<T>(&self, step: Step, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = work();
        self.metrics.step(step, begun.elapsed());
        result
    }

    fn compute(&self, workers: &Arc<[WorkerId]>, list: Arc<[Partition]>) -> Result<Plan> {
        let previous = match &self.plan {
            Some(plan) => plan.previous_for(workers, &list),
            None => vec![None; list.len()],
        };
        let owners = guarded(Code::StrategyFailed, "strategy", || {
            self.strategy.assign(&PlanInput {
                workers,
                partitions: &list,
                previous: &previous,
            })
        })?;
        Plan::new(Arc::clone(workers), list, owners)
    }

    fn compare(&self, plan: &Plan, list: &[Partition]) -> Finding {
        let ours = plan.partitions();
        let same_keys =
            ours.len() == list.len() && ours.iter().zip(list).all(|(a, b)| a.keys == b.keys);
        if !same_keys {
            return Finding::Changed;
        }
        if ours.iter().zip(list).all(|(a, b)| a.weight == b.weight) {
            return Finding::Same;
        }
        Finding::Reweighted {
            excess: self.excess(plan, list),
        }
    }

    /// By what share the fullest worker would exceed the fair level under the new weights. A
    /// partition that alone is heavier than that is no reason for a new plan, which could not
    /// divide it.
    fn excess(&self, plan: &Plan, list: &[Partition]) -> f64 {
        let weight_of = |p: &Partition| match p.weight {
            weight if weight > 0 => weight,
            _ => self.default_weight,
        };
        let reweighted: Arc<[Partition]> = list
            .iter()
            .map(|p| Partition::new(p.keys.iter().cloned(), weight_of(p)))
            .collect();
        let workers = Arc::clone(plan.workers());
        let Ok(reweighted) = Plan::new(workers, reweighted, plan.owners().to_vec()) else {
            return f64::INFINITY; // not the plan's partitions after all: worth a new plan
        };
        let quality = quality(&reweighted, None, &[]);
        let least = quality.fair.max(quality.lower_bound * quality.mean);
        if least > 0.0 {
            quality.max_to_mean * quality.mean / least - 1.0
        } else {
            0.0
        }
    }
}

/// The stored assignments as a plan, and whether they are one: a publication that was cut short
/// may leave a partition with two workers (the first, by id, counts as its owner), and a foreign
/// leader one without keys. `None` when nothing is stored.
fn plan_of(stored: &[(WorkerId, Vec<Partition>)]) -> Option<(Plan, bool)> {
    if stored.is_empty() {
        return None;
    }
    let workers: Arc<[WorkerId]> = stored.iter().map(|(worker, _)| worker.clone()).collect();
    let mut held: Vec<(&Partition, u32)> = (0_u32..)
        .zip(stored)
        .flat_map(|(index, (_, partitions))| partitions.iter().map(move |p| (p, index)))
        .collect();
    let count = held.len();
    held.retain(|(partition, _)| !partition.keys.is_empty());
    held.sort_by(|a, b| a.0.keys.cmp(&b.0.keys)); // stable: in order of worker within
    held.dedup_by(|later, first| later.0.keys == first.0.keys);
    let owners = held.iter().map(|&(_, owner)| owner).collect();
    let partitions: Arc<[Partition]> = held
        .iter()
        .map(|&(partition, _)| partition.clone())
        .collect();
    let plan = Plan::new(workers, partitions, owners).ok()?;
    Some((plan, held.len() == count))
}

/// Calls the host's code; a panic in it becomes an error.
fn guarded<T>(code: Code, who: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if error.code() == code => Err(error),
        Ok(Err(error)) => Err(Error::new(code, format!("{who} failed")).caused_by(error)),
        Err(panic) => Err(Error::new(
            code,
            format!("{who} panicked: {}", panic_text(panic.as_ref())),
        )),
    }
}

/// What a panic said, where it said something.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

impl std::fmt::Debug for Rebalancer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rebalancer")
            .field("publisher", &self.publisher)
            .field("strategy", &self.strategy.name())
            .finish_non_exhaustive()
    }
}

mod follow;
#[cfg(test)]
mod tests;

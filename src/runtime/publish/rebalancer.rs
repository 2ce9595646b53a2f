//! The jobs of `dv-publish`: read the partitions, compute a plan, publish it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::follow::Intention;
use super::host_call::guarded;
use super::list_reader::{DirectReader, ListReader};
use super::partition_list::Partitions;
use super::publisher::{Publish, Publisher, Resolved, TakeOverResult};
use crate::config::CalculatorConfig;
use crate::error::{Code, Error, Result};
use crate::machine::calculator::{Finding, Job, JobReport, Publication, SourceOutcome};
use crate::machine::fit::{AssignmentLimit, AssignmentSizes, fit};
use crate::machine::list_guard::{HeldList, Judgement, ListGuard};
use crate::machine::plausible::MalformedValues;
use crate::machine::takeover::TakeOver;
use crate::metrics::{ActiveMode, AssignmentMetrics, NoMetrics, PublishedPlan, Step};
use crate::strategy::{Plan, PlanInput, Strategy, quality};
use crate::time::clock::{Clock, SystemClock};
use crate::types::{Partition, Reason, Time, WorkerId};

/// Carries out the jobs, one at a time.
pub struct Rebalancer {
    publisher: Box<dyn Publish>,
    partitions: Arc<Partitions>,
    strategy: Arc<dyn Strategy>,
    default_weight: i64,
    former_leader_lease_over: bool,
    /// The plan last published or found at the start.
    plan: Option<Plan>,
    /// The limit of the store that it was fitted to.
    limit: usize,
    metrics: Arc<dyn AssignmentMetrics>,
    /// Reads the partition source.
    reader: Box<dyn ListReader>,
    /// How long a rebalance waits for the source while there is a list to work with.
    source_wait: Duration,
    /// The list for plans while the source fails or hangs: the last one that it returned, the change
    /// that it covers, and when it was read. Before that the list of the complete plan that a
    /// take-over found.
    last_list: Option<(Arc<[Partition]>, u64, Option<Time>)>,
    /// Holds back shrunken lists.
    guard: ListGuard,
    clock: Arc<dyn Clock>,
    /// In a shadow: the reason and source of that plan, until the live leader publishes one.
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
            limit: 0,
            reader: Box::new(DirectReader),
            source_wait: Duration::MAX,
            last_list: None,
            guard: ListGuard::new(1.0, Duration::ZERO),
            clock: Arc::new(SystemClock),
            intended: None,
            metrics: Arc::new(NoMetrics),
        }
    }

    /// Sets the receiver of metrics.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Arc<dyn AssignmentMetrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// Sets the guard that holds back shrunken lists.
    #[must_use]
    pub fn with_list_guard(mut self, config: &CalculatorConfig, clock: Arc<dyn Clock>) -> Self {
        self.guard = ListGuard::new(config.max_list_shrink, config.list_shrink_hold);
        self.clock = clock;
        self
    }

    /// Reads the source through `reader`, and waits for it for `source_wait` while there is a list
    /// to work with.
    #[must_use]
    pub fn with_reader(mut self, reader: impl ListReader + 'static, source_wait: Duration) -> Self {
        self.reader = Box::new(reader);
        self.source_wait = source_wait;
        self
    }

    /// When the source returned the last list; `None`: never, or the list is pushed.
    #[must_use]
    pub fn list_read_at(&self) -> Option<Time> {
        self.last_list.as_ref().and_then(|&(_, _, at)| at)
    }

    /// The list that is held back.
    #[must_use]
    pub fn held_list(&self) -> Option<HeldList> {
        self.guard.held(self.clock.now())
    }

    /// Returns the time until the held list must be read again.
    #[must_use]
    pub fn held_list_due_in(&self) -> Option<Duration> {
        self.guard.due().map(|due| due.since(self.clock.now()))
    }

    /// Notes that the list may have changed and returns the number of this change.
    #[must_use]
    pub fn touch_list(&self) -> u64 {
        self.partitions.touch()
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
    pub fn take_over(&mut self, deadline: Instant) -> Result<(TakeOver, MalformedValues)> {
        let mut found = self.publisher.take_over(deadline)?;
        if let Some(mode) = self.publish_mode() {
            self.metrics.took_over(found.term, found.version, mode);
        }
        let (plan, is_whole) = match plan_of(&found.stored) {
            Some((plan, is_whole)) => (Some(plan), is_whole),
            None => (None, found.stored.is_empty()),
        };
        if let Some(plan) = plan.as_ref().filter(|_| found.consistent && is_whole)
            && self.last_list.is_none()
        {
            self.last_list = Some((Arc::clone(plan.partitions()), 0, None));
        }
        // A start never waits for a source that hangs.
        let (finding, generation) = match self.read_list(self.within_source_wait(deadline)) {
            Ok(Some((list, generation))) => {
                let list = self.admit(plan.as_ref(), list);
                let finding = match &plan {
                    Some(plan) => self.compare(plan, &list),
                    None => Finding::Changed,
                };
                (Some(finding), generation)
            }
            Ok(None) => (None, 0),
            Err(error) => {
                log::warn!(target: "divvy::calculator", "partition source failed at start, keeping the stored plan: {error}");
                (None, 0)
            }
        };
        let malformed = std::mem::take(&mut found.malformed);
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
            store_returned: found.store_returned,
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
                let Some((list, generation)) = self.read_list(self.source_deadline(deadline))?
                else {
                    return Ok(JobReport::Reading);
                };
                let plan = self.plan.take();
                let list = self.admit(plan.as_ref(), list);
                self.plan = plan;
                let has_room = self.has_more_room(deadline)?;
                let finding = match &self.plan {
                    Some(plan) if !has_room => self.compare(plan, &list),
                    _ => Finding::Changed,
                };
                Ok(JobReport::Inspected {
                    generation,
                    finding,
                })
            }
            Job::Resolve { seen, applied } => {
                self.publisher.observe_applied(applied);
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
        let begun = Instant::now();
        let read = self.list_to_publish(deadline);
        self.metrics.step(Step::List, begun.elapsed());
        let ListToPublish {
            list,
            generation,
            source,
        } = read?;
        let in_force = self.plan.take();
        let list = self.admit(in_force.as_ref(), list);
        self.plan = in_force;
        let plan = self.timed(Step::Compute, || self.compute(&workers, list))?;
        let (plan, limit) = self.fit(plan, deadline)?;
        let begun = Instant::now();
        let published = self.publisher.publish(&plan, reason, deadline);
        self.metrics.step(Step::Publish, begun.elapsed());
        let version = published?;
        let quality = quality(&plan, self.plan.as_ref(), &[]);
        let partitions = plan.partitions().len();
        if let Some(mode) = self.publish_mode() {
            self.metrics.published(&PublishedPlan {
                version,
                term: self.publisher.term(),
                mode,
                workers: workers.len(),
                partitions,
                moved: quality.moved_partitions,
                moved_share: quality.moved,
                max_to_mean: quality.max_to_mean,
                limit_ratio: limit.sizes.ratio(),
                limit_after_loss_ratio: limit.sizes.ratio_after_loss(),
            });
        }
        self.replace_plan(plan, version, reason);
        self.limit = limit.sizes.limit;
        self.guard.in_force();
        Ok(JobReport::Published(Publication {
            version,
            workers,
            partitions,
            quality,
            generation,
            source,
            limit,
        }))
    }

    /// Leaves out what exceeds the limit of the store.
    fn fit(&mut self, plan: Plan, deadline: Instant) -> Result<(Plan, AssignmentLimit)> {
        let mut sizes = AssignmentSizes::of(&plan);
        sizes.limit = self.publisher.assignment_limit(sizes.largest, deadline)?;
        let plan = match sizes.is_exceeded() {
            true => fit(plan, self.plan.as_ref(), sizes.limit)?,
            false => plan,
        };
        let unassigned = Arc::clone(plan.unassigned());
        Ok((plan, AssignmentLimit { sizes, unassigned }))
    }

    /// Whether the store accepts larger assignments than when it left partitions without an owner.
    fn has_more_room(&mut self, deadline: Instant) -> Result<bool> {
        let leaves_out = |plan: &Plan| !plan.unassigned().is_empty();
        if !self.plan.as_ref().is_some_and(leaves_out) {
            return Ok(false);
        }
        let limit = self.publisher.assignment_limit(usize::MAX, deadline)?;
        Ok(limit > self.limit)
    }

    /// Reads the list, and keeps it as the last one.
    fn read_list(&mut self, wait: Instant) -> Result<Option<(Arc<[Partition]>, u64)>> {
        let read = self.partitions.read(&mut *self.reader, wait)?;
        if let (Some((list, generation)), true) = (&read, self.partitions.source().is_some()) {
            self.last_list = Some((Arc::clone(list), *generation, Some(self.clock.now())));
        }
        Ok(read)
    }

    /// Until when the source is waited for. Without a list there is nothing else to do.
    fn source_deadline(&self, deadline: Instant) -> Instant {
        match self.last_list {
            Some(_) => self.within_source_wait(deadline),
            None => deadline,
        }
    }

    fn within_source_wait(&self, deadline: Instant) -> Instant {
        let wait = Instant::now().checked_add(self.source_wait);
        wait.map_or(deadline, |wait| wait.min(deadline))
    }

    /// The list for a plan: a source that fails or hangs does not keep the fleet from one. The last
    /// list takes its place.
    fn list_to_publish(&mut self, deadline: Instant) -> Result<ListToPublish> {
        let failure = match self.read_list(self.source_deadline(deadline)) {
            Ok(Some((list, generation))) => {
                return Ok(ListToPublish {
                    list,
                    generation,
                    source: SourceOutcome::Returned,
                });
            }
            Ok(None) => None,
            Err(error) if error.code() == Code::NotRunning => return Err(error),
            Err(error) => Some(error),
        };
        let Some((list, generation, _)) = &self.last_list else {
            let hangs = || Error::new(Code::SourceFailed, "the partition source has not returned");
            return Err(failure.unwrap_or_else(hangs));
        };
        Ok(ListToPublish {
            list: Arc::clone(list),
            generation: *generation,
            source: failure.map_or(SourceOutcome::Running, |error| {
                SourceOutcome::Failed(error.to_string())
            }),
        })
    }

    /// The publish mode; `None` for a shadow, which publishes nothing.
    fn publish_mode(&self) -> Option<ActiveMode> {
        self.publisher.probe_result().map(|(mode, _)| mode)
    }

    /// Runs a part of a rebalance and reports its duration.
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

    /// Returns the list to plan with: the list read, or that of the plan in force while the new one is
    /// held back.
    fn admit(&mut self, plan: Option<&Plan>, list: Arc<[Partition]>) -> Arc<[Partition]> {
        let is_confirmed = self.partitions.take_confirmation();
        let Some(plan) = plan else { return list };
        let planned = plan.listed();
        let (in_force, listed) = (planned.len(), list.len());
        let lost = lost(&planned, &list);
        let now = self.clock.now();
        match self.guard.judge(now, in_force, lost, listed, is_confirmed) {
            Judgement::Apply => list,
            Judgement::Release => {
                log::info!(
                    target: "divvy::calculator", listed = listed, lost = lost;
                    "partition list applied after it was held back"
                );
                list
            }
            Judgement::Hold | Judgement::HoldFromNow => planned,
        }
    }

    fn compare(&self, plan: &Plan, list: &[Partition]) -> Finding {
        let ours = plan.listed();
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

    /// Returns the fraction by which the most loaded worker would exceed the fair level under the
    /// new weights. A partition that alone is heavier does not count, because a new plan could not
    /// divide it.
    fn excess(&self, plan: &Plan, list: &[Partition]) -> f64 {
        let weight_of = |p: &Partition| match p.weight {
            weight if weight > 0 => weight,
            _ => self.default_weight,
        };
        let left_out = plan.unassigned();
        let is_left_out =
            |p: &&Partition| left_out.binary_search_by(|l| l.keys.cmp(&p.keys)).is_ok();
        let owned = list.iter().filter(|p| !is_left_out(p));
        let reweighted: Arc<[Partition]> = owned
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

/// The list that a plan is made of.
struct ListToPublish {
    list: Arc<[Partition]>,
    /// The change that it covers.
    generation: u64,
    source: SourceOutcome,
}

/// How many of the partitions in force a list lacks; both are in canonical order.
fn lost(in_force: &[Partition], list: &[Partition]) -> usize {
    let mut rest = list.iter().peekable();
    let is_lost = |partition: &&Partition| {
        while rest.next_if(|other| other.keys < partition.keys).is_some() {}
        rest.peek().is_none_or(|other| other.keys != partition.keys)
    };
    in_force.iter().filter(is_lost).count()
}

/// Returns the stored assignments as a plan, and whether they are complete. An interrupted
/// publication may leave a partition with two workers (the first by id counts as its owner), and a
/// foreign leader may leave a worker without keys. `None` if nothing is stored.
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

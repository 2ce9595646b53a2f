//! A recorder for Prometheus, with its own registry or the host's.
//!
//! Recording costs one or two atomic additions to existing series: no lookup and no allocation. The
//! number of series does not depend on the size of the fleet.

mod registrar;
mod sampled;
mod series;

use std::sync::Weak;
use std::time::Duration;

use prometheus::{IntGauge, Opts, Registry, TextEncoder};

use self::registrar::Registrar;
use self::sampled::{Sampled, count};
use self::series::{
    AssignmentSeries, CalculatorSeries, ConvergenceSeries, MemberSeries, PartiSeries, StoreSeries,
    SubscriberSeries,
};
use super::{
    ActiveMode, AssignmentMetrics, BreakerState, Bucket, CalculatorMetrics, ConfigPart,
    DegradationCause, ExpiryCause, IdClaim, JobKind, LeadershipChange, ManagerMetrics,
    MemberChange, MetricNames, Probe, PublishedPlan, RefusalCause, RetryCause, Step, StoreCall,
    StoreOutcome, Success, Watched, WorkerMetrics,
};
use crate::error::Result;
use crate::types::{CalculatorState, ManagerState, Reason, Term, Version};

/// A metrics recorder for Prometheus.
///
/// Create one for each calculator or manager, and keep it over stops and starts so that its counters
/// never decrease.
///
/// ```
/// use std::sync::Arc;
///
/// use divvy::Calculator;
/// use divvy::metrics::Prometheus;
/// use divvy::store::memory::MemoryStore;
///
/// # fn main() -> divvy::Result<()> {
/// let metrics = Arc::new(Prometheus::builder().label("service", "tools").build()?);
/// let calculator = Calculator::builder(Arc::new(MemoryStore::new()))
///     .metrics(Arc::clone(&metrics))
///     .build()?;
/// // The answer to a scrape, in text format 0.0.4. You may append your own series.
/// let page = metrics.render();
/// assert!(page.contains("divvy_calculator_up{service=\"tools\"} 0"));
/// # drop(calculator);
/// # Ok(())
/// # }
/// ```
pub struct Prometheus {
    calculator: CalculatorSeries,
    convergence: ConvergenceSeries,
    subscribers: SubscriberSeries,
    store: StoreSeries,
    assignment: AssignmentSeries,
    member: Option<MemberSeries>,
    parti: Option<PartiSeries>,
    sampled: Sampled,
    /// Unregisters the series on drop.
    registrar: Registrar,
}

/// Builds a [`Prometheus`] recorder. See [`Prometheus::builder`].
#[must_use]
pub struct PrometheusBuilder {
    names: MetricNames,
    registry: Option<Registry>,
    has_member: bool,
}

impl PrometheusBuilder {
    /// Sets all names and labels at once.
    pub fn names(mut self, names: MetricNames) -> Self {
        self.names = names;
        self
    }

    /// Sets the prefix of every name. Default: `divvy`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.names.namespace = namespace.into();
        self
    }

    /// Adds a label to every series. Recorders that share a registry need different labels.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.names.labels.push(format!("{name}={value}"));
        self
    }

    /// Also exports the series under parti's names.
    pub fn parti_names(mut self) -> Self {
        self.names.parti_names = true;
        self
    }

    /// Registers the series in the host's registry instead of a new one. They are unregistered when
    /// the recorder is dropped.
    pub fn registry(mut self, registry: &Registry) -> Self {
        self.registry = Some(registry.clone());
        self
    }

    /// Adds the series of a manager and its worker. A calculator used alone does not need them.
    pub fn with_manager(mut self) -> Self {
        self.has_member = true;
        self
    }

    /// Builds the recorder.
    ///
    /// # Errors
    /// `InvalidConfig` if Prometheus does not allow the namespace or a label, or if the registry
    /// already has these series. The registry is unchanged then.
    pub fn build(self) -> Result<Prometheus> {
        let registry = self.registry.unwrap_or_default();
        let mut to = Registrar::new(registry, &self.names)?;
        let mut made = Prometheus {
            calculator: CalculatorSeries::new(&mut to)?,
            convergence: ConvergenceSeries::new(&mut to)?,
            subscribers: SubscriberSeries::new(&mut to)?,
            store: StoreSeries::new(&mut to)?,
            assignment: AssignmentSeries::new(&mut to)?,
            member: match self.has_member {
                true => Some(MemberSeries::new(&mut to)?),
                false => None,
            },
            sampled: Sampled::new(&mut to)?,
            parti: None,
            registrar: to,
        };
        let opts = made.registrar.opts(
            "build_info",
            "Version of the library, in the label version. Always 1.",
        );
        let build: IntGauge = made.registrar.register(labelled(opts)?)?;
        build.set(1);
        if self.names.parti_names {
            made.parti = Some(PartiSeries::new(&mut made.registrar)?);
        }
        Ok(made)
    }
}

fn labelled(opts: Opts) -> Result<IntGauge> {
    let opts = opts.const_label("version", env!("CARGO_PKG_VERSION"));
    IntGauge::with_opts(opts).map_err(registrar::unusable)
}

impl Prometheus {
    /// Returns a builder with the default names and its own registry.
    pub fn builder() -> PrometheusBuilder {
        PrometheusBuilder {
            names: MetricNames::default(),
            registry: None,
            has_member: false,
        }
    }

    /// Returns all series of the registry in text format 0.0.4, for a response with
    /// `Content-Type: text/plain; version=0.0.4`. You may append other series in that format.
    #[must_use]
    pub fn render(&self) -> String {
        let families = self.registrar.registry().gather();
        let mut page = String::new();
        // Encoding fails only for a family without series, and gather omits those.
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut page) {
            log::warn!(target: "divvy::metrics", "cannot render metrics: {error}");
        }
        page
    }

    /// Returns the registry of the series.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        self.registrar.registry()
    }
}

/// Sets the gauge of one value of a label to 1 and all others to 0.
fn point_at(gauges: &[IntGauge], index: usize) {
    // Set the new gauge first: a concurrent scrape shows two rather than none.
    gauges[index].set(1);
    for (other, gauge) in gauges.iter().enumerate() {
        if other != index {
            gauge.set(0);
        }
    }
}

impl CalculatorMetrics for Prometheus {
    fn attach(&self, probe: Weak<dyn Probe>) {
        self.sampled.attach(probe);
    }

    fn state_changed(&self, from: CalculatorState, to: CalculatorState, spent: Duration) {
        self.calculator.transitions[from as usize][to as usize].inc();
        self.calculator.state_seconds[from as usize].inc_by(spent.as_secs_f64());
    }

    fn job_done(&self, job: JobKind, success: Success) {
        self.calculator.jobs[job as usize][success as usize].inc();
    }

    fn rebalanced(&self, reason: Reason, success: Success, took: Duration) {
        self.calculator.rebalances[reason as usize][success as usize].inc();
        self.calculator.rebalance_seconds[reason as usize].observe(took.as_secs_f64());
        if let Some(parti) = &self.parti {
            parti.rebalance_seconds.observe(took.as_secs_f64());
            if success == Success::No {
                parti.rebalance_failures.inc();
            }
        }
    }

    fn worker_changed(&self, change: MemberChange) {
        self.workers_changed(change, 1);
    }

    fn workers_changed(&self, change: MemberChange, count: u32) {
        self.calculator.worker_changes[change as usize].inc_by(u64::from(count));
    }

    fn workers(&self, alive: usize, suspected: usize) {
        self.calculator.workers_alive.set(count(alive));
        self.calculator.workers_suspected.set(count(suspected));
        if let Some(parti) = &self.parti {
            parti.workers.set(count(alive));
        }
    }

    fn unassigned(&self, partitions: usize) {
        self.calculator.unassigned.set(count(partitions));
    }

    fn fleet_lag(&self, lagging: usize, highest: Version) {
        self.convergence.lagging.set(count(lagging));
        self.convergence.highest.set(highest);
    }

    fn list_held(&self, lost: usize) {
        self.calculator.list_held.set(count(lost));
    }

    fn config_mismatches(&self, part: ConfigPart, workers: usize) {
        self.convergence.mismatched[part as usize].set(count(workers));
    }

    fn converged(&self, took: Duration) {
        self.convergence.seconds.observe(took.as_secs_f64());
    }

    fn lease_ended(&self, cause: ExpiryCause) {
        self.calculator.leases_ended[cause as usize].inc();
    }

    fn heartbeats_listed(&self, success: Success) {
        self.calculator.listings[success as usize].inc();
    }

    fn watch_lost(&self, watched: Watched) {
        self.calculator.watch_losses[watched as usize].inc();
    }

    fn watch_resynced(&self, watched: Watched) {
        self.calculator.watch_resyncs[watched as usize].inc();
    }

    fn malformed(&self, bucket: Bucket, count: u32) {
        self.calculator.malformed[bucket as usize].inc_by(u64::from(count));
    }

    fn degraded(&self, causes: &[DegradationCause]) {
        for (cause, gauge) in DegradationCause::ALL.iter().zip(&self.calculator.degraded) {
            gauge.set(i64::from(causes.contains(cause)));
        }
    }

    fn leadership_lost(&self) {
        self.calculator.leadership_lost.inc();
    }

    fn called_back(&self, took: Duration) {
        self.subscribers
            .callback_seconds
            .observe(took.as_secs_f64());
    }

    fn callback_panicked(&self) {
        self.subscribers.callback_panics.inc();
    }

    fn event_missed(&self, is_first: bool) {
        self.subscribers.events_missed.inc();
        if is_first {
            self.subscribers.subscribers_lagged.inc();
        }
        if let Some(parti) = &self.parti {
            parti.dropped.inc();
        }
    }

    fn store_called(&self, call: StoreCall, outcome: StoreOutcome, took: Duration) {
        self.store.calls[call as usize][outcome as usize].inc();
        self.store.call_seconds[call as usize].observe(took.as_secs_f64());
    }

    fn write_refused(&self, cause: RefusalCause) {
        self.store.writes_refused[cause as usize].inc();
    }

    fn store_retried(&self) {
        self.store.retries.inc();
    }

    fn breaker_changed(&self, to: BreakerState) {
        point_at(&self.store.breaker, to as usize);
        self.store.breaker_changes[to as usize].inc();
    }
}

impl AssignmentMetrics for Prometheus {
    fn took_over(&self, term: Term, version: Version, mode: ActiveMode) {
        self.assignment.term.set(term);
        self.assignment.version.set(version);
        point_at(&self.assignment.mode, mode as usize);
    }

    fn step(&self, step: Step, took: Duration) {
        self.assignment.step_seconds[step as usize].observe(took.as_secs_f64());
    }

    fn retried(&self, because: RetryCause) {
        self.assignment.retries[because as usize].inc();
    }

    fn published(&self, plan: &PublishedPlan) {
        let series = &self.assignment;
        series.term.set(plan.term);
        series.version.set(plan.version);
        series.publications[plan.mode as usize].inc();
        series.workers.set(count(plan.workers));
        series.partitions.set(count(plan.partitions));
        series.moved.inc_by(plan.moved as u64);
        series.moved_share.set(plan.moved_share);
        series.max_to_mean.set(plan.max_to_mean);
        series.limit_ratio.set(plan.limit_ratio);
        series.limit_after_loss.set(plan.limit_after_loss_ratio);
    }
}

impl WorkerMetrics for Prometheus {
    fn heartbeat(&self, success: Success) {
        if let Some(member) = &self.member {
            member.heartbeats[success as usize].inc();
        }
    }

    fn heartbeat_late(&self, by: Duration) {
        if let Some(member) = &self.member {
            member.late.inc();
            member.late_seconds.observe(by.as_secs_f64());
        }
    }

    fn assignment_seen(&self, version: Version) {
        if let Some(member) = &self.member {
            member.seen.set(version);
        }
    }

    fn assignment_applied(&self, version: Version, added: usize, removed: usize, took: Duration) {
        if let Some(member) = &self.member {
            member.applied.set(version);
            member.apply_seconds.observe(took.as_secs_f64());
            member.added.inc_by(added as u64);
            member.removed.inc_by(removed as u64);
        }
    }

    fn assignment_refused(&self) {
        if let Some(member) = &self.member {
            member.refused.inc();
        }
    }
}

impl ManagerMetrics for Prometheus {
    fn state_changed(&self, from: ManagerState, to: ManagerState, spent: Duration) {
        if let Some(member) = &self.member {
            point_at(&member.state, to as usize);
            member.transitions[from as usize][to as usize].inc();
            member.state_seconds[from as usize].inc_by(spent.as_secs_f64());
        }
    }

    fn leadership_changed(&self, change: LeadershipChange) {
        if let Some(member) = &self.member {
            let leads = change == LeadershipChange::Gained;
            member.is_leader.set(i64::from(leads));
            member.leadership[change as usize].inc();
        }
    }

    fn id_claim(&self, outcome: IdClaim) {
        if let Some(member) = &self.member {
            member.id_claims[outcome as usize].inc();
        }
    }
}

impl std::fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prometheus").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! The series that are pushed, grouped by their source.

use prometheus::{Counter, Gauge, Histogram, IntCounter, IntGauge};

use super::registrar::{Registrar, Scale};
use crate::error::Result;
use crate::metrics::{
    ActiveMode, BreakerState, Bucket, ConfigPart, DegradationCause, ExpiryCause, IdClaim, JobKind,
    LeadershipChange, MemberChange, RefusalCause, RetryCause, Step, StoreCall, StoreOutcome,
    Success, Watched,
};
use crate::types::{CalculatorState, ManagerState, Reason};

/// The names of all variants, in order.
macro_rules! names {
    ($type:ty) => {
        &<$type>::ALL.iter().map(|v| v.name()).collect::<Vec<_>>()
    };
}

pub(super) struct CalculatorSeries {
    pub transitions: Vec<Vec<IntCounter>>,
    pub state_seconds: Vec<Counter>,
    pub jobs: Vec<Vec<IntCounter>>,
    pub rebalances: Vec<Vec<IntCounter>>,
    pub rebalance_seconds: Vec<Histogram>,
    pub worker_changes: Vec<IntCounter>,
    pub workers_alive: IntGauge,
    pub workers_suspected: IntGauge,
    pub unassigned: IntGauge,
    pub leases_ended: Vec<IntCounter>,
    pub listings: Vec<IntCounter>,
    pub watch_losses: Vec<IntCounter>,
    pub watch_resyncs: Vec<IntCounter>,
    pub malformed: Vec<IntCounter>,
    pub degraded: Vec<IntGauge>,
    pub list_held: IntGauge,
    pub leadership_lost: IntCounter,
}

impl CalculatorSeries {
    pub fn new(to: &mut Registrar) -> Result<Self> {
        let states = names!(CalculatorState);
        let success = names!(Success);
        Ok(Self {
            transitions: to.counter_grid(
                "state_transitions_total",
                "State transitions of the calculator.",
                ["from", "to"],
                [states, states],
            )?,
            state_seconds: to.seconds(
                "state_seconds_total",
                "Seconds spent in each state, added when the state ends.",
                "state",
                states,
            )?,
            jobs: to.counter_grid(
                "jobs_total",
                "Jobs of the publishing thread, by kind and outcome.",
                ["job", "outcome"],
                [names!(JobKind), success],
            )?,
            rebalances: to.counter_grid(
                "rebalances_total",
                "Rebalances, by reason and outcome. A failed one is retried.",
                ["reason", "outcome"],
                [names!(Reason), success],
            )?,
            rebalance_seconds: to.histograms(
                "rebalance_duration_seconds",
                "Duration of rebalances, including failed ones.",
                Scale::Work,
                "reason",
                names!(Reason),
            )?,
            worker_changes: to.counters(
                "worker_changes_total",
                "Membership changes: workers that joined, left, were suspected, returned or were declared dead.",
                "change",
                names!(MemberChange),
            )?,
            workers_alive: to.gauge("workers_alive", "Live workers: those whose lease has not expired.")?,
            workers_suspected: to.gauge(
                "workers_suspected",
                "Workers whose lease has expired and that have not been declared dead.",
            )?,
            unassigned: to.gauge(
                "partitions_unassigned",
                "Partitions whose owner left or was declared dead, until the next plan, and those of assignments that are too large for the store.",
            )?,
            leases_ended: to.counters(
                "leases_ended_total",
                "Worker leases that ended, by cause.",
                "cause",
                names!(ExpiryCause),
            )?,
            listings: to.counters(
                "heartbeat_listings_total",
                "Listings of the heartbeats. None run while the watch is healthy.",
                "outcome",
                success,
            )?,
            watch_losses: to.counters(
                "watch_losses_total",
                "Times that a watch was lost.",
                "watch",
                names!(Watched),
            )?,
            watch_resyncs: to.counters(
                "watch_resyncs_total",
                "Times that a watch resynchronised, at its start and after each loss.",
                "watch",
                names!(Watched),
            )?,
            malformed: to.counters(
                "malformed_values_total",
                "Malformed values that were found in each bucket and ignored.",
                "bucket",
                names!(Bucket),
            )?,
            degraded: to.gauges(
                "calculator_degraded",
                "1 for each cause that currently limits the calculator.",
                "cause",
                names!(DegradationCause),
            )?,
            list_held: to.gauge(
                "list_held_lost_partitions",
                "Partitions in force that the held-back list lacks. 0: no list is held back.",
            )?,
            leadership_lost: to.counter(
                "calculator_deposed_total",
                "Times that a newer leader took over from this calculator.",
            )?,
        })
    }
}

pub(super) struct ConvergenceSeries {
    pub lagging: IntGauge,
    pub highest: IntGauge,
    pub seconds: Histogram,
    pub mismatched: Vec<IntGauge>,
}

impl ConvergenceSeries {
    pub fn new(to: &mut Registrar) -> Result<Self> {
        Ok(Self {
            lagging: to.gauge(
                "workers_lagging",
                "Live workers that have not applied their assignment within apply_timeout.",
            )?,
            highest: to.gauge(
                "workers_lag_versions",
                "Versions by which the slowest live worker is behind its assignment.",
            )?,
            seconds: to.histogram(
                "convergence_seconds",
                "Time from a publication until every live worker has applied it. Overlapping publications count once.",
                Scale::Work,
            )?,
            mismatched: to.gauges(
                "workers_config_mismatched",
                "Live workers whose configuration differs from the leader's, by part.",
                "part",
                names!(ConfigPart),
            )?,
        })
    }
}

pub(super) struct SubscriberSeries {
    pub callback_seconds: Histogram,
    pub callback_panics: IntCounter,
    pub events_missed: IntCounter,
    pub subscribers_lagged: IntCounter,
}

impl SubscriberSeries {
    pub fn new(to: &mut Registrar) -> Result<Self> {
        Ok(Self {
            callback_seconds: to.histogram(
                "callback_duration_seconds",
                "Duration of subscriber callbacks.",
                Scale::Work,
            )?,
            callback_panics: to.counter(
                "callback_panics_total",
                "Subscriptions closed because their callback panicked.",
            )?,
            events_missed: to.counter(
                "subscriber_events_missed_total",
                "Events not delivered because a subscriber was too slow.",
            )?,
            subscribers_lagged: to.counter(
                "subscribers_lagged_total",
                "Subscriptions closed because the subscriber was too slow.",
            )?,
        })
    }
}

pub(super) struct StoreSeries {
    pub calls: Vec<Vec<IntCounter>>,
    pub call_seconds: Vec<Histogram>,
    pub writes_refused: Vec<IntCounter>,
    pub retries: IntCounter,
    pub breaker: Vec<IntGauge>,
    pub breaker_changes: Vec<IntCounter>,
}

impl StoreSeries {
    pub fn new(to: &mut Registrar) -> Result<Self> {
        Ok(Self {
            calls: to.counter_grid(
                "store_calls_total",
                "Store calls, by operation and outcome.",
                ["operation", "outcome"],
                [names!(StoreCall), names!(StoreOutcome)],
            )?,
            call_seconds: to.histograms(
                "store_call_duration_seconds",
                "Duration of store calls.",
                Scale::Call,
                "operation",
                names!(StoreCall),
            )?,
            writes_refused: to.counters(
                "store_writes_refused_total",
                "Writes that the store refused.",
                "cause",
                names!(RefusalCause),
            )?,
            retries: to.counter(
                "store_retries_total",
                "Store calls retried within the retry budget.",
            )?,
            breaker: to.gauges(
                "store_breaker_state",
                "1 for the current state of the circuit breaker of the store.",
                "state",
                names!(BreakerState),
            )?,
            breaker_changes: to.counters(
                "store_breaker_changes_total",
                "State changes of the circuit breaker, by new state.",
                "to",
                names!(BreakerState),
            )?,
        })
    }
}

pub(super) struct AssignmentSeries {
    pub term: IntGauge,
    pub version: IntGauge,
    pub mode: Vec<IntGauge>,
    pub step_seconds: Vec<Histogram>,
    pub retries: Vec<IntCounter>,
    pub publications: Vec<IntCounter>,
    pub workers: IntGauge,
    pub partitions: IntGauge,
    pub moved: IntCounter,
    pub moved_share: Gauge,
    pub max_to_mean: Gauge,
    pub limit_ratio: Gauge,
    pub limit_after_loss: Gauge,
}

impl AssignmentSeries {
    pub fn new(to: &mut Registrar) -> Result<Self> {
        Ok(Self {
            term: to.gauge(
                "assignment_term",
                "Term opened by this calculator. 0 before its first take-over.",
            )?,
            version: to.gauge(
                "assignment_version",
                "Version last published, or found at a take-over.",
            )?,
            mode: to.gauges(
                "publish_mode",
                "1 for the current publish mode.",
                "mode",
                names!(ActiveMode),
            )?,
            step_seconds: to.histograms(
                "rebalance_step_duration_seconds",
                "Duration of each step of a rebalance.",
                Scale::Work,
                "step",
                names!(Step),
            )?,
            retries: to.counters(
                "publish_retries_total",
                "Publications retried within one rebalance, by cause.",
                "cause",
                names!(RetryCause),
            )?,
            publications: to.counters(
                "publications_total",
                "Plans published, by publish mode.",
                "mode",
                names!(ActiveMode),
            )?,
            workers: to.gauge("plan_workers", "Workers in the last published plan.")?,
            partitions: to.gauge("plan_partitions", "Partitions in the last published plan.")?,
            moved: to.counter("partitions_moved_total", "Partitions that changed owners.")?,
            moved_share: to.level(
                "plan_moved_ratio",
                "Fraction of the total weight moved by the last published plan.",
            )?,
            max_to_mean: to.level(
                "plan_max_to_mean_ratio",
                "Load of the most loaded worker in the last published plan, as a multiple of the mean.",
            )?,
            limit_ratio: to.level(
                "assignment_limit_ratio",
                "Size of the largest assignment as a fraction of the largest value that the store accepts. Above 1 partitions have no owner.",
            )?,
            limit_after_loss: to.level(
                "assignment_limit_after_loss_ratio",
                "The same after the loss of one worker whose partitions the others share equally.",
            )?,
        })
    }
}

pub(super) struct MemberSeries {
    pub state: Vec<IntGauge>,
    pub state_seconds: Vec<Counter>,
    pub transitions: Vec<Vec<IntCounter>>,
    pub is_leader: IntGauge,
    pub leadership: Vec<IntCounter>,
    pub id_claims: Vec<IntCounter>,
    pub heartbeats: Vec<IntCounter>,
    pub late: IntCounter,
    pub late_seconds: Histogram,
    pub seen: IntGauge,
    pub applied: IntGauge,
    pub apply_seconds: Histogram,
    pub added: IntCounter,
    pub removed: IntCounter,
    pub refused: IntCounter,
}

impl MemberSeries {
    pub fn new(to: &mut Registrar) -> Result<Self> {
        let states = names!(ManagerState);
        Ok(Self {
            state: to.gauges(
                "manager_state",
                "1 for the current state of the manager.",
                "state",
                states,
            )?,
            state_seconds: to.seconds(
                "manager_state_seconds_total",
                "Seconds spent in each state, added when the state ends.",
                "state",
                states,
            )?,
            transitions: to.counter_grid(
                "manager_state_transitions_total",
                "State transitions of the manager.",
                ["from", "to"],
                [states, states],
            )?,
            is_leader: to.gauge("manager_is_leader", "1 while this worker leads.")?,
            leadership: to.counters(
                "manager_leadership_changes_total",
                "Times that this worker gained, lost or released the leadership.",
                "change",
                names!(LeadershipChange),
            )?,
            id_claims: to.counters(
                "manager_id_claims_total",
                "Claims and renewals of a stable id, by outcome.",
                "outcome",
                names!(IdClaim),
            )?,
            heartbeats: to.counters(
                "worker_heartbeats_total",
                "Heartbeats, by outcome of the write.",
                "outcome",
                names!(Success),
            )?,
            late: to.counter(
                "worker_heartbeats_late_total",
                "Heartbeats sent later than they were due.",
            )?,
            late_seconds: to.histogram(
                "worker_heartbeat_lateness_seconds",
                "Delay of the late heartbeats.",
                Scale::Work,
            )?,
            seen: to.gauge(
                "worker_seen_version",
                "Last version observed for this worker.",
            )?,
            applied: to.gauge(
                "worker_applied_version",
                "Last version applied by this worker. The lag is the seen version minus this.",
            )?,
            apply_seconds: to.histogram(
                "worker_apply_duration_seconds",
                "Time from observing an assignment until every subscriber was notified.",
                Scale::Work,
            )?,
            added: to.counter(
                "worker_partitions_added_total",
                "Partitions acquired by this worker.",
            )?,
            removed: to.counter(
                "worker_partitions_removed_total",
                "Partitions released by this worker.",
            )?,
            refused: to.counter(
                "worker_assignments_refused_total",
                "Assignments rejected because they are older than the applied one.",
            )?,
        })
    }
}

/// The metric names of parti's improvement plan.
pub(super) struct PartiSeries {
    pub rebalance_seconds: Histogram,
    pub rebalance_failures: IntCounter,
    pub dropped: IntCounter,
    pub workers: IntGauge,
}

impl PartiSeries {
    pub fn new(to: &mut Registrar) -> Result<Self> {
        to.without_namespace();
        Ok(Self {
            rebalance_seconds: to.histogram(
                "calculator_rebalance_duration_seconds",
                "Duration of rebalances.",
                Scale::Work,
            )?,
            rebalance_failures: to.counter(
                "calculator_rebalance_failures_total",
                "Rebalances that failed.",
            )?,
            dropped: to.counter(
                "calculator_dropped_state_changes_total",
                "Events not delivered because a subscriber was too slow.",
            )?,
            workers: to.gauge(
                "calculator_active_workers",
                "Live workers: those whose lease has not expired.",
            )?,
        })
    }
}

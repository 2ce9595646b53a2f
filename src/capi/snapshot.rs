//! A calculator's status, as JSON for C.

use serde_json::{Value, json};

use crate::runtime::{BreakerStatus, CalculatorStatus};
use crate::time::duration::millis;
use crate::types::Reason;

/// A calculator's status as JSON.
pub(super) fn status_json(status: &CalculatorStatus) -> Value {
    let workers = status.workers.iter().map(|worker| {
        json!({
            "worker": worker.worker.as_str(),
            "is_planned": worker.is_planned,
            "lease_left_ms": worker.lease_left.map(millis),
            "applied_version": worker.applied_version,
            "lag": worker.lag,
        })
    });
    let counters = &status.counters;
    json!({
        "is_started": status.is_started,
        "failed": status.failed,
        "state": status.state.name(),
        "reason": status.reason.map(Reason::name),
        "since_ms": millis(status.since),
        "version": status.version,
        "term": status.term,
        "workers": workers.collect::<Vec<_>>(),
        "pending": {
            "reason": status.pending.reason.map(Reason::name),
            "due_in_ms": status.pending.due_in.map(millis),
        },
        "degraded": status.degraded.sentences(),
        "breaker": breaker_json(&status.breaker),
        "last_failure": status.last_failure,
        "list_age_ms": status.list_age.map(millis),
        "held_list": status.held_list.as_ref().map(|held| json!({
            "in_force": held.in_force,
            "lost": held.lost,
            "listed": held.listed,
            "applied_in_ms": millis(held.applied_in),
        })),
        "assignment_limit": {
            "largest_bytes": status.assignment_limit.sizes.largest,
            "after_loss_bytes": status.assignment_limit.sizes.after_loss,
            "limit_bytes": status.assignment_limit.sizes.limit,
            "unassigned": &*status.assignment_limit.unassigned,
        },
        "quality": status.quality.map(|quality| json!({
            "max_to_mean": quality.max_to_mean,
            "min_to_mean": quality.min_to_mean,
            "lower_bound": quality.lower_bound,
            "moved_partitions": quality.moved_partitions,
            "moved": quality.moved,
        })),
        "is_shadow": status.is_shadow,
        "comparison": status.comparison.as_ref().map(ToString::to_string),
        "counters": {
            "publications": counters.publications,
            "failures": counters.failures,
            "moved": counters.moved,
            "malformed": counters.malformed,
            "listings": counters.listings,
            "watch_losses": counters.watch_losses,
            "lagged_subscribers": counters.lagged_subscribers,
            "callback_panics": counters.callback_panics,
            "calculator_wakes": counters.calculator_wakes,
            "would_publish": counters.would_publish,
            "followed": counters.followed,
            "disagreements": counters.disagreements,
        },
    })
}

pub(super) fn breaker_json(breaker: &BreakerStatus) -> Value {
    json!({
        "state": breaker.state.state.name(),
        "why": breaker.state.why(),
        "opened": breaker.opened,
        "probes": breaker.probes,
        "refused": breaker.refused,
        "retries": breaker.retries,
        "retries_refused": breaker.retries_refused,
    })
}

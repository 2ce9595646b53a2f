//! A store behind a circuit breaker and a retry budget, so that callers neither hammer a broken store
//! nor multiply the load of a slow one.
//!
//! * Consecutive failures open the breaker. While it is open, calls fail immediately with its reason,
//!   except for occasional probes: the first call after a pause is the probe.
//! * A call after a failure of the same kind counts as a retry and costs a token of the retry budget.
//!   Without a token it fails immediately, which says nothing about the store.
//! * A call waits for its answer for a part of the operation's time, so that a lost request can be
//!   repeated within it.
//!
//! Watches are not guarded: they wait and recover by themselves.

mod core;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use parking_lot::Mutex;

use self::core::{AdmittedCall, Core};
pub use self::core::{BreakerListener, BreakerStatus};
use crate::config::CalculatorConfig;
use crate::error::{Code, Error, Result};
use crate::machine::breaker::{BreakerCondition, Permit, Verdict};
use crate::machine::request::{Answer, Request};
use crate::metrics::{CalculatorMetrics, MeasuredStore, NoMetrics};
use crate::runtime::fleet_identity;
use crate::store::layer::{LayerCall, StoreAnswer, StoreCall, StoreLayer};
use crate::store::{Bucket, BucketStatus, Health, Outcome, Refusal, Store};
use crate::time::clock::Clock;
use crate::types::Time;
use crate::wire::FleetRecord;

/// A store behind a circuit breaker and a retry budget: see the module.
pub struct GuardedStore {
    inner: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    core: Mutex<Core>,
    metrics: Arc<dyn CalculatorMetrics>,
    /// The fleet that the assignment bucket must belong to.
    fleet: Option<FleetRecord>,
}

impl GuardedStore {
    /// Protects a store. `seed` determines the jitter of the breaker's pauses.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, clock: Arc<dyn Clock>, seed: u64) -> Self {
        let now = clock.now();
        Self {
            inner,
            clock,
            core: Mutex::new(Core::new(seed, now)),
            metrics: Arc::new(NoMetrics),
            fleet: None,
        }
    }

    /// Guards a store as managers and calculators use it: measured, with time limits, and for its own
    /// fleet only.
    pub(crate) fn measured(
        inner: Arc<dyn Store>,
        metrics: &Arc<dyn CalculatorMetrics>,
        clock: &Arc<dyn Clock>,
        config: &CalculatorConfig,
    ) -> Self {
        let inner = Arc::new(MeasuredStore::new(inner, Arc::clone(metrics)));
        let mut store = Self::new(inner, Arc::clone(clock), fastrand::u64(..))
            .with_operation_timeout(config.operation_timeout)
            .with_metrics(Arc::clone(metrics));
        store.fleet = Some(FleetRecord {
            fleet: store.inner.fleet(),
            heartbeat_prefix: config.heartbeat_prefix.clone(),
            assignment_prefix: config.assignment_prefix.clone(),
        });
        store
    }

    /// Limits each call to a part of the operation timeout.
    #[must_use]
    pub fn with_operation_timeout(mut self, timeout: Duration) -> Self {
        self.core.get_mut().limit_calls(timeout);
        self
    }

    /// Sets the receiver of retry metrics.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Arc<dyn CalculatorMetrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// Returns the present condition of the breaker and every later change. Replaces the earlier
    /// listener of the same kind.
    pub fn changes(&self, listener: BreakerListener) -> Receiver<BreakerCondition> {
        self.core.lock().listen(listener)
    }

    /// Returns the state of the breaker and the counts.
    pub fn status(&self) -> BreakerStatus {
        self.core.lock().status()
    }

    /// Returns whether the breaker is closed.
    pub fn is_closed(&self) -> bool {
        self.core.lock().is_closed()
    }

    /// Observes the health of the session. After a recovery, the next call probes the store.
    pub fn observe_health(&self, health: &Health) {
        if *health == Health::Connected {
            self.change(Core::force_probe);
        }
    }

    /// Changes breaker and retry budget, then reports. Log and metrics are host code, so no lock is
    /// held then.
    fn change<R>(&self, change: impl FnOnce(&mut Core, Time) -> R) -> R {
        let now = self.clock.now();
        let (result, has_reports) = {
            let mut core = self.core.lock();
            let result = change(&mut core, now);
            core.report_changes(now);
            (result, core.has_reports())
        };
        if has_reports {
            self.report();
        }
        result
    }

    /// Delivers reports in order. One thread delivers the reports of all.
    fn report(&self) {
        /// Ends the delivery even if the host's code panics.
        struct Done<'a>(&'a Mutex<Core>);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.lock().report_delivered();
            }
        }
        loop {
            let Some((state, line)) = self.core.lock().next_report() else {
                return;
            };
            let _done = Done(&self.core);
            self.metrics.breaker_changed(state);
            if let Some((level, line)) = line {
                log::log!(
                    target: "divvy::breaker", level, state = state.name();
                    "circuit breaker {line}"
                );
            }
        }
    }

    /// Carries out a call, unless the breaker or the retry budget rejects it.
    fn guard<R>(
        &self,
        kind: usize,
        deadline: Instant,
        refused: impl FnOnce(String) -> R,
        verdict: impl FnOnce(&R) -> Verdict,
        call: impl FnOnce(Instant) -> R,
    ) -> R {
        let begun = self.clock.instant();
        if deadline <= begun {
            return call(deadline); // not sent, so it says nothing about the store
        }
        let AdmittedCall {
            permit,
            is_retry,
            timeout,
        } = match self.change(|core, now| core.admit(now, kind)) {
            Ok(admitted) => admitted,
            Err(why) => return refused(why),
        };
        if is_retry {
            self.metrics.store_retried();
        }
        let mut ongoing = OngoingCall {
            store: self,
            kind,
            permit,
            begun,
            verdict: Verdict::Silent,
        };
        let patient_until = begun.checked_add(timeout).unwrap_or(deadline);
        let result = call(deadline.min(patient_until));
        ongoing.verdict = verdict(&result);
        result
    }

    /// Runs a manager's request.
    pub(crate) fn ask(&self, request: &Request, answer: impl FnOnce() -> Answer) -> Answer {
        let (kind, is_write) = match request {
            Request::Ensure { bucket, .. } | Request::List(bucket) => (reading(*bucket), false),
            Request::Read { bucket, .. } => (reading(*bucket), false),
            Request::CountClaims => (reading(Bucket::Assignment), false),
            Request::Put { bucket, .. } | Request::Delete { bucket, .. } => {
                (writing(*bucket), true)
            }
            Request::Campaign(_) | Request::Resign(_) => return answer(),
        };
        let refused = |why: String| {
            let error = Error::new(Code::Unavailable, why.clone());
            match request {
                _ if is_write => Answer::Written {
                    outcome: Outcome::Refused(Refusal::Unavailable(why)),
                    value: Vec::new(),
                },
                Request::Ensure { .. } => Answer::Ensured(Err(error)),
                Request::List(_) => Answer::Listed(Err(error)),
                Request::CountClaims => Answer::Claims(Err(error)),
                _ => Answer::Read(Err(error)),
            }
        };
        let verdict = |answer: &Answer| match answer {
            Answer::Ensured(result) => verdict_of(result.as_ref().err()),
            Answer::Listed(result) => verdict_of(result.as_ref().err()),
            Answer::Read(result) => verdict_of(result.as_ref().err()),
            Answer::Claims(result) => verdict_of(result.as_ref().err()),
            Answer::Written { outcome, .. } => verdict_of_writes(std::slice::from_ref(outcome)),
            Answer::Campaigned(_) => Verdict::Silent,
        };
        let later = self.clock.instant() + Duration::from_secs(1);
        self.guard(kind, later, refused, verdict, |_| answer())
    }
}

/// A call in progress. The breaker receives its result however it ends, including by a panic.
struct OngoingCall<'a> {
    store: &'a GuardedStore,
    kind: usize,
    permit: Permit,
    begun: Instant,
    verdict: Verdict,
}

impl Drop for OngoingCall<'_> {
    fn drop(&mut self) {
        let verdict = std::mem::replace(&mut self.verdict, Verdict::Silent);
        let ended = self.store.clock.instant();
        let took = ended.saturating_duration_since(self.begun);
        self.store
            .change(|core, now| core.ended(now, self.kind, self.permit, verdict, took));
    }
}

/// Whether the store answered, if only to refuse; `None`: the call succeeded.
fn verdict_of(error: Option<&Error>) -> Verdict {
    let Some(error) = error else {
        return Verdict::Answered;
    };
    match error.code() {
        Code::Unavailable | Code::TimedOut => Verdict::Failed(error.to_string()),
        Code::NotRunning | Code::InvalidArgument | Code::Cancelled => Verdict::Silent,
        _ => Verdict::Answered,
    }
}

/// The same for writes: one answer is enough.
fn verdict_of_writes(outcomes: &[Outcome]) -> Verdict {
    let mut verdict = Verdict::Silent;
    for outcome in outcomes {
        match outcome {
            Outcome::Unknown(why) | Outcome::Refused(Refusal::Unavailable(why)) => {
                verdict = Verdict::Failed(why.clone());
            }
            Outcome::Refused(Refusal::NotRunning | Refusal::Invalid(_)) => {}
            Outcome::Done(_) | Outcome::Refused(_) => return Verdict::Answered,
        }
    }
    verdict
}

fn reading(bucket: Bucket) -> usize {
    bucket as usize
}

fn writing(bucket: Bucket) -> usize {
    bucket as usize + Bucket::ALL.len()
}

impl StoreLayer for GuardedStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn ensured(&self, bucket: Bucket, status: &BucketStatus, deadline: Instant) -> Result<()> {
        match (bucket, &self.fleet) {
            (Bucket::Assignment, Some(fleet)) => {
                fleet_identity::verify(self, fleet, &status.name, deadline)
            }
            _ => Ok(()),
        }
    }

    fn call<A: StoreAnswer>(
        &self,
        call: LayerCall<'_>,
        run: impl FnOnce(&dyn Store, &LayerCall<'_>) -> A,
    ) -> A {
        if call.kind == StoreCall::Watch {
            return run(self.inner(), &call);
        }
        let kind = match call.kind.is_write() {
            true => writing(call.bucket),
            false => reading(call.bucket),
        };
        let refused = |why| A::refused(Error::new(Code::Unavailable, why), call.writes);
        let verdict = |answer: &A| match answer.outcomes() {
            Some(outcomes) => verdict_of_writes(outcomes),
            None => verdict_of(answer.error()),
        };
        let run = |deadline| run(self.inner(), &LayerCall { deadline, ..call });
        let answer = self.guard(kind, call.deadline, refused, verdict, run);
        match call.key {
            Some(key) => answer.map_error(|error| error.with_key(key)),
            None => answer,
        }
    }
}

impl std::fmt::Debug for GuardedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuardedStore")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

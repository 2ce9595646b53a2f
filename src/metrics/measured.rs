//! A store that measures its calls.

use std::sync::Arc;
use std::time::Instant;

use super::{CalculatorMetrics, RefusalCause, StoreCall, StoreOutcome};
use crate::error::Code;
use crate::store::layer::{LayerCall, StoreAnswer, StoreLayer};
use crate::store::{Outcome, Refusal, Store};

/// A store that reports each call to the metrics.
pub struct MeasuredStore {
    inner: Arc<dyn Store>,
    metrics: Arc<dyn CalculatorMetrics>,
}

impl MeasuredStore {
    /// Wraps `inner` and reports its calls to `metrics`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, metrics: Arc<dyn CalculatorMetrics>) -> Self {
        Self { inner, metrics }
    }

    fn report(&self, kind: StoreCall, begun: Instant, answer: &impl StoreAnswer) {
        let mut worst = StoreOutcome::Done;
        for outcome in answer.outcomes().unwrap_or_default() {
            match outcome {
                Outcome::Done(_) => {}
                Outcome::Unknown(_) => worst = StoreOutcome::Unknown,
                Outcome::Refused(refusal) => {
                    if worst == StoreOutcome::Done {
                        worst = StoreOutcome::Refused;
                    }
                    self.metrics.write_refused(cause_of(refusal));
                }
            }
        }
        if let Some(error) = answer.error() {
            worst = match error.code() {
                Code::TimedOut => StoreOutcome::Unknown,
                _ => StoreOutcome::Refused,
            };
        }
        self.metrics.store_called(kind, worst, begun.elapsed());
    }
}

impl StoreLayer for MeasuredStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn call<A: StoreAnswer>(
        &self,
        call: LayerCall<'_>,
        run: impl FnOnce(&dyn Store, &LayerCall<'_>) -> A,
    ) -> A {
        let begun = Instant::now();
        let answer = run(self.inner(), &call);
        self.report(call.kind, begun, &answer);
        answer
    }
}

fn cause_of(refusal: &Refusal) -> RefusalCause {
    match refusal {
        Refusal::Conflict => RefusalCause::Conflict,
        Refusal::Busy => RefusalCause::Busy,
        Refusal::TooLarge { .. } => RefusalCause::TooLarge,
        Refusal::Unavailable(_) => RefusalCause::Unavailable,
        Refusal::NotRunning => RefusalCause::NotRunning,
        Refusal::Unauthorized(_) => RefusalCause::Unauthorized,
        Refusal::Invalid(_) => RefusalCause::Invalid,
        Refusal::Full(_) => RefusalCause::Full,
        Refusal::Other { .. } => RefusalCause::Other,
    }
}

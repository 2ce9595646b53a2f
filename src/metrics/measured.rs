//! A store whose calls are measured.

use std::sync::Arc;
use std::time::Instant;

use super::{CalculatorMetrics, RefusedBecause, StoreCall, StoreOutcome};
use crate::error::{Code, Result};
use crate::store::{
    Batch, Bucket, BucketConfig, BucketStatus, Capabilities, Entry, Health, HealthEvents, Listing,
    Outcome, Refusal, Store, Watch, Write,
};

/// Any store, each call of it told to the metrics.
pub struct MeasuredStore {
    inner: Arc<dyn Store>,
    metrics: Arc<dyn CalculatorMetrics>,
}

impl MeasuredStore {
    /// Tells the calls of `inner` to `metrics`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, metrics: Arc<dyn CalculatorMetrics>) -> Self {
        Self { inner, metrics }
    }

    fn measure<T>(&self, call: StoreCall, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let result = work();
        let outcome = match &result {
            Ok(_) => StoreOutcome::Done,
            Err(error) if error.code() == Code::TimedOut => StoreOutcome::Unknown,
            Err(_) => StoreOutcome::Refused,
        };
        self.metrics.store_called(call, outcome, begun.elapsed());
        result
    }

    fn tell_outcomes(&self, call: StoreCall, begun: Instant, outcomes: &[Outcome]) {
        let mut worst = StoreOutcome::Done;
        for outcome in outcomes {
            match outcome {
                Outcome::Done(_) => {}
                Outcome::Unknown(_) => worst = StoreOutcome::Unknown,
                Outcome::Refused(refusal) => {
                    if worst == StoreOutcome::Done {
                        worst = StoreOutcome::Refused;
                    }
                    self.metrics.write_refused(because(refusal));
                }
            }
        }
        self.metrics.store_called(call, worst, begun.elapsed());
    }
}

fn because(refusal: &Refusal) -> RefusedBecause {
    match refusal {
        Refusal::Conflict => RefusedBecause::Conflict,
        Refusal::Busy => RefusedBecause::Busy,
        Refusal::TooLarge { .. } => RefusedBecause::TooLarge,
        Refusal::Unavailable(_) => RefusedBecause::Unavailable,
        Refusal::NotRunning => RefusedBecause::NotRunning,
        Refusal::Unauthorized(_) => RefusedBecause::Unauthorized,
        Refusal::Invalid(_) => RefusedBecause::Invalid,
        Refusal::Full(_) => RefusedBecause::Full,
        Refusal::Other { .. } => RefusedBecause::Other,
    }
}

impl Store for MeasuredStore {
    fn identity(&self) -> String {
        self.inner.identity()
    }

    fn ensure(
        &self,
        bucket: Bucket,
        config: BucketConfig,
        deadline: Instant,
    ) -> Result<BucketStatus> {
        self.measure(StoreCall::Ensure, || {
            self.inner.ensure(bucket, config, deadline)
        })
    }

    fn capabilities(&self, bucket: Bucket, deadline: Instant) -> Result<Capabilities> {
        self.measure(StoreCall::Capabilities, || {
            self.inner.capabilities(bucket, deadline)
        })
    }

    fn read(&self, bucket: Bucket, key: &str, deadline: Instant) -> Result<Option<Entry>> {
        self.measure(StoreCall::Read, || self.inner.read(bucket, key, deadline))
    }

    fn list(&self, bucket: Bucket, prefix: &str, deadline: Instant) -> Result<Listing> {
        self.measure(StoreCall::List, || {
            self.inner.list(bucket, prefix, deadline)
        })
    }

    fn write(&self, bucket: Bucket, writes: &[Write], deadline: Instant) -> Vec<Outcome> {
        let begun = Instant::now();
        let outcomes = self.inner.write(bucket, writes, deadline);
        self.tell_outcomes(StoreCall::Write, begun, &outcomes);
        outcomes
    }

    fn write_batch(&self, bucket: Bucket, batch: &Batch, deadline: Instant) -> Outcome {
        let begun = Instant::now();
        let outcome = self.inner.write_batch(bucket, batch, deadline);
        self.tell_outcomes(StoreCall::WriteBatch, begun, std::slice::from_ref(&outcome));
        outcome
    }

    fn watch(&self, bucket: Bucket, prefix: &str) -> Result<Watch> {
        self.measure(StoreCall::Watch, || self.inner.watch(bucket, prefix))
    }

    fn watch_key(&self, bucket: Bucket, key: &str) -> Result<Watch> {
        self.measure(StoreCall::Watch, || self.inner.watch_key(bucket, key))
    }

    fn health(&self) -> Health {
        self.inner.health()
    }

    fn health_events(&self) -> HealthEvents {
        self.inner.health_events()
    }

    fn stop(&self, deadline: Instant) -> Result<()> {
        self.inner.stop(deadline)
    }
}

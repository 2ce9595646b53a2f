//! What `dv-publish` works with, wrapped: so that a stop can say what it waits for, and so that
//! nothing new begins once a stop was asked for.
//!
//! Host code may hang for as long as it likes. When it comes back after the stop, its result is
//! thrown away: a plan that was computed by then is never published. Reads are refused for the
//! same reason. Writes pass, so that a publication which has begun is not left half done.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, TryRecvError};

use crate::error::{Code, Error, Result};
use crate::runtime::publish::partition_list::PartitionSource;
use crate::store::{
    Batch, Bucket, BucketConfig, BucketStatus, Capabilities, Entry, Health, HealthEvents, Listing,
    Outcome, Store, Watch, Write,
};
use crate::strategy::{PlanInput, Strategy, WorkerIndex};
use crate::types::Partition;

/// What `dv-publish` is waiting for, if for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum HostOperation {
    None,
    Store,
    Source,
    Strategy,
}

/// Description of the operation in progress, read by `stop`.
#[derive(Debug, Default)]
pub(crate) struct CurrentOperation(AtomicU8);

impl CurrentOperation {
    /// In description that continue "still busy".
    pub fn description(&self) -> &'static str {
        const STORE: u8 = HostOperation::Store as u8;
        const SOURCE: u8 = HostOperation::Source as u8;
        const STRATEGY: u8 = HostOperation::Strategy as u8;
        match self.0.load(Ordering::Acquire) {
            STORE => " (waiting for the store)",
            SOURCE => " (in the host's partition source)",
            STRATEGY => " (in the strategy)",
            _ => "",
        }
    }

    fn run<R>(&self, operation_in_progress: HostOperation, work: impl FnOnce() -> R) -> R {
        /// Also when the host's code panics.
        struct Reset<'a>(&'a AtomicU8);
        impl Drop for Reset<'_> {
            fn drop(&mut self) {
                self.0.store(HostOperation::None as u8, Ordering::Release);
            }
        }
        self.0.store(operation_in_progress as u8, Ordering::Release);
        let _reset = Reset(&self.0);
        work()
    }
}

/// Something that `dv-publish` works with, until it is to stop.
#[derive(Clone)]
pub(crate) struct StopGuarded<T: ?Sized> {
    pub inner: Arc<T>,
    pub stop: Receiver<Infallible>,
    pub operation_in_progress: Arc<CurrentOperation>,
}

impl<T: ?Sized> StopGuarded<T> {
    fn is_stopped(&self) -> bool {
        self.stop.try_recv() == Err(TryRecvError::Disconnected)
    }

    fn check(&self) -> Result<()> {
        if self.is_stopped() {
            return Err(Error::new(Code::NotRunning, "the calculator is stopping"));
        }
        Ok(())
    }

    /// Carries out what may take long, unless a stop was asked for before.
    fn guard<R>(
        &self,
        operation_in_progress: HostOperation,
        work: impl FnOnce(&T) -> Result<R>,
    ) -> Result<R> {
        self.check()?;
        self.operation_in_progress
            .run(operation_in_progress, || work(&self.inner))
    }
}

impl PartitionSource for StopGuarded<dyn PartitionSource> {
    fn list_partitions(&self, deadline: Instant) -> Result<Vec<Partition>> {
        let list = self.guard(HostOperation::Source, |source| {
            source.list_partitions(deadline)
        })?;
        self.check()?;
        Ok(list)
    }
}

impl Strategy for StopGuarded<dyn Strategy> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn assign(&self, input: &PlanInput<'_>) -> Result<Vec<WorkerIndex>> {
        let owners = self.guard(HostOperation::Strategy, |strategy| strategy.assign(input))?;
        self.check()?;
        Ok(owners)
    }
}

impl Store for StopGuarded<dyn Store> {
    fn identity(&self) -> String {
        self.inner.identity()
    }

    fn ensure(
        &self,
        bucket: Bucket,
        config: BucketConfig,
        deadline: Instant,
    ) -> Result<BucketStatus> {
        self.guard(HostOperation::Store, |s| s.ensure(bucket, config, deadline))
    }

    fn capabilities(&self, bucket: Bucket, deadline: Instant) -> Result<Capabilities> {
        self.guard(HostOperation::Store, |s| s.capabilities(bucket, deadline))
    }

    fn read(&self, bucket: Bucket, key: &str, deadline: Instant) -> Result<Option<Entry>> {
        self.guard(HostOperation::Store, |s| s.read(bucket, key, deadline))
    }

    fn list(&self, bucket: Bucket, prefix: &str, deadline: Instant) -> Result<Listing> {
        self.guard(HostOperation::Store, |s| s.list(bucket, prefix, deadline))
    }

    fn write(&self, bucket: Bucket, writes: &[Write], deadline: Instant) -> Vec<Outcome> {
        self.operation_in_progress.run(HostOperation::Store, || {
            self.inner.write(bucket, writes, deadline)
        })
    }

    fn write_batch(&self, bucket: Bucket, batch: &Batch, deadline: Instant) -> Outcome {
        self.operation_in_progress.run(HostOperation::Store, || {
            self.inner.write_batch(bucket, batch, deadline)
        })
    }

    fn watch(&self, bucket: Bucket, prefix: &str) -> Result<Watch> {
        self.inner.watch(bucket, prefix)
    }

    fn watch_key(&self, bucket: Bucket, key: &str) -> Result<Watch> {
        self.inner.watch_key(bucket, key)
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

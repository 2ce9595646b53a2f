//! Stores that wrap another store and look at, or decide about, every call.

use std::time::Instant;

use super::{
    Batch, Bucket, BucketConfig, BucketStatus, Capabilities, Entry, Health, HealthEvents, Listing,
    Outcome, Refusal, Store, Watch, Write,
};
use crate::error::{Error, Result};
pub use crate::vocabulary::labels::StoreCall;

impl StoreCall {
    /// Whether the call changes values.
    #[must_use]
    pub fn is_write(self) -> bool {
        matches!(self, Self::Write | Self::WriteBatch)
    }
}

/// One call, as a layer sees it. What a layer changes of `bucket` and `deadline` takes effect.
#[derive(Clone, Copy, Debug)]
pub struct LayerCall<'a> {
    /// What is called.
    pub kind: StoreCall,
    /// The bucket.
    pub bucket: Bucket,
    /// The key of a read.
    pub key: Option<&'a str>,
    /// How many writes the call asks for.
    pub writes: usize,
    /// By when the call has to return. A watch has none; here it is the time of the call.
    pub deadline: Instant,
}

/// The result of a call.
pub trait StoreAnswer: Sized {
    /// The result of a call that was not made, or of `writes` writes that were not.
    fn refused(error: Error, writes: usize) -> Self;
    /// How each write ended; `None` for calls that write nothing.
    fn outcomes(&self) -> Option<&[Outcome]>;
    /// Why a call that writes nothing failed.
    fn error(&self) -> Option<&Error>;
    /// Changes the error of a call that writes nothing.
    #[must_use]
    fn map_error(self, change: impl FnOnce(Error) -> Error) -> Self;
}

impl<T> StoreAnswer for Result<T> {
    fn refused(error: Error, _: usize) -> Self {
        Err(error)
    }

    fn outcomes(&self) -> Option<&[Outcome]> {
        None
    }

    fn error(&self) -> Option<&Error> {
        self.as_ref().err()
    }

    fn map_error(self, change: impl FnOnce(Error) -> Error) -> Self {
        self.map_err(change)
    }
}

impl StoreAnswer for Outcome {
    fn refused(error: Error, _: usize) -> Self {
        Self::Refused(Refusal::Unavailable(error.message().to_owned()))
    }

    fn outcomes(&self) -> Option<&[Outcome]> {
        Some(std::slice::from_ref(self))
    }

    fn error(&self) -> Option<&Error> {
        None
    }

    fn map_error(self, _: impl FnOnce(Error) -> Error) -> Self {
        self
    }
}

impl StoreAnswer for Vec<Outcome> {
    fn refused(error: Error, writes: usize) -> Self {
        vec![Outcome::refused(error, 1); writes]
    }

    fn outcomes(&self) -> Option<&[Outcome]> {
        Some(self)
    }

    fn error(&self) -> Option<&Error> {
        None
    }

    fn map_error(self, _: impl FnOnce(Error) -> Error) -> Self {
        self
    }
}

/// A store over another one. All calls that reach the server, or open a watch, pass through
/// [`StoreLayer::call`]; everything else goes to the inner store.
pub trait StoreLayer: Send + Sync {
    /// The store below.
    fn inner(&self) -> &dyn Store;

    /// Checks a bucket that [`Store::ensure`] has found or created.
    ///
    /// # Errors
    /// Why the bucket must not be used.
    fn ensured(&self, _bucket: Bucket, _status: &BucketStatus, _deadline: Instant) -> Result<()> {
        Ok(())
    }

    /// Makes a call, changes it, measures it, or refuses it. `run` makes it on a store.
    fn call<A: StoreAnswer>(
        &self,
        call: LayerCall<'_>,
        run: impl FnOnce(&dyn Store, &LayerCall<'_>) -> A,
    ) -> A;
}

fn call(kind: StoreCall, bucket: Bucket, deadline: Instant) -> LayerCall<'static> {
    LayerCall {
        kind,
        bucket,
        key: None,
        writes: 0,
        deadline,
    }
}

impl<L: StoreLayer> Store for L {
    fn identity(&self) -> String {
        self.inner().identity()
    }

    fn fleet(&self) -> String {
        self.inner().fleet()
    }

    fn hand_over_claims(&self, deadline: Instant) -> Result<u64> {
        self.inner().hand_over_claims(deadline)
    }

    fn ensure(
        &self,
        bucket: Bucket,
        config: BucketConfig,
        deadline: Instant,
    ) -> Result<BucketStatus> {
        let ensure = call(StoreCall::Ensure, bucket, deadline);
        let status = self.call(ensure, |store, call| {
            store.ensure(call.bucket, config, call.deadline)
        })?;
        self.ensured(bucket, &status, deadline)?;
        Ok(status)
    }

    fn capabilities(&self, bucket: Bucket, deadline: Instant) -> Result<Capabilities> {
        let capabilities = call(StoreCall::Capabilities, bucket, deadline);
        self.call(capabilities, |store, call| {
            store.capabilities(call.bucket, call.deadline)
        })
    }

    fn read(&self, bucket: Bucket, key: &str, deadline: Instant) -> Result<Option<Entry>> {
        let read = LayerCall {
            key: Some(key),
            ..call(StoreCall::Read, bucket, deadline)
        };
        self.call(read, |store, call| {
            store.read(call.bucket, key, call.deadline)
        })
    }

    fn list(&self, bucket: Bucket, prefix: &str, deadline: Instant) -> Result<Listing> {
        let list = call(StoreCall::List, bucket, deadline);
        self.call(list, |store, call| {
            store.list(call.bucket, prefix, call.deadline)
        })
    }

    fn write(&self, bucket: Bucket, writes: &[Write], deadline: Instant) -> Vec<Outcome> {
        let write = LayerCall {
            writes: writes.len(),
            ..call(StoreCall::Write, bucket, deadline)
        };
        self.call(write, |store, call| {
            store.write(call.bucket, writes, call.deadline)
        })
    }

    fn write_batch(&self, bucket: Bucket, batch: &Batch, deadline: Instant) -> Outcome {
        let write = LayerCall {
            writes: 1,
            ..call(StoreCall::WriteBatch, bucket, deadline)
        };
        self.call(write, |store, call| {
            store.write_batch(call.bucket, batch, call.deadline)
        })
    }

    fn watch(&self, bucket: Bucket, prefix: &str) -> Result<Watch> {
        let watch = call(StoreCall::Watch, bucket, Instant::now());
        self.call(watch, |store, call| store.watch(call.bucket, prefix))
    }

    fn watch_key(&self, bucket: Bucket, key: &str) -> Result<Watch> {
        let watch = call(StoreCall::Watch, bucket, Instant::now());
        self.call(watch, |store, call| store.watch_key(call.bucket, key))
    }

    fn health(&self) -> Health {
        self.inner().health()
    }

    fn health_events(&self) -> HealthEvents {
        self.inner().health_events()
    }

    fn stop(&self, deadline: Instant) -> Result<()> {
        self.inner().stop(deadline)
    }
}

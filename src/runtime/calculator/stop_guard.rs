//! What `dv-publish` works with, wrapped: so that a stop can say what it waits for, and so that
//! nothing new begins once a stop was asked for.
//!
//! Host code may hang for as long as it likes. When it comes back after the stop, its result is
//! thrown away: a plan that was computed by then is never published. Reads are refused for the
//! same reason. Writes pass, so that a publication which has begun is not left half done.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crossbeam_channel::{Receiver, TryRecvError};

use crate::error::{Code, Error, Result};
use crate::runtime::running_host_calls::HostCalls;
use crate::store::Store;
use crate::store::layer::{LayerCall, StoreAnswer, StoreCall, StoreLayer};
use crate::strategy::{PlanInput, Strategy, WorkerIndex};
use crate::vocabulary::labels::HostCall;

/// What `dv-publish` is waiting for, if for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum HostOperation {
    None,
    Store,
    Strategy,
}

/// Description of the operation in progress, read by `stop`.
#[derive(Debug, Default)]
pub(crate) struct CurrentOperation(AtomicU8);

impl CurrentOperation {
    /// In description that continue "still busy".
    pub fn description(&self) -> &'static str {
        const STORE: u8 = HostOperation::Store as u8;
        const STRATEGY: u8 = HostOperation::Strategy as u8;
        match self.0.load(Ordering::Acquire) {
            STORE => " (waiting for the store)",
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
    /// Calls of the strategy are registered here.
    pub host_calls: Arc<HostCalls>,
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

impl Strategy for StopGuarded<dyn Strategy> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn assign(&self, input: &PlanInput<'_>) -> Result<Vec<WorkerIndex>> {
        let owners = self.guard(HostOperation::Strategy, |strategy| {
            self.host_calls
                .run(HostCall::Strategy, || strategy.assign(input))
        })?;
        self.check()?;
        Ok(owners)
    }
}

impl StoreLayer for StopGuarded<dyn Store> {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn call<A: StoreAnswer>(
        &self,
        call: LayerCall<'_>,
        run: impl FnOnce(&dyn Store, &LayerCall<'_>) -> A,
    ) -> A {
        if call.kind == StoreCall::Watch {
            return run(self.inner(), &call);
        }
        if let (false, Err(stopped)) = (call.kind.is_write(), self.check()) {
            return A::refused(stopped, call.writes);
        }
        self.operation_in_progress
            .run(HostOperation::Store, || run(self.inner(), &call))
    }
}

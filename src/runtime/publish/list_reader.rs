//! Reading the host's partition source, directly or on a thread of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, select_biased};

use super::host_call::guarded;
use crate::error::{Code, Error, Result};
use crate::types::Partition;

/// Where the partition list comes from when it is pulled.
///
/// Called on the thread `dv-source`: at the start, at every rebalance, at `refresh` and every
/// [`CalculatorConfig::source_refresh_interval`]. A rebalance waits for it for
/// [`CalculatorConfig::source_wait`] and then uses the last list; a change that arrives later is
/// published afterwards. After an error or a panic the last list stays in force, and the source is
/// called again.
///
/// [`CalculatorConfig::source_refresh_interval`]: crate::CalculatorConfig::source_refresh_interval
/// [`CalculatorConfig::source_wait`]: crate::CalculatorConfig::source_wait
///
/// ```
/// use std::time::Instant;
///
/// use divvy::{Partition, PartitionSource};
///
/// struct Database;
///
/// impl PartitionSource for Database {
///     fn list_partitions(&self, deadline: Instant) -> divvy::Result<Vec<Partition>> {
///         // Query the database, with a time limit of `deadline`.
///         # let _ = deadline;
///         Ok(vec![Partition::new(["tool001"], 100)])
///     }
/// }
/// ```
pub trait PartitionSource: Send + Sync {
    /// Returns all partitions: unique by keys, each with at least one key, in any order. Should
    /// return by `deadline`, which is [`CalculatorConfig::host_call_timeout`] ahead; a call that
    /// takes longer is reported until it returns.
    ///
    /// # Errors
    /// Any; its text appears in log, event, status and the error of a waiting call.
    ///
    /// [`CalculatorConfig::host_call_timeout`]: crate::CalculatorConfig::host_call_timeout
    fn list_partitions(&self, deadline: Instant) -> Result<Vec<Partition>>;
}

impl<F> PartitionSource for F
where
    F: Fn() -> Result<Vec<Partition>> + Send + Sync,
{
    fn list_partitions(&self, _deadline: Instant) -> Result<Vec<Partition>> {
        self()
    }
}

impl<S: PartitionSource> PartitionSource for Arc<S> {
    fn list_partitions(&self, deadline: Instant) -> Result<Vec<Partition>> {
        (**self).list_partitions(deadline)
    }
}

/// What a source returned, and the change of the list that the call covers.
pub type SourceAnswer = (u64, Result<Vec<Partition>>);

/// Reads a partition source for `dv-publish`.
pub trait ListReader: Send {
    /// Waits until `wait` for what the source returns. A call that takes longer continues, and `None`
    /// is returned. `generation` is the change that a call started now covers.
    fn read(
        &mut self,
        source: &dyn PartitionSource,
        generation: u64,
        wait: Instant,
    ) -> Option<SourceAnswer>;
}

/// Calls the source on the thread that reads, for as long as it takes.
#[derive(Debug)]
pub struct DirectReader;

impl ListReader for DirectReader {
    fn read(
        &mut self,
        source: &dyn PartitionSource,
        generation: u64,
        wait: Instant,
    ) -> Option<SourceAnswer> {
        Some((generation, call(source, wait)))
    }
}

/// Calls the source; a panic in it becomes an error.
fn call(source: &dyn PartitionSource, deadline: Instant) -> Result<Vec<Partition>> {
    guarded(Code::SourceFailed, "partition source", || {
        source.list_partitions(deadline)
    })
}

/// The side of `dv-publish`: asks `dv-source` for the list.
pub(crate) struct ThreadedReader {
    calls: Sender<u64>,
    answers: Receiver<SourceAnswer>,
    /// Since when a call has been running.
    running: Option<Instant>,
    is_awaited: Arc<AtomicBool>,
    stop: Receiver<Infallible>,
}

/// The side of `dv-source`: calls the source.
pub(crate) struct SourceThread {
    calls: Receiver<u64>,
    answers: Sender<SourceAnswer>,
    is_awaited: Arc<AtomicBool>,
    timeout: Duration,
}

/// Both sides. The source is asked to return within `timeout`.
pub(crate) fn threaded(
    stop: Receiver<Infallible>,
    timeout: Duration,
) -> (ThreadedReader, SourceThread) {
    let (calls, asked) = bounded(1);
    let (answers, answered) = bounded(1);
    let is_awaited = Arc::<AtomicBool>::default();
    let reader = ThreadedReader {
        calls,
        answers: answered,
        running: None,
        is_awaited: Arc::clone(&is_awaited),
        stop,
    };
    let thread = SourceThread {
        calls: asked,
        answers,
        is_awaited,
        timeout,
    };
    (reader, thread)
}

impl ListReader for ThreadedReader {
    fn read(
        &mut self,
        _source: &dyn PartitionSource,
        generation: u64,
        wait: Instant,
    ) -> Option<SourceAnswer> {
        self.is_awaited.store(true, Ordering::SeqCst);
        let now = Instant::now();
        // A call is waited for once: what has been running for longer hangs.
        let remaining = wait.saturating_duration_since(now);
        let remaining = match self.running {
            Some(since) => remaining.saturating_sub(since.elapsed()),
            None => remaining,
        };
        if self.running.is_none() {
            self.running = Some(now);
            // One call is under way at a time, so there is a place for it.
            let _ = self.calls.try_send(generation);
        }
        let answer = select_biased! {
            recv(self.stop) -> _ => {
                let stopped = Error::new(Code::NotRunning, "the calculator is stopping");
                return Some((generation, Err(stopped)));
            }
            recv(self.answers) -> answer => answer.ok(),
            recv(after(remaining)) -> _ => {
                // From here on `dv-source` reports that it is done. What it answered just before
                // is taken.
                self.is_awaited.store(false, Ordering::SeqCst);
                self.answers.try_recv().ok()
            }
        };
        if answer.is_some() {
            self.running = None;
        }
        answer
    }
}

impl SourceThread {
    /// The thread's body; ends when `stop` is disconnected. `report` is called with the change that
    /// a call covers if its answer is not awaited any more.
    pub fn run(
        self,
        source: &dyn PartitionSource,
        stop: &Receiver<Infallible>,
        report: impl Fn(u64),
    ) {
        loop {
            let generation = select_biased! {
                recv(stop) -> _ => return,
                recv(self.calls) -> generation => match generation {
                    Ok(generation) => generation,
                    Err(_) => return,
                },
            };
            let answer = call(source, Instant::now() + self.timeout);
            let _ = self.answers.try_send((generation, answer));
            if !self.is_awaited.load(Ordering::SeqCst) {
                report(generation);
            }
        }
    }
}

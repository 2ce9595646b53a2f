//! `dv-io`: waits for the store and for the host's election, so that `dv-member` need not.
//!
//! One thread suffices as long as answers come at once. While they do not, each further request
//! gets a thread of its own, so that a heartbeat never waits behind a read of another bucket. When
//! they have not all been needed for a while, one of them ends.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, after, select_biased, unbounded};
use parking_lot::Mutex;

use crate::error::{Code, Error, Result};
use crate::machine::request::{Answer, Request, Value};
use crate::runtime::running_host_calls::HostCalls;
use crate::store::{BucketConfig, Outcome, Store, Write};
use crate::threads::panic_text;
use crate::time::clock::wall_clock_at;
use crate::types::WorkerId;
use crate::vocabulary::labels::HostCall;
use crate::wire;

/// How long an idle thread is kept, unless it is the last one.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// An election of the host, which replaces the lease in the store.
///
/// Both methods are called on a thread of the manager: `campaign` repeatedly while the worker is a
/// member, three times within the granted time or the election timeout. They should return by the
/// deadline. An error or a panic counts as "unknown", and a leader continues to lead until its last
/// grant has nearly expired.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use divvy::{LeaderElection, WorkerId};
///
/// /// Worker 0 always leads.
/// struct Fixed;
///
/// impl LeaderElection for Fixed {
///     fn campaign(&self, worker: &WorkerId, _: Instant) -> divvy::Result<Option<Duration>> {
///         let leads = worker.as_str() == "worker-0";
///         Ok(leads.then_some(Duration::from_secs(10)))
///     }
///
///     fn resign(&self, _: &WorkerId, _: Instant) -> divvy::Result<()> {
///         Ok(())
///     }
/// }
/// ```
pub trait LeaderElection: Send + Sync {
    /// Acquires or renews the leadership. Returns how long this worker leads from now on, or `None`
    /// if another worker leads.
    ///
    /// # Errors
    /// Any failure of the election.
    fn campaign(&self, worker: &WorkerId, deadline: Instant) -> Result<Option<Duration>>;

    /// Releases the leadership.
    ///
    /// # Errors
    /// Any failure of the election. The call is not retried.
    fn resign(&self, worker: &WorkerId, deadline: Instant) -> Result<()>;
}

impl<E: LeaderElection> LeaderElection for Arc<E> {
    fn campaign(&self, worker: &WorkerId, deadline: Instant) -> Result<Option<Duration>> {
        (**self).campaign(worker, deadline)
    }

    fn resign(&self, worker: &WorkerId, deadline: Instant) -> Result<()> {
        (**self).resign(worker, deadline)
    }
}

/// The host's election, its calls registered.
pub(super) struct SupervisedElection {
    pub inner: Arc<dyn LeaderElection>,
    pub host_calls: Arc<HostCalls>,
}

impl LeaderElection for SupervisedElection {
    fn campaign(&self, worker: &WorkerId, deadline: Instant) -> Result<Option<Duration>> {
        self.host_calls
            .run(HostCall::Election, || self.inner.campaign(worker, deadline))
    }

    fn resign(&self, worker: &WorkerId, deadline: Instant) -> Result<()> {
        self.host_calls
            .run(HostCall::Election, || self.inner.resign(worker, deadline))
    }
}

/// Carries out one request and waits for its answer.
pub fn perform(
    store: &dyn Store,
    election: Option<&dyn LeaderElection>,
    request: Request,
    deadline: Instant,
) -> Answer {
    perform_at(store, election, request, deadline, SystemTime::now())
}

/// Carries out one request; what is written says that it is `wall` now.
pub fn perform_at(
    store: &dyn Store,
    election: Option<&dyn LeaderElection>,
    request: Request,
    deadline: Instant,
    wall: SystemTime,
) -> Answer {
    match request {
        Request::Ensure { bucket, ttl } => {
            Answer::Ensured(store.ensure(bucket, BucketConfig { ttl }, deadline))
        }
        Request::List(bucket) => Answer::Listed(store.list(bucket, "", deadline)),
        Request::CountClaims => Answer::Claims(store.hand_over_claims(deadline)),
        Request::Read { bucket, key } => Answer::Read(store.read(bucket, &key, deadline)),
        Request::Put {
            bucket,
            key,
            value,
            expect,
        } => {
            let value = encode(&value, wall);
            let write = Write {
                key,
                value: Some(value.clone()),
                expect,
            };
            let outcome = only(store.write(bucket, &[write], deadline));
            Answer::Written { outcome, value }
        }
        Request::Delete {
            bucket,
            key,
            expect,
        } => {
            let write = Write {
                key,
                value: None,
                expect,
            };
            Answer::Written {
                outcome: only(store.write(bucket, &[write], deadline)),
                value: Vec::new(),
            }
        }
        Request::Campaign(worker) => Answer::Campaigned(hosts(election, |election| {
            election.campaign(&worker, deadline)
        })),
        Request::Resign(worker) => Answer::Campaigned(
            hosts(election, |election| election.resign(&worker, deadline)).map(|()| None),
        ),
    }
}

fn encode(value: &Value, wall: SystemTime) -> Vec<u8> {
    match value {
        Value::Claim(nonce, instance) => {
            wire::encode_claim(&wall_clock_at(wall), *nonce, instance.as_deref())
        }
        Value::Kept(instance) => wire::encode_kept(&wall_clock_at(wall), instance.as_deref()),
        Value::Lease(worker) => {
            let now = wall.duration_since(SystemTime::UNIX_EPOCH);
            wire::encode_lease(worker, now.unwrap_or_default().as_secs())
        }
        Value::Beat(worker, report) => {
            wire::encode_heartbeat(worker, &wall_clock_at(wall), *report)
        }
    }
}

/// One write has one outcome.
fn only(outcomes: Vec<Outcome>) -> Outcome {
    let none = || Outcome::Unknown("the store returned no answer".into());
    outcomes.into_iter().next().unwrap_or_else(none)
}

fn hosts<R>(
    election: Option<&dyn LeaderElection>,
    call: impl FnOnce(&dyn LeaderElection) -> Result<R>,
) -> Result<R> {
    let election =
        election.ok_or_else(|| Error::new(Code::Unsupported, "no host election is set"))?;
    let call = std::panic::AssertUnwindSafe(|| call(election));
    std::panic::catch_unwind(call).unwrap_or_else(|panic| {
        let message = format!(
            "the host's election panicked: {}",
            panic_text(panic.as_ref())
        );
        std::mem::forget(panic);
        Err(Error::new(Code::Panicked, message))
    })
}

type IoJob = Box<dyn FnOnce() + Send>;

/// Starts another thread that runs this.
pub(super) type Spawn = Box<dyn Fn(Box<dyn FnOnce() + Send>) -> Result<()> + Send + Sync>;

/// The threads that wait.
pub(super) struct Io {
    jobs: Sender<IoJob>,
    queue: Receiver<IoJob>,
    stopped: Receiver<Infallible>,
    spawn: Spawn,
    load: Mutex<IoLoad>,
}

#[derive(Debug)]
struct IoLoad {
    threads: usize,
    /// Jobs that wait or are under way.
    jobs: usize,
    /// When all threads were last busy.
    needed: Instant,
}

impl Io {
    /// Starts one thread. Each thread ends after its request once `stopped` is disconnected.
    ///
    /// # Errors
    /// When not even that thread can be started.
    pub fn start(stopped: Receiver<Infallible>, spawn: Spawn) -> Result<Arc<Self>> {
        // Each part of a manager has one request under way at most, so no bound is needed.
        let (jobs, queue) = unbounded();
        let io = Arc::new(Self {
            jobs,
            queue,
            stopped,
            spawn,
            load: Mutex::new(IoLoad {
                threads: 1,
                jobs: 0,
                needed: Instant::now(),
            }),
        });
        io.spawn_one()?;
        Ok(io)
    }

    fn spawn_one(self: &Arc<Self>) -> Result<()> {
        let io = Arc::clone(self);
        (self.spawn)(Box::new(move || io.run()))
    }

    /// Has `job` run on a thread. Does not wait for it.
    pub fn submit(self: &Arc<Self>, job: impl FnOnce() + Send + 'static) {
        let needs_thread = {
            let mut load = self.load.lock();
            load.jobs += 1;
            let needs_thread = load.jobs > load.threads;
            load.threads += usize::from(needs_thread);
            if load.jobs == load.threads {
                load.needed = Instant::now();
            }
            needs_thread
        };
        // The receiver is in our own hand.
        let _ = self.jobs.send(Box::new(job));
        // Where the system has no thread left, the job waits for one of those there are.
        if needs_thread && self.spawn_one().is_err() {
            self.load.lock().threads -= 1;
        }
    }

    fn run(&self) {
        loop {
            select_biased! {
                recv(self.stopped) -> _ => return,
                recv(self.queue) -> job => {
                    let Ok(job) = job else { return };
                    job();
                    self.load.lock().jobs -= 1;
                }
                recv(after(IDLE_MAX)) -> _ => {}
            }
            if self.is_one_too_many() {
                return;
            }
        }
    }

    /// Whether the thread that asks is not needed. They take turns, so that none of them need ever
    /// be idle for long where one would do.
    fn is_one_too_many(&self) -> bool {
        let mut load = self.load.lock();
        let is_spare = load.threads > 1 && load.jobs < load.threads;
        let is_over = is_spare && load.needed.elapsed() >= IDLE_MAX;
        if is_over {
            load.threads -= 1;
            load.needed = Instant::now();
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;
    use crate::threads::signal;

    #[test]
    fn job_never_queues_behind_hung_job() {
        let (_stop, stopped) = signal();
        let threads = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&threads);
        let spawn = move |body: Box<dyn FnOnce() + Send>| {
            list.lock().push(std::thread::spawn(body));
            Ok(())
        };
        let io = Io::start(stopped, Box::new(spawn)).unwrap();
        let (release, hang) = bounded::<()>(0);
        let (sender, reported) = bounded(10);
        for _ in 0..3 {
            let hang = hang.clone();
            io.submit(move || hang.recv().unwrap_or(()));
        }
        for n in 0..2 {
            let sender = sender.clone();
            io.submit(move || sender.send(n).unwrap());
            assert_eq!(reported.recv().unwrap(), n);
        }
        // The one that was free was used again, whether or not it had said so by then.
        assert!((4..=5).contains(&threads.lock().len()));
        drop(release);
        drop(_stop);
        for thread in threads.lock().drain(..) {
            thread.join().unwrap();
        }
    }

    #[test]
    fn jobs_wait_for_existing_threads_when_no_more_can_start() {
        let (stop, stopped) = signal();
        let threads = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&threads);
        let spawn = move |body: Box<dyn FnOnce() + Send>| {
            let mut list = list.lock();
            if !list.is_empty() {
                return Err(Error::new(Code::Unavailable, "no thread left"));
            }
            list.push(std::thread::spawn(body));
            Ok(())
        };
        let io = Io::start(stopped, Box::new(spawn)).unwrap();
        let (sender, reported) = bounded(10);
        for n in 0..5 {
            let sender = sender.clone();
            io.submit(move || sender.send(n).unwrap());
        }
        assert_eq!(reported.iter().take(5).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        drop(stop);
        for thread in threads.lock().drain(..) {
            thread.join().unwrap();
        }
    }
}

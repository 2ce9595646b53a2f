//! `dv-publish`: runs jobs, one at a time. It may block on the store, the partition source and the
//! strategy; every wait for it has a deadline.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, after, never, select_biased};

use super::calculator_shared::{CalculatorShared, ProbeResult};
use super::thread_messages::ToPublisher;
use super::thread_messages::{Started, ToDriver};
use crate::config::CalculatorConfig;
use crate::error::{Code, Error, Result};
use crate::machine::calculator::{CalculatorInput, Job, JobReport};
use crate::machine::list_guard::HeldList;
use crate::metrics::{JobKind, Success};
use crate::runtime::common::event_log::EventLog;
use crate::runtime::guarded_store::GuardedStore;
use crate::runtime::publish::publisher::PublisherEnvironment;
use crate::runtime::publish::rebalancer::Rebalancer;
use crate::store::{Bucket, BucketConfig, Store};
use crate::time::backoff::Backoff;
use crate::time::clock::Clock;

/// How soon a held list is asked for again whose job has not come.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The thread's own state.
pub(crate) struct AssignmentPublisher {
    pub store: Arc<dyn Store>,
    /// The same, for what its breaker does.
    pub guarded_store: Arc<GuardedStore>,
    pub clock: Arc<dyn Clock>,
    pub config: CalculatorConfig,
    pub rebalancer: Rebalancer,
    pub environment: Arc<dyn PublisherEnvironment>,
    pub to_driver: Sender<ToDriver>,
    pub shared: Arc<CalculatorShared>,
}

impl AssignmentPublisher {
    /// The thread's body: takes over until `start_deadline`, then works until `stop` is
    /// disconnected.
    pub fn run(
        mut self,
        start_deadline: Instant,
        jobs: &Receiver<ToPublisher>,
        stop: &Receiver<Infallible>,
    ) {
        let started = self.take_over(start_deadline);
        let succeeded = started.is_ok();
        if self.to_driver.send(ToDriver::Started(started)).is_err() || !succeeded {
            return;
        }
        if !self.report_held_list() {
            return;
        }
        // Whether the list that was held back long enough was asked for; its job may be late.
        let mut is_asked_for = false;
        loop {
            let held_list = match self.rebalancer.held_list_due_in() {
                Some(due) if is_asked_for => after(due.max(ASK_AGAIN_AFTER)),
                Some(due) => after(due),
                None => never(),
            };
            let job = select_biased! {
                recv(stop) -> _ => return,
                recv(jobs) -> job => match job {
                    Ok(job) => job,
                    Err(_) => return,
                },
                recv(held_list) -> _ => {
                    is_asked_for = true;
                    let changed = CalculatorInput::PartitionsChanged {
                        generation: self.rebalancer.touch_list(),
                        ticket: None,
                    };
                    if self.to_driver.send(ToDriver::CalculatorInput(changed)).is_err() {
                        return;
                    }
                    continue;
                }
            };
            is_asked_for = false;
            // Yield: the thread that was just woken may be next on this core, and a plan can occupy
            // it for long.
            std::thread::yield_now();
            let deadline = Instant::now() + job.job.timeout(&self.config);
            let result = self.work(job.job, deadline);
            if !self.report_held_list() {
                return;
            }
            let done = CalculatorInput::JobDone {
                op: job.op,
                term: self.rebalancer.publisher().term(),
                result,
            };
            if self
                .to_driver
                .send(ToDriver::CalculatorInput(done))
                .is_err()
            {
                return;
            }
        }
    }

    fn work(&mut self, job: Job, deadline: Instant) -> Result<JobReport> {
        let (kind, reason) = match &job {
            Job::Publish { reason, .. } => (JobKind::Publish, Some(*reason)),
            Job::Inspect => (JobKind::Inspect, None),
            Job::Resolve { .. } => (JobKind::Resolve, None),
            Job::Probe => (JobKind::Probe, None),
        };
        let begun = Instant::now();
        let result = self.rebalancer.run(job, deadline);
        let success = success_of(&result);
        let metrics = &self.shared.metrics_sink.calculator;
        metrics.job_done(kind, success);
        if let Some(reason) = reason {
            metrics.rebalanced(reason, success, begun.elapsed());
        }
        self.note_list();
        self.note_store();
        if reason.is_some() && result.is_ok() {
            self.note_loads();
        }
        result
    }

    /// A publication can find that the bucket accepts batches by now, or no longer does.
    fn note_store(&self) {
        let Some((mode, store)) = self.rebalancer.publisher().probe_result() else {
            return;
        };
        let mut noted = self.shared.probe_result.lock();
        if noted.as_ref().is_none_or(|noted| noted.mode != mode) {
            *noted = Some(ProbeResult {
                mode,
                store: store.to_owned(),
            });
        }
    }

    /// What the status says of the partition list.
    fn note_list(&self) {
        let read_at = self.rebalancer.list_read_at();
        self.shared.list_read_at.store(read_at);
    }

    /// Reports a list that is held back from now on, and one that no longer is. Returns whether
    /// `dv-calc` still takes messages.
    fn report_held_list(&self) -> bool {
        let held = self.rebalancer.held_list();
        let mut noted = self.shared.held_list.lock();
        let counts = |list: &Option<HeldList>| list.as_ref().map(HeldList::counts);
        let is_same = counts(&noted) == counts(&held);
        noted.clone_from(&held);
        drop(noted);
        let report = ToDriver::CalculatorInput(CalculatorInput::ListHeld(held));
        is_same || self.to_driver.send(report).is_ok()
    }

    /// Set before the machine processes the plan, so that its event finds it.
    fn note_loads(&self) {
        let plan = self.rebalancer.plan();
        let workers = plan.into_iter().flat_map(|plan| {
            let counts = (0..).map(|index| plan.indices_of(index).len());
            plan.workers().iter().cloned().zip(counts)
        });
        *self.shared.loads.lock() = workers.collect();
    }

    /// Retries what may pass until the deadline; reports the rest at once.
    fn take_over(&mut self, deadline: Instant) -> Result<Started> {
        let config = &self.config;
        let seed = fastrand::u64(..);
        let mut backoff = Backoff::new(config.retry_delay_min, config.retry_delay_max, seed);
        let mut event_log = EventLog::default();
        let mut attempts = 0;
        loop {
            // One call without an answer must not use up the time of all tries.
            let wait = deadline.min(Instant::now() + self.config.operation_timeout);
            let result = self.try_take_over(wait);
            let success = success_of(&result);
            let metrics = &self.shared.metrics_sink.calculator;
            metrics.job_done(JobKind::TakeOver, success);
            let error = match result {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let pause = match self.until_probe() {
                Some(pause) => (pause < left).then_some(pause),
                None => backoff.next_delay_within(left),
            };
            attempts += 1;
            let error = error.with_attempts(attempts);
            let Some(pause) = pause.filter(|_| error.is_retriable()) else {
                return Err(error.with_operation("start"));
            };
            event_log.failed(self.clock.now(), "take-over", &error);
            if !self.environment.pause(pause) {
                return Err(error.with_operation("start"));
            }
        }
    }

    /// While the breaker is open the next try is its probe: its pauses take the place of ours.
    fn until_probe(&self) -> Option<Duration> {
        let probe_at = self.guarded_store.status().state.probe_at();
        probe_at.map(|probe_at| probe_at.since(self.clock.now()))
    }

    fn try_take_over(&mut self, deadline: Instant) -> Result<Started> {
        if !self.config.shadow {
            self.ensure_buckets(deadline)?;
        }
        let (found, malformed) = self.rebalancer.take_over(deadline)?;
        self.note_loads();
        self.note_list();
        let probe_result = self.rebalancer.publisher().probe_result();
        Ok(Started {
            found,
            malformed,
            probe_result: probe_result.map(|(mode, store)| ProbeResult {
                mode,
                store: store.to_owned(),
            }),
        })
    }

    fn ensure_buckets(&self, deadline: Instant) -> Result<()> {
        let heartbeats = BucketConfig {
            ttl: Some(self.config.heartbeat_ttl),
        };
        let status = self.store.ensure(Bucket::Heartbeat, heartbeats, deadline)?;
        if status.ttl != heartbeats.ttl {
            log::warn!(
                target: "divvy::calculator",
                "heartbeat TTL mismatch: bucket {} has {:?}, heartbeat_ttl is {:?}; set them to the same value",
                status.name, status.ttl, self.config.heartbeat_ttl
            );
        }
        let assignments = BucketConfig { ttl: None };
        let status = self
            .store
            .ensure(Bucket::Assignment, assignments, deadline)?;
        if let (Some(ttl), false) = (status.ttl, self.config.allow_assignment_ttl) {
            return Err(Error::new(
                Code::Unsupported,
                format!(
                    "bucket {} has a TTL of {ttl:?}: fence and versions would expire with the \
                     assignments; remove the TTL, or set allow_assignment_ttl",
                    status.name
                ),
            ));
        }
        Ok(())
    }
}

fn success_of<T>(result: &Result<T>) -> Success {
    match result {
        Ok(_) => Success::Yes,
        Err(_) => Success::No,
    }
}

/// The real environment of a publisher: the wall clock, and pauses that stop cuts short.
pub(crate) struct SystemEnvironment {
    pub stop: Receiver<Infallible>,
    pub clock: Arc<dyn Clock>,
    pub store: Arc<GuardedStore>,
}

impl PublisherEnvironment for SystemEnvironment {
    fn wall_clock(&self) -> String {
        crate::time::clock::wall_clock()
    }

    fn pause(&self, duration: Duration) -> bool {
        matches!(
            self.stop.recv_timeout(duration),
            Err(RecvTimeoutError::Timeout)
        )
    }

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn takes_calls(&self) -> bool {
        self.store.is_closed()
    }
}

//! A store behind a circuit breaker and a retry budget: callers can neither hammer a broken store
//! nor multiply the load of a slow one.
//!
//! * Calls that fail in a row open the breaker: from then on calls fail at once with its reason,
//!   but for one probe now and then. The first call that comes when a probe is due is the probe.
//! * A call whose predecessor of the same kind failed counts as its retry and costs a token of the
//!   retry budget. Without one it fails at once; that says nothing about the store.
//! * A call waits for its answer for a part of its operation's time, so that what is lost on the
//!   way can be asked again within it.
//!
//! Watches pass: they wait and recover by themselves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;

use crate::config::CalculatorConfig;
use crate::error::{Code, Error, Result};
use crate::machine::adaptive_timeout::AdaptiveTimeout;
use crate::machine::breaker::{
    Breaker, BreakerCondition, BreakerConfig, BreakerState, Permit, Verdict,
};
use crate::machine::request::{Answer, Request};
use crate::machine::retry_budget::{RetryBudget, RetryBudgetConfig};
use crate::metrics::{CalculatorMetrics, MeasuredStore, NoMetrics};
use crate::runtime::fleet_identity;
use crate::store::layer::{LayerCall, StoreAnswer, StoreCall, StoreLayer};
use crate::store::{Bucket, BucketStatus, Health, Outcome, Refusal, Store};
use crate::time::clock::Clock;
use crate::time::log_throttle::{LogThrottle, suppressed};
use crate::types::Time;
use crate::wire::FleetRecord;

/// Kinds of calls with separate retry state: reads and writes, for each bucket.
const KINDS: usize = 8;

/// The state of a store's circuit breaker, and counters of breaker and retry budget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerStatus {
    /// How it stands.
    pub state: BreakerCondition,
    /// How often it opened.
    pub opened: u64,
    /// Probes that went out.
    pub probes: u64,
    /// Calls that failed at once because it was not closed.
    pub refused: u64,
    /// Calls that were retries and went out.
    pub retries: u64,
    /// Retries that failed at once because the retry budget was exhausted.
    pub retries_refused: u64,
}

/// Who follows the breaker. A manager has one for itself and the calculators that it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerListener {
    /// A calculator, for as long as it lives.
    Calculator,
    /// A manager, whether it leads or not.
    Manager,
}

impl BreakerListener {
    const KINDS: usize = 2;
}

/// See the module.
pub struct GuardedStore {
    inner: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    core: Mutex<Core>,
    metrics: Arc<dyn CalculatorMetrics>,
    /// The fleet that the assignment bucket has to belong to.
    fleet: Option<FleetRecord>,
}

struct Core {
    breaker: Breaker,
    retry_budget: RetryBudget,
    /// Which kinds of calls failed last.
    has_failed: [bool; KINDS],
    /// How long each kind is waited for.
    timeout: [AdaptiveTimeout; KINDS],
    counts: BreakerStatus,
    /// One of each kind: each life takes the place of the one before.
    listeners: [Option<Sender<BreakerCondition>>; BreakerListener::KINDS],
    openings: LogThrottle,
    is_opening_logged: bool,
    probes: LogThrottle,
    failed_probes: LogThrottle,
    /// Pending reports to metrics and log, oldest first, and whether a thread is delivering them.
    unreported: VecDeque<BreakerReport>,
    is_reporting: bool,
}

impl GuardedStore {
    /// Protects a store. `seed` determines the jitter of the breaker's pauses.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, clock: Arc<dyn Clock>, seed: u64) -> Self {
        let now = clock.now();
        Self {
            inner,
            clock,
            core: Mutex::new(Core {
                breaker: Breaker::new(BreakerConfig::default(), seed),
                retry_budget: RetryBudget::new(RetryBudgetConfig::default(), now),
                has_failed: [false; KINDS],
                timeout: std::array::from_fn(|_| AdaptiveTimeout::unlimited()),
                counts: BreakerStatus::default(),
                listeners: Default::default(),
                openings: LogThrottle::default(),
                is_opening_logged: false,
                probes: LogThrottle::default(),
                failed_probes: LogThrottle::default(),
                unreported: VecDeque::new(),
                is_reporting: false,
            }),
            metrics: Arc::new(NoMetrics),
            fleet: None,
        }
    }

    /// As users' stores are: measured, jittered, in haste, and of their fleet only.
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

    /// Has each call wait for a part only of what an operation may take.
    #[must_use]
    pub fn with_operation_timeout(mut self, timeout: Duration) -> Self {
        self.core.get_mut().timeout = std::array::from_fn(|_| AdaptiveTimeout::new(timeout));
        self
    }

    /// Sets the receiver of retry metrics.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Arc<dyn CalculatorMetrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// Every change of the breaker from now on, how it stands first. Who asked before as the same
    /// kind is notified no more.
    pub fn changes(&self, listener: BreakerListener) -> Receiver<BreakerCondition> {
        let (sender, receiver) = unbounded();
        let mut core = self.core.lock();
        // The receiver is here, so this cannot fail.
        let _ = sender.send(core.breaker.state().clone());
        core.listeners[listener as usize] = Some(sender);
        receiver
    }

    /// How the breaker stands, and the counts.
    pub fn status(&self) -> BreakerStatus {
        let core = self.core.lock();
        BreakerStatus {
            state: core.breaker.state().clone(),
            ..core.counts.clone()
        }
    }

    /// Whether calls go through.
    pub fn is_closed(&self) -> bool {
        self.core.lock().breaker.state().is_closed()
    }

    /// Observes the health of the session: after a recovery the next call probes the store.
    pub fn observe_health(&self, health: &Health) {
        if *health == Health::Connected {
            self.change(|core, now| core.breaker.force_probe(now));
        }
    }

    /// Changes breaker and retry budget, then reports. Log and metrics are host code, so no lock is
    /// held then.
    fn change<R>(&self, change: impl FnOnce(&mut Core, Time) -> R) -> R {
        let now = self.clock.now();
        let (result, has_news) = {
            let mut core = self.core.lock();
            let result = change(&mut core, now);
            core.report_changes(now);
            (result, !core.unreported.is_empty())
        };
        if has_news {
            self.report();
        }
        result
    }

    /// Delivers reports in order: one thread delivers those of all.
    fn report(&self) {
        /// Also when the host's code panics.
        struct Done<'a>(&'a Mutex<Core>);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.lock().is_reporting = false;
            }
        }
        loop {
            let (state, line) = {
                let mut core = self.core.lock();
                if core.is_reporting {
                    return;
                }
                let Some(next) = core.unreported.pop_front() else {
                    return;
                };
                core.is_reporting = true;
                next
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
            return call(deadline); // it will not be sent, and says nothing
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
                _ => Answer::Read(Err(error)),
            }
        };
        let verdict = |answer: &Answer| match answer {
            Answer::Ensured(result) => verdict_of(result.as_ref().err()),
            Answer::Listed(result) => verdict_of(result.as_ref().err()),
            Answer::Read(result) => verdict_of(result.as_ref().err()),
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
        self.store.change(|core, now| {
            match verdict {
                Verdict::Answered => {
                    core.has_failed[self.kind] = false;
                    core.timeout[self.kind].answered(took);
                }
                Verdict::Failed(_) => {
                    core.has_failed[self.kind] = true;
                    core.timeout[self.kind].timed_out(took);
                }
                Verdict::Silent => {}
            }
            core.breaker.ended(now, self.permit, verdict);
        });
    }
}

/// What a transition is for metrics and for the log.
type BreakerReport = (BreakerState, Option<(log::Level, String)>);

/// How a call goes out.
struct AdmittedCall {
    permit: Permit,
    is_retry: bool,
    /// How long it may take.
    timeout: Duration,
}

impl Core {
    /// Lets a call out.
    fn admit(&mut self, now: Time, kind: usize) -> Result<AdmittedCall, String> {
        let is_closed = self.breaker.state().is_closed();
        let is_retry = is_closed && self.has_failed[kind];
        if is_retry {
            if !self.retry_budget.retry(now) {
                self.counts.retries_refused += 1;
                return Err("retry budget exhausted: call not sent".into());
            }
            self.counts.retries += 1;
        } else if is_closed {
            self.retry_budget.record_first_attempt(now);
        }
        let permit = self.breaker.admit(now).map_err(|why| {
            self.counts.refused += 1;
            format!("circuit breaker open: the store is not called until a probe succeeds: {why}")
        })?;
        self.counts.probes += u64::from(permit.is_probe());
        Ok(AdmittedCall {
            permit,
            is_retry,
            timeout: self.timeout[kind].next(),
        })
    }

    /// Notifies the listeners and queues reports to log and metrics.
    fn report_changes(&mut self, now: Time) {
        while let Some(state) = self.breaker.poll_change() {
            // One that is open and is to be probed sooner has not changed.
            if state.state != self.counts.state.state {
                let line = self.line(now, &state);
                self.unreported.push_back((state.state, line));
            }
            // The channel is unbounded, so this never blocks.
            for listener in self.listeners.iter().flatten() {
                let _ = listener.send(state.clone());
            }
            self.counts.state = state;
        }
    }

    /// A line for each transition, repeated ones as counts.
    fn line(&mut self, now: Time, state: &BreakerCondition) -> Option<(log::Level, String)> {
        let why = state.why().unwrap_or_default();
        match (self.counts.state.state, state.state) {
            (BreakerState::Closed, BreakerState::Open) => {
                self.counts.opened += 1;
                let reported = self.openings.record(now);
                self.is_opening_logged = reported.is_some();
                let again = suppressed(reported?);
                let line = format!("opened{again}: {why}");
                Some((log::Level::Warn, line))
            }
            (_, BreakerState::HalfOpen) => {
                let again = suppressed(self.probes.record(now)?);
                let line = format!("half-open: probing store{again}");
                Some((log::Level::Info, line))
            }
            (BreakerState::HalfOpen, BreakerState::Open) => {
                let again = suppressed(self.failed_probes.record(now)?);
                let line = format!("opened: probe failed{again}: {why}");
                Some((log::Level::Info, line))
            }
            (_, BreakerState::Closed) if self.is_opening_logged => {
                Some((log::Level::Info, "closed: store answers".into()))
            }
            _ => None,
        }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::error::Result;
    use crate::store::memory::{Blackout, MemoryStore};
    use crate::store::{BucketConfig, Entry, Write};
    use crate::time::clock::ManualClock;

    /// Records what it receives.
    #[derive(Default)]
    struct Measured {
        retries: AtomicU64,
        changes: Mutex<Vec<&'static str>>,
    }

    impl CalculatorMetrics for Measured {
        fn store_retried(&self) {
            self.retries.fetch_add(1, Ordering::Relaxed);
        }

        fn breaker_changed(&self, to: BreakerState) {
            self.changes.lock().push(to.name());
        }
    }

    struct Play {
        clock: ManualClock,
        memory: Arc<MemoryStore>,
        store: GuardedStore,
    }

    fn play() -> Play {
        let clock = ManualClock::new();
        let memory = MemoryStore::builder().manual_clock(clock.clone()).build();
        let memory = Arc::new(memory);
        let store = GuardedStore::new(memory.clone(), Arc::new(clock.clone()), 1);
        let config = BucketConfig { ttl: None };
        store.ensure(Bucket::Assignment, config, soon()).unwrap();
        Play {
            clock,
            memory,
            store,
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    impl Play {
        fn read(&self) -> Result<Option<Entry>> {
            self.store.read(Bucket::Assignment, "k", soon())
        }

        fn open(&self) {
            self.memory.faults().blackout(Blackout::Refuse);
            for _ in 0..BreakerConfig::default().failures {
                assert_eq!(self.read().unwrap_err().code(), Code::Unavailable);
            }
        }
    }

    #[test]
    fn open_breaker_fails_calls_at_once_with_reason_and_spares_store() {
        let play = play();
        play.open();
        play.memory.faults().restore();
        let error = play.read().unwrap_err();
        assert_eq!((error.code(), error.key()), (Code::Unavailable, Some("k")));
        assert!(error.message().contains("circuit breaker open"), "{error}");
        let write = Write {
            key: "k".into(),
            value: None,
            expect: crate::store::Expect::Any,
        };
        let outcomes = play.store.write(Bucket::Assignment, &[write], soon());
        assert!(matches!(
            outcomes[..],
            [Outcome::Refused(Refusal::Unavailable(_))]
        ));
        let status = play.store.status();
        assert_eq!((status.opened, status.probes, status.refused), (1, 0, 2));
        assert_eq!(status.state.state.name(), "open");
    }

    #[test]
    fn first_call_after_pause_is_probe_and_every_transition_is_reported() {
        let measured = Arc::new(Measured::default());
        let mut play = play();
        play.store = play.store.with_metrics(measured.clone());
        let changes = play.store.changes(BreakerListener::Manager);
        let _calculators = play.store.changes(BreakerListener::Calculator);
        play.open();
        play.clock.advance(BreakerConfig::default().pause_max);
        play.read().unwrap_err();
        play.memory.faults().restore();
        // A session that is back has it probed sooner, which is no change of its state.
        play.store.observe_health(&Health::Connected);
        play.read().unwrap();
        let transitions = ["open", "half_open", "open", "half_open", "closed"];
        assert_eq!(*measured.changes.lock(), transitions);
        let reported: Vec<_> = changes.try_iter().map(|c| c.state.name()).collect();
        let told_of = [
            "closed",
            "open",
            "half_open",
            "open",
            "open",
            "half_open",
            "closed",
        ];
        assert_eq!(reported, told_of);
        assert_eq!(play.store.status().probes, 2);
    }

    /// A store that is not asked in time is late, not gone.
    #[test]
    fn call_is_cut_off_after_quarter_of_operation_timeout() {
        struct Slow(Arc<MemoryStore>, Mutex<Vec<Duration>>);
        impl Slow {
            fn note(&self, deadline: Instant) {
                let left = deadline.saturating_duration_since(Instant::now());
                self.1.lock().push(left);
            }
        }
        let play = play();
        let faults = play.memory.faults();
        faults.blackout(Blackout::Hang);
        let slow = Slow(play.memory.clone(), Mutex::default());
        let store = play.store.with_operation_timeout(Duration::from_secs(8));
        for patience in [60, 1] {
            let read = LayerCall {
                kind: StoreCall::Read,
                bucket: Bucket::Assignment,
                key: None,
                writes: 0,
                deadline: Instant::now() + Duration::from_secs(patience),
            };
            let answer = StoreLayer::call(&store, read, |_, call| {
                slow.note(call.deadline);
                slow.0.read(call.bucket, "k", call.deadline)
            });
            answer.unwrap_err();
        }
        let given: Vec<u64> = slow.1.lock().iter().map(|left| left.as_secs()).collect();
        assert_eq!(given, [1, 0], "just under 2 s, and what the caller has");
    }

    #[test]
    fn recovered_session_lets_next_call_probe() {
        let play = play();
        play.open();
        play.memory.faults().restore();
        play.store.observe_health(&Health::Degraded("still".into()));
        assert!(play.read().is_err());
        play.store.observe_health(&Health::Connected);
        play.read().unwrap();
    }

    #[test]
    fn rejection_counts_as_answer_and_late_call_counts_as_nothing() {
        let play = play();
        play.memory.server().put(Bucket::Assignment, "k", b"x");
        let write = Write {
            key: "k".into(),
            value: None,
            expect: crate::store::Expect::Revision(0),
        };
        for _ in 0..20 {
            let past = Instant::now();
            assert!(play.store.read(Bucket::Assignment, "k", past).is_err());
            let outcomes =
                play.store
                    .write(Bucket::Assignment, std::slice::from_ref(&write), soon());
            assert_eq!(outcomes, [Outcome::Refused(Refusal::Conflict)]);
        }
        assert_eq!(play.store.status(), BreakerStatus::default());
    }

    #[test]
    fn retries_without_token_are_not_sent() {
        let reported = Arc::new(Measured::default());
        let mut play = play();
        play.store = play.store.with_metrics(reported.clone());
        let mut sent = 0;
        // Every second call is answered, so the breaker stays closed.
        for round in 0..60 {
            play.memory.faults().blackout(Blackout::Refuse);
            let error = play.store.list(Bucket::Assignment, "", soon()).unwrap_err();
            sent += u32::from(!error.message().contains("not sent"));
            play.memory.faults().restore();
            if round % 2 == 1 {
                let other = BucketConfig { ttl: None };
                play.store.ensure(Bucket::Election, other, soon()).unwrap();
            }
        }
        // One first try, the burst, and a share of the 30 other calls.
        assert!((21..=28).contains(&sent), "{sent} of 60");
        let status = play.store.status();
        assert_eq!(u64::from(sent), status.retries + 1);
        assert_eq!(reported.retries.load(Ordering::Relaxed), status.retries);
        assert_eq!(status.retries + status.retries_refused + 1, 60);
    }
}

//! Decides which calls to a store may be sent, and keeps what is to be reported about it.

use std::collections::VecDeque;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::machine::adaptive_timeout::AdaptiveTimeout;
use crate::machine::breaker::{
    Breaker, BreakerCondition, BreakerConfig, BreakerState, Permit, Verdict,
};
use crate::machine::retry_budget::{RetryBudget, RetryBudgetConfig};
use crate::store::Bucket;
use crate::time::log_throttle::{LogThrottle, suppressed};
use crate::types::Time;

/// Number of kinds of calls with separate retry state: reads and writes, for each bucket.
const KINDS: usize = 2 * Bucket::ALL.len();

/// The state of a store's circuit breaker, and counters of breaker and retry budget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerStatus {
    /// The state of the breaker.
    pub state: BreakerCondition,
    /// Number of times that it opened.
    pub opened: u64,
    /// Probes that were sent.
    pub probes: u64,
    /// Calls that failed immediately because it was not closed.
    pub refused: u64,
    /// Retries that were sent.
    pub retries: u64,
    /// Retries that failed immediately because the retry budget was exhausted.
    pub retries_refused: u64,
}

/// A subscriber of the breaker's changes. A manager shares one breaker with its calculators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerListener {
    /// The running calculator.
    Calculator,
    /// The manager.
    Manager,
}

impl BreakerListener {
    const KINDS: usize = 2;
}

/// The breaker, the retry budget and their pending reports.
pub(super) struct Core {
    breaker: Breaker,
    retry_budget: RetryBudget,
    /// Whether the last call of each kind failed.
    has_failed: [bool; KINDS],
    /// The time limit of a call, for each kind.
    timeout: [AdaptiveTimeout; KINDS],
    counts: BreakerStatus,
    /// One of each kind: a new listener replaces the earlier one.
    listeners: [Option<Sender<BreakerCondition>>; BreakerListener::KINDS],
    openings: LogThrottle,
    is_opening_logged: bool,
    probes: LogThrottle,
    failed_probes: LogThrottle,
    /// Pending reports to metrics and log, oldest first.
    unreported: VecDeque<BreakerReport>,
    /// Whether a thread is delivering a report.
    is_reporting: bool,
}

/// A transition for the metrics, with its log line if it has one.
pub(super) type BreakerReport = (BreakerState, Option<(log::Level, String)>);

/// A call that may be sent.
pub(super) struct AdmittedCall {
    pub(super) permit: Permit,
    pub(super) is_retry: bool,
    /// How long it may take.
    pub(super) timeout: Duration,
}

impl Core {
    /// `seed` determines the jitter of the breaker's pauses.
    pub(super) fn new(seed: u64, now: Time) -> Self {
        Self {
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
        }
    }

    /// Limits each call to a part of the operation's time.
    pub(super) fn limit_calls(&mut self, operation_timeout: Duration) {
        self.timeout = std::array::from_fn(|_| AdaptiveTimeout::new(operation_timeout));
    }

    /// Sends the present condition and every later change to the listener, in place of the earlier
    /// listener of its kind.
    pub(super) fn listen(&mut self, listener: BreakerListener) -> Receiver<BreakerCondition> {
        let (sender, receiver) = unbounded();
        // The receiver is here, so this cannot fail.
        let _ = sender.send(self.breaker.state().clone());
        self.listeners[listener as usize] = Some(sender);
        receiver
    }

    pub(super) fn is_closed(&self) -> bool {
        self.breaker.state().is_closed()
    }

    /// Makes the next call a probe if the breaker is open.
    pub(super) fn force_probe(&mut self, now: Time) {
        self.breaker.force_probe(now);
    }

    pub(super) fn status(&self) -> BreakerStatus {
        BreakerStatus {
            state: self.breaker.state().clone(),
            ..self.counts.clone()
        }
    }

    /// Admits a call, unless the breaker or the retry budget rejects it.
    pub(super) fn admit(&mut self, now: Time, kind: usize) -> Result<AdmittedCall, String> {
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

    /// Records how a call ended.
    pub(super) fn ended(
        &mut self,
        now: Time,
        kind: usize,
        permit: Permit,
        verdict: Verdict,
        took: Duration,
    ) {
        match verdict {
            Verdict::Answered => {
                self.has_failed[kind] = false;
                self.timeout[kind].answered(took);
            }
            Verdict::Failed(_) => {
                self.has_failed[kind] = true;
                self.timeout[kind].timed_out(took);
            }
            Verdict::Silent => {}
        }
        self.breaker.ended(now, permit, verdict);
    }

    /// Whether a report is waiting.
    pub(super) fn has_reports(&self) -> bool {
        !self.unreported.is_empty()
    }

    /// Takes the oldest report, unless another thread is delivering one. Call
    /// [`Core::report_delivered`] afterwards.
    pub(super) fn next_report(&mut self) -> Option<BreakerReport> {
        if self.is_reporting {
            return None;
        }
        let next = self.unreported.pop_front()?;
        self.is_reporting = true;
        Some(next)
    }

    pub(super) fn report_delivered(&mut self) {
        self.is_reporting = false;
    }

    /// Notifies the listeners and queues reports to log and metrics.
    pub(super) fn report_changes(&mut self, now: Time) {
        while let Some(state) = self.breaker.poll_change() {
            // An earlier probe of an open breaker is not a transition.
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

    /// Returns the log line of a transition. Repeated lines are counted instead.
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

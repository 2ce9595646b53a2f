//! Retries within one operation: a transient failure may succeed in a moment, and repeating the
//! whole job would cost more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Publisher, PublisherEnvironment};
use crate::error::{Code, Error, Result};
use crate::metrics::RetryCause;
use crate::store::Store;
use crate::time::backoff::Backoff;

/// How often one publication is attempted before it is reported as failed (and stays pending).
pub(super) const ATTEMPTS_MAX: u32 = 5;

/// Maximum attempts of unanswered or rejected calls. Fewer than open the breaker: a store that
/// rejects writes but answers reads must not count as unreachable.
const FAILURES_MAX: u32 = 3;

/// Ceilings of the pauses: of the first, and of all further ones.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(160);

/// The tries of one operation.
pub(super) struct Retries {
    environment: Arc<dyn PublisherEnvironment>,
    deadline: Instant,
    tries_left: u32,
    failures_left: u32,
    pauses: Backoff,
}

impl Retries {
    /// Counts a try that failed and waits until the next one may begin.
    ///
    /// # Errors
    /// The failure, when it is not to be tried again: because that would not help, was done often
    /// enough or could not finish in time, or because the store is left alone for now.
    pub fn again(&mut self, cause: RetryCause, failure: Error) -> Result<()> {
        if cause == RetryCause::Refused {
            self.failures_left = self.failures_left.saturating_sub(1);
        }
        self.count(&failure)?;
        let clock = self.environment.clock();
        let left = self.deadline.saturating_duration_since(clock.instant());
        let Some(pause) = self.pauses.next_delay_within(left) else {
            return Err(failure);
        };
        if self.environment.pause(pause) {
            return Ok(());
        }
        Err(Error::new(
            Code::NotRunning,
            "stopped while waiting for a retry",
        ))
    }

    /// Counts a try that failed. The next one may begin at once.
    ///
    /// # Errors
    /// As [`Retries::again`].
    pub fn count(&mut self, failure: &Error) -> Result<()> {
        self.tries_left = self.tries_left.saturating_sub(1);
        let has_time = self.environment.clock().instant() < self.deadline;
        let is_worth_it = failure.is_retriable() && has_time && self.environment.takes_calls();
        if is_worth_it && self.tries_left > 0 && self.failures_left > 0 {
            return Ok(());
        }
        Err(failure.clone())
    }
}

impl Publisher {
    pub(super) fn retries(&self, deadline: Instant) -> Retries {
        Retries {
            environment: Arc::clone(&self.environment),
            deadline,
            tries_left: ATTEMPTS_MAX,
            failures_left: FAILURES_MAX,
            pauses: Backoff::new(PAUSE_MIN, PAUSE_MAX, self.environment.nonce()),
        }
    }

    /// Asks the store for something, again where that may help.
    pub(super) fn ask<T>(
        &self,
        deadline: Instant,
        read: impl Fn(&dyn Store) -> Result<T>,
    ) -> Result<T> {
        let mut retries = None;
        loop {
            let failure = match read(&*self.store) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            retries
                .get_or_insert_with(|| self.retries(deadline))
                .again(RetryCause::Refused, failure)?;
        }
    }
}

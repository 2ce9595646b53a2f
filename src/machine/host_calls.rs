//! Calls into the host's code that have run for longer than they should.

use std::time::Duration;

use crate::types::Time;
use crate::vocabulary::labels::HostCall;

/// How long after a report an overdue call is checked again.
const RECHECK: Duration = Duration::from_secs(1);

/// The running calls of the host's code, judged at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostCallVerdict {
    /// Overdue calls, each with how long it has run, the oldest first.
    pub overdue: Vec<(HostCall, Duration)>,
    /// When to judge again; `None` while no call runs.
    pub next: Option<Time>,
}

/// Judges `running` calls, each with the time of its start, against the time that a call may take.
#[must_use]
pub fn judge(now: Time, running: &[(HostCall, Time)], timeout: Duration) -> HostCallVerdict {
    let mut overdue: Vec<_> = running
        .iter()
        .filter(|&&(_, since)| since + timeout <= now)
        .map(|&(call, since)| (call, now.since(since)))
        .collect();
    overdue.sort_by_key(|&(_, lasted)| std::cmp::Reverse(lasted));
    let in_time = running.iter().map(|&(_, since)| since + timeout);
    let recheck = (!overdue.is_empty()).then(|| now + RECHECK);
    HostCallVerdict {
        next: in_time.filter(|&due| due > now).chain(recheck).min(),
        overdue,
    }
}

impl HostCallVerdict {
    /// The overdue calls in words; `None` if there are none.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        let words = self.overdue.iter().map(|(call, lasted)| {
            format!(
                "the {} has not returned for {}s",
                call.noun(),
                lasted.as_secs()
            )
        });
        let words: Vec<_> = words.collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

impl HostCall {
    /// What is called, in words.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            HostCall::Source => "partition source",
            HostCall::Strategy => "strategy",
            HostCall::Election => "host election",
            HostCall::Callback => "event callback",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1_000)
    }

    #[test]
    fn call_is_overdue_from_its_timeout_until_it_returns() {
        let running = [(HostCall::Source, at(5))];
        let verdict = judge(at(14), &running, TIMEOUT);
        assert_eq!((verdict.words(), verdict.next), (None, Some(at(15))));
        let verdict = judge(at(17), &running, TIMEOUT);
        assert_eq!(
            (verdict.words().as_deref(), verdict.next),
            (
                Some("the partition source has not returned for 12s"),
                Some(at(18))
            )
        );
        assert_eq!(judge(at(18), &[], TIMEOUT), HostCallVerdict::default());
    }

    #[test]
    fn every_overdue_call_is_named_with_the_oldest_first() {
        let running = [
            (HostCall::Callback, at(8)),
            (HostCall::Election, at(15)),
            (HostCall::Strategy, at(2)),
        ];
        let verdict = judge(at(20), &running, TIMEOUT);
        assert_eq!(
            verdict.words().as_deref(),
            Some(
                "the strategy has not returned for 18s, the event callback has not returned for 12s"
            )
        );
        assert_eq!(verdict.next, Some(at(21)));
        let verdict = judge(at(24), &running[1..2], TIMEOUT);
        assert_eq!((verdict.words(), verdict.next), (None, Some(at(25))));
    }
}

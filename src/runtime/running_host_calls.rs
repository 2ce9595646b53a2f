//! The calls of the host's code that are running, for the thread that reports overdue ones.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use crate::machine::host_calls::{HostCallVerdict, judge};
use crate::time::clock::Clock;
use crate::types::Time;
use crate::vocabulary::labels::HostCall;

/// The running calls of one calculator or manager.
pub(crate) struct HostCalls {
    clock: Arc<dyn Clock>,
    timeout: Duration,
    table: Mutex<Table>,
    /// Signalled when a call begins while no check is planned.
    waker: (Sender<()>, Receiver<()>),
}

#[derive(Default)]
struct Table {
    next_id: u64,
    running: Vec<(u64, HostCall, Time)>,
    /// Whether the thread that checks has a date for the next check, or is being woken.
    is_checked: bool,
    /// `next_id` at the last check.
    checked_id: u64,
}

impl HostCalls {
    /// No call runs. One that takes longer than `timeout` is overdue.
    pub fn new(clock: Arc<dyn Clock>, timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            clock,
            timeout,
            table: Mutex::default(),
            waker: bounded(1),
        })
    }

    /// Runs a call of the host's code.
    pub fn run<R>(&self, call: HostCall, work: impl FnOnce() -> R) -> R {
        let _running = self.begin(call);
        work()
    }

    fn begin(&self, call: HostCall) -> RunningHostCall<'_> {
        let now = self.clock.now();
        let mut table = self.table.lock();
        let id = table.next_id;
        table.next_id += 1;
        table.running.push((id, call, now));
        if !std::mem::replace(&mut table.is_checked, true) {
            let _ = self.waker.0.try_send(());
        }
        RunningHostCall { calls: self, id }
    }

    /// Judges the running calls. The caller calls again at the verdict's date.
    fn check(&self, now: Time) -> HostCallVerdict {
        let mut table = self.table.lock();
        let running: Vec<_> = table.running.iter().map(|&(_, c, t)| (c, t)).collect();
        let mut verdict = judge(now, &running, self.timeout);
        // Short calls come in bursts: a check in time for the next one saves a wake-up for each.
        let has_new = table.checked_id != table.next_id;
        table.checked_id = table.next_id;
        if has_new && verdict.next.is_none() {
            verdict.next = Some(now + self.timeout);
        }
        table.is_checked = verdict.next.is_some();
        verdict
    }

    /// How long each kind of call has been overdue, for metrics.
    pub fn overdue(&self) -> [(HostCall, Duration); HostCall::ALL.len()] {
        let now = self.clock.now();
        let running = self.table.lock().running.clone();
        HostCall::ALL.map(|call| {
            let of_kind = running.iter().filter(|&&(_, kind, _)| kind == call);
            let longest = of_kind.map(|&(_, _, since)| now.since(since)).max();
            let overdue = longest.unwrap_or_default().saturating_sub(self.timeout);
            (call, overdue)
        })
    }
}

/// The checks of the calls for one life of the thread that reports overdue ones.
pub(crate) struct OverdueCheck {
    calls: Arc<HostCalls>,
    /// When the running calls are judged.
    due: Option<Time>,
    /// Whether any was overdue at the last check.
    was_overdue: bool,
}

impl OverdueCheck {
    /// A check is due at once: calls of an earlier life may still run.
    pub fn new(calls: Arc<HostCalls>) -> Self {
        Self {
            calls,
            due: Some(Time::ZERO),
            was_overdue: false,
        }
    }

    /// Signalled when [`OverdueCheck::begin`] is to be called.
    pub fn waker(&self) -> &Receiver<()> {
        &self.calls.waker.1
    }

    /// Makes a check due at once.
    pub fn begin(&mut self) {
        self.due = Some(Time::ZERO);
    }

    /// When [`OverdueCheck::check`] is to be called.
    pub fn due(&self) -> Option<Time> {
        self.due
    }

    /// Judges the running calls if that is due. Returns what is to be reported: the overdue calls in
    /// words, or `None` within when there are none any more.
    pub fn check(&mut self, now: Time) -> Option<Option<String>> {
        self.due.filter(|&due| due <= now)?;
        let verdict = self.calls.check(now);
        self.due = verdict.next;
        let words = verdict.words();
        let was_overdue = std::mem::replace(&mut self.was_overdue, words.is_some());
        (words.is_some() || was_overdue).then_some(words)
    }
}

struct RunningHostCall<'a> {
    calls: &'a HostCalls,
    id: u64,
}

impl Drop for RunningHostCall<'_> {
    fn drop(&mut self) {
        let mut table = self.calls.table.lock();
        table.running.retain(|&(id, ..)| id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::clock::ManualClock;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn supervised() -> (ManualClock, Arc<HostCalls>, OverdueCheck) {
        let clock = ManualClock::default();
        let calls = HostCalls::new(Arc::new(clock.clone()), TIMEOUT);
        let mut check = OverdueCheck::new(Arc::clone(&calls));
        assert_eq!(check.check(clock.now()), None);
        assert_eq!(check.due(), None);
        (clock, calls, check)
    }

    #[test]
    fn burst_of_short_calls_wakes_the_checking_thread_once() {
        let (clock, calls, mut check) = supervised();
        let mut wakes = 0;
        for _ in 0..1_000 {
            calls.run(HostCall::Callback, || ());
            if check.waker().try_recv().is_ok() {
                wakes += 1;
                check.begin();
            }
            assert_eq!(check.check(clock.now()), None);
        }
        assert_eq!(wakes, 1);
        // Nothing is checked without end.
        clock.advance(TIMEOUT);
        assert_eq!(check.check(clock.now()), None);
        clock.advance(TIMEOUT);
        assert_eq!(check.check(clock.now()), None);
        assert_eq!(check.due(), None);
    }

    #[test]
    fn call_that_begins_between_checks_is_reported_in_time_and_its_end_once() {
        let (clock, calls, mut check) = supervised();
        calls.run(HostCall::Callback, || ());
        check.begin();
        assert_eq!(check.check(clock.now()), None);
        clock.advance(Duration::from_secs(4));
        calls.run(HostCall::Strategy, || {
            for _ in 0..2 {
                let due = check.due().unwrap();
                clock.advance(due.since(clock.now()));
                if let Some(words) = check.check(clock.now()) {
                    let words = words.unwrap();
                    assert_eq!(words, "the strategy has not returned for 10s");
                    return;
                }
            }
            panic!("not reported at its timeout");
        });
        let due = check.due().unwrap();
        clock.advance(due.since(clock.now()));
        assert_eq!(check.check(clock.now()), Some(None));
        assert_eq!(check.due(), None);
    }
}

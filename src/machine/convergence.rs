//! How far each live worker lags behind its assignment.
//!
//! Runs on `dv-watch`, on the changes of the two watches. A worker is measured against the version
//! of its own key, because an unchanged assignment is not written again. A worker that reports no
//! version (as those of parti) or is not alive is never lagging.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use crate::types::{Time, Version, WorkerId};
use crate::wire::lag;

/// Tracks the assigned and the applied version of each worker.
#[derive(Debug)]
pub struct Convergence {
    /// How long a worker may be behind before it is reported; zero: no limit.
    timeout: Duration,
    workers: BTreeMap<Box<str>, WorkerProgress>,
    /// Number of lagging workers.
    behind: usize,
    /// Next check for overdue workers; may be too early.
    due: Option<Time>,
    is_watch_lost: bool,
    publications: Publications,
    overdue: VecDeque<Lagging>,
    /// Whether there is something for [`Convergence::take_lag`].
    is_changed: bool,
}

/// One worker.
#[derive(Debug, Default)]
struct WorkerProgress {
    /// The version of its key; `None`: the key has no value.
    assigned: Option<Version>,
    /// The version it has applied; `None`: it reports none.
    applied: Option<Version>,
    /// Since when it has been behind without getting any further; `None`: it is not behind.
    since: Option<Time>,
    /// Whether it was reported and has not caught up since.
    is_reported: bool,
}

/// The measured publications: from a publication until no live worker lags.
#[derive(Debug, Default)]
struct Publications {
    /// The publication in progress, and when it was first seen. Overlapping ones are merged.
    open: Option<(Time, Version)>,
    /// The highest version that was measured, or existed before this leader's watch.
    floor: Version,
    /// The highest version that was published as a whole.
    committed: Version,
    /// Whether the watch is replaying changes that happened before.
    is_replaying: bool,
    done: Option<Duration>,
}

/// A worker that has not applied its assignment in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lagging {
    /// The worker.
    pub worker: WorkerId,
    /// The version under its key.
    pub assigned: Version,
    /// The version that it has applied.
    pub applied: Version,
    /// For how long it has not got any further.
    pub lasted: Duration,
}

impl fmt::Display for Lagging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            worker,
            assigned,
            applied,
            lasted,
        } = self;
        let seconds = lasted.as_secs_f64();
        write!(
            f,
            "{worker} does not apply version {assigned}: it has been at {applied} for {seconds:.1} s"
        )
    }
}

/// How far the fleet is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FleetLag {
    /// How many workers are overdue.
    pub lagging: usize,
    /// By how many versions the last of all is behind.
    pub highest: Version,
}

impl Convergence {
    /// Without workers.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            workers: BTreeMap::new(),
            behind: 0,
            due: None,
            is_watch_lost: false,
            publications: Publications {
                is_replaying: true,
                ..Publications::default()
            },
            overdue: VecDeque::new(),
            is_changed: true,
        }
    }

    /// Records the version of a worker's key; `None`: it has no value.
    pub fn assigned(&mut self, now: Time, worker: &str, version: Option<Version>) {
        self.change(now, worker, |progress| progress.assigned = version);
    }

    /// Records the version that a worker has applied; `None`: it reports none.
    pub fn applied(&mut self, now: Time, worker: &str, version: Option<Version>) {
        let known = self.workers.get(worker).and_then(|p| p.applied);
        if known == version {
            return; // a plain beat
        }
        self.change(now, worker, |progress| {
            progress.applied = version;
            progress.since = progress.since.map(|_| now);
        });
    }

    /// Records that a worker is no longer alive.
    pub fn gone(&mut self, worker: &str) {
        if self.workers.contains_key(worker) {
            // The time is unused: a worker without an applied version does not lag.
            self.change(Time::ZERO, worker, |progress| progress.applied = None);
        }
    }

    /// Records that this leader wrote a worker's key in this version. Workers that report no
    /// version are not measured.
    pub fn published(&mut self, now: Time, worker: &str, version: Version) {
        let is_reported = self
            .workers
            .get(worker)
            .is_some_and(|p| p.applied.is_some());
        self.publications.seen(now, version, is_reported);
    }

    /// Records a commit record: the version is published completely.
    pub fn committed(&mut self, version: Version) {
        let committed = &mut self.publications.committed;
        *committed = version.max(*committed);
    }

    /// Marks the following changes of the assignment watch as old or missed ones.
    pub fn begin_replay(&mut self) {
        self.publications.is_replaying = true;
        self.publications.open = None;
    }

    /// Marks the following changes of the assignment watch as current.
    pub fn end_replay(&mut self) {
        self.publications.is_replaying = false;
    }

    /// The heartbeat watch is lost: no worker can be judged.
    pub fn watch_lost(&mut self) {
        self.is_watch_lost = true;
        self.publications.open = None;
    }

    /// The heartbeat watch is live again: the timeout of lagging workers restarts.
    pub fn live(&mut self, now: Time) {
        if !std::mem::take(&mut self.is_watch_lost) {
            return;
        }
        for progress in self.workers.values_mut() {
            progress.since = progress.since.map(|_| now);
        }
        self.due = (self.behind > 0).then(|| now + self.timeout);
    }

    /// Advances time: finds overdue workers and completed publications.
    pub fn tick(&mut self, now: Time) {
        if self.behind == 0 {
            self.publications.arrived(now);
        }
        if self.deadline().is_some_and(|due| due <= now) {
            self.find_overdue(now);
        }
    }

    /// When `tick` is due next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let is_watched = !self.timeout.is_zero() && !self.is_watch_lost && self.behind > 0;
        self.due.filter(|_| is_watched)
    }

    /// The next lagging worker. Each is returned once until it has caught up.
    pub fn poll_overdue(&mut self) -> Option<Lagging> {
        self.overdue.pop_front()
    }

    /// How long the last publication took to be applied everywhere; returned once.
    pub fn take_converged(&mut self) -> Option<Duration> {
        self.publications.done.take()
    }

    /// How far the fleet is behind, if that may have changed.
    pub fn take_lag(&mut self) -> Option<FleetLag> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        let behind = self.workers.values().filter(|p| p.since.is_some());
        Some(
            behind.fold(FleetLag::default(), |fleet, progress| FleetLag {
                lagging: fleet.lagging + usize::from(progress.is_reported),
                highest: fleet.highest.max(progress.lag().unwrap_or(0)),
            }),
        )
    }

    /// The version that a worker has applied, and its lag, as far as they are known.
    #[must_use]
    pub fn of(&self, worker: &str) -> (Option<Version>, Option<Version>) {
        let progress = self.workers.get(worker);
        progress.map_or((None, None), |p| (p.applied, p.lag()))
    }

    fn change(&mut self, now: Time, worker: &str, change: impl FnOnce(&mut WorkerProgress)) {
        if !self.workers.contains_key(worker) {
            self.workers
                .insert(worker.into(), WorkerProgress::default());
        }
        let Some(progress) = self.workers.get_mut(worker) else {
            return;
        };
        self.behind -= usize::from(progress.since.is_some());
        change(progress);
        match progress.lag() {
            Some(lag) if lag > 0 => {
                let due = *progress.since.get_or_insert(now) + self.timeout;
                self.due = Some(self.due.map_or(due, |known| known.min(due)));
            }
            Some(_) => {
                progress.since = None;
                progress.is_reported = false;
            }
            None => progress.since = None,
        }
        self.behind += usize::from(progress.since.is_some());
        self.is_changed = true;
        if progress.assigned.is_none() && progress.applied.is_none() {
            self.workers.remove(worker);
        }
    }

    fn find_overdue(&mut self, now: Time) {
        self.due = None;
        for (name, progress) in &mut self.workers {
            let Some((lag, since)) = progress.lag().zip(progress.since) else {
                continue;
            };
            let due = since + self.timeout;
            if progress.is_reported {
                continue;
            }
            if due > now {
                self.due = Some(self.due.map_or(due, |known| known.min(due)));
                continue;
            }
            progress.is_reported = true;
            self.is_changed = true;
            // A name that is none beats no heart.
            if let Ok(worker) = WorkerId::new(name) {
                let applied = progress.applied.unwrap_or(0);
                self.overdue.push_back(Lagging {
                    worker,
                    assigned: applied + lag,
                    applied,
                    lasted: now.since(since),
                });
            }
        }
    }
}

impl WorkerProgress {
    fn lag(&self) -> Option<Version> {
        lag(self.assigned, self.applied)
    }
}

impl Publications {
    fn seen(&mut self, now: Time, version: Version, is_reported: bool) {
        if self.is_replaying {
            self.floor = self.floor.max(version);
        } else if version > self.floor && is_reported {
            let (_, highest) = self.open.get_or_insert((now, version));
            *highest = version.max(*highest);
        }
    }

    /// No worker is behind what was seen so far.
    fn arrived(&mut self, now: Time) {
        if let Some((since, version)) = self.open
            && self.committed >= version
        {
            self.open = None;
            self.floor = version;
            self.done = Some(now.since(since));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    /// What happens, at a second.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Assigned(&'static str, Option<Version>),
        Applied(&'static str, Option<Version>),
        Gone(&'static str),
        WatchLost,
        Live,
        Tick,
    }
    use Step::*;

    /// Name, steps and expected reports.
    type Case = (
        &'static str,
        &'static [(u64, Step)],
        &'static [&'static str],
    );

    /// Runs the steps and returns the reports as `second: worker assigned/applied`.
    fn play(timeout: Duration, steps: &[(u64, Step)]) -> (Convergence, Vec<String>) {
        let mut convergence = Convergence::new(timeout);
        let mut reported = Vec::new();
        for &(second, step) in steps {
            let now = at(second * 1_000);
            match step {
                Assigned(worker, version) => convergence.assigned(now, worker, version),
                Applied(worker, version) => convergence.applied(now, worker, version),
                Gone(worker) => convergence.gone(worker),
                WatchLost => convergence.watch_lost(),
                Live => convergence.live(now),
                Tick => {}
            }
            convergence.tick(now);
            while let Some(l) = convergence.poll_overdue() {
                reported.push(format!(
                    "{second}: {} {}/{} for {:?}",
                    l.worker, l.assigned, l.applied, l.lasted
                ));
            }
        }
        (convergence, reported)
    }

    #[test]
    fn lagging_worker_is_reported_once_until_it_catches_up() {
        let behind = [(0, Applied("w", Some(4))), (1, Assigned("w", Some(5)))];
        let cases: [Case; 9] = [
            ("in time", &[(10, Applied("w", Some(5))), (60, Tick)], &[]),
            (
                "too late, and only once",
                &[(10, Tick), (11, Tick), (12, Tick), (99, Tick)],
                &["11: w 5/4 for 10s"],
            ),
            (
                "a newer version does not give it more time",
                &[(9, Assigned("w", Some(7))), (11, Tick)],
                &["11: w 7/4 for 10s"],
            ),
            (
                "getting further does, and is not catching up",
                &[
                    (9, Assigned("w", Some(7))),
                    (10, Applied("w", Some(5))),
                    (19, Tick),
                    (20, Tick),
                    (21, Applied("w", Some(6))),
                    (99, Tick),
                ],
                &["20: w 7/5 for 10s"],
            ),
            (
                "again after it has caught up",
                &[
                    (11, Tick),
                    (12, Applied("w", Some(5))),
                    (13, Assigned("w", Some(6))),
                    (23, Tick),
                ],
                &["11: w 5/4 for 10s", "23: w 6/5 for 10s"],
            ),
            (
                "who is gone is not behind, and has not caught up by that",
                &[
                    (5, Gone("w")),
                    (30, Tick),
                    (31, Applied("w", Some(4))),
                    (40, Tick),
                    (41, Tick),
                    (42, Gone("w")),
                    (43, Applied("w", Some(0))),
                    (99, Tick),
                ],
                &["41: w 5/4 for 10s"],
            ),
            (
                "no worker is judged while disconnected, and every timeout restarts",
                &[
                    (5, WatchLost),
                    (50, Tick),
                    (51, Live),
                    (60, Tick),
                    (61, Tick),
                ],
                &["61: w 5/4 for 10s"],
            ),
            (
                "a key that is gone asks for nothing",
                &[(5, Assigned("w", None)), (60, Tick)],
                &[],
            ),
            (
                "who does not say what it applied is never behind",
                &[
                    (1, Applied("w", None)),
                    (2, Assigned("go", Some(5))),
                    (60, Tick),
                ],
                &[],
            ),
        ];
        for (name, steps, expected) in cases {
            let steps = [&behind[..], steps].concat();
            assert_eq!(play(TIMEOUT, &steps).1, expected, "{name}");
            assert!(play(Duration::ZERO, &steps).1.is_empty(), "{name}, off");
        }
    }

    #[test]
    fn lag_is_counted_in_versions_of_workers_own_key() {
        let (mut convergence, _) = play(
            TIMEOUT,
            &[
                (0, Assigned("kept", Some(3))),
                (0, Applied("kept", Some(3))),
                (0, Assigned("late", Some(9))),
                (0, Applied("late", Some(4))),
                (0, Assigned("ahead", Some(3))),
                (0, Applied("ahead", Some(8))),
                (0, Assigned("silent", Some(9))),
                (0, Applied("new", Some(0))),
            ],
        );
        for (worker, expected) in [
            ("kept", (Some(3), Some(0))),
            ("late", (Some(4), Some(5))),
            ("ahead", (Some(8), Some(0))),
            ("silent", (None, None)),
            ("new", (Some(0), None)),
            ("stranger", (None, None)),
        ] {
            assert_eq!(convergence.of(worker), expected, "{worker}");
        }
        let highest = 5;
        let lagging = 0;
        assert_eq!(convergence.take_lag(), Some(FleetLag { lagging, highest }));
        assert_eq!(convergence.take_lag(), None);
        convergence.applied(at(1), "late", Some(4));
        assert_eq!(convergence.take_lag(), None, "a plain beat changes nothing");
        convergence.tick(at(10_000));
        let lagging = 1;
        assert_eq!(convergence.take_lag(), Some(FleetLag { lagging, highest }));
        convergence.applied(at(11_000), "late", Some(9));
        assert_eq!(convergence.take_lag(), Some(FleetLag::default()));
    }

    #[test]
    fn convergence_time_ends_when_last_live_worker_has_applied() {
        let mut convergence = Convergence::new(TIMEOUT);
        let key = |c: &mut Convergence, millis, worker, version| {
            c.assigned(at(millis), worker, Some(version));
            c.published(at(millis), worker, version);
            c.tick(at(millis));
        };
        for worker in ["a", "b"] {
            key(&mut convergence, 0, worker, 7);
            convergence.applied(at(0), worker, Some(7));
        }
        convergence.committed(7);
        convergence.end_replay();
        convergence.tick(at(0));
        assert_eq!(convergence.take_converged(), None, "it was there before");

        key(&mut convergence, 100, "a", 8);
        convergence.applied(at(110), "a", Some(8));
        convergence.tick(at(110));
        assert_eq!(convergence.take_converged(), None, "not yet a whole");
        key(&mut convergence, 120, "b", 8);
        convergence.committed(8);
        convergence.tick(at(125));
        assert_eq!(convergence.take_converged(), None, "b is behind");
        convergence.applied(at(150), "b", Some(8));
        convergence.tick(at(150));
        let took = Some(Duration::from_millis(50));
        assert_eq!(convergence.take_converged(), took);
        convergence.tick(at(160));
        assert_eq!(convergence.take_converged(), None);

        key(&mut convergence, 200, "a", 9);
        convergence.committed(9);
        convergence.gone("a");
        convergence.tick(at(230));
        let took = Some(Duration::from_millis(30));
        assert_eq!(convergence.take_converged(), took, "who is gone is left");

        key(&mut convergence, 300, "go", 10);
        convergence.committed(10);
        convergence.tick(at(300));
        assert_eq!(convergence.take_converged(), None, "who says nothing");
    }

    #[test]
    fn versions_unobserved_during_disconnection_are_not_measured() {
        for is_assignments in [false, true] {
            let mut convergence = Convergence::new(TIMEOUT);
            convergence.end_replay();
            convergence.applied(at(0), "a", Some(1));
            convergence.assigned(at(0), "a", Some(2));
            convergence.published(at(0), "a", 2);
            convergence.committed(2);
            if is_assignments {
                convergence.begin_replay();
                convergence.published(at(5), "a", 3);
                convergence.end_replay();
            } else {
                convergence.watch_lost();
                convergence.live(at(5));
            }
            convergence.applied(at(10), "a", Some(2));
            convergence.tick(at(10));
            assert_eq!(convergence.take_converged(), None);
        }
    }

    #[test]
    fn deadline_is_due_at_lag_report_and_cleared_by_it() {
        let (mut convergence, _) = play(
            TIMEOUT,
            &[(0, Applied("w", Some(4))), (1, Assigned("w", Some(5)))],
        );
        assert_eq!(convergence.deadline(), Some(at(11_000)));
        convergence.tick(at(11_000));
        assert!(convergence.poll_overdue().is_some());
        assert_eq!(convergence.deadline(), None);
    }

    #[test]
    fn departed_worker_leaves_no_state() {
        let (convergence, _) = play(
            TIMEOUT,
            &[
                (0, Applied("w", Some(4))),
                (0, Assigned("w", Some(5))),
                (1, Gone("w")),
                (2, Assigned("w", None)),
                (3, Applied("go", None)),
                (4, Gone("stranger")),
            ],
        );
        assert!(convergence.workers.is_empty());
    }
}

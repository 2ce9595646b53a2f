//! Leases of workers, kept in memory from watch events by the local monotonic clock.
//!
//! A heartbeat renews a lease for one TTL; when a lease expires, its worker is suspected. A plain
//! heartbeat ends here: it produces no event, allocates nothing and wakes no thread. While the watch
//! is disconnected no lease expires. After it is restored, every worker that was alive before has
//! one TTL plus the recovery grace, whatever expiry markers the restarted server sends.
//!
//! # Protocol of use
//! Call `seed` once, then `watch_opened`, `beat`, `left`, `expired`, `watch_lost`, `live` and `tick`
//! as things happen, and `end_absent` after a listing. `deadline` returns when `tick` is due; an early tick does nothing. After each call, drain
//! `poll_event`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use crate::types::{Time, WorkerId};

/// A change of membership or of the watch that reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipEvent {
    /// The first heartbeat of these workers was seen, the earliest at `since`.
    Joined {
        /// Time of the earliest of these heartbeats.
        since: Time,
        /// The workers that joined, in order of id.
        workers: Vec<WorkerId>,
    },
    /// The worker left.
    Left(WorkerId),
    /// The worker's lease ran out.
    Suspected(WorkerId),
    /// A suspected worker beats again.
    Returned(WorkerId),
    /// The watch is disconnected: failure detection is suspended.
    WatchLost,
    /// The watch is restored and has delivered everything.
    WatchRestored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaseStatus {
    /// Seen, but not yet reported: joins are coalesced.
    Joining,
    Alive,
    Suspected,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    status: LeaseStatus,
    ends: Time,
    /// The time of this worker's entry in the queue of deadlines; an entry with another time is
    /// a leftover of an earlier life of the worker.
    queued: Option<Time>,
    /// Whether the present watch, or a listing since it was opened, has shown the worker.
    is_shown: bool,
}

/// The leases of all workers. See the module for the protocol of use.
#[derive(Debug)]
pub struct Leases {
    ttl: Duration,
    join_coalescing: Duration,
    recovery_grace: Duration,
    workers: BTreeMap<WorkerId, Lease>,
    /// One entry a worker whose lease runs; its time may lie before the lease's real end.
    queue: BinaryHeap<Reverse<(Time, WorkerId)>>,
    joins_since: Option<Time>,
    visibility: Visibility,
    /// Until when expiry markers are ignored after a disconnection: a server that restarts removes
    /// the heartbeats of healthy workers that could not renew them in time.
    markers_ignored_until: Time,
    /// Workers that the watch had not shown when it became live. A listing decides about them.
    absent: Vec<WorkerId>,
    events: VecDeque<MembershipEvent>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visibility {
    /// The watch has not yet delivered everything for the first time.
    Opening,
    Live,
    Disconnected,
}

impl Leases {
    /// Returns leases without a worker, before the watch's first delivery.
    #[must_use]
    pub fn new(ttl: Duration, join_coalescing: Duration, recovery_grace: Duration) -> Self {
        Self {
            ttl,
            join_coalescing,
            recovery_grace,
            workers: BTreeMap::new(),
            queue: BinaryHeap::new(),
            joins_since: None,
            visibility: Visibility::Opening,
            markers_ignored_until: Time::ZERO,
            absent: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// Sets the initial state: live workers with the rest of their leases, and suspected workers.
    /// Produces no event.
    pub fn seed(
        &mut self,
        now: Time,
        alive: impl IntoIterator<Item = (WorkerId, Duration)>,
        suspected: impl IntoIterator<Item = WorkerId>,
    ) {
        for (worker, remaining) in alive {
            self.insert(worker, LeaseStatus::Alive, now + remaining);
        }
        for worker in suspected {
            self.insert(worker, LeaseStatus::Suspected, now);
        }
    }

    /// A sign of life that is `age` old.
    pub fn beat(&mut self, now: Time, worker: &str, age: Duration) {
        let ends = now + self.ttl.saturating_sub(age);
        let Some(lease) = self.workers.get_mut(worker) else {
            return self.newcomer(now, worker, ends);
        };
        lease.ends = lease.ends.max(ends);
        lease.is_shown = true;
        if lease.status == LeaseStatus::Suspected && ends > now {
            lease.status = LeaseStatus::Alive;
            lease.ends = ends;
            if let Some((worker, _)) = self.workers.get_key_value(worker) {
                let worker = worker.clone();
                self.enqueue(&worker);
                self.events.push_back(MembershipEvent::Returned(worker));
            }
        }
    }

    /// The worker deleted its heartbeat: it leaves.
    pub fn left(&mut self, worker: &str) {
        if let Some((worker, lease)) = self.workers.remove_entry(worker)
            && lease.status != LeaseStatus::Joining
        {
            self.events.push_back(MembershipEvent::Left(worker));
        }
    }

    /// The store reports that the worker's heartbeat expired there.
    pub fn expired(&mut self, now: Time, worker: &str) {
        if now < self.markers_ignored_until {
            return;
        }
        let Some(worker) = self.known(worker).cloned() else {
            return;
        };
        if self.visibility == Visibility::Live {
            self.end_lease(worker);
        } else if let Some(lease) = self.workers.get_mut(&worker) {
            // Reported when the watch is live, unless a heartbeat arrives first. The entry in the
            // queue may be later than that, so another one takes its place.
            lease.ends = now;
            lease.is_shown = true;
            lease.queued = None;
            self.enqueue(&worker);
        }
    }

    /// Forgets a worker that the calculator has removed; a later heartbeat makes it a new worker.
    pub fn forget(&mut self, worker: &str) {
        if self
            .workers
            .get(worker)
            .is_some_and(|l| l.status == LeaseStatus::Suspected)
        {
            self.workers.remove(worker);
        }
    }

    /// A new watch was opened: it shows every key that exists, then becomes live.
    pub fn watch_opened(&mut self) {
        for lease in self.workers.values_mut() {
            lease.is_shown = false;
        }
    }

    /// The watch is disconnected: no lease expires until it is restored.
    pub fn watch_lost(&mut self) {
        if self.visibility != Visibility::Disconnected {
            self.visibility = Visibility::Disconnected;
            self.events.push_back(MembershipEvent::WatchLost);
        }
    }

    /// Everything that happened so far has been delivered.
    pub fn live(&mut self, now: Time) {
        if self.visibility != Visibility::Live {
            let is_absent =
                |lease: &Lease| !lease.is_shown && lease.status != LeaseStatus::Suspected;
            let absent = self.workers.iter().filter(|(_, lease)| is_absent(lease));
            self.absent = absent.map(|(worker, _)| worker.clone()).collect();
        }
        match self.visibility {
            Visibility::Live => {}
            Visibility::Opening => self.visibility = Visibility::Live,
            Visibility::Disconnected => {
                self.visibility = Visibility::Live;
                // Every lease ends at the same time now, so the queue's early entries do no harm.
                let ends = now + self.ttl + self.recovery_grace;
                self.markers_ignored_until = ends;
                for lease in self.workers.values_mut() {
                    if lease.status != LeaseStatus::Suspected {
                        lease.ends = lease.ends.max(ends);
                    }
                }
                // Joins that were delayed by the disconnection are reported now.
                self.report_joins();
                self.events.push_back(MembershipEvent::WatchRestored);
            }
        }
    }

    /// Whether the live watch has not shown every worker. Their keys were removed before it was
    /// opened, and it need not show the markers: list the heartbeats, then call `end_absent`.
    #[must_use]
    pub fn has_absent(&self) -> bool {
        !self.absent.is_empty()
    }

    /// Ends the leases of the absent workers of which the listing has no entry either.
    pub fn end_absent(&mut self, now: Time) {
        for worker in std::mem::take(&mut self.absent) {
            if self
                .workers
                .get(&worker)
                .is_some_and(|lease| !lease.is_shown)
            {
                self.expired(now, worker.as_str());
            }
        }
    }

    /// Reports coalesced joins and ends the leases that ran out.
    pub fn tick(&mut self, now: Time) {
        if self
            .joins_since
            .is_some_and(|since| since + self.join_coalescing <= now)
        {
            self.report_joins();
        }
        if self.visibility != Visibility::Live {
            return;
        }
        while let Some(Reverse((queued, worker))) = self.queue.peek() {
            // An entry that lies before the lease's end is put off as soon as it is the first:
            // waiting for it would wake the thread once a lease for nothing.
            let lease = self.workers.get(worker);
            let is_exact = lease.is_some_and(|lease| lease.ends <= *queued);
            if *queued > now && is_exact {
                break;
            }
            let Some(Reverse((queued, worker))) = self.queue.pop() else {
                break;
            };
            let Some(lease) = self.workers.get_mut(&worker) else {
                continue;
            };
            if lease.queued != Some(queued) {
                continue;
            }
            lease.queued = None;
            match lease.status {
                LeaseStatus::Suspected => {}
                _ if lease.ends > now => self.enqueue(&worker),
                _ => self.end_lease(worker),
            }
        }
    }

    /// When `tick` is due next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let joins = self.joins_since.map(|since| since + self.join_coalescing);
        let lease = match self.visibility {
            Visibility::Live => self.queue.peek().map(|Reverse((time, _))| *time),
            Visibility::Opening | Visibility::Disconnected => None,
        };
        joins.into_iter().chain(lease).min()
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<MembershipEvent> {
        self.events.pop_front()
    }

    /// Whether the watch is live.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.visibility == Visibility::Live
    }

    /// Returns every known worker and the rest of its lease (zero if it is suspected).
    pub fn remaining(&self, now: Time) -> impl Iterator<Item = (&WorkerId, Duration)> {
        self.workers.iter().map(move |(worker, lease)| {
            let left = match lease.status {
                LeaseStatus::Suspected => Duration::ZERO,
                _ => lease.ends.since(now),
            };
            (worker, left)
        })
    }

    /// Returns the shared id of a known worker.
    #[must_use]
    pub fn known(&self, worker: &str) -> Option<&WorkerId> {
        self.workers.get_key_value(worker).map(|(id, _)| id)
    }

    fn newcomer(&mut self, now: Time, worker: &str, ends: Time) {
        // A value that outlived its TTL is about to be removed by the store: not a heartbeat.
        let (Ok(worker), true) = (WorkerId::new(worker), ends > now) else {
            return;
        };
        self.insert(worker, LeaseStatus::Joining, ends);
        self.joins_since.get_or_insert(now);
        if self.join_coalescing.is_zero() {
            self.report_joins();
        }
    }

    fn report_joins(&mut self) {
        let Some(since) = self.joins_since.take() else {
            return;
        };
        let mut joined = Vec::new();
        for (worker, lease) in &mut self.workers {
            if lease.status == LeaseStatus::Joining {
                lease.status = LeaseStatus::Alive;
                joined.push(worker.clone());
            }
        }
        if !joined.is_empty() {
            self.events.push_back(MembershipEvent::Joined {
                since,
                workers: joined,
            });
        }
    }

    fn insert(&mut self, worker: WorkerId, status: LeaseStatus, ends: Time) {
        let lease = Lease {
            status,
            ends,
            queued: None,
            // Only a heartbeat makes a worker join.
            is_shown: status == LeaseStatus::Joining,
        };
        self.workers.insert(worker.clone(), lease);
        if status != LeaseStatus::Suspected {
            self.enqueue(&worker);
        }
    }

    fn enqueue(&mut self, worker: &WorkerId) {
        if let Some(lease) = self.workers.get_mut(worker)
            && lease.queued.is_none()
        {
            lease.queued = Some(lease.ends);
            self.queue.push(Reverse((lease.ends, worker.clone())));
        }
    }

    fn end_lease(&mut self, worker: WorkerId) {
        let Some(lease) = self.workers.get_mut(&worker) else {
            return;
        };
        match lease.status {
            LeaseStatus::Suspected => {}
            LeaseStatus::Joining => {
                self.workers.remove(&worker);
            }
            LeaseStatus::Alive => {
                lease.status = LeaseStatus::Suspected;
                self.events.push_back(MembershipEvent::Suspected(worker));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(6);
    const COALESCE: Duration = Duration::from_millis(100);
    const RECOVERY: Duration = Duration::from_secs(15);

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn id(name: &str) -> WorkerId {
        WorkerId::new(name).unwrap()
    }

    fn events(leases: &mut Leases) -> Vec<MembershipEvent> {
        std::iter::from_fn(|| leases.poll_event()).collect()
    }

    /// Returns leases with a live watch at time zero and these workers alive.
    fn live_with(names: &[&str]) -> Leases {
        let mut leases = Leases::new(TTL, COALESCE, RECOVERY);
        leases.seed(at(0), names.iter().map(|n| (id(n), TTL)), []);
        leases.live(at(0));
        assert_eq!(events(&mut leases), []);
        leases
    }

    #[test]
    fn joins_are_coalesced_and_reported_with_time_of_first() {
        let mut leases = live_with(&[]);
        leases.beat(at(1_000), "w-2", Duration::ZERO);
        leases.beat(at(1_050), "w-1", Duration::ZERO);
        leases.tick(at(1_099));
        assert_eq!(events(&mut leases), []);
        assert_eq!(leases.deadline(), Some(at(1_100)));
        leases.tick(at(1_100));
        let joined = MembershipEvent::Joined {
            since: at(1_000),
            workers: vec![id("w-1"), id("w-2")],
        };
        assert_eq!(events(&mut leases), [joined]);
    }

    #[test]
    fn lease_lasts_one_ttl_and_renewal_raises_no_event() {
        let mut leases = live_with(&["w-1"]);
        for second in 1..=20 {
            leases.beat(at(second * 1_000), "w-1", Duration::ZERO);
            leases.tick(at(second * 1_000));
        }
        assert_eq!(events(&mut leases), []);
        leases.tick(at(25_999));
        assert_eq!(events(&mut leases), []);
        leases.tick(at(26_000));
        assert_eq!(events(&mut leases), [MembershipEvent::Suspected(id("w-1"))]);
        leases.beat(at(27_000), "w-1", Duration::ZERO);
        assert_eq!(events(&mut leases), [MembershipEvent::Returned(id("w-1"))]);
        leases.tick(at(33_000));
        assert_eq!(events(&mut leases), [MembershipEvent::Suspected(id("w-1"))]);
    }

    #[test]
    fn renewed_lease_causes_no_wakeup_before_its_end() {
        let mut leases = live_with(&["w-1", "w-2", "w-3"]);
        for second in 1..=20 {
            for worker in ["w-3", "w-1", "w-2"] {
                leases.beat(at(second * 1_000), worker, Duration::ZERO);
            }
            leases.tick(at(second * 1_000));
            assert_eq!(leases.deadline(), Some(at(second * 1_000 + 6_000)));
        }
    }

    #[test]
    fn deadline_leads_to_expiry_without_polling() {
        let mut leases = live_with(&["w-1", "w-2"]);
        leases.beat(at(5_000), "w-2", Duration::ZERO);
        let mut steps = 0;
        while let Some(deadline) = leases.deadline() {
            leases.tick(deadline);
            steps += 1;
            assert!(steps < 10, "the deadline does not move on");
        }
        assert_eq!(
            events(&mut leases),
            [
                MembershipEvent::Suspected(id("w-1")),
                MembershipEvent::Suspected(id("w-2"))
            ]
        );
    }

    #[test]
    fn deleted_heartbeat_is_leave_not_expiry() {
        let mut leases = live_with(&["w-1"]);
        leases.left("w-1");
        leases.left("w-1");
        leases.tick(at(60_000));
        assert_eq!(events(&mut leases), [MembershipEvent::Left(id("w-1"))]);
    }

    #[test]
    fn worker_that_joins_and_leaves_before_report_is_never_reported() {
        let mut leases = live_with(&[]);
        leases.beat(at(0), "w-1", Duration::ZERO);
        leases.left("w-1");
        leases.tick(at(60_000));
        assert_eq!(events(&mut leases), []);
    }

    #[test]
    fn expiry_marker_ends_lease_at_once() {
        let mut leases = live_with(&["w-1"]);
        leases.expired(at(10), "w-1");
        assert_eq!(events(&mut leases), [MembershipEvent::Suspected(id("w-1"))]);
    }

    #[test]
    fn no_worker_is_suspected_while_disconnected_and_leases_restart_after() {
        let mut leases = live_with(&["w-1", "w-2"]);
        leases.watch_lost();
        leases.watch_lost();
        leases.expired(at(1_000), "w-2");
        leases.tick(at(100_000));
        assert_eq!(leases.deadline(), None);
        leases.live(at(100_000));
        assert_eq!(
            events(&mut leases),
            [MembershipEvent::WatchLost, MembershipEvent::WatchRestored]
        );
        leases.beat(at(100_500), "w-1", Duration::ZERO);
        leases.tick(at(120_999));
        assert_eq!(events(&mut leases), []);
        leases.tick(at(121_000));
        assert_eq!(
            events(&mut leases),
            [
                MembershipEvent::Suspected(id("w-1")),
                MembershipEvent::Suspected(id("w-2"))
            ]
        );
    }

    /// Symptom: a healthy worker that returned 1.2 s after the store lost everything. Cause: the
    /// expiry markers of the restarted server ended leases at once, whatever grace they had.
    #[test]
    fn expiry_marker_after_outage_ends_no_lease_before_ttl_and_recovery_grace() {
        let mut leases = live_with(&["w-1", "w-2"]);
        leases.watch_lost();
        leases.live(at(10_000));
        leases.expired(at(10_100), "w-1");
        leases.expired(at(10_100), "w-2");
        leases.beat(at(11_200), "w-1", Duration::ZERO);
        leases.tick(at(30_999));
        assert_eq!(
            events(&mut leases),
            [MembershipEvent::WatchLost, MembershipEvent::WatchRestored]
        );
        leases.beat(at(30_999), "w-1", Duration::ZERO);
        leases.tick(at(31_000));
        assert_eq!(events(&mut leases), [MembershipEvent::Suspected(id("w-2"))]);
        leases.expired(at(31_000), "w-1");
        assert_eq!(events(&mut leases), [MembershipEvent::Suspected(id("w-1"))]);
    }

    #[test]
    fn join_while_disconnected_is_reported_before_its_end() {
        let mut leases = live_with(&["w-1"]);
        leases.watch_lost();
        leases.beat(at(1_000), "w-2", Duration::ZERO);
        leases.live(at(1_010));
        let joined = MembershipEvent::Joined {
            since: at(1_000),
            workers: vec![id("w-2")],
        };
        assert_eq!(
            events(&mut leases),
            [
                MembershipEvent::WatchLost,
                joined,
                MembershipEvent::WatchRestored
            ]
        );
    }

    #[test]
    fn nothing_expires_before_first_full_view() {
        let mut leases = Leases::new(TTL, COALESCE, RECOVERY);
        leases.seed(at(0), [(id("w-1"), Duration::from_secs(1))], [id("w-2")]);
        leases.tick(at(9_000));
        assert_eq!(events(&mut leases), []);
        leases.beat(at(9_000), "w-2", Duration::from_secs(1));
        leases.live(at(9_000));
        leases.tick(at(9_000));
        assert_eq!(
            events(&mut leases),
            [
                MembershipEvent::Returned(id("w-2")),
                MembershipEvent::Suspected(id("w-1"))
            ]
        );
    }

    #[test]
    fn expiry_marker_in_first_view_ends_lease_with_it() {
        let mut leases = Leases::new(TTL, COALESCE, RECOVERY);
        leases.seed(at(0), [(id("w-1"), TTL), (id("w-2"), TTL)], []);
        leases.expired(at(100), "w-1");
        leases.expired(at(100), "w-2");
        leases.expired(at(100), "stranger");
        leases.beat(at(200), "w-2", Duration::ZERO);
        leases.live(at(300));
        assert_eq!(leases.deadline(), Some(at(100)));
        leases.tick(at(300));
        assert_eq!(events(&mut leases), [MembershipEvent::Suspected(id("w-1"))]);
        let left: Vec<_> = leases.remaining(at(300)).map(|(_, left)| left).collect();
        assert_eq!(left, [Duration::ZERO, Duration::from_millis(5_900)]);
    }

    #[test]
    fn heartbeat_age_shortens_its_lease() {
        let mut leases = live_with(&[]);
        leases.beat(at(0), "w-1", Duration::from_secs(4));
        leases.beat(at(0), "stale", TTL);
        leases.tick(at(100));
        leases.tick(at(2_000));
        let joined = MembershipEvent::Joined {
            since: at(0),
            workers: vec![id("w-1")],
        };
        assert_eq!(
            events(&mut leases),
            [joined, MembershipEvent::Suspected(id("w-1"))]
        );
    }

    #[test]
    fn flapping_worker_leaves_nothing_in_queue() {
        let mut leases = live_with(&[]);
        for round in 0..1_000 {
            let now = at(round * 1_000);
            leases.beat(now, "w-1", Duration::ZERO);
            leases.tick(now + COALESCE);
            leases.left("w-1");
        }
        assert!(leases.queue.len() <= 8, "{}", leases.queue.len());
    }

    #[test]
    fn heartbeat_with_malformed_key_is_ignored() {
        let mut leases = live_with(&[]);
        leases.beat(at(0), "a b", Duration::ZERO);
        leases.beat(at(0), "", Duration::ZERO);
        leases.tick(at(100));
        assert_eq!(events(&mut leases), []);
    }

    #[test]
    fn forgotten_worker_rejoins_with_next_heartbeat() {
        let mut leases = live_with(&["w-1"]);
        leases.tick(at(6_000));
        leases.forget("w-1");
        leases.beat(at(7_000), "w-1", Duration::ZERO);
        leases.tick(at(7_100));
        let joined = MembershipEvent::Joined {
            since: at(7_000),
            workers: vec![id("w-1")],
        };
        assert_eq!(
            events(&mut leases),
            [MembershipEvent::Suspected(id("w-1")), joined]
        );
    }

    mod properties {
        use proptest::prelude::*;

        use super::*;

        const NAMES: [&str; 3] = ["w-0", "w-1", "w-2"];

        #[derive(Clone, Debug)]
        enum LivenessStep {
            Beat(usize, u64),
            Left(usize),
            Forget(usize),
            Disconnect,
            Live,
            Wait(u64),
        }

        fn step() -> impl Strategy<Value = LivenessStep> {
            let worker = 0..NAMES.len();
            // Either dead on arrival or alive for longer than joins are held back.
            let age = prop_oneof![5 => 0..5_000_u64, 1 => 6_000..7_000_u64];
            prop_oneof![
                6 => (worker.clone(), age).prop_map(|(w, age)| LivenessStep::Beat(w, age)),
                1 => worker.clone().prop_map(LivenessStep::Left),
                1 => worker.prop_map(LivenessStep::Forget),
                1 => Just(LivenessStep::Disconnect),
                2 => Just(LivenessStep::Live),
                6 => (0..4_000_u64).prop_map(LivenessStep::Wait),
            ]
        }

        /// Reported state of one worker: whether it is in the fleet, and when it must be suspected.
        #[derive(Clone, Copy, Default)]
        struct ReportedMembership {
            present: bool,
            suspected: bool,
            ends: u64,
        }

        proptest! {
            #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

            #[test]
            fn reports_agree_with_reference_model_of_last_heartbeats(
                steps in prop::collection::vec(step(), 0..60),
            ) {
                let mut leases = live_with(&[]);
                let mut reported = [ReportedMembership::default(); NAMES.len()];
                let mut now = 0;
                let mut disconnected = false;
                for step in steps {
                    let mut until = now;
                    match step {
                        LivenessStep::Beat(w, age) => {
                            leases.beat(at(now), NAMES[w], Duration::from_millis(age));
                            let ends = now + 6_000_u64.saturating_sub(age);
                            let known = if reported[w].suspected { 0 } else { reported[w].ends };
                            if ends > now || known > 0 {
                                reported[w].ends = ends.max(known);
                            }
                        }
                        LivenessStep::Left(w) => {
                            leases.left(NAMES[w]);
                            if !reported[w].present {
                                reported[w] = ReportedMembership::default();
                            }
                        }
                        LivenessStep::Forget(w) => {
                            leases.forget(NAMES[w]);
                            if reported[w].suspected {
                                reported[w] = ReportedMembership::default();
                            }
                        }
                        LivenessStep::Disconnect => {
                            leases.watch_lost();
                            disconnected = true;
                        }
                        LivenessStep::Live => {
                            leases.live(at(now));
                            if std::mem::take(&mut disconnected) {
                                for worker in reported.iter_mut().filter(|w| w.ends > 0) {
                                    worker.ends = worker.ends.max(now + 21_000);
                                }
                            }
                        }
                        LivenessStep::Wait(millis) => until = now + millis,
                    }
                    let mut spins = 0;
                    while let Some(due) = leases.deadline().filter(|&due| due <= at(until)) {
                        now = now.max(due.as_nanos() / 1_000_000);
                        leases.tick(at(now));
                        spins += 1;
                        prop_assert!(spins < 100, "the deadline does not move on");
                        for event in events(&mut leases) {
                            if let MembershipEvent::Suspected(worker) = &event {
                                let w = NAMES.iter().position(|n| *n == worker.as_str()).unwrap();
                                prop_assert!(!disconnected && reported[w].present && !reported[w].suspected);
                                prop_assert!(reported[w].ends <= now, "{worker} went suspected early");
                            }
                            follow(&mut reported, &event);
                        }
                    }
                    now = until;
                    for event in events(&mut leases) {
                        follow(&mut reported, &event);
                    }
                    for worker in reported.iter().filter(|w| w.present && !w.suspected && !disconnected) {
                        prop_assert!(worker.ends > now, "a lease that ran out was not reported");
                    }
                }
            }
        }

        fn follow(reported: &mut [ReportedMembership], event: &MembershipEvent) {
            let at = |worker: &WorkerId| NAMES.iter().position(|n| *n == worker.as_str()).unwrap();
            match event {
                MembershipEvent::Joined { workers, .. } => {
                    for worker in workers {
                        reported[at(worker)].present = true;
                        reported[at(worker)].suspected = false;
                    }
                }
                MembershipEvent::Left(worker) => {
                    reported[at(worker)] = ReportedMembership::default()
                }
                MembershipEvent::Suspected(worker) => reported[at(worker)].suspected = true,
                MembershipEvent::Returned(worker) => reported[at(worker)].suspected = false,
                MembershipEvent::WatchLost | MembershipEvent::WatchRestored => {}
            }
        }
    }
}

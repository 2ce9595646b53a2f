//! Joining, owning partitions, leading, leaving.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use divvy::error::Code;
use divvy::store::memory::MemoryStore;
use divvy::store::{Bucket, Store};
use divvy::{
    CalculatorEvent, Cancel, Departure, Error, LeaderElection, Manager, ManagerEvent,
    ManagerEventFilter,
};
use divvy::{ManagerConfig, ManagerState, OutagePolicy, WorkerId};

use crate::support::managers::*;

fn soon() -> Instant {
    Instant::now() + TIMEOUT
}

#[test]
fn single_worker_claims_lowest_id_leads_and_holds_everything() {
    let store = MemoryStore::new();
    let manager = started(&store);
    assert_eq!(manager.worker_id(), Some(worker("worker-0")));
    wait_for_cover(&[&manager], 12);
    assert!(manager.is_leader());
    assert_eq!(manager.leader(), manager.worker_id());
    manager.wait_state(ManagerState::Stable, TIMEOUT).unwrap();
    manager.stop(Departure::Leave, TIMEOUT).unwrap();
    assert_eq!(manager.state(), ManagerState::Shutdown);
    assert_eq!(manager.worker_id(), None);
}

#[test]
fn first_assignment_is_delivered_and_changes_list_acquired_and_released() {
    let store = MemoryStore::new();
    let first = manager(&store);
    let reported = first.events(ManagerEventFilter::Assignment);
    first.start(TIMEOUT).unwrap();
    let event = wait_for(&reported, "a first assignment", |_| true);
    let ManagerEvent::AssignmentChanged(change) = &*event else {
        panic!("{event:?}");
    };
    assert_eq!((change.added.len(), change.removed.len()), (12, 0));
    assert_eq!(change.held.version, 1);

    let second = started(&store);
    wait_for_cover(&[&first, &second], 12);
    let event = wait_for(
        &reported,
        "the loss of half",
        |notice| matches!(notice, ManagerEvent::AssignmentChanged(c) if !c.removed.is_empty()),
    );
    let ManagerEvent::AssignmentChanged(change) = &*event else {
        unreachable!("asked for");
    };
    assert_eq!((change.added.len(), change.removed.len()), (0, 6));
    assert_eq!(change.held.partitions.len(), 6);
}

#[test]
fn wait_state_distinguishes_timed_out_cancelled_and_stopped() {
    let store = MemoryStore::new();
    let manager = started(&store);
    let wait = |timeout| {
        let waited = manager.wait_state(ManagerState::Emergency, timeout);
        waited.unwrap_err().code()
    };
    assert_eq!(wait(Duration::from_millis(1)), Code::TimedOut);
    let cancel = Cancel::new();
    cancel.fire();
    assert_eq!(cancel.run(|| wait(TIMEOUT)), Code::Cancelled);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(TIMEOUT));
        manager.stop(Departure::Leave, TIMEOUT).unwrap();
        assert_eq!(waiting.join().unwrap(), Code::NotRunning);
    });
    manager.wait_state(ManagerState::Shutdown, TIMEOUT).unwrap();
}

#[test]
fn late_subscriber_receives_current_state() {
    let store = MemoryStore::new();
    let manager = started(&store);
    wait_for_cover(&[&manager], 12);
    manager.wait_state(ManagerState::Stable, TIMEOUT).unwrap();
    let events = manager.events(ManagerEventFilter::Worker);
    let first: Vec<_> = (0..4).filter_map(|_| events.try_recv()).collect();
    assert!(
        matches!(
            first.iter().map(|e| &**e).collect::<Vec<_>>()[..],
            [
                ManagerEvent::StateChanged(_),
                ManagerEvent::Id(Some(_)),
                ManagerEvent::Leader { is_self: true, .. },
                ManagerEvent::AssignmentChanged(_),
            ]
        ),
        "{first:#?}"
    );
}

/// Symptom: a subscriber between two lifecycles received the id and an empty assignment of the
/// former one. Cause: a stop did not reset the state for new subscribers.
#[test]
fn subscriber_after_stop_receives_nothing_of_previous_run() {
    let store = MemoryStore::new();
    let manager = started(&store);
    wait_for_cover(&[&manager], 12);
    manager.stop(Departure::Restart, TIMEOUT).unwrap();
    let events = manager.events(ManagerEventFilter::Worker);
    let first = events.try_recv().expect("the state");
    assert!(
        matches!(&*first, ManagerEvent::StateChanged(c) if c.to == ManagerState::Shutdown),
        "{first:?}"
    );
    assert!(events.try_recv().is_none());
}

#[test]
fn leave_hands_over_leadership_and_partitions_and_leaves_no_key() {
    let store = MemoryStore::new();
    let first = started(&store);
    wait_until("the first leads", || first.is_leader());
    let second = started(&store);
    wait_for_cover(&[&first, &second], 12);
    first.stop(Departure::Leave, TIMEOUT).unwrap();
    wait_for_cover(&[&second], 12);
    assert!(second.is_leader());
    second.stop(Departure::Leave, TIMEOUT).unwrap();
    for bucket in [Bucket::StableId, Bucket::Election, Bucket::Heartbeat] {
        let listing = store.list(bucket, "", soon()).unwrap();
        let live: Vec<_> = listing.entries.iter().filter(|e| e.is_live()).collect();
        assert!(live.is_empty(), "{bucket:?}: {live:?}");
    }
}

#[test]
fn quickly_restarted_worker_keeps_its_id_and_partitions() {
    let store = MemoryStore::new();
    let leader = started(&store);
    wait_until("it leads", || leader.is_leader());
    let second = started(&store);
    wait_for_cover(&[&leader, &second], 12);
    let (id, before) = (second.worker_id(), second.assignment());
    second.stop(Departure::Restart, TIMEOUT).unwrap();
    let again = manager(&store);
    again.start(TIMEOUT).unwrap();
    assert_eq!(again.worker_id(), id);
    wait_until("it owns its former partitions", || {
        again.assignment().partitions == before.partitions
    });
    assert_eq!(again.assignment().version, before.version);
    assert_eq!(leader.assignment().version, leader.assignment().version);
}

#[test]
fn rolling_restart_keeps_fleet_divided_and_moves_nothing() {
    let store = MemoryStore::new();
    let mut fleet: Vec<Manager> = (0..4).map(|_| started(&store)).collect();
    wait_for_cover(&fleet.iter().collect::<Vec<_>>(), 12);
    let holdings = |fleet: &[Manager]| {
        let mut all: Vec<_> = fleet
            .iter()
            .map(|m| (m.worker_id(), m.assignment().partitions))
            .collect();
        all.sort();
        all
    };
    let before = holdings(&fleet);
    for index in 0..fleet.len() {
        fleet[index].stop(Departure::Restart, TIMEOUT).unwrap();
        fleet[index] = started(&store);
        wait_for_cover(&fleet.iter().collect::<Vec<_>>(), 12);
    }
    assert_eq!(holdings(&fleet), before);
}

#[test]
fn worker_can_be_forbidden_to_lead() {
    let store = MemoryStore::new();
    let mut config = config();
    config.may_lead = false;
    let follower = manager_over(store.client("follower"), config, 12);
    follower.start(TIMEOUT).unwrap();
    follower
        .wait_state(ManagerState::Election, TIMEOUT)
        .unwrap();
    let leader = started(&store);
    wait_for_cover(&[&follower, &leader], 12);
    assert!(leader.is_leader() && !follower.is_leader());
    assert_eq!(follower.leader(), leader.worker_id());
    leader.stop(Departure::Leave, TIMEOUT).unwrap();
    wait_until("no leader", || follower.leader().is_none());
    assert!(!follower.is_leader());
}

/// An election without a winner, until the test elects one.
#[derive(Clone, Default)]
struct Hosts {
    elected: Arc<AtomicUsize>,
    resigned: Arc<AtomicUsize>,
}

impl LeaderElection for Hosts {
    fn campaign(&self, _: &WorkerId, _: Instant) -> Result<Option<Duration>, Error> {
        let is_elected = self.elected.load(Ordering::SeqCst) > 0;
        Ok(is_elected.then_some(Duration::from_millis(300)))
    }

    fn resign(&self, _: &WorkerId, _: Instant) -> Result<(), Error> {
        self.resigned.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn host_election_decides_leadership() {
    let store = MemoryStore::new();
    let election = Hosts::default();
    let manager = Manager::builder(Arc::new(store.client("worker")))
        .config(config())
        .source(|| Ok(partitions(12)))
        .election(election.clone())
        .build()
        .unwrap();
    manager.start(TIMEOUT).unwrap();
    manager.wait_state(ManagerState::Election, TIMEOUT).unwrap();
    election.elected.store(1, Ordering::SeqCst);
    wait_for_cover(&[&manager], 12);
    election.elected.store(0, Ordering::SeqCst);
    wait_until("it steps down", || !manager.is_leader());
    election.elected.store(1, Ordering::SeqCst);
    wait_until("it leads again", || manager.is_leader());
    manager.stop(Departure::Leave, TIMEOUT).unwrap();
    assert_eq!(election.resigned.load(Ordering::SeqCst), 1);
}

#[test]
fn only_leader_refreshes_and_followers_report_leader() {
    let store = MemoryStore::new();
    let count = Arc::new(AtomicUsize::new(4));
    let build = || {
        let count = Arc::clone(&count);
        Manager::builder(Arc::new(store.client("worker")))
            .config(config())
            .source(move || Ok(partitions(count.load(Ordering::SeqCst))))
            .build()
            .unwrap()
    };
    let (first, second) = (build(), build());
    first.start(TIMEOUT).unwrap();
    wait_until("it leads", || first.is_leader());
    second.start(TIMEOUT).unwrap();
    wait_for_cover(&[&first, &second], 4);
    count.store(8, Ordering::SeqCst);
    first.refresh_partitions(TIMEOUT).unwrap();
    wait_for_cover(&[&first, &second], 8);
    let error = second.refresh_partitions(TIMEOUT).unwrap_err();
    assert_eq!(error.code(), Code::NotLeader);
    assert!(error.to_string().contains("worker-0 leads"), "{error}");
    assert!(first.trigger_rebalance(TIMEOUT).unwrap() > 1);
}

#[test]
fn pushed_list_is_divided_by_current_leader() {
    let store = MemoryStore::new();
    let build = || {
        Manager::builder(Arc::new(store.client("worker")))
            .config(config())
            .build()
            .unwrap()
    };
    let (first, second) = (build(), build());
    for manager in [&first, &second] {
        manager.set_partitions(partitions(6)).unwrap();
        manager.start(TIMEOUT).unwrap();
    }
    wait_for_cover(&[&first, &second], 6);
    for manager in [&first, &second] {
        manager.set_partitions(partitions(8)).unwrap();
    }
    wait_for_cover(&[&first, &second], 8);
    first.stop(Departure::Leave, TIMEOUT).unwrap();
    wait_for_cover(&[&second], 8);
}

#[test]
fn leader_reports_which_replica_differs_in_what() {
    let store = MemoryStore::new();
    let mut config = config();
    config.heartbeat_interval = Duration::from_millis(50);
    config.calculator.heartbeat_ttl = Duration::from_millis(300);
    let build = |config: &ManagerConfig, count| {
        let manager = Manager::builder(Arc::new(store.client("worker")))
            .config(config.clone())
            .build()
            .unwrap();
        manager.set_partitions(partitions(count)).unwrap();
        manager
    };
    let leader = build(&config, 6);
    let received = events(&leader);
    leader.start(TIMEOUT).unwrap();
    wait_until("it leads", || leader.is_leader());
    config.calculator.leave_window = Duration::from_millis(11);
    let other = build(&config, 7);
    other.start(TIMEOUT).unwrap();

    let next = || {
        let is_mismatch = |event: &ManagerEvent| {
            matches!(
                event,
                ManagerEvent::Calculator(CalculatorEvent::ConfigMismatch(_))
            )
        };
        match &*wait_for(&received, "a mismatch", is_mismatch) {
            ManagerEvent::Calculator(CalculatorEvent::ConfigMismatch(mismatch)) => mismatch.clone(),
            _ => unreachable!("another event was filtered"),
        }
    };
    let mismatch = next();
    assert_eq!(mismatch.worker, worker("worker-1"));
    assert_eq!(mismatch.parts.to_string(), "list, settings");
    let status = divvy::read_fleet(&store, &config.calculator, None, soon()).unwrap();
    let parts: Vec<&str> = status.config_differences.iter().map(|d| d.part).collect();
    assert_eq!(parts, ["list", "settings"], "{status}");
    assert_eq!(
        status.config_differences[0].variants[0].workers,
        ["worker-0"]
    );
    assert!(!status.fence.unwrap().leader.is_empty());

    other.set_partitions(partitions(6)).unwrap();
    assert_eq!(next().parts.to_string(), "settings");
}

#[test]
fn second_start_is_rejected_and_repeated_stop_succeeds() {
    let store = MemoryStore::new();
    let manager = started(&store);
    let error = manager.start(TIMEOUT).unwrap_err();
    assert_eq!(error.code(), Code::AlreadyStarted);
    manager.stop(Departure::Leave, TIMEOUT).unwrap();
    manager.stop(Departure::Leave, TIMEOUT).unwrap();
    manager.start(TIMEOUT).unwrap();
    wait_for_cover(&[&manager], 12);
}

#[test]
fn stop_inside_manager_callback_returns_would_deadlock() {
    let store = MemoryStore::new();
    let manager = Arc::new(manager(&store));
    let (sender, reported) = crossbeam_channel::bounded(1);
    let inner = Arc::downgrade(&manager);
    let subscription = manager.subscribe(ManagerEventFilter::Worker, move |_| {
        if let Some(manager) = inner.upgrade() {
            let stopped = manager.stop(Departure::Leave, TIMEOUT);
            let _ = sender.try_send(stopped.map_err(|error| error.code()));
        }
    });
    manager.start(TIMEOUT).unwrap();
    assert_eq!(
        reported.recv_timeout(TIMEOUT).unwrap(),
        Err(Code::WouldDeadlock)
    );
    drop(subscription);
    manager.stop(Departure::Leave, TIMEOUT).unwrap();
}

#[test]
fn two_hundred_workers_share_hundred_ids_and_rest_get_error() {
    let store = MemoryStore::new();
    let mut config = config();
    config.may_lead = false; // only ids matter here
    config.worker_id_ttl = Duration::from_secs(60);
    config.worker_id_max = 99;
    let managers: Vec<Manager> = (0..200)
        .map(|_| manager_over(store.client("worker"), config.clone(), 12))
        .collect();
    let results: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = managers
            .iter()
            .map(|manager| scope.spawn(|| manager.start(Duration::from_secs(5))))
            .collect();
        starts
            .into_iter()
            .map(|start| start.join().unwrap())
            .collect()
    });
    let ids: BTreeSet<_> = managers.iter().filter_map(Manager::worker_id).collect();
    assert_eq!(ids.len(), 100);
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 100);
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(error.code(), Code::IdsExhausted, "{error}");
    }
    // Far fewer than if each worker tried each id.
    let writes = store.ensure(
        Bucket::StableId,
        divvy::store::BucketConfig { ttl: None },
        soon(),
    );
    assert!(writes.unwrap().last_sequence >= 100);
}

#[test]
fn leader_stays_ready_while_its_calculator_scales_and_rebalances() {
    let store = MemoryStore::new();
    let mut slow = config();
    slow.calculator.planned_scale_window = Duration::from_millis(300);
    slow.calculator.cold_start_window = Duration::from_millis(300);
    let leader = manager_over(store.client("leader"), slow, 12);
    assert!(!leader.is_live() && !leader.is_ready());
    leader.start(TIMEOUT).unwrap();
    assert!(leader.is_live());
    wait_until("its first assignment", || leader.is_ready());
    let events = events(&leader);
    let worker = started(&store);
    let mut states = std::collections::BTreeSet::new();
    wait_until("it owns partitions", || {
        assert!(leader.is_ready() && leader.is_live());
        states.insert(leader.state().name());
        !worker.assignment().partitions.is_empty()
    });
    assert!(states.contains("Scaling"), "{states:?}");
    drop(events);
    wait_until("it is ready", || worker.is_ready());
    for manager in [worker, leader] {
        manager.stop(Departure::Leave, TIMEOUT).unwrap();
        assert!(!manager.is_live() && !manager.is_ready());
    }
}

#[test]
fn worker_in_degraded_mode_stays_ready_if_it_serves_and_not_if_it_is_strict() {
    for policy in [OutagePolicy::Serve, OutagePolicy::Strict] {
        let store = MemoryStore::new();
        let client = store.client("worker");
        let faults = client.faults();
        let mut config = config();
        config.outage_policy = policy;
        config.outage.enter_after = Duration::from_millis(300);
        config.outage.leave_after = Duration::from_millis(100);
        let worker = manager_over(client, config, 12);
        worker.start(TIMEOUT).unwrap();
        wait_until("it is ready", || worker.is_ready());
        faults.blackout(divvy::store::memory::Blackout::Refuse);
        if policy == OutagePolicy::Strict {
            wait_until("its ownership ends", || !worker.is_ready());
        } else {
            wait_until("degraded mode", || worker.state() == ManagerState::Degraded);
            assert!(worker.is_ready());
        }
        assert!(worker.is_live());
        faults.restore();
        wait_until("it is ready again", || worker.is_ready());
    }
}

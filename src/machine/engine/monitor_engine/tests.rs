use super::*;
use crate::store::Entry;
use crate::types::WorkerId;

const TTL: Duration = Duration::from_secs(6);

fn at(millis: u64) -> Time {
    Time::from_millis(1_000_000 + millis)
}

/// An engine whose watches are open and complete, with one live worker.
fn watching() -> MonitorEngine {
    let mut engine = opening(&["w-1"]);
    show(&mut engine, 0, entry("w-1", Operation::Put));
    go_live(&mut engine, 0);
    drain(&mut engine);
    engine
}

/// An engine whose watches are open but have shown nothing, with workers that were alive at the
/// take-over.
fn opening(alive: &[&str]) -> MonitorEngine {
    let config = CalculatorConfig {
        heartbeat_ttl: TTL,
        ..CalculatorConfig::default()
    };
    let mut engine = MonitorEngine::new(&config, 7).unwrap();
    engine.order(
        at(0),
        MonitorOrder::Watch {
            alive: alive
                .iter()
                .map(|worker| (WorkerId::new(worker).unwrap(), TTL))
                .collect(),
            suspected: Vec::new(),
        },
    );
    engine.opened(at(0), &MonitorWatch::ALL, None, Applied::default());
    drain(&mut engine);
    engine
}

fn entry(worker: &str, operation: Operation) -> Entry {
    Entry {
        key: format!("heartbeat.{worker}"),
        value: Vec::new(),
        revision: 9,
        operation,
        age: None,
    }
}

fn show(engine: &mut MonitorEngine, millis: u64, entry: Entry) {
    let change = WatchEvent::Change(entry);
    let watch = MonitorWatch::Heartbeats;
    engine.watch_event(at(millis), watch, &change, Applied::default());
}

fn go_live(engine: &mut MonitorEngine, millis: u64) {
    for watch in MonitorWatch::ALL {
        engine.watch_event(at(millis), watch, &WatchEvent::Live, Applied::default());
    }
    engine.tick(at(millis), Applied::default());
}

fn listed(engine: &mut MonitorEngine, millis: u64, entries: Vec<Entry>) {
    let listing = Listing {
        entries,
        ..Listing::default()
    };
    engine.listed(at(millis), None, Ok(listing), Applied::default());
    engine.tick(at(millis), Applied::default());
}

fn drain(engine: &mut MonitorEngine) -> Vec<MonitorAction> {
    std::iter::from_fn(|| engine.poll_action()).collect()
}

fn inputs(actions: &[MonitorAction]) -> Vec<String> {
    let input = |action: &MonitorAction| match action {
        MonitorAction::Report(CalculatorInput::Membership(event)) => Some(format!("{event:?}")),
        MonitorAction::Report(CalculatorInput::Listed { .. }) => Some("Listed".into()),
        _ => None,
    };
    actions.iter().filter_map(input).collect()
}

fn lists(actions: &[MonitorAction]) -> usize {
    let is_list = |action: &&MonitorAction| matches!(action, MonitorAction::List { .. });
    actions.iter().filter(is_list).count()
}

#[test]
fn missed_heartbeats_end_lease_at_deadline() {
    let mut engine = watching();
    let due = engine.deadline().unwrap();
    assert_eq!(due, at(6_000));
    engine.tick(due, Applied::default());
    let actions = drain(&mut engine);
    assert!(matches!(
        actions[0],
        MonitorAction::LeaseEnded { by_marker: false }
    ));
    assert_eq!(inputs(&actions).len(), 1, "{actions:?}");
}

#[test]
fn stalled_process_starts_every_lease_again_instead_of_ending_it() {
    let mut engine = watching();
    let woke = engine.deadline().unwrap() + TTL / 2 + Duration::from_millis(1);
    engine.tick(woke, Applied::default());
    let actions = drain(&mut engine);
    assert!(
        matches!(&actions[0], MonitorAction::WatchLost { why, .. } if why.contains("stalled")),
        "{actions:?}"
    );
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, MonitorAction::LeaseEnded { .. })),
        "{actions:?}"
    );
    assert!(engine.deadline().unwrap() >= woke + TTL);
}

#[test]
fn lost_watch_is_reconciled_every_half_ttl_until_it_is_back() {
    let mut engine = watching();
    let lost = WatchEvent::Disconnected("cut".into());
    engine.watch_event(at(100), MonitorWatch::Heartbeats, &lost, Applied::default());
    engine.tick(at(100), Applied::default());
    assert_eq!(lists(&drain(&mut engine)), 0);
    assert_eq!(engine.deadline(), Some(at(3_100)));
    engine.tick(at(3_100), Applied::default());
    assert_eq!(lists(&drain(&mut engine)), 1);
    // Half a TTL after the listing, however long it took.
    engine.listed(at(4_000), None, Ok(Listing::default()), Applied::default());
    assert_eq!(engine.deadline(), Some(at(7_000)));
    let live = WatchEvent::Live;
    engine.watch_event(
        at(5_000),
        MonitorWatch::Heartbeats,
        &live,
        Applied::default(),
    );
    engine.tick(at(5_000), Applied::default());
    engine.tick(at(7_000), Applied::default());
    assert_eq!(lists(&drain(&mut engine)), 0);
}

#[test]
fn events_of_listing_precede_its_completion() {
    let mut engine = watching();
    engine.order(at(10), MonitorOrder::List { op: OpId(3) });
    assert_eq!(lists(&drain(&mut engine)), 1);
    let listing = Listing {
        entries: vec![entry("w-1", Operation::Delete)],
        ..Listing::default()
    };
    engine.listed(at(20), Some(OpId(3)), Ok(listing), Applied::default());
    let inputs = inputs(&drain(&mut engine));
    assert_eq!(inputs.len(), 2, "{inputs:?}");
    assert!(inputs[0].contains("Left"), "{inputs:?}");
    assert_eq!(inputs[1], "Listed");
}

#[test]
fn ended_watch_is_opened_again_and_reported_once() {
    let mut engine = watching();
    engine.watch_ended(at(5_000), MonitorWatch::Heartbeats, Applied::default());
    engine.tick(at(5_000), Applied::default());
    let mut actions = drain(&mut engine);
    for attempt in 1..4 {
        let open = actions
            .iter()
            .position(|action| matches!(action, MonitorAction::Open(_)))
            .map(|index| actions.remove(index));
        let Some(MonitorAction::Open(missing)) = open else {
            panic!("not opened: {actions:?}")
        };
        assert_eq!(missing, [MonitorWatch::Heartbeats]);
        let now = at(5_000 + attempt * 6_000);
        let error = Error::new(crate::error::Code::Unavailable, "away");
        engine.opened(now, &[], Some(error), Applied::default());
        engine.tick(now + Duration::from_secs(5), Applied::default());
        actions.extend(drain(&mut engine));
    }
    let losses = actions
        .iter()
        .filter(|action| matches!(action, MonitorAction::WatchLost { .. }));
    assert_eq!(losses.count(), 1, "{actions:?}");
}

/// Symptom: a worker that left while a new leader started kept its partitions for a TTL. Cause: its
/// key was deleted between the listing of the take-over and the start of the watch, which need not
/// show the marker of a key that it never showed.
#[test]
fn leave_between_take_over_and_first_view_is_found_when_watch_is_live() {
    let mut engine = opening(&["w-1", "w-2"]);
    engine.tick(at(0), Applied::default());
    show(&mut engine, 10, entry("w-2", Operation::Put));
    go_live(&mut engine, 10);
    assert_eq!(lists(&drain(&mut engine)), 1);
    let left = entry("w-1", Operation::Delete);
    listed(&mut engine, 20, vec![left, entry("w-2", Operation::Put)]);
    let actions = drain(&mut engine);
    assert_eq!(inputs(&actions), [r#"Left("w-1")"#]);
    engine.tick(at(5_000), Applied::default());
    assert_eq!(lists(&drain(&mut engine)), 0);
}

#[test]
fn worker_absent_from_first_view_without_marker_is_suspected_at_once() {
    let mut engine = opening(&["w-1", "w-2"]);
    show(&mut engine, 10, entry("w-2", Operation::Put));
    go_live(&mut engine, 10);
    listed(&mut engine, 20, vec![entry("w-2", Operation::Put)]);
    let actions = drain(&mut engine);
    assert_eq!(inputs(&actions), [r#"Suspected("w-1")"#]);
}

#[test]
fn failed_lookup_of_absent_worker_is_repeated_after_half_ttl() {
    let mut engine = opening(&["w-1"]);
    go_live(&mut engine, 10);
    assert_eq!(lists(&drain(&mut engine)), 1);
    let away = Error::new(crate::error::Code::Unavailable, "away");
    engine.listed(at(20), None, Err(away), Applied::default());
    engine.tick(at(20), Applied::default());
    assert_eq!(lists(&drain(&mut engine)), 0);
    engine.tick(at(3_020), Applied::default());
    assert_eq!(lists(&drain(&mut engine)), 1);
    listed(&mut engine, 3_030, vec![entry("w-1", Operation::Put)]);
    assert_eq!(inputs(&drain(&mut engine)), [""; 0]);
    engine.tick(at(7_000), Applied::default());
    assert!(drain(&mut engine).is_empty());
}

#[test]
fn leave_before_reopened_watch_shows_workers_is_found_when_it_is_live() {
    let mut engine = watching();
    engine.watch_ended(at(100), MonitorWatch::Heartbeats, Applied::default());
    engine.opened(
        at(200),
        &[MonitorWatch::Heartbeats],
        None,
        Applied::default(),
    );
    go_live(&mut engine, 210);
    let actions = drain(&mut engine);
    assert_eq!(lists(&actions), 1, "{actions:?}");
    listed(&mut engine, 220, vec![entry("w-1", Operation::Delete)]);
    assert_eq!(inputs(&drain(&mut engine)), [r#"Left("w-1")"#]);
}

use super::*;
use crate::store::Entry;
use crate::types::WorkerId;

const TTL: Duration = Duration::from_secs(6);

fn at(millis: u64) -> Time {
    Time::from_millis(1_000_000 + millis)
}

/// An engine whose watches are open and complete, with one live worker.
fn watching() -> MonitorEngine {
    let config = CalculatorConfig {
        heartbeat_ttl: TTL,
        ..CalculatorConfig::default()
    };
    let mut engine = MonitorEngine::new(&config, 7).unwrap();
    engine.order(
        at(0),
        MonitorOrder::Watch {
            alive: vec![(WorkerId::new("w-1").unwrap(), TTL)],
            suspected: Vec::new(),
        },
    );
    engine.opened(at(0), &MonitorWatch::ALL, None, Applied::default());
    for watch in MonitorWatch::ALL {
        engine.watch_event(at(0), watch, &WatchEvent::Live, Applied::default());
    }
    engine.tick(at(0), Applied::default());
    drain(&mut engine);
    engine
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
        entries: vec![Entry {
            key: "heartbeat.w-1".into(),
            value: Vec::new(),
            revision: 9,
            operation: Operation::Delete,
            age: None,
        }],
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

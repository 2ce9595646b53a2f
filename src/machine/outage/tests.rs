use super::*;
use crate::config::OutagePreset;

const START: Time = Time::from_nanos(1_000_000_000_000);

fn balanced() -> Outage {
    Outage::new(OutagePreset::Balanced.timing(), START)
}

fn at(seconds: u64) -> Time {
    START + Duration::from_secs(seconds)
}

fn why() -> Option<String> {
    Some("cut off".into())
}

fn events(outage: &mut Outage) -> Vec<OutageEvent> {
    std::iter::from_fn(|| outage.poll_event()).collect()
}

/// Lets time pass from deadline to deadline until `end`; what was reported, and when.
fn run(outage: &mut Outage, end: u64) -> Vec<(Duration, OutageEvent)> {
    let mut reported = Vec::new();
    while let Some(due) = outage.deadline().filter(|due| *due <= at(end)) {
        outage.tick(due);
        let events = events(outage);
        assert!(!events.is_empty(), "a deadline for nothing at {due:?}");
        reported.extend(events.into_iter().map(|event| (due.since(START), event)));
    }
    outage.tick(at(end));
    reported.extend(
        events(outage)
            .into_iter()
            .map(|event| (at(end).since(START), event)),
    );
    reported
}

/// Defect 9: degraded mode never enters after one healthy tick.
#[test]
fn degraded_mode_starts_ten_seconds_into_outage_despite_polling() {
    let mut outage = balanced();
    assert_eq!(outage.deadline(), None);
    for second in 0..5 {
        outage.tick(at(second));
    }
    outage.set_fault(at(5), why());
    assert_eq!(outage.deadline(), Some(at(15)));
    outage.set_fault(at(8), Some("still cut off".into()));
    assert_eq!(outage.deadline(), Some(at(15)), "the same outage");
    outage.tick(at(14));
    assert!(!outage.has_begun());
    outage.tick(at(15));
    assert!(outage.has_begun());
    assert_eq!(
        events(&mut outage),
        [OutageEvent::Begins("still cut off".into())]
    );
}

#[test]
fn short_fault_is_no_outage() {
    let mut outage = balanced();
    outage.set_fault(at(0), why());
    outage.set_fault(at(9), None);
    assert_eq!(run(&mut outage, 60), []);
}

/// Defect 9: or never leaves.
#[test]
fn degraded_mode_ends_exactly_five_seconds_after_recovery() {
    let mut outage = balanced();
    outage.set_fault(at(0), why());
    outage.tick(at(10));
    outage.set_fault(at(12), None);
    outage.set_fault(at(14), why());
    outage.set_fault(at(15), None);
    assert_eq!(outage.deadline(), Some(at(20)), "from the last bad moment");
    events(&mut outage);
    let reported = run(&mut outage, 60);
    let lasted = Duration::from_secs(10);
    assert_eq!(
        reported,
        [(Duration::from_secs(20), OutageEvent::Ends { lasted })]
    );
    assert!(!outage.has_begun());
    assert_eq!(outage.deadline(), None);
}

#[test]
fn five_failures_within_thirty_seconds_count_as_outage() {
    let mut outage = balanced();
    for second in [0, 10, 20, 29] {
        outage.failed(at(second), "timed out");
    }
    assert!(!outage.has_begun());
    outage.failed(at(31), "timed out");
    assert!(!outage.has_begun(), "the first is too old");
    outage.failed(at(32), "refused");
    assert_eq!(events(&mut outage), [OutageEvent::Begins("refused".into())]);
    // A failure is a bad moment, too.
    outage.failed(at(35), "refused");
    assert_eq!(outage.deadline(), Some(at(40)));
    let lasted = Duration::from_secs(8);
    let end = (Duration::from_secs(40), OutageEvent::Ends { lasted });
    assert_eq!(run(&mut outage, 41), [end]);
    outage.failed(at(42), "refused");
    assert!(!outage.has_begun(), "those before are settled");
}

#[test]
fn alert_level_rises_with_outage_duration() {
    let mut outage = balanced();
    outage.set_fault(at(0), why());
    let reported = run(&mut outage, 3_600);
    let alerts: Vec<_> = reported
        .iter()
        .filter_map(|(when, event)| match event {
            OutageEvent::Alert { level, lasted } => {
                assert_eq!(*lasted + Duration::from_secs(10), *when);
                Some((level.name(), lasted.as_secs()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        alerts,
        [
            ("info", 30),
            ("warning", 120),
            ("error", 300),
            ("critical", 600)
        ]
    );
    // The next one alarms from the beginning.
    outage.set_fault(at(3_600), None);
    run(&mut outage, 3_610);
    outage.set_fault(at(3_610), why());
    let again = run(&mut outage, 3_660);
    assert_eq!(again.len(), 2, "{again:?}");
}

#[test]
fn presets_differ_in_hysteresis() {
    for (preset, enter, leave, errors) in [
        (OutagePreset::Conservative, 30, 10, 10),
        (OutagePreset::Balanced, 10, 5, 5),
        (OutagePreset::Aggressive, 5, 3, 3),
    ] {
        let mut outage = Outage::new(preset.timing(), START);
        outage.set_fault(START, why());
        assert_eq!(outage.deadline(), Some(at(enter)));
        outage.tick(at(enter));
        outage.set_fault(at(enter), None);
        assert_eq!(outage.deadline(), Some(at(enter + leave)));
        let mut outage = Outage::new(preset.timing(), START);
        for n in 1..=errors {
            assert!(!outage.has_begun());
            outage.failed(START, "refused");
            assert_eq!(outage.has_begun(), n == errors);
        }
    }
}

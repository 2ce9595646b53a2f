//! Whatever happens, in whatever order: no panic, legal moves only, deadlines that lead somewhere,
//! and no pending work that is forgotten.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 6] = ["w-0", "w-1", "w-2", "w-3", "w-4", "w-5"];

#[derive(Clone, Debug)]
enum Step {
    Beats(usize),
    Leaves(usize),
    Expires(usize),
    Wait(u64),
    WatchLost,
    Sighted,
    Trigger,
    Partitions(Finding),
    Foreign(bool),
    Fail(Code),
    FailListing,
    JobTime(u64),
    Store(bool),
    Malformed(u32),
    Stale(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let worker = 0..NAMES.len();
    let code = prop_oneof![
        Just(Code::Unavailable),
        Just(Code::TimedOut),
        Just(Code::Conflict),
        Just(Code::Unauthorized),
        Just(Code::SourceFailed),
        Just(Code::StrategyFailed),
        Just(Code::Panicked),
    ];
    let finding = prop_oneof![
        Just(Finding::Same),
        Just(Finding::Changed),
        (0.0..0.5).prop_map(|excess| Finding::Reweighted { excess }),
    ];
    prop_oneof![
        4 => worker.clone().prop_map(Step::Beats),
        2 => worker.clone().prop_map(Step::Leaves),
        4 => worker.prop_map(Step::Expires),
        8 => (0..20_000_u64).prop_map(Step::Wait),
        1 => Just(Step::WatchLost),
        2 => Just(Step::Sighted),
        2 => Just(Step::Trigger),
        2 => finding.prop_map(Step::Partitions),
        1 => any::<bool>().prop_map(Step::Foreign),
        3 => code.prop_map(Step::Fail),
        1 => Just(Step::FailListing),
        1 => (0..15_000_u64).prop_map(Step::JobTime),
        1 => any::<bool>().prop_map(Step::Store),
        1 => (0..20_u32).prop_map(Step::Malformed),
        1 => (0..50_u64).prop_map(Step::Stale),
    ]
}

/// Model of the leases: the live workers, and the suspected workers that may return.
#[derive(Default)]
struct Fleet {
    alive: BTreeSet<usize>,
    missing: BTreeSet<usize>,
    waiting: BTreeSet<u64>,
    tickets: u64,
    revision: u64,
}

impl Fleet {
    /// Feeds a step to the world the way leases and threads would.
    fn apply(&mut self, world: &mut World, step: &Step) {
        match *step {
            Step::Beats(w) if self.missing.remove(&w) => {
                self.alive.insert(w);
                world.back(NAMES[w]);
            }
            Step::Beats(w) => {
                if self.alive.insert(w) {
                    world.join(&[NAMES[w]]);
                }
            }
            Step::Leaves(w) => {
                if self.alive.remove(&w) | self.missing.remove(&w) {
                    world.leave(NAMES[w]);
                }
            }
            Step::Expires(w) => {
                if world.calculator.watch_lost_since.is_none() && self.alive.remove(&w) {
                    self.missing.insert(w);
                    world.missing(NAMES[w]);
                }
            }
            Step::Wait(millis) => {
                let now = world.now.as_nanos() / 1_000_000;
                world.at(now + millis);
            }
            Step::WatchLost => world.watch_lost(),
            Step::Sighted => world.membership_changed(),
            Step::Trigger => {
                self.tickets += 1;
                self.waiting.insert(self.tickets);
                world.trigger(self.tickets);
            }
            Step::Partitions(finding) => {
                self.tickets += 1;
                self.waiting.insert(self.tickets);
                world.find(finding);
                world.partitions_changed(Some(self.tickets));
            }
            Step::Foreign(foreign) => {
                self.revision += 1;
                world.find(if foreign {
                    Finding::Changed
                } else {
                    Finding::Same
                });
                world.handle(CalculatorInput::ForeignSuspected {
                    key: "assignment.w-1".into(),
                    revision: self.revision,
                });
            }
            Step::Fail(code) => world.fail(code),
            Step::FailListing => {
                let error = Error::new(Code::Unavailable, "simulated");
                world.listings.push_back(Err(error));
            }
            Step::JobTime(millis) => world.job_time = Duration::from_millis(millis),
            Step::Store(well) => {
                world.handle(CalculatorInput::StoreHealth(
                    (!well).then(|| "unwell".into()),
                ));
            }
            Step::Malformed(count) => world.handle(malformed(count)),
            Step::Stale(op) => {
                let op = OpId(1_000_000 + op);
                let result = Err(Error::new(Code::Fenced, "stale"));
                world.handle(CalculatorInput::JobDone {
                    op,
                    term: 2,
                    result,
                });
            }
        }
        self.follow(world);
    }

    /// Applies the output of the machine: workers to remove from the leases, answered callers.
    fn follow(&mut self, world: &mut World) {
        for worker in world.forgotten.drain(..) {
            let index = NAMES.iter().position(|name| *name == worker);
            self.missing.remove(&index.unwrap());
        }
        for line in std::mem::take(&mut world.trace) {
            let words: Vec<&str> = line.split(' ').collect();
            if words[1] == "reply" {
                let ticket = words[2].parse().unwrap();
                assert!(self.waiting.remove(&ticket), "answered twice: {line}");
            }
        }
    }
}

/// Long enough for every window, grace, cooldown and retry, several times over.
const QUIET_MILLIS: u64 = 600_000;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pending_work_is_never_lost_in_any_order_of_events(
        planned in 0..=NAMES.len(),
        beats in 0..=NAMES.len(),
        consistent in any::<bool>(),
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut world = World::new(CalculatorConfig::default());
        let mut fleet = Fleet::default();
        world.take_over(TakeOver {
            heartbeats: beating(&NAMES[..beats]),
            consistent,
            ..stored(&NAMES[..planned])
        });
        fleet.alive.extend(0..beats);
        fleet.missing.extend(beats..planned);
        for step in &steps {
            fleet.apply(&mut world, step);
        }
        // From here on everything works.
        world.job_ends.clear();
        world.listings.clear();
        world.job_time = Duration::ZERO;
        fleet.apply(&mut world, &Step::Store(true));
        fleet.apply(&mut world, &Step::Sighted);
        fleet.apply(&mut world, &Step::Wait(QUIET_MILLIS));
        let alive: Vec<WorkerId> = fleet.alive.iter().map(|&w| id(NAMES[w])).collect();
        let now = world.now;
        prop_assert_eq!(world.calculator.deadline(), None);
        prop_assert_eq!(world.calculator.position().state, CalculatorState::Idle);
        prop_assert!(fleet.waiting.is_empty(), "never answered: {:?}", fleet.waiting);
        if !alive.is_empty() {
            prop_assert_eq!(world.calculator.pending(now).reason, None);
            prop_assert!(world.calculator.degraded().is_empty());
            let planned: Vec<WorkerId> = world.calculator.planned().cloned().collect();
            prop_assert_eq!(planned, alive);
        }
    }

    #[test]
    fn same_events_at_same_times_yield_same_actions(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let run = || {
            let mut world = World::settled(&NAMES[..3]);
            let mut fleet = Fleet::default();
            fleet.alive.extend(0..3);
            let mut reported = Vec::new();
            for step in &steps {
                fleet.apply(&mut world, step);
                reported.push(format!("{:?}", world.calculator));
            }
            reported
        };
        prop_assert_eq!(run(), run());
    }
}

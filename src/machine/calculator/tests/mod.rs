//! The calculator machine driven by hand: time is stepped to its deadlines, jobs are answered as
//! the test wants, and what comes out is kept as lines of text.

mod first_plan;
mod losses;
mod outages;
mod pending;
mod properties;
mod regressions;
mod source;
mod start;
mod windows;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use super::{
    CalculatorAction, CalculatorEvent, CalculatorInput, CalculatorMachine, Finding, Job, JobReport,
    OpId, Publication, SourceOutcome, Ticket,
};
use crate::config::CalculatorConfig;
use crate::error::{Code, Error};
use crate::machine::fit::{AssignmentLimit, AssignmentSizes};
use crate::machine::liveness::MembershipEvent;
use crate::machine::plausible::{MalformedValue, MalformedValues};
use crate::machine::position::is_legal;
use crate::machine::takeover::{HeartbeatRecord, TakeOver};
use crate::store::{Bucket, Operation};
use crate::strategy::Quality;
use crate::types::{CalculatorState, Time, Version, WorkerId};
use crate::vocabulary::MemberChange;

/// More steps than any test needs from one point in time to another.
const STEPS_MAX: usize = 10_000;

fn id(name: &str) -> WorkerId {
    WorkerId::new(name).unwrap()
}

fn ids(names: &[&str]) -> Vec<WorkerId> {
    names.iter().map(|name| id(name)).collect()
}

/// HeartbeatRecord keys that hold a fresh value.
fn beating(names: &[&str]) -> Vec<HeartbeatRecord> {
    let beat = |name: &&str| HeartbeatRecord {
        worker: id(name),
        operation: Operation::Put,
        age: None,
    };
    names.iter().map(beat).collect()
}

/// Values without a name.
fn malformed(count: u32) -> CalculatorInput {
    CalculatorInput::Malformed(MalformedValues::unnamed(Bucket::Heartbeat, count))
}

/// A stored plan of version 7 for these workers that covers all partitions, and no other
/// heartbeat.
fn stored(planned: &[&str]) -> TakeOver {
    TakeOver {
        term: 2,
        version: if planned.is_empty() { 0 } else { 7 },
        planned: planned.iter().map(|name| id(name)).collect(),
        consistent: true,
        finding: Some(if planned.is_empty() {
            Finding::Changed
        } else {
            Finding::Same
        }),
        heartbeats: Vec::new(),
        former_leader: None,
        former_leader_lease_over: false,
        store_returned: None,
        generation: 0,
    }
}

/// A calculator and everything around it.
struct World {
    calculator: CalculatorMachine,
    now: Time,
    version: Version,
    term: i64,
    generation: u64,
    /// How long a job takes.
    job_time: Duration,
    /// How the next jobs end; those after them succeed.
    job_ends: VecDeque<Result<Finding, Error>>,
    /// Whether the source does not return during the next inspection.
    source_hangs: bool,
    /// What the source does during publications.
    source: SourceOutcome,
    /// How the next plans stand to the limit of the store.
    limit: AssignmentLimit,
    /// The job under way, and when it ends.
    job: Option<(OpId, Job, Time)>,
    listings: VecDeque<Result<(), Error>>,
    state: CalculatorState,
    /// Whose leases need not be kept any more.
    forgotten: Vec<String>,
    trace: Vec<String>,
}

impl World {
    /// A calculator that has not taken over yet. It reports degradations without delay and publishes
    /// the first plan of a fleet at once.
    fn new(config: CalculatorConfig) -> Self {
        Self::patient(CalculatorConfig {
            degraded_enter_after: Duration::ZERO,
            degraded_leave_after: Duration::ZERO,
            initial_delay: Duration::ZERO,
            ..config
        })
    }

    /// A calculator that has not taken over yet.
    fn patient(config: CalculatorConfig) -> Self {
        Self {
            calculator: CalculatorMachine::new(config, Time::ZERO, 1, true),
            now: Time::ZERO,
            version: 0,
            term: 2,
            generation: 0,
            job_time: Duration::ZERO,
            job_ends: VecDeque::new(),
            source_hangs: false,
            source: SourceOutcome::Returned,
            limit: AssignmentLimit::default(),
            job: None,
            listings: VecDeque::new(),
            state: CalculatorState::Idle,
            forgotten: Vec::new(),
            trace: Vec::new(),
        }
    }

    /// A calculator of default timing that adopted the plan of these workers, all alive.
    fn settled(workers: &[&str]) -> Self {
        Self::settled_with(CalculatorConfig::default(), workers)
    }

    fn settled_with(config: CalculatorConfig, workers: &[&str]) -> Self {
        let mut world = World::new(config);
        let found = TakeOver {
            heartbeats: beating(workers),
            ..stored(workers)
        };
        world.take_over(found);
        world.expect("");
        world
    }

    /// A calculator of default timing that found an empty store.
    fn empty() -> Self {
        let mut world = World::new(CalculatorConfig::default());
        world.take_over(stored(&[]));
        world.expect("");
        world
    }

    fn take_over(&mut self, found: TakeOver) {
        self.version = found.version;
        self.term = found.term;
        self.handle(CalculatorInput::TakenOver(Box::new(found)));
    }

    fn join(&mut self, workers: &[&str]) {
        self.handle(CalculatorInput::Membership(MembershipEvent::Joined {
            since: self.now,
            workers: ids(workers),
        }));
    }

    fn leave(&mut self, worker: &str) {
        self.handle(CalculatorInput::Membership(MembershipEvent::Left(id(
            worker,
        ))));
    }

    fn missing(&mut self, worker: &str) {
        self.handle(CalculatorInput::Membership(MembershipEvent::Suspected(id(
            worker,
        ))));
    }

    fn back(&mut self, worker: &str) {
        self.handle(CalculatorInput::Membership(MembershipEvent::Returned(id(
            worker,
        ))));
    }

    fn watch_lost(&mut self) {
        self.handle(CalculatorInput::Membership(MembershipEvent::WatchLost));
    }

    fn membership_changed(&mut self) {
        self.handle(CalculatorInput::Membership(MembershipEvent::WatchRestored));
    }

    fn trigger(&mut self, ticket: u64) {
        let ticket = Ticket(ticket);
        self.handle(CalculatorInput::Trigger { ticket });
    }

    /// Changes the partition list that the next read returns.
    fn partitions_changed(&mut self, ticket: Option<u64>) {
        self.generation += 1;
        self.handle(CalculatorInput::PartitionsChanged {
            generation: self.generation,
            ticket: ticket.map(Ticket),
        });
    }

    /// The next job fails.
    fn fail(&mut self, code: Code) {
        self.job_ends.push_back(Err(Error::new(code, "simulated")));
    }

    /// Sets what the next job finds: the result of a read of the partitions, or a foreign write
    /// unless this is `Same`.
    fn find(&mut self, finding: Finding) {
        self.job_ends.push_back(Ok(finding));
    }

    fn handle(&mut self, event: CalculatorInput) {
        self.calculator.handle(self.now, event);
        self.drain();
    }

    /// Lets time pass up to `millis` from the start.
    fn at(&mut self, millis: u64) {
        let end = Time::from_millis(millis);
        for _ in 0..STEPS_MAX {
            let job_ends = self.job.as_ref().map(|(_, _, ends)| *ends);
            let due = self.calculator.deadline();
            let Some(next) = due.into_iter().chain(job_ends).min() else {
                break;
            };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if job_ends.is_some_and(|ends| ends <= self.now) {
                self.end_job();
            } else {
                self.calculator.tick(self.now);
                let moved = self.drain() > 0 || self.calculator.deadline() != due;
                assert!(moved, "a tick at its deadline {next:?} changed nothing");
            }
        }
        assert!(
            self.calculator.deadline().is_none_or(|d| d > end),
            "no end of work at {:?}",
            self.now
        );
        self.now = self.now.max(end);
    }

    /// Ends the job under way as the test wants.
    fn end_job(&mut self) {
        let (op, job, _) = self.job.take().expect("no job is under way");
        let result = self.result_of(&job);
        let term = self.term;
        self.handle(CalculatorInput::JobDone { op, term, result });
    }

    fn result_of(&mut self, job: &Job) -> Result<JobReport, Error> {
        let end = self.job_ends.pop_front().unwrap_or(Ok(Finding::Same))?;
        Ok(match job {
            Job::Publish { workers, .. } => {
                self.version += 1;
                JobReport::Published(Publication {
                    version: self.version,
                    workers: workers.clone(),
                    partitions: 10,
                    quality: Quality::default(),
                    generation: self.generation,
                    source: self.source.clone(),
                    limit: self.limit.clone(),
                })
            }
            Job::Inspect if std::mem::take(&mut self.source_hangs) => JobReport::Reading,
            Job::Inspect => JobReport::Inspected {
                generation: self.generation,
                finding: end,
            },
            Job::Resolve { .. } => JobReport::Resolved {
                foreign: end != Finding::Same,
            },
            Job::Probe => JobReport::Probed,
        })
    }

    /// Carries out what the machine wants; how many orders there were.
    fn drain(&mut self) -> usize {
        let mut orders = 0;
        let mut listing = None;
        while let Some(action) = self.calculator.poll_action() {
            orders += 1;
            let line = self.line_of(&action);
            self.trace
                .extend(line.map(|line| format!("{} {line}", text_of(self.now))));
            match action {
                CalculatorAction::Start { op, job } => {
                    assert!(self.job.is_none(), "two jobs at once");
                    self.job = Some((op, job, self.now + self.job_time));
                }
                CalculatorAction::List { op } => listing = Some(op),
                CalculatorAction::Notify(_)
                | CalculatorAction::Forget(_)
                | CalculatorAction::Reply { .. }
                | CalculatorAction::Watch { .. } => {}
            }
        }
        if let Some(op) = listing {
            let result = self.listings.pop_front().unwrap_or(Ok(()));
            self.handle(CalculatorInput::Listed { op, result });
        }
        if self
            .job
            .as_ref()
            .is_some_and(|(_, _, ends)| *ends <= self.now)
        {
            self.end_job();
        }
        orders
    }

    fn line_of(&mut self, action: &CalculatorAction) -> Option<String> {
        Some(match action {
            CalculatorAction::Start { job, .. } => match job {
                Job::Publish { reason, workers } => {
                    let names: Vec<&str> = workers.iter().map(WorkerId::as_str).collect();
                    format!("plan {reason} for {}", names.join(" "))
                }
                Job::Inspect => "inspect".into(),
                Job::Resolve { seen, .. } => format!("resolve {}", seen.len()),
                Job::Probe => "probe".into(),
            },
            CalculatorAction::List { .. } => "list".into(),
            CalculatorAction::Watch { .. } => return None,
            CalculatorAction::Forget(worker) => {
                self.forgotten.push(worker.to_string());
                return None;
            }
            CalculatorAction::Reply { ticket, result } => match result {
                Ok(version) => format!("reply {} v{version}", ticket.0),
                Err(error) => format!("reply {} {}", ticket.0, error.code().name()),
            },
            CalculatorAction::Notify(notice) => return self.line_of_notice(notice),
        })
    }

    fn line_of_notice(&mut self, notice: &CalculatorEvent) -> Option<String> {
        Some(match notice {
            CalculatorEvent::StateChanged(change) => {
                assert_eq!(change.from, self.state, "a transition was not reported");
                assert!(is_legal(change.from, change.to), "{change:?}");
                assert_eq!(change.reason.is_none(), change.to == CalculatorState::Idle);
                self.state = change.to;
                let mut line = format!("{}->{}", change.from, change.to);
                if let Some(reason) = change.reason {
                    let _ = write!(line, " {reason}");
                }
                line
            }
            // The test itself reports these.
            CalculatorEvent::Member {
                change: MemberChange::Dead,
                worker,
            } => format!("dead {worker}"),
            CalculatorEvent::Member { .. } => return None,
            CalculatorEvent::Published { version, .. } => format!("published v{version}"),
            CalculatorEvent::Failed { operation, error } => {
                format!("failed to {operation}: {}", error.code().name())
            }
            CalculatorEvent::Malformed(value) => format!("malformed {}", value.key),
            CalculatorEvent::Degraded(list) => {
                let names: Vec<&str> = list.iter().map(|d| d.cause.name()).collect();
                format!("degraded [{}]", names.join(" "))
            }
            CalculatorEvent::AssignmentLimit { version, limit } => format!(
                "limit v{version} unassigned {} near {}",
                limit.unassigned.len(),
                limit.sizes.is_near()
            ),
            CalculatorEvent::Breaker(condition) => format!("breaker {}", condition.state),
            CalculatorEvent::LeadershipLost => "leadership lost".into(),
            other => unreachable!("the machine does not emit {other:?}"),
        })
    }

    /// The trace so far is this; lines are compared without indentation.
    #[track_caller]
    fn expect(&mut self, expected: &str) {
        let actual = std::mem::take(&mut self.trace);
        compare(&actual, expected);
    }

    /// As `expect`, for what depends on the jitter of retries: without the times.
    #[track_caller]
    fn expect_untimed(&mut self, expected: &str) {
        let actual: Vec<String> = std::mem::take(&mut self.trace)
            .iter()
            .map(|line| line.split_once(' ').expect("time and text").1.to_owned())
            .collect();
        compare(&actual, expected);
    }

    /// The times of the trace's lines that contain `text`, in milliseconds.
    fn times_of(&self, text: &str) -> Vec<u64> {
        let time_of = |line: &String| {
            let seconds: f64 = line.split_once(' ').unwrap().0.parse().unwrap();
            Duration::from_secs_f64(seconds).as_millis()
        };
        let lines = self.trace.iter().filter(|line| line.contains(text));
        lines
            .map(|line| u64::try_from(time_of(line)).unwrap())
            .collect()
    }
}

#[track_caller]
fn compare(actual: &[String], expected: &str) {
    let expected: Vec<&str> = expected
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    assert!(
        actual == expected,
        "expected:\n{}\nactual:\n{}",
        expected.join("\n"),
        actual.join("\n")
    );
}

fn text_of(time: Time) -> String {
    let nanos = time.as_nanos();
    let (seconds, millis) = (nanos / 1_000_000_000, nanos / 1_000_000 % 1_000);
    format!("{seconds}.{millis:03}")
}

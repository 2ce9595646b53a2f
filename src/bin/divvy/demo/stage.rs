//! The stage that the script plays on: the fleet, the clock, and the eyes that watch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use divvy::{
    CalculatorEvent, CalculatorState, ManagerConfig, ManagerEvent, ManagerState, MemberChange,
    Partition, Reason, WorkerId,
};

use super::Early;
use super::fleet::{Condition, Fleet, Newcomer};
use super::ledger::{Check, Ledger, Owners, Published, Step};
use super::screen::{Row, Screen, View};
use super::world::World;

/// How long an expectation is waited for.
const TIMEOUT: Duration = Duration::from_secs(8);

/// How long a finished step stays on a terminal.
const TIME_TO_READ: Duration = Duration::from_millis(1_000);

/// Interval at which a condition is checked.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// The state of the demo.
pub struct Stage {
    /// The store.
    pub world: World,
    /// The workers.
    pub fleet: Fleet,
    /// What is divided.
    pub partitions: Vec<Partition>,
    /// How the workers are set up.
    pub config: ManagerConfig,
    /// Calculator events of all leaders since the step began.
    heard: Vec<CalculatorEvent>,
    /// What the leader is doing, and whether it says that it is degraded.
    position: Option<(CalculatorState, Option<Reason>)>,
    is_degraded: bool,
    ledger: Ledger,
    owners_before: Owners,
    step_began: Instant,
    began: Instant,
    screen: Screen,
    interrupted: Arc<AtomicBool>,
}

impl Stage {
    /// An empty stage.
    pub fn new(
        world: World,
        config: ManagerConfig,
        partitions: Vec<Partition>,
        screen: Screen,
        interrupted: Arc<AtomicBool>,
    ) -> Self {
        let now = Instant::now();
        Self {
            world,
            fleet: Fleet::new(),
            partitions,
            config,
            heard: Vec::new(),
            position: None,
            is_degraded: false,
            ledger: Ledger::default(),
            owners_before: Owners::default(),
            step_began: now,
            began: now,
            screen,
            interrupted,
        }
    }

    /// Opens a step.
    pub fn open(&mut self, title: &'static str, story: String) -> Result<(), Early> {
        self.note_events()?;
        self.heard.clear();
        self.owners_before = self.owners();
        self.step_began = Instant::now();
        let number = self.ledger.steps.len() + 1;
        self.screen.title(&format!("{number}. {title}: {story}"))?;
        self.ledger.steps.push(Step {
            title,
            story,
            ..Step::default()
        });
        self.draw()
    }

    /// Closes the running step.
    ///
    /// # Errors
    /// `CheckFailed` when something expected did not come about.
    pub fn close(&mut self) -> Result<(), Early> {
        let exact = self.owners().is_exact(&self.partitions);
        self.check("each partition has exactly one owner", exact)?;
        let moved = self.owners().moved_since(&self.owners_before).count();
        let reported = self.ledger.current().map_or(0, |s| s.moved_by_leaders());
        let text = format!("{moved} partitions moved, and the leaders say so");
        self.check(&text, moved == reported)?;
        self.end_step();
        self.show_loads()?;
        self.draw()?;
        if self.screen.redraws() {
            self.pass(TIME_TO_READ)?;
        }
        Ok(())
    }

    /// Notes a step that is left out.
    pub fn skip(&mut self, title: &'static str, why: &str) -> Result<(), Early> {
        let number = self.ledger.steps.len() + 1;
        let story = format!("left out: {why}");
        self.screen.title(&format!("{number}. {title}: {story}"))?;
        self.ledger.steps.push(Step {
            title,
            story,
            took: Some(Duration::ZERO),
            skipped: Some(why.to_owned()),
            ..Step::default()
        });
        Ok(())
    }

    /// Waits for something to come about and notes whether it did.
    ///
    /// # Errors
    /// `CheckFailed` when it did not in time, `Interrupted` by Ctrl-C.
    pub fn expect_soon(
        &mut self,
        text: &str,
        condition: impl Fn(&Self) -> bool,
    ) -> Result<(), Early> {
        let deadline = Instant::now() + TIMEOUT;
        let held = loop {
            self.look()?;
            if condition(self) {
                // Its cause precedes it.
                self.note_events()?;
                break true;
            }
            if Instant::now() >= deadline {
                break false;
            }
        };
        self.check(text, held)
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// `Interrupted` by Ctrl-C.
    pub fn pass(&mut self, time: Duration) -> Result<(), Early> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.look()?;
        }
        Ok(())
    }

    /// Notes whether something is as expected.
    ///
    /// # Errors
    /// `CheckFailed` when it is not.
    pub fn check(&mut self, text: &str, held: bool) -> Result<(), Early> {
        if let Some(step) = self.ledger.current() {
            step.checks.push(Check {
                text: text.to_owned(),
                held,
            });
        }
        self.screen.check(text, held)?;
        if held {
            Ok(())
        } else {
            Err(Early::CheckFailed)
        }
    }

    /// Starts this many workers and returns their ids.
    pub fn start(&mut self, count: usize) -> Result<Vec<WorkerId>, Early> {
        self.note_events()?;
        // Connected before, so that they start as much at once as they can.
        let newcomer = || Newcomer::new(&self.world, &self.config, &self.partitions);
        let newcomers: Result<Vec<_>, _> = (0..count).map(|_| newcomer()).collect();
        let mut ids = Vec::new();
        for newcomer in newcomers? {
            ids.push(self.fleet.start(newcomer)?);
        }
        Ok(ids)
    }

    /// Whether one worker leads, each partition has one owner, and nothing is pending.
    pub fn is_at_rest(&self) -> bool {
        self.fleet.leader().is_some()
            && self
                .position
                .is_some_and(|(state, _)| state == CalculatorState::Idle)
            && self.fleet.all_in(|state| state == ManagerState::Stable)
            && self.owners().is_exact(&self.partitions)
    }

    /// Whether a leader reported such an event since the step began.
    pub fn received(&self, like: impl Fn(&CalculatorEvent) -> bool) -> bool {
        self.heard.iter().any(like)
    }

    /// A line that is not expected to be so or so.
    pub fn note(&mut self, text: &str) -> Result<(), Early> {
        Ok(self.screen.line(text)?)
    }

    /// The current owners.
    pub fn owners(&self) -> Owners {
        Owners::of(&self.fleet.held())
    }

    /// Who held what when the step began, or when it was last remembered.
    pub fn owners_before(&self) -> &Owners {
        &self.owners_before
    }

    /// How often something was published since the step began.
    pub fn publications(&self) -> usize {
        self.ledger.steps.last().map_or(0, |s| s.published.len())
    }

    /// Whether the leader has reported that change of this worker since the step began.
    pub fn reports(&self, worker: &WorkerId, expected: MemberChange) -> bool {
        self.received(|event| {
            matches!(event, CalculatorEvent::Member { change, worker: about }
                if *change == expected && about == worker)
        })
    }

    /// Keeps running after the last step until Ctrl-C, if requested.
    ///
    /// # Errors
    /// `Output` when the output is closed.
    pub fn keep_running(&mut self, asked: bool) -> Result<(), Early> {
        if !asked {
            return Ok(());
        }
        self.screen.line("running on; Ctrl-C ends it")?;
        loop {
            match self.look() {
                Ok(()) => {}
                Err(Early::Interrupted) => return Ok(()),
                Err(early) => return Err(early),
            }
        }
    }

    /// Stops everything and prints the summary.
    ///
    /// # Errors
    /// `Output` when the output is closed, `Broken` when a worker does not stop.
    pub fn finish(&mut self, ending: &Result<(), Early>) -> Result<(), Early> {
        let _ = self.note_events();
        let unowned = self.owners().unowned(&self.partitions);
        self.end_step();
        let took = self.began.elapsed();
        let stopped = self.fleet.disperse();
        let failure = ending.as_ref().err().map(Early::to_string);
        self.screen
            .summary(&self.ledger, unowned, took, failure.as_deref())?;
        Ok(stopped?)
    }

    /// Looks around once: events, Ctrl-C, the screen. Takes a moment.
    fn look(&mut self) -> Result<(), Early> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Early::Interrupted);
        }
        self.note_events()?;
        if self.screen.is_due() {
            self.draw()?;
        }
        std::thread::sleep(LOOK_INTERVAL);
        Ok(())
    }

    fn note_events(&mut self) -> Result<(), Early> {
        while let Some((id, notice)) = self.fleet.next_event() {
            let id = id.clone();
            match &*notice {
                ManagerEvent::Calculator(notice) => self.note_leader(&id, notice)?,
                ManagerEvent::Leader { is_self, .. } => {
                    if *is_self {
                        self.position = None;
                        self.is_degraded = false;
                    }
                    self.show(&id, &notice)?;
                }
                _ => self.show(&id, &notice)?,
            }
        }
        Ok(())
    }

    fn show(&mut self, id: &WorkerId, notice: &ManagerEvent) -> Result<(), Early> {
        if is_shown(notice) {
            let now = self.began.elapsed();
            self.screen.event(now, id.as_str(), &notice.to_string())?;
        }
        Ok(())
    }

    /// Records a leader's event.
    fn note_leader(&mut self, id: &WorkerId, notice: &CalculatorEvent) -> Result<(), Early> {
        match notice {
            CalculatorEvent::Published {
                version,
                reason,
                quality,
                ..
            } => {
                if let Some(step) = self.ledger.current() {
                    step.published.push(Published {
                        version: *version,
                        reason: *reason,
                        moved: quality.moved_partitions,
                    });
                }
            }
            CalculatorEvent::StateChanged(change) => {
                self.position = Some((change.to, change.reason))
            }
            CalculatorEvent::Degraded(why) => self.is_degraded = !why.is_empty(),
            _ => {}
        }
        let is_first = matches!(notice, CalculatorEvent::StateChanged(c) if c.from == c.to);
        if !is_first {
            let now = self.began.elapsed();
            self.screen.event(now, id.as_str(), &notice.to_string())?;
        }
        self.heard.push(notice.clone());
        Ok(())
    }

    fn end_step(&mut self) {
        let owners = self.owners();
        let moved = owners.moved_since(&self.owners_before).count();
        let unowned = owners.unowned(&self.partitions);
        let took = self.step_began.elapsed();
        if let Some(step) = self.ledger.current() {
            step.moved = moved;
            step.unowned = unowned;
            step.took = Some(took);
        }
    }

    fn rows(&self) -> Vec<Row> {
        let mut held = self.fleet.held();
        let conditions = self.fleet.conditions();
        let rows = conditions.map(|(id, condition)| {
            let held = held.remove(id).unwrap_or_default();
            let weights = held.partitions.iter().map(|p| p.weight.max(1));
            Row {
                name: id.to_string(),
                condition,
                version: held.version,
                partitions: held.partitions.len(),
                load: weights.fold(0, i64::saturating_add),
            }
        });
        rows.collect()
    }

    fn show_loads(&mut self) -> Result<(), Early> {
        let up = self.rows().into_iter();
        let loads: Vec<String> = up
            .filter(|row| row.condition == Condition::Up)
            .map(|row| format!("{} {}", row.name, row.partitions))
            .collect();
        Ok(self
            .screen
            .line(&format!("partitions: {}", loads.join(", ")))?)
    }

    fn draw(&mut self) -> Result<(), Early> {
        if !self.screen.redraws() {
            return Ok(());
        }
        let rows = self.rows();
        let leader = self.fleet.leader().map_or("no leader", WorkerId::as_str);
        let position = self.position.filter(|_| self.fleet.leader().is_some());
        let view = View {
            store: &self.world.description(),
            leader,
            state: position.map(|(state, _)| state),
            reason: position.and_then(|(_, reason)| reason),
            version: rows.iter().map(|row| row.version).max().unwrap_or(0),
            is_degraded: self.is_degraded,
            partitions: self.partitions.len(),
            unowned: self.owners().unowned(&self.partitions),
            rows: &rows,
            ledger: &self.ledger,
            elapsed: self.began.elapsed(),
        };
        Ok(self.screen.draw(&view)?)
    }
}

/// Whether the demo shows this event of a worker.
fn is_shown(notice: &ManagerEvent) -> bool {
    matches!(
        notice,
        ManagerEvent::Leader { is_self: true, .. }
            | ManagerEvent::IdLost { .. }
            | ManagerEvent::IdTakenOver { .. }
            | ManagerEvent::IdRegained { .. }
            | ManagerEvent::Fatal { .. }
    )
}

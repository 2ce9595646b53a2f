//! The stage that the script plays on: the fleet, its leaders, the clock, and the eyes that watch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use divvy::strategy::ConsistentHash;
use divvy::{Calculator, Events, Interest, MemberChange, Notice, Partition, WorkerId};

use super::Early;
use super::fleet::{Condition, Fleet};
use super::ledger::{Check, Ledger, Owners, Published, Step};
use super::screen::{Row, Screen, View};
use super::world::{Connection, World, timing};
use crate::text;

/// How long an expectation is waited for.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long a finished step stays on a terminal.
const TIME_TO_READ: Duration = Duration::from_millis(1_000);

/// How often it is looked whether something came about.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A calculator of the demo, with its connection and what it tells.
pub struct Leader {
    /// Its name.
    pub name: String,
    /// Its handle.
    pub calculator: Calculator,
    connection: Connection,
    events: Events,
    /// Everything that it told since the step began.
    heard: Vec<Arc<Notice>>,
    /// Whether its last word was that it is degraded.
    pub is_degraded: bool,
}

impl Leader {
    /// Whether it told something like that since the step began.
    pub fn told(&self, like: impl Fn(&Notice) -> bool) -> bool {
        self.heard.iter().any(|notice| like(notice))
    }

    /// The store freezes for it. Whether that could be done.
    pub fn freeze(&self) -> bool {
        self.connection.freeze()
    }

    /// The store is back for it.
    pub fn thaw(&self) {
        self.connection.thaw();
    }
}

/// Everything on the stage.
pub struct Stage {
    /// The store.
    pub world: World,
    /// The workers.
    pub fleet: Fleet,
    /// What is divided.
    pub partitions: Vec<Partition>,
    leaders: Vec<Leader>,
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
        partitions: Vec<Partition>,
        screen: Screen,
        interrupted: Arc<AtomicBool>,
    ) -> Self {
        let now = Instant::now();
        Self {
            world,
            fleet: Fleet::new(),
            partitions,
            leaders: Vec::new(),
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
        for leader in &mut self.leaders {
            leader.heard.clear();
        }
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

    /// Closes the step that goes on.
    ///
    /// # Errors
    /// `CheckFailed` when something expected did not come about.
    pub fn close(&mut self) -> Result<(), Early> {
        let exact = self.owners().is_exact(&self.partitions);
        self.check("each partition has exactly one owner", exact)?;
        let moved = self.owners().moved_since(&self.owners_before).count();
        let reported = self.ledger.current().map_or(0, |s| s.moved_by_leaders());
        let text = format!("{moved} partitions moved, and the leader says so");
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
        let deadline = Instant::now() + PATIENCE;
        let held = loop {
            self.look()?;
            if condition(self) {
                // What led to it is told before.
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

    /// Starts another calculator, which takes over.
    pub fn lead(&mut self, name: &str) -> Result<(), Early> {
        let connection = self.world.connect(name)?;
        let mut config = timing();
        config.name = name.to_owned();
        let partitions = self.partitions.clone();
        let calculator = Calculator::builder(Arc::clone(&connection.store))
            .config(config)
            .strategy(ConsistentHash::new())
            .source(move || Ok(partitions.clone()))
            .build()?;
        let events = calculator.events(Interest::StateAndMembers);
        calculator.start(PATIENCE)?;
        self.leaders.push(Leader {
            name: name.to_owned(),
            calculator,
            connection,
            events,
            heard: Vec::new(),
            is_degraded: false,
        });
        Ok(())
    }

    /// Stops the leader before the last.
    pub fn retire_former(&mut self) -> Result<(), Early> {
        if self.leaders.len() > 1 {
            let former = self.leaders.remove(0);
            former.calculator.stop(PATIENCE)?;
        }
        Ok(())
    }

    /// The calculator in charge.
    ///
    /// # Panics
    /// Before the first [`Stage::lead`].
    pub fn leader(&self) -> &Leader {
        // The script begins with one, and the former is retired only when there are two.
        self.leaders.last().expect("a leader")
    }

    /// The calculator that leads, or believes so, beside the one in charge.
    pub fn former_leader(&self) -> Option<&Leader> {
        self.leaders.first().filter(|_| self.leaders.len() > 1)
    }

    /// Who holds what now.
    pub fn owners(&self) -> Owners {
        Owners::of(&self.fleet.held())
    }

    /// Who held what when the step began.
    pub fn owners_before(&self) -> &Owners {
        &self.owners_before
    }

    /// How often something was published since the step began.
    pub fn publications(&self) -> usize {
        self.ledger.steps.last().map_or(0, |s| s.published.len())
    }

    /// Whether the leader has told that about this worker since the step began.
    pub fn told_of(&self, worker: &WorkerId, change: fn(WorkerId) -> MemberChange) -> bool {
        let expected = change(worker.clone());
        self.leader()
            .told(|notice| matches!(notice, Notice::Member(told) if *told == expected))
    }

    /// Goes on after the last step until Ctrl-C, if asked to.
    ///
    /// # Errors
    /// `Output` when nobody reads any more.
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
    /// `Output` when nobody reads any more, `Broken` when something does not stop.
    pub fn finish(&mut self, ending: &Result<(), Early>) -> Result<(), Early> {
        let _ = self.note_events();
        let unowned = self.owners().unowned(&self.partitions);
        self.end_step();
        let took = self.began.elapsed();
        let mut stopped = Ok(());
        for leader in self.leaders.drain(..) {
            leader.thaw();
            stopped = stopped.and(leader.calculator.stop(PATIENCE));
        }
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
        let now = self.began.elapsed();
        for leader in &mut self.leaders {
            while let Some(notice) = leader.events.try_recv() {
                match &*notice {
                    Notice::Published {
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
                    Notice::Degraded(why) => leader.is_degraded = !why.is_empty(),
                    _ => {}
                }
                if let Some(text) = text::of(&notice) {
                    self.screen.event(now, &leader.name, &text)?;
                }
                leader.heard.push(notice);
            }
        }
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
                version: held.applied.version,
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
        let leader = self.leaders.last();
        let view = View {
            store: &self.world.description(),
            leader: leader.map_or("nobody", |l| &l.name),
            state: leader.map(|l| l.calculator.state()),
            reason: leader.and_then(|l| l.calculator.scaling_reason()),
            version: leader.map_or(0, |l| l.calculator.current_version()),
            is_degraded: leader.is_some_and(|l| l.is_degraded),
            partitions: self.partitions.len(),
            unowned: self.owners().unowned(&self.partitions),
            rows: &rows,
            ledger: &self.ledger,
            elapsed: self.began.elapsed(),
        };
        Ok(self.screen.draw(&view)?)
    }
}

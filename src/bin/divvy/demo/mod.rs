//! `divvy demo`: a fleet of managers that starts, grows, shrinks, crashes, restarts, loses its
//! store and its leader, and checks itself while it does.

mod fleet;
mod ledger;
mod line;
mod screen;
mod script;
mod stage;
mod world;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use divvy::Partition;
use divvy::strategy::canonical_partitions;

use self::screen::Screen;
use self::stage::Stage;
use self::world::World;

/// Run a demo fleet: cold start, scale-up, leave, crash, restarts, store outage, failure and leave
/// of the leader.
///
/// The demo ends in less than half a minute. The exit status is 0 only if every check passed.
#[derive(Args, Debug)]
pub struct DemoArguments {
    /// Number of workers at the start, 3 to 64
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(3..=64))]
    workers: u16,
    /// Partitions to divide: a JSON list such as [{"keys":["tool001","chamber1"],"weight":100}]
    #[arg(long, value_name = "FILE")]
    partitions: Option<PathBuf>,
    /// NATS server with JetStream to use instead of the embedded store. The demo creates buckets
    /// named divvy-demo-…
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// Keep the fleet running after the last step, until Ctrl-C
    #[arg(long)]
    keep_running: bool,
}

/// Why the demo ended early.
#[derive(Debug)]
pub enum Early {
    /// A check failed; the ledger has it.
    CheckFailed,
    /// Ctrl-C was pressed.
    Interrupted,
    /// The output is closed.
    Output(io::Error),
    /// A dependency of the demo failed.
    Broken(String),
}

impl fmt::Display for Early {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Early::CheckFailed => f.write_str("a check did not hold"),
            Early::Interrupted => f.write_str("interrupted"),
            Early::Output(error) => write!(f, "cannot write: {error}"),
            Early::Broken(what) => f.write_str(what),
        }
    }
}

impl From<io::Error> for Early {
    fn from(error: io::Error) -> Self {
        Early::Output(error)
    }
}

impl From<divvy::Error> for Early {
    fn from(error: divvy::Error) -> Self {
        Early::Broken(error.to_string())
    }
}

/// Runs the demo. Status 0: every check held; 1: one did not, or something does not work;
/// 2: wrong arguments; 130: Ctrl-C.
pub fn run(arguments: &DemoArguments) -> ExitCode {
    match perform(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Early::Interrupted) => ExitCode::from(130),
        // The failure is on the screen, or the pipe is closed.
        Err(Early::CheckFailed | Early::Output(_)) => ExitCode::FAILURE,
        Err(Early::Broken(what)) => {
            eprintln!("divvy demo: {what}");
            ExitCode::FAILURE
        }
    }
}

fn perform(arguments: &DemoArguments) -> Result<(), Early> {
    let partitions = match &arguments.partitions {
        Some(path) => read_partitions(path).map_err(Early::Broken)?,
        None => tools(),
    };
    let world = match &arguments.nats {
        Some(url) => World::nats(url)?,
        None => World::memory(),
    };
    let workers = usize::from(arguments.workers);
    let config = world::config(workers);
    world.prepare(&config)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let mut stage = Stage::new(world, config, partitions, Screen::open()?, interrupted);
    let ending =
        script::play(&mut stage, workers).and_then(|()| stage.keep_running(arguments.keep_running));
    stage.finish(&ending)?;
    ending
}

/// The default partitions: sixteen tools of four chambers.
fn tools() -> Vec<Partition> {
    let tools = (1..=16).flat_map(|tool| (1..=4).map(move |chamber| (tool, chamber)));
    tools
        .map(|(tool, chamber)| {
            Partition::new([format!("tool{tool:03}"), format!("chamber{chamber}")], 100)
        })
        .collect()
}

fn read_partitions(path: &Path) -> Result<Vec<Partition>, String> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    let list: Vec<Partition> = serde_json::from_slice(&bytes).map_err(|error| {
        format!("{name} is not a JSON list of partitions ({{\"keys\":[…],\"weight\":…}}): {error}")
    })?;
    if list.is_empty() {
        return Err(format!("{name} lists no partitions"));
    }
    canonical_partitions(list).map_err(|error| format!("{name}: {}", error.message()))
}

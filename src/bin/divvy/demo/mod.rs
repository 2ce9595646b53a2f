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

/// Shows a fleet being divided: cold start, scale-up, leave, crash, restarts, store outage, loss and
/// leave of the leader.
///
/// Ends by itself in less than half a minute, with status 0 only if every check held.
#[derive(Args, Debug)]
pub struct DemoArguments {
    /// Workers to start with, 3 to 64
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(3..=64))]
    workers: u16,
    /// Partitions to divide: a JSON list such as [{"keys":["tool001","chamber1"],"weight":100}]
    #[arg(long, value_name = "FILE")]
    partitions: Option<PathBuf>,
    /// Use this NATS server (with JetStream) instead of the embedded store; the demo has buckets
    /// of its own there, named divvy-demo-…
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// Let the fleet run on after the last step, until Ctrl-C
    #[arg(long)]
    keep_running: bool,
}

/// Why the demo ended early.
#[derive(Debug)]
pub enum Early {
    /// A check did not hold; the ledger tells which.
    CheckFailed,
    /// Somebody pressed Ctrl-C.
    Interrupted,
    /// Nobody reads what is written.
    Output(io::Error),
    /// Something that the demo itself depends on does not work.
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
        // What failed is on the screen; and who closed the pipe wants to hear nothing.
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

/// What is divided unless a file says otherwise: sixteen tools of four chambers.
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

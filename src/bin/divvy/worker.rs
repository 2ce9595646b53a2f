//! `divvy worker`: one worker as a process that prints its events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use clap::Args;
use divvy::runtime::EventRecord;
use divvy::store::Store;
use divvy::{Departure, Manager, ManagerEvent, ManagerEventFilter, Partition, Settings};

use crate::connection::Connection;
use crate::output::{Result, print};
use crate::plan::read_partitions;

/// Interval of the check for a signal.
const LOOK: Duration = Duration::from_millis(50);

/// Join a fleet as one worker and print its events, until Ctrl-C or SIGTERM.
///
/// Every worker may lead, so each needs the same partitions.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Partitions: a number N for partition.0000000 and so on, or a file (- for standard input)
    /// with a JSON list as in an assignment, or lines of keys joined by dots, then optionally a
    /// space and the weight.
    #[arg(long, value_name = "FILE|N")]
    partitions: String,
    /// How it departs on SIGTERM. leave: its partitions are handed over immediately. restart: its
    /// id and partitions are kept for heartbeat TTL and grace.
    #[arg(long, value_name = "leave|restart", default_value_t = Departure::Leave)]
    departure: Departure,
    /// Cache the assignment in this file, and serve it if the worker is started while the store is
    /// unreachable (setting cache_file; cache_max_age limits for how long).
    #[arg(long, value_name = "FILE")]
    cache: Option<String>,
    /// Print each event as one JSON object per line.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let partitions = read_partitions(&arguments.partitions)?;
    let mut settings = arguments.connection.settings()?;
    if let Some(file) = &arguments.cache {
        let set = settings.set("cache_file", file);
        set.map_err(|error| format!("--cache {file}: {}", error.message()))?;
    }
    let text = |error: divvy::Error| error.to_string();
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&ended))
            .map_err(|error| format!("cannot install signal handler: {error}"))?;
    }
    let store = arguments.connection.connect(&settings)?;
    let manager = build(store, &settings, partitions)?;
    let is_json = arguments.json;
    let mut reporter = String::new();
    let pipe = Arc::new(AtomicBool::new(false));
    let broken = Arc::clone(&pipe);
    manager
        .subscribe(ManagerEventFilter::WorkerAndCalculator, move |event| {
            if let ManagerEvent::Id(id) = event {
                reporter = id.as_ref().map(ToString::to_string).unwrap_or_default();
            }
            if !show(event, &reporter, is_json) {
                broken.store(true, Ordering::Relaxed);
            }
        })
        .forever();
    let startup = Duration::from_secs(30);
    manager.start(startup).map_err(text)?;
    while !ended.load(Ordering::Relaxed) && !pipe.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK);
        if let Some(why) = manager.failure() {
            return Err(why);
        }
    }
    manager
        .stop(arguments.departure, Duration::from_secs(10))
        .map_err(text)
}

fn build(
    store: Arc<dyn Store>,
    settings: &Settings,
    partitions: Vec<Partition>,
) -> Result<Manager> {
    let config = settings.manager();
    Manager::builder(store)
        .config(config)
        .strategy(settings.build_strategy())
        .source(move || Ok(partitions.clone()))
        .build()
        .map_err(|error| error.to_string())
}

/// Prints an event; `false` when nothing reads the output any more.
fn show(event: &ManagerEvent, reporter: &str, is_json: bool) -> bool {
    let line = if is_json {
        EventRecord::from(event)
            .json(reporter, SystemTime::now())
            .to_string()
    } else {
        as_text(event)
    };
    print(&(line + "\n")).unwrap_or(false)
}

fn as_text(event: &ManagerEvent) -> String {
    let ManagerEvent::AssignmentChanged(change) = event else {
        return event.to_string();
    };
    let names = |sign: &str, list: &[Partition]| {
        let shown = list.iter().take(10).map(Partition::subject);
        let mut text: String = shown.map(|name| format!(" {sign}{name}")).collect();
        if list.len() > 10 {
            text += &format!(" {sign}… ({} in all)", list.len());
        }
        text
    };
    let source = match change.held.is_cached() {
        true => " (from the cache file)",
        false => "",
    };
    let (added, removed) = (names("+", &change.added), names("-", &change.removed));
    format!("{event}{source}:{added}{removed}")
}

//! `divvy worker`: one worker as a process that prints its events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use divvy::store::Store;
use divvy::{
    AssignmentChange, CalculatorEvent, Departure, Manager, ManagerEvent, ManagerEventFilter,
    Partition, Settings,
};
use serde_json::{Value, json};

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
    /// How the worker leaves on Ctrl-C or SIGTERM.
    #[arg(long, value_enum, default_value_t = Going::Leave)]
    departure: Going,
    /// Keep the assignment in this file and use it if the worker starts while the store cannot be
    /// reached (setting cache_file; cache_max_age limits its age).
    #[arg(long, value_name = "FILE")]
    cache: Option<String>,
    /// Print each event as one JSON object per line.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Going {
    /// Permanently: its partitions move at once.
    Leave,
    /// For a restart: id and partitions are kept for heartbeat TTL and grace.
    Restart,
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
    let pipe = Arc::new(AtomicBool::new(false));
    let broken = Arc::clone(&pipe);
    manager
        .subscribe(ManagerEventFilter::WorkerAndCalculator, move |notice| {
            // Stop when the reader closes the pipe.
            if !show(notice, is_json) {
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
    let departure = match arguments.departure {
        Going::Leave => Departure::Leave,
        Going::Restart => Departure::Restart,
    };
    manager
        .stop(departure, Duration::from_secs(10))
        .map_err(text)
}

fn build(
    store: Arc<dyn Store>,
    settings: &Settings,
    partitions: Vec<Partition>,
) -> Result<Manager> {
    let config = settings.manager();
    let strategy = settings
        .strategy()
        .build(settings.hash_seed(), settings.calculator().default_weight);
    Manager::builder(store)
        .config(config)
        .strategy(strategy)
        .source(move || Ok(partitions.clone()))
        .build()
        .map_err(|error| error.to_string())
}

/// Prints the event; false if the reader closed the pipe.
fn show(notice: &ManagerEvent, is_json: bool) -> bool {
    let line = if is_json {
        as_json(notice).to_string()
    } else {
        as_text(notice)
    };
    print(&(line + "\n")).unwrap_or(false)
}

fn as_text(notice: &ManagerEvent) -> String {
    match notice {
        ManagerEvent::StateChanged(change) if change.from == change.to => {
            format!("state      {}", change.to)
        }
        ManagerEvent::StateChanged(change) => {
            format!("state      {} -> {}", change.from, change.to)
        }
        ManagerEvent::Id(Some(id)) => format!("id         {id}"),
        ManagerEvent::Id(None) => "id         none".into(),
        ManagerEvent::IdLost { worker } => {
            format!("id         lost {worker}: owned by another process")
        }
        ManagerEvent::IdRegained { worker } => format!("id         {worker} (claimed again)"),
        ManagerEvent::AssignmentChanged(change) => assignment_as_text(change),
        ManagerEvent::Leader {
            leader: Some(leader),
            is_self,
        } => format!(
            "leader     {leader}{}",
            if *is_self { " (this worker)" } else { "" }
        ),
        ManagerEvent::Leader { leader: None, .. } => "leader     none".into(),
        ManagerEvent::Calculator(CalculatorEvent::Published {
            version,
            reason,
            workers,
            partitions,
            ..
        }) => format!(
            "published  version {version} ({reason}): {partitions} partitions, {workers} workers"
        ),
        ManagerEvent::Calculator(notice) => format!("leading    {notice:?}"),
        ManagerEvent::Breaker(state) => match state.why() {
            Some(why) => format!("breaker    {}: {why}", state.name()),
            None => "breaker    closed".into(),
        },
        ManagerEvent::Degraded { why } => format!("degraded   {why}"),
        ManagerEvent::Alert { level, lasted } => {
            format!("alert      {}: degraded for {lasted:.0?}", level.name())
        }
        ManagerEvent::Recovered { lasted } => format!("recovered  after {lasted:.0?}"),
        ManagerEvent::Failed { error } => format!("failed     {error}"),
        other => format!("{other:?}"),
    }
}

fn assignment_as_text(change: &AssignmentChange) -> String {
    let names = |sign: &str, list: &[Partition]| {
        let shown = list.iter().take(10).map(Partition::subject);
        let mut text: String = shown.map(|name| format!(" {sign}{name}")).collect();
        if list.len() > 10 {
            text += &format!(" {sign}… ({} in all)", list.len());
        }
        text
    };
    format!(
        "assigned   version {}{}: {} partitions{}{}",
        change.held.version,
        match change.held.is_cached() {
            true => " (from the cache file)",
            false => "",
        },
        change.held.partitions.len(),
        names("+", &change.added),
        names("-", &change.removed)
    )
}

fn as_json(notice: &ManagerEvent) -> Value {
    let subjects = |list: &[Partition]| list.iter().map(Partition::subject).collect::<Vec<_>>();
    match notice {
        ManagerEvent::StateChanged(change) => {
            json!({"event": "state", "from": change.from.name(), "to": change.to.name()})
        }
        ManagerEvent::Id(id) => {
            json!({"event": "id", "worker": id.as_ref().map(ToString::to_string)})
        }
        ManagerEvent::IdLost { worker } => {
            json!({"event": "id_lost", "worker": worker.as_str()})
        }
        ManagerEvent::IdRegained { worker } => {
            json!({"event": "id_regained", "worker": worker.as_str()})
        }
        ManagerEvent::AssignmentChanged(change) => json!({
            "event": "assignment",
            "version": change.held.version,
            "term": change.held.term,
            "lifecycle": change.held.lifecycle,
            "partitions": subjects(&change.held.partitions),
            "added": subjects(&change.added),
            "removed": subjects(&change.removed),
        }),
        ManagerEvent::Leader { leader, is_self } => json!({
            "event": "leader",
            "worker": leader.as_ref().map(ToString::to_string),
            "self": is_self,
        }),
        ManagerEvent::Calculator(CalculatorEvent::Published {
            version,
            reason,
            workers,
            partitions,
            quality,
        }) => json!({
            "event": "published",
            "version": version,
            "reason": reason.to_string(),
            "workers": workers,
            "partitions": partitions,
            "moved": quality.moved_partitions,
        }),
        ManagerEvent::Calculator(notice) => {
            json!({"event": "calculator", "detail": format!("{notice:?}")})
        }
        ManagerEvent::Breaker(state) => {
            json!({"event": "breaker", "state": state.name(), "why": state.why()})
        }
        ManagerEvent::Degraded { why } => json!({"event": "degraded", "why": why}),
        ManagerEvent::Alert { level, lasted } => json!({
            "event": "alert",
            "level": level.name(),
            "seconds": lasted.as_secs_f64(),
        }),
        ManagerEvent::Recovered { lasted } => {
            json!({"event": "recovered", "seconds": lasted.as_secs_f64()})
        }
        ManagerEvent::Failed { error } => json!({"event": "failed", "error": error.to_string()}),
        other => json!({"event": "other", "detail": format!("{other:?}")}),
    }
}

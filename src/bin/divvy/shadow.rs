//! `divvy shadow`: plans next to a live leader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use divvy::error::Code;
use divvy::runtime::{EventRecord, rfc3339};
use divvy::time::duration;
use divvy::{Calculator, CalculatorEvent, Error, EventFilter, Events, RecvError, Settings};
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::output::{Result, print};
use crate::plan::read_partitions;

/// The reporter of every line.
const REPORTER: &str = "shadow";

/// Interval of the check for Ctrl-C.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Plan next to a live leader and print what divvy would have published, when, and how it differs
/// from what the leader published. Writes nothing.
///
/// Ends at Ctrl-C or after --for. Pass the leader's timing with --set (heartbeat_ttl,
/// emergency_grace_period, cooldown, windows); otherwise the timing will differ.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Partitions, as for `divvy plan`. A file is read again before each plan.
    #[arg(long, value_name = "FILE|N")]
    partitions: String,
    /// Strategy: sticky, round_robin, consistent_hash or weighted_consistent_hash.
    #[arg(long, value_name = "NAME")]
    strategy: Option<String>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    /// End after this time.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse)]
    lasting: Option<Duration>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut settings = arguments.connection.settings_to_look()?;
    let strategy = arguments.strategy.as_deref();
    for (name, value) in [("strategy", strategy), ("shadow", Some("true"))] {
        let set = value.map_or(Ok(()), |value| settings.set(name, value));
        set.map_err(|error| format!("--strategy: {}", error.message()))?;
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let registered = signal_hook::flag::register(signal, Arc::clone(&interrupted));
        registered.map_err(|error| format!("cannot install signal handler: {error}"))?;
    }
    let store = arguments.connection.connect(&settings)?;
    let shadowed = calculator(arguments, &settings, &store).and_then(|shadow| {
        let events = shadow.events(EventFilter::StateAndMembers);
        let started = shadow.start(arguments.connection.timeout());
        started.map_err(|error| error.to_string())?;
        let first = beginning(&shadow);
        let reported = print(&line(arguments.json, &first.0, first.1))
            .and_then(|_| print_events(arguments, &events, &interrupted));
        let summary = summary(&shadow);
        let stopped = shadow.stop(arguments.connection.timeout());
        reported?;
        stopped.map_err(|error| error.to_string())?;
        print(&line(arguments.json, &summary.0, summary.1)).map(drop)
    });
    let stopped = store.stop(arguments.connection.deadline());
    shadowed?;
    stopped.map_err(|error| error.to_string())
}

fn calculator(
    arguments: &Arguments,
    settings: &Settings,
    store: &Arc<dyn divvy::store::Store>,
) -> Result<Calculator> {
    let source = arguments.partitions.clone();
    // Read early to report errors at once. Standard input can be read only once.
    let first = read_partitions(&source)?;
    let config = settings.calculator().clone();
    let strategy = settings.build_strategy();
    Calculator::builder(Arc::clone(store))
        .config(config)
        .strategy(strategy)
        .source(move || match source.as_str() {
            "-" => Ok(first.clone()),
            source => {
                read_partitions(source).map_err(|fault| Error::new(Code::SourceFailed, fault))
            }
        })
        .build()
        .map_err(|error| error.to_string())
}

/// Prints the events of the shadow until it ends.
fn print_events(arguments: &Arguments, events: &Events, interrupted: &AtomicBool) -> Result<()> {
    let began = Instant::now();
    let is_over = || {
        arguments
            .lasting
            .is_some_and(|time| began.elapsed() >= time)
    };
    while !interrupted.load(Ordering::Acquire) && !is_over() {
        let event = match events.recv_timeout(LOOK_INTERVAL) {
            Ok(event) => event,
            Err(RecvError::TimedOut) => continue,
            Err(RecvError::Closed) => return Err("the shadow ended unexpectedly".into()),
        };
        if !print(&event_line(arguments.json, &event))? {
            return Ok(()); // the reader closed the pipe
        }
        if let CalculatorEvent::Fatal { message } = &*event {
            return Err(message.clone());
        }
    }
    Ok(())
}

/// A line for something that is not an event: it has a kind, a time and a reporter, too.
fn line(is_json: bool, words: &str, mut details: Value) -> String {
    let time = rfc3339(SystemTime::now());
    if !is_json {
        return format!("{time}  {words}\n");
    }
    details["time"] = time.into();
    details["reporter"] = REPORTER.into();
    details["worker"] = REPORTER.into();
    format!("{details}\n")
}

fn event_line(is_json: bool, event: &CalculatorEvent) -> String {
    let now = SystemTime::now();
    if is_json {
        return format!("{}\n", EventRecord::from(event).json(REPORTER, now));
    }
    format!("{}  {event}\n", rfc3339(now))
}

fn beginning(shadow: &Calculator) -> (String, Value) {
    let status = shadow.status();
    let planned = status.workers.iter().filter(|w| w.is_planned);
    let (planned, version, term) = (planned.count(), status.version, status.term);
    let words = format!("watching: version {version}, term {term}, {planned} workers");
    let details = json!({
        "kind": "watching", "version": version, "term": term, "workers": planned,
    });
    (words, details)
}

fn summary(shadow: &Calculator) -> (String, Value) {
    let counters = shadow.status().counters;
    let words = format!(
        "would have published {} times; the leader did {} times, {} of them otherwise",
        counters.would_publish, counters.followed, counters.disagreements
    );
    let details = json!({
        "kind": "summary", "would_publish": counters.would_publish,
        "followed": counters.followed, "disagreements": counters.disagreements,
    });
    (words, details)
}

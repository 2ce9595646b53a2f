//! `divvy shadow`: plans next to a live leader.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use divvy::error::Code;
use divvy::time::duration;
use divvy::{Calculator, CalculatorEvent, Comparison, Error, EventFilter, Events, Settings};
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::output::{Result, print};
use crate::plan::read_partitions;
use crate::text;

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
        let told = print(&line(arguments.json, &first.0, first.1))
            .and_then(|_| tell(arguments, &events, &interrupted));
        let summary = summary(&shadow);
        let stopped = shadow.stop(arguments.connection.timeout());
        told?;
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
    let strategy = settings.strategy();
    let strategy = strategy.build(settings.hash_seed(), config.default_weight);
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
fn tell(arguments: &Arguments, events: &Events, interrupted: &AtomicBool) -> Result<()> {
    let began = Instant::now();
    let is_over = || {
        arguments
            .lasting
            .is_some_and(|time| began.elapsed() >= time)
    };
    while !interrupted.load(Ordering::Acquire) && !is_over() {
        let Some(event) = events.recv_timeout(LOOK_INTERVAL) else {
            if events.is_closed() {
                return Err("the shadow ended unexpectedly".into());
            }
            continue;
        };
        let Some(words) = text::of(&event) else {
            continue;
        };
        if !print(&line(arguments.json, &words, details(&event)))? {
            return Ok(()); // the reader closed the pipe
        }
        if let CalculatorEvent::Fatal { message } = &*event {
            return Err(message.clone());
        }
    }
    Ok(())
}

fn line(is_json: bool, words: &str, details: Value) -> String {
    // A clock beyond what RFC 3339 can express prints nothing readable, but must not panic.
    let mut time = String::new();
    let _ = write!(
        time,
        "{}",
        humantime::format_rfc3339_millis(SystemTime::now())
    );
    if !is_json {
        return format!("{time}  {words}\n");
    }
    let mut object = json!({ "time": time, "text": words });
    if let (Value::Object(object), Value::Object(details)) = (&mut object, details) {
        object.extend(details);
    }
    format!("{object}\n")
}

/// What programs want to know of an event.
fn details(notice: &CalculatorEvent) -> Value {
    match notice {
        CalculatorEvent::WouldPublish {
            version,
            reason,
            workers,
            partitions,
            quality,
        } => json!({
            "event": "would_publish", "version": version, "reason": reason.name(),
            "workers": workers, "partitions": partitions, "moved": quality.moved_partitions,
            "max_to_mean": quality.max_to_mean,
        }),
        CalculatorEvent::LeaderPublished(seen) => compared(seen),
        CalculatorEvent::WorkerLagging(lagging) => json!({
            "event": "worker_lagging", "worker": lagging.worker.as_str(),
            "version": lagging.assigned, "applied_version": lagging.applied,
            "lasted_ms": u64::try_from(lagging.lasted.as_millis()).unwrap_or(u64::MAX),
        }),
        CalculatorEvent::StateChanged(change) => {
            json!({ "event": "state", "state": change.to.to_string() })
        }
        CalculatorEvent::Member(_) => json!({ "event": "member" }),
        _ => json!({ "event": "other" }),
    }
}

fn compared(seen: &Comparison) -> Value {
    json!({
        "event": "leader_published", "version": seen.version, "term": seen.term,
        "reason": seen.lifecycle, "workers": seen.workers, "partitions": seen.partitions,
        "moved": seen.quality.moved_partitions, "max_to_mean": seen.quality.max_to_mean,
        "is_whole": seen.is_whole, "agrees": seen.agrees(),
        "intended": seen.intended.map(|intended| json!({
            "version": intended.version, "reason": intended.reason.name(),
            "ahead_ms": u64::try_from(intended.ahead.as_millis()).unwrap_or(u64::MAX),
        })),
        "difference": seen.difference.as_ref().map(|difference| json!({
            "elsewhere": difference.elsewhere, "left_out": difference.left_out,
            "unknown": difference.unknown, "moved": difference.quality.moved_partitions,
            "max_to_mean": difference.quality.max_to_mean,
            "leaders_workers": names(&difference.leaders_workers),
            "shadows_workers": names(&difference.shadows_workers),
        })),
    })
}

fn names(workers: &[divvy::WorkerId]) -> Vec<&str> {
    workers.iter().map(divvy::WorkerId::as_str).collect()
}

fn beginning(shadow: &Calculator) -> (String, Value) {
    let status = shadow.status();
    let planned = status.workers.iter().filter(|w| w.is_planned);
    let (planned, version, term) = (planned.count(), status.version, status.term);
    let words = format!("watching: version {version}, term {term}, {planned} workers");
    let details = json!({
        "event": "watching", "version": version, "term": term, "workers": planned,
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
        "event": "summary", "would_publish": counters.would_publish,
        "followed": counters.followed, "disagreements": counters.disagreements,
    });
    (words, details)
}

#[cfg(test)]
mod tests {
    use divvy::WorkerId;
    use divvy::machine::convergence::Lagging;

    use super::*;

    #[test]
    fn lagging_worker_is_one_record_with_all_known_fields() {
        let lagging = CalculatorEvent::WorkerLagging(Lagging {
            worker: WorkerId::new("worker-7").unwrap(),
            assigned: 12,
            applied: 9,
            lasted: Duration::from_millis(30_500),
        });
        let words = text::of(&lagging).expect("it is worth a line");
        let line = line(true, &words, details(&lagging));
        let mut record: Value = serde_json::from_str(&line).unwrap();
        let fields = record.as_object_mut().unwrap();
        assert!(fields.remove("time").is_some());
        let words = fields.remove("text").unwrap();
        assert!(words.as_str().unwrap().contains("worker-7"), "{words}");
        let expected = json!({
            "event": "worker_lagging", "worker": "worker-7", "version": 12,
            "applied_version": 9, "lasted_ms": 30_500,
        });
        assert_eq!(record, expected);
    }
}

//! `divvy plan`: what would be published, without a store.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::sync::Arc;

use clap::Args;
use divvy::strategy::{
    ConsistentHash, Diff, Plan, PlanInput, Quality, Sticky, Strategy, StrategyOptions,
    WeightedConsistentHash, canonical_partitions, canonical_workers, diff, explain, quality,
};
use divvy::types::{Partition, WorkerId};
use divvy::vocabulary::StrategyKind;
use serde::{Deserialize, Serialize};

use crate::output::{Result, print};

/// Compute a plan without a store and show it, with its quality and moves.
#[derive(Args)]
pub struct Arguments {
    /// Workers: a number N for worker-0 to worker-(N-1), or a file (- for standard input) with one
    /// id per line or a JSON list of ids.
    #[arg(long, value_name = "FILE|N")]
    workers: String,
    /// Partitions: a number N for partition.0000000 and so on, or a file (- for standard input)
    /// with a JSON list as in an assignment, or lines of keys joined by dots, then optionally a
    /// space and the weight.
    #[arg(long, value_name = "FILE|N")]
    partitions: String,
    /// How partitions are divided.
    #[arg(long, value_name = "NAME", default_value_t)]
    strategy: StrategyKind,
    /// The plan to start from, as --json prints it (- for standard input).
    #[arg(long, value_name = "FILE")]
    previous: Option<String>,
    /// Print the plan as one JSON object.
    #[arg(long)]
    json: bool,
    /// Explain the owner of this partition (its keys joined by dots); may be repeated.
    #[arg(long, value_name = "PARTITION")]
    explain: Vec<String>,

    /// sticky: tolerated deviation from the fair level, as a share of it (0 to 1).
    #[arg(long, default_value_t = Sticky::DEFAULT_TOLERANCE)]
    tolerance: f64,
    /// sticky: share of all weight that may move in addition to required moves (0 to 1).
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    movement_budget: f64,
    /// sticky: relative capacity of a worker; default 1; may be repeated.
    #[arg(long, value_name = "WORKER=CAPACITY")]
    capacity: Vec<String>,
    /// Hash strategies: virtual nodes per worker.
    #[arg(long, default_value_t = ConsistentHash::DEFAULT_VIRTUAL_NODES)]
    virtual_nodes: u32,
    /// Hash strategies: seed of all hashes.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// weighted_consistent_hash: load above which a worker is skipped, as a multiple of the mean.
    #[arg(long, default_value_t = WeightedConsistentHash::DEFAULT_OVERLOAD_THRESHOLD)]
    overload_threshold: f64,
    /// weighted_consistent_hash: weight from which partitions are assigned in turn, as a multiple
    /// of the mean.
    #[arg(long, default_value_t = WeightedConsistentHash::DEFAULT_EXTREME_THRESHOLD)]
    extreme_threshold: f64,
    /// Weight of partitions with a weight of 0 or less.
    #[arg(long, default_value_t = divvy::strategy::DEFAULT_WEIGHT)]
    default_weight: i64,
}

/// A plan as this command prints it, and as it reads the one before.
#[derive(Deserialize)]
struct Previous {
    assignments: BTreeMap<String, Vec<Partition>>,
}

#[derive(Serialize)]
struct Output<'a> {
    strategy: &'a str,
    assignments: BTreeMap<&'a str, Vec<&'a Partition>>,
    quality: QualityOutput,
    diff: Option<DiffOutput<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    explanations: Vec<String>,
}

#[derive(Serialize)]
struct QualityOutput {
    mean: f64,
    fair: f64,
    max_to_mean: f64,
    min_to_mean: f64,
    lower_bound: f64,
    moved: f64,
    moved_least: f64,
}

#[derive(Serialize)]
struct DiffOutput<'a> {
    added: usize,
    removed: usize,
    moved: usize,
    moved_weight: i128,
    orphaned_weight: i128,
    total_weight: i128,
    workers: BTreeMap<&'a str, WorkerOutput>,
}

#[derive(Serialize)]
struct WorkerOutput {
    added: usize,
    removed: usize,
    moved_in: usize,
    moved_out: usize,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    check_standard_input_is_read_once(arguments)?;
    let workers: Arc<[WorkerId]> = read_workers(&arguments.workers)?.into();
    if workers.is_empty() {
        return Err("--workers: there is no worker to give partitions to".to_owned());
    }
    let partitions: Arc<[Partition]> = read_partitions(&arguments.partitions)?.into();
    let previous = arguments.previous.as_deref().map(read_plan).transpose()?;
    let capacities = read_capacities(&arguments.capacity, &workers)?;
    let strategy = build_strategy(arguments, &workers, &capacities)?;

    let before = match &previous {
        Some(previous) => previous.previous_for(&workers, &partitions),
        None => vec![None; partitions.len()],
    };
    let input = PlanInput {
        workers: &workers,
        partitions: &partitions,
        previous: &before,
    };
    let owners = strategy.assign(&input).map_err(|error| error.to_string())?;
    let plan = Plan::new(workers, partitions, owners).map_err(|error| error.to_string())?;
    let quality = quality(&plan, previous.as_ref(), &capacities);
    let diff = previous.as_ref().map(|previous| diff(previous, &plan));
    let explanations = arguments.explain.iter().map(|name| {
        let keys: Vec<String> = name.split('.').map(str::to_owned).collect();
        let explanation = explain(&plan, previous.as_ref(), &keys);
        explanation
            .map(|e| e.to_string())
            .map_err(|e| format!("--explain: {e}"))
    });
    let explanations = explanations.collect::<Result<Vec<_>>>()?;

    let text = if arguments.json {
        let output = Output {
            strategy: strategy.name(),
            assignments: assignments(&plan),
            quality: QualityOutput::from(quality),
            diff: diff.as_ref().map(DiffOutput::from),
            explanations,
        };
        let json = serde_json::to_string_pretty(&output);
        json.map_err(|error| format!("cannot write JSON: {error}"))? + "\n"
    } else {
        describe(
            &plan,
            strategy.name(),
            &capacities,
            quality,
            diff.as_ref(),
            &explanations,
        )
    };
    print(&text).map(drop)
}

fn check_standard_input_is_read_once(arguments: &Arguments) -> Result<()> {
    let sources = [
        Some(arguments.workers.as_str()),
        Some(&arguments.partitions),
        arguments.previous.as_deref(),
    ];
    let readers = sources
        .iter()
        .filter(|source| **source == Some("-"))
        .count();
    match readers {
        0 | 1 => Ok(()),
        _ => Err("only one of --workers, --partitions and --previous can be -".to_owned()),
    }
}

fn build_strategy(
    arguments: &Arguments,
    workers: &[WorkerId],
    capacities: &[f64],
) -> Result<Arc<dyn Strategy>> {
    let mut options = StrategyOptions::default();
    options.hash_seed = arguments.seed;
    options.virtual_nodes = arguments.virtual_nodes;
    options.tolerance = arguments.tolerance;
    options.movement_budget = arguments.movement_budget;
    options.overload_threshold = arguments.overload_threshold;
    options.extreme_threshold = arguments.extreme_threshold;
    let capacities = workers.iter().cloned().zip(capacities.iter().copied());
    options.capacity = capacities.collect();
    match options.violation() {
        Some((option, value, rule)) => {
            let option = option.replace('_', "-");
            Err(format!("--{option}: {value} {rule}"))
        }
        None => Ok(options.build(arguments.strategy, arguments.default_weight)),
    }
}

fn read_text(option: &str, source: &str) -> Result<String> {
    let text = if source == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(source)
    };
    text.map_err(|error| format!("{option} {source}: {error}"))
}

fn read_workers(source: &str) -> Result<Vec<WorkerId>> {
    let option = "--workers";
    let ids: Vec<String> = match source.parse::<u32>() {
        Ok(count) => (0..count)
            .map(|number| format!("worker-{number}"))
            .collect(),
        Err(_) => {
            let text = read_text(option, source)?;
            if text.trim_start().starts_with('[') {
                serde_json::from_str(&text)
                    .map_err(|error| format!("{option} {source}: {error}"))?
            } else {
                let lines = text.lines().map(str::trim);
                lines
                    .filter(|line| !line.is_empty())
                    .map(str::to_owned)
                    .collect()
            }
        }
    };
    let ids = ids.iter().map(|id| WorkerId::new(id));
    let ids = ids.collect::<std::result::Result<Vec<_>, _>>();
    let ids = ids.map_err(|error| format!("{option} {source}: {error}"))?;
    Ok(canonical_workers(ids))
}

/// Reads what `--partitions` names: a number, a file, or `-`.
pub fn read_partitions(source: &str) -> Result<Vec<Partition>> {
    let option = "--partitions";
    let list: Vec<Partition> = match source.parse::<u32>() {
        Ok(count) => (0..count)
            .map(|number| Partition::new(["partition".to_owned(), format!("{number:07}")], 0))
            .collect(),
        Err(_) => {
            let text = read_text(option, source)?;
            let begin = text.len() - text.trim_start().len();
            if text[begin..].starts_with('{') {
                let line = text[..begin].matches('\n').count() + 1;
                let column = begin - text[..begin].rfind('\n').map_or(0, |at| at + 1) + 1;
                return Err(format!(
                    "{option} {source}: line {line}, column {column}: a JSON object is not a list of partitions"
                ));
            }
            if text[begin..].starts_with('[') {
                serde_json::from_str(&text)
                    .map_err(|error| format!("{option} {source}: {error}"))?
            } else {
                let lines = (1_usize..).zip(text.lines());
                let lines = lines.filter(|(_, line)| !line.trim().is_empty());
                let parse = |(number, line)| {
                    parse_partition(line).map_err(|(column, fault)| {
                        format!("{option} {source}: line {number}, column {column}: {fault}")
                    })
                };
                lines.map(parse).collect::<Result<_>>()?
            }
        }
    };
    canonical_partitions(list).map_err(|error| format!("{option} {source}: {error}"))
}

/// Characters that a name does not have: a line with them is JSON in the wrong place.
const NOT_IN_NAMES: [char; 6] = ['{', '}', '[', ']', '"', ','];

/// Parses `NAME` or `NAME WEIGHT`. An error comes with its column, from 1.
fn parse_partition(line: &str) -> std::result::Result<Partition, (usize, String)> {
    let column = |word: &str| {
        let bytes = word.as_ptr() as usize - line.as_ptr() as usize;
        line[..bytes].chars().count() + 1
    };
    let mut words = line.split_whitespace();
    let name = words.next().unwrap_or_default();
    if name.contains(NOT_IN_NAMES) {
        let fault = format!(
            "{name:?} is not the name of a partition; write NAME [WEIGHT], or one JSON list"
        );
        return Err((column(name), fault));
    }
    if name.split('.').any(str::is_empty) {
        return Err((column(name), format!("{name:?} has an empty key")));
    }
    let weight = match words.next() {
        None => 0,
        Some(word) => word
            .parse()
            .map_err(|_| (column(word), format!("{word:?} is not a weight")))?,
    };
    match words.next() {
        Some(word) => Err((column(word), format!("{word:?} is one word too many"))),
        None => Ok(Partition::new(name.split('.'), weight)),
    }
}

fn read_plan(source: &str) -> Result<Plan> {
    let fault = |error: &dyn std::fmt::Display| format!("--previous {source}: {error}");
    let text = read_text("--previous", source)?;
    let previous: Previous = serde_json::from_str(&text).map_err(|error| fault(&error))?;
    let ids = previous.assignments.keys().map(|id| WorkerId::new(id));
    let workers = ids
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|e| fault(&e))?;
    let mut owned: Vec<(Partition, u32)> = (0..)
        .zip(previous.assignments.into_values())
        .flat_map(|(owner, list)| list.into_iter().map(move |partition| (partition, owner)))
        .collect();
    owned.sort();
    let (partitions, owners): (Vec<_>, Vec<_>) = owned.into_iter().unzip();
    let partitions = canonical_partitions(partitions).map_err(|error| fault(&error))?;
    Plan::new(workers.into(), partitions.into(), owners).map_err(|error| fault(&error))
}

/// The capacity of each worker, from `WORKER=CAPACITY`.
fn read_capacities(given: &[String], workers: &[WorkerId]) -> Result<Vec<f64>> {
    let mut capacities = vec![1.0; workers.len()];
    for text in given {
        let parsed = text.rsplit_once('=').and_then(|(id, capacity)| {
            let capacity: f64 = capacity.parse().ok()?;
            (0.001..=1_000.0)
                .contains(&capacity)
                .then_some((id, capacity))
        });
        let Some((id, capacity)) = parsed else {
            let rule = "use WORKER=CAPACITY with a capacity from 0.001 to 1000";
            return Err(format!("--capacity {text}: {rule}"));
        };
        let Ok(place) = workers.binary_search_by(|worker| worker.as_str().cmp(id)) else {
            return Err(format!("--capacity {text}: there is no worker {id:?}"));
        };
        capacities[place] = capacity;
    }
    Ok(capacities)
}

fn assignments(plan: &Plan) -> BTreeMap<&str, Vec<&Partition>> {
    let workers = (0..).zip(plan.workers().iter());
    workers
        .map(|(index, id)| (id.as_str(), plan.partitions_of(index).collect()))
        .collect()
}

fn describe(
    plan: &Plan,
    strategy: &str,
    capacities: &[f64],
    quality: Quality,
    diff: Option<&Diff>,
    explanations: &[String],
) -> String {
    let mut text = format!(
        "{strategy}: {} partitions on {} workers\n\n",
        plan.partitions().len(),
        plan.workers().len()
    );
    let width = plan.workers().iter().map(|id| id.as_str().len()).max();
    let width = width.unwrap_or(0).max("worker".len());
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{:width$}  partitions  load/fair  in  out", "worker");
    for (index, id) in (0..).zip(plan.workers().iter()) {
        let partitions = plan.partitions_of(index);
        let weights = partitions.clone().map(|p| p.weight.max(1) as f64);
        let load = weights.sum::<f64>() / capacities[index as usize];
        let level = if quality.fair > 0.0 {
            load / quality.fair
        } else {
            1.0
        };
        let row = diff.and_then(|diff| {
            let place = diff.workers.binary_search_by(|row| row.worker.cmp(id));
            place.ok().map(|place| &diff.workers[place])
        });
        let (coming, going) = row.map_or((partitions.len(), 0), |row| {
            (row.added + row.moved_in, row.removed + row.moved_out)
        });
        let count = partitions.len();
        let _ = writeln!(
            text,
            "{id:width$}  {count:>10}  {level:>9.3}  {coming:>2}  {going:>3}"
        );
    }
    let _ = writeln!(
        text,
        "\nquality: max {:.3} of the mean (at best {:.3}), min {:.3}",
        quality.max_to_mean, quality.lower_bound, quality.min_to_mean
    );
    if let Some(diff) = diff {
        let _ = writeln!(
            text,
            "diff: {} added, {} removed, {} moved: {:.2} % of all weight, at least {:.2} % had to",
            diff.added,
            diff.removed,
            diff.moved,
            quality.moved * 100.0,
            quality.moved_least * 100.0
        );
    }
    for explanation in explanations {
        let _ = writeln!(text, "{explanation}");
    }
    text
}

impl From<Quality> for QualityOutput {
    fn from(quality: Quality) -> Self {
        Self {
            mean: quality.mean,
            fair: quality.fair,
            max_to_mean: quality.max_to_mean,
            min_to_mean: quality.min_to_mean,
            lower_bound: quality.lower_bound,
            moved: quality.moved,
            moved_least: quality.moved_least,
        }
    }
}

impl<'a> From<&'a Diff> for DiffOutput<'a> {
    fn from(diff: &'a Diff) -> Self {
        let worker = |row: &'a divvy::strategy::WorkerDiff| {
            let output = WorkerOutput {
                added: row.added,
                removed: row.removed,
                moved_in: row.moved_in,
                moved_out: row.moved_out,
            };
            (row.worker.as_str(), output)
        };
        Self {
            added: diff.added,
            removed: diff.removed,
            moved: diff.moved,
            moved_weight: diff.moved_weight,
            orphaned_weight: diff.orphaned_weight,
            total_weight: diff.total_weight,
            workers: diff.workers.iter().map(worker).collect(),
        }
    }
}

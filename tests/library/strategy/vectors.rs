//! The three strategies shared with parti return bit-identical plans.

use std::fmt::Write as _;

use divvy::strategy::{
    ConsistentHash, PlanInput, RoundRobin, Strategy, WeightedConsistentHash, canonical_workers,
};
use divvy::types::{Partition, WorkerId};
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    strategy: String,
    workers: usize,
    partitions: usize,
    weights: String,
    seed: String,
    virtual_nodes: u32,
    #[serde(default)]
    options: Options,
    owners: Option<Vec<usize>>,
    owners_sha256: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    overload_threshold: Option<f64>,
    extreme_threshold: Option<f64>,
    default_weight: Option<i64>,
}

fn weight(kind: &str, i: i64) -> i64 {
    match kind {
        "equal" => 100,
        "zero" => 0,
        "skew10" if i % 10 == 0 => 500,
        "heavy" if i % 20 == 0 => 10_000 + (i / 20 * 7919) % 40_001,
        "skew10" | "heavy" => 100,
        "spread" => 50 + (i * 7919) % 151,
        "mixed" => [-5, 0, 1, 100, 1_000_000][(i % 5) as usize],
        _ => panic!("unknown kind of weights: {kind}"),
    }
}

fn strategy(case: &Case) -> Box<dyn Strategy> {
    let seed = u64::from_str_radix(&case.seed, 16).unwrap();
    match case.strategy.as_str() {
        "round_robin" => Box::new(RoundRobin),
        "consistent_hash" => Box::new(
            ConsistentHash::new()
                .virtual_nodes(case.virtual_nodes)
                .seed(seed),
        ),
        "weighted_consistent_hash" => {
            let mut strategy = WeightedConsistentHash::new()
                .virtual_nodes(case.virtual_nodes)
                .seed(seed);
            if let Some(threshold) = case.options.overload_threshold {
                strategy = strategy.overload_threshold(threshold);
            }
            if let Some(threshold) = case.options.extreme_threshold {
                strategy = strategy.extreme_threshold(threshold);
            }
            if let Some(weight) = case.options.default_weight {
                strategy = strategy.default_weight(weight);
            }
            Box::new(strategy)
        }
        other => panic!("unknown strategy: {other}"),
    }
}

#[test]
fn every_plan_matches_parti() {
    let file: File = serde_json::from_str(include_str!("../../vectors/plans.json")).unwrap();
    assert!(file.cases.len() > 80);
    for case in &file.cases {
        let workers = (0..case.workers).map(|i| WorkerId::new(&format!("worker-{i}")).unwrap());
        let workers = canonical_workers(workers.collect());
        let partitions: Vec<_> = (0..case.partitions as i64)
            .map(|i| {
                let keys = ["topic".to_owned(), "p".to_owned(), format!("{i:07}")];
                Partition::new(keys, weight(&case.weights, i))
            })
            .collect();
        let input = PlanInput {
            workers: &workers,
            partitions: &partitions,
            previous: &vec![None; partitions.len()],
        };

        let plan = strategy(case).assign(&input).unwrap();

        let number = |owner: &u32| -> usize {
            let id = workers[*owner as usize].as_str();
            id.trim_start_matches("worker-").parse().unwrap()
        };
        let owners: Vec<usize> = plan.iter().map(number).collect();
        let what = format!(
            "{} {}x{} {} seed {} nodes {}",
            case.strategy,
            case.workers,
            case.partitions,
            case.weights,
            case.seed,
            case.virtual_nodes
        );
        if let Some(expected) = &case.owners {
            assert_eq!(&owners, expected, "{what}");
        }
        let mut text = String::new();
        for owner in &owners {
            writeln!(text, "{owner}").unwrap();
        }
        let digest = Sha256::digest(text.as_bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, case.owners_sha256, "{what}");
    }
}

//! The dashboard and the alerts: they use existing series, and each alert fires as documented.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use divvy::metrics::{
    AssignmentMetrics, CalculatorMetrics, ManagerMetrics, NoMetrics, Prometheus, WorkerMetrics,
};

use super::page::Page;
use super::run::eventful_life;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns every metric name of divvy in a text, including suffixes such as `_bucket`.
fn names(text: &str) -> BTreeSet<&str> {
    let joins = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !joins(c))
        .filter(|word| word.starts_with("divvy_"))
        .collect()
}

/// Returns the queries of the dashboard.
fn queries() -> String {
    let board: serde_json::Value = serde_json::from_str(&read("dashboards/divvy.json")).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let queries = targets
        .flatten()
        .map(|target| target["expr"].as_str().expect("a query"));
    queries.collect::<Vec<_>>().join("\n")
}

fn whole_page() -> Page {
    let metrics = Prometheus::builder().with_manager().build().unwrap();
    eventful_life(&Arc::new(metrics))
}

#[test]
fn metrics_of_dashboard_and_alerts_are_emitted_and_emitted_ones_shown() {
    let page = whole_page();
    let (queries, alerts) = (queries(), read("dashboards/alerts.yml"));
    for name in names(&queries).union(&names(&alerts)) {
        assert!(page.family_of(name).is_some(), "{name} is not emitted");
    }
    let shown: BTreeSet<&str> = names(&queries)
        .into_iter()
        .filter_map(|name| page.family_of(name))
        .collect();
    for family in page.families.keys() {
        assert!(shown.contains(family.as_str()), "{family} is not shown");
    }
}

/// Every label in a query exists on its series, with the given value.
#[test]
fn every_label_selected_by_alert_is_on_a_series() {
    let page = whole_page();
    let alerts = read("dashboards/alerts.yml");
    let mut selectors = 0;
    for query in alerts.lines().filter(|line| line.contains("divvy_")) {
        for (start, _) in query.match_indices('{') {
            let name = query[..start].rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let name = name.into_iter().next().unwrap();
            let selector = query[start + 1..].split('}').next().unwrap();
            let values = selector.split_once('"').unwrap().1.trim_end_matches('"');
            let label = selector.split(['=', '!']).next().unwrap();
            selectors += 1;
            for value in values.split('|') {
                let wanted = format!("{label}=\"{value}\"");
                let of_it = |series: &&String| {
                    series.starts_with(&format!("{name}{{")) && series.contains(&wanted)
                };
                assert!(page.series.keys().any(|s| of_it(&s)), "{name}: {wanted}");
            }
        }
    }
    assert!(selectors > 10, "{selectors} selectors were found");
}

#[test]
fn every_metric_and_alert_is_in_manual() {
    let manual = read("docs/metrics.md");
    for family in whole_page().families.keys() {
        let name = family.strip_prefix("divvy_").expect("our namespace");
        assert!(
            manual.contains(&format!("`{name}`")),
            "docs/metrics.md does not describe {name}"
        );
    }
    for alert in alerts() {
        assert!(
            manual.contains(&format!("\n### {alert}\n")),
            "docs/metrics.md has no runbook for {alert}"
        );
    }
}

fn alerts() -> Vec<String> {
    let rules = read("dashboards/alerts.yml");
    let lines = rules.lines();
    lines
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_alert_fires_when_due_and_is_silent_in_healthy_fleet() {
    let tests = read("dashboards/alerts_test.yml");
    let (healthy, ill) = tests.split_once("  - name: Divvy").expect("ill fleets");
    assert!(!healthy.contains("exp_alerts"));
    for alert in alerts() {
        let asked = format!("- alertname: {alert}\n");
        assert!(
            healthy.contains(&asked),
            "{alert}: no test of a healthy fleet"
        );
        let fires = ill.split(&asked).nth(1);
        let fires = fires.and_then(|rest| rest.split("- name:").next());
        let fires = fires.is_some_and(|rest| rest.contains("exp_alerts:"));
        assert!(fires, "{alert}: no test that it fires");
    }
    let promtool = promtool();
    for arguments in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        let output = Command::new(&promtool)
            .args(arguments)
            .current_dir(root().join("dashboards"))
            .output()
            .expect("promtool runs");
        assert!(
            output.status.success(),
            "promtool {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Returns the path of promtool, fetching it if it is missing.
fn promtool() -> String {
    let output = Command::new("sh")
        .arg(root().join(".ci/promtool"))
        .output()
        .expect("a shell");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A host that implements none of the methods.
#[test]
fn default_metrics_methods_do_nothing() {
    struct Mine;
    impl CalculatorMetrics for Mine {}
    impl AssignmentMetrics for Mine {}
    impl WorkerMetrics for Mine {}
    impl ManagerMetrics for Mine {}
    let all: [&dyn CalculatorMetrics; 2] = [&Mine, &NoMetrics];
    for one in all {
        one.malformed(divvy::store::Bucket::Heartbeat, 1);
    }
}

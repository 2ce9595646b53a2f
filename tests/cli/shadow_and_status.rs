//! Shadow and status alongside a live fleet on real servers, through the library and the command.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{Bucket, BucketConfig, Expect, Outcome, Store, Write};
use divvy::strategy::ConsistentHash;
use divvy::wire::{Applied, encode_heartbeat, encode_lease};
use divvy::{Calculator, CalculatorConfig, Partition, WorkerId};
use serde_json::Value;

use crate::support::nats_binary::{NEWEST, OLDEST};
use crate::support::nats_server::Server;
use crate::support::raw_nats::RawNats;

const TIMEOUT: Duration = Duration::from_secs(30);
const TTL: Duration = Duration::from_secs(30);
const BUCKETS: [Bucket; 3] = [Bucket::Election, Bucket::Heartbeat, Bucket::Assignment];

fn soon() -> Instant {
    Instant::now() + TIMEOUT
}

/// A server with the buckets of a fleet, and a client that writes to them.
struct World {
    server: Server,
    store: Arc<NatsStore>,
}

impl World {
    fn new(version: &'static str) -> Self {
        eprintln!("nats-server {version}");
        let server = Server::start(version);
        let store = NatsStore::connect(NatsOptions::new([server.url()]), soon()).unwrap();
        for bucket in BUCKETS {
            let ttl = (bucket != Bucket::Assignment).then_some(TTL);
            store.ensure(bucket, BucketConfig { ttl }, soon()).unwrap();
        }
        let store = Arc::new(store);
        Self { server, store }
    }

    fn put(&self, bucket: Bucket, key: &str, value: impl Into<Vec<u8>>) {
        let write = Write {
            key: key.into(),
            value: Some(value.into()),
            expect: Expect::Any,
        };
        let outcome = self.store.write(bucket, &[write], soon()).remove(0);
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    fn beat(&self, worker: &str, version: i64) {
        let worker = WorkerId::new(worker).unwrap();
        let term = version.min(1);
        let applied = Applied { term, version };
        let value = encode_heartbeat(&worker, "2026-01-01T00:00:00Z", applied);
        self.put(Bucket::Heartbeat, &format!("heartbeat.{worker}"), value);
    }

    /// The state of the streams of the buckets as reported by the server, without consumers.
    fn streams(&self) -> Vec<Value> {
        let mut raw = RawNats::connect(self.server.port);
        let mut stream = |bucket: Bucket| {
            let api = format!("STREAM.INFO.KV_{}", bucket.default_name());
            let mut info = raw.api(&api, "");
            let state = &mut info["state"];
            state["consumer_count"] = Value::Null;
            Value::from(vec![info["config"].clone(), info["state"].clone()])
        };
        BUCKETS.map(&mut stream).to_vec()
    }

    fn divvy(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(cargo_bin("divvy"));
        command
            .args(arguments)
            .args(["--nats", &self.server.url()])
            .args(["--timeout", "20s"]);
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.divvy(arguments).output().unwrap()
    }

    fn leader(&self) -> Calculator {
        Calculator::builder(Arc::clone(&self.store) as Arc<dyn Store>)
            .config(quick(CalculatorConfig::default()))
            .strategy(ConsistentHash::new())
            .source(|| Ok(partitions()))
            .build()
            .unwrap()
    }
}

fn partitions() -> Vec<Partition> {
    (0..12)
        .map(|n| Partition::new(["partition".to_owned(), format!("{n:07}")], 0))
        .collect()
}

fn quick(mut config: CalculatorConfig) -> CalculatorConfig {
    config.name = "worker-0".into();
    config.heartbeat_ttl = TTL;
    config.cooldown = Duration::from_millis(50);
    config.cold_start_window = Duration::from_millis(200);
    config.planned_scale_window = Duration::from_millis(200);
    config
}

/// The settings of [`quick`], for the command.
const QUICK: [&str; 8] = [
    "--set",
    "heartbeat_ttl=30s",
    "--set",
    "cooldown=50ms",
    "--set",
    "cold_start_window=200ms",
    "--set",
    "planned_scale_window=200ms",
];

/// A `divvy shadow` process and its output.
struct Shadow {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Shadow {
    fn start(world: &World, strategy: &str) -> Self {
        let arguments = [
            "shadow",
            "--json",
            "--partitions",
            "12",
            "--strategy",
            strategy,
        ];
        let mut command = world.divvy(&arguments);
        let mut child = command.args(QUICK).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Returns the next line with such an event.
    fn event(&mut self, name: &str) -> Value {
        loop {
            let mut line = String::new();
            assert!(
                self.lines.read_line(&mut line).unwrap() > 0,
                "no {name} any more"
            );
            eprint!("{line}");
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["kind"] == name {
                return event;
            }
        }
    }

    fn end(mut self) -> Value {
        let pid = i32::try_from(self.child.id()).unwrap();
        // SAFETY: a signal to a child that was not waited for yet.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
        let summary = self.event("summary");
        assert!(self.child.wait().unwrap().success());
        summary
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn shadow_leaves_every_stream_unchanged() {
    for version in [NEWEST, OLDEST] {
        let world = World::new(version);
        world.beat("worker-0", 0);
        world.put(
            Bucket::Assignment,
            "assignment.worker-9",
            r#"{"version":7,"lifecycle":"cold_start","partitions":[]}"#,
        );
        let before = world.streams();
        let mut shadow = Shadow::start(&world, "sticky");
        let would = shadow.event("would_publish");
        assert_eq!(
            (&would["version"], &would["partition_count"]),
            (&8.into(), &12.into())
        );
        let summary = shadow.end();
        assert!(summary["would_publish"].as_u64() > Some(0), "{summary}");
        assert_eq!(world.streams(), before);
    }
}

#[test]
fn shadow_reports_actions_of_live_leader() {
    for version in [NEWEST, OLDEST] {
        let world = World::new(version);
        world.beat("worker-0", 0);
        world.beat("worker-1", 0);
        let leader = world.leader();
        leader.start(TIMEOUT).unwrap();
        let published = leader.trigger_rebalance(TIMEOUT).unwrap();
        let mut same = Shadow::start(&world, "consistent_hash");
        same.event("watching");
        let mut other = Shadow::start(&world, "round_robin");
        other.event("watching");
        let version = leader.trigger_rebalance(TIMEOUT).unwrap();
        assert!(version > published);
        let seen = loop {
            let seen = same.event("leader_published");
            if seen["version"] == version {
                break seen;
            }
        };
        assert_eq!(seen["comparison"]["difference"]["elsewhere"], 0, "{seen}");
        assert!(seen["term"].as_i64() > Some(0), "{seen}");
        assert_eq!(seen["comparison"]["is_whole"], true, "{seen}");
        world.beat("worker-2", 0);
        let differs = loop {
            let seen = other.event("leader_published");
            if seen["worker_count"] == 3 {
                break seen;
            }
        };
        assert!(
            differs["comparison"]["difference"]["elsewhere"].as_u64() > Some(0),
            "{differs}"
        );
        assert_eq!(differs["comparison"]["agrees"], false);
        leader.stop(TIMEOUT).unwrap();
        assert!(other.end()["disagreements"].as_u64() > Some(0));
        same.end();
    }
}

#[test]
fn status_of_live_fleet_is_shown() {
    for version in [NEWEST, OLDEST] {
        let world = World::new(version);
        let leader = world.leader();
        world.beat("worker-0", 0);
        leader.start(TIMEOUT).unwrap();
        let version = leader.trigger_rebalance(TIMEOUT).unwrap();
        let holder = WorkerId::new("worker-0").unwrap();
        world.put(
            Bucket::Election,
            "leader",
            encode_lease(&holder, 1_700_000_000),
        );
        world.beat("worker-0", version - 1);
        let before = world.streams();
        let output = world.output(&["status", "--json", "--partitions", "14"]);
        assert!(output.status.success(), "{output:?}");
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(status["leader"]["worker"], "worker-0", "{status:#}");
        assert!(status["leader"]["age_ms"].is_u64(), "{status:#}");
        assert!(status["term"].as_i64() > Some(0), "{status:#}");
        assert_eq!(status["version"], version, "{status:#}");
        let worker = &status["workers"][0];
        assert_eq!(
            (&worker["lag"], &worker["partitions"]),
            (&1.into(), &12.into())
        );
        assert!(
            worker["heartbeat_age_ms"].as_u64() < Some(30_000),
            "{worker}"
        );
        assert_eq!(status["unassigned"][1], "partition.0000013");
        let text = String::from_utf8(world.output(&["status"]).stdout).unwrap();
        assert!(text.contains("fence    worker-0 in term "), "{text}");
        assert!(
            text.contains("workers  1 alive, 0 without heartbeat; 12 partitions"),
            "{text}"
        );
        assert_eq!(world.streams(), before);
        leader.stop(TIMEOUT).unwrap();
    }
}

#[test]
fn failures_are_reported_in_one_line() {
    let world = World::new(NEWEST);
    let refused = |arguments: &[&str], words: &str| {
        let output = world.output(arguments);
        let received = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{received}");
        assert!(
            received.starts_with("divvy: ") && received.trim().lines().count() == 1,
            "{received}"
        );
        assert!(received.contains(words), "{words:?} is not in {received:?}");
        assert!(output.stdout.is_empty());
    };
    refused(&["status", "--set", "coldown=1s"], "cooldown");
    refused(&["status", "--set", "cooldown"], "NAME=VALUE");
    refused(
        &["status", "--partitions", "/nowhere"],
        "--partitions /nowhere",
    );
    refused(
        &["shadow", "--partitions", "/nowhere"],
        "--partitions /nowhere",
    );
    refused(
        &["shadow", "--partitions", "3", "--strategy", "best"],
        "--strategy",
    );
    let elsewhere = [
        "--set",
        "assignment_bucket=a",
        "--set",
        "heartbeat_bucket=h",
        "--set",
        "election_bucket=e",
    ];
    refused(&[&["status"][..], &elsewhere].concat(), "no such bucket");
    let mut reader = Command::new(cargo_bin("divvy"));
    reader.args([
        "status",
        "--nats",
        "nats://127.0.0.1:1",
        "--timeout",
        "300ms",
    ]);
    let output = reader.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

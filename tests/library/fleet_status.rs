//! A live fleet as seen by an observer, on the embedded store.

use std::time::{Duration, Instant};

use divvy::error::Code;
use divvy::store::memory::MemoryStore;
use divvy::store::{Bucket, BucketConfig, Store};
use divvy::{CalculatorConfig, FleetStatus, Partition, read_fleet};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn store() -> MemoryStore {
    let store = MemoryStore::new();
    for bucket in [Bucket::Election, Bucket::Heartbeat, Bucket::Assignment] {
        let ttl = (bucket != Bucket::Assignment).then_some(Duration::from_secs(600));
        store.ensure(bucket, BucketConfig { ttl }, soon()).unwrap();
    }
    store
}

fn put(store: &MemoryStore, bucket: Bucket, key: &str, value: &str) {
    store.server().put(bucket, key, value.as_bytes());
}

fn look(store: &MemoryStore, partitions: Option<&[Partition]>) -> FleetStatus {
    read_fleet(store, &CalculatorConfig::default(), partitions, soon()).unwrap()
}

fn list(names: &[&str]) -> Vec<Partition> {
    names
        .iter()
        .map(|n| Partition::new(n.split('.'), 1))
        .collect()
}

/// A fleet led by divvy: one worker lags, one has no heartbeat.
fn divvys_fleet() -> MemoryStore {
    let store = store();
    put(&store, Bucket::Election, "leader", "worker-0:1700000000");
    for (worker, applied) in [(0, 42), (1, 40)] {
        let key = format!("heartbeat.worker-{worker}");
        let value = format!(
            r#"{{"worker":"worker-{worker}","time":"","applied_term":3,"applied_version":{applied}}}"#
        );
        put(&store, Bucket::Heartbeat, &key, &value);
    }
    for (worker, keys, weight) in [(0, "a", 30), (1, "b", 10), (2, "c", 0)] {
        let key = format!("assignment.worker-{worker}");
        let value = format!(
            r#"{{"version":42,"lifecycle":"planned_scale","term":3,"partitions":[{{"keys":["tool","{keys}"],"weight":{weight}}}]}}"#
        );
        put(&store, Bucket::Assignment, &key, &value);
    }
    put(
        &store,
        Bucket::Assignment,
        "divvy.fence",
        r#"{"term":3,"leader":"worker-0","time":"2026-01-01T00:00:00Z","class":"A"}"#,
    );
    store
}

#[test]
fn replicas_that_differ_are_listed_by_part_with_the_leaders_first() {
    let store = divvys_fleet();
    let beat = |worker: &str, config: &str| {
        let value = format!(r#"{{"applied_term":3,"applied_version":42,"config":{config}}}"#);
        put(
            &store,
            Bucket::Heartbeat,
            &format!("heartbeat.{worker}"),
            &value,
        );
    };
    let ours = r#"{"list":"0000000a","strategy":"0000000b","settings":"0000000c"}"#;
    beat("worker-0", ours);
    beat("worker-1", ours);
    assert_eq!(look(&store, None).config_differences, []);
    let held = r#"{},"held_list":{"in_force":100,"lost":60,"listed":40}"#;
    beat("worker-1", held);
    assert_eq!(look(&store, None).held_list, None, "it does not lead");
    beat("worker-0", held);
    let text = look(&store, None).to_string();
    let line = "problem: partition list held back: it has 40 partitions and lacks 60 of the 100";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("confirm_partitions"), "{text}");
    beat("worker-0", ours);
    beat(
        "worker-1",
        r#"{"list":"0000000f","strategy":"0000000b","settings":"00000001"}"#,
    );
    // It does not know its list, and parti's worker knows nothing.
    beat(
        "worker-3",
        r#"{"strategy":"0000000b","settings":"00000001"}"#,
    );
    put(
        &store,
        Bucket::Heartbeat,
        "heartbeat.worker-4",
        "2026-01-01T00:00:00Z",
    );
    let status = look(&store, None);
    let text = status.to_string();
    for line in [
        "problem: replicas differ in list: 0000000a on worker-0; 0000000f on worker-1\n",
        "problem: replicas differ in settings: 0000000c on worker-0; 00000001 on worker-1 worker-3\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(status.config_differences.len(), 2);
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(
        json["config_differences"][0],
        serde_json::json!({"part": "list", "variants": [
            {"digest": "0000000a", "workers": ["worker-0"]},
            {"digest": "0000000f", "workers": ["worker-1"]},
        ]})
    );
    assert_eq!(json["workers"][1]["config"]["list"], "0000000f");
}

#[test]
fn leader_versions_workers_lag_and_loads_are_shown() {
    let store = divvys_fleet();
    let wanted = list(&["tool.a", "tool.b", "tool.c", "tool.d"]);
    let status = look(&store, Some(&wanted));
    let leader = status.leader.as_ref().unwrap();
    assert_eq!(leader.worker, "worker-0");
    let fence = status.fence.as_ref().unwrap();
    assert_eq!(
        (fence.term, fence.leader.as_str(), fence.class.as_str()),
        (3, "worker-0", "A")
    );
    assert_eq!((status.version, status.term, status.assigned), (42, 3, 3));
    assert_eq!(status.lifecycle, "planned_scale");
    let workers: Vec<_> = status
        .workers
        .iter()
        .map(|w| {
            (
                w.worker.as_str(),
                w.is_alive,
                w.applied_version,
                w.lag,
                w.weight,
            )
        })
        .collect();
    assert_eq!(
        workers,
        [
            ("worker-0", true, Some(42), Some(0), 30),
            ("worker-1", true, Some(40), Some(2), 10),
            ("worker-2", false, None, None, 1),
        ]
    );
    assert!((status.workers[0].share - 30.0 / 41.0).abs() < 1e-9);
    // The partitions of a worker without heartbeats are not served.
    assert_eq!(
        status.unassigned.as_deref(),
        Some(&["tool.c".to_owned(), "tool.d".into()][..])
    );
    assert!(status.unlisted.is_empty() && status.shared.is_empty());
    assert!(status.is_complete && status.problems.is_empty(), "{status}");
}

#[test]
fn table_for_humans_is_complete() {
    let store = divvys_fleet();
    let wanted = list(&["tool.a", "tool.b", "tool.d"]);
    let text = look(&store, Some(&wanted)).to_string();
    for expected in [
        "leader   worker-0 (lease ",
        "fence    worker-0 in term 3, class A, since 2026-01-01T00:00:00Z\n",
        "version  42 (planned_scale), highest term 3\n",
        "workers  2 alive, 1 without heartbeat; 3 partitions assigned\n",
        "worker    heartbeat  version  applied  lag  partitions  weight   share\n",
        "       42       40    2           1      10  24.4 %\n",
        "worker-2       none       42        -    -           1       1   2.4 %\n",
        "unassigned: 1: tool.d\n",
        "not in the list: 1: tool.c\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn json_status_matches_table() {
    let status = look(&divvys_fleet(), None);
    let json: serde_json::Value = serde_json::to_value(&status).unwrap();
    assert_eq!(json["leader"]["worker"], "worker-0");
    assert_eq!(json["fence"]["term"], 3);
    assert_eq!((&json["version"], &json["term"]), (&42.into(), &3.into()));
    assert_eq!(json["workers"][1]["lag"], 2);
    assert!(json["unassigned"].is_null() && json["workers"][2]["lag"].is_null());
}

#[test]
fn fleet_led_by_parti_has_neither_fence_nor_terms() {
    let store = store();
    put(&store, Bucket::Election, "leader", "worker-7:1700000000");
    put(
        &store,
        Bucket::Heartbeat,
        "heartbeat.worker-7",
        "2026-01-01T00:00:00.5Z",
    );
    let value =
        r#"{"version":9,"lifecycle":"cold_start","partitions":[{"keys":["p"],"weight":0}]}"#;
    put(&store, Bucket::Assignment, "assignment.worker-7", value);
    let status = look(&store, Some(&list(&["p"])));
    assert_eq!(status.leader.as_ref().unwrap().worker, "worker-7");
    assert_eq!(
        (status.fence.as_ref(), status.version, status.term),
        (None, 9, 0)
    );
    let worker = &status.workers[0];
    assert!(worker.is_alive && worker.term.is_none() && worker.lag.is_none());
    assert_eq!(status.unassigned, Some(Vec::new()));
    assert!(status.is_complete && status.problems.is_empty(), "{status}");
    let text = status.to_string();
    assert!(
        text.contains("fence    none (no divvy leader so far)\n"),
        "{text}"
    );
    assert!(text.contains("version  9 (cold_start)\n"), "{text}");
}

#[test]
fn malformed_data_is_shown_and_hides_nothing_else() {
    let store = divvys_fleet();
    put(&store, Bucket::Election, "leader", "\u{1b}[2Jnobody");
    put(&store, Bucket::Assignment, "divvy.commit", "{broken");
    put(&store, Bucket::Assignment, "assignment.worker-1", "[]");
    put(
        &store,
        Bucket::Assignment,
        "assignment.worker-0",
        r#"{"version":43,"partitions":[{"keys":["tool","c"]}],"lifecycle":"x\u001b[2J"}"#,
    );
    put(&store, Bucket::Heartbeat, "heartbeat.", "no worker");
    let status = look(&store, None);
    let all = status.problems.join("\n");
    for expected in [
        "leader: not <worker id>:<unix seconds>",
        "divvy.commit: malformed value",
        "assignment.worker-1: malformed value",
        "heartbeat.: ",
        "not a single complete plan",
    ] {
        assert!(all.contains(expected), "{expected:?} is not in\n{all}");
    }
    assert_eq!((status.leader.as_ref(), status.version), (None, 43));
    assert_eq!(status.shared, ["tool.c"]);
    let worker = &status.workers[1];
    assert!(worker.is_alive && worker.version.is_none(), "{worker:?}");
    let text = status.to_string();
    assert!(text.contains("owned twice: 1: tool.c\n"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn conflicting_lease_and_fence_are_reported() {
    let store = divvys_fleet();
    put(&store, Bucket::Election, "leader", "worker-1:1700000000");
    let status = look(&store, None);
    assert!(
        status.problems[0].starts_with("the lease is worker-1's, the fence worker-0's"),
        "{status}"
    );
}

#[test]
fn one_missing_bucket_is_a_problem_and_all_missing_an_error() {
    let store = MemoryStore::new();
    let config = CalculatorConfig::default();
    let error = read_fleet(&store, &config, None, soon()).unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    store
        .ensure(Bucket::Assignment, BucketConfig { ttl: None }, soon())
        .unwrap();
    let status = look(&store, None);
    assert_eq!(status.problems.len(), 2, "{status}");
    assert!(
        status.problems[0].starts_with("cannot read the Election bucket"),
        "{status}"
    );
}

#[test]
fn fleet_status_writes_nothing() {
    let store = divvys_fleet();
    let everything = || {
        [Bucket::Election, Bucket::Heartbeat, Bucket::Assignment]
            .map(|bucket| store.list(bucket, "", soon()).unwrap().last_sequence)
    };
    let before = everything();
    look(&store, None);
    assert_eq!(everything(), before);
}

#[test]
fn foreign_keys_are_listed_and_are_neither_workers_nor_problems() {
    let store = divvys_fleet();
    let before = look(&store, None);
    let keys = [
        "assignment._commit_log.42",
        "assignment._payload.ab",
        "assignment.notes",
    ];
    for key in keys {
        put(&store, Bucket::Assignment, key, "not divvy's");
    }
    put(&store, Bucket::Heartbeat, "heartbeat._labels", "x");
    let status = look(&store, None);
    assert_eq!(status.foreign, keys);
    assert_eq!(status.workers, before.workers);
    assert!(
        !status.problems.join("\n").contains("assignment._"),
        "{status}"
    );
    assert!(
        status
            .to_string()
            .contains("foreign keys: 3: assignment._commit_log.42"),
        "{status}"
    );
}

#[test]
fn implausible_numbers_are_named_with_bucket_key_and_value() {
    for number in [i64::MAX, i64::MAX - 1] {
        let store = divvys_fleet();
        let before = look(&store, None);
        let record = format!(r#"{{"term":{number},"version":{number},"partitions":[]}}"#);
        put(&store, Bucket::Assignment, "assignment.worker-1", &record);
        let beat = format!(r#"{{"applied_term":{number},"applied_version":{number}}}"#);
        put(&store, Bucket::Heartbeat, "heartbeat.worker-0", &beat);
        let status = look(&store, None);
        assert_eq!((status.version, status.term), (before.version, before.term));
        let all = status.problems.join("\n");
        for part in [
            "assignment.worker-1: ",
            "heartbeat.worker-0: ",
            "heartbeat bucket",
        ] {
            assert!(all.contains(part), "{part:?} is not in\n{all}");
        }
        assert!(
            all.contains(&number.to_string()) && all.contains("implausible"),
            "{all}"
        );
    }
}

//! How the NATS store treats buckets: its own, foreign ones, and those that it must not change.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use divvy::error::Code;
use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{
    Bucket, BucketConfig, Expect, ManageBuckets, Outcome, Refusal, Store, WatchEvent, Write,
};
use serde_json::{Value, json};

use crate::support::nats_binary::{NEWEST, OLDEST};
use crate::support::nats_server::{Server, Setup};
use crate::support::raw_nats::RawNats;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn connect(options: NatsOptions) -> NatsStore {
    NatsStore::connect(options, soon()).expect("a connection")
}

fn config_of(server: &Server, bucket: Bucket) -> Value {
    let api = format!("STREAM.INFO.KV_{}", bucket.default_name());
    RawNats::connect(server.port).api(&api, "")["config"].clone()
}

fn create(server: &Server, bucket: Bucket, changes: &Value) {
    let name = bucket.default_name();
    let mut config = json!({
        "name": format!("KV_{name}"), "subjects": [format!("$KV.{name}.>")],
        "max_msgs_per_subject": 1, "discard": "new", "storage": "file", "num_replicas": 1,
        "allow_rollup_hdrs": true, "deny_delete": true, "max_bytes": -1, "max_msgs": -1,
        "max_msg_size": -1, "max_consumers": -1, "max_age": 0, "duplicate_window": 2_000_000_000,
    });
    for (key, value) in changes.as_object().expect("an object") {
        config[key] = value.clone();
    }
    let api = format!("STREAM.CREATE.KV_{name}");
    let answer = RawNats::connect(server.port).api(&api, &config.to_string());
    assert!(answer.get("error").is_none(), "{answer}");
}

const FOR_EVER: BucketConfig = BucketConfig { ttl: None };

fn of(ttl: u64) -> BucketConfig {
    BucketConfig {
        ttl: Some(Duration::from_secs(ttl)),
    }
}

#[test]
fn created_buckets_are_valid_for_every_nats_client() {
    for version in [NEWEST, OLDEST] {
        let server = Server::start(version);
        let store = connect(NatsOptions::new([server.url()]));
        store.ensure(Bucket::Assignment, FOR_EVER, soon()).unwrap();
        store.ensure(Bucket::Heartbeat, of(6), soon()).unwrap();
        let config = config_of(&server, Bucket::Assignment);
        assert_eq!(config["max_msgs_per_subject"], 1);
        assert_eq!(config["max_age"], 0);
        assert_eq!(config["allow_direct"], true);
        assert_eq!(config["discard"], "new");
        // A server before 2.12 would take it offline after a downgrade.
        assert_ne!(config["allow_atomic"], true);
        let config = config_of(&server, Bucket::Heartbeat);
        assert_eq!(config["max_age"], 6_000_000_000_u64);
        assert_eq!(config["duplicate_window"], 6_000_000_000_u64);
        if version == NEWEST {
            assert_eq!(config["subject_delete_marker_ttl"], 1_000_000_000_u64);
        }
    }
}

#[test]
fn created_bucket_starts_its_sequence_at_the_current_time() {
    for version in [NEWEST, OLDEST] {
        let server = Server::start(version);
        let store = connect(NatsOptions::new([server.url()]));
        let put = || {
            store.ensure(Bucket::Assignment, FOR_EVER, soon()).unwrap();
            let write = Write {
                key: "k".into(),
                value: Some(b"v".to_vec()),
                expect: Expect::Revision(0),
            };
            match store.write(Bucket::Assignment, &[write], soon()).remove(0) {
                Outcome::Done(revision) => revision,
                outcome => panic!("{outcome:?}"),
            }
        };
        let now = || {
            let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            Bucket::Assignment.first_sequence(since_epoch.unwrap())
        };
        let before = now();
        let first = put();
        let after = now();
        assert!(
            (before..=after).contains(&first),
            "{before} {first} {after}"
        );
        assert_eq!(
            store
                .read(Bucket::Assignment, "k", soon())
                .unwrap()
                .unwrap()
                .revision,
            first
        );
        // A revision of a deleted bucket is not valid in its successor.
        RawNats::connect(server.port).api("STREAM.DELETE.KV_parti-assignment", "");
        assert!(put() > first);
    }
}

fn foreign_bucket(server: &Server) -> Value {
    let foreign = json!({
        "description": "someone else's", "max_bytes": 1_000_000, "max_msg_size": 5_000,
        "metadata": { "owner": "someone" }, "republish": { "src": ">", "dest": "copy.>" },
    });
    create(server, Bucket::Assignment, &foreign);
    config_of(server, Bucket::Assignment)
}

#[test]
fn existing_bucket_is_left_as_it_is_unless_an_upgrade_is_asked_for() {
    let server = Server::start(NEWEST);
    let before = foreign_bucket(&server);
    create(
        &server,
        Bucket::Heartbeat,
        &json!({ "max_age": 6_000_000_000_u64 }),
    );
    let heartbeats = config_of(&server, Bucket::Heartbeat);
    for manage in [ManageBuckets::Create, ManageBuckets::Never] {
        let store = connect(NatsOptions::new([server.url()]).manage_buckets(manage));
        store.ensure(Bucket::Assignment, FOR_EVER, soon()).unwrap();
        store.ensure(Bucket::Heartbeat, of(6), soon()).unwrap();
        assert_eq!(config_of(&server, Bucket::Assignment), before);
        assert_eq!(config_of(&server, Bucket::Heartbeat), heartbeats);
        let capabilities = store.capabilities(Bucket::Assignment, soon()).unwrap();
        assert_eq!(capabilities.batch_max, 0);
    }
}

#[test]
fn upgraded_bucket_gains_the_feature_it_needs_and_keeps_every_setting_it_had() {
    let server = Server::start(NEWEST);
    let before = foreign_bucket(&server);
    create(
        &server,
        Bucket::Heartbeat,
        &json!({ "max_age": 6_000_000_000_u64 }),
    );
    let store = connect(NatsOptions::new([server.url()]).manage_buckets(ManageBuckets::Upgrade));
    store.ensure(Bucket::Assignment, FOR_EVER, soon()).unwrap();
    let after = config_of(&server, Bucket::Assignment);
    assert_eq!(after["allow_atomic"], true);
    for (key, value) in before.as_object().unwrap() {
        match key.as_str() {
            "metadata" => {}
            _ => assert_eq!(after.get(key), Some(value), "{key}"),
        }
    }
    assert_eq!(after["metadata"]["owner"], "someone");
    // The call is idempotent.
    store.ensure(Bucket::Assignment, FOR_EVER, soon()).unwrap();
    assert_eq!(config_of(&server, Bucket::Assignment), after);
    let capabilities = store.capabilities(Bucket::Assignment, soon()).unwrap();
    assert_eq!(capabilities.value_max, 5_000 - 1_024);
    // Only the assignment bucket uses batches.
    for bucket in [Bucket::Heartbeat, Bucket::Election, Bucket::StableId] {
        store.ensure(bucket, of(6), soon()).unwrap();
        let config = config_of(&server, bucket);
        assert_ne!(config["allow_atomic"], true, "{bucket:?}");
        assert_eq!(config["subject_delete_marker_ttl"], 1_000_000_000_u64);
    }
}

#[test]
fn operator_plans_upgrades_and_reverts_buckets() {
    let server = Server::start(NEWEST);
    let store = connect(NatsOptions::new([server.url()]));
    store.ensure(Bucket::Assignment, FOR_EVER, soon()).unwrap();
    let report = store.inspect_buckets(soon()).unwrap();
    assert_eq!(report.servers.len(), 1);
    assert_eq!(report.servers[0].version, NEWEST);
    let plan = report.plan();
    assert!(
        plan.contains("parti-assignment: set allow_atomic"),
        "{plan}"
    );
    assert!(plan.contains("parti-election: missing"), "{plan}");
    assert!(!report.is_blocked());

    let upgraded = store.upgrade_buckets(soon()).unwrap();
    assert!(
        upgraded.to_string().contains("features allow_atomic"),
        "{upgraded}"
    );
    let batch_max = || {
        store
            .capabilities(Bucket::Assignment, soon())
            .unwrap()
            .batch_max
    };
    assert_eq!(batch_max(), 1_000);
    assert_eq!(config_of(&server, Bucket::Assignment)["allow_atomic"], true);

    assert_eq!(store.revert_buckets(soon()).unwrap(), ["parti-assignment"]);
    assert_ne!(config_of(&server, Bucket::Assignment)["allow_atomic"], true);
    assert_eq!(batch_max(), 0);
    assert!(store.revert_buckets(soon()).unwrap().is_empty());
}

#[test]
fn server_that_does_not_answer_keeps_features_off() {
    let server = Server::start(NEWEST);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let urls = [server.url(), format!("nats://{address}")];
    let store = connect(NatsOptions::new(urls).manage_buckets(ManageBuckets::Upgrade));
    store.ensure(Bucket::Assignment, FOR_EVER, soon()).unwrap();
    assert_ne!(config_of(&server, Bucket::Assignment)["allow_atomic"], true);
    let report = store.upgrade_buckets(soon()).unwrap();
    assert!(report.is_blocked());
    let expected = format!("the version of the server at {address} is unknown");
    assert!(report.plan().contains(&expected), "{}", report.plan());
}

#[test]
fn missing_bucket_is_an_error_where_none_may_be_created() {
    let server = Server::start(NEWEST);
    let store = connect(NatsOptions::new([server.url()]).manage_buckets(ManageBuckets::Never));
    let error = store.ensure(Bucket::Heartbeat, of(6), soon()).unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.to_string().contains("parti-heartbeat"), "{error}");
}

#[test]
fn account_that_requires_max_bytes_names_the_setting_and_accepts_it() {
    let account = "accounts { A: { jetstream: { max_store: 100MB, max_mem: 10MB, \
        max_bytes_required: true }, users: [ {user: app, password: p} ] } }";
    let server = Setup::new(NEWEST).config(account).start();
    let options = || NatsOptions::new([server.url()]).user_password("app", "p");
    let error = connect(options())
        .ensure(Bucket::Assignment, FOR_EVER, soon())
        .unwrap_err();
    assert!(error.to_string().contains("set nats_max_bytes"), "{error}");
    assert!(!error.is_retriable(), "{error}");
    let store = connect(options().max_bytes(1 << 20));
    store.ensure(Bucket::Assignment, FOR_EVER, soon()).unwrap();
}

#[test]
fn mismatches_that_matter_are_warned_of_by_name() {
    let server = Server::start(NEWEST);
    let odd =
        json!({ "max_age": 60_000_000_000_u64, "max_msgs_per_subject": 5, "storage": "file" });
    create(&server, Bucket::Assignment, &odd);
    let store = connect(NatsOptions::new([server.url()]).replicas(3));
    let status = store.ensure(Bucket::Assignment, FOR_EVER, soon()).unwrap();
    assert_eq!(status.ttl, Some(Duration::from_secs(60)));
    assert_eq!((status.history, status.replicas), (5, 1));
    let warnings = status.warnings.join("; ");
    for part in [
        "parti-assignment: TTL is 1m, configured is none",
        "keeps 5 values per key instead of 1",
        "replicas is 1, configured is 3",
    ] {
        assert!(warnings.contains(part), "{part} in {warnings}");
    }
}

#[test]
fn concurrent_creators_all_get_same_bucket() {
    for version in [NEWEST, OLDEST] {
        let server = Server::start(version);
        let incarnations: Vec<String> = thread::scope(|scope| {
            let creators: Vec<_> = (1..=6)
                .map(|n| {
                    let store = connect(NatsOptions::new([server.url()]));
                    // Different settings, so that the server rejects all but the first.
                    scope.spawn(move || {
                        store
                            .ensure(Bucket::Heartbeat, of(n), soon())
                            .unwrap()
                            .incarnation
                    })
                })
                .collect();
            creators.into_iter().map(|c| c.join().unwrap()).collect()
        });
        assert!(
            incarnations.iter().all(|i| *i == incarnations[0]),
            "{incarnations:?}"
        );
    }
}

#[test]
fn full_bucket_rejects_writes_by_name_and_keeps_its_contents() {
    let server = Server::start(NEWEST);
    create(&server, Bucket::Assignment, &json!({ "max_bytes": 20_000 }));
    let store = connect(NatsOptions::new([server.url()]));
    let writes: Vec<_> = (0..50)
        .map(|n| Write {
            key: format!("k{n}"),
            value: Some(vec![b'x'; 1_000]),
            expect: Expect::Revision(0),
        })
        .collect();
    let outcomes = store.write(Bucket::Assignment, &writes, soon());
    let done = outcomes
        .iter()
        .filter(|o| matches!(o, Outcome::Done(_)))
        .count();
    assert!((1..50).contains(&done), "{done}");
    let refused = outcomes.last().unwrap();
    assert!(
        matches!(refused, Outcome::Refused(Refusal::Full(why)) if why.contains("10077")),
        "{refused:?}"
    );
    let listing = store.list(Bucket::Assignment, "", soon()).unwrap();
    assert_eq!(listing.entries.len(), done);
}

#[test]
fn watch_without_free_consumer_falls_back_to_polling_without_loss() {
    let server = Server::start(NEWEST);
    create(&server, Bucket::Assignment, &json!({ "max_consumers": 1 }));
    let store = connect(NatsOptions::new([server.url()]));
    let put = |key: &str| {
        let write = Write {
            key: key.into(),
            value: Some(b"v".to_vec()),
            expect: Expect::Any,
        };
        store.write(Bucket::Assignment, &[write], soon()).remove(0)
    };
    let _first = store.watch(Bucket::Assignment, "").unwrap();
    let jsz = || {
        server.monitoring("jsz").unwrap()["consumers"]
            .as_u64()
            .unwrap()
    };
    while jsz() == 0 {
        thread::sleep(Duration::from_millis(5));
    }
    let second = store.watch(Bucket::Assignment, "").unwrap();
    let next = || second.events.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(next(), WatchEvent::Live);
    for n in 0..3 {
        let key = format!("k{n}");
        assert!(matches!(put(&key), Outcome::Done(_)));
        assert!(matches!(next(), WatchEvent::Change(entry) if entry.key == key));
    }
}

#[test]
fn server_without_jetstream_is_unavailable_at_once() {
    let server = Setup::new(NEWEST).without_jetstream().start();
    let store = connect(NatsOptions::new([server.url()]));
    let started = Instant::now();
    let error = store
        .ensure(Bucket::Assignment, FOR_EVER, soon())
        .unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn parti_and_divvy_buckets_can_have_custom_names() {
    let server = Server::start(NEWEST);
    let options = NatsOptions::new([server.url()]).bucket_name(Bucket::Assignment, "fleet-7");
    let store = connect(options);
    let status = store.ensure(Bucket::Assignment, FOR_EVER, soon()).unwrap();
    assert_eq!(status.name, "fleet-7");
    let info = RawNats::connect(server.port).api("STREAM.INFO.KV_fleet-7", "");
    assert_eq!(info["config"]["subjects"], json!(["$KV.fleet-7.>"]));
}

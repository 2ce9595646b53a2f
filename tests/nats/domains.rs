//! Writes arrive in the stream that is read: JetStream domains over leaf nodes, the JetStream of
//! other accounts, and mirrors.
use std::time::{Duration, Instant};

use divvy::error::Code;
use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{
    Batch, Bucket, BucketConfig, Expect, ManageBuckets, Outcome, Store, WatchEvent, Write,
};
use serde_json::{Value, json};

use crate::support::nats_binary::{NEWEST, OLDEST};
use crate::support::nats_server::{Server, Setup, free_port};
use crate::support::raw_nats::RawNats;

const BUCKET: Bucket = Bucket::Assignment;
const STREAM: &str = "KV_parti-assignment";
const SUBJECT: &str = "$KV.parti-assignment.>";
const CONFIG: BucketConfig = BucketConfig { ttl: None };

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn put(key: &str, expect: Expect) -> Write {
    Write {
        key: key.into(),
        value: Some(b"v".to_vec()),
        expect,
    }
}

/// A hub and a leaf node, each with its own JetStream domain.
fn hub_and_leaf(version: &str) -> (Server, Server) {
    let port = free_port();
    let hub = Setup::new(version)
        .config(&format!(
            "server_name: hub\nleafnodes {{ listen: \"127.0.0.1:{port}\" }}"
        ))
        .domain("hub")
        .start();
    let leaf = Setup::new(version)
        .config(&format!(
            "server_name: leaf\nleafnodes {{ remotes: [ {{ url: \"nats://127.0.0.1:{port}\" }} ] }}"
        ))
        .domain("leaf")
        .start();
    (hub, leaf)
}

fn messages(server: &Server) -> u64 {
    let info = RawNats::connect(server.port).api(&format!("STREAM.INFO.{STREAM}"), "");
    info["state"]["messages"].as_u64().unwrap_or(0)
}

fn create(server: &Server, config: &Value) {
    let api = format!("STREAM.CREATE.{STREAM}");
    let answer = RawNats::connect(server.port).api(&api, &config.to_string());
    assert!(answer["error"].is_null(), "{answer}");
}

fn bucket() -> Value {
    json!({
        "name": STREAM, "subjects": [SUBJECT], "max_msgs_per_subject": 1,
        "allow_rollup_hdrs": true, "deny_delete": true, "allow_direct": true,
    })
}

/// Writes, batches, reads, lists and watches: all in one place.
fn works(store: &NatsStore) {
    store.ensure(BUCKET, CONFIG, soon()).unwrap();
    let watch = store.watch(BUCKET, "").unwrap();
    let outcomes = store.write(BUCKET, &[put("a.1", Expect::Revision(0))], soon());
    let [Outcome::Done(revision)] = outcomes[..] else {
        panic!("{outcomes:?}");
    };
    let read = store.read(BUCKET, "a.1", soon()).unwrap().unwrap();
    assert_eq!(
        (read.revision, read.value.as_slice()),
        (revision, &b"v"[..])
    );
    let outcomes = store.write(
        BUCKET,
        &[put("a.1", Expect::Revision(revision + 7))],
        soon(),
    );
    assert!(
        matches!(outcomes[..], [Outcome::Refused(_)]),
        "{outcomes:?}"
    );
    if store.capabilities(BUCKET, soon()).unwrap().batch_max > 0 {
        let batch = Batch {
            fence: Some(("a.1".into(), revision)),
            writes: vec![put("b.1", Expect::Any), put("b.2", Expect::Revision(0))],
        };
        let outcome = store.write_batch(BUCKET, &batch, soon());
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }
    assert!(matches!(
        store.write(BUCKET, &[put("c.1", Expect::Any)], soon())[..],
        [Outcome::Done(_)]
    ));
    let deadline = soon();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match watch.events.recv_timeout(left).expect("the change of c.1") {
            WatchEvent::Change(entry) if entry.key == "c.1" => break,
            _ => {}
        }
    }
    let keys = store.list(BUCKET, "", soon()).unwrap().entries.len();
    assert!(keys >= 2);
}

#[test]
fn writes_through_a_leaf_node_arrive_in_the_domain_that_is_read() {
    for version in [NEWEST, OLDEST] {
        for has_local in [false, true] {
            let (hub, leaf) = hub_and_leaf(version);
            if has_local {
                create(&leaf, &bucket());
            }
            let options = NatsOptions::new([leaf.url()])
                .domain("hub")
                .manage_buckets(ManageBuckets::Upgrade);
            let store = NatsStore::connect(options, soon()).unwrap();
            works(&store);
            assert!(messages(&hub) >= 2);
            assert_eq!(messages(&leaf), 0, "{version}, local bucket: {has_local}");
            // Without a domain the local bucket is read and written.
            let local = NatsStore::connect(NatsOptions::new([leaf.url()]), soon()).unwrap();
            let before = messages(&hub);
            works(&local);
            assert_eq!(messages(&hub), before);
            assert!(messages(&leaf) >= 2);
        }
    }
}

#[test]
fn unknown_domain_is_an_error_at_connect_that_names_it() {
    let (_hub, leaf) = hub_and_leaf(NEWEST);
    let options = NatsOptions::new([leaf.url()]).domain("moon");
    let by = Instant::now() + Duration::from_secs(1);
    let error = NatsStore::connect(options, by).unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(
        error
            .to_string()
            .contains("domain \"moon\" does not answer"),
        "{error}"
    );
}

#[test]
fn mirror_is_not_mistaken_for_the_bucket() {
    let (hub, leaf) = hub_and_leaf(NEWEST);
    create(&hub, &bucket());
    create(
        &leaf,
        &json!({
            "name": STREAM, "allow_direct": true, "mirror_direct": true,
            "mirror": { "name": STREAM, "external": { "api": "$JS.hub.API", "deliver": "" } },
        }),
    );
    let local = NatsStore::connect(NatsOptions::new([leaf.url()]), soon()).unwrap();
    let error = local.ensure(BUCKET, CONFIG, soon()).unwrap_err();
    assert_eq!(error.code(), Code::Unsupported, "{error}");
    assert!(!error.is_retriable());
    for part in ["mirror", STREAM, "nats_domain"] {
        assert!(error.to_string().contains(part), "{part} in {error}");
    }
    let options = NatsOptions::new([leaf.url()]).domain("hub");
    works(&NatsStore::connect(options, soon()).unwrap());
}

#[test]
fn stream_of_the_bucket_s_name_that_stores_something_else_is_refused() {
    let server = Server::start(NEWEST);
    create(&server, &json!({ "name": STREAM, "subjects": ["other.>"] }));
    let store = NatsStore::connect(NatsOptions::new([server.url()]), soon()).unwrap();
    let error = store.ensure(BUCKET, CONFIG, soon()).unwrap_err();
    assert_eq!(error.code(), Code::Unsupported, "{error}");
    assert!(
        error
            .to_string()
            .contains("does not store $KV.parti-assignment.>"),
        "{error}"
    );
}

/// Starts an account with JetStream, and one with these imports under `hub`.
fn accounts(imports: &str) -> Server {
    let exports = r#"{service: "$JS.API.>", response_type: stream}, {service: "$KV.>"}"#;
    Setup::new(NEWEST)
        .config(&format!(
            "accounts {{ HUB: {{ jetstream: enabled, users: [{{user: hub, password: p}}], \
             exports: [{exports}] }}, APP: {{ users: [{{user: app, password: p}}], \
             imports: [{imports}] }} }}"
        ))
        .start()
}

const API: &str = r#"{service: {account: HUB, subject: "$JS.API.>"}, to: "hub.API.>"}"#;
const KV: &str = r#"{service: {account: HUB, subject: "$KV.>"}, to: "hub.API.$KV.>"}"#;

fn imported(server: &Server) -> NatsOptions {
    NatsOptions::new([server.url()])
        .user_password("app", "p")
        .api_prefix("hub.API")
        .manage_buckets(ManageBuckets::Upgrade)
}

#[test]
fn another_account_s_jetstream_is_used_through_its_prefix() {
    let server = accounts(&format!("{API}, {KV}"));
    works(&NatsStore::connect(imported(&server), soon()).unwrap());
    let owner = NatsOptions::new([server.url()]).user_password("hub", "p");
    let owner = NatsStore::connect(owner, soon()).unwrap();
    assert!(owner.read(BUCKET, "c.1", soon()).unwrap().is_some());
}

#[test]
fn import_without_the_writes_is_refused_by_name() {
    let server = accounts(API);
    let store = NatsStore::connect(imported(&server), soon()).unwrap();
    let error = store.ensure(BUCKET, CONFIG, soon()).unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(
        error
            .to_string()
            .contains("import $KV.> of that account as hub.API.$KV.>"),
        "{error}"
    );
}

#[test]
fn acknowledgement_from_another_stream_is_no_success() {
    let server = accounts(&format!("{API}, {KV}"));
    let store = NatsStore::connect(imported(&server), soon()).unwrap();
    store.ensure(BUCKET, CONFIG, soon()).unwrap();
    // Another stream replaces the bucket and stores its subjects.
    let mut raw = RawNats::connect_as(server.port, "hub", "p");
    raw.api(&format!("STREAM.DELETE.{STREAM}"), "");
    let other = json!({ "name": "other", "subjects": [SUBJECT] });
    let answer = raw.api("STREAM.CREATE.other", &other.to_string());
    assert!(answer["error"].is_null(), "{answer}");
    let outcome = store
        .write(BUCKET, &[put("k", Expect::Any)], soon())
        .remove(0);
    assert!(
        matches!(&outcome, Outcome::Unknown(why) if why.contains("stored in stream \"other\"")),
        "{outcome:?}"
    );
}

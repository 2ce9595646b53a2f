//! The NATS store on healthy real servers: calls, buckets and watches.

use std::time::{Duration, Instant};

use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{
    Batch, Bucket, BucketConfig, Entry, Expect, ManageBuckets, Operation, Outcome, Refusal, Store,
    WatchEvent, Write,
};

use crate::support::nats_binary::{NEWEST, OLDEST};
use crate::support::nats_server::Server;
use crate::support::raw_nats::RawNats;

const BUCKET: Bucket = Bucket::Assignment;
const FOR_EVER: BucketConfig = BucketConfig { ttl: None };

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn connect(server: &Server) -> NatsStore {
    NatsStore::connect(
        NatsOptions::new([server.url()]).manage_buckets(ManageBuckets::Upgrade),
        soon(),
    )
    .expect("a connection")
}

fn ready(server: &Server) -> NatsStore {
    let store = connect(server);
    store.ensure(BUCKET, FOR_EVER, soon()).expect("a bucket");
    store
}

fn put(key: &str, value: &str, expect: Expect) -> Write {
    Write {
        key: key.into(),
        value: Some(value.as_bytes().to_vec()),
        expect,
    }
}

fn delete(key: &str, expect: Expect) -> Write {
    Write {
        key: key.into(),
        value: None,
        expect,
    }
}

fn write_one(store: &NatsStore, write: Write) -> Outcome {
    store.write(BUCKET, &[write], soon()).remove(0)
}

fn done(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Done(revision) => revision,
        other => panic!("not done: {other:?}"),
    }
}

fn next(watch: &divvy::store::Watch) -> WatchEvent {
    watch
        .events
        .recv_timeout(Duration::from_secs(10))
        .expect("an event")
}

fn change(event: WatchEvent) -> Entry {
    match event {
        WatchEvent::Change(entry) => entry,
        other => panic!("not a change: {other:?}"),
    }
}

/// Runs a test body against the newest and the oldest server.
fn on_both(body: fn(&Server)) {
    for version in [NEWEST, OLDEST] {
        eprintln!("nats-server {version}");
        body(&Server::start(version));
    }
}

#[test]
fn writes_reads_and_listings_agree() {
    on_both(|server| {
        let store = ready(server);
        let first = done(write_one(
            &store,
            put("assignment.a", "1", Expect::Revision(0)),
        ));
        let second = done(write_one(
            &store,
            put("assignment.a", "2", Expect::Revision(first)),
        ));
        assert!(second > first);
        let third = done(write_one(
            &store,
            put("divvy.fence", "f", Expect::LastSequence(second)),
        ));
        let entry = store.read(BUCKET, "assignment.a", soon()).unwrap().unwrap();
        assert_eq!(
            (entry.revision, entry.value.as_slice()),
            (second, &b"2"[..])
        );
        assert_eq!(store.read(BUCKET, "assignment.b", soon()).unwrap(), None);
        let listing = store.list(BUCKET, "assignment", soon()).unwrap();
        assert_eq!(listing.last_sequence, third);
        assert_eq!(listing.entries.len(), 1);
        let age = listing.entries[0].age.expect("the server's time is known");
        assert!(age < Duration::from_secs(5), "{age:?}");
        let gone = done(write_one(
            &store,
            delete("assignment.a", Expect::Revision(second)),
        ));
        let entry = store.read(BUCKET, "assignment.a", soon()).unwrap().unwrap();
        assert_eq!((entry.operation, entry.revision), (Operation::Delete, gone));
        assert_eq!(store.list(BUCKET, "", soon()).unwrap().entries.len(), 2);
    });
}

#[test]
fn stale_condition_is_conflict_and_stores_nothing() {
    on_both(|server| {
        let store = ready(server);
        let revision = done(write_one(&store, put("k", "1", Expect::Any)));
        for expect in [
            Expect::Revision(0),
            Expect::Revision(revision + 1),
            Expect::LastSequence(revision + 7),
        ] {
            let outcome = write_one(&store, put("k", "stale", expect));
            assert_eq!(outcome, Outcome::Refused(Refusal::Conflict), "{expect:?}");
        }
        let entry = store.read(BUCKET, "k", soon()).unwrap().unwrap();
        assert_eq!(entry.revision, revision);
    });
}

#[test]
fn thousand_writes_in_flight_each_get_their_own_outcome() {
    on_both(|server| {
        let store = ready(server);
        done(write_one(&store, put("assignment.w7", "old", Expect::Any)));
        let writes: Vec<_> = (0..1_000)
            .map(|n| {
                put(
                    &format!("assignment.w{n}"),
                    &"x".repeat(430),
                    Expect::Revision(0),
                )
            })
            .collect();
        let started = Instant::now();
        let outcomes = store.write(BUCKET, &writes, soon());
        eprintln!("1000 conditional writes: {:?}", started.elapsed());
        for (n, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Outcome::Refused(Refusal::Conflict) => assert_eq!(n, 7),
                Outcome::Done(_) => assert_ne!(n, 7),
                other => panic!("write {n}: {other:?}"),
            }
        }
        let started = Instant::now();
        let listing = store.list(BUCKET, "assignment", soon()).unwrap();
        eprintln!("1000 keys listed: {:?}", started.elapsed());
        assert_eq!(listing.entries.len(), 1_000);
    });
}

#[test]
fn watch_delivers_current_state_then_every_change() {
    on_both(|server| {
        let store = ready(server);
        done(write_one(&store, put("assignment.a", "1", Expect::Any)));
        done(write_one(&store, put("other", "1", Expect::Any)));
        let watch = store.watch(BUCKET, "assignment").unwrap();
        assert_eq!(change(next(&watch)).key, "assignment.a");
        assert_eq!(next(&watch), WatchEvent::Live);
        let revision = done(write_one(&store, put("assignment.b", "2", Expect::Any)));
        let entry = change(next(&watch));
        assert_eq!(
            (entry.key.as_str(), entry.revision),
            ("assignment.b", revision)
        );
        done(write_one(&store, delete("assignment.b", Expect::Any)));
        assert_eq!(change(next(&watch)).operation, Operation::Delete);
        // An empty value is a value.
        done(write_one(&store, put("assignment.c", "", Expect::Any)));
        assert_eq!(change(next(&watch)).operation, Operation::Put);
    });
}

/// Heartbeats are pulled a few times per second, but a lease must begin when its heartbeat was
/// stored.
#[test]
fn heartbeat_event_reports_its_queue_delay() {
    // Maximum difference of the two clocks during the test.
    const DRIFT: Duration = Duration::from_millis(5);
    on_both(|server| {
        let (store, writer) = (connect(server), connect(server));
        let bucket = Bucket::Heartbeat;
        store.ensure(bucket, FOR_EVER, soon()).unwrap();
        let watch = store.watch(bucket, "heartbeat").unwrap();
        assert_eq!(next(&watch), WatchEvent::Live);
        let mut begun = Vec::new();
        let received = std::thread::scope(|scope| {
            let written = scope.spawn(|| {
                for n in 0..60 {
                    begun.push(Instant::now());
                    let beat = put(&format!("heartbeat.w-{n}"), "now", Expect::Any);
                    done(writer.write(bucket, &[beat], soon()).remove(0));
                    std::thread::sleep(Duration::from_millis(7));
                }
            });
            let received: Vec<_> = (0..60)
                .map(|_| (change(next(&watch)), Instant::now()))
                .collect();
            written.join().unwrap();
            received
        });
        let mut longest = Duration::ZERO;
        for ((entry, received), begun) in received.into_iter().zip(begun) {
            let age = entry.age.expect("it is known");
            assert!(received - age + DRIFT >= begun, "{}: {age:?}", entry.key);
            longest = longest.max(age);
        }
        assert!(longest >= Duration::from_millis(20), "{longest:?}");
    });
}

#[test]
fn batch_is_applied_completely_under_its_fence_or_not_at_all() {
    let server = Server::start(NEWEST);
    let store = ready(&server);
    let capabilities = store.capabilities(BUCKET, soon()).unwrap();
    assert_eq!(capabilities.batch_max, 1_000, "{capabilities:?}");
    // The probe has stored nothing.
    let listing = store.list(BUCKET, "", soon()).unwrap();
    assert_eq!(listing.entries, []);
    let fence = done(write_one(&store, put("divvy.fence", "1", Expect::Any)));
    assert_eq!(fence, listing.last_sequence + 1);
    let writes: Vec<_> = (0..1_000)
        .map(|n| {
            let expect = if n == 0 {
                Expect::Any
            } else {
                Expect::Revision(0)
            };
            put(&format!("assignment.w{n}"), &"x".repeat(430), expect)
        })
        .collect();
    let batch = |fence: u64| Batch {
        fence: Some(("divvy.fence".into(), fence)),
        writes: writes.clone(),
    };
    let stale = store.write_batch(BUCKET, &batch(fence + 1), soon());
    assert_eq!(stale, Outcome::Refused(Refusal::Conflict));
    assert!(
        store
            .list(BUCKET, "assignment", soon())
            .unwrap()
            .entries
            .is_empty()
    );
    let started = Instant::now();
    let last = done(store.write_batch(BUCKET, &batch(fence), soon()));
    eprintln!("fenced batch of 1000: {:?}", started.elapsed());
    assert_eq!(last, fence + 1_000);
    assert_eq!(
        store
            .list(BUCKET, "assignment", soon())
            .unwrap()
            .entries
            .len(),
        1_000
    );
    // The keys exist now, so the same batch fails by the conditions of messages 2 to n.
    let again = store.write_batch(BUCKET, &batch(fence), soon());
    assert_eq!(again, Outcome::Refused(Refusal::Conflict));
}

#[test]
fn server_without_batches_reports_it_and_stores_nothing() {
    let server = Server::start(OLDEST);
    let store = ready(&server);
    assert_eq!(store.capabilities(BUCKET, soon()).unwrap().batch_max, 0);
    let batch = Batch {
        fence: None,
        writes: vec![put("a", "1", Expect::Any), put("b", "1", Expect::Any)],
    };
    let outcome = store.write_batch(BUCKET, &batch, soon());
    assert!(
        matches!(outcome, Outcome::Refused(Refusal::Invalid(_))),
        "{outcome:?}"
    );
    assert!(store.list(BUCKET, "", soon()).unwrap().entries.is_empty());
}

fn two(key: &str) -> Batch {
    Batch {
        fence: None,
        writes: vec![
            put(&format!("{key}.1"), "1", Expect::Revision(0)),
            put(&format!("{key}.2"), "1", Expect::Revision(0)),
        ],
    }
}

#[test]
fn single_server_is_not_probed_before_each_batch() {
    let server = Server::start(NEWEST);
    let store = ready(&server);
    let calls = || {
        let jsz = server.monitoring("jsz").expect("the server answers");
        jsz["api"]["total"].as_u64().expect("a number")
    };
    done(store.write_batch(BUCKET, &two("a"), soon()));
    let before = calls();
    for key in ["b", "c", "d"] {
        done(store.write_batch(BUCKET, &two(key), soon()));
    }
    assert_eq!(calls(), before);
    // A failed batch requires a new probe.
    let again = store.write_batch(BUCKET, &two("d"), soon());
    assert_eq!(again, Outcome::Refused(Refusal::Conflict));
    done(store.write_batch(BUCKET, &two("e"), soon()));
    assert!(calls() > before);
}

#[test]
fn batch_is_rejected_completely_when_batches_were_just_disabled() {
    let server = Server::start(NEWEST);
    let store = ready(&server);
    let mut raw = RawNats::connect(server.port);
    let stream = "KV_parti-assignment";
    let info = raw.api(&format!("STREAM.INFO.{stream}"), "");
    let without_batches = |mut config: serde_json::Value| {
        config["allow_atomic"] = false.into();
        config.to_string()
    };
    let config = without_batches(info["config"].clone());
    let refused = |key: &str| {
        for _ in 0..2 {
            let outcome = store.write_batch(BUCKET, &two(key), soon());
            assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        }
        assert_eq!(store.list(BUCKET, key, soon()).unwrap().entries, []);
        store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
        done(store.write_batch(BUCKET, &two(key), soon()));
    };
    done(store.write_batch(BUCKET, &two("a"), soon()));
    let updated = raw.api(&format!("STREAM.UPDATE.{stream}"), &config);
    assert!(updated["error"].is_null(), "{updated}");
    refused("b");
    // As above, with a re-created bucket.
    raw.api(&format!("STREAM.DELETE.{stream}"), "");
    let created = raw.api(&format!("STREAM.CREATE.{stream}"), &config);
    assert!(created["error"].is_null(), "{created}");
    refused("c");
}

#[test]
fn stop_ends_threads_and_connection_and_leaves_no_consumer() {
    let server = Server::start(NEWEST);
    let store = ready(&server);
    let watch = store.watch(BUCKET, "").unwrap();
    assert_eq!(next(&watch), WatchEvent::Live);
    store.stop(soon()).unwrap();
    store.stop(soon()).unwrap();
    assert_eq!(
        store.read(BUCKET, "k", soon()).unwrap_err().code(),
        divvy::error::Code::NotRunning
    );
    assert!(watch.events.recv_timeout(Duration::from_secs(1)).is_err());
    assert_eq!(server.connections(), 0);
    let jsz = server.monitoring("jsz").unwrap();
    assert_eq!(jsz["consumers"], 0, "{jsz}");
}

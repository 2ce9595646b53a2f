//! The NATS store under every fault of a server or network: no call exceeds its deadline, no watch
//! loses a change, and everything recovers soon after the healing.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use divvy::error::Code;
use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{Bucket, Health, ManageBuckets, Outcome, Refusal, Store};

use crate::support::fault_list;
use crate::support::faults::{
    BUCKET, CALL_TIMEOUT, FOR_EVER, OVERRUN_MAX, Reader, connect, put, soon,
};
use crate::support::nats_binary::{NEWEST, OLDEST};
use crate::support::nats_server::Server;
use crate::support::proxy::{Proxy, Way};
use crate::support::raw_nats::RawNats;

#[test]
fn killed_server_loses_no_acknowledged_write_and_no_event() {
    for version in [NEWEST, OLDEST] {
        fault_list::killed(Duration::from_secs(1)).run(version);
    }
}

#[test]
fn terminated_server_loses_no_event() {
    fault_list::terminated().run(NEWEST);
}

#[test]
fn server_hanging_10_s_blocks_no_call_and_loses_no_event() {
    fault_list::paused().run(NEWEST);
}

#[test]
fn connection_cut_of_6_s_loses_no_event() {
    fault_list::cut(Duration::from_secs(6)).run(NEWEST);
}

#[test]
fn connection_cut_inside_message_loses_no_event() {
    fault_list::truncated().run(NEWEST);
}

#[test]
fn half_closed_connection_loses_no_event() {
    fault_list::half_closed().run(NEWEST);
}

#[test]
fn black_hole_of_6_s_loses_no_event() {
    fault_list::black_hole(Duration::from_secs(6)).run(NEWEST);
}

#[test]
fn one_way_black_hole_loses_no_event() {
    for way in [Way::ToServer, Way::ToClient] {
        fault_list::one_way_hole(way, Duration::from_secs(5)).run(NEWEST);
    }
}

#[test]
fn latency_of_300_ms_is_no_fault() {
    let server = Server::start(NEWEST);
    let proxy = Proxy::start(server.port);
    let store = connect(&proxy.url());
    store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
    proxy.delay(Duration::from_millis(300));
    let health = store.health_events();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        let outcome = store.write(BUCKET, &[put("k", "v")], soon()).remove(0);
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }
    assert_eq!(health.try_iter().collect::<Vec<_>>(), [Health::Connected]);
}

#[test]
fn deleted_consumer_loses_no_event() {
    fault_list::consumers_deleted().run(NEWEST);
}

#[test]
fn recreated_bucket_is_detected_and_watched_again() {
    let row = fault_list::created_again().run(NEWEST);
    assert!(!row.disconnects.is_empty());
}

#[test]
fn memory_bucket_lost_in_server_restart_is_detected_and_rewatched() {
    let row = fault_list::memory_lost().run(NEWEST);
    assert!(!row.disconnects.is_empty());
}

#[cfg(feature = "metrics")]
mod observed {
    //! A few of the faults of `make faults`: what an operator sees.

    use super::*;
    use crate::observer;

    #[test]
    fn short_fault_logs_only_documented_lines_and_recovers() {
        let second = Duration::from_secs(1);
        let faults = [fault_list::cut(second), fault_list::killed(second)];
        thread::scope(|scope| {
            for fault in &faults {
                scope.spawn(|| {
                    let (row, sight) = observer::observe(fault, NEWEST);
                    row.check();
                    let nothing = observer::Quiet::default();
                    println!("{}", sight.row(&nothing));
                    sight.check(&nothing);
                    assert!(sight.has_warned(), "{}", fault.name);
                });
            }
        });
    }
}

#[test]
fn malformed_headers_and_keys_cost_no_connection_and_hide_no_other_change() {
    let server = Server::start(NEWEST);
    let store = connect(&server.url());
    for bucket in [BUCKET, Bucket::Heartbeat] {
        store.ensure(bucket, FOR_EVER, soon()).unwrap();
    }
    let health = store.health_events();
    // One bucket is watched by push, the other by pull.
    let buckets = [
        (BUCKET, "parti-assignment"),
        (Bucket::Heartbeat, "parti-heartbeat"),
    ];
    for (bucket, name) in buckets {
        let watch = store.watch(bucket, "watched").unwrap();
        let mut reader = Reader::default();
        assert!(reader.until_live(&watch, Duration::from_secs(10)));
        let mut raw = RawNats::connect(server.port);
        let subject = |key: &[u8]| [format!("$KV.{name}.").as_bytes(), key].concat();
        let malformed: [(&[u8], &[u8]); 3] = [
            (b"watched.headers", b"NATS/1.0\r\nno colon in here\r\n\r\n"),
            (b"watched.bytes", b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n"),
            (b"watched.\xff\xfe", b""),
        ];
        for (key, headers) in malformed {
            let ack = raw.store(&subject(key), headers, b"malformed");
            assert!(ack["seq"].is_u64(), "{ack}");
        }
        let outcome = store
            .write(bucket, &[put("watched.fine", "v")], soon())
            .remove(0);
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        while !reader.live.contains_key("watched.fine") {
            reader.take(watch.events.recv_timeout(Duration::from_secs(10)).unwrap());
        }
        let keys: Vec<_> = reader.live.keys().map(String::as_str).collect();
        assert_eq!(keys, ["watched.bytes", "watched.fine", "watched.headers"]);
        assert!(reader.disconnects.is_empty(), "{:?}", reader.disconnects);
        // A new watch lists them.
        let another = store.watch(bucket, "watched").unwrap();
        let mut reader = Reader::default();
        assert!(reader.until_live(&another, Duration::from_secs(10)));
        assert!(reader.live.contains_key("watched.fine") && reader.disconnects.is_empty());
    }
    assert_eq!(health.try_iter().collect::<Vec<_>>(), [Health::Connected]);
}

#[test]
fn silent_server_is_skipped() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = format!("nats://{}", mute.local_addr().unwrap());
    let server = Server::start(NEWEST);
    for _ in 0..4 {
        let options = NatsOptions::new([mute.clone(), server.url()])
            .connect_timeout(Duration::from_millis(300));
        NatsStore::connect(options, soon()).unwrap();
    }
    let options = NatsOptions::new([mute]).connect_timeout(Duration::from_millis(100));
    let started = Instant::now();
    let error = NatsStore::connect(options, started + Duration::from_secs(1)).unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.to_string().contains("greet"), "{error}");
    assert!(started.elapsed() < Duration::from_millis(1_500));
}

/// The versions of all servers decide about an upgrade. A worker ensures its buckets and then reads, with
/// one deadline for both.
#[test]
fn silent_server_leaves_time_for_the_rest_of_an_operation() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = format!("nats://{}", mute.local_addr().unwrap());
    let server = Server::start(NEWEST);
    let options = NatsOptions::new([mute, server.url()])
        .connect_timeout(Duration::from_millis(300))
        .manage_buckets(ManageBuckets::Upgrade);
    let store = NatsStore::connect(options, soon()).unwrap();
    for _ in 0..2 {
        let deadline = Instant::now() + Duration::from_secs(2);
        store.ensure(BUCKET, FOR_EVER, deadline).unwrap();
        assert_eq!(store.read(BUCKET, "none", deadline).unwrap(), None);
    }
}

#[test]
fn stop_and_drop_meet_deadline_while_server_hangs_and_leave_nothing() {
    let server = Server::start(NEWEST);
    let store = connect(&server.url());
    store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
    let watch = store.watch(BUCKET, "").unwrap();
    assert!(Reader::default().until_live(&watch, Duration::from_secs(10)));
    let dropped = connect(&server.url());
    server.pause();
    // Fills the socket and the output buffer, so that some messages are never sent.
    let flood: Vec<_> = (0..40)
        .map(|n| put(&format!("k{n}"), &"x".repeat(500_000)))
        .collect();
    let started = Instant::now();
    let outcomes = store.write(BUCKET, &flood, started + CALL_TIMEOUT);
    assert!(
        started.elapsed() < CALL_TIMEOUT + OVERRUN_MAX,
        "{:?}",
        started.elapsed()
    );
    assert!(outcomes.iter().any(|o| matches!(o, Outcome::Unknown(_))));
    assert!(
        outcomes.iter().any(|o| matches!(o, Outcome::Refused(_))),
        "not all were sent"
    );
    let started = Instant::now();
    store
        .stop(started + Duration::from_secs(2))
        .expect("our threads end");
    drop(dropped);
    let took = started.elapsed();
    println!("stop and drop with a hung server: {took:?}");
    assert!(took < Duration::from_secs(2));
    server.resume();
    let deadline = soon();
    while server.connections() > 0 {
        assert!(
            Instant::now() < deadline,
            "{} connections stay",
            server.connections()
        );
        thread::sleep(Duration::from_millis(20));
    }
    println!("closed {:?} after the healing", started.elapsed() - took);
}

#[test]
fn hundred_store_starts_and_stops_do_not_leak() {
    let server = Server::start(NEWEST);
    let cycle = || {
        let store = connect(&server.url());
        store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
        let watch = store.watch(BUCKET, "").unwrap();
        assert!(Reader::default().until_live(&watch, Duration::from_secs(10)));
        store.stop(soon()).unwrap();
    };
    cycle();
    for _ in 0..100 {
        cycle();
    }
    // Other tests of this process have their own connections, so query the server.
    assert_eq!(server.connections(), 0);
    // The server removes the last watch's consumer after its connection has ended.
    let deadline = soon();
    loop {
        let jsz = server.monitoring("jsz").unwrap();
        if jsz["consumers"] == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{jsz}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn disabled_jetstream_is_unavailable_until_enabled_again() {
    let server = Server::start(NEWEST);
    let store = connect(&server.url());
    store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
    let watch = store.watch(BUCKET, "watched").unwrap();
    let mut reader = Reader::default();
    assert!(reader.until_live(&watch, Duration::from_secs(10)));
    let write = || {
        let deadline = Instant::now() + CALL_TIMEOUT;
        store
            .write(BUCKET, &[put("watched.k", "v")], deadline)
            .remove(0)
    };
    let until = |what: &str, wanted: fn(&Outcome) -> bool| {
        let deadline = soon();
        loop {
            let outcome = write();
            if wanted(&outcome) {
                return;
            }
            assert!(Instant::now() < deadline, "never {what}: {outcome:?}");
            thread::sleep(Duration::from_millis(20));
        }
    };
    server.reload(|config| config.replace("jetstream {", "jetstream { enabled: false, "));
    until("unavailable", |outcome| {
        matches!(outcome, Outcome::Refused(Refusal::Unavailable(_)))
    });
    // The server does not answer API requests; the calls must end nevertheless.
    let error = store
        .read(BUCKET, "watched.k", Instant::now() + CALL_TIMEOUT)
        .unwrap_err();
    assert!(
        matches!(error.code(), Code::Unavailable | Code::TimedOut),
        "{error}"
    );
    server.reload(|config| config.replace("enabled: false, ", ""));
    until("done", |outcome| matches!(outcome, Outcome::Done(_)));
    reader.catch_up(&watch, &store);
}

#[test]
fn bucket_deleted_during_publication_leaves_no_write_undecided_for_long() {
    let server = Server::start(NEWEST);
    let store = connect(&server.url());
    store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
    let writes: Vec<_> = (0..2_000).map(|n| put(&format!("k{n}"), "v")).collect();
    let started = Instant::now();
    let outcomes = thread::scope(|scope| {
        let publish = scope.spawn(|| {
            let mut outcomes = Vec::new();
            for _ in 0..5 {
                let deadline = Instant::now() + CALL_TIMEOUT;
                outcomes.extend(store.write(BUCKET, &writes, deadline));
            }
            outcomes
        });
        thread::sleep(Duration::from_millis(30));
        RawNats::connect(server.port).api("STREAM.DELETE.KV_parti-assignment", "");
        publish.join().unwrap()
    });
    assert!(started.elapsed() < 5 * CALL_TIMEOUT + 5 * OVERRUN_MAX);
    let last = outcomes.last().unwrap();
    assert!(
        matches!(last, Outcome::Refused(Refusal::Unavailable(_))),
        "{last:?}"
    );
    assert!(matches!(outcomes[0], Outcome::Done(_)), "{:?}", outcomes[0]);
}

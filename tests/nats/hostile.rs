//! The NATS store against misbehaving peers and networks.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{Health, Outcome, Refusal, Store};

use crate::support::faults::{BUCKET, FOR_EVER, OVERRUN_MAX, Reader, connect, put, soon};
use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::{Cluster, Server, Setup};
use crate::support::proxy::{Proxy, Way};
use crate::support::raw_nats::RawNats;

const INFO: &str = r#"INFO {"server_id":"X","server_name":"rogue","version":"2.11.0","headers":true,"max_payload":1048576,"jetstream":true}"#;

/// A peer that accepts logins and answers the first message with `answer`.
struct Rogue {
    url: String,
    address: std::net::SocketAddr,
    is_over: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Rogue {
    fn start(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let accepted = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&accepted);
        let thread = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = serve(stream, &answer);
            }
        });
        Self {
            url: format!("nats://{address}"),
            address,
            is_over,
            accepted,
            thread: Some(thread),
        }
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.write_all(format!("{INFO}\r\n").as_bytes())?;
    let reader = BufReader::new(stream.try_clone()?);
    for line in reader.lines() {
        let line = line?;
        if line.starts_with("PING") {
            stream.write_all(b"PONG\r\n")?;
        } else if line.starts_with("PUB") || line.starts_with("HPUB") {
            stream.write_all(answer)?;
        }
    }
    Ok(())
}

#[test]
fn protocol_violation_ends_connection_with_reason_and_store_reconnects() {
    let endless = vec![b'B'; 1 << 20];
    let answers: [(&[u8], &str); 5] = [
        (
            b"MSG x 1 4294967295\r\nxxxx",
            "message of 4294967295 bytes exceeds the limit",
        ),
        (
            b"HMSG x 1 4000000 5000000\r\nxxxx",
            "headers of 4000000 bytes exceed the limit",
        ),
        (&endless, "longer than the limit"),
        (b"MSG x 1 2\r\nhello\r\n", "without its line end"),
        (b"GET / HTTP/1.1\r\n", "not a NATS protocol line"),
    ];
    for (answer, words) in answers {
        let rogue = Rogue::start(answer.to_vec());
        let store = NatsStore::connect(NatsOptions::new([&rogue.url]), soon()).unwrap();
        let health = store.health_events();
        let outcome = store.write(BUCKET, &[put("k", "v")], soon()).remove(0);
        let Outcome::Unknown(why) = outcome else {
            panic!("{outcome:?}");
        };
        assert!(why.contains(words), "{why}");
        assert!(why.contains(&rogue.address.to_string()), "{why}");
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.push(health.recv_timeout(Duration::from_secs(10)).unwrap());
        }
        assert_eq!(
            (&seen[0], &seen[2]),
            (&Health::Connected, &Health::Connected)
        );
        store.stop(soon()).unwrap();
    }
}

#[test]
fn connect_makes_one_tcp_connection() {
    let rogue = Rogue::start(Vec::new());
    let store = NatsStore::connect(NatsOptions::new([&rogue.url]), soon()).unwrap();
    store.stop(soon()).unwrap();
    assert_eq!(rogue.accepted.load(Ordering::SeqCst), 1);
}

#[test]
fn flood_of_server_errors_leaves_connection_working() {
    let errors = b"-ERR 'something is wrong'\r\n".repeat(100_000);
    let rogue = Rogue::start(errors);
    let store = NatsStore::connect(NatsOptions::new([&rogue.url]), soon()).unwrap();
    let deadline = Instant::now() + Duration::from_millis(500);
    let outcome = store.write(BUCKET, &[put("k", "v")], deadline).remove(0);
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    assert_eq!(store.health(), Health::Connected);
    store.stop(soon()).unwrap();
}

#[test]
fn burst_of_a_million_messages_leaves_store_stoppable() {
    let burst = b"MSG _INBOX.x.1 1 5\r\nhello\r\n".repeat(1_000_000);
    let rogue = Rogue::start(burst);
    let store = NatsStore::connect(NatsOptions::new([&rogue.url]), soon()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(1);
    store.write(BUCKET, &[put("k", "v")], deadline);
    store.stop(soon()).unwrap();
}

/// The peer keeps the connection and reads nothing, so that its receive window closes.
#[test]
fn zero_window_ends_connection_within_stale_limit_and_holds_up_no_call() {
    let server = Server::start(NEWEST);
    let proxy = Proxy::start(server.port);
    let limit = Duration::from_secs(1);
    let options = NatsOptions::new([proxy.url()]).stale_limit(limit);
    let store = NatsStore::connect(options, soon()).unwrap();
    store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
    let health = store.health_events();
    assert_eq!(health.recv(), Ok(Health::Connected));
    proxy.hold(Way::ToServer);
    let held = Instant::now();
    // More than the buffers of all sockets in between take.
    let large = "x".repeat(900_000);
    let writes: Vec<_> = (0..64).map(|n| put(&format!("k{n}"), &large)).collect();
    let deadline = held + Duration::from_millis(500);
    let outcomes = store.write(BUCKET, &writes, deadline);
    assert!(Instant::now() < deadline + OVERRUN_MAX);
    let is_open = |outcome: &Outcome| matches!(outcome, Outcome::Unknown(_));
    assert!(is_open(&outcomes[0]) && !outcomes.iter().any(|o| matches!(o, Outcome::Done(_))));
    assert!(
        !is_open(&outcomes[63]),
        "the socket took all: the window never closed"
    );
    let lost = health.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(matches!(lost, Health::Degraded(_)), "{lost:?}");
    assert!(held.elapsed() < limit + OVERRUN_MAX, "{:?}", held.elapsed());
    proxy.heal();
    let outcomes = loop {
        let outcomes = store.write(BUCKET, &[put("k", "v")], soon());
        if !matches!(outcomes[0], Outcome::Refused(Refusal::Unavailable(_))) {
            break outcomes;
        }
        health.recv_timeout(Duration::from_secs(10)).unwrap();
    };
    assert!(matches!(outcomes[0], Outcome::Done(_)), "{outcomes:?}");
    store.stop(soon()).unwrap();
}

#[test]
fn one_byte_segments_are_read_correctly() {
    let server = Server::start(NEWEST);
    let proxy = Proxy::start(server.port);
    proxy.single_bytes();
    let store = connect(&proxy.url());
    store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
    let writes: Vec<_> = (0..50).map(|n| put(&format!("k{n}"), "v")).collect();
    let outcomes = store.write(BUCKET, &writes, soon());
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Done(_)))
    );
    let watch = store.watch(BUCKET, "").unwrap();
    let mut reader = Reader::default();
    assert!(reader.until_live(&watch, Duration::from_secs(10)));
    assert_eq!((reader.live.len(), reader.disconnects.len()), (50, 0));
}

#[test]
fn value_at_server_limit_is_stored_and_larger_one_is_refused() {
    let server = Setup::new(NEWEST).config("max_payload: 8000000").start();
    let store = connect(&server.url());
    store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
    let limit = store.capabilities(BUCKET, soon()).unwrap().value_max;
    assert!(limit > 7_000_000, "{limit}");
    let largest = "x".repeat(limit);
    let outcomes = store.write(BUCKET, &[put("largest", &largest)], soon());
    assert!(matches!(outcomes[0], Outcome::Done(_)), "{outcomes:?}");
    let read = store.read(BUCKET, "largest", soon()).unwrap().unwrap();
    assert!(read.value == largest.as_bytes());
    let outcomes = store.write(BUCKET, &[put("larger", &"x".repeat(limit + 1))], soon());
    assert!(matches!(outcomes[0], Outcome::Refused(_)));
    assert_eq!(store.health(), Health::Connected);
}

#[test]
fn lame_duck_server_is_left_without_unknown_writes() {
    let cluster = Cluster::start(NEWEST);
    cluster.wait_healthy();
    let first = connect(&cluster.nodes[0].url());
    first.ensure(BUCKET, FOR_EVER, soon()).unwrap();
    first.stop(soon()).unwrap();
    // The server in lame duck mode does not store the bucket; otherwise acknowledgements would be
    // lost.
    let info = RawNats::connect(cluster.nodes[0].port).api("STREAM.INFO.KV_parti-assignment", "");
    let stores = |node: &Server| {
        node.monitoring("varz").expect("a server that answers")["server_name"]
            == info["cluster"]["leader"]
    };
    let (leaving, others): (Vec<_>, Vec<_>) = {
        let index = cluster.nodes.iter().position(|node| !stores(node)).unwrap();
        let nodes = cluster.nodes.iter().enumerate();
        nodes.partition(|(n, _)| *n == index)
    };
    let leaving = leaving[0].1;
    let store = connect(&leaving.url());
    let health = store.health_events();
    // Writes continue throughout, and none may end as unknown.
    let is_over = AtomicBool::new(false);
    let (writes, moved) = thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut outcomes = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                outcomes.extend(store.write(BUCKET, &[put("k", "v")], soon()));
            }
            outcomes
        });
        let pid = libc::pid_t::try_from(leaving.pid()).unwrap();
        // SAFETY: sends a signal to a child process that has not been waited for.
        unsafe { libc::kill(pid, libc::SIGUSR2) };
        let deadline = soon();
        let mut moved = false;
        while !moved && Instant::now() < deadline {
            moved = others.iter().any(|(_, node)| node.connections() > 0);
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_millis(800));
        is_over.store(true, Ordering::SeqCst);
        (writing.join().unwrap(), moved)
    });
    assert!(moved, "the connection did not move");
    let failed = writes
        .iter()
        .find(|outcome| !matches!(outcome, Outcome::Done(_)));
    assert_eq!(failed, None, "of {} writes", writes.len());
    assert_eq!(health.try_iter().collect::<Vec<_>>(), [Health::Connected]);
}

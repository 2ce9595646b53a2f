//! Peers that greet a client with anything but the protocol. The client runs in a process of its own,
//! so that its output, memory, threads and descriptors can be checked.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use divvy::error::Code;
use divvy::store::nats::{NatsOptions, NatsStore};

use crate::alone;
use crate::support::usage::{Usage, usage};

/// Set for the client's process: the address of the peer and the expected reason, in this form.
const PEER: &str = "DIVVY_TEST_HOSTILE_PEER";
const CLIENT: &str = "hostile_greetings::client_of_hostile_peer";
/// How long each client tries to connect.
const CONNECT_TIME: Duration = Duration::from_millis(100);

const INFO: &str = r#"{"server_id":"X","version":"2.11.0","headers":true,"max_payload":1048576"#;

/// What a peer sends, whether it repeats the last kilobytes without end, and the reason that the
/// client reports.
fn greetings() -> Vec<(Vec<u8>, bool, &'static str)> {
    let line = |text: &str| text.as_bytes().to_vec();
    let greeting = |more: &str, then: &str| format!("INFO {INFO}{more}}}\r\n{then}").into_bytes();
    let filler = |byte: u8| vec![byte; 64 * 1024];
    let nested = format!("INFO {{\"x\":{}\r\n", "[".repeat(50_000));
    vec![
        (line(""), false, "closed the connection"),
        (
            line("HTTP/1.1 400 Bad Request\r\n\r\n"),
            false,
            "does not greet like a NATS server",
        ),
        (
            line("\u{0}\u{ff}\r\n"),
            false,
            "does not greet like a NATS server",
        ),
        (line("INFO {not json}\r\n"), false, "malformed INFO"),
        (line("INFO {\"version\":7}\r\n"), false, "malformed INFO"),
        (line(&nested), false, "malformed INFO"),
        (
            [line("INFO {"), filler(b'A')].concat(),
            true,
            "longer than the limit",
        ),
        (filler(b'B'), true, "longer than the limit"),
        (line("MSG x 1 4294967295\r\n"), true, "exceeds the limit"),
        (
            line("HMSG x 1 4294967295 4294967295\r\n"),
            true,
            "exceeds the limit",
        ),
        (
            greeting("", "MSG x 1 4294967295\r\n"),
            false,
            "exceeds the limit",
        ),
        (
            [greeting("", ""), filler(b'C')].concat(),
            true,
            "longer than the limit",
        ),
        (
            greeting("", "-ERR 'maximum connections exceeded'\r\n"),
            false,
            "maximum connections exceeded",
        ),
        (
            greeting(r#","tls_required":true"#, "\u{16}\u{3}\u{3}\u{7f}\u{7f}"),
            true,
            "TLS",
        ),
        (
            greeting(r#","nonce":"\u0000","auth_required":true"#, ""),
            false,
            "closed the connection",
        ),
    ]
}

/// Accepts connections until it is dropped.
fn serve(listener: &TcpListener, is_over: &AtomicBool, greeting: &[u8], is_endless: bool) {
    while let Ok((mut stream, _)) = listener.accept() {
        if is_over.load(Ordering::SeqCst) {
            return;
        }
        let mut is_open = stream.write_all(greeting).is_ok();
        let tail = &greeting[greeting.len() - greeting.len().min(64 * 1024)..];
        while is_endless && is_open {
            is_open = stream.write_all(tail).is_ok();
        }
        // What the client sends is read, so that closing the connection does not reset it.
        stream
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let _ = stream.read(&mut [0; 4096]);
    }
}

/// Runs the client against the peer. Returns whether it succeeded and everything that it printed.
fn run_client(address: SocketAddr, reason: &str) -> (bool, String) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            CLIENT,
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(PEER, format!("{address} {reason}"))
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap();
    let printed = [child.stdout, child.stderr].concat();
    (child.status.success(), String::from_utf8(printed).unwrap())
}

#[test]
fn hostile_greeting_ends_with_named_error_prints_nothing_and_leaves_nothing() {
    let _alone = alone();
    for (greeting, is_endless, reason) in greetings() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_over = AtomicBool::new(false);
        let (is_success, printed) = thread::scope(|scope| {
            scope.spawn(|| serve(&listener, &is_over, &greeting, is_endless));
            let result = run_client(address, reason);
            is_over.store(true, Ordering::SeqCst);
            drop(TcpStream::connect(address));
            result
        });
        assert!(is_success && printed.contains("1 passed"), "{printed}");
        // The lines of the test harness.
        let rest = printed.lines().filter(|line| {
            let harness = [
                "running 1 test",
                "test hostile_greetings::",
                "test result: ok. 1 passed",
            ];
            !line.is_empty() && !harness.iter().any(|start| line.starts_with(start))
        });
        assert_eq!(rest.collect::<Vec<_>>(), [""; 0], "{reason}");
    }
}

/// Run by the test above in its own process.
#[test]
#[ignore = "needs the peer of another test, which runs it"]
fn client_of_hostile_peer() {
    let Ok(peer) = std::env::var(PEER) else {
        return;
    };
    let (address, reason) = peer.split_once(' ').unwrap();
    let connect = |address: &str| {
        let options = NatsOptions::new([format!("nats://{address}")]);
        NatsStore::connect(options, Instant::now() + CONNECT_TIME).unwrap_err()
    };
    // Creates what is created once: thread-local memory, and the stacks that glibc keeps.
    connect("127.0.0.1:1");
    let before = usage();
    let error = connect(address);
    let after = usage();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    let text = error.to_string();
    assert!(text.contains(reason) && text.contains(address), "{text}");
    let held = |usage: Usage| (usage.threads, usage.descriptors);
    assert_eq!(held(after), held(before));
    let grown = after.resident_kib.saturating_sub(before.resident_kib);
    assert!(grown < 1_024, "{grown} KiB");
}

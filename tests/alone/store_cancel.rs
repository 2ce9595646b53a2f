//! Store calls cancelled while they wait: they end immediately, report what they know, and leave
//! nothing behind.

use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use divvy::Cancel;
use divvy::error::{Code, Result};
use divvy::store::memory::{Blackout, Call, MemoryStore};
use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{Batch, Outcome, Refusal, Store};

use crate::alone;
use crate::support::faults::{BUCKET, FOR_EVER, put, soon};
use crate::support::tasks::tasks;

/// A deadline far beyond the test: only the cancellation can end the call.
fn never() -> Instant {
    Instant::now() + Duration::from_secs(3_600)
}

/// A server that reports every connection and request, and answers only PING. A deaf one does not
/// even send INFO.
struct Mute {
    url: String,
    came: Receiver<()>,
}

impl Mute {
    fn start(is_deaf: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let (came, events) = unbounded();
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                if is_deaf {
                    came.send(()).ok();
                    kept.push(stream);
                    continue;
                }
                let came = came.clone();
                std::thread::spawn(move || serve(&stream, &came));
            }
        });
        Self { url, came: events }
    }
}

fn serve(mut stream: &TcpStream, came: &Sender<()>) {
    let info = r#"INFO {"server_id":"mute","host":"::","port":1,"go":"","client_id":1,"version":"2.11.0","proto":1,"headers":true,"max_payload":1048576,"jetstream":true}"#;
    if write!(stream, "{info}\r\n").is_err() {
        return;
    }
    for line in BufReader::new(stream).lines() {
        match line.as_deref() {
            Ok("PING") => drop(write!(stream, "PONG\r\n")),
            Ok(line) if line.starts_with("PUB ") || line.starts_with("HPUB ") => {
                came.send(()).ok();
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// Makes a call and cancels it after the channel reports the expected request.
fn cancelled<R>(came: &Receiver<()>, call: impl FnOnce() -> R) -> R {
    while came.try_recv().is_ok() {}
    let cancel = Cancel::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            came.recv().unwrap();
            cancel.fire();
        });
        cancel.run(call)
    })
}

fn code<T: std::fmt::Debug>(result: Result<T>) -> Code {
    result.unwrap_err().code()
}

fn wait_for_no_thread() {
    let timeout = soon();
    while !tasks("dv-nats").is_empty() {
        assert!(Instant::now() < timeout, "a thread is left behind");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn cancelled_call_on_nats_ends_at_once_and_reports_outcome() {
    let _alone = alone();
    let deaf = Mute::start(true);
    let connect = || NatsStore::connect(NatsOptions::new([deaf.url.as_str()]), never());
    assert_eq!(code(cancelled(&deaf.came, connect)), Code::Cancelled);
    wait_for_no_thread();

    let mute = Mute::start(false);
    let store = NatsStore::connect(NatsOptions::new([mute.url.as_str()]), soon()).unwrap();
    // The writes are sent only once, so the request is theirs. They may have been stored.
    let writes = [put("a", "v"), put("b", "v")];
    let ends = cancelled(&mute.came, || store.write(BUCKET, &writes, never()));
    assert!(matches!(ends[0], Outcome::Unknown(_)), "{ends:?}");
    for (what, code) in [
        (
            "read",
            code(cancelled(&mute.came, || store.read(BUCKET, "k", never()))),
        ),
        (
            "list",
            code(cancelled(&mute.came, || store.list(BUCKET, "", never()))),
        ),
        (
            "ensure",
            code(cancelled(&mute.came, || {
                store.ensure(BUCKET, FOR_EVER, never())
            })),
        ),
        (
            "capabilities",
            code(cancelled(&mute.came, || {
                store.capabilities(BUCKET, never())
            })),
        ),
    ] {
        assert_eq!(code, Code::Cancelled, "{what}");
    }
    // Cancelled before the call: nothing is sent, and nothing was stored.
    let cancel = Cancel::new();
    cancel.fire();
    let batch = Batch {
        fence: None,
        writes: writes.to_vec(),
    };
    while mute.came.try_recv().is_ok() {}
    let mut ends = cancel.run(|| store.write(BUCKET, &writes, never()));
    ends.push(cancel.run(|| store.write_batch(BUCKET, &batch, never())));
    for end in &ends {
        let is_refused = matches!(end, Outcome::Refused(Refusal::Unavailable(_)));
        assert!(is_refused, "{ends:?}");
    }
    assert_eq!(
        code(cancel.run(|| store.read(BUCKET, "k", never()))),
        Code::Cancelled
    );
    // A store dropped meanwhile is stopped nevertheless.
    cancel.run(|| drop(store));
    wait_for_no_thread();
    assert!(mute.came.is_empty(), "something was sent");
}

#[test]
fn cancelled_call_in_memory_ends_at_once_and_reports_outcome() {
    let _alone = alone();
    let store = MemoryStore::new();
    store.ensure(BUCKET, FOR_EVER, never()).unwrap();
    let cancel = Cancel::new();
    let fire_soon = |cancel: &Cancel| {
        let cancel = cancel.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            cancel.fire();
        });
    };
    store.faults().blackout(Blackout::Hang);
    fire_soon(&cancel);
    assert_eq!(
        code(cancel.run(|| store.read(BUCKET, "k", never()))),
        Code::Cancelled
    );
    store.faults().restore();
    // It is already in flight and arrives.
    store.faults().delay(&[Call::Write], Duration::from_secs(1));
    let cancel = Cancel::new();
    fire_soon(&cancel);
    let ends = cancel.run(|| store.write(BUCKET, &[put("k", "v")], never()));
    assert!(matches!(ends[0], Outcome::Unknown(_)), "{ends:?}");
    let ends = cancel.run(|| store.write(BUCKET, &[put("other", "v")], never()));
    assert!(matches!(ends[0], Outcome::Refused(_)), "{ends:?}");
    let timeout = soon();
    while store.read(BUCKET, "k", never()).unwrap().is_none() {
        assert!(Instant::now() < timeout, "the write never arrived");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(store.read(BUCKET, "other", never()).unwrap().is_none());
}

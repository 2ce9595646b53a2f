//! The NATS store against servers with authentication: each kind of credentials, right and wrong,
//! plain and with TLS, and missing permissions.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use divvy::error::Code;
use divvy::store::nats::{NatsCredentials, NatsOptions, NatsStore, Placement};
use divvy::store::{
    Bucket, BucketConfig, Expect, Health, Outcome, Refusal, Store, WatchEvent, Write,
};
use nkeys::KeyPair;

use crate::support::nats_binary::{NEWEST, OLDEST};
use crate::support::nats_server::{Server, Setup};
use crate::support::operator::{operator_config, user_jwt};
use crate::support::raw_nats::RawNats;

const BUCKET: Bucket = Bucket::Assignment;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn put(key: &str) -> Write {
    Write {
        key: key.into(),
        value: Some(b"v".to_vec()),
        expect: Expect::Any,
    }
}

/// Uses the store: bucket, write, read, watch.
fn prove(options: NatsOptions) {
    let store = NatsStore::connect(options, soon()).expect("a connection");
    store
        .ensure(BUCKET, BucketConfig { ttl: None }, soon())
        .unwrap();
    let outcome = store.write(BUCKET, &[put("k")], soon()).remove(0);
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    assert_eq!(
        store.read(BUCKET, "k", soon()).unwrap().unwrap().value,
        b"v"
    );
    let watch = store.watch(BUCKET, "").unwrap();
    let event = watch.events.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(matches!(event, WatchEvent::Change(_)), "{event:?}");
    store.stop(soon()).unwrap();
}

/// Checks that connecting fails immediately, with the right code, and that the error contains no
/// secret.
fn refused(options: NatsOptions, secret: &str) {
    let started = Instant::now();
    let error = NatsStore::connect(options, soon()).expect_err("wrong credentials");
    assert_eq!(error.code(), Code::Unauthorized, "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    assert!(!error.to_string().contains(secret), "{error}");
}

fn on_both(config: &str, body: impl Fn(&Server)) {
    for version in [NEWEST, OLDEST] {
        body(&Setup::new(version).config(config).start());
    }
}

#[test]
fn user_and_password_connect() {
    on_both("authorization { user: joe, password: s3cret }", |server| {
        let options = || NatsOptions::new([server.url()]);
        prove(options().user_password("joe", "s3cret"));
        refused(options().user_password("joe", "wr0ng"), "wr0ng");
        refused(options(), "s3cret");
        let url = format!("nats://joe:s3cret@127.0.0.1:{}", server.port);
        prove(NatsOptions::new([url]));
    });
}

#[test]
fn token_connects() {
    on_both("authorization { token: s3cret }", |server| {
        let options = || NatsOptions::new([server.url()]);
        prove(options().token("s3cret"));
        refused(options().token("wr0ng"), "wr0ng");
    });
}

#[test]
fn nkey_connects() {
    let user = KeyPair::new_user();
    let seed = user.seed().unwrap();
    let config = format!(
        "authorization {{ users: [{{ nkey: {} }}] }}",
        user.public_key()
    );
    on_both(&config, |server| {
        let options = || NatsOptions::new([server.url()]);
        prove(options().nkey_seed(&seed));
        let other = KeyPair::new_user().seed().unwrap();
        refused(options().nkey_seed(&other), &other);
    });
}

fn credentials(account: &KeyPair) -> tempfile::NamedTempFile {
    let user = KeyPair::new_user();
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user_jwt(account, &user),
        user.seed().unwrap()
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn credentials_file_connects() {
    let (config, account) = operator_config();
    on_both(&config, |server| {
        let options = || NatsOptions::new([server.url()]);
        let file = credentials(&account);
        prove(options().credentials_file(file.path()));
        let foreign = credentials(&KeyPair::new_account());
        refused(options().credentials_file(foreign.path()), "SU");
    });
}

fn pem(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/support/tls")
        .join(name)
}

fn tls_config(verify: bool) -> String {
    tls_config_of("server", &format!("verify: {verify}"))
}

fn tls_config_of(certificate: &str, more: &str) -> String {
    format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", {more} }}",
        pem(&format!("{certificate}.pem")).display(),
        pem(&format!("{certificate}.key")).display(),
        pem("ca.pem").display()
    )
}

#[test]
fn tls_with_private_authority() {
    on_both(&tls_config(false), |server| {
        let options = || NatsOptions::new([server.url()]);
        prove(options().tls_ca(pem("ca.pem")));
        prove(options().tls_ca(pem("ca.pem")).tls_required(true));
        prove(NatsOptions::new([format!("tls://localhost:{}", server.port)]).tls_ca(pem("ca.pem")));
        refused(options().tls_ca(pem("other.pem")), "nothing");
    });
}

#[test]
fn client_certificate_connects() {
    on_both(&tls_config(true), |server| {
        let options = || NatsOptions::new([server.url()]).tls_ca(pem("ca.pem"));
        prove(options().tls_identity(pem("client.pem"), pem("client.key")));
        refused(options(), "nothing");
    });
}

#[test]
fn tls_replies_are_read_without_delay() {
    on_both(&tls_config(false), |server| {
        let options = NatsOptions::new([server.url()]).tls_ca(pem("ca.pem"));
        let store = NatsStore::connect(options, soon()).unwrap();
        store
            .ensure(BUCKET, BucketConfig { ttl: None }, soon())
            .unwrap();
        let mut slowest = Duration::ZERO;
        let started = Instant::now();
        for n in 0..3_000 {
            let before = Instant::now();
            let outcome = store
                .write(BUCKET, &[put(&format!("k{n}"))], soon())
                .remove(0);
            assert!(matches!(outcome, Outcome::Done(_)), "{n}: {outcome:?}");
            slowest = slowest.max(before.elapsed());
        }
        println!(
            "3000 writes by TLS: {:?}, slowest {slowest:?}",
            started.elapsed()
        );
        assert!(slowest < Duration::from_millis(400), "{slowest:?}");
    });
}

/// Returns the error of a failed connect.
fn failure(options: NatsOptions) -> divvy::error::Error {
    NatsStore::connect(options, soon()).expect_err("a failure")
}

#[test]
fn tls_first_server_is_reached_by_setting_and_by_detection() {
    let config = tls_config_of("server", "handshake_first: true");
    let server = Setup::new(NEWEST).config(&config).start();
    let options = || NatsOptions::new([server.url()]);
    prove(options().tls_ca(pem("ca.pem")).tls_first(true));
    prove(options().tls_ca(pem("ca.pem")));
    // If TLS is not required, there is nothing to detect.
    let plain = options().connect_timeout(Duration::from_millis(300));
    let error = NatsStore::connect(plain, Instant::now() + Duration::from_secs(1)).unwrap_err();
    assert!(error.to_string().contains("nats_tls_first"), "{error}");
}

#[test]
fn connect_with_tls_makes_one_tcp_connection() {
    for (more, is_first) in [("timeout: 2", false), ("handshake_first: true", true)] {
        let config = tls_config_of("server", more);
        let server = Setup::new(NEWEST).config(&config).start();
        let total = || server.monitoring("varz").unwrap()["total_connections"].as_u64();
        let before = total().unwrap();
        prove(
            NatsOptions::new([server.url()])
                .tls_ca(pem("ca.pem"))
                .tls_first(is_first),
        );
        assert_eq!(total().unwrap() - before, 1, "{more}");
    }
}

#[test]
fn expired_and_foreign_server_certificates_are_rejected_with_reason() {
    for (certificate, words) in [("expired", "expired"), ("elsewhere", "not valid for name")] {
        let config = tls_config_of(certificate, "timeout: 2");
        let server = Setup::new(NEWEST).config(&config).start();
        let error = failure(NatsOptions::new([server.url()]).tls_ca(pem("ca.pem")));
        assert_eq!(error.code(), Code::Unauthorized, "{error}");
        let text = error.to_string();
        assert!(
            text.contains(words) && text.contains(&server.port.to_string()),
            "{text}"
        );
    }
}

#[test]
fn client_certificate_authenticates_with_verify_and_map() {
    let config = format!(
        "{}\nauthorization {{ users: [{{ user: \"divvy-client\" }}] }}",
        tls_config_of("server", "verify_and_map: true")
    );
    on_both(&config, |server| {
        let options = || NatsOptions::new([server.url()]).tls_ca(pem("ca.pem"));
        prove(options().tls_identity(pem("client.pem"), pem("client.key")));
        refused(
            options().tls_identity(pem("stranger.pem"), pem("stranger.key")),
            "nothing",
        );
        let wrong = options().tls_identity(pem("client.pem"), pem("server.key"));
        let error = failure(wrong);
        assert_eq!(error.code(), Code::InvalidConfig, "{error}");
        assert!(error.to_string().contains("server.key"), "{error}");
    });
}

/// Listens like a server without TLS, and counts the bytes that clients send.
fn without_tls(body: impl FnOnce(String)) -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let received = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&received);
    let server = thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let greeting = br#"INFO {"server_id":"X","version":"2.11.0","headers":true,"max_payload":1048576}"#;
            let _ = stream
                .write_all(greeting)
                .and_then(|()| stream.write_all(b"\r\n"));
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            if bytes == b"end" {
                return;
            }
            counter.fetch_add(bytes.len(), Ordering::SeqCst);
        }
    });
    body(format!("nats://joe:s3cret@{address}"));
    std::net::TcpStream::connect(address)
        .unwrap()
        .write_all(b"end")
        .unwrap();
    server.join().unwrap();
    received.load(Ordering::SeqCst)
}

#[test]
fn server_without_tls_receives_nothing_where_tls_is_required() {
    let received = without_tls(|url| {
        let options = || NatsOptions::new([url.clone()]);
        for options in [
            options().tls_required(true),
            options().tls_ca(pem("ca.pem")),
            options().tls_identity(pem("client.pem"), pem("client.key")),
            NatsOptions::new([url.replace("nats://", "tls://")]),
        ] {
            let error = failure(options);
            assert_eq!(error.code(), Code::Unsupported, "{error}");
            assert!(error.to_string().contains("TLS"), "{error}");
        }
    });
    assert_eq!(received, 0);
}

#[test]
fn credentials_in_a_url_are_percent_decoded() {
    let config = "authorization { users: [ { user: fleet, password: \"p@ss#1/x%2\" }, \
                  { user: \"dom\\\\svc\", password: simple } ] }";
    let server = Setup::new(NEWEST).config(config).start();
    for login in [
        "fleet:p%40ss%231%2Fx%252",
        "fleet:p@ss#1/x%2",
        "dom%5Csvc:simple",
    ] {
        prove(NatsOptions::new([format!(
            "nats://{login}@127.0.0.1:{}",
            server.port
        )]));
    }
}

#[test]
fn inbox_prefix_works_with_restricted_account() {
    let config = "authorization { users: [ { user: app, password: p, permissions: { \
        publish: [ \"$JS.API.>\", \"$KV.>\", \"$JS.FC.>\", \"$JS.ACK.>\" ], \
        subscribe: [ \"_INBOX_app.>\" ] } } ] }";
    on_both(config, |server| {
        let options = || NatsOptions::new([server.url()]).user_password("app", "p");
        prove(options().inbox_prefix("_INBOX_app"));
        let error = failure(options());
        assert_eq!(error.code(), Code::Unauthorized, "{error}");
        assert!(error.to_string().contains("nats_inbox_prefix"), "{error}");
    });
}

#[test]
fn credentials_file_is_read_at_each_connect() {
    let (config, account) = operator_config();
    let mut server = Setup::new(NEWEST).config(&config).start();
    let (good, foreign) = (credentials(&account), credentials(&KeyPair::new_account()));
    let options = NatsOptions::new([server.url()]).credentials_file(good.path());
    let store = NatsStore::connect(options, soon()).unwrap();
    let contents = std::fs::read(good.path()).unwrap();
    std::fs::copy(foreign.path(), good.path()).unwrap();
    server.kill();
    server.restart();
    let deadline = soon();
    loop {
        match store.health() {
            Health::Degraded(why) if why.contains("Authorization") => break,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
    std::fs::write(good.path(), contents).unwrap();
    while store.health() != Health::Connected {
        assert!(Instant::now() < deadline, "{:?}", store.health());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn credentials_callback_supplies_token_or_jwt_at_each_connect() {
    let (config, account) = operator_config();
    let server = Setup::new(NEWEST).config(&config).start();
    let user = KeyPair::new_user();
    let text = user_jwt(&account, &user);
    let options = NatsOptions::new([server.url()]).credentials_callback(move |nonce| {
        let signature = user.sign(nonce).map_err(|error| error.to_string())?;
        Ok(NatsCredentials::Jwt {
            jwt: text.clone(),
            signature,
        })
    });
    prove(options);
    let server = Setup::new(NEWEST)
        .config("authorization { token: s3cret }")
        .start();
    let options = |token: &'static str| {
        let options = NatsOptions::new([server.url()]);
        options.credentials_callback(move |_| Ok(NatsCredentials::Token(token.to_owned())))
    };
    prove(options("s3cret"));
    refused(options("wr0ng"), "wr0ng");
    let sealed = NatsOptions::new([server.url()]);
    let error = failure(sealed.credentials_callback(|_| Err("vault is sealed".to_owned())));
    assert!(error.to_string().contains("vault is sealed"), "{error}");
}

#[test]
fn stop_names_the_thread_of_a_hanging_credentials_callback_and_does_not_hang() {
    let server = Setup::new(NEWEST)
        .config("authorization { token: s3cret }")
        .start();
    let (entered, has_entered) = crossbeam_channel::bounded(1);
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let own: Arc<OnceLock<Arc<NatsStore>>> = Arc::default();
    let inside = Arc::clone(&own);
    let refused = Arc::new(OnceLock::new());
    let noted = Arc::clone(&refused);
    let options = NatsOptions::new([server.url()]).credentials_callback(move |_| {
        entered.send(()).unwrap();
        let _ = released.recv();
        let store = inside.get().expect("the store is open");
        noted.set(store.stop(soon()).unwrap_err().code()).unwrap();
        Ok(NatsCredentials::Token("s3cret".to_owned()))
    });
    let store = Arc::new(NatsStore::open(options).unwrap());
    own.set(Arc::clone(&store)).ok().unwrap();
    has_entered.recv_timeout(Duration::from_secs(10)).unwrap();
    for _ in 0..2 {
        let began = Instant::now();
        let error = store.stop(began + Duration::from_millis(50)).unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(error.code(), Code::TimedOut);
        let text = error.to_string();
        assert!(
            text.contains("dv-nats-io") && text.contains("credentials callback"),
            "{text}"
        );
    }
    drop(release);
    store.stop(soon()).unwrap();
    assert_eq!(refused.get(), Some(&Code::WouldDeadlock));
}

#[test]
fn server_reason_is_kept_in_connect_error() {
    let server = Setup::new(NEWEST).config("max_connections: 1").start();
    let first = NatsStore::connect(NatsOptions::new([server.url()]), soon()).unwrap();
    let deadline = Instant::now() + Duration::from_millis(300);
    let error = NatsStore::connect(NatsOptions::new([server.url()]), deadline).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("maximum connections exceeded"), "{text}");
    assert!(text.contains(&server.port.to_string()), "{text}");
    first.stop(soon()).unwrap();
}

#[test]
fn created_buckets_have_configured_size_limit_and_placement() {
    let config = "server_tags: [\"region:eu\"]\naccounts { A: { jetstream: { max_store: 100MB, \
                  max_bytes_required: true, max_mem: 10MB, max_streams: 10, max_consumers: 50 }, \
                  users: [ {user: app, password: p} ] } }\nno_auth_user: app";
    let server = Setup::new(NEWEST).config(config).start();
    let ensure = |options: NatsOptions| {
        let store = NatsStore::connect(options, soon()).unwrap();
        store.ensure(BUCKET, BucketConfig { ttl: None }, soon())
    };
    let options = || NatsOptions::new([server.url()]);
    let error = ensure(options()).unwrap_err();
    assert!(error.to_string().contains("max bytes"), "{error}");
    let placement = Placement {
        cluster: String::new(),
        tags: vec!["region:eu".into()],
    };
    let wanted = options().max_bytes(1 << 20).placement(placement);
    ensure(wanted).unwrap();
    let info = RawNats::connect(server.port).api("STREAM.INFO.KV_parti-assignment", "");
    assert_eq!(info["config"]["max_bytes"], 1 << 20, "{info}");
    assert_eq!(
        info["config"]["placement"]["tags"][0], "region:eu",
        "{info}"
    );
}

#[test]
fn missing_permission_is_reported_at_once_not_by_timeout() {
    let config = "authorization { users: [\
        { user: all, password: p }, \
        { user: reader, password: p, permissions: { \
            publish: { deny: [\"$KV.>\", \"$JS.API.STREAM.CREATE.>\", \"$JS.API.STREAM.UPDATE.>\"] } } }, \
        { user: deaf, password: p, permissions: { subscribe: { deny: [\"_INBOX.>\"] } } } ] }";
    let server = Setup::new(NEWEST).config(config).start();
    let options = |user: &str| NatsOptions::new([server.url()]).user_password(user, "p");
    let all = NatsStore::connect(options("all"), soon()).unwrap();
    all.ensure(BUCKET, BucketConfig { ttl: None }, soon())
        .unwrap();
    let reader = NatsStore::connect(options("reader"), soon()).unwrap();
    let started = Instant::now();
    // The bucket exists, so the missing permission to create it does not matter.
    reader
        .ensure(BUCKET, BucketConfig { ttl: None }, soon())
        .unwrap();
    let missing = reader.ensure(Bucket::Election, BucketConfig { ttl: None }, soon());
    assert_eq!(missing.unwrap_err().code(), Code::Unauthorized);
    let outcomes = reader.write(BUCKET, &[put("a"), put("b")], soon());
    for outcome in outcomes {
        assert!(
            matches!(outcome, Outcome::Refused(Refusal::Unauthorized(_))),
            "{outcome:?}"
        );
    }
    assert_eq!(reader.read(BUCKET, "a", soon()).unwrap(), None);
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    refused(options("deaf"), "nothing");
}

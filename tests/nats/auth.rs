//! The NATS store against servers that want to know who it is: each kind of credentials, right
//! and wrong, plain and by TLS, and permissions that are missing.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use divvy::error::Code;
use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::store::{Bucket, BucketConfig, Expect, Outcome, Refusal, Store, WatchEvent, Write};
use nkeys::KeyPair;

use crate::support::nats_binary::{NEWEST, OLDEST};
use crate::support::nats_server::{Server, Setup};

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

/// Works with the store: bucket, write, read, watch.
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

/// Fails at once, with the right code, and gives no secret away.
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

/// A JWT as NATS has it: claims signed by the issuer's key.
fn jwt(issuer: &KeyPair, subject: &KeyPair, name: &str, nats: serde_json::Value) -> String {
    let header = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;
    let claims = serde_json::json!({
        "jti": format!("{name}-{}", subject.public_key()),
        "iat": 1_700_000_000,
        "iss": issuer.public_key(),
        "name": name,
        "sub": subject.public_key(),
        "nats": nats,
    });
    let encode = |text: &str| BASE64URL.encode(text);
    let signed = format!("{}.{}", encode(header), encode(&claims.to_string()));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64URL.encode(signature))
}

/// The configuration of a server with one JetStream account, and the account's key.
fn operator_config() -> (String, KeyPair) {
    let (operator, account, system) = (
        KeyPair::new_operator(),
        KeyPair::new_account(),
        KeyPair::new_account(),
    );
    let unlimited = serde_json::json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1,
        "consumer": -1,
    });
    let of_account = |limits: serde_json::Value| serde_json::json!({ "type": "account", "version": 2, "limits": limits });
    let operator_jwt = jwt(
        &operator,
        &operator,
        "op",
        serde_json::json!({
            "type": "operator", "version": 2, "system_account": system.public_key()
        }),
    );
    let account_jwt = jwt(&operator, &account, "app", of_account(unlimited.clone()));
    let mut without_jetstream = unlimited;
    for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
        without_jetstream[limit] = 0.into();
    }
    let system_jwt = jwt(&operator, &system, "sys", of_account(without_jetstream));
    let config = format!(
        "operator: {operator_jwt}\nsystem_account: {}\nresolver: MEMORY\n\
         resolver_preload {{ {}: {account_jwt}, {}: {system_jwt} }}",
        system.public_key(),
        account.public_key(),
        system.public_key(),
    );
    (config, account)
}

fn credentials(account: &KeyPair) -> tempfile::NamedTempFile {
    let user = KeyPair::new_user();
    let claims = serde_json::json!({
        "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1
    });
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        jwt(account, &user, "user", claims),
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
    format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: {verify} }}",
        pem("server.pem").display(),
        pem("server.key").display(),
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
            if n % 50 == 0 {
                // Lets the crate's own flush come at all times of a write.
                std::thread::sleep(Duration::from_millis(n % 7));
            }
        }
        println!(
            "3000 writes by TLS: {:?}, slowest {slowest:?}",
            started.elapsed()
        );
        assert!(slowest < Duration::from_millis(400), "{slowest:?}");
    });
}

#[test]
fn server_without_tls_is_rejected_where_tls_is_required() {
    let server = Server::start(NEWEST);
    let options = NatsOptions::new([server.url()]).tls_required(true);
    let error = NatsStore::connect(options, soon()).unwrap_err();
    assert_eq!(error.code(), Code::Unsupported, "{error}");
    assert!(error.to_string().contains("TLS"), "{error}");
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
    // The bucket is there, so what may not be added to it does not matter.
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

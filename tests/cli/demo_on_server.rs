//! `divvy demo --nats` on real servers, in both publish modes.

use std::process::Command;
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;

use crate::support::nats_binary::{NEWEST, OLDEST};
use crate::support::nats_server::Server;

fn plays_twice_on(version: &str) {
    let server = Server::start(version);
    let mut first_versions = Vec::new();
    for _ in 0..2 {
        let began = Instant::now();
        let output = Command::new(cargo_bin("divvy"))
            .args(["demo", "--workers", "3", "--nats", &server.url()])
            .output()
            .unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{shown}");
        assert!(began.elapsed() < Duration::from_secs(30));
        assert!(shown.contains(" 0 unowned at the end"), "{shown}");
        assert!(shown.contains("7. store outage    left out:"), "{shown}");
        first_versions.push(first_version(&shown));
    }
    // Versions continue above those of the previous demo.
    assert!(first_versions[0] < first_versions[1], "{first_versions:?}");
}

/// The version of the first plan that the demo shows.
fn first_version(shown: &str) -> i64 {
    let published = shown
        .split_once("published version ")
        .expect("a publication")
        .1;
    let version = published.split(' ').next().unwrap();
    version
        .parse()
        .unwrap_or_else(|error| panic!("{version}: {error}"))
}

#[test]
fn newest_server_plays_same_script() {
    plays_twice_on(NEWEST);
}

#[test]
fn oldest_server_plays_same_script() {
    plays_twice_on(OLDEST);
}

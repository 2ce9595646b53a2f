//! `divvy demo --nats` on real servers of both classes.

use std::process::Command;
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;

use crate::support::nats_binary::{NEWEST, OLDEST};
use crate::support::nats_server::Server;

fn plays_twice_on(version: &str) {
    let server = Server::start(version);
    for first_version in [1, 8] {
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
        // Versions go on where the demo before ended.
        let cold_start = format!("v{first_version} cold_start");
        assert!(shown.contains(&cold_start), "{cold_start}: {shown}");
    }
}

#[test]
fn newest_server_plays_same_script() {
    plays_twice_on(NEWEST);
}

#[test]
fn oldest_server_plays_same_script() {
    plays_twice_on(OLDEST);
}

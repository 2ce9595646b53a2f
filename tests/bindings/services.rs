//! The example services of the guides, run as users run them: against a real server that restarts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::build::{self, C99, CXX11, Link};
use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::Server;

const TIME_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn c_service_survives_server_restart_and_leaves_on_sigterm() {
    for executable in build::build("examples/c/service.c", C99, Link::Shared) {
        Service::run("c", &executable);
    }
}

#[test]
fn cpp_service_survives_server_restart_and_leaves_on_sigterm() {
    for executable in build::build("bindings/cpp/example/service.cpp", CXX11, Link::Shared) {
        Service::run("cpp", &executable);
    }
}

#[cfg(all(feature = "cli", feature = "nats"))]
#[test]
fn rust_service_survives_server_restart_and_leaves_on_sigterm() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(build::root())
        .args(["build", "--locked", "--all-features"]);
    command
        .args(["--example", "service", "--target-dir"])
        .arg(target);
    build::succeed(&mut command);
    let executable: PathBuf = target.join("debug/examples/service");
    Service::run("rust", &executable);
}

struct Service {
    child: Child,
    port: u16,
}

impl Service {
    /// Starts the program, restarts its server, and stops it.
    fn run(name: &str, executable: &Path) {
        let mut server = Server::start(NEWEST);
        let mut service = Self::start(executable, &server.url(), name);
        let lines = service.lines();
        service.until("ready", "/readyz", |status, _| status == 200);
        assert_eq!(
            service.get("/livez").map(|reply| reply.0),
            Some(200),
            "{name}"
        );

        server.kill();
        server.restart();
        let beats = service.heartbeats();
        service.until("heartbeats resumed", "/metrics", |_, page| {
            heartbeats(page) > beats + 1.0
        });
        assert_eq!(
            service.get("/readyz").map(|reply| reply.0),
            Some(200),
            "{name}"
        );

        // SAFETY: no pointers; the child was not waited for, so the number is still its own.
        unsafe { libc::kill(service.child.id().cast_signed(), libc::SIGTERM) };
        let printed: Vec<String> = lines.map_while(Result::ok).collect();
        assert!(
            service.child.wait().unwrap().success(),
            "{name}: {printed:?}"
        );
        let started = printed.iter().filter(|line| line.starts_with("start tool"));
        let stopped = printed.iter().filter(|line| line.starts_with("stop tool"));
        assert_eq!(
            (started.count(), stopped.count()),
            (12, 12),
            "{name}: {printed:?}"
        );
    }

    fn start(executable: &Path, url: &str, name: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut command = Command::new(executable);
        for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("DIVVY_")) {
            command.env_remove(variable);
        }
        let child = command
            .env("DIVVY_NATS_URL", url)
            .env("DIVVY_COLD_START_WINDOW", "300ms")
            .env("DIVVY_PLANNED_SCALE_WINDOW", "300ms")
            .env("DIVVY_COOLDOWN", "200ms")
            .env("LISTEN", format!("127.0.0.1:{port}"))
            .env("LISTEN_PORT", port.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {executable:?} cannot be run: {error}"));
        Self { child, port }
    }

    fn lines(&mut self) -> std::io::Lines<BufReader<std::process::ChildStdout>> {
        BufReader::new(self.child.stdout.take().unwrap()).lines()
    }

    /// Returns status and body; `None` while the port is closed.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        // In one write, so that the service reads the whole request at once.
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        let status = reply.split(' ').nth(1)?.parse().ok()?;
        let body = reply.split_once("\r\n\r\n")?.1.to_owned();
        Some((status, body))
    }

    fn until(&mut self, what: &str, path: &str, is_so: impl Fn(u16, &str) -> bool) {
        let limit = Instant::now() + TIME_LIMIT;
        loop {
            let reply = self.get(path);
            if reply
                .as_ref()
                .is_some_and(|(status, body)| is_so(*status, body))
            {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "not {what}: the service ended with {ended:?}"
            );
            assert!(
                Instant::now() < limit,
                "not {what}: {path} answers {reply:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn heartbeats(&self) -> f64 {
        heartbeats(&self.get("/metrics").expect("a page").1)
    }
}

/// Returns the number of sent heartbeats on the metrics page.
fn heartbeats(page: &str) -> f64 {
    let counts = page
        .lines()
        .filter(|line| line.starts_with("divvy_worker_heartbeats_total{"));
    let sent = counts.filter(|line| line.contains("outcome=\"success\""));
    sent.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

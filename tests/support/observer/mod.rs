//! What an operator sees of a fault: a process with two workers of a fleet goes through it and
//! returns its log lines, events and metrics.
//!
//! It is a separate process, because there is one log per process: the test program starts itself
//! again.
#![allow(dead_code, reason = "each test program uses its own part")]

mod sight;
mod wall_clock;
mod watched;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::support::fault_list::{During, Fault};
use crate::support::faults::{Companion, Row, Trial};

#[allow(unused_imports, reason = "as above")]
pub use self::sight::{Quiet, Sight};

/// Environment variable with the address of the fleet, for the observer process.
const ADDRESS: &str = "DIVVY_TEST_OBSERVER_OF";
/// Time limit from the healing until the fleet is healthy, and for its start.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Marks the output of the process, which may share its line with output of the test harness.
const SAYS: &str = "@observer ";

/// Run by [`Observer::start`].
#[test]
#[ignore = "the process of an observer: tests of faults start it"]
fn observer_process() {
    watched::watch_if_asked();
}

/// The process and its output.
struct Observer {
    process: Child,
    orders: ChildStdin,
    lines: Receiver<String>,
    during: During,
}

/// Runs the fault with a caller of the store and an observer.
pub fn observe(fault: &Fault, version: &str) -> (Row, Sight) {
    let mut stage = fault.set_up(version);
    let mut observer = Observer::start(&stage.address.to_text(), fault.during);
    let trial = Trial::new(&fault.name, &stage);
    let row = trial.measure(fault, &mut stage, &mut observer);
    let sight = Sight::of(fault, &observer.finish(&fault.name));
    (row, sight)
}

impl Observer {
    /// Returns when the fleet is healthy.
    fn start(address: &str, during: During) -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let mut process = Command::new(program)
            .args([
                "observer::observer_process",
                "--exact",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(ADDRESS, address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program runs again");
        let orders = process.stdin.take().expect("it is piped");
        let said = BufReader::new(process.stdout.take().expect("it is piped"));
        let (sender, lines) = channel();
        // Ends with the process.
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                if let Some((_, said)) = line.split_once(SAYS) {
                    sender.send(said.to_owned()).ok();
                }
            }
        });
        let observer = Self {
            process,
            orders,
            lines,
            during,
        };
        assert_eq!(observer.hear("a running fleet"), "ready");
        observer
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").expect("the observer runs");
        assert_eq!(self.hear(order), "heard");
    }

    fn hear(&self, what: &str) -> String {
        match self.lines.recv_timeout(TIMEOUT * 2) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("the observer hangs before: {what}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the observer ended before: {what}"),
        }
    }

    /// Returns what it has observed, after the fleet is healthy again.
    fn finish(mut self, name: &str) -> serde_json::Value {
        let report = self.hear("a healthy fleet");
        let report: serde_json::Value = serde_json::from_str(&report).expect("a report");
        if let Some(why) = report["not_well"].as_str() {
            panic!("{name}: not healthy {TIMEOUT:?} after the healing: {why}");
        }
        let deadline = Instant::now() + TIMEOUT;
        while self.process.try_wait().expect("a child").is_none() {
            assert!(
                Instant::now() < deadline,
                "{name}: the observer does not end"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        let status = self.process.wait().expect("a child");
        assert!(status.success(), "{name}: {status}");
        report
    }
}

impl Companion for Observer {
    fn begins(&mut self) {
        self.order("begin");
    }

    fn strikes(&mut self) {
        self.order("struck");
        match self.during {
            During::PlanWanted => self.order("plan"),
            During::WallClockStepped => self.order("step"),
            During::Quiet => {}
        }
    }

    fn ends(&mut self) {
        self.order("healed");
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

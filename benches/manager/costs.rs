//! The resources of a manager: threads, memory, CPU.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::Server;
use crate::{connect, manager};

/// How long CPU time is measured.
const WINDOW: Duration = Duration::from_secs(60);

pub fn report() {
    let server = Server::start(NEWEST);
    let bare = Program::start(&["bare"]);
    let leader = Program::start(&["embedded", &server.url(), "lead"]);
    let follower = Program::start(&["embedded", &server.url(), "follow"]);
    std::thread::sleep(Duration::from_secs(10)); // background work of the start has ended
    println!("\n| process | threads | RSS KiB | of it anonymous | of it files | CPU % of a core |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let programs = [
        ("bare", &bare),
        ("follower", &follower),
        ("leader", &leader),
    ];
    let before = programs.map(|(_, program)| program.cpu());
    let began = Instant::now();
    std::thread::sleep(WINDOW);
    let passed = began.elapsed().as_secs_f64();
    let mut threads = Vec::new();
    for ((name, program), before) in programs.into_iter().zip(before) {
        let used = program.cpu();
        let per_cent = |thread: &str| {
            let now = used.get(thread).copied().unwrap_or_default();
            // The sum over all threads with this name decreases when one of them ends.
            let earlier = before.get(thread).copied().unwrap_or_default();
            now.ran.saturating_sub(earlier.ran).as_secs_f64() / passed * 100.0
        };
        let [all, anonymous, files] =
            ["VmRSS", "RssAnon", "RssFile"].map(|line| program.status(line));
        let total: f64 = used.keys().map(|thread| per_cent(thread)).sum();
        println!(
            "| {name} | {} | {all} | {anonymous} | {files} | {total:.3} |",
            used.len()
        );
        for (thread, now) in &used {
            let earlier = before.get(thread).copied().unwrap_or_default();
            let wakes = now.switches.saturating_sub(earlier.switches) as f64 / passed;
            threads.push(format!(
                "| {name} | {thread} | {:.4} | {wakes:.2} |",
                per_cent(thread)
            ));
        }
    }
    let over = |line| follower.status(line).saturating_sub(bare.status(line));
    println!(
        "\na follower takes {} KiB more than a bare process ({} anonymous); targets: <= 3 MB, \
         <= 8 threads (leader <= 12), <= 0.1 % of a core",
        over("VmRSS"),
        over("RssAnon")
    );
    println!("\n| process | thread | CPU % | wake-ups per s |\n| --- | --- | --- | --- |");
    for line in threads {
        println!("{line}");
    }
}

/// The main function of a process without divvy.
pub fn bare() {
    println!("up");
    park();
}

/// The main function of a worker process.
pub fn embedded(url: &str, may_lead: bool) {
    let manager = manager(&connect(url), may_lead);
    manager.start(Duration::from_secs(30)).expect("a start");
    while may_lead && manager.assignment().version == 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("up");
    park();
}

fn park() -> ! {
    loop {
        std::thread::park();
    }
}

/// Starts this program again. Dropping it ends it.
struct Program(Child);

/// The resources used by a thread.
#[derive(Clone, Copy, Default)]
struct Used {
    ran: Duration,
    switches: u64,
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("a path"));
        let child = command.args(arguments).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("the program runs again");
        let mut line = String::new();
        let output = child.stdout.as_mut().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line, "up\n");
        Self(child)
    }

    fn proc(&self, path: &str) -> PathBuf {
        format!("/proc/{}/{path}", self.0.id()).into()
    }

    fn status(&self, line: &str) -> u64 {
        let status = fs::read_to_string(self.proc("status")).expect("it runs");
        let line = status.lines().find(|text| text.starts_with(line));
        let mut words = line.expect("such a line").split_whitespace();
        words.nth(1).expect("a size").parse().expect("a number")
    }

    /// By thread: name and number.
    fn cpu(&self) -> BTreeMap<String, Used> {
        let tasks = fs::read_dir(self.proc("task")).expect("it runs");
        let used = |task: fs::DirEntry| {
            let read = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let name = format!("{} {}", read("comm").trim(), task.file_name().display());
            let schedule = read("schedstat");
            let nanos = schedule.split_whitespace().next().unwrap_or("0");
            let status = read("status");
            let switches = status.lines().find(|line| line.starts_with("voluntary"));
            let switches = switches.and_then(|line| line.split_whitespace().nth(1));
            let used = Used {
                ran: Duration::from_nanos(nanos.parse().expect("a number")),
                switches: switches.map_or(0, |text| text.parse().expect("a number")),
            };
            (name, used)
        };
        tasks.map(|task| used(task.expect("a task"))).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

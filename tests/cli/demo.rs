//! `divvy demo` as users run it: the built program, its output, its exit status.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::FromRawFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;

const STEPS: [&str; 9] = [
    "cold start",
    "scale-up",
    "planned leave",
    "crash",
    "rolling restart",
    "mass restart",
    "store outage",
    "leader lost",
    "leader leaves",
];

/// Time limit for a program to end after a signal.
const TIMEOUT: Duration = Duration::from_secs(15);

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(cargo_bin("divvy"));
    command
        .arg("demo")
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> Output {
    demo(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Sends the signal of Ctrl-C.
fn interrupt(child: &Child) {
    let id = i32::try_from(child.id()).unwrap();
    // SAFETY: the process is our child and not reaped yet, so the id is its own.
    assert_eq!(unsafe { libc::kill(id, libc::SIGINT) }, 0);
}

/// Returns the exit status, after the program has ended.
fn wait(child: &mut Child) -> i32 {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().expect("ended by itself");
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("did not end within {TIMEOUT:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn file(folder: &Path, content: &str) -> String {
    let path = folder.join("partitions.json");
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn demo_plays_every_step_passes_every_check_and_ends_in_time() {
    let began = Instant::now();
    let output = run(&[]);
    let took = began.elapsed();
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    for (number, step) in STEPS.iter().enumerate() {
        let line = format!(" ok     {}. {step}", number + 1);
        assert!(shown.contains(&line), "{line}: {shown}");
    }
    assert!(shown.contains(" 0 unowned at the end"), "{shown}");
    assert!(shown.contains("6 publications"), "{shown}");
    let held = shown.lines().last().unwrap();
    let (held, all) = held
        .strip_suffix(" checks held")
        .and_then(|counts| counts.split_once(" of "))
        .unwrap_or_else(|| panic!("{shown}"));
    assert_eq!(held, all);
    assert!(all.parse::<u32>().unwrap() >= 30, "{shown}");
    assert!(!shown.contains('\x1b'), "plain lines without a terminal");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn smallest_fleet_divides_list_from_file_and_runs_until_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let list = file(folder.path(), r#"[{"keys":["only","one"],"weight":7}]"#);
    let mut child = demo(&["--workers", "3", "--partitions", &list, "--keep-running"])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reached = lines
        .by_ref()
        .any(|line| line.unwrap().contains("running on"));
    assert!(reached, "the script did not get to its end");
    interrupt(&child);
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(wait(&mut child), 0, "{rest:#?}");
    let summary = rest.join("\n");
    assert!(summary.contains(" 0 unowned at the end"), "{summary}");
}

#[test]
fn ctrl_c_ends_demo_at_once_with_summary_and_its_own_exit_code() {
    let mut child = demo(&[]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    interrupt(&child);
    let began = Instant::now();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(wait(&mut child), 130);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(rest.last().unwrap().ends_with(": interrupted"), "{rest:#?}");
}

#[test]
fn closed_pipe_ends_demo_without_panic() {
    let mut child = demo(&[]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    drop(lines);
    assert_eq!(wait(&mut child), 1);
    let mut said = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}

#[test]
fn terminal_is_redrawn_and_restored() {
    for (no_color, expected) in [(None, true), (Some("1"), false)] {
        let (terminal, shown) = on_a_terminal(no_color);
        let begins = shown
            .find("\x1b[?1049h")
            .expect("enters the alternate screen");
        let ends = shown
            .find("\x1b[?1049l")
            .expect("leaves the alternate screen");
        assert!(begins < ends);
        assert!(shown.contains("worker-4"), "{shown}");
        assert!(
            shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l"),
            "cursor"
        );
        assert_eq!(shown.contains("\x1b[32m"), expected, "colours: {shown}");
        drop(terminal);
    }
}

/// Runs on a terminal of 80 x 24 for a moment, ends it, and returns the output.
fn on_a_terminal(no_color: Option<&str>) -> (File, String) {
    let (mut ours, mut its) = (0, 0);
    let size = libc::winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let nothing = std::ptr::null_mut();
    // SAFETY: the integers are valid for writing, the name is not asked for, and the settings are
    // read only (`nothing` for the default ones).
    let status = unsafe {
        libc::openpty(
            &raw mut ours,
            &raw mut its,
            nothing,
            nothing.cast(),
            &raw const size,
        )
    };
    assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: both descriptors were just opened and have no other owner.
    let (mut ours, its) = unsafe { (File::from_raw_fd(ours), File::from_raw_fd(its)) };
    let mut command = demo(&[]);
    command
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .stdout(its);
    if let Some(value) = no_color {
        command.env("NO_COLOR", value);
    }
    let mut child = command.spawn().unwrap();
    drop(command); // and its copy of the other end of the terminal
    let mut shown = Vec::new();
    let mut buffer = [0; 4_096];
    let mut interrupted = false;
    // Returns an error when the other end is closed.
    while let Ok(count @ 1..) = ours.read(&mut buffer) {
        shown.extend_from_slice(&buffer[..count]);
        let seen = String::from_utf8_lossy(&shown);
        if !interrupted && seen.contains("published version 1") {
            interrupt(&child);
            interrupted = true;
        }
    }
    assert_eq!(wait(&mut child), 130);
    (ours, String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn invalid_arguments_are_rejected_with_rule() {
    for (arguments, expected) in [
        (&["--workers", "2"][..], "3..=64"),
        (&["--workers", "65"], "3..=64"),
        (&["--workers", "many"], "invalid"),
        (&["--partitions"], "value is required"),
        (&["--sing"], "unexpected argument"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn invalid_partition_files_are_rejected_with_name_and_fault() {
    let folder = tempfile::tempdir().unwrap();
    for (content, expected) in [
        ("", "EOF"),
        ("[", "EOF"),
        ("{}", "not a JSON list of partitions"),
        (r#"[{"weight":1}]"#, "missing field `keys`"),
        (r#"[{"keys":["a"],"weight":"heavy"}]"#, "invalid type"),
        ("[]", "lists no partitions"),
        (r#"[{"keys":[]}]"#, "key"),
        (r#"[{"keys":["a"]},{"keys":["a"]}]"#, "a"),
    ] {
        let path = file(folder.path(), content);
        let output = run(&["--partitions", &path]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{content}: {said}");
        assert!(said.starts_with("divvy demo: "), "{content}: {said}");
        assert!(said.contains("partitions.json"), "{content}: {said}");
        assert!(said.contains(expected), "{content}: {said}");
        assert!(output.stdout.is_empty());
    }
    let output = run(&["--partitions", "/nowhere/at/all.json"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot read /nowhere/at/all.json"), "{said}");
}

#[cfg(feature = "nats")]
#[test]
fn unreachable_server_is_reported_within_seconds() {
    let began = Instant::now();
    let output = run(&["--nats", "nats://127.0.0.1:1"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(said.contains("127.0.0.1:1"), "{said}");
    assert!(output.stdout.is_empty());
}

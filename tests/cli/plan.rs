//! `divvy plan`: its output, its input, and its errors.

use assert_cmd::Command;
use serde_json::Value;

fn divvy() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_divvy"));
    command.arg("plan");
    command
}

fn json(arguments: &[&str], input: &str) -> Value {
    let mut command = divvy();
    let output = command.args(arguments).arg("--json").write_stdin(input);
    serde_json::from_slice(&output.assert().success().get_output().stdout).unwrap()
}

fn refusal(arguments: &[&str], input: &str, status: i32) -> String {
    let output = divvy()
        .args(arguments)
        .write_stdin(input)
        .assert()
        .code(status);
    assert!(output.get_output().stdout.is_empty());
    String::from_utf8(output.get_output().stderr.clone()).unwrap()
}

#[test]
fn text_shows_each_worker_quality_and_diff() {
    let previous = json(&["--workers", "3", "--partitions", "90"], "").to_string();
    let arguments = ["--workers", "2", "--partitions", "90", "--previous", "-"];
    let output = divvy()
        .args(arguments)
        .write_stdin(previous)
        .assert()
        .success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    for expected in [
        "sticky: 90 partitions on 2 workers",
        "worker-0          45      1.000  15    0",
        "quality: max 1.000 of the mean (at best 1.000), min 1.000",
        "diff: 0 added, 0 removed, 30 moved: 33.33 % of all weight, at least 33.33 % had to",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn json_lists_every_partition_once_in_wire_form_and_reads_back() {
    let partitions = "a.1 5\n\nb.2 7\n b.10\n";
    for strategy in [
        "sticky",
        "round_robin",
        "consistent_hash",
        "weighted_consistent_hash",
    ] {
        let arguments = [
            "--workers",
            "2",
            "--partitions",
            "-",
            "--strategy",
            strategy,
        ];
        let plan = json(&arguments, partitions);
        assert_eq!(plan["strategy"], strategy);
        let assignments = plan["assignments"].as_object().unwrap();
        let mut all: Vec<String> = assignments
            .values()
            .flat_map(|list| list.as_array().unwrap())
            .map(Value::to_string)
            .collect();
        all.sort();
        let expected = [
            r#"{"keys":["a","1"],"weight":5}"#,
            r#"{"keys":["b","10"],"weight":0}"#,
            r#"{"keys":["b","2"],"weight":7}"#,
        ];
        assert_eq!(all, expected, "{strategy}");
        assert!(plan["quality"]["max_to_mean"].as_f64().unwrap() >= 1.0);
        assert!(plan["diff"].is_null());

        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("partitions");
        std::fs::write(&file, partitions).unwrap();
        let file = file.to_str().unwrap();
        let again = [
            "--workers",
            "2",
            "--partitions",
            file,
            "--strategy",
            strategy,
        ];
        let again = json(
            &[&again[..], &["--previous", "-"]].concat(),
            &plan.to_string(),
        );
        assert_eq!(again["assignments"], plan["assignments"]);
        assert_eq!(again["diff"]["moved"], 0);
    }
}

#[test]
fn options_reach_strategy() {
    let arguments = ["--workers", "3", "--partitions", "70"];
    let capacities = ["--capacity", "worker-1=2", "--capacity", "worker-2=4"];
    let plan = json(&[&arguments[..], &capacities].concat(), "");
    let count = |id: &str| plan["assignments"][id].as_array().unwrap().len();
    assert_eq!(
        [count("worker-0"), count("worker-1"), count("worker-2")],
        [10, 20, 40]
    );

    let hashed = ["--strategy", "consistent_hash", "--seed"];
    let seeded = |seed| json(&[&arguments[..], &hashed, &[seed]].concat(), "");
    assert_ne!(seeded("1")["assignments"], seeded("2")["assignments"]);
}

#[test]
fn workers_are_read_from_lines_or_json_list() {
    let lines = json(&["--workers", "-", "--partitions", "4"], "b\na\n\nb\n");
    let list = json(&["--workers", "-", "--partitions", "4"], r#"["a", "b"]"#);
    assert_eq!(lines["assignments"], list["assignments"]);
    assert_eq!(list["assignments"].as_object().unwrap().len(), 2);
}

#[test]
fn partition_is_explained_on_request() {
    let arguments = ["--workers", "1", "--partitions", "3"];
    let explain = ["--explain", "partition.0000001"];
    let output = divvy().args(arguments).args(explain).assert().success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    assert!(
        text.contains("partition-0000001 (weight 1) is on worker-0"),
        "{text}"
    );
}

#[test]
fn bad_input_is_rejected_in_one_clear_line() {
    let with = |option: &str| {
        let other = if option == "--workers" {
            "--partitions"
        } else {
            "--workers"
        };
        vec![
            other.to_owned(),
            "2".to_owned(),
            option.to_owned(),
            "-".to_owned(),
        ]
    };
    for (option, input, expected) in [
        ("--workers", "", "there is no worker"),
        ("--workers", "a b\n", "worker id \"a b\""),
        ("--workers", "[1]", "invalid type"),
        (
            "--partitions",
            "a\na 5\n",
            "1 partitions with keys that another one has: \"a\"",
        ),
        (
            "--partitions",
            "a\n\nb heavy\n",
            "line 3, column 3: \"heavy\" is not a weight",
        ),
        (
            "--partitions",
            "a 1 2\n",
            "line 1, column 5: \"2\" is one word too many",
        ),
        (
            "--partitions",
            "{\"a\":1}\n",
            "line 1, column 1: a JSON object is not a list of partitions",
        ),
        (
            "--partitions",
            "a\n{\"a\":1}\n",
            "line 2, column 1: \"{\\\"a\\\":1}\" is not the name of a partition",
        ),
        ("--partitions", "a..b\n", "\"a..b\" has an empty key"),
        (
            "--partitions",
            "[{\"keys\":[\"a\"]},\n {\"weight\":1}]",
            "missing field `keys` at line 2 column 13",
        ),
        (
            "--partitions",
            "[{\"keys\":[\"a\"],\"weight\":\"1\"}]",
            "invalid type: string \"1\", expected i64 at line 1 column",
        ),
        (
            "--partitions",
            r#"[{"keys":[],"weight":3}]"#,
            "1 partitions without keys",
        ),
        (
            "--partitions",
            r#"[{"keys":["a"],"weight":1.5}]"#,
            "invalid type",
        ),
    ] {
        let arguments = with(option);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let message = refusal(&arguments, input, 1);
        assert!(message.starts_with("divvy: "), "{message}");
        assert!(
            message.contains(expected),
            "{expected:?} is not in {message}"
        );
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let base = ["--workers", "2", "--partitions", "2"];
    for (more, expected) in [
        (
            &["--previous", "/no/such/file"][..],
            "/no/such/file: No such file",
        ),
        (&["--previous", "-"], "--previous -: "),
        (&["--tolerance", "1.5"], "1.5 is not between 0 and 1"),
        (
            &["--capacity", "worker-9=2"],
            "there is no worker \"worker-9\"",
        ),
        (&["--capacity", "worker-1"], "use WORKER=CAPACITY"),
        (&["--explain", "x"], "no partition \"x\""),
    ] {
        let message = refusal(&[&base[..], more].concat(), "{}", 1);
        assert!(
            message.contains(expected),
            "{expected:?} is not in {message}"
        );
    }
    let twice = refusal(&["--workers", "-", "--partitions", "-"], "", 1);
    assert!(twice.contains("only one of"), "{twice}");
}

#[test]
fn usage_error_has_its_own_exit_code() {
    assert!(refusal(&["--workers", "2"], "", 2).contains("--partitions"));
    let unknown = ["--workers", "2", "--partitions", "2", "--strategy", "magic"];
    assert!(refusal(&unknown, "", 2).contains("magic"));
}

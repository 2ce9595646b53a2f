//! Settings from the environment, as a shell or Kubernetes sets them.

use std::process::{Command, Output};

fn divvy(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_divvy"));
    command.args(arguments).env_clear();
    command.envs(variables.iter().copied()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn unknown_variable_is_warning_and_injected_ones_are_ignored() {
    let injected = [
        ("DIVVY_PORT", "tcp://10.0.0.1:4222"),
        ("DIVVY_SERVICE_HOST", "10.0.0.1"),
    ];
    let output = divvy(&["config", "cooldown"], &injected);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stderr(&output), "");
    let misspelt = [("DIVVY_COOLDWON", "5s")];
    let output = divvy(&["config", "cooldown"], &misspelt);
    assert!(output.status.success(), "{output:?}");
    let warning = stderr(&output);
    assert!(
        warning.contains("DIVVY_COOLDWON") && warning.contains("cooldown?"),
        "{warning}"
    );
    let strict = [misspelt[0], ("DIVVY_STRICT", "true")];
    let output = divvy(&["config", "cooldown"], &strict);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[cfg(feature = "nats")]
#[test]
fn server_comes_from_the_environment_where_no_option_names_it() {
    let output = divvy(&["status", "--timeout", "300ms"], &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = stderr(&output);
    assert!(
        error.contains("--nats URL") && error.contains("DIVVY_NATS_URL"),
        "{error}"
    );
    let url = [("DIVVY_NATS_URL", "nats://127.0.0.1:1")];
    let output = divvy(&["status", "--timeout", "300ms"], &url);
    assert!(stderr(&output).contains("127.0.0.1:1"), "{output:?}");
}

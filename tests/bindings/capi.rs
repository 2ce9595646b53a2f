//! C and C++ programs against the library, built as users build them.
//!
//! Needs `cc` and `c++`; also uses `clang` and `clang++` if installed.

use crate::build::{self, C99, CXX11, CXX11_WITHOUT_EXCEPTIONS, CXX17, Link, run, run_with};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use nkeys::KeyPair;

use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::{Server, Setup};
use crate::support::operator::{operator_config, user_jwt};

#[test]
fn header_alone_compiles_under_strictest_flags_of_every_standard() {
    build::header_alone(
        "divvy.h",
        &["c99", "c11", "c17"],
        &["c++11", "c++17", "c++20"],
    );
}

#[test]
fn calculator_lifecycle_works_on_memory_store() {
    run("tests/capi/life.c", C99, Link::Shared);
    run("tests/capi/life.c", C99, Link::Static);
}

#[test]
fn managers_join_share_hand_over_and_leave() {
    run("tests/capi/manager.c", C99, Link::Shared);
    run("tests/capi/manager.c", CXX11, Link::Static);
}

#[test]
fn callback_poll_and_descriptor_deliver_same_events_in_same_order() {
    run("tests/capi/events.c", C99, Link::Shared);
}

#[test]
fn c_programs_are_valid_cpp_programs() {
    run("tests/capi/life.c", CXX11, Link::Static);
}

#[test]
fn bad_input_to_any_function_returns_status_and_keeps_outputs() {
    run("tests/capi/bad_input.c", C99, Link::Shared);
}

#[test]
fn callbacks_may_call_everything_except_calls_that_wait_for_them() {
    run("tests/capi/callbacks.c", C99, Link::Shared);
}

#[test]
fn host_partitions_and_strategy_drive_fleet() {
    run("tests/capi/host.c", C99, Link::Shared);
}

#[test]
fn every_waiting_call_ends_when_cancelled() {
    run("tests/capi/cancel.c", C99, Link::Shared);
}

#[test]
fn lagging_worker_is_reported_to_c_with_its_versions() {
    run("tests/capi/lagging.c", C99, Link::Shared);
}

#[test]
fn thousand_c_lifecycles_keep_threads_descriptors_and_memory_flat() {
    run("tests/capi/cycles.c", C99, Link::Shared);
}

#[test]
fn sixty_four_threads_may_use_and_free_one_handle_concurrently() {
    run("tests/capi/threads.c", C99, Link::Shared);
}

#[test]
fn forked_child_gets_status_and_never_hangs() {
    run("tests/capi/fork.c", C99, Link::Shared);
}

#[test]
fn log_records_reach_host_and_signals_never_reach_library_threads() {
    run("tests/capi/log.c", C99, Link::Shared);
}

#[test]
fn cpp_layer_owns_its_objects_and_contains_exceptions() {
    build::header_alone("divvy.hpp", &[], &["c++11", "c++14", "c++17", "c++20"]);
    run("bindings/cpp/tests/life.cpp", CXX11, Link::Shared);
    run("bindings/cpp/tests/life.cpp", CXX17, Link::Static);
}

/// 20 000 cycles of each, in C and in C++.
#[test]
fn wake_or_unsubscribe_that_meets_an_event_is_neither_lost_nor_hangs() {
    run("tests/capi/wakes.c", C99, Link::Shared);
    run("bindings/cpp/tests/wakes.cpp", CXX11, Link::Shared);
}

#[test]
fn ended_callback_never_runs_again_and_its_userdata_is_destroyed_after_its_return() {
    run("tests/capi/lifetimes.c", C99, Link::Shared);
}

#[test]
fn cpp_destructors_wait_for_callbacks_and_thrown_exceptions_are_reported() {
    run("bindings/cpp/tests/lifetimes.cpp", CXX11, Link::Shared);
}

#[test]
fn forked_child_that_destroys_calculator_in_its_own_callback_ends_with_message() {
    run("bindings/cpp/tests/own_callback.cpp", CXX11, Link::Shared);
}

#[test]
fn cpp_layer_without_exceptions_returns_every_failure() {
    run(
        "bindings/cpp/tests/no_exceptions.cpp",
        CXX11_WITHOUT_EXCEPTIONS,
        Link::Shared,
    );
}

#[test]
fn library_may_be_called_while_a_thread_ends() {
    run("tests/capi/thread_exit.c", C99, Link::Shared);
}

/// What the memory store cannot cover: sockets, the threads of the client, the clock of a server.
#[test]
fn same_programs_pass_on_real_server() {
    let server = Server::start(NEWEST);
    let url = server.url();
    for program in [
        "life",
        "manager",
        "events",
        "host",
        "callbacks",
        "bad_input",
        "cancel",
        "lagging",
    ] {
        let variables = [
            ("DIVVY_TEST_NATS_URL", url.as_str()),
            ("DIVVY_TEST_BUCKETS", program),
        ];
        run_with(
            &format!("tests/capi/{program}.c"),
            C99,
            Link::Shared,
            &variables,
        );
    }
}

#[test]
fn host_supplies_token_at_each_login_and_a_callback_that_hangs_is_named() {
    let setup = Setup::new(NEWEST).config("authorization { token: s3cret }");
    let server = setup.start();
    let url = server.url();
    let variables = [("DIVVY_TEST_NATS_URL", url.as_str())];
    for (source, language) in [
        ("tests/capi/credentials.c", C99),
        ("bindings/cpp/tests/credentials.cpp", CXX11),
    ] {
        run_with(source, language, Link::Shared, &variables);
    }
}

/// The program asks for a signature, as a host asks the keeper of its key.
#[test]
fn host_supplies_jwt_and_signature() {
    let (config, account) = operator_config();
    let server = Setup::new(NEWEST).config(&config).start();
    let user = KeyPair::new_user();
    for executable in build::build("tests/capi/credentials.c", C99, Link::Shared) {
        let mut program = Command::new(&executable)
            .env("DIVVY_TEST_NATS_URL", server.url())
            .env("DIVVY_TEST_LOGIN", "jwt")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = program.stdin.take().unwrap();
        let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
        let nonce = lines.next().expect("a nonce").unwrap();
        let nonce = data_encoding::HEXLOWER.decode(nonce.as_bytes()).unwrap();
        let signature = user.sign(&nonce).unwrap();
        let signature = data_encoding::HEXLOWER.encode(&signature);
        writeln!(input, "{}\n{signature}", user_jwt(&account, &user)).unwrap();
        assert!(program.wait().unwrap().success(), "{executable:?}");
    }
}

#[test]
fn examples_run_until_stopped() {
    for (source, language, kind) in [
        ("examples/c/events.c", C99, "published"),
        ("examples/c/events_epoll.c", C99, "published"),
        ("examples/c/worker.c", C99, "assignment"),
        ("bindings/cpp/example/events.cpp", CXX11, "published"),
        ("bindings/cpp/example/worker.cpp", CXX11, "assignment"),
    ] {
        for executable in build::build(source, language, Link::Shared) {
            build::run_until_terminated(&executable, kind);
        }
    }
}

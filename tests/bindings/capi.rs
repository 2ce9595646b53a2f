//! C and C++ programs against the library as they would be built by its users.
//!
//! Needs `cc` and `c++`; uses `clang` and `clang++` as well where they are there.

use crate::build::{self, C99, CXX11, CXX17, Link, run, run_with};
use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::Server;

#[test]
fn the_header_alone_passes_the_strictest_flags_of_every_standard() {
    build::header_alone(
        "divvy.h",
        &["c99", "c11", "c17"],
        &["c++11", "c++17", "c++20"],
    );
}

#[test]
fn a_calculators_whole_life_on_the_memory_store() {
    run("tests/capi/life.c", C99, Link::Shared);
    run("tests/capi/life.c", C99, Link::Static);
}

#[test]
fn managers_join_share_hand_over_and_leave() {
    run("tests/capi/manager.c", C99, Link::Shared);
    run("tests/capi/manager.c", CXX11, Link::Static);
}

#[test]
fn callback_poll_and_descriptor_tell_the_same_events_in_the_same_order() {
    run("tests/capi/events.c", C99, Link::Shared);
}

#[test]
fn c_programs_are_valid_cpp_programs_too() {
    run("tests/capi/life.c", CXX11, Link::Static);
}

#[test]
fn bad_input_to_any_function_is_a_status_and_outputs_stay_untouched() {
    run("tests/capi/bad_input.c", C99, Link::Shared);
}

#[test]
fn callbacks_may_call_everything_but_what_waits_for_them() {
    run("tests/capi/callbacks.c", C99, Link::Shared);
}

#[test]
fn partitions_and_strategy_of_the_host_drive_a_fleet() {
    run("tests/capi/host.c", C99, Link::Shared);
}

#[test]
fn every_call_that_waits_ends_when_it_is_cancelled() {
    run("tests/capi/cancel.c", C99, Link::Shared);
}

#[test]
fn a_worker_that_does_not_apply_is_told_with_its_versions() {
    run("tests/capi/lagging.c", C99, Link::Shared);
}

#[test]
fn a_thousand_lives_leave_threads_descriptors_and_memory_flat() {
    run("tests/capi/cycles.c", C99, Link::Shared);
}

#[test]
fn sixty_four_threads_use_one_handle_and_free_it_under_each_other() {
    run("tests/capi/threads.c", C99, Link::Shared);
}

#[test]
fn a_forked_child_gets_a_status_and_never_hangs() {
    run("tests/capi/fork.c", C99, Link::Shared);
}

#[test]
fn log_records_reach_the_host_and_signals_never_reach_the_librarys_threads() {
    run("tests/capi/log.c", C99, Link::Shared);
}

#[test]
fn the_cpp_layer_owns_its_objects_and_contains_exceptions() {
    build::header_alone("divvy.hpp", &[], &["c++11", "c++14", "c++17", "c++20"]);
    run("bindings/cpp/tests/life.cpp", CXX11, Link::Shared);
    run("bindings/cpp/tests/life.cpp", CXX17, Link::Static);
}

/// What the memory store cannot show: sockets, the client's threads, a server's own time.
#[test]
fn the_same_programs_pass_on_a_real_server() {
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
fn the_examples_run_until_they_are_told_to_stop() {
    for (source, language, kind) in [
        ("examples/c/events.c", C99, "published"),
        ("examples/c/events_epoll.c", C99, "published"),
        ("examples/c/worker.c", C99, "assignment"),
        ("bindings/cpp/example/events.cpp", CXX11, "published"),
        ("bindings/cpp/example/worker.cpp", CXX11, "assignment"),
    ] {
        for executable in build::build(source, language, Link::Shared) {
            build::run_until_told(&executable, kind);
        }
    }
}

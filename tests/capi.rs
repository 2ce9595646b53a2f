//! C and C++ programs against the library as they would be built by its users.
//!
//! Needs `cc` and `c++`; uses `clang` and `clang++` as well where they are there.
#![cfg(all(feature = "capi", unix))]

#[path = "capi/build.rs"]
mod build;
mod support;

use build::{C99, CXX11, Link, run, run_with};

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
fn callback_poll_and_descriptor_tell_the_same_events_in_the_same_order() {
    run("tests/capi/events.c", C99, Link::Shared);
}

#[test]
fn c_programs_are_valid_cpp_programs_too() {
    run("tests/capi/life.c", CXX11, Link::Static);
}

//! The `divvy` command.

mod demo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Keeps partitions divided among a changing fleet of workers.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArguments),
}

fn main() -> ExitCode {
    // Silent unless RUST_LOG asks for more: what the library logs would tear the screen apart.
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Off)
        .parse_default_env()
        .init();
    match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
    }
}

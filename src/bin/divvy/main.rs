//! The `divvy` command.

mod demo;
mod plan;
mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Keeps partitions divided among a changing fleet of workers.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::DemoArguments),
    Plan(plan::Arguments),
    Worker(worker::Arguments),
}

fn main() -> ExitCode {
    // Silent unless RUST_LOG asks for more: what the library logs would tear the screen apart.
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Off)
        .parse_default_env()
        .init();
    match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Plan(arguments) => exit_code(plan::run(&arguments)),
        Command::Worker(arguments) => exit_code(worker::run(&arguments)),
    }
}

fn exit_code(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("divvy: {message}");
            ExitCode::FAILURE
        }
    }
}

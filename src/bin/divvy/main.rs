//! The `divvy` command.

mod plan;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Keeps partitions divided among a changing fleet of workers.
#[derive(Parser)]
#[command(name = "divvy", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Computes a plan and shows it, with its quality and what it moves: the dry run.
    Plan(plan::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Plan(arguments) => plan::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("divvy: {message}");
            ExitCode::FAILURE
        }
    }
}

//! The `divvy` command.

#[cfg(feature = "nats")]
mod buckets;
mod config;
mod connection;
mod demo;
mod output;
mod plan;
mod shadow;
mod status;
mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Divides partitions among a changing fleet of workers.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[cfg(feature = "nats")]
    Buckets(buckets::Arguments),
    Config(config::Arguments),
    Demo(demo::DemoArguments),
    Plan(plan::Arguments),
    Shadow(shadow::Arguments),
    Status(status::Arguments),
    Worker(worker::Arguments),
}

fn main() -> ExitCode {
    // No log output unless RUST_LOG is set: it would disturb the screen.
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Off)
        .parse_default_env()
        .init();
    let ended = match Arguments::parse().command {
        #[cfg(feature = "nats")]
        Command::Buckets(arguments) => buckets::run(&arguments),
        Command::Demo(arguments) => return demo::run(&arguments),
        Command::Config(arguments) => config::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Shadow(arguments) => shadow::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Worker(arguments) => worker::run(&arguments),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("divvy: {message}");
            ExitCode::FAILURE
        }
    }
}

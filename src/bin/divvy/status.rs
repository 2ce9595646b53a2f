//! `divvy status`: a live fleet, from outside.

use clap::Args;
use divvy::read_fleet;

use crate::connection::Connection;
use crate::output::{Result, print};
use crate::plan::read_partitions;

/// Show a live fleet: leader, term, version, workers, lag, loads. Writes nothing.
///
/// Ages are by the server's clock. Only divvy workers report the version that they have applied.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Partitions that should have an owner, as for `divvy plan`. Lists those without one.
    #[arg(long, value_name = "FILE|N")]
    partitions: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let partitions = arguments.partitions.as_deref();
    let partitions = partitions.map(read_partitions).transpose()?;
    let settings = arguments.connection.settings_to_look()?;
    let store = arguments.connection.connect(&settings)?;
    let deadline = arguments.connection.deadline();
    let read = read_fleet(
        store.as_ref(),
        settings.calculator(),
        partitions.as_deref(),
        deadline,
    );
    let stopped = store.stop(arguments.connection.deadline());
    let status = read.map_err(|error| error.to_string())?;
    stopped.map_err(|error| error.to_string())?;
    let text = if arguments.json {
        let json = serde_json::to_string_pretty(&status);
        json.map_err(|error| format!("cannot write JSON: {error}"))? + "\n"
    } else {
        status.to_string()
    };
    print(&text).map(drop)
}

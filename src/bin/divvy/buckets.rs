//! `divvy buckets`: the buckets of a fleet and the server features that they use.

use clap::{Args, Subcommand};
use divvy::runtime::nats_options;
use divvy::store::Store;
use divvy::store::nats::NatsStore;

use crate::connection::Connection;
use crate::output::{Result, print};

/// Shows the buckets of a fleet, and switches server features on and off.
///
/// Server features make divvy faster, but an older server takes a stream offline that uses one it
/// does not know. So a worker never changes an existing bucket unless nats_manage_buckets is
/// upgrade. Run `plan` and `upgrade` after all servers run the new version, and `revert` before you
/// downgrade one below 2.12.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show servers, buckets and the features that are on.
    Show(Connection),
    /// Show what `upgrade` would change and what prevents it. Writes nothing.
    Plan(Connection),
    /// Switch on each feature that every server of the cluster is known to support. Fails if a
    /// feature stays off.
    Upgrade(Connection),
    /// Switch off what servers before 2.12 do not know. Leaders publish key by key from then on.
    Revert(Connection),
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let (Action::Show(connection)
    | Action::Plan(connection)
    | Action::Upgrade(connection)
    | Action::Revert(connection)) = &arguments.action;
    let store = connect(connection)?;
    let done = act(&arguments.action, &store, connection);
    let stopped = store.stop(connection.deadline());
    done?;
    stopped.map_err(|error| error.to_string())
}

fn act(action: &Action, store: &NatsStore, connection: &Connection) -> Result<()> {
    let deadline = connection.deadline();
    let failed = |error: divvy::Error| error.to_string();
    match action {
        Action::Show(_) => {
            let report = store.inspect_buckets(deadline).map_err(failed)?;
            print(&report.to_string()).map(drop)
        }
        Action::Plan(_) => {
            let report = store.inspect_buckets(deadline).map_err(failed)?;
            print(&report.plan()).map(drop)
        }
        Action::Upgrade(_) => {
            let report = store.upgrade_buckets(deadline).map_err(failed)?;
            print(&report.to_string())?;
            if report.is_blocked() {
                return Err(format!("not upgraded:\n{}", report.plan()));
            }
            Ok(())
        }
        Action::Revert(_) => {
            let reverted = store.revert_buckets(deadline).map_err(failed)?;
            let text = match reverted.as_slice() {
                [] => "nothing to revert: no bucket uses allow_atomic\n".to_owned(),
                names => names
                    .iter()
                    .map(|name| format!("{name}: allow_atomic is off\n"))
                    .collect(),
            };
            print(&text).map(drop)
        }
    }
}

fn connect(connection: &Connection) -> Result<NatsStore> {
    let settings = connection.settings()?;
    let options = nats_options(settings.nats()).map_err(|error| error.to_string())?;
    NatsStore::connect(options, connection.deadline()).map_err(|error| error.to_string())
}

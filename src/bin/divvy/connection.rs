//! The connection options of commands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use divvy::Settings;
use divvy::connect_nats;
use divvy::store::Store;
use divvy::time::duration;

use crate::output::Result;

/// Prefix of settings in the environment.
const ENVIRONMENT: &str = "DIVVY_";

/// Connection to the fleet.
#[derive(Args)]
pub struct Connection {
    /// NATS servers of the fleet, separated by commas: nats://host:port or tls://host:port. Default:
    /// DIVVY_NATS_URL.
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// Name of the fleet, from which its bucket names follow: divvy-<NAME>-…. Without one parti's
    /// bucket names apply.
    #[arg(long, value_name = "NAME")]
    fleet: Option<String>,
    /// Any other setting, such as assignment_bucket=NAME, nats_creds=FILE or heartbeat_ttl=6s; may
    /// be repeated. Set secrets in the environment: DIVVY_NATS_TOKEN and so on.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// Maximum wait for the server.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    timeout: Duration,
}

impl Connection {
    /// The settings of the environment and the command line.
    pub fn settings(&self) -> Result<Settings> {
        let mut settings = load_settings(&self.settings)?;
        if let Some(fleet) = &self.fleet {
            let set = settings.set("fleet", fleet);
            set.map_err(|error| format!("--fleet {fleet}: {}", error.message()))?;
        }
        if let Some(url) = &self.nats {
            let set = settings.set("nats_url", url);
            set.map_err(|error| format!("--nats {url}: {}", error.message()))?;
        }
        if !settings.is_set("nats_url") {
            return Err("no server given: use --nats URL or set DIVVY_NATS_URL".to_owned());
        }
        Ok(settings)
    }

    /// The same for commands that only read: buckets are left unchanged.
    pub fn settings_to_look(&self) -> Result<Settings> {
        let mut settings = self.settings()?;
        let set = settings.set("nats_manage_buckets", "never");
        set.map_err(|error| error.to_string())?;
        Ok(settings)
    }

    /// Connects to the store.
    pub fn connect(&self, settings: &Settings) -> Result<Arc<dyn Store>> {
        connect_nats(settings, self.deadline()).map_err(|error| error.to_string())
    }

    /// Maximum wait for the server.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The deadline for the server, from now.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.timeout.min(Duration::from_secs(24 * 3_600))
    }
}

/// The settings of the environment, and of `--set NAME=VALUE`, which has precedence.
pub fn load_settings(set: &[String]) -> Result<Settings> {
    let mut settings = Settings::new();
    let variables: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let variables = variables.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    let merged = settings.merge_env(ENVIRONMENT, variables);
    for warning in merged.map_err(|error| error.to_string())? {
        eprintln!("divvy: warning: {warning}");
    }
    for text in set {
        let Some((name, value)) = text.split_once('=') else {
            return Err(format!("--set {text}: use NAME=VALUE"));
        };
        let set = settings.set(name.trim(), value.trim());
        set.map_err(|error| format!("--set {name}: {}", error.message()))?;
    }
    Ok(settings)
}

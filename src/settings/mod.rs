//! Named settings, set in layers, each with the origin of its value.

mod derived;
mod environment;
pub mod keys;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use zeroize::{Zeroize, Zeroizing};

use self::keys::{KEYS, Key};
use crate::config::{CalculatorConfig, ManagerConfig, OutagePreset};
use crate::error::{Code, Error, Result};
use crate::metrics::MetricNames;
use crate::store::{Bucket, ManageBuckets};
use crate::strategy::{Strategy, StrategyKind, StrategyOptions};
use crate::types::truncated;
use crate::vocabulary::{SettingField, Storage, StoreKind};

/// Longest value of one setting, in bytes.
pub const VALUE_MAX_BYTES: usize = 16 * 1024;

/// The values of all settings.
#[derive(Clone, PartialEq)]
pub(super) struct Values {
    pub calculator: CalculatorConfig,
    /// The part for calculators is in `calculator` instead.
    pub manager: ManagerConfig,
    pub outage_preset: OutagePreset,
    pub store: StoreKind,
    pub strategy: StrategyKind,
    pub strategy_options: StrategyOptions,
    /// Whether unknown names in the environment are errors.
    pub strict: bool,
    pub metrics: MetricNames,
    pub nats: NatsSettings,
}

/// NATS connection and buckets. Empty texts count as not set. Contains secrets, hence no `Debug`.
#[derive(Clone, PartialEq)]
#[allow(missing_docs)] // each is a key of the table in `keys`, described there
pub struct NatsSettings {
    pub urls: Vec<String>,
    pub name: String,
    pub user: String,
    pub password: String,
    pub token: String,
    pub creds: String,
    pub nkey_seed: String,
    pub tls_required: bool,
    pub tls_first: bool,
    pub tls_ca: Vec<String>,
    pub tls_cert: String,
    pub tls_key: String,
    pub inbox_prefix: String,
    pub domain: String,
    pub replicas: u32,
    pub storage: Storage,
    pub api_prefix: String,
    pub fleet: String,
    pub max_bytes: u64,
    pub placement_cluster: String,
    pub placement_tags: Vec<String>,
    pub manage_buckets: ManageBuckets,
    pub stale_limit: Duration,
    pub connect_timeout: Duration,
    pub stable_id_bucket: String,
    pub election_bucket: String,
    pub heartbeat_bucket: String,
    pub assignment_bucket: String,
}

impl Default for NatsSettings {
    fn default() -> Self {
        Self {
            urls: vec!["nats://127.0.0.1:4222".into()],
            name: "divvy".into(),
            user: String::new(),
            password: String::new(),
            token: String::new(),
            creds: String::new(),
            nkey_seed: String::new(),
            tls_required: false,
            tls_first: false,
            tls_ca: Vec::new(),
            tls_cert: String::new(),
            tls_key: String::new(),
            inbox_prefix: "_INBOX".into(),
            domain: String::new(),
            replicas: 1,
            storage: Storage::File,
            api_prefix: String::new(),
            fleet: String::new(),
            max_bytes: 0,
            placement_cluster: String::new(),
            placement_tags: Vec::new(),
            manage_buckets: ManageBuckets::default(),
            stale_limit: Duration::from_millis(2_500),
            connect_timeout: Duration::from_secs(2),
            stable_id_bucket: Bucket::StableId.default_name().into(),
            election_bucket: Bucket::Election.default_name().into(),
            heartbeat_bucket: Bucket::Heartbeat.default_name().into(),
            assignment_bucket: Bucket::Assignment.default_name().into(),
        }
    }
}

impl Drop for NatsSettings {
    /// Wipes secrets, so that they do not remain in memory or in a core dump.
    fn drop(&mut self) {
        self.password.zeroize();
        self.token.zeroize();
        self.nkey_seed.zeroize();
        // URLs may contain credentials.
        self.urls.zeroize();
    }
}

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Code,
    Json,
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Code => f.write_str("code"),
            Origin::Json => f.write_str("json"),
            Origin::Environment(variable) => write!(f, "env {variable}"),
        }
    }
}

/// Named settings. A later value replaces an earlier one, and everything else has its default.
///
/// [`KEYS`] has the names. Values are text: durations such as `1m30s`, numbers, `true` and `false`,
/// and lists separated by commas. A call that returns an error changes nothing. Rules that relate
/// several settings are checked when a calculator, a manager or a store is built from them.
///
/// ```
/// use divvy::Settings;
///
/// # fn main() -> divvy::Result<()> {
/// let mut settings = Settings::new();
/// settings.merge_json(r#"{"cooldown": "20s"}"#)?;
/// settings.merge_env("DIVVY_", [("DIVVY_HEARTBEAT_INTERVAL", "1s")])?;
/// settings.set("worker_id_prefix", "tool-server")?;
/// assert_eq!(settings.manager().heartbeat_interval.as_secs(), 1);
///
/// let error = settings.set("coldown", "5s").unwrap_err();
/// assert!(error.message().contains("did you mean cooldown?"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Settings {
    values: Values,
    origins: BTreeMap<&'static str, Origin>,
}

impl Settings {
    /// Returns settings with all defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets one setting.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`] if the name does not exist (the message suggests the most similar one)
    /// or the value cannot be parsed.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let mut next = self.clone();
        next.apply(name, value, Origin::Code)?;
        *self = next;
        Ok(())
    }

    /// Sets every member of a JSON object. Values are strings, numbers, booleans or lists of strings.
    /// `null` restores the default.
    ///
    /// # Errors
    /// As [`Settings::set`], and if the text is not a JSON object.
    pub fn merge_json(&mut self, text: &str) -> Result<()> {
        let mut object: Map<String, Value> = serde_json::from_str(text).map_err(|cause| {
            Error::new(Code::InvalidConfig, "configuration is not a JSON object").caused_by(cause)
        })?;
        let mut next = self.clone();
        let applied = object.iter().try_for_each(|(name, value)| {
            let Some(text) = json_text(value).map(Zeroizing::new) else {
                if value.is_null() {
                    return next.reset(name);
                }
                return Err(fault(
                    name,
                    "must be a string, a number, true, false, null or a list of strings",
                ));
            };
            next.apply(name, &text, Origin::Json)
        });
        object.values_mut().for_each(wipe);
        applied?;
        *self = next;
        Ok(())
    }

    /// Returns every setting with its value and the origin of the value, as JSON:
    /// `{"cooldown": {"value": "10s", "origin": "default"}, ...}`. Secrets are masked.
    #[must_use]
    pub fn dump(&self) -> String {
        let mut object = Map::new();
        for key in KEYS {
            let value = keys::shown(key, &self.values);
            let setting = json!({ "value": value, "origin": self.origin(key) });
            object.insert(key.name.into(), setting);
        }
        Value::Object(object).to_string()
    }

    /// Describes the setting at this index of [`KEYS`]. Returns `None` after the last one.
    #[must_use]
    pub fn describe(&self, index: usize) -> Option<Vec<(SettingField, String)>> {
        let key = KEYS.get(index)?;
        let text = |field| match field {
            SettingField::Name => key.name.to_owned(),
            SettingField::Type => key.kind.to_owned(),
            SettingField::Default => key.default_text(),
            SettingField::Range => key.range.to_owned(),
            SettingField::Help => key.help.to_owned(),
            SettingField::Value => keys::shown(key, &self.values),
            SettingField::Origin => self.origin(key),
        };
        Some(SettingField::ALL.map(|field| (field, text(field))).to_vec())
    }

    fn origin(&self, key: &Key) -> String {
        let origin = self.origins.get(key.name);
        origin.map_or_else(|| "default".to_owned(), ToString::to_string)
    }

    /// Returns the settings of a calculator.
    #[must_use]
    pub fn calculator(&self) -> &CalculatorConfig {
        &self.values.calculator
    }

    /// Returns the settings of a manager, including those of its calculator.
    #[must_use]
    pub fn manager(&self) -> ManagerConfig {
        let mut config = self.values.manager.clone();
        config.calculator = self.values.calculator.clone();
        if !self.is_set("emergency_grace_period") {
            let grace = config.heartbeat_interval.saturating_mul(3) / 2;
            config.calculator.emergency_grace_period = grace.min(config.calculator.heartbeat_ttl);
        }
        config
    }

    /// Returns the named strategy with its options.
    #[must_use]
    pub fn build_strategy(&self) -> Arc<dyn Strategy> {
        let default_weight = self.values.calculator.default_weight;
        let options = &self.values.strategy_options;
        options.build(self.values.strategy, default_weight)
    }

    /// Returns the options of the strategies.
    #[must_use]
    pub fn strategy_options(&self) -> &StrategyOptions {
        &self.values.strategy_options
    }

    /// Returns whether a setting was set, and is not at its default.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.origins.contains_key(name)
    }

    /// Returns the names and labels of the metrics.
    #[must_use]
    pub fn metrics(&self) -> &MetricNames {
        &self.values.metrics
    }

    /// Returns the kind of store that coordinates the fleet.
    #[must_use]
    pub fn store(&self) -> StoreKind {
        self.values.store
    }

    /// Returns the NATS settings.
    #[must_use]
    pub fn nats(&self) -> &NatsSettings {
        &self.values.nats
    }

    fn apply(&mut self, name: &str, value: &str, origin: Origin) -> Result<()> {
        let key = key_of(name)?;
        if value.len() > VALUE_MAX_BYTES {
            return Err(fault(name, "is longer than 16 KiB"));
        }
        (key.set)(&mut self.values, value).map_err(|why| {
            let shown = if key.is_secret {
                "***"
            } else {
                truncated(value, 60)
            };
            fault(name, &format!("= {shown:?} {why}"))
        })?;
        if let Some((option, _, rule)) = self.values.strategy_options.violation() {
            return Err(fault(
                option,
                &format!("= {:?} {rule}", truncated(value, 60)),
            ));
        }
        self.origins.insert(key.name, origin);
        self.derive();
        Ok(())
    }

    fn reset(&mut self, name: &str) -> Result<()> {
        let key = key_of(name)?;
        let default = (key.show)(&Values::default());
        (key.set)(&mut self.values, &default).map_err(|why| fault(name, &why))?;
        self.origins.remove(key.name);
        self.derive();
        Ok(())
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.dump())
    }
}

fn key_of(name: &str) -> Result<&'static Key> {
    keys::find(name).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Error {
    let hint = match keys::nearest(name) {
        Some(nearest) => format!("; did you mean {nearest}?"),
        None => String::new(),
    };
    let name = truncated(name, 60);
    Error::new(
        Code::InvalidConfig,
        format!("unknown setting {name:?}{hint}"),
    )
}

fn fault(name: &str, why: &str) -> Error {
    Error::new(
        Code::InvalidConfig,
        format!("{} {why}", truncated(name, 60)),
    )
}

/// Any of the values may be a secret.
fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(list) => list.iter_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {}
    }
}

fn json_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Array(list) => {
            let texts: Option<Vec<_>> = list.iter().map(Value::as_str).collect();
            Some(texts?.join(","))
        }
        Value::Null | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests;

//! Named settings, set in layers, each with the origin of its value.

pub mod keys;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};
use zeroize::{Zeroize, Zeroizing};

use self::keys::{KEYS, Key};
use crate::config::{CalculatorConfig, ManagerConfig, OutagePreset};
use crate::error::{Code, Error, Result};
use crate::metrics::MetricNames;
use crate::store::{Bucket, ManageBuckets};
use crate::strategy::StrategyKind;
use crate::types::truncated;
use crate::vocabulary::{SettingField, Storage, StoreKind};

/// Longest value of one setting, in bytes.
pub const VALUE_MAX_BYTES: usize = 16 * 1024;

/// The values of all settings.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Values {
    pub calculator: CalculatorConfig,
    /// The part for calculators is in `calculator` instead.
    pub manager: ManagerConfig,
    pub outage_preset: OutagePreset,
    pub store: StoreKind,
    pub strategy: StrategyKind,
    pub hash_seed: u64,
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

    /// Sets every variable named `<prefix><NAME>`, such as `DIVVY_HEARTBEAT_TTL`. An empty variable
    /// counts as not set.
    ///
    /// # Errors
    /// As [`Settings::set`], also for a variable with the prefix whose name is not a setting.
    pub fn merge_env<'a>(
        &mut self,
        prefix: &str,
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<()> {
        let mut next = self.clone();
        for (variable, value) in variables {
            let Some(name) = variable.strip_prefix(prefix) else {
                continue;
            };
            if value.is_empty() || prefix.is_empty() {
                continue;
            }
            let origin = Origin::Environment(variable.to_owned());
            next.apply(&name.to_ascii_lowercase(), value, origin)
                .map_err(|error| {
                    Error::new(error.code(), format!("{variable}: {}", error.message()))
                })?;
        }
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
        if !self.origins.contains_key("emergency_grace_period") {
            config.calculator.emergency_grace_period = config.heartbeat_interval * 3 / 2;
        }
        config
    }

    /// Returns the configured strategy.
    #[must_use]
    pub fn strategy(&self) -> StrategyKind {
        self.values.strategy
    }

    /// Returns the seed of the hash strategies.
    #[must_use]
    pub fn hash_seed(&self) -> u64 {
        self.values.hash_seed
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
        self.origins.insert(key.name, origin);
        self.follow_preset();
        self.follow_fleet();
        Ok(())
    }

    fn reset(&mut self, name: &str) -> Result<()> {
        let key = key_of(name)?;
        let default = (key.show)(&Values::default());
        (key.set)(&mut self.values, &default).map_err(|why| fault(name, &why))?;
        self.origins.remove(key.name);
        self.follow_preset();
        self.follow_fleet();
        Ok(())
    }

    /// Names the buckets whose names were not set themselves.
    fn follow_fleet(&mut self) {
        let nats = &mut self.values.nats;
        let fleet = nats.fleet.as_str();
        for (bucket, key, name) in [
            (
                Bucket::StableId,
                "stable_id_bucket",
                &mut nats.stable_id_bucket,
            ),
            (
                Bucket::Election,
                "election_bucket",
                &mut nats.election_bucket,
            ),
            (
                Bucket::Heartbeat,
                "heartbeat_bucket",
                &mut nats.heartbeat_bucket,
            ),
            (
                Bucket::Assignment,
                "assignment_bucket",
                &mut nats.assignment_bucket,
            ),
        ] {
            if !self.origins.contains_key(key) {
                *name = bucket.name_in(fleet);
            }
        }
    }

    /// Gives what a preset stands for to the settings that were not set themselves.
    fn follow_preset(&mut self) {
        let timing = self.values.outage_preset.timing();
        let is_set = |name| self.origins.contains_key(name);
        let outage = &mut self.values.manager.outage;
        if !is_set("outage_enter_after") {
            outage.enter_after = timing.enter_after;
        }
        if !is_set("outage_leave_after") {
            outage.leave_after = timing.leave_after;
        }
        if !is_set("outage_errors_max") {
            outage.errors_max = timing.errors_max;
        }
        if !is_set("outage_error_window") {
            outage.error_window = timing.error_window;
        }
        if !is_set("recovery_grace") {
            self.values.calculator.recovery_grace = self.values.outage_preset.recovery_grace();
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.dump())
    }
}

fn key_of(name: &str) -> Result<&'static Key> {
    keys::find(name).ok_or_else(|| {
        let hint = match keys::nearest(name) {
            Some(nearest) => format!("; did you mean {nearest}?"),
            None => String::new(),
        };
        let name = truncated(name, 60);
        Error::new(
            Code::InvalidConfig,
            format!("unknown setting {name:?}{hint}"),
        )
    })
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
mod tests {
    use super::*;

    #[test]
    fn bucket_names_follow_from_the_fleet_unless_they_are_set_in_whatever_order() {
        let mut settings = Settings::new();
        settings.set("election_bucket", "mine").unwrap();
        settings.set("fleet", "orders").unwrap();
        settings.set("heartbeat_bucket", "beats").unwrap();
        let nats = settings.nats();
        let names = [
            &nats.stable_id_bucket,
            &nats.election_bucket,
            &nats.heartbeat_bucket,
            &nats.assignment_bucket,
        ];
        assert_eq!(
            names,
            [
                "divvy-orders-stableid",
                "mine",
                "beats",
                "divvy-orders-assignment"
            ]
        );
        settings
            .merge_json(r#"{"fleet": null, "heartbeat_bucket": null}"#)
            .unwrap();
        assert_eq!(settings.nats().heartbeat_bucket, "parti-heartbeat");
        assert_eq!(settings.nats().assignment_bucket, "parti-assignment");
    }

    #[test]
    fn every_key_round_trips_its_default() {
        let defaults = Values::default();
        let mut names = std::collections::BTreeSet::new();
        for key in KEYS {
            let mut values = Values::default();
            (key.set)(&mut values, &(key.show)(&defaults)).unwrap();
            assert!(values == defaults, "{}", key.name);
            assert!(names.insert(key.name), "{} is there twice", key.name);
            assert!(!key.help.is_empty());
        }
    }

    /// The table is written by hand; this fails when a field is added and the table is not.
    #[test]
    fn every_calculator_and_manager_field_has_key() {
        let text = format!("{:?}", ManagerConfig::default());
        let (text, outage) = text.split_once("outage: OutageTiming {").unwrap();
        let outage = outage.split_once('}').unwrap().0.split(',');
        let outage = outage.map(|field| format!("outage_{}", field.trim()));
        let text = text.replace("ManagerConfig { calculator: CalculatorConfig {", "");
        let fields = text.split([',', '}']).map(|field| field.trim().to_owned());
        for field in fields.filter(|f| !f.is_empty()).chain(outage) {
            let name = field.split(':').next().unwrap().trim();
            assert!(keys::find(name).is_some(), "{name} has no key");
        }
    }

    #[test]
    fn preset_fills_unset_values_in_any_order() {
        let mut settings = Settings::new();
        assert_eq!(settings.manager(), ManagerConfig::default());
        settings.set("outage_leave_after", "7s").unwrap();
        settings.set("outage_preset", "aggressive").unwrap();
        settings.set("outage_errors_max", "9").unwrap();
        let config = settings.manager();
        assert_eq!(config.outage.enter_after, Duration::from_secs(5));
        assert_eq!(config.outage.leave_after, Duration::from_secs(7));
        assert_eq!(config.outage.errors_max, 9);
        assert_eq!(config.calculator.recovery_grace, Duration::from_secs(10));
        settings
            .merge_json(r#"{"outage_preset": null, "outage_errors_max": null}"#)
            .unwrap();
        settings.set("outage_leave_after", "5s").unwrap();
        assert_eq!(settings.manager(), ManagerConfig::default());
    }

    #[test]
    fn manager_grace_follows_heartbeat_unless_set() {
        let mut settings = Settings::new();
        settings.set("heartbeat_interval", "1s").unwrap();
        let grace = |settings: &Settings| settings.manager().calculator.emergency_grace_period;
        assert_eq!(grace(&settings), Duration::from_millis(1_500));
        settings.set("emergency_grace_period", "4s").unwrap();
        assert_eq!(grace(&settings), Duration::from_secs(4));
    }

    #[test]
    fn unknown_name_is_rejected_with_nearest_match() {
        let mut settings = Settings::new();
        for (wrong, right) in [
            ("cooldwon", "cooldown"),
            ("heartbeat-ttl", "heartbeat_ttl"),
            ("HEARTBEAT_TTL", "heartbeat_ttl"),
            ("nats_urls", "nats_url"),
        ] {
            let error = settings.set(wrong, "1s").unwrap_err();
            assert_eq!(error.code(), Code::InvalidConfig);
            let expected = format!("did you mean {right}?");
            assert!(error.to_string().contains(&expected), "{error}");
        }
        let error = settings.set("zzzzqqqq", "1s").unwrap_err();
        assert!(!error.to_string().contains("did you mean"), "{error}");
    }

    #[test]
    fn json_is_applied_completely_or_not_at_all() {
        let mut settings = Settings::new();
        settings
            .merge_json(r#"{"cooldown":"3s","restart_ratio":0.25,"nats_url":["a:1","b:2"],"nats_tls_required":true}"#)
            .unwrap();
        assert_eq!(settings.calculator().cooldown, Duration::from_secs(3));
        assert_eq!(settings.nats().urls, ["a:1", "b:2"]);
        for broken in [
            r#"{"cooldown":"4s","nonsense":1}"#,
            r#"{"cooldown":4}"#,
            r#"{"cooldown":{}}"#,
            r#"{"cooldown":"4s","restart_ratio":"much"}"#,
            "[]",
            "",
            "{",
        ] {
            let error = settings.merge_json(broken).unwrap_err();
            assert_eq!(error.code(), Code::InvalidConfig, "{broken}");
            assert_eq!(settings.calculator().cooldown, Duration::from_secs(3));
        }
        settings.merge_json(r#"{"cooldown":null}"#).unwrap();
        assert_eq!(settings.calculator().cooldown, Duration::from_secs(10));
    }

    #[test]
    fn environment_names_settings_in_upper_case() {
        let mut settings = Settings::new();
        let variables = [
            ("PATH", "/bin"),
            ("DIVVY_COOLDOWN", "2s"),
            ("DIVVY_NAME", ""),
            ("OTHER_COOLDOWN", "9s"),
        ];
        settings.merge_env("DIVVY_", variables).unwrap();
        assert_eq!(settings.calculator().cooldown, Duration::from_secs(2));
        let error = settings
            .merge_env("DIVVY_", [("DIVVY_COOLDWON", "2s")])
            .unwrap_err();
        assert!(
            error.to_string().contains("did you mean cooldown?"),
            "{error}"
        );
        assert!(error.to_string().contains("DIVVY_COOLDWON"), "{error}");
    }

    #[test]
    fn dump_shows_values_and_origins_but_no_secret() {
        let mut settings = Settings::new();
        settings.set("nats_password", "hunter2").unwrap();
        settings
            .set("nats_url", "nats://me:hunter2@host:1,host:2")
            .unwrap();
        settings.merge_env("D_", [("D_COOLDOWN", "90s")]).unwrap();
        let dump = settings.dump();
        assert!(!dump.contains("hunter2"), "{dump}");
        let dump: Value = serde_json::from_str(&dump).unwrap();
        assert_eq!(
            dump["cooldown"],
            json!({"value": "1m30s", "origin": "env D_COOLDOWN"})
        );
        assert_eq!(dump["name"], json!({"value": "divvy", "origin": "default"}));
        assert_eq!(dump["nats_url"]["value"], "nats://***@host:1,host:2");
        assert_eq!(dump.as_object().unwrap().len(), KEYS.len());
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    /// A range that the table states is one that the library enforces.
    #[test]
    fn stated_ranges_of_calculator_and_manager_settings_are_enforced() {
        let mut enforced = 0;
        for key in KEYS {
            let outside = match (key.kind, key.range) {
                ("duration", range) if range.starts_with("above 0, up to 366d") => {
                    &["0", "8785h"][..]
                }
                ("duration", range) if range.starts_with("up to 366d") => &["8785h"],
                ("integer" | "number", range) if range.starts_with("1 or more") => &["0"],
                ("integer", range) if range.starts_with("2 or more") => &["1"],
                ("number", "0 to 1") => &["-0.1", "1.1"],
                ("number", "0 or more") => &["-0.1"],
                _ => continue,
            };
            for value in outside {
                let mut settings = Settings::new();
                settings.set(key.name, value).expect("it can be parsed");
                let config = settings.manager();
                let mut violations = config.violations();
                violations.extend(config.calculator.violations());
                let name = key.name.strip_prefix("outage_").unwrap_or(key.name);
                let is_found = violations
                    .iter()
                    .any(|v| v.field.trim_start_matches("outage.") == name);
                assert!(
                    is_found,
                    "{} = {value} is accepted: {violations:?}",
                    key.name
                );
                enforced += 1;
            }
        }
        assert!(enforced >= 30, "only {enforced} ranges were tried");
    }
}

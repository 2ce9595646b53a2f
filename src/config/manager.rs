//! A manager's configuration.

use std::path::PathBuf;
use std::time::Duration;

use super::{
    CalculatorConfig, ConfigRules, OutagePolicy, OutagePreset, Violation, into_result, text,
};
use crate::error::Result;
use crate::types::truncated;
use crate::wire::{KeyPrefix, instance_fault};

/// Maximum number of ids in a pool.
const IDS_MAX: u32 = 10_000;

/// When degraded mode begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutageTiming {
    /// Degraded mode begins after the store has been unhealthy for this long.
    pub enter_after: Duration,
    /// Degraded mode ends after the store has been healthy for this long.
    pub leave_after: Duration,
    /// Degraded mode also begins when this many requests fail within
    /// [`OutageTiming::error_window`].
    pub errors_max: u32,
    /// Window of [`OutageTiming::errors_max`].
    pub error_window: Duration,
}

impl OutagePreset {
    /// The preset's timing.
    #[must_use]
    pub fn timing(self) -> OutageTiming {
        let (enter_after, leave_after, errors_max, error_window) = match self {
            OutagePreset::Conservative => (30, 10, 10, 30),
            OutagePreset::Balanced => (10, 5, 5, 30),
            OutagePreset::Aggressive => (5, 3, 3, 15),
        };
        OutageTiming {
            enter_after: Duration::from_secs(enter_after),
            leave_after: Duration::from_secs(leave_after),
            errors_max,
            error_window: Duration::from_secs(error_window),
        }
    }

    /// The preset's [`CalculatorConfig::recovery_grace`] for a heartbeat TTL: 20 s, 15 s or 10 s
    /// with the default TTL of 6 s, and in proportion to it.
    #[must_use]
    pub fn recovery_grace(self, heartbeat_ttl: Duration) -> Duration {
        let sixths = match self {
            OutagePreset::Conservative => 20,
            OutagePreset::Balanced => 15,
            OutagePreset::Aggressive => 10,
        };
        heartbeat_ttl.saturating_mul(sixths) / 6
    }
}

/// Configuration of a manager. Start with [`ManagerConfig::default`] and change fields.
///
/// Use the same configuration in all workers of a fleet.
///
/// ```
/// use divvy::ManagerConfig;
///
/// let mut config = ManagerConfig::default();
/// config.worker_id_prefix = "tool-server".into();
/// config.worker_id_max = 499;
/// assert!(config.validate().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ManagerConfig {
    /// Configuration of the calculator that runs while this worker leads. `name` is replaced by the
    /// worker's id. Key prefixes, heartbeat TTL and operation timeout also apply to the worker.
    /// Default: [`CalculatorConfig::default`] with an emergency grace of 3 s.
    pub calculator: CalculatorConfig,
    /// Prefix of ids: `worker` for `worker-7`. Default: `worker`.
    pub worker_id_prefix: String,
    /// Lowest number of an id. Default: 0.
    pub worker_id_min: u32,
    /// Highest number of an id; at most 10 000 ids. Default: 999.
    pub worker_id_max: u32,
    /// Identity of this process that survives its restart, such as the name of its pod: at most 253
    /// letters, digits and `-/_=.`, or `@hostname` (the name of the host) or `@pod` (the environment
    /// variable `POD_NAME`). A process takes over the id of a former process with the same instance
    /// at once, instead of waiting for the claim to expire: one that is killed and restarted within
    /// the heartbeat TTL keeps its partitions. Each process of a fleet needs its own instance: one
    /// that still runs loses its id to the newer process
    /// ([`IdTakenOver`](crate::ManagerEvent::IdTakenOver)). With [`OutagePolicy::Strict`] the newer
    /// process owns nothing for one heartbeat TTL. Default: empty, none.
    pub instance: String,
    /// How long a claim of an id lasts without renewal. At least 3 heartbeat intervals and the
    /// heartbeat TTL. Default: 30 s.
    pub worker_id_ttl: Duration,
    /// Time between heartbeats. At most half of the heartbeat TTL. Default: 2 s.
    pub heartbeat_interval: Duration,
    /// How long a leader's lease lasts without renewal. Default: 5 s.
    pub election_timeout: Duration,
    /// Whether this worker may lead. Default: true.
    pub may_lead: bool,
    /// What happens to the partitions during an outage. Default: [`OutagePolicy::Serve`].
    pub outage_policy: OutagePolicy,
    /// A file in which this worker keeps its assignment, so that it can work at once if it starts
    /// while the store cannot be reached. Use one file per worker, in a directory that survives a
    /// restart. Rejected with [`OutagePolicy::Strict`]. Default: none.
    pub cache_file: Option<PathBuf>,
    /// How long the cached assignment is valid after the store last confirmed it. Partitions that
    /// have moved meanwhile have two owners for at most this long. At least 1 s. Default: 1 h.
    pub cache_max_age: Duration,
    /// When degraded mode begins and ends. Default: [`OutagePreset::Balanced`].
    pub outage: OutageTiming,
}

impl Default for ManagerConfig {
    fn default() -> Self {
        let heartbeat_interval = Duration::from_secs(2);
        Self {
            calculator: CalculatorConfig {
                emergency_grace_period: heartbeat_interval * 3 / 2,
                ..CalculatorConfig::default()
            },
            worker_id_prefix: "worker".into(),
            worker_id_min: 0,
            worker_id_max: 999,
            instance: String::new(),
            worker_id_ttl: Duration::from_secs(30),
            heartbeat_interval,
            election_timeout: Duration::from_secs(5),
            may_lead: true,
            outage_policy: OutagePolicy::default(),
            cache_file: None,
            cache_max_age: Duration::from_secs(3_600),
            outage: OutagePreset::default().timing(),
        }
    }
}

impl ManagerConfig {
    /// Applies the timing of a preset. Set the heartbeat TTL first: the recovery grace follows it.
    #[must_use]
    pub fn outage_preset(mut self, preset: OutagePreset) -> Self {
        self.outage = preset.timing();
        let ttl = self.calculator.heartbeat_ttl;
        self.calculator.recovery_grace = Some(preset.recovery_grace(ttl));
        self
    }

    /// Checks every rule, including those of the calculator.
    ///
    /// # Errors
    /// [`InvalidConfig`](crate::error::Code::InvalidConfig); the message lists every violation.
    pub fn validate(&self) -> Result<()> {
        into_result(&self.violations())
    }

    /// Returns every violated rule.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let mut rules = ConfigRules(self.calculator.violations());
        self.check_ids(&mut rules);
        for (field, value) in [
            ("worker_id_ttl", self.worker_id_ttl),
            ("heartbeat_interval", self.heartbeat_interval),
            ("election_timeout", self.election_timeout),
            ("outage.enter_after", self.outage.enter_after),
            ("outage.leave_after", self.outage.leave_after),
            ("outage.error_window", self.outage.error_window),
        ] {
            rules.positive(field, value);
        }
        if self.outage.errors_max == 0 {
            rules.broken("outage.errors_max", "0".into(), "must be 1 or more");
        }
        let interval = self.heartbeat_interval;
        let ttl = self.calculator.heartbeat_ttl;
        rules.at_least(
            "heartbeat_ttl",
            ttl,
            interval.saturating_mul(2),
            "2 x heartbeat_interval",
        );
        let id_ttl = self.worker_id_ttl;
        rules.at_least(
            "worker_id_ttl",
            id_ttl,
            interval.saturating_mul(3),
            "3 x heartbeat_interval",
        );
        rules.at_least("worker_id_ttl", id_ttl, ttl, "heartbeat_ttl");
        self.check_cache(&mut rules);
        rules.0
    }

    /// Returns unwise settings, including those of the calculator. They work, but not well.
    #[must_use]
    pub fn warnings(&self) -> Vec<Violation> {
        let mut rules = ConfigRules(self.calculator.warnings());
        if self.heartbeat_interval.saturating_mul(3) > self.calculator.heartbeat_ttl {
            let rule = "should not be above a third of heartbeat_ttl: one lost heartbeat makes the \
                        worker suspected";
            rules.broken("heartbeat_interval", text(self.heartbeat_interval), rule);
        }
        rules.0
    }

    fn check_cache(&self, rules: &mut ConfigRules) {
        let Some(file) = &self.cache_file else {
            return;
        };
        let shown = format!("{}", file.display());
        if file.file_name().is_none() {
            rules.broken("cache_file", shown.clone(), "must name a file");
        }
        if self.outage_policy == OutagePolicy::Strict {
            let rule = "must not be set with outage_policy strict: that a worker alone owns what a \
                        file says is never certain";
            rules.broken("cache_file", shown, rule);
        }
        let least = Duration::from_secs(1);
        rules.at_least("cache_max_age", self.cache_max_age, least, "one second");
    }

    fn check_ids(&self, rules: &mut ConfigRules) {
        let prefix = &self.worker_id_prefix;
        if let Err(error) = KeyPrefix::new(prefix) {
            rules.broken("worker_id_prefix", format!("{prefix:?}"), error.message());
        } else if prefix.len() > 200 {
            let value = format!("{prefix:?}");
            rules.broken("worker_id_prefix", value, "must have at most 200 bytes");
        }
        let (min, max) = (self.worker_id_min, self.worker_id_max);
        if max < min {
            let rule = format!("must not be below worker_id_min ({min})");
            rules.broken("worker_id_max", max.to_string(), rule);
        } else if max - min >= IDS_MAX {
            let rule = format!("must be below worker_id_min ({min}) + {IDS_MAX}");
            rules.broken("worker_id_max", max.to_string(), rule);
        }
        let instance = self.instance.as_str();
        let is_named = ["", "@hostname", "@pod"].contains(&instance);
        if let Some(fault) = instance_fault(instance).filter(|_| !is_named) {
            let value = format!("{:?}", truncated(instance, 60));
            rules.broken("instance", value, fault);
        }
    }
}

impl ConfigRules {
    fn at_least(&mut self, field: &'static str, value: Duration, least: Duration, what: &str) {
        if value < least {
            let rule = format!("must not be below {what} ({})", text(least));
            self.broken(field, text(value), rule);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manager_defaults_are_valid() {
        ManagerConfig::default().validate().unwrap();
        for preset in [
            OutagePreset::Conservative,
            OutagePreset::Balanced,
            OutagePreset::Aggressive,
        ] {
            let config = ManagerConfig::default().outage_preset(preset);
            config.validate().unwrap();
        }
    }

    #[test]
    fn cache_file_requires_name_and_non_strict_policy() {
        let mut config = ManagerConfig {
            cache_file: Some("/var/lib/service/assignment".into()),
            ..ManagerConfig::default()
        };
        config.validate().unwrap();
        config.outage_policy = OutagePolicy::Strict;
        let error = config.validate().unwrap_err();
        assert!(error.message().contains("outage_policy strict"), "{error}");
        config.outage_policy = OutagePolicy::Serve;
        config.cache_file = Some("/".into());
        config.cache_max_age = Duration::ZERO;
        let fields: Vec<_> = config.violations().iter().map(|v| v.field).collect();
        assert_eq!(fields, ["cache_file", "cache_max_age"]);
    }

    #[test]
    fn unwise_manager_settings_are_warnings_and_impossible_ones_errors() {
        let mut config = ManagerConfig::default();
        config.calculator.cold_start_window = Duration::from_secs(5);
        config.calculator.emergency_grace_period = Duration::from_secs(7);
        config.worker_id_prefix = "a b".into();
        config.worker_id_min = 7;
        config.worker_id_max = 6;
        config.worker_id_ttl = Duration::from_secs(5);
        config.heartbeat_interval = Duration::from_secs(4);
        config.outage.errors_max = 0;
        let fields: Vec<_> = config.violations().iter().map(|v| v.field).collect();
        assert_eq!(
            fields,
            [
                "worker_id_prefix",
                "worker_id_max",
                "outage.errors_max",
                "heartbeat_ttl",
                "worker_id_ttl",
                "worker_id_ttl",
            ]
        );
        let fields: Vec<_> = config.warnings().iter().map(|v| v.field).collect();
        assert_eq!(
            fields,
            [
                "cold_start_window",
                "cooldown",
                "emergency_grace_period",
                "heartbeat_interval",
            ]
        );
    }
}

//! The calculator's configuration.

mod manager;

use std::fmt;
use std::time::Duration;

pub use self::manager::{ManagerConfig, OutageTiming};
use crate::error::{Code, Error, Result};
pub use crate::vocabulary::{OutagePolicy, OutagePreset, PublishMode};
use crate::wire::KeyPrefix;

/// Configuration of a calculator. Start with [`CalculatorConfig::default`] and change fields.
///
/// What cannot work is an error ([`CalculatorConfig::validate`]). What is unwise is a warning
/// ([`CalculatorConfig::warnings`]), logged when the calculator or manager is built.
///
/// ```
/// use std::time::Duration;
///
/// use divvy::CalculatorConfig;
///
/// let mut config = CalculatorConfig::default();
/// config.cooldown = Duration::from_secs(5);
/// assert!(config.validate().is_ok());
///
/// config.cooldown = Duration::ZERO;
/// assert!(config.validate().unwrap_err().message().contains("cooldown"));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CalculatorConfig {
    /// Name of this leader in the fence record. Default: `divvy`.
    pub name: String,
    /// Prefix of the heartbeat keys. Default: `heartbeat`.
    pub heartbeat_prefix: String,
    /// Prefix of the assignment keys. Default: `assignment`.
    pub assignment_prefix: String,
    /// Time without a heartbeat after which a worker is suspected. Default: 6 s.
    pub heartbeat_ttl: Duration,
    /// Time after which a suspected worker is declared dead. Default: 5 s.
    pub emergency_grace_period: Duration,
    /// Minimum time between publications. Emergencies, leaves and manual triggers bypass it.
    /// Default: 10 s.
    pub cooldown: Duration,
    /// How long a fleet that has no plan yet waits for more workers before its first plan. Each join
    /// starts the delay again, up to `cold_start_window` after the first worker. A manual trigger
    /// ends it. 0 disables it. Default: 3 s.
    pub initial_delay: Duration,
    /// A fleet that has no plan yet gets its first one when this many workers are alive. 1 or more.
    /// Default: 1.
    pub min_workers: u32,
    /// How long to wait for workers after a start without workers, after the first plan of a fleet
    /// and after a mass expiry. Default: 30 s.
    pub cold_start_window: Duration,
    /// How long to wait for more joins after the first. Default: 10 s.
    pub planned_scale_window: Duration,
    /// How long to wait for more leaves after the first. 0 disables the wait. Default: 1 s.
    pub leave_window: Duration,
    /// Joins within this time are reported together. Default: 100 ms.
    pub join_coalescing: Duration,
    /// Share of the planned workers (at least two) that must disappear within one TTL to count as a
    /// restart of the fleet instead of an emergency. 0 to 1. Default: 0.5.
    pub restart_ratio: f64,
    /// Fraction by which the most loaded worker must exceed the fair level before a change of
    /// weights alone triggers a rebalance. 0 or more. Default: 0.2.
    pub min_rebalance_threshold: f64,
    /// A partition list that lost more than this share of the partitions in force, or became empty, is
    /// held back until it is confirmed ([`Calculator::confirm_partitions`]) or has stayed for
    /// [`CalculatorConfig::list_shrink_hold`]; workers keep what they have. 0 to 1, default: 0.5;
    /// 1: never.
    ///
    /// [`Calculator::confirm_partitions`]: crate::Calculator::confirm_partitions
    pub max_list_shrink: f64,
    /// See [`CalculatorConfig::max_list_shrink`]. Default: 5 min.
    pub list_shrink_hold: Duration,
    /// Weight of a partition whose weight is 0 or less. 1 or more. Default: 1.
    pub default_weight: i64,
    /// Added to the TTL after an outage before a worker can be suspected. Default: `None`, which is
    /// 2.5 × `heartbeat_ttl` ([`CalculatorConfig::recovery_grace`]).
    pub recovery_grace: Option<Duration>,
    /// Report a live worker as lagging if it has not applied its assignment within this time. 0
    /// disables the check. Default: 10 s.
    pub apply_timeout: Duration,
    /// First delay before a failed publication is retried. Default: 100 ms.
    pub retry_delay_min: Duration,
    /// Maximum delay before a failed publication is retried. Default: 5 s.
    pub retry_delay_max: Duration,
    /// Maximum time that one rebalance may spend on the store. A single call waits for a quarter of
    /// it, longer while the store is slow. Default: 10 s.
    pub operation_timeout: Duration,
    /// A call of the host's code (partition source, strategy, election, event callback) that takes
    /// longer is reported until it returns. Above 0. Default: 10 s.
    pub host_call_timeout: Duration,
    /// How long a rebalance waits for the partition source before it uses the last list. Default:
    /// 500 ms.
    pub source_wait: Duration,
    /// The partition source is read again after this time although nothing has changed. 0 disables
    /// it. Default: 0.
    pub source_refresh_interval: Duration,
    /// A changed partition list is published after this time, together with what changes meanwhile.
    /// A window for joins or leaves that is open covers it. Default: 0.
    pub partition_change_window: Duration,
    /// A leader that cannot make a plan for this long (the source has never returned a list, or the
    /// strategy fails or hangs) is reported as degraded, and its manager hands leadership over. 0
    /// disables it. Default: 60 s.
    pub planning_timeout: Duration,
    /// Number of malformed values within [`CalculatorConfig::malformed_window`] that degrades the
    /// calculator. 1 or more. Default: 10.
    pub malformed_threshold: u32,
    /// Window of [`CalculatorConfig::malformed_threshold`]. Default: 60 s.
    pub malformed_window: Duration,
    /// A condition is reported as degraded after this time. 0 reports it at once. Default: 1 s.
    pub degraded_enter_after: Duration,
    /// A reported degradation is cleared once the condition has been healthy for this long.
    /// Default: 5 s.
    pub degraded_leave_after: Duration,
    /// Maximum number of events kept for a slow subscriber. A subscriber that exceeds it is closed
    /// with a last event that says so. 1 or more. Default: 65 536.
    pub subscriber_backlog: usize,
    /// Whether the host knows that the former leader's lease has expired (it won an election). A
    /// former leader without a heartbeat is then declared dead at once. Default: false.
    pub former_leader_lease_over: bool,
    /// How assignments are published. Default: automatic.
    pub publish_mode: PublishMode,
    /// Maximum number of writes in one atomic batch; the store may allow fewer. 2 or more. Default:
    /// 1 000.
    pub publish_batch_max: usize,
    /// Whether an assignment bucket with a TTL is accepted. The fence and the versions expire with
    /// it. Default: false.
    pub allow_assignment_ttl: bool,
    /// Shadow mode: write nothing, plan next to a live leader, report what would have been
    /// published ([`CalculatorEvent::WouldPublish`](crate::CalculatorEvent::WouldPublish)), and how
    /// that differs from what the leader published
    /// ([`CalculatorEvent::LeaderPublished`](crate::CalculatorEvent::LeaderPublished)). The buckets
    /// must exist. Default: false.
    pub shadow: bool,
}

impl Default for CalculatorConfig {
    fn default() -> Self {
        Self {
            name: "divvy".into(),
            heartbeat_prefix: "heartbeat".into(),
            assignment_prefix: "assignment".into(),
            heartbeat_ttl: Duration::from_secs(6),
            emergency_grace_period: Duration::from_secs(5),
            cooldown: Duration::from_secs(10),
            initial_delay: Duration::from_secs(3),
            min_workers: 1,
            cold_start_window: Duration::from_secs(30),
            planned_scale_window: Duration::from_secs(10),
            leave_window: Duration::from_secs(1),
            join_coalescing: Duration::from_millis(100),
            restart_ratio: 0.5,
            min_rebalance_threshold: 0.2,
            max_list_shrink: 0.5,
            list_shrink_hold: Duration::from_secs(300),
            default_weight: 1,
            recovery_grace: None,
            apply_timeout: Duration::from_secs(10),
            retry_delay_min: Duration::from_millis(100),
            retry_delay_max: Duration::from_secs(5),
            operation_timeout: Duration::from_secs(10),
            host_call_timeout: Duration::from_secs(10),
            source_wait: Duration::from_millis(500),
            source_refresh_interval: Duration::ZERO,
            partition_change_window: Duration::ZERO,
            planning_timeout: Duration::from_secs(60),
            malformed_threshold: 10,
            malformed_window: Duration::from_secs(60),
            degraded_enter_after: Duration::from_secs(1),
            degraded_leave_after: Duration::from_secs(5),
            subscriber_backlog: 65_536,
            former_leader_lease_over: false,
            publish_mode: PublishMode::Auto,
            publish_batch_max: 1_000,
            allow_assignment_ttl: false,
            shadow: false,
        }
    }
}

/// Maximum duration of a setting: one year.
pub const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// A violated rule: field, value and rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the field.
    pub field: &'static str,
    /// Value of the field, as text.
    pub value: String,
    /// The violated rule.
    pub rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} {}", self.field, self.value, self.rule)
    }
}

impl CalculatorConfig {
    /// Returns the recovery grace in force: the one that is set, or the default for the heartbeat
    /// TTL.
    #[must_use]
    pub fn recovery_grace(&self) -> Duration {
        let default = || OutagePreset::default().recovery_grace(self.heartbeat_ttl);
        self.recovery_grace.unwrap_or_else(default)
    }

    /// Returns the settings by which a leader decides when to publish, to compare the replicas of a
    /// fleet. A setting at its default is left out, so that a release that adds one is compared as
    /// before.
    pub(crate) fn shared_settings(&self) -> String {
        let shown = |config: &Self| {
            [
                ("heartbeat_ttl", format!("{:?}", config.heartbeat_ttl)),
                (
                    "emergency_grace_period",
                    format!("{:?}", config.emergency_grace_period),
                ),
                ("cooldown", format!("{:?}", config.cooldown)),
                ("initial_delay", format!("{:?}", config.initial_delay)),
                ("min_workers", config.min_workers.to_string()),
                (
                    "cold_start_window",
                    format!("{:?}", config.cold_start_window),
                ),
                (
                    "planned_scale_window",
                    format!("{:?}", config.planned_scale_window),
                ),
                ("leave_window", format!("{:?}", config.leave_window)),
                ("restart_ratio", config.restart_ratio.to_string()),
                (
                    "min_rebalance_threshold",
                    config.min_rebalance_threshold.to_string(),
                ),
                ("max_list_shrink", config.max_list_shrink.to_string()),
                ("list_shrink_hold", format!("{:?}", config.list_shrink_hold)),
                ("default_weight", config.default_weight.to_string()),
                (
                    "partition_change_window",
                    format!("{:?}", config.partition_change_window),
                ),
            ]
        };
        let ours = shown(self).into_iter().zip(shown(&Self::default()));
        let changed = ours.filter(|(ours, default)| ours != default);
        changed
            .map(|((name, value), _)| format!("{name}={value}\n"))
            .collect()
    }

    /// Checks every rule without which the calculator cannot work.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`]; the message lists every violation.
    pub fn validate(&self) -> Result<()> {
        into_result(&self.violations())
    }

    /// Returns every violated rule.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let mut rules = ConfigRules::default();
        if self.name.is_empty() || self.name.len() > 255 {
            rules.broken(
                "name",
                format!("{:?}", self.name),
                "must have 1 to 255 bytes",
            );
        }
        rules.prefix("heartbeat_prefix", &self.heartbeat_prefix);
        rules.prefix("assignment_prefix", &self.assignment_prefix);
        for (field, value) in self.positive_durations() {
            rules.positive(field, value);
        }
        for (field, value) in self.durations_that_may_be_zero() {
            rules.at_most(field, value);
        }
        if !(0.0..=1.0).contains(&self.restart_ratio) {
            rules.broken(
                "restart_ratio",
                self.restart_ratio.to_string(),
                "must be from 0 to 1",
            );
        }
        if !(0.0..=1.0).contains(&self.max_list_shrink) {
            rules.broken(
                "max_list_shrink",
                self.max_list_shrink.to_string(),
                "must be from 0 to 1",
            );
        }
        let threshold = self.min_rebalance_threshold;
        if !(threshold.is_finite() && threshold >= 0.0) {
            rules.broken(
                "min_rebalance_threshold",
                threshold.to_string(),
                "must be 0 or more",
            );
        }
        if self.default_weight < 1 {
            rules.broken(
                "default_weight",
                self.default_weight.to_string(),
                "must be 1 or more",
            );
        }
        if self.retry_delay_max < self.retry_delay_min {
            rules.broken(
                "retry_delay_max",
                text(self.retry_delay_max),
                format!(
                    "must not be below retry_delay_min ({})",
                    text(self.retry_delay_min)
                ),
            );
        }
        if self.publish_batch_max < 2 {
            rules.broken(
                "publish_batch_max",
                self.publish_batch_max.to_string(),
                "must be 2 or more",
            );
        }
        if self.min_workers == 0 {
            rules.broken("min_workers", "0".into(), "must be 1 or more");
        }
        if self.malformed_threshold == 0 {
            rules.broken("malformed_threshold", "0".into(), "must be 1 or more");
        }
        if self.subscriber_backlog == 0 {
            rules.broken("subscriber_backlog", "0".into(), "must be 1 or more");
        }
        rules.0
    }

    /// Returns unwise settings. They work, but not well.
    #[must_use]
    pub fn warnings(&self) -> Vec<Violation> {
        let mut rules = ConfigRules::default();
        let windows = [
            ("cold_start_window", self.cold_start_window),
            ("planned_scale_window", self.planned_scale_window),
        ];
        if self.cold_start_window < self.planned_scale_window {
            rules.broken(
                "cold_start_window",
                text(self.cold_start_window),
                format!(
                    "should not be below planned_scale_window ({})",
                    text(self.planned_scale_window)
                ),
            );
        }
        for (name, window) in windows {
            if self.cooldown > window {
                rules.broken(
                    "cooldown",
                    text(self.cooldown),
                    format!("should not be above {name} ({})", text(window)),
                );
            }
        }
        if self.emergency_grace_period > self.heartbeat_ttl {
            rules.broken(
                "emergency_grace_period",
                text(self.emergency_grace_period),
                format!(
                    "should not be above heartbeat_ttl ({})",
                    text(self.heartbeat_ttl)
                ),
            );
        }
        rules.0
    }

    fn positive_durations(&self) -> [(&'static str, Duration); 10] {
        [
            ("heartbeat_ttl", self.heartbeat_ttl),
            ("emergency_grace_period", self.emergency_grace_period),
            ("cooldown", self.cooldown),
            ("cold_start_window", self.cold_start_window),
            ("planned_scale_window", self.planned_scale_window),
            ("retry_delay_min", self.retry_delay_min),
            ("retry_delay_max", self.retry_delay_max),
            ("operation_timeout", self.operation_timeout),
            ("host_call_timeout", self.host_call_timeout),
            ("malformed_window", self.malformed_window),
        ]
    }

    fn durations_that_may_be_zero(&self) -> [(&'static str, Duration); 12] {
        [
            ("initial_delay", self.initial_delay),
            ("leave_window", self.leave_window),
            ("list_shrink_hold", self.list_shrink_hold),
            ("join_coalescing", self.join_coalescing),
            ("recovery_grace", self.recovery_grace()),
            ("apply_timeout", self.apply_timeout),
            ("source_wait", self.source_wait),
            ("source_refresh_interval", self.source_refresh_interval),
            ("partition_change_window", self.partition_change_window),
            ("planning_timeout", self.planning_timeout),
            ("degraded_enter_after", self.degraded_enter_after),
            ("degraded_leave_after", self.degraded_leave_after),
        ]
    }
}

/// All violations as one error; `Ok` if there are none.
fn into_result(violations: &[Violation]) -> Result<()> {
    if violations.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
    Err(Error::new(
        Code::InvalidConfig,
        format!(
            "{} setting(s) break a rule: {}",
            list.len(),
            list.join("; ")
        ),
    ))
}

#[derive(Default)]
struct ConfigRules(Vec<Violation>);

impl ConfigRules {
    fn broken(&mut self, field: &'static str, value: String, rule: impl Into<String>) {
        self.0.push(Violation {
            field,
            value,
            rule: rule.into(),
        });
    }

    fn prefix(&mut self, field: &'static str, value: &str) {
        if let Err(error) = KeyPrefix::new(value) {
            self.broken(field, format!("{value:?}"), error.message());
        }
    }

    fn positive(&mut self, field: &'static str, value: Duration) {
        if value.is_zero() {
            self.broken(field, text(value), "must be above 0");
        }
        self.at_most(field, value);
    }

    fn at_most(&mut self, field: &'static str, value: Duration) {
        if value > DURATION_MAX {
            self.broken(field, text(value), "must not be above a year");
        }
    }
}

fn text(duration: Duration) -> String {
    crate::time::duration::format(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_raise_no_warning() {
        let config = CalculatorConfig::default();
        config.validate().unwrap();
        assert_eq!(config.warnings(), []);
    }

    #[test]
    fn violations_are_reported_together_with_field_value_and_rule() {
        let config = CalculatorConfig {
            name: String::new(),
            heartbeat_prefix: "a b".into(),
            heartbeat_ttl: Duration::ZERO,
            cooldown: Duration::MAX,
            restart_ratio: f64::NAN,
            min_rebalance_threshold: -1.0,
            default_weight: 0,
            retry_delay_min: Duration::from_secs(9),
            malformed_threshold: 0,
            subscriber_backlog: 0,
            ..CalculatorConfig::default()
        };
        let fields: Vec<_> = config.violations().iter().map(|v| v.field).collect();
        assert_eq!(
            fields,
            [
                "name",
                "heartbeat_prefix",
                "heartbeat_ttl",
                "cooldown",
                "restart_ratio",
                "min_rebalance_threshold",
                "default_weight",
                "retry_delay_max",
                "malformed_threshold",
                "subscriber_backlog",
            ]
        );
        let error = config.validate().unwrap_err();
        assert_eq!(error.code(), Code::InvalidConfig);
        let message = error.to_string();
        assert!(
            message.contains("heartbeat_ttl = 0s must be above 0"),
            "{message}"
        );
        assert!(
            message.contains("default_weight = 0 must be 1 or more"),
            "{message}"
        );
    }

    #[test]
    fn short_windows_and_long_graces_only_raise_warnings() {
        let config = CalculatorConfig {
            cold_start_window: Duration::from_millis(5),
            planned_scale_window: Duration::from_millis(10),
            emergency_grace_period: Duration::from_secs(60),
            ..CalculatorConfig::default()
        };
        config.validate().unwrap();
        let fields: Vec<_> = config.warnings().iter().map(|v| v.field).collect();
        assert_eq!(
            fields,
            [
                "cold_start_window",
                "cooldown",
                "cooldown",
                "emergency_grace_period"
            ]
        );
    }
}

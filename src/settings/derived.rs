//! Values of settings that were not set and depend on settings that were.

use std::time::Duration;

use super::{Settings, Values};
use crate::config::{CalculatorConfig, ManagerConfig, OutagePreset};
use crate::metrics::MetricNames;
use crate::store::Bucket;
use crate::strategy::{StrategyKind, StrategyOptions};
use crate::vocabulary::StoreKind;

impl Default for Values {
    fn default() -> Self {
        let mut calculator = CalculatorConfig::default();
        calculator.recovery_grace = Some(calculator.recovery_grace());
        Self {
            calculator,
            manager: ManagerConfig::default(),
            outage_preset: OutagePreset::default(),
            store: StoreKind::default(),
            strategy: StrategyKind::default(),
            strategy_options: StrategyOptions::default(),
            strict: false,
            metrics: MetricNames::default(),
            nats: Default::default(),
        }
    }
}

impl Settings {
    /// Gives each setting that was not set the default that fits those that were.
    pub(super) fn derive(&mut self) {
        self.derive_heartbeat();
        self.derive_windows();
        self.derive_ids();
        self.derive_outage();
        self.derive_buckets();
    }

    /// Heartbeat interval and TTL follow each other, and what is measured in them follows both.
    fn derive_heartbeat(&mut self) {
        let defaults = Values::default();
        let is_set = |name| self.origins.contains_key(name);
        let calculator = &mut self.values.calculator;
        let manager = &mut self.values.manager;
        if !is_set("heartbeat_interval") {
            let fitting = calculator.heartbeat_ttl / 3;
            manager.heartbeat_interval = match is_set("heartbeat_ttl") && !fitting.is_zero() {
                true => fitting.min(defaults.manager.heartbeat_interval),
                false => defaults.manager.heartbeat_interval,
            };
        }
        if !is_set("heartbeat_ttl") {
            let fitting = manager.heartbeat_interval.saturating_mul(3);
            calculator.heartbeat_ttl = fitting.max(defaults.calculator.heartbeat_ttl);
        }
        let ttl = calculator.heartbeat_ttl;
        if !is_set("worker_id_ttl") {
            let fitting = manager.heartbeat_interval.saturating_mul(3).max(ttl);
            manager.worker_id_ttl = fitting.max(defaults.manager.worker_id_ttl);
        }
        if !is_set("emergency_grace_period") {
            let grace = defaults.calculator.emergency_grace_period;
            calculator.emergency_grace_period = if ttl.is_zero() { grace } else { grace.min(ttl) };
        }
        if !is_set("recovery_grace") {
            let grace = self.values.outage_preset.recovery_grace(ttl);
            calculator.recovery_grace = Some(grace);
        }
    }

    /// `cooldown` <= `planned_scale_window` <= `cold_start_window`.
    fn derive_windows(&mut self) {
        let defaults = CalculatorConfig::default();
        let is_set = |name| self.origins.contains_key(name);
        let calculator = &mut self.values.calculator;
        let set = |name, value| if is_set(name) { value } else { Duration::ZERO };
        let cooldown = set("cooldown", calculator.cooldown);
        let planned = set("planned_scale_window", calculator.planned_scale_window);
        let cold = set("cold_start_window", calculator.cold_start_window);
        let or = |value: Duration, other| if value.is_zero() { other } else { value };
        if !is_set("planned_scale_window") {
            let least = defaults.planned_scale_window.max(cooldown);
            calculator.planned_scale_window = least.min(or(cold, least));
        }
        if !is_set("cold_start_window") {
            calculator.cold_start_window = defaults.cold_start_window.max(planned).max(cooldown);
        }
        if !is_set("cooldown") {
            let most = or(planned, defaults.cooldown).min(or(cold, defaults.cooldown));
            calculator.cooldown = defaults.cooldown.min(most);
        }
        if !is_set("retry_delay_min") {
            let max = or(
                set("retry_delay_max", calculator.retry_delay_max),
                defaults.retry_delay_max,
            );
            calculator.retry_delay_min = defaults.retry_delay_min.min(max);
        }
        if !is_set("retry_delay_max") {
            let min = set("retry_delay_min", calculator.retry_delay_min);
            calculator.retry_delay_max = defaults.retry_delay_max.max(min);
        }
    }

    /// The pool reaches at least as far as its lowest id.
    fn derive_ids(&mut self) {
        if !self.is_set("worker_id_max") {
            let size = ManagerConfig::default().worker_id_max;
            let manager = &mut self.values.manager;
            manager.worker_id_max = match manager.worker_id_min <= size {
                true => size,
                false => manager.worker_id_min.saturating_add(size),
            };
        }
    }

    fn derive_outage(&mut self) {
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
    }

    fn derive_buckets(&mut self) {
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
}

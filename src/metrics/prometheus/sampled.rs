//! Series that are sampled at each scrape.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, IntGauge, IntGaugeVec};

use super::registrar::{Registrar, unusable};
use crate::error::Result;
use crate::metrics::{Probe, Reading};
use crate::types::CalculatorState;
use crate::vocabulary::labels::HostCall;

/// Gauges that sample the calculator's probe at each scrape.
#[derive(Clone)]
pub(super) struct Sampled(Arc<Inner>);

struct Inner {
    /// Locked during a scrape, so that each of two concurrent scrapes is consistent.
    probe: Mutex<Option<Weak<dyn Probe>>>,
    up: IntGauge,
    state: IntGaugeVec,
    state_age: Gauge,
    workers_age: Gauge,
    list_age: Gauge,
    host_calls: GaugeVec,
    inbox: IntGauge,
    subscribers: IntGauge,
    backlog: IntGauge,
}

impl Sampled {
    pub fn new(registrar: &mut Registrar) -> Result<Self> {
        let gauge = |name, help| IntGauge::with_opts(registrar.opts(name, help)).map_err(unusable);
        let level = |name, help| Gauge::with_opts(registrar.opts(name, help)).map_err(unusable);
        let inner = Inner {
            probe: Mutex::new(None),
            up: gauge("calculator_up", "1 while the calculator is running.")?,
            state: IntGaugeVec::new(
                registrar.opts(
                    "calculator_state",
                    "1 for the current state of the calculator.",
                ),
                &["state"],
            )
            .map_err(unusable)?,
            state_age: level(
                "calculator_state_age_seconds",
                "Time in the current state of the calculator.",
            )?,
            workers_age: level(
                "worker_list_age_seconds",
                "Time since the last heartbeat of any worker. 0 before the first.",
            )?,
            list_age: level(
                "partition_list_age_seconds",
                "Time since the partition source returned its last list. 0 before the first, and if the list is pushed.",
            )?,
            host_calls: GaugeVec::new(
                registrar.opts(
                    "host_call_overdue_seconds",
                    "For how long a call of the host's code has been running beyond host_call_timeout. 0: none is.",
                ),
                &["call"],
            )
            .map_err(unusable)?,
            inbox: gauge(
                "calculator_inbox_messages",
                "Messages queued for the calculator's thread.",
            )?,
            subscribers: gauge("subscribers", "Open event subscriptions.")?,
            backlog: gauge(
                "subscriber_backlog_events",
                "Events queued for the slowest subscriber.",
            )?,
        };
        for state in CalculatorState::ALL {
            inner.state.with_label_values(&[state.name()]);
        }
        for call in HostCall::ALL {
            inner.host_calls.with_label_values(&[call.name()]);
        }
        registrar.register(Self(Arc::new(inner)))
    }

    pub fn attach(&self, probe: Weak<dyn Probe>) {
        *self.0.probe.lock() = Some(probe);
    }
}

impl Inner {
    fn show(&self, reading: Reading) {
        self.up.set(i64::from(reading.is_started));
        for state in CalculatorState::ALL {
            let gauge = self.state.with_label_values(&[state.name()]);
            gauge.set(i64::from(state == reading.state));
        }
        self.state_age.set(reading.state_age.as_secs_f64());
        let age = reading.workers_age.unwrap_or_default();
        self.workers_age.set(age.as_secs_f64());
        let age = reading.list_age.unwrap_or_default();
        self.list_age.set(age.as_secs_f64());
        for (call, overdue) in reading.host_calls_overdue {
            let gauge = self.host_calls.with_label_values(&[call.name()]);
            gauge.set(overdue.as_secs_f64());
        }
        self.inbox.set(count(reading.inbox));
        self.subscribers.set(count(reading.subscribers));
        self.backlog.set(count(reading.backlog));
    }

    fn gauges(&self) -> [&dyn Collector; 9] {
        [
            &self.up,
            &self.state,
            &self.state_age,
            &self.workers_age,
            &self.list_age,
            &self.host_calls,
            &self.inbox,
            &self.subscribers,
            &self.backlog,
        ]
    }
}

impl Collector for Sampled {
    fn desc(&self) -> Vec<&Desc> {
        self.0.gauges().into_iter().flat_map(|g| g.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let probe = self.0.probe.lock();
        let alive = probe.as_ref().and_then(Weak::upgrade);
        self.0
            .show(alive.map_or_else(Reading::idle, |probe| probe.read()));
        let gauges = self.0.gauges();
        gauges.into_iter().flat_map(|g| g.collect()).collect()
    }
}

/// Converts a count to the value of a gauge; saturates.
pub(super) fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

//! Series that are read when they are scraped.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntGauge, IntGaugeVec};

use super::registrar::{Registrar, unusable};
use crate::error::Result;
use crate::metrics::{Probe, Reading};
use crate::types::CalculatorState;

/// Gauges that show what the calculator's probe reads at each scrape.
#[derive(Clone)]
pub(super) struct Sampled(Arc<Inner>);

struct Inner {
    /// Held during a scrape, so that two at once show one moment each.
    probe: Mutex<Option<Weak<dyn Probe>>>,
    up: IntGauge,
    state: IntGaugeVec,
    state_age: Gauge,
    workers_age: Gauge,
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
            up: gauge(
                "calculator_up",
                "Whether the calculator is started and at work.",
            )?,
            state: IntGaugeVec::new(
                registrar.opts("calculator_state", "1 for the state the calculator is in."),
                &["state"],
            )
            .map_err(unusable)?,
            state_age: level(
                "calculator_state_age_seconds",
                "How long the calculator has been in its state.",
            )?,
            workers_age: level(
                "worker_list_age_seconds",
                "Time since any heartbeat was heard: the age of the list of workers. 0 before the first.",
            )?,
            inbox: gauge(
                "calculator_inbox_messages",
                "Messages that wait for the calculator's thread.",
            )?,
            subscribers: gauge("subscribers", "Subscribers of events.")?,
            backlog: gauge(
                "subscriber_backlog_events",
                "Events that wait for the slowest subscriber.",
            )?,
        };
        for state in CalculatorState::ALL {
            inner.state.with_label_values(&[state.name()]);
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
        self.inbox.set(count(reading.inbox));
        self.subscribers.set(count(reading.subscribers));
        self.backlog.set(count(reading.backlog));
    }

    fn gauges(&self) -> [&dyn Collector; 7] {
        [
            &self.up,
            &self.state,
            &self.state_age,
            &self.workers_age,
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

/// A count as a gauge has it.
pub(super) fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

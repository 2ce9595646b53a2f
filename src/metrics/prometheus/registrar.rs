//! Creates and registers series. Unregisters all of them if one fails.

use std::collections::HashMap;

use prometheus::core::Collector;
use prometheus::{
    Counter, CounterVec, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::error::{Code, Error, Result};
use crate::metrics::MetricNames;

/// Histogram bounds in seconds for rebalances, their steps, and callbacks.
const WORK_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Histogram bounds in seconds for store calls.
const CALL_SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Labels reserved for histograms and for `build_info`.
const RESERVED: [&str; 2] = ["le", "version"];

/// The bounds of a histogram.
#[derive(Clone, Copy)]
pub(super) enum Scale {
    Work,
    Call,
}

impl Scale {
    fn buckets(self) -> Vec<f64> {
        match self {
            Scale::Work => WORK_SECONDS.to_vec(),
            Scale::Call => CALL_SECONDS.to_vec(),
        }
    }
}

/// Creates series under the configured names. All series of a family are created together, so that
/// every series exists from the first scrape and recording needs no lookup.
pub(super) struct Registrar {
    registry: Registry,
    namespace: String,
    labels: HashMap<String, String>,
    /// The registered collectors, unregistered on drop.
    registered: Vec<Box<dyn Unregister>>,
}

/// A collector that can be unregistered; the registry identifies it by a clone.
trait Unregister: Send + Sync {
    fn unregister(&self, registry: &Registry);
}

impl<C: Collector + Clone + 'static> Unregister for C {
    fn unregister(&self, registry: &Registry) {
        let _ = registry.unregister(Box::new(self.clone()));
    }
}

impl Registrar {
    pub fn new(registry: Registry, names: &MetricNames) -> Result<Self> {
        let mut labels = HashMap::new();
        for label in &names.labels {
            let pair = label.split_once('=').map(|(n, v)| (n.trim(), v.trim()));
            let Some((name, value)) = pair.filter(|(name, _)| !name.is_empty()) else {
                return Err(invalid(format!(
                    "the label {label:?} does not have the form name=value"
                )));
            };
            if RESERVED.contains(&name) {
                return Err(invalid(format!(
                    "the label {name:?} is reserved for series of the library; choose another name"
                )));
            }
            if labels.insert(name.to_owned(), value.to_owned()).is_some() {
                return Err(invalid(format!("the label {name:?} is given twice")));
            }
        }
        Ok(Self {
            registry,
            namespace: names.namespace.clone(),
            labels,
            registered: Vec::new(),
        })
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Omits the namespace from all further names.
    pub fn without_namespace(&mut self) {
        self.namespace = String::new();
    }

    pub fn counter(&mut self, name: &str, help: &str) -> Result<IntCounter> {
        let made = IntCounter::with_opts(self.opts(name, help)).map_err(unusable)?;
        self.register(made)
    }

    /// Creates one counter for each value of the label.
    pub fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[&str],
    ) -> Result<Vec<IntCounter>> {
        let made = IntCounterVec::new(self.opts(name, help), &[label]).map_err(unusable)?;
        let family = self.register(made)?;
        let child = |value: &&str| family.with_label_values(&[*value]);
        Ok(values.iter().map(child).collect())
    }

    /// Creates one counter for each pair of label values, indexed by the first, then the second.
    pub fn counter_grid(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; 2],
        values: [&[&str]; 2],
    ) -> Result<Vec<Vec<IntCounter>>> {
        let made = IntCounterVec::new(self.opts(name, help), &labels).map_err(unusable)?;
        let family = self.register(made)?;
        let row = |first: &&str| {
            let child = |second: &&str| family.with_label_values(&[*first, *second]);
            values[1].iter().map(child).collect()
        };
        Ok(values[0].iter().map(row).collect())
    }

    /// Creates one counter of seconds for each value of the label.
    pub fn seconds(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[&str],
    ) -> Result<Vec<Counter>> {
        let made = CounterVec::new(self.opts(name, help), &[label]).map_err(unusable)?;
        let family = self.register(made)?;
        let child = |value: &&str| family.with_label_values(&[*value]);
        Ok(values.iter().map(child).collect())
    }

    pub fn gauge(&mut self, name: &str, help: &str) -> Result<IntGauge> {
        let made = IntGauge::with_opts(self.opts(name, help)).map_err(unusable)?;
        self.register(made)
    }

    /// Creates a floating-point gauge.
    pub fn level(&mut self, name: &str, help: &str) -> Result<Gauge> {
        let made = Gauge::with_opts(self.opts(name, help)).map_err(unusable)?;
        self.register(made)
    }

    /// Creates one gauge for each value of the label.
    pub fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[&str],
    ) -> Result<Vec<IntGauge>> {
        let made = IntGaugeVec::new(self.opts(name, help), &[label]).map_err(unusable)?;
        let family = self.register(made)?;
        let child = |value: &&str| family.with_label_values(&[*value]);
        Ok(values.iter().map(child).collect())
    }

    pub fn histogram(&mut self, name: &str, help: &str, scale: Scale) -> Result<Histogram> {
        let opts = HistogramOpts::from(self.opts(name, help)).buckets(scale.buckets());
        let made = Histogram::with_opts(opts).map_err(unusable)?;
        self.register(made)
    }

    /// Creates one histogram for each value of the label.
    pub fn histograms(
        &mut self,
        name: &str,
        help: &str,
        scale: Scale,
        label: &str,
        values: &[&str],
    ) -> Result<Vec<Histogram>> {
        let opts = HistogramOpts::from(self.opts(name, help)).buckets(scale.buckets());
        let made = HistogramVec::new(opts, &[label]).map_err(unusable)?;
        let family = self.register(made)?;
        let child = |value: &&str| family.with_label_values(&[*value]);
        Ok(values.iter().map(child).collect())
    }

    /// Registers a collector of another kind.
    pub fn register<C: Collector + Clone + 'static>(&mut self, made: C) -> Result<C> {
        for varying in made.desc().into_iter().flat_map(|d| &d.variable_labels) {
            // The crate would render the label twice.
            if self.labels.contains_key(varying) {
                return Err(invalid(format!(
                    "the label {varying:?} is reserved for series of the library; choose another name"
                )));
            }
        }
        let registered = self.registry.register(Box::new(made.clone()));
        registered.map_err(|cause| {
            invalid(format!(
                "cannot register metrics: {cause}; give each recorder of a registry its own namespace \
                 or labels"
            ))
        })?;
        self.registered.push(Box::new(made.clone()));
        Ok(made)
    }

    pub fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(name, help)
            .namespace(self.namespace.clone())
            .const_labels(self.labels.clone())
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        for made in &self.registered {
            made.unregister(&self.registry);
        }
    }
}

pub(super) fn unusable(cause: prometheus::Error) -> Error {
    invalid(format!("invalid namespace or label: {cause}"))
}

fn invalid(why: String) -> Error {
    Error::new(Code::InvalidConfig, why).with_operation("metrics")
}

//! Names and labels of the series.

/// Names of the series, and the labels common to all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricNames {
    /// Prefix of every name, followed by `_`. Default: `divvy`.
    pub namespace: String,
    /// Labels of every series, each in the form `name=value`. Default: none.
    pub labels: Vec<String>,
    /// Whether to also export the series under parti's names; see `docs/metrics.md`. Default: false.
    pub parti_names: bool,
}

impl Default for MetricNames {
    fn default() -> Self {
        Self {
            namespace: "divvy".into(),
            labels: Vec::new(),
            parti_names: false,
        }
    }
}

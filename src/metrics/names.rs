//! How series are named.

/// How series are named, and which labels all of them carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricNames {
    /// What every name begins with, before a `_`. Default: `divvy`.
    pub namespace: String,
    /// Labels of every series, `name=value` each. Default: none.
    pub labels: Vec<String>,
    /// Whether the series are kept under parti's names as well, see `docs/metrics.md`.
    /// Default: false.
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

//! The metrics of one handle.

use std::sync::Arc;

use crate::metrics::{AssignmentMetrics, CalculatorMetrics, NoMetrics};

/// Receives what one handle measures.
#[derive(Clone)]
pub(crate) struct MetricsSink {
    pub calculator: Arc<dyn CalculatorMetrics>,
    pub assignment: Arc<dyn AssignmentMetrics>,
}

impl Default for MetricsSink {
    fn default() -> Self {
        Self {
            calculator: Arc::new(NoMetrics),
            assignment: Arc::new(NoMetrics),
        }
    }
}

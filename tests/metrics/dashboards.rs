//! The dashboard and the alerts.

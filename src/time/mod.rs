//! Time: clocks, durations as text, and the rules for what recurs.
//!
//! [`backoff`] and `log_throttle` are pure like the machines: time is handed in.

pub mod backoff;
pub mod clock;
pub(crate) mod deadline;
pub mod duration;
pub(crate) mod log_throttle;

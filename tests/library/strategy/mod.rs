//! The strategies: parti's plans bit for bit, and what sticky promises.

mod exact;
mod properties;
mod targets;
mod vectors;

//! The strategies: bit-identical plans to parti, and the guarantees of sticky.

mod exact;
mod properties;
mod targets;
mod vectors;

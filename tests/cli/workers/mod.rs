//! Fleets of `divvy worker` processes over real servers.

mod cache;
mod instance;
mod life;

//! Computing a plan and publishing it: the jobs of `dv-publish`.

pub mod publisher;
pub mod rebalancer;

//! Computing a plan and publishing it: the jobs of `dv-publish`.

pub mod config_source;
mod host_call;
pub mod list_reader;
pub mod partition_list;
pub mod publisher;
pub mod rebalancer;

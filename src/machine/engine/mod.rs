//! The rules that connect a machine with its environment: which effects a step has and in which
//! order, which tasks are pending, when failure detection is suspended.
//!
//! Pure like the machines. The threads of `runtime` and the simulation run the same engines; they
//! differ only in how they carry out an action.

pub mod calculator_effects;
pub mod monitor_engine;
pub mod reopening;

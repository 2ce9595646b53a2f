//! The words of divvy: every state, reason, change, level, code and label, defined once.
//!
//! Each list is one `words!` table. The Rust enum, its `name()`, the number and the constant of the
//! C ABI, the Go constant, the metric label, the JSON value and the reference pages under `docs/`
//! are all derived from it. To add a word, add a line to its table; the compiler and the test
//! `tests/bindings/vocabulary.rs` name what is left to do.

#[macro_use]
pub(crate) mod words;

pub mod errors;
pub mod event_kinds;
pub mod fleet_words;
pub mod labels;

pub use self::errors::{CallStatus, Code, ErrorClass};
pub use self::event_kinds::{EventKind, Field};
pub use self::fleet_words::{
    ActiveMode, AlertLevel, BreakerState, Bucket, CalculatorState, ConfigPart, DegradationCause,
    Departure, EventFilter, ManageBuckets, ManagerEventFilter, ManagerState, MemberChange,
    OutagePolicy, OutagePreset, PublishMode, Reason, SettingField, Storage, StoreKind,
    StrategyKind,
};
pub use self::words::{Word, Words};

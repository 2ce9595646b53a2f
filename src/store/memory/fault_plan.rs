//! The faults that one client is to meet.

use std::collections::BTreeMap;
use std::time::Duration;

use super::watcher::WatchDelivery;
use crate::store::Refusal;

/// Kinds of calls with separate faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// [`Store::ensure`](crate::store::Store::ensure).
    Ensure,
    /// [`Store::capabilities`](crate::store::Store::capabilities).
    Capabilities,
    /// [`Store::read`](crate::store::Store::read).
    Read,
    /// [`Store::list`](crate::store::Store::list).
    List,
    /// Each single write of [`Store::write`](crate::store::Store::write).
    Write,
    /// [`Store::write_batch`](crate::store::Store::write_batch).
    Batch,
}

impl Call {
    /// Every kind of call.
    pub const ALL: [Call; 6] = [
        Call::Ensure,
        Call::Capabilities,
        Call::Read,
        Call::List,
        Call::Write,
        Call::Batch,
    ];
    /// The calls that change values.
    pub const WRITES: [Call; 2] = [Call::Write, Call::Batch];
    /// The calls that change nothing.
    pub const READS: [Call; 3] = [Call::Capabilities, Call::Read, Call::List];
}

/// How one call goes wrong. None of these waits; see [`Faults::delay`](super::Faults::delay) and [`Blackout::Hang`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Refused for this reason; reads fail with the same as an error. Nothing is applied.
    Refuse(Refusal),
    /// The request is lost: writes end as unknown and are never applied, other calls time out.
    LoseRequest,
    /// The reply is lost: writes are carried out and end as unknown, other calls time out.
    LoseReply,
    /// The request is held up: writes end as unknown and reach the store after this time, or
    /// with `None` when [`Faults::release_held`](super::Faults::release_held) is called; their conditions are judged then.
    /// Other calls time out.
    Hold(Option<Duration>),
}

/// How a store that cannot be reached behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blackout {
    /// Every call fails at once: reads as `Unavailable`, writes as [`Refusal::Unavailable`].
    Refuse,
    /// Every call waits for its deadline (under a driven clock: ends at once), then reads time
    /// out and writes end as unknown. Nothing is applied.
    Hang,
}

/// The error of a disconnected client.
pub(super) const BLACKOUT: &str = "the store cannot be reached (blackout)";

/// The faults that a client is to meet.
#[derive(Default)]
pub(super) struct FaultPlan {
    pub(super) scripted: Vec<Scripted>,
    pub(super) random: Vec<Random>,
    pub(super) delays: BTreeMap<Call, Duration>,
    pub(super) events_lost: u64,
    pub(super) events_late: Duration,
    pub(super) watches_lost: Option<String>,
    pub(super) entries_max: Option<usize>,
    pub(super) blackout: Option<Blackout>,
}

pub(super) struct Scripted {
    pub(super) calls: Vec<Call>,
    pub(super) left: u32,
    pub(super) fault: Fault,
}

pub(super) struct Random {
    pub(super) calls: Vec<Call>,
    pub(super) probability: f64,
    pub(super) generator: fastrand::Rng,
    pub(super) fault: Fault,
}

impl FaultPlan {
    /// The fault that a call meets, if any.
    pub(super) fn draw(&mut self, call: Call) -> Option<Fault> {
        self.scripted.retain(|scripted| scripted.left > 0);
        if let Some(scripted) = self.scripted.iter_mut().find(|s| s.calls.contains(&call)) {
            scripted.left -= 1;
            return Some(scripted.fault.clone());
        }
        self.random
            .iter_mut()
            .filter(|random| random.calls.contains(&call))
            .find_map(|random| {
                (random.generator.f64() < random.probability).then(|| random.fault.clone())
            })
    }

    pub(super) fn delay(&self, call: Call) -> Duration {
        self.delays.get(&call).copied().unwrap_or_default()
    }

    /// How the next change reaches a watch.
    pub(super) fn delivery(&mut self) -> WatchDelivery {
        if self.events_lost > 0 {
            self.events_lost -= 1;
            return WatchDelivery::Lost;
        }
        if self.events_late.is_zero() {
            return WatchDelivery::Prompt;
        }
        WatchDelivery::Late(self.events_late)
    }

    /// Returns why the watches of the client must stay lost, if they must.
    pub(super) fn watch_loss(&self) -> Option<&str> {
        if self.blackout.is_some() {
            return Some(BLACKOUT);
        }
        self.watches_lost.as_deref()
    }
}

//! Signals that are given by dropping a sender.

use std::convert::Infallible;

use crossbeam_channel::{Receiver, Sender, bounded};

/// The two ends of a signal: dropping the sender is giving it, and the receiver, which can be
/// cloned and selected on, is disconnected from then on.
pub(crate) fn signal() -> (Sender<Infallible>, Receiver<Infallible>) {
    bounded(0)
}

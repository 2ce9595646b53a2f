//! Signals sent by dropping a sender.

use std::convert::Infallible;

use crossbeam_channel::{Receiver, Sender, bounded};

/// The two ends of a signal. Dropping the sender sends the signal: it disconnects the receiver,
/// which can be cloned and selected on.
pub(crate) fn signal() -> (Sender<Infallible>, Receiver<Infallible>) {
    bounded(0)
}

//! The thread that advances time and slow readers between calls.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Select, TryRecvError, bounded};

use super::alarm::Alarm;
use super::world::{ClientId, MemoryWorld, PendingDeliveries};
use crate::error::Result;
use crate::threads::Thread;

/// Starts the thread of a client. It begins when the alarm is in its place and has been rung.
pub(super) fn spawn(world: &Arc<MemoryWorld>, client: ClientId) -> Result<(Alarm, Thread)> {
    let (wake, woken) = bounded(1);
    let world = Arc::clone(world);
    let thread = Thread::spawn("dv-memory", move || run(&world, client, &woken))?;
    Ok((Alarm::new(wake), thread))
}

fn run(world: &MemoryWorld, client: ClientId, woken: &Receiver<()>) {
    loop {
        let pending_deliveries = world.with(|state, now| state.pending_deliveries(client, now));
        match pending_deliveries {
            Some(pending_deliveries) => wait(world, &pending_deliveries, woken),
            // The alarm is not in its place yet, or has been taken away.
            None => drop(woken.recv()),
        }
        if woken.try_recv() == Err(TryRecvError::Disconnected) {
            return;
        }
    }
}

/// Waits until a pending delivery is possible or a wake-up.
fn wait(world: &MemoryWorld, pending_deliveries: &PendingDeliveries, woken: &Receiver<()>) {
    let mut select = Select::new();
    select.recv(woken);
    for room in &pending_deliveries.rooms {
        select.send(room);
    }
    match pending_deliveries.due {
        Some(due) => {
            let _ = select.ready_timeout(due.since(world.now()));
        }
        None => {
            select.ready();
        }
    }
}

//! Collects the log lines of one simulation: of its thread and of its publisher threads.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, Once};

use log::{LevelFilter, Log, Metadata, Record};

/// The lines so far, shared by the threads of one simulation.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

thread_local! {
    static MINE: RefCell<Option<Lines>> = const { RefCell::new(None) };
}

/// The lines of the default level.
const LEVEL: LevelFilter = LevelFilter::Info;

struct ToThread;

impl Log for ToThread {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= LEVEL
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(lines) = Lines::mine().filter(|_| self.enabled(record.metadata())) {
            let line = format!("{} {}: {}", record.level(), record.target(), record.args());
            lines.0.lock().expect("the lines").push(line);
        }
    }

    fn flush(&self) {}
}

impl Lines {
    /// Starts to collect the lines of this thread and of the publishers that it starts.
    pub fn collect() -> Self {
        static INSTALL: Once = Once::new();
        INSTALL.call_once(|| {
            log::set_logger(&ToThread).expect("the only logger");
            log::set_max_level(LEVEL);
        });
        let lines = Self::default();
        lines.clone().adopt();
        lines
    }

    /// The collector of this thread.
    pub fn mine() -> Option<Self> {
        MINE.with_borrow(Clone::clone)
    }

    /// Sets the collector of this thread.
    pub fn adopt(self) {
        MINE.set(Some(self));
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("the lines"))
    }
}

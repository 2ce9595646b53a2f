//! The logger of the process, which forwards to the logger of the current test.

use std::sync::{Arc, Once};

use log::{LevelFilter, Log, Metadata, Record};
use parking_lot::RwLock;

static CURRENT: RwLock<Option<Arc<dyn Log>>> = RwLock::new(None);

struct Forwarding;

impl Log for Forwarding {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        current().is_some_and(|logger| logger.enabled(metadata))
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(logger) = current() {
            logger.log(record);
        }
    }

    fn flush(&self) {}
}

/// Use a copy: a logger may block or panic, and the lock must be free then.
fn current() -> Option<Arc<dyn Log>> {
    CURRENT.read().clone()
}

/// Removes the logger when it is dropped.
pub struct Installed;

/// Installs the logger of the calling test.
pub fn install(logger: impl Log + 'static, level: LevelFilter) -> Installed {
    static FORWARDING: Once = Once::new();
    FORWARDING.call_once(|| log::set_logger(&Forwarding).unwrap());
    *CURRENT.write() = Some(Arc::new(logger));
    log::set_max_level(level);
    Installed
}

impl Drop for Installed {
    fn drop(&mut self) {
        log::set_max_level(LevelFilter::Off);
        *CURRENT.write() = None;
    }
}

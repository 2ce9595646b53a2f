//! Calls of the host's code.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Code, Error, Result};
use crate::threads::panic_text;

/// Calls the host's code; a panic in it becomes an error.
pub(super) fn guarded<T>(code: Code, who: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if error.code() == code => Err(error),
        Ok(Err(error)) => Err(Error::new(code, format!("{who} failed")).caused_by(error)),
        Err(panic) => Err(Error::new(
            code,
            format!("{who} panicked: {}", panic_text(panic.as_ref())),
        )),
    }
}

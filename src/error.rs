//! The one error type: what happened, to which operation and key, and what to do next.

mod failures;

use std::fmt;
use std::sync::Arc;

pub use self::failures::Failures;
pub use crate::vocabulary::{Code, ErrorClass};

/// A result with divvy's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error: code, message, and where known the operation, key and cause.
///
/// `Display` prints the whole chain on one line: `operation key: message (n attempts): cause`.
#[derive(Clone, Debug)]
pub struct Error(Box<ErrorInner>);

#[derive(Clone, Debug)]
struct ErrorInner {
    code: Code,
    message: String,
    operation: Option<&'static str>,
    key: Option<String>,
    attempts: u32,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of the given code; the message says what is wrong and what to do next.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(ErrorInner {
            code,
            message: message.into(),
            operation: None,
            key: None,
            attempts: 1,
            source: None,
        }))
    }

    /// Adds the operation that failed, such as `publish`. The innermost one stays.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Adds the store key that the operation was about. The innermost one stays.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.0.key.get_or_insert_with(|| key.into());
        self
    }

    /// Sets the number of failed attempts, the last one included.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.0.attempts = attempts;
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// What kind of thing went wrong.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// How to react.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        self.0.code.class()
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        self.class() == ErrorClass::Retriable
    }

    /// The message without operation, key and cause.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The operation that failed, where known.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The store key that the operation was about, where there is one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// Returns the number of failed attempts, the last one included; 1 without a retry.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }
}

impl std::error::Error for Error {
    /// The cause, which `Display` prints too.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source = self.0.source.as_deref()?;
        Some(source)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        match (inner.operation, &inner.key) {
            (Some(operation), Some(key)) => write!(f, "{operation} {key}: ")?,
            (Some(operation), None) => write!(f, "{operation}: ")?,
            (None, Some(key)) => write!(f, "{key}: ")?,
            (None, None) => {}
        }
        f.write_str(&inner.message)?;
        if inner.attempts > 1 {
            write!(f, " ({} attempts)", inner.attempts)?;
        }
        if let Some(source) = &inner.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_prints_operation_key_message_and_cause_once() {
        let error = Error::new(Code::Unavailable, "no answer")
            .with_operation("read")
            .with_operation("start")
            .with_key("divvy.fence")
            .caused_by(std::io::Error::other("connection reset"));
        assert_eq!(
            error.to_string(),
            "read divvy.fence: no answer: connection reset"
        );
        assert!(error.is_retriable());
        let source = std::error::Error::source(&error).expect("a cause");
        assert_eq!(source.to_string(), "connection reset");
        assert_eq!(error.attempts(), 1);
        let again = error.with_attempts(7);
        assert_eq!(again.attempts(), 7);
        assert_eq!(
            again.to_string(),
            "read divvy.fence: no answer (7 attempts): connection reset"
        );
    }
}

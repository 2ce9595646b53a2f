//! The failures of one operation over many keys, as one error that a person can read.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Error, ErrorClass};

/// Keys named of each kind of failure.
const KEYS_NAMED_MAX: usize = 3;

/// Maximum number of kinds in one error.
const GROUPS_MAX: usize = 4;

/// Collects the failures of one operation over many keys. However many there are, what is kept of
/// them is bounded: a count, the first message and the first few keys of each code.
///
/// ```
/// use divvy::error::{Code, Error, Failures};
///
/// let mut failures = Failures::new(1_000);
/// for worker in 0..700 {
///     let key = format!("assignment.w-{worker}");
///     failures.add(Error::new(Code::Unavailable, "no answer").with_key(key));
/// }
/// assert_eq!(
///     failures.into_error().unwrap().to_string(),
///     "700 of 1000 keys failed: 700 x unavailable (assignment.w-0, assignment.w-1, \
///      assignment.w-2, ...): no answer"
/// );
/// ```
#[derive(Debug)]
pub struct Failures {
    attempted: usize,
    failed: usize,
    groups: BTreeMap<&'static str, Group>,
}

#[derive(Debug)]
struct Group {
    first: Error,
    keys: Vec<String>,
    count: usize,
}

impl Failures {
    /// Returns an empty collection for an operation over this many keys.
    #[must_use]
    pub fn new(attempted: usize) -> Self {
        Self {
            attempted,
            failed: 0,
            groups: BTreeMap::new(),
        }
    }

    /// One key's failure; the error names the key.
    pub fn add(&mut self, error: Error) {
        self.failed += 1;
        let group = self
            .groups
            .entry(error.code().name())
            .or_insert_with(|| Group {
                first: error.clone(),
                keys: Vec::new(),
                count: 0,
            });
        group.count += 1;
        if group.keys.len() < KEYS_NAMED_MAX {
            group.keys.extend(error.key().map(str::to_owned));
        }
    }

    /// How many keys failed.
    #[must_use]
    pub fn count(&self) -> usize {
        self.failed
    }

    /// All of them as one error, `None` when there are none. A single failure is returned
    /// unchanged. The code is that of the gravest kind: what helps against that is what the caller
    /// has to do.
    #[must_use]
    pub fn into_error(self) -> Option<Error> {
        let gravest = self.groups.values().max_by_key(|group| {
            let gravity = match group.first.class() {
                ErrorClass::Retriable => 0,
                ErrorClass::Conflict => 1,
                ErrorClass::Invalid => 2,
                ErrorClass::Permanent => 3,
            };
            (gravity, group.count)
        })?;
        if self.failed == 1 {
            return Some(gravest.first.clone());
        }
        Some(Error::new(gravest.first.code(), self.text()))
    }

    fn text(&self) -> String {
        let mut text = format!("{} of {} keys failed: ", self.failed, self.attempted);
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
        for (place, (code, group)) in groups.iter().take(GROUPS_MAX).enumerate() {
            let separator = if place == 0 { "" } else { "; " };
            let more = match group.count > group.keys.len() {
                true if group.keys.is_empty() => "...",
                true => ", ...",
                false => "",
            };
            let keys = group.keys.join(", ");
            let message = group.first.message();
            // Writing to a text cannot fail.
            let _ = write!(
                text,
                "{separator}{} x {code} ({keys}{more}): {message}",
                group.count
            );
        }
        if groups.len() > GROUPS_MAX {
            text.push_str("; and others");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn failure(code: Code, key: usize) -> Error {
        Error::new(code, "simulated").with_key(format!("assignment.w-{key}"))
    }

    #[test]
    fn thousand_failures_of_every_kind_form_one_readable_error() {
        let codes = [
            Code::Unavailable,
            Code::TimedOut,
            Code::TooLarge,
            Code::Conflict,
            Code::StoreError,
            Code::Unauthorized,
        ];
        let mut failures = Failures::new(1_000);
        for key in 0..1_000 {
            failures.add(failure(codes[key % codes.len()], key));
        }
        assert_eq!(failures.count(), 1_000);
        let error = failures.into_error().unwrap();
        let text = error.to_string();
        assert!(text.len() < 500, "{text}");
        assert!(
            text.starts_with("1000 of 1000 keys failed: 167 x "),
            "{text}"
        );
        assert!(text.ends_with("; and others"), "{text}");
        assert_eq!(error.class(), ErrorClass::Permanent, "{text}");
    }

    #[test]
    fn single_failure_is_returned_unchanged_and_no_failure_is_no_error() {
        assert!(Failures::new(5).into_error().is_none());
        let mut failures = Failures::new(5);
        failures.add(failure(Code::Conflict, 3));
        let error = failures.into_error().unwrap();
        assert_eq!(error.key(), Some("assignment.w-3"));
        assert_eq!(error.message(), "simulated");
    }

    #[test]
    fn permanent_failure_determines_code_of_combined_error() {
        let mut failures = Failures::new(5);
        for key in 0..4 {
            failures.add(failure(Code::Unavailable, key));
        }
        failures.add(failure(Code::TooLarge, 4));
        let error = failures.into_error().unwrap();
        assert_eq!(error.code(), Code::TooLarge);
        assert!(!error.is_retriable());
    }
}

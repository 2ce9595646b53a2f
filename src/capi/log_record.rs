//! The structured fields of a log record, read by the log callback.

use std::ffi::c_char;
use std::sync::Arc;

use log::kv::{self, Key, Value, VisitSource, VisitValue};

use super::guard::{self, Outcome};
use super::registry::{HandleKind, Registry};
use super::text::{self, Terminated};

/// A log record. Valid until the log callback returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct divvy_log_record {
    /// Private. 0: none.
    pub id: u64,
}

/// One key=value of a record.
pub(super) struct LogField {
    name: String,
    value: String,
    is_number: bool,
}

struct ReadableField {
    name: Terminated,
    value: Terminated,
    is_number: bool,
}

static RECORDS: Registry<Vec<ReadableField>> = Registry::new(HandleKind::LogRecord);

/// Copies the fields of a record.
pub(super) fn fields_of(source: &dyn kv::Source) -> Vec<LogField> {
    let mut fields = CollectedFields(Vec::new());
    // Nothing in the visitor fails.
    let _ = source.visit(&mut fields);
    fields.0
}

struct CollectedFields(Vec<LogField>);

impl<'kvs> VisitSource<'kvs> for CollectedFields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let mut number = IsNumber(false);
        value.visit(&mut number)?;
        self.0.push(LogField {
            name: key.to_string(),
            value: value.to_string(),
            is_number: number.0,
        });
        Ok(())
    }
}

struct IsNumber(bool);

impl<'v> VisitValue<'v> for IsNumber {
    fn visit_any(&mut self, _value: Value<'_>) -> Result<(), kv::Error> {
        Ok(())
    }

    fn visit_u64(&mut self, _value: u64) -> Result<(), kv::Error> {
        self.0 = true;
        Ok(())
    }

    fn visit_i64(&mut self, _value: i64) -> Result<(), kv::Error> {
        self.0 = true;
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        self.0 = value.is_finite();
        Ok(())
    }
}

/// Makes the fields readable while `deliver` runs. Without a free handle it gets none.
pub(super) fn with_record(fields: Vec<LogField>, deliver: impl FnOnce(divvy_log_record)) {
    let readable = fields.into_iter().map(|field| ReadableField {
        name: Terminated::new(field.name),
        value: Terminated::new(field.value),
        is_number: field.is_number,
    });
    let id = RECORDS.insert(Arc::new(readable.collect())).unwrap_or(0);
    deliver(divvy_log_record { id });
    if id != 0 {
        let _ = RECORDS.remove(id);
    }
}

fn expose(
    record: divvy_log_record,
    index: usize,
    length: *mut usize,
    part: impl FnOnce(&ReadableField) -> &Terminated,
) -> *const c_char {
    let found: Outcome<_> = RECORDS.with(record.id, |fields| {
        // The registry keeps the text alive until the callback returns.
        fields.get(index).map(|field| part(field).expose(length))
    });
    match guard::or(None, || found) {
        Some(text) => text,
        None => text::empty(length),
    }
}

/// Returns the number of fields (key=value) of a log record.
///
/// Parameters: record - the record.
/// Returns: the number; 0 for an invalid handle.
/// Thread: any, during the callback. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_log_field_count(record: divvy_log_record) -> usize {
    guard::or(0, || RECORDS.with(record.id, |fields| fields.len()))
}

/// Returns the name of a field of a log record, such as "version".
///
/// Parameters: record - the record. index - 0 to divvy_log_field_count() - 1. length - receives the
/// length in bytes; NULL allowed.
/// Returns: the name; an empty string for an invalid handle or index. Never NULL.
/// Ownership: valid until the callback returns.
/// Thread: any, during the callback. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_log_field_name(
    record: divvy_log_record,
    index: usize,
    length: *mut usize,
) -> *const c_char {
    expose(record, index, length, |field| &field.name)
}

/// Returns the value of a field of a log record as text.
///
/// Parameters: record - the record. index - 0 to divvy_log_field_count() - 1. length - receives the
/// length in bytes; NULL allowed.
/// Returns: the value; an empty string for an invalid handle or index. Never NULL.
/// Ownership: valid until the callback returns.
/// Thread: any, during the callback. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_log_field_value(
    record: divvy_log_record,
    index: usize,
    length: *mut usize,
) -> *const c_char {
    expose(record, index, length, |field| &field.value)
}

/// Returns whether the value of a field of a log record is a decimal number.
///
/// Parameters: record - the record. index - 0 to divvy_log_field_count() - 1.
/// Returns: 1 or 0; 0 for an invalid handle or index.
/// Thread: any, during the callback. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_log_field_is_number(record: divvy_log_record, index: usize) -> i32 {
    guard::or(0, || {
        RECORDS.with(record.id, |fields| {
            i32::from(fields.get(index).is_some_and(|field| field.is_number))
        })
    })
}

#[cfg(test)]
mod tests {
    use log::Record;

    use super::*;

    #[test]
    fn fields_of_record_keep_their_names_values_and_kinds() {
        let pairs = [("worker", Value::from("7")), ("version", Value::from(7))];
        let record = Record::builder().key_values(&pairs).build();
        let fields = fields_of(record.key_values());
        let fields: Vec<_> = fields
            .iter()
            .map(|field| (&*field.name, &*field.value, field.is_number))
            .collect();
        assert_eq!(fields, [("worker", "7", false), ("version", "7", true)]);
    }
}

//! Why a call failed, as programs read it: behind the text in the caller's `errbuf`, so that it
//! belongs to the call and to no thread.

use std::borrow::Cow;
use std::ffi::{CStr, c_char};

use super::guard;
use super::status::{self, divvy_status};
use super::text;
use crate::error::Error;

/// Why a call failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub status: divvy_status,
    pub message: Cow<'static, str>,
    /// What only errors of the library have.
    pub fields: Option<Fields>,
}

/// The fields of a failure in addition to its text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub operation: Cow<'static, str>,
    pub key: String,
    pub attempts: u32,
}

impl Failure {
    pub fn new(status: divvy_status, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            message: message.into(),
            fields: None,
        }
    }

    pub fn null(name: &str) -> Self {
        Self::new(divvy_status::DIVVY_NULL_ARGUMENT, format!("{name} is NULL"))
    }
}

impl Fields {
    pub fn of(error: &Error) -> Self {
        Self {
            operation: error.operation().unwrap_or_default().into(),
            key: error.key().unwrap_or_default().to_owned(),
            attempts: error.attempts(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            fields: Some(Fields::of(&error)),
            ..Self::new(status::of(error.code()), error.to_string())
        }
    }
}

/// Begins the fields: no text of ours has it.
const MARK: &[u8; 3] = b"\x1d\x02\x1d";

impl Failure {
    /// Writes text and fields into `buffer`. The text is cut to fit; the fields come whole or, when
    /// they take more than half of the buffer, not at all.
    pub fn write(&self, buffer: &mut Writer) {
        let fields = self.fields.as_ref().map(Fields::bytes);
        let fields = fields.filter(|bytes| bytes.len() <= buffer.length / 2);
        let room = buffer.length - fields.as_ref().map_or(0, Vec::len);
        let mut end = self.message.len().min(room - 1);
        while !self.message.is_char_boundary(end) {
            end -= 1;
        }
        buffer.text(&self.message.as_bytes()[..end]);
        match fields {
            Some(bytes) => buffer.raw(&bytes),
            // What is left of an earlier failure is not this one's.
            None => buffer.raw(b"\0"),
        }
    }
}

impl Fields {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = MARK.to_vec();
        for text in [&*self.operation, &self.key, &self.attempts.to_string()] {
            bytes.extend(text.bytes().map(|byte| if byte == 0 { b'?' } else { byte }));
            bytes.push(0);
        }
        bytes
    }
}

/// Writes into what the caller gave, and never beyond it.
pub(super) struct Writer {
    at: *mut u8,
    length: usize,
    used: usize,
}

impl Writer {
    /// # Safety
    /// `at` points to `length` bytes, at least one, that may be written to.
    pub unsafe fn new(at: *mut c_char, length: usize) -> Self {
        Self {
            at: at.cast(),
            length,
            used: 0,
        }
    }

    fn text(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.raw(&[if byte == 0 { b'?' } else { byte }]);
        }
        self.raw(b"\0");
    }

    /// What does not fit is left out.
    fn raw(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.used < self.length {
                // SAFETY: within the bytes that `new` was promised.
                unsafe { self.at.add(self.used).write(byte) };
                self.used += 1;
            }
        }
    }
}

/// The readable part of a caller's `errbuf`. Nothing behind a NUL is read before its length is known.
struct Reader {
    at: *const c_char,
    left: usize,
}

impl Reader {
    /// A text and the NUL that ends it.
    fn text(&mut self) -> Option<*const c_char> {
        let start = self.at;
        // SAFETY: the caller vouches for `left` bytes from here on.
        let length = unsafe { libc::strnlen(start, self.left) };
        if length == self.left {
            return None;
        }
        self.skip(length + 1);
        Some(start)
    }

    /// Whether the fields follow. Where they do not, the first byte is another one, and the others
    /// need not have been written.
    fn mark(&mut self) -> bool {
        self.left >= MARK.len()
            && MARK.iter().all(|&byte| {
                // SAFETY: at least one byte is left.
                let found = unsafe { self.at.cast::<u8>().read() };
                self.skip(1);
                found == byte
            })
    }

    fn skip(&mut self, count: usize) {
        // SAFETY: no more than is left: within the caller's bytes, or one past their end.
        self.at = unsafe { self.at.add(count) };
        self.left -= count;
    }
}

/// One of the fields.
fn field(errbuf: *const c_char, errlen: usize, index: usize) -> Option<&'static CStr> {
    if errbuf.is_null() {
        return None;
    }
    let mut reader = Reader {
        at: errbuf,
        left: errlen,
    };
    reader.text()?;
    if !reader.mark() {
        return None;
    }
    for _ in 0..index {
        reader.text()?;
    }
    // SAFETY: `text` has found a NUL within the caller's bytes.
    reader.text().map(|start| unsafe { CStr::from_ptr(start) })
}

fn detail(errbuf: *const c_char, errlen: usize, index: usize, length: *mut usize) -> *const c_char {
    let Some(found) = guard::or(None, || Ok(field(errbuf, errlen, index))) else {
        return text::empty(length);
    };
    // SAFETY: a length pointer that is not NULL is writable, says every function that has one.
    unsafe { text::expose_length(length, found.to_bytes().len()) };
    found.as_ptr()
}

/// Returns the operation that failed, such as "start", or the failing part of it, such as "read".
///
/// Parameters: errbuf, errlen - the buffer of the failed call, unmodified; NULL allowed. length -
/// receives the length in bytes; NULL allowed.
/// Returns: the operation; an empty string if the call failed before it began one (an invalid
/// argument) or errbuf was too small. Of 256 bytes, half are reserved for operation, key and
/// attempts. Never NULL.
/// Ownership: points into errbuf.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_error_operation(
    errbuf: *const c_char,
    errlen: usize,
    length: *mut usize,
) -> *const c_char {
    detail(errbuf, errlen, 0, length)
}

/// Returns the store key that a failure was about, such as "divvy.fence"; empty if none.
///
/// Parameters: errbuf, errlen - the buffer of the failed call, unmodified; NULL allowed. length -
/// receives the length in bytes; NULL allowed.
/// Returns: the operation; an empty string if the call failed before it began one (an invalid
/// argument) or errbuf was too small. Of 256 bytes, half are reserved for operation, key and
/// attempts. Never NULL; also empty if the failure was not about a key.
/// Ownership: points into errbuf.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_error_key(
    errbuf: *const c_char,
    errlen: usize,
    length: *mut usize,
) -> *const c_char {
    detail(errbuf, errlen, 1, length)
}

/// Returns the number of failed attempts, the last one included.
///
/// Parameters: errbuf, errlen - the buffer of the failed call, unmodified; NULL allowed. length -
/// receives the length in bytes; NULL allowed.
/// Returns: the number; 1 without a retry; 0 if divvy_error_operation() is empty.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_error_attempts(errbuf: *const c_char, errlen: usize) -> u32 {
    let found = guard::or(None, || Ok(field(errbuf, errlen, 2)));
    let number = found.and_then(|text| text.to_str().ok()?.parse().ok());
    number.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn reported(buffer: &[u8]) -> (String, String, u32) {
        let (at, length) = (buffer.as_ptr().cast(), buffer.len());
        let text = |pointer| {
            // SAFETY: a field or an empty text, both ended by a NUL.
            unsafe { CStr::from_ptr(pointer) }
                .to_str()
                .unwrap()
                .to_owned()
        };
        let mut size = 99;
        // SAFETY: the buffer has that length and was written to as a failed call does.
        let (operation, key) = unsafe {
            let operation = text(divvy_error_operation(at, length, &raw mut size));
            assert_eq!(size, operation.len());
            (
                operation,
                text(divvy_error_key(at, length, std::ptr::null_mut())),
            )
        };
        // SAFETY: as above.
        (operation, key, unsafe { divvy_error_attempts(at, length) })
    }

    fn write(failure: &Failure, buffer: &mut [u8]) {
        // SAFETY: the buffer has that length, which is never 0 here.
        let mut writer = unsafe { Writer::new(buffer.as_mut_ptr().cast(), buffer.len()) };
        failure.write(&mut writer);
    }

    fn failed() -> Failure {
        let error = Error::new(Code::Unavailable, "no answer".repeat(20));
        error
            .with_operation("read")
            .with_key("divvy.fence")
            .with_attempts(3)
            .into()
    }

    #[test]
    fn operation_key_and_attempts_follow_error_text() {
        let mut buffer = [b'x'; 256];
        write(&failed(), &mut buffer);
        assert_eq!(reported(&buffer), ("read".into(), "divvy.fence".into(), 3));
        let text = CStr::from_bytes_until_nul(&buffer)
            .unwrap()
            .to_str()
            .unwrap();
        assert!(text.starts_with("read divvy.fence: no answer"), "{text}");
    }

    #[test]
    fn buffer_too_small_for_fields_contains_text_only() {
        let none = (String::new(), String::new(), 0);
        for length in 1..200 {
            let mut buffer = vec![b'x'; length];
            write(&failed(), &mut buffer);
            assert!(buffer.contains(&0), "{length}");
            let whole = ("read".into(), "divvy.fence".into(), 3);
            let is_roomy = length >= 2 * failed().fields.unwrap().bytes().len();
            assert_eq!(
                reported(&buffer),
                if is_roomy { whole } else { none.clone() }
            );
        }
        assert_eq!(reported(&[]), none);
    }

    #[test]
    fn fields_of_earlier_failure_are_not_reported_again() {
        let mut buffer = [b'x'; 256];
        write(&failed(), &mut buffer);
        let text = CStr::from_bytes_until_nul(&buffer)
            .unwrap()
            .to_str()
            .unwrap();
        // As long as the former text.
        let again = "y".repeat(text.len());
        write(
            &Failure::new(divvy_status::DIVVY_CONFLICT, again),
            &mut buffer,
        );
        assert_eq!(reported(&buffer), (String::new(), String::new(), 0));
    }
}

//! Text and bytes going in, checked; text going out, owned by a handle.

use std::ffi::c_char;
use std::sync::Arc;

use super::guard::{self, Detail, Failure, Outcome};
use super::registry::{HandleKind, Registry};
use super::status::divvy_status;

/// Maximum length of a text argument in bytes, without the NUL.
pub const DIVVY_TEXT_MAX: usize = 16384;

/// Maximum length of a JSON or value argument, in bytes.
pub const DIVVY_BYTES_MAX: usize = 268_435_456;

/// A text created by the library. Free it with divvy_text_free().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct divvy_text {
    /// Private. 0: none.
    pub id: u64,
}

/// Bytes that are followed by a NUL.
pub(super) struct Terminated(Vec<u8>);

impl Terminated {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let mut bytes = bytes.into();
        bytes.push(0);
        Self(bytes)
    }

    /// The pointer, with the length written to `length` unless that is NULL.
    pub fn expose(&self, length: *mut usize) -> *const c_char {
        // SAFETY: a length pointer that is not NULL is writable, says every function that has one.
        unsafe { expose_length(length, self.0.len() - 1) };
        self.0.as_ptr().cast()
    }
}

/// An empty static text, for functions that never return NULL.
pub(super) fn empty(length: *mut usize) -> *const c_char {
    // SAFETY: as in `Terminated::expose`.
    unsafe { expose_length(length, 0) };
    c"".as_ptr()
}

/// Writes a length where it is wanted.
///
/// # Safety
/// `length` is NULL or writable.
pub(super) unsafe fn expose_length(length: *mut usize, value: usize) {
    if !length.is_null() {
        // SAFETY: not NULL, and writable by the caller's contract.
        unsafe { length.write(value) };
    }
}

static TEXTS: Registry<Terminated> = Registry::new(HandleKind::Text);

/// Hands a text out to C.
pub(super) fn hand_out(text: impl Into<Vec<u8>>) -> Outcome<divvy_text> {
    let id = TEXTS.insert(Arc::new(Terminated::new(text)))?;
    Ok(divvy_text { id })
}

/// Returns the bytes of a text.
///
/// Parameters: text - the text. length - receives its length in bytes; NULL allowed.
/// Returns: the bytes, followed by a NUL; an empty string for an invalid handle. Never NULL.
/// Ownership: valid until divvy_text_free().
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_text_data(text: divvy_text, length: *mut usize) -> *const c_char {
    let found = guard::or(None, || TEXTS.get(text.id).map(Some));
    match found {
        // The registry keeps the bytes alive until the handle is freed.
        Some(text) => text.expose(length),
        None => empty(length),
    }
}

/// Frees a text.
///
/// Parameters: text - the text; {0} is allowed and does nothing.
/// Returns: OK; BAD_HANDLE, also on the second call.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_text_free(text: divvy_text) -> divvy_status {
    guard::call(Detail::new(std::ptr::null_mut(), 0), || {
        if text.id != 0 {
            TEXTS.remove(text.id)?;
        }
        Ok(())
    })
}

/// A text handed in: NUL-terminated UTF-8 of at most [`DIVVY_TEXT_MAX`] bytes.
///
/// # Safety
/// `pointer` is NULL or points to a text that ends in a NUL, or to `DIVVY_TEXT_MAX + 1` bytes.
pub(super) unsafe fn read<'a>(pointer: *const c_char, name: &str) -> Outcome<&'a str> {
    if pointer.is_null() {
        return Err(Failure::null(name));
    }
    // SAFETY: reads up to the NUL and not further than the stated maximum.
    let length = unsafe { libc::strnlen(pointer, DIVVY_TEXT_MAX + 1) };
    // SAFETY: that many bytes were just read.
    unsafe { read_counted(pointer, length, DIVVY_TEXT_MAX, name) }
}

/// As [`read`], `None` for NULL.
///
/// # Safety
/// As [`read`].
pub(super) unsafe fn read_optional<'a>(
    pointer: *const c_char,
    name: &str,
) -> Outcome<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    unsafe { read(pointer, name) }.map(Some)
}

/// UTF-8 text of a given length.
///
/// # Safety
/// As [`read_bytes`].
pub(super) unsafe fn read_counted<'a>(
    pointer: *const c_char,
    length: usize,
    length_max: usize,
    name: &str,
) -> Outcome<&'a str> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { read_bytes(pointer.cast(), length, length_max, name) }?;
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        Failure::new(
            divvy_status::DIVVY_BAD_UTF8,
            format!("{name} is not UTF-8 from byte {at} on"),
        )
    })
}

/// Bytes handed in.
///
/// # Safety
/// `pointer` is NULL or points to `length` readable bytes that are not written during the call.
pub(super) unsafe fn read_bytes<'a>(
    pointer: *const u8,
    length: usize,
    length_max: usize,
    name: &str,
) -> Outcome<&'a [u8]> {
    if length > length_max {
        return Err(Failure::new(
            divvy_status::DIVVY_TOO_LONG,
            format!("{name} has more than {length_max} bytes"),
        ));
    }
    if pointer.is_null() {
        return if length == 0 {
            Ok(&[])
        } else {
            Err(Failure::null(name))
        };
    }
    // SAFETY: not NULL, readable by the caller's promise, and far below isize::MAX.
    Ok(unsafe { std::slice::from_raw_parts(pointer, length) })
}

/// Where a result goes.
pub(super) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Checked before the work begins, so that nothing is made that cannot be handed over.
    pub fn new(pointer: *mut T, name: &str) -> Outcome<Self> {
        if pointer.is_null() {
            return Err(Failure::null(name));
        }
        Ok(Self(pointer))
    }

    pub fn write(self, value: T) {
        // SAFETY: not NULL; writable by the contract of every function that has an output.
        unsafe { self.0.write(value) };
    }
}

//! Versions of the library and of its binary interface.

use std::ffi::c_char;

use super::status::divvy_status;

/// Major version of the header.
pub const DIVVY_VERSION_MAJOR: u32 = 0;
/// Minor version of the header.
pub const DIVVY_VERSION_MINOR: u32 = 1;
/// Patch version of the header.
pub const DIVVY_VERSION_PATCH: u32 = 0;
/// Number of the binary interface of this header.
pub const DIVVY_ABI_VERSION: u32 = 1;

/// A number in decimal digits, at compile time.
const fn number(text: &str) -> u32 {
    let bytes = text.as_bytes();
    let mut value = 0;
    let mut index = 0;
    while index < bytes.len() {
        value = value * 10 + (bytes[index] - b'0') as u32;
        index += 1;
    }
    value
}

const _: () = assert!(DIVVY_VERSION_MAJOR == number(env!("CARGO_PKG_VERSION_MAJOR")));
const _: () = assert!(DIVVY_VERSION_MINOR == number(env!("CARGO_PKG_VERSION_MINOR")));
const _: () = assert!(DIVVY_VERSION_PATCH == number(env!("CARGO_PKG_VERSION_PATCH")));

/// Returns the version of the loaded library, such as "0.1.0".
///
/// Returns: the version. Never NULL.
/// Ownership: static; never free it.
/// Thread: any. Does not block. Works in a forked child.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Returns the version of the loaded library as major * 1000000 + minor * 1000 + patch.
///
/// Thread: any. Does not block. Works in a forked child.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_version_number() -> u32 {
    DIVVY_VERSION_MAJOR * 1_000_000 + DIVVY_VERSION_MINOR * 1_000 + DIVVY_VERSION_PATCH
}

/// Checks that this library matches the header that the program was compiled with. Call
/// divvy_check_abi(DIVVY_ABI_VERSION) at the start of the program.
///
/// Parameters: header_version - DIVVY_ABI_VERSION.
/// Returns: OK; ABI_MISMATCH.
/// Thread: any. Does not block. Works in a forked child.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_check_abi(header_version: u32) -> divvy_status {
    if header_version == DIVVY_ABI_VERSION {
        divvy_status::DIVVY_OK
    } else {
        divvy_status::DIVVY_ABI_MISMATCH
    }
}

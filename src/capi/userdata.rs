//! The host's pointer that goes along with a callback.

use std::ffi::c_void;

/// Frees the userdata of a callback. Called exactly once, after the last use. NULL: nothing to free.
///
/// Thread: any thread of the library, or the thread that ends the use. Must not call into the
/// library.
pub type divvy_destroy_fn = Option<unsafe extern "C" fn(userdata: *mut c_void)>;

/// The pointer, and how it is freed.
pub(super) struct UserData {
    pointer: *mut c_void,
    destroy: divvy_destroy_fn,
}

// SAFETY: the header demands that what it points to may be used from any thread.
unsafe impl Send for UserData {}
// SAFETY: as above, also from several threads at once where a function says so.
unsafe impl Sync for UserData {}

impl UserData {
    pub fn new(pointer: *mut c_void, destroy: divvy_destroy_fn) -> Self {
        Self { pointer, destroy }
    }

    pub fn pointer(&self) -> *mut c_void {
        self.pointer
    }
}

impl Drop for UserData {
    fn drop(&mut self) {
        if let Some(destroy) = self.destroy {
            // SAFETY: the host gave this function for this pointer, and it is called only here.
            unsafe { destroy(self.pointer) };
        }
    }
}

//! `apache.request_rec`: the server's own structure of a request, for extension modules that know it.
//!
//! As in mod_wsgi it is a capsule without a name, so `PyCapsule_GetPointer(capsule, NULL)` gives the
//! pointer. When the request is over the capsule gets a name: the same call raises ValueError then,
//! and the pointer that somebody might still dig out leads to zeros instead of memory that httpd uses
//! for something else.

use core::ffi::{CStr, c_void};
use core::ptr::NonNull;

use pyo3::ffi;

use super::attach::Attached;
use super::object::Owned;
use super::raise::{Raised, Result, is_raised};

/// The name of a capsule whose request is over.
const ENDED: &CStr = c"apache.request_rec (the request has ended)";

/// More than any structure of a server has.
static ZEROS: [u64; 512] = [0; 512];

/// A capsule around `pointer`. [`end`] must be called before the pointer becomes invalid.
///
/// # Errors
/// Raises MemoryError.
pub fn new(py: Attached, pointer: NonNull<c_void>) -> Result<Owned> {
    let _ = py;
    // SAFETY: attached; the pointer is not null, and there is no destructor.
    unsafe {
        Owned::from_new(ffi::PyCapsule_New(
            pointer.as_ptr(),
            core::ptr::null(),
            None,
        ))
    }
}

/// The pointer is not to be had any more.
pub fn end(py: Attached, capsule: &Owned) {
    let zeros = core::ptr::from_ref(&ZEROS).cast_mut().cast();
    // SAFETY: a live object of the attached interpreter; both functions refuse what is no capsule.
    // The name and the zeros live for ever, and nobody may write to the latter.
    unsafe {
        ffi::PyCapsule_SetName(capsule.as_ptr(), ENDED.as_ptr());
        ffi::PyCapsule_SetPointer(capsule.as_ptr(), zeros);
    }
    if is_raised(py) {
        Raised.clear(py);
    }
}

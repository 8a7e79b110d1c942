//! Python's error indicator as a Rust error.

use core::ffi::CStr;
use std::ffi::CString;

use pyo3::ffi;

use super::attach::Attached;
use super::object::Owned;

/// An exception is set on this thread. Whoever gets it passes it on, clears it or takes it.
#[derive(Debug)]
#[must_use]
pub struct Raised;

/// The result of everything that may raise.
pub type Result<T> = core::result::Result<T, Raised>;

impl Raised {
    /// Forgets the exception.
    pub fn clear(self, _py: Attached) {
        // SAFETY: attached.
        unsafe { ffi::PyErr_Clear() }
    }

    /// Takes the exception out of the indicator, normalised, with its traceback set.
    pub fn take(self, py: Attached) -> Owned {
        #[cfg(Py_3_12)]
        // SAFETY: attached; the indicator is set, so this gives a new reference.
        let taken = unsafe { Owned::from_new(ffi::PyErr_GetRaisedException()) };
        #[cfg(not(Py_3_12))]
        // SAFETY: attached; the three references become ours, and value is kept.
        let taken = unsafe {
            let (mut kind, mut value, mut traceback) = (
                core::ptr::null_mut(),
                core::ptr::null_mut(),
                core::ptr::null_mut(),
            );
            ffi::PyErr_Fetch(&mut kind, &mut value, &mut traceback);
            ffi::PyErr_NormalizeException(&mut kind, &mut value, &mut traceback);
            if !traceback.is_null() && !value.is_null() {
                ffi::PyException_SetTraceback(value, traceback);
            }
            ffi::Py_XDECREF(kind);
            ffi::Py_XDECREF(traceback);
            Owned::from_new(value)
        };
        taken.unwrap_or_else(|_| Owned::none(py))
    }

    /// Puts an exception back.
    pub fn restore(_py: Attached, exception: Owned) -> Raised {
        // SAFETY: attached; a live exception instance, whose reference the indicator takes over
        // (3.12) or shares with its type and traceback (before).
        unsafe {
            #[cfg(Py_3_12)]
            ffi::PyErr_SetRaisedException(exception.into_ptr());
            #[cfg(not(Py_3_12))]
            {
                let value = exception.into_ptr();
                let kind = ffi::Py_TYPE(value).cast::<ffi::PyObject>();
                ffi::Py_INCREF(kind);
                ffi::PyErr_Restore(kind, value, ffi::PyException_GetTraceback(value));
            }
        }
        Raised
    }
}

/// The exceptions that this crate raises.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `TypeError`
    Type,
    /// `ValueError`
    Value,
    /// `RuntimeError`
    Runtime,
    /// `OSError`
    Os,
}

/// Sets an exception.
pub fn raise(_py: Attached, kind: Kind, message: &str) -> Raised {
    // SAFETY: the exception types are static objects; read while attached.
    let class = unsafe {
        match kind {
            Kind::Type => ffi::PyExc_TypeError,
            Kind::Value => ffi::PyExc_ValueError,
            Kind::Runtime => ffi::PyExc_RuntimeError,
            Kind::Os => ffi::PyExc_OSError,
        }
    };
    // A NUL in a message can only come from an application's own text.
    let message = CString::new(message.replace('\0', "\\x00")).unwrap_or_default();
    set(class, &message)
}

fn set(class: *mut ffi::PyObject, message: &CStr) -> Raised {
    // SAFETY: a live exception class and a C string; invalid UTF-8 cannot come from a str.
    unsafe { ffi::PyErr_SetString(class, message.as_ptr()) };
    Raised
}

/// Whether an exception is set.
pub fn is_raised(_py: Attached) -> bool {
    // SAFETY: attached.
    unsafe { !ffi::PyErr_Occurred().is_null() }
}

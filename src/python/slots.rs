//! Heap types made per interpreter, and the panic boundary of everything that Python calls.

use core::ffi::{CStr, c_int, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::ffi;

use super::attach::Attached;
use super::object::Owned;
use super::raise::{Raised, Result};
use crate::exchange::Level;
use crate::messages;

/// Runs `body`; a panic becomes a logged message and `on_panic`.
///
/// Everything that CPython or httpd calls goes through here or through [`object_slot`]: unwinding
/// into C would abort the process.
#[inline]
pub fn boundary<R>(on_panic: impl FnOnce() -> R, body: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("unknown");
        super::runtime::log(
            Level::Crit,
            &format!(
                "{}internal error: {text}; please report this as a bug",
                messages::GATEWAY_PANIC
            ),
        );
        on_panic()
    })
}

/// A slot or method that returns an object or raises.
#[inline]
pub fn object_slot(body: impl FnOnce() -> Result<Owned>) -> *mut ffi::PyObject {
    boundary(internal_error, || {
        body().map_or(core::ptr::null_mut(), Owned::into_ptr)
    })
}

#[cold]
fn internal_error() -> *mut ffi::PyObject {
    // SAFETY: slots are called attached; a static exception class and a C string.
    unsafe {
        ffi::PyErr_SetString(
            ffi::PyExc_RuntimeError,
            c"internal error of the server; the error log says more".as_ptr(),
        );
    }
    core::ptr::null_mut()
}

/// A slot of a type under construction.
pub fn slot(slot: c_int, function: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot {
        slot,
        pfunc: function,
    }
}

/// Makes a heap type that Python code can neither instantiate nor change.
///
/// Instances are made by [`new_instance`], hold no references to Python objects (so they need no
/// garbage collection) and are freed by [`free_instance`].
///
/// # Safety
/// `slots` are right for the instance type `T`, whose first field is a `PyObject`; what they point
/// to is static.
pub unsafe fn make_type<T>(
    _py: Attached,
    name: &'static CStr,
    extra_flags: core::ffi::c_ulong,
    slots: Vec<ffi::PyType_Slot>,
) -> Result<Owned> {
    let mut slots = slots;
    slots.push(ffi::PyType_Slot::default());
    #[cfg(Py_3_10)]
    let closed = ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION | ffi::Py_TPFLAGS_IMMUTABLETYPE;
    #[cfg(not(Py_3_10))]
    let closed = 0;
    let mut spec = ffi::PyType_Spec {
        name: name.as_ptr(),
        basicsize: size_of::<T>() as c_int,
        itemsize: 0,
        flags: (ffi::Py_TPFLAGS_DEFAULT | closed | extra_flags) as c_uint,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the spec is complete and its slots right by contract; CPython copies it.
    let made = unsafe { Owned::from_new(ffi::PyType_FromSpec(&mut spec)) }?;
    #[cfg(not(Py_3_10))]
    // SAFETY: a heap type that nobody has seen yet.
    unsafe {
        (*made.as_ptr().cast::<ffi::PyTypeObject>()).tp_new = None;
    }
    Ok(made)
}

/// Allocates an instance and moves `value` into it; the object header of `value` is replaced.
///
/// # Safety
/// `class` was made by [`make_type`] for `T`; `T` is `repr(C)` and begins with a `PyObject`.
pub unsafe fn new_instance<T>(_py: Attached, class: &Owned, value: T) -> Result<Owned> {
    // SAFETY: the allocation has the size of T (basicsize) and the alignment of malloc; the
    // header is written by PyObject_Init after the value has been moved in.
    unsafe {
        let memory = ffi::PyObject_Malloc(size_of::<T>()).cast::<T>();
        if memory.is_null() {
            ffi::PyErr_NoMemory();
            return Err(Raised);
        }
        memory.write(value);
        Owned::from_new(ffi::PyObject_Init(
            memory.cast(),
            class.as_ptr().cast::<ffi::PyTypeObject>(),
        ))
    }
}

/// `tp_dealloc` of such types.
///
/// # Safety
/// Called by CPython for an instance that [`new_instance`] made of `T`.
pub unsafe extern "C" fn free_instance<T>(object: *mut ffi::PyObject) {
    boundary(
        || (),
        || {
            // SAFETY: nobody refers to the object any more; heap types are counted by instances.
            unsafe {
                let class = ffi::Py_TYPE(object);
                core::ptr::drop_in_place(object.cast::<T>());
                ffi::PyObject_Free(object.cast());
                ffi::Py_DECREF(class.cast());
            }
        },
    );
}

/// An object header for `new_instance` to replace.
pub fn header() -> ffi::PyObject {
    // SAFETY: a PyObject is plain data for which all zeroes is a value.
    unsafe { core::mem::zeroed() }
}

/// A method table that statics can hold.
pub struct Methods<const N: usize>(pub [ffi::PyMethodDef; N]);

// SAFETY: names and functions, never written after construction.
unsafe impl<const N: usize> Sync for Methods<N> {}

/// A method without arguments.
pub const fn no_args(name: &'static CStr, function: ffi::PyCFunction) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunction: function,
        },
        ml_flags: ffi::METH_NOARGS,
        ml_doc: core::ptr::null(),
    }
}

/// A method with one argument.
pub const fn one_arg(name: &'static CStr, function: ffi::PyCFunction) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunction: function,
        },
        ml_flags: ffi::METH_O,
        ml_doc: core::ptr::null(),
    }
}

/// A method with positional arguments.
pub const fn fast_args(name: &'static CStr, function: ffi::PyCFunctionFast) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunctionFast: function,
        },
        ml_flags: ffi::METH_FASTCALL,
        ml_doc: core::ptr::null(),
    }
}

/// A method with positional and keyword arguments.
pub const fn any_args(
    name: &'static CStr,
    function: ffi::PyCFunctionWithKeywords,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunctionWithKeywords: function,
        },
        ml_flags: ffi::METH_VARARGS | ffi::METH_KEYWORDS,
        ml_doc: core::ptr::null(),
    }
}

/// The end of a method table.
pub const fn end() -> ffi::PyMethodDef {
    ffi::PyMethodDef::zeroed()
}

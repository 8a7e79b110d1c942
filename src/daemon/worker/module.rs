//! The Python module `_rwsgi`, which the bootstrap of a worker imports: the gateway is an ordinary
//! extension module then.

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};

use pyo3::ffi;

use super::{life, template};
use crate::python::runtime;
use crate::python::slots::{self, Methods};

static METHODS: Methods<3> = Methods([
    slots::no_args(c"worker", worker),
    slots::no_args(c"template", be_template),
    slots::end(),
]);

/// A place that CPython writes to.
struct Shared<T>(UnsafeCell<T>);

// SAFETY: written by CPython only, which orders its accesses by locks of its own.
unsafe impl<T> Sync for Shared<T> {}

/// What the module promises (PEP 489): that every interpreter may import it, and that it needs no
/// global lock. It has no state, and its functions refuse where they have no business.
static SLOTS: Shared<[ffi::PyModuleDef_Slot; 3]> = Shared(UnsafeCell::new([
    #[cfg(Py_3_12)]
    slot(
        ffi::Py_mod_multiple_interpreters,
        ffi::Py_MOD_PER_INTERPRETER_GIL_SUPPORTED,
    ),
    #[cfg(Py_3_13)]
    slot(ffi::Py_mod_gil, ffi::Py_MOD_GIL_NOT_USED),
    slot(0, core::ptr::null_mut()),
    #[cfg(not(Py_3_13))]
    slot(0, core::ptr::null_mut()),
    #[cfg(not(Py_3_12))]
    slot(0, core::ptr::null_mut()),
]));

const fn slot(slot: c_int, value: *mut c_void) -> ffi::PyModuleDef_Slot {
    ffi::PyModuleDef_Slot { slot, value }
}

static DEFINITION: Shared<ffi::PyModuleDef> = Shared(UnsafeCell::new(ffi::PyModuleDef {
    m_base: ffi::PyModuleDef_HEAD_INIT,
    m_name: c"_rwsgi".as_ptr(),
    m_doc: c"What a worker of rwsgi runs; not for applications.".as_ptr(),
    m_size: 0,
    m_methods: METHODS.0.as_ptr().cast_mut(),
    m_slots: SLOTS.0.get().cast(),
    m_traverse: None,
    m_clear: None,
    m_free: None,
}));

/// The module's initialisation.
///
/// # Safety
/// Called by the import system, attached to an interpreter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyInit__rwsgi() -> *mut ffi::PyObject {
    // SAFETY: attached; a static definition with static methods and slots.
    unsafe { ffi::PyModuleDef_Init(DEFINITION.0.get()) }
}

/// Raises unless this process may still become a worker: in an application the process is one
/// already.
fn is_free() -> bool {
    if runtime::runtime().is_none() {
        return true;
    }
    // SAFETY: called by Python, so attached; a static exception class and a C string.
    unsafe {
        ffi::PyErr_SetString(
            ffi::PyExc_RuntimeError,
            c"this process is a worker of rwsgi already".as_ptr(),
        );
    }
    false
}

/// `worker()`: is the worker of this process; does not return.
unsafe extern "C" fn worker(_: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    if !is_free() {
        return core::ptr::null_mut();
    }
    // SAFETY: called by the bootstrap on the main thread, attached to the main interpreter.
    unsafe { life::run() }
}

/// `template()`: forks the workers of this group, in which it does not return either.
unsafe extern "C" fn be_template(
    _: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    if !is_free() {
        return core::ptr::null_mut();
    }
    // SAFETY: as for `worker`.
    unsafe { template::run() }
}

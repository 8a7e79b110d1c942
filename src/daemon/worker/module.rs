//! The Python module `_rwsgi`, which the bootstrap of a worker imports: the gateway is an ordinary
//! extension module then.

use core::ffi::c_int;

use pyo3::ffi;

use super::{life, template};
use crate::python::slots::{self, Methods};

static METHODS: Methods<3> = Methods([
    slots::no_args(c"worker", worker),
    slots::no_args(c"template", be_template),
    slots::end(),
]);

/// The module's initialisation.
///
/// # Safety
/// Called by the import system, attached to the main interpreter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyInit__rwsgi() -> *mut ffi::PyObject {
    struct Definition(core::cell::UnsafeCell<ffi::PyModuleDef>);
    // SAFETY: written by CPython only, with the GIL held.
    unsafe impl Sync for Definition {}
    static DEFINITION: Definition = Definition(core::cell::UnsafeCell::new(ffi::PyModuleDef {
        m_base: ffi::PyModuleDef_HEAD_INIT,
        m_name: c"_rwsgi".as_ptr(),
        m_doc: c"What a worker of rwsgi runs; not for applications.".as_ptr(),
        m_size: -1,
        m_methods: METHODS.0.as_ptr().cast_mut(),
        m_slots: core::ptr::null_mut(),
        m_traverse: None,
        m_clear: None,
        m_free: None,
    }));
    // SAFETY: attached; a static definition with static methods, which CPython does not change.
    unsafe { ffi::PyModule_Create2(DEFINITION.0.get(), ffi::PYTHON_API_VERSION as c_int) }
}

/// `worker()`: is the worker of this process; does not return.
unsafe extern "C" fn worker(_: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by the bootstrap on the main thread, attached to the main interpreter.
    unsafe { life::run() }
}

/// `template()`: forks the workers of this group, in which it does not return either.
unsafe extern "C" fn be_template(
    _: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as for `worker`.
    unsafe { template::run() }
}

//! The object behind `mod_ssl.is_https()` and `mod_ssl.var_lookup(name)`.

use core::cell::Cell;
use core::ffi::CStr;

use pyo3::ffi;

use super::ServerSide;
use crate::python::attach::Attached;
use crate::python::interpreter::Interpreter;
use crate::python::object::{Owned, bytes_of, int, latin1, latin1_bytes, type_name};
use crate::python::raise::{Kind, Result, raise};
use crate::python::request::this_thread;
use crate::python::slots::{self, Methods, object_slot};

/// What the object sees of a consultation.
pub struct Tls<'c> {
    pub side: &'c ServerSide<'c>,
}

#[repr(C)]
struct Auth {
    header: ffi::PyObject,
    interpreter: &'static Interpreter,
    /// The thread that asks ([`this_thread`]): no other looks at `view`.
    owner: usize,
    /// Null when the consultation has ended.
    view: Cell<*const Tls<'static>>,
}

/// Makes the type, once per interpreter.
pub fn make_type(py: Attached) -> Result<Owned> {
    let slots = vec![
        slots::slot(ffi::Py_tp_dealloc, slots::free_instance::<Auth> as *mut _),
        slots::slot(ffi::Py_tp_methods, METHODS.0.as_ptr() as *mut _),
    ];
    // SAFETY: the slots are written for Auth, which begins with its header.
    unsafe { slots::make_type::<Auth>(py, c"mod_wsgi.Auth", 0, slots) }
}

static METHODS: Methods<3> = Methods([
    slots::no_args(c"is_https", is_https),
    slots::one_arg(c"var_lookup", var_lookup),
    slots::end(),
]);

/// The object for a consultation.
///
/// # Safety
/// [`end`] is called on the result before `view` goes away.
pub unsafe fn new(py: Attached, view: &Tls<'_>) -> Result<Owned> {
    let value = Auth {
        header: slots::header(),
        interpreter: py.interpreter(),
        owner: this_thread(),
        view: Cell::new(core::ptr::from_ref(view).cast()),
    };
    let class = &py.interpreter().wsgi().consult().tls;
    // SAFETY: the class was made for Auth by `make_type`.
    unsafe { slots::new_instance(py, class, value) }
}

/// One of its methods, bound.
pub fn method(_py: Attached, object: &Owned, name: &CStr) -> Result<Owned> {
    // SAFETY: a live object and a C string.
    unsafe { Owned::from_new(ffi::PyObject_GetAttrString(object.as_ptr(), name.as_ptr())) }
}

/// Ends the object: its methods raise from now on.
///
/// # Safety
/// `object` was made by [`new`].
pub unsafe fn end(_py: Attached, object: &Owned) {
    // SAFETY: by contract an instance of Auth.
    unsafe {
        (*object.as_ptr().cast::<Auth>())
            .view
            .set(core::ptr::null())
    }
}

/// Runs a method while the consultation lasts, on its own thread: what the server answers with
/// lies in memory that belongs to that thread.
///
/// # Safety
/// Called by CPython with `object` an instance of Auth.
unsafe fn with_view(
    object: *mut ffi::PyObject,
    body: impl FnOnce(Attached, &Tls<'_>) -> Result<Owned>,
) -> *mut ffi::PyObject {
    object_slot(|| {
        // SAFETY: an instance of Auth, kept alive by the caller; CPython calls us attached to the
        // interpreter that made it.
        let (py, object) = unsafe {
            let object = &*object.cast::<Auth>();
            (Attached::assume(object.interpreter), object)
        };
        if object.owner != this_thread() {
            return Err(raise(
                py,
                Kind::Runtime,
                "mod_ssl functions can only be called by the thread of the request",
            ));
        }
        // SAFETY: this thread ends the consultation, so a view that is not null is alive.
        match unsafe { object.view.get().as_ref() } {
            Some(view) => body(py, view),
            None => Err(raise(
                py,
                Kind::Runtime,
                "the request that this mod_ssl function belongs to has ended",
            )),
        }
    })
}

unsafe extern "C" fn is_https(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_NOARGS of Auth.
    unsafe { with_view(object, |py, view| int(py, view.side.is_https().into())) }
}

unsafe extern "C" fn var_lookup(
    object: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_O of Auth: both are live.
    unsafe {
        with_view(object, |py, view| {
            let name = if ffi::PyUnicode_Check(name) != 0 {
                latin1_bytes(py, name)?
            } else if ffi::PyBytes_Check(name) != 0 {
                bytes_of(name)
            } else {
                let message = format!("a variable's name must be str, not {}", type_name(name));
                return Err(raise(py, Kind::Type, &message));
            };
            if name.contains(&0) {
                return Err(raise(py, Kind::Value, "a variable's name has no NUL"));
            }
            match view.side.tls_variable(name) {
                Some(value) => latin1(py, value),
                None => Ok(Owned::none(py)),
            }
        })
    }
}
